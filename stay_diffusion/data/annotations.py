"""ImageRecord, Box and Vocabulary: what every annotation format reads into and writes from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .codings import Coding

# A box whose edges all lie within this share of the side from the picture's edges covers the whole picture.
WHOLE_IMAGE_TOLERANCE = 0.01
NAMES_SHOWN = 20


class AnnotationError(ValueError):
    """An annotation file, or what it says, cannot be used; the message names the file."""


class EmptySplit(AnnotationError):
    """There are no pictures in the split that was asked for."""


@dataclass(frozen=True, slots=True)
class _Rectangle:
    label: str
    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def edges(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    def array(self) -> NDArray[np.float64]:
        """The edges x0 y0 x1 y1, (4,)."""
        return np.array(self.edges, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Box(_Rectangle):
    """One labelled rectangle, x0 y0 x1 y1 in pixels of the upright image, origin top-left."""

    def relative(self, width: float, height: float) -> "RelativeBox":
        return RelativeBox(self.label, self.x0 / width, self.y0 / height, self.x1 / width, self.y1 / height)

    def covers(self, width: int, height: int) -> bool:
        dx, dy = WHOLE_IMAGE_TOLERANCE * width, WHOLE_IMAGE_TOLERANCE * height
        return self.x0 <= dx and self.y0 <= dy and self.x1 >= width - dx and self.y1 >= height - dy


@dataclass(frozen=True, slots=True)
class RelativeBox(_Rectangle):
    """One labelled rectangle, x0 y0 x1 y1 in shares of the image's width and height; beyond [0, 1] is outside."""

    def pixels(self, width: float, height: float) -> Box:
        return Box(self.label, self.x0 * width, self.y0 * height, self.x1 * width, self.y1 * height)


def boxes_array(boxes: Iterable[Box] | Iterable[RelativeBox]) -> NDArray[np.float64]:
    """The edges of boxes, (N, 4), in their unit."""
    return np.array([box.edges for box in boxes], dtype=np.float64).reshape(-1, 4)


def label_boxes(boxes: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> tuple[RelativeBox, ...]:
    """Boxes (N, 4) in shares of the sides with the names of their labels (N,), from 1 on."""
    pairs = zip(np.asarray(boxes).tolist(), np.asarray(labels).tolist(), strict=True)
    return tuple(RelativeBox(classes[label - 1], *edges) for edges, label in pairs)


@dataclass(frozen=True, slots=True)
class MapFiles:
    """A picture's label map and, where there is one, its map of instances; `coding` says how their ids read."""

    labels: Path
    instances: Path | None
    coding: Coding


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and what is drawn on it: size in pixels, objects, and what the whole picture shows.

    With `maps` the objects are read from them with the picture. Width and height are 0 where no annotation has them.
    """

    path: Path
    width: int
    height: int
    boxes: tuple[Box, ...] = ()
    product: str | None = None
    maps: MapFiles | None = None

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def relative_boxes(self) -> tuple[RelativeBox, ...]:
        return tuple(box.relative(self.width, self.height) for box in self.boxes)


@dataclass(frozen=True)
class Vocabulary:
    """The names a model knows: class i of `classes` has label i + 1, product i of `products` id i + 1; 0 is unknown.

    `left_out` are those that its data have besides.
    """

    classes: tuple[str, ...]
    products: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def extended(self, new: "Vocabulary") -> "Vocabulary":
        """These names with the labels they have, then those that only `new` has, and what it leaves out."""
        classes, products = (
            tuple(dict.fromkeys((*known, *more)))
            for known, more in ((self.classes, new.classes), (self.products, new.products))
        )
        for name in new.classes + new.products:
            if name in classes and name in products:
                known, now = ("class", "product") if name in self.classes else ("product", "class")
                raise AnnotationError(f"{name!r} is a {known} of the trained model, but a {now} of the data")
        return Vocabulary(classes, products, new.left_out)

    def label_of(self, record: ImageRecord, box: Box | RelativeBox) -> int:
        if box.label not in self.classes:
            raise AnnotationError(self.unknown(record, box))
        return self.classes.index(box.label) + 1

    def unknown(self, record: ImageRecord, box: Box | RelativeBox) -> str:
        return f"{record.path}: unknown class {box.label!r}; known: {_listed(self.classes)}"

    def product_of(self, record: ImageRecord) -> int:
        if record.product is None:
            return 0
        if record.product not in self.products:
            known = _listed(self.products)
            raise AnnotationError(f"{record.path}: unknown product {record.product!r}; known: {known}")
        return self.products.index(record.product) + 1


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more or "none"


def find_product_tags(records: Iterable[ImageRecord]) -> tuple[str, ...]:
    """The tags that name products: those whose every box covers its whole image, in order of first appearance."""
    whole: dict[str, bool] = {}
    for record in records:
        for box in record.boxes:
            whole[box.label] = whole.get(box.label, True) and box.covers(record.width, record.height)
    return tuple(tag for tag, always in whole.items() if always)


def assign_products(records: Iterable[ImageRecord], product_tags: Sequence[str]) -> list[ImageRecord]:
    """Takes the boxes tagged with a product out of each record's objects and into its `product`.

    Raises AnnotationError where one image carries two different products.
    """
    if not product_tags:
        return list(records)
    assigned = []
    for record in records:
        products = {box.label for box in record.boxes if box.label in product_tags}
        if len(products) > 1:
            raise AnnotationError(f"{record.path}: more than one product: {', '.join(sorted(products))}")
        objects = tuple(box for box in record.boxes if box.label not in product_tags)
        product = products.pop() if products else record.product
        assigned.append(replace(record, boxes=objects, product=product))
    return assigned


def build_vocabulary(
    records: Iterable[ImageRecord], tags: Sequence[str] = (), products: Sequence[str] = ()
) -> Vocabulary:
    """The classes of `records`, products already assigned: `tags` first, in their order, then others as they appear."""
    found = dict.fromkeys(box.label for record in records for box in record.boxes)
    ordered = [tag for tag in tags if tag in found] + [label for label in found if label not in tags]
    return Vocabulary(classes=tuple(ordered), products=tuple(products))
