"""Pictures of a data set as the network sees them, and the fate of everything that is annotated on them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ...data import transforms
from ...data.checks import SMALLEST_SIDE
from ...data.images import read_image, to_pil
from ...data.samples import LayoutDataset, Sample, Seen
from ...sampling.preview import draw_map
from ..render import Corners

THUMBNAIL = 512  # pixels of the longer side of an original
LOST = {"crop": "lost to the crop", "pixel": "smaller than a pixel", "max_objects": "over --max_objects"}


class AnnotatedBox(NamedTuple):
    """One annotated object: its box in pixels of the file, and in [0, 1] of what the network sees, if there.

    `label` is 1..K; `share` is how much of its area the crop shows, `sides` are width and height of that in the
    network's pixels. `lost` says why the layout lacks it, a key of LOST, or is "" where it is there.
    """

    label: int
    box: Corners
    seen: Corners | None
    share: float
    sides: tuple[float, float]
    lost: str = ""

    @property
    def is_tiny(self) -> bool:
        return not self.lost and min(self.sides) < SMALLEST_SIDE


class Draw(NamedTuple):
    """One draw of a picture: where it was cut, in pixels of the file, and its objects.

    Of a label map that the network sees, `shares` are the shares of the pixels by label, and there are no objects.
    """

    epoch: int
    window: Corners
    mirrored: bool
    objects: tuple[AnnotatedBox, ...] = ()
    shares: dict[int, float] | None = None

    @property
    def shown(self) -> list[AnnotatedBox]:
        return [drawn for drawn in self.objects if not drawn.lost]

    @property
    def labels(self) -> set[int]:
        return {drawn.label for drawn in self.shown} | set(self.shares or ())


@dataclass(frozen=True)
class Entry:
    """One picture of a split: its place there, name, size in pixels, product 1..P or 0, and its draws."""

    index: int
    name: str
    width: int
    height: int
    product: int
    views: tuple[Draw, ...]

    @property
    def labels(self) -> list[int]:
        return sorted(set().union(*(view.labels for view in self.views)))

    @property
    def states(self) -> list[str]:
        """The states that the page's filter can ask for: "empty", "lost", "tiny"."""
        boxes = [box for view in self.views for box in view.objects]
        found = {"lost": any(box.lost for box in boxes), "tiny": any(box.is_tiny for box in boxes)}
        found["empty"] = not all(view.labels for view in self.views)
        return sorted(state for state, is_there in found.items() if is_there)

    @property
    def originals(self) -> list[tuple[AnnotatedBox, bool]]:
        """Its annotated boxes, and whether every draw has lost them."""
        draws = zip(*(view.objects for view in self.views), strict=True)
        return [(boxes[0], all(box.lost for box in boxes)) for boxes in draws]

    def is_whole(self, view: Draw) -> bool:
        return tuple(view.window) == (0, 0, self.width, self.height)

    def in_shares(self, corners: Corners) -> Corners:
        x0, y0, x1, y1 = corners
        return x0 / self.width, y0 / self.height, x1 / self.width, y1 / self.height


@dataclass
class Tally:
    """Counts over all draws: objects and what became of them; per label the objects shown and the pictures with it.

    `labels` are those of lost objects too.
    """

    pictures: int = 0
    drawn: int = 0
    lost: Counter = field(default_factory=Counter)
    tiny: int = 0
    empty: int = 0
    objects: Counter = field(default_factory=Counter)
    with_label: Counter = field(default_factory=Counter)
    labels: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> "Tally":
        tally = cls(pictures=len(entries))
        for entry in entries:
            tally.with_label.update(entry.labels)
            for view in entry.views:
                tally.drawn += len(view.objects)
                tally.lost.update(drawn.lost for drawn in view.objects if drawn.lost)
                tally.tiny += sum(drawn.is_tiny for drawn in view.objects)
                tally.empty += not view.labels
                tally.labels |= {drawn.label for drawn in view.objects} | view.labels
                tally.objects.update(drawn.label for drawn in view.shown)
        return tally

    def lines(self, max_objects: int) -> list[str]:
        """The counts in words."""
        if not self.drawn:
            return [f"{self.pictures} pictures, {len(self.with_label)} classes"]
        words = [f"{self.drawn} boxes drawn", f"{self.objects.total()} shown", f"{self.lost['crop']} {LOST['crop']}"]
        words += [f"{self.lost['pixel']} {LOST['pixel']}"] * (self.lost["pixel"] > 0)
        words += [f"{self.lost['max_objects']} {LOST['max_objects']}"] * (max_objects > 0)
        return [*words, f"{self.tiny} under 2 pixels", f"{self.empty} views without boxes"]


def spread(length: int, num: int, seed: int) -> list[int]:
    """`num` places of `length`, ascending, one drawn from each of as many equal stretches; all if there are fewer."""
    if num >= length:
        return list(range(length))
    starts = np.arange(num + 1) * length // num
    return np.random.default_rng(seed).integers(starts[:-1], starts[1:]).tolist()


def look(dataset: LayoutDataset, index: int, epochs: int, name: str) -> tuple[Entry, list[Sample], Image.Image]:
    """Picture `index` as the first `epochs` show it, the samples themselves, and a small RGB copy of the original.

    ValueError for what cannot be read or used, as from the data set.
    """
    seen = [dataset.see(index, epoch) for epoch in range(epochs)]
    samples = [dataset.sample_of(index, each) for each in seen]
    record = dataset.records[index]
    original = read_image(record.path, 3, upright=not record.maps, value_range=dataset.value_range)
    width, height = original.size
    original = original.convert("L" if original.mode == "F" else "RGB").convert("RGB")
    original.thumbnail((THUMBNAIL, THUMBNAIL))
    views = tuple(
        _draw(dataset, epoch, each, sample) for epoch, (each, sample) in enumerate(zip(seen, samples, strict=True))
    )
    return Entry(index, name, width, height, samples[0].product, views), samples, original


def picture_of_map(sample: Sample, classes: tuple[str, ...]) -> Image.Image:
    """A sample's label map in its classes' colours, edges of instances white."""
    assert sample.semantic_map is not None
    labels, edges = sample.semantic_map.numpy()
    colours = np.array(draw_map(labels, classes, len(labels)))
    colours[edges > 0] = 255
    return Image.fromarray(colours)


def picture_of(sample: Sample) -> Image.Image:
    """Return the image that the network sees, in 8 bits."""
    return to_pil(sample.image)


def _draw(dataset: LayoutDataset, epoch: int, seen: Seen, sample: Sample) -> Draw:
    boxes, labels, cut, chosen, _ = seen
    if dataset.layout_kind == "map":
        assert sample.semantic_map is not None
        found, counts = torch.unique(sample.semantic_map[0], return_counts=True)
        shares = zip(found.tolist(), (counts / counts.sum()).tolist(), strict=True)
        return Draw(epoch, cut.window, cut.mirrored, shares=dict(shares))

    size, boxes = dataset.image_size, boxes.reshape(-1, 4)
    placed = transforms.map_boxes(boxes, cut.window)  # not mirrored: sides and areas are the same
    sides = transforms.visible_sides(placed).clip(min=0)
    shares = sides.prod(axis=1) / (placed[:, 2:] - placed[:, :2]).prod(axis=1)
    enough = (shares > 0) & (shares >= dataset.data.min_visible - transforms.ROUNDING)
    lost = ["pixel" if each else "crop" for each in enough]
    places: dict[int, Corners] = {}
    for place, i in enumerate(cut.kept.tolist()):
        lost[i] = "" if place in chosen else "max_objects"
        places[i] = tuple(cut.boxes[place].tolist())
    objects = tuple(
        AnnotatedBox(
            label=int(labels[i]),
            box=tuple(boxes[i].tolist()),
            seen=None if lost[i] else places[i],
            share=float(shares[i]),
            sides=tuple((sides[i] * size).tolist()),
            lost=lost[i],
        )
        for i in range(len(boxes))
    )
    return Draw(epoch, cut.window, cut.mirrored, objects)
