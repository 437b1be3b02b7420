"""MomentsSearchCV: scikit-learn's scores from one pass over the data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
)
from sklearn.preprocessing import StandardScaler

from cmstats import CCA, Moments, MomentsSearchCV, TwoViewPipeline
from cmstats._folds import best_index

GRID = {"shrinkage": [0.01, 0.3, "auto"], "n_components": [1, 3]}


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(150, 6)) + 4
    return X, X[:, :4] @ rng.normal(size=(4, 4)) + 2 * rng.normal(size=(150, 4))


def assert_same_search(found: Any, expected: Any) -> None:
    assert set(found.cv_results_) == set(expected.cv_results_)
    for key, values in expected.cv_results_.items():
        if "test_score" in key and "rank" not in key:
            np.testing.assert_allclose(found.cv_results_[key], values, atol=1e-8, err_msg=key)
        elif key.startswith(("param", "rank")):
            assert list(found.cv_results_[key]) == list(values), key
    assert found.best_params_ == expected.best_params_
    assert found.best_index_ == expected.best_index_
    assert found.n_splits_ == expected.n_splits_
    assert found.best_score_ == pytest.approx(expected.best_score_, abs=1e-8)


@pytest.mark.parametrize(
    "cv",
    [5, KFold(4), KFold(5, shuffle=True, random_state=0), GroupKFold(3)],
    ids=["int", "kfold", "shuffled", "groups"],
)
@pytest.mark.parametrize("solver", ["auto", "moments", "svd"])
def test_scores_equal_those_of_scikit_learns_grid_search(cv: Any, solver: Any, views: Any) -> None:
    groups = np.arange(150) // 7 if isinstance(cv, GroupKFold) else None
    est = CCA(solver=solver)
    found = MomentsSearchCV(est, GRID, cv=cv).fit(*views, groups=groups)
    expected = GridSearchCV(est, GRID, cv=cv).fit(*views, groups=groups)
    assert_same_search(found, expected)
    np.testing.assert_allclose(found.transform(views[0]), expected.transform(views[0]), atol=1e-9)
    np.testing.assert_allclose(found.predict(views[0]), expected.predict(views[0]), atol=1e-9)
    assert found.score(*views) == pytest.approx(expected.score(*views))


def test_scores_equal_scikit_learns_for_lists_of_splits_and_of_grids(views: Any) -> None:
    cv = list(KFold(3, shuffle=True, random_state=1).split(views[0]))
    grid = [{"shrinkage": [0.1]}, {"scale": [True], "n_components": [1, 2]}]
    assert_same_search(
        MomentsSearchCV(CCA(), grid, cv=cv).fit(*views),
        GridSearchCV(CCA(), grid, cv=cv).fit(*views),
    )


def test_scores_equal_scikit_learns_for_classes_as_folds(views: Any) -> None:
    y = (views[0][:, 0] > 4).astype(int)
    cv, grid = StratifiedKFold(3), {"shrinkage": [0.1, 0.5]}
    assert_same_search(
        MomentsSearchCV(CCA(), grid, cv=cv).fit(views[0], y),
        GridSearchCV(CCA(), grid, cv=cv).fit(views[0], y),
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_equal_scikit_learns_on_ill_conditioned_data(
    views: Any, rng: np.random.Generator
) -> None:
    X = views[0] * np.geomspace(1, 1e-6, 6) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    grid = {"shrinkage": [0.0, 1e-13]}
    assert_same_search(
        MomentsSearchCV(CCA(), grid).fit(X, views[1]), GridSearchCV(CCA(), grid).fit(X, views[1])
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_equal_scikit_learns_on_wide_data(rng: np.random.Generator) -> None:
    X = rng.normal(size=(40, 60))
    Y = X[:, :30] + rng.normal(size=(40, 30))
    grid = {"shrinkage": [0.1, "auto"], "n_components": [2]}
    assert_same_search(MomentsSearchCV(CCA(), grid).fit(X, Y), GridSearchCV(CCA(), grid).fit(X, Y))


def test_weighted_scores_are_those_of_repeated_rows(views: Any) -> None:
    w = np.arange(150) % 3 + 1
    cv, grid = GroupKFold(3), {"shrinkage": [0.1, "auto"]}
    rows = np.repeat(np.arange(150), w)
    found = MomentsSearchCV(CCA(), grid, cv=cv).fit(
        *views, sample_weight=w, groups=np.arange(150) // 5
    )
    splits = [
        (np.flatnonzero(np.isin(rows, a)), np.flatnonzero(np.isin(rows, b)))
        for a, b in cv.split(views[0], groups=np.arange(150) // 5)
    ]
    expected = GridSearchCV(CCA(), grid, cv=splits).fit(views[0][rows], views[1][rows])
    assert_same_search(found, expected)


def test_the_data_are_read_once(views: Any) -> None:
    class Counting:
        def __init__(self, a: Any) -> None:
            self.a, self.shape, self.dtype, self.ndim, self.rows = a, a.shape, a.dtype, a.ndim, 0

        def __getitem__(self, at: Any) -> Any:
            self.rows += self.a[at].shape[0]
            return self.a[at]

    X, Y = (Counting(V) for V in views)
    MomentsSearchCV(CCA(), GRID).fit(X, Y)
    assert (X.rows, Y.rows) == (150, 150)


def test_fold_moments_give_the_scores_of_rows(views: Any) -> None:
    folds = Moments.folds(cv=KFold(5), x=views[0], y=views[1])
    found = MomentsSearchCV(CCA(), GRID).fit_moments(folds)
    assert_same_search(found, MomentsSearchCV(CCA(), GRID).fit(*views))


def test_folds_of_different_places_need_not_share_rows(views: Any) -> None:
    X, Y = views
    hospitals = [Moments.from_data(x=X[a:b], y=Y[a:b]) for a, b in ((0, 40), (40, 90), (90, 150))]
    splits = [(np.r_[0:a, b:150], np.arange(a, b)) for a, b in ((0, 40), (40, 90), (90, 150))]
    assert_same_search(
        MomentsSearchCV(CCA(), GRID).fit_moments(hospitals),
        MomentsSearchCV(CCA(), GRID, cv=splits).fit(X, Y),
    )


def test_the_best_estimator_is_fitted_to_all_rows(views: Any) -> None:
    X, Y = views
    frame = pd.DataFrame(X, columns=list("abcdef"))
    search = MomentsSearchCV(CCA(1), {"shrinkage": [0.05, 0.4]}).fit(frame, Y[:, 0])
    best = CCA(**search.best_estimator_.get_params()).fit(frame, Y[:, 0])
    np.testing.assert_allclose(search.best_estimator_.x_weights_, best.x_weights_, atol=1e-10)
    assert list(search.best_estimator_.feature_names_in_) == list("abcdef")
    assert search.predict(frame).shape == (150,)
    assert search.n_features_in_ == 6


def test_every_method_of_the_best_estimator_is_there(views: Any) -> None:
    search = MomentsSearchCV(CCA(2), {"shrinkage": [0.05, 0.4]}).fit(*views)
    best = search.best_estimator_
    for name in ("embed", "similarity", "fuse", "transform"):
        found, expected = (getattr(e, name)(*views) for e in (search, best))
        for a, b in zip(np.atleast_2d(found), np.atleast_2d(expected), strict=True):
            np.testing.assert_array_equal(a, b)


def test_without_refit_there_is_no_best_estimator(views: Any) -> None:
    search = MomentsSearchCV(CCA(), GRID, refit=False).fit(*views)
    assert not hasattr(search, "best_estimator_")
    assert not hasattr(search, "transform")
    assert search.best_params_["shrinkage"] in GRID["shrinkage"]


def test_before_fit_nothing_can_be_asked(views: Any) -> None:
    search = clone(MomentsSearchCV(CCA(), GRID))
    for method in (search.transform, search.predict, search.embed, search.fuse):
        with pytest.raises(NotFittedError):
            method(views[0])


def test_an_estimator_without_moments_is_sent_to_grid_search(views: Any) -> None:
    for est in (Ridge(), TwoViewPipeline(CCA(), x=StandardScaler())):
        with pytest.raises(TypeError, match="GridSearchCV"):
            MomentsSearchCV(est, {}).fit(*views)


def test_splits_that_do_not_part_the_rows_raise(views: Any) -> None:
    with pytest.raises(ValueError, match="cv must part the rows"):
        MomentsSearchCV(CCA(), GRID, cv=ShuffleSplit(3)).fit(*views)
    with pytest.raises(ValueError, match="at least two folds"):
        MomentsSearchCV(CCA(), GRID).fit_moments([Moments.from_data(x=views[0], y=views[1])])


@pytest.mark.parametrize("bad", [{"shrinkage": [0.1, 2.0]}, {"shrinkages": [0.1]}])
def test_a_wrong_candidate_raises_before_the_search(bad: Any, views: Any) -> None:
    with pytest.raises(ValueError, match="shrinkage"):
        MomentsSearchCV(CCA(), bad).fit(*views)


def test_a_candidate_that_cannot_be_scored_is_never_the_best(views: Any) -> None:
    scores = np.array([[0.9, np.nan], [0.1, 0.2], [0.3, 0.1]])
    assert best_index(scores) == 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert best_index(np.full((2, 2), np.nan)) == 0
    assert len(caught) == 1


def test_a_warning_of_every_fold_is_said_once(views: Any) -> None:
    X = np.c_[views[0], np.ones(150)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MomentsSearchCV(CCA(), GRID).fit(X, views[1])
    messages = [str(w.message) for w in caught]
    assert len(messages) == len(set(messages)) <= 2
    assert any("in cross-validation" in m and "constant" in m for m in messages)
