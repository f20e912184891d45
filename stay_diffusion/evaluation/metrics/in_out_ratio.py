"""In/out ratio: change inside the boxes of a layout against change outside; a higher one keeps to the boxes.

Each layout of a results folder is sampled once more with the same seed as a good part, the product alone. A pixel's
difference between both images is what the boxes did to it.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...data.annotations import RelativeBox, boxes_array
from ...detector.data import runs_of
from ...models.object_masks import at_least_one_pixel, box_indicator
from ..comparison import Comparison
from ..figures import Figure
from ..good_parts import Pairs, check_good_parts, pair_with_good_parts
from ..metric import Metric

EMPTY_RATIO, EMPTY_LEVELS = 2.0, 2.0


class Sums(NamedTuple):
    """Sums over images: differences in grey levels and pixels, inside boxes and outside; boxes, and empty ones."""

    inside: float
    inside_pixels: float
    outside: float
    outside_pixels: float
    boxes: float
    empty: float

    @property
    def ratio(self) -> float | None:
        """Return the ratio of means; None where nothing outside the boxes differs: any number would overstate."""
        inside, outside = self.inside / max(self.inside_pixels, 1), self.outside / max(self.outside_pixels, 1)
        return float(inside / outside) if outside else None

    @property
    def empty_rate(self) -> float:
        return float(self.empty / self.boxes)


@dataclass(frozen=True)
class InOut:
    """Mean absolute differences in grey levels of 255; counts of boxes and of those in which nothing changed.

    `pictures` counts those with boxes. Standard errors are jackknives over pictures; None of a single one, and of a
    ratio that there is not.
    """

    inside: float
    outside: float
    ratio: float | None
    empty: int
    boxes: int
    pictures: int
    per_class: dict[str, dict[str, float]]
    ratio_error: float | None = None
    empty_rate_error: float | None = None

    @property
    def empty_rate(self) -> float:
        return self.empty / self.boxes


def measure(pairs: Iterable[tuple[np.ndarray, np.ndarray, Sequence[RelativeBox]]]) -> InOut:
    """Compare images (H, W, C) with objects with their good parts (H, W, C), given the boxes in [0, 1].

    Left out are boxes without a pixel in their picture, and pictures without boxes: their good part is the same picture
    once more, so that they would raise the ratio for nothing. ValueError if there is no box at all.
    """
    sums: list[Sums] = []
    of_class: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for drawn, good, objects in pairs:
        difference = np.abs(drawn.astype(np.float64) - good).mean(axis=-1)  # H W
        masks = box_masks(objects, difference.shape)
        union = masks.any(axis=0)
        if not union.any():
            continue
        around = difference[~union].mean() if (~union).any() else 0.0
        levels = [(box.label, difference[mask].mean()) for box, mask in zip(objects, masks, strict=True) if mask.any()]
        found = [(label, level, level < max(EMPTY_RATIO * around, EMPTY_LEVELS)) for label, level in levels]
        for label, level, empty in found:
            of_class[label].append((level, empty))
        inside, outside = difference[union], difference[~union]
        empty_boxes = sum(bool(empty) for *_, empty in found)
        sums.append(Sums(inside.sum(), inside.size, outside.sum(), outside.size, len(found), empty_boxes))
    if not sums:
        raise ValueError("no layout has a box: nothing to measure")
    whole = _add(sums)
    return InOut(
        inside=float(whole.inside / whole.inside_pixels),
        outside=float(whole.outside / max(whole.outside_pixels, 1)),
        ratio=whole.ratio,
        empty=int(whole.empty),
        boxes=int(whole.boxes),
        pictures=len(sums),
        per_class={
            label: {
                "boxes": len(values),
                "difference": float(np.mean([level for level, _ in values])),
                "empty": int(sum(empty for _, empty in values)),
            }
            for label, values in sorted(of_class.items())
        },
        ratio_error=jackknife(sums, lambda left: left.ratio),
        empty_rate_error=jackknife(sums, lambda left: left.empty_rate),
    )


def jackknife(sums: Sequence[Sums], figure: Callable[[Sums], float | None]) -> float | None:
    """Return the standard error of a figure of all images, from its change as each of them is left out."""
    n, whole = len(sums), _add(sums)
    left = [figure(Sums(*(a - b for a, b in zip(whole, one, strict=True)))) for one in sums] if n > 1 else []
    known = [value for value in left if value is not None]
    return float(np.sqrt((n - 1) * np.var(known))) if known and len(known) == n else None


def _add(sums: Sequence[Sums]) -> Sums:
    inside, inside_pixels, outside, outside_pixels, boxes, empty = np.sum(sums, axis=0).tolist()
    return Sums(inside, inside_pixels, outside, outside_pixels, boxes, empty)


def box_masks(objects: Sequence[RelativeBox], size: tuple[int, int]) -> np.ndarray:
    """Find the pixels (n, H, W) of each box by the model's rule: centres inside, at least one pixel."""
    boxes = torch.from_numpy(boxes_array(objects)).float()[None]
    return box_indicator(at_least_one_pixel(boxes, size), size)[0].bool().numpy()


# The metric


def folders_of(comparison: Comparison) -> list[Path]:
    """Return the folders of the samples' runs; ValueError where no model made them."""
    folders = runs_of(Path(comparison.options.samples))
    if not folders:
        raise ValueError(
            f"{comparison.options.samples}: no model made these pictures, as far as a manifest.jsonl tells"
        )
    return folders


def check(comparison: Comparison) -> None:
    for folder in folders_of(comparison):
        check_good_parts(folder)


def pair_runs(comparison: Comparison) -> tuple[list[Pairs], dict]:
    """Pair the samples of each run with their good parts; also return the settings of the last run."""
    pairs: list[Pairs] = []
    settings: dict = {}
    for folder in folders_of(comparison):
        of_run, settings = pair_with_good_parts(
            folder, comparison.options.batch_size, comparison.device, comparison.world
        )
        pairs.append(of_run)
    return pairs, settings


def in_out_figures(comparison: Comparison, found: tuple[list[Pairs], dict]) -> list[Figure]:
    pairs, settings = found
    result = measure(itertools.chain(*pairs))
    protocol = comparison.facts(with_reference=False) | {
        "boxes": result.boxes,
        "pictures_with_boxes": result.pictures,
        **{name: value for name, value in settings.items() if name != "run"},
    }
    details = {"inside": result.inside, "outside": result.outside, "per_class": result.per_class}
    figures = [
        ("in/out ratio", result.ratio, "higher", result.ratio_error),
        ("empty boxes", result.empty_rate, "lower", result.empty_rate_error),
    ]
    return [
        Figure(name, value, better, error, "standard error, jackknife" if error else "", protocol, details)
        for name, value, better, error in figures
        if value is not None
    ]


METRIC = Metric(check, pair_runs, in_out_figures)
