"""A report's figures: how many of what, scores by class, box adherence, the set's histograms beside the data's."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..markup import count, text
from .charts import bar, heat, histogram, log_ticks
from .histograms import AREAS, SIDES, Histograms
from .results import Results
from .sheets import Sheet

MOST_NUMBERS = 12  # boxes of a picture; more are counted together
MOST_MAPS = 12  # classes whose centres are drawn
BINS = 20  # of scores


def tiles(results: Results) -> list[tuple[str, str]]:
    """The figures that a reader wants first: (figure, what it is)."""
    boxes = [asked for result in results.pictures for asked in result.boxes]
    labels = {asked.label for asked in boxes}
    found = [
        (f"{len(results.pictures):,}", "picture" + "s" * (len(results.pictures) != 1)),
        (f"{len(boxes):,}", "labelled boxes" if len(boxes) != 1 else "labelled box"),
        (f"{len(labels)}", "classes" if len(labels) != 1 else "class"),
    ]
    if boxes:
        found.append((f"{len(results.good_parts):,}", "good parts"))
    scores = [asked.score for asked in boxes if asked.score is not None]
    if scores:
        found.append((f"{np.median(scores):.2f}", "median score of a box"))
    judged = [asked for asked in boxes if asked.predicted is not None]
    if judged:
        right = sum(asked.predicted == asked.label for asked in judged)
        found.append((f"{100 * right / len(judged):.0f} %", "boxes seen as their own class"))
    if results.threshold is not None:
        copies = sum(r.nearest.similarity >= results.threshold for r in results.pictures if r.nearest)
        found.append((f"{copies:,}", "near-copies of training pictures" if copies != 1 else "near-copy of training"))
    if results.adherence:
        ratio, empty = results.adherence["ratio"], results.adherence["empty_rate"]
        found.append(("none" if ratio is None else f"{ratio:.1f}", "change inside over outside the boxes"))
        found.append((f"{100 * empty:.1f} %", "boxes left empty"))
    return found


def classes(results: Results, sheets: Sequence[Sheet], ours: Histograms, data: Histograms | None) -> str:
    """A line for each class: how often it was asked for, against the data, and how it came out."""
    judged = any(asked.predicted for result in results.pictures for asked in result.boxes)
    heads = ["class", "boxes", "pictures", "share of boxes"] + ["in the data"] * (data is not None)
    heads += ["median score"] * results.scored + ["seen as its own", "else mostly as"] * judged
    heads += ["change in its boxes", "empty"] * bool(results.adherence)
    ours_share = {label: number / ours.boxes for label, number in ours.classes.items()}
    data_share = {label: number / max(1, data.boxes) for label, number in data.classes.items()} if data else {}
    most = max([*ours_share.values(), *data_share.values()])
    lines = "".join(
        "<tr>" + "".join(_cells(results, sheet, judged, ours_share, data_share if data else None, most)) + "</tr>"
        for sheet in sheets
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    absent = sorted(set(data_share) - set(ours_share))
    never = f"<p>In the data, but not asked for here: {text(', '.join(absent))}.</p>" if absent else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>{never}'


def _cells(
    results: Results, sheet: Sheet, judged: bool, ours: dict[str, float], data: dict[str, float] | None, most: float
) -> list[str]:
    label, boxes = sheet.label, [shown.asked for shown in sheet.boxes]
    number, share = results.classes.index(label) + 1, ours[label]
    theirs = data.get(label, 0.0) if data is not None else None
    told = f"{100 * share:.1f} %" + (f", in the data {100 * theirs:.1f} %" if theirs is not None else "")
    cells = [f'<th scope="row" class="c{number}"><a href="#class-{number}"><bdi>{text(label)}</bdi></a></th>']
    cells += [f"<td>{len(boxes):,}</td>", f"<td>{len({shown.result.index for shown in sheet.boxes}):,}</td>"]
    cells.append(f'<td class="share">{bar(share, theirs, most, told)}<span>{100 * share:.1f} %</span></td>')
    cells += [f"<td>{100 * theirs:.1f} %</td>"] if theirs is not None else []
    if results.scored:
        scores = [asked.score for asked in boxes if asked.score is not None]
        cells.append(f"<td>{np.median(scores):.2f}</td>" if scores else "<td></td>")
    if judged:
        seen = Counter(asked.predicted for asked in boxes if asked.predicted is not None)
        others = Counter({name: times for name, times in seen.items() if name != label}).most_common(1)
        cells.append(f"<td>{100 * seen[label] / seen.total():.0f} %</td>" if seen else "<td></td>")
        cells.append(f"<td>{''.join(f'<bdi>{text(name)}</bdi> ({times})' for name, times in others)}</td>")
    if results.adherence:
        of_class = results.adherence["per_class"].get(label)
        cells += (
            [f"<td>{of_class['difference']:.1f}</td>", f"<td>{of_class['empty']}</td>"]
            if of_class
            else ["<td></td>"] * 2
        )
    return cells


def distributions(ours: Histograms, data: Histograms | None) -> str:
    """Boxes of a picture, widths, heights and areas."""
    least_side, least_area = (0.01, 0.03, 0.1, 0.3, 1), (0.0001, 0.001, 0.01, 0.1, 1)
    sides, areas = log_ticks(SIDES, least_side), log_ticks(AREAS, least_area)
    most = min(MOST_NUMBERS, max([*ours.numbers, *(data.numbers if data else ())], default=0))
    ticks = [((i + 0.5) / (most + 1), f"{i}{'+' * (i == MOST_NUMBERS)}") for i in range(most + 1)]
    charts = [
        histogram("Boxes in a picture", _numbers(ours, most), data and _numbers(data, most), ticks),
        histogram("Width of boxes", ours.widths, data and data.widths, sides),
        histogram("Height of boxes", ours.heights, data and data.heights, sides),
        histogram("Area of boxes", ours.areas, data and data.areas, areas),
    ]
    key = '<span class="key ours">sampled set</span>'
    key += '<span class="key theirs">training split of the data</span>' if data else ""
    told = '<p class="told">Sizes as shares of the picture, on logarithmic axes; maps of the boxes’ centres.</p>'
    return f'{told}<p class="keys">{key}</p><div class="charts">{"".join(charts)}</div>'


def centres(results: Results, ours: Histograms, data: Histograms | None) -> str:
    """Where boxes have their centres, all together and by class."""
    names = [label for label in results.classes if label in ours.centres]
    together = {"all classes": sum(ours.centres.values())}
    theirs = {"all classes": sum(data.centres.values()) if data and data.centres else None}
    maps = together | {name: ours.centres[name] for name in sorted(names, key=lambda n: -ours.classes[n])[:MOST_MAPS]}
    theirs |= {name: data.centres.get(name) if data else None for name in maps if name not in theirs}
    figures = "".join(_centre(name, counts, theirs[name], bool(data)) for name, counts in maps.items())
    more = len(names) - (len(maps) - 1)
    left_out = f"<p>{count(more, 'rarer class', 'rarer classes')} not drawn.</p>" if more > 0 else ""
    return f'<div class="maps">{figures}</div>{left_out}'


def _centre(name: str, ours: np.ndarray, theirs: np.ndarray | None, compared: bool) -> str:
    drawn = heat(f"centres of {name}, sampled set", ours)
    if compared:
        theirs = np.zeros_like(ours) if theirs is None else theirs
        there = heat(f"centres of {name}, training split", theirs)
        drawn = f"<div>{drawn}<span>sampled</span></div><div>{there}<span>data</span></div>"
    return f'<figure><div class="both">{drawn}</div><figcaption><bdi>{text(name)}</bdi></figcaption></figure>'


def scores(results: Results) -> str:
    """How many boxes, and how many pictures, have which score."""
    edges, ticks = np.linspace(0, 1, BINS + 1), [(share, f"{share:g}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    with_boxes = [result for result in results.pictures if result.boxes and result.score is not None]
    values = {
        "Score of boxes": [a.score for r in with_boxes for a in r.boxes if a.score is not None],
        "Score of pictures: their worst box's": [result.score for result in with_boxes],
    }
    charts = [
        histogram(title, np.histogram(np.clip(found, 0, 1), edges)[0], None, ticks) for title, found in values.items()
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _numbers(found: Histograms, most: int) -> list[int]:
    counts = [found.numbers[i] for i in range(most)]
    return [*counts, sum(times for number, times in found.numbers.items() if number >= most)]
