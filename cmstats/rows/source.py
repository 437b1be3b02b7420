"""What rows are read from: the protocol of a row source, and sources derived from others."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import scipy.sparse

from cmstats.arrays import (
    Array,
    blank_rows,
    check_given,
    is_lazy,
    namespace,
    take_rows,
    to_numpy,
    widened,
)

__all__ = [
    "MappedRows",
    "RowSource",
    "SlicedRows",
    "check_lengths",
    "in_memory",
    "length_hint",
    "present_rows",
    "row_count",
    "take_in_memory",
    "width_of",
    "within",
]


class RowSource(Protocol):
    """A matrix (or a vector, which counts as one column) whose rows are read by slices.

    Arrays of any library, SciPy's CSR matrices, memory-maps, HDF5 and zarr arrays,
    `ShardedMatrix`, `ParquetMatrix` and `MappedRows` conform. Two things are optional:

    - ``device``: where the rows are. Sources without it yield NumPy arrays (`arrays.device_of`).
    - ``locate(row)``: where a row is stored, ``"row 17 of img_emb/img_emb_3.npy"``; error
      messages name the row so (`arrays.position`).

    A source can be read again, in any order. What can be read only once, a stream of batches, is
    an iterable instead (`views.is_stream`, `chunks.batches`).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and the number of columns where `ndim` is 2."""
        ...

    @property
    def dtype(self) -> Any:
        """The type of the values, as the library of the rows names it."""
        ...

    @property
    def ndim(self) -> int:
        """1 or 2."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """The rows of a slice."""
        ...


class MappedRows:
    """A function of the rows of a source, evaluated as they are read.

    Parameters
    ----------
    source : RowSource of shape (n, p)
    function : callable(rows, start), optional
        Maps rows in memory to as many rows; `start` is the number of the first. The rows
        themselves by default.
    width : int, optional
        The number of columns of the result, that of the source by default.
    dtype : dtype, optional
        The type of the result, that of the source by default.
    span : slice, optional
        The rows of the source that this has, all by default; `start` counts from the first.
    """

    def __init__(
        self,
        source: RowSource,
        function: Callable[[Any, int], Array] | None = None,
        width: int | None = None,
        dtype: Any = None,
        *,
        span: slice | None = None,
    ) -> None:
        self._source, self._function = source, function
        self._first, stop, _ = (span or slice(None)).indices(int(source.shape[0]))
        width = width_of(source) if width is None else width
        self.shape: tuple[int, int] = (stop - self._first, width)
        self.dtype: Any = source.dtype if dtype is None else dtype
        self.ndim = 2

    def __getitem__(self, rows: slice | np.ndarray[Any, Any]) -> Array:
        """The mapped rows of a slice or of an array of positions."""
        start = 0
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            rows = slice(self._first + start, self._first + stop, step)
        elif self._first:
            rows = rows + self._first
        part = take_in_memory(self._source, rows)
        return part if self._function is None else self._function(part, start)


class SlicedRows(MappedRows):
    """A source that is read by slices only, such as a backed sparse matrix, at any positions."""

    def __getitem__(self, rows: slice | np.ndarray[Any, Any]) -> Array:
        """The rows of a slice or of an array of positions."""
        if isinstance(rows, slice) or not len(rows):
            return super().__getitem__(rows if isinstance(rows, slice) else slice(0, 0))
        order = np.argsort(rows, kind="stable")
        runs = np.split(rows[order], np.flatnonzero(np.diff(rows[order]) > 1) + 1)
        parts = []
        for run in runs:
            part = super().__getitem__(slice(int(run[0]), int(run[-1]) + 1))
            parts.append(part[run - run[0]])
        sparse = scipy.sparse.issparse(parts[0])
        found = scipy.sparse.vstack(parts, "csr") if sparse else np.concatenate(parts)
        return found[np.argsort(order, kind="stable")]


def check_lengths(blocks: Mapping[str, Any]) -> None:
    """Raise, with the shapes, if blocks differ in their number of rows, or one is no matrix."""
    for name, a in blocks.items():
        check_given(a, name)
    if len({a.shape[0] for a in blocks.values()}) > 1:
        shapes = " and ".join(f"{name} has shape {tuple(a.shape)}" for name, a in blocks.items())
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {shapes}; each row is "
            f"one item, so all blocks need the same number of rows{length_hint(blocks)}"
        )


def length_hint(blocks: Mapping[str, Any]) -> str:
    """What two matrices of different lengths may mean: several rows of an item, or columns."""
    if len(blocks) != 2 or not all(len(a.shape) == 2 for a in blocks.values()):
        return ""
    (first, a), (second, b) = sorted(blocks.items(), key=lambda item: float(item[1].shape[0]))
    (few, width), (many, other) = a.shape, b.shape
    if few in (width, other) and many == (other if few == width else width):
        return ""
    if width == many or other == few:
        name = first if width == many else second
        return f" ({name} has its items in columns, it seems: pass {name}.T)"
    times, rest = divmod(many, few) if few > 1 else (0, 1)
    if rest or not 1 < times <= 100:
        return ""
    return (
        f" (if {times} rows of {second} belong to each of {first}, in its order: pass "
        f"numpy.repeat({first}, {times}, axis=0), with numpy.repeat(numpy.arange({few}), {times}) "
        "as groups or ids)"
    )


def width_of(source: RowSource) -> int:
    """The number of columns; a vector is one."""
    return 1 if len(source.shape) == 1 else int(source.shape[1])


def row_count(a: Any) -> float:
    """The number of rows of what people hand in; NaN where it has none, or Dask does not know."""
    if getattr(a, "shape", None):
        return float(a.shape[0])
    return len(a) if isinstance(a, (list, tuple)) else float("nan")


def within(source: RowSource, span: slice) -> RowSource:
    """Some of the rows of a source; those on a disk stay there until they are read."""
    if not is_lazy(source) or isinstance(source, np.ndarray):
        rows: RowSource = take_rows(source, span)
        return rows
    return MappedRows(source, span=span)


def take_in_memory(source: RowSource, rows: slice | np.ndarray[Any, Any]) -> Any:
    """Rows named by a slice or by positions, read into memory; a vector gives one column."""
    part = in_memory(take_rows(source, rows))
    if scipy.sparse.issparse(part):
        return part
    part = widened(part) if isinstance(part, np.ndarray) else part
    return namespace(part).reshape(part, (-1, 1)) if part.ndim == 1 else part


def present_rows(source: RowSource, weights: Any) -> RowSource:
    """Rows as they are, but zeros, or another row, in place of those of weight 0.

    What reads every row, and multiplies it by its weight, must not meet what such a row holds.
    """
    away = None if weights is None else to_numpy(weights) == 0
    if away is None or not away.any():
        return source
    if is_lazy(source):
        return MappedRows(
            source, lambda part, start: blank_rows(part, away[start : start + part.shape[0]])
        )
    rows: RowSource = take_rows(source, np.where(away, np.argmin(away), np.arange(away.size)))
    return rows


def in_memory(part: Any) -> Any:
    """Rows of a source on a disk as a NumPy array; rows in memory as they are.

    Pages of a memory-map count as memory of the process while the map exists, so they are given
    back; the system keeps them in its page cache. A private map (mode "c") is left alone, because
    its changes would be lost.
    """
    if not is_lazy(part):
        return part
    rows = np.array(part)  # a copy: products would read a map page by page
    file = getattr(part, "_mmap", None)
    if file is not None and hasattr(file, "madvise") and part.mode in ("r", "r+", "w+"):
        file.madvise(mmap.MADV_DONTNEED)
    return rows
