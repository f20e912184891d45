"""Regions of VoTT's files: their tags and bounds as boxes."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from sys import intern

from ..annotations import Box
from ..problems import Problem
from .plain_boxes import Bounds, as_name, box_fault, json_numbers

BOUNDS = ("bounds",)  # the place of a region's bounds once they are worked out; no key of JSON


def boxes_of(
    file: Path, name: str, regions: Sequence[dict], width: int, height: int, found: list[Problem]
) -> Iterator[Box]:
    """The boxes of a picture's regions, one for each of their tags; what cannot be used is added to `found`."""
    for i, region in enumerate(regions, 1):
        tags, bounds = region.get("tags") or [], region.get(BOUNDS) or _bounds(region)
        names = [intern(text) if (text := as_name(tag)) else None for tag in tags] if isinstance(tags, list) else [None]
        fault: str | None
        if not tags:
            fault = "regions without a tag"
        elif None in names:
            fault = "regions whose tags are no names"
        elif fault := box_fault(bounds, width, height):
            fault = fault.replace("boxes", f"{str(region.get('type', 'RECTANGLE')).upper():.20} regions")
        if fault:
            found.append(Problem(str(file), fault, f"{name}, region {i} ({tags!s:.80}): {bounds}", "box skipped"))
        else:
            yield from [Box(tag, *bounds) for tag in dict.fromkeys(names) if tag]


def outlined(region: dict) -> dict:
    """A region with its bounds in the place of its points and box, which are most of a file."""
    if "tags" not in region:
        return region
    return {"type": region.get("type", "RECTANGLE"), "tags": region["tags"], BOUNDS: _bounds(region)}


def _bounds(region: dict) -> Bounds:
    """x0 y0 x1 y1 of the bounding box, or of the points where there is none; nan where they are no numbers."""
    try:
        points, box = region.get("points") or (), region.get("boundingBox")
        values = [point["x"] for point in points] + [point["y"] for point in points]
        if box:
            values += box["left"], box["top"], box["width"], box["height"]
        values = json_numbers(values)
        xs, ys = values[: len(points)], values[len(points) : 2 * len(points)]
        if box:
            x0, y0, w, h = values[-4:]
            return x0, y0, _stated(x0 + w, xs), _stated(y0 + h, ys)
        return min(xs), min(ys), max(xs), max(ys)
    except (TypeError, KeyError, ValueError):  # ValueError: neither points nor a box
        return (math.nan,) * 4


def _stated(far: float, near: Sequence[float]) -> float:
    """What the points state exactly, where left + width can miss it in the last bit."""
    return far if far in near else max([place for place in near if abs(place - far) < 1e-9], default=far)
