"""Multiview CCA: its definitions, CCA for two views, missing views, moments and bad input."""

from __future__ import annotations

import inspect
import itertools
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from cmstats import CCA, Moments, MomentsSearchCV, MultiviewCCA, load_emoji
from cmstats.kernels.linalg import leading_eigenvectors
from cmstats.rows.views import RESERVED

METHODS = ["mcca", "gcca"]


@pytest.fixture(autouse=True)
def few_shrinkages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short grid for "cv": what is tested here does not depend on it."""
    monkeypatch.setattr("cmstats.moments.shrinkage.SHRINKAGES", (0.01, 0.1, 0.4))


def make(n: int = 150, widths: tuple[int, ...] = (6, 4, 5), seed: int = 0) -> list[Any]:
    """Views that share a latent of three dimensions."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    return [
        z @ rng.normal(size=(3, p)) + rng.normal(size=(n, p)) * rng.uniform(0.5, 2, p) + 3
        for p in widths
    ]


VIEWS = make()
W = np.random.default_rng(1).integers(1, 4, 150).astype(float)
NAMES = ("view0", "view1", "view2")


def moments(views: Any = VIEWS, **kwargs: Any) -> Moments:
    return Moments.from_data(**dict(zip(NAMES, views, strict=False)), **kwargs)


def shrunken(views: list[Any], s: Any) -> tuple[Any, Any, list[slice]]:
    """The coherently shrunken covariance of all columns, its diagonal blocks, and the slices."""
    s = np.broadcast_to(s, len(views))
    Z = np.hstack(views)
    C = np.cov(Z, rowvar=False)
    ends = np.cumsum([0] + [v.shape[1] for v in views])
    at = [slice(a, b) for a, b in itertools.pairwise(ends)]
    trace = [np.trace(C[a, a]) / (a.stop - a.start) for a in at]
    D = np.zeros_like(C)
    for i, a in enumerate(at):
        for j, b in enumerate(at):
            C[a, b] *= np.sqrt((1 - s[i]) * (1 - s[j]))
        C[a, a] += s[i] * trace[i] * np.eye(a.stop - a.start)
        D[a, a] = C[a, a]
    return C, D, at


def same_up_to_scale(found: Any, expected: Any, atol: float = 1e-9) -> None:
    expected = expected / np.linalg.norm(expected, axis=0)
    found = found / np.linalg.norm(found, axis=0)
    np.testing.assert_allclose(np.abs(np.sum(found * expected, axis=0)), 1, atol=atol)


def assert_same_model(a: MultiviewCCA, b: MultiviewCCA, atol: float = 1e-10) -> None:
    for name in ("correlations_", "eigenvalues_", "pairwise_correlations_", "shrinkage_"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol)
    for u, v in zip(a.weights_, b.weights_, strict=True):
        np.testing.assert_allclose(u, v, atol=atol * max(1, np.abs(v).max()))
    np.testing.assert_allclose(a.fuse([VIEWS[0], None, None]), b.fuse([VIEWS[0], None, None]),
                               atol=10 * atol)  # fmt: skip


# ----------------------------------------------------------------------------- two views
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_components": 2},
        {"shrinkage": 0.3},
        {"shrinkage": (0.1, 0.7), "scale": True},
        {"shrinkage": "auto"},
        {"shrinkage": "auto", "scale": True},
        {"shrinkage": "cv", "cv": 3},
        {"shrinkage": ("cv", 0.1), "cv": 3},
        {"solver": "svd", "shrinkage": 0.1},
        {"shrinkage": 1.0},
        {"shrinkage": (1.0, 0.2)},
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_two_views_are_cca(parameters: dict[str, Any], weighted: bool) -> None:
    X, Y = VIEWS[:2]
    w = W if weighted else None
    two = CCA(**parameters).fit(X, Y, w)
    model = MultiviewCCA(**parameters).fit([X, Y], sample_weight=w)
    same = {
        "correlations": (two.correlations_, model.correlations_),
        "singular values": (two.singular_values_, model.eigenvalues_ - 1),
        "shrinkage": (two.shrinkage_, model.shrinkage_),
        "x weights": (two.x_weights_, model.weights_[0]),
        "y weights": (two.y_weights_, model.weights_[1]),
        "x loadings": (two.x_loadings_, model.loadings_[0]),
        "variates": (two.transform(X), model.transform([X, None])[0]),
        "prediction": (two.predict(X), model.predict([X, None])[1]),
        "score": (two.score(X, Y, w), model.score([X, Y], sample_weight=w)),
        "cosine": (two.similarity(X, Y, kind="cosine"), model.similarity([X, Y], kind="cosine")),
        "weighted": (two.similarity(X, Y, power=2), model.similarity([X, Y], power=2)),
    }
    for name, (expected, found) in same.items():
        np.testing.assert_allclose(found, expected, atol=1e-10, err_msg=name)
    for a, b in ((X, Y), (X, None), (None, Y)):
        np.testing.assert_allclose(model.fuse([a, b]), two.fuse(a, b), atol=1e-10)


@pytest.mark.parametrize("scale", [False, True])
def test_two_views_of_generalised_cca_are_cca_without_shrinkage(scale: bool) -> None:
    two = CCA(scale=scale).fit(*VIEWS[:2])
    model = MultiviewCCA(method="gcca", scale=scale).fit(VIEWS[:2])
    np.testing.assert_allclose(model.correlations_, two.correlations_, atol=1e-12)
    np.testing.assert_allclose(model.weights_[0], two.x_weights_, atol=1e-11)
    np.testing.assert_allclose(model.weights_[1], two.y_weights_, atol=1e-11)


# --------------------------------------------------------------------------- definitions
@pytest.mark.parametrize("s", [0.0, 0.4, (0.1, 0.5, 0.9)])
def test_multiset_cca_solves_its_generalised_eigenproblem(s: Any) -> None:
    C, D, at = shrunken(VIEWS, s)
    values, vectors = scipy.linalg.eigh(C, D)
    model = MultiviewCCA(3, shrinkage=s).fit(VIEWS)
    np.testing.assert_allclose(model.eigenvalues_, values[::-1][:3], atol=1e-12)
    for w, a in zip(model.weights_, at, strict=True):
        same_up_to_scale(w, vectors[a, ::-1][:, :3])


@pytest.mark.parametrize("s", [0.0, 0.4, (0.1, 0.5, 0.9)])
def test_generalised_cca_regresses_shared_scores_on_each_view(s: Any) -> None:
    model = MultiviewCCA(3, method="gcca", shrinkage=s).fit(VIEWS)
    n, each = len(VIEWS[0]), np.broadcast_to(s, 3)
    total, maps = np.zeros((n, n)), []
    for X, t in zip(VIEWS, each, strict=True):
        X = X - X.mean(axis=0)
        S = X.T @ X / (n - 1)
        ridge = t / (1 - t) * np.trace(S) / len(S)
        maps.append(np.linalg.solve(S + ridge * np.eye(len(S)), X.T / (n - 1)))
        total += X @ maps[-1]
    values, vectors = np.linalg.eigh(total)
    G = vectors[:, ::-1][:, :3] * np.sqrt(n - 1)
    np.testing.assert_allclose(model.eigenvalues_, values[::-1][:3], atol=1e-10)
    for w, A in zip(model.weights_, maps, strict=True):
        same_up_to_scale(w, A @ G)

    def loss(scores: Any) -> float:
        out = 0.0
        for X, t, A in zip(VIEWS, each, maps, strict=True):
            X = X - X.mean(axis=0)
            ridge = t / (1 - t) * np.trace(X.T @ X) / (n - 1) / X.shape[1]
            B = A @ scores
            out += np.sum((scores - X @ B) ** 2) / (n - 1) + ridge * np.sum(B**2)
        return float(out)

    assert loss(G) == pytest.approx(9 - model.eigenvalues_.sum())
    rng = np.random.default_rng(2)
    for size in (1e-3, 0.1, 10.0):
        other = np.linalg.qr(G + size * rng.normal(size=G.shape))[0] * np.sqrt(n - 1)
        assert loss(other) > loss(G)


def test_without_shrinkage_both_methods_are_one() -> None:
    a, b = (MultiviewCCA(method=m).fit(VIEWS) for m in METHODS)
    assert_same_model(a, b)
    a, b = (MultiviewCCA(method=m, shrinkage=0.5).fit(VIEWS) for m in METHODS)
    assert np.abs(a.weights_[0][:, 0] - b.weights_[0][:, 0]).max() > 1e-3


def test_the_eigenvalue_is_that_of_the_correlations_of_the_variates() -> None:
    model = MultiviewCCA(4).fit(VIEWS)
    largest = np.linalg.eigvalsh(model.pairwise_correlations_)[:, -1]
    np.testing.assert_allclose(model.eigenvalues_, largest, atol=1e-12)
    off = (model.pairwise_correlations_.sum(axis=(1, 2)) - 3) / 6
    np.testing.assert_allclose(model.correlations_, off, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("s", [0.0, 0.3])
def test_variates_are_those_of_cca_zoo(method: str, s: float) -> None:
    linear = pytest.importorskip("cca_zoo.linear")
    # Its ridge is in units of 1, ours of the mean variance: so that these are one.
    views = [v - v.mean(axis=0) for v in VIEWS]
    views = [v / np.sqrt(v.var(axis=0, ddof=1).mean()) for v in views]
    peer = {"mcca": linear.MCCA, "gcca": linear.GCCA}[method](3, shrinkage=s).fit(views)
    model = MultiviewCCA(3, method=method, shrinkage=s).fit(views)
    for w, v in zip(model.weights_, peer.weights_, strict=True):
        same_up_to_scale(w, v)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("solver", ["moments", "svd"])
def test_variates_have_unit_variance_and_signs(method: str, solver: str) -> None:
    model = MultiviewCCA(method=method, solver=solver, shrinkage=0.2, scale=True).fit(
        VIEWS, sample_weight=W
    )
    for u, X, L in zip(model.transform(VIEWS), VIEWS, model.loadings_, strict=True):
        np.testing.assert_allclose(np.cov(u.T, fweights=W.astype(int)).diagonal(), 1, atol=1e-12)
        both = np.corrcoef(np.repeat(np.hstack([X, u]), W.astype(int), axis=0).T)
        np.testing.assert_allclose(L, both[: X.shape[1], X.shape[1] :], atol=1e-12)
    first = model.weights_[0]
    assert (first[np.abs(first).argmax(axis=0), range(first.shape[1])] > 0).all()


# ---------------------------------------------------------------------------- invariants
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_views_does_not_matter(method: str) -> None:
    s = (0.1, 0.2, 0.3)
    a = MultiviewCCA(3, method=method, shrinkage=s).fit(VIEWS)
    order = [2, 0, 1]
    b = MultiviewCCA(3, method=method, shrinkage=[s[i] for i in order]).fit(
        [VIEWS[i] for i in order]
    )
    np.testing.assert_allclose(a.eigenvalues_, b.eigenvalues_, atol=1e-12)
    for i, j in enumerate(order):
        np.testing.assert_allclose(np.abs(b.weights_[i]), np.abs(a.weights_[j]), atol=1e-10)


@given(st.integers(0, 2**32 - 1))
def test_correlations_are_invariant_to_affine_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [rng.normal(size=(v.shape[1],) * 2) + 3 * np.eye(v.shape[1]) for v in VIEWS]
    moved = [v @ A + rng.normal(size=len(A)) for v, A in zip(VIEWS, maps, strict=True)]
    a, b = MultiviewCCA(3).fit(VIEWS), MultiviewCCA(3).fit(moved)
    np.testing.assert_allclose(a.pairwise_correlations_, b.pairwise_correlations_, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_units_of_views_and_of_scaled_features_do_not_matter(method: str) -> None:
    def fit(views: Any, scale: bool) -> Any:
        return MultiviewCCA(3, method=method, shrinkage=0.3, scale=scale).fit(views)

    whole = [v * c for v, c in zip(VIEWS, (100.0, 1e-3, 7.0), strict=True)]
    np.testing.assert_allclose(
        fit(whole, False).correlations_, fit(VIEWS, False).correlations_, atol=1e-10
    )
    rng = np.random.default_rng(0)
    each = [v * np.exp(rng.normal(size=v.shape[1])) for v in VIEWS]
    np.testing.assert_allclose(
        fit(each, True).correlations_, fit(VIEWS, True).correlations_, atol=1e-10
    )


# ------------------------------------------------------------------------------- moments


def test_the_score_is_the_mean_held_out_correlation_of_all_pairs() -> None:
    model, test = MultiviewCCA(3, shrinkage=0.2).fit(VIEWS), make(seed=5)
    pairs = [
        np.corrcoef(u.T, v.T)[:3, 3:].diagonal()
        for u, v in itertools.combinations(model.transform(test), 2)
    ]
    assert model.score(test) == pytest.approx(np.mean(pairs), abs=1e-10)


def test_searches_on_fold_moments() -> None:
    folds = Moments.folds(cv=3, image=VIEWS[0], text=VIEWS[1], label=VIEWS[2])
    grid = {"shrinkage": [0.01, 0.3], "method": METHODS}
    search = MomentsSearchCV(MultiviewCCA(2), grid).fit_moments(folds)
    found = [
        np.mean(
            [
                MultiviewCCA(2, **p)
                .fit_moments([f for f in folds if f is not fold])
                .score_moments(fold)
                for fold in folds
            ]
        )
        for p in search.cv_results_["params"]
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], found, atol=1e-12)
    assert set(search.best_estimator_.weights_) == {"image", "text", "label"}
    with pytest.raises(ValueError, match="takes all views in its first argument"):
        MomentsSearchCV(MultiviewCCA(2), grid).fit(VIEWS[0], VIEWS[1])


def test_forms_agree_and_wide_views_use_the_root() -> None:
    a, b = (MultiviewCCA(3, shrinkage=0.1, solver=s).fit(VIEWS) for s in ("moments", "svd"))
    assert_same_model(a, b)
    wide = make(40, (90, 60, 70))
    for method in METHODS:
        model = MultiviewCCA(3, method=method, shrinkage=0.2).fit(wide)
        assert model.moments_.form == "root"
        assert_same = MultiviewCCA(3, method=method, shrinkage=0.2, solver="moments").fit(wide)
        np.testing.assert_allclose(model.correlations_, assert_same.correlations_, atol=1e-9)
        np.testing.assert_allclose(model.weights_[0], assert_same.weights_[0], atol=1e-9)
        np.testing.assert_allclose(
            model.predict([*wide[:2], None])[2], assert_same.predict([*wide[:2], None])[2],
            atol=1e-9,
        )  # fmt: skip


def test_ill_conditioned_views_leave_the_scatter_form() -> None:
    rng = np.random.default_rng(0)
    mix = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    views = [VIEWS[0] @ (mix * np.logspace(0, -6, 6)) @ mix.T, *VIEWS[1:]]
    model = MultiviewCCA(3).fit(views)
    assert model.moments_.form == "root"
    np.testing.assert_allclose(
        model.correlations_, MultiviewCCA(3).fit(VIEWS).correlations_, atol=1e-8
    )


@pytest.mark.parametrize("multiple", [1, 4])
def test_few_eigenvectors_of_many(multiple: int) -> None:
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(1600, 30)))[0]
    values = np.repeat(np.linspace(1, 0.3, 30)[::multiple], multiple)[:30]
    A = (Q * values) @ Q.T
    found, V = leading_eigenvectors(A, 10)
    np.testing.assert_allclose(found, values[:10], atol=1e-10)
    np.testing.assert_allclose(A @ V, V * found, atol=1e-9)
    np.testing.assert_allclose(V.T @ V, np.eye(10), atol=1e-9)


# ------------------------------------------------------------------------- missing views
@pytest.mark.parametrize("s", [0.0, 0.3, (0.1, 0.5, 0.9)])
@pytest.mark.parametrize("scale", [False, True])
def test_predictions_are_conditional_means_of_the_shrunken_joint(s: Any, scale: bool) -> None:
    views = make(widths=(3, 4, 5), seed=3)
    unit = [v.std(axis=0, ddof=1) if scale else np.ones(v.shape[1]) for v in views]
    divided = [v / u for v, u in zip(views, unit, strict=True)]
    C, _, at = shrunken(divided, s)
    centred = [v - v.mean(axis=0) for v in divided]
    model = MultiviewCCA(shrinkage=s, scale=scale).fit(views)  # as many components as columns
    for given_views in ((0,), (0, 1), (1,)):
        rows = np.concatenate([np.arange(at[i].start, at[i].stop) for i in given_views])
        x = np.hstack([centred[i] for i in given_views])
        found = model.predict([v if i in given_views else None for i, v in enumerate(views)])
        for j in set(range(3)) - set(given_views):
            y = x @ np.linalg.solve(C[np.ix_(rows, rows)], C[rows, at[j]])
            np.testing.assert_allclose(
                found[j], y * unit[j] + views[j].mean(axis=0), atol=1e-9
            )  # fmt: skip
        assert all(found[i] is None for i in given_views)


def test_few_components_predict_from_their_variates_only() -> None:
    s = 0.2
    C, _, at = shrunken(VIEWS, s)
    model = MultiviewCCA(2, shrinkage=s).fit(VIEWS)
    B = scipy.linalg.block_diag(*model.weights_[:2])
    rows = np.r_[at[0], at[1]]
    x = np.hstack([v - v.mean(axis=0) for v in VIEWS[:2]])
    coefficients = np.linalg.solve(B.T @ C[np.ix_(rows, rows)] @ B, B.T @ C[rows, at[2]])
    expected = x @ B @ coefficients + VIEWS[2].mean(axis=0)
    np.testing.assert_allclose(model.predict([*VIEWS[:2], None])[2], expected, atol=1e-10)


def co_inertia_of_rows(views: list[Any], k: int) -> list[tuple[float, Any, list[Any]]]:
    """Eigenvalue, global score and axes by the Gram matrices of the deflated rows."""
    n, found = len(views[0]), []
    Z = [x - x.mean(axis=0) for x in views]
    Z = [x / np.sqrt((x**2).sum() / (n - 1)) for x in Z]
    for _ in range(k):
        values, G = np.linalg.eigh(sum(x @ x.T for x in Z) / (n - 1))
        axes = [x.T @ G[:, -1] / np.linalg.norm(x.T @ G[:, -1]) for x in Z]
        found.append((values[-1], G[:, -1], axes))
        Z = [x - np.outer(x @ w, w) for x, w in zip(Z, axes, strict=True)]
    return found


@pytest.mark.parametrize("scale", [False, True])
def test_multiple_co_inertia_is_that_of_the_rows(scale: bool) -> None:
    views = make(40, (6, 4, 60), 3)  # one of them wide
    units = [x.std(axis=0, ddof=1) if scale else np.ones(x.shape[1]) for x in views]
    model = MultiviewCCA(3, method="mcia", scale=scale).fit(views)
    scores = model.fuse(views)
    expected = co_inertia_of_rows([x / u for x, u in zip(views, units, strict=True)], 3)
    for k, (value, g, axes) in enumerate(expected):
        assert float(model.eigenvalues_[k]) == pytest.approx(value, rel=1e-10)
        assert abs(np.corrcoef(g, scores[:, k])[0, 1]) == pytest.approx(1, abs=1e-9)
        for w, u, axis in zip(model.weights_, units, axes, strict=True):
            own = w[:, k] * u
            assert abs(own @ axis) == pytest.approx(np.linalg.norm(own), rel=1e-9)


@pytest.mark.parametrize("method", ["mcca", "mcia"])
@pytest.mark.parametrize("scale", [False, True])
def test_explained_variance_is_that_of_the_regression_on_the_variates(
    method: Any, scale: bool
) -> None:
    model = MultiviewCCA(2, method=method, scale=scale).fit(VIEWS)
    for x, t, v, r in zip(
        VIEWS, model.transform(VIEWS), model.explained_variance_,
        model.explained_variance_ratio_, strict=True,
    ):  # fmt: skip
        x = (x - x.mean(axis=0)) / (x.std(axis=0, ddof=1) if scale else 1)
        for k in range(2):
            u = t[:, k] - t[:, k].mean()
            fitted = np.outer(u, u @ x / (u @ u))
            assert float(v[k]) == pytest.approx(fitted.var(axis=0, ddof=1).sum(), rel=1e-9)
            assert float(r[k]) == pytest.approx(float(v[k]) / x.var(axis=0, ddof=1).sum(), rel=1e-9)


def test_principal_components_of_one_view_twice() -> None:
    x = VIEWS[0]
    twice = MultiviewCCA(3, method="mcia").fit({"a": x, "b": x})
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1][:3]
    np.testing.assert_allclose(twice.explained_variance_["a"], values, rtol=1e-9)


def test_the_inverse_is_the_conditional_mean_given_the_variates() -> None:
    model = MultiviewCCA(2, shrinkage=0.2).fit(VIEWS)
    U = model.transform(VIEWS)
    found = model.inverse_transform([U[0], None, U[2][:9]])
    assert found[1] is None
    for i, rows in ((0, VIEWS[0]), (2, VIEWS[2][:9])):
        S, W = np.cov(VIEWS[i], rowvar=False), model.weights_[i]
        slopes = np.linalg.solve(W.T @ S @ W, W.T @ S)
        centred = rows - VIEWS[i].mean(axis=0)
        np.testing.assert_allclose(
            found[i], centred @ W @ slopes + VIEWS[i].mean(axis=0), atol=1e-9
        )
    assert list(
        MultiviewCCA(2).fit({"a": VIEWS[0], "b": VIEWS[1]}).inverse_transform({"b": U[1]})
    ) == ["b"]
    with pytest.raises(ValueError, match="the variates have 1 columns, but there are 2"):
        model.inverse_transform([U[0][:, :1], None, None])


@pytest.mark.parametrize("method", METHODS)
def test_missing_views_are_predicted_better_the_more_are_given(method: str) -> None:
    train, test = [[v[cut] for v in make(3000)] for cut in (slice(2000), slice(2000, 3000))]
    model = MultiviewCCA(3, method=method, shrinkage=0.01).fit(train)

    def error(*given_views: int) -> float:
        shown = [v if i in given_views else None for i, v in enumerate(test)]
        return float(np.mean((model.predict(shown)[2] - test[2]) ** 2))

    mean = float(np.mean((train[2].mean(axis=0) - test[2]) ** 2))
    assert error(0, 1) < min(error(0), error(1)) < max(error(0), error(1)) < 0.9 * mean


def test_fuse_is_the_latent_and_better_the_more_views_are_given() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 1))
    views = [
        np.hstack([z + rng.normal(size=z.shape), rng.normal(size=(4000, 2))]) for _ in range(4)
    ]
    train, test = [v[:3000] for v in views], [v[3000:] for v in views]
    model = MultiviewCCA(1).fit(train)
    rho = []
    for count in (1, 2, 3, 4):
        shown = [v if i < count else None for i, v in enumerate(test)]
        found = model.fuse(shown)[:, 0]
        # One factor of loading 1 / sqrt(2): E[z | sum of `count` views].
        exact = sum(v[:, 0] for v in test[:count]) / (count + 1)
        assert abs(np.corrcoef(found, exact)[0, 1]) > 0.995
        assert np.std(found) == pytest.approx(np.sqrt(count / (count + 1)), rel=0.05)
        rho.append(abs(np.corrcoef(found, z[3000:, 0])[0, 1]))
    assert rho == sorted(rho)


def test_all_views_fuse_to_the_consensus_variate() -> None:
    model = MultiviewCCA(3).fit(VIEWS)
    fused = model.fuse(VIEWS)
    reliability = 1.5 * (1 - 1 / model.eigenvalues_)
    np.testing.assert_allclose(np.cov(fused.T), np.diag(reliability), atol=1e-10)
    # The eigenvector of the correlations of the variates weighs them.
    each = np.stack(model.transform(VIEWS), axis=2)
    top = np.linalg.eigh(model.pairwise_correlations_)[1][:, :, -1]
    same_up_to_scale(fused, np.einsum("nkm,km->nk", each, top))


@pytest.mark.ordinary
def test_labels_given_as_a_view_are_predicted() -> None:
    emoji = load_emoji()
    labels = (emoji.group[:, None] == np.unique(emoji.group)).astype(float)
    views = {"image": emoji.image, "text": emoji.text, "label": labels}
    model = MultiviewCCA(50, shrinkage=0.3).fit({k: v[emoji.train] for k, v in views.items()})
    asked = {k: views[k][emoji.test] for k in ("image", "text")}
    truth = labels[emoji.test].argmax(axis=1)

    def right(*names: str) -> float:
        found = model.predict({k: asked[k] for k in names})["label"]
        return float((found.argmax(axis=1) == truth).mean())

    assert right("image", "text") > max(right("image"), right("text")) > 0.6


# ---------------------------------------------------------------------------- containers
def test_a_list_gives_lists_and_a_dict_gives_dicts() -> None:
    named = dict(zip(("image", "text", "sound"), VIEWS, strict=True))
    listed, model = MultiviewCCA(2).fit(VIEWS), MultiviewCCA(2).fit(named)
    assert listed.view_names_ == NAMES
    assert model.view_names_ == ("image", "text", "sound")
    assert isinstance(listed.weights_, list)
    assert list(model.weights_) == list(model.means_) == list(model.loadings_) == list(named)
    found = model.transform({"sound": VIEWS[2][:4], "image": None})
    assert list(found) == ["sound", "image"]
    assert found["image"] is None
    by_position = model.transform([None, None, VIEWS[2][:4]])
    assert by_position[:2] == [None, None]
    np.testing.assert_array_equal(found["sound"], by_position[2])
    assert list(model.predict({"text": VIEWS[1]})) == ["image", "sound"]
    embedded = model.embed({"image": VIEWS[0][:5], "sound": VIEWS[2][:7]})
    np.testing.assert_allclose(np.linalg.norm(embedded["sound"], axis=1), 1)
    S = model.similarity({"sound": VIEWS[2][:7], "image": VIEWS[0][:5]})
    np.testing.assert_allclose(S, embedded["sound"] @ embedded["image"].T)
    assert model.similarity([VIEWS[0][:5], None, VIEWS[2][:7]]).shape == (5, 7)


def test_eigenvalue_cosine_is_that_of_gong_et_al() -> None:
    C, D, at = shrunken(VIEWS, 0.2)
    values, vectors = scipy.linalg.eigh(C, D)
    values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
    U, V = ((VIEWS[i] - VIEWS[i].mean(axis=0)) @ vectors[at[i]] * values**4 for i in (0, 2))
    U, V = (a / np.linalg.norm(a, axis=1)[:, None] for a in (U, V))
    model = MultiviewCCA(3, shrinkage=0.2).fit(VIEWS)
    found = model.similarity([VIEWS[0], None, VIEWS[2]], kind="eigenvalue_cosine", power=4)
    np.testing.assert_allclose(found, U @ V.T, atol=1e-10)


def test_frames_keep_their_index_and_vectors_stay_vectors() -> None:
    index = [f"item {i}" for i in range(150)]
    frame = pd.DataFrame(VIEWS[0], index=index, columns=list("abcdef"))
    views = {"x": frame, "y": VIEWS[1], "z": pd.Series(VIEWS[2][:, 0], index=index, name="z")}
    model = MultiviewCCA(1).fit(views).set_output(transform="pandas")
    found = model.transform({"x": frame})["x"]
    assert list(found.index) == index
    assert list(found.columns) == ["multiviewcca0"]
    assert model.predict({"x": frame})["z"].shape == (150,)
    assert list(model.feature_names_in_["x"]) == list("abcdef")
    with pytest.raises(ValueError, match="feature names of view x should match"):
        model.transform({"x": frame[list("fedcba")]})


# ---------------------------------------------------------------------- array libraries


# ------------------------------------------------------------------------ degenerate data
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("solver", ["moments", "svd"])
def test_constant_columns_get_no_weight(method: str, solver: str) -> None:
    views = [np.column_stack([VIEWS[0], np.full(150, 0.1)]), *VIEWS[1:]]
    expected = MultiviewCCA(3, method=method).fit(VIEWS)
    with pytest.warns(UserWarning, match="1 of the columns of view0 is constant"):
        model = MultiviewCCA(3, method=method, solver=solver).fit(views)
    np.testing.assert_allclose(model.correlations_, expected.correlations_, atol=1e-12)
    np.testing.assert_allclose(model.weights_[0][:6], expected.weights_[0], atol=1e-10)
    assert (model.weights_[0][6] == 0).all()


@pytest.mark.parametrize("s", [0.0, 0.3])
def test_a_constant_view_takes_no_part(s: float) -> None:
    views = [VIEWS[0], np.ones((150, 2)), VIEWS[2]]
    with pytest.warns(UserWarning, match="columns of view1 are constant"):
        model = MultiviewCCA(2, shrinkage=s).fit(views)
    two = MultiviewCCA(2, shrinkage=s).fit([VIEWS[0], VIEWS[2]])
    np.testing.assert_allclose(model.weights_[2], two.weights_[1], atol=1e-10)
    assert (model.weights_[1] == 0).all()
    assert (model.pairwise_correlations_[:, 0, 1] == 0).all()
    np.testing.assert_allclose(model.predict([VIEWS[0], None, None])[1], 1.0)
    np.testing.assert_allclose(
        model.predict([VIEWS[0], None, None])[2], two.predict([VIEWS[0], None])[1], atol=1e-10
    )
    assert np.isfinite(model.fuse([None, views[1], None])).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("s", [0.0, 0.3, 1.0])
def test_views_that_do_not_vary_have_nothing_in_common(method: str, s: float) -> None:
    views = [np.ones((10, 2)), VIEWS[1][:10], np.ones((10, 3))]
    with pytest.warns(UserWarning, match="no two views have anything in common"):
        model = MultiviewCCA(method=method, shrinkage=s).fit(views)
    assert model.n_components_ == 1
    assert all((w == 0).all() for w in model.weights_)
    assert np.isfinite(model.embed(views)[1]).all()
    np.testing.assert_allclose(model.predict([None, views[1], None])[0], 1.0)
    np.testing.assert_allclose(model.fuse([None, views[1], None]), 0.0)


def test_linearly_dependent_columns_are_right_on_their_range() -> None:
    views = [np.column_stack([VIEWS[0], VIEWS[0] @ np.ones(6)]), *VIEWS[1:]]
    expected = MultiviewCCA(3).fit(VIEWS)
    with pytest.warns(UserWarning, match="columns of view0 depend on each other"):
        model = MultiviewCCA(3).fit(views)
    np.testing.assert_allclose(model.correlations_, expected.correlations_, atol=1e-10)
    np.testing.assert_allclose(
        model.predict([views[0], None, None])[2], expected.predict([VIEWS[0], None, None])[2],
        atol=1e-9,
    )  # fmt: skip


def test_a_view_given_twice_is_perfectly_correlated_with_itself() -> None:
    model = MultiviewCCA(2).fit([VIEWS[0], VIEWS[0], VIEWS[1]])
    np.testing.assert_allclose(model.pairwise_correlations_[:, 0, 1], 1, atol=1e-12)
    found = model.predict([None, VIEWS[0], None])
    assert np.isfinite(found[2]).all()
    full = MultiviewCCA().fit([VIEWS[0], VIEWS[0], VIEWS[1]])
    np.testing.assert_allclose(full.predict([None, VIEWS[0], VIEWS[1]])[0], VIEWS[0], atol=1e-8)


def test_too_few_rows_are_told() -> None:
    with pytest.warns(UserWarning, match="make some training correlations 1 whatever the data"):
        MultiviewCCA(2).fit([v[:9] for v in VIEWS])


@pytest.mark.parametrize("method", METHODS)
def test_full_shrinkage_is_the_limit(method: str) -> None:
    a = MultiviewCCA(2, method=method, shrinkage=1.0).fit(VIEWS)
    b = MultiviewCCA(2, method=method, shrinkage=1 - 1e-9).fit(VIEWS)
    for u, v in zip(a.weights_, b.weights_, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-6)
    np.testing.assert_allclose(a.embed(VIEWS)[0], b.embed(VIEWS)[0], atol=1e-6)
    one = (1.0, 0.1, 0.1)
    c = MultiviewCCA(1, method=method, shrinkage=one).fit(VIEWS)
    d = MultiviewCCA(1, method=method, shrinkage=(1 - 1e-8, 0.1, 0.1)).fit(VIEWS)
    for u, v in zip(c.weights_, d.weights_, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-5)


# ------------------------------------------------------------------------------ bad input
BAD: dict[str, tuple[Any, str]] = {
    "single view": (lambda: MultiviewCCA().fit([VIEWS[0]]), "at least two views"),
    "no views": (lambda: MultiviewCCA().fit([]), "at least two views"),
    "an array": (lambda: MultiviewCCA().fit(VIEWS[0]), "must be a list or a dict of matrices"),
    "X and y": (lambda: MultiviewCCA().fit([VIEWS[0]], VIEWS[1]), r"pass \[X, y\]"),
    "lengths": (
        lambda: MultiviewCCA().fit([VIEWS[0], VIEWS[1][:9]]),
        "inconsistent numbers of samples: view0 has shape",
    ),
    "None in fit": (
        lambda: MultiviewCCA().fit([*VIEWS[:2], None]),
        "view2 is None: views may be missing at transform, predict and fuse only",
    ),
    "None in score": (
        lambda: MultiviewCCA().fit(VIEWS).score([*VIEWS[:2], None]),
        "view2 is None",
    ),
    "unknown name": (
        lambda: MultiviewCCA().fit({"x": VIEWS[0], "y": VIEWS[1]}).transform({"z": VIEWS[0]}),
        "no view is named 'z': they are x, y",
    ),
    "reserved name": (
        lambda: MultiviewCCA().fit({"x": VIEWS[0], "form": VIEWS[1]}),
        "'form' cannot name a view",
    ),
    "number for a name": (
        lambda: MultiviewCCA().fit({0: VIEWS[0], 1: VIEWS[1]}),
        "0 cannot name a view",
    ),
    "width": (
        lambda: MultiviewCCA().fit(VIEWS).transform([VIEWS[1], None, None]),
        "view view0 has 4 features, but the model is expecting 6",
    ),
    "length of the list": (
        lambda: MultiviewCCA().fit(VIEWS).transform(VIEWS[:2]),
        "got a list of 2 views, but there are 3",
    ),
    "none given": (
        lambda: MultiviewCCA().fit(VIEWS).fuse([None, None, None]),
        "give at least one of the views view0, view1, view2",
    ),
    "none missing": (lambda: MultiviewCCA().fit(VIEWS).predict(VIEWS), "all views are given"),
    "rows at predict": (
        lambda: MultiviewCCA().fit(VIEWS).predict([VIEWS[0], VIEWS[1][:9], None]),
        "inconsistent numbers of samples",
    ),
    "similarity of three": (
        lambda: MultiviewCCA().fit(VIEWS).similarity(VIEWS),
        "similarity is of two views, got 3",
    ),
    "kind": (lambda: MultiviewCCA().fit(VIEWS).embed(VIEWS, kind="csa"), "kind='csa' is unknown"),
    "NaN": (
        lambda: MultiviewCCA().fit([np.full((5, 2), np.nan), VIEWS[1][:5]]),
        "view0 has 10 NaN values",
    ),
    "NaN at transform": (
        lambda: MultiviewCCA().fit(VIEWS).transform([None, VIEWS[1] * np.nan, None]),
        "view1 has 600 NaN values",
    ),
    "one row": (lambda: MultiviewCCA().fit([v[:1] for v in VIEWS]), "one sample has no variance"),
    "components": (
        lambda: MultiviewCCA(10).fit(VIEWS),
        "n_components=10 is too large: at most 9 are possible",
    ),
    "shrinkage": (lambda: MultiviewCCA(shrinkage=(0.1, 2.0, 0.1)).fit(VIEWS), "out of range"),
    "shrinkages": (
        lambda: MultiviewCCA(shrinkage=(0.1, 0.1)).fit(VIEWS),
        "must be one value or 3 of these, one for each view",
    ),
    "shrinkage by name": (
        lambda: MultiviewCCA(shrinkage={"a": 0.1, "b": 0.2}).fit(VIEWS),
        "shrinkage names the views a, b, but the views are view0, view1, view2",
    ),
    "method": (lambda: MultiviewCCA(method="sumcor").fit(VIEWS), "'method' parameter"),
    "one fold": (
        lambda: MultiviewCCA(shrinkage="cv").fit_moments(moments()),
        "cannot be split",
    ),
    "co-inertia with shrinkage": (
        lambda: MultiviewCCA(method="mcia", shrinkage=0.1).fit(VIEWS),
        "leave it at 0",
    ),
    "co-inertia with a target": (
        lambda: MultiviewCCA(method="mcia", target="aligned").fit(VIEWS),
        "method='mcia' does not shrink",
    ),
    "one block": (
        lambda: MultiviewCCA().fit_moments(Moments.from_data(x=VIEWS[0])),
        "at least two views",
    ),
    "moments of other width": (
        lambda: MultiviewCCA().fit(VIEWS).score_moments(moments([VIEWS[1], *VIEWS[1:]])),
        "the moments of view0 are of 4 features",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_raises_one_sentence(case: str) -> None:
    call, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert not re.search(r"\n", str(error.value).strip()) or case == "method"


def test_moments_without_a_view_name_it() -> None:
    with pytest.raises(KeyError, match="no block 'view0'"):
        MultiviewCCA().fit(VIEWS).score_moments(Moments.from_data(x=VIEWS[0], y=VIEWS[1]))


def test_shrinkage_by_name_is_that_of_the_view() -> None:
    named = dict(zip("abc", VIEWS, strict=True))
    a = MultiviewCCA(2, shrinkage={"c": 0.3, "a": 0.1, "b": 0.2}).fit(named)
    assert a.shrinkage_ == (0.1, 0.2, 0.3)
    b = MultiviewCCA(2, shrinkage={"c": "cv", "a": 0.1, "b": "auto"}, cv=3).fit(named)
    assert b.shrinkage_[0] == 0.1
    assert b.shrinkage_[2] in {s[2] for s in b.cv_shrinkages_}


# --------------------------------------------------------------------------- scikit-learn


@pytest.mark.parametrize("constructor", [Moments.from_data, Moments.folds])
def test_no_view_is_named_like_a_parameter_of_moments(constructor: Any) -> None:
    assert {*inspect.signature(constructor).parameters} - {"blocks"} <= {*RESERVED}


def test_multiple_co_inertia_leaves_out_a_view_that_does_not_vary() -> None:
    a, b = make(40, (6, 4), 3)
    with pytest.warns(UserWarning, match="constant"):
        found = MultiviewCCA(2, method="mcia").fit([a, np.full((40, 3), 0.1), b])
    expected = MultiviewCCA(2, method="mcia").fit([a, b])
    np.testing.assert_allclose(found.eigenvalues_, expected.eigenvalues_, rtol=1e-12)
    with pytest.warns(UserWarning, match="nothing to correlate"):
        MultiviewCCA(method="mcia").fit([a * 0 + 0.1, b * 0 + 0.1])
