"""The figures of detector_gain.py as an SVG: a panel for mAP and one for AP50, every training a dot.

Imported by detector_gain.py.
"""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

PANELS = {"map": "mAP", "ap50": "AP50"}
STEP, HEIGHT = 64, 220  # pixels between two arms; of the axis
LEFT, TOP, BOTTOM = 56, 36, 64  # pixels around it
TICKS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
DOT, MEAN, BASELINE, GREY = "#4477aa", "#222222", "#cc6677", "#bbbbbb"


def svg(entries: Sequence[dict]) -> str:
    """Dots are seeds, short lines their means with the standard deviation; the dashed line is real pictures alone."""
    width = LEFT + STEP * len(entries)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(PANELS)}" height="{TOP + HEIGHT + BOTTOM}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (figure, title) in enumerate(PANELS.items()):
        parts += [f'<g transform="translate({place * width},0)">', *_panel(entries, figure, title), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def axis(values: Sequence[float]) -> tuple[float, float, float]:
    """(lowest, highest, step) of an axis from 0..1 that shows the values with at least two ticks."""
    low, high = min(values), max(values)
    step = next((step for step in TICKS if high - low >= 2 * step), TICKS[-1])
    lowest = min(math.floor(low / step) * step, 1 - step)
    return lowest, max(math.ceil(high / step) * step, lowest + step), step


def _panel(entries: Sequence[dict], figure: str, title: str) -> list[str]:
    values = [value for entry in entries for value in entry[figure]["values"]]
    low, high, step = axis(values)

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (high - value) / (high - low), 1)

    right = LEFT + STEP * len(entries)
    parts = [f'<text x="{LEFT}" y="{TOP - 16}" font-size="14" font-weight="bold">{title}</text>']
    for i in range(round((high - low) / step) + 1):
        tick = low + i * step
        parts.append(_line(LEFT, y(tick), right - 8, y(tick), GREY, 0.5))
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:.2f}</text>')
    base = y(entries[0][figure]["mean"])
    parts.append(_line(LEFT, base, right - 8, base, BASELINE, 1, 'stroke-dasharray="4 3"'))
    for place, entry in enumerate(entries):
        parts += _arm(entry, figure, LEFT + STEP * (place + 0.5), y)
    return parts


def _arm(entry: dict, figure: str, x: float, y) -> list[str]:
    mean, std, values = (entry[figure][name] for name in ("mean", "std", "values"))
    parts = [_line(x - 12, y(mean), x + 12, y(mean), MEAN, 2)]
    if std is not None:
        parts.append(_line(x, y(max(0.0, mean - std)), x, y(min(1.0, mean + std)), MEAN, 1))
    spots = [(x + 6 * (i - (len(values) - 1) / 2), y(value)) for i, value in enumerate(values)]
    parts += [f'<circle cx="{cx:g}" cy="{cy}" r="3.2" fill="{DOT}" fill-opacity="0.8"/>' for cx, cy in spots]
    for line, text in enumerate(_caption(entry, figure)):
        parts.append(f'<text x="{x:g}" y="{TOP + HEIGHT + 18 + 13 * line}" text-anchor="middle">{escape(text)}</text>')
    return parts


def _caption(entry: dict, figure: str) -> list[str]:
    words = {None: ["synthetic", "only"], 0: ["real"]}.get(entry["ratio"], ["real +", f"{entry['ratio']} synth."])
    verdict = entry.get("difference", {}).get("verdict", "") if figure == "map" else ""
    return [*words, *([""] * (2 - len(words))), verdict]


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float, more: str = "") -> str:
    return f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{colour}" stroke-width="{width}" {more}/>'
