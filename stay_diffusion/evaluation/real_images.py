"""The real images of a split, cut as the model that made the samples saw them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..config import RunConfig
from ..data.images import to_pil
from ..data.manifest import find_manifests, read_manifest
from ..layouts.items import from_dataset
from ..run import factory
from ..run.checkpoint import config_beside
from .image_set import ImageSet

SPLITS = ("train", "val")


def real_images(split: str, samples: Path, given: dict) -> ImageSet:
    """Return a split's images with their objects; the data flags in `given` replace those of the samples' run.

    ValueError where `samples` is no folder of image_sample.py's, or its model is not there any more.
    """
    config = config_of(samples, split)
    typed = {
        name: value for name, value in factory.over_saved(given, config.data).items() if hasattr(config.data, name)
    }
    config = replace(config, data=replace(config.data, **typed))
    records, _ = factory.read_split(config.data, split)
    dataset = factory.build_dataset(records, config, augment=False)
    layouts = from_dataset(dataset)
    arrays = [np.asarray(to_pil(dataset.sample(i, epoch=0).image)) for i in range(len(dataset))]
    return ImageSet(
        f"{config.data.data_dir} ({split}, as the model saw it)",
        [array[..., None] if array.ndim == 2 else array for array in arrays],
        objects=tuple(layout.objects for layout in layouts),
        products=tuple(layout.product for layout in layouts),
    )


def config_of(samples: Path, split: str) -> RunConfig:
    """Return the configuration of the run that made a results folder."""
    manifests = find_manifests(samples)
    if not manifests:
        raise ValueError(f"--reference {split}: {samples} is no folder that image_sample.py has made; give a folder")
    entries = read_manifest(manifests[0])
    weights = (entries[0].weights if entries else None) or samples
    config = config_beside(weights)
    if config is None:
        raise ValueError(f"--reference {split}: no config.json beside {weights}, which made the samples")
    return config
