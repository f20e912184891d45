"""--dataset_mode maps: label maps whose classes the data set's own classes.txt names."""

import json
import pickle
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import reading
from PIL import Image
from reading import load_records

from stay_diffusion.data.annotations import AnnotationError, EmptySplit, Vocabulary
from stay_diffusion.data.formats import semantic_map, vott
from stay_diffusion.data.loader import in_order

TILES = Path(__file__).resolve().parents[2] / "../shared/data/magnetic_tile_mini"
TILE_CLASSES = ("Blowhole", "Break", "Crack", "Fray", "Uneven")
TRAIN, SAMPLE = "scripts/image_train.py", "scripts/image_sample.py"
CHECK, BROWSE = "scripts/check_data.py", "scripts/browse_data.py"

needs_tiles = pytest.mark.skipif(not TILES.is_dir(), reason="needs ../shared/data/magnetic_tile_mini")


def ids_of(*parts, width=40, height=30, dtype=np.uint8):
    """A map of id 0 with (id, (x0, y0, x1, y1)) painted one after the other."""
    ids = np.zeros((height, width), dtype=dtype)
    for value, (x0, y0, x1, y1) in parts:
        ids[y0:y1, x0:x1] = value
    return ids


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def fill(folder, maps, split="training", labels="annotations", classes="pit\nscratch\n"):
    """Puts {stem: ids} into `folder` with grey pictures that show them."""
    for stem, ids in maps.items():
        save(folder / "images" / split / f"{stem}.png", (ids * 100).astype(np.uint8))
        save(folder / labels / split / f"{stem}.png", ids)
    (folder / "classes.txt").write_text(classes)
    return folder


TWO = {"a": ids_of((1, (2, 3, 10, 9)), (2, (20, 5, 22, 6))), "good": ids_of()}


def drawn(folder, split="train", **options):
    """Per stem the objects as (class name, box), the largest first."""
    records, names = load_records("maps", folder, split, **{"val_fraction": 0, **options})
    found = {}
    for record in records:
        maps = semantic_map.read(record.maps)
        boxes, labels = semantic_map.objects(maps, record.maps.coding, use_instances=True)
        found[record.stem] = [
            (names.classes[label - 1], tuple(box)) for label, box in zip(labels, boxes.tolist(), strict=True)
        ]
    return found


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "data"
    folder.mkdir()
    for name in ("images", "annotations"):
        (folder / name).symlink_to(TILES / name)
    (folder / "classes.txt").write_text("\n".join(TILE_CLASSES))
    return folder


def test_each_part_is_an_object_however_small_and_a_map_of_zeros_a_good_part(tmp_path):
    assert drawn(fill(tmp_path, TWO)) == {"a": [("pit", (2, 3, 10, 9)), ("scratch", (20, 5, 22, 6))], "good": []}
    assert 2 / TWO["a"].size < 0.005  # what the published data sets leave out


def test_the_classes_are_those_of_the_file_and_the_background_comes_last(tmp_path):
    folder = fill(tmp_path, TWO, classes="\ufeffpit \r\nLöcher\r\n\n")
    records, names = load_records("maps", folder, "train", val_fraction=0)
    assert names == Vocabulary(("pit", "Löcher", "background"))
    assert np.unique(semantic_map.read(records[0].maps).labels).tolist() == [1, 2, 3]


@pytest.mark.parametrize("labels", ["annotations", "labels"])
@pytest.mark.parametrize(("train", "val"), [("training", "validation"), ("train", "val"), ("train", "valid")])
def test_the_splits_are_folders_by_either_name(tmp_path, labels, train, val):
    fill(tmp_path, {"a": TWO["a"]}, train, labels)
    fill(tmp_path, {"b": TWO["a"]}, val, labels)
    assert (list(drawn(tmp_path)), list(drawn(tmp_path, "val"))) == (["a"], ["b"])


@pytest.mark.parametrize("folder", ["training", ""])
def test_without_a_validation_folder_a_share_is_held_out_by_name(tmp_path, folder):
    fill(tmp_path, {f"p{i:02d}": TWO["a"] for i in range(40)}, folder)
    train, val = (set(drawn(tmp_path, split, val_fraction=0.3)) for split in ("train", "val"))
    assert len(train | val) == 40 and not train & val and 4 <= len(val) <= 20
    with pytest.raises(EmptySplit, match="no images for the val split"):
        drawn(tmp_path, "val", val_fraction=0)


def test_a_list_makes_the_splits_of_one_folder(tmp_path):
    fill(tmp_path / "data", TWO)
    for split, stem in (("train", "a"), ("val", "good")):
        (tmp_path / f"{split}.txt").write_text(stem)
    lists = str(tmp_path / "{split}.txt")
    assert [list(drawn(tmp_path / "data", split, id_list=lists)) for split in ("train", "val")] == [["a"], ["good"]]


def test_an_instance_is_what_has_one_id_and_one_class_and_0_is_none(tmp_path):
    ids = ids_of(
        (1, (0, 0, 8, 4)), (1, (12, 0, 16, 4)), (2, (0, 10, 5, 15)), (1, (30, 20, 33, 23)), (1, (36, 0, 38, 1))
    )
    raw = [(1, (0, 0, 4, 4)), (300, (4, 0, 8, 4)), (300, (12, 0, 16, 4)), (1, (0, 10, 5, 15)), (9, (20, 20, 25, 25))]
    folder = fill(tmp_path, {"a": ids})
    save(folder / "instances/training/a.png", ids_of(*raw, dtype=np.uint16))
    expected = [("pit", (4, 0, 16, 4)), ("scratch", (0, 10, 5, 15)), ("pit", (0, 0, 4, 4)), ("pit", (30, 20, 33, 23))]
    expected.append(("pit", (36, 0, 38, 1)))
    assert drawn(folder)["a"] == expected


def test_records_and_samples_pass_to_other_processes(tmp_path):
    records, names = load_records("maps", fill(tmp_path, TWO), "train", val_fraction=0)
    copies = pickle.loads(pickle.dumps(records))
    assert copies == records and copies[0].maps.coding is copies[1].maps.coding
    dataset = reading.dataset_of(records, names, image_size=32, image_channels=1)
    seen = [next(iter(in_order(dataset, 2, num_workers))) for num_workers in (0, 1)]
    assert np.array_equal(seen[0][1].labels, seen[1][1].labels) and seen[0][1].labels[0].tolist() == [1, 2]
    assert np.array_equal(seen[0][1].semantic_map, seen[1][1].semantic_map)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pit\n\nscratch\n", "classes.txt, line 2: no class name; line 2 is that of id 2"),
        ("pit\nscratch\npit\n", "classes.txt, line 3: 'pit' is the name of id 1 already"),
        ("Background\npit\n", "classes.txt: the class 'Background' is id 0"),
        ("\n\n", "classes.txt: no class name in it"),
        ("pit\x07\nscratch\n", "classes.txt, line 1: no class name"),
    ],
)
def test_names_that_are_none_twice_or_the_background_are_named_with_their_line(tmp_path, text, words):
    with pytest.raises(AnnotationError, match=re.escape(words)):
        load_records("maps", fill(tmp_path, TWO, classes=text), "train")


def test_without_names_the_error_says_what_to_write_and_where(tmp_path):
    (fill(tmp_path, TWO) / "classes.txt").unlink()
    words = f"--data_dir {tmp_path}: has no classes.txt; write one with a class name per line, that of id 1 first"
    with pytest.raises(AnnotationError, match=re.escape(words)):
        load_records("maps", tmp_path, "train")


def test_an_id_without_a_name_is_named_with_the_map_and_the_list(tmp_path):
    folder = fill(tmp_path, {"a": ids_of((255, (0, 0, 3, 3)))})
    words = f"a.png: ids 255 have no class; {folder / 'classes.txt'} has 0..2"
    with pytest.raises(AnnotationError, match=re.escape(words)):
        drawn(folder)


def test_a_folder_of_maps_that_is_not_there_is_named(tmp_path):
    fill(tmp_path, TWO, labels="masks")
    with pytest.raises(AnnotationError, match=r"annotations/training: no such folder, for the train split of .* maps"):
        load_records("maps", tmp_path, "train")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("scratch", "background"), "classes.txt: its class 1 is 'pit', but the model's is 'scratch'"),
        (("pit", "background"), "classes.txt: its class 2 is 'scratch', but the model's is 'background'"),
        (("pit", "scratch"), "classes.txt: has 3 classes, but the model knows 2"),
    ],
)
def test_the_names_that_a_model_knows_are_held_against_the_file(tmp_path, classes, words):
    with pytest.raises(AnnotationError, match=re.escape(words)):
        load_records("maps", fill(tmp_path, TWO), "train", classes=classes)


@pytest.mark.parametrize("known_by", ["classes", "known"])
def test_the_names_of_maps_are_read_with_a_models_labels_in_any_order(tmp_path, known_by):
    names = ("dent", "background", "scratch", "pit")
    options = {"classes": {"classes": names}, "known": {"known": Vocabulary(names[:3])}}[known_by]
    records, vocabulary = load_records("maps", fill(tmp_path, TWO), "train", val_fraction=0, **options)
    assert vocabulary.classes == names
    objects = dict(drawn(tmp_path))
    for record in records:
        maps, ids = semantic_map.read(record.maps), np.asarray(Image.open(record.maps.labels))
        assert np.array_equal(maps.labels, np.array([2, 4, 3])[ids])
        labels = semantic_map.objects(maps, record.maps.coding, True)[1]
        assert [names[label - 1] for label in labels] == [name for name, _ in objects[record.stem]]
        assert np.array_equal(np.asarray(semantic_map.to_image(maps.labels, record.maps.coding)), ids)


def test_an_id_without_a_name_is_told_with_those_that_the_maps_have(tmp_path):
    fill(tmp_path, {"a": ids_of((7, (0, 0, 3, 3)))})
    (record,), _ = load_records("maps", tmp_path, "train", val_fraction=0, known=Vocabulary(("dent",)))
    with pytest.raises(AnnotationError, match=r"ids 7 have no class; .*classes.txt has 0\.\.2$"):
        semantic_map.read(record.maps)


def test_mere_numbers_are_the_names_of_maps_that_are_learnt_again(tmp_path):
    known = Vocabulary(("class_1", "class_2", "class_3"))
    assert load_records("maps", fill(tmp_path, TWO), "train", known=known)[1].classes == known.classes


@needs_tiles
@pytest.mark.parametrize(
    ("split", "folder", "num", "empty"), [("train", "training", 102, 12), ("val", "validation", 34, 4)]
)
def test_tiles_have_the_objects_of_their_boxes(tiles, split, folder, num, empty):
    found = drawn(tiles, split)
    assert (len(found), sum(not objects for objects in found.values())) == (num, empty)
    # The boxes join parts up to 4 pixels apart and leave out those under 9 pixels.
    for record in vott.read(TILES / "images" / folder / f"MagneticTile-{folder}-export.json")[0]:
        inside = Counter()
        for name, (x0, y0, x1, y1) in found[record.stem]:
            around = [b for b in record.boxes if b.x0 <= x0 + 0.01 and b.y0 <= y0 + 0.01]
            around = [b for b in around if b.x1 >= x1 - 0.01 and b.y1 >= y1 - 0.01 and b.label == name]
            assert around or (x1 - x0) * (y1 - y0) < 9
            inside.update(around)
        assert set(inside) == set(record.boxes)


@needs_tiles
def test_check_data_counts_the_tiles(run_script, tiles, tmp_path):
    run_script(CHECK, "--data_dir", tiles, "--dataset_mode", "maps", "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    counted = {split: (of["images"], of["without_boxes"], of["boxes"]) for split, of in report["splits"].items()}
    parts = {split: sum(len(objects) for objects in drawn(tiles, split).values()) for split in counted}
    assert counted == {"train": (102, 12, parts["train"]), "val": (34, 4, parts["val"])}
    assert set(report["classes"]) == set(TILE_CLASSES) and not report["problems"]


@needs_tiles
def test_browse_data_shows_the_tiles(run_script, tiles, tmp_path):
    words = ["--data_dir", tiles, "--dataset_mode", "maps", "--split", "val", "--out", tmp_path, "--image_size", 256]
    ended = run_script(BROWSE, *words)
    parts = sum(map(len, drawn(tiles, "val").values()))
    assert f"{parts} boxes drawn" in ended.output and "4 views without boxes" in ended.output


def test_a_map_of_another_size_than_its_picture_is_found_and_stops_training(run_script, tiny_network, tmp_path):
    folder = fill(tmp_path / "data", TWO)
    save(folder / "annotations/training/good.png", ids_of(width=30, height=40))
    words = ["--data_dir", folder, "--dataset_mode", "maps", "--val_fraction", 0]
    ended = run_script(CHECK, *words, code=1)
    assert "good.png: annotated as 30x40, the image has 40x30 pixels" in ended.output
    ended = run_script(TRAIN, *tiny_network, *words, "--logdir", tmp_path / "run", "--max_steps", 1, code=1)
    assert "has 30x40 pixels but the image has 40x30" in ended.output.splitlines()[-1]


@needs_tiles
@pytest.mark.parametrize("conditioning", ["spade", "isla_bg"])
def test_a_model_of_tiles_is_trained_and_sampled(run_script, tiles, tiny_network, tmp_path, conditioning):
    words = ["--data_dir", tiles, "--dataset_mode", "maps", "--conditioning", conditioning, "--no_instance", True]
    words += ["--logdir", tmp_path / "run", "--max_steps", 2, "--batch_size", 2, "--num_workers", 1]
    assert "data: 102 training" in run_script(TRAIN, *tiny_network, *words).output
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["classes"] == [*TILE_CLASSES, "background"]
    weights = sorted((tmp_path / "run").glob("*ema*.pt"))[-1]
    sample = ["--model_path", weights, "--num_steps", 2, "--num_samples", 12, "--batch_size", 6]
    run_script(SAMPLE, *sample, "--results_path", tmp_path / "out")
    centres = (np.arange(16) + 0.5) / 16
    for written in sorted((tmp_path / "out/labels").iterdir()):
        source = np.asarray(Image.open(tiles / "annotations/validation" / written.name))
        rows, columns = ((centres * side).astype(int) for side in source.shape)
        assert np.array_equal(np.asarray(Image.open(written)), source[rows][:, columns])

    other = tmp_path / "other"
    other.mkdir()
    for name in ("images", "annotations"):
        (other / name).symlink_to(TILES / name)
    (other / "classes.txt").write_text("\n".join(["Dust", *TILE_CLASSES[1:]]))
    ended = run_script(SAMPLE, *sample, "--results_path", tmp_path / "no", "--data_dir", other, code=1)
    told = f"{other / 'classes.txt'}: its class 1 is 'Dust', but the model's is 'Blowhole'"
    assert told in ended.output.splitlines()[-1] and not (tmp_path / "no/samples").exists()


def test_instance_edges_reach_a_model_of_maps(run_script, tiny_network, tmp_path):
    folder = fill(tmp_path / "data", TWO)
    for stem, ids in TWO.items():
        save(folder / f"instances/training/{stem}.png", ids)
    words = ["--data_dir", folder, "--dataset_mode", "maps", "--conditioning", "spade", "--val_fraction", 0]
    run_script(TRAIN, *tiny_network, *words, "--logdir", tmp_path / "run", "--dry_run")
    (folder / "instances/training/good.png").unlink()
    ended = run_script(TRAIN, *tiny_network, *words, "--logdir", tmp_path / "run", "--dry_run", code=1)
    assert "good.png: no instance map in" in ended.output.splitlines()[-1]
