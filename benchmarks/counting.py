"""What a piece of work takes by count, the same on every machine: floating-point operations and bytes of tensors."""

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from stay_diffusion.training.profiling import quiet_profiler

# torch counts attention on GPUs alone.
ATTENTION_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


def operations(action: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions and attention, forward and backward.

    A multiplication and an addition count as two; what goes element by element is not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_CPU) as counter:
        action()
    return counter.get_total_flops()


def peak_bytes(action: Callable[[], Any], device: torch.device) -> int:
    """The most bytes of tensors that exist at once in `action`, besides those that existed before it.

    On a CPU counted from the profiler's record of what is allocated and freed, not from the process's size, which
    never shrinks.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    gc.disable()  # when it frees what is in cycles should not decide
    try:
        with quiet_profiler(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            action()
    finally:
        gc.enable()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    events = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    own: dict[int, int] = {}  # what the action allocated, by address: the frees of older blocks are reported too
    present = most = 0
    for address, change in ((event["args"]["Addr"], event["args"]["Bytes"]) for event in events):
        if change > 0:
            own[address] = change
            present += change
        else:
            present -= own.pop(address, 0)
        most = max(most, present)
    return most
