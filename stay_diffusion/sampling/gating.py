"""The quality gate between drawing and keeping: what image_sample.py asks it, and what it tells at the end."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import RunConfig, SampleConfig
from ..data.native import to_picture
from ..layouts.items import LayoutItem
from ..quality.gate import QualityGate
from ..quality.run_gate import gate_of_run
from ..quality.scores import ImageQuality
from ..quality.summary import write_quality
from ..system.distributed import wait_for_all
from ..system.launchers import World
from .batches import Made
from .insertion.canvas import Canvas
from .insertion.windows import Window
from .results import ResultsFolder

logger = logging.getLogger("stay_diffusion")


@dataclass(frozen=True)
class Judgement:
    """What the gate says of an image, and its score: below all others for a near-copy where these are not wanted."""

    of_image: ImageQuality
    score: float


def judged(gate: QualityGate, items: Sequence[LayoutItem], sample: SampleConfig, index: int, made: Made) -> Judgement:
    """What the gate says of the objects that were drawn."""
    item = items[index]
    drawn = (item.objects if made.objects is None else made.objects)[len(item.into.boxes) if item.into else 0 :]
    quality = gate.score(made.image, drawn, made.good_part)
    return Judgement(quality, -1.0 if sample.reject_copies and gate.is_copy(quality) else quality.score)


def passes(gate: QualityGate, sample: SampleConfig, canvas: Canvas, window: Window) -> bool:
    """Whether the gate lets the objects of a window stay in a whole picture."""
    objects = [canvas.item.objects[canvas.num_before + place] for place in window.objects]
    quality = gate.score(to_picture(canvas.picture), objects, to_picture(canvas.good_part))
    return quality.score >= sample.reject_below and not (sample.reject_copies and gate.is_copy(quality))


def quality_gate(config: RunConfig, run_folder: Path, device: torch.device, world: World) -> QualityGate:
    """The run's gate, trained by the first process where there is none yet."""
    if config.model.layout_kind != "boxes":
        raise ValueError(f"--reject_below: a model that sees no boxes (--conditioning {config.model.conditioning})")
    gate = gate_of_run(config, run_folder, device) if world.is_main else None
    wait_for_all("quality gate")
    return gate or gate_of_run(config, run_folder, device)


def tell_quality(results: ResultsFolder, gate: QualityGate) -> None:
    """Writes what the gate has said of the images that are kept, and says how many are not."""
    entries = [entry for _, entry in sorted(results.entries().items())]
    kept = [entry for entry in entries if not entry.get("rejected")]
    write_quality(results.path, kept, [ImageQuality.of_json(entry["quality"]) for entry in kept], gate)
    again = sum(entry["attempt"] + entry["redrawn"] for entry in entries)
    missing = sum(
        len(entry["asked"]["objects"]) - len(entry["layout"]["objects"]) for entry in kept if "asked" in entry
    )
    print(f"quality gate: {again} times drawn again; {len(kept)} of {len(entries)} images kept; see quality.json")
    if len(kept) < len(entries):
        logger.warning("%d images never passed the gate: they are in rejected/", len(entries) - len(kept))
    if missing:
        logger.warning("%d objects never passed the gate: they are in no picture and no label", missing)
