"""How benchmarks measure: routes in turn (A B A B), ratios within each round, medians with their spread, one table.

A figure is a ratio of two routes of one process, or of paired processes, never a time: machines differ, and a machine
is not as fast now as it was a minute ago.
"""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

AT_MOST, AT_LEAST = "at most", "at least"


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio against its target.

    `low` and `high` are the least and the most of the rounds; `held` says what the two routes' results were compared
    with, and what came of it. Without a `ratio` the row was not measured, and `note` says why.
    """

    number: str
    what: str
    sense: str
    target: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    protocol: str = ""
    held: str = ""
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        assert self.sense in (AT_MOST, AT_LEAST)

    def agrees(self, other: "Row") -> bool:
        """Whether two runs' spreads meet; without a spread, as of counted bytes, whether they differ by 1 % at most."""
        bounds = [
            (row.low, row.high) if row.low is not None else (0.995 * row.ratio, 1.005 * row.ratio)
            for row in (self, other)
        ]
        return max(low for low, _ in bounds) <= min(high for _, high in bounds)

    @property
    def verdict(self) -> str:
        """met, missed or not measured."""
        if self.ratio is None:
            return "not measured"
        return (
            "met" if (self.ratio <= self.target if self.sense == AT_MOST else self.ratio >= self.target) else "missed"
        )


def in_turn(routes: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each route in each round, the routes taking turns; every other round in the opposite order.

    A route on a GPU waits for it before it returns.
    """
    for _ in range(warm_up):
        for action in routes.values():
            action()
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    gc.collect()
    gc.disable()  # a collection would fall on whoever is timed
    try:
        for i in range(rounds):
            for name in list(routes) if i % 2 == 0 else reversed(routes):
                started = time.perf_counter()
                routes[name]()
                seconds[name].append(time.perf_counter() - started)
    finally:
        gc.enable()
    return seconds


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float, float]:
    """The median of the rounds' own ratios, the least and the most of them."""
    ratios = [n / d for n, d in zip(numerators, denominators, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def same(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float, what: str) -> str:
    """Says by how much two results differ, relative to their size; ValueError where that is more than tolerated.

    A benchmark of two routes that do not do the same is worth nothing.
    """
    error = ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()
    if not error <= tolerance:
        raise ValueError(f"{what}: the two routes differ by {error:.1e}, more than {tolerance:g}")
    return f"{what} differ by {error:.1e} (tolerance {tolerance:g})"


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or _processor(),
        "cores": len(_cores()),
        "threads": torch.get_num_threads(),
        "load": round(_load(), 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| # | what | measured | least to most | target | |", "|---|---|---|---|---|---|"]
    for row in rows:
        measured = f"{row.ratio:.3g}" if row.ratio is not None else row.note
        spread = f"{row.low:.3g} to {row.high:.3g}" if row.low is not None else ""
        lines.append(
            f"| {row.number} | {row.what} | {measured} | {spread} | {row.sense} {row.target:g} | {row.verdict} |"
        )
    return "\n".join(lines) + "\n"


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
