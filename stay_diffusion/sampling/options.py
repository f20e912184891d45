"""The sampling options: checked against each other, the tradition's names resolved, and as the manifest keeps them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..config import SampleConfig, SampleRun
from ..config.flags import text
from ..system.storage import check_writable_here, is_remote

MASK_KIND = "weak"  # masks that nobody has drawn, as a manifest calls them
OF_SAMPLED_LAYOUTS = ("class_balance", "rare_first", "good_parts", "no_overlap")
OF_INSERTION = ("layout", "box_margin", "num_resamples")
OF_SAMPLERS = ("sampler", "use_ddim", "eta")


def resolve_options(run: SampleRun, given: dict) -> tuple[SampleConfig, str]:
    """Resolve the tradition's names; return the options and the steps to visit.

    ValueError for the first flag of `given` that contradicts another or has no effect.
    """
    sample, respacing = run.sample, run.diffusion.timestep_respacing
    resolved = sample
    if sample.is_train:
        resolved = replace(resolved, layouts="train")
    if sample.is_inserting:
        is_chosen = "layouts" in given or sample.is_train
        resolved = replace(resolved, layouts=sample.layout or (resolved.layouts if is_chosen else "sampled"))
    if sample.use_ddim:
        resolved = replace(resolved, sampler="ddim")
    for is_wrong, message in _checks(sample, resolved, respacing, given):
        if is_wrong:
            raise ValueError(message)
    return resolved, respacing or f"logsnr{sample.num_steps}"


def _checks(sample: SampleConfig, resolved: SampleConfig, respacing: str, given: dict) -> Iterator[tuple[bool, str]]:
    """Yield conditions that must not hold, each with its message, in the order in which they are reported."""
    yield not sample.model_path, "--model_path: needed, the weights to sample from"
    yield (
        is_remote(sample.model_path) and not sample.results_path,
        f"--results_path: needed, as --model_path {sample.model_path} is not a folder to write to",
    )
    check_writable_here("results_path", sample.results_path)
    yield (
        sample.is_train and given.get("layouts", "train") != "train",
        f"--is_train True contradicts --layouts {sample.layouts}",
    )
    yield (
        bool(sample.insert_into and sample.edit),
        f"--edit {sample.edit} and --insert_into {sample.insert_into}: give one of them",
    )
    yield (
        bool(sample.edit) and bool(sample.layout) == ("layouts" in given),
        f"--edit {sample.edit}: needs --layout FILE, what to put into it (or --layouts sampled)",
    )
    for name in OF_SAMPLERS:
        message = f"--{name} {given.get(name)}: --insert_into and --edit have a sampler of their own (RePaint)"
        yield sample.is_inserting and name in given, message
    for name in OF_INSERTION:
        message = f"--{name} {given.get(name)}: only --insert_into and --edit have it"
        yield name in given and not sample.is_inserting, message
    for name in OF_SAMPLED_LAYOUTS:
        value = getattr(sample, name)
        yield (
            resolved.layouts != "sampled" and value != getattr(SampleConfig(), name),
            f"--{name} {text(value)}: only --layouts sampled has it, not {resolved.layouts}",
        )
    yield (
        resolved.layouts == "sampled" and not sample.num_samples and not sample.is_inserting,
        "--num_samples: needed with --layouts sampled, which knows no end",
    )
    yield (
        sample.use_ddim and given.get("sampler", "ddim") != "ddim",
        f"--use_ddim True contradicts --sampler {sample.sampler}",
    )
    yield (
        sample.guided_levels is not None and sample.s == 1,
        f"--guidance_interval {sample.guidance_interval}: without guidance (--s 1) it does nothing",
    )
    yield (
        bool(sample.eta) and resolved.sampler != "ddim",
        f"--eta {sample.eta}: only ddim takes it, not {resolved.sampler}",
    )
    yield (
        bool(respacing) and "num_steps" in given,
        f"--num_steps {sample.num_steps} and --timestep_respacing {respacing}: give one of them",
    )


def settings_of(sample: SampleConfig, respacing: str, precision: str, image_size: int, weights: Path, sha: str) -> dict:
    """The settings of the first run's samples, as the manifest keeps them: options in force, and the weights."""
    settings = {
        "seed": sample.seed,
        "run": 0,
        "s": sample.s,
        "sampler": sample.sampler,
        "timestep_respacing": respacing,
        "eta": sample.eta,
        "clip_denoised": sample.clip_denoised,
        "precision": precision,
        "image_size": image_size,
        "checkpoint": str(weights.resolve()),
        "checkpoint_sha256": sha,
    }
    if sample.guidance_interval:
        settings["guidance_interval"] = sample.guidance_interval
    if sample.masks:
        settings["mask_kind"] = MASK_KIND
    if sample.layouts == "sampled":
        settings |= {name: getattr(sample, name) for name in ("layouts", *OF_SAMPLED_LAYOUTS)}
    if sample.is_inserting:
        source = "edit" if sample.edit else "insert_into"
        settings |= {source: _place(getattr(sample, source)), "layouts": _place(sample.layouts)}
        settings |= {"sampler": "repaint", "box_margin": sample.box_margin, "num_resamples": sample.num_resamples}
    if sample.is_gated:
        settings |= {name: getattr(sample, name) for name in ("reject_below", "reject_copies", "max_attempts")}
    return settings


def _place(place: str) -> str:
    """The name of a split, an address, or a path that is the same from wherever it is used."""
    return place if place in ("train", "val", "sampled") or is_remote(place) else str(Path(place).resolve())
