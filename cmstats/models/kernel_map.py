"""The base of kernel feature maps: the kernel, rows in, coordinates out."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, TransformerTags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from cmstats.arrays import (
    Array,
    dense,
    detached,
    float64,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    to_numpy,
)
from cmstats.kernels import gram
from cmstats.models.dask import row_wise
from cmstats.models.fitting import CopyFitted
from cmstats.models.landmarks import Weights, draw_repeated
from cmstats.rows.chunks import check_rows, chunks
from cmstats.rows.matrix import check_rows_of, check_source
from cmstats.rows.names import column_names, stand_in
from cmstats.rows.source import MappedRows, RowSource, take_in_memory

__all__ = ["SAMPLE", "KernelMap", "mapped_rows"]

DENSE = 64 << 20
"""Bytes of sparse rows that are made dense at once."""

SAMPLE = 1000
"""Rows that set the bandwidth."""


class KernelMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, CopyFitted):
    """What the maps share: the kernel, its bandwidth, rows in and coordinates out."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "kernel": [StrOptions({*gram.KERNELS, "poly", "precomputed"}), callable],
        "gamma": [Interval(Real, 0, None, closed="neither"), None],
        "degree": [Interval(Real, 0, None, closed="neither")],
        "coef0": [Interval(Real, None, None, closed="neither")],
    }
    kernel: Any
    gamma: float | None
    degree: float = 3
    coef0: float = 1
    landmarks_: Array
    gamma_: float | None
    n_landmarks_: float
    _n_features_out: int
    _view = "X"
    """What messages call the rows."""
    _private = frozenset({"_n_features_out"})

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the map to rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            An array of any library, a frame, a memory-map; for a precomputed kernel its values
            between all rows, of shape (n_samples, n_samples).
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is out of range, values are not finite, the chi2 kernel meets a
            negative value, or the kernel is not positive semi-definite.
        """
        return self._fit_copy(X)[0]

    def _fit_copy(self, X: Any) -> tuple[Self, Array | None]:
        """Fit to rows; the estimator, and the coordinates of these if the fit computes them."""
        self._validate_params()
        new = self._unfitted()
        coordinates = new._fit(new._check(X, reset=True))
        return self._become(new), coordinates

    def _fit(self, X: Any, weights: Weights = None) -> Array | None:
        """Fit to checked rows; the coordinates of these if the fit computes them."""
        raise NotImplementedError

    def _columns(self, X: Array) -> Array:
        """The columns, computed row by row, of which the coordinates are linear functions."""
        raise NotImplementedError

    def _coordinates(self, columns: Array) -> Array:
        """The coordinates from `_columns`."""
        return columns

    def _dual(self, mean: Array, weights: Array) -> tuple[Array, Array]:
        """Centre and weights on `_columns` that give ``(z - mean) @ weights``."""
        return mean, weights

    def _landmark_coordinates(self) -> Array | None:
        """The coordinates of the landmarks, where there are some."""
        return getattr(self, "factor_", None)

    @row_wise
    def transform(self, X: Any) -> Array:
        """The coordinates of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            For a precomputed kernel its values between these rows and those of `fit`.

        Returns
        -------
        array of shape (n_samples, n_features_out)
            Float64 for float64 and integer data, otherwise float32.
        """
        check_is_fitted(self)
        checked = self._check(X)
        rows = max(256, (64 << 20) // (8 * max(1, self._n_features_out)))
        parts = [self._mapped(part, start) for start, (part,), _ in chunks([checked], rows=rows)]
        return parts[0] if len(parts) == 1 else namespace(*parts).concat(parts, axis=0)

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: sparse data too, float32 kept, pairwise if precomputed."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        tags.input_tags.positive_only = isinstance(self.kernel, str) and self.kernel == "chi2"
        return tags

    def _check(self, X: Any, *, reset: bool = False) -> Any:
        checked = check_rows_of(X, check_source(detached(X) if reset else X, "X"))
        validate_data(self, stand_in(X, column_names(X)), reset=reset, skip_check_array=True)
        return checked

    def _mapped(self, part: Array, start: int) -> Array:
        """The coordinates of rows in memory, of which the first is row `start`."""
        if not scipy.sparse.issparse(part):
            return self._coordinates(self._columns(self._rows(part, start)))
        rows = max(256, DENSE // (8 * part.shape[1]))
        parts = [
            self._mapped(part[cut].toarray(), start + cut.start)
            for cut in row_slices(part.shape[0], rows)
        ]
        return parts[0] if len(parts) == 1 else namespace(*parts).concat(parts, axis=0)

    def _rows(self, part: Array, start: int = 0, block: Any = None) -> Array:
        """Rows that the kernel takes, or a sentence that says which one it does not."""
        part = dense(part)
        xp = namespace(part)
        part = xp.reshape(part, (-1, 1)) if part.ndim == 1 else part
        if is_numpy(xp) or xp.isdtype(part.dtype, "real floating"):
            check_rows(part, self._view, start, block)
        if isinstance(self.kernel, str) and self.kernel == "chi2" and bool(xp.any(part < 0)):
            flat = int(xp.argmax(xp.reshape(xp.astype(part < 0, xp.int8), (-1,))))
            row, column = start + flat // part.shape[1], flat % part.shape[1]
            raise ValueError(
                "Negative values in data: the chi2 kernel needs values of at least 0, and "
                f"{self._view} has a negative one at row {row}, column {column}"
            )
        return part

    def _sampled(self, X: Any, at: Any) -> Array:
        """Rows of a source at some positions; a value that the kernel does not take is located."""
        part = take_in_memory(X, at)
        try:
            return self._rows(part)
        except ValueError:
            for start, (run,), _ in chunks([X]):
                self._rows(run, start, X)
            raise

    @property
    def _precomputed(self) -> bool:
        return isinstance(self.kernel, str) and self.kernel == "precomputed"

    def _fit_kernel(self, X: Any, weights: Weights, rng: np.random.RandomState) -> None:
        """Set `gamma_`; check what can be checked without a pass."""
        if self._precomputed and X.shape[0] != X.shape[1]:
            raise ValueError(
                f"a precomputed kernel is fitted to its values between all rows, a square matrix, "
                f"got shape {tuple(X.shape)}"
            )
        self.gamma_ = self.gamma
        if self.gamma is None and self.kernel in gram.MEDIAN_KERNELS:
            rows = draw_repeated(X.shape[0], SAMPLE, rng, weights)
            sample = to_numpy(self._sampled(X, rows))
            try:
                self.gamma_ = gram.median_gamma(sample, kernel=self.kernel)
            except ValueError:  # one row, or equal rows: the kernel is constant for any gamma
                self.gamma_ = 1.0

    def _block(self, X: Array, Y: Array | None = None) -> Array:
        """Kernel values between rows; all values are given where the kernel is precomputed."""
        return gram.gram(
            X, Y, kernel=self.kernel, gamma=self.gamma_, degree=self.degree, coef0=self.coef0
        )

    def _kernel_columns(self, X: Array, landmarks: Array) -> Array:
        """k(x, landmarks); `landmarks` are positions where the kernel is precomputed."""
        xp = namespace(X, landmarks)
        if self._precomputed:
            block = X if landmarks is None else xp.take(X, landmarks, axis=1)
            return xp.astype(block, result_dtype(block), copy=False)
        wanted = result_dtype(X)
        return self._block(
            xp.astype(X, wanted, copy=False), xp.astype(landmarks, wanted, copy=False)
        )

    def _square(self, rows: Array) -> Array:
        """The kernel matrix of rows in double precision (of positions where precomputed)."""
        return self._block(float64(rows))


def mapped_rows(X: RowSource, feature_map: KernelMap) -> MappedRows:
    """The coordinates of rows, computed as they are read.

    Parameters
    ----------
    X : checked matrix or lazy array of shape (n, p)
    feature_map : fitted KernelMap
    """
    dtype = np.dtype(str(result_dtype(X)).rpartition(".")[2].strip("'>"))
    return MappedRows(X, feature_map._mapped, feature_map._n_features_out, dtype)
