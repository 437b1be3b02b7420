"""Sparse CCA: the optimality conditions, independent solvers, and what it selects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from cmstats import CCA, Moments, SparseCCA, canonical_correlation_test
from cmstats.kernels.groups import Groups, Penalty
from cmstats.kernels.linalg import leading_svd
from cmstats.kernels.pmd import penalised_path
from cmstats.kernels.sparse import Columns, sparse_path
from cmstats.plotting import SparsePathDisplay

mpl.use("Agg")


def planted(n: int, p: int, q: int, seed: int = 0) -> tuple[Any, Any]:
    """Two pairs of latent variables, each in 3 columns of x and in 3 of y."""
    rng = np.random.default_rng(seed)
    z, X, Y = rng.normal(size=(n, 2)), rng.normal(size=(n, p)), rng.normal(size=(n, q))
    X[:, :3] += 1.5 * z[:, :1]
    Y[:, :3] += 1.5 * z[:, :1]
    X[:, 5:8] += z[:, 1:]
    Y[:, 5:8] += z[:, 1:]
    X[:, 3] += 0.7 * X[:, 2]
    return X, Y


X, Y = planted(150, 14, 12)
X_GROUPS, Y_GROUPS = np.repeat(np.arange(7), 2), np.arange(12) % 4


def problem(X: Any, Y: Any) -> tuple[Any, Any, Any]:
    m = Moments.from_data(x=X, y=Y).standardized()
    return m.cov("x"), m.cov("y"), m.cov("x", "y")


def columns(C: Any, groups: Groups, root: bool) -> Columns:
    if not root:
        return Columns(C, False, groups)
    values, vectors = np.linalg.eigh(C)
    kept = values > 1e-12 * values[-1]
    return Columns(vectors[:, kept] * np.sqrt(values[kept]), True, groups)


def solved(X: Any, Y: Any, penalty: Penalty, alphas: Any, root: bool = False) -> list[Any]:
    Sxx, Syy, S = problem(X, Y)
    x, y = columns(Sxx, penalty.x, root), columns(Syy, penalty.y, root)
    found = list(sparse_path(S, x, y, alphas, tol=1e-10, max_iter=20_000))
    assert all(B.converged for B in found)
    return [B.within(S.shape) for B in found]


def penalty_of(p: int, q: int, x: Any = None, y: Any = None) -> Penalty:
    return Penalty(
        Groups(np.arange(p) if x is None else x), Groups(np.arange(q) if y is None else y)
    )


ELEMENTWISE = penalty_of(14, 12)
GROUPS = penalty_of(14, 12, X_GROUPS, Y_GROUPS)
ROWS_ONLY = penalty_of(14, 12, X_GROUPS)


@pytest.mark.parametrize("share", [0.8, 0.3, 0.05])
def test_the_solution_satisfies_the_optimality_conditions_of_the_lasso(share: float) -> None:
    Sxx, Syy, Sxy = problem(X, Y)
    alpha = share * np.abs(Sxy).max()
    (B,) = solved(X, Y, ELEMENTWISE, [alpha])
    G, there = Sxx @ B @ Syy - Sxy, B != 0
    assert there.any()
    np.testing.assert_allclose(G[there], -alpha * np.sign(B[there]), atol=1e-9)
    assert np.abs(G[~there]).max(initial=0) <= alpha + 1e-9


@pytest.mark.parametrize("share", [0.8, 0.3, 0.05])
@pytest.mark.parametrize("by_column", [False, True])
def test_the_solution_satisfies_those_of_groups(share: float, by_column: bool) -> None:
    Sxx, Syy, Sxy = problem(X, Y)
    penalty, columns = (ROWS_ONLY, np.arange(12)) if by_column else (GROUPS, Y_GROUPS)
    alpha = share * penalty.largest(Sxy)
    (B,) = solved(X, Y, penalty, [alpha])
    G = Sxx @ B @ Syy - Sxy
    for g in np.unique(X_GROUPS):
        for h in np.unique(columns):
            at = np.ix_(g == X_GROUPS, columns == h)
            weight, length = alpha * B[at].size ** 0.5, np.linalg.norm(B[at])
            if length:
                np.testing.assert_allclose(G[at], -weight * B[at] / length, atol=1e-8)
            else:
                assert np.linalg.norm(G[at]) <= weight + 1e-8


def proximal_gradient(Sxx: Any, Syy: Any, Sxy: Any, alpha: float, steps: int = 20_000) -> Any:
    """The elementwise problem by another algorithm (Beck and Teboulle 2009)."""
    step = 1 / (np.linalg.eigvalsh(Sxx)[-1] * np.linalg.eigvalsh(Syy)[-1])
    B = last = np.zeros_like(Sxy)
    for i in range(steps):
        at = B + i / (i + 3) * (B - last)
        at = at - step * (Sxx @ at @ Syy - Sxy)
        last, B = B, np.sign(at) * np.maximum(np.abs(at) - alpha * step, 0)
    return B


def test_proximal_gradient_finds_the_same() -> None:
    Sxx, Syy, Sxy = problem(X, Y)
    alpha = 0.2 * np.abs(Sxy).max()
    expected = proximal_gradient(Sxx, Syy, Sxy, alpha)
    np.testing.assert_allclose(solved(X, Y, ELEMENTWISE, [alpha])[0], expected, atol=1e-9)


@pytest.mark.parametrize("penalty", [ELEMENTWISE, GROUPS, ROWS_ONLY])
def test_warm_starts_change_nothing(penalty: Penalty) -> None:
    *_, Sxy = problem(X, Y)
    alphas = penalty.largest(Sxy) * np.geomspace(1, 0.05, 9)
    path = solved(X, Y, penalty, alphas)
    assert not path[0].any()
    for alpha, B in zip(alphas, path, strict=True):
        np.testing.assert_allclose(solved(X, Y, penalty, [alpha])[0], B, atol=1e-8)


@pytest.mark.parametrize("penalty", [penalty_of(60, 30), penalty_of(60, 30, np.arange(60) // 3)])
def test_more_columns_than_rows_in_both_forms(penalty: Penalty) -> None:
    wide, Y = planted(40, 60, 30)
    Sxx, Syy, Sxy = problem(wide, Y)
    alphas = penalty.largest(Sxy) * np.array([0.7, 0.4])
    found = solved(wide, Y, penalty, alphas, root=True)
    for a, b in zip(found, solved(wide, Y, penalty, alphas), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    if penalty.elementwise:
        expected = proximal_gradient(Sxx, Syy, Sxy, alphas[-1], 4000)
        np.testing.assert_allclose(found[-1], expected, atol=1e-6)
    both = [
        SparseCCA(2, alpha=alphas[-1]).fit_moments(Moments.from_data(form=form, x=wide, y=Y))
        for form in ("scatter", "root")
    ]
    np.testing.assert_allclose(both[0].x_weights_, both[1].x_weights_, atol=1e-7)


def test_without_a_penalty_it_is_cca() -> None:
    sparse, cca = SparseCCA(5, alpha=0.0).fit(X, Y), CCA(5).fit(X, Y)
    np.testing.assert_allclose(sparse.correlations_, cca.correlations_, atol=1e-10)
    np.testing.assert_allclose(sparse.x_weights_, cca.x_weights_, atol=1e-9)
    np.testing.assert_allclose(sparse.predict(X), cca.predict(X), atol=1e-9)


def test_the_pairs_are_those_of_the_penalised_matrix() -> None:
    Sxx, Syy, Sxy = problem(X, Y)
    alpha = 0.3 * np.abs(Sxy).max()
    (B,) = solved(X, Y, ELEMENTWISE, [alpha])
    model = SparseCCA(2, alpha=alpha, refine=0, relax=False, tol=1e-10).fit(X, Y)
    A, D = (w * v.std(axis=0, ddof=1)[:, None] for w, v in
            ((model.x_weights_, X), (model.y_weights_, Y)))  # fmt: skip
    for W, S in ((A, Sxx), (D, Syy)):
        np.testing.assert_allclose(W.T @ S @ W, np.eye(2), atol=1e-8)
    # A'S_xx B S_yy D is the diagonal of the leading singular values.
    inner = A.T @ Sxx @ B @ Syy @ D
    np.testing.assert_allclose(inner, np.diag(model.singular_values_), atol=1e-8)
    values = np.linalg.svd(np.linalg.cholesky(Sxx).T @ B @ np.linalg.cholesky(Syy))[1]
    np.testing.assert_allclose(values[:2], model.singular_values_, atol=1e-8)
    assert np.array_equal(model.x_support_, (model.x_weights_ != 0).any(axis=1))
    assert not (model.x_weights_[~B.any(axis=1)]).any()


def test_a_round_of_refinement_is_a_lasso_of_each_view_on_the_variate_of_the_other() -> None:
    x, y = ((v - v.mean(axis=0)) / v.std(axis=0, ddof=1) for v in (X, Y))
    alpha, n = 0.15, len(X)
    how: dict[str, Any] = {"alpha": alpha, "relax": False, "tol": 1e-10}
    first = SparseCCA(1, refine=0, **how).fit(x, y)
    found = SparseCCA(1, refine=1, **how).fit(x, y)
    lasso = Lasso(alpha=alpha * (n - 1) / n, fit_intercept=False, tol=1e-12)
    a = lasso.fit(x, y @ first.y_weights_[:, 0]).coef_.copy()
    np.testing.assert_allclose(found.x_weights_[:, 0], a / (x @ a).std(ddof=1), atol=1e-8)
    b = lasso.fit(y, x @ found.x_weights_[:, 0]).coef_
    np.testing.assert_allclose(found.y_weights_[:, 0], b / (y @ b).std(ddof=1), atol=1e-8)
    assert found.singular_values_ == pytest.approx(found.correlations_)


def written_out_pmd(K: Any, v: Any, c_x: float, c_y: float) -> tuple[Any, Any, float]:
    """Algorithm 3 of Witten, Tibshirani and Hastie (2009), thresholds by bisection."""

    def step(a: Any, c: float) -> Any:
        low, high = 0.0, float(np.abs(a).max())
        if np.abs(a).sum() / np.linalg.norm(a) <= c:
            return a / np.linalg.norm(a)
        for _ in range(60):
            t = (low + high) / 2
            s = np.sign(a) * np.maximum(np.abs(a) - t, 0)
            low, high = (low, t) if np.abs(s).sum() < c * np.linalg.norm(s) else (t, high)
        s = np.sign(a) * np.maximum(np.abs(a) - low, 0)
        return s / np.linalg.norm(s)

    for _ in range(60):
        u = step(K @ v, c_x)
        v = step(K.T @ u, c_y)
    return u, v, float(u @ K @ v)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [(1.5, 1.3), (3.0, 2.2), (1.01, 3.4)])
def test_pmd_is_the_papers_algorithm_from_several_starts(bounds: tuple[float, float]) -> None:
    *_, Sxy = problem(X, Y)
    ((U, V, converged, _),) = penalised_path(Sxy, 2, [bounds], tol=1e-12, max_iter=500)
    assert converged
    K = Sxy
    for i in range(2):
        each = [written_out_pmd(K, start, *bounds) for start in np.linalg.svd(Sxy)[2][:5]]
        u, v, value = max(each, key=lambda found: found[2])
        sign = np.sign(u @ U[:, i])
        np.testing.assert_allclose(sign * U[:, i], u, atol=1e-6)
        np.testing.assert_allclose(sign * V[:, i], v, atol=1e-6)
        assert np.abs(U[:, i]).sum() <= bounds[0] + 1e-9
        K = K - value * np.outer(u, v)


def test_pmd_of_nutrimouse_as_r_prints_it() -> None:
    """PMA's CCA with its defaults, printed with 7 digits in a question to datamethods.org.

    Genes and fatty acids of 40 mice (Martin et al. 2007, Hepatology 45). PMA starts each pair from
    one singular vector, so that its first two pairs are in the other order, and its third is a
    local maximum below that of another start.
    """
    with np.load(Path(__file__).parent / "nutrimouse.npz") as data:
        genes, lipids = data["gene"] / 100, data["lipid"] / 100
    model = SparseCCA(3, alpha=0.7, method="pmd").fit(genes, lipids)
    np.testing.assert_allclose(model.correlations_[:2], [0.8460601, 0.8802205], atol=1e-7)
    x, y = ((v - v.mean(axis=0)) / v.std(axis=0, ddof=1) for v in (genes, lipids))
    bounds, S = [0.3 * width**0.5 for width in (120, 21)], x.T @ y
    ((U, V, *_),) = penalised_path(S, 3, [bounds])
    found = [np.corrcoef(genes @ U[:, k], lipids @ V[:, k])[0, 1] for k in range(2)]
    np.testing.assert_allclose(found, [0.8200629, 0.8438400], atol=1e-7)
    K = S.copy()
    for k in range(2):
        K -= U[:, k] @ K @ V[:, k] * np.outer(U[:, k], V[:, k])
    u, v, value = written_out_pmd(K, np.linalg.svd(S)[2][2], *bounds)
    assert np.corrcoef(x @ u, y @ v)[0, 1] == pytest.approx(0.8477227, abs=1e-7)
    assert U[:, 2] @ K @ V[:, 2] > value


def test_pmd_of_extremes() -> None:
    plain = SparseCCA(2, alpha=0.0, method="pmd").fit(X, Y)
    assert plain.x_support_.all()
    assert plain.y_support_.all()
    single = SparseCCA(1, alpha=1.0, method="pmd").fit(X, Y)
    assert single.x_support_.sum() == single.y_support_.sum() == 1


def test_entries_that_no_threshold_separates() -> None:
    ((U, V, *_),) = penalised_path(np.diag([2.0, 2.0, 1.0]), 1, [(1.0, 1.0)])
    assert np.count_nonzero(U) == np.count_nonzero(V) == 1
    ((U, V, *_),) = penalised_path(np.ones((4, 3)), 2, [(1.0, 1.0)])
    assert np.count_nonzero(U) == np.count_nonzero(V) == 2
    ((U, *_),) = penalised_path(np.zeros((3, 2)), 1, [(1.0, 1.0)])
    assert not U.any()


def test_soft_is_the_papers_algorithm_from_several_starts() -> None:
    """Parkhomenko, Tritchler and Beyene (2009), section 2.3, with lambda / 2 = .2."""
    *_, K = problem(X, Y)
    ((U, V, converged, _),) = penalised_path(K, 2, [(0.2, 0.2)], tol=1e-12, soft=True)
    assert converged

    def step(a: Any) -> Any:
        a = a / np.linalg.norm(a)
        a = np.sign(a) * np.maximum(np.abs(a) - 0.2, 0)
        return a / np.linalg.norm(a)

    for i in range(2):
        found = []
        for v in np.linalg.svd(K)[2][:5]:
            for _ in range(200):
                u = step(K @ v)
                v = step(K.T @ u)
            found.append((u, v, float(u @ K @ v)))
        u, v, value = max(found, key=lambda each: each[2])
        sign = np.sign(u @ U[:, i])
        np.testing.assert_allclose(sign * U[:, i], u, atol=1e-9)
        np.testing.assert_allclose(sign * V[:, i], v, atol=1e-9)
        K = K - value * np.outer(u, v)


@pytest.mark.filterwarnings("ignore:only 1 of n_components:UserWarning")
def test_soft_leaves_nothing_from_alpha_max_on() -> None:
    largest = SparseCCA(2, alpha=0.1, method="soft").fit(X, Y).alpha_max_
    assert SparseCCA(2, alpha=0.5 * largest, method="soft").fit(X, Y).x_support_.any()
    with pytest.warns(UserWarning, match="leaves no column, all weights are 0: set it below"):
        none = SparseCCA(2, alpha=largest, method="soft").fit(X, Y)
    assert not none.x_support_.any()
    assert SparseCCA(2, alpha=0.0, method="soft").fit(X, Y).x_support_.all()


@pytest.mark.parametrize("shape", [(900, 700), (700, 900)])
@pytest.mark.parametrize("rank", [30, 12])
def test_leading_triplets_whether_the_guess_of_the_rank_is_right_or_not(
    shape: tuple[int, int], rank: int
) -> None:
    rng = np.random.default_rng(0)
    M = rng.normal(size=(shape[0], 30)) @ rng.normal(size=(30, shape[1]))
    u, s, vt = leading_svd(M, 4, rank=rank)
    U, d, Vt = np.linalg.svd(M)
    np.testing.assert_allclose(s, d[:4], rtol=1e-12)
    np.testing.assert_allclose(np.abs(U[:, :4].T @ u), np.eye(4), atol=1e-9)
    np.testing.assert_allclose(np.abs(Vt[:4] @ vt.T), np.eye(4), atol=1e-9)


def test_pairs_of_deflated_covariances_are_turned_to_a_positive_correlation() -> None:
    rng = np.random.default_rng(23)
    z = rng.normal(size=(30, 2))
    x, y = rng.normal(size=(30, 12)), rng.normal(size=(30, 10))
    for j in range(2):
        x[:, 3 * j : 3 * j + 3] += z[:, j : j + 1]
        y[:, 3 * j : 3 * j + 3] += z[:, j : j + 1]
    model = SparseCCA(3, method="soft", alpha=0.4).fit(x, y)
    assert 0 < model.correlations_[2] < 0.1
    np.testing.assert_allclose(model.singular_values_, model.correlations_, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_nothing_is_left_at_alpha_max_whatever_the_rounding() -> None:
    for seed in (36, 44, 47):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(40, 15)), rng.normal(size=(40, 12))
        alpha = SparseCCA(1, method="soft", alpha=0.1).fit(x, y).alpha_max_
        with pytest.warns(UserWarning, match="leaves no column"):
            assert not SparseCCA(1, method="soft", alpha=alpha).fit(x, y).x_support_.any()


@pytest.mark.parametrize("method", ["eccar", "pmd", "soft"])
def test_a_constant_view_is_said(method: Any) -> None:
    with pytest.warns(UserWarning, match="every column of x or of y is constant"):
        SparseCCA(1, method=method, alpha=0.2).fit(np.ones((60, 4)), Y[:60])


@pytest.mark.ordinary
def test_soft_finds_sparse_loadings_among_correlated_noise() -> None:
    rng = np.random.default_rng(0)
    noise = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(40), np.arange(40))))
    truth = np.isin(np.arange(40), [0, 1, 2, 20, 21, 22])
    for _ in range(3):
        z, views = rng.normal(size=(300, 2)), []
        for _ in range(2):
            loadings = np.zeros((2, 40))
            loadings[0, :3], loadings[1, 20:23] = [0.9, -0.8, 0.7], [-0.6, 0.5, 0.7]
            views.append(z @ loadings + rng.normal(size=(300, 40)) @ noise.T)
        model = SparseCCA(2, method="soft").fit(*views)
        assert f1(model.x_support_, truth) > 0.9
        assert f1(model.y_support_, truth) > 0.9


@pytest.mark.parametrize("method", ["eccar", "pmd", "soft"])
def test_units_of_views_without_scale_are_those_of_alpha(method: Any) -> None:
    alpha = {"eccar": 0.3, "pmd": 0.5, "soft": 0.2}[method]
    near = SparseCCA(2, alpha=alpha, method=method, scale=False).fit(X, Y)
    for a, b in ((1e-7, 1e3), (1e150, 1e-150), (1e140, 1e140)):
        unit = a * b if method == "eccar" else 1.0
        far = SparseCCA(2, alpha=alpha * unit, method=method, scale=False).fit(X * a, Y * b)
        np.testing.assert_allclose(far.x_weights_ * a, near.x_weights_, atol=1e-8)
        np.testing.assert_allclose(far.y_weights_ * b, near.y_weights_, atol=1e-8)
        assert far.alpha_max_ == pytest.approx(near.alpha_max_ * unit)


def f1(found: Any, truth: Any) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.mark.ordinary
def test_cv_finds_the_planted_columns() -> None:
    rows = planted(200, 40, 40, seed=3)
    model = SparseCCA(2, relax=False).fit(*rows)
    truth = np.isin(np.arange(40), [0, 1, 2, 5, 6, 7])
    assert f1(model.x_support_, truth) > 0.85
    assert f1(model.y_support_, truth) > 0.85
    assert model.x_stability_[truth].mean() > 0.9 > 0.5 > model.x_stability_[~truth].mean()
    assert model.score(*planted(2000, 40, 40, seed=4)) > 0.55
    # The largest alpha within one standard error of the best, and the path ends where it is level.
    means = model.cv_scores_.mean(axis=1)
    best = means.argmax()
    error = model.cv_scores_[best].std(ddof=1) / 5**0.5
    chosen = np.flatnonzero(means >= means[best] - error)[0]
    assert model.alpha_ == model.cv_alphas_[chosen]
    assert len(model.cv_alphas_) < 20
    assert means[-3:].max() <= means[:-3].max() + 0.1 * error


def selected_alone(model: Any, X: Any, Y: Any) -> None:
    """That the weights are those of a CCA of the selected columns."""
    x, y = model.x_support_, model.y_support_
    assert 0 < x.sum() < len(x)
    assert 0 < y.sum() < len(y)
    alone = CCA(model.n_components_).fit(X[:, x], Y[:, y])
    np.testing.assert_allclose(model.correlations_, alone.correlations_, atol=1e-9)
    np.testing.assert_allclose(model.x_weights_[x], alone.x_weights_, atol=1e-8)
    np.testing.assert_allclose(model.y_weights_[y], alone.y_weights_, atol=1e-8)
    assert not model.x_weights_[~x].any()
    assert not model.y_weights_[~y].any()


@pytest.mark.ordinary
def test_the_relaxed_fit_is_a_cca_of_the_selected_columns() -> None:
    wide = planted(60, 90, 70)
    for model in (
        SparseCCA(2, alpha=0.3),
        SparseCCA(2, alpha=0.3, scale=False),
        SparseCCA(2, alpha=0.25, x_groups=X_GROUPS),
        SparseCCA(2, cv=3),
    ):
        selected_alone(model.fit(X, Y), X, Y)
    selected_alone(SparseCCA(2, alpha=0.4).fit(*wide), *wide)
    few = SparseCCA(2, alpha=0.3).fit(X, Y)
    penalised = SparseCCA(2, alpha=0.3, relax=False).fit(X, Y)
    assert np.array_equal(few.x_support_, penalised.x_support_)
    assert np.array_equal(few.y_support_, penalised.y_support_)
    assert (few.correlations_ > penalised.correlations_).all()


def test_of_columns_that_depend_on_each_other_the_relaxed_fit_is_that_of_their_range() -> None:
    twice = np.column_stack([X, X[:, :3]])
    model = SparseCCA(2, alpha=0.3).fit(twice, Y)
    alone = CCA(2).fit(X[:, model.x_support_[:14]], Y[:, model.y_support_])
    np.testing.assert_allclose(model.correlations_, alone.correlations_, atol=1e-9)


def correlated(n: int, width: int, seed: int) -> tuple[Any, Any, Any]:
    """One pair with weights in the first five of columns whose neighbours are correlated."""
    rng, at = np.random.default_rng(seed), np.arange(width)
    S, truth = 0.6 ** np.abs(np.subtract.outer(at, at)), at < 5
    z, views = rng.normal(size=n), []
    for _ in range(2):
        u = truth * rng.choice([-1, 1], width)
        P = 0.9**0.5 * S @ u / (u @ S @ u) ** 0.5
        rest = rng.multivariate_normal(np.zeros(width), S - np.outer(P, P), size=n)
        views.append(np.outer(z, P) + rest)
    return views[0], views[1], truth


@pytest.mark.ordinary
def test_the_relaxed_choice_has_fewer_false_columns() -> None:
    *rows, truth = correlated(200, 30, seed=9)
    relaxed, penalised = (SparseCCA(1, relax=relax).fit(*rows) for relax in (True, False))
    false = []
    for model in (relaxed, penalised):
        supports = np.stack([model.x_support_, model.y_support_])
        assert supports[:, truth].all()
        false.append(supports[:, ~truth].sum())
    assert false[0] < false[1] / 2
    assert relaxed.alpha_ == relaxed.cv_alphas_[relaxed.cv_scores_.mean(axis=1).argmax()]


def test_as_many_selected_columns_as_rows_are_said() -> None:
    few = planted(30, 40, 30)
    with pytest.warns(UserWarning, match=r"30 samples make some training correlations 1.*relax"):
        SparseCCA(alpha=0.02).fit(*few)


@pytest.mark.ordinary
def test_bounds_of_pmd_have_equal_ratios() -> None:
    """A bound c selects at least about c squared columns: equal steps are too coarse for few."""
    truth = np.isin(np.arange(60), [0, 1, 2, 5, 6, 7])
    rows = planted(200, 60, 60, seed=2)
    model = SparseCCA(2, method="pmd").fit(*rows)
    bounds = 1 - np.array(model.cv_alphas_)
    assert bounds[0] * 60**0.5 == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(bounds[1:] / bounds[:-1], bounds[1] / bounds[0], rtol=2e-3)
    coarse = SparseCCA(2, method="pmd", alphas=0.05 * np.arange(1, 20)).fit(*rows)
    for view in ("x_support_", "y_support_"):
        assert f1(getattr(model, view), truth) == 1 > 0.7 > f1(getattr(coarse, view), truth)


@pytest.mark.slow
def test_starts_of_pmd_that_meet_are_left_without_a_loss() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        K = rng.normal(size=(12, 9)) + 2 * np.outer(rng.normal(size=12), rng.normal(size=9))
        ((U, V, *_),) = penalised_path(K, 1, [(1.6, 1.5)], tol=1e-10, max_iter=1000)
        starts = np.linalg.svd(K)[2][:4]
        largest = max(written_out_pmd(K, start, 1.6, 1.5)[2] for start in starts)
        assert U[:, 0] @ K @ V[:, 0] == pytest.approx(largest, rel=1e-6)


@pytest.mark.ordinary
def test_cv_is_a_fit_to_each_folds_rows() -> None:
    model = SparseCCA(2, cv=3, tol=1e-10).fit(X, Y)
    fold = np.arange(len(X)) % 3
    support = []
    for i in (2, 5):
        alpha = model.cv_alphas_[i]
        by_hand = [SparseCCA(2, alpha=alpha, tol=1e-10).fit(X[fold != k], Y[fold != k])
                   for k in range(3)]  # fmt: skip
        for k, each in enumerate(by_hand):
            held = X[fold == k], Y[fold == k]
            expected = each.score(*held) * each.n_components_ / 2
            assert model.cv_scores_[i, k] == pytest.approx(expected, abs=1e-7)
        counts = np.mean([[e.x_support_.sum(), e.y_support_.sum()] for e in by_hand], axis=0)
        np.testing.assert_allclose(model.cv_counts_[i], counts)
    at = [SparseCCA(2, alpha=model.alpha_).fit(X[fold != k], Y[fold != k]) for k in range(3)]
    support = np.mean([each.x_support_ for each in at], axis=0)
    np.testing.assert_allclose(model.x_stability_, support)


def test_groups_are_selected_together() -> None:
    model = SparseCCA(1, alpha=0.25, x_groups=[f"g{i}" for i in X_GROUPS]).fit(X, Y)
    by_group = model.x_support_.reshape(7, 2)
    assert (by_group[:, 0] == by_group[:, 1]).all()
    assert by_group.any()
    assert not by_group.all()
    together = SparseCCA(1, alpha=0.1, y_groups=np.zeros(12)).fit(X, Y)
    assert together.y_support_.all()
    assert not together.x_support_.all()


def test_one_target() -> None:
    model = SparseCCA(alpha=0.2, relax=False).fit(X, Y[:, 0])
    assert model.predict(X).shape == (150,)
    assert 0 < model.x_support_.sum() < 14
    # With one column of y the problem is the lasso.
    x, y = ((v - v.mean(axis=0)) / v.std(axis=0, ddof=1) for v in (X, Y[:, 0]))
    n = len(y)
    lasso = Lasso(alpha=0.2 * (n - 1) / n, fit_intercept=False, tol=1e-12).fit(x, y)
    own = model.x_weights_[:, 0] * X.std(axis=0, ddof=1)
    np.testing.assert_allclose(
        own / np.linalg.norm(own), lasso.coef_ / np.linalg.norm(lasso.coef_), atol=1e-7
    )


def test_too_large_a_penalty_leaves_nothing_and_says_so() -> None:
    with pytest.warns(UserWarning, match=r"alpha=0.99 leaves no column.*below alpha_max_=0\.\d+"):
        model = SparseCCA(alpha=0.99).fit(X, Y)
    assert not model.x_weights_.any()
    assert np.isfinite(model.transform(X)).all()
    alpha = 0.9 * model.alpha_max_
    with pytest.warns(UserWarning, match=r"only 2 of n_components=3 exist .*penalised matrix"):
        penalised = SparseCCA(3, alpha=alpha, relax=False).fit(X, Y)
    assert penalised.n_components_ == 2
    with pytest.warns(UserWarning, match=r"only \d of n_components=8 exist .*selected columns"):
        model = SparseCCA(8, alpha=alpha).fit(X, Y)
    assert model.n_components_ == min(model.x_support_.sum(), model.y_support_.sum())


def test_few_steps_are_said() -> None:
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=2 steps"):
        SparseCCA(alpha=0.01, x_groups=X_GROUPS, max_iter=2).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="problems in folds"):
        SparseCCA(x_groups=X_GROUPS, max_iter=2, cv=3).fit(X, Y)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"x_groups": [0, 1]}, r"x_groups has shape \(2,\), but x has 14 columns"),
        ({"y_groups": np.zeros((12, 1))}, r"y_groups has shape \(12, 1\)"),
        ({"method": "pmd", "x_groups": X_GROUPS}, "'pmd' selects single columns"),
        ({"method": "soft", "y_groups": [0] * 12}, "'soft' selects single columns"),
        ({"method": "pmd", "alpha": 1.5}, r"alpha=1.5 is out of range.*\[0, 1\]"),
        ({"x_groups": [None] * 14}, "x_groups has no label for column 0"),
        ({"alphas": [0.1, -1.0]}, "must be numbers, finite, not below 0"),
        ({"alphas": ["a"]}, "must be numbers"),
        ({"method": "pmd", "alphas": [0.5, 2.0]}, "must be numbers, from 0 to 1"),
        ({"alpha": -0.1}, "alpha"),
        ({"n_components": 13}, "n_components=13 is too large"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SparseCCA(**parameters).fit(X, Y)


def test_tests_of_plain_correlations_do_not_take_it() -> None:
    with pytest.raises(ValueError, match="not for SparseCCA"):
        canonical_correlation_test(SparseCCA(alpha=0.1).fit(X, Y))


@pytest.mark.ordinary
def test_the_path_is_drawn() -> None:
    model = SparseCCA(2, cv=3).fit(X, Y)
    display = SparsePathDisplay.from_estimator(model)
    assert len(display.counts_ax_.lines) == 2
    assert display.chosen == model.alpha_
    with pytest.raises(ValueError, match="no path of penalties"):
        SparsePathDisplay.from_estimator(SparseCCA(alpha=0.1).fit(X, Y))
    with pytest.raises(ValueError, match="one row of folds"):
        SparsePathDisplay([0.1], [[0.2], [0.3]], [[1, 1]], chosen=0.1, widths=(2, 2))


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("groups", [None, np.arange(40) // 2])
def test_steps_with_whole_matrices_and_on_single_blocks_find_the_same(
    monkeypatch: pytest.MonkeyPatch, groups: Any, root: bool
) -> None:
    rows = planted(35 if root else 80, 40, 30)
    penalty = penalty_of(40, 30, groups)
    Sxx, Syy, Sxy = problem(*rows)
    alphas = penalty.largest(Sxy) * np.geomspace(0.6, 0.1, 6)
    found = []
    for dense in (0.0, 2.0):  # from the first share of blocks on, or never
        monkeypatch.setattr("cmstats.kernels.sparse.DENSE", dense)
        found.append(solved(*rows, penalty, alphas, root=root))
    for alpha, a, b in zip(alphas, *found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
        assert penalty.violation(Sxx @ a @ Syy - Sxy, a, alpha) < 1e-9
