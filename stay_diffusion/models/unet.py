"""The U-Net (arXiv 2105.05233) with layout conditioning in its middle and decoder: assembly only."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..data.layout import Layout
from .blocks import Norm, ResBlock, Upsample
from .conditioning import LayoutConditioner, MaskRefinement
from .isla_norm import IslaNorm
from .layers import GroupNorm32, timestep_embedding, zero_module
from .object_masks import WEIGHTS
from .spade_norm import SemanticConditioner, SpadeNorm
from .stages import StageBuilder

CONDITIONINGS = ("none", "spade", *WEIGHTS)


class UNet(nn.Module):
    """x_t (B, C, H, W), timesteps (B,) and a layout -> (B, C, H, W), or (B, 2C, H, W) with `learn_sigma`.

    A layout of nB images sees every x n times, as guidance does: the output then has nB, and what does not depend on
    the layout is computed once. H and W are multiples of `stride`. Without `class_cond` there is no layout at all; with
    `conditioning` "none" only the product enters, as a class does in guided-diffusion; "spade" is SDM's U-Net.
    """

    conditioner: SemanticConditioner | LayoutConditioner  # only where a layout modulates norms

    def __init__(self, config: ModelConfig, learn_sigma: bool, num_classes: int, num_products: int):
        super().__init__()
        self.model_channels, self.conditioned = config.num_channels, config.class_cond
        self.stride = 2 ** (len(config.channel_multipliers) - 1)
        E = 4 * config.num_channels
        self.time_embed = nn.Sequential(nn.Linear(config.num_channels, E), nn.SiLU(), nn.Linear(E, E))
        if config.class_cond and num_products:
            self.label_emb = nn.Embedding(num_products, E)

        decoder_norm = self._add_conditioner(config, num_classes, num_products)
        decoder = StageBuilder(config, decoder_norm, config.decoder_heads)
        self.input_blocks, skips = StageBuilder(config, GroupNorm32, config.num_heads).encoder()
        self.middle_block = decoder.middle(skips[-1])
        self.output_blocks, widths = decoder.decoder(skips)
        if config.mask_refine and config.layout_kind == "boxes":
            # What the last block draws modulates nothing after it.
            self.mask_refinements = nn.ModuleList(MaskRefinement(width, num_classes) for width in widths[:-1])

        C = config.image_channels * (2 if learn_sigma else 1)
        last_conv = zero_module(nn.Conv2d(widths[-1], C, 3, padding=1))
        self.out = nn.Sequential(GroupNorm32(widths[-1]), nn.SiLU(), last_conv)

    def _add_conditioner(self, config: ModelConfig, num_classes: int, num_products: int) -> Norm:
        """Add the conditioner that the layout needs, and return the decoder's norm."""
        if config.conditioning not in CONDITIONINGS:
            raise ValueError(f"--conditioning {config.conditioning}: choose one of {', '.join(CONDITIONINGS)}")
        if config.layout_kind == "map":
            self.conditioner = SemanticConditioner(num_classes, edges=not config.no_instance)
            return partial(SpadeNorm, map_channels=self.conditioner.channels)
        if config.layout_kind == "boxes":
            self.conditioner = LayoutConditioner(num_classes, num_products, config.z_mode, config.conditioning)
            return partial(IslaNorm, code_width=self.conditioner.object_codes.width)
        return GroupNorm32

    def condition(self, layout: Layout | None, size: tuple[int, int], z: Tensor | None = None):
        """Compute what `forward` needs of a layout: pass the result in its place."""
        if not self.conditioned:
            return None
        assert layout is not None, "a conditional model needs a layout"
        return self.conditioner(layout, size, z) if hasattr(self, "conditioner") else layout

    def modulation(self, layout: Layout | None, size: tuple[int, int], z: Tensor | None = None):
        """Compute the same with all that the norms make of it, once for all steps of sampling."""
        conditioning = self.condition(layout, size, z)
        if hasattr(self, "conditioner"):
            conditioning.keep(self.modulated_norms())
            conditioning.prepare(self._unrefined_sizes(size))
        return conditioning

    def modulated_norms(self) -> Iterator[tuple[nn.Module, int]]:
        """Yield the norms that a layout modulates, each with how many times smaller than the image its x is."""
        downsampling = self.stride
        for stage in (self.middle_block, *self.output_blocks):
            for block in stage:
                if isinstance(block, ResBlock):
                    yield block.in_layers[0], downsampling
                if isinstance(getattr(block, "updown", block), Upsample):
                    downsampling //= 2
                if isinstance(block, ResBlock):
                    yield block.out_layers[0], downsampling

    def _unrefined_sizes(self, size: tuple[int, int]) -> set[tuple[int, int]]:
        """The stages, in pixels, whose norms use a layout's own masks, not refined ones."""
        H, W = size
        refined = hasattr(self, "mask_refinements")
        early = {norm for stage in (self.middle_block, self.output_blocks[0]) for norm in stage.modules()}
        norms = self.modulated_norms()
        return {(H // smaller, W // smaller) for norm, smaller in norms if norm in early or not refined}

    def forward(self, x: Tensor, timesteps: Tensor, layout=None) -> Tensor:
        H, W = x.shape[-2:]
        if H % self.stride or W % self.stride:
            raise ValueError(f"images of {W} x {H} pixels: sides must be multiples of {self.stride}")
        if layout is None or isinstance(layout, Layout):
            layout = self.condition(layout, (H, W))

        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels))  # B E
        num_times = 1 if layout is None else len(layout) // len(x)
        if hasattr(self, "label_emb"):
            x, emb, num_times = repeated(x, num_times), repeated(emb, num_times), 1  # the encoder knows the product
            known = layout.product > 0
            emb = emb + self.label_emb((layout.product - 1).clamp(min=0)) * known[:, None]  # B E

        h, skips = x, []
        for stage in self.input_blocks:
            h = stage(h, emb)  # B C H W, halved level by level
            skips.append(h)
        h, emb, *skips = (repeated(tensor, num_times) for tensor in (h, emb, *skips))  # from here on nB
        if hasattr(self, "conditioner"):
            # Before any block: what a gradient checkpoint or a compiled step changes must lie within it.
            layout.prepare(self._unrefined_sizes((H, W)), h.dtype)
        h = self.middle_block(h, emb, layout)  # nB C H/stride W/stride
        refinements = getattr(self, "mask_refinements", ())
        refined = layout
        for i, stage in enumerate(self.output_blocks):
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, refined)  # nB C H W, doubled level by level
            if i < len(refinements):
                refined = refinements[i](h, layout)  # each from the masks as drawn: those of 8 x 8 have lost the boxes
        return self.out(h)  # nB C H W or nB 2C H W


def repeated(tensor: Tensor, num_times: int) -> Tensor:
    """Repeat the whole batch so many times, one copy after the other."""
    return tensor if num_times == 1 else torch.cat([tensor] * num_times)
