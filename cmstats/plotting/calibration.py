"""Calibration of predicted means and standard deviations."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from scipy.special import ndtr, ndtri

from cmstats.arrays import to_numpy
from cmstats.plotting.display import Display, Floats, check_fitted
from cmstats.plotting.style import BAND, BLUE, GREY, axes_of, legend_above, share_axis

__all__ = ["ConditionalCalibrationDisplay"]

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


def _share(which: Any, seen: Any) -> tuple[float, float]:
    """The share among the observed values, and its standard error with rows as the units."""
    hits, counts = (which & seen).sum(axis=1), seen.sum(axis=1)
    share = hits.sum() / counts.sum()
    n = int((counts > 0).sum())
    spread = hits - share * counts
    correction = n / max(n - 1, 1)
    return float(share), float(np.sqrt(correction * (spread**2).sum()) / counts.sum())
