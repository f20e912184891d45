"""Noise schedules, and the steps that each respacing keeps."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.schedules import kept_timesteps, named_betas

RESPACINGS = ["", "250", "1000", "ddim25", "10,15,20", "logsnr20"]


def alphas_cumprod_of(schedule: str, num_steps: int) -> np.ndarray:
    return np.cumprod(1 - named_betas(schedule, num_steps))


def kept(respacing: str, num_steps: int = 1000) -> list[int]:
    return kept_timesteps(alphas_cumprod_of("cosine", num_steps), respacing)


# Schedules


@pytest.mark.parametrize("num_steps", [100, 1000, 4000])
def test_linear_betas_rise_evenly_between_ddpm_s_ends(num_steps):
    betas = named_betas("linear", num_steps)
    assert len(betas) == num_steps and betas.dtype == np.float64
    np.testing.assert_allclose(betas[[0, -1]] * num_steps, [0.1, 20.0])
    np.testing.assert_allclose(np.diff(betas), (betas[-1] - betas[0]) / (num_steps - 1))


def test_cosine_keeps_the_squared_cosine_of_the_signal():
    alphas_cumprod = alphas_cumprod_of("cosine", 1000)
    for t in (0, 10, 500, 990):
        angles = [((i / 1000) + 0.008) / 1.008 * math.pi / 2 for i in (t + 1, 0)]
        np.testing.assert_allclose(alphas_cumprod[t], (math.cos(angles[0]) / math.cos(angles[1])) ** 2)
    assert named_betas("cosine", 1000).max() == 0.999


def test_an_unknown_schedule_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"--noise_schedule sigmoid: .*linear, cosine"):
        named_betas("sigmoid", 1000)


@pytest.mark.parametrize("num_steps", [2, 19, 20])
def test_too_few_steps_for_the_linear_schedule_are_an_error(num_steps):
    """At 20 the last beta is 1: nothing is left of the image, and eps says nothing about it."""
    with pytest.raises(ValueError, match=f"--diffusion_steps {num_steps}"):
        named_betas("linear", num_steps)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_fewest_steps_that_are_allowed_leave_some_signal(schedule):
    diffusion = GaussianDiffusion.create(schedule, 21)
    assert all(np.isfinite(table).all() for table in diffusion.tables.values())
    assert (np.diff(diffusion.tables["alphas_cumprod"]) < 0).all() and diffusion.tables["signal"][-1] > 0


# Respacing


def test_no_respacing_keeps_every_step():
    assert kept("", 7) == list(range(7))


def test_sections_are_kept_evenly_from_end_to_end():
    assert kept("5", 9) == [0, 2, 4, 6, 8]
    assert kept("2,3", 10) == [0, 4, 5, 7, 9]


def test_the_first_sections_take_the_steps_that_do_not_divide():
    assert kept("4,3,3", 10) == list(range(10))


@pytest.mark.parametrize("counts", ["1", "250", "10,15,20", "1,1,1", "334,333,333"])
def test_every_section_keeps_as_many_steps_as_it_says(counts):
    steps, sizes = kept(counts), [int(count) for count in counts.split(",")]
    sections = np.array_split(np.arange(1000), len(sizes))  # longer ones first, as here
    assert steps == sorted(set(steps))
    assert [len(np.intersect1d(steps, section)) for section in sections] == sizes


def test_ddim_strides_by_a_whole_number_from_step_0():
    assert kept("ddim25") == list(range(0, 1000, 40))
    assert kept("ddim1000") == list(range(1000))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(
    "num_steps, counts", [(150, range(2, 151)), (1000, [2, 5, 10, 20, 50, 100, 333, 998, 999, 1000])]
)
def test_logsnr_keeps_as_many_steps_as_it_says_ends_included(schedule, num_steps, counts):
    alphas_cumprod = alphas_cumprod_of(schedule, num_steps)
    for count in counts:
        steps = kept_timesteps(alphas_cumprod, f"logsnr{count}")
        assert len(steps) == count and (np.diff(steps) > 0).all()
        assert steps[0] == 0 and steps[-1] == num_steps - 1


def test_logsnr_keeps_its_count_where_the_noise_rises_in_the_middle_of_the_process():
    log_snr = -9 * np.tanh((np.arange(101) - 50) / 5)
    for count in range(2, 102):
        steps = kept_timesteps(1 / (1 + np.exp(-log_snr)), f"logsnr{count}")
        assert len(steps) == count and (np.diff(steps) > 0).all() and (steps[0], steps[-1]) == (0, 100)


def test_one_logsnr_step_is_the_noisiest():
    assert kept("logsnr1") == [999]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_logsnr_steps_are_as_even_as_whole_steps_allow(schedule):
    alphas_cumprod = alphas_cumprod_of(schedule, 1000)
    log_snr = np.log(alphas_cumprod / (1 - alphas_cumprod))
    steps = kept_timesteps(alphas_cumprod, "logsnr8")
    for step, wanted in zip(steps, np.linspace(log_snr[0], log_snr[-1], 8), strict=True):
        assert abs(log_snr[step] - wanted) <= np.abs(log_snr - wanted).min() + 1e-9


@pytest.mark.parametrize(
    "respacing, reason",
    [
        ("1001", "cannot keep 1001 steps of a section of 1000"),
        ("0", "cannot keep 0"),
        ("-5", "cannot keep -5"),
        ("10,900", "cannot keep 900 steps of a section of 500"),
        ("ddim300", "no whole stride gives 300 steps"),
        ("ddim0", "no whole stride gives 0 steps"),
        ("ddim1001", "no whole stride"),
        ("logsnr0", "cannot keep 0"),
        ("logsnr1001", "cannot keep 1001"),
        *(
            (text, "expects 250, 10,15,20, ddim25 or logsnr20")
            for text in ("fast", "10,,5", "ddim", "logsnr", "2.5", " ")
        ),
    ],
)
def test_an_impossible_respacing_is_an_error_naming_the_flag(respacing, reason):
    with pytest.raises(ValueError) as error:
        kept(respacing)
    assert str(error.value).startswith(f"--timestep_respacing {respacing}: ") and reason in str(error.value)
    assert "\n" not in str(error.value) and "1000 steps" in str(error.value)


# Respaced processes


@pytest.mark.parametrize("respacing", RESPACINGS)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_respaced_process_has_the_marginals_of_the_steps_it_keeps(schedule, respacing):
    full = GaussianDiffusion.create(schedule, 1000)
    diffusion = respace(full, respacing)
    expected = full.tables["alphas_cumprod"][diffusion.timesteps]
    np.testing.assert_allclose(diffusion.tables["alphas_cumprod"], expected, rtol=1e-9)


@pytest.mark.parametrize("respacing", ["", "1000", "ddim1000", "logsnr1000"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_respacing_to_all_steps_changes_nothing(schedule, respacing):
    full = GaussianDiffusion.create(schedule, 1000, prediction="v", variance="learned_range", loss="rescaled_mse")
    diffusion = respace(full, respacing)
    np.testing.assert_allclose(diffusion.betas, full.betas, rtol=1e-9)
    assert diffusion.timesteps.tolist() == list(range(1000)) and diffusion.num_original_steps == 1000
    assert (diffusion.prediction, diffusion.variance, diffusion.loss) == ("v", "learned_range", "rescaled_mse")


def test_the_network_is_told_steps_of_the_original_process():
    diffusion = respace(GaussianDiffusion.create("linear", 1000), "ddim10")
    assert diffusion.model_timesteps(torch.arange(10)).tolist() == list(range(0, 1000, 100))
    assert diffusion.model_timesteps(torch.tensor([9, 2])).dtype == torch.long


def test_a_respaced_process_can_be_respaced_again():
    full = GaussianDiffusion.create("linear", 1000)
    twice, once = respace(respace(full, "ddim100"), "ddim10"), respace(full, "ddim10")
    assert twice.timesteps.tolist() == once.timesteps.tolist()
    np.testing.assert_allclose(twice.betas, once.betas, rtol=1e-9)


@pytest.mark.parametrize("respacing", ["", "ddim10"])
def test_rescaled_timesteps_are_told_in_thousandths(respacing):
    full = GaussianDiffusion.create("linear", 400, rescale_timesteps=True)
    diffusion = respace(full, respacing)
    told = diffusion.model_timesteps(torch.arange(diffusion.num_timesteps))
    assert_close(told, torch.from_numpy(diffusion.timesteps * 2.5).float())
