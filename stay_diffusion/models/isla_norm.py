"""ISLA-Norm: instance-specific, layout-aware normalisation (arXiv 1908.07500, 2003.11571)."""

import torch
from torch import Tensor, nn

from .conditioning import Conditioning
from .layers import GroupNorm32, ScaleShift, zero_module


class IslaNorm(nn.Module):
    """GroupNorm(x) * (1 + gamma) + beta, with gamma and beta mixed per pixel over the objects' projected codes.

    Two batched matrix products, P (B, C, R) x A (B, R, HW): nothing of size B x O x C x H x W is built. Of the R rows
    O+1 are objects and background, one is what all pixels share, the 1 and a timestep's scale and shift.
    """

    def __init__(self, channels: int, code_width: int):
        super().__init__()
        self.normalise = GroupNorm32(channels, affine=False)
        self.project = zero_module(nn.Linear(code_width, 2 * channels))

    def forward(self, x: Tensor, conditioning: Conditioning, scale_shift: ScaleShift | None = None) -> Tensor:
        P = conditioning.kept[self] if self in conditioning.kept else self.project(conditioning.codes)  # B O+1 2C
        P_gamma, P_beta = P.mT.chunk(2, dim=1)  # each B C O+1
        scale, shift = scale_shift or (torch.zeros_like(P_gamma[..., 0]),) * 2  # each B C
        scale = (1 + scale)[..., None]  # B C 1
        A = conditioning.rows(tuple(x.shape[-2:]), x.dtype)  # B R HW
        unused = scale.new_zeros(*P_gamma.shape[:2], A.shape[1] - P_gamma.shape[2] - 1)
        P_gamma = torch.cat([P_gamma * scale, scale, unused], dim=-1).to(x.dtype)  # B C R
        P_beta = torch.cat([P_beta * scale, shift[..., None], unused], dim=-1).to(x.dtype)  # B C R
        return MixAndModulate.apply(x, P_gamma, P_beta, A, self.normalise.num_groups, self.normalise.eps)


class MixAndModulate(torch.autograd.Function):
    """GroupNorm(x) * (P_gamma A) + P_beta A, which keeps no map but x for the backward pass.

    Left to autograd, the normalised x and gamma would be kept too, and below float32 a float32 copy of x: a sixth more
    memory than a network without layout takes. All are cheap to make again.
    """

    @staticmethod
    def forward(ctx, x: Tensor, P_gamma: Tensor, P_beta: Tensor, A: Tensor, num_groups: int, eps: float) -> Tensor:
        x = x.contiguous()
        normalised, _, _ = _group_norm(x, num_groups, eps)
        ctx.save_for_backward(x, P_gamma, P_beta, A)
        ctx.num_groups, ctx.eps = num_groups, eps
        gamma, beta = (torch.bmm(P, A).view_as(x) for P in (P_gamma, P_beta))  # each B C H W
        return beta.addcmul_(normalised, gamma)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, P_gamma, P_beta, A = ctx.saved_tensors
        B, C, H, W = x.shape
        grad = grad.reshape(B, C, H * W)
        normalised, mean, rstd = _group_norm(x.float(), ctx.num_groups, ctx.eps)
        to_gamma = normalised.to(x.dtype).view(B, C, H * W).mul_(grad)  # B C HW
        to_P_gamma, to_P_beta = torch.bmm(to_gamma, A.mT), torch.bmm(grad, A.mT)
        to_A = None
        if ctx.needs_input_grad[3]:
            to_A = torch.bmm(P_gamma.mT, to_gamma).baddbmm_(P_beta.mT, grad)  # B O+2 HW
        to_normalised = torch.bmm(P_gamma, A, out=to_gamma).mul_(grad).float()
        to_x, _, _ = torch.ops.aten.native_group_norm_backward(
            to_normalised.view_as(x), x.float(), mean, rstd, None, B, C, H * W, ctx.num_groups, [True, False, False]
        )
        return to_x.to(x.dtype), to_P_gamma, to_P_beta, to_A, None, None


def _group_norm(x: Tensor, num_groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised x (B, C, H, W), and each group's mean and 1 / deviation (B, G); summed in float32 whatever x is in."""
    B, C, H, W = x.shape
    return torch.native_group_norm(x, None, None, B, C, H * W, num_groups, eps)
