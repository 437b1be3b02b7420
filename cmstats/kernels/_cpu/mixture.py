"""The E-step of a mixture and its sums on the CPU, both on a tile of rows while it is cached."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.arrays import row_slices
from cmstats.kernels._cpu._exp import EXACT
from cmstats.kernels._cpu._jit import jit
from cmstats.kernels._cpu.normal import fill_plan, log_sum_exp
from cmstats.kernels.parameters import MixtureSums, Normals, Second
from cmstats.kernels.threads import cores, even_slices, run_tasks

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
        _add_run,
        read=read,
        fill=fill,
        rows=min(rows, 1024),
        constants=normals.constants + log_weights,
        means=normals.means.astype(dtype),
        weights=weights,
        dtype=np.dtype(dtype),
    )
    runs = [(_empty(k, d, second), run) for run in even_slices(n, parts)]
    run_tasks([functools.partial(add, sums, run) for sums, run in runs])
    return functools.reduce(MixtureSums.__add__, (s.finished() for s, _ in runs))


@dataclass
class _Running:
    """The sums of one run of rows, added to in place."""

    log_likelihood: float
    n: Any
    first: Any
    second: Any

    def finished(self) -> MixtureSums:
        return MixtureSums(self.log_likelihood, self.n, self.first, self.second)


def _empty(k: int, d: int, second: Second) -> _Running:
    shape = {"full": (k, d, d), "diag": (k, d), "none": None}[second]
    squares = None if shape is None else np.zeros(shape)
    return _Running(0.0, np.zeros(k), np.zeros((k, d)), squares)


def _add_run(
    sums: _Running,
    run: slice,
    *,
    read: Callable[[slice], Any],
    fill: Callable[[Any, Any, Any], None],
    rows: int,
    constants: Any,
    means: Any,
    weights: Any,
    dtype: Any,
) -> None:
    k, d = means.shape
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
        sums.log_likelihood += float(np.dot(w, density[:m].astype(np.float64)))
        if sums.second is None or sums.second.ndim == 2:
            squares = np.empty((0, 0)) if sums.second is None else sums.second
            _weigh_diagonal(block, means, r[:m], w, least, sums.n, sums.first, squares)
            continue
        for j in range(k):
            kept = _weigh(block, means[j], r[:m, j], w, least, z, roots)
            if kept:
                root, rows_kept = roots[:kept], z[:kept]
                sums.n[j] += float(np.dot(root, root))
                sums.first[j] += root @ rows_kept
                # One array on both sides: BLAS takes the symmetric product, half the work.
                sums.second[j] += np.matmul(rows_kept.T, rows_kept, out=square)


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
