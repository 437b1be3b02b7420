"""Blocks of rows out of whatever holds them: arrays, memory-maps, things that slice.

Anything with ``shape``, ``dtype`` and slicing (a memory-map, an HDF5 or zarr array) is read
run by run and never whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from cmstats._array import (
    Array,
    check_matrix,
    count_nonfinite,
    describe_nonfinite,
    is_array,
    namespace,
    result_dtype,
    row_slices,
    take_rows,
)

__all__ = ["batches", "check_blocks", "check_lengths", "check_rows", "chunks", "is_lazy", "project"]

CHUNK_BYTES = 128 << 20
"""How many bytes of rows one run holds."""


def is_lazy(a: Any) -> bool:
    """Whether `a` is an array-like on a disk or elsewhere, to be read by slices."""
    if is_array(a):
        return isinstance(a, np.memmap)
    if scipy.sparse.issparse(a) or hasattr(a, "iloc") or hasattr(a, "to_pandas"):
        return False
    return all(hasattr(a, name) for name in ("shape", "dtype", "__getitem__", "ndim"))


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
) -> Iterator[tuple[int, list[Any], Array | None]]:
    """Runs of rows: (number of the first row, the blocks' rows, their weights).

    Parameters
    ----------
    blocks : sequence of array-likes of equally many rows
    weights : array of shape (n,), optional
    rows : int, optional
        Rows in a run; by default about 128 MiB of them.
    """
    n = int(blocks[0].shape[0])
    if rows is None:
        width = sum(_row_bytes(b) for b in blocks)
        rows = max(1024, CHUNK_BYTES // max(1, width))
    for take in row_slices(n, rows):
        yield (
            take.start,
            [_read(b, take) for b in blocks],
            None if weights is None else weights[take],
        )


def _row_bytes(block: Any) -> int:
    width = 1 if block.ndim == 1 else int(block.shape[1])
    return width * int(getattr(block.dtype, "itemsize", 8))


def _read(block: Any, take: slice) -> Any:
    part = take_rows(block, take)
    if is_lazy(part):
        part = np.asarray(part)
    return part.reshape(-1, 1) if part.ndim == 1 else part


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
            check_rows(part, name, start)
        parts.append(xp.matmul(xp.astype(part, dtype) - mean, weights))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


def check_rows(part: Array, name: str, start: int) -> None:
    """Raise the one sentence about values that are not finite in a run of rows."""
    nan, inf, first = count_nonfinite(part, start)
    if nan or inf:
        raise ValueError(describe_nonfinite(name, nan, inf, first))


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
