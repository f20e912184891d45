"""Compute several metrics of one comparison; say why others cannot be had."""

from collections.abc import Sequence
from pathlib import Path

from ..system.distributed import gather
from .metrics.diversity import IDENTICAL, all_groups
from .options import KNOWN
from .protocols import check
from .registry import METRICS


def measure(comparison, names: Sequence[str]) -> tuple[list, dict[str, str]]:
    """The figures of the metrics in their order, on the first process, and why others could not be computed."""
    assert tuple(METRICS) == KNOWN
    missing = {name: reason for name in names if (reason := why_not(METRICS[name].check, comparison))}
    missing = {name: reason for found in gather(missing) for name, reason in found.items()}  # of any process
    possible = [name for name in names if name not in missing]
    comparison.kinds = list(dict.fromkeys(kind for name in possible for kind in METRICS[name].kinds))
    figures = []
    for name in possible:
        gathered = METRICS[name].gather(comparison)
        if comparison.world.is_main:
            try:
                figures += METRICS[name].figures(comparison, gathered)
            except ValueError as error:
                missing[name] = str(error)
    return figures, missing


def why_not(check, comparison) -> str:
    """Why a metric cannot be had, or ""."""
    try:
        check(comparison)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: pip install 'stay-diffusion[eval]'"
    except ValueError as error:
        return str(error)
    return ""


def zero_diversity(figures: Sequence) -> list[str]:
    """Layouts whose images do not differ at all."""
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


def check_protocol(comparison) -> None:
    options = comparison.options
    groups = all_groups(Path(options.samples)) if Path(options.samples).is_dir() else []
    check(options.protocol, comparison.samples, comparison.given_reference, groups, options.image_size)
