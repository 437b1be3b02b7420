"""The CUDA kernel of the scatter against NumPy: simulator, GPU and PTX.

cuBLAS is no part of the simulator: there CuPy is replaced by NumPy, and the products by ones
that read the same addresses.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat
import numba
import numpy as np
import pytest
from numba import cuda, types

from cmstats.kernels import covariance as dispatcher
from cmstats.kernels._cuda import covariance as room


def problem(n: int, widths: tuple[int, ...], dtype: Any, weighted: bool) -> tuple[Any, ...]:
    rng = np.random.default_rng([n, *widths])
    d = sum(widths)
    Z = (rng.normal(size=(n, d)) * np.geomspace(0.1, 3, d) + 5).astype(dtype)
    centre = np.full(d, 4.75)
    w = rng.integers(0, 4, n).astype(float) if weighted else None
    blocks = np.split(Z, np.cumsum(widths)[:-1], axis=1)
    return [np.ascontiguousarray(b) for b in blocks], centre, w


def expected_sums(blocks: Any, centre: Any, w: Any) -> tuple[Any, ...]:
    w = np.ones(len(blocks[0])) if w is None else w
    offsets = np.cumsum([0, *(b.shape[1] for b in blocks)])
    third, fourth = [], []
    for block, start in zip(blocks, offsets, strict=False):
        y = block.astype(float) - centre[start : start + block.shape[1]]
        norms = (y**2).sum(axis=1)
        third.append((w * norms) @ y)
        fourth.append((w * norms**2).sum())
    Y = np.concatenate(blocks, axis=1).astype(float) - centre
    return w @ Y, np.concatenate(third), np.array(fourth), (Y * w[:, None]).T @ Y


# 70 rows are two blocks of threads, one of them not full.
@pytest.mark.parametrize(
    ("n", "widths", "dtype", "weighted"),
    [(1, (1,), np.float64, False), (70, (3, 37), np.float32, True), (9, (5,), np.float64, True)],
)
def test_rows_are_centred_and_summed(n: int, widths: Any, dtype: Any, weighted: bool) -> None:
    blocks, centre, w = problem(n, widths, dtype, weighted)
    roots = np.empty(0, dtype) if w is None else np.sqrt(w).astype(dtype)
    d = centre.size
    high = cuda.to_device(np.zeros((n, d), dtype))
    low = cuda.to_device(np.zeros((0, d), dtype))
    sums = tuple(cuda.to_device(np.zeros(size)) for size in (d, d, len(blocks)))
    offset = 0
    for index, block in enumerate(blocks):
        arguments = [cuda.to_device(a) for a in (block, centre.astype(dtype), roots)]
        room.launch_centre(*arguments, high, low, offset, False, sums, index)
        offset += block.shape[1]
    z = np.concatenate(blocks, axis=1) - centre
    z = z if w is None else z * np.sqrt(w)[:, None]
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(high.copy_to_host(), z, rtol=rtol, atol=rtol)
    for found, wanted in zip(sums, expected_sums(blocks, centre, w), strict=False):
        np.testing.assert_allclose(found.copy_to_host(), wanted, rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_split_row_is_two_numbers_of_11_bits(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 50)).astype(dtype)
    centre = np.float16(0.3).astype(np.float32) * np.ones(50, np.float32)
    high, low = (cuda.to_device(np.zeros((3, 50), dtype)) for _ in range(2))
    sums = tuple(cuda.to_device(np.zeros(size)) for size in (50, 50, 1))
    device = [cuda.to_device(a) for a in (x, centre, np.empty(0, np.float32))]
    room.launch_centre(*device, high, low, 0, dtype == np.float32, sums, 0)
    H, L = high.copy_to_host().astype(float), low.copy_to_host().astype(float)
    for part in (H, L):  # 11 significant bits: times 2^11 the fraction is whole
        fraction = np.frexp(part)[0] * 2.0**11
        np.testing.assert_array_equal(fraction, np.round(fraction))
    y = (x.astype(np.float32) - centre).astype(float)
    assert (np.abs(y - H) <= 2.0**-11 * np.abs(y)).all()
    assert (np.abs(y - H - L) <= 2.0**-22 * np.abs(y)).all()


# ----------------------------------------------------------------- products, cuBLAS replaced
def _read(address: int, kind: int, rows: int, columns: int) -> Any:
    """The column-major matrix at an address, as cuBLAS would read it."""
    dtype = {0: np.float32, 2: np.float16}[kind]
    size = rows * columns * np.dtype(dtype).itemsize
    flat = np.frombuffer((ctypes.c_char * size).from_address(address), dtype)
    return flat.reshape(columns, rows).T


def _gemm_ex(
    handle: int, ta: int, tb: int, m: int, n: int, k: int, alpha: int, A: int, a_kind: int,
    lda: int, B: int, b_kind: int, ldb: int, beta: int, C: int, c_kind: int, ldc: int,
    compute: int, algorithm: int,
) -> None:  # fmt: skip
    assert (handle, ta, tb, lda, ldb, ldc, algorithm) == (7, 0, 1, m, n, m, -1)
    assert compute == (68 if a_kind == 2 else 77)
    scale = [ctypes.c_float.from_address(p).value for p in (alpha, beta)]
    a, b = _read(A, a_kind, m, k), _read(B, b_kind, n, k)
    c = _read(C, c_kind, m, n)
    c[...] = scale[0] * (a.astype(float) @ b.T.astype(float)) + scale[1] * c


def _syrk(trans: str, a: Any, out: Any, beta: float = 0.0) -> None:
    assert trans == "T"
    assert out.flags.c_contiguous
    upper = np.triu_indices(out.shape[0])
    out[upper] = (a.T @ a)[upper] + beta * out[upper]


@pytest.fixture
def fake_cublas(numpy_as_cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    blas = SimpleNamespace(
        CUBLAS_OP_N=0,
        CUBLAS_OP_T=1,
        CUBLAS_POINTER_MODE_HOST=0,
        CUBLAS_COMPUTE_32F=68,
        CUBLAS_COMPUTE_32F_FAST_TF32=77,
        CUBLAS_GEMM_DEFAULT=-1,
        getPointerMode=lambda handle: 0,
        setPointerMode=lambda handle, mode: None,
        gemmEx=_gemm_ex,
    )
    numpy_as_cupy.cublas = SimpleNamespace(syrk=_syrk)  # type: ignore[attr-defined]
    numpy_as_cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        device=SimpleNamespace(get_cublas_handle=lambda: 7)
    )
    for name in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs.cublas", blas)
    monkeypatch.setitem(sys.modules, "cupy.cuda", numpy_as_cupy.cuda)
    monkeypatch.setattr(room, "_address", lambda a: a.ctypes.data)
    monkeypatch.setattr(room, "FLUSH_ROWS", 16)


@pytest.mark.parametrize(
    ("dtype", "split", "weighted"),
    [
        (np.float64, None, True),
        (np.float32, None, False),
        (np.float32, "tf32", True),
        (np.float16, "half", False),
    ],
)
def test_tiles_add_up_to_the_scatter(
    fake_cublas: None, dtype: Any, split: Any, weighted: bool
) -> None:
    blocks, centre, w = problem(40, (3, 4), dtype, weighted)
    working = np.float64 if dtype == np.float64 else np.float32
    tiles = room.Tiles(7, working, split)
    sums = np.zeros(7), np.zeros(7), np.zeros(2)
    for rows in (slice(0, 21), slice(21, 40)):
        roots = np.empty(0) if w is None else np.sqrt(w[rows])
        tiles.add([b[rows] for b in blocks], roots, centre, sums)
    S = tiles.matrix()
    *wanted, scatter = expected_sums(blocks, centre, w)
    np.testing.assert_array_equal(S, S.T)
    # A split costs at most 3 * 2^-22 of the largest variance; float32 rows were rounded before.
    rtol = 1e-12 if dtype == np.float64 else 3 * 2.0**-22
    assert np.abs(S - scatter).max() <= rtol * np.diag(scatter).max()
    for found, sum_ in zip(sums, wanted, strict=True):
        np.testing.assert_allclose(found, sum_, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "precision", "weighted"),
    [
        (np.float32, "highest", True),
        (np.float32, "high", False),
        (np.float16, "highest", False),
        (np.float16, "highest", True),
        (np.int32, "high", False),
    ],
)
def test_the_scatter_takes_this_route(
    fake_cublas: None,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Any,
    precision: Any,
    weighted: bool,
) -> None:
    monkeypatch.setattr(dispatcher, "is_numpy", lambda xp: False)
    monkeypatch.setattr(array_api_compat, "is_cupy_namespace", lambda xp: True)
    (Z,), _, w = problem(40, (5,), dtype, weighted)
    n, mean, S = dispatcher.scatter(Z, w, precision=precision)
    assert n == (40 if w is None else w.sum())
    expected = np.average(Z.astype(float), axis=0, weights=w)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    wanted = expected_sums([Z], expected, w)[-1]
    assert np.abs(S - wanted).max() <= 3 * 2.0**-22 * np.diag(wanted).max()
    np.testing.assert_array_equal(S, S.T)


def test_cupy_arrays_go_this_way() -> None:
    cupy = pytest.importorskip("cupy")
    blocks, _, w = problem(20_000, (5, 60), np.float32, True)
    Z = np.concatenate(blocks, axis=1)
    for precision in ("highest", "high"):
        n, mean, S = dispatcher.scatter(cupy.asarray(Z), cupy.asarray(w), precision=precision)
        wanted = dispatcher.scatter(Z.astype(float), w)
        assert n == wanted[0]
        np.testing.assert_allclose(mean.get(), wanted[1], rtol=1e-6)
        assert np.abs(S.get() - wanted[2]).max() <= 1e-6 * np.diag(wanted[2]).max()


@pytest.mark.ptx
@pytest.mark.parametrize("real", [numba.float32, numba.float64])
@pytest.mark.parametrize("stored", [types.float16, numba.float32, numba.float64])
def test_kernels_compile(real: Any, stored: Any, compile_ptx: Callable[..., str]) -> None:
    if stored == numba.float64 and real == numba.float32:
        return
    vector, sums = real[::1], numba.float64[::1]
    written = types.float16 if stored == types.float16 and real == numba.float32 else real
    compile_ptx(
        room.centre_rows,
        (
            *(stored[:, ::1], vector, vector, written[:, ::1], written[:, ::1]),
            *(numba.int64, numba.boolean, sums, sums, sums, numba.int64),
        ),
    )
