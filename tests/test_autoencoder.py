"""LinearAutoencoder: closed forms against optimisers, enumeration and peers; identities."""

from __future__ import annotations

import itertools
import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_namespaces import Place

from cmstats import CCA, LinearAutoencoder, Moments, MomentsSearchCV, load_emoji, load_mnist_halves

SOLVERS = {"scatter": "moments", "root": "svd"}
solver = pytest.mark.parametrize("solver", SOLVERS.values())
VARIANTS: dict[str, dict[str, Any]] = {
    "pca": {},
    "rank": {"n_components": 2},
    "shrunk": {"alpha": 0.4},
    "denoising": {"corruption": 0.3},
    "denoising_rank": {"corruption": 0.3, "n_components": 2, "scale": True},
    "both": {"alpha": 0.05, "corruption": 0.2, "scale": True, "n_components": 3},
    "cross": {"target": "cross"},
    "cross_rank": {"target": "cross", "n_components": 2, "scale": True},
    "cross_noise": {"target": "cross", "n_components": 2, "alpha": 0.3, "corruption": 0.2},
    "joint": {"target": "joint", "n_components": 3},
    "joint_all": {"target": "joint"},
    "joint_alpha": {"target": "joint", "alpha": 0.03, "scale": True},
    "joint_noise": {"target": "joint", "n_components": 3, "corruption": 0.3},
}
variants = pytest.mark.parametrize("parameters", VARIANTS.values(), ids=VARIANTS)


def make(n: int = 90, p: int = 5, q: int = 4, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, 3))
    X = Z @ rng.normal(size=(3, p)) + 0.7 * rng.normal(size=(n, p)) + rng.normal(size=p)
    Y = 2 * Z @ rng.normal(size=(3, q)) + rng.normal(size=(n, q)) + 5
    return X, Y


@pytest.fixture
def views() -> tuple[Any, Any]:
    return make()


def arguments(parameters: dict[str, Any], X: Any, Y: Any) -> tuple[Any, ...]:
    return (X, Y) if parameters.get("target", "self") != "self" else (X,)


def product(est: LinearAutoencoder) -> Any:
    return est.decoder_ @ est.encoder_


def covariance(X: Any) -> Any:
    return np.cov(X.T, ddof=0)


def subspace_distance(A: Any, B: Any) -> float:
    """The sine of the largest angle between the column spaces."""
    A, B = np.linalg.qr(A)[0], np.linalg.qr(B)[0]
    return float(np.linalg.norm(A - B @ (B.T @ A), 2))


def noisy(S: Any, c: float) -> Any:
    return (1 - c) ** 2 * S + c * (1 - c) * np.diag(np.diag(S))


def standardized(X: Any) -> Any:
    return StandardScaler().fit_transform(X)


def balanced(X: Any, Y: Any) -> Any:
    return np.c_[
        (X - X.mean(0)) / np.sqrt(X.var(0).sum()), (Y - Y.mean(0)) / np.sqrt(Y.var(0).sum())
    ]


# ------------------------------------------------------------------------ target="self"
@solver
@pytest.mark.parametrize("shape", [(200, 8), (30, 60)])
@pytest.mark.parametrize("k", [1, 5, None])
def test_self_is_pca(solver: Any, shape: Any, k: int | None) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=shape) * np.geomspace(5, 0.5, shape[1]) + 3
    est, pca = LinearAutoencoder(k, solver=solver).fit(X), PCA(k or min(shape[1], 29)).fit(X)
    assert est.n_components_ == pca.n_components_
    assert subspace_distance(est.components_.T, pca.components_.T) < 1e-9
    np.testing.assert_allclose(
        est.explained_variance_ratio_, pca.explained_variance_ratio_, atol=1e-12
    )
    np.testing.assert_allclose(
        est.inverse_transform(est.transform(X)),
        pca.inverse_transform(pca.transform(X)),
        atol=1e-9,
    )
    np.testing.assert_allclose(est.encoder_, est.decoder_.T, atol=1e-12)


def test_scaled_self_is_pca_of_standardized_features(views: Any) -> None:
    X, _ = views
    est, pca = LinearAutoencoder(3, scale=True).fit(X), PCA(3).fit(standardized(X))
    np.testing.assert_allclose(est.explained_variance_ratio_, pca.explained_variance_ratio_)
    again = pca.inverse_transform(pca.transform(standardized(X))) * X.std(0) + X.mean(0)
    np.testing.assert_allclose(est.inverse_transform(est.transform(X)), again)


def penalised_loss(S: Any, p: int, k: int, alpha: float, c: float) -> Any:
    M = noisy(S, c)

    def loss(theta: Any) -> tuple[float, Any]:
        W1, W2 = theta[: k * p].reshape(k, p), theta[k * p :].reshape(p, k)
        W = W2 @ W1
        value = np.trace(S) - 2 * (1 - c) * np.trace(W @ S) + np.trace(W @ M @ W.T)
        slope = -2 * (1 - c) * S + 2 * W @ M
        value += alpha * (theta @ theta)
        gradient = np.r_[(W2.T @ slope).ravel(), (slope @ W1.T).ravel()] + 2 * alpha * theta
        return value, gradient

    return loss


PENALTIES = [
    (0.4, 0.0, False), (2.0, 0.0, False), (0.1, 0.0, True), (0.0, 0.3, False), (0.0, 0.3, True),
    (0.05, 0.2, True), (0.3, 0.6, True),
]  # fmt: skip


@pytest.mark.ordinary
@solver
@pytest.mark.parametrize(("alpha", "c", "scale"), PENALTIES)
@pytest.mark.parametrize("k", [1, 3])
def test_layers_are_the_optimum(
    solver: Any, alpha: float, c: float, scale: bool, k: int, views: Any
) -> None:
    X = views[0][:, :4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # alpha may leave fewer than k
        est = LinearAutoencoder(k, alpha=alpha, corruption=c, scale=scale, solver=solver).fit(X)
    S = covariance(standardized(X) if scale else X)
    unit = X.std(0) if scale else np.ones(4)
    W1 = np.zeros((k, 4))
    W1[: est.n_components_] = est.encoder_ * unit
    W2 = np.zeros((4, k))
    W2[:, : est.n_components_] = est.decoder_ / unit[:, None]
    loss = penalised_loss(S, 4, k, alpha, c)
    value, gradient = loss(np.r_[W1.ravel(), W2.ravel()])
    assert np.abs(gradient).max() < 1e-10  # a stationary point
    rng = np.random.default_rng(0)
    found = [
        scipy.optimize.minimize(loss, rng.normal(size=2 * 4 * k), jac=True, method="BFGS",
                                options={"gtol": 1e-9})
        for _ in range(4)
    ]  # fmt: skip
    best = min(found, key=lambda f: f.fun)
    assert value == pytest.approx(best.fun, abs=1e-8)
    W = best.x[4 * k :].reshape(4, k) @ best.x[: 4 * k].reshape(k, 4)
    np.testing.assert_allclose(W2 @ W1, W, atol=1e-4)


@pytest.mark.parametrize(("alpha", "c"), [(0.3, 0.0), (0.05, 0.25), (0.0, 0.4)])
def test_maps_of_standardized_features_have_the_closed_form(
    alpha: float, c: float, views: Any
) -> None:
    X = standardized(views[0])
    est = LinearAutoencoder(alpha=alpha, corruption=c).fit(X)
    s, U = np.linalg.eigh(covariance(X))
    w = np.maximum(0, ((1 - c) * s - alpha) / ((1 - c) ** 2 * s + c * (1 - c)))
    np.testing.assert_allclose(product(est), (U * w) @ U.T, atol=1e-10)


def test_alpha_does_not_depend_on_the_number_of_rows(views: Any) -> None:
    X, _ = views
    one, ten = (LinearAutoencoder(alpha=0.3).fit(np.tile(X, (m, 1))) for m in (1, 10))
    np.testing.assert_allclose(product(one), product(ten), atol=1e-10)


@solver
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("target", ["self", "cross"])
def test_corruption_is_the_mean_over_all_masks(solver: Any, k: int, target: Any) -> None:
    X, Y = make(40, 3, 3)
    c = 0.35
    kwargs: dict[str, Any] = {"corruption": c, "target": target, "solver": solver}
    est = LinearAutoencoder(k, **kwargs).fit(X, Y)
    Z, T = X - X.mean(0), (X - X.mean(0) if target == "self" else Y - Y.mean(0))
    masks = np.array(list(itertools.product((0, 1), repeat=3)))
    weights = np.prod(np.where(masks, 1 - c, c), axis=1)
    inputs = np.concatenate([Z * mask for mask in masks])
    targets = np.tile(T, (8, 1))
    w = np.repeat(weights, 40)
    full = LinearRegression(fit_intercept=False).fit(inputs, targets, w).coef_
    fitted = inputs @ full.T
    U = np.linalg.eigh((fitted * w[:, None]).T @ fitted)[1][:, ::-1][:, :k]
    np.testing.assert_allclose(product(est), U @ U.T @ full, atol=1e-9)


@pytest.mark.ordinary
def test_corruption_reconstructs_hidden_entries_better_than_pca() -> None:
    X, _ = make(3000, 12, 2, seed=4)
    train, test = X[:2000], X[2000:]
    hidden = np.random.default_rng(0).random(test.shape) < 0.4
    seen = np.where(hidden, train.mean(0), test)
    errors = [
        ((test - e.inverse_transform(e.transform(seen))) ** 2).mean()
        for e in (LinearAutoencoder(3, corruption=0.4).fit(train), LinearAutoencoder(3).fit(train))
    ]
    assert errors[0] < 0.9 * errors[1]


def test_alpha_and_corruption_need_one_variance(views: Any) -> None:
    with pytest.raises(ValueError, match=r"features have one variance.* set scale=True"):
        LinearAutoencoder(alpha=0.1, corruption=0.1).fit(views[0])
    joint = LinearAutoencoder(alpha=0.1, corruption=0.1, target="joint", scale=True)
    with pytest.raises(ValueError, match="differ in their number of features"):
        joint.fit(*views)
    joint.fit(views[0][:, :4], views[1])  # equally many


# ----------------------------------------------------------------------- target="cross"
@solver
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("shape", [(90, 5), (30, 60)])
def test_cross_is_reduced_rank_regression(solver: Any, alpha: float, k: int, shape: Any) -> None:
    X, Y = make(*shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est = LinearAutoencoder(k, target="cross", alpha=alpha, solver=solver).fit(X, Y)
    n = len(X)
    A, B = X - X.mean(0), Y - Y.mean(0)
    full = np.linalg.lstsq(
        np.r_[A, np.sqrt(alpha * n) * np.eye(A.shape[1])],
        np.r_[B, np.zeros((A.shape[1], Y.shape[1]))],
        rcond=1e-10,
    )[0]
    fitted = np.r_[A @ full, np.sqrt(alpha * n) * full]
    V = np.linalg.svd(fitted)[2][:k].T
    np.testing.assert_allclose(product(est).T, full @ V @ V.T, atol=1e-8)
    np.testing.assert_allclose(est.predict(X), Y.mean(0) + A @ full @ V @ V.T, atol=1e-8)
    if k == 4:
        ridge = Ridge(alpha * n).fit(X, Y) if alpha else None
        if ridge is not None:
            np.testing.assert_allclose(est.predict(X), ridge.predict(X), atol=1e-8)


def test_cross_of_x_with_itself_is_pca(views: Any) -> None:
    X, _ = views
    a, b = LinearAutoencoder(2, target="cross").fit(X, X), LinearAutoencoder(2).fit(X)
    np.testing.assert_allclose(product(a), product(b), atol=1e-10)


def test_cross_to_a_whitened_y_is_cca(views: Any) -> None:
    X, Y = views
    W = np.linalg.cholesky(np.linalg.inv(covariance(Y)))
    est, cca = LinearAutoencoder(2, target="cross").fit(X, Y @ W), CCA(2).fit(X, Y)
    assert subspace_distance(est.encoder_.T, cca.x_weights_) < 1e-9
    np.testing.assert_allclose(est.explained_variance_ratio_, cca.correlations_**2 / 4, atol=1e-10)


def test_joint_of_whitened_views_is_cca() -> None:
    X, Y = make(200, 4, 4)
    A, B = (Z @ np.linalg.cholesky(np.linalg.inv(covariance(Z))) for Z in (X, Y))
    est, cca = LinearAutoencoder(2, target="joint").fit(A, B), CCA(2).fit(A, B)
    assert subspace_distance(est.encoder_[:, :4].T, cca.x_weights_) < 1e-9
    assert subspace_distance(est.encoder_[:, 4:].T, cca.y_weights_) < 1e-9
    np.testing.assert_allclose(
        est.explained_variance_ratio_, (1 + cca.correlations_) / 8, atol=1e-10
    )


# ----------------------------------------------------------------------- target="joint"
@solver
@pytest.mark.parametrize("shape", [(90, 5, 4), (25, 40, 30)])
def test_joint_is_pca_of_the_balanced_views(solver: Any, shape: Any) -> None:
    X, Y = make(*shape)
    est, pca = (
        LinearAutoencoder(3, target="joint", solver=solver).fit(X, Y),
        PCA(3).fit(balanced(X, Y)),
    )
    code = pca.transform(balanced(X, Y))
    sign = np.sign((code * est.transform(X, Y)).sum(0))
    np.testing.assert_allclose(est.transform(X, Y), sign * code, atol=1e-9)
    np.testing.assert_allclose(est.explained_variance_ratio_, pca.explained_variance_ratio_)
    again = pca.inverse_transform(code)
    p = X.shape[1]
    x, y = est.inverse_transform(est.transform(X, Y))
    np.testing.assert_allclose(x, X.mean(0) + again[:, :p] * np.sqrt(X.var(0).sum()), atol=1e-9)
    np.testing.assert_allclose(y, Y.mean(0) + again[:, p:] * np.sqrt(Y.var(0).sum()), atol=1e-9)


@solver
@pytest.mark.parametrize("shape", [(90, 5, 4), (25, 40, 30)])
@pytest.mark.parametrize("parameters", [{}, {"corruption": 0.3}, {"alpha": 0.01}])
def test_one_view_gives_the_conditional_mean_of_the_code(
    solver: Any, shape: Any, parameters: Any
) -> None:
    X, Y = make(*shape)
    _, p, q = shape
    est = LinearAutoencoder(3, target="joint", solver=solver, **parameters).fit(X, Y)
    Z = balanced(X, Y)
    S, s = np.cov(Z.T), est.shrinkage_
    target = np.diag(
        np.r_[np.full(p, np.trace(S[:p, :p]) / p), np.full(q, np.trace(S[p:, p:]) / q)]
    )
    C = (1 - s) * S + s * target
    E = est.encoder_ * np.r_[np.full(p, X.var(0).sum()), np.full(q, Y.var(0).sum())] ** 0.5
    expected = Z[:, :p] @ np.linalg.solve(C[:p, :p], C[:p] @ E.T)
    np.testing.assert_allclose(est.transform(X), expected, atol=1e-8)
    expected = Z[:, p:] @ np.linalg.solve(C[p:, p:], C[p:] @ E.T)
    np.testing.assert_allclose(est.transform(y=Y), expected, atol=1e-8)
    np.testing.assert_allclose(est.predict(X), est.inverse_transform(est.transform(X))[1])
    np.testing.assert_allclose(est.fuse(y=Y), est.transform(y=Y))
    np.testing.assert_allclose(est.fuse(X, Y), est.transform(X, Y))


def test_joint_does_not_depend_on_the_units_of_a_view(views: Any) -> None:
    X, Y = views
    a, b = (LinearAutoencoder(2, target="joint").fit(m * X + 7, Y) for m in (1, 1000))
    codes = a.transform(X + 7), b.transform(1000 * X + 7)
    sign = np.sign((codes[0] * codes[1]).sum(0))  # the rule for signs is in the data's units
    np.testing.assert_allclose(codes[0], sign * codes[1], atol=1e-9)
    np.testing.assert_allclose(a.predict(X + 7), b.predict(1000 * X + 7), atol=1e-9)


def explained(truth: Any, guess: Any) -> float:
    return float(r2_score(truth, guess, multioutput="variance_weighted"))


@pytest.mark.ordinary
@pytest.mark.parametrize("split", ["fixed", pytest.param(1, marks=pytest.mark.slow)])
def test_one_view_of_emoji_predicts_the_other(split: Any) -> None:
    emoji = load_emoji()
    train, test = emoji.train, emoji.test
    if split != "fixed":
        order = np.random.default_rng(split).permutation(1870)
        train, test = order[:1402], order[1402:]
    moments = Moments.from_data(x=emoji.image[train], y=emoji.text[train])
    for k in (5, 20, 64, 200, None):
        est = LinearAutoencoder(k, target="joint").fit_moments(moments)
        from_image = est.inverse_transform(est.transform(emoji.image[test]))
        from_text = est.inverse_transform(est.transform(y=emoji.text[test]))
        assert explained(emoji.text[test], from_image[1]) > 0.03, k
        assert explained(emoji.image[test], from_text[0]) > 0.09, k
        assert explained(emoji.image[test], from_image[0]) > 0.3, k


@pytest.mark.slow
def test_one_half_of_mnist_predicts_the_other(data_file: Callable[[str], Path]) -> None:
    digits = load_mnist_halves(data_file("mnist.npz").parent)
    for n, ks, least in (
        (60_000, (10, 64), (0.28, 0.36)),
        (500, (10, 64, None), (0.14,) + 2 * (0.1,)),
    ):
        moments = Moments.from_data(x=digits.left_train[:n], y=digits.right_train[:n])
        for k, r2 in zip(ks, least, strict=True):
            est = LinearAutoencoder(k, target="joint").fit_moments(moments)
            right = est.predict(digits.left_test[::2])
            left = est.inverse_transform(est.transform(y=digits.right_test[::2]))[0]
            assert explained(digits.right_test[::2], right) > r2, (n, k)
            assert explained(digits.left_test[::2], left) > r2, (n, k)


# ---------------------------------------------------------------------------- identities


@variants
def test_score_is_r2_of_the_rows(parameters: Any, views: Any) -> None:
    data = arguments(parameters, *views)
    est = LinearAutoencoder(**parameters).fit(*data)
    assert est.score(*data) == pytest.approx(est.explained_variance_ratio_.sum(), abs=1e-12)
    X, Y = make(60, seed=7)
    unit = est._solution.units.unit
    if est.target == "self":
        wanted, found, unit = X, est.inverse_transform(est.transform(X)), unit
    elif est.target == "cross":
        wanted, found, unit = Y, est.predict(X), unit[5:]
    else:
        wanted, found = np.c_[X, Y], np.c_[est.inverse_transform(est.transform(X, Y))]
    test = arguments(parameters, X, Y)
    assert est.score(*test) == pytest.approx(explained(wanted / unit, found / unit), abs=1e-10)
    errors = (((wanted - found) / unit) ** 2).sum(axis=1)
    np.testing.assert_allclose(est.score_samples(*test), errors, rtol=1e-9)


def test_errors_are_in_the_units_of_the_data_without_scale(views: Any) -> None:
    X, Y = views
    est = LinearAutoencoder(2).fit(X)
    off = X - est.inverse_transform(est.transform(X))
    np.testing.assert_allclose(est.score_samples(X), (off**2).sum(axis=1))
    cross = LinearAutoencoder(2, target="cross").fit(X, Y)
    np.testing.assert_allclose(cross.score_samples(X, Y), ((Y - cross.predict(X)) ** 2).sum(axis=1))


@variants
def test_the_largest_weight_is_positive(parameters: Any, views: Any) -> None:
    est = LinearAutoencoder(**parameters).fit(*arguments(parameters, *views))
    largest = np.take_along_axis(est.encoder_, np.abs(est.encoder_).argmax(1)[:, None], 1)
    assert (largest > 0).all()
    decode = est._solution.decode
    gram = (decode.T @ decode) * (1 - np.eye(est.n_components_))
    assert np.abs(gram).max() < 1e-10


@pytest.mark.ordinary
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(8, 40),
    p=st.integers(1, 7),
    q=st.integers(1, 7),
    target=st.sampled_from(["self", "cross", "joint"]),
)
def test_training_scores_rise_with_the_rank(seed: int, n: int, p: int, q: int, target: Any) -> None:
    X, Y = make(n, p, q, seed)
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        most = {"self": p, "cross": min(p, q), "joint": p + q}[target]
        for k in range(1, min(most, n - 1) + 1):
            scores.append(
                LinearAutoencoder(k, target=target).fit(X, Y).score(X, Y)
                if target != "self"
                else LinearAutoencoder(k).fit(X).score(X)
            )
    assert np.all(np.diff(scores) > -1e-10)
    if target != "cross":
        assert scores[-1] == pytest.approx(1.0, abs=1e-9) or len(scores) == n - 1


# ------------------------------------------------------------------- what it looks like
def test_methods_exist_where_they_mean_something(views: Any) -> None:
    for target, there in (
        ("self", {"inverse_transform"}),
        ("cross", {"predict"}),
        ("joint", {"inverse_transform", "predict", "fuse"}),
    ):
        est = LinearAutoencoder(target=target)  # type: ignore[arg-type]
        for name in ("inverse_transform", "predict", "fuse"):
            assert hasattr(est, name) == (name in there), (target, name)


def test_attributes_of_another_target_do_not_stay(views: Any) -> None:
    est = LinearAutoencoder(2, target="joint").fit(*views)
    est.set_params(target="self").fit(views[0])
    for name in ("y_mean_", "x_weights_", "shrinkage_"):
        assert not hasattr(est, name)


def test_one_dimensional_y_gives_one_dimensional_predictions(views: Any) -> None:
    X, Y = views
    cross = LinearAutoencoder(1, target="cross").fit(X, Y[:, 0])
    np.testing.assert_allclose(cross.predict(X), LinearRegression().fit(X, Y[:, 0]).predict(X))
    joint = LinearAutoencoder(2, target="joint").fit(X, Y[:, 0])
    assert joint.inverse_transform(joint.transform(X, Y[:, 0]))[1].shape == (90,)
    for est in (cross, joint):
        assert est.score_samples(X, Y[:, 0]).shape == (90,)


def test_it_is_a_step_of_a_pipeline_and_of_a_search(views: Any) -> None:
    X, Y = views
    labels = (Y[:, 0] > Y[:, 0].mean()).astype(int)
    pipe = make_pipeline(LinearAutoencoder(2, alpha=0.1), LogisticRegression())
    assert cross_val_score(pipe, X, labels).mean() > 0.6
    search = MomentsSearchCV(
        LinearAutoencoder(target="cross"), {"alpha": [1e-3, 1e3], "n_components": [1, 2]}
    )
    assert search.fit(X, Y).best_params_ == {"alpha": 1e-3, "n_components": 2}
    est = search.best_estimator_
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(est)).predict(X), est.predict(X))


# ------------------------------------------------------------------------- array libraries


def test_libraries_do_not_mix(views: Any) -> None:
    X, Y = views
    strict = Place("array_api_strict")
    est = LinearAutoencoder(2, target="cross").fit(X, Y)
    for call in (
        lambda: est.fit(X, strict(Y)),
        lambda: est.transform(strict(X)),
        lambda: est.score_samples(X, strict(Y)),
        lambda: LinearAutoencoder(2).fit(X).inverse_transform(strict(X[:, :2])),
    ):
        with pytest.raises(TypeError, match="one array library"):
            call()


# ------------------------------------------------------------------ degenerate, bad input
@solver
def test_a_rank_below_the_request_is_said(solver: Any, views: Any) -> None:
    X = np.c_[views[0], views[0][:, :2]]
    with pytest.warns(UserWarning, match="only 5 of n_components=7 exist, the rank of the data"):
        est = LinearAutoencoder(7, solver=solver).fit(X)
    assert est.n_components_ == 5
    assert est.score(X) == pytest.approx(1.0)
    with pytest.warns(UserWarning, match="only 2 of n_components=3 exist, alpha=.* to 0"):
        LinearAutoencoder(3, alpha=2.5, solver=solver).fit(views[0])


def test_more_components_than_possible_raise(views: Any) -> None:
    X, Y = views
    for target, most in (("self", 5), ("cross", 4), ("joint", 9)):
        est = LinearAutoencoder(most + 1, target=target)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"at most {most} are possible"):
            est.fit(X, Y)
        with pytest.raises(NotFittedError):
            est.transform(X)
    with pytest.raises(ValueError, match=r"at most 2 are possible.* n_samples - 1 = 2"):
        LinearAutoencoder(3).fit(X[:3])


@solver
@pytest.mark.parametrize("target", ["self", "cross", "joint"])
@pytest.mark.parametrize("scale", [False, True])
def test_data_that_do_not_vary_give_zeros_and_a_warning(
    solver: Any, target: Any, scale: bool, views: Any
) -> None:
    X, Y = np.full((20, 3), 0.1), np.full((20, 2), 1 / 3)
    with pytest.warns(UserWarning, match="no column varies"):
        est = LinearAutoencoder(target=target, scale=scale, solver=solver).fit(X, Y)
    assert est.n_components_ == 1
    assert not np.any(est.transform(X))
    with pytest.warns(UserWarning, match="score is NaN"):
        assert np.isnan(est.score(X, Y))


def test_alpha_above_every_eigenvalue_gives_the_mean(views: Any) -> None:
    with pytest.warns(UserWarning, match="above every eigenvalue"):
        est = LinearAutoencoder(alpha=1e6).fit(views[0])
    np.testing.assert_allclose(
        est.inverse_transform(est.transform(views[0][:2])), np.tile(views[0].mean(0), (2, 1))
    )


@solver
def test_dependent_columns_of_cross_are_said(solver: Any, views: Any) -> None:
    X, Y = views
    twice = np.c_[X, X[:, :1]]
    with pytest.warns(UserWarning, match=r"depend on each other linearly \(rank 5 of 6\)"):
        est = LinearAutoencoder(target="cross", solver=solver).fit(twice, Y)
    expected = LinearAutoencoder(target="cross").fit(X, Y).predict(X)
    np.testing.assert_allclose(est.predict(twice), expected, atol=1e-8)
    with pytest.warns(UserWarning, match="exactly whatever the data: set alpha"):
        LinearAutoencoder(target="cross", solver=solver).fit(X[:5], Y[:5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearAutoencoder(target="cross", solver=solver, alpha=1e-3).fit(X[:5], Y[:5])


def test_constant_columns_are_their_mean(views: Any) -> None:
    X = np.c_[views[0], np.full(90, 3.3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est = LinearAutoencoder(2).fit(X)
    np.testing.assert_allclose(est.inverse_transform(est.transform(X))[:, -1], 3.3)
    assert not np.any(est.encoder_[:, -1])
    with pytest.warns(UserWarning, match="1 of the columns of x is constant .* column 5"):
        LinearAutoencoder(2, scale=True).fit(X)


def test_ill_conditioned_data_are_solved_by_the_root(views: Any) -> None:
    X, Y = views
    A = np.c_[X, X[:, :1] + 1e-6 * Y[:, :1]]
    assert LinearAutoencoder(2).fit(A).moments_.form == "scatter"
    assert LinearAutoencoder().fit(A).moments_.form == "root"
    assert LinearAutoencoder(2, target="cross").fit(A, Y).moments_.form == "root"


@variants
def test_wide_data_never_make_a_square_of_their_width(parameters: Any) -> None:
    rng = np.random.default_rng(0)
    data = arguments(parameters, rng.normal(size=(15, 5000)), rng.normal(size=(15, 5000)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracemalloc.start()
        est = LinearAutoencoder(**parameters).fit(*data)
        est.score(*data)
        est.score_samples(*data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 50e6  # the square has 200e6 bytes


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": np.inf}, "alpha"),
        ({"alpha": np.nan}, "alpha"),
        ({"corruption": 1.0}, "corruption"),
        ({"corruption": -0.1}, "corruption"),
        ({"target": "y"}, "target"),
        ({"n_components": 0}, "n_components"),
        ({"solver": "qr"}, "solver"),
        ({"scale": "yes"}, "scale"),
    ],
)
def test_parameters_out_of_range_raise(parameters: Any, message: str, views: Any) -> None:
    with pytest.raises(ValueError, match=f"'{message}' parameter"):
        LinearAutoencoder(**parameters).fit(*views)


def test_calls_that_mean_nothing_raise(views: Any) -> None:
    X, Y = views
    with pytest.raises(ValueError, match="requires y"):
        LinearAutoencoder(target="cross").fit(X)
    own = LinearAutoencoder(2).fit(X, Y)  # y is ignored, as everywhere in scikit-learn
    with pytest.raises(ValueError, match="has no encoder of y"):
        own.transform(X, Y)
    with pytest.raises(ValueError, match="give X"):
        own.transform()
    with pytest.raises(ValueError, match="2 components"):
        own.inverse_transform(X)
    joint = LinearAutoencoder(2, target="joint").fit(X, Y)
    again = joint.inverse_transform(joint.transform(X))[0]
    np.testing.assert_allclose(
        joint.score_samples(X), ((X - again) ** 2).sum(axis=1) / X.var(0).sum()
    )
    with pytest.raises(ValueError, match="give X, y or both"):
        joint.transform()
    with pytest.raises(ValueError, match=r"\(90, 5\).*\(89, 4\)"):
        joint.transform(X, Y[1:])
    cross = LinearAutoencoder(2, target="cross").fit(X, Y)
    with pytest.warns(UserWarning, match="pass y"):
        assert np.isnan(cross.score_samples(X)).all()
    with pytest.raises(KeyError, match="no block 'y'"):
        joint.fit_moments(Moments.from_data(x=X))
    with pytest.raises(TypeError, match="takes Moments"):
        own.fit_moments("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one sample has no variance"):
        clone(own).fit(X[:1])


@pytest.mark.parametrize("share", [0.2, 0.7, 0.95, 0.999])
def test_a_share_of_the_variance_is_that_of_scikit_learns_pca(share: float) -> None:
    from sklearn.decomposition import PCA

    X = np.random.default_rng(0).normal(size=(80, 9)) * np.geomspace(1, 20, 9)
    found = LinearAutoencoder(share).fit(X)
    assert found.n_components_ == PCA(share).fit(X).n_components_
    assert found.explained_variance_ratio_.sum() > share
    wide = X[:, :4] @ np.random.default_rng(1).normal(size=(4, 200))
    assert LinearAutoencoder(0.9999999).fit(wide).n_components_ <= 4
    with pytest.raises(ValueError, match="is for target='self' and 'joint'"):
        LinearAutoencoder(share, target="cross").fit(X, X[:, :3])
