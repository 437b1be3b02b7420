"""KernelCCA: the dual problem, its approximations, and everything CCA has."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold

from cmstats import retrieval_report
from cmstats.kernels import linalg
from cmstats.kernels.gram import gram
from cmstats.kernels.linalg import LARGE, _leading, svd
from cmstats.models.cca import CCA
from cmstats.models.feature_maps import NystroemMap
from cmstats.models.kernel_cca import KernelCCA
from cmstats.models.pipeline import TwoViewPipeline
from cmstats.moments import Moments
from cmstats.moments.shrinkage import SHRINKAGES

KINDS = ("cosine", "weighted_cosine", "csa", "likelihood_ratio")

_rng = np.random.default_rng(3)
Z = _rng.normal(size=(150, 2))
X = np.c_[Z, _rng.normal(size=(150, 2))]
Y = np.c_[Z**2, np.sin(2 * Z[:, :1]), _rng.normal(size=(150, 1))]
TEST_X, TEST_Y = X[100:], Y[100:]
X, Y = X[:100], Y[:100]

MAPS: dict[str, dict[str, Any]] = {
    "exact": {"approximation": "exact"},
    "nystroem": {"approximation": "nystroem", "rank": 30},
    "kmeans": {"approximation": "nystroem", "rank": 30, "landmarks": "kmeans"},
    "pivoted": {"approximation": "nystroem", "rank": 30, "landmarks": "pivoted_cholesky"},
    "raw": {"approximation": "nystroem", "rank": 30, "orthonormal": False},
    "rff": {"approximation": "rff", "rank": 40},
    "mixed": {"approximation": ("exact", "rff"), "rank": (7, 20), "kernel": ("rbf", "laplacian")},
}


def model(name: str = "exact", **kwargs: Any) -> KernelCCA:
    return KernelCCA(3, random_state=0, **{"shrinkage": 0.05, **MAPS[name], **kwargs})


def dual_values(Kx: Any, Ky: Any, s: tuple[float, float], m: int) -> Any:
    """Singular values of max a'KxKy b subject to a'((1-s)K^2 + s tr(K)/m K)a = 1."""
    n = len(Kx)
    H = np.eye(n) - 1 / n
    factors = []
    for K, shrinkage in ((Kx, s[0]), (Ky, s[1])):
        values, V = np.linalg.eigh(H @ K @ H)
        keep = values > 1e-11 * values[-1]
        values, V = values[keep], V[:, keep]
        ridge = shrinkage * values.sum() / m
        factors.append(V * (values / np.sqrt((1 - shrinkage) * values**2 + ridge * values)))
    return np.linalg.svd(factors[0].T @ factors[1])[1] * np.sqrt((1 - s[0]) * (1 - s[1]))


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "polynomial", "cosine", "linear", "chi2"])
def test_exact_equals_the_dual_problem(kernel: str) -> None:
    a, b = (np.abs(X), np.abs(Y)) if kernel == "chi2" else (X, Y)
    gamma = (0.3, 0.2)
    found = KernelCCA(5, kernel=kernel, gamma=gamma, shrinkage=(0.02, 0.1)).fit(a, b)
    Kx, Ky = (gram(v, kernel=kernel, gamma=g) for v, g in zip((a, b), gamma, strict=True))
    expected = dual_values(Kx, Ky, (0.02, 0.1), 100)[: found.n_components_]
    np.testing.assert_allclose(found.singular_values_, expected, atol=1e-10)


def test_the_linear_kernel_is_cca_with_the_ridge_of_n_columns() -> None:
    found = KernelCCA(3, kernel="linear", shrinkage=0.0, approximation="exact")
    with pytest.warns(UserWarning, match="whatever the data|linearly"):
        found.set_params(kernel="rbf").fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.set_params(kernel="linear").fit(X, Y)
    plain = CCA(3).fit(X, Y)
    np.testing.assert_allclose(found.correlations_, plain.correlations_, atol=1e-8)
    u, v = found.transform(TEST_X, TEST_Y)
    for a, b in zip((u, v), plain.transform(TEST_X, TEST_Y), strict=True):
        np.testing.assert_allclose(np.abs((a * b).sum(0)), (b * b).sum(0), rtol=1e-6)


@pytest.mark.parametrize("landmarks", ["uniform", "pivoted_cholesky", "kmeans"])
def test_all_points_as_landmarks_are_exact(landmarks: str) -> None:
    exact = model().fit(X, Y)
    found = model("nystroem", rank=100, landmarks=landmarks).fit(X, Y)
    np.testing.assert_allclose(found.singular_values_, exact.singular_values_, atol=1e-10)
    for a, b in zip(found.transform(TEST_X, TEST_Y), exact.transform(TEST_X, TEST_Y), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.ordinary
def test_random_features_approach_exact() -> None:
    # tr(S)/m has the number of features for m: the ridge of n rows is that of s m / n.
    exact = model(gamma=0.2, shrinkage=0.1).fit(X, Y).singular_values_
    errors = []
    for rank in (20, 600):
        ratio = rank / 100
        s = 0.1 * ratio / (0.9 + 0.1 * ratio)
        one = [
            model("rff", rank=rank, gamma=0.2, shrinkage=s).set_params(random_state=seed).fit(X, Y)
            for seed in range(4)
        ]
        errors.append(np.mean([np.abs(f.singular_values_ - exact).max() for f in one]))
    assert errors[1] < 0.4 * errors[0]


@pytest.mark.parametrize("name", ["exact", "mixed"])
def test_score_equals_score_moments_of_mapped_rows(name: str) -> None:
    found = model(name).fit(X, Y)
    moments = Moments.from_data(x=found.x_map_.transform(TEST_X), y=found.y_map_.transform(TEST_Y))
    assert found.score(TEST_X, TEST_Y) == pytest.approx(found.score_moments(moments), abs=1e-10)
    u, v = found.transform(TEST_X, TEST_Y)
    direct = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(u.T, v.T, strict=True)])
    assert found.score(TEST_X, TEST_Y) == pytest.approx(direct, abs=1e-8)


@pytest.mark.parametrize("name", MAPS)
def test_variates_are_those_of_cca_on_the_maps(name: str) -> None:
    found = model(name).fit(X, Y)
    z = found.x_map_.transform(TEST_X)
    expected = (z - found.x_mean_) @ found.x_weights_
    np.testing.assert_allclose(found.transform(TEST_X), expected, atol=1e-8)
    np.testing.assert_allclose(found.transform(X).std(axis=0, ddof=1), 1, atol=1e-9)
    np.testing.assert_allclose(found.transform(y=Y).std(axis=0, ddof=1), 1, atol=1e-9)
    np.testing.assert_allclose(
        np.diag(np.corrcoef(found.transform(X).T, found.transform(y=Y).T)[:3, 3:]),
        found.correlations_,
        atol=1e-9,
    )
    assert not hasattr(found, "predict")


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_multiply_to_similarities(kind: Any) -> None:
    found = model().fit(X, Y)
    U, V = found.embed(TEST_X, TEST_Y[:7], kind=kind)
    np.testing.assert_allclose(found.similarity(TEST_X, TEST_Y[:7], kind=kind), U @ V.T, atol=1e-12)
    assert found.fuse(TEST_X, TEST_Y).shape == (50, 3)
    assert found.x_loadings_.shape == (found.x_map_._n_features_out, 3)


@pytest.mark.ordinary
def test_shrinkage_found_by_folds_is_the_best_of_the_grid() -> None:
    found = model("nystroem", shrinkage="cv", cv=4).fit(X, Y)
    zx, zy = found.x_map_.transform(X), found.y_map_.transform(Y)
    ids = np.arange(100) % 4
    grid = [s[0] for s in found.cv_shrinkages_]
    scores = []
    for s in grid:
        one = [
            CCA(3, shrinkage=s).fit(zx[ids != k], zy[ids != k]).score(zx[ids == k], zy[ids == k])
            for k in range(4)
        ]
        scores.append(np.mean(one))
    np.testing.assert_allclose(found.cv_scores_.mean(axis=1), scores, atol=1e-8)
    assert found.shrinkage_ == (grid[int(np.argmax(scores))],) * 2


def test_ledoit_wolf_on_the_maps_is_reported_as_the_shrinkage_that_repeats_it() -> None:
    auto = model(shrinkage="auto").fit(X, Y)
    again = model(shrinkage=auto.shrinkage_).fit(X, Y)
    np.testing.assert_allclose(again.singular_values_, auto.singular_values_, atol=1e-12)


@pytest.mark.parametrize("shrinkage", [0.0, 1.0])
def test_no_and_full_shrinkage(shrinkage: float) -> None:
    found = model("nystroem", rank=10, shrinkage=shrinkage).fit(X, Y)
    zx, zy = found.x_map_.transform(X), found.y_map_.transform(Y)
    plain = CCA(3, shrinkage=shrinkage).fit(zx, zy)
    np.testing.assert_allclose(found.correlations_, plain.correlations_, atol=1e-7)


def test_precomputed_equals_callable_equals_named() -> None:
    def kernel(a: Any, b: Any) -> Any:
        return np.exp(-0.3 * ((a[:, None] - b[None]) ** 2).sum(-1))

    named = model(gamma=0.3)
    Kx, Ky = kernel(X, X), kernel(Y, Y)
    for extra in ({}, {"approximation": "nystroem", "rank": 40},
                  {"approximation": "nystroem", "rank": 40, "landmarks": "pivoted_cholesky"},
                  {"approximation": "nystroem", "rank": 40, "orthonormal": False}):  # fmt: skip
        expected = clone(named).set_params(**extra).fit(X, Y)
        called = clone(named).set_params(kernel=kernel, **extra).fit(X, Y)
        given = clone(named).set_params(kernel="precomputed", **extra).fit(Kx, Ky)
        for found in (called, given):
            np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-9)
        u = expected.transform(TEST_X)
        np.testing.assert_allclose(called.transform(TEST_X), u, atol=1e-7)
        np.testing.assert_allclose(given.transform(kernel(TEST_X, X)), u, atol=1e-7)


def test_memory_maps_give_what_arrays_give(tmp_path: Path) -> None:
    paths = [tmp_path / "x.npy", tmp_path / "y.npy"]
    np.save(paths[0], X.astype(np.float32))
    np.save(paths[1], Y.astype(np.float32))
    x, y = (np.load(path, mmap_mode="r") for path in paths)
    for name in ("exact", "nystroem", "kmeans", "pivoted", "rff"):
        lazy, plain = model(name).fit(x, y), model(name).fit(np.array(x), np.array(y))
        np.testing.assert_allclose(lazy.correlations_, plain.correlations_, atol=1e-6)
        np.testing.assert_allclose(lazy.transform(x), plain.transform(np.array(x)), atol=1e-3)
        assert lazy.transform(x).dtype == np.float32


def test_a_bad_value_on_a_disk_is_named_with_its_row(tmp_path: Path) -> None:
    bad = np.tile(Y, (40, 1))
    bad[3777, 2] = np.nan
    np.save(tmp_path / "y.npy", bad)
    y = np.load(tmp_path / "y.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="y has 1 NaN value, the first at row 3777, column 2"):
        model("nystroem", gamma=0.1).fit(np.tile(X, (40, 1)), y)


def test_another_shrinkage_costs_no_pass_over_the_rows() -> None:
    found = model("nystroem", shrinkage=0.3).fit(X, Y)
    refit = model("nystroem", shrinkage=0.05).fit(X, Y)
    found.set_params(shrinkage=0.05).fit_moments(found.moments_)
    np.testing.assert_allclose(found.transform(TEST_X), refit.transform(TEST_X), atol=1e-12)
    assert found.n_features_in_ == 4


def test_a_pipeline_of_maps_and_cca_is_kernel_cca() -> None:
    found = model("nystroem").fit(X, Y)
    maps = [NystroemMap(rank=30, random_state=m.random_state) for m in (found.x_map_, found.y_map_)]
    pipe = TwoViewPipeline(CCA(3, shrinkage=0.05), x=maps[0], y=maps[1]).fit(X, Y)
    np.testing.assert_allclose(pipe.model_.correlations_, found.correlations_, atol=1e-9)


def test_splitters_and_folds() -> None:
    found = model("nystroem", shrinkage="cv", cv=KFold(3)).fit(X, Y)
    assert found.cv_scores_.shape == (len(SHRINKAGES), 3)


# ----------------------------------------------------------- a truncated decomposition
@pytest.mark.ordinary
@pytest.mark.parametrize("shape", [(700, 900), pytest.param((900, 700), marks=pytest.mark.slow)])
@pytest.mark.parametrize("spectrum", ["slow", "equal", "fast", "deficient"])
@pytest.mark.parametrize("krylov", [True, False])
def test_few_directions_of_a_large_block_are_those_of_the_full_decomposition(
    shape: tuple[int, int], spectrum: str, krylov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linalg, "KRYLOV", 0 if krylov else 3000)
    rng = np.random.default_rng(0)
    r, k = min(shape), 20
    s = {
        "slow": np.linspace(1, 0, r),
        "equal": np.r_[np.ones(300), np.linspace(0.9, 0, r - 300)],
        "fast": 0.8 ** np.arange(r),
        "deficient": np.r_[np.linspace(1, 0.5, 30), np.zeros(r - 30)],
    }[spectrum]
    U, _ = np.linalg.qr(rng.normal(size=(shape[0], r)))
    V, _ = np.linalg.qr(rng.normal(size=(shape[1], r)))
    M = (U * s) @ V.T
    found = _leading(M, k, LARGE)
    if found is None:  # a hard spectrum falls back to the full decomposition
        assert krylov
        assert spectrum in ("slow", "equal")
        return
    u, values, vt = found
    np.testing.assert_allclose(values, s[:k], atol=1e-12)
    np.testing.assert_allclose(u.T @ u, np.eye(k), atol=1e-10)
    np.testing.assert_allclose(vt @ vt.T, np.eye(k), atol=1e-10)
    np.testing.assert_allclose(M @ vt.T, u * values, atol=1e-9)
    if spectrum == "fast":
        full = svd(M)
        np.testing.assert_allclose(np.abs((u * full[0][:, :k]).sum(0)), 1, atol=1e-6)


def test_small_blocks_and_many_components_take_the_full_decomposition() -> None:
    M = np.random.default_rng(0).normal(size=(650, 650))
    assert _leading(M[:100], 3, LARGE) is None
    assert _leading(M, None, LARGE) is None
    assert _leading(M, 200, LARGE) is None


# ------------------------------------------------------------------------------ bad input
def test_bad_input_is_told_in_one_sentence() -> None:
    for kwargs, sentence in (
        ({"gamma": 0.0}, "gamma"),
        ({"gamma": (1.0, -1.0)}, "gamma"),
        ({"kernel": "rbff"}, "kernel"),
        ({"approximation": "exactly"}, "approximation='exactly' is unknown"),
        ({"approximation": "rff", "kernel": "cosine"}, "kernel"),
        ({"rank": 0, "approximation": "nystroem"}, "rank"),
        ({"kernel": ("rbf", "rbf", "rbf")}, r"must be one value or an \(x, y\) pair"),
        ({"landmarks": "random", "approximation": "nystroem"}, "landmarks"),
        ({"shrinkage": 2.0}, "shrinkage"),
    ):
        with pytest.raises(ValueError, match=sentence):
            KernelCCA(2, **kwargs).fit(X, Y)
    with pytest.raises(ValueError, match="chi2 kernel needs values of at least 0, and y has a neg"):
        KernelCCA(2, kernel=("rbf", "chi2")).fit(X, Y)
    with pytest.raises(ValueError, match="not positive semi-definite"):
        KernelCCA(2, kernel="sigmoid", gamma=2.0, coef0=-3.0).fit(X, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        KernelCCA(2).fit(X, Y[:50])
    with pytest.raises(ValueError, match="target y is None"):
        KernelCCA(2).fit(X, None)
    with pytest.raises(ValueError, match="square matrix"):
        KernelCCA(2, kernel="precomputed").fit(X, Y)
    with pytest.raises(ValueError, match="no maps yet"):
        KernelCCA(2).fit_moments(Moments.from_data(x=X, y=Y))
    with pytest.raises(ValueError, match="its map makes 30"):
        model("nystroem").fit(X, Y).fit_moments(Moments.from_data(x=X, y=Y))
    with pytest.raises(ValueError, match="cannot be exact"):
        model("exact").partial_fit(X, Y)
    with pytest.raises(NotFittedError):
        KernelCCA(2).transform(X)
    with pytest.raises(ValueError, match="give X, y or both"):
        model().fit(X, Y).transform()


def test_an_exact_fit_that_does_not_fit_says_what_to_use() -> None:
    wide = np.broadcast_to(np.float32(0), (2_000_000, 3))
    with pytest.raises(MemoryError, match=r"2000000 rows needs about .* GiB .*'nystroem'"):
        KernelCCA(2, approximation="exact").fit(wide, wide)


def test_a_rank_above_the_rows_is_reduced_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="rank=500 is more than the 100 rows"):
        found = KernelCCA(2, approximation="nystroem", rank=500, shrinkage=0.1).fit(X, Y)
    assert found.x_map_.n_landmarks_ == 100


def test_more_components_than_there_are_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="exist, the rank of the"):
        found = KernelCCA(10, kernel="linear", shrinkage=0.1).fit(X, Y)
    assert found.n_components_ == 4


def test_a_view_that_does_not_vary_gets_weight_zero() -> None:
    with pytest.warns(UserWarning, match="nothing to correlate"):
        found = KernelCCA(2).fit(X, np.ones((100, 2)))
    assert np.isfinite(found.transform(X)).all()


# ---------------------------------------------------------------------- arrays of others


def test_a_ridge_does_not_depend_on_the_rank_in_single_precision() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(203, 2))
    X = np.c_[np.sin(z), z**2] @ rng.normal(size=(4, 3)) + 0.3 * rng.normal(size=(203, 3))
    Y = np.c_[np.cos(z), z] @ rng.normal(size=(4, 3)) + 0.3 * rng.normal(size=(203, 3))
    double, single = (
        KernelCCA(2, shrinkage="auto", gamma=0.05).fit(X.astype(t), Y.astype(t))
        for t in (np.float64, np.float32)
    )
    assert single.moments_.widths[0] < double.moments_.widths[0]
    np.testing.assert_allclose(single.correlations_, double.correlations_, atol=1e-5)
    np.testing.assert_allclose(single.shrinkage_, double.shrinkage_, atol=1e-5)


# ------------------------------------------------------------------- what it chooses itself
def curved(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Two views of a point on a circle, whose distances the median heuristic smooths over."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, (n, 2))
    X = np.c_[np.cos(3 * angle), np.sin(angle)] + 0.05 * rng.normal(size=(n, 4))
    return X, np.c_[angle, np.cos(angle)] + 0.05 * rng.normal(size=(n, 4))


@pytest.mark.ordinary
def test_bandwidths_are_multiples_of_the_median_chosen_by_retrieval() -> None:
    X, Y = curved(120)
    plain = KernelCCA(20, shrinkage=0.03, random_state=0).fit(X, Y)
    model = KernelCCA(20, shrinkage=0.03, gamma="cv", random_state=0).fit(X, Y)
    best = model.cv_gammas_[int(model.cv_gamma_scores_.mean(axis=1).argmax())]
    for g, view in zip(best, "xy", strict=True):
        ratio = getattr(model, f"{view}_map_").gamma_ / getattr(plain, f"{view}_map_").gamma_
        assert ratio == pytest.approx(g, rel=0.2)  # each is the median of a sample
    assert model.cv_scores_.shape == (1, 5)
    A, B = curved(100, seed=1)
    kind: Any = {"kind": "likelihood_ratio"}
    ranks = [retrieval_report(*m.embed(A, B, **kind)).loc["mean", "MRR"] for m in (plain, model)]
    assert ranks[1] >= ranks[0]


def test_components_and_shrinkage_are_chosen_by_the_ranks_of_held_out_rows() -> None:
    X, Y = curved(120)
    how: Any = {"gamma": 1.0, "approximation": "nystroem", "rank": 30, "random_state": 0}
    model = KernelCCA("cv", shrinkage="cv", cv=3, **how).fit(X, Y)
    tried = np.flatnonzero(~np.isnan(model.cv_scores_).any(axis=1))
    assert len(tried) % 5 == 0
    assert 0 < len(tried) < len(model.cv_scores_)
    at = int(tried[model.cv_scores_[tried].mean(axis=1).argmax()])
    assert model.shrinkage_ == pytest.approx(model.cv_shrinkages_[at])
    assert model.n_components_ == min(model.cv_n_components_[at], 30)
    # By hand, with the maps of all rows.
    s, k = model.cv_shrinkages_[at], model.cv_n_components_[at]
    held = np.arange(120) % 3 == 1
    x, y = model.x_map_.transform(X), model.y_map_.transform(Y)
    one = KernelCCA(k, shrinkage=s, **how).fit(X, Y)
    one.fit_moments(Moments.from_data(x=x[~held], y=y[~held]))
    u, v = one.embed(X[held], Y[held], kind="likelihood_ratio")
    assert model.cv_scores_[at, 1] == pytest.approx(retrieval_report(u, v).loc["mean", "MRR"])


def test_a_view_without_a_bandwidth_is_left_as_it_is() -> None:
    X, Y = curved(60)
    how: Any = {"shrinkage": 0.1, "cv": 3, "random_state": 0}
    model = KernelCCA(3, kernel=("rbf", "linear"), gamma="cv", **how).fit(X, Y)
    assert {g for _, g in model.cv_gammas_} == {1.0}
    fixed = KernelCCA(3, gamma=("cv", 0.5), **how).fit(X, Y)
    assert fixed.y_map_.gamma_ == 0.5
    with pytest.raises(ValueError, match="neither view has one"):
        KernelCCA(3, kernel="linear", gamma="cv", **how).fit(X, Y)


@pytest.mark.ordinary
def test_a_choice_takes_few_landmarks_where_a_fit_is_exact() -> None:
    X, Y = curved(1100)
    assert KernelCCA(2).fit(X[:990], Y[:990]).x_map_.n_landmarks_ == 990
    model = KernelCCA(2, shrinkage=("cv", 0.1), cv=2, rank=40, random_state=0).fit(X, Y)
    assert model.x_map_.n_landmarks_ == 40
