"""Frechet Inception distance between two sets of images: lower is nearer.

python evaluations/test_with_FID.py REAL GENERATED

The number is that of `evaluate --reference REAL --samples GENERATED --metrics fid`. Several processes (mpiexec,
torchrun, srun) share the images; it is the same to the last bit.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import DataConfig
from ..evaluation.options import EvaluateConfig
from ..system.distributed import join, start_group, wait_for_all

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison

VERSIONS = ("torch", "torch-fidelity", "numpy", "pillow")


def main(path1: str = "", path2: str = "") -> None:
    """Compare two sides: those of the command line, else `path1` and `path2`."""
    args = parse_arguments(path1, path2)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..evaluation.comparison import Comparison
    from ..evaluation.features import inception
    from ..evaluation.features.extractor import OFF
    from ..evaluation.image_set import open_set
    from ..evaluation.measure import measure
    from ..system.device import pick_device

    world = join(args.dist_timeout)
    device = pick_device(args.device, world)
    start_group(world, torch.device("cpu"), args.dist_timeout)  # features meet in the processes' own memory
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits of mantissa would show in the number
    reference, samples = (open_set(Path(path), args.compat) for path in args.paths)
    if any(side.mu is None for side in (reference, samples)):
        if world.local_rank == 0:  # which alone fetches them
            inception.find_weights(args.weights, args.download)
        wait_for_all("weights")
    options = EvaluateConfig(
        samples=samples.path,
        reference=reference.path,
        compat=args.compat or "",
        image_size=args.image_size or 0,
        weights=str(args.weights or ""),
        batch_size=args.batch_size,
        feature_cache=OFF,
        bootstrap=0,
    )
    comparison = Comparison(options, DataConfig(), {}, device, world, samples, reference)
    figures, missing = measure(comparison, ["fid"])
    if missing:
        raise ValueError(missing["fid"])
    if world.is_main:
        report(comparison, figures[0].value, args.json)


def report(comparison: "Comparison", fid: float, out: Path | None) -> None:
    """Print the number, what it depends on and what makes it hard to compare; write it where asked for."""
    facts = protocol(comparison)
    print(f"FID: {fid:.4f}", *(f"  {name}: {value}" for name, value in facts.items()), sep="\n")
    for caution in cautions(comparison):
        print(f"warning: {caution}", file=sys.stderr)
    if out:
        out.write_text(json.dumps({"fid": fid, "protocol": facts}, indent=2) + "\n")


def protocol(comparison: "Comparison") -> dict:
    """Return all that the number depends on, by the tradition's names."""
    from ..system.versions import installed_versions

    facts: dict = {}
    for name, side in (("path1", comparison.reference), ("path2", comparison.samples)):
        sizes = ", ".join(f"{size} x {count}" for size, count in reversed(side.sizes.items()))
        facts |= {name: side.path, f"{name}_images": len(side.items) or None, f"{name}_sizes": sizes or None}
        if side.runs:
            facts[f"{name}_runs"] = ", ".join(f"{run} x {count}" for run, count in side.runs.items())
    common = comparison.feature_facts()
    names = ("features", "weights", "weights_sha256", "resize", "compat")
    facts |= {name: common[name] for name in names if name in common}
    return facts | {"versions": installed_versions(VERSIONS)}


def cautions(comparison: "Comparison") -> Iterator[str]:
    """Find what makes the number hard to compare."""
    from ..evaluation.features import inception

    sides = (comparison.reference, comparison.samples)
    for side in sides:
        if 0 < len(side.items) < inception.FEATURES:
            count = f"{len(side.items)} images, under {inception.FEATURES:,}"
            yield f"{side.path}: {count}, bias FID upwards: compare equal counts"
        if len(set(side.runs.values())) > 1:
            yield f"{side.path}: its runs hold different numbers of images: is one of them not finished?"
    facts = comparison.feature_facts()
    if not facts.get("weights_sha256", inception.WEIGHTS_HASH).startswith(inception.WEIGHTS_HASH):
        yield f"{facts['weights']} is not {inception.WEIGHTS_NAMES[0]}: the number compares with nothing published"
    sizes = {size for side in sides for size in side.sizes}
    if not comparison.compat and not comparison.reading.image_size and len(sizes) > 1:
        yield "the images are of several sizes, which changes the number: --image_size N resizes all to N x N first"


def parse_arguments(path1: str, path2: str) -> argparse.Namespace:
    """Parse the tradition's flags; ValueError for values that cannot be."""
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
        "--weights", type=Path, metavar="FILE", help="Inception's weights, if they are not in torch hub's cache"
    )
    parser.add_argument("--download", action="store_true", help="fetch the weights where they are missing")
    parser.add_argument("--compat", choices=["oasis"], help="oasis: resize as the scripts of OASIS and SDM do")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    parser.add_argument(
        "--dist_timeout", type=int, default=600, metavar="S", help="seconds that processes wait for one another"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the number and its protocol to this file")
    args = parser.parse_args()
    args.paths = args.paths or [path for path in (path1, path2) if path]
    if len(args.paths) != 2:
        raise ValueError(f"two paths are needed, got {len(args.paths)}: as arguments, or path1 and path2 in the script")
    for name in ("batch_size", "image_size", "dist_timeout"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be 1 or more")
    if args.json and not args.json.resolve().parent.is_dir():
        raise ValueError(f"--json {args.json}: no such folder")
    if args.compat and args.image_size:
        raise ValueError(f"--image_size {args.image_size}: --compat {args.compat} has its own size, 256")
    return args
