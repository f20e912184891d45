"""Folders that one process at a time may write to."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .machine import lock_file

_held: list[object] = []  # locks, until this process ends


def lock(folder: Path) -> None:
    """Take a folder for this process until it ends, however it ends; ValueError if another process has it."""
    try:
        _held.append(lock_file(folder / ".lock", wait=False))
    except BlockingIOError:
        raise ValueError(f"{folder}: another process is writing to this folder") from None


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this folder."""
    with lock_file(folder / ".turn", wait=True):
        yield
