"""The kernel distance between two sets of features: KID of Inception's, KID-own of ours; lower is nearer, 0 the same.

The squared maximum mean discrepancy under (x . y / D + 1)^3, unbiased: its mean over sets of any size is that of the
whole distributions, so that it may be below 0 (arXiv 1801.01401).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..comparison import Comparison, Pair
from ..figures import Estimate, Figure
from ..metric import metric_of_features

CHUNK = 1024  # rows of the kernel matrix at a time
SUBSETS, SUBSET_SIZE = 100, 1000  # the literature's


def kid(one: ArrayLike, other: ArrayLike) -> Estimate:
    """Estimate the distance from all of features (N, D) and (M, D), at least 2 each, with its jackknife error.

    There is no standard error under 3 on a side.
    """
    one, other = _checked(one, other)
    N, M = len(one), len(other)
    within1, within2 = (_sums(side, side) - _kernel_diagonal(side) for side in (one, other))  # (N,), (M,)
    across1, across2 = _sums(one, other), _sums(other, one)
    value = _mmd(within1.sum(), within2.sum(), across1.sum(), N, M)
    if min(N, M) < 3:
        return Estimate(float(value), None)
    # Each image left out once: it takes its row and its column along.
    without1 = _mmd(within1.sum() - 2 * within1, within2.sum(), across1.sum() - across1, N - 1, M)
    without2 = _mmd(within1.sum(), within2.sum() - 2 * within2, across1.sum() - across2, N, M - 1)
    variance = (N - 1) * without1.var() + (M - 1) * without2.var()
    return Estimate(float(value), float(np.sqrt(variance)))


def kid_of_subsets(
    one: ArrayLike, other: ArrayLike, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = 2020
) -> tuple[float, float]:
    """Return mean and deviation of the estimate over random subsets of `size` of each side: the literature's KID.

    With torch-fidelity's seed and its order of the draws: `one` is its input 1. ValueError for fewer than `size`.
    """
    one, other = _checked(one, other)
    if size > min(len(one), len(other)):
        raise ValueError(f"KID over subsets of {size}: the sets hold {len(one)} and {len(other)}")
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        x, y = (side[rng.choice(len(side), size, replace=False)] for side in (one, other))
        within_x, within_y = ((_sums(part, part) - _kernel_diagonal(part)).sum() for part in (x, y))
        found.append(_mmd(within_x, within_y, _sums(x, y).sum(), size, size))
    return float(np.mean(found)), float(np.std(found))


def _mmd(within1, within2, across, N: int, M: int):
    """Estimate from sums of the kernel: over pairs of different images within each side, over all pairs across."""
    return within1 / (N * (N - 1)) + within2 / (M * (M - 1)) - 2 * across / (N * M)


def _sums(rows: NDArray, columns: NDArray) -> NDArray[np.float64]:
    """Sum the kernel over all columns, for each row (N,)."""
    D = rows.shape[1]
    starts = range(0, len(rows), CHUNK)
    return np.concatenate([((rows[i : i + CHUNK] @ columns.T / D + 1) ** 3).sum(axis=1) for i in starts])


def _kernel_diagonal(side: NDArray) -> NDArray[np.float64]:
    return ((side**2).sum(axis=1) / side.shape[1] + 1) ** 3


def _checked(one: ArrayLike, other: ArrayLike) -> tuple[NDArray, NDArray]:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if min(len(one), len(other)) < 2:
        raise ValueError(f"a kernel distance needs at least 2 images on each side, not {len(one)} and {len(other)}")
    return one, other


def kid_figures(comparison: Comparison, pair: Pair) -> list[Figure]:
    """Compute KID of all images and, of sets that are large enough, over subsets as the literature gives it."""
    samples, reference = pair
    assert samples is not None and reference is not None
    name, seed = comparison.name_figure("KID", "KID"), comparison.options.seed
    protocol = comparison.feature_facts() | {"kernel": "(x . y / D + 1)^3, unbiased"}
    whole = kid(samples, reference)
    found = [Figure(name, whole.value, "lower", whole.standard_error, "standard error, jackknife", protocol)]
    if min(len(samples), len(reference)) >= SUBSET_SIZE:
        mean, deviation = kid_of_subsets(samples, reference, seed=seed)
        protocol = protocol | {"subsets": f"{SUBSETS} subsets of {SUBSET_SIZE}", "seed": seed}
        found.append(Figure(f"{name} (subsets)", mean, "lower", deviation, "deviation over subsets", protocol))
    return found


METRIC = metric_of_features("pool", kid_figures)
