"""Image sets that are compared: real, synthetic and test images, what is refused, and which images each arm sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..data import splits
from ..data.annotations import ImageRecord, Vocabulary
from ..run.factory import with_names
from . import data as detector_data
from . import leakage
from .data import Example
from .options import GainConfig

SUBSET = 2  # random stream of the choice of synthetic images, beside those of the order and the crops


@dataclass(frozen=True)
class Arm:
    """One training set: so many real and so many synthetic images; `ratio` is None for synthetic ones alone."""

    ratio: float | None
    num_real: int
    num_synthetic: int

    @property
    def name(self) -> str:
        if self.ratio is None:
            return "synthetic only"
        return f"real + {self.ratio:g} synthetic" if self.ratio else "real"


@dataclass(frozen=True)
class ExampleSet:
    """Images with the digest of each."""

    items: list[Example]
    digests: list[str]

    @classmethod
    def of_records(cls, records: Sequence[ImageRecord], vocabulary: Vocabulary, data: DataConfig) -> "ExampleSet":
        items = detector_data.examples(records, vocabulary, data)
        return cls(items, [detector_data.image_digest(item) for item in items])

    def subset(self, places: Sequence[int]) -> "ExampleSet":
        return ExampleSet([self.items[i] for i in places], [self.digests[i] for i in places])

    def __add__(self, other: "ExampleSet") -> "ExampleSet":
        return ExampleSet(self.items + other.items, self.digests + other.digests)


@dataclass(frozen=True)
class GainSets:
    """The real, synthetic and test images, all in the class names of the real ones."""

    vocabulary: Vocabulary
    real: ExampleSet
    synthetic: ExampleSet
    test: ExampleSet

    def by_name(self) -> dict[str, ExampleSet]:
        return {"real": self.real, "synthetic": self.synthetic, "test": self.test}

    def objects_per_class(self) -> dict[str, dict[str, int]]:
        classes = self.vocabulary.classes
        return {name: detector_data.objects_per_class(some.items, classes) for name, some in self.by_name().items()}


def list_arms(num_real: int, ratios: Sequence[float]) -> list[Arm]:
    """Return an arm for each ratio of synthetic to real images, then the most synthetic images of these alone."""
    mixed = [Arm(ratio, num_real, round(ratio * num_real)) for ratio in ratios]
    return [*mixed, Arm(None, 0, max(arm.num_synthetic for arm in mixed))]


def choose_images(arm: Arm, sets: GainSets, seed: int) -> ExampleSet:
    """Return an arm's images: all real ones, and the first of the synthetic ones in an order drawn by the seed.

    So larger ratios see what smaller ones see, and more.
    """
    order = np.random.default_rng((seed, SUBSET)).permutation(len(sets.synthetic.items))
    drawn = sets.synthetic.subset(sorted(order[: arm.num_synthetic]))
    return sets.real + drawn if arm.num_real else drawn


def read_sets(gain: GainConfig) -> GainSets:
    """Read all three sets; a folder that is real and test set in one is split by `val_fraction`."""
    test = gain.test or gain.real
    in_one_place = Path(test).resolve() == Path(gain.real).resolve()

    def options(folder: str, val_fraction: float) -> DataConfig:
        return DataConfig(folder, gain.dataset_mode, class_map=gain.class_map, val_fraction=val_fraction)

    of_real = options(gain.real, gain.val_fraction if in_one_place else 0.0)
    of_synthetic = options(gain.synthetic, 0.0)
    of_test = options(test, gain.val_fraction if in_one_place else 1.0)

    records, found = detector_data.read(of_real, "train")
    vocabulary = Vocabulary(found.classes, found.products)
    real = ExampleSet.of_records(detector_data.choose(records, gain.num_real), vocabulary, of_real)

    def read(data: DataConfig, split: str) -> ExampleSet:
        return ExampleSet.of_records(detector_data.read(with_names(data, vocabulary), split)[0], vocabulary, data)

    return GainSets(vocabulary, real, read(of_synthetic, "train"), read(of_test, "val"))


def refuse_leaks(gain: GainConfig, sets: GainSets) -> None:
    """Raise ValueError where images to train on are test images, or were made from them."""
    test = sets.test
    for flag, some in (("real", sets.real), ("synthetic", sets.synthetic)):
        if same := leakage.find_shared_image(some.items, some.digests, test.items, test.digests):
            raise ValueError(f"--{flag} {getattr(gain, flag)}: {same[0]} is a test picture, {same[1]}")
    folder, is_split = splits.annotation_folder(Path(gain.test or gain.real), "val")
    count, first = leakage.count_made_from(Path(gain.synthetic), test.items, folder if is_split else None)
    if count and not gain.allow_test_sources:
        raise ValueError(
            f"--synthetic {gain.synthetic}: {count} of its {len(sets.synthetic.items)} pictures were made from test "
            f"pictures ({first}); sample from the training split, or accept it with --allow_test_sources True"
        )


def check_counts(gain: GainConfig, sets: GainSets, arms: Sequence[Arm]) -> None:
    """Raise ValueError where there are too few synthetic images for the largest ratio."""
    needed, there = max(arm.num_synthetic for arm in arms), len(sets.synthetic.items)
    if there < needed:
        largest = max(arm.ratio for arm in arms if arm.ratio is not None)
        raise ValueError(
            f"--synthetic {gain.synthetic}: {there} pictures, but --ratios {largest:g} of {arms[0].num_real} real ones "
            f"needs {needed}; make more, or choose smaller --ratios or --num_real"
        )
