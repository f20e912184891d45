"""What the diffusion's tests share: a network whose answers are known in closed form."""

import numpy as np
import pytest
import torch

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion


def _optimal_network(full: GaussianDiffusion, mean=0.0, std=0.0, variance_output=None):
    """network(x_t, told) that predicts best for data N(mean, std^2); std 0 is a data set of the one image `mean`.

    It knows the noise level only by what it is told, in steps of `full`, and works in float64. `variance_output(step)`
    gives its variance channels where they are learned (default -1: the posterior's variance, the one-image optimum).
    """
    alphas_cumprod = torch.from_numpy(np.cumprod(1 - full.betas))

    def network(x_t, told):
        step = (told * full.num_original_steps / 1000).round() if full.rescale_timesteps else told
        a = alphas_cumprod[step.long()].view(-1, 1, 1, 1)
        signal, sigma, x_t = a.sqrt(), (1 - a).sqrt(), x_t.double()
        x_start = mean + signal * std**2 / (a * std**2 + 1 - a) * (x_t - signal * mean)
        eps = (x_t - signal * x_start) / sigma
        output = {"eps": eps, "x_start": x_start, "v": signal * eps - sigma * x_start}[full.prediction]
        if full.variance == "learned_range":
            share = -torch.ones_like(a) if variance_output is None else variance_output(step.long()).view(-1, 1, 1, 1)
            output = torch.cat([output, share.expand_as(output)], dim=1)
        return output.float()

    return network


@pytest.fixture(scope="session")
def optimal_network():
    return _optimal_network
