"""Blocks of rows out of whatever holds them: arrays, memory-maps, things that slice.

Anything with ``shape``, ``dtype`` and slicing (a memory-map, an HDF5 or zarr array) is read
run by run and never whole; a background thread reads the next run while one is in use.
"""

from __future__ import annotations

import contextvars
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse

from cmstats.arrays import (
    Array,
    check_rows,
    is_array,
    is_lazy,
    namespace,
    position,
    result_dtype,
    row_slices,
    take_rows,
)
from cmstats.rows.matrix import check_matrix
from cmstats.rows.progress import progress_bar

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
"""How many bytes of rows one run holds."""

READ_BYTES = 64 << 20
"""The same where rows are read from a disk: there are up to three runs at a time then."""

Run: TypeAlias = tuple[int, list[Any], Array | None]


def check_blocks(blocks: Mapping[str, Any], *, minimum: int = 1) -> dict[str, Any]:
    """Matrices of equally many rows, validated without touching more than their shape.

    Values that are not finite are found by the pass that reads them.

    Raises
    ------
    ValueError
        With the shapes, if the numbers of rows differ or are below `minimum`.
    """
    checked = {}
    for name, a in blocks.items():
        if is_lazy(a):
            if a.ndim not in (1, 2) or 0 in a.shape:
                raise ValueError(
                    f"{name} must be a matrix with at least one row and one column, got shape "
                    f"{tuple(a.shape)}"
                )
            if np.dtype(a.dtype).kind not in "biufV":
                raise ValueError(f"{name} holds {a.dtype} values, not real numbers")
            checked[name] = a
        else:
            checked[name] = check_matrix(a, name, ensure_finite=False)
    check_lengths(checked)
    n = next(iter(checked.values())).shape[0]
    if n < minimum:
        raise ValueError(
            f"Found array with n_samples={n} (n_samples = {n}) while a minimum of {minimum} is "
            f"required: {n} sample has no variance"
        )
    namespace(*(a for a in checked.values() if is_array(a)))
    return checked


def check_lengths(blocks: Mapping[str, Any]) -> None:
    """Raise, with the shapes, where blocks have different numbers of rows."""
    if len({a.shape[0] for a in blocks.values()}) > 1:
        shapes = " and ".join(f"{name} has shape {tuple(a.shape)}" for name, a in blocks.items())
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {shapes}; each row is "
            "one item, so all blocks need the same number of rows"
        )


def chunks(
    blocks: Sequence[Any], weights: Array | None = None, *, rows: int | None = None
) -> Iterator[Run]:
    """Runs of rows: (number of the first row, the blocks' rows, their weights).

    Where a block is lazy, a background thread reads the next run while one is in use. An error
    of reading is raised at the run it belongs to; the thread ends with the iterator.

    Parameters
    ----------
    blocks : sequence of array-likes of equally many rows
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
    runs = (
        (take.start, [_read(b, take) for b in blocks], None if weights is None else weights[take])
        for take in row_slices(n, rows)
    )
    return _ahead(runs) if lazy and n > rows else runs


def _ahead(runs: Iterator[Run]) -> Iterator[Run]:
    """The same runs, each read by a background thread while the one before is in use."""
    context = contextvars.copy_context()  # np.errstate is the caller's there too

    def read() -> Run | None:
        return context.run(lambda: next(runs, None))

    with ThreadPoolExecutor(1, thread_name_prefix="cmstats-read") as reader:
        run: Run | None
        coming = reader.submit(read)
        while (run := coming.result()) is not None:
            coming = reader.submit(read)
            yield run
            run = None  # or one run more than needed would be kept while waiting


def _row_bytes(block: Any) -> int:
    width = 1 if block.ndim == 1 else int(block.shape[1])
    return width * int(getattr(block.dtype, "itemsize", 8))


def _read(block: Any, take: slice) -> Any:
    part = in_memory(take_rows(block, take))
    return part.reshape(-1, 1) if part.ndim == 1 else part


def in_memory(part: Any) -> Any:
    """Rows taken from anywhere, read here and now; what is in memory already is left as it is.

    A memory-map's pages, which count as this process's memory as long as it lives, are given
    back. They stay in the system's page cache; of a private map ("c") changes would be lost.
    """
    if not is_lazy(part):
        return part
    rows = np.array(part)  # or a map would be read page by page when it is multiplied
    file = getattr(part, "_mmap", None)
    if file is not None and hasattr(file, "madvise") and part.mode in ("r", "r+", "w+"):
        file.madvise(mmap.MADV_DONTNEED)
    return rows


def project(X: Any, mean: Array, weights: Array, name: str = "X") -> Array:
    """``(X - mean) @ weights`` in the precision of `X`, a run of rows at a time.

    Raises
    ------
    ValueError
        If rows read from a disk are not finite.
    """
    if scipy.sparse.issparse(X):
        dtype = result_dtype(X.data)
        return np.asarray(X @ weights.astype(dtype)) - (mean @ weights).astype(dtype)
    xp = namespace(weights) if is_lazy(X) else namespace(X, weights)
    dtype = result_dtype(np.empty(0, X.dtype) if is_lazy(X) else X)
    # The centre is taken off first: after the product it would cancel digits.
    mean, weights = xp.astype(mean, dtype), xp.astype(weights, dtype)
    parts = []
    for start, (part,), _ in chunks([X]):
        if is_lazy(X):
            check_rows(part, name, start, X)
        parts.append((xp.astype(part, dtype) - mean) @ weights)
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


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
        shape = [(name, 1 if a.ndim == 1 else int(a.shape[1])) for name, a in named.items()]
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
        Whether to show a progress bar (tqdm).

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
    with progress_bar(progress, "rows", "row", total=n, scale=True) as bar:
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
