"""Is `isla_bg` better than `isla`? Both trained on the synthetic set with the same budget, and measured alike.

    python studies/conditionings.py --out DIR [--steps 500] [--seeds 0,1] [--num_samples 64]

Each run is `stay-diffusion train` with the preset synthetic_64.json, `sample` at s = 1.5 on the validation layouts and
`box-adherence`; an interrupted comparison continues. Prints the protocol and a table.
"""

import csv
import json
import platform
from pathlib import Path

import torch
from reporting import ROOT, SCALE, measure_adherence, run, write_json

from stay_diffusion.system.command import argument_parser, run_command

CONDITIONINGS = ("isla_bg", "isla")


def train_and_measure(out: Path, conditioning: str, seed: int, steps: int, num_samples: int) -> dict:
    """Return one model's figures: last validation loss, seconds per step, box adherence."""
    folder = out / f"{conditioning}_seed{seed}"
    preset = ROOT / "scripts/configs/synthetic_64.json"
    rate = json.loads(preset.read_text())["ema_rate"]
    flags = ["--conditioning", conditioning, "--seed", seed, "--max_steps", steps, "--preview_interval", 0]
    run("train", "--config", preset, "--data_dir", out / "data", "--logdir", folder, *flags)
    weights, results = folder / f"ema_{rate}.pt", folder / "samples"
    sample = ["--model_path", weights, "--results_path", results, "--s", SCALE, "--num_samples", num_samples]
    run("sample", *sample)
    with open(folder / "progress.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        "conditioning": conditioning,
        "seed": seed,
        "val_loss": float([row["val_loss"] for row in rows if row["val_loss"]][-1]),
        "seconds_per_step": float(rows[-1]["seconds_per_step"]),
        **measure_adherence(results),
    }


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--num_samples", type=int, default=64)
    arguments = parser.parse_args()

    run("synthetic", "--out", arguments.out / "data")
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
    write_json(arguments.out / "conditionings.json", found)
    return 0


if __name__ == "__main__":
    run_command(main)
