"""A new class with few pictures: a base model fine-tuned, with each --freeze, against a new one, in equal steps.

    python studies/few_shot.py --data_dir NEU-DET --out DIR [--new scratches] [--pictures 20,60] [--steps 200]

The base is trained on the pictures without the new class, every other run on the first N of those that show it, one of
them on 40 of the base's besides. All runs are `stay-diffusion train` with the preset deeppcb_64.json on whole pictures,
`sample` at s = 1.5 on the new class's validation layouts and `box-adherence`; losses are
of the last averages, on fixed noise, over all validation pictures that show the new class and all that do not. An
interrupted comparison continues. Prints the protocol and a table.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from reporting import ROOT, SCALE, measure_adherence, run, write_json

from stay_diffusion.config import RunConfig
from stay_diffusion.data.formats import voc
from stay_diffusion.data.loader import in_order
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder
from stay_diffusion.system.command import argument_parser, run_command
from stay_diffusion.training.state import TrainingState
from stay_diffusion.training.validation import Validation

PRESET = ROOT / "scripts/configs/deeppcb_64.json"
RATE = json.loads(PRESET.read_text())["ema_rate"]
WHOLE = ["--crop_policy", "resize", "--background_rate", 0, "--dataset_mode", "voc"]
FREEZES = ("none", "encoder", "all_but_conditioning")
NOISES, OLD_PICTURES = 5, 40
CPU = torch.device("cpu")


def write_lists(data: Path, out: Path, new: str, counts: list[int]) -> list[str]:
    """Lists of pictures for --id_list, by whether they show the new class; returns the other classes."""

    def write(name: str, split: str, stems: list[str]) -> None:
        (out / f"{name}_{split}.txt").write_text("\n".join(stems))

    for split in ("train", "val"):
        records, tags = voc.read(data / split, None, [])
        shows = {record.stem: any(box.label == new for box in record.boxes) for record in records}
        old, shown = ([stem for stem, is_new in shows.items() if is_new == kind] for kind in (False, True))
        write("base", split, old)
        write("new", split, shown)
        for count in counts:
            few = shown[:count] if split == "train" else shown
            repeated = old[:: len(old) // OLD_PICTURES][:OLD_PICTURES] if split == "train" else []
            write(f"new{count}", split, few)
            write(f"mixed{count}", split, few + repeated)
    if new not in tags:
        raise ValueError(f"--new {new}: the data have {', '.join(tags)}")
    return [tag for tag in tags if tag != new]


def loss_on(weights: Path, lists: Path) -> float:
    """The mean loss of weights over all validation pictures of a list, with the same noise for all."""
    config = factory.trained_config(weights, {"id_list": str(lists)}, RunConfig(), "weights")
    config = replace(config, train=replace(config.train, precision="fp32"))
    records, _ = factory.read_split(config.data, "val")
    dataset = factory.build_dataset(records, config, augment=False)
    diffusion = factory.build_training_diffusion(config.diffusion)
    state = TrainingState(config, factory.load_trained(config, weights, CPU), diffusion, CPU)
    batches, folder = list(in_order(dataset, 20)), RunFolder(weights.parent)
    losses = [Validation(batches, len(dataset), folder, diffusion, seed).loss(state) for seed in range(NOISES)]
    return sum(losses) / NOISES


def measure(folder: Path, lists: Path, sample: str = "") -> dict:
    """What a run's last averages do to new and old pictures, and, in the precision `sample`, what they draw."""
    weights = folder / f"ema_{RATE}.pt"
    found = {name: loss_on(weights, lists / f"{name}_{{split}}.txt") for name in ("new", "base")}
    if sample:
        results = folder / "samples"
        words = ["--model_path", weights, "--results_path", results, "--s", SCALE, "--precision", sample]
        run("sample", *words)
        found |= measure_adherence(results)
    return found


def main() -> int:
    arguments = parse_arguments()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    counts = [int(count) for count in arguments.pictures.split(",")]
    old = write_lists(arguments.data_dir, out, arguments.new, counts)
    found = {}
    for name, row in compare(arguments, old, counts):
        found[name] = row
        write_json(out / "few_shot.json", found)
    print_results(arguments, old, found)
    return 0


def compare(arguments: argparse.Namespace, old: list[str], counts: list[int]) -> Iterator[tuple[str, dict]]:
    """Train and measure the base, then for each count every fine-tune and a new model."""
    out, steps = arguments.out, arguments.steps

    def train(name: str, lists: str, *words) -> Path:
        shared = ["--data_dir", arguments.data_dir, "--id_list", out / f"{lists}_{{split}}.txt", "--logdir", out / name]
        shared += ["--precision", arguments.precision, "--save_interval", 250, "--preview_interval", 0]
        run("train", *shared, *words)
        return out / name

    # The base, and its loss on the new class before anything is learnt
    new_run = ["--config", PRESET, *WHOLE]
    of_base = ["--classes", ",".join(old), "--lr_anneal_steps", arguments.base_steps, "--val_interval", 250]
    base = train("base", "base", *new_run, *of_base, "--val_images", 100)
    fine = ["--finetune_from", base, "--ema_rate", RATE, "--drop_rate", 0.1, "--batch_size", 8]
    untrained = train("untrained", "new", *fine, "--lr", 0, "--max_steps", 1, "--val_interval", 0)
    yield "base, extended", measure(untrained, out)

    # The comparison
    of_all = ["--lr_anneal_steps", steps, "--val_interval", 50]
    tuned = [*fine, "--lr", arguments.lr, *of_all]
    for count in counts:
        runs = {f"--freeze {kind}, {count}": (f"{kind}_{count}", "new", [*tuned, "--freeze", kind]) for kind in FREEZES}
        runs[f"--freeze none, {count} and {OLD_PICTURES} old"] = f"mixed_{count}", "mixed", tuned
        runs[f"from scratch, {count}"] = f"scratch_{count}", "new", [*new_run, *of_all]
        for shown, (name, lists, words) in runs.items():
            yield shown, measure(train(name, f"{lists}{count}", *words), out, arguments.precision)


def print_results(arguments: argparse.Namespace, old: list[str], found: dict[str, dict]) -> None:
    base = f"base of {arguments.base_steps} steps on {', '.join(old)}"
    print(f"\nnew class {arguments.new}; {base}; {arguments.steps} steps each;")
    tuning = f"batch 8, lr {arguments.lr} in fine-tuning; {NOISES} noises a picture;"
    print(f"preset {PRESET.stem} on whole pictures, {tuning}")
    machine = f"torch {torch.__version__}, {platform.machine()}, {arguments.precision}"
    print(f"s {SCALE}, default sampler; {machine}\n")
    print("| run, pictures | loss, new | loss, old | inside | outside | in/out ratio | empty boxes |")
    print("|---|---|---|---|---|---|---|")
    for name, row in found.items():
        drawn = "| | | |"
        if "inside" in row:
            levels = f"{row['inside']:.1f} | {row['outside']:.1f} | {row['ratio']:.2f}"
            drawn = f"{levels} | {row['empty_boxes']} of {row['boxes']}"
        print(f"| {name} | {row['new']:.4f} | {row['base']:.4f} | {drawn} |")


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="Pascal VOC, with train and val folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--new", default="scratches")
    parser.add_argument("--pictures", default="20,60")
    parser.add_argument("--base_steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=2e-4, help="of the fine-tunes; the others have the preset's")
    parser.add_argument("--precision", default="auto", help="of training and sampling")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
