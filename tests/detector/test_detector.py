"""Detectors: what they are trained on, how they start, that they learn, and the commands that train and use them."""

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.config import DataConfig
from stay_diffusion.data.annotations import Box, ImageRecord, Vocabulary
from stay_diffusion.data.formats import vott
from stay_diffusion.run.checkpoint import save_tensors

if importlib.util.find_spec("pycocotools") is None or importlib.util.find_spec("torchvision") is None:
    pytest.skip("needs pycocotools and torchvision: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.detector import data as detector_data
from stay_diffusion.detector import networks as detector
from stay_diffusion.detector import score as detection_score
from stay_diffusion.detector import training

NAMES = Vocabulary(("bright", "dark"))
TINY = training.DetectorConfig(steps=2, batch_size=2, crop_size=32)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Four pictures of 64 x 64 with a bright and a dark rectangle on grey, in a VoTT export below train/."""
    folder = tmp_path_factory.mktemp("squares") / "data"
    for split in ("train", "val"):
        records = []
        for i in range(4):
            rng, pixels = np.random.default_rng(i), np.full((64, 64), 128, dtype=np.uint8)
            boxes = []
            for label, level, column in (("bright", 255, 2), ("dark", 0, 34)):
                x, y, w, h = column + rng.integers(8), rng.integers(2, 34), rng.integers(14, 20), rng.integers(14, 26)
                pixels[y : y + h, x : x + w] = level
                boxes.append(Box(label, float(x), float(y), float(x + w), float(y + h)))
            path = folder / split / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            records.append(ImageRecord(path, 64, 64, tuple(boxes)))
        vott.write(folder / split / "squares-export.json", records, NAMES.classes, name="squares")
    return folder


@pytest.fixture(scope="module")
def items(squares):
    data = DataConfig(str(squares))
    records, vocabulary = detector_data.read(data, "train")
    assert vocabulary.classes == NAMES.classes
    return detector_data.examples(records, vocabulary, data)


def painted(boxes, size=(100, 80)) -> "detector_data.Example":
    """A black picture with white boxes, in memory only."""
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = 255
    values = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    item = detector_data.Example(Path(f"/nowhere/{boxes}"), True, values, np.arange(1, len(boxes) + 1))
    detector_data._kept[item.path, True, None, 1.0] = Image.fromarray(pixels)
    return item


# What is trained on


def test_the_subset_is_drawn_by_the_stated_rule():
    stems = [f"{i:03d}" for i in range(40)]
    expected = [stems[i] for i in sorted(np.random.default_rng(0).permutation(40)[:7])]
    assert detector_data.choose(stems, 7) == expected
    assert detector_data.choose(stems, 0) == detector_data.choose(stems, 40) == stems
    with pytest.raises(ValueError, match="--num_real 41: there are only 40"):
        detector_data.choose(stems, 41)


def test_records_are_sorted_by_stem(squares):
    records, _ = detector_data.read(DataConfig(str(squares)), "train")
    assert [record.stem for record in records] == ["0", "1", "2", "3"]


def test_boxes_are_clipped_and_those_outside_are_no_objects(tmp_path):
    outside = (Box("bright", -5, 10, 20, 70), Box("dark", 70, 0, 90, 10))
    (item,) = detector_data.examples([ImageRecord(tmp_path / "a.png", 64, 48, outside)], NAMES, DataConfig())
    assert item.boxes.tolist() == [[0, 10, 20, 48]] and item.labels.tolist() == [1]


def test_a_picture_is_known_by_its_content_in_any_format_and_mode(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    files = {"grey.png": pixels, "colour.bmp": np.stack([pixels] * 3, axis=-1), "other.png": pixels.T}
    for name, content in files.items():
        Image.fromarray(content).save(tmp_path / name)
    records = [ImageRecord(tmp_path / name, 0, 0) for name in files]
    grey, colour, other = map(detector_data.image_digest, detector_data.examples(records, NAMES, DataConfig()))
    assert grey == colour != other


@pytest.mark.parametrize("flips", ["none", "horizontal", "both"])
def test_a_crop_shows_a_whole_object_and_its_boxes_are_where_the_pixels_are(flips):
    item = painted([(10, 20, 30, 35), (60, 50, 95, 79)])
    config = replace(TINY, crop_size=40, flips=flips)
    whole = 0
    for place in range(60):
        image, target = training.crop(item, config, np.random.default_rng(place))
        assert image.shape == (3, 40, 40)
        drawn = torch.zeros(40, 40)
        for x0, y0, x1, y1 in target["boxes"].long().tolist():
            drawn[y0:y1, x0:x1] = 1
        assert (image[:, drawn == 1] == 1).all()  # what lies in boxes is white; of boxes left out, less than half is
        assert set(target["labels"].tolist()) <= {1, 2}
        sizes = {tuple(size) for size in (target["boxes"][:, 2:] - target["boxes"][:, :2]).tolist()}
        whole += bool(sizes & {(20, 15), (35, 29)})
    assert whole == 60


def test_crops_are_mirrored_as_asked():
    item = painted([(0, 0, 10, 10)], size=(32, 32))  # the crop is the whole picture
    corners = {
        flips: {
            tuple(training.crop(item, replace(TINY, flips=flips), np.random.default_rng(i))[1]["boxes"][0].tolist())
            for i in range(40)
        }
        for flips in ("none", "horizontal", "both")
    }
    here, right = (0, 0, 10, 10), (22, 0, 32, 10)
    assert corners["none"] == {here} and corners["horizontal"] == {here, right}
    assert corners["both"] == {here, right, (0, 22, 10, 32), (22, 22, 32, 32)}


def test_enlarged_pictures_have_enlarged_boxes():
    item = painted([(10, 20, 30, 35)])
    detector_data._kept[item.path, True, None, 2.0] = item.picture().resize((200, 160), Image.Resampling.NEAREST)
    image, target = training.crop(item, replace(TINY, scale=2.0, flips="none", crop_size=64), np.random.default_rng(1))
    (x0, y0, x1, y1) = target["boxes"][0].long().tolist()
    assert (x1 - x0, y1 - y0) == (40, 30)
    assert image[0, y0:y1, x0:x1].min() == 1 and image[0].sum() == 40 * 30


def test_pictures_smaller_than_the_crop_stay_as_they_are():
    image, target = training.crop(painted([(3, 4, 9, 9)], size=(20, 16)), TINY, np.random.default_rng(0))
    assert image.shape == (3, 16, 20) and len(target["boxes"]) == 1


def test_a_picture_without_objects_is_cut_anywhere():
    item, config = painted([]), replace(TINY, crop_size=40)
    image, target = training.crop(item, config, np.random.default_rng(0))
    assert image.shape == (3, 40, 40) and target["boxes"].shape == (0, 4) and target["labels"].dtype == torch.int64


def test_every_picture_is_seen_once_before_any_is_seen_again():
    order = training.draw_order(7, 20, seed=3)
    assert len(order) == 20
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert len(set(order[14:])) == 6
    assert order.tolist() != training.draw_order(7, 20, seed=4).tolist()


def test_the_learning_rate_rises_and_falls_to_nothing():
    rates = [training.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5) and rates[99] < 0.001
    assert training.rate(0, 1) == 1


# Training


def weights_of(trained) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trained.network.state_dict().values()])


def test_the_number_of_steps_does_not_depend_on_the_number_of_pictures(items, monkeypatch):
    taken = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a, **k: (taken.append(1), step(self, *a, **k))[1])
    told = []
    for some in (items[:1], items):
        training.train(some, NAMES, replace(TINY, steps=3), seed=0, on_step=lambda step, loss: told.append(step))
    assert len(taken) == 6 and told == [1, 2, 3, 1, 2, 3]


def test_the_same_seed_gives_the_same_detector_and_another_seed_another(items):
    first, again, other = (weights_of(training.train(items, NAMES, TINY, seed=seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_training_leaves_the_callers_random_numbers_alone(items):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    training.train(items, NAMES, replace(TINY, steps=1), seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_stops_with_advice(items):
    with pytest.raises(FloatingPointError, match="a lower --lr helps"):
        training.train(items, NAMES, replace(TINY, lr=1e30, steps=4), seed=0)


@pytest.fixture(scope="module")
def trained(items):
    """A detector that knows the four pictures by heart."""
    config = replace(TINY, steps=90, batch_size=4, crop_size=64, lr=3e-3, flips="none")
    return training.train(items, NAMES, config, seed=0)


def test_a_tiny_detector_learns_its_pictures(items, trained):
    found = list(detector.detect(trained, (item.picture() for item in items)))
    assert detection_score.score(found, items, NAMES.classes).ap50 > 0.9


def test_detections_are_in_pixels_of_the_original_picture(items, trained):
    (found,) = detector.detect(trained, [items[0].picture()])
    enlarged = items[0].picture().resize((128, 128), Image.Resampling.NEAREST)
    (halved,) = detector.detect(replace(trained, scale=2.0), [enlarged])
    assert found.boxes.max() > 32 and halved.boxes.max() <= 64


# Files of weights


def test_a_saved_detector_finds_the_same(items, trained, tmp_path):
    detector.save(tmp_path / "detector.pt", trained)
    loaded = detector.load(tmp_path / "detector.pt")
    assert (loaded.name, loaded.classes, loaded.products, loaded.scale) == ("small_fcos", NAMES.classes, (), 1.0)
    for one, other in zip(*(detector.detect(d, [items[0].picture()]) for d in (trained, loaded)), strict=True):
        torch.testing.assert_close(tuple(one), tuple(other), rtol=0, atol=0)


def test_other_files_are_no_detectors(tmp_path):
    save_tensors(tmp_path / "other.pt", {"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"other.pt: not a detector that train_detector.py has written"):
        detector.load(tmp_path / "other.pt")


@pytest.mark.parametrize(("classes", "same"), [(("bright", "dark"), True), (("dark", "bright"), False)])
def test_starting_from_a_detector_takes_its_class_layers_only_for_the_same_classes(trained, tmp_path, classes, same):
    detector.save(tmp_path / "detector.pt", trained)
    started = detector.build("small_fcos", classes, tmp_path / "detector.pt").state_dict()
    old, layers = trained.network.state_dict(), detector.class_layers("small_fcos")
    assert layers == {f"head.classification_head.cls_logits.{kind}" for kind in ("weight", "bias")}
    for name, value in started.items():
        assert torch.equal(value, old[name]) == (same or name not in layers)


def test_torchvisions_weights_of_other_classes_start_a_detector(tmp_path):
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    published = detector.DETECTORS[name](90).state_dict()
    published = {key: value for key, value in published.items() if not key.endswith("num_batches_tracked")}
    save_tensors(tmp_path / "coco.pth", published)
    started = detector.build(name, NAMES.classes, tmp_path / "coco.pth").state_dict()
    assert started["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
    key = "backbone.body.0.0.weight"
    assert torch.equal(started[key], published[key])


def test_weights_of_another_network_are_refused(trained, tmp_path):
    detector.save(tmp_path / "detector.pt", trained)
    with pytest.raises(ValueError, match="holds a small_fcos, not a retinanet_resnet50_fpn"):
        detector.build("retinanet_resnet50_fpn", NAMES.classes, tmp_path / "detector.pt")
    save_tensors(tmp_path / "part.pth", {"head.wrong": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"part.pth: does not fit .* lacks backbone"):
        detector.build("small_fcos", NAMES.classes, tmp_path / "part.pth")


# The commands


def test_training_and_scoring_by_command(run_script, squares, tmp_path):
    out = tmp_path / "my detector"
    flags = ["--out", out, "--steps", 2, "--batch_size", 2, "--crop_size", 32, "--num_real", 3]
    output = run_script("evaluations/train_detector.py", "--data_dir", squares, *flags).output
    assert "3 pictures to train on, 4 to measure on" in output and "objects: bright 3, dark 3" in output
    report = json.loads((out / "detector.json").read_text())
    assert report["protocol"]["steps"] == 2 and report["per_class"]["dark"]["objects"] == 4
    scored = run_script(
        "evaluations/detection_score.py", squares, "--detector", out / "detector.pt", "--json", tmp_path / "score.json"
    )
    assert "4 pictures, detector small_fcos" in scored.output
    again = json.loads((tmp_path / "score.json").read_text())
    assert again["map"] == report["map"] and again["protocol"]["detector_sha256"] == report["sha256"]


def test_a_dry_run_trains_nothing(run_script, squares, tmp_path):
    run_script("evaluations/train_detector.py", "--data_dir", squares, "--out", tmp_path / "none", "--dry_run")
    assert not (tmp_path / "none").exists()


def test_missing_flags_are_named(run_script, squares):
    output = run_script("evaluations/train_detector.py", "--data_dir", squares, code=1).output
    assert output == "error: --out: needed\n"
