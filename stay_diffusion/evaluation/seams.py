"""Measure visible edges around objects inserted into whole images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..data.manifest import ManifestEntry
from ..data.native import read_native
from ..sampling.insertion.windows import changing_area, margin_of

INSIDE = 2  # pixels from the edge at which the drawn pixels' own steps are taken


@dataclass(frozen=True)
class Seams:
    """Mean steps across the edges, in shares of the range: of the results, of their sources, and of what was drawn."""

    pictures: int
    objects: int
    changed_outside: int
    step: float
    source_step: float
    drawn_step: float

    @property
    def ratio(self) -> float | None:
        return self.step / self.source_step if self.source_step else None


def measure(cases: Iterator[tuple[NDArray, NDArray, NDArray, int]]) -> Seams:
    """Measure over (result (H, W[, 3]), source alike, what may change (H, W) bool, number of objects)."""
    steps, source_steps, drawn_steps, pictures, objects, outside = [], [], [], 0, 0, 0
    for result, source, area, count in cases:
        pictures, objects = pictures + 1, objects + count
        different = result != source
        outside += int((different if different.ndim == 2 else different.any(axis=-1))[~area].sum())
        white = np.iinfo(source.dtype).max
        shown, before = (_grey(values) / white for values in (result, source))
        steps.append(_steps(shown, area))
        source_steps.append(_steps(before, area))
        drawn_steps.append(_steps(shown, ndimage.binary_erosion(area, iterations=INSIDE, border_value=1)))
    if not objects:
        raise ValueError("no object was put into these pictures: nothing to measure")
    mean = [float(np.concatenate(each).mean()) for each in (steps, source_steps, drawn_steps)]
    return Seams(pictures, objects, outside, *mean)


def _steps(values: NDArray, area: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return |difference| of all neighbours of which one is in the area and the other is not."""
    found = []
    for axis in (0, 1):
        crosses = np.diff(area.astype(np.int8), axis=axis) != 0
        found.append(np.abs(np.diff(values, axis=axis))[crosses])
    return np.concatenate(found)


def _grey(values: NDArray) -> NDArray[np.float64]:
    return values.astype(np.float64) if values.ndim == 2 else values.mean(axis=-1)


def cases_of(folder: Path, entries: list[ManifestEntry]) -> Iterator[tuple[NDArray, NDArray, NDArray, int]]:
    """Yield each image with its source, and the area that `box_margin` let change."""
    for entry in entries:
        result, source = read_native(folder / entry.file), read_native(folder / "images" / f"{entry.stem}.png")
        height, width = source.shape[:2]
        area, drawn = np.zeros((height, width), dtype=bool), 0
        for new in entry.new_objects:
            box = new.pixels(width, height).edges
            x0, y0, x1, y1 = changing_area(box, margin_of(box, entry.settings["box_margin"]), (width, height))
            area[y0:y1, x0:x1], drawn = True, drawn + 1
        yield result, source, area, drawn
