"""Trainings that are compared: each is decided by its settings, trained, tested, and kept in a file of its own."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from ..data.annotations import Vocabulary
from ..run.checkpoint import sha256, write_text
from ..system.device import pick_device
from . import training as detector_training
from .data import Example, set_digest
from .gain_sets import Arm, GainSets, choose_images
from .options import DetectorConfig
from .score import score_detector


@dataclass(frozen=True)
class Run:
    """One training and its test, all of it decided; `settings` identify it and name its file."""

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
        """Return the result of an earlier command with the same settings."""
        if not self.file.is_file():
            return None
        try:
            result = json.loads(self.file.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{self.file}: not readable; remove it, and it is measured anew") from None
        return result if result["settings"] == self.settings else None


def plan(arm: Arm, seed: int, sets: GainSets, config: DetectorConfig, device: str, folder: Path) -> Run:
    """Return the training of an arm with a seed; its result is kept in `folder`."""
    images = choose_images(arm, sets, seed)
    settings = {
        "seed": seed,
        "images": len(images.items),
        "training_set": set_digest(images.items, images.digests),
        "test_set": set_digest(sets.test.items, sets.test.digests),
        "classes": list(sets.vocabulary.classes),
        **asdict(config),
        "weights": sha256(Path(config.weights)) if config.weights else "",
    }
    return Run(arm, seed, images.items, sets.test.items, sets.vocabulary, config, device, folder, settings)


def carry_out(run: Run) -> dict:
    """Train and test one detector, and write the result to the run's file."""
    losses: list[float] = []
    started, started_cpu = time.perf_counter(), time.process_time()
    device = pick_device(run.device)
    trained = detector_training.train(
        run.items, run.vocabulary, run.config, run.seed, device, on_step=lambda step, loss: losses.append(loss)
    )
    tested, tested_cpu = time.perf_counter(), time.process_time()
    _, score = score_detector(trained, run.test)
    ended, ended_cpu = time.perf_counter(), time.process_time()
    result = {
        "settings": run.settings,
        "steps": len(losses),
        "last_loss": sum(losses[-20:]) / len(losses[-20:]),
        "seconds": {"training": round(tested - started, 1), "test": round(ended - tested, 1)},
        "cpu_seconds": {"training": round(tested_cpu - started_cpu, 1), "test": round(ended_cpu - tested_cpu, 1)},
        **asdict(score),
    }
    write_text(run.file, json.dumps(result, indent=2) + "\n")
    return result


def carry_out_all(runs: Sequence[Run], jobs: int, on_run: Callable[[Run, dict, bool], None]) -> list[dict]:
    """Return the results in the runs' order, `jobs` trainings at a time; finished ones are not repeated.

    `on_run` gets each run, its result, and whether that is new.
    """
    results: dict[int, dict] = {}

    def add(place: int, result: dict, is_new: bool) -> None:
        results[place] = result
        on_run(runs[place], result, is_new)

    for place, run in enumerate(runs):
        if (kept := run.result()) is not None:
            add(place, kept, False)
    missing = [place for place in range(len(runs)) if place not in results]
    if jobs == 1 or len(missing) < 2:
        for place in missing:
            add(place, carry_out(runs[place]), True)
        return [results[place] for place in range(len(runs))]

    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
        pending = {processes.submit(carry_out, runs[place]): place for place in missing}
        try:
            for future in as_completed(pending):
                add(pending[future], future.result(), True)
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[place] for place in range(len(runs))]
