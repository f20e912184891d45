"""Exponential moving averages of the weights."""

import copy

import torch
from torch import nn

from ..models.unet import UNet


class Ema:
    """One average of a model's weights, itself a model in eval mode.

    The decay warms up as min(rate, (1 + n) / (10 + n)) over updates n, so that a short run is not its own
    initialisation (TensorFlow's ExponentialMovingAverage has the same rule).
    """

    def __init__(self, model: UNet, rate: str):
        self.name, self.rate = f"ema_{rate}", float(rate)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.rate, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
