"""Regions for vectors: ellipsoids and intervals whose size is that of held-out residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmstats.arrays import Array, device_of, is_array, namespace, row_slices, to_numpy
from cmstats.inference.conformal import (
    check_calibration,
    conformal_quantile,
    p_values_among,
    within,
)
from cmstats.moments.joint_normal import in_order, observed_groups, pick

__all__ = ["HeldOutResiduals", "Region", "region_of"]

HostArray = np.ndarray[Any, Any]

NUMBERS = 2**22
"""How many numbers are compared at a time."""
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class HeldOutResiduals:
    """What a model missed on rows that it was not fitted to.

    Attributes
    ----------
    model : estimator or None
        The clone that has not seen these rows; None for the model itself.
    residuals : array of shape (n, q), float64
        Of the held-out rows; NaN where y was not observed.
    covariance : array of shape (q, q) or (n, q, q)
        By which residuals are measured.
    """

    model: Any
    residuals: Array
    covariance: Array

    def rows(self, at: HostArray) -> HeldOutResiduals:
        """Some of the rows."""
        C = self.covariance if self.covariance.ndim == 2 else pick(self.covariance, at, 0)
        return replace(self, residuals=pick(self.residuals, at, 0), covariance=C)


@dataclass(frozen=True)
class Given:
    """y given x and given what is observed of y: centres, and the covariance of the rest."""

    centre: Array
    covariance: Array


@dataclass(frozen=True)
class Region:
    """Sets of vectors y, one for each row of x.

    Attributes
    ----------
    kind : {"ellipsoid", "intervals"}
    confidence : float
    simultaneous : bool
        Whether all targets of a row are in their intervals together with this confidence.
    lower, upper : arrays of shape (n, q), or (n,) where y is a vector
        The limits of the intervals, or those between which the ellipsoid lies. What was observed
        of y is both.
    log_volume : array of shape (n,)
        The logarithm of the volume, over the targets that were not observed, of the ellipsoid or
        of the box of the intervals; NaN for a vote of several ellipsoids, whose volume has no
        closed form.
    """

    kind: str
    confidence: float
    simultaneous: bool
    lower: Array
    upper: Array
    log_volume: Array
    _cells: tuple[tuple[HostArray, HostArray, _Cell], ...]

    def of_one_target(self) -> Region:
        """The same where y is a vector: limits of shape (n,)."""
        return replace(self, lower=self.lower[:, 0], upper=self.upper[:, 0])

    def contains(self, y: Any) -> Array:
        """Whether each y lies in its region.

        Parameters
        ----------
        y : array of the shape of `lower`

        Returns
        -------
        array of bool, shape (n,)
            For intervals that are not simultaneous, of the shape of `lower`: one for each target.
        """
        xp = namespace(self.lower)
        y = y if is_array(y) else np.asarray(y)
        y = xp.astype(y, xp.float64)
        if tuple(y.shape) != tuple(self.lower.shape):
            raise ValueError(f"y has shape {tuple(y.shape)}, expected {tuple(self.lower.shape)}")
        if self.kind == "intervals":
            inside = (self.lower <= y) & (y <= self.upper)
            joint = self.simultaneous and inside.ndim == 2
            return xp.all(inside, axis=1) if joint else inside
        y = y[:, None] if y.ndim == 1 else y
        parts = [
            cell.contains(pick(pick(y, rows, 0), columns, 1)) for rows, columns, cell in self._cells
        ]
        return in_order(parts, [rows for rows, *_ in self._cells])


def region_of(
    held: Sequence[HeldOutResiduals],
    given: Sequence[tuple[Array, Array]],
    confidence: float,
    kind: str,
    simultaneous: bool,
    observed: Any = None,
) -> Region:
    """The regions of rows of x, by the held-out residuals of one model or of one for each fold.

    Parameters
    ----------
    held : sequence of HeldOutResiduals
    given : sequence of pairs of arrays
        By model, E[y | x] of the rows, (n, q), and Cov[y | x], (q, q) or (n, q, q).
    confidence : float
    kind : {"ellipsoid", "intervals"}
    simultaneous : bool
        Of intervals: all targets of a row at once.
    observed : array of shape (n, q), optional
        What is known of y; NaN elsewhere.
    """
    mean = given[0][0]
    xp, (n, q) = namespace(mean), mean.shape
    patterns = _patterns(observed, n, q)
    known = None if observed is None else xp.astype(observed, xp.float64)
    cells = []
    how = (confidence, kind, simultaneous)
    for rows, unknown in patterns:
        cells.append((rows, unknown, _Cell.of(held, given, rows, unknown, known, how)))
    order = [rows for rows, *_ in cells]
    parts = [cell.limits() for *_, cell in cells]
    limits = []
    for side in (0, 1):
        whole = [
            _spread_over(part[side], unknown, None if known is None else pick(known, rows, 0))
            for part, (rows, unknown, _) in zip(parts, cells, strict=True)
        ]
        limits.append(in_order(whole, order))
    volume = in_order([cell.log_volume() for *_, cell in cells], order)
    lower, upper, volume = (xp.astype(a, mean.dtype) for a in (*limits, volume))
    return Region(kind, confidence, simultaneous, lower, upper, volume, tuple(cells))


@dataclass(frozen=True)
class _Cell:
    """The regions of rows in which the same entries of y are observed, calibrated for these.

    Attributes
    ----------
    given : list of Given
        By model: the centres of the targets that are not observed, and their covariance.
    calibrations : list of arrays
        By model: held-out distances, sorted, (n,); of intervals for single targets (n, q).
    """

    given: list[Given]
    calibrations: list[Any]
    confidence: float
    kind: str
    simultaneous: bool

    @classmethod
    def of(
        cls,
        held: Sequence[HeldOutResiduals],
        given: Sequence[tuple[Array, Array]],
        rows: HostArray,
        unknown: HostArray,
        known: Any,
        how: tuple[float, str, bool],
    ) -> _Cell:
        confidence, kind, simultaneous = how
        made, calibrations = [], []
        for each, (mean, covariance) in zip(held, given, strict=True):
            xp = namespace(mean)
            mean = xp.astype(pick(mean, rows, 0), xp.float64)
            C = covariance if covariance.ndim == 2 else pick(covariance, rows, 0)
            missed = None if known is None else pick(known, rows, 0) - mean
            shift, rest = _conditional(missed, C, unknown, mean.shape[1])
            centre = pick(mean, unknown, 1)
            made.append(Given(centre if shift is None else centre + shift, rest))
            own_shift, own = _conditional(each.residuals, each.covariance, unknown, mean.shape[1])
            residuals = pick(each.residuals, unknown, 1)
            residuals = residuals if own_shift is None else residuals - own_shift
            calibrations.append(_calibration(residuals, own, kind, simultaneous))
        n = sum(len(a) for a in calibrations)
        if not (kind == "intervals" and not simultaneous):
            check_calibration(n, confidence, "held-out rows")
        return cls(made, calibrations, confidence, kind, simultaneous)

    def contains(self, y: Array) -> Array:
        """Whether these targets lie in the ellipsoid, or in that of enough of the models."""
        distances = [mahalanobis(y - g.centre, g.covariance) for g in self.given]
        return within(p_values_among(self.calibrations, distances), self.confidence)

    def limits(self) -> tuple[Array, Array]:
        """Lower and upper limits of each target."""
        spreads = [_deviations(g.covariance) for g in self.given]
        if len(self.given) == 1:
            reach = self._radius() * spreads[0]
            return self.given[0].centre - reach, self.given[0].centre + reach
        if self.kind == "ellipsoid":
            return self._around_all(spreads)
        sides = [
            [_cross_quantile(sign, self, spreads, j) for j in range(self.given[0].centre.shape[1])]
            for sign in (-1, 1)
        ]
        xp = namespace(self.given[0].centre)
        lower, upper = (xp.stack(side, axis=1) for side in sides)
        return lower, upper

    def _radius(self) -> Any:
        """The quantile of the held-out distances; of single targets one for each."""
        held = self.calibrations[0]
        if held.ndim == 1:
            return conformal_quantile(held, self.confidence)
        xp = namespace(self.given[0].centre)
        each = []
        for column in held.T:
            seen = column[~np.isnan(column)]
            check_calibration(len(seen), self.confidence, "held-out rows of a target")
            each.append(conformal_quantile(seen, self.confidence))
        return xp.asarray(np.array(each), device=device_of(self.given[0].centre))[None, :]

    def _around_all(self, spreads: Sequence[Array]) -> tuple[Array, Array]:
        """Limits between which the vote of ellipsoids lies.

        In a set with the votes of more than ``alpha (n + 1) - 1`` of n held-out rows some model k
        has at least its share ``n_k / n`` of these: the set lies in the union of K ellipsoids.
        """
        n = sum(map(len, self.calibrations))
        xp = namespace(self.given[0].centre)
        lower, upper = [], []
        for g, held, spread in zip(self.given, self.calibrations, spreads, strict=True):
            votes = ((1 - self.confidence) * (n + 1) - 1) * len(held) / n
            radius = float(held[len(held) - max(1, math.ceil(votes))])
            lower.append(g.centre - radius * spread)
            upper.append(g.centre + radius * spread)
        return xp.min(xp.stack(lower), axis=0), xp.max(xp.stack(upper), axis=0)

    def log_volume(self) -> Array:
        """The logarithm of the volume of each row's set; NaN of a vote of ellipsoids."""
        first = self.given[0]
        xp, q = namespace(first.centre), first.centre.shape[1]
        if self.kind == "intervals":
            lower, upper = self.limits()
            return xp.sum(xp.log(upper - lower), axis=1)
        if len(self.given) > 1 or q == 0:
            return xp.sum(0 * first.centre, axis=1) + (math.nan if q else 0.0)
        _, log_det = xp.linalg.slogdet(first.covariance)
        ball = q / 2 * math.log(math.pi) - math.lgamma(q / 2 + 1)
        radius = max(float(self._radius()), TINY)
        return xp.sum(0 * first.centre, axis=1) + ball + q * math.log(radius) + 0.5 * log_det


def mahalanobis(residuals: Array, covariance: Array) -> Array:
    """The Mahalanobis norm of each row, by one covariance or by one for each."""
    xp = namespace(residuals)
    if covariance.ndim == 2:
        solved = xp.linalg.solve(covariance, residuals.mT).mT
    else:
        solved = xp.linalg.solve(covariance, residuals[:, :, None])[:, :, 0]
    return xp.sqrt(xp.clip(xp.sum(residuals * solved, axis=1), 0.0, None))


def _calibration(residuals: Array, covariance: Array, kind: str, simultaneous: bool) -> HostArray:
    """Held-out distances, sorted: of rows, or of each target by itself."""
    if kind == "ellipsoid":
        seen = _complete(residuals)
        C = covariance if covariance.ndim == 2 else pick(covariance, seen, 0)
        return np.sort(to_numpy(mahalanobis(pick(residuals, seen, 0), C)))
    sizes = to_numpy(namespace(residuals).abs(residuals) / _deviations(covariance))
    if not simultaneous:
        return np.sort(sizes, axis=0)
    return np.sort(sizes[_complete(residuals)].max(axis=1, initial=0.0))


def _complete(residuals: Array) -> HostArray:
    """The numbers of the rows without NaN."""
    return np.flatnonzero(~np.isnan(to_numpy(residuals)).any(axis=1))


def _deviations(covariance: Array) -> Array:
    """Standard deviations, (1, q) or (n, q)."""
    xp = namespace(covariance)
    variances = xp.linalg.diagonal(covariance)
    deviations = xp.sqrt(xp.clip(variances, TINY, None))
    return deviations if deviations.ndim == 2 else deviations[None, :]


def _cross_quantile(sign: int, cell: _Cell, spreads: Sequence[Array], j: int) -> Array:
    """One limit of a target by the held-out residuals of all folds (CV+, Barber et al. 2021)."""
    xp = namespace(cell.given[0].centre)
    each = []
    for held in cell.calibrations:
        column = held if held.ndim == 1 else held[:, j]
        each.append(column[~np.isnan(column)])
    n = sum(map(len, each))
    check_calibration(n, cell.confidence, "held-out rows")
    k = math.ceil((n + 1) * cell.confidence - 1e-9)
    total = int(cell.given[0].centre.shape[0])
    parts = []
    for rows in row_slices(total, max(1, NUMBERS // n)):
        reached = []
        for g, spread, column in zip(cell.given, spreads, each, strict=True):
            reach = xp.asarray(column, device=device_of(g.centre))
            width = spread[:, j] if spread.shape[0] == 1 else spread[rows, j]
            reached.append(sign * g.centre[rows, j][:, None] + width[:, None] * reach[None, :])
        parts.append(sign * xp.sort(xp.concat(reached, axis=1), axis=1)[:, k - 1])
    return xp.concat(parts)


def _conditional(missed: Any, covariance: Array, unknown: HostArray, q: int) -> tuple[Any, Array]:
    """How far the known residuals shift the others, and the covariance that remains."""
    known = np.setdiff1d(np.arange(q), unknown)
    rest = _block(covariance, unknown, unknown)
    if not len(known) or missed is None:
        return None, rest
    xp = namespace(covariance)
    across = _block(covariance, known, unknown)
    slopes = xp.linalg.solve(_block(covariance, known, known), across)
    rest = rest - across.mT @ slopes
    rest = 0.5 * (rest + rest.mT)
    seen = pick(missed, known, 1)
    if slopes.ndim == 2:
        return seen @ slopes, rest
    return (seen[:, None, :] @ slopes)[:, 0, :], rest


def _patterns(observed: Any, n: int, q: int) -> list[tuple[HostArray, HostArray]]:
    """Rows by which of their targets are unknown."""
    if observed is None:
        return [(np.arange(n), np.arange(q))]
    if tuple(observed.shape) != (n, q):
        raise ValueError(
            f"observed has shape {tuple(observed.shape)}, expected ({n}, {q}): what is known of "
            "y, NaN elsewhere"
        )
    return [(rows, np.flatnonzero(~mask)) for mask, rows in observed_groups(observed)]


def _block(C: Array, a: HostArray, b: HostArray) -> Array:
    xp = namespace(C)
    left, right = (xp.asarray(at, device=device_of(C)) for at in (a, b))
    return xp.take(xp.take(C, left, axis=-2), right, axis=-1)


def _spread_over(part: Array, unknown: HostArray, known: Any) -> Array:
    """Limits of the unknown targets among those that are known, (n, q)."""
    if known is None:
        return part
    others = np.setdiff1d(np.arange(known.shape[1]), unknown)
    both = namespace(part).concat([part, pick(known, others, 1)], axis=1)
    return pick(both, np.argsort(np.concatenate([unknown, others])), 1)
