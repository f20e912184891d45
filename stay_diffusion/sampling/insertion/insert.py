"""Defects into whole pictures at their own size: window by window, with everything else as it was."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ...data.annotations import Vocabulary
from ...data.layout import Layout
from ...data.native import to_picture
from ...layouts.items import LayoutItem
from ..batches import Made, Make
from ..generate import image_generators
from .canvas import Canvas, View
from .windows import Window

# (layout of B windows, what they show (B, C, S, S), which pixels stay (B, 1, S, S), generators) -> (B, C, S, S)
Fill = Callable[[Layout, Tensor, Tensor, Sequence[torch.Generator]], Tensor]
Accept = Callable[[Canvas, Window], bool]  # whether what has been drawn in a window, last, can stay


@torch.no_grad()
def insert(
    items: Sequence[LayoutItem],
    generators: Sequence[torch.Generator],
    fill: Fill,
    vocabulary: Vocabulary,
    view: View,
    margin: float,
    with_good_parts: bool = False,
    accept: Accept | None = None,
    most_attempts: int = 1,
) -> list[Canvas]:
    """Draws the objects of each item into its good picture, `item.into`; one generator for each.

    `margin` is the share of a box's longer side by which the picture may change around it. Windows of one picture
    follow one another, each seeing what the earlier ones have drawn; those of all pictures go in batches. A window that
    `accept` refuses is drawn again, up to `most_attempts` times in all, and then left as it was.
    """
    canvases = [Canvas.of(item, view, margin) for item in items]
    for turn in range(max((len(canvas.windows) for canvas in canvases), default=0)):
        active = [i for i, canvas in enumerate(canvases) if turn < len(canvas.windows)]
        for _ in range(most_attempts):
            drawn = _draw_windows(canvases, active, turn, generators, fill, vocabulary, view, with_good_parts)
            refused = []
            for i, canvas in drawn.items():
                if accept is None or accept(canvas, canvas.windows[turn]):
                    canvases[i] = canvas
                else:
                    refused.append(i)
                    canvases[i].redrawn += 1
            active = refused
            if not active:
                break
    return canvases


def _draw_windows(
    canvases: Sequence[Canvas],
    active: Sequence[int],
    turn: int,
    generators: Sequence[torch.Generator],
    fill: Fill,
    vocabulary: Vocabulary,
    view: View,
    with_good_parts: bool,
) -> dict[int, Canvas]:
    """The `active` of the canvases with their next windows drawn."""
    windows = [canvases[i].windows[turn] for i in active]
    with_objects, without = zip(
        *(canvases[i].layouts(window, view, vocabulary) for i, window in zip(active, windows, strict=True)), strict=True
    )
    known = torch.stack([canvases[i].seen(window, view) for i, window in zip(active, windows, strict=True)])
    keep = torch.stack(
        [window.keep(canvases[i].opacity(window), view.size) for i, window in zip(active, windows, strict=True)]
    )
    own = [generators[i] for i in active]
    again = [_copy(generator) for generator in own]
    images = fill(Layout.collate(with_objects), known, keep, own)
    good_parts = fill(Layout.collate(without), known, keep, again) if with_good_parts else [None] * len(active)
    return {
        i: canvases[i].drawn_into(window, image, good_part, view)
        for i, window, image, good_part in zip(active, windows, images, good_parts, strict=True)
    }


def inserting(
    fill: Fill,
    items: Sequence[LayoutItem],
    vocabulary: Vocabulary,
    view: View,
    margin: float,
    seed: int,
    run: int = 0,
    with_good_parts: bool = False,
    accept: Accept | None = None,
    most_attempts: int = 1,
) -> Make:
    """What makes whole pictures of items, as batches.make_all takes it."""

    def make(indices: Sequence[int], attempt: int) -> list[Made]:
        generators = image_generators(seed, indices, run, attempt)
        chosen = [items[i] for i in indices]
        canvases = insert(chosen, generators, fill, vocabulary, view, margin, with_good_parts, accept, most_attempts)
        return [
            Made(
                to_picture(canvas.picture),
                to_picture(canvas.good_part) if with_good_parts else None,
                to_picture(canvas.source),
                canvas.objects,
                canvas.redrawn,
            )
            for canvas in canvases
        ]

    return make


def count_new(items: Iterable[LayoutItem]) -> int:
    """How many objects are to be drawn."""
    return sum(len(item.objects) - len(item.into.boxes) for item in items)


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())
