"""Inception score: how sure Inception is of each picture's class, and how many classes there are; higher is better.

python evaluations/inception_score.py --samples GENERATED

exp of the mean divergence of each picture's class probabilities from their mean (arXiv 1606.03498). The classes are
ImageNet's: of pictures of anything else the number says little.
"""

import numpy as np
from numpy.typing import ArrayLike


def inception_score(logits: ArrayLike, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Mean and deviation over `splits` parts, drawn at random, of logits (N, classes); torch-fidelity's seed.

    ValueError where there are fewer images than parts.
    """
    logits = np.asarray(logits, np.float64)
    N = len(logits)
    if splits > N:
        raise ValueError(f"--is_splits {splits}: there are only {N} images")
    logits = logits[np.random.RandomState(seed).permutation(N)]
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    p = np.exp(log_p)
    scores = []
    for k in range(splits):
        part = slice(k * N // splits, (k + 1) * N // splits)
        with np.errstate(divide="ignore", invalid="ignore"):  # a class that no picture has: 0 log 0
            divergence = np.where(p[part] > 0, p[part] * (log_p[part] - np.log(p[part].mean(axis=0))), 0.0)
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
