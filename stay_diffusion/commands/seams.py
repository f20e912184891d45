"""Measure visible edges around objects inserted into whole images. Needs nothing but the results folder.

    python evaluations/seams.py RESULTS

RESULTS is a folder made by image_sample.py --insert_into or --edit. Counted are pixels that differ from the source
where nothing may have changed: there must be none. Along the edges of what may change, the step from each pixel inside
to its neighbour outside is held against the same step in the source: 1 is a passage that the source itself could have,
more is a seam. Reported in shares of the range of grey levels, with the drawn pixels' own steps just inside the edges.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.manifest import ManifestEntry, read_run
from ..data.native import read_native
from ..run.checkpoint import atomic_write
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
        from scipy import ndimage

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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("results", type=Path, help="folder made by image_sample.py --insert_into or --edit")
    folder = parser.parse_args().results
    by_index = read_run(folder)
    entries = [entry for _, entry in sorted(by_index.items())]
    if not entries or not entries[0].source_image:
        raise ValueError(f"{folder}: no pictures made by image_sample.py --insert_into or --edit in it")
    found = measure(cases_of(folder, entries))

    box_margin = entries[0].settings["box_margin"]
    ratio = "none" if found.ratio is None else f"{found.ratio:.2f}"
    print(f"insertion: {found.objects} objects in {found.pictures} pictures, box_margin {box_margin:g}")
    print(f"  pixels changed where none may be  {found.changed_outside}")
    print(f"  step across the edges             {found.step:.4f} of the range")
    print(f"  the same in the sources           {found.source_step:.4f}, ratio {ratio}")
    print(f"  the drawn pixels' own, {INSIDE} inside    {found.drawn_step:.4f}")
    figures = {**vars(found), "ratio": found.ratio, "box_margin": box_margin}
    atomic_write(folder / "seams.json", lambda file: file.write((json.dumps(figures, indent=2) + "\n").encode()))
    return 0 if not found.changed_outside else 1
