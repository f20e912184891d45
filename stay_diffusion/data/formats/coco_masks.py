"""COCO's run-length code of a mask, byte for byte as pycocotools writes it."""

import numpy as np
from numpy.typing import NDArray


def encode(mask: NDArray[np.bool_]) -> dict:
    """{"size": [H, W], "counts": text} of a mask (H, W): the lengths of its runs, column by column, first of zeros."""
    pixels = mask.ravel(order="F")
    edges = np.concatenate(([0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, [pixels.size]))
    runs = np.diff(edges).tolist()
    return {"size": [*mask.shape], "counts": _text([0, *runs] if pixels[0] else runs)}


def _text(runs: list[int]) -> str:
    """From the fourth, each as its difference from the one before the last; five bits to a letter, low ones first."""
    letters = []
    for i, run in enumerate(runs):
        rest, more = (run - runs[i - 2] if i > 2 else run), True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)  # until what is left is the sign alone
            letters.append(chr(48 + (bits | 32 if more else bits)))
    return "".join(letters)
