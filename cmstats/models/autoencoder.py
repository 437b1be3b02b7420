"""Linear autoencoders in closed form, from moments."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.linalg
import scipy.sparse
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, namespace, result_dtype
from cmstats.kernels import whitening
from cmstats.kernels.linalg import signs, svd
from cmstats.models.base import TwoViewTransformer, all_or_nothing
from cmstats.moments.moments import Moments
from cmstats.moments.whitened import Whitened
from cmstats.rows.chunks import check_lengths, check_rows, chunks, is_lazy, project
from cmstats.rows.matrix import check_matrix
from cmstats.rows.views import is_stream

__all__ = ["LinearAutoencoder"]


def _target_is(*targets: str) -> Any:
    """The method exists for these values of `target`."""
    return available_if(lambda self: self.target in targets)


class LinearAutoencoder(TwoViewTransformer):
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
    n_components : int, optional
        The length of the code; by default the rank of the map without this restriction.
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
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0, np.inf, closed="left")],
        "corruption": [Interval(Real, 0, 1, closed="left")],
        "target": [StrOptions({"self", "cross", "joint"})],
        "scale": ["boolean"],
        "solver": [StrOptions({"auto", "moments", "svd"})],
        "missing": [StrOptions({"error", "em"})],
    }

    def __init__(
        self,
        n_components: int | None = None,
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

    # ------------------------------------------------------------------------- solving
    def _solve(self, moments: Moments) -> None:
        for name in ("y_mean_", "x_weights_", "y_weights_", "shrinkage_"):
            self.__dict__.pop(name, None)  # those of another target
        self._degenerate = []
        limit = self._limit(moments)
        m = self._loss_moments(moments, fit=True)
        source, sink = self._ends
        xp = namespace(self._unit)
        if not float(xp.sum(m.variance(source))) or not float(xp.sum(m.variance(sink))):
            encode = xp.zeros((1, m.width(source)), dtype=xp.float64, device=device_of(self._unit))
            decode = xp.zeros((m.width(sink), 1), dtype=xp.float64, device=device_of(self._unit))
            self.condition_ = 1.0
            self._degenerate.append("no column varies: there is nothing to encode, the code is 0")
        elif self.target == "cross" or (self.corruption and not self.alpha):
            encode, decode = self._regression(m, limit)
        else:
            encode, decode = self._tied(m, limit)
        self._set_layers(moments, m, encode, decode)

    def _tied(self, m: Moments, limit: int) -> tuple[Array, Array]:
        """``W_1 = W_2' = diag(sqrt w) U'`` from the eigenvectors of the covariance S.

        The loss of the product map ``U diag(w) U'`` is, for each eigenvalue s, ``-2 (1-c) s w
        + w^2 ((1-c)^2 s + c (1-c) v) + 2 alpha w``: the least sum of squares of both layers is
        twice the nuclear norm of their product.
        """
        s, U = m.principal(self._ends[0], limit)
        xp = namespace(s)
        rank = int(s.shape[0])
        a = 1 - self.corruption
        noise = self.corruption * a * self._common_variance(m) if self.corruption else 0.0
        count = self._kept(rank, int(xp.count_nonzero(a * s > self.alpha)))
        s, U = s[: max(count, 1)], U[:, : max(count, 1)]
        w = (a * s - self.alpha) / (a * a * s + noise)
        half = xp.sqrt(xp.where(w > 0, w, 0.0))
        self.condition_ = float(s[0] / s[-1]) ** 0.5
        decode = U * half[None, :]
        return decode.mT, decode

    def _common_variance(self, m: Moments) -> float:
        """The variance of every feature, where there is one."""
        xp = namespace(self._unit)
        variance = m.variance(self._ends[0], ddof=0)
        varying = variance > 0
        high = float(xp.max(variance))
        low = float(xp.min(xp.where(varying, variance, high)))
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

    def _regression(self, m: Moments, limit: int) -> tuple[Array, Array]:
        """Reduced-rank regression of the target on the noisy input.

        With M = E[x~ x~'] + ridge, whitened by N, the singular value decomposition
        ``E[t x~'] N = U diag(g) V'`` gives ``W_2 = U`` and ``W_1 = diag(g) V' N'``.
        """
        source, sink = self._ends
        a = 1 - self.corruption
        variance = m.variance(source, ddof=0)
        xp = namespace(variance)
        # To add to the diagonal of the second moments, which have shrunk to a^2 of themselves.
        added = a * self.corruption * variance
        added = added + self.alpha * xp.astype(variance > 0, xp.float64)
        white = _noisy(m, source, a * a, added)
        self._warn_of_dependence(m, white.rank)
        cross = white.against(sink)
        U, gain, Vt = svd(a * cross)
        self.condition_ = white.condition
        floor = float(gain[0]) * max(cross.shape) * whitening.EPS
        count = min(limit, int(xp.count_nonzero(gain > floor)))
        count = max(self._kept(count, count), 1)
        encode = gain[:count, None] * Vt[:count, :] @ white.weights.mT
        return encode, U[:, :count]

    def _kept(self, rank: int, count: int) -> int:
        """How many components there are, with a word where fewer than asked for."""
        wanted = self.n_components or 0
        if count == 0:
            self._degenerate.append(
                f"alpha={self.alpha:g} is above every eigenvalue, so the best code is 0: lower it"
                if rank
                else "x and y do not covary: the best code is 0"
            )
        elif wanted > count:
            why = "the rank of the data" if count == rank else f"alpha={self.alpha:g} sets the rest"
            why += "; the rest are left out" if count == rank else " to 0"
            self._degenerate.append(f"only {count} of n_components={wanted} exist, {why}")
        return count

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
        return possible if self.n_components is None else self.n_components

    def _warn_of_dependence(self, m: Moments, rank: int) -> None:
        if self.alpha or self.corruption:
            return
        varying = int(namespace(self._unit).count_nonzero(m.variance("x")))
        n = min(m.n, m.rows)
        if varying >= n - 1:
            self._degenerate.append(
                f"{varying} features meet the targets of {n:g} samples exactly whatever the data: "
                "set alpha"
            )
        elif rank < varying:
            self._degenerate.append(
                f"the columns of x depend on each other linearly (rank {rank} of {varying}): "
                "predictions are right, but weights are not unique; set alpha"
            )

    # ------------------------------------------------------------------- units and layers
    @property
    def _ends(self) -> tuple[str, str]:
        """The blocks that are encoded and decoded; "z" is x and y side by side."""
        return {"self": ("x", "x"), "cross": ("x", "y"), "joint": ("z", "z")}[self.target]

    @property
    def _blocks(self) -> tuple[str, ...]:
        return ("x",) if self.target == "self" else ("x", "y")

    def _loss_moments(self, moments: Moments, *, fit: bool = False) -> Moments:
        """The moments in the units of the loss, with x and y as one block for "joint".

        While fitting, columns that do not vary are set to 0: their rounding noise is no data.
        """
        m = moments if moments.names == self._blocks else moments.select(*self._blocks)
        if fit:
            self._set_units(m)
        xp = namespace(self._unit)
        unit = xp.where(self._constant, float("inf"), self._unit) if fit else self._unit
        m = m.scaled(1 / unit)
        return m.relabelled({"z": sum(m.widths)}) if self.target == "joint" else m

    def _set_units(self, m: Moments) -> None:
        """What each column is divided by."""
        xp = namespace(m.mean("x"))
        units = []
        for name in m.names:
            variance = xp.where(m.constant(name), 0.0, m.variance(name, ddof=0))
            one = xp.ones_like(variance)
            std = xp.sqrt(xp.where(variance > 0, variance, one)) if self.scale else one
            if self.scale and (count := int(xp.count_nonzero(variance == 0))):
                first = int(xp.argmax(xp.astype(variance == 0, xp.int8)))
                self._degenerate.append(
                    f"{count} of the columns of {name} {'is' if count == 1 else 'are'} constant "
                    f"(the first is column {first}) and cannot be scaled: weight 0"
                )
            total = float(xp.sum(variance / std**2))
            units.append(std * (total or 1.0) ** 0.5 if self.target == "joint" else std)
        self._unit = xp.concat(units)
        self._constant = xp.concat([m.constant(name) for name in m.names])

    def _set_layers(self, moments: Moments, m: Moments, encode: Array, decode: Array) -> None:
        """The fitted attributes, in the units of the data and with signs by the rule."""
        source, sink = self._ends
        xp = namespace(encode)
        p = moments.width("x")
        unit_in = self._unit[:p] if source == "x" else self._unit
        unit_out = self._unit if sink != "y" else self._unit[p:]
        W = encode / unit_in[None, :]
        sign = signs(W.mT)[:, None]
        self._encode, self._decode = sign * encode, sign.mT * decode
        self.encoder_ = self._encode / unit_in[None, :]
        self.decoder_ = self._decode * unit_out[:, None]
        self.n_components_ = int(encode.shape[0])
        columns = encode.mT
        shared = xp.sum(decode * m.projected_scatter(sink, source, columns), axis=0)
        own = xp.sum(columns * m.projected_scatter(source, source, columns), axis=0)
        # The columns of the decoder are orthogonal, so the components add up.
        explained = 2 * shared - xp.sum(decode * decode, axis=0) * own
        total = float(xp.sum(m.variance(sink, ddof=0))) * m.n
        self.explained_variance_ratio_ = explained / (total or 1.0)
        self.x_mean_ = moments.mean("x")
        if self.target != "self":
            self.y_mean_ = moments.mean("y")
        if self.target == "joint":
            self._set_one_view(m.relabelled({"x": p, "y": moments.width("y")}))

    def _set_one_view(self, m: Moments) -> None:
        """``E[code | x]`` under the shrunken joint normal: ``C_s,xx^-1 C_s,xz W_1'``."""
        # The fourth moments of the balanced views together are not known: this is OAS.
        s = self.shrinkage_ = m.relabelled({"z": sum(m.widths)}).ledoit_wolf("z")
        columns, shrunk = self._encode.mT, m.shrunk(s)
        for view in ("x", "y"):
            at = m.columns(view)
            cov = sum(shrunk.project(view, b, columns[m.columns(b), :]) for b in m.names)
            N = shrunk.whiten(view).weights
            weights = N @ (N.mT @ cov)
            setattr(self, f"{view}_weights_", weights / self._unit[at, None])

    @property
    def components_(self) -> Array:
        """The encoder, under the name it has in `sklearn.decomposition.PCA`."""
        return self.encoder_

    def _enough(self, parts: list[Moments | None]) -> bool:
        some = next(m for m in parts if m is not None)
        too_many = (self.n_components or 1) > sum(some.widths)
        return too_many or super()._enough(parts)  # too many raise at once

    def _rows_needed(self) -> int:
        return (self.n_components or 1) + 1

    def _ill_conditioned(self) -> bool:
        return bool(self.condition_ > 1e4)

    # ------------------------------------------------------------------------- fitting
    # The base takes two views; target="self" has one.
    @all_or_nothing
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
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
        self._validate_params()
        if self.target != "self":
            return super().fit(X, y, sample_weight)
        if is_stream(X, y):
            self._fit_stream(X, sample_weight)
            return self._warned()
        X = self._check_x(X, reset=True, ensure_finite=False)
        if X.shape[0] < 2:
            raise ValueError(
                f"n_samples={X.shape[0]}: one sample has no variance, at least 2 are needed"
            )
        form = self._first_form(*X.shape)
        self._fit_total(Moments.from_data(**self._x_data(form, X, sample_weight)))
        auto = self.solver == "auto" and self.missing == "error"
        if form == "scatter" and auto and self._ill_conditioned():
            self._fit_total(Moments.from_data(**self._x_data("root", X, sample_weight)))
        return self._warned()

    def _batches(self, source: Any) -> Iterator[dict[str, Any]]:
        if self.target != "self":
            yield from super()._batches(source)
            return
        first = True
        for batch in source:
            x = batch["x"] if isinstance(batch, Mapping) else batch
            x = x[0] if isinstance(x, (tuple, list)) else x
            if getattr(x, "shape", (1,))[:1] != (0,):
                yield {"x": self._check_x(x, reset=first, ensure_finite=False)}
                first = False

    def _x_data(self, form: Any, X: Any, sample_weight: Any) -> dict[str, Any]:
        """What `Moments.from_data` is handed for one view."""
        data = self._data(form, X, None, sample_weight)
        return {name: value for name, value in data.items() if name != "y"}

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Add rows to those fitted so far: the result is that of `fit` on all rows together.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self
        """
        self._validate_params()
        if self.target != "self":
            return super().partial_fit(X, y, sample_weight)
        seen = getattr(self, "moments_", None)
        X = self._check_x(X, reset=seen is None, ensure_finite=False)
        form = self._first_form(np.inf, 0) if seen is None else seen.form  # type: ignore[arg-type]
        new = Moments.from_data(**self._x_data(form, X, sample_weight))
        self.moments_ = new if seen is None else seen + new
        if self._enough([self.moments_]):
            self._fit_total(self.moments_)
            return self._warned()
        return self

    @all_or_nothing
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
        self._validate_params()
        if self.target != "self":
            return super().fit_moments(moments)
        parts = [moments] if isinstance(moments, Moments) else list(moments)
        if not parts or not all(isinstance(m, Moments) for m in parts):
            raise TypeError("fit_moments takes Moments, or a list of the Moments of folds")
        total: Moments = functools.reduce(operator.add, parts)
        self.n_features_in_ = total.width("x")
        self.__dict__.pop("feature_names_in_", None)
        self._fit_total(total if total.names == ("x",) else total.select("x"))
        return self._warned()

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """``fit(X, y).transform(X)``: for "joint" too the code of X alone, as in a pipeline."""
        return self.fit(X, y, sample_weight).transform(X)

    # ------------------------------------------------------------------ coding and decoding
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
        views = tuple(self._decoded(code, name) for name in self._blocks)
        return views[0] if self.target == "self" else views

    @_target_is("cross", "joint")
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
        given = {}
        if X is not None:
            given["x"] = self._check_x(X)
        if y is not None:
            given["y"] = self._check_y(y)
        return self._encoded(given)

    def _encoded(self, given: dict[str, Any]) -> Array:
        """The code of checked views."""
        check_lengths({"X" if name == "x" else name: a for name, a in given.items()})
        codes = [
            project(a, *self._weights(name, len(given) == 2), "X" if name == "x" else name)
            for name, a in given.items()
        ]
        return codes[0] if len(codes) == 1 else codes[0] + codes[1]

    def _weights(self, view: str, both: bool) -> tuple[Array, Array]:
        """Mean and weights of one view, alone or as one of both."""
        mean = getattr(self, f"{view}_mean_")
        if self.target == "joint" and not both:
            return mean, getattr(self, f"{view}_weights_")
        p = self.x_mean_.shape[0]
        at = slice(0, p) if view == "x" else slice(p, None)
        return mean, self.encoder_[:, at].mT

    def _decoded(self, code: Array, view: str) -> Array:
        p = self.x_mean_.shape[0] if self.target == "joint" else None
        decoder = self.decoder_[:p, :] if view == "x" or p is None else self.decoder_[p:, :]
        xp = namespace(code, decoder)
        rows = code @ xp.astype(decoder.mT, code.dtype)
        rows = rows + xp.astype(getattr(self, f"{view}_mean_"), code.dtype)
        return rows[:, 0] if view == "y" and self._y_ndim == 1 else rows

    # ------------------------------------------------------------------------- judging
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
        check_is_fitted(self)
        if self.target != "self":
            return super().score(X, y, sample_weight)
        X = self._check_x(X, ensure_finite=False)
        return self.score_moments(
            Moments.from_data(**self._x_data(self.moments_.form, X, sample_weight))
        )

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
        check_is_fitted(self)
        moments = self._held_out(moments)
        widths = dict(zip(self._blocks, self._widths, strict=True))
        for name, width in widths.items():
            if moments.width(name) != width:
                raise ValueError(
                    f"the moments of {name} are of {moments.width(name)} features, but "
                    f"{type(self).__name__} is expecting {width}"
                )
        m = self._loss_moments(moments)
        source, sink = self._ends
        E, D = self._encode, self._decode
        xp = namespace(m.mean(source), E)
        total = float(xp.sum(m.variance(sink, ddof=0))) * m.n
        if not total > 0:
            warnings.warn(
                f"the score is NaN: no decoded column varies over these {m.n:g} rows",
                UserWarning,
                stacklevel=2,
            )
            return float("nan")
        columns = E.mT
        shared = float(xp.sum(D * m.projected_scatter(sink, source, columns)))
        codes = E @ m.projected_scatter(source, source, columns)
        decoded = float(xp.sum(codes * (D.mT @ D)))
        residual = total - 2 * shared + decoded + m.n * self._bias(moments)
        return 1 - residual / total

    @property
    def _widths(self) -> tuple[int, ...]:
        return tuple(int(getattr(self, f"{view}_mean_").shape[0]) for view in self._blocks)

    def _bias(self, moments: Moments) -> float:
        """The square of the mean residual, in the units of the loss."""
        xp = namespace(self._encode)
        shifts = [moments.mean(view) - getattr(self, f"{view}_mean_") for view in self._blocks]
        shift = xp.concat(shifts) / self._unit
        p = self._widths[0]
        given = shift[:p] if self.target == "cross" else shift
        wanted = shift[p:] if self.target == "cross" else shift
        mean = wanted - self._decode @ (self._encode @ given)
        return float(xp.sum(mean * mean))

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
        given = {"x": self._check_x(X)}
        if y is not None and self.target != "self":
            given["y"] = self._check_y(y)
            check_lengths({"X": given["x"], "y": given["y"]})
        parts = []
        for start, rows, _ in chunks(list(given.values())):
            for (name, a), part in zip(given.items(), rows, strict=True):
                if is_lazy(a):
                    check_rows(part, "X" if name == "x" else name, start, a)
            parts.append(self._errors(dict(zip(given, rows, strict=True))))
        if self.target == "cross" and y is None:
            # No exception: scikit-learn's contract calls this method with X alone.
            warnings.warn("errors without y are NaN: pass y", UserWarning, stacklevel=2)
        return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts)

    def _errors(self, rows: dict[str, Any]) -> Array:
        code = self._encoded({"x": rows["x"]} if self.target == "cross" else rows)
        wanted = {name: a for name, a in rows.items() if (name == "y") or self.target != "cross"}
        p, error = self._widths[0], 0.0 if wanted else code[:, 0] * float("nan")
        for view in wanted:
            part = rows[view].toarray() if scipy.sparse.issparse(rows[view]) else rows[view]
            unit = self._unit[:p] if view == "x" else self._unit[p:]
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


def _noisy(m: Moments, name: str, keep: float, added: Array) -> Whitened:
    """Whiten ``keep * S + diag(added)``, S the second moments per row of a block."""
    if bool(namespace(added).any(added > 0)):
        return m.whiten(name, keep=keep, ridge=added, ddof=0)
    # Without noise S itself on its range, so that weights are the shortest where not unique.
    white = m.whiten(name, ddof=0)
    if white.rank < m.width(name):
        # These are the shortest in units of standard deviations, for the sake of digits.
        s, U = m.principal(name, white.rank)
        if s.shape[0] == white.rank:
            weights = U / namespace(s).sqrt(s)[None, :]
            return replace(white, factor=replace(white.factor, weights=weights, root=None))
    return white
