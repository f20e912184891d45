"""Charts as SVG files: panels side by side with ticks, lines, points, error bars and a legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .render import render

COLOURS = ("#4477aa", "#cc6677", "#228833", "#aa8800")
LEFT, RIGHT, TOP = 56, 14, 48  # pixels around a panel's axes
LINE = 13  # pixels between two lines of text


def ticks(low: float, high: float, logarithmic: bool = False) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, one step apart: 1, 2 or 5 times a power of ten.

    The step goes at least twice into the range. Of a logarithmic axis they are powers of ten, with 2 and 5 times these
    under two decades.
    """
    if logarithmic:
        parts = (1,) if high / low >= 100 else (1, 2, 5)
        numbers = [part * 10.0**power for power in range(-12, 16) for part in parts]
        first = max(i for i, number in enumerate(numbers) if number <= low * (1 + 1e-9))
        last = min(i for i, number in enumerate(numbers) if number >= high * (1 - 1e-9))
        return numbers[first : max(last, first + 1) + 1]
    span = high - low or 0.02
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * part for part in (5, 2, 1, 0.5, 0.2) if span * (1 + 1e-9) >= 2 * power * part)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` with ticks, (value, text); a text may have several lines."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at `low` and 1 at `high`."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return (value - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Series:
    """Points (x, y) as "dot" or as short "dash", each with an error bar (low, high) where there are `errors`."""

    points: Sequence[tuple[float, float]]
    name: str = ""  # in the legend
    colour: str = COLOURS[0]
    mark: str = "dot"
    joined: bool = False
    errors: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True)
class Panel:
    """Series over the same axes; `baseline` is a dashed line at a value of y."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    x_label: str = ""
    baseline: float | None = None
    width: int = 260
    height: int = 190

    def place_x(self, value: float) -> float:
        return round(LEFT + self.width * self.x.share(value), 1)

    def place_y(self, value: float) -> float:
        return round(TOP + self.height * (1 - self.y.share(value)), 1)


def draw(panels: Sequence[Panel]) -> str:
    """Return a whole SVG file of the panels in a row."""
    lines = max(len(text.splitlines()) for panel in panels for _, text in panel.x.ticks) + any(
        p.x_label for p in panels
    )
    size = {"high": TOP + max(panel.height for panel in panels) + 16 + LINE * lines}
    return render("panels.svg.jinja", panels=panels, left=LEFT, right=RIGHT, top=TOP, line=LINE, **size)
