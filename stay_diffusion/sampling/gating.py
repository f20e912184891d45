"""The quality gate between drawing and keeping: scores of images and windows, and the report at the end."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ..config import RunConfig, SampleConfig
from ..data.native import to_picture
from ..layouts.items import LayoutItem
from ..quality.gate import QualityGate, write_quality
from ..quality.run_gate import gate_of_run
from ..quality.scores import ImageQuality
from ..system.distributed import wait_for_all
from ..system.launchers import World
from .batches import Judgement, Made
from .insertion.canvas import Canvas
from .insertion.windows import Window
from .results import ResultsFolder

logger = logging.getLogger("stay_diffusion")


def judge_image(
    gate: QualityGate, items: Sequence[LayoutItem], sample: SampleConfig, index: int, made: Made
) -> Judgement:
    """Score the objects that were drawn into an image."""
    item = items[index]
    drawn = (item.objects if made.objects is None else made.objects)[len(item.into.boxes) if item.into else 0 :]
    quality = gate.score(made.image, drawn, made.good_part)
    return Judgement(quality, -1.0 if sample.reject_copies and gate.is_copy(quality) else quality.score)


def accept_window(gate: QualityGate, sample: SampleConfig, canvas: Canvas, window: Window) -> bool:
    """Decide if the objects of a window, the last one drawn, may stay in a whole image."""
    objects = [canvas.item.objects[canvas.num_before + place] for place in window.objects]
    quality = gate.score(to_picture(canvas.picture), objects, to_picture(canvas.good_part))
    return quality.score >= sample.reject_below and not (sample.reject_copies and gate.is_copy(quality))


def load_gate(config: RunConfig, run_folder: Path, device: torch.device, world: World) -> QualityGate:
    """Load the run's gate; the first process trains it where there is none yet."""
    if config.model.layout_kind != "boxes":
        raise ValueError(f"--reject_below: a model that sees no boxes (--conditioning {config.model.conditioning})")
    gate = gate_of_run(config, run_folder, device) if world.is_main else None
    wait_for_all("quality gate")
    return gate or gate_of_run(config, run_folder, device)


def report_quality(results: ResultsFolder, gate: QualityGate) -> None:
    """Write the gate's scores of the images that are kept, and print how many are not."""
    entries = [entry for _, entry in sorted(results.entries().items())]
    kept = [entry for entry in entries if not entry.rejected]
    write_quality(results.path, kept, [ImageQuality.of_json(entry.quality or {}) for entry in kept], gate)
    again = sum((entry.attempt or 0) + (entry.redrawn or 0) for entry in entries)
    missing = sum(len(entry.asked.objects) - len(entry.layout.objects) for entry in kept if entry.asked)
    print(f"quality gate: {again} times drawn again; {len(kept)} of {len(entries)} images kept; see quality.json")
    if len(kept) < len(entries):
        logger.warning("%d images never passed the gate: they are in rejected/", len(entries) - len(kept))
    if missing:
        logger.warning("%d objects never passed the gate: they are in no picture and no label", missing)
