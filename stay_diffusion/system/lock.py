"""Folders that one process at a time may write to."""

import contextlib
import fcntl
from pathlib import Path

_held: list = []  # open lock files


def lock(folder: Path) -> None:
    """Takes a folder for this process until it ends, however it ends; ValueError if another process has it.

    A record lock: the loader's workers, forked from this process, do not inherit it.
    """
    file = open(folder / ".lock", "w")  # noqa: SIM115, closing it would release the lock
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder}: another process is writing to this folder") from None
    except OSError:
        return  # a file system without locks
    _held.append(file)


@contextlib.contextmanager
def one_at_a_time(folder: Path):
    """Waits until no other process is in such a block for this folder."""
    with open(folder / ".turn", "w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
