"""Scoring the candidates of a parameter that is "cv", on fold moments or on held-out rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

from cmstats.arrays import Array, to_numpy
from cmstats.kernels.ranks import partner_counts
from cmstats.metrics.retrieval import check_metric, metric_of_ranks
from cmstats.moments.folds import GridScores, cross_validated, scored_by_fold
from cmstats.moments.likelihood_path import LikelihoodPath
from cmstats.moments.moments import Moments
from cmstats.rows.reservoir import KEYS, WEIGHTS, Sample

__all__ = ["Scoring", "retrieval_quality"]

Scorer = Callable[[Any, Moments], float]


def retrieval_quality(metric: str, weights: Any, U: Array, V: Array | None = None) -> float:
    """A retrieval metric of paired rows, the mean of both directions; larger is better.

    Parameters
    ----------
    metric : str
        A name that `check_metric` knows.
    weights : array of shape (n,)
        Of the queries. Each row is one candidate, whatever its weight.
    U, V : arrays of shape (n, d), or a matrix of scores alone

    Returns
    -------
    float
        NaN for fewer than two rows, which no score tells apart.
    """
    if U.shape[0] < 2:
        return float("nan")
    counts = partner_counts(U, V)
    return sum(metric_of_ranks(metric, c, weights) for c in counts) / 2


class Scoring(BaseEstimator):
    """The parameter `scoring`, and the scores of candidates by it."""

    _default_scoring: ClassVar[str] = "correlation"
    _ranked_by: ClassVar[Mapping[str, Any]] = {}
    """How `_vectors` makes the vectors that held-out rows are ranked by."""
    _queries: list[Sample] | None = None
    """The held-out rows of each fold, where they are ranked."""

    def _scoring_of(self, folds: Sequence[Moments] = ()) -> str:
        """The name of the score of candidates on these folds."""
        given = getattr(self, "scoring", None)
        return self._default_scoring if given is None else str(given)

    def _ranks_rows(self) -> bool:
        """Whether candidates are scored on rows, and not on moments."""
        known = ("correlation", "likelihood_ratio")
        return hasattr(self, "scoring") and self._scoring_of() not in known

    def _check_scoring(self) -> None:
        if self._ranks_rows():
            check_metric(self._scoring_of(), also=("correlation", "likelihood_ratio"))

    def _check_rows_for_scoring(self) -> None:
        """Raise where moments cannot be scored as asked for."""
        if self._open_parameters() and self._ranks_rows() and not self._queries:
            raise ValueError(
                f"scoring={self._scoring_of()!r} ranks held-out rows, which moments do not hold: "
                "call fit with rows, or set scoring='likelihood_ratio' or 'correlation'"
            )

    def _enough_to_rank(self) -> bool:
        """Whether each fold has rows to rank, where these are ranked."""
        queries = self._queries or []
        return not self._ranks_rows() or min((len(q[KEYS]) for q in queries), default=0) > 1

    def _choice_score(self, folds: Sequence[Moments]) -> Scorer:
        """The score (model, held-out moments) by which open parameters are chosen."""
        if not hasattr(self, "scoring"):
            return lambda model, moments: self._score(self._held_out(moments), model)
        if self._scoring_of(folds) == "likelihood_ratio":
            return lambda model, moments: model.expected_ratio(self._held_out(moments))
        return lambda model, moments: _mean(model.correlations_on(self._held_out(moments)))

    def _grid_scores(
        self, folds: Sequence[Moments], candidates: Sequence[Mapping[str, Any]]
    ) -> GridScores:
        """The scores of candidates on each fold."""
        scoring = self._scoring_of(folds)
        along = self._along(folds, candidates) if scoring != "correlation" else None
        if self._ranks_rows():
            queries = self._rows_to_rank()
            score: Any = self._ranking_along(queries, along, scoring)
            if along is None:
                score = self._ranking_each(queries, candidates, scoring)
            return scored_by_fold(score, len(candidates), folds)
        if along is not None:
            return scored_by_fold(
                lambda k, train: self._ratio_path(train).expected_ratio(
                    self._held_out(folds[k]), along
                ),
                len(candidates),
                folds,
            )
        return cross_validated(
            lambda i, train: self._trial(train, candidates[i]),
            self._choice_score(folds),
            len(candidates),
            folds,
        )

    def _along(
        self, folds: Sequence[Moments], candidates: Sequence[Mapping[str, Any]]
    ) -> list[float] | None:
        """The shrinkages of candidates that lie on one path of the likelihood ratio, or None."""
        if not self._has_path() or tuple(folds[0].names) != ("x", "y"):
            return None
        by_regression = self._shrink_regressions and self._target == "independent"
        if by_regression and any(fold.incomplete for fold in folds):
            return None
        pairs = [c["shrinkage"] if set(c) == {"shrinkage"} else (0.0, 1.0) for c in candidates]
        return [float(s) for s, _ in pairs] if all(s == t for s, t in pairs) else None

    def _has_path(self) -> bool:
        """Whether rows are compared by the likelihood ratio of the whole joint."""
        return False

    def _ratio_path(self, moments: Moments, *, to_rank: bool = False) -> LikelihoodPath:
        scale = bool(getattr(self, "scale", False))
        how: dict[str, Any] = {"target": self._target, "scale": scale, "to_rank": to_rank}
        return LikelihoodPath.of(self._own(moments), **how)

    def _rows_to_rank(self) -> list[Sample]:
        self._check_rows_for_scoring()
        assert self._queries is not None
        return self._queries

    def _ranking_along(
        self, queries: list[Sample], along: Sequence[float] | None, metric: str
    ) -> Callable[[int, Moments], Iterator[float]]:
        """The metric of a fold's rows at each shrinkage of the path."""

        def score(k: int, train: Moments) -> Iterator[float]:
            rows = queries[k]
            pairs = self._ratio_path(train, to_rank=True).on(rows["x"], rows["y"])
            for s in along or ():
                yield retrieval_quality(metric, rows[WEIGHTS], pairs.at(s))

        return score

    def _ranking_each(
        self, queries: list[Sample], candidates: Sequence[Mapping[str, Any]], metric: str
    ) -> Callable[[int, Moments], Iterator[float]]:
        """The metric of a fold's rows under each candidate's own similarity, over pairs of views.

        Views are compared two by two, and the metric is the mean over these pairs.
        """

        def score(k: int, train: Moments) -> Iterator[float]:
            rows = dict(queries[k])
            weights, _ = rows.pop(WEIGHTS), rows.pop(KEYS)
            for solution in self._solutions(train, candidates):
                vectors = self._vectors_of(solution, rows)
                found = [
                    retrieval_quality(metric, weights, u, v)
                    for u, v in itertools.combinations(vectors, 2)
                ]
                yield sum(found) / len(found)

        return score

    def _solutions(
        self, moments: Moments, candidates: Sequence[Mapping[str, Any]]
    ) -> Iterator[Any]:
        """The solution of each candidate for some training moments."""
        return (self._solved(moments, candidate) for candidate in candidates)

    def _vectors_of(self, solution: Any, rows: Mapping[str, Any]) -> list[Array]:
        """Vectors of rows of each view under a solution; their inner products compare them."""
        model = self._twin()
        model._publish(solution)
        model.n_samples_ = float("nan")  # the mark of a fitted model
        return [
            model._vectors(model._collected(a, view), view, **self._ranked_by)
            for view, a in rows.items()
        ]

    def _collected(self, rows: Any, view: str) -> Array:
        """The coordinates of rows as the moments are taken of them."""
        found: Array = self._coordinates(rows, view)
        return found


def _mean(correlations: Array) -> float:
    return float(to_numpy(correlations).mean())
