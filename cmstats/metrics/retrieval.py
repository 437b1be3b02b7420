"""Retrieval metrics, search, and scorers for model selection.

The arguments are those of one convention: `U` and `V` are embeddings whose inner product is
the similarity (what `embed` of every model returns), or `U` alone is a matrix of scores with
the queries in rows. Row i of `U` and row i of `V` belong together unless `x_ids` and `y_ids`
say otherwise. Scores are never stored whole (`cmstats.kernels.ranks`), results are numbers
and a DataFrame on the host.

Ties count as broken at random in ranks (constant scores are at chance level, not perfect), and
as in `sklearn.metrics.average_precision_score` in average precisions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cmstats.arrays import Array, float64, is_array, namespace, to_numpy
from cmstats.kernels.ranks import (
    PartnerCounts,
    average_precisions,
    partner_counts,
    partner_ranks,
    top_k,
)

__all__ = [
    "make_retrieval_scorer",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "median_rank",
    "recall_at_10_scorer",
    "recall_at_k",
    "retrieval_chance",
    "retrieval_report",
    "search",
    "total_correlation_scorer",
]

HostArray = np.ndarray[Any, Any]

DIRECTIONS = ("x -> y", "y -> x")


# ------------------------------------------------------------------------------ report
def retrieval_report(
    U: Array,
    V: Array | None = None,
    *,
    labels: Any = None,
    ks: Iterable[int] = (1, 5, 10),
    x_ids: Any = None,
    y_ids: Any = None,
) -> pd.DataFrame:
    """Cross-modal retrieval in both directions.

    Parameters
    ----------
    U : array of shape (n, d), or (n, m) when `V` is None
        Embeddings of the first view, or a matrix of scores (first view in rows). Embeddings
        on a disk (a memory-map, shards, anything with shape, dtype and slicing) are read tile
        by tile, for each 256 queries all candidates once; fastest in the order of their ids.
    V : array of shape (m, d), optional
        Embeddings of the second view; ``U @ V.T`` is the similarity.
    labels : array of shape (n,), or a pair of arrays of shapes (n,) and (m,), optional
        Classes. mAP then takes all candidates of the query's class as relevant, over the
        whole ranking; a missing label (None, NaN) is relevant to nothing. When n != m and
        no ids are given, all columns do.
    ks : iterable of int, default (1, 5, 10)
        Cut-offs of the recalls.
    x_ids, y_ids : arrays of shapes (n,) and (m,), optional
        Items: a candidate is a partner of a query when their ids are equal (five captions of
        an image share its id). Without ids, row i belongs with row i; one of the two may be
        left out and is then 0, 1, 2, ...

    Returns
    -------
    DataFrame
        Rows "x -> y" (`U` are the queries), "y -> x" and "mean"; columns "R@k" for each k
        (share of the queries with a partner among the first k), "median_rank" (of the best
        partner, 1 = best), "MRR" (mean of 1 / rank), "mAP", "n_queries" and
        "n_candidates". Queries without any partner stay candidates of the other direction
        but are left out of the averages, with a warning. `retrieval_chance` gives the same
        table for random scores.

    Raises
    ------
    ValueError
        NaN in either array (which, how many, the first), shapes that do not fit, or a
        direction in which no query has a partner.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import retrieval_report
    >>> rng = np.random.default_rng(0)
    >>> U = rng.normal(size=(100, 8))
    >>> report = retrieval_report(U, U + rng.normal(size=(100, 8)))
    >>> list(report.index), round(float(report.loc["mean", "R@10"]), 2)
    (['x -> y', 'y -> x', 'mean'], 0.75)
    """
    task = RetrievalTask(task_shape(U, V), labels, x_ids, y_ids)
    cutoffs = _check_cutoffs(ks)
    counts = partner_counts(U, V, x_ids=task.ids[0], y_ids=task.ids[1])
    rows = {}
    for name, count, side in zip(DIRECTIONS, counts, (0, 1), strict=True):
        own, other = task.relevance(side)
        if own is None:
            precisions = _single_precisions(count)
        else:
            queries, candidates = (U, V) if not side else _swap(U, V)
            precisions = to_numpy(average_precisions(queries, candidates, x_ids=own, y_ids=other))
        ranks = _found(to_numpy(count.ranks()), f"of {name}")
        if own is task.ids[side]:  # the same queries, of which the line before has told
            precisions = precisions[~np.isnan(precisions)]
        rows[name] = {
            **_rank_metrics(ranks, cutoffs),
            "mAP": float(np.mean(_found(precisions, f"of {name} (mAP, by label)"))),
            "n_queries": int(np.sum(to_numpy(count.relevant_ties) > 0)),
            "n_candidates": task.shape[1 - side],
        }
    return _with_mean(rows)


def retrieval_chance(
    n: int,
    m: int | None = None,
    *,
    labels: Any = None,
    ks: Iterable[int] = (1, 5, 10),
    x_ids: Any = None,
    y_ids: Any = None,
) -> pd.DataFrame:
    """The expected `retrieval_report` of scores that know nothing.

    With r relevant candidates among m in random order, the best has rank > k with probability
    C(m - r, k) / C(m, k), and the expected average precision is
    ``(H_m + (r - 1) (m - H_m) / (m - 1)) / m``, where H_m = 1 + 1/2 + ... + 1/m.

    Parameters
    ----------
    n, m : int
        Rows of `U` and of `V` (m = n when left out).
    labels, ks, x_ids, y_ids
        As in `retrieval_report`.

    Returns
    -------
    DataFrame
        Rows and columns of `retrieval_report`.

    Examples
    --------
    >>> from cmstats.metrics import retrieval_chance
    >>> retrieval_chance(50)["R@10"].round(3).tolist()
    [0.2, 0.2, 0.2]
    """
    task = RetrievalTask((n, n if m is None else m), labels, x_ids, y_ids)
    cutoffs = _check_cutoffs(ks)
    rows = {}
    for side, name in enumerate(DIRECTIONS):
        size = task.shape[1 - side]
        partners = _relevant_counts(*task.partners(side))
        partners = partners[partners > 0]
        own, other = task.relevance(side)
        relevant = partners if own is None else _relevant_counts(own, other)
        kinds, shares = np.unique(partners, return_counts=True)
        survival = sum(c * _survival(size, int(r)) for r, c in zip(kinds, shares, strict=True))
        survival = np.asarray(survival) / len(partners)
        found = -np.diff(survival)  # found[k - 1]: probability that the best rank is k
        harmonic = float(np.sum(1 / np.arange(1, size + 1)))
        relevant = relevant[relevant > 0]
        precision = (harmonic + (relevant - 1) * (size - harmonic) / max(size - 1, 1)) / size
        rows[name] = {
            **{f"R@{k}": float(1 - survival[min(k, size)]) for k in cutoffs},
            "median_rank": _median_of(survival),
            "MRR": float(np.sum(found / np.arange(1, size + 1))),
            "mAP": float(np.mean(precision)),
            "n_queries": len(partners),
            "n_candidates": size,
        }
    return _with_mean(rows)


def _survival(size: int, relevant: int) -> HostArray:
    """P(the best of `relevant` candidates among `size` has rank > k), k = 0 .. size."""
    k = np.arange(size)
    factors = np.maximum(size - relevant - k, 0) / (size - k)
    return np.concatenate([[1.0], np.cumprod(factors)])


def _median_of(survival: HostArray) -> float:
    below = int(np.argmax(survival <= 0.5 + 1e-12))  # the first k with P(rank <= k) >= 1/2
    tied = abs(survival[below] - 0.5) < 1e-12
    return below + 0.5 if tied else float(below)


def _relevant_counts(own: HostArray, other: HostArray) -> HostArray:
    ordered = np.sort(other)
    right = np.searchsorted(ordered, own, side="right")
    return np.asarray(right - np.searchsorted(ordered, own, side="left"))


def _single_precisions(count: PartnerCounts) -> HostArray:
    """Average precision with one relevant candidate: its precision."""
    return np.asarray(1.0 / (1.0 + to_numpy(count.greater) + to_numpy(count.ties)))


def _rank_metrics(ranks: HostArray, cutoffs: list[int]) -> dict[str, float]:
    return {
        **{f"R@{k}": float(np.mean(ranks <= k)) for k in cutoffs},
        "median_rank": float(np.median(ranks)),
        "MRR": float(np.mean(1.0 / ranks)),
    }


def _with_mean(rows: dict[str, dict[str, float]]) -> pd.DataFrame:
    first, second = rows.values()
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    report = pd.DataFrame([first, second, mean], index=[*rows, "mean"])
    for name in ("n_queries", "n_candidates"):  # whole numbers print as such where they are
        if bool((report[name] % 1 == 0).all()):
            report[name] = report[name].astype(np.int64)
    return report


# ----------------------------------------------------------------------- single numbers
def recall_at_k(
    U: Array, V: Array | None = None, *, k: int = 10, x_ids: Any = None, y_ids: Any = None
) -> float:
    """Share of the queries in `U` with a partner among their k best candidates in `V`.

    Parameters
    ----------
    U, V, x_ids, y_ids
        As in `retrieval_report`. For the other direction swap them (transpose scores).
    k : int, default 10
        The cut-off.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import recall_at_k
    >>> recall_at_k(np.array([[0.1, 0.9], [0.2, 0.8]]), k=1)
    0.5
    """
    (cutoff,) = _check_cutoffs([k])
    return float(np.mean(_ranks(U, V, x_ids, y_ids) <= cutoff))


def median_rank(U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None) -> float:
    """Median over the queries in `U` of the rank of their best partner in `V`, 1 = best.

    Parameters are those of `retrieval_report`.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import median_rank
    >>> median_rank(np.ones((9, 9)))
    5.0
    """
    return float(np.median(_ranks(U, V, x_ids, y_ids)))


def mean_reciprocal_rank(
    U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None
) -> float:
    """Mean over the queries in `U` of 1 / rank of their best partner in `V`.

    Parameters are those of `retrieval_report`.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import mean_reciprocal_rank
    >>> mean_reciprocal_rank(np.array([[0.1, 0.9], [0.2, 0.8]]))
    0.75
    """
    return float(np.mean(1.0 / _ranks(U, V, x_ids, y_ids)))


def mean_average_precision(
    U: Array,
    V: Array | None = None,
    *,
    labels: Any = None,
    x_ids: Any = None,
    y_ids: Any = None,
) -> float:
    """Mean over the queries in `U` of the average precision of their ranking of all of `V`.

    Parameters
    ----------
    U, V, labels, x_ids, y_ids
        As in `retrieval_report`: candidates of the query's label are relevant, without
        labels those of its id, without ids the one in its row.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import mean_average_precision
    >>> scores = np.array([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3], [0.5, 0.4, 0.6]])
    >>> round(mean_average_precision(scores, labels=["a", "b", "a"]), 3)
    0.778
    """
    task = RetrievalTask(task_shape(U, V), labels, x_ids, y_ids)
    own, other = task.relevance(0)
    return float(np.mean(_found(to_numpy(average_precisions(U, V, x_ids=own, y_ids=other)), "")))


def _ranks(U: Array, V: Array | None, x_ids: Any, y_ids: Any) -> HostArray:
    task = RetrievalTask(task_shape(U, V), None, x_ids, y_ids)
    ranks = partner_ranks(U, V, x_ids=task.ids[0], y_ids=task.ids[1])
    return _found(to_numpy(ranks), "")


def _found(values: HostArray, what: str) -> HostArray:
    """The values of queries that have a relevant candidate; one warning about the others."""
    missing = np.isnan(values)
    if missing.all():
        raise ValueError(
            f"none of the {len(values)} queries {what} has a relevant candidate: "
            "do the ids (or labels) of the two sides share values?".replace("  ", " ")
        )
    if missing.any():
        warnings.warn(
            f"{int(missing.sum())} of {len(values)} queries {what} have no relevant candidate "
            "and are left out of the averages".replace("  ", " "),
            stacklevel=3,
        )
    return values[~missing]


# ------------------------------------------------------------------------------ search
def search(U: Array, V: Array, k: int = 10) -> tuple[Array, Array]:
    """The k candidates in `V` with the largest inner product with each query in `U`.

    Parameters
    ----------
    U : array of shape (n, d), or (d,) for a single query
        Query vectors, for example ``model.embed(y=texts)``.
    V : array of shape (m, d)
        Candidate vectors, for example ``model.embed(X=images)``; read tile by tile where they
        are on a disk.
    k : int, default 10
        How many; all m of them when k is larger.

    Returns
    -------
    indices : array of shape (n, k), or (k,) for a single query
        Rows of `V`, best first; equal scores in the order of their index.
    scores : array of the same shape
        Their inner products.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import search
    >>> V = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> search(np.array([0.0, 2.0]), V, k=2)
    (array([1, 2]), array([2. , 1.6]))
    """
    if V is None:
        raise TypeError("search needs the candidates V; for a score matrix see kernels.ranks.top_k")
    single = getattr(U, "ndim", 2) == 1
    if single:
        U = namespace(U).reshape(U, (1, -1)) if is_array(U) else to_numpy(U).reshape(1, -1)
    indices, scores = top_k(U, V, k)
    return (indices[0, :], scores[0, :]) if single else (indices, scores)


# ------------------------------------------------------------- which items belong together
class RetrievalTask:
    """Sizes, and on the host the integers that say what is relevant to what."""

    def __init__(self, shape: tuple[int, int], labels: Any, x_ids: Any, y_ids: Any) -> None:
        self.shape = shape
        n, m = shape
        given = x_ids is not None or y_ids is not None
        ids = (
            _codes(
                np.arange(n) if x_ids is None else x_ids,
                np.arange(m) if y_ids is None else y_ids,
                shape,
                ("x_ids", "y_ids"),
            )
            if given
            else None
        )
        self.labels = None if labels is None else _label_codes(labels, shape)
        if ids is None and n != m:
            if self.labels is None:
                raise ValueError(
                    f"the two sides have {n} and {m} items: pass x_ids and y_ids (or a pair of "
                    "labels) to say which belong together"
                )
            ids = self.labels
        self.ids: tuple[Any, Any] = (None, None) if ids is None else ids

    def partners(self, side: int) -> tuple[HostArray, HostArray]:
        """Ids of the queries and of the candidates; side 1 takes the second view as queries."""
        if self.ids[0] is None:
            return np.arange(self.shape[0]), np.arange(self.shape[0])
        return self.ids[side], self.ids[1 - side]

    def relevance(self, side: int) -> tuple[Any, Any]:
        """What mAP goes by: labels, else ids, else (None, None) for row by row."""
        codes = self.ids if self.labels is None else self.labels
        return codes[side], codes[1 - side]


def _label_codes(labels: Any, shape: tuple[int, int]) -> tuple[HostArray, HostArray]:
    pair = isinstance(labels, tuple) and len(labels) == 2
    if pair and not any(isinstance(part, str) or np.ndim(to_numpy(part)) != 1 for part in labels):
        return _codes(labels[0], labels[1], shape, ("labels of x", "labels of y"))
    if shape[0] != shape[1]:
        raise ValueError(
            f"the two sides have {shape[0]} and {shape[1]} items: "
            "labels must be a pair (labels of x, labels of y)"
        )
    return _codes(labels, labels, shape, ("labels", "labels"))


def _codes(
    x: Any, y: Any, shape: tuple[int, int], names: tuple[str, str]
) -> tuple[HostArray, HostArray]:
    """Integers that are equal where the values are; a missing value equals nothing."""
    sides = []
    for values, length, name in zip((x, y), shape, names, strict=True):
        values = to_numpy(values)
        if values.ndim != 1 or len(values) != length:
            raise ValueError(
                f"{name} must be a vector with one value for each of the {length} items, "
                f"got shape {values.shape}"
            )
        sides.append(values)
    kinds = {side.dtype.kind for side in sides}
    if len(kinds) > 1 and kinds & set("US"):  # numbers beside text would turn into text
        sides = [side.astype(object) for side in sides]
    codes, _ = pd.factorize(np.concatenate(sides))
    x_codes, y_codes = codes[: shape[0]].astype(np.int64), codes[shape[0] :].astype(np.int64)
    y_codes[y_codes < 0] = -2  # missing on one side is not missing on the other
    return x_codes, y_codes


def task_shape(U: Any, V: Any) -> tuple[int, int]:
    """Items of the two sides."""
    if V is None:
        if np.ndim(U) != 2 if not is_array(U) else U.ndim != 2:
            raise ValueError("a score matrix must be two-dimensional, queries in rows")
        n, m = (U if hasattr(U, "shape") else np.asarray(U)).shape
        return int(n), int(m)
    return tuple(int(a.shape[0] if hasattr(a, "shape") else len(a)) for a in (U, V))  # type: ignore[return-value]


def _swap(U: Any, V: Any) -> tuple[Any, Any]:
    if V is not None:
        return V, U
    return (U if hasattr(U, "T") else np.asarray(U)).T, None


def _check_cutoffs(ks: Iterable[int]) -> list[int]:
    cutoffs = [int(k) for k in ks]
    if any(k < 1 for k in cutoffs):
        raise ValueError(f"the cut-offs k must be at least 1, got {cutoffs}")
    return cutoffs


# ----------------------------------------------------------------------------- scorers
def total_correlation_scorer(estimator: Any, X: Array, y: Array) -> float:
    """Sum of the correlations of the paired variates of held-out data.

    A scorer for `GridSearchCV` and `cross_val_score`. Unlike the mean that `score` is, it
    can choose the number of components: one that correlates by chance adds nothing.

    Parameters
    ----------
    estimator : object
        With ``transform(X, y) -> (Xc, Yc)``.
    X, y : array of shapes (n, p) and (n, q)
        Held-out data.

    Returns
    -------
    float
        NaN with a warning for one row or a constant variate.

    Examples
    --------
    >>> from sklearn.datasets import load_linnerud
    >>> from sklearn.cross_decomposition import CCA
    >>> from cmstats.metrics import total_correlation_scorer
    >>> X, y = load_linnerud(return_X_y=True)
    >>> round(total_correlation_scorer(CCA(1).fit(X, y), X, y), 3)
    0.796
    """
    variates = [a if is_array(a) else to_numpy(a) for a in estimator.transform(X, y)]
    xp = namespace(*variates)
    u, v = (float64(a if a.ndim == 2 else xp.reshape(a, (-1, 1))) for a in variates)
    u, v = (a - xp.mean(a, axis=0) for a in (u, v))
    norms = xp.sqrt(xp.sum(u * u, axis=0) * xp.sum(v * v, axis=0))
    if bool(xp.any(norms == 0)):
        warnings.warn(
            f"the correlation of {u.shape[0]} row(s) with a constant variate is not defined: "
            "the score is NaN",
            stacklevel=2,
        )
        return math.nan
    return float(xp.sum(xp.sum(u * v, axis=0) / norms))


class _RetrievalScorer:
    """A scorer that is pickled and printed by its two arguments."""

    def __init__(self, metric: str, kind: str | None) -> None:
        self.metric, self.kind = metric, kind

    def __repr__(self) -> str:
        return f"make_retrieval_scorer({self.metric!r}, kind={self.kind!r})"

    def __call__(self, estimator: Any, X: Array, y: Array, *, labels: Any = None) -> float:
        embedding = {} if self.kind is None else {"kind": self.kind}
        U, V = estimator.embed(X, y, **embedding)
        ks = [int(self.metric[2:])] if self.metric.startswith("R@") else []
        report = retrieval_report(U, V, labels=labels, ks=ks)
        sign = -1 if self.metric == "median_rank" else 1
        return sign * float(report[self.metric].to_numpy()[-1])


def make_retrieval_scorer(metric: str = "R@10", *, kind: str | None = None) -> Any:
    """A scorer for model selection by retrieval, the mean of both directions.

    Parameters
    ----------
    metric : str, default "R@10"
        A column of `retrieval_report`: "R@k" for any k, "median_rank" (negated: larger is
        better), "MRR" or "mAP".
    kind : str, optional
        The similarity, passed to ``estimator.embed``; its default when left out.

    Returns
    -------
    callable
        ``scorer(estimator, X, y) -> float``. It can be pickled. Recalls depend on the number
        of candidates, so compare folds of one size.

    Examples
    --------
    >>> from cmstats.metrics import make_retrieval_scorer
    >>> make_retrieval_scorer("MRR", kind="cosine")
    make_retrieval_scorer('MRR', kind='cosine')
    """
    if metric not in ("median_rank", "MRR", "mAP") and not (
        metric.startswith("R@") and metric[2:].isdigit() and int(metric[2:]) > 0
    ):
        raise ValueError(f'metric must be "R@k", "median_rank", "MRR" or "mAP", got {metric!r}')
    return _RetrievalScorer(metric, kind)


recall_at_10_scorer = make_retrieval_scorer("R@10")
