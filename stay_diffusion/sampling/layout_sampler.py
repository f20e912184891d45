"""New layouts like those of the training data, or with other shares of classes and good parts: `--layouts sampled`."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Box, Vocabulary
from .layout_plan import BalancedPlan, DataPlan
from .layout_statistics import LayoutStatistics
from .layouts import LayoutItem
from .object_places import ObjectPlaces, PixelBox

AS_DATA = -1.0  # good_parts
TRIES = 50  # places tried for an object that must not overlap others
DECIMALS = 6  # of boxes in [0, 1]
LAYOUT, PLAN, SHIFT = 1, 2, 3  # streams of random numbers from one seed


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
        self.shares = wanted_shares(class_balance, statistics.classes, self.counts.sum(axis=0))
        if rare_first and self.shares is None:
            raise ValueError("--rare_first True: --class_balance data leaves no class behind; give uniform or weights")
        self.already = statistics.training_objects if rare_first else np.zeros(shape[1])
        if not self.counts.any() and good_parts not in (AS_DATA, 1):
            raise ValueError(f"--good_parts {good_parts:g}: the training data hold no object to draw others like it")
        self._shift = np.random.default_rng((seed, SHIFT)).random()
        self._plan = cache(self._make_plan)

    def draw(
        self, index: int, size: tuple[float, float] | None = None, product: str | None = None
    ) -> tuple[str | None, tuple[Box, ...]]:
        """Layout `index` for a picture of `size`, width and height in pixels: its product and boxes in [0, 1] of it.

        Objects keep their size in pixels; without `size` the picture is as large as the one of the data that the layout
        takes after. A `product` asked for is taken, with the classes that the data show on it. The product is None
        where it is unknown. Boxes leave the picture where "seen" ones do, cut by the edge of a crop; else never.
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
        width, height = size or self.statistics.sizes[of].tolist()
        boxes: list[Box] = []
        for label in rng.permutation(classes) + 1:
            box = self._free_box(int(label), drawn, (width, height), boxes, rng)
            if box:
                boxes.append(box)
        return product or self._name(drawn), tuple(boxes)

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

    def _free_box(self, label: int, product: int, size, boxes: list[Box], rng: np.random.Generator) -> Box | None:
        name = self.statistics.classes[label - 1]
        for _ in range(TRIES):
            box = in_shares(name, self.places.draw(label, product, size, rng), size)
            if not self.no_overlap or not any(overlap(box, other) for other in boxes):
                return box
        return None

    def _product_id(self, product: str) -> int:
        if product not in self.vocabulary.products:
            known = ", ".join(self.vocabulary.products) or "none"
            raise ValueError(f"unknown product {product!r}; known: {known}")
        names = self.statistics.products
        return names.index(product) + 1 if product in names else len(names) + 1

    def _name(self, product: int) -> str | None:
        return (None, *self.statistics.products)[product]


def wanted_shares(class_balance: Sequence[str], classes: Sequence[str], counts: NDArray) -> NDArray | None:
    """The share (K,) of each class that has objects, or None for the data's own."""
    typed = f"--class_balance {','.join(class_balance)}"
    if tuple(class_balance) == ("data",):
        return None
    weights = np.zeros(len(classes))
    if tuple(class_balance) == ("uniform",):
        weights[counts > 0] = 1
    for word in class_balance if tuple(class_balance) != ("uniform",) else ():
        name, equals, weight = word.rpartition("=")
        if not equals:
            raise ValueError(f"{typed}: expected data, uniform, or CLASS=WEIGHT,...")
        if name not in classes:
            raise ValueError(f"{typed}: unknown class {name!r}; known: {', '.join(classes)}")
        try:
            weights[classes.index(name)] = float(weight)
        except ValueError:
            raise ValueError(f"{typed}: {weight!r} is no weight") from None
        if counts[classes.index(name)] == 0 and weights[classes.index(name)]:
            raise ValueError(f"{typed}: the training data hold no object of class {name!r}")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"{typed}: expected weights of 0 and above")
    if not weights.any():
        raise ValueError(f"{typed}: leaves no class that has training objects")
    return weights / weights.sum()


def in_shares(name: str, box: PixelBox, size: tuple[float, float]) -> Box:
    shares = (round(float(edge) / side, DECIMALS) for edge, side in zip(box, (*size, *size), strict=True))
    return Box(name, *shares)


def overlap(one: Box, other: Box) -> bool:
    return min(one.x1, other.x1) > max(one.x0, other.x0) and min(one.y1, other.y1) > max(one.y0, other.y0)
