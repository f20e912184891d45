"""Windows of a whole image: the areas around boxes that may change, and what the model sees of them.

Boxes and areas are x0 y0 x1 y1 in pixels of the image, areas in whole ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Area = tuple[int, int, int, int]

LEAST_MARGIN = 4  # pixels around a box in which the picture passes over into the drawn one
CONTEXT = 1 / 16  # of a window's side, on each side of what may change: shows the picture as it is
FEATHER = 0.5  # of the margin: what is nearer to the box is wholly drawn, the rest passes over


@dataclass(frozen=True)
class Window:
    """A part of an image that the model sees, and in it the areas around objects that may change, by their places."""

    area: Area
    changing: tuple[Area, ...]
    objects: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, slice]:
        x0, y0, x1, y1 = self.area
        return slice(y0, y1), slice(x0, x1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        x0, y0, x1, y1 = self.area
        return y1 - y0, x1 - x0

    def opacity(self, margins: Sequence[int], picture: tuple[int, int]) -> NDArray[np.float64]:
        """The share of each pixel (h, w) that is drawn: 1 in and around boxes, falling to 0 where nothing may change.

        Not towards the image's own edges: there is no seam. `margins` are those of the objects, `picture` its width
        and height.
        """
        x0, y0, x1, y1 = self.area
        opacity = np.zeros(self.size)
        for area, margin in zip(self.changing, margins, strict=True):
            across = _ramp(np.arange(x0, x1) + 0.5, area[0], area[2], FEATHER * margin, picture[0])
            down = _ramp(np.arange(y0, y1) + 0.5, area[1], area[3], FEATHER * margin, picture[1])
            opacity = np.maximum(opacity, np.minimum(across[None], down[:, None]))
        return opacity

    def covered(self, boxes: NDArray) -> NDArray[np.bool_]:
        """Mark the pixels (h, w) that boxes (n, 4) cover, wholly or in part."""
        x0, y0, _, _ = self.area
        covered = np.zeros(self.size, dtype=bool)
        for left, top, right, bottom in boxes - (x0, y0, x0, y0):
            columns, rows = ((max(math.floor(a), 0), max(math.ceil(b), 0)) for a, b in ((left, right), (top, bottom)))
            covered[slice(*rows), slice(*columns)] = True
        return covered

    def keep(self, opacity: NDArray, size: int) -> Tensor:
        """Mark the model's pixels (1, size, size) that are known: those of which nothing is drawn."""
        drawn = torch.from_numpy(opacity > 0)[None, None].float()
        return torch.nn.functional.adaptive_max_pool2d(drawn, (size, size))[0] == 0


def margin_of(box: Sequence[float], share: float) -> int:
    """The pixels around its box, on each side, in which an object may change the image."""
    x0, y0, x1, y1 = box
    return max(LEAST_MARGIN, round(share * max(x1 - x0, y1 - y0)))


def windows_of(
    boxes: NDArray, margins: Sequence[int], picture: tuple[int, int], native: tuple[float, float]
) -> list[Window]:
    """Lay windows that hold every box with its margin, near ones together, in the order of their first boxes.

    `picture` is its width and height, `native` those of a window at the scale that the model knows. A window is larger
    where its objects need it, and never leaves the image.
    """
    groups: list[tuple[list[int], Area]] = []
    for i, (box, margin) in enumerate(zip(boxes, margins, strict=True)):
        area = changing_area(box, margin, picture)
        members = [i]
        for other in [group for group in groups if _fits(_union(group[1], area), native)]:
            groups.remove(other)
            members, area = other[0] + members, _union(other[1], area)
        groups.append((members, area))
    return [
        Window(
            _around(area, picture, native),
            tuple(changing_area(boxes[i], margins[i], picture) for i in sorted(members)),
            tuple(sorted(members)),
        )
        for members, area in sorted(groups, key=lambda group: min(group[0]))
    ]


def changing_area(box: Sequence[float], margin: int, picture: tuple[int, int]) -> Area:
    """The area of an image of width and height that an object in a box may change."""
    x0, y0, x1, y1 = box
    width, height = picture
    return (
        max(math.floor(x0) - margin, 0),
        max(math.floor(y0) - margin, 0),
        min(math.ceil(x1) + margin, width),
        min(math.ceil(y1) + margin, height),
    )


def _union(a: Area, b: Area) -> Area:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _fits(area: Area, native: tuple[float, float]) -> bool:
    """True if the model sees an area at its own scale, with context around it."""
    most = 1 - 2 * CONTEXT
    return area[2] - area[0] <= most * native[0] and area[3] - area[1] <= most * native[1]


def _around(area: Area, picture: tuple[int, int], native: tuple[float, float]) -> Area:
    spans = []
    for low, high, length, side in zip(area[:2], area[2:], picture, native, strict=True):
        needed = (high - low) / (1 - 2 * CONTEXT)  # context on both sides, also where the picture ends
        extent = min(max(round(side), math.ceil(needed) if high - low > side * (1 - 2 * CONTEXT) else 0), length)
        start = min(max((low + high - extent) // 2, 0), length - extent)
        spans.append((start, start + extent))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


def _ramp(centres: NDArray, low: int, high: int, slope: float, length: int) -> NDArray:
    """Rise from 0 at the edges of low .. high to 1 `slope` pixels inside, without a slope where the image ends."""
    from_low = np.full(centres.shape, np.inf) if low == 0 else centres - low
    from_high = np.full(centres.shape, np.inf) if high == length else high - centres
    inside = (centres > low) & (centres < high)
    return np.where(inside, np.minimum(np.minimum(from_low, from_high) / slope, 1), 0.0)
