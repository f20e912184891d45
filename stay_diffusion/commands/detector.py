"""Trains a small detector on a data set's training pictures and measures it on the validation pictures.

python evaluations/train_detector.py --data_dir DATA --out OUTPUT/detector
"""

import json
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from ..config import DataConfig, option
from ..config.flags import dump, parse
from ..data.annotations import EmptySplit
from ..data.datasets import DATASETS
from ..detector import data as detector_data
from ..detector import networks as detector
from ..detector import score as detection_score
from ..detector import training as detector_training
from ..detector.training import DetectorConfig
from ..run import factory
from ..run.checkpoint import atomic_write, sha256
from ..system.device import pick_device

PRINTED = 10  # progress lines


@dataclass(frozen=True)
class RunConfig:
    data_dir: str = option("", "data set: its train split is trained on, its val split measured on")
    dataset_mode: str = option("sdi", "its format", DATASETS)
    val_fraction: float = option(0.1, "share held out where it has no val folder", least=0, most=1)
    class_map: tuple = option((), "tags read as other names: TAG=NAME, or TAG= to leave its boxes out")
    num_real: int = option(0, "train on so many of the pictures, always the same ones; 0: all", least=0)
    out: str = option("", "folder for detector.pt, detector.json and detector.md")
    seed: int = option(0, "of the initial weights, the order and the crops", least=0)
    device: str = option("", "cpu, cuda, cuda:1 ...; empty: a GPU if there is one")


@dataclass(frozen=True)
class TrainDetector:
    """What train_detector.py takes."""

    run: RunConfig = RunConfig()
    training: DetectorConfig = DetectorConfig()


def main() -> int:
    options, _, switches = parse(TrainDetector, __doc__.partition("\n")[0])
    run, training = options.run, options.training
    if switches["print_config"]:
        print(dump(options), end="")
        return 0
    for name in ("data_dir", "out"):
        if not getattr(run, name):
            raise ValueError(f"--{name}: needed")
    device = pick_device(run.device)

    data = DataConfig(run.data_dir, run.dataset_mode, val_fraction=run.val_fraction, class_map=run.class_map)
    records, vocabulary = detector_data.read(data, "train")
    items = detector_data.examples(detector_data.choose(records, run.num_real), vocabulary, data)
    test = read_test(data, vocabulary)
    say_what(items, test, vocabulary, training)
    if switches["dry_run"]:
        return 0

    out = opened(run.out)
    started = time.perf_counter()
    trained = detector_training.train(items, vocabulary, training, run.seed, device, progress(training.steps))
    detector.save(out / "detector.pt", trained)
    report = {
        "seconds": round(time.perf_counter() - started, 1),
        "protocol": {**asdict(run), **asdict(training), "images": len(items), "test_images": len(test)},
        "sha256": sha256(out / "detector.pt"),
        "versions": {name: version(name) for name in ("torch", "torchvision", "pycocotools")},
    }
    if test:
        found = list(detector.detect(trained, (item.picture(trained.scale) for item in test)))
        figures = detection_score.score(found, test, vocabulary.classes)
        table = detection_score.table(figures)
        report |= asdict(figures)
        print(table)
        atomic_write(out / "detector.md", lambda file: file.write(table.encode()))
    atomic_write(out / "detector.json", lambda file: file.write((json.dumps(report, indent=2) + "\n").encode()))
    print(f"written: {out.resolve()} ({report['seconds']} s of training)")
    return 0


def read_test(data: DataConfig, vocabulary) -> list[detector_data.Example]:
    """The validation pictures; none where nothing was held out."""
    data = factory.with_names(data, vocabulary)
    try:
        return detector_data.examples(detector_data.read(data, "val")[0], vocabulary, data)
    except EmptySplit:
        return []


def say_what(items, test, vocabulary, training: DetectorConfig) -> None:
    counts = detector_data.objects_per_class(items, vocabulary.classes)
    print(f"{len(items)} pictures to train on, {len(test)} to measure on")
    print("objects: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"{training.detector}, {training.steps} steps of {training.batch_size} crops of {training.crop_size} pixels")
    if caution := detector_training.caution(items, training):
        print(f"warning: {caution}")


def progress(steps: int):
    """Says the mean loss a few times in a run."""
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step % max(1, steps // PRINTED) == 0 or step == steps:
            print(f"step {step}: loss {sum(losses) / len(losses):.3f}", flush=True)
            losses.clear()

    return on_step


def opened(out: str) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be made: {error.strerror}") from None
    return folder
