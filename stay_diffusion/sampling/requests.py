"""The items to sample: layouts of a split, of a file or drawn, alone or in whole images."""

from collections.abc import Sequence
from pathlib import Path

from ..config import RunConfig, SampleConfig
from ..data.annotations import ImageRecord, boxes_array
from ..layouts import statistics_file as layout_statistics_file
from ..layouts.items import LayoutItem, choose, from_dataset, from_file, from_nothing
from ..layouts.sampler import LayoutSampler
from ..layouts.statistics import of_dataset
from ..layouts.surroundings import Surroundings, greys
from ..run import factory
from ..run.checkpoint import config_beside
from ..system import storage
from .insertion.good_images import LayoutFor, in_turn, pair, read_folder, whole_layouts

SPLITS = ("train", "val")


def list_items(sample: SampleConfig, config: RunConfig) -> list[LayoutItem]:
    """List the items to make, with distinct stems; ValueError for layouts that the model cannot take."""
    vocabulary = factory.vocabulary_of(config)
    if sample.is_inserting:
        return _whole_images(sample, config)
    if sample.layouts == "sampled":
        sampler = layout_sampler(sample, config, "seen")
        return sampler.items(sample.num_samples, (config.model.image_size,) * 2)
    if sample.layouts not in SPLITS:
        if config.model.layout_kind == "map":
            raise ValueError(
                f"--layouts {sample.layouts}: holds boxes, but the model (--conditioning spade) wants label maps: "
                "--layouts val or train"
            )
        available = from_file(Path(sample.layouts), vocabulary)
    elif config.data.data_dir or config.model.layout_kind:
        records = _records(config, sample.layouts)
        available = from_dataset(factory.build_dataset(records, config, augment=False), sample.num_samples)
    else:
        available = from_nothing(sample.num_samples, vocabulary, sample.seed)
    return choose(available, sample.num_samples)


def _whole_images(sample: SampleConfig, config: RunConfig) -> list[LayoutItem]:
    flag, place = ("edit", sample.edit) if sample.edit else ("insert_into", sample.insert_into)
    if config.model.layout_kind != "boxes":
        raise ValueError(f"--{flag} {place}: puts boxes into pictures, but the model has no layouts of boxes")
    vocabulary = factory.vocabulary_of(config)
    if place in SPLITS and not sample.edit:
        records: Sequence[ImageRecord] = factory.with_readable_pictures(_records(config, place), config.data)
    else:
        records = read_folder(storage.local(place), vocabulary.products, flag)
    if sample.layouts == "sampled":
        layout_for = _draw_for_images(sample, config)
    elif sample.layouts in SPLITS:
        layout_for = in_turn(whole_layouts(_records(config, sample.layouts), vocabulary))
    else:
        layout_for = in_turn(from_file(Path(sample.layouts), vocabulary))
    return pair(records, sample.num_samples, layout_for)


def _draw_for_images(sample: SampleConfig, config: RunConfig) -> LayoutFor:
    """Draw layouts for an image, at places where it looks as it does around the data's own objects."""
    sampler = layout_sampler(sample, config, "whole")
    value_range = config.data.black_and_white
    surroundings = Surroundings.of(_records(config, "train"), config.data.random_flip, sample.seed, value_range)

    def layout_for(index: int, record: ImageRecord) -> LayoutItem:
        there = boxes_array(record.relative_boxes)
        prefer = surroundings.preference(greys(record, value_range))
        product, objects = sampler.draw(index, (record.width, record.height), record.product, there, prefer)
        return LayoutItem(record.stem, product, objects, "sampled")

    return layout_for


def layout_sampler(sample: SampleConfig, config: RunConfig, kind: str) -> LayoutSampler:
    """Draw layouts like the training data's, as "seen" in training or of "whole" images.

    The statistics are those in the run folder; where there are none, or of other data, those of the training split.
    """
    if config.model.layout_kind != "boxes":
        wants = "wants label maps: --layouts val or train" if config.model.layout_kind else "sees none"
        raise ValueError(f"--layouts sampled: draws boxes, but the model {wants}")
    weights, vocabulary = storage.weights(sample.model_path), factory.vocabulary_of(config)
    file, trained = weights.parent / layout_statistics_file.NAME, config_beside(weights)
    if file.exists() and trained and layout_statistics_file.same_data(config.data, trained.data):
        statistics = layout_statistics_file.read(file, vocabulary)
    else:
        records = _records(config, "train")
        print(f"note: no {file.name} of these data in {file.parent}: counted in {len(records)} training pictures")
        statistics = of_dataset(factory.build_dataset(records, config, augment=False))
    return LayoutSampler(
        statistics[kind],
        vocabulary,
        sample.seed,
        class_balance=sample.class_balance,
        rare_first=sample.rare_first,
        good_parts=sample.good_parts,
        no_overlap=sample.no_overlap,
    )


def _records(config: RunConfig, split: str) -> list[ImageRecord]:
    records, _ = factory.read_split(config.data, split)
    return factory.with_readable_pictures(records, config.data) if config.data.on_bad_data == "skip" else records
