"""Classifier-free guidance (arXiv 2207.12598): a model around a model."""

import torch
from torch import Tensor

from .gaussian_diffusion import GaussianDiffusion, Model


def classifier_free(model: Model, scale: float, num_channels: int) -> Model:
    """Guide: eps_null + scale * (eps_cond - eps_null) on the C mean channels, variance from the conditional pass.

    The guided model takes x (B, C, H, W), t (B,) and a layout of 2B images, the B conditional ones and then their
    null, and makes one batched pass: `model` sees each x with both. Scale 1 is the model itself, with a layout of B.
    """
    if scale == 1:
        return model

    def guided(x: Tensor, t: Tensor, layout) -> Tensor:
        conditional, null = model(x, t, layout=layout).chunk(2)
        mean = null[:, :num_channels] + scale * (conditional[:, :num_channels] - null[:, :num_channels])
        return torch.cat([mean, conditional[:, num_channels:]], dim=1)

    return guided


def within_interval(guided: Model, model: Model, diffusion: GaussianDiffusion, interval: tuple[float, float]) -> Model:
    """Guide only at noise levels sigma / sqrt(alpha_bar) from low to high, both included (arXiv 2404.07724).

    Elsewhere the model sees each x (B, C, H, W) once, with `alone`, the layout of the B conditional images, which is
    taken beside the 2B of the guided model. All of a batch are at one step of the (respaced) diffusion.
    """
    guided_at = guided_timesteps(diffusion, interval)

    def chosen(x: Tensor, t: Tensor, layout, alone) -> Tensor:
        is_guided = t[0].item() in guided_at  # waits for a GPU, but it saves half the images of a call
        return guided(x, t, layout=layout) if is_guided else model(x, t, layout=alone)

    return chosen


def guided_timesteps(diffusion: GaussianDiffusion, interval: tuple[float, float]) -> set[int | float]:
    """The model's timesteps whose noise levels lie in the interval."""
    low, high = interval
    levels = diffusion.tables["sigma"] / diffusion.tables["signal"]
    timesteps = diffusion.model_timesteps(torch.arange(len(levels), device=diffusion.device)).tolist()
    return {t for t, level in zip(timesteps, levels, strict=True) if low <= level <= high}
