"""The U-Net's stages, built from a config.ModelConfig: encoder, middle and decoder, each a list of blocks."""

from dataclasses import dataclass

from torch import nn

from ..config import ModelConfig
from .blocks import AttentionBlock, Downsample, Norm, ResBlock, Stage, Upsample


@dataclass(frozen=True)
class StageBuilder:
    """Builds stages whose residual blocks have `norm` and whose attention has `num_heads` heads."""

    config: ModelConfig
    norm: Norm
    num_heads: int

    def res_block(self, channels: int, out_channels: int, updown: nn.Module | None = None) -> ResBlock:
        config = self.config
        return ResBlock(
            channels,
            4 * config.num_channels,
            out_channels,
            self.norm,
            config.dropout,
            config.use_scale_shift_norm,
            updown,
            config.use_checkpoint,
        )

    def attention(self, channels: int, num_heads: int) -> AttentionBlock:
        heads = self.config.heads_of(channels, num_heads)
        return AttentionBlock(channels, heads, self.config.use_new_attention_order, self.config.use_checkpoint)

    def resample(self, channels: int, kind: type[Downsample] | type[Upsample]) -> nn.Module:
        """Resample by a convolution, or inside a residual block (BigGAN, as in arXiv 2105.05233)."""
        if self.config.resblock_updown:
            return self.res_block(channels, channels, updown=kind(channels, conv=False))
        return kind(channels)

    def blocks(self, channels: int, level: int) -> list[nn.Module]:
        """A residual block from so many channels to the level's own, and attention where the level has it."""
        out_channels = self.width_of(level)
        blocks: list[nn.Module] = [self.res_block(channels, out_channels)]
        if 2**level in self.config.attention_downsamplings:
            blocks.append(self.attention(out_channels, self.num_heads))
        return blocks

    def width_of(self, level: int) -> int:
        """The channels at level 0 (full resolution), 1 (half), 2 ..."""
        return int(self.config.channel_multipliers[level] * self.config.num_channels)

    def encoder(self) -> tuple[nn.ModuleList, list[int]]:
        """Build the encoder's stages, and say how many channels each gives."""
        widths = [self.width_of(0)]
        stages = [Stage(nn.Conv2d(self.config.image_channels, widths[0], 3, padding=1))]
        last = len(self.config.channel_multipliers) - 1
        for level in range(last + 1):
            for _ in range(self.config.num_res_blocks):
                stages.append(Stage(*self.blocks(widths[-1], level)))
                widths.append(self.width_of(level))
            if level < last:
                stages.append(Stage(self.resample(widths[-1], Downsample)))
                widths.append(widths[-1])
        return nn.ModuleList(stages), widths

    def middle(self, channels: int) -> Stage:
        """Build the middle: two residual blocks around attention, which has the encoder's number of heads."""
        before = self.res_block(channels, channels)
        attention = self.attention(channels, self.config.num_heads)
        return Stage(before, attention, self.res_block(channels, channels))

    def decoder(self, skips: list[int]) -> tuple[nn.ModuleList, list[int]]:
        """Build the decoder's stages for skip connections of so many channels, and say how many each stage gives."""
        stages: list[Stage] = []
        widths, channels = [], skips[-1]
        for level in reversed(range(len(self.config.channel_multipliers))):
            for i in range(self.config.num_res_blocks + 1):
                blocks = self.blocks(channels + skips[-1 - len(stages)], level)
                channels = self.width_of(level)
                if level and i == self.config.num_res_blocks:
                    blocks.append(self.resample(channels, Upsample))
                stages.append(Stage(*blocks))
                widths.append(channels)
        return nn.ModuleList(stages), widths
