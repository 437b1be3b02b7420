"""Rank counts on a GPU: a cuBLAS product per tile, and one pass over it."""

from __future__ import annotations

import numba

from cmstats.arrays import Array, row_slices
from cmstats.kernels._cuda._launch import blocks_for, cuda, launch
from cmstats.kernels.rank_problem import Layout, Problem

__all__ = ["counts", "launch_count_columns", "launch_count_rows", "launch_own"]

TILE = (4096, 8192)
"""Rows and columns of a tile."""
ROW_THREADS = 128
"""Threads of a block that counts one row, at most."""


def counts(problem: Problem, layout: Layout, both: bool) -> tuple[Array, Array]:
    """(greater, ties, relevant ties) of each query and, with `both`, each candidate, sorted."""
    import cupy as cp

    n, m = problem.shape
    x_order, y_order = (
        None if order is None else cp.asarray(order) for order in (layout.x_order, layout.y_order)
    )
    own_x = cp.full(n, -cp.inf, dtype=problem.dtype)
    own_y = cp.full(m, -cp.inf, dtype=problem.dtype)
    x, y = cp.zeros((n, 3), dtype=cp.int64), cp.zeros((m if both else 0, 3), dtype=cp.int64)

    def pick(a: Array, order: Array | None, rows: slice) -> Array:
        return cp.asarray(a[rows] if order is None else a[order[rows]], dtype=problem.dtype)

    for band in (True, False):  # first the own scores, with which all others are compared
        for rows in row_slices(n, TILE[0]):
            left = pick(problem.U, x_order, rows)
            for columns in layout.columns(rows, TILE[1], band=band):
                if problem.V is not None:
                    scores = left @ pick(problem.V, y_order, columns).T
                else:
                    scores = left[:, columns if y_order is None else y_order[columns]]
                scores = cp.ascontiguousarray(scores)
                lo, hi = (cp.asarray(b) for b in layout.bounds(rows, columns))
                if band:
                    launch_own(scores, lo, hi, own_x[rows], own_y[columns])
                else:
                    launch_count_rows(scores, lo, hi, own_x[rows], x[rows])
                    if both:
                        launch_count_columns(scores, lo, hi, own_y[columns], y[columns])
    return x.T, y.T


@cuda.jit
def own_scores(scores, lo, hi, own_x, own_y):  # type: ignore[no-untyped-def]
    # Few scores are relevant: one thread walks those of its row.
    i = cuda.grid(1)
    if i >= scores.shape[0]:
        return
    best = own_x[i]
    for j in range(lo[i], hi[i]):
        score = scores[i, j]
        if score > best:
            best = score
        cuda.atomic.max(own_y, j, score)
    own_x[i] = best


@cuda.jit
def count_rows(scores, lo, hi, own, counts):  # type: ignore[no-untyped-def]
    # One block per row, whose threads read neighbouring columns.
    greater = cuda.shared.array(ROW_THREADS, numba.int32)
    ties = cuda.shared.array(ROW_THREADS, numba.int32)
    relevant = cuda.shared.array(ROW_THREADS, numba.int32)
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
        counts[i, 0] += greater[0]
        counts[i, 1] += ties[0]
        counts[i, 2] += relevant[0]


@cuda.jit
def count_columns(scores, lo, hi, own, counts, chunk):  # type: ignore[no-untyped-def]
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
    cuda.atomic.add(counts, (j, 0), g)
    cuda.atomic.add(counts, (j, 1), e)
    cuda.atomic.add(counts, (j, 2), r)


def launch_own(
    scores: Array, lo: Array, hi: Array, own_x: Array, own_y: Array, *, threads: int = 128
) -> None:
    """Best relevant score of each row and column of a device tile, into `own_x` and `own_y`.

    `lo` and `hi` bound the relevant columns of each row, relative to the tile.
    """
    grid = blocks_for(scores.shape[0], threads)
    launch(own_scores, grid, threads, scores, lo, hi, own_x, own_y)


def launch_count_rows(
    scores: Array, lo: Array, hi: Array, own: Array, counts: Array, *, threads: int = ROW_THREADS
) -> None:
    """Add (greater, ties, relevant ties) of each row of a device tile to `counts` (rows, 3).

    `threads` is a power of two, at most ROW_THREADS (one block per row).
    """
    launch(count_rows, scores.shape[0], threads, scores, lo, hi, own, counts)


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
    """Add the same of each column of a device tile to `counts` (columns, 3)."""
    rows, columns = scores.shape
    grid = blocks_for(columns, threads), blocks_for(rows, chunk)
    launch(count_columns, grid, threads, scores, lo, hi, own, counts, chunk)
