"""The metrics of a model at hand: what its boxes change in its samples, and how likely it holds real images."""

import itertools
import math
from pathlib import Path

from ..detector.data import runs_of
from .comparison import Comparison
from .figures import Figure
from .metric import Metric
from .metrics import box_adherence, likelihood
from .metrics.adherence import measure

# Adherence


def folders_of(comparison: Comparison) -> list[Path]:
    """The folders of the samples' runs; ValueError where no model made them."""
    folders = runs_of(Path(comparison.options.samples))
    if not folders:
        raise ValueError(
            f"{comparison.options.samples}: no model made these pictures, as far as a manifest.jsonl tells"
        )
    return folders


def check_adherence(comparison: Comparison) -> None:
    for folder in folders_of(comparison):
        box_adherence.check(folder)


def good_parts(comparison: Comparison) -> tuple[list, dict]:
    """Of each run what `measure` takes, and the settings of the last; all processes sample the good parts."""
    pairs, settings = [], {}
    for folder in folders_of(comparison):
        of_run, settings = box_adherence.pairs_of(
            folder, comparison.options.batch_size, comparison.reading.device, comparison.world
        )
        pairs.append(of_run)
    return pairs, settings


def adherence_figures(comparison: Comparison, found: tuple[list, dict]) -> list[Figure]:
    pairs, settings = found
    adherence = measure(itertools.chain(*pairs))
    told = comparison.facts(with_reference=False) | {
        "boxes": adherence.boxes,
        "pictures_with_boxes": adherence.pictures,
        **{name: value for name, value in settings.items() if name != "run"},
    }
    how, details = (
        "standard error, jackknife",
        {
            "inside": adherence.inside,
            "outside": adherence.outside,
            "per_class": adherence.per_class,
        },
    )
    figures = []
    if adherence.ratio is not None:
        error = adherence.ratio_error
        figures.append(Figure("in/out ratio", adherence.ratio, "higher", error, how if error else "", told, details))
    error = adherence.empty_rate_error
    return [*figures, Figure("empty boxes", adherence.empty_rate, "lower", error, how if error else "", told, details)]


# Bits per dimension


def check_nll(comparison: Comparison) -> None:
    weights, config = likelihood.model_of(comparison)
    likelihood.check_images(comparison.labelled_reference, config, weights)


def nll_figure(comparison: Comparison, found: dict) -> list[Figure]:
    options, report = comparison.options, dict(found)
    told = comparison.facts() | report.pop("protocol") | {"seed": options.seed}
    error, value = report["standard_error"], report.pop("bpd")
    if not math.isfinite(value):
        raise ValueError(f"{told['model']}: the bound of some image is not finite")
    how = "standard error over images" if error is not None else ""
    return [Figure("bits per dimension", value, "lower", error, how, told, report)]


MODEL_METRICS: dict[str, Metric] = {
    "adherence": Metric(check_adherence, good_parts, adherence_figures),
    "nll": Metric(check_nll, likelihood.measure, nll_figure),
}
