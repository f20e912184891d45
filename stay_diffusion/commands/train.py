"""Train a layout-to-image diffusion model. The same command again continues an interrupted run."""

import logging
from dataclasses import replace
from pathlib import Path

from ..config import RunConfig
from ..config.flags import contradictions, dump, flatten, load, parse, unflatten
from ..system.distributed import gather, join, start_group

NAMES_SHOWN = 12


def main() -> int:
    config, given, switches = parse(RunConfig, __doc__)
    if switches["print_config"]:
        print(dump(config), end="")
        return 0
    world = join(config.train.dist_timeout)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..data.datasets import NO_NAMES
    from ..data.loader import batches, in_order
    from ..data.picture_cache import cache_pictures
    from ..diffusion.gaussian_diffusion import respace
    from ..models.new_names import with_new_names
    from ..run import factory, fine_tuning
    from ..run.checkpoint import RunFolder, load_tensors, load_weights
    from ..sampling.training_preview import TrainingPreview
    from ..system import storage
    from ..system.device import pick_device
    from ..training.freezing import freeze
    from ..training.state import TrainingState
    from ..training.train_loop import Periodic, train
    from ..training.validation import Validation

    device = pick_device(world=world)
    start_group(world, device, config.train.dist_timeout)

    # What to train: an earlier run of this folder, a fine-tune from weights, or a new run
    folder = RunFolder.named(config.train.logdir)
    resumed_step = gather(folder.latest() if world.is_main else None)[0]
    if not resumed_step and folder.file("model").exists():
        raise ValueError(f"{folder.path}: holds weights but no run to continue (--resume_checkpoint starts from them)")
    if given.get("finetune_from") and given.get("resume_checkpoint"):
        raise ValueError("--finetune_from and --resume_checkpoint both say what to start from: give one of them")
    weights, known = None, NO_NAMES  # what a model knows before it learns the data's names; None where it learns none
    if resumed_step:
        config, known = continued(folder, given, resumed_step), None
    elif config.train.finetune_from:
        weights = fine_tuning.start_of(config.train.finetune_from)
        config, known = fine_tuning.started_config(weights, given, config)
    elif config.train.resume_checkpoint:
        weights = storage.weights(config.train.resume_checkpoint)
        trained = factory.trained_config(weights, given, config, "resume_checkpoint")
        config = replace(config, data=trained.data, model=trained.model, diffusion=trained.diffusion)
        known = None if trained.data.classes or trained.data.product_tags else NO_NAMES
    config = with_evaluations(config) if config.train.eval_interval else config
    options, kept_by = config.train, config.train.kept_by
    if options.freeze != "none" and not (weights or resumed_step):
        raise ValueError(f"--freeze {options.freeze}: nothing is trained yet; --finetune_from says what to start from")

    # Data
    split = "train" if options.is_train else "val"
    shared = {}
    train_records, vocabulary = factory.read_split(
        config.data, split, select=known is not None, known=known, shared=shared
    )
    train_records = factory.with_readable_pictures(train_records, config.data)
    config = factory.with_vocabulary(config, vocabulary)
    watched = max(
        options.val_images if options.val_interval else 0,
        options.preview_images if options.preview_interval else 0,
        options.eval_images if options.eval_interval else 0,
    )
    val_records = held_out(config, shared)[:watched] if watched else []
    shared.clear()
    train_set = factory.build_dataset(train_records, config, augment=True)
    val_set = factory.build_dataset(val_records[: options.val_images], config, augment=False)
    preview_set = factory.build_dataset(val_records[: options.preview_images], config, augment=False)

    # Model and diffusion
    torch.manual_seed(options.seed)
    model = factory.build_model(config)
    diffusion = respace(factory.build_diffusion(config.diffusion), config.diffusion.timestep_respacing)
    if weights:
        state = load_tensors(weights)
        if known is not None:
            state = with_new_names(state, model, len(known.classes), len(known.products))
        load_weights(model, weights, state)
    freeze(model, options.freeze)
    if weights and known:
        describe_new_names(config, known)
    describe(config, model, diffusion, len(train_set), len(val_set))
    if switches["dry_run"]:
        batch = next(batches(train_set, options.batch_size, options.seed, start=0))
        if world.is_main:
            draw_batch(batch, train_set, folder.path)
        describe_pace(config, model, diffusion, device, batch)
        return 0

    # The run folder, and where in it we are
    state = TrainingState(config, model, diffusion, device, world)
    if world.is_main:
        folder.open()
    if resumed_step:
        state.restore(folder, resumed_step, config)
    if world.is_main:
        folder.write_config(config)
        keep_layout_statistics(folder, train_records, config, bool(resumed_step))
    place = folder.url or folder.path.resolve()
    print(f"run folder: {place}, {started(weights, resumed_step)}; {device}, {state.precision}", flush=True)
    if options.last_step and state.step >= options.last_step:
        print(f"already at step {state.step}: nothing to do (a larger --max_steps goes on)")
        return 0

    # Train
    evaluation = None
    if options.eval_interval:
        eval_set = factory.build_dataset(val_records[: options.eval_images], config, augment=False)
        evaluation = checked_evaluation(eval_set, config, folder, state)
    cache_pictures(train_set, config.data.cache)
    stream = batches(
        train_set,
        options.batch_size,
        options.seed,
        start=state.samples,
        rank=world.rank,
        world=world.size,
        num_workers=config.data.num_workers,
        pin_memory=device.type == "cuda",
    )
    periodic = []
    if options.val_interval and val_records:
        val_batches = list(in_order(val_set, options.batch_size, rank=world.rank, world=world.size))
        validation = Validation(
            val_batches, len(val_set), folder, diffusion, options.seed, world, kept_by == "val_loss"
        )
        periodic.append(Periodic(options.val_interval, validation))
    if options.preview_interval and val_records:
        preview = TrainingPreview(preview_set, diffusion, folder.path, device, world)
        periodic.append(Periodic(options.preview_interval, preview))
    if evaluation:
        periodic.append(Periodic(options.eval_interval, evaluation))
    try:
        ended = train(state, config, stream, folder, periodic)
    except RuntimeError as error:
        raise explained(error, config, model, diffusion) or error from None
    if ended == "finished":
        print(f"finished; sample with --model_path {folder.file(state.emas[0].name).resolve()}")
    else:
        print(f"{ended}: saved at step {state.step}; the same command resumes")
    return 130 if ended == "SIGINT" else 0  # a scheduler's SIGTERM is no failure


def with_evaluations(config: RunConfig) -> RunConfig:
    """The configuration, its metrics and features known."""
    from ..evaluation.during_training import in_order, with_whole_paths

    in_order(config.train.eval_metrics, config.train.kept_by)
    return with_whole_paths(config)


def checked_evaluation(dataset, config: RunConfig, folder, state):
    """What samples and measures every --eval_interval steps; ValueError where that could not be done."""
    from ..evaluation.during_training import Evaluation

    if len(dataset) < 2:
        raise ValueError(f"--eval_interval {config.train.eval_interval}: {len(dataset)} validation pictures; needs 2")
    evaluation = Evaluation(dataset, config, folder, state.device, state.world)
    evaluation.check(state)
    return evaluation


def explained(error: RuntimeError, config: RunConfig, model, diffusion) -> ValueError | None:
    """What to do about memory that did not suffice; None for other errors."""
    import torch

    from ..training.memory import estimate_memory

    if "DataLoader worker" in str(error):
        told = "a process that loads pictures was killed, by the system for want of memory perhaps"
        return ValueError(f"{told}: fewer --num_workers need less ({str(error).splitlines()[0][:100]})")
    if not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)):
        return None
    needed = sum(estimate_memory(config, model, diffusion).values()) / 2**30
    advice = "a smaller --microbatch, --use_checkpoint True or a smaller --image_size need less"
    return ValueError(f"out of memory (training takes about {needed:.1f} GiB in float32): {advice}")


def keep_layout_statistics(folder, records: list, config: RunConfig, is_resumed: bool) -> None:
    """Leaves in the run folder what `image_sample.py --layouts sampled` draws by; of label maps that works them out."""
    from ..layouts import statistics_file as layout_statistics_file
    from ..layouts.statistics import of_dataset
    from ..run import factory

    is_kept = is_resumed and (folder.path / layout_statistics_file.NAME).exists()
    if config.model.layout_kind == "boxes" and not is_kept and not records[0].maps:
        dataset = factory.build_dataset(records, config, augment=False)
        layout_statistics_file.write(folder.path, of_dataset(dataset))


def held_out(config: RunConfig, shared: dict) -> list:
    """The validation records; none, with a warning, where the data are too few to hold any out."""
    from ..data.datasets import EmptySplit
    from ..run import factory

    try:
        return factory.with_readable_pictures(factory.read_split(config.data, "val", shared=shared)[0], config.data)
    except EmptySplit as error:
        logging.warning("%s: training without validation and previews", error)
        return []


def continued(folder, given: dict, step: int) -> RunConfig:
    """The folder's own configuration with what was given on top, where that can still change."""
    from ..run.factory import over_saved
    from ..run.fine_tuning import settled

    saved = load(folder.config_file)
    given, fixed = settled(given, saved)
    fixed += contradictions(given, saved)
    if fixed:
        raise ValueError(f"{folder.path} holds a run at step {step}: {'; '.join(fixed)}; choose another --logdir")
    start = Path(given.get("resume_checkpoint", ""))
    if start.parent.resolve() == folder.path.resolve() and start.name not in ("", "model.pt", f"model{step:06d}.pt"):
        raise ValueError(
            f"--resume_checkpoint {start}: this folder continues from its latest step, {step}; choose another --logdir "
            "to start from an earlier one"
        )
    return unflatten(RunConfig, {**flatten(saved), **over_saved(given, saved.data)})


def started(weights: Path | None, resumed_step: int) -> str:
    return f"continuing from step {resumed_step}" if resumed_step else f"starting from {weights or 'scratch'}"


def describe_new_names(config: RunConfig, known) -> None:
    """What a fine-tune is to learn besides what its start knows."""
    for kind, names, old in (
        ("classes", config.data.classes, known.classes),
        ("products", config.data.product_tags, known.products),
    ):
        if new := names[len(old) :]:
            print(f"new {kind}, after the {len(old)} that the start knows: {', '.join(new)}")
    if config.train.weight_decay:
        logging.warning(
            "--weight_decay %g: moves also the codes of names that the data lack", config.train.weight_decay
        )


def describe(config: RunConfig, model, diffusion, num_train: int, num_val: int) -> None:
    from ..training.memory import estimate_memory, parameter_count, trained_count

    names = "; ".join(
        f"{len(words)} {kind}: {', '.join(words[:NAMES_SHOWN])}{', ...' if len(words) > NAMES_SHOWN else ''}"
        for kind, words in (("classes", config.data.classes), ("products", config.data.product_tags))
        if words
    )
    memory = estimate_memory(config, model, diffusion)
    parts = ", ".join(f"{name} {amount / 2**30:.2f}" for name, amount in memory.items())
    print(f"data: {num_train} training and {num_val} validation images; {names}")
    count, trained = parameter_count(model), trained_count(model)
    frozen = f", {trained / 1e6:.2f} of them trained (--freeze {config.train.freeze})" if trained < count else ""
    print(f"model: {count / 1e6:.2f} million parameters{frozen}, conditioning {config.model.conditioning}")
    print(f"memory: about {sum(memory.values()) / 2**30:.2f} GiB in float32 ({parts})", flush=True)


def draw_batch(batch, train_set, folder: Path) -> None:
    """The first batch as the network will see it, as a picture in the run folder."""
    from ..sampling.training_preview import draw_batch

    images, layout = batch
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dry_run.png"
    draw_batch(images[:32], layout[:32], train_set).save(path)
    objects = layout.valid.sum(dim=1).float()
    print(f"one batch: images {tuple(images.shape)}, {objects.mean():.1f} objects a picture; drawn in {path.resolve()}")


def describe_pace(config: RunConfig, model, diffusion, device, batch) -> None:
    from ..training.memory import estimate_memory
    from ..training.pace import for_one_image, free_memory, measure_pace
    from ..training.state import TrainingState

    needed = sum(estimate_memory(for_one_image(config), model, diffusion).values())
    if needed > (free := free_memory(device)):
        print(f"time: not measured, {free / 2**30:.1f} GiB are free and one image takes {needed / 2**30:.1f}")
        return
    # Not compiled: that takes longer than all that is timed.
    config = replace(config, train=replace(config.train, compile=False))
    state = TrainingState(config, model, diffusion, device)
    pace = measure_pace(state, config, *batch)
    steps = config.train.last_step or 1000
    timed = f"{pace.num_steps} of {pace.num_images} images timed, without loading, saving and validation"
    print(f"time: {pace.seconds:.2f} s a step on {device}, {state.precision} ({timed}): ", end="")
    print(f"{steps} steps in {steps * pace.seconds / 3600:.3g} hours")
