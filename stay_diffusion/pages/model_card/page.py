"""A model card as Markdown: facts of the run, and the limits that follow from them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from ...config import RunConfig
from ..render import render
from .data_facts import count_data, data_limits
from .measurement_files import MeasurementFile
from .run_facts import RunFacts


class Loss(NamedTuple):
    """A loss of progress.csv: the last and the lowest, with their steps."""

    last: float
    last_step: int
    lowest: float
    lowest_step: int


def page_of(facts: RunFacts, files: Sequence[MeasurementFile], preview: Path | None, folder: Path) -> str:
    """Return the whole card, which will lie in `folder`: links are relative to it."""
    config, state = facts.config, facts.state or {}
    return render(
        "model_card.md.jinja",
        front_matter=_front_matter(config),
        name=facts.folder.resolve().name,  # where it lies is nobody else's concern
        model=config.model,
        data=config.data,
        diffusion=config.diffusion,
        train=config.train,
        images=_images(config),
        is_guided=_is_guided(config),
        weights=facts.weights,
        statistics=facts.statistics,
        counts=count_data(facts.statistics) if facts.statistics else None,
        step=int(facts.rows[-1]["step"]) if facts.rows else state.get("step"),
        state={"world_size": None, "versions": None, **state},
        seconds=next(reversed(facts.column("seconds_per_step").values()), None),
        losses={"training": _loss(facts.column("loss")), "validation": _loss(facts.column("val_loss"))},
        data_name=Path(config.data.data_dir).name,
        start=_without_folders(config.train.finetune_from or config.train.resume_checkpoint),
        files=[
            {"name": _relative(file.path, facts.folder), "figures": file.measurements, "protocol": _protocol(file)}
            for file in files
        ],
        preview=os.path.relpath(preview.resolve(), folder.resolve()) if preview else None,
        limits=_limits(facts, files),
        best_by=_best_by(state),
    )


def _front_matter(config: RunConfig) -> str:
    """Return what model hubs read, as YAML."""
    tags = ["layout-to-image" if config.model.layout_kind else "image-generation", "diffusion"]
    values = {"library_name": "stay_diffusion", "tags": [*tags, f"conditioning:{config.model.conditioning}"]}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _images(config: RunConfig) -> str:
    size = config.model.image_size
    return f"{'grey' if config.model.image_channels == 1 else 'colour'} pictures of {size} x {size} pixels"


def _is_guided(config: RunConfig) -> bool:
    return bool(config.train.drop_rate and config.model.class_cond)


def _loss(values: dict[int, float]) -> Loss | None:
    if not values:
        return None
    last, best = max(values), min(values, key=values.__getitem__)
    return Loss(values[last], last, values[best], best)


def _protocol(file: MeasurementFile) -> list[tuple[str, str, list[str]]]:
    """Return each fact of the protocols with its value and the names of the figures that it is of."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in file.measurements:
        for name, value in each.protocol.items():
            if value is not None:
                found.setdefault((name, _without_folders(value)), []).append(each.name)
    return [(name, value, owners) for (name, value), owners in found.items()]


def _without_folders(value: object) -> str:
    """Return a value as a card that leaves this machine tells it: of paths the last part alone."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_without_folders(inner)}" for name, inner in value.items())
    text = str(value)
    return os.path.basename(text.rstrip("/")) if text.startswith("/") else text


def _limits(facts: RunFacts, files: Sequence[MeasurementFile]) -> list[str]:
    config = facts.config
    found = [f"Made for pictures like the training data's: {_images(config)}."]
    if config.model.layout_kind:
        found.append("No other classes than those above can be asked for.")
    if not _is_guided(config):
        found.append("Not trained for guidance: `--s` must stay 1.")
    found += data_limits(facts.statistics) if config.model.layout_kind == "boxes" else []
    if not files:
        found.append("How good its pictures are has not been measured, as far as this folder says.")
    return found


def _best_by(state: dict) -> str:
    if not state.get("best"):
        return "by validation loss" if "best_val_loss" in state else "so far; by what is not known"
    (by, (value, step)), *_ = state["best"].items()
    named = "the validation loss" if by == "val_loss" else by.rpartition(" ")[0]
    return f"by {named}, {value:.4g} at step {step:,}"


def _relative(path: Path, folder: Path) -> str:
    """Return a path as seen from the run folder; of a file elsewhere the name."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
