"""Checked input of the rank kernels, and the order of ids that the tiles of all routes share."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from cmstats.arrays import (
    Array,
    check_lazy,
    check_matrix,
    check_rows,
    count_true,
    describe_nonfinite,
    device_of,
    is_lazy,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    to_numpy,
    widened,
)

__all__ = ["BLOCK_SCORES", "HostArray", "Layout", "Problem", "read_rows", "unsort"]

HostArray = np.ndarray[Any, Any]

BLOCK_SCORES = 2**22
"""Scores held at once where whole rows of them are needed."""


class Problem(NamedTuple):
    """Checked input: vectors or scores, the precision of the scores, and ids on the host."""

    U: Array
    V: Array | None
    xp: ModuleType
    dtype: Any
    x_ids: HostArray
    y_ids: HostArray

    @classmethod
    def check(cls, U: Any, V: Any, x_ids: Any, y_ids: Any, *, paired: bool = True) -> Problem:
        """Check embeddings or scores and their ids, and number the ids."""
        xp = namespace(U, V)
        if V is None:
            U = _check_scores(check_matrix(U, "the score matrix", ensure_finite=False))
            n, m = U.shape
            dtype = result_dtype(U)
        else:
            U, V = _check_vectors(U, "U"), _check_vectors(V, "V")
            if U.shape[1] != V.shape[1]:
                raise ValueError(
                    "U and V must have the same number of columns, "
                    f"got shapes {tuple(U.shape)} and {tuple(V.shape)}"
                )
            n, m = U.shape[0], V.shape[0]
            dtype = xp.result_type(_dtype(U), _dtype(V))
            dtype = _dtype_without_overflow(xp, U, V, dtype)
        if not paired:
            nobody = np.empty(0, dtype=np.int64)
            return cls(U, V, xp, dtype, nobody, nobody)
        if n != m and x_ids is None and y_ids is None:
            what = "a square score matrix" if V is None else "as many rows in U as in V"
            raise ValueError(
                f"pairs need {what}, got {n} and {m}; x_ids and y_ids say which belong together"
            )
        return cls(U, V, xp, dtype, _check_ids(x_ids, "x_ids", n), _check_ids(y_ids, "y_ids", m))

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and candidates."""
        return self.U.shape[0], self.U.shape[1] if self.V is None else self.V.shape[0]

    def swapped(self) -> Problem:
        """Candidates as queries."""
        U, V = (self.U.T, None) if self.V is None else (self.V, self.U)
        return self._replace(U=U, V=V, x_ids=self.y_ids, y_ids=self.x_ids)


def _check_vectors(a: Any, name: str) -> Any:
    """Check vectors in rows; those on a disk are read run by run and not kept in memory."""
    if not is_lazy(a):
        return check_matrix(_dense(a, name), name)
    check_lazy(a, name, ndims=(2,))
    for rows in _runs(a):
        part = read_rows(a, rows)
        if part.dtype.kind in "fV":
            check_rows(part, name, rows.start, a)
    return a


def _runs(a: Any) -> Iterator[slice]:
    return row_slices(a.shape[0], max(1, BLOCK_SCORES // a.shape[1]))


def _dtype(a: Any) -> Any:
    return result_dtype(widened(np.empty(0, a.dtype)) if is_lazy(a) else a)


def read_rows(a: Any, rows: slice | HostArray) -> HostArray:
    """Read rows of a matrix that may be on a disk, in any order, each run of them in one read."""
    if isinstance(a, np.ndarray) or isinstance(rows, slice):
        return widened(np.asarray(a[rows]))
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    ends = np.flatnonzero(np.diff(ordered) != 1) + 1
    runs = np.split(ordered, ends)
    parts = [widened(np.asarray(a[int(run[0]) : int(run[-1]) + 1])) for run in runs]
    out = np.concatenate(parts)
    out[order] = out.copy()
    return out


def _dense(a: Any, name: str) -> Any:
    if hasattr(a, "tocsr"):
        raise TypeError(f"{name} is sparse: embeddings are dense, pass {name}.toarray()")
    return a


def _check_scores(scores: Array) -> Array:
    """Raise for NaN, which has no rank; infinite scores (masked candidates) have one."""
    scores = _dense(scores, "the score matrix")
    xp = namespace(scores)
    if not is_numpy(xp) and not xp.isdtype(scores.dtype, "real floating"):
        return scores
    total, first = 0, None
    for rows in _runs(scores):
        count, place = count_true(xp.isnan(scores[rows, :]), rows.start)
        total, first = total + count, first or place
    if total:
        raise ValueError(describe_nonfinite("the score matrix", total, 0, first))
    return scores


def _dtype_without_overflow(xp: ModuleType, U: Array, V: Array, dtype: Any) -> Any:
    """The precision of the scores: float64 where those of finite float32 vectors leave the range.

    An overflowed score is infinite or NaN, and NaN compares as the worst of all; scores that
    underflow are all equal.
    """

    def largest(a: Any) -> float:
        if is_lazy(a):
            return max(largest(read_rows(a, rows).astype(dtype)) for rows in _runs(a))
        return max(float(xp.max(a)), -float(xp.min(a)))

    sizes = largest(U), largest(V)
    product = sizes[0] * sizes[1]
    for kind in (dtype, xp.float64):
        limits = xp.finfo(kind)
        small = 0 not in sizes and product * float(limits.eps) < float(limits.smallest_normal)
        if product * U.shape[1] < float(limits.max) and not small:
            return kind
    how = "underflow" if product < 1 else "overflow"
    raise ValueError(f"the inner products of U and V {how} float64: rescale them")


def _check_ids(ids: Any, name: str, length: int) -> HostArray:
    if ids is None:
        return np.arange(length, dtype=np.int64)
    out = to_numpy(ids)
    if out.dtype.kind not in "iu" or out.ndim != 1:
        raise ValueError(f"{name} must be a vector of integers, got {out.dtype} {out.shape}")
    if out.shape[0] != length:
        raise ValueError(f"{name} must have one id for each of the {length} items, got {len(out)}")
    return out.astype(np.int64)


class Layout:
    """Rows and columns in the order of their ids, and the runs of relevant columns.

    In that order, columns ``lo[i]`` to ``hi[i]`` are the ones relevant to row i, and both
    bounds grow with i.

    Parameters
    ----------
    x_ids, y_ids : int array of shape (n,) and (m,)

    Attributes
    ----------
    x_order, y_order : int array of shape (n,) and (m,), or None
        The order of the ids; None when they are sorted already, which spares the gathers.
    lo, hi : int array of shape (n,)
    shape : (n, m)
    """

    def __init__(self, x_ids: HostArray, y_ids: HostArray) -> None:
        self.shape = x_ids.size, y_ids.size
        self.x_order, x_sorted = _sort(x_ids)
        self.y_order, y_sorted = _sort(y_ids)
        self.lo = np.searchsorted(y_sorted, x_sorted, side="left")
        self.hi = np.searchsorted(y_sorted, x_sorted, side="right")

    def columns(self, rows: slice, size: int, *, band: bool) -> Iterator[slice]:
        """Tiles of columns, cut from one grid so that a score is always made the same way.

        With `band` only those that meet a column relevant to any of these rows.
        """
        m = self.shape[1]
        start, stop = (int(self.lo[rows.start]), int(self.hi[rows.stop - 1])) if band else (0, m)
        if start < stop:
            for first in range(start // size * size, stop, size):
                yield slice(first, min(first + size, m))

    def bounds(self, rows: slice, columns: slice) -> tuple[HostArray, HostArray]:
        """The relevant columns of each row, relative to a tile and inside it."""
        width = columns.stop - columns.start
        lo, hi = self.lo[rows] - columns.start, self.hi[rows] - columns.start
        return np.clip(lo, 0, width), np.clip(hi, 0, width)


def _sort(ids: HostArray) -> tuple[HostArray | None, HostArray]:
    if bool(np.all(ids[1:] >= ids[:-1])):
        return None, ids
    order = np.argsort(ids, kind="stable")
    return order, ids[order]


def unsort(values: Array, order: HostArray | None) -> Array:
    """Columns of `values` back in the order the ids came in."""
    if order is None:
        return values
    xp = namespace(values)
    inverse = np.empty_like(order)
    inverse[order] = np.arange(order.size)
    return xp.take(values, xp.asarray(inverse, device=device_of(values)), axis=1)
