"""Moments remember what was partialled out: degrees of freedom, and residuals of other rows."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from cmstats import (
    CCA,
    ConditionalGaussian,
    Moments,
    canonical_correlation_test,
    correlation_intervals,
)

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(120, 2))
X = Z @ RNG.normal(size=(2, 4)) + RNG.normal(size=(120, 4)) + 3
Y = Z @ RNG.normal(size=(2, 3)) + RNG.normal(size=(120, 3)) + 0.5 * X[:, :3]
OLD, NEW = slice(0, 80), slice(80, 120)


def beyond(form: Any = "scatter") -> Moments:
    return Moments.from_data(x=X[OLD], y=Y[OLD], z=Z[OLD], form=form).partial_out("z")


@pytest.mark.parametrize("form", ["scatter", "root"])
def test_residuals_are_those_of_the_regressions_of_the_fit(form: Any) -> None:
    found = beyond(form).residuals(x=X[NEW], y=Y[NEW], z=Z[NEW])
    for rows, name in zip(found, (X, Y), strict=True):
        regression = LinearRegression().fit(Z[OLD], name[OLD])
        expected = name[NEW] - regression.predict(Z[NEW]) + name[OLD].mean(axis=0)
        np.testing.assert_allclose(rows, expected, atol=1e-10)


def test_rows_in_single_precision_keep_their_columns() -> None:
    rows = {"x": X[OLD], "y": Y[OLD], "z": Z[OLD]}
    single = Moments.from_data(**{name: a.astype(np.float32) for name, a in rows.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = single.partial_out("z")
    assert not found.constant("x").any()
    np.testing.assert_allclose(found.cov("x"), beyond().cov("x"), atol=1e-5)


def test_a_model_of_partialled_moments_is_that_of_the_residuals() -> None:
    m = beyond()
    rows = m.residuals(x=X[OLD], y=Y[OLD], z=Z[OLD])
    a, b = CCA(2).fit_moments(m), CCA(2).fit(*rows)
    np.testing.assert_allclose(a.correlations_, b.correlations_, atol=1e-12)
    held = m.residuals(x=X[NEW], y=Y[NEW], z=Z[NEW])
    assert a.score(*held) == pytest.approx(b.score(*held), abs=1e-12)
    only = m.residuals(x=X[NEW], z=Z[NEW])
    np.testing.assert_allclose(
        ConditionalGaussian(shrinkage=0.1).fit_moments(m).predict(only),
        ConditionalGaussian(shrinkage=0.1).fit(*rows).predict(only),
        atol=1e-10,
    )


def test_the_test_takes_off_the_rank_by_itself() -> None:
    for copied in (lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        model = CCA().fit_moments(copied(beyond()))
        own = canonical_correlation_test(model)
        given = canonical_correlation_test(model, n_nuisance=2)
        np.testing.assert_array_equal(own.to_numpy(), given.to_numpy())
        less = canonical_correlation_test(model, n_nuisance=0)
        assert less["wilks_df2"].iloc[0] > own["wilks_df2"].iloc[0]
    dependent = np.c_[Z, Z.sum(axis=1)]  # three columns of rank two
    m = Moments.from_data(x=X, y=Y, z=dependent, form="root").partial_out("z")
    assert m.nuisance_rank == 2


def test_what_is_made_of_the_moments_keeps_the_rank(tmp_path: Path) -> None:
    m = beyond()
    m.save(tmp_path / "m.npz")
    kept = (m.select("x", "y"), m.standardized(), Moments.load(tmp_path / "m.npz"))
    expected = canonical_correlation_test(CCA().fit_moments(m))["wilks_df2"]
    for made in kept:
        assert made.nuisance_rank == 2
        found = canonical_correlation_test(CCA().fit_moments(made))["wilks_df2"]
        np.testing.assert_allclose(found, expected)
        with pytest.raises(ValueError, match="neither merged nor standardised"):
            Moments.load(tmp_path / "m.npz").residuals(x=X, z=Z)
    assert (m + m).nuisance_rank == 4  # each group of rows has regressions of its own


def test_two_blocks_one_after_the_other_are_both_at_once() -> None:
    W = RNG.normal(size=(120, 1)) + Z[:, :1]
    one = Moments.from_data(x=X, y=Y, z=Z, w=W).partial_out("z").partial_out("w")
    both = Moments.from_data(x=X, y=Y, z=np.c_[Z, W]).partial_out("z")
    assert one.nuisance_rank == both.nuisance_rank == 3
    np.testing.assert_allclose(
        one.residuals(x=X, w=W, z=Z), both.residuals(x=X, z=np.c_[Z, W]), atol=1e-9
    )
    with pytest.raises(ValueError, match="give z="):
        one.residuals(x=X, w=W)


BAD = {
    "nothing": (
        lambda: Moments.from_data(x=X).residuals(x=X),
        ValueError,
        "nothing was partialled",
    ),
    "no rows of z": (lambda: beyond().residuals(x=X), ValueError, "give z="),
    "no such block": (lambda: beyond().residuals(w=X, z=Z), KeyError, "no block 'w'"),
    "width": (lambda: beyond().residuals(x=X[:, :2], z=Z), ValueError, "2 columns, but it had 4"),
    "lengths": (lambda: beyond().residuals(x=X, z=Z[:5]), ValueError, "inconsistent numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str) -> None:
    call, kind, sentence = BAD[case]
    with pytest.raises(kind, match=sentence):
        call()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_single_precision_leaves_what_double_does(dtype: Any) -> None:
    """Which columns a regression leaves nothing of does not depend on the precision."""
    rows = {"x": X, "y": Y, "z": Z}
    low = {k: v.astype(dtype) for k, v in rows.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = (
            CCA().fit_moments(
                Moments.from_data(**{k: v.astype(kind) for k, v in low.items()}).partial_out("z")
            )
            for kind in (dtype, np.float64)
        )
        intervals = correlation_intervals(low["x"], low["y"], Z=low["z"])
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-5)
    np.testing.assert_allclose(found.x_weights_, expected.x_weights_, atol=1e-4)
    assert len(intervals) == 3
