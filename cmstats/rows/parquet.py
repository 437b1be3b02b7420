"""Columns of parquet files as one matrix, decoded in batches smaller than a row group."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmstats.rows.files import PathLike, RowsOnDisk, numbered, require_pyarrow

__all__ = ["ParquetMatrix", "open_parquet"]

BATCH_BYTES = 8 << 20
"""The size of a decoded batch: a row group may be larger than memory."""


def open_parquet(
    path_or_paths: PathLike | Sequence[PathLike], columns: str | Sequence[str] | None = None
) -> ParquetMatrix:
    """Open a column of vectors, or columns of numbers, as a matrix that is read by slices.

    Parameters
    ----------
    path_or_paths : path-like or sequence of path-like
        A parquet file, a folder of numbered files (2 comes before 10), or files in their order.
    columns : str or sequence of str, optional
        One column of lists of equal lengths, or any columns of numbers. By default the one
        column of lists if there is only one, and else all columns if all are numbers.

    Returns
    -------
    ParquetMatrix
        With shape, dtype (float16 stays float16) and slicing, for every estimator.

    Raises
    ------
    ValueError
        If a file is damaged, columns are missing or not numbers, types differ from file to
        file; on reading, if lists have different lengths or entries are missing (NaN stands
        for missing numbers of floating-point columns).
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import tempfile, numpy as np, pandas as pd
    >>> from cmstats import open_parquet
    >>> frame = pd.DataFrame({"id": [7, 8], "vector": [np.ones(3, "f4"), np.zeros(3, "f4")]})
    >>> path = tempfile.mkdtemp() + "/frame.parquet"
    >>> frame.to_parquet(path)
    >>> X = open_parquet(path)
    >>> X
    ParquetMatrix(shape=(2, 3), dtype=float32, 1 file)
    >>> X[:1]
    array([[1., 1., 1.]], dtype=float32)
    """
    if not isinstance(path_or_paths, (str, os.PathLike)):
        return ParquetMatrix(path_or_paths, columns)
    path = Path(path_or_paths)
    if path.is_dir():
        return ParquetMatrix(list(numbered(path, ".parquet").values()), columns)
    return ParquetMatrix([path], columns)


class ParquetMatrix(RowsOnDisk):
    """Columns of parquet files one after another, as one matrix that is read by slices.

    Made by `open_parquet`. It remembers where the last slice ended, so that slices in order
    decode each row once; a slice elsewhere decodes from the beginning of its row group.
    """

    def __init__(
        self, paths: Sequence[PathLike], columns: str | Sequence[str] | None = None
    ) -> None:
        parquet = require_pyarrow()
        names = [os.fspath(path) for path in paths]
        if not names:
            raise ValueError("no parquet files were given")
        counts: list[int] = []
        self._groups = []
        for name in names:
            with _readable(name, sum(counts)):
                schema, groups = _schema(parquet, name)
            if name == names[0]:
                self.columns = _chosen(schema, columns, name)
                kinds = _kinds(schema, self.columns, name)
            elif _kinds(schema, self.columns, name) != kinds:
                raise ValueError(
                    f"the columns {self.columns} of {name} are of other types than those of "
                    f"{names[0]}: row {sum(counts)} in all, the first of {name}, would not fit"
                )
            self._groups.append(np.concatenate([[0], np.cumsum(groups, dtype=np.int64)]))
            counts.append(int(self._groups[-1][-1]))
        self._lists = kinds[0][0]
        dtype = np.result_type(*(kind[1] for kind in kinds))
        self._cursor: _Cursor | None = None
        self._lock = threading.Lock()
        super().__init__(names, counts, (len(self.columns),), dtype)
        if self._lists:
            width = kinds[0][2] or self._first_length()
            super().__init__(names, counts, (width,), dtype)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: no open file and no lock."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_cursor")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._cursor = threading.Lock(), None

    def _first_length(self) -> int:
        """The length of the first list, if the type does not fix it."""
        for file, count in enumerate(self.counts):
            if count:
                with _readable(self.paths[file], int(self._starts[file])):
                    batch = next(self._batches(file, 0, 1))
                    column = batch.column(0)
                return len(column[0].as_py() or ()) or 1
        return 1

    def _batches(self, file: int, group: int, rows: int) -> Iterator[Any]:
        # Without a buffer the whole row group would be read before it is decoded.
        opened = require_pyarrow().ParquetFile(self.paths[file], buffer_size=1 << 20)
        groups = list(range(group, len(self._groups[file]) - 1))
        yield from opened.iter_batches(rows, row_groups=groups, columns=self.columns)

    def _span(self, file: int, start: int, stop: int, out: np.ndarray[Any, Any]) -> None:
        with self._lock, _readable(self.paths[file], int(self._starts[file]) + start):
            cursor, self._cursor = self._cursor, None  # a failure leaves none
            if cursor is None or not cursor.reaches(file, start, self._groups[file]):
                group = int(np.searchsorted(self._groups[file], start, side="right")) - 1
                each = BATCH_BYTES // max(1, self.shape[1] * self.dtype.itemsize)
                batches = self._batches(file, group, max(1, min(each, 1 << 16)))
                cursor = _Cursor(file, int(self._groups[file][group]), batches)
            done = 0
            while done < stop - start:
                at, batch = cursor.batch(start + done)
                skip = start + done - at
                rows = batch.slice(skip, stop - start - done)
                out[done : done + len(rows)] = self._values(rows, file, start + done)
                done += len(rows)
            self._cursor = cursor

    def _values(self, batch: Any, file: int, row: int) -> np.ndarray[Any, Any]:
        """The rows of a record batch as a matrix."""
        if not self._lists:
            columns = []
            for name in self.columns:
                column = batch.column(name)
                self._check_missing(column, file, row, name)
                columns.append(column.to_numpy(zero_copy_only=False))
            return np.stack(columns, axis=1)
        column = batch.column(0)
        if column.null_count:
            first = row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise ValueError(f"{self._named(file, first)} has no vector: drop such rows first")
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.shape[1])
        if wrong.size:
            raise ValueError(
                f"{self._named(file, row + int(wrong[0]))} holds {int(lengths[wrong[0]])} values, "
                f"the first row {self.shape[1]}"
            )
        values = column.flatten()
        self._check_missing(values, file, row, self.columns[0], self.shape[1])
        found: np.ndarray[Any, Any] = values.to_numpy(zero_copy_only=False)
        return found.reshape(-1, self.shape[1])

    def _check_missing(self, values: Any, file: int, row: int, name: str, width: int = 1) -> None:
        """Raise on missing integers: only floating-point columns have NaN for them."""
        if values.null_count and self.dtype.kind != "f":
            first = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            raise ValueError(
                f"{self._named(file, row + first // width)} misses a number in the column {name}: "
                "fill it first, or write the column as floating-point numbers"
            )

    def _named(self, file: int, row: int) -> str:
        return f"row {row} of {self.paths[file]} (row {int(self._starts[file]) + row} in all)"


class _Cursor:
    """The position in a file after a slice: the current batch and an iterator over the next."""

    def __init__(self, file: int, row: int, batches: Iterator[Any]) -> None:
        self.file, self._row, self._batches = file, row, batches
        self._held: Any = None

    def reaches(self, file: int, row: int, groups: np.ndarray[Any, Any]) -> bool:
        """Whether a row lies ahead, and no whole row group before it could be skipped."""
        if file != self.file or row < self._row:
            return False
        end = self._row + (0 if self._held is None else len(self._held))
        skipped = np.searchsorted(groups, row, "right") - np.searchsorted(groups, end, "right")
        return row <= end or int(skipped) == 0

    def batch(self, row: int) -> tuple[int, Any]:
        """The batch that contains a row, after the number of its first row."""
        while self._held is None or row >= self._row + len(self._held):
            self._row += 0 if self._held is None else len(self._held)
            self._held = next(self._batches)
        return self._row, self._held


@contextlib.contextmanager
def _readable(name: str, row: int) -> Iterator[None]:
    """Turn errors of reading into a ValueError with the file's name and the row."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException, StopIteration) as error:
        what = " ".join(str(error).split()) or "it ends too soon"
        raise ValueError(
            f"{name} could not be read (row {row} in all): {what}; it is damaged, has been "
            "changed, or is no longer there"
        ) from error


def _schema(parquet: Any, name: str) -> tuple[Any, list[int]]:
    with parquet.ParquetFile(name) as file:
        meta = file.metadata
        groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        return file.schema_arrow, groups


def _chosen(schema: Any, columns: str | Sequence[str] | None, name: str) -> list[str]:
    """The columns to read: those named, or the only possible choice."""
    if columns is not None:
        wanted = [columns] if isinstance(columns, str) else list(columns)
        if not wanted:
            raise ValueError("columns is empty: name at least one")
        return wanted
    kinds = {field.name: _kind(field.type) for field in schema}
    lists = [column for column, kind in kinds.items() if kind is not None and kind[0]]
    if len(lists) == 1:
        return lists
    if not lists and kinds and all(kind is not None for kind in kinds.values()):
        return list(kinds)
    types = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise ValueError(f"which columns of {name} to read is not clear: name some of {types}")


def _kinds(schema: Any, columns: list[str], name: str) -> list[tuple[bool, Any, int]]:
    """By column: whether it holds lists, the dtype of the numbers, the length of the lists."""
    kinds = []
    for column in columns:
        if column not in schema.names:
            raise ValueError(
                f"{name} has no column {column!r}: its columns are {', '.join(schema.names)}"
            )
        type_ = schema.field(column).type
        kind = _kind(type_)
        if kind is None or (kind[0] and len(columns) > 1):
            raise ValueError(
                f"the column {column!r} of {name} is {type_}: columns must be numbers, or one "
                "column of lists of numbers"
            )
        kinds.append(kind)
    return kinds


def _kind(type_: Any) -> tuple[bool, Any, int] | None:
    from pyarrow import types

    length, lists = 0, False
    if types.is_fixed_size_list(type_):
        length = type_.list_size
    if types.is_fixed_size_list(type_) or types.is_list(type_) or types.is_large_list(type_):
        type_, lists = type_.value_type, True
    if types.is_floating(type_) or types.is_integer(type_) or types.is_boolean(type_):
        return lists, np.dtype(type_.to_pandas_dtype()), length
    return None
