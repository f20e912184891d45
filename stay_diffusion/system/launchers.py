"""The rank of this process under mpiexec, srun and torchrun, and the way its siblings find one another."""

import contextlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine

if TYPE_CHECKING:
    from torch.distributed import Store

# What each launcher calls rank, size, local rank, local size; tried in this order. Slurm also describes a plain sbatch,
# which is no launcher of processes: only a step (srun) has the first of its names.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "MVAPICH": tuple(f"MV2_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
}
LAUNCHER_PROGRAMS = re.compile(r"hydra|pmi_proxy|orted|prted|mpirun|mpiexec|slurmstepd")


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, in all and on its node."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = ""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def several_nodes(self) -> bool:
        return self.local_size < self.size


ALONE = World()


def find_world(environment: Mapping[str, str] = os.environ) -> World:
    """Return this process as its launcher's variables describe it; alone without any. ValueError if they contradict."""
    names = {**LAUNCHERS}
    if "SLURM_STEP_ID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        names["srun"] = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")
    for launcher, (rank, size, local_rank, local_size) in names.items():
        if rank not in environment or size not in environment:
            continue
        if "srun" in names and local_rank not in environment and environment[size] == environment[names["srun"][1]]:
            continue  # srun --mpi=pmi2 sets MPICH's names too, but not those that tell the node's processes
        own, of_all = _number(environment, rank), _number(environment, size)
        on_node = _tasks_per_node(environment) if launcher == "srun" else environment.get(local_size, "")
        world = World(
            own,
            of_all,
            _number(environment, local_rank) if local_rank in environment else own,
            int(on_node) if on_node.isdecimal() else of_all,
            launcher,
        )
        if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
            raise ValueError(f"{launcher}: {rank}={world.rank} with {size}={world.size} cannot be")
        return world if world.size > 1 else ALONE
    return ALONE


def meet(world: World, timeout: float) -> "Store":
    """Return the key-value store that all processes share, held by rank 0; ValueError if they do not meet."""
    import torch.distributed as dist

    limit = timedelta(seconds=timeout)
    if not ("MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ):
        if not world.several_nodes:
            return _meet_on_node(world, timeout)
        address, port = _address_by_slurm() if world.launcher == "srun" else _address_by_mpi(world)
        os.environ.setdefault("MASTER_ADDR", address)
        os.environ.setdefault("MASTER_PORT", str(port))
    if world.several_nodes and (interface := machine.interface_towards(os.environ["MASTER_ADDR"])):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)  # else gloo takes that of the node's own name
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    late = f"MASTER_ADDR:MASTER_PORT {place}: rank 0 did not answer within --dist_timeout {timeout:g} seconds"
    deadline = time.monotonic() + timeout
    while not world.is_main and not _answers(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]):
        if time.monotonic() > deadline:
            raise ValueError(late)
        time.sleep(0.05)
    try:
        rendezvous = dist.rendezvous("env://", rank=world.rank, world_size=world.size, timeout=limit)
        store = dist.PrefixStore("stay_diffusion", next(rendezvous)[0])
        store.set_timeout(limit)
        return store
    except (RuntimeError, ValueError) as error:  # torch's errors of connections are RuntimeErrors
        if "timed out" in str(error):
            raise ValueError(late) from None
        in_use = "EADDRINUSE" in str(error)
        reason = "the port is in use; choose another MASTER_PORT" if in_use else str(error).splitlines()[0][:200]
        raise ValueError(f"MASTER_ADDR:MASTER_PORT {place}: {reason}") from None


def _meet_on_node(world: World, timeout: float) -> "Store":
    """Listen, on rank 0, on a free port of this machine; leave its number where the siblings look."""
    import torch.distributed as dist

    limit = timedelta(seconds=timeout)
    file = _meeting_file()
    if world.is_main:
        store = dist.TCPStore("127.0.0.1", 0, world.size, True, timeout=limit, wait_for_workers=False)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_text(str(store.port))
        os.replace(partial, file)
        return store
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            port = file.read_text()
            if _answers("127.0.0.1", port):
                return dist.TCPStore("127.0.0.1", int(port), world.size, False, timeout=limit)
        time.sleep(0.05)
    raise ValueError(f"rank {world.rank} of {world.size} did not meet rank 0 within --dist_timeout {timeout:g} seconds")


def _answers(address: str, port: str) -> bool:
    """Tell if anyone listens there: torch itself would try for several times its timeout, and print stack traces."""
    try:
        socket.create_connection((address, int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def forget_meeting() -> None:
    """Remove what processes on one node met by."""
    _meeting_file().unlink(missing_ok=True)


def _meeting_file() -> Path:
    """Return one path for all processes that a launcher has started on a node, and for no others."""
    pid, started = os.getppid(), ""
    with contextlib.suppress(OSError, IndexError):
        # Processes may be started through scripts: the launcher's own process is further up.
        found = (each for each, name in machine.ancestors(pid) if LAUNCHER_PROGRAMS.search(name))
        pid = next(found, pid)
        started = machine.start_time(pid)  # else numbers come again
    return Path(tempfile.gettempdir()) / f"stay_diffusion-{machine.user_id()}-{pid}-{started}"


def _address_by_slurm() -> tuple[str, int]:
    """Return the first node of the step, and a port that follows from the job's number."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])
    if not first:
        raise ValueError("SLURM_STEP_NODELIST: empty; set MASTER_ADDR and MASTER_PORT")
    job = int(os.environ.get("SLURM_JOB_ID", "0")) * 7 + int(os.environ.get("SLURM_STEP_ID", "0"))
    return first, 20000 + job % 20000


def _address_by_mpi(world: World) -> tuple[str, int]:
    """Return rank 0's address and a free port there, broadcast by MPI."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py without an MPI library
        raise ValueError(
            f"processes on several nodes meet through mpi4py ({error}), or at MASTER_ADDR and MASTER_PORT: set these"
        ) from None
    found = MPI.COMM_WORLD.Get_size()
    if found != world.size:
        library = MPI.Get_library_version().splitlines()[0].partition(",")[0]
        raise ValueError(
            f"{world.launcher} started {world.size} processes, but mpi4py's library ({library}) sees {found}: use the "
            "mpiexec that belongs to it, or set MASTER_ADDR and MASTER_PORT"
        )
    place = None
    if world.is_main:
        with socket.socket() as listening:
            listening.bind(("", 0))
            place = _own_address(), listening.getsockname()[1]
    return MPI.COMM_WORLD.bcast(place, root=0)


def _own_address() -> str:
    """Return this machine's number, or its name where its number is one that means every machine itself."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return name
    return name if address.startswith("127.") else address  # Debian's /etc/hosts: 127.0.1.1


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ValueError(f"{name}={environment[name]}: not a number") from None


def _tasks_per_node(environment: Mapping[str, str]) -> str:
    """Return the tasks of the node of a Slurm step that has most: 4 of "3(x2),4"."""
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        return environment["SLURM_STEP_NUM_TASKS"]
    return max(re.findall(r"(?<![x\d])\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", "")), key=int, default="")
