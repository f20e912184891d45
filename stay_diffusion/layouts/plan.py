"""Which product and classes each layout holds: together as in the data, and in the counts that are asked for.

A layout takes after a picture of the data: its product and its company, the classes of its objects. So a class never
meets another, or a product, that it is not seen with, as independent draws would have it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 100  # layouts that are balanced together: round numbers of layouts end with one
CANDIDATES = 200  # pictures that may take the place of others
FITTING = 50  # steps of the fit of weights; what is left over is mended object by object


class DataPlan:
    """Layout k as the data have them: every picture once, in an order drawn anew for each pass.

    counts (N, K): the objects of each picture by class; seed: numbers for the random generator.
    """

    def __init__(self, counts: NDArray[np.int64], seed: Sequence[int]):
        self.counts, self.seed = counts, tuple(seed)
        self._pass, self._order = -1, np.arange(0)

    def __getitem__(self, k: int) -> tuple[int, NDArray[np.int64]]:
        """The picture that layout k takes after, and its classes as places in 0..K-1, one for each object."""
        number, place = divmod(k, len(self.counts))
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng((*self.seed, number)).permutation(len(self.counts))
        picture = int(self._order[place])
        return picture, np.repeat(np.arange(self.counts.shape[1]), self.counts[picture])


class BalancedPlan:
    """Layout k such that all objects so far, with those that are there already, have the classes in shares as asked.

    counts (N, K) as above; products (N,) tells which of them are of one product; shares (K,) sum to 1, 0 where a class
    has no object in `counts`; already (K,) objects. Classes with a share of 0 are left out of their pictures; those
    with too few objects already come first, until they have caught up.

    Block by block: pictures are drawn with the weights that bring the classes nearest to what is wanted, evenly over
    all pictures; some are exchanged for others of as many objects; and where that does not suffice, objects change
    their class, where company and product allow it. Counts are exact, to one object, at the end of a block.
    """

    def __init__(
        self, counts: NDArray[np.int64], products: NDArray, shares: NDArray, already: NDArray, seed: Sequence[int]
    ):
        self.counts = np.where(shares > 0, counts, 0)
        self.shares, self.seed = shares, tuple(seed)
        self.empty = counts.sum(axis=1) == 0
        present = (self.counts > 0).astype(np.float64)
        _, self._kind = np.unique(products, return_inverse=True)
        self._hosts = np.stack([present[self._kind == kind].any(axis=0) for kind in range(self._kind.max() + 1)])
        # How often class d is met where class c is: (K, K), on the diagonal another object of the same.
        together = present.T @ present
        np.fill_diagonal(together, (self.counts > 1).sum(axis=0))
        self._company = together / present.sum(axis=0).clip(min=1)[:, None]
        self._have = np.array(already, dtype=np.float64)
        self._blocks: list[list[tuple[int, NDArray[np.int64]]]] = []

    def __getitem__(self, k: int) -> tuple[int, NDArray[np.int64]]:
        """As DataPlan's; all blocks before are planned first, as each goes on from the counts of those."""
        while len(self._blocks) <= k // BLOCK:
            self._blocks.append(self._plan(len(self._blocks)))
        return self._blocks[k // BLOCK][k % BLOCK]

    def _plan(self, number: int) -> list[tuple[int, NDArray[np.int64]]]:
        rng = np.random.default_rng((*self.seed, number))
        usual = self.counts[~self.empty & self.counts.any(axis=1)].sum(axis=1).mean()
        wanted = filled(self.shares, self._have, BLOCK * usual)
        weights = self._weigh(wanted / wanted.sum())
        pictures = self._draw(weights, rng)
        total = self.counts[pictures].sum()
        quota = whole_numbers(filled(self.shares, self._have, total), total)
        self._have = self._have + quota
        self._exchange(pictures, quota, rng.choice(len(weights), CANDIDATES, p=weights / weights.sum()))
        company = self.counts[pictures]
        self._mend(company, pictures, quota, rng)
        return [(int(p), np.repeat(np.arange(len(quota)), row)) for p, row in zip(pictures, company, strict=True)]

    def _draw(self, weights: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
        # In steps through the pictures, those of one class beside one another: each gets its share, rounded.
        order = np.lexsort((rng.random(len(weights)), self.counts.argmax(axis=1)))
        order = order[weights[order] > 0]
        steps = (rng.random() + np.arange(BLOCK)) / BLOCK
        places = np.searchsorted(np.cumsum(weights[order]), steps * weights.sum(), side="right")
        return rng.permutation(order[places.clip(max=len(order) - 1)])

    def _weigh(self, wanted: NDArray) -> NDArray:
        """Weights of the pictures, pictures without objects keeping their share."""
        numbers = self.counts.sum(axis=1)
        used = numbers > 0
        mix = self.counts[used] / numbers[used, None]
        share = numbers[used] / numbers.sum()  # of the objects
        for _ in range(FITTING):  # expectation-maximisation of the shares of a mixture: nearest in KL divergence
            share = share * (mix @ (wanted / (share @ mix).clip(min=1e-12)))
        weights = self.empty * 1.0
        per_picture = share / numbers[used]
        weights[used] = per_picture / per_picture.sum() * (~self.empty).sum()
        return weights

    def _exchange(self, pictures: NDArray, quota: NDArray, candidates: NDArray) -> None:
        """Exchanges pictures (BLOCK,) for candidates of as many objects while that brings classes nearer to quota."""
        offered = self.counts[candidates]
        for _ in range(BLOCK):
            company = self.counts[pictures]
            excess = company.sum(axis=0) - quota
            # The change of the sum of squares of the excess, (BLOCK, CANDIDATES).
            squares = (company**2).sum(axis=1)[:, None] + (offered**2).sum(axis=1) - 2 * company @ offered.T
            change = 2 * (offered @ excess - (company @ excess)[:, None]) + squares
            change[company.sum(axis=1)[:, None] != offered.sum(axis=1)] = 0
            place, candidate = np.unravel_index(change.argmin(), change.shape)
            if change[place, candidate] >= 0:
                return
            pictures[place] = candidates[candidate]

    def _mend(self, company: NDArray, pictures: NDArray, quota: NDArray, rng: np.random.Generator) -> None:
        """Changes objects of classes above their quota into those below, in place (BLOCK, K)."""
        hosts = self._hosts[self._kind[pictures]]
        while (company.sum(axis=0) > quota).any():
            excess = company.sum(axis=0) - quota
            into = int(excess.argmin())
            layouts, classes = np.nonzero((company > 0) & (excess > 0))
            others = company[layouts]
            others[np.arange(len(layouts)), classes] -= 1
            fits = np.where(others > 0, self._company[:, into], 1).min(axis=1) + 2.0 * hosts[layouts, into]
            best = int((fits + 1e-9 * rng.random(len(fits))).argmax())
            company[layouts[best], classes[best]] -= 1
            company[layouts[best], into] += 1


def filled(shares: NDArray, have: NDArray, amount: float) -> NDArray:
    """How an amount is dealt out so that with what classes have already their shares come out as near as can be.

    As water fills vessels that stand in one another: those with the least for their share first.
    """
    used = np.flatnonzero(shares)
    order = used[np.argsort(have[used] / shares[used], kind="stable")]
    levels = (amount + np.cumsum(have[order])) / np.cumsum(shares[order])
    heights = np.append((have / np.where(shares > 0, shares, 1))[order][1:], np.inf)
    level = levels[np.flatnonzero(levels <= heights)[0]]
    return np.where(shares > 0, (level * shares - have).clip(min=0), 0)


def whole_numbers(amounts: NDArray, total: int) -> NDArray[np.int64]:
    """Amounts (K,) that sum to `total`, rounded so that they still do: the largest remainders up."""
    rounded = np.floor(amounts + 1e-9).astype(np.int64)
    rounded[np.argsort(rounded - amounts, kind="stable")[: total - rounded.sum()]] += 1
    return rounded
