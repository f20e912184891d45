"""Training a detector on examples: crops in native size, mirrored at random, a fixed number of optimizer steps.

Every random choice is drawn from (seed, place in the run): the same settings give the same detector on a CPU.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.annotations import Vocabulary
from ..system.device import autocast, resolve_precision
from . import networks as detector
from .data import Example
from .options import DetectorConfig

WARM_UP = 0.1  # the share of the steps in which the learning rate rises
GRAD_CLIP = 10.0  # on the norm of the gradients
MIN_VISIBLE = 0.5  # share of its box that a crop must leave of an object
SMALL, MANY = 8, 0.1  # a warning where more than this share of the boxes has a side under so many pixels
ORDER, CROPS = 0, 1  # what is drawn
CPU = torch.device("cpu")


def train(
    items: Sequence[Example],
    vocabulary: Vocabulary,
    config: DetectorConfig,
    seed: int,
    device: torch.device = CPU,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> detector.Detector:
    """A detector after exactly `config.steps` steps; `on_step` is told each step's number, from 1 on, and its loss.

    FloatingPointError where the loss is not finite.
    """
    torch.set_num_threads(1)  # a training is small: --jobs runs several side by side
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        weights = Path(config.weights) if config.weights else None
        network = detector.build(config.detector, vocabulary.classes, weights).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, config.steps))
    precision = resolve_precision(config.precision, False, device)
    order = draw_order(len(items), config.steps * config.batch_size, seed)
    for step in range(config.steps):
        places = range(step * config.batch_size, (step + 1) * config.batch_size)
        crops = [crop(items[order[place]], config, np.random.default_rng((seed, CROPS, place))) for place in places]
        images = [image.to(device) for image, _ in crops]
        targets = [{name: value.to(device) for name, value in target.items()} for _, target in crops]
        with autocast(device, precision):
            loss = sum(network(images, targets).values())
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"step {step + 1}: the detector's loss is {loss.item()}: a lower --lr helps")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRAD_CLIP)
        optimizer.step()
        schedule.step()
        on_step(step + 1, loss.item())
    return detector.Detector(config.detector, vocabulary.classes, vocabulary.products, config.scale, network.eval())


def rate(step: int, steps: int) -> float:
    """The learning rate of a step, from 0 on, as a share of the highest: a line up, then a cosine down to 0."""
    warm = max(1, round(WARM_UP * steps))
    return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def draw_order(num: int, total: int, seed: int) -> NDArray[np.int64]:
    """Which of `num` examples each of `total` crops is cut from: every one once, in random order, then again."""
    rng = np.random.default_rng((seed, ORDER))
    return np.concatenate([rng.permutation(num) for _ in range(math.ceil(total / num))])[:total]


def crop(item: Example, config: DetectorConfig, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A crop (3, h, w) in [0, 1] that shows one of the picture's objects, where it has any, and its boxes and labels.

    Smaller than `crop_size` where the picture is: torchvision pads batches.
    """
    picture, boxes = item.picture(config.scale), item.boxes * config.scale
    sides = np.minimum(picture.size, config.crop_size)
    corner = np.round(_corner(np.array(picture.size), sides, boxes, rng)).astype(int)
    image = detector.as_input(picture.crop((*corner, *(corner + sides))))
    boxes, labels = _inside(boxes - np.tile(corner, 2), item.labels, sides)
    if config.flips != "none" and rng.random() < 0.5:
        image, boxes = image.flip(2), _mirrored(boxes, 0, sides[0])
    if config.flips == "both" and rng.random() < 0.5:
        image, boxes = image.flip(1), _mirrored(boxes, 1, sides[1])
    target = {"boxes": torch.from_numpy(boxes.astype(np.float32)), "labels": torch.from_numpy(labels)}
    return image, target


def _corner(size: NDArray, sides: NDArray, boxes: NDArray, rng: np.random.Generator) -> NDArray:
    """x0 y0 of a crop within the picture that holds a whole object, or where that is larger lies in it."""
    if not len(boxes):
        return rng.uniform(0, size - sides)
    box = boxes[rng.integers(len(boxes))]
    ends = np.sort([box[2:] - sides, box[:2]], axis=0)
    return rng.uniform(*ends).clip(0, size - sides)


def _inside(boxes: NDArray, labels: NDArray, sides: NDArray) -> tuple[NDArray, NDArray]:
    """The boxes (n, 4) of which enough is seen, cut at the crop's edges, and their labels."""
    cut = boxes.clip(0, np.tile(sides, 2))
    seen = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept = seen >= MIN_VISIBLE
    return cut[kept], labels[kept]


def _mirrored(boxes: NDArray, axis: int, side: int) -> NDArray:
    boxes = boxes.copy()
    boxes[:, [axis, axis + 2]] = side - boxes[:, [axis + 2, axis]]
    return boxes


def describe(config: DetectorConfig) -> str:
    return f"{config.detector}, {config.steps} steps of {config.batch_size} crops of {config.crop_size} pixels"


def warn_of_small_objects(items: Sequence[Example], config: DetectorConfig) -> str:
    """Return a warning where objects are too small for the small detector's finest map, else ""."""
    sides = [(item.boxes[:, 2:] - item.boxes[:, :2]).min(axis=1) * config.scale for item in items if len(item.boxes)]
    small = float(np.mean(np.concatenate(sides) < SMALL)) if sides else 0.0
    advice = f"of the boxes have a side under {SMALL} pixels; a larger --scale helps the detector to see them"
    return f"{100 * small:.0f} % {advice}" if small > MANY else ""
