"""Validate Dask arrays and frames without computing them, and call a function on their chunks.

Dask is imported only when Dask data is given.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse

from cmstats.arrays import (
    check_matrix,
    check_not_empty,
    check_weights,
    count_nonfinite,
    dense,
    describe_nonfinite,
    is_array,
    is_dask,
    needs_memory,
    to_numpy,
)
from cmstats.kernels.threads import one_core
from cmstats.rows.source import check_lengths

__all__ = [
    "Chunk",
    "by_chunk",
    "check_numeric",
    "checked_weights",
    "computed_chunks",
    "host_matrix",
    "library",
    "matrix",
    "naming_chunk",
    "numeric",
]


def library(name: str) -> Any:
    """A module of Dask."""
    return importlib.import_module(name)


def matrix(a: Any, name: str, *, ensure_finite: Any = False) -> Any:
    """A Dask array of shape (n, p) with chunks of rows of known lengths and one chunk of columns.

    Only unknown lengths of chunks are computed.

    Raises
    ------
    ValueError
        If it is no matrix of real numbers, has no row or no column, or `ensure_finite` is set,
        which would need the rows.
    """
    a = numeric(a, name)
    if ensure_finite:
        raise needs_memory(name)
    a = _with_lengths(a)
    a = a[:, None] if a.ndim == 1 else a.rechunk({1: -1})
    check_not_empty(a, name)
    return a


def computed_chunks(a: Any, name: str) -> Iterator[Any]:
    """The chunks of rows of a Dask array or frame in memory, one after the other."""
    a = numeric(a, name)
    a = a if a.ndim == 1 else a.rechunk({1: -1})
    for i in range(a.numblocks[0]):
        part = a.blocks[i].compute()
        if part.shape[0]:  # a filter may leave a chunk empty
            yield part


def _with_lengths(a: Any) -> Any:
    """A Dask array with chunks of known lengths, computed where they are not."""
    if np.isnan(a.chunks[0]).any():
        a = a.copy()  # lengths are written into the array
        a.compute_chunk_sizes()
    return a


def numeric(a: Any, name: str) -> Any:
    """A Dask array or frame as a Dask array of one or two dimensions, not computed."""
    da = library("dask.array")

    if hasattr(a, "map_partitions") and not isinstance(a, da.Array):
        check_numeric(a, name)
        dtypes = _dtypes(a).values()
        plain = all(isinstance(t, np.dtype) for t in dtypes)
        a = (a if plain else a.astype("float64")).to_dask_array()
    if not isinstance(a, da.Array):
        raise TypeError(f"{name} is a Dask {type(a).__name__}: pass a Dask array or a Dask frame")
    if a.ndim not in (1, 2):
        raise ValueError(f"{name} must be two-dimensional (rows are items), got shape {a.shape}")
    if a.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {a.dtype}")
    if a.dtype.kind not in "biufV":
        raise ValueError(f"{name} holds {a.dtype} values, not real numbers")
    return a


def _dtypes(frame: Any) -> dict[Any, Any]:
    return {frame.name: frame.dtype} if frame.ndim == 1 else dict(frame.dtypes)


def check_numeric(frame: Any, name: str) -> None:
    """Raise if a column of a Dask frame is not numeric."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    for column, dtype in _dtypes(frame).items():
        if not (is_numeric_dtype(dtype) or is_bool_dtype(dtype)):
            raise ValueError(
                f"{name} holds {dtype} values, not numbers, in column {column!r}: encode text as "
                "numbers first, or leave the column out"
            )


@dataclass(frozen=True)
class Chunk:
    """The rows of one task: one chunk, or neighbouring chunks put together.

    Attributes
    ----------
    start : int or None
        The number of the first row; None if the lengths of chunks are not known.
    number : int
        The number of the first chunk.
    lengths : tuple of int
        Of the chunks.
    """

    start: int | None
    number: int
    lengths: tuple[int, ...] = ()

    def number_of(self, row: int) -> int:
        """The number of the chunk that holds a row."""
        ends = (self.start or 0) + np.cumsum(self.lengths)
        return self.number + int(np.searchsorted(ends, row, side="right"))


def by_chunk(
    function: Callable[[dict[str, Any], Any, Any, Chunk], Any],
    blocks: Mapping[str, Any],
    *,
    sample_weight: Any = None,
    ids: Any = None,
    least: int = 1,
) -> list[Any]:
    """Delayed calls ``function(named, weights, ids, chunk)``, one for each chunk of rows.

    Parameters
    ----------
    function : callable
        Runs where the rows are, on one core.
    blocks : mapping of name to array-like, at least one a Dask array or frame
        All are cut into the chunks of the first Dask array.
    sample_weight, ids : arrays of shape (n,), optional
    least : int
        Neighbouring chunks are put together until they have this many rows.

    Raises
    ------
    ValueError
        If lengths differ, or a block is no matrix of real numbers.
    """
    dask = library("dask")
    checked = {k: matrix(a, k) if is_dask(a) else host_matrix(a, k) for k, a in blocks.items()}
    check_lengths(checked)
    first = next(a for a in checked.values() if is_dask(a))
    chunks = _put_together(first.chunks[0], max(1, least))
    lengths = tuple(sum(chunk.lengths) for chunk in chunks)
    given = [*checked.values(), checked_weights(sample_weight, sum(lengths)), ids]
    cut = [None if a is None else _cut(a, lengths) for a in given]
    # Optimised together: what two blocks are made from is computed once.
    lazy = iter(dask.optimize(*(a for a in cut if a is not None)))
    columns: list[Any] = [
        [None] * len(chunks) if a is None else next(lazy).to_delayed(optimize_graph=False).ravel()
        for a in cut
    ]
    task = dask.delayed(_on_one_core, pure=False)
    name = f"moments-{uuid.uuid4().hex}"
    return [
        task(
            function, dict(zip(checked, parts, strict=True)), weights, fold, chunk,
            dask_key_name=(name, i),
        )
        for i, (chunk, *parts, weights, fold) in enumerate(zip(chunks, *columns, strict=True))
    ]  # fmt: skip


def _on_one_core(function: Callable[..., Any], *arguments: Any) -> Any:
    with one_core():
        return function(*arguments)


def _put_together(lengths: Sequence[int], least: int) -> list[Chunk]:
    """Neighbouring chunks merged until each has at least this many rows."""
    chunks: list[Chunk] = []
    start, held, number = 0, [], 0
    for i, length in enumerate(map(int, lengths)):
        held.append(length)
        if sum(held) >= least:
            chunks.append(Chunk(start, number, tuple(held)))
            start, held, number = start + sum(held), [], i + 1
    if held and not chunks:
        chunks.append(Chunk(0, 0, tuple(held)))
    elif held:
        chunks[-1] = replace(chunks[-1], lengths=(*chunks[-1].lengths, *held))
    return chunks


def host_matrix(a: Any, name: str) -> Any:
    """Check a block that is no Dask array, given beside one; its rows are sent to the tasks."""
    if scipy.sparse.issparse(a):
        raise TypeError(
            f"{name} is a sparse matrix beside a Dask array: make it one with "
            f"dask.array.from_array({name}, chunks=...)"
        )
    if all(hasattr(a, k) for k in ("shape", "dtype", "ndim")) and not hasattr(a, "iloc"):
        return a if a.ndim == 2 else check_matrix(np.asarray(a), name, ensure_finite=False)
    return check_matrix(a, name, ensure_finite=False)


def _cut(a: Any, lengths: tuple[int, ...]) -> Any:
    """A Dask array with chunks of rows of these lengths."""
    chunks = (lengths,) if a.ndim == 1 else (lengths, (int(a.shape[1]),))
    return a.rechunk(chunks) if is_dask(a) else library("dask.array").from_array(a, chunks=chunks)


def checked_weights(sample_weight: Any, n: int) -> Any:
    """Weights that can be cut into chunks; the tasks check the values of a Dask array."""
    if sample_weight is None:
        return None
    if not is_dask(sample_weight):
        if np.isscalar(sample_weight):
            check_weights(sample_weight, 1)
            return library("dask.array").full((n,), float(sample_weight))  # type: ignore[arg-type]
        weights = sample_weight if is_array(sample_weight) else np.asarray(sample_weight)
        return to_numpy(check_weights(weights, n))
    weights = _with_lengths(numeric(sample_weight, "sample_weight"))
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {tuple(weights.shape)}, expected ({n},): one weight a row"
        )
    return weights


@contextmanager
def naming_chunk(named: Mapping[str, Any], chunk: Chunk, missing: Any) -> Iterator[None]:
    """Add the chunk, and the row among all, to errors about the rows of a task."""
    try:
        yield
    except ValueError as error:
        for name, part in named.items():
            nan, inf, first = count_nonfinite(dense(part), chunk.start or 0, nan=missing != "em")
            if (nan or inf) and first is not None:
                words = describe_nonfinite(name, nan, inf, first, ", or set missing='em'")
                where = f"in Dask chunk {chunk.number_of(first[0])}"
                raise ValueError(f"{words} ({where})") from None
        where = f"in Dask chunk {chunk.number}, whose first row is row {chunk.start}"
        raise ValueError(f"{error} ({where})") from None
