"""Likelihood terms, in nats and element by element."""

import math

import torch
from torch import Tensor


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, exp(log_variance1)) || N(mean2, exp(log_variance2))), broadcast element by element, in nats."""
    ratio = torch.exp(log_variance1 - log_variance2)
    distance = (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    return 0.5 * (-1.0 + log_variance2 - log_variance1 + ratio + distance)


def approx_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal's distribution function, which published figures rest on."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretised_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of 8-bit pixels scaled to [-1, 1] under a Gaussian integrated over each grey level's bin."""
    centred, inverse_scale = x - mean, torch.exp(-log_scale)
    upper = approx_normal_cdf(inverse_scale * (centred + 1.0 / 255.0))
    lower = approx_normal_cdf(inverse_scale * (centred - 1.0 / 255.0))
    floor = 1e-12
    inside = torch.log((upper - lower).clamp(min=floor))
    return torch.where(
        x < -0.999,
        torch.log(upper.clamp(min=floor)),
        torch.where(x > 0.999, torch.log((1.0 - lower).clamp(min=floor)), inside),
    )
