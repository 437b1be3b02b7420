"""Moments of targets with gaps: entries of y that are NaN.

Tasks that are observed in the same rows share one Moments of those rows. Later rows may split
such a group, and never join two. The moments of a part of a group are those of the group with
fewer columns of y, so that `TaskMoments` merge, and come in folds, as `Moments` do.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from cmstats.arrays import (
    Array,
    NotFiniteError,
    blank_rows,
    check_weights,
    count_nonfinite,
    dense,
    describe_nonfinite,
    is_array,
    is_dask,
    is_numpy,
    namespace,
    take_rows,
    to_numpy,
)
from cmstats.moments import dask as _dask
from cmstats.moments.collect import Pass
from cmstats.moments.fold_sums import index_like
from cmstats.moments.folds import merged
from cmstats.moments.moments import Moments, folds_of_rows
from cmstats.moments.sums import Form
from cmstats.rows.chunks import check_rows, chunks
from cmstats.rows.dask import checked_weights, naming_chunk
from cmstats.rows.source import width_of
from cmstats.rows.splits import Folds

__all__ = ["TaskMoments", "aligned", "as_x_and_y", "by_group", "check_observed", "is_enough"]
__all__ += ["of_batches", "totals", "very_many", "with_tasks"]

MOST = 2048
"""More targets than this, and more than twice as many as features, are very many."""

Parts: TypeAlias = list[Moments | None]
"""The moments of each fold, or of each group; None where there is no row."""


@dataclass(frozen=True)
class TaskMoments:
    """Moments of rows in which not all tasks are observed, by group of tasks.

    Attributes
    ----------
    groups : tuple of tuple of int
        The numbers of the tasks that are observed in the same rows.
    moments : tuple of Moments or None
        The moments ("x", "y") of the rows of each group; None where there is no row.
    rows : int
        The number of rows seen.
    n : float
        The sum of the weights of the rows in which some task is observed.
    form : {"scatter", "root"}
    """

    groups: tuple[tuple[int, ...], ...]
    moments: tuple[Moments | None, ...]
    rows: int
    n: float
    form: Form

    @classmethod
    def whole(cls, moments: Moments) -> TaskMoments:
        """Moments of rows in which every task is observed."""
        return cls.complete((tuple(range(moments.width("y"))),), (moments,), moments.form)

    @classmethod
    def complete(
        cls, groups: tuple[tuple[int, ...], ...], moments: tuple[Moments | None, ...], form: Form
    ) -> TaskMoments:
        """Moments of the same rows in every group, perhaps of none."""
        first = moments[0]
        if first is None:
            return cls(groups, moments, 0, 0.0, form)
        return cls(groups, moments, first.rows, first.n, first.form)

    @classmethod
    def folds(
        cls,
        blocks: Mapping[str, Any],
        y: Any,
        how: Pass,
        sample_weight: Any = None,
        folds: Folds | None = None,
        *,
        several: bool = True,
    ) -> list[TaskMoments]:
        """The moments of each fold of the rows, perhaps of none.

        One pass over the features and two over the targets.

        Parameters
        ----------
        blocks : mapping of name to checked matrix
            The features.
        y : checked matrix of shape (n, q)
        how : Pass
        sample_weight : array of shape (n,), optional
        folds : Folds, optional
            By default all rows are one fold.
        several : bool, default=True
            Whether more than one group of tasks is allowed.
        """
        if any(map(is_dask, (*blocks.values(), y))):
            return _of_dask(blocks, y, how, sample_weight, folds, several)
        n = int(y.shape[0])
        like = next((a for a in (*blocks.values(), y) if is_array(a)), None)
        weights = check_weights(sample_weight, n, like, empty=folds is not None)
        folds = folds or Folds(1)
        ids = folds.numbers(n, weights)
        groups = _groups(y, ids >= 0)
        rows = np.bincount(ids[ids >= 0], minlength=folds.count).tolist()
        if groups is None:
            dealt, every = replace(folds, ids=ids), (tuple(range(width_of(y))),)
            found = _by_fold({**blocks, "y": y}, how, weights, dealt)
            return [cls.complete(every, (m,), how.form) for m in found]
        if not several:
            cls(tuple(groups), (), n, 0.0, how.form).require_one_group()
        table: dict[tuple[int, ...], Parts] = {tasks: [None] * folds.count for tasks in groups}
        totals = np.zeros(folds.count)
        for start, runs, w in chunks([*blocks.values(), y], weights):
            here = ids[start : start + runs[0].shape[0]]
            named = dict(zip([*blocks, "y"], runs, strict=True))
            for name, part in named.items():
                named[name] = part = blank_rows(dense(part), here < 0)
                if name != "y":
                    check_rows(part, name, start, blocks[name])
            observed = _observed(named["y"], start) & (here >= 0)[:, None]
            counted = np.flatnonzero(observed.any(axis=1))
            each = None if w is None else to_numpy(w)[counted]
            totals += np.bincount(here[counted], weights=each, minlength=folds.count)
            for tasks in groups:
                at = np.flatnonzero(observed[:, tasks[0]])
                if not at.size:
                    continue
                data = {k: take_rows(a, index_like(at, a)) for k, a in named.items()}
                columns = index_like(np.array(tasks), data["y"])
                data["y"] = namespace(data["y"]).take(data["y"], columns, axis=1)
                own = None if w is None else take_rows(w, index_like(at, w))
                new = _by_fold(data, how, own, replace(folds, ids=here[at]))
                table[tasks] = merged(table[tasks], new)
        return [
            cls(tuple(table), tuple(each[k] for each in table.values()), m, float(total), how.form)
            for k, (m, total) in enumerate(zip(rows, totals, strict=True))
        ]

    def __add__(self, other: TaskMoments) -> TaskMoments:
        """Both together: tasks stay in one group if they are in one group on either side."""
        groups = _common_groups([self.groups, other.groups])
        sums = merged(self.of_groups(groups), other.of_groups(groups))
        n = self.n + other.n
        return TaskMoments(groups, tuple(sums), self.rows + other.rows, n, self.form)

    def of_groups(self, groups: Sequence[tuple[int, ...]]) -> Parts:
        """The moments of each of other groups, every one a part of a group of these."""
        found: Parts = []
        for wanted in groups:
            i = next(i for i, tasks in enumerate(self.groups) if wanted[0] in tasks)
            found.append(with_tasks(self.moments[i], self.groups[i], wanted))
        return found

    @property
    def rows_seen(self) -> int:
        """The number of rows, with those in which no task is observed."""
        return self.rows

    @property
    def single(self) -> bool:
        """Whether products of rows were formed in single precision."""
        return any(m.single for m in self.moments if m is not None)

    def resolves(self, condition: float) -> bool:
        """Whether the second moments hold what a result at this condition number needs."""
        return all(m.resolves(condition) for m in self.moments if m is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the blocks."""
        return ("x", "y")

    @property
    def widths(self) -> tuple[int, int]:
        """The number of features (0 where no row has a task), and of tasks."""
        p = next((m.width("x") for m in self.moments if m is not None), 0)
        return p, sum(map(len, self.groups))

    @property
    def multiplied(self) -> int:
        """The number of columns with products among them."""
        p, q = self.widths
        return p if any(m is not None and m.diagonal for m in self.moments) else p + q

    @property
    def like(self) -> Array:
        """An array in the library and on the device of the moments."""
        return next(m.like for m in self.moments if m is not None)

    @property
    def incomplete(self) -> bool:
        """Whether moments are estimated: each group has the rows in which it is observed."""
        return False

    def require_one_group(self) -> None:
        """Raise if tasks are observed in different rows."""
        if len(self.groups) > 1:
            raise ValueError(
                "a rank shared by targets that are observed in different rows (NaN in y) has no "
                "closed form: set rank=None, or drop the rows with NaN"
            )


def by_group(parts: Sequence[Moments | TaskMoments | None]) -> dict[tuple[int, ...], list[Moments]]:
    """The moments of each fold by group of tasks, without folds that have none of their rows.

    Parameters
    ----------
    parts : sequence of Moments, or of TaskMoments, or None
        Of blocks "x" and "y", for each fold; None for a fold without rows.
    """
    held = [m for m in parts if m is not None]
    each = [TaskMoments.whole(m) if isinstance(m, Moments) else m for m in held]
    groups = _common_groups([m.groups for m in each])
    folds = [m.of_groups(groups) for m in each]
    return {
        tasks: [m for m in found if m is not None]
        for tasks, found in zip(groups, zip(*folds, strict=True), strict=True)
    }


def aligned(parts: Sequence[TaskMoments]) -> list[TaskMoments]:
    """The same folds with the same groups in each."""
    groups = _common_groups([m.groups for m in parts])
    return [replace(m, groups=groups, moments=tuple(m.of_groups(groups))) for m in parts]


def of_batches(
    collect: Callable[..., list[Any]], batches: Iterable[Any], folds: Folds | None
) -> list[Any]:
    """The moments of each fold of the rows of batches.

    Parameters
    ----------
    collect : callable (batch, folds=) -> list of TaskMoments
        The moments of the folds of one batch.
    batches : iterable of dict
    folds : Folds or None
        Of all rows.
    """
    parts: list[Any] = []
    rows = 0
    for batch in batches:
        start, rows = rows, rows + int(batch["y"].shape[0])
        here = None if folds is None else folds.part(start, rows)
        parts = merged(parts, collect(batch, folds=here))
    if not parts:
        raise ValueError("the stream of batches holds no rows")
    if folds is not None:
        folds.check_rows(rows)
    return parts


def check_observed(parts: Sequence[TaskMoments]) -> None:
    """Raise where a task is observed in too few rows, or folds, for a model."""
    for tasks, each in by_group(parts).items():
        if not _observed_enough(each, len(parts)):
            folds = " in at least two folds" if len(parts) > 1 else ""
            raise NotFiniteError(
                f"task {tasks[0]} (column {tasks[0]} of y) is observed in "
                f"n_samples={sum(m.rows for m in each)} rows (of positive weight): at least 2 "
                f"are needed{folds}; drop the column",
                "y",
                int(tasks[0]),
            )


def is_enough(parts: Sequence[TaskMoments]) -> bool:
    """Whether there are rows enough for a model of every task."""
    enough = all(_observed_enough(each, len(parts)) for each in by_group(parts).values())
    return enough and sum(m.rows for m in parts) >= max(2, len(parts))


def _observed_enough(folds: Sequence[Moments], count: int) -> bool:
    return sum(m.rows for m in folds) >= 2 and len(folds) >= min(2, count)


def _common_groups(tables: Sequence[Sequence[tuple[int, ...]]]) -> tuple[tuple[int, ...], ...]:
    """The tasks that are in one group in every table."""
    if all(len(table) == 1 for table in tables):
        return (tuple(tables[0][0]),)
    of = [{task: i for i, tasks in enumerate(table) for task in tasks} for table in tables]
    cells: dict[tuple[int, ...], list[int]] = {}
    for task in sorted(of[0]):
        cells.setdefault(tuple(each[task] for each in of), []).append(task)
    return tuple(map(tuple, cells.values()))


def _of_dask(
    blocks: Mapping[str, Any],
    y: Any,
    how: Pass,
    sample_weight: Any,
    folds: Folds | None,
    several: bool,
) -> list[TaskMoments]:
    """The moments of the rows of Dask arrays."""
    folds, n = folds or Folds(1), int(y.shape[0])
    weights, ids = checked_weights(sample_weight, n), folds.ids
    if weights is not None:
        ids = folds.numbers(n, weights)
    work = functools.partial(_of_chunk, how, several, folds.count, folds.start)
    width = sum(int(a.shape[1]) for a in blocks.values()) + int(y.shape[1])
    found: list[TaskMoments] = _dask.tree(
        {**blocks, "y": y},
        work,
        _dask.add_folds,
        sample_weight=weights,
        ids=ids,
        least=folds.count * width,
    )
    return found


def _of_chunk(
    how: Pass,
    several: bool,
    count: int,
    offset: int,
    named: dict[str, Any],
    w: Any,
    ids: Any,
    at: Any,
) -> list[TaskMoments]:
    """The task of a chunk of rows."""
    y = named.pop("y")
    folds = Folds(count, offset + (at.start or 0), ids)
    with naming_chunk(named, at, "error"):
        return TaskMoments.folds(named, y, how, w, folds, several=several)


def as_x_and_y(moments: Moments, order: tuple[str, ...] = ()) -> Moments:
    """Moments of all blocks but "y" as one block "x", and of "y".

    The columns of x have the order of the blocks, or that of `order` if it names them all.
    """
    moments.columns("y")  # raises if there is none
    names = tuple(name for name in moments.names if name != "y")
    if not names:
        moments.columns("x")
    names = order if set(order) == set(names) else names
    if (*names, "y") == moments.names == ("x", "y"):
        return moments
    if (*names, "y") != moments.names:
        moments = moments.select(*names, "y")
    widths = (sum(moments.width(name) for name in names), moments.width("y"))
    # Fourth moments are of the blocks as they were, and no regression needs them.
    return moments.relabelled({"x": widths[0], "y": widths[1]})


def totals(parts: Sequence[Moments | TaskMoments | None]) -> dict[tuple[int, ...], Moments]:
    """By group of targets the moments "x" and "y" of all folds together."""
    return {
        tasks: as_x_and_y(functools.reduce(operator.add, each))
        for tasks, each in by_group(parts).items()
    }


def very_many(features: Mapping[str, Any], y: Any) -> bool:
    """Whether products among targets would be most of the work, and of the memory."""
    p = sum(map(width_of, features.values()))
    return width_of(y) > max(MOST, 2 * p)


def _groups(y: Any, counts: np.ndarray[Any, Any]) -> list[tuple[int, ...]] | None:
    """The tasks that are observed in the same rows that count; None if nothing is missing."""
    labels: np.ndarray[Any, Any] = np.zeros(1 if y.ndim == 1 else int(y.shape[1]), dtype=int)
    complete = True
    for start, (part,), _ in chunks([y]):
        if not _has_nan(part):
            continue
        here = counts[start : start + part.shape[0]]
        observed = _observed(blank_rows(dense(part), ~here), start)
        if observed.all():
            continue
        complete = False
        bits = np.packbits(observed, axis=0)
        known: dict[tuple[int, bytes], int] = {}
        keys = ((int(label), bits[:, j].tobytes()) for j, label in enumerate(labels))
        labels = np.array([known.setdefault(key, len(known)) for key in keys])
    if complete:
        return None
    return [tuple(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)]


def _has_nan(part: Any) -> bool:
    values = part.data if hasattr(part, "toarray") else part
    xp = namespace(values)
    if not is_numpy(xp) and not xp.isdtype(values.dtype, "real floating"):
        return False
    if is_numpy(xp) and values.dtype.kind not in "fV":
        return False
    return bool(xp.any(xp.isnan(values)))


def _observed(part: Array, start: int) -> np.ndarray[Any, Any]:
    """Which entries of y are observed; an infinity is an error and not a gap."""
    xp = namespace(part)
    missing = xp.isnan(part)
    _, infinite, at = count_nonfinite(xp.where(missing, xp.zeros_like(part), part), start)
    if infinite:
        message = describe_nonfinite("y", 0, infinite, at)
        raise NotFiniteError(message, "y", None if at is None else at[1])
    return ~to_numpy(missing)


def _by_fold(blocks: dict[str, Any], how: Pass, w: Array | None, folds: Folds) -> Parts:
    """The moments of rows of each fold, None for a fold without one."""
    parts = folds_of_rows(blocks, folds, how, w)
    return [None if m is None else as_x_and_y(m) for m in parts]


def with_tasks(
    moments: Moments | None, tasks: Sequence[int], wanted: Sequence[int]
) -> Moments | None:
    """The same moments with fewer columns of y."""
    if moments is None or tuple(tasks) == tuple(wanted):
        return moments
    p, at = moments.width("x"), {task: i for i, task in enumerate(tasks)}
    kept = [*range(p), *(p + at[task] for task in wanted)]
    return moments.take(np.array(kept), {"x": p, "y": len(wanted)})
