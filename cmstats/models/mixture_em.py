"""EM for a mixture of normals of standardised rows: start, M-step and the iteration.

Everything here is in standard units (each column centred and divided by its standard
deviation), so that `reg_covar` and the start do not depend on the units of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cmstats.arrays import Array, device_of, is_lazy, namespace, to_numpy
from cmstats.kernels.mixture import mixture_sums
from cmstats.kernels.parameters import MixtureSums, Normals, Second
from cmstats.kernels.threads import openmp
from cmstats.models.mixture_density import Mixture, Rows
from cmstats.rows.progress import progress_bar

__all__ = ["NOISE_FLOOR", "Maximizer", "Run", "expectation_maximization", "start"]

Kind = Literal["full", "tied", "diagonal", "low_rank"]

EMPTY = 1e-3
"""A component that holds less than this part of a row is empty."""
SAMPLE = 20_000
"""The largest number of rows that k-means starts from."""
NOISE_FLOOR = 1e-10
"""The least noise variance of a low-rank covariance, in units of the data's variance."""


@dataclass(frozen=True)
class Maximizer:
    """The M-step: parameters of highest expected likelihood from the sums of an E-step.

    Parameters
    ----------
    kind : {"full", "tied", "diagonal", "low_rank"}
    rank : int
        Columns of the loadings, for "low_rank".
    reg_covar : float
        Added to the diagonal of every covariance, in units of the variance of each column.
    second_moment : array of shape (d, d)
        The mean of zz' over all standardised rows z, for "tied".
    """

    kind: Kind
    rank: int
    reg_covar: float
    second_moment: Array

    @property
    def second(self) -> Second:
        """Which second moments the E-step has to collect."""
        seconds: dict[Kind, Second] = {"diagonal": "diag", "tied": "none"}
        return seconds.get(self.kind, "full")

    def __call__(self, sums: MixtureSums, old: Mixture) -> Mixture:
        """The new parameters; `old` are those the sums were made with."""
        xp = namespace(sums.n)
        total = xp.sum(sums.n)
        n = xp.where(sums.n > 0, sums.n, 1.0)
        weights, shift = sums.n / total, sums.first / n[:, None]
        means = old.means + shift
        if self.kind == "diagonal":
            spread = xp.clip(sums.second / n[:, None] - shift**2, 0.0, None)
            return Mixture("diag", weights, means, spread + self.reg_covar)
        eye = xp.eye(means.shape[1], dtype=xp.float64, device=device_of(means))
        if self.kind == "tied":
            between = means.mT @ (means * weights[:, None])
            S = self.second_moment - between
        else:
            S = sums.second / n[:, None, None] - shift[:, :, None] * shift[:, None, :]
        S = 0.5 * (S + S.mT) + self.reg_covar * eye
        if self.kind != "low_rank":
            return Mixture("tied" if self.kind == "tied" else "full", weights, means, S)
        noise = old.covariances[1] if old.kind == "low_rank" else None
        return Mixture("low_rank", weights, means, self._factor_analysis(S, noise))

    def _factor_analysis(self, S: Array, noise: Array | None) -> tuple[Array, Array]:
        """Loadings and noise variances that raise the likelihood of S = L L' + diag(D).

        Given D the best loadings are D^1/2 U (l - 1)^1/2 of the leading eigenpairs of
        D^-1/2 S D^-1/2 (Lawley 1940); at these an EM step of factor analysis (Rubin and
        Thayer 1982) leaves L and sets D = diag(S - L L'). Neither lowers the likelihood.
        """
        xp = namespace(S)
        floor = max(self.reg_covar, NOISE_FLOOR)
        diagonal = xp.linalg.diagonal(S)
        if noise is None:  # Joreskog's start
            r, d = self.rank, S.shape[-1]
            eye = xp.eye(d, dtype=xp.float64, device=device_of(S))
            precision = xp.linalg.diagonal(xp.linalg.inv(S + NOISE_FLOOR * eye))
            noise = (1.0 - 0.5 * r / d) / xp.where(precision > 0, precision, 1.0)
            noise = xp.where(noise < diagonal, noise, diagonal)
        for _ in range(3):
            noise = xp.clip(noise, floor, None)
            unit = xp.sqrt(noise)
            scaled = S / (unit[:, :, None] * unit[:, None, :])
            values, vectors = xp.linalg.eigh(scaled)
            values, vectors = values[:, -self.rank :], vectors[:, :, -self.rank :]
            gain = xp.sqrt(xp.clip(values - 1.0, 0.0, None))
            loadings = unit[:, :, None] * vectors * gain[:, None, :]
            noise = diagonal - xp.sum(loadings**2, axis=-1)
        return xp.flip(loadings, axis=-1), xp.clip(noise, floor, None)


@dataclass
class Run:
    """One run of EM.

    Attributes
    ----------
    mixture : Mixture
    bounds : list of float
        The mean log-likelihood of a standardised row before each M-step.
    converged : bool
    reseeded, singular : set of int
        Components that were empty and begun anew, and that needed a ridge to be invertible.
    """

    mixture: Mixture
    bounds: list[float] = field(default_factory=list)
    converged: bool = False
    reseeded: set[int] = field(default_factory=set)
    singular: set[int] = field(default_factory=set)


def expectation_maximization(
    rows: Rows,
    mixture: Mixture,
    maximize: Maximizer,
    *,
    max_iter: int,
    tol: float,
    bar: Any,
) -> Run:
    """EM (Dempster, Laird and Rubin 1977) from given parameters."""
    run = Run(mixture)
    for _ in range(max_iter):
        sums = expectation(rows, run, maximize.second)
        total = float(namespace(sums.n).sum(sums.n))
        run.bounds.append(sums.log_likelihood / total)
        bar.set_postfix_str(f"log-likelihood {run.bounds[-1]:.6g}", refresh=False)
        bar.update()
        run.mixture = maximize(sums, run.mixture)
        if _reseed(run, sums, EMPTY * total / rows.count):
            continue
        if len(run.bounds) > 1 and abs(run.bounds[-1] - run.bounds[-2]) < tol:
            run.converged = True
            break
    _factored(run)
    return run


def expectation(rows: Rows, run: Run, second: Second) -> MixtureSums:
    """The E-step over all rows."""
    normals = _factored(run)
    return mixture_sums(
        rows,
        rows.n,
        normals,
        run.mixture.log_weights,
        rows.weights,
        second=second,
        dtype=rows.dtype,
    )


def _factored(run: Run) -> Normals:
    """The components, factored; singular ones get a ridge first."""
    try:
        return run.mixture.normals()
    except ValueError:
        run.mixture = _with_ridge(run)
        return run.mixture.normals()


def _with_ridge(run: Run) -> Mixture:
    """Singular covariances with 1e-6 of the variance of the data on their diagonal."""
    m = run.mixture
    xp, ridge = namespace(m.means), 1e-6
    if m.kind == "diag":
        low = xp.any(m.covariances < NOISE_FLOOR, axis=1)
        S = xp.where(low[:, None], m.covariances + ridge, m.covariances)
    else:
        stack = m.covariances if m.kind == "full" else m.covariances[None, ...]
        low = xp.linalg.eigvalsh(stack)[:, 0] < NOISE_FLOOR
        eye = xp.eye(m.means.shape[1], dtype=xp.float64, device=device_of(m.means))
        S = xp.where(low[:, None, None], stack + ridge * eye, stack)
        S = S if m.kind == "full" else S[0, ...]
    run.singular |= set(np.flatnonzero(to_numpy(low)).tolist())
    return Mixture(m.kind, m.weights, m.means, S)


def _reseed(run: Run, sums: MixtureSums, least: float) -> bool:
    """Put an empty component onto half of the heaviest one, once for each in a run.

    The two halves lie a standard deviation to either side along the axis of the largest
    variance.
    """
    m = run.mixture
    xp = namespace(m.means)
    weights = to_numpy(m.weights).copy()
    empty = set(np.flatnonzero(to_numpy(sums.n) < least).tolist()) - run.reseeded
    if not empty:
        return False
    variances = to_numpy(m.variances()).copy()
    source, shift = np.arange(weights.size), np.zeros(tuple(m.means.shape))
    for j in sorted(empty):
        heavy = int(np.argmax(weights))
        axis = int(np.argmax(variances[heavy]))
        source[j] = source[heavy]
        shift[j] = shift[heavy]
        step = math.sqrt(variances[heavy, axis])
        shift[j, axis] += step
        shift[heavy, axis] -= step
        variances[j] = variances[heavy]
        weights[j] = weights[heavy] = weights[heavy] / 2
    put: Any = {"device": device_of(m.means)}
    index = xp.asarray(source, **put)
    means = xp.take(m.means, index, axis=0) + xp.asarray(shift, **put)
    S = m.covariances
    if m.kind == "low_rank":
        S = tuple(xp.take(a, index, axis=0) for a in S)
    elif m.kind != "tied":
        S = xp.take(S, index, axis=0)
    run.reseeded |= empty
    run.mixture = Mixture(m.kind, xp.asarray(weights / weights.sum(), **put), means, S)
    return True


def start(rows: Rows, k: int, maximize: Maximizer, rng: np.random.RandomState) -> Mixture:
    """The first parameters: k-means of a sample, then one M-step.

    The responsibilities of the first M-step are those of spherical normals about the k-means
    centres, of the variance that k-means leaves.
    """
    xp = rows.xp
    centres, weights, variance = _k_means(*_distinct_sample(rows, rng), k, rng)
    put: Any = {"device": device_of(rows.scaling.centre)}
    spheres = Mixture(
        "diag",
        xp.asarray(weights, **put),
        xp.asarray(centres, **put),
        xp.asarray(np.full(centres.shape, variance), **put),
    )
    run = Run(spheres)
    sums = expectation(rows, run, maximize.second)
    return maximize(sums, run.mixture)


TRIALS, SHORT_RUN, SHORT_ROWS = 4, 15, 2000
"""Starts that are tried, and the iterations and rows of each."""


def best_start(
    rows: Rows,
    k: int,
    maximize: Maximizer,
    rng: np.random.RandomState,
    max_iter: int,
    tol: float,
) -> Mixture:
    """The first parameters of the best of several starts, by short runs on some of the rows.

    The likelihood of short runs tells good starts (Biernacki, Celeux and Govaert 2003).
    """
    few = rows
    if rows.n > SHORT_ROWS:
        weights = np.ones(rows.n) if rows.weights is None else to_numpy(rows.weights)
        present = np.flatnonzero(weights > 0)
        chosen = rng.choice(present, min(SHORT_ROWS, present.size), replace=False)
        few = rows.take(np.sort(chosen))
    elif any(is_lazy(b) for b in rows.blocks):  # read once
        few = rows.take(np.arange(rows.n))
    starts = [start(few, k, maximize, rng) for _ in range(TRIALS)]
    bounds = []
    with progress_bar(False, "", "iteration") as bar:
        for each in starts:
            run = expectation_maximization(
                few, each, maximize, max_iter=min(SHORT_RUN, max_iter), tol=tol, bar=bar
            )
            bounds.append(run.bounds[-1])
    # Of starts that end alike the first: rounding decides nothing.
    return starts[int(np.argmax(np.array(bounds) >= max(bounds) - 1e-6))]


def _distinct_sample(rows: Rows, rng: np.random.RandomState) -> tuple[Any, Any]:
    """Distinct standardised rows of a sample in an order of their own, and their weights.

    On the host, where scikit-learn's k-means is. Repeated rows are one row with their weights
    added up, so that the start does not know in which order, or how often, a row was given.
    """
    w = np.ones(rows.n) if rows.weights is None else to_numpy(rows.weights)
    found = np.flatnonzero(w > 0)
    if found.size > SAMPLE:
        found = np.sort(rng.choice(found, SAMPLE, replace=False))
    Z = np.empty((found.size, rows.width))
    for run in rows.runs(Z.shape[1]):
        lo, hi = np.searchsorted(found, (run.start, run.stop))
        if lo < hi:
            Z[lo:hi] = to_numpy(rows(run))[found[lo:hi] - run.start]
    distinct, inverse = np.unique(Z, axis=0, return_inverse=True)
    return distinct, np.bincount(inverse.ravel(), w[found], distinct.shape[0])


def _k_means(Z: Any, w: Any, k: int, rng: np.random.RandomState) -> tuple[Any, Any, float]:
    """Centres from k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's iteration."""
    from sklearn.cluster import KMeans

    if Z.shape[0] <= k:  # fewer distinct rows than components: some components coincide
        copies = np.arange(k) % Z.shape[0]
        share = w[copies] / np.bincount(copies)[copies]
        return Z[copies], share / share.sum(), 1e-6
    with openmp():
        found = KMeans(k, n_init=1, max_iter=50, random_state=rng).fit(Z, sample_weight=w)
    weights = np.bincount(found.labels_, w, k) / w.sum()
    varying = max(1, np.count_nonzero(np.ptp(Z, axis=0)))
    variance = found.inertia_ / (w.sum() * varying)
    return found.cluster_centers_, weights, max(float(variance), 1e-6)
