"""Draw the results of detector_gain.py: a panel for mAP and one for AP50, every training a dot."""

from collections.abc import Sequence

from .svg import Axis, Panel, Series, draw, ticks

METRICS = {"map": "mAP", "ap50": "AP50"}
STEP, HEIGHT = 64, 220  # pixels between two arms; of the axis
BETWEEN = 6 / STEP  # from dot to dot of an arm
DOT, MEAN = "#4477aa", "#222222"
LEAST = 0.98  # an axis starts there or lower, so that it has two ticks up to 1


def svg(entries: Sequence[dict]) -> str:
    """Return an SVG: dots are seeds, dashes means with the standard deviation, the line is real images alone."""
    return draw([_panel(entries, metric, title) for metric, title in METRICS.items()])


def axis(values: Sequence[float]) -> Axis:
    """Return an axis within 0..1 that shows the values, with at least two ticks."""
    marks = ticks(min(*values, LEAST), max(values))
    return Axis(marks[0], marks[-1], [(mark, f"{mark:g}") for mark in marks])


def _panel(entries: Sequence[dict], metric: str, title: str) -> Panel:
    dots, means, errors, values = [], [], [], []
    for place, entry in enumerate(entries):
        mean, std, of_seeds = (entry[metric][name] for name in ("mean", "std", "values"))
        x, middle = place + 0.5, (len(of_seeds) - 1) / 2
        dots += [(x + BETWEEN * (i - middle), value) for i, value in enumerate(of_seeds)]
        means.append((x, mean))
        errors.append(None if std is None else (max(0.0, mean - std), min(1.0, mean + std)))
        values += of_seeds
    captions = [(place + 0.5, _caption(entry, metric)) for place, entry in enumerate(entries)]
    return Panel(
        title,
        Axis(0, len(entries), captions),
        axis(values),
        [Series(means, colour=MEAN, mark="dash", errors=errors), Series(dots, colour=DOT)],
        baseline=entries[0][metric]["mean"],
        width=STEP * len(entries),
        height=HEIGHT,
    )


def _caption(entry: dict, metric: str) -> str:
    words = {None: "synthetic\nonly", 0: "real\n"}.get(entry["ratio"], f"real +\n{entry['ratio']} synth.")
    verdict = entry.get("difference", {}).get("verdict", "") if metric == "map" else ""
    return f"{words}\n{verdict}"
