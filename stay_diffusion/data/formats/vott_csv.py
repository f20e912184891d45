"""VoTT's CSV export: one row per box and tag."""

import csv
import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..annotations import AnnotationError, Box, ImageRecord
from ..images import ImageError, image_size
from ..problems import Problem
from .files import check_image_dir, check_names, read_text, replace_file, visible_files
from .plain_boxes import NOT_FOUND, UNREADABLE, as_name, box_fault, numbers, plain_number, reading, with_product_drawn
from .vott_images import NotFound, Places, find_image

logger = logging.getLogger("stay_diffusion.data")

COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "label")

Row = tuple[int, list[str]]  # line number, the six columns in the order of COLUMNS


def read(
    folder: Path, image_dir: Path | None = None, problems: list[Problem] | None = None
) -> tuple[list[ImageRecord], list[str]]:
    """The pictures in the CSV exports below `folder` (or in one CSV file) and the class names, both as they appear.

    A CSV has no rows for images without boxes: pictures without defects cannot occur in it. Nor has it sizes, which
    come from the images, found by base name in `image_dir`, then beside the file. What cannot be used is skipped and
    added to `problems`; without a list it is logged once per kind.
    Raises AnnotationError for files that are not of this format, for images in two files and where nothing is usable.
    """
    with reading(folder, problems) as found:
        check_image_dir(image_dir)
        return _read(_csv_files(Path(folder)), Places.of(folder, image_dir), found)


def _read(files: Sequence[Path], places: Places, found: list[Problem]) -> tuple[list[ImageRecord], list[str]]:
    records, sources = [], {}
    for file in files:
        for image, rows in _rows_by_image(file, places, found).items():
            if image in sources:
                raise AnnotationError(f"{image}: annotated twice, in {sources[image]} and in {file}; give one of them")
            sources[image] = file
            try:
                width, height = image_size(image)
            except ImageError as error:
                found.append(Problem(str(file), UNREADABLE, str(error), "image skipped"))
            else:
                records.append(ImageRecord(image, width, height, tuple(_boxes(file, rows, width, height, found))))
    if not records:
        why = f" ({found[-1].detail})" if found else ""
        raise AnnotationError(f"{', '.join(map(str, files))}: no image can be used{why}")
    return records, list(dict.fromkeys(box.label for record in records for box in record.boxes))


def write(path: Path, records: Sequence[ImageRecord], tags: Sequence[str]) -> None:
    """A CSV export at `path`, replaced as a whole; a record's product becomes a box over its whole image.

    Images without boxes and `tags` without boxes have no place in it: one warning each counts them.
    Raises AnnotationError for two images of one name, which is all that a CSV says of them.
    """
    path, names = Path(path), set()
    text = io.StringIO()
    write_row = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow
    write_row(COLUMNS)
    records = [with_product_drawn(record) for record in records]
    check_names(path, [box.label for record in records for box in record.boxes])
    for record in records:
        if record.path.name in names:
            raise AnnotationError(f"{path}: two images are called {record.path.name}; rename one of them")
        names.add(record.path.name)
        for box in record.boxes:
            write_row([record.path.name, *map(plain_number, box.edges), box.label])
    if empty := [record for record in records if not record.boxes]:
        logger.warning("%s: left out %d images without boxes (first: %s)", path, len(empty), empty[0].path)
    if unused := [tag for tag in tags if not any(box.label == tag for record in records for box in record.boxes)]:
        logger.warning("%s: left out %d tags without boxes: %s", path, len(unused), ", ".join(unused))
    replace_file(path, text.getvalue().removesuffix("\n"))  # VoTT ends without a line break


def _csv_files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such file or folder; give a VoTT CSV export or a folder with one")
    tables = [path for path in visible_files(folder) if path.suffix == ".csv"]
    files = [path for path in tables if path.stem.endswith("-export")] or tables
    if not files:
        raise AnnotationError(f"{folder}: no CSV export (*-export.csv) found in it")
    return files


def _rows(file: Path) -> Iterator[Row]:
    """Every row but the header, empty lines left out; columns that a row lacks are empty, those too many are None."""
    try:
        lines = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
        header = next(lines, [])
        if missing := [column for column in COLUMNS if column not in header]:
            raise AnnotationError(f"{file}: not a VoTT CSV export: its first line has no {', '.join(missing)}")
        if twice := [column for column in COLUMNS if header.count(column) > 1]:
            raise AnnotationError(f"{file}: its first line has {', '.join(twice)} twice")
        places = [header.index(column) for column in COLUMNS]
        for row in filter(None, lines):
            yield lines.line_num, [row[i] for i in places] if len(row) == len(header) else []
    except csv.Error as error:
        raise AnnotationError(f"{file}: cannot be read as CSV ({error})") from error


def _rows_by_image(file: Path, places: Places, found: list[Problem]) -> dict[Path, list[Row]]:
    """The rows of every image that is there; each missing image is one problem."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for line, row in _rows(file):
        if row and row[0]:
            by_name[row[0]].append((line, row))
        else:
            detail = f"line {line}: {'no image' if row else f'not {len(COLUMNS)} columns'}"
            found.append(Problem(str(file), "rows without image or columns", detail, "box skipped"))
    by_image: dict[Path, list[Row]] = defaultdict(list)
    for name, rows in by_name.items():
        try:
            image = find_image(file, _asset(name), places, required=True)
        except NotFound as error:
            found.append(Problem(str(file), NOT_FOUND, str(error), "image skipped"))
        else:
            by_image[image] += rows
    return by_image


def _asset(name: str) -> dict:
    """VoTT writes base names; others' files may have paths, whose folders then tell equal names apart."""
    *folders, base = name.replace("\\", "/").split("/")
    return {"name": base, "path": name if folders else ""}


def _boxes(file: Path, rows: Sequence[Row], width: int, height: int, found: list[Problem]) -> Iterator[Box]:
    for line, (image, *texts, text) in rows:
        label, bounds = as_name(text), numbers(texts)
        fault = box_fault(bounds, width, height) if label else "boxes without a label"
        if fault:
            detail = f"line {line}, {image}: {', '.join(texts)}"
            found.append(Problem(str(file), fault, detail, "box skipped"))
        else:
            yield Box(label, *bounds)
