"""Moments of Dask arrays and frames: one task for each chunk of rows, merged by a tree.

Rows stay where they are. A task makes `Moments` of a chunk, `FAN_IN` of them are merged at a time,
and what travels is O(d^2) times the number of folds; chunks with fewer rows than that is worth are
put together first. Each task runs on one core, so there should be at least as many chunks as
cores. The tree is fixed by the chunks: a task that is repeated because a worker was lost gives
the same digits. Methods that map rows to rows are in `models.dask`.

- All models that are fitted by moments take Dask data in fit, partial_fit and score: `Moments`,
  CCA, MultiviewCCA, ConditionalGaussian, LinearAutoencoder, MultitaskRegressor, MomentsSearchCV,
  and TwoViewPipeline around these if its transformers need no fitting.
- ConditionalGaussianMixture, SemanticMatching, KernelCCA and the baselines need their rows in
  memory: they are fitted to a sample, and then take Dask data in row-wise methods. (A kernel CCA
  of all rows is CCA on ``NystroemMap().fit(sample).transform(dX)``.)
"""

from __future__ import annotations

import functools
import operator
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cmstats.arrays import (
    is_dask,
)
from cmstats.kernels.threads import one_core
from cmstats.rows.dask import (
    Chunk,
    by_chunk,
    checked_weights,
    host_matrix,
    library,
    matrix,
    naming_chunk,
)
from cmstats.rows.splits import Folds

__all__ = ["add_folds", "added", "fold_moments", "matrices", "tree"]

FAN_IN = 8
"""How many results are merged at a time."""


def tree(
    blocks: Mapping[str, Any],
    of_rows: Callable[[dict[str, Any], Any, Any, Chunk], Any],
    merge: Callable[[list[Any]], Any],
    **how: Any,
) -> Any:
    """The results of `of_rows` for each chunk of rows (`rows.dask.by_chunk`), merged by a tree.

    Parameters
    ----------
    blocks : mapping of name to array-like, at least one a Dask array or frame
    of_rows : callable(named, weights, ids, chunk)
    merge : callable of a list of results of `of_rows` and `merge`, in the order of the rows
    **how
        `sample_weight`, `ids` and `least`, see `by_chunk`.
    """
    level = by_chunk(of_rows, blocks, **how)
    join = library("dask").delayed(functools.partial(_merged, merge), pure=False)
    name = f"merge-{uuid.uuid4().hex}"
    depth = 0
    while len(level) > 1:
        groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
        level = [join(g, dask_key_name=(name, depth, i)) for i, g in enumerate(groups)]
        depth += 1
    return level[0].compute()


def _merged(merge: Callable[[list[Any]], Any], parts: list[Any]) -> Any:
    with one_core():
        return merge(parts) if len(parts) > 1 else parts[0]


def matrices(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks as Dask arrays of known lengths, and as matrices where they are in memory."""
    return {k: matrix(a, k) if is_dask(a) else host_matrix(a, k) for k, a in blocks.items()}


def fold_moments(
    of_rows: Callable[..., list[Any]],
    blocks: Mapping[str, Any],
    how: Any,
    sample_weight: Any = None,
    folds: Folds | None = None,
) -> list[Any]:
    """The moments of each fold of the rows of Dask arrays; of all rows without `folds`.

    Parameters
    ----------
    of_rows : callable(blocks, how, weights, folds)
        Makes them of rows in memory.
    blocks, sample_weight
        As in `Moments.folds`.
    how : Pass
    folds : Folds, optional
        Where they are not dealt by number they are sent with the rows. A fold without a row is
        None in the result.
    """
    blocks = matrices(blocks)
    d = sum(int(a.shape[1]) for a in blocks.values())
    n = int(next(iter(blocks.values())).shape[0])
    folds, sample_weight = folds or Folds(1), checked_weights(sample_weight, n)
    ids = None
    if folds.ids is not None or sample_weight is not None:
        ids = folds.numbers(n, sample_weight).astype(np.min_scalar_type(-folds.count))
    work = functools.partial(_fold_moments, of_rows, how, folds.count, folds.start)
    found = tree(
        blocks, work, add_folds, sample_weight=sample_weight, ids=ids, least=folds.count * d
    )
    if sample_weight is not None and not any(m is not None and m.n > 0 for m in found):
        raise ValueError("sample_weight is zero everywhere: no row is left")
    return list(found)


def _fold_moments(
    of_rows: Callable[..., list[Any]],
    how: Any,
    folds: int,
    offset: int,
    named: dict[str, Any],
    weights: Any,
    ids: Any,
    chunk: Chunk,
) -> list[Any]:
    m, start = next(iter(named.values())).shape[0], chunk.start or 0
    if ids is None:
        ids = (offset + start + np.arange(m)) % folds
    with naming_chunk(named, chunk, how.missing):
        made = of_rows(named, how, weights, Folds(folds, ids=np.asarray(ids, dtype=np.int64)))
    return [m if m.rows_seen else None for m in made]


def add_folds(parts: list[list[Any]]) -> list[Any]:
    """The folds of several chunks, one by one, put together."""
    held = ([m for m in each if m is not None] for each in zip(*parts, strict=True))
    return [added(each) if each else None for each in held]


def added(parts: list[Any]) -> Any:
    """The sum of things, from the left."""
    return functools.reduce(operator.add, parts)
