"""Rows read by the rules of an estimator, for a search that splits them into folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.base import clone

from cmstats.models.base import MomentsModel, length_of
from cmstats.moments.moments import Moments
from cmstats.rows.dependence import dependence_notes, watched
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.splits import Folds, count_rows, deal

__all__ = ["FoldReader", "candidate_of", "fit_quietly", "open_parameters", "whole_moments"]


class FoldReader:
    """Rows that an estimator has checked, as the moments of folds.

    Widths, names and maps are those of one estimator, for all candidates that share its pass
    over the rows.

    Parameters
    ----------
    estimator : MomentsModel
        Its parameters decide how rows are read; it is cloned.
    X, y, sample_weight
        What its `fit` takes.
    """

    def __init__(self, estimator: MomentsModel, X: Any, y: Any, sample_weight: Any) -> None:
        if estimator._is_stream(X, y):
            raise ValueError(
                "a search does not read batches: pass "
                "fit_moments(Moments.folds_from_batches(batches, cv=5)), or arrays, memory-maps or "
                "shards to fit"
            )
        self.estimator: Any = clone(estimator)
        self.estimator._validate_params()
        before = set(vars(self.estimator))
        check_row_labels({"X": X, "sample_weight": sample_weight})
        blocks = self.estimator._blocks(X, y, reset=True)
        self.labels = blocks.get("y")  # what a stratified splitter goes by
        self.length = length_of(blocks)
        self.given = blocks = watched(blocks)
        self.blocks, self.weights = self.estimator._rows(blocks, sample_weight)
        self.seen = {k: v for k, v in vars(self.estimator).items() if k not in before}
        self.between: list[Moments] = []

    def dealt(self, cv: Any, groups: Any) -> Folds:
        """The folds of the rows."""
        return deal(cv, self.length, y=self.labels, groups=groups, weights=self.weights)

    def dependent(self, folds: Folds) -> list[str]:
        """The sentences about rows, read by now, that depend on rows of other folds."""
        return dependence_notes(self.given, folds, self.weights)

    @property
    def form(self) -> Any:
        """The form of moments that the estimator's `fit` begins with."""
        return self.estimator._form_of(count_rows(self.length, self.weights), self.blocks)

    @property
    def finer_forms(self) -> tuple[str, ...]:
        """The forms in which ill-conditioned rows are to be collected anew."""
        found: tuple[str, ...] = self.estimator._finer_forms() if self.form == "scatter" else ()
        return found

    def folds(self, form: Any, folds: Folds) -> list[Moments]:
        """The moments of the folds, in one pass; those of gaps between them are `between`."""
        every = folds.with_gaps(self.length, self.weights)
        found: list[Moments] = self.estimator._fold_moments(self.blocks, form, self.weights, every)
        self.between = found[folds.count :]
        return found[: folds.count]

    def release(self) -> None:
        """Let go of the rows: models are fitted to moments from now on."""
        self.given, self.blocks, self.labels, self.weights = {}, {}, None, None

    def fit(self, model: Any, parts: Sequence[Moments]) -> list[str]:
        """Fit a model to the moments of these rows; the sentences about degenerate data."""
        new = model._unfitted()
        new.__dict__.update(self.seen)
        notes: list[str] = new._learn(list(parts)) + new._unresolved()
        model._become(new)
        return notes


def whole_moments(model: Any, X: Any, y: Any, sample_weight: Any) -> Moments:
    """The moments of held-out rows, read as a fitted model reads them in `score`."""
    found: Moments = model._score_moments_of(X, y, sample_weight)
    return found


def candidate_of(estimator: Any, parameters: dict[str, Any]) -> Any:
    """An estimator with other parameters, to be fitted to fold moments."""
    return estimator._candidate(**parameters)


def open_parameters(estimator: Any) -> list[str]:
    """The parameters that are to be chosen by cross-validation, as messages name them."""
    return [estimator._as_chosen(name) for name in estimator._open_parameters()]


def fit_quietly(model: Any, moments: Moments) -> list[str]:
    """Fit to moments; the sentences about degenerate data, which are not said yet."""
    model._validate_params()
    new = model._for_moments()
    notes: list[str] = new._fit_parts([moments])
    model._become(new)
    return notes
