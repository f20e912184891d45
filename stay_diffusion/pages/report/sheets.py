"""Choice of the boxes that a report shows: the best, the middle and the worst of each class, the likeliest copies."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...layouts.items import LayoutItem
from .results import Asked, Result, Results

BEST, MEDIAN, WORST, UNRANKED = "best", "median", "worst", "examples"
MOST_CROPS = 240  # in all classes together: more are leafed through in the folder itself
PAIRS = 12  # of samples and the training objects that they are most like
GOOD_PARTS = 8


class Shown(NamedTuple):
    """Box number `place` of a picture."""

    result: Result
    place: int

    @property
    def asked(self) -> Asked:
        return self.result.boxes[self.place]

    @property
    def anchor(self) -> str:
        """The name by which its crop is found on the page."""
        return f"crop-{self.result.index}-{self.place}"


class Sheet(NamedTuple):
    """A class with its boxes, by falling score where there are scores, and some of them in groups by name."""

    label: str
    boxes: tuple[Shown, ...]
    groups: dict[str, tuple[Shown, ...]]

    @property
    def num_pictures(self) -> int:
        return len({shown.result.index for shown in self.boxes})

    @property
    def median(self) -> float | None:
        """The median of its boxes' scores."""
        scores = [shown.asked.score for shown in self.boxes if shown.asked.score is not None]
        return float(np.median(scores)) if scores else None

    @property
    def predictions(self) -> Counter[str]:
        """How often the classifier takes its boxes for each class."""
        return Counter(shown.asked.predicted for shown in self.boxes if shown.asked.predicted is not None)

    @property
    def mistakes(self) -> Counter[str]:
        return Counter({name: times for name, times in self.predictions.items() if name != self.label})


def sheets_of(results: Results, per_group: int) -> list[Sheet]:
    """One for each class that was asked for, in the model's order; groups shrink where there are many classes."""
    found: dict[str, list[Shown]] = {label: [] for label in results.classes}
    for result in results.pictures:
        for place, asked in enumerate(result.boxes):
            found[asked.label].append(Shown(result, place))
    there = {label: boxes for label, boxes in found.items() if boxes}
    most = max(1, min(per_group, MOST_CROPS // (3 * max(1, len(there)))))
    return [_sheet(label, boxes, most) for label, boxes in there.items()]


def class_shares(layouts: Sequence[LayoutItem]) -> dict[str, float]:
    """Return the share of all boxes that each class has."""
    found = Counter(box.label for item in layouts for box in item.objects)
    return {label: number / found.total() for label, number in found.items()}


def nearest_pairs(results: Results, most: int = PAIRS) -> list[Shown]:
    """The boxes most like a training object, the likest first."""
    pairs = [(result.nearest, result) for result in results.pictures if result.nearest]
    pairs.sort(key=lambda pair: -pair[0].similarity)
    return [Shown(result, nearest.place) for nearest, result in pairs[:most]]


def spread(items: Sequence, most: int) -> list:
    """At most `most` of them, evenly spread, the first and the last among them."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]


def _sheet(label: str, boxes: list[Shown], most: int) -> Sheet:
    scores = [(shown.asked.score, shown) for shown in boxes if shown.asked.score is not None]
    ranked = [shown for _, shown in sorted(scores, key=lambda pair: -pair[0])]
    if not ranked:
        return Sheet(label, tuple(boxes), {UNRANKED: tuple(spread(boxes, 3 * most))})
    ends = min(most, max(1, len(ranked) // 3))
    best, others = ranked[:ends], ranked[ends:]
    worst, rest = others[-ends:][::-1], others[:-ends]
    before = max(0, len(rest) - most) // 2
    groups = {BEST: best, MEDIAN: rest[before : before + most], WORST: worst}
    unscored = [shown for shown in boxes if shown.asked.score is None]
    return Sheet(label, (*ranked, *unscored), {name: tuple(group) for name, group in groups.items() if group})
