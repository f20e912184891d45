"""Turn weights published by guided-diffusion or SDM into a run folder to sample, fine-tune or measure from.

    python scripts/import_weights.py --kind guided --weights 64x64_diffusion.pt --logdir OUTPUT/imagenet64 FLAGS

FLAGS are those that the weights were trained with (or --flags FILE.json holds them by name); what is not given is as
the code base has it. Shapes are checked. What they cannot reveal, the number of heads, the attention order, the noise
schedule ..., loads in silence with a wrong value: it must be given right, and --verify can prove it.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..config import DataConfig, DiffusionConfig, ModelConfig, RunConfig, TrainConfig, option
from ..config.flags import dump, flatten, parse, read_json, text, unflatten

LARGEST_ERROR = 1e-3  # of the largest value of the output
DATA_OPTIONS = tuple(f.name for f in fields(DataConfig))
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
class ImportRun:
    """What import_weights.py takes: a RunConfig and the import."""

    importing: ImportConfig = ImportConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()


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

    # What was trained, by the flags; what the file holds; where they disagree
    values = settings(options, given)
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
    config = start_of(original, values) if options.into else original
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


def settings(options: ImportConfig, given: dict) -> dict:
    """The options of the model by flag name: typed ones over those of --flags."""
    importing = {f.name for f in fields(ImportConfig)}
    from_file = read_json(Path(options.flags)) if options.flags else {}
    return {**from_file, **{name: value for name, value in given.items() if name not in importing}}


def start_of(config: RunConfig, values: dict) -> RunConfig:
    """The layout model that an original becomes; its classes and products are given, the data's, or named later."""
    from ..data.annotations import Vocabulary
    from ..data.codings import CODINGS
    from ..run import factory

    data = unflatten(RunConfig, {name: value for name, value in values.items() if name in DATA_OPTIONS}).data
    if data.data_dir:
        names = factory.read_split(data, "train")[1]
    elif data.dataset_mode in CODINGS:
        names = Vocabulary(CODINGS[data.dataset_mode].classes)
    else:
        names = Vocabulary(data.classes, data.product_tags)
    if config.model.class_cond:
        names = replace(names, products=config.data.product_tags)
    model = replace(config.model, conditioning="isla_bg", class_cond=True)
    return factory.with_vocabulary(replace(config, data=replace(data, num_classes=0), model=model), names)


def verify(model, config: RunConfig, path: Path, needed: tuple[str, ...]) -> None:
    """Compares with the original's output, for every layout of `conditions`; ValueError where it differs."""
    import zipfile

    import numpy as np
    import torch

    try:
        with np.load(path) as arrays:
            numbers = {name: torch.from_numpy(arrays[name]) for name in needed if name in arrays.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"--verify {path}: cannot be read as an npz: {error}") from None
    for name in needed:
        if name not in numbers:
            raise ValueError(f"--verify {path}: has no {name}; needed are {', '.join(needed)}")
    expected = numbers["out"].float()
    for what, layout in conditions(config, numbers).items():
        try:
            with torch.no_grad():
                output = model(numbers["x"].float(), numbers["t"], layout)
        except (RuntimeError, IndexError) as error:  # torch's, of shapes and of classes that there are not
            shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in numbers.items())
            raise ValueError(f"--verify {path}: {shapes} do not fit the model: {str(error).splitlines()[0]}") from None
        if output.shape != expected.shape:
            raise ValueError(f"--verify {path}: out is {tuple(expected.shape)}, the model gives {tuple(output.shape)}")
        absolute = (output - expected).abs().max().item()
        relative = absolute / max(expected.abs().max().item(), 1e-30)  # an untrained network's output is zero
        print(f"verified against {path}{what}: largest error {absolute:.2e}, {relative:.2e} of the largest output")
        if not relative <= LARGEST_ERROR:
            raise ValueError(
                f"--verify {path}{what}: differs by {relative:.2e} of the largest output, more than {LARGEST_ERROR:g}; "
                "is a flag wrong that no shape reveals (see above)?"
            )


def conditions(config: RunConfig, numbers: dict) -> dict:
    """What the network is conditioned on, by a name for it: y as this model takes it; for a layout model any boxes."""
    import torch

    from ..data.layout import UNKNOWN_PRODUCT, Layout
    from ..models.spade_norm import SemanticConditioning

    if config.model.conditioning == "spade":
        return {"": SemanticConditioning(numbers["y"].float())}
    if not config.model.class_cond:
        return {"": None}
    B, K = len(numbers["x"]), len(config.data.classes)
    products = (numbers["y"] + 1).tolist() if "y" in numbers else [UNKNOWN_PRODUCT] * B

    def layout(num_objects: int) -> Layout:
        drawn = torch.Generator().manual_seed(0)
        corners = torch.rand(B, num_objects, 2, 2, generator=drawn).sort(dim=2).values.flatten(2)  # x0 y0 x1 y1
        labels = torch.randint(1, K + 1, (B, num_objects), generator=drawn) if num_objects else torch.zeros(B, 0).long()
        return Layout.collate(list(zip(corners, labels, products, strict=True)))

    if config.model.conditioning == "none":
        return {"": layout(0)}
    return {", without objects": layout(0), **({", with random boxes": layout(5)} if K else {})}
