"""YOLO: one text file per picture with normalised boxes or polygons, and a data.yaml that names classes and splits."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..annotations import AnnotationError, Box, EmptySplit, ImageRecord
from ..images import ImageError, image_size
from ..problems import Problem
from .files import check_image_dir, check_names, check_stems, copy_image, read_lines, replace_file
from .plain_boxes import NOT_FINITE, UNREADABLE, Bounds, box_fault, numbers, reading, with_product_drawn
from .yolo_places import SPLITS, data_set, find_pairs, yaml_file

DIGITS = 5  # of pixels, in reading and writing: ten digits of a share are worth more in the widest of pictures


def read(
    folder: Path, image_dir: Path | None = None, problems: list[Problem] | None = None, split: str = "train"
) -> tuple[list[ImageRecord], list[str]]:
    """Every picture of a split with its boxes, in the order of paths or of the list; the class names by their index.

    `folder` has a data.yaml (or is one), else a classes.txt and the folders images/SPLIT and labels/SPLIT, or images
    and labels. A picture's labels lie where the last `images` of its path reads `labels`, or beside it; a list
    SPLIT.txt is also served from labels/SPLIT beside it. An empty or missing label file is a picture without defects.
    Sizes come from the images. With `image_dir` the images are taken from there, at the same place below it, those of a
    list by base name; without, lines of a list that lead out of `folder` are not followed; what the yaml itself names
    is, wherever it lies. What cannot be used is skipped and added to `problems`; without a list it is logged per kind.
    Raises AnnotationError for a yaml that is not understood, missing folders, and pictures none of which has a label
    file; EmptySplit where the yaml does not name the split.
    """
    assert split in SPLITS
    with reading(folder, problems) as found:
        check_image_dir(image_dir)
        return _read(Path(folder), image_dir and Path(image_dir), found, split)


def _read(
    folder: Path, image_dir: Path | None, found: list[Problem], split: str
) -> tuple[list[ImageRecord], list[str]]:
    names, sources = data_set(folder, split)
    pairs = find_pairs(folder if folder.is_dir() else folder.parent, sources, image_dir, found)
    if not any(label.is_file() for _, label in pairs):
        what = f"label file for its {len(pairs)} images, such as {pairs[0][1]}" if pairs else "image found"
        raise AnnotationError(f"{sources[0]}: no {what}")
    records = []
    for image, label in pairs:
        try:
            lines = read_lines(label) if label.is_file() else []
            width, height = image_size(image)
        except ImageError as error:
            found.append(Problem(str(image), UNREADABLE, str(error), "image skipped"))
        except AnnotationError as error:
            found.append(Problem(str(label), "label files that cannot be read", str(error), "image skipped"))
        else:
            records.append(ImageRecord(image, width, height, tuple(_boxes(label, lines, names, width, height, found))))
    return records, [names[i] for i in sorted(names)]


def write(
    folder: Path,
    records: Sequence[ImageRecord],
    tags: Sequence[str],
    *,
    split: str = "train",
    copy_images: bool = False,
) -> None:
    """labels/SPLIT/STEM.txt for every record, the list SPLIT.txt of their images and data.yaml, each replaced whole.

    A record's product becomes a box over its whole image. The images stay where they are: where that is outside of
    `folder`, `read` needs it as `image_dir`. Other readers look for labels by the images' paths: for them `copy_images`
    puts the images into images/SPLIT.
    Raises AnnotationError for two records of one stem, names that cannot be written, and where a split that is there
    already has other classes: give both the same `tags`.
    """
    import yaml

    assert split in SPLITS
    folder = Path(folder)
    records = [with_product_drawn(record) for record in records]
    check_stems(folder, records)
    names = check_names(folder, [*tags, *(box.label for record in records for box in record.boxes)])
    others = [name for name in SPLITS if name != split and (folder / f"{name}.txt").is_file()]
    if others and (there := list(data_set(folder, others[0])[0].values())) != names:
        raise AnnotationError(f"{folder}: its {others[0]} split has the classes {there}, {split} would have {names}")
    index, images = {name: i for i, name in enumerate(names)}, []
    for record in records:
        image = copy_image(record.path, folder / "images" / split) if copy_images else record.path
        images.append(f"./{Path(os.path.relpath(image, folder)).as_posix()}\n")
        lines = [f"{index[box.label]} {_normalised(box, record.width, record.height)}\n" for box in record.boxes]
        replace_file(folder / "labels" / split / f"{record.stem}.txt", "".join(lines))
    replace_file(folder / f"{split}.txt", "".join(images))
    content = {name: f"{name}.txt" for name in SPLITS if name in (split, *others)} | {"names": dict(enumerate(names))}
    replace_file(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def has_split(folder: Path, split: str) -> bool:
    """Whether the yaml names a split, or, without a yaml, images/SPLIT is there."""
    try:
        with reading(folder, []):
            if yaml_file(folder) is None:
                return (folder / "images" / split).is_dir()
            data_set(folder, split)
    except EmptySplit:
        return False
    return True


def _boxes(
    label: Path, lines: Sequence[str], names: dict[int, str], width: int, height: int, found: list[Problem]
) -> Iterator[Box]:
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        index, *values = numbers(words)
        bounds = _bounds(values, width, height)
        fault: str | None
        if bounds is None:
            fault = "lines that are neither a box (class cx cy w h) nor a polygon (class x y x y x y ...)"
        elif not all(map(math.isfinite, (index, *values))):
            fault = NOT_FINITE
        elif index not in names:
            fault = "class indexes without a name"
        else:
            fault = box_fault(bounds, width, height)
        if fault or bounds is None:
            found.append(Problem(str(label), str(fault), f"line {number}: {line.strip()[:80]}", "box skipped"))
        else:
            yield Box(names[int(index)], *bounds)


def _bounds(values: Sequence[float], width: int, height: int) -> Bounds | None:
    """x0 y0 x1 y1 in pixels of a normalised box, or of the box around a polygon."""
    if len(values) == 4:
        cx, cy, w, h = values
        x0, y0, x1, y1 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    elif len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    else:
        return None
    # Rounded, so that pixels that were whole before they became shares are whole again.
    x0, y0, x1, y1 = (round(value, DIGITS) for value in (x0 * width, y0 * height, x1 * width, y1 * height))
    return x0, y0, x1, y1


def _normalised(box: Box, width: int, height: int) -> str:
    """cx cy w h; ten digits keep a box within 0.00001 pixels in the widest of images."""
    # Rounded before they become shares as after: what was read is written as it was.
    x0, y0, x1, y1 = (round(value, DIGITS) for value in box.edges)
    shares = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
    return " ".join(f"{value:.10f}" for value in shares)
