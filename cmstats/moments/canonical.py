"""Canonical coordinates of two blocks: directions, likelihood ratio of a pair, latent mean.

In the scaling a'S_s a = 1 a pair of variates (u, v) is standard normal with correlation r, and
the pairs are independent (Bach and Jordan 2005).
"""

from __future__ import annotations

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels import whitening
from cmstats.kernels.linalg import leading_svd
from cmstats.moments.moments import Moments, WhitenedPair

__all__ = ["directions", "expected_ratio", "latent_mean", "likelihood_vectors", "pairs_of"]


def directions(whitened: WhitenedPair, k: int | None = None) -> tuple[Array, Array, Array]:
    """Weights and singular values of the whitened cross block, largest first.

    A few directions of a large block come from its leading singular subspace, to 1e-10 of the
    largest singular value; all others from the full decomposition.

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
    left, r, right = leading_svd(whitened.cross, k)
    k = r.shape[0] if k is None else min(k, r.shape[0])
    A = whitened.x.weights @ left[:, :k]
    B = whitened.y.weights @ right[:k, :].mT
    return A, r[:k], B


def pairs_of(C_xy: Array, C_xx: Array, C_yy: Array) -> tuple[Array, Array, Array]:
    """`directions` of two blocks of a covariance matrix."""
    x, y = whitening.factor(C_xx), whitening.factor(C_yy)
    cross = x.weights.mT @ C_xy @ y.weights
    return directions(WhitenedPair(x, y, cross))


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
        Whether the coordinates are those of x: the constant terms of x and y stand on
        opposite sides of the inner product.

    Returns
    -------
    array of shape (n, k + 2)
    """
    xp = namespace(a)
    # Identical views have no density ratio; in single precision its terms cancel sooner.
    r = xp.clip(r, 0.0, 1 - (1e-12 if a.dtype == xp.float64 else 1e-6))
    gain = r / (1 - r * r)
    constant = -0.25 * float(xp.sum(xp.log1p(-r * r)))
    own = (a * a @ xp.astype(-0.5 * r * gain, a.dtype))[:, None] + constant
    parts = [a * xp.astype(xp.sqrt(gain), a.dtype)]
    parts += [own, xp.ones_like(own)] if is_x else [xp.ones_like(own), own]
    return xp.concat(parts, axis=1)


def expected_ratio(
    moments: Moments, x: tuple[Array, Array], y: tuple[Array, Array], r: Array
) -> float:
    """The mean of log p(x, y) - log p(x) - log p(y) over rows with these moments.

    It follows from E[uv], E[u^2] and E[v^2] of each pair of canonical coordinates.

    Parameters
    ----------
    moments : Moments
    x, y : pairs of arrays
        Weights with a'S_s a = 1 and the mean of each view.
    r : array of shape (k,)
        The correlations of the pairs under the model.
    """
    xp = namespace(r)
    shifts, squares = [], []
    for view, (weights, mean) in (("x", x), ("y", y)):
        shifts.append((moments.mean(view) - mean) @ weights)
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
