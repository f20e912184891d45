"""Configuration -> model, diffusion, data: the only module of the package that sees everything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import DataConfig, DiffusionConfig, RunConfig
from ..config.flags import FREE, VOCABULARY, contradictions
from ..data.annotations import EmptySplit, ImageRecord, Vocabulary
from ..data.checks import usable
from ..data.codings import CODINGS
from ..data.datasets import read_split, report
from ..data.problems import Problem
from ..data.samples import LayoutDataset
from ..data.semantic_datasets import MODES
from ..data.tags import merged
from ..diffusion.gaussian_diffusion import GaussianDiffusion, respace
from ..models.unet import UNet
from ..system import storage
from ..system.device import in_best_format
from .checkpoint import config_beside, load_weights

IMAGENET_CLASSES = 1000  # guided-diffusion's number of classes, which is no flag there


def build_model(config: RunConfig) -> UNet:
    """The network, freshly initialised; class and product counts come from the vocabulary in config.data."""
    config.model.check()
    num_classes, num_products = len(config.data.classes), len(config.data.product_tags)
    return UNet(config.model, config.diffusion.learn_sigma, num_classes, num_products)


def build_diffusion(config: DiffusionConfig) -> GaussianDiffusion:
    """The whole training process; `respace` makes the shorter ones."""
    variance = "learned_range" if config.learn_sigma else "fixed_small" if config.sigma_small else "fixed_large"
    loss = "rescaled_kl" if config.use_kl else "rescaled_mse" if config.rescale_learned_sigmas else "mse"
    return GaussianDiffusion.create(
        config.noise_schedule,
        config.diffusion_steps,
        prediction=config.predicted,
        variance=variance,
        loss=loss,
        rescale_timesteps=config.rescale_timesteps,
    )


def build_training_diffusion(config: DiffusionConfig) -> GaussianDiffusion:
    """The process that a network is trained on: the steps that --timestep_respacing keeps."""
    return respace(build_diffusion(config), config.timestep_respacing)


def with_readable_pictures(
    records: list[ImageRecord], data: DataConfig, problems: list[Problem] | None = None
) -> list[ImageRecord]:
    """The records whose pictures are there, readable and of the annotated size; EmptySplit where there are none.

    By their headers alone, or where bad data are skipped by reading them whole, with their maps: what breaks later
    would stop a run after all. What is wrong with the others is treated as `data.on_bad_data` says; it is added to
    `problems` too.
    """
    found: list[Problem] = []
    kept = usable(records, found, decode=data.on_bad_data == "skip", value_range=data.black_and_white)
    report(Path(data.data_dir), found, data.on_bad_data)
    if problems is not None:
        problems += found
    if not kept:
        raise EmptySplit(f"{data.data_dir}: none of its {len(records)} pictures can be read")
    return kept


def with_names(data: DataConfig, vocabulary: Vocabulary) -> DataConfig:
    """Options that read any split in one vocabulary, whatever is in it."""
    class_map = merged(data.class_map, [f"{tag}=" for tag in vocabulary.left_out])
    return replace(data, classes=vocabulary.classes, product_tags=vocabulary.products, class_map=class_map)


def with_vocabulary(config: RunConfig, vocabulary: Vocabulary) -> RunConfig:
    """The configuration that names its classes and products, as it is saved."""
    names = {"classes": vocabulary.classes, "product_tags": vocabulary.products}
    kind = "product_tags" if config.model.conditioning == "none" and vocabulary.products else "classes"
    if config.model.class_cond and config.data.num_classes not in (0, len(names[kind])):
        what = "products" if kind == "product_tags" else "classes"
        raise ValueError(f"--num_classes {config.data.num_classes}: the data have {len(names[kind])} {what}")
    data = replace(with_names(config.data, vocabulary), num_classes=len(names[kind]))
    # Absolute, so that sampling finds the data from wherever it is started.
    folders: dict[str, Any] = {
        name: value if storage.is_remote(value) else str(Path(value).resolve())
        for name in ("data_dir", "image_dir", "id_list")
        if (value := getattr(data, name))
    }
    return replace(config, data=replace(data, **folders))


def with_assumed_names(config: RunConfig) -> RunConfig:
    """The configuration of weights that came without one, with names for what they were trained on.

    Given names stay; else they are the data's, where there are any; else `--num_classes` numbers.
    """
    data, model = config.data, config.model
    classes, products = data.classes, data.product_tags
    if not model.class_cond:
        return config
    if data.data_dir and not classes and data.dataset_mode not in CODINGS:
        return with_vocabulary(config, read_split(data, "train")[1])
    if model.conditioning == "none" and data.dataset_mode not in CODINGS:
        products = products or tuple(str(i) for i in range(data.num_classes or IMAGENET_CLASSES))
    elif data.dataset_mode in CODINGS:
        classes = classes or CODINGS[data.dataset_mode].classes
        classes += tuple(f"class_{i}" for i in range(len(classes) + 1, data.num_classes + 1))
    else:
        classes = classes or tuple(f"class_{i}" for i in range(1, data.num_classes + 1))
    return with_vocabulary(config, Vocabulary(classes, products))


def vocabulary_of(config: RunConfig) -> Vocabulary:
    return Vocabulary(classes=config.data.classes, products=config.data.product_tags)


def build_dataset(records: list[ImageRecord], config: RunConfig, augment: bool) -> LayoutDataset:
    """Records as training samples, in the configuration's vocabulary; without `augment` nothing is random
    but what the crop policy itself draws."""
    data, model = config.data, config.model
    if not (model.class_cond or data.classes or data.product_tags):
        # A model without layouts that came without names: what is drawn or named on pictures stays outside.
        records = [replace(record, boxes=(), product=None, maps=None) for record in records]
    elif model.layout_kind == "map":
        _check_maps(records, data.dataset_mode, model.no_instance)
    if not augment:
        data = replace(data, background_rate=0.0, random_flip=False)
    if model.layout_kind != "boxes":
        data = replace(data, max_objects=0)
    return LayoutDataset(records, vocabulary_of(config), data, model, config.train.seed)


def trained_config(weights: Path, given: dict, fallback: RunConfig, flag: str, free: tuple[str, ...] = ()) -> RunConfig:
    """The configuration that weights were trained with: config.json beside them, else `fallback`, from full flags.

    Model and diffusion options in `given`, less `free`, are assertions: a contradiction is an error naming flag, value
    and trained value. Data options that were given (another folder, say) replace the trained ones, but for the
    vocabulary.
    """
    if not weights.is_file():
        raise ValueError(f"--{flag} {weights}: no such file")
    trained = config_beside(weights)
    if trained is None:
        return with_assumed_names(fallback)
    problems = contradictions(given, trained, free)
    if problems:
        raise ValueError(f"{weights}: {'; '.join(problems)}")
    data_options = {k: value for k, value in over_saved(given, trained.data).items() if hasattr(trained.data, k)}
    model_options = {k: given[k] for k in FREE if k in given}
    return replace(trained, data=replace(trained.data, **data_options), model=replace(trained.model, **model_options))


def over_saved(given: dict, saved: DataConfig) -> dict:
    """Return the given options without the vocabulary, for a run that has one; --class_map adds to the run's own."""
    options = {name: value for name, value in given.items() if name not in VOCABULARY}
    if "class_map" in options:
        options["class_map"] = merged(saved.class_map, options["class_map"])
    return options


def _check_maps(records: list[ImageRecord], mode: str, no_instance: bool) -> None:
    for record in records:
        if record.maps is None:
            with_maps = ", ".join(MODES)
            raise ValueError(f"--conditioning spade: --dataset_mode {mode} has no label maps; {with_maps} have")
        if record.maps.instances is None and not no_instance:
            raise ValueError(f"{record.path}: has no instance map for --conditioning spade; give --no_instance True")


def load_trained(config: RunConfig, weights: Path, device) -> UNet:
    """The trained network in eval mode, its weights in memory as sampling on the device is fastest."""
    model = build_model(config)
    load_weights(model, weights)
    in_best_format(model.to(device))
    return model.eval()
