"""Partial least squares of two views, from their joint moments."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, namespace, to_numpy
from cmstats.models.base import MomentsModel
from cmstats.models.dask import row_wise
from cmstats.models.deflation import (
    Deflation,
    deflated,
    least_squares,
    published,
    singular_pairs,
)
from cmstats.models.degenerate import constant_columns
from cmstats.models.latent import LatentViews, from_coordinates
from cmstats.models.regions import PredictsRegions
from cmstats.moments.folds import (
    GridScores,
    best_index,
    mean_scores,
    scored_by_fold,
    simplest_index,
)
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk
from cmstats.rows.chunks import project

__all__ = ["PLS"]

MOST = 50
"""The largest number of components that "cv" tries."""


class PLS(PredictsRegions, LatentViews, MomentsModel):
    r"""Partial least squares of two views, from joint moments.

    Each component has the unit weights w, c of largest covariance between the scores of what the
    components before have left of both views (Wold 1975),

    .. math:: \max_{w, c} \; w' S_{xy} c \quad\text{s.t.}\quad |w| = |c| = 1,

    the leading singular vectors of the deflated cross-covariance. With ``mode="regression"`` the
    scores t of x deflate both views; only S_xy changes, by :math:`t't\, p q'` (improved kernel
    PLS, Dayal and MacGregor 1997), and y is regressed on t. With "canonical" each view is
    deflated by its own scores (PLS mode A, Wegelin 2000), which treats the views alike. With
    "svd" nothing is deflated: all singular vectors of S_xy (Tucker's interbattery analysis).

    Parameters
    ----------
    n_components : int or "cv", default=2
        "cv" takes the smallest number, of at most 50, whose mean held-out score is within one
        standard error of the best (Breiman et al. 1984): R2 for "regression", all numbers from
        one path for each fold; otherwise the components before the first whose held-out
        correlation is not more than one standard error above 0.
    mode : {"regression", "canonical", "svd"}, default="regression"
    scale : bool, default=True
        Standardise each column (from the moments, so inside the folds).
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K.
    missing : {"error", "em"}, default="error"
        What NaN is, see `CCA`.

    Attributes
    ----------
    x_weights_, y_weights_ : arrays of shape (p, k), (q, k)
        w and c for scaled and deflated columns; in "regression" the y-weights are the loadings.
        The largest absolute x-weight of each component is positive.
    x_rotations_, y_rotations_ : arrays of shape (p, k), (q, k)
        What maps scaled columns to scores.
    x_loadings_, y_loadings_ : arrays of shape (p, k), (q, k)
        Coefficients of the columns on the scores: p and q, not correlations.
    coef_ : array of shape (q, p)
        ``predict(X) = X @ coef_.T + intercept_``.
    intercept_ : array of shape (q,)
    x_explained_variance_ratio_, y_explained_variance_ratio_ : arrays of shape (k,)
        The share of the variance of the (scaled) view that each component's scores explain: those
        of x, and in the symmetric modes of y by its own. With "svd" these overlap.
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    n_components_ : int
        Fewer than asked for where nothing is left that varies together.
    cv_n_components_, cv_scores_ : list, array of shape (n_tried, n_folds)
        Where `n_components` is "cv"; NaN where a fold has fewer components.
    n_samples_, moments_, n_features_in_, feature_names_in_, y_feature_names_in_
        As in `CCA`.

    See Also
    --------
    CCA : The same with correlation in place of covariance; ``shrinkage=1`` has the directions of
        ``PLS(mode="svd")``.
    MultitaskRegressor : Ridge and reduced-rank regression.

    Notes
    -----
    The results are those of scikit-learn's ``PLSRegression`` and ``PLSCanonical`` without the
    tolerance of their power iterations. `predict` in the mode "canonical" goes, as theirs, from
    the scores of x through the loadings of y, which are those of another score: on correlated
    views it explained .07 of a variance of which regression on the same scores explains .82.
    For prediction use ``mode="regression"``.

    R's pls does not scale by default: of ``plsr(Y ~ X, ncomp=k)`` the coefficients are those of
    ``PLS(k, scale=False)``, of its method "oscorespls" the loading weights are `x_weights_` and the
    projection `x_rotations_`. SIMPLS (its method "simpls", MATLAB's ``plsregress``) has the same
    coefficients for one target; for several it differs from the second component on.

    **PLS-DA.** Classes as one-hot columns of y: the largest prediction names the class (see
    Examples).

    References
    ----------
    Wold, H. (1975). Soft modelling by latent variables. Perspectives in Probability and
    Statistics.
    Wegelin, J. A. (2000). A survey of partial least squares methods. University of Washington.
    Dayal, B. S. and MacGregor, J. F. (1997). Improved PLS algorithms. J. Chemometrics 11.
    Chong, I.-G. and Jun, C.-H. (2005). Performance of some variable selection methods when
    multicollinearity is present. Chemometrics and Intelligent Laboratory Systems 78.

    Examples
    --------
    >>> from cmstats import PLS, load_linnerud
    >>> X, Y = load_linnerud(return_X_y=True)
    >>> pls = PLS(2).fit(X, Y)
    >>> pls.x_explained_variance_ratio_.round(3)
    array([0.735, 0.158])
    >>> pls.transform(X).shape, pls.predict(X).shape
    ((20, 2), (20, 3))

    Discriminant analysis:

    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> X, species = load_iris(return_X_y=True)
    >>> da = PLS("cv").fit(X, np.eye(3)[species])
    >>> float(np.mean(da.predict(X).argmax(axis=1) == species)) > 0.8
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"cv"})],
        "mode": [StrOptions({"regression", "canonical", "svd"})],
        "scale": ["boolean"],
        "cv": ["cv_object"],
        "missing": [StrOptions({"error", "em"})],
    }
    _mean_and_covariance = PredictsRegions._linear_mean_and_covariance
    tunable: ClassVar[Mapping[str, Any]] = {"n_components": "1, 2, ..."}

    def __init__(
        self,
        n_components: int | Literal["cv"] = 2,
        *,
        mode: Literal["regression", "canonical", "svd"] = "regression",
        scale: bool = True,
        cv: Any = 5,
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.n_components = n_components
        self.mode = mode
        self.scale = scale
        self.cv = cv
        self.missing = missing

    def _prepared(self, moments: Moments, chosen: dict[str, Any]) -> Shrunk:
        return moments.shrunk(0.0, scale=self.scale or "block")

    def _solve(self, m: Shrunk, n_components: int | None = None) -> Deflation:
        k = self._count(m) if n_components is None else n_components
        parts = singular_pairs(m, k) if self.mode == "svd" else deflated(m, k, self.mode)
        xp, notes = namespace(m.mean("x")), constant_columns(m)
        if len(parts[0]) < k:
            notes.append(f"only {len(parts[0])} of n_components={k} exist; the rest are left out")
        W, C, R, S, P, Q = (
            xp.stack(a, axis=1) if a else 0 * m.mean(b)[:, None]
            for a, b in zip(parts, "xyxyxy", strict=False)
        )
        if self.mode == "regression":  # the y-scores whose coefficients on themselves are 1
            S = C @ xp.linalg.pinv(Q.mT @ C)
        slopes = Q if self.mode != "svd" else least_squares(m, R)
        return published(m, (W, C, R, S, P, Q), slopes, parts[6:], notes, self.mode)

    def _count(self, m: Shrunk) -> int:
        """The number of components, which must be possible."""
        p, q, rows = m.width("x"), m.width("y"), m.rows
        regression = self.mode == "regression"
        most = min(p, rows - 1) if regression else min(p, q, rows - 1)
        if self.n_components != "cv" and self.n_components > most:
            raise ValueError(
                f"n_components={self.n_components} is too large: at most {most} are possible, the "
                f"minimum of {p} x-features{'' if regression else f', {q} y-features'} and "
                f"n_samples - 1 = {rows - 1}"
            )
        return min(most, MOST) if self.n_components == "cv" else int(self.n_components)

    def _rows_needed(self) -> int:
        return 2 if self.n_components == "cv" else self.n_components + 1

    def _candidates(self, folds: Sequence[Moments]) -> list[dict[str, Any]]:
        most = self._count(self._prepared(functools.reduce(operator.add, folds), {}))
        return [{"n_components": k + 1} for k in range(most)]

    def _grid_scores(
        self, folds: Sequence[Moments], candidates: Sequence[Mapping[str, Any]]
    ) -> GridScores:
        def along(k: int, train: Moments) -> Array:
            """The scores of all numbers of components; NaN beyond those that exist."""
            found, held = self._solved(train, {}), self._held_out(folds[k])
            if self.mode == "regression":
                path = to_numpy(found.path_r2(held)).mean(axis=1)
            else:
                path = to_numpy(found.correlations_on(held))
            return np.append(path, np.full(max(len(candidates) - len(path), 0), np.nan))

        return scored_by_fold(along, len(candidates), folds)

    def _best(self, found: GridScores, folds: Sequence[Moments]) -> int:
        if self.mode == "regression":
            return simplest_index(found.scores, found.notes)
        best_index(scores := found.scores, found.notes)  # raises where there is no score
        mean, there = mean_scores(scores), ~np.isnan(scores).all(axis=0)
        error = scores[:, there].std(axis=1) / max(int(there.sum()) - 1, 1) ** 0.5
        return max(0, int(np.argmin(np.append(mean > error, False))) - 1)  # before the first

    def _score(self, moments: Moments, model: Deflation) -> float:
        if self.mode == "regression":
            last = model.path_r2(moments)[-1, :]
            return float(namespace(last).mean(last))
        correlations = model.correlations_on(moments)
        return float(namespace(correlations).mean(correlations))

    def _projection(self, view: str) -> tuple[Array, Array]:
        found: Deflation = self._solution
        if view == "x":
            return found.x_mean_, found.x_rotations
        return found.y_mean_, found.y_rotations

    @row_wise
    def predict(self, X: Any) -> Array:
        """Predict y by its regression on the scores of x.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_targets), or (n_samples,) if y was 1-D in fit
        """
        check_is_fitted(self)
        found: Deflation = self._solution
        t = project(self._check_x(X), found.x_mean_, found.x_rotations)
        return from_coordinates(t, found.y_slopes, found.y_mean_, self._y_ndim)

    def score_moments(self, moments: Moments) -> float:
        """The mean R2 of the targets on held-out moments, or the mean correlation of the scores.

        Parameters
        ----------
        moments : Moments
            With blocks "x" and "y".

        Returns
        -------
        float
            For ``mode="regression"`` R2, the mean over the targets; for the symmetric modes the
            mean correlation of the paired scores.
        """
        return super().score_moments(moments)

    @property
    def vip_(self) -> Array:
        r"""Variable importance in projection, shape (p,); values above 1 matter more than average.

        .. math:: \mathrm{VIP}_j^2 = p \, \sum_a v_a w_{ja}^2 / \sum_a v_a

        with v_a the variance of y that component a explains (Chong and Jun 2005), as in mixOmics
        of standardised columns. Packages that fit by SIMPLS (MATLAB, mdatools) have the
        rotations at unit length in place of w.
        """
        check_is_fitted(self)
        W, share = self.x_weights_, self.y_explained_variance_ratio_
        xp = namespace(W)
        total = xp.sum(share)
        return xp.sqrt(W.shape[0] * (W * W @ share) / xp.where(total > 0, total, 1.0))
