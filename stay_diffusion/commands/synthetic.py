"""The command of this name."""

from ..data.synthetic import main

__all__ = ["main"]
