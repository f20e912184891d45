"""The command of this name."""

from ..detector.score import main

__all__ = ["main"]
