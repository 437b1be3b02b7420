"""Pairs that fit worst, judged by models that were fitted without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from cmstats.arrays import recorded, to_numpy
from cmstats.models.gaussian import ConditionalGaussian

__all__ = ["Mismatches", "find_mismatches"]


@dataclass(frozen=True)
class Mismatches:
    """The pairs that fit worst, by models that were fitted without them.

    Attributes
    ----------
    table : DataFrame
        ``row`` (of the data), ``score``, ``wrong_share`` (the share of random wrong pairs that
        fit better than this one), and ``best_row``, the row whose second view fits this first
        view best.
    separation : float
        The probability that a random wrong pair has a higher score than a random pair of the
        data.
    n_suspicious : int
        The number of pairs that fit worse than half of the wrong pairs.
    n : int
        The number of pairs.
    """

    table: pd.DataFrame
    separation: float
    n_suspicious: int
    n: int

    @property
    def told_apart(self) -> bool:
        """Whether the scores separate wrong pairs from those of the data."""
        return self.separation >= 0.6

    @property
    def sentence(self) -> str:
        """A sentence on how many pairs may be wrong."""
        if not self.told_apart:
            return (
                "Mismatched pairs cannot be found here: a random wrong pair scores higher than "
                f"a given one in {self.separation:.0%} of cases, hardly more than the 50% of "
                "guessing."
            )
        if not self.n_suspicious:
            return (
                f"None of the {self.n:,} pairs fits worse than half of the wrong pairs made at "
                "random; those that fit worst are listed (wrong pairs score higher than given "
                f"ones in {self.separation:.0%} of cases)."
            )
        return (
            f"{self.n_suspicious:,} of {self.n:,} pairs "
            f"{'fits' if self.n_suspicious == 1 else 'fit'} worse than half of the wrong pairs "
            "made at random: look there first (wrong pairs score higher than given ones in "
            f"{self.separation:.0%} of cases)."
        )


def find_mismatches(
    X: Any, Y: Any, shrinkage: Any, folds: KFold, seed: int, most: int = 10
) -> Mismatches:
    """Outlier scores of all pairs, each by a `ConditionalGaussian` of the other folds.

    Parameters
    ----------
    X, Y : arrays of n rows
    shrinkage : pair of float
        The shrinkage of the report's model.
    folds : KFold
    seed : int
        Seed of the random wrong pairs, with which the scores are compared.
    most : int
        The number of rows of the table.
    """
    n = len(X)
    rng = np.random.default_rng(seed)
    scores, wrong = np.empty(n), np.empty(n)
    partner = np.arange(n)
    models = []
    with recorded():  # the page lists them already
        for train, test in folds.split(np.empty(n)):
            model = ConditionalGaussian(shrinkage=shrinkage).fit(X[train], Y[train])
            scores[test] = to_numpy(model.outlier_scores(X[test], Y[test]))
            # A random cyclic permutation of the fold: it has no fixed point.
            order = rng.permutation(len(test))
            other = np.empty_like(order)
            other[order] = np.roll(order, 1)
            wrong[test] = to_numpy(model.outlier_scores(X[test], Y[test[other]]))
            models.append((model, test))
        scores, wrong = (np.nan_to_num(a) for a in (scores, wrong))
        at = np.argsort(-scores, kind="stable")[:most]
        for model, test in models:
            mine = at[np.isin(at, test)]
            if len(mine):
                u, v = model.embed(X[mine], Y[test])
                partner[mine] = test[np.argmax(to_numpy(u) @ to_numpy(v).T, axis=1)]
    ordered = np.sort(wrong)
    share = np.searchsorted(ordered, scores, side="left") / n
    table = pd.DataFrame(
        {
            "row": at,
            "score": scores[at],
            "wrong_share": share[at],
            "best_row": partner[at],
        }
    )
    ties = np.searchsorted(ordered, scores, side="right") / n
    separation = float(np.mean(1 - (share + ties) / 2))
    return Mismatches(table, separation, int(np.sum(share > 0.5)), n)
