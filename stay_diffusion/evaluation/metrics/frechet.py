"""The Frechet distance between two sets of features: FID of Inception's, sFID of its spatial ones, FD-own of ours.

python evaluations/frechet.py --reference REAL --samples GENERATED

|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), arXiv 1706.08500; lower is nearer. Means and covariances
are those of the features, in float64.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def frechet(one: ArrayLike, other: ArrayLike) -> float:
    """The distance between features (N, D) and (M, D); N and M at least 2, perhaps fewer than D."""
    return _distance(*_spread(one), *_spread(other))


def frechet_distance(mu1: NDArray, sigma1: NDArray, mu2: NDArray, sigma2: NDArray) -> float:
    """The same between means (D,) and covariances (D, D)."""
    return _distance(np.asarray(mu1, np.float64), _root(sigma1), np.asarray(mu2, np.float64), _root(sigma2))


def statistics(features: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), N at least 2, in float64."""
    assert len(features) >= 2
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def standard_error(one: ArrayLike, other: ArrayLike, resamples: int, seed: int) -> float | None:
    """The deviation of the distance over `resamples` pairs of sets drawn from the given ones, with replacement.

    None for fewer than 2 resamples.
    """
    if resamples < 2:
        return None
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    found = []
    for number in range(resamples):
        rng = np.random.default_rng((seed, number))
        found.append(frechet(*(side[rng.integers(len(side), size=len(side))] for side in (one, other))))
    return float(np.std(found, ddof=1))


def _distance(mu1: NDArray, root1: NDArray, mu2: NDArray, root2: NDArray) -> float:
    # With sigma = A A^T, the trace of the root is the sum of the singular values of A1^T A2. A has as many columns as
    # sigma has rank, so that singular covariances (fewer images than features) cost no accuracy.
    difference = mu1 - mu2
    common = np.linalg.svd(root1.T @ root2, compute_uv=False).sum()
    traces = (root1**2).sum() + (root2**2).sum()
    return max(0.0, float(difference @ difference + traces - 2 * common))  # rounding can leave -1e-13


def _spread(features: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) and a root (D, R) of the covariance; the centred features are one, the shorter where N < D."""
    features = np.asarray(features, np.float64)
    N, D = features.shape
    assert N >= 2
    mu = features.mean(axis=0)
    centred = (features - mu).T / np.sqrt(N - 1)
    return mu, centred if N <= D else _root(centred @ centred.T)


def _root(sigma: NDArray) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(np.asarray(sigma, np.float64))
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])
