"""A profiler's trace of training steps taken apart: the parts of a step, on the host and on the device."""

import bisect
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .train_loop import PARTS

STEP = "ProfilerStep#"  # how torch.profiler names a step
REST = "rest"
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
CALLS = ("cuda_runtime", "cuda_driver")
SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
ROUNDING = 1.0  # microseconds


@dataclass(frozen=True)
class Part:
    """Seconds of the host in a part of one step, seconds of the device on work launched then, number of waits."""

    host: float
    device: float
    syncs: float


def read_trace(path: Path) -> list[dict]:
    """The events of a trace in Chrome's format, gzipped if its name says so."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return json.load(file)["traceEvents"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as a trace ({type(error).__name__}: {error})") from None


def parts_of(events: Sequence[dict]) -> dict[str, Part]:
    """The parts of the traced steps, by the loop's names for them, per step; they add up to the step, "rest" last.

    Work on the device belongs to the part in which the host launched it, on whichever of its threads: the backward
    pass has one of its own. Raises ValueError for a trace without steps.
    """
    spans = [event for event in events if event.get("ph") == "X"]
    steps = [_ends(event) for event in spans if _is_range(event) and event["name"].startswith(STEP)]
    if not steps:
        raise ValueError("the trace has no steps")
    first, last = min(begin for begin, _ in steps), max(end for _, end in steps)
    ranges = sorted(
        (max(begin, first), min(end, last), event["name"])
        for event in spans
        if _is_range(event) and event["name"] in PARTS
        for begin, end in [_ends(event)]
        if begin < last and end > first
    )
    assert all(a[1] <= b[0] + ROUNDING for a, b in pairwise(ranges)), "no two parts at once"
    begins = [begin for begin, _, _ in ranges]

    def part_at(time: float) -> str:
        place = bisect.bisect_right(begins, time) - 1
        return ranges[place][2] if place >= 0 and time < ranges[place][1] else REST

    host, device, syncs = (dict.fromkeys((*PARTS, REST), 0.0) for _ in range(3))
    for begin, end, name in ranges:
        host[name] += end - begin
    host[REST] = last - first - sum(host.values())
    launched = {}
    for event in spans:
        if event.get("cat") in CALLS and first <= event["ts"] < last:
            launched[event.get("args", {}).get("correlation")] = event["ts"]
            syncs[part_at(event["ts"])] += event["name"] in SYNCS
    for event in spans:
        if event.get("cat") in ON_DEVICE and (at := launched.get(event.get("args", {}).get("correlation"))):
            device[part_at(at)] += event["dur"]
    n = len(steps)
    return {name: Part(host[name] / n / 1e6, device[name] / n / 1e6, syncs[name] / n) for name in host}


def _is_range(event: dict) -> bool:
    return event.get("cat") == "user_annotation"  # gpu_user_annotation is the same once more, on the device


def _ends(event: dict) -> tuple[float, float]:
    return event["ts"], event["ts"] + event["dur"]
