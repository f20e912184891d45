"""A layout as the network uses it, computed once per layout: codes, masks, weights per resolution."""

import copy
from collections.abc import Iterable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..data.layout import Layout
from .object_codes import ObjectCodes
from .object_masks import (
    MASK_SIDE,
    WEIGHTS,
    MaskNet,
    at_least_one_pixel,
    box_indicator,
    paste,
    resize_masks,
    smallest_on_top,
)


class Conditioning:
    """A layout as the norms use it.

    codes (B, N+1, D), background last, of the objects, N = O, or with `shared_by` (B, N, O) of their classes: whether
    the object is one of the class; masks (B, O, h, w) at any resolution, 0 outside the boxes and for padding;
    indicator (B, O, H0, W0), the boxes themselves; order (B, O) from topmost to lowest; labels (B, O);
    product (B,), which also enters through the timestep embedding.
    Per-pixel weights are made once per resolution and shared by every norm there, at every sampling step.
    """

    def __init__(self, codes, masks, indicator, order, labels, product, weighting: str, shared_by=None):
        self.codes, self.masks, self.indicator, self.shared_by = codes, masks, indicator, shared_by
        self.order, self.labels, self.product, self.weighting = order, labels, product, weighting
        self._rows: dict[tuple[tuple[int, int], torch.dtype], Tensor] = {}
        self.kept: dict[nn.Module, Tensor] = {}  # norms' projections of the codes, where all steps share them

    def __len__(self) -> int:
        return len(self.codes)

    def weights(self, size: tuple[int, int]) -> Tensor:
        """The share A (B, O+1, H*W) of each object and the background in each pixel of a stage of H x W."""
        return WEIGHTS[self.weighting](resize_masks(self.masks, size), self.order).flatten(2)

    def code_weights(self, size: tuple[int, int]) -> Tensor:
        """The share (B, N+1, H*W) of each code: where objects of a class share one, their sum."""
        weights = self.weights(size)  # B O+1 HW
        if self.shared_by is None:
            return weights
        return torch.cat([self.shared_by.to(weights.dtype) @ weights[:, :-1], weights[:, -1:]], dim=1)

    def rows(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """`code_weights` as the fused norm multiplies with them: (B, R, H*W), computed once per size.

        After the codes' rows comes a row of ones, for what all pixels share, and then zeros up to a multiple of
        8, at least 16: products of fewer rows take up to twice as long.
        """
        if (size, dtype) not in self._rows:
            # Kept out of gradient checkpoints: their second pass finds refined weights ready, the first did not.
            # torch.compile, which knows no such hooks, makes one graph of both.
            kept_out = not torch.compiler.is_compiling()
            with saved_tensors_hooks(_same, _same) if kept_out else nullcontext():
                used = F.pad(self.code_weights(size), (0, 0, 0, 1), value=1.0)  # B N+2 HW
                R = max(16, -(-used.shape[1] // 8) * 8)
                self._rows[size, dtype] = F.pad(used, (0, 0, 0, R - used.shape[1])).to(dtype)
        return self._rows[size, dtype]

    def keep(self, norms: Iterable[tuple[nn.Module, int]]) -> None:
        """Project the codes for each norm now, for all steps of sampling."""
        self.kept = {norm: norm.get_submodule("project")(self.codes) for norm, _ in norms}

    def prepare(self, sizes: Iterable[tuple[int, int]], dtype: torch.dtype | None = None) -> None:
        """Compute the rows of these stages now, in the precision of what they multiply: else of what is kept."""
        dtype = dtype or next(iter(self.kept.values())).dtype
        for size in sizes:
            self.rows(size, dtype)

    def with_masks(self, masks: Tensor) -> "Conditioning":
        other = copy.copy(self)
        other.masks, other._rows = masks, {}
        return other


class LayoutConditioner(nn.Module):
    """Layout -> Conditioning: object codes, and the masks they draw into their boxes."""

    def __init__(self, num_classes: int, num_products: int, z_mode: str, weighting: str):
        super().__init__()
        self.weighting, self.num_classes = weighting, num_classes
        self.object_codes = ObjectCodes(num_classes, num_products, z_mode)
        self.mask_net = MaskNet(self.object_codes.width)

    def forward(self, layout: Layout, size: tuple[int, int], z: Tensor | None = None) -> Conditioning:
        """Condition images of H x W pixels; z (B, O+1, 128) fixes the style draw of `z_mode` prior."""
        H, W = size
        base = max(64, H // 2), max(64, W // 2)  # H0, W0
        codes = self.object_codes(layout, z)  # B O+1 D
        boxes = at_least_one_pixel(layout.boxes, base)
        indicator = box_indicator(boxes, base) * layout.valid[..., None, None]  # B O H0 W0
        masks = paste(self._masks(codes, layout), boxes, base) * indicator  # B O H0 W0
        order = smallest_on_top(layout.boxes, layout.valid)  # B O
        shared_by = None
        if self.object_codes.z_mode == "off" and self.num_classes < layout.num_objects:
            # Without z, objects of a class share a code: what the norms multiply does not grow with the objects.
            codes = self.object_codes.of_classes(codes)  # B K+1 D
            classes = torch.arange(1, self.num_classes + 1, device=codes.device)
            shared_by = layout.labels[:, None] == classes[:, None]  # B K O
        return Conditioning(codes, masks, indicator, order, layout.labels, layout.product, self.weighting, shared_by)

    def _masks(self, codes: Tensor, layout: Layout) -> Tensor:
        B, O = layout.labels.shape
        table = self.object_codes.label_embedding.weight
        if not O:
            return codes.new_zeros(B, 0, MASK_SIDE, MASK_SIDE)
        if self.object_codes.z_mode == "off" and len(table) <= B * O:
            # Without z, objects of a class share a mask: draw each once, none for padding.
            return self.mask_net(table[1:])[(layout.labels - 1).clamp(min=0)]
        return self.mask_net(codes[:, :O].flatten(0, 1)).unflatten(0, (B, O))  # B O M M


class MaskRefinement(nn.Module):
    """LostGAN-v2's refinement of the masks by what a decoder block has drawn (arXiv 2003.11571, section 3.3).

    Next mask = (1 - a) m + a sigmoid(S[label]) box, a = sigmoid(alpha[label]), S one logit map per class.
    """

    def __init__(self, channels: int, num_classes: int, hidden: int = 100):
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.GroupNorm(hidden // 10, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, num_classes + 1, 1),
        )
        self.alpha = nn.Parameter(torch.zeros(num_classes + 1))

    def forward(self, h: Tensor, conditioning: Conditioning) -> Conditioning:
        """Refine the masks by h (B, C, H, W), for the blocks after it."""
        (H, W), labels = h.shape[-2:], conditioning.labels
        logits = self.head(h).float()  # B K+1 H W
        seen = logits.gather(1, labels[:, :, None, None].expand(-1, -1, H, W)).sigmoid()  # B O H W
        a = self.alpha[labels].sigmoid()[..., None, None]  # B O 1 1
        box, masks = (resize_masks(part, (H, W)) for part in (conditioning.indicator, conditioning.masks))  # B O H W
        return conditioning.with_masks((1 - a) * masks + a * seen * box)


def _same(tensor: Tensor) -> Tensor:
    return tensor
