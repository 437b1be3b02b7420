"""Kernel blocks on the CPU: a BLAS product per tile, its epilogue while the tile is in cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cmstats.arrays import row_slices
from cmstats.kernels._cpu._exp import EXACT, SUM, exp
from cmstats.kernels._cpu._jit import jit
from cmstats.kernels.parameters import Spec
from cmstats.kernels.threads import thread_map

__all__ = ["fill"]

ROWS, COLUMNS = 256, 1024
"""A tile that stays in the second cache while its epilogue runs."""


def fill(
    X: np.ndarray[Any, Any],
    Y: np.ndarray[Any, Any] | None,
    spec: Spec,
    prepare: Callable[[Any], tuple[Any, Any]],
    prepare_wide: Callable[[Any], tuple[Any, Any]] | None,
    out: np.ndarray[Any, Any],
    row_sums: bool,
) -> np.ndarray[Any, Any] | None:
    """Fill `out` tile by tile on Python threads; for Y None compute one triangle and mirror it.

    Tiles of rows so far from the mean that a distance would cancel are prepared and multiplied
    in double precision, by `prepare_wide`.
    """
    n, m = out.shape
    d = X.shape[1]
    right, right_norms = prepare(X if Y is None else Y)
    side = COLUMNS if Y is not None else ROWS * 2
    column_tiles = list(row_slices(m, side))
    row_tiles = list(row_slices(n, ROWS if Y is not None else side))
    # Sums of tiles are added at the end in one order, so that threads change no digit.
    partial = np.zeros((len(column_tiles), n)) if row_sums else None

    def work(i: int) -> None:
        rows = row_tiles[i]
        if Y is None:
            left, left_norms = right[rows], right_norms[rows]
        else:
            left, left_norms = prepare(X[rows])
        for j in range(i if Y is None else 0, len(column_tiles)):
            columns = column_tiles[j]
            diagonal = Y is None and i == j
            other = left if diagonal else right[columns]
            norms = (left_norms, right_norms[columns])
            if prepare_wide is not None and spec.cancels(left_norms.max() + norms[1].max()):
                tile = out[rows, columns]
                (a, a2), (b, b2) = (
                    prepare_wide(part) for part in (X[rows], (X if Y is None else Y)[columns])
                )
                wide = np.empty(tile.shape)
                whole = slice(0, tile.shape[0]), slice(0, tile.shape[1])
                tile[...] = _fill_tile(wide, *whole, a, b, (a2, b2), spec, diagonal)
            else:
                tile = _fill_tile(out, rows, columns, left, other, norms, spec, diagonal)
            if partial is not None:
                partial[j, rows] = tile.sum(axis=1, dtype=np.float64)
            if Y is None and not diagonal:
                out[columns, rows] = tile.T
                if partial is not None:
                    partial[i, columns] = tile.sum(axis=0, dtype=np.float64)

    thread_map(work, range(len(row_tiles)), inline=n * m * d < 2_000_000)
    return None if partial is None else partial.sum(axis=0)


def _fill_tile(
    out: Any,
    rows: slice,
    columns: slice,
    left: Any,
    right: Any,
    norms: tuple[Any, Any],
    spec: Spec,
    diagonal: bool,
) -> Any:
    """Write kernel values to ``out[rows, columns]``, which is returned.

    The loops take all of `out` and the first row and column of the tile: they vectorise only
    over rows that the compiler knows to be contiguous.
    """
    tile = out[rows, columns]
    scale = out.dtype.type(-spec.gamma)
    r0, c0 = rows.start, columns.start
    n, m = tile.shape
    if spec.name in ("laplacian", "chi2"):
        fill = _l1_distances if spec.name == "laplacian" else _chi2_distances
        fill(out, r0, c0, left, right)
        _exponential(out, r0, c0, n, m, scale)
        return tile
    np.matmul(left, right.T, out=tile)
    if spec.name == "rbf":
        _rbf(out, r0, c0, norms[0], norms[1], scale)
        if diagonal:
            np.fill_diagonal(tile, 1.0)
    elif spec.name in ("polynomial", "sigmoid"):
        tile *= spec.gamma
        tile += spec.coef0
        if spec.name == "sigmoid":
            np.tanh(tile, out=tile)
        elif spec.degree == int(spec.degree):
            _power(out, r0, c0, n, m, int(spec.degree))  # np.power calls pow
        else:
            np.power(tile, spec.degree, out=tile)
    return tile


# Rows are sliced first: an index r0 + i could be negative as far as Numba knows, and the test
# for it would keep the inner loop from using vector lanes.
@jit(fastmath=EXACT, error_model="numpy")
def _rbf(out, r0, c0, x2, y2, scale):  # type: ignore[no-untyped-def]  # pragma: no cover
    two = out.dtype.type(2.0)
    zero = out.dtype.type(0.0)
    m = y2.shape[0]
    for i in range(x2.shape[0]):
        row = out[r0 + i, c0 : c0 + m]
        for j in range(m):
            d2 = x2[i] + y2[j] - two * row[j]
            row[j] = exp(scale * (zero if d2 < zero else d2))


@jit(fastmath=EXACT, error_model="numpy")
def _exponential(out, r0, c0, n, m, scale):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(n):
        row = out[r0 + i, c0 : c0 + m]
        for j in range(m):
            row[j] = exp(scale * row[j])


@jit(fastmath=EXACT)
def _power(out, r0, c0, n, m, degree):  # type: ignore[no-untyped-def]  # pragma: no cover
    base = np.empty(m, out.dtype)
    for i in range(n):
        row = out[r0 + i, c0 : c0 + m]
        base[:] = row
        for _ in range(degree - 1):
            for j in range(m):
                row[j] *= base[j]


@jit(fastmath=SUM, error_model="numpy")
def _l1_distances(out, r0, c0, X, Y):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(X.shape[0]):
        for j in range(Y.shape[0]):
            total = out.dtype.type(0.0)
            for c in range(X.shape[1]):
                total += abs(X[i, c] - Y[j, c])
            out[r0 + i, c0 + j] = total


@jit(fastmath=SUM, error_model="numpy")
def _chi2_distances(out, r0, c0, X, Y):  # type: ignore[no-untyped-def]  # pragma: no cover
    zero, one = out.dtype.type(0.0), out.dtype.type(1.0)
    for i in range(X.shape[0]):
        for j in range(Y.shape[0]):
            total = zero
            for c in range(X.shape[1]):
                s = X[i, c] + Y[j, c]
                difference = X[i, c] - Y[j, c]
                # s = 0 means that both entries are 0, and so is the difference.
                total += difference * difference / (s if s > zero else one)
            out[r0 + i, c0 + j] = total
