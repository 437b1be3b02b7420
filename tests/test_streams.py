"""Blocks of rows out of arrays, memory-maps, and things that slice: read run by run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from cmstats import CCA, Moments, MomentsSearchCV
from cmstats.arrays import check_weights
from cmstats.rows import chunks as streams
from cmstats.rows.chunks import batches, check_blocks, chunks, is_lazy
from cmstats.rows.source import MappedRows

pytestmark = [pytest.mark.ordinary, pytest.mark.usefixtures("two_threads")]


class Rows:
    """Rows behind shape, dtype, ndim and slicing, at most `most` at once."""

    def __init__(self, a: Any, most: int) -> None:
        self._a, self._most = a, most
        self.shape, self.dtype, self.ndim = a.shape, a.dtype, a.ndim

    def __getitem__(self, at: Any) -> Any:
        out = self._a[at]
        if out.shape[0] > self._most:
            raise MemoryError(f"{out.shape[0]} rows asked for at once")
        return out

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise MemoryError("read whole")


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(5000, 6))
    return X, X[:, :4] + rng.normal(size=(5000, 4))


@pytest.fixture(params=["memmap", "h5py", "rows"])
def lazily(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Any:
    """`lazily(a)` holds `a` on disk or behind slices; runs are short."""
    monkeypatch.setattr(streams, "CHUNK_BYTES", 1)  # runs of the least length, 1024 rows
    count = iter(range(100))

    def hold(a: Any) -> Any:
        path = tmp_path / f"{next(count)}"
        if request.param == "memmap":
            np.save(f"{path}.npy", a)
            return np.load(f"{path}.npy", mmap_mode="r")
        if request.param == "h5py":
            h5py = pytest.importorskip("h5py")
            return h5py.File(path, "w").create_dataset("a", data=a)
        return Rows(a, 4096)

    return hold


def test_what_is_read_run_by_run_equals_what_is_in_memory(lazily: Any, views: Any) -> None:
    X, Y = views
    for form in ("scatter", "root"):
        found = Moments.from_data(x=lazily(X), y=lazily(Y), form=form)
        expected = Moments.from_data(x=X, y=Y, form=form)
        np.testing.assert_allclose(found.cov("x", "y"), expected.cov("x", "y"), atol=1e-12)
        assert found.ledoit_wolf("x") == pytest.approx(expected.ledoit_wolf("x"), abs=1e-12)
    folds = Moments.folds(cv=3, x=lazily(X), y=lazily(Y))
    for a, b in zip(folds, Moments.folds(cv=3, x=X, y=Y), strict=True):
        np.testing.assert_allclose(a.cov("x", "y"), b.cov("x", "y"), atol=1e-12)


@pytest.mark.parametrize("parameters", [{}, {"shrinkage": "cv"}, {"solver": "svd"}])
def test_a_fit_run_by_run_equals_one_in_memory(lazily: Any, views: Any, parameters: Any) -> None:
    X, Y = views
    w = np.arange(5000) % 3 + 1.0
    expected = CCA(**parameters).fit(X, Y, sample_weight=w)
    found = CCA(**parameters).fit(lazily(X), lazily(Y), sample_weight=w)
    assert found.shrinkage_ == expected.shrinkage_
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-12)
    np.testing.assert_allclose(found.x_weights_, expected.x_weights_, atol=1e-10)
    np.testing.assert_allclose(found.transform(lazily(X)), expected.transform(X), atol=1e-9)
    assert found.score(lazily(X), lazily(Y)) == pytest.approx(expected.score(X, Y), abs=1e-12)


@pytest.mark.slow
def test_partial_fit_reads_run_by_run(lazily: Any, views: Any) -> None:
    X, Y = views
    for parameters in ({}, {"shrinkage": "cv"}):
        found = CCA(**parameters).partial_fit(lazily(X[:3000]), lazily(Y[:3000]))
        found.partial_fit(lazily(X[3000:]), lazily(Y[3000:]))
        expected = CCA(**parameters).fit(X, Y)
        np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-12)


def test_a_search_reads_run_by_run(lazily: Any, views: Any) -> None:
    X, Y = views
    grid = {"shrinkage": [0.1, 0.5]}
    ids = [(np.flatnonzero(np.arange(5000) % 5 != k), np.arange(k, 5000, 5)) for k in range(5)]
    found = MomentsSearchCV(CCA(2), grid).fit(lazily(X), lazily(Y))
    expected = MomentsSearchCV(CCA(2), grid, cv=ids).fit(X, Y)
    assert found.best_score_ == pytest.approx(expected.best_score_, abs=1e-12)


def test_one_dimensional_y_is_read_run_by_run(lazily: Any, views: Any) -> None:
    X, Y = views
    found = CCA().fit(lazily(X), lazily(Y[:, 0]))
    expected = CCA().fit(X, Y[:, 0])
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-12)
    assert found.predict(X[:3]).shape == (3,)


def test_one_view_on_disk_and_one_in_memory(lazily: Any, views: Any) -> None:
    X, Y = views
    found = CCA().fit(lazily(X), Y)
    np.testing.assert_allclose(found.correlations_, CCA().fit(X, Y).correlations_, atol=1e-12)


def test_values_on_disk_that_are_not_finite_are_located(lazily: Any, views: Any) -> None:
    X, Y = views[0].copy(), views[1]
    X[4000, 3], X[4500, 1] = np.nan, np.inf
    for call in (CCA().fit, CCA().partial_fit, CCA().fit(*views).score):
        with pytest.raises(
            ValueError, match=r"x has 1 NaN and 1 infinite values, the first at row 4000, column 3"
        ):
            call(lazily(X), lazily(Y))


def test_transform_of_values_on_disk_that_are_not_finite_raises(lazily: Any, views: Any) -> None:
    X = views[0].copy()
    X[4000, 3] = np.nan
    with pytest.raises(ValueError, match=r"1 NaN value, the first at row 4000, column 3"):
        CCA().fit(*views).transform(lazily(X))


def test_text_or_complex_values_on_disk_raise(lazily: Any, views: Any) -> None:
    X, Y = views
    for bad in (X * 1j, X.astype("S8")):
        with pytest.raises(ValueError, match=r"(?i)complex|numbers"):
            CCA().fit(lazily(bad), lazily(Y))


def test_lengths_on_disk_that_differ_raise_with_both_shapes(lazily: Any, views: Any) -> None:
    X, Y = views
    with pytest.raises(ValueError, match=r"\(5000, 6\).*\(4999, 4\)"):
        CCA().fit(lazily(X), lazily(Y[1:]))


def test_what_is_lazy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    assert is_lazy(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert is_lazy(Rows(np.eye(3), 1))
    for a in (np.eye(3), [[1.0]], pd.DataFrame(np.eye(3)), scipy.sparse.eye(3, format="csr")):
        assert not is_lazy(a)


def test_runs_part_the_rows_in_order(rng: np.random.Generator) -> None:
    a, w = rng.normal(size=(2500, 2)), rng.random(2500)
    runs = list(chunks([a], w, rows=1000))
    assert [start for start, _, _ in runs] == [0, 1000, 2000]
    assert np.array_equal(np.concatenate([part for _, (part,), _ in runs]), a)
    assert np.array_equal(np.concatenate([v for _, _, v in runs]), w)


def test_batches_are_tuples_or_dicts_and_empty_ones_are_passed_over() -> None:
    a = np.eye(2)
    found = list(batches([(a, a), {"x": a, "y": a}, (a[:0], a[:0])]))
    assert len(found) == 2
    assert all(list(b) == ["x", "y"] for b in found)


@pytest.mark.parametrize(
    ("second", "error"),
    [
        ((np.eye(2), np.eye(3)[:2]), ValueError),
        ((np.eye(2),), ValueError),
        ((np.eye(2), np.eye(2), np.eye(2)), ValueError),
        ((np.eye(2), np.eye(3)), ValueError),
        ({"x": np.eye(2), "z": np.eye(2)}, ValueError),
        ({}, ValueError),
        (np.eye(2), TypeError),
    ],
)
def test_a_batch_that_does_not_fit_is_named_by_its_number(second: Any, error: Any) -> None:
    with pytest.raises(error, match="batch 1"):
        list(batches([(np.eye(2), np.eye(2)), second]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"shape \(2,\), expected \(3,\)"),
        ([[1.0], [1.0], [1.0]], "shape"),
        ([1.0, -1.0, 1.0], "negative"),
        ([1.0, np.nan, 1.0], "NaN"),
        ([1.0, np.inf, 1.0], "infinite"),
        ([0.0, 0.0, 0.0], "zero everywhere"),
        (["a", "b", "c"], "numbers"),
    ],
)
def test_weights_that_are_not_frequencies_raise_one_sentence(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_weights(weights, 3)


def test_blocks_need_equally_many_rows() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(3, 3\) and y has shape \(2, 2\)"):
        check_blocks({"x": np.eye(3), "y": np.eye(2)})


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_maps_do_not_stay_in_memory(tmp_path: Path, mode: Any) -> None:
    Z = np.arange(40_000.0 * 100).reshape(40_000, 100)
    np.save(tmp_path / "z.npy", Z)
    mapped = np.load(tmp_path / "z.npy", mmap_mode=mode)
    if mode == "c":
        mapped[7] = 3.0  # a change that is this process's own
        Z[7] = 3.0
    parts = [part for _, (part,), _ in streams.chunks([mapped], rows=10_000)]
    np.testing.assert_array_equal(np.concatenate(parts), Z)
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    held = next(
        int(next(row for row in lines if row.startswith("Rss:")).split()[1])
        for line in lines
        if line.endswith("z.npy")
    )
    assert (held < 10_000) == (mode != "c")


def test_mapped_rows_of_a_span_count_from_its_first_row() -> None:
    class Squares:
        shape, dtype, ndim = (10,), np.dtype(np.int64), 1

        def __getitem__(self, rows: Any) -> Any:
            return np.arange(10)[rows] ** 2

    rows = MappedRows(Squares(), lambda part, start: part + 100 * start, span=slice(4, 9))
    assert is_lazy(rows)
    assert rows.shape == (5, 1)
    np.testing.assert_array_equal(rows[:], [[16], [25], [36], [49], [64]])
    np.testing.assert_array_equal(rows[3:8], [[349], [364]])
    np.testing.assert_array_equal(rows[np.array([4, 0])], [[64], [16]])
    parts = [part for _, (part,), _ in chunks([MappedRows(Squares(), span=slice(1, 4))], rows=2)]
    np.testing.assert_array_equal(np.concatenate(parts), [[1], [4], [9]])
