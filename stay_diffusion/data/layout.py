"""Layout: what a batch of pictures shows and where. The one type that crosses from data to models to sampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

UNKNOWN_PRODUCT = 0
NULL_PRODUCT = -1  # no condition at all (classifier-free guidance); a product without defects is a good part instead


@dataclass(frozen=True)
class Layout:
    """Boxes with labels, padded to a common number of objects, and the product each picture shows.

    boxes (B, O, 4) float, x0 y0 x1 y1 in [0, 1] of the picture's sides (a cut object may reach outside);
    labels (B, O) long in 1..K, 0 where padded; valid (B, O) bool; product (B,) long: 1..P, 0 unknown, -1 null.
    semantic_map (B, 2, H, W) int16, where the data have one: each pixel's label in 1..K, 0 for none, and whether it is
    at an edge of an instance.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    product: Tensor
    semantic_map: Tensor | None = None

    def __post_init__(self):
        B, O = self.labels.shape
        assert self.boxes.shape == (B, O, 4) and self.valid.shape == (B, O) and self.product.shape == (B,)
        assert self.semantic_map is None or self.semantic_map.shape[:2] == (B, 2)

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def num_objects(self) -> int:
        """The padded number of objects, O."""
        return self.labels.shape[1]

    @classmethod
    def collate(cls, samples: Sequence[tuple]) -> "Layout":
        """Pads [(boxes (O_i, 4), labels (O_i,), product, semantic_map (2, H, W) or None), ...] to the most objects.

        The last may be left out.
        """
        B, O = len(samples), max((len(sample[1]) for sample in samples), default=0)
        boxes, labels = torch.zeros(B, O, 4), torch.zeros(B, O, dtype=torch.long)
        valid = torch.zeros(B, O, dtype=torch.bool)
        for i, (sample_boxes, sample_labels, *_) in enumerate(samples):
            n = len(sample_labels)
            boxes[i, :n], labels[i, :n], valid[i, :n] = sample_boxes.reshape(n, 4), sample_labels, True
        product = torch.tensor([sample[2] for sample in samples], dtype=torch.long)
        maps = [sample[3] for sample in samples if len(sample) > 3 and sample[3] is not None]
        assert len(maps) in (0, B)
        return cls(boxes, labels, valid, product, torch.stack(maps) if maps else None)

    @classmethod
    def cat(cls, layouts: Sequence["Layout"]) -> "Layout":
        """One batch after the other, padded to the most objects."""
        O = max(layout.num_objects for layout in layouts)
        maps = [layout.semantic_map for layout in layouts if layout.semantic_map is not None]
        assert len(maps) in (0, len(layouts))
        padded = [layout.pad(O) for layout in layouts]
        boxes, labels = torch.cat([each.boxes for each in padded]), torch.cat([each.labels for each in padded])
        valid, product = torch.cat([each.valid for each in padded]), torch.cat([each.product for each in padded])
        return cls(boxes, labels, valid, product, torch.cat(maps) if maps else None)

    def pad(self, num_objects: int) -> "Layout":
        """The same layout with padding objects appended up to `num_objects`."""
        extra = num_objects - self.num_objects
        assert extra >= 0
        boxes = torch.nn.functional.pad(self.boxes, (0, 0, 0, extra))
        labels, valid = (torch.nn.functional.pad(x, (0, extra)) for x in (self.labels, self.valid))
        return replace(self, boxes=boxes, labels=labels, valid=valid)

    def to(self, device, non_blocking: bool = False) -> "Layout":
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Layout":
        return self._each(lambda tensor: tensor.pin_memory())

    def __getitem__(self, index: slice | Tensor) -> "Layout":
        return self._each(lambda tensor: tensor[index])

    def null(self) -> "Layout":
        """No condition at all: boxes, labels, product and map gone (the same number of pictures)."""
        return self._without(torch.ones(len(self), dtype=torch.bool, device=self.labels.device))

    def with_null(self) -> "Layout":
        """This layout followed by its null, 2B pictures: what classifier-free guidance evaluates."""
        return Layout.cat([self, self.null()])

    def drop(self, rate: float, draws: Tensor | None = None) -> "Layout":
        """Each picture's layout, on its own, becomes null where its draw (B,) in [0, 1) is below `rate`."""
        if rate == 0:
            return self
        dropped = (torch.rand(len(self)) if draws is None else draws) < rate
        return self._without(dropped.to(self.labels.device))

    def good_part(self) -> "Layout":
        """The same products without any object."""
        boxes, labels, valid = (torch.zeros_like(x) for x in (self.boxes, self.labels, self.valid))
        return Layout(boxes, labels, valid, self.product)

    def flip(self) -> "Layout":
        """Mirrored left to right: x0, x1 -> 1 - x1, 1 - x0."""
        x0, y0, x1, y1 = self.boxes.unbind(-1)
        mirrored = torch.stack([1 - x1, y0, 1 - x0, y1], dim=-1)
        semantic_map = None if self.semantic_map is None else self.semantic_map.flip(-1)
        return replace(self, boxes=torch.where(self.valid[..., None], mirrored, self.boxes), semantic_map=semantic_map)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Layout":
        semantic_map = None if self.semantic_map is None else function(self.semantic_map)
        return Layout(
            function(self.boxes), function(self.labels), function(self.valid), function(self.product), semantic_map
        )

    def _without(self, dropped: Tensor) -> "Layout":
        semantic_map = self.semantic_map
        return Layout(
            boxes=self.boxes.masked_fill(dropped[:, None, None], 0),
            labels=self.labels.masked_fill(dropped[:, None], 0),
            valid=self.valid & ~dropped[:, None],
            product=self.product.masked_fill(dropped, NULL_PRODUCT),
            semantic_map=None if semantic_map is None else semantic_map.masked_fill(dropped[:, None, None, None], 0),
        )
