"""CAS: accuracy on real objects of a classifier that learnt from generated objects alone; higher is better.

The classification accuracy score of arXiv 1905.10887, on objects: crops around the boxes with what is around them, by
the quality gate's small network, trained once for each of --cas_seeds. Real samples of other pictures than the
reference's give what can be reached.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ...quality.classifier import STEPS, probabilities, train_classifier
from ...quality.crops import SIDE, without_rim
from ...system.distributed import gather_shares
from ...system.launchers import ALONE, World
from ..box_crops import BoxCrops, box_crops, channels_of, check_boxes, mean_over_boxes
from ..comparison import Comparison
from ..figures import Estimate, Figure
from ..image_set import ImageSet
from ..metric import Metric


class Score(NamedTuple):
    """`accuracy`: the mean over classifiers and real boxes; `of_seeds`: of each classifier; `per_class`: of each class.

    The standard error joins that over the real images with that over the classifiers.
    """

    accuracy: Estimate
    of_seeds: list[float]
    per_class: dict[str, dict[str, float | None]]


def right_answers(
    samples: BoxCrops,
    real: BoxCrops,
    classes: Sequence[str],
    seeds: Sequence[int],
    flip: bool = False,
    steps: int = STEPS,
    device: torch.device | str = "cpu",
    world: World = ALONE,
) -> NDArray[np.bool_]:
    """Find the real boxes (S, N) that classifiers of S seeds classify rightly; several processes share the seeds.

    A classifier is trained on one thread: the last bits depend on their number, and with them a box now and then.
    """
    own = {}
    for number in range(len(seeds))[world.rank :: world.size]:
        with one_thread():
            labels = samples.indices(classes)
            model = train_classifier(samples.crops, labels, len(classes), seeds[number], flip, steps, device)
            predicted = probabilities(model, without_rim(real.crops)).argmax(1)
        own[number] = (predicted == real.indices(classes)).numpy()
    return np.stack(gather_shares("classifiers", own))


def score(right: NDArray[np.bool_], samples: BoxCrops, real: BoxCrops, classes: Sequence[str]) -> Score:
    """Score right answers (S, N)."""
    of_boxes = right.mean(axis=0)  # N
    accuracy, of_seeds = mean_over_boxes(of_boxes, real.images), right.mean(axis=1)
    if accuracy.standard_error is not None and len(of_seeds) > 1:
        over_seeds = of_seeds.std(ddof=1) / len(of_seeds) ** 0.5
        accuracy = accuracy._replace(standard_error=float(np.hypot(accuracy.standard_error, over_seeds)))
    labels = np.array(real.labels)
    per_class = {
        name: {
            "accuracy": float(of_boxes[labels == name].mean()) if (labels == name).any() else None,
            "boxes": int((labels == name).sum()),
            "learnt_from": samples.labels.count(name),
        }
        for name in classes
    }
    return Score(accuracy, of_seeds.tolist(), per_class)


@contextmanager
def one_thread():
    """Limit torch to one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# The metric


def check(comparison: Comparison) -> None:
    """Raise ValueError where a side has no boxes, or both together have boxes of one class alone."""
    sides = comparison.labelled_samples, comparison.labelled_reference
    for side in sides:
        check_boxes(side)
    if len(classes_of(*sides)) < 2:
        raise ValueError(f"objects of one class alone, {classes_of(*sides)[0]}: there is nothing to tell apart")


def classes_of(*sides: ImageSet) -> tuple[str, ...]:
    return tuple(sorted({box.label for side in sides for boxes in side.known_objects for box in boxes}))


def measure(comparison: Comparison) -> tuple[NDArray[np.bool_], BoxCrops, BoxCrops, tuple[str, ...]]:
    sides, options = (comparison.labelled_samples, comparison.labelled_reference), comparison.options
    channels, value_range = channels_of(*sides), comparison.data.black_and_white
    samples, real = (box_crops(side, channels, value_range) for side in sides)
    seeds, flip = [options.seed + number for number in range(options.cas_seeds)], comparison.data.random_flip
    device, classes = comparison.device, classes_of(*sides)
    right = right_answers(samples, real, classes, seeds, flip, options.cas_steps, device, comparison.world)
    return right, samples, real, classes


def cas_figure(
    comparison: Comparison, found: tuple[NDArray[np.bool_], BoxCrops, BoxCrops, tuple[str, ...]]
) -> list[Figure]:
    right, samples, real, classes = found
    options, result = comparison.options, score(*found)
    protocol = comparison.facts() | {
        "classifier": f"the quality gate's, {options.cas_steps} steps, {options.cas_seeds} times",
        "learnt_from": f"{len(samples.labels)} boxes of the samples",
        "tested_on": f"{len(real.labels)} boxes of the reference",
        "classes": ", ".join(classes),
        "not_in_samples": ", ".join(name for name in classes if name not in samples.labels) or None,
        "crop": f"the box and as much around it, {SIDE}",
        "random_flip": comparison.data.random_flip,
        "seed": options.seed,
    }
    how = "standard error over images" + (" and classifiers" if len(right) > 1 else "")
    details = {"of_seeds": result.of_seeds, "per_class": result.per_class}
    return [Figure("CAS", result.accuracy.value, "higher", result.accuracy.standard_error, how, protocol, details)]


METRIC = Metric(check, measure, cas_figure)
