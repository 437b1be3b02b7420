"""Eigendecompositions in single precision that other threads run beside."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmstats.kernels._cpu._jit import jit

__all__ = ["eigh"]

Floats = np.ndarray[Any, np.dtype[np.float32]]


@jit()
def eigh(S: Floats) -> tuple[Floats, Floats]:
    """LAPACK's ssyevd, without the interpreter lock.

    NumPy computes in double precision whatever it is given, and SciPy keeps the lock: two folds
    would wait for each other.
    """
    return np.linalg.eigh(S)
