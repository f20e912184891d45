"""What a gate says of all images of a results folder together, and the files that hold it."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.manifest import ManifestEntry
from ..run.checkpoint import atomic_write
from .gate import QualityGate
from .scores import ImageQuality

THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
SHOWN = 5  # of the best, the worst and the most copy-like


def write_quality(
    folder: Path, entries: Sequence[ManifestEntry], found: Sequence[ImageQuality], gate: QualityGate
) -> None:
    """quality.jsonl, a line for each image of the manifest's `entries`, and quality.json, the sums and the protocol."""
    lines = [
        json.dumps({"index": entry.index, "stem": entry.stem, **quality.as_json()}) + "\n"
        for entry, quality in zip(entries, found, strict=True)
    ]
    figures = {**summary(entries, found, gate), "protocol": gate.protocol}
    for name, text in (("quality.jsonl", "".join(lines)), ("quality.json", json.dumps(figures, indent=2) + "\n")):
        atomic_write(folder / name, lambda file, text=text: file.write(text.encode()))


def summary(entries: Sequence[ManifestEntry], found: Sequence[ImageQuality], gate: QualityGate) -> dict:
    """The figures of all images together: per class, below thresholds, copies, best and worst."""
    of_class: dict[str, list[float]] = defaultdict(list)
    for quality in found:
        for box in quality.boxes:
            of_class[box.label].append(box.score)
    scores = [quality.score for quality in found if quality.boxes]
    ranked = sorted((quality.score, entry.stem) for entry, quality in zip(entries, found, strict=True) if quality.boxes)
    alike = sorted(
        ((quality.copy.similarity, entry.stem) for entry, quality in zip(entries, found, strict=True) if quality.copy),
        reverse=True,
    )
    return {
        "images": len(found),
        "with_boxes": len(scores),
        "boxes": sum(map(len, of_class.values())),
        "with_good_part": sum(any(box.adherence is not None for box in quality.boxes) for quality in found),
        "mean_score": float(np.mean(scores)) if scores else None,
        "per_class": {
            name: {"boxes": len(of_class[name]), "mean_score": float(np.mean(of_class[name]))}
            for name in sorted(of_class)
        },
        "below": {str(t): float(np.mean(np.array(scores) < t)) if scores else None for t in THRESHOLDS},
        "copies": sum(gate.is_copy(quality) for quality in found),
        "best": [stem for _, stem in ranked[: -SHOWN - 1 : -1]],
        "worst": [stem for _, stem in ranked[:SHOWN]],
        "most_alike": [[stem, similarity] for similarity, stem in alike[:SHOWN]],
    }
