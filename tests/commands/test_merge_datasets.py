"""scripts/merge_datasets.py: what is taken, what it is called, what is refused."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading import load_records

from stay_diffusion.commands import run
from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.exports import READ_AS
from stay_diffusion.data.formats import vott, yolo
from stay_diffusion.data.provenance import text_chunks
from stay_diffusion.data.splits import some_of

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared/data"
HOLE, DENT = ("hole", 2, 3, 9, 8), ("dent", 1, 1, 5, 6)


def make_set(folder, pictures, tags, grey=50, provenance=None):
    """A VoTT export of (name, product, boxes) in a folder, pictures 20 x 16 of greys of their own."""
    folder.mkdir(parents=True)
    records = []
    for i, (name, product, boxes) in enumerate(pictures):
        chunks = text_chunks(provenance[i]) if provenance else None
        Image.new("L", (20, 16), grey + i).save(folder / f"{name}.png", pnginfo=chunks)
        records.append(ImageRecord(folder / f"{name}.png", 20, 16, tuple(Box(*box) for box in boxes), product))
    vott.write(folder / f"{folder.name}-export.json", records, tags, name=folder.name)


@pytest.fixture
def sets(tmp_path):
    """Six real training pictures, two for validation, one of them with a class of its own; ten synthetic ones."""
    boxes = [(HOLE,), (HOLE, DENT), (), (DENT,), (HOLE,), (HOLE, HOLE)]
    real = [(f"p {i}", "AB"[i % 2], b) for i, b in enumerate(boxes)]
    make_set(tmp_path / "real/train", real, ["A", "never", "hole", "dent", "B"])
    make_set(tmp_path / "real/val", [("p 0", "A", (("crack", 0, 0, 4, 4),)), ("v", "A", ())], ["A", "crack"], grey=100)
    made = [(f"p {i}", "A", ((HOLE, ("burr", 4, 4, 8, 8)) if i % 2 else ())) for i in range(10)]
    told = [{"seed": 7, "index": i, "source": f"/x/{'v' if i < 3 else 'other'}.png"} for i in range(10)]
    make_set(tmp_path / "made/samples", made, ["A", "burr", "hole"], grey=150, provenance=told)
    return ["--real", tmp_path / "real", "--synthetic", tmp_path / "made"]


@pytest.fixture
def merge(sets, monkeypatch, tmp_path):
    """merge(*flags) -> the folder, and what the command ended with."""

    def merge_sets(*flags, code=0, out="merged set"):
        words = ["merge_datasets.py", *sets, "--out", tmp_path / out, *flags]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as ended:
            run("merge")
        assert ended.value.code == code
        return tmp_path / out

    return merge_sets


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def read(fmt, folder, split):
    records, names = load_records(READ_AS[fmt], folder, split, product_tags=("A", "B") if fmt != "coco" else ())
    return {record.stem: record for record in records}, names


def grey(path):
    return Image.open(path).getpixel((0, 0))


@pytest.mark.parametrize("fmt", READ_AS)
def test_a_merged_set_holds_real_and_synthetic_pictures_with_their_boxes(merge, fmt):
    folder = merge("--format", fmt, "--ratio", 0.5)
    train, names = read(fmt, folder, "train")
    val, _ = read(fmt, folder, "val")
    origins = Counter((line["split"], line["origin"]) for line in manifest(folder))
    assert origins == {("train", "real"): 6, ("train", "synthetic"): 3, ("val", "real"): 2}
    assert len(train) == 9 and val.keys() == {"p 0", "v"}
    assert names.classes == tuple(name for name in ("hole", "dent", "burr") if name in names.classes)
    assert [(b.label, b.x0, b.y0, b.x1, b.y1) for b in train["p 1"].boxes] == [HOLE, DENT]
    assert (train["p 1"].product, train["p 0"].product, val["v"].product) == ("B", "A", "A")
    assert train["p 2"].boxes == () and [box.label for box in val["p 0"].boxes] == ["crack"]


def test_classes_keep_the_real_order_drawn_or_not_and_new_ones_follow(merge):
    folder = merge("--format", "yolo")
    _, tags = yolo.read(folder, split="val")
    assert tags == ["never", "hole", "dent", "crack", "burr", "A", "B"]
    assert yolo.read(folder, split="train")[1] == tags


def test_each_picture_is_the_one_that_the_manifest_names(merge, tmp_path):
    folder = merge("--format", "coco", "--ratio", 1.6)
    for line in manifest(folder):
        source = Path(line["copied_from"])
        assert (folder / line["file"]).read_bytes() == source.read_bytes()
        assert not (folder / line["file"]).samefile(source)  # what is done to the copies is not done to the originals
        assert source.is_relative_to(tmp_path / ("real" if line["origin"] == "real" else "made"))
        assert line.get("provenance", {}).get("seed") == (7 if line["origin"] == "synthetic" else None)
    names = {line["file"] for line in manifest(folder)}
    assert "images/train/p 0.png" in names and grey(folder / "images/train/p 0.png") == 50
    assert "images/train/p 0_synthetic.png" in names and grey(folder / "images/train/p 0_synthetic.png") == 150
    assert grey(folder / "images/val/p 0.png") == 100


def test_the_ratio_is_of_the_real_pictures_that_are_taken(merge):
    folder = merge("--num_real", 4, "--ratio", 1.5, "--seed", 3)
    lines = manifest(folder)
    assert Counter(line["origin"] for line in lines if line["split"] == "train") == {"real": 4, "synthetic": 6}
    drawn = sorted(np.random.default_rng(3).permutation(6)[:4])
    assert [Path(line["copied_from"]).stem for line in lines[:4]] == [f"p {i}" for i in drawn]
    drawn = sorted(np.random.default_rng(3).permutation(10)[:6])
    assert [Path(line["copied_from"]).stem for line in lines[4:10]] == [f"p {i}" for i in drawn]


def test_the_real_pictures_do_not_depend_on_the_ratio(merge):
    none, many = merge("--ratio", 0, "--num_real", 3, out="none"), merge("--ratio", 3, "--num_real", 3, out="many")
    real = [[line["copied_from"] for line in manifest(f) if line["origin"] == "real"] for f in (none, many)]
    assert real[0] == real[1] and len(manifest(none)) == 3 + 2 and len(manifest(many)) == 3 + 9 + 2


def test_real_pictures_alone_need_no_synthetic_ones(merge, sets):
    del sets[2:]
    assert {line["origin"] for line in manifest(merge("--ratio", 0))} == {"real"}


def test_validation_pictures_are_for_training_only_if_told(merge):
    told = merge("--val", "train", "--ratio", 0, out="told")
    assert Counter(line["split"] for line in manifest(told)) == {"train": 8}
    assert {"train/p 0.png", "train/p 0_2.png"} <= {line["file"] for line in manifest(told)}
    left = merge("--val", "leave", "--ratio", 0, out="left")
    assert Counter(line["split"] for line in manifest(left)) == {"train": 6} and not (left / "val").exists()


def test_counts_per_class_are_printed_for_real_and_synthetic(merge, capsys):
    merge("--ratio", 1.5, "--num_real", 6, "--seed", 0)
    rows = {line[:24].strip(): line[24:].split() for line in capsys.readouterr().out.splitlines()}
    made = [i % 2 for i in sorted(np.random.default_rng(0).permutation(10)[:9])]
    assert rows["pictures"] == ["6", "9", "2"]
    assert rows["hole"] == ["5", str(sum(made)), "0"] and rows["burr"] == ["0", str(sum(made)), "0"]
    assert rows["crack"] == ["0", "0", "1"] and rows["product A"] == ["3", "9", "2"]
    assert rows["without boxes"] == ["1", str(9 - sum(made)), "1"]


def test_layouts_of_validation_pictures_are_warned_of(merge, caplog):
    merge("--ratio", 1.6)  # all ten
    assert "3 of 10 synthetic pictures have layouts of validation pictures" in caplog.text


def test_a_dry_run_writes_nothing(merge, capsys):
    assert not merge("--dry_run").exists()
    assert "pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--ratio", 2], "--ratio 2: needs 12 synthetic pictures for 6 real ones, but "),
        (["--num_real", 7], "--num_real 7: "),
        (["--synthetic_mode", "pascal"], "--synthetic_mode pascal: choose from sdi, voc, yolo, coco_json"),
        (["--real", ""], "--real: needed"),
        (["--synthetic", ""], "--synthetic: needed"),
        (["--product_tags", "A,C"], "--product_tags C: no such tag; tags: A, never, hole, dent, B, crack, burr"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(merge, flags, told, capsys, tmp_path):
    assert not merge(*flags, code=1).exists()
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and told in error
    assert not list(tmp_path.glob(".*partial"))


def test_a_folder_that_holds_something_is_refused(merge, tmp_path, capsys):
    (tmp_path / "merged set").mkdir()
    merge()  # an empty one is filled
    merge(code=1)
    assert "merged set: is there already and not empty" in capsys.readouterr().err


def test_a_product_that_is_a_class_in_the_other_set_is_named(merge, sets, tmp_path, capsys):
    make_set(tmp_path / "other", [("q", None, (("A", 1, 1, 4, 4),))], ["A"])
    sets[3] = tmp_path / "other"
    merge(code=1)
    error = capsys.readouterr().err.splitlines()[-1]
    assert "'A' is a product in" in error and "other (train) a class of objects" in error


def test_tags_that_are_said_to_be_products_are_products_in_all_sets(merge, sets, tmp_path):
    make_set(tmp_path / "other", [("q", None, (("A", 0, 0, 20, 16), ("crack", 0, 0, 20, 16)))], ["A", "crack"])
    sets[3] = tmp_path / "other"
    folder = merge("--product_tags", "A,B", "--num_real", 1)
    train, _ = read("vott", folder, "train")
    assert train["q"].product == "A" and [box.label for box in train["q"].boxes] == ["crack"]


def test_an_interrupted_merge_starts_anew(merge, tmp_path):
    whole = merge(out="whole")
    (tmp_path / ".merged set.partial/train").mkdir(parents=True)
    (tmp_path / ".merged set.partial/train/left.png").write_bytes(b"torn")
    again = merge()
    trees = [{p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (whole, again)]
    assert trees[0] == trees[1] and not (tmp_path / ".merged set.partial").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_neu_det_keeps_its_boxes_and_splits(monkeypatch, tmp_path):
    words = ["--real", SHARED / "neu_det", "--dataset_mode", "voc", "--out", tmp_path / "m", "--format", "coco"]
    words += ["--ratio", 0, "--num_real", 20, "--on_bad_data", "skip"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        run("merge")
    assert ended.value.code == 0
    for split, num in (("train", 20), ("val", 0)):
        given, names = load_records("voc", SHARED / "neu_det", split, on_bad_data="skip")
        given = some_of(given, num or len(given), 0)
        found, found_names = load_records("coco_json", tmp_path / "m", split)
        boxes = [{r.stem: [(b.label, b.x0, b.y0, b.x1, b.y1) for b in r.boxes] for r in rs} for rs in (given, found)]
        assert boxes[0] == boxes[1] and set(found_names.classes) <= set(names.classes)
