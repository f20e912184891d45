"""VoTT 2.2.0: reads its JSON exports and its project folders, writes a JSON export that VoTT can open."""

import colorsys
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from ..annotations import AnnotationError, Box, ImageRecord
from ..images import ImageError, image_size
from ..problems import LEFT_OUT, Problem
from .files import check_names, read_json, replace_file, visible_files
from .plain_boxes import NOT_FOUND, UNREADABLE, as_name, plain_number, reading, whole_size, with_product_drawn
from .vott_images import NotFound, Places, base_name, find_image
from .vott_regions import boxes_of, outlined

VERSION = "2.2.0"
NOT_VISITED, VISITED, TAGGED = 0, 1, 2  # asset.state
IMAGE, VIDEO, TFRECORD = 1, 2, 4  # asset.type; 0 (unknown) and 3 (a video's frame) are pictures too

VIDEOS = "videos and TFRecords (only pictures and single frames can be used)"
UNSEEN = "images that nobody has looked at (VoTT state 0)"
UNTAGGED = "images marked as tagged whose regions are missing"


def read(
    folder: Path, image_dir: Path | None = None, problems: list[Problem] | None = None, *, require_images: bool = True
) -> tuple[list[ImageRecord], list[str]]:
    """Every looked-at picture below `folder` (or in one JSON or .vott file) with all its tags as boxes; the tag names.

    Images are looked for in `image_dir`, then beside the file. What cannot be used is skipped and added to `problems`;
    without it there is one warning per kind, and missing images are an error. Raises AnnotationError for files not in
    VoTT's shape, images annotated twice and where nothing is usable. Layouts do not `require_images`.
    """
    with reading(folder, problems) as found:
        places, records = Places.of(folder, image_dir), []
        sources: dict[str, Path] = {}
        tags: dict[str, None] = {}
        for file in _annotation_files(Path(folder)):
            project = _load(file, key="assets")
            try:
                tags |= dict.fromkeys(_tag_names(file, project))
                for record in _records(file, project, places, require_images, found):
                    name = str(record.path)  # a path would keep its hash
                    if require_images and name in sources:
                        raise AnnotationError(
                            f"{name}: annotated twice, in {sources[name]} and in {file}; give one of the files, or "
                            "--image_dir with the folder that was labelled"
                        )
                    sources[name] = file
                    records.append(record)
            except (KeyError, TypeError, AttributeError, OverflowError) as error:
                raise AnnotationError(f"{file}: not in VoTT's shape ({type(error).__name__}: {error})") from error
        lost = found if not records else [p for p in found if problems is None and p.kind == NOT_FOUND]
        if lost:
            raise AnnotationError(f"{lost[0].file}: {lost[0].kind}: {lost[0].detail}")
        return records, list(tags)


def write(path: Path, records: Sequence[ImageRecord], tags: Sequence[str], *, name: str) -> None:
    """A vott-json export at `path`, replaced as a whole; a record's product becomes a region over its whole image.

    Image paths are written relative to the export's folder, so that equal records give equal bytes anywhere; images
    outside of the folder that is then read need it as `image_dir`.
    """
    assets: dict[str, dict] = {}
    records = [with_product_drawn(record) for record in records]
    names = check_names(path, [*tags, *(box.label for record in records for box in record.boxes)])
    for record in records:
        metadata = _asset_metadata(record, path.parent)
        if assets.setdefault(metadata["asset"]["id"], metadata) is not metadata:
            raise AnnotationError(f"{path}: the image {record.path} is given twice")
    project = {
        "name": name,
        "videoSettings": {"frameExtractionRate": 15},
        "tags": [{"name": tag, "color": _color(i)} for i, tag in enumerate(names)],
        "useSecurityToken": True,
        "securityToken": f"{name} Token",
        "id": _md5(name)[:9],
        "activeLearningSettings": {"autoDetect": False, "predictTag": True, "modelPathType": "coco"},
        "version": VERSION,
        "lastVisitedAssetId": next(reversed(assets), ""),
        "assets": assets,
    }
    replace_file(path, json.dumps(project, indent=4, ensure_ascii=False))


def _annotation_files(folder: Path) -> list[Path]:
    """The exports to read; only where there are none, the projects (a project usually holds its own export)."""
    csv = "a CSV export cannot hold good parts; export JSON instead (VoTT: Export settings -> VoTT JSON)"
    if folder.is_file():
        if folder.suffix.lower() == ".csv":
            raise AnnotationError(f"{folder}: {csv}")
        return [folder]
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such file or folder; give a VoTT export, a project or a folder with one")
    paths = visible_files(folder, ("-export.json", ".vott"))
    exports, projects = ([path for path in paths if path.name.endswith(end)] for end in ("-export.json", ".vott"))
    if not (files := exports or projects):
        if visible_files(folder, (".csv",)):
            raise AnnotationError(f"{folder}: {csv}")
        raise AnnotationError(f"{folder}: no VoTT export (*-export.json) and no VoTT project (*.vott) found in it")
    return files


def _load(file: Path, key: str) -> dict:
    content = read_json(file, "points", outlined)
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise AnnotationError(f'{file}: not a VoTT file: it has no "{key}"')
    return content


def _tag_names(file: Path, project: dict) -> list[str]:
    stated = [tag["name"] for tag in project.get("tags") or ()]
    if nameless := [name for name in stated if as_name(name) is None]:
        raise AnnotationError(f"{file}: a tag has the name {nameless[0]!r:.80}")
    return [name for each in stated if (name := as_name(each))]


def _records(
    file: Path, project: dict, places: Places, require_images: bool, found: list[Problem]
) -> Iterator[ImageRecord]:
    """Each picture that somebody has looked at."""
    for asset, regions in _assets(file, project):
        name = base_name(asset)
        if fault := _asset_fault(asset, regions):
            found.append(Problem(str(file), fault, name, LEFT_OUT if fault in (VIDEOS, UNSEEN) else "image skipped"))
            continue
        try:
            image = find_image(file, asset, places, required=require_images)
            width, height = _size(asset, image)
        except NotFound as error:
            found.append(Problem(str(file), NOT_FOUND, str(error), "image skipped"))
        except ImageError as error:
            found.append(Problem(str(file), UNREADABLE, f"{name} has no size in the file: {error}", "image skipped"))
        else:
            yield ImageRecord(image, width, height, tuple(boxes_of(file, name, regions or (), width, height, found)))


def _assets(file: Path, project: dict) -> Iterator[tuple[dict, list[dict] | None]]:
    """Each asset with its regions, None where they are not there."""
    for entry in project["assets"].values():
        if file.suffix.lower() != ".vott":
            yield entry["asset"], entry.get("regions")
            continue
        name = f"{entry['id']}-asset.json"
        if name != os.path.basename(name):
            raise AnnotationError(f"{file}: the id {entry['id']!r:.80} is no name of a file")
        own_file = file.parent / name
        metadata = _load(own_file, key="asset") if os.path.isfile(own_file) else {"asset": entry}
        yield metadata["asset"], metadata.get("regions") or None


def _asset_fault(asset: dict, regions: list[dict] | None) -> str | None:
    """Why a picture is no example, neither of defects nor of a good part."""
    kind, state = asset.get("type", IMAGE), asset.get("state", VISITED)
    if type(kind) is not int or kind not in range(5) or type(state) is not int or state not in range(3):
        return "images of unknown state or type"
    if not isinstance(regions, list | None):
        return "images whose regions are no list"
    if kind in (VIDEO, TFRECORD):
        return VIDEOS
    if not regions and state == NOT_VISITED:
        return UNSEEN
    # Reading it as a picture without regions would teach a defect as a good part.
    return UNTAGGED if regions is None and state == TAGGED else None


def _size(asset: dict, image: Path) -> tuple[int, int]:
    """Width and height as labelled; from the image itself where VoTT never opened it."""
    size = asset.get("size")
    stated = whole_size(size.get("width"), size.get("height")) if isinstance(size, dict) else None
    return stated or image_size(image)


def _asset_metadata(record: ImageRecord, folder: Path) -> dict:
    relative = Path(os.path.relpath(record.path, folder)).as_posix()
    return {
        "asset": {
            "format": record.path.suffix[1:].lower(),
            "id": _md5(relative),
            "name": record.path.name,
            "path": f"file:{quote(relative)}",
            "size": {"width": record.width, "height": record.height},
            "state": TAGGED if record.boxes else VISITED,
            "type": IMAGE,
        },
        "regions": [_region(box, _md5(f"{relative}/{i}")[:9]) for i, box in enumerate(record.boxes)],
        "version": VERSION,
    }


def _region(box: Box, region_id: str) -> dict:
    x0, y0, x1, y1 = (plain_number(value) for value in box.edges)
    return {
        "id": region_id,
        "type": "RECTANGLE",
        "tags": [box.label],
        "boundingBox": {"height": plain_number(y1 - y0), "width": plain_number(x1 - x0), "left": x0, "top": y0},
        "points": [{"x": x, "y": y} for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))],
    }


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _color(i: int) -> str:
    """The i-th of a row of well separated colours (hues by the golden ratio)."""
    return "#" + "".join(f"{int(value * 255):02x}" for value in colorsys.hsv_to_rgb(i * 0.618 % 1, 0.85, 0.8))
