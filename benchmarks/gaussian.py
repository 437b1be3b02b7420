"""Conditional Gaussian: calibration, retrieval by likelihood ratio, mismatched pairs, speed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.stats
from sklearn.metrics import roc_auc_score

from benchmarks._data import available
from benchmarks._measure import Rows, ratio, seconds
from benchmarks.cca import pairs
from cmstats import CCA, ConditionalGaussian, retrieval_report


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    for name, split in available(quick=quick).items():
        if quick and name != "emoji":
            continue
        rows = [_one_split(split(seed), seed) for seed in range(1 if quick else 5)]
        for what in rows[0]:
            yield {f"{what}: {name}": _average([row[what] for row in rows])}
    n = 2000 if quick else 20_000
    yield {f"90% intervals, simulated 2000 + {n} x (20, 10)": _simulated_coverage(n)}
    yield _speed(2000 if quick else 100_000)


def _average(rows: list[dict[str, float]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        out[key] = float(np.mean(values))
    out["splits"] = len(rows)
    return out


def _one_split(s: Any, seed: int) -> dict[str, dict[str, float]]:
    g = ConditionalGaussian().fit(s.x, s.y)
    cca = CCA(shrinkage=g.shrinkage_).fit(s.x, s.y)
    retrieval: dict[str, float] = {"shrinkage": g.shrinkage_[0]}
    for name, (u, v) in {
        "likelihood_ratio": g.embed(s.x_test, s.y_test),
        "weighted_cosine": cca.embed(s.x_test, s.y_test),
        "cosine": cca.embed(s.x_test, s.y_test, kind="cosine"),
        "cosine_of_weighted_variates": _weighted_variates(cca, s),
    }.items():
        retrieval[f"R@10_{name}"] = float(retrieval_report(u, v).loc["mean", "R@10"])
        by_label = retrieval_report(u, v, labels=s.labels_test)
        retrieval[f"mAP_{name}"] = float(by_label.loc["mean", "mAP"])
    mean, std = g.predict(s.x_test, return_std=True)
    inside = np.abs(s.y_test - mean) <= scipy.stats.norm.ppf(0.95) * std
    return {
        "retrieval": retrieval,
        "mismatched pairs (AUROC, 20% of test pairs shuffled)": _mismatch(g, cca, s, seed),
        "90% intervals": {
            "covered": float(inside.mean()),
            "log_density_per_target": float(g.score(s.x_test, s.y_test) / s.y_test.shape[1]),
        },
    }


def _weighted_variates(cca: CCA, s: Any) -> list[Any]:
    """Unit vectors of the variates times the singular values, not in canonical coordinates."""
    weighted = [a * cca.singular_values_ for a in cca.transform(s.x_test, s.y_test)]
    return [a / np.linalg.norm(a, axis=1, keepdims=True) for a in weighted]


def _mismatch(g: ConditionalGaussian, cca: CCA, s: Any, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    n = len(s.x_test)
    wrong = rng.permutation(n)[: n // 5]
    y = s.y_test.copy()
    y[wrong] = y[np.roll(wrong, 1)]
    truth = np.isin(np.arange(n), wrong)

    def cosine(kind: Any) -> Any:
        u, v = cca.embed(s.x_test, y, kind=kind)
        return -np.sum(u * v, axis=1)

    return {
        "outlier_scores": float(roc_auc_score(truth, g.outlier_scores(s.x_test, y))),
        "minus_log_density": float(roc_auc_score(truth, -g.logpdf(s.x_test, y))),
        "cosine_of_CCA": float(roc_auc_score(truth, cosine("cosine"))),
        "weighted_cosine_of_CCA": float(roc_auc_score(truth, cosine("weighted_cosine"))),
    }


def _simulated_coverage(n: int) -> dict[str, Any]:
    X, Y = pairs(2000 + n, 20, 10)
    g = ConditionalGaussian().fit(X[:2000], Y[:2000])
    mean, std = g.predict(X[2000:], return_std=True)
    inside = np.abs(Y[2000:] - mean) <= scipy.stats.norm.ppf(0.95) * std
    each = inside.mean(axis=0)
    return {
        "covered": float(inside.mean()),
        "least": float(each.min()),
        "most": float(each.max()),
        "note": "bar: 88 to 92%",
    }


def _speed(n: int) -> dict[str, Any]:
    X, Y = pairs(n, 64, 32)
    g = ConditionalGaussian(shrinkage=0.1).fit(X, Y)
    S = g.covariance_

    def by_scipy() -> Any:
        return scipy.stats.multivariate_normal(np.zeros(32), S).logpdf(Y - g.predict(X))

    row: dict[str, Any] = ratio(lambda: g.logpdf(X, Y), by_scipy)
    row["note"] = "log p(y | x) of every row, against SciPy on the same residuals"
    out = {f"log-density, {n} x (64, 32) / scipy": row}
    try:
        from gmr import MVN
    except ImportError:
        return out
    few = min(n, 2000)
    joint = MVN(g.joint_.mean, g.joint_.covariance, random_state=0)
    theirs = seconds(lambda: joint.predict(np.arange(64), X[:few]))
    ours = min(seconds(lambda: g.predict(X[:few])) for _ in range(3))
    high = MVN(np.zeros(1000), 0.01 * np.eye(1000))
    with np.errstate(all="ignore"):
        density = float(np.squeeze(high.to_probability_density(np.zeros((1, 1000)))))
    out[f"gmr MVN.predict / predict, {few} x (64, 32)"] = {
        "seconds": ours,
        "peer_seconds": theirs,
        "times_faster": theirs / ours,
        "gmr_density_at_d_1000": str(density),
        "note": "and gmr's density of 1000 dimensions of standard deviation 0.1 at the mean",
    }
    return out
