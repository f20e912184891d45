"""The diffusion on Gaussian data N(m, c^2), where the best denoiser is linear and every answer has a formula."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.samplers import ddim, ddpm, dpmpp_2m, heun

MEAN, STD = 0.3, 0.4
WAYS = {
    "ddpm": ddpm,
    "ddim_0": ddim,
    "ddim_0.5": partial(ddim, eta=0.5),
    "ddim_1": partial(ddim, eta=1.0),
    "dpmpp_2m": dpmpp_2m,
    "heun": heun,
}


def normals(seed: int, *shape: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=generator)


# Sampling


def samples_of(optimal_network, way, respacing, schedule="linear", **settings):
    full, draw_noise = GaussianDiffusion.create(schedule, 1000, **settings), normals(3, 1, 1, 1, 16_000)
    network = optimal_network(full, MEAN, STD)
    return WAYS[way](respace(full, respacing), network, draw_noise(), draw_noise, clip_denoised=False)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_ddpm_samples_have_the_data_s_mean_and_spread(optimal_network, variance, schedule):
    samples = samples_of(optimal_network, "ddpm", "250", schedule, variance=variance)
    assert abs(samples.mean() - MEAN) < 0.01 and abs(samples.std() / STD - 1) < 0.06


@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
@pytest.mark.parametrize("way", ["ddim_0", "ddim_0.5", "ddim_1"])
def test_ddim_samples_have_the_data_s_mean_and_spread(optimal_network, way, prediction):
    samples = samples_of(optimal_network, way, "250", prediction=prediction)
    assert abs(samples.mean() - MEAN) < 0.01 and abs(samples.std() / STD - 1) < 0.06


@pytest.mark.parametrize("way, tolerance", [("ddim_0", 0.15), ("dpmpp_2m", 0.03), ("heun", 0.06)])
def test_twenty_steps_give_the_spread_nearly(optimal_network, way, tolerance):
    samples = samples_of(optimal_network, way, "logsnr20")
    assert abs(samples.mean() - MEAN) < 0.01 and abs(samples.std() / STD - 1) < tolerance


# Orders of error


def even_in_log_snr(num_steps: int) -> GaussianDiffusion:
    """A process of its own, with equal steps in log(signal / sigma)."""
    alphas_cumprod = torch.sigmoid(2 * torch.linspace(4, -4, num_steps, dtype=torch.float64)).numpy()
    betas = 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
    return GaussianDiffusion(betas, np.arange(num_steps), num_steps)


def flow_error(optimal_network, way: str, num_steps: int) -> float:
    """Largest distance from the exact solution of the probability flow, which for Gaussian data is affine."""
    diffusion = even_in_log_snr(num_steps)
    network, x = optimal_network(diffusion, MEAN, STD), torch.linspace(-2, 2, 9).view(1, 1, 1, 9)
    signal, sigma = diffusion.tables["signal"], diffusion.tables["sigma"]
    spread = np.sqrt(signal**2 * STD**2 + sigma**2)
    exact_at_0 = signal[0] * MEAN + spread[0] / spread[-1] * (x - signal[-1] * MEAN)
    # Every sampler ends with this one step to the clean image: no part of the error in question.
    first, x_0 = torch.tensor([0]), exact_at_0.float()
    exact = diffusion.denoise(network(x_0, diffusion.model_timesteps(first)), x_0, first, clip_denoised=False)
    return float((WAYS[way](diffusion, network, x, clip_denoised=False) - exact).abs().max())


@pytest.mark.parametrize("way, order", [("ddim_0", 1), ("dpmpp_2m", 2), ("heun", 2)])
def test_half_the_step_divides_the_error_by_two_to_the_sampler_s_order(optimal_network, way, order):
    coarse, fine = (flow_error(optimal_network, way, num_steps) for num_steps in (31, 61))
    assert 0.8 * 2**order < coarse / fine < 1.25 * 2**order


@pytest.mark.parametrize("way, num_steps, calls", [("dpmpp_2m", 40, 40), ("heun", 40, 79)])
def test_second_order_beats_first_order_at_equal_network_calls(optimal_network, way, num_steps, calls):
    assert flow_error(optimal_network, way, num_steps) < 0.35 * flow_error(optimal_network, "ddim_0", calls)


# Losses


def data_and_noise(size: int):
    draw = normals(4, size, 1, 4, 4)
    return MEAN + STD * draw(), draw()


@pytest.mark.parametrize("respacing", ["", "10"])
@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
def test_the_optimal_denoiser_has_the_least_possible_loss(optimal_network, prediction, respacing):
    full = GaussianDiffusion.create("linear", 100, prediction=prediction)
    diffusion, (x_start, noise) = respace(full, respacing), data_and_noise(3000)
    for step in (0, diffusion.num_timesteps // 3, diffusion.num_timesteps - 1):
        t = torch.full((3000,), step)
        loss = diffusion.training_losses(optimal_network(full, MEAN, STD), x_start, t, noise)["loss"].mean()
        a = diffusion.tables["alphas_cumprod"][step]
        x_start_left = STD**2 * (1 - a) / (a * STD**2 + 1 - a)  # Var(x_start | x_t)
        least = {"eps": x_start_left * a / (1 - a), "x_start": x_start_left, "v": x_start_left / (1 - a)}[prediction]
        assert_close(loss, torch.tensor(least, dtype=torch.float32), rtol=0.03, atol=0)  # 48,000 squares: 0.6 %


@pytest.mark.parametrize("off", [{"mean": MEAN + 0.2}, {"std": 0.8 * STD}])
def test_any_other_denoiser_loses_more(optimal_network, off):
    diffusion, (x_start, noise) = GaussianDiffusion.create("linear", 100), data_and_noise(3000)
    t = torch.arange(3000) % 100
    best, other = (
        diffusion.training_losses(optimal_network(diffusion, **setting), x_start, t, noise)["loss"].mean()
        for setting in ({"mean": MEAN, "std": STD}, {"mean": MEAN, "std": STD} | off)
    )
    assert other > 1.005 * best


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_bound_of_the_optimal_model_is_the_entropy_of_the_data(optimal_network, prediction):
    """Reverse steps of Gaussian data are Gaussian, so with the right variances the variational bound is tight."""
    mean, std, num_steps = 0.1, 0.25, 25
    diffusion = GaussianDiffusion.create("linear", num_steps, prediction=prediction, variance="learned_range")
    tables = diffusion.tables
    a, smallest = tables["alphas_cumprod"], tables["posterior_variance"]
    x_start_left = std**2 * (1 - a) / (a * std**2 + 1 - a)
    best = np.log(smallest + tables["posterior_mean_coef1"] ** 2 * x_start_left)
    floor = tables["posterior_log_variance_clipped"]
    outputs = torch.from_numpy(2 * (best - floor) / (tables["log_betas"] - floor) - 1)
    assert outputs.abs().max() <= 1  # between the posterior's variance and beta, as the paper says
    network = optimal_network(diffusion, mean, std, variance_output=lambda step: outputs[step])

    draw = normals(5, 20 * num_steps, 1, 32, 32)
    x_start, noise, t = mean + std * draw(), draw(), torch.arange(20 * num_steps) % num_steps
    x_start = (x_start * 127.5).round() / 127.5
    x_t = diffusion.q_sample(x_start, t, noise)
    output = network(x_t, diffusion.model_timesteps(t))
    terms = diffusion.vb_terms(output, x_start, x_t, t, clip_denoised=False)
    bound = num_steps * terms.mean() + diffusion.prior_bpd(x_start).mean()
    entropy = 0.5 * math.log2(2 * math.pi * math.e * std**2) + math.log2(127.5)  # in grey levels
    assert abs(bound - entropy) < 0.02
