"""Which steps are trained on, and with what weights."""

import io

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.timestep_sampler import TIMESTEP_SAMPLERS, LossSecondMomentSampler, UniformSampler


def warmed(losses: torch.Tensor, history_per_term: int = 4, **settings) -> LossSecondMomentSampler:
    """A sampler whose every step has seen its loss (T,) `history_per_term` times."""
    sampler = LossSecondMomentSampler(len(losses), history_per_term, **settings)
    for _ in range(history_per_term):
        sampler.update(torch.arange(len(losses)), losses)
    return sampler


def frequencies(t: torch.Tensor, num_timesteps: int) -> np.ndarray:
    return np.bincount(t.numpy(), minlength=num_timesteps) / len(t)


def test_the_flag_s_names_are_those_of_the_predecessors():
    assert set(TIMESTEP_SAMPLERS) == {"uniform", "loss-second-moment"}


@pytest.mark.parametrize("name", TIMESTEP_SAMPLERS)
def test_a_new_sampler_draws_every_step_equally_often_with_weight_1(name):
    torch.manual_seed(0)
    t, weights = TIMESTEP_SAMPLERS[name](10).sample(torch.rand(40_000, dtype=torch.float64))
    assert t.dtype == torch.long and t.shape == weights.shape == (40_000,)
    np.testing.assert_allclose(frequencies(t, 10), 0.1, atol=0.008)
    assert_close(weights, torch.ones(40_000))


def test_uniform_stays_uniform_whatever_the_losses():
    sampler = UniformSampler(3)
    sampler.update(torch.tensor([0, 1, 2]), torch.tensor([1.0, 50.0, 2.0]))
    torch.manual_seed(0)
    np.testing.assert_allclose(
        frequencies(sampler.sample(torch.rand(30_000, dtype=torch.float64))[0], 3), 1 / 3, atol=0.01
    )


def test_it_stays_uniform_until_every_step_has_its_full_history():
    sampler = LossSecondMomentSampler(3, history_per_term=2)
    sampler.update(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([9.0, 9.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(sampler.probabilities(), 1 / 3)
    sampler.update(torch.tensor([2]), torch.tensor([1.0]))
    assert sampler.probabilities()[0] > 0.8


def test_once_warm_the_probability_is_the_root_mean_square_of_the_losses():
    sampler = LossSecondMomentSampler(2, history_per_term=2, uniform_share=0.0)
    sampler.update(torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 7.0, 3.0, 4.0]))
    root = np.sqrt([(1 + 49) / 2, (9 + 16) / 2])
    np.testing.assert_allclose(sampler.probabilities(), root / root.sum())


def test_no_step_is_ever_forgotten():
    p = warmed(torch.tensor([0.0, 0.0, 5.0, 0.0]), uniform_share=0.1).probabilities()
    np.testing.assert_allclose(p, [0.025, 0.025, 0.925, 0.025])
    assert LossSecondMomentSampler(4).uniform_share > 0


def test_losses_that_are_all_zero_leave_it_uniform():
    np.testing.assert_allclose(warmed(torch.zeros(5)).probabilities(), 0.2)


def test_only_the_latest_losses_count():
    sampler = warmed(torch.tensor([100.0, 1.0]), history_per_term=3, uniform_share=0.0)
    sampler.update(torch.tensor([0, 0]), torch.tensor([2.0, 2.0]))
    assert sampler.probabilities()[0] > 0.9  # one 100 is left
    sampler.update(torch.tensor([0]), torch.tensor([2.0]))
    np.testing.assert_allclose(sampler.probabilities(), [2 / 3, 1 / 3])


def test_a_loss_that_is_not_finite_is_not_remembered():
    sampler = warmed(torch.tensor([3.0, 1.0]), uniform_share=0.0)
    sampler.update(torch.tensor([0, 1]), torch.tensor([float("nan"), float("inf")]))
    np.testing.assert_allclose(sampler.probabilities(), [0.75, 0.25])


def test_it_draws_with_the_probabilities_it_states():
    sampler = warmed(torch.tensor([1.0, 2.0, 5.0]))
    torch.manual_seed(0)
    np.testing.assert_allclose(
        frequencies(sampler.sample(torch.rand(40_000, dtype=torch.float64))[0], 3), sampler.probabilities(), atol=0.01
    )


def test_weights_keep_the_mean_loss_unbiased():
    losses = torch.tensor([0.1, 0.5, 2.0, 7.0, 0.02])
    sampler = warmed(losses, uniform_share=0.05)
    torch.manual_seed(0)
    t, weights = sampler.sample(torch.rand(50_000, dtype=torch.float64))
    assert weights.dtype == torch.float32
    assert_close((weights * losses[t]).mean(), losses.mean(), rtol=0.01, atol=0)
    assert_close(weights.double(), torch.from_numpy(1 / (5 * sampler.probabilities()))[t], rtol=1e-6, atol=0)


def test_its_state_comes_back_from_a_file():
    sampler = LossSecondMomentSampler(3, history_per_term=2)
    sampler.update(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    resumed = LossSecondMomentSampler(3, history_per_term=2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for each in (sampler, resumed):
        each.update(torch.tensor([2]), torch.tensor([6.0]))
    assert resumed.probabilities()[0] < 0.25  # warm with that one loss: the five before it were there
    np.testing.assert_array_equal(resumed.probabilities(), sampler.probabilities())


def test_a_uniform_sampler_has_no_state():
    assert UniformSampler(3).state_dict() == {}
    UniformSampler(3).load_state_dict({})
