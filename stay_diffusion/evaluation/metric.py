"""What evaluate.py asks of a metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .comparison import Comparison
from .figures import Figure


@dataclass(frozen=True)
class Metric:
    """In three steps, of which all processes take the first two and the first one alone the last.

    `check` raises ValueError or ModuleNotFoundError where the metric cannot be had; `gather` is the work; `figures`
    makes the numbers of it. `kinds` are the features of whole images that it wants.
    """

    check: Callable[[Comparison], Any]
    gather: Callable[[Comparison], Any]
    figures: Callable[[Comparison, Any], list[Figure]]
    kinds: tuple[str, ...] = ()
