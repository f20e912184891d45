"""Diversity of generated images: the LPIPS between same-named images of several runs; higher is more diverse.

python evaluations/lpips.py GENERATED_IMAGES_DIR
"""

import argparse
import importlib
import itertools
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stay_diffusion.checkpoint import sha256
from stay_diffusion.command import run_command
from stay_diffusion.data.images import IMAGE_SUFFIXES, read_image, to_tensor
from stay_diffusion.device import pick_device
from stay_diffusion.torchvision_cpu import import_torchvision

# torchvision's builder and the enum of its ImageNet weights, for each backbone the lpips package knows.
BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}
SDM_SIZE = 299
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IDENTICAL = 1e-8  # not 0: one image's features can differ in the last bit with its place in the batch
NAMES_SHOWN = 5


def main() -> None:
    args = parse_arguments()
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
    distances = measure(model, runs, names, shared, args)
    result, facts = summarise(distances), protocol(runs, names, linear, backbone, args)
    print(
        f"LPIPS: {result['lpips']:.4f}", *(f"  {k}: {v}" for k, v in (result | facts).items() if k != "lpips"), sep="\n"
    )
    for caution in cautions(distances, runs, names):
        print(f"warning: {caution}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(result | {"protocol": facts}, indent=2) + "\n")


def import_lpips() -> ModuleType:
    """The lpips package, not this file, whose folder Python puts first on sys.path when it runs as a script."""
    import_torchvision()
    here, before = Path(__file__).resolve(), sys.path[:]
    if getattr(sys.modules.get("lpips"), "__file__", None) == str(here):
        del sys.modules["lpips"]
    sys.path[:] = [entry for entry in before if Path(entry or ".").resolve() != here.parent]
    try:
        return importlib.import_module("lpips")
    finally:
        sys.path[:] = before


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


def find_backbone(net: str, given: Path | None) -> Path:
    """The ImageNet weights given, or those in torch hub's cache, where torchvision keeps them; nothing is fetched."""
    models = import_torchvision().models
    url = getattr(models, BACKBONES[net]).IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if given and not given.is_file():
        raise ValueError(f"--backbone_weights {given}: no such file")
    if not given and not cached.is_file():
        raise ValueError(
            f"ImageNet weights {cached.name} are not in {cached.parent}: download {url} there "
            "(on any machine, then copy) or name a copy with --backbone_weights FILE"
        )
    return given or cached


def load_model(net: str, linear: Path, backbone: Path) -> nn.Module:
    """The lpips package's LPIPS v0.1 with these files' weights; neither is fetched nor unpickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision in a way that it deprecates
        model = import_lpips().LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    _load(model.net, backbone, lambda key: f"features.{key.partition('.')[2]}")  # slice2.3.bias is features.3.bias
    _load(model.lins, linear, lambda key: f"lin{key}")
    return model.requires_grad_(False)


def _load(module: nn.Module, path: Path, stored_name) -> None:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict({key: stored[stored_name(key)] for key in module.state_dict()})
    except Exception as error:  # of many types, over many lines
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ValueError(f"{path}: not these weights of LPIPS: {reason}") from error


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
    model: nn.Module, runs: Sequence[Path], names: Sequence[set[str]], shared: Sequence[str], args: argparse.Namespace
) -> dict[tuple[int, int], list[float]]:
    """The distances of the same-named images of every pair of runs (indices, the lower one first)."""
    from tqdm import tqdm

    distances: dict[tuple[int, int], list[float]] = {}
    with torch.inference_mode():
        for name in tqdm(shared, desc="LPIPS", disable=None):
            present = [i for i, run in enumerate(names) if name in run]
            images = torch.stack([prepare(runs[i] / name, args.image_size, args.compat) for i in present])
            embedded = embed(model, images.to(args.device))
            for first in range(len(present) - 1):
                one, rest = [layer[first : first + 1] for layer in embedded], [layer[first + 1 :] for layer in embedded]
                for other, value in zip(present[first + 1 :], distance(model, one, rest).tolist(), strict=True):
                    distances.setdefault((present[first], other), []).append(value)
    return distances


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
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the number and its protocol to this file")
    args = parser.parse_args()
    if args.image_size < 32:
        raise ValueError(f"--image_size {args.image_size}: the network needs 32 or more")
    if args.json and not args.json.resolve().parent.is_dir():
        raise ValueError(f"--json {args.json}: no such folder")
    args.device = pick_device(args.device)
    return args


if __name__ == "__main__":
    run_command(main, continues=False)
