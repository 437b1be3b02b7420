"""The steps of the penalised matrix decomposition, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmstats.kernels._cpu._jit import FAST, jit

__all__ = ["alternate"]


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
        spread = abs(squares / k - mean * mean)  # not below 0 by rounding
        below = mean - (size[p - k - 1] if k < p else 0.0)  # m less the threshold at the next
        if k * below - c * (k * (spread + below * below)) ** 0.5 > 1e-12 * c * size[p - 1]:
            gap = k - c * c
            threshold: float = mean - (c * (spread / gap) ** 0.5 if gap > 0.0 else 0.0)
            return threshold
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
        threshold, norm = _threshold(np.sort(size), c), 0.0
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
def alternate(
    K: Any, Kt: Any, u: Any, v: Any, c_x: float, c_y: float, tol: float, most: int
) -> tuple[float, bool, int]:
    """u and v in turn from a start v, on which is written: u'Kv, whether it converged, and steps.

    Parameters
    ----------
    K, Kt : arrays of shape (p, q), (q, p)
        The matrix and its transpose.
    u, v : arrays of shape (p,), (q,)
    c_x, c_y : float
        Bounds on the l1 norms.
    tol : float
        The change of v, in the l1 norm, at which the steps end.
    most : int
        Steps.
    """
    new, step, done = np.empty_like(v), 0, False
    while step < most and not done:
        step += 1
        _product(Kt, v, u)
        _bound(u, c_x)
        _product(K, u, new)
        _bound(new, c_y)
        change = 0.0
        for j in range(v.shape[0]):
            change += abs(new[j] - v[j])
            v[j] = new[j]
        done = change <= tol
    _product(K, u, new)
    return np.sum(new * v), done, step
