"""Where in a good picture an object of a class could be: where it looks as it does around the data's own objects.

A scratch across a trace wants a trace. What is compared are the strips along the four sides of a box: how bright each
is, and how much of an edge there is in it; not pixel by pixel, as edges hardly ever meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import ImageRecord, boxes_array
from ..data.images import Range, read_image

SIDE = 24  # points each way of a box with its surroundings, a quarter of its sides: objects touch what is near
STRIP = SIDE // 6
MOST_PICTURES = 500  # that are looked at


@dataclass(frozen=True)
class Surroundings:
    """The strips (n, 8) around objects of each class."""

    of_class: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, records: Sequence[ImageRecord], mirrored: bool, seed: int, value_range: Range | None):
        """Those of the objects of records, or of some of them where there are many; with `mirrored` also mirrored."""
        with_boxes = [record for record in records if record.boxes]
        chosen = np.random.default_rng(seed).permutation(len(with_boxes))[:MOST_PICTURES]
        found: dict[str, list[NDArray]] = {}
        for place in sorted(chosen.tolist()):
            record = with_boxes[place]
            grey = greys(record, value_range)
            boxes = boxes_array(record.boxes)
            seen = around(grey, boxes)
            for view in [seen, seen[:, :, ::-1]] if mirrored else [seen]:
                for box, each in zip(record.boxes, strips(view), strict=True):
                    found.setdefault(box.label, []).append(each)
        return cls({label: np.stack(each) for label, each in found.items()})

    def preference(self, grey: NDArray[np.float32]):
        """What chooses among places in a picture (H, W), as LayoutSampler.draw takes it.

        That of which the strips are nearest to those of one of the class's own objects, drawn anew each time: so
        objects take all kinds of places that the data show, and not those that are matched most easily.
        """
        height, width = grey.shape

        def prefer(label: str, boxes: NDArray, rng: np.random.Generator) -> int:
            own = self.of_class.get(label)
            if own is None:
                return 0
            like = own[rng.integers(len(own))]
            here = strips(around(grey, boxes * (width, height, width, height)))
            return int(((here - like) ** 2).sum(axis=1).argmin())

        return prefer


def greys(record: ImageRecord, value_range: Range | None) -> NDArray[np.float32]:
    """A record's picture (H, W), 0 black and 1 white."""
    return np.asarray(read_image(record.path, 1, value_range=value_range), dtype=np.float32) / np.float32(255)


def around(grey: NDArray[np.float32], boxes: NDArray) -> NDArray[np.float32]:
    """Greys (n, SIDE, SIDE) of boxes in pixels (n, 4) and a quarter of their sides around them.

    Beyond its edges a picture goes on as it ends there.
    """
    points = (np.arange(SIDE) + 0.5) / SIDE * 1.5 - 0.25  # in a box's sides, from its start
    columns, rows = (
        (boxes[:, axis, None] + points * (boxes[:, axis + 2] - boxes[:, axis])[:, None]).astype(int).clip(0, length - 1)
        for axis, length in ((0, grey.shape[1]), (1, grey.shape[0]))
    )
    return grey[rows[:, :, None], columns[:, None, :]]


def strips(seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and deviation (n, 8) of what lies above, below, left and right of boxes in `around`."""
    sides = (seen[:, :STRIP], seen[:, -STRIP:], seen[:, :, :STRIP], seen[:, :, -STRIP:])
    return np.stack([figure(side, axis=(1, 2)) for side in sides for figure in (np.mean, np.std)], axis=1)
