"""The quality gate of a run: kept in its folder, and trained where there is none that fits its data."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import torch

from ..config import RunConfig
from ..data.samples import LayoutDataset
from ..run import factory
from ..run.checkpoint import save_tensors
from ..system import storage
from . import gate_file
from .classifier import STEPS
from .gate import QualityGate
from .training import train_gate

logger = logging.getLogger("stay_diffusion.quality")

NAME = "quality_gate.pt"
METHOD = 2  # raised whenever the same data would give another gate


def gate_of_run(
    config: RunConfig, run_folder: Path, device: torch.device | str = "cpu", steps: int = STEPS
) -> QualityGate:
    """The gate in a run's folder, if it was made of the data that `config` names; else one trained now, and kept there.

    Where the data are not there any more, a gate of the same classes will do. Of several processes one should call
    this before the others do. Raises ValueError for a file that is no gate, and where there is neither gate nor data.
    """
    path = run_folder / NAME
    gate, made_of = gate_file.load(path, device) if path.exists() else (None, {})
    if gate and gate.classes != tuple(config.data.classes) and not has_data(config):
        known, own = (", ".join(names) or "none" for names in (gate.classes, config.data.classes))
        raise ValueError(f"{path}: knows the classes {known}, the run {own}, and its data are not there to learn from")
    if not has_data(config):
        if gate is None:
            where = config.data.data_dir or "no --data_dir"
            raise ValueError(f"{path}: not there, and neither are the data to train it on ({where})")
        logger.warning("%s: used as it is, its data are not there: %s", path, config.data.data_dir or "no --data_dir")
        return gate
    dataset = training_split(config)
    fits = made_for(dataset, config)
    if gate and made_of == fits:
        return gate
    if gate:
        changed = ", ".join(name for name in fits if made_of.get(name) != fits[name])
        logger.info("%s: made for other %s; trained anew", path, changed)
    gate = train_gate(dataset, config.train.seed, config.data.random_flip, device, steps)
    content = gate_file.content_of(gate, fits)
    try:
        save_tensors(path, content)
    except OSError as error:
        logger.warning("%s: cannot be kept: %s", path, error.strerror or error)
    return gate_file.named(gate, fits, content["digest"])


def has_data(config: RunConfig) -> bool:
    data_dir = config.data.data_dir
    return bool(data_dir) and (storage.is_remote(data_dir) or Path(data_dir).exists())


def training_split(config: RunConfig) -> LayoutDataset:
    """The pictures that a run learns from, as its network sees them, without augmentation."""
    records, _ = factory.read_split(config.data, "train")
    if config.data.on_bad_data == "skip":
        records = factory.with_readable_pictures(records, config.data)
    data = replace(config.data, max_objects=0)
    return factory.build_dataset(records, replace(config, data=data), augment=False)


def made_for(dataset: LayoutDataset, config: RunConfig) -> dict:
    """All that a gate depends on; of the pictures their names, sizes in bytes and boxes."""
    digest = hashlib.sha256()
    for record in dataset.records:
        files = [record.path, *([record.maps.labels, record.maps.instances] if record.maps else [])]
        boxes = [(box.label, *box.edges) for box in record.boxes]
        sizes = [(str(file), file.stat().st_size if file.exists() else None) for file in files if file]
        digest.update(json.dumps([sizes, boxes]).encode(errors="surrogateescape"))
    windows = dataset.data.crop_policy != "resize"
    return {
        "method": METHOD,
        "classes": list(dataset.vocabulary.classes),
        "channels": dataset.image_channels,
        "crops": [dataset.data.crop_policy, dataset.image_size, dataset.data.min_visible if windows else None],
        "flips": config.data.random_flip,
        "value range": dataset.value_range and list(dataset.value_range),
        "seed": config.train.seed,
        "data": digest.hexdigest(),
    }
