"""Turn weights published by guided-diffusion or SDM into a run folder to sample, fine-tune or measure from.

    python scripts/import_weights.py --kind guided --weights 64x64_diffusion.pt --logdir OUTPUT/imagenet64 FLAGS

FLAGS are those that the weights were trained with (or --flags FILE.json holds them by name); what is not given is as
the code base has it. Shapes are checked. What they cannot reveal, the number of heads, the attention order, the noise
schedule ..., loads in silence with a wrong value: it must be given right, and --verify can prove it.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from ..config import RunConfig, option
from ..config.flags import dump, flatten, parse, read_json, text

# With --into, the data's options are those of the layout model to come; the original's pictures were without boxes.
ORIGINAL = {"dataset_mode": "images", "conditioning": "none", "classes": (), "data_dir": "", "image_dir": ""}


@dataclass(frozen=True)
class ImportConfig:
    kind: str = option("", "whose weights: guided (guided-diffusion) or sdm", ("guided", "sdm"))
    weights: str = option("", "the published state dict, a .pt file")
    flags: str = option("", "the options it was trained with, JSON by flag name; typed flags win")
    into: str = option(
        "", "isla_bg: make guided-diffusion's weights the start of a layout model of the same shape", ("isla_bg",)
    )
    verify: str = option("", "an npz with inputs x, t (and y) and the original's output out, to compare with")


@dataclass(frozen=True)
class ImportRun(RunConfig):
    """Options of import_weights.py: a RunConfig's and the import's."""

    importing: ImportConfig = ImportConfig()


def main() -> int:
    run, given, switches = parse(ImportRun, __doc__)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    options = run.importing
    for flag in ("kind", "weights"):
        if not getattr(options, flag):
            raise ValueError(f"--{flag}: needed")
    if options.into and options.kind != "guided":
        raise ValueError(f"--into {options.into}: only guided-diffusion's weights (--kind guided) can become a start")

    import torch

    from ..run import factory, import_weights
    from ..run.checkpoint import RunFolder, load_tensors, load_weights, save_tensors
    from ..run.verification import verify

    # What was trained, by the flags; what the file holds; where they disagree
    values = published_options(options, given)
    original = import_weights.published_config(options.kind, {**values, **(ORIGINAL if options.into else {})})
    weights = Path(options.weights)
    try:
        state = import_weights.to_ours(load_tensors(weights))
        problems = import_weights.misfits(state, original)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}" if str(weights) not in str(error) else str(error)) from None
    if problems:
        raise ValueError(f"{weights}: does not fit the flags: {'; '.join(problems)}")

    # The network
    config = import_weights.layout_start(original, values) if options.into else original
    torch.manual_seed(config.train.seed)
    model = factory.build_model(config)
    load_weights(model, weights, import_weights.into_isla(state, model) if options.into else state)
    unseen = ", ".join(f"{name} {text(flatten(config)[name]) or 'empty'}" for name in import_weights.UNSEEN)
    print(f"{weights}: {len(state)} tensors fit; taken from the flags, since no shape reveals them: {unseen}")
    if options.verify:
        needs_y = original.model.class_cond or original.model.conditioning == "spade"
        verify(model.eval(), config, Path(options.verify), ("x", "t", "out", *("y",) * needs_y))
    if switches["dry_run"]:
        return 0

    # The run folder
    folder = RunFolder.named(config.train.logdir)
    if folder.config_file.exists() or folder.file("model").exists():
        raise ValueError(f"--logdir {folder.path}: holds a run already; choose another folder")
    folder.open()
    save_tensors(folder.file("model"), model.state_dict())
    folder.write_config(config)
    print(f"run folder: {folder.path.resolve()}; sample with --model_path {folder.file('model').resolve()}")
    return 0


def published_options(options: ImportConfig, given: dict) -> dict:
    """Return the options of the published model by flag name: typed ones over those of --flags."""
    importing = {f.name for f in fields(ImportConfig)}
    from_file = read_json(Path(options.flags)) if options.flags else {}
    return {**from_file, **{name: value for name, value in given.items() if name not in importing}}
