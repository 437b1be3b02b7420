"""CCA: parameters out of range and degenerate rows; see `contract` for what all models refuse."""

from __future__ import annotations

import functools
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, StratifiedKFold

from cmstats import (
    CCA,
    Moments,
    bootstrap,
    check_pairs,
    compare,
    correlation_intervals,
    match_probability,
    permutation_test,
    retrieval_report,
    search,
    suggest_models,
)

SOLVERS = ["auto", "moments", "svd"]
solver = pytest.mark.parametrize("solver", SOLVERS)
rng = np.random.default_rng(11)
X = rng.normal(size=(60, 4))
Y = X[:, :3] + rng.normal(size=(60, 3))


def but(a: Any, **values: Any) -> Any:
    """A copy with some entries replaced: ``but(X, r3c1=nan)``."""
    out = np.array(a, dtype=float)
    for at, value in values.items():
        row, column = at[1:].split("c")
        out[int(row), int(column)] = value
    return out


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


TWO_VIEWS: dict[str, Callable[[Any, Any], Any]] = {
    "permutation_test": permutation_test,
    "bootstrap": lambda x, y: bootstrap(CCA(), x, y, "correlations_"),
    "correlation_intervals": correlation_intervals,
    "compare": lambda x, y: compare({"CCA": CCA()}, x, y),
    "suggest_models": suggest_models,
    "check_pairs": check_pairs,
    "match_probability": match_probability,
    "retrieval_report": retrieval_report,
    "search": search,
    "Moments.from_data": lambda x, y: Moments.from_data(x=x, y=y),
    "similarity": lambda x, y: CCA().fit(X, Y).similarity(x, y),
}


@pytest.mark.parametrize("call", TWO_VIEWS.values(), ids=TWO_VIEWS)
def test_what_is_no_matrix_at_all_is_named(call: Callable[[Any, Any], Any]) -> None:
    for given, match in (
        ("rows.csv", "is the text 'rows.csv'"),
        (Path("rows.csv"), "is the path 'rows.csv'.* read the file first, with numpy.load"),
        ({"rows": X}, r"\['rows'\]|several"),
        ((row for row in X), r"numpy.stack\(list"),
        (CCA(), "is a CCA"),
    ):
        for x, y in ((given, Y), (X, given)):
            with pytest.raises((TypeError, ValueError), match=match):
                call(x, y)
    with pytest.raises((TypeError, ValueError), match=r"is None|got 1"):
        call(None, Y)


@pytest.mark.parametrize(
    ("cv", "match"),
    [
        (GroupKFold(3), r"cv=GroupKFold cannot deal these 60 rows: The 'groups'"),
        (StratifiedKFold(3), r"cv=StratifiedKFold cannot .*list\(StratifiedKFold\(...\)"),
        ([(np.arange(50), np.arange(50, 70))] * 2, "fold 0 of cv has row 69, but there are 60"),
    ],
)
def test_folds_that_cannot_be_dealt_are_named(cv: Any, match: str) -> None:
    for call in (
        CCA(shrinkage="cv", cv=cv).fit,
        functools.partial(correlation_intervals, cv=cv),
        functools.partial(compare, {"CCA": CCA()}, cv=cv),
    ):
        with pytest.raises(ValueError, match=match):
            call(X, Y)


def test_lengths_that_differ_say_what_may_be_meant() -> None:
    for x, y, match in (
        (X.T, Y, r"\(X has its items in columns, it seems: pass X.T\)"),
        (X, Y.T, r"pass y.T"),
        (X, np.repeat(Y, 5, axis=0), r"if 5 rows of y belong to each of X, .*\(X, 5, axis=0\)"),
        (X[:50], Y, "need the same number of rows$"),
    ):
        fails(CCA(), ValueError, match, x, y)


def test_weights_of_classes_are_no_weights_of_rows() -> None:
    for given in ("balanced", {0: 1.0}):
        with pytest.raises(TypeError, match="is not one number for each row"):
            CCA().fit(X, Y, sample_weight=given)


def test_containers_that_hold_vectors_are_stacked_or_named() -> None:
    expected = CCA().fit(X, Y).correlations_
    pa = pytest.importorskip("pyarrow")
    for given in (pa.array(X.tolist()), pa.chunked_array([X[:30].tolist(), X[30:].tolist()])):
        np.testing.assert_array_equal(CCA().fit(given, Y).correlations_, expected)
    fields = np.rec.fromarrays(X.T, names="a,b,c,d")
    for given, match in (
        (fields, r"structured array with the fields a, b, c, d: .*structured_to_unstructured"),
        (X[:, :, None, None], r"X.reshape\(60, -1\) makes one row of each item"),
        (pd.Series([str(row) for row in X.tolist()]), r"vectors written as text.*sep=','"),
        (pd.Series([str(row) for row in X]), r"vectors written as text.*sep=' '"),
        (pd.DataFrame({"a": ["1.5", "2.5", "."] * 20}), "'.' for one"),
    ):
        fails(CCA(), ValueError, match, given, Y)


@pytest.mark.torch
def test_lists_of_tensors_are_stacked_and_sparse_ones_named() -> None:
    torch = pytest.importorskip("torch")
    half = torch.tensor(X).bfloat16()
    expected = CCA().fit(half.float().numpy(), Y).correlations_
    for rows in (list(half), [row.clone().requires_grad_() for row in half]):
        np.testing.assert_allclose(CCA().fit(rows, Y).correlations_, expected, rtol=1e-6)
    with pytest.raises(TypeError, match=r"X is a sparse tensor.*X.to_dense\(\)"):
        CCA().fit(torch.tensor(X).to_sparse(), torch.tensor(Y))


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


def peak_of(call: Any) -> float:
    """Peak memory of a call in bytes, beyond what was there."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
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
