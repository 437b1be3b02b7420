"""Multitask regression from moments: ridge for many targets, each with its penalty and rows."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, namespace, to_numpy
from cmstats.models.base import MomentsEstimator, all_or_nothing
from cmstats.models.ridge import about_plane, plane_point, r2, ridge, search, squared_errors
from cmstats.moments.moments import Moments
from cmstats.moments.tasks import TaskMoments, as_x_and_y
from cmstats.rows.chunks import project
from cmstats.rows.views import Features, column_slices, several

__all__ = ["ALPHAS", "MultitaskRegressor"]

ALPHAS = tuple(float(f"{a:.4g}") for a in np.logspace(-3, 6.5, 20))
"""The default grid of ``alpha="cv"``: half decades."""


def _has_binary_tasks(self: MultitaskRegressor) -> bool:
    # scikit-learn holds that a regressor has no decision function, until it is known better.
    if not getattr(self, "_binary", False):
        raise AttributeError(
            "decision_function is for models fitted to targets coded 0 and 1: use predict"
        )
    return True


def _numbers(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value) if isinstance(value, Real) else to_numpy(value)


class MultitaskRegressor(RegressorMixin, MomentsEstimator):
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
        One row for each of `alphas`, or for `alpha` alone if only the rank was chosen.
    cv_rank_scores_ : array of shape (n_alphas, n_ranks)
        Mean held-out R2 over folds and tasks for the ranks 1, 2, ..., where rank="cv".
    n_samples_ : float
        The sum of the weights of the rows in which some task is observed.
    task_n_samples_ : array of shape (n_tasks,)
        The sum of the weights of the rows in which each task is observed.
    view_columns_ : dict
        Where each view of X stands among the features, by its name or number, if it was
        fitted to several.
    moments_ : Moments, list of Moments, or dict
        What it was fitted on; where targets are missing, by group of tasks that are observed
        in the same rows.
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

    **Binary targets.** Regression on {0, 1} is enough to rank items by the probability of a
    label, and the largest of several such scores names a class: `decision_function`.

    References
    ----------
    Hoerl, A. E. and Kennard, R. W. (1970). Ridge regression. Technometrics 12.
    Izenman, A. J. (1975). Reduced-rank regression for the multivariate linear model.
    J. Multivariate Analysis 5.
    Mukherjee, A. and Zhu, J. (2011). Reduced rank ridge regression and its kernel extensions.
    Statistical Analysis and Data Mining 4.

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
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"}), "array-like"],
        "rank": [Interval(Integral, 1, None, closed="left"), StrOptions({"cv"}), None],
        "alphas": ["array-like"],
        "fit_intercept": ["boolean"],
        "solver": [StrOptions({"auto", "moments", "svd"})],
        "cv": ["cv_object"],
        "missing": [StrOptions({"error", "em"})],
    }
    _cv_parameters: ClassVar[tuple[str, ...]] = ("alpha", "rank")

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
    ) -> None:
        self.alpha = alpha
        self.rank = rank
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.cv = cv
        self.missing = missing

    # ------------------------------------------------------------------------- fitting
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
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
        fitted: Self = super().fit(X, y, sample_weight)
        return fitted

    def _solve(self, moments: Moments) -> None:
        xp = namespace(moments.mean("x"))
        p, q = moments.width("x"), moments.width("y")
        alpha = self._chosen.get("alpha", self._given_alpha())
        if isinstance(alpha, np.ndarray):
            alpha = xp.asarray(alpha, device=device_of(moments.mean("x")))
        rank = self._chosen.get("rank", self.rank)
        about = about_plane(moments, self.fit_intercept)
        solution = ridge(about, alpha, self._chosen.pop("spectrum", None))
        self._weights = solution.coefficients(rank)
        self._center, self._offset = plane_point(moments, self.fit_intercept)
        self.alpha_, self.rank_ = alpha, min(p, q, rank or q)
        self.condition_ = solution.condition
        self.task_n_samples_ = 0 * self._offset + moments.n
        mean, variance = moments.mean("y"), moments.variance("y", ddof=0)
        # 0 and 1 are their own squares, up to the rounding of float32 data.
        apart = xp.abs(variance - mean * (1 - mean))
        self._binary = bool(xp.any(apart <= 1e-4 * xp.abs(variance) + 1e-12))
        if solution.rank < p:
            self._degenerate.append(
                f"the features depend on each other linearly (rank {solution.rank} of {p}) and "
                "alpha is 0: this is the solution of least norm; set a positive alpha"
            )
        self._publish(xp)

    def _publish(self, xp: Any) -> None:
        """The coefficients as scikit-learn has them."""
        coef = self._weights.mT
        intercept = self._offset - self._center @ self._weights
        one = self._y_ndim == 1
        self.coef_ = coef[0, :] if one else coef
        self.intercept_ = float(intercept[0]) if one else intercept
        if one and not isinstance(self.alpha_, float):
            self.alpha_ = float(self.alpha_[0])

    def _resolve(self, folds: list[Moments]) -> dict[str, Any]:
        rank = min(folds[0].widths) if self.rank == "cv" else self.rank
        found = search(folds, self._grid(), rank=rank, intercept=self.fit_intercept)
        if found.unscored:
            self._degenerate.append(
                "no fold has two rows in which a task is observed, so it cannot be scored and "
                "the first of alphas is taken: use fewer folds"
            )
        return {**self._choose(found.scores, folds[0].mean("x")), "spectrum": found.spectrum}

    def _choose(self, scores: np.ndarray[Any, Any], like: Array) -> dict[str, Any]:
        """The best of the grid by scores of shape (n_alphas, n_ranks, n_tasks)."""
        xp, device = namespace(like), device_of(like)
        alphas = np.array(self._grid())
        if self.rank is None:
            self.cv_scores_ = xp.asarray(scores[:, 0, :], device=device)
            return {"alpha": alphas[scores[:, 0, :].argmax(axis=0)]}
        mean = scores.mean(axis=2)
        if self.rank != "cv":
            mean[:, :-1] = -np.inf
        i, _ = np.unravel_index(mean.argmax(), mean.shape)
        # Ranks beyond that of the data only differ by rounding: the smallest of them.
        j = int((mean[i] >= mean[i].max() - 1e-12).argmax())
        self.cv_scores_ = xp.asarray(scores[:, j, :], device=device)
        rank = self.rank
        if rank == "cv":
            self.cv_rank_scores_, rank = xp.asarray(mean, device=device), j + 1
        return {"alpha": float(alphas[i]), "rank": rank}

    def _given_alpha(self) -> Any:
        """The parameter as "cv", a float or an array of one for each task."""
        if isinstance(self.alpha, str):
            return self.alpha
        alpha = _numbers(self.alpha)
        return alpha.astype(np.float64) if alpha.ndim else float(alpha)

    def _grid(self) -> list[float]:
        """The penalties to try: one, where only the rank is to be chosen."""
        alpha = self._given_alpha()
        return [float(a) for a in to_numpy(self.alphas)] if alpha == "cv" else [alpha]

    def _ill_conditioned(self) -> bool:
        return bool(self.condition_ > 1e4)

    def _validate_params(self) -> None:
        super()._validate_params()
        for name in ("alpha", "alphas"):
            value = getattr(self, name)
            if isinstance(value, str):
                continue
            a = _numbers(value)
            scalar = name == "alpha" and a.ndim == 0
            if a.dtype.kind not in "iuf" or not (scalar or (a.ndim == 1 and a.size)):
                what = "a number, 'cv' or one number a task" if name == "alpha" else "numbers"
                raise ValueError(f"{name}={value!r} is not valid: it must be {what}")
            if not (np.isfinite(a) & (a >= 0)).all():
                raise ValueError(f"{name} must be finite and not negative, got {value!r}")
        if self.rank is not None and isinstance(self._given_alpha(), np.ndarray):
            raise ValueError(
                f"rank={self.rank!r} with an alpha for each task has no closed form: give one "
                "common alpha, or alpha='cv', which chooses a common one"
            )

    # -------------------------------------------------------------- rows, parts, moments
    def _fit_rows(self, form: Any, X: Any, y: Any, sample_weight: Any) -> None:
        if self.missing == "em":
            self._forget_scores()
            super()._fit_rows(form, X, y, sample_weight)
            return
        cv = self.cv if self._open_parameters() else None
        self._fit_tasks(
            TaskMoments.from_rows(
                X.blocks,
                y,
                form=form,
                sample_weight=sample_weight,
                cv=cv,
                several=self.rank is None,
            )
        )

    def _fit_batches(self, source: Any, form: Any) -> bool:
        if self.missing == "em":
            self._forget_scores()
            return super()._fit_batches(source, form)
        names = self._open_parameters()
        if names and not isinstance(self.cv, (int, np.integer)):
            raise ValueError(
                f"{names[0]}='cv': rows of a stream are dealt to folds by number, so cv must be an "
                "int"
            )
        seen: TaskMoments | None = None
        for X, y in self._pairs(source):
            new = TaskMoments.from_rows(
                X.blocks, y, form=form, cv=int(self.cv) if names else 1,
                start=0 if seen is None else seen.rows, several=self.rank is None,
            )  # fmt: skip
            seen = new if seen is None else seen + new
        if seen is None:
            raise ValueError("the stream of batches holds no rows")
        self._fit_tasks(seen)
        return int(self.n_features_in_) > seen.rows

    def _data(self, form: Any, X: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
        if len(X.blocks) > 1:
            raise ValueError(
                f"missing='em' takes X as one matrix, got the views {', '.join(X.blocks)}: put "
                "them side by side"
            )
        return super()._data(form, X.blocks["x"], y, sample_weight)

    def _fit_tasks(self, seen: TaskMoments) -> None:
        """One model where tasks are observed in the same rows, else one for each group."""
        self._seen = seen
        self._forget_scores()
        if self.rank is not None:
            seen.require_one_group()
        for tasks, parts in seen.groups.items():
            if not self._enough_rows(parts):
                rows = sum(m.rows for m in parts if m is not None)
                folds = " in at least two folds" if len(parts) > 1 else ""
                raise ValueError(
                    f"task {tasks[0]} (column {tasks[0]} of y) is observed in n_samples={rows} "
                    f"rows (of positive weight): at least 2 are needed{folds}; drop the column"
                )
        if len(seen.groups) == 1:
            self._fit_total(self._present(*seen.groups.values()))
        else:
            self._join([(tasks, self._of_tasks(tasks)) for tasks in seen.groups])
        self.n_samples_ = seen.n

    def _forget_scores(self) -> None:
        for name in ("cv_scores_", "cv_rank_scores_"):
            self.__dict__.pop(name, None)

    def _present(self, parts: list[Moments | None]) -> Any:
        present = [m for m in parts if m is not None]
        return present if self._open_parameters() else present[0]

    def _enough_rows(self, parts: list[Moments | None]) -> bool:
        counts = [min(m.rows, m.n) for m in parts if m is not None]
        return sum(counts) >= 2 and len(counts) >= min(2, len(parts))

    def _of_tasks(self, tasks: tuple[int, ...]) -> MultitaskRegressor:
        """The model of some tasks, on their own rows."""
        parameters = self.get_params(deep=False)
        if isinstance(alpha := self._given_alpha(), np.ndarray):
            parameters["alpha"] = alpha[list(tasks)]
        model = type(self)(**parameters)
        model._y_ndim = 2
        model._fit_total(self._present(self._seen.groups[tasks]))
        return model

    def _join(self, models: list[tuple[tuple[int, ...], MultitaskRegressor]]) -> None:
        """Put the models of groups of tasks side by side."""
        first = models[0][1]
        xp = namespace(first._center)
        numbers = np.argsort(np.concatenate([tasks for tasks, _ in models]))
        order = xp.asarray(numbers, device=device_of(first._center))

        def joined(name: str, axis: int = 0) -> Array:
            return xp.take(
                xp.concat([getattr(m, name) for _, m in models], axis=axis), order, axis=axis
            )

        for _, m in models:  # planes are told by their height above one common point
            m._offset = m._offset + (first._center - m._center) @ m._weights
        self._center, self._offset = first._center, joined("_offset")
        self._weights = joined("_weights", 1)
        self.task_n_samples_ = joined("task_n_samples_")
        self.alpha_ = first.alpha_ if isinstance(first.alpha_, float) else joined("alpha_")
        if hasattr(first, "cv_scores_"):
            self.cv_scores_ = joined("cv_scores_", 1)
        self.rank_ = min(self._weights.shape)
        self.condition_ = max(m.condition_ for _, m in models)
        self._binary = any(m._binary for _, m in models)
        self._degenerate = list(dict.fromkeys(s for _, m in models for s in m._degenerate))
        self.moments_ = {tasks: m.moments_ for tasks, m in models}
        self._publish(xp)

    @all_or_nothing
    def fit_moments(self, moments: Any) -> Self:
        """Fit to the moments of "y" and of features in any other blocks.

        Parameters
        ----------
        moments : Moments or list of Moments
            All blocks but "y" are the features, in their order:
            ``Moments.from_data(image=I, text=T, y=Y)``. The list of fold moments where a
            parameter is "cv" (`Moments.folds`); a list is merged otherwise.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a block is missing, or a parameter is "cv" and `moments` is a single one,
            which cannot be split.
        """
        self._validate_params()
        one = isinstance(moments, Moments)
        parts = [moments] if one else list(moments)
        if not parts or not all(isinstance(m, Moments) for m in parts):
            return super().fit_moments(parts)  # which says what is wrong
        names = tuple(name for name in parts[0].names if name != "y")
        widths = {name: parts[0].width(name) for name in names}
        parts = [as_x_and_y(m, names) for m in parts]
        self._forget_scores()
        self._know_views(widths if len(names) > 1 else {})
        self._check_penalties(parts[0].width("y"))
        super().fit_moments(parts[0] if one else parts)
        tasks = tuple(range(parts[0].width("y")))
        self._seen = TaskMoments({tasks: [*parts]}, sum(m.rows for m in parts), self.n_samples_)
        return self

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows to those fitted so far.

        The result is that of `fit` on all rows together, however they were parted: row
        number i overall belongs to fold i mod `cv` where a parameter is "cv". Each call
        solves anew, O(p^3) for each group of tasks that were observed in the same rows: for
        very many small batches build `Moments.from_batches` and call `fit_moments` once.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`. Batches may miss (NaN) any targets of any rows, also all.

        Returns
        -------
        self
        """
        self._validate_params()
        if self.missing == "em":
            fitted: Self = super().partial_fit(X, y, sample_weight)
            return fitted
        seen: TaskMoments | None = getattr(self, "_seen", None)
        X, y = self._check_views(X, y, reset=seen is None)
        names = self._open_parameters()
        if names and not isinstance(self.cv, (int, np.integer)):
            raise ValueError("partial_fit deals rows to folds by number: cv must be an int")
        folds = int(self.cv) if names else 1
        form = self._first_form(np.inf, 0)  # type: ignore[arg-type]
        if seen is not None:
            seen = seen if names else seen.merged()
            form = seen.form or form
            if seen.folds != folds:
                raise ValueError(
                    f"the rows before were not dealt to {folds} folds, so {names[0]}='cv' cannot "
                    "use them: start anew with these parameters"
                )
        new = TaskMoments.from_rows(
            X.blocks, y, form=form, sample_weight=sample_weight, cv=folds,
            start=0 if seen is None else seen.rows, several=self.rank is None,
        )  # fmt: skip
        self._seen = new if seen is None else seen + new
        # Until there are rows enough for a model, they are only counted.
        enough = all(self._enough_rows(parts) for parts in self._seen.groups.values())
        if enough and self._seen.rows >= max(2, folds):
            self._fit_tasks(self._seen)
            return self._warned()
        return self

    # ---------------------------------------------------------------------- predicting
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
        views = self._check_x(X)
        parts = [
            project(views.blocks[name], self._center[cut], self._weights[cut, :], name)
            for name, cut in column_slices(views.widths).items()
        ]
        xp = namespace(*parts)
        y = sum(parts[1:], parts[0])
        y = y + xp.astype(self._offset, y.dtype)
        return y[:, 0] if self._y_ndim == 1 else y

    @available_if(_has_binary_tasks)
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
        xp = namespace(self._weights)
        C = self._weights - xp.mean(self._weights, axis=0)
        norm = xp.sqrt(xp.sum(C * C, axis=0))
        scale = xp.max(xp.abs(self._weights), axis=0)
        varies = norm > 1e-14 * scale
        nan = xp.asarray(float("nan"), dtype=xp.float64, device=device_of(C))
        C = xp.where(varies, C / xp.where(varies, norm, 1.0), nan)
        return xp.clip(C.mT @ C, -1.0, 1.0)

    # ------------------------------------------------------------------------- judging
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
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
        return self._mean(self.score_tasks(X, y, sample_weight))

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
        check_is_fitted(self)
        X, y = self._check_views(X, y, reset=False)
        if self.missing == "em":
            m = self._held_out(Moments.from_data(**self._data("scatter", X, y, sample_weight)))
            return self._r2(m, tuple(range(m.width("y"))))
        seen = TaskMoments.from_rows(
            X.blocks, y, form=self._seen.form or "scatter", sample_weight=sample_weight
        )
        xp = namespace(self._weights)
        scores = [self._r2(parts[0], tasks) for tasks, parts in seen.groups.items()]
        order = np.argsort(np.concatenate(list(seen.groups)))
        return xp.take(xp.concat(scores), xp.asarray(order, device=device_of(self._weights)))

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
        m = as_x_and_y(self._held_out(moments), tuple(getattr(self, "view_columns_", ())))
        for name, expected in zip(("x", "y"), self._weights.shape, strict=True):
            if m.width(name) != expected:
                raise ValueError(
                    f"the moments of {name} are of {m.width(name)} features, but "
                    f"{type(self).__name__} is expecting {expected}"
                )
        return self._mean(self._r2(m, tuple(range(m.width("y")))))

    def _r2(self, moments: Moments | None, tasks: tuple[int, ...]) -> Array:
        xp = namespace(self._weights)
        at = xp.asarray(np.array(tasks), device=device_of(self._weights))
        weights, offset = xp.take(self._weights, at, axis=1), xp.take(self._offset, at)
        if moments is None:
            return 0 * offset + float("nan")
        return r2(squared_errors(moments, weights, (self._center, offset)), moments)

    def _mean(self, scores: Array) -> float:
        values = to_numpy(scores)
        known = np.isfinite(values)
        if not known.any():
            warnings.warn(
                "R2 is NaN: it needs at least two rows in which a task is observed",
                UserWarning,
                stacklevel=3,
            )
            return float("nan")
        return float(values[known].mean())

    # ---------------------------------------------------------------------- validation
    def _check_x(self, X: Any, *, reset: bool = False, ensure_finite: bool = True) -> Features:
        """One matrix, or several; widths and names are remembered or checked."""
        if not several(X):
            checked = super()._check_x(X, reset=reset, ensure_finite=ensure_finite)
            if reset:
                self._know_views({})
            return Features({"x": checked})
        known: dict[str, slice] = {} if reset else getattr(self, "view_columns_", {})
        views = Features.of(X, order=tuple(known), ensure_finite=ensure_finite)
        names = getattr(self, "feature_names_in_", None)
        if not reset:
            views.check(known, self.n_features_in_, names)
            return views
        self._know_views(views.widths)
        self.n_features_in_ = views.shape[1]
        self.__dict__.pop("feature_names_in_", None)
        if views.names is not None:
            self.feature_names_in_ = views.names
        return views

    def _know_views(self, widths: dict[str, int]) -> None:
        self.__dict__.pop("view_columns_", None)
        if widths:
            self.view_columns_ = column_slices(widths)

    def _check_y(self, y: Any, *, reset: bool = False, ensure_finite: bool = True) -> Any:
        checked = super()._check_y(y, reset=reset, ensure_finite=ensure_finite)
        self._check_penalties(self._y_width)
        return checked

    def _check_penalties(self, tasks: int) -> None:
        alpha = self._given_alpha()
        if isinstance(alpha, np.ndarray) and alpha.size != tasks:
            raise ValueError(
                f"alpha has {alpha.size} values for {tasks} tasks (columns of y): give one for "
                "each, or one number for all"
            )
