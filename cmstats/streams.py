"""Blocks of rows out of whatever holds them: arrays, memory-maps, things that slice.

Anything with ``shape``, ``dtype`` and slicing (a memory-map, an HDF5 or zarr array) is read
run by run and never whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from cmstats._array import Array, check_matrix, is_array, is_numpy, namespace, row_slices, take_rows

__all__ = ["batches", "check_blocks", "check_weights", "chunks", "is_lazy"]

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
    rows = {name: a.shape[0] for name, a in checked.items()}
    if len(set(rows.values())) > 1:
        shapes = " and ".join(f"{name} has shape {tuple(a.shape)}" for name, a in checked.items())
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {shapes}; each row is "
            "one item, so all blocks need the same number of rows"
        )
    n = next(iter(rows.values()))
    if n < minimum:
        raise ValueError(
            f"Found array with n_samples={n} (n_samples = {n}) while a minimum of {minimum} is "
            f"required: {n} sample has no variance"
        )
    namespace(*(a for a in checked.values() if is_array(a)))
    return checked


def check_weights(weights: Any, n: int, like: Array | None = None) -> Array | None:
    """Frequency weights of n rows: finite, not negative, not all zero.

    A single number counts as that weight for every row.
    """
    if weights is None:
        return None
    if np.isscalar(weights):
        weights = np.full(n, float(weights))  # type: ignore[arg-type]
    if not is_array(weights):
        weights = np.asarray(weights)
    xp = namespace(weights)
    if is_numpy(xp) and weights.dtype.kind not in "biuf":
        raise ValueError(f"sample_weight must be numbers, got dtype {weights.dtype}")
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {tuple(weights.shape)}, expected ({n},): one weight a row"
        )
    weights = xp.astype(weights, xp.float64)
    if not bool(xp.all(xp.isfinite(weights))):
        raise ValueError("sample_weight has NaN or infinite values")
    if bool(xp.any(weights < 0)):
        raise ValueError("sample_weight has negative values: weights count how often a row stands")
    if not bool(xp.any(weights > 0)):
        raise ValueError("sample_weight is zero everywhere: no row is left")
    if like is not None and not is_numpy(namespace(like)) and is_numpy(xp):
        target = namespace(like)
        weights = target.asarray(weights, device=like.device)
    return weights


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
    if is_lazy(block):
        part = np.asarray(part)
    return part.reshape(-1, 1) if part.ndim == 1 else part


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
