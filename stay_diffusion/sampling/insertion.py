"""Defects into whole pictures at their own size: window by window, with everything else as it was."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.annotations import ImageRecord, Vocabulary
from ..data.images import Range
from ..data.layout import Layout
from ..data.native import Native, changed, read_native, seen_by_model
from ..data.transforms import is_visible, map_boxes
from .layouts import LayoutItem
from .windows import Window, margin_of, windows_of

# (layout of B windows, what they show (B, C, S, S), which pixels stay (B, 1, S, S), generators) -> (B, C, S, S)
Fill = Callable[[Layout, Tensor, Tensor, Sequence[torch.Generator]], Tensor]


@dataclass(frozen=True)
class View:
    """How a model knows pictures: its side S and channels, what S pixels show, and how much makes an object visible."""

    size: int
    channels: int
    crop_policy: str
    min_visible: float
    value_range: Range | None = None

    def window(self, width: int, height: int) -> tuple[float, float]:
        """Width and height of a window at the scale that the model was trained on, in pixels of a picture."""
        if self.crop_policy == "object":
            return self.size, self.size
        return (width, height) if self.crop_policy == "resize" else (min(width, height),) * 2


@dataclass
class Canvas:
    """A picture that objects go into, window after window, and beside it the same one without them.

    `boxes` (N, 4) in pixels are all of its objects; the first `num_before` are in the source already.
    """

    item: LayoutItem
    source: Native
    boxes: NDArray[np.float64]
    num_before: int
    margins: list[int]
    windows: list[Window]
    picture: Native
    good_part: Native
    drawn: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, item: LayoutItem, view: View, margin: float) -> "Canvas":
        source = read_native(item.into.path)
        height, width = source.shape[:2]
        boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for b in item.objects]).reshape(-1, 4) * ((width, height) * 2)
        num_before = len(item.into.boxes)
        margins = [margin_of(box, margin) for box in boxes[num_before:]]
        windows = windows_of(boxes[num_before:], margins, (width, height), view.window(width, height))
        return cls(item, source, boxes, num_before, margins, windows, source, source, list(range(num_before)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.source.shape[1], self.source.shape[0]

    def layouts(self, window: Window, view: View, vocabulary: Vocabulary) -> tuple[tuple, tuple]:
        """What a window is to show, as `Layout.collate` takes it: with its own objects, and without them.

        Those that are in the picture already and are seen in the window belong to both.
        """
        own = [self.num_before + place for place in window.objects]
        boxes = map_boxes(self.boxes, window.area)
        visible = is_visible(boxes, view.size, view.min_visible)
        there = [place for place in self.drawn if visible[place]]
        return self._layout(boxes, [*there, *own], vocabulary), self._layout(boxes, there, vocabulary)

    def _layout(self, boxes: NDArray, places: Sequence[int], vocabulary: Vocabulary) -> tuple[Tensor, Tensor, int]:
        record = ImageRecord(self.item.into.path, *self.size, product=self.item.product)
        labels = [vocabulary.label_of(record, self.item.objects[place]) for place in places]
        return (
            torch.from_numpy(boxes[list(places)]).float(),
            torch.tensor(labels, dtype=torch.long),
            vocabulary.product_of(record),
        )

    def opacity(self, window: Window) -> NDArray[np.float64]:
        return window.opacity([self.margins[place] for place in window.objects], self.size)

    def draw(self, window: Window, image: Tensor, good_part: Tensor | None, view: View) -> None:
        """Puts what the model has drawn (C, S, S) into a window of the picture, and of the good part."""
        self.picture = _painted(self.picture, window, image, self.opacity(window), view)
        if good_part is not None:
            self.good_part = _painted(self.good_part, window, good_part, self.opacity(window), view)
        self.drawn += [self.num_before + place for place in window.objects]


@torch.no_grad()
def insert(
    items: Sequence[LayoutItem],
    generators: Sequence[torch.Generator],
    fill: Fill,
    vocabulary: Vocabulary,
    view: View,
    margin: float,
    with_good_parts: bool = False,
) -> list[Canvas]:
    """Draws the objects of each item into its good picture, `item.into`; one generator for each.

    `margin` is the share of a box's longer side by which the picture may change around it. Windows of one picture
    follow one another, each seeing what the earlier ones have drawn; those of all pictures go in batches.
    """
    canvases = [Canvas.of(item, view, margin) for item in items]
    for turn in range(max((len(canvas.windows) for canvas in canvases), default=0)):
        active = [i for i, canvas in enumerate(canvases) if turn < len(canvas.windows)]
        windows = [canvases[i].windows[turn] for i in active]
        with_objects, without = zip(
            *(canvases[i].layouts(window, view, vocabulary) for i, window in zip(active, windows, strict=True)),
            strict=True,
        )
        known = torch.stack(
            [_seen(canvases[i].picture, window, view) for i, window in zip(active, windows, strict=True)]
        )
        keep = torch.stack(
            [window.keep(canvases[i].opacity(window), view.size) for i, window in zip(active, windows, strict=True)]
        )
        own = [generators[i] for i in active]
        again = [_copy(generator) for generator in own]
        drawn = fill(Layout.collate(with_objects), known, keep, own)
        good_parts = fill(Layout.collate(without), known, keep, again) if with_good_parts else [None] * len(active)
        for i, window, image, good_part in zip(active, windows, drawn, good_parts, strict=True):
            canvases[i].draw(window, image, good_part, view)
    return canvases


def count_new(items: Iterable[LayoutItem]) -> int:
    """How many objects are to be drawn."""
    return sum(len(item.objects) - len(item.into.boxes) for item in items)


def _seen(native: Native, window: Window, view: View) -> Tensor:
    """A window as the model sees it, (C, S, S) in [-1, 1]."""
    return _resized(seen_by_model(native[window.slices], view.channels, view.value_range), (view.size, view.size))


def _painted(native: Native, window: Window, image: Tensor, opacity: NDArray, view: View) -> Native:
    # The difference is added, not the picture itself: so a window that the model saw smaller keeps its fine texture.
    change = _resized(image.cpu().float() - _seen(native, window, view), window.size)
    return changed(native, change * torch.from_numpy(opacity).float(), window.slices, view.value_range)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, without aliasing; the same picture where the size is right."""
    if image.shape[-2:] == size:
        return image
    return torch.nn.functional.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0]


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())
