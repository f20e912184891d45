"""Frechet Inception distance between two sets of images: lower is nearer.

python evaluations/test_with_FID.py REAL GENERATED

Several processes (mpiexec, torchrun, srun) share the images; the number is the same to the last bit.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..evaluation.features import inception
from ..evaluation.features.extractor import extract
from ..evaluation.image_set import ImageSet, open_set
from ..evaluation.metrics.frechet import frechet_distance, statistics
from ..run.checkpoint import sha256
from ..system.device import pick_device
from ..system.distributed import join, start_group, wait_for_all
from ..system.launchers import ALONE, World

# The two sides where none are given on the command line.
path1 = ""
path2 = ""


def main() -> None:
    args = parse_arguments()
    world = join(args.dist_timeout)
    args.device = pick_device(args.device, world)
    start_group(world, torch.device("cpu"), args.dist_timeout)  # features meet in the processes' own memory
    sides = [open_set(Path(path), args.compat) for path in args.paths]
    weights = None
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits of mantissa would show in the number
    if any(side.mu is None for side in sides):
        if world.local_rank == 0:  # which alone fetches them
            inception.find_weights(args.weights, args.download)
        wait_for_all("weights")
        weights = inception.find_weights(args.weights, download=False)
        network = inception.load_network(weights).to(args.device)
        sides = [
            side if side.mu is not None else measure(side, network, args, world, name)
            for name, side in zip(("path1", "path2"), sides, strict=True)
        ]
    if not world.is_main:
        return
    if len(sides[0].mu) != len(sides[1].mu):
        lengths = " and ".join(f"{side.path} has {len(side.mu)}" for side in sides)
        raise ValueError(f"the two sides hold different features: {lengths}; pool3 has {inception.FEATURES}")
    fid = frechet_distance(sides[0].mu, sides[0].sigma, sides[1].mu, sides[1].sigma)
    facts = protocol(sides, weights, args)
    print(f"FID: {fid:.4f}", *(f"  {name}: {value}" for name, value in facts.items()), sep="\n")
    for caution in cautions(sides, facts):
        print(f"warning: {caution}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps({"fid": fid, "protocol": facts}, indent=2) + "\n")


def measure(
    side: ImageSet, network: nn.Module, args: argparse.Namespace, world: World = ALONE, name: str = ""
) -> ImageSet | None:
    """The same side with its statistics and sizes, on the first process; None on the others."""

    def pool3(images):
        return {"pool3": inception.PROTOCOLS[args.compat](network, images.to(args.device))}

    measured = extract(pool3, side.items, args.batch_size, world, name, args.image_size)
    if not world.is_main:
        return None
    sizes: Counter = Counter()
    for size, found in measured:
        sizes[size] += len(found["pool3"])
    mu, sigma = statistics(np.concatenate([found["pool3"] for _, found in measured]))
    return replace(side, mu=mu, sigma=sigma, sizes=dict(sizes))


def protocol(sides: Sequence[ImageSet], weights: Path | None, args: argparse.Namespace) -> dict:
    """All that the number depends on: what is printed below it and written as JSON."""
    facts = {}
    for name, side in zip(("path1", "path2"), sides, strict=True):
        sizes = ", ".join(f"{size} x {count}" for size, count in side.sizes.items())
        facts |= {name: side.path, f"{name}_images": len(side.items) or None, f"{name}_sizes": sizes or None}
        if side.runs:
            facts |= {f"{name}_runs": ", ".join(f"{run} x {count}" for run, count in side.runs.items())}
    facts |= {"features": f"Inception 2015-12-05 pool3 ({inception.FEATURES})" if weights else "as stored"}
    if weights:
        facts |= {"weights": str(weights.resolve()), "weights_sha256": sha256(weights)}
        first = f"bicubic to {args.image_size}, then " if args.image_size else ""
        facts |= {"resize": first + inception.RESIZES[args.compat], "compat": args.compat}
    return facts | {"versions": {name: version(name) for name in ("torch", "torch-fidelity", "numpy", "pillow")}}


def cautions(sides: Sequence[ImageSet], facts: dict) -> Iterator[str]:
    """What makes the number hard to compare."""
    for side in sides:
        if 0 < len(side.items) < inception.FEATURES:
            count = f"{len(side.items)} images, under {inception.FEATURES:,}"
            yield f"{side.path}: {count}, bias FID upwards: compare equal counts"
        if len(set(side.runs.values())) > 1:
            yield f"{side.path}: its runs hold different numbers of images: is one of them not finished?"
    if not facts.get("weights_sha256", inception.WEIGHTS_HASH).startswith(inception.WEIGHTS_HASH):
        yield f"{facts['weights']} is not {inception.WEIGHTS_NAMES[0]}: the number compares with nothing published"
    if not facts.get("compat") and len({size for side in sides for size in side.sizes}) > 1:
        yield "the images are of several sizes, which changes the number: --image_size N resizes all to N x N first"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="path",
        help="two of: folder of images, or of image_sample.py's results; npz with arr_0 (uint8 NHWC) or mu and sigma",
    )
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="changes the speed only")
    parser.add_argument(
        "--image_size", type=int, metavar="N", help="resize every image to N x N first (Pillow's bicubic)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help=f"{inception.WEIGHTS_NAMES[0]}, if it is not in torch hub's cache"
    )
    parser.add_argument("--download", action="store_true", help="fetch the weights where they are missing")
    parser.add_argument(
        "--compat", choices=[name for name in inception.PROTOCOLS if name], help=f"oasis: {inception.RESIZES['oasis']}"
    )
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    parser.add_argument(
        "--dist_timeout", type=int, default=600, metavar="S", help="seconds that processes wait for one another"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the number and its protocol to this file")
    args = parser.parse_args()
    args.paths = args.paths or [path for path in (path1, path2) if path]
    if len(args.paths) != 2:
        raise ValueError(f"two paths are needed, got {len(args.paths)}: as arguments, or path1 and path2 in {__file__}")
    for name in ("batch_size", "image_size", "dist_timeout"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be 1 or more")
    if args.json and not args.json.resolve().parent.is_dir():
        raise ValueError(f"--json {args.json}: no such folder")
    if args.compat and args.image_size:
        raise ValueError(
            f"--image_size {args.image_size}: --compat {args.compat} has its own size, {inception.OASIS_SIZE}"
        )
    return args
