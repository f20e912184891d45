"""Precision and recall, density and coverage: shares of generated images like real ones, and of real ones met.

Each image has a ball in feature space that reaches to its k-th nearest neighbour of its own side.

- precision: the share of generated images within the ball of a real one;
- recall: the share of real images within the ball of a generated one (both arXiv 1904.06991);
- density: how many real balls a generated image lies in, over k; above 1 where they crowd;
- coverage: the share of real images whose ball holds a generated one (both arXiv 2002.09797).
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..comparison import Comparison, Pair
from ..figures import Estimate, Figure
from ..metric import metric_of_features

# Squared distances come from products: what is zero may be this share of the squared norms, and counts as within.
ROUNDING = 1e-12


def prdc(real: ArrayLike, generated: ArrayLike, k: int = 5, chunk: int = 1024) -> dict[str, Estimate]:
    """Compute the four of features (N, D) and (M, D), each side more than k, `chunk` rows at a time to spare memory.

    The standard error of each takes the other side's balls as they are. ValueError where a side has no k-th neighbour.
    """
    real, generated = (torch.as_tensor(np.asarray(side, np.float64)) for side in (real, generated))
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"--prdc_k {k}: needs more than {k} images on each side, not {len(real)} and {len(generated)}")
    reach_of_real, reach_of_generated = radii(real, k, chunk), radii(generated, k, chunk)
    met, covered = torch.zeros(2, len(real), dtype=torch.bool)
    balls = torch.zeros(len(generated), dtype=torch.float64)  # real ones that a generated image lies in
    for start in range(0, len(real), chunk):
        part = slice(start, start + chunk)
        distances, slack = _squared_distances(real[part], generated)  # real x generated
        in_real = distances <= reach_of_real[part, None] + slack
        balls += in_real.sum(dim=0)
        covered[part] = in_real.any(dim=1)
        met[part] = (distances <= reach_of_generated + slack).any(dim=1)
    per_image = {"precision": balls > 0, "recall": met, "density": balls / k, "coverage": covered}
    return {name: _mean(values.double()) for name, values in per_image.items()}


def radii(side: Tensor, k: int, chunk: int) -> Tensor:
    """The squared distance (N,) of each of (N, D) to its k-th nearest other one."""
    found = []
    for start in range(0, len(side), chunk):
        distances, _ = _squared_distances(side[start : start + chunk], side)
        own = torch.arange(len(distances))
        distances[own, start + own] = torch.inf  # not its own neighbour; an equal image is one, at 0
        found.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(found)


def _squared_distances(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m), and what rounding may have added to each."""
    norms = (one**2).sum(dim=1)[:, None] + (other**2).sum(dim=1)
    return (norms - 2 * one @ other.T).clamp_(min=0), ROUNDING * norms


def _mean(values: Tensor) -> Estimate:
    return Estimate(values.mean().item(), values.std(correction=0).item() / len(values) ** 0.5)


def prdc_figures(comparison: Comparison, pair: Pair) -> list[Figure]:
    samples, reference = pair
    assert samples is not None and reference is not None
    k = comparison.options.prdc_k
    protocol = comparison.feature_facts() | {"k": k}
    return [
        Figure(
            comparison.name_figure(name, name), found.value, "higher", found.standard_error, "standard error", protocol
        )
        for name, found in prdc(reference, samples, k).items()
    ]


METRIC = metric_of_features("pool", prdc_figures)
