"""The room that knows Dask: moments of chunks by tasks, merged by a tree.

Dask arrays and Dask frames are taken where arrays are. Rows stay where they are: a task makes
`Moments` of each chunk of rows, eight at a time are merged, and what travels is O(d^2), times
the number of folds. Chunks of fewer rows than that is worth are put together first. Each task
runs on one core, so that there should be at least as many chunks as cores. The tree is fixed by
the chunks: a task that runs again elsewhere (a worker was lost) gives the same digits. What
comes out lazily is in `_dask_rows`.

- Everything fitted by moments is fitted, in parts too, and scored, on Dask data: `Moments`, CCA,
  MultiviewCCA, ConditionalGaussian, LinearAutoencoder, MultitaskRegressor (folds by row number
  only), MomentsSearchCV, TwoViewPipeline around these (its transformers must need no fitting).
- ConditionalGaussianMixture, SemanticMatching, KernelCCA and the baselines are fitted to rows in
  memory, and say so: fit them to a sample; their row-wise methods take Dask data. (A kernel CCA
  of all rows is CCA on ``NystroemMap().fit(sample).transform(dX)``.)
"""

from __future__ import annotations

import functools
import operator
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse

from cmstats.arrays import (
    check_weights,
    count_nonfinite,
    describe_nonfinite,
    is_array,
    is_dask,
    namespace,
    to_numpy,
)
from cmstats.kernels.threads import one_core
from cmstats.rows.chunks import check_lengths
from cmstats.rows.dask import library, matrix, numeric
from cmstats.rows.matrix import check_matrix
from cmstats.rows.splits import fold_ids

__all__ = ["added", "columns_of", "fold_moments", "in_words", "tree"]

FAN_IN = 8
"""How many results are merged at a time."""


# ------------------------------------------------------------------------------- rows
def columns_of(a: Any) -> Any:
    """What tells the names and the number of columns: of a Dask frame its empty model."""
    return a._meta if is_dask(a) and hasattr(a, "columns") else a


@dataclass(frozen=True)
class Place:
    """Where the rows of a task stand: the first of them, and the chunks they were."""

    start: int | None
    number: int
    lengths: tuple[int, ...] = ()

    def chunk(self, row: int) -> int:
        """The number of the chunk of a row."""
        ends = (self.start or 0) + np.cumsum(self.lengths)
        return self.number + int(np.searchsorted(ends, row, side="right"))


def _put_together(lengths: Sequence[int], least: int) -> list[Place]:
    """Neighbouring chunks, so many that each task has at least so many rows."""
    places: list[Place] = []
    start, held, number = 0, [], 0
    for i, length in enumerate(map(int, lengths)):
        held.append(length)
        if sum(held) >= least:
            places.append(Place(start, number, tuple(held)))
            start, held, number = start + sum(held), [], i + 1
    if held and not places:
        places.append(Place(0, 0, tuple(held)))
    elif held:
        places[-1] = replace(places[-1], lengths=(*places[-1].lengths, *held))
    return places


def boxes_of(values: Sequence[Any]) -> Any:
    """A Dask array whose chunk i holds the thing i."""
    da = library("dask.array")

    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return da.from_array(out, chunks=1, name=False)


def box(value: Any, ndim: int = 1) -> np.ndarray[Any, Any]:
    out = np.empty((1,) * ndim, dtype=object)
    out[(0,) * ndim] = value
    return out


# -------------------------------------------------------------------- one pass, merged
def tree(
    blocks: Mapping[str, Any],
    of_rows: Callable[[dict[str, Any], Any, Any, Place], Any],
    merge: Callable[[list[Any]], Any],
    *,
    sample_weight: Any = None,
    ids: Any = None,
    least: int = 1,
) -> Any:
    """What `of_rows` makes of each chunk of rows, merged by a tree of tasks.

    Parameters
    ----------
    blocks : mapping of name to array-like, one at least a Dask array or frame
        Other chunks and other arrays are cut like those of the first that is.
    of_rows : callable(named, weights, ids, place)
        Run where the rows are, on one core.
    merge : callable of a list of what `of_rows` and `merge` return, in the order of the rows
    sample_weight, ids : arrays of shape (n,), optional
    least : int
        Chunks are put together until they have so many rows.

    Raises
    ------
    ValueError
        If lengths differ, or values are not finite: which block, which chunk, the first row.
    """
    da = library("dask.array")

    checked = {k: a if is_dask(a) else _host(a, k) for k, a in blocks.items()}
    checked = {k: matrix(a, k) if is_dask(a) else a for k, a in checked.items()}
    check_lengths(checked)
    first = next(a for a in checked.values() if is_dask(a))
    places = _put_together(first.chunks[0], max(1, least))
    rows = tuple(sum(p.lengths) for p in places)
    arrays = [_cut(a, rows) for a in checked.values()]
    arguments: list[Any] = [part for a in arrays for part in (a, "ij")]
    for vector in (_weights(sample_weight, sum(rows)), ids):
        if vector is not None:
            arguments += [_cut(vector, rows), "i"]
    empty: Any = np.empty((0, 0), dtype=object)
    parts = da.blockwise(
        functools.partial(_of_chunk, of_rows, tuple(checked), sample_weight is not None), "ij",
        boxes_of(places), "i", *arguments,
        adjust_chunks={"i": 1, "j": 1}, align_arrays=False, dtype=object, meta=empty,
        name=f"moments-{token()}",
    )  # fmt: skip
    joined = functools.partial(_merged, merge)
    total = da.reduction(
        parts, chunk=_same, combine=joined, aggregate=joined, axis=(0, 1), keepdims=True,
        concatenate=False, split_every={0: FAN_IN, 1: 1}, dtype=object, meta=empty,
        name=f"merge-{token()}",
    )  # fmt: skip
    return total.compute()[0, 0]


def token() -> str:
    return uuid.uuid4().hex


def _host(a: Any, name: str) -> Any:
    """What is no Dask array, beside one: cut by rows and sent along."""
    if scipy.sparse.issparse(a):
        raise TypeError(
            f"{name} is a sparse matrix beside a Dask array: make it one with "
            f"dask.array.from_array({name}, chunks=...)"
        )
    if all(hasattr(a, k) for k in ("shape", "dtype", "ndim")) and not hasattr(a, "iloc"):
        return a if a.ndim == 2 else check_matrix(np.asarray(a), name, ensure_finite=False)
    return check_matrix(a, name, ensure_finite=False)


def _cut(a: Any, rows: tuple[int, ...]) -> Any:
    """A Dask array with these chunks of rows."""
    da = library("dask.array")

    chunks = (rows,) if a.ndim == 1 else (rows, (int(a.shape[1]),))
    return a.rechunk(chunks) if is_dask(a) else da.from_array(a, chunks=chunks)


def _weights(sample_weight: Any, n: int) -> Any:
    """Weights that can be cut; those of a Dask array are looked at by the tasks."""
    da = library("dask.array")

    if sample_weight is None:
        return None
    if not is_dask(sample_weight):
        if np.isscalar(sample_weight):
            check_weights(sample_weight, 1)
            return da.full((n,), float(sample_weight))  # type: ignore[arg-type]
        weights = sample_weight if is_array(sample_weight) else np.asarray(sample_weight)
        return to_numpy(check_weights(weights, n))
    weights = numeric(sample_weight, "sample_weight")
    if np.isnan(weights.chunks[0]).any():
        weights = weights.copy()
        weights.compute_chunk_sizes()
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {tuple(weights.shape)}, expected ({n},): one weight a row"
        )
    return weights


def _of_chunk(
    of_rows: Callable[..., Any], names: tuple[str, ...], weighted: bool, place: Any, *parts: Any
) -> np.ndarray[Any, Any]:
    """The task of a chunk."""
    place = place[0]
    named = dict(zip(names, parts, strict=False))
    rest = list(parts[len(names) :])
    weights = rest.pop(0) if weighted else None
    ids = rest.pop(0) if rest else None
    with one_core():
        return box(of_rows(named, weights, ids, place), 2)


def _same(part: Any, axis: Any = None, keepdims: bool = True) -> Any:
    return part


def _merged(merge: Callable[[list[Any]], Any], parts: Any, axis: Any = None, keepdims: bool = True):  # type: ignore[no-untyped-def]
    """The task of a merge; Dask hands over nested lists of chunks, in the order of the rows."""
    found: list[Any] = []

    def gather(each: Any) -> None:
        if isinstance(each, list):
            for one in each:
                gather(one)
        else:
            found.append(each[0, 0])

    gather(parts)
    with one_core():
        return box(merge(found) if len(found) > 1 else found[0], 2)


def fold_moments(
    of_rows: Callable[..., list[Any]],
    *,
    blocks: Mapping[str, Any],
    form: Any,
    sample_weight: Any = None,
    cv: Any = None,
    groups: Any = None,
    start: int | None = None,
    missing: Any = "error",
    device: Any = None,
) -> list[Any]:
    """The moments of each fold of the rows of Dask arrays; of all rows without `cv`.

    Parameters
    ----------
    of_rows : callable
        Makes them of rows in memory, with the fold of each in `ids`.
    blocks, form, sample_weight, cv, groups, missing, device
        As in `Moments.folds`. The numbers of a splitter's folds are sent with the rows.
    start : int, optional
        The number of the first row among those dealt to `cv` folds; None stands then for a fold
        that has no row here.
    """
    blocks = {k: matrix(a, k) if is_dask(a) else _host(a, k) for k, a in blocks.items()}
    n, d = int(next(iter(blocks.values())).shape[0]), sum(int(a.shape[1]) for a in blocks.values())
    folds, ids = 1 if cv is None else cv, None
    if cv is not None and (start is None or not isinstance(cv, (int, np.integer))):
        if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
            fold_ids(cv, int(cv) if 2 <= cv <= n else n)  # or say how many are possible
        else:
            y = blocks.get("y")
            ids = fold_ids(cv, n, y=None if is_dask(y) else y, groups=groups)
            folds = int(ids.max()) + 1
            ids = ids.astype(np.min_scalar_type(folds))
    work = functools.partial(
        _fold_moments, of_rows, int(folds), start or 0, form=form, missing=missing, device=device
    )
    found = tree(
        blocks, work, _add_folds, sample_weight=sample_weight, ids=ids, least=int(folds) * d
    )
    if sample_weight is not None and not any(m is not None and m.n > 0 for m in found):
        raise ValueError("sample_weight is zero everywhere: no row is left")
    return list(found)


def _fold_moments(
    of_rows: Callable[..., list[Any]],
    folds: int,
    offset: int,
    named: dict[str, Any],
    weights: Any,
    ids: Any,
    place: Place,
    **how: Any,
) -> list[Any]:
    m, start = next(iter(named.values())).shape[0], place.start or 0
    if ids is None:
        ids = (offset + start + np.arange(m)) % folds
    present, local = np.unique(ids, return_inverse=True)
    none_counts = weights is not None and not bool(namespace(weights).any(weights != 0))
    with in_words(named, place, how["missing"]):
        made = of_rows(
            named, how["form"], None if none_counts else weights,
            ids=local if len(present) > 1 else None, missing=how["missing"], device=how["device"],
        )  # fmt: skip
    out: list[Any] = [None] * folds
    for fold, moments in zip(present.tolist(), made, strict=True):
        if none_counts:  # rows without weight are only counted
            moments = moments.weightless()
        out[fold] = moments
    return out


@contextmanager
def in_words(named: Mapping[str, Any], place: Place, missing: Any) -> Iterator[None]:
    """Say in which chunk values are not finite, and in which row of all."""
    try:
        yield
    except ValueError as error:
        for name, part in named.items():
            part = part.toarray() if scipy.sparse.issparse(part) else part
            nan, inf, first = count_nonfinite(part, place.start or 0, nan=missing != "em")
            if (nan or inf) and first is not None:
                words = describe_nonfinite(name, nan, inf, first, ", or set missing='em'")
                raise ValueError(f"{words} (in Dask chunk {place.chunk(first[0])})") from None
        where = f"in Dask chunk {place.number}, whose first row is row {place.start}"
        raise ValueError(f"{error} ({where})") from None


def _add_folds(parts: list[list[Any]]) -> list[Any]:
    """The folds of several chunks, one by one, put together."""
    held = ([m for m in each if m is not None] for each in zip(*parts, strict=True))
    return [added(each) if each else None for each in held]


def added(parts: list[Any]) -> Any:
    """The sum of things, from the left."""
    return functools.reduce(operator.add, parts)
