"""Measurements that evaluations have left as JSON: evaluate.py's, those of training, box_adherence.json."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLACES = ("*.json", "evaluations/*/*.json", "samples/*.json")  # where in a run folder figures may lie
OF_ADHERENCE = {"ratio", "empty_rate", "layouts", "boxes", "protocol"}


@dataclass(frozen=True)
class Measurement:
    """A number with what it depends on."""

    name: str
    value: float
    better: str
    spread: float | None
    spread_of: str
    protocol: dict


@dataclass(frozen=True)
class MeasurementFile:
    """The measurements of a file."""

    path: Path
    measurements: tuple[Measurement, ...]


def find_measurements(run: Path) -> Iterator[tuple[Path, tuple[Measurement, ...]]]:
    """Find the files of a run folder that hold measurements."""
    for place in PLACES:
        for path in sorted(run.glob(place)):
            if found := read_measurements(path):
                yield path, found


def read_measurements(path: Path) -> tuple[Measurement, ...] | None:
    """Read the measurements of a file: None where the JSON is something else; ValueError where the file is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as figures: {error}") from None
    if not isinstance(values, dict):
        return None
    try:
        if values.keys() >= OF_ADHERENCE:
            return _adherence(values)
        common = {name: values[name] for name in ("step", "sampling") if values.get(name)}
        return tuple(
            Measurement(
                name,
                float(each["value"]),
                each.get("better") or "",
                each.get("spread"),
                each.get("spread_of") or "",
                each["protocol"] | common,
            )
            for name, each in values["figures"].items()
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def _adherence(values: dict) -> tuple[Measurement, ...]:
    facts = values["protocol"] | {"layouts": values["layouts"], "boxes": values["boxes"]}
    ratio = Measurement("box adherence, in/out", values["ratio"], "higher", None, "", facts)
    empty = Measurement("box adherence, share of empty boxes", values["empty_rate"], "lower", None, "", facts)
    return (ratio, empty) if values["ratio"] else (empty,)
