"""Adherence: how much more the objects of a layout change inside their boxes than outside; higher keeps to the boxes.

python evaluations/adherence.py --samples RESULTS

RESULTS is a folder made by image_sample.py. Each layout is sampled once more with the same seed as a good part, the
product alone, by the model that its manifest names (box_adherence.py, which tells more of one folder); good parts that
are there already are kept. Where no model made the pictures there is nothing to hold them against.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ...data.annotations import RelativeBox, boxes_array
from ...models.object_masks import at_least_one_pixel, box_indicator

EMPTY_RATIO, EMPTY_LEVELS = 2.0, 2.0


class Sums(NamedTuple):
    """Over one picture or many: differences in grey levels and pixels, inside boxes and outside; boxes, empty ones."""

    inside: float
    inside_pixels: float
    outside: float
    outside_pixels: float
    boxes: float
    empty: float

    @property
    def ratio(self) -> float | None:
        """None where nothing outside the boxes differs: any number would say more than is known."""
        inside, outside = self.inside / max(self.inside_pixels, 1), self.outside / max(self.outside_pixels, 1)
        return float(inside / outside) if outside else None

    @property
    def empty_rate(self) -> float:
        return float(self.empty / self.boxes)


@dataclass(frozen=True)
class Adherence:
    """Mean absolute differences in grey levels of 255; counts of boxes and of those in which nothing happened.

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


def measure(pairs: Iterable[tuple[np.ndarray, np.ndarray, Sequence[RelativeBox]]]) -> Adherence:
    """Adherence over (with defects (H, W, C) uint8, as a good part (H, W, C) uint8, boxes in [0, 1]) triples.

    Left out are boxes without a pixel in their picture, and pictures without boxes: their good part is the same picture
    once more, so that they would raise the ratio for nothing. ValueError if there is no box at all.
    """
    pictures: list[Sums] = []
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
        sides = (difference[union].sum(), union.sum(), difference[~union].sum(), (~union).sum())
        pictures.append(Sums(*map(float, sides), len(found), sum(empty for *_, empty in found)))
    if not pictures:
        raise ValueError("no layout has a box: nothing to measure")
    whole = Sums(*np.sum(pictures, axis=0))
    return Adherence(
        inside=float(whole.inside / whole.inside_pixels),
        outside=float(whole.outside / max(whole.outside_pixels, 1)),
        ratio=whole.ratio,
        empty=int(whole.empty),
        boxes=int(whole.boxes),
        pictures=len(pictures),
        per_class={
            label: {
                "boxes": len(values),
                "difference": float(np.mean([level for level, _ in values])),
                "empty": int(sum(empty for _, empty in values)),
            }
            for label, values in sorted(of_class.items())
        },
        ratio_error=jackknife(pictures, lambda sums: sums.ratio),
        empty_rate_error=jackknife(pictures, lambda sums: sums.empty_rate),
    )


def jackknife(pictures: Sequence[Sums], figure: Callable[[Sums], float | None]) -> float | None:
    """The standard error of a figure of all pictures, from how it changes as each of them is left out."""
    n, whole = len(pictures), np.sum(pictures, axis=0)
    found = [figure(Sums(*(whole - one))) for one in pictures] if n > 1 else [None]
    return None if None in found else float(np.sqrt((n - 1) * np.var(found)))


def box_masks(objects: Sequence[RelativeBox], size: tuple[int, int]) -> np.ndarray:
    """Which pixels (n, H, W) belong to each box, by the model's rule: centres inside, at least one pixel."""
    boxes = torch.from_numpy(boxes_array(objects)).float()[None]
    return box_indicator(at_least_one_pixel(boxes, size), size)[0].bool().numpy()
