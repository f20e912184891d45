import itertools
import re
import xml.etree.ElementTree as ElementTree

import growth
import pytest
import torch
from document import replace_section
from growth import Point
from line_chart import logarithmic_panel
from subjects import NETWORKS, Training

from stay_diffusion.pages.svg import draw


def test_row_12_is_a_ratio_of_steps_of_the_same_weights():
    (row,) = growth.rows(rounds=2, network="tiny", batch_size=2)
    seconds = row.details["seconds"]
    ratios = sorted(many / few for many, few in zip(seconds["many"], seconds["few"], strict=True))
    assert (row.number, row.sense, row.target) == ("12", "at most", 1.15)
    assert ratios[0] <= row.ratio <= ratios[1]
    assert row.details["operations"] > 1


def test_a_network_that_heeds_padding_is_no_subject_of_row_12():
    training = Training(NETWORKS["tiny"].config(2), torch.device("cpu"), 3)
    model, forward = training.state.model, type(training.state.model).forward

    class Heeding(type(model)):
        def forward(self, x, timesteps, layout=None):
            return forward(self, x, timesteps, layout) * (1 + 1e-3 * layout.num_objects)

    model.__class__ = Heeding
    with pytest.raises(ValueError, match="differ"):
        growth.padding_changes_nothing(training)


def test_more_objects_and_pixels_count_more_operations_and_bytes():
    points = growth.measure(growth.all_series(small=True)["resolution"], rounds=1)
    small, large = ([p for p in points if p.x == x] for x in (16, 32))
    assert [p.kind for p in small] == [p.kind for p in large] == ["training", "sampling"]
    for few, many in zip(small, large, strict=True):
        assert many.operations > few.operations and many.peak > few.peak


def test_a_table_and_curves_show_what_was_measured():
    series = growth.all_series(small=True)["batch"]
    points = [Point(x, kind, 0.25 * x, 0.2, 0.3, 5 * 10**9 * x, 3 * 10**6) for x in (1, 2) for kind in growth.KINDS]
    assert "| 2 | sampling | 500 | 200 to 300 | 10 | 20 | 3 |" in growth.as_table(series, points)
    drawn = growth.as_chart(series, points)
    assert [drawn.count(f">{panel}<") for panel in ("ms a step", "GFLOP a step, counted", "MB a step adds")] == [1] * 3


def test_tenfold_is_the_same_way_up_wherever_it_starts():
    drawn = draw([logarithmic_panel("title", {"line": [(1, 1), (10, 10), (100, 100)]}, "x")])
    root = ElementTree.fromstring(drawn)
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("{http://www.w3.org/2000/svg}circle")]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(dots)]
    assert steps[0] == pytest.approx(steps[1], abs=0.21)
    assert steps[0][0] > 0 > steps[0][1]
    assert len(set(re.findall(r'points="([^"]*)"', drawn))) == 1


def test_a_section_is_replaced_and_the_rest_of_the_document_stays(tmp_path):
    document = tmp_path / "a b.md"
    document.write_text("before\n<!-- growth -->\nold\n<!-- /growth -->\nafter\n")
    for text in ("first", "new\n"):
        replace_section(document, "growth", text)
    assert document.read_text() == "before\n<!-- growth -->\n\nnew\n\n<!-- /growth -->\nafter\n"


def test_a_document_without_the_marks_is_refused(tmp_path):
    document = tmp_path / "a.md"
    document.write_text("<!-- /growth -->\n<!-- growth -->\n")
    with pytest.raises(ValueError, match=r"a\.md: needs a line"):
        replace_section(document, "growth", "new")
    assert document.read_text() == "<!-- /growth -->\n<!-- growth -->\n"


@pytest.mark.parametrize(("script", "name"), [("run", "bench"), ("growth", "growth"), ("gpu", "gpu")])
def test_a_document_that_cannot_take_the_section_is_refused_before_anything_is_measured(
    run_script, tmp_path, script, name
):
    (tmp_path / "a.md").write_text("no marks")
    for file, told in (("a.md", f": needs a line <!-- {name} -->"), ("none.md", ": no such file")):
        ended = run_script(f"benchmarks/{script}.py", "--doc", tmp_path / file, code=1)
        assert told in ended.output and ended.output.startswith("error: ") and ended.output.count("\n") == 1


def test_growth_writes_tables_and_curves_into_a_document(run_script, tmp_path):
    document = tmp_path / "performance of ours.md"
    document.write_text("# Performance\n<!-- growth -->\n<!-- /growth -->\n")
    (tmp_path / "assets").mkdir()
    words = ["--small", "--rounds", 1, "--parts", "objects", "--doc", document, "--assets", tmp_path / "assets"]
    run_script("benchmarks/growth.py", *words)
    text = document.read_text()
    assert "| 8 | training |" in text and "(assets/growth_objects.svg)" in text
    ElementTree.parse(tmp_path / "assets/growth_objects.svg")


def test_an_unknown_part_is_named(run_script):
    ended = run_script("benchmarks/growth.py", "--parts", "colours", code=1)
    assert "--parts colours: choose from resolution, objects" in ended.output
