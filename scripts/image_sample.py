"""Make labelled images of layouts with a trained model. The same command again continues an interrupted run."""

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from stay_diffusion.command import run_command
from stay_diffusion.config import RunConfig, SampleConfig, SampleRun
from stay_diffusion.distributed import join, wait_for_all
from stay_diffusion.flags import dump, parse, text
from stay_diffusion.storage import check_writable_here, is_remote


def main() -> int:
    run, given, switches = parse(SampleRun, __doc__)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    world = join(run.sample.dist_timeout)
    sample, respacing = settled(run, given)

    # Imported only now, so that --help and mistyped flags answer at once.
    from stay_diffusion import factory, storage
    from stay_diffusion.checkpoint import config_beside, sha256
    from stay_diffusion.device import pick_device, resolve_precision
    from stay_diffusion.sampling import weak_masks
    from stay_diffusion.sampling.export import ResultsFolder
    from stay_diffusion.sampling.generate import generate_all

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
    device = pick_device(sample.device, world)
    model = factory.load_trained(config, weights, device)
    vocabulary = factory.vocabulary_of(config)
    shape = (config.model.image_channels, config.model.image_size, config.model.image_size)

    if sample.masks and config.model.layout_kind != "boxes":
        raise ValueError(f"--masks True: a model that sees no boxes (--conditioning {config.model.conditioning})")

    # What to make
    items, num_layouts = wanted(sample, config)
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
        **({"mask_kind": weak_masks.KIND} if sample.masks else {}),
    }
    print(f"{len(items)} images from {num_layouts} layouts ({sample.layouts})")
    print(f"weights: {settings['checkpoint']} (sha256 {settings['checkpoint_sha256'][:12]})")

    # Make them, once or several times
    place = Path(sample.results_path or weights.parent / "samples")
    for run_index in range(sample.num_runs):
        folder = place / f"run{run_index}" if sample.num_runs > 1 else place
        results = ResultsFolder(folder, vocabulary, world.rank)
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
        generate_all(
            model,
            factory.build_diffusion(config.diffusion),
            items,
            vocabulary,
            shape,
            sample,
            respacing,
            device,
            on_image=partial(add, results, of_run),
            done=done,
            run=run_index,
            world=world,
            good_parts=sample.masks,
        )
        wait_for_all(f"{folder} made")
        if world.is_main:
            results.finish(items, sample.save_npz, sample.export)
        print(f"samples, labels and manifest: {results.path.resolve()}")
        print(f"contact sheet: {(results.path / 'preview.png').resolve()}")
    return 0


def add(results, settings: dict, index: int, item, image, good_part=None) -> None:
    """Image (C, H, W) and, where weak masks are wanted, its good part, into the results folder."""
    from stay_diffusion.data.images import to_pil
    from stay_diffusion.sampling import weak_masks

    picture = to_pil(image)
    if good_part is None:
        results.add(index, item, picture, settings)
        return
    masks = weak_masks.find(picture, to_pil(good_part), item.objects)
    labels = [results.vocabulary.classes.index(box.label) + 1 for box in item.objects]
    mask, extra = weak_masks.label_map(masks, labels), {"masks": weak_masks.codes(masks)}
    results.add(index, item, picture, settings, mask=mask, extra=extra)


def wanted(sample: SampleConfig, config: RunConfig) -> tuple[list, int]:
    """What to make, item by item, and from how many layouts."""
    from stay_diffusion import factory
    from stay_diffusion.sampling.layouts import choose, from_dataset, from_file, from_nothing

    if sample.layouts == "sampled":
        items = layout_sampler(sample, config, "seen").items(sample.num_samples, (config.model.image_size,) * 2)
        return items, len(items)
    vocabulary = factory.vocabulary_of(config)
    if sample.layouts not in ("train", "val"):
        if config.model.layout_kind == "map":
            raise ValueError(
                f"--layouts {sample.layouts}: holds boxes, but the model (--conditioning spade) wants label maps: "
                "--layouts val or train"
            )
        available = from_file(Path(sample.layouts), vocabulary)
    elif config.data.data_dir or config.model.layout_kind:
        records, _ = factory.read_split(config.data, sample.layouts)
        if config.data.on_bad_data == "skip":
            records = factory.with_readable_pictures(records, config.data)
        available = from_dataset(factory.build_dataset(records, config, augment=False), sample.num_samples)
    else:
        available = from_nothing(sample.num_samples, vocabulary, sample.seed)
    return choose(available, sample.num_samples), len(available)


def layout_sampler(sample: SampleConfig, config: RunConfig, kind: str):
    """What draws layouts like the training data's, as "seen" in training or of "whole" pictures.

    By the statistics in the run folder; where there are none, or of other data, by those of the training split.
    """
    from stay_diffusion import factory, storage
    from stay_diffusion.checkpoint import config_beside
    from stay_diffusion.sampling import layout_statistics_file
    from stay_diffusion.sampling.layout_sampler import LayoutSampler
    from stay_diffusion.sampling.layout_statistics import of_dataset

    if config.model.layout_kind != "boxes":
        wants = "wants label maps: --layouts val or train" if config.model.layout_kind else "sees none"
        raise ValueError(f"--layouts sampled: draws boxes, but the model {wants}")
    weights, vocabulary = storage.weights(sample.model_path), factory.vocabulary_of(config)
    file, trained = weights.parent / layout_statistics_file.NAME, config_beside(weights)
    if file.exists() and trained and layout_statistics_file.same_data(config.data, trained.data):
        statistics = layout_statistics_file.read(file, vocabulary)
    else:
        records, _ = factory.read_split(config.data, "train")
        print(f"note: no {file.name} of these data in {file.parent}: counted in {len(records)} training pictures")
        if config.data.on_bad_data == "skip":
            records = factory.with_readable_pictures(records, config.data)
        statistics = of_dataset(factory.build_dataset(records, config, augment=False))
    return LayoutSampler(
        statistics[kind],
        vocabulary,
        sample.seed,
        class_balance=sample.class_balance,
        rare_first=sample.rare_first,
        good_parts=sample.good_parts,
        no_overlap=sample.no_overlap,
    )


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
    for name in ("class_balance", "rare_first", "good_parts", "no_overlap"):
        if sample.layouts != "sampled" and getattr(sample, name) != getattr(SampleConfig(), name):
            raise ValueError(
                f"--{name} {text(getattr(sample, name))}: only --layouts sampled has it, not {sample.layouts}"
            )
    if sample.layouts == "sampled" and not sample.num_samples:
        raise ValueError("--num_samples: needed with --layouts sampled, which knows no end")
    if sample.use_ddim:
        if given.get("sampler", "ddim") != "ddim":
            raise ValueError(f"--use_ddim True contradicts --sampler {sample.sampler}")
        sample = replace(sample, sampler="ddim")
    if sample.eta and sample.sampler != "ddim":
        raise ValueError(f"--eta {sample.eta}: only ddim takes it, not {sample.sampler}")
    if respacing and "num_steps" in given:
        raise ValueError(f"--num_steps {sample.num_steps} and --timestep_respacing {respacing}: give one of them")
    return sample, respacing or f"logsnr{sample.num_steps}"


if __name__ == "__main__":
    run_command(main)
