"""A box's object change: known differences inside and around it."""

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.quality.object_change import object_changes

BOX = RelativeBox("bar", 0.25, 0.25, 0.5, 0.5)  # pixels 4 to 8 of 16


def pictures(inside: int, around: int = 0, side: int = 16, channels: int = 0) -> tuple[Image.Image, Image.Image]:
    """A sample and its twin that differ by so many grey levels in BOX, and around it."""
    twin = np.full((side, side, *([channels] if channels else [])), 50, dtype=np.uint8)
    drawn = twin + np.uint8(around)
    drawn[side // 4 : side // 2, side // 4 : side // 2] = 50 + inside
    return Image.fromarray(drawn), Image.fromarray(twin)


@pytest.mark.parametrize(
    ("inside", "around", "expected"),
    [(30, 0, 30 / 32), (30, 8, 30 / 40), (8, 30, 8 / 40), (10, 10, 10 / 22), (0, 0, 0)],
)
def test_the_share_of_the_change_that_is_in_the_box_is_known(inside, around, expected):
    assert object_changes(*pictures(inside, around), [BOX]) == [pytest.approx(expected)]


def test_darker_counts_as_much_as_lighter_and_channels_are_averaged():
    drawn, twin = pictures(30, 8)
    assert object_changes(twin, drawn, [BOX]) == [pytest.approx(30 / 40)]
    colours, plain = (np.asarray(picture) for picture in pictures(30, channels=3))
    colours = colours.copy()
    colours[..., 1:] = plain[..., 1:]
    assert object_changes(Image.fromarray(colours), Image.fromarray(plain), [BOX]) == [pytest.approx(10 / 12)]


def test_other_boxes_do_not_count_as_around():
    drawn, twin = pictures(30)
    values = np.asarray(drawn).copy()
    values[4:8, 8:10] = 250
    beside = RelativeBox("hole", 0.5, 0.25, 0.625, 0.5)
    found = object_changes(Image.fromarray(values), twin, [BOX, beside])
    assert found[0] == pytest.approx(30 / 32)
    assert object_changes(Image.fromarray(values), twin, [BOX])[0] < 30 / 40


def test_what_happens_far_from_the_box_does_not_matter():
    drawn, twin = (picture.crop((0, 0, 16, 16)) for picture in pictures(30))
    values = np.asarray(drawn).copy()
    values[12:, :] = 255
    assert object_changes(Image.fromarray(values), twin, [BOX]) == [pytest.approx(30 / 32)]


@pytest.mark.parametrize(
    "box",
    [
        RelativeBox("bar", 0, 0, 1, 1),
        RelativeBox("bar", -0.5, -0.5, 1.5, 1.5),
        RelativeBox("bar", 0.3, 0.3, 0.301, 0.301),
    ],
)
def test_boxes_of_any_size_have_one(box):
    drawn, twin = pictures(30, 30)
    assert 0 < object_changes(drawn, twin, [box])[0] <= 30 / 32


def test_pictures_of_different_sizes_are_refused():
    drawn, twin = pictures(30)
    with pytest.raises(ValueError, match="not of the same layout"):
        object_changes(drawn, twin.resize((8, 8)), [BOX])
