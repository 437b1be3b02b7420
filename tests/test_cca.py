"""CCA: published numbers, identities, invariances, what the methods mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf_shrinkage, oas
from sklearn.cross_decomposition import CCA as ScikitCCA
from sklearn.datasets import load_linnerud
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cmstats import CCA, Moments, canonical_correlation_test, retrieval_report

KINDS = ["cosine", "weighted_cosine", "csa", "likelihood_ratio"]
SOLVERS = {"scatter": "moments", "root": "svd"}
form = pytest.mark.parametrize("form", list(SOLVERS))


def make(n: int = 90, p: int = 5, q: int = 4, seed: int = 0, cond: float = 1.0) -> tuple[Any, Any]:
    """Two views with correlations, x of the condition number `cond`."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, min(p, q)))
    X = np.c_[Z, rng.normal(size=(n, p - Z.shape[1]))] + 0.7 * rng.normal(size=(n, p))
    Q = np.linalg.qr(rng.normal(size=(p, p)))[0]
    X = X * np.geomspace(1, 1 / cond, p) @ Q + rng.normal(size=p)
    Y = Z @ rng.normal(size=(Z.shape[1], q)) + 2 * rng.normal(size=(n, q)) + 5
    return X, Y


@pytest.fixture
def views() -> tuple[Any, Any]:
    return make()


def joint_covariance(X: Any, Y: Any, sx: float, sy: float) -> tuple[Any, Any, Any]:
    """The coherently shrunken covariance blocks, by their definition."""
    p, q = X.shape[1], Y.shape[1]
    S = np.cov(np.c_[X, Y].T)
    xx, yy, xy = S[:p, :p], S[p:, p:], S[:p, p:]
    return (
        (1 - sx) * xx + sx * np.trace(xx) / p * np.eye(p),
        (1 - sy) * yy + sy * np.trace(yy) / q * np.eye(q),
        np.sqrt((1 - sx) * (1 - sy)) * xy,
    )


def reference(X: Any, Y: Any, sx: float = 0.0, sy: float = 0.0) -> tuple[Any, Any, Any, Any]:
    """Canonical directions by generalised eigenvectors; training correlations; singular values."""
    xx, yy, xy = joint_covariance(X, Y, sx, sy)
    k = min(xy.shape)
    values, B = scipy.linalg.eigh(xy.T @ np.linalg.solve(xx, xy), yy)
    values, B = np.sqrt(np.clip(values[::-1][:k], 0, None)), B[:, ::-1][:, :k]
    A = np.linalg.solve(xx, xy @ B)
    U, V = (X - X.mean(0)) @ A, (Y - Y.mean(0)) @ B
    A, B = A / U.std(0, ddof=1), B / V.std(0, ddof=1)
    sign = np.sign(np.take_along_axis(A, np.abs(A).argmax(0)[None], 0))
    correlations = np.array([np.corrcoef(u, v)[0, 1] for u, v in zip(U.T, V.T, strict=True)])
    return A * sign, B * sign, correlations, values


# ---------------------------------------------------------------------------- goldens
def test_linnerud_gives_the_published_numbers() -> None:
    X, Y = load_linnerud(return_X_y=True)
    for solver in SOLVERS.values():
        cca = CCA(solver=solver).fit(X, Y)
        np.testing.assert_allclose(
            cca.correlations_, [0.79560815, 0.20055604, 0.07257029], atol=5e-9
        )


# Signs are arbitrary in the publication: component by component the sign rule decides.
MMREG_X = np.array([
    [-1.2538339, -0.6214776, -0.6616896],
    [0.3513499, -1.1876866, 0.8267210],
    [-1.2624204, 2.0272641, 2.0002283],
])  # fmt: skip
MMREG_Y = np.array([
    [-0.044620600, -0.004910024, 0.021380576],
    [-0.035877112, 0.042071478, 0.091307329],
    [-0.023417185, 0.004229478, 0.009398182],
    [-0.005025152, -0.085162184, -0.109835014],
    [-0.632119234, 1.084642326, -1.794647036],
])  # fmt: skip
MMREG_LOADINGS = np.array([
    [-0.90404631, -0.3896883, -0.1756227],
    [-0.02084327, -0.7087386, 0.7051632],
    [-0.56715106, 0.3508882, 0.7451289],
])  # fmt: skip


@form
def test_mmreg_gives_the_published_numbers(form: str, data_file: Callable[[str], Path]) -> None:
    data = np.load(data_file("mmreg.npz"))
    cca = CCA(solver=SOLVERS[form]).fit(data["X"], data["Y"])
    np.testing.assert_allclose(cca.correlations_, [0.4640861, 0.1675092, 0.1039911], atol=5e-8)
    sign = np.sign(np.sum(cca.x_weights_ * MMREG_X, axis=0))
    np.testing.assert_allclose(sign * cca.x_weights_, MMREG_X, atol=5.1e-8)
    np.testing.assert_allclose(sign * cca.y_weights_, MMREG_Y, atol=5.1e-10)
    np.testing.assert_allclose(sign * cca.x_loadings_, MMREG_LOADINGS, atol=5.1e-8)


@pytest.mark.slow
def test_wikipedia_retrieval_gives_the_published_precision(
    data_file: Callable[[str], Path],
) -> None:
    data = np.load(data_file("wikipedia_rasiwasia2010.npz"))
    labels = data["y_te"] if "y_te" in data else data["test_labels"]
    cca = CCA(5, shrinkage=0.01).fit(data["I_tr"], data["T_tr"])
    U, V = cca.embed(data["I_te"], data["T_te"], kind="cosine")
    found = retrieval_report(U, V, labels=labels)["mAP"]
    assert found["x -> y"] == pytest.approx(0.249, abs=0.003)
    assert found["y -> x"] == pytest.approx(0.195, abs=0.003)


# ------------------------------------------------------------------------- references
@form
@pytest.mark.parametrize("shrinkage", [(0.0, 0.0), (0.3, 0.3), (0.0, 0.9), (0.5, 0.01)])
def test_directions_are_those_of_the_generalised_eigenproblem(
    form: str, shrinkage: tuple[float, float], views: Any
) -> None:
    X, Y = views
    cca = CCA(shrinkage=shrinkage, solver=SOLVERS[form]).fit(X, Y)
    A, B, correlations, values = reference(X, Y, *shrinkage)
    np.testing.assert_allclose(cca.correlations_, correlations, atol=1e-9)
    np.testing.assert_allclose(cca.singular_values_, values, atol=1e-9)
    np.testing.assert_allclose(cca.x_weights_, A, atol=1e-7)
    np.testing.assert_allclose(cca.y_weights_, B, atol=1e-7)


def test_correlations_equal_scikit_learns_cca(views: Any) -> None:
    X, Y = views
    other = ScikitCCA(2, tol=1e-12, max_iter=20_000).fit(X, Y)
    U, V = other.transform(X, Y)
    expected = [np.corrcoef(u, v)[0, 1] for u, v in zip(U.T, V.T, strict=True)]
    np.testing.assert_allclose(CCA(2).fit(X, Y).correlations_, expected, atol=1e-5)


@form
def test_full_shrinkage_gives_the_directions_of_pls_svd(form: str, views: Any) -> None:
    X, Y = views
    cca = CCA(shrinkage=1.0, solver=SOLVERS[form]).fit(X, Y)
    u, _, vt = np.linalg.svd((X - X.mean(0)).T @ (Y - Y.mean(0)), full_matrices=False)
    for found, expected in ((cca.x_weights_, u), (cca.y_weights_, vt.T)):
        cosines = np.sum(found * expected, axis=0) / np.linalg.norm(found, axis=0)
        np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-10)
    assert cca.transform(X).std(0, ddof=1) == pytest.approx(1)


@form
def test_scaling_equals_standardising_beforehand(form: str, views: Any) -> None:
    X, Y = views
    for s in (0.0, 0.4, "auto"):
        found = CCA(shrinkage=s, scale=True, solver=SOLVERS[form]).fit(X, Y)
        shrinkage = found.shrinkage_
        Zx, Zy = ((V - V.mean(0)) / V.std(0, ddof=1) for V in (X, Y))
        if s == "auto":
            assert shrinkage == pytest.approx((oas(Zx)[1], oas(Zy)[1]), abs=1e-12)
        expected = CCA(shrinkage=shrinkage, solver=SOLVERS[form]).fit(Zx, Zy)
        np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-11)
        np.testing.assert_allclose(
            np.abs(found.transform(X)), np.abs(expected.transform(Zx)), atol=1e-9
        )
        np.testing.assert_allclose(
            found.predict(X), expected.predict(Zx) * Y.std(0, ddof=1) + Y.mean(0), atol=1e-9
        )


def test_automatic_shrinkage_is_ledoit_wolf_for_each_view(views: Any) -> None:
    X, Y = views
    found = CCA(shrinkage="auto").fit(X, Y).shrinkage_
    assert found == pytest.approx((ledoit_wolf_shrinkage(X), ledoit_wolf_shrinkage(Y)), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [True, False])
def test_automatic_shrinkage_leaves_a_single_target_alone(seed: int, scale: bool) -> None:
    X, Y = make(40, 3, 1, seed)
    assert CCA(shrinkage="auto", scale=scale).fit(X, Y[:, 0]).shrinkage_[1] == 0


@form
def test_weights_give_variates_of_unit_training_variance(form: str, views: Any) -> None:
    X, Y = views
    w = np.arange(90) % 3 + 1
    for s in (0.0, 0.4, 1.0):
        cca = CCA(shrinkage=s, scale=True, solver=SOLVERS[form]).fit(X, Y, sample_weight=w)
        for U in cca.transform(X, Y):
            U = np.repeat(U, w, axis=0)
            np.testing.assert_allclose(U.mean(0), 0, atol=1e-12)
            np.testing.assert_allclose(U.std(0, ddof=1), 1, atol=1e-10)


def test_the_largest_x_weight_of_each_component_is_positive(views: Any) -> None:
    for s, scale in ((0.0, False), (0.5, True), ("auto", False)):
        A = CCA(shrinkage=s, scale=scale).fit(*views).x_weights_
        assert (np.take_along_axis(A, np.abs(A).argmax(0)[None], 0) > 0).all()


def test_correlations_are_those_of_the_training_variates(views: Any) -> None:
    for s in (0.0, 0.5, "auto"):
        cca = CCA(shrinkage=s).fit(*views)
        U, V = cca.transform(*views)
        expected = [np.corrcoef(u, v)[0, 1] for u, v in zip(U.T, V.T, strict=True)]
        np.testing.assert_allclose(cca.correlations_, expected, atol=1e-12)
        assert (np.diff(cca.singular_values_) <= 0).all()
        assert cca.singular_values_.max() <= 1


@form
def test_loadings_are_correlations_of_variables_with_variates(form: str, views: Any) -> None:
    X, Y = views
    for parameters in ({}, {"scale": True}, {"shrinkage": 0.4}, {"shrinkage": "cv"}):
        cca = CCA(solver=SOLVERS[form], **parameters).fit(X, Y)
        U, V = cca.transform(X, Y)
        k = U.shape[1]
        for found, A, B in (
            (cca.x_loadings_, X, U),
            (cca.y_loadings_, Y, V),
            (cca.x_cross_loadings_, X, V),
            (cca.y_cross_loadings_, Y, U),
        ):
            np.testing.assert_allclose(found, np.corrcoef(A.T, B.T)[:-k, -k:], atol=1e-11)


# ------------------------------------------------------------------- the two identities


@pytest.mark.ordinary
def test_a_pair_of_cv_is_searched_together(views: Any) -> None:
    cca = CCA(shrinkage=("cv", "cv"), cv=3).fit(*views)
    assert len(cca.cv_shrinkages_) == len(CCA(shrinkage="cv").fit(*views).cv_shrinkages_) ** 2
    assert cca.shrinkage_ in cca.cv_shrinkages_


def test_one_moments_cannot_be_cross_validated(views: Any) -> None:
    m = Moments.from_data(x=views[0], y=views[1])
    with pytest.raises(ValueError, match=r"shrinkage='cv' needs .* at least two folds"):
        CCA(shrinkage="cv").fit_moments(m)
    with pytest.raises(TypeError, match="takes Moments"):
        CCA().fit_moments(views[0])


# ------------------------------------------------------------------------- partial fit


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_partial_fit_of_ill_conditioned_or_wide_data_equals_fit() -> None:
    for n, p, cond, s in ((60, 5, 1e6, 0.0), (30, 50, 1.0, 0.1)):
        X, Y = make(n, p, cond=cond)
        est = CCA(shrinkage=s).partial_fit(X[:20], Y[:20]).partial_fit(X[20:], Y[20:])
        expected = CCA(shrinkage=s).fit(X, Y)
        np.testing.assert_allclose(est.correlations_, expected.correlations_, atol=1e-4)


# ------------------------------------------------------------------------ invariances
seeds = st.integers(0, 2**16)


@form
@given(seed=seeds)
def test_correlations_are_invariant_to_affine_maps(form: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, Y = make(seed=seed)
    A, B = (np.linalg.qr(rng.normal(size=(k, k)))[0] * rng.uniform(0.1, 10, k) for k in (5, 4))
    a = CCA(solver=SOLVERS[form]).fit(X, Y)
    b = CCA(solver=SOLVERS[form]).fit(X @ A + 10 * rng.normal(size=5), Y @ B - 3)
    np.testing.assert_allclose(a.correlations_, b.correlations_, atol=1e-10)


@form
@given(
    seed=seeds,
    factor=st.sampled_from([1e-6, 0.01, -3.0, 1e5]),
    shrinkage=st.sampled_from([0.0, 0.3, 1.0, "auto", (0.7, 0.0)]),
    scale=st.booleans(),
)
def test_rescaling_a_whole_view_changes_nothing(
    form: str, seed: int, factor: float, shrinkage: Any, scale: bool
) -> None:
    X, Y = make(seed=seed)
    est = CCA(shrinkage=shrinkage, scale=scale, solver=SOLVERS[form])
    a, b = clone(est).fit(X, Y), clone(est).fit(factor * X, Y)
    assert a.shrinkage_ == pytest.approx(b.shrinkage_, abs=1e-9)
    np.testing.assert_allclose(a.correlations_, b.correlations_, atol=1e-9)
    np.testing.assert_allclose(a.predict(X), b.predict(factor * X), atol=1e-6)


@given(seed=seeds, units=st.lists(st.sampled_from([1e-5, 1.0, 1e4]), min_size=5, max_size=5))
def test_scaling_frees_every_feature_of_its_unit(seed: int, units: list[float]) -> None:
    X, Y = make(seed=seed)
    est = CCA(shrinkage=0.3, scale=True)
    a, b = clone(est).fit(X, Y), clone(est).fit(X * units, Y)
    np.testing.assert_allclose(a.correlations_, b.correlations_, atol=1e-10)


@form
@given(seed=seeds, shrinkage=st.sampled_from([(0.0, 0.0), (0.3, 0.1), ("auto", 0.5)]))
def test_swapping_the_views_changes_nothing(form: str, seed: int, shrinkage: Any) -> None:
    X, Y = make(seed=seed)
    a = CCA(shrinkage=shrinkage, solver=SOLVERS[form]).fit(X, Y)
    b = CCA(shrinkage=shrinkage[::-1], solver=SOLVERS[form]).fit(Y, X)
    np.testing.assert_allclose(a.correlations_, b.correlations_, atol=1e-10)
    np.testing.assert_allclose(np.abs(a.x_weights_), np.abs(b.y_weights_), atol=1e-6)


# ------------------------------------------------------------------ what the methods mean
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_the_inner_product_of_embeddings_is_the_similarity(
    kind: Any, shrinkage: float, views: Any
) -> None:
    X, Y = views
    cca = CCA(3, shrinkage=shrinkage).fit(X, Y)
    U, V = cca.embed(X[:7], Y[:9], kind=kind)
    S = cca.similarity(X[:7], Y[:9], kind=kind)
    assert S.shape == (7, 9)
    np.testing.assert_allclose(U @ V.T, S, atol=1e-13)
    np.testing.assert_array_equal(cca.embed(X[:7], kind=kind), U)
    np.testing.assert_array_equal(cca.embed(y=Y[:9], kind=kind), V)


@pytest.mark.parametrize("shrinkage", [0.0, (0.3, 0.8)])
def test_cosine_kinds_are_those_of_their_formulas(shrinkage: Any, views: Any) -> None:
    cca = CCA(3, shrinkage=shrinkage).fit(*views)
    X, Y = (A[:8] for A in views)
    U, V = cca.transform(X, Y)

    def cosine(A: Any, B: Any) -> Any:
        return A @ B.T / np.outer(np.linalg.norm(A, axis=1), np.linalg.norm(B, axis=1))

    np.testing.assert_allclose(cca.similarity(X, Y, kind="cosine"), cosine(U, V), atol=1e-12)
    # canonical coordinates: directions in the scaling a' S_s a = 1
    xx, yy, _ = joint_covariance(*views, *cca.shrinkage_)
    U = U / np.sqrt(np.einsum("ik,ij,jk->k", cca.x_weights_, xx, cca.x_weights_))
    V = V / np.sqrt(np.einsum("ik,ij,jk->k", cca.y_weights_, yy, cca.y_weights_))
    rho = cca.singular_values_
    for power in (1.0, 2.5):
        np.testing.assert_allclose(
            cca.similarity(X, Y, power=power), cosine(rho**power * U, rho**power * V), atol=1e-12
        )
    norms = np.outer(np.linalg.norm(U, axis=1), np.linalg.norm(V, axis=1))
    np.testing.assert_allclose(
        cca.similarity(X, Y, kind="csa"), (rho * U) @ V.T / norms, atol=1e-12
    )


@form
@pytest.mark.parametrize("shape", [(5, 4), (3, 6), (4, 1)])
@pytest.mark.parametrize("shrinkage", [(0.0, 0.0), (0.3, 0.05)])
def test_the_likelihood_ratio_is_that_of_the_shrunken_joint_normal(
    form: str, shape: tuple[int, int], shrinkage: tuple[float, float]
) -> None:
    X, Y = make(80, *shape)
    cca = CCA(shrinkage=shrinkage, solver=SOLVERS[form]).fit(X, Y)
    xx, yy, xy = joint_covariance(X, Y, *shrinkage)
    joint = np.block([[xx, xy], [xy.T, yy]])
    found = cca.similarity(X[:6], Y[:5], kind="likelihood_ratio")
    mx, my = X.mean(0), Y.mean(0)
    for i in range(6):
        for j in range(5):
            expected = (
                multivariate_normal(np.r_[mx, my], joint).logpdf(np.r_[X[i], Y[j]])
                - multivariate_normal(mx, xx).logpdf(X[i])
                - multivariate_normal(my, yy).logpdf(Y[j])
            )
            assert found[i, j] == pytest.approx(expected, abs=1e-8)


@form
@pytest.mark.parametrize("shape", [(5, 4), (3, 6), (4, 1)])
@pytest.mark.parametrize("shrinkage", [(0.0, 0.0), (0.3, 0.05), (1.0, 0.0)])
def test_predict_is_the_conditional_mean_of_the_shrunken_joint(
    form: str, shape: tuple[int, int], shrinkage: tuple[float, float]
) -> None:
    X, Y = make(80, *shape)
    cca = CCA(shrinkage=shrinkage, solver=SOLVERS[form]).fit(X, Y)
    xx, _, xy = joint_covariance(X, Y, *shrinkage)
    expected = Y.mean(0) + (X - X.mean(0)) @ np.linalg.solve(xx, xy)
    np.testing.assert_allclose(cca.predict(X), expected, atol=1e-9)


def test_predict_without_shrinkage_is_least_squares(views: Any) -> None:
    X, Y = views
    A = np.c_[np.ones(len(X)), X]
    np.testing.assert_allclose(
        CCA().fit(X, Y).predict(X), A @ np.linalg.lstsq(A, Y, rcond=None)[0], atol=1e-10
    )


@pytest.mark.parametrize("shrinkage", [0.0, (0.4, 0.1)])
def test_fuse_is_the_posterior_mean_of_the_shared_latent(shrinkage: Any, views: Any) -> None:
    """By brute force from the joint normal of (z, x, y) of Bach and Jordan (2005)."""
    X, Y = views
    cca = CCA(shrinkage=shrinkage).fit(X, Y)
    sx, sy = cca.shrinkage_
    xx, yy, xy = joint_covariance(X, Y, sx, sy)
    r = cca.singular_values_
    # directions in the scaling a' S_s a = 1
    A = cca.x_weights_ / np.sqrt(np.einsum("ik,ij,jk->k", cca.x_weights_, xx, cca.x_weights_))
    B = cca.y_weights_ / np.sqrt(np.einsum("ik,ij,jk->k", cca.y_weights_, yy, cca.y_weights_))
    xz, yz = xx @ A * np.sqrt(r), yy @ B * np.sqrt(r)  # cov(x, z), cov(y, z)
    np.testing.assert_allclose(xz @ yz.T, xy, atol=1e-9)  # x and y are independent given z
    Xc, Yc = X - X.mean(0), Y - Y.mean(0)
    joint = np.block([[xx, xy], [xy.T, yy]])
    both = np.c_[Xc, Yc] @ np.linalg.solve(joint, np.r_[xz, yz])
    np.testing.assert_allclose(cca.fuse(X, Y), both, atol=1e-8)
    np.testing.assert_allclose(cca.fuse(X), Xc @ np.linalg.solve(xx, xz), atol=1e-8)
    np.testing.assert_allclose(cca.fuse(y=Y), Yc @ np.linalg.solve(yy, yz), atol=1e-8)


def test_score_is_the_mean_held_out_correlation(views: Any) -> None:
    X, Y = make(50, seed=3)
    cca = CCA(2).fit(*views)
    U, V = cca.transform(X, Y)
    found = cca.correlations_on(Moments.from_data(x=X, y=Y))
    expected = [np.corrcoef(u, v)[0, 1] for u, v in zip(U.T, V.T, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert cca.score(X, Y) == pytest.approx(np.mean(expected))


@form
def test_the_score_of_one_row_is_nan_with_a_warning(form: str, views: Any) -> None:
    cca = CCA(solver=SOLVERS[form]).fit(*views)
    with pytest.warns(UserWarning, match="NaN"):
        assert np.isnan(cca.score(views[0][:1], views[1][:1]))


def test_components_are_the_leading_ones(views: Any) -> None:
    few, all_ = CCA(2).fit(*views), CCA().fit(*views)
    np.testing.assert_allclose(few.x_weights_, all_.x_weights_[:, :2])
    assert (few.n_components_, all_.n_components_) == (2, 4)


# --------------------------------------------------------------- float32, integers, wide
@pytest.mark.parametrize("far", [0.0, 200.0])
def test_float32_views_give_float32_variates(far: float) -> None:
    X, Y = make(400)
    X = X + far * X.std(0)
    cca = CCA().fit(X.astype(np.float32), Y.astype(np.float32))
    expected = CCA().fit(X, Y)
    np.testing.assert_allclose(cca.correlations_, expected.correlations_, atol=1e-4)
    for method in (cca.transform, cca.predict, cca.fuse, cca.embed):
        assert method(X[:3].astype(np.float32)).dtype == np.float32
        assert method(X[:3].astype(np.float16)).dtype == np.float32
        assert method(X[:3]).dtype == np.float64
    np.testing.assert_allclose(
        cca.transform(X.astype(np.float32)), expected.transform(X), atol=2e-2 if far else 1e-4
    )


@pytest.mark.parametrize("shrinkage", [0.2, (0.05, 0.8), 0.99])
def test_wide_data_equal_the_primal_formula(shrinkage: Any) -> None:
    X, Y = make(50, 80, 60)
    wide = CCA(5, shrinkage=shrinkage).fit(X, Y)
    assert wide.moments_.form == "root"
    A, B, correlations, values = reference(X, Y, *wide.shrinkage_)
    np.testing.assert_allclose(wide.singular_values_, values[:5], atol=1e-10)
    np.testing.assert_allclose(wide.correlations_, correlations[:5], atol=1e-10)
    np.testing.assert_allclose(wide.x_weights_, A[:, :5], atol=1e-8)
    np.testing.assert_allclose(wide.y_weights_, B[:, :5], atol=1e-8)
    full, primal = (CCA(shrinkage=shrinkage, solver=s).fit(X, Y) for s in ("auto", "moments"))
    assert full.n_components_ == primal.n_components_ == 49
    np.testing.assert_allclose(full.correlations_, primal.correlations_, atol=1e-8)
    X_new, Y_new = make(20, 80, 60, seed=5)
    np.testing.assert_allclose(full.predict(X_new), primal.predict(X_new), atol=1e-8)
    for kind in KINDS:
        np.testing.assert_allclose(
            full.similarity(X_new, Y_new, kind=kind),
            primal.similarity(X_new, Y_new, kind=kind),
            atol=1e-5, err_msg=kind,
        )  # fmt: skip


@form
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_components_without_training_variance_are_left_out_under_shrinkage(form: str) -> None:
    """A ridge makes the covariance regular: directions without data are no components."""
    X, Y = make(90, 3, 5)
    twice = np.c_[X, X[:, 0]]
    cca = CCA(shrinkage=0.1, solver=SOLVERS[form]).fit(twice, Y)
    assert cca.n_components_ == 3
    assert np.abs(cca.x_weights_).max() < 1e3


# ------------------------------------------------------------------------ scikit-learn


def test_pipelines_and_grid_searches_take_it(views: Any) -> None:
    X, Y = views
    pipeline = make_pipeline(StandardScaler(), CCA(2))
    search = GridSearchCV(pipeline, {"cca__shrinkage": [0.01, 0.5]}, cv=3).fit(X, Y)
    assert search.best_score_ > 0
    assert search.transform(X).shape == (90, 2)
    assert pipeline.fit_transform(X, Y).shape == (90, 2)
    assert pipeline.fit(X, Y).predict(X).shape == Y.shape


def test_transform_takes_either_view_or_both(views: Any) -> None:
    X, Y = views
    cca = CCA().fit(X, Y)
    U, V = cca.transform(X, Y)
    np.testing.assert_array_equal(cca.transform(X), U)
    np.testing.assert_array_equal(cca.transform(y=Y), V)
    np.testing.assert_array_equal(cca.transform(None, Y), V)
    with pytest.raises(ValueError, match="X, y or both"):
        cca.transform()


def test_weighted_cosine_still_ranks_at_full_shrinkage(rng: np.random.Generator) -> None:
    """All singular values are 0 there; their ratios, which alone matter, are not."""
    X = rng.normal(size=(100, 5))
    Y = X[:, :4] + rng.normal(size=(100, 4))
    limit = CCA(shrinkage=1.0).fit(X, Y).similarity(X, Y)
    near = CCA(shrinkage=1 - 1e-9).fit(X, Y).similarity(X, Y)
    np.testing.assert_allclose(limit, near, atol=1e-6)


# ------------------------------------------------------------------------- partial CCA
@pytest.mark.parametrize("shrinkage", [0.0, (0.2, 0.6)])
@pytest.mark.parametrize("scale", [False, True])
@form
def test_partial_cca_is_cca_of_the_residuals(
    form: Any, scale: bool, shrinkage: Any, views: Any, rng: np.random.Generator
) -> None:
    X, Y = views
    Z = np.c_[X[:, 0] + Y[:, 0] + rng.normal(size=90), rng.normal(size=(90, 2))]
    w = rng.integers(1, 4, 90)
    A = np.c_[np.ones(90), Z] * np.sqrt(w)[:, None]
    coef = [np.linalg.lstsq(A, a * np.sqrt(w)[:, None])[0] for a in (X, Y)]
    residuals = [a - np.c_[np.ones(90), Z] @ b for a, b in zip((X, Y), coef, strict=True)]
    m = Moments.from_data(form=form, sample_weight=w, x=X, y=Y, z=Z).partial_out("z")
    settings = {"shrinkage": shrinkage, "scale": scale, "solver": SOLVERS[form]}
    partial = CCA(**settings).fit_moments(m)
    expected = CCA(**settings).fit(*residuals, sample_weight=w)
    for name in ("correlations_", "singular_values_", "x_weights_", "y_weights_", "x_loadings_"):
        np.testing.assert_allclose(getattr(partial, name), getattr(expected, name), atol=1e-8)
    np.testing.assert_allclose(partial.x_mean_, np.average(X, axis=0, weights=w))


def test_partial_cca_of_two_variables_is_the_partial_correlation(rng: np.random.Generator) -> None:
    A = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4))
    P = np.linalg.inv(np.cov(A.T))  # of the precision matrix, without a regression
    m = Moments.from_data(x=A[:, 0], y=A[:, 1], z=A[:, 2:]).partial_out("z")
    found = CCA().fit_moments(m).correlations_
    np.testing.assert_allclose(found, [abs(P[0, 1]) / np.sqrt(P[0, 0] * P[1, 1])], rtol=1e-9)


def test_nuisance_variables_cost_as_many_rows_as_their_rank(rng: np.random.Generator) -> None:
    """The F of y on x given z by least squares, where columns of z depend on each other."""
    X, y, z = rng.normal(size=(40, 3)), rng.normal(size=40), rng.normal(size=(40, 2))
    Z = np.c_[z, z[:, 0] - 2 * z[:, 1], np.ones(40)]
    m = Moments.from_data(x=X, y=y, z=Z).partial_out("z")
    row = canonical_correlation_test(CCA().fit_moments(m), n_nuisance=2).loc[1]

    def rss(*columns: Any) -> float:
        design = np.column_stack([np.ones(40), *columns])
        return float(np.sum((y - design @ np.linalg.pinv(design) @ y) ** 2))

    F = (rss(Z) - rss(Z, X)) / 3 / (rss(Z, X) / (40 - 1 - 2 - 3))
    assert row["wilks_df2"] == 40 - 1 - 2 - 3
    assert row["wilks_F"] == pytest.approx(F)
