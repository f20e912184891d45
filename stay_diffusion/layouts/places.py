"""Where an object of a class lies and how large it is, drawn like the data's own.

Width and height are those of one object of the data, varied a little, so that they stay joint; so are its borders:
clear of an edge of the picture, or at it, and how far others may cover it. Where it is clear it lies where an object of
about its size lies, varied by the width of a smoothing kernel: an empirical map of the positions, for each size.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .statistics import LayoutStatistics

FEW = 10  # objects of a kind, below which those of a wider one are taken
AT_EDGE = 0.5  # pixels from an edge within which an object is at it
SIZE_JITTER = 0.05  # deviation of the logarithm of width and height, at most twice that
NEIGHBOURS = 8  # of an object in size, at least; else the root of how many there are
BREADTH, BROADEST = 0.5, 0.05  # of the kernel: in deviations of a single object's position; in shares of the side


class Objects(NamedTuple):
    """n objects: sides (n, 2) and gaps to the left, top, right and bottom edge (n, 4), in pixels of pictures (n, 2).

    at (n, 4): whether an object is at the edge; margins (4,): the least gap of those that are not; shared (n,): its
    largest `overlap` with another of its picture.
    """

    sides: NDArray[np.float64]
    gaps: NDArray[np.float64]
    pictures: NDArray[np.float64]
    at: NDArray[np.bool_]
    margins: NDArray[np.float64]
    shared: NDArray[np.float64]


class Spots(NamedTuple):
    """Where m objects lie: logarithms of their sides and centres in shares (m, 2), kernel and range of these (2,)."""

    log_sides: NDArray[np.float64]
    centres: NDArray[np.float64]
    kernel: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]


class Kind(NamedTuple):
    """Whose places are drawn: label in 1..K, product, 0 if unknown, and how many objects the picture holds in all."""

    label: int
    product: int
    number: int


class ObjectPlaces:
    """Draws boxes by kind from statistics of layouts."""

    def __init__(self, statistics: LayoutStatistics):
        self.statistics = statistics
        self._shared = np.concatenate([most_shared(boxes) for _, _, boxes, _ in statistics.pictures()])
        self._crowd = crowd(np.bincount(statistics.picture, minlength=len(statistics)))[statistics.picture]
        self._objects = cache(self._find_objects)
        self._spots = cache(self._find_spots)

    def choose(self, kind: Kind, rng: np.random.Generator) -> tuple[int, float]:
        """One of the data's objects to take after, and its largest overlap with another of its picture."""
        objects = self._objects(kind)
        own = int(rng.integers(len(objects.sides)))
        return own, float(objects.shared[own])

    def draw(
        self, kind: Kind, own: int, size: tuple[float, float], number: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Boxes (number, 4) in pixels of a picture of `size`, each taking after the object chosen.

        They leave the picture only where the data's objects do; what is larger than the picture is cut to it.
        """
        objects = self._objects(kind)
        jitter = np.exp(SIZE_JITTER * rng.standard_normal((number, 2)).clip(-2, 2))
        centres = self._centres(kind, own, number, rng)
        coins = rng.random((number, 2)) < 0.5
        spans = [
            _spans(objects, own, axis, float(size[axis]), jitter[:, axis], centres[:, axis], coins[:, axis])
            for axis in (0, 1)
        ]
        return np.stack([edges[place] for place in (0, 1) for edges in spans], axis=1)

    def _centres(self, kind: Kind, own: int, number: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """x and y (number, 2) in shares of the picture's sides, of use where the object is clear of both edges."""
        objects = self._objects(kind)
        along_x, along_y = (bool(clear) for clear in ~(objects.at[own, :2] | objects.at[own, 2:]))
        noise, choices = rng.standard_normal((number, 2)), rng.random(number)
        if not (along_x or along_y):
            return np.zeros((number, 2))
        spots = self._spots(kind, along_x, along_y)
        distances = ((spots.log_sides - np.log(objects.sides[own])) ** 2).sum(axis=1)
        most = min(max(NEIGHBOURS, round(len(distances) ** 0.5)), len(distances))
        near = np.argpartition(distances, most - 1)[:most]
        centres = spots.centres[near[(choices * most).astype(int)]] + spots.kernel * noise
        return _folded(centres, spots.least, spots.most)

    def _find_objects(self, kind: Kind) -> Objects:
        """Those of a class, of its product and in pictures about as full where there are not too few."""
        data = self.statistics
        chosen = data.label == kind.label
        for narrower in (data.product[data.picture] == kind.product, self._crowd == crowd(kind.number)):
            if (chosen & narrower).sum() >= FEW:
                chosen = chosen & narrower
        boxes, pictures = data.boxes[chosen], data.sizes[data.picture[chosen]]
        gaps = np.concatenate([boxes[:, :2], pictures - boxes[:, 2:]], axis=1)
        at = gaps <= AT_EDGE
        margins = np.where(at, np.inf, gaps).min(axis=0)
        margins = np.where(margins < np.inf, margins, 0)
        return Objects(boxes[:, 2:] - boxes[:, :2], gaps, pictures, at, margins, self._shared[chosen])

    def _find_spots(self, kind: Kind, along_x: bool, along_y: bool) -> Spots:
        """Those of the objects that are clear of both edges along the axes named."""
        sides, gaps, pictures, at, _, _ = self._objects(kind)
        clear = ~(at[:, :2] | at[:, 2:])
        chosen = (clear | ~np.array([along_x, along_y])).all(axis=1)
        centres = ((gaps[:, :2] + sides / 2) / pictures)[chosen]
        kernel = (BREADTH * centres.std(axis=0) * len(centres) ** -0.2).clip(max=BROADEST)
        return Spots(np.log(sides[chosen]), centres, kernel, centres.min(axis=0), centres.max(axis=0))


def crowd(number):
    """How full a picture of so many objects is: 1, 2, 3 to 4, 5 to 8, ... objects are alike."""
    return np.ceil(np.log2(np.maximum(number, 1)))


def overlap(boxes: NDArray, others: NDArray) -> NDArray[np.float64]:
    """What boxes (m, 4) share with others (n, 4), in shares of the smaller one's area, (m, n)."""
    one, other = boxes[:, None], others[None]
    shared = (np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])).clip(min=0)
    areas, other_areas = ((each[..., 2:] - each[..., :2]).prod(axis=-1) for each in (one, other))
    return shared.prod(axis=-1) / np.minimum(areas, other_areas)


def most_shared(boxes: NDArray) -> NDArray[np.float64]:
    """For each of a picture's boxes (n, 4) its largest overlap with another, 0 where there is none, (n,)."""
    shared = overlap(boxes, boxes)
    np.fill_diagonal(shared, 0)
    return shared.max(axis=1, initial=0)


def _spans(
    objects: Objects, own: int, axis: int, length: float, jitter: NDArray, centres: NDArray, coins: NDArray
) -> tuple[NDArray, NDArray]:
    """Starts and ends (n,) along an axis of `length` pixels, for the borders of object `own`."""
    at_start: NDArray | bool
    at_end: NDArray | bool
    at_start, at_end = (bool(at) for at in objects.at[own, axis::2])
    first, last = objects.gaps[own, axis::2, None] * jitter  # below 0 where the object is cut
    if at_start and at_end:
        if length <= objects.pictures[own, axis]:
            return first, length - last
        at_start, at_end = coins, ~coins  # what reaches across a smaller picture is at one edge of this one
    # Jitter alone takes no object to an edge that the data's are clear of.
    margins = objects.margins[axis::2].clip(max=BROADEST * length)
    near, far = np.where(at_start, first, margins[0]), np.where(at_end, last, margins[1])
    own_side, room = float(objects.sides[own, axis]), length - near - far
    sides = own_side * jitter
    sides = np.where(sides > room, np.maximum(min(own_side, length), room), sides)
    starts = _folded(centres * length - sides / 2, near, length - far - sides)
    starts = np.where(at_start, near, np.where(at_end, length - far - sides, starts.clip(max=length - sides)))
    starts = np.where(at_start, starts, starts.clip(min=0))
    return starts, np.where(at_end, length - far, np.minimum(starts + sides, length))


def _folded(value, least, most):
    """Mirrored at the ends of a range, so that none of what a kernel adds is lost; in the middle of a range of none."""
    mirrored = np.where(value < least, 2 * least - value, np.where(value > most, 2 * most - value, value))
    return np.where(most > least, np.clip(mirrored, least, most), (least + most) / 2)
