"""Outputs of latent models: variates, embeddings and similarities of two views, and containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, TransformerTags
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, in_range, moderate, namespace, result_dtype, to_numpy
from cmstats.kernels import whitening
from cmstats.kernels.linalg import inner
from cmstats.models.dask import by_rows, row_wise
from cmstats.rows.chunks import project
from cmstats.rows.matrix import check_matrix

__all__ = [
    "ComparedViews",
    "Containers",
    "EmbeddedViews",
    "LatentViews",
    "all_pairs",
    "decoded",
    "unit_rows",
]


class Containers(BaseEstimator):
    """Names of components, and `set_output` for every array that `transform` returns."""

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose the container of what `transform` returns, for all views.

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

    def _wrap(self, variates: Array, like: Any, view: str = "x") -> Any:
        """The variates in the container asked for, with the index of `like`.

        The names of the second and of later views begin with that of the view, so that frames
        of several views can stand side by side.
        """
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform")
        chosen = chosen or sklearn.get_config()["transform_output"]
        if chosen == "default":
            return variates
        names = self.get_feature_names_out()
        if view != "x":
            names = np.array([f"{view}_{name}" for name in names], dtype=object)
        if chosen == "pandas":
            import pandas as pd

            return pd.DataFrame(
                to_numpy(variates), columns=names, index=getattr(like, "index", None)
            )
        import polars as pl

        return pl.DataFrame(to_numpy(variates), schema=list(names), orient="row")


class ComparedViews(BaseEstimator):
    """Embeddings and similarities of a model that maps rows of two views into one space.

    A model says how: `_coordinates`, and `_vectors` where its similarity is not the cosine.
    """

    def _coordinates(self, rows: Any, view: str) -> Array:
        """The coordinates of checked rows of one view."""
        raise NotImplementedError

    def _vectors(self, *args: Any, **kwargs: Any) -> Array:
        """Vectors of one view, ``_vectors(coordinates, view, **how)``.

        Their inner product with those of another view is the similarity.
        """
        return unit_rows(args[0])

    def _variates(self, *views: Any) -> dict[str, Array]:
        """The coordinates of each view that is given."""
        check_is_fitted(self)
        return {v: self._coordinates(rows, v) for v, (rows, _) in self._given(*views).items()}

    def _each(self, make: Callable[..., Any], *views: Any) -> Any:
        """``make(coordinates, view, given)`` of each view that is given."""
        check_is_fitted(self)
        coordinates = {
            view: (self._coordinates(rows, view), given)
            for view, (rows, given) in self._given(*views).items()
        }
        namespace(*(a for a, _ in coordinates.values()))  # of one library, on one device
        found = {view: make(a, view, given) for view, (a, given) in coordinates.items()}
        return self._returned(found, *views)

    def _embedded(self, *views: Any, **how: Any) -> Any:
        return self._each(lambda a, view, _: self._vectors(a, view, **how), *views)

    @row_wise
    def embed(self, X: Any = None, y: Any = None) -> Any:
        """Vectors whose plain inner product is the similarity of an x and a y.

        Any index for inner products (FAISS, hnswlib, a vector database) serves them unchanged.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), optional
        y : array-like or sparse matrix of shape (n_samples, n_targets), optional

        Returns
        -------
        array of shape (n_samples, m), or a pair of these
        """
        return self._embedded(X, y)

    @by_rows
    def similarity(self, X: Any, y: Any) -> Array:
        """The similarity of every x with every y, shape (n_x, n_y).

        Parameters
        ----------
        X, y
            As in `embed`; numbers of rows may differ.

        Returns
        -------
        array of shape (n_x, n_y)
        """
        return self._compared(X, y)

    def _compared(self, *views: Any, **how: Any) -> Array:
        return all_pairs(self.embed(*views, **how))


class EmbeddedViews(ComparedViews, Containers):
    """The same of a model whose coordinates are an output too."""

    n_components_: int

    @row_wise
    def transform(self, X: Any = None, y: Any = None) -> Any:
        """Coordinates of one view or of both: the variates, where the model is linear.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), optional
        y : array-like or sparse matrix of shape (n_samples, n_targets), optional

        Returns
        -------
        array of shape (n_samples, n_components_), or a pair of these
            Of x, of y, or (of x, of y), for what was given.

        Raises
        ------
        ValueError
            If neither is given, or widths or values are not right.
        """
        return self._each(lambda a, view, given: self._wrap(a, given, view), X, y)

    def fit_transform(self, X: Any, y: Any) -> Any:
        """``fit(X, y).transform(X)``: the x coordinates of the training rows."""
        return self.fit(X, y).transform(X)


class LatentViews(EmbeddedViews):
    """Outputs of a model whose coordinates, the variates, are linear in the rows of a view.

    A model has moments, and means and weights by view (`_projection`).
    """

    def _projection(self, view: str) -> tuple[Array, Array]:
        """The mean and the weights of a view: coordinates are ``(rows - mean) @ weights``."""
        mean, weights = f"{view}_mean_", f"{view}_weights_"
        return getattr(self, mean), getattr(self, weights)

    def _coordinates(self, rows: Any, view: str) -> Array:
        return project(rows, *self._projection(view), "X" if view == "x" else view)

    def _score(self, moments: Any, model: Any) -> float:
        """The mean correlation of the paired variates of held-out moments."""
        return float(to_numpy(model.correlations_on(moments)).mean())

    def fit_transform(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> Any:
        """``fit(X, y).transform(X)``: the x variates of the training rows."""
        given = {"sample_weight": sample_weight, "groups": groups}
        return self.fit(X, y, **{k: v for k, v in given.items() if v is not None}).transform(X)

    @row_wise
    def inverse_transform(self, X: Any = None, y: Any = None) -> Any:
        r"""Rows of one view or of both from their variates.

        The conditional mean of a view given its variates under the joint Gaussian model,

        .. math:: E[x \mid u] = \bar x + S_{xx} W (W' S_{xx} W)^{-1} u

        with the weights W and the covariance of the training rows: the linear reconstruction of
        least squared error.

        Parameters
        ----------
        X, y : array-likes of shape (n_samples, n_components_), optional
            Variates of the first and of the second view, as `transform` returns them.

        Returns
        -------
        array of shape (n_samples, n_features), or a pair of these

        Raises
        ------
        ValueError
            If neither is given, or a number of columns is not `n_components_`.
        """
        check_is_fitted(self)
        if X is None and y is None:
            raise ValueError("give X, y or both")
        given = {view: u for view, u in (("x", X), ("y", y)) if u is not None}
        return self._returned({view: self._decoded(u, view) for view, u in given.items()})

    def _decoded(self, variates: Any, view: str) -> Array:
        return decoded(self._total(), view, *self._projection(view), variates)


def decoded(moments: Any, view: str, mean: Array, weights: Array, variates: Any) -> Array:
    """The conditional mean of a view's rows given their variates."""
    u = check_matrix(variates, "the variates")
    u = u.toarray() if hasattr(u, "toarray") else u
    if u.shape[1] != weights.shape[1]:
        raise ValueError(
            f"the variates have {u.shape[1]} columns, but there are {weights.shape[1]} components"
        )
    SW = moments.projected_scatter(view, view, weights)
    # With F'(W'SW)F = I the inverse is F F', on the range where a component does not vary.
    F = whitening.factor(_not_negative(weights.mT @ SW)).weights
    pattern = (SW @ F) @ F.mT
    return from_coordinates(
        namespace(u, mean).astype(u, result_dtype(u), copy=False), pattern, mean
    )


def _not_negative(S: Array) -> Array:
    """A covariance whose variances of 0 may be rounded below 0."""
    xp = namespace(S)
    low = xp.clip(xp.linalg.diagonal(S), None, 0.0)
    return S - low[:, None] * xp.eye(S.shape[0], dtype=S.dtype, device=device_of(S))


def from_coordinates(u: Array, pattern: Array, mean: Array, ndim: int = 2) -> Array:
    """Rows ``u pattern' + mean`` from coordinates, in their precision; a vector if `ndim` is 1.

    Data of a size that this precision does not hold are in double precision.
    """
    xp = namespace(u, pattern)
    sizes = [float(xp.max(xp.abs(a))) if 0 not in a.shape else 0.0 for a in (pattern, mean)]
    work = u.dtype if all(s == 0 or 1e-30 < s < 1e30 for s in sizes) else xp.float64
    rows = xp.astype(u, work, copy=False) @ xp.astype(pattern.mT, work) + xp.astype(mean, work)
    rows = in_range(rows, u.dtype) if work != u.dtype else rows
    return rows[:, 0] if ndim == 1 else rows


def all_pairs(vectors: Any) -> Array:
    """The inner product of every vector of the first of two views with every one of the second.

    Raises
    ------
    ValueError
        If there are not two views.
    """
    each = vectors.values() if isinstance(vectors, dict) else vectors
    given = [a for a in each if a is not None] if isinstance(vectors, (dict, list, tuple)) else []
    if len(given) != 2:
        raise ValueError(
            f"similarity is of two views, got {len(given) or 1}: give X and y, or of a list or "
            "dict of views two that are not None"
        )
    return inner(*given)


def unit_rows(a: Array) -> Array:
    """Rows at unit length; a row of zeros remains one."""
    xp, a = namespace(a), moderate(a)
    norm = xp.sqrt(xp.sum(a * a, axis=1))[:, None]
    return a / xp.where(norm > 0, norm, xp.ones_like(norm))
