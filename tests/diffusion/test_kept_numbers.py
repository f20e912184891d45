"""The diffusion against the reference numbers in tests/golden, each file of which says how it was made."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.samplers import SAMPLERS, ancestral_step, ddim, ddim_step

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PREDECESSOR = json.loads((GOLDEN / "guided_diffusion.json").read_text())
SECOND_ORDER = json.loads((GOLDEN / "second_order_samplers.json").read_text())
INPUTS = PREDECESSOR["inputs"]
X_START, NOISE = (torch.tensor(INPUTS[name]).view(INPUTS["shape"]) for name in ("x_start", "noise"))


def diffusion_of(arguments: dict) -> GaussianDiffusion:
    full = GaussianDiffusion.create(
        arguments.get("noise_schedule", "linear"),
        arguments["steps"],
        prediction="x_start" if arguments.get("predict_xstart") else "eps",
        variance="learned_range" if arguments.get("learn_sigma") else "fixed_large",
        loss="rescaled_kl"
        if arguments.get("use_kl")
        else "rescaled_mse"
        if arguments.get("rescale_learned_sigmas")
        else "mse",
        rescale_timesteps=arguments.get("rescale_timesteps", False),
    )
    return respace(full, arguments.get("timestep_respacing", ""))


def network_of(diffusion: GaussianDiffusion):
    def network(x, told):
        s = told.float().view(-1, 1, 1, 1) / 1000
        mean = 0.6 * x + 0.3 * torch.sin(3 * x + 2 * s)
        return torch.cat([mean, 0.8 * torch.cos(2 * x) + 0.1 * s], dim=1) if diffusion.learns_variance else mean

    return network


@pytest.fixture(params=PREDECESSOR["cases"])
def case(request):
    expected = PREDECESSOR["cases"][request.param]
    diffusion, t = diffusion_of(expected["arguments"]), torch.tensor(expected["t"])
    return diffusion, network_of(diffusion), t, diffusion.q_sample(X_START, t, NOISE), expected


def close(actual, expected, tolerance=1e-5):
    assert_close(actual, torch.tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance)


def picked(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([images[tuple(pixel)] for pixel in INPUTS["pixels"]])


def test_the_steps_and_their_tables_are_as_they_were(case):
    diffusion, _, _, _, expected = case
    assert diffusion.num_timesteps == expected["num_timesteps"]
    assert {step: int(diffusion.timesteps[int(step)]) for step in expected["timesteps"]} == expected["timesteps"]
    numbers = dict(expected["tables"])
    steps, betas = numbers.pop("step"), numbers.pop("betas")
    for table, values in [(diffusion.betas, betas), *((diffusion.tables[name], numbers[name]) for name in numbers)]:
        assert_close(torch.from_numpy(table[steps]), torch.tensor(values, dtype=torch.float64), rtol=1e-7, atol=0)


def test_losses_and_bound_are_as_they_were(case):
    diffusion, network, t, x_t, expected = case
    terms = {f"loss_{name}": loss for name, loss in diffusion.training_losses(network, X_START, t, NOISE).items()}
    terms["vb_bpd"] = diffusion.vb_terms(network(x_t, diffusion.model_timesteps(t)), X_START, x_t, t)
    terms["prior_bpd"] = diffusion.prior_bpd(X_START)
    assert set(terms) == set(expected["terms"])
    for name, value in terms.items():
        close(value, expected["terms"][name])


def test_one_step_back_is_as_it_was(case):
    diffusion, network, t, x_t, expected = case
    noise, pixels = torch.zeros_like(x_t), expected["pixels"]
    for pixel, value in zip(INPUTS["pixels"], INPUTS["step_noise"], strict=True):
        noise[tuple(pixel)] = value
    close(picked(x_t), pixels["x_t"])
    output = network(x_t, diffusion.model_timesteps(t))
    clipped, free = (diffusion.p_mean_variance(output, x_t, t, clip_denoised=clip) for clip in (True, False))
    close(picked(clipped.mean), pixels["p_mean_clip1"])
    close(picked(clipped.log_variance), pixels["p_log_variance_clip1"])
    close(picked(clipped.x_start), pixels["p_pred_xstart_clip1"])
    close(picked(free.mean), pixels["p_mean_clip0"])
    close(picked(free.x_start), pixels["p_pred_xstart_clip0"])
    close(picked(ancestral_step(clipped, t, noise)), pixels["ancestral"])
    for eta in (0.0, 0.5, 1.0):
        close(picked(ddim_step(diffusion, clipped.x_start, x_t, t, noise, eta)), pixels[f"ddim_eta{eta}"])


@pytest.mark.parametrize("name", [name for name, case in PREDECESSOR["cases"].items() if "ddim_loop" in case])
def test_a_whole_ddim_loop_is_as_it_was(name):
    expected = PREDECESSOR["cases"][name]
    diffusion, start = diffusion_of(expected["arguments"]), torch.tensor(INPUTS["loop_start"]).view(1, 1, 1, 4)
    close(ddim(diffusion, network_of(diffusion), start).flatten(), expected["ddim_loop"], tolerance=1e-4)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun"])
@pytest.mark.parametrize(
    "expected",
    SECOND_ORDER["cases"],
    ids=lambda c: f"{c['noise_schedule']}-{c['timestep_respacing']}-{c['clip_denoised']}",
)
def test_second_order_samplers_are_those_of_plain_python(sampler, expected):
    diffusion = respace(GaussianDiffusion.create(expected["noise_schedule"], 1000), expected["timestep_respacing"])
    assert diffusion.timesteps.tolist() == expected["timesteps"]

    x = torch.tensor(SECOND_ORDER["start"]).view(1, 1, 1, -1)
    images = SAMPLERS[sampler](diffusion, network_of(diffusion), x, clip_denoised=expected["clip_denoised"])
    close(images.flatten(), expected[sampler], tolerance=1e-4)
