"""The CUDA kernels of normal.py against the reference: simulator, GPU and PTX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numba import cuda
from scipy.special import logsumexp

from cmstats.kernels import normal
from cmstats.kernels._cuda import normal as room


def tolerance(dtype: Any) -> float:
    return 2e-5 if dtype == np.float32 else 1e-12


def mixture_problem(n: int, d: int, k: int, dtype: Any, kind: Any = "full") -> tuple[Any, ...]:
    rng = np.random.default_rng([n, d, k])
    means = rng.normal(size=(k, d)) + 3.0
    A = rng.normal(size=(k, d, d))
    S = A @ A.swapaxes(1, 2) / d + 0.3 * np.eye(d)
    S = {"full": S, "tied": S[0], "diag": np.diagonal(S, axis1=1, axis2=2)}[kind]
    X = (rng.normal(size=(n, d)) + 3.0).astype(dtype)
    return X, normal.prepare(X, means, S, kind)


def run_mixture(X: Any, normals: Any, constants: Any, with_terms: bool) -> tuple[Any, Any]:
    n, k = X.shape[0], normals.means.shape[0]
    density = cuda.to_device(np.full(n, 7.0, dtype=X.dtype))
    terms = cuda.to_device(np.full((n if with_terms else 0, k), 7.0, dtype=X.dtype))
    inputs = (normals.means, room.padded_whitening(normals), constants)
    inputs = tuple(cuda.to_device(np.ascontiguousarray(a, dtype=X.dtype)) for a in inputs)
    room.launch_mixture(cuda.to_device(X), *inputs, density, terms)
    return density.copy_to_host(), terms.copy_to_host()


@pytest.mark.parametrize(("n", "d", "dtype"), [(1, 1, np.float64), (9, 45, np.float32)])
def test_row_norms_equal_the_sum_of_squares(n: int, d: int, dtype: Any) -> None:
    z = np.random.default_rng(d).normal(size=(n, d)).astype(dtype)
    out = cuda.to_device(np.zeros(n, dtype=dtype))
    room.launch_row_norms(cuda.to_device(z), out)
    np.testing.assert_allclose(out.copy_to_host(), (z**2).sum(axis=1), rtol=tolerance(dtype))


@pytest.mark.parametrize(
    ("n", "d", "k", "dtype"),
    [(1, 1, 1, np.float64), (131, 5, 2, np.float32), (65, 9, 3, np.float64)],
)
def test_mixture_equals_the_reference(n: int, d: int, k: int, dtype: Any) -> None:
    X, normals = mixture_problem(n, d, k, dtype)
    log_weights = np.log(np.arange(1.0, k + 1) / np.arange(1.0, k + 1).sum())
    density, terms = run_mixture(X, normals, normals.constants + log_weights, True)
    expected = normal._reference(X.astype(np.float64), normals) + log_weights
    np.testing.assert_allclose(terms, expected, rtol=tolerance(dtype))
    np.testing.assert_allclose(density, logsumexp(expected, axis=1), rtol=tolerance(dtype))


@pytest.mark.parametrize("with_terms", [False, True])
def test_many_columns_finish_with_the_same_sums(with_terms: bool) -> None:
    rng = np.random.default_rng(0)
    norms, constants = rng.exponential(size=(3, 130)), np.array([-np.inf, -1e4, 0.5])
    norms[1, 7] = np.nan
    density = cuda.to_device(np.zeros(130))
    terms = cuda.to_device(np.zeros((130 if with_terms else 0, 3)))
    room.launch_finish(cuda.to_device(norms), cuda.to_device(constants), density, terms)
    expected = constants - 0.5 * norms.T
    np.testing.assert_allclose(density.copy_to_host(), logsumexp(expected, axis=1), rtol=1e-12)
    if with_terms:
        np.testing.assert_array_equal(terms.copy_to_host(), expected)


@pytest.mark.parametrize("kind", ["tied", "diag"])
def test_mixture_of_other_covariances_equals_the_reference(kind: str) -> None:
    X, normals = mixture_problem(9, 5, 3, np.float64, kind)
    density, terms = run_mixture(X, normals, normals.constants, False)
    assert terms.shape == (0, 3)
    expected = logsumexp(normal._reference(X, normals), axis=1)
    np.testing.assert_allclose(density, expected, rtol=1e-12)


def test_a_component_of_weight_zero_adds_nothing_and_nan_goes_through() -> None:
    X, normals = mixture_problem(4, 3, 3, np.float64)
    X[2, 1] = np.nan
    log_weights = np.array([-np.inf, np.log(0.25), np.log(0.75)])
    density, _ = run_mixture(X, normals, normals.constants + log_weights, False)
    expected = logsumexp(normal._reference(X, normals)[:, 1:] + log_weights[1:], axis=1)
    assert np.isnan(density[2])
    keep = [0, 1, 3]
    np.testing.assert_allclose(density[keep], expected[keep], rtol=1e-12)


@pytest.mark.parametrize(("d", "kind"), [(6, "full"), (35, "full"), (35, "tied"), (35, "diag")])
def test_the_cupy_route_equals_the_reference(numpy_as_cupy: Any, d: int, kind: str) -> None:
    X, normals = mixture_problem(3, d, 2, np.float64, kind)
    log_weights = np.log([0.3, 0.7])
    density, terms = room.log_densities(X, normals, log_weights, components=True)
    expected = normal._reference(X, normals) + log_weights
    np.testing.assert_allclose(terms, expected, rtol=1e-11)
    np.testing.assert_allclose(density, logsumexp(expected, axis=1), rtol=1e-11)


def test_cupy_arrays_go_this_way() -> None:
    cupy = pytest.importorskip("cupy")
    for d, kind in ((6, "full"), (35, "full"), (35, "tied"), (35, "diag")):
        X, normals = mixture_problem(500, d, 2, np.float64, kind)
        S = {"full": normals.whitening, "tied": normals.whitening[0], "diag": normals.whitening}
        S = S[kind] if kind == "diag" else S[kind] @ S[kind].swapaxes(-1, -2)
        arguments = (X, np.array([0.3, 0.7]), normals.means, S)
        found = normal.mixture_logpdf(*map(cupy.asarray, arguments), covariance_type=kind)
        expected = normal.mixture_logpdf(*arguments, covariance_type=kind)
        np.testing.assert_allclose(found.get(), expected, rtol=1e-9)


@pytest.mark.ptx
@pytest.mark.parametrize("real", [numba.float32, numba.float64])
def test_kernels_compile(real: Any, compile_ptx: Callable[..., str]) -> None:
    vector, matrix, cube = real[::1], real[:, ::1], real[:, :, ::1]
    compile_ptx(room.row_norms, (matrix, vector))
    compile_ptx(room.finish, (matrix, vector, vector, matrix))
    for padded in (4, 32):
        kernel = room.mixture_kernel(padded, real is numba.float64)
        ptx = compile_ptx(kernel, (matrix, matrix, cube, vector, vector, matrix))
        assert ".local" not in ptx  # everything in registers and shared memory
        if real is numba.float32:
            assert "fma.rn.f64" not in ptx  # no silent promotion to double


def test_low_rank_whitening_equals_the_reference() -> None:
    rng = np.random.default_rng(0)
    X, means = rng.normal(size=(9, 6)), rng.normal(size=(3, 6))
    S = rng.normal(size=(3, 6, 2)), rng.uniform(0.5, 2.0, size=(3, 6))
    normals = normal.prepare(X, means, S, "low_rank")
    norms = np.stack([np.sum(z**2, axis=1) for z in room._whitened(X, normals)], axis=1)
    expected = normal._reference(X, normals)
    np.testing.assert_allclose(normals.constants - 0.5 * norms, expected, rtol=1e-12)
