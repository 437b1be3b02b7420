"""Calibration of predicted means and standard deviations."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from scipy.special import ndtr, ndtri

from cmstats.arrays import to_numpy
from cmstats.plotting.display import Display, Floats, check_fitted
from cmstats.plotting.style import BAND, BLUE, GREY, axes_of, legend_above, share_axis

__all__ = ["ConditionalCalibrationDisplay", "MatchCalibrationDisplay"]

KINDS = ("coverage", "histogram")


class ConditionalCalibrationDisplay(Display):
    r"""Calibration of a normal p(y | x): coverage of its intervals, or its probability integrals.

    For held-out :math:`y` with predicted mean :math:`m` and standard deviation :math:`s` the
    probability integral transform

    .. math:: u = \Phi\Bigl(\frac{y - m}{s}\Bigr)

    is uniform if the predictive distribution is correct (Dawid 1984), and y lies in the central
    interval of level c where :math:`|2u - 1| \le c`.

    Parameters
    ----------
    pit : array of shape (n,) or (n, q)
        The transforms of held-out values, NaN where the value is missing.

    Attributes
    ----------
    nominal, actual : arrays of shape (19,)
        Levels of central intervals, and the share of held-out values in them.
    standard_error : array of shape (19,)
        The standard error of `actual`, with rows as the sampling units: the targets of a row
        are dependent.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Notes
    -----
    A curve below the diagonal or a U-shaped histogram means that the standard deviations are
    too small; a curve above it or a hump-shaped histogram, that they are too large; a sloped
    histogram, that the means are biased.

    References
    ----------
    Dawid, A. P. (1984). Statistical theory: the prequential approach. JRSS A 147.
    Gneiting, T., Balabdaoui, F. and Raftery, A. (2007). Probabilistic forecasts, calibration
    and sharpness. JRSS B 69.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np
    >>> from cmstats import ConditionalGaussian
    >>> from cmstats.plotting import ConditionalCalibrationDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 3))
    >>> y = X[:, :2] + rng.normal(size=(1000, 2))
    >>> model = ConditionalGaussian(shrinkage=0.0).fit(X[:500], y[:500])
    >>> display = ConditionalCalibrationDisplay.from_estimator(model, X[500:], y[500:])
    >>> bool(abs(display.actual - display.nominal).max() < 0.05)
    True
    """

    def __init__(self, pit: Any) -> None:
        pit = np.asarray(to_numpy(pit), dtype=np.float64)
        self.pit: Floats = pit[:, None] if pit.ndim == 1 else pit
        if self.pit.ndim != 2 or not np.isfinite(self.pit).any():
            raise ValueError(f"pit must hold at least one value, got shape {pit.shape}")
        if bool(((self.pit < 0) | (self.pit > 1)).any()):
            raise ValueError("pit has values outside 0 to 1: they must be probabilities")
        self.nominal = np.linspace(0.05, 0.95, 19)
        distance, seen = np.abs(2 * self.pit - 1), np.isfinite(self.pit)
        inside = [_share(distance <= level, seen) for level in self.nominal]
        self.actual, self.standard_error = np.array(inside).T

    @classmethod
    def from_predictions(
        cls, y: Any, mean: Any, std: Any, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the calibration of predictions.

        Parameters
        ----------
        y : array of shape (n,) or (n, q)
            Observed values, NaN where missing.
        mean, std : arrays of the same shape
            Predicted means and standard deviations.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        ConditionalCalibrationDisplay

        Raises
        ------
        ValueError
            If shapes differ or a standard deviation is not positive.
        """
        y, mean, std = (np.asarray(to_numpy(a), dtype=np.float64) for a in (y, mean, std))
        if mean.shape != std.shape or y.reshape(len(y), -1).shape != mean.reshape(len(y), -1).shape:
            raise ValueError(
                f"y, mean and std must have one shape, got {y.shape}, {mean.shape} and {std.shape}"
            )
        if not bool((std > 0).all()):
            raise ValueError("std has values that are not positive: there is no density to judge")
        return cls(ndtr((y.reshape(mean.shape) - mean) / std)).plot(ax, **kwargs)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the calibration of a fitted model on held-out rows.

        Parameters
        ----------
        estimator : fitted model with ``predict(X, return_std=True)``
            `ConditionalGaussian`; for other models, the normal distribution with that mean and
            standard deviation is evaluated.
        X, y : array-likes of n rows
            Held-out rows.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        ConditionalCalibrationDisplay

        Raises
        ------
        TypeError
            If the model predicts no standard deviations.
        sklearn.exceptions.NotFittedError
            If the estimator was not fitted.
        """
        check_fitted(estimator)
        try:
            mean, std = estimator.predict(X, return_std=True)
        except (AttributeError, TypeError) as error:
            if "return_std" not in str(error) and "predict" not in str(error):
                raise
            raise TypeError(
                f"{type(estimator).__name__} predicts no standard deviations: it takes a model "
                "with predict(X, return_std=True), such as ConditionalGaussian"
            ) from error
        return cls.from_predictions(y, mean, std, ax=ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["coverage", "histogram"] = "coverage",
        n_bins: int = 20,
    ) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        kind : {"coverage", "histogram"}, default="coverage"
            Actual over nominal coverage, or the probability integral transforms.
        n_bins : int, default=20
            The number of bins of the histogram.

        Returns
        -------
        self
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is unknown: use 'coverage' or 'histogram'")
        if kind == "coverage":
            ax = axes_of(ax, (5.0, 5.0), grid="both")
            self._coverage(ax)
        else:
            ax = axes_of(ax, (6.4, 4.0), grid="y")
            self._histogram(ax, n_bins)
        legend_above(ax)
        return self._drawn_in(ax)

    def _coverage(self, ax: Any) -> None:
        """Actual over nominal coverage, with 95 % intervals."""
        ax.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1.5, label="calibrated")
        reach = ndtri(0.975) * self.standard_error
        ax.fill_between(
            self.nominal, self.actual - reach, self.actual + reach, label="95 % interval", **BAND
        )
        ax.plot(
            self.nominal, self.actual, "-", color=BLUE, marker="o", markersize=4.5, linewidth=1.4,
            label="held out",
        )  # fmt: skip
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        share_axis(ax.xaxis, ax.yaxis)
        ax.set_xlabel("nominal coverage of central intervals")
        ax.set_ylabel("actual coverage (share of held-out values)")

    def _histogram(self, ax: Any, n_bins: int) -> None:
        """The density of the transforms, with 95 % intervals."""
        edges = np.linspace(0, 1, n_bins + 1)
        seen = np.isfinite(self.pit)
        bins = np.clip(np.floor(np.where(seen, self.pit, 0) * n_bins), 0, n_bins - 1)
        shares = np.array([_share((bins == b) & seen, seen) for b in range(n_bins)])
        density, error = n_bins * shares.T
        ax.bar(
            edges[:-1], density, width=1 / n_bins, align="edge", color="#9ecae9", edgecolor=BLUE,
            linewidth=0.8, label="held out",
        )  # fmt: skip
        ax.errorbar(
            edges[:-1] + 0.5 / n_bins, density, ndtri(0.975) * error, linestyle="", color="#333333",
            linewidth=1, capsize=2, label="95 % interval",
        )  # fmt: skip
        ax.axhline(1, linestyle=":", color="#000000", linewidth=1.5, label="calibrated")
        ax.set_xlim(0, 1)
        ax.set_ylim(bottom=0)
        ax.set(xlabel="probability integral transform of held-out values", ylabel="density")


class MatchCalibrationDisplay(Display):
    r"""Calibration of match probabilities: observed shares of matches over predicted ones.

    In a population of which the share :math:`\pi` match, those pairs of which a match is predicted
    with probability p match in

    .. math:: \frac{\pi\, m(p)}{\pi\, m(p) + (1 - \pi)\, u(p)}

    of all cases, with the shares m(p) and u(p) of matching and of mismatched pairs that have this
    prediction (a bin of them). On the diagonal probabilities are calibrated (Murphy and Winkler
    1977).

    Parameters
    ----------
    matched, mismatched : arrays of shape (n,), (m,)
        Probabilities of pairs that match, and of pairs that do not.
    prior : float in (0, 1)
    n_bins : int, default=10
        Bins of equal width in the log-odds.

    Attributes
    ----------
    predicted, observed : arrays of shape (k,)
        The mean prediction and the share of matches in each bin that is not empty.
    weights : array of shape (k,)
        The share of the population in each bin.
    brier : float
        The Brier score of the population.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    References
    ----------
    Murphy, A. H. and Winkler, R. L. (1977). Reliability of subjective probability forecasts of
    precipitation and temperature. Applied Statistics 26.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.plotting import MatchCalibrationDisplay
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=20_000)
    >>> match = rng.uniform(size=p.size) < p  # calibrated
    >>> display = MatchCalibrationDisplay(p[match], p[~match], 0.5)
    >>> bool(np.abs(display.predicted - display.observed).max() < 0.05)
    True
    """

    def __init__(
        self, matched: Any, mismatched: Any, prior: float = 0.5, *, n_bins: int = 10
    ) -> None:
        p, q = (np.asarray(to_numpy(a), dtype=np.float64) for a in (matched, mismatched))
        for name, a in (("matched", p), ("mismatched", q)):
            if a.ndim != 1 or not len(a) or not bool(((a >= 0) & (a <= 1)).all()):
                raise ValueError(f"{name} must be a vector of probabilities")
        if not 0 < prior < 1:
            raise ValueError(f"prior={prior!r} must lie between 0 and 1")
        both = np.concatenate([p, q])
        is_match = np.arange(len(both)) < len(p)
        share = np.where(is_match, prior / len(p), (1 - prior) / len(q))
        log_odds = np.clip(np.log(both + 1e-12) - np.log1p(1e-12 - both), -12, 12)
        edges = np.linspace(log_odds.min(), log_odds.max() + 1e-9, n_bins + 1)
        bins = np.clip(np.searchsorted(edges, log_odds, side="right") - 1, 0, n_bins - 1)
        total = np.bincount(bins, share, n_bins)
        seen = total > 0
        self.weights = total[seen]
        self.predicted = np.bincount(bins, share * both, n_bins)[seen] / self.weights
        self.observed = np.bincount(bins, share * is_match, n_bins)[seen] / self.weights
        self.brier = float(np.sum(share * (both - is_match) ** 2))
        self.prior = float(prior)

    @classmethod
    def from_results(cls, found: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the calibration of what `match_probability` returned.

        Parameters
        ----------
        found : MatchProbability
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        MatchCalibrationDisplay

        Raises
        ------
        TypeError
            If it is something else.
        """
        if not hasattr(found, "mismatched"):
            raise TypeError(
                f"this needs what match_probability returns, got {type(found).__name__}"
            )
        return cls(found.probability, found.mismatched, found.prior).plot(ax, **kwargs)

    def plot(self, ax: Any = None) -> Self:
        """Draw the display; the size of a point is the share of the population in its bin.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.

        Returns
        -------
        self
        """
        ax = axes_of(ax, (5.0, 5.0), grid="both")
        ax.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1.5, label="calibrated")
        ax.plot(
            self.predicted, self.observed, "-", color=BLUE, linewidth=1.4,
            label=f"held out, Brier score {self.brier:.3f}",
        )  # fmt: skip
        ax.scatter(self.predicted, self.observed, 20 + 200 * self.weights, color=BLUE)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        ax.set_xlabel("predicted probability of a match")
        ax.set_ylabel("observed share of matches")
        legend_above(ax)
        return self._drawn_in(ax)


def _share(which: Any, seen: Any) -> tuple[float, float]:
    """The share among the observed values, and its standard error with rows as the units."""
    hits, counts = (which & seen).sum(axis=1), seen.sum(axis=1)
    share = hits.sum() / counts.sum()
    n = int((counts > 0).sum())
    spread = hits - share * counts
    correction = n / max(n - 1, 1)
    return float(share), float(np.sqrt(correction * (spread**2).sum()) / counts.sum())
