"""What a device can do, measured, and the least time that a step can take on it, worked out from counts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from counting import operations
from subjects import SCALE, prepared, wait_for

from stay_diffusion.config import RunConfig
from stay_diffusion.diffusion.guidance import classifier_free
from stay_diffusion.run import factory
from stay_diffusion.training.memory import estimate_memory, parameter_count
from stay_diffusion.training.noise_batch import noise_batch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# How often a step reads or writes each weight in float32: clipping reads gradients twice and writes them, AdamW reads
# four and writes three of gradient, weight and two moments, an average reads two and writes one.
TRAFFIC_OF_WEIGHTS = 3 + 7 + 3


@dataclass(frozen=True)
class Work:
    """Of a step: counted operations, and the bytes that must at least be moved."""

    operations: int
    bytes: int

    def floor(self, rate: float, bandwidth: float) -> float:
        """Seconds: whichever of the two takes longer, while the other goes on beside it."""
        return max(self.operations / rate, self.bytes / bandwidth)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int, budget: float) -> float:
    """Operations a second of the product of two square matrices, the best of many."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / best_seconds(lambda: torch.mm(a, b, out=out), device, budget)


def bandwidth(device: torch.device, num_bytes: int, budget: float) -> float:
    """Bytes a second, read and written, of copying within the device's memory, the best of many."""
    source = torch.zeros(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * len(source) / best_seconds(lambda: target.copy_(source), device, budget)


def best_seconds(action: Callable, device: torch.device, budget: float, at_once: int = 10) -> float:
    """The least seconds of an action, of several waited for together, so that starting them does not count."""
    action(), wait_for(device)
    end, best = time.perf_counter() + budget, float("inf")
    while True:
        started = time.perf_counter()
        for _ in range(at_once):
            action()
        wait_for(device)
        now = time.perf_counter()
        best = min(best, (now - started) / at_once)
        if now >= end:
            return best


def training_work(config: RunConfig, num_objects: int, width: int) -> Work:
    """Of a training step, counted on the meta device, where nothing is computed; activations take `width` bytes each.

    Moved are at least the weights, as an update does it, and once there and back what autograd keeps.
    """
    model, diffusion, images, layout, t = on_meta(config, num_objects)

    def action() -> None:
        diffusion.training_losses(model, images, t, images, {"layout": layout})["loss"].sum().backward()

    whole = replace(config, train=replace(config.train, microbatch=-1))
    kept = estimate_memory(whole, model, diffusion)["activations"]  # in float32
    moved = 4 * TRAFFIC_OF_WEIGHTS * parameter_count(model) + 2 * kept * width // 4
    return Work(operations(action), moved)


def sampling_work(config: RunConfig, num_objects: int, width: int) -> Work:
    """Of a guided call of the network; moved are at least the weights."""
    model, _, images, layout, t = on_meta(config, num_objects)
    guided = classifier_free(model, SCALE, num_channels=config.model.image_channels)
    with torch.no_grad():
        conditioning = prepared(model, layout.with_null(), images)
        counted = operations(lambda: guided(images, t, layout=conditioning))
    return Work(counted, width * parameter_count(model))


def on_meta(config: RunConfig, num_objects: int):
    """Model, diffusion, images, layout and t without any storage."""
    meta = torch.device("meta")
    with meta:
        model = factory.build_model(config)
    images, layout = noise_batch(config, config.train.batch_size, num_objects)
    diffusion = factory.build_diffusion(config.diffusion).to(meta)
    return model, diffusion, images.to(meta), layout.to(meta), torch.zeros(len(images), dtype=torch.long, device=meta)
