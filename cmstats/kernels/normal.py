"""Log-densities of multivariate normals and of their mixtures.

Everything stays in log space: with W the inverse transposed Cholesky factor of S
(``W' S W = I``) and ``z = W' (x - mu)``,

    log N(x; mu, S) = -1/2 (d log 2 pi + z'z) + sum_i log W_ii,

and a mixture is the log-sum-exp of its components. A covariance of low rank plus a diagonal is
never formed: with G = D^-1/2 L = U s V' the whitened row is (I - P P') D^-1/2 (x - mu),
P = U (1 - (1 + s^2)^-1/2)^1/2, at O(d r) a row (the Woodbury identity, in the form of a square
root: differences of squares would cancel). W is computed in float64 and applied in
the precision of the data, to rows from which the mean has been subtracted: folding the mean
into the product would save a pass over a tile in cache and lose the digits that a mean far
from zero costs.

Which version runs follows from the array: NumPy takes the loops of `_cpu.normal`, CuPy the
kernels of `_cuda.normal`, every other namespace the reference.
"""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import array_api_compat
import numpy as np
import scipy.sparse

from cmstats.arrays import Array, check_matrix, device_of, is_numpy, namespace, result_dtype
from cmstats.kernels.linalg import cholesky, solve_triangular, svd
from cmstats.kernels.parameters import CovarianceType, Normals
from cmstats.kernels.threads import blas_for
from cmstats.kernels.transfer import within_memory

__all__ = ["component_logpdf", "evaluate", "logpdf", "mixture_logpdf", "prepare"]


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
    normals = _factored(X, mu, S[None, ...], kind, ("mean", "covariance"))
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
    covariances : array of shape (k, d, d), (d, d) or (k, d), or a pair of arrays
        One matrix per component ("full"), one for all ("tied"), or variances ("diag"). A pair
        ("low_rank") is the loadings L (k, d, r) and the noise variances D (k, d) of
        covariances L L' + diag(D).
    covariance_type : {"full", "tied", "diag", "low_rank"}, optional
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
    namespace(X, means, *_arrays(covariances))
    X = _check_rows(X)
    return _components(X, prepare(X, means, covariances, covariance_type))


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
    xp = namespace(X, weights, means, *_arrays(covariances))
    X = _check_rows(X)
    normals = prepare(X, means, covariances, covariance_type)
    k = normals.means.shape[0]
    w = _parameter(weights, "weights", X, (1,))
    if w.shape != (k,):
        raise ValueError(f"weights must have one entry per component ({k}), got shape {w.shape}")
    total = float(xp.sum(w))
    if not (bool(xp.all(w >= 0)) and abs(total - 1.0) < 1e-4):
        raise ValueError(f"weights must be probabilities, not negative and of sum 1, got {total:g}")
    # A component of weight zero has log-weight -inf, which the log-sum-exp passes over.
    log_weights = xp.where(w > 0, xp.log(xp.where(w > 0, w, 1.0)), -math.inf)
    density, responsibilities = evaluate(X, normals, log_weights, return_responsibilities)
    return (density, responsibilities) if return_responsibilities else density


def _arrays(covariances: Any) -> tuple[Any, ...]:
    return covariances if isinstance(covariances, tuple) else (covariances,)


def _check_rows(X: Any) -> Array:
    if scipy.sparse.issparse(X):
        raise TypeError("X is sparse, and a density needs every entry: pass X.toarray()")
    # Finite values are checked on the n results, which costs no pass over X.
    return check_matrix(X, "X", ensure_finite=False)


def _check_result(X: Array, result: Array) -> None:
    """Raise for NaN and infinity in X, which is searched only if the results are not finite."""
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


def prepare(
    like: Array, means: Any, covariances: Any, covariance_type: CovarianceType | None
) -> Normals:
    """Checked and factored normals, for `evaluate` on many blocks of rows.

    `like` names the namespace, the device and the number of columns.
    """
    mu = _parameter(means, "means", like, (2,))
    if isinstance(covariances, tuple):
        return _check_low_rank(like, mu, covariances, covariance_type)
    S = _parameter(covariances, "covariances", like, (2, 3))
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
            'covariance_type must be "full", "tied" or "diag", or "low_rank" with a pair of '
            f"arrays, got {covariance_type!r}"
        )
    elif tuple(S.shape) != shapes[covariance_type]:
        raise ValueError(
            f"covariances must have shape {shapes[covariance_type]} for covariance_type="
            f'"{covariance_type}", got {tuple(S.shape)}'
        )
    if covariance_type == "tied":
        S = S[None, ...]
    return _factored(like, mu, S, covariance_type, ("means", "covariances"))


def _check_low_rank(
    X: Array, means: Array, pair: tuple[Any, ...], kind: CovarianceType | None
) -> Normals:
    xp = namespace(X)
    k, d = means.shape
    if len(pair) != 2 or kind not in (None, "low_rank"):
        raise ValueError(
            "a tuple of covariances is the pair (loadings, noise variances) of "
            f'covariance_type="low_rank", got {len(pair)} arrays for {kind!r}'
        )
    L = _parameter(pair[0], "loadings", X, (3,))
    D = _parameter(pair[1], "noise variances", X, (2,))
    if X.shape[1] != d or tuple(L.shape[:2]) != (k, d) or tuple(D.shape) != (k, d):
        raise ValueError(
            f"loadings must have shape ({k}, {X.shape[1]}, rank) and noise variances "
            f"({k}, {X.shape[1]}), got {tuple(L.shape)} and {tuple(D.shape)}"
        )
    if not bool(xp.all(D > 0)):
        raise ValueError(f"noise variances must be positive, the smallest is {float(xp.min(D)):g}")
    scales = 1.0 / xp.sqrt(D)
    projections, logdets = [], []
    for j in range(k):
        u, s, _ = svd(scales[j, :, None] * L[j, ...])
        root = xp.sqrt(1.0 + s * s)
        # 1 - 1/root, without the cancellation of small s
        projections.append(u * (s / xp.sqrt(root * (1.0 + root)))[None, :])
        logdets.append(2.0 * xp.sum(xp.log(root)))
    logdet = xp.sum(xp.log(D), axis=1) + xp.stack(logdets)
    constants = -0.5 * (d * math.log(2.0 * math.pi) + logdet)
    return Normals("low_rank", means, scales, constants, xp.stack(projections))


def _factored(
    X: Array, means: Array, S: Array, kind: CovarianceType, names: tuple[str, str]
) -> Normals:
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
        return Normals(kind, means, 1.0 / xp.sqrt(S), -0.5 * (log_2pi + logdet))
    eye = xp.eye(d, dtype=xp.float64, device=device_of(X))
    factors, constants = [], []
    for j in range(S.shape[0]):
        name = names[1] if S.shape[0] == 1 else f"{names[1]}[{j}]"
        _check_symmetric(S[j, ...], name)
        with blas_for(d):  # threads of BLAS would spin on beside those that evaluate
            lower = cholesky(S[j, ...], name)
            factors.append(solve_triangular(lower, eye).mT)
        constants.append(-0.5 * log_2pi - xp.sum(xp.log(xp.linalg.diagonal(lower))))
    every = xp.broadcast_to(xp.stack(constants), (means.shape[0],))
    return Normals(kind, means, xp.stack(factors), every)


def _check_symmetric(S: Array, name: str) -> None:
    xp = namespace(S)
    scale = float(xp.max(xp.abs(S)))
    if float(xp.max(xp.abs(S - S.mT))) > 1e-5 * scale:
        raise ValueError(f"{name} is not symmetric")


def _reference(X: Array, normals: Normals) -> Array:
    """Component log-densities (n, k) by their equation, in any conforming namespace."""
    xp = namespace(X)
    dtype = result_dtype(X)
    X, means, W, constants = (
        xp.astype(a, dtype, copy=False)
        for a in (X, normals.means, normals.whitening, normals.constants)
    )
    if normals.kind == "tied":
        centre = xp.mean(means, axis=0)
        X, means = (X - centre) @ W[0, ...], (means - centre) @ W[0, ...]
    columns = []
    for j in range(means.shape[0]):
        z = X - means[j, :]
        if normals.kind in ("diag", "low_rank"):
            z = z * W[j, :]
        elif normals.kind == "full":
            z = z @ W[j, ...]
        if normals.projections is not None:
            P = xp.astype(normals.projections[j, ...], dtype)
            z = z - (z @ P) @ P.mT
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


def _components(X: Array, normals: Normals) -> Array:
    xp = namespace(X)
    if is_numpy(xp):
        out = np.empty((X.shape[0], normals.means.shape[0]), dtype=result_dtype(X))
        from cmstats.kernels._cpu import normal as cpu

        cpu.log_densities(X, normals, None, components=out)
    elif array_api_compat.is_cupy_namespace(xp):
        out = _cupy(X, normals, None, components=True)[1]
    else:
        out = _reference(X, normals)
    _check_result(X, out)
    return out


def evaluate(
    X: Array, normals: Normals, log_weights: Array, responsibilities: bool
) -> tuple[Array, Array | None]:
    """Mixture density (n,), and responsibilities (n, k) when asked, under prepared normals."""
    xp = namespace(X)
    n, k = X.shape[0], normals.means.shape[0]
    if is_numpy(xp):
        density = np.empty(n, dtype=result_dtype(X))
        resp = np.empty((n, k), dtype=density.dtype) if responsibilities else None
        from cmstats.kernels._cpu import normal as cpu

        cpu.log_densities(X, normals, log_weights, density=density, responsibilities=resp)
    elif array_api_compat.is_cupy_namespace(xp):
        density, terms = _cupy(X, normals, log_weights, components=responsibilities)
        resp = xp.exp(terms - density[:, None]) if responsibilities else None
    else:
        terms = _reference(X, normals)
        density, resp = _reference_mixture(terms + xp.astype(log_weights, terms.dtype, copy=False))
    _check_result(X, density)
    return density, resp


def _cupy(
    X: Array, normals: Normals, log_weights: Array | None, *, components: bool
) -> tuple[Array, Array]:
    from cmstats.kernels._cuda import normal as cuda

    (n, d), k = X.shape, normals.means.shape[0]
    return within_memory(
        lambda: cuda.log_densities(X, normals, log_weights, components=components),
        f"the log-density of {n} rows under {k} normals",
        row_bytes=8 * (d + k),
    )
