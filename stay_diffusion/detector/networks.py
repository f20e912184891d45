"""Detectors: torchvision's, by name; built, saved, loaded and run on images."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from ..data.images import to_tensor
from ..run.checkpoint import load_tensors, load_weights, save_tensors
from ..system.torchvision_cpu import import_torchvision
from .options import TORCHVISION_DETECTORS

STRIDES = (8, 16, 32)  # of the small detector's feature maps
WIDTHS, BLOCKS = (32, 64, 96, 128), (1, 2, 1, 1)  # its channels and residual blocks at strides 4, 8, 16 and 32
FEATURES, HEAD_CONVS, GROUPS = 64, 2, 8
LEAST_SCORE, MOST_DETECTIONS, MOST_CANDIDATES = 0.02, 100, 300
MOST_OVERLAP = 0.5  # of two detections of one class


class Detections(NamedTuple):
    """What was found in one picture: boxes (n, 4) as x0 y0 x1 y1 in pixels, scores (n,), labels (n,) from 1 on."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def small_fcos(num_classes: int) -> nn.Module:
    """FCOS (arXiv 1904.01355) over five residual blocks with GroupNorm, for pictures in their own size.

    0.9 million parameters, made to be trained from nothing in a minute or two on one core.
    """
    import_torchvision()
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOS, FCOSHead

    model = FCOS(
        SmallBackbone(),
        num_classes + 1,
        anchor_generator=AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)),
        head=FCOSHead(FEATURES, 1, num_classes + 1, HEAD_CONVS),
        score_thresh=LEAST_SCORE,
        nms_thresh=MOST_OVERLAP,
        detections_per_img=MOST_DETECTIONS,
        topk_candidates=MOST_CANDIDATES,
    )
    for module in model.head.modules():
        if isinstance(module, nn.Conv2d) and module.out_channels == FEATURES:
            nn.init.kaiming_normal_(module.weight)  # torchvision's 0.01 is for trained backbones
    model.transform = _unresized()
    return model


class SmallBackbone(nn.Module):
    """Residual blocks from stride 4 on: (B, 3, H, W) -> feature maps of FEATURES channels at each of STRIDES."""

    out_channels = FEATURES

    def __init__(self):
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.stem = nn.Sequential(_convolution(3, WIDTHS[0], 7, 4), nn.GroupNorm(GROUPS, WIDTHS[0]), nn.ReLU())
        self.first = _stage(WIDTHS[0], WIDTHS[0], BLOCKS[0], stride=1)
        self.stages = nn.ModuleList(
            _stage(before, width, blocks, stride=2)
            for (before, width), blocks in zip(pairwise(WIDTHS), BLOCKS[1:], strict=True)
        )
        self.pyramid = FeaturePyramidNetwork(list(WIDTHS[1:]), FEATURES)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        x, levels = self.first(self.stem(x)), OrderedDict()
        for stride, stage in zip(STRIDES, self.stages, strict=True):
            x = stage(x)
            levels[str(stride)] = x
        return self.pyramid(levels)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; the identity, or its nearest likeness, at the start."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        last = nn.GroupNorm(GROUPS, outputs)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(
            _convolution(inputs, outputs, 3, stride),
            nn.GroupNorm(GROUPS, outputs),
            nn.ReLU(),
            _convolution(outputs, outputs, 3, 1),
            last,
        )
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(nn.AvgPool2d(stride), _convolution(inputs, outputs, 1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.shortcut(x))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Module:
    return nn.Sequential(
        ResidualBlock(inputs, outputs, stride), *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    )


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return convolution


def _unresized() -> nn.Module:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    class Unresized(GeneralizedRCNNTransform):
        def resize(self, image, target=None):
            return image, target

    return Unresized(0, 0, image_mean=[0.5] * 3, image_std=[0.25] * 3, size_divisible=STRIDES[-1])


def _of_torchvision(name: str) -> Callable[[int], nn.Module]:
    def build(num_classes: int) -> nn.Module:
        import_torchvision()
        from torchvision.models import detection

        return getattr(detection, name)(weights=None, weights_backbone=None, num_classes=num_classes + 1)

    return build


DETECTORS: dict[str, Callable[[int], nn.Module]] = {
    "small_fcos": small_fcos,
    **{name: _of_torchvision(name) for name in TORCHVISION_DETECTORS},
}


@dataclass(frozen=True)
class Detector:
    """A network with the names of its labels 1, 2 ... and by how much pictures are enlarged for it.

    `products` are the tags that its data have besides, for what the whole picture shows.
    """

    name: str
    classes: tuple[str, ...]
    products: tuple[str, ...]
    scale: float
    network: nn.Module


def build(name: str, classes: Sequence[str], weights: Path | None = None) -> nn.Module:
    """The named network, freshly initialised, or started from a file: a state dict as torchvision has it, or ours.

    Layers whose shape depends on the number of classes are taken only from files of ours with the same `classes`.
    """
    network = DETECTORS[name](len(classes))
    if weights is None:
        return network
    own, state, stated = network.state_dict(), load_tensors(weights), {}
    if isinstance(state.get("model"), dict):
        state, stated = state["model"], state
    if stated.get("detector", name) != name:
        raise ValueError(f"{weights}: holds a {stated['detector']}, not a {name}")
    kept = {layer for layer in own if layer.endswith("num_batches_tracked")} - state.keys()  # frozen norms have none
    if tuple(stated.get("classes", ())) != tuple(classes):
        kept |= class_layers(name)
    load_weights(network, weights, {**state, **{layer: own[layer] for layer in kept}})
    return network


def class_layers(name: str) -> set[str]:
    """The parameters whose shapes depend on the number of classes."""
    with torch.device("meta"):
        one, two = (DETECTORS[name](num_classes).state_dict() for num_classes in (1, 2))
    return {layer for layer in one if one[layer].shape != two[layer].shape}


def save(path: Path, detector: Detector) -> None:
    """A dict of names, numbers and tensors, which needs no code to be read."""
    names = {"detector": detector.name, "classes": list(detector.classes), "products": list(detector.products)}
    save_tensors(path, {**names, "scale": detector.scale, "model": detector.network.state_dict()})


def load(path: Path, device: torch.device | str = "cpu") -> Detector:
    """What `save` has written, ready to detect; ValueError for other files."""
    content = load_tensors(path)
    if (
        not {"detector", "classes", "products", "scale", "model"} <= content.keys()
        or content["detector"] not in DETECTORS
    ):
        raise ValueError(f"{path}: not a detector that train_detector.py has written")
    network = DETECTORS[content["detector"]](len(content["classes"]))
    load_weights(network, path, content["model"])
    classes, products = tuple(content["classes"]), tuple(content["products"])
    return Detector(content["detector"], classes, products, content["scale"], network.to(device).eval())


def detect(detector: Detector, pictures: Iterable[Image.Image]) -> Iterator[Detections]:
    """What is found in each picture, already enlarged by the detector's scale; boxes in pixels of the original."""
    device = next(detector.network.parameters()).device
    detector.network.eval()
    for picture in pictures:
        with torch.inference_mode():  # not around the yield: whoever takes the result is none of its business
            found = detector.network([as_input(picture).to(device)])[0]
        yield Detections(found["boxes"].cpu() / detector.scale, found["scores"].cpu(), found["labels"].cpu())


def as_input(picture: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1], as torchvision's detectors take it; greys are repeated."""
    return (to_tensor(picture, 3) + 1) / 2
