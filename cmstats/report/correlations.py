"""Tests and intervals of the canonical correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import KFold

from cmstats.arrays import recorded
from cmstats.inference import (
    canonical_correlation_test,
    correlation_intervals,
    permutation_test,
)
from cmstats.models.cca import CCA
from cmstats.moments.moments import Moments

__all__ = ["Evidence", "correlation_evidence"]

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
SHOWN = 20
"""The most components in the table."""
ROWS = 2000
"""The most rows of the permutation test."""
WORK = 3e11
"""The most floating-point operations of the permutation test."""
PATTERNS = 250_000
"""The most patterns of missing entries, each times 400 + columns^2, for EM (about 20 s)."""
FOLDED = 600
"""The most columns of both views for the jackknife's intervals, which take 20 fits."""


@dataclass(frozen=True)
class Evidence:
    """Correlations with tests and intervals.

    Attributes
    ----------
    table : DataFrame of one row per component
        ``training``, ``held_out`` with ``lower`` and ``upper``; ``p_permutation``; and if there
        are enough rows ``p_wilks``, ``estimate``, ``estimate_lower``, ``estimate_upper``.
    supported : int
        The number of leading components with a permutation p-value of at most 0.05.
    held : int
        The number of leading components whose held-out interval lies above 0.
    n_components : int
        The number of components of the model.
    n_permutations, permuted_rows : int
        The permutations, and the rows that were permuted.
    permutation_shrinkage : str
        The shrinkage in the permutation test, in words.
    left_out : tuple of str
        A sentence for each test or interval that was left out.
    """

    table: pd.DataFrame
    supported: int
    held: int
    n_components: int
    n_permutations: int
    permuted_rows: int
    permutation_shrinkage: str
    left_out: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """A sentence on how many components are supported."""
        p = float(self.table["p_permutation"].iloc[0])
        if not self.supported and not self.held:
            return (
                "No component is supported: the permutation test of the first has "
                f"p = {p:.2g}, and its held-out correlation is not told from 0. Nothing linear "
                "that the views share was found."
            )
        limit = self.supported == len(self.table) < self.n_components
        return (
            f"{'At least ' if limit else ''}{self.supported} of {self.n_components} components "
            f"{'is' if self.supported == 1 else 'are'} supported by the permutation test "
            f"(family-wise p ≤ {LEVEL:g}"
            + (f", the first {len(self.table)} were tested" if limit else "")
            + f"); on held-out items the first {self.held} of {len(self.table)} "
            f"{'has' if self.held == 1 else 'have'} an interval above 0."
        )


def correlation_evidence(
    X: Any, Y: Any, train: Any, train_correlations: Floats, held_out: Floats, n_held: int,
    seed: int, quick: bool, Z: Any = None, groups: Any = None, observed: Any = None,
) -> Evidence:  # fmt: skip
    """Test the correlations on the training items, with intervals of the held-out ones.

    The held-out interval is Fisher's z: the variates are fixed, since the rows had no part in
    fitting them. The permutation test is run without shrinkage, or with Ledoit and Wolf's where
    rows are few; the chosen shrinkage has used the pairing and would have to be chosen anew in
    every permutation. Intervals of the population's correlations are by EM where `observed`, both
    views with their gaps, is given: gaps filled with means would count as observations.
    """
    k = min(SHOWN, len(train_correlations))
    lower, upper = _fisher(held_out, n_held)
    table = pd.DataFrame(
        {"training": train_correlations, "held_out": held_out, "lower": lower, "upper": upper},
        index=pd.RangeIndex(1, len(held_out) + 1, name="component"),
    ).iloc[:k]
    held = _leading(np.nan_to_num(lower, nan=-1.0)[:k] > 0)
    left_out = []
    x, y = X[train].astype(np.float64), Y[train].astype(np.float64)
    z = None if Z is None else Z[train]
    seen = None if observed is None else [a[train].astype(np.float64) for a in observed]
    if groups is not None:
        x, y = _means(x, groups[train]), _means(y, groups[train])
        seen = None if seen is None else [_means(a, groups[train]) for a in seen]
        z = None if z is None else _means(z, groups[train])
        left_out.append(
            f"The tests are of the means of the {len(x)} groups of training items, as rows of one "
            "group are not exchangeable."
        )
    rank = 0 if z is None else Moments.from_data(z=z).whiten("z").rank
    width = x.shape[1] + y.shape[1]
    if len(x) > width + rank + 2:
        with recorded():  # the page lists constant columns already
            try:
                tests = canonical_correlation_test(CCA(shrinkage=0.0).fit(x, y), n_nuisance=rank)
                table["p_wilks"] = tests["wilks_p"].cummax().reindex(table.index)
            except ValueError as error:
                left_out.append(f"Wilks' test was left out: {error}.")
    else:
        left_out.append(
            f"Wilks' test needs more rows than the {len(x)} training items for {width} columns."
        )
    permuted, count, rows, shrinkage = _permuted(x, y, z, k, seed, quick)
    table["p_permutation"] = permuted.reindex(table.index)
    if len(x) > 2 * width and width <= FOLDED and not quick:
        try:
            folds = KFold(20, shuffle=True, random_state=seed)
            found, sentence = _intervals(x, y, z, folds, seen)
            left_out += sentence
            columns = {"estimate": "estimate", "lower": "estimate_lower",
                       "upper": "estimate_upper"}  # fmt: skip
            found = found.rename(columns=columns)[list(columns.values())].reindex(table.index)
            table = table.join(found)
        except ValueError as error:
            left_out.append(f"Intervals of the population's correlations: {error}.")
    elif not quick:
        left_out.append(
            "Intervals of the population's correlations are given where the training items are "
            f"twice as many as the columns, and these at most {FOLDED}."
        )
    supported = _leading(table["p_permutation"].to_numpy() <= LEVEL)
    return Evidence(table, supported, held, len(held_out), count, rows, shrinkage, tuple(left_out))


def _intervals(x: Any, y: Any, z: Any, folds: KFold, seen: Any) -> tuple[Any, list[str]]:
    """Intervals by EM where there are gaps, unless that takes too long; and what to say of them."""
    if seen is None:
        return correlation_intervals(x, y, Z=z, cv=folds), []
    patterns = len(np.unique(np.isnan(np.hstack(seen)), axis=0))
    width = x.shape[1] + y.shape[1]
    if patterns * (400 + width**2) <= PATTERNS:
        found = correlation_intervals(*seen, Z=z, cv=folds, missing="em")
        return found, [
            "The population's correlations are of moments that EM found from the observed entries; "
            "everything else is of gaps filled with the means of their columns."
        ]
    return correlation_intervals(x, y, Z=z, cv=folds), [
        f"Estimates of the population's correlations are too low, and their intervals too narrow: "
        f"gaps were filled with the means of their columns, since EM on {patterns:,} patterns of "
        f"gaps in {width} columns takes too long; use correlation_intervals(missing='em')."
    ]


def _leading(holds: Any) -> int:
    """The length of the leading run of True."""
    return int(np.argmin(np.append(holds, False)))


def _fisher(r: Floats, n: int) -> tuple[Floats, Floats]:
    """95 % intervals of correlations of n rows by Fisher's z."""
    half = 1.959964 / np.sqrt(max(n - 3, 1))
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    return np.tanh(z - half), np.tanh(z + half)


def _means(a: Floats, groups: Any) -> Floats:
    """The mean of the rows of each group; NaN for a column of which it has no entry."""
    _, codes = np.unique(groups, return_inverse=True)
    sums, counts = np.zeros((2, int(codes.max()) + 1, a.shape[1]))
    np.add.at(sums, codes, np.nan_to_num(a))
    np.add.at(counts, codes, ~np.isnan(a))
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def _permuted(x: Any, y: Any, z: Any, k: int, seed: int, quick: bool) -> tuple[Any, int, int, str]:
    """Family-wise p-values, permutations, rows and shrinkage, within `ROWS` and `WORK`."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.permutation(len(x))[:ROWS])
    x, y, z = x[at], y[at], None if z is None else z[at]
    n, widths = len(x), (x.shape[1], y.shape[1])
    m = min(*widths, n - 1)
    cost = 2 * n * min(widths[0], n) * min(widths[1], n) + (2 * m) ** 3 / 3
    work, most = (WORK / 4, 199) if quick else (WORK, 999)
    count = next((c for c in (999, 199) if c <= most and c * cost <= work), 99)
    shrinkage: Any = 0.0 if sum(widths) < n / 4 else "auto"
    try:
        tests = permutation_test(
            x, y, Z=z, n_permutations=count, statistic="wilks", n_components=min(k, m),
            shrinkage=shrinkage, random_state=seed,
        )  # fmt: skip
    except ValueError:  # a constant view, or fewer dimensions than components
        return pd.Series([1.0], index=[1]), count, n, str(shrinkage)
    return tests["p_value"], count, n, "none" if shrinkage == 0.0 else "of Ledoit and Wolf"
