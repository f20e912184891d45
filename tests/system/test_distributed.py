"""Several processes do what one does with the larger batch, and fail together in one line.

Most are forked here and told their ranks as a launcher would; a few are started by mpiexec and torchrun themselves.
"""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stay_diffusion.run.checkpoint import RunFolder, load_tensors, lock

ROOT = Path(__file__).resolve().parents[2]
TRAIN, SAMPLE = "scripts/image_train.py", "scripts/image_sample.py"
OPTIONS = """
--image_size 8 --channel_mult 1
--drop_rate 0.3 --num_workers 0 --diffusion_steps 12 --noise_schedule cosine --lr 0.001 --random_flip True
--save_interval 2 --log_interval 1 --val_interval 2 --val_images 3 --preview_interval 4 --preview_images 3
"""
STEPS = 4
# Flags that make the same batch of 4, by how many processes share it.
SHARED = {1: ("--batch_size", 4), 2: ("--batch_size", 2), 4: ("--batch_size", 1)}
BIN = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
LAUNCHERS = {
    "mpiexec": lambda size: ["mpiexec", "-n", size, sys.executable],
    "torchrun": lambda size: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", size],
}


@pytest.fixture(scope="module")
def command(tiny_data, tiny_network):
    return ["--data_dir", tiny_data, *tiny_network, *OPTIONS.split(), "--max_steps", STEPS, "--dist_timeout", 120]


@pytest.fixture(scope="module")
def train_ranks(start_ranks, command):
    """train(size, folder, *flags) -> outputs by rank, all of which must have ended with `code`."""

    def train(size, folder, *flags, code=0, within=240, preludes=None):
        preludes = {rank: LOOK_OFTEN + (preludes or {}).get(rank, "") for rank in range(size)}
        words = [*command, *SHARED.get(size, ()), *flags, "--logdir", folder]
        started = start_ranks(size, TRAIN, *words, preludes=preludes)
        ended = [each.end(within) for each in started]
        assert [each.code for each in ended] == [code] * len(ended), "\n---\n".join(each.output for each in ended)
        return [each.output for each in ended]

    return train


LOOK_OFTEN = "import stay_diffusion.system.distributed; stay_diffusion.system.distributed.LOOK_EVERY = 0.2\n"


def launch(launcher, size, script, *arguments, **options):
    """A command started by a launcher of processes; skips where that is not installed."""
    words = list(map(str, LAUNCHERS[launcher](size)))
    program = shutil.which(words[0], path=BIN)
    if program is None:
        pytest.skip(f"{words[0]} is not installed (pip install mpich)")
    environment = {**os.environ, "OPENAI_LOG_FORMAT": "stdout,log,csv"}
    words = [program, *words[1:], str(ROOT / script), *map(str, arguments)]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def rows(folder):
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def figures(folder):
    """What progress.csv says of every step, but for the time it took."""
    names = ("step", "samples", "loss", "mse", "loss_q0", "loss_q3", "grad_norm", "param_norm", "bad_steps", "val_loss")
    return [[float(row.get(name) or "nan") for name in names] for row in rows(folder)]


def contents(folder, step=STEPS):
    """All tensors of a checkpoint; the optimizer's are means of the gradients and of their squares."""
    found = {name: load_tensors(RunFolder(folder).file(name, step)) for name in ("model", "ema_0.9", "opt", "state")}
    kept = ("samples", "step", "timestep_sampler", "best")
    return {**found, "opt": found["opt"]["state"], "state": {name: found["state"][name] for name in kept}}


def assert_same_run(folder, expected):
    torch.testing.assert_close(figures(folder), figures(expected), rtol=1e-3, atol=1e-5, equal_nan=True)
    means = [float(rows(each)[-1]["sample_mean_0"]) for each in (folder, expected)]
    torch.testing.assert_close(means[0], means[1], rtol=1e-2, atol=1e-3)
    *_, earlier, last = RunFolder(expected).steps()
    ours, theirs, before = contents(folder, last), contents(expected, last), contents(expected, earlier)
    for name, tolerance in (("opt", 1e-6), ("state", 1e-4)):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=tolerance)
    # Not each weight: Adam's steps are as long for a gradient of 1e-9, all rounding, as for one of 1.
    for name in ("model", "ema_0.9"):
        assert distance(ours[name], theirs[name]) < 0.02 * distance(theirs[name], before[name])


def distance(weights, others):
    return torch.stack([(weights[name] - others[name]).norm() for name in others]).norm()


# The same run


CASES = {
    "checkpoints in one pass": ([], ["--use_checkpoint", "True"]),
    "checkpointed pieces": (["--microbatch", 2], ["--microbatch", 1, "--use_checkpoint", "True"]),
    "a sharded optimizer": ([], ["--shard_optimizer", "True"]),
    "a sampler that learns": (["--schedule_sampler", "loss-second-moment", "--diffusion_steps", 2, "--max_steps", 7],)
    * 2,
}


@pytest.fixture(scope="module")
def alone(train_ranks, tmp_path_factory):
    """alone(flags) -> the folder of one process's run with these flags, made once."""
    made = {}

    def run(*flags):
        if flags not in made:
            made[flags] = tmp_path_factory.mktemp("alone")
            train_ranks(1, made[flags], *flags)
        return made[flags]

    return run


@pytest.fixture(scope="module")
def together(train_ranks, tmp_path_factory):
    """The folder of a run of two processes."""
    folder = tmp_path_factory.mktemp("together")
    train_ranks(2, folder)
    return folder


def test_two_processes_with_half_the_batch_are_one_with_the_whole(together, alone):
    assert_same_run(together, alone())
    assert (together / "previews/000004.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_so_they_are_with(train_ranks, alone, tmp_path, case):
    of_one, of_two = CASES[case]
    train_ranks(2, tmp_path, *of_two)
    assert_same_run(tmp_path, alone(*of_one))


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [(), ("--microbatch", 1)], ids=str)
def test_so_they_are_compiled(train_ranks, alone, tmp_path, pieces):
    # One process: pieces of two pictures where each of two has pieces of one
    expected = alone(*(("--microbatch", 2) if pieces else ()))
    preludes = dict.fromkeys(
        range(2), "from stay_diffusion.models import compilation; compilation.BACKEND = 'aot_eager'\n"
    )
    outputs = train_ranks(2, tmp_path, *pieces, "--compile", "True", preludes=preludes)
    assert not [output for output in outputs if "not here" in output]
    assert_same_run(tmp_path, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("freezing", "flags"), [("encoder", ()), ("all_but_conditioning", ("--shard_optimizer", "True"))]
)
def test_so_they_are_where_weights_are_frozen(train_ranks, alone, tmp_path, freezing, flags):
    start = ["--finetune_from", alone(), "--freeze", freezing]
    train_ranks(1, tmp_path / "one", *start)
    train_ranks(2, tmp_path / "two", *start, *flags)
    assert_same_run(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_the_learning_sampler_had_learnt_in_that_comparison(alone):
    # Else it would have drawn uniformly on any number of processes.
    counts = contents(alone(*CASES["a sampler that learns"][0]), 6)["state"]["timestep_sampler"]["counts"]
    assert (counts == 10).all()


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_of_a_real_launcher_do_the_same(command, alone, tmp_path, launcher, size):
    with launch(launcher, size, TRAIN, *command, *SHARED[size], "--logdir", tmp_path) as started:
        output, _ = started.communicate(timeout=240)
    assert started.returncode == 0, output
    assert_same_run(tmp_path, alone())
    assert sum(line.startswith("finished; sample with") for line in output.splitlines()) == 1, output


# Changes what a step sees or does, in the process whose prelude it is.
AT_STEP = """
import os, signal, time
from dataclasses import replace
import torch
from stay_diffusion.training import train_loop
train_step, calls = train_loop.train_step, 0
def changed(state, config, images, layout, *rest, **named):
    global calls
    calls += 1
    if calls in {steps}:
        {change}
    return train_step(state, config, images, layout, *rest, **named)
train_loop.train_step = changed
"""


def at_step(steps, change):
    return AT_STEP.format(steps=steps, change=change)


@pytest.mark.slow
def test_a_process_whose_pictures_have_no_objects_keeps_step(train_ranks, tmp_path):
    none = "layout = replace(layout, boxes=layout.boxes[:, :0], labels=layout.labels[:, :0], valid=layout.valid[:, :0])"
    odd = "odd = (torch.arange(4) % 2 > 0)[:, None]; layout = replace(layout, valid=layout.valid & ~odd)"
    odd += (
        "; layout = replace(layout, labels=layout.labels * layout.valid, boxes=layout.boxes * layout.valid[..., None])"
    )
    train_ranks(1, tmp_path / "one", preludes={0: at_step((1, 2, 3, 4), odd)})
    train_ranks(2, tmp_path / "two", "--microbatch", 1, preludes={1: at_step((1, 2, 3, 4), none)})
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_another_number_of_processes_goes_on_where_the_first_stopped(train_ranks, alone, tmp_path):
    train_ranks(2, tmp_path, "--max_steps", 2)
    output = train_ranks(1, tmp_path)[0]
    assert "1 processes continue what 2 began: same data and noise" in output
    assert_same_run(tmp_path, alone())


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 1), (1, 2)])
def test_so_it_is_with_an_optimizer_that_is_sharded_where_it_can_be(train_ranks, alone, tmp_path, sizes):
    for size, last in zip(sizes, (2, STEPS), strict=True):
        train_ranks(size, tmp_path, "--shard_optimizer", "True", "--max_steps", last)
    assert_same_run(tmp_path, alone())


@pytest.mark.slow
def test_pictures_are_neither_lost_nor_repeated_where_the_ranks_do_not_divide_what_was_seen(train_ranks, tmp_path):
    learns = CASES["a sampler that learns"][0][:4]
    for size, batch, steps in ((3, 1, 1), (2, 2, 4)):  # the second starts at picture 3, which is rank 1's
        train_ranks(size, tmp_path / "many", *learns, "--batch_size", batch, "--max_steps", steps)
    for batch, steps in ((3, 1), (4, 4)):
        train_ranks(1, tmp_path / "one", *learns, "--batch_size", batch, "--max_steps", steps)
    assert [row["samples"] for row in rows(tmp_path / "many")] == ["3", "7", "11", "15"]
    assert_same_run(tmp_path / "many", tmp_path / "one")


# Sampling


@pytest.fixture(scope="module")
def sampling(alone):
    flags = "--layouts train --num_samples 7 --batch_size 2 --num_steps 2 --s 1.5 --save_npz True --dist_timeout 5"
    flags += " --export vott,yolo --masks True"
    return ["--model_path", alone() / "ema_0.9.pt", *flags.split()]


@pytest.fixture(scope="module")
def samples(sampling, run_script, tmp_path_factory):
    """What one process makes, by name; the folder, which the annotations name, has one name in every test."""
    folder = tmp_path_factory.mktemp("samples")
    run_script(SAMPLE, *sampling, "--results_path", "results", cwd=folder)
    made = tree(folder / "results")
    assert len([name for name in made if name.startswith("samples/") and name.endswith(".png")]) == 7
    assert {"manifest.jsonl", "preview.png", "samples_7x8x8x1.npz", "masks/train_00000.png"} <= made.keys()
    return made


def tree(folder):
    inside = str(folder.parent).encode()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes().replace(inside, b"") for path in files}


def end_all(started, codes=None, within=240):
    ended = [each.end(within) for each in started]
    assert [each.code for each in ended] == (codes or [0] * len(ended)), "\n---\n".join(each.output for each in ended)
    return [each.output for each in ended]


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_make_the_very_same_files(start_ranks, sampling, samples, tmp_path, size):
    end_all(start_ranks(size, SAMPLE, *sampling, "--results_path", tmp_path / "results"))
    assert tree(tmp_path / "results") == samples


# Ends the process the hard way instead of writing the image of this number.
KILL_AT_IMAGE = """
import os, signal
from stay_diffusion.sampling.results import ResultsFolder
add = ResultsFolder.add
def killing(self, index, *rest, **settings):
    if index == {image}:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, index, *rest, **settings)
ResultsFolder.add = killing
"""


@pytest.mark.slow
def test_what_three_processes_began_one_finishes(start_ranks, run_script, sampling, samples, tmp_path):
    place = ["--results_path", tmp_path / "results"]
    killed = start_ranks(3, SAMPLE, *sampling, *place, preludes={2: KILL_AT_IMAGE.format(image=5)})
    outputs = end_all(killed, codes=[1, 1, -signal.SIGKILL], within=30)  # nothing else would end them under srun
    assert "rank 2 has not been heard of for --dist_timeout 5 seconds" in outputs[0]
    assert list((tmp_path / "results").glob("manifest.*.jsonl")) and len(tree(tmp_path / "results")) < len(samples)
    output = run_script(SAMPLE, *sampling, *place).output
    assert "6 of 7 done already" in output
    assert tree(tmp_path / "results") == samples


# Failures


def test_the_error_of_one_process_ends_all_with_its_message(train_ranks, tmp_path):
    raising = at_step((2,), "raise ValueError('--lr 7: no such thing')")
    outputs = train_ranks(2, tmp_path, code=1, within=30, preludes={1: raising})
    assert outputs[1].splitlines()[-1] == "error: --lr 7: no such thing"
    assert outputs[0].splitlines()[-1] == "rank 0 ends with rank 1: --lr 7: no such thing"
    assert "Traceback" not in "".join(outputs)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other(start_ranks, command, tmp_path, rank):
    kill = at_step((4,), "os.kill(os.getpid(), signal.SIGKILL)")
    words = [*command, *SHARED[2], "--logdir", tmp_path]
    started = start_ranks(2, TRAIN, *words, preludes={rank: kill, 1 - rank: LOOK_OFTEN})
    outputs = end_all(started, [[-9, 1], [1, -9]][rank], within=30)
    told = outputs[1 - rank].splitlines()[-1]
    assert "another process was killed or cannot be reached" in told or told == "rank 1 ends with rank 0: has ended"
    assert "Traceback" not in outputs[1 - rank]


def errors(outputs):
    return [line for output in outputs for line in output.splitlines() if line.startswith("error: ")]


def test_a_process_that_never_arrives_is_named_once(start_ranks, command, tmp_path):
    words = [TRAIN, *command, "--logdir", tmp_path, "--dist_timeout", 2]
    outputs = end_all(start_ranks(3, *words, only=(0, 1)), [1, 1], within=30)
    assert errors(outputs) == ["error: rank 2 of 3 did not arrive within --dist_timeout 2 seconds"]
    assert "Traceback" not in "".join(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("place", [{}, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}])
def test_a_first_process_that_never_arrives_is_told_by_the_others(start_ranks, command, tmp_path, place):
    words = [TRAIN, *command, "--logdir", tmp_path, "--dist_timeout", 2]
    told = errors(end_all(start_ranks(2, *words, only=(1,), environment=place), [1], within=30))
    assert len(told) == 1 and "rank 0" in told[0] and "within --dist_timeout 2 seconds" in told[0]


def test_a_port_in_use_is_one_line(start_ranks, command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        words = [TRAIN, *command, "--logdir", tmp_path, "--dist_timeout", 2]
        outputs = end_all(start_ranks(2, *words, only=(0,), environment=place), [1], within=30)
    told = f"error: MASTER_ADDR:MASTER_PORT 127.0.0.1:{port}: the port is in use; choose another MASTER_PORT"
    assert errors(outputs) == [told]


ONE_GPU = """
from types import SimpleNamespace
import torch
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
torch.cuda.get_device_properties = lambda i: SimpleNamespace(uuid="GPU-1")
"""


def test_more_processes_than_gpus_is_one_line(train_ranks, tmp_path):
    told = errors(train_ranks(2, tmp_path, code=1, within=30, preludes={0: ONE_GPU, 1: ONE_GPU}))
    assert len(told) == 1 and told[0].startswith("error: 2 processes on this node but 1 GPUs: start fewer")


def test_sigterm_to_one_process_saves_once_and_the_same_command_goes_on_bit_for_bit(train_ranks, together, tmp_path):
    term = at_step((3,), "[os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)]")  # a launcher may pass it on twice
    outputs = train_ranks(2, tmp_path, preludes={1: term})
    assert outputs[0].splitlines()[-1] == "SIGTERM: saved at step 3; the same command resumes"
    assert RunFolder(tmp_path).steps() == [2, 3] and "step 4" not in outputs[0]
    train_ranks(2, tmp_path)
    torch.testing.assert_close(contents(tmp_path), contents(together), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "code"), [("mpiexec", 0), ("torchrun", 1)])
def test_sigterm_to_a_launcher_saves_and_ends_with_its_own_code(command, tmp_path, launcher, code):
    # torchrun calls it an error whatever its processes end with.
    words = [*command, *SHARED[2], "--max_steps", 1000, "--save_interval", 1000, "--logdir", tmp_path]
    with launch(launcher, 2, TRAIN, *words) as started:
        lines = iter(started.stdout.readline, "")
        assert any(line.startswith("step 2/") for line in lines)
        started.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert started.returncode == code, rest
    assert sum(line.startswith("SIGTERM: saved at step ") for line in rest) == 1, rest
    assert len(RunFolder(tmp_path).steps()) == 1


def test_a_gradient_that_is_not_finite_on_one_process_is_skipped_on_all(train_ranks, tmp_path):
    bad = at_step((2,), "images = images * float('nan')")
    train_ranks(2, tmp_path, "--save_interval", 1, "--keep_checkpoints", 0, preludes={1: bad})
    assert [float(row["bad_steps"]) for row in rows(tmp_path)] == [0, 1, 0, 0]
    first, second, third = (load_tensors(RunFolder(tmp_path).file("model", step)) for step in (1, 2, 3))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert distance(third, second) > 0 and all(tensor.isfinite().all() for tensor in third.values())


@pytest.mark.slow
def test_nothing_but_such_steps_ends_all_with_advice_told_once(train_ranks, tmp_path):
    bad = at_step(range(1, 99), "images = images * float('nan')")
    outputs = train_ranks(2, tmp_path, "--max_bad_steps", 3, "--max_steps", 9, code=1, preludes={1: bad})
    (told,) = errors(outputs)
    assert told.startswith("error: 3 steps in a row without a finite gradient, at step 3: lower --lr")


@pytest.mark.slow
def test_a_killed_worker_of_one_process_ends_all(train_ranks, tmp_path):
    kill = "import multiprocessing; [os.kill(w.pid, 9) for w in multiprocessing.active_children()]; time.sleep(0.5)"
    outputs = train_ranks(2, tmp_path, "--num_workers", 1, code=1, within=30, preludes={1: at_step((1,), kill)})
    (told,) = errors(outputs)
    assert "a process that loads pictures was killed" in told and "--num_workers" in told


@pytest.mark.slow
def test_a_folder_in_use_is_told_once(train_ranks, tmp_path):
    lock(tmp_path)
    outputs = train_ranks(2, tmp_path, code=1, within=30)
    assert errors(outputs) == [f"error: {tmp_path}: another process is writing to this folder"]
    assert not RunFolder(tmp_path).steps()


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))"


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_disk_that_fills_up_is_told_and_leaves_the_last_checkpoint(train_ranks, tmp_path, size):
    quiet = ("--val_interval", 0, "--preview_interval", 0)  # then only the background writes large files
    train_ranks(size, tmp_path, *quiet, "--max_steps", 2)
    before = contents(tmp_path, 2)
    outputs = train_ranks(size, tmp_path, *quiet, code=1, preludes={0: at_step((1,), LIMIT)})
    (told,) = errors(outputs)
    assert str(tmp_path) in told and "is the disk full?" in told and "Traceback" not in "".join(outputs)
    torch.testing.assert_close(contents(tmp_path, 2), before, rtol=0, atol=0)
    assert RunFolder(tmp_path).steps() == [2] and not list(tmp_path.glob("*.tmp"))


AS_ANYONE = """
import ctypes
numbers = ctypes.c_uint32 * 6
assert ctypes.CDLL(None).capset(numbers(0x20080522), numbers()) == 0  # root, but without its powers
"""


def test_a_folder_that_cannot_be_written_to_is_told_once(train_ranks, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    outputs = train_ranks(2, tmp_path / "run", code=1, within=30, preludes={0: AS_ANYONE, 1: AS_ANYONE})
    assert errors(outputs) == [f"error: [Errno 13] Permission denied: '{tmp_path / 'run/.lock'}'"]


@pytest.mark.slow
def test_one_that_becomes_so_while_training_leaves_the_last_checkpoint(train_ranks, tmp_path):
    written = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(tmp_path / 'state000002.pt')!r}), True)]"
    close = AS_ANYONE + at_step((4,), f"{written}; os.chmod({str(tmp_path)!r}, 0o500)")
    (told,) = errors(train_ranks(2, tmp_path, code=1, within=30, preludes={0: close}))
    assert told.startswith(f"error: [Errno 13] Permission denied: '{tmp_path}/")
    tmp_path.chmod(0o700)
    assert RunFolder(tmp_path).latest() == 2
    train_ranks(2, tmp_path)
    assert RunFolder(tmp_path).latest() == STEPS


@pytest.mark.slow
def test_nothing_is_left_where_processes_met(train_ranks, tmp_path):
    (tmp_path / "meet").mkdir()
    prelude = f"import tempfile; tempfile.tempdir = {str(tmp_path / 'meet')!r}"
    train_ranks(2, tmp_path / "run", "--max_steps", 1, preludes={0: prelude, 1: prelude})
    assert not list((tmp_path / "meet").iterdir())
