"""What EM for a mixture of normals needs of the rows, in one pass that keeps nothing of them.

With responsibilities r of the current parameters (the E-step) and z_ij = x_i - mu_j, per
component j

    n_j = sum_i r_ij,   first_j = sum_i r_ij z_ij,   second_j = sum_i r_ij z_ij z_ij'

about the current means, so that no digits cancel where components are far apart. A tile of
rows goes through both steps while it is in the cache; products are in the precision of the
rows, sums over tiles in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np

from cmstats.arrays import Array, is_numpy, namespace, row_slices
from cmstats.kernels import normal
from cmstats.kernels._cpu import normal as cpu
from cmstats.kernels._cpu._exp import EXACT
from cmstats.kernels.covariance import even_slices
from cmstats.kernels.parameters import Normals
from cmstats.kernels.threads import cores, run_tasks

__all__ = ["MixtureSums", "Second", "mixture_sums"]

Second = Literal["full", "diag", "none"]

BLOCK = 2**23
"""Numbers in the largest temporary of a namespace other than NumPy's."""


@dataclass(frozen=True)
class MixtureSums:
    """Sums over the rows under the responsibilities, about the means they were made with.

    Attributes
    ----------
    log_likelihood : float
        Sum of w log p(x).
    n : array of shape (k,)
    first : array of shape (k, d)
    second : array of shape (k, d, d) or (k, d), or None
    """

    log_likelihood: float
    n: Array
    first: Array
    second: Array | None

    def __add__(self, other: MixtureSums) -> MixtureSums:
        second = None if self.second is None else self.second + other.second
        return MixtureSums(
            self.log_likelihood + other.log_likelihood,
            self.n + other.n,
            self.first + other.first,
            second,
        )


def mixture_sums(
    read: Callable[[slice], Array],
    n: int,
    normals: Normals,
    log_weights: Array,
    weights: Array | None = None,
    *,
    second: Second = "full",
    dtype: Any,
) -> MixtureSums:
    """One E-step over n rows and the sums for the M-step.

    Parameters
    ----------
    read : callable
        ``read(rows)`` is the block of these rows, C-contiguous and of `dtype`; called from
        several threads.
    n : int
    normals : Normals
        The components (`normal.prepare`); their namespace and device are those of the rows.
    log_weights : array of shape (k,)
    weights : array of shape (n,), optional
        Frequency weights, float64.
    second : {"full", "diag", "none"}, default="full"
        Second moments as matrices, their diagonals, or none.
    dtype : float32 or float64 of the namespace

    Returns
    -------
    MixtureSums
        float64.

    Notes
    -----
    A row of responsibility below a thousandth of the rounding error adds nothing that a sum
    could hold, and is passed over: the sharper the components, the less work.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.mixture import mixture_sums
    >>> from cmstats.kernels.normal import prepare
    >>> X = np.array([[0.0], [1.0], [9.5]])
    >>> two = prepare(X, np.array([[0.0], [9.0]]), np.ones((2, 1)), "diag")
    >>> sums = mixture_sums(lambda rows: X[rows], 3, two, np.log([0.5, 0.5]), dtype=X.dtype)
    >>> sums.n.round(6).tolist(), sums.first.round(6).ravel().tolist()
    ([2.0, 1.0], [1.0, 0.5])
    """
    if is_numpy(namespace(normals.means)):
        return _numpy(read, n, normals, log_weights, weights, second, dtype)
    k, d = normals.means.shape
    width = k * d if second == "full" else d + k
    total: MixtureSums | None = None
    for rows in row_slices(n, max(256, BLOCK // width)):
        w = None if weights is None else weights[rows]
        block = _namespace_sums(read(rows), normals, log_weights, w, second)
        total = block if total is None else total + block
    assert total is not None
    return total


# ----------------------------------------------------------------------- any namespace
def _namespace_sums(
    X: Array, normals: Normals, log_weights: Array, w: Array | None, second: Second
) -> MixtureSums:
    """The sums of one block, in library calls."""
    xp = namespace(X)
    density, r = normal.evaluate(X, normals, log_weights, True)
    density, r64 = xp.astype(density, xp.float64), xp.astype(r, xp.float64)
    if w is not None:
        density, r64 = density * w, r64 * w[:, None]
    means = xp.astype(normals.means, X.dtype)
    n, log_likelihood = xp.sum(r64, axis=0), float(xp.sum(density))
    if second == "full":
        z = X[None, :, :] - means[:, None, :]
        weighted = z * xp.astype(r64, X.dtype).mT[:, :, None]
        squares = weighted.mT @ z
        first = xp.sum(weighted, axis=1, dtype=xp.float64)
        squares = xp.astype(squares, xp.float64)
        squares = 0.5 * (squares + squares.mT)
        return MixtureSums(log_likelihood, n, first, squares)
    firsts, diagonals = [], []
    for j in range(means.shape[0]):
        z = xp.astype(X - means[j, :], xp.float64)
        firsts.append(r64[:, j] @ z)
        diagonals.append(r64[:, j] @ (z * z) if second == "diag" else None)
    squares = xp.stack(diagonals) if second == "diag" else None
    return MixtureSums(log_likelihood, n, xp.stack(firsts), squares)


# ------------------------------------------------------------------------------- NumPy
def _numpy(
    read: Callable[[slice], Any],
    n: int,
    normals: Normals,
    log_weights: Any,
    weights: Any,
    second: Second,
    dtype: Any,
) -> MixtureSums:
    """Runs of rows side by side; which rows go together does not depend on the timing."""
    k, d = normals.means.shape
    work = n * k * d * (d if second == "full" else 1)
    held = 8 * k * d * d if second == "full" else 0
    # Each thread has sums of its own: as many as 2 GiB hold.
    parts = 1 if work < 2_000_000 else max(1, min(cores(), (2 << 30) // max(1, held)))
    fill, rows = cpu.fill_plan(normals, dtype)
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
        cpu._log_sum_exp(t, density[:m], r[:m])
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


@numba.njit(nogil=True, cache=True, fastmath=EXACT)
def _weigh(X, mean, r, w, least, z, roots):  # type: ignore[no-untyped-def]  # pragma: no cover
    """``sqrt(w r) (x - mean)`` of the rows that count, packed; how many they are."""
    m = 0
    for i in range(X.shape[0]):
        if r[i] > least and w[i] > 0:
            root = X.dtype.type(np.sqrt(w[i] * r[i]))
            roots[m] = root
            for j in range(X.shape[1]):
                z[m, j] = root * (X[i, j] - mean[j])
            m += 1
    return m


@numba.njit(nogil=True, cache=True, fastmath=EXACT)
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
