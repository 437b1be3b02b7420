"""Fitting in parts: iterables of batches, and batches handed in one at a time."""

from __future__ import annotations

import contextlib
import functools
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from cmstats.arrays import check_weights, is_dask, namespace
from cmstats.moments.collect import Pass
from cmstats.moments.folds import NoScoreError, merged
from cmstats.moments.moments import folds_of_batches
from cmstats.rows.dependence import dependence_notes, remembered
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.reservoir import Sample, merged_samples, sample_folds, sampled_stream
from cmstats.rows.splits import Folds, by_number, check_groups, deal
from cmstats.rows.views import is_stream

__all__ = ["Batches"]


class Batches(BaseEstimator):
    """Fits to streams of batches, and `partial_fit`: both give the model of all rows together."""

    moments_: Any
    _queries: list[Sample] | None
    _groups_seen: Any = None
    _said: tuple[str, ...] = ()
    """The sentences that `partial_fit` has warned with, without their numbers."""
    _naming: Any
    _as_chosen: Any

    def _is_stream(self, X: Any, y: Any) -> bool:
        return is_stream(X, y)

    def _folds_of(
        self, n: int | None, y: Any, groups: Any, sample_weight: Any = None
    ) -> Folds | None:
        """The folds of all rows of a fit; None where nothing is to be chosen."""
        if groups is not None:
            groups = check_groups(groups, n)
        if not self._open_parameters():
            return None
        folds = deal(self.cv, n, y=y, groups=groups, weights=sample_weight)
        self._groups_seen = folds.groups
        return folds

    def _folds_of_more(self, n: int, groups: Any, start: int, sample_weight: Any) -> Folds | None:
        """The folds of rows after `start` others; None where nothing is to be chosen."""
        if groups is not None:
            groups = check_groups(groups, n)
        if not self._open_parameters():
            return None
        if not isinstance(self.cv, (int, np.integer)):
            raise ValueError("partial_fit deals rows to folds by number: cv must be an int")
        seen = self._groups_seen if start else None
        if start and (seen is None) != (groups is None):
            now, before = ("without", "with") if groups is None else ("with", "without")
            raise ValueError(
                f"these rows come {now} groups and those before came {before}: hand partial_fit "
                "the groups of all rows, or of none"
            )
        folds = by_number(int(self.cv), n, groups, start=start, seen=seen, weights=sample_weight)
        self._groups_seen = folds.groups
        return folds

    def _fit_stream(self, source: Iterable[Any], sample_weight: Any, groups: Any) -> list[str]:
        """Fit to batches; in the root form too where these can be read twice and it is needed."""
        if sample_weight is not None:
            raise ValueError(
                "sample_weight goes with arrays, not with batches: merge the Moments of weighted "
                "batches and call fit_moments"
            )
        form = self._first_form(np.inf, 0)
        folds = self._folds_of(None, None, groups)

        first: list[dict[str, Any]] = []

        def collect(form: Any) -> list[Any]:
            batches = self._batches(source)
            if folds is not None:
                first.clear()
                batches = remembered(batches, first)
            if folds is not None and self._ranks_rows():
                self._queries = []
                batches = sampled_stream(batches, folds, self._queries)
            return self._collect_batches(batches, form, folds)

        again = iter(source) is not source
        if again:
            notes: list[str] = self._learn_resolved(collect, form)
        else:
            notes = self._learn(collect(form))
        total = self._total()
        auto = form == "scatter" and "root" in self._finer_forms()
        if auto and again and total.form == "scatter" and total.multiplied > total.rows:
            notes = self._learn(collect("root"))
        elif auto and not again and self._ill_conditioned():
            notes.append(
                "the columns are ill-conditioned, and an iterator cannot be read again for the "
                "more precise form: set solver='svd', or pass batches that can be (a list, an "
                "object whose __iter__ begins anew)"
            )
        if folds is not None and first:
            rows = {name: np.concatenate([b[name] for b in first]) for name in first[0]}
            dealt = folds.part(0, len(next(iter(rows.values()))))
            notes = [*dependence_notes(rows, dealt), *notes]
        return notes

    def _collect_batches(
        self, blocks: Iterable[dict[str, Any]], form: Any, folds: Folds | None
    ) -> list[Any]:
        """The moments of each fold of the rows of batches, of all rows as one without `folds`."""
        how = Pass(form, self._missing, diagonal=self._diagonal())
        return folds_of_batches(blocks, folds, how)

    def _batches(self, source: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The checked blocks of each batch, checked against the first as in `fit`."""
        first = True
        for number, batch in enumerate(source):
            given = self._of_batch(batch, number)
            if no_rows(*given):
                continue  # no rows add nothing
            with _named_batch(number) if len(given) > 1 else nullcontext():
                blocks = self._blocks(*given, reset=first)
            first = False
            yield blocks

    def _of_batch(self, batch: Any, number: int) -> tuple[Any, ...]:
        """What `_blocks` is handed for a batch."""
        if isinstance(batch, Mapping) and set(batch) == {"x", "y"}:
            return batch["x"], batch["y"]
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(
                f"batch {number} is no pair of views: yield tuples (x, y) or dicts of 'x' and 'y'"
            )
        return tuple(batch)

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Add paired rows to those fitted so far.

        The result is that of `fit` on all rows together, however they were parted: row
        number i overall (or group number i) belongs to fold i mod `cv` where a parameter is
        "cv". Each call solves anew, O(d^3): for very many small batches build
        `Moments.from_batches` and call `fit_moments` once.

        Parameters
        ----------
        X, y, sample_weight, groups
            As in `fit`. A label that came before is of the same group.

        Returns
        -------
        self
        """
        self._validate_params()
        check_row_labels({"X": X, "sample_weight": sample_weight, "groups": groups})
        if no_rows(X, y) or no_weight(sample_weight):
            return self  # no rows add nothing
        first = not self._kept()
        new = self._unfitted() if first else self._twin()
        blocks = new._blocks(X, y, reset=first)
        with new._naming():
            notes = new._add(blocks, sample_weight, groups)
        said = new._said
        new._said = tuple(dict.fromkeys([*said, *map(_without_numbers, notes)]))
        self._become(new)._warned([a for a in notes if _without_numbers(a) not in said])
        return self

    def _add(self, blocks: dict[str, Any], sample_weight: Any, groups: Any) -> list[str]:
        """Add checked rows, and solve where there are enough of them by now."""
        names = self._open_parameters()
        before = self._parts_so_far()
        held = [m for m in before if m is not None]
        n = int(next(iter(blocks.values())).shape[0])
        start = sum(m.rows_seen for m in held)
        folds = self._folds_of_more(n, groups, start, sample_weight)
        dependent = []
        if folds is not None and not start:
            dependent = dependence_notes(blocks, folds, sample_weight)
        blocks, sample_weight = self._rows(blocks, sample_weight, partial=True)
        form = held[0].form if held else self._first_form(np.inf, 0)
        # Each call solves anew, beside which products in double precision cost little.
        form = "double" if form == "scatter" else form
        new = self._collect(blocks, form, sample_weight, folds)
        if len(before) not in (0, len(new)):
            raise ValueError(
                f"the rows before were not dealt to {len(new)} folds, so "
                f"{self._as_chosen(names[0])} cannot use them: start anew with these parameters"
            )
        if folds is not None and self._ranks_rows():
            rows = sample_folds(blocks, folds, sample_weight, start=start)
            self._queries = merged_samples(self._queries, rows)
        parts = merged(before, new)
        if self._enough(parts):
            with contextlib.suppress(NoScoreError):  # as where there are too few rows
                notes: list[str] = self._learn(parts)
                return [*dependent, *notes, *self._unresolved()]
        # Until there are rows enough for a model, they are only counted.
        self._keep(parts)
        return dependent

    def _parts_so_far(self) -> list[Any]:
        """The moments of the rows so far: of each fold, or of all where nothing is chosen."""
        before: list[Any] = self._kept()
        if not self._open_parameters():
            held = [m for m in before if m is not None]
            return [functools.reduce(operator.add, held)] if held else []
        return before

    def _enough(self, parts: list[Any]) -> bool:
        """Whether these moments, or those of all folds but one, make a model."""
        some = next(m for m in parts if m is not None)
        most = self._most_components(some.widths)
        wanted = getattr(self, "n_components", None) or 1
        if most is not None and wanted > most:
            return True  # too many raise at once
        if len(parts) > 1 and not self._enough_to_rank():
            return False
        counts = [0.0 if m is None else m.rows_together for m in parts]
        held_out = max(counts) if len(counts) > 1 else 0.0
        return min(counts) > 0 and sum(counts) - held_out >= self._rows_needed()

    def _most_components(self, widths: Sequence[int]) -> int | None:
        """How many components blocks of these widths allow; None where nothing is counted."""
        return None

    def _rows_needed(self) -> int:
        """The least number of rows that make a model."""
        if self._most_components((1, 1)) is None:
            return 2
        return (self.n_components or 1) + 1

    def _twin(self) -> Self:
        """A copy with everything that was fitted."""
        new = object.__new__(type(self))
        new.__dict__.update(vars(self))
        return new


def _without_numbers(note: str) -> str:
    """A sentence without its numbers, by which a repetition in later batches is recognised."""
    return re.sub(r"[\d.]+(e[+-]?\d+)?", "", note)


def no_rows(*views: Any) -> bool:
    """Whether views, or lists or dicts of views, have no row."""
    lengths = []
    for a in views:
        nested = list(a.values()) if isinstance(a, Mapping) and not hasattr(a, "shape") else a
        listed = isinstance(nested, (list, tuple)) and any(hasattr(v, "shape") for v in nested)
        each = nested if listed or nested is not a else [a]
        sized = [v for v in each if hasattr(v, "shape") or hasattr(v, "__len__")]
        lengths += [tuple(v.shape[:1] if hasattr(v, "shape") else (len(v),)) for v in sized]
    return bool(lengths) and all(length == (0,) for length in lengths)


def no_weight(sample_weight: Any) -> bool:
    """Whether all rows have weight 0."""
    if sample_weight is None or is_dask(sample_weight):
        return False
    n = 1 if np.isscalar(sample_weight) else len(sample_weight)
    weights: Any = check_weights(sample_weight, n, empty=True)
    return not bool(namespace(weights).any(weights > 0))


@contextmanager
def _named_batch(number: int) -> Iterator[None]:
    """Say in which batch what does not fit is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"batch {number}: {error}") from None
