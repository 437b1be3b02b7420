"""Log-densities of normals on a GPU: one fused kernel for few columns, cuBLAS for many."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np

from cmstats.arrays import Array, namespace, result_dtype, row_slices
from cmstats.kernels._cuda._launch import blocks_for, cuda, launch
from cmstats.kernels.parameters import Normals

__all__ = ["launch_finish", "launch_mixture", "launch_row_norms", "log_densities"]

FUSED_COLUMNS = 32
"""Up to this many columns a mixture's factors and a block's rows fit in shared memory."""


def log_densities(
    X: Array, normals: Normals, log_weights: Array | None, *, components: bool
) -> tuple[Array, Array]:
    """Mixture density (n,) and, when asked, component terms (n, k) of device arrays.

    Few columns are the fused kernel, one read of X. More are cuBLAS on blocks of rows, with
    the row norms read off each product once.
    """
    import cupy as cp

    dtype = np.dtype(result_dtype(X))
    n, d = X.shape
    k = normals.means.shape[0]
    constants = normals.constants if log_weights is None else normals.constants + log_weights
    constants = cp.ascontiguousarray(constants, dtype=dtype)
    density = cp.empty(n, dtype=dtype)
    terms = cp.empty((n if components else 0, k), dtype=dtype)
    if d <= FUSED_COLUMNS and normals.projections is None:
        means = cp.ascontiguousarray(normals.means, dtype=dtype)
        W = cp.ascontiguousarray(padded_whitening(normals), dtype=dtype)
        for rows in row_slices(n, 2**22):
            block = cp.ascontiguousarray(X[rows], dtype=dtype)
            launch_mixture(block, means, W, constants, density[rows], terms[rows])
        return density, terms
    for rows in row_slices(n, max(1024, 2**26 // (d * dtype.itemsize))):
        block = cp.asarray(X[rows], dtype=dtype)
        norms = cp.empty((k, block.shape[0]), dtype=dtype)
        for j, z in enumerate(_whitened(block, normals)):
            launch_row_norms(z, norms[j])
        launch_finish(norms, constants, density[rows], terms[rows])
    return density, terms


def _whitened(block: Array, normals: Normals) -> Iterator[Array]:
    """z of a block under each component, C-contiguous."""
    means, W = normals.means.astype(block.dtype), normals.whitening.astype(block.dtype)
    if normals.kind == "tied":
        centre = normals.means.mean(axis=0).astype(block.dtype)
        z = (block - centre) @ W[0]
        for mean in (means - centre) @ W[0]:
            yield z - mean
    else:
        for j, (mean, w) in enumerate(zip(means, W, strict=True)):
            if normals.projections is not None:
                P = normals.projections[j].astype(block.dtype)
                z = (block - mean) * w
                z -= (z @ P) @ P.T
                yield z
            else:
                yield (block - mean) * w if normals.kind == "diag" else (block - mean) @ w


def padded_whitening(normals: Normals) -> Array:
    """W of every component, (k, padded, padded), zeros up to a multiple of 4 columns."""
    xp = namespace(normals.means)
    k, d = normals.means.shape
    padded = -(-d // 4) * 4
    W = xp.zeros((k, padded, padded), dtype=xp.float64)
    if normals.kind == "diag":
        index = xp.arange(d)
        W[:, index, index] = normals.whitening
    else:
        W[:, :d, :d] = normals.whitening  # one tied factor goes to every component
    return W


@cuda.jit
def row_norms(z, out):  # type: ignore[no-untyped-def]
    # 4 rows a block, 32 neighbouring threads to a row: reads are coalesced.
    partial = cuda.shared.array((4, 32), numba.float64)
    lane, local = cuda.threadIdx.x, cuda.threadIdx.y
    row = cuda.blockIdx.x * 4 + local
    total = 0.0
    if row < z.shape[0]:
        for j in range(lane, z.shape[1], 32):
            total += z[row, j] * z[row, j]
    partial[local, lane] = total
    step = 16
    while step > 0:
        cuda.syncthreads()
        if lane < step:
            partial[local, lane] += partial[local, lane + step]
        step //= 2
    if lane == 0 and row < z.shape[0]:
        out[row] = partial[local, 0]


@cuda.jit(device=True)
def log_add(largest, total, term, one):  # type: ignore[no-untyped-def]
    """Add a term to a log-sum-exp, represented by its largest term and the sum relative to it.

    `one` is 1 in the precision of the others: a plain 1.0 would make them double.
    """
    if term > largest:
        total = total * math.exp(largest - term) + one
        largest = term
    elif not math.isinf(term):  # -inf, a weight of zero, adds nothing; NaN goes through
        total += math.exp(term - largest)
    return largest, total


@cuda.jit
def finish(norms, constants, density, terms):  # type: ignore[no-untyped-def]
    """Terms and log-sum-exp of rows, from the squared norms (k, n); one thread a row."""
    row = cuda.grid(1)
    if row >= norms.shape[1]:
        return
    one = density.dtype.type(1.0)
    half = density.dtype.type(0.5)
    largest = constants[0] - half * norms[0, row]
    total = one
    if terms.shape[0] > 0:
        terms[row, 0] = largest
    for comp in range(1, norms.shape[0]):
        term = constants[comp] - half * norms[comp, row]
        if terms.shape[0] > 0:
            terms[row, comp] = term
        largest, total = log_add(largest, total, term, one)
    density[row] = largest + math.log(total)


@functools.cache
def mixture_kernel(padded: int, double: bool) -> Any:
    """Compile the mixture kernel for a number of columns (a multiple of 4) and a precision.

    A block owns 128 rows, two to a thread, kept in shared memory for the whole mixture; each
    component's factor is loaded once per block. Four columns of z for two rows are in
    registers at a time, and the log-sum-exp is updated as components go by, so one number
    per row is written.
    """
    real = numba.float64 if double else numba.float32
    zero, half, one = real(0.0), real(0.5), real(1.0)
    lowest = real(-math.inf)
    stride = 129  # 128 rows and one column against bank conflicts

    @cuda.jit
    def mixture(X, means, W, constants, density, terms):  # type: ignore[no-untyped-def]
        x = cuda.shared.array((padded, stride), real)
        w = cuda.shared.array((padded, padded), real)
        mean = cuda.shared.array(padded, real)
        t = cuda.threadIdx.x
        base = cuda.blockIdx.x * 128
        n, d = X.shape
        for index in range(t, 128 * padded, 64):
            row, column = index // padded, index % padded
            value = zero
            if base + row < n and column < d:
                value = X[base + row, column]
            x[column, row] = value
        m0, m1 = lowest, lowest  # largest term so far, of this thread's two rows
        s0, s1 = zero, zero  # sum of exp(term - largest)
        for comp in range(means.shape[0]):
            cuda.syncthreads()
            for index in range(t, padded * padded, 64):
                w[index // padded, index % padded] = W[comp, index // padded, index % padded]
            if t < padded:
                mean[t] = means[comp, t] if t < d else zero
            cuda.syncthreads()
            q0, q1 = zero, zero
            for j in range(0, padded, 4):
                a0, a1, a2, a3 = zero, zero, zero, zero
                b0, b1, b2, b3 = zero, zero, zero, zero
                for i in range(j + 4):
                    a = x[i, t] - mean[i]
                    b = x[i, t + 64] - mean[i]
                    w0, w1, w2, w3 = w[i, j], w[i, j + 1], w[i, j + 2], w[i, j + 3]
                    a0 += a * w0
                    a1 += a * w1
                    a2 += a * w2
                    a3 += a * w3
                    b0 += b * w0
                    b1 += b * w1
                    b2 += b * w2
                    b3 += b * w3
                q0 += a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3
                q1 += b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3
            term0 = constants[comp] - half * q0
            term1 = constants[comp] - half * q1
            m0, s0 = log_add(m0, s0, term0, one)
            m1, s1 = log_add(m1, s1, term1, one)
            if terms.shape[0] > 0:
                if base + t < n:
                    terms[base + t, comp] = term0
                if base + t + 64 < n:
                    terms[base + t + 64, comp] = term1
        if base + t < n:
            density[base + t] = m0 + math.log(s0) if m0 > lowest else m0 + s0
        if base + t + 64 < n:
            density[base + t + 64] = m1 + math.log(s1) if m1 > lowest else m1 + s1

    return mixture


def launch_row_norms(z: Any, out: Any) -> None:
    """``out[i] = sum_j z[i, j]^2`` of device arrays."""
    launch(row_norms, blocks_for(z.shape[0], 4), (32, 4), z, out)


def launch_finish(norms: Any, constants: Any, density: Any, terms: Any) -> None:
    """From squared norms (k, n) to densities (n,) and, unless it is (0, k), `terms` (n, k)."""
    launch(finish, blocks_for(norms.shape[1], 128), 128, norms, constants, density, terms)


def launch_mixture(X: Any, means: Any, W: Any, constants: Any, density: Any, terms: Any) -> None:
    """Mixture density of device arrays, all of X's dtype (float32 or float64), d at most 32.

    `W` is (k, padded, padded), upper triangular, zero from d to `padded`; `constants` holds
    log-weights too; `terms` is (n, k), or (0, k) when the component terms are not wanted.
    """
    kernel = mixture_kernel(W.shape[1], np.dtype(X.dtype) == np.float64)
    launch(kernel, blocks_for(X.shape[0], 128), 64, X, means, W, constants, density, terms)
