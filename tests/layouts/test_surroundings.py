"""What a run meets on a real machine: a full disk, a second process, too few pictures, a changed mind."""

import json
import re
import subprocess
import sys

import pytest
import torch

from stay_diffusion.run import checkpoint
from stay_diffusion.run.checkpoint import RunFolder, lock, save_tensors

TRAIN, SAMPLE = "scripts/image_train.py", "scripts/image_sample.py"
QUIET = "--batch_size 2 --log_interval 1 --preview_interval 0 --val_interval 0 --num_workers 0 --noise_schedule cosine"


@pytest.fixture
def command(tiny_data, tiny_network):
    return ["--data_dir", tiny_data, *tiny_network, *QUIET.split()]


def test_a_full_disk_leaves_the_last_good_checkpoint_and_no_half_one(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    files = {"model": {"w": torch.zeros(2)}, "opt": {"momentum": 1}, "state": {"step": 1}}
    folder.save(1, files, keep=0)
    real = torch.save

    def full(tensors, file):
        if "momentum" in tensors:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
        real(tensors, file)

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match=r"opt000002\.pt: cannot be written, is the disk full"):
        folder.save(2, files, keep=0)
    assert folder.steps() == [1]
    assert not list(tmp_path.glob("*2.pt")) and not list(tmp_path.glob("*.tmp"))


def test_a_second_process_in_a_folder_is_refused_until_the_first_has_ended(tmp_path):
    hold = f"from stay_diffusion.run.checkpoint import lock; from pathlib import Path; lock(Path({str(tmp_path)!r}))"
    words = [sys.executable, "-c", f"{hold}; print('held', flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is writing to this folder"):
            lock(tmp_path)
        first.kill()
    lock(tmp_path)


TOO_LITTLE = {
    "GPU": "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...')",
    "CPU": "torch.empty(2**48)",
}


@pytest.mark.parametrize("device", TOO_LITTLE)
def test_memory_that_does_not_suffice_is_one_line_with_what_needs_less(run_script, command, tmp_path, device):
    prelude = (
        f"import torch\nfrom stay_diffusion.training import train_loop\ndef step(*_, **__): {TOO_LITTLE[device]}\n"
    )
    prelude += "train_loop.train_step = step"
    output = run_script(TRAIN, *command, "--logdir", tmp_path, "--max_steps", 1, prelude=prelude, code=1).output
    told = output.splitlines()[-1]
    assert re.match(
        r"error: out of memory \(training takes about \d+\.\d GiB in float32\): a smaller --microbatch, ", told
    )
    assert "--use_checkpoint True" in told and "--image_size" in told and "Traceback" not in output


def test_pictures_too_few_to_hold_any_out_train_with_a_warning(run_script, command, tmp_path):
    arguments = ["--val_fraction", 0, "--val_interval", 1, "--preview_interval", 1, "--max_steps", 1]
    train_alone = ["--data_dir", command[1] / "train"]
    output = run_script(TRAIN, *command, *train_alone, *arguments, "--logdir", tmp_path / "run").output
    assert "training without validation and previews" in output and "finished" in output


def test_another_schedule_sampler_may_take_a_run_over(run_script, command, tmp_path):
    for steps, sampler in enumerate(("uniform", "loss-second-moment", "uniform"), 1):
        arguments = ["--schedule_sampler", sampler, "--max_steps", steps, "--logdir", tmp_path]
        run_script(TRAIN, *command, *arguments)
    assert RunFolder(tmp_path).steps()[-1] == 3


def test_a_run_remembers_where_its_data_are_from_any_folder(tmp_path, tiny_data, tiny_network, run_script, monkeypatch):
    (tmp_path / "data").symlink_to(tiny_data)
    prelude = f"import os; os.chdir({str(tmp_path)!r})"
    arguments = [*tiny_network, *QUIET.split(), "--data_dir", "data", "--logdir", "run", "--max_steps", 1]
    run_script(TRAIN, *arguments, prelude=prelude)
    assert json.loads((tmp_path / "run/config.json").read_text())["data_dir"] == str(tiny_data.resolve())
    sample = ["--model_path", tmp_path / "run/ema_0.9.pt", "--num_samples", 1, "--num_steps", 2]
    run_script(SAMPLE, *sample, "--results_path", tmp_path / "results")
    assert len(list((tmp_path / "results/samples").glob("*.png"))) == 1


def test_an_interrupted_sampling_says_so_in_one_line(run_script, tmp_path):
    save_tensors(tmp_path / "model.pt", {})
    prelude = (
        "import stay_diffusion.run.factory as f\ndef stop(*_, **__): raise KeyboardInterrupt\nf.trained_config = stop"
    )
    output = run_script(SAMPLE, "--model_path", tmp_path / "model.pt", prelude=prelude, code=130).output
    assert "the same command continues" in output and "Traceback" not in output


def test_an_empty_vocabulary_in_a_preset_leaves_the_trained_one(run_script, command, tmp_path):
    run_script(TRAIN, *command, "--logdir", tmp_path, "--max_steps", 1)
    trained = json.loads((tmp_path / "config.json").read_text())
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps({"classes": [], "product_tags": []}))
    arguments = ["--config", preset, "--logdir", tmp_path, "--max_steps", 2]
    run_script(TRAIN, *command, *arguments)
    assert json.loads((tmp_path / "config.json").read_text())["classes"] == trained["classes"] != []
    tuned = [*command, "--config", preset, "--resume_checkpoint", tmp_path / "model.pt", "--max_steps", 1]
    run_script(TRAIN, *tuned, "--logdir", tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned/config.json").read_text())["classes"] == trained["classes"]


def test_a_fine_tune_with_another_respacing_is_refused_and_not_ignored(run_script, command, tmp_path):
    run_script(TRAIN, *command, "--logdir", tmp_path, "--max_steps", 1)
    tuned = [*command, "--resume_checkpoint", tmp_path / "model.pt", "--timestep_respacing", "10"]
    output = run_script(TRAIN, *tuned, "--logdir", tmp_path / "tuned", code=1).output
    assert output.splitlines()[-1].endswith("--timestep_respacing 10 contradicts the trained model's ")
