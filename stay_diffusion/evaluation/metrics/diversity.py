"""Diversity score (DS): how much images of one layout differ, by LPIPS; higher is more diverse, 0 is always the same.

python evaluations/diversity.py --samples GENERATED

LPIPS v0.1 (arXiv 1801.03924) between all pairs of images of one layout: those of several runs, or of one run that has
a layout several times. A layout's score is the mean over its pairs, the whole score the mean over layouts.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...data.images import IMAGE_SUFFIXES, read_image, to_tensor
from ...data.manifest import ManifestLayout, find_manifests, read_manifest
from ...system.distributed import gather_shares
from ...system.launchers import ALONE, World

SDM_SIZE = 299
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IDENTICAL = 1e-8  # not 0: one image's features can differ in the last bit with its place in the batch
MOST_OF_A_LAYOUT = 64  # images of one layout that are compared: all pairs of thousands of good parts would take days

Group = tuple[str, dict[int, Path]]  # a layout's name and its images, by the number of their run
Distances = dict[tuple[int, int], float]  # of pairs of runs, the lower number first


def find_groups(folder: Path) -> list[Group]:
    """The images of each layout that has several: by the manifests of a results folder, else by their names in runs.

    ValueError where no layout has two images.
    """
    groups = [(name, images) for name, images in all_groups(folder) if len(images) > 1]
    if not groups:
        raise ValueError(
            f"{folder}: no layout has two images, which diversity is the difference of; image_sample.py --num_runs 10 "
            "makes runs, or give a folder with samples* folders, */samples folders or folders of images"
        )
    return groups


def all_groups(folder: Path) -> list[Group]:
    """The same, with layouts of a single image where a manifest tells of them."""
    manifests = find_manifests(folder)
    return by_layout(manifests) if manifests else by_name(find_runs(folder))


def by_layout(manifests: Sequence[Path]) -> list[Group]:
    """The images of manifests by layout and where it comes from, each group named by its first stem."""
    groups: dict[tuple[ManifestLayout, str], tuple[str, list[Path]]] = {}
    for manifest in manifests:
        for entry in read_manifest(manifest):
            if entry.rejected:  # by the quality gate: in no labelled set
                continue
            key = entry.layout, entry.source
            groups.setdefault(key, (entry.stem, []))[1].append(manifest.parent / entry.file)
    return [(stem, dict(enumerate(images[:MOST_OF_A_LAYOUT]))) for stem, images in groups.values()]


def by_name(runs: Sequence[Path]) -> list[Group]:
    """The images of several runs by their file names, those that more than one run has."""
    names = [{path.name for path in images_in(run)} for run in runs]
    shared = sorted(name for name in set().union(*names) if sum(name in run for run in names) > 1)
    return [(name, {i: runs[i] / name for i, run in enumerate(names) if name in run}) for name in shared]


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


def resize_rule(image_size: int, compat: str | None) -> str:
    return f"bilinear to {image_size}" + (f", then to {SDM_SIZE}" if compat else "")


def embed(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Every layer's features of (B, 3, H, W), of unit length over the channels."""
    return [nn.functional.normalize(layer, dim=1, eps=1e-10) for layer in model.net(model.scaling_layer(images))]


def distance(model: nn.Module, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """LPIPS (B,) between embedded images, as LPIPS.forward gives it, without embedding each image once per pair."""
    layers = zip(model.lins, one, other, strict=True)
    return sum(linear((a - b) ** 2).mean(dim=(1, 2, 3)) for linear, a, b in layers)


def measure(
    model: nn.Module,
    groups: Sequence[Group],
    image_size: int,
    compat: str | None,
    device: torch.device,
    world: World = ALONE,
) -> list[Distances]:
    """The distances of all pairs of each group, in the groups' order, on every process."""
    from tqdm import tqdm

    own: dict[int, Distances] = {}  # by the number of a group
    quiet = None if world.is_main else True  # None: unless it is a terminal
    with torch.inference_mode():
        for number in tqdm(range(len(groups))[world.rank :: world.size], desc="LPIPS", disable=quiet):
            _, members = groups[number]
            images = torch.stack([prepare(path, image_size, compat) for path in members.values()])
            own[number] = pairwise(model, embed(model, images.to(device)), list(members))
    return gather_shares("distances", own)


def pairwise(model: nn.Module, embedded: Sequence[Tensor], runs: Sequence[int]) -> Distances:
    """The distances between the images of one group, which belong to these runs."""
    found = {}
    for first in range(len(runs) - 1):
        one, rest = [layer[first : first + 1] for layer in embedded], [layer[first + 1 :] for layer in embedded]
        for other, value in zip(runs[first + 1 :], distance(model, one, rest).tolist(), strict=True):
            found[runs[first], other] = value
    return found


def summarise(groups: Sequence[Group], distances: Sequence[Distances]) -> dict:
    """Mean over all pairs of images, and how much they, and the means of the pairs of runs, spread (population std).

    `ds` is the mean over layouts of each one's mean over its pairs, `layouts` says each one's.
    """
    values = list(itertools.chain.from_iterable(found.values() for found in distances))
    of_layouts = [list(found.values()) for found in distances]
    means = [float(np.mean(found)) for found in of_layouts]
    return {
        "lpips": float(np.mean(values)),
        "std_over_images": float(np.std(values)),
        "std_over_run_pairs": float(np.std([np.mean(pair) for pair in by_pair(distances).values()])),
        "image_pairs": len(values),
        "run_pairs": len(by_pair(distances)),
        "ds": float(np.mean(means)),
        "ds_std_over_layouts": float(np.std(means)),
        "layouts": {
            name: {"mean": mean, "std": float(np.std(found)), "pairs": len(found)}
            for (name, _), mean, found in zip(groups, means, of_layouts, strict=True)
        },
    }


def by_pair(distances: Sequence[Distances]) -> dict[tuple[int, int], list[float]]:
    """The distances of each pair of runs, in the groups' order."""
    found: dict[tuple[int, int], list[float]] = {}
    for pair, value in itertools.chain.from_iterable(of_group.items() for of_group in distances):
        found.setdefault(pair, []).append(value)
    return found


def identical_runs(distances: Sequence[Distances]) -> Iterator[tuple[int, int]]:
    """Pairs of runs whose images are copies of one another."""
    return (pair for pair, values in sorted(by_pair(distances).items()) if max(values) < IDENTICAL)
