"""exp of non-positive numbers in operations that vectorise, which a call of libm does not.

2^k is made by the exponent's bits (adding 1.5 * 2^52, or 1.5 * 2^23, rounds to an integer);
the rest is a Taylor polynomial.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba.extending import overload

from cmstats.kernels._cpu._jit import jit

__all__ = ["EXACT", "SUM", "exp", "exp_double", "exp_single"]

EXACT = {"contract", "nsz"}
"""fastmath: fused multiply-add only, so that NaN, infinities and order are kept."""
SUM = {"contract", "nsz", "reassoc"}
"""fastmath: lets a sum over contiguous columns use vector lanes."""


@jit(fastmath=EXACT, error_model="numpy")
def exp_double(v):  # type: ignore[no-untyped-def]  # pragma: no cover
    """exp of a float64 at most 0, to an ulp or two."""
    low = v < -708.0
    v = -708.0 if low else v
    shifted = v * 1.4426950408889634 + 6755399441055744.0
    k = shifted - 6755399441055744.0
    r = v - k * 6.93147180369123816490e-01
    r = r - k * 1.90821492927058770002e-10
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    bits = (np.float64(shifted).view(np.int64) + np.int64(1023)) << np.int64(52)
    return 0.0 if low else p * np.int64(bits).view(np.float64)


@jit(fastmath=EXACT, error_model="numpy")
def exp_single(v):  # type: ignore[no-untyped-def]  # pragma: no cover
    """exp of a float32 at most 0, to an ulp or two."""
    low = v < np.float32(-87.0)
    v = np.float32(-87.0) if low else v
    shifted = v * np.float32(1.44269504) + np.float32(12582912.0)  # 1.5 * 2^23 rounds
    k = shifted - np.float32(12582912.0)
    r = v - k * np.float32(0.693359375)
    r = r - k * np.float32(-2.12194440e-4)
    p = np.float32(1.0 / 5040.0)
    p = p * r + np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    bits = np.int32((np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23))
    return np.float32(0.0) if low else p * bits.view(np.float32)


def exp(v: float) -> float:
    """exp in the precision of its argument: in compiled code one of the two above."""
    return math.exp(v)


@overload(exp, inline="always")
def _exp_by_type(v):  # type: ignore[no-untyped-def]
    if v == numba.float32:
        return lambda v: exp_single(v)
    return lambda v: exp_double(v)
