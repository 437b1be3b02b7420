"""The choice of the shrinkage and of the similarity, by cross-validation on the training items."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold

from cmstats.arrays import take_rows
from cmstats.metrics.retrieval import retrieval_report
from cmstats.model_selection.search import MomentsSearchCV
from cmstats.models.cca import CCA, Kind
from cmstats.moments.shrinkage import SHRINKAGES
from cmstats.report.tables import cell

__all__ = ["KINDS", "best_pair", "score_kinds", "score_shrinkages"]

KINDS: tuple[Kind, ...] = get_args(Kind)
VALIDATION = 2000
"""Items of a fold on which similarities are compared: time is quadratic in them."""


def score_shrinkages(
    X: Any, Y: Any, folds: KFold
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pairs of shrinkages and their scores in each fold.

    First equal shrinkages of both views, then the neighbours of the best with one of the two
    changed: a coordinate step instead of the whole grid.
    """
    path = list(SHRINKAGES)
    pairs = [(s, s) for s in path]
    scores = _cv_scores(X, Y, pairs, folds)
    best = int(np.nanargmax(_finite_mean(scores)))
    near = [path[i] for i in (best - 1, best + 1) if 0 <= i < len(path)]
    around = [(s, path[best]) for s in near] + [(path[best], s) for s in near]
    scores = np.concatenate([scores, _cv_scores(X, Y, around, folds)])
    return np.array(pairs + around), scores


def _cv_scores(
    X: Any, Y: Any, pairs: list[tuple[float, float]], folds: KFold
) -> npt.NDArray[np.float64]:
    """The held-out mean correlation of each pair in each fold."""
    found = MomentsSearchCV(CCA(), {"shrinkage": pairs}, cv=folds, refit=False).fit(X, Y)
    columns = [found.cv_results_[f"split{k}_test_score"] for k in range(found.n_splits_)]
    return np.stack(columns, axis=1)


def _finite_mean(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over the folds; -1, the least correlation, where the score of a fold is NaN."""
    mean = scores.mean(axis=1)
    return np.asarray(np.where(np.isnan(mean), -1.0, mean))


def best_pair(pairs: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> Any:
    """The pair of shrinkages with the best mean score."""
    return tuple(pairs[int(np.nanargmax(_finite_mean(scores)))])


def score_kinds(X: Any, Y: Any, shrinkage: Any, folds: Any, ids: Any = None) -> dict[Kind, float]:
    """The mean reciprocal rank of each similarity on the held-out folds."""
    found: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for train, test in folds.split(np.empty(X.shape[0])):
        model = CCA(shrinkage=shrinkage).fit(take_rows(X, train), take_rows(Y, train))
        x, y = take_rows(X, test[:VALIDATION]), take_rows(Y, test[:VALIDATION])
        for kind in KINDS:
            own = None if ids is None else ids[test[:VALIDATION]]
            judged = retrieval_report(*model.embed(x, y, kind=kind), ks=[], x_ids=own, y_ids=own)
            found[kind].append(cell(judged, "mean", "MRR"))
    return {kind: float(np.mean(values)) for kind, values in found.items()}
