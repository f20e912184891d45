"""Which device a run uses, and in which precision."""

import contextlib
import functools
import logging

import torch

from .launchers import ALONE, World

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "", world: World = ALONE) -> torch.device:
    """The named device, or this process's own GPU if there is one; ValueError if the named one is not there.

    Processes on one node take its GPUs in their order; ValueError where there are more of them than GPUs.
    """
    if not name:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if world.local_size > torch.cuda.device_count():
            raise ValueError(
                f"{world.local_size} processes on this node but {torch.cuda.device_count()} GPUs: start fewer, "
                "or empty CUDA_VISIBLE_DEVICES for the CPU"
            )
        if world.size == 1:
            return torch.device("cuda")
        torch.cuda.set_device(world.local_rank)
        return torch.device("cuda", world.local_rank)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from None
    return device


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


def autocast(device: torch.device, precision: str):
    """The context in which the network runs."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, AUTOCAST_DTYPES[precision])
