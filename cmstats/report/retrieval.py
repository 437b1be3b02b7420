"""Retrieval on the held-out items, with bootstrap intervals over the queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmstats.arrays import recorded, to_numpy
from cmstats.kernels.ranks import average_precisions, partner_counts
from cmstats.metrics.retrieval import DIRECTIONS, retrieval_chance
from cmstats.metrics.ties import TiedRanks
from cmstats.report.tables import KS

__all__ = ["Retrieval", "retrieval_intervals"]

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
CURVE = 100
"""The largest k of the recall curve."""


@dataclass(frozen=True)
class Retrieval:
    """Retrieval metrics of the chosen similarity on the held-out items, with intervals.

    Attributes
    ----------
    directions : pair of str
        The names of the directions, queries -> candidates.
    table : DataFrame
        One row per direction and metric: ``value``, ``lower``, ``upper``, ``chance``.
    curves : pair of arrays
        Recall at 1, 2, ... of both directions.
    chance_curve : array
        The same for candidates in random order.
    n : int
        The number of held-out items.
    """

    directions: tuple[str, str]
    table: pd.DataFrame
    curves: tuple[Floats, Floats]
    chance_curve: Floats
    n: int

    @property
    def sentence(self) -> str:
        """A sentence on whether retrieval is better than chance."""
        rows: list[Any] = [self.table.loc[(d, "MRR")] for d in self.directions]
        above = [bool(row["lower"] > row["chance"]) for row in rows]
        tens: list[Any] = [self.table.loc[(d, "R@10")] for d in self.directions]
        shares = " and ".join(
            f"{t['value']:.0%} ({d.replace('->', '→')})"
            for t, d in zip(tens, self.directions, strict=True)
        )
        chance = f"{tens[0]['chance']:.1%}"
        if not any(above):
            return (
                f"Retrieval is not told from chance: the partner is among the first ten of "
                f"{self.n} for {shares}, and by chance for {chance}."
            )
        one = "" if all(above) else f" Only {self.directions[above.index(True)]} is above chance."
        return (
            f"The partner is among the first ten of {self.n} for {shares}; by chance it is for "
            f"{chance}.{one}"
        )


def retrieval_intervals(
    U: Any, V: Any, labels: Any, directions: tuple[str, str], seed: int, items: Any = None
) -> Retrieval:
    """Metrics of both directions with percentile bootstrap intervals over the queries.

    The candidates and the fitted model are held fixed.
    """
    n = len(U)
    own = {"x_ids": items, "y_ids": items}
    chance = retrieval_chance(n, labels=labels, ks=KS, **own)
    curve = retrieval_chance(n, ks=range(1, min(CURVE, n) + 1), **own)
    ids = None if labels is None else _codes(labels)
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, n, (RESAMPLES, n), dtype=np.int32)
    rows, curves = {}, []
    counts = partner_counts(U, V, **own)
    for side, direction in enumerate(directions):
        tied = TiedRanks.of(counts[side])
        depth = min(CURVE, n)
        curves.append(np.array([np.mean(tied.recalls(k)) for k in range(1, depth + 1)]))
        values: dict[str, Floats] = {
            name: tied.values(name) for name in (*(f"R@{k}" for k in KS), "MRR")
        }
        values["median_rank"] = np.asarray(to_numpy(counts[side].ranks()), dtype=np.float64)
        if ids is not None:
            u, v = (U, V) if side == 0 else (V, U)
            values["mAP"] = _precisions(u, v, ids)
        for name, value in values.items():
            middle = np.nanmedian if name == "median_rank" else np.nanmean
            with recorded():  # of a resample in which no query has a label
                found = middle(value[samples], axis=1)
            low, high = np.nanquantile(found, (0.025, 0.975))
            rows[direction, name] = {
                "value": tied.median() if name == "median_rank" else float(np.nanmean(value)),
                "lower": float(low), "upper": float(high),
                "chance": float(chance.loc[DIRECTIONS[side], name]),  # type: ignore[arg-type]
            }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["direction", "metric"])
    by_chance = curve.iloc[0][[f"R@{k}" for k in range(1, len(curves[0]) + 1)]]
    return Retrieval(directions, table, (curves[0], curves[1]), by_chance.to_numpy(float), n)


def _precisions(u: Any, v: Any, ids: Any) -> Floats:
    """Average precision by label; NaN for a query without a label."""
    own, other = np.where(ids < 0, -1, ids), np.where(ids < 0, -2, ids)
    return np.asarray(to_numpy(average_precisions(u, v, x_ids=own, y_ids=other)))


def _codes(labels: Any) -> Any:
    """Integer codes of the labels, -1 for a missing one."""
    return pd.factorize(np.asarray(labels))[0]
