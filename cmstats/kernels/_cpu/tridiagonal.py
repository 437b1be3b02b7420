"""Symmetric matrices in tridiagonal form on the CPU: LAPACK's reduction, and shifted systems.

LAPACK is called without the interpreter lock, so that other threads run beside it.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from numba.extending import get_cython_function_address

from cmstats.kernels._cpu._jit import jit

__all__ = ["pivots", "reduced", "solved"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]

BLOCK = 64
"""LAPACK's work space in columns: with less it leaves out the blocks, and takes twice as long."""


def reduced(S: Floats) -> tuple[Floats, Floats, Floats]:
    """S = Q T Q' by Householder reflections: the diagonal of T, the one beside it, and Q.

    Parameters
    ----------
    S : array of shape (n, n), float32
        Symmetric, with n at least 2.
    """
    n = S.shape[0]
    Q = np.array(S, order="F")
    diagonal, beside, tau = (np.empty(k, np.float32) for k in (n, n - 1, n - 1))
    work = np.empty(n * BLOCK, np.float32)
    sizes, info = (ctypes.c_int(n), ctypes.c_int(work.size)), ctypes.c_int(0)
    lower = ctypes.c_char(b"L")
    order, room = (ctypes.byref(size) for size in sizes)
    head = (ctypes.byref(lower), order, _at(Q), order)
    tail = (_at(work), room, ctypes.byref(info))
    _lapack("ssytrd", 10)(*head, _at(diagonal), _at(beside), _at(tau), *tail)
    if not info.value:
        _lapack("sorgtr", 8)(*head, _at(tau), *tail)
    if info.value:  # only an argument can be wrong
        raise AssertionError(f"LAPACK refused argument {-info.value}")
    return diagonal, beside, Q


def _at(a: Floats) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


@functools.cache
def _lapack(name: str, arguments: int) -> Any:
    """A routine of SciPy's LAPACK; ctypes releases the interpreter lock while it runs."""
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
    return signature(get_cython_function_address("scipy.linalg.cython_lapack", name))


@jit()
def pivots(
    diagonal: Doubles, beside: Doubles, s: float
) -> tuple[Doubles, Doubles]:  # pragma: no cover - compiled
    """The Cholesky factor of (1 - s) T + s, by 1 / its diagonal and what stands below that.

    T is positive semi-definite, so that no square of the factor's diagonal is below s.
    """
    n = diagonal.shape[0]
    roots, below = np.empty(n), np.zeros(n)
    for i in range(n):
        square = (1 - s) * diagonal[i] + s
        if i > 0:
            below[i] = (1 - s) * beside[i - 1] * roots[i - 1]
            square -= below[i] * below[i]
        roots[i] = 1 / np.sqrt(max(square, s))
    return roots, below


@jit(fastmath={"reassoc", "contract"})
def solved(
    roots: Doubles, below: Doubles, A: Floats
) -> tuple[Floats, Doubles]:  # pragma: no cover - compiled
    """L^-1 A for such a factor L, and the sum of squares of each column."""
    n, m = A.shape
    out, squares = np.empty((n, m), np.float32), np.zeros(m)
    for i in range(n):
        r, c = np.float32(roots[i]), np.float32(below[i])
        if i == 0:
            for j in range(m):
                out[0, j] = A[0, j] * r
        else:
            for j in range(m):
                out[i, j] = (A[i, j] - c * out[i - 1, j]) * r
        for j in range(m):
            squares[j] += out[i, j] * out[i, j]
    return out, squares
