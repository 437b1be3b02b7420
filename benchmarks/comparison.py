"""Classical and deep models on the same folds or test items: quality, seconds, memory."""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks._data import available
from benchmarks._measure import Rows
from cmstats import CCA, ConditionalGaussian, CrossModalRetriever, LinearAutoencoder
from cmstats.baselines import ASIF, ContrastiveAligner, DeepCCA
from cmstats.datasets import load_mnist_halves
from cmstats.model_selection.comparison import compare, learning_curves, overtakes
from cmstats.models.kernel_cca import KernelCCA
from cmstats.models.multiview import MultiviewCCA

SHOWN = ("R@10", "median_rank", "mAP", "total_correlation", "fit_seconds", "peak_memory_mb")
COMPONENTS = 50
CORRELATED = ("CCA", "KernelCCA", "MultiviewCCA with labels", "DeepCCA")
"""The models with this number of components: other sums of correlations are not comparable."""


def run(*, quick: bool, only: str = "") -> Iterator[Rows]:
    """All measurements of this suite, or those of the models whose name contains `only`."""
    warnings.simplefilter("ignore")
    for name, load in itertools.islice(available(quick=quick).items(), 1 if quick else None):
        data = load(0)
        X, y = (np.concatenate(v) for v in ((data.x, data.x_test), (data.y, data.y_test)))
        labels = np.concatenate([data.labels, data.labels_test])
        n = len(data.x)
        split = [(np.arange(n), np.arange(n, len(X)))]
        note = f"{len(split[0][0])} pairs, {len(split[0][1])} test items"
        k = min(COMPONENTS, X.shape[1], y.shape[1])
        yield _table(name, _models(k, quick=quick, only=only), X, y, labels, split, note)
    if not quick:
        yield _mnist_halves(only)
    if not only:
        yield _overtaking(quick)


def _models(k: int, *, quick: bool, only: str) -> dict[str, Any]:
    """The classical models, and the deep ones if torch is installed; CCA is compared with."""
    models = {
        "CrossModalRetriever": CrossModalRetriever(
            time_budget=0.0 if quick else None, random_state=0
        ),
        "CCA": CCA(k, shrinkage="auto" if quick else "cv"),
        "KernelCCA": KernelCCA(k, shrinkage=0.1, rank=100 if quick else 1000),
        "ConditionalGaussian": ConditionalGaussian(shrinkage=0.3 if quick else "cv"),
        "MultiviewCCA with labels": MultiviewCCA(k, shrinkage="auto"),
        "LinearAutoencoder(cross)": LinearAutoencoder(k, alpha=0.01, target="cross"),
        "ASIF": ASIF(),
    }
    if importlib.util.find_spec("torch") is not None:
        epochs = {"max_epochs": 3 if quick else 200}
        models["DeepCCA"] = DeepCCA(k, **epochs)
        models["ContrastiveAligner, linear"] = ContrastiveAligner(**epochs)
        models["ContrastiveAligner, MLP"] = ContrastiveAligner(hidden=(512,), **epochs)
    return {name: model for name, model in models.items() if only in name or name == "CCA"}


def _table(
    data: str, models: dict[str, Any], X: Any, y: Any, labels: Any, split: Any, note: str
) -> dict[str, Any]:
    """The rows of `compare`, with the paired difference to CCA."""
    table = compare(
        models, X, y, cv=split, labels=labels, baseline="CCA", metric="MRR", random_state=0
    )
    out = {}
    for name, row in table.iterrows():
        if "error" in table and isinstance(row["error"], str):
            out[f"{data}, {name}"] = {"error": row["error"], "note": note}
            continue
        cells = {c: float(row[c]) for c in SHOWN if c in row and np.isfinite(float(row[c]))}
        if name not in CORRELATED:
            cells.pop("total_correlation", None)
        cells["MRR_minus_CCA"] = float(row["difference"])
        interval = f"95 % interval {row['ci_low']:.3f} to {row['ci_high']:.3f}"
        out[f"{data}, {name}"] = {**cells, "note": f"{note}; {interval}"}
    return out


def _mnist_halves(only: str) -> dict[str, Any]:
    """Left and right halves of digits: the sum of 50 test correlations, as in the papers."""
    try:
        data = load_mnist_halves()
    except FileNotFoundError:
        return {}
    n, m = 6000, 2000
    X, y = (
        np.concatenate([data[f"{side}_train"][:n], data[f"{side}_test"][:m]])
        for side in ("left", "right")
    )
    labels = np.concatenate([data.labels_train[:n], data.labels_test[:m]])
    split = [(np.arange(n), np.arange(n, n + m))]
    models = _models(COMPONENTS, quick=False, only=only)
    models.pop("ASIF", None)  # its codes are as wide as the training set is long
    return _table("MNIST halves", models, X, y, labels, split, f"{n} pairs, {m} test items")


def _overtaking(quick: bool) -> dict[str, Any]:
    """Data efficiency: the number of emoji from which a contrastive head is better than CCA."""
    if importlib.util.find_spec("torch") is None:
        return {}
    data = available(quick=quick)["emoji"](0)
    k = 10 if quick else COMPONENTS
    contrastive = ContrastiveAligner(max_epochs=3 if quick else 200)
    curves = learning_curves(
        {"CCA": CCA(k, shrinkage="auto"), "ContrastiveAligner": contrastive},
        np.concatenate([data.x, data.x_test]),
        np.concatenate([data.y, data.y_test]),
        sizes=[60, 120] if quick else [88, 175, 350, 700, 1400],
        cv=2 if quick else 4,
        random_state=0,
    )
    out = {}
    means = curves[curves["metric"] == "MRR"]
    for n, rows in means.groupby("n"):
        by_model = rows.set_index("model")["mean"]
        out[f"emoji, MRR at n = {n}"] = {str(name): float(v) for name, v in by_model.items()}
    where = overtakes(curves, "ContrastiveAligner", "CCA")
    out["emoji, ContrastiveAligner overtakes CCA"] = {
        "pairs": where if np.isfinite(where) else f"not up to {int(means['n'].max())}"
    }
    return out
