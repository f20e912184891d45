"""Lines about a run before it starts: its data, its size, its memory and how long it will take."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..data.layout import Layout
from ..diffusion.gaussian_diffusion import GaussianDiffusion
from . import pace
from .memory import estimate_memory, parameter_count, trained_count
from .state import TrainingState

NAMES_SHOWN = 12


def describe(config: RunConfig, model: nn.Module, diffusion: GaussianDiffusion, num_train: int, num_val: int) -> None:
    """Print the data, the model and the memory of a run, a line each."""
    names = "; ".join(
        f"{len(words)} {kind}: {', '.join(words[:NAMES_SHOWN])}{', ...' if len(words) > NAMES_SHOWN else ''}"
        for kind, words in (("classes", config.data.classes), ("products", config.data.product_tags))
        if words
    )
    memory = estimate_memory(config, model, diffusion)
    parts = ", ".join(f"{name} {amount / 2**30:.2f}" for name, amount in memory.items())
    print(f"data: {num_train} training and {num_val} validation images; {names}")
    count, trained = parameter_count(model), trained_count(model)
    frozen = f", {trained / 1e6:.2f} of them trained (--freeze {config.train.freeze})" if trained < count else ""
    print(f"model: {count / 1e6:.2f} million parameters{frozen}, conditioning {config.model.conditioning}")
    print(f"memory: about {sum(memory.values()) / 2**30:.2f} GiB in float32 ({parts})", flush=True)


def describe_pace(
    config: RunConfig,
    model: nn.Module,
    diffusion: GaussianDiffusion,
    device: torch.device,
    batch: tuple[Tensor, Layout],
) -> None:
    """Print how long training will take, by steps on one batch; why not, where memory for one image is lacking."""
    needed = sum(estimate_memory(pace.for_one_image(config), model, diffusion).values())
    if needed > (free := pace.free_memory(device)):
        print(f"time: not measured, {free / 2**30:.1f} GiB are free and one image takes {needed / 2**30:.1f}")
        return
    # Not compiled: that takes longer than all that is timed.
    config = replace(config, train=replace(config.train, compile=False))
    state = TrainingState(config, model, diffusion, device)
    measured = pace.measure_pace(state, config, *batch)
    steps = config.train.last_step or 1000
    timed = f"{measured.num_steps} of {measured.num_images} images timed, without loading, saving and validation"
    print(f"time: {measured.seconds:.2f} s a step on {device}, {state.precision} ({timed}): ", end="")
    print(f"{steps} steps in {steps * measured.seconds / 3600:.3g} hours")
