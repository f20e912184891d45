"""Do synthetic pictures help a detector? Trains the same one on real, on real and synthetic, on synthetic pictures.

python evaluations/detector_gain.py --real DATA --synthetic RESULTS --test DATA --out OUTPUT/gain

Each training has the same number of optimizer steps; all are tested on the same real pictures. Interrupted, the same
command continues: every finished training is kept.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from ..config import DataConfig, option
from ..config.flags import dump, parse
from ..config.option import numbers
from ..data import splits
from ..data.annotations import Vocabulary
from ..data.datasets import DATASETS
from ..detector import data as detector_data
from ..detector import gain_figures, gain_plot, gain_runs, leakage
from ..detector import training as detector_training
from ..detector.gain_runs import Arm, Pictures
from ..detector.training import DetectorConfig
from ..run.checkpoint import atomic_write, lock
from ..run.factory import with_names

LIKE_ALL = "like --dataset_mode"


@dataclass(frozen=True)
class GainConfig:
    real: str = option("", "data set with the real training pictures: its train split")
    synthetic: str = option("", "folder that image_sample.py has made, or a data set, whose train split is taken")
    test: str = option("", "data set to test on: its val split, or all of it where it has none; empty: that of --real")
    dataset_mode: str = option("sdi", "the format of data sets", DATASETS)
    real_mode: str = option(LIKE_ALL, "that of --real", (LIKE_ALL, *DATASETS))
    synthetic_mode: str = option(LIKE_ALL, "that of --synthetic", (LIKE_ALL, *DATASETS))
    test_mode: str = option(LIKE_ALL, "that of --test", (LIKE_ALL, *DATASETS))
    val_fraction: float = option(0.1, "share held out where --real has no val folder and is the test too", least=0)
    class_map: tuple = option((), "tags of all sets read as other names: TAG=NAME, or TAG= to leave its boxes out")
    num_real: int = option(0, "so many of the real pictures, always the same ones; 0: all", least=0)
    ratios: str = option("0,0.5,1,2", "synthetic pictures per real one, 0 among them: what others are held against")
    synthetic_only: bool = option(True, "also train on synthetic pictures alone, as many as at the largest ratio")
    seeds: int = option(
        3, "trainings of each kind: initial weights, order, crops, choice of synthetic pictures", least=1
    )
    allow_test_sources: bool = option(False, "accept synthetic pictures that were made from test pictures or layouts")
    out: str = option("", "folder for gain.json, gain.md, gain.svg")
    runs: str = option("", "folder of finished trainings, which may serve several comparisons; empty: OUT/runs")
    jobs: int = option(1, "trainings at a time, each in its own process", least=1)
    device: str = option("", "cpu, cuda, cuda:1 ...; empty: a GPU if there is one")


@dataclass(frozen=True)
class DetectorGain:
    """What detector_gain.py takes."""

    gain: GainConfig = GainConfig()
    training: DetectorConfig = DetectorConfig()


def main() -> int:
    options, _, switches = parse(DetectorGain, __doc__.partition("\n")[0])
    gain, training = options.gain, options.training
    if switches["print_config"]:
        print(dump(options), end="")
        return 0
    for name in ("real", "synthetic", "out"):
        if not getattr(gain, name):
            raise ValueError(f"--{name}: needed")
    ratios = read_ratios(gain.ratios)

    vocabulary, real, synthetic, test = read_sets(gain)
    refuse_leaks(gain, real, synthetic, test)
    arms = gain_runs.arms(len(real.items), ratios, gain.synthetic_only)
    check_counts(arms, synthetic, gain)
    say_what(arms, vocabulary, real, synthetic, test, training)
    if switches["dry_run"]:
        return 0

    out, folder = opened("out", gain.out), opened("runs", gain.runs or str(Path(gain.out) / "runs"))
    lock(out)
    seeds = range(gain.seeds)
    sets = (real, synthetic, test, vocabulary, training, gain.device, folder)
    # Seed by seed, so that what an interruption leaves can be compared.
    runs = {(arm, seed): gain_runs.plan(arm, seed, *sets) for seed in seeds for arm in arms}
    found = gain_runs.carry_out_all(list(runs.values()), gain.jobs, Progress(len(runs)))
    results = dict(zip(runs, found, strict=True))
    entries = gain_figures.summarise(arms, [[results[arm, seed] for seed in seeds] for arm in arms])
    report = {
        "conclusion": gain_figures.conclusion(entries),
        "rule": gain_figures.RULE,
        "arms": entries,
        "protocol": protocol(gain, training, vocabulary, real, synthetic, test, found),
    }
    write(out, report)
    print(gain_figures.markdown(report).partition("AP50 per class")[0])
    print(f"written: {out.resolve()}")
    return 0


def read_ratios(text: str) -> list[float]:
    ratios = sorted(set(numbers("ratios", text, float)))
    if not ratios or ratios[0] != 0 or len(ratios) < 2:
        raise ValueError(f"--ratios {text}: needs 0, which the others are held against, and at least one above it")
    return ratios


def read_sets(gain: GainConfig) -> tuple[Vocabulary, Pictures, Pictures, Pictures]:
    """The names of the real training data, in which all sets are read, and real, synthetic and test pictures."""
    test = gain.test or gain.real
    in_one_place = Path(test).resolve() == Path(gain.real).resolve()
    of_real, of_synthetic, of_test = (
        DataConfig(
            folder, gain.dataset_mode if mode == LIKE_ALL else mode, class_map=gain.class_map, val_fraction=val_fraction
        )
        for folder, mode, val_fraction in (
            (gain.real, gain.real_mode, gain.val_fraction if in_one_place else 0.0),
            (gain.synthetic, gain.synthetic_mode, 0.0),
            (test, gain.test_mode, gain.val_fraction if in_one_place else 1.0),
        )
    )
    records, vocabulary = detector_data.read(of_real, "train")
    vocabulary = Vocabulary(vocabulary.classes, vocabulary.products)
    real = pictures(detector_data.choose(records, gain.num_real), vocabulary, of_real)
    rest = [
        pictures(detector_data.read(with_names(data, vocabulary), split)[0], vocabulary, data)
        for data, split in ((of_synthetic, "train"), (of_test, "val"))
    ]
    return vocabulary, real, *rest


def pictures(records, vocabulary: Vocabulary, data: DataConfig) -> Pictures:
    items = detector_data.examples(records, vocabulary, data)
    return Pictures(items, [detector_data.picture_digest(item) for item in items])


def refuse_leaks(gain: GainConfig, real: Pictures, synthetic: Pictures, test: Pictures) -> None:
    """ValueError where pictures to train on are test pictures, or were made from them."""
    for flag, some in (("real", real), ("synthetic", synthetic)):
        if same := leakage.same_pictures(some.items, some.digests, test.items, test.digests):
            raise ValueError(f"--{flag} {getattr(gain, flag)}: {same[0]} is a test picture, {same[1]}")
    folder, is_split = splits.annotation_folder(Path(gain.test or gain.real), "val")
    count, first = leakage.made_from(Path(gain.synthetic), test.items, folder if is_split else None)
    if count and not gain.allow_test_sources:
        raise ValueError(
            f"--synthetic {gain.synthetic}: {count} of its {len(synthetic.items)} pictures were made from test "
            f"pictures ({first}); sample from the training split, or accept it with --allow_test_sources True"
        )


def check_counts(arms: list[Arm], synthetic: Pictures, gain: GainConfig) -> None:
    """ValueError where there are too few synthetic pictures for the largest ratio."""
    needed, there = max(arm.num_synthetic for arm in arms), len(synthetic.items)
    if there < needed:
        largest = max(arm.ratio for arm in arms if arm.ratio is not None)
        raise ValueError(
            f"--synthetic {gain.synthetic}: {there} pictures, but --ratios {largest:g} of {arms[0].num_real} real ones "
            f"needs {needed}; make more, or choose smaller --ratios or --num_real"
        )


def say_what(arms, vocabulary, real: Pictures, synthetic: Pictures, test: Pictures, training: DetectorConfig) -> None:
    for name, some in (("real", real), ("synthetic", synthetic), ("test", test)):
        counts = detector_data.objects_per_class(some.items, vocabulary.classes)
        print(f"{name}: {len(some.items)} pictures; " + ", ".join(f"{label} {n}" for label, n in counts.items()))
        if missing := [label for label, n in counts.items() if not n]:
            print(f"warning: {name}: no object of {', '.join(missing)}")
    if caution := detector_training.caution(real.items, training):
        print(f"warning: {caution}")
    print("trained on: " + "; ".join(f"{arm.name} ({arm.num_real} + {arm.num_synthetic})" for arm in arms))
    print(f"{training.detector}, {training.steps} steps of {training.batch_size} crops of {training.crop_size} pixels")


class Progress:
    """Says what each training found."""

    def __init__(self, total: int):
        self.total, self.done = total, 0

    def __call__(self, run: gain_runs.Run, result: dict, is_new: bool) -> None:
        self.done += 1
        seconds = sum(result["seconds"].values())
        how = f"{seconds:.0f} s" if is_new else "kept"
        figures = f"mAP {result['map']:.3f}, AP50 {result['ap50']:.3f}"
        print(f"[{self.done}/{self.total}] {run.arm.name}, seed {run.seed}: {figures} ({how})", flush=True)


def protocol(gain: GainConfig, training: DetectorConfig, vocabulary, real, synthetic, test, results) -> dict:
    """All that the figures depend on."""
    cpu = [sum(result["cpu_seconds"].values()) for result in results]
    sets = {"real": real, "synthetic": synthetic, "test": test}
    return {
        **{name: str(Path(getattr(gain, name) or gain.real).resolve()) for name in sets},
        **{f"{name}_images": len(some.items) for name, some in sets.items()},
        **{
            f"{name}_objects": detector_data.objects_per_class(some.items, vocabulary.classes)
            for name, some in sets.items()
        },
        "num_real": gain.num_real,
        "seeds": list(range(gain.seeds)),
        "allow_test_sources": gain.allow_test_sources,
        **asdict(training),
        "cpu_seconds_per_training": round(sum(cpu) / len(cpu), 1),
        "versions": {name: version(name) for name in ("torch", "torchvision", "pycocotools")},
    }


def write(out: Path, report: dict) -> None:
    for name, text in (
        ("gain.json", json.dumps(report, indent=2) + "\n"),
        ("gain.md", gain_figures.markdown(report)),
        ("gain.svg", gain_plot.svg(report["arms"])),
    ):
        atomic_write(out / name, lambda file, text=text: file.write(text.encode()))


def opened(flag: str, name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--{flag} {name}: cannot be made: {error.strerror}") from None
    return folder
