"""Diversity of generated images: the LPIPS between same-named images of several runs; higher is more diverse.

python evaluations/lpips.py GENERATED_IMAGES_DIR

Several processes (mpiexec, torchrun, srun) share the file names; the number is the same to the last bit.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from lpips_network import BACKBONES, find_backbone, import_lpips, load_model
from PIL import Image
from torch import Tensor, nn

from stay_diffusion.checkpoint import sha256
from stay_diffusion.command import run_command
from stay_diffusion.data.images import IMAGE_SUFFIXES, read_image, to_tensor
from stay_diffusion.device import pick_device
from stay_diffusion.distributed import gather_shares, join, start_group
from stay_diffusion.launchers import ALONE, World

SDM_SIZE = 299
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IDENTICAL = 1e-8  # not 0: one image's features can differ in the last bit with its place in the batch
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
    names = [{path.name for path in images_in(run)} for run in runs]
    shared = sorted(name for name in set.union(*names) if sum(name in run for run in names) > 1)
    if not shared:
        raise ValueError(f"no file name is in two of the {len(runs)} runs: {', '.join(map(str, runs))}")
    package = import_lpips()
    linear = args.weights or Path(package.__file__).parent / "weights" / "v0.1" / f"{args.net}.pth"
    backbone = find_backbone(args.net, args.backbone_weights)
    model = load_model(args.net, linear, backbone).to(args.device)
    distances = measure(model, runs, names, shared, args, world)
    if not world.is_main:
        return
    result, facts = summarise(distances), protocol(runs, names, linear, backbone, args)
    print(
        f"LPIPS: {result['lpips']:.4f}", *(f"  {k}: {v}" for k, v in (result | facts).items() if k != "lpips"), sep="\n"
    )
    for caution in cautions(distances, runs, names):
        print(f"warning: {caution}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(result | {"protocol": facts}, indent=2) + "\n")


def find_runs(folder: Path) -> list[Path]:
    """The runs inside: samples* folders, else */samples folders, else folders of images, else the folder itself."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    layouts = (
        [path for path in inside if path.name.startswith("samples")],
        [path / "samples" for path in inside],
        inside,
        [folder],
    )
    found = [[path for path in layout if images_in(path)] for layout in layouts]
    several = (runs for runs in found if len(runs) > 1)
    return next(several, next((runs for runs in found if runs), []))


def images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def prepare(path: Path, image_size: int, compat: str | None) -> Tensor:
    """(3, S, S): in [-1, 1], or as SDM's script hands it over: resized twice and normalised for ImageNet."""
    image = read_image(path, channels=3).resize((image_size, image_size), Image.Resampling.BILINEAR)
    if compat is None:
        return to_tensor(image, channels=3)
    unit = (to_tensor(image.resize((SDM_SIZE, SDM_SIZE), Image.Resampling.BILINEAR), channels=3) + 1) / 2
    return (unit - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


def embed(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Every layer's features of (B, 3, H, W), of unit length over the channels."""
    return [nn.functional.normalize(layer, dim=1, eps=1e-10) for layer in model.net(model.scaling_layer(images))]


def distance(model: nn.Module, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """LPIPS (B,) between embedded images, as LPIPS.forward gives it, without embedding each image once per pair."""
    layers = zip(model.lins, one, other, strict=True)
    return sum(linear((a - b) ** 2).mean(dim=(1, 2, 3)) for linear, a, b in layers)


def measure(
    model: nn.Module,
    runs: Sequence[Path],
    names: Sequence[set[str]],
    shared: Sequence[str],
    args: argparse.Namespace,
    world: World = ALONE,
) -> dict[tuple[int, int], list[float]]:
    """The distances of the same-named images of every pair of runs (indices, the lower one first), in their order."""
    from tqdm import tqdm

    own: dict[int, dict[tuple[int, int], float]] = {}  # by the number of a name
    quiet = None if world.is_main else True  # None: unless it is a terminal
    with torch.inference_mode():
        for number in tqdm(range(len(shared))[world.rank :: world.size], desc="LPIPS", disable=quiet):
            name = shared[number]
            present = [i for i, run in enumerate(names) if name in run]
            images = torch.stack([prepare(runs[i] / name, args.image_size, args.compat) for i in present])
            own[number] = pairwise(model, embed(model, images.to(args.device)), present)
    distances: dict[tuple[int, int], list[float]] = {}
    for of_name in gather_shares("distances", own):
        for pair, value in of_name.items():
            distances.setdefault(pair, []).append(value)
    return distances


def pairwise(model: nn.Module, embedded: Sequence[Tensor], present: Sequence[int]) -> dict[tuple[int, int], float]:
    """The distances between the images of one name, which belong to the runs `present`."""
    found = {}
    for first in range(len(present) - 1):
        one, rest = [layer[first : first + 1] for layer in embedded], [layer[first + 1 :] for layer in embedded]
        for other, value in zip(present[first + 1 :], distance(model, one, rest).tolist(), strict=True):
            found[present[first], other] = value
    return found


def summarise(distances: dict[tuple[int, int], list[float]]) -> dict:
    """Mean over all pairs of images, and how much they, and the means of the pairs of runs, spread (population std)."""
    values = list(itertools.chain.from_iterable(distances.values()))
    return {
        "lpips": float(np.mean(values)),
        "std_over_images": float(np.std(values)),
        "std_over_run_pairs": float(np.std([np.mean(pair) for pair in distances.values()])),
        "image_pairs": len(values),
        "run_pairs": len(distances),
    }


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
        "resize": f"bilinear to {args.image_size}" + (f", then to {SDM_SIZE}" if args.compat else ""),
        "range": "normalised for ImageNet, then again by LPIPS" if args.compat else "[-1, 1]",
        "compat": args.compat,
        "versions": {name: version(name) for name in ("torch", "torchvision", "lpips", "pillow")},
    }


def cautions(distances: dict, runs: Sequence[Path], names: Sequence[set[str]]) -> Iterator[str]:
    """Runs that are copies of one another, and names that not every run has."""
    for (i, j), values in sorted(distances.items()):
        if max(values) < IDENTICAL:
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


if __name__ == "__main__":
    run_command(main, continues=False)
