"""The samples of a results folder once more as good parts: the product alone, of the same seeds, by the same model."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config import RunConfig, SampleConfig
from ..data.annotations import RelativeBox, Vocabulary
from ..data.manifest import NAME, ManifestEntry, read_run
from ..layouts.items import LayoutItem
from ..run import factory
from ..run.checkpoint import config_beside, sha256
from ..sampling.batches import Made, make_all
from ..sampling.generate import TrainedModel, make_images
from ..sampling.results import ResultsFolder
from ..system.distributed import wait_for_all
from ..system.launchers import ALONE, World

Pairs = Iterator[tuple[np.ndarray, np.ndarray, Sequence[RelativeBox]]]  # image and good part (H, W, C), boxes


def items_of(manifest: Path, entries: dict[int, ManifestEntry]) -> list[LayoutItem]:
    """Return the layouts of a manifest, in order of their indices; ValueError where one is missing."""
    missing = sorted(set(range(max(entries) + 1)) - set(entries))
    if missing:
        raise ValueError(f"{manifest}: lacks image {missing[0]}: let image_sample.py finish first")
    return [
        LayoutItem(entry.stem, entry.product, entry.new_objects, entry.source) for _, entry in sorted(entries.items())
    ]


def find_model(settings: dict) -> tuple[Path, RunConfig]:
    """Return the weights that made samples and their configuration; ValueError where they are gone, or see no boxes."""
    weights = Path(settings["checkpoint"])
    if not weights.is_file():
        raise ValueError(f"{weights}: the weights that made these samples are not there any more")
    if sha256(weights) != settings["checkpoint_sha256"]:
        raise ValueError(f"{weights}: not the weights that made these samples any more (their sha256 differs)")
    config = config_beside(weights)
    if config is None:
        raise ValueError(f"{weights}: no config.json beside it, which says what the model is")
    if config.model.layout_kind != "boxes":
        raise ValueError(f"{weights}: a model that sees no boxes (--conditioning {config.model.conditioning})")
    return weights, config


def sample_good_parts(
    folder: Path,
    items: list[LayoutItem],
    attempts: list[int],
    settings: dict,
    batch_size: int,
    device: torch.device,
    world: World = ALONE,
) -> Path:
    """Sample the layouts without their objects, of the same seeds and settings, into folder/good_parts/samples.

    `attempts` counts how often each image had been drawn before it passed the quality gate. Good parts that an earlier
    call has finished are kept. Returns their folder.
    """
    weights, config = find_model(settings)
    vocabulary: Vocabulary = factory.vocabulary_of(config)
    good = [LayoutItem(item.stem, item.product, (), item.source) for item in items]
    results = ResultsFolder(folder / "good_parts", vocabulary, world.rank)
    done = results.done(good, settings)
    wait_for_all(f"{results.path} looked at")
    if len(done) < len(good):
        options = {option.name: settings[option.name] for option in fields(SampleConfig) if option.name in settings}
        if world.is_main:
            results.open()
        wait_for_all(f"{results.path} opened")
        sample = SampleConfig(batch_size=batch_size, **options)
        model = TrainedModel.load(config, weights, settings["timestep_respacing"], sample, device)
        make = partial(make_images, model, good, vocabulary, settings.get("run", 0), False)

        def make_as_kept(indices: Sequence[int], _: int) -> list[Made]:
            made: dict[int, Made] = {}
            for attempt in sorted({attempts[i] for i in indices}):
                same = [i for i in indices if attempts[i] == attempt]
                made |= zip(same, make(same, attempt), strict=True)
            return [made[i] for i in indices]

        def add(index: int, made: Made) -> None:
            results.add(index, good[index], made.image, settings)

        make_all(make_as_kept, len(good), batch_size, add, done, world)
        wait_for_all(f"{results.path} made")
    return results.path / "samples"


def read_levels(path: Path) -> np.ndarray:
    """Read (H, W, C) in grey levels of 255."""
    array = np.asarray(Image.open(path))
    array = array / 257 if array.dtype == np.uint16 else array
    return array[..., None] if array.ndim == 2 else array


def pair_with_good_parts(
    folder: Path, batch_size: int, device: torch.device, world: World = ALONE
) -> tuple[Pairs, dict]:
    """Pair the samples of a results folder with their good parts, sampled first, and return the samples' settings.

    Several processes share the sampling. ValueError where no model made the folder, or it is not there any more.
    """
    entries = entries_of(folder)
    items = items_of(folder / NAME, entries)
    settings = settings_of(entries)
    if any(entry.source_image for entry in entries.values()):
        good = folder / "images"  # the pictures that the objects were put into
    else:
        attempts = [entry.attempt or 0 for _, entry in sorted(entries.items())]
        good = sample_good_parts(folder, items, attempts, settings, batch_size, device, world)
    kept = [item for index, item in enumerate(items) if not entries[index].rejected]
    drawn = folder / "samples"
    pairs = (
        (read_levels(drawn / f"{item.stem}.png"), read_levels(good / f"{item.stem}.png"), item.objects) for item in kept
    )
    return pairs, settings


def check_good_parts(folder: Path) -> None:
    """Raise ValueError where a results folder has no good parts and none can be sampled."""
    entries = entries_of(folder)
    items_of(folder / NAME, entries)
    if not any(entry.source_image for entry in entries.values()):
        find_model(settings_of(entries))


def entries_of(folder: Path) -> dict[int, ManifestEntry]:
    """Read a manifest by image index; ValueError where no model made its images."""
    entries = read_run(folder)
    if not entries:
        raise ValueError(f"{folder}: no manifest.jsonl with samples in it (image_sample.py makes such folders)")
    if not next(iter(entries.values())).weights:
        raise ValueError(f"{folder / 'manifest.jsonl'}: names no weights: no model made these pictures")
    return entries


def settings_of(entries: dict[int, ManifestEntry]) -> dict:
    """Return the settings of a manifest's first image, which all share."""
    return {key: value for key, value in entries[min(entries)].settings.items() if key != "mask_kind"}
