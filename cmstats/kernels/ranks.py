"""Rank of the true partner, top-k and average precision over tiles of scores.

Scores are inner products ``U[i] @ V[j]``, made tile by tile and counted while they are in
the cache; the n x m matrix is never stored. With one relevant candidate per query,

    rank = 1 + #greater + (#ties with another candidate) / 2,

the expected position when ties are broken at random. With r relevant candidates tied at the
best relevant score and t irrelevant ones beside them, that expectation is
``1 + #greater + t / (r + 1)``, of which the first formula is the case r = 1.

Three points decide the layout:

- A score is compared only with scores of the same matrix product call: an own score computed
  another way differs in the last bit and is then outranked by itself.
- A matrix product gives equal vectors unequal scores now and then (OpenBLAS in float32: 2% of
  the places in a tile sum in another order). On the CPU, scores that differ by less than
  their rounding error are therefore compared once more in float64, so duplicates tie.
- Both sides are sorted by id. The candidates that are relevant to a query are then one run
  of columns, the tiles that hold relevant pairs lie along the diagonal, and one-to-one pairs
  need no case of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from cmstats.arrays import (
    Array,
    check_count,
    device_of,
    is_numpy,
    namespace,
    row_slices,
)
from cmstats.kernels.rank_problem import BLOCK_SCORES, Layout, Problem, unsort

__all__ = ["PartnerCounts", "average_precisions", "partner_counts", "partner_ranks", "top_k"]


SMALL = 1024
"""Rows of a matrix of scores that one loop counts, without tiles."""


class PartnerCounts(NamedTuple):
    """Counts that determine the rank of the best relevant candidate of each query.

    Attributes
    ----------
    greater : array of shape (n,), int64
        Irrelevant candidates that score above the best relevant one.
    ties : array of shape (n,), int64
        Irrelevant candidates that score the same.
    relevant_ties : array of shape (n,), int64
        Relevant candidates at the best relevant score: at least 1, or 0 for a query
        without any relevant candidate.
    """

    greater: Array
    ties: Array
    relevant_ties: Array

    def ranks(self) -> Array:
        """Expected rank of the best relevant candidate, float64, 1 = best; NaN without one."""
        xp = namespace(self.greater)
        greater = xp.astype(self.greater, xp.float64)
        share = xp.astype(self.ties, xp.float64) / xp.astype(self.relevant_ties + 1, xp.float64)
        return xp.where(self.relevant_ties > 0, 1 + greater + share, xp.nan)


def partner_ranks(
    U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None
) -> Array:
    """Rank of each query's partner among all candidates, 1 = best.

    ``rank[i] = 1 + #{j: s_ij > s_ii} + #{j != i: s_ij == s_ii} / 2`` with
    ``s_ij = U[i] @ V[j]``: the expected position when ties are broken at random, so constant
    scores give (n + 1) / 2.

    Parameters
    ----------
    U : array of shape (n, d), or (n, m) when `V` is None
        Query vectors, or a matrix of scores (queries in rows; infinities are allowed).
    V : array of shape (m, d), optional
        Candidate vectors. Without ids, n = m and V[i] is the partner of U[i].
    x_ids, y_ids : integers of shape (n,) and (m,), optional
        Many-to-many partners: a candidate is relevant to a query when their ids are equal,
        and the rank is that of the best relevant one. One of the two may be left out:
        it is then 0, 1, 2, ...

    Returns
    -------
    array of shape (n,), float64
        On the device of `U`. NaN for a query without any relevant candidate.

    Raises
    ------
    ValueError
        NaN in either array, widths or lengths that do not fit, scores that overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.ranks import partner_ranks
    >>> U = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> partner_ranks(U, U[[0, 2, 1]])
    array([1., 2., 2.])
    >>> partner_ranks(np.ones((5, 5)))
    array([3., 3., 3., 3., 3.])
    """
    problem = Problem.check(U, V, x_ids, y_ids)
    return _counts(problem, both=False)[0].ranks()


def partner_counts(
    U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None
) -> tuple[PartnerCounts, PartnerCounts]:
    """Counts behind the ranks of both directions, from one pass over the scores on the CPU.

    Parameters
    ----------
    U, V, x_ids, y_ids
        As in `partner_ranks`.

    Returns
    -------
    (PartnerCounts, PartnerCounts)
        Rows of `U` as queries, and rows of `V` as queries.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.ranks import partner_counts
    >>> x, y = partner_counts(np.array([[3.0, 5.0], [0.0, 4.0]]))
    >>> x.ranks(), y.ranks()
    (array([2., 1.]), array([1., 2.]))
    """
    if V is None and x_ids is None and y_ids is None and _is_small(U):
        from cmstats.kernels._cpu import ranks as cpu

        first, second = cpu.paired_counts(U)
        return PartnerCounts(*first), PartnerCounts(*second)
    x, y = _counts(Problem.check(U, V, x_ids, y_ids), both=True)
    assert y is not None
    return x, y


def _is_small(scores: Any) -> bool:
    """Whether this is a square matrix in the cache of the CPU, surely without NaN."""
    return (
        type(scores) is np.ndarray
        and scores.dtype in (np.float32, np.float64)
        and scores.ndim == 2
        and 0 < scores.shape[0] == scores.shape[1] <= SMALL
        and scores.flags.c_contiguous
        and not np.isnan(np.sum(scores))
    )


def top_k(U: Array, V: Array | None = None, k: int = 10) -> tuple[Array, Array]:
    """The k best candidates of each query, exactly, best first.

    Parameters
    ----------
    U : array of shape (n, d), or (n, m) when `V` is None
        Query vectors, or a matrix of scores.
    V : array of shape (m, d), optional
        Candidate vectors.
    k : int, default 10
        How many; all m of them when k is larger.

    Returns
    -------
    indices : array of shape (n, min(k, m)), int64
        Rows of `V`. Equal scores are in the order of their index.
    scores : array of the same shape
        Their scores, float64 for float64 and integer input, float32 otherwise.

    Raises
    ------
    ValueError
        k below 1, NaN in either array, widths that differ, scores that overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.ranks import top_k
    >>> indices, scores = top_k(np.array([[0.1, 0.7, 0.2, 0.7]]), k=3)
    >>> indices, scores
    (array([[1, 3, 2]]), array([[0.7, 0.7, 0.2]]))
    """
    k = check_count("k", k, 1)
    problem = Problem.check(U, V, None, None, paired=False)
    k = min(k, problem.shape[1])
    if is_numpy(problem.xp):
        from cmstats.kernels._cpu import ranks as cpu

        return cpu.top_k(problem, k)
    return _reference_top_k(problem, k)


def average_precisions(
    U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None
) -> Array:
    """Average precision of each query's whole ranking.

    The mean over the relevant candidates of the share of relevant ones among those that do not
    rank lower; its expectation if candidates of equal score are in random order (McSherry and
    Najork 2008).

    Parameters
    ----------
    U, V, x_ids, y_ids
        As in `partner_ranks`; class labels (as integers) serve as ids.

    Returns
    -------
    array of shape (n,), float64
        On the device of `U`. NaN for a query without any relevant candidate.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.ranks import average_precisions
    >>> average_precisions(np.array([[0.9, 0.8, 0.7, 0.6]]), x_ids=[1], y_ids=[1, 0, 1, 0])
    array([0.83333333])
    """
    problem = Problem.check(U, V, x_ids, y_ids)
    if x_ids is None and y_ids is None:
        # With one relevant candidate it is 1 / rank: the mean of 1 / (1 + greater) and so on.
        counts = _counts(problem, both=False)[0]
        xp = namespace(counts.greater)
        harmonic = _harmonic(problem)
        run = xp.take(harmonic, counts.greater + counts.ties + 1) - xp.take(
            harmonic, counts.greater
        )
        single = 1.0 / xp.astype(1 + counts.greater, xp.float64)
        return xp.where(counts.ties > 0, run / xp.astype(counts.ties + 1, xp.float64), single)
    if is_numpy(problem.xp):
        from cmstats.kernels._cpu import ranks as cpu

        return cpu.average_precisions(problem)
    return _reference_average_precisions(problem)


def _counts(problem: Problem, *, both: bool) -> tuple[PartnerCounts, PartnerCounts | None]:
    """The counts of one or both directions, by the route for this array library."""
    on_cuda = array_api_compat.is_cupy_namespace(problem.xp)
    if not (is_numpy(problem.xp) or on_cuda):
        other = _reference_counts(problem.swapped()) if both else None
        return _reference_counts(problem), other
    layout = Layout(problem.x_ids, problem.y_ids)
    if on_cuda:
        from cmstats.kernels._cuda import ranks as cuda

        x, y = cuda.counts(problem, layout, both)
    else:
        from cmstats.kernels._cpu import ranks as cpu

        x, y = cpu.counts(problem, layout, both)
    x_counts = PartnerCounts(*unsort(x, layout.x_order))
    return x_counts, PartnerCounts(*unsort(y, layout.y_order)) if both else None


def _score_blocks(problem: Problem) -> Iterator[tuple[slice, Array]]:
    """Blocks of whole rows of scores of bounded size, in the namespace of the input."""
    xp, (n, m) = problem.xp, problem.shape
    right = None
    if problem.V is not None:
        right = xp.astype(problem.V, problem.dtype, copy=False).mT
    for rows in row_slices(n, max(1, BLOCK_SCORES // m)):
        block = xp.astype(problem.U[rows, :], problem.dtype, copy=False)
        yield rows, block if right is None else block @ right


def _relevance_blocks(problem: Problem) -> Iterator[tuple[Array, Array]]:
    """Blocks of scores, each with the mask of the relevant pairs."""
    xp, device = problem.xp, device_of(problem.U)
    x_ids = xp.asarray(problem.x_ids, device=device)
    y_ids = xp.asarray(problem.y_ids, device=device)
    for rows, scores in _score_blocks(problem):
        yield scores, x_ids[rows, None] == y_ids[None, :]


def _reference_counts(problem: Problem) -> PartnerCounts:
    xp = problem.xp
    found: list[tuple[Array, Array, Array]] = []
    for scores, relevant in _relevance_blocks(problem):
        own = xp.max(xp.where(relevant, scores, -xp.inf), axis=1, keepdims=True)
        equal = scores == own
        found.append(
            (
                _row_sums(xp, (scores > own) & ~relevant),
                _row_sums(xp, equal & ~relevant),
                _row_sums(xp, equal & relevant),
            )
        )
    return PartnerCounts(*(xp.concat(column) for column in zip(*found, strict=True)))


def _row_sums(xp: ModuleType, mask: Array) -> Array:
    return xp.sum(xp.astype(mask, xp.int64), axis=1)


def _reference_top_k(problem: Problem, k: int) -> tuple[Array, Array]:
    xp = problem.xp
    found = []
    for _, scores in _score_blocks(problem):
        order = xp.argsort(-scores, axis=1, stable=True)[:, :k]
        found.append((order, xp.take_along_axis(scores, order, axis=1)))
    indices, values = (xp.concat(column) for column in zip(*found, strict=True))
    return xp.astype(indices, xp.int64, copy=False), values


def _harmonic(problem: Problem) -> Array:
    """1 + 1/2 + ... + 1/k for k from 0 to the number of candidates."""
    xp, like = problem.xp, problem.U
    device = None if is_numpy(xp) else device_of(like)
    numbers = xp.arange(1, problem.shape[1] + 1, dtype=xp.float64, device=device)
    return xp.concat([0 * numbers[:1], xp.cumulative_sum(1 / numbers)])


def _reference_average_precisions(problem: Problem) -> Array:
    xp = problem.xp
    found = []
    harmonic = _harmonic(problem)
    for scores, relevant in _relevance_blocks(problem):
        order = xp.argsort(-scores, axis=1)
        scores = xp.take_along_axis(scores, order, axis=1)
        relevant = xp.astype(xp.take_along_axis(relevant, order, axis=1), xp.int64)
        hits_so_far = xp.cumulative_sum(relevant, axis=1)
        # Runs of equal scores, counted through the rows, begin and end at these places.
        edge = xp.ones_like(relevant[:, :1], dtype=xp.bool)
        new = xp.concat([edge, scores[:, 1:] != scores[:, :-1]], axis=1)
        last = xp.reshape(xp.concat([new[:, 1:], edge], axis=1), (-1,))
        new = xp.reshape(new, (-1,))
        run = xp.cumulative_sum(xp.astype(new, xp.int64)) - 1
        begin, end = (xp.take(xp.nonzero(a)[0], run) for a in (new, last))
        flat = xp.reshape(hits_so_far, (-1,))
        before = xp.take(flat - xp.reshape(relevant, (-1,)), begin)
        R, T = xp.take(flat, end) - before, end - begin + 1
        g = begin % scores.shape[1]
        step = xp.take(harmonic, g + T) - xp.take(harmonic, g)
        R, T, g, before = (xp.astype(a, xp.float64) for a in (R, T, g, before))
        c = (R - 1) / xp.where(T > 1, T - 1, 1.0)
        precision = ((before + 1 - c * (g + 1)) * step + c * T) / T
        precision = xp.where(T > 1, precision, (before + 1) / (g + 1))
        precision = xp.reshape(precision, scores.shape)
        total = xp.sum(relevant, axis=1)
        hits = xp.sum(precision * xp.astype(relevant, xp.float64), axis=1)
        mean = hits / xp.astype(xp.where(total > 0, total, 1), xp.float64)
        found.append(xp.where(total > 0, mean, xp.nan))
    return xp.concat(found)
