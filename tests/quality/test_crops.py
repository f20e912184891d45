"""Square crops around boxes: known pixels at known places."""

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.quality.crops import RIM, SIDE, cut, ended_at, within_rim, without_rim

P = SIDE + 2 * RIM


def noise(height: int, width: int, channels: int = 1) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def centred(x: float, y: float, side: float) -> tuple[float, float, float, float]:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def test_a_box_of_half_a_crop_is_shown_pixel_by_pixel_with_as_much_around_it():
    values = noise(100, 120)
    crop = cut(Image.fromarray(values), centred(60, 50, SIDE / 2), 1)
    assert np.array_equal(crop.pixels[0], values[50 - P // 2 : 50 + P // 2, 60 - P // 2 : 60 + P // 2])
    assert crop.inside == (0, 0, P, P)


def test_the_longer_side_decides_and_the_shape_is_kept():
    values = noise(100, 120)
    square, tall = centred(60, 50, 16), (58.0, 42.0, 62.0, 58.0)
    image = Image.fromarray(values)
    assert np.array_equal(cut(image, square, 1).pixels, cut(image, tall, 1).pixels)


def test_beyond_the_picture_its_edge_is_repeated_and_inside_says_so():
    values = noise(100, 120)
    crop = cut(Image.fromarray(values), centred(8, 95, 16), 1)
    expected = np.pad(values, 40, mode="edge")[95 + 40 - P // 2 : 95 + 40 + P // 2, 8 + 40 - P // 2 : 8 + 40 + P // 2]
    assert np.array_equal(crop.pixels[0], expected)
    assert crop.inside == (0, P // 2 - 8, P // 2 + 5, P)


def test_what_is_made_smaller_is_averaged():
    board = (np.indices((400, 400)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = cut(Image.fromarray(board), centred(200, 200, 160), 1).pixels
    assert abs(pixels.astype(float) - 127.5).max() < 4


def test_a_box_far_larger_than_its_picture_shows_the_whole_of_it():
    values = np.zeros((30, 50), dtype=np.uint8)
    values[:, 25:] = 200
    crop = cut(Image.fromarray(values), (-50, -30, 100, 60), 1)
    top, left, bottom, right = crop.inside
    assert abs(right - left - 50 / 300 * SIDE) < 1 and abs(bottom - top - 30 / 300 * SIDE) < 1
    assert (crop.pixels[0, :, : P // 2 - 2] == 0).all() and (crop.pixels[0, :, P // 2 + 2 :] == 200).all()


@pytest.mark.parametrize("box", [(10.0, 10.0, 10.0, 10.0), (9.9, 9.9, 10.1, 10.1), (8.0, 8.0, 12.0, 12.0)])
def test_a_tiny_box_is_seen_as_one_of_four_pixels(box):
    image = Image.fromarray(noise(20, 20))
    assert np.array_equal(cut(image, box, 1).pixels, cut(image, (8, 8, 12, 12), 1).pixels)


@pytest.mark.parametrize("box", [(-40.0, 5.0, -20.0, 15.0), (60.0, 60.0, 70.0, 90.0)])
def test_a_box_outside_of_its_picture_shows_its_nearest_edge(box):
    values = noise(20, 20)
    crop = cut(Image.fromarray(values), box, 1)
    top, left, bottom, right = crop.inside
    assert bottom > top and right > left and np.isin(crop.pixels, np.r_[0:256]).all()
    edge = values[:, 0] if box[0] < 0 else values[-1:, -1]
    assert edge.min() <= crop.pixels.min() and crop.pixels.max() <= edge.max()


def test_a_grey_picture_is_repeated_over_three_channels_and_colours_stay_apart():
    grey, colours = noise(60, 60), noise(60, 60, 3)
    repeated = cut(Image.fromarray(grey), centred(30, 30, 16), 3).pixels
    assert repeated.shape == (3, P, P)
    assert all(
        np.array_equal(channel, cut(Image.fromarray(grey), centred(30, 30, 16), 1).pixels[0]) for channel in repeated
    )
    found = cut(Image.fromarray(colours), centred(30, 30, 16), 3).pixels
    assert np.array_equal(found, colours[10:50, 10:50].transpose(2, 0, 1))


def test_a_picture_of_more_than_8_bits_is_rounded():
    values = noise(60, 60).astype(np.float32)
    finer = Image.fromarray(values + 0.3)
    assert np.array_equal(
        cut(finer, centred(30, 30, 16), 1).pixels, cut(Image.fromarray(noise(60, 60)), centred(30, 30, 16), 1).pixels
    )


def test_an_object_looks_the_same_at_any_scale():
    def blob(size: int) -> Image.Image:
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        return Image.fromarray((255 * np.exp(-20 * (x**2 + y**2))).astype(np.uint8))

    small, large = (
        cut(blob(size), centred(size / 2, size / 2, size / 4), 1).pixels.astype(float) for size in (80, 400)
    )
    assert np.abs(small - large).max() < 6


def test_a_crop_that_is_made_to_end_equals_one_of_a_picture_that_ends():
    values = noise(100, 120)
    box = centred(60, 50, 16)
    whole = cut(Image.fromarray(values), box, 1)
    ends = cut(Image.fromarray(values[:57, 49:]), (box[0] - 49, box[1], box[2] - 49, box[3]), 1)
    crops = without_rim(torch.tensor(whole.pixels)[None])
    torch.testing.assert_close(ended_at(crops, within_rim(ends.inside))[0], without_rim(torch.tensor(ends.pixels)))
    assert not torch.equal(crops[0], without_rim(torch.tensor(ends.pixels)))
