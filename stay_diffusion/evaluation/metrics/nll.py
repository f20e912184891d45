"""Bits per dimension: a bound on the negative log-likelihood of images under a trained model; lower is better.

The images are measured in the order of their content: the noise of image i is drawn from (seed, i), whatever the
images are called and whatever the batch size.
"""

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ...config import ModelConfig, RunConfig
from ...data.images import to_pil
from ...data.layout import Layout
from ...data.manifest import find_manifests, read_manifest
from ...data.samples import LayoutDataset
from ...diffusion.gaussian_diffusion import GaussianDiffusion, respace
from ...diffusion.likelihood import bits_per_dim
from ...layouts.items import LayoutItem
from ...run import factory
from ...run.checkpoint import config_beside, sha256
from ...sampling.generate import image_generators, object_styles
from ...system.device import autocast
from ...system.distributed import gather_shares
from ...system.launchers import ALONE, World
from ..comparison import Comparison, file_facts
from ..figures import Figure
from ..image_set import ImageSet, content_order, look, pixels
from ..metric import Metric
from ..options import NllConfig

TERMS = {"vb": "vb_terms.npz", "x_start_mse": "xstart_mse_terms.npz", "mse": "mse_terms.npz"}
PRECISION = "fp32"  # most of the bound lies in the last steps, where the smallest errors count

# An image (H, W, C) and its layout as `Layout.collate` takes it.
Example = tuple[NDArray[np.uint8], tuple]


class Bounds(NamedTuple):
    """The total and the prior of each image, and the mean of each term over the images (T,), t = T - 1 first."""

    totals: list[float]
    priors: list[float]
    terms: dict[str, NDArray[np.float64]]


def measure(
    model,
    config: ModelConfig,
    diffusion: GaussianDiffusion,
    num_images: int,
    read: Callable[[int], Example],
    nll: NllConfig,
    world: World = ALONE,
) -> Bounds:
    """Bound images 0 to num_images - 1, as `read` reads them; several processes share their batches.

    `diffusion` is already respaced and on the model's device, and `nll.precision` resolved.
    """
    device, own = torch.device(diffusion.device), {}  # by the number of a batch
    has_styles = config.class_cond and config.z_mode == "prior"
    starts = range(0, num_images, nll.batch_size)
    calls = len(starts[world.rank :: world.size]) * diffusion.num_timesteps
    with torch.no_grad(), tqdm(total=calls, unit="step", mininterval=1.0, disable=not world.is_main) as progress:

        def network(x, t, layout):
            progress.update()
            with autocast(device, nll.precision):
                return model(x, t, layout=layout)

        for number in range(len(starts))[world.rank :: world.size]:
            places = range(starts[number], min(starts[number] + nll.batch_size, num_images))
            levels, layouts = zip(*map(read, places), strict=True)
            images = torch.from_numpy(np.stack(levels)).permute(0, 3, 1, 2).float() / 127.5 - 1
            layout, generators = Layout.collate(layouts), image_generators(nll.seed, places)
            style = object_styles(layout, generators).to(device) if has_styles else None

            def draw_noise(shape=images.shape[1:], generators=generators):
                return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

            with autocast(device, nll.precision):
                conditioning = model.modulation(layout.to(device), images.shape[-2:], style)
            kwargs = {"layout": conditioning}
            found = bits_per_dim(diffusion, network, images.to(device), draw_noise, nll.clip_denoised, kwargs)
            sums = {name: getattr(found, name).double().sum(dim=0).cpu() for name in TERMS}
            own[number] = found.total.tolist(), found.prior.tolist(), sums
    totals, priors, sums_of_batches = zip(*gather_shares("terms", own), strict=True)
    means = {
        name: (functools.reduce(torch.add, (sums[name] for sums in sums_of_batches)) / num_images).numpy()
        for name in TERMS
    }
    return Bounds(list(itertools.chain(*totals)), list(itertools.chain(*priors)), means)


def summarise(bounds: Bounds) -> dict:
    """Return the figures in bits per dimension over all images."""
    totals, vb = bounds.totals, bounds.terms["vb"]
    N, T = len(totals), len(vb)
    mean = sum(totals) / N
    spread = math.sqrt(sum((total - mean) ** 2 for total in totals) / (N - 1)) if N > 1 else None
    quartiles = [0.0] * 4
    for t, value in enumerate(reversed(vb.tolist())):
        quartiles[4 * t // T] += value
    return {
        "bpd": mean,
        "standard_error": None if spread is None else spread / math.sqrt(N),
        "prior_bpd": sum(bounds.priors) / N,
        "vb_bpd": float(vb.sum()),
        "vb_bpd_per_quartile_of_t": quartiles,
    }


def read_split(dataset: LayoutDataset, world: World = ALONE) -> Callable[[int], Example]:
    """Return what reads image i of a split, in the order of content; several processes share finding that order."""

    def read(index: int) -> Example:
        sample = dataset.sample(index, epoch=0)
        image = np.asarray(to_pil(sample.image))
        return image if image.ndim == 3 else image[..., None], tuple(sample[1:])

    own = {i: look(read(i)[0]) for i in range(len(dataset))[world.rank :: world.size]}
    order = content_order(gather_shares("split looked at", own))
    return lambda i: read(order[i])


# The metric


def model_of(comparison: Comparison) -> tuple[Path, RunConfig]:
    """Return the weights of --model_path, else those that made the samples, with their configuration."""
    weights = Path(comparison.options.model_path) if comparison.options.model_path else maker_of(comparison.samples)
    if not weights.is_file():
        raise ValueError(f"{weights}: no such weights; --model_path FILE names others")
    config = config_beside(weights)
    if config is None:
        raise ValueError(f"{weights}: no config.json beside it, which says what the model is")
    if config.model.layout_kind == "map":
        raise ValueError(f"{weights}: a model of label maps, which evaluations/nll.py measures")
    return weights, config


def maker_of(samples: ImageSet) -> Path:
    """Return the weights that the samples' manifest names; ValueError where they have changed."""
    manifests = find_manifests(Path(samples.path))
    entry = next((entry for manifest in manifests for entry in read_manifest(manifest)), None)
    if not (entry and entry.weights):
        raise ValueError(f"needs --model_path FILE: no model made {samples.path}, as far as a manifest.jsonl tells")
    if entry.weights.is_file() and sha256(entry.weights) != entry.settings.get("checkpoint_sha256"):
        raise ValueError(f"{entry.weights}: not the weights that made these samples any more (their sha256 differs)")
    return entry.weights


def check(comparison: Comparison) -> None:
    """Raise ValueError where images are not of the model's size, or show what it does not know."""
    weights, config = model_of(comparison)
    images, size = comparison.labelled_reference, config.model.image_size
    other = next((look for look in images.looks if (look.width, look.height) != (size, size)), None)
    if other:
        raise ValueError(
            f"{images.path}: an image of {other.width}x{other.height}, but {weights.name} knows {size}x{size}: "
            "--reference val takes real pictures as the model saw them"
        )
    for item in layouts_of(images):
        item.tensors(factory.vocabulary_of(config))


def layouts_of(images: ImageSet) -> list[LayoutItem]:
    assert images.products is not None
    shown = zip(images.products, images.known_objects, strict=True)
    return [LayoutItem(str(i), product, objects, images.path) for i, (product, objects) in enumerate(shown)]


def measure_reference(comparison: Comparison) -> dict:
    """Measure the reference's first images, in the order of their content; the figures and their protocol."""
    options, images = comparison.options, comparison.labelled_reference
    weights, config = model_of(comparison)
    N = min(options.nll_images or len(images.items), len(images.items))
    respacing = options.nll_respacing or config.diffusion.timestep_respacing
    flag = "nll_respacing" if options.nll_respacing else "timestep_respacing"
    diffusion = respace(factory.build_diffusion(config.diffusion), respacing, flag).to(comparison.device)
    settings = NllConfig(batch_size=options.batch_size, seed=options.seed, precision=PRECISION)
    layouts, vocabulary = layouts_of(images), factory.vocabulary_of(config)

    def read(i: int) -> Example:
        return pixels(images.items[i], None, config.model.image_channels), layouts[i].tensors(vocabulary)

    model = factory.load_trained(config, weights, comparison.device)
    bounds = measure(model, config.model, diffusion, N, read, settings, comparison.world)
    return summarise(bounds) | {
        "protocol": {
            **file_facts(model=weights),
            "images_measured": N,
            "steps": diffusion.num_timesteps,
            "clip_denoised": settings.clip_denoised,
            "precision": PRECISION,
            "device": comparison.device.type,
        }
    }


def nll_figure(comparison: Comparison, found: dict) -> list[Figure]:
    report = dict(found)
    protocol = comparison.facts() | report.pop("protocol") | {"seed": comparison.options.seed}
    error, value = report["standard_error"], report.pop("bpd")
    if not math.isfinite(value):
        raise ValueError(f"{protocol['model']}: the bound of some image is not finite")
    how = "standard error over images" if error is not None else ""
    return [Figure("bits per dimension", value, "lower", error, how, protocol, report)]


METRIC = Metric(check, measure_reference, nll_figure)
