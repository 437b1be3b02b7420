"""Comparison: one table on the same folds, learning curves, and suggestions that fit."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.cross_decomposition import CCA as ScikitCCA
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, PredefinedSplit, ShuffleSplit

from cmstats import CCA, ConditionalGaussian, LinearAutoencoder, TwoViewPipeline, retrieval_report
from cmstats.metrics import total_correlation_scorer
from cmstats.model_selection.comparison import (
    compare,
    learning_curves,
    overtakes,
    paired_bootstrap,
    suggest_models,
)
from cmstats.model_selection.costs import PeakMemory, count_parameters
from cmstats.model_selection.judging import agreement
from cmstats.model_selection.records import Comparison
from cmstats.models.multiview import MultiviewCCA
from cmstats.models.semantic import SemanticMatching

pytestmark = pytest.mark.ordinary

QUICK = {"memory": False, "n_resamples": 200, "random_state": 0}


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Any, Any]:
    Z = rng.normal(size=(90, 3))
    X = Z @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(90, 5))
    return X, Z @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(90, 4))


@pytest.fixture
def labels(pair: Any) -> Any:
    return np.where(pair[0][:, 0] > 0, "up", "down")


class Fixed(BaseEstimator):
    """Cosines of the features times a matrix that is drawn once."""

    def __init__(self, noise: float = 0.0, random_state: Any = None) -> None:
        self.noise = noise
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        self.n_features_in_ = X.shape[1]
        return self

    def similarity(self, X: Any, y: Any) -> Any:
        rng = np.random.default_rng(self.random_state)
        return X @ X.T + self.noise * rng.normal(size=(len(X), len(y)))


class Sleeper(Fixed):
    """Takes a time in proportion to the rows."""

    def fit(self, X: Any, y: Any) -> Self:
        time.sleep(4e-4 * len(X))
        return self


class Failing(Fixed):
    def fit(self, X: Any, y: Any) -> Self:
        raise ArithmeticError("no solution today\nand more lines")


# ----------------------------------------------------------------------- the same numbers
def test_memory_maps_are_compared_as_joblib_hands_them_over(tmp_path: Any) -> None:
    X, Y = np.random.default_rng(0).normal(size=(2, 40, 3))
    maps = []
    for name, a in (("x", X), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", a)
        maps.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    found = compare({"cca": CCA(2, shrinkage=0.1)}, *maps, cv=2, memory=False, random_state=0)
    expected = compare({"cca": CCA(2, shrinkage=0.1)}, X, Y, cv=2, memory=False, random_state=0)
    assert found.loc["cca", "MRR"] == expected.loc["cca", "MRR"]


def test_the_table_is_a_loop_over_the_folds_by_hand(pair: Any, labels: Any) -> None:
    X, Y = pair
    table = compare(
        {"CCA": CCA(2), "Gaussian": ConditionalGaussian(shrinkage=0.2)},
        X,
        Y,
        cv=3,
        labels=labels,
        **QUICK,
    )
    found: dict[str, list[dict[str, float]]] = {"CCA": [], "Gaussian": []}
    for train, test in PredefinedSplit(np.arange(len(X)) % 3).split():
        cca = CCA(2).fit(X[train], Y[train])
        gauss = ConditionalGaussian(shrinkage=0.2).fit(X[train], Y[train])
        for name, model in (("CCA", cca), ("Gaussian", gauss)):
            u, v = model.embed(X[test], Y[test])
            row = dict(retrieval_report(u, v, labels=labels[test]).loc["mean"])
            row["R2"] = r2_score(Y[test], model.predict(X[test]))
            if name == "CCA":
                row["total_correlation"] = total_correlation_scorer(cca, X[test], Y[test])
            else:
                row["log_likelihood"] = gauss.logpdf(X[test], Y[test]).mean()
            found[name].append(row)
    for name, rows in found.items():
        by_hand = pd.DataFrame(rows)
        for column in by_hand.columns.intersection(table.columns):
            assert table.loc[name, column] == pytest.approx(by_hand[column].mean(), abs=1e-12)
            se = by_hand[column].std() / math.sqrt(3)
            assert table.attrs["standard_errors"][column][name] == pytest.approx(se, abs=1e-12)
    assert table.columns[0] == "mAP"
    assert table.loc["CCA", "mAP_se"] == table.attrs["standard_errors"]["mAP"]["CCA"]
    assert np.isnan(table.loc["CCA", "log_likelihood"])
    assert np.isnan(table.loc["Gaussian", "total_correlation"])
    assert pd.DataFrame(table.attrs["folds"]).groupby("model").size().tolist() == [3, 3]


@pytest.mark.slow
def test_groups_are_in_one_fold_and_drawn_together(pair: Any) -> None:
    rng = np.random.default_rng(0)
    at, groups = np.repeat(np.arange(30), 3), np.repeat(np.arange(30), 3)
    X, Y = (V[at] + 0.01 * rng.normal(size=(90, V.shape[1])) for V in pair)
    models = {"CCA": CCA(2), "noise": Fixed(5.0), "chosen": CCA(2, shrinkage="cv", cv=3)}
    kept = compare(models, X, Y, cv=3, groups=groups, baseline="CCA", **QUICK)
    splits = list(PredefinedSplit(groups % 3).split())
    alone = compare(models, X, Y, cv=splits, baseline="CCA", **QUICK)
    assert kept["MRR"]["CCA"] == alone["MRR"]["CCA"]
    width = [(t["ci_high"] - t["ci_low"])["noise"] for t in (kept, alone)]
    assert width[0] > 1.2 * width[1]  # 30 items, not 90
    train = splits[0][0]
    chosen = CCA(2, shrinkage="cv", cv=3).fit(X[train], Y[train], groups=groups[train])
    assert chosen.shrinkage_ != CCA(2, shrinkage="cv", cv=3).fit(X[train], Y[train]).shrinkage_
    found = Comparison(models, X, Y, None, 3, groups, (1,), 0, "raise").fit(models["chosen"], train)
    assert found.shrinkage_ == chosen.shrinkage_


def test_one_seed_gives_the_same_numbers_twice(pair: Any) -> None:
    models = {"CCA": CCA(2), "noise": Fixed(5.0)}
    tables = [compare(models, *pair, cv=3, baseline="CCA", **QUICK) for _ in range(2)]
    timing = ["fit_seconds", "query_seconds"]
    pd.testing.assert_frame_equal(*(t.drop(columns=timing) for t in tables))


def test_estimators_are_not_touched(pair: Any) -> None:
    model = CCA(2)
    noise = Fixed()
    compare({"CCA": model, "noise": noise}, *pair, cv=2, **QUICK)
    assert not hasattr(model, "n_samples_")
    assert noise.random_state is None


def test_frames_and_other_arrays_give_the_numbers_of_numpy(pair: Any) -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    X, Y = pair
    models = {"CCA": CCA(2)}
    expected = compare(models, X, Y, cv=2, **QUICK)
    frames = compare(models, pd.DataFrame(X), pd.DataFrame(Y), cv=2, **QUICK)
    tensors = compare(models, torch.asarray(X), torch.asarray(Y), cv=2, **QUICK)
    sparse = compare(models, scipy.sparse.csr_matrix(X), Y.tolist(), cv=2, **QUICK)
    for other in (frames, tensors, sparse):
        columns = ["MRR", "R@1", "total_correlation", "R2", "stability"]
        np.testing.assert_allclose(
            other[columns].to_numpy(float), expected[columns].to_numpy(float), atol=1e-9
        )
        assert other.loc["CCA", "device"] == "cpu"


@pytest.mark.slow
# ------------------------------------------------------------------------------- columns
def test_what_a_model_lacks_is_nan(pair: Any, labels: Any) -> None:
    X, Y = pair
    models = {
        "scores": Fixed(),
        "scikit": ScikitCCA(2),
        "ridge": Ridge(),
        "code": LinearAutoencoder(2, target="joint"),
        "pca": LinearAutoencoder(2),
        "several": MultiviewCCA(2),
        "classes": SemanticMatching(),
    }
    table = compare(models, X, Y, cv=2, labels=labels, **QUICK)
    by = ["similarity", "transform", "predict", "transform", None, "embed", "embed"]
    assert [None if b is None or b != b else b for b in table["ranked_by"]] == by
    has = table.notna()
    assert has["MRR"].tolist() == [b is not None for b in by]
    assert has["total_correlation"].tolist() == [False, True, False, True, False, True, False]
    assert has["R2"].tolist() == [False, True, True, True, False, False, False]
    assert has["accuracy"].tolist() == [False] * 6 + [True]
    assert table.loc["classes", "accuracy"] > 0.8
    assert not has["log_likelihood"].any()
    assert not has["peak_memory_mb"].any()
    assert "error" not in table
    assert "scaling_exponent" not in table
    assert "p_value" not in table


def test_views_of_one_width_get_a_row_of_their_plain_cosine(pair: Any) -> None:
    X, Y = pair
    table = compare({"CCA": CCA(2)}, X[:, :4], Y, cv=2, baseline="raw cosine", **QUICK)
    assert list(table.index) == ["CCA", "raw cosine"]
    scores = []
    for _, test in PredefinedSplit(np.arange(len(X)) % 2).split():
        u, v = (a / np.linalg.norm(a, axis=1)[:, None] for a in (X[test, :4], Y[test]))
        scores.append(retrieval_report(u, v).loc["mean", "R@5"])
    assert table.loc["raw cosine", "R@5"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert table.loc["raw cosine", "n_parameters"] == 0
    assert "raw cosine" not in compare({"CCA": CCA(2)}, X, Y, cv=2, **QUICK).index


def test_a_failing_model_is_a_row_that_says_why(pair: Any) -> None:
    models = {"CCA": CCA(2), "broken": Failing()}
    with pytest.warns(UserWarning, match="'broken' failed in fold 0"):
        table = compare(models, *pair, cv=2, baseline="CCA", **QUICK)
    assert table.loc["broken", "error"] == "in fold 0: ArithmeticError: no solution today"
    assert table.loc["broken"].drop("error").isna().all()
    assert table.loc["CCA", "MRR"] == compare({"CCA": CCA(2)}, *pair, cv=2, **QUICK)["MRR"]["CCA"]
    with pytest.raises(RuntimeError, match="'broken' failed in fold 0: ArithmeticError"):
        compare(models, *pair, cv=2, on_error="raise", **QUICK)


def test_warnings_of_folds_are_said_once_with_the_name(pair: Any) -> None:
    X, Y = pair
    X = np.c_[X, X[:, 0]]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compare({"doubled": CCA(2)}, X, Y, cv=3, **QUICK)
    messages = [str(w.message) for w in caught if "'doubled':" in str(w.message)]
    assert len(messages) == 1
    assert caught[0].filename == __file__


# ------------------------------------------------------------------------ test and stability
def test_two_models_that_are_the_same_do_not_differ(pair: Any) -> None:
    models = {"one": CCA(2), "two": CCA(2)}
    table = compare(models, *pair, cv=3, baseline="one", **QUICK)
    assert table.loc["two", ["difference", "ci_low", "ci_high"]].tolist() == [0, 0, 0]
    assert table.loc["two", "p_value"] == 1


@pytest.mark.parametrize("metric", ["MRR", "R@5", "mAP", "R2", "log_likelihood"])
def test_a_clearly_better_model_is_significant(pair: Any, labels: Any, metric: str) -> None:
    good, bad = ConditionalGaussian(shrinkage=0.1), ConditionalGaussian(shrinkage=0.999)
    X, Y = pair
    if metric in ("MRR", "R@5", "mAP"):  # the order depends little on shrinkage, so other data
        bad = TwoViewPipeline(bad, x=_Shuffled())
    table = compare(
        {"bad": bad, "good": good},
        X,
        Y,
        cv=3,
        labels=labels,
        baseline="bad",
        metric=metric,
        memory=False,
        random_state=0,
    )
    row = table.loc["good"]
    assert row["p_value"] < 0.01
    assert 0 < row["ci_low"] < row["difference"] < row["ci_high"]
    difference = row[metric] - table.loc["bad", metric]
    assert row["difference"] == pytest.approx(difference, abs=1e-9)  # folds of one size


class _Shuffled(BaseEstimator):
    """A view whose rows have lost their partners."""

    def fit(self, X: Any, y: Any = None) -> Self:
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        return X[::-1]

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        return self.fit(X).transform(X)


def test_intervals_are_those_of_the_normal_distribution_for_many_items() -> None:
    d = np.random.default_rng(0).normal(0.05, 1, size=2000)
    mean, low, high, p = paired_bootstrap(d, 4000, 0)
    se = d.std() / math.sqrt(len(d))
    assert low == pytest.approx(mean - 1.96 * se, abs=0.1 * se)
    assert high == pytest.approx(mean + 1.96 * se, abs=0.1 * se)
    z = abs(mean) / se
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.03)
    assert all(math.isnan(v) for v in paired_bootstrap(np.full(3, np.nan), 10, 0))


def test_items_that_are_tested_twice_count_once(pair: Any) -> None:
    X, Y = pair
    split = next(KFold(3, shuffle=True, random_state=0).split(X))
    models = {"a": CCA(1), "b": CCA(2)}
    once = compare(models, X, Y, cv=[split], baseline="a", **QUICK)
    twice = compare(models, X, Y, cv=[split, split], baseline="a", **QUICK)
    columns = ["difference", "ci_low", "ci_high", "p_value"]
    pd.testing.assert_frame_equal(once[columns], twice[columns])
    assert math.isnan(once.loc["b", "stability"])
    assert math.isnan(once.loc["b", "MRR_se"])


def test_stability_is_one_without_noise_and_small_for_noise(rng: np.random.Generator) -> None:
    Z = rng.normal(size=(120, 3))
    X, Y = Z @ rng.normal(size=(3, 6)), Z @ rng.normal(size=(3, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the views have rank 3
        exact = compare({"CCA": CCA(3)}, X, Y, cv=3, **QUICK)
    assert exact.loc["CCA", "stability"] == pytest.approx(1, abs=1e-8)
    unrelated = rng.normal(size=(120, 6)), rng.normal(size=(120, 5))
    noise = compare({"CCA": CCA(1)}, *unrelated, cv=3, **QUICK)
    assert noise.loc["CCA", "stability"] < 0.9


def test_agreement_is_that_of_spans(rng: np.random.Generator) -> None:
    A, M = rng.normal(size=(60, 3)), rng.normal(size=(3, 3))
    assert agreement(A, A @ M + rng.normal(size=3)) == pytest.approx(1)
    Q = np.linalg.qr(np.c_[np.ones(60), rng.normal(size=(60, 4))])[0][:, 1:]
    turned = Q[:, :2] * math.cos(0.3) + Q[:, 2:] * math.sin(0.3)
    assert agreement(Q[:, :2], turned) == pytest.approx(math.cos(0.3))
    assert agreement(Q[:, :2], Q[:, :1]) == pytest.approx(0.5)
    wide = rng.normal(size=(20, 15))
    rotation = np.linalg.qr(rng.normal(size=(15, 15)))[0]
    assert agreement(wide, 3 * wide @ rotation) == pytest.approx(1)
    assert agreement(wide, rng.normal(size=(20, 15))) < 0.9


# --------------------------------------------------------------------------------- costs
def test_the_scaling_exponent_of_a_linear_time_is_one(pair: Any) -> None:
    X, Y = (np.tile(a, (2, 1)) for a in pair)
    table = compare({"linear": Sleeper()}, X, Y, cv=2, scaling=[22, 45, 90], **QUICK)
    assert table.loc["linear", "scaling_exponent"] == pytest.approx(1, abs=0.3)
    assert table.loc["linear", "fit_seconds"] >= 4e-4 * 90


def test_peak_memory_sees_what_a_fit_allocates(pair: Any) -> None:
    class Hungry(Fixed):
        def fit(self, X: Any, y: Any) -> Self:
            np.ones(4 << 20).sum()  # 32 MiB, gone at the end
            return self

    with PeakMemory() as peak:
        Hungry().fit(None, None)
    assert 31 < peak.mb < 80
    table = compare({"hungry": Hungry()}, *pair, cv=2, random_state=0)
    assert 31 < table.loc["hungry", "peak_memory_mb"] < 80


def test_parameters_are_the_numbers_that_a_model_keeps(pair: Any) -> None:
    X, Y = pair
    assert count_parameters(CCA(2).fit(X, Y)) == 2 * (5 + 4) + 5 + 4
    assert count_parameters(Ridge().fit(X, Y)) == 4 * (5 + 1)
    model = LinearAutoencoder(2, target="cross")
    assert count_parameters(model.fit(X, Y)) == 2 * (5 + 4) + 5 + 4
    pipeline = TwoViewPipeline(CCA(2)).fit(X, Y)
    assert count_parameters(pipeline) == count_parameters(CCA(2).fit(X, Y))
    torch = pytest.importorskip("torch", exc_type=ImportError)
    assert count_parameters([torch.nn.Linear(3, 2)]) == 8


# -------------------------------------------------------------------------- learning curves
def test_learning_curves_end_in_the_numbers_of_the_table(pair: Any) -> None:
    models = {"CCA": CCA(2, shrinkage=0.1), "Gaussian": ConditionalGaussian(shrinkage=0.1)}
    curves = learning_curves(models, *pair, sizes=[0.25, 0.5, 60], cv=3, random_state=0)
    assert list(curves.columns) == ["model", "n", "metric", "mean", "se"]
    assert sorted(curves["n"].unique()) == [15, 30, 60]
    table = compare(models, *pair, cv=3, **QUICK)
    last = curves[curves["n"] == 60].pivot(index="model", columns="metric", values="mean")
    for column in ("MRR", "R@5", "median_rank", "R2"):
        np.testing.assert_allclose(last[column], table[column], atol=1e-9)
    many = curves[(curves["model"] == "CCA") & (curves["metric"] == "MRR")]["mean"].to_numpy()
    assert many[0] < many[-1]


def test_a_size_at_which_a_model_fails_is_a_gap(pair: Any) -> None:
    class Greedy(Fixed):
        def fit(self, X: Any, y: Any) -> Self:
            if len(X) < 30:
                raise ValueError("too few rows")
            return self

    with pytest.warns(UserWarning, match="'greedy, n=10' failed"):
        curves = learning_curves({"greedy": Greedy()}, *pair, sizes=[10, 40], cv=2, random_state=0)
    means = curves[curves["metric"] == "MRR"].set_index("n")["mean"]
    assert np.isnan(means[10])
    assert means[40] > 0.1


def _curves(a: list[float], b: list[float], metric: str = "MRR") -> pd.DataFrame:
    n = [100, 200, 400]
    rows = {"model": ["a"] * 3 + ["b"] * 3, "n": n * 2, "metric": metric, "mean": a + b}
    return pd.DataFrame(rows)


def test_overtaking_is_where_the_curves_cross() -> None:
    assert overtakes(_curves([1, 2, 5], [2, 3, 4]), "a", "b") == pytest.approx(200 * 2**0.5)
    assert overtakes(_curves([1, 2, 3], [2, 3, 4]), "a", "b") == math.inf
    assert overtakes(_curves([3, 4, 5], [2, 3, 4]), "a", "b") == 100
    ranks = _curves([9, 5, 1], [5, 5, 5], "median_rank")
    assert overtakes(ranks, "a", "b", "median_rank") == pytest.approx(200)
    with pytest.raises(ValueError, match="no 'R@1' of 'a'"):
        overtakes(ranks, "a", "b", "R@1")


# ------------------------------------------------------------------------------ suggestions
def _check(candidates: Any, X: Any, Y: Any, labels: Any = None) -> pd.DataFrame:
    assert set(candidates) == set(candidates.reasons)
    assert all(reason.endswith(".") for reason in candidates.reasons.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = compare(candidates, X, Y, cv=2, labels=labels, on_error="raise", **QUICK)
    numbers = table[["MRR", "R2", "log_likelihood"]] if "R2" in table else table[["MRR"]]
    assert numbers.notna().any(axis=1).all()
    return table


@pytest.mark.parametrize(
    "task", [pytest.param("retrieval", marks=pytest.mark.slow), "regression", "clustering"]
)
def test_every_suggestion_goes_through_compare(pair: Any, task: Any) -> None:
    candidates = suggest_models(*pair, task=task, random_state=0)
    assert len(candidates) >= 2
    table = _check(candidates, *pair)
    assert list(table.index) == list(candidates)
    assert "\n" in repr(candidates)


def test_suggestions_follow_the_data(pair: Any, labels: Any, rng: np.random.Generator) -> None:
    X, Y = pair
    tall = suggest_models(X, Y)
    assert tall["CCA"].shrinkage == "cv"
    assert tall["KernelCCA"].kernel == "rbf"
    wide = suggest_models(rng.normal(size=(20, 30)), rng.normal(size=(20, 12)))
    assert wide["CCA"].shrinkage == "auto"
    assert suggest_models(np.abs(X), Y)["KernelCCA"].kernel == ("chi2", "rbf")
    assert "SemanticMatching" not in tall
    with_labels = suggest_models(np.abs(X), Y, labels=labels, random_state=0)
    assert "SemanticMatching, kernel" in with_labels
    assert with_labels["SemanticMatching"].random_state == 0
    assert "KernelCCA" not in suggest_models(scipy.sparse.csr_matrix(np.abs(X)), Y)
    one = suggest_models(X, Y[:, 0], task="regression")
    assert "MultitaskRegressor, low rank" not in one
    assert "the target" in one.reasons["MultitaskRegressor"]


@pytest.mark.slow
def test_suggestions_for_classes_name_them(pair: Any, labels: Any) -> None:
    X, Y, labels = pair[0][:50], pair[1][:50], labels[:50]
    table = _check(suggest_models(X, Y, task="classification", labels=labels), X, Y, labels)
    assert (table["accuracy"] > 0.7).all()
    binary = (Y[:, :3] > 0).astype(float)
    candidates = suggest_models(X, binary, task="classification", random_state=0)
    assert "MultitaskRegressor" in candidates
    table = _check(candidates, X, binary)
    assert table.loc["MultitaskRegressor", "R2"] > 0.2


@pytest.mark.parametrize(
    "task", [pytest.param("retrieval", marks=pytest.mark.slow), "regression", "clustering"]
)
def test_suggestions_cope_with_missing_entries(
    pair: Any, task: Any, rng: np.random.Generator
) -> None:
    X, Y = (a.copy() for a in pair)
    X[rng.random(X.shape) < 0.05] = np.nan
    candidates = suggest_models(X, Y, task=task, random_state=0)
    assert candidates["ConditionalGaussian"].missing == "em"
    _check(candidates, X, Y)


# -------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"estimators": {}}, ValueError, "at least one entry"),
        ({"estimators": [CCA()]}, ValueError, "dict of name -> estimator"),
        ({"estimators": {"c": CCA}}, TypeError, "'c' is no estimator"),
        ({"estimators": {"b": BaseEstimator()}}, TypeError, "'b' is no estimator"),
        ({"baseline": "other"}, ValueError, "baseline='other' is none of the models: 'CCA'"),
        ({"metric": "mAP"}, ValueError, "metric='mAP' is unknown here: use one of MRR, R@1"),
        ({"labels": [1, 2]}, ValueError, r"labels has shape \(2,\), expected \(90,\)"),
        ({"cv": 1}, ValueError, "cv=1 folds of 90 rows"),
        ({"cv": 50}, ValueError, "two rows to a fold"),
        ({"cv": ShuffleSplit(1, test_size=1)}, ValueError, "89 training and 1 test rows"),
        ({"ks": [0]}, ValueError, "whole number, 1 or more"),
        ({"on_error": "nan"}, ValueError, "on_error must be"),
        ({"X": np.ones((3, 2))}, ValueError, "3"),
    ],
)
def test_bad_arguments_are_named(pair: Any, change: Any, error: Any, match: str) -> None:
    given: dict[str, Any] = {"estimators": {"CCA": CCA(1)}, "X": pair[0], "y": pair[1]}
    with pytest.raises(error, match=match):
        compare(**(given | change))


def test_an_estimator_without_answers_is_refused(pair: Any) -> None:
    class Mute(BaseEstimator):
        def fit(self, X: Any, y: Any) -> Self:
            return self

    with pytest.raises(TypeError, match=r"'mute' \(Mute\) has nothing to compare"):
        compare({"mute": Mute()}, *pair)


def test_bad_arguments_of_suggestions_are_named(pair: Any) -> None:
    X, Y = pair
    with pytest.raises(ValueError, match="task='ranking' is unknown"):
        suggest_models(X, Y, task="ranking")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels has length 2, expected 90"):
        suggest_models(X, Y, labels=["a", "b"])
    with pytest.raises(ValueError, match="needs labels="):
        suggest_models(X, Y, task="classification")
    with pytest.raises(ValueError, match="not numbers"):
        suggest_models(np.array([["a"]] * 9), np.ones(9))
    with pytest.raises(ValueError, match="sizes must be from 2 to"):
        learning_curves({"CCA": CCA(1)}, X, Y, sizes=[80], cv=2)


def test_retrieval_is_told_in_each_direction() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6))
    y = X[:, :4] + rng.normal(size=(120, 4))
    table = compare({"CCA": CCA(2), "more": CCA(3)}, X, y, cv=3, random_state=0)
    for name in ("R@1", "R@10", "median_rank", "MRR"):
        both = (table[f"{name} (x -> y)"] + table[f"{name} (y -> x)"]) / 2
        np.testing.assert_allclose(both, table[name], rtol=1e-12)
