"""Lagged rows and folds of consecutive rows: equal to dense matrices, never across a segment."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score

from cmstats import (
    CCA,
    CrossModalRetriever,
    Moments,
    MomentsSearchCV,
    MultitaskRegressor,
    open_shards,
    write_shards,
)
from cmstats.inference.conformal import held_out_folds
from cmstats.rows import BlockedKFold, lagged
from cmstats.rows.source import take_in_memory

RNG = np.random.default_rng(0)


def dense(X: Any, lags: Any, segments: Any, fill: float = 0.0) -> Any:
    """Lag by lag, row by row."""
    n, p = X.shape
    out = np.full((n, p * len(lags)), fill)
    starts = np.r_[True, np.asarray(segments)[1:] != np.asarray(segments)[:-1]].cumsum()
    for t in range(n):
        for i, lag in enumerate(lags):
            if 0 <= t - lag < n and starts[t - lag] == starts[t]:
                out[t, i * p : (i + 1) * p] = X[t - lag]
    return out


@given(
    n=st.integers(3, 30), p=st.integers(1, 3), seed=st.integers(0, 999),
    lags=st.lists(st.integers(-3, 4), min_size=1, max_size=4, unique=True),
)  # fmt: skip
def test_rows_are_those_of_a_dense_matrix(n: int, p: int, seed: int, lags: Any) -> None:
    rng = np.random.default_rng(seed)
    X, segments = rng.normal(size=(n, p)), np.sort(rng.integers(0, 3, n))
    longest = np.bincount(segments).max()
    if max(map(abs, lags)) >= longest:
        with pytest.raises(ValueError, match="reaches out of every segment"):
            lagged(X, lags, segments)
        return
    expected = dense(X, lags, segments)
    found = lagged(X, lags, segments)
    np.testing.assert_array_equal(np.asarray(found), expected)
    at = rng.permutation(n)[: n // 2 + 1]
    np.testing.assert_array_equal(found[at], expected[at])
    np.testing.assert_array_equal(found[1:n:2], expected[1:n:2])
    empty = dense(X, lags, segments, np.nan)
    np.testing.assert_array_equal(np.asarray(lagged(X, lags, segments, edges="nan")), empty)
    whole = ~np.isnan(empty).any(axis=1)
    if whole.any():
        dropped = lagged(X, lags, segments, edges="drop")
        np.testing.assert_array_equal(np.asarray(dropped), expected[whole])
        np.testing.assert_array_equal(dropped.rows, np.flatnonzero(whole))


def test_a_label_that_comes_again_begins_a_new_segment() -> None:
    found = np.asarray(lagged(np.arange(1.0, 5.0)[:, None], [0, 1], ["a", "b", "b", "a"]))
    np.testing.assert_array_equal(found, [[1, 0], [2, 0], [3, 2], [4, 0]])


@pytest.mark.torch
def test_frames_shards_sparse_rows_and_tensors(tmp_path: Path) -> None:
    X = RNG.normal(size=(40, 2)).astype(np.float32)
    expected = dense(X, [0, 2], np.zeros(40)).astype(np.float32)
    frame = lagged(pd.DataFrame(X, columns=["f0", "env"]), [0, 2])
    assert frame.columns.tolist() == ["f0@0", "env@0", "f0@2", "env@2"]
    np.testing.assert_array_equal(np.asarray(frame), expected)
    write_shards(tmp_path, X, names="x", rows=7)
    from_disk = lagged(open_shards(tmp_path / "x"), [0, 2])
    np.testing.assert_array_equal(from_disk[5:20], expected[5:20])
    named = MultitaskRegressor(alpha=1.0).fit(frame, X)
    assert named.feature_names_in_.tolist() == frame.columns.tolist()
    sparse = lagged(scipy.sparse.csr_array(X), [0, 2])
    np.testing.assert_array_equal(np.asarray(sparse), expected)
    torch = pytest.importorskip("torch")
    tensor = lagged(torch.from_numpy(X), [0, 2])
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    vector = lagged(X[:, 0], 3)
    assert vector.shape == (40, 3)


def test_a_fit_to_a_lazy_source_is_that_to_the_dense_matrix() -> None:
    X, y = RNG.normal(size=(200, 3)), RNG.normal(size=(200, 2))
    cv = BlockedKFold(4, gap=5)
    wide = dense(X, [0, 1, 5], np.zeros(200))
    lazy = lagged(X, [0, 1, 5])
    for model in (CCA(2, shrinkage="cv", cv=cv), MultitaskRegressor(cv=cv)):
        a, b = model.fit(lazy, y), type(model)(**model.get_params()).fit(wide, y)
        np.testing.assert_allclose(a.cv_scores_, b.cv_scores_, atol=1e-10)
        np.testing.assert_allclose(a.predict(lazy), b.predict(wide), atol=1e-10)
    search = MomentsSearchCV(CCA(1), {"shrinkage": [0.1, 0.5]}, cv=cv).fit(lazy, y)
    assert np.isfinite(search.best_score_)


@pytest.mark.parametrize("lags", [[0, 1, 5], [-3, 0, 2], [4]])
def test_scattered_rows_read_only_what_they_need(
    monkeypatch: pytest.MonkeyPatch, lags: list[int]
) -> None:
    X, segments = RNG.normal(size=(900, 2)), np.repeat([0, 1, 2], 300)
    read = []

    def counted(source: Any, rows: Any) -> Any:
        read.append(len(np.arange(len(source))[rows]))
        return take_in_memory(source, rows)

    monkeypatch.setattr("cmstats.rows.series.take_in_memory", counted)
    expected = dense(X, lags, segments)
    for at in ([3, 880, 301], [899, 0, 0], [5], np.arange(0, 900, 7), np.arange(40, 90)):
        found = lagged(X, lags, segments)[np.array(at)]
        np.testing.assert_array_equal(found, expected[at])
        assert read.pop() <= 2 * len(at) * len(lags) + 10


@pytest.mark.slow
def test_a_fit_to_lags_of_a_memory_map_does_not_hold_them(tmp_path: Path) -> None:
    n, p, lags = 1_000_000, 1, 150
    X = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, p))
    X[:] = RNG.standard_normal((n, p), dtype=np.float32)
    X.flush()
    series = np.load(tmp_path / "x.npy", mmap_mode="r")
    y = np.roll(series[:, 0], 3)
    MultitaskRegressor(alpha=1.0).fit(lagged(series[:500], lags), y[:500])
    tracemalloc.start()
    model = MultitaskRegressor(cv=BlockedKFold(3, gap=lags)).fit(lagged(series, lags), y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * p * lags * 4 / 2
    assert model.score(lagged(series[:2000], lags), y[:2000]) > 0.99


def test_the_response_of_a_simulated_system_is_recovered() -> None:
    kernel = np.array([0.0, 1.0, 0.6, -0.3, 0.0])
    runs = np.repeat([0, 1, 2], 800)
    sound = RNG.normal(size=(2400, 1))
    answer = dense(sound, range(5), runs) @ kernel + 0.5 * RNG.normal(size=2400)
    model = MultitaskRegressor(cv=BlockedKFold(5, gap=5)).fit(lagged(sound, 5, runs), answer)
    np.testing.assert_allclose(model.coef_, kernel, atol=0.06)
    ahead = MultitaskRegressor(alpha=0.0).fit(lagged(answer, [0, -1, -2], runs), sound[:, 0])
    assert ahead.score(lagged(answer, [0, -1, -2], runs), sound[:, 0]) > 0.6


def test_folds_have_a_gap_and_part_the_rest() -> None:
    n, gap = 53, 3
    seen = []
    for train, test in BlockedKFold(4, gap=gap).split(np.zeros((n, 2))):
        assert (np.diff(test) == 1).all()
        assert np.abs(train[:, None] - test[None, :]).min() > 2 * gap
        seen.append(test)
    joined = np.concatenate(seen)
    assert len(np.unique(joined)) == len(joined) == n - 2 * gap * 3
    X, y = RNG.normal(size=(n, 2)), RNG.normal(size=n)
    with pytest.warns(UserWarning, match="in the gaps"):
        parts = Moments.folds(x=X, y=y, cv=BlockedKFold(4, gap=gap))
    assert [m.n for m in parts] == [len(s) for s in seen]
    np.testing.assert_allclose(parts[1].mean("x"), X[seen[1]].mean(axis=0))


def test_moments_of_folds_say_that_they_are_without_the_rows_of_the_gaps() -> None:
    X, y = RNG.normal(size=(60, 2)), RNG.normal(size=60)
    with pytest.warns(UserWarning, match="8 rows in the gaps between folds are in none of these"):
        parts = Moments.folds(x=X, y=y, cv=BlockedKFold(3, gap=2))
    assert sum(m.n for m in parts) == 52


@given(
    n=st.integers(12, 60), folds=st.integers(2, 4), gap=st.integers(0, 4), seed=st.integers(0, 99)
)
def test_gaps_do_not_reach_over_the_borders_of_segments(
    n: int, folds: int, gap: int, seed: int
) -> None:
    runs = np.sort(np.random.default_rng(seed).integers(0, 4, n))
    borders = np.linspace(0, n, folds + 1).round().astype(int)[1:-1]
    time = np.arange(n)
    kept = np.ones(n, dtype=bool)
    for b in borders:
        within = (runs == runs[b]) & (runs[b - 1] == runs[b])
        kept &= ~(within & (time >= b - gap) & (time < b + gap))
    expected = [time[a:b][kept[a:b]] for a, b in itertools.pairwise([0, *borders, n])]
    if not all(map(len, expected)):
        with pytest.raises(ValueError, match="leave a fold without rows"):
            [*BlockedKFold(folds, gap=gap, segments=runs).split(np.zeros(n))]
        return
    for k, (train, test) in enumerate(BlockedKFold(folds, gap=gap, segments=runs).split(time)):
        np.testing.assert_array_equal(test, expected[k])
        np.testing.assert_array_equal(train, np.concatenate(expected[:k] + expected[k + 1 :]))


def test_rows_of_weight_zero_are_no_rows_of_a_segment() -> None:
    X, y, runs = RNG.normal(size=(80, 2)), RNG.normal(size=80), np.repeat([0, 1, 2], (30, 30, 20))
    w = np.where(np.arange(80) % 7 == 3, 0.0, 1.0)
    w[runs == 1] = 0
    kept = w > 0
    cv = BlockedKFold(4, gap=2, segments=runs)
    found = MultitaskRegressor(cv=cv).fit(X, y, sample_weight=w)
    cv = BlockedKFold(4, gap=2, segments=runs[kept])
    expected = MultitaskRegressor(cv=cv).fit(X[kept], y[kept])
    np.testing.assert_allclose(found.cv_scores_, expected.cv_scores_)
    np.testing.assert_allclose(found.coef_, expected.coef_)


def test_scikit_learn_takes_the_folds() -> None:
    X, y = RNG.normal(size=(60, 2)), RNG.normal(size=60)
    cv = BlockedKFold(3, gap=2)
    assert len(cross_val_score(Ridge(), X, y, cv=cv)) == 3
    assert GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, cv=cv).fit(X, y).n_splits_ == 3


BAD = {
    "no lag": (lambda: lagged(np.zeros((5, 1)), []), ValueError, "one or more different"),
    "twice": (lambda: lagged(np.zeros((5, 1)), [1, 1]), ValueError, "one or more different"),
    "no number": (lambda: lagged(np.zeros((5, 1)), [0.5]), TypeError, "whole numbers of rows"),
    "zero lags": (lambda: lagged(np.zeros((5, 1)), 0), ValueError, "at least 1"),
    "long": (lambda: lagged(np.zeros((5, 1)), [5]), ValueError, "the longest has 5 rows"),
    "labels": (lambda: lagged(np.zeros((5, 1)), [1], [1, 2]), ValueError, "one label for each"),
    "edges": (lambda: lagged(np.zeros((5, 1)), [1], edges="pad"), ValueError, "edges='pad'"),
    "nothing left": (
        lambda: lagged(np.zeros((5, 1)), [-3, 3], edges="drop"), ValueError, "edges='zero'",
    ),
    "one fold": (lambda: BlockedKFold(1), ValueError, "at least 2"),
    "gap": (lambda: BlockedKFold(3, gap=-1), ValueError, "at least 0"),
    "runs": (
        lambda: CCA(1, shrinkage="cv", cv=BlockedKFold(2, segments=[1, 2])).fit(
            np.zeros((9, 1)), np.zeros((9, 1))
        ), ValueError, "one label for each",
    ),
    "few rows": (lambda: [*BlockedKFold(3, gap=3).split(np.zeros(9))], ValueError, "smaller gap"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str) -> None:
    call, kind, sentence = BAD[case]
    with pytest.raises(kind, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


def test_what_is_cross_fitted_is_not_trained_on_the_rows_of_gaps() -> None:
    cv = BlockedKFold(3, gap=2)
    for (train, test), expected in zip(
        held_out_folds(30, cv, None, 0), cv.split(np.zeros(30)), strict=True
    ):
        np.testing.assert_array_equal(np.sort(train), np.sort(expected[0]))
        np.testing.assert_array_equal(test, expected[1])
    X = RNG.normal(size=(60, 3))
    found = CrossModalRetriever(cv=cv, random_state=0).fit(X, X + RNG.normal(size=(60, 3)))
    assert 0 < found.score_ < 1
