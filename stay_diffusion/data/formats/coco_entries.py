"""The entries of a COCO JSON: parsed, checked one by one, found on disk; for every data set in that format."""

import math
import os
import posixpath
import unicodedata
from collections.abc import Container, Iterator, Sequence
from pathlib import Path, PurePath, PureWindowsPath

from ..annotations import AnnotationError
from ..problems import Problem
from .files import read_json
from .plain_boxes import Bounds, as_name, box_fault, json_number, whole_size

MISSING = "images whose file is missing"

Id = int | str | float


class Unusable(ValueError):
    """An image or a box cannot be used; the message is the kind of `Problem`."""


def load(file: Path) -> dict:
    """The content of a COCO JSON, outlines left out; AnnotationError unless it has the three lists of one."""
    # Outlines are most of the file and nobody reads them: without them COCO's own fits into memory.
    content = read_json(
        file, "segmentation", lambda entry: {key: entry[key] for key in entry.keys() - {"segmentation"}}
    )
    if not isinstance(content, dict):
        content = {}
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise AnnotationError(f'{file}: not a COCO file: it has no list "{key}"')
    return content


def category_names(file: Path, categories: list) -> dict[Id, str]:
    """id -> name in the file's order; AnnotationError where one is missing or given twice."""
    names: dict[Id, str] = {}
    ids: dict[str, Id] = {}
    for category in categories:
        key, name = (
            (as_id(category.get("id")), as_name(category.get("name"))) if isinstance(category, dict) else (None, None)
        )
        if key is None or name is None:
            raise AnnotationError(f"{file}: category {category!r:.80} has no id or no name")
        if key in names:
            raise AnnotationError(f"{file}: two categories have the id {key!r}: {names[key]!r} and {name!r}")
        if name in ids:
            raise AnnotationError(f"{file}: the categories {ids[name]!r} and {key!r} have the same name {name!r}")
        names[key], ids[name] = name, key
    return names


def images_by_id(file: Path, images: list, problems: list[Problem]) -> dict[Id, dict]:
    """The entries of "images" by their ids; AnnotationError where two have the same."""
    found: dict[Id, dict] = {}
    for i, image in enumerate(images):
        key = as_id(image.get("id")) if isinstance(image, dict) else None
        if key is None:
            problems.append(Problem(str(file), "images without an id", f"images[{i}]: {image!r:.80}", "image skipped"))
        elif key in found:
            raise AnnotationError(f"{file}: two images have the id {key!r}")
        else:
            found[key] = image
    return found


def annotations_of(
    file: Path, annotations: list, images: Container[Id], problems: list[Problem]
) -> Iterator[tuple[Id, dict]]:
    """Each annotation of one of `images`, with the image's id."""
    for i, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            detail = f"annotations[{i}]: {annotation!r:.80}"
            problems.append(Problem(str(file), "annotations without fields", detail, "box skipped"))
        elif (key := as_id(annotation.get("image_id"))) is not None and key in images:
            yield key, annotation
        else:
            problems.append(box_problem(file, annotation, "boxes of an unknown image_id"))


def is_crowd(annotation: dict) -> bool:
    return annotation.get("iscrowd") in (1, "1")


def stated_size(image: dict) -> tuple[int, int] | None:
    """Width and height if both are whole numbers of at least 1."""
    return whole_size(image.get("width"), image.get("height"))


def box_bounds(annotation: dict, width: int, height: int) -> Bounds:
    """x0 y0 x1 y1 of an annotation's bbox, [x, y, width, height]; Unusable where it is none or shows nothing."""
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not {type(value) for value in bbox} <= {int, float}:
        raise Unusable("boxes that are not four numbers")
    x0, y0, w, h = map(json_number, bbox)
    bounds = x0, y0, x0 + w, y0 + h
    if fault := box_fault(bounds, width, height):
        raise Unusable(fault)
    return bounds


def find_image(folders: Sequence[Path], file_name: object) -> Path:
    """The picture in the first of `folders` that has it; Unusable where there is none or its name leads out of them."""
    if not isinstance(file_name, str) or not file_name:
        raise Unusable("images without a file_name")
    # Some tools write Windows' separators, which are part of a name elsewhere; Macs take umlauts apart.
    names = [posixpath.normpath(name) for name in (file_name, file_name.replace("\\", "/"))]
    names = list(
        dict.fromkeys([*names, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names)])
    )
    absolute = PurePath(file_name).anchor or PureWindowsPath(file_name).root
    if absolute or any(name == ".." or name.startswith("../") for name in names):
        raise Unusable("images whose file_name leads out of their folder")
    places = (os.path.join(folder, name) for folder in folders for name in names)
    if place := next(filter(os.path.isfile, places), None):
        return Path(place)
    raise Unusable(MISSING)


def image_problem(file: Path, image: dict, kind: str) -> Problem:
    detail = f"image {image.get('id')!r:.40}: {image.get('file_name')!r:.200}"
    return Problem(str(file), kind, detail, "image skipped")


def box_problem(file: Path, annotation: dict, kind: str) -> Problem:
    image, category, bbox = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
    detail = (
        f"annotation {annotation.get('id')!r:.40}: image {image!r:.40}, category {category!r:.40}, bbox {bbox!r:.80}"
    )
    return Problem(str(file), kind, detail, "box skipped")


def as_id(value: object) -> Id | None:
    # Not bool, nothing that has no hash, nor nan, which is unlike itself.
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else value
