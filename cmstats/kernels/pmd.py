"""The penalised matrix decomposition, by power iterations with thresholds."""

from __future__ import annotations

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels.linalg import leading_eigh

__all__ = ["penalised_pairs"]


def penalised_pairs(
    K: Array, k: int, bounds: tuple[float, float], *, tol: float = 1e-6, max_iter: int = 200
) -> tuple[Array, Array, Array, bool, int]:
    """Rank-one factors u'Kv under |u|_2 <= 1, |u|_1 <= c_x, and the same of v, one by one.

    The penalised matrix decomposition PMD(L1, L1) of Witten, Tibshirani and Hastie (2009): u and v
    in turn are thresholded products at unit length, with the least threshold that satisfies the
    bound; then K is deflated by ``(u'Kv) u v'``.

    Parameters
    ----------
    K : array of shape (p, q)
    k : int
    bounds : pair of float
        c_x and c_y, at least 1.
    tol, max_iter
        The change of v, in the l1 norm, at which the steps end, and their largest number.

    Returns
    -------
    U, V : arrays of shape (p, k), (q, k)
        Fewer columns where nothing is left; one column of zeros where there was nothing.
    d : array of shape (k,)
    converged : bool
        Of all factors.
    steps : int
        The largest number of steps of a factor.
    """
    xp = namespace(K)
    found: list[tuple[Array, Array, Array]] = []
    done, first, steps = True, None, 1
    for _ in range(k):
        square, vectors = leading_eigh(K.mT @ K, 1)
        first = float(square[0]) if first is None else first
        if not float(square[0]) > 1e-20 * first:
            break
        v = vectors[:, 0]
        converged = False
        for count in range(1, max_iter + 1):
            steps = max(steps, count)
            u = _bounded(K @ v, bounds[0])
            new = _bounded(K.mT @ u, bounds[1])
            converged = float(xp.sum(xp.abs(new - v))) <= tol
            v = new
            if converged:
                break
        done = done and converged
        d = u @ K @ v
        found.append((u, v, d))
        K = K - d * u[:, None] * v[None, :]
    if not found:
        return 0 * K[:, :1], 0 * K.mT[:, :1], 0 * K[0, :1], done, steps
    U, V, D = (xp.stack(each, axis=-1) for each in zip(*found, strict=True))
    return U, V, D, done, steps


def _bounded(a: Array, c: float) -> Array:
    """a, thresholded as little as makes its l1 norm at most c times its length, at unit length.

    With the k largest entries left, of mean m and variance w, the threshold is
    ``m - c sqrt(w / (k - c^2))``; it lies between the entries k and k + 1 for one k.
    """
    xp = namespace(a)
    size, length = xp.abs(a), float(a @ a) ** 0.5
    if not length > 0:
        return a
    if float(xp.sum(size)) <= c * length * (1 + 1e-12):
        return a / length
    b = xp.flip(xp.sort(size))
    count = xp.cumulative_sum(xp.ones_like(b))
    mean = xp.cumulative_sum(b) / count
    spread = xp.abs(xp.cumulative_sum(b * b) / count - mean * mean)  # not below 0 by rounding
    below = mean - xp.concat([b[1:], 0 * b[:1]])  # m less the threshold at the next entry
    ratio = count * below - c * xp.sqrt(count * (spread + below * below))
    k = int(xp.argmax(xp.astype(ratio > 1e-12 * c * b[0], xp.int8)))
    gap = float(count[k]) - c * c
    left = c * (float(spread[k]) / gap) ** 0.5 if gap > 0 else 0.0
    over = size - (float(mean[k]) - left)
    s = xp.sign(a) * xp.where(over > 1e-12 * b[0], over, 0 * over)
    norm = float(s @ s) ** 0.5
    if norm > 1e-9 * length:
        return s / norm
    # Equal entries that no threshold separates: the first of them.
    at = xp.arange(a.shape[0], device=device_of(a)) == xp.argmax(size)
    return xp.where(at, xp.sign(a), 0 * a)
