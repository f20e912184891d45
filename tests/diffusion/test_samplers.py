"""Samplers: what they make of a data set of one image, what they equal, what they ask for."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.samplers import SAMPLERS, ancestral_step, ddim, ddim_step, dpmpp_2m, heun

WAYS = {
    "ddpm": SAMPLERS["ddpm"],
    "ddim_0": SAMPLERS["ddim"],
    "ddim_0.5": partial(SAMPLERS["ddim"], eta=0.5),
    "ddim_1": partial(SAMPLERS["ddim"], eta=1.0),
    "dpmpp_2m": SAMPLERS["dpmpp_2m"],
    "heun": SAMPLERS["heun"],
}
DETERMINISTIC = ["ddim_0", "dpmpp_2m", "heun"]
RESPACINGS = ["", "50", "ddim25", "logsnr10", "10,15,20"]


def normals(seed: int, *shape: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=generator)


def an_image(*shape: int) -> torch.Tensor:
    return 0.9 * torch.sin(torch.arange(np.prod(shape), dtype=torch.float64)).view(shape)


def recorded(network, diffusion):
    """The network, and a list that fills with (step of `diffusion`, x_t) as it is called."""
    seen, position = [], {int(told): i for i, told in enumerate(diffusion.timesteps)}

    def recording(x_t, told, **kwargs):
        seen.append((position[int(told[0])], x_t))
        return network(x_t, told, **kwargs)

    return recording, seen


# A data set of one image


@pytest.mark.parametrize("respacing", RESPACINGS)
@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
@pytest.mark.parametrize("way", WAYS)
def test_every_sampler_returns_the_only_image_there_is(optimal_network, way, prediction, respacing):
    full = GaussianDiffusion.create("linear", 200, prediction=prediction)
    image, draw_noise = an_image(1, 3, 2, 2), normals(0, 1, 3, 2, 2)
    sample = WAYS[way](respace(full, respacing), optimal_network(full, image), draw_noise(), draw_noise)
    assert_close(sample, image.float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddpm_returns_the_only_image_whatever_its_variance(optimal_network, schedule, variance):
    full = GaussianDiffusion.create(schedule, 200, variance=variance, rescale_timesteps=True)
    image, draw_noise = an_image(1, 1, 4, 2), normals(0, 1, 1, 4, 2)
    sample = WAYS["ddpm"](respace(full, "50"), optimal_network(full, image), draw_noise(), draw_noise)
    assert_close(sample, image.float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("respacing", RESPACINGS)
@pytest.mark.parametrize("way", DETERMINISTIC)
def test_a_deterministic_sampler_keeps_the_noise_it_started_from(optimal_network, way, respacing):
    full = GaussianDiffusion.create("linear", 200)
    diffusion, image, noise = respace(full, respacing), an_image(1, 3, 4, 4).float(), normals(1, 1, 3, 4, 4)()
    network, seen = recorded(optimal_network(full, image), diffusion)
    start = diffusion.q_sample(image, torch.tensor([diffusion.num_timesteps - 1]), noise)
    WAYS[way](diffusion, network, start)
    for step, x_t in seen:
        assert_close(x_t, diffusion.q_sample(image, torch.tensor([step]), noise), rtol=0, atol=2e-4)


@pytest.mark.parametrize("respacing", ["50", "logsnr10", "10,15,20"])
@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
@pytest.mark.parametrize("way", ["ddpm", "ddim_0.5", "ddim_1"])
def test_a_random_sampler_has_just_the_noise_that_each_step_stands_for(optimal_network, way, variance, respacing):
    full = GaussianDiffusion.create("linear", 200, variance=variance)
    diffusion, image = respace(full, respacing), an_image(1, 1, 128, 128).float()
    network, seen = recorded(optimal_network(full, image), diffusion)
    draw_noise = normals(2, 1, 1, 128, 128)
    start = diffusion.q_sample(image, torch.tensor([diffusion.num_timesteps - 1]), draw_noise())
    WAYS[way](diffusion, network, start, draw_noise)
    for step, x_t in seen:
        noise = diffusion.eps_of(image, x_t, torch.tensor([step]))
        assert abs(noise.mean()) < 0.04 and abs(noise.std() - 1) < 0.03, step


# Equalities


def wavy(x_t, told):
    return 0.6 * x_t + 0.3 * torch.sin(3 * x_t + told.view(-1, 1, 1, 1) / 500)


def test_ddim_without_noise_is_euler_in_sigma():
    diffusion, x = respace(GaussianDiffusion.create("linear", 1000), "20"), normals(4, 2, 3, 4, 4)()
    signal, sigma = diffusion.tables["signal"], diffusion.tables["sigma"]
    level = np.append(0.0, sigma / signal)  # one more, at the end: no noise
    scaled = x.double() / signal[-1]
    for i in reversed(range(20)):
        eps = wavy(scaled.float() * signal[i], torch.full((2,), int(diffusion.timesteps[i])))
        scaled = scaled + (level[i] - level[i + 1]) * eps.double()
    assert_close(ddim(diffusion, wavy, x, clip_denoised=False), scaled.float(), rtol=1e-4, atol=1e-4)


def test_the_first_step_of_dpmpp_2m_is_ddim_s():
    diffusion, x = respace(GaussianDiffusion.create("linear", 1000), "10"), normals(5, 1, 3, 4, 4)()
    network, seen = recorded(wavy, diffusion)
    dpmpp_2m(diffusion, network, x)
    last = torch.tensor([9])
    step = ddim_step(
        diffusion,
        diffusion.denoise(wavy(x, diffusion.model_timesteps(last)), x, last),
        x,
        last,
        torch.zeros_like(x),
        eta=0,
    )
    assert_close(seen[1][1], step, rtol=1e-5, atol=1e-5)


def test_ddim_with_eta_one_has_the_posterior_s_mean_and_variance():
    diffusion, x = (
        respace(GaussianDiffusion.create("linear", 1000, variance="fixed_small"), "20"),
        normals(6, 20, 1, 2, 2),
    )
    x_t, noise, t = x(), x(), torch.arange(20)
    p = diffusion.p_mean_variance(wavy(x_t, diffusion.model_timesteps(t)), x_t, t)
    step = ddim_step(diffusion, p.x_start, x_t, t, noise, eta=1.0)
    assert_close(step[1:], ancestral_step(p, t, noise)[1:], rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("respacing", ["1", "2", "logsnr1", "logsnr2", "logsnr3", "ddim2"])
@pytest.mark.parametrize("way", WAYS)
def test_very_few_steps_stay_finite(way, respacing, schedule):
    diffusion, draw_noise = respace(GaussianDiffusion.create(schedule, 1000), respacing), normals(7, 2, 1, 4, 4)
    assert torch.isfinite(WAYS[way](diffusion, wavy, draw_noise(), draw_noise)).all()


# What a sampler asks for


@pytest.mark.parametrize("way", WAYS)
def test_the_network_is_told_original_steps_and_gets_the_keywords(way):
    diffusion, told_steps = respace(GaussianDiffusion.create("linear", 1000), "ddim10"), []

    def network(x_t, told, layout):
        assert layout == "the layout"
        told_steps.append(told.tolist())
        return 0.5 * x_t

    draw_noise = normals(8, 2, 1, 2, 2)
    WAYS[way](diffusion, network, draw_noise(), draw_noise, model_kwargs={"layout": "the layout"})
    steps = [100 * i for i in reversed(range(10))]
    if way == "heun":  # a step's end is the next one's beginning
        steps = [900, *(step for step in steps[1:] for _ in range(2))]
    assert told_steps == [[step, step] for step in steps]


@pytest.mark.parametrize("way", WAYS)
def test_clip_denoised_reaches_every_sampler(way):
    diffusion = respace(GaussianDiffusion.create("linear", 100, prediction="x_start"), "10")
    draw_noise = normals(9, 1, 1, 2, 2)
    for clip, expected in (True, 1.0), (False, 3.0):
        sample = WAYS[way](
            diffusion, lambda x, t: torch.full_like(x, 3.0), draw_noise(), draw_noise, clip_denoised=clip
        )
        assert_close(sample, torch.full_like(sample, expected))


@pytest.mark.parametrize("way", ["ddpm", "ddim_0.5", "ddim_1"])
def test_a_random_sampler_s_only_chance_is_draw_noise(way):
    diffusion = respace(GaussianDiffusion.create("linear", 1000), "10")
    x, noises = normals(10, 1, 1, 2, 2)(), list(normals(11, 10, 1, 1, 2, 2)())

    def sample(noises):
        left = iter(noises)
        return WAYS[way](diffusion, wavy, x, lambda: next(left), clip_denoised=False)

    once = sample(noises)
    assert torch.equal(once, sample(noises))
    for i in range(9):  # the last noise is drawn but the step to t = 0 adds none
        assert not torch.equal(once, sample([*noises[:i], noises[i] + 1, *noises[i + 1 :]]))
    assert torch.equal(once, sample([*noises[:9], noises[9] + 1]))


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m, heun])
def test_a_deterministic_sampler_draws_no_noise(sampler):
    def draw_noise():
        raise AssertionError("drew noise")

    diffusion, x = respace(GaussianDiffusion.create("linear", 100), "5"), normals(12, 1, 1, 2, 2)()
    state = torch.get_rng_state()
    assert torch.equal(sampler(diffusion, wavy, x, draw_noise), sampler(diffusion, wavy, x, draw_noise))
    assert torch.equal(state, torch.get_rng_state())


def test_one_sample_does_not_depend_on_its_neighbours():
    diffusion, x = respace(GaussianDiffusion.create("linear", 100), "5"), normals(13, 3, 1, 2, 2)()
    for sampler in (ddim, dpmpp_2m, heun):
        assert_close(sampler(diffusion, wavy, x)[1:2], sampler(diffusion, wavy, x[1:2]))
