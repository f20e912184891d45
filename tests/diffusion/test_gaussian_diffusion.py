"""q, p and the training losses: what holds for any network."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wavy(x_t, told):
    return 0.6 * x_t + 0.3 * torch.sin(3 * x_t)


def wavy_with_variance(x_t, told):
    return torch.cat([wavy(x_t, told), 0.5 * torch.cos(2 * x_t)], dim=1)


# q


def test_noise_and_image_are_mixed_to_the_step_s_mean_and_variance():
    diffusion, t = GaussianDiffusion.create("linear", 1000), torch.tensor([0, 300, 999])
    x_t = diffusion.q_sample(torch.full((3, 1, 100, 100), 0.8), t, draw(3, 1, 100, 100))
    a = torch.from_numpy(diffusion.tables["alphas_cumprod"])[t].float()
    assert_close(x_t.mean(dim=(1, 2, 3)), 0.8 * a.sqrt(), rtol=0, atol=0.04)
    assert_close(x_t.var(dim=(1, 2, 3)), 1 - a, rtol=0.05, atol=0)


@pytest.mark.parametrize("respacing", ["", "10", "logsnr7"])
def test_the_posterior_follows_from_bayes_rule(respacing):
    """q(x_{t-1} | x_t, x_0) ~ q(x_t | x_{t-1}) q(x_{t-1} | x_0): precisions add, means are weighted by them."""
    diffusion = respace(GaussianDiffusion.create("cosine", 100), respacing)
    x_start, x_t = 0.3, -0.7
    for step in range(1, diffusion.num_timesteps):
        t, beta = torch.tensor([step]), diffusion.betas[step]
        a = diffusion.tables["alphas_cumprod"][step - 1]
        forward, prior = (1 - beta) / beta, 1 / (1 - a)
        mean = (forward * x_t / np.sqrt(1 - beta) + prior * np.sqrt(a) * x_start) / (forward + prior)
        actual = diffusion.q_posterior_mean(torch.full((1, 1, 1, 1), x_start), torch.full((1, 1, 1, 1), x_t), t)
        assert_close(actual.item(), float(mean), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(diffusion.tables["posterior_variance"][step], 1 / (forward + prior), rtol=1e-7)


# p


@pytest.mark.parametrize("clip, x_start", [(True, 1.0), (False, 3.0)])
def test_clip_denoised_clamps_the_clean_image_and_the_mean_that_follows(clip, x_start):
    diffusion, t = GaussianDiffusion.create("linear", 100, prediction="x_start"), torch.tensor([40])
    x_t = draw(1, 3, 4, 4)
    p = diffusion.p_mean_variance(torch.full_like(x_t, 3.0), x_t, t, clip_denoised=clip)
    assert_close(p.x_start, torch.full_like(x_t, x_start))
    assert_close(p.mean, diffusion.q_posterior_mean(torch.full_like(x_t, x_start), x_t, t))


@pytest.mark.parametrize("num_channels", [1, 3, 4])
def test_the_variance_half_is_parted_by_the_image_s_channels(num_channels):
    diffusion, x_t = GaussianDiffusion.create("linear", 100, variance="learned_range"), draw(2, num_channels, 4, 4)
    mean_output, variance_output = diffusion.split(torch.cat([x_t, 5 + x_t], dim=1), x_t)
    assert_close(mean_output, x_t)
    assert_close(variance_output, 5 + x_t)


@pytest.mark.parametrize("variance, num_outputs", [("learned_range", 3), ("fixed_small", 6)])
def test_a_network_with_other_channels_than_the_diffusion_s_is_refused(variance, num_outputs):
    diffusion = GaussianDiffusion.create("linear", 100, variance=variance)
    with pytest.raises(AssertionError, match="learn_sigma"):
        diffusion.split(draw(1, num_outputs, 4, 4), draw(1, 3, 4, 4))


@pytest.mark.parametrize("share, name", [(-1.0, "posterior_log_variance_clipped"), (1.0, "log_betas")])
def test_a_learned_variance_spans_the_posterior_s_to_beta(share, name):
    diffusion, t = GaussianDiffusion.create("linear", 100, variance="learned_range"), torch.tensor([0, 1, 50, 99])

    x_t = draw(4, 1, 2, 2)
    p = diffusion.p_mean_variance(torch.cat([x_t, torch.full_like(x_t, share)], dim=1), x_t, t)
    assert_close(p.log_variance, diffusion.at(name, t).expand(4, 1, 2, 2))
    assert_close(p.variance, p.log_variance.exp())


def test_fixed_variances_are_the_posterior_s_and_beta():
    t, x_t = torch.tensor([1, 50, 99]), draw(3, 1, 2, 2)
    small, large = (GaussianDiffusion.create("linear", 100, variance=name) for name in ("fixed_small", "fixed_large"))
    assert_close(small.p_mean_variance(wavy(x_t, t), x_t, t).variance, small.at("posterior_variance", t).expand_as(x_t))
    assert_close(large.p_mean_variance(wavy(x_t, t), x_t, t).log_variance, large.at("log_betas", t).expand_as(x_t))


@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
def test_half_precision_outputs_are_worked_on_in_float32(prediction):
    diffusion = GaussianDiffusion.create("linear", 100, prediction=prediction, variance="learned_range")
    output, x_t, t = draw(1, 6, 4, 4).bfloat16(), draw(1, 3, 4, 4), torch.tensor([99])
    half, full = (diffusion.p_mean_variance(o, x_t, t) for o in (output, output.float()))
    for name in ("mean", "variance", "log_variance", "x_start"):
        assert torch.equal(getattr(half, name), getattr(full, name)) and getattr(half, name).dtype == torch.float32


# Training losses


def losses_of(loss: str, variance: str = "learned_range", num_steps: int = 200, **settings):
    diffusion = GaussianDiffusion.create("linear", num_steps, variance=variance, loss=loss, **settings)
    network = wavy_with_variance if variance == "learned_range" else wavy
    t = torch.tensor([0, 1, 100, 199])
    return diffusion.training_losses(network, 0.3 * draw(4, 3, 4, 4), t, draw(4, 3, 4, 4, seed=1))


def test_the_loss_is_the_sum_of_its_terms():
    for loss in ("mse", "rescaled_mse"):
        terms = losses_of(loss)
        assert set(terms) == {"loss", "mse", "vb"} and terms["loss"].shape == (4,)
        assert_close(terms["loss"], terms["mse"] + terms["vb"])
    assert set(losses_of("mse", variance="fixed_large")) == {"loss", "mse"}


def test_rescaled_mse_weighs_the_bound_by_a_thousandth_of_the_steps():
    assert_close(losses_of("rescaled_mse")["vb"], losses_of("mse")["vb"] * 0.2)
    assert_close(losses_of("rescaled_mse")["mse"], losses_of("mse")["mse"])


def test_rescaled_kl_is_the_bound_times_the_steps():
    assert_close(losses_of("rescaled_kl")["loss"], losses_of("mse")["vb"] * 200)


def test_the_bound_teaches_the_variance_and_not_the_mean():
    diffusion = GaussianDiffusion.create("linear", 200, variance="learned_range")
    output = (0.1 * draw(4, 6, 4, 4)).requires_grad_()
    t, x_start = torch.tensor([0, 1, 100, 199]), 0.3 * draw(4, 3, 4, 4)
    terms = diffusion.training_losses(lambda x, told: output, x_start, t, draw(4, 3, 4, 4, seed=1))
    bound_grad, mse_grad = (torch.autograd.grad(terms[n].sum(), output, retain_graph=True)[0] for n in ("vb", "mse"))
    assert bound_grad[:, :3].abs().max() == 0 and (bound_grad[:, 3:].abs().amax(dim=(1, 2, 3)) > 0).all()
    assert mse_grad[:, 3:].abs().max() == 0 and (mse_grad[:, :3].abs().amax(dim=(1, 2, 3)) > 0).all()


def test_rescaled_kl_teaches_the_mean_too():
    diffusion = GaussianDiffusion.create("linear", 200, variance="learned_range", loss="rescaled_kl")
    output = (0.1 * draw(2, 6, 4, 4)).requires_grad_()
    t, x_start = torch.tensor([0, 100]), 0.3 * draw(2, 3, 4, 4)
    diffusion.training_losses(lambda x, told: output, x_start, t, draw(2, 3, 4, 4, seed=1))["loss"].sum().backward()
    assert (output.grad[:, :3].abs().amax(dim=(1, 2, 3)) > 0).all()


def test_a_network_that_knows_the_image_has_no_divergence(optimal_network):
    image = 0.5 * draw(1, 1, 4, 4).clamp(-1, 1)
    diffusion = GaussianDiffusion.create("linear", 200, variance="fixed_small")
    t = torch.arange(1, 200)
    x_start = image.expand(199, 1, 4, 4)
    x_t = diffusion.q_sample(x_start, t, draw(199, 1, 4, 4))
    output = optimal_network(diffusion, image)(x_t, diffusion.model_timesteps(t))
    assert diffusion.vb_terms(output, x_start, x_t, t).abs().max() < 1e-4


def test_training_makes_one_network_call_at_the_told_steps_with_the_keywords():
    diffusion, calls = respace(GaussianDiffusion.create("linear", 1000), "ddim10"), []

    def network(x_t, told, layout):
        calls.append((told.tolist(), layout))
        return x_t

    x_start, t = draw(2, 1, 4, 4), torch.tensor([9, 2])
    diffusion.training_losses(network, x_start, t, draw(2, 1, 4, 4), model_kwargs={"layout": "the layout"})
    assert calls == [([900, 200], "the layout")]


def test_the_prior_term_is_what_the_last_step_leaves_of_the_image():
    x_start = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    short = GaussianDiffusion(np.array([0.1, 0.5]), np.arange(2), 2)
    a = 0.9 * 0.5  # x_2 ~ N(sqrt(a) x_0, 1 - a)
    nats = 0.5 * (a * x_start.flatten() ** 2 + (1 - a) - 1 - np.log(1 - a))
    assert_close(short.prior_bpd(x_start), nats / np.log(2))
    assert GaussianDiffusion.create("linear", 1000).prior_bpd(x_start).max() < 1e-4
