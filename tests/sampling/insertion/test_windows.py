import numpy as np
import pytest
import torch

from stay_diffusion.sampling.insertion.windows import LEAST_MARGIN, margin_of, windows_of

NATIVE = (64, 64)


def windows(boxes, picture=(640, 480), native=NATIVE, share=0.15):
    margins = [margin_of(box, share) for box in boxes]
    return windows_of(boxes, margins, picture, native), margins


def test_a_window_of_the_models_own_size_lies_around_a_small_box():
    (window,), _ = windows([(300, 200, 320, 230)])
    x0, y0, x1, y1 = window.area
    assert (x1 - x0, y1 - y0) == NATIVE
    assert window.changing == ((296, 196, 324, 234),)
    assert x0 + 4 <= 296 and x1 - 4 >= 324 and y0 + 4 <= 196 and y1 - 4 >= 234


def test_near_boxes_share_a_window_and_far_ones_do_not():
    boxes = [(100, 100, 110, 110), (400, 300, 410, 310), (118, 104, 130, 112)]
    found, _ = windows(boxes)
    assert [window.objects for window in found] == [(0, 2), (1,)]


def test_boxes_that_together_are_too_large_for_a_window_have_windows_of_their_own():
    boxes = [(100, 100, 110, 140), (120, 130, 160, 150)]
    found, _ = windows(boxes)
    assert [window.objects for window in found] == [(0,), (1,)]


def test_a_box_too_large_for_the_models_size_has_a_larger_window_with_surroundings():
    (window,), _ = windows([(100, 100, 250, 130)])
    x0, y0, x1, y1 = window.area
    a0, b0, a1, b1 = window.changing[0]
    assert x1 - x0 > 64 and x0 < a0 - 5 and x1 > a1 + 5 and y0 < b0 and y1 > b1


@pytest.mark.parametrize("picture", [(640, 480), (50, 40), (65, 30), (2000, 20)])
def test_windows_never_leave_the_picture(picture):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(-0.1, 1.1, (40, 2, 2)), axis=1) * picture
    boxes = [(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)) for (x0, y0), (x1, y1) in corners.tolist()]
    boxes = [box for box in boxes if box[0] < picture[0] - 1 and box[1] < picture[1] - 1 and min(box[2:]) > 1]
    found, margins = windows(boxes, picture)
    assert sorted(place for window in found for place in window.objects) == list(range(len(boxes)))
    for window in found:
        x0, y0, x1, y1 = window.area
        assert 0 <= x0 < x1 <= picture[0] and 0 <= y0 < y1 <= picture[1]
        for a0, b0, a1, b1 in window.changing:
            assert x0 <= a0 < a1 <= x1 and y0 <= b0 < b1 <= y1
        assert window.opacity([margins[place] for place in window.objects], picture).max() == 1


def test_opacity_is_whole_in_the_box_and_none_outside_of_its_margin():
    box = (300, 200, 340, 230)
    (window,), margins = windows([box])
    opacity = window.opacity(margins, (640, 480))
    x0, y0, _, _ = window.area
    a0, b0, a1, b1 = window.changing[0]
    assert (opacity[200 - y0 : 230 - y0, 300 - x0 : 340 - x0] == 1).all()
    outside = np.ones_like(opacity, dtype=bool)
    outside[b0 - y0 : b1 - y0, a0 - x0 : a1 - x0] = False
    assert (opacity[outside] == 0).all() and 0 < opacity[~outside].min() < 0.5


def test_there_is_no_seam_at_the_edge_of_the_picture():
    (window,), margins = windows([(0, 200, 40, 230)])
    opacity = window.opacity(margins, (640, 480))
    assert window.area[0] == 0 and (opacity[210 - window.area[1], :40] == 1).all()


def test_what_is_kept_is_what_nothing_is_drawn_of_also_where_the_model_sees_less():
    (window,), margins = windows([(100, 100, 250, 130)])
    opacity = window.opacity(margins, (640, 480))
    keep = window.keep(opacity, 32)
    assert keep.shape == (1, 32, 32) and keep.dtype == torch.bool and keep.any() and not keep.all()
    up = keep[0].numpy()
    height, width = opacity.shape
    for row, column in np.argwhere(up):
        rows = slice(row * height // 32, -(-(row + 1) * height // 32))
        columns = slice(column * width // 32, -(-(column + 1) * width // 32))
        assert not opacity[rows, columns].any()


def test_margins_grow_with_the_box_and_are_never_too_small_for_a_passage():
    assert margin_of((0, 0, 100, 40), 0.15) == 15
    assert margin_of((0, 0, 5, 5), 0.15) == margin_of((0, 0, 5, 5), 0) == LEAST_MARGIN
