"""semantic_map.write: boxes and label maps as a folder that --dataset_mode maps reads."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from reading import load_records

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord, MapFiles
from stay_diffusion.data.codings import CODINGS
from stay_diffusion.data.formats import semantic_map
from stay_diffusion.data.formats.semantic_map import write

CLASSES = ["pit", "Löcher", "long scratch"]
W, H = 40, 30


@pytest.fixture
def record(tmp_path):
    """record(*boxes, name=, size=) -> ImageRecord of a picture that is there."""

    def make(*boxes, name="a.png", size=(W, H), **options):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", size, 90).save(path, **options)
        return ImageRecord(path, *size, tuple(boxes))

    return make


def objects_of(record, classes):
    maps = semantic_map.read(record.maps)
    boxes, labels = semantic_map.objects(maps, record.maps.coding, use_instances=True)
    return [Box(classes[label - 1], *box) for label, box in zip(labels, boxes.tolist(), strict=True)]


def back(folder, split="train"):
    """The classes, and per stem the size and the boxes, as they are read again."""
    records, names = load_records("maps", folder, split, val_fraction=0)
    sizes = {record.stem: semantic_map.read(record.maps).labels.shape[::-1] for record in records}
    return names.classes, {r.stem: (sizes[r.stem], objects_of(r, names.classes)) for r in records}


def ids(folder, stem="a", kind="annotations"):
    return np.asarray(Image.open(folder / kind / "train" / f"{stem}.png"))


def by_size(boxes, classes=CLASSES):
    """Boxes in the order of a map's objects: the largest first, then by class and number."""
    return sorted(boxes, key=lambda box: (-(box.x1 - box.x0) * (box.y1 - box.y0), classes.index(box.label)))


@st.composite
def separate_boxes(draw):
    """Whole boxes that do not overlap, though they may touch: some cells of a grid of uneven rows and columns."""
    columns = sorted(draw(st.sets(st.integers(0, W), min_size=2, max_size=6)))
    rows = sorted(draw(st.sets(st.integers(0, H), min_size=2, max_size=5)))
    cells = [(x0, y0, x1, y1) for x0, x1 in pairwise(columns) for y0, y1 in pairwise(rows)]
    chosen = draw(st.lists(st.sampled_from(cells), unique=True, max_size=8))
    return [Box(draw(st.sampled_from(CLASSES)), *cell) for cell in chosen]


def test_whole_boxes_that_do_not_overlap_come_back_exactly(record, tmp_path):
    rounds = iter(range(10**6))

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(separate_boxes(), min_size=1, max_size=3))
    def run(pictures):
        folder = tmp_path / "written" / str(next(rounds))
        write(folder, [record(*boxes, name=f"ü {i}.png") for i, boxes in enumerate(pictures)], CLASSES)
        classes, found = back(folder)
        assert classes == (*CLASSES, "background")
        assert found == {f"ü {i}": ((W, H), by_size(boxes)) for i, boxes in enumerate(pictures)}

    run()


def test_pictures_are_copied_as_they_are_and_good_parts_stay_good(record, tmp_path):
    made = [record(name="a.jpg", size=(17, 9)), record(Box("pit", 1, 2, 3, 4), name="b.png")]
    write(tmp_path / "out", made, CLASSES)
    for each in made:
        assert (tmp_path / "out/images/train" / each.path.name).read_bytes() == each.path.read_bytes()
    assert back(tmp_path / "out")[1] == {"a": ((17, 9), []), "b": ((W, H), [Box("pit", 1, 2, 3, 4)])}
    assert not list((tmp_path / "out").rglob(".*"))


def test_the_smallest_box_is_on_top_whatever_the_order(record, tmp_path):
    boxes = [Box("pit", 5, 5, 8, 8), Box("Löcher", 0, 0, 20, 20), Box("long scratch", 2, 2, 12, 12)]
    for i, order in enumerate((boxes, boxes[::-1])):
        write(tmp_path / str(i), [record(*order)], CLASSES)
        assert back(tmp_path / str(i))[1]["a"][1] == [boxes[1], boxes[2], boxes[0]]
        assert [ids(tmp_path / str(i))[n, n] for n in (6, 3, 15, 25)] == [1, 3, 2, 0]


def test_touching_boxes_of_one_class_are_one_only_without_the_instance_map(record, tmp_path):
    boxes = [Box("pit", 0, 0, 10, 10), Box("pit", 10, 0, 16, 10)]
    write(tmp_path / "out", [record(*boxes)], CLASSES)
    assert back(tmp_path / "out")[1]["a"][1] == boxes
    (tmp_path / "out/instances/train/a.png").unlink()
    assert back(tmp_path / "out")[1]["a"][1] == [Box("pit", 0, 0, 16, 10)]


def test_fractions_become_the_nearest_pixels_at_least_one_and_inside_of_the_picture(record, tmp_path):
    boxes = [Box("pit", 1.4, 1.6, 9.6, 9.4), Box("pit", 20.2, 20.2, 20.4, 20.3), Box("Löcher", -5, -5, 3, 1)]
    boxes.append(Box("long scratch", 35, 28, W + 9, H + 9))
    write(tmp_path / "out", [record(*boxes)], CLASSES)
    assert set(back(tmp_path / "out")[1]["a"][1]) == {
        Box("pit", 1, 2, 10, 9),
        Box("pit", 20, 20, 21, 21),
        Box("Löcher", 0, 0, 3, 1),
        Box("long scratch", 35, 28, W, H),
    }


def test_boxes_under_others_are_counted_in_a_warning(record, tmp_path, caplog):
    write(tmp_path / "out", [record(*[Box("pit", 1, 1, 5, 5)] * 3, Box("pit", 9, 9, 12, 12))], CLASSES)
    assert "2 boxes are not in the maps" in caplog.text
    assert back(tmp_path / "out")[1]["a"][1] == [Box("pit", 1, 1, 5, 5), Box("pit", 9, 9, 12, 12)]


def test_products_are_not_written(record, tmp_path):
    made = record(Box("pit", 1, 1, 5, 5))
    write(tmp_path / "out", [ImageRecord(made.path, W, H, made.boxes, product="A")], CLASSES)
    assert back(tmp_path / "out") == ((*CLASSES, "background"), {"a": ((W, H), list(made.boxes))})


def test_more_classes_than_a_byte_holds_make_maps_of_16_bits(record, tmp_path):
    names, boxes = [f"n{i}" for i in range(300)], [Box("n299", 1, 1, 9, 9), Box("n254", 20, 1, 25, 5)]
    write(tmp_path / "wide", [record(*boxes)], names)
    assert ids(tmp_path / "wide").dtype == np.uint16 and back(tmp_path / "wide")[1]["a"][1] == boxes
    write(tmp_path / "byte", [record(*boxes[1:])], names[:255])
    assert ids(tmp_path / "byte").dtype == np.uint8 and back(tmp_path / "byte")[1]["a"][1] == boxes[1:]
    labels = np.array([[300, 1, 301]])  # n299, n0, background
    coding = load_records("maps", tmp_path / "wide", "train", val_fraction=0)[0][0].maps.coding
    assert np.asarray(semantic_map.to_image(labels, coding)).tolist() == [[300, 1, 0]]


def test_equal_records_give_equal_bytes(record, tmp_path):
    made = [record(Box("pit", 1, 1, 5, 5)), record(name="b.png")]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in (*folders, folders[1]):
        write(folder, made, CLASSES)
    one, two = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
    assert one == two and len(one) == 7


def test_published_maps_are_written_in_the_ids_of_the_list(record, tmp_path):
    picture = record(name="street.png")
    labels, instances = np.full((H, W), 7, np.uint8), np.full((H, W), 7, np.uint16)  # road
    labels[:4] = 0  # unlabeled
    labels[10:20, 5:15] = labels[10:20, 15:25] = 26  # two cars that touch
    instances[10:20, 5:15], instances[10:20, 15:25] = 26000, 26001
    labels[25, 30] = 17  # one pixel of pole
    for name, values in (("l", labels), ("i", instances)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    files = MapFiles(tmp_path / "l.png", tmp_path / "i.png", CODINGS["cityscapes"])
    write(tmp_path / "out", [ImageRecord(picture.path, 0, 0, maps=files)], ["car", "road"])
    classes, found = back(tmp_path / "out")
    assert classes[:2] == ("car", "road") and set(classes) == {*CODINGS["cityscapes"].classes[4:], "background"}
    assert found["street"][1] == [
        Box("road", 0, 4, W, H),
        Box("car", 5, 10, 15, 20),
        Box("car", 15, 10, 25, 20),
        Box("pole", 30, 25, 31, 26),
    ]
    assert np.unique(ids(tmp_path / "out", "street")[:4]).tolist() == [0]


def test_what_is_written_may_be_written_again_with_its_classes_in_another_order(record, tmp_path):
    boxes = [Box("pit", 0, 0, 10, 10), Box("pit", 10, 0, 16, 10), Box("long scratch", 3, 20, 5, 22)]
    write(tmp_path / "one", [record(*boxes)], CLASSES)
    write(tmp_path / "two", load_records("maps", tmp_path / "one", "train", val_fraction=0)[0], CLASSES[::-1])
    assert back(tmp_path / "two") == ((*CLASSES[::-1], "background"), {"a": ((W, H), boxes)})


def test_both_splits_stand_side_by_side_and_share_their_classes(record, tmp_path):
    a, b = record(Box("pit", 0, 0, 2, 2)), record(name="b.png")
    write(tmp_path / "out", [a], CLASSES)
    write(tmp_path / "out", [b], CLASSES, split="val")
    assert (list(back(tmp_path / "out")[1]), list(back(tmp_path / "out", "val")[1])) == (["a"], ["b"])
    with pytest.raises(AnnotationError, match="its train split has the classes"):
        write(tmp_path / "out", [b], CLASSES[:2], split="val")


def refused(words, folder, records, classes=CLASSES):
    with pytest.raises(AnnotationError, match=re.escape(words)):
        write(folder, records, classes)
    assert not Path(folder, "classes.txt").exists()


def test_what_a_map_cannot_say_is_refused_by_name(record, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 3
    refused("a.jpg: its EXIF turns it", tmp_path / "1", [record(name="a.jpg", exif=turned)])
    made = record(name="b.png")
    refused("b.png: annotated as 30x40 pixels but", tmp_path / "2", [ImageRecord(made.path, H, W)])
    refused("the class 'Background' is id 0", tmp_path / "3", [record(Box("Background", 0, 0, 9, 9))])
    refused("need the same file", tmp_path / "4", [record(name="c.png"), record(name="c.jpg")])
    refused("cannot be written", tmp_path / "5", [made], ["two\nlines"])


def test_a_folder_with_other_pictures_is_left_alone(record, tmp_path):
    write(tmp_path / "out", [record(Box("pit", 0, 0, 2, 2))], CLASSES)
    with pytest.raises(AnnotationError, match="already has other pictures, such as a"):
        write(tmp_path / "out", [record(name="b.png")], CLASSES)
    assert list(back(tmp_path / "out")[1]) == ["a"]
