"""Ties in retrieval are worth their expectation in random order: references by enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from cmstats import retrieval_report
from cmstats.kernels.ranks import average_precisions
from cmstats.metrics import (
    mean_average_precision,
    mean_reciprocal_rank,
    median_rank,
    recall_at_k,
    retrieval_chance,
)
from cmstats.models.scoring import retrieval_quality


def orders(scores: Any) -> Any:
    """All rankings of the candidates that the scores allow, each equally likely."""
    values = sorted(set(scores.tolist()), reverse=True)
    runs = [itertools.permutations(np.flatnonzero(scores == v).tolist()) for v in values]
    for parts in itertools.product(*[list(run) for run in runs]):
        yield list(itertools.chain(*parts))


def by_enumeration(scores: Any, relevant: Any, ks: Any) -> dict[str, float]:
    """As a judge of one ranking after the other (trec_eval's definitions)."""
    found: dict[str, list[float]] = {}
    for order in orders(scores):
        hits = relevant[order]
        first = int(np.argmax(hits)) + 1
        for k in ks:
            found.setdefault(f"R@{k}", []).append(float(first <= k))
        found.setdefault("MRR", []).append(1 / first)
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        found.setdefault("mAP", []).append(float(precision[hits].mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize("seed", range(6))
def test_a_table_is_the_mean_over_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (6, 7)).astype(float)
    x_ids, y_ids = rng.integers(0, 3, 6), np.concatenate([[0, 1, 2], rng.integers(0, 3, 4)])
    ks = (1, 2, 5)
    each = [by_enumeration(scores[i], y_ids == x_ids[i], ks) for i in range(6)]
    found = retrieval_report(scores, x_ids=x_ids, y_ids=y_ids, ks=ks).loc["x -> y"]
    for name in each[0]:
        assert found[name] == pytest.approx(np.mean([e[name] for e in each]), abs=1e-12)
    assert recall_at_k(scores, k=2, x_ids=x_ids, y_ids=y_ids) == pytest.approx(found["R@2"])
    assert mean_reciprocal_rank(scores, x_ids=x_ids, y_ids=y_ids) == pytest.approx(found["MRR"])
    assert mean_average_precision(scores, x_ids=x_ids, y_ids=y_ids) == pytest.approx(found["mAP"])


@pytest.mark.torch
def test_average_precision_is_that_of_the_reference_for_arrays_of_torch() -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (20, 33)).astype(float)
    ids = {"x_ids": rng.integers(0, 4, 20), "y_ids": rng.integers(0, 4, 33)}
    found = average_precisions(torch.asarray(scores), **ids)
    np.testing.assert_allclose(found.numpy(), average_precisions(scores, **ids), rtol=1e-12)
    square = scores[:, :20]
    np.testing.assert_allclose(
        average_precisions(torch.asarray(square)).numpy(), average_precisions(square), rtol=1e-12
    )


@pytest.mark.parametrize(
    "ids",
    [
        {},
        {"labels": np.arange(10) % 3},
        {"x_ids": np.arange(10), "y_ids": np.repeat(np.arange(10), 3)},
        {"x_ids": np.repeat(np.arange(4), [1, 2, 3, 4]), "y_ids": np.arange(10) % 4},
    ],
)
def test_constant_scores_are_at_chance_in_every_column(ids: Any) -> None:
    m = len(ids.get("y_ids", range(10)))
    found = retrieval_report(np.ones((10, m)), ks=(1, 5, 6), **ids)
    expected = retrieval_chance(10, m, ks=(1, 5, 6), **ids)
    np.testing.assert_allclose(found.to_numpy(float), expected.to_numpy(float), atol=1e-12)


@pytest.mark.parametrize("metric", ["MRR", "R@1", "R@10", "median_rank", "mAP"])
def test_one_metric_of_ties_is_that_of_the_table(metric: str) -> None:
    scores = np.random.default_rng(0).integers(0, 4, (40, 40)).astype(float)
    for ties in (scores, np.ones((40, 40))):
        expected = retrieval_report(ties, labels=np.arange(40)).loc["mean", metric]
        found = retrieval_quality(metric.lower(), np.full(40, 2.0), ties)
        assert found == pytest.approx((-1 if metric == "median_rank" else 1) * expected, rel=1e-12)


def test_items_that_occur_twice_share_the_first_place() -> None:
    rows = np.repeat(np.eye(8), 2, axis=0)
    found = retrieval_report(rows, rows, ks=(1, 2)).loc["mean"]
    assert found[["R@1", "R@2", "median_rank", "MRR", "mAP"]].tolist() == pytest.approx(
        [0.5, 1.0, 1.5, 0.75, 0.75]
    )


def test_without_ties_nothing_changes() -> None:
    scores = np.random.default_rng(0).normal(size=(30, 30))
    ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
    assert recall_at_k(scores, k=5) == np.mean(ranks <= 5)
    assert mean_reciprocal_rank(scores) == np.mean(1 / ranks)
    assert median_rank(scores) == np.median(ranks)
    found = [recall_at_k(np.ones((10, 10)), k=k) for k in (5, 6)]
    assert found == pytest.approx([0.5, 0.6])
