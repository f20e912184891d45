"""Bits per dimension of a set of images under the model that made another, as nll.py finds them for a split.

Imported by evaluate.py's metric nll.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ...config import RunConfig
from ...data.annotations import Vocabulary
from ...data.layout import Layout
from ...data.manifest import find_manifests, read_manifest
from ...diffusion.gaussian_diffusion import respace
from ...layouts.items import LayoutItem
from ...run import factory
from ...run.checkpoint import config_beside, sha256
from ..comparison import Comparison, file_facts
from ..image_set import ImageSet, pixels
from ..options import NllConfig
from . import nll

PRECISION = "fp32"  # most of the bound lies in the last steps, where the smallest errors count


def model_of(comparison: Comparison) -> tuple[Path, RunConfig]:
    """The weights of --model_path, else those that made the samples, and what they are; ValueError without them."""
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
    """The weights that the samples' manifest names, if they are what they were."""
    folder = Path(samples.path)
    entry = next((entry for manifest in find_manifests(folder) for entry in read_manifest(manifest)), None)
    weights = entry and entry.weights
    if not (entry and weights):
        raise ValueError(f"needs --model_path FILE: no model made {samples.path}, as far as a manifest.jsonl tells")
    if weights.is_file() and sha256(weights) != entry.settings.get("checkpoint_sha256"):
        raise ValueError(f"{weights}: not the weights that made these samples any more (their sha256 differs)")
    return weights


def check_images(images: ImageSet, config: RunConfig, weights: Path) -> None:
    """ValueError where images are not of the model's size, or show what it does not know."""
    size = config.model.image_size
    other = next((look for look in images.looks if (look.width, look.height) != (size, size)), None)
    if other:
        raise ValueError(
            f"{images.path}: an image of {other.width}x{other.height}, but {weights.name} knows {size}x{size}: "
            "--reference val takes real pictures as the model saw them"
        )
    for item in layouts_of(images):
        item.tensors(factory.vocabulary_of(config))


def layouts_of(images: ImageSet) -> list[LayoutItem]:
    shown = zip(images.products, images.objects, strict=True)
    return [LayoutItem(str(i), product, objects, images.path) for i, (product, objects) in enumerate(shown)]


def measure(comparison: Comparison) -> dict:
    """nll.py's figures of the reference's first images, in the order of their content, and their protocol."""
    options, device = comparison.options, torch.device(comparison.reading.device)
    weights, config = model_of(comparison)
    images = comparison.labelled_reference
    N = min(options.nll_images or len(images.items), len(images.items))
    respacing = options.nll_respacing or config.diffusion.timestep_respacing
    flag = "nll_respacing" if options.nll_respacing else "timestep_respacing"
    diffusion = respace(factory.build_diffusion(config.diffusion), respacing, flag).to(device)
    settings = NllConfig(batch_size=options.batch_size, seed=options.seed)
    totals, priors, terms = nll.measure(
        factory.load_trained(config, weights, device),
        diffusion,
        batches(images, N, options.batch_size, config.model.image_channels, factory.vocabulary_of(config)),
        N,
        settings,
        PRECISION,
        config.model.z_mode if config.model.class_cond else "off",
        comparison.world,
    )
    return nll.summarise(totals, priors, terms["vb"]) | {
        "protocol": {
            **file_facts(model=weights),
            "images_measured": N,
            "steps": diffusion.num_timesteps,
            "clip_denoised": settings.clip_denoised,
            "precision": PRECISION,
            "device": device.type,
        }
    }


def batches(
    images: ImageSet, num: int, batch_size: int, channels: int, vocabulary: Vocabulary
) -> Iterator[tuple[Tensor, Layout]]:
    """Images (B, C, S, S) in [-1, 1] and their layouts, the first `num` in the set's order."""
    layouts = layouts_of(images)
    for start in range(0, num, batch_size):
        places = range(start, min(start + batch_size, num))
        levels = [torch.from_numpy(pixels(images.items[i], None, channels)).permute(2, 0, 1) for i in places]
        layout = Layout.collate([layouts[i].tensors(vocabulary) for i in places])
        yield torch.stack(levels).float() / 127.5 - 1, layout
