"""The U-Net (arXiv 2105.05233) with layout conditioning in its middle and decoder: assembly only."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from ..data.layout import Layout
from .blocks import AttentionBlock, Downsample, ResBlock, Stage, Upsample
from .conditioning import LayoutConditioner, MaskRefinement
from .isla_norm import IslaNorm
from .layers import GroupNorm32, timestep_embedding, zero_module
from .object_masks import WEIGHTS
from .spade_norm import SemanticConditioner, SpadeNorm

CONDITIONINGS = ("none", "spade", *WEIGHTS)


class UNet(nn.Module):
    """x_t (B, C, H, W), told timesteps (B,) and a layout -> (B, C, H, W), or (B, 2C, H, W) with `learn_sigma`.

    A layout of nB pictures sees every x n times, as guidance does: the output then has nB, and what does not depend on
    the layout is worked out once. H and W are multiples of `stride`. `config` is a config.ModelConfig. Without
    `class_cond` there is no layout at all; with `conditioning` "none" only the product enters, as a class does in
    guided-diffusion; "spade" is SDM's U-Net.
    """

    def __init__(self, config, learn_sigma: bool, num_classes: int, num_products: int):
        super().__init__()
        self.model_channels = width = config.num_channels
        self.conditioned = config.class_cond
        weighting = config.conditioning if config.class_cond else "none"
        if weighting not in CONDITIONINGS:
            raise ValueError(f"--conditioning {weighting}: choose one of {', '.join(CONDITIONINGS)}")
        embed_width = 4 * width
        multipliers = config.channel_multipliers
        self.stride = 2 ** (len(multipliers) - 1)

        self.time_embed = nn.Sequential(nn.Linear(width, embed_width), nn.SiLU(), nn.Linear(embed_width, embed_width))
        if config.class_cond and num_products:
            self.label_emb = nn.Embedding(num_products, embed_width)
        decoder_norm = GroupNorm32
        if weighting == "spade":
            self.conditioner = SemanticConditioner(num_classes, edges=not config.no_instance)
            decoder_norm = partial(SpadeNorm, map_channels=self.conditioner.channels)
        elif weighting != "none":
            self.conditioner = LayoutConditioner(num_classes, num_products, config.z_mode, weighting)
            decoder_norm = partial(IslaNorm, code_width=self.conditioner.object_codes.width)

        res_block = partial(
            ResBlock,
            embed_width=embed_width,
            dropout=config.dropout,
            scale_shift=config.use_scale_shift_norm,
            use_checkpoint=config.use_checkpoint,
        )

        def attention(channels: int, num_heads: int) -> AttentionBlock:
            heads = config.heads_of(channels, num_heads)
            return AttentionBlock(channels, heads, config.use_new_attention_order, config.use_checkpoint)

        # Encoder
        channels = int(multipliers[0] * width)
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(config.image_channels, channels, 3, padding=1))])
        skips, downsampling = [channels], 1
        for level, multiplier in enumerate(multipliers):
            for _ in range(config.num_res_blocks):
                stage = [res_block(channels, out_channels=int(multiplier * width))]
                channels = int(multiplier * width)
                if downsampling in config.attention_downsamplings:
                    stage.append(attention(channels, config.num_heads))
                self.input_blocks.append(Stage(*stage))
                skips.append(channels)
            if level < len(multipliers) - 1:
                down = (
                    res_block(channels, out_channels=channels, updown=Downsample(channels, conv=False))
                    if config.resblock_updown
                    else Downsample(channels)
                )
                self.input_blocks.append(Stage(down))
                skips.append(channels)
                downsampling *= 2

        # Middle
        self.middle_block = Stage(
            res_block(channels, out_channels=channels, norm=decoder_norm),
            attention(channels, config.num_heads),
            res_block(channels, out_channels=channels, norm=decoder_norm),
        )

        # Decoder
        self.output_blocks = nn.ModuleList()
        refine_channels = []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(config.num_res_blocks + 1):
                stage = [res_block(channels + skips.pop(), out_channels=int(multiplier * width), norm=decoder_norm)]
                channels = int(multiplier * width)
                if downsampling in config.attention_downsamplings:
                    stage.append(attention(channels, config.decoder_heads))
                if level and i == config.num_res_blocks:
                    stage.append(
                        res_block(
                            channels, out_channels=channels, norm=decoder_norm, updown=Upsample(channels, conv=False)
                        )
                        if config.resblock_updown
                        else Upsample(channels)
                    )
                    downsampling //= 2
                self.output_blocks.append(Stage(*stage))
                refine_channels.append(channels)

        if config.mask_refine and weighting in WEIGHTS:
            # What the last block draws modulates nothing after it.
            self.mask_refinements = nn.ModuleList(MaskRefinement(c, num_classes) for c in refine_channels[:-1])

        out_channels = config.image_channels * (2 if learn_sigma else 1)
        self.out = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), zero_module(nn.Conv2d(channels, out_channels, 3, padding=1))
        )

    def condition(self, layout: Layout | None, size: tuple[int, int], z: Tensor | None = None):
        """What `forward` needs of a layout: pass the result in its place."""
        if not self.conditioned:
            return None
        assert layout is not None, "a conditional model needs a layout"
        return self.conditioner(layout, tuple(size), z) if hasattr(self, "conditioner") else layout

    def modulation(self, layout: Layout | None, size: tuple[int, int], z: Tensor | None = None):
        """The same with all that the norms make of it, worked out once for all steps of sampling."""
        conditioning = self.condition(layout, size, z)
        if hasattr(self, "conditioner"):
            conditioning.keep(self.modulated_norms())
            conditioning.prepare(self._unrefined_sizes(size))
        return conditioning

    def modulated_norms(self) -> Iterator[tuple[nn.Module, int]]:
        """The norms that a layout modulates, each with how many times smaller than the picture its x is."""
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
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ValueError(
                f"images of {x.shape[-1]} x {x.shape[-2]} pixels: sides must be multiples of {self.stride}"
            )
        if layout is None or isinstance(layout, Layout):
            layout = self.condition(layout, x.shape[-2:])

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
            layout.prepare(self._unrefined_sizes(x.shape[-2:]), h.dtype)
        h = self.middle_block(h, emb, layout)
        refinements = getattr(self, "mask_refinements", ())
        refined = layout
        for i, stage in enumerate(self.output_blocks):
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, refined)
            if i < len(refinements):
                refined = refinements[i](h, layout)  # each from the masks as drawn: those of 8 x 8 have lost the boxes
        return self.out(h)  # nB C H W or nB 2C H W


def repeated(tensor: Tensor, num_times: int) -> Tensor:
    """The whole batch so many times, one after the other."""
    return tensor if num_times == 1 else torch.cat([tensor] * num_times)
