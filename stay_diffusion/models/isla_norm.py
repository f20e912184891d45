"""ISLA-Norm: instance-specific, layout-aware normalisation (arXiv 1908.07500, 2003.11571)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioning import Conditioning
from .layers import GroupNorm32, ScaleShift, format_of, scale_and_shift, zero_module


def isla_norm(x: Tensor, P: Tensor, A: Tensor, scale_shift: ScaleShift | None = None, num_groups: int = 32) -> Tensor:
    """ISLA-Norm of x (B, C, H, W) as the papers write it: GroupNorm(x) * (1 + gamma) + beta.

    gamma and beta are mixed in each pixel over the objects and the background: P (B, O+1, 2C) are their codes,
    projected, A (B, O+1, H*W) their shares. A timestep's scale and shift follow.
    """
    gamma, beta = (P.mT @ A).unflatten(-1, x.shape[2:]).chunk(2, dim=1)  # each B C H W
    h = F.group_norm(x, num_groups) * (1 + gamma) + beta  # B C H W
    return scale_and_shift(h, scale_shift)


class IslaNorm(nn.Module):
    """`isla_norm` by the projection of a Conditioning's codes; fused but in float64, the precision of checks."""

    def __init__(self, channels: int, code_width: int):
        super().__init__()
        self.normalise = GroupNorm32(channels, affine=False)
        self.project = zero_module(nn.Linear(code_width, 2 * channels))

    def forward(self, x: Tensor, conditioning: Conditioning, scale_shift: ScaleShift | None = None) -> Tensor:
        P = conditioning.kept[self] if self in conditioning.kept else self.project(conditioning.codes)  # B O+1 2C
        H, W = x.shape[-2:]
        if x.dtype == torch.float64:
            return isla_norm(x, P, conditioning.code_weights((H, W)), scale_shift, self.normalise.num_groups)
        return fused_isla_norm(x, P, conditioning.rows((H, W), x.dtype), scale_shift, self.normalise.num_groups)


def fused_isla_norm(
    x: Tensor, P: Tensor, A: Tensor, scale_shift: ScaleShift | None = None, num_groups: int = 32
) -> Tensor:
    """`isla_norm` with A (B, R, H*W) of Conditioning.rows: less memory, fewer passes, the same up to rounding.

    Two batched matrix products, P (B, C, R) x A (B, R, HW): nothing of size B x O x C x H x W is built. Of the R rows
    O+1 are objects and background, one is what all pixels share, the 1 and a timestep's scale and shift.
    """
    P_gamma, P_beta = P.mT.chunk(2, dim=1)  # each B C O+1
    scale, shift = scale_shift or (torch.zeros_like(P_gamma[..., 0]),) * 2  # each B C
    scale = (1 + scale)[..., None]  # B C 1
    unused = scale.new_zeros(*P_gamma.shape[:2], A.shape[1] - P_gamma.shape[2] - 1)
    P_gamma = torch.cat([P_gamma * scale, scale, unused], dim=-1).to(x.dtype)  # B C R
    P_beta = torch.cat([P_beta * scale, shift[..., None], unused], dim=-1).to(x.dtype)  # B C R
    return MixAndModulate.apply(x, P_gamma, P_beta, A, num_groups, 1e-5)  # B C H W


class MixAndModulate(torch.autograd.Function):
    """GroupNorm(x) * (P_gamma A) + P_beta A, which keeps no map but x for the backward pass.

    Left to autograd, the normalised x and gamma would be kept too, and below float32 a float32 copy of x: a sixth more
    memory than a network without layout takes. All are cheap to make again.
    """

    @staticmethod
    def forward(ctx, x: Tensor, P_gamma: Tensor, P_beta: Tensor, A: Tensor, num_groups: int, eps: float) -> Tensor:
        x = x.contiguous(memory_format=format_of(x))
        (B, C), size = x.shape[:2], x.shape[2:]
        normalised, mean, rstd = torch.native_group_norm(x, None, None, B, C, size.numel(), num_groups, eps)
        ctx.save_for_backward(x, P_gamma, P_beta, A, mean, rstd)  # mean, rstd: B G
        ctx.num_groups, ctx.eps = num_groups, eps
        modulated = _mixed(P_gamma, A, like=x).mul_(normalised.flatten(2))  # B C HW
        return _mixed(P_beta, A, like=x, onto=modulated).unflatten(2, size)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, P_gamma, P_beta, A, mean, rstd = ctx.saved_tensors
        grad = grad.contiguous(memory_format=format_of(x)).flatten(2)  # B C HW
        (B, C), num_groups = x.shape[:2], ctx.num_groups
        if x.dtype.itemsize < 4:  # they are as coarse as x
            size = x.shape[2:].numel()
            _, mean, rstd = torch.native_group_norm(x.float(), None, None, B, C, size, num_groups, ctx.eps)

        def of_channels(of_groups: Tensor) -> Tensor:
            return of_groups.repeat_interleave(C // num_groups, dim=1)[..., None]  # B G -> B C 1

        mean, rstd = of_channels(mean), of_channels(rstd)
        centred = (x.flatten(2) - mean).to(x.dtype)
        product = centred * grad
        to_P_gamma, to_P_beta = (torch.bmm(product, A.mT) * rstd).to(x.dtype), torch.bmm(grad, A.mT)  # B C R
        scaled = (P_gamma * rstd).to(x.dtype)
        to_A = torch.bmm(scaled.mT, product).baddbmm_(P_beta.mT, grad) if ctx.needs_input_grad[3] else None  # B R HW

        # With n the normalised x and g = gamma grad, x gets (g - mean(g) - n mean(g n)) / deviation, a group's means.
        # Neither mean needs a map: what P_gamma and P_beta get are sums over the pixels already.
        mean_g, mean_gn = (
            of_channels((P_gamma.to(mean) * to_P).view(B, num_groups, -1).sum(dim=2)) * num_groups / x[0].numel()
            for to_P in (to_P_beta, to_P_gamma)
        )
        to_x = _mixed(scaled, A, like=x).mul_(grad)
        to_x.addcmul_(centred, (mean_gn * rstd**2).to(x.dtype), value=-1).sub_((mean_g * rstd).to(x.dtype))
        return to_x.unflatten(2, x.shape[2:]), to_P_gamma, to_P_beta, to_A, None, None


def _mixed(P: Tensor, A: Tensor, like: Tensor, onto: Tensor | None = None) -> Tensor:
    """P (B, C, R) times A (B, R, HW), added to `onto` if there is one -> (B, C, HW), in memory as the map `like` is.

    The product's own memory is contiguous either way: below float32 a CPU adds onto a transposed one in a slow loop.
    """
    if format_of(like) is torch.contiguous_format:
        return torch.bmm(P, A) if onto is None else onto.baddbmm_(P, A)
    return (torch.bmm(A.mT, P.mT) if onto is None else onto.mT.baddbmm_(A.mT, P.mT)).mT
