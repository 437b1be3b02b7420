"""Canonical correlation analysis from moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, namespace
from cmstats.kernels.linalg import leading_svd
from cmstats.models.base import MomentsModel
from cmstats.models.dask import by_rows, row_wise
from cmstats.models.degenerate import constant_columns, dependent_columns
from cmstats.models.latent import LatentViews, from_coordinates, unit_rows
from cmstats.moments.canonical import Canonical, latent_mean, likelihood_vectors, loadings
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import SHRINKAGES, Shrunk, Target
from cmstats.rows.chunks import project

__all__ = ["CCA", "Kind"]

Kind = Literal["cosine", "weighted_cosine", "csa", "likelihood_ratio"]


class CCA(LatentViews, MomentsModel):
    r"""Canonical correlation analysis with coherent shrinkage, from joint moments.

    Finds weights a, b that maximise the correlation of the paired variates Xa and Yb, each
    pair uncorrelated with those before (Hotelling 1936):

    .. math:: \max_{a, b}\; a' S_{xy} b \quad\text{s.t.}\quad a' S_{xx} a = b' S_{yy} b = 1

    solved as the singular value decomposition of the whitened cross-covariance. With
    shrinkage s the blocks are :math:`(1-s) S + s\,\mathrm{tr}(S)/p\, I` and the cross block
    is scaled by :math:`\sqrt{(1-s_x)(1-s_y)}`: the joint stays positive semi-definite and the
    directions are those of ridge CCA (Vinod 1976). With the aligned target the cross block gets
    :math:`\sqrt{s_x s_y}\,\mathrm{tr}(S_{xy})/p\, I` in addition.

    Parameters
    ----------
    n_components : int, optional
        Number of pairs of variates; by default all there are, min(rank X, rank Y).
    shrinkage : float in [0, 1], "auto", "cv" or a pair (x, y) of these, default=0.0
        0 is textbook CCA; at 1 the directions are those of PLS-SVD. "auto" is Ledoit-Wolf
        for each view (OAS with `scale`); "cv" the best held-out `scoring` over `cv` folds
        among `SHRINKAGES` (a pair of "cv" searches the two together).
    target : {"independent", "aligned"}, default="independent"
        What shrinkage forgets. "independent" shrinks the cross-covariance to 0. "aligned" is for
        views of one width whose columns are coordinates of one space, such as the image and the
        text embeddings of a CLIP model: it shrinks to a multiple of the identity, so that with s
        the model becomes the centred inner product of the two embeddings. At s = 1 and in units
        of the mean variance the log-likelihood ratio is
        ``(c x'y - c^2 (x'x + y'y) / 2) / (1 - c^2)`` up to a constant, with
        ``c = tr(S_xy) / p``. Views that are not aligned have c near 0. There are p components
        then, also from fewer rows.
    scale : bool, default=False
        Standardise each feature (from the moments, so inside the folds).
    solver : {"auto", "moments", "svd"}, default="auto"
        "moments" works on the scatter matrix, one fast pass; "svd" on a root of it, which
        keeps the condition number of the data instead of its square. "auto" uses the root
        for wide data (more features than rows) and where the column-normalised data of a
        view have a condition number above 1e4.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K.
    scoring : str, optional
        What "cv" maximises on held-out rows. "correlation" is the mean correlation of the
        variates, for a model that is to be interpreted and tested. A retrieval metric ("mrr",
        "R@10" for any k, "median_rank", "mAP") is for one that is to `embed`: the mean of both
        directions under ``kind="likelihood_ratio"``, in which each row of a fold (of a uniform
        sample of 2000 where there are more) looks for its partner among these. All shrinkages
        that both views share then cost three eigendecompositions a fold. "likelihood_ratio" is
        the mean of log p(x, y) - log p(x) - log p(y). By default "correlation", which prefers
        less shrinkage than retrieval does; with incomplete rows "likelihood_ratio", see Notes.
        A retrieval metric needs rows: `fit` and `partial_fit` keep the sample, and `fit_moments`
        has none.
    missing : {"error", "em"}, default="error"
        What NaN is: an error, or an entry that was not observed. With "em" the moments are
        maximum likelihood estimates from all rows, under a prior where rows are few
        (`Moments.from_data`), with at most 512 different sets of missing columns; in rows handed to
        the fitted model NaN stands for its conditional mean given the other entries of the view.
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
        largest absolute x-weight of each component is positive. Where the training rows do not
        vary in a direction (of the aligned target alone) the scaling is a'S_s a = 1.
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

    Shrinkage for retrieval is chosen by retrieval:

    >>> from cmstats import load_emoji
    >>> image, text = load_emoji(return_X_y=True)
    >>> image, text = image[:300], text[:300]
    >>> by_rank = CCA(shrinkage="cv", scoring="mrr").fit(image, text)
    >>> by_rank.shrinkage_[0] >= 0.2
    True

    Partial CCA, here of the same views beyond the first exercise (`Moments.partial_out`):

    >>> from cmstats import Moments
    >>> beyond = Moments.from_data(x=X[:, 1:], y=Y, z=X[:, :1]).partial_out("z")
    >>> CCA().fit_moments(beyond).correlations_.round(4)
    array([0.6705, 0.19  ])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto", "cv"}), tuple, list],
        "target": [StrOptions({"independent", "aligned"})],
        "scale": ["boolean"],
        "solver": [StrOptions({"auto", "moments", "svd"})],
        "cv": ["cv_object"],
        "scoring": [str, None],
        "missing": [StrOptions({"error", "em"})],
    }
    tunable: ClassVar[Mapping[str, Any]] = {"shrinkage": SHRINKAGES}
    _ranked_by: ClassVar[Mapping[str, Any]] = {"kind": "likelihood_ratio"}

    def __init__(
        self,
        n_components: int | None = None,
        *,
        shrinkage: Any = 0.0,
        target: Target = "independent",
        scale: bool = False,
        solver: Literal["auto", "moments", "svd"] = "auto",
        cv: Any = 5,
        scoring: str | None = None,
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.target = target
        self.scale = scale
        self.solver = solver
        self.cv = cv
        self.scoring = scoring
        self.missing = missing

    def _solve(self, m: Shrunk) -> Canonical:
        self._check_count(m)
        x, y = m.whiten("x"), m.whiten("y")  # W' S W = I on the range of S
        M, gain = m.cross("x", "y")
        U, rho, Vt = leading_svd(M, self.n_components)
        found = Canonical.of(m, x.weights @ U, rho, y.weights @ Vt.mT, gain)
        return found.noted(self._degenerate(m, found.rank))

    def _scoring_of(self, folds: Sequence[Moments] = ()) -> str:
        if self.scoring is None and any(fold.incomplete for fold in folds):
            return "likelihood_ratio"
        return super()._scoring_of(folds)

    def _has_path(self) -> bool:
        return self.n_components is None

    def _most_components(self, widths: Sequence[int]) -> int | None:
        return min(widths)

    def _check_count(self, m: Shrunk) -> None:
        """Raise where more components are asked for than there can be."""
        p, q, rows = m.width("x"), m.width("y"), m.rows
        possible = min(p, q) if m.shift("x", "y") else min(p, q, rows - 1)
        if self.n_components is not None and self.n_components > possible:
            raise ValueError(
                f"n_components={self.n_components} is too large: at most {possible} are possible, "
                f"the minimum of {p} x-features, {q} y-features and n_samples - 1 = {rows - 1}"
            )

    def _degenerate(self, m: Shrunk, rank: int) -> list[str]:
        """Sentences about degenerate data, and about more components than there are."""
        if rank == 0:
            return [
                "every column of x or of y is constant: there is nothing to correlate, and all "
                "weights are 0"
            ]
        p, q, n = m.width("x"), m.width("y"), m.rows
        notes = constant_columns(m)
        if p + q > n - 1 and 0 in m.shrinkage and not m.unshrunk.incomplete:
            notes.append(
                f"p + q = {p + q} features and {n:g} samples make some training correlations 1 "
                "whatever the data: set shrinkage='cv' or 'auto' for both views"
            )
        notes += dependent_columns(m)
        if (self.n_components or 0) > rank:
            notes.append(
                f"only {rank} of n_components={self.n_components} exist, the rank of the data; the "
                "rest are left out"
            )
        return notes

    @row_wise
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
        found: Canonical = self._solution
        # Through the variates: the p x q matrix of coefficients may be far larger than both.
        weights = found.x_weights_ * (found.x_std * found.singular_values_)[None, :]
        u = project(self._check_x(X), found.x_mean_, weights)
        return from_coordinates(u, found.y_pattern, found.y_mean_, self._y_ndim)

    @row_wise
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
        variates = self._variates(X, y)
        found: Canonical = self._solution
        return latent_mean(*found.canonical(variates), found.singular_values_)

    @row_wise
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
        return self._embedded(X, y, kind=kind, power=power)

    def _vectors(
        self, coordinates: Array, view: str, *, kind: Kind = "weighted_cosine", power: float = 1.0
    ) -> Array:
        found: Canonical = self._solution
        if kind == "cosine":
            return unit_rows(coordinates)
        a = found.in_canonical_scale(coordinates, view)
        if kind == "likelihood_ratio":
            return likelihood_vectors(a, found.singular_values_, is_x=view == "x")
        xp = namespace(a)
        if kind == "csa":
            return unit_rows(a) * xp.sqrt(xp.astype(found.singular_values_, a.dtype))
        return unit_rows(a * xp.astype(found.relative**power, a.dtype))

    @by_rows
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
        return self._compared(X, y, kind=kind, power=power)

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
        return super().score_moments(moments)

    def correlations_on(self, moments: Moments) -> Array:
        """The correlations of the paired variates on held-out moments, (n_components_,)."""
        check_is_fitted(self)
        found: Canonical = self._solution
        return found.correlations_on(self._held_out(self._fitting(moments)))

    def ratio_moments(self, moments: Moments) -> float:
        """The mean of log p(x, y) - log p(x) - log p(y) over held-out rows with these moments.

        The mean of the diagonal of ``similarity(kind="likelihood_ratio")``, in canonical
        coordinates a function of E[uv], E[u^2] and E[v^2].
        """
        check_is_fitted(self)
        found: Canonical = self._solution
        return found.expected_ratio(self._held_out(self._fitting(moments)))

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
        return loadings(self._total(), variables, variates, weights)
