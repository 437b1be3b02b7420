"""The steps of penalised matrix decompositions, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmstats.kernels._cpu._jit import FAST, jit

__all__ = ["largest_factor"]

NEAR = 0.1
"""The distance, in the l1 norm, to the end of another start within which both end alike."""


@jit(fastmath=FAST)
def _product(M: Any, a: Any, found: Any) -> None:
    """M'a, of which a is sparse."""
    found[:] = 0.0
    for i in range(a.shape[0]):
        if a[i] != 0.0:
            for j in range(found.shape[0]):
                found[j] += a[i] * M[i, j]


@jit(fastmath=FAST)
def _threshold(size: Any, c: float) -> float:
    """The threshold of rising sizes that makes their l1 norm c times their length.

    With the k largest left, of mean m and variance w, it is ``m - c sqrt(w / (k - c^2))``, which
    lies between the sizes k and k + 1 for one k.
    """
    p, total, squares = size.shape[0], 0.0, 0.0
    for k in range(1, p + 1):
        total += size[p - k]
        squares += size[p - k] ** 2
        mean = total / k
        spread = squares / k - mean * mean
        if spread < 1e-14 * mean * mean:  # equal but for rounding
            spread = 0.0
        below = mean - (size[p - k - 1] if k < p else 0.0)  # m less the threshold at the next
        if k * below - c * (k * (spread + below * below)) ** 0.5 > 1e-12 * c * size[p - 1]:
            gap = k - c * c
            threshold: float = mean - (c * (spread / gap) ** 0.5 if gap > 0.0 else 0.0)
            return threshold
    return 0.0


@jit(fastmath=FAST)
def _below(size: Any, c: float, top: float) -> float:
    """A number below the threshold: most entries are below it too and need not be sorted.

    The l1 norm over the length falls with the threshold, so that it is above c there.
    """
    low = 0.5 * top
    while low > 1e-3 * top:
        total, squares = 0.0, 0.0
        for i in range(size.shape[0]):
            over = max(size[i] - low, 0.0)
            total += over
            squares += over * over
        if total > c * squares**0.5 * (1 + 1e-9):
            return low
        low *= 0.5
    return 0.0


@jit(fastmath=FAST)
def _bound(a: Any, c: float) -> None:
    """Threshold a as little as makes its l1 norm at most c times its length; scale it to unit."""
    p, length, total, largest = a.shape[0], 0.0, 0.0, 0
    size = np.abs(a)
    for i in range(p):
        length += size[i] * size[i]
        total += size[i]
        largest = i if size[i] > size[largest] else largest
    length = length**0.5
    if not length > 0.0:
        return
    threshold, norm = 0.0, length
    if total > c * length * (1 + 1e-12):
        top = size[largest]
        threshold, norm = _threshold(np.sort(size[size > _below(size, c, top)]), c), 0.0
        for i in range(p):
            over = size[i] - threshold
            size[i] = over if over > 1e-12 * top else 0.0
            norm += size[i] * size[i]
        norm = norm**0.5
    if norm > 1e-9 * length:
        for i in range(p):
            a[i] = size[i] / norm if a[i] > 0.0 else -size[i] / norm
    else:  # equal entries that no threshold separates: the first of them
        sign = np.sign(a[largest])
        a[:] = 0.0
        a[largest] = sign


@jit(fastmath=FAST)
def _soften(a: Any, share: float) -> None:
    """Threshold a at a share of its length, and scale it to unit; 0 where nothing is left."""
    length = np.sum(a * a) ** 0.5
    for i in range(a.shape[0]):
        over = abs(a[i]) - share * length
        over = over if over > 1e-12 * length else 0.0  # what rounding errors leave is nothing
        a[i] = over if a[i] > 0.0 else -over
    length = np.sum(a * a) ** 0.5
    if length > 0.0:
        a /= length


@jit(fastmath=FAST)
def _limit(a: Any, c: float, soft: bool) -> None:
    """Threshold a at a share c of its length, or to an l1 norm of at most c; scale it to unit."""
    if soft:
        _soften(a, c)
    else:
        _bound(a, c)


@jit(fastmath=FAST)
def _distance(a: Any, b: Any) -> float:
    """In the l1 norm, up to the sign of both."""
    apart, opposite = 0.0, 0.0
    for j in range(a.shape[0]):
        apart += abs(a[j] - b[j])
        opposite += abs(a[j] + b[j])
    return min(apart, opposite)


@jit(fastmath=FAST)
def largest_factor(
    K: Any, Kt: Any, starts: Any, c_x: float, c_y: float, tol: float, most: int, u: Any, v: Any,
    least: float, soft: bool,
) -> tuple[float, bool, int]:  # fmt: skip
    """The largest of the factors u'Kv to which starts lead, whether it converged, and its steps.

    A start that comes near to where an earlier one has ended is left, since both end there.

    Parameters
    ----------
    K, Kt : arrays of shape (p, q), (q, p)
        The matrix and its transpose.
    starts : array of shape (m, q)
        Of v.
    c_x, c_y : float
        Bounds on the l1 norms, or thresholds as shares of the lengths.
    tol : float
        The change of v, in the l1 norm, at which the steps end.
    most : int
        Steps.
    u, v : arrays of shape (p,), (q,)
        On which the factor is written.
    least : float
        What u'Kv must be greater than; it is returned, and nothing written, where none is.
    soft : bool
        Whether c_x and c_y are thresholds.
    """
    best, last, taken = least, True, 1
    ends, left, right, new = starts.copy(), np.empty_like(u), np.empty_like(v), np.empty_like(v)
    for s in range(starts.shape[0]):
        right[:] = starts[s]
        step, done, known = 0, False, False
        while step < most and not (done or known):
            step += 1
            _product(Kt, right, left)
            _limit(left, c_x, soft)
            _product(K, left, new)
            _limit(new, c_y, soft)
            done = _distance(new, right) <= tol
            right[:] = new
            for t in range(s):
                known = known or _distance(ends[t], right) <= NEAR
        ends[s] = right
        if known:
            continue
        _product(K, left, new)
        value = np.sum(new * right)
        if value > best * (1 + 1e-9):
            best, last, taken = value, done, step
            u[:], v[:] = left, right
    return best, last, taken
