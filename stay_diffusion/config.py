"""Every option of a run, declared once: frozen dataclasses, from which flags.py makes flags and JSON.

Imports nothing heavy, so that `--help` is quick.
"""

from dataclasses import dataclass, field


def option(default, help: str, choices: tuple = (), least: float | None = None, most: float | None = None):
    """A field that is a flag; values below `least` or above `most` are refused wherever they come from."""
    return field(default=default, metadata={"help": help, "choices": choices, "least": least, "most": most})


@dataclass(frozen=True)
class DataConfig:
    data_dir: str = option("", "folder of annotated images; train/ and val/ inside it are the splits")
    dataset_mode: str = option(
        "sdi",
        "sdi: boxes drawn in VoTT; coco: COCO-Stuff as the literature filters it; coco_json, voc, yolo: boxes of these "
        "formats; images: pictures alone; maps: label maps with a classes.txt; the others: those of SPADE and SDM",
        ("sdi", "images", "voc", "yolo", "coco_json", "coco",
         "ade20k", "cityscapes", "celeba", "coco_semantic", "maps"),
    )  # fmt: skip
    image_dir: str = option("", "where the images are, if not where the format has them")
    product_tags: tuple = option((), "tags that name products; none given: those that always cover the whole image")
    classes: tuple = option((), "defect classes in label order, others left out; none given: all of the training data")
    class_map: tuple = option((), "tags of the data read as other names: TAG=NAME, or TAG= to leave its boxes out")
    num_classes: int = option(0, "classes (products with --conditioning none) the data must have; 0: any", least=0)
    val_fraction: float = option(0.1, "share held out for validation where data_dir has no val folder", least=0, most=1)
    on_bad_data: str = option("error", "what cannot be used: error, or skip (counted)", ("error", "skip"))
    id_list: str = option(
        "",
        "file of the pictures to use, by name (coco: by id); with {split} in its name, one file for train and for val",
    )
    value_range: str = option("", "values of black and white in greys of more than 8 bits, 0,4095; empty: of the type")
    coco_min_object_size: float = option(0.02, "coco: objects of at most this share of the image are left out", least=0)
    coco_min_objects: int = option(3, "coco: images with fewer objects are left out", least=0)
    coco_max_objects: int = option(8, "coco: images with more objects are left out", least=1)
    crop_policy: str = option(
        "resize",
        "resize: whole image, aspect ignored; center, random: a square; object: unscaled, around an object",
        ("resize", "center", "random", "object"),
    )
    background_rate: float = option(0.0, "share of training's object crops taken anywhere", least=0, most=1)
    random_flip: bool = option(False, "mirror left to right at random (not for oriented products)")
    min_visible: float = option(0.25, "share of its box that a crop must leave of an object", least=0, most=1)
    max_objects: int = option(0, "most objects per layout; 0: no limit", least=0)
    max_objects_policy: str = option("error", "what to do with more objects", ("error", "largest", "random"))
    num_workers: int = option(1, "loader processes per rank; 0: load in the training process", least=0)
    cache: str = option("off", "keep pictures decoded and pre-scaled: in memory, or in files", ("off", "ram", "disk"))

    @property
    def black_and_white(self) -> tuple[float, float] | None:
        values = tuple(_numbers("value_range", self.value_range, float))
        if values and (len(values) != 2 or values[0] >= values[1]):
            raise ValueError(f"--value_range {self.value_range}: expected those of black and of white, such as 0,4095")
        return values or None


@dataclass(frozen=True)
class ModelConfig:
    image_size: int = option(64, "side of the square images, a multiple of the network's stride")
    image_channels: int = option(3, "1 for grey images, 3 for colour", (1, 3))
    num_channels: int = option(128, "base width of the network, a multiple of 32")
    num_res_blocks: int = option(2, "residual blocks per resolution", least=1)
    channel_mult: str = option("", "width multipliers per resolution, such as 1,2,3,4; empty: chosen by image_size")
    num_heads: int = option(4, "attention heads")
    num_heads_upsample: int = option(-1, "attention heads in the decoder; -1: num_heads")
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
    z_mode: str = option("off", "prior: a random style per object, as in the thesis (inert)", ("off", "prior"))
    mask_refine: bool = option(False, "refine object masks from decoder features (LostGAN-v2)")
    use_scale_shift_norm: bool = option(True, "timestep embedding by scale and shift instead of addition")
    resblock_updown: bool = option(False, "resample inside residual blocks")
    use_new_attention_order: bool = option(False, "part qkv before heads (must match the checkpoint)")
    use_checkpoint: bool = option(False, "gradient checkpointing: less memory, more time")

    @property
    def channel_multipliers(self) -> tuple[float, ...]:
        if self.channel_mult:
            multipliers = _numbers("channel_mult", self.channel_mult, float)
            if not multipliers or not all(0 < m < 1000 for m in multipliers):
                raise ValueError(f"--channel_mult {self.channel_mult}: expected positive numbers separated by commas")
            return tuple(int(m) if m == int(m) else m for m in multipliers)
        by_size = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 0: (1, 2, 3, 4)}
        return next(multipliers for size, multipliers in by_size.items() if self.image_size >= size)

    @property
    def attention_downsamplings(self) -> set[int]:
        return {self.image_size // r for r in _numbers("attention_resolutions", self.attention_resolutions, int)}

    @property
    def decoder_heads(self) -> int:
        return self.num_heads if self.num_heads_upsample == -1 else self.num_heads_upsample

    @property
    def layout_kind(self) -> str:
        """What of a layout the network sees besides the product: "boxes", "map", or "" for nothing."""
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


@dataclass(frozen=True)
class DiffusionConfig:
    diffusion_steps: int = option(1000, "steps of the training process, T", least=1)
    noise_schedule: str = option("linear", "betas of the process", ("linear", "cosine"))
    learn_sigma: bool = option(False, "the network also predicts the variance")
    prediction: str = option("eps", "what the network predicts", ("eps", "x_start", "v"))
    predict_xstart: bool = option(False, "the tradition's name for --prediction x_start")
    sigma_small: bool = option(False, "fixed variance: the posterior's instead of beta")
    use_kl: bool = option(False, "train on the variational bound instead of the squared error")
    rescale_timesteps: bool = option(False, "tell the network t * 1000 / T")
    rescale_learned_sigmas: bool = option(False, "weigh the bound by T / 1000 beside the squared error")
    timestep_respacing: str = option("", "steps to keep: 250, 10,15,20, ddim25 or logsnr20; empty: all")

    @property
    def predicted(self) -> str:
        if self.predict_xstart and self.prediction == "v":
            raise ValueError("--predict_xstart True contradicts --prediction v")
        return "x_start" if self.predict_xstart else self.prediction


@dataclass(frozen=True)
class TrainConfig:
    logdir: str = option("", "run folder; empty: $OPENAI_LOGDIR, else OUTPUT/stay_diffusion")
    is_train: bool = option(True, "False: train on the validation split")
    resume_checkpoint: str = option("", "weights to start a fine-tune from (a run continues by the same command)")
    max_steps: int = option(0, "stop after this many steps; 0: lr_anneal_steps, or for ever", least=0)
    batch_size: int = option(1, "images per step and rank", least=1)
    microbatch: int = option(-1, "images per forward pass; -1: batch_size", least=-1)
    lr: float = option(1e-4, "learning rate of AdamW", least=0)
    lr_anneal_steps: int = option(0, "lower the learning rate linearly to 0 over this many steps; 0: constant", least=0)
    weight_decay: float = option(0.0, "weight decay of AdamW", least=0)
    grad_clip: float = option(1.0, "largest norm of the gradient; 0: no clipping", least=0)
    ema_rate: str = option("0.9999", "decay of the averaged weights; several: 0.999,0.9999")
    drop_rate: float = option(0.0, "share of layouts replaced by no condition, for guidance", least=0, most=1)
    schedule_sampler: str = option("uniform", "which t to train on", ("uniform", "loss-second-moment"))
    precision: str = option("auto", "auto: bf16 on GPUs that have it, else fp32", ("auto", "fp32", "bf16", "fp16"))
    use_fp16: bool = option(False, "the tradition's name for --precision fp16; fp32 on a CPU")
    fp16_scale_growth: float = option(1e-3, "growth per step of fp16's log2 loss scale", least=0)
    seed: int = option(0, "of weights, data order, noise", least=0, most=2**63 - 1)
    log_interval: int = option(10, "steps between log lines", least=1)
    save_interval: int = option(10000, "steps between checkpoints", least=1)
    keep_checkpoints: int = option(3, "how many checkpoints to keep; 0: all", least=0)
    val_interval: int = option(1000, "steps between validation losses; 0: never", least=0)
    val_images: int = option(64, "validation images, with fixed noise; fewer if there are fewer", least=1)
    preview_interval: int = option(1000, "steps between preview grids; 0: never", least=0)
    preview_images: int = option(8, "layouts of a preview grid", least=1)
    shard_optimizer: bool = option(False, "several processes: each keeps a share of AdamW's moments")
    dist_timeout: int = option(600, "seconds that processes wait for one another", least=1)
    max_bad_steps: int = option(20, "stop after this many steps in a row without a finite gradient", least=1)

    @property
    def ema_rates(self) -> tuple[str, ...]:
        rates = _numbers("ema_rate", self.ema_rate, float)
        if not rates:
            raise ValueError("--ema_rate: needs at least one rate, such as 0.9999")
        for rate in rates:
            if not 0 <= rate < 1:
                raise ValueError(f"--ema_rate {self.ema_rate}: rates lie in [0, 1)")
        return tuple(rate.strip() for rate in self.ema_rate.split(",") if rate.strip())

    @property
    def last_step(self) -> int | None:
        ends = [steps for steps in (self.max_steps, self.lr_anneal_steps) if steps]
        return min(ends, default=None)


@dataclass(frozen=True)
class SampleConfig:
    model_path: str = option("", "weights, such as RUN/ema_0.9999.pt; config.json beside them describes the model")
    results_path: str = option("", "folder for samples, labels and manifest; empty: samples/ in the run folder")
    num_samples: int = option(0, "images to make; 0: one per layout", least=0)
    num_runs: int = option(1, "this many times, in run0, run1 ... of results_path, each with other noise", least=1)
    batch_size: int = option(16, "images at a time (does not change them)", least=1)
    layouts: str = option("val", "val, train, or a file: a VoTT export or lines of JSON")
    is_train: bool = option(False, "the tradition's name for --layouts train")
    s: float = option(1.0, "guidance scale: 1 is off (a model trained with drop_rate can go higher)")
    sampler: str = option("dpmpp_2m", "how to get from noise to images", ("ddpm", "ddim", "dpmpp_2m", "heun"))
    num_steps: int = option(20, "sampling steps, even in log-SNR (timestep_respacing: other spacings)", least=1)
    use_ddim: bool = option(False, "the tradition's name for --sampler ddim")
    eta: float = option(0.0, "noise of ddim: 0 none, 1 as much as ddpm", least=0, most=1)
    clip_denoised: bool = option(True, "clamp each step's clean image to [-1, 1]")
    seed: int = option(0, "image i is drawn from (seed, i), whatever the batch size", least=0, most=2**63 - 1)
    precision: str = option("auto", "auto: bf16 on GPUs that have it, else fp32", ("auto", "fp32", "bf16", "fp16"))
    use_fp16: bool = option(False, "the tradition's name for --precision fp16; fp32 on a CPU")
    save_npz: bool = option(False, "also write samples_NxHxWxC.npz")
    dist_timeout: int = option(600, "seconds that processes wait for one another", least=1)
    device: str = option("", "cpu, cuda, cuda:1 ...; empty: a GPU if there is one")


@dataclass(frozen=True)
class RunConfig:
    """What a run folder's config.json holds."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()


@dataclass(frozen=True)
class SampleRun:
    """What image_sample.py takes: data flags override, model and diffusion flags are held against the trained ones."""

    sample: SampleConfig = SampleConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()


def _numbers(flag: str, text: str, kind) -> list:
    try:
        numbers = [kind(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ValueError(f"--{flag} {text}: expected numbers separated by commas") from None
    if any(not 0 <= n < float("inf") or (kind is int and n == 0) for n in numbers):
        raise ValueError(f"--{flag} {text}: expected positive numbers")
    return numbers
