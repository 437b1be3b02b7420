"""Fusion of two views: held-out classification and clustering."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._data import Split, emoji, wikipedia
from benchmarks._measure import Rows
from cmstats import CCA, ConditionalGaussian, LinearAutoencoder


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    sets: dict[str, Any] = {"emoji groups": (emoji, 40)}
    try:
        wikipedia(0)
        sets["wikipedia categories"] = (wikipedia, 9)
    except FileNotFoundError:
        pass
    for name, (load, k) in sets.items():
        if quick and not name.startswith("emoji"):
            continue
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(1 if quick else 3):
            split = load(seed).few() if quick else load(seed)
            for fusion, (train, test) in _fusions(split, k):
                found.setdefault(fusion, []).append(_judge(train, test, split, seed))
        for fusion, values in found.items():
            accuracy, rand = np.mean(values, axis=0)
            row = {"accuracy": float(accuracy), "adjusted_rand": float(rand), "splits": len(values)}
            yield {f"{name}: {fusion}": row}


def _fusions(s: Split, k: int) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Named pairs of (training, test) representations of the items."""
    for name, model in {
        f"fuse, CCA({k})": CCA(k, shrinkage="cv"),
        f"fuse, ConditionalGaussian(rank={k})": ConditionalGaussian(rank=k),
        f"fuse, LinearAutoencoder({k}, target='joint')": LinearAutoencoder(k, target="joint"),
    }.items():
        model.fit(s.x, s.y)
        yield name, (model.fuse(s.x, s.y), model.fuse(s.x_test, s.y_test))
        if name.startswith("fuse, CCA"):
            u, v = model.transform(s.x, s.y)
            u_test, v_test = model.transform(s.x_test, s.y_test)
            yield f"plain sum of variates, CCA({k})", (u + v, u_test + v_test)
            r = model.correlations_
            yield (
                f"sum of variates weighted by their correlations, CCA({k})",
                (r * (u + v), r * (u_test + v_test)),
            )
            yield "x alone, fuse of CCA", (model.fuse(s.x), model.fuse(s.x_test))
            yield "y alone, fuse of CCA", (model.fuse(y=s.y), model.fuse(y=s.y_test))
    a, b = (StandardScaler().fit(view) for view in (s.x, s.y))
    both = [
        np.concatenate([a.transform(x), b.transform(y)], axis=1)
        for x, y in ((s.x, s.y), (s.x_test, s.y_test))
    ]
    yield "concatenation of the standardised views", (both[0], both[1])


def _judge(train: Any, test: Any, s: Split, seed: int) -> tuple[float, float]:
    """Test accuracy of a logistic regression, adjusted Rand index of k-means on the test items."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    accuracy = float(classifier.fit(train, s.labels).score(test, s.labels_test))
    clusters = KMeans(len(np.unique(s.labels)), n_init=10, random_state=seed).fit_predict(test)
    return accuracy, float(adjusted_rand_score(s.labels_test, clusters))
