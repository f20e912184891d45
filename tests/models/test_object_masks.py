"""Masks drawn into boxes, brought to a stage's resolution, and turned into per-pixel weights."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.data.layout import Layout
from stay_diffusion.models.conditioning import Conditioning, LayoutConditioner, MaskRefinement
from stay_diffusion.models.object_masks import (
    WEIGHTS,
    MaskNet,
    at_least_one_pixel,
    box_indicator,
    isla_bg_weights,
    isla_weights,
    paste,
    resize_masks,
    smallest_on_top,
)

SIDES = [4, 8, 16, 32, 40, 64, 128]
OVERLAPPING = torch.tensor([[0.1, 0.1, 0.7, 0.8], [0.3, 0.2, 0.6, 0.5], [0.35, 0.3, 0.95, 0.9], [0.4, 0.3, 0.45, 0.4]])
EMPTY = torch.zeros(0, 4)


def layout_of(*pictures: torch.Tensor) -> Layout:
    """Boxes of each picture, labelled 1, 2, 3, 1, ..."""
    return Layout.collate([(boxes, torch.arange(len(boxes)) % 3 + 1, 1) for boxes in pictures])


def weights_of(conditioner: LayoutConditioner, layout: Layout, weighting: str, side: int) -> torch.Tensor:
    """Per-pixel weights (B, O+1, side * side), in either variant."""
    conditioning = conditioner(layout, (64, 64))
    conditioning.weighting = weighting
    return conditioning.weights((side, side))


@pytest.fixture(scope="module")
def conditioner() -> LayoutConditioner:
    torch.manual_seed(0)
    conditioner = LayoutConditioner(num_classes=3, num_products=2, z_mode="off", weighting="isla_bg")
    conditioner.mask_net = MaskNet(conditioner.object_codes.width, channels=8)
    return conditioner


LAYOUTS = {
    "no objects at all": layout_of(EMPTY, EMPTY),
    "only padding": layout_of(EMPTY, EMPTY).pad(3),
    "overlaps beside an empty picture": layout_of(OVERLAPPING, EMPTY),
    "identical boxes": layout_of(OVERLAPPING[[1, 1, 1]]),
    "whole pictures": layout_of(torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(12, 4)),
    "partly outside": layout_of(OVERLAPPING - 0.3),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_background_weights_are_shares_that_sum_to_one(conditioner, name, side):
    weights = conditioner(LAYOUTS[name], (128, 128)).weights((side, side))
    B, O = LAYOUTS[name].labels.shape
    assert weights.shape == (B, O + 1, side**2)
    assert_close(weights.sum(dim=1), torch.ones(B, side**2), rtol=0, atol=1e-6)
    assert weights.min() >= 0


@pytest.mark.parametrize("name", ["no objects at all", "only padding"])
def test_without_objects_all_is_background(conditioner, name):
    weights = conditioner(LAYOUTS[name], (64, 64)).weights((16, 16))
    assert (weights[:, -1] == 1).all() and not weights[:, :-1].any()


def test_weights_composite_from_the_topmost_object_down():
    torch.manual_seed(1)
    masks, order = torch.rand(2, 4, 3, 5), torch.stack([torch.randperm(4), torch.randperm(4)])
    weights = isla_bg_weights(masks, order)
    for b in range(2):
        left = torch.ones(3, 5)
        for o in order[b].tolist():
            assert_close(weights[b, o], masks[b, o] * left)
            left = left * (1 - masks[b, o])
        assert_close(weights[b, -1], left)


def test_opaque_masks_leave_nothing_to_those_below():
    weights = isla_bg_weights(torch.ones(1, 3, 2, 2), torch.tensor([[1, 2, 0]]))
    assert weights[0, :, 0, 0].tolist() == [0, 1, 0, 0]


def test_lostgans_weights_are_masks_over_their_sum_and_give_the_background_nothing():
    torch.manual_seed(1)
    masks = torch.rand(2, 3, 4, 4) * torch.randint(2, (2, 3, 4, 4))
    weights = isla_weights(masks, torch.arange(3).expand(2, -1))
    assert_close(weights[:, :-1], masks / (masks.sum(1, keepdim=True) + 1e-6))
    assert weights.shape == (2, 4, 4, 4) and not weights[:, -1].any()


def test_the_smallest_box_is_on_top_and_padding_last():
    boxes = torch.tensor([[[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.4], [0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.6, 0.6]]])
    valid = torch.tensor([[True, True, False, True]])
    assert smallest_on_top(boxes, valid).tolist() == [[1, 3, 0, 2]]


def test_a_thin_box_is_small_by_area_not_by_side():
    boxes = torch.tensor([[[0.3, 0.3, 0.6, 0.6], [0.0, 0.4, 1.0, 0.45]]])
    assert smallest_on_top(boxes, torch.ones(1, 2, dtype=torch.bool)).tolist() == [[1, 0]]


def test_equal_boxes_stay_in_input_order():
    boxes = torch.tensor([0.25, 0.25, 0.75, 0.5]).expand(1, 20, 4)
    assert smallest_on_top(boxes, torch.ones(1, 20, dtype=torch.bool)).tolist() == [list(range(20))]


def test_a_small_object_inside_a_large_one_is_drawn_over_it(conditioner):
    conditioning = conditioner(layout_of(torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.5, 0.5]])), (64, 64))
    weights = conditioning.weights((64, 64)).unflatten(-1, (64, 64))
    assert_close(weights[0, 1], conditioning.masks[0, 1])
    assert_close(weights[0, 0], conditioning.masks[0, 0] * (1 - conditioning.masks[0, 1]))


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_permuting_the_objects_permutes_the_weights(conditioner, weighting):
    layout, permutation = layout_of(OVERLAPPING, OVERLAPPING.flip(0)), torch.tensor([2, 0, 3, 1])
    permuted = Layout(*(getattr(layout, n)[:, permutation] for n in ("boxes", "labels", "valid")), layout.product)
    plain, moved = (weights_of(conditioner, x, weighting, 16) for x in (layout, permuted))
    assert_close(moved[:, :-1], plain[:, permutation])
    assert_close(moved[:, -1], plain[:, -1])


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_padding_whatever_it_holds_changes_no_weight(conditioner, weighting):
    layout = layout_of(OVERLAPPING, OVERLAPPING[:1])
    padded = layout.pad(7)
    boxes, labels = padded.boxes.clone(), padded.labels.clone()
    boxes[~padded.valid], labels[~padded.valid] = torch.tensor([0.0, 0.0, 0.9, 0.9]), 2
    plain = weights_of(conditioner, layout, weighting, 16)
    other = weights_of(conditioner, Layout(boxes, labels, padded.valid, padded.product), weighting, 16)
    assert_close(other[:, [0, 1, 2, 3, -1]], plain)
    assert not other[:, 4:-1].any()


def test_a_pictures_masks_do_not_depend_on_its_batch(conditioner):
    # Alone it has fewer objects than there are classes; in a batch of eight it has more.
    layout = layout_of(OVERLAPPING[:2])
    alone = conditioner(layout, (64, 64)).masks
    assert_close(conditioner(Layout.cat([layout] * 8), (64, 64)).masks, alone.expand(8, -1, -1, -1))


def test_masks_are_soft_squares_that_depend_on_the_code():
    torch.manual_seed(0)
    masks = MaskNet(20, channels=8)(torch.randn(5, 20))
    assert masks.shape == (5, 16, 16) and masks.min() > 0 and masks.max() < 1
    assert (masks[0] - masks[1]).abs().max() > 0.01 and masks[0].std() > 0.001


@pytest.mark.parametrize(("size", "base"), [((32, 32), (64, 64)), ((256, 256), (128, 128)), ((64, 192), (64, 96))])
def test_masks_are_drawn_at_half_the_pictures_resolution_and_at_least_64(conditioner, size, base):
    assert conditioner(layout_of(OVERLAPPING), size).masks.shape[-2:] == base


@pytest.mark.parametrize("canvas", [(64, 64), (80, 80), (64, 160)])
@pytest.mark.parametrize("pixels", [1, 2])
def test_a_box_of_one_or_two_pixels_of_a_large_picture_is_never_lost(pixels, canvas):
    side = 640
    left = torch.arange(side - pixels).float()
    across = torch.stack([left, 0 * left + 200, left + pixels, 0 * left + 200 + pixels], dim=-1) / side
    boxes = at_least_one_pixel(torch.cat([across, across[:, [1, 0, 3, 2]]])[None], canvas)
    drawn = paste(torch.ones(1, boxes.shape[1], 16, 16), boxes, canvas) * box_indicator(boxes, canvas)
    assert (resize_masks(drawn, (8, 8)).amax(dim=(2, 3)) > 0).all()


def test_a_box_of_a_three_hundredth_of_the_side_keeps_its_weight_at_8x8(conditioner):
    torch.manual_seed(3)
    corner = torch.rand(200, 2) * 0.997
    conditioning = conditioner(layout_of(torch.cat([corner, corner + 0.003], dim=-1)), (64, 64))
    assert (conditioning.weights((8, 8))[0, :-1].amax(dim=-1) > 1e-4).all()


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_averaging_down_preserves_the_total_mass_of_every_mask(conditioner, side):
    masks = conditioner(layout_of(OVERLAPPING, OVERLAPPING / 20), (64, 64)).masks
    resized = resize_masks(masks, (side, side))
    assert_close(resized.mean(dim=(2, 3)), masks.mean(dim=(2, 3)))


def test_going_up_is_bilinear_between_pixel_centres():
    ramp = ((torch.arange(64) + 0.5) / 64).expand(1, 1, 64, 64)
    up = resize_masks(ramp, (128, 128))
    assert_close(up[..., 1:-1], ((torch.arange(1, 127) + 0.5) / 128).expand(1, 1, 128, 126))


def test_up_along_one_side_and_down_along_the_other_still_loses_nothing():
    rows = torch.eye(64)[None, :, :, None].expand(1, 64, 64, 128)  # 64 masks, each one row of a 64 x 128 canvas
    assert (resize_masks(rows, (16, 256)).amax(dim=(2, 3)) > 0).all()


def test_a_mask_is_stretched_over_its_box_at_pixel_centres():
    ramp = (torch.arange(16) + 0.5) / 16
    box = torch.tensor([[[0.25, 0.125, 0.75, 1.0]]])
    x = (torch.arange(64) + 0.5) / 64
    u, v = (x - 0.25) / 0.5, (x - 0.125) / 0.875  # where in the box
    across = paste(ramp.expand(1, 1, 16, 16), box, (64, 64))[0, 0]
    down = paste(ramp[:, None].expand(1, 1, 16, 16), box, (64, 64))[0, 0]
    inner_u, inner_v = (u > 1 / 32) & (u < 31 / 32), (v > 1 / 32) & (v < 31 / 32)
    assert_close(across[inner_v][:, inner_u], u[inner_u].expand(int(inner_v.sum()), -1))
    assert_close(down[inner_v][:, inner_u], v[inner_v, None].expand(-1, int(inner_u.sum())))


def test_nothing_is_drawn_outside_the_box(conditioner):
    boxes = torch.tensor([[0.26, 0.1, 0.62, 0.33], [-0.2, 0.6, 0.17, 1.4]])
    conditioning = conditioner(layout_of(boxes), (64, 64))
    for side in (64, 16, 8):
        edges = torch.arange(side + 1) / side
        touches = [(edges[1:] > lo) & (edges[:-1] < hi) for lo, hi in boxes[:, [[0, 2], [1, 3]]].flatten(0, 1).tolist()]
        for o in range(2):
            outside = ~(touches[2 * o + 1][:, None] & touches[2 * o])
            assert not conditioning.weights((side, side)).unflatten(-1, (side, side))[0, o][outside].any()


def test_a_box_partly_outside_keeps_its_shape(conditioner):
    inside = torch.tensor([[0.25, 0.25, 0.75, 0.75]])
    cut = inside - torch.tensor([0.5, 0.125, 0.5, 0.125])
    whole, shifted = (conditioner(layout_of(boxes), (64, 64)).masks[0, 0] for boxes in (inside, cut))
    assert_close(shifted[8:40, :16], whole[16:48, 32:48])
    assert shifted[8:40, :16].min() > 0


def test_boxes_side_by_side_tile_the_picture():
    edges = [0.0, 0.25, 0.5, 0.83, 1.0]
    boxes = torch.tensor([[x0, 0.0, x1, 1.0] for x0, x1 in pairwise(edges)])
    assert_close(box_indicator(boxes[None], (64, 64)).sum(dim=1), torch.ones(1, 64, 64), rtol=0, atol=0)


def test_mirrored_boxes_have_mirrored_indicators():
    layout = layout_of(OVERLAPPING, OVERLAPPING[:2] + 0.013)
    plain, mirrored = (box_indicator(x.boxes, (64, 64))[layout.valid] for x in (layout, layout.flip()))
    assert_close(mirrored, plain.flip(-1), rtol=0, atol=0)


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("side", SIDES)
def test_gradients_reach_the_mask_net_and_the_label_embedding(conditioner, weighting, side):
    weights = weights_of(conditioner, layout_of(OVERLAPPING), weighting, side)
    conditioner.zero_grad()
    (weights * torch.linspace(0, 1, weights.numel()).view(weights.shape)).sum().backward()
    for parameter in (conditioner.mask_net.project.weight, conditioner.object_codes.label_embedding.weight):
        assert parameter.grad.abs().max() > 1e-7


def test_weights_are_worked_out_once_per_resolution(conditioner):
    conditioning = conditioner(layout_of(OVERLAPPING), (64, 64))
    assert conditioning.rows((16, 16), torch.float32) is conditioning.rows((16, 16), torch.float32)


def test_refinement_mixes_the_mask_with_the_class_map_inside_the_box(conditioner):
    torch.manual_seed(5)
    layout, h = layout_of(OVERLAPPING, OVERLAPPING[:1]), torch.randn(2, 32, 16, 16)
    conditioning = conditioner(layout, (64, 64))
    refinement = MaskRefinement(32, num_classes=3)
    assert not refinement.alpha.any()
    refinement.alpha.data = torch.tensor([9.0, -1.0, 0.5, 2.0])
    refined: Conditioning = refinement(h, conditioning)
    for b, o in layout.valid.nonzero().tolist():
        label = layout.labels[b, o]
        a, seen = refinement.alpha[label].sigmoid(), refinement.head(h)[b, label].sigmoid()
        mask, box = (resize_masks(m, (16, 16))[b, o] for m in (conditioning.masks, conditioning.indicator))
        assert_close(refined.masks[b, o], (1 - a) * mask + a * seen * box)
    assert not refined.masks[1, 1:].any()
