"""Kernel blocks on a GPU: a cuBLAS product and one pass over it, or pairwise sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from cmstats.arrays import Array
from cmstats.kernels._cuda._launch import blocks_for, cuda, launch
from cmstats.kernels.parameters import Spec

__all__ = ["fill", "launch_mirror", "launch_pairs", "launch_rbf"]


def fill(
    X: Array,
    Y: Array | None,
    spec: Spec,
    prepare: Callable[[Array], tuple[Array, Array]],
    finish: Callable[[Array, Spec], Array],
    out: Array,
    row_sums: bool,
) -> Array | None:
    """Fill the device array `out`; `prepare` and `finish` come before and after a product."""
    import cupy as cp

    left, left_norms = prepare(X)
    right, right_norms = (left, left_norms) if Y is None else prepare(Y)
    if spec.name in ("laplacian", "chi2"):
        launch_pairs(left, right, spec.gamma, spec.name == "chi2", out)
    else:
        if out.flags.c_contiguous:
            cp.matmul(left, right.T, out=out)
        else:
            out[...] = left @ right.T
        if Y is None:
            launch_mirror(out)
        if spec.name == "rbf":
            sums = cp.empty(out.shape[0] if row_sums else 0, dtype=cp.float64)
            launch_rbf(out, left_norms, right_norms, spec.gamma, Y is None, sums)
            return sums if row_sums else None
        if spec.name in ("polynomial", "sigmoid"):
            out[...] = finish(out, spec)
    return out.sum(axis=1, dtype=cp.float64) if row_sums else None


@cuda.jit
def rbf(K, x2, y2, scale, same, sums):  # type: ignore[no-untyped-def]
    # A block to a row: neighbouring threads read neighbouring columns, once.
    partial = cuda.shared.array(128, numba.float64)
    t, row = cuda.threadIdx.x, cuda.blockIdx.x
    total = 0.0
    norm = x2[row]
    for j in range(t, K.shape[1], 128):
        d2 = norm + y2[j] - K[row, j] - K[row, j]
        if d2 < 0 or (same and j == row):
            d2 -= d2  # zero in the type of the block; NaN stays NaN
        value = math.exp(scale * d2)
        K[row, j] = value
        total += value
    if sums.shape[0] > 0:
        partial[t] = total
        step = 64
        while step > 0:
            cuda.syncthreads()
            if t < step:
                partial[t] += partial[t + step]
            step //= 2
        if t == 0:
            sums[row] = partial[0]


@cuda.jit
def mirror(K):  # type: ignore[no-untyped-def]
    # The upper triangle onto the lower: what is read is never written.
    j, i = cuda.grid(2)
    if i < j and j < K.shape[0]:
        K[j, i] = K[i, j]


@cuda.jit
def pairs(X, Y, scale, chi2, K):  # type: ignore[no-untyped-def]
    # 16 x 16 pairs a block; 16 columns of their rows at a time in shared memory.
    x = cuda.shared.array((16, 17), numba.float64)
    y = cuda.shared.array((16, 17), numba.float64)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    i = cuda.blockIdx.y * 16 + ty
    j = cuda.blockIdx.x * 16 + tx
    total = 0.0
    for start in range(0, X.shape[1], 16):
        column = start + tx
        other = cuda.blockIdx.x * 16 + ty
        inside = column < X.shape[1]
        x[ty, tx] = X[i, column] if inside and i < X.shape[0] else 0.0
        y[ty, tx] = Y[other, column] if inside and other < Y.shape[0] else 0.0
        cuda.syncthreads()
        for c in range(16):
            a, b = x[ty, c], y[tx, c]
            if not chi2:
                total += abs(a - b)
            elif a + b > 0.0:
                total += (a - b) * (a - b) / (a + b)
        cuda.syncthreads()
    if i < K.shape[0] and j < K.shape[1]:
        K[i, j] = math.exp(scale * total)


def launch_rbf(K: Any, x2: Any, y2: Any, gamma: float, same: bool, sums: Any) -> None:
    """From products x'y in `K` to rbf values, in place; `sums` float64, (n,) or (0,)."""
    scale = np.dtype(K.dtype).type(-gamma)
    launch(rbf, K.shape[0], 128, K, x2, y2, scale, same, sums)


def launch_mirror(K: Any) -> None:
    """Make the square device array `K` symmetric by its upper triangle."""
    blocks = blocks_for(K.shape[0], 16)
    launch(mirror, (blocks, blocks), (16, 16), K)


def launch_pairs(X: Any, Y: Any, gamma: float, chi2: bool, K: Any) -> None:
    """Laplacian or chi2 values of device arrays; sums run in float64."""
    grid = blocks_for(K.shape[1], 16), blocks_for(K.shape[0], 16)
    launch(pairs, grid, (16, 16), X, Y, -gamma, chi2, K)
