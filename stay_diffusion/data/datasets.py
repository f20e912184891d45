"""From a data set's folder to the records of one split and the vocabulary that they are written in."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from stay_diffusion.data import coco_stuff, semantic_datasets
from stay_diffusion.data.annotations import (
    AnnotationError,
    EmptySplit,
    ImageRecord,
    Vocabulary,
    assign_products,
    build_vocabulary,
    find_product_tags,
)
from stay_diffusion.data.formats import coco, image_folder, voc, vott, vott_csv, yolo
from stay_diffusion.data.formats.plain_boxes import log_problems
from stay_diffusion.data.formats.semantic_map import CODINGS
from stay_diffusion.data.problems import LEFT_OUT, Problem

logger = logging.getLogger("stay_diffusion.data")

# (annotation folder, image folder or None, what cannot be used) -> every drawn box; the tag names in the data's order
Reader = Callable[[Path, Path | None, list[Problem]], tuple[list[ImageRecord], list[str]]]

SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "validation", "valid")}
PRODUCTS_DRAWN = ("sdi", "voc", "yolo")  # where a product is a tag like any other, over the whole picture
PROBLEMS_SHOWN = 3


class Found(NamedTuple):
    """What a format has for a split: records, tag names, whether the records are of the split alone; fixed names."""

    records: list[ImageRecord]
    tags: Sequence[str]
    is_split: bool
    classes: Sequence[str] = ()


def load_records(
    mode: str,
    data_dir: Path,
    split: str,
    image_dir: Path | None = None,
    product_tags: Sequence[str] = (),
    classes: Sequence[str] = (),
    val_fraction: float = 0.1,
    on_bad_data: str = "error",
    coco_filter: dict | None = None,
    problems: list[Problem] | None = None,
) -> tuple[list[ImageRecord], Vocabulary]:
    """The records of one split, products assigned, and the vocabulary: `classes` if given, else what the data says.

    Split folders are used where there are both; otherwise the names of the files decide, `val_fraction` of them for
    "val". Without `product_tags` and `classes` the products are the tags that always cover the whole image, in formats
    where products are drawn, and those that the format itself names. Data sets of label maps have their own split
    folders and classes. `coco_filter` holds what coco_stuff.read takes.

    What cannot be used is skipped and added to `problems`; without it, it is counted in warnings and, unless
    `on_bad_data` is "skip", an AnnotationError. So are missing and empty folders and splits, and unknown tags.
    """
    if mode in CODINGS:
        if image_dir or product_tags:
            flag = f"--image_dir {image_dir}" if image_dir else f"--product_tags {','.join(product_tags)}"
            raise ValueError(f"{flag}: --dataset_mode {mode} has none")
        vocabulary = _names_of_map(mode, classes)
        return semantic_datasets.read(mode, data_dir, split), vocabulary
    if not data_dir.exists():  # one annotation file is as good as a folder
        raise AnnotationError(f"--data_dir {data_dir}: no such folder or file")
    found: list[Problem] = []
    records, tags, is_split, fixed = _read(mode, data_dir, split, image_dir, found, coco_filter or {})
    if problems is None:
        report(data_dir, found, on_bad_data)
    else:
        problems += found

    if not classes:
        named = dict.fromkeys(sorted({record.product for record in records if record.product}))
        whole = find_product_tags(records) if mode in PRODUCTS_DRAWN else ()
        product_tags = product_tags or (*whole, *named)
        if not named:  # files that name products need not show all of them, in a small val folder say
            _check_product_tags(product_tags, records, tags)
    records = assign_products(records, product_tags)
    if classes or fixed:
        vocabulary = Vocabulary(tuple(classes or fixed), tuple(product_tags))
    else:
        vocabulary = build_vocabulary(records, tags, product_tags)

    if not is_split:  # after the vocabulary, so that both splits share one
        records = [record for record in records if _is_validation(record, val_fraction) == (split == "val")]
    if not records:
        how = "" if is_split else f" (by name, --val_fraction {val_fraction:g})"
        raise EmptySplit(f"{data_dir}: no images for the {split} split{how}")
    _check_names(records, vocabulary)
    return records, vocabulary


def _read(
    mode: str, data_dir: Path, split: str, image_dir: Path | None, problems: list[Problem], coco_filter: dict
) -> Found:
    if mode in SPLIT_READERS:
        return SPLIT_READERS[mode](data_dir, split, image_dir, problems, **(coco_filter if mode == "coco" else {}))
    if mode not in FOLDER_READERS:
        raise ValueError(f"--dataset_mode {mode}: choose from {', '.join(DATASETS)}")
    folder, is_split = _annotation_folder(data_dir, split)
    if image_dir is not None:
        image_dir = find_split(image_dir, split) or image_dir
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
    files = {name: _coco_file(data_dir, name) for name in SPLIT_FOLDERS}
    is_split = files["val"] is not None
    file = (files[split] if is_split else files["train"]) or data_dir
    return Found(*coco.read(file, image_dir, problems), is_split)


def _coco_file(data_dir: Path, split: str) -> Path | None:
    names = [file for name in SPLIT_FOLDERS[split] for file in sorted(data_dir.glob(f"annotations/*{name}*.json"))]
    instances = [file for file in names if file.name.startswith("instances_")]
    files = instances or names
    if len(files) > 1:
        raise AnnotationError(f"{files[0]} and {files[1]}: which is the {split} split? Give one file as --data_dir")
    return files[0] if files else find_split(data_dir, split)


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
DATASETS = (*FOLDER_READERS, *SPLIT_READERS, *CODINGS)


def report(data_dir: Path, problems: Sequence[Problem], on_bad_data: str) -> None:
    """Counts what cannot be used, kind by kind; AnnotationError for it unless it is to be skipped."""
    log_problems(data_dir, problems)
    broken = [problem for problem in problems if problem.action != LEFT_OUT]
    if broken and on_bad_data == "error":
        first = "; ".join(f"{p.file}: {p.kind}: {p.detail}" for p in broken[:PROBLEMS_SHOWN])
        more = f" and {len(broken) - PROBLEMS_SHOWN} more" if len(broken) > PROBLEMS_SHOWN else ""
        raise AnnotationError(f"{first}{more}; --on_bad_data skip trains without them")


def find_split(data_dir: Path, split: str) -> Path | None:
    """The folder of a split, "train" or "val", in `data_dir` or in its sub-folder `images`."""
    return next((folder for folder in _split_candidates(data_dir, split) if folder.is_dir()), None)


def _names_of_map(mode: str, classes: Sequence[str]) -> Vocabulary:
    """The names given, if they are the data set's or mere numbers (class_1 ...), else the data set's own."""
    own = CODINGS[mode].classes
    if classes and len(classes) < len(own):
        raise AnnotationError(f"--dataset_mode {mode}: has {len(own)} classes, but the model knows {len(classes)}")
    for label, (known, name) in enumerate(zip(classes, own, strict=False), 1):
        if known not in (name, f"class_{label}"):
            raise AnnotationError(f"--dataset_mode {mode}: its class {label} is {name!r}, but the model's is {known!r}")
    return Vocabulary(tuple(classes or own))


def _split_candidates(data_dir: Path, split: str) -> list[Path]:
    return [parent / name for parent in (data_dir, data_dir / "images") for name in SPLIT_FOLDERS[split]]


def _annotation_folder(data_dir: Path, split: str) -> tuple[Path, bool]:
    """Where the annotations of a split are, and whether that folder holds nothing else.

    A train folder without a val folder holds both: some of it is held out.
    """
    train, val = (find_split(data_dir, name) for name in ("train", "val"))
    if train and not val:
        return train, False
    if folder := find_split(data_dir, split):
        return folder, True
    if find_split(data_dir, "val"):
        looked_for = ", ".join(path.relative_to(data_dir).as_posix() for path in _split_candidates(data_dir, split))
        raise AnnotationError(f"{data_dir}: no folder for the {split} split; looked for {looked_for}")
    return data_dir, False


def _is_validation(record: ImageRecord, val_fraction: float) -> bool:
    # By the name alone: the split of an image does not change with the seed or when other images are added.
    return int(hashlib.md5(record.stem.encode(), usedforsecurity=False).hexdigest()[:8], 16) < val_fraction * 2**32


def _check_product_tags(product_tags: Sequence[str], records: Sequence[ImageRecord], tags: Sequence[str]) -> None:
    known = dict.fromkeys([*tags, *(box.label for record in records for box in record.boxes)])
    for tag in product_tags:
        if tag not in known:
            raise AnnotationError(f"--product_tags {tag}: no such tag; tags: {', '.join(known) or 'none'}")


def _check_names(records: Sequence[ImageRecord], vocabulary: Vocabulary) -> None:
    for record in records:
        vocabulary.product_of(record)
        for box in record.boxes:
            vocabulary.label_of(record, box)
