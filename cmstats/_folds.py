"""Scoring a grid of parameters on fold moments: one pass over the data, then d x d algebra."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from cmstats.moments import Moments

__all__ = ["GridScores", "best_index", "grid_scores", "training_moments"]


@dataclass(frozen=True)
class GridScores:
    """Held-out scores and seconds, each of shape (n_candidates, n_folds).

    `ill_conditioned` tells whether the scatter form was not good enough for some fit.
    """

    scores: np.ndarray[Any, Any]
    fit_seconds: np.ndarray[Any, Any]
    score_seconds: np.ndarray[Any, Any]
    ill_conditioned: bool


def training_moments(folds: Sequence[Moments]) -> list[Moments]:
    """For each fold the merged moments of all others.

    By merges from the front and from the back: taking a fold off the total would cancel
    digits where that fold has the larger scale.
    """
    if len(folds) < 2:
        raise ValueError("at least two folds are needed: one is held out")
    front: list[Moments] = [folds[0]]
    back: list[Moments] = [folds[-1]]
    for fold in folds[1:-1]:
        front.append(front[-1] + fold)
    for fold in reversed(folds[1:-1]):
        back.append(back[-1] + fold)
    back.reverse()  # back[i] holds folds i + 1 and later
    inner = [front[i - 1] + back[i] for i in range(1, len(folds) - 1)]
    return [back[0], *inner, front[-1]]


def grid_scores(
    estimator: Any,
    candidates: Sequence[dict[str, Any]],
    folds: Sequence[Moments],
    *,
    score: Callable[[Any, Moments], float] | None = None,
) -> GridScores:
    """Fit each candidate on each fold's training moments, score it on the fold.

    Parameters
    ----------
    estimator : estimator with `fit_moments` and `score_moments`
    candidates : sequence of dict
        The parameters to set.
    folds : sequence of Moments
    score : callable (fitted estimator, test moments) -> float, optional
        By default the estimator's `score_moments`.
    """
    shape = (len(candidates), len(folds))
    scores, fit_seconds, score_seconds = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
    ill = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k, train in enumerate(training_moments(folds)):
            for i, parameters in enumerate(candidates):
                begin = time.perf_counter()
                model = clone(estimator).set_params(**parameters).fit_moments(train)
                fitted = time.perf_counter()
                test = folds[k]
                scores[i, k] = score(model, test) if score else model.score_moments(test)
                fit_seconds[i, k] = fitted - begin
                score_seconds[i, k] = time.perf_counter() - fitted
                ill = ill or bool(model._ill_conditioned())
    # The same sentence from every fold and candidate is said once.
    for message, category in {(str(w.message), w.category) for w in caught}:
        warnings.warn(f"in cross-validation: {message}", category, stacklevel=3)
    return GridScores(scores, fit_seconds, score_seconds, ill)


def best_index(scores: np.ndarray[Any, Any]) -> int:
    """The candidate of the best mean score; candidates with NaN come last.

    Where no candidate could be scored on every fold it is the first, with a warning.
    """
    mean = scores.mean(axis=1)
    if np.isnan(mean).all():
        warnings.warn(
            "no candidate could be scored on every fold, so the first is taken: the folds are "
            "too small, or a variate is constant in one of them; use fewer folds",
            UserWarning,
            stacklevel=3,
        )
        return 0
    return int(np.nanargmax(mean))
