"""Pictures inside a page: crops around boxes and whole ones made smaller, as data URIs of bounded size."""

import base64
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...data.images import Range, read_picture
from ..render import Corners

CONTEXT = 2.0  # sides of a crop over the longer side of its box
LEAST_CROP = 24  # pixels; smaller ones would show no surroundings
CROP_SIDE, WHOLE_SIDE = 256, 800  # pixels of the longer side, at most, on the page
LOSSLESS = 128 * 128  # pixels up to which every one is kept, and shown as a square
QUALITY = 85
# What all crops and all whole pictures may take together; as text in the page it is a third more.
CROPS_BYTES, WHOLES_BYTES = 5_000_000, 5_000_000
CROP_BYTES, WHOLE_BYTES = 60_000, 150_000  # at most for one
SHRINK, LEAST_SIDE = 0.8, 16


class Embedded(NamedTuple):
    """A picture for a page: its address, the width and height that it shows, and in [0, 1] of these the box."""

    uri: str
    width: float
    height: float
    box: Corners = (0, 0, 1, 1)
    sharp: bool = False  # shows its pixels as squares


def read_small(path: Path, value_range: Range | None) -> Image.Image:
    """Any picture in 8 bits, upright, L or RGB; ImageError where it cannot be read."""
    image = read_picture(path, 3, value_range=value_range).image
    return image.convert("L") if image.mode == "F" else image


def crop_around(image: Image.Image, box: Corners, most_bytes: int = CROP_BYTES) -> Embedded:
    """The box, in pixels of the picture, with its surroundings."""
    x0, y0, x1, y1 = (
        max(0.0, min(edge, side)) for edge, side in zip(box, (image.width, image.height) * 2, strict=True)
    )
    side = math.ceil(max(LEAST_CROP, CONTEXT * max(x1 - x0, y1 - y0)))
    left, right = _stretch((x0 + x1) / 2, side, image.width)
    top, bottom = _stretch((y0 + y1) / 2, side, image.height)
    width, height = right - left, bottom - top
    cut = image.crop((left, top, right, bottom))
    inside = ((x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height)
    return Embedded(*_encoded(cut, CROP_SIDE, most_bytes), box=inside, sharp=_is_small(cut))


def whole(image: Image.Image, side: int = WHOLE_SIDE, most_bytes: int = WHOLE_BYTES) -> Embedded:
    return Embedded(*_encoded(image, side, most_bytes), sharp=_is_small(image))


def share(all_bytes: int, number: int, most: int) -> int:
    """Return the bytes that each of `number` pictures may take."""
    return min(most, all_bytes // max(1, number))


def pixels(box: Iterable[float], image: Image.Image) -> Corners:
    """A box in [0, 1] in pixels of a picture."""
    x0, y0, x1, y1 = box
    return x0 * image.width, y0 * image.height, x1 * image.width, y1 * image.height


def _stretch(centre: float, side: int, most: int) -> tuple[int, int]:
    """`side` pixels around the centre, moved into 0..most; all of these where they are fewer."""
    start = max(0, min(math.floor(centre - side / 2 + 0.5), most - side))
    return start, min(start + side, most)


def _encoded(image: Image.Image, side: int, most_bytes: int) -> tuple[str, int, int]:
    """Made smaller until it takes no more than `most_bytes`; its address, and the width and height before."""
    small = _within(image, side)
    data, kind = _file(small, is_whole=small.size == image.size)
    while len(data) > most_bytes and max(small.size) > LEAST_SIDE:
        small = _within(small, int(SHRINK * max(small.size)))
        data, kind = _file(small, is_whole=False)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", image.width, image.height


def _within(image: Image.Image, side: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _file(image: Image.Image, is_whole: bool) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    if is_whole and _is_small(image):
        image.save(buffer, format="png", optimize=True)
        return buffer.getvalue(), "png"
    image.save(buffer, format="jpeg", quality=QUALITY, optimize=True)
    return buffer.getvalue(), "jpeg"


def _is_small(image: Image.Image) -> bool:
    return image.width * image.height <= LOSSLESS
