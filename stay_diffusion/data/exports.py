"""A complete data set in any of four formats: the labels, and the pictures where the format's readers look for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .annotations import ImageRecord, Vocabulary
from .formats import coco, voc, vott, yolo
from .formats.files import replace_file

Place = Callable[[Path, Path], Path]  # a picture and a folder -> where the picture now is in the folder


@dataclass(frozen=True)
class LabelledSet:
    """The records of one split and the names they are written in.

    `weak_masks` are COCO's run-length codes for every box of every record; the other formats have no place for them.
    """

    records: Sequence[ImageRecord]
    vocabulary: Vocabulary
    name: str
    split: str = "train"
    weak_masks: Sequence[Sequence[dict]] | None = None

    def placed(self, folder: Path, place: Place) -> list[ImageRecord]:
        """The records with their pictures in `folder`."""
        return [replace(record, path=place(record.path, folder)) for record in self.records]

    @property
    def tags(self) -> list[str]:
        """All names, products last: then class i is the i-th also where a format numbers all names alike."""
        return [*self.vocabulary.classes, *self.vocabulary.products]


def stay(image: Path, folder: Path) -> Path:
    """For pictures that are in their place."""
    return image


def _vott(data: LabelledSet, folder: Path, place: Place) -> None:
    """FOLDER/NAME-export.json beside the pictures; products are regions over the whole picture."""
    names = [*data.vocabulary.products, *data.vocabulary.classes]
    vott.write(folder / f"{data.name}-export.json", data.placed(folder, place), names, name=data.name)


def _coco(data: LabelledSet, folder: Path, place: Place) -> None:
    """annotations/instances_SPLIT.json and images/SPLIT; class i has the id i + 1, products are the images'."""
    images = folder / "images" / data.split
    coco.write(
        folder / "annotations" / f"instances_{data.split}.json",
        data.placed(images, place),
        data.vocabulary.classes,
        name=data.name,
        image_dir=images,
        weak_masks=data.weak_masks,
    )


def _voc(data: LabelledSet, folder: Path, place: Place) -> None:
    """Annotations, JPEGImages, ImageSets/Main/SPLIT.txt and classes.txt; products are boxes over the whole picture."""
    records = data.placed(folder / "JPEGImages", place)
    voc.write(folder, records, data.tags)
    listed = "".join(f"{record.stem}\n" for record in records)
    replace_file(folder / "ImageSets/Main" / f"{data.split}.txt", listed)


def _yolo(data: LabelledSet, folder: Path, place: Place) -> None:
    """data.yaml, images/SPLIT and labels/SPLIT; class i has the id i, products, boxes over the whole, come after."""
    yolo.write(folder, data.placed(folder / "images" / data.split, place), data.tags, split=data.split)


# By name: what writes a LabelledSet into a folder, its pictures brought there by a `Place`.
EXPORTS: dict[str, Callable[[LabelledSet, Path, Place], None]] = {
    "vott": _vott,
    "coco": _coco,
    "voc": _voc,
    "yolo": _yolo,
}
OWN_FOLDER = ("vott", "voc")  # formats in which each split has a folder of its own
READ_AS = {"vott": "sdi", "coco": "coco_json", "voc": "voc", "yolo": "yolo"}  # --dataset_mode
