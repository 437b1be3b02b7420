"""Moments of targets with gaps: entries of y that are NaN.

Targets (tasks) that are observed in the same rows form a group, which has the Moments of those
rows. More rows can split a group but never join two: each part of a split group has the same
moments with fewer columns of y. So groups stream and merge like plain moments.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from cmstats.arrays import (
    Array,
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
from cmstats.moments.fold_sums import index_like
from cmstats.moments.moments import Moments
from cmstats.moments.sums import Form
from cmstats.rows.chunks import check_rows, chunks
from cmstats.rows.dask import naming_chunk
from cmstats.rows.splits import fold_ids

__all__ = ["TaskMoments", "as_x_and_y"]

Parts: TypeAlias = list[Moments | None]
"""The moments of each fold, or of all rows; None for a fold without a row."""


@dataclass(frozen=True)
class TaskMoments:
    """Moments by group of tasks that are observed in the same rows.

    Attributes
    ----------
    groups : dict from tuple of int to list of Moments or None
        Numbers of the tasks, and the moments ("x", "y") of each fold of their rows.
    rows : int
        The number of rows seen.
    n : float
        The sum of the weights of the rows in which some task is observed.
    """

    groups: dict[tuple[int, ...], Parts]
    rows: int
    n: float

    @classmethod
    def from_rows(
        cls,
        blocks: Mapping[str, Any],
        y: Any,
        *,
        form: Form,
        sample_weight: Any = None,
        cv: Any = None,
        start: int | None = None,
        several: bool = True,
    ) -> TaskMoments:
        """The moments of rows, in one pass over the features and two over the targets.

        Parameters
        ----------
        blocks : mapping of name to checked matrix
            The features.
        y : checked matrix of shape (n, q)
        form : {"scatter", "root"}
        sample_weight : array of shape (n,), optional
        cv : int, splitter or iterable, optional
            By default all rows are one fold.
        start : int, optional
            The number of the first row if rows go to `cv` folds by their number; a fold may
            then have no row.
        several : bool, default=True
            Whether more than one group of tasks is allowed.
        """
        if any(map(is_dask, (*blocks.values(), y))):
            return _of_dask(blocks, y, form, sample_weight, cv, start, several)
        n, q = int(y.shape[0]), 1 if y.ndim == 1 else int(y.shape[1])
        groups = _groups(y)
        data = {**blocks, "y": y, "form": form, "sample_weight": sample_weight}
        if groups is None and start is None:
            split = Moments.folds(cv=cv, **data) if cv is not None else [Moments.from_data(**data)]
            parts: Parts = [as_x_and_y(m) for m in split]
            return cls({tuple(range(q)): parts}, n, sum(m.n for m in split))
        if start is None:
            ids = np.zeros(n, dtype=int) if cv is None else fold_ids(cv, n, y=y)
        else:
            ids = (start + np.arange(n)) % int(cv)
        folds = int(cv) if start is not None else int(ids.max()) + 1
        if groups is None:
            parts = _by_fold(data, ids, folds)
            return cls({tuple(range(q)): parts}, n, sum(m.n for m in parts if m is not None))
        if not several:
            cls({tasks: [] for tasks in groups}, n, 0.0).require_one_group()
        return cls._of_incomplete(blocks, y, form, sample_weight, ids, folds, groups)

    @classmethod
    def _of_incomplete(
        cls,
        blocks: Mapping[str, Any],
        y: Any,
        form: Form,
        sample_weight: Any,
        ids: np.ndarray[Any, Any],
        folds: int,
        groups: list[tuple[int, ...]],
    ) -> TaskMoments:
        like = next((a for a in (*blocks.values(), y) if is_array(a)), None)
        weights = check_weights(sample_weight, y.shape[0], like)
        table: dict[tuple[int, ...], Parts] = {tasks: [None] * folds for tasks in groups}
        total = 0.0
        for start, parts, w in chunks([*blocks.values(), y], weights):
            named = dict(zip([*blocks, "y"], parts, strict=True))
            for name, part in named.items():
                named[name] = part = dense(part)
                if name != "y":
                    check_rows(part, name, start, blocks[name])
            observed = _observed(named["y"], start)
            if w is not None:
                observed &= to_numpy(w > 0)[:, None]
            counted = observed.any(axis=1)
            total += float(counted.sum() if w is None else to_numpy(w)[counted].sum())
            for tasks in groups:
                at = np.flatnonzero(observed[:, tasks[0]])
                if not at.size:
                    continue
                data: dict[str, Any] = {
                    k: take_rows(a, index_like(at, a)) for k, a in named.items()
                }
                columns = index_like(np.array(tasks), data["y"])
                data["y"] = namespace(data["y"]).take(data["y"], columns, axis=1)
                data["sample_weight"] = None if w is None else take_rows(w, index_like(at, w))
                new = _by_fold({**data, "form": form}, ids[start + at], folds)
                table[tasks] = _sum(table[tasks], new)
        return cls(table, int(y.shape[0]), total)

    def __add__(self, other: TaskMoments) -> TaskMoments:
        """The moments of all rows: tasks of one group on both sides stay in one group."""
        tables = (self.groups, other.groups)
        of = [{task: tasks for tasks in table for task in tasks} for table in tables]
        cells: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for task in sorted(of[0]):
            cells.setdefault((of[0][task], of[1][task]), []).append(task)
        groups = {}
        for cell, members in cells.items():
            mine, theirs = (
                [_with_tasks(m, tasks, tuple(members)) for m in table[tasks]]
                for table, tasks in zip(tables, cell, strict=True)
            )
            groups[tuple(members)] = _sum(mine, theirs)
        return TaskMoments(groups, self.rows + other.rows, self.n + other.n)

    @property
    def form(self) -> Form | None:
        """The form of the moments, if there are any."""
        return next(
            (m.form for parts in self.groups.values() for m in parts if m is not None), None
        )

    @property
    def folds(self) -> int:
        """The number of folds."""
        return len(next(iter(self.groups.values())))

    def require_one_group(self) -> None:
        """Raise if tasks are observed in different rows."""
        if len(self.groups) > 1:
            raise ValueError(
                "a rank shared by targets that are observed in different rows (NaN in y) has no "
                "closed form: set rank=None, or drop the rows with NaN"
            )

    def merged(self) -> TaskMoments:
        """The folds put together."""
        groups: dict[tuple[int, ...], Parts] = {}
        for tasks, parts in self.groups.items():
            total: Parts = [None]
            for part in parts:
                total = _sum(total, [part])
            groups[tasks] = total
        return replace(self, groups=groups)


def _of_dask(
    blocks: Mapping[str, Any],
    y: Any,
    form: Form,
    sample_weight: Any,
    cv: Any,
    start: int | None,
    several: bool,
) -> TaskMoments:
    """The moments of the rows of Dask arrays."""
    if cv is not None and not isinstance(cv, (int, np.integer)):
        raise ValueError("rows of Dask arrays are dealt to folds by number: cv must be an int")
    work = functools.partial(_of_chunk, form, cv, start or 0, several)
    width = sum(int(a.shape[1]) for a in blocks.values()) + int(y.shape[1])
    found: TaskMoments = _dask.tree(
        {**blocks, "y": y}, work, _dask.added, sample_weight=sample_weight, least=(cv or 1) * width
    )
    if not several:
        found.require_one_group()
    return found


def _of_chunk(
    form: Form, cv: Any, offset: int, several: bool, named: dict[str, Any], w: Any, _: Any, at: Any
) -> TaskMoments:
    """The moments of the rows of one Dask chunk."""
    y = named.pop("y")
    if w is not None and not bool(namespace(w).any(w != 0)):
        tasks = tuple(range(int(y.shape[1])))
        return TaskMoments({tasks: [None] * int(cv or 1)}, int(y.shape[0]), 0.0)
    start = None if cv is None else offset + at.start
    with naming_chunk(named, at, "error"):
        return TaskMoments.from_rows(
            named, y, form=form, sample_weight=w, cv=cv, start=start, several=True
        )


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
    if moments.incomplete:
        raise ValueError(
            "the moments of incomplete rows (missing='em') are estimated by block: put the "
            f"features {', '.join(names)} side by side as one block x"
        )
    if (*names, "y") != moments.names:
        moments = moments.select(*names, "y")
    widths = (sum(moments.width(name) for name in names), moments.width("y"))
    # Fourth moments are of the blocks as they were, and no regression needs them.
    return moments.relabelled({"x": widths[0], "y": widths[1]})


def _groups(y: Any) -> list[tuple[int, ...]] | None:
    """The tasks that are observed in the same rows; None if nothing is missing."""
    labels: np.ndarray[Any, Any] = np.zeros(1 if y.ndim == 1 else int(y.shape[1]), dtype=int)
    complete = True
    for start, (part,), _ in chunks([y]):
        if not _has_nan(part):
            continue
        complete = False
        part = dense(part)
        bits = np.packbits(_observed(part, start), axis=0)
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
        raise ValueError(describe_nonfinite("y", 0, infinite, at))
    return ~to_numpy(missing)


def _by_fold(data: dict[str, Any], ids: np.ndarray[Any, Any], folds: int) -> Parts:
    """The moments of rows of each fold, None for a fold without one."""
    out: Parts = [None] * folds
    present = np.unique(ids).tolist()
    if len(present) == 1:
        out[present[0]] = as_x_and_y(Moments.from_data(**data))
        return out
    splits = [(np.flatnonzero(ids != k), np.flatnonzero(ids == k)) for k in present]
    for k, m in zip(present, Moments.folds(cv=splits, **data), strict=True):
        out[k] = as_x_and_y(m)
    return out


def _sum(mine: Parts, theirs: Parts) -> Parts:
    return [
        b if a is None else (a if b is None else a + b) for a, b in zip(mine, theirs, strict=True)
    ]


def _with_tasks(
    moments: Moments | None, tasks: tuple[int, ...], wanted: tuple[int, ...]
) -> Moments | None:
    """The same moments with fewer columns of y."""
    if moments is None or tasks == wanted:
        return moments
    p = moments.width("x")
    kept = [*range(p), *(p + tasks.index(task) for task in wanted)]
    return moments.take(np.array(kept), {"x": p, "y": len(wanted)})
