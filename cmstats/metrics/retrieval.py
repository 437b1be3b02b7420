"""Retrieval metrics, search, and scorers for model selection (conventions: `cmstats.metrics`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cmstats.arrays import Array, check_count, check_cutoffs, is_array, namespace, to_numpy, warn
from cmstats.kernels.ranks import PartnerCounts, average_precisions, partner_counts, top_k
from cmstats.metrics.correlation import refused_score
from cmstats.metrics.hubness import corrected
from cmstats.metrics.relevance import Relevance
from cmstats.metrics.ties import TiedRanks, first_of

if TYPE_CHECKING:
    import pandas as pd

    from cmstats.metrics.hubness import HubnessCorrection

__all__ = [
    "DIRECTIONS",
    "check_metric",
    "make_retrieval_scorer",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "median_rank",
    "metric_names",
    "metric_of_ranks",
    "recall_at_10_scorer",
    "recall_at_k",
    "retrieval_chance",
    "retrieval_report",
    "search",
]

HostArray = np.ndarray[Any, Any]

DIRECTIONS = ("x -> y", "y -> x")
"""The rows of `retrieval_report`: queries -> candidates."""


def metric_names(ks: Iterable[int], labels: Any) -> list[str]:
    """The quality columns of `retrieval_report`; without labels mAP repeats the ranks."""
    return [*(f"R@{k}" for k in ks), "median_rank", "MRR", *(["mAP"] if labels is not None else [])]


def check_metric(metric: str, also: Iterable[str] = ()) -> None:
    """Raise if this is no quality column of `retrieval_report`, in either case of letters.

    Parameters
    ----------
    metric : str
    also : iterable of str
        Other names that the caller knows, for the message.
    """
    name = metric.upper()
    if name in ("MEDIAN_RANK", "MRR", "MAP"):
        return
    if not (name.startswith("R@") and name[2:].isdigit() and int(name[2:]) > 0):
        others = "".join(f'"{other}", ' for other in also)
        known = f'{others}"R@k", "median_rank", "MRR" or "mAP"'
        raise ValueError(f"{'scoring' if also else 'metric'} must be {known}, got {metric!r}")


def metric_of_ranks(metric: str, counts: PartnerCounts, weights: HostArray) -> float:
    """A quality column of `retrieval_report` for weighted queries of one partner each.

    Larger is better: the median rank is negated. The mAP of one partner is the MRR.
    """
    name = metric.upper()
    tied = TiedRanks.of(counts)
    if name == "MEDIAN_RANK":
        return -tied.median(weights)
    return float(np.average(tied.values(name), weights=weights))


def retrieval_report(
    U: Array,
    V: Array | None = None,
    *,
    labels: Any = None,
    ks: Iterable[int] = (1, 5, 10),
    x_ids: Any = None,
    y_ids: Any = None,
    hubness: HubnessCorrection | None = None,
) -> pd.DataFrame:
    r"""Cross-modal retrieval in both directions.

    For query i with scores :math:`s_{ij}`, partners :math:`P_i` and best partner's score
    :math:`s_i^* = \max_{j \in P_i} s_{ij}`, the rank of the best partner is

    .. math:: r_i = 1 + \#\{j \notin P_i: s_{ij} > s_i^*\}
        + \frac{\#\{j \notin P_i: s_{ij} = s_i^*\}}{1 + \#\{j \in P_i: s_{ij} = s_i^*\}}

    (its expectation when ties are broken at random), and over n queries

    .. math:: \mathrm{R@}k = \frac1n \#\{i: r_i \le k\}, \quad
        \mathrm{MRR} = \frac1n \sum_i \frac1{r_i}, \quad
        \mathrm{mAP} = \frac1n \sum_i \frac1{|C_i|} \sum_{j \in C_i}
        \frac{\#\{l \in C_i: s_{il} \ge s_{ij}\}}{\#\{l: s_{il} \ge s_{ij}\}}

    with :math:`C_i` the candidates of the query's class, or its partners without labels. Where
    scores are equal, every column has its expectation over all orders of the ties (McSherry and
    Najork 2008), so that constant scores are at chance (`retrieval_chance`).

    Parameters
    ----------
    U : array of shape (n, d), or (n, m) when `V` is None
        Embeddings of the first view, or a matrix of scores (first view in rows). Embeddings
        on a disk (a memory-map, shards, anything with shape, dtype and slicing) are read tile
        by tile, all candidates once for every 256 queries; fastest if sorted by id.
    V : array of shape (m, d), optional
        Embeddings of the second view; ``U @ V.T`` is the similarity.
    labels : array of shape (n,), or a pair of arrays of shapes (n,) and (m,), optional
        Classes. All candidates of the query's class are then relevant for the mAP, over the
        whole ranking; a missing label (None, NaN) is relevant to nothing. Where n != m and no
        ids are given, labels define the partners of the ranks too.
    ks : iterable of int, default (1, 5, 10)
        Cut-offs of the recalls.
    x_ids, y_ids : arrays of shapes (n,) and (m,), optional
        Ids of items: a candidate is a partner of a query when their ids are equal (five
        captions of an image share its id). Without ids, row i belongs with row i; one of the
        two may be left out and is then 0, 1, 2, ...
    hubness : HubnessCorrection, optional
        Fitted to embeddings of training pairs: the scores are the corrected ones.

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
        If either array holds NaN, shapes do not fit, a cut-off is less than 1, or no query of
        a direction has a partner.

    References
    ----------
    Manning, C., Raghavan, P. and Schütze, H. (2008). Introduction to Information Retrieval,
    chapter 8. Cambridge University Press.
    McSherry, F. and Najork, M. (2008). Computing information retrieval performance measures
    efficiently in the presence of tied scores. ECIR.

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
    relevance = Relevance.of(U, V, labels, x_ids, y_ids)
    cutoffs = check_cutoffs(ks)
    U, V = corrected(hubness, U, V)
    counts = partner_counts(U, V, x_ids=relevance.ids[0], y_ids=relevance.ids[1])
    rows = {}
    for name, count, side in zip(DIRECTIONS, counts, (0, 1), strict=True):
        own, other = relevance.classes(side)
        _found(to_numpy(count.ranks()), f"of {name}")
        ranks = TiedRanks.of(count)
        if own is None:
            precisions = ranks.reciprocals()  # of one relevant candidate
        else:
            queries, candidates = (U, V) if not side else _swap(U, V)
            precisions = to_numpy(average_precisions(queries, candidates, x_ids=own, y_ids=other))
        if own is relevance.ids[side]:  # the warning of the line before covers these queries
            precisions = precisions[~np.isnan(precisions)]
        rows[name] = {
            **{f"R@{k}": float(np.mean(ranks.recalls(k))) for k in cutoffs},
            "median_rank": ranks.median(),
            "MRR": float(np.mean(ranks.reciprocals())),
            "mAP": float(np.mean(_found(precisions, f"of {name} (mAP, by label)"))),
            "n_queries": int(np.sum(to_numpy(count.relevant_ties) > 0)),
            "n_candidates": relevance.shape[1 - side],
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
    r"""The expected `retrieval_report` of candidates in random order.

    With r relevant candidates among m, the rank R of the best one and the average precision AP
    have

    .. math:: P(R > k) = \binom{m - r}{k} \Big/ \binom{m}{k}, \quad
        E(\mathrm{AP}) = \frac1m \Bigl(H_m + \frac{(r - 1)(m - H_m)}{m - 1}\Bigr), \quad
        H_m = \sum_{i=1}^m \frac1i

    averaged over the queries.

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

    Raises
    ------
    ValueError
        As in `retrieval_report`.

    References
    ----------
    Bestgen, Y. (2015). Exact expected average precision of the random baseline for system
    evaluation. Prague Bulletin of Mathematical Linguistics 103.

    Examples
    --------
    >>> from cmstats.metrics import retrieval_chance
    >>> retrieval_chance(50)["R@10"].round(3).tolist()
    [0.2, 0.2, 0.2]
    """
    relevance = Relevance((n, n if m is None else m), labels, x_ids, y_ids)
    cutoffs = check_cutoffs(ks)
    rows = {}
    for side, name in enumerate(DIRECTIONS):
        size = relevance.shape[1 - side]
        partners = _relevant_counts(*relevance.partners(side))
        partners = partners[partners > 0]
        own, other = relevance.classes(side)
        relevant = partners if own is None else _relevant_counts(own, other)
        kinds, shares = np.unique(partners, return_counts=True)
        survival = sum(c * first_of(size, int(r)) for r, c in zip(kinds, shares, strict=True))
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


def _median_of(survival: HostArray) -> float:
    """The median of a rank with this survival function."""
    below = int(np.argmax(survival <= 0.5 + 1e-12))  # the first k with P(rank <= k) >= 1/2
    tied = abs(survival[below] - 0.5) < 1e-12
    return below + 0.5 if tied else float(below)


def _relevant_counts(own: HostArray, other: HostArray) -> HostArray:
    """The number of candidates with the code of each query."""
    ordered = np.sort(other)
    right = np.searchsorted(ordered, own, side="right")
    return np.asarray(right - np.searchsorted(ordered, own, side="left"))


def _with_mean(rows: dict[str, dict[str, float]]) -> pd.DataFrame:
    """The table of both directions and their mean."""
    import pandas as pd

    from cmstats.metrics.tables import as_table

    first, second = rows.values()
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    report = as_table(pd.DataFrame([first, second, mean], index=[*rows, "mean"]))
    for name in ("n_queries", "n_candidates"):  # the mean of two sizes may be half-integer
        if bool((report[name] % 1 == 0).all()):
            report[name] = report[name].astype(np.int64)
    return report


def recall_at_k(
    U: Array, V: Array | None = None, *, k: int = 10, x_ids: Any = None, y_ids: Any = None
) -> float:
    r"""Share of the queries in `U` with a partner among their k best candidates in `V`.

    .. math:: \mathrm{R@}k = \frac1n \#\{i: r_i \le k\}

    with :math:`r_i` the rank of query i's best partner.

    Parameters
    ----------
    U, V, x_ids, y_ids
        As in `retrieval_report`. For the other direction swap them (transpose scores).
    k : int, default=10
        The cut-off.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        As in `retrieval_report`.

    References
    ----------
    Manning, C., Raghavan, P. and Schütze, H. (2008). Introduction to Information Retrieval,
    chapter 8. Cambridge University Press.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import recall_at_k
    >>> recall_at_k(np.array([[0.1, 0.9], [0.2, 0.8]]), k=1)
    0.5
    """
    cutoff = check_count("k", k, 1)
    return float(np.mean(_ranks(U, V, x_ids, y_ids).recalls(cutoff)))


def median_rank(U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None) -> float:
    r"""Median over the queries in `U` of the rank of their best partner in `V`, 1 = best.

    .. math:: \operatorname{median}_i r_i, \qquad r_i = 1 + \#\{j: s_{ij} > s_i^*\}
        + \tfrac12 \#\{j: s_{ij} = s_i^*\}

    over the candidates j other than the partner, of score :math:`s_i^*` (for several partners
    see `retrieval_report`).

    Parameters
    ----------
    U, V, x_ids, y_ids
        As in `retrieval_report`. For the other direction swap them (transpose scores).

    Returns
    -------
    float
        At least 1; (m + 1) / 2 for constant scores of one partner among m candidates.

    Raises
    ------
    ValueError
        As in `retrieval_report`.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import median_rank
    >>> median_rank(np.ones((9, 9)))
    5.0
    """
    return _ranks(U, V, x_ids, y_ids).median()


def mean_reciprocal_rank(
    U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None
) -> float:
    r"""Mean over the queries in `U` of 1 / rank of their best partner in `V`.

    .. math:: \mathrm{MRR} = \frac1n \sum_i \frac1{r_i}

    Parameters
    ----------
    U, V, x_ids, y_ids
        As in `retrieval_report`. For the other direction swap them (transpose scores).

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    ValueError
        As in `retrieval_report`.

    References
    ----------
    Voorhees, E. M. (1999). The TREC-8 question answering track report. TREC-8.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import mean_reciprocal_rank
    >>> mean_reciprocal_rank(np.array([[0.1, 0.9], [0.2, 0.8]]))
    0.75
    """
    return float(np.mean(_ranks(U, V, x_ids, y_ids).reciprocals()))


def mean_average_precision(
    U: Array,
    V: Array | None = None,
    *,
    labels: Any = None,
    x_ids: Any = None,
    y_ids: Any = None,
) -> float:
    r"""Mean over the queries in `U` of the average precision of their ranking of all of `V`.

    .. math:: \mathrm{mAP} = \frac1n \sum_i \frac1{|C_i|} \sum_{j \in C_i}
        \frac{\#\{l \in C_i: s_{il} \ge s_{ij}\}}{\#\{l: s_{il} \ge s_{ij}\}}

    with :math:`C_i` the candidates that are relevant to query i.

    Parameters
    ----------
    U, V, labels, x_ids, y_ids
        As in `retrieval_report`: relevant are the candidates with the query's label, without
        labels those with its id, without ids the one in its row.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    ValueError
        As in `retrieval_report`.

    References
    ----------
    Manning, C., Raghavan, P. and Schütze, H. (2008). Introduction to Information Retrieval,
    chapter 8. Cambridge University Press.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import mean_average_precision
    >>> scores = np.array([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3], [0.5, 0.4, 0.6]])
    >>> round(mean_average_precision(scores, labels=["a", "b", "a"]), 3)
    0.778
    """
    relevance = Relevance.of(U, V, labels, x_ids, y_ids)
    own, other = relevance.classes(0)
    return float(np.mean(_found(to_numpy(average_precisions(U, V, x_ids=own, y_ids=other)), "")))


def _ranks(U: Array, V: Array | None, x_ids: Any, y_ids: Any) -> TiedRanks:
    """Ranks of the best partners, of the queries that have one."""
    relevance = Relevance.of(U, V, None, x_ids, y_ids)
    counts = partner_counts(U, V, x_ids=relevance.ids[0], y_ids=relevance.ids[1])[0]
    _found(to_numpy(counts.ranks()), "")
    return TiedRanks.of(counts)


def _found(values: HostArray, what: str) -> HostArray:
    """Drop the NaN of queries without a relevant candidate, with one warning."""
    missing = np.isnan(values)
    if missing.all():
        raise ValueError(
            f"none of the {len(values)} queries {what} has a relevant candidate: "
            "do the ids (or labels) of the two sides share values?".replace("  ", " ")
        )
    if missing.any():
        warn(
            f"{int(missing.sum())} of {len(values)} queries {what} have no relevant candidate "
            "and are left out of the averages".replace("  ", " "),
        )
    return values[~missing]


def search(
    U: Array,
    V: Array,
    k: int = 10,
    *,
    hubness: HubnessCorrection | None = None,
    queries: Literal["x", "y"] = "x",
) -> tuple[Array, Array]:
    r"""The k candidates in `V` with the largest inner product with each query in `U`.

    .. math:: s_{ij} = \langle u_i, v_j \rangle

    is computed tile by tile (exact search, time n m d); only the k best are stored.

    Parameters
    ----------
    U : array of shape (n, d), or (d,) for a single query
        Query vectors, for example ``model.embed(y=texts)``.
    V : array of shape (m, d)
        Candidate vectors, for example ``model.embed(X=images)``; arrays on a disk are read
        tile by tile.
    k : int, default=10
        The number of candidates per query, at most m of them.
    hubness : HubnessCorrection, optional
        Fitted to embeddings of training pairs: the scores are the corrected ones.
    queries : {"x", "y"}, default="x"
        Which view of the bank of `hubness` the queries are of; the candidates are of the other.

    Returns
    -------
    indices : array of shape (n, k), or (k,) for a single query
        Rows of `V`, best first; equal scores in the order of their index.
    scores : array of the same shape
        Their inner products.

    Raises
    ------
    TypeError
        If `V` is None: scores are searched by `kernels.ranks.top_k`.
    ValueError
        If either array holds NaN, or shapes do not fit.

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
    if queries not in ("x", "y"):
        raise ValueError(f"queries must be 'x' or 'y', got {queries!r}")
    U, V = corrected(hubness, U, V) if queries == "x" else corrected(hubness, V, U)[::-1]
    indices, scores = top_k(U, V, k)
    return (indices[0, :], scores[0, :]) if single else (indices, scores)


def _swap(U: Any, V: Any) -> tuple[Any, Any]:
    if V is not None:
        return V, U
    return (U if hasattr(U, "T") else np.asarray(U)).T, None


class _RetrievalScorer:
    """A scorer as an object: it can be pickled, and its repr is its call."""

    def __init__(self, metric: str, kind: str | None) -> None:
        self.metric, self.kind = metric, kind

    def __repr__(self) -> str:
        return f"make_retrieval_scorer({self.metric!r}, kind={self.kind!r})"

    def __call__(self, estimator: Any, X: Array, y: Array, *, labels: Any = None) -> float:
        if (refused := refused_score(estimator)) is not None:
            return refused  # type: ignore[no-any-return]
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
    metric : str, default="R@10"
        A column of `retrieval_report`: "R@k" for any k, "median_rank" (negated: larger is
        better), "MRR" or "mAP".
    kind : str, optional
        The similarity, passed to ``estimator.embed``; by default that of the model.

    Returns
    -------
    callable
        ``scorer(estimator, X, y, *, labels=None) -> float``, which can be pickled. Recalls
        depend on the number of candidates, so folds should have one size.

    Raises
    ------
    ValueError
        If `metric` is no quality column of `retrieval_report`.

    Examples
    --------
    >>> from cmstats.metrics import make_retrieval_scorer
    >>> make_retrieval_scorer("MRR", kind="cosine")
    make_retrieval_scorer('MRR', kind='cosine')
    """
    check_metric(metric)
    return _RetrievalScorer(metric, kind)


recall_at_10_scorer = make_retrieval_scorer("R@10")
"""Recall at 10, the mean of both directions, as a scorer."""
