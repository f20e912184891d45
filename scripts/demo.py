"""Run the whole chain: data, training, sampling with labels, measures. `demo.py full` or `demo.py small`.

Every step is a command that is printed before it runs; running the demo again resumes where it stopped.
"""

import csv
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Size:
    folder: Path
    preset: Path
    num_train: int
    num_val: int
    num_augmented: int


SIZES = {
    "full": Size(ROOT / "OUTPUT/demo", ROOT / "scripts/configs/synthetic_64.json", 600, 48, 96),
    "small": Size(ROOT / "OUTPUT/demo_small", ROOT / "scripts/configs/synthetic_32.json", 64, 16, 24),
}

# Images for a detector: new layouts, all classes alike, some good parts; images not as labelled are redrawn.
AUGMENTED = ["--layouts", "sampled", "--class_balance", "uniform", "--good_parts", 0.1, "--reject_below", 0.3]
AUGMENTED += ["--export", "vott,coco,voc,yolo", "--masks", True, "--report", True]


def commands(size: Size) -> list[list]:
    """Return what a user would type after `stay-diffusion`."""
    out = size.folder
    weights = out / "run" / f"ema_{json.loads(size.preset.read_text())['ema_rate']}.pt"
    sample = ["sample", "--model_path", weights, "--s", 1.5]
    return [
        ["synthetic", "--out", out / "data", "--num_train", size.num_train, "--num_val", size.num_val],
        ["train", "--config", size.preset, "--data_dir", out / "data", "--logdir", out / "run"],
        [*sample, "--results_path", out / "results"],
        ["box-adherence", out / "results"],
        [*sample, "--results_path", out / "augmented", "--num_samples", size.num_augmented, *AUGMENTED],
    ]


def main(name: str) -> int:
    size, started = SIZES[name], time.perf_counter()
    steps = commands(size)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # then subprocess.run ends the step it waits for
    for number, command in enumerate(steps, 1):
        words = [str(word) for word in command]
        shown = ["stay-diffusion", *(word.removeprefix(f"{ROOT}/") for word in words)]
        print(f"\n[{number}/{len(steps)}] {shlex.join(shown)}", flush=True)
        ended = subprocess.run([sys.executable, "-m", "stay_diffusion", *words], cwd=ROOT)
        if ended.returncode:
            return ended.returncode

    with open(size.folder / "run/progress.csv", newline="", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    measured = json.loads((size.folder / "results/box_adherence.json").read_text())
    print(f"\nDone in {(time.perf_counter() - started) / 60:.1f} minutes.")
    print(f"  loss            {losses[0]:.3f} -> {losses[-1]:.3f}")
    print(f"  in/out ratio    {measured['ratio'] or float('nan'):.1f}")
    print(f"  empty boxes     {100 * measured['empty_rate']:.1f} % of {measured['boxes']}")
    for what, path in (
        ("contact sheet", "results/preview.png"),
        ("augmented set", "augmented"),
        ("report", "augmented/report.html"),
        ("training", "run/previews"),
        ("annotated data", "data"),
    ):
        print(f"  {what:15s} {size.folder / path}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SIZES:
        sys.exit(f"usage: demo.py {{{','.join(SIZES)}}}")
    sys.exit(main(sys.argv[1]))
