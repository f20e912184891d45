"""Training of the features of one's own data, and what they know of held-out images."""

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from ...data.layout import Layout
from ...data.loader import batches, in_order
from ...data.samples import LayoutDataset
from ...models.object_masks import at_least_one_pixel, box_indicator
from ..options import FeaturesConfig
from .degradations import degraded, shifted
from .own_features import Answers, Network

RARITY = 10.0  # weight of cells with an object: most have none


def train(
    network: Network, data: LayoutDataset, options: FeaturesConfig, device: torch.device, num_workers: int
) -> None:
    """Train the network in place."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=max(options.steps, 2))
    size = min(options.batch_size, len(data))
    stream = batches(data, size, options.seed, start=0, num_workers=num_workers)
    for step in trange(options.steps, desc="features", disable=None):
        images, layout = next(stream)
        shown, how = degraded(shifted(images, options.seed, step), options.seed, step)
        loss = loss_of(network(in_levels(shown).to(device)), layout.to(device), how.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def in_levels(images: Tensor) -> Tensor:
    """Map [-1, 1] to 0..255."""
    return (images + 1) * 127.5


def loss_of(answers: Answers, layout: Layout, how: Tensor) -> Tensor:
    """Sum the cross entropies of places and presence of classes, of the product if known, and of the degradation."""
    loss = F.cross_entropy(answers.degradation, how)
    if answers.presence.shape[1]:
        places = covered(layout, *answers.places.shape[1:])
        weight = places.new_tensor(RARITY)
        loss = loss + F.binary_cross_entropy_with_logits(answers.places, places, pos_weight=weight)
        loss = loss + F.binary_cross_entropy_with_logits(answers.presence, places.amax(dim=(2, 3)))
    if answers.product.shape[1] > 1 and (layout.product > 0).any():
        loss = loss + F.cross_entropy(answers.product, layout.product - 1, ignore_index=-1)
    return loss


def covered(layout: Layout, num_classes: int, height: int, width: int) -> Tensor:
    """Find the cells of a grid that each class's boxes cover (B, K, h, w), float; a box has one cell at least."""
    size = (height, width)
    objects = box_indicator(at_least_one_pixel(layout.boxes, size), size) * layout.valid[:, :, None, None]  # B O h w
    labels = F.one_hot(layout.labels, num_classes + 1)[..., 1:].to(objects.dtype)  # B O K
    return torch.einsum("bohw,bok->bkhw", objects, labels).clamp(max=1)


def examine(network: Network, data: LayoutDataset, options: FeaturesConfig, device: torch.device) -> dict[str, float]:
    """Return the share of right answers on held-out images: of classes that are there and that are not, and so on."""
    right: dict[str, list[float]] = {name: [] for name in ("present", "absent", "product", "degradation")}
    with torch.inference_mode():
        for number, (images, layout) in enumerate(in_order(data, options.batch_size)):
            answers = network(in_levels(images).to(device))
            presence, product = answers.presence.cpu(), answers.product.cpu()
            truth = covered(layout, *answers.places.shape[1:]).amax(dim=(2, 3)) > 0
            right["present"] += (presence > 0)[truth].tolist()
            right["absent"] += (presence <= 0)[~truth].tolist()
            if product.shape[1] > 1:
                known = layout.product > 0
                right["product"] += (product.argmax(dim=1) + 1 == layout.product)[known].tolist()
            shown, how = degraded(images, options.seed + 1, number)
            right["degradation"] += (
                network(in_levels(shown).to(device)).degradation.cpu().argmax(dim=1) == how
            ).tolist()
    return {name: round(sum(answers) / len(answers), 4) for name, answers in right.items() if answers}
