"""Train a small detector on a data set's training images and measure it on the validation images.

python evaluations/train_detector.py --data_dir DATA --out OUTPUT/detector
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..config import DataConfig
from ..config.flags import dump, parse
from ..detector.options import DetectorConfig, TrainDetector

if TYPE_CHECKING:
    from ..data.annotations import Vocabulary
    from ..detector.data import Example

PRINTED = 10  # progress lines


def main() -> int:
    options, _, switches = parse(TrainDetector, __doc__.partition("\n")[0])
    if switches["print_config"]:
        print(dump(options), end="")
        return 0
    run, training = options.run, options.training
    for name in ("data_dir", "out"):
        if not getattr(run, name):
            raise ValueError(f"--{name}: needed")

    # Imported only now, so that --help and mistyped flags answer at once.
    from ..detector import data as detector_data
    from ..detector import networks
    from ..detector import score as scoring
    from ..detector import training as detector_training
    from ..run.checkpoint import sha256, write_text
    from ..system.device import pick_device
    from ..system.storage import make_folder
    from ..system.versions import installed_versions

    device = pick_device(run.device)
    data = DataConfig(run.data_dir, run.dataset_mode, val_fraction=run.val_fraction, class_map=run.class_map)
    records, vocabulary = detector_data.read(data, "train")
    items = detector_data.examples(detector_data.choose(records, run.num_real), vocabulary, data)
    test = read_test(data, vocabulary)
    print_plan(items, test, vocabulary, training)
    if switches["dry_run"]:
        return 0

    out = make_folder("out", run.out)
    started = time.perf_counter()
    detector = detector_training.train(items, vocabulary, training, run.seed, device, progress(training.steps))
    networks.save(out / "detector.pt", detector)
    report = {
        "seconds": round(time.perf_counter() - started, 1),
        "protocol": {**asdict(run), **asdict(training), "images": len(items), "test_images": len(test)},
        "sha256": sha256(out / "detector.pt"),
        "versions": installed_versions(scoring.VERSIONS),
    }
    if test:
        _, score = scoring.score_detector(detector, test)
        table = scoring.table(score)
        report |= asdict(score)
        print(table)
        write_text(out / "detector.md", table)
    write_text(out / "detector.json", json.dumps(report, indent=2) + "\n")
    print(f"written: {out.resolve()} ({report['seconds']} s of training)")
    return 0


def read_test(data: DataConfig, vocabulary: "Vocabulary") -> "list[Example]":
    """Return the validation images; none where nothing is held out."""
    from ..data.annotations import EmptySplit
    from ..detector import data as detector_data
    from ..run.factory import with_names

    data = with_names(data, vocabulary)
    try:
        return detector_data.examples(detector_data.read(data, "val")[0], vocabulary, data)
    except EmptySplit:
        return []


def print_plan(
    items: "Sequence[Example]", test: "Sequence[Example]", vocabulary: "Vocabulary", training: DetectorConfig
) -> None:
    from ..detector import data as detector_data
    from ..detector import training as detector_training

    counts = detector_data.objects_per_class(items, vocabulary.classes)
    print(f"{len(items)} pictures to train on, {len(test)} to measure on")
    print("objects: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    print(detector_training.describe(training))
    if warning := detector_training.warn_of_small_objects(items, training):
        print(f"warning: {warning}")


def progress(steps: int) -> Callable[[int, float], None]:
    """Return a function that prints the mean loss a few times in a training."""
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step % max(1, steps // PRINTED) == 0 or step == steps:
            print(f"step {step}: loss {sum(losses) / len(losses):.3f}", flush=True)
            losses.clear()

    return on_step
