"""The best averaged weights so far, those of ema_RATE_best.pt, and the value that they are the best by."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Best:
    """The best value of one figure, and the step that it is of; `by` "" is none yet."""

    by: str = ""
    value: float = math.inf
    step: int = 0

    def is_beaten(self, by: str, value: float, better: str = "lower") -> bool:
        """Tell whether a value is better; of another figure than so far the first one is."""
        if math.isnan(value):
            return False
        return by != self.by or (value < self.value if better == "lower" else value > self.value)
