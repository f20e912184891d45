"""SPADE: normalisation modulated by a semantic map (arXiv 1903.07291), as SDM conditions its decoder (2207.00050)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.layout import Layout
from .layers import GroupNorm32, ScaleShift, scale_and_shift

HIDDEN = 128
MOST_KEPT = 4 * 2**30  # bytes of maps that sampling keeps

Modulation = tuple[Tensor, Tensor]  # 1 + gamma and beta, each (B, C, H, W)


class SemanticConditioning:
    """A map as the norms use it: semantics (B, S, H, W), zero everywhere for no condition; product (B,)."""

    def __init__(self, semantics: Tensor, product: Tensor | None = None):
        self.product = product
        self._semantics = {tuple(semantics.shape[-2:]): semantics}
        self._full_size = next(iter(self._semantics))
        self.kept: dict[nn.Module, Modulation] = {}  # where all steps share them

    def __len__(self) -> int:
        return len(self._semantics[self._full_size])

    def at(self, size: tuple[int, int]) -> Tensor:
        """The map (B, S, H, W) at a stage of H x W, nearest; computed once per size."""
        if size not in self._semantics:
            self._semantics[size] = F.interpolate(self._semantics[self._full_size], size=size, mode="nearest")
        return self._semantics[size]

    def prepare(self, sizes: Iterable[tuple[int, int]], dtype: torch.dtype | None = None) -> None:
        """Compute the maps of these stages now."""
        for size in sizes:
            self.at(size)

    def keep(self, norms: Iterable[tuple[nn.Module, int]]) -> None:
        """Compute each norm's maps now, for all steps of sampling, up to MOST_KEPT bytes of them."""
        H, W = self._full_size
        kept_bytes = 0
        for norm, downsampling in norms:
            assert isinstance(norm, SpadeNorm)
            maps = norm.maps(self, (H // downsampling, W // downsampling))
            kept_bytes += sum(map.nbytes for map in maps)
            if kept_bytes > MOST_KEPT:
                break
            self.kept[norm] = maps


class SemanticConditioner(nn.Module):
    """Layout -> SemanticConditioning: its map one-hot, and with `edges` a channel of instance edges."""

    def __init__(self, num_classes: int, edges: bool):
        super().__init__()
        self.num_classes, self.edges = num_classes, edges

    @property
    def channels(self) -> int:
        """S."""
        return self.num_classes + self.edges

    def forward(self, layout: Layout, size: tuple[int, int], z: Tensor | None = None) -> SemanticConditioning:
        if layout.semantic_map is None:
            raise ValueError("--conditioning spade: this layout has boxes only, and a label map is needed")
        labels, edges = layout.semantic_map.long().unbind(1)  # each B H W
        one_hot = torch.zeros(len(labels), self.num_classes + 1, *labels.shape[1:], device=labels.device)  # B K+1 H W
        semantics = one_hot.scatter_(1, labels[:, None], 1)[:, 1:]  # B K H W
        if self.edges:
            semantics = torch.cat([semantics, edges[:, None].float()], dim=1)  # B K+1 H W
        return SemanticConditioning(semantics, layout.product)


class SpadeNorm(nn.Module):
    """GroupNorm(x) * (1 + gamma) + beta, with gamma and beta convolved from the map at x's resolution."""

    def __init__(self, channels: int, map_channels: int):
        super().__init__()
        self.normalise = GroupNorm32(channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(map_channels, HIDDEN, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(HIDDEN, channels, 3, padding=1)

    def forward(self, x: Tensor, conditioning: SemanticConditioning, scale_shift: ScaleShift | None = None) -> Tensor:
        H, W = x.shape[-2:]
        modulation = conditioning.kept[self] if self in conditioning.kept else self.maps(conditioning, (H, W))
        one_plus_gamma, beta = modulation  # each B C H W
        h = torch.addcmul(beta, self.normalise(x), one_plus_gamma)  # GroupNorm(x) * (1 + gamma) + beta
        return scale_and_shift(h, scale_shift)  # B C H W

    def maps(self, conditioning: SemanticConditioning, size: tuple[int, int]) -> Modulation:
        """Convolve 1 + gamma and beta (arXiv 1903.07291, eq. 1) at a stage of H x W."""
        hidden = self.mlp_shared(conditioning.at(size))  # B 128 H W
        return 1 + self.mlp_gamma(hidden), self.mlp_beta(hidden)
