"""Searching parameters at the cost of one pass over the data."""

from __future__ import annotations

import time
from typing import Any, Self

import numpy as np
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cmstats._folds import best_index, grid_scores
from cmstats.moments import Moments
from cmstats.streams import is_lazy

__all__ = ["MomentsSearchCV"]


def _best_has(name: str) -> Any:
    def check(self: MomentsSearchCV) -> bool:
        if not self.refit:
            raise AttributeError(f"MomentsSearchCV(refit=False) has no best estimator to {name}")
        getattr(getattr(self, "best_estimator_", self.estimator), name)
        return True

    return available_if(check)


class MomentsSearchCV(MetaEstimatorMixin, BaseEstimator):
    """Grid search with cross-validation from fold moments: one pass over the data.

    The moments of each fold are collected once; each candidate is fitted to the merge of
    the other folds and scored on the fold, which is d x d algebra. The scores are those of
    scikit-learn's GridSearchCV on the same folds.

    Parameters
    ----------
    estimator : estimator with `fit_moments` and `score_moments`
        For example `CCA`.
    param_grid : dict or list of dict
        Values to try, by parameter name.
    cv : int, splitter or iterable of (train, test), default=5
        The folds, which must part the rows. An int is scikit-learn's KFold for arrays, as
        in GridSearchCV, and folds by row number modulo `cv` for data read from a disk. KFold
        takes consecutive rows: where rows are sorted (by class, by time) shuffle them, with
        ``KFold(5, shuffle=True, random_state=0)``, or each fold is unlike the others.
    refit : bool, default=True
        Fit the best candidate to all rows (to the merge of the folds).

    Attributes
    ----------
    best_params_, best_score_, best_index_
        Of the candidate with the best mean score.
    best_estimator_ : estimator
        Fitted to all rows, if `refit`.
    cv_results_ : dict of arrays
        With GridSearchCV's keys.
    n_splits_ : int
    refit_time_ : float
        Seconds.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : For scores that need rows (retrieval) and for
        transformers that must be fitted inside the folds; the estimators here work in it.

    Examples
    --------
    >>> from sklearn.model_selection import KFold
    >>> from cmstats import CCA, MomentsSearchCV, load_emoji
    >>> image, text = load_emoji(return_X_y=True)
    >>> search = MomentsSearchCV(
    ...     CCA(20),
    ...     {"shrinkage": [0.01, 0.1, 0.5]},
    ...     cv=KFold(5, shuffle=True, random_state=0),
    ... ).fit(image, text)
    >>> search.best_params_
    {'shrinkage': 0.1}
    """

    def __init__(self, estimator: Any, param_grid: Any, *, cv: Any = 5, refit: bool = True) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.cv = cv
        self.refit = refit

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Search, and fit the best candidate to all rows.

        Parameters
        ----------
        X, y : array-likes of shape (n_samples, n_features), (n_samples, n_targets)
        sample_weight : array of shape (n_samples,), optional
            Frequency weights, in fitting and in scoring.
        groups : array of shape (n_samples,), optional
            For a splitter by groups.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the estimator cannot be fitted to moments.
        ValueError
            If the folds do not part the rows, or no candidate can be scored.
        """
        self._check_estimator()
        # Names, widths and form are the estimator's own business: it is asked to check.
        checker = clone(self.estimator)
        X_checked, y_checked = checker._check_views(X, y, reset=True)
        cv = self.cv
        if isinstance(cv, (int, np.integer)) and not (is_lazy(X) or is_lazy(y)):
            cv = check_cv(int(cv))
        width = 1 if y_checked.ndim == 1 else y_checked.shape[1]
        form = checker._first_form(X_checked.shape[0], X_checked.shape[1] + width)
        data = checker._data(form, X_checked, y_checked, sample_weight)
        data["groups"] = groups
        ill_conditioned = self._search(Moments.folds(cv=cv, **data))
        auto = getattr(checker, "solver", "") == "auto" and checker._missing == "error"
        if form == "scatter" and ill_conditioned and auto:
            self._search(Moments.folds(cv=cv, **{**data, "form": "root"}))
        if self.refit:
            best = self.best_estimator_
            for name in ("feature_names_in_", "y_feature_names_in_", "_y_ndim"):
                if hasattr(checker, name):
                    setattr(best, name, getattr(checker, name))
        return self

    def fit_moments(self, folds: Any) -> Self:
        """Search on fold moments (`Moments.folds`), without rows.

        Parameters
        ----------
        folds : list of Moments

        Returns
        -------
        self
        """
        self._check_estimator()
        if isinstance(folds, Moments) or len(folds) < 2:
            raise ValueError(
                "MomentsSearchCV needs the moments of at least two folds: Moments.folds(...)"
            )
        self._search(list(folds))
        return self

    def _check_estimator(self) -> None:
        needed = ("fit_moments", "score_moments")
        if not all(hasattr(self.estimator, name) for name in needed):
            raise TypeError(
                f"{type(self.estimator).__name__} cannot be fitted to moments: use scikit-learn's "
                "GridSearchCV (inside a TwoViewPipeline, make MomentsSearchCV the model instead)"
            )

    def _search(self, folds: list[Moments]) -> bool:
        """Fill in the results; whether the scatter form was not good enough."""
        candidates = list(ParameterGrid(self.param_grid))
        for parameters in candidates:
            candidate = clone(self.estimator).set_params(**parameters)
            candidate._validate_params()
            if candidate._open_parameters():
                raise ValueError(
                    f"{candidate._open_parameters()[0]}='cv' is no candidate of a search: give "
                    "numbers, or fit the estimator by itself"
                )
        found = grid_scores(self.estimator, candidates, folds)
        self.n_splits_ = len(folds)
        self.cv_results_ = _results(candidates, found)
        mean = self.cv_results_["mean_test_score"]
        self.best_index_ = best_index(found.scores)
        self.best_score_ = float(mean[self.best_index_])
        self.best_params_ = candidates[self.best_index_]
        if self.refit:
            begin = time.perf_counter()
            self.best_estimator_ = (
                clone(self.estimator).set_params(**self.best_params_).fit_moments(folds)
            )
            self.refit_time_ = time.perf_counter() - begin
        return bool(found.ill_conditioned)

    @_best_has("score")
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The best estimator's score."""
        check_is_fitted(self)
        return float(self.best_estimator_.score(X, y, sample_weight))

    @_best_has("transform")
    def transform(self, X: Any = None, y: Any = None) -> Any:
        """The best estimator's variates."""
        check_is_fitted(self)
        return self.best_estimator_.transform(X, y)

    def fit_transform(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Any:
        """``fit(X, y).transform(X)``."""
        return self.fit(X, y, sample_weight, groups).transform(X)

    @_best_has("predict")
    def predict(self, X: Any, **kwargs: Any) -> Any:
        """The best estimator's predictions."""
        check_is_fitted(self)
        return self.best_estimator_.predict(X, **kwargs)

    @_best_has("embed")
    def embed(self, X: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """The best estimator's embeddings."""
        check_is_fitted(self)
        return self.best_estimator_.embed(X, y, **kwargs)

    @_best_has("similarity")
    def similarity(self, X: Any, y: Any, **kwargs: Any) -> Any:
        """The best estimator's similarities."""
        check_is_fitted(self)
        return self.best_estimator_.similarity(X, y, **kwargs)

    @_best_has("fuse")
    def fuse(self, X: Any = None, y: Any = None) -> Any:
        """The best estimator's fused representation."""
        check_is_fitted(self)
        return self.best_estimator_.fuse(X, y)

    @property
    def n_features_in_(self) -> int:
        """The number of columns of the first view."""
        return int(self.best_estimator_.n_features_in_)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether the search was run."""
        return hasattr(self, "cv_results_")

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: those of the estimator."""
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.target_tags = inner.target_tags
        tags.transformer_tags = inner.transformer_tags
        tags.input_tags.sparse = inner.input_tags.sparse
        tags.input_tags.allow_nan = inner.input_tags.allow_nan
        return tags


def _results(candidates: list[dict[str, Any]], found: Any) -> dict[str, Any]:
    """GridSearchCV's table."""
    results: dict[str, Any] = {}
    for label, values in (("fit", found.fit_seconds), ("score", found.score_seconds)):
        results[f"mean_{label}_time"] = values.mean(axis=1)
        results[f"std_{label}_time"] = values.std(axis=1)
    for name in sorted({name for c in candidates for name in c}):
        column = np.ma.MaskedArray(np.empty(len(candidates), dtype=object), mask=True)
        for i, c in enumerate(candidates):
            if name in c:
                column[i] = c[name]
        results[f"param_{name}"] = column
    results["params"] = candidates
    for k in range(found.scores.shape[1]):
        results[f"split{k}_test_score"] = found.scores[:, k]
    mean = found.scores.mean(axis=1)
    results["mean_test_score"] = mean
    results["std_test_score"] = found.scores.std(axis=1)
    worst = np.where(np.isnan(mean), -np.inf, mean)
    results["rank_test_score"] = rankdata(-worst, method="min").astype(np.int32)
    return results
