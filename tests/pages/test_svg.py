"""Charts drawn as SVG files, and the files that pages are made of."""

from importlib import resources
from xml.etree import ElementTree

import pytest

from stay_diffusion.pages.svg import Axis, Panel, Series, draw, ticks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "expected"),
    [
        (1.5, 40, True, [1, 2, 5, 10, 20, 50]),
        (2, 2000, True, [1, 10, 100, 1000, 10000]),
        (3, 3, True, [2, 5]),
        (0, 1, False, [0, 0.5, 1]),
        (0, 0.37, False, [0, 0.1, 0.2, 0.3, 0.4]),
        (0.31, 0.32, False, [0.31, 0.315, 0.32]),
        (0, 0, False, [0, 0.01]),
    ],
)
def test_ticks_enclose_the_values(low, high, logarithmic, expected):
    assert ticks(low, high, logarithmic) == pytest.approx(expected)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_points_lie_where_their_values_are(logarithmic):
    values = [1, 10, 100] if logarithmic else [1, 2, 3]
    axis = Axis(values[0], values[-1], [(value, str(value)) for value in values], logarithmic)
    points = list(zip(values, values, strict=True))
    series = [Series(points, "<a>", joined=True), Series(points[1:2], mark="dash", errors=[(values[0], values[2])])]
    tree = ElementTree.fromstring(draw([Panel("title", axis, axis, series)]))
    dots = [(float(node.get("cx")), float(node.get("cy"))) for node in tree.iter(f"{SVG}circle")]
    assert dots == [(56, 238), (186, 143), (316, 48)]
    bar = next(node for node in tree.iter(f"{SVG}line") if node.get("x1") == node.get("x2"))
    assert (bar.get("x1"), bar.get("y1"), bar.get("y2")) == ("186.0", "238.0", "48.0")
    assert "<a>" in [node.text for node in tree.iter(f"{SVG}text")]


def test_templates_and_static_files_are_found_in_the_package():
    found = {kind: resources.files("stay_diffusion.pages") / kind for kind in ("templates", "static")}
    names = {kind: {file.name for file in folder.iterdir()} for kind, folder in found.items()}
    assert names["static"] == {"page.css", "report.css", "browse.css", "browse.js"}
    assert names["templates"] >= {"report.html.jinja", "browse.html.jinja", "model_card.md.jinja", "panels.svg.jinja"}
