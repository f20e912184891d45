"""Label maps: pictures whose values are class ids, beside them maps of instance ids; their objects, edges and boxes."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .. import codings
from ..annotations import AnnotationError, Box, ImageRecord, MapFiles
from ..codings import BACKGROUND, NO_INSTANCE, NO_OBJECT, NOT_IN_MAPS, Coding, Ids
from ..images import FORMATS, ORIENTATION, find_pictures, image_size
from ..splits import FOLDERS
from .files import CLASSES, check_names, check_stems, copy_image, read_names, replace_file
from .map_parts import connected_parts, instance_parts
from .plain_boxes import as_name

logger = logging.getLogger("stay_diffusion.data")


class Maps(NamedTuple):
    """labels (H, W) in 1..K; raw instance ids (H, W) or None."""

    labels: Ids
    instances: Ids | None


def read(files: MapFiles) -> Maps:
    """Both maps of a picture; AnnotationError for unreadable ones, unknown ids and maps of two sizes."""
    coding, ids = files.coding, read_ids(files.labels)
    table = coding.labels
    known = (ids >= 0) & (ids < len(table))
    labels = np.where(known, table[np.where(known, ids, 0)], 0)
    if not labels.all():
        unknown = ", ".join(str(value) for value in np.unique(ids[labels == 0])[:5])
        raise AnnotationError(f"{files.labels}: ids {unknown} have no class; {coding.source} has {_ranges(coding.ids)}")
    instances = read_ids(files.instances) if files.instances else None
    if instances is not None and instances.shape != labels.shape:
        raise AnnotationError(f"{files.instances}: {_size(instances)} pixels, but {files.labels} has {_size(labels)}")
    return Maps(labels, instances)


def read_ids(path: Path) -> Ids:
    """The values (H, W) of a grey picture of up to 16 bits, the indices of one with a palette: never converted."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            if image.format == "JPEG":
                raise ValueError("JPEG does not keep ids; save it as PNG")
            values = np.asarray(image)
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such label map") from None
    except UnidentifiedImageError:
        raise AnnotationError(f"{path}: not an image, or of an unknown format") from None
    except Exception as error:  # decoders raise nearly every type on broken files
        raise AnnotationError(f"{path}: cannot be read as a label map: {error or type(error).__name__}") from error
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]  # ids saved as a grey of three channels
    if values.ndim != 2 or values.dtype.kind == "f":
        raise AnnotationError(f"{path}: a {image.mode} picture; a label map holds ids, as a grey or with a palette")
    return values.astype(np.int32)


def to_image(labels: NDArray, coding: Coding) -> Image.Image:
    """Labels (H, W) as a grey picture of the coding's ids: what a map of the data set is."""
    return _grey(np.asarray(coding.ids)[labels - 1], max(coding.ids))


def objects(maps: Maps, coding: Coding, use_instances: bool) -> tuple[NDArray[np.float64], Ids]:
    """Boxes (N, 4), x0 y0 x1 y1 in pixels, and labels (N,) of a map's objects, the largest first.

    One object per instance where there are any and `use_instances`, else per connected component of a class (by sides
    or corners). Void classes and what is smaller than the coding's smallest part are left out.
    """
    labels, numbers = maps.labels, _numbers(maps, coding, use_instances)
    stuff = np.where(numbers == NO_INSTANCE, labels, 0)
    found = [*instance_parts(labels, numbers), *connected_parts(stuff)]
    found = [part for part in found if part[0] >= coding.smallest * labels.size]
    found.sort(key=lambda part: -part[0])
    boxes = np.array([box for _, _, box in found], dtype=np.float64).reshape(-1, 4)
    return boxes, np.array([label for _, label, _ in found], dtype=np.int32)


def edges(instances: Ids) -> NDArray[np.bool_]:
    """Pixels (H, W) of which a neighbour above, below, left or right has another id (pix2pixHD, arXiv 1711.11585)."""
    edge = np.zeros(instances.shape, dtype=bool)
    across, down = instances[:, 1:] != instances[:, :-1], instances[1:] != instances[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def own_coding(folder: Path) -> Coding:
    """What the ids of maps mean whose classes `folder` names in classes.txt; AnnotationError where it does not."""
    file = folder / CLASSES
    if not file.is_file():
        raise AnnotationError(
            f"--data_dir {folder}: has no {CLASSES}; write one with a class name per line, that of id 1 first "
            "(id 0 is the background and has no line)"
        )
    names = read_names(file)
    for i, name in enumerate(names):
        if as_name(name) is None:
            raise AnnotationError(f"{file}, line {i + 1}: no class name; line {i + 1} is that of id {i + 1}")
        if name in names[:i]:
            raise AnnotationError(f"{file}, line {i + 1}: {name!r} is the name of id {names.index(name) + 1} already")
    if not names:
        raise AnnotationError(f"{file}: no class name in it")
    _check_background(file, names)
    return codings.own(names, str(file))


def write(folder: Path, records: Sequence[ImageRecord], classes: Sequence[str], *, split: str = "train") -> None:
    """images/, annotations/ and instances/SPLIT for every record, and classes.txt; equal records give equal bytes.

    Boxes are filled with their class's id, the largest first so that small ones stay on top, and numbered in the
    instance map, which keeps boxes of one class apart that touch. Label maps are written in the ids of classes.txt,
    0 for void classes and what their instance map leaves out; parts too small for their own coding become objects.
    Ids beyond 255 make maps of 16 bits. A map holds whole pixels only, of overlapping boxes just what is on top (boxes
    that are covered are lost, and counted in a warning), and no products.
    Raises AnnotationError for two records of one stem, names that cannot be written, boxes on a picture that its EXIF
    turns or that has another size, and a folder with other pictures or, for another split, other classes.
    """
    folder = Path(folder)
    check_stems(folder, records)
    drawn = [box.label for record in records for box in record.boxes]
    codings_of = dict.fromkeys(record.maps.coding for record in records if record.maps)
    mapped = [name for coding in codings_of for name in coding.classes if name not in coding.void]
    names = check_names(folder, [*classes, *drawn, *mapped])
    _check_background(folder, names)
    _check_folder(folder, records, names, split)
    hidden = 0
    for record in records:
        labels, instances = _recoded(record.maps, names) if record.maps else _drawn(record, names)
        hidden += 0 if record.maps else len(record.boxes) - len(np.unique(instances[instances > 0]))
        copy_image(record.path, folder / "images" / split)
        _save(_grey(labels, len(names)), folder / "annotations" / split / f"{record.stem}.png")
        _save(_grey(instances, 65535), folder / "instances" / split / f"{record.stem}.png")
    replace_file(folder / CLASSES, "".join(f"{name}\n" for name in names))
    if hidden:
        logger.warning("%s: %d boxes are not in the maps: others cover them", folder, hidden)


def _numbers(maps: Maps, coding: Coding, use_instances: bool) -> Ids:
    """Each pixel's instance, or NO_INSTANCE or NO_OBJECT, as `Coding.number` gives them; void is NO_OBJECT."""
    numbers = np.full_like(maps.labels, NO_INSTANCE)
    if use_instances and maps.instances is not None and coding.number:
        numbers = coding.number(maps.labels, maps.instances)
    numbers[np.isin(maps.labels, coding.void_labels)] = NO_OBJECT
    return numbers


def _recoded(files: MapFiles, names: Sequence[str]) -> tuple[Ids, Ids]:
    """A picture's ids, i + 1 for names[i], and numbers of its instances from 1, both (H, W) and 0 for nothing."""
    maps = read(files)
    numbers = _numbers(maps, files.coding, use_instances=True)
    ids = np.array([0, *(0 if name in files.coding.void else names.index(name) + 1 for name in files.coding.classes)])
    known = np.unique(numbers[numbers >= 0])
    instances = np.where(numbers >= 0, np.searchsorted(known, numbers) + 1, 0)
    return np.where(numbers == NO_OBJECT, 0, ids[maps.labels]), instances


def _drawn(record: ImageRecord, names: Sequence[str]) -> tuple[Ids, Ids]:
    """The same of boxes, numbered in their order."""
    width, height = image_size(record.path)
    if record.width and (record.width, record.height) != (width, height):
        stated = f"{record.width}x{record.height}"
        raise AnnotationError(f"{record.path}: annotated as {stated} pixels but the image has {width}x{height}")
    with open(record.path, "rb") as file, Image.open(file, formats=FORMATS) as image:
        if Image.Image.getexif(image).get(ORIENTATION, 1) != 1:
            raise AnnotationError(f"{record.path}: its EXIF turns it, which label maps do not follow; save it upright")
    labels, instances = np.zeros((2, height, width), dtype=np.int32)
    windows = [_window(box, width, height) for box in record.boxes]
    for i in sorted(range(len(windows)), key=lambda i: -labels[windows[i]].size):
        labels[windows[i]], instances[windows[i]] = names.index(record.boxes[i].label) + 1, i + 1
    return labels, instances


def _window(box: Box, width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels in a box, at least one."""

    def within(low: float, high: float, side: int) -> slice:
        start = min(max(round(low), 0), side - 1)
        return slice(start, max(round(high), start + 1))

    return within(box.y0, box.y1, height), within(box.x0, box.x1, width)


def _check_background(file: Path, names: Sequence[str]) -> None:
    for name in names:
        if name.casefold() == BACKGROUND:
            raise AnnotationError(f"{file}: the class {name!r} is id 0, which is named nowhere; leave it out")


def _check_folder(folder: Path, records: Sequence[ImageRecord], names: Sequence[str], split: str) -> None:
    assert split in FOLDERS
    images = folder / "images"
    stale = {path.stem for path in find_pictures(images / split)} - {record.stem for record in records}
    if stale:
        raise AnnotationError(f"{images / split}: already has other pictures, such as {min(stale)}")
    others = [name for name in FOLDERS if name != split and (images / name).is_dir()]
    if others and (there := read_names(folder / CLASSES)) != names:
        raise AnnotationError(f"{folder}: its {others[0]} split has the classes {there}, {split} would have {names}")


def _grey(ids: NDArray, most: int) -> Image.Image:
    """Ids as a grey picture of 8 bits, or 16 where `most` needs them."""
    return Image.fromarray(ids.astype(np.uint8 if most < 256 else np.uint16))


def _save(image: Image.Image, path: Path) -> None:
    """Complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    try:
        image.save(partial, format="PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _size(ids: Ids) -> str:
    return f"{ids.shape[1]}x{ids.shape[0]}"


def _ranges(ids: tuple[int, ...]) -> str:
    known = sorted({*ids} - {NOT_IN_MAPS})
    low = [i for i in known if i == 0 or i - 1 in known]
    return f"{low[0]}..{low[-1]}" + "".join(f" and {i}" for i in sorted({*known} - {*low}))
