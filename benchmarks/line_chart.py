"""Panels of curves over logarithmic axes, every measured point a dot."""

from collections.abc import Mapping, Sequence

from stay_diffusion.pages.svg import COLOURS, Axis, Panel, Series, ticks

MARGIN = 0.04 / 0.92  # of the range of x, left and right of the points


def logarithmic_panel(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_label: str) -> Panel:
    """Return a panel of lines by their names, y positive; an x of 0 stands left of the least other, at half of it."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    least = next((x for x in xs if x > 0), 1)

    def place(x: float) -> float:
        return max(x, least / 2)

    low, high, levels = place(xs[0]), max(xs[-1], least), ticks(min(ys), max(ys), logarithmic=True)
    margin = (high / low) ** MARGIN
    series = [
        Series([(place(x), y) for x, y in points], name, COLOURS[number % len(COLOURS)], joined=True)
        for number, (name, points) in enumerate(lines.items())
    ]
    x_axis = Axis(low / margin, high * margin, [(place(x), f"{x:g}") for x in xs], logarithmic=True)
    y_axis = Axis(levels[0], levels[-1], [(level, f"{level:g}") for level in levels], logarithmic=True)
    return Panel(title, x_axis, y_axis, series, x_label)
