"""Whatever stops a run and whenever, the same command ends with the weights of a run that nothing stopped."""

import csv
import json
import os
import shutil
import signal

import pytest
import torch

from stay_diffusion.run.checkpoint import RunFolder, load_tensors

TRAIN = "scripts/image_train.py"
# Everything that draws random numbers or remembers something, at once.
RANDOM = """
--dropout 0.2 --drop_rate 0.3 --random_flip True --crop_policy object --background_rate 0.3 --num_workers 1
--schedule_sampler loss-second-moment --diffusion_steps 12 --noise_schedule cosine --batch_size 5 --microbatch 3
--save_interval 2 --log_interval 1 --val_interval 2 --val_images 2 --preview_interval 2 --preview_images 2 --lr 0.001
"""
STEPS = 4


@pytest.fixture(scope="module")
def command(tiny_data, tiny_network):
    return ["--data_dir", tiny_data, *tiny_network, *RANDOM.split(), "--max_steps", STEPS]


@pytest.fixture(scope="module")
def uninterrupted(run_script, command, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("uninterrupted"))
    run_script(TRAIN, *command, "--logdir", folder.path)
    return folder


def contents(folder, step):
    """All tensors and figures of a checkpoint, by file."""
    found = {name: load_tensors(folder.file(name, step)) for name in ("model", "ema_0.9", "opt", "state")}
    assert found["state"].pop("config") and found["state"].pop("versions")["torch"] == torch.__version__
    return found


def assert_same_end(folder, uninterrupted):
    assert max(folder.steps()) == STEPS
    torch.testing.assert_close(contents(folder, STEPS), contents(uninterrupted, STEPS), rtol=0, atol=0)
    for name in ("model", "ema_0.9", "ema_0.9_best"):
        expected = load_tensors(uninterrupted.path / f"{name}.pt")
        torch.testing.assert_close(load_tensors(folder.path / f"{name}.pt"), expected, rtol=0, atol=0)


def tree(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_training_moves_the_weights_at_every_step(uninterrupted):
    # Else all the equalities below would say little.
    models = [load_tensors(uninterrupted.file("model", step)) for step in (2, 4)]
    assert (models[0]["out.2.weight"] != models[1]["out.2.weight"]).any()


def test_a_run_in_two_processes_is_bit_for_bit_a_run_in_one(run_script, command, uninterrupted, tmp_path):
    for last in (3, STEPS):  # in the second epoch, and between two intervals of saving
        run_script(TRAIN, *command, "--logdir", tmp_path, "--max_steps", last)
    assert_same_end(RunFolder(tmp_path), uninterrupted)


# Stops the process the hard way when a file of the given name is about to be, or has just been, written.
KILL_AT = """
import os, signal
import stay_diffusion.run.checkpoint as checkpoint
replace = os.replace
def killing(source, target):
    if os.path.basename(target) == "{name}":
        if {after}: replace(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killing
"""


@pytest.mark.parametrize(
    ("name", "after", "complete"),
    [
        ("opt000004.pt", False, [2]),
        ("state000004.pt", True, [2, 4]),
        ("progress.csv", False, []),
    ],
)
def test_a_run_killed_while_writing_continues_bit_for_bit(
    run_script, command, uninterrupted, tmp_path, name, after, complete
):
    prelude = KILL_AT.format(name=name, after=after)
    run_script(TRAIN, *command, "--logdir", tmp_path, prelude=prelude, code=-signal.SIGKILL)
    folder = RunFolder(tmp_path)
    assert folder.steps() == complete
    run_script(TRAIN, *command, "--logdir", tmp_path)
    assert_same_end(folder, uninterrupted)
    assert not list(tmp_path.glob("*.tmp"))


# Sends the process a signal after a step, with the checkpoint before it on disk.
STOP_AFTER_STEP = """
import os
from stay_diffusion.run.logger import Logger
from stay_diffusion.training.saving import Saver
line, save, savers = Logger.line, Saver.save, []
def stopping(self, text):
    line(self, text)
    if text.startswith("step {step}/"):
        [saver.wait() for saver in savers]
        os.kill(os.getpid(), {number})
def saving(self):
    save(self)
    savers.append(self)
Logger.line, Saver.save = stopping, saving
"""


@pytest.mark.parametrize(
    ("name", "step", "code"), [("SIGKILL", 3, -signal.SIGKILL), ("SIGTERM", 1, 0), ("SIGINT", 1, 130)]
)
def test_a_run_stopped_by_a_signal_continues_bit_for_bit(
    run_script, command, uninterrupted, tmp_path, name, step, code
):
    prelude = STOP_AFTER_STEP.format(step=step, number=int(getattr(signal, name)))
    output = run_script(TRAIN, *command, "--logdir", tmp_path, prelude=prelude, code=code).output
    assert RunFolder(tmp_path).steps() == [2] and "Traceback" not in output
    assert name == "SIGKILL" or output.splitlines()[-1] == f"{name}: saved at step 2; the same command resumes"
    run_script(TRAIN, *command, "--logdir", tmp_path)
    assert_same_end(RunFolder(tmp_path), uninterrupted)


FAIL_AT_STEP_1 = """
import multiprocessing, os, signal
from stay_diffusion.run.logger import Logger
def failing(self, text):
    print(text, flush=True)
    {failure}
Logger.line = failing
"""
FAILURES = {
    "an error in a step": "raise RuntimeError('out of memory')",
    "a killed worker": "[os.kill(p.pid, signal.SIGKILL) for p in multiprocessing.active_children()[:1]]",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_unforeseen_error_ends_the_process_and_its_workers(run_script, command, tmp_path, failure):
    prelude = FAIL_AT_STEP_1.format(failure=FAILURES[failure])
    arguments = [*command, "--logdir", tmp_path, "--num_workers", 2, "--max_steps", 50]
    output = run_script(TRAIN, *arguments, prelude=prelude, code=1).output
    assert "step 1/50" in output and "step 50/50" not in output


# The same command on a run that is there already


@pytest.fixture
def finished(uninterrupted, tmp_path):
    """A copy of the finished run."""
    for file in uninterrupted.path.glob("*.*"):
        (os.link if file.suffix == ".pt" else shutil.copy)(file, tmp_path / file.name)
    return RunFolder(tmp_path)


def test_a_finished_run_has_nothing_to_do(run_script, command, finished):
    before = tree(finished.path)
    output = run_script(TRAIN, *command, "--logdir", finished.path).output
    assert f"already at step {STEPS}: nothing to do (a larger --max_steps goes on)" in output
    after = tree(finished.path)
    assert json.loads(after.pop("config.json"))["logdir"] == str(finished.path)
    del before["config.json"]
    assert after == before


def test_the_names_of_the_latest_weights_are_mended_on_resuming(run_script, command, finished):
    latest = finished.file("model").read_bytes()
    finished.file("model").unlink()
    finished.file("model").write_bytes(finished.file("model", 2).read_bytes())
    run_script(TRAIN, *command, "--logdir", finished.path)
    assert finished.file("model").read_bytes() == latest


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--num_channels", "64", "--num_channels 64 contradicts the trained model's 32"),
        ("--learn_sigma", "True", "--learn_sigma True contradicts the trained model's False"),
        ("--classes", "Spots", "--classes Spots contradicts the trained model's Spots,Scratches,"),
        ("--ema_rate", "0.5", "--ema_rate 0.5: "),
    ],
)
def test_a_flag_that_contradicts_the_run_is_one_line_and_changes_nothing(
    run_script, command, finished, flag, value, told
):
    before = tree(finished.path)
    output = run_script(TRAIN, *command, "--logdir", finished.path, flag, value, code=1).output
    assert output.splitlines()[-1].startswith("error: ") and told in output and "Traceback" not in output
    assert tree(finished.path) == before


def spoil(path, damage):
    whole = path.read_bytes()
    path.unlink()  # not through the other name of the same file
    path.write_bytes(damage(whole))


def flip_a_bit(whole):
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


@pytest.mark.parametrize("name", ["model", "opt", "state"])
@pytest.mark.parametrize("damage", [lambda whole: whole[:1000], flip_a_bit], ids=["torn", "a bit flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    run_script, command, finished, uninterrupted, name, damage
):
    path = finished.file(name, STEPS)
    spoil(path, damage)
    output = run_script(TRAIN, *command, "--logdir", finished.path).output
    assert f"{path}: damaged; the checkpoint of step {STEPS} is not used" in output
    assert "continuing from step 2" in output
    assert_same_end(finished, uninterrupted)


def test_where_all_checkpoints_are_damaged_nothing_is_started(run_script, command, finished):
    for step in finished.steps():
        spoil(finished.file("opt", step), flip_a_bit)
    before = tree(finished.path)
    output = run_script(TRAIN, *command, "--logdir", finished.path, code=1).output
    assert output.splitlines()[-1].startswith(f"error: {finished.path}: all its checkpoints are damaged")
    assert tree(finished.path) == before


def test_progress_has_every_step_once_after_a_kill(run_script, command, uninterrupted, tmp_path):
    run_script(TRAIN, *command, "--logdir", tmp_path, prelude=STOP_AFTER_STEP.format(step=3, number=9), code=-9)
    assert [row["step"] for row in progress(tmp_path)] == ["1", "2", "3"]
    run_script(TRAIN, *command, "--logdir", tmp_path)
    figures = [{key: value for key, value in row.items() if key != "seconds_per_step"} for row in progress(tmp_path)]
    assert [row["step"] for row in figures] == ["1", "2", "3", "4"]
    for row, expected in zip(figures, progress(uninterrupted.path), strict=True):
        assert row == {key: expected[key] for key in row}


def progress(folder):
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_an_earlier_step_of_the_same_folder_is_not_started_from_silently(run_script, command, finished):
    start = finished.file("model", 2)
    output = run_script(TRAIN, *command, "--logdir", finished.path, "--resume_checkpoint", start, code=1).output
    assert f"--resume_checkpoint {start}: this folder continues from its latest step, {STEPS}" in output


# Fine-tuning


def test_a_fine_tune_takes_weights_and_configuration_from_beside_them(run_script, tiny_data, finished, tmp_path):
    start = finished.file("ema_0.9")
    arguments = ["--data_dir", tiny_data, "--resume_checkpoint", start, "--logdir", tmp_path / "new", "--lr", 0]
    arguments += ["--batch_size", 2, "--max_steps", 1, "--val_interval", 0, "--preview_interval", 0]
    output = run_script(TRAIN, *arguments).output
    assert f"starting from {start}" in output
    torch.testing.assert_close(load_tensors(tmp_path / "new/model.pt"), load_tensors(start), rtol=0, atol=0)
    new, old = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "new", finished.path))
    same = ("image_size", "num_channels", "diffusion_steps", "classes", "product_tags", "crop_policy", "dropout")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert (new["batch_size"], new["ema_rate"], new["seed"]) == (2, "0.9999", 0)


def test_a_fine_tune_with_other_model_flags_is_one_line(run_script, tiny_data, finished, tmp_path):
    arguments = ["--data_dir", tiny_data, "--logdir", tmp_path / "new", "--num_res_blocks", 2]
    arguments += ["--resume_checkpoint", finished.file("model")]
    output = run_script(TRAIN, *arguments, code=1).output
    assert output.splitlines()[-1].endswith("--num_res_blocks 2 contradicts the trained model's 1")
    assert not (tmp_path / "new").exists()


# Values that cannot be


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--batch_size 0", "--batch_size 0: must be at least 1"),
        ("--log_interval 0", "--log_interval 0: must be at least 1"),
        ("--save_interval -1", "--save_interval -1: must be at least 1"),
        ("--seed -1", "--seed -1: must be at least 0"),
        ("--lr nan", "--lr nan: must be a finite number"),
        ("--drop_rate 1.5", "--drop_rate 1.5: must be at most 1"),
        ("--ema_rate 1", "--ema_rate 1: rates lie in [0, 1)"),
        ("--lr inf", "--lr inf: must be a finite number"),
        ("--num_channels -32", "--num_channels -32: must be a positive multiple of 32"),
        ("--channel_mult ,", "--channel_mult ,: expected positive numbers"),
        ("--num_head_channels 0", "--num_head_channels 0: must be positive"),
        ("--batch_size 13", "--batch_size 13 but the data set has only 12"),
        ("--image_size 17", "--image_size 17: must be a multiple of 2"),
        ("--data_dir missing", "--data_dir missing: no such folder or file"),
        ("--data_dir=", "--data_dir: needed, the folder of annotated images"),
        ("--resume_checkpoint missing.pt", "--resume_checkpoint missing.pt: no such file"),
        ("--precision bf16 --use_fp16 True", "--use_fp16 True contradicts --precision bf16"),
        ("--predict_xstart True --prediction v", "--predict_xstart True contradicts --prediction v"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(run_script, command, tmp_path, arguments, told):
    output = run_script(TRAIN, *command, "--logdir", tmp_path / "new", *arguments.split(), code=1).output
    assert output.splitlines()[-1].startswith("error: ") and told in output.splitlines()[-1]
    assert "Traceback" not in output


def test_a_broken_image_ends_the_run_in_one_line(run_script, command, synthetic_sdi, tmp_path):
    synthetic_sdi.generate(tmp_path / "data", num_train=6, num_val=1)
    broken = next((tmp_path / "data/train").rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:300])
    output = run_script(TRAIN, *command, "--data_dir", tmp_path / "data", "--logdir", tmp_path / "new", code=1).output
    assert output.splitlines()[-1].startswith("error: ") and broken.name in output.splitlines()[-1]
