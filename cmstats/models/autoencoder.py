"""Linear autoencoders in closed form, from moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, namespace, result_dtype, to_numpy, warn
from cmstats.models.base import MomentsModel
from cmstats.models.dask import row_wise
from cmstats.models.latent import Containers, from_coordinates
from cmstats.models.layers import Layers, LossUnits
from cmstats.models.reduced_rank import (
    LinearCode,
    empty_code,
    reduced_rank_regression,
    shrunken_components,
)
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import check_lengths, check_rows, chunks, is_lazy, project
from cmstats.rows.matrix import check_matrix

__all__ = ["LinearAutoencoder"]


def _varies(m: Moments, name: str) -> bool:
    return bool(float(namespace(m.mean(name)).sum(m.variance(name))))


def _target_is(*targets: str) -> Any:
    """The method exists for these values of `target`."""
    return available_if(lambda self: self.target in targets)


class LinearAutoencoder(Containers, MomentsModel):
    r"""Encode to a few numbers and decode again, both linearly, at the global optimum.

    With the code :math:`W_1 (x - \bar x)` of `n_components` numbers and the decoder
    :math:`W_2`, the loss is a mean over rows and a sum over features:

    .. math:: E\lVert t - W_2 W_1 \tilde x\rVert^2 +
              \alpha\,(\lVert W_1\rVert_F^2 + \lVert W_2\rVert_F^2)

    - ``target="self"``: t = x. The optimum spans the leading principal components (Baldi and
      Hornik 1989). `alpha` shrinks them, :math:`W_2 W_1 = U\,\mathrm{diag}(w)\,U'` with
      :math:`w_i = \max(0, 1 - \alpha / s_i)` for the eigenvalues s of the covariance (ddof=0),
      and with both layers penalised the code is the principal components themselves and not
      a rotation of them (Kunin et al. 2019).
    - ``target="cross"``: t = y. Reduced-rank regression (Izenman 1975); `alpha` is here a
      ridge on the product, :math:`\alpha\lVert W_2 W_1\rVert_F^2`.
    - ``target="joint"``: x and t are both views side by side, each divided by the root of
      its total variance, so that neither rules by its units or its width. Either view alone
      is encoded by the regression of the code on it, and decoded into both.

    `corruption` c hides each entry of the input with probability c behind its mean,
    :math:`\tilde x`, independently; the expectation over all masks is taken exactly (Chen et
    al. 2012): :math:`E\tilde x\tilde x' = (1-c)^2 S + c(1-c)\,\mathrm{diag}\,S` and
    :math:`E\,t\tilde x' = (1-c) S_{tx}`, followed by reduced-rank regression.

    **Which model?** To compress one view, or as input of something else: ``target="self"``,
    which at alpha = corruption = 0 is PCA. To predict y from x: ``target="cross"``, which at
    full rank is least squares (ridge with `alpha`), and is PCA where y = x. To find what two
    views share whatever its variance, or to retrieve across them: `CCA`, which is
    reduced-rank regression of a whitened y; on two whitened views of one width p
    ``target="joint"`` finds the same directions, with variance (1 + correlation) / p. For one
    code that keeps most of both views and can be had from either: ``target="joint"``.

    Parameters
    ----------
    n_components : int or float, optional
        The length of the code; by default the rank of the map without this restriction. A number
        between 0 and 1, for "self" and "joint": as few as keep more than this share of the
        variance, as in `sklearn.decomposition.PCA`.
    alpha : float, default=0.0
        The L2 penalty above, in units of the variance of a feature (after `scale`; for
        "joint" in units of the total variance of a view). It does not depend on the number
        of rows.
    corruption : float in [0, 1), default=0.0
        The probability that an entry is hidden while fitting.
    target : {"self", "cross", "joint"}, default="self"
        What is decoded. "cross" and "joint" need y in `fit`.
    scale : bool, default=False
        Divide each feature by its standard deviation (ddof=0) for the loss.
    solver : {"auto", "moments", "svd"}, default="auto"
        As in `CCA`: the scatter matrix, or a root of it. "auto" uses the root for wide data
        and where the condition number of what is kept of the data is above 1e4.
    missing : {"error", "em"}, default="error"
        As in `CCA`: with "em" NaN is an entry that was not observed.

    Attributes
    ----------
    encoder_, components_ : array of shape (n_components_, p)
        W_1: the code is ``(X - x_mean_) @ encoder_.T``; p + q columns for "joint". The
        largest absolute weight of each component is positive.
    decoder_ : array of shape (p, n_components_)
        W_2: the reconstruction is ``x_mean_ + code @ decoder_.T``; q rows for "cross", p + q
        for "joint". With `alpha` in "self" and "joint" both layers have the same norms;
        otherwise the split is free, and the columns are orthonormal (in the loss's units).
    explained_variance_ratio_ : array of shape (n_components_,)
        How much each component adds to the training score.
    x_weights_, y_weights_ : arrays of shape (p, n_components_), (q, n_components_)
        For "joint": the code of x alone is ``(X - x_mean_) @ x_weights_``.
    shrinkage_ : float
        For "joint": the shrinkage of the covariance that these regressions rest on.
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    n_components_ : int
    n_samples_ : float
        The sum of the weights.
    moments_ : Moments
        What it was fitted on.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    CCA : The directions of the largest correlation.

    Notes
    -----
    *alpha and corruption together* have a closed form for "self" and "joint" only where all
    features have one variance v, as with `scale`:
    :math:`w_i = \max(0, ((1-c) s_i - \alpha) / ((1-c)^2 s_i + c(1-c) v))`. Elsewhere the
    penalty and the noise do not share their axes, and `fit` raises.

    *Clean rows after corruption.* The map fitted to rows that lack a share c of their entries
    makes up for them: on clean rows its reconstruction is larger, by up to 1 / (1 - c).

    *One view of a joint code.* The code is linear in both views, so its conditional mean
    given one is its regression on that view. Least squares overfits where a view has many
    columns (on 500 MNIST digits, predicting one half from the other was worse than the mean),
    and the posterior of probabilistic PCA (Tipping and Bishop 1999) takes all that is private
    to a view for isotropic noise (10 components of MNIST halves: R2 .08 where regression has
    .28). So the mean is that of the joint normal with its covariance shrunk by one number,
    oracle approximating shrinkage (Chen et al. 2010) of the balanced views together: without
    a parameter, and in no trial on emoji or MNIST halves worse than the mean.

    References
    ----------
    Baldi, P. and Hornik, K. (1989). Neural networks and principal component analysis: learning
    from examples without local minima. Neural Networks 2.
    Chen, M., Xu, Z., Weinberger, K. and Sha, F. (2012). Marginalized denoising autoencoders for
    domain adaptation. ICML.
    Chen, Y., Wiesel, A., Eldar, Y. and Hero, A. (2010). Shrinkage algorithms for MMSE covariance
    estimation. IEEE Trans. Signal Processing 58.
    Izenman, A. (1975). Reduced-rank regression for the multivariate linear model. J.
    Multivariate Analysis 5.
    Kunin, D., Bloom, J., Goeva, A. and Seed, C. (2019). Loss landscapes of regularized linear
    autoencoders. ICML.
    Tipping, M. and Bishop, C. (1999). Probabilistic principal component analysis. J. Royal
    Statistical Society B 61.

    Examples
    --------
    >>> from cmstats import load_emoji
    >>> from cmstats import LinearAutoencoder
    >>> image, text = load_emoji(return_X_y=True)
    >>> pca = LinearAutoencoder(20).fit(image)
    >>> pca.transform(image).shape
    (1870, 20)
    >>> round(pca.score(image), 2) == round(float(pca.explained_variance_ratio_.sum()), 2)
    True
    >>> both = LinearAutoencoder(20, target="joint").fit(image, text)
    >>> image_again, text_guess = both.inverse_transform(both.transform(image))
    >>> text_guess.shape
    (1870, 384)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            None,
        ],
        "alpha": [Interval(Real, 0, np.inf, closed="left")],
        "corruption": [Interval(Real, 0, 1, closed="left")],
        "target": [StrOptions({"self", "cross", "joint"})],
        "scale": ["boolean"],
        "solver": [StrOptions({"auto", "moments", "svd"})],
        "missing": [StrOptions({"error", "em"})],
    }
    collects: ClassVar[tuple[str, ...]] = ("missing", "solver", "target")

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        alpha: float = 0.0,
        corruption: float = 0.0,
        target: Literal["self", "cross", "joint"] = "self",
        scale: bool = False,
        solver: Literal["auto", "moments", "svd"] = "auto",
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.corruption = corruption
        self.target = target
        self.scale = scale
        self.solver = solver
        self.missing = missing

    def _solve(self, m: Moments) -> Layers:
        limit = self._limit(m)
        units = LossUnits.of(m, self.target, scale=self.scale)
        loss, (source, sink) = units.moments(m, training=True), units.ends
        given = {"alpha": self.alpha, "corruption": self.corruption}
        if isinstance(self.n_components, float):
            limit = self._of_share(loss, source, limit)
        if not (_varies(loss, source) and _varies(loss, sink)):
            code = empty_code(loss, source, sink)
            notes = ["no column varies: there is nothing to encode, the code is 0"]
        elif self.target == "cross" or (self.corruption and not self.alpha):
            code = reduced_rank_regression(loss, source, sink, limit, **given)
            notes = self._dependent(loss, code) + self._missing_components(code)
        else:
            variance = self._common_variance(loss, source) if self.corruption else 0.0
            code = shrunken_components(loss, source, limit, **given, variance=variance)
            notes = self._missing_components(code)
        return Layers.of(m, units, loss, code, (*units.notes, *notes))

    def _of_share(self, m: Moments, name: str, most: int) -> int:
        """The least number of principal components with more than a share of the variance."""
        if self.target == "cross":
            raise ValueError(
                f"n_components={self.n_components}, a share of the variance, is for target='self' "
                "and 'joint': give the number of components for 'cross'"
            )
        values = to_numpy(m.principal(name, most)[0])
        total = float(namespace(m.mean(name)).sum(m.variance(name, ddof=0)))
        reached = np.cumsum(values) > float(self.n_components or 0) * total
        return int(np.argmax(reached)) + 1 if reached.any() else max(len(values), 1)

    def _common_variance(self, m: Moments, name: str) -> float:
        """The variance of every feature, where there is one."""
        variance = m.variance(name, ddof=0)
        xp = namespace(variance)
        high = float(xp.max(variance))
        low = float(xp.min(xp.where(variance > 0, variance, high)))
        if high - low > 1e-6 * high:
            advice = (
                "the balanced views differ in their number of features"
                if self.scale
                else "set scale=True"
            )
            raise ValueError(
                f"alpha={self.alpha:g} and corruption={self.corruption:g} together have a closed "
                f"form only where all features have one variance, here they have from {low:g} to "
                f"{high:g}: {advice}, or set one of the two to 0"
            )
        return high

    def _missing_components(self, code: LinearCode) -> list[str]:
        """A sentence where there are fewer components than asked for."""
        if code.count == 0:
            return [
                f"alpha={self.alpha:g} is above every eigenvalue, so the best code is 0: lower it"
                if code.rank
                else "x and y do not covary: the best code is 0"
            ]
        if (self.n_components or 0) <= code.count:
            return []
        full = code.count == code.rank
        why = "the rank of the data" if full else f"alpha={self.alpha:g} sets the rest"
        why += "; the rest are left out" if full else " to 0"
        return [f"only {code.count} of n_components={self.n_components} exist, {why}"]

    def _dependent(self, m: Moments, code: LinearCode) -> list[str]:
        """A sentence where least squares is not unique, or exact whatever the data."""
        if self.alpha or self.corruption:
            return []
        varying = int(namespace(code.encode).count_nonzero(m.variance("x")))
        n = m.rows
        if varying >= n - 1:
            return [
                f"{varying} features meet the targets of {n:g} samples exactly whatever the data: "
                "set alpha"
            ]
        if (code.white_rank or 0) >= varying:
            return []
        return [
            f"the columns of x depend on each other linearly (rank {code.white_rank} of "
            f"{varying}): predictions are right, but weights are not unique; set alpha"
        ]

    def _limit(self, moments: Moments) -> int:
        """The most components there may be."""
        p, what = moments.width("x"), f"{moments.width('x')} x-features"
        if self.target != "self":
            q = moments.width("y")
            p, what = (p + q if self.target == "joint" else min(p, q)), what + f", {q} y-features"
        possible = min(p, moments.rows - 1)
        if self.n_components is not None and self.n_components > possible:
            raise ValueError(
                f"n_components={self.n_components} is too large: at most {possible} are possible "
                f"with target={self.target!r}, {what} and n_samples - 1 = {moments.rows - 1}"
            )
        whole = isinstance(self.n_components, Integral)
        return int(self.n_components) if whole else possible  # type: ignore[arg-type]

    @property
    def components_(self) -> Array:
        """The encoder, under the name it has in `sklearn.decomposition.PCA`."""
        return self.encoder_

    def _score(self, moments: Moments, model: Layers) -> float:
        share = model.explained(moments)
        if np.isnan(share):
            warn(f"the score is NaN: no decoded column varies over these {moments.n:g} rows")
        return share

    def _most_components(self, widths: Sequence[int]) -> int:
        return sum(widths)

    # One view for target="self", where the base has two.
    def _blocks(self, X: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        if self.target != "self":
            return super()._blocks(X, y, reset=reset)
        return {"x": self._check_x(X, reset=reset, ensure_finite=False)}

    def _of_batch(self, batch: Any, number: int) -> tuple[Any, ...]:
        if self.target != "self":
            return super()._of_batch(batch, number)
        x = batch["x"] if isinstance(batch, Mapping) else batch
        return (x[0] if isinstance(x, (tuple, list)) else x,)

    def _fit_parts(self, parts: list[Any]) -> list[str]:
        if self.target == "self" and all(isinstance(m, Moments) for m in parts):
            parts = [m if m.names == ("x",) else m.select("x") for m in parts]
        return super()._fit_parts(parts)

    def _know_blocks(self, parts: list[Moments]) -> None:
        if self.target != "self":
            super()._know_blocks(parts)
        self.n_features_in_ = parts[0].width("x")
        self._know_names(parts[0])

    def _block_widths(self) -> dict[str, int]:
        found: Layers = self._solution
        return {view: int(found.mean(view).shape[0]) for view in found.units.blocks}

    def fit(  # type: ignore[override]
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> Self:
        """Fit to rows, in one pass over them.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), or iterable of batches
            Without `y` also an iterator of matrices, or an iterable of batches (X, y).
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,), optional
            The second view, for "cross" and "joint"; ignored for "self".
        sample_weight : array of shape (n_samples,), optional
            Frequency weights: weight 2 is the row twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If values are not finite, lengths differ, there is only one row, a parameter is
            out of range, or alpha and corruption are both set on features of different
            variances (see Notes of the class).
        """
        return super().fit(X, y, sample_weight)

    def partial_fit(  # type: ignore[override]
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> Self:
        """Add rows to those fitted so far: the result is that of `fit` on all rows together.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self
        """
        return super().partial_fit(X, y, sample_weight)

    def fit_moments(self, moments: Moments | Sequence[Moments]) -> Self:
        """Fit to moments of block "x", and "y" for "cross" and "joint".

        Parameters
        ----------
        moments : Moments or list of Moments
            A list is merged.

        Returns
        -------
        self

        Raises
        ------
        KeyError
            If a block is missing.
        """
        return super().fit_moments(moments)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """``fit(X, y).transform(X)``: for "joint" too the code of X alone, as in a pipeline."""
        return self.fit(X, y, sample_weight).transform(X)

    @row_wise
    def transform(self, X: Any = None, y: Any = None) -> Any:
        """The code of rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), optional
        y : array-like or sparse matrix of shape (n_samples, n_targets), optional
            For "joint" only: given with X, the code of the pair; without, that of y alone.

        Returns
        -------
        array of shape (n_samples, n_components_)

        Raises
        ------
        ValueError
            If there is nothing to encode, y is given and `target` is not "joint", or widths,
            lengths or values are not right.
        """
        return self._wrap(self._code(X, y), y if X is None else X)

    @_target_is("joint")
    @row_wise
    def fuse(self, X: Any = None, y: Any = None) -> Array:
        """The code of one view or both, for ``target="joint"``: `transform` as a plain array.

        Parameters
        ----------
        X, y
            As in `transform`.

        Returns
        -------
        array of shape (n_samples, n_components_)
        """
        return self._code(X, y)

    @_target_is("self", "joint")
    @row_wise
    def inverse_transform(self, X: Any) -> Any:
        """Rows decoded from their code, for "self" and "joint".

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_)
            The code.

        Returns
        -------
        array of shape (n_samples, n_features), or a pair of arrays
            x; for "joint" the pair (x, y).
        """
        check_is_fitted(self)
        code = check_matrix(X, "X")
        code = code.toarray() if scipy.sparse.issparse(code) else code
        if code.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {code.shape[1]} columns, but the code has {self.n_components_} components"
            )
        code = namespace(code).astype(code, result_dtype(code), copy=False)
        views = tuple(self._decoded(code, name) for name in self._solution.units.blocks)
        return views[0] if self.target == "self" else views

    @_target_is("cross", "joint")
    @row_wise
    def predict(self, X: Any) -> Array:
        """y from x by way of the code, for "cross" and "joint".

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_targets), or (n_samples,) if y was 1-D in fit
        """
        return self._decoded(self._code(X, None), "y")

    def _code(self, X: Any, y: Any) -> Array:
        check_is_fitted(self)
        if self.target != "joint" and y is not None:
            raise ValueError(f"target={self.target!r} has no encoder of y: leave y out")
        if X is None and y is None:
            raise ValueError("give X, y or both" if self.target == "joint" else "give X")
        return self._encoded({view: rows for view, (rows, _) in self._given(X, y).items()})

    def _encoded(self, given: dict[str, Any]) -> Array:
        """The code of checked views."""
        check_lengths({"X" if name == "x" else name: a for name, a in given.items()})
        layers, alone = self._solution, len(given) == 1
        codes = [
            project(
                a,
                layers.mean(name),
                layers.weights(name, alone=alone),
                "X" if name == "x" else name,
            )
            for name, a in given.items()
        ]
        return codes[0] if alone else codes[0] + codes[1]

    def _decoded(self, code: Array, view: str) -> Array:
        layers, ndim = self._solution, self._y_ndim if view == "y" else 2
        return from_coordinates(code, layers.decoder(view), layers.mean(view), ndim)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Explained variance of held-out rows: `score_moments` of their moments.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        float
            See `score_moments`.
        """
        return super().score(X, y, sample_weight)

    def score_moments(self, moments: Moments) -> float:
        """The share of variance that the decoded rows explain, 1 - residual / total.

        Parameters
        ----------
        moments : Moments
            With block "x", and "y" for "cross" and "joint".

        Returns
        -------
        float
            For all decoded features together, about the mean of the test rows and in the
            units of the loss: scikit-learn's ``r2_score(..., multioutput="variance_weighted")``
            of x ("self"), y ("cross") or both balanced views ("joint", encoded from both),
            after `scale`. 1 is best; the mean of the test rows has 0. NaN, with a warning,
            where nothing varies.
        """
        return super().score_moments(moments)

    @row_wise
    def score_samples(self, X: Any, y: Any = None) -> Array:
        """The squared reconstruction error of each row, summed over features.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,), optional
            The other view, for "cross" and "joint". "joint" without it gives the error of x
            encoded from x alone.

        Returns
        -------
        array of shape (n_samples,)
            In the units of the loss: of the data, unless `scale` or ``target="joint"``. Large
            values mark rows, or pairs, unlike the training data. NaN, with a warning, for
            "cross" without y.
        """
        check_is_fitted(self)
        found = self._given(X, None if self.target == "self" else y)
        given = {view: rows for view, (rows, _) in found.items()}
        check_lengths(given)
        parts = []
        for start, rows, _ in chunks(list(given.values())):
            for (name, a), part in zip(given.items(), rows, strict=True):
                if is_lazy(a):
                    check_rows(part, "X" if name == "x" else name, start, a)
            parts.append(self._errors(dict(zip(given, rows, strict=True))))
        if self.target == "cross" and y is None:
            # No exception: scikit-learn's contract calls this method with X alone.
            warn("errors without y are NaN: pass y")
        return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts)

    def _errors(self, rows: dict[str, Any]) -> Array:
        code = self._encoded({"x": rows["x"]} if self.target == "cross" else rows)
        wanted = {name: a for name, a in rows.items() if (name == "y") or self.target != "cross"}
        units, error = self._solution.units, 0.0 if wanted else code[:, 0] * float("nan")
        for view in wanted:
            part = rows[view].toarray() if scipy.sparse.issparse(rows[view]) else rows[view]
            unit = units.unit[units.cut(view)]
            decoded = self._decoded(code, view)
            decoded = decoded[:, None] if decoded.ndim == 1 else decoded
            xp = namespace(code, part)
            off = (xp.astype(part, code.dtype) - decoded) / xp.astype(unit, code.dtype)
            error = error + xp.sum(off * off, axis=1)
        return error

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: y is required unless ``target="self"``."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.target != "self"
        return tags
