"""The quality gate: score labelled images one by one, and all of a folder, against the objects of a training split."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.annotations import RelativeBox
from ..data.images import Range, converted
from ..data.manifest import ManifestEntry
from ..run.checkpoint import write_text
from .classifier import CropClassifier, probabilities
from .crops import Crop, cut, without_rim
from .neighbours import References, nearest
from .object_change import object_changes
from .scores import NOTHING, BoxQuality, Copy, ImageQuality

DIGITS = 6  # of figures: floats of another machine agree on these
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
SHOWN = 5  # of the best, the worst and the most copy-like


@dataclass(frozen=True)
class QualityGate:
    """A classifier of `classes` and "nothing there", and the training objects, with the file and box of each.

    `protocol` holds their making: the classifier's accuracy, the copy threshold, the data; and the digest.
    """

    classes: tuple[str, ...]
    channels: int
    flip: bool
    value_range: Range | None
    model: CropClassifier
    references: References
    labels: Tensor
    boxes: Tensor
    files: tuple[str, ...]
    file_of: Tensor
    copy_threshold: float
    protocol: dict

    def score(
        self, image: Image.Image, objects: Sequence[RelativeBox], twin: Image.Image | None = None
    ) -> ImageQuality:
        """Score the boxes of one image of any size, `objects` in [0, 1]; other images change nothing.

        `twin` is the image as it would be without objects: the sample of the same noise, or the picture that they were
        inserted into. Raises ValueError for a class that the gate does not know.
        """
        for box in objects:
            if box.label not in self.classes:
                raise ValueError(f"quality gate: unknown class {box.label!r}; known: {', '.join(self.classes)}")
        if not objects:
            return ImageQuality((), None)
        image = converted(image, self.channels, self.value_range)
        crops = [cut(image, box.pixels(*image.size).edges, self.channels) for box in objects]
        changes = None
        if twin is not None:
            changes = object_changes(image, converted(twin, self.channels, self.value_range), objects)
        names = (*self.classes, NOTHING)
        boxes = []
        for i, (box, chances) in enumerate(zip(objects, self.probabilities(crops), strict=True)):
            chance = chances[self.classes.index(box.label)].item()
            boxes.append(
                BoxQuality(
                    box.label,
                    box.edges,
                    round(chance, DIGITS),
                    names[int(chances.argmax())],
                    None if changes is None else round(changes[i], DIGITS),
                )
            )
        return ImageQuality(tuple(boxes), self._most_alike(crops))

    def is_copy(self, quality: ImageQuality) -> bool:
        """Tell whether an image is as alike a training object as hardly any real object of another image is."""
        return quality.copy is not None and quality.copy.similarity >= self.copy_threshold

    def probabilities(self, crops: Sequence[Crop]) -> Tensor:
        """Return (n, K + 1) of crops with their rims; the last is "nothing there"."""
        return probabilities(self.model, without_rim(torch.stack([torch.tensor(crop.pixels) for crop in crops])))

    def _most_alike(self, crops: Sequence[Crop]) -> Copy | None:
        """Find the training object that one of an image's crops is most alike."""
        found = [
            nearest(torch.tensor(crop.pixels), crop.inside, self.references, self.model, self.flip) for crop in crops
        ]
        box = max(range(len(found)), key=lambda place: found[place].similarity)
        place = found[box].place
        return Copy(
            round(found[box].similarity, DIGITS),
            box,
            self.files[self.file_of[place]],
            tuple(self.boxes[place].tolist()),
            self.classes[self.labels[place]],
        )


def write_quality(
    folder: Path, entries: Sequence[ManifestEntry], found: Sequence[ImageQuality], gate: QualityGate
) -> None:
    """Write quality.jsonl, a line for each of the manifest's `entries`, and quality.json, the sums and the protocol."""
    lines = [
        json.dumps({"index": entry.index, "stem": entry.stem, **quality.as_json()}) + "\n"
        for entry, quality in zip(entries, found, strict=True)
    ]
    figures = {**summarise(entries, found, gate), "protocol": gate.protocol}
    for name, text in (("quality.jsonl", "".join(lines)), ("quality.json", json.dumps(figures, indent=2) + "\n")):
        write_text(folder / name, text)


def summarise(entries: Sequence[ManifestEntry], found: Sequence[ImageQuality], gate: QualityGate) -> dict:
    """Summarise all images: per class, below thresholds, copies, best and worst."""
    of_class: dict[str, list[float]] = defaultdict(list)
    for quality in found:
        for box in quality.boxes:
            of_class[box.label].append(box.score)
    images = list(zip((entry.stem for entry in entries), found, strict=True))
    scores = [quality.score for quality in found if quality.boxes]
    ranked = sorted((quality.score, stem) for stem, quality in images if quality.boxes)
    alike = sorted(((quality.copy.similarity, stem) for stem, quality in images if quality.copy), reverse=True)
    return {
        "images": len(found),
        "with_boxes": len(scores),
        "boxes": sum(map(len, of_class.values())),
        "with_good_part": sum(any(box.object_change is not None for box in quality.boxes) for quality in found),
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
