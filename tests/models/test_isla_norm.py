"""ISLA-Norm against a plain group norm and against LostGAN's way of computing it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from stay_diffusion.models.conditioning import Conditioning
from stay_diffusion.models.isla_norm import IslaNorm, fused_isla_norm, isla_norm
from stay_diffusion.models.object_masks import WEIGHTS

CODE_WIDTH = 12
# Masks (B, O, H, W) of layouts that differ in what they leave to the background.
MASKS = {
    "soft overlapping masks": torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)),
    "opaque identical masks": torch.ones(2, 3, 6, 8),
    "no mask anywhere": torch.zeros(2, 3, 6, 8),
    "no objects": torch.zeros(2, 0, 6, 8),
}


def conditioning_of(masks: torch.Tensor, weighting: str = "isla_bg") -> Conditioning:
    torch.manual_seed(1)
    B, O = masks.shape[:2]
    order = torch.stack([torch.randperm(O) for _ in range(B)])
    codes = torch.randn(B, O + 1, CODE_WIDTH)
    labels, product = torch.ones(B, O, dtype=torch.long), torch.ones(B, dtype=torch.long)
    return Conditioning(codes, masks, torch.ones_like(masks), order, labels, product, weighting)


def trained_norm(channels: int = 64) -> IslaNorm:
    torch.manual_seed(2)
    norm = IslaNorm(channels, CODE_WIDTH)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def features(channels: int = 64) -> torch.Tensor:
    torch.manual_seed(3)
    return 2 * torch.randn(2, channels, 6, 8) + 1


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("layout", MASKS)
def test_a_fresh_norm_is_a_plain_group_norm(layout, weighting):
    out = IslaNorm(64, CODE_WIDTH)(features(), conditioning_of(MASKS[layout], weighting))
    assert_close(out, F.group_norm(features(), 32))


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("layout", MASKS)
def test_the_batched_product_is_lostgans_sum_over_objects(layout, weighting):
    norm, x, conditioning = trained_norm(), features(), conditioning_of(MASKS[layout], weighting)
    _, C, H, W = x.shape
    weights = conditioning.weights((H, W)).unflatten(-1, (H, W))  # B O+1 H W
    gamma, beta = norm.project(conditioning.codes).split(C, dim=-1)  # each B O+1 C
    five_dimensional = [(weights[:, :, None] * p[..., None, None]).sum(dim=1) for p in (gamma, beta)]
    expected = F.group_norm(x, 32) * (1 + five_dimensional[0]) + five_dimensional[1]
    assert_close(norm(x, conditioning), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", MASKS)
def test_with_a_plain_norms_affine_as_its_bias_it_is_that_norm_whatever_the_layout(layout):
    plain = nn.GroupNorm(32, 64)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    norm = IslaNorm(64, CODE_WIDTH)
    norm.project.bias.data = torch.cat([plain.weight - 1, plain.bias]).data
    assert_close(norm(features(), conditioning_of(MASKS[layout])), plain(features()))


def test_without_objects_the_background_modulates_all_pixels_alike():
    norm, x, conditioning = trained_norm(), features(), conditioning_of(MASKS["no objects"])
    gamma, beta = norm.project(conditioning.codes[:, 0])[..., None, None].chunk(2, dim=1)
    assert_close(norm(x, conditioning), F.group_norm(x, 32) * (1 + gamma) + beta)


def test_without_background_pixels_without_an_object_are_only_normalised():
    norm, x = trained_norm(), features()
    masks = MASKS["soft overlapping masks"].clone()
    masks[..., :4] = 0
    out = norm(x, conditioning_of(masks, "isla"))
    assert_close(out[..., :4], F.group_norm(x, 32)[..., :4])
    assert (out - F.group_norm(x, 32))[..., 4:].abs().amax(dim=1).min() > 0.1


def test_an_object_changes_nothing_where_its_mask_is_zero():
    norm, x = trained_norm(), features()
    masks = MASKS["soft overlapping masks"].clone()
    masks[:, 1, :, 3:] = 0
    conditioning, other = conditioning_of(masks), conditioning_of(masks)
    other.codes[:, 1] += 1
    out, changed = norm(x, conditioning), norm(x, other)
    assert_close(changed[..., 3:], out[..., 3:], rtol=0, atol=0)
    assert (changed - out)[..., :3].abs().max() > 0.1


def test_objects_and_pictures_share_no_statistics():
    norm, x, masks = trained_norm(), features(), MASKS["soft overlapping masks"]
    conditioning = conditioning_of(masks)
    alone = Conditioning(
        conditioning.codes[:1], masks[:1], masks[:1], conditioning.order[:1], None, None, conditioning.weighting
    )
    assert_close(norm(x[:1], alone), norm(x, conditioning)[:1])


def test_gradients_reach_codes_masks_and_projection():
    norm, masks = trained_norm(), MASKS["soft overlapping masks"].clone().requires_grad_()
    conditioning = conditioning_of(masks)
    conditioning.codes.requires_grad_()
    norm(features(), conditioning).square().sum().backward()
    for tensor in (masks, conditioning.codes, norm.project.weight, norm.project.bias):
        assert tensor.grad.isfinite().all() and tensor.grad.flatten(1 if tensor.ndim > 1 else 0).abs().sum() > 1e-3
    assert (conditioning.codes.grad.abs().amax(dim=-1) > 0).all()  # the background's too


def test_low_precision_features_stay_so_and_are_normalised_in_float32():
    norm, conditioning = trained_norm(), conditioning_of(MASKS["soft overlapping masks"])
    x = (features() + 50).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x, conditioning)
    assert out.dtype == torch.bfloat16
    expected = norm(x.float(), conditioning)
    assert (out - expected).abs().max() < 0.03 * expected.abs().max()


def test_nothing_as_large_as_objects_times_channels_times_pixels_is_built():
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                self.numel = max(self.numel, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return out

    x, O = features(), 20
    conditioning = conditioning_of(torch.rand(2, O, 6, 8))
    with Largest() as largest:
        trained_norm()(x, conditioning)
    assert x.numel() <= largest.numel < O * x.numel() / 4


@pytest.mark.parametrize("layout", MASKS)
@pytest.mark.parametrize("with_timestep", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_fused_norm_is_the_formula_in_value_and_gradients(layout, with_timestep, memory_format):
    norm = trained_norm().double()
    made = []
    for is_fused in (False, True):
        x, masks = features().double(), MASKS[layout].double().requires_grad_()
        x = x.contiguous(memory_format=memory_format).requires_grad_()
        conditioning = conditioning_of(masks)
        conditioning.codes = conditioning.codes.double().requires_grad_()
        torch.manual_seed(4)
        scale_shift = tuple(torch.randn(2, 2, 64).double().requires_grad_()) if with_timestep else None
        P = norm.project(conditioning.codes)
        if is_fused:
            out = fused_isla_norm(x, P, conditioning.rows((6, 8), x.dtype), scale_shift)
            assert out.is_contiguous(memory_format=memory_format)
        else:
            out = isla_norm(x, P, conditioning.code_weights((6, 8)), scale_shift)
            torch.testing.assert_close(norm(x, conditioning, scale_shift), out, rtol=0, atol=0)
        # Sines, so that no gradient is the output's own.
        used = [x, conditioning.codes, *norm.parameters(), *([masks] if masks.numel() else []), *(scale_shift or ())]
        made.append([out, *torch.autograd.grad(out.sin().sum(), used, allow_unused=True)])
    for actual, expected in zip(*made, strict=True):
        if expected is not None:
            assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", MASKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_below_float64_the_norm_is_fused_and_near_the_formula(layout, dtype, tolerance):
    norm, conditioning, x = trained_norm(), conditioning_of(MASKS[layout]), features().to(dtype)
    P = norm.project(conditioning.codes)
    out = norm(x, conditioning)
    assert torch.equal(out, fused_isla_norm(x, P, conditioning.rows((6, 8), dtype)))
    expected = isla_norm(x.double(), P.double(), conditioning.code_weights((6, 8)).double())
    assert (out - expected).abs().max() < tolerance * expected.abs().max()


def test_objects_of_a_class_that_share_a_code_share_its_weight():
    norm, own = trained_norm(), conditioning_of(MASKS["soft overlapping masks"])
    own.codes[:, 1] = own.codes[:, 0]  # the first two objects are of one class
    shared = conditioning_of(MASKS["soft overlapping masks"])
    shared.codes = own.codes[:, [0, 2, 3]]
    shared.shared_by = torch.tensor([[True, True, False], [False, False, True]]).expand(2, -1, -1)
    for x in (features(), features().double()):
        assert_close(norm.to(x.dtype)(x, to_dtype(shared, x)), norm(x, to_dtype(own, x)), rtol=1e-4, atol=1e-4)


def to_dtype(conditioning: Conditioning, x: torch.Tensor) -> Conditioning:
    conditioning.codes, conditioning.masks = conditioning.codes.to(x.dtype), conditioning.masks.to(x.dtype)
    return conditioning


def test_nothing_but_x_is_kept_for_the_backward_pass_of_the_size_of_x():
    norm, x, conditioning = trained_norm(256), features(256).requires_grad_(), conditioning_of(MASKS["no objects"])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        norm(x, conditioning)
    assert [tensor.data_ptr() for tensor in kept if tensor.numel() >= x.numel()] == [x.data_ptr()]


def test_gradients_of_low_precision_features_far_from_zero_are_as_exact_as_these():
    norm, conditioning = trained_norm(), conditioning_of(MASKS["soft overlapping masks"])
    coarse = (features() + 30).bfloat16()
    made = []
    for x in (coarse.clone().requires_grad_(), coarse.float().requires_grad_()):
        with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
            out = norm(x, conditioning)
        made.append(torch.autograd.grad(out.float().sin().sum(), x)[0].float())
    actual, expected = made
    assert (actual - expected).norm() < 0.03 * expected.norm()
