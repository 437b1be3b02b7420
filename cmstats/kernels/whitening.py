"""Whitening: factor a covariance matrix once, apply the factor to many rows.

The choice between Cholesky and a rank-revealing eigendecomposition, and the tolerance of the
numerical rank, are defined here only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg

from cmstats.arrays import (
    Array,
    check_matrix,
    device_of,
    float64,
    is_numpy,
    namespace,
    result_dtype,
)
from cmstats.kernels.linalg import (
    cholesky,
    not_positive_definite,
    solve_triangular,
    svd,
    try_cholesky,
)

__all__ = ["Factor", "cholesky", "factor", "factor_root"]

EPS = 2.220446049250313e-16


@dataclass(frozen=True)
class Factor:
    """Whitening weights W of a covariance matrix S: ``W' S W = I`` on the range of S.

    Attributes
    ----------
    weights : array of shape (d, rank)
        W, float64.
    rank : int
        Numerical rank of S.
    log_determinant : float
        log det S, on the range of S where the rank is deficient.
    condition : float
        An estimate of the condition number of the column-normalised data behind S, that is
        the square root of the condition number of the correlation matrix; infinity where
        the rank is deficient.
    method : str
        "cholesky", "eigh", "zca" or "svd".
    root : array of shape (m, rank) or None
        The whitened root, ``R @ weights`` for S = R'R, when the factor came from a root.
    """

    weights: Array
    rank: int
    log_determinant: float
    condition: float
    method: str
    root: Array | None = None

    def apply(self, A: Array) -> Array:
        """Whitened rows ``A @ W``, shape (n, rank), in the precision of `A`.

        `A` must be centred already (or its mean taken off the result, ``A @ W - mean @ W``).
        """
        xp = namespace(A, self.weights)
        if A.ndim != 2 or A.shape[1] != self.weights.shape[0]:
            raise ValueError(
                f"A has shape {tuple(A.shape)}, but the factor is of a matrix of "
                f"{self.weights.shape[0]} columns: pass rows of that width"
            )
        dtype = result_dtype(A)
        return xp.astype(A, dtype, copy=False) @ xp.astype(self.weights, dtype)


def factor(S: Array, *, method: Literal["auto", "cholesky", "eigh", "zca"] = "auto") -> Factor:
    """Factor a covariance (or scatter) matrix for whitening.

    Parameters
    ----------
    S : array of shape (d, d)
        Symmetric positive semi-definite. Only symmetry up to rounding is assumed.
    method : {"auto", "cholesky", "eigh", "zca"}, default="auto"
        "cholesky" gives W = L^-T with S = LL'; "eigh" gives W = V diag(l)^-1/2 in the
        directions of positive variance; "zca" the symmetric inverse square root
        V diag(l)^-1/2 V' (Kessy, Lewin and Strimmer 2018), nearest to the identity. "auto"
        is Cholesky, and eigh where S is numerically singular.

    Returns
    -------
    Factor
        With ``.apply(A)``.

    Raises
    ------
    ValueError
        If `S` is not square, holds values that are not finite, has a negative variance, or
        is not positive definite and `method` is "cholesky".

    Notes
    -----
    Columns are scaled to unit variance before anything else, so that a mere difference of
    units costs no digits (van der Sluis 1969). An eigenvalue of the scaled matrix counts as
    zero at or below d * eps times the largest.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.whitening import factor
    >>> S = np.array([[4.0, 2.0], [2.0, 3.0]])
    >>> W = factor(S).weights
    >>> np.allclose(W.T @ S @ W, np.eye(2))
    True
    """
    S = check_matrix(S, "S")
    xp = namespace(S)
    d = S.shape[0]
    if S.shape != (d, d):
        raise ValueError(f"S must be square, got shape {tuple(S.shape)}")
    if method not in ("auto", "cholesky", "eigh", "zca"):
        raise ValueError(f"method must be 'auto', 'cholesky', 'eigh' or 'zca', got {method!r}")
    S = float64(S)
    variance = xp.linalg.diagonal(S)
    if bool(xp.any(variance < 0)):
        raise ValueError("S has a negative variance on its diagonal: it is no covariance matrix")
    if method == "zca":
        return _zca(S)
    positive = variance > 0
    rank = int(xp.count_nonzero(positive))
    some = variance if rank == d else xp.where(positive, variance, 1.0)
    unit = 1 / xp.sqrt(some)
    unit = unit if rank == d else xp.where(positive, unit, 0.0)
    C = S * unit[:, None] * unit[None, :]
    if method != "eigh":
        # A constant column gets a 1 on the diagonal, and is dropped from the weights.
        full = C
        if rank < d:
            apart = xp.astype(~positive, xp.float64)
            full = C + apart[:, None] * xp.eye(d, dtype=xp.float64, device=device_of(S))
        lower = try_cholesky(full)
        if lower is not None and (rank == d or method == "auto"):
            inverse = _triangular_inverse(lower)
            # ||C^-1||_1 <= sqrt(d) ||C^-1||_F <= sqrt(d) tr(C^-1) = sqrt(d) ||L^-1||_F^2
            condition = float(_norm1(C) * xp.sum(inverse**2)) ** 0.5
            if method == "cholesky" or condition**2 * d * EPS < 1:
                weights = unit[:, None] * inverse.mT
                if rank < d:
                    weights = xp.take(weights, xp.nonzero(positive)[0], axis=1)
                logdet = 2 * xp.sum(xp.log(xp.linalg.diagonal(lower))) + xp.sum(xp.log(some))
                return Factor(weights, rank, float(logdet), condition, "cholesky")
    if method == "cholesky":
        raise not_positive_definite("S")
    return _eigh(C, unit)


def _norm1(C: Array) -> Array:
    xp = namespace(C)
    return xp.max(xp.sum(xp.abs(C), axis=0))


def _triangular_inverse(lower: Array) -> Array:
    xp = namespace(lower)
    if is_numpy(xp):  # a third of the operations of solving for every unit vector
        return scipy.linalg.lapack.dtrtri(lower, lower=1)[0]
    d = lower.shape[0]
    return solve_triangular(lower, xp.eye(d, dtype=xp.float64, device=device_of(lower)))


def _eigh(C: Array, unit: Array) -> Factor:
    xp = namespace(C)
    values, vectors, condition = _range_eigh(C)
    weights = unit[:, None] * vectors / xp.sqrt(values)[None, :]
    varying = xp.where(unit > 0, unit, 1.0)
    logdet = xp.sum(xp.log(values)) - 2 * xp.sum(xp.log(varying))
    return Factor(weights, int(values.shape[0]), float(logdet), condition, "eigh")


def _zca(S: Array) -> Factor:
    xp = namespace(S)
    values, vectors, condition = _range_eigh(S)
    weights = vectors / xp.sqrt(values)[None, :] @ vectors.mT
    logdet = xp.sum(xp.log(values))
    return Factor(weights, int(values.shape[0]), float(logdet), condition, "zca")


def _range_eigh(S: Array) -> tuple[Array, Array, float]:
    """The eigenvalues and eigenvectors on the range of S, and `Factor.condition`."""
    xp = namespace(S)
    values, vectors = xp.linalg.eigh(S)
    start = int(xp.count_nonzero(~(values > values[-1] * (S.shape[0] * EPS))))
    values, vectors = values[start:], vectors[:, start:]
    condition = float("inf") if start else float((values[-1] / values[0]) ** 0.5)
    return values, vectors, condition


def factor_root(
    R: Array, *, keep: float = 1.0, ridge: float = 0.0, noise: Array | None = None
) -> Factor:
    """Whiten ``keep * R'R + ridge * I`` from the root R, never forming the product.

    Parameters
    ----------
    R : array of shape (m, d)
        Any root of the covariance matrix: S = R'R.
    keep, ridge : float
        The coefficients; with a ridge the weights are those on the range of R'R, which is
        where rows of data lie.
    noise : array of shape (d,), optional
        The variance of what is only error in each column of R'R: without a ridge a direction of
        no more variance is left out.

    Returns
    -------
    Factor
        With `root` = R @ weights, accurate in relative terms (not computed as a product).

    Notes
    -----
    The thin SVD R = U diag(s) V' gives W = V diag(keep s^2 + ridge)^-1/2. The relative error
    is about eps * cond(R), where a factorisation of R'R has eps * cond(R)^2.
    """
    xp = namespace(R)
    m, d = R.shape
    # Without a ridge any scaling of the columns is free; with one it would change the model.
    norms = xp.sqrt(xp.sum(R * R, axis=0))
    positive = norms > 0
    norms = xp.where(positive, norms, 1.0)
    unit = xp.astype(positive, xp.float64)  # exactly no weight where nothing varies
    unit = unit / norms if ridge == 0 else unit
    u, s, vt = svd(R * unit[None, :])
    top = s[0] if s.shape[0] else 0.0
    rank = int(xp.count_nonzero(s > top * (max(m, d) * EPS)))
    if noise is not None and ridge == 0:
        rank = min(rank, int(xp.count_nonzero(s * s > (vt * vt) @ (noise * unit**2))))
    u, s, vt = u[:, :rank], s[:rank], vt[:rank, :]
    scale = xp.sqrt(keep * s * s + ridge)
    weights = unit[:, None] * vt.mT / scale[None, :]
    full = rank == d and rank > 0
    condition = float(s[0] / s[-1]) if full else float("inf")
    logdet = float(2 * xp.sum(xp.log(scale)))
    logdet += 2 * float(xp.sum(xp.log(xp.where(positive, norms, 1.0)))) if ridge == 0 else 0.0
    logdet += (d - rank) * float(np.log(ridge)) if ridge > 0 else 0.0
    return Factor(weights, rank, logdet, condition, "svd", u * (s / scale)[None, :])
