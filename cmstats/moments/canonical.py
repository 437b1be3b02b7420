"""Two blocks in canonical coordinates: directions, and what a Gaussian says of a pair there.

In the scaling a'S_s a = 1 a pair of variates (u, v) is standard normal with correlation r, and
the pairs are independent (Bach and Jordan 2005).
"""

from __future__ import annotations

import numpy as np

from cmstats.arrays import Array, device_of, leading_eigh, namespace, solve_triangular, svd
from cmstats.kernels import whitening
from cmstats.moments.moments import Moments, Whitened

__all__ = ["directions", "expected_ratio", "latent_mean", "likelihood_vectors", "pairs_of"]

LARGE = 600
"""Smaller blocks are decomposed in full: that takes less than a second."""

KRYLOV = 3000
"""Wider blocks take few components from a Krylov space."""


def directions(whitened: Whitened, k: int | None = None) -> tuple[Array, Array, Array]:
    """Weights and singular values of the whitened cross block, largest first.

    Where few are wanted of a large block they come from its leading subspace, to 1e-10 of the
    largest singular value; from the full decomposition otherwise.

    Returns
    -------
    A : array of shape (p, k)
        With ``A' S_xx A = I``.
    r : array of shape (k,)
        Singular values, before the factor of the cross block's shrinkage.
    B : array of shape (q, k)
    """
    xp = namespace(whitened.cross)
    if 0 in whitened.cross.shape:  # nothing varies: one direction of zeros
        shapes = ((whitened.x.weights.shape[0], 1), (1,), (whitened.y.weights.shape[0], 1))
        device = device_of(whitened.cross)
        A, r, B = (xp.zeros(s, dtype=xp.float64, device=device) for s in shapes)
        return A, r, B
    left, r, right = _leading(whitened.cross, k) or svd(whitened.cross)
    k = r.shape[0] if k is None else min(k, r.shape[0])
    A = xp.matmul(whitened.x.weights, left[:, :k])
    B = xp.matmul(whitened.y.weights, xp.matrix_transpose(right[:k, :]))
    return A, r[:k], B


def pairs_of(C_xy: Array, C_xx: Array, C_yy: Array) -> tuple[Array, Array, Array]:
    """`directions` of two blocks of a covariance matrix."""
    x, y = whitening.factor(C_xx), whitening.factor(C_yy)
    xp = namespace(C_xy)
    cross = xp.matmul(xp.matmul(xp.matrix_transpose(x.weights), C_xy), y.weights)
    return directions(Whitened(x, y, cross))


def _leading(M: Array, k: int | None) -> tuple[Array, Array, Array] | None:
    """The k leading singular triplets ``u, s, vt`` of M; None where this would not pay.

    The singular value decomposition of M Q for an orthonormal basis Q of leading right vectors:
    those of M'M, or of a block Krylov space where M is so large that they would take longer.
    Accepted where all residuals ``M'u - s v`` are below 1e-10 of the largest s.
    """
    if k is None or min(M.shape) < max(LARGE, 4 * k):
        return None
    xp = namespace(M)
    if M.shape[0] < M.shape[1]:
        found = _leading(xp.matrix_transpose(M), k)
        if found is None:
            return None
        return xp.matrix_transpose(found[2]), found[1], xp.matrix_transpose(found[0])
    if M.shape[1] > KRYLOV and 12 * k <= M.shape[1]:
        return _from_krylov(M, k)
    _, Q = leading_eigh(xp.matmul(xp.matrix_transpose(M), M), k)
    return _triplets(M, Q, xp.matmul(M, Q), k)


def _triplets(M: Array, Q: Array, MQ: Array, k: int) -> tuple[Array, Array, Array] | None:
    """The k leading triplets of M in the span of Q, where their residuals are small."""
    xp = namespace(M)
    left, R = xp.linalg.qr(MQ, mode="reduced")
    small, s, vt = svd(R)
    u, s = xp.matmul(left, small[:, :k]), s[:k]
    v = xp.matmul(Q, xp.matrix_transpose(vt[:k, :]))
    return (u, s, xp.matrix_transpose(v)) if _residual(M, u, s, v) <= 1e-10 else None


def _from_krylov(M: Array, k: int) -> tuple[Array, Array, Array] | None:
    """The k leading triplets from span{V, M'M V, (M'M)^2 V, ...}, by block Golub-Kahan.

    The block V has more than k columns so that equal singular values do not hide (Musco and
    Musco 2015); the basis grows to at most half the width of M.
    """
    xp = namespace(M)
    width = M.shape[1]
    start = np.random.default_rng(0).standard_normal((width, k + 10))  # the same every time
    Q, _ = xp.linalg.qr(xp.asarray(start, device=device_of(M)), mode="reduced")
    MQ = xp.matmul(M, Q)
    block = MQ
    check = 4 * start.shape[1]
    while Q.shape[1] + start.shape[1] <= width // 2:
        new = xp.matmul(xp.matrix_transpose(M), block)
        for _ in range(2):  # twice is enough (Kahan)
            new = new - xp.matmul(Q, xp.matmul(xp.matrix_transpose(Q), new))
            new = _orthonormal(new)
        block = xp.matmul(M, new)
        Q, MQ = xp.concat([Q, new], axis=1), xp.concat([MQ, block], axis=1)
        if Q.shape[1] < check:
            continue
        check = int(1.3 * Q.shape[1])  # a decomposition after every step would cost most
        # The Gram matrix halves the digits, and is enough to tell that it is too early.
        _, small = leading_eigh(xp.matmul(xp.matrix_transpose(MQ), MQ), k)
        v, u = xp.matmul(Q, small), xp.matmul(MQ, small)
        s = xp.linalg.vector_norm(u, axis=0)
        if _residual(M, u / xp.where(s > 0, s, 1.0), s, v) <= 1e-9:
            found = _triplets(M, Q, MQ, k)
            if found is not None:
                return found
    return None


def _residual(M: Array, u: Array, s: Array, v: Array) -> float:
    """The largest norm of ``M'u - s v``, in units of the largest s."""
    xp = namespace(M)
    each = xp.linalg.vector_norm(xp.matmul(xp.matrix_transpose(M), u) - v * s, axis=0)
    return float(xp.max(each)) / max(float(s[0]), 1e-300)


def _orthonormal(block: Array) -> Array:
    """An orthonormal basis of a block of few columns, by its Gram matrix where that is well posed.

    To rounding only when applied twice (CholeskyQR2, Yamamoto et al. 2015).
    """
    xp = namespace(block)
    try:
        lower = whitening.cholesky(xp.matmul(xp.matrix_transpose(block), block))
    except ValueError:
        return xp.linalg.qr(block, mode="reduced")[0]
    eye = xp.eye(lower.shape[0], dtype=lower.dtype, device=device_of(lower))
    return xp.matmul(block, xp.matrix_transpose(solve_triangular(lower, eye)))


def likelihood_vectors(a: Array, r: Array, *, is_x: bool) -> Array:
    """Vectors whose inner product is log p(x, y) - log p(x) - log p(y).

    The sum over pairs of ``[r u v - r^2 (u^2 + v^2) / 2] / (1 - r^2) - log(1 - r^2) / 2``.

    Parameters
    ----------
    a : array of shape (n, k)
        The canonical coordinates of one view.
    r : array of shape (k,)
        Their correlations.
    is_x : bool
        Which view it is: the other has its own term on the other side.

    Returns
    -------
    array of shape (n, k + 2)
    """
    xp = namespace(a)
    # Identical views have no density ratio; in single precision its terms cancel sooner.
    r = xp.clip(r, 0.0, 1 - (1e-12 if a.dtype == xp.float64 else 1e-6))
    gain = r / (1 - r * r)
    constant = -0.25 * float(xp.sum(xp.log1p(-r * r)))
    own = xp.matmul(a * a, xp.astype(-0.5 * r * gain, a.dtype))[:, None] + constant
    parts = [a * xp.astype(xp.sqrt(gain), a.dtype)]
    parts += [own, xp.ones_like(own)] if is_x else [xp.ones_like(own), own]
    return xp.concat(parts, axis=1)


def expected_ratio(
    moments: Moments, x: tuple[Array, Array], y: tuple[Array, Array], r: Array
) -> float:
    """The mean of log p(x, y) - log p(x) - log p(y) over rows with these moments.

    A matter of E[uv], E[u^2] and E[v^2] of each pair of canonical coordinates.

    Parameters
    ----------
    moments : Moments
    x, y : weights with a'S_s a = 1, and the mean they are taken about, of each view
    r : array of shape (k,)
        The correlations of the pairs under the model.
    """
    xp = namespace(r)
    shifts, squares = [], []
    for view, (weights, mean) in (("x", x), ("y", y)):
        shifts.append(xp.matmul(moments.mean(view) - mean, weights))
        S = moments.projected_scatter(view, view, weights)
        squares.append(xp.sum(weights * S, axis=0) / moments.n + shifts[-1] ** 2)
    S = moments.projected_scatter("x", "y", y[0])
    product = xp.sum(x[0] * S, axis=0) / moments.n + shifts[0] * shifts[1]
    r = xp.clip(r, 0.0, 1 - 1e-12)
    each = (r * product - 0.5 * r * r * (squares[0] + squares[1])) / (1 - r * r)
    return float(xp.sum(each - 0.5 * xp.log1p(-r * r)))


def latent_mean(u: Array | None, v: Array | None, r: Array) -> Array:
    """The posterior mean of the shared latent given the coordinates of one view or both.

    With ``u = sqrt(r) z + noise``, ``v = sqrt(r) z + noise`` of unit variance and a standard
    normal z: E[z | u] = sqrt(r) u and E[z | u, v] = sqrt(r) / (1 + r) (u + v).
    """
    given = u if u is not None else v
    assert given is not None
    xp = namespace(given)
    r = xp.astype(r, given.dtype)
    if u is None or v is None:
        return given * xp.sqrt(r)
    if u.shape[0] != v.shape[0]:
        raise ValueError(f"X has {u.shape[0]} rows and y {v.shape[0]}: row i is one item")
    return (u + v) * (xp.sqrt(r) / (1 + r))
