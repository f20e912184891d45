"""Diversity of generated images: the LPIPS between same-named images of several runs; higher is more diverse.

python evaluations/lpips.py GENERATED_IMAGES_DIR

Several processes (mpiexec, torchrun, srun) share the file names; the number is the same to the last bit.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from ..evaluation.features.lpips_network import BACKBONES, find_backbone, import_lpips, load_model
from ..evaluation.metrics.diversity import (
    SDM_SIZE,
    Distances,
    by_name,
    find_runs,
    identical_runs,
    images_in,
    measure,
    resize_rule,
    summarise,
)
from ..run.checkpoint import sha256
from ..system.device import pick_device
from ..system.distributed import join, start_group

NAMES_SHOWN = 5


def main() -> None:
    args = parse_arguments()
    world = join(args.dist_timeout)
    args.device = pick_device(args.device, world)
    start_group(world, torch.device("cpu"), args.dist_timeout)  # distances meet in the processes' own memory
    runs = [run for folder in args.folders for run in find_runs(folder)]
    if len(runs) < 2:
        raise ValueError(
            f"{', '.join(map(str, args.folders))}: found {len(runs)} run(s), 2 or more are needed: "
            "samples* folders, */samples folders, or folders of images"
        )
    names, groups = [{path.name for path in images_in(run)} for run in runs], by_name(runs)
    if not groups:
        raise ValueError(f"no file name is in two of the {len(runs)} runs: {', '.join(map(str, runs))}")
    package = import_lpips()
    linear = args.weights or Path(package.__file__).parent / "weights" / "v0.1" / f"{args.net}.pth"
    backbone = find_backbone(args.net, args.backbone_weights)
    model = load_model(args.net, linear, backbone).to(args.device)
    distances = measure(model, groups, args.image_size, args.compat, args.device, world)
    if not world.is_main:
        return
    result, facts = summarise(groups, distances), protocol(runs, names, linear, backbone, args)
    shown = {name: value for name, value in (result | facts).items() if name not in ("lpips", "layouts")}
    print(f"LPIPS: {result['lpips']:.4f}", *(f"  {name}: {value}" for name, value in shown.items()), sep="\n")
    for caution in cautions(distances, runs, names):
        print(f"warning: {caution}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(result | {"protocol": facts}, indent=2) + "\n")


def protocol(
    runs: Sequence[Path], names: Sequence[set[str]], linear: Path, backbone: Path, args: argparse.Namespace
) -> dict:
    """All that the number depends on."""
    files = {}
    for key, path in (("linear", linear), ("backbone", backbone)):
        files |= {key: str(path.resolve()), f"{key}_sha256": sha256(path)}
    return {
        "runs": {str(run.resolve()): len(run_names) for run, run_names in zip(runs, names, strict=True)},
        "net": f"{args.net} v0.1",
        **files,
        "resize": resize_rule(args.image_size, args.compat),
        "range": "normalised for ImageNet, then again by LPIPS" if args.compat else "[-1, 1]",
        "compat": args.compat,
        "versions": {name: version(name) for name in ("torch", "torchvision", "lpips", "pillow")},
    }


def cautions(distances: Sequence[Distances], runs: Sequence[Path], names: Sequence[set[str]]) -> Iterator[str]:
    """Runs that are copies of one another, and names that not every run has."""
    for i, j in identical_runs(distances):
        yield f"{runs[i]} and {runs[j]} are identical (distance 0): were both sampled with one seed?"
    missing = sorted(set.union(*names) - set.intersection(*names))
    if missing:
        shown = ", ".join(missing[:NAMES_SHOWN]) + (", ..." if len(missing) > NAMES_SHOWN else "")
        yield f"{len(missing)} file names are not in every run and are paired only where they are: {shown}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="holds the runs, or is one of them")
    parser.add_argument("--net", choices=list(BACKBONES), default="alex")
    parser.add_argument(
        "--image_size", type=int, default=256, metavar="N", help="every image is resized to N x N (Pillow's bilinear)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="LPIPS's linear layers; by default those in the lpips package"
    )
    parser.add_argument(
        "--backbone_weights", type=Path, metavar="FILE", help="ImageNet weights, if not in torch hub's cache"
    )
    parser.add_argument(
        "--compat", choices=["sdm"], help=f"sdm: resized to --image_size, then {SDM_SIZE}, and normalised twice"
    )
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    parser.add_argument(
        "--dist_timeout", type=int, default=600, metavar="S", help="seconds that processes wait for one another"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the number and its protocol to this file")
    args = parser.parse_args()
    if args.image_size < 32:
        raise ValueError(f"--image_size {args.image_size}: the network needs 32 or more")
    if args.dist_timeout < 1:
        raise ValueError(f"--dist_timeout {args.dist_timeout}: must be 1 or more")
    if args.json and not args.json.resolve().parent.is_dir():
        raise ValueError(f"--json {args.json}: no such folder")
    return args
