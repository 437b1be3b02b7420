"""Mixtures of normals of two views: standardised rows, parameters, and the density of y given x."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.arrays import (
    Array,
    dense,
    device_of,
    is_array,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    take_rows,
    to_numpy,
)
from cmstats.kernels import normal
from cmstats.kernels.linalg import block_matrix, cholesky, solve_triangular
from cmstats.kernels.parameters import CovarianceType, Normals
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import is_lazy
from cmstats.rows.source import take_in_memory

__all__ = ["ConditionalMixture", "Mixture", "Regression", "Rows", "Scaling", "joined"]


@dataclass(frozen=True)
class Scaling:
    """Centre and scale of the columns of x and y side by side."""

    centre: Array
    scale: Array

    @classmethod
    def of(cls, moments: Moments) -> Scaling:
        """The mean, rounded to single precision so that every data type subtracts the same."""
        xp = namespace(moments.mean("x"))
        mean = xp.concat([moments.mean(v) for v in ("x", "y")])
        variance = xp.concat([moments.variance(v, ddof=0) for v in ("x", "y")])
        constant = xp.concat([moments.constant(v) for v in ("x", "y")])
        small = xp.abs(mean) < 1e38
        rounded = xp.astype(xp.astype(xp.where(small, mean, 0.0), xp.float32), xp.float64)
        scale = xp.where(constant | (variance <= 0), 1.0, xp.sqrt(variance))
        return cls(xp.where(small, rounded, mean), scale)

    def columns(self, columns: slice) -> Scaling:
        """The scaling of some columns."""
        return Scaling(self.centre[columns], self.scale[columns])

    def cast(self, dtype: Any) -> tuple[Array, Array]:
        """Scale and centre in the precision of results."""
        xp = namespace(self.scale)
        return xp.astype(self.scale, dtype), xp.astype(self.centre, dtype)

    def second_moment(self, moments: Moments) -> Array:
        """The mean of zz' over the standardised rows z."""
        views = ("x", "y")
        offset = namespace(self.scale).concat([moments.mean(v) for v in views]) - self.centre
        S = block_matrix([[moments.cov(a, b, ddof=0) for b in views] for a in views])
        second = S + offset[:, None] * offset[None, :]
        return second / (self.scale[:, None] * self.scale[None, :])


class Rows:
    """Blocks of columns side by side, standardised, a run of rows at a time."""

    def __init__(self, blocks: Sequence[Any], scaling: Scaling, weights: Array | None = None):
        self.xp = xp = namespace(scaling.centre)
        namespace(scaling.centre, *(b for b in blocks if is_array(b) and not is_lazy(b)))
        self.blocks, self.scaling, self.weights = blocks, scaling, weights
        self.n = int(blocks[0].shape[0])
        self.count = self.n if weights is None else int(xp.count_nonzero(weights))
        single = all(result_dtype(b) == xp.float32 for b in blocks)
        self.dtype = xp.float32 if single else xp.float64
        self._centre = xp.astype(scaling.centre, self.dtype)
        self._inverse = xp.astype(1.0 / scaling.scale, self.dtype)
        self.width = int(scaling.centre.shape[0])

    def take(self, at: np.ndarray[Any, Any]) -> Rows:
        """Some of the rows, in memory."""
        weights = None if self.weights is None else take_rows(self.weights, at)
        return Rows([take_in_memory(b, at) for b in self.blocks], self.scaling, weights)

    def __call__(self, rows: slice) -> Array:
        """These rows, standardised."""
        parts = [dense(take_in_memory(b, rows)) for b in self.blocks]
        if is_numpy(self.xp):
            out = np.empty((parts[0].shape[0], self.width), self.dtype)
            np.concatenate(parts, axis=1, out=out, casting="unsafe")
            out -= self._centre
            out *= self._inverse
            return out
        parts = [self.xp.astype(p, self.dtype) for p in parts]
        whole = parts[0] if len(parts) == 1 else self.xp.concat(parts, axis=1)
        return (whole - self._centre) * self._inverse

    def runs(self, width: int) -> list[slice]:
        """Slices of rows, so short that `width` numbers a row make a block of moderate size."""
        return list(row_slices(self.n, max(256, 2**22 // max(1, width))))

    def each(self, function: Callable[[Array], Array], width: int) -> Array:
        """The results of a function of blocks of rows, one after the other."""
        return joined([function(self(run)) for run in self.runs(width)])


@dataclass(frozen=True)
class Mixture:
    """The parameters of a mixture of normals.

    Attributes
    ----------
    kind : {"full", "tied", "diag", "low_rank"}
    weights : array of shape (k,)
    means : array of shape (k, d)
    covariances : array of shape (k, d, d), (d, d) or (k, d), or the pair of loadings (k, d, r)
        and noise variances (k, d)
    """

    kind: CovarianceType
    weights: Array
    means: Array
    covariances: Any

    @property
    def parameters(self) -> int:
        """How many numbers are free: what AIC and BIC count."""
        k, d = self.means.shape
        if self.kind == "low_rank":  # a rotation of the loadings changes nothing
            r = self.covariances[0].shape[-1]
            covariance = k * (d * (r + 1) - r * (r - 1) // 2)
        else:
            triangle = d * (d + 1) // 2
            covariance = {"full": k * triangle, "tied": triangle, "diag": k * d}[self.kind]
        return int(covariance + k * d + k - 1)

    @property
    def log_weights(self) -> Array:
        """-inf for a component without weight, which a log-sum-exp passes over."""
        xp, w = namespace(self.weights), self.weights
        return xp.where(w > 0, xp.log(xp.where(w > 0, w, 1.0)), -math.inf)

    def normals(self) -> Normals:
        """The components, factored."""
        return normal.prepare(self.means[:1, :], self.means, self.covariances, self.kind)

    def columns(self, columns: slice) -> Mixture:
        """The marginal mixture of some columns."""
        S = self.covariances
        if self.kind == "low_rank":
            S = (S[0][:, columns, :], S[1][:, columns])
        else:
            S = S[:, columns] if self.kind == "diag" else S[..., columns, columns]
        return Mixture(self.kind, self.weights, self.means[:, columns], S)

    def matrix(self, j: int) -> Array:
        """The covariance matrix of a component."""
        S = self.covariances
        xp = namespace(self.means)
        if self.kind in ("full", "tied"):
            return S if self.kind == "tied" else S[j, ...]
        variances = S[1][j, :] if self.kind == "low_rank" else S[j, :]
        eye = xp.eye(variances.shape[0], dtype=xp.float64, device=device_of(variances))
        diagonal = variances[:, None] * eye
        if self.kind == "diag":
            return diagonal
        L = S[0][j, ...]
        return L @ L.mT + diagonal

    def singular(self, least: float) -> set[int]:
        """The components that have a direction of variance at most `least`."""
        xp, S = namespace(self.means), self.covariances
        if self.kind == "low_rank":
            smallest = xp.max(S[1], axis=1)
        elif self.kind == "diag":
            smallest = xp.min(S, axis=1)
        else:
            smallest = xp.broadcast_to(xp.linalg.eigvalsh(S)[..., 0], self.weights.shape)
        return set(np.flatnonzero(to_numpy(smallest <= least)).tolist())

    def variances(self) -> Array:
        """The diagonals of all covariance matrices, (k, d)."""
        xp, S = namespace(self.means), self.covariances
        if self.kind == "diag":
            return S
        if self.kind == "low_rank":
            return xp.sum(S[0] ** 2, axis=-1) + S[1]
        return xp.broadcast_to(xp.linalg.diagonal(S), self.means.shape)


@dataclass(frozen=True)
class Regression:
    """y given x under one component, in standard units.

    Attributes
    ----------
    x_mean, y_mean : arrays of shape (p,), (q,)
    slopes : tuple of arrays
        Factors, applied one after the other, of the matrix (p, q) of slopes; none for
        slopes of zero.
    covariance, root : arrays of shape (q, q)
        The conditional covariance, and its lower Cholesky factor.
    """

    x_mean: Array
    y_mean: Array
    slopes: tuple[Array, ...]
    covariance: Array
    root: Array

    def mean(self, x: Array) -> Array:
        """E[y | x] of rows."""
        xp = namespace(x)
        if not self.slopes:
            return xp.zeros_like(x[:, :1]) + xp.astype(self.y_mean, x.dtype)
        z = x - xp.astype(self.x_mean, x.dtype)
        for factor in self.slopes:
            z = z @ xp.astype(factor, x.dtype)
        return z + xp.astype(self.y_mean, x.dtype)


def regressions(m: Mixture, p: int) -> list[Regression]:
    """Each component's regression of y on the first p columns."""
    xp = namespace(m.means)
    found: list[tuple[Any, Any, Any]] = []
    for j in range(m.weights.shape[0]):
        if j and m.kind == "tied":
            found.append(found[0])
        elif m.kind == "diag":
            V = m.columns(slice(p, None)).matrix(j)
            found.append(((), V, xp.sqrt(V)))
        elif m.kind == "low_rank":
            L, D = m.covariances[0][j, ...], m.covariances[1][j, :]
            eye = xp.eye(L.shape[1], dtype=xp.float64, device=device_of(L))
            Lx, Ly = (L[:p, :] / D[:p, None]).mT, L[p:, :]
            # E[f | x] = (I + Lx' Dx^-1 Lx)^-1 Lx' Dx^-1 (x - x_mean) of the factors f
            root = cholesky(eye + Lx @ L[:p, :])
            half = solve_triangular(root, Ly.mT)
            slopes = (
                solve_triangular(root, Lx).mT,
                half,
            )
            diagonal = D[p:, None] * xp.eye(Ly.shape[0], dtype=xp.float64, device=device_of(L))
            V = half.mT @ half + diagonal
            found.append((slopes, V, cholesky(V)))
        else:
            lower = cholesky(m.matrix(j))
            Lxx, Lyx, root = lower[:p, :p], lower[p:, :p], lower[p:, p:]
            slopes_t = solve_triangular(Lxx, Lyx.mT, transpose=True)
            found.append(((slopes_t,), root @ root.mT, root))
    return [
        Regression(m.means[j, :p], m.means[j, p:], slopes, V, root)
        for j, (slopes, V, root) in enumerate(found)
    ]


@dataclass(frozen=True)
class ConditionalMixture:
    """The densities of a mixture of normals of rows (x, y), all in standard units.

    Attributes
    ----------
    mixture : Mixture
    scaling : Scaling
    p : int
        The number of columns of x.
    joint, x_marginal, y_marginal : Normals
        The components of p(x, y), of p(x) and of p(y), factored.
    regressions : list of Regression
        y given x under each component.
    """

    mixture: Mixture
    scaling: Scaling
    p: int
    joint: Normals
    x_marginal: Normals
    y_marginal: Normals
    regressions: list[Regression]

    @classmethod
    def of(cls, m: Mixture, scaling: Scaling, p: int) -> ConditionalMixture:
        """Factor the components of a mixture and of its marginals."""
        x, y = m.columns(slice(None, p)), m.columns(slice(p, None))
        return cls(m, scaling, p, m.normals(), x.normals(), y.normals(), regressions(m, p))

    @property
    def width(self) -> int:
        """Numbers that a density needs for each row, about."""
        return sum(self.mixture.means.shape)

    def x_rows(self, X: Any) -> Rows:
        """Rows of x alone, standardised as they are read."""
        return Rows([X], self.scaling.columns(slice(None, self.p)))

    def rows(self, X: Any, y: Any) -> Rows:
        """Rows (x, y), standardised as they are read."""
        return Rows([X, y], self.scaling)

    @property
    def y_scaling(self) -> Scaling:
        """The scaling of the columns of y."""
        return self.scaling.columns(slice(self.p, None))

    def evaluate(self, z: Array, normals: Normals, *, shares: bool = False) -> Array:
        """The log density of rows under these normals, or the shares of the components in it."""
        return normal.evaluate(z, normals, self.mixture.log_weights, shares)[int(shares)]

    def log_joint(self, z: Array) -> Array:
        """log p(x, y)."""
        return self.evaluate(z, self.joint)

    def log_conditional(self, z: Array) -> Array:
        """log p(y | x) = log p(x, y) - log p(x)."""
        return self.log_joint(z) - self.evaluate(z[:, : self.p], self.x_marginal)

    def surprise(self, z: Array) -> Array:
        """log p(y) - log p(y | x)."""
        return self.evaluate(z[:, self.p :], self.y_marginal) - self.log_conditional(z)

    def given(self, X: Any, width: int) -> Iterator[tuple[Array, Array]]:
        """p(k | x) and the means of y under each component, for a run of rows at a time.

        Parameters
        ----------
        X : checked rows of x
        width : int
            Numbers that the caller needs for each row beside these.
        """
        rows = self.x_rows(X)
        k, d = self.mixture.means.shape
        for run in rows.runs(self.p + k * (d - self.p) + width):
            x = rows(run)
            shares = self.evaluate(x, self.x_marginal, shares=True)
            yield shares, namespace(x).stack([each.mean(x) for each in self.regressions], axis=1)

    def draw(self, r: Array, means: Array, s: int, rng: np.random.RandomState) -> Array:
        """`s` draws of y for each row of `given`; numbers come from the host's generator."""
        xp = namespace(r)
        b, k, q = means.shape
        put: Any = {"device": device_of(r)}
        u = xp.asarray(rng.random_sample((b, s, 1)), **put)
        steps = xp.cumulative_sum(xp.astype(r, xp.float64), axis=1)[:, None, :-1]
        chosen = xp.reshape(xp.sum(xp.astype(u > steps, xp.int64), axis=-1), (b * s,))
        noise = xp.astype(xp.asarray(rng.standard_normal((b * s, q)), **put), r.dtype)
        # Draws of one component are brought together, so that each root is applied once.
        order = xp.argsort(chosen, stable=True)
        noise, parts, begin = xp.take(noise, order, axis=0), [], 0
        for j in range(k):
            end = begin + int(xp.count_nonzero(chosen == j))
            root = xp.astype(self.regressions[j].root, r.dtype)
            parts.append(noise[begin:end, :] @ root.mT)
            begin = end
        noise = xp.take(xp.concat(parts, axis=0), xp.argsort(order), axis=0)
        rows = xp.asarray(np.repeat(np.arange(b), s), **put)
        at = xp.take(xp.reshape(means, (b * k, q)), rows * k + chosen, axis=0)
        return xp.reshape(at + noise, (b, s, q))


def joined(parts: list[Array]) -> Array:
    """The results of runs of rows, one after the other."""
    return parts[0] if len(parts) == 1 else namespace(*parts).concat(parts, axis=0)
