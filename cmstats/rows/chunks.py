"""Runs of rows of any source, and batches of a stream.

Sources on a disk (a memory-map, an HDF5 or zarr array, shards) are read a run at a time, never
whole; a background thread reads the next run while one is in use.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse

from cmstats.arrays import (
    Array,
    check_rows,
    dense,
    detached,
    in_range,
    is_array,
    is_lazy,
    namespace,
    position,
    result_dtype,
    row_slices,
)
from cmstats.rows.matrix import check_source
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.progress import check_shown, progress_bar
from cmstats.rows.source import RowSource, check_lengths, in_memory, take_in_memory, width_of

__all__ = [
    "batches",
    "check_blocks",
    "check_lengths",
    "check_rows",
    "chunks",
    "in_memory",
    "is_lazy",
    "map_rows",
    "position",
    "project",
]

CHUNK_BYTES = 128 << 20
"""Bytes of the rows of one run."""

READ_BYTES = 64 << 20
"""The same for sources on a disk, of which up to three runs are in memory at a time."""

Run: TypeAlias = tuple[int, list[Any], Array | None]


def check_blocks(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Matrices of equally many rows, validated by shape and dtype only.

    NaN and infinity are found by the pass that reads the rows.

    Raises
    ------
    ValueError
        With the shapes, if the numbers of rows differ.
    """
    check_row_labels(blocks)
    checked = {
        name: check_source(detached(a), name, ensure_finite=False) for name, a in blocks.items()
    }
    check_lengths(checked)
    namespace(*(a for a in checked.values() if is_array(a)))
    return checked


def chunks(
    blocks: Sequence[RowSource], weights: Array | None = None, *, rows: int | None = None
) -> Iterator[Run]:
    """Runs of rows: (number of the first row, the blocks' rows, their weights).

    Where a block is lazy, a background thread reads the next run while one is in use. An error
    of reading is raised at the run it belongs to; the thread ends with the iterator.

    Parameters
    ----------
    blocks : sequence of RowSource of equally many rows
    weights : array of shape (n,), optional
    rows : int, optional
        Rows in a run; by default about 128 MiB of them, and 64 MiB where a block is lazy.
    """
    n = int(blocks[0].shape[0])
    lazy = any(is_lazy(b) for b in blocks)
    if rows is None:
        width = sum(_row_bytes(b) for b in blocks)
        size = min(CHUNK_BYTES, READ_BYTES) if lazy else CHUNK_BYTES
        rows = max(1024, size // max(1, width))
    runs = (_read(blocks, weights, take) for take in row_slices(n, rows))
    return _ahead(runs) if lazy and n > rows else runs


def _read(blocks: Sequence[RowSource], weights: Array | None, rows: slice) -> Run:
    parts = [take_in_memory(block, rows) for block in blocks]
    return rows.start, parts, None if weights is None else weights[rows]


def _ahead(runs: Iterator[Run]) -> Iterator[Run]:
    """The same runs, each read by a background thread while the one before is in use."""
    context = contextvars.copy_context()  # np.errstate of the caller holds in the thread too

    def read() -> Run | None:
        return context.run(lambda: next(runs, None))

    with ThreadPoolExecutor(1, thread_name_prefix="cmstats-read") as reader:
        run: Run | None
        coming = reader.submit(read)
        while (run := coming.result()) is not None:
            coming = reader.submit(read)
            yield run
            run = None  # else a third run would stay in memory during the wait


def _row_bytes(block: RowSource) -> int:
    return width_of(block) * int(getattr(block.dtype, "itemsize", 8))


def project(X: Any, mean: Array, weights: Array, name: str = "X") -> Array:
    """``(X - mean) @ weights`` in the precision of `X`, a run of rows at a time.

    Raises
    ------
    ValueError
        If rows read from a disk are not finite.
    """
    if scipy.sparse.issparse(X):
        dtype = result_dtype(X)
        return np.asarray(X @ weights.astype(dtype)) - (mean @ weights).astype(dtype)
    xp = namespace(weights) if is_lazy(X) else namespace(X, weights)
    dtype = result_dtype(X)
    # Weights of data of an extreme size are beyond single precision, their results are not.
    largest = float(xp.max(xp.abs(weights))) if weights.shape[0] and weights.shape[1] else 0.0
    work = dtype if largest == 0 or 1e-30 < largest < 1e30 else xp.float64
    # The mean is subtracted before the product: afterwards digits would cancel.
    mean, weights = xp.astype(mean, work), xp.astype(weights, work)
    parts = []
    for start, (part,), _ in chunks([X]):
        part = dense(part)
        if is_lazy(X):
            check_rows(part, name, start, X)
        parts.append((xp.astype(part, work) - mean) @ weights)
    found = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
    return found if work == dtype else in_range(found, dtype)


def batches(source: Iterable[Any], names: Sequence[str] = ("x", "y")) -> Iterator[dict[str, Any]]:
    """Batches as dicts of named matrices, out of an iterable of tuples or dicts.

    Raises
    ------
    ValueError
        If a batch has another number or other names of blocks than the first, or blocks of
        different lengths; the number of the batch is in the message.
    """
    expected: list[tuple[str, int]] | None = None
    for number, batch in enumerate(source):
        if isinstance(batch, Mapping):
            named = dict(batch)
        elif isinstance(batch, (tuple, list)):
            if len(batch) > len(names):
                raise ValueError(
                    f"batch {number} has {len(batch)} blocks, but only the names {tuple(names)} "
                    "are known: yield dicts of named blocks"
                )
            named = dict(zip(names, batch, strict=False))
        else:
            raise TypeError(
                f"batch {number} is a {type(batch).__name__}: yield tuples (x, y) or dicts of "
                "named blocks"
            )
        if not named:
            raise ValueError(f"batch {number} has no blocks")
        if all(getattr(a, "shape", (1,))[:1] == (0,) for a in named.values()):
            continue  # an empty batch adds nothing
        try:
            named = check_blocks(named)
        except ValueError as error:
            raise ValueError(f"batch {number}: {error}") from None
        shape = [(name, width_of(a)) for name, a in named.items()]
        if expected is None:
            expected = shape
        elif dict(shape) != dict(expected):
            raise ValueError(
                f"batch {number} has blocks {dict(shape)} (name: columns), the first had "
                f"{dict(expected)}"
            )
        yield {name: named[name] for name, _ in expected}


def map_rows(
    function: Callable[..., Any], *sources: Any, rows: int | None = None, progress: bool = False
) -> Iterator[Any]:
    """``function(rows of each source)`` run by run: what does not fit in memory goes through.

    Parameters
    ----------
    function : callable
        Takes as many arrays of equally many rows as there are sources, for example
        ``cca.transform``.
    *sources : array-likes of equally many rows
        In memory or on a disk; the next run is read while `function` is at work.
    rows : int, optional
        Rows in a run; by default about 64 MiB of them.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    iterator
        What `function` returned for each run, in order.

    Raises
    ------
    ValueError
        If the sources have different numbers of rows. An error that `function` raises names
        the file and row where values are not finite, and notes the rows of the run.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import map_rows
    >>> X = np.arange(10.0).reshape(5, 2)
    >>> [part.shape for part in map_rows(lambda rows: rows[:, :1], X, rows=2)]
    [(2, 1), (2, 1), (1, 1)]
    """
    check_shown("progress", progress)
    if not sources:
        raise TypeError("map_rows needs at least one source of rows")
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    names = ("X", "y") if len(sources) <= 2 else tuple(f"source {i}" for i in range(len(sources)))
    blocks = check_blocks(dict(zip(names, sources, strict=False)))
    flat = [len(getattr(a, "shape", None) or np.shape(a)) == 1 for a in sources]
    return _mapped(function, blocks, flat, rows, progress)


def _mapped(
    function: Callable[..., Any],
    blocks: dict[str, Any],
    flat: Sequence[bool],
    rows: int | None,
    progress: bool,
) -> Iterator[Any]:
    sources = list(blocks.values())
    n = int(sources[0].shape[0])
    with progress_bar(progress, "rows", " rows", total=n, scale=True) as bar:
        for start, parts, _ in chunks(sources, rows=rows):
            given = [part[:, 0] if one else part for part, one in zip(parts, flat, strict=True)]
            try:
                result = function(*given)
            except ValueError as error:
                # A row number of the run would be taken for one of the whole matrix.
                for (name, block), part in zip(blocks.items(), parts, strict=True):
                    check_rows(part, name, start, block)
                error.add_note(f"in the run of rows {start} to {start + parts[0].shape[0] - 1}")
                raise
            bar.update(parts[0].shape[0])
            yield result
