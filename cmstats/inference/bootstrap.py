"""Bootstrap of the fitted attributes of a two-view model, and the stability of its components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from cmstats.arrays import check_count, to_numpy, warn
from cmstats.inference.fitted import check_level, component_index, feature_names, inner_model
from cmstats.inference.refits import Align, Refits, alignment, said_once
from cmstats.metrics.tables import as_table
from cmstats.rows.progress import check_shown

__all__ = ["BootstrapResult", "bootstrap", "component_stability"]


@dataclass(frozen=True)
class BootstrapResult:
    """Estimate, standard error and interval of a statistic.

    Attributes
    ----------
    estimate, standard_error, lower, upper : arrays of the statistic's shape
        The statistic of all rows, the standard deviation over resamples and the interval.
    distribution : array of shape (n_resamples - n_failed, ...)
        The statistic of every resample, aligned to the estimate.
    level : float
        The nominal coverage of the interval.
    method : str
        "percentile" or "bca".
    n_failed : int
        Resamples that could not be fitted or have no finite statistic, which are left out.

    Examples
    --------
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.inference import bootstrap
    >>> X, Y = load_linnerud(return_X_y=True)
    >>> result = bootstrap(CCA(1), X, Y, "y_loadings_", n_resamples=20, random_state=0)
    >>> result.distribution.shape, result.level
    ((20, 3, 1), 0.95)
    """

    estimate: Any
    standard_error: Any
    lower: Any
    upper: Any
    distribution: Any
    level: float
    method: str
    n_failed: int = 0
    _features: list[str] | None = field(default=None, repr=False)

    @property
    def features(self) -> list[str] | None:
        """Names of the rows of the statistic, if it has one row per feature of a view."""
        return self._features

    def __repr__(self) -> str:
        count = len(self.distribution)
        lost = f", {self.n_failed} that failed left out" if self.n_failed else ""
        return (
            f"BootstrapResult: {self.level:.0%} {self.method} intervals from {count} "
            f"resamples{lost}\n{self.to_frame()}"
        )

    def to_frame(self) -> pd.DataFrame:
        """The result as a frame with one row per number.

        Returns
        -------
        DataFrame
            Columns ``estimate``, ``standard_error``, ``lower`` and ``upper``; rows are indexed
            by feature and component where these are known, else by position.
        """
        shape = self.estimate.shape
        if self.features is not None:
            components = component_index(shape[1])
            names = ["feature", "component"]
            index: Any = pd.MultiIndex.from_product([self.features, components], names=names)
        elif len(shape) > 1:
            index = pd.MultiIndex.from_product([range(size) for size in shape])
        else:
            index = pd.RangeIndex(int(np.prod(shape)))
        columns = ("estimate", "standard_error", "lower", "upper")
        values = {name: np.ravel(getattr(self, name)) for name in columns}
        return as_table(pd.DataFrame(values, index=index))


def bootstrap(
    estimator: Any,
    X: Any,
    y: Any,
    statistic: str | Callable[[Any], Any],
    *,
    n_resamples: int = 999,
    method: Literal["percentile", "bca"] = "percentile",
    level: float = 0.95,
    align: Align | None = "procrustes",
    cv: Any = 20,
    sample_weight: Any = None,
    groups: Any = None,
    random_state: Any = None,
    verbose: bool = False,
) -> BootstrapResult:
    r"""Standard errors and intervals by refitting to resampled rows.

    With :math:`\hat t` the statistic of all rows and :math:`t^*_1, \dots, t^*_B` those of the
    resamples, the standard error is the standard deviation of the :math:`t^*_b`, and the ends of
    the interval of level :math:`1 - 2\alpha` are their quantiles of order :math:`\alpha` and
    :math:`1 - \alpha` ("percentile") or, with :math:`z = \Phi^{-1}(\alpha)` and
    :math:`\Phi^{-1}(1 - \alpha)`, of order

    .. math:: \Phi\Bigl(z_0 + \frac{z_0 + z}{1 - a (z_0 + z)}\Bigr), \quad
        z_0 = \Phi^{-1}\Bigl(\frac{\#\{t^*_b < \hat t\}}{B}\Bigr), \quad
        a = \frac{\sum_j (\bar t - t_{(j)})^3}{6 \bigl(\sum_j (\bar t - t_{(j)})^2\bigr)^{3/2}}

    ("bca"; ties count half, and :math:`t_{(j)}` is the statistic without fold j).

    A resample is a set of frequency weights, the multinomial counts of its rows: moments
    estimators are refitted by one weighted pass, no rows are copied. (A fit that chooses a
    parameter by folds keeps all copies of a row in one fold.) Estimators whose `fit` takes
    no `sample_weight` are fitted to the repeated rows.

    Parameters
    ----------
    estimator : two-view estimator
        Cloned, then fitted to ``X, y`` and to each resample.
    X, y : array-likes of shapes (n, p), (n, q)
        The two views; row i of both is the same item.
    statistic : str or callable
        A fitted attribute such as "x_weights_" or "y_loadings_", or a function of the fitted
        estimator that returns a number or an array; for a retrieval metric on held-out rows,
        ``lambda m: recall_at_k(*m.embed(X_test, y_test))``.
    n_resamples : int, default=999
        The number B of resamples, at least 2.
    method : {"percentile", "bca"}, default="percentile"
        "bca" corrects bias and skewness (Efron 1987), with the acceleration from a jackknife
        over `cv` folds of the rows.
    level : float, default=0.95
        The nominal coverage of the intervals.
    align : {"procrustes", "match"} or None, default="procrustes"
        How the components of a resample are aligned to those of all rows, for attributes with
        components in their columns: signs are arbitrary, and components of nearly equal
        correlation are exchanged or mixed. "procrustes" applies the orthogonal matrix that
        brings the variates closest to those of all rows (Milan and Whittaker 1995); "match"
        only permutes and changes signs. The values of functions are not aligned.
    cv : int, splitter or iterable of splits, default=20
        The folds for "bca".
    sample_weight : array of shape (n,), optional
        Frequency weights: weight 2 is the row twice.
    groups : array of shape (n,), optional
        Labels of rows that depend on each other (captions of one image, scans of one subject).
        Whole groups are drawn then, as many as there are (the cluster bootstrap: Davison and
        Hinkley 1997, section 3.8), the folds for "bca" keep them together, and so does a fit
        that chooses a parameter by folds.
    random_state : int, RandomState or None
        Seed of the resamples.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    BootstrapResult

    Warns
    -----
    UserWarning
        If some resamples cannot be fitted, too few distinct rows for the components, say, or have
        no finite statistic: how many are left out.
        For canonical correlations: resampling adds to their upward bias, and 90% percentile
        intervals cover the true value rarely or never (15 and 10 features, 200 rows: coverage
        .24 for rho = .8 and .00 for .5). Use `correlation_intervals`, which does not resample.

    Raises
    ------
    ValueError
        If a parameter is out of range, the estimator has no such attribute, or more than half
        of the resamples cannot be used.

    References
    ----------
    Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application. Cambridge.
    Efron, B. (1987). Better bootstrap confidence intervals. JASA 82.
    Milan, L. and Whittaker, J. (1995). Application of the parametric bootstrap to models that
    incorporate a singular value decomposition. Applied Statistics 44.

    Examples
    --------
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.inference import bootstrap
    >>> X, Y = load_linnerud(return_X_y=True)
    >>> found = bootstrap(CCA(1), X, Y, "x_loadings_", n_resamples=50, random_state=0)
    >>> found.to_frame().shape
    (3, 4)
    >>> bool((found.lower <= found.upper).all())
    True
    """
    level = check_level(level)
    n_resamples = _check_options(n_resamples, method, align, verbose)
    if statistic in ("correlations_", "singular_values_"):
        warn(
            "bootstrap intervals of canonical correlations are biased upwards and miss the truth "
            "far too often: use correlation_intervals",
        )
    refits = Refits(estimator, X, y, sample_weight, groups)
    measure = _Measure(statistic, align, refits)
    with said_once("in a resample"):
        counts = refits.resamples(n_resamples, random_state, verbose)
        distribution = np.stack(refits.measured(counts, measure, "resamples"))
        if method == "bca":
            parts = refits.without_folds(cv)
            jackknife = np.stack(refits.measured(parts, measure, "fits without a fold"))
            lower, upper = _bca(distribution, measure.estimate, jackknife, level)
        else:
            ends = [(1 - level) / 2, (1 + level) / 2]
            lower, upper = np.quantile(distribution, ends, axis=0)
    spread = distribution.std(axis=0, ddof=1)
    return BootstrapResult(
        *(measure.estimate, spread, lower, upper, distribution, level, method),
        n_failed=n_resamples - len(distribution),
        _features=measure.features,
    )


def component_stability(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_resamples: int = 100,
    sample_weight: Any = None,
    groups: Any = None,
    random_state: Any = None,
    verbose: bool = False,
) -> pd.DataFrame:
    r"""How closely fits to resampled rows reproduce each component.

    With :math:`u_k` the variate k of all rows, :math:`u^{(b)}_k` the matching one of the fit to
    resample b, and :math:`Q_k`, :math:`Q^{(b)}_k` orthonormal bases of the first k variates, all
    of them evaluated on the rows of `X`,

    .. math:: \text{cosine}_k = \frac1B \sum_b |\operatorname{corr}(u_k, u^{(b)}_k)|, \quad
        \text{subspace}_k = \frac1B \sum_b \frac1k \sum_{i \le k} \sigma_i(Q_k' Q^{(b)}_k)

    and likewise for `y`. Components are matched by the assignment that maximises the sum of
    absolute correlations of both views.

    Parameters
    ----------
    estimator, X, y, n_resamples, sample_weight, groups, random_state, verbose
        As in `bootstrap`.

    Returns
    -------
    DataFrame of one row per component
        ``x_cosine`` and ``y_cosine``, the mean absolute correlation of a variate with the
        matching one of a resample; ``x_subspace`` and ``y_subspace``, the mean cosine of the
        principal angles between the spans of the variates up to this one (Bjoerck and Golub
        1973). Where the latter is near 1 and the former is not, the component mixes with
        neighbours of nearly equal correlation.

    Raises
    ------
    ValueError
        If `n_resamples` is not a whole number of at least 2, or more than half of the resamples
        cannot be used; fewer are left out, with a warning.
    TypeError
        If the estimator has no variates of two views.

    References
    ----------
    Bjoerck, A. and Golub, G. H. (1973). Numerical methods for computing angles between linear
    subspaces. Mathematics of Computation 27.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import CCA
    >>> from cmstats.inference import component_stability
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 3))
    >>> Y = X * [3.0, 0.7, 0.0] + rng.standard_normal((300, 3))
    >>> table = component_stability(CCA(), X, Y, n_resamples=20, random_state=0)
    >>> bool(table["x_cosine"][1] > 0.99)
    True
    """
    n_resamples = _check_options(n_resamples, "percentile", "match", verbose)
    refits = Refits(estimator, X, y, sample_weight, groups)
    reference = refits.reference
    k = reference[0].shape[1]

    def measure(fitted: Any) -> Any:
        found, table = refits.variates(fitted), np.zeros((k, 4))
        turn = alignment(reference, found, "match")
        for view, (a, b) in enumerate(zip(reference, found, strict=True)):
            table[:, view] = np.abs(np.sum(a * (b @ turn), axis=0))
            overlap = np.linalg.qr(a)[0].T @ np.linalg.qr(b)[0]
            table[:, 2 + view] = [
                np.linalg.svd(overlap[:j, :j], compute_uv=False).mean() for j in range(1, k + 1)
            ]
        return table

    with said_once("in a resample"):
        counts = refits.resamples(n_resamples, random_state, verbose)
        tables = refits.measured(counts, measure, "resamples")
    columns = ["x_cosine", "y_cosine", "x_subspace", "y_subspace"]
    table = pd.DataFrame(np.mean(tables, axis=0), index=component_index(k), columns=columns)
    return as_table(table)


def _check_options(n_resamples: Any, method: str, align: str | None, verbose: Any) -> int:
    check_shown("verbose", verbose)
    if method not in ("percentile", "bca"):
        raise ValueError(f"method={method!r} is unknown: 'percentile' or 'bca'")
    if align not in ("procrustes", "match", None):
        raise ValueError(f"align={align!r} is unknown: 'procrustes', 'match' or None")
    return check_count("n_resamples", n_resamples, 2)


class _Measure:
    """The statistic of a fitted estimator as a NumPy array, aligned to the fit to all rows."""

    def __init__(self, statistic: Any, align: Align | None, refits: Refits) -> None:
        self.statistic, self.refits = statistic, refits
        self.align: Align | None = None
        self.features = None
        self.estimate = self._value(refits.whole)
        if isinstance(statistic, str) and self.estimate.ndim == 2:
            model = inner_model(refits.whole)
            k = getattr(model, "n_components_", getattr(model, "n_components", None))
            if self.estimate.shape[1] == k:
                view = "y" if statistic.startswith("y_") else "x"
                names = feature_names(model, view)
                self.features = names if len(names) == len(self.estimate) else None
                self.align = align
        if self.align is not None:
            self.reference = refits.reference

    def _value(self, fitted: Any) -> Any:
        if callable(self.statistic):
            return np.asarray(to_numpy(self.statistic(fitted)), dtype=np.float64)
        model = inner_model(fitted)
        value = getattr(model, self.statistic, None)
        if value is None or callable(value):
            raise ValueError(
                f"{type(model).__name__} has no fitted attribute {self.statistic!r}: name one "
                "such as 'x_weights_', or pass a function of the fitted estimator"
            )
        return np.asarray(to_numpy(value), dtype=np.float64)

    def __call__(self, fitted: Any) -> Any:
        value = self._value(fitted)
        if value.shape != self.estimate.shape:
            raise ValueError(
                f"the statistic has shape {self.estimate.shape} for all rows and {value.shape} "
                "for a resample, which has fewer components: set n_components lower"
            )
        if not np.isfinite(value[np.isfinite(self.estimate)]).all():
            raise ValueError("the statistic is not finite")
        if self.align is None:
            return value
        return value @ alignment(self.reference, self.refits.variates(fitted), self.align)


def _bca(distribution: Any, estimate: Any, jackknife: Any, level: float) -> tuple[Any, Any]:
    """Bias-corrected and accelerated intervals (Efron 1987), number by number."""
    count = len(distribution)
    below = (distribution < estimate).sum(axis=0) + (distribution <= estimate).sum(axis=0)
    # Half a resample away from 0 and 1, where z0 would be infinite.
    z0 = stats.norm.ppf(np.clip(below / (2 * count), 0.5 / count, 1 - 0.5 / count))
    deviation = jackknife.mean(axis=0) - jackknife
    square = np.sum(deviation**2, axis=0)
    a = np.sum(deviation**3, axis=0) / (6 * np.where(square > 0, square, 1.0) ** 1.5)
    ends = []
    for z in stats.norm.ppf([(1 - level) / 2, (1 + level) / 2]):
        order = stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
        # The order of the quantile differs from number to number.
        flat = distribution.reshape(count, -1)
        orders = np.broadcast_to(order, estimate.shape).ravel()
        values = [np.quantile(flat[:, i], s) for i, s in enumerate(orders)]
        ends.append(np.reshape(values, estimate.shape))
    return ends[0], ends[1]
