"""Compute several metrics of one comparison, with the reason for each that cannot be computed."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from ..system.distributed import gather
from .comparison import Comparison
from .figures import Figure
from .metric import Metric
from .metrics.lpips import IDENTICAL
from .registry import METRICS


def load_metric(name: str) -> Metric:
    """Import a metric; ModuleNotFoundError where a package that it needs is not installed."""
    return importlib.import_module(f"{__package__}.metrics.{METRICS[name]}").METRIC


def measure(comparison: Comparison, names: Sequence[str]) -> tuple[list[Figure], dict[str, str]]:
    """Return the figures of the metrics in their order, on the first process, and why others could not be computed."""
    metrics = {name: load_metric(name) for name in names}
    missing = find_missing(comparison, names)
    possible = {name: metric for name, metric in metrics.items() if name not in missing}
    comparison.kinds = list(dict.fromkeys(kind for metric in possible.values() for kind in metric.kinds))
    figures: list[Figure] = []
    for name, metric in possible.items():
        gathered = metric.gather(comparison)
        if comparison.world.is_main:
            try:
                figures += metric.figures(comparison, gathered)
            except ValueError as error:
                missing[name] = str(error)
    return figures, missing


def find_missing(comparison: Comparison, names: Sequence[str]) -> dict[str, str]:
    """Return the metrics that some process cannot compute, and why."""
    own = {name: reason for name in names if (reason := why_not(load_metric(name).check, comparison))}
    return {name: reason for found in gather(own) for name, reason in found.items()}


def why_not(check: Callable[[Comparison], Any], comparison: Comparison) -> str:
    """Return why a metric cannot be computed, or ""."""
    try:
        check(comparison)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: pip install 'stay-diffusion[eval]'"
    except ValueError as error:
        return str(error)
    return ""


def warn_of_identical(figures: Sequence[Figure]) -> list[str]:
    """Warn of layouts whose images do not differ at all."""
    found = []
    for figure in figures:
        layouts = figure.details.get("layouts", {})
        same = [name for name, of_layout in layouts.items() if of_layout["mean"] < IDENTICAL]
        if same:
            found.append(
                f"{len(same)} of {len(layouts)} layouts, {same[0]} first, have images that do not differ at all: were "
                "the runs sampled with one seed?"
            )
    return found
