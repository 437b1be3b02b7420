"""Canonical correlation analysis from moments."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, namespace
from cmstats.kernels.linalg import inner, signs
from cmstats.models.base import TwoViewTransformer
from cmstats.moments.canonical import directions, expected_ratio, latent_mean, likelihood_vectors
from cmstats.moments.folds import best_index, grid_scores
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import (
    shrinkage_grid,
    shrinkage_numbers,
    shrinkage_tuple,
    standard_deviations,
)
from cmstats.rows.chunks import project

__all__ = ["CCA", "Kind"]

Kind = Literal["cosine", "weighted_cosine", "csa", "likelihood_ratio"]


class CCA(TwoViewTransformer):
    r"""Canonical correlation analysis with coherent shrinkage, from joint moments.

    Finds weights a, b that maximise the correlation of the paired variates Xa and Yb, each
    pair uncorrelated with those before (Hotelling 1936):

    .. math:: \max_{a, b}\; a' S_{xy} b \quad\text{s.t.}\quad a' S_{xx} a = b' S_{yy} b = 1

    solved as the singular value decomposition of the whitened cross-covariance. With
    shrinkage s the blocks are :math:`(1-s) S + s\,\mathrm{tr}(S)/p\, I` and the cross block
    is scaled by :math:`\sqrt{(1-s_x)(1-s_y)}`: the joint stays positive semi-definite and the
    directions are those of ridge CCA (Vinod 1976).

    Parameters
    ----------
    n_components : int, optional
        Number of pairs of variates; by default all there are, min(rank X, rank Y).
    shrinkage : float in [0, 1], "auto", "cv" or a pair (x, y) of these, default=0.0
        0 is textbook CCA; at 1 the directions are those of PLS-SVD. "auto" is Ledoit-Wolf
        for each view (OAS with `scale`); "cv" the best mean held-out score over `cv` folds
        among `SHRINKAGES` (a pair of "cv" searches the two together). With incomplete rows "cv"
        is the best held-out mean of log p(x, y) - log p(x) - log p(y), see Notes.
    scale : bool, default=False
        Standardise each feature (from the moments, so inside the folds).
    solver : {"auto", "moments", "svd"}, default="auto"
        "moments" works on the scatter matrix, one fast pass; "svd" on a root of it, which
        keeps the condition number of the data instead of its square. "auto" uses the root
        for wide data (more features than rows) and where the column-normalised data of a
        view have a condition number above 1e4.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K.
    missing : {"error", "em"}, default="error"
        What NaN is: an error, or an entry that was not observed. With "em" the moments are
        maximum likelihood estimates from all rows (`Moments.from_data`), with at most 512
        different sets of missing columns; in rows handed to the fitted model NaN stands for its
        conditional mean given the other entries of the view.
        Not with ``solver="svd"``.

    Attributes
    ----------
    correlations_ : array of shape (n_components_,)
        Training correlations of the paired variates.
    singular_values_ : array of shape (n_components_,)
        Singular values of the shrunken problem, at most 1; they order the components. Equal
        to `correlations_` without shrinkage.
    x_weights_, y_weights_ : arrays of shape (p, n_components_), (q, n_components_)
        Variates are ``(X - x_mean_) @ x_weights_``, of unit training variance (ddof=1). The
        largest absolute x-weight of each component is positive.
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    x_loadings_, y_loadings_ : arrays of shape (p, n_components_), (q, n_components_)
        Correlations of variables with their own variates.
    x_cross_loadings_, y_cross_loadings_ : arrays of the same shapes
        Correlations of variables with the other view's variates.
    n_components_ : int
    n_samples_ : float
        The sum of the weights.
    shrinkage_ : tuple of float
        The shrinkage used for x and y.
    moments_ : Moments, or list of Moments where folds were needed
        What it was fitted on.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    MomentsSearchCV : Search any parameters at the cost of one pass over the data.
    TwoViewPipeline : A scikit-learn transformer for each view, then this.

    Notes
    -----
    Where p + q > n - 1 without shrinkage, some training correlations are 1 whatever the data:
    the result is right on the range of the data, with a warning.

    Rows of one view alone make its covariance better known than the cross-covariance. Weak
    shrinkage then spreads the held-out correlation over more components, which their mean takes
    for better, though pairs are found worse: so "cv" goes by the likelihood of the pairing.

    References
    ----------
    Hotelling, H. (1936). Relations between two sets of variates. Biometrika 28.
    Vinod, H. D. (1976). Canonical ridge and econometrics of joint production. J. Econometrics.
    Ledoit, O. and Wolf, M. (2004). A well-conditioned estimator for large-dimensional
    covariance matrices. J. Multivariate Analysis 88.

    Examples
    --------
    >>> from cmstats import CCA, load_linnerud
    >>> X, Y = load_linnerud(return_X_y=True)
    >>> cca = CCA().fit(X, Y)
    >>> cca.correlations_.round(8)
    array([0.79560815, 0.20055604, 0.07257029])
    >>> U, V = cca.transform(X, Y)
    >>> U.shape, V.shape
    ((20, 3), (20, 3))

    Partial CCA, here of the same views beyond the first exercise (`Moments.partial_out`):

    >>> from cmstats import Moments
    >>> beyond = Moments.from_data(x=X[:, 1:], y=Y, z=X[:, :1]).partial_out("z")
    >>> CCA().fit_moments(beyond).correlations_.round(4)
    array([0.6705, 0.19  ])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto", "cv"}), tuple, list],
        "scale": ["boolean"],
        "solver": [StrOptions({"auto", "moments", "svd"})],
        "cv": ["cv_object"],
        "missing": [StrOptions({"error", "em"})],
    }
    _cv_parameters: ClassVar[tuple[str, ...]] = ("shrinkage",)

    def __init__(
        self,
        n_components: int | None = None,
        *,
        shrinkage: Any = 0.0,
        scale: bool = False,
        solver: Literal["auto", "moments", "svd"] = "auto",
        cv: Any = 5,
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.scale = scale
        self.solver = solver
        self.cv = cv
        self.missing = missing

    # ------------------------------------------------------------------------- fitting
    def _solve(self, moments: Moments) -> None:
        sx, sy = self.shrinkage_ = self._numbers(moments)
        moments = self._views(moments).before_shrinkage((sx, sy), scale=self.scale)
        self._warn_of_degenerate(moments, sx, sy)
        m = moments.standardized() if self.scale else moments
        whitened = m.whitened("x", "y", shrinkage=(sx, sy))
        for view, factor, s in (("x", whitened.x, sx), ("y", whitened.y, sy)):
            self._warn_of_dependence(moments, view, factor.rank, s)
        self.condition_ = max(whitened.x.condition, whitened.y.condition)
        A, singular, B = directions(whitened, self.n_components)
        xp = namespace(A)
        cov_xA = m.projected_scatter("x", "x", A) / (m.n - 1)
        cov_yB = m.projected_scatter("y", "y", B) / (m.n - 1)
        x_var, y_var = xp.sum(A * cov_xA, axis=0), xp.sum(B * cov_yB, axis=0)
        # Under shrinkage there are also directions in which the data do not vary.
        varies = (x_var > 1e-12) & (y_var > 1e-12)
        kept = xp.nonzero(varies)[0]
        kept = kept[: min(self._count(moments, int(kept.shape[0])), int(kept.shape[0]))]
        if kept.shape[0]:
            A, B, cov_xA, cov_yB = (xp.take(a, kept, axis=1) for a in (A, B, cov_xA, cov_yB))
            singular, x_var, y_var = (xp.take(a, kept) for a in (singular, x_var, y_var))
        else:  # a view that does not vary: one component of zeros
            A, B, cov_xA, cov_yB = (0 * a[:, :1] for a in (A, B, cov_xA, cov_yB))
            singular, x_var, y_var = 0 * singular[:1], 0 * x_var[:1] + 1, 0 * y_var[:1] + 1
        self.n_components_ = int(singular.shape[0])
        self.singular_values_ = ((1 - sx) * (1 - sy)) ** 0.5 * singular
        # Up to a factor the same; at shrinkage 1 the singular values are 0 and these are not.
        self._relative = singular / max(float(singular[0]), 1e-300)
        # Standard deviations of the variates, in the scaling a'S_s a = 1: 1 without shrinkage.
        self._x_std, self._y_std = xp.sqrt(x_var), xp.sqrt(y_var)
        cov_xB = m.projected_scatter("x", "y", B) / (m.n - 1)
        self.correlations_ = xp.clip(
            xp.sum(A * cov_xB, axis=0) / (self._x_std * self._y_std), -1.0, 1.0
        )
        # E[y | x] = y_mean + C_s,yy B diag(singular) A'(x - x_mean)
        ridge = sy * float(xp.sum(m.variance("y"))) / m.width("y")
        pattern = (1 - sy) * cov_yB + ridge * B
        self._set_weights(moments, A, B, pattern)

    def _set_weights(self, moments: Moments, A: Array, B: Array, pattern: Array) -> None:
        """Weights in the data's units, of unit training variance, with signs by the rule."""
        if self.scale:
            x_unit, y_unit = standard_deviations(moments, "x"), standard_deviations(moments, "y")
            A, B = A / x_unit[:, None], B / y_unit[:, None]
            pattern = pattern * y_unit[:, None]
        sign = signs(A)
        self.x_weights_ = sign * A / self._x_std[None, :]
        self.y_weights_ = sign * B / self._y_std[None, :]
        self._y_pattern = sign * pattern
        self.x_mean_, self.y_mean_ = moments.mean("x"), moments.mean("y")

    def _validate_params(self) -> None:
        super()._validate_params()
        shrinkage_tuple(self.shrinkage)

    def _numbers(self, moments: Moments) -> tuple[float, float]:
        """The shrinkage of both views as numbers."""
        pair = self._chosen.get("shrinkage", shrinkage_tuple(self.shrinkage))
        x, y = shrinkage_numbers(moments, ("x", "y"), pair, scale=self.scale)
        return x, y

    def _resolve(self, folds: list[Moments]) -> dict[str, Any]:
        grid = shrinkage_grid(self.shrinkage)
        # The folds are there: an iterator over splits is used up, and cannot be copied.
        bare = type(self)(**{**self.get_params(deep=False), "cv": None})
        score = held_out_ratio if any(fold.incomplete for fold in folds) else None
        found = grid_scores(bare, [{"shrinkage": s} for s in grid], folds, score=score)
        self.cv_shrinkages_, self.cv_scores_ = grid, found.scores
        return {"shrinkage": grid[best_index(found.scores)]}

    def _count(self, moments: Moments, rank: int) -> int:
        """How many components there will be."""
        p, q = moments.width("x"), moments.width("y")
        possible = min(p, q, moments.rows - 1)
        if self.n_components is not None and self.n_components > possible:
            raise ValueError(
                f"n_components={self.n_components} is too large: at most {possible} are possible, "
                f"the minimum of {p} x-features, {q} y-features and n_samples - 1 = "
                f"{moments.rows - 1}"
            )
        if rank == 0:
            self._degenerate = [
                "every column of x or of y is constant: there is nothing to correlate, and all "
                "weights are 0"
            ]
            return 1
        wanted = rank if self.n_components is None else self.n_components
        if wanted > rank:
            self._degenerate.append(
                f"only {rank} of n_components={wanted} exist, the rank of the data; the rest are "
                "left out"
            )
        return min(wanted, rank)

    def _warn_of_degenerate(self, moments: Moments, sx: float, sy: float) -> None:
        xp = namespace(moments.mean("x"))
        p, q, n = moments.width("x"), moments.width("y"), min(moments.n, moments.rows)
        self._degenerate = []
        for view in ("x", "y"):
            constant = moments.constant(view)
            count = int(xp.count_nonzero(constant))
            if count:
                first = int(xp.argmax(xp.astype(constant, xp.int8)))
                self._degenerate.append(
                    f"{count} of the columns of {view} {'is' if count == 1 else 'are'} constant "
                    f"(the first is column {first}) and got weight 0"
                )
        if p + q > n - 1 and not (sx and sy) and not moments.incomplete:
            self._degenerate.append(
                f"p + q = {p + q} features and {n:g} samples make some training correlations 1 "
                "whatever the data: set shrinkage='cv' or 'auto' for both views"
            )

    def _warn_of_dependence(self, moments: Moments, view: str, rank: int, s: float) -> None:
        xp = namespace(moments.mean(view))
        varying = moments.width(view) - int(xp.count_nonzero(moments.constant(view)))
        if rank < min(varying, moments.rows - 1) and not s:
            self._degenerate.append(
                f"the columns of {view} depend on each other linearly (rank {rank} of {varying}): "
                "the result is right on their range, but weights are not unique; set shrinkage"
            )

    def _enough(self, parts: list[Moments | None]) -> bool:
        some = next(m for m in parts if m is not None)
        too_many = (self.n_components or 1) > min(some.widths)
        return too_many or super()._enough(parts)  # too many raise at once

    def _rows_needed(self) -> int:
        return (self.n_components or 1) + 1

    def _ill_conditioned(self) -> bool:
        return bool(self.condition_ > 1e4)

    # ---------------------------------------------------------------------- projecting
    def transform(self, X: Any = None, y: Any = None) -> Any:
        """Variates of one view or of both.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), optional
        y : array-like or sparse matrix of shape (n_samples, n_targets), optional

        Returns
        -------
        array of shape (n_samples, n_components_), or a pair of these
            x variates, y variates, or (x variates, y variates), for what was given.

        Raises
        ------
        ValueError
            If neither is given, or widths or values are not right.
        """
        u, v = self._variates(X, y)
        wrapped = [self._wrap(a, b) for a, b in ((u, X), (v, y)) if a is not None]
        return wrapped[0] if len(wrapped) == 1 else tuple(wrapped)

    def fit_transform(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """``fit(X, y).transform(X)``: the x variates of the training rows."""
        return self.fit(X, y, sample_weight).transform(X)

    def _variates(self, X: Any, y: Any) -> tuple[Array | None, Array | None]:
        check_is_fitted(self)
        if X is None and y is None:
            raise ValueError("give X, y or both")
        u = v = None
        if X is not None:
            u = project(self._check_x(X), self.x_mean_, self.x_weights_)
        if y is not None:
            v = project(self._check_y(y), self.y_mean_, self.y_weights_, "y")
        return u, v

    def predict(self, X: Any) -> Array:
        """The conditional mean of y given x under the (shrunken) joint Gaussian model.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_targets), or (n_samples,) if y was 1-D in fit
            ``y_mean_ + C_yy B diag(singular_values_) A'(x - x_mean_)``: ridge regression
            through `n_components_` canonical variates.
        """
        check_is_fitted(self)
        # Through the variates: the p x q matrix of coefficients may be far larger than both.
        weights = self.x_weights_ * (self._x_std * self.singular_values_)[None, :]
        u = project(self._check_x(X), self.x_mean_, weights)
        xp = namespace(u)
        pattern = xp.astype(self._y_pattern.mT, u.dtype)
        y = u @ pattern + xp.astype(self.y_mean_, u.dtype)
        return y[:, 0] if self._y_ndim == 1 else y

    def fuse(self, X: Any = None, y: Any = None) -> Array:
        """The posterior mean of the shared latent given one view or both.

        In probabilistic CCA (Bach and Jordan 2005) each canonical pair is
        ``u = sqrt(r) z + noise``, ``v = sqrt(r) z + noise`` with a standard normal z, so that
        E[z | u] = sqrt(r) u and E[z | u, v] = sqrt(r) / (1 + r) (u + v).

        Parameters
        ----------
        X, y
            As in `transform`.

        Returns
        -------
        array of shape (n_samples, n_components_)
        """
        u, v = self._variates(X, y)
        u, v = (
            None if a is None else a * namespace(a).astype(std, a.dtype)
            for a, std in ((u, self._x_std), (v, self._y_std))
        )
        return latent_mean(u, v, self.singular_values_)

    # ----------------------------------------------------------------------- comparing
    def embed(
        self, X: Any = None, y: Any = None, *, kind: Kind = "weighted_cosine", power: float = 1.0
    ) -> Any:
        """Vectors whose plain inner product is the similarity of an x and a y.

        Any index for inner products (FAISS, hnswlib, a vector database) serves them unchanged.

        Parameters
        ----------
        X, y
            As in `transform`.
        kind : {"weighted_cosine", "cosine", "csa", "likelihood_ratio"}
            "cosine" of the variates; "weighted_cosine" of ``rho**power * u`` and
            ``rho**power * v``; "csa" (Canonical Similarity Analysis, Li et al. 2025) the sum
            of rho u v over the unweighted norms; "likelihood_ratio"
            log p(x, y) - log p(x) - log p(y) under the shrunken joint. The last three are in
            canonical coordinates: u, v are the variates in the scaling a'S_s a = 1 and rho
            the singular values, which without shrinkage are the variates and the
            correlations. (In-sample correlations near 1 would weigh noise like signal.)
        power : float, default=1.0
            For "weighted_cosine".

        Returns
        -------
        array of shape (n_samples, m), or a pair of these
            m is `n_components_`, and two more for "likelihood_ratio".
        """
        if kind not in ("weighted_cosine", "cosine", "csa", "likelihood_ratio"):
            raise ValueError(
                f"kind={kind!r} is unknown: use 'weighted_cosine', 'cosine', 'csa' or "
                "'likelihood_ratio'"
            )
        views = zip(self._variates(X, y), (self._x_std, self._y_std), (True, False), strict=True)
        out = []
        for a, std, is_x in views:
            if a is None:
                continue
            if kind != "cosine":
                a = a * namespace(a).astype(std, a.dtype)
            if kind == "likelihood_ratio":
                out.append(likelihood_vectors(a, self.singular_values_, is_x=is_x))
            else:
                out.append(self._cosine_vectors(a, kind, power))
        return out[0] if len(out) == 1 else tuple(out)

    def _cosine_vectors(self, a: Array, kind: Kind, power: float) -> Array:
        xp = namespace(a)
        rho = xp.astype(self.singular_values_, a.dtype)
        if kind == "weighted_cosine":
            a = a * xp.astype(self._relative**power, a.dtype)
        norm = xp.sqrt(xp.sum(a * a, axis=1))[:, None]
        a = a / xp.where(norm > 0, norm, xp.ones_like(norm))
        return a * xp.sqrt(rho) if kind == "csa" else a

    def similarity(
        self, X: Any, y: Any, *, kind: Kind = "weighted_cosine", power: float = 1.0
    ) -> Array:
        """The similarity of every x with every y, shape (n_x, n_y).

        Parameters
        ----------
        X, y
            As in `transform`; numbers of rows may differ.
        kind, power
            As in `embed`.

        Returns
        -------
        array of shape (n_x, n_y)
        """
        u, v = self.embed(X, y, kind=kind, power=power)
        return inner(u, v)

    # ------------------------------------------------------------------------- judging
    def score_moments(self, moments: Moments) -> float:
        """The mean correlation of the variates on held-out moments.

        Parameters
        ----------
        moments : Moments
            With blocks "x" and "y". Of incomplete rows, those with everything observed count,
            where there are at least two, and else the estimate from all.

        Returns
        -------
        float
            The mean over the components, with the test rows' own means and variances; NaN,
            with a warning, where a variate is constant. To choose `n_components` use
            `metrics.total_correlation_scorer`: a mean over sorted correlations always
            prefers one.
        """
        correlations = self.correlations_on(moments)
        return float(namespace(correlations).mean(correlations))

    def correlations_on(self, moments: Moments) -> Array:
        """The correlations of the paired variates on held-out moments, (n_components_,)."""
        check_is_fitted(self)
        for view, weights in (("x", self.x_weights_), ("y", self.y_weights_)):
            if moments.width(view) != weights.shape[0]:
                raise ValueError(
                    f"the moments of {view} are of {moments.width(view)} features, but "
                    f"{type(self).__name__} is expecting {weights.shape[0]}"
                )
        held_out = self._held_out(moments)
        return held_out.paired_correlations("x", "y", self.x_weights_, self.y_weights_)

    @property
    def x_loadings_(self) -> Array:
        """Correlations of x variables with x variates, shape (p, n_components_)."""
        return self._loadings("x", "x", self.x_weights_)

    @property
    def y_loadings_(self) -> Array:
        """Correlations of y variables with y variates, shape (q, n_components_)."""
        return self._loadings("y", "y", self.y_weights_)

    @property
    def x_cross_loadings_(self) -> Array:
        """Correlations of x variables with y variates, shape (p, n_components_)."""
        return self._loadings("x", "y", self.y_weights_)

    @property
    def y_cross_loadings_(self) -> Array:
        """Correlations of y variables with x variates, shape (q, n_components_)."""
        return self._loadings("y", "x", self.x_weights_)

    def _loadings(self, variables: str, variates: str, weights: Array) -> Array:
        m = self._total()
        covariances = m.projected_scatter(variables, variates, weights) / (m.n - 1)
        return covariances / standard_deviations(m, variables)[:, None]


def held_out_ratio(model: CCA, moments: Moments) -> float:
    """The mean held-out log-likelihood ratio of pairs."""
    x = model.x_weights_ * model._x_std, model.x_mean_
    y = model.y_weights_ * model._y_std, model.y_mean_
    return expected_ratio(model._held_out(moments), x, y, model.singular_values_)
