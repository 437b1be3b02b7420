"""`CrossModalRetriever`: what it tries, how it chooses, and that it is what it chose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from cmstats import CCA, CrossModalRetriever, KernelCCA, load_emoji, retrieval_report, search
from cmstats.metrics import HubnessCorrection
from cmstats.model_selection.candidates import SHRINKAGES, Candidate, Trials
from cmstats.model_selection.retriever import _best_cosine, _chosen, _standard_error, _table

pytestmark = pytest.mark.ordinary


def aligned(seed: int, n: int, noise: float = 0.6, d: int = 8) -> tuple[Any, Any]:
    """Two embeddings in one space, with means of their own."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d))
    x, y = (z + noise * rng.normal(size=(n, d)) for _ in range(2))
    return x + 1.5, y - 1.5


def curved(seed: int, n: int) -> tuple[Any, Any]:
    """A relation that no linear model sees."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-1, 1, size=(n, 3))
    return t, np.hstack([t**2, np.cos(4 * t)]) + 0.01 * rng.normal(size=(n, 6))


def mrr(u: Any, v: Any) -> float:
    return float(retrieval_report(u, v).loc["mean", "MRR"])


def test_views_of_one_space_are_compared_at_least_as_well_as_by_their_cosine() -> None:
    X, y = aligned(0, 60)
    Xt, yt = aligned(1, 200)
    model = CrossModalRetriever(cv=3, random_state=0).fit(X, y)
    table = model.results_
    assert {"cosine", "centred cosine", "CCA"} <= set(table["model"])
    assert model.chosen_["model"] in ("centred cosine", "CCA")
    centred = mrr(Xt - X.mean(axis=0), yt - y.mean(axis=0))
    assert model.score(Xt, yt) > mrr(Xt, yt) + 0.1
    assert model.score(Xt, yt) > centred - 0.02


def test_a_relation_that_is_not_linear_takes_kernels() -> None:
    X, y = curved(0, 200)
    Xt, yt = curved(1, 100)
    model = CrossModalRetriever(random_state=0, cv=3).fit(X, y)
    assert model.chosen_["model"] == "KernelCCA"
    assert isinstance(model.model_, KernelCCA)
    assert model.score(Xt, yt) > 2 * mrr(*CCA(shrinkage=0.1).fit(X, y).embed(Xt, yt))
    table = model.results_
    assert table["chosen"].sum() == 1
    assert table.loc[table["chosen"], "score"].item() == model.score_
    assert (table["seconds"] > 0).all()
    assert set(table["pairs"]) == {200, 134}  # kernels that were screened in two folds of three


def test_the_outputs_are_those_of_the_chosen_model_and_correction() -> None:
    image, text = load_emoji(return_X_y=True)
    X, y, Xt, yt = image[:300, :40], text[:300, :30], image[300:400, :40], text[300:400, :30]
    model = CrossModalRetriever(time_budget=0, random_state=0).fit(X, y)
    chosen = Candidate(**model.chosen_)
    assert (chosen.model, chosen.similarity, chosen.target) == (
        "CCA", "likelihood_ratio", "independent",
    )  # fmt: skip
    cca = CCA(shrinkage=chosen.shrinkage).fit(X, y)
    u, v = cca.embed(Xt, yt, kind="likelihood_ratio")
    if chosen.hubness:
        bank = cca.embed(X, y, kind="likelihood_ratio")
        u, v = HubnessCorrection().fit(*bank).transform(u, v)
    a, b = model.embed(Xt, yt)
    np.testing.assert_allclose(a @ b.T, u @ v.T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.similarity(Xt, yt), a @ b.T)
    for queries, (p, q) in (("x", (a, b)), ("y", (b, a))):
        found = model.search(Xt, yt, 4, queries=queries)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found[0], search(p, q, 4)[0])
    assert model.score(Xt, yt) == pytest.approx(mrr(a, b))


def trial(**how: Any) -> Trials:
    X, y = aligned(0, 60, d=5)
    folds = [np.arange(60) % 3]
    return Trials(X, y, folds, "MRR", 0, **how)


def test_the_path_and_the_decomposition_rank_as_the_fitted_models_do() -> None:
    """Values of held-out pairs are those of fits by hand, corrected by a bank of training rows."""
    trials = trial()
    trials.cosines()
    for target in ("aligned", "independent"):
        trials.path(target, (0.3, 0.9))
        trials.components(target, 0.3)
    X, y = trials.X, trials.Y
    for candidate, values in trials.values.items():
        for k in range(3):
            test = np.arange(60) % 3 == k
            model = trials.estimator(candidate, 40).fit(X[~test], y[~test])
            how = {} if candidate.similarity == "cosine" else {"kind": candidate.similarity}
            u, v = model.embed(X[test], y[test], **how)
            if candidate.hubness:
                hubs = HubnessCorrection().fit(*model.embed(X[~test], y[~test], **how))
                u, v = hubs.transform(u, v)
            report = retrieval_report(u, v)
            assert values[test].mean() == pytest.approx(report.loc["mean", "MRR"], abs=1e-12)


def test_kernels_are_tried_with_all_components_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmstats.model_selection.candidates.COMPONENTS", (5,))
    trials = trial()
    trials.kernels(1.0, 0.3)
    assert {c.n_components for c in trials.values} == {5}
    trials.all_components(1.0, 0.3)
    X, y = trials._mapped(1.0)
    for candidate, values in trials.values.items():
        for k in range(3):
            test = np.arange(60) % 3 == k
            model = CCA(candidate.n_components, shrinkage=0.3).fit(X[~test], y[~test])
            how: Any = {"kind": candidate.similarity}
            u, v = model.embed(X[test], y[test], **how)
            if candidate.hubness:
                u, v = (
                    HubnessCorrection().fit(*model.embed(X[~test], y[~test], **how)).transform(u, v)
                )
            assert values[test].mean() == pytest.approx(mrr(u, v), abs=1e-12)


def test_more_landmarks_than_in_the_trials_take_the_same_ridge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cmstats.model_selection.candidates.TRIAL_LANDMARKS", (20, 10))
    model = trial().estimator(Candidate("KernelCCA", shrinkage=0.1, gamma=0.3), 60)
    assert model.rank == 60

    def ridge(shrinkage: float, columns: int) -> float:
        return shrinkage / (1 - shrinkage) / columns

    assert ridge(model.shrinkage, 60) == pytest.approx(ridge(0.1, 20))
    more = trial().estimator(Candidate("KernelCCA", shrinkage=0.1, gamma=0.3), 100)
    assert ridge(more.shrinkage, 100) == pytest.approx(ridge(0.1, 20))  # tried on 60 rows of these
    monkeypatch.setattr("cmstats.model_selection.candidates.MANY_ROWS", 50)
    assert trial().estimator(Candidate("KernelCCA", shrinkage=0.1, gamma=0.3), 60).shrinkage == 0.1


def test_a_path_is_followed_to_its_best_shrinkage() -> None:
    X, y = aligned(0, 300, noise=1.5, d=20)
    whole, followed = (Trials(X, y, [np.arange(300) % 3], "MRR", 0) for _ in range(2))
    for s in SHRINKAGES:
        whole.path("independent", (s,))
    followed.path("independent")
    assert len(followed.values) < len(whole.values) == 2 * len(SHRINKAGES)
    for hubness in (False, True):
        best, found = (
            max(np.mean(v) for c, v in t.values.items() if c.hubness == hubness)
            for t in (whole, followed)
        )
        assert best - 0.002 < found <= best


def test_few_pairs_take_the_simplest_within_one_paired_error() -> None:
    trials = trial()
    rng = np.random.default_rng(0)
    base = rng.uniform(size=60)
    simple, better = Candidate("cosine"), Candidate("CCA", "likelihood_ratio", "aligned", 0.5)
    worse = Candidate("centred cosine")
    trials.values = {better: base, simple: base - np.tile([0.11, -0.1], 30), worse: base - 0.2}
    trials.times = dict.fromkeys(trials.values, np.ones(60))
    trials.seconds = dict.fromkeys(trials.values, 1.0)
    table = _table(trials, np.arange(60))
    assert next(iter(table)) == better
    assert 0 < table[simple]["difference"] < table[simple]["difference_error"]
    cosines = {simple: base, replace(simple, hubness=True): base - 0.1}
    assert _chosen(table, cosines, np.arange(60)) == simple
    assert _chosen(table, {}, np.arange(60)) == better
    assert table[worse]["difference_error"] == pytest.approx(0, abs=1e-12)


def test_cosines_are_told_apart_by_ranks_among_all_pairs() -> None:
    X, y = aligned(0, 60, d=5)
    trials = Trials(X, y, [np.arange(60) % 3], "MRR", 0)
    cosines = trials.cosines_among_all()
    for candidate, values in cosines.items():
        u, v = trials.estimator(candidate, 60).fit(X, y).embed(X, y)
        if candidate.hubness:
            u, v = HubnessCorrection().fit(u, v).transform(u, v)
        assert values.mean() == pytest.approx(mrr(u, v), abs=1e-12)
    plain, centred = Candidate("cosine"), Candidate("centred cosine")
    corrected = replace(centred, hubness=True)
    base = cosines[centred]
    assert base.mean() > cosines[plain].mean() + 0.1
    rows = np.arange(60)
    within = base + np.tile([0.11, -0.1], 30)  # a gain of .005 +- .014
    assert _best_cosine({**cosines, corrected: within}, rows) == centred
    assert _best_cosine({**cosines, corrected: base + 0.005}, rows) == corrected


def test_the_error_is_of_groups() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert _standard_error(values, np.arange(40)) == pytest.approx(values.std(ddof=1) / 40**0.5)
    twice = _standard_error(np.repeat(values, 2), np.repeat(np.arange(40), 2))
    assert twice == pytest.approx(values.std(ddof=1) / 40**0.5)


def test_rows_of_a_group_are_in_one_fold() -> None:
    """Copies in training would give the partners of held-out rows away."""
    rng = np.random.default_rng(0)
    X, y = (np.repeat(rng.normal(size=(40, 6)), 4, axis=0) for _ in range(2))
    X = X + 1e-3 * rng.normal(size=X.shape)
    y = y[:, :5] + 1e-3 * rng.normal(size=(160, 5))
    groups = np.repeat([f"film {i}" for i in range(40)], 4)
    rows = CrossModalRetriever(time_budget=0, random_state=0).fit(X, y)
    grouped = CrossModalRetriever(time_budget=0, random_state=0).fit(X, y, groups=groups)
    assert grouped.score_ < 0.5 * rows.score_


def test_many_rows_are_chosen_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmstats.model_selection.retriever.ROWS", 200)
    X, y = aligned(0, 500)
    groups = np.arange(500) // 5
    model = CrossModalRetriever(time_budget=0, random_state=0).fit(X, y, groups=groups)
    assert model.results_["pairs"].max() == 200
    assert getattr(model.model_, "n_samples_", 500) == 500


def test_a_saved_retriever_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("skops.io")
    X, y = aligned(0, 60)
    model = CrossModalRetriever(time_budget=0, random_state=0).fit(X, y)
    model.save(tmp_path / "model.skops")
    again = CrossModalRetriever.load(tmp_path / "model.skops")
    np.testing.assert_array_equal(again.similarity(X, y), model.similarity(X, y))
    assert again.results_.equals(model.results_)
    skops = pytest.importorskip("skops.io")
    skops.dump(CCA(), tmp_path / "other.skops")
    with pytest.raises(ValueError, match="holds a CCA, no CrossModalRetriever"):
        CrossModalRetriever.load(tmp_path / "other.skops")


def test_wrong_parameters_are_named() -> None:
    X, y = aligned(0, 20)
    with pytest.raises(ValueError, match='scoring must be "mrr" or "R@k"'):
        CrossModalRetriever(scoring="accuracy").fit(X, y)
    with pytest.raises(ValueError, match="groups"):
        CrossModalRetriever().fit(X, y, groups=np.arange(3))
    with pytest.raises(ValueError, match="cv=30 folds of 20 rows"):
        CrossModalRetriever(cv=30).fit(X, y)
    with pytest.raises(ValueError, match="queries must be"):
        CrossModalRetriever(time_budget=0).fit(X, y).search(X, y, queries="z")  # type: ignore[arg-type]
    recall = CrossModalRetriever(scoring="R@5", time_budget=0, random_state=0).fit(X, y)
    found = retrieval_report(*recall.embed(X, y)).loc["mean", "R@5"]
    assert recall.score(X, y) == pytest.approx(found)


@pytest.mark.slow
@pytest.mark.parametrize("scoring", ["mrr", "R@1", "r@7"])
def test_rows_that_are_all_the_same_are_at_chance(scoring: str) -> None:
    X, y = np.full((30, 4), 0.1), np.full((30, 4), -3.0)
    model = CrossModalRetriever(scoring=scoring, cv=3, random_state=0).fit(X, y)

    def chance(n: int) -> float:
        found = np.sum(1 / np.arange(1, n + 1)) if scoring == "mrr" else min(int(scoring[2:]), n)
        return float(found / n)

    np.testing.assert_allclose(model.results_["score"], chance(10), rtol=1e-12)
    assert model.score(X[:20], y[:20]) == pytest.approx(chance(20), rel=1e-12)


def test_sparse_rows_are_not_tried_with_kernels() -> None:
    X, y = curved(0, 60)
    model = CrossModalRetriever(cv=2, random_state=0).fit(scipy.sparse.csr_matrix(X), y)
    assert set(model.results_["model"]) == {"CCA"}
    assert model.embed(scipy.sparse.csr_matrix(X[:5])).shape[0] == 5
