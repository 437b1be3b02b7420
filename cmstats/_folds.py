"""Scoring a grid of parameters on fold moments: one pass over the data, then d x d algebra."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from cmstats._array import is_numpy, namespace
from cmstats.kernels._threads import share
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
    ill_conditioned = np.zeros(shape, dtype=bool)
    trains = training_moments(folds)

    def run(i: int, k: int) -> bool:
        begin = time.perf_counter()
        _check_training(trains[k], k)
        model = clone(estimator).set_params(**candidates[i]).fit_moments(trains[k])
        fitted = time.perf_counter()
        scores[i, k] = score(model, folds[k]) if score else model.score_moments(folds[k])
        fit_seconds[i, k] = fitted - begin
        score_seconds[i, k] = time.perf_counter() - fitted
        return bool(model._ill_conditioned())

    def work(mine: Iterator[tuple[int, int]]) -> None:
        for i, k in mine:
            ill_conditioned[i, k] = run(i, k)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Matrices of d x d are too small for a threaded BLAS: whole fits share the cores.
        pairs = [(i, k) for k in range(len(folds)) for i in range(len(candidates))]
        share(work, pairs, inline=not is_numpy(namespace(folds[0]._complete.mean)))
    # The same sentence from every fold and candidate is said once.
    for message, category in {(str(w.message), w.category) for w in caught}:
        warnings.warn(f"in cross-validation: {message}", category, stacklevel=3)
    return GridScores(scores, fit_seconds, score_seconds, bool(ill_conditioned.any()))


def _check_training(moments: Moments, k: int) -> None:
    """Estimate what is missing in the training rows of a fold, or say that they are why not."""
    try:
        _ = moments.estimate
    except ValueError as error:
        raise ValueError(
            f"in the rows outside of fold {k}: {error}; what is missing goes with the folds, so "
            "shuffle the rows, or pass cv a splitter that shuffles"
        ) from None


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
