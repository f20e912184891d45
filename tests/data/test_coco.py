import csv
import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord
from stay_diffusion.data.formats import coco

MINI = Path(__file__).resolve().parents[2] / "../shared/data/coco_stuff_mini"


def save_image(path, size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path, format="png")
    return path


def image(key=1, file_name="a.png", **fields):
    return {"id": key, "file_name": file_name, "width": 20, "height": 10} | fields


def annotation(key=1, bbox=(1, 2, 4, 6), image_id=1, category_id=7, **fields):
    return {"id": key, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0} | fields


def content(*annotations, images=None, categories=((7, "Pits"), (3, "Spots"))):
    categories = [{"id": key, "name": name, "supercategory": "x"} for key, name in categories]
    return {"images": images or [image()], "annotations": list(annotations), "categories": categories}


def save(path, data):
    """The JSON, and an image of each listed name beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    for entry in data["images"] if isinstance(data, dict) else ():
        save_image(path.parent / entry["file_name"])
    return path


def test_boxes_become_their_edges_in_pixels(tmp_path):
    file = save(tmp_path / "x.json", content(annotation(), annotation(2, bbox=(0.5, 0.25, 3, 1.5), category_id=3)))
    boxes = Box("Pits", 1, 2, 5, 8), Box("Spots", 0.5, 0.25, 3.5, 1.75)
    assert coco.read(file) == ([ImageRecord(tmp_path / "a.png", 20, 10, boxes)], ["Pits", "Spots"])


def test_categories_keep_the_order_of_the_file_whatever_their_ids(tmp_path):
    file = save(tmp_path / "x.json", content(annotation(), categories=((90, "c"), (7, "a"), (13, "b"))))
    records, tags = coco.read(file)
    assert tags == ["c", "a", "b"] and records[0].boxes[0].label == "a"


def test_images_without_annotations_are_kept_in_the_order_of_the_file(tmp_path):
    images = [image(5, "c.png"), image(1, "a.png"), image(3, "b.png")]
    records, _ = coco.read(save(tmp_path / "x.json", content(annotation(), images=images)))
    assert [(record.path.name, len(record.boxes)) for record in records] == [("c.png", 0), ("a.png", 1), ("b.png", 0)]


def test_crowds_are_left_out_without_a_problem(tmp_path):
    problems = []
    file = save(tmp_path / "x.json", content(annotation(iscrowd=1, bbox=None), annotation(2)))
    [record], _ = coco.read(file, problems=problems)
    assert len(record.boxes) == 1 and problems == []


def test_a_box_that_reaches_outside_is_kept_as_drawn(tmp_path):
    [record], _ = coco.read(save(tmp_path / "x.json", content(annotation(bbox=(-1, -2, 30, 40)))))
    assert record.boxes == (Box("Pits", -1, -2, 29, 38),)


def test_an_image_without_a_stated_size_has_that_of_its_file(tmp_path):
    save(tmp_path / "x.json", content(annotation(), images=[image(width=None, height=0)]))
    [record], _ = coco.read(save_image(tmp_path / "a.png", (33, 44)).with_name("x.json"))
    assert (record.width, record.height) == (33, 44)


def test_ids_can_be_words(tmp_path):
    data = content(annotation(image_id="one", category_id="p"), images=[image("one")], categories=[("p", "Pits")])
    [record], _ = coco.read(save(tmp_path / "x.json", data))
    assert record.boxes == (Box("Pits", 1, 2, 5, 8),)


def test_a_byte_order_mark_is_no_obstacle(tmp_path):
    file = save(tmp_path / "x.json", content(annotation()))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(coco.read(file)[0]) == 1


BROKEN_BOXES = {
    "unknown image": (annotation(image_id=99), "boxes of an unknown image_id"),
    "image as a word": (annotation(image_id="1"), "boxes of an unknown image_id"),
    "image true": (annotation(image_id=True), "boxes of an unknown image_id"),
    "image as a list": (annotation(image_id=[1]), "boxes of an unknown image_id"),
    "no image": ({"id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}, "boxes of an unknown image_id"),
    "unknown category": (annotation(category_id=8), "boxes of an unknown category_id"),
    "category null": (annotation(category_id=None), "boxes of an unknown category_id"),
    "category as an object": (annotation(category_id={}), "boxes of an unknown category_id"),
    "null": (annotation(bbox=None), "boxes that are not four numbers"),
    "null inside": (annotation(bbox=[1, None, 3, 4]), "boxes that are not four numbers"),
    "numbers as words": (annotation(bbox=["1", "2", "3", "4"]), "boxes that are not four numbers"),
    "true inside": (annotation(bbox=[1, 2, 3, True]), "boxes that are not four numbers"),
    "nan inside": (annotation(bbox=[1, 2, 3, float("nan")]), "boxes without finite coordinates"),
    "three numbers": (annotation(bbox=[1, 2, 3]), "boxes that are not four numbers"),
    "five numbers": (annotation(bbox=[1, 2, 3, 4, 5]), "boxes that are not four numbers"),
    "an object": (annotation(bbox={"x": 1}), "boxes that are not four numbers"),
    "too large": (annotation(bbox=[1, 2, 3, 10**200]), "boxes with coordinates beyond any image"),
    "no width": (annotation(bbox=[1, 2, 0, 4]), "boxes without area"),
    "negative height": (annotation(bbox=[1, 2, 3, -4]), "boxes without area"),
    "lost in rounding": (annotation(bbox=[1, 2e-20, 3, 1e-40]), "boxes without area"),
    "left of it": (annotation(bbox=[-5, 2, 5, 4]), "boxes wholly outside their image"),
    "above it": (annotation(bbox=[1, -4, 3, 4]), "boxes wholly outside their image"),
    "right of it": (annotation(bbox=[20, 2, 3, 4]), "boxes wholly outside their image"),
    "below it": (annotation(bbox=[1, 10, 3, 4]), "boxes wholly outside their image"),
    "no object": (7, "annotations without fields"),
}


@pytest.mark.parametrize(("broken", "kind"), BROKEN_BOXES.values(), ids=BROKEN_BOXES)
def test_a_broken_box_is_skipped_and_named_and_the_others_stay(tmp_path, broken, kind):
    problems = []
    file = save(tmp_path / "x.json", content(broken, annotation(2)))
    [record], _ = coco.read(file, problems=problems)
    assert record.boxes == (Box("Pits", 1, 2, 5, 8),)
    assert [(p.file, p.kind, p.action) for p in problems] == [(str(file), kind, "box skipped")]
    assert problems[0].detail.startswith("annotation 1: " if isinstance(broken, dict) else "annotations[0]: 7")


def test_infinity_as_a_large_exponent_is_a_broken_box(tmp_path):
    problems = []
    coco.read(save(tmp_path / "x.json", content(annotation())), problems=problems)
    text = json.dumps(content(annotation())).replace("[1, 2, 4, 6]", "[1, 2, 1e999, 6]")
    coco.read(save(tmp_path / "x.json", text), problems=problems)
    assert [problem.kind for problem in problems] == ["boxes without finite coordinates"]


LEADS_OUT = "images whose file_name leads out of their folder"
BROKEN_IMAGES = {
    "missing": (image(file_name="b.png"), "images whose file is missing"),
    "a folder": (image(file_name="."), "images whose file is missing"),
    "a zero byte": (image(file_name="a\0.png"), "images whose file is missing"),
    "no name": (image(file_name=None), "images without a file_name"),
    "empty name": (image(file_name=""), "images without a file_name"),
    "number as name": (image(file_name=5), "images without a file_name"),
    "upwards": (image(file_name="../secret.png"), LEADS_OUT),
    "upwards later": (image(file_name="a/../../secret.png"), LEADS_OUT),
    "upwards on Windows": (image(file_name="..\\secret.png"), LEADS_OUT),
    "absolute": (image(file_name="/etc/secret.png"), LEADS_OUT),
    "absolute on Windows": (image(file_name="C:\\secret.png"), LEADS_OUT),
    "no size, not an image": (image(file_name="words.png", width=0), "images that cannot be read"),
    "product no name": (image(file_name="good.png", product=5), "images whose product is not a name"),
    "no id": ({"file_name": "good.png"}, "images without an id"),
    "id null": (image(key=None), "images without an id"),
    "no object": ("a.png", "images without an id"),
}


@pytest.mark.parametrize(("broken", "kind"), BROKEN_IMAGES.values(), ids=BROKEN_IMAGES)
def test_a_broken_image_is_skipped_and_named_and_the_others_stay(tmp_path, broken, kind):
    problems = []
    save_image(tmp_path / "secret.png")
    save_image(tmp_path / "in/good.png")
    (tmp_path / "in/words.png").write_text("words")
    (tmp_path / "in/x.json").write_text(json.dumps(content(images=[broken, image(2, "a.png")])))
    save_image(tmp_path / "in/a.png")
    records, _ = coco.read(tmp_path / "in/x.json", problems=problems)
    assert [record.path.name for record in records] == ["a.png"]
    assert [(p.kind, p.action) for p in problems] == [(kind, "image skipped")]


def test_boxes_of_a_skipped_image_are_no_problems_of_their_own(tmp_path):
    problems = []
    images = [image(), image(2, "b.png")]
    file = save(tmp_path / "x.json", content(annotation(), annotation(2, image_id=2), images=images))
    (tmp_path / "b.png").unlink()
    coco.read(file, problems=problems)
    assert [problem.action for problem in problems] == ["image skipped"]


BROKEN_FILES = {
    "cut off": (json.dumps(content(annotation()))[:-20].encode(), "cannot be read as JSON"),
    "empty": (b"", "cannot be read as JSON"),
    "UTF-16": (json.dumps(content()).encode("utf-16"), "cannot be read as text"),
    "Latin-1": (b'{"images": [{"file_name": "\xe4.png"}]}', "cannot be read as text"),
    "entry twice": (json.dumps(content())[:-1].encode() + b', "images": []}', "one entry has 'images' twice"),
    "nested deeply": (b"[" * 100_000, "cannot be read as JSON"),
    "a list": (b"[]", 'no list "images"'),
    "no annotations": (b'{"images": [], "categories": []}', 'no list "annotations"'),
    "categories as an object": (b'{"images": [], "annotations": [], "categories": {}}', 'no list "categories"'),
    "image id twice": (json.dumps(content(images=[image(), image()])).encode(), "two images have the id 1"),
    "image file twice": (json.dumps(content(images=[image(), image(2, "./a.png")])).encode(), "1 and 2 are the same"),
    "category id twice": (json.dumps(content(categories=[(1, "a"), (1, "b")])).encode(), "have the id 1: 'a' and 'b'"),
    "name twice": (json.dumps(content(categories=[(1, "a"), (2, "a")])).encode(), "1 and 2 have the same name 'a'"),
    "name missing": (json.dumps(content(categories=[(1, None)])).encode(), "has no id or no name"),
    "no image there": (json.dumps(content(images=[image(1, "b.png")])).encode(), "none of its 1 images found in"),
}


@pytest.mark.parametrize(("data", "words"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_file_is_one_error_that_names_it(tmp_path, data, words):
    save_image(tmp_path / "a.png")
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(AnnotationError) as error:
        coco.read(tmp_path / "x.json")
    assert str(error.value).startswith(f"{tmp_path / 'x.json'}: ") and words in str(error.value)


def test_without_a_list_for_problems_each_kind_is_one_warning(tmp_path, caplog):
    broken = [annotation(i, bbox=[1, 2, 0, 0]) for i in range(5)] + [annotation(9, category_id=1)]
    coco.read(save(tmp_path / "x.json", content(*broken)))
    assert [r.message.split(": ", 1)[1].split(" (")[0] for r in caplog.records] == [
        "5 times boxes without area: box skipped",
        "1 times boxes of an unknown category_id: box skipped",
    ]


@pytest.mark.parametrize(("json_path", "image_path"), [
    ("x.json", "a.png"),
    ("x.json", "images/a.png"),
    ("annotations/instances_train2017.json", "images/train2017/a.png"),
    ("annotations/instances_train2017.json", "train2017/a.png"),
    ("Annotations/train.json", "train/a.png"),
    ("annotations/x.json", "images/a.png"),
])  # fmt: skip
def test_images_are_found_where_tools_put_them(tmp_path, json_path, image_path):
    (tmp_path / json_path).parent.mkdir(exist_ok=True)
    (tmp_path / json_path).write_text(json.dumps(content()))
    place = save_image(tmp_path / image_path)
    assert [record.path for record in coco.read(tmp_path / json_path)[0]] == [place]


def test_images_beside_the_file_come_before_those_in_images(tmp_path):
    save_image(tmp_path / "images/a.png")
    [record], _ = coco.read(save(tmp_path / "x.json", content()))
    assert record.path == tmp_path / "a.png"


def test_image_dir_is_the_only_place_searched_when_given(tmp_path):
    save_image(tmp_path / "pictures/a.png")
    images = [image(), image(2, "b.png")]
    problems = []
    records, _ = coco.read(save(tmp_path / "x.json", content(images=images)), tmp_path / "pictures", problems)
    assert [record.path for record in records] == [tmp_path / "pictures/a.png"]
    assert [problem.kind for problem in problems] == ["images whose file is missing"]


def test_an_image_dir_that_is_not_there_is_an_error_with_the_flag(tmp_path):
    with pytest.raises(AnnotationError, match=r"--image_dir .*nowhere: no such folder"):
        coco.read(save(tmp_path / "x.json", content()), tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["sub/deep/a.png", "sub/../a.png", "a b%20ä.png", "sub\\a.png", "..a.png", "a:b.png"])
def test_odd_file_names_are_found(tmp_path, name):
    place = save_image(tmp_path / os.path.normpath(name.replace("\\", "/")))
    (tmp_path / "sub").mkdir(exist_ok=True)
    (tmp_path / "x.json").write_text(json.dumps(content(images=[image(file_name=name)])))
    assert coco.read(tmp_path / "x.json")[0][0].path == place


@pytest.mark.parametrize("names", [
    ["_annotations.coco.json", "info.json"],
    ["instances_default.json", "captions_default.json"],
    ["annotations.json", "._annotations.json"],
    ["labels.json"],
])  # fmt: skip
def test_a_folder_stands_for_its_one_coco_json(tmp_path, names):
    for name in names[1:]:
        (tmp_path / name).write_text("[]")
    save(tmp_path / names[0], content(annotation()))
    assert len(coco.read(tmp_path)[0]) == 1


def test_the_json_may_be_in_the_folder_annotations(tmp_path):
    save(tmp_path / "annotations/instances_default.json", content(annotation()))
    assert len(coco.read(tmp_path)[0]) == 1


def test_several_files_in_a_folder_are_an_error_that_names_them(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / f"instances_{split}.json", content())
    with pytest.raises(AnnotationError, match=r"instances_train\.json, instances_val\.json"):
        coco.read(tmp_path)


@pytest.mark.parametrize(("path", "words"), [("", "no COCO JSON"), ("nowhere", "no such file or folder")])
def test_a_place_without_a_json_is_an_error(tmp_path, path, words):
    with pytest.raises(AnnotationError, match=words):
        coco.read(tmp_path / path)


def records_in(folder):
    """Defects, a good part without a box, and odd names."""
    boxes = (Box("Pits", 1, 2, 5, 8), Box("Spots", 0.1, 0.2, 0.3, 9.7), Box("Pits", 1 / 3, -2.5, 19.123456, 9.999))
    names = ["a.png", "sub/b c%20ä.png", "sub/ü\\x.png", "good.png"]
    pictures = [save_image(folder / name) for name in names]
    shown = [boxes, boxes[:1], boxes[1:], ()]
    products = ["A", None, "B", "A"]
    pairs = zip(pictures, shown, products, strict=True)
    return [ImageRecord(path, 20, 10, drawn, product) for path, drawn, product in pairs]


def assert_equal(records, others):
    assert [(r.path, r.width, r.height, r.product) for r in records] == [
        (r.path, r.width, r.height, r.product) for r in others
    ]
    for record, other in zip(records, others, strict=True):
        assert [box.label for box in record.boxes] == [box.label for box in other.boxes]
        for box, same in zip(record.boxes, other.boxes, strict=True):
            assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx((same.x0, same.y0, same.x1, same.y1), abs=1e-5)


def test_what_was_written_reads_back(tmp_path):
    records = records_in(tmp_path)
    coco.write(tmp_path / "instances_x.json", records, ["Scratches", "Spots"], name="x")
    found, tags = coco.read(tmp_path)
    assert_equal(found, records)
    assert tags == ["Scratches", "Spots", "Pits"]


def test_a_name_that_is_not_unicode_reads_back(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.png")
    try:
        save_image(path)
    except OSError:
        pytest.skip("this file system has no such names")
    coco.write(tmp_path / "x.json", [ImageRecord(path, 20, 10)], [], name="x")
    assert coco.read(tmp_path / "x.json")[0][0].path == path


def test_products_are_no_categories(tmp_path):
    coco.write(tmp_path / "x.json", records_in(tmp_path), ["A", "Spots", "B", "Pits"], name="x")
    assert coco.read(tmp_path / "x.json")[1] == ["Spots", "Pits"]


def test_written_annotations_have_what_coco_asks_for(tmp_path):
    record = ImageRecord(save_image(tmp_path / "images/a.png"), 20, 10, (Box("Pits", 1, 2, 5, 8),))
    coco.write(tmp_path / "x.json", [record], ["Spots", "Pits"], name="x", image_dir=tmp_path / "images")
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["images"] == [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}]
    [entry] = written["annotations"]
    assert entry == {
        "id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 4, 6], "area": 24, "iscrowd": 0
    }  # fmt: skip
    assert [(c["id"], c["name"]) for c in written["categories"]] == [(1, "Spots"), (2, "Pits")]


@pytest.mark.parametrize(("json_path", "image_path", "file_name"), [
    ("x.json", "images/a.png", "images/a.png"),
    ("annotations/instances_train.json", "images/train/a.png", "a.png"),
])  # fmt: skip
def test_file_names_are_relative_to_where_the_images_are_found_again(tmp_path, json_path, image_path, file_name):
    record = ImageRecord(save_image(tmp_path / image_path), 20, 10)
    coco.write(tmp_path / json_path, [record], [], name="x")
    assert json.loads((tmp_path / json_path).read_text())["images"][0]["file_name"] == file_name
    assert coco.read(tmp_path / json_path)[0] == [record]


def test_an_unknown_size_is_written_as_that_of_the_image(tmp_path):
    coco.write(tmp_path / "x.json", [ImageRecord(save_image(tmp_path / "a.png", (7, 9)), 0, 0)], [], name="x")
    entry = json.loads((tmp_path / "x.json").read_text())["images"][0]
    assert (entry["width"], entry["height"]) == (7, 9)


def test_every_written_annotation_has_an_id_of_its_own_and_its_images(tmp_path):
    coco.write(tmp_path / "x.json", records_in(tmp_path), [], name="x")
    written = json.loads((tmp_path / "x.json").read_text())
    assert [entry["id"] for entry in written["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert [entry["image_id"] for entry in written["annotations"]] == [1, 1, 1, 2, 3, 3]


def test_equal_records_give_equal_bytes_anywhere(tmp_path):
    for folder in ("one", "two"):
        coco.write(tmp_path / folder / "x.json", records_in(tmp_path / folder), ["Pits"], name="x")
    assert (tmp_path / "one/x.json").read_bytes() == (tmp_path / "two/x.json").read_bytes()


@pytest.mark.parametrize("image_dir", [None, "other"])
def test_a_refused_write_leaves_the_old_file_alone(tmp_path, image_dir):
    records = records_in(tmp_path / "pictures")
    (tmp_path / "x.json").write_text("old")
    with pytest.raises(AnnotationError, match="is given twice" if image_dir is None else "is not below"):
        where = tmp_path / image_dir if image_dir else None
        coco.write(tmp_path / "x.json", [*records, records[0]], [], name="x", image_dir=where)
    assert (tmp_path / "x.json").read_text() == "old"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    records = records_in(tmp_path / "pictures")
    (tmp_path / "x.json").write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        coco.write(tmp_path / "x.json", records, [], name="x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "x.json"]
    assert (tmp_path / "x.json").read_text() == "old"


def test_pycocotools_loads_what_was_written(tmp_path):
    api = pytest.importorskip("pycocotools.coco")
    coco.write(tmp_path / "x.json", records_in(tmp_path), ["Spots", "Pits"], name="x")
    loaded = api.COCO(str(tmp_path / "x.json"))
    assert len(loaded.getImgIds()) == 4 and [c["name"] for c in loaded.loadCats(loaded.getCatIds())] == [
        "Spots",
        "Pits",
    ]
    assert loaded.loadAnns(loaded.getAnnIds(imgIds=[2]))[0]["bbox"] == [1, 2, 4, 6]
    assert loaded.getAnnIds(imgIds=[4]) == [] and len(loaded.getAnnIds(areaRng=[20, 30])) == 2


@pytest.mark.skipif(not MINI.is_dir(), reason="needs ../shared/data/coco_stuff_mini")
@pytest.mark.parametrize(("split", "images", "objects", "people"), [("train", 100, 662, 178), ("val", 70, 584, 172)])
def test_real_coco_has_the_counts_its_readme_states_without_crowds(split, images, objects, people):
    records, tags = coco.read(MINI / f"annotations/instances_{split}2017.json")
    labels = Counter(box.label for record in records for box in record.boxes)
    assert len(records) == images and all(record.path.is_file() for record in records)
    assert (labels.total(), labels["person"], len(tags)) == (objects, people, 80)


@pytest.mark.skipif(not MINI.is_dir(), reason="needs ../shared/data/coco_stuff_mini")
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_class_of_real_coco_has_the_count_its_table_states(split):
    with open(MINI / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in ("thing", "stuff"):
        file = MINI / f"annotations/{'instances' if kind == 'thing' else kind}_{split}2017.json"
        content = json.loads(file.read_text())
        crowds = Counter(entry["category_id"] for entry in content["annotations"] if entry.get("iscrowd"))
        records, _ = coco.read(file)
        found = Counter(box.label for record in records for box in record.boxes)
        assert len(rows) == 172
        stated = {
            row["name"]: int(row[f"{split}_annotations"]) - crowds[int(row["category_id"])]
            for row in rows
            if row["kind"] == kind
        }
        assert found == Counter({name: number for name, number in stated.items() if number})


def test_time_grows_no_faster_than_the_file(tmp_path):
    """20 times the boxes and images may take 100 times as long, quadratic loops would take 400."""

    def seconds(n):
        images = [image(i, "a.png", width=100, height=100) | {"file_name": f"{i}.png"} for i in range(n // 10)]
        for entry in images:
            (tmp_path / entry["file_name"]).touch()
        data = content(*(annotation(i, image_id=i % (n // 10)) for i in range(n)), images=images)
        (tmp_path / "x.json").write_text(json.dumps(data))
        start = time.process_time()
        coco.read(tmp_path / "x.json")
        return time.process_time() - start

    seconds(100)
    assert seconds(20_000) < 100 * max(seconds(1000), 0.01)
