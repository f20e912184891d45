"""The diffusion against guided-diffusion's own numbers, each array of each file by its name."""

import re

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from stay_diffusion.config import RunConfig, flags
from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion
from stay_diffusion.diffusion.samplers import ancestral_step, ddim, ddim_step
from stay_diffusion.run import factory

SHARE = 1e-5  # of an array's largest value
FLOAT32 = 1.2e-7  # what rounding a float32 changes it by, as a share of it
TABLES = {"sqrt_alphas_cumprod": "signal", "sqrt_one_minus_alphas_cumprod": "sigma"}  # theirs -> ours


def diffusion_of(given: dict) -> GaussianDiffusion:
    """From options in guided-diffusion's names, by the way of a run's configuration."""
    values = {{"steps": "diffusion_steps"}.get(name, name): value for name, value in given.items()}
    options = flags.unflatten(RunConfig, values, "flags").diffusion
    return factory.build_training_diffusion(options)


def network_of(diffusion: GaussianDiffusion):
    """The formula that stands for a network in these files."""

    def formula(x, told):
        t = told.to(x.dtype).view(-1, 1, 1, 1) / 1000
        output = 0.6 * x + 0.3 * torch.sin(3 * x + 2 * t)
        return torch.cat([output, 0.8 * torch.cos(2 * x) + 0.1 * t], dim=1) if diffusion.learns_variance else output

    return formula


def ours(name: str, diffusion: GaussianDiffusion, numbers) -> Tensor:
    """What this diffusion gives for an array of the file."""
    model = network_of(diffusion)
    if name == "timestep_map":
        return torch.from_numpy(diffusion.timesteps)
    tables = {"betas": diffusion.betas, **diffusion.tables}
    if TABLES.get(name, name) in tables:
        return torch.from_numpy(tables[TABLES.get(name, name)])
    if name == "prior_bpd":
        return diffusion.prior_bpd(numbers["x0"])
    if name == "ddim_loop":
        return ddim(diffusion, model, numbers["loop_start"])
    t = numbers["t"]
    if name == "x_t":
        return diffusion.q_sample(numbers["x0"], t, numbers["noise"])
    if term := re.fullmatch("loss_(.+)", name):
        return diffusion.training_losses(model, numbers["x0"], t, numbers["noise"])[term[1]]
    x_t = numbers["x_t"]
    output = model(x_t, diffusion.model_timesteps(t))
    if match := re.fullmatch(r"p_(mean|variance|log_variance|pred_xstart)_clip([01])", name):
        p = diffusion.p_mean_variance(output, x_t, t, clip_denoised=match[2] == "1")
        return getattr(p, match[1].replace("pred_xstart", "x_start"))
    if name == "vb_bpd":
        return diffusion.vb_terms(output, numbers["x0"], x_t, t)
    p = diffusion.p_mean_variance(output, x_t, t)
    if name == "ancestral":
        return ancestral_step(p, t, numbers["step_noise"])
    if match := re.fullmatch(r"ddim_eta([\d.]+)", name):
        return ddim_step(diffusion, p.x_start, x_t, t, numbers["step_noise"], float(match[1]))
    pytest.skip(f"nothing here computes {name}")


def error_allowed(name: str, diffusion: GaussianDiffusion, expected: Tensor) -> tuple[float, float]:
    """Relative and absolute: 1e-5, element by element where float32 can hold it so."""
    T, largest = diffusion.num_timesteps, expected.abs().max().item()
    if expected.dtype != torch.float32:
        return SHARE if expected.is_floating_point() else 0, 0
    if name == "ddim_loop":
        # Each of up to 1,000 steps rounds. Against the same loop in float64 guided-diffusion's own 1,000 steps are off
        # by 3.7e-5 of the largest value, ours by 1.2e-5: one rounding a step, where those are more than 1e-5.
        return 0, max(SHARE, FLOAT32 * T) * largest
    if name == "prior_bpd" or name == "vb_bpd" or name.startswith("loss_"):
        # A KL divergence is what is left of numbers near 1, however small it is (1e-6 at t = T): their rounding stays.
        # rescaled_kl multiplies it by T.
        return SHARE, FLOAT32 * (T if diffusion.loss == "rescaled_kl" and name == "loss_loss" else max(1, T / 1000))
    return 0, SHARE * largest


def test_each_number_is_that_of_guided_diffusion(diffusion_number):
    group, name = diffusion_number
    diffusion, numbers = diffusion_of(group.flags()), group.numbers()
    rtol, atol = error_allowed(name, diffusion, numbers[name])
    assert_close(ours(name, diffusion, numbers), numbers[name], rtol=rtol, atol=atol)
