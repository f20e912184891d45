"""The diffusion against guided-diffusion's own numbers (see shared/golden/README.md)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.samplers import ancestral_step, ddim, ddim_step

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"
NAMES = [
    "linear_eps_fixed",
    "linear_learned_range",
    "linear_respaced_250",
    "cosine_learned_ddim25",
    "rescaled",
    "xstart_kl_sections",
]
TABLES = [
    "alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
]

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/golden, the predecessors' numbers")


def diffusion_of(flags: dict) -> GaussianDiffusion:
    loss = "rescaled_kl" if flags.get("use_kl") else "rescaled_mse" if flags.get("rescale_learned_sigmas") else "mse"
    full = GaussianDiffusion.create(
        flags.get("noise_schedule", "linear"),
        flags["steps"],
        prediction="x_start" if flags.get("predict_xstart") else "eps",
        variance="learned_range" if flags.get("learn_sigma") else "fixed_large",
        loss=loss,
        rescale_timesteps=flags.get("rescale_timesteps", False),
    )
    return respace(full, flags.get("timestep_respacing", ""))


@pytest.fixture(params=NAMES)
def golden(request):
    flags = json.loads((GOLDEN / f"diff_{request.param}.json").read_text())
    numbers = np.load(GOLDEN / f"diff_{request.param}.npz")
    diffusion = diffusion_of(flags)

    def formula(x, t):
        told = t.float().view(-1, 1, 1, 1) / 1000
        out = 0.6 * x + 0.3 * torch.sin(3 * x + 2 * told)
        return torch.cat([out, 0.8 * torch.cos(2 * x) + 0.1 * told], dim=1) if diffusion.learns_variance else out

    return diffusion, formula, {name: torch.from_numpy(numbers[name]) for name in numbers}


def close(actual, expected):
    assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_tables_and_kept_timesteps_are_those_of_guided_diffusion(golden):
    diffusion, _, expected = golden
    assert_close(torch.from_numpy(diffusion.timesteps), expected["timestep_map"])
    assert_close(torch.from_numpy(diffusion.betas), expected["betas"], rtol=1e-5, atol=0)
    for name in TABLES:
        assert_close(torch.from_numpy(diffusion.tables[name]), expected[name], rtol=1e-5, atol=0)


def test_noising_an_image_gives_the_same_x_t(golden):
    diffusion, _, expected = golden
    close(diffusion.q_sample(expected["x0"], expected["t"], expected["noise"]), expected["x_t"])


def test_every_term_of_the_training_loss_agrees(golden):
    diffusion, model, expected = golden
    losses = diffusion.training_losses(model, expected["x0"], expected["t"], expected["noise"])
    assert {f"loss_{name}" for name in losses} == {name for name in expected if name.startswith("loss_")}
    for name, value in losses.items():
        close(value, expected[f"loss_{name}"])


@pytest.mark.parametrize("clip", [True, False])
def test_mean_variance_and_clean_image_agree(golden, clip):
    diffusion, model, expected = golden
    p = diffusion.p_mean_variance(model, expected["x_t"], expected["t"], clip_denoised=clip)
    end = f"clip{int(clip)}"
    close(p.mean, expected[f"p_mean_{end}"])
    close(p.variance, expected[f"p_variance_{end}"])
    close(p.log_variance, expected[f"p_log_variance_{end}"])
    close(p.x_start, expected[f"p_pred_xstart_{end}"])


def test_one_ancestral_step_agrees(golden):
    diffusion, model, expected = golden
    p = diffusion.p_mean_variance(model, expected["x_t"], expected["t"])
    close(ancestral_step(p, expected["t"], expected["step_noise"]), expected["ancestral"])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_ddim_step_agrees(golden, eta):
    diffusion, model, expected = golden
    x_start = diffusion.denoise(model, expected["x_t"], expected["t"])
    step = ddim_step(diffusion, x_start, expected["x_t"], expected["t"], expected["step_noise"], eta)
    close(step, expected[f"ddim_eta{eta}"])


def test_a_whole_ddim_loop_agrees(golden):
    diffusion, model, expected = golden
    loop = ddim(diffusion, model, expected["loop_start"])
    # Up to 1,000 network calls: float32 rounding, not the formulas (each step agrees to 1e-5), leaves 5e-5.
    assert_close(loop, expected["ddim_loop"], rtol=1e-4, atol=1e-4)


def test_bits_per_dimension_terms_agree(golden):
    diffusion, model, expected = golden
    t = expected["t"]
    output = model(expected["x_t"], diffusion.model_timesteps(t))
    close(diffusion.vb_terms(output, expected["x0"], expected["x_t"], t), expected["vb_bpd"])
    close(diffusion.prior_bpd(expected["x0"]), expected["prior_bpd"])
