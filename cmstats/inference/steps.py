"""The statistics of ``K[k:, k:]`` for every step k, from the cross products of permutations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cmstats.arrays import Array, device_of, float64, namespace

__all__ = ["STATISTICS", "with_rows_spent"]


def _later_sums(a: Array, steps: int) -> Array:
    """``sum(a[:, k:])`` for k = 0 .. steps - 1."""
    xp = namespace(a)
    m = a.shape[1]
    ones = xp.ones((m, steps), dtype=a.dtype, device=device_of(a))
    return a @ xp.tril(ones)


def _pillai(K: Array, steps: int, single: bool) -> Array:
    """Squared norms: entry (i, j) belongs to all steps up to min(i, j)."""
    xp = namespace(K)
    square = float64(K) ** 2
    m = K.shape[2]
    in_row = xp.sum(xp.triu(square[:, :m, :]), axis=2)
    in_column = xp.sum(xp.tril(square, k=-1), axis=1)
    return _later_sums(in_row + in_column, steps)


def _wilks(K: Array, steps: int, single: bool) -> Array:
    """-log Lambda, by ``Lambda_k = det [[I, K_k], [K_k', I]]``.

    With what is left of the wider view eliminated, and the pairs in the order m, ..., 1, these
    determinants are the leading principal minors of one matrix: one Cholesky factor has all.
    """
    xp = namespace(K)
    batch, _, m = K.shape
    # A correlation of exactly 1 leaves a finite value, above those of all others.
    K = (1 - (1e-5 if single else 1e-10)) * float64(K)
    eye = xp.eye(m, dtype=xp.float64, device=device_of(K))
    rest, pairs = K[:, m:, :], xp.flip(K[:, :m, :], axis=(1, 2))
    joint = xp.zeros((batch, 2 * m, 2 * m), dtype=xp.float64, device=device_of(K))
    joint[:, 0::2, 0::2] = eye
    joint[:, 0::2, 1::2] = pairs
    joint[:, 1::2, 0::2] = pairs.mT
    joint[:, 1::2, 1::2] = xp.flip(eye - rest.mT @ rest, axis=(1, 2))
    diagonal = xp.linalg.diagonal(xp.linalg.cholesky(joint))
    logs = xp.sum(xp.reshape(xp.log(diagonal), (batch, m, 2)), axis=2)
    return -2 * _later_sums(xp.flip(logs, axis=1), steps)


def _roy(K: Array, steps: int, single: bool) -> Array:
    """The largest correlation, the root of an eigenvalue of K_k' K_k."""
    xp = namespace(K)
    K = float64(K)
    gram = K.mT @ K
    largest = []
    for k in range(steps):
        largest.append(xp.linalg.eigvalsh(gram[:, k:, k:])[:, -1])
        gram = gram - K[:, k, :, None] * K[:, k, None, :]
    values = xp.stack(largest, axis=1)
    return xp.sqrt(xp.where(values > 0, values, 0.0))


STATISTICS: dict[str, Callable[[Array, int, bool], Array]] = {
    "wilks": _wilks,
    "pillai": _pillai,
    "roy": _roy,
}


def with_rows_spent(name: str, null: Any, n: int, widths: tuple[int, int], shrunken: bool) -> Any:
    """Permuted statistics of step k + 1 as if k of the n dimensions of the rows were spent."""
    k = np.arange(null.shape[1])
    # Shrunken bases have fewer effective columns than features.
    factor = n / (n - k) if shrunken or name == "pillai" else 1 + k / (n - (sum(widths) + 1) / 2)
    if name == "roy":
        left = np.log1p(-(np.minimum(null, 1 - 1e-12) ** 2))
        return np.sqrt(-np.expm1(factor * left))
    return factor * null
