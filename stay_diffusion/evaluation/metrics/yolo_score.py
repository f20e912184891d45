"""Detection score: does a detector find the layouts' objects, where they were asked for? Higher is better.

python evaluations/yolo_score.py --samples GENERATED --reference REAL --detector OUTPUT/detector/detector.pt

The detector is one of train_detector.py, which is named beside the figures. They are made as YOLOScore (LAMA, ICCV
2021) is, which is that of a YOLOv4, and are none. Pictures are searched in their own size, one by one. The score of an
annotated reference is told too: what real pictures of the same kind reach.
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
from ..box_crops import opened
from ..image_set import ImageSet


def examples(images: ImageSet, classes: tuple[str, ...]) -> list[detector_data.Example]:
    """Images that were looked at and whose objects are known, as detection_score takes them.

    Boxes are clipped to their picture, those under a pixel left out. ValueError for a class that is not among these.
    """
    found = []
    for item, look, objects in zip(images.items, images.looks, images.objects, strict=True):
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
    """What is found in each image, on every process; several share them."""
    own = {}
    for number in range(len(images.items))[world.rank :: world.size]:
        picture = detector_data.enlarged(opened(images.items[number], 3, value_range), trained.scale)
        (found,) = detector.detect(trained, [picture])
        own[number] = tuple(values.numpy() for values in found)
    found = gather_shares(f"{images.path} searched", own)
    return [detector.Detections(*map(torch.from_numpy, values)) for values in found]


def score(
    images: ImageSet, found: list[detector.Detections], classes: tuple[str, ...], resamples: int, seed: int
) -> tuple[detection_score.DetectionScore, dict[str, float | None]]:
    """The figures, and the standard error of each by a bootstrap over the images."""
    items = examples(images, classes)
    return detection_score.score(found, items, classes), detection_score.standard_errors(
        found, items, classes, resamples, seed
    )
