"""The data sets of a training run: the images that it learns from, and the held-out ones that it is watched by."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import RunConfig
from ..data.annotations import ImageRecord, Vocabulary
from ..data.datasets import EmptySplit, Shared
from ..data.layout import Layout
from ..data.loader import batches
from ..data.samples import LayoutDataset
from ..run import factory
from ..system.launchers import World


@dataclass(frozen=True)
class TrainingData:
    """The configuration with the names that the data have, the records of both splits, and the data sets of them."""

    config: RunConfig
    records: list[ImageRecord]
    held_out: list[ImageRecord]
    train: LayoutDataset

    def unaugmented(self, records: list[ImageRecord]) -> LayoutDataset:
        return factory.build_dataset(records, self.config, augment=False)

    def watched(self, num_images: int) -> LayoutDataset:
        """Return the first held-out images as a data set; fewer where there are fewer."""
        return self.unaugmented(self.held_out[:num_images])


def read_training_data(config: RunConfig, known: Vocabulary | None) -> TrainingData:
    """Read both splits; `known` names come first in the vocabulary, and None leaves the configuration's as it is."""
    options = config.train
    shared: Shared = {}
    config, records = read_training_split(config, known, shared)
    intervals = (
        (options.val_interval, options.val_images),
        (options.preview_interval, options.preview_images),
        (options.eval_interval, options.eval_images),
    )
    num_watched = max(num_images if interval else 0 for interval, num_images in intervals)
    held_out = _read_held_out(config, shared)[:num_watched] if num_watched else []
    return TrainingData(config, records, held_out, factory.build_dataset(records, config, augment=True))


def read_training_split(
    config: RunConfig, known: Vocabulary | None, shared: Shared | None = None
) -> tuple[RunConfig, list[ImageRecord]]:
    """Return the configuration with the names of the data, and the usable records of the split to train on."""
    split = "train" if config.train.is_train else "val"
    records, vocabulary = factory.read_split(config.data, split, select=known is not None, known=known, shared=shared)
    records = factory.with_readable_pictures(records, config.data)
    return factory.with_vocabulary(config, vocabulary), records


def _read_held_out(config: RunConfig, shared: Shared) -> list[ImageRecord]:
    """Read the validation records; none, with a warning, where the data are too few to hold any out."""
    try:
        return factory.with_readable_pictures(factory.read_split(config.data, "val", shared=shared)[0], config.data)
    except EmptySplit as error:
        logging.warning("%s: training without validation and previews", error)
        return []


def stream_batches(
    dataset: LayoutDataset, config: RunConfig, device: torch.device, world: World, start: int = 0
) -> Iterator[tuple[Tensor, Layout]]:
    """Return this process's endless batches of a data set, from sample `start` of the run's order on."""
    return batches(
        dataset,
        config.train.batch_size,
        config.train.seed,
        start=start,
        rank=world.rank,
        world=world.size,
        num_workers=config.data.num_workers,
        pin_memory=device.type == "cuda",
    )
