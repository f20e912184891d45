"""The metrics of evaluate.py by name: what each needs, and the figures that come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diversity
import frechet
import numpy as np
from comparison import Comparison, Pair, file_facts
from figures import Figure
from inception_score import inception_score
from kid import kid, kid_of_subsets
from lpips_network import find_backbone, find_linear, load_model
from prdc import prdc


@dataclass(frozen=True)
class Metric:
    """In three steps, of which all processes take the first two and the first one alone the last.

    `check` raises ValueError or ModuleNotFoundError where the metric cannot be had; `gather` is the work; `figures`
    makes the numbers of it. `kinds` are the features of whole images that it wants.
    """

    check: Callable[[Comparison], Any]
    gather: Callable[[Comparison], Any]
    figures: Callable[[Comparison, Any], list[Figure]]
    kinds: tuple[str, ...] = ()


def of_features(kind: str, figures: Callable[[Comparison, Pair], list[Figure]], with_reference: bool = True) -> Metric:
    return Metric(
        check=lambda comparison: comparison.check_kind(kind, with_reference),
        gather=lambda comparison: comparison.pair(kind),
        figures=figures,
        kinds=(kind,),
    )


def check_fid(comparison: Comparison) -> None:
    """Statistics will do on the reference's side: those of published sets come so."""
    if comparison.reference.items:
        comparison.check_kind("pool")
    elif not comparison.samples.items or "pool" not in comparison.extractor.kinds:
        raise ValueError("needs images as samples")


def fid(comparison: Comparison, pair: Pair) -> list[Figure]:
    samples, reference = pair
    if reference is not None:
        return [frechet_figure(comparison, "FID", "FD", pair, facts(comparison))]
    stored = comparison.reference
    if len(stored.mu) != samples.shape[1]:
        raise ValueError(f"{stored.path} holds {len(stored.mu)} features, the samples have {samples.shape[1]}")
    value = frechet.frechet_distance(*frechet.statistics(samples), stored.mu, stored.sigma)
    return [Figure(named(comparison, "FID", "FD"), value, protocol=facts(comparison))]


def sfid(comparison: Comparison, pair: Pair) -> list[Figure]:
    told = facts(comparison) | {
        "features": f"Inception 2015-12-05, mixed_6/conv, first 7 channels ({pair[0].shape[1]})"
    }
    return [frechet_figure(comparison, "sFID", "sFD", pair, told)]


def scene_fid(comparison: Comparison, pair: Pair) -> list[Figure]:
    cuts = comparison.objects
    around = cuts[0].items[0].around
    told = facts(comparison) | {
        "objects": f"{len(cuts[0].items)} of the samples, {len(cuts[1].items)} of the reference",
        "crop": "with what is around it" if around else f"the box, bicubic to {comparison.options.crop_size}",
    }
    return [frechet_figure(comparison, "SceneFID", "SceneFD", pair, told)]


def frechet_figure(comparison: Comparison, name: str, own_name: str, pair: Pair, told: dict) -> Figure:
    options = comparison.options
    spread = frechet.standard_error(*pair, options.bootstrap, options.seed)
    how = f"standard error, bootstrap of {options.bootstrap}" if spread is not None else ""
    told = told | ({"seed": options.seed} if how else {})
    return Figure(named(comparison, name, own_name), frechet.frechet(*pair), "lower", spread, how, told)


def kernel_distance(comparison: Comparison, pair: Pair) -> list[Figure]:
    options, name = comparison.options, named(comparison, "KID", "KID")
    told = facts(comparison) | {"kernel": "(x . y / D + 1)^3, unbiased"}
    whole = kid(*pair)
    found = [Figure(name, whole.value, "lower", whole.standard_error, "standard error, jackknife", told)]
    if options.kid_subset_size <= min(map(len, pair)):
        mean, deviation = kid_of_subsets(*pair, options.kid_subsets, options.kid_subset_size, options.seed)
        how = f"{options.kid_subsets} subsets of {options.kid_subset_size}"
        told = told | {"subsets": how, "seed": options.seed}
        found.append(Figure(f"{name} (subsets)", mean, "lower", deviation, "deviation over subsets", told))
    return found


def inception_scores(comparison: Comparison, pair: Pair) -> list[Figure]:
    options = comparison.options
    mean, deviation = inception_score(pair[0], options.is_splits, options.seed)
    told = facts(comparison, with_reference=False) | {
        "features": "Inception 2015-12-05, logits without bias (1,008)",
        "splits": options.is_splits,
        "seed": options.seed,
    }
    return [Figure("IS", mean, "higher", deviation, f"deviation over {options.is_splits} splits", told)]


def four_shares(comparison: Comparison, pair: Pair) -> list[Figure]:
    samples, reference = pair
    told = facts(comparison) | {"k": comparison.options.prdc_k}
    found = prdc(reference, samples, comparison.options.prdc_k)
    return [
        Figure(named(comparison, name, name), share.value, "higher", share.standard_error, "standard error", told)
        for name, share in found.items()
    ]


def check_lpips(comparison: Comparison) -> None:
    comparison.groups  # noqa: B018, said where there are none
    lpips_files(comparison)


def lpips_files(comparison: Comparison) -> tuple[Path, Path]:
    """The linear layers and the backbone."""
    options = comparison.options
    given = [Path(name) if name else None for name in (options.lpips_weights, options.backbone_weights)]
    return find_linear(options.lpips_net, given[0]), find_backbone(options.lpips_net, given[1])


def measure_lpips(comparison: Comparison) -> list[diversity.Distances]:
    options, device = comparison.options, comparison.reading.device
    model = load_model(options.lpips_net, *lpips_files(comparison)).to(device)
    compat = options.lpips_compat or None
    return diversity.measure(model, comparison.groups, options.lpips_size, compat, device, comparison.world)


def lpips(comparison: Comparison, distances: list[diversity.Distances]) -> list[Figure]:
    """DS; identical images of one layout are warned of by the 0 that they give."""
    options, groups = comparison.options, comparison.groups
    found = diversity.summarise(groups, distances)
    linear, backbone = lpips_files(comparison)
    images = sorted({len(images) for _, images in groups})
    told = comparison.facts(with_reference=False) | {
        "layouts": len(groups),
        "images_per_layout": ", ".join(map(str, images)),
        "net": f"{options.lpips_net} v0.1",
        **file_facts(linear=linear, backbone=backbone),
        "resize": diversity.resize_rule(options.lpips_size, options.lpips_compat or None),
    }
    spread = found["ds_std_over_layouts"] / np.sqrt(len(groups))
    return [Figure("DS (LPIPS)", found["ds"], "higher", float(spread), "standard error over layouts", told, found)]


def facts(comparison: Comparison, with_reference: bool = True) -> dict:
    return comparison.facts(with_reference) | comparison.feature_facts()


def named(comparison: Comparison, name: str, own_name: str) -> str:
    """Inception's figures have the literature's names, in a mode of compatibility with it; others are called own."""
    if comparison.extractor.suffix:
        return f"{own_name}-{comparison.extractor.suffix}"
    return f"{name} ({comparison.compat})" if comparison.compat else name


METRICS: dict[str, Metric] = {
    "fid": Metric(check_fid, lambda comparison: comparison.pair("pool"), fid, ("pool",)),
    "kid": of_features("pool", kernel_distance),
    "is": of_features("logits", inception_scores, with_reference=False),
    "sfid": of_features("spatial", sfid),
    "prdc": of_features("pool", four_shares),
    "scene_fid": Metric(lambda comparison: comparison.objects, Comparison.object_pair, scene_fid),
    "lpips": Metric(check_lpips, measure_lpips, lpips),
}
