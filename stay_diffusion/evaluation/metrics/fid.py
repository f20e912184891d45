"""FID: the Frechet distance between Inception's features of two sets of images; lower is nearer.

|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), arXiv 1706.08500. Means and covariances are those of the
features, in float64. sFID, SceneFID and FD-own are the same distance between other features.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..comparison import Comparison, Pair
from ..figures import Figure
from ..image_set import ImageSet
from ..metric import Metric

Gaussian = tuple[NDArray[np.float64], NDArray[np.float64]]  # mean (D,), root (D, R) of the covariance


def frechet(one: ArrayLike, other: ArrayLike) -> float:
    """Compute the distance between features (N, D) and (M, D); N and M at least 2, perhaps fewer than D."""
    return _distance(fit_gaussian(one), fit_gaussian(other))


def frechet_distance(mu1: NDArray, sigma1: NDArray, mu2: NDArray, sigma2: NDArray) -> float:
    """Compute the distance between means (D,) and covariances (D, D)."""
    return _distance((np.asarray(mu1, np.float64), _root(sigma1)), (np.asarray(mu2, np.float64), _root(sigma2)))


def fit_gaussian(features: ArrayLike) -> Gaussian:
    """Return mean (D,) and a root (D, R) of the covariance of features (N, D).

    The centred features are a root, the shorter one where N < D.
    """
    features = np.asarray(features, np.float64)
    N, D = features.shape
    assert N >= 2
    mu = features.mean(axis=0)
    centred = (features - mu).T / np.sqrt(N - 1)
    return mu, centred if N <= D else _root(centred @ centred.T)


def standard_error(one: ArrayLike, other: ArrayLike, resamples: int, seed: int) -> float | None:
    """Return the deviation of the distance over `resamples` pairs of sets drawn from the given ones, with replacement.

    None for fewer than 2 resamples.
    """
    if resamples < 2:
        return None
    sides = [np.asarray(side, np.float64) for side in (one, other)]
    found = []
    for number in range(resamples):
        rng = np.random.default_rng((seed, number))
        found.append(frechet(*(side[rng.integers(len(side), size=len(side))] for side in sides)))
    return float(np.std(found, ddof=1))


def _distance(one: Gaussian, other: Gaussian) -> float:
    # With sigma = A A^T, the trace of the root is the sum of the singular values of A1^T A2. A has as many columns as
    # sigma has rank, so that singular covariances (fewer images than features) cost no accuracy.
    (mu1, root1), (mu2, root2) = one, other
    difference = mu1 - mu2
    common = np.linalg.svd(root1.T @ root2, compute_uv=False).sum()
    traces = (root1**2).sum() + (root2**2).sum()
    return max(0.0, float(difference @ difference + traces - 2 * common))  # rounding can leave -1e-13


def _root(sigma: NDArray) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(np.asarray(sigma, np.float64))
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


# The metric


def check(comparison: Comparison) -> None:
    """Raise ValueError where there is no reference, or no network for images; stored statistics need none."""
    assert comparison.reference
    if comparison.uses_network:
        comparison.check_extractor("pool")


def gaussian_of(side: ImageSet, features: NDArray | None) -> Gaussian:
    """Return the Gaussian of a side's features, or of its stored statistics."""
    if features is not None:
        return fit_gaussian(features)
    assert side.mu is not None and side.sigma is not None
    return side.mu.astype(np.float64), _root(side.sigma)


def fid_figures(comparison: Comparison, pair: Pair) -> list[Figure]:
    """Compute FID; published sets are there as statistics, whose distance has no standard error."""
    samples, reference = pair
    if samples is not None and reference is not None:
        return [distance_figure(comparison, "FID", "FD", pair)]
    one, other = gaussian_of(comparison.samples, samples), gaussian_of(comparison.reference, reference)
    if len(one[0]) != len(other[0]):
        lengths = f"{comparison.reference.path} has {len(other[0])} and {comparison.samples.path} has {len(one[0])}"
        raise ValueError(f"the two sides hold different features: {lengths}; Inception's pool3 has 2048")
    return [Figure(comparison.name_figure("FID", "FD"), _distance(one, other), protocol=comparison.feature_facts())]


def distance_figure(comparison: Comparison, name: str, own_name: str, pair: Pair, facts: dict | None = None) -> Figure:
    """Compute the distance of a pair of features with its standard error, as a figure of this name."""
    options, (samples, reference) = comparison.options, pair
    assert samples is not None and reference is not None
    spread = standard_error(samples, reference, options.bootstrap, options.seed)
    protocol = comparison.feature_facts() | (facts or {})
    if spread is not None:
        protocol["seed"] = options.seed
    how = f"standard error, bootstrap of {options.bootstrap}" if spread is not None else ""
    named = comparison.name_figure(name, own_name)
    return Figure(named, frechet(samples, reference), "lower", spread, how, protocol)


METRIC = Metric(check, lambda comparison: comparison.pair("pool"), fid_figures, ("pool",))
