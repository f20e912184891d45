"""Results folders as image_sample.py and quality.py leave them, made by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stay_diffusion.pages.render import Corners

SETTINGS = {
    "seed": 3, "run": 0, "s": 1.5, "sampler": "ddim", "timestep_respacing": "logsnr25", "eta": 0.5,
    "clip_denoised": True, "precision": "fp32", "image_size": 16, "checkpoint_sha256": "ab" * 32,
}  # fmt: skip


def make_results(
    parent: Path,
    layouts: Sequence[Sequence[tuple[str, Corners]]],
    images: Sequence[Image.Image] = (),
    scores: Sequence[Sequence[float]] = (),
    copies: dict[int, dict] | None = None,
    stems: Sequence[str] = (),
    products: Sequence[str] = (),
    name: str = "results",
    **settings,
) -> Path:
    """A finished folder of a picture for each of `layouts`, of (class, box in [0, 1]).

    Without `images` they are black and of 64 x 64 pixels, their boxes white. `scores`, one per box, make a
    quality.jsonl, in which `copies` stand by the pictures' numbers.
    """
    folder = parent / name
    (folder / "samples").mkdir(parents=True)
    settings = {**SETTINGS, "checkpoint": str(parent / "run" / "ema_0.9.pt"), **settings}
    lines, scored = [], []
    for index, objects in enumerate(layouts):
        stem = stems[index] if stems else f"s{index:03d}"
        image = images[index] if images else boxes_drawn(objects)
        image.save(folder / "samples" / f"{stem}.png")
        boxes = [{"label": label, "box": list(box)} for label, box in objects]
        layout = {"product": products[index] if products else None, "objects": boxes}
        entry = {"index": index, "stem": stem, "file": f"samples/{stem}.png", "layout": layout, "source": "sampled"}
        lines.append({**entry, **settings})
        if scores:
            told = [scored_box(box, score) for box, score in zip(boxes, scores[index], strict=True)]
            line = {"index": index, "stem": stem, "score": min(scores[index], default=1.0), "boxes": told}
            scored.append({**line, "copy": (copies or {}).get(index)})
    write_lines(folder / "manifest.jsonl", lines)
    if scored:
        write_lines(folder / "quality.jsonl", scored)
    return folder


def boxes_drawn(objects, side=64) -> Image.Image:
    values = np.zeros((side, side), dtype=np.uint8)
    for _, box in objects:
        x0, y0, x1, y1 = (round(max(0, min(1, edge)) * side) for edge in box)
        values[y0:y1, x0:x1] = 255
    return Image.fromarray(values)


def scored_box(box: dict, score: float) -> dict:
    return {**box, "class_probability": score, "predicted": box["label"], "adherence": None, "score": score}


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
