"""One matrix of rows: an array, a frame, a sparse matrix or a Dask array, checked."""

from __future__ import annotations

from typing import Any, Literal

from cmstats.arrays import check_matrix as check_in_memory
from cmstats.arrays import is_dask
from cmstats.rows import dask

__all__ = ["check_matrix"]


def check_matrix(
    a: Any,
    name: str,
    *,
    ensure_finite: bool | Literal["allow-nan"] = True,
    hint: str = "",
) -> Any:
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
