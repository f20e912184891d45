"""Measure generated images: many metrics, one JSON, one Markdown table, each figure with what it depends on.

python evaluations/evaluate.py --samples GENERATED --reference REAL --metrics fid,kid,prdc --json OUT.json

Several processes (mpiexec, torchrun, srun) share the images. Ends with 0 where every metric was computed, with 3 where
some could not be, for want of weights say: the others stand.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stay_diffusion.command import run_command
from stay_diffusion.config import DataConfig, RunConfig, option
from stay_diffusion.distributed import gather, join, start_group
from stay_diffusion.flags import dump, parse

INCOMPLETE = 3  # exit code
KNOWN = (
    "fid",
    "kid",
    "is",
    "sfid",
    "prdc",
    "scene_fid",
    "lpips",
    "cas",
    "recognised",
    "yolo_score",
    "adherence",
    "nll",
)


@dataclass(frozen=True)
class EvaluateConfig:
    samples: str = option("", "generated images: a folder, image_sample.py's results, or an npz")
    reference: str = option(
        "", "real images: a folder, an npz (images, or mu and sigma), or val or train: the split as the model saw it"
    )
    metrics: tuple = option((), f"which, of {', '.join(KNOWN)}; none given: the protocol's, else fid, kid and prdc")
    features: str = option("inception", "inception, or trained:FILE, a file of train_features.py (FD-own, KID-own)")
    protocol: str = option(
        "", "check counts and sizes against the literature's", ("", "layoutdiffusion", "lostgan", "sdm")
    )
    compat: str = option("", "oasis: Inception's input as the scripts of OASIS and SDM resize it", ("", "oasis"))
    image_size: int = option(0, "resize every image to N x N first (Pillow's bicubic); 0: as they are", least=0)
    crop_size: int = option(224, "scene_fid: objects are cut out and resized to this", least=8)
    bootstrap: int = option(
        20, "resamples behind the standard errors of Frechet distances and detection scores; 0: none", least=0
    )
    kid_subsets: int = option(100, "KID over this many subsets, as the literature gives it", least=1)
    kid_subset_size: int = option(1000, "images of each; with fewer there is only the KID of all", least=2)
    is_splits: int = option(10, "parts of the inception score", least=1)
    prdc_k: int = option(5, "prdc: whose neighbour a picture's ball reaches to", least=1)
    seed: int = option(2020, "of subsets, parts and resamples; torch-fidelity's by default", least=0, most=2**32 - 1)
    weights: str = option("", "Inception's weights, if they are not in torch hub's cache")
    lpips_net: str = option("alex", "backbone of LPIPS", ("alex", "vgg", "squeeze"))
    lpips_size: int = option(256, "lpips: every image is resized to N x N (Pillow's bilinear)", least=32)
    lpips_compat: str = option("", "sdm: as SDM's script resizes and normalises", ("", "sdm"))
    lpips_weights: str = option("", "LPIPS's linear layers; empty: those in the lpips package")
    backbone_weights: str = option("", "LPIPS's ImageNet weights, if they are not in torch hub's cache")
    cas_steps: int = option(1000, "cas: optimizer steps of a classifier", least=1)
    cas_seeds: int = option(1, "cas: classifiers, each from its own seed, that the figure is the mean of", least=1)
    gate: str = option(
        "", "recognised: a quality_gate.pt; empty: that of the samples' run, else one trained on --data_dir"
    )
    detector: str = option("", "yolo_score: the detector.pt of train_detector.py that searches the images")
    model_path: str = option("", "nll: weights to measure; empty: those that made the samples")
    nll_images: int = option(100, "nll: so many of the reference's images; 0: all", least=0)
    nll_respacing: str = option("", "nll: the bound of a shorter process, 250 say; empty: the trained one's")
    feature_cache: str = option(
        "", "folder where features are kept; empty: $XDG_CACHE_HOME/stay_diffusion/features; off: nowhere"
    )
    json: str = option("", "write figures and protocols to this file")
    markdown: str = option("", "write the table to this file too")
    batch_size: int = option(32, "images at a time (changes the speed only)", least=1)
    dist_timeout: int = option(600, "seconds that processes wait for one another", least=1)
    device: str = option("", "cpu, cuda, cuda:1 ...; empty: a GPU if there is one")


@dataclass(frozen=True)
class EvaluateRun:
    """What evaluate.py takes; the data flags say how annotated folders are read, for the metrics of objects."""

    evaluate: EvaluateConfig = EvaluateConfig()
    data: DataConfig = RunConfig.data


def main(description: str = __doc__, metrics: Sequence[str] = ()) -> int:
    run, given, switches = parse(EvaluateRun, description.partition("\n")[0])
    run = replace(run, evaluate=settled(run.evaluate, metrics))
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    options = run.evaluate
    world = join(options.dist_timeout)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch
    from comparison import Comparison, versions
    from figures import as_json, as_markdown

    from stay_diffusion.checkpoint import atomic_write
    from stay_diffusion.device import pick_device

    # What there is to compare
    device = pick_device(options.device, world)
    start_group(world, torch.device("cpu"), options.dist_timeout)  # features meet in the processes' own memory
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits of mantissa would show in the numbers
    comparison = Comparison(options, run.data, given, device, world)
    if options.protocol:
        check_protocol(comparison)
    if switches["dry_run"]:
        print(json.dumps({"metrics": options.metrics, **comparison.facts()}, indent=2))
        return 0

    # The figures
    figures, missing = measure(comparison, options.metrics)
    if not world.is_main:
        return INCOMPLETE if missing else 0
    common = {
        "not_computed": missing,
        "warnings": comparison.warnings() + zero_diversity(figures),
        "protocol": options.protocol or None,
    }
    figures = [replace(figure, protocol=figure.protocol | {"versions": versions()}) for figure in figures]

    # Told
    if figures:
        print(as_markdown(figures, common), end="")
    for name, reason in missing.items():
        print(f"not computed: {name}: {reason}", file=sys.stderr)
    for file, text in (
        (options.json, json.dumps(as_json(figures, common), indent=2) + "\n"),
        (options.markdown, as_markdown(figures, common)),
    ):
        if file:
            atomic_write(Path(file), lambda opened, text=text: opened.write(text.encode()))
            print(f"written: {Path(file).resolve()}")
    return INCOMPLETE if missing else 0


def settled(options: EvaluateConfig, metrics: Sequence[str]) -> EvaluateConfig:
    """The options with the metrics and modes that a protocol brings; ValueError for what cannot be."""
    from protocols import PROTOCOLS

    protocol = PROTOCOLS.get(options.protocol)
    metrics = metrics or options.metrics or (protocol.metrics if protocol else ("fid", "kid", "prdc"))
    for name in metrics:
        if name not in KNOWN:
            raise ValueError(f"--metrics {name}: choose from {', '.join(KNOWN)}")
    if not options.samples:
        raise ValueError("--samples: needed, the generated images")
    if options.compat and options.image_size:
        raise ValueError(f"--image_size {options.image_size}: --compat {options.compat} has its own size")
    for flag, file in (("json", options.json), ("markdown", options.markdown)):
        if file and not Path(file).resolve().parent.is_dir():
            raise ValueError(f"--{flag} {file}: no such folder")
    if protocol and protocol.lpips_compat:
        options = replace(options, lpips_compat=protocol.lpips_compat)
    return replace(options, metrics=tuple(dict.fromkeys(metrics)))


def check_protocol(comparison) -> None:
    from diversity import all_groups
    from protocols import check

    options = comparison.options
    groups = all_groups(Path(options.samples)) if Path(options.samples).is_dir() else []
    check(options.protocol, comparison.samples, comparison.given_reference, groups, options.image_size)


def measure(comparison, names: Sequence[str]) -> tuple[list, dict[str, str]]:
    """The figures of the metrics in their order, on the first process, and why others could not be computed."""
    from metrics import METRICS

    assert tuple(METRICS) == KNOWN
    missing = {name: reason for name in names if (reason := why_not(METRICS[name].check, comparison))}
    missing = {name: reason for found in gather(missing) for name, reason in found.items()}  # of any process
    possible = [name for name in names if name not in missing]
    comparison.kinds = list(dict.fromkeys(kind for name in possible for kind in METRICS[name].kinds))
    figures = []
    for name in possible:
        gathered = METRICS[name].gather(comparison)
        if comparison.world.is_main:
            try:
                figures += METRICS[name].figures(comparison, gathered)
            except ValueError as error:
                missing[name] = str(error)
    return figures, missing


def why_not(check, comparison) -> str:
    """Why a metric cannot be had, or ""."""
    try:
        check(comparison)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed: pip install 'stay-diffusion[eval]'"
    except ValueError as error:
        return str(error)
    return ""


def zero_diversity(figures: Sequence) -> list[str]:
    """Layouts whose images do not differ at all."""
    from diversity import IDENTICAL

    found = []
    for figure in figures:
        layouts = figure.details.get("layouts", {})
        same = [name for name, of_layout in layouts.items() if of_layout["mean"] < IDENTICAL]
        if same:
            found.append(
                f"{len(same)} of {len(layouts)} layouts, {same[0]} first, have images that do not differ at all: were "
                "the runs sampled with one seed?"
            )
    return found


def run_metrics(description: str, metrics: Sequence[str]) -> None:
    """The command of one metric's file: evaluate.py with these."""
    run_command(lambda: main(description, metrics), continues=False)


if __name__ == "__main__":
    run_command(main, continues=False)
