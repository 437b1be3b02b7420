"""Launch Numba kernels on CuPy arrays, in the order of CuPy's own calls."""

from __future__ import annotations

import sys
from typing import Any

import numba
from numba import cuda as numba_cuda

__all__ = ["blocks_for", "cuda", "launch"]

cuda: Any = numba_cuda  # its names are made at run time, where type checkers see none
SIMULATED = bool(getattr(numba.config, "ENABLE_CUDASIM", False))


def launch(kernel: Any, grid: Any, block: Any, *arguments: Any) -> None:
    """``kernel[grid, block](*arguments)`` on CuPy's current stream.

    Parameters
    ----------
    kernel : function made by ``numba.cuda.jit``
    grid, block : int or tuple of int
    *arguments
        CuPy arrays, Numba's device arrays or numbers. CuPy's are wrapped without waiting
        for their stream, which Numba would do for each of them: the kernel runs on it.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None or SIMULATED:
        kernel[grid, block](*arguments)
        return
    stream = cuda.external_stream(cupy.cuda.get_current_stream().ptr)
    wrapped = (
        cuda.as_cuda_array(a, sync=False) if isinstance(a, cupy.ndarray) else a for a in arguments
    )
    kernel[grid, block, stream](*wrapped)


def blocks_for(n: int, size: int) -> int:
    """How many blocks of `size` cover n."""
    return -(-n // size)
