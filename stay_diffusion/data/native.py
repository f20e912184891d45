"""Pictures at their own size and depth: as they are stored, as the model sees them, and changed here and there."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from .images import FORMATS, Range, opened, unreadable

Native = NDArray[np.uint8] | NDArray[np.uint16]  # (H, W) or (H, W, 3)

DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
GREY_SHARES = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow greys them


def read_native(path: Path) -> Native:
    """The upright picture with every value as stored: (H, W) for greys of 8 or 16 bits, (H, W, 3) for colours.

    Raises ImageError as read_image does, and for greys of other depths, which no PNG can hold.
    """
    try:
        with opened(path) as file, Image.open(file, formats=FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode in DEEP:
                return np.array(upright).astype(np.uint16)  # in the machine's byte order
            if upright.mode == "I" and image.format == "PNG":  # how some versions of Pillow open 16-bit greys
                return np.array(upright).astype(np.uint16)
            if upright.mode in ("I", "F"):
                raise ValueError(f"mode {upright.mode}: only 8- and 16-bit pictures can be changed")
            grey = upright.mode in ("L", "1", "LA")
            return np.array(upright.convert("L" if grey else "RGB"))
    except Exception as error:  # decoders raise nearly every type on broken files
        raise unreadable(path, error) from error


def to_picture(native: Native) -> Image.Image:
    """The same values as a Pillow picture of mode L, I;16 or RGB."""
    return Image.fromarray(native)


def seen_by_model(native: Native, channels: int, value_range: Range | None) -> Tensor:
    """(C, H, W) float32 in [-1, 1], as images.read_image and to_tensor make it; black and white as there."""
    black, white = levels(native, value_range)
    values = (torch.from_numpy(native.astype(np.float32)) - black) / (white - black) * 2 - 1
    values = values.clamp(-1, 1)
    if values.ndim == 3:
        values = values.permute(2, 0, 1)  # C H W
        if channels == 1:
            values = torch.tensordot(torch.tensor([GREY_SHARES]), values, dims=1)
        return values.contiguous()
    return values[None].repeat(channels, 1, 1)


def changed(native: Native, change: Tensor, place: tuple[slice, slice], value_range: Range | None) -> Native:
    """A copy with `change` (C, h, w), in the model's units, added at `place`; where it is 0 no value changes.

    Colours get a grey model's change in each channel, greys the mean of a colour model's.
    """
    black, white = levels(native, value_range)
    values = (change * ((white - black) / 2)).double()
    values = values.mean(dim=0) if native.ndim == 2 else values.expand(3, -1, -1).permute(1, 2, 0)  # h w, or h w 3
    limits = np.iinfo(native.dtype)
    result = native.copy()
    added = np.rint(native[place] + values.numpy()).clip(limits.min, limits.max).astype(native.dtype)
    result[place] = np.where(values.numpy() != 0, added, native[place])
    return result


def levels(native: Native, value_range: Range | None) -> tuple[float, float]:
    """The values that the model knows as black and white; `value_range` counts where there are more than 8 bits."""
    if native.dtype == np.uint16:
        return value_range or (0, 65535)
    return 0, 255
