from dataclasses import replace

import numpy as np
import pytest
import reading
from PIL import Image

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord, Vocabulary

VOCABULARY = Vocabulary(("spot", "line"))
BOXES = (Box("line", 3, 30, 60, 36), Box("spot", 70, 5, 78, 15), Box("spot", 0, 0, 9, 7), Box("line", 40, 2, 44, 50))


@pytest.fixture
def records(tmp_path):
    for name in ("one", "two"):
        Image.new("L", (80, 50), 128).save(tmp_path / f"{name}.png")
    return [ImageRecord(tmp_path / "one.png", 80, 50, BOXES), ImageRecord(tmp_path / "two.png", 80, 50)]


def dataset_of(records, **options):
    options = {"image_size": 16, "image_channels": 1, "min_visible": 0.3, "random_flip": True, "seed": 3, **options}
    return reading.dataset_of(records, VOCABULARY, **options)


@pytest.mark.parametrize("options", [{}, {"max_objects": 1, "max_objects_policy": "random"}], ids=str)
@pytest.mark.parametrize("policy", ["resize", "center", "random", "object"])
def test_the_layout_of_a_sample_is_known_without_its_picture(records, policy, options):
    if policy == "object":
        options = {**options, "background_rate": 0.4}
    whole = dataset_of(records, crop_policy=policy, **options)
    blind = dataset_of(records, crop_policy=policy, **options)
    blind.picture_of = None  # reading a picture would fail
    for index in (0, 1):
        for epoch in range(12):
            sample, (boxes, labels) = whole.sample(index, epoch), blind.layout(index, epoch)
            assert np.array_equal(sample.boxes.numpy(), boxes) and np.array_equal(sample.labels.numpy(), labels)


def test_a_size_that_no_annotation_has_is_read_from_the_header(records):
    unsized = [replace(record, width=0, height=0) for record in records]
    size, boxes, labels = dataset_of(unsized).annotation(0)
    assert size == (80, 50) and boxes[1].tolist() == [70, 5, 78, 15] and labels.tolist() == [2, 1, 1, 2]


def test_a_layout_of_more_objects_than_allowed_is_named(records):
    with pytest.raises(AnnotationError, match="4 objects, more than --max_objects 2"):
        dataset_of(records, max_objects=2, image_size=64).layout(0, 0)
