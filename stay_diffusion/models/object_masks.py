"""Object codes -> soft masks, pasted into their boxes, and from masks to per-pixel weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASK_SIDE = 16
EPSILON = 1e-6


class MaskNet(nn.Module):
    """LostGAN-v2's mask generator (arXiv 2003.11571) without spectral norm: codes (N, D) -> soft masks (N, M, M)."""

    def __init__(self, code_width: int, channels: int = 256):
        super().__init__()
        self.channels = channels
        self.project = nn.Linear(code_width, channels * 4 * 4)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.InstanceNorm2d(channels), nn.ReLU())
            for _ in range(3)
        )
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, codes: Tensor) -> Tensor:
        h = self.project(codes).view(-1, self.channels, 4, 4)  # N C 4 4
        for i, stage in enumerate(self.stages):
            if i:
                h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
            h = stage(h)
        return self.head(h).float().sigmoid()[:, 0]  # N M M


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Masks (B, O, M, M) stretched over their boxes (B, O, 4) on a canvas (B, O, H, W), zero outside.

    Samples at pixel centres. `align_corners` is LostGAN's convention instead: a canvas from corner to corner.
    """
    B, O, M, _ = masks.shape
    if not O:
        return masks.new_zeros(B, 0, *size)
    xs, ys = (_pixel_positions(n, align_corners, boxes) for n in reversed(size))
    x0, y0, x1, y1 = boxes.reshape(B * O, 4).unbind(-1)
    u = (xs[None] - x0[:, None]) / (x1 - x0)[:, None] * 2 - 1  # BO W
    v = (ys[None] - y0[:, None]) / (y1 - y0)[:, None] * 2 - 1  # BO H
    grid = torch.stack(torch.broadcast_tensors(u[:, None, :], v[:, :, None]), dim=-1)  # BO H W 2
    pasted = F.grid_sample(masks.reshape(B * O, 1, M, M).to(grid.dtype), grid, align_corners=align_corners)
    return pasted.view(B, O, *size)


def box_indicator(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """1 where a pixel's centre lies in the box [x0, x1) x [y0, y1), else 0: boxes (B, O, 4) -> (B, O, H, W)."""
    xs, ys = (_pixel_positions(n, False, boxes) for n in reversed(size))
    x0, y0, x1, y1 = boxes[..., None].unbind(2)  # each B O 1
    inside_x, inside_y = (xs >= x0) & (xs < x1), (ys >= y0) & (ys < y1)  # B O W, B O H
    return (inside_y[..., :, None] & inside_x[..., None, :]).to(boxes.dtype)


def at_least_one_pixel(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Widen boxes about their centres to at least one pixel of the canvas."""
    # A hair more than a pixel: rounding must not leave a box between two pixel centres.
    smallest = boxes.new_tensor([1.001 / size[1], 1.001 / size[0]])
    centre, side = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    half = torch.maximum(side, smallest) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, O, H, W) at a stage's resolution: averaged going down, which loses no small box; bilinear going up."""
    if not masks.shape[1]:
        return masks.new_zeros(*masks.shape[:2], *size)
    height, width = masks.shape[-2:]
    if size[0] < height or size[1] < width:
        masks = F.adaptive_avg_pool2d(masks, (min(size[0], height), min(size[1], width)))
    if masks.shape[-2:] != torch.Size(size):
        masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    return masks


def isla_weights(masks: Tensor, order: Tensor) -> Tensor:
    """LostGAN's normalisation, A_o = m_o / (sum m + eps): masks (B, O, H, W) -> (B, O+1, H, W), background always 0."""
    weights = masks / (masks.sum(dim=1, keepdim=True) + EPSILON)
    return F.pad(weights, (0, 0, 0, 0, 0, 1))


def isla_bg_weights(masks: Tensor, order: Tensor) -> Tensor:
    """Opacity compositing with a background: masks (B, O, H, W) -> weights (B, O+1, H, W) that sum to exactly 1.

    A_o = m_o * product over the objects above o of (1 - m_k); what is left over is the background, last.
    order (B, O): the objects from topmost to lowest.
    """
    B, _, H, W = masks.shape
    stacked = masks.gather(1, order[:, :, None, None].expand(-1, -1, H, W))
    remaining = torch.cat([masks.new_ones(B, 1, H, W), (1 - stacked).cumprod(dim=1)], dim=1)  # B O+1 H W
    composited = remaining[:, :-1] - remaining[:, 1:]  # = m_o * product above, and telescopes to 1 with the rest
    back = order.argsort(dim=1)[:, :, None, None].expand(-1, -1, H, W)
    return torch.cat([composited.gather(1, back), remaining[:, -1:]], dim=1)


WEIGHTS = {"isla": isla_weights, "isla_bg": isla_bg_weights}


def smallest_on_top(boxes: Tensor, valid: Tensor) -> Tensor:
    """Order (B, O) of the objects from topmost to lowest: by area, ties in input order, padding last."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return area.masked_fill(~valid, torch.inf).argsort(dim=1, stable=True)


def _pixel_positions(n: int, align_corners: bool, like: Tensor) -> Tensor:
    if align_corners:
        return torch.linspace(0, 1, n, device=like.device, dtype=like.dtype)
    return (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n
