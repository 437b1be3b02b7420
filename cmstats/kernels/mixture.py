"""The E-step of a mixture of normals and the sums for its M-step, in one pass over the rows.

With responsibilities r of the current parameters (the E-step) and z_ij = x_i - mu_j, per
component j

    n_j = sum_i r_ij,   first_j = sum_i r_ij z_ij,   second_j = sum_i r_ij z_ij z_ij'

about the current means, so that no digits cancel where components are far apart. A tile of
rows goes through both steps while it is in the cache; products are in the precision of the
rows, sums over tiles in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmstats.arrays import Array, is_numpy, namespace, row_slices
from cmstats.kernels import normal
from cmstats.kernels.parameters import MixtureSums, Normals, Second

__all__ = ["mixture_sums"]

BLOCK = 2**23
"""Numbers in the largest temporary of a namespace other than NumPy's."""


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
        from cmstats.kernels._cpu import mixture as cpu

        return cpu.mixture_sums(read, n, normals, log_weights, weights, second, dtype)
    k, d = normals.means.shape
    width = k * d if second == "full" else d + k
    total: MixtureSums | None = None
    for rows in row_slices(n, max(256, BLOCK // width)):
        w = None if weights is None else weights[rows]
        block = _namespace_sums(read(rows), normals, log_weights, w, second)
        total = block if total is None else total + block
    assert total is not None
    return total


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
