"""torchvision beside a CPU build of torch, where the ordinary wheel's compiled operators cannot be loaded.

The user's own fix is the matching pair of CPU wheels; docs/evaluation.md says how to get it.
"""

import importlib
import sys
from types import ModuleType

import torch
from torch import Tensor

# What torchvision's import says when its compiled library (linked to CUDA's) could not be loaded.
_MISSING_OPERATORS = "operator torchvision::nms does not exist"


def import_torchvision() -> ModuleType:
    """Imports torchvision, standing in for its missing operators on exactly the error that their absence causes.

    With the stand-in, models, transforms, `nms` and `roi_align` work; `torchvision.io` and deform_conv do not.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if str(error) != _MISSING_OPERATORS:
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    torch.library.custom_op("torchvision::nms", non_maximum_suppression, mutates_args=())
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torchvision = importlib.import_module("torchvision")
    torchvision.extension._has_ops = lambda: True
    return torchvision


def non_maximum_suppression(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The indices of the boxes kept, best score first: each drops the later ones whose IoU with it is over a threshold.

    dets (N, 4) as x0 y0 x1 y1, scores (N,); the result is long.
    """
    order = scores.argsort(descending=True, stable=True)
    x0, y0, x1, y1 = dets[order].unbind(1)
    areas = (x1 - x0) * (y1 - y0)
    alive = torch.ones(len(order), dtype=torch.bool, device=dets.device)
    for i in range(len(order)):
        if alive[i]:
            width = (torch.minimum(x1[i], x1[i + 1 :]) - torch.maximum(x0[i], x0[i + 1 :])).clamp(min=0)
            height = (torch.minimum(y1[i], y1[i + 1 :]) - torch.maximum(y0[i], y0[i + 1 :])).clamp(min=0)
            overlap = width * height
            alive[i + 1 :] &= ~(overlap / (areas[i] + areas[i + 1 :] - overlap) > iou_threshold)
    return order[alive]
