"""Scatter matrices on a GPU: a kernel centres and sums a tile of rows, cuBLAS multiplies it.

float32 and float64 rows are multiplied as they are, by SYRK. float16 rows, and float32 rows at
``precision="high"``, are written as H + L, two numbers of 11 significant bits, for the tensor
cores: ``(H + L)'(H + L) = H'H + H'L + L'H`` but for L'L, and with ``M = H'H + 2 H'L`` that is
``(M + M') / 2``, two products instead of three.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from cmstats.arrays import Array, row_slices
from cmstats.kernels._cuda._launch import blocks_for, cuda, launch
from cmstats.kernels._cuda.gram import launch_mirror

__all__ = ["Tiles", "launch_centre"]

FLUSH_ROWS = 8192
"""Products in single precision are added into float64 after at most this many rows."""
TILE_BYTES = 128 << 20
"""A tile of centred rows takes at most about this much: few launches, little memory."""


class Tiles:
    """The sum of z'z over tiles of centred rows z = sqrt(w) (x - centre), in float64.

    Parameters
    ----------
    d : int
        Columns.
    dtype : float32 or float64
        The working precision.
    split : None, "tf32" or "half"
        What the tensor cores read: float32 that is rounded to TF32, or float16.
    """

    def __init__(self, d: int, dtype: Any, split: str | None) -> None:
        import cupy as cp

        self.dtype, self.split = np.dtype(dtype), split
        stored = np.dtype(np.float16) if split == "half" else self.dtype
        fitting = TILE_BYTES // (d * stored.itemsize * (2 if split else 1))
        self.rows = min(max(fitting // FLUSH_ROWS, 1), 8) * FLUSH_ROWS
        self._high = cp.empty((self.rows, d), stored)
        self._low = cp.empty((self.rows if split else 0, d), stored)
        self._total = cp.zeros((d, d), np.float64)
        # SYRK writes one triangle only: the other one stays zero.
        self._part = cp.zeros((d, d), self.dtype)

    def add(
        self,
        blocks: Sequence[Array],
        roots: Array,
        centre: Array,
        sums: tuple[Array, Array, Array],
    ) -> None:
        """Centre the rows of all blocks, at most `rows` of them, and add their product.

        Parameters
        ----------
        blocks : sequence of arrays of shape (m, p_b)
        roots : array of shape (m,), or (0,) without weights
            Square roots of the weights.
        centre : array of shape (d,)
        sums : arrays of shape (d,), (d,) and (number of blocks,), float64
            To these the sums of w y, w ||y||^2 y and w ||y||^4 are added.
        """
        import cupy as cp

        m = blocks[0].shape[0]
        high, low = self._high[:m], self._low[:m]
        roots = cp.asarray(roots, dtype=self.dtype)
        centre = cp.asarray(centre, dtype=self.dtype)
        offset = 0
        for index, block in enumerate(blocks):
            x = block if block.dtype in (np.float16, self.dtype) else block.astype(self.dtype)
            x = cp.ascontiguousarray(x)
            launch_centre(x, centre, roots, high, low, offset, self.split == "tf32", sums, index)
            offset += x.shape[1]
        for part in row_slices(m, FLUSH_ROWS):
            if self.split is None:
                self._syrk(high[part])
            else:
                self._multiply(high[part], high[part], 1.0, 0.0)
                self._multiply(high[part], low[part], 2.0, 1.0)
                self._total += self._part

    def matrix(self) -> Array:
        """The sum so far, exactly symmetric."""
        if self.split:
            return 0.5 * (self._total + self._total.T)
        out = self._total.copy()
        launch_mirror(out)
        return out

    def _syrk(self, z: Array) -> None:
        from cupy import cublas

        if self.dtype == np.float64:
            cublas.syrk("T", z, out=self._total, beta=1.0)
        else:
            cublas.syrk("T", z, out=self._part)
            self._total += self._part

    def _multiply(self, a: Array, b: Array, alpha: float, beta: float) -> None:
        """``part = alpha a'b + beta part`` on tensor cores, accumulated in float32.

        `cupy.matmul` would return float16, and knows TF32 as a global setting only.
        """
        from cupy.cuda import device

        cublas: Any = importlib.import_module("cupy_backends.cuda.libs.cublas")
        rows, d = a.shape
        half = self.split == "half"
        kind = CUDA_R_16F if half else CUDA_R_32F
        compute = cublas.CUBLAS_COMPUTE_32F if half else cublas.CUBLAS_COMPUTE_32F_FAST_TF32
        scales = np.array([alpha, beta], np.float32)
        handle = device.get_cublas_handle()
        mode = cublas.getPointerMode(handle)
        cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
        try:
            # cuBLAS reads by columns: to it the C-ordered a is a', and the result part'.
            cublas.gemmEx(
                handle,
                cublas.CUBLAS_OP_N,
                cublas.CUBLAS_OP_T,
                d,
                d,
                rows,
                scales.ctypes.data,
                _address(b),
                kind,
                d,
                _address(a),
                kind,
                d,
                scales.ctypes.data + scales.itemsize,
                _address(self._part),
                CUDA_R_32F,
                d,
                compute,
                cublas.CUBLAS_GEMM_DEFAULT,
            )
        finally:
            cublas.setPointerMode(handle, mode)


CUDA_R_32F, CUDA_R_16F = 0, 2  # cudaDataType


def _address(a: Array) -> int:
    return int(a.data.ptr)


@cuda.jit(device=True)
def to_tf32(v):  # type: ignore[no-untyped-def]
    """A float32 rounded to the 11 significant bits of TF32 (tensor cores would cut them off)."""
    bits = (v.view(np.int32) + np.int32(0x1000)) & np.int32(-0x2000)
    return np.int32(bits).view(np.float32)


@cuda.jit
def centre_rows(x, centre, roots, high, low, offset, tf32, first, third, fourth, index):  # type: ignore[no-untyped-def]
    """Centre, scale and (with `low`) split 64 rows of one block, and add up their sums.

    A block of 4 x 32 threads: first a row to 32 neighbouring threads, then a column to a
    thread, while what was written is still in the first cache.
    """
    partial = cuda.shared.array((64, 33), numba.float64)
    a = cuda.shared.array(64, numba.float64)  # w y = a z
    b = cuda.shared.array(64, numba.float64)  # w ||y||^2 y = b z
    lane, team = cuda.threadIdx.x, cuda.threadIdx.y
    t = team * 32 + lane
    base = cuda.blockIdx.x * 64
    rows = x.shape[0] - base
    if rows > 64:
        rows = 64
    columns = x.shape[1]
    split = low.shape[0] > 0
    one = centre.dtype.type(1.0)
    for r in range(team, rows, 4):
        i = base + r
        root = roots[i] if roots.shape[0] > 0 else one
        total = 0.0
        for j in range(lane, columns, 32):
            y = centre.dtype.type(x[i, j]) - centre[offset + j]
            total += numba.float64(y) * numba.float64(y)
            z = root * y
            if split and tf32:
                cut = to_tf32(numba.float32(z))
                high[i, offset + j] = cut
                low[i, offset + j] = to_tf32(numba.float32(z - cut))
            else:
                high[i, offset + j] = z
                if split:
                    low[i, offset + j] = z - centre.dtype.type(high[i, offset + j])
        partial[r, lane] = total
    cuda.syncthreads()
    if t < rows:
        norm = 0.0
        for k in range(32):
            norm += partial[t, k]
        root = roots[base + t] if roots.shape[0] > 0 else one
        a[t] = root
        b[t] = root * norm
    cuda.syncthreads()
    if t == 0:
        total = 0.0
        for r in range(rows):
            total += b[r] * b[r]
        cuda.atomic.add(fourth, index, total)
    for j in range(t, columns, 128):
        s, q = 0.0, 0.0
        for r in range(rows):
            v = numba.float64(high[base + r, offset + j])
            if split:
                v += numba.float64(low[base + r, offset + j])
            s += a[r] * v
            q += b[r] * v
        cuda.atomic.add(first, offset + j, s)
        cuda.atomic.add(third, offset + j, q)


def launch_centre(
    x: Any,
    centre: Any,
    roots: Any,
    high: Any,
    low: Any,
    offset: int,
    tf32: bool,
    sums: tuple[Any, Any, Any],
    index: int,
) -> None:
    """Rows of block `index`, whose columns begin at `offset`, into `high` (and `low`).

    `low` has no rows where the rows are not split; `roots` is empty without weights.
    """
    grid = blocks_for(x.shape[0], 64)
    launch(centre_rows, grid, (32, 4), x, centre, roots, high, low, offset, tf32, *sums, index)
