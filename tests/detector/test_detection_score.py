"""COCO's figures of planted detections, whose answers are known."""

import contextlib
import importlib
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

if importlib.util.find_spec("pycocotools") is None or importlib.util.find_spec("torchvision") is None:
    pytest.skip("needs pycocotools and torchvision: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.detector import data as detector_data
from stay_diffusion.detector import networks as detector
from stay_diffusion.detector import score as script

CLASSES = ("hole", "scratch")
HOLE, SCRATCH = 1, 2


def example(*boxes, name="picture") -> "detector_data.Example":
    """A picture with (x0, y0, x1, y1, label) boxes."""
    values = np.array(boxes, dtype=np.float32).reshape(-1, 5)
    return detector_data.Example(Path(f"{name}.png"), True, values[:, :4], values[:, 4].astype(np.int64))


def detections(*boxes) -> "detector.Detections":
    """Of (x0, y0, x1, y1, label, score)."""
    values = torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 6))
    return detector.Detections(values[:, :4], values[:, 5], values[:, 4].long())


ITEMS = [example((10, 10, 50, 40, HOLE), (60, 5, 90, 90, SCRATCH)), example((0, 0, 20, 20, HOLE)), example()]


def moved(items, x=0.0, label=lambda label: label) -> list:
    """The objects themselves as detections, moved to the right."""
    boxes = [zip(item.boxes + np.array((x, 0, x, 0)), item.labels, strict=True) for item in items]
    return [detections(*((*box, label(one), 0.9) for box, one in of_item)) for of_item in boxes]


@pytest.mark.parametrize(
    "found",
    [moved(ITEMS, x=200), moved(ITEMS, label=lambda label: 3 - label), [detections()] * 3],
    ids=["elsewhere", "wrong class", "none"],
)
def test_detections_elsewhere_or_of_another_class_score_nothing(found):
    figures = script.score(found, ITEMS, CLASSES)
    assert (figures.map, figures.ap50, figures.recall, figures.recall50) == (0, 0, 0, 0)


def test_a_box_that_overlaps_by_62_percent_counts_at_three_of_ten_overlaps():
    items = [example((0, 0, 100, 100, HOLE))]
    figures = script.score([detections((0, 0, 100, 62, HOLE, 0.5))], items, CLASSES)
    assert (figures.ap50, figures.recall50) == pytest.approx((1, 1))
    assert figures.map == pytest.approx(0.3) and figures.recall == pytest.approx(0.3)


def test_a_class_that_is_never_found_counts_nothing_and_halves_the_mean():
    found = [detections(*(row for row in ((10, 10, 50, 40, HOLE, 0.9),))), detections((0, 0, 20, 20, HOLE, 0.8))]
    figures = script.score([*found, detections()], ITEMS, CLASSES)
    assert figures.per_class["scratch"]["ap"] == figures.per_class["scratch"]["recall50"] == 0
    assert (figures.map, figures.recall) == pytest.approx((0.5, 0.5))


def test_a_class_without_objects_has_no_figure_and_no_part_in_the_mean():
    items = [example((10, 10, 50, 40, HOLE))]
    figures = script.score([detections((10, 10, 50, 40, HOLE, 0.9), (1, 1, 9, 9, SCRATCH, 0.9))], items, CLASSES)
    assert figures.per_class["scratch"] == {"ap": None, "ap50": None, "recall": None, "recall50": None, "objects": 0}
    assert figures.map == pytest.approx(1)
    assert "| scratch | 0 | - | - | - | - |" in script.table(figures)


def test_a_better_scored_false_alarm_halves_the_precision():
    items = [example((10, 10, 50, 40, HOLE)), example()]
    found = [
        detections((10, 10, 50, 40, HOLE, 0.5)),
        detections((10, 10, 50, 40, HOLE, 0.9)),
    ]  # right box, wrong picture
    figures = script.score(found, items, CLASSES)
    assert figures.ap50 == pytest.approx(0.5) and figures.recall50 == 1


def test_the_figures_are_those_of_pycocotools_files_and_summary(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    items, found = [], []
    for number in range(12):
        corner, side = rng.uniform(0, 60, (5, 2)), rng.uniform(10, 40, (5, 2))
        boxes = np.concatenate([corner, corner + side, rng.integers(1, 3, (5, 1))], axis=1)
        items.append(example(*boxes, name=str(number)))
        noisy = np.concatenate(
            [boxes[:, :4] + rng.normal(0, 3, (5, 4)), boxes[:, 4:], rng.uniform(size=(5, 1))], axis=1
        )
        found.append(detections(*noisy[: rng.integers(2, 6)]))
    truth = [
        {"id": 10 * i + j, "image_id": i, "category_id": int(label), "iscrowd": 0, "area": float((x1 - x0) * (y1 - y0))}
        | {"bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]}
        for i, item in enumerate(items, 1)
        for j, ((x0, y0, x1, y1), label) in enumerate(zip(item.boxes, item.labels, strict=True))
    ]
    images, categories = [{"id": i} for i in range(1, 13)], [{"id": i, "name": n} for i, n in enumerate(CLASSES, 1)]
    files = [tmp_path / "truth.json", tmp_path / "results.json"]
    files[0].write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    files[1].write_text(json.dumps(script.detections_json(found, items, CLASSES)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(files[0])
        evaluation = COCOeval(coco, coco.loadRes(str(files[1])), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = script.score(found, items, CLASSES)
    assert 0.1 < figures.map < 0.9
    assert figures.map == pytest.approx(evaluation.stats[0], abs=1e-6)
    assert figures.ap50 == pytest.approx(evaluation.stats[1], abs=1e-6)
    assert figures.recall == pytest.approx(evaluation.stats[8], abs=1e-6)


def test_pictures_without_any_object_cannot_be_measured():
    with pytest.raises(ValueError, match="nothing to measure"):
        script.score([detections()], [example()], CLASSES)


def test_results_name_files_and_classes():
    (entry,) = script.detections_json([detections((1, 2, 5, 10, SCRATCH, 0.5))], [example(name="part 7")], CLASSES)
    assert entry == {
        "file_name": "part 7.png",
        "category": "scratch",
        "image_id": 1,
        "category_id": 2,
        "bbox": [1, 2, 4, 8],
        "score": 0.5,
    }
