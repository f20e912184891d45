"""The objects of a set as the quality gate sees them: crops with what is around each box, and shares over boxes."""

from collections.abc import Iterator, Sequence
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
from .image_set import ImageSet, Item

LEAST_PIXELS = 1.0  # each way, of what the picture shows of a box


class BoxCrops(NamedTuple):
    """Crops with their rims (N, C, P, P) uint8, the class of each, and the number (N,) of the image that it is in."""

    crops: Tensor
    labels: tuple[str, ...]
    images: NDArray[np.int64]

    def indices(self, classes: Sequence[str]) -> Tensor:
        """The labels (N,) as places in `classes`."""
        return torch.tensor([classes.index(label) for label in self.labels])


class Share(NamedTuple):
    value: float
    standard_error: float | None


def box_crops(images: ImageSet, channels: int, value_range: Range | None = None) -> BoxCrops:
    """All boxes of images whose objects are known, image by image; ValueError where there is none."""
    found, labels, places = [], [], []
    for place, (item, boxes) in enumerate(zip(images.items, images.objects, strict=True)):
        picture = opened(item, channels, value_range) if boxes else None
        for box in seen(boxes, picture.size if boxes else (0, 0)):
            found.append(torch.from_numpy(cut(picture, box.pixels(*picture.size).edges, channels).pixels.copy()))
            labels.append(box.label)
            places.append(place)
    if not found:
        raise ValueError(f"{images.path}: its {len(images.items)} pictures have no boxes")
    P = SIDE + 2 * RIM
    return BoxCrops(torch.stack(found).view(-1, channels, P, P), tuple(labels), np.array(places))


def seen(boxes: Sequence[RelativeBox], size: tuple[int, int]) -> Iterator[RelativeBox]:
    """The boxes of which the picture shows a pixel, in an order that is not the annotations'."""
    for box in sorted(boxes, key=lambda box: (box.label, *box.edges)):
        x0, y0, x1, y1 = box.pixels(*size).edges
        sides = min(x1, size[0]) - max(x0, 0), min(y1, size[1]) - max(y0, 0)
        if min(sides) >= LEAST_PIXELS:
            yield box


def opened(item: Item, channels: int, value_range: Range | None = None) -> Image.Image:
    """A picture of a set in its own size: L, RGB or F (0..255)."""
    if isinstance(item, Path):
        return read_picture(item, channels, value_range=value_range).image
    return converted(Image.fromarray(item[..., 0] if item.shape[2] == 1 else item), channels)


def channels_of(*sides: ImageSet) -> int:
    """1 where all pictures, which were looked at, are grey; else 3."""
    return 1 if all(look.grey for side in sides for look in side.looks) else 3


def share(values: NDArray[np.float64], images: NDArray[np.int64]) -> Share:
    """The mean of a value of each box (N,), with a standard error in which boxes of one image count as dependent.

    None of a single image.
    """
    _, place = np.unique(images, return_inverse=True)
    mean, counts = float(values.mean()), np.bincount(place)
    n = len(counts)
    if n < 2:
        return Share(mean, None)
    residuals = np.bincount(place, weights=values - mean)
    return Share(mean, float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / len(values)))
