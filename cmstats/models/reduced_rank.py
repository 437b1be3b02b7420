"""Linear codes in closed form: shrunken principal components and reduced-rank regression.

A `LinearCode` is an encoder and a decoder of one or two blocks of moments, in the units of these
moments, whose components are ordered by what they explain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels import whitening
from cmstats.kernels.linalg import svd
from cmstats.moments.moments import Moments
from cmstats.moments.whitened import Whitened

__all__ = [
    "LinearCode",
    "empty_code",
    "one_view_weights",
    "reduced_rank_regression",
    "shrunken_components",
]


@dataclass(frozen=True)
class LinearCode:
    """An encoder and a decoder.

    Attributes
    ----------
    encode : array of shape (k, p)
    decode : array of shape (q, k)
        Its columns are orthogonal.
    condition : float
        The condition number of what is kept of the data.
    count : int
        The number of components that are not 0: k, or 0 where there is one of zeros.
    rank : int
        The number of components without a penalty.
    white_rank : int or None
        The rank of the encoded block, where it was whitened.
    """

    encode: Array
    decode: Array
    condition: float
    count: int
    rank: int
    white_rank: int | None = None


def empty_code(m: Moments, source: str, sink: str) -> LinearCode:
    """One component of zeros, where nothing varies."""
    xp, device = namespace(m.mean(source)), device_of(m.mean(source))
    encode = xp.zeros((1, m.width(source)), dtype=xp.float64, device=device)
    decode = xp.zeros((m.width(sink), 1), dtype=xp.float64, device=device)
    return LinearCode(encode, decode, 1.0, 0, 0)


def shrunken_components(
    m: Moments, name: str, k: int, *, alpha: float, corruption: float, variance: float
) -> LinearCode:
    """``W_1 = W_2' = diag(sqrt w) U'`` from the eigenvectors of a block's covariance S.

    The loss of the product map ``U diag(w) U'`` is, for each eigenvalue s, ``-2 (1-c) s w +
    w^2 ((1-c)^2 s + c (1-c) v) + 2 alpha w`` with the common variance v of all columns, which
    counts under corruption c only: the least sum of squares of both layers is twice the nuclear
    norm of their product.
    """
    s, U = m.principal(name, k)
    xp, a = namespace(s), 1 - corruption
    rank, count = int(s.shape[0]), int(xp.count_nonzero(a * s > alpha))
    s, U = s[: max(count, 1)], U[:, : max(count, 1)]
    w = (a * s - alpha) / (a * a * s + corruption * a * variance)
    decode = U * xp.sqrt(xp.where(w > 0, w, 0.0))[None, :]
    return LinearCode(decode.mT, decode, float(s[0] / s[-1]) ** 0.5, count, rank)


def reduced_rank_regression(
    m: Moments, source: str, sink: str, k: int, *, alpha: float, corruption: float
) -> LinearCode:
    """Reduced-rank regression of one block on the corrupted other.

    With M = E[x~ x~'] + alpha I, whitened by N, the singular value decomposition
    ``E[t x~'] N = U diag(g) V'`` gives ``W_2 = U`` and ``W_1 = diag(g) V' N'``.
    """
    a, variance = 1 - corruption, m.variance(source, ddof=0)
    xp = namespace(variance)
    # To add to the diagonal of the second moments, which have shrunk to a^2 of themselves.
    added = a * corruption * variance + alpha * xp.astype(variance > 0, xp.float64)
    white = _whitened(m, source, a * a, added)
    cross = a * white.against(sink)
    U, gain, Vt = svd(cross)
    floor = float(gain[0]) * max(cross.shape) * whitening.EPS
    count = min(k, int(xp.count_nonzero(gain > floor)))
    kept = max(count, 1)
    encode = gain[:kept, None] * Vt[:kept, :] @ white.weights.mT
    return LinearCode(encode, U[:, :kept], white.condition, count, count, white.rank)


def _whitened(m: Moments, name: str, keep: float, added: Array) -> Whitened:
    """Whiten ``keep * S + diag(added)``, S the second moments per row of a block."""
    if bool(namespace(added).any(added > 0)):
        return m.whiten(name, keep=keep, ridge=added, ddof=0)
    # Without noise S itself on its range, so that weights are the shortest where not unique.
    white = m.whiten(name, ddof=0)
    if white.rank < m.width(name):
        # These are the shortest in units of standard deviations, for the sake of digits.
        s, U = m.principal(name, white.rank)
        if s.shape[0] == white.rank:
            weights = U / namespace(s).sqrt(s)[None, :]
            return replace(white, factor=replace(white.factor, weights=weights, root=None))
    return white


def one_view_weights(m: Moments, encode: Array, shrinkage: float) -> dict[str, Array]:
    """``E[code | x]`` under the shrunken joint normal: ``C_s,xx^-1 C_s,xz W_1'``, by block."""
    columns, shrunk, found = encode.mT, m.shrunk(shrinkage), {}
    for view in m.names:
        cov = sum(shrunk.project(view, b, columns[m.columns(b), :]) for b in m.names)
        N = shrunk.whiten(view).weights
        found[view] = N @ (N.mT @ cov)
    return found
