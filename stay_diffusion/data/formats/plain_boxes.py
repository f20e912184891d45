"""What names and boxes of any format must be, and how what is wrong with a data set is said.

Boxes are kept as drawn, also partly outside their image and also two of the same.
"""

import gc
import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..annotations import AnnotationError, Box, ImageRecord
from ..images import ImageError, image_size
from ..problems import Problem

logger = logging.getLogger("stay_diffusion.data")

NOT_FINITE = "boxes without finite coordinates"
UNREADABLE = "images that cannot be read"
NOT_FOUND = "images that are not found"

# Line breaks, control characters and halves of letters that UTF-8 does not have.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LINE_BREAKS = "\u2028\u2029"  # rare ones: a name may have them

NUMBERS = frozenset((int, float))  # of JSON; bool is another type
MANY_OBJECTS = 100_000  # made while the collector rested
MAX_SIDE = 2**31  # no picture is wider or higher, no box reaches further

Bounds = tuple[float, float, float, float]  # x0 y0 x1 y1 in pixels


@contextmanager
def reading(folder: Path, problems: list[Problem] | None) -> Iterator[list[Problem]]:
    """A list for what cannot be used in `folder`, then added to `problems` or, without it, logged once per kind.

    Whatever is wrong is said in one line, also of files with line breaks in their names. Meanwhile Python's collector
    rests, and where much was read it never looks at that: it would go through millions of objects again and again.
    """
    found: list[Problem] = []
    collects = gc.isenabled()
    gc.disable()
    try:
        yield found
    except AnnotationError as error:
        raise type(error)(_one_line(str(error))) from error
    except (OSError, ImageError, RecursionError) as error:
        raise AnnotationError(_one_line(f"{folder}: cannot be read ({error})")) from error
    finally:
        if collects:
            if gc.get_count()[0] > MANY_OBJECTS:
                gc.freeze()
            gc.enable()
    found = [replace(p, file=_one_line(p.file), kind=_one_line(p.kind), detail=_one_line(p.detail)) for p in found]
    if problems is None:
        log_problems(folder, found)
    else:
        problems += found


def numbers(texts: Sequence[str | None]) -> tuple[float, ...]:
    """The numbers that `texts` state, nan where one states none."""
    try:  # Python alone reads 1_0 as ten
        return tuple(float(text) if text and "_" not in text else math.nan for text in texts)
    except ValueError:
        return (math.nan,) * len(texts)


def json_number(value: object) -> float:
    """A number of JSON; nan where it is none, such as true, or beyond all bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.nan


def json_numbers(values: list) -> list[float]:
    """`json_number` of each, quickly where all are numbers, as nearly always."""
    kinds = set(map(type, values))
    if kinds and kinds <= NUMBERS and max(values) < 1e300 and min(values) > -1e300:
        return list(map(float, values)) if int in kinds else values
    return list(map(json_number, values))


def plain_number(value: float) -> int | float:
    """Whole numbers without a decimal point, others in the fewest digits that keep them exactly."""
    return int(value) if value == int(value) else float(value)


def whole_size(width: object, height: object) -> tuple[int, int] | None:
    """Width and height if both are whole numbers of at least 1."""
    sides = json_number(width), json_number(height)
    return (int(sides[0]), int(sides[1])) if all(1 <= s < MAX_SIDE and s == int(s) for s in sides) else None


def as_name(value: object) -> str | None:
    """A text of one line without blanks at its ends; None where it is none or nothing is left."""
    name = value.strip() if isinstance(value, str) else ""
    if name.isprintable():  # at once known; what is not printable may yet be allowed
        return name or None
    return None if any(c not in LINE_BREAKS for c in UNPRINTABLE.findall(name)) else name


def box_fault(bounds: Bounds, width: int, height: int) -> str | None:
    """Why a box, x0 y0 x1 y1 in pixels, cannot be used; boxes partly outside the image can."""
    x0, y0, x1, y1 = bounds
    if 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height:  # nearly always; not with nan
        return None
    if not all(map(math.isfinite, bounds)):
        return NOT_FINITE
    if max(map(abs, bounds)) >= MAX_SIDE:
        return "boxes with coordinates beyond any image"
    if x1 <= x0 or y1 <= y0:
        return "boxes without area"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return "boxes wholly outside their image"
    return None


def log_problems(folder: Path, found: Sequence[Problem]) -> None:
    """One warning per kind of problem."""
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for problem in found:
        kinds[problem.kind].append(problem)
    for kind, same in kinds.items():
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


def _one_line(text: str) -> str:
    return UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], text)
