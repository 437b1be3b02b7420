"""A normal of named blocks, and of y given x through canonical pairs: a fitted density."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from cmstats.arrays import Array, device_of, namespace, result_dtype
from cmstats.kernels import normal
from cmstats.kernels.linalg import block_matrix
from cmstats.models.latent import from_coordinates
from cmstats.moments.canonical import expected_ratio, likelihood_vectors, pairs_of
from cmstats.moments.joint_normal import JointNormal, in_order, observed_groups, pick
from cmstats.moments.moments import Moments
from cmstats.moments.patterns import incomplete_rows
from cmstats.moments.shrinkage import Shrunk, Target
from cmstats.rows.chunks import chunks, is_lazy, project
from cmstats.rows.source import take_in_memory

__all__ = ["BlockNormal", "PairNormal", "have_gaps", "in_memory"]

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class BlockNormal:
    """The normal of named blocks with a coherently shrunken covariance.

    Attributes
    ----------
    moments : Moments
    shrinkage : tuple of float
        One number for each block, by which the covariance of these moments is shrunk.
    scale : bool
        Whether the shrinkage is of standardised columns.
    target : {"independent", "aligned"}
    shrinkage_ : tuple of float
        The same, or that of the complete rows where these moments were shrunk before.
    marginal_shrinkage_ : float or None
        That of a block of which there are rows without the other blocks.
    singular : bool
        Whether there are too few rows for a covariance of y given x.
    notes : tuple of str
        Sentences about degenerate data.
    condition_ : float
        The larger condition number of the column-normalised data of x and y.
    """

    moments: Moments
    shrinkage: tuple[float, ...]
    scale: bool | Literal["block"]
    target: Target
    shrinkage_: tuple[float, ...]
    marginal_shrinkage_: float | None = None
    singular: bool = False
    notes: tuple[str, ...] = ()
    condition_: float = 1.0

    @classmethod
    def of(cls, m: Shrunk, **fields: Any) -> Self:
        """The normal with these moments."""
        return cls(
            moments=m.unshrunk,
            shrinkage=m.shrinkage,
            scale=m.scale,
            target=m.target,
            shrinkage_=m.shrinkage,
            **fields,
        )

    def noted(self, notes: Sequence[str]) -> Self:
        """The same with sentences about degenerate data."""
        return replace(self, notes=tuple(notes))

    @functools.cached_property
    def _shrunk(self) -> Shrunk:
        """The shrunken moments, without the whitened blocks that the solution needed."""
        how: dict[str, Any] = {"scale": self.scale, "target": self.target}
        return self.moments.shrunk(self.shrinkage, **how, monotone=False)

    def covariance(self, a: str, b: str) -> Array:
        """A block of the shrunken covariance in the data's units."""
        m = self._shrunk
        return m.units(a)[:, None] * m.units(b)[None, :] * m.cov(a, b)

    @functools.cached_property
    def joint(self) -> JointNormal:
        """The distribution of all blocks, d x d."""
        names = self.moments.names
        covariance = block_matrix([[self.covariance(a, b) for b in names] for a in names])
        means = [self.moments.mean(name) for name in names]
        mean = namespace(*means).concat(means)
        return JointNormal(names, self.moments.widths, mean, covariance)

    def expected_ratio(self, moments: Moments) -> float:
        """The mean log p(all blocks) - sum of log p(block) over rows with these moments."""
        return self.joint.expected_ratio(moments)

    def correlations_on(self, moments: Moments) -> Array:
        """The correlations of the canonical pairs on held-out moments."""
        raise ValueError(
            "scoring='correlation' is of two blocks named x and y, and these are "
            f"{', '.join(self.moments.names)}: set scoring='likelihood_ratio'"
        )


@dataclass(frozen=True, kw_only=True)
class PairNormal(BlockNormal):
    """The normal of blocks that include x and y, through the canonical pairs of these two.

    ``E[y | x] = y_mean_ + y_pattern diag(r) A'(x - x_mean_)`` with ``A' C_xx A = I`` and
    ``y_pattern = C_yy B``.

    Attributes
    ----------
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    singular_values_ : array of shape (k,)
        r, the correlations of the pairs.
    n_components_ : int
    x_directions, y_directions : arrays of shape (p, k), (q, k)
        A and B, in the data's units.
    y_pattern : array of shape (q, k)
    low_rank : bool
        Whether these pairs are all that x and y share.
    """

    x_mean_: Array
    y_mean_: Array
    singular_values_: Array
    n_components_: int
    x_directions: Array
    y_directions: Array
    y_pattern: Array
    low_rank: bool

    @classmethod
    def of_pairs(cls, m: Shrunk, A: Array, r: Array, B: Array, *, low_rank: bool) -> PairNormal:
        """From directions with ``A' C_xx A = I`` and the correlations r of the pairs."""
        x_unit, y_unit = m.units("x")[:, None], m.units("y")[:, None]
        return cls.of(
            m,
            x_mean_=m.mean("x"),
            y_mean_=m.mean("y"),
            singular_values_=r,
            n_components_=int(r.shape[0]),
            x_directions=A / x_unit,
            y_directions=B / y_unit,
            y_pattern=y_unit * m.project("y", "y", B),
            low_rank=low_rank,
            singular=_too_few_rows(m),
            condition_=m.condition,
        )

    def directions(self, view: str) -> tuple[Array, Array]:
        """The mean of a view, and the weights of its canonical coordinates."""
        if view == "x":
            return self.x_mean_, self.x_directions
        return self.y_mean_, self.y_directions

    def covariance(self, a: str, b: str) -> Array:
        """A block of the shrunken covariance in the data's units."""
        if a == b or not self.low_rank:
            return super().covariance(a, b)
        C_yx = self.slopes @ self.covariance("x", "x")  # C_yy B diag(r) A' C_xx
        return C_yx if a == "y" else C_yx.mT

    @property
    def slopes(self) -> Array:
        """The coefficients of the regression of y on x, shape (q, p)."""
        return self.y_pattern * self.singular_values_ @ self.x_directions.mT

    @functools.cached_property
    def residual(self) -> Array:
        """The covariance of y given x, shape (q, q)."""
        half = self.y_pattern * self.singular_values_
        C = self.covariance("y", "y") - half @ half.mT
        return 0.5 * (C + C.mT)

    def positive_residual(self) -> Array:
        """`residual`; raises where it is singular, as there is then no density."""
        xp = namespace(self.residual)
        if self.singular or not bool(xp.all(xp.linalg.diagonal(self.residual) > 0)):
            raise ValueError(
                "the covariance of y given x is singular, so there is no density: set "
                "shrinkage='cv', 'auto' or a number above 0"
            )
        return self.residual

    def mean_given(self, X: Any) -> Array:
        """The conditional mean of y for complete rows of x."""
        u = project(X, self.x_mean_, self.x_directions * self.singular_values_[None, :])
        return from_coordinates(u, self.y_pattern, self.y_mean_)

    def residuals_given(self, X: Array) -> Iterator[tuple[HostArray, Array]]:
        """The rows of each missingness pattern of x, and their covariance of y given x."""
        x_columns, y_columns = (self.joint.columns((view,)) for view in ("x", "y"))
        for mask, rows in observed_groups(X):
            yield rows, self.joint.regression(x_columns[mask], y_columns)[1]

    def logpdf(self, X: Array, y: Array) -> Array:
        """log p(y | x) of complete rows."""
        covariance = self.positive_residual()
        return normal.logpdf(y - self.mean_given(X), None, covariance)

    def logpdf_of_entries(self, X: Array, y: Array) -> Array:
        """The log-density of the entries of y that are there given those of x."""
        self.positive_residual()
        xp, joint, dtype = namespace(X, y), self.joint, result_dtype(X)
        X, y = xp.astype(X, dtype), xp.astype(y, dtype)
        x_columns = joint.columns(("x",))
        columns = np.concatenate([x_columns, joint.columns(("y",))])
        return joint.logpdf(xp.concat([X, y], axis=1), columns) - joint.logpdf(X, x_columns)

    def outlier_scores(self, X: Array, y: Array) -> Array:
        """The standardised log-ratio of complete rows."""
        pairs = self.x_directions, self.singular_values_, self.y_directions
        return _outlier_scores((X, y), (self.x_mean_, self.y_mean_), *pairs)

    def outlier_scores_of_entries(self, X: Array, y: Array) -> Array:
        """The same from the entries that are there; 0 where x or y has none."""
        joint, xp, p = self.joint, namespace(X, y), X.shape[1]
        columns = np.concatenate([joint.columns((view,)) for view in ("x", "y")])
        both = xp.concat([xp.astype(a, result_dtype(X)) for a in (X, y)], axis=1)
        parts, order = [], []
        for mask, rows in observed_groups(both):
            order.append(rows)
            seen = np.flatnonzero(mask[:p]), p + np.flatnonzero(mask[p:])
            if not (seen[0].size and seen[1].size):
                parts.append(xp.zeros(rows.size, dtype=both.dtype, device=device_of(both)))
                continue
            at = [columns[i] for i in seen]
            pairs = pairs_of(*(joint.block(at[i], at[j]) for i, j in ((0, 1), (0, 0), (1, 1))))
            views = [pick(pick(both, rows, 0), i, 1) for i in seen]
            parts.append(_outlier_scores(views, [joint.mean_of(a) for a in at], *pairs))
        return in_order(parts, order)

    def expected_logpdf(self, moments: Moments) -> float:
        """The mean of log p(y | x) over rows with these moments."""
        if moments.incomplete:
            return self.joint.expected_conditional(moments, "x")
        # The residual of y is y - G A'x.
        A, G = self.x_directions, self.y_pattern * self.singular_values_
        S_yx_G = moments.projected_scatter("y", "x", A) @ G.mT
        S = moments.scatter("y") - S_yx_G - S_yx_G.mT
        S = S + G @ ((A.mT @ moments.projected_scatter("x", "x", A)) @ G.mT)
        shift = moments.mean("y") - self.y_mean_
        shift = shift - G @ (A.mT @ (moments.mean("x") - self.x_mean_))
        residual = JointNormal(("y",), (S.shape[0],), 0 * shift, self.positive_residual())
        return residual.expected_logpdf(np.arange(S.shape[0]), moments.n, shift, S)

    def correlations_on(self, moments: Moments) -> Array:
        """The correlations of the canonical pairs on held-out moments, shape (k,)."""
        return moments.paired_correlations("x", "y", self.x_directions, self.y_directions)

    def expected_ratio(self, moments: Moments) -> float:
        """The mean log p(all blocks) - sum of log p(block) over rows with these moments."""
        if len(self.moments.names) > 2:
            return super().expected_ratio(moments)
        x, y = (self.directions(view)[::-1] for view in ("x", "y"))
        return expected_ratio(moments, x, y, self.singular_values_)


def _too_few_rows(m: Shrunk) -> bool:
    """Whether the covariance of y given x is singular, as blocks are not shrunk."""
    shrinkage = dict(zip(m.names, m.shrinkage, strict=True))
    features = 0
    if shrinkage["y"] == 0:
        features = m.width("y") + (m.width("x") if shrinkage["x"] == 0 else 0)
    estimate = m.unshrunk.estimate
    regularised = estimate is not None and estimate.prior > 0
    return not regularised and features > m.rows - 1


def _outlier_scores(views: Sequence[Array], means: Any, A: Array, r: Array, B: Array) -> Array:
    """The standardised log-ratio of pairs, from weights with a'S a = 1 and correlations r."""
    u, v = (
        likelihood_vectors(project(a, mean, W), r, is_x=is_x)
        for a, mean, W, is_x in zip(views, means, (A, B), (True, False), strict=True)
    )
    xp = namespace(u, v)
    r = xp.clip(r, 0.0, 1 - 1e-12)
    information = -0.5 * float(xp.sum(xp.log1p(-r * r)))
    spread = max(float(xp.sum(r * r)) ** 0.5, 1e-300)
    return (information - xp.sum(u * v, axis=1)) / spread


def have_gaps(*views: Any) -> bool:
    """Whether rows of some view have missing entries."""
    return any(bool(incomplete_rows([part])[1]) for a in views for _, (part,), _ in chunks([a]))


def in_memory(a: Any) -> Array:
    """Rows as a dense array in memory."""
    a = take_in_memory(a, slice(None)) if is_lazy(a) else a
    return a.toarray() if hasattr(a, "toarray") else a
