"""What the trainings of detector_gain.py say: means over seeds, paired differences, verdicts; as a Markdown page.

Imported by detector_gain.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .gain_runs import Arm

FIGURES = ("map", "ap50", "recall", "recall50")
OF_CLASS = ("ap", "ap50", "recall50")
CONFIDENCE = 0.95
WORTHWHILE = 0.01  # a gain of mAP under this is none
GAIN, NO_GAIN, UNTOLD = "gain", "no gain", "cannot be told"


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
            return UNTOLD
        return GAIN if self.low > 0 else NO_GAIN if self.high < WORTHWHILE else UNTOLD


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
    if None in values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "values": [float(value) for value in values]}


def summarise(arms: Sequence[Arm], results: Sequence[Sequence[dict]]) -> list[dict]:
    """An entry per arm from its results in the order of the seeds; the first arm is real pictures alone."""
    entries = []
    for arm, runs in zip(arms, results, strict=True):
        found = difference([run["map"] for run in runs], [run["map"] for run in results[0]])
        entry = {"name": arm.name, "ratio": arm.ratio, "real": arm.num_real, "synthetic": arm.num_synthetic}
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
    of = {verdict: [e for e in mixed if e["difference"]["verdict"] == verdict] for verdict in (GAIN, NO_GAIN, UNTOLD)}
    seeds = len(mixed[0]["map"]["values"])
    if of[GAIN]:
        shown = ", ".join(f"{e['ratio']:g} ({e['difference']['mean']:+.3f} mAP)" for e in of[GAIN])
        rest = f"; at the other {len(mixed) - len(of[GAIN])} not" if len(of[GAIN]) < len(mixed) else ""
        return f"Gain: the synthetic pictures help at ratio {shown}{rest}."
    if not of[UNTOLD]:
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
            *(_with_spread(entry[figure]) for figure in ("map", "ap50", "recall50")),
            *_told(entry.get("difference")),
        )
        for entry in entries
    ]
    head = ("trained on", "real", "synthetic", "mAP", "AP50", "recall at 0.50", "mAP against real (95 %)", "verdict")
    classes = list(entries[0]["per_class"])
    class_rows = {
        figure: [
            (entry["name"], *(_with_spread(entry["per_class"][name][figure]) for name in classes)) for entry in entries
        ]
        for figure in ("ap50", "recall50")
    }
    return "\n".join(
        [
            "# Detector gain",
            "",
            f"**{report['conclusion']}**",
            "",
            _table(head, arm_rows),
            f"Mean over {len(protocol['seeds'])} seeds ± standard deviation. {RULE}",
            "",
            "AP50 per class",
            "",
            _table(("trained on", *classes), class_rows["ap50"]),
            "Recall at 0.50 per class",
            "",
            _table(("trained on", *classes), class_rows["recall50"]),
            "What the figures depend on",
            "",
            *(f"- {name}: {_shown(value)}" for name, value in protocol.items()),
            "",
        ]
    )


RULE = (
    "Differences are paired by seed; their interval is Student's t over the seeds. Gain: all of it lies above 0. "
    f"No gain: all of it lies below {WORTHWHILE:g}. Otherwise it cannot be told; more seeds tell more."
)


def _with_spread(figure: dict | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['mean']:.3f}" + ("" if figure["std"] is None else f" ± {figure['std']:.3f}")


def _told(found: dict | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    interval = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"{found['mean']:+.3f}{interval}", found["verdict"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _shown(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
