"""The one place for what operating systems do differently: file locks, /proc, network interfaces, signals.

Linux has all of it. Elsewhere each function falls back as its docstring says, so that every command runs on Windows.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


def lock_file(path: Path, wait: bool) -> AbstractContextManager[object]:
    """Lock a file until the result is closed or this process ends; BlockingIOError where another has it, unless `wait`.

    A POSIX record lock, which forked workers do not inherit; filelock's where there are none. Locks nothing on a file
    system without locks.
    """
    try:
        import fcntl
    except ImportError:
        return _lock_without_fcntl(path, wait)
    file = open(path, "w")  # noqa: SIM115, closing it would release the lock
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks
    return file


def _lock_without_fcntl(path: Path, wait: bool) -> AbstractContextManager[object]:
    from filelock import FileLock, Timeout

    try:
        return FileLock(path).acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise BlockingIOError(str(path)) from None


def usable_cores() -> int:
    """Count the processor cores that this process may use; all of them where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_memory() -> int:
    """Return the machine's memory in bytes; sys.maxsize where the system does not say."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else sys.maxsize


def free_memory() -> int:
    """Return the bytes that a new program could take; outside Linux, all of the machine's."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return physical_memory()


def ancestors(pid: int) -> Iterator[tuple[int, str]]:
    """Yield number and name of a process, of its parent and so on; OSError where the system does not say."""
    while pid > 1:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        yield pid, name
        pid = int(rest.split()[1])


def start_time(pid: int) -> str:
    """Return when a process started, in the system's ticks; OSError where the system does not say."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def user_id() -> str:
    """Return what tells this user from others on the machine."""
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "")


def interface_towards(address: str) -> str | None:
    """Return the name of this node's network interface that leads to an address; None if unknown or this node's own."""
    with contextlib.suppress(OSError, ImportError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        import fcntl

        asking.connect((address, 9))  # sends nothing
        own = socket.inet_aton(asking.getsockname()[0])
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # one without an address
                request = struct.pack("256s", name.encode())
                if fcntl.ioctl(asking, SIOCGIFADDR, request)[20:24] == own and not own.startswith(b"\x7f"):
                    return name
    return None


def kill_workers() -> None:
    """Kill this process's workers at once; torch's handler does not call their end an error."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        worker.kill()
