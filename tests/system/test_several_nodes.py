"""Training across two machines: two network namespaces with a cable between them, and each launcher's way to meet."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29517
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """(first, second): what to put before a command so that it runs on that node, whose name is its address."""
    names = [f"stay{os.getpid()}-{i}" for i in (1, 2)]
    ends = [f"stay{os.getpid() % 100000}x{i}" for i in (1, 2)]
    setup = [["netns", "add", name] for name in names]
    setup += [["link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1]]]
    for name, end, address in zip(names, ends, ADDRESSES, strict=True):
        setup += [["-n", name, "addr", "add", f"{address}/24", "dev", end]]
        setup += [["-n", name, "link", "set", device, "up"] for device in ("lo", end)]
    if shutil.which("ip") is None:
        pytest.skip("ip (iproute2) is not installed")
    try:
        for words in setup:
            done = subprocess.run(["ip", *words], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not allowed here: ip {' '.join(words)}: {done.stderr.strip()}")
        rename = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"']
        yield [["ip", "netns", "exec", name, *rename, address] for name, address in zip(names, ADDRESSES, strict=True)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture(scope="module")
def training(tiny_network, tiny_data):
    """Words after the interpreter: two steps of four pictures on two processes, into --logdir."""
    flags = ["--max_steps", "2", "--val_interval", "0", "--preview_interval", "0", "--dist_timeout", "60"]
    return [str(ROOT / "scripts/image_train.py"), *tiny_network, "--data_dir", str(tiny_data), *flags]


@pytest.fixture(scope="module")
def alone(training, run_script, tmp_path_factory):
    """The weights after the same two steps of one process."""
    logdir = tmp_path_factory.mktemp("alone")
    run_script("scripts/image_train.py", *training[1:], "--batch_size", 4, "--logdir", logdir)
    return torch.load(logdir / "model.pt")


@contextmanager
def started(commands: list[list[str]], environments: list[dict], folder: Path):
    """Processes, one per command, that write to folder/0.txt ..., and are ended with the block."""
    processes = []
    try:
        for i, (command, environment) in enumerate(zip(commands, environments, strict=True)):
            with open(folder / f"{i}.txt", "w") as log:
                surroundings = {**os.environ, **environment}
                processes.append(subprocess.Popen(command, env=surroundings, stdout=log, stderr=log, cwd=folder))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_all(commands: list[list[str]], environments: list[dict], folder: Path) -> str:
    """What all wrote, once all have ended well."""
    with started(commands, environments, folder) as processes:
        codes = [process.wait(150) for process in processes]
    said = "".join((folder / f"{i}.txt").read_text() for i in range(len(commands)))
    assert codes == [0] * len(commands), said
    assert said.count("run folder: ") == 1
    return said


def same_as(alone: dict, logdir: Path) -> None:
    found = torch.load(logdir / "model.pt")
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)  # a step moves every weight by some 1e-4


def of_training(training: list[str], logdir: Path) -> list[str]:
    return [*training, "--batch_size", "2", "--logdir", str(logdir)]


@pytest.mark.parametrize(
    "meeting",
    [
        ["--master-addr", ADDRESSES[0], "--master-port", str(PORT)],
        ["--rdzv-backend", "c10d", "--rdzv-id", "7", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}"],
    ],
    ids=["master address", "rendezvous"],
)
def test_torchrun_on_two_nodes_trains_as_one_process_does(nodes, training, alone, tmp_path, meeting):
    own, each = ["--nnodes", "2", "--nproc-per-node", "1", *meeting], of_training(training, tmp_path / "run")
    commands = [[*node, *TORCHRUN, "--node-rank", str(i), *own, *each] for i, node in enumerate(nodes)]
    run_all(commands, [{}, {}], tmp_path)
    same_as(alone, tmp_path / "run")


def mpi(rank: int, names: str) -> dict:
    """The surroundings of one of two processes on two nodes, by the names that a launcher gives them."""
    return {f"{names}{name}": str(value) for name, value in (("RANK", rank), ("SIZE", 2))}


SURROUNDINGS = {
    "Open MPI": lambda rank: {
        **mpi(rank, "OMPI_COMM_WORLD_"),
        **{"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
        **{"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT)},
    },
    "MPICH": lambda rank: {
        **mpi(rank, "PMI_"),
        **{"MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT)},
    },
    "srun": lambda rank: {
        **{"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"},
        **{"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_STEP_NODELIST": ",".join(ADDRESSES)},
        **{"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"},
    },
}


@pytest.mark.parametrize("launcher", list(SURROUNDINGS))
def test_processes_that_a_launcher_describes_meet_across_nodes(nodes, training, alone, tmp_path, launcher):
    command = [sys.executable, *of_training(training, tmp_path / "run")]
    environments = [SURROUNDINGS[launcher](rank) for rank in (0, 1)]
    run_all([[*node, *command] for node in nodes], environments, tmp_path)
    same_as(alone, tmp_path / "run")


def test_mpiexec_on_two_nodes_needs_no_address_where_mpi4py_is(nodes, training, alone, tmp_path):
    pytest.importorskip("mpi4py", exc_type=ImportError)
    mpiexec = shutil.which("mpiexec")
    if mpiexec is None or "HYDRA" not in subprocess.run([mpiexec, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("no mpiexec of MPICH")
    entered = "\n".join(
        f'{address}) exec {shlex.join(node)} sh -c "$*" ;;' for address, node in zip(ADDRESSES, nodes, strict=True)
    )
    remote = tmp_path / "remote"  # what ssh would do: remote [-x] HOST COMMAND
    remote.write_text(
        f'#!/bin/sh\nwhile [ "${{1#-}}" != "$1" ]; do shift; done\nhost=$1; shift\ncase $host in\n{entered}\nesac\n'
    )
    remote.chmod(0o755)
    launch = [mpiexec, "-launcher", "ssh", "-launcher-exec", str(remote), "-localhost", ADDRESSES[0]]
    launch += ["-hosts", ",".join(ADDRESSES), "-ppn", "1", "-n", "2", sys.executable]
    run_all([[*nodes[0], *launch, *of_training(training, tmp_path / "run")]], [{}], tmp_path)
    same_as(alone, tmp_path / "run")


def test_the_death_of_a_process_ends_those_on_other_nodes_too(nodes, training, tmp_path):
    command = [sys.executable, *of_training(training, tmp_path / "run"), "--max_steps", "100000"]
    environments = [SURROUNDINGS["MPICH"](rank) for rank in (0, 1)]
    with started([[*node, *command] for node in nodes], environments, tmp_path) as processes:
        deadline = time.monotonic() + 90
        while "step 10/" not in (tmp_path / "0.txt").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(processes[1].pid, signal.SIGKILL)
        assert processes[0].wait(30) == 1, (tmp_path / "0.txt").read_text()
