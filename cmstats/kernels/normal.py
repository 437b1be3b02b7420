"""Log-densities of multivariate normals and of their mixtures.

Everything stays in log space: with the Cholesky factor ``S = L L'`` and ``z = L^-1 (x - mu)``,

    log N(x; mu, S) = -1/2 (d log 2 pi + z'z) - sum_i log L_ii,

and a mixture is the log-sum-exp of its components. Factors are taken in float64 and applied
in the precision of the data, to rows from which the mean has been subtracted: folding the
mean into the product would save a pass over a tile in cache and lose the digits that a mean
far from zero costs.

Which version runs follows from the array: NumPy takes the Numba CPU kernels, CuPy the CUDA
kernels and cuBLAS, every other namespace the reference.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, overload

import array_api_compat
import numba
import numpy as np
import scipy.sparse

from cmstats._array import (
    Array,
    check_matrix,
    device_of,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    solve_triangular,
)
from cmstats.kernels._threads import run_tasks

__all__ = ["component_logpdf", "logpdf", "mixture_logpdf"]

CovarianceType = Literal["full", "tied", "diag"]

FUSED_COLUMNS = 96
"""Up to this many columns the loops written here beat BLAS: they skip the triangle's zeros."""

CUDA_COLUMNS = 32
"""Up to this many columns a mixture's factors and a block's rows fit in shared memory."""


# ------------------------------------------------------------------------- dispatchers
def logpdf(X: Array, mean: Array | None, covariance: Array) -> Array:
    """Log-density of each row of `X` under one multivariate normal.

    Parameters
    ----------
    X : array of shape (n, d)
        Rows are points.
    mean : array of shape (d,), or None
        The mean; None is zero.
    covariance : array of shape (d, d) or (d,)
        The covariance matrix, or the variances of a diagonal one.

    Returns
    -------
    array of shape (n,)
        ``log N(x; mean, covariance)`` of each row, in nats, in X's namespace, on its device;
        float64 for float64 and integer data, otherwise float32.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite, or the covariance is not symmetric
        positive definite.
    TypeError
        If the arrays are of different libraries or devices, or sparse.

    Notes
    -----
    One pass over X: n numbers are written, and nothing of the size of X is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.normal import logpdf
    >>> X = np.array([[0.0, 0.0], [1.0, 2.0]])
    >>> logpdf(X, np.zeros(2), np.array([[2.0, 1.0], [1.0, 2.0]])).round(4)
    array([-2.3872, -3.3872])
    """
    xp = namespace(X, mean, covariance)
    X = _check_rows(X)
    S = _parameter(covariance, "covariance", X, (1, 2))
    mu = (
        xp.zeros(X.shape[1], dtype=xp.float64, device=device_of(X))
        if mean is None
        else _parameter(mean, "mean", X, (0, 1))
    )
    mu = xp.reshape(mu, (1, -1))
    kind: CovarianceType = "full" if S.ndim == 2 else "diag"
    normals = _prepare(X, mu, S[None, ...], kind, ("mean", "covariance"))
    return _components(X, normals)[:, 0]


def component_logpdf(
    X: Array,
    means: Array,
    covariances: Array,
    *,
    covariance_type: CovarianceType | None = None,
) -> Array:
    """Log-density of each row of `X` under each of k normals.

    Parameters
    ----------
    X : array of shape (n, d)
        Rows are points.
    means : array of shape (k, d)
        One mean per row.
    covariances : array of shape (k, d, d), (d, d) or (k, d)
        One matrix per component ("full"), one for all ("tied"), or variances ("diag").
    covariance_type : {"full", "tied", "diag"}, optional
        Read off the shape when None; has to be said where k = d makes that ambiguous.

    Returns
    -------
    array of shape (n, k)
        ``log N(x_i; mean_j, covariance_j)``.

    Raises
    ------
    ValueError, TypeError
        As `logpdf`; the sentence names the component.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.normal import component_logpdf
    >>> component_logpdf(np.zeros((1, 2)), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]),
    ...                  np.eye(2)).round(4)
    array([[-1.8379, -2.3379, -3.8379]])
    """
    namespace(X, means, covariances)
    X = _check_rows(X)
    return _components(X, _check_mixture(X, means, covariances, covariance_type))


@overload
def mixture_logpdf(
    X: Array,
    weights: Array,
    means: Array,
    covariances: Array,
    *,
    covariance_type: CovarianceType | None = ...,
    return_responsibilities: Literal[False] = ...,
) -> Array: ...


@overload
def mixture_logpdf(
    X: Array,
    weights: Array,
    means: Array,
    covariances: Array,
    *,
    covariance_type: CovarianceType | None = ...,
    return_responsibilities: Literal[True],
) -> tuple[Array, Array]: ...


def mixture_logpdf(
    X: Array,
    weights: Array,
    means: Array,
    covariances: Array,
    *,
    covariance_type: CovarianceType | None = None,
    return_responsibilities: bool = False,
) -> Array | tuple[Array, Array]:
    """Log-density of each row of `X` under a mixture of normals.

    Parameters
    ----------
    X : array of shape (n, d)
        Rows are points.
    weights : array of shape (k,)
        Probabilities of the components: not negative, of sum 1.
    means, covariances, covariance_type
        As in `component_logpdf`.
    return_responsibilities : bool, default=False
        Also return p(component | row), from the same pass (the E-step of EM).

    Returns
    -------
    array of shape (n,)
        ``log sum_j w_j N(x_i; mean_j, covariance_j)``, in nats.
    array of shape (n, k)
        Responsibilities, rows of sum 1; only with `return_responsibilities`.

    Raises
    ------
    ValueError, TypeError
        As `component_logpdf`, and if the weights are no probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.normal import mixture_logpdf
    >>> X = np.array([[0.0], [3.0]])
    >>> means, variances = np.array([[0.0], [4.0]]), np.array([[1.0], [1.0]])
    >>> density, r = mixture_logpdf(X, [0.5, 0.5], means, variances, covariance_type="diag",
    ...                             return_responsibilities=True)
    >>> density.round(4)
    array([-1.6118, -2.0939])
    >>> r.round(2)
    array([[1.  , 0.  ],
           [0.02, 0.98]])
    """
    xp = namespace(X, weights, means, covariances)
    X = _check_rows(X)
    normals = _check_mixture(X, means, covariances, covariance_type)
    k = normals.means.shape[0]
    w = _parameter(weights, "weights", X, (1,))
    if w.shape != (k,):
        raise ValueError(f"weights must have one entry per component ({k}), got shape {w.shape}")
    total = float(xp.sum(w))
    if not (bool(xp.all(w >= 0)) and abs(total - 1.0) < 1e-4):
        raise ValueError(f"weights must be probabilities, not negative and of sum 1, got {total:g}")
    # A component of weight zero has log-weight -inf, which the log-sum-exp passes over.
    log_weights = xp.where(w > 0, xp.log(xp.where(w > 0, w, 1.0)), -math.inf)
    density, responsibilities = _mixture(X, normals, log_weights, return_responsibilities)
    return (density, responsibilities) if return_responsibilities else density


# -------------------------------------------------------------------------- parameters
@dataclass(frozen=True)
class _Normals:
    """k normals in float64, factored: what every version of the kernel starts from."""

    kind: CovarianceType
    means: Array  # (k, d)
    factors: Array  # full (k, d, d) and tied (1, d, d): lower Cholesky; diag (k, d): deviations
    constants: Array  # (k,): -d/2 log 2 pi - sum log diag L


def _check_rows(X: Any) -> Array:
    if scipy.sparse.issparse(X):
        raise TypeError("X is sparse, and a density needs every entry: pass X.toarray()")
    # Finite values are checked on the n results, which costs no pass over X.
    return check_matrix(X, "X", ensure_finite=False)


def _check_result(X: Array, result: Array) -> None:
    """NaN and infinity in X show in the results: only then is X searched for them."""
    xp = namespace(result)
    if not bool(xp.isfinite(xp.sum(result))):
        check_matrix(X, "X")


def _parameter(a: Any, name: str, X: Array, ndims: tuple[int, ...]) -> Array:
    """A parameter in float64, in the namespace and on the device of X."""
    xp = namespace(X)
    out = xp.astype(xp.asarray(a, device=device_of(X)), xp.float64, copy=False)
    if out.ndim not in ndims:
        wanted = " or ".join(str(n) for n in ndims)
        raise ValueError(f"{name} must have {wanted} dimensions, got shape {tuple(out.shape)}")
    if not bool(xp.all(xp.isfinite(out))):
        raise ValueError(f"{name} has values that are not finite")
    return out


def _check_mixture(
    X: Array, means: Any, covariances: Any, covariance_type: CovarianceType | None
) -> _Normals:
    mu = _parameter(means, "means", X, (2,))
    S = _parameter(covariances, "covariances", X, (2, 3))
    k, d = mu.shape
    shapes: dict[CovarianceType, tuple[int, ...]] = {
        "full": (k, d, d),
        "tied": (d, d),
        "diag": (k, d),
    }
    if covariance_type is None:
        fitting = [kind for kind, shape in shapes.items() if tuple(S.shape) == shape]
        if len(fitting) > 1:
            raise ValueError(
                f"covariances of shape {tuple(S.shape)} can be one tied matrix or {k} diagonals "
                'here: say covariance_type="tied" or "diag"'
            )
        if not fitting:
            raise ValueError(
                f"covariances must have shape {shapes['full']} (full), {shapes['tied']} (tied) "
                f"or {shapes['diag']} (diag) for means of shape {(k, d)}, got {tuple(S.shape)}"
            )
        covariance_type = fitting[0]
    elif covariance_type not in shapes:
        raise ValueError(
            f'covariance_type must be "full", "tied" or "diag", got {covariance_type!r}'
        )
    elif tuple(S.shape) != shapes[covariance_type]:
        raise ValueError(
            f"covariances must have shape {shapes[covariance_type]} for covariance_type="
            f'"{covariance_type}", got {tuple(S.shape)}'
        )
    if covariance_type == "tied":
        S = S[None, ...]
    return _prepare(X, mu, S, covariance_type, ("means", "covariances"))


def _prepare(
    X: Array, means: Array, S: Array, kind: CovarianceType, names: tuple[str, str]
) -> _Normals:
    xp = namespace(X)
    d = X.shape[1]
    if means.shape[1] != d:
        raise ValueError(f"{names[0]} must have {d} columns like X, got {means.shape[1]}")
    if any(side != d for side in S.shape[1:]):
        shape = tuple(S.shape[1:])
        raise ValueError(f"{names[1]} must be for {d} columns like X, got shape {shape}")
    log_2pi = d * math.log(2.0 * math.pi)
    if kind == "diag":
        if not bool(xp.all(S > 0)):
            raise ValueError(
                f"{names[1]} must have positive variances, the smallest is {float(xp.min(S)):g}"
            )
        logdet = xp.sum(xp.log(S), axis=1)
        return _Normals(kind, means, xp.sqrt(S), -0.5 * (log_2pi + logdet))
    single = S.shape[0] == 1
    L = xp.stack(
        [
            _cholesky(S[j, ...], names[1] if single else f"{names[1]}[{j}]", xp)
            for j in range(S.shape[0])
        ]
    )
    diagonals = xp.stack([xp.linalg.diagonal(L[j, ...]) for j in range(L.shape[0])])
    constants = -0.5 * log_2pi - xp.sum(xp.log(diagonals), axis=1)
    constants = xp.broadcast_to(constants, (means.shape[0],))
    return _Normals(kind, means, L, constants)


def _cholesky(S: Array, name: str, xp: ModuleType) -> Array:
    """The lower factor, or one sentence: no library's own exception comes out of here."""
    scale = float(xp.max(xp.abs(S)))
    if float(xp.max(xp.abs(S - xp.matrix_transpose(S)))) > 1e-5 * scale:
        raise ValueError(f"{name} is not symmetric")
    L = None
    try:
        L = xp.linalg.cholesky(S)
    except Exception as error:  # LinAlgError is a different class in every library
        if "LinAlgError" not in type(error).__name__:
            raise
    # CuPy's Cholesky does not raise: its diagonal tells.
    if L is None or not bool(xp.all(xp.linalg.diagonal(L) > 0)):
        raise ValueError(
            f"{name} is not positive definite: drop linearly dependent columns, or shrink it by "
            "adding to its diagonal"
        )
    return xp.tril(L)


def _inverse_factors(normals: _Normals) -> Array:
    """``W = L^-T`` of each component, so that ``z' = (x - mu)' W``; upper triangular."""
    xp = namespace(normals.factors)
    k, d, _ = normals.factors.shape
    eye = xp.eye(d, dtype=xp.float64, device=device_of(normals.factors))
    inverses = [solve_triangular(normals.factors[j, ...], eye) for j in range(k)]
    return xp.stack([xp.matrix_transpose(a) for a in inverses])


# --------------------------------------------------------------------------- reference
def _reference(X: Array, normals: _Normals) -> Array:
    """Component log-densities (n, k), as the equation says them; any conforming namespace."""
    xp = namespace(X)
    dtype = result_dtype(X)
    X = xp.astype(X, dtype, copy=False)
    means = xp.astype(normals.means, dtype, copy=False)
    factors = xp.astype(normals.factors, dtype, copy=False)
    constants = xp.astype(normals.constants, dtype, copy=False)
    if normals.kind == "tied":
        centre = xp.mean(means, axis=0)
        X = xp.matrix_transpose(solve_triangular(factors[0, ...], xp.matrix_transpose(X - centre)))
        means = xp.matrix_transpose(
            solve_triangular(factors[0, ...], xp.matrix_transpose(means - centre))
        )
    columns = []
    for j in range(means.shape[0]):
        z = X - means[j, :]
        if normals.kind == "diag":
            z = z / factors[j, :]
        elif normals.kind == "full":
            z = xp.matrix_transpose(solve_triangular(factors[j, ...], xp.matrix_transpose(z)))
        columns.append(constants[j] - 0.5 * xp.sum(z * z, axis=1))
    return xp.stack(columns, axis=1)


def _reference_mixture(log_terms: Array) -> tuple[Array, Array]:
    """Log-sum-exp over the columns of ``log w_j + log N_j``, and the responsibilities."""
    xp = namespace(log_terms)
    largest = xp.max(log_terms, axis=1, keepdims=True)
    # A row that is -inf throughout (an overflow) must give -inf, not NaN.
    largest = xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))
    terms = xp.exp(log_terms - largest)
    total = xp.sum(terms, axis=1, keepdims=True)
    return (xp.log(total) + largest)[:, 0], terms / total


# ------------------------------------------------------------------------ which version
def _components(X: Array, normals: _Normals) -> Array:
    xp = namespace(X)
    if is_numpy(xp):
        out = np.empty((X.shape[0], normals.means.shape[0]), dtype=result_dtype(X))
        _cpu(X, normals, None, components=out)
    elif array_api_compat.is_cupy_namespace(xp):
        out = _cupy(X, normals, None, components=True)[1]
    else:
        out = _reference(X, normals)
    _check_result(X, out)
    return out


def _mixture(
    X: Array, normals: _Normals, log_weights: Array, responsibilities: bool
) -> tuple[Array, Array | None]:
    xp = namespace(X)
    n, k = X.shape[0], normals.means.shape[0]
    if is_numpy(xp):
        density = np.empty(n, dtype=result_dtype(X))
        resp = np.empty((n, k), dtype=density.dtype) if responsibilities else None
        _cpu(X, normals, log_weights, density=density, responsibilities=resp)
    elif array_api_compat.is_cupy_namespace(xp):
        density, terms = _cupy(X, normals, log_weights, components=responsibilities)
        resp = xp.exp(terms - density[:, None]) if responsibilities else None
    else:
        terms = _reference(X, normals)
        density, resp = _reference_mixture(terms + xp.astype(log_weights, terms.dtype, copy=False))
    _check_result(X, density)
    return density, resp


# ------------------------------------------------------------------------ Numba, CPU
def _cpu(
    X: np.ndarray[Any, Any],
    normals: _Normals,
    log_weights: np.ndarray[Any, Any] | None,
    *,
    components: np.ndarray[Any, Any] | None = None,
    density: np.ndarray[Any, Any] | None = None,
    responsibilities: np.ndarray[Any, Any] | None = None,
) -> None:
    """Fill whichever outputs are given, tile by tile; a tile's (k, rows) never leaves cache."""
    dtype = result_dtype(X)
    n, d = X.shape
    k = normals.means.shape[0]
    constants = np.array(normals.constants)
    if log_weights is not None:
        constants += log_weights
    fill, rows = _cpu_plan(normals, k, d, dtype)
    nothing = np.empty((0, 0), dtype=dtype)

    def work(tile: slice) -> None:
        block = np.ascontiguousarray(X[tile], dtype=dtype)
        terms = np.empty((k, block.shape[0]))
        # Infinities in X are reported afterwards, in words; the setting is per thread.
        with np.errstate(invalid="ignore", over="ignore"):
            fill(block, constants, terms)
        if components is not None:
            components[tile] = terms.T
        if density is not None:
            r = nothing if responsibilities is None else responsibilities[tile]
            _log_sum_exp(terms, density[tile], r)

    small = n * k * d * (1 if normals.kind == "diag" else d) < 2_000_000
    run_tasks([functools.partial(work, tile) for tile in row_slices(n, rows)], inline=small)


def _cpu_plan(
    normals: _Normals, k: int, d: int, dtype: Any
) -> tuple[Callable[[Any, Any, Any], None], int]:
    """What fills a tile of component terms, and of how many rows."""
    rows = min(4096, max(256, 32768 // k))
    if normals.kind == "diag":
        means = normals.means.astype(dtype)
        scales = (1.0 / normals.factors).astype(dtype)
        return functools.partial(_fill_diagonal, means, scales), rows
    W = _inverse_factors(normals)
    if normals.kind == "tied":
        centre = np.mean(normals.means, axis=0)
        whitened = ((normals.means - centre) @ W[0]).astype(dtype)
        ones = np.ones_like(whitened)
        W0, centre = np.ascontiguousarray(W[0], dtype=dtype), centre.astype(dtype)

        def fill_tied(block: Any, constants: Any, terms: Any) -> None:
            centred = np.empty_like(block)
            _centre(block, centre, centred)
            _fill_diagonal(whitened, ones, centred @ W0, constants, terms)

        return fill_tied, min(rows, 1024)
    if d <= FUSED_COLUMNS:
        padded = -(-d // 4) * 4
        factors = np.zeros((k, padded, padded), dtype=dtype)
        factors[:, :d, :d] = W
        means = normals.means.astype(dtype)
        return functools.partial(_fill_full, means, factors), rows
    fill_wide = _wide_fill(normals.means.astype(dtype), W.astype(dtype))
    return fill_wide, min(512, max(128, 2**18 // d))


def _wide_fill(means: Any, W: Any) -> Callable[[Any, Any, Any], None]:
    """Centre in cache, one product per block of columns (their zeros skipped), row norms."""
    k, d = means.shape
    width = max(64, -(-d // 64) * 8)
    panels = [[(start, min(start + width, d)) for start in range(0, d, width)] for _ in range(k)]
    blocks = [
        [np.ascontiguousarray(W[j, :stop, start:stop]) for start, stop in panels[j]]
        for j in range(k)
    ]

    def fill(block: Any, constants: Any, terms: Any) -> None:
        centred, z = np.empty_like(block), np.empty_like(block)
        for j in range(k):
            _centre(block, means[j], centred)
            for (start, stop), w in zip(panels[j], blocks[j], strict=True):
                np.matmul(centred[:, :stop], w, out=z[:, start:stop])
            _row_norms(z, constants[j], terms[j])

    return fill


_EXACT = {"contract", "nsz"}  # fused multiply-add only: NaN, infinities and order are kept
_SUM = {"contract", "nsz", "reassoc"}  # lets a sum over contiguous columns use vector lanes


@numba.njit(nogil=True, cache=True, fastmath=_EXACT)
def _centre(X, mean, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            out[i, j] = X[i, j] - mean[j]


@numba.njit(nogil=True, cache=True, fastmath=_SUM)
def _row_norms(z, constant, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(z.shape[0]):
        total = 0.0
        for j in range(z.shape[1]):
            total += z[i, j] * z[i, j]
        out[i] = constant - 0.5 * total


@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy")
def _fill_diagonal(means, scales, X, constants, terms):  # type: ignore[no-untyped-def]  # pragma: no cover
    k, d = means.shape
    n = X.shape[0]
    T = min(128, max(16, 16384 // d))
    x = np.empty((d, T), X.dtype)
    q = np.empty(T, X.dtype)
    for start in range(0, n, T):
        t = min(T, n - start)
        for r in range(t):
            for i in range(d):
                x[i, r] = X[start + r, i]
        for comp in range(k):
            q[:] = 0
            for i in range(d):
                mean, scale = means[comp, i], scales[comp, i]
                for r in range(t):
                    z = (x[i, r] - mean) * scale
                    q[r] += z * z
            for r in range(t):
                terms[comp, start + r] = constants[comp] - 0.5 * q[r]


@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy")
def _fill_full(means, W, X, constants, terms):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Terms of full covariances: rows across the vector lanes, W in blocks of 4 x 4.

    Blocks below the diagonal are never touched: half the operations of a product, and
    nothing leaves the first cache.
    """
    k, d = means.shape
    n = X.shape[0]
    padded = W.shape[1]
    T = (1024 if padded <= 32 else 256) // W.itemsize
    x = np.zeros((padded, T), X.dtype)
    centred = np.zeros((padded, T), X.dtype)  # rows d to padded stay zero
    z = np.zeros((4, T), X.dtype)
    q = np.zeros(T, X.dtype)
    for start in range(0, n, T):
        t = min(T, n - start)
        if k == 1:  # no second component will want the rows as they are
            for r in range(t):
                for i in range(d):
                    centred[i, r] = X[start + r, i] - means[0, i]
        else:
            for r in range(t):
                for i in range(d):
                    x[i, r] = X[start + r, i]
        for comp in range(k):
            w = W[comp]
            if k > 1:
                for i in range(d):
                    mean = means[comp, i]
                    for r in range(T):
                        centred[i, r] = x[i, r] - mean
            q[:] = 0
            for j in range(0, padded, 4):
                z[:] = 0
                for i in range(0, j, 4):
                    v00, v01, v02, v03 = w[i, j], w[i, j + 1], w[i, j + 2], w[i, j + 3]
                    v10, v11, v12, v13 = (
                        w[i + 1, j],
                        w[i + 1, j + 1],
                        w[i + 1, j + 2],
                        w[i + 1, j + 3],
                    )
                    v20, v21, v22, v23 = (
                        w[i + 2, j],
                        w[i + 2, j + 1],
                        w[i + 2, j + 2],
                        w[i + 2, j + 3],
                    )
                    v30, v31, v32, v33 = (
                        w[i + 3, j],
                        w[i + 3, j + 1],
                        w[i + 3, j + 2],
                        w[i + 3, j + 3],
                    )
                    for r in range(T):
                        a0, a1 = centred[i, r], centred[i + 1, r]
                        a2, a3 = centred[i + 2, r], centred[i + 3, r]
                        z[0, r] += a0 * v00 + a1 * v10 + a2 * v20 + a3 * v30
                        z[1, r] += a0 * v01 + a1 * v11 + a2 * v21 + a3 * v31
                        z[2, r] += a0 * v02 + a1 * v12 + a2 * v22 + a3 * v32
                        z[3, r] += a0 * v03 + a1 * v13 + a2 * v23 + a3 * v33
                v00, v01, v02, v03 = w[j, j], w[j, j + 1], w[j, j + 2], w[j, j + 3]
                v11, v12, v13 = w[j + 1, j + 1], w[j + 1, j + 2], w[j + 1, j + 3]
                v22, v23, v33 = w[j + 2, j + 2], w[j + 2, j + 3], w[j + 3, j + 3]
                for r in range(T):
                    a0, a1 = centred[j, r], centred[j + 1, r]
                    a2, a3 = centred[j + 2, r], centred[j + 3, r]
                    z0 = z[0, r] + a0 * v00
                    z1 = z[1, r] + a0 * v01 + a1 * v11
                    z2 = z[2, r] + a0 * v02 + a1 * v12 + a2 * v22
                    z3 = z[3, r] + a0 * v03 + a1 * v13 + a2 * v23 + a3 * v33
                    q[r] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3
            for r in range(t):
                terms[comp, start + r] = constants[comp] - 0.5 * q[r]


@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy")
def _exp(v):  # type: ignore[no-untyped-def]  # pragma: no cover
    """exp of a float64 at most 0, to an ulp or two, in operations that vectorise.

    A call of libm's exp does not. 2^k is made by the exponent's bits (adding 1.5 * 2^52
    rounds to an integer), the rest is a Taylor polynomial.
    """
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


@numba.njit(nogil=True, cache=True, fastmath=_EXACT, error_model="numpy")
def _log_sum_exp(terms, density, responsibilities):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Over the rows of `terms` (k, n), which is overwritten; responsibilities may be empty."""
    k, n = terms.shape
    largest = terms[0].copy()
    total = np.zeros(n)
    for comp in range(1, k):
        for r in range(n):
            largest[r] = max(largest[r], terms[comp, r])
    for comp in range(k):
        for r in range(n):
            e = _exp(terms[comp, r] - largest[r])
            terms[comp, r] = e
            total[r] += e
    for r in range(n):
        density[r] = largest[r] + math.log(total[r])
    if responsibilities.size:
        for r in range(n):
            for comp in range(k):
                responsibilities[r, comp] = terms[comp, r] / total[r]


# ----------------------------------------------------------------- CuPy and Numba CUDA
cuda: Any = None  # numba.cuda; a global because the simulator finds it in a kernel's globals


def _import_cuda() -> None:
    # At the first kernel only: importing the package must not look for a driver.
    global cuda
    cuda = importlib.import_module("numba.cuda")


def _cupy(
    X: Array, normals: _Normals, log_weights: Array | None, *, components: bool
) -> tuple[Array, Array]:
    """Mixture density (n,) and, when asked, component terms (n, k) of device arrays.

    Small d is the fused kernel, one read of X. Larger d is cuBLAS on blocks of rows, with the
    row norms read off each product once.
    """
    import cupy as cp

    dtype = np.dtype(result_dtype(X))
    n, d = X.shape
    k = normals.means.shape[0]
    constants = normals.constants if log_weights is None else normals.constants + log_weights
    constants = cp.ascontiguousarray(constants, dtype=dtype)
    means = cp.ascontiguousarray(normals.means, dtype=dtype)
    density = cp.empty(n, dtype=dtype)
    terms = cp.empty((n if components else 0, k), dtype=dtype)
    stream = _numba_stream()
    fused = d <= CUDA_COLUMNS
    if fused:
        W = _padded_factors(normals)
        W = cp.ascontiguousarray(W, dtype=dtype)
    elif normals.kind == "full":
        W = _inverse_factors(normals).astype(dtype)
    for rows in row_slices(n, 2**22 if fused else max(1024, 2**26 // (d * dtype.itemsize))):
        block = cp.ascontiguousarray(X[rows], dtype=dtype)
        if fused:
            out = terms[rows] if components else terms
            launch_mixture(block, means, W, constants, density[rows], out, stream=stream)
            continue
        if normals.kind == "full":
            by_component = cp.empty((k, block.shape[0]), dtype=dtype)
            for j in range(k):
                z = (block - means[j]) @ W[j]
                launch_row_norms(z, by_component[j], stream=stream)
            block_terms = constants - 0.5 * by_component.T
        else:
            block_terms = _reference(block, normals)
            if log_weights is not None:
                block_terms += log_weights.astype(dtype)
        density[rows] = _reference_mixture(block_terms)[0]
        if components:
            terms[rows] = block_terms
    return density, terms


def _padded_factors(normals: _Normals) -> Array:
    """W of every component, (k, padded, padded), zeros up to a multiple of 4 columns."""
    xp = namespace(normals.means)
    k, d = normals.means.shape
    padded = -(-d // 4) * 4
    W = xp.zeros((k, padded, padded), dtype=xp.float64, device=device_of(normals.means))
    if normals.kind == "diag":
        index = xp.arange(d)
        W[:, index, index] = 1.0 / normals.factors
    else:
        W[:, :d, :d] = _inverse_factors(normals)  # one tied factor goes to every component
    return W


def _numba_stream() -> Any:
    """CuPy's current stream as Numba's, so that kernels and library calls keep their order."""
    import cupy as cp

    _import_cuda()
    return cuda.external_stream(cp.cuda.get_current_stream().ptr)


@functools.cache
def _cuda_kernels() -> SimpleNamespace:
    """CUDA kernels that serve any shape; built at the first use, never on import."""
    _import_cuda()

    @cuda.jit
    def row_norms(z, out):  # type: ignore[no-untyped-def]
        # 4 rows a block, 32 neighbouring threads to a row: reads are coalesced.
        partial = cuda.shared.array((4, 32), numba.float64)
        lane, local = cuda.threadIdx.x, cuda.threadIdx.y
        row = cuda.blockIdx.x * 4 + local
        total = 0.0
        if row < z.shape[0]:
            for j in range(lane, z.shape[1], 32):
                total += z[row, j] * z[row, j]
        partial[local, lane] = total
        step = 16
        while step > 0:
            cuda.syncthreads()
            if lane < step:
                partial[local, lane] += partial[local, lane + step]
            step //= 2
        if lane == 0 and row < z.shape[0]:
            out[row] = partial[local, 0]

    return SimpleNamespace(row_norms=row_norms)


@functools.cache
def _cuda_mixture(padded: int, double: bool) -> Any:
    """The mixture kernel for so many columns (a multiple of 4) in one precision.

    A block owns 128 rows, two to a thread, kept in shared memory for the whole mixture; each
    component's factor is loaded once per block. Four columns of z for two rows are in
    registers at a time, and the log-sum-exp is updated as components go by, so one number
    per row is written.
    """
    _import_cuda()

    real = numba.float64 if double else numba.float32
    zero, half, one = real(0.0), real(0.5), real(1.0)
    lowest = real(-math.inf)
    stride = 129  # 128 rows and one column against bank conflicts

    @cuda.jit
    def mixture(X, means, W, constants, density, terms):  # type: ignore[no-untyped-def]
        x = cuda.shared.array((padded, stride), real)
        w = cuda.shared.array((padded, padded), real)
        mean = cuda.shared.array(padded, real)
        t = cuda.threadIdx.x
        base = cuda.blockIdx.x * 128
        n, d = X.shape
        for index in range(t, 128 * padded, 64):
            row, column = index // padded, index % padded
            value = zero
            if base + row < n and column < d:
                value = X[base + row, column]
            x[column, row] = value
        m0, m1 = lowest, lowest  # largest term so far, of this thread's two rows
        s0, s1 = zero, zero  # sum of exp(term - largest)
        for comp in range(means.shape[0]):
            cuda.syncthreads()
            for index in range(t, padded * padded, 64):
                w[index // padded, index % padded] = W[comp, index // padded, index % padded]
            if t < padded:
                mean[t] = means[comp, t] if t < d else zero
            cuda.syncthreads()
            q0, q1 = zero, zero
            for j in range(0, padded, 4):
                a0, a1, a2, a3 = zero, zero, zero, zero
                b0, b1, b2, b3 = zero, zero, zero, zero
                for i in range(j + 4):
                    a = x[i, t] - mean[i]
                    b = x[i, t + 64] - mean[i]
                    w0, w1, w2, w3 = w[i, j], w[i, j + 1], w[i, j + 2], w[i, j + 3]
                    a0 += a * w0
                    a1 += a * w1
                    a2 += a * w2
                    a3 += a * w3
                    b0 += b * w0
                    b1 += b * w1
                    b2 += b * w2
                    b3 += b * w3
                q0 += a0 * a0 + a1 * a1 + a2 * a2 + a3 * a3
                q1 += b0 * b0 + b1 * b1 + b2 * b2 + b3 * b3
            term0 = constants[comp] - half * q0
            term1 = constants[comp] - half * q1
            # A weight of zero is a term of -inf, which adds nothing; NaN goes through.
            if term0 > m0:
                s0 = s0 * math.exp(m0 - term0) + one
                m0 = term0
            elif term0 != lowest:
                s0 += math.exp(term0 - m0)
            if term1 > m1:
                s1 = s1 * math.exp(m1 - term1) + one
                m1 = term1
            elif term1 != lowest:
                s1 += math.exp(term1 - m1)
            if terms.shape[0] > 0:
                if base + t < n:
                    terms[base + t, comp] = term0
                if base + t + 64 < n:
                    terms[base + t + 64, comp] = term1
        if base + t < n:
            density[base + t] = m0 + math.log(s0) if m0 > lowest else m0 + s0
        if base + t + 64 < n:
            density[base + t + 64] = m1 + math.log(s1) if m1 > lowest else m1 + s1

    return mixture


def launch_row_norms(z: Any, out: Any, *, stream: Any = 0) -> None:
    """``out[i] = sum_j z[i, j]^2`` of device arrays."""
    blocks = -(-z.shape[0] // 4)
    _cuda_kernels().row_norms[blocks, (32, 4), stream](z, out)


def launch_mixture(
    X: Any, means: Any, W: Any, constants: Any, density: Any, terms: Any, *, stream: Any = 0
) -> None:
    """Mixture density of device arrays, all of X's dtype (float32 or float64), d at most 32.

    `W` is (k, padded, padded), upper triangular, zero from d to `padded`; `constants` holds
    log-weights too; `terms` is (n, k), or (0, k) when the component terms are not wanted.
    """
    kernel = _cuda_mixture(W.shape[1], np.dtype(X.dtype) == np.float64)
    blocks = -(-X.shape[0] // 128)
    kernel[blocks, 64, stream](X, means, W, constants, density, terms)
