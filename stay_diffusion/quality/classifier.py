"""A small network that tells crops apart, trained in a minute on one core: probabilities and features."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .crops import RIM, SIDE, without_rim

WIDTH, FEATURES = 16, 128  # channels of the first layer; D
POOLED = 4  # side of the map that features are read from: what is in the middle is told from what is around it
STEPS, BATCH, RATE = 1000, 64, 4e-3
DROPOUT = 0.2
SCALES, SHIFT = 1.15, RIM / 2  # by how much training zooms at most, and moves by how many pixels
AT_A_TIME = 256


class CropClassifier(nn.Module):
    """Crops (N, C, S, S) uint8 to logits (N, K)."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        w = WIDTH
        plan = (
            (channels, w, 1),
            (w, 2 * w, 2),
            (2 * w, 2 * w, 1),
            (2 * w, 4 * w, 2),
            (4 * w, 4 * w, 1),
            (4 * w, 4 * w, 2),
        )
        self.trunk = nn.Sequential(*(_stage(*stage) for stage in plan))
        self.features = nn.Sequential(
            nn.AdaptiveAvgPool2d(POOLED),
            nn.Flatten(),
            nn.Linear(4 * w * POOLED**2, FEATURES),
            nn.LayerNorm(FEATURES),
            nn.SiLU(),
        )
        self.head = nn.Linear(FEATURES, num_classes)

    def embed(self, crops: Tensor) -> Tensor:
        """Features (N, D)."""
        return self.features(self.trunk(crops.float() / 127.5 - 1))

    def forward(self, crops: Tensor) -> Tensor:
        return self.head(F.dropout(self.embed(crops), DROPOUT, self.training))


def train_classifier(
    crops: Tensor,
    labels: Tensor,
    num_classes: int,
    seed: int,
    flip: bool = False,
    steps: int = STEPS,
    device: torch.device | str = "cpu",
) -> CropClassifier:
    """A classifier of crops with rims (N, C, P, P) uint8 and labels (N,) in 0..K-1, in eval mode.

    Every class is drawn as often as any other, each crop slightly moved and zoomed, mirrored half of the time if
    `flip`. The same arguments give the same weights on the same kind of device and number of threads.
    """
    assert len(crops) == len(labels) > 0
    rng, device = torch.Generator().manual_seed(seed), torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # of the first weights and of dropout
        model = CropClassifier(crops.shape[1], num_classes).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2))
        shares = 1 / torch.bincount(labels, minlength=num_classes).clamp(min=1)[labels].double()
        for _ in range(steps):
            drawn = torch.multinomial(shares, BATCH, replacement=True, generator=rng)
            moved = _moved(crops[drawn].to(device), flip, rng)
            loss = F.cross_entropy(model(moved), labels[drawn].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def probabilities(model: CropClassifier, crops: Tensor) -> Tensor:
    """(N, K) on the CPU of crops without rims (N, C, S, S) uint8."""
    return _in_parts(lambda part: model(part).softmax(1), model, crops)


@torch.no_grad()
def features(model: CropClassifier, crops: Tensor) -> Tensor:
    """(N, D) on the CPU of crops without rims (N, C, S, S) uint8."""
    return _in_parts(model.embed, model, crops)


def accuracy(model: CropClassifier, crops: Tensor, labels: Tensor) -> float:
    """The share of crops with rims (N, C, P, P) that are told rightly."""
    return (probabilities(model, without_rim(crops)).argmax(1) == labels).double().mean().item()


def _in_parts(function, model: CropClassifier, crops: Tensor) -> Tensor:
    device = next(model.parameters()).device
    return torch.cat([function(part.to(device)).cpu() for part in crops.split(AT_A_TIME)])


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, outputs), nn.SiLU())


def _moved(crops: Tensor, flip: bool, rng: torch.Generator) -> Tensor:
    """Crops (N, C, S, S) drawn from those with rims, each with its own place, size and side."""
    N, P = len(crops), crops.shape[-1]
    zoom = SIDE / P * SCALES ** (2 * torch.rand(N, generator=rng) - 1)
    shift = (2 * torch.rand(N, 2, generator=rng) - 1) * SHIFT * 2 / P
    side = torch.where(torch.rand(N, generator=rng) < 0.5, -1.0, 1.0) if flip else torch.ones(N)
    where = torch.zeros(N, 2, 3)
    where[:, 0, 0], where[:, 1, 1], where[:, :, 2] = zoom * side, zoom, shift
    grid = F.affine_grid(where.to(crops.device), [N, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(crops.float(), grid, padding_mode="border", align_corners=False)
