"""torchvision beside a CPU build of torch: the stand-in for its missing operator, and errors it leaves alone."""

import importlib.util

import numpy as np
import pytest
import torch

from stay_diffusion.system.torchvision_cpu import import_torchvision, non_maximum_suppression

# Not importorskip: that would import torchvision before its remedy.
needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="needs torchvision: pip install 'stay-diffusion[eval]'"
)


def brute_force_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    def iou(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def boxes_and_scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    corner, side = rng.uniform(0, 40, (60, 2)), rng.uniform(5, 40, (60, 2))
    return np.concatenate([corner, corner + side], axis=1), rng.permutation(60) / 60


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_non_maximum_suppression_keeps_what_brute_force_keeps(threshold):
    boxes, scores = boxes_and_scores()
    expected = brute_force_nms(boxes, scores, threshold)
    assert 1 < len(expected) < 60 or threshold == 0.9
    assert non_maximum_suppression(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).tolist() == expected


@needs_torchvision
def test_nms_of_the_imported_torchvision_works():
    boxes, scores = boxes_and_scores()
    found = import_torchvision().ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5)
    assert found.tolist() == brute_force_nms(boxes, scores, 0.5)


def test_another_error_of_torchvision_is_not_hidden(monkeypatch):
    def fail(name):
        raise RuntimeError("operator torchvision::nms is broken otherwise")

    monkeypatch.setattr("stay_diffusion.system.torchvision_cpu.importlib.import_module", fail)
    with pytest.raises(RuntimeError, match="broken otherwise"):
        import_torchvision()
