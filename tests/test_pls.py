"""PLS: scikit-learn's results, from moments."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSSVD, PLSCanonical, PLSRegression

from cmstats import CCA, PLS, load_linnerud

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


@pytest.mark.parametrize("mode", ["regression", "canonical", "svd"])
def test_units_of_views_without_scale_are_those_of_scores_only(mode: Any) -> None:
    near, far = PLS(3, mode=mode, scale=False), PLS(3, mode=mode, scale=False)
    near.fit(X, Y)
    far.fit(X * 2.0**460, Y * 2.0**-460)
    for name in ("x_weights_", "x_rotations_", "x_loadings_", "x_explained_variance_ratio_"):
        np.testing.assert_allclose(getattr(far, name), getattr(near, name), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        far.transform(X * 2.0**460) * 2.0**-460, near.transform(X), rtol=1e-9, atol=1e-9
    )
    if mode != "canonical":  # takes scores of y for scores of x
        found = far.predict(X * 2.0**460) * 2.0**460
        np.testing.assert_allclose(found, near.predict(X), rtol=1e-9, atol=1e-9)


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


# Abdi (2007), Partial least squares regression, Encyclopedia of Measurement and Statistics:
# price, sugar, alcohol and acidity of five wines; hedonic, goes with meat, goes with dessert.
WINES = np.array([[7, 7, 13, 7], [4, 3, 14, 7], [10, 5, 12, 5], [16, 7, 11, 3], [13, 3, 10, 3.0]])
TASTES = np.array([[14, 7, 8], [10, 7, 6], [8, 5, 5], [2, 4, 7], [6, 2, 4.0]])


def test_five_wines_of_abdi() -> None:
    pls = PLS(3).fit(WINES, TASTES)
    weights = [
        [-0.5137, -0.3379, -0.3492], [0.2010, -0.9400, 0.1612],
        [0.5705, -0.0188, -0.8211], [0.6085, 0.0429, 0.4218],
    ]  # fmt: skip
    np.testing.assert_allclose(np.abs(pls.x_weights_), np.abs(weights), atol=6e-5)
    standard = [
        [-1.0607, -0.0745, 0.1250], [0.3354, 0.2593, 0.7510],
        [-1.4142, 0.7454, 0.5000], [1.2298, 0.1650, 0.1186],
    ]  # fmt: skip
    units = WINES.std(0)[:, None] / TASTES.std(0)
    np.testing.assert_allclose(pls.coef_.T * units, standard, atol=6e-5)
    original = [
        [-1, -0.0333, 0.0417], [0.75, 0.2750, 0.5938], [-4, 1, 0.5], [2.75, 0.175, 0.0938],
    ]  # fmt: skip
    np.testing.assert_allclose(pls.coef_.T, original, atol=6e-5)


def test_five_wines_without_scale() -> None:
    """Printed after MATLAB's plsregress, with digits cut off."""
    pls = PLS(3, scale=False).fit(WINES, TASTES)
    coef = [
        [-1.6981, -0.0566, 0.07075], [1.2735, 0.2924, 0.57193],
        [-4, 1, 0.5], [1.1792, 0.1226, 0.15919],
    ]  # fmt: skip
    np.testing.assert_allclose(pls.coef_.T, coef, atol=1e-4)
    np.testing.assert_allclose(pls.intercept_, [60.717, -8.509, -4.362], atol=2e-3)


def test_linnerud_as_r_prints_it() -> None:
    """As plspm and plsdepot have it, printed in the tests of scikit-learn."""
    exercise, physiology = load_linnerud(return_X_y=True)
    pls = PLS(3, mode="canonical").fit(exercise, physiology)
    weights = [
        [-0.61330704, 0.25616119, -0.74715187],
        [-0.74697144, 0.11930791, 0.65406368],
        [-0.25668686, -0.95924297, -0.11817271],
    ]
    rotations = [
        [0.58989127, 0.7168115, 0.30665872],
        [0.77134053, -0.70791757, 0.19786539],
        [-0.23887670, -0.00343595, 0.94162826],
    ]
    np.testing.assert_allclose(np.abs(pls.x_weights_), np.abs(weights), atol=5e-6)
    np.testing.assert_allclose(np.abs(pls.y_rotations_), np.abs(rotations), atol=5e-6)
    physiology[:, 0] = 1
    with pytest.warns(UserWarning, match="constant"):
        pls = PLS(3).fit(exercise, physiology)
    loadings = [
        [0, 0, 0],
        [0.4357300, 0.5828479, 0.2174802],
        [-0.1353739, -0.2486423, -0.1810386],
    ]
    np.testing.assert_allclose(np.abs(pls.y_loadings_), np.abs(loadings), atol=5e-6)


# Height, weight, hair length, shoe size, age, income, beer, wine, sex, swimming, region and IQ of
# 32 people of Scandinavia and the Mediterranean (Esbensen, Multivariate Data Analysis in Practice).
PEOPLE = np.loadtxt(
    io.StringIO("""
198 92 -1 48 48 45000 420 115 -1 98 -1 100  184 84 -1 44 33 33000 350 102 -1 92 -1 130
183 83 -1 44 37 34000 320 98 -1 91 -1 127  166 47 -1 36 32 28000 270 78 1 75 -1 112
170 60 1 38 23 20000 312 99 1 81 -1 110  172 64 1 39 24 22000 308 91 1 82 -1 102
182 80 -1 42 35 30000 398 65 -1 85 -1 140  180 80 -1 43 36 30000 388 63 -1 84 -1 129
169 51 1 36 24 23000 250 89 1 78 -1 98  168 52 1 37 27 23500 260 86 1 78 -1 100
183 81 -1 42 37 35000 345 45 -1 90 -1 105  157 47 1 36 32 32000 235 92 1 70 -1 127
164 50 1 38 41 34000 255 134 1 76 -1 101  162 49 1 37 40 34000 265 124 1 75 -1 108
180 82 -1 44 43 37000 355 82 -1 88 -1 109  180 81 -1 44 46 42000 362 90 -1 86 -1 113
185 82 -1 45 26 16000 295 180 -1 92 1 109  187 84 -1 46 27 16500 299 178 -1 95 1 119
168 50 1 37 49 34000 170 162 1 76 1 135  166 49 1 36 21 14000 150 245 1 75 1 123
158 46 1 34 30 18000 120 120 1 70 1 119  177 65 -1 41 26 18000 209 160 -1 86 1 120
180 72 -1 43 33 19000 236 175 -1 85 1 115  181 75 -1 43 42 31000 198 161 -1 83 1 105
163 50 1 36 18 11000 143 136 1 75 1 102  162 50 1 36 20 11500 133 146 1 74 1 132
176 68 -1 42 50 36000 195 177 -1 82 1 96  175 67 1 42 55 38000 185 187 -1 80 1 105
165 51 1 36 36 26000 121 129 1 76 1 126  161 48 1 35 41 31500 116 196 1 75 1 120
178 75 -1 42 30 24000 203 208 -1 81 1 118  160 48 1 35 40 31000 118 198 1 74 1 129
""")
).reshape(32, 12)


def test_vip_scores_of_people() -> None:
    """Printed after MATLAB's SIMPLS in the tests of mdatools, from the rotations at unit length."""
    pls = PLS(4).fit(np.delete(PEOPLE, 3, axis=1), PEOPLE[:, 3])
    printed = "1.3935 1.4077 1.213 .46925 .54905 1.0238 .43434 1.3375 1.3532 .41075 .24069"
    explained = pls.y_explained_variance_ratio_
    unit = pls.x_rotations_ / np.linalg.norm(pls.x_rotations_, axis=0)
    found = np.sqrt(11 * unit**2 @ explained / explained.sum())
    np.testing.assert_allclose(found, np.array(printed.split(), float), atol=6e-5)
    found = np.sqrt(11 * pls.x_weights_**2 @ explained / explained.sum())
    np.testing.assert_allclose(pls.vip_, found)
