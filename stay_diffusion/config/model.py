"""The network: what changes its weights or what it computes."""

from dataclasses import dataclass

from .option import numbers, option


@dataclass(frozen=True)
class ModelConfig:
    image_size: int = option(64, "side of the square images, a multiple of the network's stride")
    image_channels: int = option(3, "1 for grey images, 3 for colour", (1, 3))
    num_channels: int = option(128, "base width of the network, a multiple of 32")
    num_res_blocks: int = option(2, "residual blocks per resolution", least=1)
    channel_mult: str = option("", "width multipliers per resolution, such as 1,2,3,4; empty: chosen by image_size")
    num_heads: int = option(4, "attention heads")
    num_heads_upsample: int = option(-1, "attention heads in the decoder; -1: num_heads", compat=True)
    num_head_channels: int = option(-1, "channels per attention head, instead of num_heads; -1: off")
    attention_resolutions: str = option("16,8", "resolutions in pixels that have attention; empty: the middle only")
    dropout: float = option(0.0, "dropout in the residual blocks", least=0, most=1)
    class_cond: bool = option(True, "False: an unconditional model, without any layout")
    conditioning: str = option(
        "isla_bg",
        "how the layout enters: ISLA-Norm with background (isla_bg) or as published (isla); spade: SDM's label maps; "
        "none: the product only, guided-diffusion's class",
        ("isla_bg", "isla", "spade", "none"),
    )
    no_instance: bool = option(False, "no instance maps: spade without edges, isla with connected parts as objects")
    z_mode: str = option(
        "off", "prior: a random style per object, as in the thesis (inert)", ("off", "prior"), compat=True
    )
    mask_refine: bool = option(False, "refine object masks from decoder features (LostGAN-v2)")
    use_scale_shift_norm: bool = option(True, "timestep embedding by scale and shift instead of addition")
    resblock_updown: bool = option(False, "resample inside residual blocks")
    use_new_attention_order: bool = option(False, "part qkv before heads (must match the checkpoint)")
    use_checkpoint: bool = option(False, "gradient checkpointing: less memory, more time")

    @property
    def channel_multipliers(self) -> tuple[float, ...]:
        if self.channel_mult:
            multipliers = numbers("channel_mult", self.channel_mult, float)
            if not multipliers or not all(0 < m < 1000 for m in multipliers):
                raise ValueError(f"--channel_mult {self.channel_mult}: expected positive numbers separated by commas")
            return tuple(int(m) if m == int(m) else m for m in multipliers)
        by_size = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 0: (1, 2, 3, 4)}
        return next(multipliers for size, multipliers in by_size.items() if self.image_size >= size)

    @property
    def attention_downsamplings(self) -> set[int]:
        return {self.image_size // r for r in numbers("attention_resolutions", self.attention_resolutions, int)}

    @property
    def decoder_heads(self) -> int:
        return self.num_heads if self.num_heads_upsample == -1 else self.num_heads_upsample

    @property
    def layout_kind(self) -> str:
        """The part of a layout that the network sees besides the product: "boxes", "map", or "" for nothing."""
        if not self.class_cond or self.conditioning == "none":
            return ""
        return "map" if self.conditioning == "spade" else "boxes"

    def heads_of(self, channels: int, num_heads: int) -> int:
        flag, per = ("num_heads", num_heads) if self.num_head_channels == -1 else ("num_head_channels", None)
        heads = num_heads if per else channels / self.num_head_channels
        if heads < 1 or channels % heads or heads != int(heads):
            raise ValueError(f"--{flag} {getattr(self, flag)}: does not divide {channels} channels of attention")
        return int(heads)

    def check(self) -> None:
        if self.num_channels < 1:
            raise ValueError(f"--num_channels {self.num_channels}: must be a positive multiple of 32")
        if self.num_head_channels == 0 or self.num_head_channels < -1:
            raise ValueError(f"--num_head_channels {self.num_head_channels}: must be positive, or -1 for off")
        if self.layout_kind != "boxes":
            for flag, off in (("mask_refine", False), ("z_mode", "off")):
                if getattr(self, flag) != off:
                    raise ValueError(f"--{flag} {getattr(self, flag)}: only --conditioning isla_bg and isla have it")
        stride = 2 ** (len(self.channel_multipliers) - 1)
        if self.image_size < stride or self.image_size % stride:
            raise ValueError(f"--image_size {self.image_size}: must be a multiple of {stride}, the network's stride")
