"""Score detections by COCO's metrics, per class; pycocotools computes them."""

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..system.tables import markdown_table
from .data import Example, objects_per_class
from .networks import Detections, Detector, detect

VERSIONS = ("torch", "torchvision", "pycocotools")  # that scores depend on
PER_IMAGE = 100  # detections that count, as in COCO


@dataclass(frozen=True)
class DetectionScore:
    """COCO's metrics over boxes of all sizes and at most 100 detections per image.

    `map`, `recall`: means over the overlaps 0.50, 0.55 ... 0.95 and over classes; `ap50`, `recall50`: at 0.50.
    `per_class` has the same for each class and its number of objects; None where there is none, which then does not
    count in the means.
    """

    map: float
    ap50: float
    recall: float
    recall50: float
    per_class: dict[str, dict[str, float | None]]


def score_detector(detector: Detector, items: Sequence[Example]) -> tuple[list[Detections], DetectionScore]:
    """Search all images; return the detections and their score."""
    found = list(detect(detector, (item.picture(detector.scale) for item in items)))
    return found, score(found, items, detector.classes)


def score(found: Sequence[Detections], items: Sequence[Example], classes: Sequence[str]) -> DetectionScore:
    """Score detections, one Detections for each image; ValueError where no image has an object."""
    metrics = _metrics(_evaluate(found, items, classes))
    means = _means(metrics)
    per_class: dict[str, dict[str, float | None]] = {}
    for (name, count), *values in zip(objects_per_class(items, classes).items(), *metrics.values(), strict=True):
        of_class = {metric: float(value) if count else None for metric, value in zip(metrics, values, strict=True)}
        per_class[name] = {**of_class, "objects": count}
    return DetectionScore(means["ap"], means["ap50"], means["recall"], means["recall50"], per_class)


def standard_errors(
    found: Sequence[Detections], items: Sequence[Example], classes: Sequence[str], resamples: int, seed: int
) -> dict[str, float | None]:
    """Return the standard errors of `map`, `ap50`, `recall`, `recall50`.

    They are the deviation over `resamples` sets of images drawn with replacement; None for fewer than 2 resamples.
    """
    if resamples < 2:
        return dict.fromkeys(("map", "ap50", "recall", "recall50"))
    evaluation = _evaluate(found, items, classes)
    N = len(items)
    rows = [evaluation.evalImgs[start : start + N] for start in range(0, len(evaluation.evalImgs), N)]  # a class each
    drawn = []
    for number in range(resamples):
        places = np.random.default_rng((seed, number)).integers(N, size=N)
        evaluation.evalImgs = [row[place] for row in rows for place in places]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        drawn.append(_means(_metrics(evaluation)))
    spreads = {name: float(np.std([each[name] for each in drawn], ddof=1)) for name in drawn[0]}
    return {"map": spreads.pop("ap"), **spreads}


def _evaluate(found: Sequence[Detections], items: Sequence[Example], classes: Sequence[str]) -> Any:
    """Return pycocotools' evaluation, over boxes of all sizes."""
    from pycocotools.cocoeval import COCOeval

    if not any(len(item.labels) for item in items):
        raise ValueError("no picture has an object to be found: nothing to measure")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = _coco(items, classes, (_objects(place, item) for place, item in enumerate(items, 1)))
        answers = _coco(items, classes, (_detections(place, one) for place, one in enumerate(found, 1)))
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _metrics(evaluation: Any) -> dict[str, np.ndarray]:
    """Return each metric of each class; -1 for those without objects."""
    # overlaps, recall levels, classes, sizes (all), numbers of detections (100 last)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    recall = evaluation.eval["recall"][:, :, 0, -1]
    return {
        "ap": precision.mean(axis=(0, 1)),
        "ap50": precision[0].mean(axis=0),
        "recall": recall.mean(axis=0),
        "recall50": recall[0],
    }


def _means(metrics: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the means over the classes that have objects."""
    return {name: float(np.mean(values[values > -1])) for name, values in metrics.items()}


def _coco(items: Sequence[Example], classes: Sequence[str], annotations: Iterable[list[dict]]) -> Any:
    """Return boxes, of objects or of detections, as pycocotools takes them."""
    from pycocotools.coco import COCO

    coco, entries = COCO(), [entry for of_image in annotations for entry in of_image]
    coco.dataset = {
        "images": [{"id": place} for place in range(1, len(items) + 1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, 1)],
        "annotations": [{**entry, "id": number, "iscrowd": 0} for number, entry in enumerate(entries, 1)],
    }
    coco.createIndex()
    return coco


def _objects(place: int, item: Example) -> list[dict]:
    return [_entry(place, *of_box) for of_box in zip(item.boxes.tolist(), item.labels.tolist(), strict=True)]


def _detections(place: int, found: Detections) -> list[dict]:
    boxes, scores, labels = (values.tolist() for values in found)
    return [
        _entry(place, box, label) | {"score": score} for box, score, label in zip(boxes, scores, labels, strict=True)
    ]


def _entry(place: int, box: Sequence[float], label: int) -> dict:
    width, height = box[2] - box[0], box[3] - box[1]
    return {
        "image_id": place,
        "category_id": label,
        "bbox": [box[0], box[1], width, height],
        "area": width * height,
    }


def detections_json(found: Sequence[Detections], items: Sequence[Example], classes: Sequence[str]) -> list[dict]:
    """Return COCO's list of results, with file names and class names beside the ids."""
    return [
        {"file_name": item.path.name, "category": classes[entry["category_id"] - 1]}
        | {name: entry[name] for name in ("image_id", "category_id", "bbox", "score")}
        for place, (item, one) in enumerate(zip(items, found, strict=True), 1)
        for entry in _detections(place, one)
    ]


def table(score: DetectionScore) -> str:
    """Return a Markdown table, a row for each class and one for the means."""
    metrics = ("ap", "ap50", "recall", "recall50")
    rows = []
    for name, of_class in score.per_class.items():
        values = ["-" if (value := of_class[metric]) is None else f"{value:.3f}" for metric in metrics]
        rows.append([name, str(of_class["objects"]), *values])
    total = sum(int(of_class["objects"] or 0) for of_class in score.per_class.values())
    means = (score.map, score.ap50, score.recall, score.recall50)
    rows.append(["**mean**", str(total), *(f"**{value:.3f}**" for value in means)])
    return markdown_table(("class", "objects", "AP", "AP50", "recall", "recall at 0.50"), rows)
