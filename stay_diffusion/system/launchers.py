"""Which of several processes this one is under mpiexec, srun and torchrun, and how they find one another."""

import contextlib
import fcntl
import os
import re
import socket
import struct
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

# What each launcher calls rank, size, local rank, local size; tried in this order. Slurm also describes a plain sbatch,
# which is no launcher of processes: only a step (srun) has the first of its names.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "MVAPICH": (
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
}

SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


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
    """This process as its launcher's variables describe it; alone without any. ValueError where they make no sense."""
    names = {**LAUNCHERS}
    if "SLURM_STEP_ID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        names["srun"] = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")
    for launcher, (rank, size, local_rank, local_size) in names.items():
        if rank in environment and size in environment:
            if "srun" in names and local_rank not in environment and environment[size] == environment[names["srun"][1]]:
                continue  # srun --mpi=pmi2 sets MPICH's names too, but not those that tell the node's processes
            values = [_number(environment, name) for name in (rank, size)]
            on_node = _tasks_per_node(environment) if launcher == "srun" else environment.get(local_size)
            values.append(_number(environment, local_rank) if local_rank in environment else values[0])
            values.append(int(on_node) if on_node and str(on_node).isdecimal() else values[1])
            world = World(*values, launcher)
            if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
                raise ValueError(f"{launcher}: {rank}={world.rank} with {size}={world.size} cannot be")
            return world if world.size > 1 else ALONE
    return ALONE


def meet(world: World, timeout: float):
    """The key-value store that all processes share, held by rank 0; ValueError where they do not meet in time."""
    import torch.distributed as dist

    limit = timedelta(seconds=timeout)
    if not ("MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ):
        if not world.several_nodes:
            return _meet_on_node(world, timeout)
        address, port = _address_by_slurm() if world.launcher == "srun" else _address_by_mpi(world)
        os.environ.setdefault("MASTER_ADDR", address)
        os.environ.setdefault("MASTER_PORT", str(port))
    if world.several_nodes:
        _choose_interface(os.environ["MASTER_ADDR"])
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


def _meet_on_node(world: World, timeout: float):
    """Rank 0 listens on a free port of this machine and leaves its number where its siblings look."""
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
    """Whether anyone listens there: torch itself would try for several times its timeout, and print stack traces."""
    try:
        socket.create_connection((address, int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def forget_meeting() -> None:
    """Removes what processes on one node met by."""
    _meeting_file().unlink(missing_ok=True)


def _meeting_file() -> Path:
    """The same for all processes that a launcher has started on a node, and for no others."""
    pid = os.getppid()
    try:  # processes may be started through scripts: the launcher's own process is further up
        for ancestor in _ancestors(pid):
            if re.search(r"hydra|pmi_proxy|orted|prted|mpirun|mpiexec|slurmstepd", ancestor[1]):
                pid = ancestor[0]
                break
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # else numbers come again
    except (OSError, IndexError):
        started = ""
    return Path(tempfile.gettempdir()) / f"stay_diffusion-{os.getuid()}-{pid}-{started}"


def _ancestors(pid: int):
    """Number and name of a process, of its parent and so on."""
    while pid > 1:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        yield pid, name
        pid = int(rest.split()[1])


def _address_by_slurm() -> tuple[str, int]:
    """The first node of the step, and a port that follows from the job's number."""
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])
    if not first:
        raise ValueError("SLURM_STEP_NODELIST: empty; set MASTER_ADDR and MASTER_PORT")
    job = int(os.environ.get("SLURM_JOB_ID", "0")) * 7 + int(os.environ.get("SLURM_STEP_ID", "0"))
    return first, 20000 + job % 20000


def _address_by_mpi(world: World) -> tuple[str, int]:
    """Rank 0's address and a free port there, told to the others by MPI."""
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


def _choose_interface(address: str) -> None:
    """Tells gloo which of this node's networks leads to an address; by itself it takes that of the node's own name."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((address, 9))  # sends nothing
        own = socket.inet_aton(asking.getsockname()[0])
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # one without an address
                found = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()))[20:24]
                if found == own and not own.startswith(b"\x7f"):
                    os.environ["GLOO_SOCKET_IFNAME"] = name


def _own_address() -> str:
    """This machine's number, or its name where its number is one that means every machine itself."""
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
    """Of the node of a Slurm step that has most: 4 of "3(x2),4"."""
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        return environment["SLURM_STEP_NUM_TASKS"]
    return max(re.findall(r"(?<![x\d])\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", "")), key=int, default="")
