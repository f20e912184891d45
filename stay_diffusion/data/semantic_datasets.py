"""Where data sets keep pictures and label maps, SPADE's, SDM's and one's own; paired by name, never by order."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import splits
from .annotations import AnnotationError, EmptySplit, ImageRecord, MapFiles, Vocabulary
from .codings import CODINGS, Coding
from .formats import semantic_map
from .images import find_pictures

logger = logging.getLogger("stay_diffusion.data")

NAMES_SHOWN = 3
NO_ENDINGS = ("", "", "")


@dataclass(frozen=True)
class Folders:
    """Folders below data_dir, {split} replaced by the data set's name for it, and what file names end with."""

    images: str
    labels: str
    instances: str | None
    splits: dict[str, str]
    endings: tuple[str, str, str] = NO_ENDINGS  # of images, labels and instances, before the suffix


SEMANTIC_DATASETS: dict[str, Folders] = {
    "ade20k": Folders(
        "images/{split}", "annotations/{split}", None, splits={"train": "training", "val": "validation"}
    ),
    "cityscapes": Folders(
        "leftImg8bit/{split}",
        "gtFine/{split}",
        "gtFine/{split}",
        splits={"train": "train", "val": "val"},
        endings=("_leftImg8bit", "_gtFine_labelIds", "_gtFine_instanceIds"),
    ),
    # Faces have no instances: where the parts of the label map meet are the edges.
    "celeba": Folders(
        "{split}/images", "{split}/labels", "{split}/labels", splits={"train": "train", "val": "test"}
    ),
    "coco_semantic": Folders(
        "{split}_img", "{split}_label", "{split}_inst", splits={"train": "train", "val": "val"}
    ),
}  # fmt: skip
OWN = "maps"  # the mode of data sets that name their classes themselves
OWN_LABELS = ("annotations", "labels")
MODES = (*SEMANTIC_DATASETS, OWN)


class Place(NamedTuple):
    """The folders of one split, and whether they hold nothing else; `instances` need not be there."""

    images: Path
    labels: Path
    instances: Path | None
    is_split: bool = True


def coding_of(mode: str, data_dir: Path) -> Coding:
    """What the ids in the maps mean; AnnotationError where the folder is not there or does not say."""
    if not data_dir.is_dir():
        raise AnnotationError(f"--data_dir {data_dir}: no such folder")
    return semantic_map.own_coding(data_dir) if mode == OWN else CODINGS[mode]


def place_of(mode: str, data_dir: Path, split: str) -> Place:
    """Where a split, "train" or "val", lies: one's own as splits.annotation_folder finds it in images."""
    if mode == OWN:
        images, is_split = splits.annotation_folder(data_dir / "images", split)
        part = images.relative_to(data_dir / "images")
        labels = [data_dir / name / part for name in OWN_LABELS]
        found = next((folder for folder in labels if folder.is_dir()), labels[0])
        return Place(images, found, data_dir / "instances" / part, is_split)
    where = SEMANTIC_DATASETS[mode]
    name = where.splits[split]
    images, labels_of = (data_dir / pattern.format(split=name) for pattern in (where.images, where.labels))
    return Place(images, labels_of, data_dir / where.instances.format(split=name) if where.instances else None)


def read(mode: str, data_dir: Path, split: str, coding: Coding | None = None) -> list[ImageRecord]:
    """The pictures of a split, "train" or "val", with their maps, in the order of their names.

    `coding` says what the ids in the maps mean; without it, it is the data set's own.

    A picture without a label map, or without an instance map where others have one, is an AnnotationError that names
    it; label maps without a picture are counted in a warning. EmptySplit where the split's folder is not there.
    """
    coding, where = coding or coding_of(mode, data_dir), place_of(mode, data_dir, split)
    endings = SEMANTIC_DATASETS[mode].endings if mode in SEMANTIC_DATASETS else NO_ENDINGS
    for folder in where[:2]:
        if not folder.is_dir():
            message = f"{folder}: no such folder, for the {split} split of --dataset_mode {mode}"
            raise EmptySplit(message) if split == "val" else AnnotationError(message)
    images, labels, instances = (
        _by_stem(folder, ending) if folder else {} for folder, ending in zip(where[:3], endings, strict=True)
    )
    if not images:
        raise EmptySplit(f"{where.images}: no pictures in it")
    _all_there(images, labels, f"label map in {where.labels}")
    if instances:
        _all_there(images, instances, f"instance map in {where.instances}")
    if unused := sorted(labels.keys() - images.keys()):
        logger.warning("%s: %d label maps have no picture (first: %s)", where.labels, len(unused), labels[unused[0]])
    return [
        ImageRecord(path, 0, 0, maps=MapFiles(labels[stem], instances.get(stem), coding))
        for stem, path in sorted(images.items())
    ]


def _by_stem(folder: Path, ending: str) -> dict[str, Path]:
    """The pictures below a folder by their path in it without ending and suffix."""
    found: dict[str, Path] = {}
    for path in find_pictures(folder):
        if not path.stem.endswith(ending):
            continue
        stem = path.relative_to(folder).with_name(path.stem.removesuffix(ending)).as_posix()
        if stem in found:
            raise AnnotationError(f"{path}: {found[stem].name} beside it has the same name; remove one of them")
        found[stem] = path
    return found


def _all_there(images: dict[str, Path], partners: dict[str, Path], what: str) -> None:
    missing = sorted(images.keys() - partners.keys())
    if missing:
        shown = ", ".join(str(images[stem]) for stem in missing[:NAMES_SHOWN])
        more = f" and {len(missing) - NAMES_SHOWN} more" if len(missing) > NAMES_SHOWN else ""
        raise AnnotationError(f"{shown}{more}: no {what}")


def names_of_map(coding: Coding, classes: Sequence[str], known: Vocabulary) -> tuple[Vocabulary, Coding]:
    """The names that labels in maps stand for, and the coding that has their labels.

    Those given or known, if they hold the data set's, in any order, or number them (class_1 ...); else the data set's.
    """
    own = coding.classes

    def numbers(names: Sequence[str]) -> bool:
        first = zip(names, own, strict=False)
        return len(names) >= len(own) and all(n in (mine, f"class_{i}") for i, (n, mine) in enumerate(first, 1))

    if not (set(own) <= set(classes) or numbers(classes)):
        for label, (known_as, name) in enumerate(zip(classes, own, strict=False), 1):
            if known_as not in (name, f"class_{label}"):
                told = f"its class {label} is {name!r}, but the model's is {known_as!r}"
                raise AnnotationError(f"{coding.source}: {told}")
        if classes:
            raise AnnotationError(f"{coding.source}: has {len(own)} classes, but the model knows {len(classes)}")
    names = known if numbers(known.classes) else known.extended(Vocabulary(tuple(classes or own)))
    return names, coding if numbers(names.classes) else coding.with_labels_of(names.classes)
