"""A report's table of classes: how often each was asked for, beside the data, and how its boxes came out."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...layouts.items import LayoutItem
from .results import Results
from .sheets import Sheet


class ClassRow(NamedTuple):
    """A class: its shares of all boxes; `mostly_else` names what its boxes are most often taken for instead."""

    label: str
    boxes: str
    pictures: str
    share: float
    in_data: float | None
    median: str
    as_own: str
    mostly_else: list[tuple[str, str]]


class ClassTable(NamedTuple):
    """Rows in the model's order, the largest share, and the classes of the data that were not asked for."""

    rows: list[ClassRow]
    most: float
    absent: list[str]


def class_table(results: Results, sheets: Sequence[Sheet]) -> ClassTable:
    """Make a row for each sheet."""
    ours, theirs = _shares(results.layouts), _shares(results.training or ())
    rows = [_row(sheet, ours[sheet.label], theirs.get(sheet.label, 0.0) if theirs else None) for sheet in sheets]
    absent = sorted(set(theirs) - {sheet.label for sheet in sheets})
    return ClassTable(rows, max([*ours.values(), *theirs.values()]), absent)


def _row(sheet: Sheet, share: float, in_data: float | None) -> ClassRow:
    scores = [shown.asked.score for shown in sheet.boxes if shown.asked.score is not None]
    seen = Counter(shown.asked.predicted for shown in sheet.boxes if shown.asked.predicted is not None)
    others = Counter({name: times for name, times in seen.items() if name != sheet.label})
    return ClassRow(
        label=sheet.label,
        boxes=f"{len(sheet.boxes):,}",
        pictures=f"{sheet.num_pictures:,}",
        share=share,
        in_data=in_data,
        median=f"{np.median(scores):.2f}" if scores else "",
        as_own=f"{100 * seen[sheet.label] / seen.total():.0f} %" if seen else "",
        mostly_else=[(name, f"{times:,}") for name, times in others.most_common(1)],
    )


def _shares(layouts: Sequence[LayoutItem]) -> dict[str, float]:
    """Return the share of all boxes that each class has."""
    found = Counter(box.label for item in layouts for box in item.objects)
    return {label: number / found.total() for label, number in found.items()}
