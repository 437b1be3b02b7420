"""What a ranking is worth in expectation when candidates of equal score are in random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import digamma, gammaln

from cmstats.arrays import to_numpy

__all__ = ["TiedRanks", "first_of"]

HostArray = np.ndarray[Any, Any]


def first_of(size: int, relevant: int) -> HostArray:
    """``P(R > k)`` of the first of `relevant` among `size` candidates, for k = 0 .. size."""
    k = np.arange(size)
    factors = np.maximum(size - relevant - k, 0) / (size - k)
    return np.concatenate([[1.0], np.cumprod(factors)])


@dataclass(frozen=True)
class TiedRanks:
    """The rank of the best relevant candidate of each query, whose ties are in random order.

    The expectations are those of McSherry and Najork (2008): of a run of equal scores every order
    is equally likely.

    Attributes
    ----------
    greater, ties, relevant : int arrays of shape (n,)
        As in `kernels.ranks.PartnerCounts`, of the queries that have a relevant candidate.
    """

    greater: HostArray
    ties: HostArray
    relevant: HostArray

    @classmethod
    def of(cls, counts: Any) -> Self:
        """Of the counts of all queries."""
        greater, ties, relevant = (to_numpy(a).astype(np.int64) for a in counts)
        has = relevant > 0
        return cls(greater[has], ties[has], relevant[has])

    def recalls(self, k: int) -> HostArray:
        """The probability that the rank is at most k."""
        run = self.ties + self.relevant
        drawn = np.clip(k - self.greater, 0, run)
        if (self.relevant == 1).all():
            return np.asarray(drawn / run)
        free = np.maximum(self.ties - drawn, 0)
        # C(ties, drawn) / C(run, drawn): none of the first places has a relevant one.
        log = gammaln(self.ties + 1) - gammaln(free + 1) - gammaln(run + 1)
        none = np.where(drawn > self.ties, 0.0, np.exp(log + gammaln(run - drawn + 1)))
        return np.where(self.relevant == 1, drawn / run, 1 - np.where(drawn > 0, none, 1.0))

    def reciprocals(self) -> HostArray:
        """The expectation of 1 / rank."""
        run = self.ties + self.relevant
        out = 1.0 / (1 + self.greater)
        one = (self.relevant == 1) & (self.ties > 0)
        above, size = self.greater[one], run[one]
        out[one] = (digamma(above + size + 1) - digamma(above + 1)) / size
        some = np.flatnonzero((self.relevant > 1) & (self.ties > 0))
        if not len(some):
            return out
        kinds = np.stack([self.greater[some], run[some], self.relevant[some]], axis=1)
        each, inverse = np.unique(kinds, axis=0, return_inverse=True)
        value = [
            float(np.sum(-np.diff(first_of(size, count)) / (above + np.arange(1, size + 1))))
            for above, size, count in each.tolist()
        ]
        out[some] = np.array(value)[inverse.ravel()]
        return out

    def values(self, metric: str) -> HostArray:
        """What each query adds to the mean of "R@k" or "MRR", in either case of letters."""
        name = metric.upper()
        return self.recalls(int(name[2:])) if name.startswith("R@") else self.reciprocals()

    def median(self, weights: HostArray | None = None) -> float:
        """The median of the ranks of all queries, as numpy.median where nothing is tied."""
        most = int(np.max(self.greater + self.ties)) + 1

        def smallest(reached: Any) -> int:
            low, high = 1, most
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if reached(middle) else (middle + 1, high)
            return low

        def share(k: int) -> float:
            return float(np.average(self.recalls(k), weights=weights))

        return (
            smallest(lambda k: share(k) >= 0.5 - 1e-12) + smallest(lambda k: share(k) > 0.5 + 1e-12)
        ) / 2
