"""What a set of layouts is like, in numbers to be drawn beside another set's."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import boxes_array
from .items import LayoutItem

# The same for every set, so that two can be laid over each other.
SIDES = np.geomspace(0.005, 1, 25)  # edges of bins of widths and heights, in shares of the picture's sides
AREAS = np.geomspace(0.0001, 1, 25)  # of areas, in shares of the picture's
CELLS = 8  # along each side of the map of centres


def histograms(layouts: Sequence[LayoutItem]) -> dict:
    """Counts that go into JSON as they are, of boxes clipped to their pictures:

    {"layouts": int, "objects": int,
     "classes": {NAME: int}, "products": {NAME, or "" for none: int}, both by name,
     "objects_per_layout": [int, ...], at place n the layouts of n objects, up to the most,
     "width", "height", "area": {"edges": [25 floats], "counts": [24 ints]}, bins of even logarithm in shares of the
         picture's side or area, those below and above counted in the outermost,
     "centres": [8 rows of 8 ints], boxes whose centre lies in that cell of the picture, rows from top to bottom}
    """
    boxes = [box for layout in layouts for box in layout.objects]
    edges = boxes_array(boxes).clip(0, 1)
    sides, centres = edges[:, 2:] - edges[:, :2], (edges[:, :2] + edges[:, 2:]) / 2
    places, _, _ = np.histogram2d(centres[:, 1], centres[:, 0], bins=CELLS, range=((0, 1), (0, 1)))
    return {
        "layouts": len(layouts),
        "objects": len(boxes),
        "classes": dict(sorted(Counter(box.label for box in boxes).items())),
        "products": dict(sorted(Counter(layout.product or "" for layout in layouts).items())),
        "objects_per_layout": np.bincount(np.array([len(each.objects) for each in layouts], int)).tolist(),
        "width": _binned(sides[:, 0], SIDES),
        "height": _binned(sides[:, 1], SIDES),
        "area": _binned(sides.prod(axis=1), AREAS),
        "centres": places.astype(int).tolist(),
    }


def _binned(values: NDArray, edges: NDArray) -> dict:
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
