import json

import pytest
import reading
from PIL import Image

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord, RelativeBox, Vocabulary
from stay_diffusion.data.formats import vott
from stay_diffusion.layouts.items import LayoutItem, choose, from_dataset, from_file

VOCABULARY = Vocabulary(("spot", "line"), ("A", "C"))
GOOD_LINE = {"stem": "one", "product": "C", "objects": [{"label": "line", "box": [0.1, 0.2, 0.5, 0.4]}]}


def items(*stems):
    return [LayoutItem(stem, None, (), "test") for stem in stems]


def stems_of(chosen):
    return [item.stem for item in chosen]


def read_lines(tmp_path, *lines):
    path = tmp_path / "layouts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return from_file(path, VOCABULARY)


def read_objects(tmp_path, *boxes, label="spot"):
    return read_lines(tmp_path, {"objects": [{"label": label, "box": box} for box in boxes]})


# How many, and their names


def test_each_layout_is_made_once_by_default():
    assert stems_of(choose(items("a", "b", "c"), 0)) == ["a", "b", "c"]


def test_fewer_images_than_layouts_take_the_first():
    assert stems_of(choose(items("a", "b", "c"), 2)) == ["a", "b"]


def test_more_images_than_layouts_repeat_them_under_new_names():
    assert stems_of(choose(items("a", "b"), 5)) == ["a", "b", "a_2", "b_2", "a_3"]


@pytest.mark.parametrize(
    "stems", [("a", "a_2"), ("a_2", "a"), ("a", "a"), ("a", "a", "a_2", "a_2_2"), ("a_3", "a", "a_2")]
)
@pytest.mark.parametrize("number", [0, 1, 7, 20])
def test_names_are_unique_whatever_the_layouts_are_called(stems, number):
    chosen = stems_of(choose(items(*stems), number))
    assert len(chosen) == len(set(chosen)) == (number or len(stems))


def test_more_images_keep_the_names_of_the_first():
    # Else a folder could not be continued to more images.
    few, many = (stems_of(choose(items("a", "a_2", "b"), number)) for number in (4, 11))
    assert many[:4] == few


# From a split


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "image.png"
    Image.new("L", (32, 16), 128).save(path)
    boxes = (Box("line", 8, 4, 16, 12), Box("spot", 0, 0, 4, 4))
    records = [ImageRecord(path, 32, 16, boxes, "C"), ImageRecord(path, 32, 16)]
    return reading.dataset_of(records, VOCABULARY, image_size=8, image_channels=1)


def test_a_split_s_layouts_are_what_the_network_would_see(dataset):
    first, second = from_dataset(dataset)
    assert first.objects == (RelativeBox("line", 0.25, 0.25, 0.5, 0.75), RelativeBox("spot", 0, 0, 0.125, 0.25))
    assert (first.product, first.stem) == ("C", "image") and (second.product, second.objects) == (None, ())
    boxes, labels, product, _ = first.tensors(VOCABULARY)
    assert labels.tolist() == [2, 1] and product == 2 and boxes.shape == (2, 4)
    assert first.real().image.shape == (1, 8, 8)


# From a file


def test_lines_of_json_become_layouts(tmp_path):
    one, nameless = read_lines(tmp_path, GOOD_LINE, "", {"objects": []})
    assert (one.stem, one.product, one.objects) == ("one", "C", (RelativeBox("line", 0.1, 0.2, 0.5, 0.4),))
    assert (nameless.stem, nameless.product, nameless.objects) == ("layout00003", None, ())
    assert one.real() is None


def test_a_box_may_reach_out_of_the_picture(tmp_path):
    assert read_objects(tmp_path, [-0.2, 0.5, 0.3, 1.4])[0].objects == (RelativeBox("spot", -0.2, 0.5, 0.3, 1.4),)


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1, 2]",
        '"text"',
        {"objects": [{"label": "spot"}]},
        {"objects": [{"box": [0, 0, 1, 1]}]},
        {"objects": [{"label": "spot", "box": [0, 0, 1]}]},
        {"objects": [{"label": "spot", "box": [0, 0, 1, "wide"]}]},
        {"objects": [{"label": "spot", "box": None}]},
        {"objects": None},
        {"product": "A", "object": []},
        {"layout": 5},
    ],
    ids=str,
)
def test_a_line_that_is_no_layout_is_named(tmp_path, line):
    with pytest.raises(AnnotationError, match=r"layouts.jsonl, line 2: expected ") as error:
        read_lines(tmp_path, GOOD_LINE, line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "box",
    [
        [0.5, 0.1, 0.5, 0.4],
        [0.5, 0.1, 0.4, 0.4],
        [1.0, 0.1, 1.2, 0.4],
        [-0.4, 0.1, 0.0, 0.4],
        [0.1, 1.0, 0.2, 1.2],
        [10, 20, 50, 60],
        [0, 0, 50, 60],
        [float("nan"), 0, 1, 1],
        [0, 0, float("inf"), 1],
    ],
    ids=str,
)
def test_a_box_without_a_part_in_the_picture_is_named(tmp_path, box):
    with pytest.raises(AnnotationError, match=r"layouts.jsonl, line 1: box .* of 'spot' is empty or outside"):
        read_objects(tmp_path, box)


@pytest.mark.parametrize("stem", ["../outside", "a/b", "", "/tmp/x"])
def test_a_stem_that_is_no_file_name_is_refused(tmp_path, stem):
    with pytest.raises(AnnotationError, match=r"line 1: the stem .* cannot be a file's name"):
        read_lines(tmp_path, {"stem": stem, "objects": []})


def test_an_unknown_class_or_product_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(AnnotationError, match=r"unknown class 'hole'; known: spot, line"):
        read_objects(tmp_path, [0, 0, 1, 1], label="hole")
    with pytest.raises(AnnotationError, match=r"unknown product 'B'; known: A, C"):
        read_lines(tmp_path, {**GOOD_LINE, "product": "B"})


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_named(tmp_path, content):
    with pytest.raises(AnnotationError, match=r"layouts.jsonl: holds no layout"):
        read_lines(tmp_path, content)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"--layouts .*nowhere.json: no such file"):
        from_file(tmp_path / "nowhere.json", VOCABULARY)
    (tmp_path / "image.jsonl").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(AnnotationError, match=r"--layouts .*image.jsonl: cannot be read"):
        from_file(tmp_path / "image.jsonl", VOCABULARY)


def test_a_vott_export_gives_layouts_without_its_images(tmp_path):
    boxes = (Box("line", 10, 10, 30, 20), Box("spot", -5, 0, 20, 10))
    records = [
        ImageRecord(tmp_path / "gone.png", 100, 50, boxes, "C"),
        ImageRecord(tmp_path / "good.png", 100, 50, (), "A"),
    ]
    vott.write(tmp_path / "x-export.json", records, ["spot", "line", "A", "C"], name="x")
    first, second = from_file(tmp_path / "x-export.json", VOCABULARY)
    assert (first.stem, first.product) == ("gone", "C")
    assert first.objects == (RelativeBox("line", 0.1, 0.2, 0.3, 0.4), RelativeBox("spot", -0.05, 0.0, 0.2, 0.2))
    assert (second.stem, second.product, second.objects) == ("good", "A", ())
