"""Features that need no download: a small network that learnt what the pictures of one data set show (FD-own, KID-own).

Made by train_features.py. Its numbers compare models of that data set, by the same file; they are no FID.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...quality import gate_file
from ...quality.classifier import FEATURES, POOLED, CropClassifier
from ...quality.crops import SIDE
from ...run.checkpoint import load_tensors, load_weights, save_tensors, sha256
from .degradations import DEGRADATIONS
from .extractor import Extractor

FORMAT = "stay_diffusion own features 1"


@dataclass(frozen=True)
class Recipe:
    """What the network is and how it was trained; all but the first four is told to whoever reads its figures."""

    image_size: int
    image_channels: int
    classes: tuple[str, ...]
    products: tuple[str, ...]
    crop_policy: str
    steps: int
    seed: int
    pictures: int
    held_out: dict[str, float]  # what share of the validation pictures' questions it answers rightly


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
        self.places = nn.Conv2d(self.body.features[2].in_features // POOLED**2, num_classes, 1)

    def features(self, images: Tensor) -> Tensor:
        """(B, 128) of (B, C, S, S) in 0..255."""
        return self.body.embed(images)

    def forward(self, images: Tensor) -> Answers:
        trunk = self.body.trunk(images / 127.5 - 1)
        return Answers(self.places(trunk), *self.body.head(self.body.features(trunk)).split(self.parts, dim=1))


def save(path: Path, network: Network, recipe: Recipe) -> None:
    save_tensors(path, {"format": FORMAT, "recipe": json.dumps(asdict(recipe)), "weights": network.state_dict()})


def load(path: Path) -> tuple[Network, Recipe]:
    """ValueError where the file is not what train_features.py writes."""
    stored = load_tensors(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ValueError(f"--features trained:{path}: neither train_features.py's nor a quality_gate.pt")
    values = json.loads(stored["recipe"])
    recipe = Recipe(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    network = Network(recipe.image_channels, len(recipe.classes), len(recipe.products))
    load_weights(network, path, stored["weights"])
    return network.eval().requires_grad_(False), recipe


def extractor(path: Path, device: torch.device | str) -> Extractor:
    """The features of a file of train_features.py, or those of objects of a run's quality_gate.pt; all called own."""
    stored = load_tensors(path)
    if isinstance(stored, dict) and "about" in stored:
        return of_gate(path, device)
    network, recipe = load(path)
    network.to(device)
    return Extractor(
        measure=lambda images, kinds: {"pool": network.features(images)},
        kinds=("pool",),
        width=FEATURES,
        facts={
            "features": f"trained ({FEATURES}), {recipe.pictures} pictures, {recipe.steps} steps, seed {recipe.seed}",
            "weights": str(path.resolve()),
            "weights_sha256": sha256(path),
            "resize": f"bicubic to {recipe.image_size}",
        },
        channels=recipe.image_channels,
        image_size=recipe.image_size,
        suffix="own",
    )


def of_gate(path: Path, device: torch.device | str) -> Extractor:
    """Features of objects with what is around them, (B, C, 32, 32) uint8, by the classifier that judges samples."""
    gate, _ = gate_file.load(path, device)
    return Extractor(
        measure=lambda images, kinds: {"objects": gate.model.embed(images)},
        kinds=("objects",),
        width=FEATURES,
        facts={
            "features": f"quality gate ({FEATURES}), {len(gate.labels)} training objects",
            "weights": str(path.resolve()),
            "weights_sha256": sha256(path),
            "resize": f"as the gate cuts objects out, {SIDE}",
        },
        channels=gate.channels,
        image_size=SIDE,
        suffix="own",
    )
