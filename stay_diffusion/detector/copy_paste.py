"""Plan and paste: crops of real defects onto other real images, the baseline for synthetic images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import DataConfig
from ..data.annotations import ImageRecord, Vocabulary, label_boxes
from ..data.images import find_pictures
from ..layouts.items import LayoutItem
from . import data as detector_data
from .data import Example

TRIES = 50  # places drawn for a crop before it is given up
NO_BOXES, NO_LABELS = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Host:
    """A picture to cut from or to paste onto, with what is drawn on it; no `product` goes with any."""

    example: Example
    product: str | None = None


@dataclass(frozen=True, eq=False)
class Paste:
    """One object of a donor, and by how many whole pixels (x, y) it is moved."""

    donor: Host
    place: int
    shift: NDArray[np.int64]

    @property
    def box(self) -> NDArray[np.float32]:
        """x0 y0 x1 y1 where it is pasted."""
        return self.donor.example.boxes[self.place] + np.tile(self.shift, 2)


@dataclass(frozen=True, eq=False)
class Plan:
    """One picture to make."""

    host: Host
    pastes: tuple[Paste, ...]

    def item(self, index: int, vocabulary: Vocabulary) -> LayoutItem:
        """Its name and layout: the host's own objects, then the pasted ones."""
        own, width_height = self.host.example, self.host.example.picture().size
        boxes = np.concatenate([own.boxes, *(paste.box[None] for paste in self.pastes)]) / np.tile(width_height, 2)
        labels = [*own.labels, *(paste.donor.example.labels[paste.place] for paste in self.pastes)]
        objects = label_boxes(boxes, labels, vocabulary.classes)
        return LayoutItem(f"copy_paste_{index:05d}", self.host.product, objects, "copy_paste")


def rng_of(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng((seed, index))


def hosts_of(records: Sequence[ImageRecord], vocabulary: Vocabulary, data: DataConfig) -> list[Host]:
    found = detector_data.examples(records, vocabulary, data)
    return [Host(example, record.product) for example, record in zip(found, records, strict=True)]


def backgrounds(folder: Path) -> list[Host]:
    """Defect-free pictures, of no known product."""
    paths = find_pictures(folder)
    if not paths:
        raise ValueError(f"--backgrounds {folder}: no pictures in it")
    return [Host(Example(path, True, NO_BOXES, NO_LABELS)) for path in paths]


def plan(hosts: Sequence[Host], donors: Sequence[Host], feather: int, most: int, rng: np.random.Generator) -> Plan:
    """As many pasted objects as a donor drawn at random has, `most` at most (0: no limit), where there is room."""
    host = hosts[int(rng.integers(len(hosts)))]
    fitting = [
        donor
        for donor in donors
        if donor is not host and len(donor.example.labels) and (host.product is None or donor.product == host.product)
    ]
    if not fitting:
        return Plan(host, ())
    count = len(fitting[rng.integers(len(fitting))].example.labels)
    size, taken, pastes = np.array(host.example.picture().size), host.example.boxes, []
    for _ in range(min(count, most or count)):
        donor = fitting[rng.integers(len(fitting))]
        place = int(rng.integers(len(donor.example.labels)))
        shift = find_room(donor.example.boxes[place], size, taken, 2 * feather, rng)
        if shift is not None:
            pastes.append(Paste(donor, place, shift))
            taken = np.concatenate([taken, pastes[-1].box[None]])
    return Plan(host, tuple(pastes))


def find_room(box: NDArray, size: NDArray, taken: NDArray, distance: int, rng: np.random.Generator) -> NDArray | None:
    """A move (x, y) that brings a box into the picture, `distance` pixels clear of others; None where none is found."""
    low, high = np.ceil(-box[:2]), np.floor(size - box[2:])
    if (low > high).any():
        return None
    for _ in range(TRIES):
        shift = rng.integers(low, high, endpoint=True)
        moved = box + np.tile(shift, 2)
        apart = (moved[:2] >= taken[:, 2:] + distance) | (moved[2:] <= taken[:, :2] - distance)
        if apart.any(axis=1).all():
            return shift
    return None


def paste_all(one: Plan, feather: int) -> Image.Image:
    """The host with all crops pasted, in its mode."""
    picture = one.host.example.picture()
    canvas = np.array(picture, dtype=np.float32)
    for paste in one.pastes:
        donor = paste.donor.example.picture()
        donor = donor if donor.mode == picture.mode else donor.convert(picture.mode)
        blend(canvas, np.asarray(donor, dtype=np.float32), paste, feather)
    return Image.fromarray(canvas if picture.mode == "F" else canvas.round().astype(np.uint8), picture.mode)


def blend(canvas: NDArray, donor: NDArray, paste: Paste, feather: int) -> None:
    """Pastes one object: wholly within its box, fading over `feather` pixels outside it."""
    x0, y0, x1, y1 = paste.donor.example.boxes[paste.place]
    dx, dy = paste.shift
    (H, W), (h, w) = canvas.shape[:2], donor.shape[:2]
    # pixels of the donor that lie in both pictures
    rows = np.arange(max(int(y0) - feather, 0, -dy), min(int(np.ceil(y1)) + feather, h, H - dy))
    columns = np.arange(max(int(x0) - feather, 0, -dx), min(int(np.ceil(x1)) + feather, w, W - dx))
    away = np.maximum(_outside(rows, y0, y1)[:, None], _outside(columns, x0, x1)[None])  # pixels from the box
    opacity = (1 - away / (feather + 1)).clip(0, 1).astype(np.float32)
    opacity = opacity if canvas.ndim == 2 else opacity[..., None]
    there, here = np.ix_(rows, columns), np.ix_(rows + dy, columns + dx)
    canvas[here] = opacity * donor[there] + (1 - opacity) * canvas[here]


def _outside(pixels: NDArray, low: float, high: float) -> NDArray:
    """How many whole pixels each lies outside of low..high; 0 for those that it touches."""
    return np.maximum(np.floor(low) - pixels, pixels - np.ceil(high) + 1).clip(0)


def channels_of(host: Host) -> int:
    return 3 if host.example.picture().mode == "RGB" else 1


def provenance(one: Plan, settings: dict) -> dict:
    """Fields of the manifest entry: the files that an image was made from, and the settings."""
    pasted = [str(paste.donor.example.path.resolve()) for paste in one.pastes]
    return {"source_image": str(one.host.example.path.resolve()), "settings": {**settings, "pasted_from": pasted}}
