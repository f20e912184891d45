"""A batch of noise with a layout of made-up boxes, for where only the time or memory of training matters."""

from dataclasses import replace

import torch
from torch import Tensor

from ..config import RunConfig
from ..data.layout import Layout

CLASSES, PRODUCTS = tuple(f"class {i}" for i in range(1, 6)), ("product",)
LEAST_SIDE, MOST_SIDE = 0.1, 0.3  # of a box, in shares of the picture's


def with_made_up_names(config: RunConfig) -> RunConfig:
    """The configuration with classes and a product where it has none."""
    data = config.data
    classes, products = data.classes or CLASSES, data.product_tags or PRODUCTS
    return replace(config, data=replace(data, classes=classes, product_tags=products))


def noise_batch(config: RunConfig, batch_size: int, num_objects: int, seed: int = 0) -> tuple[Tensor, Layout]:
    """Images (B, C, S, S) of noise and a layout of `num_objects` boxes in each; for SPADE the boxes as a label map."""
    generator = torch.Generator().manual_seed(seed)
    B, O, S = batch_size, num_objects, config.model.image_size
    sides = LEAST_SIDE + (MOST_SIDE - LEAST_SIDE) * torch.rand(B, O, 2, generator=generator)
    corners = (1 - sides) * torch.rand(B, O, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], dim=-1)
    labels = torch.randint(1, len(config.data.classes) + 1, (B, O), generator=generator)
    product = torch.ones(B, dtype=torch.long)
    semantic_map = _drawn(boxes, labels, S) if config.model.layout_kind == "map" else None
    images = torch.randn(B, config.model.image_channels, S, S, generator=generator)
    return images, Layout(boxes, labels, torch.ones_like(labels, dtype=torch.bool), product, semantic_map)


def _drawn(boxes: Tensor, labels: Tensor, size: int) -> Tensor:
    maps = torch.zeros(len(boxes), 2, size, size, dtype=torch.int16)
    for picture, own_boxes, own_labels in zip(maps, (boxes * size).long().tolist(), labels.tolist(), strict=True):
        for (x0, y0, x1, y1), label in zip(own_boxes, own_labels, strict=True):
            picture[0, y0 : y1 + 1, x0 : x1 + 1] = label
    return maps
