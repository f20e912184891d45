"""Cut windows from validation images and write them as folders of samples."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stay_diffusion.config import RunConfig
from stay_diffusion.data.annotations import ImageRecord, label_boxes
from stay_diffusion.data.images import to_pil
from stay_diffusion.layouts.items import LayoutItem
from stay_diffusion.run import factory
from stay_diffusion.sampling.results import ResultsFolder


def halves(config: RunConfig) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """The validation pictures in two halves, always the same, that no picture is in both of."""
    records, _ = factory.read_split(config.data, "val")
    if len(records) < 4:
        raise ValueError(f"--data_dir {config.data.data_dir}: {len(records)} validation pictures are too few to halve")
    order = np.random.default_rng(0).permutation(len(records))
    parts = order[: len(records) // 2], order[len(records) // 2 :]
    first, second = ([records[i] for i in sorted(part)] for part in parts)
    return first, second


def windows(records: list[ImageRecord], config: RunConfig, num: int) -> Iterator[tuple[LayoutItem, Image.Image]]:
    """`num` windows as training sees them, not mirrored: each picture once, then each once more, cut elsewhere."""
    dataset = factory.build_dataset(records, config, augment=False)
    names = dataset.vocabulary
    for number in range(num):
        look, index = divmod(number, len(records))
        image, boxes, labels, product, _ = dataset.sample(index, look)
        objects = label_boxes(boxes, labels, names.classes)
        stem = f"{records[index].stem}_{look}"
        product = names.products[product - 1] if product > 0 else None
        yield LayoutItem(stem, product, objects, str(records[index].path)), to_pil(image)


def write_set(folder: Path, records: list[ImageRecord], config: RunConfig, num: int) -> None:
    """The windows of these pictures as image_sample.py leaves samples; those that are there already stay."""
    made = list(windows(records, config, num))
    items = [item for item, _ in made]
    results, settings = ResultsFolder(folder, factory.vocabulary_of(config)), {"made_by": "studies/sample_sets.py"}
    done = results.done(items, settings)
    results.open()
    for index, (item, image) in enumerate(made):
        if index not in done:
            results.add(index, item, image, settings)
    results.finish(items, save_npz=False)
