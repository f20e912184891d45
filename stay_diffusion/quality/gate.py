"""The quality gate: scores labelled images one by one against the real objects of a run's training split."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..data.annotations import RelativeBox
from ..data.images import Range, converted
from .adherence import adherences
from .classifier import CropClassifier, probabilities
from .crops import Crop, cut, without_rim
from .neighbours import References, nearest
from .scores import NOTHING, BoxQuality, Copy, ImageQuality

DIGITS = 6  # of figures: what floats of another machine agree on


@dataclass(frozen=True)
class QualityGate:
    """A classifier of `classes` and "nothing there", and the training objects, with the file and box of each.

    `protocol` says how they were made: what the classifier told rightly, the copy threshold, the data; its digest.
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
        """What is to be thought of an image whose boxes, in [0, 1], are `objects`; of any size, alone or not, the same.

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
        drawn = None
        if twin is not None:
            drawn = adherences(image, converted(twin, self.channels, self.value_range), objects)
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
                    None if drawn is None else round(drawn[i], DIGITS),
                )
            )
        return ImageQuality(tuple(boxes), self._most_alike(crops))

    def is_copy(self, quality: ImageQuality) -> bool:
        """Whether an image is as alike a training object as hardly any real object of another picture is."""
        return quality.copy is not None and quality.copy.similarity >= self.copy_threshold

    def probabilities(self, crops: Sequence[Crop]) -> Tensor:
        """(n, K + 1) of crops with their rims; the last is "nothing there"."""
        return probabilities(self.model, without_rim(torch.stack([torch.tensor(crop.pixels) for crop in crops])))

    def _most_alike(self, crops: Sequence[Crop]) -> Copy | None:
        """The training object that one of an image's crops is most alike."""
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
