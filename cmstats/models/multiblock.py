"""The joint covariance of several blocks in whitened coordinates, and what it says of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels import whitening
from cmstats.kernels.linalg import block_diagonal, block_matrix, svd
from cmstats.moments.moments import Moments

__all__ = [
    "BlockJoint",
    "WhitenedBlocks",
    "covariances",
    "quadratic",
    "through_variates",
]


@dataclass(frozen=True)
class WhitenedBlocks:
    """All blocks of the coherently shrunken covariance C, whitened: ``W_i' C_ii W_i = I``.

    Attributes
    ----------
    factors : list of whitening.Factor
        The W_i.
    gains : list of float
        sqrt(1 - s_i): ``C_ij = gains[i] gains[j] S_ij``.
    relative : list of float
        The gains over the largest, and not less than 1e-6: at shrinkage 1, where the blocks
        part, directions are those of the limit.
    coupling : array of shape (r, r)
        K: the blocks ``W_i' S_ij W_j`` with the relative gains, zero on the diagonal; r is the
        sum of the ranks.
    """

    factors: list[whitening.Factor]
    gains: list[float]
    relative: list[float]
    coupling: Array

    @classmethod
    def of(cls, m: Moments, shrinkage: Sequence[float]) -> WhitenedBlocks:
        """Whiten all blocks of some moments."""
        factors = [m.whitening_factor(a, s) for a, s in zip(m.names, shrinkage, strict=True)]
        gains = [(1 - s) ** 0.5 for s in shrinkage]
        top = max(gains)
        relative = [max(g / top, 1e-6) if top else 1.0 for g in gains]
        blocks: list[list[Any]] = [[None] * len(factors) for _ in factors]
        for i, j in itertools.combinations_with_replacement(range(len(factors)), 2):
            block = _cross(m, factors, i, j) if i != j else _zeros(factors[i].rank, factors[i])
            blocks[i][j] = relative[i] * relative[j] * block
            blocks[j][i] = blocks[i][j].mT
        return cls(factors, gains, relative, block_matrix(blocks))

    @property
    def ranks(self) -> list[int]:
        """The ranks of the blocks."""
        return [f.rank for f in self.factors]

    def covariance(self, m: Moments) -> Array:
        """The whitened unshrunken covariance ``W' S W``, with the relative gains."""
        own = [g * g * _cross(m, self.factors, i, i) for i, g in enumerate(self.relative)]
        return self.coupling + block_diagonal(own)

    def association(self) -> Array:
        """The coupling with the true gains: the whitened joint ``W' C W`` less the identity."""
        xp, device = namespace(self.coupling), device_of(self.coupling)
        each = xp.concat(
            [
                xp.full((f.rank,), g / r, dtype=xp.float64, device=device)
                for f, g, r in zip(self.factors, self.gains, self.relative, strict=True)
            ]
        )
        return each[:, None] * self.coupling * each[None, :]

    def split(self, V: Array) -> list[Array]:
        """The rows of each block."""
        ends = itertools.accumulate(self.ranks)
        return [V[end - rank : end, :] for end, rank in zip(ends, self.ranks, strict=True)]


def _cross(m: Moments, factors: Sequence[whitening.Factor], i: int, j: int) -> Array:
    """``W_i' S_ij W_j``, from the whitened roots where there are any."""
    f, h = factors[i], factors[j]
    if f.root is not None and h.root is not None:
        return f.root.mT @ h.root
    product = m.projected_scatter(m.names[i], m.names[j], h.weights) / (m.n - 1)
    return f.weights.mT @ product


def _zeros(n: int, factor: whitening.Factor) -> Array:
    xp = namespace(factor.weights)
    return xp.zeros((n, n), dtype=xp.float64, device=device_of(factor.weights))


def quadratic(V: Array, A: Array) -> Array:
    """``v'Av`` of each column of V."""
    xp = namespace(V)
    return xp.sum(V * (A @ V), axis=0)


def covariances(m: Moments, weights: Sequence[Array]) -> Array:
    """Covariances of the projections of all pairs of blocks, shape (k, blocks, blocks)."""
    xp = namespace(weights[0])
    found: list[list[Any]] = [[None] * len(weights) for _ in weights]
    for i, j in itertools.combinations_with_replacement(range(len(weights)), 2):
        product = m.projected_scatter(m.names[i], m.names[j], weights[j]) / (m.n - 1)
        found[i][j] = found[j][i] = xp.sum(weights[i] * product, axis=0)
    return xp.stack([xp.stack(row, axis=1) for row in found], axis=1)


# ------------------------------------------------------------- some blocks given others
@dataclass(frozen=True)
class BlockJoint:
    """The joint normal of several blocks through a few variates of each.

    Attributes
    ----------
    bases : list of arrays of shape (p_i, k_i)
        Weights of orthonormal variates of each block.
    covariance : array of shape (k, k)
        Of the variates of all blocks, k the sum of the k_i.
    patterns : list of arrays of shape (p_i, k)
        Covariances of the block's columns with the variates of the other blocks; 0 with its
        own.
    """

    bases: list[Array]
    covariance: Array
    patterns: list[Array]

    def regression(self, given: Sequence[int], targets: Sequence[Array]) -> list[Array]:
        """Coefficients (k_given, q) of the conditional means given the variates of some blocks.

        Parameters
        ----------
        given : sequence of int
            Which blocks.
        targets : sequence of arrays of shape (q, k)
            Covariances of what is asked for with the variates of all blocks.
        """
        xp = namespace(self.covariance)
        starts = [0, *itertools.accumulate(int(b.shape[1]) for b in self.bases)]
        at = [c for i in given for c in range(starts[i], starts[i + 1])]
        index = xp.asarray(at, dtype=xp.int64, device=device_of(self.covariance))
        G = xp.take(xp.take(self.covariance, index, axis=0), index, axis=1)
        # With W'GW = I the coefficients cov(t, c) G^+ are cov(t, c) W W'.
        W = whitening.factor(G).weights if at else G
        out = []
        for target in targets:
            half = xp.take(target, index, axis=1) @ W
            out.append(W @ half.mT)
        return out


def through_variates(
    m: Moments, white: WhitenedBlocks, V: Array, units: Sequence[Array | None]
) -> tuple[BlockJoint, Array]:
    """The joint through the variates of components V, and ``V' C U`` with the bases U.

    Parameters
    ----------
    m : Moments
    white : WhitenedBlocks
    V : array of shape (r, k)
        Components in whitened coordinates.
    units : sequence of arrays of shape (p_i,), or None
        By which the data are to be divided first.
    """
    xp = namespace(V)
    bases = [_basis(v) for v in white.split(V)]
    U = block_diagonal(bases)
    RU = U + white.association() @ U
    weights = [f.weights @ b for f, b in zip(white.factors, bases, strict=True)]
    patterns = []
    for i, a in enumerate(m.names):
        row = [
            (0.0 if i == j else white.gains[i] * white.gains[j] / (m.n - 1))
            * m.projected_scatter(a, b, weights[j])
            for j, b in enumerate(m.names)
        ]
        patterns.append(xp.concat(row, axis=1))
    for i, unit in enumerate(units):
        if unit is not None:
            weights[i], patterns[i] = weights[i] / unit[:, None], patterns[i] * unit[:, None]
    joint = BlockJoint(weights, U.mT @ RU, patterns)
    return joint, V.mT @ RU


def _basis(v: Array) -> Array:
    """An orthonormal basis of the columns that are not zero."""
    xp = namespace(v)
    if 0 in v.shape:
        return v[:, :0]
    norms = xp.sqrt(xp.sum(v * v, axis=0))
    v = xp.where(norms > 1e-10, v / xp.where(norms > 1e-10, norms, 1.0), 0.0)
    u, d, _ = svd(v)
    return u[:, : int(xp.count_nonzero(d > max(v.shape) * whitening.EPS * d[0]))]
