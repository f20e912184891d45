"""Time that a training run will take, from a few of its own steps."""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..config import RunConfig
from ..data.layout import Layout
from ..run.logger import Logger
from ..system import machine
from .state import TrainingState
from .train_loop import train_step

ENOUGH_SECONDS, MOST_STEPS = 10.0, 6


@dataclass(frozen=True)
class Pace:
    """Seconds of a step of the whole batch, worked out from `num_steps` steps of `num_images` images."""

    seconds: float
    num_steps: int
    num_images: int


def measure_pace(state: TrainingState, config: RunConfig, images: torch.Tensor, layout: Layout) -> Pace:
    """Real training steps, of the whole batch or, where that would take long, of one image; the weights change."""
    single, num_steps = _seconds_per_step(state, config, images[:1], layout[:1])
    if single * len(images) > ENOUGH_SECONDS:
        return Pace(single * len(images), num_steps, 1)
    seconds, num_steps = _seconds_per_step(state, config, images, layout)
    return Pace(seconds, num_steps, len(images))


def free_memory(device: torch.device) -> int:
    """Return the bytes that a new run could take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return machine.free_memory()


def for_one_image(config: RunConfig) -> RunConfig:
    return replace(config, train=replace(config.train, batch_size=1, microbatch=-1))


def _seconds_per_step(state: TrainingState, config: RunConfig, images: torch.Tensor, layout: Layout):
    """The median and how many were timed; the first is a warm-up, and counts only where it alone takes long."""
    images, layout = images.to(state.device), layout.to(state.device)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        logger = Logger(Path(place))
        while len(times) < MOST_STEPS and sum(times) < ENOUGH_SECONDS:
            started = time.perf_counter()
            train_step(state, config, images, layout, logger)
            if state.device.type == "cuda":
                torch.cuda.synchronize(state.device)
            times.append(time.perf_counter() - started)
    timed = times[1:] or times
    return statistics.median(timed), len(timed)
