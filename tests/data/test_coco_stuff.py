import json
from collections import Counter
from pathlib import Path

import pytest

from stay_diffusion.config import DataConfig
from stay_diffusion.data import coco_stuff
from stay_diffusion.data.annotations import AnnotationError, Box, EmptySplit, Vocabulary
from stay_diffusion.data.class_names import COCO_STUFF

MINI = Path(__file__).resolve().parents[2] / "../shared/data/coco_stuff_mini"
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="needs ../shared/data/coco_stuff_mini")

SOUND = (0, 0, 50, 50)
PERSON, DOG, TREE, WOOD, OTHER = 1, 18, 169, 182, 183


def thing(image_id=1, bbox=SOUND, category_id=PERSON, **fields):
    return {"id": 1, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0} | fields


def stuff(image_id=1, bbox=SOUND, category_id=TREE, **fields):
    return thing(image_id, bbox, category_id, **fields)


def save(
    folder, things=(), stuffs=(), images=(1,), split="train", categories=(PERSON, DOG), where="images/{}2017", **fields
):
    """COCO's two files about 100 x 100 images and empty image files of the names 1.jpg ..."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / where.format(split)).mkdir(parents=True, exist_ok=True)
    entries = [{"id": key, "file_name": f"{key}.jpg", "width": 100, "height": 100} | fields for key in images]
    kinds = {"instances": (things, categories), "stuff": (stuffs, (TREE, WOOD, OTHER))}
    for kind, (annotations, ids) in kinds.items():
        categories = [{"id": i, "name": (*COCO_STUFF, "other")[i - 1]} for i in ids]
        content = {"images": entries, "annotations": list(annotations), "categories": categories}
        (folder / f"annotations/{kind}_{split}2017.json").write_text(json.dumps(content))
    for key in images:
        (folder / where.format(split) / f"{key}.jpg").touch()
    return folder


def kept(folder, problems=None, **options):
    """Image name -> how many objects, of what the filter keeps."""
    try:
        records, _, _ = coco_stuff.read(folder, "train", DataConfig(**options), problems=problems)
    except EmptySplit:
        return {}
    return {record.stem: len(record.boxes) for record in records}


def left(stages):
    return [(stage.images, stage.objects) for stage in stages]


@needs_mini
@pytest.mark.parametrize(("split", "stages"), [
    ("train", [(100, 1333), (100, 1323), (100, 1227), (100, 756), (100, 756), (56, 308), (56, 308)]),
    ("val", [(70, 1064), (70, 1055), (70, 985), (70, 548), (70, 548), (46, 263), (46, 263)]),
])  # fmt: skip
def test_real_coco_has_the_counts_its_readme_states(split, stages):
    problems = []
    records, names, found = coco_stuff.read(MINI, split, problems=problems)
    assert left(found) == stages and problems == []
    assert len(records) == stages[-1][0] and all(record.path.is_file() for record in records)
    assert names == COCO_STUFF


@needs_mini
def test_real_labels_are_the_ids_of_the_files():
    records, names, _ = coco_stuff.read(MINI, "val")
    vocabulary = Vocabulary(tuple(names))
    raw = Counter()
    for kind in ("instances", "stuff"):
        for entry in json.loads((MINI / f"annotations/{kind}_val2017.json").read_text())["annotations"]:
            x, y, w, h = entry["bbox"]
            raw[entry["image_id"], entry["category_id"], x, y, x + w, y + h] += 1
    for record in records:
        for box in record.boxes:
            assert raw[int(record.stem), vocabulary.label_of(record, box), box.x0, box.y0, box.x1, box.y1]


def test_a_record_has_its_things_then_its_stuff_with_coco_ids_as_labels(tmp_path):
    save(tmp_path, [thing(), thing(bbox=(10, 20, 30.5, 40), category_id=DOG)], [stuff(category_id=WOOD)])
    [record], names, _ = coco_stuff.read(tmp_path, "train")
    assert record.boxes == (Box("person", 0, 0, 50, 50), Box("dog", 10, 20, 40.5, 60), Box("wood", 0, 0, 50, 50))
    labels = [Vocabulary(tuple(names)).label_of(record, box) for box in record.boxes]
    assert labels == [PERSON, DOG, WOOD] and len(names) == 182
    assert (record.path, record.width, record.height) == (tmp_path / "images/train2017/1.jpg", 100, 100)


@pytest.mark.parametrize(("bbox", "objects"), [
    ((0, 0, 20, 10), 3), ((0, 0, 20, 10.001), 4), ((50, 50, 1, 200), 3), ((90, 90, 200, 200), 4),
])  # fmt: skip
def test_an_object_of_exactly_two_percent_is_dropped(tmp_path, bbox, objects):
    save(tmp_path, [thing(), thing(), thing(bbox=bbox)], [stuff()])
    assert kept(tmp_path) == {"1": objects}


def test_the_share_is_of_the_images_own_area(tmp_path):
    save(tmp_path, [thing(bbox=(0, 0, 20, 11))] * 3, [stuff()], width=200, height=50)
    assert kept(tmp_path) == {"1": 4}
    save(tmp_path, [thing(bbox=(0, 0, 20, 11))] * 3, [stuff()], width=200, height=100)
    assert kept(tmp_path) == {}


def test_the_borderline_is_taken_from_width_and_height_not_from_the_edges(tmp_path):
    # 10.1 + 20 - 10.1 is more than 20
    save(tmp_path, [thing(), thing(), thing(bbox=(10.1, 10.1, 20, 10))], [stuff()])
    assert kept(tmp_path) == {"1": 3}


@pytest.mark.parametrize(("things", "keeps"), [(1, False), (2, True), (7, True), (8, False)])
def test_images_have_three_to_eight_objects_none_cut_off(tmp_path, things, keeps):
    save(tmp_path, [thing()] * things, [stuff()])
    assert kept(tmp_path) == ({"1": things + 1} if keeps else {})


@pytest.mark.parametrize(("size", "fewest", "most", "images"), [
    (0.02, 3, 8, {"3", "4"}),
    (0.02, 4, 8, {"4"}),
    (0.02, 3, 9, {"3", "4", "9"}),
    (0.25, 3, 9, set()),
    (0.2499, 3, 9, {"3", "4", "9"}),
])  # fmt: skip
def test_every_threshold_can_be_set(tmp_path, size, fewest, most, images):
    things = [thing(key) for key in (3, 4, 9) for _ in range(key - 1)]
    save(tmp_path, things, [stuff(key) for key in (3, 4, 9)], images=(3, 4, 9))
    assert kept(tmp_path, coco_min_object_size=size, coco_min_objects=fewest, coco_max_objects=most).keys() == images


@pytest.mark.parametrize("left_out", [
    thing(iscrowd=1), stuff(iscrowd=1), stuff(category_id=OTHER), stuff(bbox=(0, 0, 10, 10)),
])  # fmt: skip
def test_crowds_other_and_small_objects_do_not_count(tmp_path, left_out):
    is_thing = left_out["category_id"] == PERSON
    save(tmp_path, [thing()] * 2 + [left_out] * is_thing, [stuff()] + [left_out] * (not is_thing))
    assert kept(tmp_path) == {"1": 3}


@pytest.mark.parametrize("only", [
    stuff(iscrowd=1), stuff(category_id=OTHER), stuff(bbox=(0, 0, 1, 1)), stuff(bbox=None),
])  # fmt: skip
def test_any_stuff_annotation_will_do_also_one_that_is_not_kept(tmp_path, only):
    save(tmp_path, [thing()] * 3, [only])
    assert kept(tmp_path, problems=[]) == {"1": 3}


def test_images_without_any_stuff_annotation_are_dropped(tmp_path):
    save(tmp_path, [thing(1)] * 3 + [thing(2)] * 3, [stuff(2)], images=(1, 2))
    assert kept(tmp_path) == {"2": 4}


def test_each_stage_counts_images_and_objects(tmp_path):
    things = [thing(1)] * 3 + [thing(2)] * 3 + [thing(3), thing(3, iscrowd=1)] + [thing(4)] * 3
    stuffs = [stuff(1), stuff(1, category_id=OTHER), stuff(1, bbox=(0, 0, 1, 1)), stuff(3), stuff(4)]
    save(tmp_path, things, stuffs, images=(1, 2, 3, 4))
    (tmp_path / "images/train2017/4.jpg").unlink()
    problems = []
    _, _, stages = coco_stuff.read(tmp_path, "train", problems=problems)
    counts = [(4, 16), (4, 15), (4, 14), (4, 13), (3, 10), (2, 8), (1, 4)]
    assert left(stages) == counts
    assert [stage.name for stage in stages] == [
        "listed",
        "without crowds",
        'without "other"',
        "larger than 0.02 of the image",
        "with stuff annotations",
        "3 to 8 objects",
        "image found",
    ]
    assert [(p.kind, p.action) for p in problems] == [("images whose file is missing", "image skipped")]
    (tmp_path / "ids.txt").write_text("1 2")
    _, _, stages = coco_stuff.read(tmp_path, "train", id_list=tmp_path / "ids.txt")
    assert left(stages) == [(4, 16), (2, 9), (2, 9), (2, 8), (2, 7), (1, 4), (1, 4), (1, 4)]


@pytest.mark.parametrize(
    "text", ["1\n3\n99\n", "[1, 3, 99]", '["1", "000000000003", 99]', "\ufeff0001\r\n\r\n3\r\n 99"]
)
def test_an_id_list_keeps_only_its_images_and_says_how_many_it_found(tmp_path, text):
    save(tmp_path, [thing(key) for key in (1, 2, 3)] * 3, [stuff(key) for key in (1, 2, 3)], images=(1, 2, 3))
    (tmp_path / "ids.txt").write_text(text, encoding="utf-8")
    records, _, stages = coco_stuff.read(tmp_path, "train", id_list=tmp_path / "ids.txt")
    assert [record.stem for record in records] == ["1", "3"]
    assert stages[1] == coco_stuff.Stage("in ids.txt (2 of its 3 ids found)", 2, 8)


@pytest.mark.parametrize(("text", "words"), [
    ("1\nabc", "entry 2, 'abc', is not an image id"), ("[1, 2.5]", "entry 2, '2.5'"), ("[true]", "entry 1, 'True'"),
    ("-1", "entry 1, '-1'"), ("[1, 2", "cannot be read as JSON"), ("", "no image ids in it"), ("[]", "no image ids"),
    ("98 99", "none of its 2 ids is in"), (None, "cannot be read as text"),
])  # fmt: skip
def test_a_broken_id_list_is_an_error_that_names_it(tmp_path, text, words):
    save(tmp_path, [thing()] * 3, [stuff()])
    if text is not None:
        (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(AnnotationError) as error:
        coco_stuff.read(tmp_path, "train", id_list=tmp_path / "ids.txt")
    assert str(error.value).startswith(f"{tmp_path / 'ids.txt'}: ") and words in str(error.value)


@pytest.mark.parametrize("where", ["images/{}2017", "{}2017"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_images_are_found_where_coco_unzips_them(tmp_path, where, split):
    save(tmp_path, [thing()] * 3, [stuff()], split=split, where=where)
    [record], _, _ = coco_stuff.read(tmp_path, split)
    assert record.path == tmp_path / where.format(split) / "1.jpg"


def test_images_nowhere_to_be_found_are_one_error(tmp_path):
    save(tmp_path, [thing()] * 3, [stuff()], where="elsewhere")
    with pytest.raises(AnnotationError, match=r"none of 1 images found in .*images/train2017 or .*train2017"):
        coco_stuff.read(tmp_path, "train")


BROKEN_BOXES = {
    "unknown image": (thing(9), "boxes of an unknown image_id"),
    "unknown category": (thing(category_id=0), "boxes of an unknown category_id"),
    "stuff among the things": (thing(category_id=TREE), "boxes of an unknown category_id"),
    "category 91": (thing(category_id=91), "boxes of an unknown category_id"),
    "category as a word": (thing(category_id="1"), "boxes of an unknown category_id"),
    "category true": (thing(category_id=True), "boxes of an unknown category_id"),
    "category as a list": (thing(category_id=[1]), "boxes of an unknown category_id"),
    "bbox null": (thing(bbox=None), "boxes that are not four numbers"),
    "bbox of words": (thing(bbox=["0", "0", "50", "50"]), "boxes that are not four numbers"),
    "bbox too large": (thing(bbox=[0, 0, 10**200, 10**200]), "boxes with coordinates beyond any image"),
    "both sides negative": (thing(bbox=[60, 60, -50, -50]), "boxes without area"),
    "no area": (thing(bbox=[0, 0, 0, 50]), "boxes without area"),
    "outside": (thing(bbox=[100, 0, 50, 50]), "boxes wholly outside their image"),
    "no object": ([], "annotations without fields"),
}


@pytest.mark.parametrize(("broken", "kind"), BROKEN_BOXES.values(), ids=BROKEN_BOXES)
def test_a_broken_box_is_skipped_and_named(tmp_path, broken, kind):
    problems = []
    save(tmp_path, [thing(), broken, thing()], [stuff()])
    assert kept(tmp_path, problems=problems) == {"1": 3}
    file = str(tmp_path / "annotations/instances_train2017.json")
    assert [(p.file, p.kind, p.action) for p in problems] == [(file, kind, "box skipped")]


@pytest.mark.parametrize("fields", [{"width": 0}, {"height": None}, {"width": "100"}, {"height": -5}, {"width": 1e999}])
def test_an_image_without_a_size_is_skipped_and_named(tmp_path, fields):
    save(tmp_path, [thing(1)] * 3 + [thing(2)] * 3, [stuff(1), stuff(2)], images=(1, 2))
    file = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0] |= fields
    file.write_text(json.dumps(content).replace("Infinity", "1e999"))
    problems = []
    assert kept(tmp_path, problems=problems) == {"2": 4}
    assert [(p.kind, p.detail) for p in problems] == [("images without width and height", "image 1: '1.jpg'")]


@pytest.mark.parametrize("name", ["instances", "stuff"])
@pytest.mark.parametrize(("text", "words"), [
    ("[]", 'no list "images"'), ("{", "cannot be read as JSON"), ('{"images": [], "annotations": []}', "categories"),
])  # fmt: skip
def test_a_broken_file_is_one_error_that_names_it(tmp_path, name, text, words):
    save(tmp_path, [thing()] * 3, [stuff()])
    file = tmp_path / f"annotations/{name}_train2017.json"
    file.write_text(text)
    with pytest.raises(AnnotationError) as error:
        coco_stuff.read(tmp_path, "train")
    assert str(error.value).startswith(f"{file}: ") and words in str(error.value)


@pytest.mark.parametrize("other", [
    {"id": 18, "name": "scratch"}, {"id": 300, "name": "scratch"}, {"id": 169, "name": "tree"},
    {"id": "18", "name": "dog"}, {"id": 18.0, "name": "dog"},
])  # fmt: skip
def test_another_data_set_of_that_layout_is_refused(tmp_path, other):
    file = save(tmp_path, [thing()] * 3, [stuff()]) / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["categories"][1] = other
    file.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r"is not COCO-Stuff's; --dataset_mode coco_json"):
        coco_stuff.read(tmp_path, "train")


@pytest.mark.parametrize("name", ["instances", "stuff"])
def test_a_missing_train_file_is_an_error_and_a_missing_val_file_an_empty_split(tmp_path, name):
    for split in ("train", "val"):
        save(tmp_path, [thing()] * 3, [stuff()], split=split)
        (tmp_path / f"annotations/{name}_{split}2017.json").unlink()
    with pytest.raises(EmptySplit, match=f"{name}_val2017.json: no such file"):
        coco_stuff.read(tmp_path, "val")
    with pytest.raises(AnnotationError, match=f"{name}_train2017.json: no such file") as error:
        coco_stuff.read(tmp_path, "train")
    assert not isinstance(error.value, EmptySplit)


def test_a_missing_folder_is_an_error_with_the_flag(tmp_path):
    with pytest.raises(AnnotationError, match=r"--data_dir .*nowhere: no such folder"):
        coco_stuff.read(tmp_path / "nowhere", "train")


def test_nothing_left_is_an_empty_split_with_the_counts(tmp_path):
    save(tmp_path, [thing()], [stuff()])
    with pytest.raises(EmptySplit, match=r"the filter leaves no images \(listed: 1, .* 3 to 8 objects: 0"):
        coco_stuff.read(tmp_path, "train")


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"coco_min_object_size": 1}, "--coco_min_object_size 1"),
        ({"coco_min_object_size": -0.1}, "--coco_min_object_size -0.1"),
        ({"coco_min_object_size": float("nan")}, "--coco_min_object_size nan"),
        ({"coco_min_objects": -1}, "--coco_min_objects -1"),
        ({"coco_max_objects": 2}, "--coco_max_objects 2"),
        ({"coco_min_objects": 0, "coco_max_objects": 0}, "--coco_max_objects 0"),
    ],
)
def test_an_impossible_threshold_is_an_error_with_the_flag(tmp_path, options, flag):
    save(tmp_path, [thing()] * 3, [stuff()])
    with pytest.raises(ValueError, match=flag):
        coco_stuff.read(tmp_path, "train", DataConfig(**options))
