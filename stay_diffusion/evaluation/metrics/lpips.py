"""LPIPS diversity (DS): how much images of one layout differ; higher is more diverse, 0 is always the same.

LPIPS v0.1 (arXiv 1801.03924) between all pairs of images of one layout: those of several runs, or of one run that has
a layout several times. A layout's score is the mean over its pairs, the whole score the mean over layouts.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...data.images import read_image, to_tensor
from ...system.distributed import gather_shares
from ...system.launchers import ALONE, World
from ..comparison import Comparison, file_facts
from ..features.lpips_network import find_backbone, find_linear, load_model
from ..figures import Figure
from ..groups import Group
from ..metric import Metric

SIZE, SDM_SIZE = 256, 299  # sides that every image is resized to
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IDENTICAL = 1e-8  # not 0: one image's features can differ in the last bit with its place in the batch

Distances = dict[tuple[int, int], float]  # of pairs of runs, the lower number first


@dataclass(frozen=True)
class Lpips:
    """The network by its files, and the size and normalisation of the images that it is given."""

    net: str
    linear: Path
    backbone: Path
    image_size: int = SIZE
    compat: str | None = None

    def facts(self) -> dict:
        then = f", then to {SDM_SIZE}" if self.compat else ""
        return {
            "net": f"{self.net} v0.1",
            **file_facts(linear=self.linear, backbone=self.backbone),
            "resize": f"bilinear to {self.image_size}{then}",
        }


def prepare(path: Path, image_size: int, compat: str | None) -> Tensor:
    """Read an image as (3, S, S): in [-1, 1], or as SDM's script does, resized twice and normalised for ImageNet."""
    image = read_image(path, channels=3).resize((image_size, image_size), Image.Resampling.BILINEAR)
    if compat is None:
        return to_tensor(image, channels=3)
    unit = (to_tensor(image.resize((SDM_SIZE, SDM_SIZE), Image.Resampling.BILINEAR), channels=3) + 1) / 2
    return (unit - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


def embed(model: Any, images: Tensor) -> list[Tensor]:
    """Return every layer's features of (B, 3, H, W), of unit length over the channels."""
    return [nn.functional.normalize(layer, dim=1, eps=1e-10) for layer in model.net(model.scaling_layer(images))]


def distance(model: Any, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Compute LPIPS.forward (B,) of embedded images, without embedding each image once per pair."""
    layers = zip(model.lins, one, other, strict=True)
    return functools.reduce(torch.add, (linear((a - b) ** 2).mean(dim=(1, 2, 3)) for linear, a, b in layers))


def measure(lpips: Lpips, groups: Sequence[Group], device: torch.device | str, world: World = ALONE) -> list[Distances]:
    """Measure all pairs of each group; the distances in the groups' order, on every process."""
    from tqdm import tqdm

    model = load_model(lpips.net, lpips.linear, lpips.backbone).to(device)
    own: dict[int, Distances] = {}  # by the number of a group
    quiet = None if world.is_main else True  # None: unless it is a terminal
    with torch.inference_mode():
        for number in tqdm(range(len(groups))[world.rank :: world.size], desc="LPIPS", disable=quiet):
            _, members = groups[number]
            images = torch.stack([prepare(path, lpips.image_size, lpips.compat) for path in members.values()])
            own[number] = pairwise(model, embed(model, images.to(device)), list(members))
    return gather_shares("distances", own)


def pairwise(model: Any, embedded: Sequence[Tensor], runs: Sequence[int]) -> Distances:
    """Return the distances between the images of one group, which belong to these runs."""
    found = {}
    for first in range(len(runs) - 1):
        one, rest = [layer[first : first + 1] for layer in embedded], [layer[first + 1 :] for layer in embedded]
        for other, value in zip(runs[first + 1 :], distance(model, one, rest).tolist(), strict=True):
            found[runs[first], other] = value
    return found


def summarise(groups: Sequence[Group], distances: Sequence[Distances]) -> dict:
    """Return the mean over all pairs of images, and its spread over them and over pairs of runs (population std).

    `ds` is the mean over layouts of each one's mean over its pairs, `layouts` each one's. Sums are exact, so that the
    groups' order changes no bit.
    """
    of_layouts = [list(found.values()) for found in distances]
    values, pairs = list(itertools.chain(*of_layouts)), by_pair(distances)
    means = [_mean(found) for found in of_layouts]
    return {
        "lpips": _mean(values),
        "std_over_images": _std(values),
        "std_over_run_pairs": _std([_mean(pair) for pair in pairs.values()]),
        "image_pairs": len(values),
        "run_pairs": len(pairs),
        "ds": _mean(means),
        "ds_std_over_layouts": _std(means),
        "layouts": {
            name: {"mean": mean, "std": _std(found), "pairs": len(found)}
            for (name, _), mean, found in zip(groups, means, of_layouts, strict=True)
        },
    }


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sqrt(fsum((value - mean) ** 2 for value in values) / len(values))


def by_pair(distances: Sequence[Distances]) -> dict[tuple[int, int], list[float]]:
    """Return the distances of each pair of runs, in the groups' order."""
    found: dict[tuple[int, int], list[float]] = {}
    for pair, value in itertools.chain.from_iterable(of_group.items() for of_group in distances):
        found.setdefault(pair, []).append(value)
    return found


def identical_runs(distances: Sequence[Distances]) -> Iterator[tuple[int, int]]:
    """Find pairs of runs whose images are copies of one another."""
    return (pair for pair, values in sorted(by_pair(distances).items()) if max(values) < IDENTICAL)


# The metric


def check(comparison: Comparison) -> None:
    """Raise ValueError where no layout has two images, or the network's files are missing."""
    comparison.groups  # noqa: B018
    network_of(comparison)


def network_of(comparison: Comparison) -> Lpips:
    options = comparison.options
    linear, backbone = (Path(name) if name else None for name in (options.lpips_weights, options.backbone_weights))
    return Lpips(
        options.lpips_net,
        find_linear(options.lpips_net, linear),
        find_backbone(options.lpips_net, backbone),
        compat=options.lpips_compat or None,
    )


def measure_lpips(comparison: Comparison) -> list[Distances]:
    return measure(network_of(comparison), comparison.groups, comparison.reading.device, comparison.world)


def lpips_figures(comparison: Comparison, distances: list[Distances]) -> list[Figure]:
    groups = comparison.groups
    found = summarise(groups, distances)
    protocol = comparison.facts(with_reference=False) | {
        "layouts": len(groups),
        "images_per_layout": ", ".join(map(str, sorted({len(images) for _, images in groups}))),
        **network_of(comparison).facts(),
    }
    spread = found["ds_std_over_layouts"] / sqrt(len(groups))
    return [Figure("DS (LPIPS)", found["ds"], "higher", spread, "standard error over layouts", protocol, found)]


METRIC = Metric(check, measure_lpips, lpips_figures)
