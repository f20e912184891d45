"""COCO detection JSON: reads pictures with their boxes and those without any; writes what pycocotools can load."""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from ..annotations import AnnotationError, Box, ImageRecord
from ..images import ImageError, image_size
from ..problems import Problem
from .coco_entries import (
    MISSING,
    Id,
    Unusable,
    annotations_of,
    as_id,
    box_bounds,
    box_problem,
    category_names,
    find_image,
    image_problem,
    images_by_id,
    is_crowd,
    load,
    stated_size,
)
from .files import check_image_dir, check_names, replace_file
from .plain_boxes import UNREADABLE, as_name, plain_number, reading

logger = logging.getLogger("stay_diffusion.data")

FILE_NAMES = ("_annotations.coco.json", "instances_*.json", "annotations.json")  # preferred to other *.json
WEAK_MASKS = "weak: found where a picture differs from the same picture without its objects, not drawn by hand"
DIGITS = 6  # of written numbers: far below what can be drawn, and 0.1 + 0.2 - 0.1 is 0.2 again


def read(
    path: Path, image_dir: Path | None = None, problems: list[Problem] | None = None
) -> tuple[list[ImageRecord], list[str]]:
    """Every listed picture of one JSON, or of a folder with one, with its boxes; the categories in the file's order.

    Pictures are looked for in `image_dir`; without it beside the file, then in `images` there, then, where the file's
    folder is called annotations, in `images/<split>`, `<split>` and `images` beside that folder; the split is what
    follows the last underscore of the file's name. Crowds are left out. What cannot be used is skipped and appended to
    `problems`, or without it one warning is logged per kind. Raises AnnotationError where the file as a whole cannot
    be used, ids or names are there twice, or no picture at all is found.
    """
    with reading(path, problems) as found:
        return _read(_annotation_file(Path(path)), image_dir, found)


def _read(file: Path, image_dir: Path | None, found: list[Problem]) -> tuple[list[ImageRecord], list[str]]:
    content = load(file)
    names = category_names(file, content["categories"])
    images = images_by_id(file, content["images"], found)
    records = _records(file, images, _image_folders(file, image_dir), found)
    boxes: dict[Id, list[Box]] = defaultdict(list)
    crowds = 0
    for image_id, annotation in annotations_of(file, content["annotations"], images, found):
        if is_crowd(annotation):
            crowds += 1
        elif record := records.get(image_id):
            try:
                category = as_id(annotation.get("category_id"))
                label = None if category is None else names.get(category)
                if label is None:
                    raise Unusable("boxes of an unknown category_id")
                boxes[image_id].append(Box(label, *box_bounds(annotation, record.width, record.height)))
            except Unusable as error:
                found.append(box_problem(file, annotation, str(error)))
    if crowds:
        logger.info("%s: left out %d crowds (iscrowd 1)", file, crowds)
    return [replace(record, boxes=tuple(boxes.get(key, ()))) for key, record in records.items()], [*names.values()]


def write(
    path: Path,
    records: Sequence[ImageRecord],
    tags: Sequence[str],
    *,
    name: str,
    image_dir: Path | None = None,
    weak_masks: Sequence[Sequence[dict]] | None = None,
) -> None:
    """An instances JSON at `path`, replaced as a whole; the categories are `tags`, then other labels as they appear.

    file_name is relative to `image_dir`; without it to the JSON's folder where all pictures are below that, else to
    the innermost folder that holds them all. A product is no category but the image's "product". `weak_masks` holds,
    record by record, the run-length code of each box's mask: the annotation then is "weak", and its area still that of
    the box. Equal records give equal bytes. Raises AnnotationError for a picture given twice or outside `image_dir`.
    """
    path = Path(path)
    products = {record.product for record in records}
    found = dict.fromkeys(box.label for record in records for box in record.boxes)
    labels = dict.fromkeys([*(tag for tag in tags if tag not in products or tag in found), *found])
    category_ids = {label: i for i, label in enumerate(check_names(path, [*labels]), start=1)}
    root = image_dir or _common_folder(path, records)
    images: dict[str, dict] = {}
    annotations: list[dict] = []
    for i, record in enumerate(records):
        file_name = _below(root, record.path)
        if file_name is None:
            raise AnnotationError(f"{path}: the image {record.path} is not below {root}")
        if file_name in images:
            raise AnnotationError(f"{path}: the image {record.path} is given twice")
        width, height = (record.width, record.height) if record.width else image_size(record.path)
        images[file_name] = {"id": len(images) + 1, "file_name": file_name, "width": width, "height": height}
        if record.product is not None:
            images[file_name]["product"] = record.product
        masks = (
            [{"segmentation": mask, "weak": True} for mask in weak_masks[i]] if weak_masks else [{}] * len(record.boxes)
        )
        for box, mask in zip(record.boxes, masks, strict=True):
            place = {"image_id": len(images), "category_id": category_ids[box.label]}
            annotations.append({"id": len(annotations) + 1, **place, **_shape(box), **mask})
    content = {
        "info": {"description": name, **({"masks": WEAK_MASKS} if weak_masks else {})},
        "licenses": [],
        "images": [*images.values()],
        "annotations": annotations,
        "categories": [{"id": i, "name": label, "supercategory": "object"} for label, i in category_ids.items()],
    }
    # In ASCII: pycocotools opens it in the encoding of the place, and names need not be valid Unicode.
    replace_file(path, json.dumps(content, allow_nan=False))


def _annotation_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise AnnotationError(f"{path}: no such file or folder; give a COCO JSON or a folder with one")
    for folder in (path, path / "annotations"):
        files = [file for file in sorted(folder.glob("*.json")) if not file.name.startswith("._")]
        files = [file for file in files if any(fnmatch(file.name, known) for known in FILE_NAMES)] or files
        if len(files) > 1:
            raise AnnotationError(f"{folder}: several JSON files, give one: {', '.join(file.name for file in files)}")
        if files:
            return files[0]
    raise AnnotationError(f"{path}: no COCO JSON ({', '.join(FILE_NAMES)}) in it or in its folder annotations")


def _image_folders(file: Path, image_dir: Path | None) -> list[Path]:
    if image_dir is not None:
        check_image_dir(image_dir)
        return [Path(image_dir)]
    folders = [file.parent, file.parent / "images"]
    if file.absolute().parent.name.lower() == "annotations":
        beside, split = file.absolute().parent.parent, file.stem.rpartition("_")[2]
        folders += [beside / "images" / split, beside / split, beside / "images"]
    return [folder for folder in folders if folder.is_dir()]


def _records(
    file: Path, images: dict[Id, dict], folders: Sequence[Path], problems: list[Problem]
) -> dict[Id, ImageRecord]:
    """Each image whose file is there, still without boxes."""
    records: dict[Id, ImageRecord] = {}
    ids: dict[str, Id] = {}
    missing = 0
    for key, image in images.items():
        try:
            path = find_image(folders, image.get("file_name"))
            size = stated_size(image) or image_size(path)
            product = as_name(image.get("product"))
            if product is None and image.get("product"):
                raise Unusable("images whose product is not a name")
        except (Unusable, ImageError) as error:
            kind = str(error) if isinstance(error, Unusable) else UNREADABLE
            missing += kind == MISSING
            problems.append(image_problem(file, image, kind))
            continue
        name = str(path)  # a path would keep its hash
        if name in ids:
            raise AnnotationError(f"{file}: images {ids[name]!r} and {key!r} are the same file {name}")
        ids[name] = key
        records[key] = ImageRecord(path, *size, product=product)
    if missing and missing == len(images):
        searched = ", ".join(map(str, folders))
        raise AnnotationError(
            f"{file}: none of its {missing} images found in {searched}; pass --image_dir with the images' folder"
        )
    return records


def _common_folder(path: Path, records: Sequence[ImageRecord]) -> Path:
    if all(_below(path.parent, record.path) for record in records):
        return path.parent
    return Path(os.path.commonpath([record.path.absolute().parent for record in records]))


def _below(folder: Path, path: Path) -> str | None:
    relative = Path(os.path.relpath(path, folder))
    return None if relative.parts[0] == ".." else relative.as_posix()


def _shape(box: Box) -> dict:
    def number(value: float) -> int | float:
        return plain_number(round(value, DIGITS))

    width, height = number(box.x1 - box.x0), number(box.y1 - box.y0)
    return {"bbox": [number(box.x0), number(box.y0), width, height], "area": number(width * height), "iscrowd": 0}
