"""The command of this name."""

from ..evaluation.metrics.box_adherence import main

__all__ = ["main"]
