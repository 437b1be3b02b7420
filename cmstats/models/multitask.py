"""Multitask regression from moments: ridge for many targets, each with its penalty and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, namespace, shifted, to_numpy, warn
from cmstats.models.dask import row_wise
from cmstats.models.gappy_targets import GappyTargets
from cmstats.models.penalties import Penalised
from cmstats.models.regions import PredictsRegions, residual_covariance
from cmstats.models.ridge import (
    Planes,
    Search,
    Spectrum,
    about_plane,
    best_of_path,
    in_order,
    is_coded_0_1,
    plane_point,
    ridge,
    search,
)
from cmstats.moments.moments import Moments
from cmstats.moments.tasks import (
    by_group,
    totals,
)
from cmstats.rows.chunks import project
from cmstats.rows.views import column_slices

__all__ = ["ALPHAS", "MultitaskRegressor"]

ALPHAS = tuple(float(f"{a:.4g}") for a in np.logspace(-3, 6.5, 20))
"""The default grid of ``alpha="cv"``: half decades."""


_DEPENDENT = (
    "the features depend on each other linearly (rank {rank} of {p}) and alpha is 0: this is the "
    "solution of least norm; set a positive alpha"
)


def _has_binary_tasks(self: MultitaskRegressor) -> bool:
    # scikit-learn's contract: a regressor has no decision function before it is fitted.
    if not getattr(getattr(self, "_solution", None), "binary", False):
        raise AttributeError(
            "decision_function is for models fitted to targets coded 0 and 1: use predict"
        )
    return True


def _has_bands(self: MultitaskRegressor) -> bool:
    if getattr(getattr(self, "_solution", None), "bands_", None) is None:
        raise AttributeError("scores by band are for models fitted with bands: set bands='views'")
    return True


def _mean(scores: Array) -> float:
    """The mean over the tasks that have a score."""
    values = to_numpy(scores)
    known = np.isfinite(values)
    if not known.any():
        warn("R2 is NaN: it needs at least two rows in which a task is observed")
        return float("nan")
    return float(values[known].mean())


def _plane_and_covariance(self: MultitaskRegressor, X: Any) -> tuple[Array, Array]:
    """The fitted plane, (n, q), and the covariance of the training residuals.

    Tasks that were observed in different rows count as uncorrelated.
    """
    mean = self.predict(X)
    mean = mean[:, None] if mean.ndim == 1 else mean
    parts = [*self._kept(), *self._between]
    return mean, residual_covariance(self._solution.weights, totals(parts))


class MultitaskRegressor(PredictsRegions, RegressorMixin, GappyTargets, Penalised):
    r"""Ridge regression of many targets on one or several views, from joint moments.

    For each task (column of y) the weights w and intercept b minimise

    .. math:: \sum_i (y_i - b - x_i'w)^2 + \alpha \|w\|^2

    over the rows in which the task is observed (Hoerl and Kennard 1970): the objective of
    scikit-learn's Ridge, a sum over rows, so that a good alpha grows with their number. With
    the scatter matrices S, w = (S_xx + alpha I)^-1 S_xy. A `rank` k makes the tasks share a
    representation of k dimensions: the weights B of all tasks minimise

    .. math:: \|Y - XB\|^2 + \alpha \|B\|^2 \quad\text{s.t.}\quad \mathrm{rank}\, B \le k

    (reduced-rank regression, Izenman 1975; with the ridge Mukherjee and Zhu 2011), which is
    the ridge solution projected on the first k right singular vectors of
    (S_xx + alpha I)^1/2 B: those of the fitted values with the rows of the penalty below.

    Parameters
    ----------
    alpha : float, array of shape (n_tasks,) or "cv", default="cv"
        The penalty, of all tasks or of each. "cv" chooses from `alphas` by the mean held-out
        R2 over `cv` folds, for each task its own (with a `rank` a common one, by the mean over
        the tasks): what GridSearchCV of a Ridge for each task finds on the same folds, at
        the cost of one pass over the data and one eigendecomposition a fold.
    rank : int, "cv" or None, default=None
        The rank of the shared representation; None is separate ridge regressions. "cv"
        chooses among all ranks, together with alpha if that is "cv".
    alphas : sequence of float, default=ALPHAS
        The grid of "cv": by default half decades from 1e-3 to 10^6.5.
    fit_intercept : bool, default=True
        Without, the plane passes through the origin.
    solver : {"auto", "moments", "svd"}, default="auto"
        "moments" works on the scatter matrix, "svd" on a root of it, which keeps the
        condition number of the data instead of its square. "auto" uses the root for wide
        data (more columns than rows), never forming a matrix of features by features, and
        where the penalised features have a condition number above 1e4.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K, whether or not it has NaN.
    missing : {"error", "em"}, default="error"
        NaN in X: an error, or an entry that was not observed (as in `CCA`). With "em" all
        columns of X, one matrix, and of y are one normal, whose moments are estimated from all
        rows; a task then also learns from rows in which only other tasks were observed.
    bands : "views", array of shape (n_features,), mapping of name to columns, or None
        Bands of features, each with a penalty of its own (see Notes): the views of X, one label
        for each feature, or for each band the names or numbers of its columns, or a slice. Each
        task has its own weights of the bands, chosen on the folds together with its alpha if that
        is "cv"; there is no `rank`.
    band_weights : int, or array of shape (n_candidates, n_bands), default=50
        The weights of bands that are tried: a number of candidates (equal weights, each band
        alone, and random draws), or the candidates, of which each adds up to 1. One row is taken
        as it is.
    random_state : int, RandomState or None, default=None
        For the draws of `band_weights`.

    Attributes
    ----------
    coef_ : array of shape (n_tasks, n_features), or (n_features,) if y was 1-D
    intercept_ : array of shape (n_tasks,), or float if y was 1-D
    alpha_ : float or array of shape (n_tasks,)
        The penalty used, a float where it is common to all tasks.
    rank_ : int
        The largest rank that `coef_` may have.
    cv_scores_ : array of shape (n_alphas, n_tasks)
        Mean held-out R2 over the folds, where a parameter is "cv"; with a rank, at `rank_`.
        One row for each of `alphas`, or for `alpha` alone if only the rank was chosen. With
        `bands` of shape (n_candidates, n_tasks), at the best penalty of each candidate.
    cv_rank_scores_ : array of shape (n_alphas, n_ranks)
        Mean held-out R2 over folds and tasks for the ranks 1, 2, ..., where rank="cv".
    bands_ : array of shape (n_tasks, n_bands), or (n_bands,) if y was 1-D
        With `bands` the weights of each task. Its penalty on the features of band b is
        ``alpha_ / bands_[:, b]``: a band of weight 0 is left out.
    band_names_ : list
        With `bands` their names or labels, in the order of `bands_`.
    cv_band_weights_ : array of shape (n_candidates, n_bands)
        With `bands` the weights that were tried, in the order of `cv_scores_`.
    n_samples_ : float
        The sum of the weights of the rows in which some task is observed.
    task_n_samples_ : array of shape (n_tasks,)
        The sum of the weights of the rows in which each task is observed.
    view_columns_ : dict
        Where each view of X stands among the features, by its name or number, if it was
        fitted to several.
    moments_ : Moments, list of Moments, or dict
        What it was fitted on; where targets are missing, by group of tasks that are observed
        in the same rows. Of more than 2048 targets, and more than twice as many as features,
        without the products among them (``diagonal="y"`` of `Moments.from_data`).
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    ConditionalGaussian : The same prediction with its covariance.
    LinearAutoencoder : Reduced-rank regression as a representation (target="cross").

    Notes
    -----
    **Which of the linear models?** If the targets matter each for itself, this one. If the
    shared code of both views matters, CCA (each direction weighed by its correlation) or
    reduced-rank regression (by the variance of y it explains).

    **Missing targets.** NaN in y is a task that was not observed in that row. Tasks that are
    observed in the same rows share moments and factorisations, so the cost is that of as many
    regressions as there are such groups (one, if nothing is missing): time O(m p^2) for the
    m rows of each, memory O(p^2) for each group and fold. With `partial_fit` later rows can
    part a group. A `rank`, or any coupling of tasks, has no closed form over different rows.

    **Bands.** Features of different kinds rarely deserve one penalty. With weights
    :math:`\gamma_b \ge 0` of bands b that add up to 1, banded ridge regression
    (Nunez-Elizalde, Huth and Gallant 2019) minimises

    .. math:: \sum_i (y_i - b - x_i'w)^2 + \alpha \sum_b \|w_b\|^2 / \gamma_b

    With D the roots of the weights of the features,
    :math:`w = D (D S_{xx} D + \alpha I)^{-1} D S_{xy}`. Candidates of the weights are drawn as in
    la Tour et al. (2022), Dirichlet draws even and sparse in turn; each costs one
    eigendecomposition a fold for all penalties and tasks, whatever the number of rows. Equal
    weights of B bands are plain ridge regression with the penalty B alpha. `score_by_band` says
    what each band explains. With the same weights, alphas and folds the result is that of
    himalaya's ``GroupRidgeCV``, whose ``deltas_`` are ``log(bands_ / alpha_)``, of tasks and bands
    exchanged.

    **Binary targets.** Regression on {0, 1} is enough to rank items by the probability of a
    label, and the largest of several such scores names a class: `decision_function`.

    References
    ----------
    Hoerl, A. E. and Kennard, R. W. (1970). Ridge regression. Technometrics 12.
    Izenman, A. J. (1975). Reduced-rank regression for the multivariate linear model.
    J. Multivariate Analysis 5.
    la Tour, T. D., Eickenberg, M., Nunez-Elizalde, A. O. and Gallant, J. L. (2022). Feature-space
    selection with banded ridge regression. NeuroImage 264.
    Mukherjee, A. and Zhu, J. (2011). Reduced rank ridge regression and its kernel extensions.
    Statistical Analysis and Data Mining 4.
    Nunez-Elizalde, A. O., Huth, A. G. and Gallant, J. L. (2019). Voxelwise encoding models with
    non-spherical multivariate normal priors. NeuroImage 197.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import load_linnerud
    >>> from cmstats.models.multitask import MultitaskRegressor
    >>> X, Y = load_linnerud(return_X_y=True)
    >>> model = MultitaskRegressor(alpha=[0.1, 10.0, 0.1]).fit(X, Y)
    >>> model.predict(X[:1]).round(1)
    array([[176.2,  35. ,  57.1]])
    >>> Y = Y.copy()
    >>> Y[3:6, 1] = np.nan  # not measured in three rows
    >>> MultitaskRegressor().fit(X, Y).task_n_samples_
    array([20., 17., 20.])

    Two views of ten columns each, of which the target depends on the first alone:

    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.normal(size=(2, 100, 10))
    >>> y = A @ rng.normal(size=10) + rng.normal(size=100)
    >>> model = MultitaskRegressor(bands="views", random_state=0).fit({"a": A, "b": B}, y)
    >>> model.band_names_, model.bands_.round(2)
    (['a', 'b'], array([1., 0.]))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"}), "array-like"],
        "rank": [Interval(Integral, 1, None, closed="left"), StrOptions({"cv"}), None],
        "alphas": ["array-like"],
        "fit_intercept": ["boolean"],
        "solver": [StrOptions({"auto", "moments", "svd"})],
        "cv": ["cv_object"],
        "bands": [StrOptions({"views"}), Mapping, "array-like", None],
        "band_weights": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "random_state": ["random_state"],
        "missing": [StrOptions({"error", "em"})],
    }
    tunable: ClassVar[Mapping[str, Any]] = {"alpha": ALPHAS, "rank": "every rank"}
    _takes_gaps_in_y = True
    _mean_and_covariance = _plane_and_covariance

    def __init__(
        self,
        *,
        alpha: Any = "cv",
        rank: Any = None,
        alphas: Any = ALPHAS,
        fit_intercept: bool = True,
        solver: Literal["auto", "moments", "svd"] = "auto",
        cv: Any = 5,
        missing: Literal["error", "em"] = "error",
        bands: Any = None,
        band_weights: Any = 50,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.rank = rank
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.cv = cv
        self.missing = missing
        self.bands = bands
        self.band_weights = band_weights
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit to rows, in one pass over them.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), or views, or batches
            One matrix (an array of any library, a frame, a memory-map, anything with shape,
            dtype and slicing), or several of the same rows as a list, a tuple or a dict by
            name: their columns side by side are the features, without a copy. Without `y` an
            iterable of batches (X, y).
        y : array-like or sparse matrix of shape (n_samples, n_tasks) or (n_samples,)
            The targets. NaN is a task that was not observed in that row.
        sample_weight : array of shape (n_samples,), optional
            Frequency weights: weight 2 is the row twice.
        groups : array of shape (n_samples,), optional
            Labels of rows that depend on each other, which are in one fold where a parameter is
            "cv" (`Moments.folds`).

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If values of X are not finite or of y infinite, lengths differ, a task is observed
            in fewer than two rows, a parameter is out of range, or a `rank` is asked for
            where tasks are observed in different rows.
        """
        return super().fit(X, y, sample_weight, groups)

    def _solve(
        self, m: Moments, alpha: Any = None, rank: Any = None, spectrum: Spectrum | None = None
    ) -> Planes:
        xp, p = namespace(m.mean("x")), m.width("x")
        alpha = self._given_alpha() if alpha is None else alpha
        rank = self.rank if rank is None else rank
        if isinstance(alpha, np.ndarray):
            alpha = xp.asarray(alpha, device=device_of(m.mean("x")))
        # B = (S_xx + alpha I)^-1 S_xy
        found = ridge(about_plane(m, self.fit_intercept), alpha, spectrum)
        weights = found.coefficients(rank)
        center, offset = plane_point(m, self.fit_intercept)
        counts = 0 * offset + m.n
        most = min(*weights.shape, rank or min(weights.shape))
        notes = () if found.rank == p else (_DEPENDENT.format(rank=found.rank, p=p),)
        return Planes(
            weights, center, offset, alpha, most, counts, found.condition, is_coded_0_1(m), notes
        )

    def _solved(self, moments: Any, chosen: Mapping[str, Any]) -> Planes:
        """Solve for each group of tasks that are observed in the same rows."""
        chosen = dict(chosen)
        alpha, spectra = chosen.get("alpha", self._given_alpha()), chosen.get("spectra", {})
        whole = {tasks: m for tasks, (m,) in by_group([moments]).items()}
        groups = {tasks: (m, spectra.get(tasks)) for tasks, m in whole.items()}
        if self.bands is not None:
            groups = self._by_weights(whole, chosen)
        planes = []
        for tasks, (m, spectrum) in groups.items():
            own = alpha[list(tasks)] if isinstance(alpha, np.ndarray) else alpha
            planes.append(self._solve(m, own, chosen.get("rank"), spectrum))
        return Planes.joined(planes, list(groups), chosen.get("weights"))

    def _publish(self, solution: Planes) -> None:
        """The coefficients as scikit-learn has them: of one target without its axis."""
        super()._publish(solution)
        coef, intercept = solution.weights.mT, solution.height(0 * solution.center)
        one, alpha = self._y_ndim == 1, solution.alpha
        self.coef_ = coef[0, :] if one else coef
        self.intercept_ = float(intercept[0]) if one else intercept
        self.alpha_ = float(alpha[0]) if one and not isinstance(alpha, float) else alpha

    def _path(self, folds: Sequence[Any]) -> dict[tuple[int, ...], Search]:
        """The held-out scores of all penalties and ranks, by group of tasks."""
        groups = by_group(folds)
        rank = self.rank
        if rank == "cv":
            rank = min(next(iter(groups.values()))[0].widths)
        return {
            tasks: search(each, self._grid(), rank=rank, intercept=self.fit_intercept)
            for tasks, each in groups.items()
        }

    def _choose(self, folds: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.bands is not None:
            return self._choose_bands(folds)
        path = self._path(folds)
        order = np.argsort(np.concatenate(list(path)))
        scores = np.concatenate([found.scores for found in path.values()], axis=2)[:, :, order]
        chosen, scored = best_of_path(scores, self._grid(), self.rank)
        chosen["spectra"] = {k: s.spectrum for k, s in path.items() if not self._between}
        like = next(iter(path.values())).spectrum.values
        xp, device = namespace(like), device_of(like)
        scored = {name: xp.asarray(a, device=device) for name, a in scored.items()}
        return chosen, {**scored, "notes": [note for s in path.values() for note in s.notes]}

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Add rows to those fitted so far.

        The result is that of `fit` on all rows together, however they were parted: row
        number i overall belongs to fold i mod `cv` where a parameter is "cv". Each call
        solves anew, O(p^3) for each group of tasks that were observed in the same rows: for
        very many small batches build `Moments.from_batches` and call `fit_moments` once.

        Parameters
        ----------
        X, y, sample_weight, groups
            As in `fit`. Batches may miss (NaN) any targets of any rows, also all.

        Returns
        -------
        self
        """
        return super().partial_fit(X, y, sample_weight, groups)

    @row_wise
    def predict(self, X: Any) -> Array:
        """The fitted plane at each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), or views
            As in `fit`: several views as a list, a tuple or a dict.

        Returns
        -------
        array of shape (n_samples, n_tasks), or (n_samples,) if y was 1-D in fit
        """
        check_is_fitted(self)
        views, planes = self._check_x(X), self._solution
        parts = [
            project(views.blocks[name], planes.center[cut], planes.weights[cut, :], name)
            for name, cut in column_slices(views.widths).items()
        ]
        y = sum(parts[1:], parts[0])
        y = shifted(y, planes.offset)
        return y[:, 0] if self._y_ndim == 1 else y

    @available_if(_has_binary_tasks)
    @row_wise
    def decision_function(self, X: Any) -> Array:
        """Scores of binary targets that were coded 0 and 1: the same as `predict`.

        Least squares on {0, 1} estimates the linear part of the probability of a label
        (Fisher's discriminant up to a scale), which is enough to rank items by it, and, among
        the columns of an indicator matrix, to choose the class of largest score. They are no
        probabilities: values below 0 and above 1 occur. There is no such method where no
        target was coded 0 and 1.

        Parameters
        ----------
        X
            As in `predict`.

        Returns
        -------
        array of shape (n_samples, n_tasks), or (n_samples,) if y was 1-D in fit
        """
        return self.predict(X)

    @property
    def task_correlation_(self) -> Array:
        """Correlations of the tasks' coefficient vectors, shape (n_tasks, n_tasks).

        NaN for a task whose coefficients are all equal: it has none.
        """
        check_is_fitted(self)
        planes: Planes = self._solution
        return planes.correlations()

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The mean R2 over the tasks; equals ``score_moments(Moments.from_data(x=X, y=y))``.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; NaN in y is left out.

        Returns
        -------
        float
            As `sklearn.metrics.r2_score`: the plain mean over the tasks that are observed.
        """
        return _mean(self.score_tasks(X, y, sample_weight))

    def score_tasks(self, X: Any, y: Any, sample_weight: Any = None) -> Array:
        """R2 of each task on held-out rows.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; NaN in y is left out.

        Returns
        -------
        array of shape (n_tasks,)
            A task that is constant on these rows has 1 where it is predicted exactly and 0
            otherwise; one that is observed in fewer than two rows has NaN.
        """
        return self._by_task(Planes.r2, X, y, sample_weight)

    def _by_task(self, score: Callable[..., Array], X: Any, y: Any, sample_weight: Any) -> Array:
        """``score(planes, moments)`` of the tasks that are observed in the same rows, in order."""
        check_is_fitted(self)
        blocks, weights = self._rows(self._blocks(X, y, reset=False), sample_weight)
        form = "scatter" if self.missing == "em" else self._kept()[0].form
        groups = by_group(self._collect(blocks, form, weights))
        scores = [
            score(self._solution.of_targets(tasks), self._held_out(each[0]) if each else None)
            for tasks, each in groups.items()
        ]
        return in_order(scores, list(groups), axis=-1)

    @available_if(_has_bands)
    def score_by_band(self, X: Any, y: Any, sample_weight: Any = None) -> Array:
        r"""R2 of each task split by band, by the product measure (Hoffman 1960, Pratt 1987).

        With the part :math:`f_b` of the prediction f that goes through the features of band b,
        about the means of these rows,

        .. math:: R^2_b = f_b'(2y - f) / y'y ,

        which is f_b'y / y'y where f is a least-squares fit to these rows. Each band bears its
        part of the distance of the means from the fitted plane, and bands share alike in what of
        it is no band's. A band that corrects another can have a negative share.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; NaN in y is left out.

        Returns
        -------
        array of shape (n_bands, n_tasks)
            In the order of `band_names_`. Columns add up to `score_tasks`; NaN for a task that
            is constant on these rows or observed in fewer than two.
        """
        return self._by_task(self._shares, X, y, sample_weight)

    @available_if(_has_bands)
    def score_moments_by_band(self, moments: Moments) -> Array:
        """`score_by_band` on the moments of held-out rows.

        Parameters
        ----------
        moments : Moments
            As in `score_moments`.

        Returns
        -------
        array of shape (n_bands, n_tasks)
        """
        return self._shares(self._solution, self._fitting(self._as_fitted(moments)))

    def score_moments(self, moments: Moments) -> float:
        """The mean R2 over the tasks on held-out moments, exactly that on the rows.

        Parameters
        ----------
        moments : Moments
            With a block "y"; the others are the features, as in `fit_moments`.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        return super().score_moments(self._as_fitted(moments))

    def _score(self, moments: Moments, model: Planes) -> float:
        return _mean(model.r2(moments))
