"""Check one matrix: an array, a frame, a list, a sparse matrix, a Dask array or a row source."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from cmstats.arrays import check_lazy, is_dask, is_lazy
from cmstats.arrays import check_matrix as check_in_memory
from cmstats.rows import dask
from cmstats.rows.source import SlicedRows, width_of

__all__ = ["check_lazy_source", "check_matrix", "check_rows_of", "check_source", "is_vector"]

Finite: TypeAlias = bool | Literal["allow-nan"]


def check_matrix(a: Any, name: str, *, ensure_finite: Finite = True, hint: str = "") -> Any:
    """Check a matrix in memory (`arrays.check_matrix`), or a Dask array without computing it.

    Raises
    ------
    ValueError
        If it is no matrix of real numbers, or a Dask array where values have to be checked.
    TypeError
        If it cannot be read as a matrix.
    """
    if is_dask(a):
        return dask.matrix(a, name, ensure_finite=ensure_finite)
    return check_in_memory(a, name, ensure_finite=ensure_finite, hint=hint)


def check_source(a: Any, name: str, *, ensure_finite: Finite = True) -> Any:
    """`check_matrix`, but a source on a disk is returned as it is and checked when it is read."""
    if not is_lazy(a):
        return check_matrix(a, name, ensure_finite=ensure_finite)
    return check_lazy_source(a, name)


def check_lazy_source(a: Any, name: str) -> Any:
    """Check the shape and type of a source on a disk, and make it one that conforms.

    Backed sparse matrices have no `ndim`, and give CSR for a slice; memory-maps of bfloat16 have
    no type that NumPy knows.
    """
    check_lazy(a, name)
    if hasattr(a, "ndim") and getattr(a.dtype, "type", None) is not np.void:
        return a
    dtype = np.dtype(np.float32) if np.dtype(a.dtype).type is np.void else np.dtype(a.dtype)
    return SlicedRows(a, width=width_of(a), dtype=dtype)


def is_vector(given: Any, checked: Any) -> bool:
    """Whether one value a row was given: no matrix, and no column of vectors."""
    if isinstance(given, (list, tuple)) and len(getattr(given[0], "shape", ())):
        return False  # of rows, or of tensors that NumPy does not take
    shape = given.shape if hasattr(given, "shape") else np.asarray(given).shape
    return len(shape) == 1 and (checked.ndim == 1 or int(checked.shape[1]) == 1)


def check_rows_of(given: Any, checked: Any) -> Any:
    """Return a checked X, or raise in scikit-learn's words if it was a vector."""
    if is_vector(given, checked):
        raise ValueError(
            "Expected 2D array, got 1D array instead: X holds one row per item. Reshape your "
            "data with X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if one item"
        )
    return checked
