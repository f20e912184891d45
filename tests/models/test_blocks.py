"""The U-Net's blocks and small layers against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from stay_diffusion.models.blocks import AttentionBlock, Downsample, ResBlock, Stage, Upsample
from stay_diffusion.models.layers import GroupNorm32, SiLU, timestep_embedding, zero_module

EMBED = 48


def perturbed(module: nn.Module) -> nn.Module:
    """The module with no parameter left at its initial zero or one."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def inputs(channels: int = 64, height: int = 6, width: int = 10):
    torch.manual_seed(2)
    return torch.randn(2, channels, height, width), torch.randn(2, EMBED)


def test_group_norm_computes_in_float32_and_gives_back_the_dtype_it_got():
    norm, x = perturbed(GroupNorm32(64)), (100 + inputs()[0]).bfloat16()
    out = norm(x)
    assert out.dtype == torch.bfloat16
    expected = F.group_norm(x.float(), 32, norm.weight, norm.bias)
    assert_close(out.float(), expected, rtol=2**-8, atol=1e-3)  # rounded once, at last


def test_channels_that_do_not_divide_into_32_groups_are_an_error_that_names_the_flags():
    with pytest.raises(ValueError, match=r"--num_channels, --channel_mult: 48 channels"):
        GroupNorm32(48)


def test_timesteps_are_embedded_as_cosines_then_sines_of_falling_frequencies():
    t = torch.tensor([0.0, 3.0, 999.0])
    embedding = timestep_embedding(t, 8)
    for i, time in enumerate(t.tolist()):
        angles = [time * 10000 ** (-k / 4) for k in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert_close(embedding[i], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_an_odd_embedding_width_ends_in_a_zero():
    embedding = timestep_embedding(torch.tensor([5]), 7)
    assert_close(embedding[:, :6], timestep_embedding(torch.tensor([5]), 6))
    assert embedding.shape == (1, 7) and embedding[0, 6] == 0


def test_zero_module_zeroes_weights_and_biases():
    assert not any(parameter.any() for parameter in zero_module(nn.Conv2d(3, 4, 1)).parameters())


def test_a_fresh_res_block_is_the_identity():
    x, emb = inputs()
    assert_close(ResBlock(64, EMBED, 64)(x, emb), x, rtol=0, atol=0)


def test_a_fresh_attention_block_is_the_identity():
    x, _ = inputs()
    assert_close(AttentionBlock(64, 2)(x), x, rtol=0, atol=0)


def test_a_fresh_res_block_that_changes_the_width_is_its_1x1_skip():
    x, emb = inputs()
    block = ResBlock(64, EMBED, 32)
    skip = block.skip_connection
    assert skip.kernel_size == (1, 1)
    assert_close(block(x, emb), skip(x), rtol=0, atol=0)


@pytest.mark.parametrize("scale_shift", [True, False])
def test_a_res_block_is_two_norm_activation_convolutions_with_the_embedding_between(scale_shift):
    x, emb = inputs()
    block = perturbed(ResBlock(64, EMBED, 32, scale_shift=scale_shift)).eval()
    in_norm, _, in_conv = block.in_layers
    out_norm, _, _, out_conv = block.out_layers
    h = in_conv(F.silu(in_norm(x)))
    e = block.emb_layers[1](F.silu(emb))[:, :, None, None]
    h = out_norm(h) * (1 + e[:, :32]) + e[:, 32:] if scale_shift else out_norm(h + e)
    assert_close(block(x, emb), block.skip_connection(x) + out_conv(F.silu(h)))


@pytest.mark.parametrize("updown", [Upsample(64, conv=False), Downsample(64, conv=False)])
def test_a_resampling_res_block_resamples_after_the_first_activation_and_on_the_skip(updown):
    x, emb = inputs()
    block = perturbed(ResBlock(64, EMBED, 64, updown=updown)).eval()
    in_norm, _, in_conv = block.in_layers
    out_norm, _, _, out_conv = block.out_layers
    h = in_conv(updown(F.silu(in_norm(x)))) + block.emb_layers(emb)[:, :, None, None]
    assert_close(block(x, emb), updown(x) + out_conv(F.silu(out_norm(h))))


def test_both_norms_of_a_res_block_get_the_conditioning():
    class Recorder(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.channels = channels

        def forward(self, x, conditioning):
            seen.append((self.channels, conditioning))
            return x

    seen = []
    x, emb = inputs()
    Stage(ResBlock(64, EMBED, 32, norm=Recorder), AttentionBlock(32, 1))(x, emb, "the layout")
    assert seen == [(64, "the layout"), (32, "the layout")]


def test_dropout_acts_in_training_and_not_in_evaluation():
    x, emb = inputs()
    block = perturbed(ResBlock(64, EMBED, 64, dropout=0.5))
    assert not torch.equal(block.train()(x, emb), block(x, emb))
    assert_close(block.eval()(x, emb), block(x, emb), rtol=0, atol=0)


def attention_by_loops(block: AttentionBlock, x: torch.Tensor) -> torch.Tensor:
    """Softmax attention head by head, q k v cut out of the 3C channels as the block's order says."""
    B, C, H, W = x.shape
    width = C // block.num_heads
    out = torch.empty(B, C, H * W)
    for b in range(B):
        qkv = block.qkv(block.norm(x).flatten(2))[b]  # 3C T
        for head in range(block.num_heads):
            if block.new_attention_order:  # all heads' q, then all k, then all v
                q, k, v = (qkv[part * C + head * width :][:width] for part in range(3))
            else:  # head by head, each its q, k, v
                q, k, v = (qkv[(3 * head + part) * width :][:width] for part in range(3))
            out[b, head * width : (head + 1) * width] = v @ (q.T @ k / width**0.5).softmax(dim=-1).T
    return x + block.proj_out(out).view(x.shape)


@pytest.mark.parametrize("new_order", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_the_softmax_of_scaled_products_in_either_order_of_the_channels(heads, new_order):
    x, _ = inputs()
    block = perturbed(AttentionBlock(64, heads, new_attention_order=new_order))
    block.qkv.weight.data *= 3  # far from uniform attention
    assert_close(block(x), attention_by_loops(block, x), rtol=1e-4, atol=1e-5)


def test_the_order_of_the_channels_matters_with_more_than_one_head():
    x, _ = inputs()
    old, new = AttentionBlock(64, 4), AttentionBlock(64, 4, new_attention_order=True)
    new.load_state_dict(perturbed(old).state_dict())
    assert (old(x) - new(x)).abs().max() > 1e-3


def test_attention_without_positions_commutes_with_moving_the_pixels():
    x, _ = inputs()
    block = perturbed(AttentionBlock(64, 2))
    assert_close(block(x.flip(-1).mT), block(x).flip(-1).mT)


def test_upsampling_repeats_pixels_before_its_convolution():
    x, _ = inputs()
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    up = Upsample(64)
    assert_close(Upsample(64, conv=False)(x), doubled, rtol=0, atol=0)
    assert_close(up(x), F.conv2d(doubled, up.conv.weight, up.conv.bias, padding=1))


def test_downsampling_averages_or_strides():
    x, _ = inputs()
    down = Downsample(64)
    averaged = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean(dim=(3, 5))
    assert_close(Downsample(64, conv=False)(x), averaged)
    assert_close(down(x), F.conv2d(x, down.op.weight, down.op.bias, stride=2, padding=1))


def gradients(block: nn.Module, *x: torch.Tensor) -> list[torch.Tensor]:
    x = [tensor.clone().requires_grad_() for tensor in x]
    torch.manual_seed(3)
    block(*x).square().sum().backward()
    found = [tensor.grad for tensor in (*x, *block.parameters())]
    block.zero_grad()
    return found


@pytest.mark.parametrize("block", [ResBlock(64, EMBED, 32, dropout=0.4), AttentionBlock(64, 2)])
def test_a_checkpointed_block_computes_twice_and_has_the_same_gradients(block):
    x = inputs()[: 2 if isinstance(block, ResBlock) else 1]
    perturbed(block)
    plain = gradients(block, *x)
    calls = []
    module = block.out_layers[3] if isinstance(block, ResBlock) else block.norm
    module.register_forward_hook(lambda *_: calls.append(1))
    block.use_checkpoint = True
    for actual, expected in zip(gradients(block, *x), plain, strict=True):
        assert_close(actual, expected)
    assert len(calls) == 2


def test_without_gradients_an_activation_takes_its_inputs_place_and_with_them_it_does_not():
    x = inputs()[0]
    expected = F.silu(x)
    kept = x.clone().requires_grad_()
    assert_close(SiLU()(kept), expected)
    assert_close(kept, x)
    with torch.no_grad():
        out = SiLU()(x)
    assert out.data_ptr() == x.data_ptr()
    assert_close(out, expected)
