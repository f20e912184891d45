import time

import torch

from stay_diffusion.data.layout import Layout
from stay_diffusion.run.factory import build_diffusion, build_model
from stay_diffusion.training import pace
from stay_diffusion.training.state import TrainingState


def timed(config, monkeypatch, of_one, of_two):
    """The pace of steps that sleep as many seconds as given, in turn, beside their own work."""
    waits, real = {1: iter(of_one), 2: iter(of_two)}, pace.train_step

    def slow(state, config, images, *rest):
        real(state, config, images, *rest)
        time.sleep(next(waits[len(images)]))

    monkeypatch.setattr(pace, "train_step", slow)
    layout = Layout.collate([(torch.tensor([[0.1, 0.1, 0.6, 0.7]]), torch.tensor([1]), 1, None)] * 2)
    state = TrainingState(config, build_model(config), build_diffusion(config.diffusion), torch.device("cpu"))
    return pace.measure_pace(state, config, torch.zeros(2, 1, 8, 8), layout)


def test_the_first_step_is_a_warm_up(tiny_run, monkeypatch):
    found = timed(tiny_run(), monkeypatch, [0.0] * 6, [0.8, *[0.02] * 5])
    assert 0.02 <= found.seconds < 0.5 and (found.num_steps, found.num_images) == (5, 2)


def test_steps_that_would_take_long_are_worked_out_from_one_image(tiny_run, monkeypatch):
    monkeypatch.setattr(pace, "ENOUGH_SECONDS", 0.3)
    found = timed(tiny_run(), monkeypatch, [0.4], [])
    assert 0.8 <= found.seconds < 2 and (found.num_steps, found.num_images) == (1, 1)


def test_a_dry_run_of_what_memory_cannot_hold_is_not_timed(run_script, tiny_data, tiny_network, tmp_path):
    words = ["--data_dir", tiny_data, "--logdir", tmp_path, *tiny_network, "--batch_size", 2, "--dry_run"]
    prelude = "from stay_diffusion.training import pace; pace.free_memory = lambda device: 2**20"
    output = run_script("scripts/image_train.py", *words, prelude=prelude).output
    assert "time: not measured, 0.0 GiB are free and one image takes" in output


def test_free_memory_is_some_of_the_machines():
    assert 2**27 < pace.free_memory(torch.device("cpu")) < 2**45


def test_a_dry_run_tells_parameters_memory_and_hours_and_leaves_no_checkpoint(
    run_script, tiny_data, tiny_network, tmp_path
):
    words = ["--data_dir", tiny_data, "--logdir", tmp_path, *tiny_network, "--batch_size", 2, "--dry_run"]
    lines = run_script("scripts/image_train.py", *words, "--max_steps", 7200).output.splitlines()
    (line,) = [line for line in lines if line.startswith("time: ")]
    step, hours = float(line.split()[1]), float(line.split()[-2])
    assert "7200 steps in" in line and abs(hours - 2 * step) <= 0.02 + 0.05 * hours
    assert any("million parameters" in line for line in lines) and any(line.startswith("memory: ") for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dry_run.png"]
