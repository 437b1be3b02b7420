"""ConditionalGaussianMixture against scikit-learn, direct formulas, SciPy and mpmath."""

from __future__ import annotations

import warnings
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from contract.places import Place
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from cmstats import ConditionalGaussianMixture
from cmstats.arrays import to_numpy
from cmstats.kernels import normal
from cmstats.kernels.mixture import mixture_sums
from cmstats.kernels.normal import component_logpdf, mixture_logpdf
from cmstats.models.mixture_density import Mixture

KINDS = ["full", "tied", "diagonal", "low_rank"]
pytestmark = [
    pytest.mark.ordinary,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def clusters(
    n: int, p: int, q: int, k: int, *, apart: float = 3.0, seed: int = 0
) -> tuple[Any, Any, Any]:
    """Views from k normals with their own covariances; and the component of each row."""
    rng = np.random.default_rng(seed)
    d = p + q
    means, A = apart * rng.normal(size=(k, d)), rng.normal(size=(k, d, d))
    of = rng.integers(k, size=n)
    Z = means[of] + np.einsum("nij,nj->ni", A[of], rng.normal(size=(n, d)))
    return Z[:, :p], Z[:, p:], of


def new(k: int, kind: Any = "full", **parameters: Any) -> ConditionalGaussianMixture:
    rank = parameters.pop("rank", 2 if kind == "low_rank" else None)
    parameters = {"random_state": 0, **parameters}
    return ConditionalGaussianMixture(k, covariance_type=kind, rank=rank, **parameters)


def matrices(model: ConditionalGaussianMixture) -> Any:
    """Covariance matrices of all components, whatever the type."""
    S, k = to_numpy(model.covariances_), model.weights_.shape[0]
    if model.covariance_type == "tied":
        return np.stack([S] * k)
    return np.stack([np.diag(s) for s in S]) if model.covariance_type == "diagonal" else S


def joint_terms(model: ConditionalGaussianMixture, Z: Any, columns: slice) -> Any:
    """log w_j + log N_j of some columns, by SciPy."""
    means, S = to_numpy(model.means_)[:, columns], matrices(model)[:, columns, columns]
    return np.stack(
        [
            np.log(w) + scipy.stats.multivariate_normal.logpdf(Z[:, columns], m, s)
            for w, m, s in zip(to_numpy(model.weights_), means, S, strict=True)
        ],
        axis=1,
    )


class StartedAt(ConditionalGaussianMixture):
    """EM from given means, unit covariances and equal weights, in the units of the data."""

    means: Any

    def _start(self, rows: Any, maximize: Any, rng: Any) -> Mixture:
        k, d = self.means.shape
        centre, scale = rows.scaling.centre, rows.scaling.scale
        kind: Any = "diag" if self.covariance_type == "diagonal" else self.covariance_type
        unit = np.eye(d) / (scale[:, None] * scale)
        S = {"full": np.stack([unit] * k), "tied": unit, "diag": np.ones((k, d)) / scale**2}
        return Mixture(kind, np.full(k, 1 / k), (self.means - centre) / scale, S[kind])


# ---------------------------------------------------------------------------------- EM
@pytest.mark.parametrize("kind", ["full", "tied", "diagonal"])
@pytest.mark.parametrize("seed", [0, 1])
def test_em_equals_scikit_learn_from_the_same_start(kind: Any, seed: int) -> None:
    X, Y, _ = clusters(900, 4, 2, 3, apart=1.5, seed=seed)
    Z = np.c_[X, Y]
    Z = (Z - Z.mean(axis=0)) / Z.std(axis=0)  # then reg_covar means the same
    X, Y = Z[:, :4], Z[:, 4:]
    found = StartedAt(3, covariance_type=kind, max_iter=12, tol=0)
    found.means = Z[:3]
    found.fit(X, Y)
    precisions: Any = {"full": np.stack([np.eye(6)] * 3), "tied": np.eye(6)}
    expected = GaussianMixture(
        3,
        covariance_type={"diagonal": "diag"}.get(kind, kind),
        max_iter=12,
        tol=0,
        weights_init=np.full(3, 1 / 3),
        means_init=Z[:3],
        precisions_init=precisions.get(kind, np.ones((3, 6))),
    ).fit(Z)
    assert found.n_iter_ == expected.n_iter_ == 12
    for name in ("weights_", "means_", "covariances_", "lower_bound_", "lower_bounds_"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=1e-10, err_msg=name
        )
    assert found.bic(X, Y) == pytest.approx(expected.bic(Z), rel=1e-12)
    assert found.aic(X, Y) == pytest.approx(expected.aic(Z), rel=1e-12)
    np.testing.assert_allclose(found.responsibilities(X, Y), expected.predict_proba(Z), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
def test_the_likelihood_never_falls(kind: Any, seed: int, k: int) -> None:
    X, Y, _ = clusters(300, 4, 3, 3, apart=1.0, seed=seed)
    model = new(k, kind, max_iter=25, tol=0, reg_covar=0.0 if kind != "low_rank" else 1e-8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y)
    # Of a component with fewer rows than columns the likelihood has no maximum.
    assume(not any("singular but for reg_covar" in str(w.message) for w in caught))
    assert np.diff(model.lower_bounds_).min() > -1e-6
    assert model.lower_bound_ == model.lower_bounds_[-1]


@pytest.mark.parametrize("kind", ["full", "low_rank"])
def test_a_known_mixture_is_recovered(kind: Any) -> None:
    rng = np.random.default_rng(3)
    means = np.array([[0.0, 0, 0, 0, 0], [8, 0, 8, 0, 8], [0, -8, 0, 8, -8]])
    L, D = rng.normal(size=(3, 5, 1)), rng.uniform(0.2, 1.0, (3, 5))
    S = L @ L.transpose(0, 2, 1) + np.stack([np.diag(v) for v in D])
    of = rng.choice(3, 30_000, p=[0.5, 0.3, 0.2])
    Z = np.empty((30_000, 5))
    for j in range(3):
        Z[of == j] = rng.multivariate_normal(means[j], S[j], (of == j).sum())
    model = new(3, kind, rank=1 if kind == "low_rank" else None, tol=1e-6).fit(Z[:, :3], Z[:, 3:])
    order = np.argsort(-model.weights_)
    np.testing.assert_allclose(model.weights_[order], [0.5, 0.3, 0.2], atol=0.01)
    np.testing.assert_allclose(model.means_[order], means, atol=0.08)
    np.testing.assert_allclose(model.covariances_[order], S, rtol=0.03, atol=0.1)
    assert model.converged_
    assert (model.responsibilities(Z[:, :3], Z[:, 3:]).argmax(axis=1) == order[of]).mean() > 0.999


def test_low_rank_with_one_component_is_factor_analysis() -> None:
    from sklearn.decomposition import FactorAnalysis

    rng = np.random.default_rng(0)
    Z = rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 9)) + rng.normal(size=(2000, 9))
    model = new(1, "low_rank", rank=3, tol=1e-10, max_iter=2000, reg_covar=0).fit(
        Z[:, :5], Z[:, 5:]
    )
    peer = FactorAnalysis(3, tol=1e-10, max_iter=5000, svd_method="lapack").fit(Z)
    assert model.lower_bound_ == pytest.approx(peer.score(Z), abs=1e-7)
    np.testing.assert_allclose(model.covariances_[0], peer.get_covariance(), atol=2e-3)


def test_low_rank_covariances_are_loadings_and_noise() -> None:
    X, Y, _ = clusters(400, 5, 3, 2)
    model = new(2, "low_rank", rank=3).fit(X, Y)
    L, D = model.loadings_, model.noise_variances_
    assert L.shape == (2, 8, 3)
    assert model.rank_ == 3
    expected = L @ L.transpose(0, 2, 1) + np.stack([np.diag(v) for v in D])
    np.testing.assert_allclose(model.covariances_, expected, rtol=1e-12)
    free = 2 * (8 * 3 - 3 + 8) + 2 * 8 + 1
    n, total = len(X), joint_terms(model, np.c_[X, Y], slice(None))
    log_likelihood = logsumexp(total, axis=1).sum()
    assert model.bic(X, Y) == pytest.approx(-2 * log_likelihood + free * np.log(n), rel=1e-12)


# ------------------------------------------------------------------------ conditionals
@pytest.mark.parametrize("kind", KINDS)
def test_densities_equal_scipys(kind: Any) -> None:
    X, Y, _ = clusters(300, 4, 2, 3, apart=1.0)
    model, Z = new(3, kind, max_iter=5).fit(X, Y), np.c_[X, Y]
    both, x = joint_terms(model, Z, slice(None)), joint_terms(model, Z, slice(0, 4))
    expected = logsumexp(both, axis=1) - logsumexp(x, axis=1)
    np.testing.assert_allclose(model.logpdf(X, Y), expected, atol=1e-10)
    assert model.score(X, Y) == pytest.approx(expected.mean(), abs=1e-10)
    for terms, found in ((both, model.responsibilities(X, Y)), (x, model.responsibilities(X))):
        expected = np.exp(terms - logsumexp(terms, axis=1, keepdims=True))
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_equal_the_formulas(kind: Any) -> None:
    X, Y, _ = clusters(300, 4, 3, 3, apart=1.0)
    model = new(3, kind, max_iter=5).fit(X, Y)
    mean, std, cov = model.predict(X[:20], return_std=True, return_cov=True)
    S, r = matrices(model), model.responsibilities(X[:20])
    for i in range(20):
        ms, Vs = [], []
        for j in range(3):
            C = S[j, 4:, :4] @ np.linalg.inv(S[j, :4, :4])
            ms.append(model.y_means_[j] + C @ (X[i] - model.x_means_[j]))
            Vs.append(S[j, 4:, 4:] - C @ S[j, :4, 4:])
        m = sum(w * a for w, a in zip(r[i], ms, strict=True))
        second = sum(w * (V + np.outer(a, a)) for w, V, a in zip(r[i], Vs, ms, strict=True))
        np.testing.assert_allclose(mean[i], m, atol=1e-10)
        np.testing.assert_allclose(cov[i], second - np.outer(m, m), atol=1e-9)
    np.testing.assert_allclose(std, np.sqrt(np.diagonal(cov, axis1=1, axis2=2)), rtol=1e-12)
    np.testing.assert_array_equal(cov, cov.transpose(0, 2, 1))
    np.testing.assert_array_equal(model.predict(X[:20]), mean)


def test_the_density_of_y_integrates_to_one() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (500, 1))
    y = np.where(rng.random(500) < 0.5, x[:, 0], -x[:, 0]) + 0.1 * rng.normal(size=500)
    model = new(3).fit(x, y)
    grid = np.linspace(-4, 4, 20_001)
    for at in (-0.9, 0.1):
        density = np.exp(model.logpdf(np.full((grid.size, 1), at), grid))
        assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-6)
        mean, std = model.predict([[at]], return_std=True)
        assert np.trapezoid(density * grid, grid) == pytest.approx(mean[0], abs=1e-6)
        spread = np.trapezoid(density * (grid - mean[0]) ** 2, grid)
        assert spread == pytest.approx(std[0] ** 2, rel=1e-6)


def test_one_component_is_linear_regression() -> None:
    X, Y, _ = clusters(400, 4, 2, 1)
    model = new(1, reg_covar=0.0).fit(X, Y)
    peer = LinearRegression().fit(X, Y)
    np.testing.assert_allclose(model.predict(X), peer.predict(X), atol=1e-9)
    residual = Y - peer.predict(X)
    V = residual.T @ residual / len(X)
    np.testing.assert_allclose(model.predict(X[:1], return_cov=True)[1][0], V, rtol=1e-9)
    expected = scipy.stats.multivariate_normal.logpdf(residual, np.zeros(2), V)
    np.testing.assert_allclose(model.logpdf(X, Y), expected, atol=1e-9)


@pytest.mark.slow
def test_nothing_underflows_in_many_columns() -> None:
    rng = np.random.default_rng(0)
    Z = 0.1 * rng.normal(size=(200, 300)) + 50 * rng.integers(2, size=(200, 1))
    X, Y = Z[:, :150], Z[:, 150:]
    for kind in ("diagonal", "low_rank"):
        model = new(2, kind).fit(X, Y)
        density = model.logpdf(X[:5], Y[:5])
        expected = logsumexp(joint_terms(model, Z[:5], slice(None)), axis=1)
        expected -= logsumexp(joint_terms(model, Z[:5], slice(0, 150)), axis=1)
        assert density.min() > 80
        np.testing.assert_allclose(density, expected, atol=1e-6)
        far = model.logpdf(X[:5] + 1e4, Y[:5] - 1e4)
        assert np.isfinite(far).all()


def test_densities_equal_mpmath() -> None:
    X, Y, _ = clusters(200, 3, 2, 2, apart=40.0)
    model = new(2, max_iter=3).fit(X, Y)
    row = np.r_[X[0] + 100.0, Y[0] - 300.0]  # far from every component
    with mpmath.workdps(60):

        def term(j: int, d: int) -> Any:
            S = mpmath.matrix(model.covariances_[j][:d, :d].tolist())
            z = mpmath.matrix(
                [
                    mpmath.mpf(a) - mpmath.mpf(b)
                    for a, b in zip(row[:d], model.means_[j], strict=False)
                ]
            )
            square = (z.T * mpmath.inverse(S) * z)[0]
            norm = mpmath.sqrt((2 * mpmath.pi) ** d * mpmath.det(S))
            return mpmath.mpf(model.weights_[j]) * mpmath.exp(-square / 2) / norm

        expected = mpmath.log(sum(term(j, 5) for j in range(2)))
        expected -= mpmath.log(sum(term(j, 3) for j in range(2)))
    found = float(model.logpdf(row[None, :3], row[None, 3:])[0])
    assert found == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_predicted_moments(kind: Any) -> None:
    X, Y, _ = clusters(600, 3, 2, 3, apart=1.0)
    model = new(3, kind).fit(X, Y)
    mean, cov = model.predict(X[:3], return_cov=True)
    drawn = model.sample(X[:3], 40_000, random_state=0)
    assert drawn.shape == (3, 40_000, 2)
    deviation = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    assert np.abs((drawn.mean(axis=1) - mean) / deviation).max() < 0.03
    for i in range(3):
        np.testing.assert_allclose(
            np.cov(drawn[i].T) / np.outer(deviation[i], deviation[i]),
            cov[i] / np.outer(deviation[i], deviation[i]),
            atol=0.04,
        )
    np.testing.assert_array_equal(
        model.sample(X[:9], random_state=1), model.sample(X[:9], random_state=1)
    )
    assert model.sample(X[:9]).shape == (9, 2)


def test_one_dimensional_y_gives_one_dimension() -> None:
    X, Y, _ = clusters(200, 3, 1, 2)
    model, column = new(2).fit(X, Y[:, 0]), new(2).fit(X, Y)
    mean, std, cov = model.predict(X[:7], return_std=True, return_cov=True)
    assert mean.shape == std.shape == (7,)
    assert cov.shape == (7, 1, 1)
    assert model.sample(X[:7]).shape == (7,)
    assert model.sample(X[:7], 4).shape == (7, 4)
    assert column.predict(X[:7]).shape == (7, 1)
    np.testing.assert_array_equal(column.predict(X[:7])[:, 0], mean)
    np.testing.assert_array_equal(model.logpdf(X, Y[:, 0]), column.logpdf(X, Y))


def test_swapped_pairs_score_as_outliers() -> None:
    X, Y, _ = clusters(2000, 5, 3, 4)
    model = new(4).fit(X[:1000], Y[:1000])
    scores = model.outlier_scores(X[:1000], Y[:1000])
    assert scores.mean() == pytest.approx(0.0, abs=1e-9)
    assert scores.std() == pytest.approx(1.0, abs=1e-9)
    mixed = Y[1000:].copy()
    mixed[:200] = mixed[:200][::-1]
    wrong = np.arange(1000) < 200
    assert roc_auc_score(wrong, model.outlier_scores(X[1000:], mixed)) > 0.95


def test_an_answer_in_two_branches_is_found() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2000, 1))
    y = np.where(rng.random(2000) < 0.5, x[:, 0], -x[:, 0]) + 0.05 * rng.normal(size=2000)
    model = new(2, n_init=5).fit(x[:1000], y[:1000])
    single = new(1).fit(x[:1000], y[:1000])
    assert model.score(x[1000:], y[1000:]) > single.score(x[1000:], y[1000:]) + 0.5


# ------------------------------------------------------------------- units and weights
@pytest.mark.parametrize("kind", KINDS)
def test_the_fit_does_not_depend_on_units(kind: Any) -> None:
    X, Y, _ = clusters(300, 4, 2, 3)
    a, b = np.array([1e-6, 1.0, 1e3, 1e7]), np.array([1e-3, 50.0])
    plain = new(3, kind, reg_covar=1e-3).fit(X, Y)
    scaled = new(3, kind, reg_covar=1e-3).fit(X * a + 4 * a, Y * b - 7)
    np.testing.assert_allclose(scaled.weights_, plain.weights_, atol=1e-5)
    np.testing.assert_allclose(
        scaled.logpdf(X * a + 4 * a, Y * b - 7), plain.logpdf(X, Y) - np.log(b).sum(), atol=1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_far_from_zero(kind: Any) -> None:
    X, Y, _ = clusters(600, 4, 2, 3)
    X, Y = (X + 500).astype(np.float32), (Y - 300).astype(np.float32)
    found, expected = new(3, kind).fit(X, Y), new(3, kind).fit(X.astype(float), Y.astype(float))
    assert found.means_.dtype == found.covariances_.dtype == np.float64
    np.testing.assert_allclose(found.lower_bounds_, expected.lower_bounds_, atol=1e-4)
    np.testing.assert_allclose(found.means_, expected.means_, atol=1e-3)
    for name, args in (("predict", (X,)), ("logpdf", (X, Y)), ("outlier_scores", (X, Y))):
        a, b = (
            getattr(found, name)(*args),
            getattr(expected, name)(*(v.astype(float) for v in args)),
        )
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=2e-2, err_msg=name)


# ------------------------------------------------------------------- degenerate and bad
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reg", [0.0, 1e-6])
def test_duplicate_and_collinear_rows_are_told_about(kind: Any, reg: float) -> None:
    X = np.repeat(np.array([[0.0, 0.0], [1.0, 3.0], [5.0, 1.0]]), 10, axis=0)
    Y = X.sum(axis=1)
    with pytest.warns(UserWarning, match="singular but for reg_covar") as record:
        model = new(3, kind, rank=1 if kind == "low_rank" else None, reg_covar=reg).fit(X, Y)
    assert sum(w.category is UserWarning for w in record) == 1
    # One of the points, up to the ridge; tied covariances leave nothing else to go by.
    np.testing.assert_allclose(model.predict(X), Y, atol=0.05)
    assert np.isfinite(model.logpdf(X, Y)).all()


def test_fewer_distinct_rows_than_components() -> None:
    X, Y = np.repeat([[0.0], [1.0]], 10, axis=0), np.repeat([[2.0], [3.0]], 10, axis=0)
    with pytest.warns(UserWarning, match="singular"):
        model = new(4).fit(X, Y)
    assert np.isfinite(model.logpdf(X, Y)).all()
    np.testing.assert_allclose(model.predict(X), Y, atol=1e-2)


def test_an_empty_component_begins_anew() -> None:
    X, Y, _ = clusters(300, 2, 1, 2)
    model = StartedAt(3)
    model.means = np.array([np.r_[X[0], Y[0]], np.r_[X[1], Y[1]], [1e4, 1e4, 1e4]])
    with pytest.warns(UserWarning, match="component 2 emptied and began anew"):
        model.fit(X, Y)
    assert model.weights_.min() > 0.01
    assert model.lower_bound_ > new(1).fit(X, Y).lower_bound_


def test_constant_columns_are_told_about() -> None:
    X, Y, _ = clusters(200, 3, 2, 2)
    X[:, 1] = 7.0
    with pytest.warns(UserWarning, match="1 of the columns of x and y do not vary"):
        model = new(2).fit(X, Y)
    other = new(2).fit(X[:, [0, 2]], Y)
    np.testing.assert_allclose(model.predict(X), other.predict(X[:, [0, 2]]), atol=1e-6)
    np.testing.assert_allclose(model.logpdf(X, Y), other.logpdf(X[:, [0, 2]], Y), atol=1e-6)


def test_no_convergence_is_told() -> None:
    X, Y, _ = clusters(200, 3, 2, 3, apart=0.5)
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=2"):
        model = new(3, max_iter=2, tol=0).fit(X, Y)
    assert not model.converged_
    assert model.n_iter_ == 2


def test_the_best_of_several_starts_is_kept() -> None:
    X, Y, _ = clusters(300, 3, 2, 5, apart=1.0)
    first = new(5, random_state=0, max_iter=20).fit(X, Y).lower_bound_
    several = new(5, random_state=0, max_iter=20, n_init=4).fit(X, Y)
    assert several.lower_bound_ >= first  # the first of the four is that one
    again = new(5, random_state=0, max_iter=20, n_init=4).fit(X, Y)
    np.testing.assert_allclose(again.means_, several.means_, atol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "n", "sentence"),
    [
        ({"n_components": 30}, 20, "n_components=30 is more than n_samples=20"),
        ({"n_components": 1}, 1, "one sample has no variance"),
        ({"covariance_type": "low_rank", "rank": 5}, 20, "rank=5 must be below the 5 columns"),
        ({"rank": 2}, 20, "rank=2 is for covariance_type='low_rank'"),
        ({"n_components": 0}, 20, "n_components"),
        ({"covariance_type": "diag"}, 20, "covariance_type"),
        ({"reg_covar": -1.0}, 20, "reg_covar"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(parameters: Any, n: int, sentence: str) -> None:
    X, Y, _ = clusters(20, 3, 2, 2)
    model = ConditionalGaussianMixture(2).set_params(**parameters)
    with pytest.raises(ValueError, match=sentence):
        model.fit(X[:n], Y[:n])
    assert not hasattr(model, "weights_")


def test_bad_rows_are_one_sentence() -> None:
    X, Y, _ = clusters(40, 3, 2, 2)
    model = new(2).fit(X, Y)
    bad = X.copy()
    bad[3, 1] = np.nan
    for call in (lambda: new(2).fit(bad, Y), lambda: model.predict(bad),
                 lambda: model.logpdf(bad, Y), lambda: model.sample(bad)):  # fmt: skip
        with pytest.raises(ValueError, match="1 NaN value, the first at row 3, column 1"):
            call()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.logpdf(X, Y[:5])
    with pytest.raises(ValueError, match="y has 1 features, but"):
        model.logpdf(X, Y[:, 0])
    with pytest.raises(ValueError, match="n_samples=0 must be an int of at least 1"):
        model.sample(X, 0)
    with pytest.raises(ValueError, match="y is None"):
        model.logpdf(X, None)
    with pytest.raises(ValueError, match="requires y"):
        new(2).fit(X, None)


# ------------------------------------------------------------------------ the libraries
# -------------------------------------------------------------------------- the kernels
@pytest.mark.parametrize("kind", ["full", "diag", "low_rank"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [3, 5000])
def test_sums_equal_the_formulas(place: Place, kind: Any, dtype: str, n: int) -> None:
    rng = np.random.default_rng(0)
    d, k = 5, 3
    X, w = rng.normal(size=(n, d)), rng.integers(0, 3, n).astype(float)
    A = rng.normal(size=(k, d, d))
    S: Any = {"full": A @ A.transpose(0, 2, 1) + np.eye(d), "diag": 1 + A[:, 0] ** 2,
              "low_rank": (A[:, :, :2], 1 + A[:, 0] ** 2)}[kind]  # fmt: skip
    means, log_weights = rng.normal(size=(k, d)), np.log(rng.dirichlet(np.ones(k)))
    terms = component_logpdf(X, means, S, covariance_type=kind) + log_weights
    r = np.exp(terms - logsumexp(terms, axis=1, keepdims=True)) * w[:, None]
    z = X[:, None, :] - means
    put = tuple(map(place, S)) if isinstance(S, tuple) else place(S)
    normals = normal.prepare(place(X), place(means), put, kind)
    data = place(X, dtype)
    for second, equation in (("full", "nk,nki,nkj->kij"), ("diag", "nk,nki,nki->ki")):
        sums = mixture_sums(
            lambda rows: data[rows, ...], n, normals, place(log_weights), place(w),
            second=second, dtype=data.dtype,
        )  # fmt: skip
        atol = (1e-11 if dtype == "float64" else 1e-5) * n
        assert sums.log_likelihood == pytest.approx(w @ logsumexp(terms, axis=1), abs=atol)
        np.testing.assert_allclose(to_numpy(sums.n), r.sum(axis=0), atol=atol)
        first = np.einsum("nk,nki->ki", r, z)
        np.testing.assert_allclose(to_numpy(sums.first), first, atol=atol)
        expected = np.einsum(equation, r, z, z)
        np.testing.assert_allclose(to_numpy(sums.second), expected, atol=10 * atol)
        assert place.owns(sums.second)


@pytest.mark.parametrize("d", [3, 40, 130])
def test_low_rank_densities_equal_full_ones(place: Place, d: int) -> None:
    rng = np.random.default_rng(d)
    X, means = rng.normal(size=(50, d)), rng.normal(size=(2, d))
    L, D = 3 * rng.normal(size=(2, d, 2)), rng.uniform(0.5, 2.0, (2, d))
    S = L @ L.transpose(0, 2, 1) + np.stack([np.diag(v) for v in D])
    expected = component_logpdf(X, means, S)
    pair = (place(L), place(D))
    np.testing.assert_allclose(
        to_numpy(component_logpdf(place(X), place(means), pair)), expected, rtol=1e-10
    )
    density = mixture_logpdf(place(X), place(np.array([0.3, 0.7])), place(means), pair)
    np.testing.assert_allclose(
        to_numpy(density), logsumexp(expected + np.log([0.3, 0.7]), axis=1), rtol=1e-10
    )


def test_low_rank_densities_keep_their_digits_beside_little_noise() -> None:
    rng = np.random.default_rng(0)
    L, D = rng.normal(size=(1, 20, 3)), np.full((1, 20), 1e-10)
    X = rng.normal(size=(30, 3)) @ L[0].T + 1e-5 * rng.normal(size=(30, 20))
    with mpmath.workdps(50):
        S = mpmath.matrix(L[0].tolist()) * mpmath.matrix(L[0].T.tolist())
        for i in range(20):
            S[i, i] += mpmath.mpf(D[0, i])
        inverse, constant = (
            mpmath.inverse(S),
            mpmath.log(mpmath.det(S)) + 20 * mpmath.log(2 * mpmath.pi),
        )
        expected = [
            float(
                -(mpmath.matrix(x.tolist()).T * inverse * mpmath.matrix(x.tolist()))[0] / 2
                - constant / 2
            )
            for x in X[:4]
        ]
    found = component_logpdf(X[:4], np.zeros((1, 20)), (L, D))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_bad_low_rank_parameters_are_named() -> None:
    X, L = np.ones((4, 3)), np.ones((2, 3, 1))
    with pytest.raises(ValueError, match="noise variances must be positive"):
        component_logpdf(X, np.zeros((2, 3)), (L, np.zeros((2, 3))))
    with pytest.raises(ValueError, match="loadings must have shape"):
        component_logpdf(X, np.zeros((2, 3)), (L[:1], np.ones((2, 3))))
    with pytest.raises(ValueError, match="is the pair"):
        component_logpdf(X, np.zeros((2, 3)), (L,))
    with pytest.raises(ValueError, match="with a pair of arrays"):
        component_logpdf(X, np.zeros((2, 3)), np.ones((2, 3)), covariance_type="low_rank")


# -------------------------------------------------------------------------- scikit-learn


def test_crossing_lines_are_found_from_any_seed() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (400, 1))
    y = np.where(rng.random((400, 1)) < 0.5, x, -x) + 0.05 * rng.normal(size=(400, 1))
    found = [
        ConditionalGaussianMixture(2, random_state=seed).fit(x, y).lower_bound_ for seed in range(8)
    ]
    assert max(found) - min(found) < 0.05
