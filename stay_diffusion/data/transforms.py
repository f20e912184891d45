"""Which part of a picture the model sees, cut out of the picture and mapped onto its boxes together.

A crop policy answers with a window: x0 y0 x1 y1 in pixels of the source, shown on the whole size x size output.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import DataConfig
from .images import Picture, Window

CropPolicy = Callable[[int, int, NDArray, int, np.random.Generator], Window]

RANDOM_CROP_SHARE = 0.8  # the least share of the short side that a random crop shows, as in guided-diffusion
SPARE = 2  # how many times larger than shown a picture stays when it is made smaller before it is cut
ROUNDING = 1e-6
NO_BOXES = np.zeros((0, 4))
UNUSED = np.random.default_rng(0)  # for policies that draw nothing


class Framing(NamedTuple):
    """Which window of a picture is seen, mirrored or not, and what of its boxes.

    `boxes` (n, 4) float32 in [0, 1] of the window, and `kept`, their places in the source's boxes.
    """

    window: Window
    mirrored: bool
    boxes: NDArray[np.float32]
    kept: NDArray[np.int64]


class Cut(NamedTuple):
    """A framing and the picture in it; `window` and `mirrored` serve what else belongs to the picture."""

    image: Image.Image
    boxes: NDArray[np.float32]
    kept: NDArray[np.int64]
    window: Window
    mirrored: bool


def whole(width: int, height: int, boxes: NDArray, size: int, rng: np.random.Generator) -> Window:
    """The whole picture, its shape given up."""
    return 0, 0, width, height


def center_square(width: int, height: int, boxes: NDArray, size: int, rng: np.random.Generator) -> Window:
    """The largest square in the middle."""
    side = min(width, height)
    return _square((width - side) // 2, (height - side) // 2, side)


def random_square(width: int, height: int, boxes: NDArray, size: int, rng: np.random.Generator) -> Window:
    """A square of 0.8 to 1 of the short side, anywhere."""
    side = min(width, height) * rng.uniform(RANDOM_CROP_SHARE, 1)
    return _square(rng.uniform(0, width - side), rng.uniform(0, height - side), side)


def anywhere(width: int, height: int, boxes: NDArray, size: int, rng: np.random.Generator) -> Window:
    """A window of the output's own size at random; the largest square that fits in a smaller picture."""
    side = min(size, width, height)
    return _square(
        int(rng.integers(width - side, endpoint=True)), int(rng.integers(height - side, endpoint=True)), side
    )


def around_object(width: int, height: int, boxes: NDArray, size: int, rng: np.random.Generator) -> Window:
    """A window of the output's own size around an object drawn at random, or anywhere where there is none.

    The object lies wholly in the window, or, larger than it, fills it. In a picture with a side below `size` the
    window is the largest square that fits.
    """
    if len(boxes) == 0:
        return anywhere(width, height, boxes, size, rng)
    side = min(size, width, height)
    x0, y0, x1, y1 = boxes[rng.integers(len(boxes))]
    return _square(_start(x0, x1, side, width, rng), _start(y0, y1, side, height, rng), side)


CROP_POLICIES: dict[str, CropPolicy] = {
    "resize": whole,
    "center": center_square,
    "random": random_square,
    "object": around_object,
}

# The least share of the short side that a policy shows; the others show some pixels as they are.
SHOWN: dict[CropPolicy, float] = {whole: 1.0, center_square: 1.0, random_square: RANDOM_CROP_SHARE}
FIXED = (whole, center_square)  # those that always show the same of a picture


def reduction(width: int, height: int, policy: CropPolicy, size: int) -> int:
    """The largest power of 2 by which a picture may be made smaller before `policy` cuts it to `size`."""
    least = SHOWN.get(policy, 0) * min(width, height)
    return 2 ** max(0, int(math.log2(max(least / (SPARE * size), 1))))


def cut_once(picture: Picture, policy: CropPolicy, size: int) -> Picture:
    """A picture of which `policy` always shows the same, already cut to `size`; others as they are."""
    if policy not in FIXED:
        return picture
    window = policy(picture.width, picture.height, NO_BOXES, size, UNUSED)
    return picture._replace(image=cut_image(picture, window, size), shown=window)


def frame(
    width: int,
    height: int,
    boxes: NDArray,
    policy: CropPolicy,
    size: int,
    data: DataConfig,
    rng: np.random.Generator,
) -> Framing:
    """What is seen of a picture with boxes (N, 4), in pixels, mirrored half of the time with --random_flip.

    A box is kept if at least one output pixel each way is seen and the share --min_visible of its area (of an object
    larger than the view: of what the view can hold).
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    window = policy(width, height, boxes, size, rng)
    boxes = map_boxes(boxes, window)
    mirrored = data.random_flip and rng.random() < 0.5
    if mirrored:
        boxes = mirror_boxes(boxes)
    kept = np.flatnonzero(is_visible(boxes, size, data.min_visible))
    return Framing(window, mirrored, boxes[kept].astype(np.float32), kept)


def apply(
    picture: Picture,
    boxes: NDArray,
    policy: CropPolicy,
    size: int,
    data: DataConfig,
    rng: np.random.Generator,
) -> Cut:
    """Crops a picture and its boxes, in pixels of the file, to size x size as `frame` says."""
    framing = frame(picture.width, picture.height, boxes, policy, size, data, rng)
    image = cut_image(picture, framing.window, size)
    if framing.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Cut(image, framing.boxes, framing.kept, framing.window, framing.mirrored)


def cut_image(picture: Picture, window: Window, size: int) -> Image.Image:
    """The window of the picture as size x size; Pillow widens the bicubic filter when shrinking, so nothing aliases."""
    (width, height), (left, top, right, bottom) = picture.image.size, picture.shown
    columns, rows = width / (right - left), height / (bottom - top)
    x0, y0, x1, y1 = window
    # min: rounding may lead out of the picture by a trillionth.
    box = ((x0 - left) * columns, (y0 - top) * rows, min((x1 - left) * columns, width), min((y1 - top) * rows, height))
    return picture.image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def cut_map(ids: NDArray, window: Window, size: int, mirrored: bool) -> NDArray:
    """The window of a map (H, W) as size x size: at each pixel's centre the id there, so that ids stay ids."""
    x0, y0, x1, y1 = window
    centres = (np.arange(size) + 0.5) / size
    columns, rows = (x0 + centres * (x1 - x0)).astype(int), (y0 + centres * (y1 - y0)).astype(int)
    return ids[rows[:, None], columns[::-1] if mirrored else columns]


def map_boxes(boxes: NDArray, window: Window) -> NDArray:
    """Boxes in pixels (N, 4) to [0, 1] of the window's sides; what lies outside of the window stays outside."""
    x0, y0, x1, y1 = window
    return (boxes - (x0, y0, x0, y0)) / (x1 - x0, y1 - y0, x1 - x0, y1 - y0)


def mirror_boxes(boxes: NDArray) -> NDArray:
    """Boxes in [0, 1] left to right: x0, x1 -> 1 - x1, 1 - x0."""
    x0, y0, x1, y1 = boxes.T
    return np.stack([1 - x1, y0, 1 - x0, y1], axis=1)


def is_visible(boxes: NDArray, size: int, least_share: float) -> NDArray[np.bool_]:
    """Which boxes in [0, 1] show `least_share` of what could be seen of them, and one of `size` pixels, (N,)."""
    seen, drawn = visible_sides(boxes), boxes[:, 2:] - boxes[:, :2]
    # Of an object larger than the window only so much can be seen at best: one that fills the view is not lost.
    most = drawn.clip(max=1).prod(axis=1)
    enough = seen.prod(axis=1) >= (least_share - ROUNDING) * most
    return enough & (seen * size >= 1 - ROUNDING).all(axis=1)


def visible_sides(boxes: NDArray) -> NDArray:
    """Width and height (N, 2) of what boxes in [0, 1] show inside of the picture."""
    inside = boxes.clip(0, 1)
    return inside[:, 2:] - inside[:, :2]


def _square(x0: float, y0: float, side: float) -> Window:
    return float(x0), float(y0), float(x0 + side), float(y0 + side)


def _start(low: float, high: float, side: int, length: int, rng: np.random.Generator) -> int:
    """Where a window of `side` starts on an axis of `length`: in whole pixels, so that unscaled ones stay exact."""
    # Starts from high - side to low contain the object; where it is the larger one, low to high - side lie within it.
    first, last = math.ceil(min(low, high - side)), math.floor(max(low, high - side))
    first, last = (min(max(start, 0), length - side) for start in (first, last))
    return int(rng.integers(min(first, last), max(first, last), endpoint=True))
