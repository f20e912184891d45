"""From a data set's folder to the records of one split and the vocabulary that they are written in."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from . import coco_stuff, semantic_datasets, splits, tags
from .annotations import (
    AnnotationError,
    EmptySplit,
    ImageRecord,
    Vocabulary,
    assign_products,
    build_vocabulary,
    find_product_tags,
)
from .formats import coco, image_folder, voc, vott, vott_csv, yolo
from .formats.plain_boxes import log_problems
from .problems import LEFT_OUT, Problem

logger = logging.getLogger("stay_diffusion.data")

# (annotation folder, image folder or None, what cannot be used) -> every drawn box; the tag names in the data's order
Reader = Callable[[Path, Path | None, list[Problem]], tuple[list[ImageRecord], list[str]]]

PRODUCTS_DRAWN = ("sdi", "voc", "yolo")  # where a product is a tag like any other, over the whole picture
PROBLEMS_SHOWN = 3
NO_NAMES = Vocabulary(())


class Found(NamedTuple):
    """What a format has for a split: records, tag names, whether the records are of the split alone; fixed names."""

    records: list[ImageRecord]
    tags: Sequence[str]
    is_split: bool
    classes: Sequence[str] = ()


# (mode, data, images) -> what was read there, and what of it cannot be used
Shared = dict[tuple[str, str, str | None], tuple[Found, list[Problem]]]


def load_records(
    mode: str,
    data_dir: Path,
    split: str,
    image_dir: Path | None = None,
    product_tags: Sequence[str] = (),
    classes: Sequence[str] = (),
    class_map: Sequence[str] = (),
    select: bool = False,
    known: Vocabulary = NO_NAMES,
    val_fraction: float = 0.1,
    id_list: str = "",
    on_bad_data: str = "error",
    coco_filter: dict | None = None,
    problems: list[Problem] | None = None,
    shared: Shared | None = None,
) -> tuple[list[ImageRecord], Vocabulary]:
    """The records of one split, products assigned, and the vocabulary: `classes` if given, else what the data says.

    Split folders are used where there are both; otherwise the names of the files decide, `val_fraction` of them for
    "val". `id_list`, a file that names pictures, restricts both splits, or with {split} in its name makes them.
    Without `product_tags` and `classes` the products are the tags that always cover the whole image, in formats
    where products are drawn, and those that the format itself names. Data sets of label maps have their own split
    folders and classes. `coco_filter` holds what coco_stuff.read takes.

    `class_map` has the tags that are read as other names or left out. With `select`, tags other than `classes` and
    products are left out and named in the vocabulary; else they are an AnnotationError. The names of `known` come
    first in the vocabulary, whether the data have them or not, and stay what they are, classes or products.

    What cannot be used is skipped and added to `problems`; without it, it is counted in warnings and, unless
    `on_bad_data` is "skip", an AnnotationError. So are missing and empty folders and splits, and unknown tags.

    Files that hold both splits are left in `shared`, and taken from there for the second.
    """
    names = splits.list_of(id_list, split)
    is_named = splits.PLACE in id_list  # which pictures are of the split
    if mode in semantic_datasets.MODES:
        for flag, value in (("image_dir", image_dir), ("product_tags", product_tags), ("class_map", class_map)):
            if value:
                shown = value if flag == "image_dir" else ",".join(value)
                raise ValueError(f"--{flag} {shown}: --dataset_mode {mode} has none")
        vocabulary, coding = semantic_datasets.names_of_map(semantic_datasets.coding_of(mode, data_dir), classes, known)
        records = [
            replace(record, maps=replace(record.maps, coding=coding))
            for record in semantic_datasets.read(mode, data_dir, split)
        ]
        is_split = is_named or semantic_datasets.place_of(mode, data_dir, split).is_split
        return _of_split(records, data_dir, split, names, None if is_split else val_fraction), vocabulary
    if not data_dir.exists():  # one annotation file is as good as a folder
        raise AnnotationError(f"--data_dir {data_dir}: no such folder or file")
    found: list[Problem] = []
    options = {**(coco_filter or {}), "id_list": names} if mode == "coco" else {}
    place = (mode, os.path.realpath(data_dir), image_dir and os.path.realpath(image_dir))
    if shared and place in shared:
        content, found = shared.pop(place)
    else:
        content = _read(mode, data_dir, split, image_dir, found, options)
        if shared is not None and not content.is_split:
            shared[place] = content, [*found]
    records, drawn, is_split, fixed = content
    if problems is None:
        report(data_dir, found, on_bad_data)
    else:
        problems += found
    if select:
        tags.warn_of_unknown(records, drawn, class_map, split)
    records, drawn = tags.apply_map(records, drawn, class_map)

    left_out: tuple[str, ...] = ()
    if not classes or select:
        named = dict.fromkeys(sorted({record.product for record in records if record.product}))
        whole = find_product_tags(records) if mode in PRODUCTS_DRAWN else ()
        product_tags = product_tags or (*(tag for tag in whole if tag not in (*classes, *known.classes)), *named)
        product_tags = tuple(dict.fromkeys((*product_tags, *(tag for tag in known.products if tag in drawn))))
        if not named:  # files that name products need not show all of them, in a small val folder say
            _check_product_tags(product_tags, records, drawn)
    if classes and select:
        left_out = tags.others(records, drawn, classes, product_tags)
        records, drawn = tags.apply_map(records, drawn, [f"{tag}=" for tag in left_out])
    known.extended(Vocabulary((), product_tags))  # a class of the model's is no product
    records = assign_products(records, product_tags)
    if classes or fixed:
        vocabulary = Vocabulary(tuple(classes or fixed), tuple(product_tags), left_out)
    else:
        vocabulary = build_vocabulary(records, drawn, product_tags)
    vocabulary = known.extended(vocabulary)

    # After the vocabulary, so that both splits share one.
    names = None if mode == "coco" else names
    records = _of_split(records, data_dir, split, names, None if is_split or is_named else val_fraction)
    _check_names(records, vocabulary)
    return records, vocabulary


def names_of(
    mode: str, data_dir: Path, split: str, image_dir: Path | None = None, class_map: Sequence[str] = ()
) -> list[str]:
    """Every name that the labels of a split know, drawn or not, products too, in the data's order."""
    found = _read(mode, data_dir, split, image_dir, [], {})
    records, drawn = tags.apply_map(found.records, found.tags, class_map)
    shown = (name for r in records for name in (*(box.label for box in r.boxes), r.product) if name)
    return list(dict.fromkeys([*drawn, *shown]))


def _of_split(
    records: Sequence[ImageRecord], data_dir: Path, split: str, names: Path | None, val_fraction: float | None
) -> Sequence[ImageRecord]:
    """The records that the list `names` has, and of them, unless it is None, the share that `val_fraction` gives."""
    if names:
        records = splits.listed(records, names)
    if val_fraction is not None:
        records = splits.held_out(records, split, val_fraction)
    if not records:
        how = "" if val_fraction is None else f" (by name, --val_fraction {val_fraction:g})"
        raise EmptySplit(f"{data_dir}: no images for the {split} split{how}")
    return records


def _read(
    mode: str, data_dir: Path, split: str, image_dir: Path | None, problems: list[Problem], options: dict
) -> Found:
    if mode in SPLIT_READERS:
        return SPLIT_READERS[mode](data_dir, split, image_dir, problems, **options)
    if mode not in FOLDER_READERS:
        raise ValueError(f"--dataset_mode {mode}: choose from {', '.join(DATASETS)}")
    folder, is_split = splits.annotation_folder(data_dir, split)
    if image_dir is not None:
        image_dir = splits.find_split(image_dir, split) or image_dir
    return Found(*FOLDER_READERS[mode](folder, image_dir, problems), is_split)


def _vott(folder: Path, image_dir: Path | None, problems: list[Problem]) -> tuple[list[ImageRecord], list[str]]:
    """VoTT's JSON exports or projects; where there is neither, its CSV exports."""
    is_csv = folder.suffix.lower() == ".csv"
    if folder.is_dir() and not any(True for pattern in ("*-export.json", "*.vott") for _ in folder.rglob(pattern)):
        is_csv = any(folder.rglob("*.csv"))
    return (vott_csv if is_csv else vott).read(folder, image_dir, problems)


def _yolo(data_dir: Path, split: str, image_dir: Path | None, problems: list[Problem]) -> Found:
    """The split that data.yaml names; without a validation split the training one holds both."""
    is_split = yolo.has_split(data_dir, "val")
    return Found(*yolo.read(data_dir, image_dir, problems, split=split if is_split else "train"), is_split)


def _coco_json(data_dir: Path, split: str, image_dir: Path | None, problems: list[Problem]) -> Found:
    """annotations/*SPLIT*.json, or the JSON in the split's folder; without one for val, the one JSON holds both."""
    files = {name: _coco_file(data_dir, name) for name in splits.FOLDERS}
    is_split = files["val"] is not None
    file = (files[split] if is_split else files["train"]) or data_dir
    return Found(*coco.read(file, image_dir, problems), is_split)


def _coco_file(data_dir: Path, split: str) -> Path | None:
    names = [file for name in splits.FOLDERS[split] for file in sorted(data_dir.glob(f"annotations/*{name}*.json"))]
    instances = [file for file in names if file.name.startswith("instances_")]
    files = instances or names
    if len(files) > 1:
        raise AnnotationError(f"{files[0]} and {files[1]}: which is the {split} split? Give one file as --data_dir")
    return files[0] if files else splits.find_split(data_dir, split)


def _coco_stuff(data_dir: Path, split: str, image_dir: Path | None, problems: list[Problem], **options) -> Found:
    if image_dir is not None:
        raise ValueError(f"--image_dir {image_dir}: --dataset_mode coco has its images in --data_dir")
    records, names, stages = coco_stuff.read(data_dir, split, problems=problems, **options)
    for stage in stages:
        logger.info("%s split, %s: %d images, %d objects", split, stage.name, stage.images, stage.objects)
    return Found(records, names, True, names)


# Those that find a split by its folder, and those that know their own splits.
FOLDER_READERS: dict[str, Reader] = {"sdi": _vott, "images": image_folder.read, "voc": voc.read}
SPLIT_READERS: dict[str, Callable[..., Found]] = {"yolo": _yolo, "coco_json": _coco_json, "coco": _coco_stuff}
DATASETS = (*FOLDER_READERS, *SPLIT_READERS, *semantic_datasets.MODES)


def report(data_dir: Path, problems: Sequence[Problem], on_bad_data: str) -> None:
    """Counts what cannot be used, kind by kind; AnnotationError for it unless it is to be skipped."""
    log_problems(data_dir, problems)
    broken = [problem for problem in problems if problem.action != LEFT_OUT]
    if broken and on_bad_data == "error":
        first = "; ".join(f"{p.file}: {p.kind}: {p.detail}" for p in broken[:PROBLEMS_SHOWN])
        more = f" and {len(broken) - PROBLEMS_SHOWN} more" if len(broken) > PROBLEMS_SHOWN else ""
        raise AnnotationError(f"{first}{more}; --on_bad_data skip trains without them")


def _check_product_tags(product_tags: Sequence[str], records: Sequence[ImageRecord], drawn: Sequence[str]) -> None:
    known = dict.fromkeys([*drawn, *(box.label for record in records for box in record.boxes)])
    for tag in product_tags:
        if tag not in known:
            raise AnnotationError(f"--product_tags {tag}: no such tag; tags: {', '.join(known) or 'none'}")


def _check_names(records: Sequence[ImageRecord], vocabulary: Vocabulary) -> None:
    for record in records:
        vocabulary.product_of(record)
        for box in record.boxes:
            if box.label not in vocabulary.classes:
                hint = f"--class_map {box.label}= leaves it out, {box.label}=NAME reads it as another"
                raise AnnotationError(f"{vocabulary.unknown(record, box)}; {hint}")
