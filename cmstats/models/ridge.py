"""Ridge regression from moments: the solution for any penalties, and its held-out error.

The penalised sum of squares is ||y - Xw||^2 + alpha ||w||^2 over the rows (scikit-learn's
Ridge), so that w = (S_xx + alpha I)^-1 S_xy with the scatters S, which are sums.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmstats.arrays import Array, device_of, moderate, namespace, to_numpy
from cmstats.kernels import whitening
from cmstats.kernels.linalg import svd
from cmstats.moments.folds import (
    NoScoreError,
    map_moments,
    scored_where_observed,
    training_moments,
)
from cmstats.moments.moments import Moments
from cmstats.moments.sums import LeastSquares

__all__ = ["HeldOut", "Planes", "Search", "Spectrum", "about_plane", "best_of_path"]
__all__ += ["fold_scores", "in_order", "is_coded_0_1", "mean_scores", "plane_point", "r2"]
__all__ += ["ridge", "search"]

Penalty = Any
"""One number, or an array of one for each target."""


def about_plane(moments: Moments, intercept: bool) -> Moments:
    """Second moments about a point of the plane: the means, or the origin without intercept."""
    return moments if intercept else moments.about_origin()


def plane_point(moments: Moments, intercept: bool) -> tuple[Array, Array]:
    """The point of `about_plane`, as x and y."""
    x, y = moments.mean("x"), moments.mean("y")
    return (x, y) if intercept else (0 * x, 0 * y)


@dataclass(frozen=True)
class Spectrum:
    """S_xx = V diag(l) V' and V'S_xy: after this every penalty costs one division.

    With units D of the features it is that of D S_xx D, and V stands for D V.

    Attributes
    ----------
    values : array of shape (r,)
        l, ascending in the scatter form and descending in the root form.
    vectors : array of shape (p, r)
        V.
    cross : array of shape (r, q)
        V'S_xy.
    smallest : float
        The least of the p eigenvalues, columns that do not vary left aside.
    cut : float
        What is no more than this is rounding.
    """

    values: Array
    vectors: Array
    cross: Array
    smallest: float
    cut: float

    @classmethod
    def of(cls, moments: Moments, unit: np.ndarray[Any, Any] | None = None) -> Spectrum:
        """By eigendecomposition of the scatter, or by the SVD of its root.

        Features whose unit is 0 are left out: their rows of the vectors are 0.
        """
        if unit is None:
            return cls(*moments.spectrum("x", "y"))
        xp, device = namespace(moments.mean("x")), device_of(moments.mean("x"))
        p, q = moments.width("x"), moments.width("y")
        kept = np.flatnonzero(unit)
        if (r := kept.size) < p:
            moments = moments.take(np.append(kept, p + np.arange(q)), {"x": r, "y": q})
        units = xp.asarray(unit[kept], device=device)
        found = cls(*moments.spectrum("x", "y", units))
        vectors = units[:, None] * found.vectors
        if r < p:
            rows = np.full(p, r)
            rows[kept] = np.arange(r)
            vectors = xp.concat([vectors, 0 * vectors[:1, :]])
            vectors = xp.take(vectors, xp.asarray(rows, device=device), axis=0)
        return replace(found, vectors=vectors)

    def over(self, alpha: Penalty, power: float = 1.0) -> Array:
        """V'S_xy / (l + alpha)^power, and 0 where l + alpha is no more than rounding."""
        return self.cross * self.inverse(alpha, power)

    def inverse(self, alpha: Penalty, power: float = 1.0) -> Array:
        """1 / (l + alpha)^power, shape (r, q) or (r, 1); 0 where l + alpha is only rounding."""
        xp = namespace(self.values)
        total = self.values[:, None] + (alpha if isinstance(alpha, float) else alpha[None, :])
        positive = total > self.cut
        return xp.where(positive, 1 / xp.where(positive, total, 1.0) ** power, 0.0)

    def rank(self, alpha: float) -> int:
        """How many directions carry weight."""
        xp = namespace(self.values)
        return int(xp.count_nonzero(self.values + alpha > self.cut))

    def condition(self, alpha: float) -> float:
        """The condition number of the data with the rows of the penalty below them."""
        low = self.smallest + alpha
        top = float(namespace(self.values).max(self.values)) + alpha
        return (top / low) ** 0.5 if low > self.cut else float(top > 0) * float("inf") or 1.0


@dataclass(frozen=True)
class Ridge:
    """A solution ``left @ right`` of shape (p, q).

    For a common penalty left'(S_xx + alpha I) left = I: truncating the SVD of `right` gives the
    best solution of that rank.
    """

    left: Array
    right: Array
    rank: int
    condition: float

    def coefficients(self, rank: int | None = None) -> Array:
        """The coefficients, shape (p, q), of full or of a given rank."""
        right = self.right
        if rank is not None and rank < min(right.shape):
            u, s, vt = svd(right)
            left = self.left @ (u[:, :rank] * s[None, :rank])
            return left @ vt[:rank, :]
        return self.left @ right


def ridge(moments: Moments, alpha: Penalty, spectrum: Spectrum | None = None) -> Ridge:
    """(S_xx + alpha I)^-1 S_xy: by Cholesky for one penalty, in eigenvectors for many.

    At alpha = 0 the solution is that of least norm.
    """
    xp = namespace(moments.mean("x"))
    p = moments.width("x")
    if isinstance(alpha, float) and spectrum is None:
        solved = moments.cholesky("x", "y", alpha)
        if solved is not None:
            factor, half = solved
            return Ridge(factor.weights, half, factor.rank, factor.condition)
    s = Spectrum.of(moments) if spectrum is None else spectrum
    # A target that does not vary has no weights, whatever penalty.
    least = (
        alpha
        if isinstance(alpha, float)
        else float(xp.min(xp.where(moments.constant("y"), xp.max(alpha), alpha)))
    )
    known = s.rank(least) if least <= s.cut else p
    if isinstance(alpha, float):
        left, right = s.vectors * s.inverse(alpha, 0.5).mT, s.over(alpha, 0.5)
    else:
        left, right = s.vectors, s.over(alpha)
    return Ridge(left, right, known, s.condition(least))


@dataclass(frozen=True)
class HeldOut:
    """Held-out moments seen from the training means, in the coordinates of a basis.

    The residual of a target about its own test mean is that of the centred rows; the distance
    of the test means from the plane adds n (gap_y - gap_x'w)^2.
    """

    n: float
    gap_x: Array
    gap_y: Array
    yy: Array
    problem: LeastSquares

    @classmethod
    def of(
        cls, moments: Moments, point: tuple[Array, Array], basis: Array | None = None
    ) -> HeldOut:
        """`point` is one that the fitted plane passes through."""
        gap_x, gap_y = moments.mean("x") - point[0], moments.mean("y") - point[1]
        gap_x = gap_x if basis is None else gap_x @ basis
        yy = moments.variance("y", ddof=0) * moments.n
        problem = moments.least_squares("x", "y", basis)
        return cls(moments.n, gap_x, gap_y, yy, problem)

    def less(self, weights: Array) -> HeldOut:
        """The same of what the targets have left beyond some weights."""
        return replace(
            self,
            gap_y=self.gap_y - self.gap_x @ weights,
            yy=self.problem.errors(weights),
            problem=self.problem.less(weights),
        )

    def errors(self, weights: Array) -> Array:
        """The sum of squared residuals of each target, shape (q,)."""
        offset = self.gap_y - self.gap_x @ weights
        return self.problem.errors(weights) + self.n * offset**2

    def path_errors(self, spectrum: Spectrum, alphas: Sequence[float]) -> Array:
        """Those of every penalty, shape (n_alphas, q), at the cost of about one.

        With g = 1 / (l + alpha) the square of the fitted values is a sum over pairs of
        directions i, k of Z_i M_ik Z_k g_i g_k, M = V'S_xx V. By partial fractions
        g_i g_k = (g_i - g_k) / (l_k - l_i): what does not depend on alpha is one product
        with M / (l_k - l_i). Pairs too close for the difference are summed as they are.
        """
        xp = namespace(self.yy)
        l, r = spectrum.values, spectrum.values.shape[0]
        M, XY = self.problem.normal_equations()
        # In units near those of x and of each target: products of four values stay in range.
        a, b = _binary_root(xp.max(l)) if r else 1.0, _binary_root(self.yy)
        Z, XY, M, l = spectrum.cross / a / b, XY / a / b, M / a / a, l / a / a
        gap_x, gap_y, yy = self.gap_x / a, self.gap_y / b, self.yy / b / b
        penalties = xp.asarray(alphas, dtype=xp.float64, device=device_of(l)) / a / a
        scaled = replace(spectrum, values=l, cut=spectrum.cut / a / a)
        g = scaled.inverse(penalties)
        gt = g.mT
        apart = l[None, :] - l[:, None]
        near = xp.abs(apart) <= 0.01 / r * (l[None, :] + l[:, None])
        ratio = xp.where(near, 0.0, M) / xp.where(near, 1.0, apart)
        offset = gap_y - gt @ (gap_x[:, None] * Z)
        errors = yy + self.n * offset**2
        errors = errors - 2 * (gt @ (Z * (XY - ratio @ Z)))
        errors = errors + gt * gt @ (xp.linalg.diagonal(M)[:, None] * Z * Z)
        near = near & (xp.eye(r, device=device_of(l)) == 0)
        rows = xp.nonzero(xp.any(near, axis=1))[0]
        if not rows.shape[0]:
            return errors * b * b
        M = xp.take(xp.take(xp.where(near, M, 0.0), rows, axis=0), rows, axis=1)
        Z, g = xp.take(Z, rows, axis=0), xp.take(g, rows, axis=0)
        weights = (Z * g[:, i, None] for i in range(len(alphas)))
        return (errors + xp.stack([xp.sum(W * (M @ W), axis=0) for W in weights])) * b * b

    def rank_errors(self, weights: Array, directions: Array) -> Array:
        """Those of ``weights @ Q_k Q_k'`` for every k, Q_k the first k directions, (k, q)."""
        return self.component_errors(weights @ directions.mT, directions)

    def component_errors(self, H: Array, Q: Array) -> Array:
        """Those of ``H_k Q_k`` for every k: the first k columns of H and rows of Q, (k, q).

        Each adds its own terms to those before: all numbers of components cost about one.
        """
        xp = namespace(H)
        HXH, HXy = self.problem.normal_equations(H)
        own = xp.linalg.diagonal(HXH)[:, None] * Q
        steps = Q * (2 * (xp.tril(HXH, k=-1) @ Q) + own - 2 * HXy)
        offset = self.gap_y - xp.cumulative_sum((self.gap_x @ H)[:, None] * Q, axis=0)
        return self.yy + xp.cumulative_sum(steps, axis=0) + self.n * offset**2


def _binary_root(squares: Array) -> Array:
    """Powers of two near the roots of some numbers; 1 for 0."""
    xp = namespace(squares)
    positive = xp.where(squares > 0, squares, 1.0)
    return 2.0 ** xp.floor(0.5 * xp.log2(positive))


def r2(errors: Array, moments: Moments) -> Array:
    """1 - errors / the sum of squares about the mean; the last axis of errors is the targets.

    A target that is constant on these rows has 1 where the prediction is exact and 0
    otherwise (r2_score's rule); a single row has no R2, which is NaN.
    """
    xp = namespace(errors)
    if max(moments.rows, moments.n) < 2:
        return 0 * errors + float("nan")
    total = moments.variance("y", ddof=0) * moments.n
    constant = moments.constant("y")
    exact = errors <= moments.n * (64 * whitening.EPS * moments.mean("y")) ** 2
    ratio = xp.where(errors > 0, errors, 0.0) / xp.where(constant, 1.0, total)
    return xp.where(constant, xp.astype(exact, xp.float64), 1 - ratio)


@dataclass(frozen=True)
class Planes:
    """Fitted targets ``offset + (x - center)' weights``.

    Attributes
    ----------
    weights : array of shape (p, q)
    center : array of shape (p,)
    offset : array of shape (q,)
    alpha : float or array of shape (q,)
        The penalty, of all targets or of each.
    rank_ : int
        The largest rank that the weights may have.
    task_n_samples_ : array of shape (q,)
        The sum of the weights of the rows in which each target is observed.
    condition_ : float
        The condition number of the data with the rows of the penalty below them.
    binary : bool
        Whether some target is coded 0 and 1.
    notes : tuple of str
        Sentences about degenerate data.
    bands_ : array of shape (q, n_bands) or None
        The weights of the bands of features, where there are some.
    """

    weights: Array
    center: Array
    offset: Array
    alpha: Penalty
    rank_: int
    task_n_samples_: Array
    condition_: float
    binary: bool
    notes: tuple[str, ...] = ()
    bands_: Array | None = None

    @classmethod
    def joined(
        cls,
        planes: Sequence[Planes],
        groups: Sequence[Sequence[int]],
        bands: np.ndarray[Any, Any] | None = None,
    ) -> Planes:
        """The planes of groups of targets side by side, in the order of the targets.

        `bands` are the weights of bands of features of all targets, where there are some.
        """
        first = planes[0]
        if bands is not None:
            weights = namespace(first.weights).asarray(bands, device=device_of(first.weights))
            return replace(cls.joined(planes, groups), bands_=weights)
        if len(planes) == 1:
            return first
        weights = in_order([m.weights for m in planes], groups, axis=1)
        common = isinstance(first.alpha, float)
        return cls(
            weights,
            first.center,
            in_order([m.height(first.center) for m in planes], groups),
            first.alpha if common else in_order([m.alpha for m in planes], groups),
            min(weights.shape),
            in_order([m.task_n_samples_ for m in planes], groups),
            max(m.condition_ for m in planes),
            any(m.binary for m in planes),
            tuple(dict.fromkeys(note for m in planes for note in m.notes)),
        )

    def height(self, point: Array) -> Array:
        """The fitted targets at one point, shape (q,)."""
        return self.offset + (point - self.center) @ self.weights

    def correlations(self) -> Array:
        """Correlations of the targets' weights; NaN for a target whose weights are all equal."""
        xp = namespace(self.weights)
        weights = moderate(self.weights)
        C = weights - xp.mean(weights, axis=0)
        norm = xp.sqrt(xp.sum(C * C, axis=0))
        varies = norm > 1e-14 * xp.max(xp.abs(weights), axis=0)
        nan = xp.asarray(float("nan"), dtype=xp.float64, device=device_of(C))
        C = xp.where(varies, C / xp.where(varies, norm, 1.0), nan)
        return xp.clip(C.mT @ C, -1.0, 1.0)

    def of_targets(self, targets: Sequence[int]) -> Planes:
        """The planes of some of the targets."""
        xp = namespace(self.weights)
        at = xp.asarray(np.array(targets), device=device_of(self.weights))
        weights, offset = xp.take(self.weights, at, axis=1), xp.take(self.offset, at)
        return replace(self, weights=weights, offset=offset)

    def r2(self, moments: Moments | None) -> Array:
        """R2 of the targets on held-out moments; NaN without moments."""
        if moments is None:
            return 0 * self.offset + float("nan")
        namespace(self.weights, moments.like)  # of one library, on one device
        held = HeldOut.of(moments, (self.center, self.offset))
        return r2(held.errors(self.weights), moments)


def in_order(each: Sequence[Array], groups: Sequence[Sequence[int]], *, axis: int = 0) -> Array:
    """Arrays of groups of targets put together, in the order of the targets."""
    xp, device = namespace(*each), device_of(each[0])
    order = xp.asarray(np.argsort(np.concatenate(groups)), device=device)
    return xp.take(xp.concat(list(each), axis=axis), order, axis=axis)


def is_coded_0_1(moments: Moments) -> bool:
    """Whether some target takes the values 0 and 1 only."""
    xp = namespace(moments.mean("y"))
    mean, variance = moments.mean("y"), moments.variance("y", ddof=0)
    # 0 and 1 are their own squares, up to the rounding of float32 data.
    apart = xp.abs(variance - mean * (1 - mean))
    return bool(xp.any(apart <= 1e-4 * xp.abs(variance) + 1e-12))


@dataclass(frozen=True)
class Search:
    """What cross-validation found.

    Attributes
    ----------
    scores : array of shape (n_alphas, n_ranks, n_tasks)
        Mean held-out R2 over the folds in which a task has at least two rows; of a task without
        such a fold (one row left out at a time) the R2 of all held-out rows together, 1 - PRESS
        over the sum of squares (Allen 1974).
    spectrum : Spectrum
        Of all rows.
    notes : sequence of str
        Sentences about folds without a score.
    """

    scores: np.ndarray[Any, Any]
    spectrum: Spectrum
    notes: Sequence[str] = ()


def search(
    folds: list[Moments], alphas: Sequence[float], *, rank: int | None, intercept: bool
) -> Search:
    """Held-out R2 of every penalty, and rank up to `rank` (None: the full one), by task.

    For each fold one eigendecomposition of the training moments; the test moments tell the
    error of every penalty and target exactly.
    """
    total = functools.reduce(operator.add, folds)
    if rank is not None:
        rank = min(rank, *total.widths, *(max(total.rows - m.rows - 1, 1) for m in folds))

    def work(k: int, moments: Moments) -> Any:
        if k == len(folds):  # for the solution to come: cores that are free do it now
            return Spectrum.of(about_plane(moments, intercept))
        return scored_where_observed(
            lambda: fold_scores(moments, folds[k], alphas, rank, intercept), k, moments, said
        )

    said: list[str] = []
    *found, spectrum = map_moments(work, itertools.chain(training_moments(folds), [total]))
    return Search(mean_scores(found, folds, total, said), spectrum, said)


def mean_scores(
    found: Iterable[Any], folds: Sequence[Moments], total: Moments, said: Sequence[str]
) -> np.ndarray[Any, Any]:
    """The scores of `Search` from the `fold_scores` of each fold, None of one without a score.

    `total` are the moments of all folds together, `said` is why a fold has none.

    Raises
    ------
    NoScoreError
        If no fold has one.
    """
    errors: Any = 0.0
    scores: Any = 0.0
    count: Any = 0
    known = []
    for fold, each in zip(folds, found, strict=True):
        if each is None:
            continue
        known.append(fold)
        fold_errors, fold_scores = each
        scored = np.isfinite(fold_scores)
        errors = errors + fold_errors
        scores, count = scores + np.where(scored, fold_scores, 0.0), count + scored
    if not known:
        raise NoScoreError(said)
    if len(known) < len(folds):
        total = functools.reduce(operator.add, known)
    squares = to_numpy(total.variance("y", ddof=0)) * total.n
    pooled = 1 - errors / np.where(squares > 0, squares, np.inf)
    mean: np.ndarray[Any, Any] = np.where(count > 0, scores / np.maximum(count, 1), pooled)
    return mean


def best_of_path(
    scores: np.ndarray[Any, Any], alphas: Sequence[float], rank: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best penalty of each task, or the best common penalty and rank, and their scores.

    Parameters
    ----------
    scores : array of shape (n_alphas, n_ranks, n_tasks)
    alphas : sequence of float
    rank : int, "cv" or None
        The last of the ranks, any of them, or penalties alone.
    """
    if rank is None:
        each = scores[:, 0, :]
        return {"alpha": np.array(alphas)[each.argmax(axis=0)]}, {"cv_scores_": each}
    mean = scores.mean(axis=2)
    if rank != "cv":
        mean[:, :-1] = -np.inf
    i, _ = np.unravel_index(mean.argmax(), mean.shape)
    # Ranks beyond that of the data only differ by rounding: the smallest of them.
    j = int((mean[i] >= mean[i].max() - 1e-12).argmax())
    scored = {"cv_scores_": scores[:, j, :]}
    if rank == "cv":
        rank, scored["cv_rank_scores_"] = j + 1, mean
    return {"alpha": float(alphas[i]), "rank": rank}, scored


def fold_scores(
    train: Moments,
    test: Moments,
    alphas: Sequence[float],
    rank: int | None,
    intercept: bool,
    unit: np.ndarray[Any, Any] | None = None,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Held-out sums of squared errors, and R2, of every penalty, rank and task.

    Two arrays of shape (n_alphas, n_ranks, n_tasks). `unit` multiplies the features (`Spectrum`).
    """
    complete = test.complete_rows()
    test = test if complete is None or complete.rows < 2 else complete
    spectrum = Spectrum.of(about_plane(train, intercept), unit)
    held = HeldOut.of(test, plane_point(train, intercept), spectrum.vectors)
    # Where some direction has no weight at all, there are no partial fractions.
    whole = [a for a in alphas if spectrum.rank(a) == spectrum.values.shape[0]]
    path = held.path_errors(spectrum, whole) if rank is None and whole else None
    errors = []
    for alpha in alphas:
        if rank is not None:
            directions = svd(spectrum.over(alpha, 0.5))[2][:rank, :]
            errors.append(held.rank_errors(spectrum.over(alpha), directions))
        elif path is not None and alpha in whole:
            errors.append(path[whole.index(alpha), None, :])
        else:
            errors.append(held.errors(spectrum.over(alpha))[None, :])
    all_errors = namespace(*errors).stack(errors)
    return to_numpy(all_errors), to_numpy(r2(all_errors, test))
