"""A report's table of classes: how often each was asked for, beside the data, and how its boxes came out."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...layouts.items import LayoutItem
from ..markup import text
from .charts import bar
from .results import Results
from .sheets import Sheet


def class_table(results: Results, sheets: Sequence[Sheet]) -> str:
    """A line for each sheet; columns only for what was measured."""
    columns = {
        "class": lambda sheet: _name(sheet, results),
        "boxes": lambda sheet: f"<td>{len(sheet.boxes):,}</td>",
        "pictures": lambda sheet: f"<td>{len({shown.result.index for shown in sheet.boxes}):,}</td>",
        **_share_columns(results),
        **(_score_columns() if results.scored else {}),
        **(_adherence_columns(results.adherence["per_class"]) if results.adherence else {}),
    }
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    lines = "".join(f"<tr>{''.join(cell(sheet) for cell in columns.values())}</tr>" for sheet in sheets)
    absent = sorted(set(_shares(results.training or ())) - {sheet.label for sheet in sheets})
    never = f"<p>In the data, but not asked for here: {text(', '.join(absent))}.</p>" if absent else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>{never}'


Columns = dict[str, Callable[[Sheet], str]]  # by their heads: the cell of a class


def _name(sheet: Sheet, results: Results) -> str:
    number = results.classes.index(sheet.label) + 1
    name = f'<a href="#class-{number}"><bdi>{text(sheet.label)}</bdi></a>'
    return f'<th scope="row" class="c{number}">{name}</th>'


def _share_columns(results: Results) -> Columns:
    """Of all boxes, as bars, with marks where the training split has its own."""
    ours, theirs = _shares(results.layouts), _shares(results.training or ())
    most = max([*ours.values(), *theirs.values()])

    def drawn(sheet: Sheet) -> str:
        share, mark = ours[sheet.label], theirs.get(sheet.label, 0.0) if theirs else None
        told = f"{100 * share:.1f} %"
        return f'<td class="share">{bar(share, mark, most, f"{told} of boxes")}<span>{told}</span></td>'

    in_the_data = {"in the data": lambda sheet: f"<td>{100 * theirs.get(sheet.label, 0.0):.1f} %</td>"}
    return {"share of boxes": drawn, **(in_the_data if theirs else {})}


def _score_columns() -> Columns:
    def median(sheet: Sheet) -> str:
        scores = [shown.asked.score for shown in sheet.boxes if shown.asked.score is not None]
        return f"<td>{np.median(scores):.2f}</td>" if scores else "<td></td>"

    def seen_as_its_own(sheet: Sheet) -> str:
        seen = _seen(sheet)
        return f"<td>{100 * seen[sheet.label] / seen.total():.0f} %</td>" if seen else "<td></td>"

    def else_mostly(sheet: Sheet) -> str:
        others = Counter({name: times for name, times in _seen(sheet).items() if name != sheet.label})
        told = "".join(f"<bdi>{text(name)}</bdi> ({times:,})" for name, times in others.most_common(1))
        return f"<td>{told}</td>"

    return {"median score": median, "seen as its own": seen_as_its_own, "else mostly as": else_mostly}


def _adherence_columns(per_class: dict[str, dict]) -> Columns:
    def cell(key: str, form: str) -> Callable[[Sheet], str]:
        return lambda sheet: f"<td>{format(per_class[sheet.label][key], form) if sheet.label in per_class else ''}</td>"

    return {"change in its boxes": cell("difference", ".1f"), "empty": cell("empty", ",")}


def _seen(sheet: Sheet) -> Counter:
    """What the classifier takes the boxes of a class for."""
    return Counter(shown.asked.predicted for shown in sheet.boxes if shown.asked.predicted is not None)


def _shares(layouts: Sequence[LayoutItem]) -> dict[str, float]:
    """Of all boxes, by class."""
    found = Counter(box.label for item in layouts for box in item.objects)
    return {label: number / found.total() for label, number in found.items()}
