"""The covariance kernel: accuracy, weights, precision, all namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from cmstats.arrays import to_numpy
from cmstats.kernels import covariance
from cmstats.kernels.covariance import scatter

pytestmark = pytest.mark.usefixtures("two_threads")


def direct(Z: Any, w: Any = None) -> tuple[float, Any, Any]:
    Z = np.asarray(Z, np.longdouble)
    w = np.ones(len(Z), np.longdouble) if w is None else np.asarray(w, np.longdouble)
    mean = w @ Z / w.sum()
    C = Z - mean
    return float(w.sum()), mean.astype(float), ((C * w[:, None]).T @ C).astype(float)


def assert_same(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    n, mean, S = found
    assert n == pytest.approx(expected[0], rel=1e-14)
    scale = np.abs(np.diag(expected[2])).max()
    np.testing.assert_allclose(to_numpy(mean), expected[1], rtol=rtol, atol=rtol * scale**0.5)
    np.testing.assert_allclose(to_numpy(S), expected[2], atol=rtol * scale)


@given(n=st.integers(1, 40), d=st.integers(1, 9), seed=st.integers(0, 2**16), far=st.booleans())
def test_the_scatter_is_that_of_the_definition(n: int, d: int, seed: int, far: bool) -> None:
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, d)) + (1e4 if far else 0.0)
    w = rng.integers(0, 4, n).astype(float)
    w[0] = 1.0
    assert_same(scatter(Z), direct(Z), 1e-10)
    assert_same(scatter(Z, w), direct(Z, w), 1e-10)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1023, 1024, 1025, 4097])
def test_rows_at_the_edges_of_tiles_are_all_counted(rng: np.random.Generator, n: int) -> None:
    Z = rng.normal(size=(n, 3))
    assert_same(scatter(Z), direct(Z))


def test_weights_are_repeated_rows(to_xp: Any, rng: np.random.Generator) -> None:
    Z, w = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    found = scatter(to_xp(Z), to_xp(w.astype(float)))
    assert_same(found, scatter(np.repeat(Z, w, axis=0)))


def test_accumulators_side_by_side_equal_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    Z = rng.normal(size=(30_000, 12))
    for parts in (1, 3):
        monkeypatch.setattr(covariance, "accumulator_count", lambda *_, k=parts: k)
        assert_same(scatter(Z), direct(Z))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_scatter_is_exactly_symmetric(to_xp: Any, rng: np.random.Generator, dtype: Any) -> None:
    S = to_numpy(scatter(to_xp(rng.normal(size=(300, 70)).astype(dtype)))[2])
    assert np.array_equal(S, S.T)


@pytest.mark.parametrize("ratio", [1, 20, 200])
def test_float32_moments_keep_their_digits_far_from_zero(
    to_xp: Any, rng: np.random.Generator, ratio: float
) -> None:
    Z = (rng.normal(size=(40_000, 6)) + ratio).astype(np.float32)
    n, _, S = scatter(to_xp(Z))
    expected = direct(Z)[2]
    assert np.abs(to_numpy(S) - expected).max() / n < 1e-6 * (np.diag(expected) / n).max()


def test_float32_rows_that_drift_keep_their_digits(rng: np.random.Generator) -> None:
    Z = (rng.normal(size=(20_000, 3)) + np.linspace(0, 200, 20_000)[:, None]).astype(np.float32)
    n, _, S = scatter(Z)
    expected = direct(Z)[2]
    assert np.abs(S - expected).max() / n < 1e-6 * (np.diag(expected) / n).max()


@pytest.mark.parametrize(
    "dtype", ["float16", "int8", "uint8", "int64", "bool", ">f8", "longdouble"]
)
def test_every_numeric_dtype_is_read(rng: np.random.Generator, dtype: str) -> None:
    Z = (rng.normal(size=(500, 4)) * 20 + 60).clip(0, 120).astype(dtype)
    rtol = 1e-6 if dtype == "float16" else 1e-11
    assert_same(scatter(Z), direct(Z), rtol)


@pytest.mark.torch
def test_bfloat16_is_read(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    Z = torch.asarray(rng.normal(size=(500, 4))).to(torch.bfloat16)
    assert_same(scatter(Z), direct(Z.to(torch.float64).numpy()), 1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_any_memory_order_and_stride_is_read(rng: np.random.Generator, order: Any) -> None:
    Z = np.asarray(rng.normal(size=(400, 10)), order=order)[::-2, 1::3]
    assert_same(scatter(Z), direct(Z))


def test_a_sparse_matrix_equals_the_dense_one() -> None:
    Z = scipy.sparse.random(500, 20, 0.1, format="csc", random_state=0)
    assert_same(scatter(Z), direct(Z.toarray()))


def test_a_constant_column_has_no_variance(to_xp: Any, rng: np.random.Generator) -> None:
    Z = rng.normal(size=(777, 3))
    Z[:, 1] = 0.1
    S = to_numpy(scatter(to_xp(Z))[2])
    assert 0 <= S[1, 1] < 1e-28


def test_a_constant_column_of_zeros_is_exactly_zero(to_xp: Any, rng: np.random.Generator) -> None:
    Z = rng.normal(size=(777, 3))
    Z[:, 1] = 0.0
    S = to_numpy(scatter(to_xp(Z))[2])
    assert not S[1].any()


def test_small_float32_values_are_not_lost(rng: np.random.Generator) -> None:
    """Products of values near 1e-20 are denormal in single precision."""
    Z = rng.normal(size=(400, 3)).astype(np.float32)
    S = scatter(Z * np.float32(2.0**-70))[2]
    np.testing.assert_allclose(S * 2.0**140, scatter(Z)[2], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0], [np.nan, 1.0], [0.0, 0.0]])
def test_weights_that_are_not_frequencies_raise(weights: Any) -> None:
    with pytest.raises(ValueError, match="weight"):
        scatter(np.eye(2), np.array(weights))


def test_values_that_are_not_finite_raise() -> None:
    with pytest.raises(ValueError, match="1 NaN value"):
        scatter(np.array([[np.nan, 1.0]]))


def test_high_precision_changes_nothing_off_cuda(to_xp: Any, rng: np.random.Generator) -> None:
    Z = to_xp(rng.normal(size=(300, 5)).astype(np.float32))
    found, expected = scatter(Z, precision="high")[2], scatter(Z)[2]
    np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))
    with pytest.raises(ValueError, match="precision must be 'highest' or 'high', got 'low'"):
        scatter(Z, precision="low")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.subprocess
def test_compiled_kernels_run_where_no_folder_can_hold_numbas_cache() -> None:
    """As in a read-only container without a home."""
    code = """
from numba.core import caching
def refuse(self):
    raise PermissionError(13, "read-only")
caching._CacheLocator.ensure_cache_path = refuse
import numpy as np
from cmstats.kernels.covariance import SMALL, scatter
Z = np.random.default_rng(0).normal(size=(2 * SMALL, 2))
np.testing.assert_allclose(scatter(Z)[2], np.cov(Z.T) * (len(Z) - 1))
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
