"""How classes, sizes and places are distributed in a set of layouts, counted so that two sets compare."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..markup import Corners

# Edges of bins, even in the logarithm: defects take from a hundredth of a side to all of it.
SIDES, AREAS = np.geomspace(0.01, 1, 17), np.geomspace(1e-4, 1, 17)
GRID = 12  # cells of a map of centres, across and down


class Histograms(NamedTuple):
    """Counts over the boxes of a set of layouts.

    `numbers` are pictures by their number of boxes; `widths`, `heights` (shares of the picture's sides) and `areas`
    are counts in the bins of SIDES and AREAS, what is smaller in the first; `centres` (GRID, GRID) per class.
    """

    pictures: int
    classes: Counter
    numbers: Counter
    widths: np.ndarray
    heights: np.ndarray
    areas: np.ndarray
    centres: dict[str, np.ndarray]

    @property
    def boxes(self) -> int:
        return self.classes.total()


def histograms(layouts: Iterable[Sequence[tuple[str, Corners]]]) -> Histograms:
    """Of layouts of (class, box in [0, 1]); of boxes over the border the part inside counts."""
    pictures, classes, numbers, corners, labels = 0, Counter(), Counter(), [], []
    for objects in layouts:
        pictures += 1
        numbers[len(objects)] += 1
        classes.update(label for label, _ in objects)
        labels += [label for label, _ in objects]
        corners += [box for _, box in objects]
    boxes = np.asarray(corners, dtype=np.float64).reshape(-1, 4).clip(0, 1)
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).T
    cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 * GRID).astype(int).clip(0, GRID - 1)
    centres = {label: np.zeros((GRID, GRID), dtype=int) for label in classes}
    for label, (column, row) in zip(labels, cells, strict=True):
        centres[label][row, column] += 1
    return Histograms(
        pictures,
        classes,
        numbers,
        widths=_binned(widths, SIDES),
        heights=_binned(heights, SIDES),
        areas=_binned(widths * heights, AREAS),
        centres=centres,
    )


def _binned(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values.clip(edges[0], edges[-1]), edges)[0]
