"""scikit-learn's checks: one instance of the main classes; the others under `-m slow`.

Where a signature is not scikit-learn's, the checks run on an adapter, and none is left out.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from cmstats import (
    CCA,
    PLS,
    ConditionalGaussian,
    ConditionalGaussianMixture,
    ConformalRetriever,
    CrossModalRetriever,
    ExactKernelMap,
    KernelCCA,
    LinearAutoencoder,
    MomentsSearchCV,
    MultitaskRegressor,
    MultiviewCCA,
    NystroemMap,
    OrthogonalMap,
    PrototypeClassifier,
    RandomFourierMap,
    SemanticMatching,
    SparseCCA,
    TwoViewPipeline,
)
from cmstats.baselines import ASIF, ContrastiveAligner, DeepCCA

from .test_enrolment import public_estimators

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class RenamedCCA(CCA):
    """CCA under a name that scikit-learn does not special-case."""


class ColumnsAsViews(MultiviewCCA):
    """The columns of X, dealt to three views: a signature that scikit-learn's checks know."""

    def _parts(self, X: Any, reset: bool) -> Any:
        X = validate_data(
            self, X, reset=reset, accept_sparse="csr", dtype="numeric", ensure_all_finite=True
        )
        # Of too few columns some views share one.
        count = X.shape[1]
        return [X[:, [j for j in range(count) if j % 3 == i] or [0]] for i in range(3)]

    def _with_columns(self, method: Any, parts: Any, sample_weight: Any) -> Any:
        """What validate_data remembers is not of the views: it is put back after a fit."""
        seen = {a: v for a, v in vars(self).items() if a in ("n_features_in_", "feature_names_in_")}
        method(parts, None, sample_weight)
        vars(self).update(seen)
        return self

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return self._with_columns(super().fit, self._parts(X, True), sample_weight)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        first = not hasattr(self, "n_features_in_")
        return self._with_columns(super().partial_fit, self._parts(X, first), sample_weight)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        self._check_is_fitted()
        return super().score(self._parts(X, False), None, sample_weight)

    def transform(self, X: Any) -> Any:
        self._check_is_fitted()
        return self._wrap(super().transform(self._parts(X, False))[0], X)

    def inverse_transform(self, X: Any) -> Any:
        return super().inverse_transform([X, None, None])[0]

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return self.fit(X, y, sample_weight).transform(X)

    def predict(self, X: Any) -> Any:
        self._check_is_fitted()
        a, _, c = self._parts(X, False)
        found = super().predict([a, None, c])[1]
        return found[:, 0] if found.shape[1] == 1 else found

    def _check_is_fitted(self) -> None:
        check_is_fitted(self)


class SplitColumns(ClassifierMixin, BaseEstimator):
    """SemanticMatching as a classifier: the columns of X are split into the two views."""

    def __init__(self, correlate: Any = None, random_state: Any = None) -> None:
        self.correlate = correlate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Any:
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        validate_data(self, X, y, skip_check_array=True)
        model = SemanticMatching(
            [LogisticRegression(), GaussianNB()],
            correlate=self.correlate,
            cv=2,
            random_state=self.random_state,
        )
        self.model_ = model.fit(*self._views(X), column_or_1d(y, warn=True))
        self.classes_ = self.model_.classes_
        return self

    def _views(self, X: Any) -> tuple[Any, Any]:
        X = check_array(X)
        half = max(1, X.shape[1] // 2)
        return X[:, :half], X[:, X.shape[1] - half :]

    def _seen(self, X: Any) -> tuple[Any, Any]:
        check_is_fitted(self)
        views = self._views(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        return views

    def predict(self, X: Any) -> Any:
        views = self._seen(X)
        return self.model_.predict(*views)

    def predict_proba(self, X: Any) -> Any:
        views = self._seen(X)
        return self.model_.fuse(*views)


class NamedColumns(SplitColumns):
    """PrototypeClassifier as a classifier: X is both views, the texts of a class are its rows."""

    def _views(self, X: Any) -> tuple[Any, Any]:
        X = check_array(X)
        return X, X

    def fit(self, X: Any, y: Any) -> Any:
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        validate_data(self, X, y, skip_check_array=True)
        check_classification_targets(y)
        first, second = self._views(X)
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        if len(set(y)) < 2:
            raise ValueError("the labels hold one class")
        model = PrototypeClassifier(
            CCA(shrinkage=0.5), {c: second[y == c] for c in set(y)}, cv=2, random_state=0
        )
        self.model_ = model.fit(first, second, y)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X: Any) -> Any:
        views = self._seen(X)
        return self.model_.predict(views[0])

    def predict_proba(self, X: Any) -> Any:
        views = self._seen(X)
        return self.model_.predict_proba(views[0])


def expected_failures(estimator: Any) -> dict[str, str]:
    # scikit-learn asks the class named "CCA" to return both views from fit_transform.
    if type(estimator) is CCA:
        reason = "scikit-learn special-cases the class name CCA; RenamedCCA passes"
        return {
            "check_transformer_general": reason,
            "check_transformer_data_not_an_array": reason,
        }
    return {}


SHORT: dict[str, Any] = {"max_epochs": 2, "n_components": 2, "random_state": 0}
INSTANCES = [
    RenamedCCA(),
    ColumnsAsViews(shrinkage="auto"),
    KernelCCA(),
    ConditionalGaussian(),
    MultitaskRegressor(cv=2, alphas=(0.1, 1.0, 10.0)),
    PLS(1),
]
MORE = [
    ConditionalGaussianMixture(2, n_init=1),
    LinearAutoencoder(),
    OrthogonalMap(),
    SparseCCA(alpha=0.01),
    NystroemMap("laplacian", rank=5, landmarks="pivoted_cholesky", random_state=0),
    SplitColumns(),
    NamedColumns(),
    TwoViewPipeline(RenamedCCA()),
    ConformalRetriever(RenamedCCA(), confidence=0.5, random_state=0),
    MomentsSearchCV(
        RenamedCCA(), {"shrinkage": [0.1, 0.5]}, cv=KFold(2, shuffle=True, random_state=0)
    ),
    ExactKernelMap(),
    RandomFourierMap(rank=10, random_state=0),
    ASIF(),
    CrossModalRetriever(cv=2, random_state=0),
]
TRAINED = [
    DeepCCA(hidden=(4,), **SHORT),
    ContrastiveAligner(hidden=(4,), scale=True, validation_fraction=0.3, **SHORT),
]
VARIANTS = [
    CCA(),
    RenamedCCA(solver="svd", scale=True, shrinkage="auto"),
    RenamedCCA(shrinkage="cv", cv=5),
    RenamedCCA(missing="em"),
    RenamedCCA(missing="em", shrinkage="cv", cv=5),
    ConditionalGaussian(rank=1, shrinkage="auto", scale=True),
    ColumnsAsViews(method="gcca", shrinkage="auto", scale=True),
    ColumnsAsViews(shrinkage="cv", cv=5, solver="svd"),
    KernelCCA(approximation="rff", rank=20, random_state=0),
    ConditionalGaussianMixture(2),
    ConditionalGaussianMixture(2, covariance_type="low_rank", rank=1),
    LinearAutoencoder(1, alpha=0.1, corruption=0.1, scale=True, solver="svd"),
    LinearAutoencoder(1, target="cross", alpha=0.1, corruption=0.1, solver="svd"),
    LinearAutoencoder(target="joint", corruption=0.1, scale=True, solver="svd"),
    MultitaskRegressor(alpha=1.0, rank=1),
    ExactKernelMap("polynomial", basis="cholesky"),
]


@pytest.mark.ordinary
@parametrize_with_checks(INSTANCES)
def test_scikit_learns_checks_of_the_main_classes(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.torch
@pytest.mark.slow
@parametrize_with_checks(TRAINED if importlib.util.find_spec("torch") else [])
def test_scikit_learns_checks_of_what_is_trained(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(MORE)
def test_scikit_learns_checks_of_one_instance_of_more_classes(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(VARIANTS, expected_failed_checks=expected_failures)
def test_scikit_learns_checks_of_the_variants(estimator: Any, check: Any) -> None:
    check(estimator)


def test_every_public_estimator_is_checked() -> None:
    adapters = {
        RenamedCCA: CCA,
        ColumnsAsViews: MultiviewCCA,
        SplitColumns: SemanticMatching,
        NamedColumns: PrototypeClassifier,
    }
    checked = {adapters.get(type(one), type(one)) for one in (*INSTANCES, *MORE, *TRAINED)}
    assert checked == public_estimators()
