"""Pictures moved, and degraded as generated ones are: drawn from (seed, step) alone."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DEGRADATIONS = ("none", "blur", "noise", "pixels")


def shifted(images: Tensor, seed: int, step: int) -> Tensor:
    """Each picture moved by up to a sixteenth of its side, its border mirrored."""
    B, _, S, _ = images.shape
    most = S // 16
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 2 * step)
    moves = torch.randint(2 * most + 1, (B, 2), generator=generator).tolist()
    padded = F.pad(images, (most,) * 4, mode="reflect")
    return torch.stack([padded[i, :, y : y + S, x : x + S] for i, (y, x) in enumerate(moves)])


def degraded(images: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The pictures, three of four blurred, noisy or coarse by a random strength, and which (B,): see DEGRADATIONS."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 2 * step + 1)
    how = torch.randint(len(DEGRADATIONS), (len(images),), generator=generator)
    strength = torch.rand(len(images), generator=generator).tolist()
    noise = torch.randn(images.shape, generator=generator)
    shown = images.clone()
    for i, (kind, amount) in enumerate(zip(how.tolist(), strength, strict=True)):
        one = images[i : i + 1]
        if DEGRADATIONS[kind] == "blur":
            shown[i] = blurred(one, 0.5 + 1.5 * amount)[0]
        elif DEGRADATIONS[kind] == "noise":
            shown[i] = one[0] + (0.04 + 0.36 * amount) * noise[i]
        elif DEGRADATIONS[kind] == "pixels":
            S = one.shape[-1]
            small = F.interpolate(one, size=max(4, round(S / (1.5 + 2.5 * amount))), mode="area")
            shown[i] = F.interpolate(small, size=S, mode="bilinear", align_corners=False)[0]
    return shown.clamp(-1, 1), how


def blurred(images: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W) under a Gaussian of `sigma` pixels."""
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, weights, groups=images.shape[1])
    return F.conv2d(across, weights.transpose(2, 3), groups=images.shape[1])
