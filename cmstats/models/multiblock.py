"""Components of several views: from the eigenvectors of their whitened joint covariance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels import whitening
from cmstats.kernels.linalg import block_diagonal, block_matrix, leading_eigenvectors, svd
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk, standard_deviations
from cmstats.rows.views import NamedViews

__all__ = ["BlockJoint", "Components", "WhitenedBlocks", "co_inertia", "explained_variance"]


@dataclass(frozen=True)
class WhitenedBlocks:
    """All blocks of the coherently shrunken covariance C, whitened: ``W_i' C_ii W_i = I``.

    Attributes
    ----------
    factors : list of whitened blocks
        With the W_i as their `weights`.
    gains : list of float
        sqrt(1 - s_i): ``C_ij = gains[i] gains[j] S_ij``; 1 with the aligned target.
    relative : list of float
        The gains over the largest, and not less than 1e-6: at shrinkage 1, where the blocks
        become independent, directions are those of the limit.
    coupling : array of shape (r, r)
        K: the blocks ``W_i' S_ij W_j`` with the relative gains (with the aligned target
        ``W_i' C_ij W_j``), zero on the diagonal; r is the sum of the ranks.
    """

    factors: list[Any]
    gains: list[float]
    relative: list[float]
    coupling: Array

    @classmethod
    def of(cls, m: Shrunk, *, principal: bool = False) -> WhitenedBlocks:
        """Whiten all blocks of some moments, in their principal axes if that is asked for."""
        factors = [m.sample.whiten_leading(a, 1.0) if principal else m.whiten(a) for a in m.names]
        # The blocks of an aligned target are whitened as they are: their limit is not 0.
        aligned = m.target == "aligned"
        gains = [1.0 if aligned else (1 - s) ** 0.5 for s in m.shrinkage]
        top = max(gains)
        relative = [max(g / top, 1e-6) if top else 1.0 for g in gains]
        xp, device = namespace(factors[0].weights), device_of(factors[0].weights)
        blocks: list[list[Any]] = [[None] * len(factors) for _ in factors]
        for i, f in enumerate(factors):
            blocks[i][i] = xp.zeros((f.rank, f.rank), dtype=xp.float64, device=device)
            for j in range(i + 1, len(factors)):
                inner = f.cross(factors[j])
                cross, gain = (inner, 1.0) if principal else m.cross(m.names[i], m.names[j])
                blocks[i][j] = (gain if aligned else relative[i] * relative[j]) * cross
                blocks[j][i] = blocks[i][j].mT
        return cls(factors, gains, relative, block_matrix(blocks))

    @property
    def ranks(self) -> list[int]:
        """The ranks of the blocks."""
        return [f.rank for f in self.factors]

    def covariance(self) -> Array:
        """The whitened unshrunken covariance ``W' S W``, with the relative gains."""
        pairs = zip(self.factors, self.relative, strict=True)
        return self.coupling + block_diagonal([g * g * f.cross(f) for f, g in pairs])

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

    def associated(self, values: Array, V: Array) -> tuple[int, Array, Array]:
        """The number of eigenvectors in which blocks are associated, and the eigenpairs of these.

        Where it is 0, one component of zeros is returned.
        """
        xp = namespace(V)
        tolerance = 10 * V.shape[0] * whitening.EPS
        kept = xp.nonzero(quadratic(V, self.coupling) > tolerance)[0]
        rank = int(kept.shape[0])
        if rank:
            return rank, xp.take(values, kept), xp.take(V, kept, axis=1)
        device = device_of(V)
        values = xp.zeros((1,), dtype=xp.float64, device=device)
        return rank, values, xp.zeros((V.shape[0], 1), dtype=xp.float64, device=device)


def co_inertia(white: WhitenedBlocks, k: int) -> tuple[Array, Array]:
    """Components of multiple co-inertia, in whitened principal axes: values (k,), V (r, k).

    With views scaled to unit total variance the leading eigenvector of the joint covariance has
    the global score; its parts, at unit length, are the axes of the views, and each view is
    deflated by its axis (Chessel and Hanafi 1996).
    """
    xp = namespace(white.coupling)
    roots = []
    for f in white.factors:  # W = U diag(l)^-1/2
        values = 1 / xp.sum(f.weights * f.weights, axis=0)
        roots.append(xp.sqrt(values / xp.sum(values)))
    root = xp.concat(roots)
    J = root[:, None] * white.coupling * root[None, :]
    J = J + block_diagonal([r[:, None] * xp.eye(r.shape[0], dtype=r.dtype, device=device_of(r)) * r
                            for r in roots])  # fmt: skip
    inertias, axes = [], []
    for _ in range(k):
        value, v = leading_eigenvectors(J, 1)
        if not float(value[0]) > 1e-12:
            break
        inertias.append(value[0])
        axes.append(v[:, 0])
        D = block_diagonal([unit_column(part) for part in white.split(v)])
        J = J - D @ (D.mT @ J)
        J = J - (J @ D) @ D.mT
    if not axes:
        return 0 * xp.sum(root)[None], 0 * root[:, None]
    V = root[:, None] * xp.stack(axes, axis=1)
    return xp.stack(inertias), V / xp.sqrt(xp.sum(V * V, axis=0))


def unit_column(v: Array) -> Array:
    """A column at unit length; one of zeros remains."""
    xp = namespace(v)
    norm = xp.sqrt(xp.sum(v * v))
    return v / xp.where(norm > 1e-12, norm, 1.0) * xp.astype(norm > 1e-12, v.dtype)


@dataclass(frozen=True)
class Components:
    """Components that several views share.

    Attributes
    ----------
    weights_, means_ : list or dict of arrays, by view
        Weights are in the data's units, and variates of unit training variance; the largest
        absolute weight of a component in the first view that takes part is positive.
    eigenvalues_, correlations_ : arrays of shape (k,)
    pairwise_correlations_ : array of shape (k, views, views)
    n_components_ : int
    shrinkage_ : tuple of float
    condition_ : float
        The largest condition number of the column-normalised data of a view.
    names : tuple of str
    stds : dict of arrays of shape (k,)
        Standard deviations of the variates of each view in the common scaling of the
        eigenproblem.
    powers, relative : arrays of shape (k,)
        The eigenvalues, and the mean associations of two views, over those of the first
        component.
    joint : BlockJoint
    latent : array of shape (k, variates)
        Covariances of the shared latent with the variates of `joint`.
    rank : int
        The number of components: 0 where nothing is shared and there is one of zeros.
    notes : tuple of str
        Sentences about degenerate data.
    """

    weights_: Any
    means_: Any
    eigenvalues_: Array
    correlations_: Array
    pairwise_correlations_: Array
    n_components_: int
    shrinkage_: tuple[float, ...]
    condition_: float
    names: tuple[str, ...]
    stds: dict[str, Array]
    powers: Array
    relative: Array
    joint: BlockJoint
    latent: Array
    rank: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, m: Shrunk, white: WhitenedBlocks, values: Array, V: Array, *, own: bool
    ) -> Components:
        """From eigenvectors in whitened coordinates.

        Parameters
        ----------
        m : Shrunk
        white : WhitenedBlocks
        values, V : arrays of shapes (k,) and (r, k)
        own : bool
            Whether they are of `WhitenedBlocks.covariance`, and not of the coupling.
        """
        xp, count = namespace(V), len(m.names)
        rank, values, V = white.associated(values, V)
        # In this common scaling the variates of two views have unit variance without shrinkage.
        parts = white.split(V)
        canonical = [
            count**0.5 * (f.weights @ v) for f, v in zip(white.factors, parts, strict=True)
        ]
        sizes = xp.stack([count * xp.sum(v * v, axis=0) for v in parts], axis=1)
        unseen = m.target == "aligned"
        std, inverse, pairs = _correlated(_covariances(m, canonical), sizes, unseen=unseen)
        weights = [
            w / m.units(a)[:, None] * inverse[:, i][None, :]
            for i, (a, w) in enumerate(zip(m.names, canonical, strict=True))
        ]
        sign = _first_signs(weights)
        V = sign * V
        joint, consensus = _through_variates(m, white, V)
        size, shared = xp.sum(V * V, axis=0), quadratic(V, white.association())
        total = xp.where(size > 0, size + shared, 1.0)  # nothing in common: zeros
        # The consensus is g = V'x / sqrt(total); its correlation with the latent is the square
        # root of its reliability.
        reliability = xp.clip(count / (count - 1) * shared / total, 0.0, 1.0)
        powers, relative = values if own else total, quadratic(V, white.coupling)
        present = xp.sum(xp.astype(inverse > 0, xp.float64), axis=1)
        views = NamedViews.of_blocks(m.names, [m.width(a) for a in m.names])
        return cls(
            weights_=views.as_fitted(sign * w for w in weights),
            means_=views.as_fitted(m.mean(a) for a in m.names),
            eigenvalues_=max(white.gains) ** 2 * values if own else total,
            correlations_=(xp.sum(pairs, axis=(1, 2)) - present) / (count * (count - 1)),
            pairwise_correlations_=pairs,
            n_components_=int(V.shape[1]),
            shrinkage_=m.shrinkage,
            condition_=m.condition,
            names=m.names,
            stds={a: std[:, i] for i, a in enumerate(m.names)},
            powers=powers / max(float(powers[0]), 1e-300),
            relative=relative / max(float(relative[0]), 1e-300),
            joint=joint,
            latent=xp.sqrt(reliability / total)[:, None] * consensus,
            rank=rank,
        )

    def noted(self, notes: Sequence[str]) -> Self:
        """The same with sentences about degenerate data."""
        return replace(self, notes=tuple(notes))

    def correlations_on(self, moments: Moments) -> Array:
        """The mean correlation over the pairs of views on held-out moments, shape (k,)."""
        weights = self.weights_.values() if isinstance(self.weights_, dict) else self.weights_
        pairs = [
            moments.paired_correlations(a, b, A, B)
            for (a, A), (b, B) in itertools.combinations(zip(self.names, weights, strict=True), 2)
        ]
        xp = namespace(pairs[0])
        return xp.mean(xp.stack(pairs), axis=0)


def explained_variance(
    moments: Moments, name: str, weights: Array, *, scale: bool, share: bool
) -> Array:
    """The variance of a block's columns explained by each variate by itself, shape (k,).

    ``|S w|^2 / w'S w``, that of the regression of the columns on the variate.

    Parameters
    ----------
    moments : Moments
    name : str
    weights : array of shape (p, k)
        In the units of the data.
    scale : bool
        Of the standardised columns.
    share : bool
        As a share of the total variance.
    """
    m = moments.standardized() if scale else moments
    w = weights * standard_deviations(moments, name)[:, None] if scale else weights
    xp, covariance = namespace(w), m.projected_scatter(name, name, w) / m.freedom()
    variance = xp.sum(w * covariance, axis=0)
    explained = xp.sum(covariance**2, axis=0) / xp.where(variance > 0, variance, 1.0)
    total = xp.sum(m.variance(name))
    return explained / xp.where(total > 0, total, 1.0) if share else explained


def quadratic(V: Array, A: Array) -> Array:
    """``v'Av`` of each column of V."""
    xp = namespace(V)
    return xp.sum(V * (A @ V), axis=0)


def _covariances(m: Shrunk, weights: Sequence[Array]) -> Array:
    """Unshrunken covariances of the projections of all pairs of blocks, (k, blocks, blocks)."""
    xp = namespace(weights[0])
    found: list[list[Any]] = [[None] * len(weights) for _ in weights]
    for i, j in itertools.combinations_with_replacement(range(len(weights)), 2):
        product = m.project_sample(m.names[i], m.names[j], weights[j])
        found[i][j] = found[j][i] = xp.sum(weights[i] * product, axis=0)
    return xp.stack([xp.stack(row, axis=1) for row in found], axis=1)


def _correlated(
    covariance: Array, sizes: Array, *, unseen: bool = False
) -> tuple[Array, Array, Array]:
    """Standard deviations, their inverses and correlations from covariances (k, views, views).

    A component may leave a view out, and under shrinkage there also are directions in which the
    data do not vary: all three are 0 there.

    Parameters
    ----------
    covariance : array of shape (k, views, views)
    sizes : array of shape (k, views)
        The shrunken variances.
    unseen : bool, default=False
        Whether directions in which the data do not vary relate the views nevertheless, by an
        aligned target: they are in units of the shrunken variance.
    """
    xp = namespace(covariance)
    variances = xp.stack([covariance[:, i, i] for i in range(sizes.shape[1])], axis=1)
    varies = (sizes > 1e-20) & (variances > 1e-12 * sizes)
    variances = xp.where(varies, variances, sizes)
    varies = varies | (unseen & (sizes > 1e-20))
    std = xp.where(varies, xp.sqrt(xp.where(varies, variances, 1.0)), 0.0)
    inverse = xp.where(varies, 1 / xp.where(varies, std, 1.0), 0.0)
    pairs = covariance * inverse[:, :, None] * inverse[:, None, :]
    return std, inverse, xp.clip(pairs, -1.0, 1.0)


def _first_signs(weights: Sequence[Array]) -> Array:
    """Signs that make the largest weight of the first block that takes part positive."""
    xp = namespace(weights[0])
    sign = xp.zeros_like(weights[0][0, :])
    for w in weights:
        largest = xp.take_along_axis(w, xp.argmax(xp.abs(w), axis=0)[None, :], axis=0)
        sign = xp.where(sign == 0, xp.sign(largest[0, :]), sign)
    return xp.where(sign == 0, 1.0, sign)


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
            The positions of these blocks.
        targets : sequence of arrays of shape (q, k)
            Covariances of what is predicted with the variates of all blocks.
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


def _through_variates(m: Shrunk, white: WhitenedBlocks, V: Array) -> tuple[BlockJoint, Array]:
    """The joint through the variates of components V, and ``V' C U`` with the bases U.

    Parameters
    ----------
    m : Shrunk
    white : WhitenedBlocks
    V : array of shape (r, k)
        Components in whitened coordinates.
    """
    xp = namespace(V)
    bases = [_basis(v) for v in white.split(V)]
    U = block_diagonal(bases)
    RU = U + white.association() @ U
    weights = [f.weights @ b for f, b in zip(white.factors, bases, strict=True)]
    patterns = []
    for a in m.names:
        row = [
            0.0 * w if a == b else m.project(a, b, w) for b, w in zip(m.names, weights, strict=True)
        ]
        patterns.append(xp.concat(row, axis=1) * m.units(a)[:, None])
    weights = [w / m.units(a)[:, None] for a, w in zip(m.names, weights, strict=True)]
    return BlockJoint(weights, U.mT @ RU, patterns), V.mT @ RU


def _basis(v: Array) -> Array:
    """An orthonormal basis of the columns that are not zero."""
    xp = namespace(v)
    if 0 in v.shape:
        return v[:, :0]
    norms = xp.sqrt(xp.sum(v * v, axis=0))
    v = xp.where(norms > 1e-10, v / xp.where(norms > 1e-10, norms, 1.0), 0.0)
    u, d, _ = svd(v)
    return u[:, : int(xp.count_nonzero(d > max(v.shape) * whitening.EPS * d[0]))]
