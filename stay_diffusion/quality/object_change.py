"""Object change: share of a sample's change around a box, against its twin without objects, that lies in the box."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.annotations import RelativeBox
from .crops import CONTEXT

UNNOTICED = 2.0  # grey levels of 255


def object_changes(image: Image.Image, twin: Image.Image, objects: Sequence[RelativeBox]) -> list[float]:
    """Compute d_in / (d_in + d_around + 2) for each box in [0, 1]: of the change in and around a box, the share in it.

    d_in is the mean absolute difference, in grey levels of 255, between a sample and its twin, made of the same noise
    without objects, over the box; d_around that over the square of twice its longer side around it, less all boxes. 0
    where nothing changed in the box, 0.5 at most where as much changed around it, near 1 where nothing else did.
    Both images are of mode L, RGB or F (0..255).
    """
    if image.size != twin.size:
        raise ValueError(f"a sample of {image.size} pixels and its good part of {twin.size}: not of the same layout")
    W, H = image.size
    edges = [box.pixels(W, H).edges for box in objects]
    spans = [_span(each, W, H) for each in edges]
    found = []
    for own, (x0, y0, x1, y1) in zip(edges, spans, strict=True):
        left, top, right, bottom = _span(_square(own), W, H)
        difference = _difference(image, twin, (min(left, x0), min(top, y0), max(right, x1), max(bottom, y1)))
        left, top = min(left, x0), min(top, y0)
        around = np.ones(difference.shape, dtype=bool)
        for u0, v0, u1, v1 in spans:
            around[max(v0 - top, 0) : max(v1 - top, 0), max(u0 - left, 0) : max(u1 - left, 0)] = False
        d_in = difference[y0 - top : y1 - top, x0 - left : x1 - left].mean()
        d_around = difference[around].mean() if around.any() else 0.0
        found.append(float(d_in / (d_in + d_around + UNNOTICED)))
    return found


def _square(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) * CONTEXT / 2
    return x - half, y - half, x + half, y + half


def _span(box: tuple[float, float, float, float], W: int, H: int) -> tuple[int, int, int, int]:
    """Return the pixels of an image whose centres lie in a box, at least one each way."""
    x0, y0, x1, y1 = (int(np.ceil(edge - 0.5)) for edge in box)
    x0, y0 = min(max(x0, 0), W - 1), min(max(y0, 0), H - 1)
    return x0, y0, max(min(x1, W), x0 + 1), max(min(y1, H), y0 + 1)


def _difference(image: Image.Image, twin: Image.Image, window: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Return the mean over channels of the absolute difference (h, w)."""
    first, second = (np.asarray(picture.crop(window), dtype=np.float64) for picture in (image, twin))
    difference = np.abs(first - second)
    return difference.mean(axis=-1) if difference.ndim == 3 else difference
