"""Detection score: does a detector find the layouts' objects where they were asked for? Higher is better.

The detector is one of train_detector.py, which is named beside the figures. They are computed as YOLOScore (LAMA, ICCV
2021) is, which is that of a YOLOv4, and are none. Images are searched in their own size, one by one. The score of an
annotated reference is given too: the score of real images of the same kind.
"""

from pathlib import Path

import numpy as np
import torch

from ...data.annotations import boxes_array
from ...data.images import Range
from ...detector import data as detector_data
from ...detector import networks as detector
from ...detector import score as detection_score
from ...system.distributed import gather_shares
from ...system.launchers import ALONE, World
from ..box_crops import check_boxes, open_image
from ..comparison import Comparison, file_facts
from ..figures import Figure
from ..image_set import ImageSet
from ..metric import Metric

Found = tuple[detector.Detector, dict[str, tuple[ImageSet, list[detector.Detections]]]]


def examples(images: ImageSet, classes: tuple[str, ...]) -> list[detector_data.Example]:
    """Return images whose objects are known as detection_score takes them.

    Boxes are clipped to their image, those under a pixel left out. ValueError for a class that is not among `classes`.
    """
    found = []
    for item, look, objects in zip(images.images, images.looks, images.known_objects, strict=True):
        unknown = next((box.label for box in objects if box.label not in classes), None)
        if unknown:
            raise ValueError(f"{images.path}: class {unknown!r}, which the detector was not trained on: {classes}")
        size = np.array([look.width, look.height] * 2)
        boxes = boxes_array(objects) * size
        boxes = boxes.clip(0, size)
        labels = np.array([classes.index(box.label) + 1 for box in objects], dtype=np.int64)
        kept = (boxes[:, 2:] - boxes[:, :2] >= detector_data.LEAST_SIDE).all(axis=1)
        path = item if isinstance(item, Path) else Path(images.path)
        found.append(detector_data.Example(path, True, boxes[kept].astype(np.float32), labels[kept]))
    return found


def detections(
    images: ImageSet, trained: detector.Detector, value_range: Range | None = None, world: World = ALONE
) -> list[detector.Detections]:
    """Search each image; the detections on every process, several of which share the images."""
    own, items = {}, images.images
    for number in range(len(items))[world.rank :: world.size]:
        image = detector_data.enlarged(open_image(items[number], 3, value_range), trained.scale)
        (found,) = detector.detect(trained, [image])
        own[number] = tuple(values.numpy() for values in found)
    gathered = gather_shares(f"{images.path} searched", own)
    return [detector.Detections(*map(torch.from_numpy, values)) for values in gathered]


# The metric


def detector_file(comparison: Comparison) -> Path:
    name = comparison.options.detector
    if not name:
        raise ValueError("needs --detector FILE, a detector.pt of train_detector.py")
    if not Path(name).is_file():
        raise ValueError(f"--detector {name}: no such file (train_detector.py makes it)")
    return Path(name)


def check(comparison: Comparison) -> None:
    """Raise where there is no detector, or no boxes of its classes."""
    import pycocotools  # noqa: F401

    check_boxes(comparison.labelled_samples)
    examples(comparison.labelled_samples, detector.load(detector_file(comparison)).classes)


def detect(comparison: Comparison) -> Found:
    """Search the samples, and the reference where its objects are known; all processes take part."""
    trained = detector.load(detector_file(comparison), comparison.device)
    sides = {"": comparison.labelled_samples, " of the reference": annotated_reference(comparison, trained)}
    value_range, world = comparison.data.black_and_white, comparison.world
    found = {name: (side, detections(side, trained, value_range, world)) for name, side in sides.items() if side}
    return trained, found


def annotated_reference(comparison: Comparison, trained: detector.Detector) -> ImageSet | None:
    """Return the reference, if it has objects of the detector's classes."""
    try:
        reference = comparison.labelled_reference
        check_boxes(reference)
        examples(reference, trained.classes)
    except ValueError:
        return None
    return reference


def detection_figures(comparison: Comparison, found: Found) -> list[Figure]:
    trained, sides = found
    options, figures = comparison.options, []
    how = f"standard error, bootstrap of {options.bootstrap}" if options.bootstrap > 1 else ""
    for name, (side, detected) in sides.items():
        items = examples(side, trained.classes)
        score = detection_score.score(detected, items, trained.classes)
        errors = detection_score.standard_errors(detected, items, trained.classes, options.bootstrap, options.seed)
        protocol = comparison.facts(with_reference=bool(name)) | {
            "detector_network": trained.name,
            **file_facts(detector=detector_file(comparison)),
            "scale": trained.scale,
            "objects": sum(each["objects"] or 0 for each in score.per_class.values()),
            "at_most": f"{detection_score.PER_IMAGE} detections in a picture",
            **({"seed": options.seed} if how else {}),
        }
        details = {"per_class": score.per_class}
        for label, key in (("mAP", "map"), ("AP50", "ap50"), ("recall at 0.50", "recall50")):
            figure = f"detection score ({trained.name}), {label}{name}"
            figures.append(Figure(figure, getattr(score, key), "higher", errors[key], how, protocol, details))
    return figures


METRIC = Metric(check, detect, detection_figures)
