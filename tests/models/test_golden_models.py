"""The network and ISLA-Norm against the predecessors' own numbers (see shared/golden/README.md)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stay_diffusion.config import ModelConfig
from stay_diffusion.data.layout import Layout
from stay_diffusion.models.conditioning import Conditioning
from stay_diffusion.models.isla_norm import IslaNorm
from stay_diffusion.models.object_masks import isla_weights, paste
from stay_diffusion.models.unet import UNet

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"
IMAGENET_CLASSES = 1000

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/golden, the predecessors' numbers")


def numbers(name: str) -> dict:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture(scope="module")
def isla() -> dict:
    """LostGAN's numbers, its x0 y0 w h boxes turned into ours."""
    golden = numbers("isla_lostgan")
    boxes = golden.pop("boxes_xywh")
    return {**golden, "boxes": torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)}


def test_masks_pasted_from_corner_to_corner_are_those_of_lostgan(isla):
    pasted = paste(isla["masks"], isla["boxes"], (32, 32), align_corners=True)
    assert_close(pasted, isla["layout_align1"], rtol=0, atol=1e-5)


def test_masks_pasted_at_pixel_centres_are_those_of_lostgan_on_its_canvas_from_corner_to_corner(isla):
    # LostGAN's canvas always goes from corner to corner, even where its sampling does not: pixel i of n lies at
    # i / (n - 1). In our canvas, where it lies at (i + 0.5) / n, the same box is this one:
    n = 32
    boxes = (isla["boxes"] * (n - 1) + 0.5) / n
    assert_close(paste(isla["masks"], boxes, (n, n)), isla["layout_align0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("what", ["gamma", "beta"])
def test_projected_styles_mixed_by_mask_are_lostgans_gamma_and_beta(isla, what):
    weights = isla_weights(isla["layout_align1"], None)[:, :-1]  # B O H W
    projected = isla["style"] @ isla[f"{what}_weight"].T + isla[f"{what}_bias"]  # B O C
    mixed = torch.einsum("bohw,boc->bchw", weights, projected)
    # LostGAN's gamma carries the 1 that our norm adds.
    assert_close(mixed + (what == "gamma"), isla[f"{what}_map"], rtol=1e-5, atol=1e-5)


def test_isla_norm_modulates_as_lostgan_does(isla):
    B, O, width = isla["style"].shape
    norm = IslaNorm(32, width)
    norm.normalise = nn.Identity()  # the numbers start from a tensor that is normalised already
    norm.project = nn.Linear(width, 2 * isla["normalised"].shape[1])
    norm.project.weight.data = torch.cat([isla["gamma_weight"], isla["beta_weight"]])
    norm.project.bias.data = torch.cat([isla["gamma_bias"], isla["beta_bias"]])
    background = torch.full((B, 1, width), 9.0)  # must not show
    masks, order = isla["layout_align1"], torch.arange(O).expand(B, -1)
    codes = torch.cat([isla["style"], background], dim=1)
    conditioning = Conditioning(codes, masks, torch.ones_like(masks), order, None, None, "isla")
    assert_close(norm(isla["normalised"], conditioning), isla["out"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["uncond", "new_attention_order", "class_updown_scaleshift"])
@torch.no_grad()
def test_a_guided_diffusion_checkpoint_loads_strictly_and_gives_its_output(name):
    flags = json.loads((GOLDEN / f"guided_{name}.json").read_text())
    golden = numbers(f"guided_{name}")
    options = {key: value for key, value in flags.items() if key in ModelConfig.__dataclass_fields__}
    products = IMAGENET_CLASSES if flags["class_cond"] else 0
    model = UNet(ModelConfig(**options, conditioning="none"), flags["learn_sigma"], 0, products).eval()
    model.load_state_dict(torch.load(GOLDEN / f"guided_{name}.pt", weights_only=True), strict=True)
    layout = None
    if flags["class_cond"]:
        layout = Layout.collate([(torch.zeros(0, 4), torch.zeros(0).long(), int(y) + 1) for y in golden["y"]])
    assert_close(model(golden["x"], golden["t"], layout), golden["out"], rtol=1e-4, atol=1e-5)
