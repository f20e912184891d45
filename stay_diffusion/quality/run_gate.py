"""The quality gate of a run: quality_gate.pt in its folder, trained where there is none that fits its data.

The file holds tensors and a JSON text, whose digest says that it is whole.
"""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import torch

from ..config import RunConfig
from ..data.samples import LayoutDataset
from ..run import factory
from ..run.checkpoint import load_tensors, save_tensors
from ..system import storage
from .classifier import STEPS, CropClassifier
from .crops import SIDE
from .gate import QualityGate
from .neighbours import References
from .training import train_gate

logger = logging.getLogger("stay_diffusion.quality")

NAME = "quality_gate.pt"
METHOD = 2  # raised whenever the same data would give another gate
VERSION = 1  # of the file
ADVICE = "delete it, and the next use trains another"
COLUMNS = ("crops", "features", "labels", "boxes", "file_of")  # of the training objects


def gate_of_run(
    config: RunConfig, run_folder: Path, device: torch.device | str = "cpu", steps: int = STEPS
) -> QualityGate:
    """Return the gate in a run's folder, if it was made of the data that `config` names; else one trained now and kept.

    Where the data are not there any more, a gate of the same classes will do. Of several processes one should call
    this before the others do. Raises ValueError for a file that is no gate, and where there is neither gate nor data.
    """
    path = run_folder / NAME
    gate, made_of = load(path, device) if path.exists() else (None, {})
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
    content = content_of(gate, fits)
    try:
        save_tensors(path, content)
    except OSError as error:
        logger.warning("%s: cannot be kept: %s", path, error.strerror or error)
    return add_origin(gate, fits, content["digest"])


def has_data(config: RunConfig) -> bool:
    data_dir = config.data.data_dir
    return bool(data_dir) and (storage.is_remote(data_dir) or Path(data_dir).exists())


def training_split(config: RunConfig) -> LayoutDataset:
    """Return the images that a run learns from, as its network sees them, without augmentation."""
    records, _ = factory.read_split(config.data, "train")
    if config.data.on_bad_data == "skip":
        records = factory.with_readable_pictures(records, config.data)
    data = replace(config.data, max_objects=0)
    return factory.build_dataset(records, replace(config, data=data), augment=False)


def made_for(dataset: LayoutDataset, config: RunConfig) -> dict:
    """Return all that a gate depends on; of the images their names, sizes in bytes and boxes."""
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


# The file


def content_of(gate: QualityGate, fits: dict) -> dict:
    """Return the content of the file of a gate just trained; `fits` holds what it was made of."""
    about = {
        "version": VERSION,
        "fits": fits,
        "classes": list(gate.classes),
        "channels": gate.channels,
        "flip": gate.flip,
        "value_range": gate.value_range,
        "files": list(gate.files),
        "protocol": gate.protocol,
    }
    content = {"about": json.dumps(about), **_tensors(gate)}
    return {**content, "digest": digest_of(content)}


def add_origin(gate: QualityGate, fits: dict, digest: str) -> QualityGate:
    """Add a gate's data and digest to its protocol."""
    return replace(gate, protocol={**gate.protocol, "made_for": fits, "digest": digest})


def load(path: Path, device: torch.device | str) -> tuple[QualityGate, dict]:
    """Load a gate and what it was made of; ValueError where the file is anything else."""
    try:
        content = load_tensors(path)
    except ValueError as error:
        raise ValueError(f"{error}; {ADVICE}") from None
    try:
        digest = content.pop("digest", None)
        if digest != digest_of(content):
            raise ValueError("its content is not what a gate is, or not what was written")
        about = json.loads(content["about"])
        if about["version"] != VERSION:
            raise ValueError(f"of version {about['version']}, not {VERSION}")
        gate = _gate(content, about, device)
    except Exception as error:  # whatever a foreign file may lead to
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{path}: not a quality gate ({reason}); {ADVICE}") from None
    return add_origin(gate, about["fits"], digest), about["fits"]


def digest_of(content: dict) -> str:
    """Return sha256 over all names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(content.items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
        else:
            digest.update(f"{name} {value}".encode())
    return digest.hexdigest()


def _tensors(gate: QualityGate) -> dict[str, torch.Tensor]:
    columns = (gate.references.crops, gate.references.features, gate.labels, gate.boxes, gate.file_of)
    network = {f"model.{name}": value.cpu() for name, value in gate.model.state_dict().items()}
    return {**network, **dict(zip(COLUMNS, columns, strict=True)), "feature_mean": gate.references.mean}


def _gate(content: dict, about: dict, device: torch.device | str) -> QualityGate:
    classes, channels, files = tuple(about["classes"]), about["channels"], tuple(about["files"])
    model = CropClassifier(channels, len(classes) + 1)
    model.load_state_dict({n.removeprefix("model."): v for n, v in content.items() if n.startswith("model.")})
    crops, features, labels, boxes, file_of = (content[name] for name in COLUMNS)
    N = len(labels)
    shapes = {"crops": (N, channels, SIDE, SIDE), "boxes": (N, 4), "file_of": (N,)}
    for name, shape in shapes.items():
        if tuple(content[name].shape) != shape:
            raise ValueError(f"{name} of shape {tuple(content[name].shape)}, expected {shape}")
    return QualityGate(
        classes=classes,
        channels=channels,
        flip=about["flip"],
        value_range=about["value_range"] and tuple(about["value_range"]),
        model=model.to(device).eval(),
        references=References.known(crops, features, content["feature_mean"]),
        labels=labels,
        boxes=boxes,
        files=files,
        file_of=file_of,
        copy_threshold=about["protocol"]["copy_threshold"],
        protocol=about["protocol"],
    )
