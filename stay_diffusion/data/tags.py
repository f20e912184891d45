"""From the tags that a data set's boxes have to the names that a model knows: merged, renamed, left out."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..config import DataConfig
from .annotations import AnnotationError, ImageRecord, Vocabulary

logger = logging.getLogger("stay_diffusion.data")


def read_map(class_map: Sequence[str]) -> dict[str, str]:
    """TAG=NAME entries, parted at their last =, as a dict; NAME is empty where boxes of TAG are left out."""
    for entry in class_map:
        if not entry.rpartition("=")[0].strip():
            raise ValueError(f"--class_map {entry}: expected TAG=NAME, or TAG= to leave its boxes out")
    return {tag.strip(): name.strip() for tag, _, name in (entry.rpartition("=") for entry in class_map)}


def merged(class_map: Sequence[str], over: Sequence[str]) -> tuple[str, ...]:
    """The entries of both, those of `over` where they name the same tag."""
    return tuple(f"{tag}={name}" for tag, name in {**read_map(class_map), **read_map(over)}.items())


def apply_map(
    records: Iterable[ImageRecord], tags: Sequence[str], class_map: Sequence[str]
) -> tuple[list[ImageRecord], list[str]]:
    """Records and tags in the names that `class_map` gives; what it leaves out is counted in the log."""
    names = read_map(class_map)
    if not names:
        return list(records), list(tags)
    left_out: Counter[str] = Counter()
    mapped = []
    for record in records:
        boxes = tuple(replace(box, label=names.get(box.label, box.label)) for box in record.boxes)
        left_out.update(old.label for old, new in zip(record.boxes, boxes, strict=True) if not new.label)
        product = (names.get(record.product, record.product) or None) if record.product else None
        mapped.append(replace(record, boxes=tuple(box for box in boxes if box.label), product=product))
    if left_out:
        counts = ", ".join(f"{tag} {count}" for tag, count in left_out.items())
        logger.info("boxes left out by --classes and --class_map: %s", counts)
    return mapped, list(dict.fromkeys(name for tag in tags if (name := names.get(tag, tag))))


def warn_of_unknown(records: Iterable[ImageRecord], tags: Sequence[str], class_map: Sequence[str], split: str) -> None:
    """One warning for tags in `class_map` that data, not yet mapped, do not have: mistyped ones would do nothing."""
    known = dict.fromkeys([*tags, *(box.label for record in records for box in record.boxes)])
    known |= dict.fromkeys(record.product for record in records if record.product)
    if unknown := [tag for tag in read_map(class_map) if tag not in known]:
        names, there = ", ".join(unknown), ", ".join(known) or "none"
        logger.warning("--class_map: the %s split has no tags %s; it has %s", split, names, there)


def others(
    records: Iterable[ImageRecord], tags: Sequence[str], classes: Sequence[str], products: Sequence[str]
) -> tuple[str, ...]:
    """The names of data, products still boxes, that are neither `classes` nor `products`.

    Raises AnnotationError for a class that the data do not have, or that is there twice.
    """
    known = dict.fromkeys([*tags, *(box.label for record in records for box in record.boxes)])
    for i, name in enumerate(classes):
        if name in classes[:i]:
            raise AnnotationError(f"--classes {','.join(classes)}: has {name!r} twice")
        if name not in known:
            raise AnnotationError(f"--classes {name}: no such tag; tags: {', '.join(known) or 'none'}")
    return tuple(name for name in known if name not in classes and name not in products)


def choose_products(
    data: DataConfig,
    records: Sequence[ImageRecord],
    tags: Sequence[str],
    whole: Sequence[str],
    known: Vocabulary,
) -> tuple[str, ...]:
    """Return the names of products: --product_tags, else those that records name and the tags on `whole` images.

    Products of `known` that the data have stay products. Raises AnnotationError for a tag that the data do not have.
    """
    named = dict.fromkeys(sorted({record.product for record in records if record.product}))
    found = (*(tag for tag in whole if tag not in (*data.classes, *known.classes)), *named)
    kept = (tag for tag in known.products if tag in tags)
    products = tuple(dict.fromkeys((*(data.product_tags or found), *kept)))
    there = dict.fromkeys([*tags, *(box.label for record in records for box in record.boxes)])
    for tag in () if named else products:  # files that name products need not show all of them, in a small val folder
        if tag not in there:
            raise AnnotationError(f"--product_tags {tag}: no such tag; tags: {', '.join(there) or 'none'}")
    return products
