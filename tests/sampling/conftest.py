"""Results folders as image_sample.py leaves them, made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SETTINGS = {
    "seed": 3, "run": 0, "s": 1.5, "sampler": "ddim", "timestep_respacing": "logsnr25", "eta": 0.5,
    "clip_denoised": True, "precision": "fp32", "image_size": 16, "checkpoint_sha256": "ab" * 32,
}  # fmt: skip


@pytest.fixture
def results_of(tmp_path):
    """results_of([(class, box), ...] per picture, ...) -> a finished folder.

    Without `images` they are black and of 64 x 64 pixels, their boxes white. `scores` are a number per box, and make a
    quality.jsonl; `copies` {picture: what its line says}; `stems` and `products` are names.
    """

    def build(layouts, images=None, scores=None, copies=None, stems=None, products=None, name="results", **settings):
        folder = tmp_path / name
        (folder / "samples").mkdir(parents=True)
        lines, scored = [], []
        settings = {**SETTINGS, "checkpoint": str(tmp_path / "run" / "ema_0.9.pt"), **settings}
        for index, objects in enumerate(layouts):
            stem = stems[index] if stems else f"s{index:03d}"
            image = images[index] if images else boxes_drawn(objects)
            image.save(folder / "samples" / f"{stem}.png")
            boxes = [{"label": label, "box": list(box)} for label, box in objects]
            layout = {"product": products[index] if products else None, "objects": boxes}
            entry = {"index": index, "stem": stem, "file": f"samples/{stem}.png", "layout": layout, "source": "sampled"}
            lines.append({**entry, **settings})
            if scores:
                told = [line_of(box, score) for box, score in zip(boxes, scores[index], strict=True)]
                score = min(scores[index], default=1.0)
                scored.append({"index": index, "stem": stem, "score": score, "boxes": told, "copy": None})
                scored[-1]["copy"] = (copies or {}).get(index)
        write_lines(folder / "manifest.jsonl", lines)
        if scores:
            write_lines(folder / "quality.jsonl", scored)
        return folder

    return build


def boxes_drawn(objects, side=64) -> Image.Image:
    values = np.zeros((side, side), dtype=np.uint8)
    for _, box in objects:
        x0, y0, x1, y1 = (round(max(0, min(1, edge)) * side) for edge in box)
        values[y0:y1, x0:x1] = 255
    return Image.fromarray(values)


def line_of(box: dict, score: float) -> dict:
    return {**box, "class_probability": score, "predicted": box["label"], "adherence": None, "score": score}


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
