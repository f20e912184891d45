"""From a data set's folder to the records of one split and the vocabulary that they are written in."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from stay_diffusion.data import semantic_datasets
from stay_diffusion.data.annotations import (
    AnnotationError,
    EmptySplit,
    ImageRecord,
    Vocabulary,
    assign_products,
    build_vocabulary,
    find_product_tags,
)
from stay_diffusion.data.formats import image_folder, vott
from stay_diffusion.data.formats.semantic_map import CODINGS

# (annotation folder, image folder or None) -> every drawn box, products included; the tag names in the project's order
Reader = Callable[[Path, Path | None], tuple[list[ImageRecord], list[str]]]

DATASETS: dict[str, Reader] = {"sdi": vott.read, "images": image_folder.read}


SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "validation")}


def load_records(
    mode: str,
    data_dir: Path,
    split: str,
    image_dir: Path | None = None,
    product_tags: Sequence[str] = (),
    classes: Sequence[str] = (),
    val_fraction: float = 0.1,
) -> tuple[list[ImageRecord], Vocabulary]:
    """The records of one split, products assigned, and the vocabulary: `classes` if given, else what the data says.

    Split folders are used where there are both; otherwise the names of the files decide, `val_fraction` of them for
    "val". Without `product_tags` and `classes` the products are the tags that always cover the whole image, and the
    products that the format itself names. Data sets of label maps have their own split folders and classes.
    Raises AnnotationError where a folder or split is missing or empty, or a tag is unknown.
    """
    if mode in CODINGS:
        if image_dir or product_tags:
            flag = f"--image_dir {image_dir}" if image_dir else f"--product_tags {','.join(product_tags)}"
            raise ValueError(f"{flag}: --dataset_mode {mode} has none")
        vocabulary = _names_of_map(mode, classes)
        return semantic_datasets.read(mode, data_dir, split), vocabulary
    if mode not in DATASETS:
        raise ValueError(f"--dataset_mode {mode}: choose from {', '.join((*DATASETS, *CODINGS))}")
    folder, is_split = _annotation_folder(data_dir, split)
    if image_dir is not None:
        image_dir = find_split(image_dir, split) or image_dir
    records, tags = DATASETS[mode](folder, image_dir)

    if not classes:
        named = dict.fromkeys(sorted({record.product for record in records if record.product}))
        product_tags = product_tags or (*find_product_tags(records), *named)
        if not named:  # files that name products need not show all of them, in a small val folder say
            _check_product_tags(product_tags, records, tags)
    records = assign_products(records, product_tags)
    vocabulary = (
        Vocabulary(tuple(classes), tuple(product_tags)) if classes else build_vocabulary(records, tags, product_tags)
    )

    if not is_split:  # after the vocabulary, so that both splits share one
        records = [record for record in records if _is_validation(record, val_fraction) == (split == "val")]
    if not records:
        how = "" if is_split else f" (by name, --val_fraction {val_fraction:g})"
        raise EmptySplit(f"{folder}: no images for the {split} split{how}")
    _check_names(records, vocabulary)
    return records, vocabulary


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
    if not data_dir.exists():  # one annotation file is as good as a folder
        raise AnnotationError(f"--data_dir {data_dir}: no such folder or file")
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
