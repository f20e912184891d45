"""The objects of a set, cut out of their images: as the quality gate crops them, or as they are."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.annotations import RelativeBox
from ..data.images import Range, converted, read_picture
from ..quality.crops import RIM, SIDE, cut
from .figures import Estimate
from .image_set import Cut, ImageSet, Look, Whole

LEAST_PIXELS = 1.0  # each way, of the part of a box within its image


class BoxCrops(NamedTuple):
    """Crops with their rims (N, C, P, P) uint8, the class of each, and the number (N,) of the image that it is in."""

    crops: Tensor
    labels: tuple[str, ...]
    images: NDArray[np.int64]

    def indices(self, classes: Sequence[str]) -> Tensor:
        """Return the labels (N,) as places in `classes`."""
        return torch.tensor([classes.index(label) for label in self.labels])


def box_crops(images: ImageSet, channels: int, value_range: Range | None = None) -> BoxCrops:
    """Crop all boxes of images whose objects are known, image by image; ValueError where there is none."""
    found, labels, places = [], [], []
    for place, (item, boxes) in enumerate(zip(images.images, images.known_objects, strict=True)):
        if not boxes:
            continue
        image = open_image(item, channels, value_range)
        for box in visible_boxes(boxes, image.size):
            found.append(torch.from_numpy(cut(image, box.pixels(*image.size).edges, channels).pixels.copy()))
            labels.append(box.label)
            places.append(place)
    if not found:
        raise ValueError(f"{images.path}: its {len(images.items)} pictures have no boxes")
    P = SIDE + 2 * RIM
    return BoxCrops(torch.stack(found).view(-1, channels, P, P), tuple(labels), np.array(places))


def visible_boxes(boxes: Sequence[RelativeBox], size: tuple[int, int]) -> Iterator[RelativeBox]:
    """Yield the boxes that lie on a pixel of their image, in an order that is not the annotations'."""
    for box in sorted(boxes, key=lambda box: (box.label, *box.edges)):
        x0, y0, x1, y1 = box.pixels(*size).edges
        sides = min(x1, size[0]) - max(x0, 0), min(y1, size[1]) - max(y0, 0)
        if min(sides) >= LEAST_PIXELS:
            yield box


def open_image(item: Whole, channels: int, value_range: Range | None = None) -> Image.Image:
    """Read an image of a set in its own size: L, RGB or F (0..255)."""
    if isinstance(item, Path):
        return read_picture(item, channels, value_range=value_range).image
    return converted(Image.fromarray(item[..., 0] if item.shape[2] == 1 else item), channels)


def channels_of(*sides: ImageSet) -> int:
    """Return 1 where all images are grey, else 3."""
    return 1 if all(look.grey for side in sides for look in side.looks) else 3


def check_boxes(images: ImageSet) -> None:
    """Raise ValueError where no image has a box."""
    if not any(images.known_objects):
        raise ValueError(f"{images.path}: its {len(images.items)} pictures have no boxes")


def mean_over_boxes(values: NDArray[np.float64], images: NDArray[np.int64]) -> Estimate:
    """Return the mean of a value of each box (N,), with a standard error in which boxes of one image are dependent.

    There is none for a single image.
    """
    _, place = np.unique(images, return_inverse=True)
    mean, counts = float(values.mean()), np.bincount(place)
    n = len(counts)
    if n < 2:
        return Estimate(mean, None)
    residuals = np.bincount(place, weights=values - mean)
    return Estimate(mean, float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / len(values)))


def object_cuts(images: ImageSet, size: int, around: bool = False) -> ImageSet:
    """Return the objects of a set as a set of `size` x `size` images; of each its looks and objects must be known.

    With `around` they are cut out as the quality gate crops them, with their surroundings. Boxes of less than a pixel
    each way within their image are left out. ValueError where fewer than 2 remain.
    """
    assert len(images.looks) == len(images.items)
    items, looks, objects = [], [], []
    for item, look, boxes in zip(images.images, images.looks, images.known_objects, strict=True):
        for box in boxes:
            x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in box.edges)
            if min((x1 - x0) * look.width, (y1 - y0) * look.height) >= LEAST_PIXELS:
                digest = hashlib.sha256(f"{look.digest} {x0} {y0} {x1} {y1} {size} {around}".encode()).hexdigest()
                items.append(Cut(item, (x0, y0, x1, y1), size, around))
                looks.append(Look(digest, look.format, size, size, look.grey))
                objects.append((box,))
    if len(items) < 2:
        raise ValueError(f"{images.path}: {len(items)} objects in {len(images.items)} pictures, a distance needs 2")
    return replace(
        images,
        path=f"{images.path} (objects)",
        items=items,
        looks=tuple(looks),
        objects=tuple(objects),
        products=None,
        sizes={f"{size}x{size}": len(items)},
    )
