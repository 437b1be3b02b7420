"""Log-densities of normals on the CPU: loops in cache for few columns, BLAS for many."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cmstats.arrays import result_dtype, row_slices
from cmstats.kernels._cpu._exp import EXACT, SUM, exp_double
from cmstats.kernels._cpu._jit import jit
from cmstats.kernels.parameters import Normals
from cmstats.kernels.threads import thread_map

__all__ = ["fill_plan", "log_densities", "log_sum_exp"]

FUSED_COLUMNS = 96
"""Up to this many columns the loops written here beat BLAS: they skip the triangle's zeros."""


def log_densities(
    X: np.ndarray[Any, Any],
    normals: Normals,
    log_weights: np.ndarray[Any, Any] | None,
    *,
    components: np.ndarray[Any, Any] | None = None,
    density: np.ndarray[Any, Any] | None = None,
    responsibilities: np.ndarray[Any, Any] | None = None,
) -> None:
    """Fill those outputs that are not None, tile by tile: the (k, rows) of a tile stay in cache."""
    dtype = result_dtype(X)
    n, d = X.shape
    k = normals.means.shape[0]
    constants = np.array(normals.constants)
    if log_weights is not None:
        constants += log_weights
    fill, rows = fill_plan(normals, dtype)
    nothing = np.empty((0, 0), dtype=dtype)

    def work(tile: slice) -> None:
        block = np.ascontiguousarray(X[tile], dtype=dtype)
        terms = np.empty((k, block.shape[0]))
        # Infinities in X raise an error afterwards; the setting is per thread.
        with np.errstate(invalid="ignore", over="ignore"):
            fill(block, constants, terms)
        if components is not None:
            components[tile] = terms.T
        if density is not None:
            r = nothing if responsibilities is None else responsibilities[tile]
            log_sum_exp(terms, density[tile], r)

    small = n * k * d * (1 if normals.kind == "diag" else d) < 2_000_000
    thread_map(work, list(row_slices(n, rows)), inline=small)


def fill_plan(normals: Normals, dtype: Any) -> tuple[Callable[[Any, Any, Any], None], int]:
    """The function that fills ``terms`` (k, rows) from a tile of rows, and the rows of a tile."""
    k, d = normals.means.shape
    rows = min(4096, max(256, 32768 // k))
    means, W = normals.means.astype(dtype), normals.whitening.astype(dtype)
    if normals.kind == "diag":
        return functools.partial(_fill_diagonal, means, W), rows
    if normals.projections is not None:
        fill_low_rank = _low_rank_fill(means, W, normals.projections.astype(dtype))
        return fill_low_rank, min(rows, 512, max(128, 2**18 // d))
    if normals.kind == "tied":
        centre = np.mean(normals.means, axis=0)
        whitened = ((normals.means - centre) @ normals.whitening[0]).astype(dtype)
        fill_tied = _tied_fill(centre.astype(dtype), np.ascontiguousarray(W[0]), whitened)
        return fill_tied, min(rows, 1024)
    if d <= FUSED_COLUMNS:
        padded = -(-d // 4) * 4
        factors = np.zeros((k, padded, padded), dtype=dtype)
        factors[:, :d, :d] = W
        return functools.partial(_fill_full, means, factors), rows
    return _wide_fill(means, W), min(512, max(128, 2**18 // d))


def _tied_fill(centre: Any, W: Any, means: Any) -> Callable[[Any, Any, Any], None]:
    """One product whitens the rows for all components, whose `means` are whitened too."""
    ones = np.ones_like(means)

    def fill(block: Any, constants: Any, terms: Any) -> None:
        centred = np.empty_like(block)
        _centre(block, centre, centred)
        _fill_diagonal(means, ones, centred @ W, constants, terms)

    return fill


def _wide_fill(means: Any, W: Any) -> Callable[[Any, Any, Any], None]:
    """Centre in cache, one product per block of columns without its zeros, row norms."""
    k, d = means.shape
    width = max(64, -(-d // 64) * 8)
    panels = list(row_slices(d, width))
    blocks = [[np.ascontiguousarray(W[j, : p.stop, p]) for p in panels] for j in range(k)]

    def fill(block: Any, constants: Any, terms: Any) -> None:
        centred, z = np.empty_like(block), np.empty_like(block)
        for j in range(k):
            _centre(block, means[j], centred)
            for panel, w in zip(panels, blocks[j], strict=True):
                np.matmul(centred[:, : panel.stop], w, out=z[:, panel])
            _row_norms(z, constants[j], terms[j])

    return fill


def _low_rank_fill(means: Any, scales: Any, P: Any) -> Callable[[Any, Any, Any], None]:
    """Scale rows by the noise, apply I - P P', sum the squares of each row."""
    transposed = np.ascontiguousarray(P.transpose(0, 2, 1))

    def fill(block: Any, constants: Any, terms: Any) -> None:
        z, shrunken = np.empty_like(block), np.empty_like(block)
        for j in range(means.shape[0]):
            _centre(block, means[j], z)
            z *= scales[j]
            np.matmul(z @ P[j], transposed[j], out=shrunken)
            z -= shrunken
            _row_norms(z, constants[j], terms[j])

    return fill


@jit(fastmath=EXACT)
def _centre(X, mean, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            out[i, j] = X[i, j] - mean[j]


@jit(fastmath=SUM)
def _row_norms(z, constant, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(z.shape[0]):
        total = 0.0
        for j in range(z.shape[1]):
            total += z[i, j] * z[i, j]
        out[i] = constant - 0.5 * total


@jit(fastmath=EXACT, error_model="numpy")
def _fill_diagonal(means, scales, X, constants, terms):  # type: ignore[no-untyped-def]  # pragma: no cover
    k, d = means.shape
    n = X.shape[0]
    T = min(128, max(16, 16384 // d))
    x = np.empty((d, T), X.dtype)
    q = np.empty(T, X.dtype)
    for start in range(0, n, T):
        t = min(T, n - start)
        for r in range(t):
            for i in range(d):
                x[i, r] = X[start + r, i]
        for comp in range(k):
            q[:] = 0
            for i in range(d):
                mean, scale = means[comp, i], scales[comp, i]
                for r in range(t):
                    z = (x[i, r] - mean) * scale
                    q[r] += z * z
            for r in range(t):
                terms[comp, start + r] = constants[comp] - 0.5 * q[r]


@jit(fastmath=EXACT, error_model="numpy")
def _fill_full(means, W, X, constants, terms):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Terms of full covariances: rows across the vector lanes, W in blocks of 2 x 4.

    Blocks below the diagonal are never touched: half the operations of a product, and
    nothing leaves the first cache. A larger block does not fit the sixteen registers beside
    its rows: 4 x 4 took 1.1 to 1.5 times as long.
    """
    k, d = means.shape
    n = X.shape[0]
    padded = W.shape[1]
    T = (512 if padded <= 32 else 256) // W.itemsize
    x = np.zeros((padded, T), X.dtype)
    centred = np.zeros((padded, T), X.dtype)  # rows d to padded stay zero
    z = np.zeros((4, T), X.dtype)
    q = np.zeros(T, X.dtype)
    for start in range(0, n, T):
        t = min(T, n - start)
        if k == 1:  # no second component will want the rows as they are
            for r in range(t):
                for i in range(d):
                    centred[i, r] = X[start + r, i] - means[0, i]
        else:
            for r in range(t):
                for i in range(d):
                    x[i, r] = X[start + r, i]
        for comp in range(k):
            w = W[comp]
            if k > 1:
                for i in range(d):
                    mean = means[comp, i]
                    for r in range(T):
                        centred[i, r] = x[i, r] - mean
            q[:] = 0
            for j in range(0, padded, 4):
                z[:] = 0
                for i in range(0, j, 2):
                    v00, v01, v02, v03 = w[i, j], w[i, j + 1], w[i, j + 2], w[i, j + 3]
                    v10, v11 = w[i + 1, j], w[i + 1, j + 1]
                    v12, v13 = w[i + 1, j + 2], w[i + 1, j + 3]
                    for r in range(T):
                        a0, a1 = centred[i, r], centred[i + 1, r]
                        z[0, r] += a0 * v00 + a1 * v10
                        z[1, r] += a0 * v01 + a1 * v11
                        z[2, r] += a0 * v02 + a1 * v12
                        z[3, r] += a0 * v03 + a1 * v13
                v00, v01, v02, v03 = w[j, j], w[j, j + 1], w[j, j + 2], w[j, j + 3]
                v11, v12, v13 = w[j + 1, j + 1], w[j + 1, j + 2], w[j + 1, j + 3]
                v22, v23, v33 = w[j + 2, j + 2], w[j + 2, j + 3], w[j + 3, j + 3]
                for r in range(T):
                    a0, a1 = centred[j, r], centred[j + 1, r]
                    a2, a3 = centred[j + 2, r], centred[j + 3, r]
                    z0 = z[0, r] + a0 * v00
                    z1 = z[1, r] + a0 * v01 + a1 * v11
                    z2 = z[2, r] + a0 * v02 + a1 * v12 + a2 * v22
                    z3 = z[3, r] + a0 * v03 + a1 * v13 + a2 * v23 + a3 * v33
                    q[r] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3
            for r in range(t):
                terms[comp, start + r] = constants[comp] - 0.5 * q[r]


@jit(fastmath=EXACT, error_model="numpy")
def log_sum_exp(terms, density, responsibilities):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Log-sum-exp over the rows of `terms` (k, n), which is overwritten, and responsibilities."""
    k, n = terms.shape
    largest = terms[0].copy()
    total = np.zeros(n)
    for comp in range(1, k):
        for r in range(n):
            largest[r] = max(largest[r], terms[comp, r])
    for comp in range(k):
        for r in range(n):
            e = exp_double(terms[comp, r] - largest[r])
            terms[comp, r] = e
            total[r] += e
    for r in range(n):
        density[r] = largest[r] + math.log(total[r])
    if responsibilities.size:
        for r in range(n):
            for comp in range(k):
                responsibilities[r, comp] = terms[comp, r] / total[r]
