"""Make labelled images of layouts with a trained model. The same command again continues an interrupted run."""

import json
import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..config import RunConfig, SampleConfig, SampleRun
from ..config.flags import dump, parse, text
from ..system.distributed import join, wait_for_all
from ..system.storage import check_writable_here, is_remote

OF_SAMPLED_LAYOUTS = ("class_balance", "rare_first", "good_parts", "no_overlap")


def main() -> int:
    run, given, switches = parse(SampleRun, __doc__)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    world = join(run.sample.dist_timeout)
    sample, respacing = settled(run, given)

    # Imported only now, so that --help and mistyped flags answer at once.
    from ..diffusion.gaussian_diffusion import respace
    from ..diffusion.guidance import guided_timesteps
    from ..run import factory
    from ..run.checkpoint import config_beside, sha256
    from ..sampling import weak_masks
    from ..sampling.batches import make_all
    from ..sampling.requests import wanted
    from ..sampling.results import ResultsFolder
    from ..system import storage
    from ..system.device import pick_device, resolve_precision

    # The trained model
    weights = storage.weights(sample.model_path)
    fallback = RunConfig(data=run.data, model=run.model, diffusion=run.diffusion)
    config = factory.trained_config(weights, given, fallback, "model_path", free=("timestep_respacing",))
    if config_beside(weights) is None:
        print(f"note: no config.json beside {weights}: the model is what the flags say")
    elif sample.s != 1 and not (config.train.drop_rate and config.model.class_cond):
        logging.warning("--s %g: the model was not trained for guidance (--drop_rate)", sample.s)
    if "num_steps" in given and sample.num_steps > config.diffusion.diffusion_steps:
        raise ValueError(f"--num_steps {sample.num_steps}: the model knows {config.diffusion.diffusion_steps} steps")
    if sample.masks and config.model.layout_kind != "boxes":
        raise ValueError(f"--masks True: a model that sees no boxes (--conditioning {config.model.conditioning})")
    device = pick_device(sample.device, world)
    model = factory.load_trained(config, weights, device)
    diffusion = respace(factory.build_diffusion(config.diffusion), respacing).to(device)
    if sample.guided_levels and not guided_timesteps(diffusion, sample.guided_levels):
        raise ValueError(f"--guidance_interval {sample.guidance_interval}: the noise level of no step lies there")

    # What to make
    items = wanted(sample, config)
    settings = {
        "seed": sample.seed,
        "run": 0,
        "s": sample.s,
        "sampler": sample.sampler,
        "timestep_respacing": respacing,
        "eta": sample.eta,
        "clip_denoised": sample.clip_denoised,
        "precision": resolve_precision(sample.precision, sample.use_fp16, device),
        "image_size": config.model.image_size,
        "checkpoint": str(weights.resolve()),
        "checkpoint_sha256": sha256(weights),
        **({"guidance_interval": sample.guidance_interval} if sample.guidance_interval else {}),
        **({"mask_kind": weak_masks.KIND} if sample.masks else {}),
        **(drawn(sample) if sample.layouts == "sampled" else {}),
        **(inserted(sample) if is_inserting(sample) else {}),
        **(gated(sample) if is_gated(sample) else {}),
    }
    gate = None
    if is_gated(sample):
        from ..sampling.gating import judged, passes, quality_gate, tell_quality

        gate = quality_gate(config, weights.parent, device, world)
    num_layouts = len({(item.source, item.product, item.objects) for item in items})
    print(f"{len(items)} images from {num_layouts} layouts ({sample.layouts})")
    print(f"weights: {settings['checkpoint']} (sha256 {settings['checkpoint_sha256'][:12]})")

    # Make them, once or several times
    place = Path(sample.results_path or weights.parent / "samples")
    for run_index in range(sample.num_runs):
        folder = place / f"run{run_index}" if sample.num_runs > 1 else place
        results = ResultsFolder(folder, factory.vocabulary_of(config), world.rank)
        of_run = {**settings, "run": run_index}
        done = results.done(items, of_run)
        print(f"{results.path.resolve()}: {len(done)} of {len(items)} done already", flush=True)
        if switches["dry_run"]:
            print(json.dumps(of_run, indent=2))
            continue
        wait_for_all(f"{folder} looked at")
        if world.is_main:
            results.open()
        wait_for_all(f"{folder} opened")
        make = maker(
            model, diffusion, items, sample, config, run_index, partial(passes, gate, sample) if gate else None
        )
        on_image = partial(add, results, items, of_run, sample)
        judge = partial(judged, gate, items, sample) if gate else None
        started = time.perf_counter()
        attempts = 1 if is_inserting(sample) else sample.max_attempts  # objects are drawn again one by one there
        make_all(make, len(items), sample.batch_size, on_image, done, world, judge, sample.reject_below, attempts)
        if is_inserting(sample) and len(done) < len(items):
            tell_pace(time.perf_counter() - started, items, done, world.size)
        wait_for_all(f"{folder} made")
        if world.is_main:
            results.finish(items, sample.save_npz, sample.export)
            if gate:
                tell_quality(results, gate)
            if sample.report:
                from ..pages.report import write_report

                print(f"report: {write_report(results.path).resolve()}")
        print(f"samples, labels and manifest: {results.path.resolve()}")
        print(f"contact sheet: {(results.path / 'preview.png').resolve()}")
    return 0


def maker(model, diffusion, items: list, sample: SampleConfig, config: RunConfig, run_index: int, accept=None):
    """What makes the pictures of items: the model's own, or whole ones that it puts objects into."""
    from ..run.factory import vocabulary_of
    from ..sampling.generate import filling, sampling
    from ..sampling.insertion.canvas import View
    from ..sampling.insertion.insert import inserting

    size, channels = config.model.image_size, config.model.image_channels
    shape, vocabulary = (channels, size, size), vocabulary_of(config)
    with_good_parts = sample.masks or is_gated(sample)
    if not is_inserting(sample):
        return sampling(model, diffusion, items, vocabulary, shape, sample, run_index, with_good_parts)
    view = View(size, channels, config.data.crop_policy, config.data.min_visible, config.data.black_and_white)
    return inserting(
        filling(model, diffusion, shape, sample),
        items,
        vocabulary,
        view,
        sample.box_margin,
        sample.seed,
        run_index,
        with_good_parts,
        accept,
        sample.max_attempts if accept else 1,
    )


def add(results, items: list, settings: dict, sample: SampleConfig, index: int, made) -> None:
    """A finished picture, with what is known of it, into the results folder."""
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
        rejected = not is_inserting(sample) and made.quality.score < sample.reject_below
    results.add(index, item, made.image, settings, made.source, mask, extra, objects, rejected)


def tell_pace(seconds: float, items: list, done: set, ranks: int) -> None:
    from ..sampling.insertion.insert import count_new

    count = count_new(item for index, item in enumerate(items) if index not in done)
    if count:
        print(f"{count} objects in {seconds:.0f} s on {ranks} processes: {seconds / count:.2f} s each")


def is_inserting(sample: SampleConfig) -> bool:
    return bool(sample.insert_into or sample.edit)


def is_gated(sample: SampleConfig) -> bool:
    return bool(sample.reject_below or sample.reject_copies)


def gated(sample: SampleConfig) -> dict:
    return {name: getattr(sample, name) for name in ("reject_below", "reject_copies", "max_attempts")}


def drawn(sample: SampleConfig) -> dict:
    """How layouts were drawn, as the settings of the pictures say it."""
    return {name: getattr(sample, name) for name in ("layouts", *OF_SAMPLED_LAYOUTS)}


def inserted(sample: SampleConfig) -> dict:
    """What the settings of pictures that objects were put into say besides."""
    place = {"edit": where(sample.edit)} if sample.edit else {"insert_into": where(sample.insert_into)}
    of_repaint = {"sampler": "repaint", "box_margin": sample.box_margin, "num_resamples": sample.num_resamples}
    return {**place, "layouts": where(sample.layouts), **of_repaint}


def where(place: str) -> str:
    """The name of a split, an address, or a path that is the same from wherever it is used."""
    return place if place in ("train", "val", "sampled") or is_remote(place) else str(Path(place).resolve())


def settled(run: SampleRun, given: dict):
    """The sampling options with the tradition's names resolved, and the steps to visit."""
    sample, respacing = run.sample, run.diffusion.timestep_respacing
    if not sample.model_path:
        raise ValueError("--model_path: needed, the weights to sample from")
    if is_remote(sample.model_path) and not sample.results_path:
        raise ValueError(f"--results_path: needed, as --model_path {sample.model_path} is not a folder to write to")
    check_writable_here("results_path", sample.results_path)
    if sample.is_train:
        if given.get("layouts", "train") != "train":
            raise ValueError(f"--is_train True contradicts --layouts {sample.layouts}")
        sample = replace(sample, layouts="train")
    if is_inserting(sample):
        sample = settled_insertion(sample, given)
    for name in ("layout", "box_margin", "num_resamples"):
        if name in given and not is_inserting(sample):
            raise ValueError(f"--{name} {given[name]}: only --insert_into and --edit have it")
    for name in OF_SAMPLED_LAYOUTS:
        if sample.layouts != "sampled" and getattr(sample, name) != getattr(SampleConfig(), name):
            raise ValueError(
                f"--{name} {text(getattr(sample, name))}: only --layouts sampled has it, not {sample.layouts}"
            )
    if sample.layouts == "sampled" and not sample.num_samples and not is_inserting(sample):
        raise ValueError("--num_samples: needed with --layouts sampled, which knows no end")
    if sample.use_ddim:
        if given.get("sampler", "ddim") != "ddim":
            raise ValueError(f"--use_ddim True contradicts --sampler {sample.sampler}")
        sample = replace(sample, sampler="ddim")
    if sample.guided_levels and sample.s == 1:
        raise ValueError(f"--guidance_interval {sample.guidance_interval}: without guidance (--s 1) it does nothing")
    if sample.eta and sample.sampler != "ddim":
        raise ValueError(f"--eta {sample.eta}: only ddim takes it, not {sample.sampler}")
    if respacing and "num_steps" in given:
        raise ValueError(f"--num_steps {sample.num_steps} and --timestep_respacing {respacing}: give one of them")
    return sample, respacing or f"logsnr{sample.num_steps}"


def settled_insertion(sample: SampleConfig, given: dict) -> SampleConfig:
    """The options of putting objects into whole pictures: by default drawn like the training data's."""
    if sample.insert_into and sample.edit:
        raise ValueError(f"--edit {sample.edit} and --insert_into {sample.insert_into}: give one of them")
    if sample.edit and bool(sample.layout) == ("layouts" in given):
        raise ValueError(f"--edit {sample.edit}: needs --layout FILE, what to put into it (or --layouts sampled)")
    for name in ("sampler", "use_ddim", "eta"):
        if name in given:
            raise ValueError(f"--{name} {given[name]}: --insert_into and --edit have a sampler of their own (RePaint)")
    layouts = sample.layout or (sample.layouts if "layouts" in given or sample.is_train else "sampled")
    return replace(sample, layouts=layouts)
