"""Kernel (Gram) blocks: k(x_i, y_j) for the rows of two matrices.

The values are scikit-learn's pairwise kernels; the work is a product in tiles whose epilogue
(distance, exponential, row sums) runs while the tile is in cache, into a buffer that can be
used again. Squared distances come from ``|x|^2 + |y|^2 - 2 x'y`` of rows from which the mean
of Y has been subtracted: a distance does not change, and the digits that a mean far from
zero would cost are kept. They are never negative, and exactly zero on the diagonal of a
matrix with itself, which is computed from one triangle and is symmetric exactly.

The convention for `gamma` is ``exp(-gamma * distance)`` throughout.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, overload

import array_api_compat
import numba
import numpy as np
import scipy.sparse
from numba.extending import overload as numba_overload
from sklearn.utils.random import sample_without_replacement

from cmstats._array import (
    Array,
    check_matrix,
    count_nonfinite,
    device_of,
    is_array,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    to_numpy,
)
from cmstats.kernels._threads import run_tasks
from cmstats.kernels.normal import _exp as _exp_double
from cmstats.kernels.normal import _numba_stream

__all__ = ["KERNELS", "gram", "median_gamma"]

KERNELS = ("rbf", "laplacian", "polynomial", "sigmoid", "cosine", "linear", "chi2")
"""Kernels by name; "poly" is read as "polynomial"."""

Kernel = str | Callable[[Array, Array], Array]


# ------------------------------------------------------------------------- dispatchers
@overload
def gram(
    X: Array,
    Y: Array | None = ...,
    *,
    kernel: Kernel = ...,
    gamma: float | None = ...,
    degree: float = ...,
    coef0: float = ...,
    out: Array | None = ...,
    return_row_sums: Literal[False] = ...,
) -> Array: ...


@overload
def gram(
    X: Array,
    Y: Array | None = ...,
    *,
    kernel: Kernel = ...,
    gamma: float | None = ...,
    degree: float = ...,
    coef0: float = ...,
    out: Array | None = ...,
    return_row_sums: Literal[True],
) -> tuple[Array, Array]: ...


def gram(
    X: Array,
    Y: Array | None = None,
    *,
    kernel: Kernel = "rbf",
    gamma: float | None = None,
    degree: float = 3,
    coef0: float = 1.0,
    out: Array | None = None,
    return_row_sums: bool = False,
) -> Array | tuple[Array, Array]:
    r"""The block of kernel values between the rows of `X` and the rows of `Y`.

    ============  ====================================================  ===============
    kernel        k(x, y)                                               gamma=None
    ============  ====================================================  ===============
    rbf           exp(-gamma ||x - y||^2)                               1/d
    laplacian     exp(-gamma sum_j \|x_j - y_j\|)                         1/d
    polynomial    (gamma x'y + coef0)^degree                            1/d
    sigmoid       tanh(gamma x'y + coef0)                               1/d
    cosine        x'y / (||x|| ||y||), 0 for a row of zeros             not used
    linear        x'y                                                   not used
    chi2          exp(-gamma sum_j (x_j - y_j)^2 / (x_j + y_j))         1
    ============  ====================================================  ===============

    Parameters
    ----------
    X : array of shape (n, d)
        Rows are items.
    Y : array of shape (m, d), optional
        X itself when None: half the work, and a block that is symmetric exactly.
    kernel : str or callable, default="rbf"
        A name of the table, or a function of two matrices (n, d) and (m, d) that returns
        their block (n, m), as those of ``sklearn.metrics.pairwise`` do.
    gamma : float, optional
        Scale, positive; see the table and `median_gamma`.
    degree, coef0 : float
        Parameters of the polynomial and sigmoid kernels.
    out : array of shape (n, m), optional
        A buffer for the result, of the result's dtype; saves the allocation in a loop.
    return_row_sums : bool, default=False
        Also return the sum of each row of the block, accumulated in float64 tile by tile
        (what centring needs).

    Returns
    -------
    array of shape (n, m)
        Float64 for float64 and integer data, otherwise float32; `out` when given.
    array of shape (n,)
        Row sums in float64; only with `return_row_sums`.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite, `gamma` is not positive, the chi2 kernel
        meets a negative value, or `out` does not fit.
    TypeError
        If the arrays are of different libraries or devices, or sparse.
    MemoryError
        If a GPU has no room for the block; the sentence says how many rows would fit.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.gram import gram
    >>> X = np.array([[0.0, 0.0], [1.0, 1.0]])
    >>> K, sums = gram(X, gamma=0.5, return_row_sums=True)
    >>> K.round(4)
    array([[1.    , 0.3679],
           [0.3679, 1.    ]])
    >>> sums.round(4)
    array([1.3679, 1.3679])
    """
    xp = namespace(X, Y, out)
    X = _check(X, "X")
    if Y is not None:
        Y = _check(Y, "Y")
        if X.shape[1] != Y.shape[1]:
            raise ValueError(f"X has {X.shape[1]} columns and Y has {Y.shape[1]}: they must agree")
    shape = (X.shape[0], X.shape[0] if Y is None else Y.shape[0])
    dtype = _common_dtype(X, Y)
    _check_out(out, shape, dtype)
    if callable(kernel):
        K = _called(kernel, X, X if Y is None else Y, shape, dtype)
        if out is not None:
            out[...] = K
        K = K if out is None else out
        return (K, xp.sum(K, axis=1, dtype=xp.float64)) if return_row_sums else K
    spec = _check_kernel(kernel, gamma, degree, coef0, X, Y)
    if is_numpy(xp):
        K = np.empty(shape, dtype=dtype) if out is None else out
        sums = _cpu(X, Y, spec, K, return_row_sums)
    elif array_api_compat.is_cupy_namespace(xp):
        K, sums = _cupy(X, Y, spec, out, shape, dtype, return_row_sums)
    else:
        K = _reference(X, X if Y is None else Y, spec, same=Y is None)
        if out is not None:
            out[...] = K
            K = out
        sums = xp.sum(K, axis=1, dtype=xp.float64) if return_row_sums else None
    return (K, sums) if return_row_sums else K


def median_gamma(
    X: Array, *, n_samples: int = 1000, random_state: int | np.random.RandomState | None = None
) -> float:
    """The median heuristic: 1 / median squared distance between rows.

    Parameters
    ----------
    X : array of shape (n, d)
        Rows are items, at least two.
    n_samples : int, default=1000
        How many rows to draw (without replacement); all their pairs count. With n at most
        this, every row is used and nothing is random.
    random_state : int, RandomState or None
        Draws the rows.

    Returns
    -------
    float
        The `gamma` at which ``exp(-gamma * squared distance)`` is 1/e for the median pair.
        Other conventions are multiples of it: ``exp(-d^2 / (2 median d^2))`` is half, and
        twice it (2 / median) served kernel CCA on images well.

    Raises
    ------
    ValueError
        If there are fewer than two rows, a value is not finite, or all rows are equal.

    Notes
    -----
    Where more than half of the pairs are duplicates the median is over the others. The
    sample is taken to the host: the heuristic is one number.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.gram import median_gamma
    >>> median_gamma(np.array([[0.0], [1.0], [3.0]]))  # squared distances 1, 4, 9
    0.25
    """
    X = _check(X, "X", ensure_finite=False)
    n = X.shape[0]
    if isinstance(n_samples, bool) or n_samples != int(n_samples) or n_samples < 2:
        raise ValueError(f"n_samples must be an integer of at least 2, got {n_samples!r}")
    if n < 2:
        raise ValueError("X has 1 row, and the median distance needs at least 2")
    if n > n_samples:
        rows = np.sort(sample_without_replacement(n, int(n_samples), random_state=random_state))
        xp = namespace(X)
        X = X[rows] if is_numpy(xp) else xp.take(X, xp.asarray(rows, device=device_of(X)), axis=0)
    sample = check_matrix(to_numpy(X).astype(np.float64), "X")
    sample -= sample.mean(axis=0)
    norms = np.einsum("ij,ij->i", sample, sample)
    distances = norms[:, None] + norms - 2.0 * (sample @ sample.T)
    distances = distances[np.triu_indices(len(sample), 1)]
    # Below this a difference of norms is rounding, not distance.
    positive = distances[distances > 1e-13 * norms.max()]
    if not positive.size:
        raise ValueError("X has equal rows only, so that no distance sets gamma: pass gamma")
    median = np.median(distances if 2 * positive.size > distances.size else positive)
    return float(1.0 / median)


# -------------------------------------------------------------------------- validation
def _check(a: Any, name: str, *, ensure_finite: bool = True) -> Array:
    if scipy.sparse.issparse(a):
        raise TypeError(f"{name} is sparse, and kernel blocks are dense: pass {name}.toarray()")
    return check_matrix(a, name, ensure_finite=ensure_finite)


def _common_dtype(X: Array, Y: Array | None) -> Any:
    dtype = result_dtype(X)
    return dtype if Y is None or dtype == namespace(X).float64 else result_dtype(Y)


def _check_out(out: Array | None, shape: tuple[int, int], dtype: Any) -> None:
    if out is None:
        return
    if not is_array(out) or tuple(out.shape) != shape or out.dtype != dtype:
        got = f"{getattr(out, 'dtype', type(out).__name__)} of shape {np.shape(out)}"
        wanted = getattr(dtype, "__name__", dtype)
        raise ValueError(f"out must be an array of {wanted} of shape {shape}, got {got}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out is read-only")


def _called(
    kernel: Callable[[Array, Array], Array],
    X: Array,
    Y: Array,
    shape: tuple[int, int],
    dtype: Any,
) -> Array:
    K = kernel(X, Y)
    xp = namespace(X)
    if not is_array(K) or tuple(K.shape) != shape or namespace(K) is not xp:
        raise ValueError(
            f"a callable kernel must return an array of X's kind and of shape {shape}, one value "
            f"per pair of rows, got {type(K).__name__} of shape {np.shape(K)}"
        )
    return xp.astype(K, dtype, copy=False)


def _check_kernel(
    kernel: str, gamma: float | None, degree: float, coef0: float, X: Array, Y: Array | None
) -> SimpleNamespace:
    name = "polynomial" if kernel == "poly" else kernel
    if name not in KERNELS:
        raise ValueError(
            f"kernel must be a function or one of {', '.join(KERNELS)}, got {kernel!r}"
        )
    if gamma is None:
        gamma = 1.0 if name == "chi2" else 1.0 / X.shape[1]
    if not (gamma > 0 and math.isfinite(gamma)):
        raise ValueError(f"gamma must be positive and finite, got {gamma!r}")
    if name == "polynomial" and not degree > 0:
        raise ValueError(f"degree must be positive, got {degree!r}")
    if name == "chi2":
        _check_not_negative(X, "X")
        if Y is not None:
            _check_not_negative(Y, "Y")
    return SimpleNamespace(name=name, gamma=float(gamma), degree=degree, coef0=float(coef0))


def _check_not_negative(a: Array, name: str) -> None:
    xp = namespace(a)
    if bool(xp.any(a < 0)):
        # NaN marks the negative entries, so that the search is the one for NaN.
        floats = xp.astype(a, result_dtype(a), copy=False)
        marked = xp.where(
            a < 0, xp.asarray(math.nan, dtype=floats.dtype, device=device_of(a)), floats
        )
        count, _, first = count_nonfinite(marked)
        row, column = first if first is not None else (0, 0)
        raise ValueError(
            f"the chi2 kernel needs values of at least 0, and {name} has {count} negative, the "
            f"first at row {row}, column {column}"
        )


# --------------------------------------------------------------------------- reference
def _reference(X: Array, Y: Array, spec: SimpleNamespace, *, same: bool = False) -> Array:
    """The table of `gram`, as it says; any conforming namespace."""
    xp = namespace(X, Y)
    dtype = _common_dtype(X, Y)
    X, Y = xp.astype(X, dtype, copy=False), xp.astype(Y, dtype, copy=False)
    if spec.name in ("laplacian", "chi2"):
        distances = _reference_pairs(X, Y, chi2=spec.name == "chi2")
        return xp.exp(-spec.gamma * distances)
    if spec.name == "rbf":
        centre = xp.mean(Y, axis=0)
        X, Y = X - centre, Y - centre
        x2, y2 = xp.sum(X * X, axis=1), xp.sum(Y * Y, axis=1)
        d2 = x2[:, None] + y2[None, :] - 2.0 * (X @ xp.matrix_transpose(Y))
        d2 = xp.where(d2 < 0, xp.zeros_like(d2), d2)
        if same:
            upper = xp.triu(d2, k=1)  # one triangle, so that it is symmetric exactly
            d2 = upper + xp.matrix_transpose(upper)
        return xp.exp(-spec.gamma * d2)
    if spec.name == "cosine":
        X, Y = _unit_rows(X), _unit_rows(Y)
    return _reference_finish(X @ xp.matrix_transpose(Y), spec)


def _reference_finish(products: Array, spec: SimpleNamespace) -> Array:
    """From x'y to the kernels that are functions of x'y alone."""
    xp = namespace(products)
    if spec.name == "polynomial":
        return (spec.gamma * products + spec.coef0) ** spec.degree
    if spec.name == "sigmoid":
        return xp.tanh(spec.gamma * products + spec.coef0)
    return products


def _unit_rows(a: Array) -> Array:
    xp = namespace(a)
    norms = xp.sqrt(xp.sum(a * a, axis=1, keepdims=True))
    return a / xp.where(norms > 0, norms, xp.ones_like(norms))


def _reference_pairs(X: Array, Y: Array, *, chi2: bool) -> Array:
    xp = namespace(X)
    m, d = Y.shape
    blocks = []
    for rows in row_slices(X.shape[0], max(1, 2**22 // (m * d))):
        difference = X[rows, None, :] - Y[None, :, :]
        if chi2:
            total = X[rows, None, :] + Y[None, :, :]
            total = xp.where(total > 0, total, xp.ones_like(total))  # 0/0 counts as 0
            blocks.append(xp.sum(difference * difference / total, axis=2))
        else:
            blocks.append(xp.sum(xp.abs(difference), axis=2))
    return xp.concat(blocks, axis=0)


# ------------------------------------------------------------------------ Numba, CPU
ROWS, COLUMNS = 256, 1024
"""A tile that stays in the second cache while its epilogue runs."""


def _cpu(
    X: np.ndarray[Any, Any],
    Y: np.ndarray[Any, Any] | None,
    spec: SimpleNamespace,
    out: np.ndarray[Any, Any],
    row_sums: bool,
) -> np.ndarray[Any, Any] | None:
    """Fill `out` tile by tile on Python threads; with Y None one triangle and its mirror."""
    n, m = out.shape
    d = X.shape[1]
    dtype = out.dtype
    prepare = _preparation(X if Y is None else Y, spec, dtype)
    right, right_norms = prepare(X if Y is None else Y)
    side = COLUMNS if Y is not None else ROWS * 2
    column_tiles = list(row_slices(m, side))
    row_tiles = list(row_slices(n, ROWS if Y is not None else side))
    # Sums of tiles are added at the end in one order, so that threads change no digit.
    partial = np.zeros((len(column_tiles), n)) if row_sums else None

    def work(i: int) -> None:
        rows = row_tiles[i]
        if Y is None:
            left, left_norms = right[rows], right_norms[rows]
        else:
            left, left_norms = prepare(X[rows])
        for j in range(i if Y is None else 0, len(column_tiles)):
            columns = column_tiles[j]
            diagonal = Y is None and i == j
            other = left if diagonal else right[columns]
            norms = (left_norms, right_norms[columns])
            tile = _fill_tile(out, rows, columns, left, other, norms, spec, diagonal)
            if partial is not None:
                partial[j, rows] = tile.sum(axis=1, dtype=np.float64)
            if Y is None and not diagonal:
                out[columns, rows] = tile.T
                if partial is not None:
                    partial[i, columns] = tile.sum(axis=0, dtype=np.float64)

    tasks = [functools.partial(work, i) for i in range(len(row_tiles))]
    run_tasks(tasks, inline=n * m * d < 2_000_000)
    return None if partial is None else partial.sum(axis=0)


def _preparation(reference: Any, spec: SimpleNamespace, dtype: Any) -> Callable[[Any], Any]:
    """What is done to rows before the product: cast, centre (rbf) or scale (cosine)."""
    centre = None
    if spec.name == "rbf":
        centre = np.mean(reference, axis=0, dtype=np.float64).astype(dtype)

    def prepare(a: Any) -> tuple[Any, Any]:
        a = np.ascontiguousarray(a, dtype=dtype)
        if spec.name == "cosine":
            a = _unit_rows(a)
        elif centre is not None:
            a = a - centre
            return a, np.einsum("ij,ij->i", a, a)
        return a, np.empty(a.shape[0], dtype=dtype)  # norms that nothing reads

    return prepare


def _fill_tile(
    out: Any,
    rows: slice,
    columns: slice,
    left: Any,
    right: Any,
    norms: tuple[Any, Any],
    spec: SimpleNamespace,
    diagonal: bool,
) -> Any:
    """Kernel values into ``out[rows, columns]``, which is returned.

    The loops take the whole of `out` and where the tile begins, because its contiguous rows
    are what makes them vectorise.
    """
    tile = out[rows, columns]
    scale = out.dtype.type(-spec.gamma)
    r0, c0 = rows.start, columns.start
    n, m = tile.shape
    if spec.name in ("laplacian", "chi2"):
        fill = _l1_distances if spec.name == "laplacian" else _chi2_distances
        fill(out, r0, c0, left, right)
        _exponential(out, r0, c0, n, m, scale)
        return tile
    np.matmul(left, right.T, out=tile)
    if spec.name == "rbf":
        _rbf(out, r0, c0, norms[0], norms[1], scale)
        if diagonal:
            np.fill_diagonal(tile, 1.0)
    elif spec.name in ("polynomial", "sigmoid"):
        tile *= spec.gamma
        tile += spec.coef0
        if spec.name == "sigmoid":
            np.tanh(tile, out=tile)
        elif spec.degree == int(spec.degree):
            _power(out, r0, c0, n, m, int(spec.degree))  # np.power calls pow
        else:
            np.power(tile, spec.degree, out=tile)
    return tile


_EXACT = {"contract", "nsz"}
_SUM = {"contract", "nsz", "reassoc"}


@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy")
def _exp_single(v):  # type: ignore[no-untyped-def]  # pragma: no cover
    """exp of a float32 at most 0, to an ulp or two; as normal._exp, in half the width."""
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


def _exp(v: float) -> float:
    """exp in the precision of its argument; Numba takes one of the two above."""
    return math.exp(v)


@numba_overload(_exp, inline="always")
def _exp_by_type(v):  # type: ignore[no-untyped-def]
    if v == numba.float32:
        return lambda v: _exp_single(v)
    return lambda v: _exp_double(v)


# Rows are sliced first: an index r0 + i could be negative as far as Numba knows, and the test
# for it would keep the inner loop from using vector lanes.
@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy")
def _rbf(out, r0, c0, x2, y2, scale):  # type: ignore[no-untyped-def]  # pragma: no cover
    two = out.dtype.type(2.0)
    zero = out.dtype.type(0.0)
    m = y2.shape[0]
    for i in range(x2.shape[0]):
        row = out[r0 + i, c0 : c0 + m]
        for j in range(m):
            d2 = x2[i] + y2[j] - two * row[j]
            row[j] = _exp(scale * (zero if d2 < zero else d2))


@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy")
def _exponential(out, r0, c0, n, m, scale):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(n):
        row = out[r0 + i, c0 : c0 + m]
        for j in range(m):
            row[j] = _exp(scale * row[j])


@numba.njit(nogil=True, cache=True, fastmath=_EXACT)
def _power(out, r0, c0, n, m, degree):  # type: ignore[no-untyped-def]  # pragma: no cover
    base = np.empty(m, out.dtype)
    for i in range(n):
        row = out[r0 + i, c0 : c0 + m]
        base[:] = row
        for _ in range(degree - 1):
            for j in range(m):
                row[j] *= base[j]


@numba.njit(nogil=True, cache=True, fastmath=_SUM, error_model="numpy")
def _l1_distances(out, r0, c0, X, Y):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(X.shape[0]):
        for j in range(Y.shape[0]):
            total = out.dtype.type(0.0)
            for c in range(X.shape[1]):
                total += abs(X[i, c] - Y[j, c])
            out[r0 + i, c0 + j] = total


@numba.njit(nogil=True, cache=True, fastmath=_SUM, error_model="numpy")
def _chi2_distances(out, r0, c0, X, Y):  # type: ignore[no-untyped-def]  # pragma: no cover
    zero, one = out.dtype.type(0.0), out.dtype.type(1.0)
    for i in range(X.shape[0]):
        for j in range(Y.shape[0]):
            total = zero
            for c in range(X.shape[1]):
                s = X[i, c] + Y[j, c]
                difference = X[i, c] - Y[j, c]
                # With s = 0 both are 0, and the difference already says 0.
                total += difference * difference / (s if s > zero else one)
            out[r0 + i, c0 + j] = total


# ----------------------------------------------------------------- CuPy and Numba CUDA
cuda: Any = None  # numba.cuda; a global because the simulator finds it in a kernel's globals


def _cupy(
    X: Array,
    Y: Array | None,
    spec: SimpleNamespace,
    out: Array | None,
    shape: tuple[int, int],
    dtype: Any,
    row_sums: bool,
) -> tuple[Array, Array | None]:
    """One cuBLAS product and one pass over it; the pairwise sums by their own kernel."""
    import cupy as cp

    try:
        K = cp.empty(shape, dtype=dtype) if out is None else out
        sums = _fill_device(cp, X, Y, spec, K, row_sums)
    except cp.cuda.memory.OutOfMemoryError:
        free = cp.cuda.runtime.memGetInfo()[0] + cp.get_default_memory_pool().free_bytes()
        rows = max(1, int(0.8 * free) // (shape[1] * np.dtype(dtype).itemsize))
        raise MemoryError(
            f"a kernel block of {shape[0]} x {shape[1]} does not fit on the GPU, which has "
            f"{free / 2**30:.1f} GiB free: ask for at most {rows} rows of X at a time"
        ) from None
    return K, sums


def _fill_device(
    cp: Any, X: Array, Y: Array | None, spec: SimpleNamespace, K: Array, row_sums: bool
) -> Array | None:
    same = Y is None
    left = cp.ascontiguousarray(X, dtype=K.dtype)
    right = left if Y is None else cp.ascontiguousarray(Y, dtype=K.dtype)
    stream = _numba_stream()
    if spec.name in ("laplacian", "chi2"):
        launch_pairs(left, right, spec.gamma, spec.name == "chi2", K, stream=stream)
        return K.sum(axis=1, dtype=cp.float64) if row_sums else None
    if spec.name == "cosine":
        left = _unit_rows(left)
        right = left if same else _unit_rows(right)
    if spec.name == "rbf":
        centre = right.mean(axis=0, dtype=cp.float64).astype(K.dtype)
        left = left - centre
        right = left if same else right - centre
    if K.flags.c_contiguous:
        cp.matmul(left, right.T, out=K)
    else:
        K[...] = left @ right.T
    if same:
        launch_mirror(K, stream=stream)
    if spec.name == "rbf":
        x2 = cp.einsum("ij,ij->i", left, left)
        y2 = x2 if same else cp.einsum("ij,ij->i", right, right)
        sums = cp.empty(K.shape[0] if row_sums else 0, dtype=cp.float64)
        launch_rbf(K, x2, y2, spec.gamma, same, sums, stream=stream)
        return sums if row_sums else None
    if spec.name in ("polynomial", "sigmoid"):
        K[...] = _reference_finish(K, spec)
    return K.sum(axis=1, dtype=cp.float64) if row_sums else None


@functools.cache
def _cuda_kernels() -> SimpleNamespace:
    """The CUDA kernels of this file; built at the first use, never on import."""
    global cuda
    cuda = importlib.import_module("numba.cuda")

    @cuda.jit
    def rbf(K, x2, y2, scale, same, sums):  # type: ignore[no-untyped-def]
        # A block to a row: neighbouring threads read neighbouring columns, once.
        partial = cuda.shared.array(128, numba.float64)
        t, row = cuda.threadIdx.x, cuda.blockIdx.x
        total = 0.0
        norm = x2[row]
        for j in range(t, K.shape[1], 128):
            d2 = norm + y2[j] - K[row, j] - K[row, j]
            if d2 < 0 or (same and j == row):
                d2 -= d2  # zero in the type of the block; NaN stays NaN
            value = math.exp(scale * d2)
            K[row, j] = value
            total += value
        if sums.shape[0] > 0:
            partial[t] = total
            step = 64
            while step > 0:
                cuda.syncthreads()
                if t < step:
                    partial[t] += partial[t + step]
                step //= 2
            if t == 0:
                sums[row] = partial[0]

    @cuda.jit
    def mirror(K):  # type: ignore[no-untyped-def]
        # The upper triangle onto the lower: what is read is never written.
        j, i = cuda.grid(2)
        if i < j and j < K.shape[0]:
            K[j, i] = K[i, j]

    @cuda.jit
    def pairs(X, Y, scale, chi2, K):  # type: ignore[no-untyped-def]
        # 16 x 16 pairs a block; 16 columns of their rows at a time in shared memory.
        x = cuda.shared.array((16, 17), numba.float64)
        y = cuda.shared.array((16, 17), numba.float64)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        i = cuda.blockIdx.y * 16 + ty
        j = cuda.blockIdx.x * 16 + tx
        total = 0.0
        for start in range(0, X.shape[1], 16):
            column = start + tx
            other = cuda.blockIdx.x * 16 + ty
            inside = column < X.shape[1]
            x[ty, tx] = X[i, column] if inside and i < X.shape[0] else 0.0
            y[ty, tx] = Y[other, column] if inside and other < Y.shape[0] else 0.0
            cuda.syncthreads()
            for c in range(16):
                a, b = x[ty, c], y[tx, c]
                if not chi2:
                    total += abs(a - b)
                elif a + b > 0.0:
                    total += (a - b) * (a - b) / (a + b)
            cuda.syncthreads()
        if i < K.shape[0] and j < K.shape[1]:
            K[i, j] = math.exp(scale * total)

    return SimpleNamespace(rbf=rbf, mirror=mirror, pairs=pairs)


def launch_rbf(
    K: Any, x2: Any, y2: Any, gamma: float, same: bool, sums: Any, *, stream: Any = 0
) -> None:
    """From products x'y in `K` to rbf values, in place; `sums` float64, (n,) or (0,)."""
    scale = np.dtype(K.dtype).type(-gamma)
    _cuda_kernels().rbf[K.shape[0], 128, stream](K, x2, y2, scale, same, sums)


def launch_mirror(K: Any, *, stream: Any = 0) -> None:
    """Make the square device array `K` symmetric by its upper triangle."""
    blocks = -(-K.shape[0] // 16)
    _cuda_kernels().mirror[(blocks, blocks), (16, 16), stream](K)


def launch_pairs(X: Any, Y: Any, gamma: float, chi2: bool, K: Any, *, stream: Any = 0) -> None:
    """Laplacian or chi2 values of device arrays; sums run in float64."""
    blocks = (-(-K.shape[1] // 16), -(-K.shape[0] // 16))
    _cuda_kernels().pairs[blocks, (16, 16), stream](X, Y, -gamma, chi2, K)
