"""From a data set's folder to the records of one split and the vocabulary that they are written in."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import DataConfig
from ..system import storage
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
from .formats import coco, image_folder, voc, vott, yolo
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


def read_split(
    data: DataConfig,
    split: str,
    problems: list[Problem] | None = None,
    select: bool = False,
    known: Vocabulary | None = None,
    shared: Shared | None = None,
) -> tuple[list[ImageRecord], Vocabulary]:
    """Read the records of a split, "train" or "val", products assigned, and the vocabulary they are read with.

    Without split folders the names of the files decide, --val_fraction of them for "val"; --id_list restricts both
    splits, or with {split} in its name makes them. The vocabulary has --classes if given, else what the data says.
    With `select`, tags other than classes and products are left out and named in the vocabulary, for choosing what to
    train; else they are an AnnotationError. The names of `known` come first and stay what they are.

    What cannot be used is skipped and added to `problems`; without it, it is counted in warnings and, unless
    --on_bad_data is "skip", an AnnotationError. So are missing and empty folders and splits, and unknown tags.
    Files that hold both splits are left in `shared`, and taken from there for the second.
    """
    if not data.data_dir:
        raise ValueError("--data_dir: needed, the folder of annotated images")
    data_dir, known = storage.local(data.data_dir), known or NO_NAMES
    names = splits.list_of(splits.local_list(data.id_list), split)
    if data.dataset_mode in semantic_datasets.MODES:
        return _read_maps(data, data_dir, split, names, known)
    content, found = _read_shared(data, data_dir, split, names, shared)
    if problems is None:
        report(data_dir, found, data.on_bad_data)
    else:
        problems += found
    if select:
        tags.warn_of_unknown(content.records, content.tags, data.class_map, split)
    records, drawn = tags.apply_map(content.records, content.tags, data.class_map)

    product_tags: tuple[str, ...] = data.product_tags
    left_out: tuple[str, ...] = ()
    if not data.classes or select:
        whole = find_product_tags(records) if data.dataset_mode in PRODUCTS_DRAWN else ()
        product_tags = tags.choose_products(data, records, drawn, whole, known)
    if data.classes and select:
        left_out = tags.others(records, drawn, data.classes, product_tags)
        records, drawn = tags.apply_map(records, drawn, [f"{tag}=" for tag in left_out])
    known.extended(Vocabulary((), product_tags))  # a class of the model's is no product
    records = assign_products(records, product_tags)
    if classes := tuple(data.classes or content.classes):
        vocabulary = Vocabulary(classes, tuple(product_tags), left_out)
    else:
        vocabulary = build_vocabulary(records, drawn, product_tags)
    vocabulary = known.extended(vocabulary)

    # After the vocabulary, so that both splits share one.
    is_split = content.is_split or splits.PLACE in data.id_list
    names = None if data.dataset_mode == "coco" else names
    records = _of_split(records, data_dir, split, names, None if is_split else data.val_fraction)
    _check_names(records, vocabulary)
    return records, vocabulary


def _read_maps(
    data: DataConfig, data_dir: Path, split: str, names: Path | None, known: Vocabulary
) -> tuple[list[ImageRecord], Vocabulary]:
    mode = data.dataset_mode
    for flag in ("image_dir", "product_tags", "class_map"):
        if value := getattr(data, flag):
            raise ValueError(
                f"--{flag} {value if flag == 'image_dir' else ','.join(value)}: --dataset_mode {mode} has none"
            )
    own = semantic_datasets.coding_of(mode, data_dir)
    vocabulary, coding = semantic_datasets.names_of_map(own, data.classes, known)
    records = semantic_datasets.read(mode, data_dir, split, coding)
    is_split = splits.PLACE in data.id_list or semantic_datasets.place_of(mode, data_dir, split).is_split
    return _of_split(records, data_dir, split, names, None if is_split else data.val_fraction), vocabulary


def _read_shared(
    data: DataConfig, data_dir: Path, split: str, names: Path | None, shared: Shared | None
) -> tuple[Found, list[Problem]]:
    """What a format has for a split and what of it cannot be used, from `shared` where it is there."""
    if not data_dir.exists():  # one annotation file is as good as a folder
        raise AnnotationError(f"--data_dir {data_dir}: no such folder or file")
    image_dir = local_image_dir(data)
    place = (data.dataset_mode, os.path.realpath(data_dir), os.path.realpath(image_dir) if image_dir else None)
    if shared and place in shared:
        return shared.pop(place)
    found: list[Problem] = []
    content = _read(data, data_dir, split, image_dir, found, names)
    if shared is not None and not content.is_split:
        shared[place] = content, [*found]
    return content, found


def local_image_dir(data: DataConfig) -> Path | None:
    return storage.local(data.image_dir) if data.image_dir else None


def names_of(data: DataConfig, split: str) -> list[str]:
    """Every name that the labels of a split know, drawn or not, products too, in the data's order."""
    found = _read(data, storage.local(data.data_dir), split, local_image_dir(data), [], None)
    records, drawn = tags.apply_map(found.records, found.tags, data.class_map)
    shown = (name for r in records for name in (*(box.label for box in r.boxes), r.product) if name)
    return list(dict.fromkeys([*drawn, *shown]))


def _of_split(
    records: list[ImageRecord], data_dir: Path, split: str, names: Path | None, val_fraction: float | None
) -> list[ImageRecord]:
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
    data: DataConfig, data_dir: Path, split: str, image_dir: Path | None, problems: list[Problem], names: Path | None
) -> Found:
    mode = data.dataset_mode
    if mode == "coco":
        return _coco_stuff(data, data_dir, split, problems, names)
    if mode in SPLIT_READERS:
        return SPLIT_READERS[mode](data_dir, split, image_dir, problems)
    if mode not in FOLDER_READERS:
        raise ValueError(f"--dataset_mode {mode}: choose from {', '.join(DATASETS)}")
    folder, is_split = splits.annotation_folder(data_dir, split)
    if image_dir is not None:
        image_dir = splits.find_split(image_dir, split) or image_dir
    return Found(*FOLDER_READERS[mode](folder, image_dir, problems), is_split)


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


def _coco_stuff(data: DataConfig, data_dir: Path, split: str, problems: list[Problem], names: Path | None) -> Found:
    if data.image_dir:
        raise ValueError(f"--image_dir {local_image_dir(data)}: --dataset_mode coco has its images in --data_dir")
    records, classes, stages = coco_stuff.read(data_dir, split, data, names, problems)
    for stage in stages:
        logger.info("%s split, %s: %d images, %d objects", split, stage.name, stage.images, stage.objects)
    return Found(records, classes, True, classes)


# Those that find a split by its folder, and those that know their own splits.
FOLDER_READERS: dict[str, Reader] = {"sdi": vott.read, "images": image_folder.read, "voc": voc.read}
SPLIT_READERS: dict[str, Callable[..., Found]] = {"yolo": _yolo, "coco_json": _coco_json}
DATASETS = (*FOLDER_READERS, *SPLIT_READERS, "coco", *semantic_datasets.MODES)


def report(data_dir: Path, problems: Sequence[Problem], on_bad_data: str) -> None:
    """Counts what cannot be used, kind by kind; AnnotationError for it unless it is to be skipped."""
    log_problems(data_dir, problems)
    broken = [problem for problem in problems if problem.action != LEFT_OUT]
    if broken and on_bad_data == "error":
        first = "; ".join(f"{p.file}: {p.kind}: {p.detail}" for p in broken[:PROBLEMS_SHOWN])
        more = f" and {len(broken) - PROBLEMS_SHOWN} more" if len(broken) > PROBLEMS_SHOWN else ""
        raise AnnotationError(f"{first}{more}; --on_bad_data skip trains without them")


def _check_names(records: Sequence[ImageRecord], vocabulary: Vocabulary) -> None:
    for record in records:
        vocabulary.product_of(record)
        for box in record.boxes:
            if box.label not in vocabulary.classes:
                hint = f"--class_map {box.label}= leaves it out, {box.label}=NAME reads it as another"
                raise AnnotationError(f"{vocabulary.unknown(record, box)}; {hint}")
