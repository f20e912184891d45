"""Train a layout-to-image diffusion model. The same command again continues an interrupted run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config import RunConfig
from ..config.flags import dump, parse
from ..system.distributed import gather, join, start_group

if TYPE_CHECKING:
    from ..run.checkpoint import RunFolder
    from ..run.start import Start
    from ..training.data_sets import TrainingData
    from ..training.state import TrainingState
    from ..training.train_loop import Periodic


def main() -> int:
    config, given, switches = parse(RunConfig, __doc__)
    if switches["print_config"]:
        print(dump(config), end="")
        return 0
    world = join(config.train.dist_timeout)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..data.picture_cache import cache_pictures
    from ..run import factory
    from ..run.checkpoint import RunFolder
    from ..run.start import load_start, resolve_start
    from ..system.device import pick_device
    from ..training.data_sets import read_training_data, stream_batches
    from ..training.description import describe, describe_pace
    from ..training.freezing import freeze
    from ..training.memory import explain_out_of_memory
    from ..training.state import TrainingState
    from ..training.train_loop import train

    device = pick_device(world=world)
    start_group(world, device, config.train.dist_timeout)

    # Configuration
    folder = RunFolder.named(config.train.logdir)
    start = resolve_start(folder, config, given, step=gather(folder.latest() if world.is_main else None)[0])
    config = resolve_evaluations(start.config)

    # Data
    data = read_training_data(config, start.known)
    config, options = data.config, data.config.train

    # Model and diffusion
    torch.manual_seed(options.seed)
    model, diffusion = factory.build_model(config), factory.build_training_diffusion(config.diffusion)
    load_start(model, start, config)
    freeze(model, options.freeze)
    describe(config, model, diffusion, len(data.train), len(data.watched(options.val_images)))
    if switches["dry_run"]:
        describe_pace(config, model, diffusion, device, draw_first_batch(data, folder if world.is_main else None))
        return 0

    # Run folder
    state = TrainingState(config, model, diffusion, device, world)
    open_folder(folder, state, data, start)
    if options.last_step and state.step >= options.last_step:
        print(f"already at step {state.step}: nothing to do (a larger --max_steps goes on)")
        return 0

    # Training
    periodic = build_periodic(data, folder, state, diffusion)
    cache_pictures(data.train, config.data.cache)
    stream = stream_batches(data.train, config, device, world, state.samples)
    try:
        ended = train(state, config, stream, folder, periodic)
    except RuntimeError as error:
        raise explain_out_of_memory(error, config, model, diffusion) or error from None
    return report_end(ended, folder, state)


def report_end(ended: str, folder: RunFolder, state: TrainingState) -> int:
    """Print how training ended, and return the exit code: a scheduler's SIGTERM is no failure."""
    if ended == "finished":
        print(f"finished; sample with --model_path {folder.file(state.emas[0].name).resolve()}")
    else:
        print(f"{ended}: saved at step {state.step}; the same command resumes")
    return 130 if ended == "SIGINT" else 0


def resolve_evaluations(config: RunConfig) -> RunConfig:
    """Return the configuration with whole paths; ValueError for evaluations that there are not."""
    options, kept_by = config.train, config.train.kept_by
    if not options.eval_interval:
        return config
    from ..evaluation.during_training import in_order, with_whole_paths

    in_order(options.eval_metrics, kept_by)
    return with_whole_paths(config)


def draw_first_batch(data: TrainingData, folder: RunFolder | None) -> tuple:
    """Return the first batch of one process, drawn in the run folder as the network will see it."""
    from ..data.loader import batches
    from ..sampling.training_preview import draw_batch

    images, layout = next(batches(data.train, data.config.train.batch_size, data.config.train.seed, start=0))
    if folder:
        folder.path.mkdir(parents=True, exist_ok=True)
        path = folder.path / "dry_run.png"
        draw_batch(images[:32], layout[:32], data.train).save(path)
        objects = layout.valid.sum(dim=1).float().mean()
        print(f"one batch: images {tuple(images.shape)}, {objects:.1f} objects a picture; drawn in {path.resolve()}")
    return images, layout


def open_folder(folder: RunFolder, state: TrainingState, data: TrainingData, start: Start) -> None:
    """Restore the state of a resumed run; write the configuration and what `--layouts sampled` draws by."""
    from ..layouts import statistics_file
    from ..layouts.statistics import of_dataset

    config, is_main = data.config, state.world.is_main
    if is_main:
        folder.open()
    if start.step:
        state.restore(folder, start.step, config)
    if is_main:
        folder.write_config(config)
        is_kept = start.step and (folder.path / statistics_file.NAME).exists()
        if config.model.layout_kind == "boxes" and not is_kept and not data.records[0].maps:
            statistics_file.write(folder.path, of_dataset(data.unaugmented(data.records)))
    print(f"run folder: {folder.url or folder.path.resolve()}, {start}; {state.device}, {state.precision}", flush=True)


def build_periodic(data: TrainingData, folder: RunFolder, state: TrainingState, diffusion) -> list[Periodic]:
    """Return what training does every so many steps: validation, previews, evaluations."""
    from ..sampling.training_preview import TrainingPreview
    from ..training.train_loop import Periodic
    from ..training.validation import build_validation

    options, device, world = data.config.train, state.device, state.world
    periodic = []
    if options.val_interval and data.held_out:
        periodic.append(Periodic(options.val_interval, build_validation(data, folder, diffusion, world)))
    if options.preview_interval and data.held_out:
        preview = TrainingPreview(data.watched(options.preview_images), diffusion, folder.path, device, world)
        periodic.append(Periodic(options.preview_interval, preview))
    if options.eval_interval:
        from ..evaluation.during_training import Evaluation

        dataset = data.watched(options.eval_images)
        if len(dataset) < 2:
            raise ValueError(f"--eval_interval {options.eval_interval}: {len(dataset)} validation pictures; needs 2")
        evaluation = Evaluation(dataset, data.config, folder, device, world)
        evaluation.check(state)
        periodic.append(Periodic(options.eval_interval, evaluation))
    return periodic
