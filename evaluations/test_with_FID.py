"""Frechet Inception distance between two sets of images: lower is nearer.

python evaluations/test_with_FID.py REAL GENERATED

Several processes (mpiexec, torchrun, srun) share the images; the number is the same to the last bit.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import inception
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stay_diffusion.checkpoint import sha256
from stay_diffusion.command import run_command
from stay_diffusion.data.images import IMAGE_SUFFIXES
from stay_diffusion.device import pick_device
from stay_diffusion.distributed import join, start_group, wait_for_all
from stay_diffusion.launchers import ALONE, World

# The two sides where none are given on the command line.
path1 = ""
path2 = ""

OASIS_BATCH, OASIS_SUFFIXES = 50, frozenset({".jpg", ".png"})


@dataclass(frozen=True)
class Side:
    """One of the two sets: its images, or the mean (D,) and covariance (D, D) of their features, or both.

    `runs` holds how many images each of several runs of image_sample.py has; `sizes` how many have each size (WxH).
    """

    path: str
    items: Sequence[inception.Item] = ()
    mu: NDArray[np.float64] | None = None
    sigma: NDArray[np.float64] | None = None
    runs: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def main() -> None:
    args = parse_arguments()
    world = join(args.dist_timeout)
    args.device = pick_device(args.device, world)
    start_group(world, torch.device("cpu"), args.dist_timeout)  # features meet in the processes' own memory
    sides = [open_side(Path(path), args.compat) for path in args.paths]
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


def frechet_distance(mu1: NDArray, sigma1: NDArray, mu2: NDArray, sigma2: NDArray) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)) for means (D,) and covariances (D, D).

    With sigma = A A^T, the trace of that root is the sum of the singular values of A1^T A2; A has as many columns as
    sigma has rank, so that singular covariances (fewer images than features) cost no accuracy.
    """
    difference = np.asarray(mu1, np.float64) - np.asarray(mu2, np.float64)
    common = np.linalg.svd(_root(sigma1).T @ _root(sigma2), compute_uv=False).sum()
    traces = np.trace(sigma1, dtype=np.float64) + np.trace(sigma2, dtype=np.float64)
    return max(0.0, float(difference @ difference + traces - 2 * common))  # rounding can leave -1e-13


def _root(sigma: NDArray) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(np.asarray(sigma, np.float64))
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def statistics(features: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), N at least 2, in float64."""
    assert len(features) >= 2
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def open_side(path: Path, compat: str | None = None) -> Side:
    """The images of a folder, sorted, or of an npz (arr_0, uint8 NHWC), or an npz's mu and sigma where it has them.

    Of a folder that image_sample.py has made, it is the samples, of all runs together.
    """
    if path.is_dir():
        side = _open_folder(path, OASIS_SUFFIXES if compat else IMAGE_SUFFIXES)
    elif path.suffix == ".npz" and path.is_file():
        side = _open_npz(path)
    else:
        raise ValueError(
            f"{path}: " + ("neither a folder nor an npz file" if path.exists() else "no such file or folder")
        )
    if side.mu is None and len(side.items) < 2:
        raise ValueError(f"{path}: a covariance needs at least 2 images, found {len(side.items)}")
    if compat and len(side.items) > OASIS_BATCH:
        side = replace(side, items=side.items[: len(side.items) // OASIS_BATCH * OASIS_BATCH])
    return side


def _open_folder(path: Path, suffixes: frozenset[str]) -> Side:
    results = sorted([*path.glob("manifest.jsonl"), *path.glob("run*/manifest.jsonl")])
    folders = [manifest.parent / "samples" for manifest in results] or [path]
    found = [sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes) for folder in folders]
    if not any(found):
        inside = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())[:5]) or "none"
        raise ValueError(f"{path}: no {' '.join(sorted(suffixes))} in it (not searched: folders inside: {inside})")
    runs = {folder.parent.name: len(images) for folder, images in zip(folders, found, strict=True)}
    return Side(str(path.resolve()), [image for images in found for image in images], runs=runs if results else {})


def _open_npz(path: Path) -> Side:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in (("mu", "sigma") if "mu" in file else ("arr_0",))}
    except Exception as error:  # not a zip, cut off, pickled, or without the arrays
        raise ValueError(f"{path}: needs arr_0 (images), or mu and sigma (statistics): {error}") from error
    shapes = ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in arrays.items())
    if "arr_0" in arrays:
        images = arrays["arr_0"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"{path}: expected arr_0 as uint8 (N, H, W, 3 or 1), found {shapes}")
        return Side(str(path.resolve()), images)
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not np.isfinite(mu).all() or not np.isfinite(sigma).all():
        raise ValueError(f"{path}: expected finite mu (D,) and sigma (D, D), found {shapes}")
    return Side(str(path.resolve()), mu=mu, sigma=sigma)


def measure(
    side: Side, network: nn.Module, args: argparse.Namespace, world: World = ALONE, name: str = ""
) -> Side | None:
    """The same side with its statistics and sizes, on the first process; None on the others."""
    measured = inception.extract(network, side.items, args, world, name)
    if not world.is_main:
        return None
    sizes: Counter = Counter()
    for size, features in measured:
        sizes[size] += len(features)
    mu, sigma = statistics(np.concatenate([features for _, features in measured]))
    return replace(side, mu=mu, sigma=sigma, sizes=dict(sizes))


def protocol(sides: Sequence[Side], weights: Path | None, args: argparse.Namespace) -> dict:
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


def cautions(sides: Sequence[Side], facts: dict) -> Iterator[str]:
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


if __name__ == "__main__":
    run_command(main, continues=False)
