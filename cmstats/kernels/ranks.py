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

import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
import numba
import numpy as np

from cmstats._array import (
    Array,
    check_matrix,
    describe_nonfinite,
    device_of,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    to_numpy,
)
from cmstats.kernels._threads import share

__all__ = ["PartnerCounts", "average_precisions", "partner_counts", "partner_ranks", "top_k"]

HostArray = np.ndarray[Any, Any]

TILE = (256, 1024)
"""Rows and columns of a CPU tile: 1 MB in float32, which stays in the second-level cache."""
DEVICE_TILE = (4096, 8192)
"""Rows and columns of a tile on a GPU."""
BLOCK_SCORES = 2**22
"""Scores held at once where whole rows of them are needed."""


# ------------------------------------------------------------------------- dispatchers
class PartnerCounts(NamedTuple):
    """What the rank of the best relevant candidate of each query follows from.

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
    problem = _Problem.check(U, V, x_ids, y_ids)
    return problem.counts(both=False)[0].ranks()


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
    x, y = _Problem.check(U, V, x_ids, y_ids).counts(both=True)
    assert y is not None
    return x, y


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
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
    problem = _Problem.check(U, V, None, None, paired=False)
    k = min(int(k), problem.shape[1])
    if is_numpy(problem.xp):
        return _numba_top_k(problem, k)
    return _reference_top_k(problem, k)


def average_precisions(
    U: Array, V: Array | None = None, *, x_ids: Any = None, y_ids: Any = None
) -> Array:
    """Average precision of each query's whole ranking.

    Over the relevant candidates, the mean of (relevant ones that score at least as high) /
    (all that score at least as high); ties count as in
    `sklearn.metrics.average_precision_score`.

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
    problem = _Problem.check(U, V, x_ids, y_ids)
    if x_ids is None and y_ids is None:
        # One relevant candidate: its precision is all there is, and the counts give it.
        counts = problem.counts(both=False)[0]
        xp = namespace(counts.greater)
        return 1.0 / xp.astype(1 + counts.greater + counts.ties, xp.float64)
    if is_numpy(problem.xp):
        return _numba_average_precisions(problem)
    return _reference_average_precisions(problem)


# -------------------------------------------------------------------------- validation
class _Problem(NamedTuple):
    """Checked input: vectors or scores, the precision of the scores, and ids on the host."""

    U: Array
    V: Array | None
    xp: ModuleType
    dtype: Any
    x_ids: HostArray
    y_ids: HostArray

    @classmethod
    def check(cls, U: Any, V: Any, x_ids: Any, y_ids: Any, *, paired: bool = True) -> _Problem:
        xp = namespace(U, V)
        if V is None:
            U = _check_scores(check_matrix(U, "the score matrix", ensure_finite=False))
            n, m = U.shape
            dtype = result_dtype(U)
        else:
            U, V = check_matrix(_dense(U, "U"), "U"), check_matrix(_dense(V, "V"), "V")
            if U.shape[1] != V.shape[1]:
                raise ValueError(
                    "U and V must have the same number of columns, "
                    f"got shapes {tuple(U.shape)} and {tuple(V.shape)}"
                )
            n, m = U.shape[0], V.shape[0]
            dtype = xp.result_type(result_dtype(U), result_dtype(V))
            dtype = _dtype_without_overflow(xp, U, V, dtype)
        if not paired:
            nobody = np.empty(0, dtype=np.int64)
            return cls(U, V, xp, dtype, nobody, nobody)
        if n != m and x_ids is None and y_ids is None:
            what = "a square score matrix" if V is None else "as many rows in U as in V"
            raise ValueError(
                f"pairs need {what}, got {n} and {m}; x_ids and y_ids say which belong together"
            )
        return cls(U, V, xp, dtype, _check_ids(x_ids, "x_ids", n), _check_ids(y_ids, "y_ids", m))

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and candidates."""
        return self.U.shape[0], self.U.shape[1] if self.V is None else self.V.shape[0]

    def swapped(self) -> _Problem:
        """Candidates as queries."""
        U, V = (self.U.T, None) if self.V is None else (self.V, self.U)
        return self._replace(U=U, V=V, x_ids=self.y_ids, y_ids=self.x_ids)

    def counts(self, *, both: bool) -> tuple[PartnerCounts, PartnerCounts | None]:
        """The dispatcher proper: one kernel for one or both directions."""
        if is_numpy(self.xp):
            return _numba_counts(self, both)
        if array_api_compat.is_cupy_namespace(self.xp):
            return _cupy_counts(self, both)
        x = _reference_counts(self)
        return x, _reference_counts(self.swapped()) if both else None


def _dense(a: Any, name: str) -> Any:
    if hasattr(a, "tocsr"):
        raise TypeError(f"{name} is sparse: embeddings are dense, pass {name}.toarray()")
    return a


def _check_scores(scores: Array) -> Array:
    """Infinite scores have a rank (a candidate that is masked out); NaN has none."""
    scores = _dense(scores, "the score matrix")
    xp = namespace(scores)
    if not is_numpy(xp) and not xp.isdtype(scores.dtype, "real floating"):
        return scores
    for rows in row_slices(scores.shape[0], max(1, BLOCK_SCORES // scores.shape[1])):
        nan = xp.isnan(scores[rows, :])
        if bool(xp.any(nan)):
            flat = int(xp.argmax(xp.reshape(xp.astype(nan, xp.int8), (-1,))))
            first = (rows.start + flat // scores.shape[1], flat % scores.shape[1])
            total = int(xp.count_nonzero(nan))
            total += sum(
                int(xp.count_nonzero(xp.isnan(scores[i : i + 1, :])))
                for i in range(rows.stop, scores.shape[0])
            )
            raise ValueError(describe_nonfinite("the score matrix", total, 0, first))
    return scores


def _dtype_without_overflow(xp: ModuleType, U: Array, V: Array, dtype: Any) -> Any:
    """The precision of the scores: float64 where finite float32 vectors would overflow.

    An overflowed score is infinite or NaN, and NaN compares as the worst of all.
    """

    def largest(a: Array) -> float:
        return max(float(xp.max(a)), -float(xp.min(a)))

    bound = largest(U) * largest(V) * U.shape[1]
    if bound < float(xp.finfo(dtype).max):
        return dtype
    if bound < float(xp.finfo(xp.float64).max):
        return xp.float64
    raise ValueError("the inner products of U and V overflow float64: rescale them")


def _check_ids(ids: Any, name: str, length: int) -> HostArray:
    if ids is None:
        return np.arange(length, dtype=np.int64)
    out = to_numpy(ids)
    if out.dtype.kind not in "iu" or out.ndim != 1:
        raise ValueError(f"{name} must be a vector of integers, got {out.dtype} {out.shape}")
    if out.shape[0] != length:
        raise ValueError(f"{name} must have one id for each of the {length} items, got {len(out)}")
    return out.astype(np.int64)


# --------------------------------------------------------------------------- reference
def _score_blocks(problem: _Problem) -> Iterator[tuple[slice, Array]]:
    """Whole rows of scores, few enough at a time, in the namespace of the input."""
    xp, (n, m) = problem.xp, problem.shape
    right = None
    if problem.V is not None:
        right = xp.matrix_transpose(xp.astype(problem.V, problem.dtype, copy=False))
    for rows in row_slices(n, max(1, BLOCK_SCORES // m)):
        block = xp.astype(problem.U[rows, :], problem.dtype, copy=False)
        yield rows, block if right is None else block @ right


def _relevance_blocks(problem: _Problem) -> Iterator[tuple[Array, Array]]:
    """Blocks of scores, each with the mask of the relevant pairs."""
    xp, device = problem.xp, device_of(problem.U)
    x_ids = xp.asarray(problem.x_ids, device=device)
    y_ids = xp.asarray(problem.y_ids, device=device)
    for rows, scores in _score_blocks(problem):
        yield scores, x_ids[rows, None] == y_ids[None, :]


def _reference_counts(problem: _Problem) -> PartnerCounts:
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


def _reference_top_k(problem: _Problem, k: int) -> tuple[Array, Array]:
    xp = problem.xp
    found = []
    for _, scores in _score_blocks(problem):
        order = xp.argsort(-scores, axis=1, stable=True)[:, :k]
        found.append((order, xp.take_along_axis(scores, order, axis=1)))
    indices, values = (xp.concat(column) for column in zip(*found, strict=True))
    return xp.astype(indices, xp.int64, copy=False), values


def _reference_average_precisions(problem: _Problem) -> Array:
    xp = problem.xp
    found = []
    for scores, relevant in _relevance_blocks(problem):
        order = xp.argsort(-scores, axis=1)
        scores = xp.take_along_axis(scores, order, axis=1)
        relevant = xp.astype(xp.take_along_axis(relevant, order, axis=1), xp.int64)
        precision = xp.astype(xp.cumulative_sum(relevant, axis=1), xp.float64)
        precision = precision / xp.arange(
            1, scores.shape[1] + 1, dtype=xp.float64, device=device_of(scores)
        )
        # The precision of a candidate is that at the last candidate of its score: the
        # g-th run of equal scores (counted through the rows) ends at ends[g].
        last = xp.concat(
            [scores[:, 1:] != scores[:, :-1], xp.ones_like(relevant[:, :1], dtype=xp.bool)], axis=1
        )
        flat = xp.reshape(last, (-1,))
        run = xp.cumulative_sum(xp.astype(flat, xp.int64)) - xp.astype(flat, xp.int64)
        at_end = xp.take(xp.reshape(precision, (-1,)), xp.take(xp.nonzero(flat)[0], run))
        precision = xp.reshape(at_end, precision.shape)
        total = xp.sum(relevant, axis=1)
        hits = xp.sum(precision * xp.astype(relevant, xp.float64), axis=1)
        mean = hits / xp.astype(xp.where(total > 0, total, 1), xp.float64)
        found.append(xp.where(total > 0, mean, xp.nan))
    return xp.concat(found)


# ------------------------------------------------------------------- tiles, shared by all
class _Layout:
    """Rows and columns in the order of their ids, and the runs of relevant columns.

    In that order, columns ``lo[i]`` to ``hi[i]`` are the ones relevant to row i, and both
    bounds grow with i.
    """

    def __init__(self, problem: _Problem) -> None:
        self.x_order, x_sorted = _sort(problem.x_ids)
        self.y_order, y_sorted = _sort(problem.y_ids)
        self.lo = np.searchsorted(y_sorted, x_sorted, side="left")
        self.hi = np.searchsorted(y_sorted, x_sorted, side="right")

    def band(self, rows: slice) -> tuple[int, int]:
        """First and last + 1 of the columns that are relevant to any of these rows."""
        return int(self.lo[rows.start]), int(self.hi[rows.stop - 1])


def _sort(ids: HostArray) -> tuple[HostArray | None, HostArray]:
    """The order of the ids (None when sorted already, which spares the gathers)."""
    if bool(np.all(ids[1:] >= ids[:-1])):
        return None, ids
    order = np.argsort(ids, kind="stable")
    return order, ids[order]


def _unsort(values: Array, order: HostArray | None) -> Array:
    if order is None:
        return values
    xp = namespace(values)
    inverse = np.empty_like(order)
    inverse[order] = np.arange(order.size)
    return xp.take(values, xp.asarray(inverse, device=device_of(values)), axis=0)


# ----------------------------------------------------------------------------- Numba CPU
class _HostTiles:
    """Tiles of scores, each thread in buffers of its own."""

    def __init__(
        self,
        problem: _Problem,
        x_order: HostArray | None = None,
        y_order: HostArray | None = None,
    ) -> None:
        self.U, self.V, self.dtype = problem.U, problem.V, problem.dtype
        self.x_order, self.y_order = x_order, y_order
        self.rows, self.columns = (min(pair) for pair in zip(TILE, problem.shape, strict=True))

    def buffers(self) -> tuple[HostArray, HostArray, HostArray]:
        """Room for the query vectors, the candidate vectors and the scores of one tile."""
        d = 0 if self.V is None else self.U.shape[1]
        return (
            np.empty((self.rows, d), self.dtype),
            np.empty((self.columns, d), self.dtype),
            np.empty((self.rows, self.columns), self.dtype),
        )

    def queries(self, rows: slice, out: HostArray) -> HostArray:
        """The query vectors of a row of tiles; no columns for a score matrix."""
        return out if self.V is None else _pick(self.U, self.x_order, rows, out)

    def candidates(self, columns: slice, out: HostArray) -> HostArray:
        """The candidate vectors of a column of tiles."""
        return out if self.V is None else _pick(self.V, self.y_order, columns, out)

    def scores(
        self, left: HostArray, right: HostArray, rows: slice, columns: slice, out: HostArray
    ) -> None:
        """The scores of one tile, into the corner of `out`."""
        part = out[: rows.stop - rows.start, : columns.stop - columns.start]
        if self.V is not None:
            np.matmul(left, right.T, out=part)
        elif self.x_order is None and self.y_order is None:
            part[...] = self.U[rows, columns]
        else:
            i = np.r_[rows] if self.x_order is None else self.x_order[rows]
            j = np.r_[columns] if self.y_order is None else self.y_order[columns]
            part[...] = self.U[np.ix_(i, j)]

    def rounding(self, *, rows: bool) -> HostArray:
        """Per row (or column), a bound of the rounding errors of its scores.

        d/8 units in the last place of |u| |v| is what equal numbers summed in two orders
        were seen to differ by at most; random ones differ by less than one.
        """
        if self.V is None:
            return np.zeros(self.U.shape[0 if rows else 1], self.dtype)
        norms = [_norms(self.U, self.x_order), _norms(self.V, self.y_order)]
        own, other = norms if rows else norms[::-1]
        unit = max(4.0, self.U.shape[1] / 8) * float(np.finfo(self.dtype).eps)
        return np.asarray(unit * own * other.max(), self.dtype)


def _pick(a: HostArray, order: HostArray | None, rows: slice, out: HostArray) -> HostArray:
    """Rows of `a` in the precision of `out`: a view where it can be, else copied there."""
    if order is None and a.dtype == out.dtype and a.flags.c_contiguous:
        return a[rows]
    out = out[: rows.stop - rows.start]
    out[...] = a[rows] if order is None else a[order[rows]]
    return out


def _norms(a: HostArray, order: HostArray | None) -> HostArray:
    out = np.empty(len(a))
    for rows in row_slices(len(a), max(1, BLOCK_SCORES // a.shape[1])):
        block = a[rows].astype(np.float64)
        out[rows] = np.sqrt(np.einsum("ij,ij->i", block, block))
    return out if order is None else out[order]


class _Best:
    """The best relevant score of each query, and the band around it that rounding blurs."""

    def __init__(self, rounding: HostArray) -> None:
        self.rounding = rounding
        self.score = np.full(rounding.shape, -np.inf, rounding.dtype)  # as the product gave it
        self.exact = np.full(rounding.shape, -np.inf)  # in float64

    def copy(self) -> _Best:
        return _Best(self.rounding)

    def merge(self, other: _Best) -> None:
        np.maximum(self.score, other.score, out=self.score)
        np.maximum(self.exact, other.exact, out=self.exact)

    def running(self, part: slice) -> Any:
        return self.score[part], self.exact[part], self.rounding[part]

    def bounds(self, part: slice) -> Any:
        score, exact, rounding = self.running(part)
        return score, exact, score - rounding, score + rounding


def _numba_counts(problem: _Problem, both: bool) -> tuple[PartnerCounts, PartnerCounts | None]:
    n, m = problem.shape
    layout = _Layout(problem)
    tiles = _HostTiles(problem, layout.x_order, layout.y_order)
    best_x, best_y = _Best(tiles.rounding(rows=True)), _Best(tiles.rounding(rows=False))
    x, y = np.zeros((3, n), np.int64), np.zeros((3, m if both else 0), np.int64)
    lock = threading.Lock()

    def walk(todo: Iterator[slice], visit: Callable[..., None], *, band: bool) -> None:
        query_room, candidate_room, scores = tiles.buffers()
        for rows in todo:
            left = tiles.queries(rows, query_room)
            start, stop = layout.band(rows) if band else (0, m)
            for columns in _aligned(start, stop, tiles.columns, m):
                right = tiles.candidates(columns, candidate_room)
                tiles.scores(left, right, rows, columns, scores)
                lo = np.clip(layout.lo[rows], columns.start, columns.stop) - columns.start
                hi = np.clip(layout.hi[rows], columns.start, columns.stop) - columns.start
                visit((scores, left, right, lo, hi), rows, columns)

    # First the own scores, from the tiles along the diagonal: all others are compared with them.
    def find_best(todo: Iterator[slice]) -> None:
        mine = best_y.copy()

        def visit(tile: Any, rows: slice, columns: slice) -> None:
            _best_of_tile(*tile, *best_x.running(rows), *mine.running(columns))

        walk(todo, visit, band=True)
        with lock:
            best_y.merge(mine)

    def count(todo: Iterator[slice]) -> None:
        mine = np.zeros((3, y.shape[1]), np.int32)

        def visit(tile: Any, rows: slice, columns: slice) -> None:
            width = columns.stop - columns.start
            _count_rows(*(*tile, width, *best_x.bounds(rows), *x[:, rows]))
            if both:
                _count_columns(*tile, *best_y.bounds(columns), *mine[:, columns])

        walk(todo, visit, band=False)
        with lock:
            y[...] += mine

    share(find_best, list(row_slices(n, tiles.rows)))
    share(count, list(row_slices(n, tiles.rows)))
    x_counts = PartnerCounts(*_unsort(x.T, layout.x_order).T)
    return x_counts, PartnerCounts(*_unsort(y.T, layout.y_order).T) if both else None


def _aligned(start: int, stop: int, size: int, length: int) -> Iterator[slice]:
    """The tiles of a fixed grid that meet the columns from start to stop."""
    if start < stop:
        for first in range(start // size * size, stop, size):
            yield slice(first, min(first + size, length))


@numba.njit(nogil=True, cache=True)
def _exact(scores: HostArray, left: HostArray, right: HostArray, i: int, j: int) -> float:
    """One score in float64, summed in one order; as it is in a score matrix."""
    if left.shape[1] == 0:
        return np.float64(scores[i, j])
    total = 0.0
    for c in range(left.shape[1]):
        total += np.float64(left[i, c]) * np.float64(right[j, c])
    return total


@numba.njit(nogil=True, cache=True)
def _best_of_tile(
    scores: HostArray,
    left: HostArray,
    right: HostArray,
    lo: HostArray,
    hi: HostArray,
    x_score: HostArray,
    x_exact: HostArray,
    x_rounding: HostArray,
    y_score: HostArray,
    y_exact: HostArray,
    y_rounding: HostArray,
) -> None:
    """Best relevant score of each row and column, over the tiles seen so far."""
    for i in range(lo.shape[0]):
        for j in range(lo[i], hi[i]):
            score = scores[i, j]
            close_x = score >= x_score[i] - x_rounding[i]
            close_y = score >= y_score[j] - y_rounding[j]
            if close_x or close_y:
                exact = _exact(scores, left, right, i, j)
                if close_x:
                    x_score[i] = max(x_score[i], score)
                    x_exact[i] = max(x_exact[i], exact)
                if close_y:
                    y_score[j] = max(y_score[j], score)
                    y_exact[j] = max(y_exact[j], exact)


@numba.njit(nogil=True, cache=True)
def _count_rows(
    scores: HostArray,
    left: HostArray,
    right: HostArray,
    lo: HostArray,
    hi: HostArray,
    width: int,
    best: HostArray,
    exact: HostArray,
    lower: HostArray,
    upper: HostArray,
    greater: HostArray,
    ties: HostArray,
    relevant: HostArray,
) -> None:
    """Add the counts of one tile for its rows as queries.

    The long loop only tells what is clearly above from what is close: one plain loop with
    32-bit counters becomes vector instructions. What is close is settled one by one.
    """
    for i in range(lo.shape[0]):
        row = scores[i]
        low, high = lower[i], upper[i]
        above = np.int32(0)
        at_least = np.int32(0)
        for j in range(width):
            above = np.int32(above + np.int32(row[j] > high))
            at_least = np.int32(at_least + np.int32(row[j] >= low))
        greater[i] += above
        if at_least > above:
            for j in range(width):
                if low <= row[j] <= high:
                    gap = 0.0
                    if row[j] != best[i]:
                        gap = _exact(scores, left, right, i, j) - exact[i]
                    if lo[i] <= j < hi[i]:
                        relevant[i] += gap >= 0
                    else:
                        greater[i] += gap > 0
                        ties[i] += gap == 0


@numba.njit(nogil=True, cache=True)
def _count_columns(
    scores: HostArray,
    left: HostArray,
    right: HostArray,
    lo: HostArray,
    hi: HostArray,
    best: HostArray,
    exact: HostArray,
    lower: HostArray,
    upper: HostArray,
    greater: HostArray,
    ties: HostArray,
    relevant: HostArray,
) -> None:
    """The same for its columns as queries, still row by row, for that is how scores lie."""
    for i in range(lo.shape[0]):
        row = scores[i]
        close = np.int32(0)
        for j in range(best.shape[0]):
            above = row[j] > upper[j]
            greater[j] = np.int32(greater[j] + np.int32(above))
            close = np.int32(close + np.int32(row[j] >= lower[j]) - np.int32(above))
        if close:
            for j in range(best.shape[0]):
                if lower[j] <= row[j] <= upper[j]:
                    gap = 0.0
                    if row[j] != best[j]:
                        gap = _exact(scores, left, right, i, j) - exact[j]
                    if lo[i] <= j < hi[i]:
                        relevant[j] += gap >= 0
                    else:
                        greater[j] += gap > 0
                        ties[j] += gap == 0


def _numba_top_k(problem: _Problem, k: int) -> tuple[HostArray, HostArray]:
    n, m = problem.shape
    tiles = _HostTiles(problem)
    indices, values = np.zeros((n, k), np.int64), np.full((n, k), -np.inf, problem.dtype)
    filled = np.zeros(n, np.int64)

    def work(todo: Iterator[slice]) -> None:
        query_room, candidate_room, scores = tiles.buffers()
        for rows in todo:
            left = tiles.queries(rows, query_room)
            for columns in row_slices(m, tiles.columns):
                right = tiles.candidates(columns, candidate_room)
                tiles.scores(left, right, rows, columns, scores)
                width = columns.stop - columns.start
                _push_tile(scores, width, columns.start, indices[rows], values[rows], filled[rows])
            order = np.lexsort((indices[rows], -values[rows]))
            indices[rows] = np.take_along_axis(indices[rows], order, axis=1)
            values[rows] = np.take_along_axis(values[rows], order, axis=1)

    share(work, list(row_slices(n, tiles.rows)))
    return indices, values


@numba.njit(nogil=True, cache=True)
def _push_tile(
    scores: HostArray,
    width: int,
    offset: int,
    indices: HostArray,
    values: HostArray,
    filled: HostArray,
) -> None:
    """Offer the candidates of a tile to the heap of each row (worst kept score on top)."""
    k = values.shape[1]
    for i in range(values.shape[0]):
        heap, names = values[i], indices[i]
        size = filled[i]
        for j in range(width):
            score = scores[i, j]
            if size < k:  # sift up
                at = size
                size += 1
                while at > 0:
                    parent = (at - 1) // 2
                    # Columns come in order, so a newcomer is worse than its equals.
                    if score > heap[parent]:
                        break
                    heap[at], names[at] = heap[parent], names[parent]
                    at = parent
                heap[at], names[at] = score, offset + j
            elif score > heap[0]:  # replace the worst and sift down
                at = 0
                while True:
                    child = 2 * at + 1
                    if child >= k:
                        break
                    other = child + 1
                    if other < k and (
                        heap[other] < heap[child]
                        or (heap[other] == heap[child] and names[other] > names[child])
                    ):
                        child = other
                    if heap[child] >= score:
                        break
                    heap[at], names[at] = heap[child], names[child]
                    at = child
                heap[at], names[at] = score, offset + j
        filled[i] = size


def _numba_average_precisions(problem: _Problem) -> HostArray:
    n, m = problem.shape
    tiles = _HostTiles(problem)
    tiles.rows = min(tiles.rows, max(16, BLOCK_SCORES // m))
    out = np.full(n, np.nan)

    def work(todo: Iterator[slice]) -> None:
        query_room, candidate_room, _ = tiles.buffers()
        whole = np.empty((tiles.rows, m), problem.dtype)
        for rows in todo:
            left = tiles.queries(rows, query_room)
            for columns in row_slices(m, tiles.columns):
                right = tiles.candidates(columns, candidate_room)
                tiles.scores(left, right, rows, columns, whole[:, columns])
            part = whole[: rows.stop - rows.start]
            ids = problem.x_ids[rows], problem.y_ids
            _average_precision_rows(part, np.sort(part, axis=1), *ids, out[rows])

    share(work, list(row_slices(n, tiles.rows)))
    return out


@numba.njit(nogil=True, cache=True)
def _average_precision_rows(
    scores: HostArray,
    ascending: HostArray,
    x_ids: HostArray,
    y_ids: HostArray,
    out: HostArray,
) -> None:
    """Average precision of whole rows: the relevant scores merged with all scores, sorted.

    NumPy sorts numbers with vector instructions, several times faster than their order.
    """
    m = y_ids.shape[0]
    room = np.empty(m, scores.dtype)
    for i in range(x_ids.shape[0]):
        size = 0
        for j in range(m):
            if y_ids[j] == x_ids[i]:
                room[size] = scores[i, j]
                size += 1
        if size == 0:
            continue
        relevant = np.sort(room[:size])
        total = 0.0
        below = 0
        start = 0
        while start < size:  # one group of equal scores after the other
            stop = start + 1
            while stop < size and relevant[stop] == relevant[start]:
                stop += 1
            while ascending[i, below] < relevant[start]:
                below += 1
            total += (stop - start) * (size - start) / (m - below)
            start = stop
        out[i] = total / size


# ------------------------------------------------------------------------ CuPy and CUDA
def _cupy_counts(problem: _Problem, both: bool) -> tuple[PartnerCounts, PartnerCounts | None]:
    """cuBLAS products per tile, each counted by one hand-written kernel pass."""
    import cupy as cp

    n, m = problem.shape
    layout = _Layout(problem)
    x_order, y_order = (
        None if order is None else cp.asarray(order) for order in (layout.x_order, layout.y_order)
    )
    lo, hi = cp.asarray(layout.lo, dtype=cp.int64), cp.asarray(layout.hi, dtype=cp.int64)
    own_x = cp.full(n, -cp.inf, dtype=problem.dtype)
    own_y = cp.full(m, -cp.inf, dtype=problem.dtype)
    x, y = cp.zeros((3, n), dtype=cp.int64), cp.zeros((3, m if both else 0), dtype=cp.int64)

    def pick(a: Array, order: Array | None, rows: slice) -> Array:
        return cp.asarray(a[rows] if order is None else a[order[rows]], dtype=problem.dtype)

    def visit(band: bool) -> None:
        for rows in row_slices(n, DEVICE_TILE[0]):
            left = pick(problem.U, x_order, rows)
            start, stop = layout.band(rows) if band else (0, m)
            for columns in _aligned(start, stop, DEVICE_TILE[1], m):
                if problem.V is not None:
                    scores = left @ pick(problem.V, y_order, columns).T
                else:
                    scores = left[:, columns if y_order is None else y_order[columns]]
                scores = cp.ascontiguousarray(scores)
                bounds = lo[rows] - columns.start, hi[rows] - columns.start
                if band:
                    launch_own(scores, *bounds, own_x[rows], own_y[columns])
                else:
                    launch_count_rows(scores, *bounds, own_x[rows], x[:, rows])
                    if both:
                        launch_count_columns(scores, *bounds, own_y[columns], y[:, columns])

    visit(band=True)
    visit(band=False)
    x_counts = PartnerCounts(*_unsort(x.T, layout.x_order).T)
    return x_counts, PartnerCounts(*_unsort(y.T, layout.y_order).T) if both else None


def launch_own(
    scores: Array, lo: Array, hi: Array, own_x: Array, own_y: Array, *, threads: int = 128
) -> None:
    """Best relevant score of each row and column of a device tile, into `own_x` and `own_y`.

    `lo` and `hi` bound the relevant columns of each row, relative to the tile; they may lie
    outside of it.
    """
    rows = scores.shape[0]
    _cuda_kernels()["own"][-(-rows // threads), threads](scores, lo, hi, own_x, own_y)


def launch_count_rows(
    scores: Array, lo: Array, hi: Array, own: Array, counts: Array, *, threads: int = 128
) -> None:
    """Add (greater, ties, relevant ties) of each row of a device tile to `counts` (3, rows).

    `threads` is 32 or 128 (one block per row).
    """
    _cuda_kernels()["rows"][scores.shape[0], threads](scores, lo, hi, own, counts)


def launch_count_columns(
    scores: Array,
    lo: Array,
    hi: Array,
    own: Array,
    counts: Array,
    *,
    threads: int = 128,
    chunk: int = 256,
) -> None:
    """Add (greater, ties, relevant ties) of each column of a device tile to `counts`."""
    rows, columns = scores.shape
    grid = (-(-columns // threads), -(-rows // chunk))
    _cuda_kernels()["columns"][grid, threads](scores, lo, hi, own, counts, chunk)


cuda: Any = None  # numba.cuda; a global because the simulator finds it in a kernel's globals


@functools.cache
def _cuda_kernels() -> dict[str, Any]:
    """The CUDA kernels, built at the first use: importing this file does not touch CUDA."""
    global cuda
    cuda = importlib.import_module("numba.cuda")
    room = 128  # threads of a block, at most

    @cuda.jit
    def own(scores, lo, hi, own_x, own_y):  # type: ignore[no-untyped-def]
        # Few scores are relevant: one thread walks those of its row.
        i = cuda.grid(1)
        if i >= scores.shape[0]:
            return
        # min and max of integers would need a CUDA driver to be compiled.
        best, start, stop = own_x[i], lo[i], hi[i]
        if start < 0:
            start = 0
        if stop > scores.shape[1]:
            stop = scores.shape[1]
        for j in range(start, stop):
            score = scores[i, j]
            if score > best:
                best = score
            cuda.atomic.max(own_y, j, score)
        own_x[i] = best

    @cuda.jit
    def rows(scores, lo, hi, own, counts):  # type: ignore[no-untyped-def]
        # One block per row, whose threads read neighbouring columns.
        greater = cuda.shared.array(room, numba.int32)
        ties = cuda.shared.array(room, numba.int32)
        relevant = cuda.shared.array(room, numba.int32)
        i, t = cuda.blockIdx.x, cuda.threadIdx.x
        mine, first, last = own[i], lo[i], hi[i]
        g, e, r = 0, 0, 0
        for j in range(t, scores.shape[1], cuda.blockDim.x):
            score = scores[i, j]
            if first <= j < last:
                if score == mine:
                    r += 1
            elif score > mine:
                g += 1
            elif score == mine:
                e += 1
        greater[t], ties[t], relevant[t] = g, e, r
        cuda.syncthreads()
        half = cuda.blockDim.x // 2
        while half > 0:
            if t < half:
                greater[t] += greater[t + half]
                ties[t] += ties[t + half]
                relevant[t] += relevant[t + half]
            cuda.syncthreads()
            half //= 2
        if t == 0:
            counts[0, i] += greater[0]
            counts[1, i] += ties[0]
            counts[2, i] += relevant[0]

    @cuda.jit
    def columns(scores, lo, hi, own, counts, chunk):  # type: ignore[no-untyped-def]
        # One thread per column and run of rows, so that a warp reads neighbouring columns.
        j = cuda.grid(1)
        if j >= scores.shape[1]:
            return
        start = cuda.blockIdx.y * chunk
        mine = own[j]
        stop = start + chunk
        if stop > scores.shape[0]:
            stop = scores.shape[0]
        g, e, r = 0, 0, 0
        for i in range(start, stop):
            score = scores[i, j]
            if lo[i] <= j < hi[i]:
                if score == mine:
                    r += 1
            elif score > mine:
                g += 1
            elif score == mine:
                e += 1
        cuda.atomic.add(counts, (0, j), g)
        cuda.atomic.add(counts, (1, j), e)
        cuda.atomic.add(counts, (2, j), r)

    return {"own": own, "rows": rows, "columns": columns}
