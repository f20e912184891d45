"""How well a detector finds the objects of a data set: COCO's mean average precision, AP50 and recall, per class.

python evaluations/detection_score.py DATA --detector OUTPUT/detector/detector.pt

DATA is a data set, or a folder that image_sample.py has made: then the figures say whether a detector trained on real
pictures recognises what was drawn, where it was asked for (as YOLOScore does). pycocotools computes them.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..data.datasets import DATASETS
from ..run.checkpoint import atomic_write, sha256
from ..system.device import pick_device
from . import data as detector_data
from . import networks as detector

PER_IMAGE = 100  # detections that count, as in COCO


@dataclass(frozen=True)
class Score:
    """COCO's figures over boxes of all sizes and at most 100 detections per picture.

    `map`, `recall`: means over the overlaps 0.50, 0.55 ... 0.95 and over classes; `ap50`, `recall50`: at 0.50.
    `per_class` has the same for each class and its number of objects; None where there is none, which then does not
    count in the means.
    """

    map: float
    ap50: float
    recall: float
    recall50: float
    per_class: dict[str, dict[str, float | None]]


def score(
    found: Sequence[detector.Detections], items: Sequence[detector_data.Example], classes: Sequence[str]
) -> Score:
    """The figures of detections, one Detections for each picture; ValueError where no picture has an object."""
    evaluation = _evaluated(found, items, classes)
    objects = detector_data.objects_per_class(items, classes)
    figures = _figures(evaluation)
    there = [place for place, name in enumerate(classes) if objects[name]]
    means = _means(figures)
    per_class = {
        name: {figure: float(values[place]) if place in there else None for figure, values in figures.items()}
        | {"objects": objects[name]}
        for place, name in enumerate(classes)
    }
    return Score(means["ap"], means["ap50"], means["recall"], means["recall50"], per_class)


def standard_errors(
    found: Sequence[detector.Detections],
    items: Sequence[detector_data.Example],
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, float | None]:
    """Of `map`, `ap50`, `recall`, `recall50`: their deviation over `resamples` sets of pictures drawn with replacement.

    None for fewer than 2 resamples.
    """
    if resamples < 2:
        return dict.fromkeys(("map", "ap50", "recall", "recall50"))
    evaluation = _evaluated(found, items, classes)
    N = len(items)
    rows = [evaluation.evalImgs[start : start + N] for start in range(0, len(evaluation.evalImgs), N)]  # a class each
    drawn = []
    for number in range(resamples):
        places = np.random.default_rng((seed, number)).integers(N, size=N)
        evaluation.evalImgs = [row[place] for row in rows for place in places]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        drawn.append(_means(_figures(evaluation)))
    spreads = {name: float(np.std([each[name] for each in drawn], ddof=1)) for name in drawn[0]}
    return {"map": spreads.pop("ap"), **spreads}


def _evaluated(found: Sequence, items: Sequence[detector_data.Example], classes: Sequence[str]):
    """pycocotools' evaluation, over boxes of all sizes."""
    from pycocotools.cocoeval import COCOeval

    if not any(len(item.labels) for item in items):
        raise ValueError("no picture has an object to be found: nothing to measure")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = _coco(items, classes, (_objects(place, item) for place, item in enumerate(items, 1)))
        answers = _coco(items, classes, (_found(place, one) for place, one in enumerate(found, 1)))
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _figures(evaluation) -> dict[str, np.ndarray]:
    """Each figure of each class; -1 for those without objects."""
    # overlaps, recall levels, classes, sizes (all), numbers of detections (100 last)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    recall = evaluation.eval["recall"][:, :, 0, -1]
    return {
        "ap": precision.mean(axis=(0, 1)),
        "ap50": precision[0].mean(axis=0),
        "recall": recall.mean(axis=0),
        "recall50": recall[0],
    }


def _means(figures: dict[str, np.ndarray]) -> dict[str, float]:
    """Over the classes that have objects."""
    return {name: float(np.mean(values[values > -1])) for name, values in figures.items()}


def _coco(items: Sequence, classes: Sequence[str], annotations: Iterator[list[dict]]):
    """The boxes as pycocotools takes them, of the truth or of what was found."""
    from pycocotools.coco import COCO

    coco, entries = COCO(), [entry for of_image in annotations for entry in of_image]
    coco.dataset = {
        "images": [{"id": place} for place in range(1, len(items) + 1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, 1)],
        "annotations": [{**entry, "id": number, "iscrowd": 0} for number, entry in enumerate(entries, 1)],
    }
    coco.createIndex()
    return coco


def _objects(place: int, item: detector_data.Example) -> list[dict]:
    return [_entry(place, *of_box) for of_box in zip(item.boxes.tolist(), item.labels.tolist(), strict=True)]


def _found(place: int, found: detector.Detections) -> list[dict]:
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


def detections_json(found: Sequence[detector.Detections], items: Sequence, classes: Sequence[str]) -> list[dict]:
    """COCO's list of results, with file names and class names beside the ids."""
    return [
        {"file_name": item.path.name, "category": classes[entry["category_id"] - 1]}
        | {name: entry[name] for name in ("image_id", "category_id", "bbox", "score")}
        for place, (item, one) in enumerate(zip(items, found, strict=True), 1)
        for entry in _found(place, one)
    ]


def table(score: Score) -> str:
    """A Markdown table, a row for each class and one for the means."""
    rows = [("class", "objects", "AP", "AP50", "recall", "recall at 0.50"), ("---",) * 6]
    for name, of_class in score.per_class.items():
        figures = [of_class[figure] for figure in ("ap", "ap50", "recall", "recall50")]
        rows.append((name, str(of_class["objects"]), *("-" if x is None else f"{x:.3f}" for x in figures)))
    total = sum(of_class["objects"] for of_class in score.per_class.values())
    means = (score.map, score.ap50, score.recall, score.recall50)
    rows.append(("**mean**", str(total), *(f"**{x:.3f}**" for x in means)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def main() -> int:
    args = parse_arguments()
    trained = detector.load(args.detector, pick_device(args.device))
    names = {"classes": trained.classes, "product_tags": trained.products}
    data = DataConfig(str(args.data), args.dataset_mode, val_fraction=args.val_fraction, **names)
    records, vocabulary = detector_data.read(data, args.split)
    items = detector_data.examples(records, vocabulary, data)
    found = list(detector.detect(trained, (item.picture(trained.scale) for item in items)))
    figures = score(found, items, trained.classes)

    print(
        f"{len(items)} pictures, detector {trained.name}, sha256 {sha256(args.detector)[:12]}", table(figures), sep="\n"
    )
    report = asdict(figures) | {
        "protocol": {
            "data": str(args.data.resolve()),
            "split": args.split,
            "images": len(items),
            "detector": str(args.detector.resolve()),
            "detector_sha256": sha256(args.detector),
            "versions": {name: version(name) for name in ("torch", "torchvision", "pycocotools")},
        }
    }
    for path, content in (
        (args.json, report),
        (args.detections, detections_json(found, items, trained.classes)),
    ):
        if path:
            text = json.dumps(content, indent=2) + "\n"
            atomic_write(path, lambda file, text=text: file.write(text.encode()))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", type=Path, help="data set, or folder made by image_sample.py")
    parser.add_argument("--detector", type=Path, required=True, help="detector.pt, as train_detector.py writes it")
    parser.add_argument("--dataset_mode", choices=DATASETS, default="sdi", help="the format of a data set")
    parser.add_argument("--split", choices=("val", "train"), default="val", help="which pictures of a data set")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share held out where there is no val folder")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures and their protocol")
    parser.add_argument("--detections", type=Path, metavar="OUT", help="also write what was found, as COCO's results")
    args = parser.parse_args()
    for name in ("json", "detections"):
        path = getattr(args, name)
        if path and not path.resolve().parent.is_dir():
            raise ValueError(f"--{name} {path}: no such folder")
    return args
