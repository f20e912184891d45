"""Recognised boxes: share of boxes in which a classifier of real objects sees their label; higher is better.

The classifier is the quality gate's, which also knows "nothing there": --gate FILE, else that of the run that made the
samples, else one trained on the training split of --data_dir. Any annotated pictures will do, real ones too.
"""

from typing import NamedTuple

import numpy as np

from ...quality.classifier import probabilities
from ...quality.crops import SIDE, without_rim
from ...quality.gate import QualityGate
from ..box_crops import box_crops, check_boxes, mean_over_boxes
from ..comparison import Comparison
from ..figures import Estimate, Figure
from ..gate_choice import check_gate, choose_gate
from ..image_set import ImageSet
from ..metric import Metric


class Recognition(NamedTuple):
    """The mean probability of the asked class, and the share of boxes for which none is likelier; per class too."""

    probability: Estimate
    recognised: Estimate
    per_class: dict[str, dict[str, float]]
    boxes: int


def recognition(images: ImageSet, gate: QualityGate) -> Recognition:
    """Classify the boxes of images whose objects are known; ValueError for a class that the gate does not know."""
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
    return Recognition(
        mean_over_boxes(likely, found.images), mean_over_boxes(right, found.images), per_class, len(labels)
    )


def check_classes(images: ImageSet, gate: QualityGate) -> None:
    unknown = {box.label for boxes in images.known_objects for box in boxes} - set(gate.classes)
    if unknown:
        known = ", ".join(gate.classes)
        raise ValueError(f"{images.path}: class {sorted(unknown)[0]!r}, which the gate does not know; known: {known}")


# The metric


def check(comparison: Comparison) -> None:
    check_boxes(comparison.labelled_samples)
    check_gate(comparison)


def recognised_figures(comparison: Comparison, _: None) -> list[Figure]:
    """Classify on the first process alone: a crop costs little beside reading its image."""
    gate, origin = choose_gate(comparison)
    found = recognition(comparison.labelled_samples, gate)
    held_out = gate.protocol["held_out"]["objects"]
    accuracy = held_out["accuracy"]
    protocol = comparison.facts(with_reference=False) | {
        "gate": origin,
        "gate_digest": gate.protocol.get("digest"),
        "gate_right_about": "unknown: nothing was held out"
        if accuracy is None
        else f"{accuracy:.1%} of {held_out['crops']} real boxes that were held out",
        "boxes": found.boxes,
        "crop": f"the box and as much around it, {SIDE}",
    }
    how, details = "standard error over images", {"per_class": found.per_class}
    return [
        Figure(name, figure.value, "higher", figure.standard_error, how, protocol, details)
        for name, figure in (("class probability", found.probability), ("recognised boxes", found.recognised))
    ]


METRIC = Metric(check, lambda comparison: None, recognised_figures)
