"""A whole image while objects are put into it, and the model's input cut out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config import RunConfig
from ...data.annotations import ImageRecord, RelativeBox, Vocabulary, boxes_array
from ...data.images import Range
from ...data.native import Native, changed, read_native, seen_by_model
from ...data.transforms import is_visible, map_boxes
from ...layouts.items import LayoutItem
from .windows import Window, margin_of, windows_of

FINE = 4  # pixels of a picture to one of the model's, up to which what is drawn takes the place of all that was there


@dataclass(frozen=True)
class ModelInput:
    """A model's input: its side S and channels, what part of an image S pixels show, and the least visible share."""

    size: int
    channels: int
    crop_policy: str
    min_visible: float
    value_range: Range | None = None

    @classmethod
    def of(cls, config: RunConfig) -> "ModelInput":
        model, data = config.model, config.data
        return cls(model.image_size, model.image_channels, data.crop_policy, data.min_visible, data.black_and_white)

    def window(self, width: int, height: int) -> tuple[float, float]:
        """Width and height of a window at the scale that the model was trained on, in pixels of an image."""
        if self.crop_policy == "object":
            return self.size, self.size
        return (width, height) if self.crop_policy == "resize" else (min(width, height),) * 2

    def seen(self, native: Native) -> Tensor:
        """Pixels (C, h, w) in [-1, 1] of a part of an image, with the model's channels."""
        return seen_by_model(native, self.channels, self.value_range)

    def resized(self, image: Tensor) -> Tensor:
        """Resize to the model's (C, S, S)."""
        return _resized(image, (self.size, self.size))


@dataclass
class Canvas:
    """An image that objects go into, window after window, and beside it the same one without them.

    `boxes` (N, 4) in pixels are all of its objects; the first `num_before` are in the source already. `drawn` are the
    places of those that are in the image, `redrawn` counts windows that were not accepted.
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
    redrawn: int = 0

    @classmethod
    def of(cls, item: LayoutItem, model_input: ModelInput, margin: float) -> "Canvas":
        assert item.into is not None
        source = read_native(item.into.path)
        height, width = source.shape[:2]
        boxes = boxes_array(item.objects) * ((width, height) * 2)
        num_before = len(item.into.boxes)
        margins = [margin_of(box, margin) for box in boxes[num_before:]]
        windows = windows_of(boxes[num_before:], margins, (width, height), model_input.window(width, height))
        return cls(item, source, boxes, num_before, margins, windows, source, source, list(range(num_before)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.source.shape[1], self.source.shape[0]

    def layouts(self, window: Window, model_input: ModelInput, vocabulary: Vocabulary) -> tuple[tuple, tuple]:
        """The layouts of a window, as `Layout.collate` takes them: with its own objects, and without them.

        Those that are in the image already and are seen in the window belong to both.
        """
        own = [self.num_before + place for place in window.objects]
        boxes = map_boxes(self.boxes, window.area)
        visible = is_visible(boxes, model_input.size, model_input.min_visible)
        there = [place for place in self.drawn if visible[place]]
        return self._layout(boxes, [*there, *own], vocabulary), self._layout(boxes, there, vocabulary)

    def _layout(self, boxes: NDArray, places: Sequence[int], vocabulary: Vocabulary) -> tuple[Tensor, Tensor, int]:
        assert self.item.into is not None
        record = ImageRecord(self.item.into.path, *self.size, product=self.item.product)
        labels = [vocabulary.label_of(record, self.item.objects[place]) for place in places]
        return (
            torch.from_numpy(boxes[list(places)]).float(),
            torch.tensor(labels, dtype=torch.long),
            vocabulary.product_of(record),
        )

    def seen(self, window: Window, model_input: ModelInput) -> Tensor:
        """Cut a window out as the model sees it, (C, S, S) in [-1, 1]."""
        return model_input.resized(model_input.seen(self.picture[window.slices]))

    def opacity(self, window: Window) -> NDArray[np.float64]:
        """The share of a window's pixels that is drawn anew: 0 on other objects that are in the image already."""
        opacity = window.opacity([self.margins[place] for place in window.objects], self.size)
        own = [self.num_before + place for place in window.objects]
        return np.where(window.covered(self.boxes[self.drawn]) & ~window.covered(self.boxes[own]), 0.0, opacity)

    def drawn_into(self, window: Window, image: Tensor, good_part: Tensor | None, model_input: ModelInput) -> "Canvas":
        """Put what the model has drawn (C, S, S) into a window of the image, and of the good part."""
        opacity = self.opacity(window)
        return replace(
            self,
            picture=_painted(self.picture, window, image, opacity, model_input),
            good_part=_painted(self.good_part, window, good_part, opacity, model_input),
            drawn=[*self.drawn, *(self.num_before + place for place in window.objects)],
        )

    @property
    def objects(self) -> tuple[RelativeBox, ...]:
        """The objects in the image, in shares of its sides."""
        return tuple(self.item.objects[place] for place in sorted(self.drawn))


def _painted(native: Native, window: Window, image: Tensor | None, opacity: NDArray, model_input: ModelInput) -> Native:
    if image is None:
        return native
    before = model_input.seen(native[window.slices])
    if max(window.size) > FINE * model_input.size:  # finer structure, such as a grain, stays
        before = _resized(model_input.resized(before), window.size)
    change = _resized(image.cpu().float(), window.size) - before
    return changed(native, change * torch.from_numpy(opacity).float(), window.slices, model_input.value_range)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize by a bicubic filter without aliasing; an image of the right size stays as it is."""
    if image.shape[-2:] == size:
        return image
    return torch.nn.functional.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0]
