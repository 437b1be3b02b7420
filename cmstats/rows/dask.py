"""What a Dask matrix is: one sentence for what is none, before anything is computed.

Dask is imported where Dask data asks for it, never before.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

__all__ = ["check_numeric", "library", "matrix", "numeric"]


def library(name: str) -> Any:
    """A part of Dask, imported where Dask data asks for it."""
    return importlib.import_module(name)


def matrix(a: Any, name: str, *, ensure_finite: Any = False) -> Any:
    """A Dask array (n, p) of known chunks of rows and one chunk of columns, or one sentence.

    Nothing is computed but the lengths of chunks, where they are not known.

    Raises
    ------
    ValueError
        If it is no matrix of real numbers, has no row or no column, or `ensure_finite` asks for
        what only the rows can tell.
    """
    a = numeric(a, name)
    if ensure_finite:
        raise ValueError(
            f"{name} is a Dask array, and this needs its rows in memory: pass {name}.compute(), or "
            "a part of the rows that fits"
        )
    if np.isnan(a.chunks[0]).any():
        a = a.copy()  # lengths are written into the array
        a.compute_chunk_sizes()
    a = a[:, None] if a.ndim == 1 else a.rechunk({1: -1})
    for axis, what in ((0, "sample"), (1, "feature")):
        if a.shape[axis] == 0:
            raise ValueError(
                f"{name}: found array with 0 {what}(s) (shape={tuple(a.shape)}) "
                "while a minimum of 1 is required."
            )
    return a


def numeric(a: Any, name: str) -> Any:
    """A Dask array of one or two dimensions out of what Dask has, still lazy."""
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
    """Raise where a column of the frame is not numeric."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    for column, dtype in _dtypes(frame).items():
        if not (is_numeric_dtype(dtype) or is_bool_dtype(dtype)):
            raise ValueError(
                f"{name} holds {dtype} values, not numbers, in column {column!r}: encode text as "
                "numbers first, or leave the column out"
            )
