"""What the images of a set show: by the manifest that made them, or by the data set that they belong to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..config import DataConfig
from ..data.annotations import RelativeBox
from ..data.manifest import NAME, find_manifests, read_manifest
from ..run import factory
from .image_set import ImageSet


class Shown(NamedTuple):
    """What an image shows; no `product` where none is known."""

    objects: tuple[RelativeBox, ...]
    product: str | None


def with_objects(images: ImageSet, data: DataConfig) -> ImageSet:
    """The same set with the boxes of each image, in [0, 1] of its sides, and its product.

    Of samples and the real pictures beside them (RESULTS/images) they come from the manifest, of all others from the
    folder read as a data set (--dataset_mode and the other data flags). ValueError where an image has none of these.
    """
    if images.objects is not None:
        return images
    folder = Path(images.path)
    if not folder.is_dir():
        raise ValueError(f"{images.path}: objects are known of folders, not of files")
    known = dict(of_manifests(folder))
    if not known:
        known = dict(of_data_set(folder, data))
    places = [Path(item).resolve() for item in images.items]
    missing = next((place for place in places if place not in known), None)
    if missing:
        raise ValueError(f"{missing}: neither a manifest.jsonl nor the annotations in {folder} say what it shows")
    objects, products = zip(*(known[place] for place in places), strict=True)
    return replace(images, objects=objects, products=products)


def of_manifests(folder: Path) -> Iterator[tuple[Path, Shown]]:
    """(image, what it shows) of a results folder, of its runs, or of the real pictures in RESULTS/images.

    Of samples made by putting objects into whole pictures: those alone, not what the pictures had before, and nothing
    of the pictures themselves.
    """
    manifests = find_manifests(folder)
    real = folder.name == "images" and not manifests
    for manifest in [folder.parent / NAME] if real else manifests:
        for entry in read_manifest(manifest) if manifest.is_file() else ():
            if real and entry.source_image:
                continue
            file = Path("images") / f"{entry.stem}.png" if real else Path(entry.file)
            yield (manifest.parent / file).resolve(), Shown(entry.new_objects, entry.product)


def of_data_set(folder: Path, data: DataConfig) -> Iterator[tuple[Path, Shown]]:
    """(image, what it shows) of all that a folder's annotations name."""
    whole = replace(data, data_dir=str(folder), val_fraction=0.0, id_list="")
    records, _ = factory.read_split(whole, "train", select=True)
    for record in records:
        if record.boxes and not (record.width and record.height):
            raise ValueError(f"{record.path}: its annotation does not say how large it is")
        yield record.path.resolve(), Shown(record.relative_boxes, record.product)
