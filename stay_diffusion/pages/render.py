"""Rendering of templates: what users named, files and classes and products, is escaped; only our own markup is not."""

import re
import shlex
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from ..sampling.preview import colour_of

NAME_HEIGHT = 0.08  # of a class name, in shares of its frame: a box that starts higher has its name inside
LIGHT = 140  # brightness from which black letters are more legible than white ones

Corners = tuple[float, float, float, float]


def render(template: str, **values: object) -> str:
    """Return a template of templates/ filled with `values`; an undefined name is an error."""
    return environment().get_template(template).render(values)


@cache
def environment() -> jinja2.Environment:
    """Return the environment of all templates: HTML and SVG are escaped, Markdown is not."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=lambda name: not (name or "").endswith(".md.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters.update(count=count, placed=placed, name_placed=name_placed, breakable=breakable, quote=shlex.quote)
    found.globals.update(read_static=read_static, colours=colours, has_name_inside=has_name_inside)
    return found


def read_static(name: str) -> Markup:
    """Return a file of static/, to be put into a page as it is."""
    return Markup((resources.files(__package__) / "static" / name).read_text(encoding="utf-8"))


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def breakable(name: str) -> Markup:
    """Return a name that may break after its lines and points."""
    return Markup(re.sub(r"([_.-])", r"\1<wbr>", str(escape(name))))


def placed(box: Corners) -> str:
    """Return the style that puts something at `box`, in [0, 1] of its frame."""
    x0, y0, x1, y1 = (100 * edge for edge in box)
    return f"left: {x0:.5g}%; top: {y0:.5g}%; width: {x1 - x0:.5g}%; height: {y1 - y0:.5g}%"


def has_name_inside(box: Corners) -> bool:
    return max(box[1], 0) < NAME_HEIGHT


def name_placed(box: Corners) -> str:
    """Return the style that hangs a name on the corner of its box that is seen."""
    x0, y0, x1, y1 = box
    side, hidden = ("right", x1 - 1) if x0 + x1 > 1 else ("left", -x0)
    return f"{side}: {100 * max(0, hidden / (x1 - x0)):.4g}%; top: {100 * max(0, -y0 / (y1 - y0)):.4g}%"


def colours(name: str, classes: tuple[str, ...]) -> tuple[str, str]:
    """Return the colour of a class, and that of letters on it."""
    r, g, b = colour_of(name, classes)
    return f"#{r:02x}{g:02x}{b:02x}", "#000" if 0.3 * r + 0.59 * g + 0.11 * b >= LIGHT else "#fff"
