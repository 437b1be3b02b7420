"""Regions for y given x of any model that predicts, calibrated on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, namespace
from cmstats.inference.conformal import (
    check_calibration,
    check_confidence,
    held_out_folds,
    one_per_group,
)
from cmstats.inference.regions import HeldOutResiduals, Region, region_of
from cmstats.inference.scores import one_each, rows_at, takes_gaps, with_rows
from cmstats.models.dask import refused
from cmstats.moments.joint_normal import pick
from cmstats.moments.moments import Moments
from cmstats.rows.matrix import check_matrix
from cmstats.rows.views import several

__all__ = ["PredictsRegions", "residual_covariance"]

HostArray = np.ndarray[Any, Any]


class PredictsRegions(BaseEstimator):
    """Conformal regions of a model with `predict`.

    A model says by which covariance residuals are measured (`_mean_and_covariance`): the regions
    hold whatever it is, and are the smaller the better it is.
    """

    _takes_gaps_in_y: ClassVar[bool] = False
    """Whether `fit` takes NaN in y as a target that was not observed."""

    def _mean_and_covariance(self, X: Any) -> tuple[Array, Array]:
        """E[y | x], (n, q), and Cov[y | x], (q, q) or (n, q, q)."""
        mean, covariance = self.predict(X, return_cov=True)
        return _matrix(mean), covariance

    def _linear_mean_and_covariance(self, X: Any) -> tuple[Array, Array]:
        """The same of a model with `coef_`, from the moments of its training rows."""
        B = self._solution.coef_.mT
        parts = {tuple(range(int(B.shape[1]))): self._total()}
        return _matrix(self.predict(X)), residual_covariance(B, parts)

    @refused
    def calibrate(
        self, X: Any, y: Any, *, cv: Any = None, groups: Any = None, random_state: Any = None
    ) -> Self:
        """Keep the residuals of held-out rows, for `predict_region`.

        Parameters
        ----------
        X, y
            As in `fit`. Without `cv` rows that `fit` has not seen; with it the rows of `fit`.
            NaN in y, where `fit` takes it, is a target that was not observed.
        cv : int, splitter or iterable of splits, optional
            The folds of a cross-conformal calibration, where rows are few: clones of this model
            are fitted to the other folds of these rows, and the residuals of each fold are those
            of the clone that has not seen it. An int deals rows (or groups) to folds at random.
        groups : array of shape (n_samples,), optional
            Rows of one group are dependent (captions of one image): one row of each, drawn at
            random, is kept, so that groups need to be exchangeable, not rows.
        random_state : int, RandomState or None
            For the folds and the rows drawn.

        Returns
        -------
        self
            With `calibration_`, which a new fit drops.

        Raises
        ------
        ValueError
            If rows, widths or lengths are not right.
        """
        check_is_fitted(self)
        gaps = self._takes_gaps_in_y or takes_gaps(self)
        y = with_rows(y, "y", gaps=gaps)
        n = int(y.shape[0])
        groups = one_each(groups, n, "groups")
        kept = one_per_group(np.empty(n), groups, "random", random_state)
        if cv is None:
            found = self._residuals(X, y)
            self.calibration_ = [found if groups is None else found.rows(kept)]
            return self
        held = []
        for train, test in held_out_folds(n, cv, groups, random_state):
            test = test[np.isin(test, kept)]
            model = clone(self).fit(_rows_of(X, train), *rows_at(train, y))
            found = model._residuals(_rows_of(X, test), *rows_at(test, y))
            held.append(replace(found, model=model))
        self.calibration_ = held
        return self

    def _residuals(self, X: Any, y: Any) -> HeldOutResiduals:
        mean, covariance = self._mean_and_covariance(X)
        y = _matrix(check_matrix(y, "y", ensure_finite="allow-nan"))
        xp = namespace(mean, y)
        if y.shape[0] != mean.shape[0]:
            raise ValueError(
                f"X has {mean.shape[0]} rows and y has {y.shape[0]}: row i of both is one item"
            )
        if y.shape[1] != mean.shape[1]:
            raise ValueError(
                f"y has {y.shape[1]} features, but {type(self).__name__} is expecting "
                f"{mean.shape[1]} features in y"
            )
        residuals = xp.astype(y, xp.float64) - xp.astype(mean, xp.float64)
        return HeldOutResiduals(None, residuals, xp.astype(covariance, xp.float64))

    @refused
    def predict_region(
        self,
        X: Any,
        confidence: float = 0.9,
        *,
        kind: Literal["ellipsoid", "intervals"] = "ellipsoid",
        simultaneous: bool = False,
        observed: Any = None,
    ) -> Region:
        r"""Sets that contain y with a given probability, whatever the law of the data is.

        With held-out residuals :math:`r_i` and the covariance C of y given x, the ellipsoid

        .. math:: \{y : (y - \hat y)' C^{-1} (y - \hat y) \le q^2\}, \qquad
                  q = \text{the } \lceil (n + 1)\, c \rceil \text{-th smallest }
                  \sqrt{r_i' C_i^{-1} r_i}

        contains y with a probability of at least c = `confidence`, on average over held-out rows
        and new ones, where these are exchangeable (Papadopoulos et al. 2002; Johnstone and Cox
        2021): y need not be normal, and the model need not be right. The intervals
        :math:`|y_j - \hat y_j| \le q_j \sqrt{C_{jj}}` do so for each target by itself, or, with
        `simultaneous`, for all of a row together. It is no promise for every x.

        After ``calibrate(X, y, cv=K)`` the set is a vote: y is in it if it lies near enough to
        the predictions of K models, by the held-out residuals of each. It is no ellipsoid, and
        promises about ``1 - 2 (1 - confidence)`` (Barber et al. 2021), in most data about
        `confidence`.

        Parameters
        ----------
        X
            As in `predict`.
        confidence : float in (0, 1), default=0.9
        kind : {"ellipsoid", "intervals"}, default="ellipsoid"
        simultaneous : bool, default=False
            Of intervals: whether all targets of a row are to be in theirs together. (An ellipsoid
            is of all targets.)
        observed : array of shape (n_samples, n_targets), optional
            What is known of y, NaN elsewhere: the sets of the other targets, given x and these.
            They are smaller, and calibrated for each set of observed targets by itself.

        Returns
        -------
        Region
            With `lower`, `upper`, `log_volume` and `contains(y)`.

        Raises
        ------
        ValueError
            If the model was not calibrated, `confidence` is not between 0 and 1, or there are
            too few held-out rows for it: ``confidence / (1 - confidence)`` are needed.

        References
        ----------
        Papadopoulos, H., Proedrou, K., Vovk, V. and Gammerman, A. (2002). Inductive confidence
        machines for regression. ECML.
        Johnstone, C. and Cox, B. (2021). Conformal uncertainty sets for robust optimization.
        COPA.
        Barber, R. F., Candes, E. J., Ramdas, A. and Tibshirani, R. J. (2021). Predictive
        inference with the jackknife+. Annals of Statistics 49.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import ConditionalGaussian
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(3000, 3))
        >>> y = X[:, :2] + rng.standard_t(3, size=(3000, 2))
        >>> model = ConditionalGaussian(shrinkage=0.0).fit(X[:1000], y[:1000])
        >>> model = model.calibrate(X[1000:2000], y[1000:2000])
        >>> region = model.predict_region(X[2000:], confidence=0.9)
        >>> round(float(region.contains(y[2000:]).mean()), 2)
        0.9
        """
        check_is_fitted(self)
        confidence = check_confidence(confidence)
        if kind not in ("ellipsoid", "intervals"):
            raise ValueError(f"kind={kind!r} is unknown: use 'ellipsoid' or 'intervals'")
        held = getattr(self, "calibration_", None)
        if held is None:
            raise ValueError(
                "a region is calibrated on rows that fit has not seen: call calibrate(X, y) with "
                "such rows first, or calibrate(X, y, cv=5) with those of fit"
            )
        check_calibration(
            sum(int(each.residuals.shape[0]) for each in held), confidence, "held-out rows"
        )
        if observed is not None:
            observed = _matrix(check_matrix(observed, "observed", ensure_finite="allow-nan"))
        given = [(each.model or self)._mean_and_covariance(X) for each in held]
        given = [(mean, namespace(C).astype(C, namespace(C).float64)) for mean, C in given]
        found = region_of(held, given, confidence, kind, simultaneous, observed)
        return found if getattr(self, "_y_ndim", 2) > 1 else found.of_one_target()


def residual_covariance(weights: Array, parts: Mapping[tuple[int, ...], Moments]) -> Array:
    """The covariance of ``y - x weights`` in training rows, made positive definite.

    ``(n S + q diag S) / (n + q)`` of the covariance S of the residuals of n rows and q targets:
    the posterior mean under an inverse Wishart prior that counts as q rows without correlation.
    The sizes of training residuals are too small where features are many; calibration corrects
    them.

    Parameters
    ----------
    weights : array of shape (p, q)
    parts : mapping
        By the numbers of targets that were observed in the same rows, the moments "x" and "y" of
        these rows. Targets of different groups count as uncorrelated, and so do those whose
        products were not collected.
    """
    xp, q = namespace(weights), int(weights.shape[1])
    eye = xp.eye(q, dtype=xp.float64, device=device_of(weights))
    C = 0 * eye
    for targets, m in parts.items():
        at = np.array(targets)
        B, into = pick(weights, at, 1), pick(eye, at, 0)
        each = into @ into.mT
        if m.diagonal is None:
            across = m.projected_scatter("y", "x", B)
            S = m.scatter("y") - across - across.mT + B.mT @ m.projected_scatter("x", "x", B)
            squares, off = xp.linalg.diagonal(S), 0.5 * (S + S.mT) / (m.n + len(at))
        else:
            squares, off = m.least_squares("x", "y").errors(B), 0 * each
        # A target that is fitted exactly is measured by what rounding leaves of it.
        least = 1e-12 * m.variance("y") + float(np.finfo(float).tiny)
        variances = squares / m.n
        diagonal = xp.where(variances > least, variances, least)[:, None] * each
        off = off - off * each
        C = C + into.mT @ (off + diagonal) @ into
    return C


def _rows_of(X: Any, at: HostArray) -> Any:
    """Rows of a matrix, or of each of several views."""
    if not several(X):
        return rows_at(at, X if hasattr(X, "shape") else np.asarray(X))[0]
    if isinstance(X, Mapping):
        return {name: _rows_of(view, at) for name, view in X.items()}
    return [_rows_of(view, at) for view in X]


def _matrix(y: Any) -> Any:
    return y[:, None] if y.ndim == 1 else y
