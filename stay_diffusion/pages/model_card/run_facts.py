"""Facts that a run folder holds of its model: configuration, weights, training, the layouts that it learnt from."""

import csv
from dataclasses import dataclass
from pathlib import Path

from ...config import RunConfig, flags
from ...layouts import statistics_file as layout_statistics_file
from ...layouts.statistics import LayoutStatistics, of_dataset
from ...run import factory
from ...run.checkpoint import RunFolder, load_tensors, sha256


@dataclass(frozen=True)
class Weights:
    """A file that can be sampled from; `numbers` counts what its tensors hold."""

    name: str
    size: int
    sha256: str
    numbers: int


@dataclass(frozen=True)
class RunFacts:
    """Facts that could be read; None or empty where the folder does not hold it.

    `weights` are the best averages first, then the latest, then the raw ones; `rows` those of progress.csv, figures
    only; `state` what the latest checkpoint says besides tensors; `statistics` by kind, "seen" and "whole".
    """

    folder: Path
    config: RunConfig
    weights: tuple[Weights, ...]
    rows: tuple[dict[str, float], ...]
    state: dict | None
    statistics: dict[str, LayoutStatistics] | None

    @classmethod
    def read(cls, run: Path) -> "RunFacts":
        """ValueError where the folder is not of a run, or a file in it cannot be read."""
        folder = RunFolder(run)
        if not folder.config_file.is_file():
            raise ValueError(f"{run}: not the folder of a run: no config.json in it")
        config = flags.load(folder.config_file)
        names = [f"ema_{config.train.ema_rates[0]}_best", *(f"ema_{rate}" for rate in config.train.ema_rates), "model"]
        files = [path for name in names if (path := folder.file(name)).is_file()]
        steps = folder.steps()
        return cls(
            run,
            config,
            tuple(_weights(path) for path in files),
            tuple(_rows(run / "progress.csv")),
            folder.load("state", steps[-1]) if steps else None,
            _statistics(run / layout_statistics_file.NAME, config),
        )

    def column(self, name: str) -> dict[int, float]:
        """A figure of progress.csv by step."""
        return {int(row["step"]): row[name] for row in self.rows if name in row}


def _weights(path: Path) -> Weights:
    tensors = load_tensors(path)
    return Weights(path.name, path.stat().st_size, sha256(path), sum(tensor.numel() for tensor in tensors.values()))


def _statistics(path: Path, config: RunConfig) -> dict[str, LayoutStatistics] | None:
    """From the file; of runs that have none counted anew, where their data are still there."""
    if path.is_file():
        return layout_statistics_file.read(path, factory.vocabulary_of(config))
    if config.model.layout_kind != "boxes":
        return None
    try:
        records, _ = factory.read_split(config.data, "train")
    except (OSError, ValueError):
        return None
    return None if records[0].maps else of_dataset(factory.build_dataset(records, config, augment=False))


def _rows(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [{name: float(value) for name, value in row.items() if name and value} for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as figures of training: {error}") from None
