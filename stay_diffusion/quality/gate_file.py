"""quality_gate.pt: a gate as one file of tensors and a JSON text, whose digest says that it is whole."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from ..run.checkpoint import load_tensors
from .classifier import CropClassifier
from .crops import SIDE
from .gate import QualityGate
from .neighbours import References

VERSION = 1  # of the file
ADVICE = "delete it, and the next use trains another"
COLUMNS = ("crops", "features", "labels", "boxes", "file_of")  # of the training objects


def content_of(gate: QualityGate, fits: dict) -> dict:
    """What the file holds of a gate just trained; `fits` says what it was made of."""
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


def named(gate: QualityGate, fits: dict, digest: str) -> QualityGate:
    """A gate whose protocol names its data and its digest."""
    return replace(gate, protocol={**gate.protocol, "made_for": fits, "digest": digest})


def load(path: Path, device: torch.device | str) -> tuple[QualityGate, dict]:
    """A saved gate and what it was made of; ValueError where the file is anything else."""
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
    return named(gate, about["fits"], digest), about["fits"]


def digest_of(content: dict) -> str:
    """sha256 over all names and values."""
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
