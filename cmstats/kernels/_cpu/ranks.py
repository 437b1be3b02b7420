"""Ranks, top-k and average precision on the CPU, over tiles of scores that are not stored."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cmstats.arrays import is_array, row_slices
from cmstats.kernels._cpu._jit import jit
from cmstats.kernels.rank_problem import HostArray, Layout, Problem, read_rows
from cmstats.kernels.threads import thread_map

__all__ = ["average_precisions", "counts", "paired_counts", "top_k"]

TILE = (256, 1024)
"""Rows and columns of a tile: 1 MB in float32, which stays in the second-level cache."""
BLOCK_SCORES = 2**22
"""Number of scores in memory where whole rows of them are needed."""


class _Tiles:
    """Tiles of scores; the tiles of one run of rows share buffers."""

    def __init__(
        self,
        problem: Problem,
        x_order: HostArray | None = None,
        y_order: HostArray | None = None,
    ) -> None:
        self.U, self.V, self.dtype = problem.U, problem.V, problem.dtype
        self.x_order, self.y_order = x_order, y_order
        self.rows, self.columns = (min(pair) for pair in zip(TILE, problem.shape, strict=True))

    def along(
        self, rows: slice, columns: Iterable[slice]
    ) -> Iterator[tuple[slice, tuple[HostArray, HostArray, HostArray]]]:
        """Per slice of columns the scores, in the corner of a buffer, and the vectors behind them.

        The vectors of a score matrix have no columns.
        """
        d = 0 if self.V is None else self.U.shape[1]
        query_rows = np.empty((self.rows, d), self.dtype)
        candidate_rows = np.empty((self.columns, d), self.dtype)
        scores = np.empty((self.rows, self.columns), self.dtype)
        left, right = query_rows, candidate_rows
        if self.V is not None:
            left = _pick(self.U, self.x_order, rows, query_rows)
        for taken in columns:
            part = scores[: rows.stop - rows.start, : taken.stop - taken.start]
            if self.V is not None:
                right = _pick(self.V, self.y_order, taken, candidate_rows)
                np.matmul(left, right.T, out=part)
            elif self.x_order is None and self.y_order is None:
                part[...] = self.U[rows, taken]
            else:
                i = np.r_[rows] if self.x_order is None else self.x_order[rows]
                j = np.r_[taken] if self.y_order is None else self.y_order[taken]
                part[...] = self.U[np.ix_(i, j)]
            yield taken, (scores, left, right)

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
    """Rows of `a` in the precision of `out`: a view where possible, otherwise a copy in `out`."""
    as_it_is = order is None and a.dtype == out.dtype
    if as_it_is and is_array(a) and a.flags.c_contiguous:
        return np.asarray(a[rows])
    out = out[: rows.stop - rows.start]
    out[...] = read_rows(a, rows if order is None else order[rows])
    return out


def _norms(a: HostArray, order: HostArray | None) -> HostArray:
    out = np.empty(a.shape[0])
    for rows in row_slices(a.shape[0], max(1, BLOCK_SCORES // a.shape[1])):
        block = read_rows(a, rows).astype(np.float64)
        out[rows] = np.sqrt(np.einsum("ij,ij->i", block, block))
    return out if order is None else out[order]


class _Best:
    """The best relevant score of each query, and the bound of its rounding error."""

    def __init__(self, rounding: HostArray) -> None:
        self.rounding = rounding
        self.score = np.full(rounding.shape, -np.inf, rounding.dtype)  # as the product gave it
        self.exact = np.full(rounding.shape, -np.inf)  # in float64

    def merge(self, other: _Best) -> None:
        np.maximum(self.score, other.score, out=self.score)
        np.maximum(self.exact, other.exact, out=self.exact)

    def running(self, part: slice) -> Any:
        return self.score[part], self.exact[part], self.rounding[part]

    def bounds(self, part: slice) -> Any:
        score, exact, rounding = self.running(part)
        return score, exact, score - rounding, score + rounding


def counts(problem: Problem, layout: Layout, both: bool) -> tuple[HostArray, HostArray]:
    """(greater, ties, relevant ties) of each query and, with `both`, each candidate, sorted."""
    n, m = problem.shape
    tiles = _Tiles(problem, layout.x_order, layout.y_order)
    best_x, best_y = _Best(tiles.rounding(rows=True)), _Best(tiles.rounding(rows=False))
    x, y = np.zeros((3, n), np.int64), np.zeros((3, m if both else 0), np.int64)
    lock = threading.Lock()

    # The first pass finds the own scores, in the tiles along the diagonal.
    def find_best(rows: slice) -> None:
        mine = _Best(best_y.rounding)
        for columns, tile in tiles.along(rows, layout.columns(rows, tiles.columns, band=True)):
            bounds = layout.bounds(rows, columns)
            _best_of_tile(tile, *bounds, best_x.running(rows), mine.running(columns))
        with lock:
            best_y.merge(mine)

    def count(rows: slice) -> None:
        mine = np.zeros((3, y.shape[1]), np.int32)
        for columns, tile in tiles.along(rows, layout.columns(rows, tiles.columns, band=False)):
            bounds, width = layout.bounds(rows, columns), columns.stop - columns.start
            _count_rows(tile, *bounds, width, best_x.bounds(rows), tuple(x[:, rows]))
            if both:
                _count_columns(tile, *bounds, best_y.bounds(columns), tuple(mine[:, columns]))
        if both:
            with lock:
                y[...] += mine

    thread_map(find_best, list(row_slices(n, tiles.rows)))
    thread_map(count, list(row_slices(n, tiles.rows)))
    return x, y


@jit()
def paired_counts(scores: HostArray) -> tuple[HostArray, HostArray]:
    """What `counts` gives for one small square matrix of scores, partners on its diagonal."""
    n = scores.shape[0]
    x, y = np.zeros((3, n), np.int32), np.zeros((3, n), np.int32)
    own = np.empty(n, scores.dtype)
    for i in range(n):
        own[i] = scores[i, i]
        x[2, i] = y[2, i] = 1
        x[1, i] = y[1, i] = -1  # the own score
    for i in range(n):
        above, same = np.int32(0), np.int32(0)
        for j in range(n):
            score = scores[i, j]
            above = np.int32(above + np.int32(score > own[i]))
            same = np.int32(same + np.int32(score == own[i]))
            y[0, j] = np.int32(y[0, j] + np.int32(score > own[j]))
            y[1, j] = np.int32(y[1, j] + np.int32(score == own[j]))
        x[0, i] += above
        x[1, i] += same
    return x.astype(np.int64), y.astype(np.int64)


@jit()
def _exact(scores: HostArray, left: HostArray, right: HostArray, i: int, j: int) -> float:
    """One score in float64: the product summed in a fixed order, or the entry of a score matrix."""
    if left.shape[1] == 0:
        return np.float64(scores[i, j])
    total = 0.0
    for c in range(left.shape[1]):
        total += np.float64(left[i, c]) * np.float64(right[j, c])
    return total


@jit()
def _best_of_tile(tile: Any, lo: HostArray, hi: HostArray, x_best: Any, y_best: Any) -> None:
    """Best relevant score of each row and column, over the tiles seen so far."""
    scores, left, right = tile
    x_score, x_exact, x_rounding = x_best
    y_score, y_exact, y_rounding = y_best
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


@jit()
def _count_rows(
    tile: Any, lo: HostArray, hi: HostArray, width: int, bounds: Any, counts: Any
) -> None:
    """Add the counts of one tile for its rows as queries.

    The first loop only separates scores clearly above from close ones: a plain loop with
    32-bit counters compiles to vector instructions. Close scores are compared one by one.
    """
    scores, left, right = tile
    best, exact, lower, upper = bounds
    greater, ties, relevant = counts
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


@jit()
def _count_columns(tile: Any, lo: HostArray, hi: HostArray, bounds: Any, counts: Any) -> None:
    """Add the counts for its columns as queries, row by row, in the memory order of the scores."""
    scores, left, right = tile
    best, exact, lower, upper = bounds
    greater, ties, relevant = counts
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


def top_k(problem: Problem, k: int) -> tuple[HostArray, HostArray]:
    n, m = problem.shape
    tiles = _Tiles(problem)
    indices, values = np.zeros((n, k), np.int64), np.full((n, k), -np.inf, problem.dtype)
    filled = np.zeros(n, np.int64)

    def find(rows: slice) -> None:
        for columns, (scores, _, _) in tiles.along(rows, row_slices(m, tiles.columns)):
            width = columns.stop - columns.start
            _push_tile(scores, width, columns.start, indices[rows], values[rows], filled[rows])
        order = np.lexsort((indices[rows], -values[rows]))
        indices[rows] = np.take_along_axis(indices[rows], order, axis=1)
        values[rows] = np.take_along_axis(values[rows], order, axis=1)

    thread_map(find, list(row_slices(n, tiles.rows)))
    return indices, values


@jit()
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
                    # Columns come in order: of equal scores the later one is worse.
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


def average_precisions(problem: Problem) -> HostArray:
    """Average precision of each query, from whole rows of scores."""
    n, m = problem.shape
    tiles = _Tiles(problem)
    tiles.rows = min(tiles.rows, max(16, BLOCK_SCORES // m))
    out = np.full(n, np.nan)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, m + 1))])

    def average(rows: slice) -> None:
        scores = np.empty((rows.stop - rows.start, m), problem.dtype)
        for columns, (part, _, _) in tiles.along(rows, row_slices(m, tiles.columns)):
            scores[:, columns] = part[: len(scores), : columns.stop - columns.start]
        # NumPy sorts numbers with vector instructions, several times faster than Numba.
        ids = problem.x_ids[rows], problem.y_ids
        _average_precision_rows(scores, np.sort(scores, axis=1), *ids, harmonic, out[rows])

    thread_map(average, list(row_slices(n, tiles.rows)))
    return out


@jit()
def _average_precision_rows(
    scores: HostArray,
    ascending: HostArray,
    x_ids: HostArray,
    y_ids: HostArray,
    harmonic: HostArray,
    out: HostArray,
) -> None:
    """The mean over the relevant scores of their expected precision, equal scores at random.

    With g candidates above a run of T equal scores, R of them relevant, and r relevant ones above:
    the mean over its places j of (r + 1 + (j - 1) (R - 1) / (T - 1)) / (g + j) (McSherry and
    Najork 2008).
    """
    m = y_ids.size
    for i in range(x_ids.size):
        relevant = np.sort(scores[i][y_ids == x_ids[i]])
        size = relevant.size
        if size:
            low, high = np.searchsorted(relevant, relevant), 0
            total = 0.0
            at = np.searchsorted(ascending[i], relevant)
            k = 0
            while k < size:
                high = k
                while high < size and low[high] == low[k]:
                    high += 1
                stop = at[k]
                while stop < m and ascending[i, stop] == relevant[k]:
                    stop += 1
                R, T, g, r = high - k, stop - at[k], m - stop, size - high
                c = (R - 1) / (T - 1) if T > 1 else 0.0
                step = harmonic[g + T] - harmonic[g] if T > 1 else 1 / (g + 1)
                total += R / T * ((r + 1 - c * (g + 1)) * step + c * T)
                k = high
            out[i] = total / size
