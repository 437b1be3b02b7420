"""Linear algebra beyond the array standard: factorisations, leading pairs, blocks, signs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import array_api_compat
import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from cmstats.arrays import Array, device_of, is_numpy, namespace, row_slices

__all__ = [
    "block_diagonal",
    "block_matrix",
    "cholesky",
    "inner",
    "leading_eigenvectors",
    "leading_eigh",
    "leading_pair",
    "leading_svd",
    "not_positive_definite",
    "plus_outer",
    "qr_r",
    "signs",
    "solve_triangular",
    "svd",
    "symmetric_front",
    "try_cholesky",
]

LARGE = 600
"""Smaller blocks are decomposed in full: that takes less than a second."""

KRYLOV = 3000
"""Wider blocks take few components from a Krylov space."""


def solve_triangular(
    factor: Array, b: Array, *, lower: bool = True, transpose: bool = False
) -> Array:
    """The solution of ``factor @ z = b`` (or ``factor.T @ z = b``) for a triangular factor."""
    xp = namespace(factor, b)
    if is_numpy(xp):
        return scipy.linalg.solve_triangular(
            factor, b, lower=lower, trans=int(transpose), check_finite=False
        )
    if array_api_compat.is_torch_namespace(xp):
        a, upper = (factor.mT, lower) if transpose else (factor, not lower)
        return xp.linalg.solve_triangular(a, b, upper=upper)
    if array_api_compat.is_cupy_namespace(xp):
        linalg = _cupyx_linalg()
        return linalg.solve_triangular(factor, b, lower=lower, trans=int(transpose))
    return xp.linalg.solve(factor.mT if transpose else factor, b)


def _cupyx_linalg() -> Any:
    # Imported at the first CuPy array only: without CUDA libraries the import raises.
    if "cupyx.scipy.linalg" not in sys.modules:
        import cupyx.scipy.linalg  # noqa: F401
    return sys.modules["cupyx.scipy.linalg"]


def svd(a: Array) -> tuple[Array, Array, Array]:
    """The thin singular value decomposition ``u * s @ vt``, with two fallbacks.

    LAPACK's divide and conquer has been seen not to converge on finite matrices of real
    data; the transpose is tried next, then QR iteration (gesvd).
    """
    xp = namespace(a)
    if not is_numpy(xp):
        u, s, vt = xp.linalg.svd(a, full_matrices=False)
        return u, s, vt
    if a.shape[1] > 2 * a.shape[0]:  # LAPACK is 2.5 times faster on the tall transpose
        u, s, vt = svd(a.T)
        return vt.T, s, u.T
    with suppress(np.linalg.LinAlgError):
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        return u, s, vt
    with suppress(np.linalg.LinAlgError):
        v, s, ut = np.linalg.svd(a.T, full_matrices=False)
        return ut.T, s, v.T
    u, s, vt = scipy.linalg.svd(a, full_matrices=False, lapack_driver="gesvd", check_finite=False)
    return u, s, vt


def qr_r(a: Array) -> Array:
    """The triangular factor R of ``a = Q R``, at most min(rows, columns) rows."""
    xp = namespace(a)
    if is_numpy(xp):
        return np.linalg.qr(a, mode="r")
    return xp.linalg.qr(a, mode="reduced")[1]


def cholesky(S: Array, name: str = "S") -> Array:
    """The lower triangular L with ``S = L L'``, without the scaling and the rank of `factor`.

    Raises
    ------
    ValueError
        If `S` is not positive definite; the sentence calls it `name`.
    """
    lower = try_cholesky(S)
    if lower is None:
        raise not_positive_definite(name)
    return lower


def not_positive_definite(name: str) -> ValueError:
    """The error for a matrix that has no Cholesky factor."""
    return ValueError(
        f"{name} is not positive definite, so it has no Cholesky factor: drop linearly dependent "
        "columns, add shrinkage, or (in whitening.factor) use method='eigh' for the directions "
        "that vary"
    )


def try_cholesky(C: Array) -> Array | None:
    """The lower Cholesky factor, or None where the matrix is not positive definite."""
    xp = namespace(C)
    if is_numpy(xp):
        lower, info = scipy.linalg.lapack.dpotrf(C, lower=1, clean=1)
        return lower if info == 0 else None
    try:
        lower = xp.linalg.cholesky(C)
    except Exception as error:  # each library has its own class for this
        if "LinAlg" not in type(error).__name__:
            raise
        return None
    # CuPy returns NaN or a half-done factor instead of raising.
    return lower if bool(xp.all(xp.linalg.diagonal(lower) > 0)) else None


def leading_eigh(S: Array, k: int) -> tuple[Array, Array]:
    """The k largest eigenvalues of a symmetric matrix, largest first, and their vectors."""
    xp = namespace(S)
    d = int(S.shape[0])
    if is_numpy(xp) and 0 < 4 * k <= d:
        values, vectors = scipy.linalg.eigh(S, subset_by_index=[d - k, d - 1], check_finite=False)
    else:
        values, vectors = xp.linalg.eigh(S)
    return xp.flip(values)[:k], xp.flip(vectors, axis=1)[:, :k]


def leading_eigenvectors(A: Array, k: int) -> tuple[Array, Array]:
    """The k largest eigenvalues of a symmetric matrix, largest first, and their vectors."""
    xp = namespace(A)
    if is_numpy(xp) and A.shape[0] > 1500 and 0 < 20 * k < A.shape[0]:
        found = _lanczos(A, k)
        if found is not None:
            return found
    return leading_eigh(A, k)


def _lanczos(A: Array, k: int) -> tuple[Array, Array] | None:
    """The k largest eigenpairs for small k, by Lanczos, verified by one Cholesky factorisation.

    None where the iteration did not converge, or missed a copy of a multiple eigenvalue.
    """
    start = np.random.default_rng(0).standard_normal(A.shape[0])  # the same every time
    try:
        values, vectors = scipy.sparse.linalg.eigsh(A, k, which="LA", v0=start, tol=0)
    except scipy.sparse.linalg.ArpackNoConvergence:
        return None
    # Deflated to the smallest eigenvalue found, A must have no eigenvalue above it.
    bound = values[0] + 1e-9
    rest = (vectors * (values - values[0])) @ vectors.T - A
    np.fill_diagonal(rest, np.diag(rest) + bound)
    if scipy.linalg.lapack.dpotrf(rest, lower=1)[1]:
        return None
    return values[::-1], vectors[:, ::-1]


def leading_pair(M: Array) -> tuple[Array, Array, Array]:
    """The leading singular triplet u, s, v of a matrix, of a small one from its Gram matrix.

    The vectors are as accurate as those of an SVD: both depend on the gap of the squares.
    """
    if min(M.shape) > LARGE:
        U, d, Vt = leading_svd(M, 1)
        return U[:, 0], d[0], Vt[0, :]
    xp, tall = namespace(M), M.shape[0] >= M.shape[1]
    M = M if tall else M.mT
    _, V = leading_eigh(M.mT @ M, 1)
    u = M @ V[:, 0]
    s = xp.linalg.vector_norm(u)
    u = u / xp.where(s > 0, s, xp.ones_like(s))
    return (u, s, V[:, 0]) if tall else (V[:, 0], s, u)


def leading_svd(
    M: Array, k: int | None = None, *, large: int = LARGE, rank: float = math.inf
) -> tuple[Array, Array, Array]:
    """The k leading singular triplets ``u, s, vt`` of M, all of them by default.

    Where few are wanted of a matrix that is large in both directions they come from its leading
    subspace, to 1e-10 of the largest singular value; from the full decomposition otherwise. An
    empty matrix has one triplet of zeros. A guess of the rank, such as the number of rows behind a
    cross-covariance, saves time if it is right and small.
    """
    if 0 in M.shape:
        xp, device, (m, n) = namespace(M), device_of(M), M.shape
        return tuple(xp.zeros(s, dtype=M.dtype, device=device) for s in ((m, 1), (1,), (1, n)))
    u, s, vt = _leading(M, k, large, rank) or svd(M)
    k = s.shape[0] if k is None else min(k, s.shape[0])
    return u[:, :k], s[:k], vt[:k, :]


def _leading(
    M: Array, k: int | None, large: int, rank: float = math.inf
) -> tuple[Array, Array, Array] | None:
    """The k leading singular triplets ``u, s, vt`` of M; None where this would not pay.

    The singular value decomposition of M Q for an orthonormal basis Q of leading right vectors:
    those of M'M, or of a block Krylov space where M is so large that they would take longer, or
    of all of M' where the rank is low, from its product with random numbers. Accepted where all
    residuals ``M'u - s v`` are below 1e-10 of the largest s.
    """
    if k is None or min(M.shape) < max(large, 4 * k):
        return None
    if M.shape[0] < M.shape[1]:
        found = _leading(M.mT, k, large, rank)
        if found is None:
            return None
        return found[2].mT, found[1], found[0].mT
    if 4 * (rank + 10) <= M.shape[1]:
        xp, width = namespace(M), int(rank) + 10
        start = np.random.default_rng(0).standard_normal((M.shape[0], width))  # the same every time
        Q, _ = xp.linalg.qr(M.mT @ xp.asarray(start, device=device_of(M)), mode="reduced")
        low = _triplets(M, Q, M @ Q, k)
        if low is not None:
            return low
    if M.shape[1] > KRYLOV and 12 * k <= M.shape[1]:
        return _from_krylov(M, k)
    _, Q = leading_eigh(M.mT @ M, k)
    return _triplets(M, Q, M @ Q, k)


def _triplets(M: Array, Q: Array, MQ: Array, k: int) -> tuple[Array, Array, Array] | None:
    """The k leading triplets of M in the span of Q, where their residuals are small."""
    xp = namespace(M)
    left, R = xp.linalg.qr(MQ, mode="reduced")
    small, s, vt = svd(R)
    u, s = left @ small[:, :k], s[:k]
    v = Q @ vt[:k, :].mT
    return (u, s, v.mT) if _residual(M, u, s, v) <= 1e-10 else None


def _from_krylov(M: Array, k: int) -> tuple[Array, Array, Array] | None:
    """The k leading triplets from span{V, M'M V, (M'M)^2 V, ...}, by block Golub-Kahan.

    The block V has more than k columns so that equal singular values do not hide (Musco and
    Musco 2015); the basis grows to at most half the width of M.
    """
    xp = namespace(M)
    width = M.shape[1]
    start = np.random.default_rng(0).standard_normal((width, k + 10))  # the same every time
    Q, _ = xp.linalg.qr(xp.asarray(start, device=device_of(M)), mode="reduced")
    MQ = M @ Q
    block = MQ
    check = 4 * start.shape[1]
    while Q.shape[1] + start.shape[1] <= width // 2:
        new = M.mT @ block
        for _ in range(2):  # twice is enough (Kahan)
            new = new - Q @ (Q.mT @ new)
            new = _orthonormal(new)
        block = M @ new
        Q, MQ = xp.concat([Q, new], axis=1), xp.concat([MQ, block], axis=1)
        if Q.shape[1] < check:
            continue
        check = int(1.3 * Q.shape[1])  # a decomposition after every step would cost most
        # The Gram matrix has half the digits, which suffices to see that convergence is far.
        _, small = leading_eigh(MQ.mT @ MQ, k)
        v, u = Q @ small, MQ @ small
        s = xp.linalg.vector_norm(u, axis=0)
        if _residual(M, u / xp.where(s > 0, s, 1.0), s, v) <= 1e-9:
            found = _triplets(M, Q, MQ, k)
            if found is not None:
                return found
    return None


def _residual(M: Array, u: Array, s: Array, v: Array) -> float:
    """The largest norm of ``M'u - s v``, in units of the largest s."""
    xp = namespace(M)
    each = xp.linalg.vector_norm(M.mT @ u - v * s, axis=0)
    return float(xp.max(each)) / max(float(s[0]), 1e-300)


def _orthonormal(block: Array) -> Array:
    """An orthonormal basis of a block of few columns, by its Gram matrix where that is well posed.

    To rounding only when applied twice (CholeskyQR2, Yamamoto et al. 2015).
    """
    xp = namespace(block)
    try:
        lower = cholesky(block.mT @ block)
    except ValueError:
        return xp.linalg.qr(block, mode="reduced")[0]
    eye = xp.eye(lower.shape[0], dtype=lower.dtype, device=device_of(lower))
    return block @ solve_triangular(lower, eye).mT


def block_matrix(blocks: Sequence[Sequence[Array]]) -> Array:
    """The matrix composed of rows of blocks."""
    xp = namespace(blocks[0][0])
    return xp.concat([xp.concat(list(row), axis=1) for row in blocks], axis=0)


def block_diagonal(blocks: Sequence[Array]) -> Array:
    """The block-diagonal matrix."""
    xp, device = namespace(blocks[0]), device_of(blocks[0])
    return block_matrix(
        [
            [
                a if i == j else xp.zeros((a.shape[0], b.shape[1]), dtype=xp.float64, device=device)
                for j, b in enumerate(blocks)
            ]
            for i, a in enumerate(blocks)
        ]
    )


def plus_outer(a: Array, left: Array, right: Array) -> Array:
    """``a + left right'``; NumPy's is overwritten, without another matrix of its size."""
    if not is_numpy(namespace(a)):
        return a + left[:, None] * right[None, :]
    for rows in row_slices(a.shape[0], max(1, (1 << 16) // max(1, a.shape[1]))):
        a[rows] += left[rows, None] * right[None, :]
    return a


def symmetric_front(a: Array) -> Array:
    """A matrix (h, d) whose first h columns become exactly symmetric; NumPy's is overwritten."""
    xp, h = namespace(a), a.shape[0]
    square = 0.5 * (a[:, :h] + a[:, :h].mT)
    if is_numpy(xp):
        a[:, :h] = square
        return a
    return xp.concat([square, a[:, h:]], axis=1) if h < a.shape[1] else square


def signs(weights: Array) -> Array:
    """The sign of the largest absolute entry of each column, 1 for a column of zeros; shape (k,).

    Multiplied by these, each column has a positive largest entry: components do not depend on
    the arbitrary sign of a singular vector.
    """
    xp = namespace(weights)
    largest = xp.take_along_axis(weights, xp.argmax(xp.abs(weights), axis=0)[None, :], axis=0)[0, :]
    return xp.where(largest < 0, -xp.ones_like(largest), xp.ones_like(largest))


def inner(u: Array, v: Array) -> Array:
    """The inner products ``u v'`` of all pairs of rows of two arrays of one library and device."""
    namespace(u, v)
    return u @ v.mT
