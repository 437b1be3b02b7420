"""The choice of the shrinkage of the correlations, by cross-validation on the training items."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold

from cmstats.model_selection.search import MomentsSearchCV
from cmstats.models.cca import CCA
from cmstats.moments.shrinkage import SHRINKAGES

__all__ = ["best_pair", "score_shrinkages"]


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
