"""Likelihood terms against torch's distributions and against what a probability must sum to."""

import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from stay_diffusion.diffusion.losses import discretised_gaussian_log_likelihood, normal_kl

GREY_LEVELS = torch.arange(256) / 127.5 - 1


def test_the_divergence_of_normals_is_torch_s():
    mean1, log_variance1, mean2, log_variance2 = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mean1, (0.5 * log_variance1).exp()), Normal(mean2, (0.5 * log_variance2).exp()))
    assert_close(normal_kl(mean1, log_variance1, mean2, log_variance2), expected, rtol=1e-4, atol=1e-5)


def test_the_probabilities_of_all_grey_levels_sum_to_one():
    for mean in (-1.2, -0.99, 0.013, 0.7, 1.0):
        for scale in (0.01, 0.1, 1.0):
            log_p = discretised_gaussian_log_likelihood(GREY_LEVELS, torch.tensor(mean), torch.tensor(scale).log())
            assert_close(log_p.exp().sum(), torch.tensor(1.0), rtol=0, atol=1e-4)


def test_a_grey_level_has_the_mass_of_its_bin():
    scale, mean = torch.tensor(0.05), torch.tensor(0.1)
    normal, inside = Normal(mean, scale), GREY_LEVELS[100:180]
    expected = (normal.cdf(inside + 1 / 255) - normal.cdf(inside - 1 / 255)).log()
    near = (inside - mean).abs() < 2.5 * scale  # the tanh approximation is not meant for tails
    log_p = discretised_gaussian_log_likelihood(inside, mean, scale.log())
    assert_close(log_p[near], expected[near], rtol=0, atol=0.02)


def test_a_hopeless_guess_stays_finite():
    log_p = discretised_gaussian_log_likelihood(GREY_LEVELS, torch.tensor(50.0), torch.tensor(-8.0))
    assert torch.isfinite(log_p).all()
