"""image_sample.py --layouts sampled, from the statistics that image_train.py leaves."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from stay_diffusion.config import SampleRun
from stay_diffusion.config.flags import load, parse
from stay_diffusion.layouts.statistics_file import NAME, read
from stay_diffusion.run import factory

ROOT = Path(__file__).resolve().parents[2]
SAMPLE, TRAIN = "scripts/image_sample.py", "scripts/image_train.py"
SAMPLED = ["--num_steps", 1, "--layouts", "sampled", "--num_samples", 6]


@pytest.fixture(scope="module")
def run_folder(run_script, tiny_data, tiny_network, tmp_path_factory):
    """A run folder of two steps on object crops."""
    folder = tmp_path_factory.mktemp("a run") / "run"
    words = ["--data_dir", tiny_data, "--logdir", folder, "--crop_policy", "object", "--val_interval", 0]
    run_script(TRAIN, *tiny_network, *words, "--max_steps", 2, "--batch_size", 2, "--preview_interval", 0)
    return folder


@pytest.fixture
def sample(run_script, run_folder, tmp_path):
    def run(*words, folder=run_folder, results="results", code=0):
        where = ["--model_path", folder / "model.pt", "--results_path", tmp_path / results]
        ended = run_script(SAMPLE, *where, *SAMPLED, *words, code=code)
        manifest = tmp_path / results / "manifest.jsonl"
        lines = [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.exists() else []
        return ended.output, lines

    return run


def layouts(lines):
    return [line["layout"] for line in lines]


def test_training_leaves_the_statistics_of_its_pictures(run_folder):
    statistics = read(run_folder / NAME, factory.vocabulary_of(load(run_folder / "config.json")))
    assert len(statistics["whole"]) == 12 and len(statistics["seen"]) >= 2000
    assert statistics["whole"].training_objects.sum() == len(statistics["whole"].boxes) > 12


def test_sampled_layouts_are_made_and_named_as_such(sample):
    output, lines = sample()
    assert "6 images from 6 layouts (sampled)" in output and "note: no" not in output
    assert [line["stem"] for line in lines] == [f"sampled_{i:06d}" for i in range(6)]
    assert {line["source"] for line in lines} == {"sampled"}
    assert sum(len(each["objects"]) for each in layouts(lines)) > 3


def test_more_samples_go_on_with_the_same_layouts(sample):
    _, few = sample()
    output, many = sample("--num_samples", 9)
    assert "6 of 9 done already" in output and many[:6] == few and len(many) == 9


def test_an_older_run_s_statistics_are_counted_in_its_data(sample, run_folder, tmp_path):
    older = tmp_path / "older"
    older.mkdir()
    for name in ("model.pt", "config.json"):
        shutil.copy(run_folder / name, older)
    _, kept = sample()
    output, counted = sample(folder=older, results="older_results")
    assert f"note: no {NAME} of these data in {older}: counted in 12 training pictures" in output
    assert layouts(counted) == layouts(kept)
    assert not (older / NAME).exists()


def test_other_data_have_other_statistics(sample, synthetic_sdi, tmp_path):
    synthetic_sdi.generate(tmp_path / "other", num_train=5, num_val=1, seed=1)
    output, _ = sample("--data_dir", tmp_path / "other", "--dry_run")
    assert "counted in 5 training pictures" in output


def test_the_options_reach_the_layouts(sample):
    _, lines = sample("--class_balance", "Spots=1", "--good_parts", 0.5, "--no_overlap", True, "--num_samples", 8)
    assert Counter(bool(each["objects"]) for each in layouts(lines)) == {True: 4, False: 4}
    assert {each["label"] for layout in layouts(lines) for each in layout["objects"]} == {"Spots"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--num_samples 0", "--num_samples: needed with --layouts sampled"),
        ("--layouts val --good_parts 0.2", "--good_parts 0.2: only --layouts sampled has it, not val"),
        ("--layouts val --class_balance a=1,b=2", "--class_balance a=1,b=2: only --layouts sampled has it, not val"),
        ("--layouts some.json --rare_first True", "--rare_first True: only --layouts sampled has it, not some.json"),
        ("--layouts train --no_overlap True", "--no_overlap True: only --layouts sampled has it, not train"),
        ("--is_train True", "--is_train True contradicts --layouts sampled"),
    ],
)
def test_options_that_contradict_each_other_are_named(words, told):
    from stay_diffusion.sampling.options import resolve_options

    argv = f"--model_path m.pt --layouts sampled --num_samples 3 {words}".split()
    run, given, _ = parse(SampleRun, "", argv)
    with pytest.raises(ValueError, match=re.escape(told)):
        resolve_options(run, given)


def test_an_option_that_the_layouts_refuse_is_one_line(sample):
    output, lines = sample("--rare_first", True, code=1)
    assert "--rare_first True: --class_balance data leaves no class behind" in output.splitlines()[-1] and not lines


def test_a_statistics_file_of_something_else_is_one_line(sample, run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "broken")
    (tmp_path / "broken" / NAME).write_text('{"format": 1}')
    output, _ = sample(folder=tmp_path / "broken", code=1)
    assert f"{NAME}: cannot be used as statistics of layouts (lacks 'classes')" in output.splitlines()[-1]


def test_resuming_keeps_the_statistics_and_brings_them_where_they_are_missing(run_script, run_folder, tmp_path):
    resumed = tmp_path / "resumed"
    shutil.copytree(run_folder, resumed)
    words = ["--logdir", resumed, "--batch_size", 2]
    (resumed / NAME).write_text("kept")
    run_script(TRAIN, *words, "--max_steps", 3)
    assert (resumed / NAME).read_text() == "kept"
    (resumed / NAME).unlink()
    run_script(TRAIN, *words, "--max_steps", 4)
    assert (resumed / NAME).read_bytes() == (run_folder / NAME).read_bytes()
