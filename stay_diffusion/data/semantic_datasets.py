"""Where SPADE's and SDM's data sets keep pictures, label maps and instance maps; paired by name, never by order."""

import logging
from dataclasses import dataclass
from pathlib import Path

from stay_diffusion.data.annotations import AnnotationError, EmptySplit, ImageRecord, MapFiles
from stay_diffusion.data.images import find_pictures

logger = logging.getLogger("stay_diffusion.data")

NAMES_SHOWN = 3


@dataclass(frozen=True)
class Folders:
    """Folders below data_dir, {split} replaced by the data set's name for it, and what file names end with."""

    images: str
    labels: str
    instances: str | None
    splits: dict[str, str]
    endings: tuple[str, str, str] = ("", "", "")  # of images, labels and instances, before the suffix


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


def read(mode: str, data_dir: Path, split: str) -> list[ImageRecord]:
    """The pictures of a split, "train" or "val", with their maps, in the order of their names.

    A picture without a label map, or without an instance map where others have one, is an AnnotationError that names
    it; label maps without a picture are counted in a warning. EmptySplit where the split's folder is not there.
    """
    where, name = SEMANTIC_DATASETS[mode], SEMANTIC_DATASETS[mode].splits[split]
    if not data_dir.is_dir():
        raise AnnotationError(f"--data_dir {data_dir}: no such folder")
    folders = [data_dir / pattern.format(split=name) for pattern in (where.images, where.labels)]
    for folder in folders:
        if not folder.is_dir():
            message = f"{folder}: no such folder, for the {split} split of --dataset_mode {mode}"
            raise EmptySplit(message) if split == "val" else AnnotationError(message)
    images, labels = (_by_stem(folder, ending) for folder, ending in zip(folders, where.endings, strict=False))
    instances = {}
    if where.instances:
        instances = _by_stem(data_dir / where.instances.format(split=name), where.endings[2])

    if not images:
        raise EmptySplit(f"{folders[0]}: no pictures in it")
    _all_there(images, labels, f"label map in {folders[1]}")
    if instances:
        _all_there(images, instances, f"instance map in {data_dir / where.instances.format(split=name)}")
    if unused := sorted(labels.keys() - images.keys()):
        logger.warning("%s: %d label maps have no picture (first: %s)", folders[1], len(unused), labels[unused[0]])
    return [
        ImageRecord(path, 0, 0, maps=MapFiles(labels[stem], instances.get(stem), mode))
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
