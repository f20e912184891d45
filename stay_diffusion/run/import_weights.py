"""guided-diffusion's and SDM's published state dicts -> ours: names, options, misfits, and a start for ISLA."""

import re
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import RunConfig, flags
from ..data.annotations import Vocabulary
from ..data.codings import CODINGS
from ..models.isla_norm import IslaNorm
from ..models.new_names import SILENT, State, silent_products
from . import factory

# What each code base has where a flag is not given. num_classes: SDM's four data sets are told apart by it.
KINDS: dict[str, dict] = {
    "guided": {"conditioning": "none", "class_cond": False, "dataset_mode": "images"},
    "sdm": {"conditioning": "spade", "class_cond": True, "num_classes": 151},
}
DATASET_OF = {151: "ade20k", 34: "cityscapes", 19: "celeba", 183: "coco_semantic"}

# No tensor's shape depends on these: a wrong value loads in silence and changes the pictures.
UNSEEN = (
    *("num_heads", "num_heads_upsample", "num_head_channels", "use_new_attention_order", "image_size"),
    *("diffusion_steps", "noise_schedule", "predict_xstart", "prediction", "rescale_timesteps"),
)


def published_config(kind: str, given: dict) -> RunConfig:
    """The options of a published model from flags by their names, the others as its code base has them."""
    values = {**KINDS[kind], **given}
    if kind == "sdm":
        values.setdefault("dataset_mode", DATASET_OF.get(values["num_classes"], "sdi"))
    return factory.with_assumed_names(flags.unflatten(RunConfig, values, "flags"))


def to_ours(state: State) -> State:
    """Return the tensors under our names, in float32; a file of DistributedDataParallel loses its `module.`.

    SDM keeps the modulated norms beside the layers they belong to; here they are the first of them.
    """
    flat = isinstance(state, dict) and all(isinstance(tensor, Tensor) for tensor in state.values())
    if not flat or not state:
        raise ValueError("not a flat state dict: it holds other things than tensors")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    spade = {name.partition(".in_norm.")[0] for name in state if ".in_norm." in name}
    return {_our_name(name, spade): tensor.float() for name, tensor in state.items()}


def _our_name(name: str, spade: set[str]) -> str:
    match = re.fullmatch(r"(.+?)\.(in|out)_(norm|layers)\.(.+)", name)
    if not match or match[1] not in spade:
        return name
    block, side, part, rest = match.groups()
    if part == "norm":
        return f"{block}.{side}_layers.0.{rest}"
    place, _, parameter = rest.partition(".")
    return f"{block}.{side}_layers.{int(place) + 1}.{parameter}"


def misfits(state: State, config: RunConfig) -> list[str]:
    """For each option that the shapes of a state dict (in our names) contradict: what it is, and what they say."""
    try:
        seen = _seen_options(state, config)
    except (KeyError, IndexError) as error:
        raise ValueError(f"not a U-Net of guided-diffusion or SDM: it lacks {error}") from None
    if seen["conditioning"][0] != seen["conditioning"][1]:
        whose = "SDM's (--kind sdm)" if seen["conditioning"][1] == "spade" else "guided-diffusion's (--kind guided)"
        return [f"its norms are {whose}"]
    return [
        f"--{name} {flags.text(have)}, but the file has {flags.text(found)}{_other_reading(name, have, found, config)}"
        for name, (have, found) in seen.items()
        if have != found
    ]


def layout_start(config: RunConfig, values: dict) -> RunConfig:
    """Return the layout model that an original becomes; its names are given, the data's, or found later."""
    options = {name: value for name, value in values.items() if hasattr(config.data, name)}
    data = flags.unflatten(RunConfig, options).data
    if data.data_dir:
        names = factory.read_split(data, "train")[1]
    elif data.dataset_mode in CODINGS:
        names = Vocabulary(CODINGS[data.dataset_mode].classes)
    else:
        names = Vocabulary(data.classes, data.product_tags)
    if config.model.class_cond:
        names = replace(names, products=config.data.product_tags)
    model = replace(config.model, conditioning="isla_bg", class_cond=True)
    return factory.with_vocabulary(replace(config, data=replace(data, num_classes=0), model=model), names)


def into_isla(state: State, model: nn.Module) -> State:
    """guided-diffusion's weights (in our names) as the start of a freshly initialised isla_bg `model` of that shape.

    A plain norm's affine becomes its ISLA-Norm's bias, gamma = weight - 1 and beta = bias, which the per-pixel weights,
    summing to 1, spread evenly over every pixel: any layout gives the original's output, until training teaches more.
    """
    started = model.state_dict()
    modulated = {name for name, module in model.named_modules() if isinstance(module, IslaNorm)}
    for name, tensor in state.items():
        if name.rpartition(".")[0] not in modulated:
            started[name] = tensor
    for name in modulated:
        started[f"{name}.project.bias"] = torch.cat([state[f"{name}.weight"] - 1, state[f"{name}.bias"]])
    return started | silent_products(state, started)


def _seen_options(state: State, config: RunConfig) -> dict[str, tuple]:
    """The options that shapes reveal: name -> (as configured, as the file has it)."""
    model, data = config.model, config.data
    width, image_channels = state["time_embed.0.weight"].shape[1], state["input_blocks.0.0.weight"].shape[1]
    stages = _decoder_stages(state)
    first, ends = stages[0], [_resamples(stage) for stage in stages]
    levels = sum(ends) + 1
    per_level = len(stages) // levels
    tops = stages[::per_level]  # the first stage of each level, the lowest resolution first
    widths = [stage["0.in_layers.2.weight"].shape[0] for stage in tops]
    downsamplings = [2**i for i in reversed(range(levels))]
    attended = {d for d, stage in zip(downsamplings, tops, strict=False) if "1.qkv.weight" in stage}
    configured = model.attention_downsamplings & {2**i for i in range(len(model.channel_multipliers))}
    seen = {
        "num_channels": (model.num_channels, width),
        "image_channels": (model.image_channels, image_channels),
        "learn_sigma": (config.diffusion.learn_sigma, len(state["out.2.weight"]) == 2 * image_channels),
        "num_res_blocks": (model.num_res_blocks, per_level - 1),
        "channel_mult": (_joined(model.channel_multipliers), _joined(w / width for w in reversed(widths))),
        "use_scale_shift_norm": (model.use_scale_shift_norm, len(first["0.emb_layers.1.weight"]) == 2 * widths[0]),
        "attention_resolutions": tuple(
            _joined(model.image_size // d for d in sorted(places)) for places in (configured, attended)
        ),
    }
    if levels > 1:
        by_block = not any(name.endswith("conv.weight") for name in stages[ends.index(True)])
        seen["resblock_updown"] = (model.resblock_updown, by_block)
    if "0.in_layers.0.mlp_shared.0.weight" in first:
        seen["conditioning"] = (model.conditioning, "spade")
        map_channels = first["0.in_layers.0.mlp_shared.0.weight"].shape[1]
        seen["num_classes"] = (data.num_classes, map_channels - (not model.no_instance))
    else:
        seen["conditioning"] = (model.conditioning, "none")
        seen["class_cond"] = (model.class_cond, SILENT in state)
        if model.class_cond and SILENT in state:
            seen["num_classes"] = (data.num_classes, len(state[SILENT]))
    return seen


def _other_reading(name: str, have, found, config: RunConfig) -> str:
    """Name the other option that a map with one channel too many or too few may mean, classes or edges."""
    edges = 1 if config.model.no_instance else -1
    if name != "num_classes" or config.model.conditioning != "spade" or found - have != edges:
        return ""
    return f", or {have} with --no_instance {not config.model.no_instance}"


def _decoder_stages(state: State) -> list[State]:
    """The tensors of each of output_blocks, by their names in it."""
    stages: dict[int, State] = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"output_blocks\.(\d+)\.(.+)", name):
            stages.setdefault(int(match[1]), {})[match[2]] = tensor
    if not stages:  # a classifier's
        raise KeyError("output_blocks")
    return [stages[i] for i in range(len(stages))]


def _resamples(stage: State) -> bool:
    """Tell whether a stage ends a level: with a convolution after resampling, or with a second residual block."""
    return any(re.fullmatch(r"[12]\.(conv\.weight|in_layers\.2\.weight)", name) for name in stage)


def _joined(numbers) -> str:
    return ",".join(f"{number:g}" for number in numbers)
