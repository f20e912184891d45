import numpy as np
import pytest
from PIL import Image

from stay_diffusion.config import DataConfig
from stay_diffusion.data import transforms
from stay_diffusion.data.images import Picture
from stay_diffusion.data.transforms import CROP_POLICIES, apply, cut_image, is_visible, map_boxes

NO_BOXES = np.zeros((0, 4))
SQUARE_POLICIES = [name for name in CROP_POLICIES if name != "resize"]
SIZES = [(100, 60), (60, 100), (40, 300), (64, 64), (20, 33)]


def rngs(num=40):
    return [np.random.default_rng(seed) for seed in range(num)]


def random_box(rng, width, height):
    x0, x1 = np.sort(rng.uniform(0, width, 2))
    y0, y1 = np.sort(rng.uniform(0, height, 2))
    return np.array([[x0, y0, x1 + 1e-3, y1 + 1e-3]])


def picture_of(box, width, height):
    """A black picture with the box in white."""
    values = np.zeros((height, width), np.uint8)
    x0, y0, x1, y1 = box
    values[y0:y1, x0:x1] = 255
    return Image.fromarray(values)


def bright_box(image):
    """x0 y0 x1 y1 in [0, 1] of what is brighter than half."""
    ys, xs = np.nonzero(np.asarray(image) > 127)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / image.width


def crop(image, boxes, policy, size, rng, min_visible=0.0, flip=False):
    picture, boxes = Picture(image, *image.size, (0, 0, *image.size)), np.array(boxes, dtype=float)
    return apply(
        picture, boxes, CROP_POLICIES[policy], size, DataConfig(min_visible=min_visible, random_flip=flip), rng
    )


@pytest.mark.parametrize("policy", SQUARE_POLICIES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_window_is_square_and_inside_the_picture(policy, width, height):
    for rng in rngs():
        boxes = random_box(rng, width, height) if rng.random() < 0.7 else NO_BOXES
        x0, y0, x1, y1 = CROP_POLICIES[policy](width, height, boxes, 32, rng)
        assert x1 - x0 == pytest.approx(y1 - y0)
        assert x0 >= 0 and y0 >= 0 and x1 <= width + 1e-9 and y1 <= height + 1e-9


@pytest.mark.parametrize("policy", CROP_POLICIES)
@pytest.mark.parametrize("flip", [False, True])
def test_a_box_stays_on_the_object_that_it_was_drawn_around(policy, flip):
    box = (50, 40, 90, 70)
    for rng in rngs(20):
        cut = crop(picture_of(box, 160, 120), [box], policy, 80, rng, flip=flip)
        if len(cut.kept):
            np.testing.assert_allclose(cut.boxes[0].clip(0, 1), bright_box(cut.image), atol=1.5 / 80)


def test_resize_shows_the_whole_picture():
    assert CROP_POLICIES["resize"](100, 60, NO_BOXES, 32, None) == (0, 0, 100, 60)


@pytest.mark.parametrize(("size", "window"), [((100, 60), (20, 0, 80, 60)), ((60, 101), (0, 20, 60, 80))])
def test_center_is_the_largest_square_in_the_middle(size, window):
    assert CROP_POLICIES["center"](*size, NO_BOXES, 32, None) == window


def test_random_shows_between_four_fifths_and_all_of_the_short_side_anywhere():
    windows = np.array([CROP_POLICIES["random"](200, 100, NO_BOXES, 32, rng) for rng in rngs(300)])
    sides = windows[:, 2] - windows[:, 0]
    assert 80 <= sides.min() < 82 and 98 < sides.max() <= 100
    assert windows[:, 0].min() < 5 and windows[:, 2].max() > 195


@pytest.mark.parametrize(("width", "height"), SIZES[:3])
def test_object_contains_an_object_that_fits(width, height):
    for rng in rngs():
        x0, y0 = rng.uniform(0, width - 20), rng.uniform(0, height - 20)
        window = CROP_POLICIES["object"](width, height, np.array([[x0, y0, x0 + 18, y0 + 15]]), 32, rng)
        assert window[2] - window[0] == 32
        assert window[0] <= x0 and window[1] <= y0 and window[2] >= x0 + 18 and window[3] >= y0 + 15


def test_object_reaches_every_window_that_contains_the_object():
    boxes = np.array([[50, 50, 58, 60]])
    starts = {CROP_POLICIES["object"](100, 200, boxes, 16, rng)[:2] for rng in rngs(1500)}
    assert starts == {(x, y) for x in range(42, 51) for y in range(44, 51)}


def test_object_lies_within_an_object_larger_than_the_window():
    boxes = np.array([[10, 20, 90, 25]])
    for rng in rngs():
        x0, y0, x1, y1 = CROP_POLICIES["object"](100, 100, boxes, 32, rng)
        assert x0 >= 10 and x1 <= 90 and y0 <= 20 and y1 >= 25


def test_object_chooses_every_object_at_times():
    boxes = np.array([[0, 0, 10, 10], [80, 80, 90, 90], [80, 0, 90, 10]])
    windows = [CROP_POLICIES["object"](100, 100, boxes, 32, rng) for rng in rngs(30)]
    assert {(w[0] > 50, w[1] > 50) for w in windows} == {(False, False), (True, True), (True, False)}


def test_object_without_objects_reaches_the_whole_picture():
    windows = np.array([CROP_POLICIES["object"](40, 36, NO_BOXES, 32, rng) for rng in rngs(100)])
    assert set(windows[:, 0]) == set(range(9)) and set(windows[:, 1]) == set(range(5))


def test_object_in_a_picture_smaller_than_the_output_takes_the_largest_square():
    for rng in rngs(20):
        x0, y0, x1, y1 = CROP_POLICIES["object"](90, 20, np.array([[60, 5, 70, 9]]), 32, rng)
        assert (y0, y1, x1 - x0) == (0, 20, 20) and x0 <= 60 and x1 >= 70


def test_object_keeps_the_pixels_as_they_are():
    values = np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8)
    image, boxes, rng = Image.fromarray(values), [[30.3, 40.2, 38.7, 48.9]], np.random.default_rng(5)
    x0, y0, x1, y1 = map(int, CROP_POLICIES["object"](70, 90, np.array(boxes), 32, np.random.default_rng(5)))
    np.testing.assert_array_equal(np.asarray(crop(image, boxes, "object", 32, rng).image), values[y0:y1, x0:x1])


@pytest.mark.parametrize("mode", ["L", "F", "RGB"])
def test_shrinking_averages_instead_of_skipping_pixels(mode):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    picture = Picture(Image.fromarray(stripes).convert(mode), 64, 64, (0, 0, 64, 64))
    small = np.asarray(cut_image(picture, (0, 0, 64, 64), 8))
    np.testing.assert_allclose(small, 127.5, atol=6)


def test_pixels_become_coordinates_of_the_window():
    boxes = map_boxes(np.array([[10.0, 20.0, 30.0, 50.0]]), (0, 10, 40, 90))
    np.testing.assert_allclose(boxes, [[0.25, 0.125, 0.75, 0.5]])


def test_a_cut_box_keeps_its_shape_outside_of_the_window():
    cut = crop(Image.new("L", (200, 100)), [[40, 10, 80, 30]], "center", 50, None)
    np.testing.assert_allclose(cut.boxes, [[-0.1, 0.1, 0.3, 0.3]], atol=1e-6)
    assert cut.boxes.dtype == np.float32


def test_boxes_below_the_visible_share_are_dropped_and_the_others_are_told_by_index():
    boxes = [[0, 0, 40, 10], [30, 0, 70, 10], [45, 0, 85, 10], [160, 0, 170, 10]]  # 0, half, 7/8, 0 of them in 50..150
    cut = crop(Image.new("L", (200, 100)), boxes, "center", 100, None, min_visible=0.6)
    assert cut.kept.tolist() == [2]
    assert crop(Image.new("L", (200, 100)), boxes, "center", 100, None, min_visible=0.5).kept.tolist() == [1, 2]


def test_a_box_wholly_outside_is_dropped_even_without_a_least_share():
    boxes = [[0, 0, 50, 10], [150, 0, 170, 10], [60, 0, 70, 10]]
    assert crop(Image.new("L", (200, 100)), boxes, "center", 100, None).kept.tolist() == [2]


@pytest.mark.parametrize(("width", "kept"), [(0.9, False), (1.0, True)])
def test_less_than_one_output_pixel_is_not_visible(width, kept):
    assert is_visible(np.array([[0.5, 0.2, 0.5 + width / 64, 0.8]]), 64, 0.0).tolist() == [kept]
    assert is_visible(np.array([[0.2, 0.5, 0.8, 0.5 + width / 64]]), 64, 0.0).tolist() == [kept]


def test_an_object_larger_than_the_window_that_fills_it_is_not_lost():
    cut = crop(Image.new("L", (300, 300)), [[0, 0, 300, 300]], "object", 32, np.random.default_rng(0), min_visible=0.9)
    assert cut.kept.tolist() == [0]


def test_a_flip_mirrors_picture_and_boxes_half_of_the_time():
    image, boxes = picture_of((8, 0, 16, 32), 32, 32), [[8, 0, 16, 32]]
    cuts = [crop(image, boxes, "resize", 32, rng, flip=True) for rng in rngs(200)]
    lefts = [float(cut.boxes[0, 0]) for cut in cuts]
    assert set(lefts) == {0.25, 0.5} and 60 < lefts.count(0.5) < 140
    for cut in cuts[:20]:
        np.testing.assert_allclose(cut.boxes[0], bright_box(cut.image))


def test_without_flip_nothing_is_mirrored():
    image, boxes = picture_of((8, 0, 16, 32), 32, 32), [[8, 0, 16, 32]]
    assert {float(crop(image, boxes, "resize", 32, rng).boxes[0, 0]) for rng in rngs()} == {0.25}


def test_mirroring_twice_changes_nothing():
    boxes = np.array([[0.1, 0.2, 0.35, 0.9]])
    np.testing.assert_allclose(transforms.mirror_boxes(transforms.mirror_boxes(boxes)), boxes)


@pytest.mark.parametrize("policy", CROP_POLICIES)
def test_a_picture_without_boxes_gives_none(policy):
    cut = crop(Image.new("L", (50, 40)), [], policy, 32, np.random.default_rng(0), flip=True)
    assert cut.boxes.shape == (0, 4) and cut.kept.shape == (0,) and cut.image.size == (32, 32)
