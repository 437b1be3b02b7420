"""Matrices whose rows lie in several files one after another: what indexing makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

__all__ = ["RowsOnDisk", "numbered"]

Rows: TypeAlias = np.ndarray[Any, Any]

GAP_BYTES = 64 << 10
"""Rows nearer to each other than this are read together with what lies between them."""

SPAN_BYTES = 8 << 20
"""How much is read at once to pick rows out of it."""

NUMBER = re.compile(r"(.*?)(\d+)$")


class RowsOnDisk:
    """A matrix (or a vector) of numbers whose rows are read from files when they are sliced.

    A subclass sets what `__init__` takes and says how consecutive rows are read, in `_span`.
    """

    def __init__(
        self, paths: Sequence[str], counts: Sequence[int], width: tuple[int, ...], dtype: Any
    ) -> None:
        self.paths = tuple(paths)
        self.counts = tuple(int(count) for count in counts)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._starts = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *width)
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """The bytes of all values together."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        files = "1 file" if len(self.paths) == 1 else f"{len(self.paths)} files"
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype}, {files})"

    def locate(self, row: int) -> str:
        """Where a row lies: ``"row 17 of img_emb/img_emb_3.npy"``."""
        file = self._file_of(row)
        return f"row {row - int(self._starts[file])} of {self.paths[file]}"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Rows:
        if copy is False:
            raise ValueError(f"{self!r} lies on a disk: it cannot be an array without a copy")
        return np.asarray(self._run(0, len(self)), dtype=dtype)

    def __getitem__(self, at: Any) -> Any:
        first, *others = at if isinstance(at, tuple) else (at,)
        if first is Ellipsis:
            first, others = slice(None), [first, *others]
        rows = self._rows(first)
        return (
            rows[(slice(None),) * (rows.ndim - self.ndim + 1) + tuple(others)] if others else rows
        )

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def _rows(self, at: Any) -> Any:
        n = len(self)
        if isinstance(at, slice):
            start, stop, step = at.indices(n)
            if step == 1:
                return self._run(start, max(start, stop))
            return self._gather(np.arange(start, stop, step))
        index = np.asarray(at)
        if index.dtype == bool:
            if index.shape != (n,):
                raise IndexError(f"a mask of shape {index.shape} for {n} rows")
            index = np.flatnonzero(index)
        elif index.size == 0:
            index = index.astype(np.intp)
        if index.dtype.kind not in "iu" or index.ndim > 1:
            raise IndexError(f"rows are chosen by slices, numbers or masks, got {at!r}")
        outside = (index < -n) | (index >= n)
        if outside.any():
            raise IndexError(f"row {index[outside].flat[0]} is out of bounds for {n} rows")
        index = np.where(index < 0, index + n, index).astype(np.intp)
        return self._gather(index) if index.ndim else self._run(int(index), int(index) + 1)[0]

    def _gather(self, index: Rows) -> Rows:
        """Rows in any order, each read once from its place and with its neighbours."""
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        order = np.argsort(index, kind="stable")
        wanted = index[order]
        row_bytes = max(1, self.dtype.itemsize * int(np.prod(self.shape[1:])))
        apart = np.diff(wanted) > max(1, GAP_BYTES // row_bytes)
        apart |= np.diff(wanted // max(1, SPAN_BYTES // row_bytes)) > 0
        for part in np.split(np.arange(index.size), np.flatnonzero(apart) + 1):
            if part.size:
                start, last = int(wanted[part[0]]), int(wanted[part[-1]])
                out[order[part]] = self._run(start, last + 1)[wanted[part] - start]
        return out

    def _run(self, start: int, stop: int) -> Rows:
        """The rows from `start` to before `stop`, from as many files as they lie in."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        at = start
        while at < stop:
            file = self._file_of(at)
            end = min(stop, int(self._starts[file + 1]))
            offset = int(self._starts[file])
            self._span(file, at - offset, end - offset, out[at - start : end - start])
            at = end
        return out

    def _file_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _span(self, file: int, start: int, stop: int, out: Rows) -> None:
        """Read the rows from `start` to before `stop` of a file into `out`."""
        raise NotImplementedError


def numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """The files ``NAME_0``, ``NAME_1``, ... of a folder by their number, in its order.

    Raises
    ------
    ValueError
        If there are none, a number is missing or there twice, or a file has no number or
        another name.
    """
    files = sorted(p for p in folder.glob(f"*{suffix}") if not p.name.startswith("."))
    found: dict[int, Path] = {}
    name = None
    for path in files:
        match = NUMBER.match(path.name.removesuffix(suffix))
        if match is None:
            if len(files) == 1:
                return {0: path}
            raise ValueError(
                f"{path} has no number, so its place among the {len(files)} files of {folder} is "
                "not known: pass a list of files in their order"
            )
        stem, number = match[1], int(match[2])
        name = stem if name is None else name
        if stem != name:
            raise ValueError(
                f"{folder} holds {name}*{suffix} and {stem}*{suffix}: pass a list of files"
            )
        if number in found:
            raise ValueError(f"{found[number]} and {path} have the same number: remove one")
        found[number] = path
    if not found:
        raise ValueError(f"{folder} holds no {suffix} files")
    missing = next((i for i in range(len(found)) if i not in found), None)
    if missing is not None:
        raise ValueError(
            f"{folder / f'{name}{missing}{suffix}'} is missing: {folder} has {len(found)} shards "
            f"with numbers up to {max(found)}, so the rows after it would be paired wrongly; "
            "restore it, or pass a list of files"
        )
    return dict(sorted(found.items()))
