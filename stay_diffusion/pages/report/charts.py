"""Charts of a report: histograms of one or two sets, maps of the centres of boxes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ...layouts.histograms import AREAS, SIDES, histograms
from ...layouts.items import LayoutItem
from ..svg import Axis, ticks
from .results import Results

MOST_NUMBERS = 12  # boxes of a picture; more are counted together
MOST_MAPS = 12  # classes whose centres are drawn
BINS = 20  # of scores

Ticks = Sequence[tuple[float, str]]  # (place in [0, 1], text)
Counts = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Histogram:
    """Shares of bins of equal width: ours as bars, theirs as a line over them."""

    WIDTH, HEIGHT = 360, 190
    LEFT, RIGHT, TOP, BOTTOM = 38, 8, 10, 26  # room for axes

    title: str
    ours: list[float]
    theirs: list[float] | None
    ticks: Ticks

    @classmethod
    def of_counts(cls, title: str, ours: Counts, theirs: Counts | None, ticks: Ticks) -> "Histogram":
        return cls(title, _shares(ours), None if theirs is None else _shares(theirs), ticks)

    @property
    def top(self) -> float:
        return max([*self.ours, *(self.theirs or ())]) or 1.0

    @property
    def levels(self) -> list[float]:
        return [level for level in ticks(0, self.top) if level <= self.top * (1 + 1e-9)]

    def x(self, place: float) -> str:
        return f"{self.LEFT + (self.WIDTH - self.LEFT - self.RIGHT) * place:.1f}"

    def y(self, share: float, below: float = 0) -> str:
        return f"{self._y(share) + below:.1f}"

    def _y(self, share: float) -> float:
        return self.TOP + (self.HEIGHT - self.TOP - self.BOTTOM) * (1 - share / self.top)

    @property
    def bar_width(self) -> str:
        return f"{(self.WIDTH - self.LEFT - self.RIGHT) * 0.88 / len(self.ours):.1f}"

    def bar_height(self, share: float) -> str:
        return f"{self._y(0) - self._y(share):.1f}"

    @property
    def line(self) -> str:
        """The corners of the steps that theirs make."""
        shares = self.theirs or []
        steps = [(i / len(shares), share) for i, share in enumerate(shares)]
        corners = [corner for x, share in steps for corner in ((x, share), (x + 1 / len(shares), share))]
        return " ".join(f"{self.x(x)},{self.y(share)}" for x, share in ((0, 0), *corners, (1, 0)))


class CentreMap(NamedTuple):
    """Counts of the centres of a class's boxes, rows of columns."""

    name: str
    ours: list[list[int]]
    theirs: list[list[int]] | None


class LayoutCharts(NamedTuple):
    charts: list[Histogram]
    maps: list[CentreMap]
    num_left_out: int


def layout_charts(results: Results) -> LayoutCharts:
    """Chart boxes of a picture, their widths, heights and areas, and their centres, beside the training split's."""
    ours = histograms(results.layouts)
    theirs = None if results.training is None else histograms(results.training)
    longest = max(len(found["objects_per_layout"]) for found in (ours, theirs) if found) - 1
    most = min(MOST_NUMBERS, longest)
    numbers = [((i + 0.5) / (most + 1), f"{i}{'+' * (i == most < longest)}") for i in range(most + 1)]
    own = _numbers(theirs, most) if theirs else None
    charts = [Histogram.of_counts("Boxes in a picture", _numbers(ours, most), own, numbers)]
    sides, areas = _log_ticks(SIDES, (0.01, 0.03, 0.1, 0.3, 1)), _log_ticks(AREAS, (0.0001, 0.001, 0.01, 0.1, 1))
    for name, marks in (("width", sides), ("height", sides), ("area", areas)):
        own = theirs[name]["counts"] if theirs else None
        charts.append(Histogram.of_counts(f"{name.capitalize()} of boxes", ours[name]["counts"], own, marks))
    classes = [name for name, _ in Counter(box.label for item in results.layouts for box in item.objects).most_common()]
    maps = [CentreMap("all classes", ours["centres"], theirs["centres"] if theirs else None)]
    for name in classes[:MOST_MAPS]:
        there = None if results.training is None else _centres(name, results.training)
        maps.append(CentreMap(name, _centres(name, results.layouts), there))
    return LayoutCharts(charts, maps, max(0, len(classes) - MOST_MAPS))


def score_charts(results: Results) -> list[Histogram]:
    """Chart how many boxes, and how many pictures, have which score."""
    edges, marks = np.linspace(0, 1, BINS + 1), [(share, f"{share:g}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    with_boxes = [result for result in results.pictures if result.boxes and result.score is not None]
    values = {
        "Score of boxes": [asked.score for each in with_boxes for asked in each.boxes if asked.score is not None],
        "Score of pictures: their worst box's": [result.score for result in with_boxes if result.score is not None],
    }
    counts = {title: np.histogram(np.array(found).clip(0, 1), edges)[0] for title, found in values.items()}
    return [Histogram.of_counts(title, found, None, marks) for title, found in counts.items()]


def _log_ticks(edges: np.ndarray, shares: Sequence[float]) -> Ticks:
    """Return where percentages lie on an axis that is even in the logarithm."""
    axis = Axis(edges[0], edges[-1], (), logarithmic=True)
    return [(axis.share(share), f"{100 * share:g} %") for share in shares]


def _centres(name: str, layouts: Sequence[LayoutItem]) -> list[list[int]]:
    alone = [replace(item, objects=tuple(box for box in item.objects if box.label == name)) for item in layouts]
    return histograms(alone)["centres"]


def _numbers(found: dict, most: int) -> list[int]:
    """Return the pictures by their number of boxes, those with `most` and more together."""
    counts = found["objects_per_layout"] + [0] * (most + 1 - len(found["objects_per_layout"]))
    return [*counts[:most], sum(counts[most:])]


def _shares(counts: Counts) -> list[float]:
    values = np.asarray(counts, dtype=np.float64)
    return (values / (values.sum() or 1)).tolist()
