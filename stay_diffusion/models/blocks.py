"""The U-Net's blocks: residual with a pluggable norm, attention, resampling."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers import GroupNorm32, SiLU, zero_module

Norm = Callable[[int], nn.Module]  # channels -> a module called as norm(x, conditioning, scale_shift)


class ResBlock(nn.Module):
    """norm, SiLU, conv, timestep embedding, norm, SiLU, dropout, conv; plus the input.

    `norm` builds both norms. `updown` resamples between the first activation and its convolution (BigGAN, as in
    arXiv 2105.05233). With `scale_shift` the embedding modulates the second norm, else it is added before it.
    """

    def __init__(
        self,
        channels: int,
        embed_width: int,
        out_channels: int,
        norm: Norm = GroupNorm32,
        dropout: float = 0.0,
        scale_shift: bool = False,
        updown: nn.Module | None = None,
        use_checkpoint: bool = False,
    ):
        super().__init__()
        self.scale_shift, self.use_checkpoint = scale_shift, use_checkpoint
        self.in_layers = nn.ModuleList([norm(channels), SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)])
        self.updown = updown or nn.Identity()
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embed_width, 2 * out_channels if scale_shift else out_channels)
        )
        self.out_layers = nn.ModuleList(
            [
                norm(out_channels),
                SiLU(),
                nn.Dropout(dropout),
                zero_module(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
            ]
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor, conditioning=None) -> Tensor:
        return _maybe_checkpoint(self._forward, self.use_checkpoint and self.training, x, emb, conditioning)

    def _forward(self, x: Tensor, emb: Tensor, conditioning) -> Tensor:
        in_norm, activation, in_conv = self.in_layers
        out_norm, out_activation, dropout, out_conv = self.out_layers
        h = in_conv(self.updown(activation(in_norm(x, conditioning))))  # B C' H' W'
        emb = self.emb_layers(emb).to(h.dtype)  # B C', or B 2C'
        if self.scale_shift:
            h = out_norm(h, conditioning, emb.chunk(2, dim=1))
        else:
            h = out_norm(h + emb[..., None, None], conditioning)
        h = out_conv(dropout(out_activation(h)))  # B C' H' W'
        return h.add_(self.skip_connection(self.updown(x)))  # B C' H' W'


class AttentionBlock(nn.Module):
    """Self-attention over all pixels.

    The 3C channels of `qkv` are parted heads first (guided-diffusion's default), or into q, k, v first with
    `new_attention_order`: shapes do not tell, so a checkpoint must be read the way it was trained.
    """

    def __init__(self, channels: int, num_heads: int, new_attention_order: bool = False, use_checkpoint: bool = False):
        super().__init__()
        self.num_heads, self.new_attention_order, self.use_checkpoint = num_heads, new_attention_order, use_checkpoint
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_module(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return _maybe_checkpoint(self._forward, self.use_checkpoint and self.training, x)

    def _forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        # Channels last, as the fused attention kernels want them, where convolutions of width 1 are matrix products.
        h = self.norm(x).flatten(2).mT  # B T C
        qkv = F.linear(h, self.qkv.weight[..., 0], self.qkv.bias)  # B T 3C
        if self.new_attention_order:
            q, k, v = qkv.view(B, H * W, 3, self.num_heads, -1).transpose(1, 3).unbind(2)  # each B N T C/N
        else:
            q, k, v = qkv.view(B, H * W, self.num_heads, 3, -1).transpose(1, 2).unbind(3)  # each B N T C/N
        h = F.scaled_dot_product_attention(q, k, v)  # B N T C/N
        h = F.linear(h.transpose(1, 2).reshape(B, H * W, C), self.proj_out.weight[..., 0], self.proj_out.bias)  # B T C
        return x + h.mT.reshape(B, C, H, W)  # B C H W


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution unless `conv` is False."""

    def __init__(self, channels: int, conv: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))  # B C 2H 2W


class Downsample(nn.Module):
    """A convolution of stride 2, or plain averaging if `conv` is False."""

    def __init__(self, channels: int, conv: bool = True):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # B C H/2 W/2


class Stage(nn.Sequential):
    """Blocks in a row; each gets what it takes of the timestep embedding and the conditioning."""

    def forward(self, x: Tensor, emb: Tensor | None = None, conditioning=None) -> Tensor:
        for block in self:
            x = block(x, emb, conditioning) if isinstance(block, ResBlock) else block(x)
        return x


def _maybe_checkpoint(function, active: bool, *inputs) -> Tensor:
    # Non-reentrant checkpointing restores RNG and autocast, so dropout and precision repeat in the second pass.
    return (
        checkpoint(function, *inputs, use_reentrant=False) if active and torch.is_grad_enabled() else function(*inputs)
    )
