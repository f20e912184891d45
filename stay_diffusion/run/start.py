"""The start of a training run: its own latest checkpoint, a fine-tune's start, published weights, or nothing."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ..config import RunConfig
from ..config.flags import contradictions, flatten, load, unflatten
from ..data.annotations import Vocabulary
from ..data.datasets import NO_NAMES
from ..models.new_names import with_new_names
from ..system import storage
from . import factory, fine_tuning
from .checkpoint import RunFolder, load_tensors, load_weights


@dataclass(frozen=True)
class Start:
    """The configuration of a run, and the weights or the step that it starts from.

    `known` holds the names that the model knows before it reads the data's; None: its vocabulary is complete.
    """

    config: RunConfig
    weights: Path | None = None
    step: int = 0
    known: Vocabulary | None = NO_NAMES

    def __str__(self) -> str:
        return f"continuing from step {self.step}" if self.step else f"starting from {self.weights or 'scratch'}"


def resolve_start(folder: RunFolder, config: RunConfig, given: dict, step: int) -> Start:
    """Choose the start of a run whose folder holds a checkpoint of `step`, 0 for none.

    Raises ValueError for flags that contradict one another or the run of the folder.
    """
    train = config.train
    if not step and folder.file("model").exists():
        raise ValueError(f"{folder.path}: holds weights but no run to continue (--resume_checkpoint starts from them)")
    if given.get("finetune_from") and given.get("resume_checkpoint"):
        raise ValueError("--finetune_from and --resume_checkpoint both say what to start from: give one of them")
    if step:
        return Start(resume_config(folder, given, step), step=step, known=None)
    if train.finetune_from:
        weights = fine_tuning.find_weights(train.finetune_from)
        config, known = fine_tuning.start_config(weights, given, config)
        return Start(config, weights, known=known)
    if train.resume_checkpoint:
        weights = storage.weights(train.resume_checkpoint)
        trained = factory.trained_config(weights, given, config, "resume_checkpoint")
        config = replace(config, data=trained.data, model=trained.model, diffusion=trained.diffusion)
        return Start(config, weights, known=None if trained.data.classes or trained.data.product_tags else NO_NAMES)
    if train.freeze != "none":
        raise ValueError(f"--freeze {train.freeze}: nothing is trained yet; --finetune_from says what to start from")
    return Start(config)


def resume_config(folder: RunFolder, given: dict, step: int) -> RunConfig:
    """Return the folder's own configuration, changed by the given options that a run may change.

    Raises ValueError for options that contradict it.
    """
    saved = load(folder.config_file)
    given, fixed = fine_tuning.resolve_resume_flags(given, saved)
    fixed += contradictions(given, saved)
    if fixed:
        raise ValueError(f"{folder.path} holds a run at step {step}: {'; '.join(fixed)}; choose another --logdir")
    start = Path(given.get("resume_checkpoint", ""))
    if start.parent.resolve() == folder.path.resolve() and start.name not in ("", "model.pt", f"model{step:06d}.pt"):
        raise ValueError(
            f"--resume_checkpoint {start}: this folder continues from its latest step, {step}; choose another --logdir "
            "to start from an earlier one"
        )
    return unflatten(RunConfig, {**flatten(saved), **factory.over_saved(given, saved.data)})


def load_start(model: nn.Module, start: Start, config: RunConfig) -> None:
    """Load the weights of a start, if any, into a model of `config`; print the names that it has yet to learn."""
    if not start.weights:
        return
    state, known = load_tensors(start.weights), start.known
    if known is not None:
        state = with_new_names(state, model, len(known.classes), len(known.products))
    load_weights(model, start.weights, state)
    if not known:
        return
    for kind, names, old in (
        ("classes", config.data.classes, known.classes),
        ("products", config.data.product_tags, known.products),
    ):
        if new := names[len(old) :]:
            print(f"new {kind}, after the {len(old)} that the start knows: {', '.join(new)}")
    if config.train.weight_decay:
        decay = config.train.weight_decay
        logging.warning("--weight_decay %g: moves also the codes of names that the data lack", decay)
