"""Canonical coordinates of two blocks: directions, likelihood ratio of a pair, latent mean.

In the scaling a'S_s a = 1 a pair of variates (u, v) is standard normal with correlation r, and
the pairs are independent (Bach and Jordan 2005).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from cmstats.arrays import Array, namespace
from cmstats.kernels import whitening
from cmstats.kernels.linalg import leading_svd, signs
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk, standard_deviations

__all__ = [
    "Canonical",
    "expected_ratio",
    "latent_mean",
    "likelihood_vectors",
    "loadings",
    "pairs_of",
]


@dataclass(frozen=True)
class Canonical:
    """Pairs of variates of two views: what a canonical correlation analysis found.

    Attributes
    ----------
    x_weights_, y_weights_ : arrays of shape (p, k), (q, k)
        In the data's units, of unit training variance (where there is any); the largest absolute
        x-weight of each component is positive.
    correlations_, singular_values_ : arrays of shape (k,)
        Training correlations; singular values of the shrunken problem.
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    n_components_ : int
    shrinkage_ : tuple of float
    condition_ : float
        The larger condition number of the column-normalised data of the two views.
    x_std, y_std : arrays of shape (k,)
        Standard deviations of the variates in the canonical scaling a'S_s a = 1; 1 where the
        training rows do not vary in a direction (of the aligned target).
    relative : array of shape (k,)
        Singular values over the largest; at shrinkage 1 these are not 0.
    y_pattern : array of shape (q, k)
        ``C_s,yy B`` in the data's units: E[y | x] = y_mean + y_pattern diag(r) A'(x - x_mean).
    rank : int
        The number of pairs that vary: 0 where there is one component of zeros.
    notes : tuple of str
        Sentences about degenerate data.
    """

    x_weights_: Array
    y_weights_: Array
    correlations_: Array
    singular_values_: Array
    x_mean_: Array
    y_mean_: Array
    n_components_: int
    shrinkage_: tuple[float, ...]
    condition_: float
    x_std: Array
    y_std: Array
    relative: Array
    y_pattern: Array
    rank: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, m: Shrunk, A: Array, r: Array, B: Array, gain: float) -> Canonical:
        """The pairs of directions with ``A'S_s A = I`` and of singular values less their gain."""
        xp = namespace(A)
        sample = m.sample
        xA = sample.projected_scatter("x", "x", A) / m.freedom()
        yB = sample.projected_scatter("y", "y", B) / m.freedom()
        x_var, y_var = xp.sum(A * xA, axis=0), xp.sum(B * yB, axis=0)
        # Under shrinkage there are also directions in which the data do not vary. Only an aligned
        # target relates the views there.
        varies = (x_var > 1e-12) & (y_var > 1e-12)
        kept = xp.nonzero(varies | (r > 1e-12) if m.shift("x", "y") else varies)[0]
        rank = int(kept.shape[0])
        if 0 < rank < r.shape[0]:
            A, B = (xp.take(a, kept, axis=1) for a in (A, B))
            r, x_var, y_var = (xp.take(a, kept) for a in (r, x_var, y_var))
        elif not rank:  # a view that does not vary: one component of zeros
            A, B = 0 * A[:, :1], 0 * B[:, :1]
            r, x_var, y_var = 0 * r[:1], 0 * x_var[:1] + 1, 0 * y_var[:1] + 1
        x_std, y_std = (xp.sqrt(xp.where(var > 1e-12, var, 1.0)) for var in (x_var, y_var))
        xB = sample.projected_scatter("x", "y", B) / m.freedom()
        correlations = xp.clip(xp.sum(A * xB, axis=0) / (x_std * y_std), -1.0, 1.0)
        x_unit, y_unit = m.units("x")[:, None], m.units("y")[:, None]
        pattern = m.project("y", "y", B) * y_unit
        A, B = A / x_unit, B / y_unit
        sign = signs(A)
        return cls(
            x_weights_=sign * A / x_std[None, :],
            y_weights_=sign * B / y_std[None, :],
            correlations_=correlations,
            singular_values_=gain * r,
            x_mean_=m.unshrunk.mean("x"),
            y_mean_=m.unshrunk.mean("y"),
            n_components_=int(r.shape[0]),
            shrinkage_=m.shrinkage,
            condition_=m.condition,
            x_std=x_std,
            y_std=y_std,
            relative=r / max(float(r[0]), 1e-300),
            y_pattern=sign * pattern,
            rank=rank,
        )

    def noted(self, notes: Sequence[str]) -> Self:
        """The same with sentences about degenerate data."""
        return replace(self, notes=tuple(notes))

    def leading(self, k: int) -> Self:
        """The first k pairs."""
        columns = {a: getattr(self, a)[:, :k] for a in ("x_weights_", "y_weights_", "y_pattern")}
        names = ("correlations_", "singular_values_", "x_std", "y_std", "relative")
        return replace(self, n_components_=k, **columns, **{a: getattr(self, a)[:k] for a in names})

    def with_signs(self, sign: Array) -> Self:
        """The pairs with other signs, one for each."""
        columns = ("x_weights_", "y_weights_", "y_pattern")
        return replace(self, **{a: sign * getattr(self, a) for a in columns})

    def in_canonical_scale(self, variates: Array, view: str) -> Array:
        """Variates of one view in the scaling a'S_s a = 1."""
        std = self.x_std if view == "x" else self.y_std
        return variates * namespace(variates).astype(std, variates.dtype)

    def canonical(self, variates: Mapping[str, Array]) -> tuple[Array | None, Array | None]:
        """Variates by view in the scaling a'S_s a = 1, None for a view that is not given."""
        u, v = (
            self.in_canonical_scale(variates[view], view) if view in variates else None
            for view in ("x", "y")
        )
        return u, v

    def correlations_on(self, moments: Moments) -> Array:
        """The correlations of the pairs on held-out moments, shape (k,)."""
        return moments.paired_correlations("x", "y", self.x_weights_, self.y_weights_)

    def expected_ratio(self, moments: Moments) -> float:
        """The mean of log p(x, y) - log p(x) - log p(y) over held-out rows."""
        x = self.x_weights_ * self.x_std, self.x_mean_
        y = self.y_weights_ * self.y_std, self.y_mean_
        return expected_ratio(moments, x, y, self.singular_values_)


def loadings(moments: Moments, variables: str, variates: str, weights: Array) -> Array:
    """Correlations of a block's columns with variates ``block @ weights`` of unit variance."""
    covariances = moments.projected_scatter(variables, variates, weights) / moments.freedom()
    return covariances / standard_deviations(moments, variables)[:, None]


def pairs_of(C_xy: Array, C_xx: Array, C_yy: Array) -> tuple[Array, Array, Array]:
    """The canonical directions ``A, r, B`` of the blocks of a covariance matrix."""
    x, y = whitening.factor(C_xx), whitening.factor(C_yy)
    U, r, Vt = leading_svd(x.weights.mT @ C_xy @ y.weights)
    return x.weights @ U, r, y.weights @ Vt.mT


def likelihood_vectors(a: Array, r: Array, *, is_x: bool) -> Array:
    """Vectors whose inner product is log p(x, y) - log p(x) - log p(y).

    The sum over pairs of ``[r u v - r^2 (u^2 + v^2) / 2] / (1 - r^2) - log(1 - r^2) / 2``.

    Parameters
    ----------
    a : array of shape (n, k)
        The canonical coordinates of one view.
    r : array of shape (k,)
        Their correlations.
    is_x : bool
        Whether the coordinates are those of x: the constant terms of x and y stand on
        opposite sides of the inner product.

    Returns
    -------
    array of shape (n, k + 2)
    """
    xp = namespace(a)
    # Identical views have no density ratio; in single precision its terms cancel sooner.
    r = xp.clip(r, 0.0, 1 - (1e-12 if a.dtype == xp.float64 else 1e-6))
    gain = r / (1 - r * r)
    constant = -0.25 * float(xp.sum(xp.log1p(-r * r)))
    own = (a * a @ xp.astype(-0.5 * r * gain, a.dtype))[:, None] + constant
    parts = [a * xp.astype(xp.sqrt(gain), a.dtype)]
    parts += [own, xp.ones_like(own)] if is_x else [xp.ones_like(own), own]
    return xp.concat(parts, axis=1)


def expected_ratio(
    moments: Moments, x: tuple[Array, Array], y: tuple[Array, Array], r: Array
) -> float:
    """The mean of log p(x, y) - log p(x) - log p(y) over rows with these moments.

    It follows from E[uv], E[u^2] and E[v^2] of each pair of canonical coordinates.

    Parameters
    ----------
    moments : Moments
    x, y : pairs of arrays
        Weights with a'S_s a = 1 and the mean of each view.
    r : array of shape (k,)
        The correlations of the pairs under the model.
    """
    xp = namespace(r)
    shifts, squares = [], []
    for view, (weights, mean) in (("x", x), ("y", y)):
        shifts.append((moments.mean(view) - mean) @ weights)
        S = moments.projected_scatter(view, view, weights)
        squares.append(xp.sum(weights * S, axis=0) / moments.n + shifts[-1] ** 2)
    S = moments.projected_scatter("x", "y", y[0])
    product = xp.sum(x[0] * S, axis=0) / moments.n + shifts[0] * shifts[1]
    r = xp.clip(r, 0.0, 1 - 1e-12)
    each = (r * product - 0.5 * r * r * (squares[0] + squares[1])) / (1 - r * r)
    return float(xp.sum(each - 0.5 * xp.log1p(-r * r)))


def latent_mean(u: Array | None, v: Array | None, r: Array) -> Array:
    """The posterior mean of the shared latent given the coordinates of one view or both.

    With ``u = sqrt(r) z + noise``, ``v = sqrt(r) z + noise`` of unit variance and a standard
    normal z: E[z | u] = sqrt(r) u and E[z | u, v] = sqrt(r) / (1 + r) (u + v).
    """
    given = u if u is not None else v
    assert given is not None
    xp = namespace(given)
    r = xp.astype(r, given.dtype)
    if u is None or v is None:
        return given * xp.sqrt(r)
    if u.shape[0] != v.shape[0]:
        raise ValueError(f"X has {u.shape[0]} rows and y {v.shape[0]}: row i is one item")
    return (u + v) * (xp.sqrt(r) / (1 + r))
