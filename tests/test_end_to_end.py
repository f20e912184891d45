"""Train, sample and measure as a user would: real processes, another directory, a path with a space."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(cwd, script, *arguments) -> str:
    words = [sys.executable, ROOT / script, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENAI_LOG_FORMAT": "stdout,log,csv"}
    ended = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def road(tmp_path_factory, tiny_network):
    """The folder in which everything was made, and what the last command said."""
    here = tmp_path_factory.mktemp("a place") / "with a space"
    here.mkdir()
    run(here, "datasets/synthetic_sdi.py", "--out", "my data", "--num_train", 8, "--num_val", 3)
    train = ["--data_dir", "my data", "--logdir", "my run", "--batch_size", 2, "--max_steps", 2, "--log_interval", 1]
    train += ["--val_interval", 2, "--preview_interval", 2, "--preview_images", 2]
    run(here, "scripts/image_train.py", *tiny_network, *train)
    sample = ["--model_path", "my run/ema_0.9.pt", "--results_path", "my results", "--num_steps", 2, "--s", 1.5]
    run(here, "scripts/image_sample.py", *sample)
    return here, run(here, "evaluations/box_adherence.py", "my results")


def test_everything_is_written_where_it_was_asked_for(road):
    here, _ = road
    assert sorted(path.name for path in here.iterdir()) == ["my data", "my results", "my run"]


def test_training_leaves_weights_figures_and_a_preview(road):
    run_folder = road[0] / "my run"
    expected = {"config.json", "model.pt", "ema_0.9.pt", "ema_0.9_best.pt", "progress.csv", "log.txt"}
    assert expected <= {path.name for path in run_folder.iterdir()}
    assert (run_folder / "previews/000002.png").stat().st_size > 1000
    assert len((run_folder / "progress.csv").read_text().splitlines()) == 3


def test_sampling_leaves_one_labelled_image_per_validation_layout(road):
    results = road[0] / "my results"
    names = {f"val_{i:05d}.png" for i in range(3)}
    for folder in ("samples", "images", "labels"):
        assert {path.name for path in (results / folder).glob("*.png")} == names
    assert len(json.loads((results / "samples/samples-export.json").read_text())["assets"]) == 3


def test_the_measure_reads_the_samples(road):
    here, output = road
    measured = json.loads((here / "my results/box_adherence.json").read_text())
    assert "box adherence: 3 layouts" in output
    assert measured["layouts"] == 3 and measured["boxes"] > 0
