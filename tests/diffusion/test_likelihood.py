"""The bound in bits per dimension, against closed forms and against guided-diffusion's own numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.likelihood import bits_per_dim

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"
LEARNED = GaussianDiffusion.create("linear", 1000, variance="learned_range")
COSINE = GaussianDiffusion.create("cosine", 1000, variance="learned_range")
X_START = GaussianDiffusion.create("linear", 1000, variance="learned_range", prediction="x_start")
PUBLISHED = {
    "linear_eps_fixed": GaussianDiffusion.create("linear", 1000),
    "linear_learned_range": LEARNED,
    "linear_respaced_250": respace(LEARNED, "250"),
    "cosine_learned_ddim25": respace(COSINE, "ddim25"),
    "xstart_kl_sections": respace(X_START, "10,15,20"),
}


def normals(seed: int, *shape: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=generator)


def grey(images):
    """The nearest 8-bit pixels."""
    return (images.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1


# Guided-diffusion's numbers


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/golden, the predecessors' numbers")
@pytest.mark.parametrize("name", PUBLISHED)
def test_terms_of_the_same_noise_are_guided_diffusion_s(name):
    diffusion, numbers = PUBLISHED[name], np.load(GOLDEN / f"diff_{name}.npz")
    expected = {key: torch.from_numpy(numbers[key]) for key in numbers}

    def formula(x, told):
        told = told.float().view(-1, 1, 1, 1) / 1000
        out = 0.6 * x + 0.3 * torch.sin(3 * x + 2 * told)
        return torch.cat([out, 0.8 * torch.cos(2 * x) + 0.1 * told], dim=1) if diffusion.learns_variance else out

    # Image i's numbers are those of its step t[i]: the columns run from the last step to the first.
    found = bits_per_dim(diffusion, formula, expected["x0"], lambda: expected["noise"])
    T, images = diffusion.num_timesteps, torch.arange(4)
    at_t = {term: getattr(found, term)[images, T - 1 - expected["t"]] for term in ("vb", "x_start_mse", "mse")}
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(at_t["vb"], expected["vb_bpd"], **close)
    assert_close(found.prior, expected["prior_bpd"], **close)

    seen = expected["p_pred_xstart_clip1"]
    assert_close(at_t["x_start_mse"], ((seen - expected["x0"]) ** 2).mean(dim=(1, 2, 3)), **close)
    a = expected["alphas_cumprod"][expected["t"]].view(-1, 1, 1, 1)
    eps = (expected["x_t"].double() - a.sqrt() * seen) / (1 - a).sqrt()
    # Where t is 0 the noise is a small difference of float32 numbers.
    assert_close(at_t["mse"].double(), ((eps - expected["noise"]) ** 2).mean(dim=(1, 2, 3)), rtol=1e-3, atol=1e-4)


# Closed forms


@pytest.mark.parametrize("respacing", ["", "8"])
def test_the_bound_of_the_optimal_model_is_the_entropy_of_gaussian_data(optimal_network, respacing):
    """Reverse steps of Gaussian data are Gaussian, so with the right variances the variational bound is tight."""
    mean, std = 0.1, 0.2
    full = GaussianDiffusion.create("linear", 25, variance="learned_range")
    diffusion = respace(full, respacing)
    tables = diffusion.tables
    a = tables["alphas_cumprod"]
    left = std**2 * (1 - a) / (a * std**2 + 1 - a)  # Var(x_start | x_t)
    best = np.log(tables["posterior_variance"] + tables["posterior_mean_coef1"] ** 2 * left)
    floor = tables["posterior_log_variance_clipped"]
    outputs = torch.zeros(25, dtype=torch.float64)
    outputs[diffusion.timesteps] = torch.from_numpy(2 * (best - floor) / (tables["log_betas"] - floor) - 1)
    x_start = grey(mean + std * normals(5, 16, 1, 32, 32)())

    def bound(data_mean):
        network = optimal_network(full, data_mean, std, variance_output=lambda step: outputs[step])
        return bits_per_dim(diffusion, network, x_start, normals(6, *x_start.shape), clip_denoised=False).total.mean()

    entropy = 0.5 * math.log2(2 * math.pi * math.e * std**2) + math.log2(127.5)  # in grey levels of 2 / 255
    assert abs(bound(mean) - entropy) < 0.02
    # A model of N(m', std^2) needs KL = (m - m')^2 / (2 std^2) nats more: 0.18 bits.
    assert abs(bound(mean + 0.1) - entropy - 0.125 / math.log(2)) < 0.02


def test_a_data_set_of_one_image_costs_its_decoder_and_its_prior_alone(optimal_network):
    # It ends long before pure noise, so that the prior counts.
    diffusion = GaussianDiffusion(np.full(10, 0.05), np.arange(10), 10, variance="learned_range")
    image = grey(0.5 * normals(1, 1, 1, 8, 8)()).clamp(-0.9, 0.9)
    found = bits_per_dim(
        diffusion, optimal_network(diffusion, image), image.expand(3, -1, -1, -1), normals(2, 3, 1, 8, 8)
    )

    scale = math.sqrt(diffusion.tables["posterior_variance"][1])  # the point at t = 0 takes the next step's width
    in_bin = 2 * Normal(0.0, scale).cdf(torch.tensor(1 / 255)) - 1
    assert_close(found.vb[:, -1], -in_bin.log2().expand(3), rtol=1e-3, atol=0)
    assert_close(found.vb[:, :-1], torch.zeros(3, 9), rtol=0, atol=1e-5)
    a = torch.tensor(diffusion.tables["alphas_cumprod"][-1], dtype=torch.float32)
    prior = kl_divergence(Normal(a.sqrt() * image, (1 - a).sqrt()), Normal(0.0, 1.0)).mean() / math.log(2)
    assert prior > 0.1
    assert_close(found.prior, prior.expand(3), rtol=1e-4, atol=0)
    assert_close(found.total, found.prior + found.vb[:, -1], rtol=1e-5, atol=1e-5)
    for errors in (found.x_start_mse, found.mse):
        assert_close(errors, torch.zeros(3, 10), rtol=0, atol=1e-6)


# What a step is


@pytest.mark.parametrize("clip, seen", [(True, 1.0), (False, 3.0)])
def test_the_errors_are_those_of_the_clean_image_after_clipping(clip, seen):
    diffusion = GaussianDiffusion.create("linear", 25, prediction="x_start")
    x_start, noise = torch.full((2, 1, 4, 4), 0.5), normals(3, 2, 1, 4, 4)()
    found = bits_per_dim(diffusion, lambda x, t: torch.full_like(x, 3.0), x_start, lambda: noise, clip)
    assert_close(found.x_start_mse, torch.full((2, 25), (seen - 0.5) ** 2))
    # x_t is the same with another clean image in it: the noise differs by signal / sigma of the images' difference.
    ratio = torch.from_numpy(diffusion.tables["signal"] / diffusion.tables["sigma"]).float().flip(0)
    assert_close(found.mse, ((seen - 0.5) * ratio).square().expand(2, 25), rtol=1e-3, atol=0)


def test_every_step_has_one_network_call_and_its_own_noise():
    full = GaussianDiffusion.create("cosine", 30)
    diffusion, noises, calls, draw = respace(full, "6"), [], [], normals(4, 2, 1, 4, 4)

    def draw_noise():
        noises.append(draw())
        return noises[-1]

    def network(x, told, layout):
        calls.append((told.tolist(), x, layout))
        return torch.zeros_like(x)

    x_start = torch.zeros(2, 1, 4, 4)
    found = bits_per_dim(diffusion, network, x_start, draw_noise, model_kwargs={"layout": "a layout"})
    assert [told for told, _, _ in calls] == [[t, t] for t in diffusion.timesteps[::-1]]
    assert len(noises) == 6
    assert {layout for _, _, layout in calls} == {"a layout"}
    sigma = torch.from_numpy(diffusion.tables["sigma"]).float().flip(0).view(6, 1, 1, 1, 1)
    assert_close(torch.stack([x for _, x, _ in calls]), sigma * torch.stack(noises))
    assert found.total.shape == found.prior.shape == (2,)
    assert found.vb.shape == found.x_start_mse.shape == found.mse.shape == (2, 6)


def test_all_that_follows_a_bf16_network_is_float32():
    diffusion, x_start = GaussianDiffusion.create("cosine", 5), grey(normals(7, 2, 1, 4, 4)())
    half, whole = (
        bits_per_dim(diffusion, network, x_start, normals(8, 2, 1, 4, 4))
        for network in (lambda x, t: x.bfloat16(), lambda x, t: x.bfloat16().float())
    )
    for name, values in vars(half).items():
        assert values.dtype == torch.float32
        assert_close(values, getattr(whole, name), rtol=0, atol=0)
