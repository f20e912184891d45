"""Defects into whole images at their own size: window by window, with everything else as it was."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import SampleConfig
from ...data.annotations import Vocabulary
from ...data.layout import Layout
from ...data.native import to_picture
from ...layouts.items import LayoutItem
from ..batches import Made
from ..generate import image_generators
from .canvas import Canvas, ModelInput
from .windows import Window

# (layout of B windows, their pixels (B, C, S, S), those to keep (B, 1, S, S), generators) -> (B, C, S, S)
Fill = Callable[[Layout, Tensor, Tensor, Sequence[torch.Generator]], Tensor]
Accept = Callable[[Canvas, Window], bool]  # decides if the objects of a window, the last one drawn, may stay


@dataclass(frozen=True)
class Inserter:
    """Draw objects into whole images by `fill`, window by window.

    Windows of one image follow one another, each seeing what the earlier ones have drawn; those of all images go in
    batches. A window that `accept` refuses is drawn again, up to --max_attempts times in all, and then left as it was.
    """

    fill: Fill
    vocabulary: Vocabulary
    model_input: ModelInput
    sample: SampleConfig
    accept: Accept | None = None

    @torch.no_grad()
    def insert(self, items: Sequence[LayoutItem], generators: Sequence[torch.Generator]) -> list[Canvas]:
        """Draw the objects of each item into its good image, `item.into`; one generator for each."""
        canvases = [Canvas.of(item, self.model_input, self.sample.box_margin) for item in items]
        for turn in range(max((len(canvas.windows) for canvas in canvases), default=0)):
            active = [i for i, canvas in enumerate(canvases) if turn < len(canvas.windows)]
            for _ in range(self.sample.max_attempts if self.accept else 1):
                drawn = self._draw_windows([canvases[i] for i in active], turn, [generators[i] for i in active])
                refused = []
                for i, canvas in zip(active, drawn, strict=True):
                    if self.accept is None or self.accept(canvas, canvas.windows[turn]):
                        canvases[i] = canvas
                    else:
                        refused.append(i)
                        canvases[i].redrawn += 1
                active = refused
                if not active:
                    break
        return canvases

    def _draw_windows(
        self, canvases: Sequence[Canvas], turn: int, generators: Sequence[torch.Generator]
    ) -> list[Canvas]:
        """Draw the next windows of some canvases."""
        pairs = [(canvas, canvas.windows[turn]) for canvas in canvases]
        layouts = [canvas.layouts(window, self.model_input, self.vocabulary) for canvas, window in pairs]
        known = torch.stack([canvas.seen(window, self.model_input) for canvas, window in pairs])  # B C S S
        keep = torch.stack(  # B 1 S S
            [window.keep(canvas.opacity(window), self.model_input.size) for canvas, window in pairs]
        )
        again = [_copy(generator) for generator in generators]
        images = self.fill(Layout.collate([own for own, _ in layouts]), known, keep, generators)
        good_parts: Sequence[Tensor | None] = [None] * len(pairs)
        if self.sample.needs_good_parts:
            good_parts = list(self.fill(Layout.collate([without for _, without in layouts]), known, keep, again))
        return [
            canvas.drawn_into(window, image, good_part, self.model_input)
            for (canvas, window), image, good_part in zip(pairs, images, good_parts, strict=True)
        ]

    def make(self, items: Sequence[LayoutItem], run: int, indices: Sequence[int], attempt: int) -> list[Made]:
        """Make whole images of the items at some indices, as `batches.Make` does it."""
        generators = image_generators(self.sample.seed, indices, run, attempt)
        return [
            Made(
                to_picture(canvas.picture),
                to_picture(canvas.good_part) if self.sample.needs_good_parts else None,
                to_picture(canvas.source),
                canvas.objects,
                canvas.redrawn,
            )
            for canvas in self.insert([items[i] for i in indices], generators)
        ]


def count_new(items: Iterable[LayoutItem]) -> int:
    """Count the objects that are to be drawn."""
    return sum(len(item.objects) - (len(item.into.boxes) if item.into else 0) for item in items)


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())
