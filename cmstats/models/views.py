"""Two views handed to an estimator, and what it hands back.

Widths, names and values are checked here, in the same words for every estimator, and variates
are put into the container asked for.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, TransformerTags
from sklearn.utils.validation import check_is_fitted, validate_data

from cmstats.arrays import Array, is_dask, to_numpy
from cmstats.models import dask as _dask_rows
from cmstats.rows.chunks import check_lengths, is_lazy
from cmstats.rows.dask import columns_of
from cmstats.rows.matrix import check_matrix
from cmstats.rows.views import column_names

__all__ = ["TwoViewEstimator", "TwoViewOutput"]


class TwoViewEstimator(BaseEstimator):
    """An estimator of two paired views, X and y."""

    _takes_dask: ClassVar[bool] = False
    """Whether it is fitted to, and scored on, Dask arrays."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the row-wise methods of the class take Dask arrays."""
        super().__init_subclass__(**kwargs)
        _dask_rows.on_dask(cls)

    @property
    def _missing(self) -> Any:
        return getattr(self, "missing", "error")

    def _filled(self, rows: Any, view: str) -> Any:
        """Rows with NaN filled in, where the estimator takes such rows."""
        raise NotImplementedError

    def _check_views(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Both views, with widths and names remembered or checked; values come later."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: it "
                "is the second view"
            )
        if not self._takes_dask and (is_dask(X) or is_dask(y)):
            _dask_rows.refuse(self, "fit")
        X = self._check_x(X, reset=reset, ensure_finite=False)
        y = self._check_y(y, reset=reset, ensure_finite=False)
        check_lengths({"X": X, "y": y})
        return X, y

    def _check_x(self, X: Any, *, reset: bool = False, ensure_finite: bool = True) -> Any:
        if len(_shape(X)) == 1:
            raise ValueError(
                "Expected 2D array, got 1D array instead: X holds one row per item. Reshape your "
                "data with X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if one item"
            )
        checked = self._read(X, "X", ensure_finite)
        validate_data(self, columns_of(X), reset=reset, skip_check_array=True)
        fill = ensure_finite and not reset and self._missing == "em"
        return self._filled(checked, "x") if fill else checked

    def _read(self, a: Any, name: str, ensure_finite: bool) -> Any:
        if is_lazy(a):
            return a
        if self._missing == "em" and ensure_finite:
            return check_matrix(a, name, ensure_finite="allow-nan")
        hint = ", or set missing='em'" if hasattr(self, "missing") else ""
        return check_matrix(a, name, ensure_finite=ensure_finite, hint=hint)

    def _check_y(self, y: Any, *, reset: bool = False, ensure_finite: bool = True) -> Any:
        checked = self._read(y, "y", ensure_finite)
        width = 1 if checked.ndim == 1 else int(checked.shape[1])
        names = column_names(y)
        if reset:
            self._y_width = width
            self._y_ndim = len(_shape(y))
            self.__dict__.pop("y_feature_names_in_", None)
            if names is not None:
                self.y_feature_names_in_ = names
            return checked
        if width != self._y_width:
            raise ValueError(
                f"y has {width} features, but {type(self).__name__} is expecting {self._y_width} "
                "features in y"
            )
        known = getattr(self, "y_feature_names_in_", None)
        if known is not None and names is not None and list(known) != list(names):
            raise ValueError(
                "The feature names of y should match those that were passed during fit: got "
                f"{', '.join(map(str, names[:5]))} where fit saw {', '.join(map(str, known[:5]))}"
            )
        fill = ensure_finite and self._missing == "em"
        return self._filled(checked, "y") if fill else checked

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: two required views, sparse input."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self._missing == "em"
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        # Arrays of other libraries are taken, but y and weights are not moved to X's device, as
        # that tag promises: mixing libraries or devices raises one sentence instead.
        tags.array_api_support = False
        return tags


class TwoViewOutput(BaseEstimator):
    """What transformers of two views share: names, and `set_output` for both outputs."""

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose the container of what `transform` returns, for both views.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, optional
            None leaves the choice as it is.

        Returns
        -------
        self
        """
        if transform not in (None, "default", "pandas", "polars"):
            raise ValueError(
                f"set_output takes 'default', 'pandas' or 'polars', got transform={transform!r}"
            )
        if transform is not None:
            # scikit-learn's clone copies an attribute of this name.
            self._sklearn_output_config = {"transform": transform}
        return self

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: a transformer that keeps float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags = TransformerTags(preserves_dtype=["float64", "float32"])
        return tags

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray[Any, Any]:
        """The names of the components: the class name in lower case with a number."""
        check_is_fitted(self)
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(self.n_components_)], dtype=object)

    def _wrap(self, variates: Array, like: Any) -> Any:
        """The variates in the container asked for, with the index of `like`."""
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform")
        chosen = chosen or sklearn.get_config()["transform_output"]
        if chosen == "default":
            return variates
        names = self.get_feature_names_out()
        if chosen == "pandas":
            import pandas as pd

            return pd.DataFrame(
                to_numpy(variates), columns=names, index=getattr(like, "index", None)
            )
        import polars as pl

        return pl.DataFrame(to_numpy(variates), schema=list(names), orient="row")


def _shape(a: Any) -> tuple[int, ...]:
    return tuple(a.shape) if hasattr(a, "shape") else np.asarray(a).shape
