"""Predictions: noise, the clean image or v, each turned into the clean image.

With a = alpha_bar_t: x_t = sqrt(a) x_start + sqrt(1 - a) noise, and v = sqrt(a) noise - sqrt(1 - a) x_start
(arXiv 2202.00512). All arguments are tensors that broadcast against x_t (B, C, H, W).
"""

from torch import Tensor


def x_start_from_eps(x_t: Tensor, eps: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    return (x_t - sigma * eps) / signal


def x_start_from_x_start(x_t: Tensor, x_start: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    return x_start


def x_start_from_v(x_t: Tensor, v: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    return signal * x_t - sigma * v


def eps_from_x_start(x_t: Tensor, x_start: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    return (x_t - signal * x_start) / sigma


def v_from(x_start: Tensor, noise: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    return signal * noise - sigma * x_start


X_START_FROM = {"eps": x_start_from_eps, "x_start": x_start_from_x_start, "v": x_start_from_v}

TARGETS = {
    "eps": lambda x_start, noise, signal, sigma: noise,
    "x_start": lambda x_start, noise, signal, sigma: x_start,
    "v": v_from,
}
