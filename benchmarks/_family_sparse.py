"""SparseCCA against the sparse models of cca-zoo: what is selected, and the whole path in seconds.

Two pairs, each of five columns of x and of y, among correlated columns. Every model gets the same
folds and about as many penalties. "eccar" takes its weights from a CCA of the selected columns and
chooses by the best mean held-out correlation of these (``relax=True``); all others, "eccar,
penalised" among them, take the sparsest model whose mean is within one standard error of the best.
One more row is a CCA of the columns that all folds select at the alpha of "eccar". One set says
little, since a superfluous column changes its F1 by .05: each mean has its standard error over the
sets. cca-zoo's ADMMCCA is left out: its results are those of IPLSCCA, in twice the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks._measure import Rows
from cmstats import CCA, SparseCCA

K = 2
FOLDS = 5
PENALTIES = 15
OWN: list[tuple[str, dict[str, Any], int]] = [
    ("eccar", {}, 3), ("eccar, penalised", {"relax": False}, 1), ("pmd", {"method": "pmd"}, 3),
    ("soft", {"method": "soft"}, 3),
]  # fmt: skip
"""Rows of SparseCCA, their parameters, and of how many fits the seconds are the median."""


def sparse(quick: bool) -> Iterator[Rows]:
    """Support, held-out correlation and seconds, with sparse weights and with sparse loadings."""
    SparseCCA(cv=2).fit(*planted(60, 30, 30, 0)[:2])  # imports and compiled code
    if quick:
        yield _compared("sparse weights", (60, 16, 16), seeds=1, only=("PMDCCA",))
        return
    for kind in ("sparse weights", "sparse loadings"):
        yield _compared(kind, (300, 100, 80), seeds=10)
    yield _compared("sparse weights", (5000, 150, 120), seeds=4, only=("PMDCCA", "IPLSCCA"))


def planted(
    n: int, p: int, q: int, seed: int, kind: str = "sparse weights"
) -> tuple[Any, Any, Any, Any]:
    """Rows of both views, and which columns have a part in a pair.

    Two columns of a view have correlation .6 to the power of their distance. The canonical weights
    are sparse, as most theory has it (Chen et al. 2013), so that all columns near to a selected
    one have loadings; or the loadings are, and what is near to a selected column is noise.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, K))
    views, truths = [], []
    for width in (p, q):
        S = 0.6 ** np.abs(np.subtract.outer(np.arange(width), np.arange(width)))
        U, truth = np.zeros((width, K)), np.zeros(width, dtype=bool)
        for k in range(K):
            at = slice(10 * k, 10 * k + 5)
            U[at, k] = rng.uniform(0.5, 1, 5) * rng.choice([-1, 1], 5)
            truth[at] = True
        U = U @ np.linalg.inv(np.linalg.cholesky(U.T @ S @ U)).T
        P = S @ U if kind == "sparse weights" else U / np.linalg.norm(U, axis=0)
        P = P * np.array([0.9, 0.75]) ** 0.5
        rest = S - P @ P.T if kind == "sparse weights" else S
        noise = rng.normal(size=(n, width)) @ np.linalg.cholesky(rest).T
        views.append(z @ P.T * (1 if kind == "sparse weights" else 2) + noise)
        truths.append(truth)
    return views[0], views[1], truths[0], truths[1]


def f1(found: Any, truth: Any) -> float:
    """The harmonic mean of precision and recall of the selected columns."""
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def _peers() -> dict[str, tuple[Callable[[float], Any], Sequence[float]]]:
    """Models of cca-zoo, each with its penalties from the sparsest."""
    try:
        from cca_zoo.linear import ECCA
        from cca_zoo.sparse import IPLSCCA, PMDCCA, ParkhomenkoCCA
    except ImportError:
        return {}
    # From where all weights are 0 to where nearly all columns are selected.
    alphas = [float(a) for a in np.geomspace(0.6, 0.04, PENALTIES)]
    return {
        "PMDCCA": (lambda a: PMDCCA(K, l1_bound=a), np.linspace(0.1, 0.7, PENALTIES)),
        "ParkhomenkoCCA": (lambda a: ParkhomenkoCCA(K, alpha=a), alphas),
        "IPLSCCA": (lambda a: IPLSCCA(K, alpha=a), alphas),
        "ECCA": (lambda a: ECCA(K, alpha=a), [2 * a for a in alphas]),
    }


def _compared(kind: str, size: tuple[int, int, int], seeds: int, only: Sequence[str] = ()) -> Rows:
    n, p, q = size
    found: dict[str, list[tuple[float, ...]]] = {}
    peers = {name: peer for name, peer in _peers().items() if not only or name in only}
    for seed in range(seeds):
        X, Y, x_true, y_true = planted(n + 5000, p, q, seed, kind)
        train, test = (X[:n], Y[:n]), (X[n:], Y[n:])
        for name, own, times in OWN:
            spent, model = _spent(own, train, times)
            scores = (f1(model.x_support_, x_true), f1(model.y_support_, y_true))
            row = (*scores, model.score(*test), spent)
            found.setdefault(f"SparseCCA {name}", []).append(row)
            if name == "eccar":
                x, y = (a == 1 for a in (model.x_stability_, model.y_stability_))
                score = 0.0
                if x.any() and y.any():
                    score = CCA(K).fit(X[:n, x], Y[:n, y]).score(X[n:, x], Y[n:, y])
                row = (f1(x, x_true), f1(y, y_true), score, spent)
                found.setdefault("SparseCCA eccar, CCA of the columns of all folds", []).append(row)
        for name, (make, penalties) in peers.items():
            row = _of_peer(make, penalties, train, test, (x_true, y_true))
            found.setdefault(f"cca-zoo {name}", []).append(row)
    means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    errors = {name: _standard_errors(rows) for name, rows in found.items()}
    place = f"{kind}, {n} x ({p}, {q})"
    return {
        f"{place}: {name}": {
            "support F1 of x": float(row[0]),
            "support F1 of y": float(row[1]),
            "held-out correlation": float(row[2]),
            **errors[name],
            "seconds": float(row[3]),
            "times of eccar": float(row[3] / means["SparseCCA eccar"][3]),
            "times of pmd": float(row[3] / means["SparseCCA pmd"][3]),
            "times of soft": float(row[3] / means["SparseCCA soft"][3]),
            "note": f"{K} components; seconds on two cores for the whole path, {FOLDS} folds and "
            f"the last fit (of ours the median of three); means of {seeds} sets",
        }
        for name, row in means.items()
    }


def _standard_errors(rows: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """Those of the means of both F1 and of the correlation over several sets."""
    if len(rows) < 2:
        return {}
    names = ("error of F1 of x", "error of F1 of y", "error of the correlation")
    each = np.std(rows, axis=0, ddof=1) / len(rows) ** 0.5
    return {name: float(error) for name, error in zip(names, each, strict=False)}


def _spent(own: dict[str, Any], train: Any, times: int) -> tuple[float, Any]:
    """Seconds, the median of some times, and what was fitted."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        model = SparseCCA(K, cv=FOLDS, **own).fit(*train)
        found.append(time.perf_counter() - begin)
    return float(np.median(found)), model


def _of_peer(
    make: Callable[[float], Any], penalties: Sequence[float], train: Any, test: Any, truths: Any
) -> tuple[float, ...]:
    """The same of a peer, whose path is a fit for each penalty and fold."""
    begin = time.perf_counter()
    fold = np.arange(len(train[0])) % FOLDS
    scores = np.zeros((len(penalties), FOLDS))
    for k in range(FOLDS):
        rows, held = ([v[at] for v in train] for at in (fold != k, fold == k))
        for i, penalty in enumerate(penalties):
            scores[i, k] = _correlation(*_fitted(make(penalty), rows), held)
    means = scores.mean(axis=1)
    best = int(np.argmax(means))
    error = scores[best].std(ddof=1) / FOLDS**0.5
    at = int(np.flatnonzero(means >= means[best] - error)[0])
    model, units = _fitted(make(penalties[at]), train)
    spent = time.perf_counter() - begin
    supports = [(np.abs(w) > 1e-10).any(axis=1) for w in model.weights_]
    scored = (f1(found, truth) for found, truth in zip(supports, truths, strict=True))
    return (*scored, _correlation(model, units, test), spent)


def _fitted(model: Any, views: Any) -> tuple[Any, Any]:
    """A peer fitted to standardised columns, and how these are standardised."""
    units = [(v.mean(axis=0), v.std(axis=0, ddof=1)) for v in views]
    return model.fit(_standardised(views, units)), units


def _standardised(views: Any, units: Any) -> list[Any]:
    return [(v - mean) / deviation for v, (mean, deviation) in zip(views, units, strict=True)]


def _correlation(model: Any, units: Any, views: Any) -> float:
    """The mean correlation of the pairs; a pair of zeros has none."""
    variates = model.transform(_standardised(views, units))
    found = [np.corrcoef(variates[0][:, k], variates[1][:, k])[0, 1] for k in range(K)]
    return float(np.nan_to_num(found).mean())
