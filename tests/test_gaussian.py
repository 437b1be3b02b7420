"""The conditional Gaussian: densities, conditionals, likelihood ratios and their calibration."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from cmstats import CCA, ConditionalGaussian, Moments, load_emoji, load_linnerud, retrieval_report


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Any, Any]:
    Z = rng.normal(size=(300, 7)) @ rng.normal(size=(7, 7)) + rng.normal(size=7)
    return Z[:, :4], Z[:, 4:]


def by_hand(C: Any, mean: Any, p: int) -> tuple[Any, Any, Any]:
    """Coefficients, intercept and residual covariance of a joint normal, as in the textbook."""
    coef = np.linalg.solve(C[:p, :p], C[:p, p:]).T
    return coef, mean[p:] - coef @ mean[:p], C[p:, p:] - coef @ C[:p, p:]


def simulated(rng: np.random.Generator, n: int, rho: Any, p: int, q: int) -> tuple[Any, Any]:
    """Pairs with known canonical correlations."""
    k = len(rho)
    u = rng.normal(size=(n, p))
    v = rng.normal(size=(n, q))
    v[:, :k] = u[:, :k] * rho + v[:, :k] * np.sqrt(1 - np.square(rho))
    return u @ rng.normal(size=(p, p)), v @ rng.normal(size=(q, q))


# ------------------------------------------------------------------------- the equations
@pytest.mark.parametrize("rank", [None, 3])
def test_it_is_the_textbook_conditional_without_shrinkage(pair: Any, rank: Any) -> None:
    X, Y = pair
    coef, intercept, S = by_hand(np.cov(np.c_[X, Y].T), np.r_[X.mean(0), Y.mean(0)], 4)
    g = ConditionalGaussian(shrinkage=0.0, rank=rank).fit(X, Y)
    np.testing.assert_allclose(g.coef_, coef, atol=1e-12)
    np.testing.assert_allclose(g.intercept_, intercept, atol=1e-12)
    np.testing.assert_allclose(g.covariance_, S, atol=1e-12)
    expected = [
        scipy.stats.multivariate_normal(intercept + coef @ x, S).logpdf(y)
        for x, y in zip(X, Y, strict=True)
    ]
    np.testing.assert_allclose(g.logpdf(X, Y), expected, atol=1e-10)
    marginal = scipy.stats.multivariate_normal(Y.mean(0), np.cov(Y.T)).logpdf(Y)
    np.testing.assert_allclose(np.diag(g.similarity(X, Y)), expected - marginal, atol=1e-10)


@pytest.mark.parametrize(
    "settings",
    [
        {"shrinkage": 0.3},
        {"shrinkage": (0.2, 0.5), "scale": True},
        {"shrinkage": 0.3, "rank": 2},
        {"shrinkage": "auto", "scale": True, "rank": 1},
        {"shrinkage": "auto"},
        {},
    ],
)
def test_everything_follows_from_one_joint_normal(pair: Any, settings: Any) -> None:
    X, Y = pair
    g = ConditionalGaussian(**settings).fit(X[:150], Y[:150])
    joint = scipy.stats.multivariate_normal(g.joint_.mean, g.joint_.covariance)
    coef, intercept, S = by_hand(g.joint_.covariance, g.joint_.mean, 4)
    np.testing.assert_allclose(g.coef_, coef, atol=1e-12)
    np.testing.assert_allclose(g.covariance_, S, atol=1e-12)
    np.testing.assert_allclose(g.predict(X), X @ coef.T + intercept, atol=1e-11)
    log_x = g.condition(on={}).logpdf(x=X)
    np.testing.assert_allclose(g.logpdf(X, Y), joint.logpdf(np.c_[X, Y]) - log_x, atol=1e-10)
    u, v = g.embed(X, Y)
    np.testing.assert_allclose(u @ v.T, g.similarity(X, Y), atol=1e-12)
    ratio = g.logpdf(X, Y) - g.condition(on={}).logpdf(y=Y)
    np.testing.assert_allclose(np.sum(u * v, axis=1), ratio, atol=1e-10)


def test_the_shrunken_joint_is_the_coherent_one(pair: Any) -> None:
    X, Y = pair
    C, sx, sy = np.cov(np.c_[X, Y].T), 0.2, 0.6
    C[:4, :4] = (1 - sx) * C[:4, :4] + sx * np.trace(C[:4, :4]) / 4 * np.eye(4)
    C[4:, 4:] = (1 - sy) * C[4:, 4:] + sy * np.trace(np.cov(Y.T)) / 3 * np.eye(3)
    C[:4, 4:] *= np.sqrt((1 - sx) * (1 - sy))
    C[4:, :4] = C[:4, 4:].T
    found = ConditionalGaussian(shrinkage=(sx, sy)).fit(X, Y).joint_.covariance
    np.testing.assert_allclose(found, C, atol=1e-12)


def test_predict_is_ridge_regression_with_the_matching_penalty(pair: Any) -> None:
    X, Y = pair
    s = 0.3
    ridge = s / (1 - s) * np.trace(np.cov(X.T)) / 4 * (len(X) - 1)
    expected = Ridge(alpha=ridge).fit(X, Y).predict(X)
    found = ConditionalGaussian(shrinkage=(s, 0.0)).fit(X, Y).predict(X)
    # The coherent cross block carries one more factor, sqrt(1 - s).
    np.testing.assert_allclose(
        (found - Y.mean(0)) * np.sqrt(1 - s), expected - Y.mean(0), atol=1e-10
    )


def test_low_rank_keeps_the_marginals_and_the_first_canonical_pairs(rng: Any) -> None:
    X, Y = simulated(rng, 400, [0.9, 0.6, 0.3], 5, 4)
    full = ConditionalGaussian(shrinkage=0.0).fit(X, Y)
    low = ConditionalGaussian(shrinkage=0.0, rank=2).fit(X, Y)
    C, L = full.joint_.covariance, low.joint_.covariance
    np.testing.assert_allclose(L[:5, :5], C[:5, :5], atol=1e-12)
    np.testing.assert_allclose(L[5:, 5:], C[5:, 5:], atol=1e-12)
    inverse_roots = [np.linalg.inv(np.linalg.cholesky(c)) for c in (C[:5, :5], C[5:, 5:])]
    s = np.linalg.svd(inverse_roots[0] @ L[:5, 5:] @ inverse_roots[1].T, compute_uv=False)
    np.testing.assert_allclose(s, [*CCA(2).fit(X, Y).correlations_, 0, 0], atol=1e-10)
    assert np.linalg.matrix_rank(L[:5, 5:]) == 2


@pytest.mark.slow
def test_log_density_of_fifty_dimensions_agrees_with_high_precision(rng: Any) -> None:
    d, p = 50, 30
    Z = rng.normal(size=(400, d)) @ rng.normal(size=(d, d)) / 5
    X, Y = Z[:, :p], Z[:, p:]
    g = ConditionalGaussian(shrinkage=0.05).fit(X, Y)
    with mpmath.workdps(40):
        C = mpmath.matrix(g.joint_.covariance.tolist())
        L_all = mpmath.cholesky(C)
        L_x = mpmath.cholesky(C[:p, :p])

        def log_normal(L: Any, r: Any) -> Any:
            z = mpmath.lu_solve(L, mpmath.matrix(r.tolist()))
            m = L.rows
            logdet = 2 * sum(mpmath.log(L[i, i]) for i in range(m))
            return -(m * mpmath.log(2 * mpmath.pi) + logdet + (z.T * z)[0]) / 2

        for i in range(2):
            r = Z[i] - g.joint_.mean
            exact = log_normal(L_all, r) - log_normal(L_x, r[:p])
            assert abs(float(exact) - g.logpdf(X[i : i + 1], Y[i : i + 1])[0]) < 1e-10


@pytest.mark.ordinary
def test_a_thousand_dimensions_do_not_underflow(rng: Any) -> None:
    n, d = 600, 1000
    Y = 0.1 * rng.normal(size=(n, d))
    X = rng.normal(size=(n, 3))
    g = ConditionalGaussian(shrinkage=0.9).fit(X, Y)
    found = g.logpdf(X, Y)
    assert np.isfinite(found).all()
    residual = Y - g.predict(X)
    sign, logdet = np.linalg.slogdet(g.covariance_)
    square = np.sum(residual * np.linalg.solve(g.covariance_, residual.T).T, axis=1)
    expected = -0.5 * (d * np.log(2 * np.pi) + logdet + square)
    assert sign == 1
    assert found.min() > 500  # a density far above 1: its exponential overflows
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_mutual_information_is_that_of_the_canonical_correlations(rng: Any) -> None:
    rho = np.array([0.9, 0.5, 0.2])
    X, Y = simulated(rng, 200_000, rho, 5, 4)
    g = ConditionalGaussian(shrinkage=0.0).fit(X, Y)
    r = CCA().fit(X, Y).correlations_
    assert g.mutual_information() == pytest.approx(-0.5 * np.log(1 - r**2).sum(), rel=1e-10)
    truth = -0.5 * np.log(1 - rho**2)
    np.testing.assert_allclose(g.mutual_information(per_component=True)[:3], truth, atol=0.01)
    # ... and the mean log-ratio of true pairs
    assert np.mean(g.logpdf(X, Y) - g.condition(on={}).logpdf(y=Y)) == pytest.approx(
        truth.sum(), abs=0.02
    )


# --------------------------------------------------------------------------- identities
@pytest.mark.parametrize("settings", [{"shrinkage": 0.2}, {"rank": 2}, {"scale": True, "cv": 3}])
def test_scores_of_moments_are_means_over_the_rows(pair: Any, settings: Any) -> None:
    X, Y = pair
    g = ConditionalGaussian(**settings).fit(X, Y)
    test = Moments.from_data(x=X[:50], y=Y[:50])
    assert g.score_moments(test) == pytest.approx(g.logpdf(X[:50], Y[:50]).mean(), abs=1e-10)
    ratio = np.diag(g.similarity(X[:50], Y[:50])).mean()
    assert g.ratio_moments(test) == pytest.approx(ratio, abs=1e-10)


def test_cross_validation_maximises_the_held_out_ratio(rng: Any) -> None:
    X, Y = simulated(rng, 120, [0.9, 0.7], 20, 15)
    g = ConditionalGaussian(cv=4).fit(X, Y)
    ids = np.arange(120) % 4
    means = []
    for pair in g.cv_shrinkages_:
        scores = []
        for k in range(4):
            model = ConditionalGaussian(shrinkage=pair).fit(X[ids != k], Y[ids != k])
            u, v = model.embed(X[ids == k], Y[ids == k])
            scores.append(np.sum(u * v, axis=1).mean())
        means.append(scores)
    np.testing.assert_allclose(g.cv_scores_, means, atol=1e-9)
    assert g.shrinkage_ == g.cv_shrinkages_[int(np.argmax(np.mean(means, axis=1)))]


def test_wide_data_need_no_p_by_p_matrix(rng: Any) -> None:
    X, Y = rng.normal(size=(40, 3000)), rng.normal(size=(40, 30))
    Y[:, :5] += X[:, :5]
    wide = ConditionalGaussian(shrinkage=0.4).fit(X, Y)
    assert wide.moments_.form == "root"
    same = ConditionalGaussian(shrinkage=0.4).fit_moments(Moments.from_data(x=X[:, :200], y=Y))
    root = ConditionalGaussian(shrinkage=0.4).fit_moments(
        Moments.from_data(x=X[:, :200], y=Y, form="root")
    )
    np.testing.assert_allclose(root.logpdf(X[:, :200], Y), same.logpdf(X[:, :200], Y), atol=1e-8)
    np.testing.assert_allclose(root.coef_, same.coef_, atol=1e-10)
    assert np.isfinite(wide.logpdf(X, Y)).all()


# ----------------------------------------------------------------- prediction and samples
def test_intervals_cover_what_they_say(rng: Any) -> None:
    X, Y = simulated(rng, 4000, [0.9, 0.5], 6, 3)
    g = ConditionalGaussian().fit(X[:2000], Y[:2000])
    mean, std = g.predict(X[2000:], return_std=True)
    inside = np.abs(Y[2000:] - mean) <= scipy.stats.norm.ppf(0.95) * std
    assert mean.shape == std.shape == (2000, 3)
    assert ((inside.mean(axis=0) > 0.88) & (inside.mean(axis=0) < 0.92)).all()


def test_samples_have_the_conditional_moments(pair: Any) -> None:
    X, Y = pair
    g = ConditionalGaussian(shrinkage=0.1).fit(X, Y)
    drawn = g.sample(X[:2], n_samples=40_000, random_state=0)
    assert drawn.shape == (2, 40_000, 3)
    mean, cov = g.predict(X[:2], return_cov=True)
    scale = np.sqrt(np.diag(cov))
    for i in range(2):
        np.testing.assert_allclose((drawn[i].mean(0) - mean[i]) / scale, 0, atol=0.03)
        np.testing.assert_allclose(np.cov(drawn[i].T) / np.outer(scale, scale),
                                   cov / np.outer(scale, scale), atol=0.03)  # fmt: skip
    one = g.sample(X[:5], random_state=1)
    assert one.shape == (5, 3)
    np.testing.assert_array_equal(one, g.sample(X[:5], random_state=1))


def test_one_dimensional_targets_come_back_one_dimensional(pair: Any) -> None:
    X, Y = pair
    g = ConditionalGaussian(shrinkage=0.1).fit(X, Y[:, 0])
    mean, std = g.predict(X, return_std=True)
    assert mean.shape == std.shape == g.logpdf(X, Y[:, 0]).shape == (300,)
    assert g.coef_.shape == (4,)
    np.testing.assert_allclose(X @ g.coef_ + g.intercept_, mean, atol=1e-10)
    assert g.sample(X[:3], n_samples=4).shape == (3, 4)
    assert g.sample(X[:3]).shape == (3,)


def test_any_block_given_any_other(rng: Any) -> None:
    Z = rng.normal(size=(500, 9)) @ rng.normal(size=(9, 9))
    blocks = {"image": Z[:, :4], "text": Z[:, 4:6], "audio": Z[:, 6:]}
    g = ConditionalGaussian(shrinkage=0.0).fit_moments(Moments.from_data(**blocks))
    C, mu = np.cov(Z.T), Z.mean(0)
    for on in (["text"], ["audio", "image"], ["audio", "text"]):
        columns = {"image": range(4), "text": range(4, 6), "audio": range(6, 9)}
        at = [i for name in on for i in columns[name]]
        rest = [i for i in range(9) if i not in at]
        given = g.condition(on={name: blocks[name] for name in on})
        order = at + rest
        coef, intercept, S = by_hand(C[np.ix_(order, order)], mu[order], len(at))
        np.testing.assert_allclose(given.means, Z[:, at] @ coef.T + intercept, atol=1e-10)
        np.testing.assert_allclose(given.covariance, S, atol=1e-10)
        others = {name: blocks[name] for name in g.joint_.names if name not in on}
        expected = scipy.stats.multivariate_normal(np.zeros(len(rest)), S, allow_singular=True)
        np.testing.assert_allclose(
            given.logpdf(**others),
            expected.logpdf(Z[:, rest] - given.means),
            atol=1e-8,
        )
    with pytest.raises(ValueError, match="blocks named x and y"):
        g.predict(Z[:, :4])
    drawn = g.condition(on={"text": Z[:3, 4:6]}).sample(7, random_state=0)
    assert drawn["image"].shape == (3, 7, 4)
    assert drawn["audio"].shape == (3, 7, 3)


def test_three_blocks_are_shrunk_by_their_held_out_ratio(rng: Any) -> None:
    z = rng.normal(size=(80, 4))
    blocks = {
        name: z @ rng.normal(size=(4, p)) + rng.normal(size=(80, p))
        for name, p in (("a", 20), ("b", 15), ("c", 9))
    }
    g = ConditionalGaussian(cv=4).fit_moments(Moments.folds(cv=4, **blocks))
    assert len(g.shrinkage_) == 3
    assert 0 < g.shrinkage_[0] < 1
    held = ConditionalGaussian(shrinkage=0.1).fit_moments(Moments.from_data(**blocks))
    Z = np.concatenate(list(blocks.values()), axis=1)
    joint = scipy.stats.multivariate_normal(held.joint_.mean, held.joint_.covariance)
    expected = joint.logpdf(Z)
    for name, block in blocks.items():
        expected = expected - held.condition(on={}).logpdf(**{name: block})
    assert held.ratio_moments(Moments.from_data(**blocks)) == pytest.approx(expected.mean())


# ------------------------------------------------------------------------- what it is for
@pytest.mark.slow
def test_likelihood_ratio_retrieval_is_no_worse_than_the_weighted_cosine() -> None:
    image, text = load_emoji(return_X_y=True)
    ratio, cosine = [], []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(image))
        test, train = order[:468], order[468:]
        g = ConditionalGaussian(shrinkage=0.5).fit(image[train], text[train])
        c = CCA(shrinkage=0.5).fit(image[train], text[train])
        for model, out in ((g, ratio), (c, cosine)):
            report = retrieval_report(*model.embed(image[test], text[test]))
            out.append(report.loc["mean", "R@10"])
    assert np.mean(ratio) >= np.mean(cosine) - 0.01


def test_outlier_scores_find_mismatched_pairs_better_than_the_cosine() -> None:
    emoji = load_emoji()
    X, Y = emoji.image, emoji.text
    g = ConditionalGaussian(shrinkage=0.5).fit(X[emoji.train], Y[emoji.train])
    c = CCA(shrinkage=0.5).fit(X[emoji.train], Y[emoji.train])
    rng = np.random.default_rng(0)
    wrong = rng.permutation(len(emoji.test))[: len(emoji.test) // 5]
    x, y = X[emoji.test], Y[emoji.test].copy()
    y[wrong] = y[np.roll(wrong, 1)]
    truth = np.isin(np.arange(len(y)), wrong)
    cosine = np.sum(np.prod(c.embed(x, y, kind="cosine"), axis=0), axis=1)
    found = roc_auc_score(truth, g.outlier_scores(x, y))
    assert found > 0.85
    assert found > roc_auc_score(truth, -cosine) + 0.05


def test_outlier_scores_of_true_pairs_are_standardised(rng: Any) -> None:
    X, Y = simulated(rng, 50_000, [0.9, 0.6, 0.3], 5, 4)
    scores = ConditionalGaussian(shrinkage=0.0).fit(X, Y).outlier_scores(X, Y)
    assert scores.mean() == pytest.approx(0, abs=0.02)
    assert scores.std() == pytest.approx(1, abs=0.02)


# ------------------------------------------------------------------------------ bad input
def test_a_singular_joint_is_said_at_fit_and_has_no_density(rng: Any) -> None:
    X, Y = rng.normal(size=(10, 8)), rng.normal(size=(10, 6))
    with pytest.warns(UserWarning, match="14 features and 10 samples"):
        g = ConditionalGaussian(shrinkage=0.0).fit(X, Y)
    assert np.isfinite(g.predict(X)).all()
    for call in (g.logpdf, g.score):
        with pytest.raises(ValueError, match=r"no density: set shrinkage"):
            call(X, Y)
    constant = np.c_[Y, np.ones(10)]
    with pytest.warns(UserWarning, match="samples"):
        flat = ConditionalGaussian(shrinkage=(0.5, 0.0)).fit(X, constant)
    with pytest.raises(ValueError, match="singular"):
        flat.logpdf(X, constant)
    assert np.isfinite(
        ConditionalGaussian(shrinkage=0.5).fit(X, constant).logpdf(X, constant)
    ).all()


def test_bad_input_gets_one_sentence(pair: Any) -> None:
    X, Y = pair
    with pytest.raises(ValueError, match=r"rank=4 is too large: at most 3 are possible"):
        ConditionalGaussian(rank=4).fit(X, Y)
    with pytest.raises(ValueError, match=r"shrinkage.*must be"):
        ConditionalGaussian(shrinkage=1.5).fit(X, Y)
    g = ConditionalGaussian(shrinkage=0.1).fit(X, Y)
    with pytest.raises(ValueError, match="n_samples=0"):
        g.sample(X, n_samples=0)
    with pytest.raises(ValueError, match="name some, not all"):
        g.condition(on={"z": X})
    with pytest.raises(ValueError, match="name some, not all"):
        g.condition(on={"x": X, "y": Y})
    with pytest.raises(ValueError, match="x has 2 features, expected 4"):
        g.condition(on={"x": X[:, :2]})
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        g.logpdf(X, Y[:5])
    with pytest.raises(ValueError, match="expecting 4 features"):
        g.predict(X[:, :2])
    three = Moments.from_data(x=X, y=Y, z=Y[:, :1])
    with pytest.raises(ValueError, match="rank=1 is for two blocks"):
        ConditionalGaussian(rank=1, shrinkage=0.1).fit_moments(three)
    with pytest.raises(ValueError, match="one block"):
        ConditionalGaussian(shrinkage=0.1).fit_moments(Moments.from_data(x=X))


def test_published_data_fit() -> None:
    X, Y = load_linnerud(return_X_y=True)
    g = ConditionalGaussian(shrinkage=0.0).fit(X, Y)
    np.testing.assert_allclose(g.singular_values_, [0.79560815, 0.20055604, 0.07257029], atol=5e-9)


# ------------------------------------------------------------------------ missing entries
def test_rows_of_one_view_leave_the_conditional_of_the_pairs_as_it_is(pair: Any) -> None:
    X, Y = pair
    texts = Y.copy()
    texts[100:] = np.nan
    g = ConditionalGaussian(shrinkage=0.0, missing="em").fit(X, texts)
    pairs = ConditionalGaussian(shrinkage=0.0).fit(X[:100], Y[:100])
    np.testing.assert_allclose(g.coef_, pairs.coef_, atol=1e-12)
    np.testing.assert_allclose(g.intercept_, pairs.intercept_, atol=1e-11)
    np.testing.assert_allclose(g.covariance_, pairs.covariance_, atol=1e-12)
    np.testing.assert_allclose(g.x_mean_, X.mean(0), atol=1e-13)
    np.testing.assert_allclose(g.joint_.covariance[:4, :4], np.cov(X.T), atol=1e-12)
    # ... and so it is with y alone, for x given y
    back = ConditionalGaussian(shrinkage=0.0, missing="em").fit(texts, X)
    given = back.condition(on={"y": X[:5]})
    np.testing.assert_allclose(given.mean("x"), pairs.predict(X[:5]), atol=1e-11)
    np.testing.assert_allclose(given.covariance, pairs.covariance_, atol=1e-11)


@pytest.mark.parametrize("scale", [False, True])
def test_shrinkage_is_chosen_for_the_pairs_and_for_all_rows(rng: Any, scale: bool) -> None:
    X, Y = simulated(rng, 600, [0.9, 0.7, 0.5], 20, 15)
    seen = rng.random(500) < 0.15
    texts = np.where(seen[:, None], Y[:500], np.nan)
    g = ConditionalGaussian(missing="em", scale=scale).fit(X[:500], texts)
    dropped = ConditionalGaussian(shrinkage=g.shrinkage_, scale=scale).fit(
        X[:500][seen], Y[:500][seen]
    )
    assert g.marginal_shrinkage_ < g.shrinkage_[0]
    np.testing.assert_allclose(
        g.logpdf(X[500:], Y[500:]), dropped.logpdf(X[500:], Y[500:]), atol=1e-8
    )
    log_x = [m.condition(on={}).logpdf(x=X[500:]).mean() for m in (g, dropped)]
    assert log_x[0] > log_x[1]
    np.testing.assert_allclose(
        g.score(X[:500], texts), g.logpdf(X[:500], texts)[seen].mean(), atol=1e-9
    )


def test_predictions_condition_on_what_is_there(pair: Any, rng: Any) -> None:
    X, Y = pair
    holes = np.where(rng.random(X.shape) < 0.3, np.nan, X)
    texts = np.where(rng.random(Y.shape) < 0.3, np.nan, Y)
    g = ConditionalGaussian(shrinkage=0.1, missing="em").fit(holes, texts)
    mean, std, cov = g.predict(holes, return_std=True, return_cov=True)
    C, mu = g.joint_.covariance, g.joint_.mean
    density, surprise = g.logpdf(holes, texts), g.outlier_scores(holes, texts)
    for i in range(40):
        o, t = np.flatnonzero(~np.isnan(holes[i])), 4 + np.flatnonzero(~np.isnan(texts[i]))
        coef = np.linalg.solve(C[np.ix_(o, o)], C[np.ix_(o, range(4, 7))]).T
        S = C[4:, 4:] - coef @ C[np.ix_(o, range(4, 7))]
        expected = mu[4:] + coef @ (holes[i, o] - mu[o])
        np.testing.assert_allclose(mean[i], expected, atol=1e-10)
        np.testing.assert_allclose(cov[i], S, atol=1e-10)
        np.testing.assert_allclose(std[i], np.sqrt(np.diag(S)), atol=1e-10)
        if not t.size:
            assert density[i] == surprise[i] == 0
            continue
        normal = scipy.stats.multivariate_normal(expected[t - 4], S[np.ix_(t - 4, t - 4)])
        assert density[i] == pytest.approx(normal.logpdf(texts[i, t - 4]), abs=1e-9)
        own = scipy.stats.multivariate_normal(mu[t], C[np.ix_(t, t)]).logpdf(texts[i, t - 4])
        roots = (
            [np.linalg.inv(np.linalg.cholesky(C[np.ix_(a, a)])) for a in (o, t)] if o.size else 0
        )
        if not o.size:
            assert surprise[i] == 0
            continue
        r = np.linalg.svd(roots[0] @ C[np.ix_(o, t)] @ roots[1].T, compute_uv=False)
        information = -0.5 * np.log1p(-(r**2)).sum()
        expected_score = (information - (density[i] - own)) / np.linalg.norm(r)
        assert surprise[i] == pytest.approx(expected_score, abs=1e-8)
    seen = ~np.isnan(texts).all(axis=1)
    assert g.score(holes, texts) == pytest.approx(density[seen].mean(), abs=1e-10)
    u, _ = g.embed(holes, texts)
    assert np.isfinite(u).all()
    assert np.isfinite(g.sample(holes, 2, random_state=0)).all()


def test_a_rank_is_for_blocks_named_x_and_y(pair: Any) -> None:
    m = Moments.from_data(image=pair[0], text=pair[1])
    with pytest.raises(ValueError, match="for two blocks, x and y; these moments have image, text"):
        ConditionalGaussian(rank=1, shrinkage=0.1).fit_moments(m)


def test_folds_without_a_pair_are_said(pair: Any) -> None:
    X, Y = pair
    texts = Y.copy()
    texts[np.arange(300) % 5 != 0] = np.nan  # every fifth row, which is one fold of five
    with pytest.raises(ValueError, match=r"only fold 0 has rows in which all of x, y are observed"):
        ConditionalGaussian(missing="em").fit(X, texts)
    with pytest.raises(ValueError, match=r"or set missing='em'"):
        ConditionalGaussian().fit(X, texts)


def test_conditionals_equal_those_of_gmr(pair: Any) -> None:
    gmr = pytest.importorskip("gmr")
    X, Y = pair
    g = ConditionalGaussian(shrinkage=0.2).fit(X, Y)
    theirs = gmr.MVN(g.joint_.mean, g.joint_.covariance, random_state=0)
    mean, covariance = theirs.predict(np.arange(4), X)
    np.testing.assert_allclose(g.predict(X), mean, atol=1e-8)
    np.testing.assert_allclose(g.covariance_, covariance, atol=1e-8)


def test_spreads_of_rows_of_any_unit_in_single_precision() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = x[:, :2] + rng.normal(size=(60, 2))
    near = ConditionalGaussian(shrinkage=0.2).fit(x, y).calibrate(x, y)
    for power in (80, -80):
        X, Y = ((a * 2.0**power).astype(np.float32) for a in (x, y))
        far = ConditionalGaussian(shrinkage=0.2).fit(X, Y).calibrate(X, Y)
        for a, b in zip(
            far.predict(X, return_std=True, return_cov=True),
            near.predict(x, return_std=True, return_cov=True),
            strict=True,
        ):
            unit = 2.0**power if a.ndim > 1 and len(a) == 60 else 4.0**power
            np.testing.assert_allclose(a / unit, b, rtol=1e-4, atol=1e-5)
        lower, expected = (m.predict_region(a, 0.5).lower for m, a in ((far, X), (near, x)))
        np.testing.assert_allclose(lower / 2.0**power, expected, rtol=1e-3, atol=1e-4)
