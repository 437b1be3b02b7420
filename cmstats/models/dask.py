"""Row-wise methods on Dask data: lazy arrays out, and nothing computed before it is asked for.

Every method named in `ROW_WISE` of every estimator maps row i to row i, so it is a task for each
chunk of rows; `similarity` is a task for each pair of chunks. The fitted model is one object in
the graph. Shapes and types are those of a call on two and on three rows of zeros, which checks
widths, names and parameters before any row is computed.

A Dask array gives Dask arrays with its chunks of rows. A Dask frame gives Dask arrays of unknown
length, as its own is not known without reading it, and after ``set_output(transform="pandas")``
a Dask frame with its index.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from sklearn.base import clone
from sklearn.utils import get_tags

from cmstats.arrays import device_of, is_dask, namespace
from cmstats.kernels.threads import one_core
from cmstats.rows.dask import Chunk, check_numeric, library, numeric

__all__ = ["apply", "fit_view", "on_dask", "refuse", "row_wise", "wrapped"]

ROW_WISE = (
    "transform", "inverse_transform", "predict", "predict_proba", "embed", "fuse", "logpdf",
    "score_samples", "outlier_scores", "decision_function", "responsibilities",
)  # fmt: skip
"""Methods whose row i depends on row i of what they are given, and on no other."""

IN_MEMORY = ("sample", "bic", "aic")
"""Methods that take rows in memory only."""

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Slot:
    """Where in the arguments, or in the results, the array of that number stands."""

    number: int


def _walk(value: Any, visit: Callable[[Any], Any]) -> Any:
    """The same lists, tuples and dicts of what `visit` makes of what is in them."""
    if isinstance(value, Mapping) and not hasattr(value, "shape"):
        return {k: _walk(v, visit) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        each = [_walk(v, visit) for v in value]
        return tuple(each) if isinstance(value, tuple) else each
    return visit(value)


def _slots(value: Any, wanted: Callable[[Any], bool]) -> tuple[Any, list[Any]]:
    """The structure with slots for what is wanted, and that in order."""
    found: list[Any] = []

    def visit(v: Any) -> Any:
        if not wanted(v):
            return v
        found.append(v)
        return _Slot(len(found) - 1)

    return _walk(value, visit), found


def _filled(structure: Any, values: Sequence[Any]) -> Any:
    return _walk(structure, lambda v: values[v.number] if isinstance(v, _Slot) else v)


@dataclass
class _Call:
    """A method of a fitted model with places for rows in its arguments."""

    model: Any
    method: str
    arguments: Any

    def __call__(self, values: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The structure of the results with slots for arrays, and these."""
        args, kwargs = _filled(self.arguments, values)
        return _slots(getattr(self.model, self.method)(*args, **kwargs), _has_rows)


def _has_rows(value: Any) -> bool:
    return len(getattr(value, "shape", ())) > 0


def _any_dask(value: Any) -> bool:
    return bool(_slots(value, is_dask)[1])


def on_dask(cls: type) -> None:
    """Let the methods that a class defines take Dask arrays; see `ROW_WISE`."""
    for name, value in list(vars(cls).items()):
        if name == "score" and not cls._takes_dask:  # type: ignore[attr-defined]
            wrap: Callable[[Any], Any] = refused
        else:
            wrap = wrapped
        if inspect.isfunction(value):
            setattr(cls, name, wrap(value))
        elif inspect.isfunction(getattr(value, "fn", None)):  # behind available_if
            value.fn = wrap(value.fn)


def wrapped(method: Method) -> Method:
    """The method as it takes Dask arrays, by its name."""
    if method.__name__ in ROW_WISE:
        return row_wise(method)
    if method.__name__ == "similarity":
        return by_rows(method)
    return refused(method) if method.__name__ in IN_MEMORY else method


def row_wise(method: Method) -> Method:
    """The method, lazy where it is given Dask arrays: row i of its results is of row i."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _any_dask((args, kwargs)):
            return method(self, *args, **kwargs)
        return _lazily(self, method.__name__, (args, kwargs))

    return wrapped  # type: ignore[return-value]


def by_rows(method: Method) -> Method:
    """The method of two collections of rows, lazy by blocks where one is a Dask array."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _any_dask((args, kwargs)):
            return method(self, *args, **kwargs)
        return _blocks_of_pairs(self, method.__name__, (args, kwargs))

    return wrapped  # type: ignore[return-value]


def refused(method: Method) -> Method:
    """The method, with one sentence where it is given Dask arrays."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _any_dask((args, kwargs)):
            refuse(self, method.__name__)
        return method(self, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def refuse(model: Any, method: str) -> None:
    """Raise the one sentence about methods that need their rows in memory."""
    raise TypeError(
        f"{type(model).__name__}.{method} needs its rows in memory, and was given a Dask array: "
        "pass rows that fit (X[:100_000].compute())"
    )


def _boxes_of(values: Sequence[Any]) -> Any:
    """A Dask array whose chunk i holds object i."""
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return library("dask.array").from_array(out, chunks=1, name=False)


def _box(value: Any) -> np.ndarray[Any, Any]:
    out = np.empty(1, dtype=object)
    out[0] = value
    return out


@dataclass
class _Rows:
    """Rows as an argument of tasks: a Dask array, or one of boxes of what else holds rows."""

    array: Any
    lengths: tuple[int, ...] | None  # None where they are not known
    width: int | None  # None of boxes and of vectors
    probe: Callable[[int], Any]
    frame: Any = None

    @classmethod
    def of(cls, a: Any, name: str) -> _Rows:
        """Out of a Dask array or frame; what its columns hold is looked at, and no row."""
        da = library("dask.array")

        if not isinstance(a, da.Array) and hasattr(a, "map_partitions"):
            check_numeric(a, name)
            boxes = a.map_partitions(_box, meta=np.empty(0, dtype=object))
            return cls(boxes, None, None, functools.partial(_frame_like, a), a)
        a = numeric(a, name)
        a = a.rechunk({1: -1}) if a.ndim == 2 else a
        known = None if np.isnan(a.chunks[0]).any() else a.chunks[0]
        width = int(a.shape[1]) if a.ndim == 2 else None
        return cls(a, known, width, functools.partial(_rows_like, a))

    @property
    def count(self) -> int:
        """The number of chunks."""
        return int(self.array.numblocks[0])

    def cut(self, lengths: tuple[int, ...] | None, count: int) -> _Rows:
        """In chunks like those of others."""
        if lengths is not None and self.lengths is not None:
            if sum(lengths) != sum(self.lengths):
                raise ValueError(
                    "Found input variables with inconsistent numbers of samples: "
                    f"{sum(lengths)} and {sum(self.lengths)} rows; of Dask arrays each row is one "
                    "item: for views of different items call once for each"
                )
            chunks = (lengths,) if self.width is None else (lengths, (self.width,))
            return (
                self if lengths == self.lengths else replace(self, array=self.array.rechunk(chunks))
            )
        if self.count != count:
            raise ValueError(
                f"views of {count} and {self.count} chunks whose lengths are not known cannot be "
                "put side by side: give both the same partitions, or call compute_chunk_sizes()"
            )
        return self

    def argument(self, axis: str) -> tuple[Any, str]:
        """What `dask.array.blockwise` is handed, rows along `axis`."""
        return self.array, axis if self.width is None else axis + axis.upper()


def _rows_like(a: Any, count: int) -> Any:
    shape = (count, *a.shape[1:])
    if scipy.sparse.issparse(a._meta):
        return type(a._meta)(shape, dtype=a.dtype)
    xp = namespace(a._meta)
    return xp.zeros(shape, dtype=a.dtype, device=device_of(a._meta))


def _frame_like(frame: Any, count: int) -> Any:
    return frame._meta.reindex(range(count), fill_value=0).astype(frame.dtypes)


def _take(a: Any, start: int, stop: int) -> Any:
    return a.iloc[start:stop] if hasattr(a, "iloc") else a[start:stop]


def _in_memory_rows(a: Any, lengths: tuple[int, ...] | None) -> _Rows:
    """Rows in memory beside those of Dask arrays: cut where these are."""
    if lengths is None:
        raise ValueError(
            "rows in memory cannot be cut like Dask chunks whose lengths are not known: pass both "
            "as Dask arrays, or call compute_chunk_sizes()"
        )
    if a.shape[0] != sum(lengths):
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"{sum(lengths)} and {a.shape[0]} rows; each row is one item"
        )
    ends = np.cumsum([0, *lengths]).tolist()
    parts = [_take(a, i, j) for i, j in itertools.pairwise(ends)]
    return _Rows(_boxes_of(parts), lengths, None, lambda count: _take(a, 0, count))


def _run(call: _Call, boxed: tuple[bool, ...], place: Any, *parts: Any) -> np.ndarray[Any, Any]:
    """The task of a chunk of rows: the results of the method, in one box."""
    place = place.ravel()[0]
    values = []
    for part, in_box in zip(parts, boxed, strict=True):
        while isinstance(part, list):
            part = part[0]
        values.append(part[0] if in_box else part)
    with one_core():
        try:
            return _box(call(values)[1])
        except ValueError as error:
            row = "" if place.start is None else f", whose first row is row {place.start}"
            raise ValueError(f"{error} (in Dask chunk {place.number}{row})") from None


def _pick(results: Any, number: int, rows_of: int | None, ndim: int) -> Any:
    found = results.ravel()[0][number]
    if ndim > found.ndim:  # one for all rows of a chunk, where other chunks have one for each
        rows = results.ravel()[0][rows_of].shape[0]
        found = namespace(found).broadcast_to(found, (rows, *found.shape))
    return found


def _lazily(model: Any, method: str, arguments: Any) -> Any:
    """The results of a row-wise method as Dask arrays in the structure of its results."""
    dask = library("dask")
    da = library("dask.array")

    structure, given = _slots(arguments, _has_rows)
    views = [_Rows.of(a, "X") if is_dask(a) else a for a in given]
    known = [v for v in views if isinstance(v, _Rows)]
    lengths = next((v.lengths for v in known if v.lengths is not None), None)
    rows = [
        v.cut(lengths, known[0].count) if isinstance(v, _Rows) else _in_memory_rows(v, lengths)
        for v in views
    ]
    call = _Call(copy(model), method, structure)
    shape, two, three = _probed(call, rows)
    count = known[0].count
    starts = [None] * count if lengths is None else np.cumsum([0, *lengths[:-1]]).tolist()
    arguments = [part for r in rows for part in r.argument("i")]
    boxes = da.blockwise(
        _run, "i", dask.delayed(call, traverse=False), None, _boxes_flags(rows), None,
        _boxes_of([Chunk(s, i) for i, s in enumerate(starts)]), "i", *arguments,
        adjust_chunks={"i": 1}, align_arrays=False, dtype=object,
        meta=np.empty(0, dtype=object), name=f"{method}-{uuid.uuid4().hex}",
    )  # fmt: skip
    out = []
    chunks = (np.nan,) * count if lengths is None else lengths
    first = next(
        (i for i, (a, b) in enumerate(zip(two, three, strict=True)) if a.shape != b.shape), None
    )
    for k, (a, b) in enumerate(zip(two, three, strict=True)):
        if a.shape == b.shape:
            out.append(a)  # the same for all rows
        elif hasattr(a, "iloc"):
            out.append(
                _frame(boxes, k, a, next((r.frame for r in rows if r.frame is not None), None))
            )
        else:
            out.append(_chosen(boxes, k, first, a, "i", {"i": chunks}))
    return _filled(shape, out)


def _boxes_flags(rows: Sequence[_Rows]) -> tuple[bool, ...]:
    return tuple(r.array.dtype == object for r in rows)


def _chosen(
    boxes: Any, k: int, first: int | None, like: Any, axes: str, rows: dict[str, Any]
) -> Any:
    """One of the results in boxes, as a Dask array of blocks like `like`."""
    da = library("dask.array")

    if type(like).__module__.startswith("polars"):
        raise ValueError("set_output(transform='polars') is not for Dask arrays: use 'pandas'")
    rest = "".join(c for c, _ in zip("abcdefgh", like.shape[len(axes) :], strict=False))
    meta = like[(slice(0, 0),) * like.ndim]
    return da.blockwise(
        _pick, axes + rest, boxes, axes, k, None, first, None, like.ndim, None,
        new_axes=dict(zip(rest, map(int, like.shape[len(axes) :]), strict=True)),
        adjust_chunks=rows, dtype=meta.dtype, meta=meta, name=f"result-{uuid.uuid4().hex}",
    )  # fmt: skip


def _frame(boxes: Any, k: int, like: Any, frame: Any) -> Any:
    """One of the results in boxes, as a Dask frame."""
    dask = library("dask")
    dd = library("dask.dataframe")

    parts = [dask.delayed(_pick)(part, k, None, 0) for part in boxes.to_delayed().ravel()]
    known = frame is not None and frame.known_divisions
    return dd.from_delayed(
        parts, meta=like.iloc[:0], divisions=frame.divisions if known else None, verify_meta=False
    )


def _probed(call: _Call, rows: Sequence[_Rows]) -> tuple[Any, list[Any], list[Any]]:
    """The structure of the results, and those of two and of three rows of zeros.

    Widths, names and parameters are checked by this, before any row is computed.
    """
    out = []
    for count in (2, 3):
        values = [r.probe(count) for r in rows]
        if getattr(call.model, "missing", "") == "em":
            values = [_with_gap(v) for v in values]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            out.append(call(values))
    return out[0][0], out[0][1], out[1][1]


def _with_gap(rows: Any) -> Any:
    """Rows of zeros with one missing entry: what differs by row then shows."""
    if (
        rows.ndim == 2
        and rows.shape[1] > 1
        and isinstance(rows, np.ndarray)
        and rows.dtype.kind == "f"
    ):
        rows[0, 0] = np.nan
    return rows


def _blocks_of_pairs(model: Any, method: str, arguments: Any) -> Any:
    """The results for every pair of rows of two collections, as a Dask array of their blocks."""
    dask = library("dask")
    da = library("dask.array")

    structure, given = _slots(arguments, _has_rows)
    if len(given) != 2:
        raise ValueError(f"{method} is of two views, got {len(given)}")
    views = [_Rows.of(a, "X") if is_dask(a) else _one_chunk(a) for a in given]
    call = _Call(copy(model), method, structure)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        (like,) = call([v.probe(2) for v in views])[1]
    starts = [None if v.lengths is None else [0, *np.cumsum(v.lengths).tolist()] for v in views[:1]]
    places = [Chunk(None if s is None else s[i], i) for s in starts for i in range(views[0].count)]
    boxes = da.blockwise(
        _run, "ij", dask.delayed(call, traverse=False), None, _boxes_flags(views), None,
        _boxes_of(places), "i", *views[0].argument("i"), *views[1].argument("j"),
        adjust_chunks={"i": 1, "j": 1}, align_arrays=False, dtype=object,
        meta=np.empty((0, 0), dtype=object), name=f"{method}-{uuid.uuid4().hex}",
    )  # fmt: skip
    chunks = {
        axis: (np.nan,) * v.count if v.lengths is None else v.lengths
        for axis, v in zip("ij", views, strict=True)
    }
    return _chosen(boxes, 0, None, like, "ij", chunks)


def _one_chunk(a: Any) -> _Rows:
    """Rows in memory that go to every task whole."""
    return _Rows(_boxes_of([a]), (int(a.shape[0]),), None, lambda count: _take(a, 0, count))


# -------------------------------------------------------------------------- transformers
def apply(transformer: Any, data: Any) -> Any:
    """A fitted transformer on each chunk of rows, lazily."""
    return _lazily(transformer, "transform", ((data,), {}))


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
    fitted.fit(_Rows.of(data, "X").probe(2))
    return fitted, apply(fitted, data)
