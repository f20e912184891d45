"""The start of a fine-tune: a run's weights and options, its vocabulary open to the names of new data."""

from dataclasses import replace
from pathlib import Path

from ..config import RunConfig, flags
from ..data.annotations import Vocabulary
from ..data.tags import merged, read_map
from ..system import storage
from . import factory


def find_weights(name: str) -> Path:
    """Find the weights that --finetune_from names: a file's, or a run folder's averages, the best where they are kept.

    ValueError where there are none, or no config.json beside them.
    """
    place = storage.local(name)
    weights = _averages(place) if place.is_dir() else storage.weights(name)
    if not weights.is_file():
        raise ValueError(f"--finetune_from {name}: no such run folder or file of weights")
    if not weights.with_name("config.json").exists():
        told = "no config.json beside it, which says what the model is and knows"
        raise ValueError(f"--finetune_from {weights}: {told}; --resume_checkpoint takes such weights, with full flags")
    return weights


def _averages(folder: Path) -> Path:
    config = folder / "config.json"
    if not config.exists():
        raise ValueError(f"--finetune_from {folder}: not the folder of a run: no config.json in it")
    rate = flags.load(config).train.ema_rates[0]  # the one whose best is kept
    names = (f"ema_{rate}_best.pt", f"ema_{rate}.pt", "model.pt")
    found = next((folder / name for name in names if (folder / name).exists()), None)
    if found is None:
        raise ValueError(f"--finetune_from {folder}: no weights in it ({', '.join(names)})")
    return found


def start_config(weights: Path, given: dict, fresh: RunConfig) -> tuple[RunConfig, Vocabulary]:
    """Return the configuration of a fine-tune, and the names that its start knows.

    It has the start's model, diffusion and ways with data, and the training options of `fresh`. Its vocabulary is yet
    to be read; what was given of it chooses among the data's names. Tags that the start reads as other names are read
    so still; what it left out may be what is to be learnt now.
    """
    others = {name: value for name, value in given.items() if name not in (*flags.VOCABULARY, "class_map")}
    trained = factory.trained_config(weights, others, fresh, "finetune_from")
    renamed = [f"{tag}={name}" for tag, name in read_map(trained.data.class_map).items() if name]
    chosen = {name: getattr(fresh.data, name) for name in flags.VOCABULARY}
    data = replace(trained.data, **chosen, class_map=merged(renamed, fresh.data.class_map))
    place = fresh.train.finetune_from if storage.is_remote(fresh.train.finetune_from) else str(weights.resolve())
    train = replace(fresh.train, finetune_from=place)
    return replace(trained, data=data, train=train), factory.vocabulary_of(trained)


def resolve_resume_flags(given: dict, saved: RunConfig) -> tuple[dict, list[str]]:
    """Drop given options that no longer apply to a run that continues; add a line for each that contradicts its start.

    A fine-tune's --classes and --product_tags chose among the data's: given again, they need not be all that it knows.
    """
    problems = []
    began, start = saved.train.finetune_from, given.get("finetune_from", "")
    if start and start != began and Path(began) not in ((at := Path(start).resolve()), at / Path(began).name):
        problems.append(f"--finetune_from {start} contradicts the run's start, {began or 'another'}")
    if given.get("freeze", saved.train.freeze) != saved.train.freeze:
        problems.append(f"--freeze {given['freeze']} contradicts the run's {saved.train.freeze}")
    used = {"finetune_from"}
    if began:
        left_out = {tag for tag, name in read_map(saved.data.class_map).items() if not name}
        known = {name: {*getattr(saved.data, name)} - left_out for name in ("classes", "product_tags")}
        used |= {name for name, names in known.items() if set(given.get(name, ())) <= names}
    return {name: value for name, value in given.items() if name not in used}, problems
