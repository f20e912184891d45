"""sFID: the Frechet distance between Inception's spatial features, guided-diffusion's; lower is nearer."""

from ..comparison import Comparison, Pair
from ..figures import Figure
from ..metric import metric_of_features
from .fid import distance_figure


def sfid_figures(comparison: Comparison, pair: Pair) -> list[Figure]:
    assert pair[0] is not None
    facts = {"features": f"Inception 2015-12-05, mixed_6/conv, first 7 channels ({pair[0].shape[1]})"}
    return [distance_figure(comparison, "sFID", "sFD", pair, facts)]


METRIC = metric_of_features("spatial", sfid_figures)
