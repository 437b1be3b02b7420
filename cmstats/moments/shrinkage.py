r"""Coherent shrinkage of the joint covariance of several blocks, and the parameter of models.

With one number :math:`s_a` for each block a of :math:`p_a` columns, the covariance C becomes

.. math:: C_{s,aa} = (1 - s_a) C_{aa} + s_a \frac{\operatorname{tr} C_{aa}}{p_a} I, \qquad
    C_{s,ab} = \sqrt{(1 - s_a)(1 - s_b)} \, C_{ab}.

The joint matrix stays positive semi-definite, the canonical directions are those of ridge CCA, and
the singular values are at most 1. Models take one number for each block, "auto" or "cv", or one
of these for all.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels.threads import blas_for
from cmstats.moments.missing import check_observed, shrunken_estimate
from cmstats.moments.whitened import Whitened

if TYPE_CHECKING:
    from cmstats.moments.moments import Moments

__all__ = [
    "SHRINKAGES",
    "Shrunk",
    "shrinkage_grid",
    "shrinkage_numbers",
    "shrinkage_tuple",
    "standard_deviations",
]

SHRINKAGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8)
"""The candidates of ``shrinkage="cv"``."""


def shrinkage_tuple(value: Any, blocks: int = 2) -> tuple[Any, ...]:
    """The parameter as one valid value for each block.

    Raises
    ------
    ValueError
        If a value is neither in [0, 1] nor "auto" nor "cv", or there are not as many as blocks.
    """
    each = tuple(value) if isinstance(value, (tuple, list)) else (value,) * blocks
    what = "an (x, y) pair of these" if blocks == 2 else f"{blocks} of these, one for each view"
    for s in each:
        number = not isinstance(s, bool) and isinstance(s, Real) and 0 <= float(s) <= 1
        if not number and not (isinstance(s, str) and s in ("auto", "cv")):
            raise ValueError(
                f"shrinkage={value!r} is out of range: a float in [0, 1], 'auto', 'cv', or {what}"
            )
    if len(each) != blocks:
        raise ValueError(f"shrinkage={value!r} must be one value or {what}")
    return each


def shrinkage_numbers(
    moments: Moments, names: Sequence[str], each: Sequence[Any], *, scale: bool = False
) -> tuple[float, ...]:
    """The shrinkage of each block as a number; "auto" is `Moments.ledoit_wolf`."""
    m = moments.standardized() if scale and "auto" in each else moments
    return tuple(
        m.ledoit_wolf(name) if isinstance(s, str) else float(s)
        for name, s in zip(names, each, strict=True)
    )


def shrinkage_grid(value: Any, blocks: int = 2) -> list[tuple[Any, ...]]:
    """The candidates of a parameter that is "cv".

    One "cv" for all blocks searches one common value, several search every combination.
    """
    each = shrinkage_tuple(value, blocks)
    if value == "cv":
        return [(s,) * blocks for s in SHRINKAGES]
    return list(itertools.product(*(SHRINKAGES if s == "cv" else (s,) for s in each)))


def standard_deviations(moments: Moments, name: str) -> Array:
    """Standard deviations; 1 for a column that does not vary."""
    xp = namespace(moments.mean(name))
    return xp.sqrt(xp.where(moments.constant(name), 1.0, moments.variance(name)))


class Shrunk:
    """The second moments of named blocks after coherent shrinkage: what a model solves.

    A read-only view, computed when asked for and cached. Diagonal blocks are
    ``(1 - s) C + s tr(C) / p I``, cross blocks ``sqrt((1 - s_a)(1 - s_b)) C_ab``, in units of the
    columns' standard deviations where `scale` is set. In the root form nothing of the size of a
    block's covariance is formed but by `cov`.

    Parameters
    ----------
    moments : Moments
    shrinkage : float, "auto", or one of these for each block
        "auto" is `Moments.ledoit_wolf` (of the standardised columns where `scale` is set).
    scale : bool, default=False
        Divide the columns by their standard deviations first.
    target : {"independent"}, default="independent"
        What cross blocks are shrunk to: 0.
    blocks : sequence of str, optional
        The blocks; all of them in their order by default.
    monotone : bool, default=True
        Where the patterns of missing entries are nested, shrink the covariance of the rows that
        have both sides of each regression, and not the estimate from all rows: y given x is then
        that of the complete pairs at this shrinkage.

    Attributes
    ----------
    names : tuple of str
    shrinkage : tuple of float
        One number for each block.
    unshrunk : Moments
        The moments to which the shrinkage applies, in the units of the data.
    sample : Moments
        The same in the units of the shrinkage: standardised where `scale` is set.
    """

    def __init__(
        self,
        moments: Moments,
        shrinkage: Any,
        *,
        scale: bool = False,
        target: Literal["independent"] = "independent",
        blocks: Sequence[str] | None = None,
        monotone: bool = True,
    ) -> None:
        if target != "independent":
            raise ValueError(f"target must be 'independent', got {target!r}")
        self.names = moments.names if blocks is None else tuple(blocks)
        each = shrinkage_tuple(shrinkage, len(self.names))
        if "cv" in each:
            raise ValueError("shrinkage='cv' is chosen on fold moments: pass numbers or 'auto'")
        self.shrinkage = shrinkage_numbers(moments, self.names, each, scale=scale)
        self.scale = scale
        if moments.incomplete and moments.names != self.names:
            # Other blocks would contribute to the estimate of the entries that are missing.
            moments = moments.select(*self.names)
        self.unshrunk = moments
        if monotone and moments.incomplete and all(self.shrinkage):
            self.unshrunk = _before_regression(moments, self.shrinkage, scale)
        self._whitened: dict[str, Whitened] = {}

    @property
    def n(self) -> float:
        """The sum of the weights."""
        return self.unshrunk.n

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.unshrunk.rows

    def width(self, name: str) -> int:
        """The number of columns of a block."""
        return self.unshrunk.width(name)

    def mean(self, name: str) -> Array:
        """The mean of a block in the units of the data, shape (p,)."""
        return self.unshrunk.mean(name)

    @functools.cached_property
    def sample(self) -> Moments:
        """The unshrunken moments in the units of the shrinkage."""
        return self.unshrunk.standardized() if self.scale else self.unshrunk

    def units(self, name: str) -> Array:
        """What columns are divided by: standard deviations, 1 for a constant one; or ones."""
        if self.scale:
            return standard_deviations(self.unshrunk, name)
        mean = self.unshrunk.mean(name)
        return namespace(mean).ones_like(mean)

    def _shrinkage_of(self, name: str) -> float:
        return self.shrinkage[self.names.index(name)]

    def gain(self, a: str, b: str) -> float:
        """The factor of the covariance of two blocks, ``sqrt((1 - s_a)(1 - s_b))``."""
        if a == b:
            return 1 - self._shrinkage_of(a)
        return float(((1 - self._shrinkage_of(a)) * (1 - self._shrinkage_of(b))) ** 0.5)

    def ridge(self, name: str) -> float:
        """What is added to the diagonal of a block, ``s tr(C) / p``."""
        variance = self.sample.variance(name)
        total = float(namespace(variance).sum(variance))
        return self._shrinkage_of(name) * total / self.width(name)

    def cov(self, a: str, b: str | None = None) -> Array:
        """The shrunken covariance of two blocks (of one with itself), shape (p_a, p_b)."""
        b = b or a
        C = self.gain(a, b) * self.sample.cov(a, b)
        if a != b:
            return C
        xp = namespace(C)
        return C + self.ridge(a) * xp.eye(C.shape[0], dtype=xp.float64, device=device_of(C))

    def project(self, a: str, b: str, weights: Array) -> Array:
        """``cov(a, b) @ weights`` without forming a wide block."""
        product = self.gain(a, b) * self.project_sample(a, b, weights)
        return product + self.ridge(a) * weights if a == b else product

    def project_sample(self, a: str, b: str, weights: Array) -> Array:
        """The same with the unshrunken covariance."""
        return self.sample.projected_scatter(a, b, weights) / (self.sample.n - 1)

    def whiten(self, name: str) -> Whitened:
        """A block in coordinates in which its shrunken covariance is the identity.

        `Whitened.cross` is then of the unshrunken cross block, to be multiplied by `gain`.
        """
        if name not in self._whitened:
            keep, ridge = 1 - self._shrinkage_of(name), self.ridge(name)
            self._whitened[name] = self.sample.whiten(name, keep=keep, ridge=ridge)
        return self._whitened[name]

    @property
    def ranks(self) -> dict[str, int]:
        """The ranks of the blocks that were whitened."""
        return {name: white.rank for name, white in self._whitened.items()}

    @property
    def condition(self) -> float:
        """The largest condition number of the blocks that were whitened; 1 before."""
        return max((white.condition for white in self._whitened.values()), default=1.0)


def _before_regression(moments: Moments, shrinkage: Sequence[float], scale: bool) -> Moments:
    """Moments whose shrinkage is that of each regression of nested patterns by itself.

    Returns
    -------
    Moments
        The moments as they are where the patterns of missing entries are not nested.
    """
    groups = moments.sums_by_pattern()
    if len(groups) == 1:  # beside complete rows there are only empty ones
        return moments
    check_observed(groups, moments.names, moments.widths)
    with blas_for(sum(moments.widths)):
        sums = shrunken_estimate(groups, moments.widths, shrinkage, scale=scale)
    return moments if sums is None else moments.with_sums(sums)
