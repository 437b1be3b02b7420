"""Bad input gets one clear sentence and the right exception; nothing is left half-fitted."""

from __future__ import annotations

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from cmstats import CCA, Moments, MomentsSearchCV, TwoViewPipeline

SOLVERS = ["auto", "moments", "svd"]
solver = pytest.mark.parametrize("solver", SOLVERS)
rng = np.random.default_rng(11)
X = rng.normal(size=(60, 4))
Y = X[:, :3] + rng.normal(size=(60, 3))


def estimators() -> list[Any]:
    return [
        *(CCA(solver=s) for s in SOLVERS),
        CCA(shrinkage="auto"),
        CCA(shrinkage="cv"),
        MomentsSearchCV(CCA(), {"shrinkage": [0.1, 0.2]}),
        TwoViewPipeline(CCA()),
    ]


def but(a: Any, **values: Any) -> Any:
    """A copy with some entries replaced: ``but(X, r3c1=nan)``."""
    out = np.array(a, dtype=float)
    for at, value in values.items():
        row, column = at[1:].split("c")
        out[int(row), int(column)] = value
    return out


@pytest.fixture(params=estimators(), ids=lambda e: f"{type(e).__name__}-{e.get_params(False)}"[:60])
def est(request: pytest.FixtureRequest) -> Any:
    return clone(request.param)


def fails(est: Any, error: Any, match: str, x: Any, y: Any, **kwargs: Any) -> None:
    """`fit` raises that sentence and no warning, and leaves no half-fitted estimator."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=match) as caught:
            est.fit(x, y, **kwargs)
    assert "LAPACK" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(NotFittedError):
        est.transform(X)


# ------------------------------------------------------------------ values and shapes
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (but(X, r3c1=np.nan), Y, r"(?i)^x has 1 NaN value, the first at row 3, column 1"),
        (X, but(Y, r5c2=np.inf), r"(?i)^y has 1 infinite value, the first at row 5, column 2"),
        (
            but(X, r3c1=np.nan, r9c0=np.nan, r2c3=-np.inf),
            Y,
            r"(?i)^x has 2 NaN and 1 infinite values, the first at row 2, column 3",
        ),
        (
            but(X, r3c1=np.inf, r4c1=-np.inf),
            but(Y, r0c0=np.nan),
            r"(?i)^x has 2 infinite values, the first at row 3, column 1",
        ),
    ],
)
def test_values_that_are_not_finite_are_counted_and_located(
    est: Any, x: Any, y: Any, message: str
) -> None:
    fails(est, ValueError, message, x, y)


@pytest.mark.parametrize("like", [np.float32, np.float16])
def test_float32_values_that_are_not_finite_are_counted_and_located(like: Any) -> None:
    fails(CCA(), ValueError, "1 infinite", but(X, r3c1=np.inf).astype(like), Y.astype(like))
    fails(CCA(), ValueError, "1 NaN", but(X, r3c1=np.nan).astype(like), Y.astype(like))


def test_every_call_locates_values_that_are_not_finite() -> None:
    fitted = CCA().fit(X, Y)
    bad = but(X, r3c1=np.nan)
    calls = [fitted.transform, fitted.predict, fitted.fuse, fitted.embed]
    calls += [lambda a: fitted.transform(a, Y), lambda a: fitted.score(a, Y)]
    calls += [lambda a: fitted.similarity(a, Y), lambda a: fitted.partial_fit(a, Y)]
    for call in calls:
        with pytest.raises(ValueError, match=r"(?i)x has 1 NaN value, .* row 3, column 1"):
            call(bad)
    with pytest.raises(ValueError, match=r"y has 1 NaN value, the first at row 2, column 1"):
        fitted.transform(y=but(Y, r2c1=np.nan))


def test_lengths_that_differ_raise_with_both_shapes(est: Any) -> None:
    fails(est, ValueError, r"\(60, 4\).*\(59, 3\)", X, Y[1:])


def test_lengths_that_differ_raise_everywhere() -> None:
    fitted = CCA().fit(X, Y)
    for call in (
        fitted.score, fitted.partial_fit, CCA().partial_fit, CCA(shrinkage="cv").partial_fit,
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\(60, 4\).*\(59, 3\)"):
            call(X, Y[1:])
        with pytest.raises(ValueError, match=r"\(59, 4\).*\(60, 3\)"):
            call(X[1:], Y)
    with pytest.raises(ValueError, match="60 rows and y 59"):
        fitted.fuse(X, Y[1:])


def test_one_row_raises(est: Any) -> None:
    fails(est, ValueError, r"(?i)sample|row|fold", X[:1], Y[:1])


def test_no_row_and_no_column_raise(est: Any) -> None:
    fails(est, ValueError, r"0 sample|minimum of 1|0 row", X[:0], Y[:0])
    fails(clone(est), ValueError, "0 feature", X[:, :0], Y)
    fails(clone(est), ValueError, "0 feature", X, Y[:, :0])


@pytest.mark.parametrize(
    "bad",
    [
        pd.DataFrame({"a": X[:, 0], "name": ["cat"] * 60}),
        np.array([["a", "b"]] * 60),
        [["1.0", "dog"]] * 60,
    ],
)
def test_text_raises(bad: Any) -> None:
    for est in (CCA(), CCA(shrinkage="cv"), MomentsSearchCV(CCA(), {"shrinkage": [0.1]})):
        fails(est, (ValueError, TypeError), "X.*(number|text)", bad, Y)
    fails(CCA(), (ValueError, TypeError), "y.*(number|text)", X, bad)


def test_complex_values_raise(est: Any) -> None:
    fails(est, ValueError, "Complex data not supported: X", X * 1j, Y)
    fails(clone(est), ValueError, "Complex data not supported: y", X, Y + 0j)


def test_three_axes_or_one_raise(est: Any) -> None:
    fails(est, ValueError, "two-dimensional|dim 3|3D", X[:, :, None], Y)
    fails(clone(est), ValueError, "(?s)1D array|two-dimensional", X[:, 0], Y) if not isinstance(
        est, TwoViewPipeline
    ) else None


def test_no_second_view_raises(est: Any) -> None:
    fails(est, ValueError, "second view", X, None)


# ------------------------------------------------------------------------- parameters
@pytest.mark.parametrize("too_many", [4, 100])
@solver
def test_too_many_components_raise_with_what_is_possible(too_many: int, solver: Any) -> None:
    message = f"n_components={too_many} is too large: at most 3 are possible"
    fails(CCA(too_many, solver=solver), ValueError, message, X, Y)
    message = "n_components=3 is too large: at most 1 are possible"
    with pytest.raises(ValueError, match=message):
        CCA(3, solver=solver, shrinkage=0.1).fit(X[:2], Y[:2])


def test_too_many_components_raise_in_partial_fit_too() -> None:
    with pytest.raises(ValueError, match="n_components=100 is too large: at most 3"):
        CCA(100).partial_fit(X, Y)


@pytest.mark.parametrize("n", [0, -1, 1.5, "all"])
def test_components_that_are_no_count_raise(n: Any) -> None:
    fails(CCA(n), ValueError, "n_components", X, Y)


@pytest.mark.parametrize(
    "s", [-0.1, 1.1, np.nan, "best", None, (0.1, 2), (0.1, 0.2, 0.3), ("auto", "none"), (), True]
)
def test_shrinkage_out_of_range_raises(s: Any) -> None:
    fails(CCA(shrinkage=s), ValueError, "shrinkage", X, Y)
    with pytest.raises(ValueError, match="shrinkage"):
        CCA(shrinkage=s).fit_moments(Moments.folds(x=X, y=Y))
    with pytest.raises(ValueError, match="shrinkage"):
        CCA(shrinkage=s).partial_fit(X, Y)


@pytest.mark.parametrize(
    "parameters", [{"solver": "qr"}, {"scale": 2}, {"cv": "five"}, {"cv": 1}], ids=str
)
def test_other_parameters_out_of_range_raise(parameters: dict[str, Any]) -> None:
    est = CCA(shrinkage="cv").set_params(**parameters)
    fails(est, ValueError, next(iter(parameters)), X, Y)


def test_folds_that_do_not_part_the_rows_raise() -> None:
    half = np.arange(30)
    for cv in ([(half, half + 30)], [(half, half + 30), (half, half + 30)], 61):
        fails(CCA(shrinkage="cv", cv=cv), ValueError, "cv", X, Y)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (np.ones(59), r"shape \(59,\)"),
        (-np.ones(60), "negative"),
        (np.zeros(60), "zero everywhere"),
        (np.full(60, np.nan), "NaN"),
        (np.ones((60, 1)), "shape"),
        (["a"] * 60, "numbers"),
    ],
)
def test_weights_that_are_not_frequencies_raise(est: Any, w: Any, message: str) -> None:
    fails(est, ValueError, message, X, Y, sample_weight=w)


def test_one_row_five_times_has_no_variance() -> None:
    w = np.zeros(60)
    w[3] = 5
    with pytest.warns(UserWarning, match="constant"):
        assert not CCA().fit(X, Y, sample_weight=w).correlations_.any()
    w[3] = 1
    fails(CCA(), ValueError, "(?i)sample", X, Y, sample_weight=w)


def test_unknown_kinds_of_similarity_raise() -> None:
    with pytest.raises(ValueError, match="kind='dot' is unknown"):
        CCA().fit(X, Y).similarity(X, Y, kind="dot")  # type: ignore[arg-type]


# ------------------------------------------------------------------ after and before fit
def test_use_before_fit_raises(est: Any) -> None:
    for call in (
        lambda: est.transform(X),
        lambda: est.predict(X),
        lambda: est.embed(X),
        lambda: est.fuse(X),
        lambda: est.similarity(X, Y),
        lambda: est.score(X, Y),
    ):
        with pytest.raises(NotFittedError):
            call()


def test_loadings_before_fit_raise() -> None:
    for name in ("x_loadings_", "y_cross_loadings_"):
        with pytest.raises((NotFittedError, AttributeError)):
            getattr(CCA(), name)


def test_moments_of_other_blocks_or_widths_raise() -> None:
    fitted = CCA().fit(X, Y)
    with pytest.raises((KeyError, ValueError), match="no block 'y'"):
        CCA().fit_moments(Moments.from_data(x=X))
    with pytest.raises((KeyError, ValueError), match="no block 'y'"):
        fitted.score_moments(Moments.from_data(x=X))
    with pytest.raises(ValueError, match=r"3 features.*expecting 4"):
        fitted.score_moments(Moments.from_data(x=Y, y=X))


def test_the_wrong_width_raises_with_both_widths(est: Any) -> None:
    est.fit(X, Y)
    for call in (est.transform, est.predict, est.fuse, est.embed):
        with pytest.raises(ValueError, match="X has 3 features, but CCA is expecting 4 features"):
            call(X[:, :3])
    with pytest.raises(ValueError, match="y has 2 features, but CCA is expecting 3 features"):
        est.transform(y=Y[:, :2])
    with pytest.raises(ValueError, match="expecting 3 features"):
        est.score(X, Y[:, :2])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_partial_fit_that_fails_keeps_the_former_state() -> None:
    for shrinkage in (0.0, "auto", "cv"):
        fitted = CCA(2, shrinkage=shrinkage).fit(X, Y)
        before = {k: v for k, v in vars(fitted).items() if k != "moments_"}
        for x, y, w in (
            (but(X, r3c1=np.nan), Y, None),
            (X, but(Y, r3c1=np.inf), None),
            (X[:, :3], Y, None),
            (X, Y[:, :2], None),
            (X, Y[1:], None),
            (X, Y, -np.ones(60)),
            (X * 1j, Y, None),
            (X, Y * 1e200, None),
        ):
            with pytest.raises(ValueError, match=r"."):
                fitted.partial_fit(x, y, w)
            after = {k: v for k, v in vars(fitted).items() if k != "moments_"}
            assert before.keys() == after.keys()
            assert all(before[k] is after[k] or before[k] == after[k] for k in before)
        expected = CCA(2, shrinkage=shrinkage).fit(np.r_[X, X], np.r_[Y, Y])
        fitted.partial_fit(X, Y)
        np.testing.assert_allclose(fitted.correlations_, expected.correlations_, atol=1e-12)


def test_a_fit_that_fails_leaves_a_fitted_estimator_whole() -> None:
    """Either as it was or not fitted: never the names of one fit and the weights of another."""
    for x, y, parameters in (
        (but(X[:, :2], r3c1=np.nan), Y, {}),
        (X, but(Y[:, :2], r3c1=np.nan), {}),
        (X[:, :2], Y[1:], {}),
        (X[:, :3], Y, {"n_components": 9}),
    ):
        fitted = CCA(shrinkage=0.1).fit(X, Y)
        before = fitted.transform(X)
        with pytest.raises(ValueError, match=r"."):
            fitted.set_params(**parameters).fit(x, y)
        try:
            after = fitted.transform(X)
        except NotFittedError:
            continue
        np.testing.assert_array_equal(after, before)
        fitted.predict(X)
        assert fitted.shrinkage_ == (0.1, 0.1)


def test_partial_fit_after_a_fit_without_folds_says_so() -> None:
    fitted = CCA().fit(X, Y).set_params(shrinkage="cv")
    with pytest.raises(ValueError, match="not dealt to 5 folds"):
        fitted.partial_fit(X, Y)


# -------------------------------------------------------------------- degenerate requests
@solver
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -7.3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_constant_column_warns_and_changes_nothing(solver: Any, value: float, dtype: Any) -> None:
    A, B = X.astype(dtype), Y.astype(dtype)
    wide = np.insert(A, 2, dtype(value), axis=1)
    for parameters in ({}, {"shrinkage": 0.1, "scale": True}, {"scale": True}):
        with pytest.warns(UserWarning, match=r"1 of the columns of x is constant .*column 2"):
            found = CCA(solver=solver, **parameters).fit(wide, B)
        assert found.x_weights_[2].tolist() == [0, 0, 0]
        if "shrinkage" not in parameters:  # the column counts in the ridge's trace / p
            expected = CCA(solver=solver, **parameters).fit(A, B)
            np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-9)
            np.testing.assert_allclose(found.transform(wide), expected.transform(A), atol=1e-3)
        for values in (found.transform(wide), found.predict(wide), found.x_loadings_):
            assert np.isfinite(values).all()


@solver
def test_a_constant_column_of_y_is_predicted_as_it_is(solver: Any) -> None:
    for scale in (True, False):
        with pytest.warns(UserWarning, match="columns of y"):
            found = CCA(solver=solver, scale=scale).fit(X, np.c_[Y, np.full(60, 7.0)])
        np.testing.assert_allclose(found.predict(X)[:, 3], 7)


@solver
@pytest.mark.parametrize("shrinkage", [0.0, 0.3, "auto", 1.0])
def test_a_wholly_constant_view_gives_zeros_and_a_warning(solver: Any, shrinkage: Any) -> None:
    for scale in (True, False):
        est = CCA(solver=solver, shrinkage=shrinkage, scale=scale)
        with pytest.warns(UserWarning, match="constant"):
            est.fit(np.full_like(X, 0.1), Y)
        assert not est.correlations_.any()
        assert not est.x_weights_.any()
        np.testing.assert_allclose(est.predict(X), np.tile(Y.mean(0), (60, 1)))
        for kind in ("cosine", "weighted_cosine", "csa", "likelihood_ratio"):
            assert np.isfinite(est.similarity(X, Y, kind=kind)).all()
        assert np.isfinite(est.fuse(X, Y)).all()
        with pytest.warns(UserWarning, match="constant"):
            est.fit(Y, np.full_like(X, 0.1))
        assert np.isfinite(est.predict(Y)).all()


@solver
@pytest.mark.parametrize("n", [7, 6, 3, 2])
def test_more_features_than_rows_warn_and_say_what_to_set(solver: Any, n: int) -> None:
    for scale in (True, False):
        with pytest.warns(UserWarning, match="set shrinkage='cv' or 'auto'") as caught:
            found = CCA(solver=solver, scale=scale).fit(X[:n], Y[:n])
        assert len(caught) == 1
        assert np.abs(found.correlations_).max() <= 1
        for values in (
            found.transform(X), found.predict(X), found.fuse(X, Y), found.x_loadings_,
            found.similarity(X, Y, kind="likelihood_ratio"),
        ):  # fmt: skip
            assert np.isfinite(values).all()


@solver
def test_training_correlations_that_are_one_by_count_are_one(solver: Any) -> None:
    with pytest.warns(UserWarning, match="shrinkage"):
        found = CCA(solver=solver).fit(X[:5], Y[:5])
    np.testing.assert_allclose(found.correlations_[:3], 1, atol=1e-7)
    np.testing.assert_allclose(found.predict(X[:5]), Y[:5], atol=1e-6)  # x has rank 4 = n - 1


@solver
def test_duplicated_columns_change_no_correlation(solver: Any) -> None:
    twice = np.c_[X, X[:, :2], X[:, :1] - 3 * X[:, 1:2]]
    expected = CCA(solver=solver).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = CCA(solver=solver).fit(twice, Y)
        swapped = CCA(solver=solver).fit(Y, twice)
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-8)
    np.testing.assert_allclose(swapped.correlations_, expected.correlations_, atol=1e-8)
    np.testing.assert_allclose(found.predict(twice), expected.predict(X), atol=1e-6)
    np.testing.assert_allclose(
        np.abs(found.transform(twice)), np.abs(expected.transform(X)), atol=1e-6
    )


@solver
def test_duplicated_columns_warn(solver: Any) -> None:
    with pytest.warns(UserWarning, match="rank|depend|duplicate"):
        CCA(solver=solver).fit(np.c_[X, X[:, 0]], Y)


@solver
def test_components_beyond_the_rank_are_left_out_with_a_warning(solver: Any) -> None:
    low = X[:, :2] @ rng.normal(size=(2, 4))
    with pytest.warns(UserWarning, match="only 2 of n_components=3 exist"):
        found = CCA(3, solver=solver).fit(low, Y)
    assert found.n_components_ == found.transform(low).shape[1] == 2


@solver
def test_identical_views_correlate_perfectly(solver: Any) -> None:
    found = CCA(solver=solver).fit(X, X)
    np.testing.assert_allclose(found.correlations_, 1, atol=1e-12)
    np.testing.assert_allclose(found.predict(X), X, atol=1e-8)
    assert np.isfinite(found.similarity(X, X, kind="likelihood_ratio")).all()


@pytest.mark.parametrize("factor", [1e-150, 1e-100, 1e-30, 1e30, 1e100, 1e150])
@solver
def test_units_near_the_ends_of_the_range_are_right_or_refused(factor: float, solver: Any) -> None:
    for shrinkage in (0.0, 0.2, "auto"):
        expected = CCA(solver=solver, shrinkage=shrinkage).fit(X, Y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found = CCA(solver=solver, shrinkage=shrinkage).fit(factor * X, Y)
            except ValueError as error:
                assert "large" in str(error) or "small" in str(error)  # noqa: PT017
                continue
        np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-8)


@pytest.mark.parametrize("factor", [1e-30, 1e-18, 1e15])
def test_units_near_the_ends_of_single_precision_are_right_or_refused(factor: float) -> None:
    expected = CCA().fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = CCA().fit((factor * X).astype(np.float32), Y.astype(np.float32))
        except ValueError as error:
            assert "large" in str(error) or "small" in str(error)  # noqa: PT017
            return
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-4)


# ------------------------------------------------------------------------ sparse matrices
@pytest.mark.parametrize("like", ["csr", "csc", "coo", "lil"])
@pytest.mark.parametrize("parameters", [{}, {"shrinkage": "cv"}, {"solver": "svd"}], ids=str)
def test_sparse_matrices_equal_dense_ones(like: str, parameters: dict[str, Any]) -> None:
    S = scipy.sparse.random(300, 12, 0.3, format=like, random_state=1)
    D = S.toarray()
    T = D[:, :4] + rng.normal(size=(300, 4))
    found, expected = CCA(**parameters).fit(S, T), CCA(**parameters).fit(D, T)
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-10)
    for name in ("transform", "predict", "fuse", "embed"):
        np.testing.assert_allclose(getattr(found, name)(S), getattr(expected, name)(D), atol=1e-9)
    assert found.score(S, T) == pytest.approx(expected.score(D, T))
    swapped = CCA(**parameters).fit(T, S)
    np.testing.assert_allclose(swapped.transform(y=S), CCA(**parameters).fit(T, D).transform(y=D))
    partly = CCA(**parameters).partial_fit(S.tocsr()[:100], T[:100])
    partly.partial_fit(S.tocsr()[100:], T[100:])
    np.testing.assert_allclose(partly.correlations_, expected.correlations_, atol=1e-10)


def test_sparse_arrays_and_float32_are_read_too() -> None:
    S = scipy.sparse.random_array((300, 12), density=0.3, format="csr", random_state=1)
    T = S.toarray()[:, :4] + rng.normal(size=(300, 4))
    found = CCA().fit(S, T)
    np.testing.assert_allclose(
        found.transform(S.astype(np.float32)), found.transform(S.toarray()), atol=1e-4
    )
    assert found.transform(S.astype(np.float32)).dtype == np.float32


def peak_of(call: Any) -> float:
    """Peak memory of a call in bytes, beyond what was there."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shrinkage", [0.1, "cv"])
def test_a_sparse_matrix_is_never_densified_whole(shrinkage: Any) -> None:
    n, p = 200_000, 60
    S = scipy.sparse.random(n, p, 0.02, format="csr", random_state=0)
    T = rng.normal(size=(n, 2))
    CCA(shrinkage=shrinkage, cv=2).fit(S[:100], T[:100])
    whole = 8 * n * p
    assert peak_of(lambda: CCA(shrinkage=shrinkage, cv=2).fit(S, T)) < whole / 2


def test_a_huge_sparse_matrix_is_transformed_without_densifying() -> None:
    n, p = 100_000, 20_000  # 16 GB if it were dense
    S = scipy.sparse.random(60, p, 0.01, format="csr", random_state=0)
    fitted = CCA(2, shrinkage=0.5).fit(S, Y)
    huge = scipy.sparse.coo_array(
        (np.ones(1000), (rng.integers(0, n, 1000), rng.integers(0, p, 1000))), shape=(n, p)
    )
    assert peak_of(lambda: fitted.transform(huge)) < 100e6
    assert fitted.predict(huge.tocsr()[:10]).shape == (10, 3)


def test_a_sparse_view_that_is_not_finite_is_located() -> None:
    S = scipy.sparse.csr_array(but(np.zeros((60, 5)), r7c3=np.nan, r9c1=1.0))
    fails(CCA(), ValueError, r"(?i)x has 1 NaN value, the first at row 7, column 3", S, Y)
