"""Features that need no download: a small network that learnt what the pictures of one data set show (FD-own, KID-own).

Made by train_features.py. Its numbers compare models of that data set, by the same file; they are no FID.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from degradations import DEGRADATIONS
from features import Extractor
from torch import Tensor, nn

from stay_diffusion.checkpoint import load_tensors, load_weights, save_tensors, sha256

FORMAT = "stay_diffusion own features 1"
WIDTHS = (32, 48, 64, 64)  # each stage halves the picture


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


class Network(nn.Module):
    """Convolutions with GroupNorm down to a mean over the picture, and an answer for each thing known of it."""

    def __init__(self, channels: int, num_classes: int, num_products: int):
        super().__init__()
        stages, width = [], channels
        for wider in WIDTHS:
            stages += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.GroupNorm(8, wider), nn.SiLU()]
            stages += [nn.Conv2d(wider, wider, 3, padding=1), nn.GroupNorm(8, wider), nn.SiLU()]
            width = wider
        self.body = nn.Sequential(*stages)
        self.presence = nn.Linear(width, num_classes)
        self.product = nn.Linear(width, num_products)
        self.degradation = nn.Linear(width, len(DEGRADATIONS))

    def features(self, images: Tensor) -> Tensor:
        """(B, 64) of (B, C, S, S) in [-1, 1]."""
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of which classes are there (B, K), of the product (B, P), of how the picture was degraded (B, 4)."""
        found = self.features(images)
        return self.presence(found), self.product(found), self.degradation(found)


def save(path: Path, network: Network, recipe: Recipe) -> None:
    save_tensors(path, {"format": FORMAT, "recipe": json.dumps(asdict(recipe)), "weights": network.state_dict()})


def load(path: Path) -> tuple[Network, Recipe]:
    """ValueError where the file is not what train_features.py writes."""
    stored = load_tensors(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ValueError(f"--features trained:{path}: not a file that train_features.py has written")
    values = json.loads(stored["recipe"])
    recipe = Recipe(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    network = Network(recipe.image_channels, len(recipe.classes), len(recipe.products))
    load_weights(network, path, stored["weights"])
    return network.eval().requires_grad_(False), recipe


def extractor(path: Path, device: torch.device) -> Extractor:
    """The file's features of uint8 (B, C, S, S), named FD-own and so on."""
    network, recipe = load(path)
    network.to(device)
    return Extractor(
        measure=lambda images, kinds: {"pool": network.features(images.float() / 127.5 - 1)},
        kinds=("pool",),
        width=WIDTHS[-1],
        facts={
            "features": f"trained ({WIDTHS[-1]}), {recipe.pictures} pictures, {recipe.steps} steps, seed {recipe.seed}",
            "weights": str(path.resolve()),
            "weights_sha256": sha256(path),
            "resize": f"bicubic to {recipe.image_size}",
        },
        channels=recipe.image_channels,
        image_size=recipe.image_size,
        suffix="own",
    )
