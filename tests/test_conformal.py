"""Conformal sets: exact ranks, coverage, what is promised under which condition, bad input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

from cmstats import (
    CCA,
    ConditionalGaussian,
    ConditionalGaussianMixture,
    ConformalRetriever,
    MultitaskRegressor,
    NystroemMap,
    load_emoji,
)
from cmstats.inference.conformal import (
    calibration_needed,
    conformal_p_values,
    conformal_quantile,
    p_values_among,
    within,
)

LEVELS = (0.8, 0.9, 0.95)


def views(n: int, rng: Any, law: str = "normal") -> tuple[Any, Any]:
    """Two views of one latent, with noise of some law."""
    z = rng.normal(size=(n, 3))
    x = np.column_stack([z, z[:, :2]])
    noise = {
        "normal": lambda s: rng.normal(size=s),
        "t3": lambda s: rng.standard_t(3, size=s),
        "skewed": lambda s: rng.exponential(size=s) ** 1.5,
    }[law]
    return x + 0.7 * rng.normal(size=x.shape), z + 0.7 * noise(z.shape)


# ------------------------------------------------------------------------------- exact ranks
@pytest.mark.parametrize("n", [9, 19, 20, 100])
def test_the_quantile_is_the_order_statistic(n: int) -> None:
    distances = np.random.default_rng(n).permutation(n) + 1.0
    for level in (0.5, 0.8, 0.9):
        # With the ranks 1 .. n the new one is one of n + 1 places.
        k = next(k for k in range(1, n + 1) if k / (n + 1) >= level - 1e-12)
        assert conformal_quantile(distances, level) == k


@pytest.mark.parametrize("level", [*LEVELS, 0.99, 0.999])
def test_as_many_scores_are_needed_as_let_a_set_leave_something_out(level: float) -> None:
    n = calibration_needed(level)
    conformal_quantile(np.arange(float(n)), level)
    with pytest.raises(ValueError, match=f"at least {n} are needed"):
        conformal_quantile(np.arange(n - 1.0), level)


def test_p_values_of_ranks_are_exact() -> None:
    n = 19
    order = np.arange(1.0, n + 1)
    p = conformal_p_values(order, np.arange(0.5, n + 1))
    np.testing.assert_allclose(np.sort(p), np.arange(1, n + 2) / (n + 1))


def test_sets_by_p_values_and_by_the_quantile_are_one() -> None:
    rng = np.random.default_rng(0)
    for n in (9, 10, 19, 99, 250):
        held, new = rng.integers(0, 30, n).astype(float), np.arange(30.0)
        for level in LEVELS:
            if n < calibration_needed(level):
                continue
            inside = within(conformal_p_values(held, new), level)
            np.testing.assert_array_equal(inside, new <= conformal_quantile(held, level))


def test_p_values_of_exchangeable_scores_are_uniform() -> None:
    rng = np.random.default_rng(0)
    draws = rng.standard_cauchy((10_000, 20))
    p = np.concatenate([conformal_p_values(row[1:], row[:1]) for row in draws])
    shares = np.bincount(np.rint(p * 20).astype(int), minlength=21)[1:] / len(p)
    np.testing.assert_allclose(shares, 0.05, atol=0.009)  # four standard errors


def test_one_fold_of_a_vote_is_the_p_value() -> None:
    rng = np.random.default_rng(0)
    held, new = np.sort(rng.normal(size=50)), rng.normal(size=(4, 5))
    np.testing.assert_allclose(p_values_among([held], [new]), conformal_p_values(held, new))
    halves = [np.sort(held[::2]), np.sort(held[1::2])]
    np.testing.assert_allclose(p_values_among(halves, [new, new]), conformal_p_values(held, new))


# --------------------------------------------------------------------------------- retrieval
def coverage(retriever: Any, splits: int, make: Callable[[Any], Any], **columns: Any) -> Any:
    """Mean coverage at each level over random splits."""
    found = []
    for seed in range(splits):
        X, y, Xt, yt = make(np.random.default_rng(seed))
        fitted = retriever.set_params(random_state=seed).fit(X, y, **columns)
        p = fitted.p_values(Xt, yt).diagonal()
        found.append([within(p, level).mean() for level in LEVELS])
    return np.mean(found, axis=0)


def two_sets(law: str = "normal") -> Callable[[Any], Any]:
    def make(rng: Any) -> Any:
        X, y = views(500, rng, law)
        return X[:300], y[:300], X[300:], y[300:]

    return make


@pytest.mark.parametrize("law", ["normal", "t3"])
@pytest.mark.parametrize("scores", ["similarity", "csls"])
def test_split_sets_cover(law: str, scores: Any) -> None:
    retriever = ConformalRetriever(CCA(shrinkage=0.1), scores=scores, confidence=0.8)
    found = coverage(retriever, 20, two_sets(law))
    # Exact in the mean: the standard error over 20 splits of 75 calibration pairs is .01.
    assert (found > np.array(LEVELS) - 0.03).all()
    assert (found < np.array(LEVELS) + 1 / 76 + 0.03).all()


@pytest.mark.parametrize("method", ["cross", "pooled"])
def test_folds_cover_at_least_what_a_vote_promises(method: Any) -> None:
    retriever = ConformalRetriever(CCA(shrinkage=0.1), method=method, confidence=0.8, cv=4)
    found = coverage(retriever, 8, two_sets())
    assert (found > 2 * np.array(LEVELS) - 1).all()


def test_ranks_cover_in_galleries_of_the_size_they_were_calibrated_for() -> None:
    def make(rng: Any) -> Any:
        X, y = views(500, rng)
        return X[:400], y[:400], X[400:], y[400:]

    for queries in ("x", "y"):
        found = []
        for seed in range(8):
            X, y, Xt, yt = make(np.random.default_rng(seed))
            retriever = ConformalRetriever(
                CCA(shrinkage=0.1), scores="rank", gallery_size=100, queries=queries,
                confidence=0.3, random_state=seed,
            ).fit(X, y)  # fmt: skip
            sets = retriever.predict_set(Xt, yt)
            found.append(sets.diagonal().mean())
            ranked = retriever.models_[0].similarity(Xt, yt, kind="likelihood_ratio")
            if queries == "y":
                sets, ranked = sets.T, ranked.T
            for inside, row in zip(sets, ranked, strict=True):
                # A set is the beginning of the list.
                assert not inside.any() or row[inside].min() > row[~inside].max(initial=-np.inf)
        assert abs(np.mean(found) - 0.3) < 0.08
    with pytest.raises(ValueError, match="gallery_size=100 candidates, got 50"):
        retriever.predict_set(Xt[:50], yt[:50])


def test_ranks_are_randomised_where_most_partners_are_first() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 6))
    X, y = z + 0.01 * rng.normal(size=z.shape), z + 0.01 * rng.normal(size=z.shape)
    retriever = ConformalRetriever(
        CCA(), scores="rank", gallery_size=100, confidence=0.7, random_state=0
    ).fit(X[:500], y[:500])
    sets = retriever.predict_set(X[500:], y[500:])
    assert set(sets.sum(axis=1)) == {0, 1}
    assert abs(sets.diagonal().mean() - 0.7) < 0.15


def test_both_directions_and_galleries_of_any_size_share_one_calibration() -> None:
    X, y, Xt, yt = two_sets()(np.random.default_rng(0))
    retriever = ConformalRetriever(CCA(shrinkage=0.1), random_state=0).fit(X, y)
    whole = retriever.predict_set(Xt, yt)
    np.testing.assert_array_equal(retriever.predict_set(Xt[:7], yt[:31]), whole[:7, :31])
    np.testing.assert_array_equal(retriever.set_sizes(Xt, yt), whole.sum(axis=1))
    larger = retriever.predict_set(Xt, yt, confidence=0.95)
    assert (whole <= larger).all()
    limited = retriever.set_params(max_size=40)
    flags = limited.abstain(Xt, yt)
    np.testing.assert_array_equal(flags, (whole.sum(1) == 0) | (whole.sum(1) > 40))
    assert flags.any()
    assert not flags.all()


def test_a_group_is_one_calibration_pair() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(150, 3))
    groups = np.repeat(np.arange(150), 4)
    X = z[groups] + 0.1 * rng.normal(size=(600, 3))
    y = z[groups] + rng.normal(size=(600, 3))
    made: dict[str, Any] = {}
    for how in ("random", "worst"):
        made[how] = ConformalRetriever(
            CCA(), per_group=how, calibration_size=0.4, random_state=0
        ).fit(X, y, groups=groups)
        assert made[how].n_calibration_ == 60
    limits = {how: conformal_quantile(one.calibration_[0], 0.9) for how, one in made.items()}
    assert limits["worst"] > limits["random"]


@pytest.mark.slow
def test_groups_cover_one_caption_or_all_of_them() -> None:
    one, every = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(400, 3))
        X = np.repeat(z + 0.1 * rng.normal(size=z.shape), 3, axis=0)
        y = np.repeat(z, 3, axis=0) + rng.standard_t(3, size=(1200, 3))
        groups = np.repeat(np.arange(400), 3)
        for how, into in (("random", one), ("worst", every)):
            retriever = ConformalRetriever(CCA(), per_group=how, random_state=seed)  # type: ignore[arg-type]
            retriever.fit(X[:900], y[:900], groups=groups[:900])
            inside = retriever.predict_set(X[900:], y[900:]).diagonal().reshape(-1, 3)
            into.append(inside.mean() if how == "random" else inside.all(axis=1).mean())
    assert 0.895 <= np.mean(one) <= 0.92
    assert 0.895 <= np.mean(every) <= 0.92


def test_classes_are_calibrated_each_for_itself() -> None:
    rng = np.random.default_rng(0)
    found: dict[int, list[float]] = {0: [], 1: []}
    for seed in range(30):
        X, y = views(700, rng)
        labels = rng.integers(0, 2, 700)
        y = y + labels[:, None] * rng.normal(size=y.shape) * 2  # one class fits worse
        retriever = ConformalRetriever(CCA(), confidence=0.8, random_state=seed)
        retriever.fit(X[:500], y[:500], labels=labels[:500])
        sets = retriever.predict_set(X[500:], y[500:], labels=labels[500:])
        p = retriever.p_values(X[500:], y[500:], labels=labels[500:])
        np.testing.assert_array_equal(sets, within(p, 0.8))
        for c in (0, 1):
            found[c].append(sets.diagonal()[labels[500:] == c].mean())
    assert abs(np.mean(found[0]) - 0.8) < 0.03
    assert abs(np.mean(found[1]) - 0.8) < 0.03
    with pytest.raises(ValueError, match="pass the labels of the candidates"):
        retriever.predict_set(X, y)
    with pytest.raises(ValueError, match="no calibration pair has the label 7"):
        retriever.predict_set(X[:2], y[:2], labels=[0, 7])


def test_a_frozen_model_is_calibrated_on_all_rows() -> None:
    X, y, Xt, yt = two_sets()(np.random.default_rng(0))
    model = CCA(shrinkage=0.1).fit(X, y)
    retriever = ConformalRetriever(FrozenEstimator(model)).fit(Xt, yt)
    assert retriever.n_calibration_ == len(Xt)
    own = model.similarity(Xt, yt, kind="likelihood_ratio").diagonal()
    np.testing.assert_allclose(retriever.calibration_[0], np.sort(-own), rtol=1e-6)


def test_any_model_that_ranks_is_calibrated() -> None:
    class Similar:
        def fit(self, X: Any, y: Any) -> Any:
            return self

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            return {}

        def similarity(self, X: Any, y: Any) -> Any:
            return -((X[:, None, :3] - y[None, :, :]) ** 2).sum(axis=-1)

    X, y, Xt, yt = two_sets()(np.random.default_rng(0))
    sets = ConformalRetriever(Similar(), random_state=0).fit(X, y).predict_set(Xt, yt)
    assert sets.diagonal().mean() > 0.8


def test_bad_input_of_a_retriever_is_one_sentence() -> None:
    X, y, Xt, yt = two_sets()(np.random.default_rng(0))
    for wrong in (0.0, 1.0, -1, 2, True):
        with pytest.raises(ValueError, match=r"confidence=.* must lie between 0 and 1"):
            ConformalRetriever(CCA(), confidence=wrong).fit(X, y)
    with pytest.raises(ValueError, match="leaves 75 to calibrate: at least 99 are needed"):
        ConformalRetriever(CCA(), confidence=0.99).fit(X, y)
    with pytest.raises(TypeError, match="NystroemMap ranks nothing"):
        ConformalRetriever(NystroemMap()).fit(X, y)
    with pytest.raises(ValueError, match="needs gallery_size"):
        ConformalRetriever(CCA(), scores="rank").fit(X, y)
    with pytest.raises(ValueError, match="gallery_size=200 needs as many calibration pairs"):
        ConformalRetriever(CCA(), scores="rank", gallery_size=200).fit(X, y)
    with pytest.raises(ValueError, match="labels are calibrated with method='split'"):
        ConformalRetriever(CCA(), method="cross").fit(X, y, labels=y[:, 0] > 0)
    with pytest.raises(ValueError, match="groups has shape"):
        ConformalRetriever(CCA()).fit(X, y, groups=[1, 2])
    with pytest.raises(ValueError, match="7 calibration pairs of the class True are too few"):
        ConformalRetriever(CCA(), random_state=0).fit(X, y, labels=np.arange(300) % 10 == 0)
    fitted = ConformalRetriever(CCA(), random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="75 calibration pairs are too few"):
        fitted.predict_set(Xt, yt, confidence=0.99)


@pytest.mark.slow
def test_split_sets_cover_on_emoji() -> None:
    image, text = load_emoji(return_X_y=True)

    def make(rng: Any) -> Any:
        order = rng.permutation(len(image))
        test, train = order[:468], order[468:]
        return image[train], text[train], image[test], text[test]

    found = coverage(ConformalRetriever(CCA(shrinkage=0.4), confidence=0.8), 100, make)
    assert (found >= np.array(LEVELS) - 0.005).all()
    assert (found <= np.array(LEVELS) + 0.02).all()


# ----------------------------------------------------------------------------------- regions
MODELS = {
    "gaussian": lambda: ConditionalGaussian(shrinkage=0.0),
    "mixture": lambda: ConditionalGaussianMixture(2, random_state=0, max_iter=20),
    "ridge": lambda: MultitaskRegressor(alpha=1.0),
}
HOW: dict[str, dict[str, Any]] = {
    "ellipsoid": {},
    "intervals": {"kind": "intervals"},
    "simultaneous": {"kind": "intervals", "simultaneous": True},
}


def covered(make: Any, law: str, repetitions: int, level: float, **calibration: Any) -> Any:
    """The mean coverage of each kind of region, also with one target observed."""
    found: dict[str, list[float]] = {name: [] for name in (*HOW, "observed")}
    for seed in range(repetitions):
        X, y = views(600, np.random.default_rng(seed), law)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = make().fit(X[:200], y[:200])
            at = slice(0, 200) if calibration else slice(200, 400)
            model = model.calibrate(X[at], y[at], random_state=seed, **calibration)
        Xt, yt = X[400:], y[400:]
        for name, how in HOW.items():
            region = model.predict_region(Xt, level, **how)
            inside = region.contains(yt)
            found[name].append(inside.mean())
            if inside.ndim == 1:
                assert ((region.lower <= yt) & (yt <= region.upper))[inside].all()
        known = np.where(np.arange(3) == 1, yt, np.nan)
        region = model.predict_region(Xt, level, observed=known)
        found["observed"].append(region.contains(yt).mean())
        np.testing.assert_array_equal(region.lower[:, 1], yt[:, 1])
    return {name: np.mean(values) for name, values in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("law", ["t3", "skewed"])
def test_regions_cover_whatever_the_noise_is(name: str, law: str) -> None:
    for kind, share in covered(MODELS[name], law, 6, 0.9).items():
        assert abs(share - 0.9) < 0.05, kind


@pytest.mark.parametrize("name", ["gaussian", "ridge"])
def test_votes_of_regions_cover_what_they_promise(name: str) -> None:
    for kind, share in covered(MODELS[name], "t3", 3, 0.9, cv=4).items():
        assert share > 0.8, kind


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "ridge"])
@pytest.mark.parametrize("law", ["t3", "skewed"])
def test_regions_cover_exactly_in_the_mean(name: str, law: str) -> None:
    for kind, share in covered(MODELS[name], law, 300, 0.9).items():
        assert 0.895 <= share <= 0.92, kind


def test_what_is_observed_makes_regions_smaller() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 3))
    noise = rng.normal(size=(900, 1))
    y = X[:, :2] + noise + 0.3 * rng.normal(size=(900, 2))
    model = ConditionalGaussian(shrinkage=0.0).fit(X[:400], y[:400]).calibrate(X[400:], y[400:])
    alone = model.predict_region(X[:50], kind="intervals")
    half = np.where(np.arange(50) < 25, y[:50, 0], np.nan)
    known = np.column_stack([half, np.full(50, np.nan)])
    with_first = model.predict_region(X[:50], kind="intervals", observed=known)
    width = (with_first.upper - with_first.lower)[:, 1]
    assert (width[:25] < 0.6 * (alone.upper - alone.lower)[:25, 1]).all()
    np.testing.assert_allclose(width[25:], (alone.upper - alone.lower)[25:, 1])
    np.testing.assert_array_equal(with_first.lower[:25, 0], y[:25, 0])
    inside = with_first.contains(np.where(np.isnan(known), y[:50], known))
    assert inside.shape == (50, 2)


def test_the_ellipsoid_is_that_of_the_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    X, y = views(400, rng)
    model = ConditionalGaussian(shrinkage=0.1).fit(X[:200], y[:200]).calibrate(X[200:], y[200:])
    region = model.predict_region(X[:5], 0.8)
    missed = y[200:] - model.predict(X[200:])
    inverse = np.linalg.inv(model.covariance_)
    distances = np.sort(np.sqrt(np.einsum("ij,jk,ik->i", missed, inverse, missed)))
    radius = distances[int(np.ceil(201 * 0.8)) - 1]
    centre, deviations = model.predict(X[:5]), np.sqrt(np.diag(model.covariance_))
    np.testing.assert_allclose(region.upper, centre + radius * deviations)
    volume = np.log(4 / 3 * np.pi * radius**3) + 0.5 * np.linalg.slogdet(model.covariance_)[1]
    np.testing.assert_allclose(region.log_volume, volume)
    edge = np.linalg.cholesky(model.covariance_) @ np.array([0.6, 0.0, 0.8])
    assert region.contains(centre + 0.999 * radius * edge).all()
    assert not region.contains(centre + 1.001 * radius * edge).any()


def test_targets_that_were_not_observed_calibrate_nothing() -> None:
    rng = np.random.default_rng(0)
    X, y = views(600, rng)
    gaps = np.where(rng.random(y.shape) < 0.3, np.nan, y)
    model = MultitaskRegressor(alpha=1.0).fit(X[:300], gaps[:300])
    model = model.calibrate(X[300:], gaps[300:])
    for kind in ("ellipsoid", "intervals"):
        inside = model.predict_region(X[300:], 0.8, kind=kind).contains(y[300:])
        assert abs(inside.mean() - 0.8) < 0.08


def test_one_target_and_groups_and_a_new_fit() -> None:
    X, y = views(300, np.random.default_rng(0))
    groups = np.arange(150) // 3
    model = ConditionalGaussian(shrinkage=0.1).fit(X[:150], y[:150, 0])
    model = model.calibrate(X[150:], y[150:, 0], groups=groups, random_state=0)
    assert model.calibration_[0].residuals.shape == (50, 1)
    region = model.predict_region(X[:4])
    assert region.lower.shape == (4,)
    assert region.contains(y[:4, 0]).shape == (4,)
    votes = model.calibrate(X[:150], y[:150, 0], cv=3, groups=groups, random_state=0)
    assert [len(c.residuals) for c in votes.calibration_] == [17, 17, 16]
    model.fit(X[:150], y[:150, 0])
    with pytest.raises(ValueError, match="call calibrate"):
        model.predict_region(X)
    model.calibrate(X[150:], y[150:, 0]).partial_fit(X[:9], y[:9, 0])
    with pytest.raises(ValueError, match="call calibrate"):
        model.predict_region(X)


def test_bad_input_of_a_region_is_one_sentence() -> None:
    X, y = views(100, np.random.default_rng(0))
    model = ConditionalGaussian(shrinkage=0.1).fit(X, y).calibrate(X[:30], y[:30])
    with pytest.raises(ValueError, match=r"confidence=1\.0 must lie between 0 and 1"):
        model.predict_region(X, 1.0)
    with pytest.raises(ValueError, match=r"30 held-out rows are too few.* at least 99 are needed"):
        model.predict_region(X, 0.99)
    with pytest.raises(ValueError, match="kind='box' is unknown"):
        model.predict_region(X, kind="box")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"observed has shape \(100, 2\), expected \(100, 3\)"):
        model.predict_region(X, observed=y[:, :2])
    with pytest.raises(ValueError, match="X has 30 rows and y has 29"):
        model.calibrate(X[:30], y[:29])
    with pytest.raises(ValueError, match="y has 2 features"):
        model.calibrate(X, y[:, :2])
    with pytest.raises(ValueError, match="y has shape"):
        model.predict_region(X).contains(y[:5])
