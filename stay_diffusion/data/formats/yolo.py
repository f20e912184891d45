"""YOLO: one text file per picture with normalised boxes or polygons, and a data.yaml that names classes and splits."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stay_diffusion.data.annotations import AnnotationError, Box, EmptySplit, ImageRecord
from stay_diffusion.data.formats.files import (
    CLASSES,
    check_image_dir,
    check_names,
    check_stems,
    copy_image,
    names_by_index,
    read_lines,
    read_names,
    read_yaml,
    replace_file,
    visible_files,
)
from stay_diffusion.data.formats.plain_boxes import (
    NOT_FINITE,
    UNREADABLE,
    Bounds,
    box_fault,
    log_problems,
    numbers,
    with_product_drawn,
)
from stay_diffusion.data.images import IMAGE_SUFFIXES, ImageError, image_size
from stay_diffusion.data.problems import Problem

SPLITS = ("train", "val", "test")

Pairs = list[tuple[Path, Path]]  # picture, label file, which need not exist


def read(
    folder: Path, image_dir: Path | None = None, problems: list[Problem] | None = None, split: str = "train"
) -> tuple[list[ImageRecord], list[str]]:
    """Every picture of a split with its boxes, in the order of paths or of the list; the class names by their index.

    `folder` has a data.yaml (or is one), else a classes.txt and the folders images/SPLIT and labels/SPLIT, or images
    and labels. A picture's labels lie where the last `images` of its path reads `labels`, or beside it; a list
    SPLIT.txt is also served from labels/SPLIT beside it. An empty or missing label file is a picture without defects.
    Sizes come from the images. With `image_dir` the images are taken from there, at the same place below it, those of a
    list by base name. What cannot be used is skipped and added to `problems`; without a list it is logged per kind.
    Raises AnnotationError for a yaml that is not understood, missing folders, and pictures none of which has a label
    file; EmptySplit where the yaml does not name the split.
    """
    assert split in SPLITS
    folder, found = Path(folder), [] if problems is None else problems
    check_image_dir(image_dir)
    names, sources = _data_set(folder, split)
    pairs: Pairs = []
    for source in sources:
        pairs += (_listed if source.is_file() else _in_folder)(source, image_dir and Path(image_dir), found)
    if not any(label.is_file() for _, label in pairs):
        what = f"label file for its {len(pairs)} images, such as {pairs[0][1]}" if pairs else "image found"
        raise AnnotationError(f"{sources[0]}: no {what}")
    records = []
    for image, label in dict.fromkeys(pairs):
        try:
            lines = read_lines(label) if label.is_file() else []
            width, height = image_size(image)
        except ImageError as error:
            found.append(Problem(str(image), UNREADABLE, str(error), "image skipped"))
        except (OSError, UnicodeError) as error:
            found.append(Problem(str(label), "label files that cannot be read", str(error), "image skipped"))
        else:
            records.append(ImageRecord(image, width, height, tuple(_boxes(label, lines, names, width, height, found))))
    if problems is None:
        log_problems(folder, found)
    return records, list(dict.fromkeys(names[i] for i in sorted(names)))


def write(
    folder: Path,
    records: Sequence[ImageRecord],
    tags: Sequence[str],
    *,
    split: str = "train",
    copy_images: bool = False,
) -> None:
    """labels/SPLIT/STEM.txt for every record, the list SPLIT.txt of their images and data.yaml, each replaced whole.

    A record's product becomes a box over its whole image. The images stay where they are, which `read` understands;
    other readers look for labels by the images' paths: for them `copy_images` puts the images into images/SPLIT.
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
    if others and (there := list(_data_set(folder, others[0])[0].values())) != names:
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
    if _yaml_file(folder) is None:
        return (folder / "images" / split).is_dir()
    try:
        _data_set(folder, split)
    except EmptySplit:
        return False
    return True


def _data_set(folder: Path, split: str) -> tuple[dict[int, str], list[Path]]:
    """The class names by index, and the folders of images or lists of a split."""
    file = _yaml_file(folder)
    if file is None:
        names = next((names for sub in ("", "labels") if (names := read_names(folder / sub / CLASSES))), None)
        places = (folder / "images" / split, folder / "images")
        images = [path for path in places if path.is_dir() or _swapped(path).is_dir()]
        if names is None or not images:
            raise AnnotationError(f"{folder}: no yaml with names, and no {CLASSES} with a folder images either")
        return dict(enumerate(names)), images[:1]
    values = read_yaml(file)
    for key in ("path", "nc"):
        if not isinstance(values.get(key, ""), str):
            raise AnnotationError(f"{file}: {key} is no single value")
    names, count = names_by_index(file, values.get("names")), values.get("nc")
    if count is not None and count != str(len(names)):
        raise AnnotationError(f"{file}: nc is {count}, but there are {len(names)} names")
    paths = values.get(split)
    if not paths:
        raise EmptySplit(f"{file}: has no {split}; it has {', '.join(s for s in SPLITS if values.get(s)) or 'none'}")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise AnnotationError(f"{file}: {split} is neither a path nor a list of paths")
    return names, [_locate(file, values.get("path", ""), path) for path in paths]


def _yaml_file(folder: Path) -> Path | None:
    if folder.is_file() or (folder / "data.yaml").is_file():
        return folder if folder.is_file() else folder / "data.yaml"
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such file or folder; give a folder with a data.yaml, or the yaml itself")
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".yaml", ".yml")]
    files = [path for path in files if re.search(rb"^names\s*:", path.read_bytes(), re.MULTILINE)]
    if len(files) > 1:
        raise AnnotationError(f"{folder}: {' and '.join(path.name for path in files)} have names; give one of them")
    return files[0] if files else None


def _locate(file: Path, base: str, path: str) -> Path:
    """The folder or list that the yaml means; exports of Roboflow say ../train/images for train/images beside it."""
    parts = [Path(place, part) for part in (path, path.removeprefix("../")) for place in (base, "")]
    candidates = [Path(os.path.normpath(file.parent / part)) for part in parts]
    for candidate in candidates:
        if candidate.exists() or _swapped(candidate).is_dir():
            return candidate
    raise AnnotationError(f"{file}: {path}: no such folder or list; looked for {', '.join(map(str, candidates[:2]))}")


def _in_folder(source: Path, image_dir: Path | None, found: list[Problem]) -> Pairs:
    root, labels = image_dir or source, _swapped(source)
    labels = labels if labels.is_dir() else source
    images = [path for path in visible_files(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    pairs = [(image, (labels / image.relative_to(root)).with_suffix(".txt")) for image in images]
    if labels != source:
        known = {label for _, label in pairs}
        for label in visible_files(labels):
            if label.suffix == ".txt" and label not in known and label.name != CLASSES:
                detail = f"no image {label.relative_to(labels).with_suffix('')} in {root}"
                found.append(Problem(str(label), "label files without an image", detail, "image skipped"))
    return pairs


def _listed(source: Path, image_dir: Path | None, found: list[Problem]) -> Pairs:
    pairs, by_name = [], {path.name: path for path in visible_files(image_dir)} if image_dir else {}
    for number, line in enumerate(read_lines(source), 1):
        image = Path(os.path.normpath(source.parent / line))
        image = by_name.get(image.name, image)
        if image.is_file():
            own = (source.parent / "labels" / source.stem / image.name).with_suffix(".txt")
            pairs.append((image, own if own.is_file() else _swapped(image).with_suffix(".txt")))
        elif line.strip():
            detail = f"line {number}: no image {image}"
            found.append(Problem(str(source), "images that are not found", detail, "image skipped"))
    return pairs


def _swapped(path: Path) -> Path:
    """The path with `labels` for its last `images`, the path itself where it has none."""
    parts = path.parts
    at = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    return path if at is None else Path(*parts[:at], "labels", *parts[at + 1 :])


def _boxes(
    label: Path, lines: Sequence[str], names: dict[int, str], width: int, height: int, found: list[Problem]
) -> Iterator[Box]:
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        index, *values = numbers(words)
        bounds = _bounds(values, width, height)
        if bounds is None:
            fault = "lines that are neither a box (class cx cy w h) nor a polygon (class x y x y x y ...)"
        elif not all(map(math.isfinite, (index, *values))):
            fault = NOT_FINITE
        elif index not in names:
            fault = "class indexes without a name"
        else:
            fault = box_fault(bounds, width, height)
        if fault:
            found.append(Problem(str(label), fault, f"line {number}: {line.strip()[:80]}", "box skipped"))
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
    return x0 * width, y0 * height, x1 * width, y1 * height


def _normalised(box: Box, width: int, height: int) -> str:
    """cx cy w h; ten digits keep a box within 0.00001 pixels in the widest of images."""
    sums = (box.x0 + box.x1) / 2 / width, (box.y0 + box.y1) / 2 / height
    return " ".join(f"{value:.10f}" for value in (*sums, (box.x1 - box.x0) / width, (box.y1 - box.y0) / height))
