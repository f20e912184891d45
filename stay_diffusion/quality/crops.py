"""Square crops around boxes: an object and what is around it at one size, whatever its own and its picture's."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SIDE = 32  # pixels of a crop, S
RIM = 4  # pixels kept around a crop, from which shifted and scaled ones are drawn
CONTEXT = 2.0  # side of what a crop shows, in longer sides of its box
LEAST = 4.0  # pixels of the picture that a box's longer side counts at least

Inside = tuple[int, int, int, int]  # top left bottom right: the pixels of a crop with its rim that the picture has


class Crop(NamedTuple):
    """A crop with its rim, (C, P, P) uint8, and which of its pixels are the picture's; others repeat its edges."""

    pixels: NDArray[np.uint8]
    inside: Inside


def cut(image: Image.Image, box: NDArray | tuple[float, ...], channels: int) -> Crop:
    """The square around a box, x0 y0 x1 y1 in pixels of a picture of mode L, RGB or F (0..255), which it may leave.

    Averaged where it is made smaller, so that nothing aliases.
    """
    x0, y0, x1, y1 = (float(edge) for edge in box)
    P = SIDE + 2 * RIM
    side = max(x1 - x0, y1 - y0, LEAST) * CONTEXT * P / SIDE
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2

    # What the picture has of the square, first made smaller by whole numbers: a square may be larger than its picture.
    W, H = image.size
    l, r = _within(left, side, W)
    t, b = _within(top, side, H)
    factor = max(1, int(side / (2 * P)))
    part = np.asarray(image.reduce(factor, box=(l, t, r, b)))
    left, top, side = (left - l) / factor, (top - t) / factor, side / factor
    rows, columns = part.shape[:2]
    before_x, after_x = _missing(left, side, columns)
    before_y, after_y = _missing(top, side, rows)
    padding = ((before_y, after_y), (before_x, after_x), (0, 0))[: part.ndim]
    padded = Image.fromarray(np.pad(part, padding, mode="edge"))
    # min: rounding may lead out of the picture by a trillionth.
    x, y = left + before_x, top + before_y
    square = (x, y, min(x + side, padded.width), min(y + side, padded.height))
    pixels = np.asarray(padded.resize((P, P), Image.Resampling.BILINEAR, box=square))
    pixels = np.round(pixels).clip(0, 255).astype(np.uint8)  # of mode F

    inside = (*_shown(top, side, rows, P), *_shown(left, side, columns, P))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return Crop(np.broadcast_to(pixels, (channels, P, P)), (inside[0], inside[2], inside[1], inside[3]))


def without_rim(crops: Tensor) -> Tensor:
    """The crops (..., S, S) within their rims (..., P, P)."""
    return crops[..., RIM:-RIM, RIM:-RIM]


def within_rim(inside: Inside) -> Inside:
    """The same in pixels of the crop within its rim, which they may lie outside of."""
    top, left, bottom, right = inside
    return top - RIM, left - RIM, bottom - RIM, right - RIM


def ended_at(crops: Tensor, inside: Inside) -> Tensor:
    """Crops (N, C, S, S) as if their pictures ended where `inside`, in their pixels, says."""
    top, left, bottom, right = inside
    rows = torch.arange(SIDE).clamp(min(max(top, 0), SIDE - 1), min(max(bottom, 1), SIDE) - 1)
    columns = torch.arange(SIDE).clamp(min(max(left, 0), SIDE - 1), min(max(right, 1), SIDE) - 1)
    return crops[..., rows[:, None].to(crops.device), columns.to(crops.device)]


def _within(start: float, side: float, length: int) -> tuple[int, int]:
    """The whole pixels of an axis of `length` that a square touches; where it touches none, the nearest one."""
    low = min(max(int(np.floor(start)), 0), length - 1)
    return low, max(min(int(np.ceil(start + side)), length), low + 1)


def _missing(start: float, side: float, length: int) -> tuple[int, int]:
    """How many pixels a square needs before and after an axis."""
    return max(int(np.ceil(-start)), 0), max(int(np.ceil(start + side - length)), 0)


def _shown(start: float, side: float, length: int, P: int) -> tuple[int, int]:
    """From which to which of P pixels their centres lie on the axis; at least one."""
    low = int(np.ceil(-start * P / side - 0.5))
    high = int(np.ceil((length - start) * P / side - 0.5))
    low = min(max(low, 0), P - 1)
    return low, max(min(high, P), low + 1)
