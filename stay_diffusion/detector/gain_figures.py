"""Conclude from trainings: means over seeds, paired differences, verdicts; as a Markdown page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..system.tables import markdown_table
from .gain_sets import Arm

FIGURES = ("map", "ap50", "recall", "recall50")
OF_CLASS = ("ap", "ap50", "recall50")
CONFIDENCE = 0.95
WORTHWHILE = 0.01  # a gain of mAP under this is none
GAIN, NO_GAIN, UNDECIDED = "gain", "no gain", "cannot be told"


@dataclass(frozen=True)
class Difference:
    """A mean paired difference over seeds, its standard error, and its 95 % interval by Student's t.

    None where a single seed says nothing of the spread.
    """

    mean: float
    error: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        if self.low is None or self.high is None:
            return UNDECIDED
        return GAIN if self.low > 0 else NO_GAIN if self.high < WORTHWHILE else UNDECIDED


def difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Of values and those of the baseline with the same seeds."""
    from scipy.stats import t

    pairs = np.subtract(values, baseline)
    n, mean = len(pairs), float(np.mean(pairs))
    if n < 2:
        return Difference(mean, None, None, None)
    error = float(np.std(pairs, ddof=1)) / math.sqrt(n)
    reach = error * float(t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Difference(mean, error, mean - reach, mean + reach)


def spread(values: Sequence[float | None]) -> dict | None:
    """Mean, standard deviation over seeds (None with one) and the values; None for a class without objects."""
    numbers = [float(value) for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return {"mean": float(np.mean(numbers)), "std": std, "values": numbers}


def summarise(arms: Sequence[Arm], results: Sequence[Sequence[dict]]) -> list[dict]:
    """An entry per arm from its results in the order of the seeds; the first arm is real pictures alone."""
    entries = []
    for arm, runs in zip(arms, results, strict=True):
        found = difference([run["map"] for run in runs], [run["map"] for run in results[0]])
        entry: dict[str, Any] = {
            "name": arm.name,
            "ratio": arm.ratio,
            "real": arm.num_real,
            "synthetic": arm.num_synthetic,
        }
        entry |= {figure: spread([run[figure] for run in runs]) for figure in FIGURES}
        if arm != arms[0]:
            entry["difference"] = {**vars(found), "verdict": found.verdict}
        entry["per_class"] = {
            name: {figure: spread([run["per_class"][name][figure] for run in runs]) for figure in OF_CLASS}
            for name in runs[0]["per_class"]
        }
        entries.append(entry)
    return entries


def conclusion(entries: Sequence[dict]) -> str:
    """One plain sentence on real and synthetic pictures together against real ones alone."""
    mixed = [entry for entry in entries if entry["ratio"]]
    of = {
        verdict: [e for e in mixed if e["difference"]["verdict"] == verdict] for verdict in (GAIN, NO_GAIN, UNDECIDED)
    }
    seeds = len(mixed[0]["map"]["values"])
    if of[GAIN]:
        shown = ", ".join(f"{e['ratio']:g} ({e['difference']['mean']:+.3f} mAP)" for e in of[GAIN])
        rest = f"; at the other {len(mixed) - len(of[GAIN])} not" if len(of[GAIN]) < len(mixed) else ""
        return f"Gain: the synthetic pictures help at ratio {shown}{rest}."
    if not of[UNDECIDED]:
        worse = [f"{e['ratio']:g} ({e['difference']['mean']:+.3f} mAP)" for e in mixed if e["difference"]["high"] < 0]
        harm = f"; they harm at ratio {', '.join(worse)}" if worse else ""
        return f"No gain: at no ratio do the synthetic pictures add {WORTHWHILE:g} mAP or more{harm}."
    best = max(mixed, key=lambda e: e["difference"]["mean"])
    found = best["difference"]
    if found["error"] is None:
        return "Cannot be told from one seed: there is no spread to hold a difference against."
    return (
        f"Cannot be told from {seeds} seeds: the largest difference is {found['mean']:+.3f} mAP "
        f"(standard error {found['error']:.3f}) at ratio {best['ratio']:g}."
    )


def markdown(report: dict) -> str:
    """The report as a page: the conclusion, figures per arm and per class, and what they depend on."""
    entries, protocol = report["arms"], report["protocol"]
    arm_rows = [
        (
            entry["name"],
            str(entry["real"]),
            str(entry["synthetic"]),
            *(_format_spread(entry[figure]) for figure in ("map", "ap50", "recall50")),
            *_format_difference(entry.get("difference")),
        )
        for entry in entries
    ]
    head = ("trained on", "real", "synthetic", "mAP", "AP50", "recall at 0.50", "mAP against real (95 %)", "verdict")
    classes = list(entries[0]["per_class"])
    class_rows = {
        figure: [
            (entry["name"], *(_format_spread(entry["per_class"][name][figure]) for name in classes))
            for entry in entries
        ]
        for figure in ("ap50", "recall50")
    }
    return "\n".join(
        [
            "# Detector gain",
            "",
            f"**{report['conclusion']}**",
            "",
            markdown_table(head, arm_rows),
            f"Mean over {len(protocol['seeds'])} seeds ± standard deviation. {RULE}",
            "",
            "AP50 per class",
            "",
            markdown_table(("trained on", *classes), class_rows["ap50"]),
            "Recall at 0.50 per class",
            "",
            markdown_table(("trained on", *classes), class_rows["recall50"]),
            "What the figures depend on",
            "",
            *(f"- {name}: {_format_value(value)}" for name, value in protocol.items()),
            "",
        ]
    )


RULE = (
    "Differences are paired by seed; their interval is Student's t over the seeds. Gain: all of it lies above 0. "
    f"No gain: all of it lies below {WORTHWHILE:g}. Otherwise it cannot be told; more seeds tell more."
)


def _format_spread(figure: dict | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['mean']:.3f}" + ("" if figure["std"] is None else f" ± {figure['std']:.3f}")


def _format_difference(found: dict | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    interval = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"{found['mean']:+.3f}{interval}", found["verdict"]


def _format_value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format_value(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
