"""What the layouts of the training data are like: the sample of them that new layouts are drawn from.

Counted twice: "seen", as the crops of training show them, and "whole", on the whole pictures in pixels.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import AnnotationError, label_boxes
from ..data.samples import LayoutDataset
from ..data.transforms import FIXED
from .items import LayoutItem

KINDS = ("seen", "whole")
MOST_PICTURES, MOST_MAPS = 10_000, 500  # of more, so many evenly spread: label maps must be read and taken apart
FEWEST_VIEWS = 2_000  # of crops that differ each time
DECIMALS = 2  # of pixels

# Width and height; product; boxes (n, 4) in pixels; labels (n,).
Picture = tuple[Sequence[float], int, NDArray, NDArray]


@dataclass(frozen=True, eq=False)
class LayoutStatistics:
    """N pictures with M objects.

    sizes (N, 2): width and height in pixels; product (N,): 1..P of `products`, 0 unknown; for each object its picture
    (M,) in 0..N-1, label (M,) in 1..K of `classes`, and boxes (M, 4), x0 y0 x1 y1 in pixels of the picture, beyond
    which an object cut by a crop reaches. training_objects (K,): how many of each class the training data hold in all.
    """

    classes: tuple[str, ...]
    products: tuple[str, ...]
    training_objects: NDArray[np.float64]
    sizes: NDArray[np.float64]
    product: NDArray[np.int64]
    picture: NDArray[np.int64]
    label: NDArray[np.int64]
    boxes: NDArray[np.float64]

    @classmethod
    def of(
        cls, classes: Sequence[str], products: Sequence[str], training_objects, pictures: Iterable[Picture]
    ) -> "LayoutStatistics":
        sizes, product, boxes, labels = zip(*pictures, strict=True)
        return cls(
            tuple(classes),
            tuple(products),
            np.asarray(training_objects, dtype=np.float64),
            np.array(sizes, dtype=np.float64).reshape(-1, 2),
            np.array(product, dtype=np.int64),
            np.repeat(np.arange(len(labels)), [len(each) for each in labels]),
            np.concatenate([np.zeros(0, np.int64), *labels]).astype(np.int64),
            np.concatenate([np.zeros((0, 4)), *(np.reshape(each, (-1, 4)) for each in boxes)]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def pictures(self) -> list[Picture]:
        """Picture by picture, as `of` takes them."""
        ends = np.searchsorted(self.picture, np.arange(len(self)), side="right")[:-1]
        parts = zip(np.split(self.boxes, ends), np.split(self.label, ends), strict=True)
        return [
            (size, int(product), boxes, labels)
            for size, product, (boxes, labels) in zip(self.sizes.tolist(), self.product, parts, strict=True)
        ]

    def items(self) -> list[LayoutItem]:
        """The data's own layouts, in [0, 1] of their pictures."""
        items = []
        for index, ((width, height), product, boxes, labels) in enumerate(self.pictures()):
            objects = label_boxes(boxes / (width, height, width, height), labels, self.classes)
            items.append(LayoutItem(f"{index:06d}", (None, *self.products)[product], objects, "training data"))
        return items


def of_dataset(dataset: LayoutDataset) -> dict[str, LayoutStatistics]:
    """The statistics of a data set by kind, without reading its pictures; raises what reading its annotations does.

    Crops of more than --max_objects objects are left out, as training cannot show them.
    """
    names, has_maps = dataset.vocabulary, any(record.maps for record in dataset.records)
    number = min(len(dataset), MOST_MAPS if has_maps else MOST_PICTURES)
    chosen = np.linspace(0, len(dataset) - 1, number).round().astype(int).tolist()
    is_fixed = has_maps or dataset.crop_policy in FIXED
    epochs = 1 if is_fixed else math.ceil(FEWEST_VIEWS / number)
    pictures = {
        "seen": [picture for epoch in range(epochs) for index in chosen for picture in _seen(dataset, index, epoch)],
        "whole": [_whole(dataset, index) for index in chosen],
    }
    if not pictures["seen"]:
        dataset.layout(0, epoch=0)  # raises what is wrong with all of them
    drawn = np.concatenate([labels for *_, labels in pictures["whole"]])
    counts = np.bincount(drawn, minlength=len(names.classes) + 1)[1:] * (len(dataset) / number)
    return {kind: LayoutStatistics.of(names.classes, names.products, counts.round(), pictures[kind]) for kind in KINDS}


def _whole(dataset: LayoutDataset, index: int) -> Picture:
    size, boxes, labels = dataset.annotation(index)
    boxes = np.reshape(boxes, (-1, 4)).clip(0, (*size, *size))
    return _rounded(size, dataset.vocabulary.product_of(dataset.records[index]), boxes, labels)


def _seen(dataset: LayoutDataset, index: int, epoch: int) -> list[Picture]:
    """What a crop shows, in pixels of the model's picture; nothing for one of too many objects."""
    side, product = dataset.image_size, dataset.vocabulary.product_of(dataset.records[index])
    try:
        boxes, labels = dataset.layout(index, epoch)
    except AnnotationError:
        return []
    return [_rounded((side, side), product, boxes.astype(np.float64) * side, labels)]


def _rounded(size: Sequence[float], product: int, boxes: NDArray, labels: NDArray) -> Picture:
    boxes = boxes.round(DECIMALS)
    kept = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return size, product, boxes[kept], labels[kept]
