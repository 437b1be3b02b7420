"""Scatter matrices on the CPU: a loop centres and sums a tile of rows, BLAS adds its product.

A tile that was centred is still in the cache when BLAS multiplies it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.extending import get_cython_function_address

from cmstats.kernels._cpu._jit import jit

__all__ = ["Tiles"]

FLUSH_ROWS = 8192
"""float32 products are added into float64 after at most this many rows."""
TILE_NUMBERS = 1 << 20
"""A tile has about this many entries, and 256 to 1024 rows."""


class Tiles:
    """The sum of z'z over tiles of centred rows z = sqrt(w) (x - centre), in float64.

    Parameters
    ----------
    d : int
        Columns.
    dtype : float32 or float64
        The working precision.
    height : int
        Columns whose products with all columns are formed; of the others, the targets, only the
        squares are summed.
    """

    def __init__(self, d: int, dtype: Any, height: int) -> None:
        self.dtype = np.dtype(dtype)
        self.rows = int(np.clip(TILE_NUMBERS // d, 256, 1024))
        self._tile = np.empty((self.rows, d), self.dtype)
        # The square on top, of which SYRK writes the upper triangle only, and what is below it.
        self._part = np.zeros((d, height), self.dtype, order="F")
        self._part_rows = 0
        self._total = self._part if self.dtype == np.float64 else None

    def add(
        self,
        blocks: Sequence[np.ndarray[Any, Any]],
        roots: np.ndarray[Any, Any],
        centre: np.ndarray[Any, Any],
        sums: Sequence[np.ndarray[Any, Any]],
    ) -> None:
        """Centre the rows of all blocks, at most `rows` of them, and add their product.

        Parameters
        ----------
        blocks : sequence of arrays of shape (m, p_b)
            C-contiguous, float32 or float64.
        roots : array of shape (m,), or (0,) without weights
            Square roots of the weights.
        centre : array of shape (d,)
            In the working precision.
        sums : arrays of shape (d,), (d,) and (number of blocks,), float64
            To these the sums of w y, w ||y||^2 y and w ||y||^4 are added. Where there are targets
            a fourth array receives their sums of w y^2.
        """
        first, third, fourth = sums[:3]
        m, height = blocks[0].shape[0], self._part.shape[1]
        tile = self._tile[:m]
        start = 0
        for index, x in enumerate(blocks):
            begin, part = start, slice(start, start := start + x.shape[1])
            rows = x, centre[part], roots, tile, begin, first[part]
            if begin < height:
                fourth[index] += _centre_rows(*rows, third[part])
            else:
                _centre_targets(*rows, sums[3][begin - height : start - height])
        _syrk(self.dtype)(tile, self._part)
        if height < tile.shape[1]:
            _gemm(self.dtype)(tile, self._part)
        self._part_rows += m
        if self._part_rows >= FLUSH_ROWS:
            self._flush()

    def matrix(self, *others: Tiles) -> np.ndarray[Any, Any]:
        """The sum of these and others, its square exactly symmetric; no rows can be added later."""
        total = self._flush()
        for other in others:
            total += other._flush()
        _mirror_upper(total[: total.shape[1]])
        return total.T

    def _flush(self) -> np.ndarray[Any, Any]:
        """Add the products in single precision into float64."""
        if self.dtype != np.float64:
            if self._total is None:
                self._total = np.zeros(self._part.shape, np.float64, order="F")
            self._total += self._part
            self._part[...] = 0
        self._part_rows = 0
        assert self._total is not None
        return self._total


# Reassociation lets the row norm vectorise; NaN and infinity keep their meaning.
@jit(fastmath={"reassoc", "contract"})
def _centre_rows(
    x: Any, centre: Any, roots: Any, tile: Any, at: int, first: Any, third: Any
) -> float:  # pragma: no cover - compiled
    """Columns of a tile from `at` on, sqrt(w) y for y = x - centre; returns the sum of w ||y||^4.

    Adds the sums of w y and w ||y||^2 y. Four rows share one sweep over the sums: one row at a time
    is three times slower. So is a tile that is handed over as a view of its columns, whose layout
    the compiler does not know, or written at ``at + j``, which could be negative.
    """
    n, p = x.shape
    fourth = 0.0
    a = np.zeros(4)  # w y = a * out
    b = np.zeros(4)  # w ||y||^2 y = b * out
    for start in range(0, n, 4):
        rows = min(4, n - start)
        for k in range(rows):
            i = start + k
            root = roots[i] if roots.size > 0 else 1.0
            norm = 0.0
            out = tile[i, at : at + p]
            for j in range(p):
                y = x[i, j] - centre[j]
                out[j] = root * y
                norm += y * y
            a[k] = root
            b[k] = root * norm
            fourth += b[k] * b[k]
        if rows == 4:
            out0, out1 = tile[start, at : at + p], tile[start + 1, at : at + p]
            out2, out3 = tile[start + 2, at : at + p], tile[start + 3, at : at + p]
            a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
            b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
            for j in range(p):
                y0, y1, y2, y3 = out0[j], out1[j], out2[j], out3[j]
                first[j] += a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3
                third[j] += b0 * y0 + b1 * y1 + b2 * y2 + b3 * y3
        else:
            for k in range(rows):
                out = tile[start + k, at : at + p]
                for j in range(p):
                    first[j] += a[k] * out[j]
                    third[j] += b[k] * out[j]
    return fourth


@jit(fastmath={"reassoc", "contract"})
def _centre_targets(
    x: Any, centre: Any, roots: Any, tile: Any, at: int, first: Any, squares: Any
) -> None:  # pragma: no cover - compiled
    """Columns of a tile from `at` on, sqrt(w) y for y = x - centre, with sums of w y and w y^2."""
    n, p = x.shape
    weighted = roots.size > 0
    a0 = a1 = a2 = a3 = 1.0
    for i in range(0, n - 3, 4):
        if weighted:
            a0, a1, a2, a3 = roots[i], roots[i + 1], roots[i + 2], roots[i + 3]
        out0, out1 = tile[i, at : at + p], tile[i + 1, at : at + p]
        out2, out3 = tile[i + 2, at : at + p], tile[i + 3, at : at + p]
        for j in range(p):
            y0, y1 = a0 * (x[i, j] - centre[j]), a1 * (x[i + 1, j] - centre[j])
            y2, y3 = a2 * (x[i + 2, j] - centre[j]), a3 * (x[i + 3, j] - centre[j])
            out0[j], out1[j], out2[j], out3[j] = y0, y1, y2, y3
            first[j] += a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3
            squares[j] += y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
    for i in range(n - n % 4, n):
        root = roots[i] if weighted else 1.0
        out0 = tile[i, at : at + p]
        for j in range(p):
            y = root * (x[i, j] - centre[j])
            out0[j] = y
            first[j] += root * y
            squares[j] += y * y


Product = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], None]
"""Adds a product of a tile (k, d) to a Fortran-ordered matrix (d, h) in place.

The wrappers in scipy.linalg.blas hold the interpreter lock, NumPy's product cannot add in place and
mirrors the triangle each time: BLAS is called through its own address, and other Python threads run
meanwhile. A C-ordered tile (k, d) is the Fortran-ordered (d, k) matrix that BLAS multiplies.
"""


@functools.cache
def _syrk(dtype: np.dtype[Any]) -> Product:
    """``upper(c[:h]) += x'x`` for the first h columns x of a tile."""
    call, one = _blas("syrk", dtype, 10)
    ref = ctypes.byref

    def add(tile: np.ndarray[Any, Any], c: np.ndarray[Any, Any]) -> None:
        size = ctypes.c_int(c.shape[0])
        call(
            ref(ctypes.c_char(b"U")),
            ref(ctypes.c_char(b"N")),
            ref(ctypes.c_int(c.shape[1])),
            ref(ctypes.c_int(tile.shape[0])),
            ref(one),
            tile.ctypes.data,
            ref(size),
            ref(one),
            c.ctypes.data,
            ref(size),
        )

    return add


@functools.cache
def _gemm(dtype: np.dtype[Any]) -> Product:
    """``c[h:] += y'x`` for the first h columns x of a tile and the others y."""
    call, one = _blas("gemm", dtype, 13)
    ref = ctypes.byref

    def add(tile: np.ndarray[Any, Any], c: np.ndarray[Any, Any]) -> None:
        (d, h), size = c.shape, ctypes.c_int(c.shape[0])
        call(
            ref(ctypes.c_char(b"N")),
            ref(ctypes.c_char(b"T")),
            ref(ctypes.c_int(d - h)),
            ref(ctypes.c_int(h)),
            ref(ctypes.c_int(tile.shape[0])),
            ref(one),
            tile[:, h:].ctypes.data,
            ref(size),
            tile.ctypes.data,
            ref(size),
            ref(one),
            c[h:].ctypes.data,
            ref(size),
        )

    return add


def _blas(name: str, dtype: np.dtype[Any], arguments: int) -> tuple[Any, Any]:
    """A routine of BLAS in a precision, all of whose arguments are addresses; and 1."""
    double = dtype == np.float64
    address = get_cython_function_address(
        "scipy.linalg.cython_blas", ("d" if double else "s") + name
    )
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)
    return call, (ctypes.c_double if double else ctypes.c_float)(1.0)


@jit()
def _mirror_upper(a: Any) -> None:  # pragma: no cover - compiled
    """Copy the upper triangle of a Fortran-ordered matrix into the lower, by tiles."""
    n = a.shape[0]
    step = 64
    for jj in range(0, n, step):
        for ii in range(0, jj + step, step):
            for j in range(jj, min(jj + step, n)):
                for i in range(ii, min(ii + step, j)):
                    a[j, i] = a[i, j]
