"""The whitening kernel: W'SW = I, ranks, log-determinants, conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmstats.arrays import to_numpy
from cmstats.kernels.whitening import cholesky, factor, factor_root

pytestmark = pytest.mark.usefixtures("two_threads")

METHODS = ["auto", "cholesky", "eigh", "zca"]


def covariance(rng: np.random.Generator, d: int, cond: float = 10.0) -> Any:
    """A covariance matrix whose square root has the condition number `cond`."""
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (Q * np.geomspace(1, cond**-2.0, d)) @ Q.T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cond", [1.0, 1e2, 1e4])
def test_whitened_covariance_is_the_identity(
    to_xp: Any, rng: np.random.Generator, method: Any, cond: float
) -> None:
    S = covariance(rng, 7, cond)
    W = to_numpy(factor(to_xp(S), method=method).weights)
    np.testing.assert_allclose(W.T @ S @ W, np.eye(7), atol=1e-14 * 100 * cond**2)


@pytest.mark.parametrize("method", METHODS)
def test_the_log_determinant_is_numpys(to_xp: Any, rng: np.random.Generator, method: Any) -> None:
    S = covariance(rng, 6) * 1e-3
    found = factor(to_xp(S), method=method).log_determinant
    assert found == pytest.approx(np.linalg.slogdet(S)[1], rel=1e-12)


def test_zca_weights_are_symmetric(rng: np.random.Generator) -> None:
    W = factor(covariance(rng, 5), method="zca").weights
    np.testing.assert_allclose(W, W.T, atol=1e-12)


@pytest.mark.parametrize("method", ["auto", "eigh"])
def test_rank_deficiency_is_found(to_xp: Any, rng: np.random.Generator, method: Any) -> None:
    A = rng.normal(size=(6, 4))
    S = A @ A.T
    found = factor(to_xp(S), method=method)
    assert found.rank == 4
    assert found.condition == float("inf")
    W = to_numpy(found.weights)
    np.testing.assert_allclose(W.T @ S @ W, np.eye(4), atol=1e-10)


def test_a_column_that_does_not_vary_has_no_weight(to_xp: Any, rng: np.random.Generator) -> None:
    S = np.zeros((5, 5))
    S[1:, 1:] = covariance(rng, 4)
    found = factor(to_xp(S))
    assert found.rank == 4
    W = to_numpy(found.weights)
    assert W.shape == (5, 4)
    assert not W[0].any()
    assert found.log_determinant == pytest.approx(np.linalg.slogdet(S[1:, 1:])[1])


def test_no_variance_at_all_has_rank_zero(to_xp: Any) -> None:
    for found in (factor(to_xp(np.zeros((3, 3)))), factor_root(to_xp(np.zeros((4, 3))))):
        assert found.rank == 0
        assert found.weights.shape == (3, 0)


def test_scaling_of_columns_costs_no_digits(rng: np.random.Generator) -> None:
    S = covariance(rng, 6)
    unit = np.geomspace(1e-8, 1e8, 6)
    plain, scaled = factor(S), factor(S * unit[:, None] * unit)
    np.testing.assert_allclose(scaled.weights * unit[:, None], plain.weights, rtol=1e-10)
    assert scaled.condition == pytest.approx(plain.condition)


@pytest.mark.parametrize("cond", [1e1, 1e3, 1e5])
def test_the_condition_is_that_of_the_normalised_data_within_a_factor_of_the_dimension(
    rng: np.random.Generator, cond: float
) -> None:
    S = covariance(rng, 8, cond)
    unit = np.diag(S) ** -0.5
    truth = np.linalg.cond(S * unit[:, None] * unit) ** 0.5
    assert truth / 1.01 <= factor(S).condition <= 8 * truth
    assert factor_root(np.linalg.cholesky(S).T).condition == pytest.approx(truth, rel=1e-3)


@given(
    m=st.integers(1, 12),
    d=st.integers(1, 12),
    seed=st.integers(0, 2**16),
    keep=st.sampled_from([1.0, 0.7, 0.0]),
    ridge=st.sampled_from([0.0, 0.3]),
)
def test_a_root_is_whitened_without_forming_its_product(
    m: int, d: int, seed: int, keep: float, ridge: float
) -> None:
    if keep == ridge == 0:
        return
    R = np.random.default_rng(seed).normal(size=(m, d))
    found = factor_root(R, keep=keep, ridge=ridge)
    S = keep * R.T @ R + ridge * np.eye(d)
    W = found.weights
    assert found.rank == min(m, d)
    np.testing.assert_allclose(W.T @ S @ W, np.eye(found.rank), atol=1e-7)
    np.testing.assert_allclose(found.root, R @ W, atol=1e-7)
    if ridge:
        assert found.log_determinant == pytest.approx(np.linalg.slogdet(S)[1], abs=1e-8)


def test_apply_keeps_the_precision_and_the_place_of_the_rows(
    to_xp: Any, rng: np.random.Generator
) -> None:
    found = factor(to_xp(covariance(rng, 4)))
    A = to_xp(rng.normal(size=(9, 4)).astype(np.float32))
    out = found.apply(A)
    assert out.dtype == A.dtype
    assert type(out) is type(A)
    np.testing.assert_allclose(to_numpy(out), to_numpy(A) @ to_numpy(found.weights), atol=1e-4)


@pytest.mark.parametrize(
    ("S", "message"),
    [
        (np.ones((2, 3)), "square"),
        (np.array([[np.nan]]), "NaN"),
        (-np.eye(2), "negative variance"),
    ],
)
def test_what_is_no_covariance_matrix_raises(S: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factor(S)


def test_a_singular_matrix_has_no_cholesky_factor() -> None:
    with pytest.raises(ValueError, match="not positive definite"):
        factor(np.ones((2, 2)), method="cholesky")


def test_unknown_methods_and_widths_raise() -> None:
    with pytest.raises(ValueError, match="method"):
        factor(np.eye(2), method="lu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 columns"):
        factor(np.eye(2)).apply(np.eye(3))


@pytest.mark.parametrize("left_over", ["nan", "negative"])
@pytest.mark.torch
def test_a_library_whose_cholesky_does_not_raise_is_seen_through(
    monkeypatch: pytest.MonkeyPatch, left_over: str
) -> None:
    """CuPy returns NaN or a half-done factor of a matrix that is not positive definite."""
    pytest.importorskip("torch")
    import array_api_compat.torch as xp

    def broken(S: Any) -> Any:
        factor_ = xp.eye(S.shape[0], dtype=S.dtype)
        factor_[-1, -1] = float("nan") if left_over == "nan" else -0.5
        return factor_

    monkeypatch.setattr(xp.linalg, "cholesky", broken)
    S = xp.ones((3, 3), dtype=xp.float64)
    assert factor(S).method == "eigh"
    assert factor(S).rank == 1
    for call in (lambda: cholesky(S, "this"), lambda: factor(S, method="cholesky")):
        with pytest.raises(ValueError, match="is not positive definite"):
            call()
