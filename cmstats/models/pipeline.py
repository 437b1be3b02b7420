"""A scikit-learn transformer for each view, then a two-view model."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import is_dask
from cmstats.models.dask import apply, fit_view, row_wise
from cmstats.models.delegated import DelegatedOutputs, delegated, has
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import row_count

__all__ = ["TwoViewPipeline"]


def _fit_view(transformer: Any, data: Any) -> tuple[Any, Any]:
    """A fitted clone of the transformer, and the data through it."""
    if transformer is None:
        return None, data
    if is_dask(data):
        return fit_view(transformer, data)
    fitted = clone(transformer)
    return fitted, _named(fitted.fit_transform(data), fitted, data)


def _named(out: Any, transformer: Any, data: Any) -> Any:
    """What a transformer made of a frame, with the names that it gives to the columns.

    Transformers return plain arrays unless they are told otherwise.
    """
    named = hasattr(data, "columns") and type(out) is np.ndarray and out.ndim == 2
    if not named or not hasattr(transformer, "get_feature_names_out"):
        return out
    try:
        names = transformer.get_feature_names_out()
    except (AttributeError, ValueError):  # a step of a pipeline that knows no names
        return out
    if len(names) != out.shape[1]:
        return out
    import pandas as pd

    return pd.DataFrame(out, columns=names, index=getattr(data, "index", None), copy=False)


class TwoViewPipeline(DelegatedOutputs):
    """A transformer for each view, fitted inside the folds, then a two-view model.

    Parameters
    ----------
    model : estimator
        Any model with ``fit(X, y)``, for example `CCA`. Every method of the model that takes
        views is available and goes through the transformers.
    x, y : transformer or None, default=None
        A scikit-learn transformer or pipeline for each view (L2 normalisation, PCA, TF-IDF
        of strings...); None passes the view on. A supervised transformer of `x` does not
        see `y`: it is fitted on its view alone.

    Attributes
    ----------
    model_, x_, y_ : the fitted parts

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.preprocessing import Normalizer
    >>> from cmstats import CCA, TwoViewPipeline, load_emoji
    >>> image, text = load_emoji(return_X_y=True)
    >>> model = TwoViewPipeline(CCA(10, shrinkage=0.1), x=PCA(50), y=Normalizer())
    >>> U, V = model.fit(image, text).transform(image[:3], text[:3])
    >>> U.shape
    (3, 10)
    """

    def __init__(self, model: Any, *, x: Any = None, y: Any = None) -> None:
        self.model = model
        self.x = x
        self.y = y

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit the transformers, each to its view, and the model to what they return.

        Parameters
        ----------
        X, y : what the transformers take
            Paired rows; strings are fine where a transformer takes strings.
        **fit_params
            For the model's `fit` (``sample_weight``, ``groups``, ``labels``...); with metadata
            routing what the model requests.

        Returns
        -------
        self
        """
        if y is None:
            raise ValueError(
                "TwoViewPipeline requires y to be passed, but the target y is None: it is the "
                "second view"
            )
        beside = ("sample_weight", "groups", "labels")
        check_row_labels({"X": X, "y": y, **{k: fit_params.get(k) for k in beside}})
        x_, X = _fit_view(self.x, X)
        y_, y = _fit_view(self.y, y)
        model_ = clone(self.model).fit(X, y, **fit_params)
        self.x_, self.y_, self.model_ = x_, y_, model_
        return self

    def fit_transform(self, X: Any, y: Any, **fit_params: Any) -> Any:
        """``fit(X, y).transform(X)``."""
        return self.fit(X, y, **fit_params).transform(X)

    def _apply(self, view: str, data: Any) -> Any:
        transformer = getattr(self, f"{view}_")
        if transformer is not None and is_dask(data):
            return apply(transformer, data)
        if transformer is None:
            return data
        return _named(transformer.transform(data), transformer, data)

    def _inner(self, name: str) -> Any:
        return getattr(self, "model_", self.model)

    def _passed(self, X: Any, y: Any) -> tuple[Any, ...]:
        if X is not None and y is not None and row_count(X) == row_count(y):
            check_row_labels({"X": X, "y": y})
        X = None if X is None else self._apply("x", X)
        return X, None if y is None else self._apply("y", y)

    score = delegated("score")

    @available_if(has("sample"))
    def sample(self, X: Any, **kwargs: Any) -> Any:
        """The model's `sample` on the transformed x."""
        check_is_fitted(self)
        return self.model_.sample(self._apply("x", X), **kwargs)

    @available_if(has("predict"))
    @row_wise
    def predict(self, X: Any, **kwargs: Any) -> Any:
        """The model's `predict` on the transformed x.

        Predictions go back through ``y.inverse_transform`` where the transformer of y has
        one; otherwise, and for predictions with a standard deviation or covariance, they
        are in the transformed units of y.
        """
        check_is_fitted(self)
        predicted = self.model_.predict(self._apply("x", X), **kwargs)
        labels = hasattr(self.model_, "classes_")
        if kwargs or labels or not hasattr(self.y_, "inverse_transform"):
            return predicted
        return self.y_.inverse_transform(predicted)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose the container of what the parts return; see `CCA.set_output`."""
        for name in ("x", "y", "model", "x_", "y_", "model_"):
            part = getattr(self, name, None)
            if part is not None:
                part.set_output(transform=transform)
        return self

    @property
    def n_features_in_(self) -> int:
        """The number of columns of the first view."""
        part = getattr(self, "x_", None)
        return int(getattr(self.model_ if part is None else part, "n_features_in_"))  # noqa: B009

    @property
    def feature_names_in_(self) -> Any:
        """The names of the columns of the first view, where fit saw some."""
        part = getattr(self, "x_", None)
        return getattr(self.model_ if part is None else part, "feature_names_in_")  # noqa: B009

    def get_metadata_routing(self) -> MetadataRouter:
        """What `fit` and `score` pass on to the model, for scikit-learn's metadata routing."""
        passed = MethodMapping()
        for method in ("fit", "score"):
            passed.add(caller=method, callee=method)
        return MetadataRouter(owner=self).add(model=self.model, method_mapping=passed)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: those of the model."""
        tags = super().__sklearn_tags__()
        model = get_tags(self.model)
        tags.target_tags = model.target_tags
        tags.transformer_tags = model.transformer_tags
        tags.input_tags.sparse = model.input_tags.sparse
        return tags
