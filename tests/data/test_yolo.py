import logging
from pathlib import Path

import pytest
from PIL import Image

from stay_diffusion.data.annotations import AnnotationError, Box, EmptySplit, ImageRecord
from stay_diffusion.data.formats import voc, vott, yolo

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
GOOD = "1 0.15 0.5 0.2 0.6\n"  # Spots 1 2 5 8 in an image of 20x10
SPOTS = ("Spots", 1, 2, 5, 8)
YAML = "train: images/train\nval: images/val\nnames: [Pits, Spots]\n"


def save_image(path, size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path)
    return path


def save_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def data_set(folder, yaml=YAML, **labels):
    """Pictures of the train split, one per stem, with the label files' texts, no file for None."""
    for stem, text in labels.items():
        save_image(folder / f"images/train/{stem}.png")
        if text is not None:
            save_text(folder / f"labels/train/{stem}.txt", text)
    if yaml is not None:
        save_text(folder / "data.yaml", yaml)
    return folder


def rounded(record):
    return [(box.label, *(round(v, 4) for v in (box.x0, box.y0, box.x1, box.y1))) for box in record.boxes]


def assert_same(found, expected, tolerance=0.01):
    assert [(r.path.name, r.width, r.height) for r in found] == [(r.path.name, r.width, r.height) for r in expected]
    for a, b in zip(found, expected, strict=True):
        assert [box.label for box in a.boxes] == [box.label for box in b.boxes]
        for x, y in zip(a.boxes, b.boxes, strict=True):
            assert (x.x0, x.y0, x.x1, x.y1) == pytest.approx((y.x0, y.y0, y.x1, y.y1), rel=0, abs=tolerance)


@pytest.mark.parametrize("copy_images", [True, False])
def test_what_is_written_is_read_back_to_a_hundredth_of_a_pixel(tmp_path, copy_images):
    boxes = (Box('O\'Brien: "x" #1', 0.1, 0.2, 0.1 + 0.2, 1 / 3), Box("Löcher, [a]", -300.3, 2, 1e-4, 9.99))
    records = [
        ImageRecord(save_image(tmp_path / "in/b ü, it's #1%20.png"), 20, 10, boxes),
        ImageRecord(save_image(tmp_path / "in/a.b\u2028c.PNG"), 20, 10),
        ImageRecord(save_image(tmp_path / "in/images/c.bmp", (8000, 3)), 8000, 3, (Box("1", 1 / 3, 0, 7999.77, 2),)),
    ]
    tags = ["1", "no box has this", "Löcher, [a]", "yes", 'O\'Brien: "x" #1']
    yolo.write(tmp_path / "out", records, tags, copy_images=copy_images)
    problems = []
    found, found_tags = yolo.read(tmp_path / "out", None if copy_images else tmp_path / "in", problems)
    assert problems == [] and found_tags == tags
    assert_same(found, records, tolerance=1e-5)
    for before, after in zip(records, found, strict=True):
        assert after.path.read_bytes() == before.path.read_bytes() and (after.path == before.path) != copy_images


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(("read", "folder", "boxes"), [
    (voc.read, "neu_det/val", 298), (vott.read, "deeppcb/val/vott-json-export", 644),
])  # fmt: skip
def test_real_boxes_survive_yolo(tmp_path, read, folder, boxes):
    records, tags = read(SHARED / folder)
    yolo.write(tmp_path, records, tags, split="val")
    found, found_tags = yolo.read(tmp_path, SHARED / folder, split="val")
    assert found_tags == tags and sum(len(record.boxes) for record in found) == boxes
    assert_same(found, records)


def test_the_bytes_are_the_same_in_any_folder_and_the_second_time(tmp_path):
    for name in ("one", "two", "two"):
        record = ImageRecord(tmp_path / name / "pictures/a.png", 20, 10, (Box(*SPOTS),))
        yolo.write(tmp_path / name, [record], ["Pits", "Spots"])
    files = [
        {path.relative_to(tmp_path / name).as_posix(): path.read_text() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    ]
    assert files[0] == files[1] == {
        "labels/train/a.txt": "1 0.1500000000 0.5000000000 0.2000000000 0.6000000000\n",
        "train.txt": "./pictures/a.png\n",
        "data.yaml": 'train: train.txt\nnames:\n  0: Pits\n  1: Spots\n',
    }  # fmt: skip


def test_splits_share_a_folder_and_its_classes(tmp_path):
    train = ImageRecord(save_image(tmp_path / "in/a.png"), 20, 10, (Box(*SPOTS),))
    val = ImageRecord(save_image(tmp_path / "in/b.png"), 20, 10)
    yolo.write(tmp_path, [train], ["Pits", "Spots"])
    yolo.write(tmp_path, [val], ["Pits", "Spots"], split="val")
    assert [r.path for split in ("train", "val") for r in yolo.read(tmp_path, split=split)[0]] == [train.path, val.path]
    with pytest.raises(AnnotationError, match=r"train split has the classes \['Pits', 'Spots'\]"):
        yolo.write(tmp_path, [val], ["Spots", "Pits"], split="val")
    with pytest.raises(EmptySplit, match="has no test; it has train, val"):
        yolo.read(tmp_path, split="test")


def test_a_product_is_written_as_a_box_over_the_whole_image_of_any_size(tmp_path):
    record = ImageRecord(save_image(tmp_path / "a.png"), 0, 0, (Box(*SPOTS),), "A")
    yolo.write(tmp_path, [record], ["Spots"])
    assert rounded(yolo.read(tmp_path)[0][0]) == [("A", 0, 0, 20, 10), SPOTS]


def test_two_records_of_one_stem_are_not_written(tmp_path):
    records = [ImageRecord(tmp_path / f"{name}/a.png", 20, 10) for name in ("one", "two")]
    with pytest.raises(AnnotationError, match="need the same file"):
        yolo.write(tmp_path, records, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [
    "yes", "1", "1e3", "null", "~", "-", "- a", "a: b", "a #b", "#a", "'a'", '"', "{a}", "*a", "&a", "!a", "%a",
    "|", "?", "a\u2028b", "\ufeffa", "a\ufffe", "a  b", "ü" * 200, "long " * 60 + "name", "\U0001f600", "<<",
    "=", "2026-01-01",
])  # fmt: skip
def test_any_name_that_is_written_comes_back(tmp_path, name):
    yolo.write(tmp_path, [ImageRecord(save_image(tmp_path / "a.png"), 20, 10)], [name, "Spots"])
    assert yolo.read(tmp_path)[1] == [name, "Spots"]


@pytest.mark.parametrize("label", ["", " Spots", "Spo\nts", "\ud800"])
def test_a_name_that_would_not_come_back_is_not_written(tmp_path, label):
    with pytest.raises(AnnotationError, match="cannot be written"):
        yolo.write(tmp_path, [ImageRecord(tmp_path / "a.png", 20, 10)], [label])


@pytest.mark.parametrize(("line", "kind"), [
    ("1", "neither a box"),
    ("1 0.5 0.5 0.2", "neither a box"),
    ("1 0.5 0.5 0.2 0.2 0.9", "neither a box"),
    ("1 0.1 0.1 0.2 0.1 0.2 0.2 0.1", "neither a box"),
    ("2 0.5 0.5 0.2 0.2", "class indexes"),
    ("-1 0.5 0.5 0.2 0.2", "class indexes"),
    ("0.5 0.5 0.5 0.2 0.2", "class indexes"),
    ("Spots 0.5 0.5 0.2 0.2", "without finite"),
    ("nan 0.5 0.5 0.2 0.2", "without finite"),
    ("0 nan 0.5 0.2 0.2", "without finite"),
    ("0 0.5 0.5 inf 0.2", "without finite"),
    ("0 0.5 0,5 0.2 0.2", "without finite"),
    ("0 0.1 0.1 nan 0.1 0.2 0.2", "without finite"),
    ("0 0.1 0.1 0.2 0.1 0.2 nan", "without finite"),
    ("0 0.5 0.5 -0.2 0.2", "without area"),
    ("0 0.5 0.5 0.2 -0.2", "without area"),
    ("0 0.5 0.5 0.2 0", "without area"),
    ("0 0.1 0.1 0.1 0.2 0.1 0.3", "without area"),
    ("0 120 50 20 30", "wholly outside"),
    ("0 -0.1 0.5 0.2 0.2", "wholly outside"),
    ("0 0.5 1.1 0.2 0.2", "wholly outside"),
])  # fmt: skip
def test_a_line_that_cannot_be_used_is_named_and_the_others_stay(tmp_path, line, kind):
    problems = []
    [record], tags = yolo.read(data_set(tmp_path, a=f"\n{line}\n{GOOD}"), None, problems)
    assert rounded(record) == [SPOTS] and tags == ["Pits", "Spots"]
    [problem] = problems
    assert (problem.file, problem.action) == (str(tmp_path / "labels/train/a.txt"), "box skipped")
    assert kind in problem.kind and problem.detail == f"line 2: {line}"


@pytest.mark.parametrize("line", [
    "1 0.15 0.5 0.2 0.6", "1.0\t1.5e-1  .5 +0.2 0.6 \r", "1 0.05 0.2 0.25 0.2 0.25 0.8 0.05 0.8",
    "1 0.05 0.5 0.15 0.2 0.25 0.8", "\ufeff1 0.15 0.5 0.2 0.6",
])  # fmt: skip
def test_boxes_and_the_boxes_around_polygons_are_read(tmp_path, line):
    [record], _ = yolo.read(data_set(tmp_path, a=line))
    assert rounded(record) == [SPOTS] and (record.width, record.height) == (20, 10)


def test_a_box_partly_outside_is_kept_as_drawn(tmp_path):
    assert rounded(yolo.read(data_set(tmp_path, a="0 0 0 0.5 3"))[0][0]) == [("Pits", -5, -15, 5, 15)]


def test_an_empty_or_missing_label_file_is_a_picture_without_defects(tmp_path):
    records, _ = yolo.read(data_set(tmp_path, a=GOOD, b="", c=None, d="\n \r\n"))
    assert [(record.stem, len(record.boxes)) for record in records] == [("a", 1), ("b", 0), ("c", 0), ("d", 0)]


def test_pictures_and_label_files_of_no_use_are_named_and_the_others_stay(tmp_path):
    data_set(tmp_path, a=GOOD, b=GOOD, c=b"\xff\xfe")
    save_text(tmp_path / "images/train/b.png", "no picture")
    save_text(tmp_path / "images/train/._a.png", "left by a Mac")
    save_text(tmp_path / "labels/train/lost.txt", GOOD)
    save_text(tmp_path / "labels/train/classes.txt", "Pits\nSpots\n")
    problems = []
    assert [record.stem for record in yolo.read(tmp_path, None, problems)[0]] == ["a"]
    assert {(Path(p.file).name, p.kind, p.action) for p in problems} == {
        ("lost.txt", "label files without an image", "image skipped"),
        ("b.png", "images that cannot be read", "image skipped"),
        ("c.txt", "label files that cannot be read", "image skipped"),
    }


@pytest.mark.parametrize(("images", "labels", "yaml", "start"), [
    ("train/images", "train/labels", "train: ../train/images\nnames: [Pits, Spots]", "."),
    ("train/images", "train/labels", "train: train/images/\nnames: [Pits, Spots]", "data.yaml"),
    ("images/train", "labels/train", "path: /on/another/computer\ntrain: images/train\nnames: [Pits, Spots]", "."),
    ("set/images/train", "set/labels/train", "path: set\ntrain: images/train\nnames: [Pits, Spots]", "."),
    ("set/images/a", "set/labels/a", "path: ./set # here\ntrain:\n  - images/a\nnames: [Pits, Spots]", "."),
    ("set/images/a", "set/labels/a", "train: [set/images/a]\nnames: [Pits, Spots]", "."),
    ("all", "all", "train: all\nnames: [Pits, Spots]", "."),
    ("images", "images", "train: images\nnames: [Pits, Spots]", "."),
    ("images/images/x", "images/labels/x", "train: images/images/x\nnames: [Pits, Spots]", "."),
])  # fmt: skip
def test_folders_are_found_where_the_yaml_says(tmp_path, images, labels, yaml, start):
    image = save_image(tmp_path / images / "deep/a.JPG")
    save_text(tmp_path / labels / "deep/a.txt", GOOD)
    save_text(tmp_path / "data.yaml", yaml)
    [record], _ = yolo.read(tmp_path / start)
    assert record.path == image and rounded(record) == [SPOTS]


@pytest.mark.parametrize(("image", "label", "classes"), [
    ("images/train/a.png", "labels/train/a.txt", "classes.txt"),
    ("images/a.png", "labels/a.txt", "labels/classes.txt"),
])  # fmt: skip
def test_without_a_yaml_there_can_be_a_classes_file(tmp_path, image, label, classes):
    save_image(tmp_path / image)
    save_text(tmp_path / label, GOOD)
    save_text(tmp_path / classes, "Pits\r\nSpots\r\n\r\n")
    problems = []
    [record], tags = yolo.read(tmp_path, None, problems)
    assert rounded(record) == [SPOTS] and tags == ["Pits", "Spots"] and problems == []


def test_images_can_lie_elsewhere(tmp_path):
    data_set(tmp_path / "set", a=GOOD)
    (tmp_path / "set/images/train/a.png").unlink()
    (tmp_path / "set/images/train").rmdir()
    image = save_image(tmp_path / "pictures/a.png")
    [record], _ = yolo.read(tmp_path / "set", tmp_path / "pictures")
    assert record.path == image and rounded(record) == [SPOTS]


def test_a_list_is_read_with_its_missing_images_named(tmp_path):
    data_set(tmp_path, "train: lists/mine.txt\nnames: {0: Pits, 1: 'Spots'}", a=GOOD, b=GOOD)
    save_text(tmp_path / "lists/mine.txt", f"../images/train/b.png\r\n{tmp_path}/images/train/a.png\n\nlost.png\n")
    problems = []
    records, _ = yolo.read(tmp_path, None, problems)
    assert [(record.stem, rounded(record)) for record in records] == [("b", [SPOTS]), ("a", [SPOTS])]
    [problem] = problems
    assert problem.action == "image skipped" and problem.detail.startswith("line 4: no image ")


def test_the_images_of_a_list_are_found_by_name_in_an_image_folder(tmp_path):
    data_set(tmp_path, "train: train.txt\nnames: [Pits, Spots]", a=GOOD)
    save_text(tmp_path / "train.txt", "/on/another/computer/a.png\n")
    [record], _ = yolo.read(tmp_path, tmp_path / "images")
    assert record.path == tmp_path / "images/train/a.png" and rounded(record) == [SPOTS]


def test_a_line_of_a_list_that_could_be_two_images_is_named(tmp_path):
    data_set(tmp_path, "train: train.txt\nnames: [Pits, Spots]", a=GOOD, b=GOOD)
    save_image(tmp_path / "images/more/a.png")
    save_text(tmp_path / "train.txt", "/on/another/computer/a.png\n/on/another/computer/b.png")
    problems = []
    assert [record.stem for record in yolo.read(tmp_path, tmp_path / "images", problems)[0]] == ["b"]
    [problem] = problems
    assert problem.detail.startswith("line 1: a.png could be ") and problem.action == "image skipped"


@pytest.mark.parametrize(("text", "names"), [
    ("names: [a, b c, 'it''s', \"d\\u00fc, e\"]", ["a", "b c", "it's", "dü, e"]),
    ("names: ['a',\n  'b',  # more\n  ]", ["a", "b"]),
    ("names: [\n  'a', it's,\n]", ["a", "it's"]),
    ("names:\n- a\n- b # no\n# no\n\n- 'c # yes'\nother: 1", ["a", "b", "c # yes"]),
    ("names:\n    - \"a: b\"\n    - c, d [e]\n    - it's  # don't", ["a: b", "c, d [e]", "it's"]),
    ("names:\n  0: a\n  2: b\n  1: \"yes\"\n", ["a", "yes", "b"]),
    ("names: {0: a, 1: 'b, c', \"2\": d}", ["a", "b, c", "d"]),
    ("nc: 2 # two\nnames: # here\n  '0': a\n  1: b", ["a", "b"]),
    ("---\n\"names\" : [a#b, 1, no, null]\nx: |\n  {[: \"\n\nroboflow:\n  - &x", ["a#b", "1", "no", "null"]),
    ("names: [a, -]", ["a", "-"]),
    ("names:\n  - a\n    - b", ["a - b"]),
    ("names:\n  0: a\n  1: &b c", ["a", "c"]),
    ("all: &all [a, b]\nnames: *all", ["a", "b"]),
    ("names: [!!python/name:os.system a, !!int 1]", ["a", "1"]),
    ("path: ~\nnc: null\nnames: [~]", ["~"]),
])  # fmt: skip
def test_the_usual_ways_to_write_names_are_understood(tmp_path, text, names):
    assert yolo.read(data_set(tmp_path, f"{text}\ntrain: images/train", a=""))[1] == names


@pytest.mark.parametrize(("text", "message"), [
    ("names: [a, b", "line 2: not understood: expected ',' or '\\]'"),
    ("names: [a,, b]", "line 2: not understood"),
    ("names: [a, [b]]", "names has no single name for 1"),
    ("names: [a] b", "line 2: not understood"),
    ("names: {0: a, b}", "names has no single name for b"),
    ("names: {0: a, 0: b}", "line 2: 0 is there twice"),
    ("names:\n  - a\n  1: b", "line 4: not understood: expected <block end>"),
    ("names:\n  0: a\n  0: b", "line 4: 0 is there twice"),
    ("names:\n  0: a\n  1:", "names has no single name for 1"),
    ("names:\n  - *all", "line 3: not understood"),
    ("names:\n  - - a", "names has no single name for 0"),
    ("names:\n  0: ?", "line 3: not understood"),
    ("names:\n  - \"\\q\"", "line 3: not understood"),
    ("names:\n  - 'a", "line 3: not understood"),
    ("names:\n  - a: b", "names has no single name for 0"),
    ("names: |\n  a", "names is neither a list nor a map"),
    ("what is this", "line 2: not understood: could not find expected ':'"),
    ("names: [a]\nnames: [b]", "line 3: names is there twice"),
    ("names: a.names", "names is neither a list nor a map"),
    ("names:", "names is neither a list nor a map"),
    ("nc: 1", "names is neither a list nor a map"),
    ("names: {a: b}", "the index 'a' for 'b'"),
    ("names: [a, b, a]", "names has 'a' twice"),
    ("names: {1: a, 01: b}", "names has 1 twice"),
    ("names: {-1: b}", "the index '-1' for 'b'"),
    ("nc: 3\nnames: [a, b]", "nc is 3, but there are 2 names"),
    ("names: [a]\npath: [b]", "path is no single value"),
    ("names: [a]\nnc: {a: 1}", "nc is no single value"),
    ("names: [a]\n---\nnames: [b]", "line 3: not understood: but found another document"),
    ("names: [a]\n\tx: 1", "line 3: not understood"),
    ("names: [a\a]", "line 2: not understood: special characters"),
    ("names: &a [*a]", "line 2: not understood: found unconstructable recursive node"),
    ("? [a]\n: b", "line 2: not understood: found unhashable key"),
    ("names: [\"\\Uffffffff\"]", "not understood"),
    ("names: " + "[" * 1000, "not understood"),
])  # fmt: skip
def test_a_yaml_that_is_not_understood_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(AnnotationError, match=rf"data\.yaml.*{message}"):
        yolo.read(data_set(tmp_path, f"train: images/train\n{text}", a=GOOD))


@pytest.mark.parametrize(("yaml", "error", "message"), [
    ("train: nowhere\nnames: [a]", AnnotationError, "nowhere: no such folder or list"),
    ("train: images/none\nnames: [a]", AnnotationError, "none: no image found"),
    ("train: images/bare\nnames: [a]", AnnotationError, "no label file for its 1 images, such as .*b.txt"),
    ("val: images/train\nnames: [a]", EmptySplit, "has no train; it has val"),
    ("train:  # later\nnames: [a]", EmptySplit, "has no train; it has none"),
    ("train: ~\nval: null\nnames: [a]", EmptySplit, "has no train; it has none"),
    ("train: {a: b}\nnames: [a]", AnnotationError, "train is neither a path nor a list of paths"),
    ("train: [[images/train]]\nnames: [a]", AnnotationError, "train is neither a path nor a list of paths"),
    ("train: [images/train, ]\nnames: [a, ]\n- b", AnnotationError, "line 3: not understood"),
    ("", AnnotationError, "has no keys"),
    ("- names", AnnotationError, "has no keys"),
    ("names", AnnotationError, "has no keys"),
    (b"\xff\xfenames", AnnotationError, "cannot be read as text"),
    (None, AnnotationError, "no yaml with names, and no classes.txt"),
])  # fmt: skip
def test_a_data_set_of_no_use_is_refused(tmp_path, yaml, error, message):
    data_set(tmp_path, yaml, a=GOOD)
    (tmp_path / "images/none").mkdir()
    save_image(tmp_path / "images/bare/b.png")
    with pytest.raises(error, match=message):
        yolo.read(tmp_path)


def test_of_several_yamls_the_one_with_names_counts_and_two_are_refused(tmp_path):
    data_set(tmp_path, None, a=GOOD)
    save_text(tmp_path / "other.yaml", "epochs: 3")
    save_text(tmp_path / "mine.yml", YAML)
    assert len(yolo.read(tmp_path)[0]) == 1
    save_text(tmp_path / "zweite.yaml", YAML)
    with pytest.raises(AnnotationError, match=r"mine\.yml and zweite\.yaml have names"):
        yolo.read(tmp_path)


@pytest.mark.parametrize("arguments", [("nowhere",), (".", "nowhere")])
def test_missing_folders_are_refused(tmp_path, arguments):
    with pytest.raises(AnnotationError, match="nowhere: no such"):
        yolo.read(*(data_set(tmp_path, a=GOOD) / name for name in arguments))


def test_without_a_list_problems_are_logged_once_per_kind(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        yolo.read(data_set(tmp_path, a="0 0.5 0.5 0 0\n" * 3))
    [record] = caplog.records
    assert "3 times boxes without area: box skipped (first: " in record.getMessage()


def test_a_hundred_thousand_lines_are_read_in_seconds(tmp_path):
    assert len(yolo.read(data_set(tmp_path, a=GOOD * 100_000))[0][0].boxes) == 100_000
