"""Explicit feature maps of kernels: any model of moments on them is a kernel model.

A map sends a row x to coordinates z(x) with ``z(x)'z(y)`` equal or close to k(x, y). Where the
coordinates are those of an orthonormal basis, the norm of a weight vector is the norm of its
function in the reproducing kernel Hilbert space (RKHS), so ridge on the coordinates is ridge there.
"""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from cmstats.arrays import (
    Array,
    device_of,
    float64,
    is_array,
    is_numpy,
    namespace,
    result_dtype,
    to_numpy,
    warn,
)
from cmstats.kernels import whitening
from cmstats.kernels.linalg import signs
from cmstats.models.kernel_map import SAMPLE, KernelMap
from cmstats.models.landmarks import (
    Weights,
    centres,
    cholesky_basis,
    draw,
    not_semidefinite,
    random_pivots,
    triangular,
    triangular_dual,
)
from cmstats.rows.chunks import chunks, is_lazy
from cmstats.rows.source import take_in_memory

__all__ = ["ExactKernelMap", "NystroemMap", "RandomFourierMap"]

POOL_BYTES = 512 << 20
"""Bytes of the factor that pivoted Cholesky keeps while it chooses landmarks."""


CHECKED = 500
"""The number of landmarks by which a kernel is found not to be positive semi-definite."""


class ExactKernelMap(KernelMap):
    r"""Coordinates of all training rows in the span of their kernel functions.

    With the centred Gram matrix :math:`K_c = U \Lambda U'` the principal coordinates are those
    of kernel PCA (Scholkopf, Smola and Muller 1998),

    .. math:: z(x) = \Lambda^{-1/2} U' (k(X, x) - \bar k),

    whose inner products are the centred kernel exactly: ridge in the coordinates is ridge in
    the RKHS. Time O(n^3), memory O(n^2).

    Parameters
    ----------
    kernel : str or callable, default="rbf"
        A kernel of `cmstats.kernels.gram.gram` ("rbf", "laplacian", "polynomial", "sigmoid",
        "cosine", "linear", "chi2"), "precomputed", or a function of two matrices that returns
        their kernel block.
    gamma : float, optional
        Scale of the kernel; by default 1 / median distance (squared for rbf, L1 for laplacian,
        chi2 for chi2; see `cmstats.kernels.gram.median_gamma`), and 1 / n_features for
        polynomial and sigmoid.
    degree, coef0 : float
        For polynomial and sigmoid kernels.
    basis : {"principal", "cholesky"}, default="principal"
        "cholesky" takes the triangular factor of the (not centred) Gram matrix instead: the
        same inner products up to centring and ridge in another orthonormal basis, for a tenth
        of the time.

    Attributes
    ----------
    gamma_ : float or None
    eigenvalues_ : array of shape (n_features_out,)
        Of the centred Gram matrix, largest first; of "principal" only.
    n_landmarks_ : float
        The number of training rows.
    n_features_in_, feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    NystroemMap : From a few landmarks, for more than some thousand rows.

    References
    ----------
    Scholkopf, B., Smola, A. and Muller, K.-R. (1998). Nonlinear component analysis as a kernel
    eigenvalue problem. Neural Computation 10.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import ExactKernelMap
    >>> X = np.array([[0.0], [1.0], [3.0]])
    >>> Z = ExactKernelMap("linear").fit_transform(X)
    >>> (Z @ Z.T).round(2)  # centred inner products
    array([[ 1.78,  0.44, -2.22],
           [ 0.44,  0.11, -0.56],
           [-2.22, -0.56,  2.78]])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **KernelMap._parameter_constraints,
        "basis": [StrOptions({"principal", "cholesky"})],
    }

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        gamma: float | None = None,
        degree: float = 3,
        coef0: float = 1,
        basis: Literal["principal", "cholesky"] = "principal",
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.basis = basis

    def _fit(self, X: Any, weights: Weights = None) -> Array | None:
        n = int(X.shape[0])
        _check_memory(X, n)
        # The rows that set the bandwidth, where there are more than that: always the same.
        self._fit_kernel(X, weights, np.random.RandomState(0))
        X = self._rows(take_in_memory(X, slice(None)) if is_lazy(X) else X)
        K = _symmetric(float64(X)) if self._precomputed else self._square(X)
        self.n_landmarks_ = float(n) if weights is None else float(weights.sum())
        if self.basis == "cholesky":
            kept, self.factor_, Z = cholesky_basis(K, _eps(X), self.kernel)
            self.landmarks_ = kept if self._precomputed else take_in_memory(X, kept)
        else:
            Z = self._principal(K)
            self.landmarks_ = None if self._precomputed else X
        self._n_features_out = int(Z.shape[1])
        return namespace(X).astype(Z, result_dtype(X), copy=False)

    def _principal(self, K: Array) -> Array:
        xp = namespace(K)
        self.mean_ = xp.mean(K, axis=0)
        K = K - self.mean_[:, None] - self.mean_[None, :] + xp.mean(self.mean_)
        values, U = xp.linalg.eigh(0.5 * (K + K.mT))
        n, top = K.shape[0], max(float(xp.max(xp.abs(values))), 1e-300)
        rounding = 10 * n * whitening.EPS * max(top, float(xp.max(xp.abs(self.mean_))))
        if float(values[0]) < -rounding:
            raise not_semidefinite(self.kernel, float(values[0]) / top)
        start = int(xp.count_nonzero(values <= rounding))
        if start == n:
            warn(
                "the kernel sees no difference between the rows of X: the map is one column of "
                "zeros"
            )
            self.eigenvalues_ = 0 * values[:1]
            self.weights_ = 0 * U[:, :1]
            return 0 * U[:, :1]
        values, U = xp.flip(values[start:]), xp.flip(U[:, start:], axis=1)
        U = U * signs(U)
        self.eigenvalues_, self.weights_ = values, U / xp.sqrt(values)[None, :]
        return U * xp.sqrt(values)[None, :]

    def fit_transform(self, X: Any, y: Any = None) -> Array:
        """``fit(X).transform(X)``, without computing the kernel twice."""
        return self._fit_copy(X)[1]

    def _columns(self, X: Array) -> Array:
        return self._kernel_columns(X, self.landmarks_)

    def _coordinates(self, columns: Array) -> Array:
        xp = namespace(columns)
        if self.basis == "cholesky":
            return triangular(self.factor_, columns)
        centred = columns - xp.astype(self.mean_, columns.dtype)
        return centred @ xp.astype(self.weights_, columns.dtype)

    def _dual(self, mean: Array, weights: Array) -> tuple[Array, Array]:
        if self.basis == "cholesky":
            return triangular_dual(self.factor_, mean, weights)
        centre = self.mean_ + self.weights_ @ (self.eigenvalues_ * mean)
        return centre, self.weights_ @ weights


class NystroemMap(KernelMap):
    r"""Coordinates in the span of the kernel functions of a few landmarks.

    With landmarks M and the triangular factor :math:`K_{MM} = L L'`,

    .. math:: z(x) = L^{-1} k(M, x), \qquad z(x)'z(y) = k(x, M) K_{MM}^{-1} k(M, y),

    the projection on the span (Williams and Seeger 2001), in a basis that is orthonormal as
    that of the symmetric root :math:`K_{MM}^{-1/2}` is, for half the operations. Where
    landmarks depend on each other numerically, the dependent ones are left out (pivoted
    Cholesky). With all rows as landmarks it is `ExactKernelMap`.

    Parameters
    ----------
    kernel, gamma, degree, coef0
        As in `ExactKernelMap`.
    rank : int, default=1000
        Number of landmarks m; more than there are rows are reduced to these, with a warning.
    landmarks : {"uniform", "kmeans", "pivoted_cholesky"}, default="uniform"
        "uniform" draws rows; "kmeans" takes the centres of a few steps of Lloyd's algorithm on
        a sample of 10 m rows (Zhang, Tsang and Kwok 2008); "pivoted_cholesky" draws each row
        of such a sample in proportion to its squared distance from the span of those before
        (randomly pivoted Cholesky, Chen et al. 2025).
    orthonormal : bool, default=True
        False gives the raw columns k(x, M), without the factor: half the operations. What is
        lost: inner products are no longer those of the kernel, and ridge penalises the
        coefficients of the kernel functions in place of the norm in the RKHS, so that it
        smoothes directions of small variance far more and needs a smaller value.
    random_state : int, RandomState or None

    Attributes
    ----------
    landmarks_ : array of shape (n_features_out, n_features)
        The landmarks kept; their positions where the kernel is precomputed.
    factor_ : array of shape (n_features_out, n_features_out)
        L, float64; None for raw columns.
    n_landmarks_ : float
        m before dependent landmarks were left out.
    gamma_ : float or None
    n_features_in_, feature_names_in_
        The columns seen in `fit`.

    References
    ----------
    Williams, C. and Seeger, M. (2001). Using the Nystrom method to speed up kernel machines.
    NIPS 13.
    Zhang, K., Tsang, I. and Kwok, J. (2008). Improved Nystrom low-rank approximation and error
    analysis. ICML.
    Chen, Y., Epperly, E., Tropp, J. and Webber, R. (2025). Randomly pivoted Cholesky: practical
    approximation of a kernel matrix with few entry evaluations. Comm. Pure Appl. Math. 78.

    Examples
    --------
    >>> from cmstats import CCA, NystroemMap, TwoViewPipeline, load_emoji
    >>> image, text = load_emoji(return_X_y=True)
    >>> x, y = (NystroemMap("rbf", rank=200, random_state=0) for _ in range(2))
    >>> model = TwoViewPipeline(CCA(10, shrinkage=0.01), x=x, y=y).fit(image, text)
    >>> model.transform(image[:3]).shape
    (3, 10)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **KernelMap._parameter_constraints,
        "rank": [Interval(Integral, 1, None, closed="left")],
        "landmarks": [StrOptions({"uniform", "kmeans", "pivoted_cholesky"})],
        "orthonormal": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        rank: int = 1000,
        landmarks: Literal["uniform", "kmeans", "pivoted_cholesky"] = "uniform",
        gamma: float | None = None,
        degree: float = 3,
        coef0: float = 1,
        orthonormal: bool = True,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.rank = rank
        self.landmarks = landmarks
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.orthonormal = orthonormal
        self.random_state = random_state

    def _fit(self, X: Any, weights: Weights = None) -> Array | None:
        rng = check_random_state(self.random_state)
        self._fit_kernel(X, weights, rng)
        rows = int(X.shape[0]) if weights is None else int(np.count_nonzero(weights))
        m = min(self.rank, rows)
        # A row of weight 2 is two rows, of which one more landmark could have been made.
        possible = rows if weights is None else float(weights.sum())
        self.n_landmarks_ = float(min(self.rank, possible)) if m == rows else float(m)
        if self.rank > possible:
            warn(f"rank={self.rank} is more than the {rows} rows of X: all of them are landmarks")
        chosen = self._chosen(X, m, rng, weights)
        xp = namespace(chosen)
        if self.orthonormal:
            kept, self.factor_, _ = cholesky_basis(self._among(X, chosen), _eps(X), self.kernel)
            chosen = xp.take(chosen, kept, axis=0)
        else:
            if not self._surely_semidefinite:
                # Raises where the kernel is not.
                cholesky_basis(self._among(X, chosen[:CHECKED]), _eps(X), self.kernel)
            self.factor_ = None
            self.n_landmarks_ = float(chosen.shape[0])
        self.landmarks_ = chosen
        self._n_features_out = int(chosen.shape[0])
        return None

    def _among(self, X: Any, chosen: Array) -> Array:
        """The kernel matrix of landmarks."""
        if not self._precomputed:
            return self._square(chosen)
        xp = namespace(chosen)
        return _symmetric(float64(xp.take(take_in_memory(X, chosen), chosen, axis=1)))

    @property
    def _surely_semidefinite(self) -> bool:
        if self.kernel == "polynomial":
            return float(self.degree).is_integer() and self.coef0 >= 0
        return self.kernel in ("rbf", "laplacian", "chi2", "cosine", "linear")

    def _chosen(self, X: Any, m: int, rng: np.random.RandomState, weights: Weights) -> Array:
        """The landmarks (their positions where the kernel is precomputed)."""
        n = int(X.shape[0])
        if self.landmarks == "uniform":
            at = draw(n, m, rng, weights)
        elif self.landmarks == "kmeans":
            if self._precomputed or callable(self.kernel):
                raise ValueError(
                    "landmarks='kmeans' makes new rows by averaging, which a precomputed kernel or "
                    "a callable one may not take: use 'uniform' or 'pivoted_cholesky'"
                )
            pool = self._sampled(X, draw(n, 10 * m, rng, weights))
            return centres(pool, m, rng)
        else:
            size = max(m, min(10 * m, POOL_BYTES // (8 * m)))
            at = draw(n, size, rng, weights)
            pool = self._sampled(X, at)
            at = np.sort(at[self._pivots(pool, at, m, rng)])
        if self._precomputed:
            xp = namespace(X) if is_array(X) else namespace()
            return xp.asarray(at, device=device_of(X)) if not is_numpy(xp) else at
        return self._sampled(X, at)

    def _pivots(
        self, pool: Array, at: np.ndarray[Any, Any], m: int, rng: np.random.RandomState
    ) -> np.ndarray[Any, Any]:
        # A precomputed pool has the columns of all rows: those of the pool are wanted.
        pool = float64(pool)
        if self._precomputed:
            own = to_numpy(pool)[:, at]
            return random_pivots(lambda rows: own[rows], np.diagonal(own).copy(), m, rng)

        def block(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return to_numpy(self._block(take_in_memory(pool, rows), pool))

        parts = [self._block(part) for _, (part,), _ in chunks([pool], rows=256)]
        diagonal = np.concatenate([np.diagonal(to_numpy(part)) for part in parts])
        return random_pivots(block, diagonal, m, rng)

    def _columns(self, X: Array) -> Array:
        return self._kernel_columns(X, self.landmarks_)

    def _coordinates(self, columns: Array) -> Array:
        return columns if self.factor_ is None else triangular(self.factor_, columns)

    def _dual(self, mean: Array, weights: Array) -> tuple[Array, Array]:
        if self.factor_ is None:
            return mean, weights
        return triangular_dual(self.factor_, mean, weights)


class RandomFourierMap(KernelMap):
    r"""Random Fourier features of a shift-invariant kernel.

    .. math:: z(x) = D^{-1/2} (\cos w_1'x, ..., \cos w_D'x, \sin w_1'x, ..., \sin w_D'x)

    with frequencies w drawn from the Fourier transform of the kernel (Rahimi and Recht 2007):
    normal of variance 2 gamma for rbf, Cauchy of scale gamma for laplacian. The expectation
    of z(x)'z(y) is k(x, y), the error is O(1 / sqrt(D)).

    Parameters
    ----------
    kernel : {"rbf", "laplacian"}, default="rbf"
    rank : int, default=1000
        Number of features, 2 D; an odd one is raised by one.
    gamma : float, optional
        As in `ExactKernelMap`.
    random_state : int, RandomState or None
        Draws the frequencies.

    Attributes
    ----------
    frequencies_ : array of shape (n_features, D)
    mean_ : array of shape (n_features,)
        Taken off the rows, which changes no inner product and keeps digits.
    gamma_ : float
    n_landmarks_ : float
        The number of features.
    n_features_in_, feature_names_in_
        The columns seen in `fit`.

    References
    ----------
    Rahimi, A. and Recht, B. (2007). Random features for large-scale kernel machines. NIPS 20.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import RandomFourierMap
    >>> from cmstats.kernels.gram import gram
    >>> X = np.random.default_rng(0).standard_normal((50, 3))
    >>> Z = RandomFourierMap("rbf", rank=4000, gamma=0.1, random_state=0).fit_transform(X)
    >>> bool(abs(Z @ Z.T - gram(X, kernel="rbf", gamma=0.1)).max() < 0.1)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "kernel": [StrOptions({"rbf", "laplacian"})],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "gamma": KernelMap._parameter_constraints["gamma"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        kernel: Literal["rbf", "laplacian"] = "rbf",
        *,
        rank: int = 1000,
        gamma: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.rank = rank
        self.gamma = gamma
        self.random_state = random_state

    def _fit(self, X: Any, weights: Weights = None) -> Array | None:
        rng = check_random_state(self.random_state)
        self._fit_kernel(X, weights, rng)
        assert self.gamma_ is not None
        shape = (int(X.shape[1]) if X.ndim > 1 else 1, (self.rank + 1) // 2)
        if self.kernel == "rbf":
            w = rng.standard_normal(shape) * (2 * self.gamma_) ** 0.5
        else:
            w = rng.standard_cauchy(shape) * self.gamma_
        first = self._sampled(X, draw(X.shape[0], SAMPLE, rng, weights))
        xp = namespace(first)
        self.mean_ = xp.mean(float64(first), axis=0)
        self.frequencies_ = w if is_numpy(xp) else xp.asarray(w, device=device_of(first))
        self._n_features_out = 2 * shape[1]
        self.n_landmarks_ = float(self._n_features_out)
        return None

    def _columns(self, X: Array) -> Array:
        xp = namespace(X)
        namespace(X, self.frequencies_)  # of one library, on one device
        dtype = result_dtype(X)
        given, X = X, xp.astype(X, dtype, copy=False) - xp.astype(self.mean_, dtype)
        angles = X @ xp.astype(self.frequencies_, dtype)
        if dtype != xp.float64 and float(xp.max(xp.abs(angles))) > 64:  # its rounding would show
            angles = (float64(given) - self.mean_) @ self.frequencies_
        scale = self.frequencies_.shape[1] ** -0.5
        waves = [xp.astype(wave, dtype, copy=False) for wave in (xp.cos(angles), xp.sin(angles))]
        return scale * xp.concat(waves, axis=1)


def _eps(X: Any) -> float:
    return whitening.EPS if result_dtype(X) == namespace(X).float64 else 1.2e-7


def _symmetric(K: Array) -> Array:
    """A precomputed kernel matrix without its rounding."""
    xp = namespace(K)
    turned = K.mT
    if float(xp.max(xp.abs(K - turned))) > 1e-5 * float(xp.max(xp.abs(K))):
        raise ValueError("the precomputed kernel is not symmetric: entry (i, j) is k(x_i, x_j)")
    return 0.5 * (K + turned)


def _check_memory(X: Any, n: int) -> None:
    needed = 4 * 8 * n * n  # the matrix, its vectors and LAPACK's work space
    free = _free_memory(X)
    if needed > free:
        raise MemoryError(
            f"the exact kernel map of {n} rows needs about {needed / 2**30:.3g} GiB for their "
            f"Gram matrix and its factor, and {free / 2**30:.3g} GiB are free: use "
            "approximation='nystroem' (NystroemMap), whose memory does not grow with the rows"
        )


def _free_memory(like: Any) -> float:
    """Free bytes on the device of `like`; infinity where that is not known."""
    if is_array(like) and not is_numpy(namespace(like)):
        return float("inf")  # its library says itself what does not fit
    return min(_read_available(), _read_cgroup())


def _read_available() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float("inf")


def _read_cgroup() -> float:
    """Free bytes under the limit of a container (cgroup version 2); cached files count as free."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = float((folder / "memory.max").read_text())
        used = float((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or "max": no limit
        return float("inf")
    return max(limit - used + float(stat.get("inactive_file", 0)), 0.0)
