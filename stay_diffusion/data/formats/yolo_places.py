"""Where a YOLO data set has its class names, its pictures and their label files."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..annotations import AnnotationError, EmptySplit
from ..images import find_pictures
from ..problems import LEFT_OUT, Problem
from .files import (
    CLASSES,
    composed,
    leads_out,
    names_by_index,
    names_once,
    read_lines,
    read_names,
    read_yaml,
    visible_files,
)
from .plain_boxes import NOT_FOUND, as_name

SPLITS = ("train", "val", "test")

Pairs = list[tuple[Path, Path]]  # picture, label file, which need not exist


def data_set(folder: Path, split: str) -> tuple[dict[int, str], list[Path]]:
    """The class names by index, and the folders of images or lists of a split."""
    file = yaml_file(folder)
    if file is None:
        listed = next((lines for sub in ("", "labels") if (lines := read_names(folder / sub / CLASSES))), None)
        places = (folder / "images" / split, folder / "images")
        images = [path for path in places if path.is_dir() or _swapped(path).is_dir()]
        if listed is None or not images:
            raise AnnotationError(f"{folder}: no yaml with names, and no {CLASSES} with a folder images either")
        if None in map(as_name, listed):
            raise AnnotationError(f"{folder}: {CLASSES} has a line that is no name")
        return names_once(folder / CLASSES, list(enumerate(listed))), images[:1]
    values = read_yaml(file)
    root, count = values.get("path", ""), values.get("nc")
    if not isinstance(root, str):
        raise AnnotationError(f"{file}: path is no single value")
    if not isinstance(count, str | None):
        raise AnnotationError(f"{file}: nc is no single value")
    names = names_by_index(file, values.get("names"))
    if count is not None and count != str(len(names)):
        raise AnnotationError(f"{file}: nc is {count}, but there are {len(names)} names")
    paths = values.get(split)
    if not paths:
        raise EmptySplit(f"{file}: has no {split}; it has {', '.join(s for s in SPLITS if values.get(s)) or 'none'}")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise AnnotationError(f"{file}: {split} is neither a path nor a list of paths")
    return names, [_locate(file, root, path) for path in paths]


def yaml_file(folder: Path) -> Path | None:
    if folder.is_file() or (folder / "data.yaml").is_file():
        return folder if folder.is_file() else folder / "data.yaml"
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such file or folder; give a folder with a data.yaml, or the yaml itself")
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".yaml", ".yml")]
    files = [path for path in files if path.is_file() and re.search(rb"^names\s*:", path.read_bytes(), re.MULTILINE)]
    if len(files) > 1:
        raise AnnotationError(f"{folder}: {' and '.join(path.name for path in files)} have names; give one of them")
    return files[0] if files else None


def _locate(file: Path, base: str, path: str) -> Path:
    """The folder or list that the yaml means; exports of Roboflow say ../train/images for train/images beside it."""
    parts = [Path(place, part) for part in (path, path.removeprefix("../")) for place in (base, "")]
    candidates = [Path(os.path.normpath(file.parent / part)) for part in parts]
    for candidate in candidates:
        if os.path.exists(candidate) or os.path.isdir(_swapped(candidate)):
            return candidate
    raise AnnotationError(f"{file}: {path}: no such folder or list; looked for {', '.join(map(str, candidates[:2]))}")


def find_pairs(data_dir: Path, sources: Sequence[Path], image_dir: Path | None, found: list[Problem]) -> Pairs:
    """The pictures of folders and lists, each with the label file that is or would be its own."""
    pairs: Pairs = []
    for source in sources:
        if source.is_file():
            pairs += _listed(source, data_dir, image_dir, found)
        else:
            pairs += _in_folder(source, image_dir, found)
    return list(dict.fromkeys(pairs))


def _in_folder(source: Path, image_dir: Path | None, found: list[Problem]) -> Pairs:
    root, labels = image_dir or source, _swapped(source)
    labels = labels if labels.is_dir() else source
    texts = [path for path in visible_files(labels) if path.suffix == ".txt" and path.name != CLASSES]
    there = {composed(str(path.relative_to(labels))): path for path in texts}
    pairs = []
    for image in find_pictures(root):
        label = image.relative_to(root).with_suffix(".txt")
        pairs.append((image, there.get(composed(str(label)), labels / label)))
    for label in sorted({*texts} - {label for _, label in pairs}):
        detail = f"no image {label.relative_to(labels).with_suffix('')} in {root}"
        action = LEFT_OUT if labels == source else "image skipped"  # beside the images there may be other texts
        found.append(Problem(str(label), "label files without an image", detail, action))
    return pairs


def _listed(source: Path, data_dir: Path, image_dir: Path | None, found: list[Problem]) -> Pairs:
    pairs: dict[Path, Path] = {}
    by_name = defaultdict(list)
    for path in visible_files(image_dir) if image_dir else ():
        by_name[composed(path.name)].append(path)
    for number, line in enumerate(read_lines(source), 1):
        if not line.strip():
            continue
        image = Path(os.path.normpath(source.parent / line))
        same = by_name[composed(image.name)]
        image = same[0] if same else image
        if len(same) > 1:
            fault, detail = NOT_FOUND, f"{image.name} could be {same[0]} or {same[1]}"
        elif leads_out(image, data_dir, source.parent, image_dir):
            fault, detail = NOT_FOUND, f"{line} leads out of {data_dir}; pass --image_dir with the images' folder"
        elif not os.path.isfile(image):
            fault, detail = NOT_FOUND, f"no image {image}"
        elif image in pairs:
            fault, detail = "images listed before", line
        else:
            own = (source.parent / "labels" / source.stem / image.name).with_suffix(".txt")
            pairs[image] = own if os.path.isfile(own) else _swapped(image).with_suffix(".txt")
            continue
        action = LEFT_OUT if image in pairs else "image skipped"
        found.append(Problem(str(source), fault, f"line {number}: {detail}", action))
    return list(pairs.items())


def _swapped(path: Path) -> Path:
    """The path with `labels` for its last `images`, the path itself where it has none."""
    parts = path.parts
    at = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    return path if at is None else Path(*parts[:at], "labels", *parts[at + 1 :])
