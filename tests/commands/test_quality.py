"""The command that scores a finished results folder: what it writes, what it counts, what it refuses."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.commands import quality as script
from stay_diffusion.commands import run as run_command
from stay_diffusion.config import DataConfig, ModelConfig, RunConfig, flags
from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.formats import vott
from stay_diffusion.quality import classifier, run_gate

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32
LAYOUTS = {"good": [], "copy": [0.25, 0.25, 0.5, 0.5], "empty": [0.5, 0.5, 0.75, 0.75]}


def picture(seed: int, box: list[float] | None) -> Image.Image:
    """A noisy ground, with a bright cross in the box."""
    values = np.random.default_rng(seed).normal(100, 6, (SIDE, SIDE))
    if box:
        x0, y0, x1, y1 = (round(SIDE * edge) for edge in box)
        values[(y0 + y1) // 2 - 1 : (y0 + y1) // 2 + 1, x0:x1] = 240
        values[y0:y1, (x0 + x1) // 2 - 1 : (x0 + x1) // 2 + 1] = 240
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run's folder with data/ and results/ in it: a good part, a copy of a training picture, and an empty box."""
    folder = tmp_path_factory.mktemp("a run")
    rng = np.random.default_rng(0)
    for split, num in (("train", 16), ("val", 2)):
        (folder / "data" / split).mkdir(parents=True)
        records = []
        for i in range(num):
            x, y = rng.integers(1, 15, 2) / SIDE if i else (0.25, 0.25)
            picture(i, [x, y, x + 0.25, y + 0.25]).save(folder / "data" / split / f"{split}{i}.png")
            box = Box("cross", *(float(SIDE * edge) for edge in (x, y, x + 0.25, y + 0.25)))
            records.append(ImageRecord(folder / "data" / split / f"{split}{i}.png", SIDE, SIDE, (box,)))
        vott.write(folder / "data" / split / "x-export.json", records, ("cross",), name=split)
    data = DataConfig(data_dir=str(folder / "data"), classes=("cross",), crop_policy="resize")
    config = RunConfig(data, ModelConfig(image_size=SIDE, image_channels=1))
    (folder / "config.json").write_text(flags.dump(config))

    results, lines = folder / "results", []
    (results / "samples").mkdir(parents=True)
    for index, (stem, box) in enumerate(LAYOUTS.items()):
        image = picture(0 if stem == "copy" else 100 + index, box if stem == "copy" else None)
        image.save(results / f"samples/{stem}.png")
        objects = [{"label": "cross", "box": box}] if box else []
        entry = {"index": index, "stem": stem, "file": f"samples/{stem}.png", "source": "val"}
        entry |= {"layout": {"product": None, "objects": objects}, "checkpoint": str(folder / "ema.pt")}
        lines.append(json.dumps(entry) + "\n")
    (results / "manifest.jsonl").write_text("".join(lines))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "BATCH", 24)
        run_gate.gate_of_run(config, folder, steps=40)
    return folder


@pytest.fixture
def results(made, tmp_path) -> Path:
    return shutil.copytree(made / "results", tmp_path / "results")


def measure(results: Path, *arguments: str) -> tuple[dict, dict[str, dict]]:
    """quality.json, and the lines of quality.jsonl by stem."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", str(results), "--device", "cpu", *arguments])
        assert script.main() == 0
    lines = [json.loads(line) for line in (results / "quality.jsonl").read_text().splitlines()]
    return json.loads((results / "quality.json").read_text()), {line["stem"]: line for line in lines}


def test_each_image_is_scored_and_the_copy_and_the_empty_box_are_found(results, made, capsys):
    report, lines = measure(results)
    assert list(lines) == list(LAYOUTS) and [line["index"] for line in lines.values()] == [0, 1, 2]
    assert lines["good"]["score"] == 1 and lines["good"]["copy"] is None
    assert lines["copy"]["score"] > 0.7 > 0.3 > lines["empty"]["score"]
    assert lines["copy"]["copy"]["file"] == str(made / "data/train/train0.png")
    assert lines["copy"]["copy"]["similarity"] > 0.999 and lines["copy"]["copy"]["training_box"] == [8, 8, 16, 16]
    assert (report["images"], report["with_boxes"], report["copies"]) == (3, 2, 1)
    assert report["best"] == ["copy", "empty"] and report["worst"] == ["empty", "copy"]
    assert report["below"]["0.5"] == 0.5 and report["per_class"]["cross"]["boxes"] == 2
    assert report["mean_score"] == pytest.approx((lines["copy"]["score"] + lines["empty"]["score"]) / 2)
    for name in ("digest", "held_out", "copy_threshold", "made_for"):
        assert name in report["protocol"]
    assert "near-copies" in capsys.readouterr().out and not (results / "accepted.txt").exists()


def test_good_parts_and_pictures_inserted_into_give_adherence(results):
    (results / "good_parts/samples").mkdir(parents=True)
    shutil.copy(results / "samples/copy.png", results / "good_parts/samples/copy.png")
    report, lines = measure(results)
    assert lines["copy"]["boxes"][0]["adherence"] == 0 == lines["copy"]["score"]
    assert lines["empty"]["boxes"][0]["adherence"] is None and report["with_good_part"] == 1
    shutil.rmtree(results / "good_parts")
    picture(0, None).save(results / "source.png")
    manifest = results / "manifest.jsonl"
    entries = [json.loads(line) | {"source_image": str(results / "source.png")} for line in manifest.open()]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert measure(results)[1]["copy"]["boxes"][0]["adherence"] > 0.9


def test_the_accepted_are_listed_as_asked_for(results):
    measure(results, "--reject_below", "0.5")
    assert (results / "accepted.txt").read_text() == "good\ncopy\n"
    measure(results, "--reject_copies")
    assert (results / "accepted.txt").read_text() == "good\nempty\n"
    measure(results, "--reject_copies", "--reject_below", "0.5")
    assert (results / "accepted.txt").read_text() == "good\n"


def test_the_same_folder_gives_the_same_bytes(results):
    measure(results)
    first = [(results / name).read_bytes() for name in ("quality.jsonl", "quality.json")]
    measure(results)
    assert [(results / name).read_bytes() for name in ("quality.jsonl", "quality.json")] == first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "samples/copy.png").unlink(), r"copy\.png: cannot be read"),
        (lambda folder: (folder / "samples/copy.png").write_bytes(b"no picture"), r"copy\.png: cannot be read"),
        (lambda folder: (folder / "manifest.jsonl").write_text(""), "no manifest.jsonl with samples in it"),
    ],
)
def test_a_spoilt_folder_is_refused_by_name(results, spoil, message):
    spoil(results)
    with pytest.raises(ValueError, match=message):
        measure(results)


def test_samples_whose_run_is_gone_are_refused(results):
    manifest = results / "manifest.jsonl"
    entries = [json.loads(line) | {"checkpoint": "/gone/ema.pt"} for line in manifest.open()]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(ValueError, match=r"made with /gone/ema\.pt, beside which there is no config\.json any more"):
        measure(results)


def test_a_share_out_of_range_ends_the_command_with_one_line(results, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(results), "--reject_below", "3"])
    with pytest.raises(SystemExit) as ended:
        run_command("quality")
    assert ended.value.code == 1 and capsys.readouterr().err == "error: --reject_below 3: a score is from 0 to 1\n"
