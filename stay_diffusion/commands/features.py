"""Train the features behind FD-own and KID-own on a data set: minutes on a CPU, no download.

python evaluations/train_features.py --data_dir DATA --image_channels 1 --out OUTPUT/features.pt

The pictures are cut as a model of --image_size sees them. The network learns which classes are there and the product,
as far as the data say, and whether the picture it is shown was blurred, made noisy or coarse: so its features keep what
generated pictures get wrong. The same command gives the same weights.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DataConfig, ModelConfig, RunConfig, option
from ..config.flags import dump, parse
from ..config.shared import Device

RARITY = 10.0  # weight of cells with an object: most have none


@dataclass(frozen=True)
class FeaturesConfig(Device):
    out: str = option("", "file to write, such as OUTPUT/features.pt")
    run: str = option("", "run folder whose data, cut, size and channels are taken; typed flags win")
    image_size: int = option(64, "side of the pictures that the network sees", least=16)
    image_channels: int = option(3, "1 for greyscale pictures", (1, 3))
    steps: int = option(1000, "training steps", least=1)
    batch_size: int = option(32, "pictures a step", least=1)
    lr: float = option(4e-3, "highest learning rate of AdamW, one cycle up and down", least=0)
    seed: int = option(0, "of weights, data order and degradations", least=0, most=2**63 - 1)


@dataclass(frozen=True)
class FeaturesRun:
    """What train_features.py takes."""

    features: FeaturesConfig = FeaturesConfig()
    data: DataConfig = RunConfig.data


def main() -> int:
    run, given, switches = parse(FeaturesRun, __doc__.partition("\n")[0])
    run = settled(run, given)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    options = run.features
    if not options.out:
        raise ValueError("--out: needed, the file to write the features to")

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..evaluation.features.own_features import Network, Recipe, save
    from ..run import factory
    from ..run.checkpoint import sha256
    from ..system.device import pick_device

    device = pick_device(options.device)
    records, vocabulary = factory.read_split(run.data, "train", select=True)
    held_out, _ = factory.read_split(factory.with_names(run.data, vocabulary), "val")
    training, validation = (dataset(part, vocabulary, run, augment) for part, augment in ((records, 1), (held_out, 0)))
    print(f"{len(training)} pictures to learn from, {len(validation)} held out, of {options.image_size} pixels")
    print(f"classes: {', '.join(vocabulary.classes) or 'none'}; products: {', '.join(vocabulary.products) or 'none'}")
    if switches["dry_run"]:
        return 0

    torch.manual_seed(options.seed)
    network = Network(options.image_channels, len(vocabulary.classes), len(vocabulary.products)).to(device)
    train(network, training, options, device, run.data.num_workers)
    network.eval()
    found = examine(network, validation, options, device)
    recipe = Recipe(
        options.image_size,
        options.image_channels,
        vocabulary.classes,
        vocabulary.products,
        run.data.crop_policy,
        options.steps,
        options.seed,
        len(training),
        found,
    )
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    save(out, network, recipe)
    print(f"on the pictures held out: {json.dumps(found)}")
    print(f"written: {out.resolve()} (sha256 {sha256(out)[:12]})")
    return 0


def settled(run: FeaturesRun, given: dict) -> FeaturesRun:
    """The options with those of a run folder below what was typed."""
    if not run.features.run:
        return run
    from ..config import flags
    from ..run import factory

    file = Path(run.features.run) / "config.json"
    if not file.is_file():
        raise ValueError(f"--run {run.features.run}: no config.json in it")
    trained = flags.load(file)
    typed = factory.over_saved(given, trained.data)
    data = replace(trained.data, **{name: value for name, value in typed.items() if hasattr(trained.data, name)})
    shape = {name: given.get(name, getattr(trained.model, name)) for name in ("image_size", "image_channels")}
    return FeaturesRun(replace(run.features, **shape), data)


def dataset(records: list, vocabulary, run: FeaturesRun, augment: bool):
    """Records cut as in training a model; `augment` mirrors them where --random_flip allows it."""
    from ..data.samples import LayoutDataset

    data = replace(run.data, max_objects=0)
    if not augment:
        data = replace(data, background_rate=0.0, random_flip=False)
    model = ModelConfig(image_size=run.features.image_size, image_channels=run.features.image_channels)
    return LayoutDataset(records, vocabulary, data, model, run.features.seed)


def train(network, data, options: FeaturesConfig, device, num_workers: int) -> None:
    import torch
    from tqdm import trange

    from ..data.loader import batches
    from ..evaluation.features.degradations import degraded, shifted

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


def in_levels(images):
    """[-1, 1] as 0..255."""
    return (images + 1) * 127.5


def loss_of(answers, layout, how):
    """Cross entropies of what is where and what is there, of the product where it is known, and of the degradation."""
    from torch.nn import functional as F

    loss = F.cross_entropy(answers.degradation, how)
    if answers.presence.shape[1]:
        places = covered(layout, *answers.places.shape[1:])
        weight = places.new_tensor(RARITY)
        loss = loss + F.binary_cross_entropy_with_logits(answers.places, places, pos_weight=weight)
        loss = loss + F.binary_cross_entropy_with_logits(answers.presence, places.amax(dim=(2, 3)))
    if answers.product.shape[1] > 1 and (layout.product > 0).any():
        loss = loss + F.cross_entropy(answers.product, layout.product - 1, ignore_index=-1)
    return loss


def covered(layout, num_classes: int, height: int, width: int):
    """Which cells of a grid each class's boxes cover (B, K, h, w), float; a box has one cell at least."""
    import torch

    from ..models.object_masks import at_least_one_pixel, box_indicator

    size = (height, width)
    objects = box_indicator(at_least_one_pixel(layout.boxes, size), size) * layout.valid[:, :, None, None]  # B O h w
    labels = torch.nn.functional.one_hot(layout.labels, num_classes + 1)[..., 1:].to(objects.dtype)  # B O K
    return torch.einsum("bohw,bok->bkhw", objects, labels).clamp(max=1)


def examine(network, data, options: FeaturesConfig, device) -> dict[str, float]:
    """The share of right answers on held-out pictures: of classes that are there and that are not, and so on."""
    import torch

    from ..data.loader import in_order
    from ..evaluation.features.degradations import degraded

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
