import csv
from pathlib import Path

import numpy as np
import pytest

from stay_diffusion.data import class_names
from stay_diffusion.data.annotations import MapFiles
from stay_diffusion.data.codings import CODINGS
from stay_diffusion.data.formats import semantic_map
from stay_diffusion.data.formats.semantic_map import Maps

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
BACKGROUND, HAIR, HAT = 1, 14, 15  # labels of celeba
PERSON, CAR, GRASS = 1, 3, 124  # labels of coco_semantic; person's id is 0, car's 2
ROAD, RIDER, VEHICLE = 8, 26, 27  # labels of cityscapes


def painted(size, *parts, ground=BACKGROUND):
    """A square map with (value, (x0, y0, x1, y1)) painted one after the other."""
    values = np.full((size, size), ground, dtype=np.int32)
    for value, (x0, y0, x1, y1) in parts:
        values[y0:y1, x0:x1] = value
    return values


def found(labels, coding="celeba", instances=None, use_instances=True):
    boxes, names = semantic_map.objects(Maps(labels, instances), CODINGS[coding], use_instances)
    assert boxes.shape == (len(names), 4) and boxes.dtype == np.float64
    return [(int(label), tuple(box)) for label, box in zip(names, boxes.astype(int).tolist(), strict=True)]


def bounds(mask):
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_each_connected_part_of_a_class_is_an_object_with_its_exact_box():
    labels = painted(20, (HAIR, (1, 2, 6, 9)), (HAIR, (10, 0, 20, 3)), (HAT, (6, 4, 9, 8)))
    assert found(labels) == [(HAIR, (1, 2, 6, 9)), (HAIR, (10, 0, 20, 3)), (HAT, (6, 4, 9, 8))]


def test_parts_that_touch_at_a_corner_are_one_object():
    assert found(painted(20, (HAIR, (1, 1, 4, 4)), (HAIR, (4, 4, 8, 8)))) == [(HAIR, (1, 1, 8, 8))]


def test_the_largest_object_comes_first_by_its_pixels_and_not_by_its_box():
    corner = painted(20, (HAIR, (0, 0, 12, 12)), (BACKGROUND, (1, 1, 12, 12)), (HAT, (4, 4, 9, 9)))  # 23 and 25 pixels
    assert found(corner) == [(HAT, (4, 4, 9, 9)), (HAIR, (0, 0, 12, 12))]


@pytest.mark.parametrize(("pixels", "kept"), [(1, False), (2, True)])
def test_half_a_percent_of_the_picture_is_an_object_and_less_is_not(pixels, kept):
    assert bool(found(painted(20, (HAIR, (5, 5, 5 + pixels, 6))))) is kept  # of 400 pixels


def test_the_share_is_taken_of_pixels_and_not_of_the_box():
    labels = painted(40, ground=BACKGROUND)
    labels[np.arange(7), np.arange(7)] = HAIR  # 7 of 1600 pixels in a box of 49
    assert found(labels) == []


@pytest.mark.parametrize("coding", CODINGS)
def test_void_classes_are_no_objects_with_or_without_an_instance_id(coding):
    for void in CODINGS[coding].void_labels:
        labels = np.full((8, 8), void, dtype=np.int32)
        assert found(labels, coding) == []
        assert found(labels, coding, instances=np.full_like(labels, 26001)) == []


def test_parts_of_one_instance_are_one_object_and_instances_that_touch_are_two():
    labels = painted(20, (VEHICLE, (0, 0, 12, 5)), (VEHICLE, (15, 0, 20, 5)), ground=ROAD)
    raw = painted(20, (26001, (0, 0, 6, 5)), (26001, (15, 0, 20, 5)), (26002, (6, 0, 12, 5)), ground=7)
    vehicles = [part for part in found(labels, "cityscapes", raw) if part[0] == VEHICLE]
    assert vehicles == [(VEHICLE, (0, 0, 20, 5)), (VEHICLE, (6, 0, 12, 5))]


def test_without_instances_the_connected_parts_count():
    labels = painted(20, (VEHICLE, (0, 0, 12, 5)), (VEHICLE, (15, 0, 20, 5)), ground=ROAD)
    raw = painted(20, (26001, (0, 0, 6, 5)), (26001, (15, 0, 20, 5)), (26002, (6, 0, 12, 5)), ground=7)
    parts = found(labels, "cityscapes", raw, use_instances=False)
    assert parts == found(labels, "cityscapes") != found(labels, "cityscapes", raw)
    assert [part for part in parts if part[0] == VEHICLE] == [(VEHICLE, (0, 0, 12, 5)), (VEHICLE, (15, 0, 20, 5))]


def test_cityscapes_ids_below_a_thousand_are_classes_and_from_there_instances():
    labels = painted(20, (VEHICLE, (0, 0, 5, 5)), (VEHICLE, (8, 8, 13, 13)), ground=1)
    crowd, single = (painted(20, (raw, (0, 0, 20, 20))) for raw in (999, 1000))
    assert found(labels, "cityscapes", crowd) == [(VEHICLE, (0, 0, 5, 5)), (VEHICLE, (8, 8, 13, 13))]
    assert found(labels, "cityscapes", single) == [(VEHICLE, (0, 0, 13, 13))]


def test_an_instance_has_the_class_of_most_of_its_pixels_and_their_box():
    labels = painted(20, (VEHICLE, (2, 2, 10, 10)), (RIDER, (10, 2, 12, 10)), ground=1)
    assert found(labels, "cityscapes", painted(20, (26001, (2, 2, 12, 10)))) == [(VEHICLE, (2, 2, 10, 10))]


def spade_instances(labels, things):
    """SPADE's published maps: label ids with things numbered over them, drawn a pixel up and left."""
    raw = labels - 1
    for number, (x0, y0, x1, y1) in enumerate(things):
        raw[max(y0 - 1, 0) : y1 - 1, max(x0 - 1, 0) : x1 - 1] = number
    return raw


def test_rims_of_misplaced_coco_things_make_no_objects_and_widen_none():
    things = [(4, 4, 24, 24), (34, 4, 56, 26), (10, 34, 30, 60), (36, 36, 60, 60)]
    labels = painted(64, *zip((PERSON, PERSON, CAR, CAR), things, strict=True), ground=GRASS)
    # The first thing has its class's id as its number, as have the rims of the second; so with the third and fourth.
    got = found(labels, "coco_semantic", spade_instances(labels, things))
    assert [label for label, _ in got] == [GRASS, CAR, CAR, PERSON, PERSON]
    drawn = [things[3], things[2], things[1], things[0]]
    assert np.abs(np.array([box for _, box in got[1:]]) - drawn).max() <= 1


def test_a_coco_crowd_keeps_its_class_id_and_is_an_object():
    labels = painted(64, (CAR, (10, 10, 40, 40)), ground=GRASS)
    assert (CAR, (10, 10, 40, 40)) in found(labels, "coco_semantic", labels - 1)


def test_coco_things_numbered_beyond_the_things_ids_are_instances():
    labels = painted(64, (CAR, (10, 10, 40, 40)), ground=GRASS)
    raw = painted(64, (GRASS - 1, (10, 10, 25, 40)), (95, (25, 10, 40, 40)), ground=GRASS - 1)
    assert {box for label, box in found(labels, "coco_semantic", raw) if label == CAR} == {
        (10, 10, 25, 40),
        (25, 10, 40, 40),
    }


def test_coco_stuff_under_a_misplaced_thing_stays_stuff():
    labels = painted(64, ground=GRASS)
    raw = painted(64, (7, (10, 10, 40, 40)), ground=GRASS - 1)
    assert found(labels, "coco_semantic", raw) == [(GRASS, (0, 0, 64, 64))]


def coco_pairs():
    folder = SHARED / "coco_semantic_mini"
    return sorted(path for split in ("train", "val") for path in (folder / f"{split}_label").glob("*.png"))


@pytest.mark.skipif(not coco_pairs(), reason="shared/data/coco_semantic_mini is not here")
def test_boxes_of_real_coco_things_are_those_of_their_instance_numbers():
    for path in coco_pairs():
        inst = Path(str(path).replace("_label", "_inst"))
        maps = semantic_map.read(MapFiles(path, inst, CODINGS["coco_semantic"]))
        things = {part for part in found(maps.labels, "coco_semantic", maps.instances) if part[0] <= 91}
        expected = set()
        for label in np.unique(maps.labels[maps.labels <= 91]):
            for number in np.unique(maps.instances[maps.labels == label]):
                mask = (maps.labels == label) & (maps.instances == number)
                # A number that is the class's own id may be rims: checked below.
                if number != label - 1 and mask.sum() >= 0.005 * mask.size:
                    expected.add((int(label), bounds(mask)))
        assert expected <= things, path
        for label, (x0, y0, x1, y1) in things - expected:
            inside = ((maps.labels == label) & (maps.instances == label - 1))[y0:y1, x0:x1]
            solid = inside[1:-1, :-2] & inside[1:-1, 1:-1] & inside[1:-1, 2:] & inside[:-2, 1:-1] & inside[2:, 1:-1]
            assert solid.mean() > 0.1, (path, label)


@pytest.mark.parametrize("seed", range(3))
def test_edges_are_where_a_neighbour_differs_as_a_loop_finds_them(seed):
    ids = np.random.default_rng(seed).integers(0, 3, (7, 9))
    expected = np.zeros(ids.shape, dtype=bool)
    for y, x in np.ndindex(*ids.shape):
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        expected[y, x] = any(ids[n] != ids[y, x] for n in beside if 0 <= n[0] < 7 and 0 <= n[1] < 9)
    np.testing.assert_array_equal(semantic_map.edges(ids), expected)


def test_a_map_of_one_id_has_no_edges():
    assert not semantic_map.edges(np.full((4, 5), 26001)).any()


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")
def test_the_classes_are_those_of_the_published_lists_in_their_order():
    rows = (SHARED / "ade20k_mini/classes150.txt").read_text().splitlines()[1:]
    first = [row.split("\t")[1].split(",")[0].strip().lower() for row in rows]
    assert [name.lower() for name in class_names.ADE20K] == first
    with open(SHARED / "coco_stuff_mini/classes.csv", newline="") as file:
        listed = {int(row["category_id"]): row["name"] for row in csv.DictReader(file)}
    assert {i: class_names.COCO_STUFF[i - 1] for i in listed if i <= 182} == {
        i: name for i, name in listed.items() if i <= 182
    }
    assert [len(coding.classes) for coding in CODINGS.values()] == [151, 34, 19, 183]
