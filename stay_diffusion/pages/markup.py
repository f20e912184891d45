"""What our pages are made of: text, counts, boxes over pictures, a colour for each class, and how these look.

What users named, files and classes and products, is text to a page: escaped, and in no address.
"""

import html
from collections.abc import Iterable, Sequence

from ..sampling.preview import colour_of

NAME = 0.08  # about the height of a name, in shares of a frame's: a box starting higher has its name inside
LIGHT = 140  # brightness from which black letters are read better than white ones

Corners = tuple[float, float, float, float]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f7f7f5; --card: #fff; --ink: #1c1e21; --soft: #686d75; --line: #dfe0e3; --warn: #a4450a; --side: 224px;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #131416; --card: #1c1e21; --ink: #e8e9eb; --soft: #9a9fa8; --line: #33363b; --warn: #f0a35e; }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums;
}
.top, main { padding: 0 clamp(1rem, 3vw, 2.5rem); }
h1 { font-size: 1.6rem; line-height: 1.2; letter-spacing: -.015em; margin: 1.8rem 0 .5rem; overflow-wrap: anywhere; }
ul { list-style: none; margin: 0; padding: 0; }
.facts { display: flex; flex-wrap: wrap; gap: 0 1.4rem; color: var(--soft); }
details { color: var(--soft); margin: .4rem 0; overflow-wrap: anywhere; }
figure { margin: 0; width: var(--side); max-width: 100%; }
figcaption { color: var(--soft); font-size: .8rem; margin: .3rem 0; }
.frame { position: relative; overflow: hidden; aspect-ratio: 1; border-radius: 3px; background: var(--line); }
.frame img { display: block; width: 100%; height: 100%; }
.box { position: absolute; outline: 2px solid var(--c); box-shadow: 0 0 0 3px rgb(0 0 0 / .35); }
.box i {
  position: absolute; translate: 0 calc(-100% - 2px); padding: 0 .3em; white-space: nowrap; background: var(--c);
  color: var(--t); font: 600 11px/1.35 system-ui, sans-serif; border-radius: 2px;
}
.box.under i { translate: 0 0; }
"""


def text(words: object) -> str:
    """What users named, as text and as the value of an attribute."""
    return html.escape(str(words), quote=True)


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def placed(place: Corners) -> str:
    """Where in its frame something lies, by `place` in [0, 1] of it."""
    x0, y0, x1, y1 = (100 * edge for edge in place)
    return f"left: {x0:.5g}%; top: {y0:.5g}%; width: {x1 - x0:.5g}%; height: {y1 - y0:.5g}%"


def outline(place: Corners, label: int, name: str, kinds: str = "", data: str = "") -> str:
    """A box of class `label` at `place`, in [0, 1] of the frame, its name inside of it; `data` are attributes."""
    x0, y0, x1, y1 = place
    # The name hangs on the corner that is seen.
    across = f"right: {100 * max(0, (x1 - 1) / (x1 - x0)):.4g}%" if x0 + x1 > 1 else _left(x0, x1)
    inner = f"{across}; top: {100 * max(0, -y0 / (y1 - y0)):.4g}%"
    kinds = f"box c{label}" + " under" * (max(y0, 0) < NAME) + kinds
    return f'<b class="{kinds}" style="{placed(place)}"{data}><i style="{inner}">{text(name)}</i></b>'


def colour_rules(labels: Iterable[int], classes: Sequence[str]) -> str:
    """A rule of style for each label that is there: its colour, and that of letters on it."""
    rules = []
    for label in sorted(labels):
        r, g, b = colour_of(classes[label - 1], classes)
        letters = "#000" if 0.3 * r + 0.59 * g + 0.11 * b >= LIGHT else "#fff"
        rules.append(f".c{label} {{ --c: #{r:02x}{g:02x}{b:02x}; --t: {letters}; }}")
    return "\n".join(rules)


def _left(x0: float, x1: float) -> str:
    return f"left: {100 * max(0, -x0 / (x1 - x0)):.4g}%"
