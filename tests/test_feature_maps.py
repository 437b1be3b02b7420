"""Feature maps: their inner products are the kernel, exactly or at the expected rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import KMeans
from sklearn.decomposition import KernelPCA
from sklearn.exceptions import NotFittedError
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise

from cmstats.kernels.gram import median_gamma
from cmstats.models.feature_maps import ExactKernelMap, NystroemMap, RandomFourierMap
from cmstats.models.landmarks import cholesky_basis, random_pivots

_rng = np.random.default_rng(0)
X = _rng.normal(size=(80, 4)) + 1
NEW = _rng.normal(size=(30, 4)) + 1
H = np.eye(80) - 1 / 80

KERNELS: dict[str, Any] = {
    "rbf": lambda a, b: pairwise.rbf_kernel(a, b, gamma=0.2),
    "laplacian": lambda a, b: pairwise.laplacian_kernel(a, b, gamma=0.2),
    "polynomial": lambda a, b: pairwise.polynomial_kernel(a, b, gamma=0.2),
    "cosine": pairwise.cosine_similarity,
    "linear": pairwise.linear_kernel,
    "chi2": lambda a, b: pairwise.chi2_kernel(np.abs(a), np.abs(b), gamma=0.2),
}


def data(kernel: str) -> tuple[Any, Any]:
    return (np.abs(X), np.abs(NEW)) if kernel == "chi2" else (X, NEW)


# ------------------------------------------------------------------------------- exact maps
@pytest.mark.parametrize("kernel", KERNELS)
def test_principal_coordinates_multiply_to_the_centred_kernel(kernel: str) -> None:
    a, b = data(kernel)
    found = ExactKernelMap(kernel, gamma=0.2).fit(a)
    K, K_new = KERNELS[kernel](X, X), KERNELS[kernel](NEW, X)
    Z = found.transform(a)
    np.testing.assert_allclose(Z @ Z.T, H @ K @ H, atol=1e-8 * K.max())
    centred = (K_new - K.mean(axis=0)) @ H
    np.testing.assert_allclose(found.transform(b) @ Z.T, centred, atol=1e-8 * K.max())
    np.testing.assert_allclose(ExactKernelMap(kernel, gamma=0.2).fit_transform(a), Z, atol=1e-7)


@pytest.mark.parametrize("kernel", KERNELS)
def test_cholesky_coordinates_multiply_to_the_kernel(kernel: str) -> None:
    a, b = data(kernel)
    found = ExactKernelMap(kernel, gamma=0.2, basis="cholesky").fit(a)
    Z, scale = found.transform(a), KERNELS[kernel](X, X).max()
    np.testing.assert_allclose(Z @ Z.T, KERNELS[kernel](X, X), atol=1e-9 * scale)
    np.testing.assert_allclose(found.transform(b) @ Z.T, KERNELS[kernel](NEW, X), atol=1e-8 * scale)


def test_principal_coordinates_are_kernel_pca() -> None:
    found = ExactKernelMap("rbf", gamma=0.2).fit(X)
    expected = KernelPCA(5, kernel="rbf", gamma=0.2).fit(X)
    np.testing.assert_allclose(found.eigenvalues_[:5], expected.eigenvalues_, rtol=1e-10)
    np.testing.assert_allclose(
        np.abs(found.transform(NEW)[:, :5]), np.abs(expected.transform(NEW)), atol=1e-8
    )


@pytest.mark.parametrize("basis", ["principal", "cholesky"])
@pytest.mark.parametrize("precomputed", [False, True])
def test_ridge_on_the_coordinates_is_ridge_in_the_rkhs(basis: Any, precomputed: bool) -> None:
    y = np.sin(X[:, 0]) + X[:, 1]
    K, K_new = KERNELS["rbf"](X, X), KERNELS["rbf"](NEW, X)
    feature_map = ExactKernelMap("precomputed" if precomputed else "rbf", gamma=0.2, basis=basis)
    Z = feature_map.fit_transform(K if precomputed else X)
    found = Ridge(0.3).fit(Z, y).predict(feature_map.transform(K_new if precomputed else NEW))
    centre = y.mean()
    dual = KernelRidge(alpha=0.3, kernel="precomputed").fit(H @ K @ H, y - centre)
    expected = dual.predict((K_new - K.mean(axis=0)) @ H) + centre
    np.testing.assert_allclose(found, expected, atol=1e-9)


# ------------------------------------------------------------------------------ Nystroem
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("landmarks", ["uniform", "pivoted_cholesky"])
def test_nystroem_with_all_rows_is_exact(kernel: str, landmarks: Any) -> None:
    a, b = data(kernel)
    found = NystroemMap(kernel, rank=80, landmarks=landmarks, gamma=0.2, random_state=0).fit(a)
    scale = KERNELS[kernel](X, X).max()
    np.testing.assert_allclose(
        found.transform(b) @ found.transform(a).T, KERNELS[kernel](NEW, X), atol=1e-7 * scale
    )


def test_nystroem_multiplies_to_the_projection_on_the_landmarks() -> None:
    found = NystroemMap("rbf", rank=20, gamma=0.2, random_state=0).fit(X)
    M = found.landmarks_
    K = KERNELS["rbf"]
    expected = K(NEW, M) @ np.linalg.solve(K(M, M), K(M, X))
    np.testing.assert_allclose(found.transform(NEW) @ found.transform(X).T, expected, atol=1e-9)
    raw = NystroemMap("rbf", rank=20, gamma=0.2, orthonormal=False, random_state=0).fit(X)
    np.testing.assert_allclose(raw.transform(NEW), K(NEW, raw.landmarks_), atol=1e-12)
    np.testing.assert_array_equal(raw.landmarks_, M)


def test_nystroem_errors_match_scikit_learn() -> None:
    K = KERNELS["rbf"](X, X)

    def error(Z: Any) -> float:
        return float(np.linalg.norm(Z @ Z.T - K))

    ours = np.mean([
        error(NystroemMap("rbf", rank=15, gamma=0.2, random_state=s).fit_transform(X))
        for s in range(20)
    ])  # fmt: skip
    theirs = np.mean([
        error(Nystroem(kernel="rbf", n_components=15, gamma=0.2, random_state=s).fit_transform(X))
        for s in range(20)
    ])  # fmt: skip
    assert 0.85 < ours / theirs < 1.15


def test_chosen_landmarks_beat_uniform_ones_on_clusters() -> None:
    rng = np.random.default_rng(0)
    sizes = [900] + [5] * 20
    A = np.concatenate([rng.normal(size=(n, 3)) * 0.1 + 4 * rng.normal(size=3) for n in sizes])
    K = pairwise.rbf_kernel(A, gamma=0.5)

    def error(landmarks: Any) -> float:
        out = []
        for seed in range(3):
            m = NystroemMap("rbf", rank=40, landmarks=landmarks, gamma=0.5, random_state=seed)
            Z = m.fit_transform(A)
            out.append(np.trace(K - Z @ Z.T))
        return float(np.mean(out))

    uniform = error("uniform")
    assert error("pivoted_cholesky") < 0.2 * uniform
    A = rng.uniform(-1, 1, (2000, 2))
    K = pairwise.rbf_kernel(A, gamma=0.5)
    assert error("kmeans") < 0.5 * error("uniform")


def test_dependent_landmarks_are_left_out() -> None:
    A = np.repeat(X[:10], 8, axis=0)
    found = NystroemMap("rbf", rank=80, gamma=0.2).fit(A)
    assert found.transform(A).shape == (80, 10)
    assert found.n_landmarks_ == 80
    np.testing.assert_allclose(
        found.transform(A) @ found.transform(A).T, KERNELS["rbf"](A, A), atol=1e-10
    )


def test_kmeans_landmarks_are_centres() -> None:
    A = np.concatenate([X + 30 * i for i in range(6)])
    found = NystroemMap("rbf", rank=6, landmarks="kmeans", gamma=1e-3, random_state=1).fit(A)
    inertia = ((A[:, None] - found.landmarks_[None]) ** 2).sum(-1).min(axis=1).sum()
    best = KMeans(6, n_init=5, random_state=0).fit(A).inertia_
    assert inertia < 500 * best


@given(arrays(np.float64, (12, 2), elements=st.floats(-3, 3)), st.integers(1, 12))
def test_any_rows_have_finite_coordinates(A: Any, rank: int) -> None:
    found = NystroemMap("rbf", rank=rank, gamma=0.5, random_state=0).fit(A)
    Z = found.transform(A)
    assert np.isfinite(Z).all()
    assert (np.einsum("ij,ij->i", Z, Z) <= 1 + 1e-6).all()


def test_random_pivots_draw_like_one_at_a_time() -> None:
    # Two far groups of 1 and 3 equal rows: the first pivot is of the large one 3 times in 4,
    # and the second is of the other.
    K = np.kron(np.eye(2), np.ones((3, 3)))[2:, 2:]
    first = []
    for seed in range(300):
        pivots = random_pivots(lambda r: K[r], np.ones(4), 2, np.random.RandomState(seed))
        assert {int(p) == 0 for p in pivots} == {True, False}
        first.append(int(pivots[0]) == 0)
    assert 0.15 < np.mean(first) < 0.35


@pytest.mark.parametrize("rank", [1, 7, 20])
def test_a_basis_of_any_rank_reproduces_its_matrix(rank: int) -> None:
    A = np.random.default_rng(rank).normal(size=(20, rank))
    kept, L, F = cholesky_basis(A @ A.T, 2.2e-16, "linear")
    assert L.shape == (rank, rank)
    np.testing.assert_allclose(F @ F.T, A @ A.T, atol=1e-11)
    np.testing.assert_allclose(L @ L.T, (A @ A.T)[np.ix_(kept, kept)], atol=1e-11)


# ------------------------------------------------------------------------ random features
@pytest.mark.parametrize("kernel", ["rbf", "laplacian"])
def test_random_fourier_error_falls_like_one_over_the_root_of_the_rank(kernel: Any) -> None:
    K = KERNELS[kernel](X, X)
    errors = []
    for rank in (100, 10000):
        Z = [
            RandomFourierMap(kernel, rank=rank, gamma=0.2, random_state=s).fit_transform(X)
            for s in range(4)
        ]
        errors.append(np.mean([np.sqrt(np.mean((z @ z.T - K) ** 2)) for z in Z]))
    assert 0.08 < errors[1] / errors[0] < 0.12
    assert errors[1] < 0.01


def test_random_fourier_features_do_not_lose_digits_far_from_zero() -> None:
    A = (X + 1000).astype(np.float32)
    Z = RandomFourierMap("rbf", rank=8000, gamma=0.2, random_state=0).fit_transform(A)
    assert Z.dtype == np.float32
    assert np.abs(Z @ Z.T - KERNELS["rbf"](A.astype(float), A.astype(float))).max() < 0.1
    np.testing.assert_allclose((Z**2).sum(axis=1), 1, rtol=1e-5)


# ------------------------------------------------------------------------------ bandwidths
def test_the_median_distance_sets_gamma() -> None:
    for kernel, distances in (
        ("rbf", pairwise.euclidean_distances(X, squared=True)),
        ("laplacian", pairwise.manhattan_distances(X)),
        ("chi2", -pairwise.additive_chi2_kernel(np.abs(X))),
    ):
        expected = 1 / np.median(distances[np.triu_indices(80, 1)])
        a = data(kernel)[0]
        assert ExactKernelMap(kernel).fit(a).gamma_ == pytest.approx(expected, rel=1e-10)
        assert median_gamma(a, kernel=kernel) == pytest.approx(expected, rel=1e-10)
    assert ExactKernelMap("polynomial").fit(X).gamma_ is None
    assert NystroemMap("rbf", rank=5).fit(np.ones((9, 2))).gamma_ == 1.0
    with pytest.raises(ValueError, match="has no distance"):
        median_gamma(X, kernel="cosine")


# ------------------------------------------------------------------------------- bad input
def test_bad_input_is_told_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="'gamma' parameter"):
        NystroemMap(gamma=0).fit(X)
    with pytest.raises(ValueError, match="chi2 kernel needs values of at least 0, and X has"):
        NystroemMap("chi2", rank=5).fit(X)
    fitted = NystroemMap("chi2", rank=5).fit(np.abs(X))
    bad = np.abs(NEW)
    bad[7, 2] = -1.0
    with pytest.raises(ValueError, match="row 7, column 2"):
        fitted.transform(bad)
    with pytest.raises(ValueError, match="expecting 4 features"):
        fitted.transform(NEW[:, :3])
    with pytest.raises(NotFittedError):
        NystroemMap().transform(X)
    for basis in ("principal", "cholesky"):
        with pytest.raises(ValueError, match="sigmoid kernel is not positive semi-definite"):
            ExactKernelMap("sigmoid", gamma=2.0, coef0=-3.0, basis=basis).fit(X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not symmetric"):
        ExactKernelMap("precomputed").fit(np.triu(KERNELS["rbf"](X, X)))
    with pytest.raises(ValueError, match="makes new rows by averaging"):
        NystroemMap("precomputed", landmarks="kmeans", rank=5).fit(KERNELS["rbf"](X, X))
    with pytest.raises(MemoryError, match="GiB"):
        ExactKernelMap().fit(np.broadcast_to(0.0, (3_000_000, 2)))
    with pytest.warns(UserWarning, match="rank=100 is more than the 80 rows"):
        NystroemMap(rank=100).fit(X)
    with pytest.warns(UserWarning, match="sees no difference"):
        assert ExactKernelMap().fit(np.ones((5, 2))).transform(np.ones((2, 2))).shape == (2, 1)


# ------------------------------------------------------------------------ arrays of others


@pytest.mark.parametrize("orthonormal", [True, False])
def test_a_kernel_that_is_not_semidefinite_is_found_with_and_without_the_factor(
    orthonormal: bool,
) -> None:
    X = np.random.default_rng(0).normal(size=(60, 4))
    with pytest.raises(ValueError, match="not positive semi-definite"):
        NystroemMap(
            "sigmoid", gamma=2.0, coef0=-3.0, rank=30, orthonormal=orthonormal, random_state=0
        ).fit(X)


@pytest.mark.parametrize("feature_map", [NystroemMap("chi2", rank=20), ExactKernelMap("chi2")])
def test_a_failed_fit_leaves_the_map_as_it_was(feature_map: Any) -> None:
    A = np.random.default_rng(0).random((30, 4))
    feature_map.fit(A)
    expected, before = feature_map.transform(A), dict(vars(feature_map))
    for wrong in (-A, -A[:, :2], np.full((5, 4), np.nan)):
        for fit in (feature_map.fit, feature_map.fit_transform):
            with pytest.raises(ValueError, match=r"Negative values|NaN"):
                fit(wrong)
    assert vars(feature_map) == before
    np.testing.assert_array_equal(feature_map.transform(A), expected)
    assert vars(feature_map.fit(A[:, :3]))["n_features_in_"] == 3


@pytest.mark.parametrize("cls", [ExactKernelMap, NystroemMap])
def test_rows_that_the_kernel_does_not_take_leave_the_map_as_it_was(cls: Any) -> None:
    A = np.random.default_rng(0).uniform(size=(40, 4))
    made = cls("chi2").fit(A)
    before = made.transform(A)
    for wrong in (-A, np.where(np.arange(160).reshape(40, 4) == 150, -1.0, A)):
        with pytest.raises(ValueError, match=r"[Nn]egative"):
            made.fit(wrong)
        np.testing.assert_array_equal(made.transform(A), before)
