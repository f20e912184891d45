"""The gate on drawn defects: planted failures score lower, copies are found, an image's figures are its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.quality.run_gate import gate_of_run
from stay_diffusion.quality.scores import NOTHING, BoxQuality, ImageQuality

STEPS = 50
OTHER = {"bar": "hole", "hole": "bar"}


def empty_places(objects: list[RelativeBox]) -> list[RelativeBox]:
    """The boxes of a picture moved up or down by half of it, to where nothing is drawn."""
    return [replace(b, y0=(b.y0 + 0.45) % 0.8, y1=(b.y0 + 0.45) % 0.8 + b.y1 - b.y0) for b in objects]


def scores(gate, cases) -> np.ndarray:
    return np.array([box.score for image, objects in cases for box in gate.score(image, objects).boxes])


def test_real_boxes_score_higher_than_empty_ones_and_than_those_of_another_class(gate, split):
    cases = split("val")
    real = scores(gate, cases)
    empty = scores(gate, [(image, empty_places(objects)) for image, objects in cases])
    wrong = scores(gate, [(image, [replace(b, label=OTHER[b.label]) for b in objects]) for image, objects in cases])
    assert np.median(real) > 0.9 and real.min() > max(np.quantile(empty, 0.9), np.quantile(wrong, 0.9))


def test_what_is_in_a_box_is_named(gate, split):
    image, objects = split("val")[0]
    assert [box.predicted for box in gate.score(image, objects).boxes] == [box.label for box in objects]
    places = empty_places(objects)
    assert {box.predicted for box in gate.score(image, places).boxes} == {NOTHING}


def test_windows_of_the_networks_size_are_scored_as_whole_pictures_are(gate, split):
    cases = []
    for image, objects in split("val"):
        for box in objects:
            x0, y0 = (min(max(round(edge * 96) - 8, 0), 48) for edge in (box.x0, box.y0))
            window = replace(
                box, x0=box.x0 * 2 - x0 / 48, y0=box.y0 * 2 - y0 / 48, x1=box.x1 * 2 - x0 / 48, y1=box.y1 * 2 - y0 / 48
            )
            cases.append((image.crop((x0, y0, x0 + 48, y0 + 48)), [window]))
    assert np.median(scores(gate, cases)) > 0.9


def test_an_exact_copy_is_found_with_similarity_1_and_the_right_object(gate, split, run):
    image, objects = split("train")[7]
    quality = gate.score(image, objects)
    file, box = Path(quality.copy.file), objects[quality.copy.box]
    assert quality.copy.similarity == pytest.approx(1, abs=1e-4) and gate.is_copy(quality)
    assert file == Path(run[0].data.data_dir, "train/train_007.png") and quality.copy.training_label == box.label
    assert quality.copy.training_box == pytest.approx([96 * e for e in (box.x0, box.y0, box.x1, box.y1)], abs=1e-3)


def test_a_copy_with_a_little_noise_is_called_one(gate, split):
    noise = np.random.default_rng(0).normal(0, 2, (96, 96))
    for image, objects in split("train")[:6]:
        noisy = Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))
        assert gate.is_copy(gate.score(noisy, objects))


def test_real_pictures_of_another_split_are_not_called_copies(gate, split):
    found = [gate.score(image, objects) for image, objects in split("val")]
    assert sum(map(gate.is_copy, found)) <= 1
    assert max(quality.copy.similarity for quality in found) < 0.999


def test_the_score_is_the_lesser_of_probability_and_object_change_and_an_images_that_of_its_worst_box(gate, split):
    image, objects = split("val")[0]
    alone = gate.score(image, objects)
    assert all(box.object_change is None and box.score == box.class_probability for box in alone.boxes)
    twin = np.asarray(image).copy()
    first = objects[0]
    x0, y0, x1, y1 = (round(96 * edge) for edge in (first.x0, first.y0, first.x1, first.y1))
    twin[y0:y1, x0:x1] = 120  # the first box was drawn, the second is there without it too
    against = gate.score(image, objects, Image.fromarray(twin))
    assert against.boxes[0].object_change > 0.9 and against.boxes[1].object_change == 0
    assert against.boxes[0].score == min(against.boxes[0].class_probability, against.boxes[0].object_change)
    assert against.score == against.boxes[1].score == 0


def test_an_image_without_boxes_is_perfect_and_nobodys_copy(gate, split):
    quality = gate.score(split("val")[0][0], [])
    assert quality.as_json() == {"score": 1.0, "boxes": [], "copy": None} and not gate.is_copy(quality)


def test_a_line_of_json_says_all(gate, split):
    image, objects = split("val")[1]
    line = gate.score(image, objects).as_json()
    assert list(line) == ["score", "boxes", "copy"] and line["score"] == min(box["score"] for box in line["boxes"])
    for box, asked in zip(line["boxes"], objects, strict=True):
        assert list(box) == ["label", "box", "class_probability", "predicted", "adherence", "score"]
        assert (box["label"], box["box"]) == (asked.label, [asked.x0, asked.y0, asked.x1, asked.y1])
    assert list(line["copy"]) == ["similarity", "box", "file", "training_box", "training_label"]


def test_an_image_is_scored_alike_alone_after_others_and_with_its_boxes_in_any_order(gate, split):
    cases = split("val")
    alone = gate.score(*cases[3])
    for case in cases[:3]:
        gate.score(*case)
    assert gate.score(*cases[3]) == alone
    backwards = gate.score(cases[3][0], cases[3][1][::-1])
    assert backwards.boxes[::-1] == alone.boxes


def test_a_picture_of_16_bits_is_scored_as_one_of_8(gate, split):
    image, objects = split("val")[0]
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    one, other = gate.score(deep, objects), gate.score(image, objects)
    assert one.score == pytest.approx(other.score, abs=0.01)
    assert one.copy.similarity == pytest.approx(other.copy.similarity, abs=0.01)


@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 0.001, 0.001), (-0.9, -0.9, 1.9, 1.9), (0.0, 0.0, 1.0, 1.0), (0.4, 0.0, 0.6, 1.0)]
)
def test_boxes_of_any_size_and_shape_are_scored(gate, split, box):
    image, _ = split("val")[0]
    quality = gate.score(image, [RelativeBox("bar", *box)], image)
    assert 0 <= quality.score <= 1 and 0 <= quality.copy.similarity <= 1


def test_an_unknown_class_is_refused(gate, split):
    with pytest.raises(ValueError, match=r"unknown class 'dent'; known: bar, hole"):
        gate.score(split("val")[0][0], [RelativeBox("dent", 0.1, 0.1, 0.2, 0.2)])


def test_scores_of_colour_pictures_seen_scaled_are_learnt_from_what_the_network_sees(tmp_path, write_data, run_config):
    config = run_config(write_data(tmp_path / "data", channels=3), crop_policy="resize", channels=3)
    gate = gate_of_run(config, tmp_path, steps=STEPS)
    path = tmp_path / "data/train/train_003.png"
    seen = Image.open(path).resize((48, 48), Image.Resampling.BICUBIC)
    objects = next(
        [
            RelativeBox(gate.classes[gate.labels[i]], *(gate.boxes[i] / 96).tolist())
            for i in range(len(gate.labels))
            if gate.file_of[i] == f
        ]
        for f, file in enumerate(gate.files)
        if file == str(path)
    )
    quality = gate.score(seen, objects)
    assert quality.copy.similarity == pytest.approx(1, abs=1e-4) and quality.copy.file == str(path)
    assert len(objects) == 2 and quality.score > 0.5
    wrong = gate.score(seen, [replace(box, label=OTHER[box.label]) for box in objects])
    assert max(box.score for box in wrong.boxes) < 0.5


def test_the_score_of_a_box_without_a_twin_is_its_probability():
    box = BoxQuality("bar", (0, 0, 1, 1), 0.8, "bar")
    assert (box.score, replace(box, object_change=0.3).score, replace(box, object_change=0.9).score) == (0.8, 0.3, 0.8)
    assert ImageQuality((box, replace(box, object_change=0.3)), None).score == 0.3
