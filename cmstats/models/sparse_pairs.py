"""Pairs of sparse directions: of a penalised matrix, refined by lasso regressions, or scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels.linalg import leading_svd, qr_r, svd
from cmstats.kernels.sparse import BlockPenalty, Eigenpairs, SparseBlock, sparse_path
from cmstats.moments.shrinkage import Shrunk

__all__ = ["Pairs", "Refinement", "directions", "unit_pairs"]

Pairs = tuple[Array, Array, Array]
"""Directions ``A, r, B`` of both views, one a column, and the correlation of each pair."""


def unit_pairs(m: Shrunk, U: Array, V: Array) -> Pairs:
    """Directions scaled to unit variance, where they vary, and their correlations."""
    xp = namespace(U)
    scaled = []
    for name, A in (("x", U), ("y", V)):
        variance = xp.sum(A * m.project(name, name, A), axis=0)
        scaled.append(A / xp.sqrt(xp.where(variance > 1e-12, variance, 1.0)))
    A, B = scaled
    return A, xp.abs(xp.sum(A * m.project("x", "y", B), axis=0)), B


def directions(B: SparseBlock, x: Eigenpairs, y: Eigenpairs, k: int) -> Pairs:
    """The leading pairs of a product matrix B, at most as many as its rank."""
    (_, U), (_, V) = x, y
    xp, device = namespace(U, V), device_of(U)
    if not len(B.rows):
        p, q = U.shape[0], V.shape[0]
        A, r, D = (xp.zeros(s, dtype=U.dtype, device=device) for s in ((p, 1), (1,), (q, 1)))
        return A, r, D
    at = [xp.asarray(each, device=device) for each in (B.rows, B.columns)]
    X, Y = (  # R with R'R the covariance of the columns that are selected
        qr_r((xp.take(vectors, own, axis=0) * xp.sqrt(values)).mT)
        for (values, vectors), own in zip((x, y), at, strict=True)
    )
    P, r, Qt = leading_svd(X @ B.values @ Y.mT, k)
    rank = max(1, int(xp.count_nonzero(r > 1e-10 * r[0])))
    P, r, Q = P[:, :rank], r[:rank], Qt[:rank, :].mT
    left, right = B.values @ Y.mT @ Q / r, B.values.mT @ X.mT @ P / r
    each = np.arange(rank)
    A = SparseBlock(left, B.rows, each).within(np.arange(U.shape[0]), each)
    return A, r, SparseBlock(right, B.columns, each).within(np.arange(V.shape[0]), each)


@dataclass(frozen=True)
class Refinement:
    """Lasso regressions of each view on the variates of the other, in turn.

    Attributes
    ----------
    S : array of shape (p, q)
        S_xy.
    x, y : Eigenpairs
        Of S_xx and S_yy.
    penalty : BlockPenalty
        Of the product matrix: its groups of rows are those of x, its groups of columns of y.
    tol, max_iter
        See `sparse_path`.
    """

    S: Array
    x: Eigenpairs
    y: Eigenpairs
    penalty: BlockPenalty
    tol: float
    max_iter: int

    def __call__(self, pairs: Pairs, alpha: float, rounds: int) -> Pairs:
        """The pairs after some rounds; as they are where a regression loses one of them."""
        for _ in range(rounds):
            A, r, B = pairs
            left = self._regressed(self.S @ B, self.x, self.penalty.rows, A * r, alpha)
            if left is None:
                break
            right = self._regressed(self.S.mT @ left, self.y, self.penalty.columns, B * r, alpha)
            if right is None:
                break
            U, r, Vt = svd(left.mT @ self.S @ right)
            pairs = left @ U, r, right @ Vt.mT
        return pairs

    def _regressed(
        self, C: Array, own: Eigenpairs, groups: Array | None, start: Array, alpha: float
    ) -> Array | None:
        """argmin tr(L'S L)/2 - tr(L'C) + alpha |L|, with uncorrelated columns of unit variance."""
        xp, device = namespace(C), device_of(C)
        k, every = int(C.shape[1]), np.arange(C.shape[0])
        ones = xp.ones(k, dtype=C.dtype, device=device)
        none = ones, xp.eye(k, dtype=C.dtype, device=device)
        first = SparseBlock(start, every, np.arange(k)).trimmed()
        how: dict[str, Any] = {"tol": self.tol, "max_iter": self.max_iter}
        (found,) = sparse_path(C, own, none, BlockPenalty(groups), [alpha], start=first, **how)
        L = found.within(every, np.arange(k))
        values, vectors = own
        root = xp.sqrt(values)[:, None] * (vectors.mT @ L)
        w, Q = xp.linalg.eigh(root.mT @ root)
        if not float(w[0]) > 1e-10 * float(w[-1]):
            return None
        return L @ ((Q / xp.sqrt(w)) @ Q.mT)
