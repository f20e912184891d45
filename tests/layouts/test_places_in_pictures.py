"""Objects go where pictures look as they do around the data's own."""

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.layouts.surroundings import Surroundings, around, greys, strips

SIZE = 120


def stripes(tmp_path, name, boxes=()):
    """A white picture with one black, upright stripe from x = 50 to 60."""
    values = np.full((SIZE, SIZE), 255, dtype=np.uint8)
    values[:, 50:60] = 0
    Image.fromarray(values).save(tmp_path / name)
    return ImageRecord(tmp_path / name, SIZE, SIZE, boxes)


@pytest.fixture
def surroundings(tmp_path):
    on_stripe, beside = (
        (Box("cut", 47, y, 63, y + 12) for y in (20, 70)),
        (Box("spot", 90, y, 102, y + 12) for y in (9, 60)),
    )
    return Surroundings.of([stripes(tmp_path, "data.png", (*on_stripe, *beside))], False, 0, None)


def candidates():
    """Boxes in shares at steps of 4 pixels across the picture."""
    lefts = np.arange(4, SIZE - 20, 4)
    return np.stack([lefts, np.full_like(lefts, 50), lefts + 16, np.full_like(lefts, 62)], axis=1) / SIZE


def test_each_class_takes_a_place_that_looks_as_around_its_own(tmp_path, surroundings):
    prefer = surroundings.preference(greys(stripes(tmp_path, "good.png"), None))
    places, rng = candidates(), np.random.default_rng(0)
    cuts = {places[prefer("cut", places, rng)][0] * SIZE for _ in range(20)}
    spots = {places[prefer("spot", places, rng)][0] * SIZE for _ in range(20)}
    assert all(44 <= left <= 50 for left in cuts)
    assert all(left + 24 < 50 or left - 8 >= 60 for left in spots)


def test_a_class_that_the_data_lack_takes_the_first_place(tmp_path, surroundings):
    prefer = surroundings.preference(greys(stripes(tmp_path, "good.png"), None))
    assert prefer("unseen", candidates(), np.random.default_rng(0)) == 0


def test_mirrored_data_teach_mirrored_places(tmp_path):
    at_edge = (Box("left", 52, 30, 68, 42),)  # its left part on the stripe
    record, places = stripes(tmp_path, "data.png", at_edge), np.array([[52, 60, 68, 72], [42, 60, 58, 72]]) / SIZE
    grey = greys(stripes(tmp_path, "good.png"), None)
    chosen = {
        mirrored: {
            Surroundings.of([record], mirrored, 0, None).preference(grey)("left", places, rng)
            for rng in map(np.random.default_rng, range(30))
        }
        for mirrored in (False, True)
    }
    assert chosen == {False: {0}, True: {0, 1}}


def test_beyond_its_edges_a_picture_goes_on_as_it_ends():
    grey = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (40, 1))
    seen = around(grey, np.array([[0.0, 0.0, 10.0, 10.0], [-500, -500, 900, 900]]))
    assert (seen[0, :, 0] == 0).all() and np.isfinite(seen).all() and seen.max() <= 1


def test_around_a_box_is_a_quarter_of_its_side_on_each_side():
    grey = np.zeros((60, 60), dtype=np.float32)
    grey[20:40, 20:40] = 1
    (seen,) = around(grey, np.array([[20.0, 20.0, 40.0, 40.0]]))
    assert (seen[4:20, 4:20] == 1).all() and seen.sum() == 16 * 16
    assert (strips(seen[None]) == 0).all()
