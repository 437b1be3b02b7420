"""The conditional Gaussian mixture: p(y | x) from a mixture of joint normals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import (
    Array,
    check_weights,
    device_of,
    namespace,
    to_numpy,
)
from cmstats.kernels import normal
from cmstats.kernels.threads import blas_for
from cmstats.models.base import all_or_nothing
from cmstats.models.mixture_density import Mixture, Rows, Scaling, joined, regressions
from cmstats.models.mixture_em import (
    NOISE_FLOOR,
    Maximizer,
    Run,
    expectation_maximization,
    start,
)
from cmstats.models.views import TwoViewEstimator
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import check_lengths
from cmstats.rows.progress import progress_bar

__all__ = ["ConditionalGaussianMixture"]


class ConditionalGaussianMixture(TwoViewEstimator):
    r"""Conditional density p(y | x) of a mixture of joint normals, fitted by EM.

    The rows (x, y) are a mixture of k normals (Ghahramani and Jordan 1994), so that y given x
    is a mixture of k linear regressions whose weights depend on x:

    .. math:: p(y \mid x) = \sum_k p(k \mid x)\, N(y;\; \mu_{k,y} + S_{k,yx} S_{k,xx}^{-1}
              (x - \mu_{k,x}),\; S_{k,yy} - S_{k,yx} S_{k,xx}^{-1} S_{k,xy})

    Where :class:`~cmstats.CCA` knows one linear relation, this model bends: several clusters,
    several answers to one x, noise that depends on x.

    Parameters
    ----------
    n_components : int, default=8
        Number of normals.
    covariance_type : {"full", "tied", "diagonal", "low_rank"}, default="full"
        A covariance matrix for each component; one for all; variances only (then y depends
        on x through the components alone); or loadings and noise variances,
        :math:`L_k L_k' + \mathrm{diag}(D_k)` (mixture of factor analysers, Ghahramani and
        Hinton 1996), whose density costs d times `rank` a row instead of d squared.
    rank : int, optional
        Columns of the loadings, for "low_rank"; by default 10, or one less than all columns
        of x and y together where these are fewer.
    reg_covar : float, default=1e-6
        Added to the diagonal of every covariance, as a part of the variance of each column
        over all rows: the fit does not depend on the units of the data.
    max_iter : int, default=100
        Most EM iterations of one run.
    tol : float, default=1e-3
        A run has converged when the mean log-likelihood of a row changes by less.
    n_init : int, default=1
        Runs from different starts, of which the one of highest likelihood is kept.
    verbose : int, default=0
        Show a progress bar when positive.
    random_state : int, RandomState or None, default=None
        For the k-means start.

    Attributes
    ----------
    weights_ : array of shape (n_components,)
        Probabilities of the components.
    means_ : array of shape (n_components, p + q)
        Means of the columns of x and y side by side.
    x_means_, y_means_ : arrays of shape (n_components, p), (n_components, q)
        The two parts of `means_`.
    covariances_ : array of shape (n_components, p + q, p + q)
        Of shape (p + q, p + q) for "tied", (n_components, p + q) for "diagonal".
    loadings_ : array of shape (n_components, p + q, rank_)
        For "low_rank" only, like `noise_variances_`, (n_components, p + q).
    rank_ : int or None
    converged_ : bool
    n_iter_ : int
        EM iterations of the run that was kept.
    lower_bound_ : float
        Mean log p(x, y) of a row before the last M-step.
    lower_bounds_ : list of float
        The same before each M-step.
    n_samples_ : float
        The sum of the weights.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    CCA : One linear relation, from moments.

    Notes
    -----
    EM starts at k-means++ centres after Lloyd's iteration on at most 20000 distinct rows,
    which are copied to the host where the data are elsewhere. An E-step and the sums of the
    M-step are one pass over the rows in blocks: memory does not grow with n. A component that
    empties is begun anew on half of the heaviest one, once in a run. Empty and singular
    components and columns that do not vary are told about in one warning.

    References
    ----------
    Dempster, A. P., Laird, N. M. and Rubin, D. B. (1977). Maximum likelihood from incomplete
    data via the EM algorithm. J. Royal Statistical Society B 39.
    Ghahramani, Z. and Jordan, M. I. (1994). Supervised learning from incomplete data via an
    EM approach. NIPS 6.
    Ghahramani, Z. and Hinton, G. E. (1996). The EM algorithm for mixtures of factor
    analyzers. Technical report CRG-TR-96-1, University of Toronto.

    Examples
    --------
    Two lines that cross, of which no single regression knows:

    >>> import numpy as np
    >>> from cmstats import ConditionalGaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-1, 1, 400)
    >>> y = np.where(rng.random(400) < 0.5, x, -x) + 0.05 * rng.normal(size=400)
    >>> model = ConditionalGaussianMixture(2, n_init=5, random_state=0).fit(x[:, None], y)
    >>> model.logpdf([[0.8]] * 3, [0.8, -0.8, 0.0]) > -1
    array([ True,  True, False])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"full", "tied", "diagonal", "low_rank"})],
        "rank": [Interval(Integral, 1, None, closed="left"), None],
        "reg_covar": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int = 8,
        *,
        covariance_type: Literal["full", "tied", "diagonal", "low_rank"] = "full",
        rank: int | None = None,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        tol: float = 1e-3,
        n_init: int = 1,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.rank = rank
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.verbose = verbose
        self.random_state = random_state

    # ------------------------------------------------------------------------- fitting
    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to paired rows by EM.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The first view: an array of any library, a frame, a memory-map, or anything with
            shape, dtype and slicing.
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,)
            The second view; row i is the partner of row i of `X`.
        sample_weight : array of shape (n_samples,), optional
            Frequency weights: weight 2 is the row twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are fewer rows than components, the rank is not below the number of all
            columns, values are not finite, lengths differ, or a parameter is out of range.
        """
        self._validate_params()
        X, y = self._check_views(X, y, reset=True)
        self._check_sizes(X.shape[0], X.shape[1] + self._y_width)
        moments = Moments.from_data(x=X, y=y, sample_weight=sample_weight)
        self._scaling = Scaling.of(moments)
        weights = check_weights(sample_weight, X.shape[0], moments.mean("x"))
        rows = Rows([X, y], self._scaling, weights)
        maximize = Maximizer(
            self.covariance_type, self.rank_ or 0, self.reg_covar, self._second_moment(moments)
        )
        with blas_for(sum(moments.widths)):
            run = self._best_run(rows, maximize)
        self.n_samples_ = moments.n
        self._set_attributes(run)
        self._center_outliers(rows)
        self._warn(run, moments)
        return self

    def _check_sizes(self, n: int, d: int) -> None:
        """Resolve the rank, or raise where k, n, d and the rank do not go together."""
        if n < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} is more than n_samples={n}: every component "
                "needs rows of its own, set n_components lower"
            )
        if n < 2:
            raise ValueError(f"n_samples={n}: one sample has no variance, at least 2 are needed")
        self.rank_: int | None = None
        if self.covariance_type == "low_rank":
            self.rank_ = min(10, d - 1) if self.rank is None else self.rank
            if self.rank_ >= d:
                raise ValueError(
                    f"rank={self.rank_} must be below the {d} columns of x and y together: set "
                    "a lower rank, or covariance_type='full'"
                )
        elif self.rank is not None:
            raise ValueError(
                f"rank={self.rank} is for covariance_type='low_rank', got "
                f"covariance_type={self.covariance_type!r}: set rank=None"
            )

    def _second_moment(self, moments: Moments) -> Array:
        """The mean of zz' over the standardised rows z."""
        xp, scaling = namespace(self._scaling.scale), self._scaling
        offset = xp.concat([moments.mean("x"), moments.mean("y")]) - scaling.centre
        views = ("x", "y")
        scatter = xp.concat(
            [xp.concat([moments.cov(a, b, ddof=0) for b in views], axis=1) for a in views], axis=0
        )
        total = scatter + offset[:, None] * offset[None, :]
        return total / (scaling.scale[:, None] * scaling.scale[None, :])

    def _best_run(self, rows: Rows, maximize: Maximizer) -> Run:
        rng = check_random_state(self.random_state)
        runs = []
        for number in range(self.n_init):
            name = f"EM, run {number + 1}"
            with progress_bar(bool(self.verbose), name, "iteration", total=self.max_iter) as bar:
                runs.append(
                    expectation_maximization(
                        rows,
                        self._start(rows, maximize, rng),
                        maximize,
                        max_iter=self.max_iter,
                        tol=self.tol,
                        bar=bar,
                    )
                )
        return max(runs, key=lambda run: run.bounds[-1])

    def _start(self, rows: Rows, maximize: Maximizer, rng: np.random.RandomState) -> Mixture:
        return start(rows, self.n_components, maximize, rng)

    def _set_attributes(self, run: Run) -> None:
        """Fitted attributes, in the units of the data."""
        m, centre, scale = run.mixture, self._scaling.centre, self._scaling.scale
        xp, p = namespace(scale), self.n_features_in_
        self._mixture = m
        self._joint, self._marginal = m.normals(), m.columns(slice(None, p)).normals()
        self._y_marginal = m.columns(slice(p, None)).normals()
        self._regressions = regressions(m, p)
        units = float(xp.sum(xp.log(scale)))
        self._y_units = float(xp.sum(xp.log(scale[p:])))
        self.lower_bounds_ = [bound - units for bound in run.bounds]
        self.lower_bound_ = self.lower_bounds_[-1]
        self.n_iter_, self.converged_ = len(run.bounds), run.converged
        self.weights_, self.means_ = m.weights, centre + scale * m.means
        self.x_means_, self.y_means_ = self.means_[:, :p], self.means_[:, p:]
        for name in ("loadings_", "noise_variances_"):
            self.__dict__.pop(name, None)
        S = m.covariances
        if m.kind == "low_rank":
            self.loadings_, self.noise_variances_ = S[0] * scale[:, None], S[1] * scale**2
            S = xp.stack([m.matrix(j) for j in range(self.n_components)])
        self.covariances_ = S * (scale**2 if m.kind == "diag" else scale[:, None] * scale)

    def _center_outliers(self, rows: Rows) -> None:
        """Mean and standard deviation of log p(y) - log p(y | x) over the rows of the fit."""
        xp = rows.xp
        total = np.zeros(3)
        for run in rows.runs(sum(self._mixture.means.shape)):
            surprise = xp.astype(self._ratio(rows(run)), xp.float64)
            w = xp.ones_like(surprise) if rows.weights is None else rows.weights[run]
            total += [float(xp.sum(w * surprise**i)) for i in range(3)]
        mean = float(total[1] / total[0])
        std = max(float(total[2] / total[0]) - mean**2, 0.0) ** 0.5
        self._surprise = mean, std or 1.0

    def _warn(self, run: Run, moments: Moments) -> None:
        """One sentence each about convergence and about what of the data was degenerate."""
        if not run.converged:
            warnings.warn(
                f"EM did not converge in max_iter={self.max_iter} iterations: raise max_iter or "
                f"tol={self.tol:g}",
                ConvergenceWarning,
                stacklevel=4,
            )
        found = []
        xp = namespace(moments.mean("x"))
        constant = xp.concat([moments.constant(v) for v in ("x", "y")])
        count = int(xp.count_nonzero(constant))
        if count:
            found.append(f"{count} of the columns of x and y do not vary")
        if run.reseeded:
            found.append(
                f"{_components(run.reseeded)} emptied and began anew on half of the heaviest one"
            )
        singular = run.singular | (set() if count else self._singular())
        if singular:
            found.append(
                f"the covariance of {_components(singular)} is singular but for reg_covar="
                f"{self.reg_covar:g}: rows depend on each other linearly, repeat, or are too few; "
                "raise reg_covar or lower n_components"
            )
        if found:
            warnings.warn("; ".join(found), UserWarning, stacklevel=4)

    def _singular(self) -> set[int]:
        """The components with a direction in which the rows do not vary."""
        m, xp = self._mixture, namespace(self._mixture.means)
        least = 2 * max(self.reg_covar, NOISE_FLOOR)
        if m.kind == "low_rank":
            smallest = xp.max(m.covariances[1], axis=1)
        elif m.kind == "diag":
            smallest = xp.min(m.covariances, axis=1)
        else:
            smallest = xp.linalg.eigvalsh(m.covariances)[..., 0]
            smallest = xp.broadcast_to(smallest, m.weights.shape)
        return set(np.flatnonzero(to_numpy(smallest <= least)).tolist())

    # --------------------------------------------------------------- densities of rows
    def _x_rows(self, X: Any) -> Rows:
        check_is_fitted(self)
        X = self._check_x(X)
        return Rows([X], self._scaling.columns(slice(None, self.n_features_in_)))

    def _pair_rows(self, X: Any, y: Any) -> Rows:
        check_is_fitted(self)
        if y is None:
            raise ValueError("y is None: give the second view, one row for each row of X")
        X, y = self._check_x(X), self._check_y(y)
        check_lengths({"X": X, "y": y})
        return Rows([X, y], self._scaling)

    def _joint_density(self, rows: Array) -> Array:
        return normal.evaluate(rows, self._joint, self._mixture.log_weights, False)[0]

    def _conditional_density(self, rows: Array) -> Array:
        """log p(y | x) of standardised rows (x, y)."""
        x = rows[:, : self.n_features_in_]
        marginal, _ = normal.evaluate(x, self._marginal, self._mixture.log_weights, False)
        return self._joint_density(rows) - marginal

    def _ratio(self, rows: Array) -> Array:
        """log p(y) - log p(y | x) of standardised rows (x, y)."""
        y = rows[:, self.n_features_in_ :]
        own, _ = normal.evaluate(y, self._y_marginal, self._mixture.log_weights, False)
        return own - self._conditional_density(rows)

    def logpdf(self, X: Any, y: Any) -> Array:
        """log p(y | x) of each pair, in nats.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,)

        Returns
        -------
        array of shape (n_samples,)
            ``log p(x, y) - log p(x)``, both in log space throughout.

        Raises
        ------
        ValueError
            If widths, lengths or values are not right.
        """
        rows = self._pair_rows(X, y)
        runs = rows.runs(sum(self._mixture.means.shape))
        return joined([self._conditional_density(rows(r)) - self._y_units for r in runs])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean of log p(y | x) over pairs.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        float
            In nats per row; higher is better.
        """
        density = self.logpdf(X, y)
        xp = namespace(density)
        density = xp.astype(density, xp.float64)
        w = check_weights(sample_weight, density.shape[0], density)
        if w is None:
            return float(xp.mean(density))
        return float(xp.sum(w * density) / xp.sum(w))

    def outlier_scores(self, X: Any, y: Any) -> Array:
        """How badly each y fits its x: -log p(y | x) against -log p(y), standardised.

        What is rare by itself has a low density whatever its partner; the ratio leaves that out.

        Parameters
        ----------
        X, y
            As in `logpdf`.

        Returns
        -------
        array of shape (n_samples,)
            In standard deviations above the mean of ``log p(y) - log p(y | x)`` over the rows
            of `fit`. A wrong caption scores high. (No closed form gives that mean and
            deviation for a mixture, so they are those of the data.)
        """
        rows = self._pair_rows(X, y)
        mean, std = self._surprise
        runs = rows.runs(sum(self._mixture.means.shape))
        return joined([(self._ratio(rows(r)) - mean) / std for r in runs])

    def responsibilities(self, X: Any, y: Any = None) -> Array:
        """Probabilities of the components given x, or given x and y.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like or sparse matrix of shape (n_samples, n_targets), optional

        Returns
        -------
        array of shape (n_samples, n_components)
            Rows of sum 1.
        """
        rows, normals = (
            (self._x_rows(X), "_marginal") if y is None else (self._pair_rows(X, y), "_joint")
        )
        w = self._mixture.log_weights
        runs = rows.runs(sum(self._mixture.means.shape))
        return joined([normal.evaluate(rows(r), getattr(self, normals), w, True)[1] for r in runs])

    def bic(self, X: Any, y: Any) -> float:
        """Bayesian information criterion of the joint density of (x, y); lower is better.

        Parameters
        ----------
        X, y
            As in `logpdf`.

        Returns
        -------
        float
            ``-2 sum log p(x, y) + m log n`` with m free parameters (Schwarz 1978).
        """
        log_likelihood, n = self._log_likelihood(X, y)
        return -2.0 * log_likelihood + self._mixture.parameters * float(np.log(n))

    def aic(self, X: Any, y: Any) -> float:
        """Akaike information criterion of the joint density of (x, y); lower is better.

        Parameters
        ----------
        X, y
            As in `logpdf`.

        Returns
        -------
        float
            ``-2 sum log p(x, y) + 2 m`` with m free parameters (Akaike 1974).
        """
        return -2.0 * self._log_likelihood(X, y)[0] + 2.0 * self._mixture.parameters

    def _log_likelihood(self, X: Any, y: Any) -> tuple[float, int]:
        rows = self._pair_rows(X, y)
        xp = rows.xp
        parts = [
            float(xp.sum(xp.astype(self._joint_density(rows(r)), xp.float64)))
            for r in rows.runs(sum(self._mixture.means.shape))
        ]
        return sum(parts) - rows.n * float(xp.sum(xp.log(self._scaling.scale))), rows.n

    # -------------------------------------------------------------------- y given x
    def _components_given(self, X: Any, width: int) -> Iterator[tuple[Array, Array]]:
        """p(k | x) and the means of y under each component, a run of rows at a time."""
        rows = self._x_rows(X)
        k, q = self._mixture.weights.shape[0], self._y_width
        for run in rows.runs(rows._centre.shape[0] + k * q + width):
            x = rows(run)
            r = normal.evaluate(x, self._marginal, self._mixture.log_weights, True)[1]
            means = namespace(x).stack([each.mean(x) for each in self._regressions], axis=1)
            yield r, means

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        r"""The conditional mean of y given x.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        return_std : bool, default=False
            Also the conditional standard deviation of each target.
        return_cov : bool, default=False
            Also the conditional covariance.

        Returns
        -------
        mean : array of shape (n_samples, n_targets), or (n_samples,) if y was 1-D in fit
            :math:`\sum_k p(k \mid x)\, m_k(x)`, the regressions of the components mixed.
        std : array of the shape of `mean`, if `return_std`
        cov : array of shape (n_samples, n_targets, n_targets), if `return_cov`
            :math:`\sum_k p(k \mid x) (V_k + (m_k - m)(m_k - m)')`, the covariance within and
            between the components.
        """
        q = self._y_width if hasattr(self, "_y_width") else 0
        means, stds, covs = [], [], []
        for r, m in self._components_given(X, q * q if return_cov else 0):
            xp = namespace(r)
            mean = xp.sum(r[:, :, None] * m, axis=1)
            means.append(mean)
            between = xp.sqrt(r)[:, :, None] * (m - mean[:, None, :])
            V = xp.stack([xp.astype(each.covariance, r.dtype) for each in self._regressions])
            if return_std:
                within = r @ xp.linalg.diagonal(V)
                stds.append(xp.sqrt(within + xp.sum(between**2, axis=1)))
            if return_cov:
                within = xp.reshape(r @ xp.reshape(V, (-1, q * q)), (-1, q, q))
                covs.append(within + between.mT @ between)
        mean = joined(means)
        scale, centre = self._y_scaling(mean)
        out = [mean * scale + centre]
        if return_std:
            out.append(joined(stds) * scale)
        out = [a[:, 0] for a in out] if self._y_ndim == 1 else out
        if return_cov:
            out.append(joined(covs) * (scale[:, None] * scale))
        return out[0] if len(out) == 1 else tuple(out)

    def _y_scaling(self, like: Array) -> tuple[Array, Array]:
        xp, y = namespace(like), self._scaling.columns(slice(self.n_features_in_, None))
        return xp.astype(y.scale, like.dtype), xp.astype(y.centre, like.dtype)

    def sample(self, X: Any, n_samples: int = 1, random_state: Any = None) -> Array:
        """Draw y from p(y | x) for each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples_x, n_features)
        n_samples : int, default=1
            Draws for each row.
        random_state : int, RandomState or None

        Returns
        -------
        array of shape (n_samples_x, n_targets), or (n_samples_x, n_samples, n_targets)
            The second where `n_samples` is above 1. Without the last axis if y was 1-D in
            fit.
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be an int of at least 1")
        check_is_fitted(self)
        rng, s, parts = check_random_state(random_state), int(n_samples), []
        for r, means in self._components_given(X, s * self._y_width):
            parts.append(self._draw(r, means, s, rng))
        drawn = joined(parts)
        scale, centre = self._y_scaling(drawn)
        drawn = drawn * scale + centre
        drawn = drawn[:, 0, ...] if s == 1 else drawn
        return drawn[..., 0] if self._y_ndim == 1 else drawn

    def _draw(self, r: Array, means: Array, s: int, rng: np.random.RandomState) -> Array:
        """`s` draws for each row, standardised; numbers come from the host's generator."""
        xp = namespace(r)
        b, k, q = means.shape
        put: Any = {"device": device_of(r)}
        u = xp.asarray(rng.random_sample((b, s, 1)), **put)
        steps = xp.cumulative_sum(xp.astype(r, xp.float64), axis=1)[:, None, :-1]
        chosen = xp.reshape(xp.sum(xp.astype(u > steps, xp.int64), axis=-1), (b * s,))
        noise = xp.astype(xp.asarray(rng.standard_normal((b * s, q)), **put), r.dtype)
        # Draws of one component are brought together, so that each root is applied once.
        order = xp.argsort(chosen, stable=True)
        noise, parts, begin = xp.take(noise, order, axis=0), [], 0
        for j in range(k):
            end = begin + int(xp.count_nonzero(chosen == j))
            root = xp.astype(self._regressions[j].root, r.dtype)
            parts.append(noise[begin:end, :] @ root.mT)
            begin = end
        noise = xp.take(xp.concat(parts, axis=0), xp.argsort(order), axis=0)
        rows = xp.asarray(np.repeat(np.arange(b), s), **put)
        at = xp.take(xp.reshape(means, (b * k, q)), rows * k + chosen, axis=0)
        return xp.reshape(at + noise, (b, s, q))


def _components(numbers: set[int]) -> str:
    names = ", ".join(str(j) for j in sorted(numbers))
    return f"component {names}" if len(numbers) == 1 else f"components {names}"
