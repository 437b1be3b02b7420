"""EM for the mean and the covariance of a Gaussian, on patterns of observed columns.

An iteration works on the moments of the patterns and not on rows (Little and Rubin 2002, section
11.2): it fills in the conditional moments of what each pattern lacks, and takes the moments of
everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import multigammaln

from cmstats.arrays import Array, device_of, namespace, row_slices, to_numpy
from cmstats.kernels import whitening
from cmstats.kernels.linalg import block_matrix
from cmstats.moments.patterns import Mask
from cmstats.moments.sums import Scatter, degrees_of_freedom

__all__ = ["Problem", "SingularError", "em", "evident_prior", "varying_masks"]

STACK = 1 << 18
"""The size of a stack of matrices, in numbers: many small matrices, or one large one."""

ROUNDING = 16.0
"""The rounding error of an iteration in units of the precision and the condition number."""

CONDITION = 1e14
"""A covariance of a larger condition number counts as singular."""


class SingularError(Exception):
    """The covariance of some observed columns is singular: the likelihood has no maximum."""


@dataclass(frozen=True)
class Problem:
    """Patterns of the columns that vary, about their available means, in standard deviations.

    Attributes
    ----------
    masks : bool array of shape (n_patterns, d), on the host
        Which of the columns that vary are observed.
    patterns : list of Scatter
        Over the observed columns.
    varying : int array of shape (d,), on the host
        Which columns vary.
    target : array of shape (d,)
        The prior's variances: the mean variance of each block, in these units.
    center, unit : arrays of shape (width,)
        Of all columns.
    n : float
    rows : int
    log_units : tuple of float
        The sum of log units over the columns, and over all observed entries.
    """

    masks: np.ndarray[Any, Any]
    patterns: list[Scatter]
    varying: np.ndarray[Any, Any]
    target: Array
    center: Array
    unit: Array
    n: float
    rows: int
    log_units: tuple[float, float]

    @staticmethod
    def of(groups: Sequence[tuple[Mask, Scatter]], widths: Sequence[int]) -> Problem:
        """The problem of a table's masks and sums; blocks have these widths."""
        first = groups[0][1].mean
        xp, device = namespace(first), device_of(first)
        center, variance, counts = _available(groups)
        varies = _exceeds_rounding(variance, center)
        blocks = np.split(variance, np.cumsum(widths)[:-1])
        target = np.concatenate([np.full(b.size, b.mean()) for b in blocks])
        unit = np.sqrt(np.where(varies, variance, 1.0))
        varying = np.flatnonzero(varies)

        def put(a: np.ndarray[Any, Any]) -> Array:
            return xp.asarray(a, device=device)

        patterns = []
        for mask, sums in groups:
            own = sums.take(np.flatnonzero(varies[mask]))
            c, u = put(center[mask & varies]), put(unit[mask & varies])
            S = own.matrix / u[:, None] / u[None, :]
            patterns.append(Scatter(own.n, (own.mean - c) / u, S, own.rows))
        return Problem(
            np.array([mask[varying] for mask, _ in groups]),
            patterns,
            varying,
            put((target / unit**2)[varying]),
            put(center),
            put(unit),
            sum(sums.n for _, sums in groups),
            sum(sums.rows for _, sums in groups),
            (float(np.log(unit).sum()), float((counts * np.log(unit)).sum())),
        )

    def prior(self, nu: float) -> Array:
        """The scatter of the prior's pseudo-rows, (d, d)."""
        return nu * self.target[:, None] * self._identity()

    def _identity(self) -> Array:
        xp = namespace(self.target)
        return xp.eye(self.varying.size, dtype=xp.float64, device=device_of(self.target))

    def stacks(self) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Weights (k,), 1 for observed (k, d), means (k, d) and scatters (k, d, d) among zeros."""
        xp, device = namespace(self.target), device_of(self.target)
        eye = self._identity()
        for take in row_slices(len(self.patterns), max(1, STACK // max(1, eye.shape[0] ** 2))):
            means, scatters = [], []
            for mask, s in zip(self.masks[take], self.patterns[take], strict=True):
                spread = xp.take(eye, xp.asarray(np.flatnonzero(mask), device=device), axis=0)
                means.append(s.mean @ spread)
                half = s.matrix @ spread
                scatters.append(spread.mT @ half)
            n = xp.asarray(np.array([s.n for s in self.patterns[take]], float), device=device)
            seen = xp.asarray(self.masks[take].astype(float), device=device)
            yield n, seen, xp.stack(means), xp.stack(scatters)

    def available(self) -> tuple[Array, float]:
        """Correlations over the rows that have both columns, and the least weight of these."""
        xp = namespace(self.target)
        total: Array = 0 * self._identity()
        counts = total
        for n, seen, mean, scatter in self.stacks():
            heavy = n[:, None] * mean
            total = total + xp.sum(scatter, axis=0) + heavy.mT @ mean
            counts = counts + (n[:, None] * seen).mT @ seen
        least = max(float(xp.min(counts)), 1.0)
        R = total / xp.clip(counts, 1.0, None)
        values, vectors = xp.linalg.eigh(0.5 * (R + R.mT))
        floor = 1e-3 * float(values[-1])
        if (
            float(values[0]) < floor
        ):  # correlations over different rows need not be positive semi-definite
            values = xp.clip(values, floor, None)
            R = vectors * values[None, :] @ vectors.mT
        return R, least

    def restored(self, mean: Array, covariance: Array, ddof: float) -> Scatter:
        """Sums of all columns in their own units; a column that does not vary has no scatter."""
        xp, device = namespace(self.center), device_of(self.center)
        d, k = self.center.shape[0], self.varying.size
        others = np.setdiff1d(np.arange(d), self.varying)
        back = xp.asarray(np.argsort(np.concatenate([self.varying, others])), device=device)

        def zeros(*shape: int) -> Array:
            return xp.zeros(shape, dtype=xp.float64, device=device)

        S = block_matrix([[covariance, zeros(k, d - k)], [zeros(d - k, k), zeros(d - k, d - k)]])
        S = xp.take(xp.take(S, back, axis=0), back, axis=1)
        S = S * (
            degrees_of_freedom(self.n, self.rows, ddof) * self.unit[:, None] * self.unit[None, :]
        )
        S = 0.5 * (S + S.mT)
        mean = self.center + self.unit * xp.take(xp.concat([mean, zeros(d - k)]), back)
        return Scatter(self.n, mean, S, self.rows)


def _available(groups: Sequence[tuple[Mask, Scatter]]) -> tuple[np.ndarray[Any, Any], ...]:
    """Mean, variance and weight of each column over the rows that have it, on the host."""
    d = groups[0][0].size
    n, mean, scatter = np.zeros(d), np.zeros(d), np.zeros(d)
    for mask, sums in groups:
        own = to_numpy(sums.mean)
        together = n[mask] + sums.n
        scatter[mask] += to_numpy(namespace(sums.matrix).linalg.diagonal(sums.matrix))
        scatter[mask] += n[mask] * sums.n / together * (own - mean[mask]) ** 2
        mean[mask] = (n[mask] / together) * mean[mask] + (sums.n / together) * own
        n[mask] = together
    return mean, scatter / n, n


def _exceeds_rounding(variance: Any, center: Any) -> Any:
    """Whether columns vary by more than the rounding errors of values near to their means."""
    return variance > (8 * whitening.EPS * center) ** 2


def varying_masks(groups: Sequence[tuple[Mask, Scatter]]) -> np.ndarray[Any, Any]:
    """`Problem.masks` without the problem, which takes three times as long."""
    center, variance, _ = _available(groups)
    return np.array([mask for mask, _ in groups])[:, _exceeds_rounding(variance, center)]


def evident_prior(problem: Problem) -> float:
    r"""The number of pseudo-rows under which the complete rows are most probable.

    With an inverse-Wishart prior of mean T and nu + d + 1 degrees of freedom the scatter S of n
    rows has, up to a constant, the density

    .. math:: \frac{\Gamma_d((n + \nu + d) / 2)}{\Gamma_d((\nu + d + 1) / 2)}
        |\nu T|^{(\nu + d + 1) / 2} |\nu T + S|^{-(n + \nu + d) / 2}

    and the covariance the posterior mean (S + nu T) / (n - 1 + nu). Where no row is complete, or
    more rows have each two columns, the available correlations stand in for S.
    """
    xp = namespace(problem.target)
    d = problem.varying.size
    whole = [s for mask, s in zip(problem.masks, problem.patterns, strict=True) if mask.all()]
    R, n = problem.available()
    S = n * R
    if whole and whole[0].n >= max(n, 2.0):
        S, n = whole[0].matrix, whole[0].n
    n = max(n, 2.0)
    unit = 1 / xp.sqrt(problem.target)
    S = S * unit[:, None] * unit[None, :]
    values = np.maximum(to_numpy(xp.linalg.eigvalsh(S)), 0.0)

    def improbability(log_nu: float) -> float:
        a, b = (np.exp(log_nu) + d + 1) / 2, (np.exp(log_nu) + d + n) / 2
        gain = multigammaln(b, d) - multigammaln(a, d)
        return float(b * np.log(np.exp(log_nu) + values).sum() - a * d * log_nu - gain)

    # The minimum is found on a grid first: the function need not have a single one.
    grid = np.linspace(np.log(1e-4 * n), np.log(1e3 * (n + d)), 33)
    at = int(np.argmin([improbability(v) for v in grid]))
    bounds = grid[max(at - 1, 0)], grid[min(at + 1, 32)]
    best = minimize_scalar(improbability, bounds=bounds, method="bounded")
    return float(np.exp(best.x))


Point = tuple[Array, Array]


def em(
    problem: Problem, nu: float, tol: float, max_iter: int
) -> tuple[Point, list[float], int, bool]:
    """The maximum of the penalised likelihood, by EM with squared extrapolation.

    Returns
    -------
    point : (mean, covariance), in the problem's units
    path : list of float
        The penalised log-likelihood of each iterate that was kept; it does not fall.
    n_iter : int
    converged : bool

    Raises
    ------
    SingularError
        If there is no prior, and some covariance becomes singular.
    """
    stacks = list(problem.stacks())
    R, n = problem.available()
    point = (0 * problem.target, (n * R + problem.prior(nu)) / (n + nu))
    path: list[float] = []
    value, after = step(problem, stacks, point, nu)
    n_iter = 1
    while n_iter < max_iter:
        path.append(value)
        moved = _distance(point, after)
        if moved <= tol or (moved < 1e-6 and moved <= _rounding(after[1])):
            return after, path, n_iter, True
        before, point = point, after
        value, after = step(problem, stacks, point, nu)
        n_iter += 1
        # Every second iteration extrapolates, and keeps the point if its likelihood is larger.
        jump = _extrapolated(before, point, after) if len(path) % 2 else None
        if jump is not None:
            try:
                jumped, landed = step(problem, stacks, jump, nu)
            except SingularError:  # the step was too long
                continue
            n_iter += 1
            if jumped >= value:
                path.append(value)
                point, value, after = jump, jumped, landed
    return after, [*path, value], n_iter, False


def _rounding(S: Array) -> float:
    """How far an iteration moves a covariance by rounding errors alone, where it is collinear."""
    xp = namespace(S)
    inverse = xp.linalg.inv(S)
    largest = float(xp.max(xp.linalg.diagonal(S)) * xp.max(xp.linalg.diagonal(inverse)))
    return ROUNDING * whitening.EPS * largest


def _distance(a: Point, b: Point) -> float:
    xp = namespace(a[0])
    return max(float(xp.max(xp.abs(p - q))) for p, q in zip(a, b, strict=True))


def _extrapolated(first: Point, second: Point, third: Point) -> Point | None:
    """The squared step of Varadhan and Roland (2008); None if it is no longer than EM's."""
    xp = namespace(first[0])
    moves = [b - a for a, b in zip(first, second, strict=True)]
    bends = [c - b - m for b, c, m in zip(second, third, moves, strict=True)]
    bend = sum(float(xp.sum(v * v)) for v in bends)
    length = (sum(float(xp.sum(m * m)) for m in moves) / bend) ** 0.5 if bend > 0 else 0.0
    if length <= 1:
        return None
    mean, S = (
        a + 2 * length * m + length * length * v
        for a, m, v in zip(first, moves, bends, strict=True)
    )
    return mean, S


def step(
    problem: Problem, stacks: Sequence[tuple[Array, ...]], point: Point, nu: float
) -> tuple[float, Point]:
    """The penalised log-likelihood of a point, and the point after one iteration of EM.

    Raises
    ------
    SingularError
        If a covariance that has to be inverted is not positive definite.
    """
    mean, S = point
    xp = namespace(mean)
    observed = sum(s.n * s.mean.shape[0] for s in problem.patterns)
    value = -0.5 * observed * float(np.log(2 * np.pi)) - problem.log_units[1]
    inverse, logdet = _inverses(S[None, :, :])
    if nu:
        penalty = logdet[0] + xp.sum(problem.target * xp.linalg.diagonal(inverse[0, :, :]))
        value -= 0.5 * nu * (float(penalty) + 2 * problem.log_units[0])
    moved, total = 0 * mean, problem.prior(nu)
    eye = problem._identity()
    for n, seen, means, scatters in stacks:
        both = seen[:, :, None] * seen[:, None, :]
        lost = 1.0 - seen
        # With ones on the diagonal for what is lost, all patterns are matrices of one size.
        P, logdet = _inverses(S * both + lost[:, :, None] * eye)
        P = P * both
        slopes = S @ P
        apart = (means - mean) * seen
        about = scatters + n[:, None, None] * apart[:, :, None] * apart[:, None, :]
        value -= 0.5 * float(xp.sum(n * logdet) + xp.sum(P * about))
        # E[x | seen] = fill (x - mean), and the covariance of what is lost given what is seen
        fill = seen[:, :, None] * eye + lost[:, :, None] * slopes
        rest = (S - slopes @ S) * lost[:, :, None] * lost[:, None, :]
        filled = fill @ about @ fill.mT
        total = total + xp.sum(filled + n[:, None, None] * rest, axis=0)
        moved = moved + xp.sum(n[:, None] * (fill @ apart[:, :, None])[:, :, 0], axis=0)
    shift = moved / problem.n
    total = total - problem.n * shift[:, None] * shift[None, :]
    total = (total + total.mT) / (2 * (problem.n + nu))
    return value, (mean + shift, total)


def _inverses(A: Array) -> tuple[Array, Array]:
    """Inverses and log-determinants of a stack of positive definite matrices."""
    xp = namespace(A)
    try:
        lower = xp.linalg.cholesky(A)
    except Exception as error:  # each library has its own class for this
        if "LinAlg" not in type(error).__name__:
            raise
        raise SingularError from None
    roots = xp.linalg.diagonal(lower)
    if not bool(xp.all(roots > 0)):  # CuPy returns NaN instead of raising
        raise SingularError
    inverse = xp.linalg.inv(A)
    largest = xp.max(xp.linalg.diagonal(A)) * xp.max(xp.linalg.diagonal(inverse))
    if not float(largest) < CONDITION:
        raise SingularError
    logdet = 2 * xp.sum(xp.log(roots), axis=-1)
    return 0.5 * (inverse + inverse.mT), logdet
