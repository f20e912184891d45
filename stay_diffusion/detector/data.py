"""Images with boxes as detectors take them, from any data set or results folder; digests that identify them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import DataConfig
from ..data.annotations import ImageRecord, Vocabulary, boxes_array
from ..data.formats import semantic_map
from ..data.images import read_picture
from ..data.manifest import find_manifests
from ..run import factory

LEAST_SIDE = 1.0  # of a box, in pixels of its picture; the rest of it lies outside
KEPT_BYTES = 4 * 2**30  # of pictures that stay decoded in a process
_kept: dict[tuple, Image.Image] = {}


@dataclass(frozen=True, eq=False)
class Example:
    """One picture: where it lies, its boxes (n, 4) as x0 y0 x1 y1 in pixels of it, their labels (n,) from 1 on."""

    path: Path
    upright: bool
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    value_range: tuple[float, float] | None = None

    @property
    def stem(self) -> str:
        return self.path.stem

    def picture(self, scale: float = 1.0) -> Image.Image:
        """In mode L, RGB or F (greys of more than 8 bits, 0..255), its sides multiplied by `scale`."""
        key = (self.path, self.upright, self.value_range, scale)
        if key in _kept:
            return _kept[key]
        image = enlarged(read_picture(self.path, 3, self.upright, self.value_range).image, scale)
        if (len(_kept) + 1) * len(image.tobytes()) < KEPT_BYTES:
            _kept[key] = image
        return image


def enlarged(image: Image.Image, scale: float) -> Image.Image:
    if scale == 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def read(data: DataConfig, split: str) -> tuple[list[ImageRecord], Vocabulary]:
    """The records of a split, or all samples of a folder that image_sample.py has made, of all its runs.

    Sorted by stem, which is the order that all choices are made in.
    """
    runs = runs_of(Path(data.data_dir))
    if not runs:
        records, vocabulary = factory.read_split(data, split)
    else:
        samples = replace(data, dataset_mode="sdi", val_fraction=0.0)
        parts = [factory.read_split(replace(samples, data_dir=str(run / "samples")), "train") for run in runs]
        records, vocabulary = [record for part, _ in parts for record in part], parts[0][1]
    return sorted(records, key=lambda record: (record.stem, str(record.path))), vocabulary


def runs_of(folder: Path) -> list[Path]:
    """The folders with a manifest.jsonl: this one, or run0, run1 ... in it; none where it is a data set."""
    return [manifest.parent for manifest in find_manifests(folder)]


def choose(items: Sequence, num: int) -> list:
    """`num` of the sorted items (0: all), always the same, in their order; ValueError where there are fewer."""
    if num > len(items):
        raise ValueError(f"--num_real {num}: there are only {len(items)} pictures")
    chosen = np.random.default_rng(0).permutation(len(items))[: num or None]
    return [items[i] for i in sorted(chosen)]


def examples(records: Sequence[ImageRecord], vocabulary: Vocabulary, data: DataConfig) -> list[Example]:
    """The records with their boxes clipped to the picture, those of label maps found in the maps."""
    return [_example(record, vocabulary, data) for record in records]


def _example(record: ImageRecord, vocabulary: Vocabulary, data: DataConfig) -> Example:
    if record.maps:
        maps = semantic_map.read(record.maps)
        boxes, labels = semantic_map.objects(maps, record.maps.coding, use_instances=True)
        height, width = maps.labels.shape
    else:
        boxes = boxes_array(record.boxes)
        labels = np.array([vocabulary.label_of(record, box) for box in record.boxes], dtype=np.int64)
        width, height = record.width, record.height
    if width and height:
        boxes = boxes.clip(0, (width, height, width, height))
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= LEAST_SIDE).all(axis=1)
    return Example(
        record.path,
        not record.maps,
        boxes[kept].astype(np.float32),
        labels[kept].astype(np.int64),
        data.black_and_white,
    )


def objects_per_class(items: Sequence[Example], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(label for item in items for label in item.labels.tolist())
    return {name: counts[label] for label, name in enumerate(classes, 1)}


def image_digest(item: Example) -> str:
    """Of the decoded greys, so that the same picture is known under another name or in another format."""
    image = item.picture()
    image = image.convert("L") if image.mode == "RGB" else image
    return hashlib.sha256(f"{image.size} {image.mode}".encode() + image.tobytes()).hexdigest()


def set_digest(items: Sequence[Example], digests: Sequence[str]) -> str:
    """Of pictures and boxes, in their order."""
    total = hashlib.sha256()
    for item, digest in zip(items, digests, strict=True):
        total.update(digest.encode() + item.boxes.tobytes() + item.labels.tobytes())
    return total.hexdigest()
