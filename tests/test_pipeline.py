"""TwoViewPipeline: a transformer per view, fitted inside the folds."""

from __future__ import annotations

import pickle
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
    permutation_test_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from cmstats import CCA, MomentsSearchCV, TwoViewPipeline
from cmstats.metrics import (
    make_retrieval_scorer,
    recall_at_10_scorer,
    total_correlation_scorer,
)


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(120, 8))
    return X, X[:, :5] + rng.normal(size=(120, 5)) + 3


def test_every_method_goes_through_the_transformers(views: Any) -> None:
    X, Y = views
    pipeline = TwoViewPipeline(CCA(3, shrinkage=0.1), x=PCA(4), y=StandardScaler()).fit(X, Y)
    Zx, Zy = PCA(4).fit_transform(X), StandardScaler().fit_transform(Y)
    model = CCA(3, shrinkage=0.1).fit(Zx, Zy)
    for name in ("transform", "embed", "fuse", "similarity", "score"):
        found, expected = getattr(pipeline, name)(X, Y), getattr(model, name)(Zx, Zy)
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-10)
    np.testing.assert_allclose(pipeline.transform(y=Y), model.transform(y=Zy), atol=1e-10)
    np.testing.assert_allclose(pipeline.fuse(X), model.fuse(Zx), atol=1e-10)


def test_predictions_come_back_in_the_units_of_y(views: Any) -> None:
    X, Y = views
    found = TwoViewPipeline(CCA(), x=StandardScaler(), y=StandardScaler()).fit(X, Y).predict(X)
    np.testing.assert_allclose(found, CCA().fit(X, Y).predict(X), atol=1e-10)
    unscaled = TwoViewPipeline(CCA()).fit(X, Y[:, 0]).predict(X)
    assert unscaled.shape == (120,)


def test_predictions_without_an_inverse_stay_in_transformed_units(views: Any) -> None:
    X, Y = views
    found = TwoViewPipeline(CCA(), y=Normalizer()).fit(X, Y).predict(X)
    np.testing.assert_allclose(found, CCA().fit(X, Normalizer().transform(Y)).predict(X))


def test_without_transformers_it_is_the_model(views: Any) -> None:
    found = TwoViewPipeline(CCA(2)).fit(*views)
    for a, b in zip(found.transform(*views), CCA(2).fit(*views).transform(*views), strict=True):
        np.testing.assert_array_equal(a, b)


def test_transformers_are_fitted_inside_the_folds(views: Any) -> None:
    X, Y = views
    pipeline = TwoViewPipeline(CCA(2), x=make_pipeline(StandardScaler(), PCA()), y=PCA(3))
    grid = {"x__pca__n_components": [3, 6], "model__shrinkage": [0.1, 0.5]}
    search = GridSearchCV(pipeline, grid, cv=KFold(3)).fit(X, Y)
    train, test = next(iter(KFold(3).split(X)))
    first = clone(pipeline).set_params(**search.cv_results_["params"][0]).fit(X[train], Y[train])
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(
        first.score(X[test], Y[test])
    )


def test_a_search_on_moments_can_be_the_model(views: Any) -> None:
    search = MomentsSearchCV(CCA(2), {"shrinkage": [0.1, 0.5]})
    pipeline = TwoViewPipeline(search, x=StandardScaler()).fit(*views)
    assert pipeline.model_.best_params_["shrinkage"] in (0.1, 0.5)
    assert pipeline.similarity(*views).shape == (120, 120)


def test_strings_become_numbers_and_stay_sparse(views: Any) -> None:
    X = views[0]
    words = np.where(X > 0, "up", "down")
    texts = [" ".join(f"{w}{j}" for j, w in enumerate(row)) for row in words]
    pipeline = TwoViewPipeline(CCA(3, shrinkage=0.2), y=TfidfVectorizer()).fit(X, texts)
    assert pipeline.transform(y=texts[:4]).shape == (4, 3)
    assert pipeline.similarity(X[:3], texts).shape == (3, 120)
    assert pipeline.score(X, texts) > 0.5


@pytest.mark.ordinary
def test_groups_reach_the_model_also_by_routing(views: Any) -> None:
    X, Y = views
    groups = np.arange(len(X)) // 5
    model = CCA(2, shrinkage="cv", cv=3)
    pipeline = TwoViewPipeline(model, x=StandardScaler())
    expected = model.fit(StandardScaler().fit_transform(X), Y, groups=groups).cv_scores_
    np.testing.assert_array_equal(pipeline.fit(X, Y, groups=groups).model_.cv_scores_, expected)
    with config_context(enable_metadata_routing=True):
        asked = TwoViewPipeline(CCA(2, shrinkage="cv", cv=3).set_fit_request(groups=True))
        folds = GroupKFold(3).set_split_request(groups=True)
        search = GridSearchCV(asked, {"model__scale": [False]}, cv=folds)
        found = search.fit(X, Y, groups=groups).best_estimator_.model_
    np.testing.assert_array_equal(found.cv_scores_, model.fit(X, Y, groups=groups).cv_scores_)


def test_weights_reach_the_model(views: Any) -> None:
    X, Y = views
    w = np.arange(120) % 3 + 1
    found = TwoViewPipeline(CCA()).fit(X, Y, sample_weight=w)
    np.testing.assert_allclose(found.model_.x_weights_, CCA().fit(X, Y, w).x_weights_)


def test_methods_are_those_of_the_model(views: Any) -> None:
    pipeline = TwoViewPipeline(Ridge()).fit(*views)
    assert not hasattr(pipeline, "embed")
    assert not hasattr(TwoViewPipeline(CCA()), "logpdf")
    assert pipeline.predict(views[0]).shape == views[1].shape


def test_frames_keep_their_index_and_names(views: Any) -> None:
    X, Y = (pd.DataFrame(V, index=range(7, 127)).add_prefix("c") for V in views)
    pipeline = TwoViewPipeline(CCA(2), x=StandardScaler()).set_output(transform="pandas")
    U, V = pipeline.fit(X, Y).transform(X, Y)
    assert list(V.index) == list(Y.index)
    assert list(U.index) == list(X.index)
    assert list(pipeline.feature_names_in_) == list(X.columns)
    assert pipeline.n_features_in_ == 8


def test_clone_pickle_and_use_before_fit(views: Any) -> None:
    pipeline = TwoViewPipeline(CCA(2), x=PCA(3))
    with pytest.raises(NotFittedError):
        pipeline.transform(views[0])
    pipeline.fit(*views)
    assert pipeline.model is not pipeline.model_
    assert not hasattr(pipeline.model, "x_weights_")
    with pytest.raises(NotFittedError):
        clone(pipeline).predict(views[0])
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.transform(views[0]), pipeline.transform(views[0]))


def test_a_missing_second_view_raises_one_sentence(views: Any) -> None:
    with pytest.raises(ValueError, match="second view"):
        TwoViewPipeline(CCA()).fit(views[0], None)


def test_a_fit_that_fails_leaves_no_half_fitted_pipeline(views: Any) -> None:
    X, Y = views
    pipeline = TwoViewPipeline(CCA(2), x=StandardScaler(), y=StandardScaler()).fit(X, Y)
    before = pipeline.transform(X)
    with pytest.raises(ValueError, match="components"):
        pipeline.set_params(model__n_components=99).fit(X * 100 + 7, Y)
    np.testing.assert_array_equal(pipeline.transform(X), before)


def test_scorers_of_both_views_name_the_pipeline_of_two_views(views: Any) -> None:
    one = make_pipeline(StandardScaler(), CCA(2)).fit(*views)
    for scorer in (total_correlation_scorer, make_retrieval_scorer("R@5")):
        with pytest.raises(TypeError, match=r"use TwoViewPipeline\(model"):
            scorer(one, *views)
        assert scorer(TwoViewPipeline(CCA(2), x=StandardScaler()).fit(*views), *views) > 0


SCORERS = {
    "correlation": total_correlation_scorer,
    "recall": recall_at_10_scorer,
    "several": {"mrr": make_retrieval_scorer("MRR"), "r": total_correlation_scorer},
}


def _in_parallel(backend: str, one: Any, X: Any, Y: Any, how: Any) -> Any:
    with joblib.parallel_config(backend):
        return GridSearchCV(
            one, {"cca__n_components": [1, 2]}, cv=3, scoring=how, refit=False, n_jobs=2
        ).fit(X, Y)


SEARCHES: dict[str, Any] = {
    "grid": lambda one, X, Y, how: GridSearchCV(
        one, {"cca__n_components": [1, 2]}, cv=3, scoring=how, refit=False
    ).fit(X, Y),
    "random": lambda one, X, Y, how: RandomizedSearchCV(
        one, {"cca__n_components": [1, 2]}, n_iter=2, cv=3, scoring=how, refit=False
    ).fit(X, Y),
    "jobs": lambda one, X, Y, how: _in_parallel("threading", one, X, Y, how),
    "processes": lambda one, X, Y, how: _in_parallel("loky", one, X, Y, how),
    "validate": lambda one, X, Y, how: cross_validate(one, X, Y, scoring=how, cv=3),
    "value": lambda one, X, Y, how: cross_val_score(one, X, Y, scoring=how, cv=3),
    "permuted": lambda one, X, Y, how: permutation_test_score(
        one, X, Y, scoring=how, cv=3, n_permutations=2
    ),
}


# Processes take seconds to start; two of the functions take one score.
@pytest.mark.parametrize(
    ("search", "how"),
    [
        pytest.param(search, how, marks=[pytest.mark.slow] * (search == "processes"))
        for search in SEARCHES
        for how in (["recall"] if search in ("jobs", "processes") else SCORERS)
        if how != "several" or search not in ("value", "permuted")
    ],
)
def test_no_search_takes_what_such_a_scorer_raises_for_a_score(
    search: str, how: str, views: Any
) -> None:
    """scikit-learn's searches put NaN for what a scorer raises, and take the first candidate."""
    with pytest.raises(TypeError, match=r"use TwoViewPipeline\(model"):
        SEARCHES[search](make_pipeline(StandardScaler(), CCA(2)), *views, SCORERS[how])
