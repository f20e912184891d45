"""What the ids in label maps mean: those of the published data sets, and those that a data set names itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import class_names

Ids = NDArray[np.int32]

NO_INSTANCE, NO_OBJECT = -1, -2
NOT_IN_MAPS = -1
NUM_COCO_THINGS = 91
BACKGROUND = "background"  # id 0 where a data set names its own classes


@dataclass(frozen=True)
class Coding:
    """What the ids of a data set's maps mean: class i of `classes` has label i + 1 and stands in files as `ids[i]`.

    NOT_IN_MAPS is the id of classes that only a model knows. `source` is what says so, for messages. `void` classes are
    never objects, nor are parts that take less than `smallest` of the picture's area. `number` gives, from labels and
    raw instance ids (H, W), each pixel's instance, NO_INSTANCE where the raw id names none, or NO_OBJECT where the
    pixel is to be left out.
    """

    source: str
    classes: tuple[str, ...]
    ids: tuple[int, ...]
    void: tuple[str, ...] = ()
    number: Callable[[Ids, Ids], Ids] | None = None
    smallest: float = 0.005

    @cached_property
    def labels(self) -> Ids:
        """Label by id, 0 where the id has none."""
        table = np.zeros(max(self.ids) + 1, dtype=np.int32)
        for label, value in enumerate(self.ids, 1):
            if value != NOT_IN_MAPS:
                table[value] = label
        return table

    def with_labels_of(self, classes: Sequence[str]) -> "Coding":
        """The same ids for a model whose classes, these among them, are others or in another order."""
        id_of = dict(zip(self.classes, self.ids, strict=True))
        return replace(self, classes=tuple(classes), ids=tuple(id_of.get(name, NOT_IN_MAPS) for name in classes))

    @cached_property
    def void_labels(self) -> tuple[int, ...]:
        return tuple(self.classes.index(name) + 1 for name in self.void)


def own(names: Sequence[str], source: str) -> Coding:
    """Id i is the i-th name, from 1, and 0 the background, which comes last; every part, however small, is an object.

    An instance is what has the same id, other than 0, and the same class.
    """
    ids = (*range(1, len(names) + 1), 0)
    return Coding(source, (*names, BACKGROUND), ids, (BACKGROUND,), _own_instances, smallest=0)


def _own_instances(labels: Ids, raw: Ids) -> Ids:
    found, compact = np.unique(raw, return_inverse=True)  # so that label and id go into one number
    return np.where(raw > 0, labels * len(found) + compact.reshape(raw.shape), NO_INSTANCE)


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


# By --dataset_mode, as SDM and SPADE count: ADE20K's ids less one with 0 as the last class, COCO's 255 as the last.
CODINGS: dict[str, Coding] = {
    "ade20k": Coding("--dataset_mode ade20k", (*class_names.ADE20K, "unlabeled"), (*range(1, 151), 0), ("unlabeled",)),
    "cityscapes": Coding(
        "--dataset_mode cityscapes",
        class_names.CITYSCAPES,
        tuple(range(34)),
        class_names.CITYSCAPES[:4],
        _cityscapes_instances,
    ),
    "celeba": Coding("--dataset_mode celeba", class_names.CELEBA, tuple(range(19)), ("background",)),
    "coco_semantic": Coding(
        "--dataset_mode coco_semantic",
        (*class_names.COCO_STUFF, "unlabeled"),
        (*range(182), 255),
        ("unlabeled",),
        _coco_instances,
    ),
}
