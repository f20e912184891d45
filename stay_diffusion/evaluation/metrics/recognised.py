"""Recognised boxes: does a classifier of real objects see in each box what its label says? Higher is better.

python evaluations/recognised.py --samples GENERATED --gate RUN/quality_gate.pt

The classifier is the quality gate's, which also knows "nothing there": --gate FILE, else that of the run that made the
samples, else one trained on the training split of --data_dir. Any annotated pictures will do, real ones too.
"""

from typing import NamedTuple

import numpy as np

from ...quality.classifier import probabilities
from ...quality.crops import without_rim
from ...quality.gate import QualityGate
from ..box_crops import Share, box_crops, share
from ..image_set import ImageSet


class Recognition(NamedTuple):
    """The mean probability of the asked class, and the share of boxes for which none is likelier; per class too."""

    probability: Share
    recognised: Share
    per_class: dict[str, dict[str, float]]
    boxes: int


def recognition(images: ImageSet, gate: QualityGate) -> Recognition:
    """What a gate sees in the boxes of images whose objects are known; ValueError for a class that it does not know."""
    check_classes(images, gate)
    found = box_crops(images, gate.channels, gate.value_range)
    asked = found.indices(gate.classes)
    chances = probabilities(gate.model, without_rim(found.crops))  # N K+1
    likely = chances.gather(1, asked[:, None])[:, 0].double().numpy()
    right = (chances.argmax(1) == asked).double().numpy()
    labels = np.array(found.labels)
    per_class = {
        name: {
            "boxes": int((labels == name).sum()),
            "probability": float(likely[labels == name].mean()),
            "recognised": float(right[labels == name].mean()),
        }
        for name in gate.classes
        if (labels == name).any()
    }
    return Recognition(share(likely, found.images), share(right, found.images), per_class, len(labels))


def check_classes(images: ImageSet, gate: QualityGate) -> None:
    unknown = {box.label for boxes in images.objects for box in boxes} - set(gate.classes)
    if unknown:
        known = ", ".join(gate.classes)
        raise ValueError(f"{images.path}: class {sorted(unknown)[0]!r}, which the gate does not know; known: {known}")
