"""The metrics of features: distances between two sets of them, and how they lie among one another."""

from collections.abc import Callable

from .comparison import Comparison, Pair
from .figures import Figure
from .metric import Metric
from .metrics import frechet
from .metrics.inception_score import inception_score
from .metrics.kid import kid, kid_of_subsets
from .metrics.prdc import prdc


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


def facts(comparison: Comparison, with_reference: bool = True) -> dict:
    return comparison.facts(with_reference) | comparison.feature_facts()


def named(comparison: Comparison, name: str, own_name: str) -> str:
    """Inception's figures have the literature's names, in a mode of compatibility with it; others are called own."""
    if comparison.extractor.suffix:
        return f"{own_name}-{comparison.extractor.suffix}"
    return f"{name} ({comparison.compat})" if comparison.compat else name


FEATURE_METRICS: dict[str, Metric] = {
    "fid": Metric(check_fid, lambda comparison: comparison.pair("pool"), fid, ("pool",)),
    "kid": of_features("pool", kernel_distance),
    "is": of_features("logits", inception_scores, with_reference=False),
    "sfid": of_features("spatial", sfid),
    "prdc": of_features("pool", four_shares),
    "scene_fid": Metric(lambda comparison: comparison.objects, Comparison.object_pair, scene_fid),
}
