"""New layouts like those of the training data, or with other shares of classes and good parts: `--layouts sampled`."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import RelativeBox, Vocabulary, label_boxes
from .items import LayoutItem
from .places import Kind, ObjectPlaces, overlap
from .plan import BalancedPlan, DataPlan
from .statistics import LayoutStatistics

AS_DATA = -1.0  # good_parts
TRIES, OBJECTS = 20, 4  # places tried where others are in the way, with each of so many objects of the data
DECIMALS = 6  # of boxes in [0, 1]
CANDIDATES = 200  # places looked at where one is preferred to another
LAYOUT, PLAN, SHIFT = 1, 2, 3  # streams of random numbers from one seed
NOTHING = np.zeros((0, 4))  # boxes

# (class, boxes (m, 4) in [0, 1] of the picture, random numbers) -> which of the boxes an object takes
Prefer = Callable[[str, NDArray, np.random.Generator], int]


class LayoutSampler:
    """Layouts 0, 1, 2 ... of a seed; layout i is the same whichever are drawn, in any order, by any process.

    statistics: one kind of those of layout_statistics, "seen" for pictures as the model makes them, "whole" for the
    data's own. class_balance: ("data",), ("uniform",), or the classes' shares of the objects as ("CLASS=WEIGHT", ...),
    others not being drawn. rare_first: drawn and training objects together shall have these shares, so that classes
    with few training objects are drawn first, until they have caught up. good_parts: the share of layouts without
    objects, spread evenly; -1 as in the data. no_overlap: an object that finds no free place is left out; the first
    finds one.

    ValueError names the flag for classes and weights that cannot be.
    """

    def __init__(
        self,
        statistics: LayoutStatistics,
        vocabulary: Vocabulary,
        seed: int,
        class_balance: Sequence[str] = ("data",),
        rare_first: bool = False,
        good_parts: float = AS_DATA,
        no_overlap: bool = False,
    ):
        self.statistics, self.vocabulary, self.seed = statistics, vocabulary, seed
        self.good_parts, self.no_overlap = good_parts, no_overlap
        self.places = ObjectPlaces(statistics)
        shape = (len(statistics), len(statistics.classes))
        self.counts = np.zeros(shape, dtype=np.int64)
        np.add.at(self.counts, (statistics.picture, statistics.label - 1), 1)
        if good_parts != AS_DATA and not 0 <= good_parts <= 1:
            raise ValueError(f"--good_parts {good_parts:g}: expected a share of the layouts, or -1 for the data's own")
        self.shares = wanted_shares(class_balance, statistics.classes, self.counts.sum(axis=0))
        if rare_first and self.shares is None:
            raise ValueError("--rare_first True: --class_balance data leaves no class behind; give uniform or weights")
        self.already = statistics.training_objects if rare_first else np.zeros(shape[1])
        if not self.counts.any() and good_parts not in (AS_DATA, 1):
            raise ValueError(f"--good_parts {good_parts:g}: the training data hold no object to draw others like it")
        self._shift = np.random.default_rng((seed, SHIFT)).random()
        self._plan = cache(self._make_plan)

    def draw(
        self,
        index: int,
        size: tuple[float, float] | None = None,
        product: str | None = None,
        there: NDArray = NOTHING,
        prefer: Prefer | None = None,
    ) -> tuple[str | None, tuple[RelativeBox, ...]]:
        """Layout `index` for a picture of `size`, width and height in pixels: its product and boxes in [0, 1] of it.

        Objects keep their size in pixels; without `size` the picture is as large as the one of the data that the layout
        takes after. A `product` asked for is taken, with the classes that the data show on it. The product is None
        where it is unknown. Boxes leave the picture where "seen" ones do, cut by the edge of a crop; else never.

        `there` (n, 4) are boxes that no new one may overlap; one that finds no other place is left out. Of the places
        that an object can take, `prefer` chooses.
        """
        rng = np.random.default_rng((self.seed, LAYOUT, index))
        asked = None if product is None else self._product_id(product)
        is_good, place = self._turn(index)
        if is_good:
            drawn = int(self.statistics.product[rng.integers(len(self.statistics))])
            return product or self._name(drawn), ()
        pictures, plan = self._plan(asked)
        picture, classes = plan[place]
        of = pictures[picture]
        drawn = int(self.statistics.product[of]) if asked is None else asked
        size = size or self.statistics.sizes[of].tolist()
        placed, labels = np.zeros((0, 4)), []
        for label in (rng.permutation(classes) + 1).tolist():
            box = self._placed(Kind(label, drawn, len(classes)), size, placed, there, prefer, rng)
            if box is not None:
                placed = np.concatenate([placed, box[None]])
                labels.append(label)
        return product or self._name(drawn), label_boxes(placed, labels, self.statistics.classes)

    def items(self, num: int, size: tuple[float, float] | None = None) -> list[LayoutItem]:
        """The first `num` layouts as image_sample.py takes them."""
        drawn = (self.draw(index, size) for index in range(num))
        return [LayoutItem(f"sampled_{i:06d}", product, boxes, "sampled") for i, (product, boxes) in enumerate(drawn)]

    def _turn(self, index: int) -> tuple[bool, int]:
        """Whether layout `index` is a good part by --good_parts, and its place among those of its kind."""
        if self.good_parts == AS_DATA:
            return False, index
        before, after = (int(np.floor(i * self.good_parts + self._shift)) for i in (index, index + 1))
        return (True, before) if after > before else (False, index - before)

    def _make_plan(self, product: int | None) -> tuple[NDArray[np.int64], DataPlan | BalancedPlan]:
        """What decides on the classes of the layouts of a product, or of all, and the pictures that it knows."""
        usable = np.ones(len(self.counts), dtype=bool) if self.good_parts == AS_DATA else self.counts.any(axis=1)
        of_product = usable if product is None else usable & (self.statistics.product == product)
        wanted = self.counts.any(axis=0) if self.shares is None else self.shares > 0
        # A product that never shows what is asked for takes it from the others.
        pictures = np.flatnonzero(of_product if self.counts[of_product][:, wanted].any() else usable)
        counts, seed = self.counts[pictures], (self.seed, PLAN, 0 if product is None else product + 1)
        if self.shares is None:
            return pictures, DataPlan(counts, seed)
        shares = np.where(counts.any(axis=0), self.shares, 0)
        products = self.statistics.product[pictures]
        return pictures, BalancedPlan(counts, products, shares / shares.sum(), self.already, seed)

    def _placed(
        self, kind: Kind, size, placed: NDArray, there: NDArray, prefer: Prefer | None, rng: np.random.Generator
    ) -> NDArray | None:
        """A box (4,) in [0, 1] that overlaps those placed (n, 4) no more than the object it takes after does others.

        Where there is none in TRIES places for each of OBJECTS, the one that overlaps least; with --no_overlap None.
        """
        best, least = None, np.inf
        for _ in range(OBJECTS):
            own, allowed = self.places.choose(kind, rng)
            tries = CANDIDATES if prefer else TRIES
            boxes = np.round(self.places.draw(kind, own, size, tries, rng) / (*size, *size), DECIMALS)
            boxes = boxes[~overlap(boxes, there).any(axis=1)]
            shared = overlap(boxes, placed).max(axis=1, initial=0)
            fits = shared <= (0 if self.no_overlap else allowed)
            if fits.any():
                name = self.statistics.classes[kind.label - 1]
                return boxes[fits][prefer(name, boxes[fits], rng) if prefer else 0]
            if shared.min(initial=np.inf) < least:
                best, least = boxes[shared.argmin()], shared.min()
        return None if self.no_overlap else best

    def _product_id(self, product: str) -> int:
        if product not in self.vocabulary.products:
            known = ", ".join(self.vocabulary.products) or "none"
            raise ValueError(f"unknown product {product!r}; known: {known}")
        names = self.statistics.products
        return names.index(product) + 1 if product in names else len(names) + 1

    def _name(self, product: int) -> str | None:
        return (None, *self.statistics.products)[product]


def wanted_shares(class_balance: Sequence[str], classes: Sequence[str], counts: NDArray) -> NDArray | None:
    """The share (K,) of each class among the objects, of those with `counts` in the data; None for the data's own."""
    words, typed = tuple(class_balance), f"--class_balance {','.join(class_balance)}"
    if words == ("data",):
        return None
    weights = counts > 0 if words == ("uniform",) else np.array(_weights(words, classes, typed))
    for name, weight, count in zip(classes, weights, counts, strict=True):
        if weight and not count:
            raise ValueError(f"{typed}: the training data hold no object of class {name!r}")
    if not weights.any():
        raise ValueError(f"{typed}: leaves no class that has training objects")
    return weights / weights.sum()


def _weights(words: Sequence[str], classes: Sequence[str], typed: str) -> list[float]:
    weights = dict.fromkeys(classes, 0.0)
    for word in words:
        name, equals, weight = (part.strip() for part in word.rpartition("="))
        if not equals:
            raise ValueError(f"{typed}: expected data, uniform, or CLASS=WEIGHT,...")
        if name not in weights:
            raise ValueError(f"{typed}: unknown class {name!r}; known: {', '.join(classes)}")
        try:
            weights[name] = float(weight)
        except ValueError:
            raise ValueError(f"{typed}: {weight!r} is not a number") from None
        if not 0 <= weights[name] < np.inf:
            raise ValueError(f"{typed}: expected weights of 0 and above")
    return list(weights.values())
