"""The command of this name."""

from ..detector.copy_paste import main

__all__ = ["main"]
