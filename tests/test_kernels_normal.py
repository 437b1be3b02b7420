"""normal.py against scipy, scikit-learn and mpmath, in every array library."""

from __future__ import annotations

import threading
from typing import Any

import array_api_strict
import mpmath
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_info

from cmstats.arrays import to_numpy
from cmstats.kernels import normal
from cmstats.kernels._cpu import normal as cpu
from cmstats.kernels._cpu._exp import exp_double, exp_single
from cmstats.kernels.normal import component_logpdf, logpdf, mixture_logpdf

pytestmark = pytest.mark.usefixtures("two_threads")

KINDS = ["full", "tied", "diag"]


def covariance(d: int, seed: int = 0) -> Any:
    A = np.random.default_rng([d, seed]).normal(size=(d, d))
    return A @ A.T / d + 0.5 * np.eye(d)


def problem(n: int, d: int, k: int, kind: str, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Points, weights, means and covariances of one kind."""
    rng = np.random.default_rng([n, d, k, seed])
    means = rng.normal(size=(k, d)) * 2.0 + 5.0
    full = np.stack([covariance(d, j) for j in range(k)])
    S = {"full": full, "tied": full[0], "diag": np.diagonal(full, axis1=1, axis2=2).copy()}[kind]
    return rng.normal(size=(n, d)) + 5.0, rng.dirichlet(np.ones(k)), means, S


def scipy_components(X: Any, means: Any, S: Any, kind: str) -> Any:
    matrices = {
        "full": lambda j: S[j],
        "tied": lambda j: S,
        "diag": lambda j: np.diag(S[j]),
    }[kind]
    densities = [
        np.atleast_1d(scipy.stats.multivariate_normal.logpdf(X, means[j], matrices(j)))
        for j in range(len(means))
    ]
    return np.stack(densities, axis=1)


# ---------------------------------------------------------------------------- values
# 96 columns and fewer are the fused loops, more are BLAS; 9, 66 and 131 are no multiple of 4.
@pytest.mark.parametrize("d", [1, 2, 9, 16, 64, 66, 131, 300])
def test_logpdf_equals_scipy(d: int) -> None:
    rng = np.random.default_rng(d)
    mean, S = rng.normal(size=d) * 10.0, covariance(d)
    X = rng.normal(size=(700, d)) + mean
    expected = scipy.stats.multivariate_normal.logpdf(X, mean, S)
    np.testing.assert_allclose(logpdf(X, mean, S), expected, rtol=1e-12)
    np.testing.assert_allclose(
        logpdf(X, mean, np.diag(S)),
        scipy.stats.multivariate_normal.logpdf(X, mean, np.diag(np.diag(S))),
        rtol=1e-12,
    )


@pytest.mark.ordinary
def test_logpdf_equals_mpmath_at_d_50() -> None:
    rng = np.random.default_rng(0)
    d = 50
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    S = (q * np.logspace(0, -4, d)) @ q.T
    S = (S + S.T) / 2
    mean = rng.normal(size=d) * 100.0
    x = mean + np.linalg.cholesky(S) @ rng.normal(size=d)
    with mpmath.workdps(50):
        L = mpmath.cholesky(mpmath.matrix(S.tolist()))
        z = mpmath.lu_solve(L, mpmath.matrix(x.tolist()) - mpmath.matrix(mean.tolist()))
        logdet = sum(mpmath.log(L[i, i]) for i in range(d))
        q2 = sum(v * v for v in z)
        exact = float(-(d * mpmath.log(2 * mpmath.pi) + q2) / 2 - logdet)
    assert logpdf(x[None], mean, S)[0] == pytest.approx(exact, rel=1e-10)


def test_density_that_underflows_naively_is_right() -> None:
    X = np.zeros((1, 300))
    variance = 0.00368
    value = logpdf(X, None, np.full(300, variance))[0]
    assert value == pytest.approx(-150 * np.log(2 * np.pi * variance), rel=1e-13)
    assert value > 400
    far = logpdf(np.full((1, 1000), 10.0), None, np.eye(1000) * 0.01)[0]
    exact = -500 * np.log(2 * np.pi * 0.01) - 0.5 * 1000 * 1e4
    assert far == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (300, 3, 5), (1100, 16, 32), (150, 101, 3)])
def test_mixture_equals_scipy(n: int, d: int, k: int, kind: Any) -> None:
    X, weights, means, S = problem(n, d, k, kind)
    expected = scipy_components(X, means, S, kind)
    np.testing.assert_allclose(
        component_logpdf(X, means, S, covariance_type=kind), expected, rtol=1e-11
    )
    expected = expected + np.log(weights)
    density, r = mixture_logpdf(
        X, weights, means, S, covariance_type=kind, return_responsibilities=True
    )
    np.testing.assert_allclose(density, logsumexp(expected, axis=1), rtol=1e-11)
    np.testing.assert_allclose(r, np.exp(expected - density[:, None]), atol=1e-11)
    np.testing.assert_array_equal(
        density, mixture_logpdf(X, weights, means, S, covariance_type=kind)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_mixture_equals_scikit_learn(kind: Any) -> None:
    X = problem(400, 5, 2, "full")[0]
    model = GaussianMixture(4, covariance_type=kind, max_iter=5, random_state=0, tol=1.0).fit(X)
    density, r = mixture_logpdf(
        X,
        model.weights_,
        model.means_,
        model.covariances_,
        covariance_type=kind,
        return_responsibilities=True,
    )
    np.testing.assert_allclose(density, model.score_samples(X), rtol=1e-11)
    np.testing.assert_allclose(r, model.predict_proba(X), atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_cpu_equals_the_reference(kind: Any) -> None:
    X, _, means, S = problem(90, 7, 3, kind)
    normals = normal.prepare(X, means, S, kind)
    np.testing.assert_allclose(
        component_logpdf(X, means, S, covariance_type=kind),
        normal._reference(X, normals),
        rtol=1e-12,
    )


def test_a_component_of_weight_zero_has_no_part() -> None:
    X, _, means, S = problem(50, 4, 3, "full")
    density, r = mixture_logpdf(X, [0.4, 0.0, 0.6], means, S, return_responsibilities=True)
    expected = mixture_logpdf(X, [0.4, 0.6], means[[0, 2]], S[[0, 2]])
    np.testing.assert_allclose(density, expected, rtol=1e-13)
    assert (r[:, 1] == 0.0).all()


def test_far_components_do_not_underflow() -> None:
    means, S = np.array([[0.0], [1e4]]), np.ones((2, 1))
    X = np.array([[0.0], [5e3], [1e6]])
    density = mixture_logpdf(X, [0.5, 0.5], means, S)
    expected = scipy_components(X, means, S, "diag") + np.log(0.5)
    np.testing.assert_allclose(density, logsumexp(expected, axis=1), rtol=1e-13)


@given(n=st.integers(1, 40), d=st.integers(1, 20), k=st.integers(1, 5), seed=st.integers(0, 1000))
def test_mixture_does_not_depend_on_the_order_of_components_or_rows(
    n: int, d: int, k: int, seed: int
) -> None:
    X, weights, means, S = problem(n, d, k, "full", seed)
    rng = np.random.default_rng(seed)
    p, rows = rng.permutation(k), rng.permutation(n)
    density, r = mixture_logpdf(X, weights, means, S, return_responsibilities=True)
    np.testing.assert_allclose(r.sum(axis=1), 1.0, rtol=1e-12)
    shuffled = mixture_logpdf(X[rows], weights[p], means[p], S[p])
    np.testing.assert_allclose(shuffled, density[rows], rtol=1e-12, atol=1e-12)


@given(d=st.integers(1, 80), seed=st.integers(0, 1000))
def test_logpdf_changes_by_the_log_determinant_of_an_affine_map(d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, mean, S = rng.normal(size=(20, d)), rng.normal(size=d), covariance(d, seed)
    A = np.linalg.qr(rng.normal(size=(d, d)))[0] * rng.uniform(0.5, 2.0, size=d)
    b = rng.normal(size=d)
    image = logpdf(X @ A.T + b, A @ mean + b, A @ S @ A.T)
    expected = logpdf(X, mean, S) - np.linalg.slogdet(A)[1]
    np.testing.assert_allclose(image, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("exp", "dtype", "lowest", "rtol"),
    [(exp_double, np.float64, -708.0, 4.5e-16), (exp_single, np.float32, -87.0, 2.4e-7)],
)
def test_exponential_is_within_two_ulp(exp: Any, dtype: Any, lowest: float, rtol: float) -> None:
    x = -np.random.default_rng(0).exponential(-lowest / 20, size=5000).astype(dtype)
    x[:4] = [0.0, lowest, lowest - 1, -np.inf]
    ours = np.array([exp(v) for v in x])
    keep = x >= lowest
    np.testing.assert_allclose(ours[keep], np.exp(x[keep].astype(float)), rtol=rtol)
    assert (ours[2:4] == 0.0).all()


# ------------------------------------------------------------------- dtypes and layouts
@pytest.mark.parametrize("d", [8, 64, 120])
def test_float32_is_as_exact_as_its_precision(d: int) -> None:
    rng = np.random.default_rng(d)
    # A mean of 200 deviations: what a mean folded into the product would lose.
    X = (rng.normal(size=(500, d)) + 200.0).astype(np.float32)
    mean, S = np.full(d, 200.0), covariance(d)
    density = logpdf(X, mean, S)
    assert density.dtype == np.float32
    expected = scipy.stats.multivariate_normal.logpdf(X.astype(float), mean, S)
    np.testing.assert_allclose(density, expected, rtol=3e-6)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [(np.float16, np.float32), (np.int32, np.float64), (np.bool_, np.float64)],
)
def test_other_dtypes_are_converted(dtype: Any, result: Any) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    density = logpdf(X, np.zeros(3), np.eye(3))
    assert density.dtype == result
    expected = scipy.stats.multivariate_normal.logpdf(X.astype(float), np.zeros(3))
    np.testing.assert_allclose(density, expected, rtol=1e-5)


def test_layout_and_write_protection_do_not_matter() -> None:
    wide = np.random.default_rng(0).normal(size=(600, 22))
    expected = logpdf(wide[:, ::2].copy(), np.zeros(11), covariance(11))
    frozen = wide[:, ::2].copy()
    frozen.flags.writeable = False
    for X in (wide[:, ::2], np.asfortranarray(wide[:, ::2]), frozen, wide[:, ::2].tolist()):
        np.testing.assert_array_equal(logpdf(X, np.zeros(11), covariance(11)), expected)


def test_many_callers_leave_blas_as_it_was() -> None:
    before = [info["num_threads"] for info in threadpool_info()]
    X, S = np.ones((10_000, 120)), covariance(120)
    threads = [threading.Thread(target=logpdf, args=(X, None, S)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [info["num_threads"] for info in threadpool_info()] == before


def test_an_error_in_a_tile_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "log_sum_exp", lambda *_: 1 / 0)
    for n in (3, 30_000):
        with pytest.raises(ZeroDivisionError):
            mixture_logpdf(np.zeros((n, 12)), [1.0], np.zeros((1, 12)), np.eye(12)[None])


# ------------------------------------------------------------------------- namespaces
def strict(a: Any) -> Any:
    return array_api_strict.asarray(a, device=array_api_strict.Device("device1"))


def torch_tensor(a: Any) -> Any:
    return pytest.importorskip("torch").asarray(a)


@pytest.mark.parametrize("convert", [strict, pytest.param(torch_tensor, marks=pytest.mark.torch)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_namespaces_give_the_same(convert: Any, kind: Any, dtype: Any) -> None:
    X, weights, means, S = problem(40, 5, 3, kind)
    X = X.astype(dtype)
    expected, expected_r = mixture_logpdf(
        X, weights, means, S, covariance_type=kind, return_responsibilities=True
    )
    inputs = [convert(a) for a in (X, weights, means, S)]
    density, r = mixture_logpdf(*inputs, covariance_type=kind, return_responsibilities=True)
    for ours, theirs in ((density, expected), (r, expected_r)):
        assert type(ours) is type(inputs[0])
        assert ours.dtype == inputs[0].dtype
        assert ours.device == inputs[0].device
        np.testing.assert_allclose(
            to_numpy(ours),
            theirs,
            rtol=1e-4 if dtype == np.float32 else 1e-11,
            atol=1e-5 if dtype == np.float32 else 1e-12,
        )
    one = logpdf(inputs[0], inputs[2][0, :], convert(covariance(5)))
    assert one.device == inputs[0].device
    np.testing.assert_allclose(
        to_numpy(one),
        logpdf(X, means[0], covariance(5)),
        rtol=2e-5 if dtype == np.float32 else 1e-12,
    )


def test_mixed_namespaces_are_refused() -> None:
    with pytest.raises(TypeError, match="one array library"):
        logpdf(strict(np.ones((2, 2))), np.zeros(2), np.eye(2))


# -------------------------------------------------------------------------- bad input
def test_a_covariance_that_is_not_positive_definite_says_so() -> None:
    X = np.ones((3, 2))
    singular = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"^covariance is not positive definite"):
        logpdf(X, np.zeros(2), singular)
    with pytest.raises(ValueError, match=r"^covariances\[1\] is not positive definite"):
        component_logpdf(X, np.zeros((3, 2)), np.stack([np.eye(2), singular, np.eye(2)]))
    with pytest.raises(ValueError, match=r"^covariance is not positive definite"):
        logpdf(X, np.zeros(2), -np.eye(2))
    with pytest.raises(ValueError, match="is not positive definite"):
        logpdf(strict(X), strict(np.zeros(2)), strict(singular))
    with pytest.raises(ValueError, match="positive variances"):
        logpdf(X, np.zeros(2), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="not symmetric"):
        logpdf(X, np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]))


@pytest.mark.parametrize("d", [3, 120])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_found(d: int, bad: float) -> None:
    X = np.zeros((300, d))
    X[217, 2] = bad
    with pytest.raises(ValueError, match=r"X has 1 .* at row 217, column 2"):
        logpdf(X, np.zeros(d), np.eye(d))
    with pytest.raises(ValueError, match=r"X has 1 .* at row 217, column 2"):
        mixture_logpdf(X, [0.5, 0.5], np.zeros((2, d)), np.eye(d), covariance_type="tied")
    with pytest.raises(ValueError, match="mean has values that are not finite"):
        logpdf(np.zeros((3, d)), np.full(d, bad), np.eye(d))


def test_shapes_that_disagree_are_named() -> None:
    X = np.ones((4, 3))
    with pytest.raises(ValueError, match="mean must have 3 columns like X, got 2"):
        logpdf(X, np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="covariance must be for 3 columns"):
        logpdf(X, np.zeros(3), np.eye(2))
    with pytest.raises(ValueError, match="covariances must have shape"):
        component_logpdf(X, np.zeros((2, 3)), np.ones((5, 3)))
    with pytest.raises(ValueError, match="say covariance_type"):
        component_logpdf(X, np.zeros((3, 3)), np.eye(3))
    with pytest.raises(ValueError, match="covariance_type must be"):
        component_logpdf(X, np.zeros((3, 3)), np.eye(3), covariance_type="round")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one entry per component"):
        mixture_logpdf(X, [1.0], np.zeros((2, 3)), np.ones((2, 3)))
    for weights in ([0.5, 0.6], [1.5, -0.5]):
        with pytest.raises(ValueError, match="weights must be probabilities"):
            mixture_logpdf(X, weights, np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        logpdf(X[:0], np.zeros(3), np.eye(3))
    with pytest.raises(TypeError, match="X is sparse"):
        logpdf(scipy.sparse.csr_array(X), np.zeros(3), np.eye(3))
