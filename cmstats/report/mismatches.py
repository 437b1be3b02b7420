"""Pairs that fit worst, judged by models that were fitted without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from sklearn.model_selection import KFold

from cmstats.arrays import recorded
from cmstats.models.gaussian import ConditionalGaussian
from cmstats.models.pairs import check_pairs

__all__ = ["Mismatches", "find_mismatches"]


@dataclass(frozen=True)
class Mismatches:
    """The pairs that fit worst, by models that were fitted without them.

    Attributes
    ----------
    table : DataFrame
        ``row`` (of the data), ``score``, ``estimated_rate`` and ``best_row`` of `check_pairs`,
        worst first.
    separation : float
        The probability that a random wrong pair looks worse than a random pair of the data.
    share_bound : float
        An upper bound (90 %) of the share of wrong pairs.
    n_verified : int
        The number of pairs whose partner ranks so high that hardly any of them is wrong.
    n : int
        The number of pairs.
    """

    table: pd.DataFrame
    separation: float
    share_bound: float
    n_verified: int
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
                "Mismatched pairs cannot be found here: a random wrong pair looks worse than "
                f"a given one in {self.separation:.0%} of cases, hardly more than the 50% of "
                "guessing."
            )
        return (
            f"At most {self.share_bound:.1%} of the {self.n:,} pairs are wrong (an upper bound, "
            f"with 90% confidence); {self.n_verified:,} are verified, of which at most 10% are "
            "expected to be wrong. Suspects are a ranking with an estimated rate."
        )


def find_mismatches(
    X: Any, Y: Any, shrinkage: Any, folds: KFold, seed: int, most: int = 10
) -> Mismatches:
    """`check_pairs` by a `ConditionalGaussian` of the other folds, and the worst of the pairs.

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
    with recorded():  # the page lists them already
        model = ConditionalGaussian(shrinkage=shrinkage)
        found = check_pairs(X, Y, model=model, cv=folds, random_state=seed)
    shown = found.sort_values("score", ascending=False, kind="stable").head(most)
    table = shown[["score", "estimated_rate", "best_row"]].rename_axis("row").reset_index()
    return Mismatches(
        table,
        found.attrs["separation"],
        found.attrs["share_bound"],
        int(found["verified"].sum()),
        len(found),
    )
