"""Small layers: group norm in float32, the timestep embedding, zero initialisation."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
ScaleShift = tuple[Tensor, Tensor]  # each (B, C): a timestep's scale and shift, h * (1 + scale) + shift


class GroupNorm32(nn.GroupNorm):
    """Group norm of 32 groups, computed in float32 whatever comes in; takes and ignores a conditioning.

    With `scale_shift` the timestep embedding's scale and shift follow, in one pass over x.
    """

    def __init__(self, channels: int, affine: bool = True):
        if channels % 32:
            raise ValueError(f"--num_channels, --channel_mult: {channels} channels do not divide into 32 groups")
        super().__init__(32, channels, affine=affine)

    def forward(self, x: Tensor, conditioning=None, scale_shift: ScaleShift | None = None) -> Tensor:
        # A CPU sums in float32 whatever x is in; a GPU wants x and the weights in one type.
        return scale_and_shift(super().forward(x if x.device.type == "cpu" else x.float()).to(x.dtype), scale_shift)


class SiLU(nn.SiLU):
    """SiLU of what nobody else needs: in its place, where no gradient will ask for it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x, inplace=not torch.is_grad_enabled())


def scale_and_shift(h: Tensor, scale_shift: ScaleShift | None) -> Tensor:
    """h * (1 + scale) + shift, channel by channel (arXiv 2105.05233, section 3.1); h itself for None."""
    if scale_shift is None:
        return h  # B C H W
    scale, shift = (part[..., None, None] for part in scale_shift)  # each B C 1 1
    return torch.addcmul(shift, h, 1 + scale)  # B C H W


def timestep_embedding(t: Tensor, width: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoids (B, width) of timesteps t (B,), cosines first (arXiv 2006.11239)."""
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]  # B width/2
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return nn.functional.pad(embedding, (0, width % 2))


def zero_module(module: M) -> M:
    """Set all parameters to zero, so that what the module feeds starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def format_of(x: Tensor) -> torch.memory_format:
    """The order of a map (B, C, H, W) in memory: `torch.channels_last`, pixel by pixel, or channel by channel."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
