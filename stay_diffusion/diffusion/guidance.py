"""Classifier-free guidance (arXiv 2207.12598): a model around a model."""

import torch
from torch import Tensor

from .gaussian_diffusion import Model


def classifier_free(model: Model, scale: float, num_channels: int) -> Model:
    """eps_null + scale * (eps_cond - eps_null) on the C mean channels, the variance channels from the conditional pass.

    The guided model takes x (B, C, H, W), t (B,) and a layout of 2B pictures, the B conditional ones and then their
    null, and makes one batched pass: `model` sees each x with both. Scale 1 is the model itself, with a layout of B.
    """
    if scale == 1:
        return model

    def guided(x: Tensor, t: Tensor, layout) -> Tensor:
        conditional, null = model(x, t, layout=layout).chunk(2)
        mean = null[:, :num_channels] + scale * (conditional[:, :num_channels] - null[:, :num_channels])
        return torch.cat([mean, conditional[:, num_channels:]], dim=1)

    return guided
