"""ISLA-Norm against LostGAN's own numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from stay_diffusion.models.conditioning import Conditioning
from stay_diffusion.models.isla_norm import IslaNorm
from stay_diffusion.models.object_masks import isla_weights, paste


def close(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.fixture
def numbers(isla):
    """LostGAN's numbers, its x0 y0 w h boxes turned into ours."""
    numbers = isla.numbers()
    boxes = numbers["boxes_xywh"]
    numbers["boxes"] = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)
    return numbers


def test_masks_pasted_from_corner_to_corner_are_those_of_lostgan(numbers):
    expected = numbers["layout_align1"]
    close(paste(numbers["masks"], numbers["boxes"], tuple(expected.shape[-2:]), align_corners=True), expected)


def test_masks_pasted_at_pixel_centres_are_those_of_lostgan_on_its_canvas_from_corner_to_corner(numbers):
    # LostGAN's canvas always goes from corner to corner, even where its sampling does not: pixel i of n lies at
    # i / (n - 1). In our canvas, where it lies at (i + 0.5) / n, the same box is this one:
    expected = numbers["layout_align0"]
    H, W = expected.shape[-2:]
    n = torch.tensor([W, H, W, H])
    close(paste(numbers["masks"], (numbers["boxes"] * (n - 1) + 0.5) / n, (H, W)), expected)


@pytest.mark.parametrize("what", ["gamma", "beta"])
def test_projected_styles_mixed_by_mask_are_lostgans_gamma_and_beta(numbers, what):
    weights = isla_weights(numbers["layout_align1"], None)[:, :-1]  # B O H W
    projected = numbers["style"] @ numbers[f"{what}_weight"].T + numbers[f"{what}_bias"]  # B O C
    mixed = torch.einsum("bohw,boc->bchw", weights, projected)
    # LostGAN's gamma carries the 1 that our norm adds.
    close(mixed + (what == "gamma"), numbers[f"{what}_map"])


def test_isla_norm_modulates_as_lostgan_does(numbers):
    B, O, width = numbers["style"].shape
    norm = IslaNorm(32, width)
    norm.normalise.num_groups = 8  # of 24 channels
    norm.project = nn.Linear(width, 2 * numbers["normalised"].shape[1])
    norm.project.weight.data = torch.cat([numbers["gamma_weight"], numbers["beta_weight"]])
    norm.project.bias.data = torch.cat([numbers["gamma_bias"], numbers["beta_bias"]])
    background = torch.full((B, 1, width), 9.0)  # must not show
    masks, order = numbers["layout_align1"], torch.arange(O).expand(B, -1)
    codes = torch.cat([numbers["style"], background], dim=1)
    conditioning = Conditioning(codes, masks, torch.ones_like(masks), order, None, None, "isla")
    x = numbers["normalised"]  # by LostGAN's batch norm: ours comes on top
    close(norm(x, conditioning), F.group_norm(x, 8) * numbers["gamma_map"] + numbers["beta_map"])
