"""What the baselines share with the classical models: two views in, vectors of both out."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, namespace
from cmstats.kernels.ranks import partner_counts
from cmstats.metrics.ties import TiedRanks
from cmstats.models.base import RowsModel
from cmstats.models.dask import refused
from cmstats.models.latent import EmbeddedViews

__all__ = ["TwoViewBaseline", "reciprocal_rank"]


class TwoViewBaseline(EmbeddedViews, RowsModel):
    """Views, names and containers as in `CCA`, without moments to fit to.

    A subclass sets `n_components_` in `fit` and gives `_coordinates`.
    """

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
        return super().embed(X, y)

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
        return super().similarity(X, y)

    @refused
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
        self._blocks(X, y, reset=False)
        return reciprocal_rank(*self.embed(X, y))

    def _training_rows(self, X: Any, y: Any) -> tuple[Any, Any]:
        X, y = super()._training_rows(X, y)
        if X.shape[0] < 2:
            raise ValueError(
                f"n_samples={X.shape[0]}: one sample has no variance, at least 2 are needed"
            )
        namespace(*(None if scipy.sparse.issparse(a) else a for a in (X, y)))
        return X, y


def reciprocal_rank(U: Array, V: Array) -> float:
    """The mean reciprocal rank of row i of one among the rows of the other, both ways."""
    counts = partner_counts(U, V)
    there, back = (float(np.mean(TiedRanks.of(count).values("MRR"))) for count in counts)
    return (there + back) / 2
