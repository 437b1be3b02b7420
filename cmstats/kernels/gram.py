"""Kernel (Gram) blocks: k(x_i, y_j) for the rows of two matrices.

The values are scikit-learn's pairwise kernels; the work is a product in tiles whose epilogue
(distance, exponential, row sums) runs while the tile is in cache, into a buffer that can be
used again. Squared distances come from ``|x|^2 + |y|^2 - 2 x'y`` of rows from which the mean
of Y has been subtracted: a distance does not change, and the digits that a mean far from
zero would cost are kept, and rows in single precision that lie far from it in units of the kernel
are multiplied in double precision. They are never negative, and exactly zero on the diagonal of a
matrix with itself, which is computed from one triangle and is symmetric exactly.

The convention for `gamma` is ``exp(-gamma * distance)`` throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, overload

import array_api_compat
import numpy as np
import scipy.sparse
import scipy.spatial.distance
from sklearn.utils.random import sample_without_replacement

from cmstats.arrays import (
    Array,
    check_matrix,
    count_true,
    float64,
    is_array,
    is_numpy,
    moderate,
    namespace,
    result_dtype,
    row_slices,
    take_rows,
    to_numpy,
)
from cmstats.kernels.parameters import Spec
from cmstats.kernels.transfer import within_memory

__all__ = ["KERNELS", "MEDIAN_KERNELS", "gram", "median_gamma"]

KERNELS = ("rbf", "laplacian", "polynomial", "sigmoid", "cosine", "linear", "chi2")
"""Kernels by name; "poly" is read as "polynomial"."""

MEDIAN_KERNELS = ("rbf", "laplacian", "chi2")
"""Kernels of a distance, whose median sets their scale."""

Kernel = str | Callable[[Array, Array], Array]


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
    X, Y, spec = _in_range(X, Y, _check_kernel(kernel, gamma, degree, coef0, X, Y))
    if is_numpy(xp):
        K = np.empty(shape, dtype=dtype) if out is None else out
        from cmstats.kernels._cpu import gram as cpu

        prepare = _preparation(X, Y, spec, dtype)
        wide = None if dtype == xp.float64 else _preparation(X, Y, spec, np.dtype(np.float64))
        sums = cpu.fill(X, Y, spec, prepare, wide, K, return_row_sums)
    elif dtype != xp.float64 and _cancels(X, Y, spec, dtype):
        K = _reference(float64(X), float64(X if Y is None else Y), spec, same=Y is None)
        K = xp.astype(K, dtype)
        if out is not None:
            out[...] = K
            K = out
        sums = xp.sum(K, axis=1, dtype=xp.float64) if return_row_sums else None
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
    X: Array,
    *,
    kernel: str = "rbf",
    n_samples: int = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> float:
    """The median heuristic: 1 / median distance between rows, the distance of the kernel.

    Parameters
    ----------
    X : array of shape (n, d)
        Rows are items, at least two.
    kernel : {"rbf", "laplacian", "chi2"}, default="rbf"
        Squared Euclidean, L1 or chi2 distances; see the table of `gram`.
    n_samples : int, default=1000
        How many rows to draw (without replacement); all their pairs count. With n at most
        this, every row is used and nothing is random.
    random_state : int, RandomState or None
        Draws the rows.

    Returns
    -------
    float
        The `gamma` at which ``exp(-gamma * distance)`` is 1/e for the median pair.
        Other conventions are multiples of it: ``exp(-d^2 / (2 median d^2))`` is half, and
        twice it (2 / median) served kernel CCA on images well.

    Raises
    ------
    ValueError
        If there are fewer than two rows, a value is not finite, all rows are equal, or the
        kernel is not one of a distance.

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
    if kernel not in MEDIAN_KERNELS:
        raise ValueError(f"kernel={kernel!r} has no distance: {', '.join(MEDIAN_KERNELS)} have one")
    X = _check(X, "X", ensure_finite=False)
    n = X.shape[0]
    if isinstance(n_samples, bool) or n_samples != int(n_samples) or n_samples < 2:
        raise ValueError(f"n_samples must be an integer of at least 2, got {n_samples!r}")
    if n < 2:
        raise ValueError("X has 1 row, and the median distance needs at least 2")
    if n > n_samples:
        rows = np.sort(sample_without_replacement(n, int(n_samples), random_state=random_state))
        X = take_rows(X, rows)
    sample = check_matrix(to_numpy(X).astype(np.float64), "X")
    distances, rounding = _sample_distances(sample, kernel)
    positive = distances[distances > rounding]
    if not positive.size:
        raise ValueError("X has equal rows only, so that no distance sets gamma: pass gamma")
    median = np.median(distances if 2 * positive.size > distances.size else positive)
    return float(1.0 / median)


def _sample_distances(
    sample: np.ndarray[Any, Any], kernel: str
) -> tuple[np.ndarray[Any, Any], float]:
    """The distances of all pairs of rows, and the bound below which they are rounding errors."""
    if kernel == "laplacian":
        return scipy.spatial.distance.pdist(sample, "cityblock"), 0.0
    upper = np.triu_indices(len(sample), 1)
    if kernel == "chi2":
        _check_not_negative(sample, "X")
        return _reference_pairs(sample, sample, chi2=True)[upper], 0.0
    sample = sample - sample.mean(axis=0)
    norms = np.einsum("ij,ij->i", sample, sample)
    # Below this a difference of norms is rounding, not distance.
    return (norms[:, None] + norms - 2.0 * (sample @ sample.T))[upper], 1e-13 * norms.max()


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
) -> Spec:
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
    return Spec(name, float(gamma), degree, float(coef0))


def _in_range(X: Array, Y: Array | None, spec: Spec) -> tuple[Array, Array | None, Spec]:
    """Rows in another unit where `gamma`, or squares of theirs, leave the range of float32.

    The unit is a power of two, so that no digit changes.
    """
    power = {"rbf": 2, "laplacian": 1, "chi2": 1}.get(spec.name, 0)
    single = namespace(X).float32 in (X.dtype, X.dtype if Y is None else Y.dtype)
    if not power or not single or 1e-25 < spec.gamma < 1e25:
        return X, Y, spec
    exponent = int(np.clip(round(math.log2(spec.gamma) / power), -126, 126))
    spec = spec._replace(gamma=spec.gamma * 2.0 ** (-power * exponent))
    unit = 2.0**exponent
    return X * unit, None if Y is None else Y * unit, spec


def _check_not_negative(a: Array, name: str) -> None:
    count, first = count_true(a < 0)
    if first is not None:
        raise ValueError(
            f"the chi2 kernel needs values of at least 0, and {name} has {count} negative, the "
            f"first at row {first[0]}, column {first[1]}"
        )


def _reference(X: Array, Y: Array, spec: Spec, *, same: bool = False) -> Array:
    """The kernels of the table in `gram`, in any conforming namespace."""
    xp = namespace(X, Y)
    prepare = _preparation(X, Y, spec, _common_dtype(X, Y))
    (X, x2), (Y, y2) = prepare(X), prepare(Y)
    if spec.name in ("laplacian", "chi2"):
        return xp.exp(-spec.gamma * _reference_pairs(X, Y, chi2=spec.name == "chi2"))
    products = X @ Y.mT
    if spec.name != "rbf":
        return _finish(products, spec)
    d2 = x2[:, None] + y2[None, :] - 2.0 * products
    d2 = xp.where(d2 < 0, xp.zeros_like(d2), d2)
    if same:
        upper = xp.triu(d2, k=1)  # one triangle, so that it is symmetric exactly
        d2 = upper + upper.mT
    return xp.exp(-spec.gamma * d2)


def _cancels(X: Array, Y: Array | None, spec: Spec, dtype: Any) -> bool:
    """Whether distances of some rows cancel in single precision."""
    if spec.name != "rbf":
        return False
    prepare, xp = _preparation(X, Y, spec, dtype), namespace(X, Y)
    most = [float(xp.max(prepare(a)[1])) for a in (X, X if Y is None else Y)]
    return spec.cancels(sum(most))


def _preparation(
    X: Array, Y: Array | None, spec: Spec, dtype: Any
) -> Callable[[Array], tuple[Array, Array]]:
    """The function that prepares rows for the product: cast, centre (rbf) or scale (cosine).

    It returns the squared norms of the prepared rows too, which the rbf kernel needs.
    """
    xp = namespace(X)
    centre = None
    if spec.name == "rbf":
        reference = X if Y is None else Y
        known = reference.dtype in (xp.float32, xp.float64)
        wide = reference if known else xp.astype(reference, dtype)
        centre = xp.astype(xp.sum(wide, axis=0, dtype=xp.float64) / wide.shape[0], dtype)

    def prepare(a: Array) -> tuple[Array, Array]:
        a = (
            np.ascontiguousarray(a, dtype=dtype)
            if is_numpy(xp)
            else xp.astype(a, dtype, copy=False)
        )
        if centre is not None:
            a = a - centre
        elif spec.name == "cosine":
            a = moderate(a)
            norms = xp.linalg.vector_norm(a, axis=1, keepdims=True)
            a = a / xp.where(norms > 0, norms, xp.ones_like(norms))
        return a, xp.vecdot(a, a)

    return prepare


def _finish(products: Array, spec: Spec) -> Array:
    """Kernels that are functions of x'y alone, from the products x'y."""
    xp = namespace(products)
    if spec.name == "polynomial":
        return (spec.gamma * products + spec.coef0) ** spec.degree
    if spec.name == "sigmoid":
        return xp.tanh(spec.gamma * products + spec.coef0)
    return products


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


def _cupy(
    X: Array,
    Y: Array | None,
    spec: Spec,
    out: Array | None,
    shape: tuple[int, int],
    dtype: Any,
    row_sums: bool,
) -> tuple[Array, Array | None]:
    from cmstats.kernels._cuda import gram as cuda

    xp = namespace(X)

    def work() -> tuple[Array, Array | None]:
        K = xp.empty(shape, dtype=dtype) if out is None else out
        prepare = _preparation(X, Y, spec, dtype)

        def contiguous(a: Array) -> tuple[Array, Array]:
            a, norms = prepare(a)
            return xp.asarray(a, order="C"), norms

        return K, cuda.fill(X, Y, spec, contiguous, _finish, K, row_sums)

    row_bytes = shape[1] * np.dtype(dtype).itemsize
    return within_memory(work, f"a kernel block of {shape[0]} x {shape[1]}", row_bytes)
