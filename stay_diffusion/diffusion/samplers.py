"""From noise to images: each sampler a pure function, chosen by name.

A sampler takes a (respaced) diffusion, a model called as model(x_t, t, **model_kwargs) and starting noise
(B, C, H, W), visits every step of the diffusion from last to first and returns images (B, C, H, W). Fresh noise comes
from `draw_noise()`, which returns a standard normal (B, C, H, W), so that the caller decides whose generator it is.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .gaussian_diffusion import GaussianDiffusion, Model, PMeanVariance

NONE: Mapping = MappingProxyType({})  # no arguments for the model besides x and t


def ancestral_step(p: PMeanVariance, t: Tensor, noise: Tensor) -> Tensor:
    """Draw x_{t-1} ~ p(x_{t-1} | x_t); no noise where t = 0."""
    return torch.where(t.view(-1, 1, 1, 1) == 0, p.mean, p.mean + (0.5 * p.log_variance).exp() * noise)


def ddim_step(
    diffusion: GaussianDiffusion, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, eta: float
) -> Tensor:
    """Step to x_{t-1} by arXiv 2010.02502, eq. 12; eta 0 is deterministic, eta 1 has DDPM's variance."""
    eps = diffusion.eps_of(x_start, x_t, t)
    alpha_bar, previous = diffusion.at("alphas_cumprod", t), diffusion.at("alphas_cumprod_prev", t)
    sigma = eta * ((1 - previous) / (1 - alpha_bar)).sqrt() * (1 - alpha_bar / previous).sqrt()
    mean = previous.sqrt() * x_start + (1 - previous - sigma**2).clamp(min=0).sqrt() * eps
    return torch.where(t.view(-1, 1, 1, 1) == 0, mean, mean + sigma * noise)


def ddpm(diffusion, model: Model, x: Tensor, draw_noise, clip_denoised=True, model_kwargs=NONE):
    """Ancestral sampling (arXiv 2006.11239, algorithm 2)."""
    for _, t in descending(diffusion, x):
        p = diffusion.p_mean_variance(model(x, diffusion.model_timesteps(t), **model_kwargs), x, t, clip_denoised)
        x = ancestral_step(p, t, draw_noise())
    return x


def ddim(diffusion, model: Model, x: Tensor, draw_noise=None, clip_denoised=True, model_kwargs=NONE, eta=0.0):
    """DDIM (arXiv 2010.02502)."""
    for _, t in descending(diffusion, x):
        x_start = diffusion.denoise(model(x, diffusion.model_timesteps(t), **model_kwargs), x, t, clip_denoised)
        x = ddim_step(diffusion, x_start, x, t, draw_noise() if eta else torch.zeros_like(x), eta)
    return x


def dpmpp_2m(diffusion, model: Model, x: Tensor, draw_noise=None, clip_denoised=True, model_kwargs=NONE):
    """DPM-Solver++(2M), data prediction, second-order multistep (arXiv 2211.01095, algorithm 2).

    With l = log(sqrt(a) / sqrt(1 - a)) and h the step in l: x <- (s'/s) x - sqrt(a') (e^-h - 1) D, where D extrapolates
    the last two clean images to the middle of the step. The last step, to no noise at all, returns the clean image.
    """
    earlier: tuple[Tensor, Tensor] | None = None  # the step before: its clean image and its h
    for i, t in descending(diffusion, x):
        x_start = diffusion.denoise(model(x, diffusion.model_timesteps(t), **model_kwargs), x, t, clip_denoised)
        if i == 0:
            return x_start
        _, sigma, l = _half_log_snr(diffusion, t)
        next_signal, next_sigma, next_l = _half_log_snr(diffusion, t - 1)
        h = next_l - l
        D = x_start if earlier is None else x_start + h / (2 * earlier[1]) * (x_start - earlier[0])
        x = next_sigma / sigma * x - next_signal * torch.expm1(-h) * D
        earlier = x_start, h
    raise AssertionError("a diffusion has at least one step")


def heun(diffusion, model: Model, x: Tensor, draw_noise=None, clip_denoised=True, model_kwargs=NONE):
    """Heun's second-order steps in sigma / sqrt(a) (arXiv 2206.00364, algorithm 1): two calls a step, one at last."""
    for i, t in descending(diffusion, x):
        x_start = diffusion.denoise(model(x, diffusion.model_timesteps(t), **model_kwargs), x, t, clip_denoised)
        if i == 0:
            return x_start
        signal, sigma, _ = _half_log_snr(diffusion, t)
        next_signal, next_sigma, _ = _half_log_snr(diffusion, t - 1)
        noise_level, next_level = sigma / signal, next_sigma / next_signal
        scaled = x / signal
        # Euler step
        slope = (scaled - x_start) / noise_level
        euler = scaled + (next_level - noise_level) * slope
        # second-order correction
        x = euler * next_signal
        corrected_x_start = diffusion.denoise(
            model(x, diffusion.model_timesteps(t - 1), **model_kwargs), x, t - 1, clip_denoised
        )
        next_slope = (euler - corrected_x_start) / next_level
        x = (scaled + (next_level - noise_level) * (slope + next_slope) / 2) * next_signal
    raise AssertionError("a diffusion has at least one step")


SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}


def descending(diffusion: GaussianDiffusion, x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Count the steps of a diffusion down, T - 1 .. 0, each as a number and as a tensor (B,) for the batch x."""
    steps = torch.arange(diffusion.num_timesteps, device=x.device)
    for i in reversed(range(diffusion.num_timesteps)):
        yield i, steps[i].expand(len(x))


def _half_log_snr(diffusion: GaussianDiffusion, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    signal, sigma = diffusion.at("signal", t), diffusion.at("sigma", t)
    return signal, sigma, signal.log() - sigma.log()
