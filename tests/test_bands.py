"""Banded ridge: bands of features with penalties of their own, chosen for each task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from cmstats import Moments, MomentsSearchCV, MultitaskRegressor

WIDTHS = (6, 4, 5)
LABELS = np.repeat(["a", "b", "c"], WIDTHS)
ALPHAS = (0.1, 3.0, 100.0)


@pytest.fixture(scope="module")
def rows() -> tuple[dict[str, Any], Any]:
    """Three views, and four targets of the first, of the second, of all and of none."""
    rng = np.random.default_rng(0)
    views = [rng.normal(size=(90, p)) * 2**k + k for k, p in enumerate(WIDTHS)]
    B = rng.normal(size=(sum(WIDTHS), 4)) * np.array([1.0, 0.5, 0.5, 0.0])
    B[6:, 0] = B[:6, 1] = B[10:, 1] = 0
    Y = np.concatenate(views, axis=1) @ B + rng.normal(size=(90, 4)) * 2 + 7
    return dict(zip("abc", views, strict=True)), Y


def together(views: dict[str, Any]) -> Any:
    return np.concatenate(list(views.values()), axis=1)


def banded(**parameters: Any) -> MultitaskRegressor:
    given = {"bands": LABELS, "alphas": ALPHAS, "band_weights": 8, "random_state": 0, "cv": 3}
    return MultitaskRegressor(**{**given, **parameters})


def by_hand(X: Any, Y: Any, unit: Any, alpha: float, *, intercept: bool, cv: int = 3) -> Any:
    """Mean held-out R2 of scikit-learn's Ridge on scaled columns, by target."""
    folds = np.arange(len(X)) % cv
    scores = []
    for k in range(cv):
        ridge = Ridge(alpha=alpha, fit_intercept=intercept).fit(
            (X * unit)[folds != k], Y[folds != k]
        )
        found = ridge.predict((X * unit)[folds == k])
        scores.append(r2_score(Y[folds == k], found, multioutput="raw_values"))
    return np.mean(scores, axis=0)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("solver", ["moments", "svd"])
def test_candidates_are_ridges_of_scaled_columns(rows: Any, intercept: bool, solver: Any) -> None:
    X, Y = together(rows[0]), rows[1]
    model = banded(fit_intercept=intercept, solver=solver).fit(X, Y)
    weights = model.cv_band_weights_
    assert weights.shape == (8, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    units = np.sqrt(np.repeat(weights, WIDTHS, axis=1))
    scores = np.array(
        [[by_hand(X, Y, unit, a, intercept=intercept) for a in ALPHAS] for unit in units]
    )
    np.testing.assert_allclose(model.cv_scores_, scores.max(axis=1), atol=1e-9)
    best = scores.max(axis=1).argmax(axis=0)
    np.testing.assert_array_equal(model.bands_, weights[best])
    for t, k in enumerate(best):
        alpha = ALPHAS[scores[k, :, t].argmax()]
        assert model.alpha_[t] == alpha
        ridge = Ridge(alpha=alpha, fit_intercept=intercept).fit(X * units[k], Y[:, t])
        np.testing.assert_allclose(model.coef_[t], ridge.coef_ * units[k], atol=1e-9)
        np.testing.assert_allclose(model.intercept_[t], ridge.intercept_, atol=1e-8)


def test_the_centre_and_corners_are_candidates() -> None:
    X, Y = np.random.default_rng(0).normal(size=(2, 40, 15))
    found = banded(band_weights=2).fit(X, Y).cv_band_weights_
    np.testing.assert_array_equal(found, [[1 / 3] * 3, *np.eye(3)])
    more = banded(band_weights=9).fit(X, Y).cv_band_weights_
    np.testing.assert_array_equal(more[:4], found)
    assert len(np.unique(more, axis=0)) == 9


def test_one_band_is_plain_ridge_and_equal_weights_a_larger_penalty(rows: Any) -> None:
    X, Y = together(rows[0]), rows[1]
    plain = MultitaskRegressor(alphas=ALPHAS, cv=3).fit(X, Y)
    one = banded(bands=np.zeros(15)).fit(X, Y)
    np.testing.assert_array_equal(one.bands_, np.ones((4, 1)))
    np.testing.assert_allclose(one.cv_scores_[0], plain.cv_scores_.max(axis=0), atol=1e-12)
    np.testing.assert_allclose(one.coef_, plain.coef_, atol=1e-12)
    equal = banded(alpha=1.5, band_weights=[1 / 3] * 3).fit(X, Y)
    np.testing.assert_allclose(
        equal.coef_, MultitaskRegressor(alpha=4.5).fit(X, Y).coef_, atol=1e-12
    )
    assert not hasattr(plain, "bands_")
    assert not hasattr(plain, "score_by_band")


def test_a_corner_is_its_band_alone(rows: Any) -> None:
    views, Y = rows
    model = banded(alpha=2.0, bands="views", band_weights=(0, 1, 0)).fit(views, Y)
    alone = MultitaskRegressor(alpha=2.0).fit(views["b"], Y)
    np.testing.assert_allclose(model.coef_[:, 6:10], alone.coef_, atol=1e-12)
    assert not model.coef_[:, :6].any()
    assert not model.coef_[:, 10:].any()
    np.testing.assert_allclose(model.intercept_, alone.intercept_)
    shares = model.score_by_band(views, Y)
    np.testing.assert_allclose(shares[1], alone.score_tasks(views["b"], Y), atol=1e-12)
    assert not shares[[0, 2]].any()


def test_bands_are_views_labels_numbers_names_or_slices(rows: Any) -> None:
    views, Y = rows
    X = together(views)
    expected = banded().fit(X, Y)
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(15)])
    named = {"a": [f"f{i}" for i in range(6)], "b": ["f6", "f7", "f8", "f9"], "c": range(10, 15)}
    slices = {"a": slice(6), "b": slice(6, 10), "c": slice(10, None)}
    for bands, given in [("views", views), (LABELS.tolist(), X), (named, frame), (slices, X)]:
        found = banded(bands=bands).fit(given, Y)
        np.testing.assert_array_equal(found.coef_, expected.coef_)
        assert found.band_names_ == ["a", "b", "c"]
    parts = Moments.folds(cv=3, **views, y=Y)
    np.testing.assert_allclose(
        banded(bands="views").fit_moments(parts).coef_, expected.coef_, atol=1e-12
    )
    kinds = np.array([1] * 6 + ["image"] * 4 + ["text"] * 5, dtype=object)
    found = banded(bands=kinds).fit(X, Y)
    np.testing.assert_array_equal(found.coef_, expected.coef_)
    assert found.band_names_ == [1, "image", "text"]
    listed = banded(bands="views").fit(list(views.values()), Y)
    assert listed.band_names_ == ["x0", "x1", "x2"]
    order = np.random.default_rng(0).permutation(15)  # features of a band need not be neighbours
    mixed = banded(bands=LABELS[order]).fit(X[:, order], Y)
    np.testing.assert_allclose(mixed.coef_, expected.coef_[:, order], atol=1e-10)


def test_scores_by_band_add_up_to_r2(rows: Any) -> None:
    views, Y = rows
    train, test = ({k: a[cut] for k, a in views.items()} for cut in (slice(60), slice(60, 90)))
    for intercept in (True, False):
        model = banded(bands="views", fit_intercept=intercept).fit(train, Y[:60])
        shares = model.score_by_band(test, Y[60:])
        assert shares.shape == (3, 4)
        np.testing.assert_allclose(shares.sum(axis=0), model.score_tasks(test, Y[60:]), atol=1e-12)
        held = Moments.from_data(**test, y=Y[60:])
        np.testing.assert_allclose(model.score_moments_by_band(held), shares, atol=1e-12)
    # Of a least-squares fit to the rows themselves: the product measure f_b'y / y'y.
    fitted = banded(alpha=1e-9, band_weights=[1 / 3] * 3, bands="views").fit(views, Y)
    y = Y - Y.mean(axis=0)
    cuts = np.split(fitted.coef_, np.cumsum(WIDTHS)[:-1], axis=1)
    parts = [(a - a.mean(axis=0)) @ w.T for a, w in zip(views.values(), cuts, strict=True)]
    expected = [(f * y).sum(axis=0) / (y * y).sum(axis=0) for f in parts]
    np.testing.assert_allclose(fitted.score_by_band(views, Y), expected, atol=1e-8)


def test_a_constant_task_has_no_scores_by_band(rows: Any) -> None:
    views, Y = rows
    Y = np.column_stack([Y[:, 0], np.ones(len(Y))])
    shares = banded(bands="views").fit(views, Y).score_by_band(views, Y)
    assert np.isfinite(shares[:, 0]).all()
    assert np.isnan(shares[:, 1]).all()


def test_targets_with_gaps_are_those_of_their_own_rows(rows: Any) -> None:
    X, Y = together(rows[0]), rows[1].copy()
    gone = np.arange(90) % 4 == 1
    Y[gone, 2] = np.nan
    model = banded().fit(X, Y)
    rest = banded().fit(X, Y[:, [0, 1, 3]])
    np.testing.assert_allclose(model.coef_[[0, 1, 3]], rest.coef_, atol=1e-10)
    kept = np.flatnonzero(~gone)
    own = banded(cv=[(np.flatnonzero(kept % 3 != k), np.flatnonzero(kept % 3 == k))
                     for k in range(3)]).fit(X[kept], Y[kept, 2])  # fmt: skip
    np.testing.assert_allclose(model.coef_[2], own.coef_, atol=1e-10)
    np.testing.assert_array_equal(model.bands_[2], own.bands_)
    shares = model.score_by_band(X, Y)
    np.testing.assert_allclose(shares.sum(axis=0), model.score_tasks(X, Y), atol=1e-12)
    np.testing.assert_allclose(
        shares[:, 2], own.score_by_band(X[kept], Y[kept, 2])[:, 0], atol=1e-9
    )


def test_a_vector_of_targets_has_no_axis_of_tasks(rows: Any) -> None:
    X, y = together(rows[0]), rows[1][:, 0]
    model, column = banded().fit(X, y), banded().fit(X, y[:, None])
    assert model.bands_.shape == (3,)
    assert isinstance(model.alpha_, float)
    np.testing.assert_array_equal(model.bands_, column.bands_[0])
    assert model.score_by_band(X, y).shape == (3, 1)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("labels", [np.arange(60) % 2, (np.arange(60) % 20 == 0) + 0])
def test_wide_rows_are_solved_by_the_root(labels: Any, intercept: bool) -> None:
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(30, 60)), rng.normal(size=(30, 3))
    Y[:, 0] += X[:, ::2] @ rng.normal(size=30)
    X[:, 7] = 5.0
    X[:, 9] = 1000 + X[:, 8]
    given = {"bands": labels, "fit_intercept": intercept, "alphas": [0.1, 10.0, 1000.0]}
    wide = banded(**given).fit(X, Y)
    assert wide.moments_[0].form == "root"
    tall = banded(**given, solver="moments").fit(X, Y)
    np.testing.assert_allclose(wide.cv_scores_, tall.cv_scores_, atol=1e-9)
    np.testing.assert_allclose(wide.coef_, tall.coef_, atol=1e-9)


def test_batches_and_missing_entries(rows: Any) -> None:
    X, Y = together(rows[0]), rows[1]
    whole = banded().fit(X, Y)
    parts = [(X[i : i + 25], Y[i : i + 25]) for i in range(0, 90, 25)]
    streamed = banded().fit(parts)
    np.testing.assert_allclose(streamed.coef_, whole.coef_, atol=1e-10)
    added = banded()
    for part in parts:
        added.partial_fit(*part)
    np.testing.assert_allclose(added.coef_, whole.coef_, atol=1e-10)
    X = X.copy()
    X[::7, 3] = np.nan
    model = banded(missing="em").fit(X, Y)
    assert np.isfinite(model.score_by_band(X, Y)).all()


def test_the_cv_scores_are_himalayas(rows: Any) -> None:
    himalaya = pytest.importorskip("himalaya.ridge")
    from himalaya.scoring import r2_score as score
    from sklearn.model_selection import PredefinedSplit

    views, Y = rows
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], 6)
    solver = {"n_iter": weights, "alphas": np.array(ALPHAS), "n_alphas_batch": 1,
              "progress_bar": False, "score_func": score}  # fmt: skip
    peer = himalaya.GroupRidgeCV(
        groups="input", solver_params=solver, cv=PredefinedSplit(np.arange(90) % 3),
        fit_intercept=True,
    )  # fmt: skip
    peer.fit(list(views.values()), Y)
    model = banded(bands="views", band_weights=weights).fit(views, Y)
    np.testing.assert_allclose(model.cv_scores_, peer.cv_scores_, atol=1e-9)
    np.testing.assert_allclose(model.coef_, peer.coef_.T, atol=1e-8)
    penalties = model.alpha_[:, None] / model.bands_
    np.testing.assert_allclose(penalties.T, np.exp(-peer.deltas_), rtol=1e-9)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"bands": [[0, 1], [2, 3]]}, "bands is a list of lists: give one label for each of the 15"),
    ({"bands": LABELS[:-1]}, r"bands has shape \(14,\), but X has 15 columns"),
    ({"bands": [*LABELS[:-1], None]}, "bands has no label for column 14"),
    ({"bands": "views"}, "bands='views' needs several views"),
    ({"bands": {"a": range(10), "b": range(9, 15)}}, "column 9 is in two bands, 'a' and 'b'"),
    ({"bands": {"a": range(10)}}, "5 of 15 features are in no band .the first is column 10."),
    ({"bands": {"a": range(15), "b": []}}, "band 'b' has no column"),
    ({"bands": {"a": range(14), "b": ["age"]}}, "band 'b' has column 'age', which X does not have"),
    ({"bands": {"a": range(14), "b": [-1]}}, "band 'b' has column -1, which X does not have"),
    ({"band_weights": [0.5, 0.5]}, r"band_weights has shape \(2,\), but there are 3 bands"),
    ({"band_weights": [[1.5, -0.5, 0.0]]}, "band_weights must be finite numbers that are not neg"),
    ({"band_weights": [["a", "b", "c"]]}, "band_weights must be finite numbers"),
    ({"band_weights": [[0.5, 0.5, 0], [1]]}, "as many weights for each candidate"),
    ({"band_weights": [[1, 0, 0], [1, 1, 0]]}, "candidate 1 in band_weights add up to 2"),
    ({"band_weights": 0}, "band_weights"),
    ({"rank": 2}, "rank=2 with bands has no closed form"),
    ({"alphas": (0.0, 1.0)}, "alpha and alphas must be greater than 0"),
    ({"alpha": 0.0}, "alpha and alphas must be greater than 0"),
    ({"alpha": [1.0] * 4}, "one row of band_weights"),
]


@pytest.mark.parametrize(("parameters", "message"), BAD)
def test_bad_input_is_one_sentence(rows: Any, parameters: dict[str, Any], message: str) -> None:
    X, Y = together(rows[0]), rows[1]
    with pytest.raises(ValueError, match=message):
        banded(**parameters).fit(X, Y)
    with pytest.raises(ValueError, match=message):
        banded(**parameters).fit_moments(Moments.folds(cv=3, x=X, y=Y))


def test_one_moments_has_no_folds_to_choose_weights_on(rows: Any) -> None:
    moments = Moments.from_data(x=together(rows[0]), y=rows[1])
    with pytest.raises(ValueError, match="band_weights needs the moments of at least two folds"):
        banded(alpha=1.0).fit_moments(moments)
    banded(alpha=1.0, band_weights=(0.2, 0.3, 0.5)).fit_moments(moments)
    search = MomentsSearchCV(banded(alpha=1.0), {"alpha": [1.0, 2.0]})
    with pytest.raises(ValueError, match="band_weights is no candidate of a search"):
        search.fit(together(rows[0]), rows[1])
