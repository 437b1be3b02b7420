"""The CUDA kernels of gram.py against scikit-learn: simulator, GPU and PTX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat
import numba
import numpy as np
import pytest
from numba import cuda
from sklearn.metrics.pairwise import pairwise_kernels

from cmstats.kernels import gram as dispatcher
from cmstats.kernels._cuda import gram


def tolerance(dtype: Any) -> float:
    return 2e-5 if dtype == np.float32 else 1e-12


def rows(n: int, d: int, dtype: Any) -> Any:
    return np.random.default_rng([n, d]).uniform(size=(n, d)).astype(dtype)


@pytest.mark.parametrize(
    ("n", "m", "d", "dtype", "with_sums"),
    [(1, 1, 1, np.float64, True), (2, 131, 4, np.float32, True), (2, 131, 4, np.float64, False)],
)
def test_rbf_equals_scikit_learn(n: int, m: int, d: int, dtype: Any, with_sums: bool) -> None:
    X, Y = rows(n, d, dtype), rows(m, d, dtype)
    K = cuda.to_device(X @ Y.T)
    sums = cuda.to_device(np.full(n if with_sums else 0, 7.0))
    norms = [cuda.to_device((a * a).sum(axis=1)) for a in (X, Y)]
    gram.launch_rbf(K, *norms, 0.7, False, sums)
    expected = pairwise_kernels(X.astype(float), Y.astype(float), metric="rbf", gamma=0.7)
    np.testing.assert_allclose(K.copy_to_host(), expected, rtol=tolerance(dtype))
    if with_sums:
        np.testing.assert_allclose(sums.copy_to_host(), expected.sum(axis=1), rtol=tolerance(dtype))


def test_rbf_of_a_matrix_with_itself_has_a_diagonal_of_ones() -> None:
    X = rows(3, 3, np.float32) + np.float32(100.0)
    K, sums = cuda.to_device(X @ X.T), cuda.to_device(np.zeros(3))
    norms = cuda.to_device((X * X).sum(axis=1) * np.float32(1.001))
    gram.launch_rbf(K, norms, norms, 0.7, True, sums)
    assert (np.diagonal(K.copy_to_host()) == 1.0).all()


def test_nan_goes_through_rbf() -> None:
    K = cuda.to_device(np.array([[1.0, np.nan]]))
    one, two = cuda.to_device(np.ones(1)), cuda.to_device(np.ones(2))
    gram.launch_rbf(K, one, two, 1.0, False, cuda.to_device(np.zeros(0)))
    np.testing.assert_array_equal(K.copy_to_host(), [[1.0, np.nan]])


@pytest.mark.parametrize("n", [17])
def test_mirror_copies_the_upper_triangle(n: int) -> None:
    A = rows(n, n, np.float64)
    K = cuda.to_device(A)
    gram.launch_mirror(K)
    upper = np.triu(A, 1)
    np.testing.assert_array_equal(K.copy_to_host(), upper + upper.T + np.diag(np.diag(A)))


@pytest.mark.parametrize(("n", "m", "d", "dtype"), [(1, 1, 1, np.float64), (3, 4, 19, np.float32)])
@pytest.mark.parametrize("kernel", ["laplacian", "chi2"])
def test_pairs_equal_scikit_learn(n: int, m: int, d: int, dtype: Any, kernel: str) -> None:
    X, Y = rows(n, d, dtype), rows(m, d, dtype)
    X[0, 0] = Y[0, 0] = 0.0  # 0/0 in chi2 counts as 0
    K = cuda.to_device(np.zeros((n, m), dtype=dtype))
    gram.launch_pairs(cuda.to_device(X), cuda.to_device(Y), 0.7, kernel == "chi2", K)
    expected = pairwise_kernels(X.astype(float), Y.astype(float), metric=kernel, gamma=0.7)
    np.testing.assert_allclose(K.copy_to_host(), expected, rtol=tolerance(dtype))


@pytest.mark.parametrize("kernel", dispatcher.KERNELS)
@pytest.mark.parametrize("same", [False, True])
def test_the_cupy_route_equals_scikit_learn(
    numpy_as_cupy: Any, monkeypatch: pytest.MonkeyPatch, kernel: str, same: bool
) -> None:
    monkeypatch.setattr(dispatcher, "is_numpy", lambda xp: False)
    monkeypatch.setattr(array_api_compat, "is_cupy_namespace", lambda xp: True)
    X, Y = rows(2, 3, np.float64), None if same else rows(3, 3, np.float64)
    expected = pairwise_kernels(X, Y, metric=kernel)
    K, sums = dispatcher.gram(X, Y, kernel=kernel, return_row_sums=True)
    np.testing.assert_allclose(K, expected, rtol=1e-12)
    np.testing.assert_allclose(sums, expected.sum(axis=1), rtol=1e-12)


def test_cupy_arrays_go_this_way() -> None:
    cupy = pytest.importorskip("cupy")
    X, Y = rows(300, 9, np.float64), rows(200, 9, np.float64)
    for kernel in dispatcher.KERNELS:
        for other in (Y, None):
            there = None if other is None else cupy.asarray(other)
            K, sums = dispatcher.gram(cupy.asarray(X), there, kernel=kernel, return_row_sums=True)
            expected = pairwise_kernels(X, other, metric=kernel)
            np.testing.assert_allclose(K.get(), expected, rtol=1e-9)
            np.testing.assert_allclose(sums.get(), expected.sum(axis=1), rtol=1e-9)


@pytest.mark.ptx
@pytest.mark.parametrize("real", [numba.float32, numba.float64])
def test_kernels_compile(real: Any, compile_ptx: Callable[..., str]) -> None:
    vector, matrix, flag = real[::1], real[:, ::1], numba.boolean
    ptx = compile_ptx(gram.rbf, (matrix, vector, vector, real, flag, numba.float64[::1]))
    if real is numba.float32:
        assert "fma.rn.f64" not in ptx  # the exponential runs in single precision
    compile_ptx(gram.mirror, (matrix,))
    compile_ptx(gram.pairs, (matrix, matrix, numba.float64, flag, matrix))
