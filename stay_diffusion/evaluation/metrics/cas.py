"""CAS: how well a classifier that learnt from generated objects alone tells real ones; higher is better.

python evaluations/cas.py --samples GENERATED --reference REAL

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
from ...quality.crops import without_rim
from ...system.distributed import gather_shares
from ...system.launchers import ALONE, World
from ..box_crops import BoxCrops, Share, share


class Score(NamedTuple):
    """`accuracy`: the mean over classifiers and real boxes; `of_seeds`: of each classifier; `per_class`: of each class.

    The standard error joins that over the real images with that over the classifiers.
    """

    accuracy: Share
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
    """Which real boxes (S, N) the classifiers of S seeds tell rightly; several processes share the seeds.

    A classifier is trained on one thread: the last bits depend on their number, and with them a box now and then.
    """
    own = {}
    for number in range(len(seeds))[world.rank :: world.size]:
        with one_thread():
            labels = samples.indices(classes)
            model = train_classifier(samples.crops, labels, len(classes), seeds[number], flip, steps, device)
            told = probabilities(model, without_rim(real.crops)).argmax(1)
        own[number] = (told == real.indices(classes)).numpy()
    return np.stack(gather_shares("classifiers", own))


def score(right: NDArray[np.bool_], samples: BoxCrops, real: BoxCrops, classes: Sequence[str]) -> Score:
    """The figures of right answers (S, N)."""
    of_boxes = right.mean(axis=0)  # N
    accuracy, of_seeds = share(of_boxes, real.images), right.mean(axis=1)
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
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
