import json
from pathlib import Path

import numpy as np
import pytest
import reading
from scipy import stats

from stay_diffusion.config import DataConfig, ModelConfig, RunConfig
from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord, RelativeBox, Vocabulary
from stay_diffusion.layouts import statistics as layout_statistics
from stay_diffusion.layouts.items import from_dataset
from stay_diffusion.layouts.sampler import LayoutSampler
from stay_diffusion.layouts.statistics import of_dataset
from stay_diffusion.layouts.statistics_file import NAME, read, same_data, write
from stay_diffusion.run import factory

SHARED = Path(__file__).resolve().parents[3] / "shared/data"
VOCABULARY = Vocabulary(("spot", "line"), ("A", "B"))
BOXES = (Box("line", 10, 20, 30, 24), Box("spot", -4, 90, 6, 100), Box("line", 60, 0, 200, 3))
RECORDS = [
    ImageRecord(Path("nowhere/one.png"), 200, 100, BOXES, "B"),
    ImageRecord(Path("nowhere/good.png"), 60, 40, (), "A"),
    ImageRecord(Path("nowhere/other.png"), 50, 50, (Box("spot", 10, 10, 20, 20),)),
]


def dataset_of(records=RECORDS, crop_policy="resize", **options):
    return reading.dataset_of(records, VOCABULARY, image_size=64, image_channels=1, crop_policy=crop_policy, **options)


def same(one, other):
    names = ("classes", "products", "training_objects", "sizes", "product", "picture", "label", "boxes")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


# Counting


def test_whole_pictures_are_counted_in_their_own_pixels_and_boxes_clipped_to_them():
    whole = of_dataset(dataset_of())["whole"]
    assert whole.sizes.tolist() == [[200, 100], [60, 40], [50, 50]] and whole.product.tolist() == [2, 1, 0]
    assert whole.picture.tolist() == [0, 0, 0, 2] and whole.label.tolist() == [2, 1, 2, 1]
    assert whole.boxes.tolist() == [[10, 20, 30, 24], [0, 90, 6, 100], [60, 0, 200, 3], [10, 10, 20, 20]]
    assert whole.training_objects.tolist() == [2, 2]


def test_what_is_seen_is_counted_in_pixels_of_the_model_and_no_picture_is_read():
    seen = of_dataset(dataset_of())["seen"]  # the pictures are not even there
    assert seen.sizes.tolist() == [[64, 64]] * 3
    assert seen.boxes[:2].tolist() == [[3.2, 12.8, 9.6, 15.36], [-1.28, 57.6, 1.92, 64]]
    first, good, _ = seen.items()
    assert (first.product, good.product, good.objects) == ("B", "A", ())
    assert first.objects[0] == RelativeBox("line", 0.05, 0.2, 0.15, 0.24)


def test_crops_are_counted_as_the_layouts_of_the_data_set_show_them(synthetic_sdi, tmp_path):
    synthetic_sdi.generate(tmp_path, num_train=12, num_val=1)
    run = RunConfig(DataConfig(data_dir=str(tmp_path), crop_policy="object"), ModelConfig(image_size=64))
    records, vocabulary = factory.read_split(run.data, "train")
    dataset = factory.build_dataset(records, factory.with_vocabulary(run, vocabulary), augment=False)
    seen = of_dataset(dataset)["seen"]
    assert len(seen) >= layout_statistics.FEWEST_VIEWS  # of one crop a picture hardly anything could be known
    for counted, expected in zip(seen.items(), from_dataset(dataset), strict=False):
        assert (counted.product, len(counted.objects)) == (expected.product, len(expected.objects))
        for one, other in zip(counted.objects, expected.objects, strict=True):
            assert one.label == other.label
            edges = [[box.x0, box.y0, box.x1, box.y1] for box in (one, other)]
            np.testing.assert_allclose(*edges, atol=0.006 / 64)


def test_crops_of_too_many_objects_are_left_out_unless_all_are():
    seen = of_dataset(dataset_of(max_objects=2))["seen"]
    assert seen.product.tolist() == [1, 0]
    with pytest.raises(AnnotationError, match="3 objects, more than --max_objects 2"):
        of_dataset(dataset_of(RECORDS[:1], max_objects=2))


def test_of_many_pictures_some_are_counted_evenly_spread(monkeypatch):
    monkeypatch.setattr(layout_statistics, "MOST_PICTURES", 5)
    records = [ImageRecord(Path(f"{i}.png"), 100 + i, 100, (Box("spot", 1, 1, 9, 9),)) for i in range(21)]
    found = of_dataset(dataset_of(records))
    assert found["whole"].sizes[:, 0].tolist() == [100, 105, 110, 115, 120]
    assert found["whole"].training_objects.tolist() == [21, 0]


def test_objects_of_label_maps_are_counted(tiny_maps):
    data = DataConfig(data_dir=str(tiny_maps), dataset_mode="ade20k")
    config = RunConfig(data, ModelConfig(image_size=16, no_instance=True))
    records, vocabulary = factory.read_split(data, "train")
    dataset = factory.build_dataset(records, factory.with_vocabulary(config, vocabulary), augment=False)
    found = of_dataset(dataset)
    assert found["whole"].sizes.tolist() == [[48, 40]] * 4
    for counted, expected in zip(found["seen"].items(), from_dataset(dataset), strict=True):
        assert [box.label for box in counted.objects] == [box.label for box in expected.objects]


# In a file


@pytest.mark.parametrize("policy", ["resize", "object"])
def test_a_file_gives_back_what_was_written(tmp_path, policy):
    statistics = of_dataset(dataset_of(crop_policy=policy, min_visible=0.2))
    write(tmp_path, statistics)
    again = read(tmp_path / NAME, VOCABULARY)
    assert all(same(statistics[kind], again[kind]) for kind in ("seen", "whole"))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


GOOD = {
    "format": 1,
    "classes": ["spot"],
    "products": ["A"],
    "training_objects": [1],
    "seen": [[32, 32, 1, [[1, 2, 2, 9, 9]]]],
    "whole": [[32, 32, 0, []]],
}


def changed(**values):
    return json.dumps({**GOOD, **values})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "12",
        "{",
        "[" * 100_000,
        '{"format": 1}',
        changed(format=2),
        changed(format=[1]),
        changed(classes=None),
        changed(classes=["hole"]),
        changed(classes=[["spot"]]),
        changed(products=["C"]),
        changed(training_objects=[]),
        changed(training_objects=[-1]),
        changed(training_objects="many"),
        changed(seen=[]),
        changed(seen={"a": 1}),
        changed(seen=[5]),
        changed(seen=[[32, 32, 1]]),
        changed(seen=[[0, 32, 1, []]]),
        changed(seen=[[32, 32, 2, []]]),
        changed(seen=[[32, 32, 0.5, []]]),
        changed(seen=[[32, 32, 1, [[2, 2, 2, 9, 9]]]]),
        changed(seen=[[32, 32, 1, [[0, 2, 2, 9, 9]]]]),
        changed(seen=[[32, 32, 1, [[1, 2, 2, 9]]]]),
        changed(seen=[[32, 32, 1, [[1, 2, 2, 9, 9, 1, 2, 3, 4]]]]),
        changed(seen=[[32, 32, 1, [[1, 9, 2, 2, 9]]]]),
        changed(seen=[[32, 32, 1, [[1, 40, 2, 50, 9]]]]),
        changed(seen=[[32, 32, 1, [["1", 2, 2, 9, 9]]]]),
        changed(seen=[[32, 32, 1, [[1, 2, 2, None, 9]]]]),
        changed(seen=[[32, 32, 1, [[1, 2, 2, 10**400, 9]]]]),
        changed(seen=[[32, 32, 10**30, []]]),
        changed(seen=[[float("nan"), 32, 1, []]]),
        changed(whole=[[32, float("inf"), 1, []]]),
        changed(whole=[[32, 32, 1, [[1, float("nan"), 2, 9, 9]]]]),
    ],
    ids=lambda content: content[-60:],
)
def test_a_file_that_is_anything_else_is_named_in_one_line(tmp_path, content):
    path = tmp_path / NAME
    path.write_text(changed())
    assert read(path, VOCABULARY)["seen"].boxes.tolist() == [[2, 2, 9, 9]]
    path.write_text(content)
    with pytest.raises(ValueError, match="cannot be used as statistics of layouts") as error:
        read(path, VOCABULARY)
    assert "\n" not in str(error.value) and str(path) in str(error.value) and len(str(error.value)) < 600


def test_a_file_that_is_no_text_is_named_in_one_line(tmp_path):
    (tmp_path / NAME).write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match="cannot be used as statistics of layouts"):
        read(tmp_path / NAME, VOCABULARY)


def test_statistics_are_of_the_same_data_however_pictures_are_loaded():
    data = DataConfig(data_dir="here", cache="ram", num_workers=3)
    assert same_data(data, DataConfig(data_dir="here"))
    assert not same_data(data, DataConfig(data_dir="there"))
    assert not same_data(data, DataConfig(data_dir="here", crop_policy="object"))


# Layouts drawn against real ones


@pytest.mark.parametrize("kind", ["seen", "whole"])
@pytest.mark.parametrize(("folder", "mode"), [("deeppcb", "sdi"), ("neu_det", "voc")])
def test_drawn_layouts_pass_two_sample_tests_against_the_data(folder, mode, kind):
    if not (SHARED / folder).exists():
        pytest.skip(f"needs ../shared/data/{folder}")
    data = DataConfig(data_dir=str(SHARED / folder), dataset_mode=mode)
    records, vocabulary = factory.read_split(data, "train")
    config = factory.with_vocabulary(RunConfig(data, ModelConfig(image_size=64)), vocabulary)
    statistics = of_dataset(factory.build_dataset(records, config, augment=False))[kind]
    real, items = statistics.items(), LayoutSampler(statistics, vocabulary, seed=0).items(450)

    side = records[0].width  # of all pictures of these two

    def measures(layouts):
        # Annotations lie on whole pixels: drawn ones must be brought there for the steps of their distribution.
        boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for each in layouts for b in each.objects])
        x0, y0, x1, y1 = (boxes * side).round().T
        return {"width": x1 - x0, "height": y1 - y0, "area": (x1 - x0) * (y1 - y0), "x": x0 + x1, "y": y0 + y1}

    expected = measures(real)
    for name, values in measures(items).items():
        assert stats.ks_2samp(values, expected[name]).pvalue > 0.05, name

    def table(of):
        both = [of(real), of(items)]
        return np.array([np.bincount(each, minlength=max(map(max, both)) + 1) for each in both])

    labels = table(lambda layouts: [vocabulary.classes.index(b.label) for each in layouts for b in each.objects])
    numbers = table(lambda layouts: [len(each.objects) for each in layouts])
    for counts in (labels, numbers):
        assert stats.chi2_contingency(counts[:, counts.any(axis=0)]).pvalue > 0.05
