"""Make labelled images of layouts with a trained model. The same command again continues an interrupted run."""

import json
import logging
import time
from functools import partial
from pathlib import Path

from ..config import RunConfig, SampleConfig, SampleRun
from ..config.flags import dump, parse
from ..sampling.options import resolve_options, settings_of
from ..system.distributed import join, wait_for_all


def main() -> int:
    run, given, switches = parse(SampleRun, __doc__)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    world = join(run.sample.dist_timeout)
    sample, respacing = resolve_options(run, given)

    # Imported only now, so that --help and mistyped flags answer at once.
    from ..run.factory import vocabulary_of
    from ..sampling.batches import make_all
    from ..sampling.gating import judge_image, load_gate, report_quality
    from ..sampling.requests import list_items
    from ..sampling.results import ResultsFolder
    from ..system.device import pick_device

    device = pick_device(sample.device, world)
    config, weights, model, settings = load_model(run, sample, respacing, given, device)
    items = list_items(sample, config)
    gate = load_gate(config, weights.parent, device, world) if sample.is_gated else None
    num_layouts = len({(item.source, item.product, item.objects) for item in items})
    print(f"{len(items)} images from {num_layouts} layouts ({sample.layouts})")
    print(f"weights: {settings['checkpoint']} (sha256 {settings['checkpoint_sha256'][:12]})")

    place = Path(sample.results_path or weights.parent / "samples")
    for run_index in range(sample.num_runs):
        folder = place / f"run{run_index}" if sample.num_runs > 1 else place
        results = ResultsFolder(folder, vocabulary_of(config), world.rank)
        settings = {**settings, "run": run_index}
        done = results.done(items, settings)
        print(f"{results.path.resolve()}: {len(done)} of {len(items)} done already", flush=True)
        if switches["dry_run"]:
            print(json.dumps(settings, indent=2))
            continue
        wait_for_all(f"{folder} looked at")
        if world.is_main:
            results.open()
        wait_for_all(f"{folder} opened")
        make = choose_maker(model, items, config, run_index, gate)
        on_image = partial(add_image, results, items, settings, sample)
        judge = partial(judge_image, gate, items, sample) if gate else None
        attempts = 1 if sample.is_inserting else sample.max_attempts  # objects are drawn again one by one there
        started = time.perf_counter()
        make_all(make, len(items), sample.batch_size, on_image, done, world, judge, sample.reject_below, attempts)
        if sample.is_inserting and len(done) < len(items):
            print_pace(time.perf_counter() - started, items, done, world.size)
        wait_for_all(f"{folder} made")
        if world.is_main:
            results.finish(items, sample.save_npz, sample.export)
            if gate:
                report_quality(results, gate)
        print_places(results.path, sample.report and world.is_main)
    return 0


def load_model(run: SampleRun, sample: SampleConfig, respacing: str, given: dict, device) -> tuple:
    """Load the trained model; return its configuration, its weights' path, itself, and the samples' settings.

    ValueError for options that this model cannot follow.
    """
    from ..diffusion.guidance import guided_timesteps
    from ..run.checkpoint import config_beside, sha256
    from ..run.factory import trained_config
    from ..sampling.generate import TrainedModel
    from ..system import storage
    from ..system.device import resolve_precision

    weights = storage.weights(sample.model_path)
    fallback = RunConfig(data=run.data, model=run.model, diffusion=run.diffusion)
    config = trained_config(weights, given, fallback, "model_path", free=("timestep_respacing",))
    if config_beside(weights) is None:
        print(f"note: no config.json beside {weights}: the model is what the flags say")
    elif sample.s != 1 and not (config.train.drop_rate and config.model.class_cond):
        logging.warning("--s %g: the model was not trained for guidance (--drop_rate)", sample.s)
    if "num_steps" in given and sample.num_steps > config.diffusion.diffusion_steps:
        raise ValueError(f"--num_steps {sample.num_steps}: the model knows {config.diffusion.diffusion_steps} steps")
    if sample.masks and config.model.layout_kind != "boxes":
        raise ValueError(f"--masks True: a model that sees no boxes (--conditioning {config.model.conditioning})")
    model = TrainedModel.load(config, weights, respacing, sample, device)
    if sample.guided_levels and not guided_timesteps(model.diffusion, sample.guided_levels):
        raise ValueError(f"--guidance_interval {sample.guidance_interval}: the noise level of no step lies there")
    precision = resolve_precision(sample.precision, sample.use_fp16, device)
    settings = settings_of(sample, respacing, precision, config.model.image_size, weights, sha256(weights))
    return config, weights, model, settings


def choose_maker(model, items: list, config: RunConfig, run_index: int, gate):
    """Return the function that makes a batch: images of the model's own, or whole ones with objects put into them."""
    from ..run.factory import vocabulary_of
    from ..sampling.gating import accept_window
    from ..sampling.generate import make_images
    from ..sampling.insertion.canvas import ModelInput
    from ..sampling.insertion.insert import Inserter

    sample, vocabulary = model.sample, vocabulary_of(config)
    if not sample.is_inserting:
        return partial(make_images, model, items, vocabulary, run_index, sample.needs_good_parts)
    accept = partial(accept_window, gate, sample) if gate else None
    return partial(Inserter(model.fill, vocabulary, ModelInput.of(config), sample, accept).make, items, run_index)


def add_image(results, items: list, settings: dict, sample: SampleConfig, index: int, made) -> None:
    """Add a finished image, its weak mask and its quality to the results folder."""
    from ..sampling import weak_masks

    item, mask, extra = items[index], None, {}
    objects = item.objects if made.objects is None else made.objects
    if sample.masks:
        masks = weak_masks.find(made.image, made.good_part, objects)
        labels = [results.vocabulary.classes.index(box.label) + 1 for box in objects]
        mask, extra = weak_masks.label_map(masks, labels), {"masks": weak_masks.codes(masks)}
    rejected = False
    if made.quality:
        extra |= {"attempt": made.attempt, "redrawn": made.redrawn, "quality": made.quality.of_image.as_json()}
        rejected = not sample.is_inserting and made.quality.score < sample.reject_below
    results.add(index, item, made.image, settings, made.source, mask, extra, objects, rejected)


def print_pace(seconds: float, items: list, done: set, ranks: int) -> None:
    from ..sampling.insertion.insert import count_new

    count = count_new(item for index, item in enumerate(items) if index not in done)
    if count:
        print(f"{count} objects in {seconds:.0f} s on {ranks} processes: {seconds / count:.2f} s each")


def print_places(folder: Path, with_report: bool) -> None:
    """Print the finished files' paths, with the report written first if asked for."""
    if with_report:
        from ..pages.report import write_report

        print(f"report: {write_report(folder).resolve()}")
    print(f"samples, labels and manifest: {folder.resolve()}")
    print(f"contact sheet: {(folder / 'preview.png').resolve()}")
