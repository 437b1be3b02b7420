"""Missing entries: patterns that merge, closed form and EM, estimators that take NaN."""

from __future__ import annotations

import functools
import itertools
import operator
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse
from contract.places import PLACES, Place
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import PredefinedSplit

from cmstats import (
    CCA,
    ConditionalGaussian,
    LinearAutoencoder,
    Moments,
    MomentsSearchCV,
    MultitaskRegressor,
    MultiviewCCA,
)
from cmstats.arrays import to_numpy
from cmstats.moments import missing
from cmstats.moments import patterns as _patterns
from cmstats.moments.em import Problem, em, evident_prior
from cmstats.moments.folds import training_moments
from cmstats.moments.imputation import Filler
from cmstats.rows import chunks as streams

P, Q = 4, 3
D = P + Q
rng = np.random.default_rng(4)
MIX = rng.normal(size=(D, D)) + 2 * np.eye(D)
Z = rng.normal(size=(300, D)) @ MIX + 5
W = rng.integers(1, 4, 300).astype(float)
NAN = np.nan


def scattered(share: float = 0.2, seed: int = 0) -> Any:
    """Rows with a share of all entries missing."""
    out = Z.copy()
    out[np.random.default_rng(seed).random(Z.shape) < share] = NAN
    return out


def x_only(pairs: int = 120) -> Any:
    """Rows of x alone beside pairs, mixed."""
    out = Z.copy()
    out[np.random.default_rng(1).permutation(300)[pairs:], P:] = NAN
    return out


def both_alone() -> Any:
    """Rows of x alone and rows of y alone beside pairs."""
    out = Z.copy()
    at = np.random.default_rng(2).permutation(300)
    out[at[:80], P:] = NAN
    out[at[80:160], :P] = NAN
    return out


def three_steps() -> Any:
    """Nested patterns, which cut through the blocks."""
    out = Z.copy()
    out[200:, 3:] = NAN
    out[250:, 1:] = NAN
    return out[np.random.default_rng(3).permutation(300)]


SHAPES = {
    "scattered": scattered, "x_only": x_only, "both_alone": both_alone, "three_steps": three_steps
}  # fmt: skip
shape = pytest.mark.parametrize("shape", SHAPES)


def moments(rows: Any, **kwargs: Any) -> Moments:
    return Moments.from_data(x=rows[:, :P], y=rows[:, P:], missing="em", **kwargs)


def joint(m: Moments) -> tuple[Any, Any]:
    """Mean and covariance of all columns."""
    C = np.block([[m.cov(a, b) for b in m.names] for a in m.names])
    return np.concatenate([m.mean(a) for a in m.names]), C


def assert_same(a: Moments, b: Moments, atol: float = 1e-10) -> None:
    assert (a.names, a.widths, a.rows) == (b.names, b.widths, b.rows)
    assert a.n == pytest.approx(b.n)
    for found, expected in zip(joint(a), joint(b), strict=True):
        np.testing.assert_allclose(found, expected, atol=atol * np.abs(expected).max())


def log_likelihood(rows: Any, mean: Any, C: Any) -> float:
    """Of the observed entries, by groups of rows that have the same."""
    total = 0.0
    masks = ~np.isnan(rows)
    for o in np.unique(masks[masks.any(axis=1)], axis=0):
        Z = rows[(masks == o).all(axis=1)][:, o] - mean[o]
        S = C[np.ix_(o, o)]
        total -= 0.5 * float(np.sum(Z * np.linalg.solve(S, Z.T).T))
        total -= 0.5 * len(Z) * float(np.linalg.slogdet(2 * np.pi * S)[1])
    return total


def maximum(m: Moments, prior: float = 0.0) -> missing.Estimate:
    return missing.estimate(m.sums_by_pattern(), m.names, m.widths, prior=prior, ddof=0.0)


# ------------------------------------------------------------------- without missing entries
def test_rows_without_nan_give_the_same_moments_whatever_missing_is() -> None:
    for kwargs in ({}, {"sample_weight": W}):
        a = moments(Z, **kwargs)
        b = Moments.from_data(x=Z[:, :P], y=Z[:, P:], **kwargs)
        assert not a.incomplete
        assert a.complete_rows() is a
        assert a.estimate is None
        np.testing.assert_array_equal(a.scatter("x", "y"), b.scatter("x", "y"))
        np.testing.assert_array_equal(a.mean("y"), b.mean("y"))
        assert a.ledoit_wolf("x") == b.ledoit_wolf("x")
        (pattern,) = a.patterns()
        assert pattern.observed.all()
        assert (pattern.n, pattern.rows) == (a.n, 300)
    folds = [Moments.folds(x=Z[:, :P], y=Z[:, P:], missing=m) for m in ("error", "em")]  # type: ignore[arg-type]
    for a, b in zip(*folds, strict=True):
        np.testing.assert_array_equal(a.scatter("x", "y"), b.scatter("x", "y"))


# ----------------------------------------------------------------------------- closed form
def test_rows_of_x_alone_leave_the_regression_of_the_pairs() -> None:
    """Anderson (1957): p(y | x) is that of the pairs, p(x) that of all rows."""
    rows = x_only()
    pairs = rows[~np.isnan(rows).any(axis=1)]
    m, c = moments(rows), Moments.from_data(x=pairs[:, :P], y=pairs[:, P:])
    assert m.estimate is not None
    assert (m.estimate.method, m.estimate.prior, m.n, m.rows) == ("monotone", 0.0, 300, 300)
    np.testing.assert_allclose(m.mean("x"), Z[:, :P].mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(m.cov("x"), np.cov(Z[:, :P].T), rtol=1e-11)
    slopes = [np.linalg.solve(a.cov("x"), a.cov("x", "y")) for a in (m, c)]
    np.testing.assert_allclose(slopes[0], slopes[1], atol=1e-11)
    rests = [a.cov("y") - a.cov("y", "x") @ b for a, b in zip((m, c), slopes, strict=True)]
    np.testing.assert_allclose(rests[0], rests[1], atol=1e-10)
    starts = [a.mean("y") - a.mean("x") @ b for a, b in zip((m, c), slopes, strict=True)]
    np.testing.assert_allclose(starts[0], starts[1], atol=1e-10)


def test_one_column_each_has_the_estimate_of_the_textbook() -> None:
    # Little and Rubin (2002), section 7.2: mu_y = ybar + b (mu_x - xbar)
    x, y = Z[:, 0], np.where(np.arange(300) < 200, Z[:, 5], NAN)
    m = Moments.from_data(x=x, y=y, missing="em")
    b = np.cov(x[:200], y[:200])[0, 1] / x[:200].var(ddof=1)
    assert float(m.mean("y")[0]) == pytest.approx(y[:200].mean() + b * (x.mean() - x[:200].mean()))
    rest = y[:200].var(ddof=1) - b**2 * x[:200].var(ddof=1)
    assert float(m.cov("y")[0, 0]) == pytest.approx(rest + b**2 * x.var(ddof=1))


@pytest.mark.parametrize("prior", [0.0, 5.0])
@pytest.mark.parametrize("name", ["x_only", "three_steps"])
def test_em_goes_to_the_closed_form_where_there_is_one(name: str, prior: float) -> None:
    m = moments(SHAPES[name]())
    found = maximum(m, prior)
    assert found.method == "monotone"
    problem = Problem.of(m.sums_by_pattern(), m.widths)
    point, _, _, converged = em(problem, prior, 1e-12, 5000)
    assert converged
    iterated = problem.restored(*point, 0.0)
    np.testing.assert_allclose(iterated.mean, found.sums.mean, rtol=1e-9)
    np.testing.assert_allclose(iterated.matrix, found.sums.matrix, rtol=1e-7, atol=1e-6)


# -------------------------------------------------------------------------------------- EM
@pytest.mark.slow
@pytest.mark.parametrize("prior", [0.0, 8.0])
@pytest.mark.parametrize("name", ["scattered", "both_alone", "three_steps"])
def test_the_estimate_is_what_a_numerical_maximiser_finds(name: str, prior: float) -> None:
    rows = SHAPES[name]()[:60, [0, 1, 4]]  # two columns of x, one of y
    m = Moments.from_data(x=rows[:, :2], y=rows[:, 2:], missing="em")
    found = maximum(m, prior).sums
    rows = rows[~np.isnan(rows).all(axis=1)]
    n, d = len(rows), 3
    blocks = [rows[:, :2], rows[:, 2:]]
    target = np.repeat([np.nanvar(b, axis=0).mean() for b in blocks], [2, 1])

    def loss(theta: Any) -> float:
        L = np.zeros((d, d))
        L[np.tril_indices(d)] = theta[d:]
        C = L @ L.T
        penalty = np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, np.diag(target)))
        return (-log_likelihood(rows, theta[:d], C) + 0.5 * prior * penalty) / n

    start = np.r_[np.nanmean(rows, axis=0), np.diag(np.nanstd(rows, axis=0))[np.tril_indices(d)]]
    best = scipy.optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-7})
    L = np.zeros((d, d))
    L[np.tril_indices(d)] = best.x[d:]
    np.testing.assert_allclose(found.mean, best.x[:d], atol=1e-4)
    np.testing.assert_allclose(found.matrix / n, L @ L.T, atol=2e-3)
    own = loss(np.r_[found.mean, np.linalg.cholesky(found.matrix / n)[np.tril_indices(d)]])
    assert own <= best.fun + 1e-10


@pytest.mark.parametrize("prior", [0.0, 20.0])
@pytest.mark.parametrize("name", ["scattered", "both_alone"])
def test_the_penalised_likelihood_never_falls_and_is_that_of_the_rows(
    name: str, prior: float
) -> None:
    rows = SHAPES[name]()
    m = moments(rows)
    found = maximum(m, prior)
    path = np.array(found.log_likelihood)
    assert found.converged
    assert len(path) > 3
    assert (np.diff(path) > -1e-9 * np.abs(path[-1])).all()
    if not prior:
        C = found.sums.matrix / found.sums.n
        assert path[-1] == pytest.approx(log_likelihood(rows, found.sums.mean, C), rel=1e-9)


def test_em_that_does_not_converge_says_so() -> None:
    m = moments(scattered())
    with pytest.warns(ConvergenceWarning, match="did not converge in 3 iterations"):
        found = missing.estimate(m.sums_by_pattern(), m.names, m.widths, max_iter=3)
    assert not found.converged


@pytest.mark.ordinary
def test_scattered_entries_are_worth_far_more_than_the_complete_rows() -> None:
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        L = rng.normal(size=(8, 8)) + 2 * np.eye(8)
        truth = L.T @ L
        rows = rng.normal(size=(200, 8)) @ L
        rows[rng.random(rows.shape) < 0.2] = NAN
        m = Moments.from_data(x=rows[:, :5], y=rows[:, 5:], missing="em")
        found, dropped = joint(m)[1], joint(m.complete_rows())[1]  # type: ignore[arg-type]
        errors.append([np.linalg.norm(C - truth) for C in (found, dropped)])
    ours, dropping = np.mean(errors, axis=0)
    assert ours < 0.5 * dropping


@pytest.mark.ordinary
@settings(max_examples=4)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_units_change_the_estimate_as_they_change_the_rows(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows, unit = scattered(0.15, seed), scale * rng.uniform(0.5, 2, D)
    mean, C = joint(moments(rows))
    mean_2, C_2 = joint(moments(rows * unit + 3 * unit))
    np.testing.assert_allclose(mean_2 / unit, mean + 3, atol=1e-8)
    np.testing.assert_allclose(C_2 / np.outer(unit, unit), C, atol=1e-7 * np.abs(C).max())


# ---------------------------------------------------------------------------------- prior
def test_a_prior_comes_in_only_where_rows_are_scarce() -> None:
    assert moments(x_only(3 * D + 1)).estimate.prior == 0  # type: ignore[union-attr]
    few = moments(x_only(D))
    assert few.estimate.prior > 0  # type: ignore[union-attr]
    assert np.linalg.eigvalsh(joint(few)[1]).min() > 0
    assert moments(both_alone()).estimate.prior == 0  # type: ignore[union-attr]


def test_a_first_gap_moves_moments_of_few_rows_little() -> None:
    """The whole prior, of about twice as many pseudo-rows as rows, moved them by a half."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(60, 1))
    rows = rng.normal(size=(60, 35))
    rows[:, :8] += z
    full = np.cov(rows.T)
    before = 0.0
    for gaps in (1, 3, 6):
        holed = rows.copy()
        holed[np.arange(gaps), 20 + np.arange(gaps)] = np.nan
        m = Moments.from_data(x=holed[:, :20], y=holed[:, 20:], missing="em")
        moved = np.linalg.norm(m.sums.matrix / (m.n - 1) - full) / np.linalg.norm(full)
        assert before < moved < 0.15 * gaps
        before = moved
    holed[:20, 34] = np.nan
    m = Moments.from_data(x=holed[:, :20], y=holed[:, 20:], missing="em")
    found = Problem.of(m.sums_by_pattern(), m.widths)
    assert m.estimate.prior == pytest.approx(evident_prior(found))


@pytest.mark.ordinary
def test_with_few_gaps_a_part_of_the_prior_is_nearer_to_the_truth_than_none_or_all() -> None:
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        z, rows = rng.normal(size=(60, 2)), rng.normal(size=(60, 35))
        truth = np.eye(35)
        for k, at in enumerate(([0, 1, 2, 20, 21], [3, 4, 5, 22, 23, 24])):
            rows[:, at] += z[:, k : k + 1]
            truth[np.ix_(at, at)] += 1
        rows[rng.random(rows.shape) < 0.01] = np.nan
        m = Moments.from_data(x=rows[:, :20], y=rows[:, 20:], missing="em")
        whole = evident_prior(Problem.of(m.sums_by_pattern(), m.widths))
        found = [m.sums, maximum(m, 0.0).sums, maximum(m, whole).sums]
        each = [s.matrix / (s.n - 1) - truth for s in found]
        errors.append(np.linalg.norm(each, axis=(1, 2)) / np.linalg.norm(truth))
    part, none, all_of_it = np.mean(errors, axis=0)
    assert part < 0.95 * all_of_it
    assert part < 0.9 * none


def test_the_prior_is_the_one_of_greatest_evidence() -> None:
    rng = np.random.default_rng(0)
    found = {}
    for name, spread in (("alike", 0.05), ("apart", 2.0)):
        values = np.exp(spread * rng.normal(size=10))
        rows = rng.normal(size=(25, 10)) * np.sqrt(values)
        rows = rows @ np.linalg.qr(rng.normal(size=(10, 10)))[0]
        m = Moments.from_data(x=np.r_[rows, rows + NAN], y=np.r_[rows, rows][:, :1], missing="em")
        m = Moments.from_data(x=rows, missing="em") + m.select("x")
        found[name] = evident_prior(Problem.of([(np.ones(10, bool), m.sums)], [10]))
    assert found["alike"] > 10 * found["apart"]


def test_collinear_columns_get_a_prior_instead_of_a_likelihood_without_maximum() -> None:
    rows = scattered()
    rows = np.c_[rows, rows[:, :1] * 2]
    m = Moments.from_data(x=rows[:, :P], y=rows[:, P:], missing="em")
    assert m.estimate.converged  # type: ignore[union-attr]
    assert m.estimate.prior > 0  # type: ignore[union-attr]
    C = joint(m)[1]
    assert C[0, -1] / np.sqrt(C[0, 0] * C[-1, -1]) > 0.9


def test_constant_columns_stay_constant() -> None:
    for name in SHAPES:
        rows = SHAPES[name]()
        rows[:, 1] = np.where(np.isnan(rows[:, 1]), NAN, 7.0)
        m = moments(rows)
        assert float(m.mean("x")[1]) == pytest.approx(7.0)
        assert bool(m.constant("x")[1])
        assert not np.any(m.cov("x")[1])
        rest = [j for j in range(D) if j != 1]
        alone = Moments.from_data(x=rows[:, [0, 2, 3]], y=rows[:, P:], missing="em")
        C = joint(m)[1][np.ix_(rest, rest)]
        np.testing.assert_allclose(C, joint(alone)[1], atol=1e-8 * np.abs(C).max())


# ---------------------------------------------------------------- merging, folds, weights
@pytest.mark.ordinary
@shape
def test_neither_order_nor_batches_matter(shape: str) -> None:
    rows = SHAPES[shape]()
    whole = moments(rows)
    order = np.random.default_rng(5).permutation(300)
    assert_same(moments(rows[order]), whole)
    cuts = [0, 1, 2, 40, 41, 200, 300]
    parts = [rows[a:b] for a, b in itertools.pairwise(cuts)]
    merged = functools.reduce(operator.add, (moments(p) for p in parts))
    assert_same(merged, whole)
    batches = ((p[:, :P], p[:, P:]) for p in parts)
    assert_same(Moments.from_batches(batches, missing="em"), whole)
    updated = moments(parts[0])
    for p in parts[1:]:
        updated.update(x=p[:, :P], y=p[:, P:], missing="em")
    assert_same(updated, whole)


@shape
def test_weights_are_repeated_rows(shape: str) -> None:
    rows = SHAPES[shape]()
    found = moments(rows, sample_weight=W)
    expected = moments(np.repeat(rows, W.astype(int), axis=0))
    assert found.n == expected.n == W.sum()
    for a, b in zip(joint(found), joint(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.ordinary
@shape
def test_training_moments_of_folds_are_those_of_the_rows(shape: str) -> None:
    rows = SHAPES[shape]()
    folds = Moments.folds(cv=3, x=rows[:, :P], y=rows[:, P:], missing="em")
    for k, train in enumerate(training_moments(folds)):
        assert_same(train, moments(rows[np.arange(300) % 3 != k]))


def test_complete_and_incomplete_moments_merge_in_any_order() -> None:
    rows = x_only()
    a, b = Moments.from_data(x=Z[:50, :P], y=Z[:50, P:]), moments(rows[50:])
    whole = moments(np.r_[Z[:50], rows[50:]])
    assert_same(a + b, whole)
    assert_same(b + a, whole)
    swapped = Moments.from_data(y=rows[50:, P:], x=rows[50:, :P], missing="em")
    assert_same(a + swapped, whole)


def test_empty_rows_do_not_count_but_are_dealt_to_folds() -> None:
    rows = np.insert(scattered(), [3, 100, 250], NAN, axis=0)
    m = moments(rows)
    at = ~np.isnan(rows).all(axis=1)
    assert m.rows == at.sum()
    assert_same(m, moments(rows[at]))
    gaps = np.full((10, D), NAN)
    only = moments(np.r_[Z, gaps])
    assert only.incomplete
    assert_same(only, moments(Z))
    assert only.ledoit_wolf("x") == pytest.approx(moments(Z).ledoit_wolf("x"))


@shape
def test_patterns_are_the_moments_of_their_rows(shape: str) -> None:
    rows = SHAPES[shape]()
    m = moments(rows)
    found = m.patterns()
    masks = ~np.isnan(rows)
    assert len(found) == len(np.unique(masks[masks.any(axis=1)], axis=0))
    for p in found:
        mine = rows[(masks == p.observed).all(axis=1)][:, p.observed]
        assert (p.rows, p.n) == (len(mine), len(mine))
        np.testing.assert_allclose(p.mean, mine.mean(axis=0), rtol=1e-12)
        apart = mine - mine.mean(axis=0)
        np.testing.assert_allclose(p.scatter, apart.T @ apart, atol=1e-9)
    complete = m.complete_rows()
    assert complete is not None
    assert complete.rows == masks.all(axis=1).sum()
    assert not complete.incomplete


def test_there_may_be_no_complete_row() -> None:
    rows = Z.copy()
    rows[::2, 0] = NAN
    rows[1::2, 5] = NAN
    m = moments(rows)
    assert m.complete_rows() is None
    assert m.estimate is not None
    assert np.isfinite(joint(m)[1]).all()


def test_a_selection_is_what_its_blocks_alone_would_give() -> None:
    rows = scattered()
    m = Moments.from_data(x=rows[:, :2], y=rows[:, 2:5], z=rows[:, 5:], missing="em")
    for names in (("y", "x"), ("x",), ("z", "y", "x")):
        blocks = {"x": rows[:, :2], "y": rows[:, 2:5], "z": rows[:, 5:]}
        expected = Moments.from_data(**{k: blocks[k] for k in names}, missing="em")
        found = m.select(*names)
        assert (found.names, found.rows) == (expected.names, expected.rows)
        assert_same(found, expected)
    partial = m.partial_out("z")
    assert not partial.incomplete
    S = joint(m)[1]
    schur = S[:5, :5] - S[:5, 5:] @ np.linalg.solve(S[5:, 5:], S[5:, :5])
    np.testing.assert_allclose(joint(partial)[1], schur, atol=1e-9)


@shape
def test_incomplete_moments_save_load_and_pickle(shape: str, tmp_path: Path) -> None:
    m = moments(np.r_[SHAPES[shape](), np.full((2, D), NAN)], sample_weight=np.r_[W, 1, 1])
    m.save(tmp_path / "m.npz")
    for again in (Moments.load(tmp_path / "m.npz"), pickle.loads(pickle.dumps(m))):
        assert again.incomplete
        assert again.rows_seen == m.rows_seen == 302
        assert_same(again, m, 0)
        assert_same(again + moments(Z), m + moments(Z), 1e-12)


def test_files_of_the_first_version_still_load(tmp_path: Path) -> None:
    m = moments(Z)
    m.save(tmp_path / "m.npz")
    fields = dict(np.load(tmp_path / "m.npz"))
    assert int(fields["version"]) == 2
    fields["version"] = np.array(1)
    np.savez(tmp_path / "old.npz", **fields)
    assert_same(Moments.load(tmp_path / "old.npz"), m, 0)


# --------------------------------------------------------------------- what rows come in
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_every_dtype_gives_the_estimate_in_float64(dtype: str) -> None:
    rows = (scattered() / 8).astype(dtype)
    found, expected = moments(rows), moments(rows.astype(float))
    assert found.cov("x").dtype == np.float64
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(joint(found)[1], joint(expected)[1], atol=tolerance)


def test_frames_lists_integers_and_sparse_blocks_come_in() -> None:
    rows = scattered()
    frame = pd.DataFrame(rows[:, :P], dtype="Float64")
    frame = frame.mask(frame.isna(), pd.NA)
    counts = (Z[:, P:] * 2).astype(int)
    expected = Moments.from_data(x=rows[:, :P], y=counts.astype(float), missing="em")
    objects = [[None if np.isnan(v) else v for v in row] for row in rows[:, :P].tolist()]
    for x in (frame, objects, scipy.sparse.csr_matrix(rows[:, :P])):
        assert_same(Moments.from_data(x=x, y=counts, missing="em"), expected)


@pytest.mark.ordinary
def test_rows_on_a_disk_are_read_once_and_run_by_run(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "CHUNK_BYTES", 1)  # runs of the least length, 1024 rows
    rows = np.tile(np.r_[scattered(), both_alone(), x_only()], (5, 1))
    np.save(tmp_path / "x.npy", rows[:, :P])
    np.save(tmp_path / "y.npy", rows[:, P:])
    seen = []

    class Counted:
        def __init__(self, path: Path) -> None:
            self._a = np.load(path, mmap_mode="r")
            self.shape, self.dtype, self.ndim = self._a.shape, self._a.dtype, 2

        def __getitem__(self, take: Any) -> Any:
            out = self._a[take]
            seen.append(len(out))
            return out

    x, y = (Counted(tmp_path / f"{name}.npy") for name in "xy")
    assert_same(Moments.from_data(x=x, y=y, missing="em"), moments(rows))
    assert max(seen) <= 1024
    assert sum(seen) == 2 * len(rows)
    model = CCA(2, missing="em").fit(x, y)
    np.testing.assert_allclose(model.transform(x), model.transform(rows[:, :P]), atol=1e-10)


@pytest.mark.ordinary
@pytest.mark.parametrize("name", PLACES[1:])
@pytest.mark.parametrize("rows", ["x_only", "both_alone"])
def test_everything_stays_in_its_array_library(name: str, rows: str) -> None:
    place = Place(name)
    a = SHAPES[rows]()
    expected = CCA(2, shrinkage=0.1, missing="em").fit(a[:, :P], a[:, P:])
    x, y = place(a[:, :P]), place(a[:, P:])
    found = CCA(2, shrinkage=0.1, missing="em").fit(x, y)
    assert place.owns(found.x_weights_)
    np.testing.assert_allclose(to_numpy(found.x_weights_), expected.x_weights_, atol=1e-8)
    for u, v in zip(found.transform(x, y), expected.transform(a[:, :P], a[:, P:]), strict=True):
        assert place.owns(u)
        np.testing.assert_allclose(to_numpy(u), v, atol=1e-8)
    assert found.score(x, y) == pytest.approx(expected.score(a[:, :P], a[:, P:]))
    assert place.owns(found.moments_.patterns()[0].mean)
    assert place.owns(Moments.folds(x=x, y=y, missing="em")[0].cov("x"))


# ---------------------------------------------------------------------------- bad input
def test_what_cannot_be_known_raises_one_sentence() -> None:
    rows = scattered()
    column = rows.copy()
    column[:, P + 1] = NAN
    with pytest.raises(ValueError, match=r"^column 1 of y is NaN in every row: drop it$"):
        _ = moments(column).cov("x")
    block = rows.copy()
    block[:, :P] = NAN
    with pytest.raises(ValueError, match=r"^x is NaN in every row"):
        _ = moments(block).cov("y")
    apart = Z.copy()
    apart[:150, :P] = NAN
    apart[150:, P:] = NAN
    for fit in (lambda: moments(apart).cov("x"), lambda: em_cca().fit(apart[:, :P], apart[:, P:])):
        with pytest.raises(ValueError, match=r"^x and y are never observed in the same row"):
            fit()
    with pytest.raises(ValueError, match="missing must be 'error' or 'em'"):
        Moments.from_data(x=Z, missing="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scatter"):
        Moments.from_data(x=Z, missing="em", form="root")


def test_too_many_patterns_name_the_ways_out(monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 12))
    rows[rng.random(rows.shape) < 0.5] = NAN
    with pytest.raises(ValueError, match=r"more than 512 patterns.*impute.*drop.*blocks"):
        Moments.from_data(x=rows, missing="em")
    a, b = moments(scattered(0.3)[:40]), moments(scattered(0.3)[40:80])
    most = max(len(m.patterns()) for m in (a, b))
    monkeypatch.setattr(_patterns, "MAX_PATTERNS", most)
    with pytest.raises(ValueError, match=f"more than {most} patterns"):
        a + b


def test_nan_is_an_error_unless_asked_for_and_infinity_always_is() -> None:
    rows = scattered()
    for call in (CCA().fit, lambda x, y: Moments.from_data(x=x, y=y), CCA().partial_fit):
        with pytest.raises(ValueError, match=r"x has .* NaN .*rows first, or set missing='em'$"):
            call(rows[:, :P], rows[:, P:])
    fitted = CCA().fit(Z[:, :P], Z[:, P:])
    with pytest.raises(ValueError, match=r"NaN.* or set missing='em'$"):
        fitted.transform(rows[:, :P])
    rows[7, 2], rows[9, 0] = np.inf, -np.inf
    match = (
        "x has 2 infinite values, the first at row 7, column 2: drop or impute those rows first$"
    )
    for kwargs in ({}, {"sample_weight": W}):
        with pytest.raises(ValueError, match=match):
            moments(rows, **kwargs)
    with pytest.raises(ValueError, match=r"(?i)x has 2 infinite values, the first at row 7"):
        em_cca().fit(Z[:, :P], Z[:, P:]).transform(rows[:, :P])
    with pytest.raises(ValueError, match="solver='svd'"):
        CCA(missing="em", solver="svd").fit(Z[:, :P], Z[:, P:])


# --------------------------------------------------------------------------- estimators
def em_cca(**kwargs: Any) -> CCA:
    return CCA(missing="em", **kwargs)


MODELS = [
    {}, {"n_components": 2, "shrinkage": 0.3}, {"shrinkage": "auto"}, {"shrinkage": "cv", "cv": 3},
    {"scale": True, "shrinkage": (0.1, 0.4)}, {"scale": True, "shrinkage": "cv", "cv": 3},
]  # fmt: skip
models = pytest.mark.parametrize("kwargs", MODELS, ids=str)


@pytest.mark.ordinary
@pytest.mark.parametrize("kwargs", [{}, {"shrinkage": "cv", "cv": 2}], ids=str)
@shape
@pytest.mark.parametrize("weights", [W])
def test_fit_and_score_are_those_of_the_moments(shape: str, kwargs: Any, weights: Any) -> None:
    n = 150 if kwargs else 300  # fewer patterns where each is solved for many candidates
    rows, weights = SHAPES[shape]()[:n], weights[:n]
    X, Y = rows[:, :P], rows[:, P:]
    w = {"sample_weight": weights}
    a = em_cca(**kwargs).fit(X, Y, **w)
    parts = Moments.folds(cv=2, x=X, y=Y, missing="em", **w)
    b = em_cca(**kwargs).fit_moments(parts if a._open_parameters() else moments(rows, **w))
    c = em_cca(**kwargs)
    for at in (slice(0, n - 123), slice(n - 123, None)):
        c.partial_fit(X[at], Y[at], weights[at])
    for other in (b, c):
        np.testing.assert_allclose(other.x_weights_, a.x_weights_, atol=1e-9)
        np.testing.assert_allclose(other.correlations_, a.correlations_, atol=1e-10)
        assert other.shrinkage_ == pytest.approx(a.shrinkage_, abs=1e-10)
    held_out = moments(rows, **w)
    assert a.score(X, Y, **w) == pytest.approx(a.score_moments(held_out), abs=1e-10)


def test_a_score_is_that_of_the_complete_rows_where_there_are_some() -> None:
    rows = scattered()
    complete = rows[~np.isnan(rows).any(axis=1)]
    model = em_cca().fit(rows[:, :P], rows[:, P:])
    expected = model.score(complete[:, :P], complete[:, P:])
    assert model.score(rows[:, :P], rows[:, P:]) == pytest.approx(expected, abs=1e-12)
    holes = rows[np.isnan(rows).any(axis=1)]
    assert np.isfinite(model.score(holes[:, :P], holes[:, P:]))


@models
def test_what_is_missing_is_conditioned_out_of_predictions(kwargs: Any) -> None:
    rows = x_only()
    model = em_cca(**{**kwargs, "n_components": None}).fit(rows[:, :P], rows[:, P:])
    sx, sy = model.shrinkage_
    m = model._total().shrunk((sx, sy), scale=model.scale).unshrunk
    mean, C = joint(m)
    variance = np.diag(C) if model.scale else np.repeat([np.trace(C[:P, :P]) / P, 0], [P, Q])
    C[:P, :P] = (1 - sx) * C[:P, :P] + sx * np.diag(variance[:P])
    C[:P, P:] *= ((1 - sx) * (1 - sy)) ** 0.5
    query = Z[:30, :P].copy()
    query[np.random.default_rng(0).random(query.shape) < 0.4] = NAN
    query[0] = NAN
    for row, found in zip(query, model.predict(query), strict=True):
        o = np.flatnonzero(~np.isnan(row))
        slopes = np.linalg.solve(C[np.ix_(o, o)], C[o, P:])
        np.testing.assert_allclose(found, mean[P:] + (row[o] - mean[o]) @ slopes, atol=1e-9)


def test_every_call_takes_rows_with_nan() -> None:
    rows = scattered()
    X, Y = rows[:, :P], rows[:, P:]
    model = em_cca(n_components=2).fit(X, Y)
    filled = model._filled(X, "x")
    at = ~np.isnan(X)
    np.testing.assert_array_equal(filled[at], X[at])
    np.testing.assert_array_equal(model.transform(X), model.transform(filled))
    for found in (
        model.predict(X), model.fuse(X, Y), model.embed(X), model.similarity(X[:5], Y),
        *model.transform(X, Y), model.transform(scipy.sparse.csr_matrix(X)),
        model.transform(pd.DataFrame(X)), model.transform(X.astype(np.float32)),
    ):  # fmt: skip
        assert np.isfinite(found).all()
    assert model.transform(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(model.transform(np.full((1, P), NAN)), np.zeros((1, 2)), atol=1e-12)
    one = em_cca().fit(X, Y[:, 0])
    assert one.predict(X).shape == (300,)


@given(seed=st.integers(0, 2**16))
def test_filling_by_either_solve_is_the_conditional_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    L = rng.normal(size=(9, 9))
    C, mean = L @ L.T + np.eye(9), rng.normal(size=9)
    rows = rng.normal(size=(12, 9))
    rows[rng.random(rows.shape) < rng.uniform(0.1, 0.9)] = NAN
    for row, found in zip(rows, Filler(mean, C)(rows), strict=True):
        o, lost = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        slopes = np.linalg.lstsq(C[np.ix_(o, o)], C[np.ix_(o, lost)], rcond=None)[0]
        np.testing.assert_allclose(found[o], row[o])
        np.testing.assert_allclose(found[lost], mean[lost] + (row[o] - mean[o]) @ slopes)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("shrinkage", [(0.3, 0.3), (0.05, 0.6)])
def test_shrunken_pairs_keep_their_regression_among_rows_of_x(shrinkage: Any, scale: bool) -> None:
    rows = x_only(60)
    pairs = rows[~np.isnan(rows).any(axis=1)]
    m = moments(rows).shrunk(shrinkage, scale=scale).unshrunk
    c = Moments.from_data(x=pairs[:, :P], y=pairs[:, P:])
    sx, sy = shrinkage

    def slopes(m: Moments, V: Any) -> Any:
        C = m.cov("x")
        target = np.diag(V.var(axis=0, ddof=1)) if scale else np.eye(P) * V.var(0, ddof=1).mean()
        C = (1 - sx) * C + sx * target
        return np.linalg.solve(C, ((1 - sx) * (1 - sy)) ** 0.5 * m.cov("x", "y"))

    np.testing.assert_allclose(slopes(m, Z[:, :P]), slopes(c, pairs[:, :P]), atol=1e-9)
    np.testing.assert_allclose(m.cov("x"), np.cov(Z[:, :P].T), rtol=1e-10)
    complete = Moments.from_data(x=Z[:, :P], y=Z[:, P:])
    assert complete.shrunk(shrinkage).unshrunk is complete


@pytest.mark.ordinary
def test_a_search_passes_missing_entries_on() -> None:
    rows = scattered()
    X, Y = rows[:, :P], rows[:, P:]
    search = MomentsSearchCV(em_cca(n_components=2), {"shrinkage": [0.01, 0.3]}, cv=4).fit(X, Y)
    assert search.transform(X).shape == (300, 2)
    direct = clone(search.best_estimator_).fit(X, Y)
    np.testing.assert_allclose(search.best_estimator_.x_weights_, direct.x_weights_, atol=1e-9)
    with pytest.raises(ValueError, match="NaN"):
        MomentsSearchCV(CCA(), {"shrinkage": [0.1, 0.3]}).fit(X, Y)


def test_early_batches_that_tell_of_one_view_are_only_kept() -> None:
    rows = Z.copy()
    rows[:100, P:] = NAN
    model = em_cca(n_components=2)
    model.partial_fit(rows[:100, :P], rows[:100, P:])
    assert not model.__sklearn_is_fitted__()
    model.partial_fit(rows[100:, :P], rows[100:, P:])
    whole = em_cca(n_components=2).fit(rows[:, :P], rows[:, P:])
    np.testing.assert_allclose(model.x_weights_, whole.x_weights_, atol=1e-10)


@pytest.mark.ordinary
def test_fits_to_incomplete_rows_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in SHAPES:
            rows = SHAPES[name]()
            em_cca(shrinkage="cv", cv=2).fit(rows[:, :P], rows[:, P:])


# ------------------------------------------------------------- every model of moments
def _holes(rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Three views of one latent, and the same with scattered holes and half a view missing."""
    z = rng.normal(size=(400, 3))
    whole = [z @ rng.normal(size=(3, p)) + 0.5 * rng.normal(size=(400, p)) for p in (5, 4, 3)]
    holes = [v.copy() for v in whole]
    holes[0][rng.random((400, 5)) < 0.1] = np.nan
    holes[1][200:] = np.nan
    return whole, holes


@pytest.mark.ordinary
@pytest.mark.parametrize(
    "options",
    [{}, {"method": "gcca", "shrinkage": 0.1},
     pytest.param({"shrinkage": "cv"}, marks=pytest.mark.slow)],
)  # fmt: skip
def test_multiview_cca_takes_rows_with_holes(rng: np.random.Generator, options: Any) -> None:
    whole, holes = _holes(rng)
    found = MultiviewCCA(2, missing="em", cv=3, **options).fit(holes)
    expected = MultiviewCCA(2, cv=3, **options).fit(whole)
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=0.03)
    assert found.score(whole) > expected.score(whole) - 0.02
    blocks = dict(zip(found.view_names_, holes, strict=True))
    m = Moments.from_data(missing="em", **blocks)
    assert found.score(holes) == pytest.approx(found.score_moments(m), abs=1e-12)
    assert all(np.isfinite(u).all() for u in found.transform(holes))
    assert np.isfinite(found.predict([holes[0], None, holes[2]])[1]).all()
    assert np.isfinite(found.fuse(holes)).all()
    parts = MultiviewCCA(2, missing="em", cv=3, **options)
    parts.partial_fit([h[:150] for h in holes]).partial_fit([h[150:] for h in holes])
    np.testing.assert_allclose(parts.correlations_, found.correlations_, atol=1e-9)


@pytest.mark.parametrize("target", ["self", "cross", "joint"])
def test_the_autoencoder_takes_rows_with_holes(rng: np.random.Generator, target: Any) -> None:
    (X, Y, _), (holes, lost, _) = _holes(rng)
    found = LinearAutoencoder(2, target=target, missing="em").fit(holes, lost)
    expected = LinearAutoencoder(2, target=target).fit(X, Y)
    views = (X,) if target == "self" else (X, Y)
    assert found.score(*views) > expected.score(*views) - 0.02
    given = (holes,) if target == "self" else (holes, lost)
    blocks = dict(zip("xy", given, strict=False))
    m = Moments.from_data(missing="em", **blocks)
    assert found.score(*given) == pytest.approx(found.score_moments(m), abs=1e-12)
    assert np.isfinite(found.transform(holes)).all()
    parts = LinearAutoencoder(2, target=target, missing="em")
    parts.partial_fit(holes[:150], lost[:150]).partial_fit(holes[150:], lost[150:])
    np.testing.assert_allclose(parts.encoder_, found.encoder_, atol=1e-9)


@pytest.mark.ordinary
@pytest.mark.parametrize(
    "options",
    [{"alpha": 1.0},
     *(pytest.param(o, marks=pytest.mark.slow) for o in ({}, {"rank": 2}, {"rank": "cv"}))],
)  # fmt: skip
def test_multitask_regression_takes_rows_with_holes(rng: np.random.Generator, options: Any) -> None:
    (X, Y, _), (holes, _, _) = _holes(rng)
    lost = np.where(rng.random(Y.shape) < 0.2, np.nan, Y)
    found = MultitaskRegressor(missing="em", **options).fit(holes, lost)
    expected = MultitaskRegressor(**options).fit(X, Y)
    assert found.score(X, Y) > expected.score(X, Y) - 0.02
    m = Moments.from_data(x=holes, y=lost, missing="em")
    assert found.score(holes, lost) == pytest.approx(found.score_moments(m), abs=1e-12)
    assert found.score_tasks(holes, lost).shape == (4,)
    assert np.isfinite(found.predict(holes)).all()
    parts = MultitaskRegressor(missing="em", **options)
    parts.partial_fit(holes[:150], lost[:150]).partial_fit(holes[150:], lost[150:])
    np.testing.assert_allclose(parts.coef_, found.coef_, atol=1e-8)
    views = {"a": holes[:, :2], "b": holes[:, 2:]}
    of_views = MultitaskRegressor(missing="em", **options).fit(views, lost)
    np.testing.assert_allclose(of_views.coef_, found.coef_, atol=1e-10)
    np.testing.assert_allclose(of_views.predict(views), found.predict(holes), atol=1e-10)
    assert of_views.score(views, lost) == pytest.approx(found.score(holes, lost), abs=1e-10)
    with pytest.raises(ValueError, match="missing='em'"):
        MultitaskRegressor(**options).fit(holes, Y)


def test_nearly_collinear_columns_converge() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 1))
    noise = 1e-3 * rng.normal(size=(300, 2))
    A = np.c_[x, x + noise[:, :1], rng.normal(size=(300, 1))]
    B = x + noise[:, 1:]
    whole = CCA(1).fit(A, B).correlations_
    A[rng.random(A.shape) < 0.2] = np.nan
    B[rng.random(B.shape) < 0.2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = CCA(1, missing="em").fit(A, B)
    np.testing.assert_allclose(found.correlations_, whole, atol=1e-6)


@pytest.mark.ordinary
def test_rows_of_more_patterns_than_a_table_holds_are_transformed() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 14))
    model = CCA(missing="em").fit(X, X[:, :4] + rng.normal(size=(300, 4)))
    rows = np.where(rng.random((900, 14)) < 0.4, np.nan, rng.normal(size=(900, 14)))
    parts = [model.transform(rows[i : i + 100]) for i in range(0, 900, 100)]
    np.testing.assert_allclose(model.transform(rows), np.concatenate(parts), atol=1e-12)


def test_folds_without_a_pair_have_no_score() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    y += X[:, :2]
    y[np.arange(60) % 5 == 2] = np.nan
    with pytest.warns(UserWarning, match=r"in folds 2 .* no row has all of x, y"):
        model = ConditionalGaussian(missing="em").fit(X, y)
    np.testing.assert_array_equal(np.isnan(model.cv_scores_).all(axis=0), np.arange(5) == 2)
    pairs = np.arange(60) % 5 != 2
    folds = PredefinedSplit((np.arange(60) % 5)[pairs])
    expected = ConditionalGaussian(cv=folds).fit(X[pairs], y[pairs])
    kept = np.delete(model.cv_scores_, 2, axis=1)
    np.testing.assert_allclose(kept, expected.cv_scores_, atol=1e-10)
    y[np.arange(60) % 5 != 0] = np.nan
    with pytest.raises(ValueError, match="only fold 0 has rows in which all of x, y"):
        ConditionalGaussian(missing="em").fit(X, y)
