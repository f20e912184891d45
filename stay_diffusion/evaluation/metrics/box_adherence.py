"""Does the model draw defects where the boxes are, and nowhere else? Needs no weights but the model's own.

    python evaluations/box_adherence.py RESULTS

RESULTS is a folder made by image_sample.py. Every layout is sampled once more with the same seed as a good part, the
product alone, and both pictures are compared: a pixel's difference is what the boxes did to it. Reported, in grey
levels of 255: the mean absolute difference over all pixels inside boxes, over all outside, their ratio, the mean over
each class's boxes, and the share of empty boxes, in which nothing happened: the box's mean difference is under twice
that outside the boxes of its picture, or under 2 grey levels.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...config import RunConfig, SampleConfig
from ...data.annotations import RelativeBox, Vocabulary
from ...data.manifest import ManifestEntry, read_run
from ...layouts.items import LayoutItem
from ...run import factory
from ...run.checkpoint import atomic_write, config_beside, sha256
from ...sampling.batches import Made, make_all
from ...sampling.generate import TrainedModel, make_images
from ...sampling.results import ResultsFolder
from ...system.device import pick_device
from ...system.distributed import wait_for_all
from ...system.launchers import ALONE, World
from .adherence import measure


def items_of(manifest: Path, entries: dict[int, ManifestEntry]) -> list[LayoutItem]:
    """The layouts of a manifest, in order of their indices; ValueError where one is missing."""
    missing = sorted(set(range(max(entries) + 1)) - set(entries))
    if missing:
        raise ValueError(f"{manifest}: lacks image {missing[0]}: let image_sample.py finish first")
    return [
        LayoutItem(entry.stem, entry.product, entry.new_objects, entry.source) for _, entry in sorted(entries.items())
    ]


def trained_with(settings: dict) -> tuple[Path, RunConfig]:
    """The weights that made samples and what they are; ValueError where they are gone, or see no boxes."""
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
    """The same layouts without their objects, same seeds and settings, into folder/good_parts; returns their folder.

    `attempts` says how often each picture had been drawn before it passed the quality gate. Those that an earlier
    call has finished are kept.
    """
    weights, config = trained_with(settings)
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


def pixels(path: Path) -> np.ndarray:
    """(H, W, C) in grey levels of 255."""
    array = np.asarray(Image.open(path))
    array = array / 257 if array.dtype == np.uint16 else array
    return array[..., None] if array.ndim == 2 else array


def pairs_of(
    folder: Path, batch_size: int, device: torch.device, world: World = ALONE
) -> tuple[Iterator[tuple[np.ndarray, np.ndarray, Sequence[RelativeBox]]], dict]:
    """What `measure` takes of a results folder, its good parts sampled first, and the settings of its samples.

    Several processes share the sampling. ValueError where no model made the folder, or it is not there any more.
    """
    entries = entries_of(folder)
    items = items_of(folder / "manifest.jsonl", entries)
    settings = settings_of(entries)
    if any(entry.source_image for entry in entries.values()):
        good = folder / "images"  # the pictures that the objects were put into
    else:
        attempts = [entry.attempt or 0 for _, entry in sorted(entries.items())]
        good = sample_good_parts(folder, items, attempts, settings, batch_size, device, world)
    kept = [item for index, item in enumerate(items) if not entries[index].rejected]
    drawn = folder / "samples"
    pairs = ((pixels(drawn / f"{i.stem}.png"), pixels(good / f"{i.stem}.png"), i.objects) for i in kept)
    return pairs, settings


def check(folder: Path) -> None:
    """ValueError where the good parts of a results folder cannot be had."""
    entries = entries_of(folder)
    items_of(folder / "manifest.jsonl", entries)
    if not any(entry.source_image for entry in entries.values()):
        trained_with(settings_of(entries))


def entries_of(folder: Path) -> dict[int, ManifestEntry]:
    entries = read_run(folder)
    if not entries:
        raise ValueError(f"{folder}: no manifest.jsonl with samples in it (image_sample.py makes such folders)")
    if not next(iter(entries.values())).weights:
        raise ValueError(f"{folder / 'manifest.jsonl'}: names no weights: no model made these pictures")
    return entries


def settings_of(entries: dict[int, ManifestEntry]) -> dict:
    """What all pictures of a manifest were made with."""
    return {key: value for key, value in entries[min(entries)].settings.items() if key != "mask_kind"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("results", type=Path, help="folder made by image_sample.py")
    parser.add_argument("--batch_size", type=int, default=16, help="good parts at a time (does not change them)")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size {arguments.batch_size}: must be 1 or more")

    folder = arguments.results
    pairs, settings = pairs_of(folder, arguments.batch_size, pick_device(arguments.device))
    found = measure(pairs)

    print(
        f"box adherence: {found.pictures} layouts, {found.boxes} boxes, {settings['sampler']} "
        f"{settings['timestep_respacing']}, s {settings['s']}, seed {settings['seed']}, "
        f"weights sha256 {settings['checkpoint_sha256'][:12]}"
    )
    print(f"  inside boxes   {found.inside:7.2f} grey levels")
    print(f"  outside boxes  {found.outside:7.2f} grey levels")
    print(f"  in/out ratio   {'none' if found.ratio is None else format(found.ratio, '.2f'):>7}")
    print(f"  empty boxes    {found.empty:4d} of {found.boxes} ({100 * found.empty_rate:.1f} %)")
    for label, figures in found.per_class.items():
        counts = f"in {figures['boxes']} boxes, {figures['empty']} empty"
        print(f"    {label:16s} {figures['difference']:7.2f} grey levels {counts}")
    report = {
        "inside": found.inside,
        "outside": found.outside,
        "ratio": found.ratio,
        "empty_boxes": found.empty,
        "boxes": found.boxes,
        "empty_rate": found.empty_rate,
        "layouts": found.pictures,
        "per_class": found.per_class,
        "protocol": settings,
    }
    atomic_write(folder / "box_adherence.json", lambda file: file.write((json.dumps(report, indent=2) + "\n").encode()))
    print(f"written: {(folder / 'box_adherence.json').resolve()}")
    return 0
