"""Is `isla_bg` better than `isla`? Both trained on the synthetic set with the same budget, and measured alike.

    python benchmarks/conditionings.py --out DIR [--steps 500] [--seeds 0,1] [--num_samples 64]

Each run is scripts/image_train.py with the preset synthetic_64.json, scripts/image_sample.py at s = 1.5 on the
validation layouts and evaluations/box_adherence.py; an interrupted comparison continues. Prints the protocol and a
table.
"""

import argparse
import csv
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
CONDITIONINGS = ("isla_bg", "isla")
SCALE = 1.5


def run(script: str, *words) -> None:
    subprocess.run([sys.executable, str(ROOT / script), *map(str, words)], check=True)


def train_and_measure(out: Path, conditioning: str, seed: int, steps: int, num_samples: int) -> dict:
    """One model's figures: last validation loss, seconds per step, box adherence."""
    folder = out / f"{conditioning}_seed{seed}"
    preset = ROOT / "scripts/configs/synthetic_64.json"
    rate = json.loads(preset.read_text())["ema_rate"]
    flags = ["--conditioning", conditioning, "--seed", seed, "--max_steps", steps, "--preview_interval", 0]
    run("scripts/image_train.py", "--config", preset, "--data_dir", out / "data", "--logdir", folder, *flags)
    weights, results = folder / f"ema_{rate}.pt", folder / "samples"
    sample = ["--model_path", weights, "--results_path", results, "--s", SCALE, "--num_samples", num_samples]
    run("scripts/image_sample.py", *sample)
    run("evaluations/box_adherence.py", results)
    with open(folder / "progress.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    adherence = json.loads((results / "box_adherence.json").read_text())
    return {
        "conditioning": conditioning,
        "seed": seed,
        "val_loss": float([row["val_loss"] for row in rows if row["val_loss"]][-1]),
        "seconds_per_step": float(rows[-1]["seconds_per_step"]),
        **{key: adherence[key] for key in ("inside", "outside", "ratio", "empty_boxes", "boxes")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--num_samples", type=int, default=64)
    arguments = parser.parse_args()

    run("datasets/synthetic_sdi.py", "--out", arguments.out / "data")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    found = [
        train_and_measure(arguments.out, conditioning, seed, arguments.steps, arguments.num_samples)
        for seed in seeds
        for conditioning in CONDITIONINGS
    ]

    print(f"\nsynthetic set, preset synthetic_64, {arguments.steps} steps, {arguments.num_samples} layouts, s {SCALE},")
    print(f"default sampler; torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}\n")
    print("| conditioning | seed | val loss | inside | outside | in/out ratio | empty boxes | s/step |")
    print("|---|---|---|---|---|---|---|---|")
    for row in found:
        levels = f"{row['inside']:.1f} | {row['outside']:.2f} | {row['ratio']:.1f}"
        empty = f"{row['empty_boxes']} of {row['boxes']} | {row['seconds_per_step']:.2f}"
        print(f"| {row['conditioning']} | {row['seed']} | {row['val_loss']:.4f} | {levels} | {empty} |")
    (arguments.out / "conditionings.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
