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
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
)
from sklearn.preprocessing import StandardScaler

from cmstats import (
    CCA,
    ConditionalGaussian,
    KernelCCA,
    LinearAutoencoder,
    Moments,
    MomentsSearchCV,
    MultitaskRegressor,
    MultiviewCCA,
    TwoViewPipeline,
)
from cmstats.metrics import (
    make_retrieval_scorer,
    recall_at_10_scorer,
    total_correlation_scorer,
)
from cmstats.model_selection import one_standard_error
from cmstats.moments.collect import Pass
from cmstats.moments.folds import best_index, choice_notes

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
        elif key.startswith("rank"):  # only candidates equal but for rounding may change places
            scores = expected.cv_results_[key.replace("rank", "mean")]
            better = scores[:, None] > scores[None, :] + 1e-9
            ranks = found.cv_results_[key]
            assert np.all(ranks[:, None] < ranks[None, :], where=better), key
            if np.all(better | better.T | np.eye(len(scores), dtype=bool)):
                assert list(ranks) == list(values), key
        elif key.startswith("param"):
            assert list(found.cv_results_[key]) == list(values), key
    assert found.best_params_ == expected.best_params_
    assert found.best_index_ == expected.best_index_
    assert found.n_splits_ == expected.n_splits_
    assert found.best_score_ == pytest.approx(expected.best_score_, abs=1e-8)


def dealt(n: int, folds: int = 5) -> Any:
    """The splits that an int stands for: row i is in fold i mod `folds`."""
    return list(PredefinedSplit(np.arange(n) % folds).split())


@pytest.mark.parametrize(
    "cv",
    [5, KFold(4), KFold(5, shuffle=True, random_state=0), GroupKFold(3)],
    ids=["int", "kfold", "shuffled", "groups"],
)
@pytest.mark.parametrize("solver", ["moments", pytest.param("svd", marks=pytest.mark.slow)])
def test_scores_equal_those_of_scikit_learns_grid_search(cv: Any, solver: Any, views: Any) -> None:
    groups = np.arange(150) // 7 if isinstance(cv, GroupKFold) else None
    est = CCA(solver=solver)
    found = MomentsSearchCV(est, GRID, cv=cv).fit(*views, groups=groups)
    expected = GridSearchCV(est, GRID, cv=dealt(150) if cv == 5 else cv)
    expected.fit(*views, groups=groups)
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
        MomentsSearchCV(CCA(), grid).fit(X, views[1]),
        GridSearchCV(CCA(), grid, cv=dealt(150)).fit(X, views[1]),
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_equal_scikit_learns_on_wide_data(rng: np.random.Generator) -> None:
    X = rng.normal(size=(40, 60))
    Y = X[:, :30] + rng.normal(size=(40, 30))
    grid = {"shrinkage": [0.1, "auto"], "n_components": [2]}
    assert_same_search(
        MomentsSearchCV(CCA(), grid).fit(X, Y), GridSearchCV(CCA(), grid, cv=dealt(40)).fit(X, Y)
    )


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
    folds = Moments.folds(cv=5, x=views[0], y=views[1])
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
    assert best_index(np.array([[0.9, np.nan, 0.1], [0.1, np.nan, 0.2]])) == 0
    assert best_index(np.array([[0.9, np.nan, 0.1], [np.nan, 0.5, 0.6]])) == 1
    with pytest.raises(ValueError, match="no fold has a score to choose by"):
        best_index(np.full((2, 2), np.nan))


def test_folds_without_a_score_and_edges_of_a_grid_are_said() -> None:
    grid = [{"shrinkage": (s, s)} for s in (0.01, 0.1, 0.8)]
    scores = np.array([[0.1, np.nan, 0.2], [0.3, np.nan, 0.3], [0.5, np.nan, 0.6]])
    folds, edge = choice_notes(scores, grid, 2)
    assert folds.startswith("1 of 3 folds (counted from 0: 1) have no score")
    assert "shrinkage=(0.8, 0.8) is the largest of its grid" in edge
    assert choice_notes(scores[:, [0, 2]], grid, 1) == []
    flat = np.array([[0.1, 0.2], [0.3, 0.3], [0.301, 0.299]])
    assert choice_notes(flat, grid, 2) == []
    bounds = [{"shrinkage": s} for s in (0.0, 0.1, 1.0)]
    assert choice_notes(scores[:, [0, 2]], bounds, 2) == []


def test_a_warning_of_every_fold_is_said_once(views: Any) -> None:
    X = np.c_[views[0], np.ones(150)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MomentsSearchCV(CCA(), GRID).fit(X, views[1])
    messages = [str(w.message) for w in caught]
    assert len(messages) == len(set(messages)) <= 2
    assert any("in cross-validation" in m and "constant" in m for m in messages)


# ----------------------------------------------------------------- every moments estimator
ESTIMATORS: list[tuple[Any, Any]] = [
    (CCA(2), {"shrinkage": [0.1, (0.0, 0.5), ("auto", 0.2), "auto"]}),
    (
        CCA(1),
        [{"solver": ["moments"], "scale": [True, False]}, {"solver": ["svd"], "shrinkage": [0.4]}],
    ),
    (ConditionalGaussian(), {"shrinkage": [0.0, "auto", (0.3, 0.1)], "rank": [None, 2]}),
    (MultitaskRegressor(), {"alpha": [0.1, 10.0], "rank": [None, 1, 3]}),
    (LinearAutoencoder(2), {"target": ["self", "cross", "joint"], "alpha": [0.0, 0.1]}),
    (LinearAutoencoder(), {"n_components": [1, 4], "corruption": [0.1, 0.5]}),
    (CCA(1, missing="em"), {"shrinkage": [0.1, 0.4]}),
]


@pytest.mark.parametrize(
    ("est", "grid"), ESTIMATORS, ids=lambda v: type(v).__name__ if hasattr(v, "fit") else ""
)
def test_every_estimator_is_searched_as_grid_search_does(est: Any, grid: Any, views: Any) -> None:
    cv = KFold(3, shuffle=True, random_state=0)
    found = MomentsSearchCV(est, grid, cv=cv, return_train_score=True).fit(*views)
    expected = GridSearchCV(est, grid, cv=cv, return_train_score=True).fit(*views)
    assert_same_search(found, expected)
    for key in ("mean_train_score", "std_train_score", "split2_train_score"):
        np.testing.assert_allclose(found.cv_results_[key], expected.cv_results_[key], atol=1e-8)
    assert found.score(*views) == pytest.approx(expected.score(*views), abs=1e-9)
    for name in ("transform", "predict"):
        if hasattr(expected, name):
            a, b = (getattr(search, name)(views[0]) for search in (found, expected))
            np.testing.assert_allclose(a, b, atol=1e-8)


def test_vectors_and_several_matrices_are_remembered(views: Any) -> None:
    X, Y = views
    parts = {"left": X[:, :2], "right": X[:, 2:]}
    grid = {"alpha": [0.1, 10.0]}
    found = MomentsSearchCV(MultitaskRegressor(), grid).fit(parts, Y[:, 0])
    best = MultitaskRegressor(**found.best_params_).fit(parts, Y[:, 0])
    np.testing.assert_allclose(found.predict(parts), best.predict(parts), atol=1e-9)
    assert found.best_estimator_.coef_.shape == best.coef_.shape == (6,)
    plain = MomentsSearchCV(MultitaskRegressor(), grid).fit(X, Y[:, 0])
    scores = [search.cv_results_["mean_test_score"] for search in (plain, found)]
    np.testing.assert_allclose(*scores)
    gaussian = MomentsSearchCV(ConditionalGaussian(), {"shrinkage": [0.1]}).fit(X, Y[:, 0])
    assert gaussian.predict(X).shape == (150,)


def test_targets_that_are_not_observed_are_sent_elsewhere(views: Any) -> None:
    X, Y = views[0], views[1].copy()
    Y[::7, 1] = np.nan
    grid = {"alpha": [0.1, 1.0]}
    with pytest.raises(ValueError, match=r"MultitaskRegressor\(alpha='cv'\) itself"):
        MomentsSearchCV(MultitaskRegressor(), grid).fit(X, Y)
    est = MultitaskRegressor(missing="em")
    assert_same_search(
        MomentsSearchCV(est, grid, cv=3).fit(X, Y),
        GridSearchCV(est, grid, cv=dealt(len(X), 3)).fit(X, Y),
    )


@pytest.mark.parametrize("as_dict", [False, True])
def test_many_views_are_searched_as_by_hand(as_dict: bool, views: Any) -> None:
    X, Y = views
    several = {"a": X[:, :3], "b": X[:, 3:], "c": Y} if as_dict else [X[:, :3], X[:, 3:], Y]
    names = ("a", "b", "c") if as_dict else (0, 1, 2)
    by_view = {"a": 0.1, "b": "auto", "c": 0.5} if as_dict else (0.1, "auto", 0.5)
    grid = {"shrinkage": [0.1, "auto", by_view], "n_components": [1, 2]}
    cv = KFold(3, shuffle=True, random_state=0)
    search = MomentsSearchCV(MultiviewCCA(), grid, cv=cv).fit(several)

    def rows(at: Any) -> Any:
        some = [several[name][at] for name in names]
        return dict(zip(names, some, strict=True)) if as_dict else some

    for i, parameters in enumerate(search.cv_results_["params"]):
        for k, (train, test) in enumerate(cv.split(X)):
            model = MultiviewCCA(**parameters).fit(rows(train))
            found = search.cv_results_[f"split{k}_test_score"][i]
            assert found == pytest.approx(model.score(rows(test)), abs=1e-8)
    best = MultiviewCCA(**search.best_params_).fit(several)
    assert search.score(several) == pytest.approx(best.score(several), abs=1e-10)
    for name in ("transform", "embed"):
        a, b = (getattr(e, name)(several) for e in (search, best))
        for view in names:
            np.testing.assert_allclose(a[view], b[view], atol=1e-9)
    np.testing.assert_allclose(search.fuse(several), best.fuse(several), atol=1e-9)


@pytest.mark.ordinary
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("approximation", ["exact", "nystroem", "rff"])
def test_kernel_maps_are_fitted_once_and_held_fixed(approximation: Any, views: Any) -> None:
    views = tuple(a[:60] for a in views)
    est = KernelCCA(2, approximation=approximation, rank=20, random_state=0)
    cv = KFold(3, shuffle=True, random_state=0)
    grid = {"shrinkage": [1e-2, (0.3, 0.1)], "gamma": [0.01, 0.1]}
    search = MomentsSearchCV(est, grid, cv=cv).fit(*views)
    for i, parameters in enumerate(search.cv_results_["params"]):
        whole = clone(est).set_params(**parameters).fit(*views)
        X, Y = whole.x_map_.transform(views[0]), whole.y_map_.transform(views[1])
        for k, (train, test) in enumerate(cv.split(views[0])):
            whole.fit_moments(Moments.from_data(x=X[train], y=Y[train]))
            expected = whole.score_moments(Moments.from_data(x=X[test], y=Y[test]))
            assert search.cv_results_[f"split{k}_test_score"][i] == pytest.approx(
                expected, abs=1e-8
            )
    best = clone(est).set_params(**search.best_params_).fit(*views)
    found, expected = search.transform(*views), best.transform(*views)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert not hasattr(search, "predict")


def test_kernel_moments_need_the_maps_they_were_taken_with(views: Any) -> None:
    est = KernelCCA(2, approximation="nystroem", rank=20, random_state=0)
    grid = {"shrinkage": [0.01, 0.3]}
    cv = KFold(3, shuffle=True, random_state=0)
    whole = clone(est).fit(*views)
    mapped = {"x": whole.x_map_.transform(views[0]), "y": whole.y_map_.transform(views[1])}
    folds = Moments.folds(cv=cv, **mapped)
    found = MomentsSearchCV(whole, grid).fit_moments(folds)
    assert_same_search(found, MomentsSearchCV(est, grid, cv=cv).fit(*views))
    assert found.transform(views[0]).shape == (150, 2)
    with pytest.raises(ValueError, match="are of mapped rows: fit it first"):
        MomentsSearchCV(est, grid).fit_moments(folds)
    with pytest.raises(ValueError, match="gamma changes the maps"):
        MomentsSearchCV(whole, {"gamma": [0.1]}).fit_moments(folds)


@pytest.mark.ordinary
def test_one_pass_for_each_way_of_collecting(views: Any, monkeypatch: Any) -> None:
    passes = []
    over = Pass.over_checked
    monkeypatch.setattr(Pass, "over_checked", lambda *rows: passes.append(1) or over(*rows))
    wide = {"shrinkage": list(np.linspace(0.05, 0.9, 4)), "n_components": [1, 2]}
    MomentsSearchCV(CCA(), wide).fit(*views)
    assert len(passes) == 1
    MomentsSearchCV(CCA(), {**wide, "solver": ["moments", "svd"]}).fit(*views)
    assert len(passes) == 3


@pytest.mark.ordinary
def test_rows_on_a_disk_are_searched(views: Any, tmp_path: Any) -> None:
    lazy = []
    for name, a in zip("xy", views, strict=True):
        np.save(tmp_path / f"{name}.npy", a)
        lazy.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    splits = dealt(150)
    for est, grid in ((CCA(), GRID), (MultitaskRegressor(), {"alpha": [0.1, 1.0]})):
        assert_same_search(
            MomentsSearchCV(est, grid).fit(*lazy), MomentsSearchCV(est, grid, cv=splits).fit(*views)
        )
    groups = np.arange(150) // 10
    assert_same_search(
        MomentsSearchCV(CCA(), GRID, cv=3).fit(*lazy, groups=groups),
        MomentsSearchCV(CCA(), GRID, cv=3).fit(*views, groups=groups),
    )


def test_groups_with_an_int_are_kept_together(views: Any) -> None:
    groups = np.random.default_rng(0).integers(0, 12, 150)
    found = MomentsSearchCV(CCA(), GRID, cv=4).fit(*views, groups=groups)
    order = list(dict.fromkeys(groups.tolist()))
    ids = np.array([order.index(group) % 4 for group in groups.tolist()])
    assert_same_search(found, GridSearchCV(CCA(), GRID, cv=PredefinedSplit(ids)).fit(*views))


# -------------------------------------------------------------------------------- scoring
def test_total_correlation_is_that_of_the_rows_scorer(views: Any) -> None:
    grid = {"n_components": [1, 2, 4], "shrinkage": [0.05]}
    expected = GridSearchCV(CCA(), grid, scoring=total_correlation_scorer, cv=dealt(150)).fit(
        *views
    )
    for scoring in ("total_correlation", total_correlation_scorer):
        found = MomentsSearchCV(CCA(), grid, scoring=scoring).fit(*views)
        assert_same_search(found, expected)
        assert found.score(*views) == pytest.approx(expected.score(*views))
        assert found.score_moments(Moments.from_data(x=views[0], y=views[1])) == pytest.approx(
            expected.score(*views)
        )
    many = MomentsSearchCV(MultiviewCCA(), {"n_components": [1, 3]}, scoring="total_correlation")
    X, Y = views
    assert many.fit([X[:, :3], X[:, 3:], Y]).best_params_ == {"n_components": 3}


def test_likelihood_ratio_chooses_what_the_gaussians_cv_chooses(views: Any) -> None:
    own = ConditionalGaussian(shrinkage="cv").fit(*views)
    grid = {"shrinkage": own.cv_shrinkages_}
    found = MomentsSearchCV(ConditionalGaussian(), grid, scoring="likelihood_ratio").fit(*views)
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], own.cv_scores_.mean(axis=1))
    assert found.best_estimator_.shrinkage_ == own.shrinkage_
    full = MomentsSearchCV(CCA(), grid, scoring="likelihood_ratio").fit(*views)
    np.testing.assert_allclose(
        full.cv_results_["mean_test_score"], found.cv_results_["mean_test_score"], rtol=1e-6
    )


def test_a_function_of_model_and_moments_scores(views: Any) -> None:
    def first(model: Any, moments: Moments) -> float:
        return float(model.correlations_on(moments)[0])

    search = MomentsSearchCV(CCA(), GRID, scoring=first).fit(*views)
    one = MomentsSearchCV(CCA(1), {"shrinkage": GRID["shrinkage"]}).fit(*views)
    assert search.best_score_ == pytest.approx(one.best_score_)


@pytest.mark.parametrize("scoring", [recall_at_10_scorer, make_retrieval_scorer("MRR", kind="csa")])
def test_retrieval_scores_are_for_grid_search(scoring: Any, views: Any) -> None:
    cv = KFold(3, shuffle=True, random_state=0)
    grid = {"shrinkage": [0.01, 0.5], "n_components": [1, 4]}
    search = GridSearchCV(CCA(), grid, scoring=scoring, cv=cv).fit(*views)
    train, test = next(cv.split(views[0]))
    model = CCA(1, shrinkage=0.01).fit(*(a[train] for a in views))
    expected = scoring(model, *(a[test] for a in views))
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(expected)
    assert search.best_params_["n_components"] == 4
    with pytest.raises(TypeError, match="needs rows, which moments no longer hold: use scikit"):
        MomentsSearchCV(CCA(), grid, scoring=scoring).fit(*views)


# ---------------------------------------------------------------- which candidate is taken
def table(scores: Any, params: Any) -> dict[str, Any]:
    scores = np.asarray(scores, dtype=float)
    splits = {f"split{k}_test_score": scores[:, k] for k in range(scores.shape[1])}
    return {
        "params": params,
        **splits,
        "mean_test_score": scores.mean(axis=1),
        "std_test_score": scores.std(axis=1),
    }


def test_one_standard_error_takes_the_simplest_that_is_as_good() -> None:
    spread = np.array([-0.1, 0.0, 0.1])  # a standard error of .1 / sqrt(3) = .0577
    shrinkage = [{"shrinkage": s} for s in (0.01, 0.1, 0.5, 0.9)]
    means = np.array([0.5, 0.6, 0.55, 0.54])
    results = table(means[:, None] + spread, shrinkage)
    assert one_standard_error(results) == 2
    fewer = [{"n_components": k} for k in (1, 2, 5, None)]
    assert one_standard_error(table(means[:, None] + spread, fewer)) == 1
    assert one_standard_error(table(means[::-1, None] + spread, fewer)) == 1
    nested = [{"model__alpha": s["shrinkage"]} for s in shrinkage]
    assert one_standard_error(table(means[:, None] + spread, nested)) == 2


def test_one_standard_error_never_takes_a_model_that_is_less_simple_somewhere() -> None:
    spread = np.array([-0.1, 0.0, 0.1])
    params = [
        {"shrinkage": (0.1, 0.1), "n_components": 3, "scale": False},
        {"shrinkage": (0.9, 0.01), "n_components": 3, "scale": False},
        {"shrinkage": 0.5, "n_components": 3, "scale": True},
        {"shrinkage": "auto", "n_components": 1, "scale": False},
        {"shrinkage": (0.1, 0.2), "n_components": 2, "scale": False},
        {"shrinkage": (0.1, 0.2), "n_components": 3, "scale": False},
    ]
    means = np.array([0.51, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert one_standard_error(table(means[:, None] + spread, params)) == 4


@pytest.mark.ordinary
def test_one_standard_error_refits_in_both_searches(views: Any) -> None:
    grid = {"shrinkage": [0.001, 0.1, 0.6], "n_components": [1, 4]}
    cv = KFold(5)
    plain = MomentsSearchCV(CCA(), grid, scoring="total_correlation", cv=cv).fit(*views)
    expected = GridSearchCV(
        CCA(), grid, scoring=total_correlation_scorer, refit=one_standard_error, cv=cv
    ).fit(*views)
    for refit in ("one_standard_error", one_standard_error):
        found = clone(plain).set_params(refit=refit).fit(*views)
        assert found.best_index_ == expected.best_index_ == one_standard_error(plain.cv_results_)
        assert found.best_params_ == expected.best_params_
        assert found.best_params_["shrinkage"] > plain.best_params_["shrinkage"]
        assert found.best_score_ <= plain.best_score_
        a, b = (search.transform(views[0]) for search in (found, expected))
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_a_function_of_the_results_chooses(views: Any) -> None:
    last = MomentsSearchCV(CCA(), GRID, refit=lambda results: len(results["params"]) - 1)
    assert last.fit(*views).best_params_ == {"n_components": 3, "shrinkage": "auto"}
    with pytest.raises(ValueError, match="must be the number of a candidate, 0 to 5"):
        MomentsSearchCV(CCA(), GRID, refit=lambda results: 6).fit(*views)


def test_every_method_of_a_density_is_there(views: Any) -> None:
    search = MomentsSearchCV(ConditionalGaussian(), {"shrinkage": [0.1, 0.4]}).fit(*views)
    best = search.best_estimator_
    for name in ("logpdf", "outlier_scores", "similarity"):
        np.testing.assert_array_equal(getattr(search, name)(*views), getattr(best, name)(*views))
    _, std = search.predict(views[0], return_std=True)
    assert std.shape == (150, 4)
    assert search.sample(views[0], n_samples=2, random_state=0).shape[-1] == 4
    assert search.mutual_information() == best.mutual_information()
    assert not hasattr(search, "transform")
    assert not hasattr(MomentsSearchCV(CCA(), {}), "logpdf")


# ------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"shrinkage": [-0.1]}, "shrinkage"),
        ({"shrinkage": [0.1, "big"]}, "shrinkage"),
        ({"shrinkage": [(0.1, 2)]}, "shrinkage"),
        ({"shrinkage": "auto"}, "needs to be a list"),
        ({"shrinkage": []}, "non-empty"),
        ({"shrinkage": ["cv"]}, "shrinkage='cv' is no candidate"),
        ({"n_components": [0]}, "n_components"),
        ({"alpha": [1.0]}, "Invalid parameter 'alpha'"),
        ([], "param_grid is empty"),
        ("shrinkage", "not a dict"),
    ],
)
def test_wrong_grids_raise_before_the_data_are_read(grid: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        MomentsSearchCV(CCA(), grid).fit(None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refit": "best"}, "refit='best' must be True, False, 'one_standard_error'"),
        ({"scoring": "r2"}, "scoring='r2' cannot be computed from moments"),
        ({"scoring": ["r2"]}, "cannot be computed from moments"),
    ],
)
def test_wrong_options_raise_before_the_data_are_read(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MomentsSearchCV(CCA(), GRID, **options).fit(None, None)
    with pytest.raises(ValueError, match="not defined for MultitaskRegressor"):
        MomentsSearchCV(MultitaskRegressor(), {"alpha": [1]}, scoring="total_correlation").fit(0, 0)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (151, "cv=151 folds of 150 rows: at least 2 and at most 150 are possible"),
        (1, "cv=1 folds of 150 rows: at least 2"),
        ("five", "Expected `cv` as an integer"),
        ([(np.arange(75, 150), np.arange(75)), (np.arange(60), np.arange(60, 150))], "must part"),
        ([(np.arange(75, 150), np.arange(75))], "must part the rows"),
        ([], "at least two folds"),
        (GroupKFold(5), "greater than the number of groups: 3"),
    ],
)
def test_folds_that_cannot_be_raise_one_sentence(cv: Any, message: str, views: Any) -> None:
    groups = np.arange(150) % 3 if isinstance(cv, GroupKFold) else None
    with pytest.raises(ValueError, match=message):
        MomentsSearchCV(CCA(), GRID, cv=cv).fit(*views, groups=groups)
    if groups is not None:
        with pytest.raises(ValueError, match="cv=5 folds of 3 groups: at least 2 and at most 3"):
            MomentsSearchCV(CCA(), GRID, cv=5).fit(*views, groups=groups)


def test_a_fold_without_weight_raises_one_sentence(views: Any) -> None:
    ids = np.arange(150) % 5
    with pytest.raises(ValueError, match="fold 4 has no row of positive weight"):
        MomentsSearchCV(CCA(), GRID, cv=PredefinedSplit(ids)).fit(*views, sample_weight=ids != 4)
    found = MomentsSearchCV(CCA(), GRID).fit(*views, sample_weight=ids != 4)  # dealt to five
    kept = MomentsSearchCV(CCA(), GRID).fit(*(a[ids != 4] for a in views))
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"], kept.cv_results_["mean_test_score"], atol=1e-12
    )


def test_components_beyond_a_candidates_reach_raise(views: Any) -> None:
    with pytest.raises(ValueError, match="n_components=9 is too large: at most 4"):
        MomentsSearchCV(CCA(), {"n_components": [1, 9]}).fit(*views)


def test_batches_are_for_fold_moments(views: Any) -> None:
    batches = [tuple(a[i : i + 50] for a in views) for i in (0, 50, 100)]
    with pytest.raises(ValueError, match="folds_from_batches"):
        MomentsSearchCV(CCA(), GRID).fit(iter(batches))
    splits = dealt(150)
    assert_same_search(
        MomentsSearchCV(CCA(), GRID).fit_moments(Moments.folds_from_batches(batches, cv=5)),
        MomentsSearchCV(CCA(), GRID, cv=splits).fit(*views),
    )


def test_dask_arrays_are_searched(views: Any) -> None:
    dask = pytest.importorskip("dask.array")
    X, Y = (dask.from_array(a, chunks=(40, -1)) for a in views)
    splits = dealt(150)
    for est, grid in ((CCA(), GRID), (MultitaskRegressor(), {"alpha": [0.1, 1.0]})):
        assert_same_search(
            MomentsSearchCV(est, grid).fit(X, Y), MomentsSearchCV(est, grid, cv=splits).fit(*views)
        )


def test_a_search_that_fails_keeps_its_last_good_state() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    Y = X[:, :3] + rng.normal(size=(60, 3))
    search = MomentsSearchCV(CCA(1), {"shrinkage": [0.1, 0.5]}).fit(X, Y)
    before = dict(vars(search))
    folds = Moments.folds(x=X, y=Y)

    def wrong(results: object) -> int:
        raise RuntimeError("no candidate is good enough")

    search.refit = wrong
    for call in (lambda: search.fit(X[:50], Y[:50]), lambda: search.fit_moments(folds)):
        with pytest.raises(RuntimeError):
            call()
        assert {k: v for k, v in vars(search).items() if k != "refit"} == {
            k: v for k, v in before.items() if k != "refit"
        }
    search.set_params(scoring="likelihood")
    with pytest.raises(ValueError, match="scoring"):
        search.fit(X, Y)
    assert search.score(X, Y) == before["best_estimator_"].score(X, Y)
