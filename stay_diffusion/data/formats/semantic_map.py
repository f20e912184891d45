"""Label maps: pictures whose values are class ids, beside them maps of instance ids; their objects, edges and boxes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stay_diffusion.data import class_names
from stay_diffusion.data.annotations import AnnotationError, MapFiles

Ids = NDArray[np.int32]

SMALLEST_OBJECT = 0.005  # share of the picture's area below which a part of a map is no object
NO_INSTANCE, NO_OBJECT = -1, -2
NUM_COCO_THINGS = 91


@dataclass(frozen=True)
class Coding:
    """What the ids of a data set's maps mean: class i of `classes` has label i + 1 and stands in files as `ids[i]`.

    `void` classes are never objects. `number` gives, from labels and raw instance ids (H, W), each pixel's instance,
    NO_INSTANCE where the raw id names none, or NO_OBJECT where the pixel is to be left out.
    """

    classes: tuple[str, ...]
    ids: tuple[int, ...]
    void: tuple[str, ...] = ()
    number: Callable[[Ids, Ids], Ids] | None = None

    @cached_property
    def labels(self) -> Ids:
        """Label by id, 0 where the id has none."""
        table = np.zeros(max(self.ids) + 1, dtype=np.int32)
        table[list(self.ids)] = np.arange(1, len(self.ids) + 1)
        return table

    @cached_property
    def void_labels(self) -> tuple[int, ...]:
        return tuple(self.classes.index(name) + 1 for name in self.void)


class Maps(NamedTuple):
    """labels (H, W) in 1..K; raw instance ids (H, W) or None."""

    labels: Ids
    instances: Ids | None


def _cityscapes_instances(labels: Ids, raw: Ids) -> Ids:
    return np.where(raw >= 1000, raw, NO_INSTANCE)  # label * 1000 + k; below that it is a label, of stuff or a crowd


def _coco_instances(labels: Ids, raw: Ids) -> Ids:
    from scipy import ndimage

    # The published maps are label maps with things drawn over them, numbered from 0 and a pixel out of place. A thing
    # that still has its class's id is a crowd, a rim of any thing of the class, or the thing with just that number.
    things = labels <= NUM_COCO_THINGS
    unnumbered = things & (raw == labels - 1)
    rims = unnumbered & ~ndimage.binary_opening(unnumbered, structure=np.ones((3, 3)))
    return np.where(rims, NO_OBJECT, np.where(things & ~unnumbered, raw, NO_INSTANCE))


# As SDM and SPADE count them: ADE20K's ids less one with 0 as the last class, COCO's 255 as the last class.
CODINGS: dict[str, Coding] = {
    "ade20k": Coding((*class_names.ADE20K, "unlabeled"), (*range(1, 151), 0), ("unlabeled",)),
    "cityscapes": Coding(class_names.CITYSCAPES, tuple(range(34)), class_names.CITYSCAPES[:4], _cityscapes_instances),
    "celeba": Coding(class_names.CELEBA, tuple(range(19)), ("background",)),
    "coco_semantic": Coding(
        (*class_names.COCO_STUFF, "unlabeled"), (*range(182), 255), ("unlabeled",), _coco_instances
    ),
}


def read(files: MapFiles) -> Maps:
    """Both maps of a picture; AnnotationError for unreadable ones, unknown ids and maps of two sizes."""
    coding, ids = CODINGS[files.coding], read_ids(files.labels)
    table = coding.labels
    known = (ids >= 0) & (ids < len(table))
    labels = np.where(known, table[np.where(known, ids, 0)], 0)
    if not labels.all():
        unknown = ", ".join(str(value) for value in np.unique(ids[labels == 0])[:5])
        raise AnnotationError(f"{files.labels}: ids {unknown} have no class; {files.coding} has {_ranges(coding.ids)}")
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


def to_image(labels: NDArray, coding: str) -> Image.Image:
    """Labels (H, W) as a grey picture of the coding's ids: what a map of the data set is."""
    return Image.fromarray(np.asarray(CODINGS[coding].ids, dtype=np.uint8)[labels - 1])


def objects(maps: Maps, coding: str, use_instances: bool) -> tuple[NDArray[np.float64], Ids]:
    """Boxes (N, 4), x0 y0 x1 y1 in pixels, and labels (N,) of a map's objects, the largest first.

    One object per instance where there are any and `use_instances`, else per connected component of a class (by sides
    or corners). Void classes and parts under 0.5 % of the picture are left out.
    """
    rules, labels = CODINGS[coding], maps.labels
    numbers = np.full_like(labels, NO_INSTANCE)
    if use_instances and maps.instances is not None and rules.number:
        numbers = rules.number(labels, maps.instances)
    numbers[np.isin(labels, rules.void_labels)] = NO_OBJECT
    stuff = np.where(numbers == NO_INSTANCE, labels, 0)
    found = [*_instances(labels, numbers), *_components(stuff)]
    found = [part for part in found if part[0] >= SMALLEST_OBJECT * labels.size]
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


Part = tuple[int, int, tuple[int, int, int, int]]  # area in pixels, label, box


def _instances(labels: Ids, numbers: Ids):
    """Yields a Part for every number, its label the one that most of its pixels have."""
    from scipy import ndimage

    found, compact = np.unique(numbers, return_inverse=True)
    for number, window in zip(found, ndimage.find_objects(compact.reshape(labels.shape) + 1), strict=True):
        if number >= 0:
            inside = numbers[window] == number
            counts = np.bincount(labels[window][inside])
            yield _part(inside & (labels[window] == counts.argmax()), int(counts.argmax()), window)


def _components(labels: Ids):
    """Yields a Part for every connected component of a label; label 0 is nothing."""
    from scipy import ndimage

    touching = np.ones((3, 3))
    for label, window in enumerate(ndimage.find_objects(labels), 1):
        if window is None:
            continue
        parts, _ = ndimage.label(labels[window] == label, structure=touching)
        for number, inner in enumerate(ndimage.find_objects(parts), 1):
            outer = tuple(slice(w.start + i.start, w.start + i.stop) for w, i in zip(window, inner, strict=True))
            yield _part(parts[inner] == number, label, outer)


def _part(mask: NDArray[np.bool_], label: int, window: tuple[slice, slice]) -> Part:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = window[0].start, window[1].start
    x0, x1 = left + int(columns[0]), left + int(columns[-1]) + 1
    return int(mask.sum()), label, (x0, top + int(rows[0]), x1, top + int(rows[-1]) + 1)


def _size(ids: Ids) -> str:
    return f"{ids.shape[1]}x{ids.shape[0]}"


def _ranges(ids: tuple[int, ...]) -> str:
    low = [i for i in sorted(ids) if i == 0 or i - 1 in ids]
    return f"{low[0]}..{low[-1]}" + "".join(f" and {i}" for i in sorted(set(ids) - set(low)))
