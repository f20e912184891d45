"""Pairs of whole images and the objects that are put into them."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...data.annotations import ImageRecord, RelativeBox, Vocabulary
from ...data.images import find_pictures, image_size
from ...layouts.items import LayoutItem, with_distinct_stems

logger = logging.getLogger("stay_diffusion")

# (index, picture) -> the layout of what goes into it, boxes in [0, 1] of its sides
LayoutFor = Callable[[int, ImageRecord], LayoutItem]


def read_folder(folder: Path, products: Sequence[str], flag: str) -> list[ImageRecord]:
    """Read the images below a folder, or one image, taken as free of objects.

    The product is the name of a folder that an image lies in, or the only one that there is.
    """
    if not folder.exists():
        raise ValueError(f"--{flag} {folder}: no such file or folder")
    paths = find_pictures(folder) if folder.is_dir() else [folder]
    if not paths:
        raise ValueError(f"--{flag} {folder}: no pictures in it")
    records = []
    for path in paths:
        named = [part for part in path.relative_to(folder).parts[:-1] if part in products]
        product = named[-1] if named else products[0] if len(products) == 1 else None
        records.append(ImageRecord(path, *image_size(path), product=product))
    unknown = sum(record.product is None for record in records)
    if products and unknown:
        logger.warning(
            "--%s %s: the product of %d pictures is not known: folders named %s would tell it",
            flag, folder, unknown, ", ".join(products),
        )  # fmt: skip
    return records


def pair(records: Sequence[ImageRecord], num: int, layout_for: LayoutFor) -> list[LayoutItem]:
    """Make `num` items (0: one for each image), each an image with what it has and what is put into it.

    An object that would lie on one that is there already is left out.
    """
    items = []
    for index in range(num or len(records)):
        record = records[index % len(records)]
        layout = layout_for(index, record)
        there = record.relative_boxes
        new = tuple(box for box in layout.objects if not any(_overlap(box, other) for other in there))
        product = record.product or layout.product
        items.append(replace(layout, stem=record.stem, product=product, objects=(*there, *new), into=record))
    return with_distinct_stems(items)


def in_turn(layouts: Sequence[LayoutItem]) -> LayoutFor:
    """Take layouts one after the other; for an image of a known product those of that product, if there are any."""
    of_product: dict[str | None, list[LayoutItem]] = defaultdict(list)
    for layout in layouts:
        of_product[layout.product].append(layout)

    def layout_for(index: int, record: ImageRecord) -> LayoutItem:
        own = of_product.get(record.product) or layouts
        return replace(own[index % len(own)], read_real=None, coding=None, is_map=False)

    return layout_for


def whole_layouts(records: Sequence[ImageRecord], vocabulary: Vocabulary) -> list[LayoutItem]:
    """Turn all that is drawn on whole images into layouts."""
    items = []
    for record in records:
        if record.maps:
            raise ValueError(f"{record.path}: has a label map; --insert_into takes layouts of boxes")
        items.append(LayoutItem(record.stem, record.product, record.relative_boxes, str(record.path)))
        items[-1].tensors(vocabulary)
    return items


def _overlap(a: RelativeBox, b: RelativeBox) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1
