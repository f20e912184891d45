"""The manifest: what is written is read again, byte for byte, and what is broken is named."""

import json

import pytest

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.data.manifest import ManifestEntry, common_settings, find_manifests, read_manifest, read_run

THERE = {"label": "hole", "box": [0.5, 0.5, 0.75, 1.0], "in_source": True}
NEW = {"label": "spot", "box": [-0.1, 0.25, 0.3, 0.5]}
LINE = {
    "index": 3,
    "stem": "a",
    "file": "rejected/a.png",
    "layout": {"product": "A", "objects": [THERE]},
    "source": "val",
    "source_image": "/good.png",
    "seed": 1,
    "checkpoint": "/run/ema.pt",
    "mask_kind": "weak",
    "asked": {"product": "A", "objects": [THERE, NEW]},
    "mask": "masks/a.png",
    "masks": [{"size": [1, 1], "counts": "0"}],
    "attempt": 0,
    "redrawn": 2,
    "quality": {"score": 1.0, "boxes": [], "copy": None},
    "rejected": True,
}
LEAST = {"stem": "b", "file": "samples/b.png", "layout": {"objects": [NEW, THERE]}, "source": "x"}


@pytest.fixture
def write(tmp_path):
    def write(*lines, name="manifest.jsonl", end=""):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
        return path

    return write


def test_a_line_is_written_as_it_was_read(write):
    path = write(LINE)
    (entry,) = read_manifest(path)
    assert entry.as_line() == path.read_text()
    assert entry.settings == {"seed": 1, "checkpoint": "/run/ema.pt", "mask_kind": "weak"}
    assert str(entry.weights) == "/run/ema.pt" and entry.product == "A" and entry.new_objects == ()


def test_the_objects_that_were_drawn_are_told_from_those_of_the_source(write):
    _, entry = read_manifest(write(LINE, LEAST))
    assert entry.new_objects == (RelativeBox("spot", -0.1, 0.25, 0.3, 0.5),)
    assert entry.layout.in_source == (RelativeBox("hole", 0.5, 0.5, 0.75, 1.0),)
    assert len(entry.layout.objects) == 2


def test_a_line_without_an_index_has_its_place(write):
    assert [entry.index for entry in read_manifest(write(LEAST, LEAST))] == [0, 1]


@pytest.mark.parametrize("line", [{}, 7, [], None, {**LEAST, "layout": {}}, {"stem": "a"}, {**LEAST, "layout": 3}])
def test_a_broken_line_is_named(write, line):
    path = write(LINE, line, LINE)
    with pytest.raises(ValueError, match=f"^{path}, line 2: not a line of a manifest$"):
        read_manifest(path)


def test_a_torn_last_line_is_skipped_where_it_may_be(write, tmp_path):
    path = write(LINE, end='{"index": 4, "st')
    with pytest.raises(ValueError, match="line 2"):
        read_manifest(path)
    write({**LINE, "index": 5}, name="manifest.1.jsonl")
    assert sorted(read_run(tmp_path)) == [3, 5]


def test_manifests_of_one_and_of_several_runs_are_found(write, tmp_path):
    assert find_manifests(tmp_path) == []
    paths = [write(LINE, name=f"{folder}manifest.jsonl") for folder in ("run1/", "", "run0/")]
    assert find_manifests(tmp_path) == [paths[1], paths[2], paths[0]]


def test_settings_that_differ_are_not_common():
    lines = (LINE, {**LINE, "seed": 2}, {**LINE, "s": 1.5})
    entries = [ManifestEntry.from_json(line) for line in lines]
    assert common_settings(entries) == {"checkpoint": "/run/ema.pt", "mask_kind": "weak"}
