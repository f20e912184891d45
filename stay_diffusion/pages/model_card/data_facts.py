"""Facts of the training data, as far as layout_statistics.json says, and the limits of the model that follow."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...layouts.statistics import MOST_PICTURES, LayoutStatistics

FEW_BOXES = 100  # of a class: under it the card warns
PERCENTILES = (5, 50, 95)


class ClassSizes(NamedTuple):
    """A class: its training boxes, and their sides in pixels as median (5 to 95 %)."""

    name: str
    num_boxes: float
    width: str
    height: str
    seen_width: str


class DataCounts(NamedTuple):
    """Counts of the training data; `sizes` and `products` are pairs of name and number of images."""

    num_images: int
    is_sample: bool
    num_boxes: int
    num_bare: int
    sizes: list[tuple[str, int]]
    products: list[tuple[str, int]]
    num_unknown: int
    classes: list[ClassSizes]


def count_data(statistics: dict[str, LayoutStatistics]) -> DataCounts:
    """Count images, boxes, products and classes; `statistics` by kind, "seen" and "whole"."""
    whole, seen = statistics["whole"], statistics["seen"]
    products = np.bincount(whole.product, minlength=len(whole.products) + 1).tolist()
    classes = []
    for number, name in enumerate(whole.classes, 1):
        sides, seen_sides = (_sides(each.boxes[each.label == number]) for each in (whole, seen))
        spreads = _spread(sides[:, 0]), _spread(sides[:, 1]), _spread(seen_sides[:, 0])
        classes.append(ClassSizes(name, whole.training_objects[number - 1], *spreads))
    return DataCounts(
        num_images=len(whole),
        is_sample=len(whole) == MOST_PICTURES,
        num_boxes=len(whole.label),
        num_bare=len(whole) - len(np.unique(whole.picture)),
        sizes=Counter(f"{W:.0f} x {H:.0f}" for W, H in whole.sizes.tolist()).most_common(),
        products=list(zip(whole.products, products[1:], strict=True)),
        num_unknown=products[0],
        classes=classes,
    )


def data_limits(statistics: dict[str, LayoutStatistics] | None) -> list[str]:
    """Name what the counts make doubtful."""
    if statistics is None:
        return ["How often each class was seen is not known."]
    whole, seen = statistics["whole"], statistics["seen"]
    counts = dict(zip(whole.classes, whole.training_objects.tolist(), strict=True))
    found = []
    if never := [name for name, count in counts.items() if not count]:
        found.append(f"Never seen in the training data, though known by name: {', '.join(never)}.")
    if few := [f"{name} ({count:.0f})" for name, count in counts.items() if 0 < count < FEW_BOXES]:
        found.append(f"Under {FEW_BOXES} training boxes: {', '.join(few)}.")
    if len(np.unique(whole.picture)) == len(whole):
        found.append("Every training picture has a box: pictures without any (good parts) were not seen whole.")
    most = int(np.bincount(seen.picture).max()) if len(seen.picture) else 0
    found.append(f"At most {most} boxes in a picture were seen in training.")
    if len(seen.label):
        low, _, high = np.percentile(_sides(seen.boxes).max(axis=1), PERCENTILES)
        found.append(f"Nine of ten boxes had a longer side of {low:.3g} to {high:.3g} pixels as the network saw them.")
    return found


def _sides(boxes: NDArray) -> NDArray[np.float64]:
    """Return widths and heights (n, 2) of boxes (n, 4)."""
    return boxes[:, 2:] - boxes[:, :2]


def _spread(values: NDArray | Sequence[float]) -> str:
    if not len(values):
        return ""
    low, median, high = np.percentile(values, PERCENTILES)
    return f"{median:.3g} ({low:.3g} to {high:.3g})"
