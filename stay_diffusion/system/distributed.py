"""Start, count, fail and end together with the other processes of a run. Alone, nothing here does anything."""

import logging
import multiprocessing
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from . import machine
from .launchers import ALONE, World, find_world, forget_meeting, meet

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

LOOK_EVERY = 1.0  # seconds between looks at whether another process has failed
FAILED = "failed"

_world, _leaving = ALONE, threading.Event()
_store: "Store | None" = None


def joined() -> bool:
    return _store is not None


def _shared() -> "Store":
    """Return the key-value store of all processes, which have joined."""
    assert _store is not None
    return _store


def join(timeout: float) -> World:
    """Meet all processes of the launcher, or none; from then on an error of one ends all, and only rank 0 prints.

    ValueError, after `timeout` seconds at most, where they do not meet.
    """
    global _world, _store
    if _store is not None:
        return _world
    world = find_world()
    if world.size == 1:
        return world
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # else lost connections are told with stack traces
    if not world.is_main:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
        logging.getLogger().setLevel(logging.ERROR)
    _share_cores(world)
    store = meet(world, timeout)
    _world, _store = world, store
    threading.Thread(target=_watch, args=(timeout,), daemon=True).start()
    try:
        _wait_for_arrivals(timeout)
    finally:
        if world.is_main:
            forget_meeting()
    return world


def _wait_for_arrivals(timeout: float) -> None:
    store = _shared()
    store.set(f"here/{_world.rank}", "")
    deadline = time.monotonic() + timeout
    while missing := [rank for rank in range(_world.size) if not store.check([f"here/{rank}"])]:
        if time.monotonic() > deadline:
            ranks = ", ".join(map(str, missing))
            raise ValueError(f"rank {ranks} of {_world.size} did not arrive within --dist_timeout {timeout:g} seconds")
        time.sleep(0.05)


def start_group(world: World, device: "torch.device", timeout: float) -> None:
    """Start torch.distributed's process group: NCCL where the device is a GPU, else gloo."""
    import torch.distributed as dist

    if world.size == 1:
        return
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "cuda:nccl,cpu:gloo" if on_gpu else "gloo",
        store=dist.PrefixStore("group", _shared()),
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(seconds=timeout),
        device_id=device if on_gpu else None,
    )


def wait_for_all(name: str, value: str = "") -> list[str]:
    """Return what every process gave, by rank, once all have come here under this name, however long that takes.

    Needs no group, as `gather` does.
    """
    if _world.size == 1:
        return [value]
    names = [f"{name}/{rank}" for rank in range(_world.size)]
    store = _shared()
    store.set(names[_world.rank], value)
    while not store.check(names):
        time.sleep(0.05)
    return [store.get(each).decode() for each in names]


def sum_over_ranks(values: list[float]) -> list[float]:
    """Return each value summed over all processes, in float64."""
    import torch
    import torch.distributed as dist

    if _world.size == 1:
        return values
    summed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(summed)
    return summed.tolist()


def gather(value: Any) -> list:
    """Return what every process gave, by rank, on each of them: any object that can be pickled."""
    import torch.distributed as dist

    if _world.size == 1:
        return [value]
    gathered: list = [None] * _world.size
    dist.all_gather_object(gathered, value)
    return gathered


def gather_shares(name: str, own: dict[int, Any]) -> list:
    """Return what all processes have made of one numbered list, in its order; waits as wait_for_all does."""
    wait_for_all(name)
    return [value for _, value in sorted(each for share in gather(own) for each in share.items())]


def leave() -> None:
    """End cleanly: all processes wait for one another, so that none takes another's end for a failure."""
    global _world, _store
    if _store is None:
        return
    import gc

    import torch.distributed as dist

    wait_for_all("leaving")
    _leaving.set()
    if dist.is_initialized():
        gc.collect()  # the wrapped model holds the group: gloo aborts at random where it goes first
        dist.destroy_process_group()
    _store.set(f"left/{_world.rank}", "")
    if _world.is_main:  # which holds what the others meet in
        deadline = time.monotonic() + 10
        while not _store.check([f"left/{rank}" for rank in range(_world.size)]) and time.monotonic() < deadline:
            time.sleep(0.02)
    _world, _store = ALONE, None


def fail(message: str, speak: Callable[[], None]) -> None:
    """End this process and all others; of several that fail at once only the first calls `speak`. Alone: call it."""
    if _store is None:
        speak()
        return
    if _is_echo(message):
        # A broken connection is how another's end looks from here; its own words may be on their way.
        time.sleep(3 * LOOK_EVERY)  # _watch ends this process
        told = f"error: another process was killed or cannot be reached ({message.splitlines()[0][:200]})"
        speak = partial(print, told, file=sys.stderr, flush=True)
    _leaving.set()
    own = f"{_world.rank}\n{message}"
    try:
        is_first = _store.compare_set(FAILED, "", own).decode() == own
    except Exception:  # rank 0, which holds the store, is gone
        is_first = True
    if is_first:
        speak()
    time.sleep(2 * LOOK_EVERY)  # the others must get to read it, from rank 0 say
    end_now(1)


def _watch(timeout: float) -> None:
    """End this process soon after another has failed or fallen silent, wherever this one waits."""
    heard: dict[int, tuple[int, float]] = {}  # of each other rank its last sign of life, and when it came
    while not _leaving.wait(LOOK_EVERY):
        try:
            store = _shared()
            store.add(f"alive/{_world.rank}", 1)
            if _world.is_main:
                _listen(store, heard, timeout)
            if not store.check([FAILED]):
                continue
            rank, _, message = store.get(FAILED).decode().partition("\n")
        except Exception:
            rank, message = "0", "has ended"
        if _leaving.is_set():
            return
        if int(rank) != _world.rank:
            print(f"rank {_world.rank} ends with rank {rank}: {message}", file=sys.stderr, flush=True)
            time.sleep(2 * LOOK_EVERY * _world.is_main)  # whose end takes the store along
            end_now(1)


def _listen(store: "Store", heard: dict[int, tuple[int, float]], timeout: float) -> None:
    """Notice, on rank 0, a process that was killed where no launcher or collective operation does."""
    now = time.monotonic()
    for rank in range(1, _world.size):
        signs = store.add(f"alive/{rank}", 0)
        if heard.get(rank, (-1, 0.0))[0] != signs:
            heard[rank] = signs, now
        elif now - heard[rank][1] > timeout:
            store.set(FAILED, f"{rank}\nrank {rank} has not been heard of for --dist_timeout {timeout:g} seconds")


def end_now(code: int) -> NoReturn:
    """Exit without destructors, which would wait for processes that have ended."""
    for worker in multiprocessing.active_children():
        worker.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_echo(message: str) -> bool:
    return bool(re.search(r"onnection (closed|reset)|gloo|Gloo|NCCL|Broken pipe|peer", message))


def _share_cores(world: World) -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, machine.usable_cores() // world.local_size))
