"""The conditional Gaussian mixture: p(y | x) from a mixture of joint normals."""

from __future__ import annotations

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
    float64,
    in_range,
    moderate_weights,
    namespace,
    to_numpy,
    warn,
)
from cmstats.kernels.threads import blas_for
from cmstats.models.base import RowsModel
from cmstats.models.dask import refused, row_wise
from cmstats.models.mixture_density import ConditionalMixture, Mixture, Rows, Scaling, joined
from cmstats.models.mixture_em import (
    NOISE_FLOOR,
    Maximizer,
    Run,
    best_start,
    expectation_maximization,
    start,
)
from cmstats.models.regions import PredictsRegions
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import check_lengths
from cmstats.rows.progress import progress_bar
from cmstats.rows.source import present_rows
from cmstats.rows.splits import count_rows

__all__ = ["ConditionalGaussianMixture"]


class ConditionalGaussianMixture(PredictsRegions, RowsModel):
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
    n_init : int or "auto", default="auto"
        Runs from different starts, of which the one of highest likelihood is kept. "auto" makes
        one run, from the best of four starts after a few iterations on at most 2000 rows (short
        runs, Biernacki, Celeux and Govaert 2003): EM from a single start often ends at a lower
        maximum (of two crossing lines, in 11 of 40 seeds).
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
    Biernacki, C., Celeux, G. and Govaert, G. (2003). Choosing starting values for the EM algorithm
    for getting the highest likelihood in multivariate Gaussian mixture models. Computational
    Statistics and Data Analysis 41.
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
        "n_init": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }
    _private = RowsModel._private | {"_surprise"}
    _solution: ConditionalMixture

    def __init__(
        self,
        n_components: int = 8,
        *,
        covariance_type: Literal["full", "tied", "diagonal", "low_rank"] = "full",
        rank: int | None = None,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        tol: float = 1e-3,
        n_init: int | Literal["auto"] = "auto",
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
        new = self._unfitted()
        notes = new._fit(new._labelled_blocks(X, y, sample_weight), sample_weight)
        self._become(new)
        for note, category in notes:
            warn(note, category)
        return self

    def _fit(self, blocks: dict[str, Any], sample_weight: Any) -> list[tuple[str, type[Warning]]]:
        """Fit to checked rows; return what there is to warn of."""
        X, y = blocks.values()
        p, d = int(X.shape[1]), int(X.shape[1]) + self._y_width
        self.rank_ = self._rank(count_rows(X.shape[0], sample_weight), d)
        with self._naming():
            moments = Moments.from_data(x=X, y=y, sample_weight=sample_weight)
        scaling = Scaling.of(moments)
        weights = check_weights(sample_weight, X.shape[0], moments.mean("x"))
        X, y = (present_rows(a, weights) for a in (X, y))
        rows = Rows([X, y], scaling, moderate_weights(weights)[0])
        maximize = Maximizer(
            self.covariance_type, self.rank_ or 0, self.reg_covar, scaling.second_moment(moments)
        )
        with blas_for(d):
            run = self._best_run(rows, maximize)
        self.n_samples_ = moments.n
        self._solution = ConditionalMixture.of(run.mixture, scaling, p)
        self._set_attributes(run)
        self._surprise = self._center_outliers(rows)
        return self._notes(run, moments)

    def _rank(self, n: int, d: int) -> int | None:
        """The columns of the loadings; raises where k, n, d and the rank do not go together."""
        if n < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} is more than n_samples={n}: every component "
                "needs rows of its own, set n_components lower"
            )
        if n < 2:
            raise ValueError(f"n_samples={n}: one sample has no variance, at least 2 are needed")
        if self.covariance_type != "low_rank":
            if self.rank is not None:
                raise ValueError(
                    f"rank={self.rank} is for covariance_type='low_rank', got "
                    f"covariance_type={self.covariance_type!r}: set rank=None"
                )
            return None
        rank = min(10, d - 1) if self.rank is None else self.rank
        if rank >= d:
            raise ValueError(
                f"rank={rank} must be below the {d} columns of x and y together: set "
                "a lower rank, or covariance_type='full'"
            )
        return rank

    def _best_run(self, rows: Rows, maximize: Maximizer) -> Run:
        """The run of highest likelihood from `n_init` starts."""
        rng = check_random_state(self.random_state)
        runs = []
        for number in range(1 if isinstance(self.n_init, str) else self.n_init):
            name = f"EM, run {number + 1}"
            with progress_bar(bool(self.verbose), name, "iteration", total=self.max_iter) as bar:
                first = self._start(rows, maximize, rng)
                how: dict[str, Any] = {"max_iter": self.max_iter, "tol": self.tol, "bar": bar}
                runs.append(expectation_maximization(rows, first, maximize, **how))
        return max(runs, key=lambda run: run.bounds[-1])

    def _start(self, rows: Rows, maximize: Maximizer, rng: np.random.RandomState) -> Mixture:
        if self.n_init == "auto" and self.n_components > 1:
            return best_start(rows, self.n_components, maximize, rng, self.max_iter, self.tol)
        return start(rows, self.n_components, maximize, rng)

    def _set_attributes(self, run: Run) -> None:
        """Publish the parameters in the units of the data."""
        found = self._solution
        m, centre, scale = found.mixture, found.scaling.centre, found.scaling.scale
        xp = namespace(scale)
        units = float(xp.sum(xp.log(scale)))
        self.lower_bounds_ = [bound - units for bound in run.bounds]
        self.lower_bound_ = self.lower_bounds_[-1]
        self.n_iter_, self.converged_ = len(run.bounds), run.converged
        self.weights_, self.means_ = m.weights, centre + scale * m.means
        self.x_means_, self.y_means_ = self.means_[:, : found.p], self.means_[:, found.p :]
        S = m.covariances
        if m.kind == "low_rank":
            self.loadings_, self.noise_variances_ = S[0] * scale[:, None], S[1] * scale**2
            S = xp.stack([m.matrix(j) for j in range(self.n_components)])
        self.covariances_ = S * (scale**2 if m.kind == "diag" else scale[:, None] * scale)

    def _center_outliers(self, rows: Rows) -> tuple[float, float]:
        """Mean and standard deviation of log p(y) - log p(y | x) over the rows of the fit."""
        xp = rows.xp
        total = np.zeros(3)
        for run in rows.runs(self._solution.width):
            surprise = xp.astype(self._solution.surprise(rows(run)), xp.float64)
            w = xp.ones_like(surprise) if rows.weights is None else rows.weights[run]
            total += [float(xp.sum(w * surprise**i)) for i in range(3)]
        mean = float(total[1] / total[0])
        std = max(float(total[2] / total[0]) - mean**2, 0.0) ** 0.5
        return mean, std or 1.0

    def _notes(self, run: Run, moments: Moments) -> list[tuple[str, type[Warning]]]:
        """A sentence about convergence, and one about what of the data was degenerate."""
        notes: list[tuple[str, type[Warning]]] = []
        if not run.converged:
            sentence = (
                f"EM did not converge in max_iter={self.max_iter} iterations: raise max_iter or "
                f"tol={self.tol:g}"
            )
            notes.append((sentence, ConvergenceWarning))
        found = []
        constant = sum(int(np.count_nonzero(to_numpy(moments.constant(v)))) for v in ("x", "y"))
        if constant:
            found.append(f"{constant} of the columns of x and y do not vary")
        if run.reseeded:
            found.append(
                f"{_components(run.reseeded)} emptied and began anew on half of the heaviest one"
            )
        least = 2 * max(self.reg_covar, NOISE_FLOOR)
        if singular := run.singular | (set() if constant else run.mixture.singular(least)):
            found.append(
                f"the covariance of {_components(singular)} is singular but for reg_covar="
                f"{self.reg_covar:g}: rows depend on each other linearly, repeat, or are too few; "
                "raise reg_covar or lower n_components"
            )
        return [*notes, ("; ".join(found), UserWarning)] if found else notes

    def _pairs(self, X: Any, y: Any) -> Rows:
        check_is_fitted(self)
        if y is None:
            raise ValueError("y is None: give the second view, one row for each row of X")
        X, y = (rows for rows, _ in self._given(X, y).values())
        check_lengths({"X": X, "y": y})
        return self._solution.rows(X, y)

    @row_wise
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
        rows, found = self._pairs(X, y), self._solution
        scale = found.y_scaling.scale
        units = float(namespace(scale).sum(namespace(scale).log(scale)))
        return rows.each(lambda z: found.log_conditional(z) - units, found.width)

    @refused
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
        if sample_weight is not None:
            X, y = (a if hasattr(a, "shape") else np.asarray(a) for a in (X, y))
            sample_weight = check_weights(sample_weight, X.shape[0], X)
            X, y = (present_rows(a, sample_weight) for a in (X, y))
        density = self.logpdf(X, y)
        xp = namespace(density)
        density = xp.astype(density, xp.float64)
        w = check_weights(sample_weight, density.shape[0], density)
        if w is None:
            return float(xp.mean(density))
        return float(xp.sum(w / xp.sum(w) * density))

    @row_wise
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
        rows, found = self._pairs(X, y), self._solution
        mean, std = self._surprise
        return rows.each(lambda z: (found.surprise(z) - mean) / std, found.width)

    @row_wise
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
        check_is_fitted(self)
        found = self._solution
        if y is None:
            rows, normals = found.x_rows(self._check_x(X)), found.x_marginal
        else:
            rows, normals = self._pairs(X, y), found.joint
        return rows.each(lambda z: found.evaluate(z, normals, shares=True), found.width)

    @refused
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
        return -2.0 * log_likelihood + self._solution.mixture.parameters * float(np.log(n))

    @refused
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
        return -2.0 * self._log_likelihood(X, y)[0] + 2.0 * self._solution.mixture.parameters

    def _log_likelihood(self, X: Any, y: Any) -> tuple[float, int]:
        rows, found = self._pairs(X, y), self._solution
        xp = rows.xp
        parts = [
            float(xp.sum(xp.astype(found.log_joint(rows(r)), xp.float64)))
            for r in rows.runs(found.width)
        ]
        return sum(parts) - rows.n * float(xp.sum(xp.log(found.scaling.scale))), rows.n

    @row_wise
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
        check_is_fitted(self)
        found, q = self._solution, self._y_width
        means, stds, covs = [], [], []
        for r, m in found.given(self._check_x(X), q * q if return_cov else 0):
            xp = namespace(r)
            mean = xp.sum(r[:, :, None] * m, axis=1)
            means.append(mean)
            between = xp.sqrt(r)[:, :, None] * (m - mean[:, None, :])
            V = xp.stack([xp.astype(each.covariance, r.dtype) for each in found.regressions])
            if return_std:
                within = r @ xp.linalg.diagonal(V)
                stds.append(xp.sqrt(within + xp.sum(between**2, axis=1)))
            if return_cov:
                within = xp.reshape(r @ xp.reshape(V, (-1, q * q)), (-1, q, q))
                covs.append(within + between.mT @ between)
        mean = joined(means)
        scale, centre = found.y_scaling.cast(mean.dtype)
        out = [mean * scale + centre]
        if return_std:
            out.append(joined(stds) * scale)
        out = [a[:, 0] for a in out] if self._y_ndim == 1 else out
        if return_cov:
            unit = float64(scale)
            out.append(joined(covs) * in_range(unit[:, None] * unit, mean.dtype))
        return out[0] if len(out) == 1 else tuple(out)

    @refused
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
        rng, s, found = check_random_state(random_state), int(n_samples), self._solution
        given = found.given(self._check_x(X), s * self._y_width)
        drawn = joined([found.draw(r, means, s, rng) for r, means in given])
        scale, centre = found.y_scaling.cast(drawn.dtype)
        drawn = drawn * scale + centre
        drawn = drawn[:, 0, ...] if s == 1 else drawn
        return drawn[..., 0] if self._y_ndim == 1 else drawn


def _components(numbers: set[int]) -> str:
    names = ", ".join(str(j) for j in sorted(numbers))
    return f"component {names}" if len(numbers) == 1 else f"components {names}"
