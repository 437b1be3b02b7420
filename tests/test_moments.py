"""Moments: exact sums, merging, folds, partialling out, Ledoit-Wolf, files."""

from __future__ import annotations

import functools
import itertools
import operator
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from contract.places import PLACES, Place
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage, oas
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, ShuffleSplit

from cmstats import CCA, Moments, MultitaskRegressor
from cmstats.arrays import to_numpy
from cmstats.moments.folds import training_moments

FORMS = ["scatter", "root"]
form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(120, 5)) @ rng.normal(size=(5, 5)) + 3
    return X, X[:, :3] @ rng.normal(size=(3, 3)) + rng.normal(size=(120, 3)) - 7


def assert_same(a: Moments, b: Moments, atol: float = 1e-10) -> None:
    """Equal counts, means, covariances and Ledoit-Wolf shrinkages."""
    assert (a.names, a.widths) == (b.names, b.widths)
    assert a.n == pytest.approx(b.n)
    for i, j in itertools.product(a.names, a.names):
        np.testing.assert_allclose(a.scatter(i, j), b.scatter(i, j), atol=atol * max(1, a.n))
    for i in a.names:
        np.testing.assert_allclose(a.mean(i), b.mean(i), atol=atol)
        assert a.ledoit_wolf(i) == pytest.approx(b.ledoit_wolf(i), abs=1e-10)


# --------------------------------------------------------------------------- the sums
@form
def test_moments_are_those_of_numpy(form: Any, views: Any) -> None:
    X, Y = views
    m = Moments.from_data(x=X, y=Y, form=form)
    joint = np.cov(np.c_[X, Y].T)
    assert (m.n, m.rows, m.names, m.widths, m.form) == (120, 120, ("x", "y"), (5, 3), form)
    np.testing.assert_allclose(m.mean("y"), Y.mean(axis=0), atol=1e-13)
    np.testing.assert_allclose(m.cov("x"), joint[:5, :5], atol=1e-12)
    np.testing.assert_allclose(m.cov("x", "y"), joint[:5, 5:], atol=1e-12)
    np.testing.assert_allclose(m.cov("y", "x", ddof=0), joint[5:, :5] * 119 / 120, atol=1e-12)
    np.testing.assert_allclose(m.variance("y"), np.diag(joint)[5:], atol=1e-12)


@form
def test_weights_are_repeated_rows(form: Any, views: Any, rng: np.random.Generator) -> None:
    X, Y = views
    w = rng.integers(0, 4, 120)
    found = Moments.from_data(x=X, y=Y, sample_weight=w, form=form)
    expected = Moments.from_data(x=np.repeat(X, w, 0), y=np.repeat(Y, w, 0), form=form)
    assert_same(found, expected)


@form
def test_weights_are_repeated_rows_in_folds(
    form: Any, views: Any, rng: np.random.Generator
) -> None:
    X, Y = views
    w, groups = rng.integers(1, 4, 120), np.arange(120) // 10
    found = Moments.folds(cv=GroupKFold(4), groups=groups, x=X, y=Y, sample_weight=w, form=form)
    expected = Moments.folds(
        cv=[
            (np.flatnonzero(~test), np.flatnonzero(test))
            for _, at in GroupKFold(4).split(X, groups=groups)
            for test in [np.repeat(np.isin(np.arange(120), at), w)]
        ],
        x=np.repeat(X, w, 0), y=np.repeat(Y, w, 0), form=form,
    )  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


@form
def test_a_number_as_weight_stands_for_every_row(form: Any, views: Any) -> None:
    X, Y = views
    found = Moments.from_data(x=X, y=Y, sample_weight=2.0, form=form)
    assert found.n == 240


@form
@pytest.mark.parametrize("like", ["csr", "csc", "coo"])
def test_sparse_blocks_equal_dense_ones(form: Any, like: str, rng: np.random.Generator) -> None:
    X = scipy.sparse.random(150, 30, 0.2, format=like, random_state=0)
    Y = rng.normal(size=(150, 2))
    assert_same(
        Moments.from_data(x=X, y=Y, form=form), Moments.from_data(x=X.toarray(), y=Y, form=form)
    )
    for a, b in zip(
        Moments.folds(cv=3, x=X, y=Y, form=form),
        Moments.folds(cv=3, x=X.toarray(), y=Y, form=form),
        strict=True,
    ):
        assert_same(a, b)


@form
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "bool"])
def test_blocks_of_different_dtypes_stand_side_by_side(
    form: Any, dtype: str, rng: np.random.Generator
) -> None:
    X = (rng.random((300, 4)) * 3).astype(dtype)
    Y = rng.normal(size=(300, 2))
    found = Moments.from_data(x=X, y=Y, form=form)
    expected = Moments.from_data(x=X.astype(float), y=Y, form=form)
    np.testing.assert_allclose(found.cov("x", "y"), expected.cov("x", "y"), atol=1e-6)


@form
def test_float32_moments_keep_their_digits_far_from_zero(
    form: Any, rng: np.random.Generator
) -> None:
    X = (rng.normal(size=(50_000, 4)) + 200).astype(np.float32)
    truth = np.cov(X.T.astype(float))
    found = Moments.from_data(x=X, form=form).cov("x")
    assert np.abs(found - truth).max() < 1e-6 * np.diag(truth).max()
    parts = [Moments.from_data(x=part, form=form) for part in np.array_split(X, 7)]
    found = functools.reduce(operator.add, parts).cov("x")
    assert np.abs(found - truth).max() < 1e-6 * np.diag(truth).max()


# --------------------------------------------------------------------------- merging
@form
@given(
    sizes=st.lists(st.integers(1, 20), min_size=3, max_size=3),
    seed=st.integers(0, 2**16),
    far=st.sampled_from([0.0, 1.0, 1e3]),
    scale=st.sampled_from([1.0, 1e-3, 1e3]),
)
def test_merging_is_associative_and_commutative(
    form: Any, sizes: list[int], seed: int, far: float, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    Z = [scale * (rng.normal(size=(k, 4)) + far * i) for i, k in enumerate(sizes)]
    a, b, c = (Moments.from_data(x=z[:, :3], y=z[:, 3:], form=form) for z in Z)
    whole = Moments.from_data(x=np.concatenate(Z)[:, :3], y=np.concatenate(Z)[:, 3:], form=form)
    atol = 1e-12 * scale**2 * (1 + far) ** 2
    for merged in ((a + b) + c, a + (b + c), c + b + a, b + a + c):
        assert_same(merged, whole, max(atol, 1e-13))


@form
def test_merges_of_single_rows_equal_one_pass(form: Any, views: Any) -> None:
    X, Y = views
    parts = [Moments.from_data(x=X[i : i + 1], y=Y[i : i + 1], form=form) for i in range(120)]
    assert_same(functools.reduce(operator.add, parts), Moments.from_data(x=X, y=Y, form=form))


def test_both_forms_hold_the_same_moments(views: Any) -> None:
    X, Y = views
    a, b = (Moments.from_data(x=X, y=Y, form=form) for form in FORMS)
    assert_same(a, b)


@pytest.mark.parametrize("d", [6, 300])
def test_a_root_has_no_more_rows_than_rows_or_columns(d: int, rng: np.random.Generator) -> None:
    Z = rng.normal(size=(40, d))
    whole = Moments.from_data(x=Z, form="root")
    pieces = functools.reduce(
        operator.add, (Moments.from_data(x=Z[i : i + 1], form="root") for i in range(40))
    )
    for m in (whole, pieces):
        assert m.sums.matrix.shape[0] <= min(40, d)


def test_update_adds_rows_in_place(views: Any) -> None:
    X, Y = views
    m = Moments.from_data(x=X[:50], y=Y[:50])
    assert m.update(x=X[50:], y=Y[50:]) is m
    assert_same(m, Moments.from_data(x=X, y=Y))


@form
def test_an_update_that_fails_adds_nothing(form: Any, views: Any) -> None:
    X, Y = views
    m = Moments.from_data(x=X, y=Y, form=form)
    bad = X.copy()
    bad[3, 1] = np.nan
    for blocks in ({"x": bad, "y": Y}, {"x": X}, {"x": X[:, :2], "y": Y}, {"x": X[1:], "y": Y}):
        with pytest.raises(ValueError, match=r"."):
            m.update(**blocks)
    assert_same(m, Moments.from_data(x=X, y=Y, form=form))


def test_blocks_merge_by_name_in_any_order(views: Any) -> None:
    X, Y = views
    merged = Moments.from_data(x=X[:50], y=Y[:50]) + Moments.from_data(y=Y[50:], x=X[50:])
    assert_same(merged, Moments.from_data(x=X, y=Y))


def test_what_does_not_fit_together_does_not_merge(views: Any) -> None:
    X, Y = views
    m = Moments.from_data(x=X, y=Y)
    with pytest.raises(ValueError, match="cannot be merged"):
        m + Moments.from_data(x=X)
    with pytest.raises(ValueError, match="do not merge"):
        m + Moments.from_data(x=X, y=Y, form="root")
    with pytest.raises(TypeError):
        m + 1  # type: ignore[operator]


@form
@pytest.mark.parametrize("as_dict", [True, False])
def test_batches_of_any_size_equal_one_pass(form: Any, views: Any, as_dict: bool) -> None:
    X, Y = views
    cuts = [0, 1, 2, 9, 9, 60, 120]
    parts = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(cuts)]
    source = [dict(zip("xy", p, strict=True)) for p in parts] if as_dict else parts
    found = Moments.from_batches(iter(source), form=form)
    assert_same(found, Moments.from_data(x=X, y=Y, form=form))


def test_a_stream_without_rows_raises() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Moments.from_batches([])


# ----------------------------------------------------------------------------- folds
def splits(name: str, n: int) -> Any:
    return {
        "int": 4,
        "kfold": KFold(4),
        "shuffled": KFold(4, shuffle=True, random_state=0),
        "list": list(KFold(3, shuffle=True, random_state=1).split(np.zeros(n))),
        "masks": [(np.arange(n) % 3 != k, np.arange(n) % 3 == k) for k in range(3)],
    }[name]


@form
@pytest.mark.parametrize("name", ["int", "kfold", "shuffled", "list", "masks"])
def test_folds_merge_to_the_whole(form: Any, views: Any, name: str) -> None:
    X, Y = views
    folds = Moments.folds(cv=splits(name, 120), x=X, y=Y, form=form)
    assert_same(functools.reduce(operator.add, folds), Moments.from_data(x=X, y=Y, form=form))


@form
def test_training_merges_equal_direct_moments(form: Any, views: Any) -> None:
    X, Y = views
    # one fold of a far larger scale: subtracting it from the total would cancel digits
    X = X * np.where(np.arange(120) % 4 == 2, 1e6, 1.0)[:, None]
    folds = Moments.folds(cv=4, x=X, y=Y, form=form)
    for k, train in enumerate(training_moments(folds)):
        at = np.arange(120) % 4 != k
        direct = Moments.from_data(x=X[at], y=Y[at], form=form)
        scale = float(np.max(direct.variance("x")))
        assert_same(train, direct, 1e-13 * scale)


@pytest.mark.parametrize("k", [2, 3])
def test_training_merges_of_few_folds(views: Any, k: int) -> None:
    X, Y = views
    folds = Moments.folds(cv=k, x=X, y=Y)
    for i, train in enumerate(training_moments(folds)):
        at = np.arange(120) % k != i
        assert_same(train, Moments.from_data(x=X[at], y=Y[at]))


@pytest.mark.ordinary
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_folds_of_few_rows_take_no_more_memory_than_these(
    size: int, weighted: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    n, rows = 60, np.arange(60) // size
    X, Y = rng.normal(size=(n, 80)) + 5, rng.normal(size=(n, 40))
    w = rng.uniform(0.5, 2, size=n) if weighted else None
    cv = PredefinedSplit(rows)
    tracemalloc.start()
    folds = Moments.folds(cv=cv, x=X, y=Y, sample_weight=w)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * (X.nbytes + Y.nbytes)  # a matrix for each fold would be 60 / size times it
    for k, train in enumerate(training_moments(folds)):
        mine = rows == k
        for at, found in ((~mine, train), (mine, folds[k])):
            part = None if w is None else w[at]
            assert_same(found, Moments.from_data(x=X[at], y=Y[at], sample_weight=part))
    folds[1].save(tmp_path / "fold.npz")
    assert_same(Moments.load(tmp_path / "fold.npz") + folds[2], folds[1] + folds[2])
    pair = folds[0] + folds[1]
    at = rows < 2
    direct = Moments.from_data(x=X[at], y=Y[at], sample_weight=None if w is None else w[at])
    assert_same(pair + direct, direct + pair)
    assert_same(pair.select("y", "x").select("x", "y"), direct)
    scores = Ridge(alpha=2.0).fit(X[rows != 0], Y[rows != 0], None if w is None else w[rows != 0])
    model = MultitaskRegressor(alpha=2.0).fit_moments(next(training_moments(folds)))
    np.testing.assert_allclose(model.predict(X), scores.predict(X), atol=1e-9)


def test_an_int_deals_rows_by_their_number(views: Any) -> None:
    X, Y = views
    for k, fold in enumerate(Moments.folds(cv=5, x=X, y=Y)):
        assert_same(fold, Moments.from_data(x=X[k::5], y=Y[k::5]))


@pytest.mark.parametrize(
    "cv",
    [
        ShuffleSplit(3, random_state=0),
        [(np.arange(60), np.arange(60, 120))],
        [(np.arange(60), np.arange(60, 120)), (np.arange(60, 119), np.arange(60))],
        [(np.arange(60), np.arange(60, 120)), (np.arange(60, 120), np.arange(59))],
        1,
        121,
    ],
)
def test_splits_that_do_not_part_the_rows_raise(views: Any, cv: Any) -> None:
    with pytest.raises(ValueError, match="cv"):
        Moments.folds(cv=cv, x=views[0])


def test_rows_of_a_stream_keep_their_groups(views: Any) -> None:
    X, Y = views
    groups = np.random.default_rng(0).integers(0, 9, 120) * 7
    batches = [(X[i : i + 50], Y[i : i + 50]) for i in (0, 50, 100)]
    expected = Moments.folds(cv=4, groups=groups, x=X, y=Y)
    order = list(dict.fromkeys(groups.tolist()))
    for k, fold in enumerate(expected):
        mine = np.isin(groups, order[k::4])
        assert_same(fold, Moments.from_data(x=X[mine], y=Y[mine]))
    found = Moments.folds_from_batches(batches, cv=4, groups=groups)
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)
    for n, rows in ((119, "at least 120"), (121, "120")):
        with pytest.raises(ValueError, match=f"groups has {n} labels for {rows} rows"):
            Moments.folds_from_batches(batches, cv=4, groups=np.arange(n) % 9)


@form
def test_an_empty_fold_raises(form: Any, views: Any) -> None:
    half = np.arange(60)
    cv = [(np.arange(120), half[:0]), (half + 60, half), (half, half + 60)]
    with pytest.raises(ValueError, match=r"empty|cv"):
        Moments.folds(cv=cv, x=views[0], form=form)


# -------------------------------------------------------------------- partialling out
@form
def test_partialling_out_equals_regression_residuals(
    form: Any, views: Any, rng: np.random.Generator
) -> None:
    X, Y = views
    Z = rng.normal(size=(120, 2)) + X[:, :2]
    found = Moments.from_data(x=X, y=Y, z=Z, form=form).partial_out("z")
    A = np.c_[np.ones(120), Z]
    residuals = [V - A @ np.linalg.lstsq(A, V, rcond=None)[0] for V in (X, Y)]
    assert found.names == ("x", "y")
    np.testing.assert_allclose(found.scatter("x", "y"), residuals[0].T @ residuals[1], atol=1e-9)
    np.testing.assert_allclose(found.scatter("x"), residuals[0].T @ residuals[0], atol=1e-9)


@form
def test_partialling_out_a_block_without_full_rank(
    form: Any, views: Any, rng: np.random.Generator
) -> None:
    X, Y = views
    Z = rng.normal(size=(120, 2)) + X[:, :2]
    twice = np.c_[Z, Z[:, :1], np.ones(120)]
    found = Moments.from_data(x=X, y=Y, z=twice, form=form).partial_out("z")
    expected = Moments.from_data(x=X, y=Y, z=Z, form=form).partial_out("z")
    np.testing.assert_allclose(found.scatter("x"), expected.scatter("x"), atol=1e-8)


@form
@pytest.mark.parametrize("seed", range(6))
def test_a_column_that_is_wholly_partialled_out_is_noise_to_no_model(form: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, Z = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    Y = X[:, :2] + Z[:, :2] + rng.normal(size=(60, 2))
    explained = np.c_[X, Z @ rng.normal(size=(3, 2)) + 5]
    found, expected = (
        CCA().fit_moments(Moments.from_data(x=A, y=Y, z=Z, form=form).partial_out("z"))
        for A in (explained, X)
    )
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-10)


def test_the_only_block_cannot_be_partialled_out(views: Any) -> None:
    with pytest.raises(ValueError, match="only block"):
        Moments.from_data(x=views[0]).partial_out("x")
    with pytest.raises(KeyError, match="no block 'z'"):
        Moments.from_data(x=views[0], y=views[1]).partial_out("z")


# -------------------------------------------------------------------------- shrinkage
@form
@pytest.mark.parametrize("shape", [(30, 5), (20, 60), (200, 3), (2, 4)])
def test_ledoit_wolf_equals_scikit_learns(
    form: Any, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    X = rng.standard_t(3, size=shape) @ rng.normal(size=(shape[1], shape[1]))
    found = Moments.from_data(x=X, form=form).ledoit_wolf("x")
    assert found == pytest.approx(ledoit_wolf_shrinkage(X), abs=1e-12)


@form
def test_ledoit_wolf_equals_scikit_learns_after_merges(form: Any, rng: np.random.Generator) -> None:
    """Batches with very different means."""
    parts = [
        rng.normal(size=(k, 6)) * (1 + k % 3) + 100.0 * i for i, k in enumerate((3, 50, 1, 40))
    ]
    parts = [p @ np.diag([1, 1, 2, 2, 3, 3]) for p in parts]
    merged = functools.reduce(operator.add, (Moments.from_data(x=p, form=form) for p in parts))
    expected = ledoit_wolf_shrinkage(np.concatenate(parts))
    assert merged.ledoit_wolf("x") == pytest.approx(expected, abs=1e-12)


def test_ledoit_wolf_is_per_block(views: Any) -> None:
    m = Moments.from_data(x=views[0], y=views[1])
    for name, V in zip("xy", views, strict=True):
        assert m.ledoit_wolf(name) == pytest.approx(ledoit_wolf_shrinkage(V), abs=1e-12)
        assert m.select(name).ledoit_wolf(name) == pytest.approx(m.ledoit_wolf(name), abs=1e-12)


@pytest.mark.parametrize("factor", [1e-60, 1e-20, 1e20, 1e60])
def test_ledoit_wolf_does_not_depend_on_the_unit(factor: float, rng: np.random.Generator) -> None:
    X = rng.normal(size=(40, 5)) * [1, 2, 3, 4, 5]
    expected = Moments.from_data(x=X).ledoit_wolf("x")
    assert Moments.from_data(x=X * factor).ledoit_wolf("x") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
@form
def test_one_column_is_not_shrunken(form: Any, seed: int) -> None:
    """One variance is its own target: scikit-learn's answer is 0 as well."""
    y = np.random.default_rng(seed).normal(size=30)
    m = Moments.from_data(x=y, form=form)
    assert m.ledoit_wolf("x") == 0
    assert m.standardized().ledoit_wolf("x") == 0


@form
def test_standardized_moments_shrink_as_oas_does(form: Any, views: Any) -> None:
    X = views[0]
    Z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    found = Moments.from_data(x=X, form=form).standardized().ledoit_wolf("x")
    assert found == pytest.approx(oas(Z)[1], abs=1e-12)


# ------------------------------------------------------- without products among targets
def assert_regresses_alike(a: Moments, b: Moments, rtol: float = 1e-10) -> None:
    """Equal in all that a regression of the block "y" asks for, and b without S_yy."""
    assert (b.names, b.widths, b.diagonal, b.rows) == (a.names, a.widths, "y", a.rows)
    assert b.n == pytest.approx(a.n)
    rest = [name for name in a.names if name != "y"]
    for pair in [*itertools.product(rest, rest), *((name, "y") for name in rest)]:
        S = to_numpy(a.scatter(*pair))
        for found in (b.scatter(*pair), b.scatter(*reversed(pair)).mT):
            np.testing.assert_allclose(to_numpy(found), S, rtol=rtol, atol=rtol * np.abs(S).max())
    for of in (Moments.mean, Moments.variance):
        expected, found = (to_numpy(of(m, "y")) for m in (a, b))
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    with pytest.raises(ValueError, match="hold only the variances of the block"):
        b.scatter("y")


@pytest.mark.parametrize(
    ("place", "n"), [("numpy", 3000), *((name, 120) for name in PLACES)], indirect=["place"]
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_targets_need_no_products(
    place: Place, dtype: str, n: int, rng: np.random.Generator
) -> None:
    X = rng.normal(size=(n, 5)) + 3
    Y = X[:, :3] @ rng.normal(size=(3, 9)) + rng.normal(size=(n, 9)) - 7
    blocks = {"x": place(X, dtype), "y": place(Y, dtype)}
    w = place(rng.uniform(0.5, 2, n))
    rtol = 1e-10 if dtype == "float64" else 1e-5
    for how in ({}, {"sample_weight": w}):
        full = Moments.from_data(**how, **blocks)
        found = Moments.from_data(diagonal="y", **how, **blocks)
        assert_regresses_alike(full, found, rtol)
        S = to_numpy(found.scatter("x"))
        np.testing.assert_array_equal(S, S.T)
        folds = Moments.folds(diagonal="y", cv=3, **how, **blocks)
        assert_regresses_alike(full, functools.reduce(operator.add, folds), rtol)
    assert_regresses_alike(full.about_origin(), found.about_origin(), rtol)
    assert_regresses_alike(full.standardized(), found.standardized(), rtol)
    assert_regresses_alike(full.reweighted(2.5), found.reweighted(2.5), rtol)
    assert found.diagonal == "y"
    assert "diagonal='y'" in repr(found)


def test_moments_without_products_merge_with_all_others(views: Any, tmp_path: Path) -> None:
    (X, Y), cut = views, slice(0, 50)
    full = Moments.from_data(x=X, y=Y)
    found = Moments.from_data(x=X[cut], y=Y[cut], diagonal="y")
    rest = {"x": X[50:], "y": Y[50:]}
    for other in (Moments.from_data(**rest), Moments.from_data(**rest, diagonal="y")):
        assert_regresses_alike(full, found + other)
        assert_regresses_alike(full, other + found)
    found.save(tmp_path / "m.npz")
    loaded = Moments.load(tmp_path / "m.npz")
    assert_regresses_alike(full, loaded.update(**rest))
    pickled = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(pickled.scatter("x", "y"), found.scatter("x", "y"))
    batches = ((X[i : i + 7], Y[i : i + 7]) for i in range(0, 120, 7))
    assert_regresses_alike(full, Moments.from_batches(batches, diagonal="y"))
    single = Moments.folds(x=X, y=Y, cv=120, diagonal="y")  # folds of a row each
    assert_regresses_alike(full, functools.reduce(operator.add, single))
    single[3].save(tmp_path / "row.npz")
    others = [Moments.load(tmp_path / "row.npz"), *single[:3], *single[4:]]
    assert_regresses_alike(full, functools.reduce(operator.add, others))


def test_blocks_beside_targets_are_taken_and_partialled_out(views: Any) -> None:
    X, Y = views
    blocks = {"a": X[:, :2], "b": X[:, 2:], "y": Y}
    full, found = Moments.from_data(**blocks), Moments.from_data(**blocks, diagonal="y")
    assert_regresses_alike(full, found)
    assert_regresses_alike(full.select("b", "y"), found.select("b", "y"))
    assert_regresses_alike(full.partial_out("b"), found.partial_out("b"))
    assert found.select("b", "a").diagonal is None
    assert_same(full.select("a").standardized(), found.select("a").standardized())
    with pytest.raises(ValueError, match="must be the last"):
        found.select("y", "a")
    with pytest.raises(ValueError, match="hold only the variances"):
        CCA().fit_moments(found.select("a", "y").relabelled({"x": 2, "y": 3}))
    with pytest.raises(ValueError, match="hold only the variances"):
        found.partial_out("y")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"diagonal": "x"}, "must name the last of at least two blocks, got x, y"),
        ({"diagonal": "z"}, "must name the last of at least two blocks, got x, y"),
        ({"diagonal": "y", "missing": "em"}, "leave diagonal out"),
    ],
)
def test_targets_are_the_last_block(how: dict[str, Any], said: str, views: Any) -> None:
    with pytest.raises(ValueError, match=said):
        Moments.from_data(x=views[0], y=views[1], **how)
    with pytest.raises(ValueError, match=said):
        Moments.from_batches([views], **how)


def test_rows_with_gaps_do_not_join_moments_without_products(views: Any) -> None:
    X, Y = views[0], views[1].copy()
    found = Moments.from_data(x=X, y=Y, diagonal="y")
    Y[3, 1] = np.nan
    with pytest.raises(ValueError, match="from the products within every block"):
        found.update(x=X, y=Y, missing="em")


# ------------------------------------------------------------------------------ files
@form
@pytest.mark.parametrize("name", ["m.npz", "moments"])
def test_saved_moments_load_as_they_were(form: Any, name: str, views: Any, tmp_path: Path) -> None:
    m = Moments.from_data(x=views[0], y=views[1], form=form, sample_weight=np.arange(120))
    m.save(tmp_path / name)
    loaded = Moments.load(str(tmp_path / name))
    assert_same(loaded, m, 0)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert_same(loaded + loaded, m + m, 0)


def test_projected_moments_save_and_load(views: Any, tmp_path: Path) -> None:
    m = Moments.from_data(x=views[0], z=views[1]).partial_out("z")
    m.save(tmp_path / "m.npz")
    assert_same(Moments.load(tmp_path / "m.npz"), m, 0)


def test_a_saved_file_is_readable_as_any_other(views: Any, tmp_path: Path) -> None:
    Moments.from_data(x=views[0]).save(tmp_path / "m.npz")
    (tmp_path / "other").write_text("")
    assert (tmp_path / "m.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_without_moments_raises_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    np.savez(tmp_path / "other.npz", a=np.eye(2))
    np.save(tmp_path / "array.npy", np.eye(2))
    for name in ("text", "other.npz", "array.npy"):
        with pytest.raises(ValueError, match="holds no moments"):
            Moments.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Moments.load(tmp_path / "none")


@form
def test_moments_pickle(form: Any, views: Any) -> None:
    m = Moments.from_data(x=views[0], y=views[1], form=form)
    assert_same(pickle.loads(pickle.dumps(m)), m, 0)


# ----------------------------------------------------------------------------- errors
@form
def test_values_that_are_not_finite_are_told_by_block(form: Any, views: Any) -> None:
    X, Y = views[0], views[1].copy()
    Y[7, 2], Y[9, 0] = np.inf, -np.inf
    with pytest.raises(ValueError, match=r"y has 2 infinite values, the first at row 7, column 2"):
        Moments.from_data(x=X, y=Y, form=form)
    with pytest.raises(ValueError, match="y has 2 infinite values"):
        Moments.folds(x=X, y=Y, form=form)


@form
def test_values_whose_moments_overflow_raise_one_sentence(form: Any, views: Any) -> None:
    X, Y = views
    with pytest.raises(ValueError, match="too large"):
        Moments.from_data(x=X * 1e200, y=Y, form=form)


def test_a_covariance_needs_more_rows_than_ddof() -> None:
    with pytest.raises(ValueError, match="needs more than 1 rows"):
        Moments.from_data(x=np.ones((1, 2))).cov("x")


def test_no_block_and_an_unknown_form_raise(views: Any) -> None:
    with pytest.raises(ValueError, match="at least one block"):
        Moments.from_data()
    with pytest.raises(ValueError, match="form"):
        Moments.from_data(x=views[0], form="qr")  # type: ignore[arg-type]
