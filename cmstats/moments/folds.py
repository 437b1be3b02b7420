"""Scoring a grid of parameters on fold moments: one pass over the data, then d x d algebra."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import UndefinedMetricWarning

from cmstats.arrays import is_numpy, namespace, once, recorded
from cmstats.kernels.threads import ONE_THREAD, cores, thread_map
from cmstats.moments.missing import NotObservedError, check_observed
from cmstats.moments.moments import Moments
from cmstats.rows.names import naming_columns
from cmstats.rows.progress import progress_bar

__all__ = [
    "GridScores",
    "NoScoreError",
    "Trial",
    "best_index",
    "choice_notes",
    "cross_validated",
    "is_inline",
    "map_moments",
    "mean_scores",
    "merged",
    "scored_by_fold",
    "scored_in_steps",
    "scored_where_observed",
    "simplest_index",
    "training_moments",
]

Result = TypeVar("Result")


@dataclass(frozen=True)
class GridScores:
    """Held-out scores and seconds, each of shape (n_candidates, n_folds).

    `ill_conditioned` is whether the scatter form was too inaccurate for some fit;
    `train_scores` are present on request; `notes` are sentences about degenerate data; `details`
    holds for each candidate what its model reports of a choice. A search that ends early has the
    candidates that were scored.
    """

    scores: np.ndarray[Any, Any]
    fit_seconds: np.ndarray[Any, Any]
    score_seconds: np.ndarray[Any, Any]
    ill_conditioned: bool
    train_scores: np.ndarray[Any, Any] | None = None
    notes: tuple[str, ...] = ()
    details: Sequence[Any] = ()

    @classmethod
    def joined(cls, parts: Sequence[tuple[Sequence[int], GridScores]]) -> GridScores:
        """Join the scores of parts of the candidates, given with the candidates' numbers."""
        order = np.argsort(np.concatenate([np.asarray(numbers) for numbers, _ in parts]))

        def stacked(name: str) -> Any:
            each = [getattr(found, name) for _, found in parts]
            return None if each[0] is None else np.concatenate(each)[order]

        return cls(
            scores=stacked("scores"),
            fit_seconds=stacked("fit_seconds"),
            score_seconds=stacked("score_seconds"),
            ill_conditioned=any(found.ill_conditioned for _, found in parts),
            train_scores=stacked("train_scores"),
            notes=tuple(dict.fromkeys(note for _, found in parts for note in found.notes)),
        )

    def table(self, candidates: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """scikit-learn's ``cv_results_``."""
        results: dict[str, Any] = {}
        for label, values in (("fit", self.fit_seconds), ("score", self.score_seconds)):
            results[f"mean_{label}_time"] = values.mean(axis=1)
            results[f"std_{label}_time"] = values.std(axis=1)
        for name in dict.fromkeys(name for c in candidates for name in c):
            results[f"param_{name}"] = _column(name, candidates)
        results["params"] = list(candidates)
        results |= _score_columns("test", self.scores)
        mean = results["mean_test_score"]
        worst = np.where(np.isnan(mean), -np.inf, mean)
        results["rank_test_score"] = rankdata(-worst, method="min").astype(np.int32)
        if self.train_scores is not None:
            results |= _score_columns("train", self.train_scores)
        return results


def _score_columns(what: str, scores: np.ndarray[Any, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        f"split{k}_{what}_score": scores[:, k] for k in range(scores.shape[1])
    }
    scored = scores[:, ~np.isnan(scores).all(axis=0)]
    columns[f"mean_{what}_score"] = mean_scores(scores)
    columns[f"std_{what}_score"] = scored.std(axis=1) if scored.size else scores.std(axis=1)
    return columns


def _column(name: str, candidates: Sequence[dict[str, Any]]) -> Any:
    """The values of a parameter, masked where a candidate does not set it."""
    given = [c[name] for c in candidates if name in c]
    plain = all(isinstance(v, (bool, int, float, np.number, np.bool_)) for v in given)
    dtype = np.array(given).dtype if plain else np.dtype(object)
    column = np.ma.MaskedArray(np.empty(len(candidates), dtype=dtype), mask=True)
    for i, c in enumerate(candidates):
        if name in c:
            column[i] = c[name]
    return column


def merged(before: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    """Moments of each fold put together with those of more rows; None is a fold without rows."""
    pairs = itertools.zip_longest(before, new)
    return [b if a is None else (a if b is None else a + b) for a, b in pairs]


def training_moments(folds: Sequence[Moments]) -> Iterator[Moments]:
    """For each fold the merged moments of all others, one after the other.

    Halves of the folds are merged, halves of these, and so on; what is outside of a half is what
    is outside of both, and the other half. That takes about three merges a fold, and only a few
    of the training moments exist at a time. Subtracting a fold from the total would cancel digits
    if that fold had the larger scale.

    Raises
    ------
    ValueError
        If a fold has no row, or a column is never observed in any fold.
    """
    if len(folds) < 2:
        raise ValueError("at least two folds are needed: one is held out")
    empty = [k for k, fold in enumerate(folds) if not fold.n > 0]
    if empty:
        raise ValueError(
            f"fold {empty[0]} has no row of positive weight (folds are counted from 0): use fewer "
            "folds, or groups that leave none empty"
        )
    half = len(folds) // 2
    halves = _halved(folds[:half]), _halved(folds[half:])
    if any(fold.incomplete for fold in folds):
        with naming_columns(folds[0].column_names):
            total = halves[0][0] + halves[1][0]
            check_observed(total.sums_by_pattern(), total.names, total.widths)
    return _outside(halves, None)


def _halved(folds: Sequence[Moments]) -> tuple[Moments, Any]:
    """A binary tree of merged folds: the moments of all of them, and the trees of both halves."""
    if len(folds) == 1:
        return folds[0], None
    half = len(folds) // 2
    left, right = _halved(folds[:half]), _halved(folds[half:])
    return left[0] + right[0], (left, right)


def _outside(halves: Any, rest: Moments | None) -> Iterator[Moments]:
    """The training moments of each fold of a tree; `rest` are the folds outside of the tree."""
    for (_, inner), (other, _) in (halves, halves[::-1]):
        train = other if rest is None else rest + other
        if inner is None:
            yield train
        else:
            yield from _outside(inner, train)


def map_moments(
    function: Callable[[int, Moments], Result], moments: Iterable[Moments]
) -> list[Result]:
    """The results of a function of the number and the moments, for each of those in turn.

    Matrices of d x d are too small for a threaded BLAS: whole calls share the cores. Of moments
    that are made one after the other a few for each core exist at a time.
    """
    numbered: Iterator[tuple[int, Moments]] = enumerate(moments)
    first = next(numbered, None)
    if first is None:
        return []
    numbered = itertools.chain([first], numbered)
    # Small fits start no thread, and do not ask how many there could be.
    if is_inline(first[1]):
        return [function(*pair) for pair in numbered]
    found: list[Result] = []
    while batch := list(itertools.islice(numbered, 4 * cores())):
        found += thread_map(lambda pair: function(*pair), batch)
    return found


def is_inline(moments: Moments) -> bool:
    """Whether the algebra of moments is too small to share among threads, or on a device."""
    return sum(moments.widths) <= ONE_THREAD or not is_numpy(namespace(moments.like))


def _light(folds: Sequence[Moments]) -> list[Moments]:
    """Folds without Ledoit-Wolf's norms, which cost more to merge than all else."""
    return [fold.without_norms() for fold in folds]


@dataclass(frozen=True)
class Trial:
    """A model fitted to the training moments of a fold.

    Attributes
    ----------
    model : object
        What is scored.
    notes : sequence of str
        Sentences about degenerate data.
    ill_conditioned : bool
        Whether the scatter form was not good enough.
    """

    model: Any
    notes: Sequence[str] = ()
    ill_conditioned: bool = False


def cross_validated(
    fit: Callable[[int, Moments], Trial],
    score: Callable[[Any, Moments], float],
    candidates: int,
    folds: Sequence[Moments],
    *,
    train_scores: bool = False,
    verbose: Any = False,
) -> GridScores:
    """Fit each candidate to each fold's training moments, and score it on the fold.

    Parameters
    ----------
    fit : callable (number of the candidate, training moments) -> Trial
    score : callable (model, test moments) -> float
    candidates : int
        How many there are.
    folds : sequence of Moments
    train_scores : bool, default=False
        Whether to score each model on the moments it was fitted to, too.
    verbose : bool or int, default=False
        Show a progress bar.
    """
    shape = (candidates, len(folds))
    scores, fit_seconds, score_seconds = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
    on_training = np.full(shape, np.nan) if train_scores else None
    ill_conditioned = np.zeros(shape, dtype=bool)

    said: list[str] = []

    def run(number: int, train: Moments) -> None:
        k, i = divmod(number, candidates)
        scored_where_observed(lambda: of_candidate(k, i, train), k, train, said)

    def of_candidate(k: int, i: int, train: Moments) -> None:
        begin = time.perf_counter()
        trial = fit(i, train)
        fitted = time.perf_counter()
        scores[i, k] = score(trial.model, folds[k])
        fit_seconds[i, k] = fitted - begin
        score_seconds[i, k] = time.perf_counter() - fitted
        if on_training is not None:
            on_training[i, k] = score(trial.model, train)
        ill_conditioned[i, k] = trial.ill_conditioned
        said.extend(trial.notes)

    trains = (m for m in training_moments(folds) for _ in range(candidates))
    bar = progress_bar(verbose, "fits", "fit", items=trains, total=candidates * len(folds))
    with recorded() as caught, bar:
        map_moments(run, bar)
    # A sentence is reported once for all folds and candidates; `choice_notes` reports the folds
    # without a score.
    said += [message for message, kind in caught if not issubclass(kind, UndefinedMetricWarning)]
    ill = bool(ill_conditioned.any())
    return GridScores(scores, fit_seconds, score_seconds, ill, on_training, _once(said))


def scored_by_fold(
    score: Callable[[int, Moments], Iterable[float]],
    candidates: int,
    folds: Sequence[Moments],
) -> GridScores:
    """Score all candidates on each fold at once, where they share the work on its training rows.

    Parameters
    ----------
    score : callable (number of the fold, its training moments) -> the score of each candidate
    candidates : int
        How many there are.
    folds : sequence of Moments
    """
    scores, seconds = np.full((candidates, len(folds)), np.nan), np.zeros((candidates, len(folds)))

    said: list[str] = []

    def run(k: int, train: Moments) -> None:
        begin = time.perf_counter()

        def work() -> Any:
            return np.fromiter(score(k, train), dtype=np.float64, count=candidates)

        found = scored_where_observed(work, k, train, said)
        scores[:, k] = np.nan if found is None else found
        seconds[:, k] = (time.perf_counter() - begin) / candidates

    with recorded() as caught:
        map_moments(run, training_moments(_light(folds)))
    notes = _once(said + [message for message, _ in caught])
    return GridScores(scores, seconds, np.zeros_like(seconds), ill_conditioned=False, notes=notes)


def scored_in_steps(
    score: Callable[[int, Moments], Iterator[float]], candidates: int, folds: Sequence[Moments]
) -> GridScores:
    """Score one candidate after the other on all folds, until the mean score stops rising.

    Candidates are ordered from the simplest, and each costs more than the one before: the first
    are scored up to the third in a row that raises the best mean by no more than a tenth of its
    standard error.

    Returns
    -------
    GridScores
        Of the candidates that were scored.
    """
    # All folds go on together, so that all of their training moments are kept.
    trains = list(training_moments(_light(folds)))
    scores = np.full((candidates, len(folds)), np.nan)
    seconds = np.zeros_like(scores)
    said: list[str] = []
    with recorded() as caught:
        paths = [score(k, train) for k, train in enumerate(trains)]
        for i in range(candidates):

            def run(k: int, train: Moments, i: int = i) -> None:
                begin = time.perf_counter()
                found = scored_where_observed(lambda: next(paths[k]), k, train, said)
                if found is None:
                    paths[k] = itertools.repeat(np.nan)
                scores[i, k] = np.nan if found is None else found
                seconds[i, k] = time.perf_counter() - begin

            map_moments(run, trains)
            if _settled(scores[: i + 1]):
                break
    said += [m for m, kind in caught if not issubclass(kind, UndefinedMetricWarning)]
    notes = _once(said)
    scores, seconds = scores[: i + 1], seconds[: i + 1]
    return GridScores(scores, seconds, np.zeros_like(seconds), ill_conditioned=False, notes=notes)


def _settled(scores: np.ndarray[Any, Any]) -> bool:
    """Whether the last three candidates raise the best mean by no more than a tenth of its error.

    More candidates can then change the choice by one standard error by that tenth only.
    """
    if len(scores) < 4 or np.isnan(scores).all():
        return False
    means = np.nan_to_num(mean_scores(scores), nan=-np.inf)
    return bool(means[-3:].max() <= means[:-3].max() + 0.1 * _standard_error(scores))


def _once(said: Iterable[str]) -> tuple[str, ...]:
    """Each sentence of folds and candidates once, as one of the cross-validation."""
    return tuple(f"in cross-validation: {note}" for note, _ in once((s, None) for s in said))


def scored_where_observed(
    score: Callable[[], Result], k: int, train: Moments, said: list[str]
) -> Result | None:
    """The score of a fold; None where its rows, or all others, lack what it needs.

    Parameters
    ----------
    score : callable
    k : int
        The number of the fold.
    train : Moments
        Of the rows outside of it.
    said : list of str
        Takes the sentence about what they lack.
    """
    where = f"in the rows outside of fold {k}"
    try:
        _ = train.estimate
        where = f"in fold {k}"
        return score()
    except NotObservedError as error:
        said.append(f"{where} {error.fact}, so that the fold has no score")
        return None


def mean_scores(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean score of each candidate over the folds in which some candidate has a score.

    A candidate that lacks one of these is NaN, unless all do: then those that lack the fewest
    have the mean of what they have.

    Parameters
    ----------
    scores : array of shape (n_candidates, n_folds)
        NaN where a fold could not be scored: it is too small, or a variate is constant in it.
    """
    missing = np.isnan(scores)
    lost = (missing & ~missing.all(axis=0)).sum(axis=1)
    count = (~missing).sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean = np.where(missing, 0.0, scores).sum(axis=1) / np.maximum(count, 1)
    return np.where((lost == lost.min()) & (count > 0), mean, np.nan)


class NoScoreError(ValueError):
    """No fold has a score to choose by; more rows may give it one."""

    def __init__(self, notes: Sequence[str] = ()) -> None:
        """`notes` are what is known of the folds."""
        reason = "each has a single row, or a variate is constant in it"
        super().__init__(
            f"no fold has a score to choose by: {notes[0] if notes else reason}; use fewer folds, "
            "or folds in random order (KFold(5, shuffle=True)), or give the parameter as a number"
        )


def best_index(scores: np.ndarray[Any, Any], notes: Sequence[str] = ()) -> int:
    """The candidate of the best mean score (`mean_scores`).

    Raises
    ------
    NoScoreError
        If there is no score at all.
    """
    if np.isnan(scores).all():
        raise NoScoreError(notes)
    return int(np.nanargmax(mean_scores(scores)))


def _standard_error(scores: np.ndarray[Any, Any]) -> float:
    """The standard error of the mean score of the best candidate; 0 of one fold."""
    best = scores[best_index(scores)]
    best = best[~np.isnan(best)]
    return float(best.std(ddof=1) / len(best) ** 0.5) if len(best) > 1 else 0.0


def simplest_index(scores: np.ndarray[Any, Any], notes: Sequence[str] = ()) -> int:
    """The first candidate whose mean score is within one standard error of the best.

    The rule of Breiman et al. (1984), for candidates that are ordered from the simplest.
    """
    means = mean_scores(scores)
    least = means[best_index(scores, notes)] - _standard_error(scores)
    return int(np.flatnonzero(means >= least)[0])


def choice_notes(
    scores: np.ndarray[Any, Any], candidates: Sequence[dict[str, Any]], best: int
) -> list[str]:
    """Sentences about folds without a score, and about a best value at an edge of its grid."""
    found = []
    without = np.isnan(scores).all(axis=0)
    if without.any():
        at = ", ".join(map(str, np.flatnonzero(without)[:5]))
        found.append(
            f"{int(without.sum())} of {len(without)} folds (counted from 0: {at}) have no score, "
            "since they have a single row, a variate is constant in them, or a column is NaN in "
            "them or in all others: the choice is made on the other folds; fewer folds, or a "
            "splitter that stratifies or shuffles, would use all rows"
        )
    for name, value in candidates[best].items():
        inner = _inner_neighbour(name, best, candidates)
        if inner is None or not _rises(scores[best] - scores[inner], mean_scores(scores)):
            continue
        side = "largest" if _magnitude(value) > _magnitude(candidates[inner][name]) else "smallest"
        found.append(
            f"{name}={value!r} is the {side} of its grid, and the held-out score still rises "
            f"towards it: {'larger' if side == 'largest' else 'smaller'} values may be better"
        )
    return found


def _magnitude(value: Any) -> float:
    """A parameter's value as one number: the largest of several; NaN if it is not numeric."""
    values = value if isinstance(value, tuple) else (value,)
    whole = all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in values)
    return float(max(values)) if whole and values else np.nan


def _inner_neighbour(name: str, best: int, candidates: Sequence[dict[str, Any]]) -> int | None:
    """The candidate one step inside, where the best is at an edge of the grid of a parameter."""
    others = {k: v for k, v in candidates[best].items() if k != name}
    line = [
        i for i, c in enumerate(candidates)
        if name in c and {k: v for k, v in c.items() if k != name} == others
    ]  # fmt: skip
    values = np.array([_magnitude(candidates[i][name]) for i in line])
    order = np.argsort(values)
    # Numbers of components or of ranks, and 0 and 1, are bounds and no edges.
    if len(line) < 3 or np.isnan(values).any() or name.endswith(("n_components", "rank")):
        return None
    place = int(np.flatnonzero(np.array(line)[order] == best)[0])
    if values[order[place]] in (0.0, 1.0) or place not in (0, len(line) - 1):
        return None
    return int(line[order[1 if place == 0 else -2]])


def _rises(step: np.ndarray[Any, Any], means: np.ndarray[Any, Any]) -> bool:
    """Whether a step to the edge is more than its standard error, and than 1% of all steps."""
    step = step[~np.isnan(step)]
    if len(step) < 2:
        return False
    error = step.std(ddof=1) / len(step) ** 0.5
    return bool(step.mean() > max(error, 0.01 * (np.nanmax(means) - np.nanmin(means))))
