"""The in/out ratio: its figures of constructed pairs of images."""

import warnings

import numpy as np
import pytest

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.evaluation.metrics import in_out_ratio as script

LEFT, RIGHT = RelativeBox("hole", 0.0, 0.0, 0.5, 1.0), RelativeBox("scratch", 0.5, 0.0, 1.0, 1.0)


def pair(*painted, ground: int = 0, side: int = 8, boxes=()):
    """(drawn, good, boxes): they differ by `ground`, and by `level` in each painted (rows, columns, level)."""
    good = np.full((side, side, 1), 50, dtype=np.uint8)
    drawn = good + np.uint8(ground)
    for rows, columns, level in painted:
        drawn[rows, columns] = 50 + level
    return drawn, good, list(boxes)


ALL, FIRST_HALF, SECOND_HALF = slice(None), slice(0, 4), slice(4, 8)


def test_the_means_inside_and_outside_and_their_ratio_are_known():
    found = script.measure([pair((ALL, FIRST_HALF, 30), ground=3, boxes=[LEFT])])
    assert (found.inside, found.outside, found.ratio) == (30, 3, 10)
    assert (found.boxes, found.empty, found.pictures) == (1, 0, 1)


def test_darker_counts_as_much_as_lighter():
    drawn, good, boxes = pair((ALL, FIRST_HALF, 30), boxes=[LEFT])
    assert script.measure([(good, drawn, boxes)]).inside == 30


def test_a_pixel_of_several_channels_differs_by_their_mean():
    drawn, good, boxes = pair((ALL, FIRST_HALF, 30), boxes=[LEFT])
    colours = np.concatenate([drawn, good, good], axis=-1)
    assert script.measure([(colours, good.repeat(3, axis=-1), boxes)]).inside == 10


def test_pixels_of_overlapping_boxes_count_once():
    wide = RelativeBox("hole", 0.0, 0.0, 1.0, 0.5)
    found = script.measure([pair((ALL, FIRST_HALF, 20), (FIRST_HALF, SECOND_HALF, 8), ground=2, boxes=[LEFT, wide])])
    assert found.inside == pytest.approx((32 * 20 + 16 * 8) / 48) and found.outside == 2
    assert found.per_class["hole"]["difference"] == pytest.approx((20 + 14) / 2)  # each box over its own pixels


def test_every_pixel_weighs_the_same_whatever_its_picture():
    small = RelativeBox("hole", 0.0, 0.0, 0.25, 0.25)
    pairs = [pair((ALL, FIRST_HALF, 10), boxes=[LEFT]), pair((slice(2), slice(2), 100), ground=6, boxes=[small])]
    found = script.measure(iter(pairs))
    assert found.inside == pytest.approx((32 * 10 + 4 * 100) / 36)
    assert found.outside == pytest.approx(60 * 6 / (32 + 60))


def test_classes_are_told_apart():
    pairs = [
        pair((ALL, FIRST_HALF, 40), ground=1, boxes=[LEFT, RIGHT]),
        pair((ALL, SECOND_HALF, 20), boxes=[RIGHT]),
    ]
    assert script.measure(pairs).per_class == {
        "hole": {"boxes": 1, "difference": 40, "empty": 0},
        "scratch": {"boxes": 2, "difference": 10.5, "empty": 1},
    }


@pytest.mark.parametrize(
    ("inside", "outside", "empty"), [(1, 0, 1), (2, 0, 0), (1, 1, 1), (2, 1, 0), (5, 3, 1), (6, 3, 0), (0, 0, 1)]
)
def test_a_box_is_empty_under_two_levels_or_under_twice_the_outside(inside, outside, empty):
    found = script.measure([pair((ALL, FIRST_HALF, inside), ground=outside, boxes=[LEFT])])
    assert found.empty == empty == found.empty_rate


def test_a_box_is_held_against_the_outside_of_its_own_picture():
    restless, calm = (pair((ALL, FIRST_HALF, 10), ground=level, boxes=[LEFT]) for level in (8, 1))
    assert script.measure([restless, calm]).empty == 1
    assert script.measure([calm, calm]).empty == 0


def test_pictures_without_boxes_change_nothing():
    with_box, without = pair((ALL, FIRST_HALF, 30), ground=3, boxes=[LEFT]), pair()
    assert script.measure([without, with_box, without]) == script.measure([with_box])


@pytest.mark.parametrize("pairs", [[], [pair(ground=9)]], ids=["no picture", "no box"])
def test_without_any_box_there_is_nothing_to_measure(pairs):
    with pytest.raises(ValueError, match=r"^no layout has a box: nothing to measure$"):
        script.measure(pairs)


def test_of_a_box_over_the_border_the_part_inside_counts():
    found = script.measure([pair((ALL, FIRST_HALF, 30), boxes=[RelativeBox("hole", -0.7, -0.2, 0.5, 1.3)])])
    assert (found.inside, found.outside) == (30, 0)


@pytest.mark.parametrize("corner", [0.30, 0.374, 0.26])
def test_a_box_smaller_than_a_pixel_has_the_pixel_it_lies_in(corner):
    tiny = RelativeBox("hole", corner, 0.6, corner + 0.001, 0.601)
    found = script.measure([pair((4, 2, 90), boxes=[tiny])])
    assert (found.inside, found.outside) == (90, 0)


def test_a_box_without_a_pixel_in_the_picture_is_left_out():
    beyond = [RelativeBox("hole", 1.0, 0.2, 1.4, 0.9), RelativeBox("hole", -0.5, 0.0, 0.001, 1.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the mean of nothing
        found = script.measure([pair((ALL, SECOND_HALF, 30), boxes=[RIGHT, *beyond])])
    assert found.boxes == 1 and list(found.per_class) == ["scratch"]


def test_there_is_no_ratio_where_nothing_differs_outside():
    assert script.measure([pair((ALL, ALL, 30), boxes=[LEFT, RIGHT])]).ratio is None
    assert script.measure([pair((ALL, FIRST_HALF, 30), boxes=[LEFT])]).ratio is None


def test_the_jackknife_of_a_mean_is_its_standard_error():
    pairs = [pair((ALL, FIRST_HALF, level), ground=1, boxes=[LEFT]) for level in (30, 40, 50, 1)]
    found = script.measure(pairs)
    assert found.ratio == pytest.approx(121 / 4)
    assert found.ratio_error == pytest.approx(np.std([30, 40, 50, 1], ddof=1) / 2)
    assert found.empty_rate_error == pytest.approx(np.std([0, 0, 0, 1], ddof=1) / 2)


def test_a_single_picture_has_no_standard_error_and_no_ratio_has_none():
    alone = script.measure([pair((ALL, FIRST_HALF, 30), ground=1, boxes=[LEFT])])
    assert alone.ratio_error is None and alone.empty_rate_error is None
    still = script.measure([pair((ALL, FIRST_HALF, 30), boxes=[LEFT])] * 2)
    assert still.ratio_error is None and still.empty_rate_error == 0
