"""Objects into whole pictures: what is around them stays to the bit, and the model sees what it should."""

from functools import partial

import numpy as np
import pytest
import torch

from stay_diffusion.config import SampleConfig
from stay_diffusion.data.annotations import Box, ImageRecord, RelativeBox, Vocabulary
from stay_diffusion.data.native import read_native, to_picture
from stay_diffusion.layouts.items import LayoutItem
from stay_diffusion.sampling.generate import image_generators
from stay_diffusion.sampling.insertion.canvas import ModelInput
from stay_diffusion.sampling.insertion.good_images import in_turn, pair
from stay_diffusion.sampling.insertion.insert import Inserter, count_new

VOCABULARY = Vocabulary(("spot", "line"), ("A", "B"))
MODEL_INPUT = ModelInput(32, 1, "object", 0.25)
LAYOUT = LayoutItem(
    "layout", "A", (RelativeBox("spot", 0.2, 0.3, 0.3, 0.4), RelativeBox("line", 0.7, 0.6, 0.8, 0.9)), "test"
)


def picture(tmp_path, shape=(90, 120), dtype=np.uint8, name="good.png", boxes=(), product="A"):
    values = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    to_picture(values).save(tmp_path / name)
    return ImageRecord(tmp_path / name, shape[1], shape[0], boxes, product)


def inverted(calls, layout, known, keep, generators):
    """Stands in for the model: what may change comes inverted, so that nothing of it stays as it was."""
    calls.append((layout, known, keep, [torch.randn(1, generator=g).item() for g in generators]))
    return torch.where(keep, known, torch.where(known > 0, -1.0, 1.0))


def inserted(items, model_input=MODEL_INPUT, **options):
    calls = []
    fill = partial(inverted, calls)
    inserter = inserter_of(fill, model_input, **options)
    return inserter.insert(items, image_generators(0, range(len(items)))), calls


def inserter_of(fill, model_input=MODEL_INPUT, accept=None, **options):
    return Inserter(fill, VOCABULARY, model_input, SampleConfig(**options), accept)


def outside_of(item, margin=0.15, least=4):
    """What must stay as it is, by boxes and margins alone."""
    height, width = read_native(item.into.path).shape[:2]
    stays = np.ones((height, width), dtype=bool)
    for box in item.objects[len(item.into.boxes) :]:
        x0, y0, x1, y1 = box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height
        by = max(least, round(margin * max(x1 - x0, y1 - y0)))
        rows = slice(max(int(np.floor(y0)) - by, 0), int(np.ceil(y1)) + by)
        stays[rows, max(int(np.floor(x0)) - by, 0) : int(np.ceil(x1)) + by] = False
    return stays


@pytest.mark.parametrize(("shape", "dtype"), [((90, 120), np.uint8), ((90, 120), np.uint16), ((90, 120, 3), np.uint8)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["object", "resize", "center"])
def test_all_pixels_outside_of_the_boxes_and_their_margins_stay_to_the_bit(tmp_path, shape, dtype, channels, policy):
    (item,) = pair([picture(tmp_path, shape, dtype)], 1, in_turn([LAYOUT]))
    (canvas,), _ = inserted([item], ModelInput(32, channels, policy, 0.25))
    stays = outside_of(item)
    assert canvas.picture.dtype == dtype and canvas.picture.shape == shape
    assert np.array_equal(canvas.picture[stays], canvas.source[stays])
    for box in item.objects:
        inside = canvas.picture[int(box.y0 * 90) + 1 : int(box.y1 * 90), int(box.x0 * 120) + 1 : int(box.x1 * 120)]
        before = canvas.source[int(box.y0 * 90) + 1 : int(box.y1 * 90), int(box.x0 * 120) + 1 : int(box.x1 * 120)]
        assert (inside != before).mean() > 0.9


def test_at_the_models_own_scale_what_is_drawn_is_what_is_there(tmp_path):
    (item,) = pair([picture(tmp_path)], 1, in_turn([LAYOUT]))
    (canvas,), _ = inserted([item])
    inside = np.s_[27:36, 24:36]
    assert np.array_equal(canvas.picture[inside], np.where(canvas.source[inside] > 127, 0, 255))


def test_the_model_is_told_product_and_object_where_they_are_in_its_window(tmp_path):
    (item,) = pair([picture(tmp_path)], 1, in_turn([LAYOUT]))
    (canvas,), calls = inserted([item])
    assert len(calls) == 2 and [call[0].labels.tolist() for call in calls] == [[[1]], [[2]]]
    layout, known, keep, _ = calls[0]
    x0, y0, x1, y1 = (layout.boxes[0, 0] * 32).round().int().tolist()
    assert layout.product.tolist() == [1]
    assert not keep[0, 0, y0:y1, x0:x1].any() and (x1 - x0, y1 - y0) == (12, 9)
    left, top, _, _ = canvas.windows[0].area
    assert (left + x0, top + y0) == (24, 27)
    seen = canvas.source[top : top + 32, left : left + 32] / 127.5 - 1
    torch.testing.assert_close(known[0, 0], torch.from_numpy(seen).float())


def test_what_is_in_the_picture_already_is_seen_kept_and_labelled(tmp_path):
    there = (Box("line", 30, 30, 40, 34),)
    new = LayoutItem("new", None, (RelativeBox("spot", 0.2, 0.42, 0.28, 0.5),), "test")
    (item,) = pair([picture(tmp_path, boxes=there, product="B")], 1, in_turn([new]))
    assert [box.label for box in item.objects] == ["line", "spot"] and item.product == "B" and count_new([item]) == 1
    (canvas,), calls = inserted([item])
    assert calls[0][0].labels.tolist() == [[2, 1]] and calls[0][0].product.tolist() == [2]
    assert np.array_equal(canvas.picture[30:34, 30:40], canvas.source[30:34, 30:40])


def test_objects_that_would_lie_on_others_are_left_out(tmp_path):
    record = picture(tmp_path, boxes=(Box("line", 20, 20, 40, 40),))
    on_it = LayoutItem(
        "new", None, (RelativeBox("spot", 0.3, 0.4, 0.5, 0.6), RelativeBox("spot", 0.8, 0.8, 0.9, 0.9)), "test"
    )
    (item,) = pair([record], 1, in_turn([on_it]))
    assert [box.x0 for box in item.objects] == [pytest.approx(1 / 6), 0.8]


def test_later_windows_see_what_earlier_ones_have_drawn(tmp_path):
    near = LayoutItem(
        "near", "A", (RelativeBox("spot", 0.30, 0.3, 0.42, 0.5), RelativeBox("line", 0.44, 0.3, 0.58, 0.5)), "test"
    )
    (item,) = pair([picture(tmp_path)], 1, in_turn([near]))
    (canvas,), calls = inserted([item])
    assert len(calls) == 2 and calls[1][0].labels.tolist() == [[1, 2]]
    left, top, _, _ = canvas.windows[1].area
    x, y = 48 - left, 36 - top  # inside of the first box
    before = canvas.source[36, 48] / 127.5 - 1
    assert calls[1][1][0, 0, y, x].item() == pytest.approx(-1 if before > 0 else 1)


def test_good_parts_have_the_same_noise_and_all_objects_but_the_new_ones(tmp_path):
    there = (Box("line", 30, 30, 40, 34),)
    new = LayoutItem("new", None, (RelativeBox("spot", 0.2, 0.42, 0.28, 0.5),), "test")
    (item,) = pair([picture(tmp_path, boxes=there)], 1, in_turn([new]))
    (canvas,), calls = inserted([item], masks=True)
    with_objects, without = calls
    assert with_objects[3] == without[3]
    assert with_objects[0].labels.tolist() == [[2, 1]] and without[0].labels.tolist() == [[2]]
    assert np.array_equal(canvas.picture, canvas.good_part)


def test_pictures_do_not_depend_on_their_batch(tmp_path):
    records = [picture(tmp_path, name=f"{i}.png", shape=(90 + i, 120)) for i in range(3)]
    one = LayoutItem("one", "A", LAYOUT.objects[:1], "test")
    items = pair(records, 3, in_turn([LAYOUT, one, LAYOUT]))

    def noisy(layout, known, keep, generators):
        return torch.where(keep, known, torch.stack([torch.randn(1, 32, 32, generator=g) for g in generators]))

    together = inserter_of(noisy).insert(items, image_generators(0, range(3)))
    alone = [inserter_of(noisy).insert([item], image_generators(0, [i]))[0] for i, item in enumerate(items)]
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(together, alone, strict=True))


def test_a_colour_picture_keeps_its_colours_under_a_grey_model(tmp_path):
    values = np.zeros((90, 120, 3), dtype=np.uint8)
    values[..., 0], values[..., 1] = 200, 50
    to_picture(values).save(tmp_path / "red.png")
    record = ImageRecord(tmp_path / "red.png", 120, 90, (), "A")
    (item,) = pair([record], 1, in_turn([LAYOUT]))

    def darker(layout, known, keep, generators):
        return torch.where(keep, known, known - 0.2)

    (canvas,) = inserter_of(darker).insert([item], image_generators(0, [0]))
    assert np.abs(canvas.picture[30, 30] - np.array([174.5, 24.5, 0])).max() <= 0.5


def test_layouts_go_to_pictures_of_their_product(tmp_path):
    records = [picture(tmp_path, name=f"{p}.png", product=p) for p in "AB"]
    of_b = LayoutItem("b", "B", LAYOUT.objects[:1], "test")
    first, second, third = pair(records, 3, in_turn([LAYOUT, of_b]))
    assert (first.product, len(first.objects), second.product, len(second.objects)) == ("A", 2, "B", 1)
    assert third.into.path == first.into.path and third.stem != first.stem


def test_what_is_refused_is_drawn_again_and_at_last_left_out(tmp_path):
    (item,) = pair([picture(tmp_path)], 1, in_turn([LAYOUT]))
    asked = []

    def accept(canvas, window):
        asked.append(window.objects)
        return window.objects == (1,) and asked.count((1,)) == 2

    (canvas,), calls = inserted([item], accept=accept, max_attempts=3)
    assert asked == [(0,), (0,), (0,), (1,), (1,)] and canvas.redrawn == 4
    assert [box.label for box in canvas.objects] == ["line"]
    assert len({call[3][0] for call in calls}) == len(calls)  # with other noise each time
    spot = np.s_[20:42, 18:42]
    assert np.array_equal(canvas.picture[spot], canvas.source[spot])
    assert calls[-1][0].labels.tolist() == [[2]]


def test_a_good_part_has_none_of_the_new_objects(tmp_path):
    (item,) = pair([picture(tmp_path)], 1, in_turn([LAYOUT]))

    def white_objects_on_black(layout, known, keep, generators):
        return torch.where(keep, known, torch.where(layout.valid.any(dim=1), 1.0, -1.0)[:, None, None, None])

    (canvas,) = inserter_of(white_objects_on_black, masks=True).insert([item], image_generators(0, [0]))
    for box in LAYOUT.objects:
        inside = np.s_[int(box.y0 * 90) + 1 : int(box.y1 * 90), int(box.x0 * 120) + 1 : int(box.x1 * 120)]
        assert (canvas.picture[inside] == 255).all() and (canvas.good_part[inside] == 0).all()
