"""ISLA-Norm: instance-specific, layout-aware normalisation (arXiv 1908.07500, 2003.11571)."""

from torch import Tensor, nn

from .conditioning import Conditioning
from .layers import GroupNorm32, zero_module


class IslaNorm(nn.Module):
    """GroupNorm(x) * (1 + gamma) + beta, with gamma and beta mixed per pixel over the objects' projected codes.

    One batched matrix product, P^T (B, 2C, O+1) x A (B, O+1, HW): nothing of size B x O x C x H x W is built.
    """

    def __init__(self, channels: int, code_width: int):
        super().__init__()
        self.normalise = GroupNorm32(channels, affine=False)
        self.project = zero_module(nn.Linear(code_width, 2 * channels))

    def forward(self, x: Tensor, conditioning: Conditioning) -> Tensor:
        size = tuple(x.shape[-2:])
        P = self.project(conditioning.codes)  # B O+1 2C
        A = conditioning.weights(size)  # B O+1 HW
        gamma, beta = (P.mT @ A.to(P.dtype)).unflatten(-1, size).chunk(2, dim=1)  # each B C H W
        return self.normalise(x) * (1 + gamma) + beta
