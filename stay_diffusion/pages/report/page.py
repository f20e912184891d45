"""A report as one HTML page: the facts that its template shows."""

from collections.abc import Sequence
from pathlib import Path

from ...config import flags
from ..render import count, render
from .charts import layout_charts, score_charts
from .commands import commands, missing_commands
from .gallery import Gallery
from .measures import adherence_rows, tiles
from .results import Result, Results
from .sheets import UNRANKED, Sheet, Shown, class_shares

MAX_STEMS = 500  # names of good parts that are listed
LONG = 24  # letters of a value that has a line of its own


def page_of(
    results: Results, sheets: Sequence[Sheet], pairs: Sequence[Shown], without: Sequence[Result], pictures: Gallery
) -> str:
    """Return the whole page; `without` are the pictures without boxes that it shows."""
    crops = [shown for sheet in sheets for group in sheet.groups.values() for shown in group]
    # Each whole picture is there once, though several crops may show it; closing it leads back to the first of these.
    backs = {shown.result.index: "Nearest-training-pictures" for shown in pairs}
    backs |= {shown.result.index: shown.anchor for shown in reversed(crops)}
    are_there = {
        "Contact sheets": sheets,
        "Classes": sheets,
        "Layouts": sheets,
        "Scores": results.scored and sheets,
        "Box adherence": results.adherence,
        "Nearest training pictures": pairs,
        "Good parts" if sheets else "Pictures": without,
        "Settings": True,
        "Commands": True,
        "Whole pictures": pictures.wholes,
    }
    return render(
        "report.html.jinja",
        title=results.folder.resolve().name,
        results=results,
        sections=[name for name, is_there in are_there.items() if is_there],
        numbers={name: number for number, name in enumerate(results.classes, 1)},
        weights=results.weights,
        tiles=tiles(results),
        missing=missing_commands(results),
        sheets=sheets,
        is_ranked=any(UNRANKED not in sheet.groups for sheet in sheets),
        shares=class_shares(results.layouts),
        data_shares=class_shares(results.training or ()),
        layouts=layout_charts(results) if sheets else None,
        scores=score_charts(results),
        gate=list_rows(flatten((results.quality or {}).get("protocol", {}))),
        adherence=list_rows(adherence_rows(results.adherence)) if results.adherence else [],
        pairs=pairs,
        without=without,
        max_stems=MAX_STEMS,
        settings=list_rows(_settings(results)),
        commands=commands(results),
        pictures=pictures,
        backs=backs,
    )


def list_rows(rows: dict[str, object]) -> list[tuple[str, object, bool]]:
    """Return (name, value, is long), long values first, which take the whole width."""
    listed = [(name, value, len(str(value)) > LONG) for name, value in rows.items()]
    return sorted(listed, key=lambda row: not row[2])


def flatten(values: dict, before: str = "") -> dict[str, object]:
    """Return the single values of a nested dict, by their names one after the other; lists are left out."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{before}{name} ")
        elif not isinstance(value, list):
            found[f"{before}{name}"] = f"{value:.4g}" if isinstance(value, float) else value
    return found


def _settings(results: Results) -> dict[str, object]:
    rows: dict[str, object] = {"folder": results.folder.resolve(), "layouts from": _sources(results)}
    if results.products:
        rows["products"] = ", ".join(f"{name} ({number:,})" for name, number in results.products.most_common())
    rows |= {name: flags.text(value) for name, value in results.settings.items()}
    if anew := sum(result.anew for result in results.pictures):
        rows["drawn anew"] = count(anew, "time")
    return rows


def _sources(results: Results) -> str:
    found = {result.source for result in results.pictures}
    if len(found) == 1:
        return found.pop()
    folders = sorted({str(Path(source).parent) for source in found})
    return f"{count(len(found), 'picture')} of {', '.join(folders[:3])}{' and others' * (len(folders) > 3)}"
