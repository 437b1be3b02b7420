"""Landmarks of a kernel: which rows to take, and an orthonormal basis of their span."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from sklearn.cluster import KMeans

from cmstats.arrays import (
    Array,
    as_counts,
    device_of,
    is_numpy,
    namespace,
    recorded,
    result_dtype,
    to_numpy,
)
from cmstats.kernels import whitening
from cmstats.kernels.linalg import cholesky, leading_eigh, solve_triangular
from cmstats.kernels.threads import openmp

__all__ = [
    "Weights",
    "centres",
    "cholesky_basis",
    "draw",
    "draw_repeated",
    "not_semidefinite",
    "random_pivots",
    "triangular",
    "triangular_dual",
]

Weights = np.ndarray[Any, Any] | None
"""Frequency weights of the rows; None for a weight of 1 each."""

PROJECTED = 48
"""Principal directions in which k-means compares rows."""


def draw(
    n: int, m: int, rng: np.random.RandomState, weights: Weights = None
) -> np.ndarray[Any, Any]:
    """At most m of n rows without replacement, in order; weight 2 is the row twice.

    With weights at most m draws from the repeated rows: rows of weight 0 never come.
    """
    if weights is None:
        return np.arange(n) if m >= n else np.sort(rng.choice(n, m, replace=False))
    present = np.flatnonzero(weights)
    if m >= present.size:
        return present
    p = weights[present] / weights.sum()
    return np.sort(rng.choice(present, m, replace=False, p=p))


def draw_repeated(
    n: int, m: int, rng: np.random.RandomState, weights: Weights
) -> np.ndarray[Any, Any]:
    """At most m rows, one of weight 2 as often as two rows."""
    if weights is None:
        return draw(n, m, rng)
    weights = as_counts(weights)
    count = max(2, round(weights.sum()))
    at = (np.arange(count) + 0.5) / count if count <= m else np.sort(rng.uniform(size=m))
    found: np.ndarray[Any, Any] = np.searchsorted(np.cumsum(weights), at * weights.sum())
    return found


def triangular(L: Array, columns: Array) -> Array:
    """``columns @ L^-T``: row by row the solution of L z = k."""
    xp = namespace(columns)
    turned = columns.mT
    return solve_triangular(xp.astype(L, columns.dtype), turned).mT


def triangular_dual(L: Array, mean: Array, weights: Array) -> tuple[Array, Array]:
    """``(L^-1 k - mean)' weights = (k - L mean)' (L^-T weights)``."""
    return L @ mean, solve_triangular(L, weights, transpose=True)


def cholesky_basis(K: Array, eps: float, kernel: Any) -> tuple[Array, Array, Array]:
    """An orthonormal basis of the span of kernel functions.

    Returns
    -------
    kept : int array of shape (r,)
        Independent functions, in the order of the factor.
    L : array of shape (r, r)
        The lower triangular factor of their kernel matrix.
    F : array of shape (m, r)
        Coordinates of all functions: K = F F' up to rounding.

    Raises
    ------
    ValueError
        If `K` has negative eigenvalues beyond rounding.
    """
    xp = namespace(K)
    m = int(K.shape[0])
    diagonal = xp.linalg.diagonal(K)
    top = float(xp.max(diagonal))
    tolerance = m * eps * top
    try:
        L = cholesky(K)
        if float(xp.min(xp.linalg.diagonal(L))) ** 2 > tolerance:
            return xp.arange(m, device=device_of(K)), L, L
    except ValueError:
        pass
    # Rare and small enough for the host, whose LAPACK has the pivoted factorisation.
    kept, L, F = _pivoted_cholesky(to_numpy(K), max(tolerance, 0.0))
    host = to_numpy(K)
    # What is left of a matrix with a negative eigenvalue has one too, which any vector shows.
    signs = np.random.default_rng(0).choice([-1.0, 1.0], m) / m**0.5
    rest = float(np.linalg.norm(host @ signs - F @ (F.T @ signs)))
    largest = float(np.abs(host).max())
    if rest > 10 * m * max(tolerance, m * whitening.EPS * largest):
        raise not_semidefinite(kernel, rest / largest)
    if is_numpy(xp):
        return kept, L, F
    a, b, c = (xp.asarray(v, device=device_of(K)) for v in (kept, L, F))
    return a, b, c


def _pivoted_cholesky(
    K: np.ndarray[Any, Any], tolerance: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    c, pivots, rank, _ = scipy.linalg.lapack.dpstrf(K, tol=tolerance, lower=1)
    if rank == 0 or not K.diagonal().max() > 0:  # no function but zero: one column of zeros
        return np.zeros(1, dtype=np.int64), np.ones((1, 1)), np.zeros((K.shape[0], 1))
    lower = np.tril(c)[:, :rank]
    F = np.empty_like(lower, order="C")
    F[pivots - 1] = lower
    return (pivots[:rank] - 1).astype(np.int64), np.ascontiguousarray(lower[:rank]), F


def not_semidefinite(kernel: Any, share: float) -> ValueError:
    """The error for a kernel whose matrix has a negative eigenvalue."""
    name = kernel if isinstance(kernel, str) else getattr(kernel, "__name__", "callable")
    return ValueError(
        f"the {name} kernel is not positive semi-definite on these rows (a part of about "
        f"{share:.1g} of its largest value is negative), so it is no inner product: use another "
        "kernel (rbf, laplacian, chi2, polynomial of a whole degree with coef0 >= 0) or parameters"
    )


def centres(pool: Array, m: int, rng: np.random.RandomState) -> Array:
    """Centres of a few steps of Lloyd's algorithm; they need not converge to be landmarks.

    Rows are assigned by their distances in the leading principal directions, for 48 / d of the
    operations: what is left out hardly moves an assignment (Cohen et al. 2015, Dimensionality
    reduction for k-means clustering). The centres are means of whole rows.
    """
    if pool.shape[0] <= m:
        return pool
    xp = namespace(pool)
    host = to_numpy(pool)
    host = host.astype(np.float64 if result_dtype(host) == np.float64 else np.float32, copy=False)
    with recorded(), openmp():  # of fewer distinct rows than centres
        found = KMeans(m, init="random", n_init=1, max_iter=10, random_state=rng)
        labels = found.fit_predict(_leading_directions(host, PROJECTED))
    members = scipy.sparse.csr_array(
        (np.ones(len(labels), dtype=host.dtype), (labels, np.arange(len(labels)))),
        shape=(m, len(labels)),
    )
    counts = members.sum(axis=1)
    centres = ((members @ host)[counts > 0] / counts[counts > 0, None]).astype(host.dtype)
    return centres if is_numpy(xp) else xp.asarray(centres, device=device_of(pool))


def _leading_directions(rows: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """Rows in their k leading principal directions; as they are where there are no more."""
    if rows.shape[1] <= k:
        return rows
    centred = rows - rows.mean(axis=0)
    _, vectors = leading_eigh((centred.T @ centred).astype(np.float64), k)
    leading: np.ndarray[Any, Any] = centred @ vectors.astype(rows.dtype)
    return leading


def random_pivots(
    block: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
    diagonal: np.ndarray[Any, Any],
    m: int,
    rng: np.random.RandomState,
) -> np.ndarray[Any, Any]:
    """Positions drawn by randomly pivoted Cholesky, in blocks with rejection.

    A block of candidates is drawn in proportion to the squared distances at its start; one
    whose distance has meanwhile shrunk to a share of that is kept with that probability
    (Epperly, Tropp and Webber 2024), so the draws are those of one at a time.
    """
    n, size = diagonal.size, int(np.clip(m // 10, 1, 512))
    F = np.zeros((m, n))
    d, total, chosen = np.maximum(diagonal, 0.0), float(diagonal.sum()), 0
    pivots: list[int] = []
    while chosen < m and d.sum() > 1e-12 * total:
        drawn = rng.choice(n, size, p=d / d.sum())
        residual = block(drawn) - F[:chosen, drawn].T @ F[:chosen]
        H = residual[:, drawn]
        start = np.diagonal(H).copy()
        accepted: list[int] = []
        for i in range(size):
            if chosen + len(accepted) < m and H[i, i] > max(1e-10, rng.uniform()) * start[i] > 0:
                accepted.append(i)
                H = H - H[:, i : i + 1] * (H[i : i + 1] / H[i, i])
        if not accepted:  # only rounding is left
            break
        rows = residual[accepted]
        at = drawn[accepted]
        L = scipy.linalg.cholesky(rows[:, at] + 1e-14 * total / n * np.eye(at.size), lower=True)
        F[chosen : chosen + at.size] = scipy.linalg.solve_triangular(L, rows, lower=True)
        d = np.maximum(d - (F[chosen : chosen + at.size] ** 2).sum(axis=0), 0.0)
        d[at] = 0.0
        pivots += at.tolist()
        chosen += at.size
    return np.array(pivots if pivots else [0])
