"""Where the layouts to sample come from: a split of the data, or a file."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.annotations import (
    AnnotationError,
    ImageRecord,
    RelativeBox,
    Vocabulary,
    assign_products,
    boxes_array,
    label_boxes,
)
from ..data.codings import Coding
from ..data.formats import vott
from ..data.layout import UNKNOWN_PRODUCT
from ..data.manifest import ManifestLayout
from ..data.samples import LayoutDataset, Sample


@dataclass(frozen=True)
class LayoutItem:
    """One picture to make: its name, product, and objects in shares of its sides.

    `source` says where the layout comes from. `read_real` reads its real image, if there is one, cut the same way;
    `coding` is that of the image's label map, if it has one, and with `is_map` the map, not the boxes, is what the
    network sees. `into` is the image that the objects are to be put into: those that it has already come first.
    """

    stem: str
    product: str | None
    objects: tuple[RelativeBox, ...]
    source: str
    read_real: Callable[[], Sample] | None = None
    coding: Coding | None = None
    is_map: bool = False
    into: ImageRecord | None = None

    def real(self) -> Sample | None:
        return self.read_real() if self.read_real else None

    def tensors(self, vocabulary: Vocabulary) -> tuple[Tensor, Tensor, int, Tensor | None]:
        """Boxes (n, 4), labels (n,), product and semantic map, as `Layout.collate` takes them."""
        record = ImageRecord(Path(self.source), 1, 1, product=self.product)
        boxes = torch.from_numpy(boxes_array(self.objects)).float()
        labels = torch.tensor([vocabulary.label_of(record, box) for box in self.objects], dtype=torch.long)
        real = self.real() if self.coding else None
        return boxes, labels, vocabulary.product_of(record), real.semantic_map if real else None


def from_dataset(dataset: LayoutDataset, most: int = 0) -> list[LayoutItem]:
    """The layouts of a split's first `most` pictures (0: of all), as the network sees them, always cut the same way."""
    names = dataset.vocabulary
    items = []
    for index, record in enumerate(dataset.records[: most or None]):
        _, boxes, labels, product, _ = dataset.sample(index, epoch=0)
        objects = label_boxes(boxes, labels, names.classes)
        product_name = None if product == UNKNOWN_PRODUCT else names.products[product - 1]
        read_real, coding = partial(dataset.sample, index, epoch=0), record.maps.coding if record.maps else None
        is_map = coding is not None and dataset.layout_kind == "map"
        items.append(LayoutItem(record.stem, product_name, objects, str(record.path), read_real, coding, is_map))
    return items


def from_nothing(num: int, vocabulary: Vocabulary, seed: int) -> list[LayoutItem]:
    """For models without boxes: pictures of products drawn at random, if there are any, by (seed, index)."""
    if not num:
        raise ValueError("--num_samples: needed where there is no data_dir to take layouts from")
    drawn = (np.random.default_rng((seed, index)) for index in range(num))
    products = [rng.choice(vocabulary.products).item() if vocabulary.products else None for rng in drawn]
    return [LayoutItem(f"{index:06d}", product, (), "nothing") for index, product in enumerate(products)]


def from_file(path: Path, vocabulary: Vocabulary) -> list[LayoutItem]:
    """The layouts of a VoTT export (.json, its images not needed) or of lines of JSON (.jsonl).

    A line is {"stem": NAME, "product": NAME or null, "objects": [{"label": CLASS, "box": [x0, y0, x1, y1]}, ...]}
    with boxes in [0, 1]; a manifest.jsonl of earlier samples is read too.
    """
    if not path.is_file():
        raise AnnotationError(f"--layouts {path}: no such file (val, train, a VoTT export or lines of JSON)")
    items = _from_lines(path) if path.suffix == ".jsonl" else _from_vott(path, vocabulary)
    if not items:
        raise AnnotationError(f"--layouts {path}: holds no layout")
    for item in items:
        item.tensors(vocabulary)  # an unknown class or product is named now, not after an hour of sampling
    return items


def choose(items: Sequence[LayoutItem], num_samples: int) -> list[LayoutItem]:
    """Exactly `num_samples` items with distinct stems, the layouts repeated as needed; 0: each once."""
    return with_distinct_stems([items[i % len(items)] for i in range(num_samples or len(items))])


def with_distinct_stems(items: Sequence[LayoutItem]) -> list[LayoutItem]:
    """The same items; those whose stem an earlier one has get a number."""
    counts: Counter[str] = Counter()
    taken = {item.stem for item in items}
    chosen = []
    for item in items:
        counts[item.stem] += 1
        stem = item.stem
        while counts[item.stem] > 1 and (stem == item.stem or stem in taken):
            stem = f"{item.stem}_{counts[item.stem]}"
            counts[item.stem] += stem in taken
        taken.add(stem)
        chosen.append(replace(item, stem=stem))
    return chosen


def _from_vott(path: Path, vocabulary: Vocabulary) -> list[LayoutItem]:
    records, _ = vott.read(path, require_images=False)
    items = []
    for record in assign_products(records, vocabulary.products):
        items.append(LayoutItem(record.stem, record.product, record.relative_boxes, str(path)))
    return items


def _from_lines(path: Path) -> list[LayoutItem]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"--layouts {path}: cannot be read ({error})") from None
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            layout = ManifestLayout.from_json(entry.get("layout", entry))
            stem = str(entry.get("stem", f"layout{number:05d}"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise AnnotationError(
                f'{path}, line {number}: expected {{"product": ..., "objects": [{{"label": ..., "box": [x0, y0, x1, y1]'
                f"}}]}} ({type(error).__name__}: {error})"
            ) from None
        if Path(f"{stem}.png").stem != stem:
            raise AnnotationError(f"{path}, line {number}: the stem {stem!r} cannot be a file's name")
        for box in layout.new_objects:
            inside = box.x0 < min(box.x1, 1) and box.y0 < min(box.y1, 1) and min(box.x1, box.y1) > 0
            # Objects may be cut by the border; numbers far beyond it are pixels by mistake.
            if not (inside and all(-1 <= edge <= 2 for edge in box.edges)):
                raise AnnotationError(
                    f"{path}, line {number}: box {list(box.edges)} of {box.label!r} is empty or "
                    "outside the picture (x0 y0 x1 y1 in [0, 1])"
                )
        items.append(LayoutItem(stem, layout.product, layout.new_objects, str(path)))
    return items
