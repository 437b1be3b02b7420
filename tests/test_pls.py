"""PLS: scikit-learn's results, from moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSSVD, PLSCanonical, PLSRegression

from cmstats import CCA, PLS

rng = np.random.default_rng(5)
Z = rng.normal(size=(80, 4))
X = Z @ rng.normal(size=(4, 7)) + rng.normal(size=(80, 7)) * [1, 2, 0.5, 1, 1, 3, 1] + 4
Y = Z @ rng.normal(size=(4, 5)) + rng.normal(size=(80, 5)) * [1, 0.3, 1, 2, 1]
NAMES = ("x_weights_", "y_weights_", "x_loadings_", "y_loadings_", "x_rotations_", "y_rotations_")


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("target", [Y, Y[:, 0]], ids=["many", "one"])
def test_regression_is_scikit_learns(scale: bool, k: int, target: Any) -> None:
    theirs = PLSRegression(k, scale=scale, tol=1e-14, max_iter=20000).fit(X, target)
    ours = PLS(k, scale=scale).fit(X, target)
    for name in (*NAMES, "coef_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=3e-6, atol=3e-6)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=3e-6, atol=3e-6)
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=3e-6, atol=3e-6)
    back = theirs.inverse_transform(theirs.transform(X))
    np.testing.assert_allclose(
        ours.inverse_transform(ours.transform(X)), back, rtol=3e-6, atol=3e-6
    )
    assert ours.score(X, target) == pytest.approx(theirs.score(X, target), abs=1e-7)


@pytest.mark.parametrize("scale", [True, False])
def test_canonical_is_scikit_learns(scale: bool) -> None:
    theirs = PLSCanonical(4, scale=scale, tol=1e-14, max_iter=20000).fit(X, Y)
    ours = PLS(4, mode="canonical", scale=scale).fit(X, Y)
    for name in (*NAMES, "coef_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5)
    for a, b in zip(ours.transform(X, Y), theirs.transform(X, Y), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-5)


def test_svd_is_scikit_learns_and_cca_at_full_shrinkage() -> None:
    theirs, ours = PLSSVD(3).fit(X, Y), PLS(3, mode="svd").fit(X, Y)
    for a, b in zip(ours.transform(X, Y), theirs.transform(X, Y), strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), atol=1e-9)
    cca = CCA(3, shrinkage=1.0, scale=True).fit(X, Y)
    for a, b in zip(ours.transform(X, Y), cca.transform(X, Y), strict=True):
        np.testing.assert_allclose(np.abs(a / a.std(axis=0, ddof=1)), np.abs(b), atol=1e-9)


def test_svd_predicts_by_least_squares_on_its_scores() -> None:
    pls = PLS(3, mode="svd").fit(X, Y)
    T = np.column_stack([np.ones(len(X)), pls.transform(X)])
    np.testing.assert_allclose(pls.predict(X), T @ np.linalg.lstsq(T, Y)[0], atol=1e-10)


def test_the_shares_of_variance_add_up_to_those_of_the_rows() -> None:
    pls = PLS(7).fit(X, Y)
    assert pls.x_explained_variance_ratio_.sum() == pytest.approx(1)
    standard = (Y - Y.mean(0)) / Y.std(0, ddof=1)
    left = ((pls.predict(X) - Y) / Y.std(0, ddof=1) ** 1) ** 2
    explained = 1 - left.sum() / (standard**2).sum()
    assert pls.y_explained_variance_ratio_.sum() == pytest.approx(explained)
    assert np.mean(pls.vip_**2) == pytest.approx(1)


def test_the_number_of_components_is_chosen_on_the_folds_by_one_standard_error() -> None:
    pls = PLS("cv", cv=4).fit(X, Y)
    ids = np.arange(len(X)) % 4
    by_hand = np.array([
        [PLSRegression(k, tol=1e-12, max_iter=9999).fit(X[ids != i], Y[ids != i])
         .score(X[ids == i], Y[ids == i]) for i in range(4)]
        for k in range(1, 8)
    ])  # fmt: skip
    np.testing.assert_allclose(pls.cv_scores_, by_hand, rtol=3e-6, atol=3e-6)
    mean, error = by_hand.mean(1), by_hand.std(1, ddof=1) / 2
    best = mean.argmax()
    assert pls.n_components_ == 1 + np.flatnonzero(mean >= mean[best] - error[best])[0]


def test_the_symmetric_modes_keep_the_components_that_correlate_on_held_out_rows() -> None:
    for mode in ("canonical", "svd"):
        pls = PLS("cv", mode=mode).fit(X, Y)
        held = pls.cv_scores_.mean(1) > pls.cv_scores_.std(1, ddof=1) / 5**0.5
        assert pls.n_components_ == max(1, int(np.argmin([*held, False])))
        assert pls.cv_scores_.shape == (5, 5)


def test_more_columns_than_rows_form_no_matrix_of_columns_by_columns() -> None:
    wide = rng.normal(size=(30, 4000))
    theirs = PLSRegression(3, tol=1e-14, max_iter=20000).fit(wide, Y[:30])
    ours = PLS(3).fit(wide, Y[:30])
    assert ours.moments_.form == "root"
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-7)


def test_what_does_not_vary_together_ends_the_components() -> None:
    with pytest.warns(UserWarning, match="only 2 of n_components=4 exist"):
        pls = PLS(4).fit(np.repeat(X[:, :2], 2, axis=1), Y)
    assert pls.n_components_ == 2
    with pytest.warns(UserWarning, match="constant"):
        nothing = PLS(2).fit(X, np.ones(80))
    assert not nothing.coef_.any()
    np.testing.assert_allclose(nothing.predict(X), 1.0)


def test_too_many_components_raise_one_sentence() -> None:
    with pytest.raises(ValueError, match="n_components=8 is too large: at most 7 are possible"):
        PLS(8).fit(X, Y)
    with pytest.raises(ValueError, match="at most 5 are possible"):
        PLS(6, mode="canonical").fit(X, Y)
