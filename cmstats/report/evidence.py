"""How sure the numbers are: tests and intervals of correlations, ranks, and doubtful pairs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import KFold

from cmstats.arrays import to_numpy
from cmstats.inference import (
    canonical_correlation_test,
    correlation_intervals,
    permutation_test,
)
from cmstats.kernels.ranks import average_precisions, partner_ranks
from cmstats.metrics.retrieval import retrieval_chance
from cmstats.models.cca import CCA
from cmstats.models.gaussian import ConditionalGaussian

__all__ = ["Evidence", "Mismatches", "Retrieval", "evidence", "mismatches", "retrieval"]

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
SHOWN = 20
"""Components in the table."""
ROWS = 2000
"""Rows that are permuted."""
WORK = 3e11
"""Floating-point operations that permutations may take."""
FOLDED = 600
"""Columns of both views up to which the intervals of the jackknife are worth their 20 fits."""
RESAMPLES = 1000
CURVE = 100


# -------------------------------------------------------------------------- correlations
@dataclass(frozen=True)
class Evidence:
    """Correlations with tests and intervals.

    Attributes
    ----------
    table : DataFrame, one row a component
        ``training``, ``held_out`` with ``lower`` and ``upper``; ``p_permutation``; and where
        there are rows enough ``p_wilks``, ``estimate``, ``estimate_lower``,
        ``estimate_upper``.
    supported : int
        Leading components with a permutation p-value of at most 0.05.
    held : int
        Leading components whose held-out interval lies above 0.
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
        """How many components are supported."""
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


def evidence(
    X: Any, Y: Any, train: Any, train_correlations: Floats, held_out: Floats, n_held: int,
    seed: int, quick: bool,
) -> Evidence:  # fmt: skip
    """Test the correlations on the training items; intervals of the held-out ones.

    The held-out interval is Fisher's z for a pair of fixed variates on rows that had no part
    in fitting them. The permutation test takes no shrinkage, or Ledoit and Wolf's where rows
    are few, not the chosen one: a choice that saw the pairing would have to be made anew in
    every permutation.
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
    width = x.shape[1] + y.shape[1]
    if len(x) > width + 2:
        with warnings.catch_warnings():  # constant columns have been told of
            warnings.simplefilter("ignore", UserWarning)
            try:
                tests = canonical_correlation_test(CCA(shrinkage=0.0).fit(x, y))
                table["p_wilks"] = tests["wilks_p"].cummax().reindex(table.index)
            except ValueError as error:
                left_out.append(f"Wilks' test was left out: {error}.")
    else:
        left_out.append(
            f"Wilks' test needs more rows than the {len(x)} training items for {width} columns."
        )
    permuted, count, rows, shrinkage = _permuted(x, y, k, seed, quick)
    table["p_permutation"] = permuted.reindex(table.index)
    if len(x) > 2 * width and width <= FOLDED and not quick:
        try:
            folds = KFold(20, shuffle=True, random_state=seed)
            found = correlation_intervals(x, y, cv=folds, n_components=None)
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


def _leading(holds: Any) -> int:
    """How many of the first hold without a break."""
    return int(np.argmin(np.append(holds, False)))


def _fisher(r: Floats, n: int) -> tuple[Floats, Floats]:
    half = 1.959964 / np.sqrt(max(n - 3, 1))
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    return np.tanh(z - half), np.tanh(z + half)


def _permuted(x: Any, y: Any, k: int, seed: int, quick: bool) -> tuple[Any, int, int, str]:
    """Family-wise p-values on at most `ROWS` rows, in bounded work."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.permutation(len(x))[:ROWS])
    x, y = x[at], y[at]
    n, widths = len(x), (x.shape[1], y.shape[1])
    m = min(*widths, n - 1)
    cost = 2 * n * min(widths[0], n) * min(widths[1], n) + (2 * m) ** 3 / 3
    work, most = (WORK / 4, 199) if quick else (WORK, 999)
    count = next((c for c in (999, 199) if c <= most and c * cost <= work), 99)
    shrinkage: Any = 0.0 if sum(widths) < n / 4 else "auto"
    try:
        tests = permutation_test(
            x, y, n_permutations=count, statistic="wilks", n_components=min(k, m),
            shrinkage=shrinkage, random_state=seed,
        )  # fmt: skip
    except ValueError:  # a view that does not vary, or fewer dimensions than components
        return pd.Series([1.0], index=[1]), count, n, str(shrinkage)
    return tests["p_value"], count, n, "none" if shrinkage == 0.0 else "of Ledoit and Wolf"


# ----------------------------------------------------------------------------- retrieval
@dataclass(frozen=True)
class Retrieval:
    """Ranks of the chosen similarity on the held-out items, with intervals.

    Attributes
    ----------
    table : DataFrame
        One row a direction and metric: ``value``, ``lower``, ``upper``, ``chance``.
    curves : pair of arrays
        Recall at 1, 2, ... of both directions.
    """

    directions: tuple[str, str]
    table: pd.DataFrame
    curves: tuple[Floats, Floats]
    chance_curve: Floats
    n: int

    @property
    def sentence(self) -> str:
        """Whether retrieval is better than chance."""
        rows: list[Any] = [self.table.loc[(d, "MRR")] for d in self.directions]
        above = [bool(row["lower"] > row["chance"]) for row in rows]
        tens: list[Any] = [self.table.loc[(d, "R@10")] for d in self.directions]
        told = " and ".join(
            f"{t['value']:.0%} ({d.replace('->', '→')})"
            for t, d in zip(tens, self.directions, strict=True)
        )
        chance = f"{tens[0]['chance']:.1%}"
        if not any(above):
            return (
                f"Retrieval is not told from chance: the partner is among the first ten of "
                f"{self.n} for {told}, and by chance for {chance}."
            )
        one = "" if all(above) else f" Only {self.directions[above.index(True)]} is above chance."
        return (
            f"The partner is among the first ten of {self.n} for {told}; by chance it is for "
            f"{chance}.{one}"
        )


def retrieval(
    U: Any, V: Any, labels: Any, directions: tuple[str, str], seed: int
) -> Retrieval:  # fmt: skip
    """Metrics of both directions with percentile bootstrap intervals over the queries.

    The candidates and the fitted model are held fixed.
    """
    n = len(U)
    ks = (1, 5, 10)
    chance = retrieval_chance(n, labels=labels, ks=ks)
    ids = None if labels is None else _codes(labels)
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, n, (RESAMPLES, n), dtype=np.int32)
    rows, curves = {}, []
    for (u, v), direction, side in zip(
        ((U, V), (V, U)), directions, ("x -> y", "y -> x"), strict=True
    ):
        ranks = np.asarray(to_numpy(partner_ranks(u, v)), dtype=np.float64)
        depth = min(CURVE, n)
        curves.append(np.array([np.mean(ranks <= k) for k in range(1, depth + 1)]))
        values: dict[str, Floats] = {f"R@{k}": (ranks <= k).astype(float) for k in ks}
        values |= {"median_rank": ranks, "MRR": 1 / ranks}
        if ids is not None:
            values["mAP"] = _precisions(u, v, ids)
        for name, value in values.items():
            middle = np.nanmedian if name == "median_rank" else np.nanmean
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any label
                found = middle(value[samples], axis=1)
            low, high = np.nanquantile(found, (0.025, 0.975))
            rows[direction, name] = {
                "value": float(middle(value)), "lower": float(low), "upper": float(high),
                "chance": float(chance.loc[side, name]),  # type: ignore[arg-type]
            }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["direction", "metric"])
    depth = len(curves[0])
    return Retrieval(directions, table, (curves[0], curves[1]), np.arange(1, depth + 1) / n, n)


def _precisions(u: Any, v: Any, ids: Any) -> Floats:
    """Average precision by label; NaN for a query without a label."""
    own, other = np.where(ids < 0, -1, ids), np.where(ids < 0, -2, ids)
    return np.asarray(to_numpy(average_precisions(u, v, x_ids=own, y_ids=other)))


def _codes(labels: Any) -> Any:
    return pd.factorize(np.asarray(labels))[0]


# -------------------------------------------------------------------------- doubtful pairs
@dataclass(frozen=True)
class Mismatches:
    """The pairs that fit worst, by models that did not see them.

    Attributes
    ----------
    table : DataFrame
        ``row`` (of the arrays given), ``score``, ``wrong_share`` (of random wrong pairs, how
        many fit better than this one), and ``best_row``: the row whose second view fits this
        first view best.
    separation : float
        Probability that a random wrong pair has a higher score than a random given one.
    n_suspicious : int
        Pairs that fit worse than half of the wrong ones.
    """

    table: pd.DataFrame
    separation: float
    n_suspicious: int
    n: int

    @property
    def told_apart(self) -> bool:
        """Whether scores say anything."""
        return self.separation >= 0.6

    @property
    def sentence(self) -> str:
        """What can be said of wrong pairs."""
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


def mismatches(X: Any, Y: Any, shrinkage: Any, folds: KFold, seed: int, most: int = 10) -> Any:
    """Standardised scores of all pairs, each by a model of the other folds.

    Parameters
    ----------
    X, Y : arrays of n rows
    shrinkage : pair of float
        That of the report's model.
    folds : KFold
    seed : int
        Of the wrong pairs that set the scale.
    most : int
        Rows of the table.
    """
    n = len(X)
    rng = np.random.default_rng(seed)
    scores, wrong = np.empty(n), np.empty(n)
    partner = np.arange(n)
    models = []
    with warnings.catch_warnings():  # the data's peculiarities have been told of
        warnings.simplefilter("ignore", UserWarning)
        for train, test in folds.split(np.empty(n)):
            model = ConditionalGaussian(shrinkage=shrinkage).fit(X[train], Y[train])
            scores[test] = to_numpy(model.outlier_scores(X[test], Y[test]))
            # A cycle through the fold in random order: no pair stays.
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
