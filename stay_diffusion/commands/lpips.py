"""Diversity of generated images: the LPIPS between same-named images of several runs; higher is more diverse.

python evaluations/lpips.py GENERATED_IMAGES_DIR

The numbers are those of `evaluate --samples GENERATED_IMAGES_DIR --metrics lpips`. Several processes (mpiexec,
torchrun, srun) share the file names; they are the same to the last bit.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.distributed import join, start_group

if TYPE_CHECKING:
    from ..evaluation.metrics.lpips import Distances, Lpips

NAMES_SHOWN = 5
VERSIONS = ("torch", "torchvision", "lpips", "pillow")


def main() -> None:
    args = parse_arguments()

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..evaluation.features.lpips_network import find_backbone, find_linear
    from ..evaluation.groups import by_name, find_runs, images_in
    from ..evaluation.metrics.lpips import Lpips, measure, summarise
    from ..system.device import pick_device

    world = join(args.dist_timeout)
    device = pick_device(args.device, world)
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
    linear, backbone = find_linear(args.net, args.weights), find_backbone(args.net, args.backbone_weights)
    lpips = Lpips(args.net, linear, backbone, args.image_size, args.compat)
    distances = measure(lpips, groups, device, world)
    if not world.is_main:
        return
    result, facts = summarise(groups, distances), protocol(runs, names, lpips)
    shown = {name: value for name, value in (result | facts).items() if name not in ("lpips", "layouts")}
    print(f"LPIPS: {result['lpips']:.4f}", *(f"  {name}: {value}" for name, value in shown.items()), sep="\n")
    for caution in cautions(distances, runs, names):
        print(f"warning: {caution}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(result | {"protocol": facts}, indent=2) + "\n")


def protocol(runs: Sequence[Path], names: Sequence[set[str]], lpips: "Lpips") -> dict:
    """Return all that the number depends on."""
    from ..system.versions import installed_versions

    return {
        "runs": {str(run.resolve()): len(run_names) for run, run_names in zip(runs, names, strict=True)},
        **lpips.facts(),
        "range": "normalised for ImageNet, then again by LPIPS" if lpips.compat else "[-1, 1]",
        "compat": lpips.compat,
        "versions": installed_versions(VERSIONS),
    }


def cautions(distances: Sequence["Distances"], runs: Sequence[Path], names: Sequence[set[str]]) -> Iterator[str]:
    """Find runs that are copies of one another, and names that not every run has."""
    from ..evaluation.metrics.lpips import identical_runs

    for i, j in identical_runs(distances):
        yield f"{runs[i]} and {runs[j]} are identical (distance 0): were both sampled with one seed?"
    everywhere: set[str] = set.intersection(*names)
    missing = sorted(set().union(*names) - everywhere)
    if missing:
        shown = ", ".join(missing[:NAMES_SHOWN]) + (", ..." if len(missing) > NAMES_SHOWN else "")
        yield f"{len(missing)} file names are not in every run and are paired only where they are: {shown}"


def parse_arguments() -> argparse.Namespace:
    """Parse the tradition's flags; ValueError for values that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="holds the runs, or is one of them")
    parser.add_argument("--net", choices=["alex", "vgg", "squeeze"], default="alex")
    parser.add_argument(
        "--image_size", type=int, default=256, metavar="N", help="every image is resized to N x N (Pillow's bilinear)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="LPIPS's linear layers; by default those in the lpips package"
    )
    parser.add_argument(
        "--backbone_weights", type=Path, metavar="FILE", help="ImageNet weights, if not in torch hub's cache"
    )
    parser.add_argument("--compat", choices=["sdm"], help="sdm: resized to --image_size, then 299, normalised twice")
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
