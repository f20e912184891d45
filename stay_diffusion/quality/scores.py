"""The gate's scores of one image: each box's figures, the image's score, and the training object it is most alike."""

from dataclasses import dataclass

NOTHING = "nothing there"  # what a classifier may say instead of a class


@dataclass(frozen=True)
class BoxQuality:
    """A box in [0, 1] and its figures; `object_change` is None where there is no sample without the objects.

    Files call it adherence.
    """

    label: str
    box: tuple[float, float, float, float]
    class_probability: float
    predicted: str
    object_change: float | None = None

    @property
    def score(self) -> float:
        """Return the lesser of class probability and object change."""
        return self.class_probability if self.object_change is None else min(self.class_probability, self.object_change)


@dataclass(frozen=True)
class Copy:
    """The training object that an image's most copy-like box, the `box`-th, is most alike: its box in pixels of `file`.

    Whether this makes a copy of it is for a threshold to say.
    """

    similarity: float
    box: int
    file: str
    training_box: tuple[float, float, float, float]
    training_label: str


@dataclass(frozen=True)
class ImageQuality:
    boxes: tuple[BoxQuality, ...]
    copy: Copy | None

    @property
    def score(self) -> float:
        """Return the score of the worst box; 1 where there is none."""
        return min((box.score for box in self.boxes), default=1.0)

    def as_json(self) -> dict:
        """Return the line of quality.jsonl, without the image's index and stem."""
        copy = self.copy and {
            "similarity": self.copy.similarity,
            "box": self.copy.box,
            "file": self.copy.file,
            "training_box": list(self.copy.training_box),
            "training_label": self.copy.training_label,
        }
        boxes = [
            {
                "label": box.label,
                "box": list(box.box),
                "class_probability": box.class_probability,
                "predicted": box.predicted,
                "adherence": box.object_change,
                "score": box.score,
            }
            for box in self.boxes
        ]
        return {"score": self.score, "boxes": boxes, "copy": copy}

    @staticmethod
    def of_json(line: dict) -> "ImageQuality":
        """Read what `as_json` has made."""
        boxes = tuple(
            BoxQuality(
                each["label"], tuple(each["box"]), each["class_probability"], each["predicted"], each["adherence"]
            )
            for each in line["boxes"]
        )
        copy = line["copy"]
        return ImageQuality(boxes, copy and Copy(**{**copy, "training_box": tuple(copy["training_box"])}))
