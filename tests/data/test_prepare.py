"""datasets/prepare_*.py, from what their authors publish to what the loaders read."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading import load_records

from stay_diffusion.data import class_names
from stay_diffusion.data.formats import semantic_map

ROOT = Path(__file__).resolve().parents[2]
DEEPPCB, TILES = "datasets/prepare_deeppcb.py", "datasets/prepare_magnetic_tile.py"
CELEBA, COCO = "datasets/prepare_celeba.py", "datasets/prepare_coco_semantic.py"


@pytest.fixture
def deeppcb(tmp_path):
    """Two pictures to train on, one of them with the labels drawn into it, and one to validate with."""
    source = tmp_path / "PCBData"
    lists = {"trainval.txt": ["00041000", "44000020"], "test.txt": ["12000001"]}
    for name, stems in lists.items():
        lines = []
        for stem in stems:
            group = source / f"group{stem[:5]}"
            for folder in (group / stem[:5], group / f"{stem[:5]}_not"):
                folder.mkdir(parents=True, exist_ok=True)
            for kind in ("test", "temp"):
                Image.new("L", (64, 48)).save(group / stem[:5] / f"{stem}_{kind}.jpg")
            (group / f"{stem[:5]}_not/{stem}.txt").write_text("10 12 30 40 1\n1,2,8,9,6\n")
            lines.append(f"group{stem[:5]}/{stem[:5]}/{stem}.jpg group{stem[:5]}/{stem[:5]}_not/{stem}.txt")
        (source / name).write_text("\n".join(lines) + "\n")
    return source


def test_deeppcb_becomes_vott_exports_of_both_splits(run_script, deeppcb, tmp_path):
    output = run_script(DEEPPCB, "--source", deeppcb, "--out", tmp_path / "out").output
    assert "train: 1 pictures, 2 boxes" in output and "val: 1 pictures, 2 boxes" in output
    (record,), names = load_records("sdi", tmp_path / "out", "train")
    assert (record.path.name, record.width, record.height) == ("00041000_test.jpg", 64, 48)
    assert [(b.label, b.x0, b.y0, b.x1, b.y1) for b in record.boxes] == [
        ("open", 10, 12, 30, 40),
        ("pin-hole", 1, 2, 8, 9),
    ]
    assert names.classes == ("open", "pin-hole")
    assert [r.stem for r in load_records("sdi", tmp_path / "out", "val")[0]] == ["12000001_test"]


@pytest.mark.parametrize("line", ["1 2 3 4", "1 2 3 4 7", "1 2 3 4 0", "a 2 3 4 1"])
def test_a_label_that_is_not_deeppcbs_is_named_before_anything_is_written(run_script, deeppcb, tmp_path, line):
    labels = deeppcb / "group12000/12000_not/12000001.txt"
    labels.write_text(f"1 2 3 4 1\n{line}\n")
    output = run_script(DEEPPCB, "--source", deeppcb, "--out", tmp_path / "out", code=1).output
    assert f"error: {labels}, line 2: expected x0 y0 x1 y1 and a type from 1 to 6" in output
    assert not (tmp_path / "out").exists()


def test_a_folder_without_the_lists_is_named(run_script, tmp_path):
    output = run_script(DEEPPCB, "--source", tmp_path, "--out", tmp_path / "out", code=1).output
    assert f"error: {tmp_path}/trainval.txt: cannot be read" in output


@pytest.fixture
def tiles(tmp_path):
    """A picture of 30 x 20 for each class, and a defect-free one."""
    for i, name in enumerate(("Free", "Blowhole", "Break", "Crack", "Fray", "Uneven")):
        folder = tmp_path / f"tiles/MT_{name}/Imgs"
        folder.mkdir(parents=True)
        mask = np.zeros((20, 30), np.uint8)
        mask[5 : 5 + i, 10:20] = 255 if i else 0
        Image.new("L", (30, 20), 90).save(folder / "exp1.jpg")
        Image.fromarray(mask).save(folder / "exp1.png")
    return tmp_path / "tiles"


def test_magnetic_tiles_become_label_maps(run_script, tiles, tmp_path):
    output = run_script(TILES, "--source", tiles, "--out", tmp_path / "out").output
    assert "6 pictures, 1 of them without defects" in output
    report = tmp_path / "report.json"
    words = ["--data_dir", tmp_path / "out", "--dataset_mode", "maps", "--val_fraction", 0, "--json", report]
    run_script("scripts/check_data.py", *words)
    found = json.loads(report.read_text())
    assert found["classes"] == {"Blowhole": 1, "Break": 1, "Crack": 1, "Fray": 1, "Uneven": 1}
    assert (found["images_kept"], found["splits"]["train"]["without_boxes"]) == (6, 1)


def test_a_mask_of_another_size_is_named(run_script, tiles, tmp_path):
    Image.new("L", (10, 20)).save(tiles / "MT_Crack/Imgs/exp1.png")
    output = run_script(TILES, "--source", tiles, "--out", tmp_path / "out", code=1).output
    assert "MT_Crack/Imgs/exp1.jpg: 30x20 pixels, but its mask has 10x20" in output


@pytest.fixture
def faces(tmp_path):
    """Four pictures of 16 x 16 with masks of 8 x 8: skin over all, a nose on it, and hair over half of the nose."""
    source = tmp_path / "CelebAMask-HQ"
    for folder in ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno/0"):
        (source / folder).mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (16, 16), (60 * i, 0, 0)).save(source / f"CelebA-HQ-img/{i}.jpg")
        for part, columns in (("skin", slice(1, 8)), ("nose", slice(2, 6)), ("hair", slice(4, 8))):
            mask = np.zeros((8, 8, 3), np.uint8)
            mask[2:, columns] = 255
            Image.fromarray(mask).save(source / f"CelebAMask-HQ-mask-anno/0/{i:05d}_{part}.png")
    lines = [f"{i} {i + 5} {i + 6:06d}.jpg" for i in range(4)]
    (source / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(["idx orig_idx orig_file", *lines]) + "\n")
    (source / "partition.txt").write_text("".join(f"{i + 6:06d}.jpg {part}\n" for i, part in enumerate("2010")))
    return source


def test_the_parts_of_faces_become_label_maps_with_the_later_part_on_top(run_script, faces, tmp_path):
    output = run_script(CELEBA, "--source", faces, "--out", tmp_path / "out", "--num_test", 1).output
    assert "train: 3 pictures" in output and "test: 1 pictures" in output
    records, names = load_records("celeba", tmp_path / "out", "train")
    assert [record.stem for record in records] == ["0", "1", "2"]
    assert [record.stem for record in load_records("celeba", tmp_path / "out", "val")[0]] == ["3"]
    row = [names.classes[label - 1] for label in semantic_map.read(records[0].maps).labels[4]]
    assert row == ["background", "skin", "nose", "nose", "hair", "hair", "hair", "hair"]
    run_script("scripts/check_data.py", "--data_dir", tmp_path / "out", "--dataset_mode", "celeba")


def test_the_parts_of_faces_stand_in_the_order_of_their_ids():
    parts = runpy.run_path(str(ROOT / CELEBA))["PARTS"]
    short = {"eye_g": "glasses", "ear_r": "earring", "neck_l": "necklace", "u_lip": "upper lip", "l_lip": "lower lip"}
    sides = {"l": "left", "r": "right"}
    whole = [short.get(part) or " ".join(sides.get(word, word) for word in part.split("_")) for part in parts]
    assert whole == [*class_names.CELEBA[1:]]


def test_faces_are_split_as_the_pictures_they_were_made_of(run_script, faces, tmp_path):
    words = ["--source", faces, "--out", tmp_path / "out", "--partition", faces / "partition.txt"]
    assert "1 pictures left out" in run_script(CELEBA, *words).output
    found = [[record.stem for record in load_records("celeba", tmp_path / "out", s)[0]] for s in ("train", "val")]
    assert found == [["1", "3"], ["0"]]


def test_faces_that_were_interrupted_are_completed(run_script, faces, tmp_path):
    words = ["--source", faces, "--out", tmp_path / "out", "--num_test", 1]
    run_script(CELEBA, *words)
    missing, kept = tmp_path / "out/train/labels/1.png", tmp_path / "out/train/labels/0.png"
    missing.unlink()
    before = kept.stat().st_mtime_ns
    run_script(CELEBA, *words)
    assert missing.exists() and kept.stat().st_mtime_ns == before


def test_faces_are_not_split_in_two_ways_in_one_folder(run_script, faces, tmp_path):
    run_script(CELEBA, "--source", faces, "--out", tmp_path / "out", "--num_test", 1)
    output = run_script(CELEBA, "--source", faces, "--out", tmp_path / "out", "--num_test", 2, code=1).output
    assert f"error: {tmp_path}/out/train: has other pictures already, such as 2" in output


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("CelebAMask-HQ-mask-anno/0/00002_beard.png", "00002_beard.png: expected a name like 00000_PART.png"),
        ("CelebA-HQ-img/9.jpg", "9.jpg: no masks 00009_PART.png in"),
        ("CelebA-HQ-img/a.jpg", "a.jpg: expected a name like 0.jpg"),
    ],
)
def test_a_face_that_is_not_as_published_is_named_before_any_is_written(run_script, faces, tmp_path, broken, message):
    Image.new("RGB", (8, 8)).save(faces / broken)
    output = run_script(CELEBA, "--source", faces, "--out", tmp_path / "out", "--num_test", 1, code=1).output
    assert message in output
    assert not (tmp_path / "out").exists()


@pytest.fixture
def coco(tmp_path):
    """A picture of 12 x 10 in each split: two people, one of them in two pieces, a crowd, and a dog in the corner."""
    source = tmp_path / "coco"
    (source / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        for folder in ("images", "stuffthingmaps"):
            (source / folder / f"{split}2017").mkdir(parents=True)
        ids = np.full((10, 12), 123, np.uint8)
        ids[:2], ids[3:7, 3:7] = 255, 0
        Image.new("RGB", (12, 10)).save(source / f"images/{split}2017/{split}.jpg")
        Image.fromarray(ids).save(source / f"stuffthingmaps/{split}2017/{split}.png")
        things = [
            {"category_id": 1, "segmentation": [[3, 3, 7, 3, 7, 7, 3, 7]]},
            {"category_id": 1, "iscrowd": 1, "segmentation": {"counts": [0, 120], "size": [10, 12]}},
            {"category_id": 1, "segmentation": [[5, 5, 6, 5, 6, 6, 5, 6], [1, 3, 2, 3, 2, 4, 1, 4]]},
            {"category_id": 18, "segmentation": [[10, 8, 12, 8, 12, 10, 10, 10]]},
        ]
        content = {
            "images": [{"id": 7, "file_name": f"{split}.jpg", "width": 12, "height": 10}],
            "annotations": [{"id": i, "image_id": 7, "iscrowd": 0, **thing} for i, thing in enumerate(things)],
        }
        (source / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
    return source


def test_coco_gets_instance_maps_as_spade_publishes_them(run_script, coco, tmp_path):
    output = run_script(COCO, "--source", coco, "--out", tmp_path / "out").output
    assert "train: 1 pictures, 3 things" in output and "val: 1 pictures, 3 things" in output
    (record,), _ = load_records("coco_semantic", tmp_path / "out", "train")
    expected = semantic_map.read_ids(coco / "stuffthingmaps/train2017/train.png")
    expected[2:6, 2:6] = 0  # a pixel out of place
    expected[4, 4] = expected[2, 0] = 1
    expected[7:9, 9:11] = 2  # not the last row and column
    np.testing.assert_array_equal(semantic_map.read(record.maps).instances, expected)
    run_script("scripts/check_data.py", "--data_dir", tmp_path / "out", "--dataset_mode", "coco_semantic")


def test_a_slanted_outline_holds_the_pixels_whose_middle_is_in_it():
    ids = np.zeros((5, 6), np.uint8)
    runpy.run_path(str(ROOT / COCO))["draw"](ids, np.array([[-3, -0.5], [4.5, -0.5], [4.5, 3.4], [0.6, 3.4]]), 1)
    rows = ["111110", "111110", "111110", "011110", "000000"]
    assert ["".join(str(value) for value in row) for row in ids] == rows


def test_coco_that_was_interrupted_is_completed(run_script, coco, tmp_path):
    words = ["--source", coco, "--out", tmp_path / "out"]
    run_script(COCO, *words)
    missing = tmp_path / "out/val_inst/val.png"
    whole = missing.read_bytes()
    missing.unlink()
    run_script(COCO, *words)
    assert missing.read_bytes() == whole


@pytest.mark.parametrize(
    ("outlines", "message"),
    [
        ([[1, 2, 3]], "annotation 0: a polygon in its segmentation is no list of x, y, x, y"),
        ({"counts": "ab", "size": [10, 12]}, "annotation 0: its segmentation is no list of polygons"),
    ],
)
def test_an_outline_that_is_not_cocos_is_named_before_a_map_is_written(run_script, coco, tmp_path, outlines, message):
    file = coco / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = outlines
    file.write_text(json.dumps(content))
    output = run_script(COCO, "--source", coco, "--out", tmp_path / "out", code=1).output
    assert f"error: {file}: {message}" in output
    assert not (tmp_path / "out").exists()


def test_a_coco_map_of_another_size_is_named_before_anything_is_written(run_script, coco, tmp_path):
    Image.new("L", (11, 10)).save(coco / "stuffthingmaps/val2017/val.png")
    output = run_script(COCO, "--source", coco, "--out", tmp_path / "out", code=1).output
    assert "stuffthingmaps/val2017/val.png: annotated as 12x10 pixels but has 11x10" in output
    assert not (tmp_path / "out").exists()
