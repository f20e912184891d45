"""Weak masks: the pixels that objects of a layout changed, found by comparison with the same image without them.

Nobody has drawn them: they are as good as the model keeps to its boxes, and miss what looks like the surface around it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.annotations import RelativeBox
from ..data.formats import coco_masks

SMOOTHING = 0.7  # pixels: standard deviation of the Gaussian over the difference
MARGIN, LEAST_MARGIN = 0.1, 2  # how far a mask may reach out of its box: a share of its sides, pixels
NOISE = 5.0  # standard deviations above the usual difference outside the boxes: below that, nothing happened
DEVIATION = 1.4826  # of a normal distribution, in median deviations from the median: a few outliers do not change those
FAINTEST = 0.01  # of the range of grey levels in the picture: no difference below that is an object's
SPECK, LEAST_SHARE = 0.1, 0.01  # parts of a mask below these shares of its largest part and of its box are noise

Bools = NDArray[np.bool_]


def find(drawn: Image.Image, good: Image.Image, objects: Sequence[RelativeBox]) -> Bools:
    """Find one mask per object, (n, H, W), from an image and the same seed's good part.

    Objects that changed nothing have an empty one. ValueError for images of two sizes.
    """
    if drawn.size != good.size:
        raise ValueError(f"a picture of {drawn.size} pixels and its good part of {good.size} cannot be compared")
    from scipy import ndimage

    with_objects, without = (np.asarray(image, dtype=np.float32) for image in (drawn, good))
    difference = np.abs(with_objects - without)
    difference = difference if difference.ndim == 2 else difference.mean(axis=-1)  # H W
    difference = ndimage.gaussian_filter(difference, SMOOTHING)
    height, width = difference.shape
    own = [_window(box, width, height, 0) for box in objects]
    reach = [_window(box, width, height, MARGIN) for box in objects]

    # What differs where nothing was asked for
    outside = np.ones(difference.shape, dtype=bool)
    for window in reach:
        outside[window] = False
    least = FAINTEST * float(max(with_objects.max(), without.max()) - min(with_objects.min(), without.min()))
    if outside.any():
        usual = np.median(difference[outside])
        least = max(least, float(usual + NOISE * DEVIATION * np.median(np.abs(difference[outside] - usual))))

    masks = np.zeros((len(objects), height, width), dtype=bool)
    for i, window in enumerate(reach):
        allowed = np.zeros(difference.shape, dtype=bool)
        allowed[window] = True
        for other in own:  # in its margin, but in another's box: the other's
            allowed[other] = False
        allowed[own[i]] = True
        inside = np.zeros(difference.shape, dtype=bool)
        inside[own[i]] = True
        masks[i][window] = _clean_mask(difference[window], allowed[window], inside[window], least, ndimage)
    return masks


def label_map(masks: Bools, labels: Sequence[int]) -> Image.Image:
    """Each pixel's label, 0 for none, as a grey of 8 bits or, beyond 255 labels, 16; the smallest object on top."""
    ids = np.zeros(masks.shape[1:], dtype=np.uint8 if max(labels, default=0) < 256 else np.uint16)
    for i in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
        ids[masks[i]] = labels[i]
    return Image.fromarray(ids)


def codes(masks: Bools) -> list[dict]:
    """Each object's mask as a manifest and COCO hold it."""
    return [coco_masks.encode(mask) for mask in masks]


def _clean_mask(difference: NDArray, allowed: Bools, inside: Bools, least: float, ndimage) -> Bools:
    """Mask where the difference (h, w) stands out: holes filled; specks and parts mostly outside the box removed."""
    values = difference[allowed]
    if not values.size or values.max() <= least:
        return np.zeros(difference.shape, dtype=bool)
    mask = allowed & (difference > max(least, _otsu(values)))
    parts, number = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes, own = (np.bincount(ids, minlength=number + 1) for ids in (parts.ravel(), parts[inside]))
    sizes[0], sizes[own < sizes / 2] = 0, 0
    least_size = max(1, SPECK * sizes.max(), LEAST_SHARE * values.size)
    return ndimage.binary_fill_holes((sizes >= least_size)[parts]) & allowed


def _otsu(values: NDArray) -> float:
    """The threshold that parts values into two groups of the least variance within (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = values.size - below
    sums = np.cumsum(counts * centres)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (means[0] - means[1]) ** 2)])


def _window(box: RelativeBox, width: int, height: int, margin: float) -> tuple[slice, slice]:
    """Rows and columns of a box in [0, 1], widened by a share `margin` of its sides, at least one pixel of each."""

    def within(low: float, high: float, side: int) -> slice:
        wider = max(margin * (high - low) * side, LEAST_MARGIN) if margin else 0
        start = min(max(int(np.floor(low * side - wider)), 0), side - 1)
        return slice(start, min(max(int(np.ceil(high * side + wider)), start + 1), side))

    return within(box.y0, box.y1, height), within(box.x0, box.x1, width)
