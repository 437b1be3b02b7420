"""Correlations of paired variates."""

from __future__ import annotations

import math
import sys
from typing import Any

from sklearn.pipeline import Pipeline

from cmstats.arrays import Array, float64, is_array, namespace, to_numpy, warn

__all__ = ["column_correlations", "refused_score", "total_correlation_scorer"]


def column_correlations(U: Any, V: Any) -> Array:
    r"""Correlations of the columns of two matrices, pair by pair.

    .. math:: r_k = \frac{u_k' v_k}{\|u_k\| \, \|v_k\|}

    with centred columns :math:`u_k`, :math:`v_k`.

    Parameters
    ----------
    U, V : arrays of shape (n, k), or of shape (n,)
        Variates, of any array library.

    Returns
    -------
    array of shape (k,), float64
        NaN for a constant column.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics.correlation import column_correlations
    >>> column_correlations(np.eye(3)[:, :2], np.eye(3)[:, 1::-1]).round(3)
    array([-0.5, -0.5])
    """
    variates = [a if is_array(a) else to_numpy(a) for a in (U, V)]
    xp = namespace(*variates)
    u, v = (float64(a if a.ndim == 2 else xp.reshape(a, (-1, 1))) for a in variates)
    u, v = (a - xp.mean(a, axis=0) for a in (u, v))
    norms = xp.sqrt(xp.sum(u * u, axis=0) * xp.sum(v * v, axis=0))
    return xp.sum(u * v, axis=0) / xp.where(norms == 0, xp.nan, norms)


SWALLOWING = {
    ("sklearn.model_selection._validation", "_score"),
    ("sklearn.metrics._scorer", "__call__"),
}
"""Functions of scikit-learn that put NaN in place of what a scorer raises."""


class _RefusedScore:
    """What is returned to scikit-learn in place of an error: it raises where it is read.

    A search takes what a scorer raises for a score of NaN, and its first candidate for the best.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __repr__(self) -> str:
        return str(self.error)

    def item(self) -> float:
        """The score as a number, which scikit-learn asks for first."""
        raise self.error


def refused_score(estimator: Any) -> Any:
    """Raise where an estimator transforms one view alone; None where it takes both.

    For the first line of a scorer, which returns what is not None: scikit-learn's searches catch
    what scorers raise, and raise what this is.
    """
    if not isinstance(estimator, Pipeline):
        return None
    error = TypeError(
        "a Pipeline of scikit-learn transforms X alone, and this score is of both views: use "
        "TwoViewPipeline(model, x=StandardScaler(), y=StandardScaler()) in place of "
        "make_pipeline(StandardScaler(), model)"
    )
    caller = sys._getframe(2)
    if (caller.f_globals.get("__name__"), caller.f_code.co_name) in SWALLOWING:
        return _RefusedScore(error)
    raise error


def total_correlation_scorer(estimator: Any, X: Array, y: Array) -> float:
    r"""Sum of the correlations of the paired variates of held-out data.

    .. math:: \sum_k \operatorname{corr}(u_k, v_k)

    A scorer for `GridSearchCV` and `cross_val_score`. Unlike `score`, which is the mean, it
    can choose the number of components: one that correlates by chance adds 0 on average.

    Parameters
    ----------
    estimator : object
        A fitted model with ``transform(X, y) -> (Xc, Yc)``.
    X, y : arrays of shapes (n, p) and (n, q)
        Held-out data.

    Returns
    -------
    float
        In [-k, k] for k components; NaN with a warning for one row or a constant variate.

    Raises
    ------
    AttributeError
        If the estimator has no `transform`.
    TypeError
        If it is a Pipeline of scikit-learn, which transforms X alone: use `TwoViewPipeline`.

    References
    ----------
    Andrew, G., Arora, R., Bilmes, J. and Livescu, K. (2013). Deep canonical correlation analysis.
    ICML.

    Examples
    --------
    >>> from sklearn.datasets import load_linnerud
    >>> from sklearn.cross_decomposition import CCA
    >>> from cmstats.metrics import total_correlation_scorer
    >>> X, y = load_linnerud(return_X_y=True)
    >>> round(total_correlation_scorer(CCA(1).fit(X, y), X, y), 3)
    0.796
    """
    if (refused := refused_score(estimator)) is not None:
        return refused  # type: ignore[no-any-return]
    u, v = estimator.transform(X, y)
    r = column_correlations(u, v)
    total = float(namespace(r).sum(r))
    if math.isnan(total):
        n = u.shape[0] if hasattr(u, "shape") else len(u)
        warn(
            f"the correlation of {n} row(s) with a constant variate is not defined: "
            "the score is NaN",
        )
    return total
