"""Check one matrix: an array, a frame, a list, a sparse matrix, a Dask array or a row source."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from cmstats.arrays import check_matrix as check_in_memory
from cmstats.arrays import is_dask, is_lazy
from cmstats.rows import dask

__all__ = ["check_matrix", "check_source"]

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


def check_source(a: Any, name: str, *, ensure_finite: Finite = True, hint: str = "") -> Any:
    """`check_matrix`, but a source on a disk is returned as it is and checked when it is read."""
    return a if is_lazy(a) else check_matrix(a, name, ensure_finite=ensure_finite, hint=hint)
