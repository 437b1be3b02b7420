"""The E-step of a mixture and its sums on the CPU, both on a tile of rows while it is cached."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cmstats.arrays import row_slices
from cmstats.kernels._cpu._exp import EXACT
from cmstats.kernels._cpu._jit import jit
from cmstats.kernels._cpu.normal import fill_plan, log_sum_exp
from cmstats.kernels.parameters import MixtureSums, Normals, Second
from cmstats.kernels.threads import cores, even_slices, thread_map

__all__ = ["mixture_sums"]


def mixture_sums(
    read: Callable[[slice], Any],
    n: int,
    normals: Normals,
    log_weights: Any,
    weights: Any,
    second: Second,
    dtype: Any,
) -> MixtureSums:
    """The sums of even runs of rows, added in their order, so that timing changes no digit."""
    k, d = normals.means.shape
    work = n * k * d * (d if second == "full" else 1)
    held = 8 * k * d * d if second == "full" else 0
    # Each thread has its own sums, together at most 2 GiB.
    parts = 1 if work < 2_000_000 else max(1, min(cores(), (2 << 30) // max(1, held)))
    fill, rows = fill_plan(normals, dtype)
    add = functools.partial(
        _run_sums,
        read=read,
        fill=fill,
        rows=min(rows, 1024),
        constants=normals.constants + log_weights,
        means=normals.means.astype(dtype),
        weights=weights,
        shape={"full": (k, d, d), "diag": (k, d), "none": (0, 0)}[second],
    )
    total = functools.reduce(MixtureSums.__add__, thread_map(add, even_slices(n, parts)))
    return replace(total, second=None) if second == "none" else total


def _run_sums(
    run: slice,
    *,
    read: Callable[[slice], Any],
    fill: Callable[[Any, Any, Any], None],
    rows: int,
    constants: Any,
    means: Any,
    weights: Any,
    shape: tuple[int, ...],
) -> MixtureSums:
    """The sums of one run of rows; `shape` is that of the second moments."""
    (k, d), dtype = means.shape, means.dtype
    log_likelihood, n, first, second = 0.0, np.zeros(k), np.zeros((k, d)), np.zeros(shape)
    least = np.finfo(dtype).eps / 1000
    terms, density = np.empty((k, rows)), np.empty(rows, dtype)
    r = np.empty((rows, k), dtype)
    z, roots, square = np.empty((rows, d), dtype), np.empty(rows, dtype), np.empty((d, d), dtype)
    ones = np.ones(rows)
    for tile in row_slices(run.stop - run.start, rows):
        take = slice(run.start + tile.start, run.start + tile.stop)
        m = take.stop - take.start
        block = read(take)
        # A short last tile has its own buffer: the kernels read contiguous rows of terms.
        t = terms if m == rows else np.empty((k, m))
        fill(block, constants, t)
        log_sum_exp(t, density[:m], r[:m])
        w = ones[:m] if weights is None else weights[take]
        log_likelihood += float(np.dot(w, density[:m].astype(np.float64)))
        if second.ndim == 2:
            _weigh_diagonal(block, means, r[:m], w, least, n, first, second)
            continue
        for j in range(k):
            kept = _weigh(block, means[j], r[:m, j], w, least, z, roots)
            if kept:
                root, rows_kept = roots[:kept], z[:kept]
                n[j] += float(np.dot(root, root))
                first[j] += root @ rows_kept
                # One array on both sides: BLAS takes the symmetric product, half the work.
                second[j] += np.matmul(rows_kept.T, rows_kept, out=square)
    return MixtureSums(log_likelihood, n, first, second)


@jit(fastmath=EXACT)
def _weigh(X, mean, r, w, least, z, roots):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Pack ``sqrt(w r) (x - mean)`` of the rows with responsibility; return their number."""
    m = 0
    for i in range(X.shape[0]):
        if r[i] > least and w[i] > 0:
            root = X.dtype.type(np.sqrt(w[i] * r[i]))
            roots[m] = root
            for j in range(X.shape[1]):
                z[m, j] = root * (X[i, j] - mean[j])
            m += 1
    return m


@jit(fastmath=EXACT)
def _weigh_diagonal(X, means, r, w, least, n, first, second):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Counts, first moments and, unless `second` is empty, squares; all sums in float64."""
    for i in range(X.shape[0]):
        for comp in range(means.shape[0]):
            if r[i, comp] > least:
                u = w[i] * r[i, comp]
                n[comp] += u
                if second.size:
                    for j in range(X.shape[1]):
                        y = np.float64(X[i, j] - means[comp, j])
                        first[comp, j] += u * y
                        second[comp, j] += u * y * y
                else:
                    for j in range(X.shape[1]):
                        first[comp, j] += u * (X[i, j] - means[comp, j])
