"""The objects in the images of a set: by the manifest of their samples, or by the annotations of their data set."""

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
    """The objects in an image, and its product, if one is known."""

    objects: tuple[RelativeBox, ...]
    product: str | None


def with_objects(images: ImageSet, data: DataConfig) -> ImageSet:
    """Return the set with the boxes of each image, in [0, 1] of its sides, and its product.

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
    places = [item.resolve() for item in images.items if isinstance(item, Path)]
    missing = next((place for place in places if place not in known), None)
    if missing:
        raise ValueError(f"{missing}: neither a manifest.jsonl nor the annotations in {folder} say what it shows")
    objects, products = zip(*(known[place] for place in places), strict=True)
    return replace(images, objects=objects, products=products)


def of_manifests(folder: Path) -> Iterator[tuple[Path, Shown]]:
    """Yield (image, its objects) of a results folder, of its runs, or of the real images in RESULTS/images.

    Of samples made by inserting objects into whole images only the inserted ones count; those images have none.
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
    """Yield (image, its objects) of all images in a folder's annotations."""
    whole = replace(data, data_dir=str(folder), val_fraction=0.0, id_list="")
    records, _ = factory.read_split(whole, "train", select=True)
    for record in records:
        if record.boxes and not (record.width and record.height):
            raise ValueError(f"{record.path}: its annotation does not say how large it is")
        yield record.path.resolve(), Shown(record.relative_boxes, record.product)
