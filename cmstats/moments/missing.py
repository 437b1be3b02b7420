"""Moments of incomplete rows: the mean and the covariance estimated from patterns.

The moments of the rows of each pattern are sufficient for a Gaussian, so an estimate costs the
same whatever the number of rows. Nested patterns (pictures without a text beside pairs) have a
closed form; all others take EM.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from cmstats.arrays import Array, NotFiniteError, device_of, namespace, observations, warn
from cmstats.kernels import whitening
from cmstats.kernels.linalg import block_matrix
from cmstats.moments.em import Problem, SingularError, em, evident_prior, varying_masks
from cmstats.moments.patterns import Mask
from cmstats.moments.sums import Scatter

__all__ = [
    "Estimate",
    "NotObservedError",
    "check_observed",
    "estimate",
    "seen_together",
    "shrunken_estimate",
]

SCARCE = 3
"""A prior is used if two columns are observed together in at most so many rows per column."""
GAPS = 0.25
"""The prior is whole where some two columns lack this share of the rows, a part of it below.

So a first gap moves estimates little. Of 60 rows of 35 columns with one entry in a thousand missing
the whole prior moves covariances by 47 % of their norm, and this one by 14 % and nearer to the
truth (relative errors .50 and .49, of maximum likelihood .56); with one in a hundred .51 and .46.
"""


class NotObservedError(NotFiniteError):
    """A column that no row has, or two blocks that no row has both of."""

    @property
    def fact(self) -> str:
        """The message without its advice: what is never observed."""
        return str(self).rpartition(": ")[0]


MOST = 1e12
"""Beyond this number more rows change no digit of an estimate."""


@dataclass(frozen=True)
class Estimate:
    """How the moments of incomplete rows were found.

    Attributes
    ----------
    sums : Scatter
        ``matrix / (n - 1)`` is the covariance.
    method : {"complete", "monotone", "em"}
        "monotone" is the closed form for nested patterns.
    prior : float
        The number of pseudo-rows of the prior; 0 for maximum likelihood.
    n_iter : int
        Iterations of EM.
    converged : bool
    log_likelihood : tuple of float
        Of the observed entries, with the prior's penalty, at each iterate of EM.
    """

    sums: Scatter
    method: Literal["complete", "monotone", "em"]
    prior: float = 0.0
    n_iter: int = 0
    converged: bool = True
    log_likelihood: tuple[float, ...] = ()


def estimate(
    groups: Sequence[tuple[Mask, Scatter]],
    names: Sequence[str],
    widths: Sequence[int],
    *,
    prior: float | None = None,
    ddof: float = 1.0,
    tol: float = 1e-11,
    max_iter: int = 2000,
) -> Estimate:
    r"""The mean and the covariance of all columns from the moments of patterns.

    Nested patterns have a closed form (Anderson 1957): the columns that are observed most have
    the moments of all rows, the next ones are regressed on them in the rows that have both, and
    so on. With pictures without a text beside pairs, p(text | picture) is that of the pairs.
    Other tables take EM, from the moments of each two columns where both are observed.

    Parameters
    ----------
    groups : sequence of (mask of the observed columns, Scatter)
    names, widths : names of the blocks, and their numbers of columns
    prior : float, optional
        The number nu of pseudo-rows of an inverse-Wishart prior. The log-likelihood is lessened
        by ``nu/2 [log |S| + tr(S^-1 T)]``, T diagonal with the mean variance of each block. By
        default there are none, but where some two columns are observed together in at most
        `SCARCE` rows a column, or the likelihood has no maximum, there are as many as make
        the complete rows most probable (`evident_prior`); where less than the share `GAPS` of the
        rows lacks one of any two columns, in proportion fewer.
    ddof : float, default=1
        Of each regression of the closed form: the covariance of y given x is that of the
        complete pairs with this ddof.
    tol : float, default=1e-11
        EM ends where an iteration moves no mean and no covariance by more, in units of the
        columns' standard deviations.
    max_iter : int, default=2000

    Returns
    -------
    Estimate

    Raises
    ------
    NotObservedError
        If a column is never observed, or two blocks never in the same row.

    Notes
    -----
    The prior is conjugate: pseudo-rows beside the complete ones. So the closed form stays one,
    and the penalised likelihood rises in each iteration. (Shrinkage inside of the M-step belongs
    to no likelihood, and compounds with what is missing.) EM is accelerated by squared
    extrapolation, which is kept only where the likelihood does not fall.

    References
    ----------
    Anderson, T. W. (1957). Maximum likelihood estimates for a multivariate normal distribution
    when some observations are missing. J. American Statistical Association 52.
    Little, R. J. A. and Rubin, D. B. (2002). Statistical Analysis with Missing Data, 2nd ed.
    Varadhan, R. and Roland, C. (2008). Simple and globally convergent methods for accelerating
    the convergence of any EM algorithm. Scandinavian J. Statistics 35.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import Moments
    >>> x = np.arange(12.0)
    >>> y = np.where(x < 9, 2 * x + 1, np.nan)
    >>> m = Moments.from_data(x=x, y=y, missing="em")
    >>> m.estimate.method, float(m.mean("x")[0]), round(float(m.mean("y")[0]), 9)
    ('monotone', 5.5, 12.0)
    """
    groups, unit = _counting(groups)
    joint = check_observed(groups, names, widths)
    if len(groups) == 1:
        return Estimate(groups[0][1].reweighted(unit), "complete")
    problem = Problem.of(groups, widths)
    d = problem.varying.size
    least = joint[np.ix_(problem.varying, problem.varying)].min(initial=np.inf)
    whole = evident_prior(problem) if prior is None and least <= SCARCE * d else 0.0
    nu = 0.0 if prior is None else float(prior)
    if whole:
        nu = whole * min(1.0, (1 - least / sum(sums.n for _, sums in groups)) / GAPS)
    chain = _chain(problem.masks)
    if chain is not None:
        mean, covariance, _ = _closed_form(problem, chain, nu, ddof)
        sums = problem.restored(mean, covariance, ddof).reweighted(unit)
        return Estimate(sums, "monotone", nu)
    try:
        found = em(problem, nu, tol, max_iter)
    except SingularError:
        nu = whole or nu or evident_prior(problem)
        found = em(problem, nu, tol, max_iter)
    (mean, covariance), path, n_iter, converged = found
    if not converged:
        warn(
            f"EM over {len(groups)} patterns of missing entries did not converge in {max_iter} "
            "iterations: some columns are hardly ever observed together; drop them, or impute",
            ConvergenceWarning,
        )
    sums = problem.restored(mean, covariance, 0.0).reweighted(unit)
    return Estimate(sums, "em", nu, n_iter, converged, tuple(path))


def seen_together(groups: Sequence[tuple[Mask, float]], widths: Sequence[int]) -> float:
    """The least weight of the rows with entries of any two blocks; 0 if a column has none.

    `groups` are the masks of patterns of rows and their weights.
    """
    joint = _joint_weights(groups, sum(widths))
    starts = np.cumsum([0, *widths])[:-1]
    if not np.diagonal(joint).all():
        return 0.0
    each = np.maximum.reduceat(np.maximum.reduceat(joint, starts, axis=0), starts, axis=1)
    return float(each.min())


def _counting(
    groups: Sequence[tuple[Mask, Scatter]],
) -> tuple[list[tuple[Mask, Scatter]], float]:
    """The patterns that have rows, weights as numbers of rows of a size to compute with.

    Relative weights are as many as there are rows. Beyond `MOST` more rows change no digit.

    Returns
    -------
    groups : list
    unit : float
        The weight of a row.
    """
    found = [(mask, sums) for mask, sums in groups if sums.n > 0]
    n = sum(sums.n for _, sums in found)
    unit = n / min(MOST, observations(n, sum(sums.rows for _, sums in found))) if n else 1.0
    if unit != 1:
        found = [(mask, sums.reweighted(1 / unit)) for mask, sums in found]
    return found, unit


def _joint_weights(groups: Sequence[tuple[Mask, float]], d: int) -> np.ndarray[Any, Any]:
    """The weight of the rows that have both of each two columns, shape (d, d)."""
    masks = np.array([mask for mask, _ in groups], dtype=float).reshape(-1, d)
    weights: np.ndarray[Any, Any] = (masks.T * [n for _, n in groups]) @ masks
    return weights


def check_observed(
    groups: Sequence[tuple[Mask, Scatter]], names: Sequence[str], widths: Sequence[int]
) -> np.ndarray[Any, Any]:
    """The weight of the rows that have both of each two columns, shape (d, d).

    Raises
    ------
    NotObservedError
        If a column is never observed, or two blocks never in the same row.
    """
    joint = _joint_weights([(mask, sums.n) for mask, sums in groups], sum(widths))
    ends = np.cumsum([0, *widths])
    cuts = [slice(*ends[i : i + 2]) for i in range(len(names))]
    for name, cut in zip(names, cuts, strict=True):
        never = np.flatnonzero(np.diagonal(joint)[cut] == 0)
        if never.size == cut.stop - cut.start:
            message = f"{name} is NaN in every row: there is nothing to estimate it from"
            raise NotObservedError(message, name)
        if never.size:
            which = "is" if never.size == 1 else f"and {never.size - 1} more are"
            message = f"column {never[0]} of {name} {which} NaN in every row: drop it"
            raise NotObservedError(message, name, int(never[0]))
    for (a, at), (b, bt) in itertools.combinations(zip(names, cuts, strict=True), 2):
        if not joint[at, bt].any():
            raise NotObservedError(
                f"{a} and {b} are never observed in the same row: their correlation cannot be "
                "known; add rows that have both",
                a,
            )
    return joint


def _chain(masks: np.ndarray[Any, Any]) -> list[int] | None:
    """The patterns ordered from most columns to fewest if they are nested; None otherwise."""
    order = np.argsort(-masks.sum(axis=1), kind="stable")
    masks = masks[order]
    return order.tolist() if bool((masks[1:] <= masks[:-1]).all()) else None


def shrunken_estimate(
    groups: Sequence[tuple[Mask, Scatter]],
    widths: Sequence[int],
    shrinkage: Sequence[float],
    *,
    scale: bool = False,
) -> Scatter | None:
    """Moments whose coherent shrinkage is the closed form of shrunken regressions.

    Shrinking an estimate afterwards leaves each of its regressions as it was. Here the
    covariance of the rows that have both is shrunk before anything is regressed, so that y
    given x is that of these rows at this shrinkage, and x that of all rows.

    Parameters
    ----------
    groups, widths
        As in `estimate`.
    shrinkage : sequence of float, one for each block
    scale : bool, default=False
        Whether the target is each column's variance, or its block's mean variance.

    Returns
    -------
    Scatter or None
        None where patterns are not nested.
    """
    groups, unit = _counting(groups)
    chain = _chain(varying_masks(groups))
    if chain is None:
        return None
    problem = Problem.of(groups, widths)
    xp = namespace(problem.center)
    blocks = np.repeat(np.arange(len(widths)), widths)[problem.varying]
    # At shrinkage 1 the cross-covariance is 0; just below, its direction remains.
    shrink = _Shrinkage(blocks, np.minimum(shrinkage, 1 - 1e-8)[blocks], scale)
    mean, C, ridge = _closed_form(problem, chain, 0.0, 1.0, shrink)
    roots = xp.asarray(np.sqrt(1 - shrink.amount), device=device_of(C))
    eye = xp.eye(C.shape[0], dtype=xp.float64, device=device_of(C))
    C = (C - ridge[:, None] * eye) / roots[:, None] / roots[None, :]
    return problem.restored(mean, C, 1.0).reweighted(unit)


@dataclass(frozen=True)
class _Shrinkage:
    """The block and the shrinkage of each column that varies, on the host."""

    blocks: np.ndarray[Any, Any]
    amount: np.ndarray[Any, Any]
    scale: bool

    def of(self, S: Array, columns: np.ndarray[Any, Any], unit: Array) -> tuple[Array, Array]:
        """The covariance of these columns after shrinkage, and what was added to its diagonal."""
        xp, device = namespace(S), device_of(S)
        s = xp.asarray(self.amount[columns], device=device)
        variance = xp.linalg.diagonal(S)
        if not self.scale:
            same = self.blocks[columns][:, None] == self.blocks[columns][None, :]
            average = xp.asarray(same / same.sum(axis=1, keepdims=True), device=device)
            variance = average @ (variance * unit**2) / unit**2
        roots = xp.sqrt(1 - s)
        eye = xp.eye(S.shape[0], dtype=xp.float64, device=device)
        return S * roots[:, None] * roots[None, :] + (s * variance)[:, None] * eye, s * variance


def _closed_form(
    problem: Problem, chain: list[int], nu: float, ddof: float, shrink: _Shrinkage | None = None
) -> tuple[Array, Array, Array]:
    """Anderson's: columns that are observed less are regressed on those observed more.

    Returns
    -------
    mean, covariance : in the problem's units
    ridge : array of shape (d,)
        What shrinkage added to the variance of each column where it was regressed.
    """
    xp, device = namespace(problem.center), device_of(problem.center)
    # Sorted by how often they are observed, the columns of a pattern are the first few.
    order = np.argsort(-problem.masks.sum(axis=0), kind="stable")
    rows: Scatter | None = None
    having: dict[int, Scatter] = {}
    for k in chain:
        seen = np.flatnonzero(problem.masks[k])
        own = problem.patterns[k].take(np.searchsorted(seen, order[: seen.size]))
        rows = own if rows is None else rows.take(np.arange(seen.size)) + own
        having[seen.size] = rows  # those with at least these columns
    prior = xp.take(problem.prior(nu), xp.asarray(order, device=device), axis=0)
    prior = xp.take(prior, xp.asarray(order, device=device), axis=1)
    mean, covariance, ridge = problem.target[:0], prior[:0, :0], problem.target[:0]
    unit = xp.take(problem.unit, xp.asarray(problem.varying[order], device=device))
    for end in sorted(having):
        sums, a = having[end], mean.shape[0]
        # A single row has no variance of its own, which is no reason to divide by zero.
        freedom = max(sums.n - ddof, 0.0) + nu or 1.0
        S, added = (sums.matrix + prior[:end, :end]) / freedom, 0 * sums.mean
        if shrink is not None:
            S, added = shrink.of(S, order[:end], unit[:end])
        ridge = xp.concat([ridge, added[a:]])
        # E[b | a] and cov[b | a] in the rows that have both, on top of what is known of a.
        W = _weights(S[:a, :a])
        half = W.mT @ S[:a, a:]
        slopes = W @ half
        rest = S[a:, a:] - half.mT @ half
        cross = covariance @ slopes
        corner = rest + slopes.mT @ cross
        mean = xp.concat([mean, sums.mean[a:] + (mean - sums.mean[:a]) @ slopes])
        covariance = block_matrix([[covariance, cross], [cross.mT, corner]])
    back = xp.asarray(np.argsort(order), device=device)
    covariance = xp.take(xp.take(covariance, back, axis=0), back, axis=1)
    return xp.take(mean, back), covariance, xp.take(ridge, back)


def _weights(S: Array) -> Array:
    return whitening.factor(S).weights if S.shape[0] else S
