"""Inception score: how sure Inception is of each image's class, and how many classes there are; higher is better.

exp of the mean divergence of each image's class probabilities from their mean (arXiv 1606.03498). The classes are
ImageNet's: of images of anything else the number says little.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..comparison import Comparison, Pair
from ..figures import Figure
from ..metric import metric_of_features

SPLITS = 10  # the literature's


def inception_score(logits: ArrayLike, splits: int = SPLITS, seed: int = 2020) -> tuple[float, float]:
    """Return mean and deviation over `splits` parts, drawn at random, of logits (N, classes); torch-fidelity's seed.

    ValueError where there are fewer images than parts.
    """
    logits = np.asarray(logits, np.float64)
    N = len(logits)
    if splits > N:
        raise ValueError(f"the inception score is over {splits} parts: there are only {N} images")
    logits = logits[np.random.RandomState(seed).permutation(N)]
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    p = np.exp(log_p)
    scores = []
    for k in range(splits):
        part = slice(k * N // splits, (k + 1) * N // splits)
        with np.errstate(divide="ignore", invalid="ignore"):  # a class that no image has: 0 log 0
            divergence = np.where(p[part] > 0, p[part] * (log_p[part] - np.log(p[part].mean(axis=0))), 0.0)
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def score_figures(comparison: Comparison, pair: Pair) -> list[Figure]:
    assert pair[0] is not None
    mean, deviation = inception_score(pair[0], seed=comparison.options.seed)
    protocol = comparison.feature_facts(with_reference=False) | {
        "features": "Inception 2015-12-05, logits without bias (1,008)",
        "splits": SPLITS,
        "seed": comparison.options.seed,
    }
    return [Figure("IS", mean, "higher", deviation, f"deviation over {SPLITS} splits", protocol)]


METRIC = metric_of_features("logits", score_figures, with_reference=False)
