"""The interface of a metric: what `evaluate` calls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .comparison import Comparison
from .figures import Figure


@dataclass(frozen=True)
class Metric:
    """A metric in three steps; all processes take the first two, the first process alone the last.

    `check` raises ValueError or ModuleNotFoundError where the metric cannot be computed; `gather` does the work;
    `figures` turns its result into numbers. `kinds` are the features of whole images that it needs.
    """

    check: Callable[[Comparison], Any]
    gather: Callable[[Comparison], Any]
    figures: Callable[[Comparison, Any], list[Figure]]
    kinds: tuple[str, ...] = ()


def metric_of_features(
    kind: str, figures: Callable[[Comparison, Any], list[Figure]], with_reference: bool = True
) -> Metric:
    """Build a metric of one kind of features of both sides, or of the samples alone."""
    return Metric(
        check=lambda comparison: comparison.check_kind(kind, with_reference),
        gather=lambda comparison: comparison.pair(kind),
        figures=figures,
        kinds=(kind,),
    )
