"""gram.py against scikit-learn and mpmath, in every array library."""

from __future__ import annotations

import warnings
from typing import Any

import array_api_strict
import mpmath
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import pairwise_kernels, rbf_kernel

from cmstats.arrays import to_numpy
from cmstats.kernels.gram import KERNELS, gram, median_gamma

pytestmark = pytest.mark.usefixtures("two_threads")

GAMMA_KERNELS = [name for name in KERNELS if name not in ("cosine", "linear")]


def rows(n: int, d: int, seed: int = 0) -> Any:
    """Rows of values that every kernel takes (chi2 wants them not negative)."""
    return np.random.default_rng([n, d, seed]).uniform(size=(n, d))


# ---------------------------------------------------------------------------- values
# 600 x 1100 has several tiles each way, none of them full.
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (600, 1100, 19)])
def test_blocks_and_row_sums_equal_scikit_learn(kernel: str, n: int, m: int, d: int) -> None:
    X, Y = rows(n, d), rows(m, d, 1)
    X[0] = 0.0
    Y[0, 0] = 0.0
    for other in (Y, None):
        K, sums = gram(X, other, kernel=kernel, return_row_sums=True)
        expected = pairwise_kernels(X, other, metric=kernel)
        np.testing.assert_allclose(K, expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(sums, expected.sum(axis=1), rtol=1e-12, atol=1e-10)
        np.testing.assert_array_equal(K, gram(X, other, kernel=kernel))


@pytest.mark.parametrize("kernel", GAMMA_KERNELS)
def test_parameters_mean_what_they_mean_in_scikit_learn(kernel: str) -> None:
    X, Y = rows(20, 4), rows(30, 4, 1)
    np.testing.assert_allclose(
        gram(X, Y, kernel=kernel, gamma=0.3),
        pairwise_kernels(X, Y, metric=kernel, gamma=0.3),
        rtol=1e-12,
    )


@pytest.mark.parametrize("degree", [1, 2, 5, 2.5])
def test_polynomial_degrees(degree: float) -> None:
    X, Y = rows(20, 4), rows(30, 4, 1)
    expected = pairwise_kernels(X, Y, metric="poly", gamma=0.7, degree=degree, coef0=0.5)
    for name in ("poly", "polynomial"):
        K = gram(X, Y, kernel=name, gamma=0.7, degree=degree, coef0=0.5)
        np.testing.assert_allclose(K, expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d", [3, 130])
def test_float32_is_as_exact_as_its_precision(kernel: str, d: int) -> None:
    X, Y = rows(300, d).astype(np.float32), rows(200, d, 1).astype(np.float32)
    K = gram(X, Y, kernel=kernel)
    assert K.dtype == np.float32
    expected = pairwise_kernels(X.astype(float), Y.astype(float), metric=kernel)
    np.testing.assert_allclose(K, expected, rtol=1e-5)


def test_rbf_far_from_zero_keeps_its_digits() -> None:
    X, Y = rows(40, 8) + 1000.0, rows(30, 8, 1) + 1000.0
    with mpmath.workdps(40):
        d2 = sum((mpmath.mpf(a) - mpmath.mpf(b)) ** 2 for a, b in zip(X[0], Y[0], strict=True))
        exact = float(mpmath.exp(-d2 / 2))
    assert gram(X, Y, gamma=0.5)[0, 0] == pytest.approx(exact, rel=1e-13)
    single = gram(X.astype(np.float32), Y.astype(np.float32), gamma=0.5)
    expected = rbf_kernel(
        X.astype(np.float32).astype(float), Y.astype(np.float32).astype(float), gamma=0.5
    )
    np.testing.assert_allclose(single, expected, rtol=5e-6)


@given(
    kernel=st.sampled_from(KERNELS),
    n=st.integers(1, 60),
    d=st.integers(1, 12),
    seed=st.integers(0, 1000),
    single=st.booleans(),
)
def test_a_matrix_with_itself_is_symmetric_and_like_two(
    kernel: str, n: int, d: int, seed: int, single: bool
) -> None:
    X = rows(n, d, seed).astype(np.float32 if single else np.float64)
    K = gram(X, kernel=kernel)
    np.testing.assert_array_equal(K, K.T)
    tolerance = 3e-5 if single else 1e-12
    np.testing.assert_allclose(K, gram(X, X.copy(), kernel=kernel), rtol=tolerance, atol=tolerance)
    if kernel in ("rbf", "laplacian", "chi2"):
        assert (np.diagonal(K) == 1.0).all()
        assert (K <= 1.0).all()  # no negative distance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_symmetric_blocks_are_symmetric_exactly(dtype: Any) -> None:
    X = rows(1300, 7).astype(dtype)
    K, sums = gram(X, return_row_sums=True, gamma=3.0)
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_allclose(sums, K.sum(axis=1, dtype=np.float64), rtol=1e-12)


def test_threads_change_no_digit_of_the_row_sums() -> None:
    X = rows(1500, 9).astype(np.float32)
    first = gram(X, return_row_sums=True)[1]
    for _ in range(3):
        np.testing.assert_array_equal(gram(X, return_row_sums=True)[1], first)


def test_rbf_underflows_to_zero_and_duplicates_give_one() -> None:
    X = np.array([[0.0], [1e3], [0.0]])
    for dtype in (np.float32, np.float64):
        expected = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
        np.testing.assert_array_equal(gram(X.astype(dtype), gamma=1.0), expected)


# ----------------------------------------------------------------- buffers and callables
@pytest.mark.parametrize("kernel", KERNELS)
def test_out_is_filled_and_returned(kernel: str) -> None:
    X, Y = rows(30, 5).astype(np.float32), rows(40, 5, 1).astype(np.float32)
    expected = gram(X, Y, kernel=kernel)
    wide = np.full((30, 90), np.nan, dtype=np.float32)
    for out in (np.full((30, 40), np.nan, np.float32), wide[:, 10:50]):
        assert gram(X, Y, kernel=kernel, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-6)
    fortran = np.full((30, 40), np.nan, np.float32, order="F")
    np.testing.assert_allclose(gram(X, Y, kernel=kernel, out=fortran), expected, rtol=1e-6)


def test_a_callable_gives_the_block() -> None:
    X, Y = rows(6, 3), rows(4, 3, 1)
    out = np.empty((6, 4))
    K, sums = gram(X, Y, kernel=rbf_kernel, out=out, return_row_sums=True)
    assert K is out
    np.testing.assert_array_equal(K, rbf_kernel(X, Y))
    np.testing.assert_array_equal(sums, K.sum(axis=1))
    assert gram(X, kernel=rbf_kernel).shape == (6, 6)
    with pytest.raises(ValueError, match=r"must return an array .* shape \(6, 4\)"):
        gram(X, Y, kernel=lambda a, b: a)


def test_dtypes_and_layouts() -> None:
    wide = rows(50, 12)
    expected = gram(wide[:, ::2].copy())
    for X in (wide[:, ::2], np.asfortranarray(wide[:, ::2]), wide[:, ::2].tolist()):
        np.testing.assert_allclose(gram(X), expected, rtol=1e-14)
    assert gram(wide.astype(np.float16)).dtype == np.float32
    assert gram((wide * 9).astype(int)).dtype == np.float64
    assert gram(wide.astype(np.float32), wide).dtype == np.float64


# ------------------------------------------------------------------------- namespaces
def strict(a: Any) -> Any:
    return array_api_strict.asarray(a, device=array_api_strict.Device("device1"))


def torch_tensor(a: Any) -> Any:
    return pytest.importorskip("torch").asarray(a)


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [(strict, np.float64), pytest.param(torch_tensor, np.float32, marks=pytest.mark.torch)],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_other_namespaces_give_the_same(convert: Any, kernel: str, dtype: Any) -> None:
    X, Y = rows(12, 5).astype(dtype), rows(9, 5, 1).astype(dtype)
    X[0, 0] = Y[0, 0] = 0.0
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for other in (Y, None):
        there = None if other is None else convert(other)
        K, sums = gram(convert(X), there, kernel=kernel, return_row_sums=True)
        expected = gram(X, other, kernel=kernel)
        for ours, theirs in ((K, expected), (sums, expected.sum(axis=1))):
            assert ours.device == convert(X).device
            np.testing.assert_allclose(to_numpy(ours), theirs, rtol=tolerance, atol=tolerance)
        assert K.dtype == convert(X).dtype
        out = convert(np.zeros(expected.shape, dtype=dtype))
        assert gram(convert(X), there, kernel=kernel, out=out) is out
        np.testing.assert_array_equal(to_numpy(out), to_numpy(K))


@pytest.mark.parametrize("convert", [strict, pytest.param(torch_tensor, marks=pytest.mark.torch)])
def test_median_gamma_of_other_namespaces_is_the_same_number(convert: Any) -> None:
    X = rows(50, 3)
    expected = median_gamma(X, n_samples=20, random_state=0)
    assert median_gamma(convert(X), n_samples=20, random_state=0) == pytest.approx(expected)


def test_mixed_namespaces_are_refused() -> None:
    with pytest.raises(TypeError, match="one array library"):
        gram(strict(rows(2, 2)), rows(2, 2))


# ----------------------------------------------------------------------- median_gamma
def test_median_gamma_is_one_over_the_median_squared_distance() -> None:
    X = rows(101, 6) + 1e4
    expected = 1.0 / np.median(pdist(X, "sqeuclidean"))
    assert median_gamma(X) == pytest.approx(expected, rel=1e-6)
    assert median_gamma(X.astype(np.float32)) == pytest.approx(expected, rel=1e-2)


def test_median_gamma_of_a_sample_repeats_and_is_near() -> None:
    X = rows(5000, 6)
    first = median_gamma(X, n_samples=300, random_state=0)
    assert first == median_gamma(X, n_samples=300, random_state=0)
    assert first != median_gamma(X, n_samples=300, random_state=1)
    assert first == pytest.approx(median_gamma(X, n_samples=2000, random_state=2), rel=0.05)


def test_median_gamma_passes_over_duplicates() -> None:
    X = np.zeros((10, 1))
    X[0] = 2.0
    assert median_gamma(X) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="equal rows only"):
        median_gamma(np.ones((10, 2)))


# -------------------------------------------------------------------------- bad input
def test_bad_parameters_are_named() -> None:
    X = rows(4, 3)
    for gamma in (0.0, -1.0, np.nan, np.inf):
        for kernel in GAMMA_KERNELS:
            with pytest.raises(ValueError, match="gamma must be positive"):
                gram(X, kernel=kernel, gamma=gamma)
    with pytest.raises(ValueError, match="kernel must be a function or one of rbf"):
        gram(X, kernel="gaussian")
    with pytest.raises(ValueError, match="degree must be positive"):
        gram(X, kernel="poly", degree=0)
    for n_samples in (1, 2.5):
        with pytest.raises(ValueError, match="n_samples must be an integer"):
            median_gamma(X, n_samples=n_samples)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="X has 1 row"):
        median_gamma(X[:1])


@pytest.mark.parametrize("convert", [np.asarray, strict])
def test_chi2_of_negative_values_says_where(convert: Any) -> None:
    X, bad = rows(4, 3), rows(5, 3)
    bad[3, 1] = bad[4, 0] = -0.5
    with pytest.raises(ValueError, match="Y has 2 negative, the first at row 3, column 1"):
        gram(convert(X), convert(bad), kernel="chi2")


def test_bad_arrays_are_named() -> None:
    X = rows(4, 3)
    bad = X.copy()
    bad[2, 1] = np.inf
    for kernel in KERNELS:
        with pytest.raises(ValueError, match="Y has 1 infinite value, the first at row 2"):
            gram(X, bad, kernel=kernel)
    with pytest.raises(ValueError, match="X has 3 columns and Y has 2"):
        gram(X, X[:, :2])
    with pytest.raises(TypeError, match="X is sparse"):
        gram(scipy.sparse.csr_array(X))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        gram(X[:0])
    for out in (np.empty((4, 3)), np.empty((4, 4), np.float32)):
        with pytest.raises(ValueError, match="out must be an array of float64"):
            gram(X, out=out)
    frozen = np.empty((4, 4))
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        gram(X, out=frozen)


@pytest.mark.parametrize("far", [0.0, 100.0, 1e4])
@pytest.mark.parametrize("same", [True, False])
def test_groups_far_apart_in_single_precision(far: float, same: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 5))
    X[300:] += far
    X = X.astype(np.float32)
    Y = None if same else X[::2][:250].copy()
    wide = None if Y is None else Y.astype(float)
    expected = rbf_kernel(X.astype(float), wide, gamma=0.3)
    found, sums = gram(X, Y, gamma=0.3, return_row_sums=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(sums, expected.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("power", [100, -100])
@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "chi2", "cosine"])
def test_kernels_of_distances_and_angles_take_any_unit_in_single_precision(
    kernel: str, power: int
) -> None:
    X = np.abs(np.random.default_rng(0).normal(size=(30, 4))).astype(np.float32)
    unit = {"rbf": 2, "laplacian": 1, "chi2": 1}.get(kernel, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gamma = 0.4 * 2.0 ** (-unit * power)
        found = gram(X * np.float32(2.0**power), kernel=kernel, gamma=gamma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, gram(X, kernel=kernel, gamma=0.4), atol=1e-6)
