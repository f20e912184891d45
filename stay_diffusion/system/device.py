"""Which device a run uses, and in which precision."""

import contextlib
import ctypes
import functools
import json
import logging

import torch

from .distributed import wait_for_all
from .launchers import ALONE, World

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "", world: World = ALONE) -> torch.device:
    """The named device, or this process's own GPU if there is one; ValueError if the named one is not there.

    Without a name all processes must call it: those that see the same GPUs take these in their order, and those that
    see one each take that. ValueError where there are more of them than GPUs.
    """
    keep_freed_memory()
    if not name and world.size == 1:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not name:
        own = json.dumps([world.local_rank, visible_gpus()])
        device = own_device(world.rank, [json.loads(told) for told in wait_for_all("gpus", own)])
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return device
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from None
    return device


def visible_gpus() -> list[str]:
    """The ids of the GPUs that this process sees, the same in all processes whatever each one calls them."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(num_gpus)]


def own_device(rank: int, of_all: list[tuple[int, list[str]]]) -> torch.device:
    """A process's own device, by the local rank and the visible GPUs of each; ValueError where one would be shared."""
    without = [other for other, (_, gpus) in enumerate(of_all) if not gpus]
    if len(without) == len(of_all):
        return torch.device("cpu")
    if without:
        raise ValueError(f"rank {', '.join(map(str, without))} of {len(of_all)} sees no GPU, but others do")
    taken: dict[str, int] = {}  # each GPU by whom
    for other in sorted(range(len(of_all)), key=lambda each: of_all[each][0]):
        gpus = of_all[other][1]
        free = [gpu for gpu in gpus if gpu not in taken]
        if not free:
            num_processes = sum(not set(gpus).isdisjoint(seen) for _, seen in of_all)
            raise ValueError(
                f"{num_processes} processes on this node but {len(gpus)} GPUs: start fewer, let each see one of its "
                "own, or empty CUDA_VISIBLE_DEVICES for the CPU"
            )
        taken[free[0]] = other
    (own,) = (gpu for gpu, other in taken.items() if other == rank)
    return torch.device("cuda", of_all[rank][1].index(own))


@functools.cache
def keep_freed_memory() -> None:
    """Lets the C library keep freed blocks, where it is glibc.

    By default it returns those of some megabytes, every feature map, to the system at once, which hands out the next
    one as zeroed pages, fault by fault: up to an eighth of a step on a CPU.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block comes straight from the system
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: hardly anything free at the end of the heap goes back


def resolve_precision(precision: str, use_fp16: bool, device: torch.device) -> str:
    """fp32, bf16 or fp16; "auto" is bf16 on GPUs that have it, else fp32.

    The tradition's commands, which all say `use_fp16`, run on a CPU too, in fp32; an explicit fp16 is refused there.
    """
    if use_fp16:
        if precision not in ("auto", "fp16"):
            raise ValueError(f"--use_fp16 True contradicts --precision {precision}")
        precision = "fp16" if device.type == "cuda" or precision == "fp16" else _instead_of_fp16()
    if precision == "fp16" and device.type != "cuda":
        raise ValueError("--precision fp16 needs a GPU; --precision bf16 and fp32 run everywhere")
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return precision


@functools.cache  # said once
def _instead_of_fp16() -> str:
    logging.warning("--use_fp16 True: there is no GPU here, so fp32")
    return "fp32"


def in_best_format(model: torch.nn.Module) -> torch.nn.Module:
    """The network itself, ready to sample: on a CPU its maps lie in memory pixel by pixel.

    Convolutions are faster then, below float32 above all. Not for training, which gains nothing in float32 and loses
    a tenth below. A GPU's group norm copies such maps.
    """
    if next(model.parameters()).device.type == "cpu":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    return model


def autocast(device: torch.device, precision: str):
    """The context in which the network runs."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, AUTOCAST_DTYPES[precision])
