"""What the baselines share with the classical models: two views in, vectors of both out."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, namespace, to_numpy
from cmstats.kernels.linalg import inner
from cmstats.kernels.ranks import partner_counts
from cmstats.models.views import TwoViewEstimator, TwoViewOutput
from cmstats.rows.chunks import is_lazy

__all__ = ["TwoViewBaseline", "reciprocal_rank", "unit_rows"]


class TwoViewBaseline(TwoViewOutput, TwoViewEstimator):
    """Views, names and containers as in `CCA`, without moments to fit to.

    A subclass sets `n_components_` in `fit` and gives `_coordinates`, and `_vectors` where the
    vectors of `embed` are not the coordinates at unit length.
    """

    n_components_: int

    def _coordinates(self, rows: Any, view: str) -> Array:
        """What `transform` returns for the checked rows of view "x" or "y"."""
        raise NotImplementedError

    def transform(self, X: Any = None, y: Any = None) -> Any:
        """Coordinates of one view or of both.

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
        found = self._both_coordinates(X, y)
        wrapped = [self._wrap(a, given) for a, given in found]
        return wrapped[0] if len(wrapped) == 1 else tuple(wrapped)

    def fit_transform(self, X: Any, y: Any) -> Any:
        """``fit(X, y).transform(X)``: the x coordinates of the training rows."""
        return self.fit(X, y).transform(X)

    def embed(self, X: Any = None, y: Any = None) -> Any:
        """Vectors of unit length whose inner product is the similarity of an x and a y.

        Parameters
        ----------
        X, y
            As in `transform`.

        Returns
        -------
        array of shape (n_samples, n_components_), or a pair of these
        """
        out = [unit_rows(a) for a, _ in self._both_coordinates(X, y)]
        return out[0] if len(out) == 1 else tuple(out)

    def similarity(self, X: Any, y: Any) -> Array:
        """The cosine of every x with every y, shape (n_x, n_y).

        Parameters
        ----------
        X, y
            As in `transform`; numbers of rows may differ.

        Returns
        -------
        array of shape (n_x, n_y)
        """
        return _products(self.embed(X, y))

    def score(self, X: Any, y: Any) -> float:
        """The mean reciprocal rank of the partner, the mean of both directions.

        Parameters
        ----------
        X, y
            As in `fit`: the partner of row i of `X` is row i of `y`, among all rows of `y`.

        Returns
        -------
        float
            Between 0 and 1. It falls with the number of candidates: compare on equally many.
        """
        check_is_fitted(self)
        self._check_views(X, y, reset=False)
        return reciprocal_rank(*self.embed(X, y))

    def _both_coordinates(self, X: Any, y: Any) -> list[tuple[Array, Any]]:
        """Coordinates of the views that are given, each beside what was given."""
        check_is_fitted(self)
        if X is None and y is None:
            raise ValueError("give X, y or both")
        found = []
        for given, view, check in ((X, "x", self._check_x), (y, "y", self._check_y)):
            if given is not None:
                found.append((self._coordinates(check(given), view), given))
        namespace(*(a for a, _ in found))  # of one library, on one device
        return found

    def _training_views(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Both views in memory, with finite values and at least two rows."""
        X, y = self._check_views(X, y, reset=True)
        X, y = (np.asarray(a[:]) if is_lazy(a) else a for a in (X, y))
        X, y = self._check_x(X), self._check_y(y)
        if X.shape[0] < 2:
            raise ValueError(
                f"n_samples={X.shape[0]}: one sample has no variance, at least 2 are needed"
            )
        namespace(*(None if scipy.sparse.issparse(a) else a for a in (X, y)))
        return X, y


def unit_rows(a: Array) -> Array:
    """Rows at unit length; a row of zeros stays one."""
    xp = namespace(a)
    norm = xp.sqrt(xp.sum(a * a, axis=1, keepdims=True))
    return a / xp.where(norm > 0, norm, xp.ones_like(norm))


def reciprocal_rank(U: Array, V: Array) -> float:
    """The mean reciprocal rank of row i of one among the rows of the other, both ways."""
    counts = partner_counts(U, V)
    there, back = (float(np.mean(1 / to_numpy(count.ranks()))) for count in counts)
    return (there + back) / 2


def _products(vectors: tuple[Array, Array]) -> Array:
    u, v = vectors
    return inner(u, v)
