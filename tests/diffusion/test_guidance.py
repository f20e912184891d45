"""Classifier-free guidance: a model around a model."""

import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.guidance import classifier_free, guided_timesteps
from stay_diffusion.diffusion.samplers import SAMPLERS


class Network:
    """Answers with `layout` * (x, and if variance is learned 2 x) + t, and counts its calls."""

    def __init__(self, learns_variance: bool = False):
        self.learns_variance, self.batches = learns_variance, []

    def __call__(self, x, t, layout):
        num_times = len(layout) // len(x)
        x, t = x.repeat(num_times, 1, 1, 1), t.repeat(num_times)
        self.batches.append(len(x))
        x = torch.cat([x, 2 * x], dim=1) if self.learns_variance else x
        return layout.view(-1, 1, 1, 1) * x + t.view(-1, 1, 1, 1)


CONDITIONAL, NULL = torch.tensor([5.0, 7.0]), torch.tensor([2.0, 3.0])
LAYOUT = torch.cat([CONDITIONAL, NULL])
T = torch.tensor([10, 20])


def images(num_channels: int) -> torch.Tensor:
    return torch.randn(2, num_channels, 4, 4, generator=torch.Generator().manual_seed(0))


def test_scale_1_is_the_model_itself():
    network = Network()
    assert classifier_free(network, 1, num_channels=3) is network
    assert classifier_free(network, 1.0, num_channels=1) is network


@pytest.mark.parametrize("learns_variance", [False, True])
@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_the_mean_goes_from_null_past_the_conditional_by_the_scale(scale, num_channels, learns_variance):
    x = images(num_channels)
    output = classifier_free(Network(learns_variance), scale, num_channels)(x, T, layout=LAYOUT)
    conditional, null = CONDITIONAL.view(2, 1, 1, 1) * x, NULL.view(2, 1, 1, 1) * x
    expected = (1 - scale) * null + scale * conditional + T.view(2, 1, 1, 1)
    assert_close(output[:, :num_channels], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_the_variance_comes_from_the_conditional_pass_alone(num_channels):
    x = images(num_channels)
    output = classifier_free(Network(learns_variance=True), 3.0, num_channels)(x, T, layout=LAYOUT)
    assert output.shape[1] == 2 * num_channels
    assert_close(output[:, num_channels:], CONDITIONAL.view(2, 1, 1, 1) * 2 * x + T.view(2, 1, 1, 1))


def test_conditional_and_null_share_one_batched_pass():
    network = Network()
    classifier_free(network, 2.0, num_channels=3)(images(3), T, layout=LAYOUT)
    assert network.batches == [4]


@pytest.mark.parametrize("scale, batch, layout", [(1.0, 2, CONDITIONAL), (2.0, 4, LAYOUT)])
@pytest.mark.parametrize("sampler, calls", [("ddpm", 5), ("ddim", 5), ("dpmpp_2m", 5), ("heun", 9)])
def test_a_sampler_makes_one_pass_per_look_at_the_image(sampler, calls, scale, batch, layout):
    diffusion, network, x = respace(GaussianDiffusion.create("linear", 1000), "5"), Network(), images(3)
    guided = classifier_free(network, scale, num_channels=3)
    SAMPLERS[sampler](diffusion, guided, x, lambda: torch.zeros_like(x), model_kwargs={"layout": layout})
    assert network.batches == [batch] * calls


def test_equal_conditional_and_null_answers_make_the_scale_immaterial():
    x, layout = images(1), torch.cat([CONDITIONAL, CONDITIONAL])
    guided = classifier_free(Network(), 7.0, num_channels=1)(x, T, layout=layout)
    assert_close(guided, Network()(x, T, CONDITIONAL))


def process(**settings) -> GaussianDiffusion:
    """Ten steps, which are told by other numbers than their own, rescaled by others again."""
    return respace(GaussianDiffusion.create("linear", 500, **settings), "10")


def levels_of(diffusion: GaussianDiffusion) -> list[float]:
    return (diffusion.tables["sigma"] / diffusion.tables["signal"]).tolist()


def passes(interval, sampler="ddim", **settings) -> list[int]:
    """The batches that a network sees from the last step to the first."""
    diffusion, network, x = process(**settings), Network(), images(3)
    guided = classifier_free(network, 2.0, 3, guided_timesteps(diffusion, interval))
    kwargs = {"layout": LAYOUT, "alone": CONDITIONAL}
    SAMPLERS[sampler](diffusion, guided, x, lambda: torch.zeros_like(x), model_kwargs=kwargs)
    return network.batches


@pytest.mark.parametrize("settings", [{}, {"rescale_timesteps": True}])
def test_an_interval_guides_the_steps_of_its_noise_levels_with_both_ends(settings):
    levels = levels_of(process(**settings))
    assert passes((levels[3], levels[6]), **settings) == [2] * 3 + [4] * 4 + [2] * 3
    assert passes((levels[3] * 1.01, levels[6] * 0.99), **settings) == [2] * 4 + [4] * 2 + [2] * 4


def test_heun_is_guided_by_the_level_of_each_of_its_two_looks():
    levels = levels_of(process())
    assert passes((levels[9], levels[9]), "heun") == [4] + [2] * 18
    assert passes((levels[8], levels[8]), "heun") == [2, 4, 4] + [2] * 16


@pytest.mark.parametrize("step", [2, 7])
def test_outside_its_interval_guidance_is_the_conditional_pass(step):
    diffusion, network, x = process(), Network(), images(1)
    t = diffusion.model_timesteps(torch.full((2,), step))
    guided = classifier_free(network, 3.0, num_channels=1)
    levels = levels_of(diffusion)
    chosen = classifier_free(network, 3.0, 1, guided_timesteps(diffusion, (levels[5], levels[9])))
    expected = guided(x, t, LAYOUT) if step == 7 else network(x, t, CONDITIONAL)
    assert torch.equal(chosen(x, t, layout=LAYOUT, alone=CONDITIONAL), expected)
