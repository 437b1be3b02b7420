"""Searching parameters at the cost of one pass over the data."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.model_selection import ParameterGrid
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import warn
from cmstats.metrics.correlation import total_correlation_scorer
from cmstats.models.delegated import DelegatedOutputs, delegated, has
from cmstats.models.fitting import CopyFitted
from cmstats.models.reading import (
    FoldReader,
    candidate_of,
    fit_quietly,
    open_parameters,
    whole_moments,
)
from cmstats.moments.folds import GridScores, Trial, best_index, choice_notes, cross_validated
from cmstats.moments.moments import Moments
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.progress import check_shown

__all__ = ["MomentsSearchCV", "one_standard_error"]

Fit: TypeAlias = Callable[[Any, Moments], list[str]]
"""Fits a model to moments, and returns sentences about degenerate data."""

SIMPLER = {"shrinkage": 1, "alpha": 1, "corruption": 1, "n_components": -1, "rank": -1}
"""Whether a larger (1) or a smaller (-1) value of a parameter makes the simpler model."""


def one_standard_error(cv_results: Mapping[str, Any]) -> int:
    """The simplest candidate whose mean score is within one standard error of the best.

    For ``refit`` of `MomentsSearchCV` and of scikit-learn's GridSearchCV (one metric).

    Parameters
    ----------
    cv_results : dict of arrays
        ``cv_results_`` of a search.

    Returns
    -------
    int
        The number of the candidate.

    Notes
    -----
    The rule of Breiman, Friedman, Olshen and Stone (1984, section 3.4.3). The standard error is
    that of the best candidate's mean over the folds, std(ddof=1) / sqrt(n_splits).

    Simpler is more `shrinkage`, `alpha` or `corruption` and fewer `n_components` or a smaller
    `rank` (None is the most). A pair of values (one for each view) counts as two parameters.
    Only candidates are looked at that are nowhere less simple than the best: parameters without
    an order ("auto", `scale`, a kernel) stay as they are in the best. Of these the one that is
    the most steps of the grid away from the best is taken, at equal steps that of the better
    mean score.

    Examples
    --------
    >>> from cmstats.model_selection import one_standard_error
    >>> one_standard_error({
    ...     "params": [{"shrinkage": 0.01}, {"shrinkage": 0.1}, {"shrinkage": 0.9}],
    ...     "split0_test_score": [0.5, 0.6, 0.1], "split1_test_score": [0.7, 0.5, 0.2],
    ...     "mean_test_score": [0.6, 0.55, 0.15], "std_test_score": [0.1, 0.05, 0.05],
    ... })
    1
    """
    mean = np.asarray(cv_results["mean_test_score"], dtype=float)
    if np.isnan(mean).all():
        raise ValueError("no candidate has a mean score to choose by: use fewer folds")
    splits = sum(key.startswith("split") and key.endswith("_test_score") for key in cv_results)
    best = int(np.nanargmax(mean))
    # The table's standard deviation has ddof=0.
    error = float(cv_results["std_test_score"][best]) / math.sqrt(max(splits - 1, 1))
    steps = _steps_simpler(cv_results["params"], best)
    near = np.flatnonzero((mean >= mean[best] - error) & (steps >= 0))
    return int(max(near, key=lambda i: (steps[i], mean[i], -i)))


def _steps_simpler(params: Sequence[Mapping[str, Any]], best: int) -> Any:
    """How many steps of the grid each candidate is simpler than the best; -1 where it is not."""
    flat = [_flattened(p) for p in params]
    names = {name for p in flat for name in p}
    levels = {
        name: sorted({-SIMPLER[_parameter(name)] * p[name] for p in flat if _ordered(name, p)})
        for name in names
    }

    def step(name: str, p: dict[str, Any]) -> int:
        mine, bests = (_ordered(name, q) for q in (p, flat[best]))
        if not (mine and bests):
            return 0 if repr(p.get(name)) == repr(flat[best].get(name)) else -(len(flat) ** 2)
        sign, ranks = -SIMPLER[_parameter(name)], levels[name]
        down = ranks.index(sign * flat[best][name]) - ranks.index(sign * p[name])
        return down if down >= 0 else -(len(flat) ** 2)

    steps = np.array([sum(step(name, p) for name in names) for p in flat])
    return np.maximum(steps, -1)


def _flattened(params: Mapping[str, Any]) -> dict[str, Any]:
    """Values by parameter and view."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        ordered = _parameter(name) in SIMPLER
        if ordered and isinstance(value, Mapping):
            flat |= {f"{name}[{k}]": v for k, v in value.items()}
        elif ordered and isinstance(value, (tuple, list, np.ndarray)):
            flat |= {f"{name}[{i}]": v for i, v in enumerate(value)}
        else:
            none = value is None and _parameter(name) in ("n_components", "rank")
            flat[name] = math.inf if none else value
    return flat


def _parameter(name: str) -> str:
    """The name of the parameter itself: "shrinkage" of "model__shrinkage[0]"."""
    return name.rpartition("__")[2].partition("[")[0]


def _ordered(name: str, flat: Mapping[str, Any]) -> bool:
    """Whether a candidate has a number there, of a parameter that has an order."""
    value = flat.get(name)
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and _parameter(name) in SIMPLER


def _total_correlation(model: Any, moments: Moments) -> float:
    correlations = model.correlations_on(moments)
    return float(sum(float(r) for r in correlations))


def _likelihood_ratio(model: Any, moments: Moments) -> float:
    return float(model.ratio_moments(moments))


SCORINGS: dict[str, tuple[str, Callable[[Any, Moments], float]]] = {
    "total_correlation": ("correlations_on", _total_correlation),
    "likelihood_ratio": ("ratio_moments", _likelihood_ratio),
}
"""By name the method that an estimator needs, and the score."""


def _scorer(scoring: Any, estimator: Any) -> Callable[[Any, Moments], float] | None:
    """The score of a fitted model on held-out moments; None for the estimator's own."""
    if scoring is None:
        return None
    name = type(estimator).__name__
    if scoring is total_correlation_scorer:
        scoring = "total_correlation"
    if isinstance(scoring, str) and scoring in SCORINGS:
        method, score = SCORINGS[scoring]
        if not hasattr(estimator, method):
            raise ValueError(
                f"scoring={scoring!r} is not defined for {name}: leave scoring=None, its own score"
            )
        return score
    if callable(scoring) and _positional(scoring) == 2:
        return scoring  # type: ignore[no-any-return]
    if callable(scoring):
        raise TypeError(
            f"scoring={scoring!r} needs rows, which moments no longer hold: use scikit-learn's "
            "GridSearchCV with it, or a function of (fitted estimator, test moments)"
        )
    raise ValueError(
        f"scoring={scoring!r} cannot be computed from moments: use None (the estimator's own "
        f"score), {', '.join(map(repr, SCORINGS))} or a function of (fitted estimator, test "
        "moments), or scikit-learn's GridSearchCV for what needs rows"
    )


def _positional(function: Any) -> int:
    """How many arguments must be given by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 3
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )


def _fitted_by(reader: FoldReader) -> Fit:
    return lambda model, moments: reader.fit(model, [moments])


def _sharing_a_pass(estimator: Any, candidates: Sequence[dict[str, Any]]) -> list[list[int]]:
    """The numbers of the candidates that share one pass over the rows."""
    parts: dict[str, list[int]] = {}
    for i, candidate in enumerate(candidates):
        own = sorted((k, repr(v)) for k, v in candidate.items() if k in estimator.collects)
        parts.setdefault(repr(own), []).append(i)
    return list(parts.values())


class MomentsSearchCV(MetaEstimatorMixin, CopyFitted, DelegatedOutputs):
    """Grid search with cross-validation from fold moments: one pass over the data.

    The moments of each fold are collected once; each candidate is fitted to the merge of
    the other folds and scored on the fold, which is d x d algebra. The scores are those of
    scikit-learn's GridSearchCV on the same folds.

    Parameters
    ----------
    estimator : estimator with `fit_moments` and `score_moments`
        `CCA`, `KernelCCA`, `MultiviewCCA`, `ConditionalGaussian`, `LinearAutoencoder`,
        `MultitaskRegressor`. Parameters that are "cv" must be in the grid (as numbers, or
        "auto").
    param_grid : dict or list of dict
        Values to try, by parameter name. Candidates that differ in `missing`, `solver`, the
        `target` of an autoencoder or the kernel and maps of `KernelCCA` need a pass for each
        combination of these.
    scoring : None, str or callable, default=None
        None is the estimator's own `score`; "total_correlation" (or
        `metrics.total_correlation_scorer`) the sum of the held-out canonical correlations,
        which can choose `n_components`; "likelihood_ratio" the mean held-out
        log p(x, y) - log p(x) - log p(y), by which ``shrinkage="cv"`` of `ConditionalGaussian`
        chooses; or a function of (fitted estimator, test moments) -> float. Scores that need
        rows (retrieval) are for GridSearchCV.
    cv : int, splitter or iterable of (train, test), default=5
        The folds, which must part the rows. An int K deals row i to fold i mod K, or with
        `groups` the i-th group (see `Moments.folds`), where GridSearchCV would take K runs of
        consecutive rows.
    refit : bool, "one_standard_error" or callable, default=True
        Fit the best candidate to all rows (to the merge of the folds). "one_standard_error"
        takes, instead of the best, the simplest candidate within one standard error of it
        (`one_standard_error`); a function of `cv_results_` returns the number of the candidate
        to take.
    return_train_score : bool, default=False
        Whether `cv_results_` also has the scores on the training rows.
    verbose : int, default=0
        Show a progress bar over candidates and folds when positive.

    Attributes
    ----------
    best_params_, best_score_, best_index_
        Of the candidate with the best mean score, or of that chosen by `refit`.
    best_estimator_ : estimator
        Fitted to all rows, if `refit`. Its methods (`transform`, `predict`, `embed`,
        `similarity`, `logpdf`, ...) are those of the search too.
    cv_results_ : dict of arrays
        With GridSearchCV's keys.
    n_splits_ : int
    refit_time_ : float
        Seconds.
    n_features_in_, feature_names_in_
        Those of the best estimator.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : For scores that need rows (retrieval) and for
        transformers that must be fitted inside the folds; the estimators here work in it.
    one_standard_error : The rule, for both searches.

    Notes
    -----
    The maps of `KernelCCA` (landmarks, bandwidth) are fitted once, to all rows of both views but
    without their pairing, and held fixed over the folds. In GridSearchCV each training set has
    its own; scores differ by what another draw of landmarks changes.

    A candidate that cannot be fitted (more components than a training set allows) raises.

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

    Two views out of three, which GridSearchCV would split as if they were rows:

    >>> from cmstats import MultiviewCCA
    >>> views = {"image": image, "text": text[:, :80], "more": text[:, 80:]}
    >>> search = MomentsSearchCV(
    ...     MultiviewCCA(),
    ...     {"n_components": [5, 20], "shrinkage": [0.1, "auto"]},
    ...     scoring="total_correlation",
    ...     cv=KFold(3, shuffle=True, random_state=0),
    ... ).fit(views)
    >>> search.best_params_["n_components"], search.transform(views)["text"].shape
    (20, (1870, 20))
    """

    _private = frozenset({"_score"})

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        cv: Any = 5,
        refit: Any = True,
        return_train_score: bool = False,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.cv = cv
        self.refit = refit
        self.return_train_score = return_train_score
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> Self:
        """Search, and fit the best candidate to all rows.

        Parameters
        ----------
        X, y : what the estimator's `fit` takes
            Arrays of shapes (n_samples, n_features), (n_samples, n_targets); for `MultiviewCCA`
            X is a list or dict of views.
        sample_weight : array of shape (n_samples,), optional
            Frequency weights, in fitting and in scoring.
        groups : array of shape (n_samples,), optional
            Labels of rows that depend on each other and belong into one fold; see
            `Moments.folds`.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the estimator cannot be fitted to moments, or `scoring` needs rows.
        ValueError
            If the folds do not part the rows, there is no candidate, or one is out of range or
            cannot be fitted.
        """
        check_row_labels({"X": X, "groups": groups})
        new = self._unfitted()
        notes = new._search(X, y, sample_weight, groups)
        return self._become(new)._warned(notes)

    def _search(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> list[str]:
        candidates = self._candidates()
        found: list[tuple[list[int], GridScores]] = []
        held: dict[int, tuple[FoldReader, Moments]] = {}
        dealt: Any = None
        dependent: list[str] = []
        for numbers in _sharing_a_pass(self.estimator, candidates):
            mine = [candidates[i] for i in numbers]
            reader = FoldReader(clone(self.estimator).set_params(**mine[0]), X, y, sample_weight)
            dealt = dealt or reader.dealt(self.cv, groups)
            models = [functools.partial(self._fresh, c) for c in mine]
            fit = _fitted_by(reader)
            folds = reader.folds(reader.form, dealt)
            scores = self._scores(models, folds, fit)
            for form in reader.finer_forms:
                if not scores.ill_conditioned:
                    break
                if form == "root" or folds[0].single:
                    folds = reader.folds(form, dealt)
                    scores = self._scores(models, folds, fit)
            dependent = dependent or reader.dependent(dealt)
            reader.release()
            found.append((numbers, scores))
            total = functools.reduce(operator.add, [*folds, *reader.between])
            held |= dict.fromkeys(numbers, (reader, total))
        notes = [*dependent, *self._publish(candidates, GridScores.joined(found))]
        if self.refit:
            reader, total = held[self.best_index_]
            notes += self._refit(self._fresh(self.best_params_), total, _fitted_by(reader))
        return notes

    def _fresh(self, parameters: dict[str, Any]) -> Any:
        return clone(self.estimator).set_params(**parameters)

    def fit_moments(self, folds: Any) -> Self:
        """Search on fold moments (`Moments.folds`), without rows.

        Parameters
        ----------
        folds : list of Moments
            For `KernelCCA`, which must be fitted then, of rows mapped by its `x_map_` and
            `y_map_`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As in `fit`.
        """
        new = self._unfitted()
        notes = new._search_moments(folds)
        return self._become(new)._warned(notes)

    def _search_moments(self, folds: Any) -> list[str]:
        candidates = self._candidates()
        listed = isinstance(folds, (list, tuple)) and all(isinstance(m, Moments) for m in folds)
        if not isinstance(folds, Moments) and not listed:
            raise TypeError("MomentsSearchCV.fit_moments takes a list of the Moments of folds")
        if isinstance(folds, Moments) or len(folds) < 2:
            raise ValueError(
                "MomentsSearchCV needs the moments of at least two folds: Moments.folds(...)"
            )
        models = [functools.partial(candidate_of, self.estimator, c) for c in candidates]
        for model in models:
            model()  # raises where a candidate cannot be fitted to moments
        notes = self._publish(candidates, self._scores(models, list(folds), fit_quietly))
        if self.refit:
            total = functools.reduce(operator.add, folds)
            notes += self._refit(models[self.best_index_](), total, fit_quietly)
        return notes

    def _candidates(self) -> list[dict[str, Any]]:
        """The candidates, all of them valid; raises before any data are read."""
        needed = ("fit_moments", "score_moments")
        name = type(self.estimator).__name__
        if not all(hasattr(self.estimator, method) for method in needed):
            raise TypeError(
                f"{name} cannot be fitted to moments: use scikit-learn's GridSearchCV (inside a "
                "TwoViewPipeline, make MomentsSearchCV the model instead)"
            )
        known = isinstance(self.refit, (bool, np.bool_)) or callable(self.refit)
        if not known and not (isinstance(self.refit, str) and self.refit == "one_standard_error"):
            raise ValueError(
                f"refit={self.refit!r} must be True, False, 'one_standard_error' or a function of "
                "cv_results_"
            )
        check_shown("verbose", self.verbose)
        self._score = _scorer(self.scoring, self.estimator)
        candidates = list(ParameterGrid(self.param_grid))
        if not candidates:
            raise ValueError("param_grid is empty: give a dict of lists of values to try")
        for parameters in candidates:
            candidate = clone(self.estimator).set_params(**parameters)
            candidate._validate_params()
            if names := open_parameters(candidate):
                raise ValueError(
                    f"{names[0]} is no candidate of a search: put "
                    f"values to try into param_grid, or fit {name} by itself"
                )
        return candidates

    def _scores(
        self, models: Sequence[Callable[[], Any]], folds: list[Moments], fit: Fit
    ) -> GridScores:
        def fitted(i: int, train: Moments) -> Trial:
            model = models[i]()
            notes = ["; ".join(notes)] if (notes := fit(model, train)) else []
            return Trial(model, notes, bool(getattr(model, "_ill_conditioned", bool)()))

        def score(model: Any, moments: Moments) -> float:
            return (self._score or type(model).score_moments)(model, moments)

        return cross_validated(
            fitted, score, len(models), folds,
            train_scores=self.return_train_score, verbose=self.verbose,
        )  # fmt: skip

    def _publish(self, candidates: list[dict[str, Any]], found: GridScores) -> list[str]:
        """The results, and which candidate is taken; the sentences about the folds."""
        self.n_splits_ = int(found.scores.shape[1])
        self.multimetric_ = False
        self.cv_results_ = found.table(candidates)
        rule = one_standard_error if isinstance(self.refit, str) else self.refit
        if callable(rule):
            self.best_index_ = _checked_index(rule(self.cv_results_), candidates)
        else:
            self.best_index_ = best_index(found.scores, found.notes)
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.best_params_ = candidates[self.best_index_]
        return [*found.notes, *choice_notes(found.scores, candidates, self.best_index_)]

    def _refit(self, model: Any, moments: Moments, fit: Fit) -> list[str]:
        begin = time.perf_counter()
        notes = fit(model, moments)
        self.best_estimator_ = model
        self.refit_time_ = time.perf_counter() - begin
        return notes

    def _warned(self, notes: list[str]) -> Self:
        if notes:
            warn("; ".join(notes))
        return self

    # ------------------------------------------------------------- the best estimator's
    @available_if(has("score"))
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The best estimator's score: its own, or `scoring` on the moments of these rows.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        if self._score is None:
            return float(self.best_estimator_.score(X, y, sample_weight))
        return self._score(
            self.best_estimator_, whole_moments(self.best_estimator_, X, y, sample_weight)
        )

    @available_if(has("score_moments"))
    def score_moments(self, moments: Moments) -> float:
        """The score on the moments of held-out rows.

        Parameters
        ----------
        moments : Moments

        Returns
        -------
        float
        """
        check_is_fitted(self)
        judge = self._score or type(self.best_estimator_).score_moments
        return float(judge(self.best_estimator_, moments))

    @available_if(has("transform"))
    def fit_transform(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> Any:
        """``fit(X, y).transform(X)``."""
        return self.fit(X, y, sample_weight, groups).transform(X)

    def _inner(self, name: str) -> Any:
        if not self.refit:
            raise AttributeError(f"MomentsSearchCV(refit=False) has no best estimator to {name}")
        return getattr(self, "best_estimator_", self.estimator)

    inverse_transform = delegated("inverse_transform")
    decision_function = delegated("decision_function")
    score_tasks = delegated("score_tasks")

    @available_if(has("mutual_information"))
    def mutual_information(self, *, per_component: bool = False) -> Any:
        """The best estimator's `mutual_information`."""
        check_is_fitted(self)
        return self.best_estimator_.mutual_information(per_component=per_component)

    @property
    def n_features_in_(self) -> int:
        """The number of columns of the first view."""
        return int(self.best_estimator_.n_features_in_)

    @property
    def feature_names_in_(self) -> Any:
        """The names of the columns of the first view, where fit saw some."""
        return self.best_estimator_.feature_names_in_

    def __sklearn_is_fitted__(self) -> bool:
        """Whether the search was run."""
        return hasattr(self, "cv_results_")

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: those of the estimator."""
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.transformer_tags = inner.transformer_tags
        tags.input_tags.sparse = inner.input_tags.sparse
        tags.input_tags.allow_nan = inner.input_tags.allow_nan
        return tags


def _checked_index(i: Any, candidates: Sequence[Any]) -> int:
    """The number of a candidate that a function of `cv_results_` returned."""
    whole = isinstance(i, (int, np.integer)) and not isinstance(i, bool)
    if not whole or not 0 <= i < len(candidates):
        raise ValueError(
            f"refit returned {i!r}: it must be the number of a candidate, 0 to "
            f"{len(candidates) - 1}"
        )
    return int(i)
