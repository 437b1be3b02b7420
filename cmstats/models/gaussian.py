"""The conditional Gaussian model: y given x, and any block given any others."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, in_range, namespace
from cmstats.kernels.linalg import leading_svd
from cmstats.models.base import MomentsModel
from cmstats.models.conditional_normal import BlockNormal, PairNormal, have_gaps, in_memory
from cmstats.models.dask import by_rows, refused, row_wise
from cmstats.models.latent import ComparedViews
from cmstats.models.regions import PredictsRegions
from cmstats.moments.canonical import latent_mean, likelihood_vectors
from cmstats.moments.imputation import Filler
from cmstats.moments.joint_normal import (
    Conditional,
    JointNormal,
    draw,
    in_order,
    pick,
    real_rows,
)
from cmstats.moments.moments import Moments
from cmstats.moments.monotone import (
    among_all,
    factored,
    pairs_of_folds,
    seen_alone,
    shrinkage_by_density,
    without_pairs,
)
from cmstats.moments.shrinkage import SHRINKAGES, Shrunk, Target
from cmstats.rows.chunks import project

__all__ = ["ConditionalGaussian"]


class ConditionalGaussian(PredictsRegions, ComparedViews, MomentsModel):
    r"""p(y | x) under one joint normal, full or of low rank, from joint moments.

    Where x and y are jointly normal, y given x is normal with

    .. math:: E[y|x] = \mu_y + S_{yx} S_{xx}^{-1} (x - \mu_x), \qquad
              \mathrm{Cov}[y|x] = S_{yy} - S_{yx} S_{xx}^{-1} S_{xy}.

    With ``rank=k`` the cross block is that of the first k canonical pairs: the maximum
    likelihood solution of probabilistic CCA (Bach and Jordan 2005), in which k shared latent
    variables carry all that the views have in common. The joint covariance is shrunk
    coherently (`CCA`), so every conditional is positive definite.

    Parameters
    ----------
    rank : int, optional
        Number of shared latent variables; by default as many as there are.
    shrinkage : float in [0, 1], "auto", "cv" or a pair (x, y) of these, default="cv"
        "cv" maximises the held-out `scoring` over `cv` folds: in-sample correlations are too
        large, and likelihood ratios built on them collapse.
        "auto" is Ledoit-Wolf for each view (OAS with `scale`). One value for each block
        where there are more than two.
    target : {"independent", "aligned"}, default="independent"
        As in `CCA`, for blocks of one width.
    scale : bool, default=False
        Shrink standardised features: each feature's unit is free.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K.
    scoring : str, optional
        What "cv" maximises, as in `CCA`: "likelihood_ratio", the default for a model that is
        fitted for its densities; a retrieval metric such as "mrr", for one that is to `embed`
        (the likelihood ratio prefers more shrinkage than retrieval by it does); or
        "correlation". Blocks of other names than x and y have a likelihood ratio only.
    missing : {"error", "em"}, default="error"
        "em" takes NaN as a missing entry, in fitting (`Moments.from_data`) and in rows to
        predict or to score, which are conditioned on what is there.

    Attributes
    ----------
    coef_ : array of shape (q, p), or (p,) if y was 1-D in fit
        ``S_yx S_xx^-1``.
    intercept_ : array of shape (q,), or float
        ``predict(X) = X @ coef_.T + intercept_``.
    covariance_ : array of shape (q, q)
        Of y given x, the same for every x.
    singular_values_ : array of shape (n_components_,)
        Correlations of the canonical pairs under the (shrunken) model.
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    n_components_ : int
        The number of canonical pairs in use.
    shrinkage_ : tuple of float
    joint_ : JointNormal
        The distribution of all blocks.
    moments_, n_samples_, n_features_in_, feature_names_in_, y_feature_names_in_
        As in `CCA`.

    See Also
    --------
    CCA : The same canonical pairs, for correlations and cosine retrieval.
    ConditionalGaussianMixture : Where one normal is not enough.

    Notes
    -----
    Covariances have ddof=1. `score` is the mean of `logpdf`; "cv" does not maximise it but
    the ratio to log p(y), in which what y is by itself cancels. Beyond a shrinkage of .8, where
    the marginals fit badly, that ratio counts only if it has risen all the way.

    References
    ----------
    Bach, F. R. and Jordan, M. I. (2005). A probabilistic interpretation of canonical
    correlation analysis. Technical report 688, UC Berkeley.
    Anderson, T. W. (2003). An Introduction to Multivariate Statistical Analysis, chapter 2.

    Examples
    --------
    >>> from cmstats import ConditionalGaussian, load_linnerud
    >>> X, Y = load_linnerud(return_X_y=True)
    >>> model = ConditionalGaussian(shrinkage=0.1).fit(X, Y)
    >>> mean, std = model.predict(X[:2], return_std=True)
    >>> mean.shape, std.shape
    ((2, 3), (2, 3))
    >>> model.logpdf(X, Y).shape
    (20,)
    >>> round(model.mutual_information(), 3)
    0.155
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "rank": [Interval(Integral, 1, None, closed="left"), None],
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto", "cv"}), tuple, list],
        "target": [StrOptions({"independent", "aligned"})],
        "scale": ["boolean"],
        "cv": ["cv_object"],
        "scoring": [str, None],
        "missing": [StrOptions({"error", "em"})],
    }
    tunable: ClassVar[Mapping[str, Any]] = {"shrinkage": SHRINKAGES}
    _shrink_regressions = False
    _default_scoring = "likelihood_ratio"

    def __init__(
        self,
        *,
        rank: int | None = None,
        shrinkage: Any = "cv",
        target: Target = "independent",
        scale: bool = False,
        cv: Any = 5,
        scoring: str | None = None,
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.rank = rank
        self.shrinkage = shrinkage
        self.target = target
        self.scale = scale
        self.cv = cv
        self.scoring = scoring
        self.missing = missing

    def _solve(self, m: Shrunk) -> BlockNormal:
        self._check_rank(m)
        if not {"x", "y"} <= set(m.names):
            return BlockNormal.of(m, notes=tuple(self._degenerate(m)))
        x, y = m.whiten("x"), m.whiten("y")  # W' S W = I on the range of S
        M, gain = m.cross("x", "y")
        U, r, Vt = leading_svd(M, self.rank)
        A, B = x.weights @ U, y.weights @ Vt.mT
        found = PairNormal.of_pairs(m, A, gain * r, B, low_rank=self.rank is not None)
        return found.noted(self._degenerate(m, found.n_components_))

    def _solved(self, moments: Moments, chosen: Mapping[str, Any]) -> BlockNormal:
        """The model; where rows have all blocks or one, p(rest | block) is of the pairs alone."""
        each = chosen.get("shrinkage") or self._shrinkage_of_blocks(moments.names)
        alone, pairs = seen_alone(moments), moments.complete_rows()
        if alone is None or pairs is None:
            return super()._solved(moments, {"shrinkage": each})  # type: ignore[no-any-return]
        of_pairs: BlockNormal = super()._solved(pairs, {"shrinkage": each})
        s = chosen.get("marginal", each[moments.names.index(alone)])
        m = moments.select(alone).shrunk(s, scale=self.scale)
        covariance = m.units(alone)[:, None] * m.units(alone)[None, :] * m.cov(alone)
        together = factored(of_pairs.joint, moments, alone, covariance)
        return replace(
            self._solve(together.shrunk(0.0)),
            shrinkage_=of_pairs.shrinkage_,
            marginal_shrinkage_=m.shrinkage[0],
            notes=of_pairs.notes,
            singular=of_pairs.singular,
        )

    def _choose(self, folds: list[Moments]) -> tuple[dict[str, Any], dict[str, Any]]:
        alone = seen_alone(functools.reduce(operator.add, folds))
        if alone is None:
            return super()._choose(folds)
        pairs = pairs_of_folds(folds)
        chosen, scored = super()._choose([*pairs.values()])
        scored["cv_scores_"] = among_all(scored["cv_scores_"], pairs, folds)
        scored["notes"] += without_pairs(pairs, folds)
        names = folds[0].names
        if self._shrinkage_of_blocks(names)[names.index(alone)] == "cv":
            rows = [fold.select(alone) for fold in folds]
            chosen["marginal"] = shrinkage_by_density(rows, alone, scale=self.scale)
        return chosen, scored

    def _has_path(self) -> bool:
        return self.rank is None

    def _score(self, moments: Moments, model: PairNormal) -> float:
        return model.expected_logpdf(moments)

    def _rows_needed(self) -> int:
        return (self.rank or 1) + 1

    def _check_rank(self, m: Shrunk) -> None:
        """Raise where the rank is for other blocks, or is larger than there can be."""
        if self.rank is None:
            return
        if set(m.names) != {"x", "y"}:
            raise ValueError(
                f"rank={self.rank} is for two blocks, x and y; these moments have "
                f"{', '.join(m.names)}: use rank=None"
            )
        p, q = m.width("x"), m.width("y")
        possible = min(p, q) if m.shift("x", "y") else min(p, q, m.rows - 1)
        if self.rank > possible:
            raise ValueError(
                f"rank={self.rank} is too large: at most {possible} are possible, the minimum of "
                f"{p} x-features, {q} y-features and n_samples - 1 = {m.rows - 1}"
            )

    def _degenerate(self, m: Shrunk, pairs: int | None = None) -> list[str]:
        """Sentences about degenerate data and requests."""
        d, n, notes = sum(map(m.width, m.names)), m.rows, []
        if d > n - 1 and 0 in m.shrinkage and not m.unshrunk.incomplete:
            notes.append(
                f"{d} features and {n:g} samples make the joint covariance singular, so there is "
                "no density: set shrinkage='cv' or 'auto'"
            )
        if pairs is not None and pairs < (self.rank or 0):
            notes.append(f"only {pairs} of rank={self.rank} exist, the rank of the data")
        return notes

    # Blocks of any names.
    @staticmethod
    def _own(moments: Moments) -> Moments:
        return moments

    def _know_blocks(self, parts: list[Moments]) -> None:
        if {"x", "y"} <= set(parts[0].names):
            super()._know_blocks(parts)
        elif len(parts[0].names) < 2:
            raise ValueError(
                f"these moments have the one block {parts[0].names[0]}: at least two are needed"
            )

    def _block_widths(self) -> dict[str, int]:
        """Those of x and y, which a score is of, where there are these."""
        widths = super()._block_widths()
        return {v: widths[v] for v in ("x", "y")} if {"x", "y"} <= set(widths) else widths

    @property
    def _pair(self) -> PairNormal:
        """The fitted model of blocks with x and y among them."""
        check_is_fitted(self)
        if isinstance(self._solution, PairNormal):
            return self._solution
        raise ValueError(
            f"the model is of the blocks {', '.join(self.joint_.names)}: this needs blocks named "
            "x and y; use condition(on=...) and joint_ for blocks of other names"
        )

    def _given(self, X: Any, y: Any = None) -> dict[str, tuple[Any, Any]]:
        _ = self._pair
        return super()._given(X, y)

    def _filler(self, view: str) -> Filler:
        found: BlockNormal = self._solution
        return Filler(found.moments.mean(view), found.covariance(view, view))

    # The distribution.
    @property
    def joint_(self) -> JointNormal:
        """The (shrunken) normal of all blocks, d x d."""
        check_is_fitted(self)
        joint: JointNormal = self._solution.joint
        return joint

    @property
    def covariance_(self) -> Array:
        """The covariance of y given x, shape (q, q)."""
        return self._pair.residual

    @property
    def coef_(self) -> Array:
        """``S_yx S_xx^-1``, shape (q, p), or (p,) if y was 1-D in fit."""
        coef = self._pair.slopes
        return coef[0, :] if self._y_ndim == 1 else coef

    @property
    def intercept_(self) -> Array:
        """``y_mean_ - coef_ @ x_mean_``, shape (q,), or a float if y was 1-D in fit."""
        found, coef = self._pair, self.coef_
        if self._y_ndim == 1:
            return float(found.y_mean_[0]) - float(namespace(coef).sum(coef * found.x_mean_))
        return found.y_mean_ - coef @ found.x_mean_

    def mutual_information(self, *, per_component: bool = False) -> Any:
        """The mutual information of x and y under the model, in nats.

        Parameters
        ----------
        per_component : bool, default=False
            One number for each canonical pair instead of their sum.

        Returns
        -------
        float, or array of shape (n_components_,)
            ``-1/2 sum log(1 - r^2)`` over the canonical pairs (Gelfand and Yaglom 1957).
        """
        r = self._pair.singular_values_
        xp = namespace(r)
        with np.errstate(divide="ignore"):  # identical views have infinite information
            each = -0.5 * xp.log1p(-(xp.clip(r, 0.0, 1.0) ** 2))
        return each if per_component else float(xp.sum(each))

    @row_wise
    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """The conditional mean of y given x.

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
        std : array of the shape of `mean`, if `return_std`
        cov : array of shape (n_targets, n_targets), if `return_cov`
            The same for every row; (n_samples, n_targets, n_targets) where rows have
            missing entries and differ.
        """
        mean = self._pair.mean_given(self._check_x(X))
        out = [mean[:, 0] if self._y_ndim == 1 else mean]
        if return_std or return_cov:
            rows, covariances = self._residuals_given(X)
        xp = namespace(mean)
        if return_std:
            spread = [xp.sqrt(xp.clip(xp.linalg.diagonal(c), 0.0, None)) for c in covariances]
            std = in_range(_for_each_row(spread, rows), mean.dtype)
            out.append(std[:, 0] if self._y_ndim == 1 else std)
        if return_cov:
            cov = covariances[0] if len(rows) == 1 else _for_each_row(covariances, rows)
            out.append(in_range(cov, mean.dtype))
        return out[0] if len(out) == 1 else tuple(out)

    def _residuals_given(self, X: Any) -> tuple[Sequence[Any], Sequence[Array]]:
        """Groups of rows, and the covariance of y given x of each: one group without gaps."""
        X = self._check_x(X, ensure_finite=False)
        if not self._have_gaps(X):
            return [np.arange(X.shape[0])], [self.covariance_]
        rows, covariances = zip(*self._pair.residuals_given(in_memory(X)), strict=True)
        return rows, covariances

    def _have_gaps(self, *views: Any) -> bool:
        return self.missing == "em" and have_gaps(*views)

    def _in_memory(self, X: Any, y: Any) -> list[Array]:
        """Both views in memory and dense; NaN remains where it is a missing entry."""
        allowed: Any = "allow-nan" if self.missing == "em" else True
        blocks = self._blocks(X, y, reset=False)
        return [
            real_rows(in_memory(blocks[v]), name, ensure_finite=allowed)
            for v, name in (("x", "X"), ("y", "y"))
        ]

    @row_wise
    def logpdf(self, X: Any, y: Any) -> Array:
        """log p(y | x) of each pair, in nats.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples, n_targets) or (n_samples,)

        Returns
        -------
        array of shape (n_samples,)
            With ``missing="em"`` that of the entries of y that are there (0 for none), given
            those of x that are there.

        Raises
        ------
        ValueError
            If widths or lengths differ, or the conditional covariance is singular (no
            shrinkage and more features than rows).
        """
        found, (X, y) = self._pair, self._in_memory(X, y)
        if self._have_gaps(X, y):
            return found.logpdf_of_entries(X, y)
        return found.logpdf(X, y)

    @row_wise
    def outlier_scores(self, X: Any, y: Any) -> Array:
        r"""How badly each y fits its x: -log p(y | x) against -log p(y), standardised.

        What is rare by itself has a low density whatever its partner, so -log p(y | x) alone
        finds rare items, not wrong pairs. The log-ratio of a true pair has under the model the
        mean :math:`I(x; y)` and the variance :math:`\sum_i r_i^2`, and the score is

        .. math:: \frac{I(x; y) - [\log p(y|x) - \log p(y)]}{\sqrt{\sum_i r_i^2}}.

        Parameters
        ----------
        X, y
            As in `logpdf`.

        Returns
        -------
        array of shape (n_samples,)
            Of mean 0 and variance 1 for true pairs under the model; large for mismatched ones.
        """
        found, (X, y) = self._pair, self._in_memory(X, y)
        if self._have_gaps(X, y):
            return found.outlier_scores_of_entries(X, y)
        return found.outlier_scores(X, y)

    @refused
    def sample(self, X: Any, n_samples: int = 1, random_state: Any = None) -> Array:
        """Draw y from p(y | x) for each row.

        Parameters
        ----------
        X : array-like of shape (n_samples_x, n_features)
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
        found, rng = self._pair, check_random_state(random_state)
        mean = found.mean_given(self._check_x(X))
        rows, covariances = self._residuals_given(X)
        parts = [
            draw(mean if len(rows) == 1 else pick(mean, r, 0), c, int(n_samples), rng)
            for r, c in zip(rows, covariances, strict=True)
        ]
        drawn = in_order(parts, rows)
        return drawn[..., 0] if self._y_ndim == 1 else drawn

    def condition(self, on: Mapping[str, Any]) -> Conditional:
        """The distribution of all other blocks given rows of some.

        Parameters
        ----------
        on : mapping of name to array-like of shape (n_samples, p)
            Blocks that are given; an empty one gives the marginal of all.

        Returns
        -------
        Conditional
            With `mean(name)`, `cov(a, b)`, `logpdf(**blocks)` and `sample()`.

        Raises
        ------
        ValueError
            If a block is unknown, all are given, or rows or widths are not right.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import ConditionalGaussian, Moments
        >>> rng = np.random.default_rng(0)
        >>> image = rng.normal(size=(200, 3))
        >>> text, audio = image[:, :2] + rng.normal(size=(200, 2)), image + 1
        >>> moments = Moments.from_data(image=image, text=text, audio=audio)
        >>> model = ConditionalGaussian(shrinkage=0.01).fit_moments(moments)
        >>> given = model.condition(on={"text": text[:5], "audio": audio[:5]})
        >>> given.mean("image").shape, given.cov("image").shape
        ((5, 3), (3, 3))
        """
        check_is_fitted(self)
        joint = self.joint_
        widths = dict(zip(joint.names, joint.widths, strict=True))
        if not set(on) <= set(widths) or len(on) == len(widths):
            raise ValueError(
                f"condition(on={{{', '.join(map(repr, on))}}}): name some, not all, of the blocks "
                f"{', '.join(widths)}"
            )
        checked = {name: real_rows(a, name) for name, a in on.items()}
        for name, a in checked.items():
            if a.shape[1] != widths[name]:
                raise ValueError(f"{name} has {a.shape[1]} features, expected {widths[name]}")
        if len({a.shape[0] for a in checked.values()}) > 1:
            shapes = ", ".join(f"{name} {tuple(a.shape)}" for name, a in checked.items())
            raise ValueError(f"the blocks given have different numbers of rows: {shapes}")
        return joint.condition(checked)

    # Two views in one space.
    def _coordinates(self, rows: Any, view: str) -> Array:
        """Canonical coordinates, in which pairs are standard normal with correlations r."""
        return project(rows, *self._pair.directions(view), "X" if view == "x" else view)

    def _vectors(self, coordinates: Array, view: str) -> Array:
        return likelihood_vectors(coordinates, self._pair.singular_values_, is_x=view == "x")

    @row_wise
    def embed(self, X: Any = None, y: Any = None) -> Any:
        """Vectors whose plain inner product is ``log p(y | x) - log p(y)``.

        Any index for inner products (FAISS, hnswlib, a vector database) serves them.

        Parameters
        ----------
        X, y : array-likes, optional
            Rows of one view or of both.

        Returns
        -------
        array of shape (n_samples, n_components_ + 2), or a pair of these
        """
        return super().embed(X, y)

    @by_rows
    def similarity(self, X: Any, y: Any) -> Array:
        """``log p(y | x) - log p(y)`` of every x with every y, shape (n_x, n_y)."""
        return super().similarity(X, y)

    @row_wise
    def fuse(self, X: Any = None, y: Any = None) -> Array:
        """The posterior mean of the shared latent given one view or both; see `CCA.fuse`.

        Returns
        -------
        array of shape (n_samples, n_components_)
        """
        found = self._variates(X, y)
        return latent_mean(found.get("x"), found.get("y"), self._pair.singular_values_)

    def score_moments(self, moments: Moments) -> float:
        """The mean of log p(y | x) over rows with these moments, in nats.

        Parameters
        ----------
        moments : Moments
            With blocks "x" and "y".

        Returns
        -------
        float
            Exactly the mean of `logpdf` over the rows; where entries are missing, over the
            rows of which something of y is there.
        """
        check_is_fitted(self)
        return self._score(self._fitting(moments), self._pair)

    def ratio_moments(self, moments: Moments) -> float:
        """The mean log p(all blocks) - sum of log p(block) over rows with these moments.

        What ``shrinkage="cv"`` maximises: for two views the mean of the diagonal of
        `similarity`, in canonical coordinates a matter of E[uv], E[u^2] and E[v^2]. Rows with
        missing entries are left out where there are others.
        """
        check_is_fitted(self)
        found: BlockNormal = self._solution
        return found.expected_ratio(self._held_out(self._fitting(moments)))


def _for_each_row(values: Sequence[Array], rows: Sequence[Any]) -> Array:
    """The value of each row, shape (n, ...), from those of groups of rows."""
    xp = namespace(*values)
    each = [
        xp.broadcast_to(v[None, ...], (r.size, *v.shape)) for v, r in zip(values, rows, strict=True)
    ]
    return in_order(each, rows)
