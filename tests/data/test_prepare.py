"""datasets/prepare_*.py, from what their authors publish to what the loaders read."""

import json

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.datasets import load_records

DEEPPCB, TILES = "datasets/prepare_deeppcb.py", "datasets/prepare_magnetic_tile.py"


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
