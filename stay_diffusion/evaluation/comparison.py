"""The two sides of an evaluation, and what several metrics share: features, networks, protocol."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import DataConfig
from ..run.checkpoint import sha256
from ..system.launchers import World
from . import cautions
from .box_crops import object_cuts
from .features import inception
from .features.extractor import Extractor, Reading, cache_folder, features_of
from .groups import Group, find_groups
from .image_set import ImageSet, looked_at, open_set
from .objects import with_objects
from .options import EvaluateConfig
from .real_images import SPLITS, real_images

TRAINED = "trained:"
SIZES_SHOWN = 3

Pair = tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]  # of the samples, of the reference


class Comparison:
    """Samples and a reference, opened once; whatever is costly is computed when it is first asked for, and kept.

    `kinds` are the features that the metrics asked for need: one pass over the images takes them all.
    """

    def __init__(
        self,
        options: EvaluateConfig,
        data: DataConfig,
        given: dict,
        device: torch.device,
        world: World,
        samples: ImageSet | None = None,
        reference: ImageSet | None = None,
    ):
        self.options, self.data, self.given, self.world, self.device = options, data, given, world, device
        self.keeps_samples = True  # in the cache of features
        self.kinds: list[str] = []
        self.compat = options.compat or None
        self.reading = Reading(
            options.batch_size, options.image_size or None, cache_folder(options.feature_cache), device, world
        )
        self.samples = self._look_at(samples or self._open(options.samples))
        if reference is None and options.reference:
            reference = self._open(options.reference)
        self.given_reference = reference and self._look_at(reference)
        self._found: dict[str, Pair] = {}

    def with_samples(self, samples: str) -> "Comparison":
        """Return a comparison of other samples, which are not cached, by the same network with the same reference."""
        options = replace(self.options, samples=samples)
        other = Comparison(options, self.data, self.given, self.device, self.world, reference=self.given_reference)
        other.keeps_samples = False
        if "extractor" in self.__dict__:
            other.extractor = self.extractor
        return other

    def _open(self, path: str) -> ImageSet:
        if path in SPLITS:
            return real_images(path, Path(self.options.samples), self.given)
        return open_set(Path(path), self.compat)

    def _look_at(self, images: ImageSet) -> ImageSet:
        return images if images.mu is not None or images.looks else looked_at(images, self.world)

    @property
    def reference(self) -> ImageSet:
        if self.given_reference is None:
            raise ValueError("needs --reference, the real images")
        return self.given_reference

    @cached_property
    def extractor(self) -> Extractor:
        """Load the network of --features; ValueError or ModuleNotFoundError where it is missing."""
        name, device = self.options.features, self.device
        if name == "inception":
            weights = Path(self.options.weights) if self.options.weights else None
            return inception.extractor(inception.find_weights(weights), self.compat, device)
        if not name.startswith(TRAINED):
            raise ValueError(f"--features {name}: choose inception or {TRAINED}FILE")
        from .features.own_features import extractor

        if self.compat:
            raise ValueError(f"--compat {self.compat}: only --features inception has it")
        return extractor(Path(name.removeprefix(TRAINED)), device)

    def check_extractor(self, kind: str) -> None:
        """Raise ValueError where --features has no features of this kind."""
        if kind not in self.extractor.kinds:
            mode = f" --compat {self.compat}" if self.compat else ""
            raise ValueError(f"--features {self.options.features}{mode} has no {kind} features")

    def check_kind(self, kind: str, with_reference: bool = True) -> None:
        """Raise ValueError where there are no features of this kind of both sides."""
        self.check_extractor(kind)
        if not self.samples.items or (with_reference and not self.reference.items):
            raise ValueError("needs images on both sides, not statistics")

    def pair(self, kind: str) -> Pair:
        """Return the features of both sides, on the first process; all processes take part."""
        if kind not in self._found:
            size = self.reading.image_size
            samples = self._features(self.samples, self.kinds, size, self.keeps_samples)
            reference = self._features(self.given_reference, self.kinds, size, True)
            self._found |= {each: (samples.get(each), reference.get(each)) for each in self.kinds}
        return self._found[kind]

    @cached_property
    def labelled_samples(self) -> ImageSet:
        """Return the samples with their objects; ValueError where nothing says what they show."""
        return with_objects(self.samples, self.data)

    @cached_property
    def labelled_reference(self) -> ImageSet:
        return with_objects(self.reference, self.data)

    @cached_property
    def objects(self) -> tuple[ImageSet, ImageSet]:
        """Return the objects of both sides, cut out; on every process."""
        around = "objects" in self.extractor.kinds
        size = (around and self.extractor.image_size) or self.options.crop_size
        samples, reference = self.labelled_samples, self.labelled_reference
        return object_cuts(samples, size, around), object_cuts(reference, size, around)

    def object_pair(self) -> Pair:
        """Return the features of the objects of both sides, cut out at a size of their own; as `pair`."""
        kind = "objects" if "objects" in self.extractor.kinds else "pool"
        samples, reference = self.objects
        of_samples = self._features(samples, [kind], None, self.keeps_samples)
        return of_samples.get(kind), self._features(reference, [kind], None, True).get(kind)

    def _features(
        self, images: ImageSet | None, kinds: Sequence[str], image_size: int | None, keep: bool
    ) -> dict[str, NDArray[np.float32]]:
        if not images or not images.items:
            return {}
        cache = self.reading.cache if keep else None
        return features_of(images, self.extractor, kinds, replace(self.reading, image_size=image_size, cache=cache))

    @cached_property
    def groups(self) -> list[Group]:
        """Return the images of each layout that has several."""
        folder = Path(self.options.samples)
        if not folder.is_dir():
            raise ValueError(f"{folder}: diversity needs a folder of runs")
        return find_groups(folder)

    def facts(self, with_reference: bool = True) -> dict:
        """Return what figures of whole images depend on, besides the metric."""
        sides = {"samples": self.samples, "reference": self.given_reference if with_reference else None}
        facts: dict = {}
        for name, side in sides.items():
            if side:
                facts |= {name: side.path, f"{name}_images": len(side.items) or None, f"{name}_sizes": sizes_of(side)}
                if side.runs:
                    facts[f"{name}_runs"] = ", ".join(f"{run} x {count}" for run, count in side.runs.items())
        return facts

    def feature_facts(self, with_reference: bool = True) -> dict:
        """Return what figures of features depend on, besides the metric."""
        facts = self.facts(with_reference)
        if not self.uses_network:
            return facts | {"features": "as stored"}
        size, network = self.reading.image_size, self.extractor
        first = f"bicubic to {size}, then " if size and not network.image_size else ""
        return facts | network.facts | {"resize": first + network.facts["resize"], "device": self.device.type}

    @property
    def uses_network(self) -> bool:
        """Tell whether a side holds images; stored statistics need no features."""
        return any(side and side.items for side in (self.samples, self.given_reference))

    def name_figure(self, name: str, own_name: str) -> str:
        """Name a figure of features: Inception's as the literature does, with the mode of --compat; others own."""
        if not self.uses_network:
            return name
        if self.extractor.suffix:
            return f"{own_name}-{self.extractor.suffix}"
        return f"{name} ({self.compat})" if self.compat else name

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
    """Return the most frequent sizes and how many images have them."""
    ordered = sorted(images.sizes.items(), key=lambda each: (-each[1], each[0]))
    more = f" and {len(ordered) - SIZES_SHOWN} other sizes" if len(ordered) > SIZES_SHOWN else ""
    return ", ".join(f"{size} x {count}" for size, count in ordered[:SIZES_SHOWN]) + more or None


def file_facts(**files: Path) -> dict[str, str]:
    """Return name and sha256 of files that a figure depends on."""
    facts: dict[str, str] = {}
    for name, path in files.items():
        facts |= {name: str(path.resolve()), f"{name}_sha256": sha256(path)}
    return facts
