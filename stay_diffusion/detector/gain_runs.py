"""The trainings that detector_gain.py compares: which pictures each sees, and what it found; kept, one file each.

Imported by detector_gain.py, and by the processes it starts.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ..data.annotations import Vocabulary
from ..run.checkpoint import atomic_write, sha256
from ..system.device import pick_device
from . import networks as detector
from . import score as detection_score
from . import training as detector_training
from .data import Example, set_digest
from .training import DetectorConfig

SUBSET = 2  # what is drawn, beside the order and the crops
HOW_ONLY = ("num_threads",)  # options that do not change what a training is


@dataclass(frozen=True)
class Arm:
    """One training set: so many real and so many synthetic pictures; `ratio` is None for synthetic ones alone."""

    ratio: float | None
    num_real: int
    num_synthetic: int

    @property
    def name(self) -> str:
        if self.ratio is None:
            return "synthetic only"
        return f"real + {self.ratio:g} synthetic" if self.ratio else "real"


def arms(num_real: int, ratios: Sequence[float], synthetic_only: bool) -> list[Arm]:
    """Real, real and `ratio` times as many synthetic ones, and as many synthetic ones alone as the largest set has."""
    mixed = [Arm(ratio, num_real, round(ratio * num_real)) for ratio in ratios]
    return mixed + [Arm(None, 0, max(arm.num_synthetic for arm in mixed))] * synthetic_only


@dataclass(frozen=True)
class Pictures:
    """One of the sets, with the digest of each picture."""

    items: list[Example]
    digests: list[str]

    def chosen(self, places: Sequence[int]) -> "Pictures":
        return Pictures([self.items[i] for i in places], [self.digests[i] for i in places])

    def __add__(self, other: "Pictures") -> "Pictures":
        return Pictures(self.items + other.items, self.digests + other.digests)


def training_set(arm: Arm, real: Pictures, synthetic: Pictures, seed: int) -> Pictures:
    """An arm's pictures: all real ones, and the first of the synthetic ones in an order drawn by the seed.

    So larger ratios see what smaller ones see, and more.
    """
    order = np.random.default_rng((seed, SUBSET)).permutation(len(synthetic.items))
    drawn = synthetic.chosen(sorted(order[: arm.num_synthetic]))
    return real + drawn if arm.num_real else drawn


@dataclass(frozen=True)
class Run:
    """One training and its test, all of it decided; `settings` say which, and name its file."""

    arm: Arm
    seed: int
    items: list[Example]
    test: list[Example]
    vocabulary: Vocabulary
    config: DetectorConfig
    device: str
    folder: Path
    settings: dict

    @property
    def file(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{self.arm.name.replace(' ', '_')}_seed{self.seed}_{digest[:12]}.json"

    def result(self) -> dict | None:
        """What an earlier command has found with the same settings."""
        if not self.file.is_file():
            return None
        try:
            result = json.loads(self.file.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{self.file}: not readable; remove it, and it is measured anew") from None
        return result if result["settings"] == self.settings else None


def plan(
    arm: Arm,
    seed: int,
    real: Pictures,
    synthetic: Pictures,
    test: Pictures,
    vocabulary: Vocabulary,
    config: DetectorConfig,
    device: str,
    folder: Path,
) -> Run:
    pictures = training_set(arm, real, synthetic, seed)
    options = {name: value for name, value in asdict(config).items() if name not in HOW_ONLY}
    settings = {
        "seed": seed,
        "images": len(pictures.items),
        "training_set": set_digest(pictures.items, pictures.digests),
        "test_set": set_digest(test.items, test.digests),
        "classes": list(vocabulary.classes),
        **options,
        "weights": sha256(Path(config.weights)) if config.weights else "",
    }
    return Run(arm, seed, pictures.items, test.items, vocabulary, config, device, folder, settings)


def carry_out(run: Run) -> dict:
    """Trains and tests one detector, and writes the result to the run's file."""
    steps: list[float] = []
    started, started_cpu = time.perf_counter(), time.process_time()
    trained = detector_training.train(
        run.items,
        run.vocabulary,
        run.config,
        run.seed,
        pick_device(run.device),
        on_step=lambda step, loss: steps.append(loss),
    )
    tested, tested_cpu = time.perf_counter(), time.process_time()
    found = list(detector.detect(trained, (item.picture(trained.scale) for item in run.test)))
    figures = detection_score.score(found, run.test, run.vocabulary.classes)
    result = {
        "settings": run.settings,
        "steps": len(steps),
        "last_loss": sum(steps[-20:]) / len(steps[-20:]),
        "seconds": {"training": round(tested - started, 1), "test": round(time.perf_counter() - tested, 1)},
        "cpu_seconds": {
            "training": round(tested_cpu - started_cpu, 1),
            "test": round(time.process_time() - tested_cpu, 1),
        },
        **asdict(figures),
    }
    text = json.dumps(result, indent=2) + "\n"
    atomic_write(run.file, lambda file: file.write(text.encode()))
    return result


def carry_out_all(runs: Sequence[Run], jobs: int, on_run=lambda run, result, is_new: None) -> list[dict]:
    """The results in the runs' order, `jobs` trainings at a time; those that are there already are not done again."""
    results = {place: run.result() for place, run in enumerate(runs)}
    missing = [place for place, result in results.items() if result is None]
    for place, result in results.items():
        if result is not None:
            on_run(runs[place], result, False)
    if jobs == 1 or len(missing) < 2:
        for place in missing:
            results[place] = carry_out(runs[place])
            on_run(runs[place], results[place], True)
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
            pending = {processes.submit(carry_out, runs[place]): place for place in missing}
            try:
                for future in as_completed(pending):
                    place = pending[future]
                    results[place] = future.result()
                    on_run(runs[place], results[place], True)
            except BaseException:
                processes.shutdown(wait=False, cancel_futures=True)
                raise
    return [results[place] for place in range(len(runs))]
