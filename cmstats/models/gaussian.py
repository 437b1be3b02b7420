"""The conditional Gaussian model: y given x, and any block given any others."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, namespace, result_dtype
from cmstats.kernels import normal
from cmstats.kernels.linalg import inner
from cmstats.models.base import MomentsEstimator
from cmstats.moments.canonical import (
    directions,
    expected_ratio,
    latent_mean,
    likelihood_vectors,
    pairs_of,
)
from cmstats.moments.folds import best_index, grid_scores
from cmstats.moments.imputation import Filler
from cmstats.moments.joint_normal import (
    Conditional,
    JointNormal,
    draw,
    in_order,
    observed_groups,
    pick,
)
from cmstats.moments.moments import Moments
from cmstats.moments.monotone import factored, pairs_of_folds, seen_alone, shrinkage_by_density
from cmstats.moments.patterns import incomplete_rows
from cmstats.moments.shrinkage import (
    shrinkage_grid,
    shrinkage_numbers,
    shrinkage_tuple,
    standard_deviations,
)
from cmstats.rows.chunks import chunks, is_lazy, project
from cmstats.rows.matrix import check_matrix

__all__ = ["ConditionalGaussian"]


class ConditionalGaussian(MomentsEstimator):
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
        "cv" maximises the mean held-out log p(x, y) - log p(x) - log p(y) over `cv` folds:
        in-sample correlations are too large, and likelihood ratios built on them collapse.
        "auto" is Ledoit-Wolf for each view (OAS with `scale`). One value for each block
        where there are more than two.
    scale : bool, default=False
        Shrink standardised features: each feature's unit is free.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K.
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
    the ratio to log p(y), in which what y is by itself cancels.

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
        "scale": ["boolean"],
        "cv": ["cv_object"],
        "missing": [StrOptions({"error", "em"})],
    }
    _cv_parameters: ClassVar[tuple[str, ...]] = ("shrinkage",)

    def __init__(
        self,
        *,
        rank: int | None = None,
        shrinkage: Any = "cv",
        scale: bool = False,
        cv: Any = 5,
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.rank = rank
        self.shrinkage = shrinkage
        self.scale = scale
        self.cv = cv
        self.missing = missing

    # ------------------------------------------------------------------------- fitting
    def _know_blocks(self, parts: list[Moments]) -> None:
        if {"x", "y"} <= set(parts[0].names):
            super()._know_blocks(parts)
        elif len(parts[0].names) < 2:
            raise ValueError(
                f"these moments have the one block {parts[0].names[0]}: at least two are needed"
            )

    def _solve(self, moments: Moments) -> None:
        self.__dict__.pop("_cache", None)
        self._names, self._widths = moments.names, moments.widths
        self._set_covariance(moments)
        self._warn_of_degenerate(moments)
        if not self._has_views():
            return
        self.x_mean_, self.y_mean_ = self._means["x"], self._means["y"]
        m, (sx, sy) = self._scaled, (self._shrinkage_of(name) for name in ("x", "y"))
        A, r, B = directions(m.whitened("x", "y", shrinkage=(sx, sy)), self.rank)
        self.singular_values_ = ((1 - sx) * (1 - sy)) ** 0.5 * r
        self.n_components_ = int(r.shape[0])
        if self.rank is not None and self.n_components_ < self.rank:
            self._degenerate.append(
                f"only {self.n_components_} of rank={self.rank} exist, the rank of the data"
            )
        # E[y | x] = y_mean + C_yy B diag(r) A'(x - x_mean), in the scaling A'C_xx A = I
        ridge = sy * float(namespace(r).sum(m.variance("y"))) / m.width("y")
        C_yy_B = (1 - sy) / (m.n - 1) * m.projected_scatter("y", "y", B) + ridge * B
        self._pattern = self._units["y"][:, None] * C_yy_B
        self._A, self._B = A / self._units["x"][:, None], B / self._units["y"][:, None]

    def _set_covariance(self, moments: Moments) -> None:
        """Which second moments, in which units and with which shrinkage, are the model's.

        The blocks of it, at the size of a covariance each, are made when they are asked for.
        """
        alone = seen_alone(moments)
        self.shrinkage_ = self._applied = self._numbers(moments, alone)
        self._scaled, scale = moments, self.scale
        if alone is not None:
            self._scaled, scale = self._factored(moments, alone), False
            self._applied = (0.0,) * len(moments.names)
        self._units = {name: _unit(self._scaled, name, scale) for name in moments.names}
        self._means = {name: self._scaled.mean(name) for name in moments.names}
        self._scaled = self._scaled.standardized() if scale else self._scaled

    def _factored(self, moments: Moments, alone: str) -> Moments:
        """Where rows have all blocks or one, the conditional of the pairs and that marginal."""
        settings = {**self.get_params(deep=False), "shrinkage": self.shrinkage_, "cv": None}
        joint = type(self)(**settings).fit_moments(moments.complete_rows() or moments).joint_
        rows, at = moments.select(alone), moments.names.index(alone)
        s = self._chosen.get("marginal", shrinkage_tuple(self.shrinkage, len(moments.names))[at])
        s = shrinkage_numbers(rows, (alone,), (s,), scale=self.scale)[0]
        self.marginal_shrinkage_ = s
        covariance = _shrunken(rows, alone, s, self.scale)
        return factored(joint, moments, alone, covariance)

    def _has_views(self) -> bool:
        return "x" in self._names and "y" in self._names

    def _numbers(self, moments: Moments, alone: str | None) -> tuple[float, ...]:
        each = self._chosen.get("shrinkage")
        each = each or shrinkage_tuple(self.shrinkage, len(moments.names))
        rows = (None if alone is None else moments.complete_rows()) or moments
        return shrinkage_numbers(rows, moments.names, each, scale=self.scale)

    def _shrinkage_of(self, name: str) -> float:
        return self._applied[self._names.index(name)]

    def _validate_params(self) -> None:
        super()._validate_params()
        value = self.shrinkage
        shrinkage_tuple(value, len(value) if isinstance(value, (tuple, list)) else 2)

    def _resolve(self, folds: list[Moments]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        alone = seen_alone(functools.reduce(operator.add, folds))
        if alone is not None:
            at = folds[0].names.index(alone)
            if shrinkage_tuple(self.shrinkage, len(folds[0].names))[at] == "cv":
                rows = [fold.select(alone) for fold in folds]
                chosen["marginal"] = shrinkage_by_density(rows, alone, scale=self.scale)
            folds = pairs_of_folds(folds)
        grid = shrinkage_grid(self.shrinkage, len(folds[0].names))
        bare = type(self)(**{**self.get_params(deep=False), "cv": None})
        candidates = [{"shrinkage": s} for s in grid]
        found = grid_scores(bare, candidates, folds, score=_ratio_on)
        self.cv_shrinkages_, self.cv_scores_ = grid, found.scores
        return {"shrinkage": grid[best_index(found.scores)], **chosen}

    def _warn_of_degenerate(self, moments: Moments) -> None:
        n = min(moments.n, moments.rows)
        self._degenerate = []
        if self.rank is not None:
            if len(moments.names) > 2:
                raise ValueError(
                    f"rank={self.rank} is for two blocks, x and y; these moments have "
                    f"{', '.join(moments.names)}: use rank=None"
                )
            p, q = moments.widths
            possible = min(p, q, moments.rows - 1)
            if self.rank > possible:
                raise ValueError(
                    f"rank={self.rank} is too large: at most {possible} are possible, the minimum "
                    f"of {p} x-features, {q} y-features and n_samples - 1 = {moments.rows - 1}"
                )
        d = sum(moments.widths)
        if d > n - 1 and 0 in self._applied and not moments.incomplete:
            self._degenerate.append(
                f"{d} features and {n:g} samples make the joint covariance singular, so there is "
                "no density: set shrinkage='cv' or 'auto'"
            )

    # ------------------------------------------------------------------ what it learned
    def _covariance(self, a: str, b: str) -> Array:
        """A block of the shrunken covariance in the data's units."""
        units = self._units[a][:, None] * self._units[b][None, :]
        if a != b and self.rank is not None:  # C_xx A diag(r) B' C_yy
            gain = self._pattern * self.singular_values_ @ self._A.mT
            C_yx = gain @ self._covariance("x", "x")
            return C_yx if a == "y" else C_yx.mT
        if a == b:
            return units * _shrunken(self._scaled, a, self._shrinkage_of(a), False)
        sa, sb = self._shrinkage_of(a), self._shrinkage_of(b)
        return units * ((1 - sa) * (1 - sb)) ** 0.5 * self._scaled.cov(a, b)

    def _cached(self, name: str, make: Any) -> Any:
        cache = self.__dict__.setdefault("_cache", {})
        if name not in cache:
            cache[name] = make()
        return cache[name]

    @property
    def joint_(self) -> JointNormal:
        """The (shrunken) normal of all blocks, d x d."""
        check_is_fitted(self)

        def make() -> JointNormal:
            xp = namespace(*self._means.values())
            rows = [
                xp.concat([self._covariance(a, b) for b in self._names], axis=1)
                for a in self._names
            ]
            mean = xp.concat([self._means[name] for name in self._names])
            return JointNormal(self._names, self._widths, mean, xp.concat(rows))

        joint: JointNormal = self._cached("joint", make)
        return joint

    @property
    def covariance_(self) -> Array:
        """The covariance of y given x, shape (q, q)."""
        self._check_views_known()

        def make() -> Array:
            half = self._pattern * self.singular_values_
            C = self._covariance("y", "y") - half @ half.mT
            return 0.5 * (C + C.mT)

        return self._cached("covariance", make)

    @property
    def coef_(self) -> Array:
        """``S_yx S_xx^-1``, shape (q, p), or (p,) if y was 1-D in fit."""
        self._check_views_known()
        coef = self._pattern * self.singular_values_ @ self._A.mT
        return coef[0, :] if self._y_ndim == 1 else coef

    @property
    def intercept_(self) -> Array:
        """``y_mean_ - coef_ @ x_mean_``, shape (q,), or a float if y was 1-D in fit."""
        coef = self.coef_
        xp = namespace(coef)
        if self._y_ndim == 1:
            return float(self.y_mean_[0]) - float(xp.sum(coef * self.x_mean_))
        return self.y_mean_ - coef @ self.x_mean_

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
        self._check_views_known()
        xp = namespace(self.singular_values_)
        square = xp.clip(self.singular_values_, 0.0, 1.0) ** 2
        with np.errstate(divide="ignore"):  # identical views tell everything about each other
            each = -0.5 * xp.log1p(-square)
        return each if per_component else float(xp.sum(each))

    def _filler(self, view: str) -> Filler:
        return Filler(self._means[view], self._covariance(view, view))

    # ---------------------------------------------------------------------- predicting
    def _check_views_known(self) -> None:
        check_is_fitted(self)
        if not self._has_views():
            raise ValueError(
                f"the model is of the blocks {', '.join(self._names)}: this needs blocks named x "
                "and y; use condition(on=...) and joint_ for blocks of other names"
            )

    def _missing_in(self, *views: Any) -> bool:
        """Whether a view that was read but not filled has missing entries."""
        return self.missing == "em" and any(
            bool(incomplete_rows([part])[1]) for a in views for _, (part,), _ in chunks([a])
        )

    def _conditional_mean(self, X: Any) -> Array:
        weights = self._A * self.singular_values_[None, :]
        u = project(self._check_x(X), self.x_mean_, weights)  # with what is missing filled in
        xp = namespace(u)
        mean = u @ xp.astype(self._pattern.mT, u.dtype)
        return mean + xp.astype(self.y_mean_, u.dtype)

    def _covariances(self, X: Any) -> Iterator[tuple[np.ndarray[Any, Any], Array]]:
        """Rows and the conditional covariance they share: one group where nothing is missing."""
        X = self._check_x(X, ensure_finite=False)
        if not self._missing_in(X):
            yield np.arange(X.shape[0]), self.covariance_
            return
        X = _in_memory(X)
        x_columns, y_columns = (self.joint_.columns((view,)) for view in ("x", "y"))
        for mask, rows in observed_groups(X):
            yield rows, self.joint_.regression(x_columns[mask], y_columns)[1]

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
        self._check_views_known()
        mean = self._conditional_mean(X)
        out = [mean[:, 0] if self._y_ndim == 1 else mean]
        if return_std or return_cov:
            rows, covariances = zip(*self._covariances(X), strict=True)
        if return_std:
            xp = namespace(mean)
            spread = [xp.clip(xp.linalg.diagonal(c), 0.0, None)[None, :] for c in covariances]
            each = [
                xp.broadcast_to(s, (r.size, s.shape[1])) for r, s in zip(rows, spread, strict=True)
            ]
            std = xp.astype(xp.sqrt(in_order(each, rows)), mean.dtype)
            out.append(std[:, 0] if self._y_ndim == 1 else std)
        if return_cov:
            cov = covariances[0] if len(rows) == 1 else _each_row(covariances, rows)
            out.append(namespace(cov).astype(cov, mean.dtype, copy=False))
        return out[0] if len(out) == 1 else tuple(out)

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
        self._check_views_known()
        X, y = self._pair(X, y)
        covariance = self._positive(self.covariance_)
        if not self._missing_in(X, y):
            return normal.logpdf(y - self._conditional_mean(X), None, covariance)
        joint, xp = self.joint_, namespace(X, y)
        dtype = result_dtype(X)
        both = xp.concat([xp.astype(X, dtype), xp.astype(y, dtype)], axis=1)
        x_columns = joint.columns(("x",))
        all_columns = np.concatenate([x_columns, joint.columns(("y",))])
        return joint.logpdf(both, all_columns) - joint.logpdf(xp.astype(X, dtype), x_columns)

    def _pair(self, X: Any, y: Any) -> tuple[Array, Array]:
        """Both views in memory and dense; NaN stays where it stands for a missing entry."""
        X, y = (_in_memory(a) for a in self._check_views(X, y, reset=False))
        allowed: Any = "allow-nan" if self.missing == "em" else True
        return check_matrix(X, "X", ensure_finite=allowed), check_matrix(
            y, "y", ensure_finite=allowed
        )

    def _positive(self, covariance: Array) -> Array:
        """The conditional covariance, or one sentence where there is no density."""
        xp = namespace(covariance)
        variance = xp.linalg.diagonal(covariance)
        if not bool(xp.all(variance > 0)) or self._is_singular():
            raise ValueError(
                "the covariance of y given x is singular, so there is no density: set "
                "shrinkage='cv', 'auto' or a number above 0"
            )
        return covariance

    def _is_singular(self) -> bool:
        """Whether there are too few rows for a covariance of y given x without shrinkage."""
        sx, sy = (self.shrinkage_[self._names.index(view)] for view in ("x", "y"))
        m = self._total()
        m = (m.complete_rows() if seen_alone(m) else None) or m
        features = (m.width("y") if sy == 0 else 0) + (m.width("x") if sx == sy == 0 else 0)
        estimated = m.estimate is not None and m.estimate.prior > 0
        return not estimated and features > min(m.n, m.rows) - 1

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
        self._check_views_known()
        X, y = self._pair(X, y)
        if not self._missing_in(X, y):
            means, weights = (self.x_mean_, self.y_mean_), (self._A, self._B)
            return _surprise((X, y), means, weights, self.singular_values_)
        joint, xp, p = self.joint_, namespace(X, y), X.shape[1]
        columns = np.concatenate([joint.columns((view,)) for view in ("x", "y")])
        both = xp.concat([xp.astype(a, result_dtype(X)) for a in (X, y)], axis=1)
        parts, order = [], []
        for mask, rows in observed_groups(both):
            order.append(rows)
            seen = np.flatnonzero(mask[:p]), p + np.flatnonzero(mask[p:])
            if not (seen[0].size and seen[1].size):  # nothing there to compare
                parts.append(xp.zeros(rows.size, dtype=both.dtype, device=device_of(both)))
                continue
            at = [columns[i] for i in seen]
            A, r, B = pairs_of(*(joint.block(at[i], at[j]) for i, j in ((0, 1), (0, 0), (1, 1))))
            views = [pick(pick(both, rows, 0), i, 1) for i in seen]
            parts.append(_surprise(views, [joint.mean_of(a) for a in at], (A, B), r))
        return in_order(parts, order)

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
        self._check_views_known()
        rng = check_random_state(random_state)
        mean = self._conditional_mean(X)
        rows, covariances = zip(*self._covariances(X), strict=True)
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
        unknown = [name for name in on if name not in self._names]
        if unknown or len(on) == len(self._names):
            raise ValueError(
                f"condition(on={{{', '.join(map(repr, on))}}}): name some, not all, of the blocks "
                f"{', '.join(self._names)}"
            )
        checked = {name: check_matrix(a, name) for name, a in on.items()}
        for name, a in checked.items():
            width = self._widths[self._names.index(name)]
            if a.shape[1] != width:
                raise ValueError(f"{name} has {a.shape[1]} features, expected {width}")
        if len({a.shape[0] for a in checked.values()}) > 1:
            shapes = ", ".join(f"{name} {tuple(a.shape)}" for name, a in checked.items())
            raise ValueError(f"the blocks given have different numbers of rows: {shapes}")
        return self.joint_.condition(checked)

    # ----------------------------------------------------------------------- comparing
    def _coordinates(self, X: Any, y: Any) -> tuple[Array | None, Array | None]:
        """Canonical coordinates, in which pairs are standard normal with correlations r."""
        self._check_views_known()
        if X is None and y is None:
            raise ValueError("give X, y or both")
        u = v = None
        if X is not None:
            u = project(self._check_x(X), self.x_mean_, self._A)
        if y is not None:
            v = project(self._check_y(y), self.y_mean_, self._B, "y")
        return u, v

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
        u, v = self._coordinates(X, y)
        out = [
            likelihood_vectors(a, self.singular_values_, is_x=is_x)
            for a, is_x in ((u, True), (v, False))
            if a is not None
        ]
        return out[0] if len(out) == 1 else tuple(out)

    def similarity(self, X: Any, y: Any) -> Array:
        """``log p(y | x) - log p(y)`` of every x with every y, shape (n_x, n_y)."""
        u, v = self.embed(X, y)
        return inner(u, v)

    def fuse(self, X: Any = None, y: Any = None) -> Array:
        """The posterior mean of the shared latent given one view or both; see `CCA.fuse`.

        Returns
        -------
        array of shape (n_samples, n_components_)
        """
        return latent_mean(*self._coordinates(X, y), self.singular_values_)

    # ------------------------------------------------------------------------- judging
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
        self._check_views_known()
        _check_widths(self, moments)
        if moments.incomplete:
            return self._score_patterns(moments)
        # The residual of y: y - G A'x
        G = self._pattern * self.singular_values_
        A_xx = self._A.mT @ moments.projected_scatter("x", "x", self._A)
        Gt = G.mT
        S_yx_G = moments.projected_scatter("y", "x", self._A) @ Gt
        S = moments.scatter("y") - S_yx_G - S_yx_G.mT
        S = S + G @ (A_xx @ Gt)
        shift = moments.mean("y") - self.y_mean_
        shift = shift - G @ (self._A.mT @ (moments.mean("x") - self.x_mean_))
        covariance = self._positive(self.covariance_)
        residual = JointNormal(("y",), (S.shape[0],), 0 * shift, covariance)
        return residual.expected_logpdf(np.arange(S.shape[0]), moments.n, shift, S)

    def _score_patterns(self, moments: Moments) -> float:
        """The mean over the rows in which something of y is there, pattern by pattern."""
        joint, total, n = self.joint_, 0.0, 0.0
        is_x = np.zeros(sum(moments.widths), dtype=bool)
        is_x[moments.columns("x")] = True
        columns = joint.columns(moments.names)
        for pattern in moments.patterns():
            seen = np.asarray(pattern.observed)
            if not (seen & ~is_x).any():
                continue
            at = np.flatnonzero(is_x[seen])
            S_xx = pick(pick(pattern.scatter, at, 0), at, 1)
            total += pattern.n * (
                joint.expected_logpdf(columns[seen], pattern.n, pattern.mean, pattern.scatter)
                - joint.expected_logpdf(
                    columns[seen & is_x], pattern.n, pick(pattern.mean, at, 0), S_xx
                )
            )
            n += pattern.n
        return total / n if n else math.nan

    def ratio_moments(self, moments: Moments) -> float:
        """The mean log p(all blocks) - sum of log p(block) over rows with these moments.

        What ``shrinkage="cv"`` maximises: for two views the mean of the diagonal of
        `similarity`, in canonical coordinates a matter of E[uv], E[u^2] and E[v^2]. Rows with
        missing entries are left out where there are others.
        """
        check_is_fitted(self)
        moments = self._held_out(moments)
        if len(self._names) > 2 or not self._has_views():
            return self._joint_ratio(moments)
        _check_widths(self, moments)
        x, y = (self._A, self.x_mean_), (self._B, self.y_mean_)
        return expected_ratio(moments, x, y, self.singular_values_)

    def _joint_ratio(self, moments: Moments) -> float:
        moments = moments.select(*self._names)
        xp = namespace(moments.mean(self._names[0]))
        rows = [
            xp.concat([moments.scatter(a, b) for b in self._names], axis=1) for a in self._names
        ]
        S, mean = xp.concat(rows), xp.concat([moments.mean(name) for name in self._names])
        total = self.joint_.expected_logpdf(np.arange(mean.shape[0]), moments.n, mean, S)
        for name in self._names:
            total -= self.joint_.expected_logpdf(
                self.joint_.columns((name,)), moments.n, moments.mean(name), moments.scatter(name)
            )
        return total


def _ratio_on(model: ConditionalGaussian, moments: Moments) -> float:
    return model.ratio_moments(moments)


def _unit(moments: Moments, name: str, scale: bool) -> Array:
    """What the columns of a block are divided by."""
    if scale:
        return standard_deviations(moments, name)
    mean = moments.mean(name)
    return namespace(mean).ones_like(mean)


def _shrunken(moments: Moments, name: str, s: float, scale: bool) -> Array:
    """``(1 - s) C + s tr(C) / p I`` of one block; with `scale` of its standardised columns."""
    unit = _unit(moments, name, scale)
    m = moments.standardized() if scale else moments
    xp = namespace(unit)
    ridge = s * float(xp.sum(m.variance(name))) / m.width(name)
    eye = xp.eye(m.width(name), dtype=xp.float64, device=device_of(unit))
    return unit[:, None] * unit[None, :] * ((1 - s) * m.cov(name) + ridge * eye)


def _in_memory(a: Any) -> Array:
    a = np.asarray(a) if is_lazy(a) else a
    return a.toarray() if hasattr(a, "toarray") else a


def _surprise(views: Sequence[Array], means: Any, weights: Any, r: Array) -> Array:
    """The standardised log-ratio of pairs, from weights with a'S a = 1 and correlations r."""
    u, v = (
        likelihood_vectors(project(a, mean, W), r, is_x=is_x)
        for a, mean, W, is_x in zip(views, means, weights, (True, False), strict=True)
    )
    xp = namespace(u, v)
    r = xp.clip(r, 0.0, 1 - 1e-12)
    information = -0.5 * float(xp.sum(xp.log1p(-r * r)))
    spread = max(float(xp.sum(r * r)) ** 0.5, 1e-300)
    return (information - xp.sum(u * v, axis=1)) / spread


def _check_widths(model: ConditionalGaussian, moments: Moments) -> None:
    for view, weights in (("x", model._A), ("y", model._B)):
        if moments.width(view) != weights.shape[0]:
            raise ValueError(
                f"the moments of {view} are of {moments.width(view)} features, but "
                f"{type(model).__name__} is expecting {weights.shape[0]}"
            )


def _each_row(covariances: Sequence[Array], rows: Sequence[np.ndarray[Any, Any]]) -> Array:
    """The covariance of each row, shape (n, q, q), from those of groups of rows."""
    xp = namespace(*covariances)
    each = [
        xp.broadcast_to(c[None, :, :], (r.size, *c.shape))
        for c, r in zip(covariances, rows, strict=True)
    ]
    return in_order(each, rows)
