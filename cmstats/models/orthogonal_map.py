"""An orthogonal map between two embedding spaces, and ridge regression toward it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, check_count, device_of, namespace, to_numpy
from cmstats.kernels.linalg import svd
from cmstats.metrics.retrieval import search
from cmstats.models.base import MomentsModel
from cmstats.models.dask import refused, row_wise
from cmstats.models.latent import ComparedViews
from cmstats.models.multitask import ALPHAS
from cmstats.models.regions import PredictsRegions
from cmstats.models.ridge import HeldOut, Spectrum, r2
from cmstats.moments.folds import GridScores, scored_by_fold
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import check_lengths, project

__all__ = ["OrthogonalMap"]


@dataclass(frozen=True)
class Rotation:
    """y = y_mean_ + (x - x_mean_)'B, B near c Q; fields that end in "_" are `OrthogonalMap`'s."""

    x_mean_: Array
    y_mean_: Array
    rotation_: Array
    scale_: float
    alpha_: float
    coef_: Array
    intercept_: Array
    notes: tuple[str, ...] = ()

    def r2(self, moments: Moments) -> Array:
        """R2 of every target on held-out moments, (q,)."""
        namespace(moments.mean("x"), self.x_mean_)  # of one library, on one device
        held = HeldOut.of(moments, (self.x_mean_, self.y_mean_))
        return r2(held.errors(self.coef_.mT), moments)


@dataclass(frozen=True)
class Procrustes:
    """The rotation and scale of least squares, and what every ridge toward them shares."""

    rotation: Array
    scale: float
    rank: int
    moments: Moments

    @classmethod
    def of(cls, m: Moments, *, scale: bool) -> Procrustes:
        """From the SVD of S_xy."""
        U, d, Vt = svd(m.scatter("x", "y"))
        xp = namespace(U)
        k = int(xp.count_nonzero(d > 1e-10 * d[0]))  # beyond, any rotation would do
        Q = U[:, :k] @ Vt[:k, :]
        norm = float(xp.sum(Q * m.projected_scatter("x", "x", Q)))
        c = (float(xp.sum(d)) / norm if norm > 0 else 0.0) if scale else 1.0
        return cls(Q, c, k, m)

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """The spectrum of S_xx, by which every alpha costs one division."""
        return Spectrum.of(self.moments)

    def notes(self, m: Moments) -> tuple[str, ...]:
        """The sentence about directions that the rows do not determine."""
        xp = namespace(self.rotation)
        varying = {name: int(xp.count_nonzero(~m.constant(name))) for name in ("x", "y")}
        most = min(varying.values())
        if not most:
            still = " and of ".join(name for name, count in varying.items() if not count)
            return (f"every column of {still} is constant: all rows are mapped to the mean of y",)
        return () if self.rank == most else (_UNDETERMINED.format(k=self.rank, most=most),)


class OrthogonalMap(PredictsRegions, ComparedViews, MomentsModel):
    r"""Orthogonal Procrustes map of one embedding space into another, from joint moments.

    With S the centred scatter matrices, the map with means and one scale

    .. math:: \hat y = \bar y + c\,Q'(x - \bar x), \quad S_{xy} = U D V', \quad Q = U V', \quad
        c = \frac{\operatorname{tr} D}{\operatorname{tr}(Q' S_{xx} Q)}

    keeps angles, and with them neighbours (Schoenemann 1966; with a scale Schoenemann and Carroll
    1970): for moving an index from one embedding model to another by a few items embedded with
    both. With `alpha` a ridge regression toward that map,

    .. math:: B = \arg\min \|Y - XB\|^2 + \alpha \|B - c Q\|^2
        = (S_{xx} + \alpha I)^{-1} (S_{xy} + \alpha c\, Q),

    joins least squares (small alpha) and the orthogonal map (large alpha) by one path.

    Parameters
    ----------
    scale : bool, default=True
        Whether c is fitted; otherwise it is 1.
    alpha : float or "cv", default=0.0
        0 stands for the orthogonal map itself, which is the limit of *large* alpha; small positive
        numbers are near least squares. "cv" chooses between it and the penalties 1e-3 to 10^6.5 by
        the mean held-out R2, from one eigendecomposition a fold.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K.
    missing : {"error", "em"}, default="error"
        What NaN is, see `CCA`.

    Attributes
    ----------
    rotation_ : array of shape (p, q)
        Q, with orthonormal columns for p >= q and rows for p <= q; of lower rank, with a warning,
        where the rows determine fewer directions (fewer rows than columns).
    scale_ : float
        c.
    coef_ : array of shape (q, p), or (p,) if y was 1-D
    intercept_ : array of shape (q,), or float if y was 1-D
        ``predict(X) = X @ coef_.T + intercept_``.
    alpha_ : float
    cv_scores_, cv_alphas_
        Held-out R2 of shape (n_alphas, n_folds), and what was tried, where `alpha` is "cv".
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    n_samples_, n_features_in_, feature_names_in_, y_feature_names_in_
        As in `CCA`.
    moments_ : Moments, or list of Moments
        As in `CCA`, without the products among the columns of y, which the map does not need
        (``diagonal="y"`` of `Moments.from_data`): its regions count targets as uncorrelated.

    See Also
    --------
    MultitaskRegressor : Ridge regression toward 0.
    metrics.procrustes_distance : How far two spaces are from being rotations of each other.

    Notes
    -----
    For p <= q the map is the least-squares solution among matrices with orthonormal rows. For
    p > q the norm of XQ depends on Q, and the least-squares problem is the unbalanced one, which
    has no closed form (Elden and Park 1999): Q then maximises the trace of Q'S_xy, and c is the
    best scale for it.

    vegan's and MATLAB's ``procrustes(X, Y)`` have the target first: theirs is ``fit(Y, X)``, with
    `rotation_` and `scale_`. They allow reflections, as this does.

    References
    ----------
    Schoenemann, P. H. (1966). A generalized solution of the orthogonal Procrustes problem.
    Psychometrika 31.
    Schoenemann, P. H. and Carroll, R. M. (1970). Fitting one matrix to another under choice of a
    central dilation and a rigid motion. Psychometrika 35.
    Elden, L. and Park, H. (1999). A Procrustes problem on the Stiefel manifold. Numerische
    Mathematik 82.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import OrthogonalMap
    >>> rng = np.random.default_rng(0)
    >>> old = rng.normal(size=(200, 4))
    >>> Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    >>> new = 3 * old @ Q + 1 + 0.01 * rng.normal(size=(200, 4))
    >>> move = OrthogonalMap().fit(old[:20], new[:20])
    >>> round(move.scale_, 2), move.retention(old[20:], new[20:], k=5) > 0.9
    (3.0, True)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "scale": ["boolean"],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
        "cv": ["cv_object"],
        "missing": [StrOptions({"error", "em"})],
    }
    coef_: Any
    intercept_: Any
    _mean_and_covariance = PredictsRegions._linear_mean_and_covariance
    tunable: ClassVar[Mapping[str, Any]] = {"alpha": (0.0, *ALPHAS)}
    _targets = "y"

    def __init__(
        self,
        *,
        scale: bool = True,
        alpha: float | Literal["cv"] = 0.0,
        cv: Any = 5,
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.scale = scale
        self.alpha = alpha
        self.cv = cv
        self.missing = missing

    def _solve(
        self, m: Moments, alpha: float | None = None, start: Procrustes | None = None
    ) -> Rotation:
        alpha = float(self.alpha) if alpha is None else alpha
        found = Procrustes.of(m, scale=self.scale) if start is None else start
        B = found.scale * found.rotation
        if alpha > 0:  # (S_xx + alpha I)^-1 (S_xy + alpha c Q) = c Q + that of the residuals
            s = found.spectrum
            left = s.cross - s.values[:, None] * (s.vectors.mT @ B)
            B = B + s.vectors @ (s.inverse(alpha) * left)
        x, y = m.mean("x"), m.mean("y")
        return Rotation(x, y, found.rotation, found.scale, alpha, B.mT, y - x @ B, found.notes(m))

    def _prepared(self, moments: Moments, chosen: dict[str, Any]) -> Moments:
        return moments

    def _grid_scores(
        self, folds: Sequence[Moments], candidates: Sequence[Mapping[str, Any]]
    ) -> GridScores:
        alphas = [each["alpha"] for each in candidates]
        ridges = [alpha for alpha in alphas if alpha > 0]

        def along(k: int, train: Moments) -> list[float]:
            """R2 of every alpha: the ridge path of what the rotation leaves."""
            start, test = Procrustes.of(train, scale=self.scale), self._held_out(folds[k])
            s, B = start.spectrum, start.scale * start.rotation
            C = s.vectors.mT @ B
            held = HeldOut.of(test, (train.mean("x"), train.mean("y")), s.vectors).less(C)
            beyond = replace(s, cross=s.cross - s.values[:, None] * C)
            xp = namespace(C)
            errors = held.path_errors(beyond, ridges)
            if len(ridges) < len(alphas):
                errors = xp.concat([held.errors(0 * C)[None, :], errors])
            return [float(v) for v in to_numpy(xp.mean(r2(errors, test), axis=1))]

        return scored_by_fold(along, len(candidates), folds)

    def _score(self, moments: Moments, model: Rotation) -> float:
        each = model.r2(moments)
        return float(namespace(each).mean(each))

    def _publish(self, solution: Rotation) -> None:
        """The coefficients as scikit-learn has them: of one target without its axis."""
        super()._publish(solution)
        if self._y_ndim == 1:
            self.coef_, self.intercept_ = self.coef_[0, :], float(self.intercept_[0])

    @row_wise
    def predict(self, X: Any) -> Array:
        """Map rows of x into the space of y.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_targets), or (n_samples,) if y was 1-D in fit
        """
        check_is_fitted(self)
        y = self._coordinates(self._check_x(X), "x")
        return y[:, 0] if self._y_ndim == 1 else y

    @row_wise
    def inverse_transform(self, y: Any) -> Array:
        """Map rows of y back into the space of x.

        Parameters
        ----------
        y : array-like or sparse matrix of shape (n_samples, n_targets)

        Returns
        -------
        array of shape (n_samples, n_features)
            ``x_mean_ + B^+'(y - y_mean_)``: the inverse of `predict` for p <= q, otherwise the
            row of least distance to `x_mean_` that is mapped to y.
        """
        check_is_fitted(self)
        found: Rotation = self._solution
        xp = namespace(found.coef_)
        x = project(self._check_y(y), found.y_mean_, xp.linalg.pinv(found.coef_).mT, "y")
        return x + xp.astype(found.x_mean_, x.dtype)

    def _coordinates(self, rows: Any, view: str) -> Array:
        found: Rotation = self._solution
        if view == "x":
            y = project(rows, found.x_mean_, found.coef_.mT)
            return y + namespace(y).astype(found.y_mean_, y.dtype)
        xp = namespace(found.y_mean_)
        eye = xp.eye(found.y_mean_.shape[0], dtype=xp.float64, device=device_of(found.y_mean_))
        return project(rows, 0 * found.y_mean_, eye, "y")

    @refused
    def retention(self, X: Any, y: Any, k: int = 10) -> float:
        """The share of true neighbours that survive the map.

        For each item the k nearest others by cosine among the rows of y, once of its own row of
        y and once of its mapped row of X: the mean share that both lists have in common.

        Parameters
        ----------
        X, y : array-likes of shapes (n_samples, n_features), (n_samples, n_targets)
            The same items in both spaces, not those of the fit.
        k : int, default=10
            Less than n_samples.

        Returns
        -------
        float
            In [0, 1]; by chance k / (n_samples - 1).

        Raises
        ------
        ValueError
            If `k` is not a whole number from 1 to n_samples - 1, or widths, lengths or values are
            not right.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import OrthogonalMap
        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> OrthogonalMap().fit(X, X[:, ::-1]).retention(X, X[:, ::-1])
        1.0
        """
        check_is_fitted(self)
        mapped, own = self._embedded(X, y)
        n = int(own.shape[0])
        check_lengths({"X": mapped, "y": own})
        k = check_count("k", k, 1, n - 1, "neighbours among the other rows")
        lists = [_others(to_numpy(search(a, own, k + 1)[0])) for a in (own, mapped)]
        shared = sum(len(np.intersect1d(*pair)) for pair in zip(*lists, strict=True))
        return float(shared / (n * k))

    def score_moments(self, moments: Moments) -> float:
        """The mean R2 of the targets on the moments of held-out rows."""
        return super().score_moments(moments)


_UNDETERMINED = (
    "the rows determine only {k} of the {most} directions of the rotation: what is orthogonal to "
    "these is mapped to 0; more rows determine more"
)


def _others(found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The neighbours of each row without itself; without the last if it is not among them."""
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    others: np.ndarray[Any, Any] = found[~own].reshape(len(found), -1)
    return others
