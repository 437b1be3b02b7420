r"""Coherent shrinkage of the joint covariance of several blocks, and the parameter of models.

With one number :math:`s_a` for each block a of :math:`p_a` columns, the covariance C becomes

.. math:: C_{s,aa} = (1 - s_a) C_{aa} + s_a \frac{\operatorname{tr} C_{aa}}{p_a} I, \qquad
    C_{s,ab} = \sqrt{(1 - s_a)(1 - s_b)} \, C_{ab}.

The joint matrix stays positive semi-definite, the canonical directions are those of ridge CCA, and
the singular values are at most 1. Models take one number for each block, "auto" or "cv", or one
of these for all.

Blocks of one width p, whose columns are coordinates of one space (two encoders that were trained
together), may be shrunk toward a common multiple of the identity, the aligned target:

.. math:: C_{s,ab} = \sqrt{(1 - s_a)(1 - s_b)} \, C_{ab}
    + \sqrt{s_a s_b} \, \frac{\operatorname{tr} C_{ab}}{p} I.

The constant is the least squares fit of a multiple of I to :math:`C_{ab}`, so that blocks that are
not aligned have one near 0 by themselves. The matrix of the traces is itself a covariance (the mean
over coordinates), so the joint stays positive semi-definite.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cmstats.arrays import Array, device_of, namespace
from cmstats.kernels import whitening
from cmstats.kernels.threads import blas_for
from cmstats.moments.missing import check_observed, shrunken_estimate
from cmstats.moments.whitened import Whitened

if TYPE_CHECKING:
    from cmstats.moments.moments import Moments

__all__ = [
    "SHRINKAGES",
    "Shrunk",
    "Target",
    "aligned_constant",
    "check_aligned",
    "shrinkage_grid",
    "shrinkage_numbers",
    "shrinkage_tuple",
    "standard_deviations",
]

SHRINKAGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995)
"""The candidates of ``shrinkage="cv"``."""

Target: TypeAlias = Literal["independent", "aligned"]
"""What cross blocks are shrunk to: 0, or a multiple of the identity."""

CAP = 1 - 1e-6
"""The largest c of the aligned target: at c = 1, of equal views, the joint has no density."""


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


def check_aligned(target: Any, widths: Mapping[str, int]) -> None:
    """Raise where a target is unknown, or blocks of these widths cannot be aligned."""
    if target not in ("independent", "aligned"):
        raise ValueError(f"target={target!r} is unknown: use 'independent' or 'aligned'")
    if target == "aligned" and len(set(widths.values())) > 1:
        each = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(
            f"target='aligned' is for views in one space, of equal width, but they have {each} "
            "columns: set target='independent'"
        )


def aligned_constant(moments: Moments, a: str, b: str) -> float:
    """tr(C_ab) / sqrt(tr C_aa tr C_bb), in (-1, 1): the least squares multiple of I, in units."""
    xp = namespace(moments.mean(a))
    traces = [float(xp.sum(moments.variance(name))) for name in (a, b)]
    spread = (traces[0] * traces[1]) ** 0.5
    shared = float(xp.sum(moments.paired_scatter(a, b))) / moments.freedom()
    return max(-CAP, min(CAP, shared / spread)) if spread > 0 else 0.0


def standard_deviations(moments: Moments, name: str) -> Array:
    """Standard deviations; 1 for a column that does not vary."""
    xp = namespace(moments.mean(name))
    return xp.sqrt(xp.where(moments.constant(name), 1.0, moments.variance(name)))


class Shrunk:
    """The second moments of named blocks after coherent shrinkage: what a model solves.

    A read-only view, computed when asked for and cached. Diagonal blocks are
    ``(1 - s) C + s tr(C) / p I``, cross blocks ``sqrt((1 - s_a)(1 - s_b)) C_ab``, with the aligned
    target plus ``sqrt(s_a s_b) tr(C_ab) / p I``, in units of the columns' standard deviations
    where `scale` is set. In the root form nothing of the size of a block's covariance is formed
    but by `cov`, and by `whiten` with the aligned target, which the directions in which the
    training rows do not vary take part in.

    Parameters
    ----------
    moments : Moments
    shrinkage : float, "auto", or one of these for each block
        "auto" is `Moments.ledoit_wolf` (of the standardised columns where `scale` is set).
    scale : bool or "block", default=False
        Divide the columns by their standard deviations first, or those of a block by one number,
        the root mean square of these, so that numbers stay in range.
    target : {"independent", "aligned"}, default="independent"
        What cross blocks are shrunk to: 0, or a multiple of the identity (blocks of one width).
    blocks : sequence of str, optional
        The blocks; all of them in their order by default.
    monotone : bool, default=True
        Where the patterns of missing entries are nested, shrink the covariance of the rows that
        have both sides of each regression, and not the estimate from all rows: y given x is then
        that of the complete pairs at this shrinkage. Of the independent target only.

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
        scale: bool | Literal["block"] = False,
        target: Target = "independent",
        blocks: Sequence[str] | None = None,
        monotone: bool = True,
    ) -> None:
        self.names = moments.names if blocks is None else tuple(blocks)
        check_aligned(target, {name: moments.width(name) for name in self.names})
        each = shrinkage_tuple(shrinkage, len(self.names))
        if "cv" in each:
            raise ValueError("shrinkage='cv' is chosen on fold moments: pass numbers or 'auto'")
        self.shrinkage = shrinkage_numbers(moments, self.names, each, scale=scale is True)
        self.scale, self.target = scale, target
        if moments.incomplete and moments.names != self.names:
            # Other blocks would contribute to the estimate of the entries that are missing.
            moments = moments.select(*self.names)
        self.unshrunk = moments
        regressions = monotone and target == "independent"
        if regressions and moments.incomplete and all(self.shrinkage):
            self.unshrunk = _before_regression(moments, self.shrinkage, scale is True)
        self._whitened: dict[str, Whitened] = {}
        self._constants: dict[tuple[str, str], float] = {}

    @property
    def n(self) -> float:
        """The sum of the weights."""
        return self.unshrunk.n

    @property
    def rows(self) -> int:
        """The number of rows of positive weight."""
        return self.unshrunk.rows

    def freedom(self, ddof: float = 1) -> float:
        """What a scatter is divided by for a covariance."""
        return self.unshrunk.freedom(ddof)

    def width(self, name: str) -> int:
        """The number of columns of a block."""
        return self.unshrunk.width(name)

    def mean(self, name: str) -> Array:
        """The mean of a block in the units of the data, shape (p,)."""
        return self.unshrunk.mean(name)

    @functools.cached_property
    def sample(self) -> Moments:
        """The unshrunken moments in the units of the shrinkage."""
        if self.scale == "block":
            units = [self.units(name) for name in self.unshrunk.names]
            return self.unshrunk.scaled(1 / namespace(units[0]).concat(units))
        return self.unshrunk.standardized() if self.scale else self.unshrunk

    def units(self, name: str) -> Array:
        """What columns are divided by, shape (p,): see `scale`; 1 for a constant one."""
        if self.scale is True:
            return standard_deviations(self.unshrunk, name)
        mean = self.unshrunk.mean(name)
        return self.unit(name) * namespace(mean).ones_like(mean)

    def unit(self, name: str) -> float:
        """The one number by which all columns of a block are divided; 1 if each has its own."""
        xp = namespace(self.unshrunk.mean(name))
        deviation = xp.sqrt(self.unshrunk.variance(name)) if self.scale == "block" else None
        if deviation is None or not (largest := float(xp.max(deviation))) > 0:
            return 1.0
        return largest * math.sqrt(float(xp.mean((deviation / largest) ** 2)))

    def _shrinkage_of(self, name: str) -> float:
        if name not in self.names:
            raise KeyError(f"no block {name!r}: the blocks are {', '.join(self.names)}")
        return self.shrinkage[self.names.index(name)]

    def gain(self, a: str, b: str) -> float:
        """The factor of the unshrunken covariance of two blocks, ``sqrt((1 - s_a)(1 - s_b))``."""
        if a == b:
            return 1 - self._shrinkage_of(a)
        return float(((1 - self._shrinkage_of(a)) * (1 - self._shrinkage_of(b))) ** 0.5)

    def ridge(self, name: str) -> float:
        """What is added to the diagonal of a block, ``s tr(C) / p``."""
        if not self._shrinkage_of(name):
            return 0.0
        variance = self.sample.variance(name)
        total = float(namespace(variance).sum(variance))
        return self._shrinkage_of(name) * total / self.width(name)

    def shift(self, a: str, b: str) -> float:
        """What is added to the diagonal of the covariance of two blocks.

        Within a block ``s tr(C) / p``; between two 0, and ``sqrt(s_a s_b) tr(C_ab) / p`` with the
        aligned target.
        """
        if a == b:
            return self.ridge(a)
        if self.target == "independent" or not (self._shrinkage_of(a) and self._shrinkage_of(b)):
            return 0.0
        if (a, b) not in self._constants:
            c = aligned_constant(self.sample, a, b)
            self._constants[a, b] = self._constants[b, a] = c
        # The root of both ridges is sqrt(s_a s_b) in the units in which c is a correlation.
        return float(self._constants[a, b] * (self.ridge(a) * self.ridge(b)) ** 0.5)

    def cov(self, a: str, b: str | None = None) -> Array:
        """The shrunken covariance of two blocks (of one with itself), shape (p_a, p_b)."""
        b = b or a
        C, shift = self.gain(a, b) * self.sample.cov(a, b), self.shift(a, b)
        if not shift:
            return C
        xp = namespace(C)
        return C + shift * xp.eye(C.shape[0], dtype=xp.float64, device=device_of(C))

    def project(self, a: str, b: str, weights: Array) -> Array:
        """``cov(a, b) @ weights`` without forming a wide block."""
        product = self.gain(a, b) * self.project_sample(a, b, weights)
        shift = self.shift(a, b)
        return product + shift * weights if shift else product

    def project_sample(self, a: str, b: str, weights: Array) -> Array:
        """The same with the unshrunken covariance."""
        return self.sample.projected_scatter(a, b, weights) / self.freedom()

    def whiten(self, name: str) -> Whitened:
        """A block in coordinates in which its shrunken covariance is the identity."""
        if name not in self._whitened:
            keep, ridge = 1 - self._shrinkage_of(name), self.ridge(name)
            white = self.sample.whiten(name, keep=keep, ridge=ridge)
            if self.target == "aligned" and ridge > 0 and white.rank < self.width(name):
                # Beyond the range of the rows the target alone relates the views.
                white = replace(white, factor=whitening.factor(self.cov(name)))
            self._whitened[name] = white
        return self._whitened[name]

    def cross(self, a: str, b: str) -> tuple[Array, float]:
        """``W_a' C_ab W_b`` of whitened blocks, as a matrix and its factor.

        The factor is `gain`, apart from the matrix so that at shrinkage 1, where blocks become
        independent, the directions are those of the limit; 1 where the target is not 0.
        """
        left, right = self.whiten(a), self.whiten(b)
        gain, shift, inner = self.gain(a, b), self.shift(a, b), left.cross(right)
        if not shift:
            return inner, gain
        return gain * inner + shift * (left.weights.mT @ right.weights), 1.0

    @property
    def ranks(self) -> dict[str, int]:
        """The ranks of the blocks that were whitened."""
        return {name: white.rank for name, white in self._whitened.items()}

    @property
    def condition(self) -> float:
        """The largest condition number of the blocks that were whitened; 1 before."""
        return max((white.condition for white in self._whitened.values()), default=1.0)


def _before_regression(moments: Moments, shrinkage: Sequence[float], scale: bool) -> Moments:
    """Moments in which each regression of nested patterns is shrunk by itself.

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
