"""SPADE against its definition, and where SDM's U-Net has it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from stay_diffusion.config import ModelConfig
from stay_diffusion.data.layout import Layout
from stay_diffusion.diffusion.guidance import classifier_free
from stay_diffusion.models import spade_norm
from stay_diffusion.models.blocks import ResBlock
from stay_diffusion.models.spade_norm import HIDDEN, SemanticConditioner, SemanticConditioning, SpadeNorm
from stay_diffusion.models.unet import UNet

T = torch.tensor([3, 700])
VARIANTS = {"plain": {}, "updown": {"resblock_updown": True, "use_scale_shift_norm": False, "no_instance": True}}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unet(trained: bool = True, **options) -> UNet:
    """A tiny network for 3 classes; `trained`: no parameter is left zero."""
    torch.manual_seed(0)
    small = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2", "num_heads": 2}
    config = ModelConfig(**{**small, "attention_resolutions": "8", "conditioning": "spade", **options})
    model = UNet(config, True, 3, 0)
    if trained:
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def layout() -> Layout:
    """Two pictures, 16 x 16: halves of classes 1 and 2 with an edge between; class 3 with a corner of no class."""
    semantic_map = torch.zeros(2, 2, 16, 16, dtype=torch.int16)
    semantic_map[0, 0, :, :8], semantic_map[0, 0, :, 8:], semantic_map[0, 1, :, 7:9] = 1, 2, 1
    semantic_map[1, 0] = 3
    semantic_map[1, 0, :4, :4] = 0
    return Layout.collate([(torch.zeros(0, 4), torch.zeros(0).long(), 0, picture) for picture in semantic_map])


X = drawn(2, 3, 16, 16, seed=4)


def naive(norm: SpadeNorm, x: Tensor, semantics: Tensor) -> Tensor:
    """Each group of channels to mean 0 and variance 1, then scaled and shifted by two convolutions of the map."""
    B, C, H, W = x.shape
    grouped = x.view(B, 32, -1)
    mean, variance = grouped.mean(dim=2, keepdim=True), grouped.var(dim=2, keepdim=True, unbiased=False)
    normalised = ((grouped - mean) / (variance + 1e-5).sqrt()).view(B, C, H, W)
    rows = [semantics.shape[2] * i // H for i in range(H)]
    columns = [semantics.shape[3] * i // W for i in range(W)]
    resized = semantics[:, :, rows][:, :, :, columns]
    shared, gamma, beta = norm.mlp_shared[0], norm.mlp_gamma, norm.mlp_beta
    hidden = F.conv2d(resized, shared.weight, shared.bias, padding=1).clamp(min=0)
    scale, shift = (F.conv2d(hidden, conv.weight, conv.bias, padding=1) for conv in (gamma, beta))
    return normalised * (1 + scale) + shift


@pytest.mark.parametrize("size", [(16, 16), (8, 4), (5, 7), (32, 24)])
def test_the_norm_is_group_norm_modulated_by_the_nearest_resized_map(size):
    torch.manual_seed(0)
    norm, semantics, x = SpadeNorm(64, 4), drawn(2, 4, 16, 16), drawn(2, 64, *size, seed=1)
    assert_close(norm(x, SemanticConditioning(semantics)), naive(norm, x, semantics), rtol=1e-5, atol=1e-5)


def test_the_hidden_width_is_128_and_the_group_norm_has_no_parameters_of_its_own():
    norm = SpadeNorm(64, 4)
    assert HIDDEN == 128
    assert {name: tuple(p.shape) for name, p in norm.named_parameters()} == {
        "mlp_shared.0.weight": (128, 4, 3, 3),
        "mlp_shared.0.bias": (128,),
        "mlp_gamma.weight": (64, 128, 3, 3),
        "mlp_gamma.bias": (64,),
        "mlp_beta.weight": (64, 128, 3, 3),
        "mlp_beta.bias": (64,),
    }


def test_an_all_zero_map_leaves_only_what_the_biases_say():
    norm, x = SpadeNorm(32, 4), drawn(1, 32, 8, 8)
    for conv in (norm.mlp_shared[0], norm.mlp_gamma, norm.mlp_beta):
        nn.init.zeros_(conv.bias)
    plain = F.group_norm(x, 32)
    assert_close(norm(x, SemanticConditioning(torch.zeros(1, 4, 8, 8))), plain)
    assert (norm(x, SemanticConditioning(torch.ones(1, 4, 8, 8))) - plain).abs().max() > 0.01


def test_a_map_becomes_one_hot_with_the_instance_edges_last_and_nothing_where_there_is_no_class(layout):
    conditioner = SemanticConditioner(3, edges=True)
    semantics = conditioner(layout, (16, 16)).at((16, 16))
    assert semantics.shape == (2, 4, 16, 16) and conditioner.channels == 4
    for label in (1, 2, 3):
        assert torch.equal(semantics[:, label - 1], (layout.semantic_map[:, 0] == label).float())
    assert torch.equal(semantics[:, 3], layout.semantic_map[:, 1].float())
    assert not semantics[1, :, :4, :4].any()


def test_without_instances_there_is_no_edge_channel(layout):
    conditioner = SemanticConditioner(3, edges=False)
    assert conditioner.channels == conditioner(layout, (16, 16)).at((16, 16)).shape[1] == 3


@pytest.mark.parametrize("size", [(8, 8), (4, 2), (5, 3), (16, 16), (32, 32)])
def test_a_map_is_resized_as_nearest_does_it(size):
    semantics = drawn(1, 2, 16, 16)
    assert torch.equal(SemanticConditioning(semantics).at(size), F.interpolate(semantics, size=size, mode="nearest"))


def test_a_map_is_resized_from_full_size_and_once_for_each_size():
    conditioning = SemanticConditioning(drawn(1, 2, 16, 16))
    small, middle = conditioning.at((4, 4)), conditioning.at((7, 7))
    assert conditioning.at((4, 4)) is small and conditioning.at((7, 7)) is middle
    assert torch.equal(middle, F.interpolate(conditioning.at((16, 16)), size=(7, 7)))


@variants
def test_the_middle_and_every_decoder_block_have_it_in_both_places_and_nothing_else_has(options):
    model = unet(trained=False, **options)
    expected = {
        f"{name}.{side}_layers.0"
        for name, module in model.named_modules()
        if isinstance(module, ResBlock) and not name.startswith("input_blocks")
        for side in ("in", "out")
    }
    assert {name for name, module in model.named_modules() if isinstance(module, SpadeNorm)} == expected
    # Middle: 2; decoder: 2 levels of 2, and the one that upsamples if it is such a block.
    assert len(expected) == 2 * (2 + 4 + ("resblock_updown" in options))


def test_fresh_weights_already_modulate():
    # As SDM's convolutions are not zero at first, what the map says reaches h; only the last convolutions are zero.
    norm, x = SpadeNorm(32, 4), drawn(1, 32, 8, 8)
    assert (norm(x, SemanticConditioning(drawn(1, 4, 8, 8))) - F.group_norm(x, 32)).abs().max() > 0.01


@variants
@torch.no_grad()
def test_null_is_the_map_that_is_zero_everywhere(options, layout):
    model = unet(**options)
    zero = SemanticConditioning(torch.zeros(2, model.conditioner.channels, 16, 16))
    assert_close(model(X, T, layout.null()), model(X, T, zero), rtol=0, atol=0)
    assert (model(X, T, layout.null()) - model(X, T, layout)).abs().amax(dim=(1, 2, 3)).min() > 1e-3


@variants
@torch.no_grad()
def test_a_condition_worked_out_beforehand_serves_several_steps(options, layout):
    model = unet(**options)
    condition = model.condition(layout, (16, 16))
    for t in (T, T + 1):
        assert_close(model(X, t, condition), model(X, t, layout), rtol=0, atol=0)


@variants
@pytest.mark.parametrize("most_kept", [0, 10**5, 10**9])
@torch.no_grad()
def test_maps_kept_for_sampling_give_the_same_output_at_every_step(options, most_kept, layout, monkeypatch):
    monkeypatch.setattr(spade_norm, "MOST_KEPT", most_kept)
    model = unet(**options)
    norms = [module for module in model.modules() if isinstance(module, SpadeNorm)]
    modulation = model.modulation(layout, (16, 16))
    for t in (T, T + 1):
        assert_close(model(X, t, modulation), model(X, t, layout), rtol=0, atol=0)
    kept_bytes = sum(maps.nbytes for both in modulation.kept.values() for maps in both)
    assert kept_bytes <= most_kept and (len(modulation.kept) == len(norms)) == (most_kept == 10**9)


@torch.no_grad()
def test_each_picture_sees_its_own_map(layout):
    model = unet()
    for i in range(2):
        one = slice(i, i + 1)
        assert_close(model(X, T, layout)[one], model(X[one], T[one], layout[one]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_swapping_two_classes_in_the_map_and_in_the_weights_changes_nothing(layout):
    model = unet()
    before = model(X, T, layout)
    swapped = layout.semantic_map.clone()
    swapped[:, 0][layout.semantic_map[:, 0] == 1], swapped[:, 0][layout.semantic_map[:, 0] == 2] = 2, 1
    other = Layout(layout.boxes, layout.labels, layout.valid, layout.product, swapped)
    after = model(X, T, other)
    assert (after - before)[0].abs().max() > 1e-3
    assert_close(after[1], before[1], rtol=1e-5, atol=1e-6)  # it shows neither of them
    for module in model.modules():
        if isinstance(module, SpadeNorm):
            weight = module.mlp_shared[0].weight
            weight[:, [0, 1]] = weight[:, [1, 0]].clone()
    assert_close(model(X, T, other), before, rtol=1e-4, atol=1e-5)


@variants
def test_every_parameter_gets_a_gradient(options, layout):
    # Twice the width: a norm group of one channel would undo whatever is added to it just before.
    model = unet(**options, num_channels=64).train()
    model(X, T, layout).square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-4} == set()


def test_gradient_checkpointing_gives_the_same_gradients(layout):
    gradients = []
    for use_checkpoint in (False, True):
        model = unet(use_checkpoint=use_checkpoint).train()
        model(X, T, layout).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert_close(*gradients)


@torch.no_grad()
def test_guidance_goes_from_the_null_map_towards_the_map(layout):
    model = unet()
    guided = classifier_free(model, 2.0, 3)(X, T, layout.with_null())
    conditional, null = model(X, T, layout), model(X, T, layout.null())
    assert_close(guided[:, :3], 2 * conditional[:, :3] - null[:, :3], rtol=1e-4, atol=1e-4)
    assert_close(guided[:, 3:], conditional[:, 3:], rtol=1e-4, atol=1e-4)


def test_a_layout_without_a_map_is_an_error_in_one_line():
    boxes_only = Layout.collate([(torch.tensor([[0.1, 0.1, 0.5, 0.5]]), torch.tensor([1]), 0)])
    with pytest.raises(ValueError, match=r"^--conditioning spade: .*a label map is needed$"):
        unet()(X[:1], T[:1], boxes_only)
