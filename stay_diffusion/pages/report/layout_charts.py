"""How the layouts of a set are distributed, beside those of the training split: charts for a report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ...layouts.histograms import AREAS, SIDES, histograms
from ...layouts.items import LayoutItem
from ..markup import count, text
from .charts import heat, histogram, log_ticks
from .results import Results

MOST_NUMBERS = 12  # boxes of a picture; more are counted together
MOST_MAPS = 12  # classes whose centres are drawn


def layout_charts(results: Results) -> str:
    """Boxes of a picture, their widths, heights and areas, and where they lie, beside the training split's."""
    ours = histograms(results.layouts)
    theirs = None if results.training is None else histograms(results.training)
    sides, areas = log_ticks(SIDES, (0.01, 0.03, 0.1, 0.3, 1)), log_ticks(AREAS, (0.0001, 0.001, 0.01, 0.1, 1))
    longest = max(len(found["objects_per_layout"]) for found in (ours, theirs) if found) - 1
    most = min(MOST_NUMBERS, longest)
    numbers = [((i + 0.5) / (most + 1), f"{i}{'+' * (i == most < longest)}") for i in range(most + 1)]
    charts = [histogram("Boxes in a picture", _numbers(ours, most), theirs and _numbers(theirs, most), numbers)]
    for name, ticks in (("width", sides), ("height", sides), ("area", areas)):
        both = (found and found[name]["counts"] for found in (ours, theirs))
        charts.append(histogram(f"{name.capitalize()} of boxes", *both, ticks))
    key = '<span class="key ours">sampled set</span>'
    key += '<span class="key theirs">training split of the data</span>' if theirs else ""
    told = '<p class="told">Sizes as shares of the picture, on logarithmic axes; maps of the boxes’ centres.</p>'
    return f'{told}<p class="keys">{key}</p><div class="charts">{"".join(charts)}</div>{_centres(results)}'


def _centres(results: Results) -> str:
    """Where boxes have their centres, all together and of each of the commonest classes."""
    names = Counter(box.label for item in results.layouts for box in item.objects).most_common()
    shown = [name for name, _ in names[:MOST_MAPS]]
    maps = _centre("all classes", results.layouts, results.training)
    for name in shown:
        ours, theirs = (_only(name, found) for found in (results.layouts, results.training))
        maps += _centre(name, ours, theirs)
    more = len(names) - len(shown)
    left_out = f"<p>{count(more, 'rarer class', 'rarer classes')} not drawn.</p>" if more else ""
    return f'<div class="maps">{maps}</div>{left_out}'


def _only(name: str, layouts: Sequence[LayoutItem] | None) -> list[LayoutItem] | None:
    """The layouts with the boxes of one class alone."""
    if layouts is None:
        return None
    return [replace(item, objects=tuple(box for box in item.objects if box.label == name)) for item in layouts]


def _centre(name: str, ours: Sequence[LayoutItem], theirs: Sequence[LayoutItem] | None) -> str:
    drawn = heat(f"centres of {name}, sampled set", histograms(ours)["centres"])
    if theirs is not None:
        there = heat(f"centres of {name}, training split", histograms(theirs)["centres"])
        drawn = f"<div>{drawn}<span>sampled</span></div><div>{there}<span>data</span></div>"
    return f'<figure><div class="both">{drawn}</div><figcaption><bdi>{text(name)}</bdi></figcaption></figure>'


def _numbers(found: dict, most: int) -> list[int]:
    """Pictures by their number of boxes, those with `most` and more together."""
    counts = found["objects_per_layout"] + [0] * (most + 1 - len(found["objects_per_layout"]))
    return [*counts[:most], sum(counts[most:])]
