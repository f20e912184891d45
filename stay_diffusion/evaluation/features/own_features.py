"""Features that need no download: a small network that learnt the classes of one data set (FD-own, KID-own).

Made by train_features.py. Its numbers compare models of that data set, by the same file; they are no FID.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...quality import classifier, run_gate
from ...quality.classifier import FEATURES, CropClassifier
from ...quality.crops import SIDE
from ...run.checkpoint import load_tensors, load_weights, save_tensors, sha256
from .degradations import DEGRADATIONS
from .extractor import Extractor

FORMAT = "stay_diffusion own features 1"


@dataclass(frozen=True)
class Recipe:
    """The network's shape and training; all but the first four are facts of its figures."""

    image_size: int
    image_channels: int
    classes: tuple[str, ...]
    products: tuple[str, ...]
    crop_policy: str
    steps: int
    seed: int
    pictures: int
    held_out: dict[str, float]  # share of right answers on validation images, by question


class Answers(NamedTuple):
    """Logits: which classes are where (B, K, h, w) and at all (B, K), the product (B, P), the degradation (B, 4)."""

    places: Tensor
    presence: Tensor
    product: Tensor
    degradation: Tensor


class Network(nn.Module):
    """The quality gate's network over whole pictures, with an answer for each thing that is known of them."""

    def __init__(self, channels: int, num_classes: int, num_products: int):
        super().__init__()
        self.parts = (num_classes, num_products, len(DEGRADATIONS))
        self.body = CropClassifier(channels, sum(self.parts))
        self.places = nn.Conv2d(4 * classifier.WIDTH, num_classes, 1)

    def features(self, images: Tensor) -> Tensor:
        """Return (B, 128) of (B, C, S, S) in 0..255."""
        return self.body.embed(images)

    def forward(self, images: Tensor) -> Answers:
        trunk = self.body.trunk(images / 127.5 - 1)
        return Answers(self.places(trunk), *self.body.head(self.body.features(trunk)).split(self.parts, dim=1))


def save(path: Path, network: Network, recipe: Recipe) -> None:
    save_tensors(path, {"format": FORMAT, "recipe": json.dumps(asdict(recipe)), "weights": network.state_dict()})


def load(path: Path) -> tuple[Network, Recipe]:
    """Load a file of train_features.py; ValueError for any other."""
    stored = load_tensors(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ValueError(f"--features trained:{path}: neither train_features.py's nor a quality_gate.pt")
    values = json.loads(stored["recipe"])
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    recipe = Recipe(**(values | lists))
    network = Network(recipe.image_channels, len(recipe.classes), len(recipe.products))
    load_weights(network, path, stored["weights"])
    return network.eval().requires_grad_(False), recipe


def extractor(path: Path, device: torch.device | str) -> Extractor:
    """Build the extractor of a file of train_features.py, or of objects by a run's quality_gate.pt; suffix own.

    The gate's takes objects with their surroundings, (B, C, 32, 32) uint8.
    """
    stored = load_tensors(path)
    if isinstance(stored, dict) and "about" in stored:
        gate, _ = run_gate.load(path, device)
        model, kind, channels, size = gate.model, "objects", gate.channels, SIDE
        origin, resize = (
            f"quality gate ({FEATURES}), {len(gate.labels)} training objects",
            "as the gate cuts objects out,",
        )
    else:
        network, recipe = load(path)
        model, kind, channels, size = network.to(device).body, "pool", recipe.image_channels, recipe.image_size
        learnt = f"{recipe.pictures} pictures, {recipe.steps} steps, seed {recipe.seed}"
        origin, resize = f"trained ({FEATURES}), {learnt}", "bicubic to"
    return Extractor(
        measure=lambda images, kinds: {kind: model.embed(images)},
        kinds=(kind,),
        width=FEATURES,
        facts={
            "features": origin,
            "weights": str(path.resolve()),
            "weights_sha256": sha256(path),
            "resize": f"{resize} {size}",
        },
        channels=channels,
        image_size=size,
        suffix="own",
    )
