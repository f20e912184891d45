"""The parts of a label map that are objects: its instances and its connected components."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..codings import Ids

Part = tuple[int, int, tuple[int, int, int, int]]  # area in pixels, label, box


def instance_parts(labels: Ids, numbers: Ids) -> Iterator[Part]:
    """Yields a Part for every number, its label the one that most of its pixels have."""
    from scipy import ndimage

    found, compact = np.unique(numbers, return_inverse=True)
    for number, window in zip(found, ndimage.find_objects(compact.reshape(labels.shape) + 1), strict=True):
        if number >= 0:
            inside = numbers[window] == number
            counts = np.bincount(labels[window][inside])
            yield _part(inside & (labels[window] == counts.argmax()), int(counts.argmax()), window)


def connected_parts(labels: Ids) -> Iterator[Part]:
    """Yields a Part for every connected component of a label; label 0 is nothing."""
    from scipy import ndimage

    touching = np.ones((3, 3))
    for label, window in enumerate(ndimage.find_objects(labels), 1):
        if window is None:
            continue
        parts, _ = ndimage.label(labels[window] == label, structure=touching)
        for number, inner in enumerate(ndimage.find_objects(parts), 1):
            rows, columns = (slice(w.start + i.start, w.start + i.stop) for w, i in zip(window, inner, strict=True))
            yield _part(parts[inner] == number, label, (rows, columns))


def _part(mask: NDArray[np.bool_], label: int, window: tuple[slice, slice]) -> Part:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = window[0].start, window[1].start
    x0, x1 = left + int(columns[0]), left + int(columns[-1]) + 1
    return int(mask.sum()), label, (x0, top + int(rows[0]), x1, top + int(rows[-1]) + 1)
