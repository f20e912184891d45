"""Processes killed at random: the same command, again and again, ends where one that nothing stopped does.

`make chaos`, some ten minutes; -s shows what was killed when. CHAOS_SEED draws other moments.
"""

import csv
import os
import random
import signal
import time
from collections import Counter

import pytest
import torch

from stay_diffusion.run.checkpoint import RunFolder, load_tensors

pytestmark = pytest.mark.slow

TRAIN, SAMPLE = "scripts/image_train.py", "scripts/image_sample.py"
OPTIONS = """
--dropout 0.2 --drop_rate 0.3 --random_flip True --crop_policy object --background_rate 0.3 --num_workers 1
--schedule_sampler loss-second-moment --diffusion_steps 12 --noise_schedule cosine --batch_size 2 --microbatch 1
--save_interval 3 --keep_checkpoints 2 --log_interval 1 --val_interval 4 --val_images 2 --preview_interval 10
--preview_images 2 --lr 0.001 --dist_timeout 20
"""
STEPS, KILLS, IMAGES = 30, 20, 40
SEED = int(os.environ.get("CHAOS_SEED", "0"))


@pytest.fixture(scope="module")
def command(tiny_data, tiny_network):
    return [TRAIN, "--data_dir", tiny_data, *tiny_network, *OPTIONS.split(), "--max_steps", STEPS]


@pytest.fixture
def run(start_script, start_ranks):
    """run(size, ...) -> the processes of a command, by rank."""
    return lambda size, *words: start_ranks(size, *words) if size > 1 else [start_script(*words)]


def end(started, within=120):
    ended = [each.end(within) for each in started]
    return [each.code for each in ended], "\n---\n".join(each.output for each in ended)


def strike(started, rng, longest, counts):
    """Waits a random while, then sends SIGKILL or SIGTERM to one process or to all; returns what they ended with."""
    deadline = time.monotonic() + rng.uniform(0.3, longest)
    number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
    chosen = started if rng.random() < 0.4 else [rng.choice(started)]
    while time.monotonic() < deadline and all(each.process.is_alive() for each in started):
        time.sleep(0.01)
    hit = [each for each in chosen if each.process.is_alive()]
    for each in hit:
        os.kill(each.process.pid, number)
    whom = "all" if len(chosen) == len(started) else "one"
    counts[f"{number.name} to {whom} of {len(started)}" if hit else "too late"] += 1
    codes, output = end(started, within=30)
    assert None not in codes, f"30 seconds after {number.name} {codes}:\n{output}"
    return bool(hit)


def finished(folder):
    return max(RunFolder(folder).steps(), default=0) == STEPS


def contents(folder):
    whole = RunFolder(folder)
    found = {name: load_tensors(whole.file(name, STEPS)) for name in ("model", "ema_0.9", "opt", "state")}
    found["state"] = {name: value for name, value in found["state"].items() if name not in ("config", "versions")}
    return {**found, **{name: load_tensors(folder / f"{name}.pt") for name in ("model", "ema_0.9", "ema_0.9_best")}}


def steps_of(folder):
    with open(folder / "progress.csv", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("size", [1, 2])
def test_training_killed_at_random_ends_with_the_very_same_weights(run, command, tmp_path, size):
    rng, counts, runs, kills = random.Random(f"{SEED} {size}"), Counter(), 0, 0
    began = time.monotonic()
    codes, output = end(run(size, *command, "--logdir", tmp_path / "whole"))
    longest = time.monotonic() - began
    assert codes == [0] * size, output
    expected = contents(tmp_path / "whole")

    while kills < KILLS:
        runs += 1
        folder = tmp_path / str(runs)
        folder.mkdir()
        while not finished(folder):
            words = [*command, "--logdir", folder]
            if kills < KILLS:
                kills += strike(run(size, *words), rng, 0.7 * longest, counts)
            else:
                codes, output = end(run(size, *words))
                assert codes == [0] * size, output
            damaged = [step for step in RunFolder(folder).steps() if RunFolder(folder).damaged(step)]
            assert not damaged, f"checkpoints {damaged} of {folder}"
        codes, output = end(run(size, *command, "--logdir", folder))  # tidies up, and has nothing else to do
        assert codes == [0] * size and f"already at step {STEPS}" in output, output
        torch.testing.assert_close(contents(folder), expected, rtol=0, atol=0)
        assert steps_of(folder) == list(range(1, STEPS + 1))
        assert not list(folder.rglob("*.tmp"))
        assert len(RunFolder(folder).steps()) == 2
        kept = {f"{step:06d}" for step in RunFolder(folder).steps()}
        assert {path.stem[-6:] for path in folder.glob("*[0-9].pt") if path.stem[-6:].isdecimal()} == kept
    print(f"\n{kills} kills in {runs} runs of {size} over {time.monotonic() - began:.0f} s: {dict(counts)}")


@pytest.fixture(scope="module")
def sampling(run_script, command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    run_script(*command, "--logdir", folder, "--max_steps", 1)
    flags = f"--num_samples {IMAGES} --batch_size 3 --num_steps 12 --s 2 --save_npz True --dist_timeout 8"
    layouts = folder / "layouts.jsonl"
    box = '"objects": [{"label": "Spots", "box": [0.%d, 0.1, 0.9, 0.8]}]'
    layouts.write_text("".join(f'{{"product": "A", {box % i}}}\n' for i in range(1, 9)) * (IMAGES // 8))
    return [SAMPLE, "--model_path", folder / "ema_0.9.pt", "--layouts", layouts, *flags.split()]


def tree(folder):
    inside = str(folder).encode()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes().replace(inside, b"") for path in files}


def test_sampling_killed_at_random_ends_with_the_very_same_files(run, sampling, tmp_path):
    rng, counts, runs, kills = random.Random(f"{SEED} sampling"), Counter(), 0, 0
    began = time.monotonic()
    codes, output = end(run(1, *sampling, "--results_path", tmp_path / "whole"))
    assert codes == [0], output
    longest, expected = time.monotonic() - began, tree(tmp_path / "whole")
    pictures = [data for name, data in expected.items() if name.startswith("samples/") and name.endswith(".png")]
    assert len(pictures) == len(set(pictures)) == IMAGES

    while kills < KILLS:
        runs += 1
        folder, ended = tmp_path / str(runs), None
        while ended != 0:
            size = rng.choice((1, 2, 2))
            started = run(size, *sampling, "--results_path", folder)
            if kills < KILLS:
                kills += strike(started, rng, 0.7 * longest, counts)
            ended = max(map(abs, end(started)[0]))
        assert tree(folder) == expected  # no .tmp, no manifest.N.jsonl
    print(f"\n{kills} kills in {runs} samplings over {time.monotonic() - began:.0f} s: {dict(counts)}")
