"""evaluate.py's metrics of labelled objects: CAS, recognised boxes and detection score, on pictures that are known."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.config import DataConfig, ModelConfig, RunConfig
from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.quality import classifier, run_gate
from stay_diffusion.quality.crops import cut
from stay_diffusion.quality.results import score_all
from stay_diffusion.quality.run_gate import training_split
from stay_diffusion.quality.training import train_gate
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import save_tensors, sha256

if importlib.util.find_spec("torch_fidelity") is None or importlib.util.find_spec("pycocotools") is None:
    pytest.skip("needs torch-fidelity and pycocotools: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.commands import evaluate, score
from stay_diffusion.data.manifest import read_manifest
from stay_diffusion.detector import networks as detector
from stay_diffusion.detector import score as detection_score
from stay_diffusion.detector.data import Example
from stay_diffusion.evaluation import box_crops
from stay_diffusion.evaluation.image_set import ImageSet
from stay_diffusion.evaluation.metrics import cas

# In place of a trained detector: one that sees bright and dark rectangles on grey, exactly where they are.
FINDER = """
from stay_diffusion.detector import networks as detector
import torch
from scipy import ndimage
class Finder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
    def forward(self, pictures):
        grey, boxes, labels = pictures[0].mean(dim=0).numpy(), [], []
        for label, there in ((1, grey > 0.9), (2, grey < 0.1)):
            for rows, columns in ndimage.find_objects(ndimage.label(there)[0]):
                boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                labels.append(label)
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return [dict(boxes=boxes, scores=torch.full((len(labels),), 0.9), labels=torch.tensor(labels).long())]
detector.DETECTORS["finder"] = lambda num_classes: Finder()
from stay_diffusion.quality import classifier
classifier.WIDTH, classifier.BATCH = 8, 24
"""


@pytest.fixture(autouse=True, scope="module")
def small_networks():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WIDTH", 8), ("BATCH", 24)):
            patch.setattr(classifier, name, value)
        patch.setitem(detector.DETECTORS, "finder", None)
        exec(FINDER, {})
        yield


@pytest.fixture
def command(tmp_path, monkeypatch):
    """command(*arguments) -> (exit code, JSON) of evaluate.py run in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments) -> tuple[int, dict]:
        words = [*arguments, "--device", "cpu", "--json", "out.json"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        code = evaluate.main()
        return code, json.loads((tmp_path / "out.json").read_text())

    return run


def value(report: dict, name: str) -> float:
    return report["figures"][name]["value"]


def save_set(folder: Path, pictures, names=None) -> Path:
    """(array, boxes in [0, 1]) as image_sample.py leaves samples, but for the model that made them."""
    (folder / "samples").mkdir(parents=True)
    lines = []
    for i, (array, boxes) in enumerate(pictures):
        stem = names[i] if names else f"{i:03}"
        Image.fromarray(array).save(folder / f"samples/{stem}.png")
        objects = [{"label": b.label, "box": [b.x0, b.y0, b.x1, b.y1]} for b in boxes]
        layout = {"product": None, "objects": objects}
        lines.append({"index": i, "stem": stem, "file": f"samples/{stem}.png", "layout": layout, "source": "x"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def moved(boxes, share: float) -> list[RelativeBox]:
    """Boxes moved sideways by a share of their width, to where the picture has more room."""

    def by(low: float, high: float) -> float:
        return share * (high - low) * (1 if low + high < 1 else -1)

    return [RelativeBox(b.label, b.x0 + by(b.x0, b.x1), b.y0, b.x1 + by(b.x0, b.x1), b.y1) for b in boxes]


SHIFTS = (0, 0.25, 0.5, 1)


# Pictures of the embedded data set


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory, synthetic_sdi) -> Path:
    """80 small training and 40 validation pictures of five kinds of defects."""
    folder = tmp_path_factory.mktemp("surfaces") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_sdi, "SIDES", (48, 80))
        synthetic_sdi.generate(folder, num_train=80, num_val=40)
    return folder


def pictures_of(data: Path, split: str) -> list[tuple[np.ndarray, list[RelativeBox]]]:
    found = []
    for record in factory.read_split(DataConfig(str(data)), split)[0]:
        found.append((np.asarray(Image.open(record.path)), list(record.relative_boxes)))
    return found


@pytest.fixture(scope="module")
def gate(surfaces) -> Path:
    config = RunConfig(DataConfig(str(surfaces)), ModelConfig(image_size=64, image_channels=1))
    config = factory.with_vocabulary(config, factory.read_split(config.data, "train")[1])
    trained = train_gate(training_split(config), seed=0, flip=False, steps=120)
    path = surfaces.parent / "quality_gate.pt"
    save_tensors(path, run_gate.content_of(trained, {}))
    return path


def test_boxes_beside_their_objects_are_less_probable_and_less_recognised_the_farther(command, surfaces, gate):
    found = []
    for share in SHIFTS:
        folder = save_set(Path(f"moved {share}"), [(a, moved(b, share)) for a, b in pictures_of(surfaces, "val")])
        code, report = command("--samples", folder, "--metrics", "recognised", "--gate", gate)
        assert code == 0
        found.append(report)
    for name in ("class probability", "recognised boxes"):
        values = [value(report, name) for report in found]
        assert values == sorted(values, reverse=True) and values[0] > 0.6 and values[-1] < 0.5 * values[0]
        assert 0 < found[0]["figures"][name]["spread"] < 0.1
    told = found[0]["figures"]["class probability"]["protocol"]
    assert told["boxes"] == 85 and told["gate"] == str(gate) and len(told["gate_digest"]) == 64


def test_the_figures_are_those_of_quality_py_where_nothing_may_be_there_too(command, surfaces, gate, tmp_path):
    folder = save_set(tmp_path / "set", [(a, moved(b, 0.5)) for a, b in pictures_of(surfaces, "val")])
    _, report = command("--samples", folder, "--metrics", "recognised", "--gate", gate)
    judge, _ = run_gate.load(gate, "cpu")
    entries = read_manifest(folder / "manifest.jsonl")
    boxes = [box for of_image in score_all(folder, entries, judge) for box in of_image.boxes]
    assert value(report, "class probability") == pytest.approx(np.mean([b.class_probability for b in boxes]), abs=1e-6)
    assert value(report, "recognised boxes") == pytest.approx(np.mean([b.predicted == b.label for b in boxes]))
    assert any(b.predicted == "nothing there" for b in boxes)
    of_class = report["figures"]["recognised boxes"]["details"]["per_class"]
    assert sum(each["boxes"] for each in of_class.values()) == len(boxes)


def test_a_gate_is_trained_on_the_data_where_none_is_named(command, surfaces, monkeypatch):
    from stay_diffusion.evaluation import gate_choice

    asked = []

    def few_steps(dataset, *rest):
        asked.append((dataset.image_size, dataset.image_channels, len(dataset)))
        return train_gate(dataset, *rest, steps=2)

    monkeypatch.setattr(gate_choice, "train_gate", few_steps)
    folder = surfaces / "val" / "vott-json-export"
    code, report = command("--samples", folder, "--metrics", "recognised", "--data_dir", surfaces)
    (taken,) = asked
    assert code == 0 and taken[1:] == (1, 80)
    told = report["figures"]["recognised boxes"]["protocol"]
    assert told["gate"] == f"trained on {surfaces}" and told["boxes"] == 85


def test_a_classifier_of_real_objects_beats_one_of_shuffled_labels(command, surfaces, tmp_path):
    real = pictures_of(surfaces, "train")
    labels = [box.label for _, boxes in real for box in boxes]
    others = iter(np.random.default_rng(0).permutation(labels).tolist())
    shuffled = [(array, [RelativeBox(next(others), b.x0, b.y0, b.x1, b.y1) for b in boxes]) for array, boxes in real]
    reference = surfaces / "val" / "vott-json-export"
    words = ["--reference", reference, "--metrics", "cas", "--cas_steps", 60]
    found = {}
    for name, pictures in (("real", real), ("shuffled", shuffled)):
        code, report = command("--samples", save_set(tmp_path / name, pictures), *words, "--cas_seeds", 2)
        assert code == 0
        found[name] = report["figures"]["CAS"]
    assert found["real"]["value"] > 0.6 and found["shuffled"]["value"] < 0.4
    details, told = found["real"]["details"], found["real"]["protocol"]
    assert found["real"]["value"] == pytest.approx(np.mean(details["of_seeds"])) and len(details["of_seeds"]) == 2
    of_class = details["per_class"]
    weighed = sum(each["accuracy"] * each["boxes"] for each in of_class.values()) / 85
    assert weighed == pytest.approx(found["real"]["value"]) and told["tested_on"] == "85 boxes of the reference"
    assert sum(each["learnt_from"] for each in of_class.values()) == len(labels)
    assert found["real"]["spread_of"] == "standard error over images and classifiers"


def test_a_class_that_the_samples_lack_is_named_and_never_told(command, surfaces, tmp_path):
    fewer = [(array, [box for box in boxes if box.label != "Pits"]) for array, boxes in pictures_of(surfaces, "train")]
    reference = surfaces / "val" / "vott-json-export"
    words = ["--reference", reference, "--metrics", "cas", "--cas_steps", 20]
    _, report = command("--samples", save_set(tmp_path / "fewer", fewer), *words)
    found = report["figures"]["CAS"]
    assert found["protocol"]["not_in_samples"] == "Pits" and found["protocol"]["classes"].count("Pits") == 1
    assert found["details"]["per_class"]["Pits"] == {"accuracy": 0, "boxes": 16, "learnt_from": 0}


def test_neither_names_nor_batch_size_nor_the_order_of_boxes_change_a_figure(command, surfaces, gate, tmp_path):
    pictures = pictures_of(surfaces, "train")[:24]
    turned = [(array, boxes[::-1]) for array, boxes in pictures]
    names = [f"x{99 - i}" for i in range(len(pictures))]
    words = ["--reference", surfaces / "val" / "vott-json-export", "--metrics", "cas,recognised"]
    words += ["--cas_steps", 15, "--gate", gate]
    _, expected = command("--samples", save_set(tmp_path / "one", pictures), *words)
    _, found = command("--samples", save_set(tmp_path / "other", turned, names), *words, "--batch_size", 3)
    assert {n: f["value"] for n, f in found["figures"].items()} == {
        n: f["value"] for n, f in expected["figures"].items()
    }


# Rectangles and who finds them


WIDTH, HEIGHT = 64, 80


def rectangles(num: int) -> list[tuple[np.ndarray, list[RelativeBox]]]:
    found = []
    for i in range(num):
        rng, array, boxes = np.random.default_rng(i), np.full((HEIGHT, WIDTH), 128, dtype=np.uint8), []
        for label, level, column in (("bright", 255, 2), ("dark", 0, 34)):
            x, y, w, h = column + rng.integers(8), rng.integers(2, 34), rng.integers(14, 20), rng.integers(14, 26)
            array[y : y + h, x : x + w] = level
            boxes.append(RelativeBox(label, x / WIDTH, y / HEIGHT, (x + w) / WIDTH, (y + h) / HEIGHT))
        found.append((array, boxes))
    return found


@pytest.fixture(scope="module")
def finder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finder") / "detector.pt"
    network = detector.DETECTORS["finder"](2)
    detector.save(path, detector.Detector("finder", ("bright", "dark"), (), 1.0, network))
    return path


NAMES = [f"detection score (finder), {figure}" for figure in ("mAP", "AP50", "recall at 0.50")]


def test_what_is_found_where_it_was_asked_for_scores_one_and_the_farther_away_the_less(command, finder):
    found = []
    for share in SHIFTS:
        folder = save_set(Path(f"moved {share}"), [(a, moved(b, share)) for a, b in rectangles(12)])
        code, report = command("--samples", folder, "--metrics", "yolo_score", "--detector", finder)
        assert code == 0 and list(report["figures"]) == NAMES
        found.append([value(report, name) for name in NAMES])
    assert found[0] == pytest.approx([1, 1, 1]) and found[-1] == [0, 0, 0]
    of_map = [each[0] for each in found]
    assert of_map == pytest.approx([1, 0.3, 0, 0])  # 0.75 / 1.25 of the union is shared: at three of ten overlaps


def test_the_detector_and_its_sha256_and_the_score_of_the_reference_are_told(command, finder, tmp_path):
    samples = save_set(tmp_path / "samples", [(a, moved(b, 0.1)) for a, b in rectangles(6)])
    reference = save_set(tmp_path / "reference", rectangles(8))
    words = ["--samples", samples, "--reference", reference, "--metrics", "yolo_score", "--detector", finder]
    _, report = command(*words)
    assert list(report["figures"]) == [*NAMES, *(f"{name} of the reference" for name in NAMES)]
    assert value(report, NAMES[0]) < 1 == value(report, f"{NAMES[0]} of the reference")
    told, of_reference = (report["figures"][name]["protocol"] for name in (NAMES[0], f"{NAMES[0]} of the reference"))
    assert told["detector"] == str(finder) and told["detector_sha256"] == sha256(finder)
    assert told["objects"] == 12 and of_reference["objects"] == 16 and "reference" not in told
    assert told["versions"]["pycocotools"] and told["seed"] == 2020
    save_set(tmp_path / "bare", [(array, []) for array, _ in rectangles(8)])
    _, report = command(*words[:3], tmp_path / "bare", *words[4:])  # a reference without boxes has no score
    assert list(report["figures"]) == NAMES


def test_the_score_is_that_of_detection_score_py(command, finder, tmp_path, surfaces, monkeypatch):
    from stay_diffusion.data.annotations import ImageRecord
    from stay_diffusion.data.formats import vott

    pictures = [(a, moved(b, 0.1)) for a, b in rectangles(9)]
    folder = save_set(tmp_path / "set", pictures)
    records = []
    for i, (_, boxes) in enumerate(pictures):
        whole = tuple(box.pixels(WIDTH, HEIGHT) for box in boxes)
        records.append(ImageRecord(folder / f"samples/{i:03}.png", WIDTH, HEIGHT, whole))
    vott.write(folder / "samples/set-export.json", records, ("bright", "dark"), name="set")
    _, report = command("--samples", folder, "--metrics", "yolo_score", "--detector", finder)
    words = [folder, "--detector", finder, "--device", "cpu", "--json", tmp_path / "score.json"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
    assert score.main() == 0
    expected = json.loads((tmp_path / "score.json").read_text())
    assert 0 < expected["map"] < 1
    assert [value(report, name) for name in NAMES] == [expected[key] for key in ("map", "ap50", "recall50")]


def test_a_detector_sees_pictures_enlarged_by_its_scale(command, tmp_path):
    sizes = []

    class Looking(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pictures):
            sizes.append(tuple(pictures[0].shape))
            empty = torch.zeros(0)
            return [{"boxes": empty.reshape(0, 4), "scores": empty, "labels": empty.long()}]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(detector.DETECTORS, "looking", lambda num_classes: Looking())
        detector.save(tmp_path / "d.pt", detector.Detector("looking", ("bright", "dark"), (), 2.0, Looking()))
        folder = save_set(tmp_path / "set", rectangles(2))
        _, report = command("--samples", folder, "--metrics", "yolo_score", "--detector", "d.pt")
    assert sizes == [(3, 2 * HEIGHT, 2 * WIDTH)] * 2 and value(report, "detection score (looking), mAP") == 0


# Crops


def test_boxes_that_the_picture_does_not_show_are_left_out():
    inside, outside = RelativeBox("spot", 0.2, 0.2, 0.6, 0.6), RelativeBox("spot", 1.0, 0.2, 1.4, 0.9)
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 1), dtype=np.uint8)
    images = ImageSet("x", [array, array], objects=((outside, inside), (outside,)))
    found = box_crops.box_crops(images, 1)
    assert found.labels == ("spot",) and found.images.tolist() == [0]
    whole = cut(Image.fromarray(array[..., 0]), (6.4, 6.4, 19.2, 19.2), 1).pixels
    np.testing.assert_array_equal(found.crops[0].numpy(), whole)


def test_greys_of_12_bits_are_seen_in_the_range_that_is_given(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (32, 32)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray((deep * (255 / 4095)).astype(np.float32)).save(tmp_path / "plain.tiff")
    boxes = (RelativeBox("spot", 0.2, 0.2, 0.6, 0.6),)
    images = ImageSet("x", [tmp_path / "deep.png"], objects=(boxes,))
    plain = Image.open(tmp_path / "plain.tiff")
    expected = cut(plain, (6.4, 6.4, 19.2, 19.2), 1).pixels
    np.testing.assert_array_equal(box_crops.box_crops(images, 1, (0, 4095)).crops[0].numpy(), expected)


def test_classifiers_are_trained_as_the_flags_say(command, tmp_path, monkeypatch):
    asked = []
    train = cas.train_classifier

    def noted(crops, labels, num_classes, seed, flip, steps, device):
        asked.append((len(crops), num_classes, seed, flip, steps))
        return train(crops, labels, num_classes, seed, flip, 1, device)

    monkeypatch.setattr(cas, "train_classifier", noted)
    samples, reference = save_set(tmp_path / "a", rectangles(3)), save_set(tmp_path / "b", rectangles(5))
    words = ["--samples", samples, "--reference", reference, "--metrics", "cas", "--cas_steps", 9, "--cas_seeds", 2]
    _, report = command(*words, "--seed", 4, "--random_flip", True)
    assert asked == [(6, 2, 4, True, 9), (6, 2, 5, True, 9)]
    told = report["figures"]["CAS"]["protocol"]
    assert told["learnt_from"] == "6 boxes of the samples" and told["tested_on"] == "10 boxes of the reference"


# Standard errors


def test_boxes_of_one_image_are_no_independent_evidence():
    values, images = np.array([0.0, 1, 1, 0]), np.arange(4)
    once, four_times = (
        box_crops.mean_over_boxes(values, images),
        box_crops.mean_over_boxes(np.repeat(values, 4), np.repeat(images, 4)),
    )
    assert once.value == 0.5 and once.standard_error == pytest.approx(np.std(values, ddof=1) / 2)
    assert four_times == pytest.approx(once)
    assert box_crops.mean_over_boxes(np.repeat(values, 4), np.arange(16)).standard_error < 0.6 * once.standard_error
    assert box_crops.mean_over_boxes(values, np.zeros(4, dtype=int)).standard_error is None


def test_the_error_of_a_share_is_its_spread_over_repeated_experiments():
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, 4, 60)
        of_image = np.repeat(rng.uniform(size=60) < 0.6, counts)
        found.append(box_crops.mean_over_boxes(of_image.astype(float), np.repeat(np.arange(60), counts)))
    spread = np.std([each.value for each in found], ddof=1)
    assert 0.85 < np.mean([each.standard_error for each in found]) / spread < 1.15


def test_cas_counts_the_spread_over_classifiers_too():
    crops = box_crops.BoxCrops(torch.zeros(0), ("a", "b", "a", "b"), np.arange(4))
    alike, apart = np.array([[1, 1, 0, 0]] * 2, dtype=bool), np.array([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=bool)
    first, second = (cas.score(right, crops, crops, ("a", "b")).accuracy for right in (alike, apart))
    assert first.standard_error == pytest.approx(np.std([0, 0, 1, 1], ddof=1) / 2)
    over_images = np.std([1, 0.5, 0.5, 0], ddof=1) / 2
    assert second == pytest.approx((0.5, np.hypot(over_images, np.std([0.75, 0.25], ddof=1) / np.sqrt(2))))


def test_the_error_of_a_detection_score_is_its_spread_over_repeated_experiments():
    def experiment(seed: int) -> tuple[float, float]:
        rng, items, found = np.random.default_rng(seed), [], []
        for i in range(40):
            box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
            there = rng.uniform() < 0.6
            none = detector.Detections(box[:0], torch.zeros(0), torch.zeros(0).long())
            items.append(Example(Path(f"{i}.png"), True, box.numpy(), np.array([1], dtype=int)))
            found.append(detector.Detections(box, torch.ones(1), torch.ones(1).long()) if there else none)
        errors = detection_score.standard_errors(found, items, ("a", "b"), 20, seed)
        return detection_score.score(found, items, ("a", "b")).recall50, errors["recall50"]

    found = [experiment(seed) for seed in range(40)]
    spread = np.std([recall for recall, _ in found], ddof=1)
    assert 0.7 < np.mean([error for _, error in found]) / spread < 1.4


def test_a_detector_that_is_always_right_has_no_error_and_without_resamples_none_is_given():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    items = [Example(Path("x"), True, box.numpy(), np.array([1]))] * 3
    found = [detector.Detections(box, torch.ones(1), torch.ones(1).long())] * 3
    assert set(detection_score.standard_errors(found, items, ("a",), 5, 0).values()) == {0.0}
    assert set(detection_score.standard_errors(found, items, ("a",), 1, 0).values()) == {None}


# What cannot be had


def test_what_is_missing_is_one_line_each(command, tmp_path, finder):
    folder = save_set(tmp_path / "set", rectangles(3))
    plain = tmp_path / "plain"
    plain.mkdir()
    for i, (array, _) in enumerate(rectangles(3)):
        Image.fromarray(array).save(plain / f"{i}.png")
    metrics = ["--metrics", "cas,recognised,yolo_score"]
    code, report = command("--samples", folder, *metrics)
    assert code == 3 and report["figures"] == {}
    assert report["not_computed"]["cas"] == "needs --reference, the real images"
    assert report["not_computed"]["recognised"].startswith("needs a classifier of real objects: --gate FILE")
    assert report["not_computed"]["yolo_score"] == "needs --detector FILE, a detector.pt of train_detector.py"

    words = ["--samples", plain, "--reference", folder, "--detector", finder, "--gate", "nowhere.pt"]
    _, report = command(*words, *metrics)
    assert all(str(plain) in reason for reason in report["not_computed"].values())

    _, report = command("--samples", folder, *metrics, "--gate", "nowhere.pt", "--detector", "nowhere.pt")
    assert report["not_computed"]["recognised"] == "--gate nowhere.pt: no such file"
    assert report["not_computed"]["yolo_score"].startswith("--detector nowhere.pt: no such file")


def test_unknown_classes_single_ones_and_sets_without_boxes_are_reasons(command, tmp_path, finder, gate):
    one = [(array, [box for box in boxes if box.label == "dark"]) for array, boxes in rectangles(3)]
    strange = [(array, [RelativeBox("hole", b.x0, b.y0, b.x1, b.y1) for b in boxes]) for array, boxes in rectangles(3)]
    nothing = [(array, []) for array, _ in rectangles(3)]
    words = ["--metrics", "cas,recognised,yolo_score", "--detector", finder, "--gate", gate]
    reasons = {}
    for name, pictures in (("one", one), ("strange", strange), ("nothing", nothing)):
        folder = save_set(tmp_path / name, pictures)
        reasons[name] = command("--samples", folder, "--reference", folder, *words)[1]["not_computed"]
    assert reasons["one"]["cas"] == "objects of one class alone, dark: there is nothing to tell apart"
    assert "class 'hole', which the detector was not trained on" in reasons["strange"]["yolo_score"]
    assert "class 'hole', which the gate does not know" in reasons["strange"]["recognised"]
    for reason in reasons["nothing"].values():
        assert reason == f"{tmp_path / 'nothing'}: its 3 pictures have no boxes"


# Several processes


def test_several_processes_give_the_same_figures(run_script, run_ranks, surfaces, finder, tmp_path):
    folder = save_set(tmp_path / "set", rectangles(7))
    words = ["--samples", folder, "--reference", folder, "--metrics", "cas,yolo_score", "--detector", finder]
    words += ["--cas_seeds", 2, "--cas_steps", 5, "--device", "cpu"]
    options = {"cwd": tmp_path, "prelude": FINDER}
    run_script("evaluations/evaluate.py", *words, "--json", "1.json", **options)
    run_ranks(2, "evaluations/evaluate.py", *words, "--json", "n.json", **options)
    expected, found = (json.loads((tmp_path / name).read_text()) for name in ("1.json", "n.json"))
    assert found == expected and len(found["figures"]) == 7
