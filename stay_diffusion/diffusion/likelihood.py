"""The variational bound on an image's negative log-likelihood, step by step, in bits per dimension."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .gaussian_diffusion import GaussianDiffusion, Model, mean_flat
from .samplers import descending


@dataclass(frozen=True)
class BitsPerDim:
    """The bound of each image (B,) and its terms of each step (B, T), whose columns are t = T - 1 down to 0.

    total is prior plus the sum of vb. x_start_mse and mse are the squared errors of the clean image and of the noise
    that it implies; neither is part of the bound.
    """

    total: Tensor
    prior: Tensor
    vb: Tensor
    x_start_mse: Tensor
    mse: Tensor


@torch.no_grad()
def bits_per_dim(
    diffusion: GaussianDiffusion,
    model: Model,
    x_start: Tensor,
    draw_noise: Callable[[], Tensor],
    clip_denoised: bool = True,
    model_kwargs: dict | None = None,
) -> BitsPerDim:
    """Bound 8-bit images (B, C, H, W) scaled to [-1, 1] by one network call per step (arXiv 2102.09672).

    `draw_noise()` returns a standard normal (B, C, H, W), once per step; `clip_denoised` clamps each step's clean image
    to [-1, 1], for the errors as for the bound.
    """
    vb, x_start_mse, mse = [], [], []
    for _, t in descending(diffusion, x_start):
        noise = draw_noise()
        x_t = diffusion.q_sample(x_start, t, noise)
        output = model(x_t, diffusion.model_timesteps(t), **(model_kwargs or {}))
        vb.append(diffusion.vb_terms(output, x_start, x_t, t, clip_denoised))
        seen = diffusion.denoise(output, x_t, t, clip_denoised)
        x_start_mse.append(mean_flat((seen - x_start) ** 2))
        mse.append(mean_flat((diffusion.eps_of(seen, x_t, t) - noise) ** 2))
    prior, per_step = diffusion.prior_bpd(x_start), torch.stack(vb, dim=1)
    return BitsPerDim(
        total=prior + per_step.sum(dim=1),
        prior=prior,
        vb=per_step,
        x_start_mse=torch.stack(x_start_mse, dim=1),
        mse=torch.stack(mse, dim=1),
    )
