"""Measure whether synthetic images help a detector: train it on real, on real and synthetic, on synthetic images.

python evaluations/detector_gain.py --real DATA --synthetic RESULTS --test DATA --out OUTPUT/gain

Each training has the same number of optimizer steps; all are tested on the same real images. After an interruption the
same command continues: every finished training is kept.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.flags import dump, parse
from ..config.option import numbers
from ..detector.options import DetectorGain

if TYPE_CHECKING:
    from ..detector.gain_runs import Run
    from ..detector.gain_sets import Arm, GainSets


def main() -> int:
    options, _, switches = parse(DetectorGain, __doc__.partition("\n")[0])
    if switches["print_config"]:
        print(dump(options), end="")
        return 0
    gain = options.gain
    for name in ("real", "synthetic", "out"):
        if not getattr(gain, name):
            raise ValueError(f"--{name}: needed")
    ratios = read_ratios(gain.ratios)

    # Imported only now, so that --help and mistyped flags answer at once.
    from ..detector import gain_figures, gain_runs, gain_sets
    from ..pages import gain_plot
    from ..run.checkpoint import lock, write_text
    from ..system.storage import make_folder

    sets = gain_sets.read_sets(gain)
    gain_sets.refuse_leaks(gain, sets)
    arms = gain_sets.list_arms(len(sets.real.items), ratios)
    gain_sets.check_counts(gain, sets, arms)
    print_plan(options, sets, arms)
    if switches["dry_run"]:
        return 0

    out, folder = make_folder("out", gain.out), make_folder("runs", gain.runs or str(Path(gain.out) / "runs"))
    lock(out)
    # Seed by seed, so that what an interruption leaves can be compared.
    keys = [(arm, seed) for seed in range(gain.seeds) for arm in arms]
    runs = [gain_runs.plan(arm, seed, sets, options.training, gain.device, folder) for arm, seed in keys]
    found = gain_runs.carry_out_all(runs, gain.jobs, Progress(len(runs)))
    results = dict(zip(keys, found, strict=True))
    entries = gain_figures.summarise(arms, [[results[arm, seed] for seed in range(gain.seeds)] for arm in arms])
    report = {
        "conclusion": gain_figures.conclusion(entries),
        "rule": gain_figures.RULE,
        "arms": entries,
        "protocol": protocol(options, sets, found),
    }
    page = gain_figures.markdown(report)
    write_text(out / "gain.json", json.dumps(report, indent=2) + "\n")
    write_text(out / "gain.md", page)
    write_text(out / "gain.svg", gain_plot.svg(entries))
    print(page.partition("AP50 per class")[0])
    print(f"written: {out.resolve()}")
    return 0


def read_ratios(text: str) -> list[float]:
    ratios = sorted(set(numbers("ratios", text, float)))
    if not ratios or ratios[0] != 0 or len(ratios) < 2:
        raise ValueError(f"--ratios {text}: needs 0, which the others are held against, and at least one above it")
    return ratios


def print_plan(options: DetectorGain, sets: "GainSets", arms: "list[Arm]") -> None:
    """Print the counts of images and objects, warnings about them, and what is trained."""
    from ..detector import training as detector_training

    training, by_name = options.training, sets.by_name()
    for name, counts in sets.objects_per_class().items():
        listed = ", ".join(f"{label} {count}" for label, count in counts.items())
        print(f"{name}: {len(by_name[name].items)} pictures; {listed}")
        if missing := [label for label, count in counts.items() if not count]:
            print(f"warning: {name}: no object of {', '.join(missing)}")
    if warning := detector_training.warn_of_small_objects(sets.real.items, training):
        print(f"warning: {warning}")
    print("trained on: " + "; ".join(f"{arm.name} ({arm.num_real} + {arm.num_synthetic})" for arm in arms))
    print(detector_training.describe(training))


class Progress:
    """Print the scores of each training."""

    def __init__(self, total: int):
        self.total, self.done = total, 0

    def __call__(self, run: "Run", result: dict, is_new: bool) -> None:
        self.done += 1
        time = f"{sum(result['seconds'].values()):.0f} s" if is_new else "kept"
        scores = f"mAP {result['map']:.3f}, AP50 {result['ap50']:.3f}"
        print(f"[{self.done}/{self.total}] {run.arm.name}, seed {run.seed}: {scores} ({time})", flush=True)


def protocol(options: DetectorGain, sets: "GainSets", results: list[dict]) -> dict:
    """Return all that the results depend on."""
    from ..detector.score import VERSIONS
    from ..system.versions import installed_versions

    gain, by_name = options.gain, sets.by_name()
    cpu = [sum(result["cpu_seconds"].values()) for result in results]
    return {
        **{name: str(Path(getattr(gain, name) or gain.real).resolve()) for name in by_name},
        **{f"{name}_images": len(some.items) for name, some in by_name.items()},
        **{f"{name}_objects": counts for name, counts in sets.objects_per_class().items()},
        "num_real": gain.num_real,
        "seeds": list(range(gain.seeds)),
        "allow_test_sources": gain.allow_test_sources,
        **asdict(options.training),
        "cpu_seconds_per_training": round(sum(cpu) / len(cpu), 1),
        "versions": installed_versions(VERSIONS),
    }
