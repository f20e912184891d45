"""eps, x_start and v stand for one another, in the formulas and in the diffusion."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion
from stay_diffusion.diffusion.prediction import TARGETS, X_START_FROM, eps_from_x_start

T = torch.arange(0, 1000, 100)
X_START, NOISE = torch.randn(2, 10, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["linear", "cosine"])
def diffusion(request):
    return GaussianDiffusion.create(request.param, 1000)


@pytest.fixture
def noised(diffusion):
    """x_t, signal and sigma at steps T."""
    return diffusion.q_sample(X_START, T, NOISE), diffusion.at("signal", T), diffusion.at("sigma", T)


@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
def test_the_clean_image_comes_back_from_every_kind_of_target(noised, prediction):
    x_t, signal, sigma = noised
    target = TARGETS[prediction](X_START, NOISE, signal, sigma)
    assert_close(X_START_FROM[prediction](x_t, target, signal, sigma), X_START, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
def test_the_noise_comes_back_by_way_of_the_clean_image(noised, prediction):
    x_t, signal, sigma = noised
    target = TARGETS[prediction](X_START, NOISE, signal, sigma)
    recovered = X_START_FROM[prediction](x_t, target, signal, sigma)
    assert_close(eps_from_x_start(x_t, recovered, signal, sigma), NOISE, rtol=1e-3, atol=1e-3)


def test_image_and_noise_are_the_noised_image_and_v_turned_by_an_angle(noised):
    x_t, signal, sigma = noised
    v = TARGETS["v"](X_START, NOISE, signal, sigma)
    assert_close(signal * x_t - sigma * v, X_START, rtol=1e-4, atol=1e-5)
    assert_close(sigma * x_t + signal * v, NOISE, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
def test_a_network_that_hits_its_target_has_no_loss_and_sees_the_clean_image(diffusion, noised, prediction):
    x_t, signal, sigma = noised
    target = TARGETS[prediction](X_START, NOISE, signal, sigma)
    diffusion = replace(diffusion, prediction=prediction)
    losses = diffusion.training_losses(lambda x, told: target, X_START, T, NOISE)
    assert losses["loss"].abs().max() == 0
    denoised = diffusion.denoise(target, x_t, T, clip_denoised=False)
    assert_close(denoised, X_START, rtol=1e-3, atol=1e-3)
