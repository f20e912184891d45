"""The two sides of an evaluation, and what several metrics share: their features, the networks, the protocol."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import DataConfig
from ..run.checkpoint import sha256
from ..system.launchers import World
from . import cautions
from .features import inception
from .features.extractor import Extractor, Reading, cache_folder, features_of
from .image_set import ImageSet, looked_at, open_set
from .metrics.diversity import Group, find_groups
from .metrics.scene_fid import object_cuts
from .objects import with_objects
from .real_images import SPLITS, real_pictures

TRAINED = "trained:"
SIZES_SHOWN = 3
VERSIONS = ("torch", "torchvision", "torch-fidelity", "lpips", "pycocotools", "numpy", "pillow")

Pair = tuple[NDArray[np.float32], NDArray[np.float32] | None]  # of the samples, of the reference


class Comparison:
    """Samples and a reference, opened once; whatever is costly is found when it is first asked for, and kept.

    `kinds` are the features that the metrics asked for want: one pass over the images takes them all.
    """

    def __init__(
        self,
        options,
        data: DataConfig,
        given: dict,
        device: torch.device,
        world: World,
        reference: ImageSet | None = None,
    ):
        self.options, self.data, self.given, self.world = options, data, given, world
        self.keeps_samples = True  # in the cache of features
        self.kinds: list[str] = []
        self.compat = options.compat or None
        self.reading = Reading(
            options.batch_size, options.image_size or None, cache_folder(options.feature_cache), device, world
        )
        self.samples = self._opened(options.samples)
        self.given_reference = reference
        if reference is None and options.reference:
            self.given_reference = self._opened(options.reference)
        self._found: dict[str, Pair] = {}

    def with_samples(self, samples: str) -> "Comparison":
        """Other samples, which are soon gone, against the same reference, by the same network, as they were opened."""
        options = replace(self.options, samples=samples)
        other = Comparison(options, self.data, self.given, self.reading.device, self.world, self.given_reference)
        other.keeps_samples = False
        if "extractor" in self.__dict__:
            other.extractor = self.extractor
        return other

    def _opened(self, path: str) -> ImageSet:
        if path in SPLITS:
            images = real_pictures(path, Path(self.options.samples), self.given)
        else:
            images = open_set(Path(path), self.compat)
        return images if images.mu is not None else looked_at(images, self.world)

    @property
    def reference(self) -> ImageSet:
        if self.given_reference is None:
            raise ValueError("needs --reference, the real images")
        return self.given_reference

    @cached_property
    def extractor(self) -> Extractor:
        """The network of --features; ValueError or ModuleNotFoundError where it is not there."""
        name, device = self.options.features, self.reading.device
        if name == "inception":
            weights = Path(self.options.weights) if self.options.weights else None
            return inception.extractor(inception.find_weights(weights, download=False), self.compat, device)
        if not name.startswith(TRAINED):
            raise ValueError(f"--features {name}: choose inception or {TRAINED}FILE")
        from .features.own_features import extractor

        if self.compat:
            raise ValueError(f"--compat {self.compat}: only --features inception has it")
        return extractor(Path(name.removeprefix(TRAINED)), device)

    def check_kind(self, kind: str, with_reference: bool = True) -> None:
        """ValueError where features of this kind cannot be had of both sides."""
        if kind not in self.extractor.kinds:
            mode = f" --compat {self.compat}" if self.compat else ""
            raise ValueError(f"--features {self.options.features}{mode} has no {kind} features")
        if not self.samples.items or (with_reference and not self.reference.items):
            raise ValueError("needs images on both sides, not statistics")

    def pair(self, kind: str) -> Pair:
        """Features of both sides, on the first process; all processes take part."""
        if kind not in self._found:
            sides = [self.samples, self.given_reference]
            size = self.reading.image_size
            found = [
                self._features(side, self.kinds, size, keep) if side and side.items else {}
                for side, keep in zip(sides, (self.keeps_samples, True), strict=True)
            ]
            self._found |= {each: (found[0].get(each), found[1].get(each)) for each in self.kinds}
        return self._found[kind]

    @cached_property
    def labelled_samples(self) -> ImageSet:
        """The samples with their objects; ValueError where nothing says what they show."""
        return with_objects(self.samples, self.data)

    @cached_property
    def labelled_reference(self) -> ImageSet:
        return with_objects(self.reference, self.data)

    @cached_property
    def objects(self) -> tuple[ImageSet, ImageSet]:
        """The objects of both sides, cut out; on every process."""
        around = "objects" in self.extractor.kinds
        size = self.extractor.image_size if around else self.options.crop_size
        return tuple(object_cuts(side, size, around) for side in (self.labelled_samples, self.labelled_reference))

    def object_pair(self) -> Pair:
        """Features of the objects of both sides, which are cut out at a size of their own; as `pair`."""
        kind = "objects" if "objects" in self.extractor.kinds else "pool"
        kept = (self.keeps_samples, True)
        return tuple(
            self._features(cuts, [kind], None, keep).get(kind) for cuts, keep in zip(self.objects, kept, strict=True)
        )

    def _features(
        self, images: ImageSet, kinds: Sequence[str], image_size: int | None, keep: bool
    ) -> dict[str, NDArray[np.float32]]:
        cache = self.reading.cache if keep else None
        return features_of(images, self.extractor, kinds, replace(self.reading, image_size=image_size, cache=cache))

    @cached_property
    def groups(self) -> list[Group]:
        """The images of each layout that has several."""
        folder = Path(self.options.samples)
        if not folder.is_dir():
            raise ValueError(f"{folder}: diversity needs a folder of runs")
        return find_groups(folder)

    def facts(self, with_reference: bool = True) -> dict:
        """What figures of whole images depend on, besides the metric."""
        sides = {"samples": self.samples, "reference": self.given_reference if with_reference else None}
        told: dict = {}
        for name, side in sides.items():
            if side:
                told |= {name: side.path, f"{name}_images": len(side.items) or None, f"{name}_sizes": sizes_of(side)}
                if side.runs:
                    told[f"{name}_runs"] = ", ".join(f"{run} x {count}" for run, count in side.runs.items())
        return told

    def feature_facts(self) -> dict:
        """What features depend on."""
        size = self.reading.image_size
        first = f"bicubic to {size}, then " if size and not self.extractor.image_size else ""
        facts = self.extractor.facts
        return facts | {"resize": first + facts["resize"], "device": torch.device(self.reading.device).type}

    def warnings(self) -> list[str]:
        size, enough = self.reading.image_size, 0
        extractor = self.__dict__.get("extractor")  # not where no metric has asked for one
        if extractor and self.kinds:
            enough = extractor.width
        found = [*cautions.of_set(self.samples, enough)]
        if self.given_reference:
            found += [*cautions.of_set(self.given_reference, enough)]
            size = size or (extractor.image_size if extractor else None)
            found += [*cautions.of_both(self.samples, self.given_reference, size)]
        if extractor and self.options.features == "inception":
            found += [*cautions.of_inception(self.samples)]
            if not extractor.facts["weights_sha256"].startswith(inception.WEIGHTS_HASH):
                weights = extractor.facts["weights"]
                found.append(
                    f"{weights} is not {inception.WEIGHTS_NAMES[0]}: its figures compare with nothing published"
                )
        return found


def sizes_of(images: ImageSet) -> str | None:
    """The most frequent sizes and how many images have them."""
    ordered = sorted(images.sizes.items(), key=lambda each: (-each[1], each[0]))
    more = f" and {len(ordered) - SIZES_SHOWN} other sizes" if len(ordered) > SIZES_SHOWN else ""
    return ", ".join(f"{size} x {count}" for size, count in ordered[:SIZES_SHOWN]) + more or None


def versions() -> dict[str, str]:
    """Of the libraries that figures depend on, those that are installed."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def file_facts(**files: Path) -> dict[str, str]:
    """Name and sha256 of files that a figure depends on."""
    facts = {}
    for name, path in files.items():
        facts |= {name: str(path.resolve()), f"{name}_sha256": sha256(path)}
    return facts
