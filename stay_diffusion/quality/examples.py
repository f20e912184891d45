"""The crops that a gate learns from: of the training images' objects, and of places where there is nothing."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data import transforms
from ..data.samples import LayoutDataset
from . import crops

LOOKS = {"random": 4}  # how often a picture is looked at, by crop policy, for objects that its first cut leaves out
NOTHING_PER_OBJECT = 2
TRIES = 20  # to find a place of a size without an object
MOST, LEAST_PER_CLASS = 60_000, 200  # objects from whose surroundings a classifier learns


class Examples(NamedTuple):
    """Crops with their rims (N, C, P, P) uint8, labels (N,) in 0..K, K where there is nothing, and places.

    `pictures` (N,) are indices of the data set's records, `boxes` (N, 4) pixels of their files, `inside` (N, 4) what of
    a crop its picture has. Of each object there is one crop that is `whole` (N,), showing what the picture has around
    it.
    """

    crops: Tensor
    labels: Tensor
    pictures: Tensor
    boxes: Tensor
    inside: Tensor
    whole: Tensor

    def where(self, which: Tensor) -> "Examples":
        return Examples(*(column[which] for column in self))


class SeenImage(NamedTuple):
    """A picture at the scale at which the network sees it: boxes (n, 4) of all that is drawn, in its own pixels.

    `sources` (n, 4) are the same boxes in pixels of the file, `kept` those of them that count.
    """

    record: int
    image: Image.Image
    boxes: NDArray
    labels: NDArray
    sources: NDArray
    kept: NDArray


def views(dataset: LayoutDataset) -> Iterator[SeenImage]:
    """Yield every image of a data set: whole for unscaled crops, else as the network sees it."""
    for index in range(len(dataset)):
        if dataset.data.crop_policy == "object":
            picture, boxes, labels, _ = dataset.whole(index)
            boxes = boxes.reshape(-1, 4)
            yield SeenImage(index, picture.image, boxes, labels, boxes, np.arange(len(boxes)))
            continue
        found: set[int] = set()
        for epoch in range(LOOKS.get(dataset.data.crop_policy, 1)):
            seen = dataset.see(index, epoch)
            sources = seen.boxes.reshape(-1, 4)
            boxes = transforms.map_boxes(sources, seen.cut.window) * dataset.image_size
            new = np.array([place for place in seen.cut.kept.tolist() if place not in found], dtype=np.int64)
            if epoch == 0 or len(new):
                yield SeenImage(index, seen.cut.image, boxes, seen.labels, sources, new)
            found.update(new.tolist())


def examples(dataset: LayoutDataset, seed: int) -> Examples:
    """Crop all objects of a data set without augmentation, and of about twice as many places without any.

    Models of unscaled crops see windows of their own size, beyond which a crop only repeats their edges: of each place
    there is then a second crop, through a window drawn at random. Of classes with very many objects, the later ones
    have one crop only, the whole.
    """
    num_classes, channels = len(dataset.vocabulary.classes), dataset.image_channels
    windowed = dataset.data.crop_policy == "object"
    most = max(MOST // max(num_classes, 1), LEAST_PER_CLASS)
    counts = np.zeros(num_classes + 1, dtype=np.int64)
    sizes: list[NDArray] = []  # width and height of the objects so far, which those of empty places are drawn from
    rows: list[tuple] = []

    def add(view: SeenImage, box: NDArray, label: int, source: NDArray, rng: np.random.Generator) -> None:
        rows.append((*crops.cut(view.image, box, channels), label, view.record, source, True))
        if windowed and counts[label] < most:
            window, shifted = _window(view.image, box, dataset.image_size, rng)
            rows.append((*crops.cut(window, shifted, channels), label, view.record, source, False))
        counts[label] += 1

    for view in views(dataset):
        rng = np.random.default_rng((seed, view.record, len(dataset)))  # apart from the samples' (seed, epoch, index)
        for place in view.kept:
            add(view, view.boxes[place], int(view.labels[place]) - 1, view.sources[place], rng)
        sizes += [box[2:] - box[:2] for box in view.boxes[view.kept]]
        if sizes and counts[num_classes] < NOTHING_PER_OBJECT * min(counts[:num_classes].sum(), MOST):
            for _ in range(NOTHING_PER_OBJECT * max(len(view.kept), 1)):
                box = _empty_place(view, sizes[rng.integers(len(sizes))], rng)
                if box is not None:
                    add(view, box, num_classes, box, rng)
    if not counts[:num_classes].sum():
        raise ValueError("the training pictures have no boxes: there is nothing to hold samples against")
    pixels, inside, labels, pictures, sources, whole = zip(*rows, strict=True)
    return Examples(
        torch.from_numpy(np.stack(pixels)),
        torch.tensor(labels),
        torch.tensor(pictures),
        torch.from_numpy(np.stack(sources).astype(np.float32)),
        torch.tensor(inside),
        torch.tensor(whole),
    )


def _window(image: Image.Image, box: NDArray, size: int, rng: np.random.Generator) -> tuple[Image.Image, NDArray]:
    """Draw a window of the network's size around a box, as in training; return it with the box in its pixels."""
    x0, y0, x1, y1 = transforms.around_object(*image.size, box[None], size, rng)
    return image.crop((round(x0), round(y0), round(x1), round(y1))), box - (x0, y0, x0, y0)


def _empty_place(view: SeenImage, size: NDArray, rng: np.random.Generator) -> NDArray | None:
    """Find a box of this size that meets no drawn one; None where there is no room."""
    free = np.array(view.image.size) - size
    if (free < 0).any():
        return None
    for _ in range(TRIES):
        start = rng.uniform(0, free)
        box = np.concatenate([start, start + size])
        if not meets(box, view.boxes).any():
            return box
    return None


def meets(box: NDArray, boxes: NDArray) -> NDArray[np.bool_]:
    """Find the boxes (n, 4) that share more than an edge with a box."""
    return np.asarray(((boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])).all(axis=1))
