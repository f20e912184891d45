"""The quality gate that judges a set of samples: the one named, that of their run, or one trained now."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..config import RunConfig
from ..data.manifest import find_manifests, read_manifest
from ..quality.gate import QualityGate
from ..quality.run_gate import gate_of_run, load, training_split
from ..quality.training import train_gate
from ..run import factory
from ..run.checkpoint import config_beside
from .comparison import Comparison
from .image_set import ImageSet


def check_gate(comparison: Comparison) -> None:
    """Raise ValueError where there is no gate and nothing to train one on; a gate that is named is read."""
    if comparison.options.gate:
        load(find_file(comparison), "cpu")
    elif not (run_of(comparison.samples) or "data_dir" in comparison.given):
        raise ValueError(
            "needs a classifier of real objects: --gate FILE (a run's quality_gate.pt), samples of a run that is still "
            "there, or --data_dir, whose training split one is trained on"
        )


def choose_gate(comparison: Comparison) -> tuple[QualityGate, str]:
    """Return the gate and its origin; trained, which takes a minute, where there is none yet."""
    device = comparison.device
    if comparison.options.gate:
        return load(find_file(comparison), device)[0], str(find_file(comparison).resolve())
    run = run_of(comparison.samples)
    if run:
        config, weights = run
        typed = factory.over_saved(comparison.given, config.data)
        data = replace(config.data, **{name: value for name, value in typed.items() if hasattr(config.data, name)})
        return gate_of_run(replace(config, data=data), weights.parent, device), f"of the run {weights.parent}"
    config = config_for(comparison)
    gate = train_gate(training_split(config), config.train.seed, config.data.random_flip, device)
    return gate, f"trained on {Path(config.data.data_dir).resolve()}"


def find_file(comparison: Comparison) -> Path:
    path = Path(comparison.options.gate)
    if not path.is_file():
        raise ValueError(f"--gate {path}: no such file")
    return path


def run_of(samples: ImageSet) -> tuple[RunConfig, Path] | None:
    """Return the configuration and weights of the model that made the samples, if it is still there."""
    for manifest in find_manifests(Path(samples.path)):
        for entry in read_manifest(manifest)[:1]:
            if entry.weights and (config := config_beside(entry.weights)):
                return config, entry.weights
    return None


def config_for(comparison: Comparison) -> RunConfig:
    """Return a run on --data_dir, with images of the size that most of the samples have."""
    (size, _), *_ = Counter(min(look.width, look.height) for look in comparison.samples.looks).most_common(1)
    channels = 1 if all(look.grey for look in comparison.samples.looks) else 3
    config = RunConfig(data=comparison.data)
    config = replace(config, model=replace(config.model, image_size=size, image_channels=channels))
    return factory.with_vocabulary(config, factory.read_split(config.data, "train")[1])
