"""Queries and candidates in the order of their ids, which the tiles of both routes share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cmstats._array import Array, device_of, namespace

__all__ = ["Layout", "unsort"]

HostArray = np.ndarray[Any, Any]


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
