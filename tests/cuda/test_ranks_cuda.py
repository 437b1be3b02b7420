"""The rank-counting CUDA kernels against NumPy: in the simulator, or on a GPU.

The cases are small (at most 500 threads a launch) and of odd sizes.
"""

from __future__ import annotations

import functools

import array_api_compat
import numpy as np
import pytest
from numba import cuda, types

from cmstats.kernels import ranks
from cmstats.kernels._cuda import ranks as room


def tile(rows, columns, dtype, seed=0):
    """Scores with many ties, bounds of the relevant columns, own scores."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, (rows, columns)).astype(dtype)
    lo = np.sort(rng.integers(0, columns + 1, rows))
    hi = np.minimum(lo + rng.integers(0, 4, rows), columns)
    own_x = rng.integers(-2, 4, rows).astype(dtype)
    own_y = rng.integers(-2, 4, columns).astype(dtype)
    j = np.arange(columns)
    relevant = (j >= lo[:, None]) & (j < hi[:, None])
    return scores, lo, hi, own_x, own_y, relevant


shapes = pytest.mark.parametrize(
    ("rows", "columns", "dtype"),
    [(5, 37, np.float32), (1, 1, np.float64), (3, 129, np.float64)],
)


@shapes
def test_best_relevant_scores_equal_numpy(rows, columns, dtype):
    scores, lo, hi, own_x, own_y, relevant = tile(rows, columns, dtype)
    masked = np.where(relevant, scores, -np.inf)
    x, y = cuda.to_device(own_x), cuda.to_device(own_y)
    device = [cuda.to_device(a) for a in (scores, lo, hi)]
    room.launch_own(*device, x, y, threads=32)
    np.testing.assert_array_equal(x.copy_to_host(), np.maximum(own_x, masked.max(axis=1)))
    np.testing.assert_array_equal(y.copy_to_host(), np.maximum(own_y, masked.max(axis=0)))


@shapes
def test_row_counts_equal_numpy_and_add_up(rows, columns, dtype):
    scores, lo, hi, own_x, _, relevant = tile(rows, columns, dtype)
    own = own_x[:, None]
    expected = [
        ((scores > own) & ~relevant).sum(axis=1),
        ((scores == own) & ~relevant).sum(axis=1),
        ((scores == own) & relevant).sum(axis=1),
    ]
    counts = cuda.to_device(np.ones((rows, 3), np.int64))
    device = [cuda.to_device(a) for a in (scores, lo, hi, own_x)]
    for _ in range(2):
        room.launch_count_rows(*device, counts, threads=32)
    np.testing.assert_array_equal(counts.copy_to_host(), 1 + 2 * np.transpose(expected))


@shapes
@pytest.mark.parametrize("chunk", [2, 256])
def test_column_counts_equal_numpy_and_add_up(rows, columns, dtype, chunk):
    scores, lo, hi, _, own, relevant = tile(rows, columns, dtype)
    expected = [
        ((scores > own) & ~relevant).sum(axis=0),
        ((scores == own) & ~relevant).sum(axis=0),
        ((scores == own) & relevant).sum(axis=0),
    ]
    counts = cuda.to_device(np.zeros((columns, 3), np.int64))
    device = [cuda.to_device(a) for a in (scores, lo, hi, own)]
    room.launch_count_columns(*device, counts, threads=32, chunk=chunk)
    np.testing.assert_array_equal(counts.copy_to_host(), np.transpose(expected))


@pytest.mark.ptx
@pytest.mark.parametrize("name", ["own_scores", "count_rows", "count_columns"])
@pytest.mark.parametrize("dtype", [types.float32, types.float64])
def test_kernels_compile(name, dtype, compile_ptx):
    own, bounds = types.Array(dtype, 1, "C"), types.Array(types.int64, 1, "C")
    counts = types.Array(types.int64, 2, "C")
    rest = {
        "own_scores": (own, own),
        "count_rows": (own, counts),
        "count_columns": (own, counts, types.int64),
    }[name]
    signature = (types.Array(dtype, 2, "C"), bounds, bounds, *rest)
    assert compile_ptx(getattr(room, name), signature)


@pytest.mark.parametrize("vectors", [True, False])
def test_the_cupy_route_equals_the_cpu_route(numpy_as_cupy, monkeypatch, vectors):
    rng = np.random.default_rng(0)
    U, V = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (7, 9))
    ids = {"x_ids": rng.integers(0, 4, 7), "y_ids": rng.integers(0, 4, 9)}
    arguments = (U, V) if vectors else (U @ V.T,)
    expected = ranks.partner_counts(*arguments, **ids)
    monkeypatch.setattr(room, "TILE", (4, 5))
    for name in ("launch_own", "launch_count_rows", "launch_count_columns"):
        monkeypatch.setattr(room, name, functools.partial(getattr(room, name), threads=8))
    monkeypatch.setattr(array_api_compat, "is_cupy_namespace", lambda xp: True)
    for side, other in zip(ranks.partner_counts(*arguments, **ids), expected, strict=True):
        np.testing.assert_array_equal(side, other)


def test_cupy_arrays_are_ranked_on_the_device(monkeypatch):
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA GPU")
    monkeypatch.setattr(room, "TILE", (64, 96))
    rng = np.random.default_rng(0)
    U, V = (rng.integers(-3, 4, (n, 8)).astype(np.float32) for n in (150, 400))
    x_ids, y_ids = rng.integers(0, 60, 150), rng.integers(0, 60, 400)
    u, v = cupy.asarray(U), cupy.asarray(V)
    for a, b, c, d in ((u, v, U, V), (u @ v.T, None, U @ V.T, None)):
        got = ranks.partner_counts(a, b, x_ids=x_ids, y_ids=y_ids)
        expected = ranks.partner_counts(c, d, x_ids=x_ids, y_ids=y_ids)
        for side, other in zip(got, expected, strict=True):
            assert isinstance(side.greater, cupy.ndarray)
            np.testing.assert_array_equal(side.ranks().get(), other.ranks())
