"""Classifier-free guidance (arXiv 2207.12598): a model around a model."""

from collections.abc import Container

import torch
from torch import Tensor

from .gaussian_diffusion import GaussianDiffusion, Model


def classifier_free(
    model: Model, scale: float, num_channels: int, guided_at: Container[int | float] | None = None
) -> Model:
    """Guide: eps_null + scale * (eps_cond - eps_null) on the C mean channels, variance from the conditional pass.

    The guided model takes x (B, C, H, W), t (B,) and a layout of 2B images, the B conditional ones and then their
    null, and makes one batched pass: `model` sees each x with both. Scale 1 is the model itself, with a layout of B.

    With `guided_at` (guided_timesteps) other timesteps are not guided (arXiv 2404.07724): there the model sees each x
    once, with `alone`, the layout of the B conditional images. All of a batch are at one step.
    """
    if scale == 1:
        return model

    def guided(x: Tensor, t: Tensor, layout, alone=None) -> Tensor:
        # .item() waits for a GPU, but it saves half the images of a call.
        if guided_at is not None and t[0].item() not in guided_at:
            return model(x, t, layout=alone)  # B C H W or B 2C H W
        conditional, null = model(x, t, layout=layout).chunk(2)
        mean = null[:, :num_channels] + scale * (conditional[:, :num_channels] - null[:, :num_channels])
        return torch.cat([mean, conditional[:, num_channels:]], dim=1)  # B C H W or B 2C H W

    return guided


def guided_timesteps(diffusion: GaussianDiffusion, interval: tuple[float, float]) -> set[int | float]:
    """The model's timesteps whose noise levels sigma / signal lie in the interval, its ends included."""
    low, high = interval
    levels = diffusion.tables["sigma"] / diffusion.tables["signal"]
    timesteps = diffusion.model_timesteps(torch.arange(len(levels), device=diffusion.device)).tolist()
    return {t for t, level in zip(timesteps, levels, strict=True) if low <= level <= high}
