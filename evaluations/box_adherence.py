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
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stay_diffusion import factory
from stay_diffusion.checkpoint import atomic_write, config_beside, sha256
from stay_diffusion.command import run_command
from stay_diffusion.config import SampleConfig
from stay_diffusion.data.annotations import Box, Vocabulary
from stay_diffusion.device import pick_device
from stay_diffusion.diffusion.gaussian_diffusion import respace
from stay_diffusion.models.object_masks import at_least_one_pixel, box_indicator
from stay_diffusion.sampling.batches import Made, make_all
from stay_diffusion.sampling.export import ResultsFolder
from stay_diffusion.sampling.generate import sampling
from stay_diffusion.sampling.layouts import LayoutItem

EMPTY_RATIO, EMPTY_LEVELS = 2.0, 2.0
OF_ONE_IMAGE = ("index", "stem", "file", "layout", "source", "source_image", "mask", "mask_kind", "masks")
OF_ONE_IMAGE += ("attempt", "quality")


@dataclass(frozen=True)
class Adherence:
    """Mean absolute differences in grey levels of 255; counts of boxes and of those in which nothing happened.

    `pictures` counts those with boxes.
    """

    inside: float
    outside: float
    empty: int
    boxes: int
    pictures: int
    per_class: dict[str, dict[str, float]]

    @property
    def ratio(self) -> float | None:
        """None where nothing outside the boxes differs: any number would say more than is known."""
        return self.inside / self.outside if self.outside else None

    @property
    def empty_rate(self) -> float:
        return self.empty / self.boxes


def measure(pairs: Iterable[tuple[np.ndarray, np.ndarray, Sequence[Box]]]) -> Adherence:
    """Adherence over (with defects (H, W, C) uint8, as a good part (H, W, C) uint8, boxes in [0, 1]) triples.

    Left out are boxes without a pixel in their picture, and pictures without boxes: their good part is the same picture
    once more, so that they would raise the ratio for nothing. ValueError if there is no box at all.
    """
    inside_sum = outside_sum = inside_pixels = outside_pixels = pictures = 0
    of_class: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for drawn, good, objects in pairs:
        difference = np.abs(drawn.astype(np.float64) - good).mean(axis=-1)  # H W
        masks = box_masks(objects, difference.shape)
        union = masks.any(axis=0)
        if not union.any():
            continue
        pictures += 1
        inside_sum, inside_pixels = inside_sum + difference[union].sum(), inside_pixels + union.sum()
        outside_sum, outside_pixels = outside_sum + difference[~union].sum(), outside_pixels + (~union).sum()
        around = difference[~union].mean() if (~union).any() else 0.0
        for box, mask in zip(objects, masks, strict=True):
            if mask.any():
                level = difference[mask].mean()
                of_class[box.label].append((level, level < max(EMPTY_RATIO * around, EMPTY_LEVELS)))
    if not of_class:
        raise ValueError("no layout has a box: nothing to measure")
    found = [pair for pairs_of_class in of_class.values() for pair in pairs_of_class]
    return Adherence(
        inside=float(inside_sum / inside_pixels),
        outside=float(outside_sum / max(outside_pixels, 1)),
        empty=int(sum(empty for _, empty in found)),
        boxes=len(found),
        pictures=pictures,
        per_class={
            label: {
                "boxes": len(values),
                "difference": float(np.mean([level for level, _ in values])),
                "empty": int(sum(empty for _, empty in values)),
            }
            for label, values in sorted(of_class.items())
        },
    )


def box_masks(objects: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """Which pixels (n, H, W) belong to each box, by the model's rule: centres inside, at least one pixel."""
    boxes = torch.tensor([[box.x0, box.y0, box.x1, box.y1] for box in objects]).reshape(1, len(objects), 4)
    return box_indicator(at_least_one_pixel(boxes, size), size)[0].bool().numpy()


def items_of(manifest: Path, entries: dict[int, dict]) -> list[LayoutItem]:
    """The layouts of a manifest, in order of their indices; ValueError where one is missing."""
    missing = sorted(set(range(max(entries) + 1)) - set(entries))
    if missing:
        raise ValueError(f"{manifest}: lacks image {missing[0]}: let image_sample.py finish first")
    return [
        LayoutItem(
            entry["stem"],
            entry["layout"]["product"],
            tuple(Box(o["label"], *o["box"]) for o in entry["layout"]["objects"] if not o.get("in_source")),
            entry["source"],
        )
        for _, entry in sorted(entries.items())
    ]


def sample_good_parts(
    folder: Path, items: list[LayoutItem], attempts: list[int], settings: dict, batch_size: int, device
) -> Path:
    """The same layouts without their objects, same seeds and settings, into folder/good_parts; returns their folder.

    `attempts` says how often each picture had been drawn before it passed the quality gate. Those that an earlier
    call has finished are kept.
    """
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
    vocabulary: Vocabulary = factory.vocabulary_of(config)
    good = [LayoutItem(item.stem, item.product, (), item.source) for item in items]
    results = ResultsFolder(folder / "good_parts", vocabulary)
    done = results.done(good, settings)
    if len(done) < len(good):
        options = {option.name: settings[option.name] for option in fields(SampleConfig) if option.name in settings}
        results.open()
        make = sampling(
            factory.load_trained(config, weights, device),
            respace(factory.build_diffusion(config.diffusion), settings["timestep_respacing"]).to(device),
            good,
            vocabulary,
            (config.model.image_channels, config.model.image_size, config.model.image_size),
            SampleConfig(batch_size=batch_size, **options),
            run=settings.get("run", 0),
        )

        def make_as_kept(indices: Sequence[int], _: int) -> list[Made]:
            made: dict[int, Made] = {}
            for attempt in sorted({attempts[i] for i in indices}):
                same = [i for i in indices if attempts[i] == attempt]
                made |= zip(same, make(same, attempt), strict=True)
            return [made[i] for i in indices]

        def add(index: int, made: Made) -> None:
            results.add(index, good[index], made.image, settings)

        make_all(make_as_kept, len(good), batch_size, add, done)
    return results.path / "samples"


def pixels(path: Path) -> np.ndarray:
    """(H, W, C) in grey levels of 255."""
    array = np.asarray(Image.open(path))
    array = array / 257 if array.dtype == np.uint16 else array
    return array[..., None] if array.ndim == 2 else array


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
    entries = ResultsFolder(folder, Vocabulary(())).entries()
    if not entries:
        raise ValueError(f"{folder}: no manifest.jsonl with samples in it (image_sample.py makes such folders)")
    items = items_of(folder / "manifest.jsonl", entries)
    settings = {key: value for key, value in entries[0].items() if key not in (*OF_ONE_IMAGE, "rejected")}
    if any("source_image" in entry for entry in entries.values()):
        good = folder / "images"  # the pictures that the objects were put into
    else:
        attempts = [entry.get("attempt", 0) for _, entry in sorted(entries.items())]
        good = sample_good_parts(folder, items, attempts, settings, arguments.batch_size, pick_device(arguments.device))
    kept = [item for index, item in enumerate(items) if not entries[index].get("rejected")]
    drawn = folder / "samples"
    found = measure(
        (pixels(drawn / f"{item.stem}.png"), pixels(good / f"{item.stem}.png"), item.objects) for item in kept
    )

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


if __name__ == "__main__":
    run_command(main)
