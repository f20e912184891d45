"""Where in a good picture an object of a class could be: where it looks as it does around the data's own objects.

A scratch across a trace wants a trace. What is compared is the ring around a box, as a small grey picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import ImageRecord
from ..data.images import Range, read_image

SIDE = 12  # of the small picture of a box and its ring, of which the box is the middle half each way
SAMPLES = 2  # points along each axis of one of its pixels
MOST_PICTURES = 500  # that are looked at
MODELS = 4  # objects that a place may look like


@dataclass(frozen=True)
class Surroundings:
    """The rings (n, R), greys in [0, 1], around objects of each class."""

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
            boxes = np.array([(b.x0, b.y0, b.x1, b.y1) for b in record.boxes])
            small = around(grey, boxes)
            views = [small, small[:, :, ::-1]] if mirrored else [small]
            for view in views:
                for box, ring in zip(record.boxes, rings(view), strict=True):
                    found.setdefault(box.label, []).append(ring)
        return cls({label: np.stack(each) for label, each in found.items()})

    def preference(self, grey: NDArray[np.float32]):
        """What chooses among places in a picture (H, W), as LayoutSampler.draw takes it.

        That of which the ring is nearest to one of a few of the class's own, drawn anew each time: so objects take all
        the kinds of places that the data show, not only the commonest.
        """
        height, width = grey.shape

        def prefer(label: str, boxes: NDArray, rng: np.random.Generator) -> int:
            own = self.of_class.get(label)
            if own is None:
                return 0
            models = own[rng.integers(len(own), size=MODELS)]
            here = rings(around(grey, boxes * (width, height, width, height)))
            distances = ((here[:, None] - models[None]) ** 2).mean(axis=-1)  # m MODELS
            return int(distances.min(axis=1).argmin())

        return prefer


def greys(record: ImageRecord, value_range: Range | None) -> NDArray[np.float32]:
    """A record's picture (H, W), 0 black and 1 white."""
    return np.asarray(read_image(record.path, 1, value_range=value_range), dtype=np.float32) / 255


def around(grey: NDArray[np.float32], boxes: NDArray) -> NDArray[np.float32]:
    """Small pictures (n, SIDE, SIDE) of boxes in pixels (n, 4) and as much again around them.

    Beyond its edges a picture goes on as it ends there.
    """
    points = (np.arange(SIDE * SAMPLES) + 0.5) / (SIDE * SAMPLES) * 2 - 0.5  # of a box's side, from its start
    columns, rows = (
        (boxes[:, axis, None] + points * (boxes[:, axis + 2] - boxes[:, axis])[:, None]).astype(int).clip(0, length - 1)
        for axis, length in ((0, grey.shape[1]), (1, grey.shape[0]))
    )
    seen = grey[rows[:, :, None], columns[:, None, :]]
    return seen.reshape(len(boxes), SIDE, SAMPLES, SIDE, SAMPLES).mean(axis=(2, 4))


def rings(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """What of small pictures (n, SIDE, SIDE) lies around the boxes, (n, R)."""
    is_ring = np.ones((SIDE, SIDE), dtype=bool)
    is_ring[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = False
    return small[:, is_ring]
