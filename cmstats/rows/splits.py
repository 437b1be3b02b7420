"""The fold of each row: dealt by number, by group, or by a scikit-learn splitter.

An int `cv` means the same everywhere: in estimators, in `Moments.folds`, in searches, in
`compare`, `learning_curves` and the intervals. With ``cv=K`` row i is in fold i mod K; with
`groups` the group that appears as number g (from 0) is in fold g mod K, with all of its rows. It is
the one rule that needs no row but those seen so far, so that a fit in memory, a fit to a stream,
`partial_fit`, shards and Dask chunks deal alike: scikit-learn's KFold has to know the number of
rows, and its GroupKFold the sizes of all groups. Rows that are sorted, by class or by date, fall
into all folds alike, where runs of consecutive rows would each hold one class. Rows whose
neighbours depend on them need `groups`, or KFold, which keeps neighbours together. A row of weight
0 is in no fold, and the others are dealt as if it were not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.model_selection import PredefinedSplit, check_cv

from cmstats.arrays import (
    check_weights,
    is_array,
    is_dask,
    joined_values,
    take_rows,
    to_numpy,
)

__all__ = [
    "Folds",
    "by_number",
    "check_groups",
    "count_rows",
    "deal",
    "fold_ids",
    "numbered",
    "split_rows",
]

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Folds:
    """The folds of a sequence of rows.

    Attributes
    ----------
    count : int
        How many folds there are.
    start : int
        The number of the first row, where row number i is in fold i mod `count`.
    ids : int array of shape (n,), optional
        The fold of each row otherwise, -1 for none.
    groups : array, optional
        The distinct labels in the order of their appearance, where groups were dealt.
    """

    count: int
    start: int = 0
    ids: HostArray | None = None
    groups: HostArray | None = None

    def numbers(self, n: int, weights: Any = None) -> Any:
        """The fold of each of the first n rows; -1 for a row of weight 0."""
        if weights is None:
            return (self.start + np.arange(n)) % self.count if self.ids is None else self.ids[:n]
        counts = weights > 0 if is_dask(weights) else to_numpy(weights) > 0
        ids = self.ids
        if ids is None:
            ids = (self.start + np.cumsum(counts) - 1) % self.count
        return np.where(counts, ids[:n], -1)

    def _between(self, n: int, weights: Any) -> HostArray | None:
        """Which rows of positive weight a splitter with a gap left in no fold; None for none."""
        if self.ids is None or not (lost := self.ids[:n] < 0).any():
            return None
        if weights is not None:
            lost = lost & (to_numpy(weights.compute() if is_dask(weights) else weights) > 0)
        return lost if lost.any() else None

    def with_gaps(self, n: int, weights: Any = None) -> Folds:
        """These folds, and one more of the rows in gaps between them, where there are such rows."""
        lost = self._between(n, weights)
        if lost is None or self.ids is None:
            return self
        return replace(self, count=self.count + 1, ids=np.where(lost, self.count, self.ids[:n]))

    def gap_notes(self, n: int, weights: Any = None) -> list[str]:
        """A sentence about rows in gaps, where moments are those of folds alone."""
        lost = self._between(n, weights)
        if lost is None:
            return []
        return [
            f"{int(lost.sum())} rows in the gaps between folds are in none of these moments, nor "
            "in what is fitted to them: hand the rows to fit, which takes them in"
        ]

    def part(self, start: int, stop: int) -> Folds:
        """The folds of the rows from `start` to `stop`."""
        if self.ids is None:
            return replace(self, start=self.start + start)
        self.check_rows(stop, more=True)
        return replace(self, ids=self.ids[start:stop])

    def check_rows(self, rows: int, *, more: bool = False) -> None:
        """Raise if there are not as many rows (or, with `more` to come, too many) as labels."""
        if self.ids is None or rows == len(self.ids) or (more and rows < len(self.ids)):
            return
        least = "at least " if more else ""
        raise ValueError(
            f"groups has {len(self.ids)} labels for {least}{rows} rows: one label for each row"
        )


def count_rows(n: int, weights: Any = None) -> int:
    """How many of n rows have a positive weight; all of Dask's, whose weights are read later."""
    at = None if is_dask(weights) else _present(n, weights)
    return n if at is None else int(at.size)


def _present(n: int | None, weights: Any) -> HostArray | None:
    """The rows of positive weight; None for all."""
    if weights is None or n is None:
        return None
    weights = weights.compute() if is_dask(weights) else weights
    at = np.flatnonzero(to_numpy(check_weights(weights, n)) > 0)
    return None if at.size == n else at


def _among(at: HostArray | None, n: int | None, of_rows: HostArray) -> HostArray:
    """The folds of some of n rows, and -1 for the others."""
    if at is None or n is None:
        return of_rows
    ids = np.full(n, -1)
    ids[at] = of_rows
    return ids


def deal(
    cv: Any, n: int | None, *, y: Any = None, groups: Any = None, weights: Any = None
) -> Folds:
    """The folds of n rows.

    Parameters
    ----------
    cv : int, splitter or iterable of (train, test)
        An int deals rows, or groups, by their number.
    n : int or None
        The number of rows; None for a stream, whose rows are dealt by number.
    y : array of shape (n,) or (n, q), optional
        Handed to a splitter.
    groups : array of shape (n,), optional
        Labels of rows that belong into one fold.
    weights : array of shape (n,), optional
        Rows of weight 0 are left out.

    Raises
    ------
    ValueError
        If the splits do not part the rows into at least two folds that are not empty.
    """
    at = _present(n, weights)
    whole = isinstance(cv, (int, np.integer)) and not isinstance(cv, bool)
    if n is None and (not whole or cv < 2):
        raise ValueError(
            "rows of a stream are dealt to folds by number, so cv must be an int of at least 2"
        )
    if whole:
        folds = by_number(int(cv), n, groups, weights=weights)
        units, what = n if at is None else int(at.size), "rows"
        if folds.groups is not None:
            units, what = len(folds.groups), "groups"
        if units is not None and not 2 <= cv <= units:
            raise ValueError(
                f"cv={cv} folds of {units} {what}: at least 2 and at most {units} are possible"
            )
        return folds
    assert n is not None
    y = None if is_dask(y) else y
    explicit = at is not None and (not hasattr(cv, "split") or isinstance(cv, PredefinedSplit))
    if at is None or explicit:  # splits by the numbers of all rows
        ids = _split(check_cv(cv), n, y, groups, at)
    else:
        y, groups = (
            None if a is None else take_rows(a if hasattr(a, "shape") else np.asarray(a), at)
            for a in (y, groups)
        )
        cv = cv.among(at, n) if hasattr(cv, "among") else check_cv(cv)
        ids = _among(at, n, _split(cv, at.size, y, groups))
    return Folds(int(ids.max()) + 1, ids=ids)


def fold_ids(cv: Any, n: int, *, groups: Any = None) -> HostArray:
    """The fold of each of n rows, shape (n,); see `deal`."""
    ids: HostArray = deal(cv, n, groups=groups).numbers(n)
    return ids


def by_number(
    count: int,
    n: int | None,
    groups: Any = None,
    *,
    start: int = 0,
    seen: HostArray | None = None,
    weights: Any = None,
) -> Folds:
    """Deal rows, or their groups, to folds as they come.

    Parameters
    ----------
    count : int
        How many folds there are.
    n : int or None
        The number of rows; None where it is that of the labels.
    groups : array of shape (n,), optional
    start : int
        The number of rows that came before.
    seen : array, optional
        The distinct labels of those rows, in the order of their appearance.
    weights : array of shape (n,), optional
        Labels of rows of weight 0 do not count.
    """
    if groups is None:
        return Folds(count, start)
    labels = check_groups(groups, n)
    at = _present(n, weights)
    labels = labels if at is None else labels[at]
    before = 0
    if seen is not None and len(seen):
        if (seen.dtype.kind in "US") != (labels.dtype.kind in "US"):
            raise ValueError(
                f"groups holds {labels.dtype} labels, and the rows before had {seen.dtype} labels"
            )
        before, labels = len(seen), joined_values([seen, labels])
    numbers, distinct = numbered(labels)
    return Folds(count, ids=_among(at, n, numbers[before:] % count), groups=distinct)


def numbered(labels: HostArray) -> tuple[HostArray, HostArray]:
    """The number of each label, and the distinct ones, in the order of their appearance."""
    distinct, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.arange(len(order))
    return numbers[inverse], distinct[order]


def check_groups(groups: Any, n: int | None = None) -> HostArray:
    """The labels of rows as a NumPy array of numbers, strings or dates.

    Raises
    ------
    ValueError
        If there is not one label for each of n rows.
    """
    labels = to_numpy(groups) if is_array(groups) else np.asarray(groups)
    if labels.ndim != 1 or (n is not None and len(labels) != n):
        expected = "(n_samples,)" if n is None else f"({n},)"
        raise ValueError(
            f"groups has shape {labels.shape}, expected {expected}: one label for each row"
        )
    if labels.dtype.kind == "O":
        kinds = {isinstance(label, str) for label in labels.tolist()}
        labels = labels if len(kinds) > 1 else np.array(labels.tolist())
    if labels.dtype.kind not in "biufUSMm":
        raise ValueError(
            "groups must hold one number, one string or one date for each row, all of one kind "
            f"and none missing; got {labels.dtype} labels"
        )
    if labels.dtype.kind in "fMm" and (gaps := np.flatnonzero(np.isnan(labels))).size:
        raise ValueError(
            f"groups has no label in {gaps.size} rows, the first is row {gaps[0]}: give each row "
            "one, of its own if it belongs to no other"
        )
    return labels


def split_rows(
    splitter: Any, n: int, target: Any, groups: Any
) -> list[tuple[HostArray, HostArray]]:
    """The training and the test rows of each fold of a splitter, by position.

    Raises
    ------
    ValueError
        If the splitter cannot deal rows of this target and these groups, or names rows that
        there are not.
    """
    try:
        pairs = list(splitter.split(np.zeros((n, 1)), target, groups))
    except (TypeError, ValueError) as error:
        name = type(splitter).__name__
        raise ValueError(
            f"cv={name} cannot deal these {n} rows: {str(error).rstrip('.')}; give it the groups "
            "or classes that it asks for, where fit takes them, or its splits: "
            f"cv=list({name}(...).split(X, classes, groups))"
        ) from None
    found = []
    for k, pair in enumerate(pairs):
        train, test = (np.asarray(rows) for rows in pair)
        train, test = (np.flatnonzero(s) if s.dtype == bool else s for s in (train, test))
        for rows in (train, test):
            if rows.size and not -n <= rows.min() <= rows.max() < n:
                raise ValueError(
                    f"fold {k} of cv has row {int(rows.max())}, but there are {n} rows, counted "
                    "from 0: make the splits of these rows"
                )
        found.append((train, test))
    return found


def _split(splitter: Any, n: int, y: Any, groups: Any, at: HostArray | None = None) -> HostArray:
    """The fold of each row by a splitter, which must part them; -1 but for the rows `at`."""
    ids = np.full(n, -1)
    number = 0
    target = y if hasattr(y, "shape") else None
    trained = []
    parted = (
        "cv must part the rows: every row in one test set, and each training set all other rows "
        "(KFold, GroupKFold, ... do; ShuffleSplit and repeats do not: use scikit-learn's "
        "GridSearchCV for those)"
    )
    for number, (train, test) in enumerate(split_rows(splitter, n, target, groups)):
        if (ids[test] >= 0).any() or np.isin(test, train).any():
            raise ValueError(parted)
        ids[test] = number
        trained.append(train)
    # Rows of a gap are in no fold, and so in no training set either.
    count = np.count_nonzero(ids >= 0)
    for k, train in enumerate(trained):
        others = count - np.count_nonzero(ids == k)
        if len(train) != others or (ids[train] < 0).any():
            raise ValueError(parted)
    dealt = ids if at is None else ids[at]
    if at is not None:
        ids = _among(at, n, dealt)
    sizes = np.bincount(dealt[dealt >= 0], minlength=number + 1)
    if at is not None and 0 in sizes:
        raise ValueError(
            f"fold {int(np.argmin(sizes))} has no row of positive weight (folds are counted from "
            "0): use fewer folds, or groups that leave none empty"
        )
    lost = (dealt < 0).any() and not getattr(splitter, "gap", 0)
    if lost or number < 1 or 0 in sizes:
        raise ValueError(
            "cv must part the rows: every row in one test set, at least two folds and none empty"
        )
    return ids
