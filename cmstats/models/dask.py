"""Methods of fitted models on Dask data: lazy results, one task for each chunk of rows.

`row_wise` decorates methods whose row i depends on row i of their arguments, `by_rows` those of
every pair of rows, `refused` those that need their rows in memory. Widths, names and parameters
are checked before a row is computed, by calling the method on rows of zeros, which also gives the
shapes and types of the results. The fitted model is one object in the graph.

A Dask array gives Dask arrays with its chunks of rows. A Dask frame gives Dask arrays of unknown
length, as its own is not known without reading it, and after ``set_output(transform="pandas")``
a Dask frame with its index.
"""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from sklearn.base import clone
from sklearn.utils import get_tags

from cmstats.arrays import device_of, is_dask, namespace, recorded
from cmstats.kernels.threads import one_core
from cmstats.rows.dask import check_numeric, library, numeric

__all__ = ["apply", "by_rows", "fit_view", "refuse", "refused", "row_wise"]

Method = TypeVar("Method", bound=Callable[..., Any])


def row_wise(method: Method) -> Method:
    """Let a method whose results have a row for each row of its arguments take Dask data."""
    return _handled(method, _chunk_by_chunk)


def by_rows(method: Method) -> Method:
    """Let a method that compares every row of one view with every row of another take Dask data."""
    return _handled(method, _pair_by_pair)


def refused(method: Method) -> Method:
    """Let a method refuse Dask data in one sentence."""
    return _handled(method, lambda model, name, arguments: refuse(model, name))


def refuse(model: Any, method: str) -> None:
    """Raise the one sentence about methods that need their rows in memory."""
    raise TypeError(
        f"{type(model).__name__}.{method} needs its rows in memory, and was given a Dask array: "
        "pass rows that fit (X[:100_000].compute())"
    )


def _handled(method: Method, on_dask: Callable[[Any, str, Any], Any]) -> Method:
    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _leaves((args, kwargs), is_dask):
            return on_dask(self, method.__name__, (args, kwargs))
        return method(self, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def apply(transformer: Any, data: Any) -> Any:
    """The rows through a fitted transformer, lazily."""
    return _chunk_by_chunk(transformer, "transform", ((data,), {}))


def fit_view(transformer: Any, data: Any) -> tuple[Any, Any]:
    """A transformer that needs no fitting, and Dask data through it.

    Raises
    ------
    TypeError
        If it has to be fitted.
    """
    if transformer is None:
        return None, data
    fitted = clone(transformer)
    if get_tags(fitted).requires_fit and type(fitted).__name__ != "FrozenEstimator":
        raise TypeError(
            f"{type(fitted).__name__} is fitted to rows in memory, and was given a Dask array: fit "
            "it to a sample that fits and pass sklearn.frozen.FrozenEstimator(fitted)"
        )
    fitted.fit(_zeros(_checked(data), 2))
    return fitted, apply(fitted, data)


# Arguments and results: arrays, or lists, tuples and dicts of arrays.
def _mapped(function: Callable[[Any], Any], value: Any, depth: int = 3) -> Any:
    """A function of each leaf; at most `depth` containers deep, so not of the numbers of a list."""
    if depth and isinstance(value, Mapping) and not hasattr(value, "shape"):
        return {k: _mapped(function, v, depth - 1) for k, v in value.items()}
    if depth and isinstance(value, (list, tuple)):
        each = [_mapped(function, v, depth - 1) for v in value]
        return tuple(each) if isinstance(value, tuple) else each
    return function(value)


def _leaves(value: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    found: list[Any] = []
    _mapped(lambda leaf: found.append(leaf) if wanted(leaf) else None, value)
    return found


def _has_rows(value: Any) -> bool:
    return len(getattr(value, "shape", ())) > 0


@dataclass
class _Call:
    """A method of a fitted model, and its arguments with ``...`` in place of rows.

    `ndims` are the dimensions of its results; `pairs` is whether these are of pairs of rows.
    """

    model: Any
    method: str
    arguments: Any
    ndims: tuple[int, ...] = ()
    pairs: bool = False

    @classmethod
    def of(cls, model: Any, method: str, arguments: Any) -> _Call:
        """The call of the model as it is now."""
        return cls(copy(model), method, _mapped(lambda v: ... if _has_rows(v) else v, arguments))

    def __call__(self, rows: Sequence[Any]) -> Any:
        """The results for these rows."""
        given = iter(rows)
        args, kwargs = _mapped(lambda v: next(given) if v is ... else v, self.arguments)
        return getattr(self.model, self.method)(*args, **kwargs)

    def probe(self, views: Sequence[Any], count: int) -> Any:
        """The results for `count` rows of zeros."""
        rows = [_zeros(a, count) for a in views]
        if getattr(self.model, "missing", "") == "em":
            rows = [_with_gap(a) for a in rows]
        with recorded(), np.errstate(all="ignore"):
            return self(rows)

    def on_chunks(self, axes: str, views: Sequence[Any], places: Sequence[str]) -> Any:
        """The results for each chunk, in a Dask array of boxes; each view comes with its axis."""
        given = [(a, axis if a.ndim == 1 else axis + axis.upper()) for a, axis in views]
        return library("dask.array").blockwise(
            _results, axes, library("dask").delayed(self, traverse=False), None,
            _boxes(places), "i", *itertools.chain.from_iterable(given),
            adjust_chunks=dict.fromkeys(axes, 1), align_arrays=False, dtype=object,
            meta=np.empty((0,) * len(axes), dtype=object), name=f"{self.method}-{uuid.uuid4().hex}",
        )  # fmt: skip


def _results(call: _Call, place: Any, *parts: Any) -> np.ndarray[Any, Any]:
    """The results for a chunk of rows, in a box; those the same for all rows once for each row."""
    rows = []
    for part in parts:
        while isinstance(part, list):
            part = part[0]
        rows.append(part[0] if part.dtype == object else part)
    lengths = [int(a.shape[0]) for a in rows]
    if 0 in lengths:  # a filter may leave a chunk empty: a row of zeros shows what comes out
        rows = [a if a.shape[0] else _blank(a, 1) for a in rows]
    with one_core():
        try:
            found = _leaves(call(rows), _has_rows)
        except ValueError as error:
            raise ValueError(f"{error} (in Dask chunk {place[0]})") from None
    count = rows[0].shape[0]
    each = [
        namespace(a).broadcast_to(a, (count, *a.shape)) if a.ndim < ndim else a
        for a, ndim in zip(found, call.ndims, strict=True)
    ]
    if 0 in lengths:
        cut = tuple(slice(0, n) for n in (lengths if call.pairs else lengths[:1]))
        each = [a.iloc[cut[0]] if hasattr(a, "iloc") else a[(*cut, ...)] for a in each]
    return _box(each)


def _chunk_by_chunk(model: Any, method: str, arguments: Any) -> Any:
    """The results of a row-wise method, lazy, in the structure of its results."""
    views = [_checked(a) if is_dask(a) else a for a in _leaves(arguments, _has_rows)]
    lengths = _common_lengths(views)
    cut = [(_cut(a, lengths), "i") for a in views]
    call = _Call.of(model, method, arguments)
    results = call.probe(views, 2)
    two, three = (_leaves(r, _has_rows) for r in (results, call.probe(views, 3)))
    call.ndims = tuple(a.ndim for a in three)
    boxes = call.on_chunks("i", cut, _places(lengths))
    lazy = []
    for k, (a, b) in enumerate(zip(two, three, strict=True)):
        if a.shape == b.shape:
            lazy.append(a)  # the same for all rows
        elif hasattr(a, "iloc"):
            lazy.append(_frame(boxes, k, a, views))
        else:
            lazy.append(_array(boxes, k, a, {"i": lengths}))
    given = iter(lazy)
    return _mapped(lambda v: next(given) if _has_rows(v) else v, results)


def _pair_by_pair(model: Any, method: str, arguments: Any) -> Any:
    """The results for every pair of rows of two views, a task for each pair of chunks."""
    views = [_checked(a) if is_dask(a) else a for a in _leaves(arguments, _has_rows)]
    if len(views) != 2:
        raise ValueError(f"{method} is of two views, got {len(views)}")
    call = _Call.of(model, method, arguments)
    like = call.probe(views, 2)
    call.ndims, call.pairs = (2,), True
    # Rows in memory are one chunk, which every task gets.
    lengths = [_lengths(a) or (int(a.shape[0]),) for a in views]
    cut = [(_cut(a, n), axis) for a, n, axis in zip(views, lengths, "ij", strict=True)]
    boxes = call.on_chunks("ij", cut, _places(lengths[0]))
    return _array(boxes, 0, like, dict(zip("ij", lengths, strict=True)))


# Rows of arguments.
def _checked(a: Any) -> Any:
    """A Dask array with one chunk of columns, or a Dask frame of numbers."""
    if hasattr(a, "map_partitions") and not isinstance(a, library("dask.array").Array):
        check_numeric(a, "X")
        return a
    a = numeric(a, "X")
    return a.rechunk({1: -1}) if a.ndim == 2 else a


def _lengths(a: Any) -> Any:
    """The lengths of the chunks of rows, NaN where they are not known; None of rows in memory."""
    if not is_dask(a):
        return None
    return a.chunks[0] if hasattr(a, "chunks") else (np.nan,) * int(a.npartitions)


def _common_lengths(views: Sequence[Any]) -> Any:
    """The lengths that all views are cut to: the first that are known."""
    found = [lengths for lengths in map(_lengths, views) if lengths is not None]
    return next((lengths for lengths in found if not np.isnan(lengths).any()), found[0])


def _cut(a: Any, lengths: Any) -> Any:
    """A Dask array of the rows of each chunk: an array, or boxes of other rows."""
    own, unknown = _lengths(a), bool(np.isnan(lengths).any())
    if own is None:
        if unknown:
            raise ValueError(
                "rows in memory cannot be cut like Dask chunks whose lengths are not known: pass "
                "both as Dask arrays, or call compute_chunk_sizes()"
            )
        _check_count(lengths, a.shape[0], "each row is one item")
        ends = itertools.pairwise(np.cumsum([0, *lengths]).tolist())
        return _boxes([a.iloc[i:j] if hasattr(a, "iloc") else a[i:j] for i, j in ends])
    if not unknown and not np.isnan(own).any():
        _check_count(
            lengths,
            sum(own),
            "of Dask arrays each row is one item: for views of different items call once for each",
        )
        return a.rechunk({0: lengths})
    if len(own) != len(lengths):
        raise ValueError(
            f"views of {len(lengths)} and {len(own)} chunks whose lengths are not known cannot be "
            "put side by side: give both the same partitions, or call compute_chunk_sizes()"
        )
    return a if hasattr(a, "chunks") else a.map_partitions(_box, meta=np.empty(0, dtype=object))


def _check_count(lengths: Sequence[int], count: int, rule: str) -> None:
    if sum(lengths) != count:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"{sum(lengths)} and {count} rows; {rule}"
        )


def _places(lengths: Any) -> list[str]:
    """The chunks as error messages name them."""
    starts = np.cumsum([0, *lengths[:-1]])
    return [
        f"{i}" if np.isnan(start) else f"{i}, whose first row is row {int(start)}"
        for i, start in enumerate(starts)
    ]


def _zeros(a: Any, count: int) -> Any:
    """Rows of zeros of the type and width of a view."""
    if not is_dask(a):
        return a.iloc[:count] if hasattr(a, "iloc") else a[:count]
    return _blank(a._meta, count, a)


def _blank(like: Any, count: int, a: Any = None) -> Any:
    """Rows of zeros of the kind of `like`, with the width and type of `a` (those of `like`)."""
    a = like if a is None else a
    if hasattr(like, "iloc"):
        dtypes = a.dtypes if like.ndim == 2 else a.dtype
        return like.iloc[:0].reindex(range(count), fill_value=0).astype(dtypes)
    shape = (count, *a.shape[1:])
    if scipy.sparse.issparse(like):
        return type(like)(shape, dtype=a.dtype)
    return namespace(like).zeros(shape, dtype=a.dtype, device=device_of(like))


def _with_gap(rows: Any) -> Any:
    """The rows with one missing entry: results that differ by row where rows are incomplete."""
    floats = isinstance(rows, np.ndarray) and rows.dtype.kind == "f"
    if floats and rows.ndim == 2 and rows.shape[1] > 1:
        rows = rows.copy()
        rows[0, 0] = np.nan
    return rows


# Results.
def _array(boxes: Any, k: int, like: Any, rows: dict[str, Any]) -> Any:
    """Result number k in boxes, as a Dask array of blocks like `like`."""
    if type(like).__module__.startswith("polars"):
        raise ValueError("set_output(transform='polars') is not for Dask arrays: use 'pandas'")
    axes, rest = "".join(rows), dict(zip("abcdefgh", like.shape[len(rows) :], strict=False))
    meta = like[(slice(0, 0),) * like.ndim]
    return library("dask.array").blockwise(
        _unboxed, axes + "".join(rest), boxes, axes, k, None, new_axes=rest, adjust_chunks=rows,
        dtype=meta.dtype, meta=meta, name=f"result-{uuid.uuid4().hex}",
    )  # fmt: skip


def _frame(boxes: Any, k: int, like: Any, views: Sequence[Any]) -> Any:
    """Result number k in boxes, as a Dask frame with the index of the first frame in `views`."""
    frames = [a for a in views if is_dask(a) and not hasattr(a, "chunks")]
    known = bool(frames) and frames[0].known_divisions
    unboxed = library("dask").delayed(_unboxed)
    return library("dask.dataframe").from_delayed(
        [unboxed(part, k) for part in boxes.to_delayed().ravel()],
        meta=like.iloc[:0],
        divisions=frames[0].divisions if known else None,
        verify_meta=False,
    )


def _box(value: Any) -> np.ndarray[Any, Any]:
    out = np.empty(1, dtype=object)
    out[0] = value
    return out


def _boxes(values: Sequence[Any]) -> Any:
    """A Dask array whose chunk i holds object i."""
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return library("dask.array").from_array(out, chunks=1, name=False)


def _unboxed(boxes: Any, k: int) -> Any:
    return boxes.ravel()[0][k]
