"""Deep baselines and ASIF against CCA: retrieval on paired sets, correlation on MNIST halves."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks._data import Split, available
from benchmarks._measure import Rows, seconds
from cmstats import CCA, load_mnist_halves, retrieval_report
from cmstats.baselines import ASIF, ContrastiveAligner, DeepCCA
from cmstats.metrics import total_correlation_scorer
from cmstats.models.kernel_cca import KernelCCA

MNIST_COMPONENTS = 50


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    for name, load in available(quick=quick).items():
        splits = [load(seed) for seed in range(1 if quick else 5)]
        for label, make in models(quick).items():
            yield {f"{name}: {label}": _retrieval(make, splits)}
    try:
        halves = load_halves(500 if quick else None)
    except FileNotFoundError as error:
        yield {"not run: MNIST halves": {"note": str(error)}}
    else:
        yield from _halves(*halves, quick)


def models(quick: bool) -> dict[str, Callable[[int], Any]]:
    """The models that are compared, with a seed; without torch only those that do not need it."""
    out: dict[str, Callable[[int], Any]] = {
        "CCA": lambda seed: CCA(shrinkage="cv"),
        "ASIF": lambda seed: ASIF(random_state=seed),
    }
    if importlib.util.find_spec("torch") is None:
        return out
    epochs, k = ({"max_epochs": 2}, 8) if quick else ({}, 50)
    return out | {
        "ContrastiveAligner, linear": lambda seed: ContrastiveAligner(random_state=seed, **epochs),
        "ContrastiveAligner, 512 hidden": lambda seed: ContrastiveAligner(
            hidden=(512,), random_state=seed, **epochs
        ),
        f"DeepCCA, {k} components": lambda seed: DeepCCA(
            k, monitor="retrieval", random_state=seed, **epochs
        ),
    }


def _retrieval(make: Callable[[int], Any], splits: list[Split]) -> dict[str, Any]:
    """Retrieval of the test items: means over splits, and the standard error of R@10."""
    rows, fit, query = [], [], []
    for seed, split in enumerate(splits):
        model = make(seed)
        fit.append(seconds(lambda: model.fit(split.x, split.y)))  # noqa: B023
        query.append(seconds(lambda: model.embed(split.x_test, split.y_test)))  # noqa: B023
        U, V = model.embed(split.x_test, split.y_test)
        rows.append(retrieval_report(U, V, labels=split.labels_test).loc["mean"])
    recalls = [row["R@10"] for row in rows]
    error = float(np.std(recalls, ddof=1) / len(rows) ** 0.5) if len(rows) > 1 else float("nan")
    return {
        **{key: float(np.mean([row[key] for row in rows])) for key in ("R@1", "R@10")},
        "R@10_standard_error": error,
        **{key: float(np.mean([row[key] for row in rows])) for key in ("MRR", "mAP")},
        "fit_seconds": float(np.median(fit)),
        "query_seconds": float(np.median(query)),
        **({"parameters": model.n_parameters_} if hasattr(model, "n_parameters_") else {}),
        "note": f"{len(rows)} splits; mAP by label; seconds are of one split",
    }


def load_halves(n: int | None) -> tuple[Any, ...]:
    """Left and right halves of the MNIST images: training and test views."""
    data = load_mnist_halves()
    x, y = data.left_train[:n], data.right_train[:n]
    return x, y, data.left_test, data.right_test


def _halves(X: Any, Y: Any, X_test: Any, Y_test: Any, quick: bool) -> Iterator[Rows]:
    """The sum of test correlations; DeepCCA in the time of KernelCCA, and in ten times that."""
    k, rank = (10, 50) if quick else (MNIST_COMPONENTS, 1000)
    name = f"MNIST halves, {len(X)} training rows, {k} components"

    def row(model: Any) -> dict[str, Any]:
        spent = seconds(lambda: model.fit(X, Y))
        total = total_correlation_scorer(model, X_test, Y_test)
        return {"total_correlation": total, "fit_seconds": spent}

    kernel = KernelCCA(k, approximation="nystroem", rank=rank, shrinkage=1e-3, random_state=0)
    yield {f"{name}: CCA": row(CCA(k, shrinkage=1e-3))}
    classical = row(kernel)
    yield {f"{name}: KernelCCA, rank {rank}": classical}
    if importlib.util.find_spec("torch") is None:
        return

    def deep(epochs: int) -> Any:
        return DeepCCA(
            k, hidden=(64 if quick else 1024,), refit=False, max_epochs=epochs, random_state=0
        )

    deep(1).fit(X[:2000], Y[:2000])  # loads torch
    epoch = (seconds(lambda: deep(3).fit(X, Y)) - seconds(lambda: deep(1).fit(X, Y))) / 2
    budget = classical["fit_seconds"]
    for times in (1,) if quick else (1, 10):
        epochs = max(1, round(times * budget / max(epoch, 1e-3)))
        found = row(model := deep(min(epochs, 3) if quick else epochs))
        found["parameters"] = model.n_parameters_
        found["note"] = f"{model.n_iter_} epochs, stopped early where that is less than {epochs}"
        yield {f"{name}: DeepCCA, {times} x the time of KernelCCA": found}
