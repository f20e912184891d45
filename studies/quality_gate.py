"""Does the quality gate tell planted failures from real defects? Nothing but the data set is needed.

    python studies/quality_gate.py --data_dir DEEPPCB --out DIR [--image_size 64] [--num_pictures 0]

A gate is trained on the training split, as for a model of unscaled windows, and kept in DIR. Then the gate scores the
validation split as it is, and with failures planted into it: the boxes moved to where nothing is drawn; the same boxes
on the defect-free templates of the pictures, where there are such (STEM with _temp for _test, in val/templates); every
label replaced by another. For copies it scores training pictures, exact, and changed a little. Everything twice: in
whole pictures, and in windows of the network's size around each box, as samples show them. Printed for each kind is the
area under the ROC curve between real validation boxes and planted ones: of the score, and for copies of the similarity.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from reporting import write_json
from scipy.stats import mannwhitneyu

from stay_diffusion.config import DataConfig, ModelConfig, RunConfig
from stay_diffusion.data import transforms
from stay_diffusion.data.annotations import Box, ImageRecord, boxes_array
from stay_diffusion.data.images import read_image
from stay_diffusion.quality.examples import meets
from stay_diffusion.quality.gate import QualityGate
from stay_diffusion.quality.run_gate import gate_of_run
from stay_diffusion.run import factory
from stay_diffusion.system.command import argument_parser, run_command

TRIES = 200
Rng = np.random.Generator


class Case(NamedTuple):
    image: Image.Image
    boxes: list[Box]  # in pixels


def real(case: Case, rng: Rng) -> Case:
    return case


def moved(case: Case, rng: Rng) -> Case:
    """Every box to a random place that meets none of the old ones."""
    drawn = boxes_array(case.boxes)
    places = []
    for label, size in zip((box.label for box in case.boxes), drawn[:, 2:] - drawn[:, :2], strict=True):
        for _ in range(TRIES):
            start = rng.uniform(0, np.array(case.image.size) - size)
            place = np.concatenate([start, start + size])
            if not meets(place, drawn).any():
                places.append(Box(label, *place.tolist()))
                break
    return Case(case.image, places)


def wrong(classes: tuple[str, ...]) -> Callable[[Case, Rng], Case]:
    def other(label: str, rng: Rng) -> str:
        return rng.choice([name for name in classes if name != label]).item()

    return lambda case, rng: Case(case.image, [replace(box, label=other(box.label, rng)) for box in case.boxes])


def changed(change: Callable[[np.ndarray, Rng], np.ndarray]) -> Callable[[Case, Rng], Case]:
    def apply(case: Case, rng: Rng) -> Case:
        values = change(np.asarray(case.image, dtype=np.float64), rng)
        return Case(Image.fromarray(values.round().clip(0, 255).astype(np.uint8)), case.boxes)

    return apply


def shifted(values: np.ndarray, rng: Rng) -> np.ndarray:
    return np.roll(values, rng.choice([-1, 1], size=2), axis=(0, 1))


def brighter(values: np.ndarray, rng: Rng) -> np.ndarray:
    return 0.8 * values + 30


def noisy(values: np.ndarray, rng: Rng) -> np.ndarray:
    return values + rng.normal(0, 10, values.shape)


COPIES = {
    "exact copies": real,
    "copies, brightness changed": changed(brighter),
    "copies, shifted by a pixel each way": changed(shifted),
    "copies with noise of 10 grey levels": changed(noisy),
    "copies, all three": changed(lambda values, rng: noisy(brighter(shifted(values, rng), rng), rng)),
}


def whole(case: Case, size: int, rng: Rng) -> Iterator[Case]:
    yield case


def windows(case: Case, size: int, rng: Rng) -> Iterator[Case]:
    """A window of the network's size around each box, with that box alone."""
    for box in case.boxes:
        edges = box.array()[None]
        x0, y0, x1, y1 = map(round, transforms.around_object(*case.image.size, edges, size, rng))
        inside = Box(box.label, box.x0 - x0, box.y0 - y0, box.x1 - x0, box.y1 - y0)
        yield Case(case.image.crop((x0, y0, x1, y1)), [inside])


VIEWS = {"whole": whole, "window": windows}


def score_boxes(gate: QualityGate, cases: list[Case], plant, view: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all boxes, and similarities of what is most alike in each view to a training object."""
    rng, scores, similar = np.random.default_rng(0), [], []
    for case in cases:
        for seen in VIEWS[view](plant(case, rng), size, rng):
            W, H = seen.image.size
            for box in seen.boxes:  # one by one, so that similarities are those of boxes
                quality = gate.score(seen.image, [box.relative(W, H)])
                scores.append(quality.score)
                similar.append(quality.copy.similarity)
    return np.array(scores), np.array(similar)


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    return float(mannwhitneyu(higher, lower).statistic / (len(higher) * len(lower)))


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    size = arguments.image_size
    data = DataConfig(data_dir=str(arguments.data_dir), crop_policy="object", random_flip=True)
    records, vocabulary = factory.read_split(data, "train")
    config = RunConfig(data, ModelConfig(image_size=size, image_channels=1))
    config = factory.with_vocabulary(config, vocabulary)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    gate = gate_of_run(config, arguments.out)
    seconds = time.process_time() - started

    validation, _ = factory.read_split(config.data, "val")
    rows = compare(gate, records, validation, size, arguments.num_pictures or 100)
    protocol = {**gate.protocol, "image_size": size, "torch": torch.__version__, "cpu_seconds": round(seconds, 1)}
    print_results(rows, protocol)
    write_json(arguments.out / "quality_gate.json", {"protocol": protocol, "rows": rows})
    return 0


def compare(
    gate: QualityGate, records: list[ImageRecord], validation: list[ImageRecord], size: int, most: int
) -> list[dict]:
    """Score real boxes against planted failures, and copies of training images, in both views."""
    real_cases = [case_of(record) for record in validation if record.boxes][:most]
    training = [case_of(record) for record in records if record.boxes]
    training = [training[i] for i in np.random.default_rng(1).permutation(len(training))[:most]]
    good = [case_of(record, template) for record in validation[:most] if (template := template_of(record)).is_file()]

    rows = []
    for view in VIEWS:
        score, similar = score_boxes(gate, real_cases, real, view, size)
        quantiles = np.quantile(score, [0.01, 0.05, 0.5]).round(3).tolist()
        called = float((similar >= gate.copy_threshold).mean())
        rows.append({"view": view, "kind": "real", "boxes": len(score), "quantiles": quantiles, "copies": called})
        failures = [("moved to where nothing is", real_cases, moved), ("wrong class", real_cases, wrong(gate.classes))]
        failures += [("on the good part's picture", good, real)] if good else []
        for kind, cases, plant in failures:
            planted, _ = score_boxes(gate, cases, plant, view, size)
            rows.append({"view": view, "kind": kind, "boxes": len(planted), "auc": auc(score, planted)})
        for kind, plant in COPIES.items():
            _, planted = score_boxes(gate, training, plant, view, size)
            called = float((planted >= gate.copy_threshold).mean())
            rows.append(
                {"view": view, "kind": kind, "boxes": len(planted), "auc": auc(planted, similar), "copies": called}
            )
    return rows


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="an annotated data set with both splits")
    parser.add_argument("--out", type=Path, required=True, help="folder for the gate and the figures")
    parser.add_argument("--image_size", type=int, default=64, help="the windows' side")
    parser.add_argument("--num_pictures", type=int, default=0, help="pictures of either split to score; 0: 100")
    return parser.parse_args()


def case_of(record: ImageRecord, picture: Path | None = None) -> Case:
    return Case(read_image(picture or record.path, 1), list(record.boxes))


def template_of(record: ImageRecord) -> Path:
    return record.path.parents[1] / "templates" / f"{record.stem.replace('_test', '_temp')}{record.path.suffix}"


def print_results(rows: list[dict], protocol: dict) -> None:
    print(json.dumps(protocol, indent=2))
    print("\n| seen in | boxes that are | number | AUC against real ones | called copies |")
    print("|---|---|---|---|---|")
    for row in rows:
        area = f"{row['auc']:.4f}" if "auc" in row else "(scores at 1, 5, 50 %: {}, {}, {})".format(*row["quantiles"])
        copies = f"{100 * row['copies']:.1f} %" if "copies" in row else ""
        print(f"| {row['view']} | {row['kind']} | {row['boxes']} | {area} | {copies} |")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    run_command(main)
