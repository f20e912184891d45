"""What boxes of any format must be: finite, with an area, on their picture; and what is said of those that are not."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.images import image_size
from stay_diffusion.data.problems import Problem

logger = logging.getLogger("stay_diffusion.data")

NOT_FINITE = "boxes without finite coordinates"
UNREADABLE = "images that cannot be read"

Bounds = tuple[float, float, float, float]  # x0 y0 x1 y1 in pixels


def numbers(texts: Sequence[str | None]) -> tuple[float, ...]:
    """The numbers that `texts` state, nan where one states none."""
    try:
        return tuple(float(text) if text else math.nan for text in texts)
    except ValueError:
        return (math.nan,) * len(texts)


def plain_number(value: float) -> int | float:
    """Whole numbers without a decimal point, others in the fewest digits that keep them exactly."""
    return int(value) if value == int(value) else float(value)


def box_fault(bounds: Bounds, width: int, height: int) -> str | None:
    """Why a box, x0 y0 x1 y1 in pixels, cannot be used; boxes partly outside the image can."""
    if not all(map(math.isfinite, bounds)):
        return NOT_FINITE
    if bounds[2] <= bounds[0] or bounds[3] <= bounds[1]:
        return "boxes without area"
    if bounds[2] <= 0 or bounds[3] <= 0 or bounds[0] >= width or bounds[1] >= height:
        return "boxes wholly outside their image"
    return None


def log_problems(folder: Path, found: Sequence[Problem]) -> None:
    """One warning per kind of problem."""
    for kind in dict.fromkeys(problem.kind for problem in found):
        same = [problem for problem in found if problem.kind == kind]
        first = f"{same[0].file}: {same[0].detail}"
        logger.warning("%s: %d times %s: %s (first: %s)", folder, len(same), kind, same[0].action, first)


def with_product_drawn(record: ImageRecord) -> ImageRecord:
    """The record with its size, from the image where it has none, and its product as the first box, over the whole."""
    if not (record.width and record.height):
        width, height = image_size(record.path)
        record = replace(record, width=width, height=height)
    if record.product is None:
        return record
    whole = Box(record.product, 0, 0, record.width, record.height)
    return replace(record, boxes=(whole, *record.boxes), product=None)
