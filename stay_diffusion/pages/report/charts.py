"""Charts as inline SVG: histograms of one or two sets, maps of centres; their colours are the page's."""

import math
from collections.abc import Sequence

import numpy as np

from ..markup import text

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 10, 26  # room for axes


def histogram(
    title: str, ours: Sequence[float], theirs: Sequence[float] | None, ticks: Sequence[tuple[float, str]]
) -> str:
    """Shares of bins of equal width: ours as bars, theirs as a line over them; ticks are (place in [0, 1], text)."""
    sets = [_shares(ours)] + ([_shares(theirs)] if theirs is not None else [])
    top = max(float(shares.max(initial=0)) for shares in sets) or 1.0
    step = _step(top)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(place: float) -> float:
        return LEFT + wide * place

    def y(share: float) -> float:
        return TOP + high * (1 - share / top)

    parts = []
    for i in range(int(top / step + 1e-9) + 1):
        level, name = y(i * step), f"{100 * i * step:g} %"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{level + 3.5:.1f}" text-anchor="end">{name}</text>')
    number = len(sets[0])
    for i, share in enumerate(sets[0].tolist()):
        told = f"<title>{100 * share:.1f} %</title>"
        left, width, level = x((i + 0.06) / number), wide * 0.88 / number, y(share)
        parts.append(
            f'<rect class="ours" x="{left:.1f}" y="{level:.1f}" width="{width:.1f}" height="{y(0) - level:.1f}">{told}'
            "</rect>"
        )
    if theirs is not None:
        corners = [(x(0), y(0))]
        for i, share in enumerate(sets[1].tolist()):
            corners += [(x(i / number), y(share)), (x((i + 1) / number), y(share))]
        corners.append((x(1), y(0)))
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
        parts.append(f'<polyline class="theirs" points="{points}"/>')
    for place, name in ticks:
        hangs = "end" if place > 0.99 else "middle"
        parts.append(f'<text x="{x(place):.1f}" y="{HEIGHT - 8}" text-anchor="{hangs}">{text(name)}</text>')
    compared = ", in the sampled set and in the data" if theirs is not None else ", in the sampled set"
    svg = _svg(WIDTH, HEIGHT, f"{title}{compared}", "".join(parts))
    return f'<figure class="chart"><figcaption>{text(title)}</figcaption>{svg}</figure>'


def heat(title: str, counts: Sequence[Sequence[int]]) -> str:
    """A map, rows of columns: the more, the darker; empty cells stay empty."""
    counts = np.asarray(counts)
    rows, columns = counts.shape
    most = max(1, int(counts.max(initial=0)))
    cells = "".join(
        f'<rect class="cell" x="{column}" y="{row}" width="1" height="1" '
        f'fill-opacity="{counts[row, column] / most:.2f}"><title>{int(counts[row, column])}</title></rect>'
        for row, column in np.argwhere(counts > 0)
    )
    return _svg(columns, rows, title, cells, "heat")


def bar(ours: float, theirs: float | None, most: float, title: str) -> str:
    """A line of a table: ours as a bar, theirs as a mark on it, both as shares of `most`."""
    shape = f'<rect class="ours" x="0" y="2" width="{100 * ours / most:.1f}" height="8"/>'
    if theirs is not None:
        shape += f'<rect class="mark" x="{min(99, 100 * theirs / most):.1f}" y="0" width="1" height="12"/>'
    return _svg(100, 12, title, shape, "bar", ' preserveAspectRatio="none"')


def log_ticks(edges: np.ndarray, shares: Sequence[float]) -> list[tuple[float, str]]:
    """Where percentages lie on an axis that is even in the logarithm."""
    low, high = math.log(edges[0]), math.log(edges[-1])
    return [((math.log(share) - low) / (high - low), f"{100 * share:g} %") for share in shares]


def _shares(counts: Sequence[float]) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    return counts / (counts.sum() or 1)


def _step(top: float) -> float:
    """A round number that goes two to five times into `top`."""
    power = 10 ** math.floor(math.log10(top))
    return next(power * part for part in (5, 2, 1, 0.5, 0.2) if top / (power * part) >= 2)


def _svg(width: int, height: int, title: str, inside: str, kind: str = "plot", more: str = "") -> str:
    view = f'viewBox="0 0 {width} {height}"'
    return f'<svg class="{kind}" {view}{more} role="img" aria-label="{text(title)}">{inside}</svg>'
