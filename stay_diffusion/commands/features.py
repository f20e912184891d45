"""Train the features behind FD-own and KID-own on a data set: minutes on a CPU, no download.

python evaluations/train_features.py --data_dir DATA --image_channels 1 --out OUTPUT/features.pt

The pictures are cut as a model of --image_size sees them. The network learns which classes are there and the product,
as far as the data say, and whether the picture it is shown was blurred, made noisy or coarse: so its features keep what
generated pictures get wrong. The same command gives the same weights.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DataConfig, ModelConfig, RunConfig
from ..config.flags import dump, parse
from ..evaluation.options import FeaturesConfig


@dataclass(frozen=True)
class FeaturesRun:
    """The sections of train_features.py."""

    features: FeaturesConfig = FeaturesConfig()
    data: DataConfig = RunConfig.data


def main() -> int:
    run, given, switches = parse(FeaturesRun, __doc__.partition("\n")[0])
    run = resolve_options(run, given)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    options = run.features
    if not options.out:
        raise ValueError("--out: needed, the file to write the features to")

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..evaluation.features.own_features import Network, Recipe, save
    from ..evaluation.features.training import examine, train
    from ..run import factory
    from ..run.checkpoint import sha256
    from ..system.device import pick_device

    device = pick_device(options.device)
    records, vocabulary = factory.read_split(run.data, "train", select=True)
    held_out, _ = factory.read_split(factory.with_names(run.data, vocabulary), "val")
    training = build_dataset(records, vocabulary, run, augment=True)
    validation = build_dataset(held_out, vocabulary, run, augment=False)
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


def resolve_options(run: FeaturesRun, given: dict) -> FeaturesRun:
    """Take the options of a run folder where none were typed."""
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


def build_dataset(records: list, vocabulary, run: FeaturesRun, augment: bool):
    """Cut records as in training a model; `augment` mirrors them where --random_flip allows it."""
    from ..data.samples import LayoutDataset

    data = replace(run.data, max_objects=0)
    if not augment:
        data = replace(data, background_rate=0.0, random_flip=False)
    model = ModelConfig(image_size=run.features.image_size, image_channels=run.features.image_channels)
    return LayoutDataset(records, vocabulary, data, model, run.features.seed)
