"""Curves of growth as an SVG: panels side by side, both axes logarithmic, every measured point a dot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 260, 190  # pixels of a panel's axes
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 48, 40  # around them
COLOURS = ("#4477aa", "#cc6677", "#228833", "#aa8800")
GREY = "#cccccc"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Lines by their names; points (x, y), y positive. An x of 0 stands left of the least other, at half of it."""

    title: str
    lines: Mapping[str, Points]


def svg(panels: Sequence[Panel], x_label: str) -> str:
    """The panels in a row, over one kind of x."""
    wide, high = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide * len(panels)}" height="{high}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        parts += [f'<g transform="translate({place * wide},0)">', *_panel(panel, x_label), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`: powers of ten, with 2 and 5 where these would be few."""
    steps = (1,) if high / low >= 100 else (1, 2, 5)
    numbers = [step * 10.0**power for power in range(-12, 16) for step in steps]
    first = max(i for i, number in enumerate(numbers) if number <= low * (1 + 1e-9))
    last = min(i for i, number in enumerate(numbers) if number >= high * (1 - 1e-9))
    return numbers[first : max(last, first + 1) + 1]


def _panel(panel: Panel, x_label: str) -> list[str]:
    xs = sorted({x for points in panel.lines.values() for x, _ in points})
    ys = [y for points in panel.lines.values() for _, y in points]
    levels = ticks(min(ys), max(ys))
    least = next((x for x in xs if x > 0), 1)
    left, right = math.log(max(xs[0], least / 2)), math.log(max(xs[-1], least))

    def px(x: float) -> float:
        share = (math.log(max(x, least / 2)) - left) / (right - left) if right > left else 0.5
        return round(LEFT + WIDTH * (0.04 + 0.92 * share), 1)

    def py(y: float) -> float:
        share = math.log(y / levels[0]) / math.log(levels[-1] / levels[0])
        return round(TOP + HEIGHT * (1 - share), 1)

    parts = [f'<text x="{LEFT}" y="16" font-size="13" font-weight="bold">{escape(panel.title)}</text>']
    for level in levels:
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{py(level)}" y2="{py(level)}" stroke="{GREY}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py(level) + 4}" text-anchor="end">{level:g}</text>')
    for x in xs:
        parts.append(f'<text x="{px(x)}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{x:g}</text>')
    middle = LEFT + WIDTH / 2
    parts.append(f'<text x="{middle:g}" y="{TOP + HEIGHT + 32}" text-anchor="middle">{escape(x_label)}</text>')
    for place, (name, points) in enumerate(panel.lines.items()):
        colour, at = COLOURS[place % len(COLOURS)], LEFT + 130 * place
        corners = " ".join(f"{px(x)},{py(y)}" for x, y in points)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [f'<circle cx="{px(x)}" cy="{py(y)}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{at}" y="34" fill="{colour}">{escape(name)}</text>')
    return parts
