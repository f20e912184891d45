"""VoTT 2.2.0: reads its JSON exports and its project folders, writes a JSON export that VoTT can open."""

import colorsys
import hashlib
import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord
from stay_diffusion.data.formats.vott_images import base_name, find_image
from stay_diffusion.data.problems import LEFT_OUT, Problem

logger = logging.getLogger("stay_diffusion.data")

VERSION = "2.2.0"
NOT_VISITED, VISITED, TAGGED = 0, 1, 2  # asset.state
IMAGE, VIDEO, TFRECORD = 1, 2, 4  # asset.type; 0 (unknown) and 3 (a video's frame) are pictures too

VIDEOS = "videos and TFRecords (only pictures and single frames can be used)"
UNSEEN = "images that nobody has looked at (VoTT state 0)"
UNTAGGED = "images marked as tagged whose <id>-asset.json is missing or empty"
# The first two are no faults of the data; all else spoils a box.
ACTIONS = {VIDEOS: LEFT_OUT, UNSEEN: LEFT_OUT, UNTAGGED: "image skipped"}

Skipped = dict[str, list[str]]  # what was left out -> where


def read(
    folder: Path,
    image_dir: Path | None = None,
    problems: list[Problem] | None = None,
    *,
    require_images: bool = True,
) -> tuple[list[ImageRecord], list[str]]:
    """Every looked-at picture below `folder` (or in one JSON or .vott file) with all its tags as boxes; the tag names.

    Images are looked for in `image_dir`, then beside the file. What cannot be used is skipped and added to `problems`;
    without it there is one warning per kind. Raises AnnotationError for broken files, missing images (unless
    `require_images` is False, for layouts without images) and for base names that could mean two different images.
    """
    folder, skipped, indexes = Path(folder), defaultdict(list), {}
    records: list[ImageRecord] = []
    tags: dict[str, None] = {}
    sources: dict[Path, Path] = {}
    for file in _annotation_files(folder):
        project = _load(file, key="assets")
        try:
            tags |= dict.fromkeys(str(tag["name"]) for tag in project.get("tags") or ())
            for asset, regions in _looked_at(file, project, skipped):
                image = find_image(file, asset, image_dir, indexes, required=require_images)
                if require_images and image in sources:
                    raise AnnotationError(
                        f"{image}: annotated twice, in {sources[image]} and in {file}; give one of the files, "
                        "or --image_dir with the folder that was labelled"
                    )
                sources[image] = file
                width, height = _size(file, asset, image)
                boxes = tuple(_boxes(regions, width, height, f"{image} in {file}", skipped))
                records.append(ImageRecord(image, width, height, boxes))
        except AnnotationError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise AnnotationError(f"{file}: not in VoTT's shape ({type(error).__name__}: {error})") from error
    for kind, where in skipped.items():
        if problems is None:
            logger.warning("%s: skipped %d %s (first: %s)", folder, len(where), kind, where[0])
        else:
            problems += [Problem(str(folder), kind, place, ACTIONS.get(kind, "box skipped")) for place in where]
    return records, list(tags)


def write(path: Path, records: Sequence[ImageRecord], tags: Sequence[str], *, name: str) -> None:
    """A vott-json export at `path`, replaced as a whole; a record's product becomes a region over its whole image.

    Image paths are written relative to the export's folder, so that equal records give equal bytes anywhere.
    """
    path = Path(path)
    assets = {}
    for record in records:
        metadata = _asset_metadata(record, path.parent)
        asset_id = metadata["asset"]["id"]
        if asset_id in assets:
            raise AnnotationError(f"{path}: the image {record.path} is given twice")
        assets[asset_id] = metadata
    found = [label for record in records for label in (record.product, *(box.label for box in record.boxes)) if label]
    project = {
        "name": name,
        "videoSettings": {"frameExtractionRate": 15},
        "tags": [{"name": tag, "color": _color(i)} for i, tag in enumerate(dict.fromkeys([*tags, *found]))],
        "useSecurityToken": True,
        "securityToken": f"{name} Token",
        "id": _md5(name)[:9],
        "activeLearningSettings": {"autoDetect": False, "predictTag": True, "modelPathType": "coco"},
        "version": VERSION,
        "lastVisitedAssetId": next(reversed(assets), ""),
        "assets": assets,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(json.dumps(project, indent=4, ensure_ascii=False), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _annotation_files(folder: Path) -> list[Path]:
    """The exports to read; only where there are none, the projects (a project usually holds its own export)."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such file or folder; give a VoTT export, a project or a folder with one")
    files = sorted(folder.rglob("*-export.json")) or sorted(folder.rglob("*.vott"))
    if not files:
        raise AnnotationError(f"{folder}: no VoTT export (*-export.json) and no VoTT project (*.vott) found in it")
    return files


def _load(file: Path, key: str) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise AnnotationError(f'{file}: not a VoTT file: it has no "{key}"')
    return content


def _looked_at(file: Path, project: dict, skipped: Skipped) -> Iterator[tuple[dict, list[dict]]]:
    """Each picture that somebody has looked at, as (asset, regions)."""
    is_project = file.suffix.lower() == ".vott"
    for entry in project["assets"].values():
        asset, regions = (entry, []) if is_project else (entry["asset"], entry.get("regions") or [])
        where = f"{base_name(asset)} in {file}"
        own_file = file.parent / f"{asset['id']}-asset.json" if is_project else None
        if own_file and own_file.is_file():
            metadata = _load(own_file, key="asset")
            asset, regions = metadata["asset"], metadata.get("regions") or []
        state = asset.get("state", VISITED)
        if asset.get("type", IMAGE) in (VIDEO, TFRECORD):
            skipped[VIDEOS].append(where)
        elif not regions and state == NOT_VISITED:
            skipped[UNSEEN].append(where)
        elif not regions and own_file and state == TAGGED:
            # Reading it as a picture without regions would teach a defect as a good part.
            skipped[UNTAGGED].append(where)
        else:
            yield asset, regions


def _boxes(regions: list[dict], width: int, height: int, where: str, skipped: Skipped) -> Iterator[Box]:
    for region in regions:
        tags = list(dict.fromkeys(map(str, region.get("tags") or ())))
        bounds = _bounds(region)
        kind = str(region.get("type", "RECTANGLE")).upper()
        if not tags:
            skipped["regions without a tag"].append(where)
        elif bounds is None or not all(map(math.isfinite, bounds)):
            skipped[f"{kind} regions without finite coordinates"].append(where)
        elif bounds[2] <= bounds[0] or bounds[3] <= bounds[1]:
            skipped[f"{kind} regions without area"].append(where)
        elif bounds[2] <= 0 or bounds[3] <= 0 or bounds[0] >= width or bounds[1] >= height:
            skipped[f"{kind} regions wholly outside their image"].append(where)
        else:
            yield from (Box(tag, *bounds) for tag in tags)


def _bounds(region: dict) -> tuple[float, float, float, float] | None:
    """x0 y0 x1 y1 of the bounding box, or of the points where there is none."""
    points = region.get("points") or ()
    xs, ys = [float(point["x"]) for point in points], [float(point["y"]) for point in points]
    if box := region.get("boundingBox"):
        x0, y0 = float(box["left"]), float(box["top"])
        x1, y1 = x0 + float(box["width"]), y0 + float(box["height"])
        # left + width can miss in the last bit what the points state exactly
        x1, y1 = (max((p for p in near if abs(p - far) < 1e-9), default=far) for far, near in ((x1, xs), (y1, ys)))
        return x0, y0, x1, y1
    return (min(xs), min(ys), max(xs), max(ys)) if points else None


def _size(file: Path, asset: dict, image: Path) -> tuple[int, int]:
    """Width and height as labelled; from the image itself where VoTT never opened it."""
    size = asset.get("size") or {}
    if size.get("width") and size.get("height"):
        return int(size["width"]), int(size["height"])
    if not image.is_file():
        raise AnnotationError(f"{file}: {base_name(asset)} has no size in the file and its image was not found")
    from stay_diffusion.data.images import image_size

    return image_size(image)


def _asset_metadata(record: ImageRecord, folder: Path) -> dict:
    relative = Path(os.path.relpath(record.path, folder)).as_posix()
    boxes = list(record.boxes)
    if record.product is not None:
        boxes.insert(0, Box(record.product, 0, 0, record.width, record.height))
    return {
        "asset": {
            "format": record.path.suffix[1:].lower(),
            "id": _md5(relative),
            "name": record.path.name,
            "path": f"file:{quote(relative)}",
            "size": {"width": record.width, "height": record.height},
            "state": TAGGED if boxes else VISITED,
            "type": IMAGE,
        },
        "regions": [_region(box, _md5(f"{relative}/{i}")[:9]) for i, box in enumerate(boxes)],
        "version": VERSION,
    }


def _region(box: Box, region_id: str) -> dict:
    x0, y0, x1, y1 = (_number(value) for value in (box.x0, box.y0, box.x1, box.y1))
    return {
        "id": region_id,
        "type": "RECTANGLE",
        "tags": [box.label],
        "boundingBox": {"height": _number(y1 - y0), "width": _number(x1 - x0), "left": x0, "top": y0},
        "points": [{"x": x, "y": y} for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))],
    }


def _number(value: float) -> int | float:
    """Whole numbers without a decimal point, as JavaScript writes them."""
    return int(value) if value == int(value) else float(value)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _color(i: int) -> str:
    """The i-th of a row of well separated colours (hues by the golden ratio)."""
    return "#" + "".join(f"{int(value * 255):02x}" for value in colorsys.hsv_to_rgb(i * 0.618 % 1, 0.85, 0.8))
