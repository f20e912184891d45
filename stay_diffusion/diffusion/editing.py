"""Sampling around known pixels: a sampler that fills in the others (RePaint, arXiv 2201.09865)."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from .gaussian_diffusion import GaussianDiffusion, Model
from .samplers import NONE, ddim_step


def inpaint(
    diffusion: GaussianDiffusion,
    model: Model,
    x: Tensor,
    draw_noise: Callable[[], Tensor],
    clip_denoised: bool = True,
    model_kwargs: Mapping = NONE,
    *,
    known: Tensor,
    keep: Tensor,
    jump_length: int = 1,
    num_resamples: int = 4,
) -> Tensor:
    """Sample images (B, C, H, W) that are `known` (B, C, H, W) wherever `keep` (B, 1, H, W) bool says so, exactly.

    At every step the clean image that the network sees is replaced by the known pixels, so that at every noise level
    they are what q makes of them. Steps are ancestral, and each `jump_length` of them are repeated `num_resamples`
    times, back up with fresh noise, so that the unknown pixels blend with the known ones (section 4.2). Few, wide steps
    want short jumps.
    """
    steps = torch.arange(diffusion.num_timesteps, device=x.device)
    for i, is_up in visits(diffusion.num_timesteps, jump_length, num_resamples):
        t = steps[i].expand(len(x))
        if is_up:
            share = diffusion.at("alphas_cumprod", t) / diffusion.at("alphas_cumprod_prev", t)
            x = share.sqrt() * x + (1 - share).sqrt() * draw_noise()
        else:
            output = model(x, diffusion.model_timesteps(t), **model_kwargs)
            x_start = diffusion.denoise(output, x, t, clip_denoised)
            x_start = torch.where(keep, known, x_start)
            x = ddim_step(diffusion, x_start, x, t, draw_noise(), eta=1.0) if i else x_start
    return x


def visits(num_steps: int, jump_length: int, num_resamples: int) -> Iterator[tuple[int, bool]]:
    """Order the steps, each with True where it goes up (from less noise to that of step i), False where down."""
    for start in range(num_steps - 1, -1, -jump_length):
        block = range(start, max(start - jump_length, -1), -1)
        for repetition in range(num_resamples):
            if repetition:
                yield from ((i, True) for i in reversed(block))
            yield from ((i, False) for i in block)
