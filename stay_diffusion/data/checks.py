"""What is wrong with a data set's pictures, file by file, and what its objects are like, before training on it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .annotations import AnnotationError, ImageRecord, Vocabulary
from .formats import semantic_map
from .images import ImageError, Range, image_size, read_image
from .problems import Problem

SMALLEST_SIDE = 2  # pixels at the model's resolution under which an object can hardly be drawn
SKIPPED = "image skipped"


def picture_problem(record: ImageRecord, decode: bool, value_range: Range | None = None) -> Problem | None:
    """Why a picture cannot be used: missing, unreadable, or not of the annotated size.

    By its header alone, or with `decode` by reading it whole, and its maps.
    """
    try:
        upright = not record.maps
        if decode:
            size = read_image(record.path, channels=3, upright=upright, value_range=value_range).size
        else:
            size = image_size(record.path)
        if decode and record.maps:
            annotated = semantic_map.read(record.maps).labels.shape[::-1]
            if annotated != size:
                return _of_another_size(record, size, annotated)
    except ImageError as error:
        kind = "images that are missing" if not record.path.exists() else "images that cannot be read"
        return Problem(str(record.path), kind, str(error), SKIPPED)
    except AnnotationError as error:
        return Problem(str(record.path), "label maps that cannot be used", str(error), SKIPPED)
    if record.width and record.height and size != (record.width, record.height):
        return _of_another_size(record, size, (record.width, record.height))
    return None


def usable(
    records: Sequence[ImageRecord], problems: list[Problem], decode: bool = False, value_range: Range | None = None
) -> list[ImageRecord]:
    """The records whose pictures can be used; what is wrong with the others is added to `problems`."""
    kept = []
    for record in records:
        problem = picture_problem(record, decode, value_range)
        if problem is None:
            kept.append(record)
        else:
            problems.append(problem)
    return kept


@dataclass
class Statistics:
    """Counts of boxes, by class and in all, and their shorter sides in shares of the picture's shorter side."""

    images: int = 0
    empty: int = 0
    boxes: int = 0
    per_class: Counter = field(default_factory=Counter)
    sides: list[float] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)

    def quantiles(self) -> tuple[float, float, float] | None:
        """Least, median and largest of `sides`."""
        return tuple(np.quantile(self.sides, (0, 0.5, 1)).tolist()) if self.sides else None


def statistics(records: Iterable[ImageRecord], vocabulary: Vocabulary, size: int, use_instances: bool) -> Statistics:
    """Of the objects of all records; `tiny` names those under SMALLEST_SIDE pixels in a picture resized to `size`."""
    found = Statistics()
    for record in records:
        boxes, labels, (width, height) = _objects(record, vocabulary, use_instances)
        found.images += 1
        found.empty += not len(boxes)
        found.boxes += len(boxes)
        for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
            found.per_class[label] += 1
            found.sides.append(min(x1 - x0, y1 - y0) / min(width, height))
            shown = min((x1 - x0) / width, (y1 - y0) / height) * size
            if shown < SMALLEST_SIDE:
                found.tiny.append(f"{record.path}: {label} {x0:g},{y0:g},{x1:g},{y1:g}: {shown:.1f} pixels")
    return found


def _objects(record: ImageRecord, vocabulary: Vocabulary, use_instances: bool):
    """Boxes in pixels, their class names, and the picture's size."""
    if record.maps:
        maps = semantic_map.read(record.maps)
        boxes, labels = semantic_map.objects(maps, record.maps.coding, use_instances)
        return boxes.tolist(), [vocabulary.classes[label - 1] for label in labels], maps.labels.shape[::-1]
    size = (record.width, record.height) if record.width else image_size(record.path)
    return [box.edges for box in record.boxes], [b.label for b in record.boxes], size


def _of_another_size(record: ImageRecord, size: tuple[int, int], annotated: tuple[int, int]) -> Problem:
    detail = f"annotated as {annotated[0]}x{annotated[1]}, the image has {size[0]}x{size[1]} pixels"
    return Problem(str(record.path), "images of another size than annotated", detail, SKIPPED)
