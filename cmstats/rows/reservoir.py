"""A uniform sample of the paired rows of each fold, for scores that moments do not give.

The row of number i, counted from the first row of a fit, a stream or a sequence of partial fits,
has a key that is a hash of i; the rows of the smallest keys are kept. The sample is therefore the
same however the rows come, and samples of parts merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse

from cmstats.arrays import is_dask, is_lazy, namespace, take_rows, to_numpy
from cmstats.rows.source import in_memory
from cmstats.rows.splits import Folds

__all__ = ["QUERIES", "Sample", "merged_samples", "sample_folds", "sampled_stream"]

HostArray = np.ndarray[Any, Any]

QUERIES = 2000
"""The rows kept of each fold at most."""

Sample: TypeAlias = dict[str, Any]
"""Rows by block, beside "weights" and "keys" under `WEIGHTS` and `KEYS`."""

WEIGHTS, KEYS = ".weights", ".keys"


def sample_folds(
    blocks: Mapping[str, Any],
    folds: Folds,
    weights: Any = None,
    *,
    start: int = 0,
    size: int = QUERIES,
) -> list[Sample]:
    """The sampled rows of each fold: those in which everything is observed, of positive weight.

    Parameters
    ----------
    blocks : mapping of name to checked rows
    folds : Folds
    weights : array of shape (n,), optional
    start : int
        The number of rows of positive weight that came before.
    size : int
        How many rows are kept of a fold at most.
    """
    n = int(next(iter(blocks.values())).shape[0])
    weights = weights.compute() if is_dask(weights) else weights
    heavy = np.ones(n) if weights is None else to_numpy(weights).astype(np.float64)
    usable = heavy > 0
    numbers = start + np.cumsum(usable) - 1  # a row of weight 0 is none
    for a in blocks.values():
        if not is_lazy(a) and not is_dask(a) and not scipy.sparse.issparse(a):
            usable &= _complete(a)
    keys, ids = _hashed(numbers), folds.numbers(n, weights)
    chosen = np.zeros(n, dtype=bool)
    for k in range(folds.count):
        at = np.flatnonzero(usable & (ids == k))
        chosen[at[np.argsort(keys[at], kind="stable")[:size]]] = True
    # Rows of all folds are read at once; one at least, which shows what rows are like.
    at = np.flatnonzero(chosen) if chosen.any() else np.zeros(1, dtype=np.int64)
    rows = {name: _taken(a, at) for name, a in blocks.items()}
    whole = np.logical_and.reduce([_complete(a) for a in rows.values()]) & chosen[at]
    found = []
    for k in range(folds.count):
        mine = np.flatnonzero(whole & (ids[at] == k))
        taken = {name: take_rows(a, mine) for name, a in rows.items()}
        found.append({**taken, WEIGHTS: heavy[at[mine]], KEYS: keys[at[mine]]})
    return found


def merged_samples(
    before: list[Sample] | None, new: list[Sample], *, size: int = QUERIES
) -> list[Sample]:
    """The samples of each fold of the rows of both."""
    return new if before is None else [_both(a, b, size) for a, b in zip(before, new, strict=True)]


def sampled_stream(
    batches: Iterable[dict[str, Any]], folds: Folds, into: list[Sample]
) -> Iterator[dict[str, Any]]:
    """The batches as they come; `into` is filled with the samples of the folds meanwhile."""
    start = 0
    for blocks in batches:
        stop = start + int(next(iter(blocks.values())).shape[0])
        new = sample_folds(blocks, folds.part(start, stop), start=start)
        into[:] = merged_samples(into or None, new)
        yield blocks
        start = stop


def _both(a: Sample, b: Sample, size: int) -> Sample:
    keys = np.concatenate([a[KEYS], b[KEYS]])
    at = np.sort(np.argsort(keys, kind="stable")[:size])
    return {name: take_rows(_stacked(a[name], b[name]), at) for name in a}


def _stacked(a: Any, b: Any) -> Any:
    if scipy.sparse.issparse(a):
        return scipy.sparse.vstack([a, b], format="csr")
    return namespace(a, b).concat([a, b], axis=0)


def _taken(a: Any, at: HostArray) -> Any:
    """Rows at positions, in memory, a vector as one column."""
    part = take_rows(a, at)
    part = part.compute() if is_dask(part) else in_memory(part)
    return namespace(part).reshape(part, (-1, 1)) if part.ndim == 1 else part


def _complete(a: Any) -> HostArray:
    """Whether everything in a row is observed."""
    if scipy.sparse.issparse(a):
        return ~to_numpy(np.isnan(np.asarray(a.sum(axis=1)).ravel()))
    xp = namespace(a)
    if not xp.isdtype(a.dtype, "real floating"):
        return np.ones(int(a.shape[0]), dtype=bool)
    gaps = xp.isnan(a)
    return ~to_numpy(xp.any(gaps, axis=1) if a.ndim == 2 else gaps)


def _hashed(numbers: HostArray) -> HostArray:
    """A key for each row number, as good as random: SplitMix64 (Steele, Lea and Flood 2014)."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: HostArray = z ^ (z >> np.uint64(31))
    return mixed
