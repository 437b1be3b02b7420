"""Canonical correlations: training, held-out and null values, with their intervals."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from cmstats.arrays import Array, to_numpy
from cmstats.inference.fitted import check_level, inner_model
from cmstats.metrics.correlation import column_correlations
from cmstats.plotting.display import Display, Floats, check_fitted, frame_of
from cmstats.plotting.style import BAND, BLUE, GREEN, VERMILLION, axes_of, legend_above

__all__ = ["CorrelationDisplay"]


class CorrelationDisplay(Display):
    r"""Canonical correlations of each component, in training and held out.

    The held-out value of component k is :math:`\operatorname{corr}(u_k, v_k)` over rows that had
    no part in the fit. By Fisher's z it lies with probability `level`, if the population value
    is 0, in

    .. math:: \pm \tanh\Bigl(\frac{z_{(1 + level) / 2}}{\sqrt{n - 3}}\Bigr)

    which is the band of chance that is drawn.

    Parameters
    ----------
    held_out : array of shape (k,), optional
        Correlations of the paired variates of held-out rows.
    train : array of shape (k,), optional
        Correlations of the training rows.
    n_held_out : float, optional
        The number of held-out rows, for the band of chance.
    test : DataFrame or (DataFrame, array), optional
        The result of `permutation_test` on the training rows: markers are filled where
        ``p_value`` is at most 1 - `level`. With ``statistic="roy", return_null=True`` also the
        band that contains `level` of the training correlations if the component and all later
        ones are zero in the population.
    intervals : DataFrame, optional
        The result of `correlation_intervals`.
    level : float, default=0.95
        The probability of the bands of chance.

    Attributes
    ----------
    band : array of shape (2, k) or None
        The ends of the band under permutation.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    See Also
    --------
    CorrelationDisplay.from_estimator : From a fitted model.
    CorrelationDisplay.from_predictions : From variates.
    CorrelationDisplay.from_results : From a test and intervals alone.

    References
    ----------
    Fisher, R. A. (1921). On the probable error of a coefficient of correlation deduced from a
    small sample. Metron 1.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, load_emoji
    >>> from cmstats.plotting import CorrelationDisplay
    >>> emoji = load_emoji()
    >>> image, text = emoji.image, emoji.text
    >>> cca = CCA(10, shrinkage=0.1).fit(image[emoji.train], text[emoji.train])
    >>> display = CorrelationDisplay.from_estimator(cca, image[emoji.test], text[emoji.test])
    >>> display.held_out.shape, display.ax_.get_xlabel()
    ((10,), 'component')
    """

    def __init__(
        self,
        held_out: Array | None = None,
        *,
        train: Array | None = None,
        n_held_out: float | None = None,
        test: Any = None,
        intervals: Any = None,
        level: float = 0.95,
    ) -> None:
        self.level = check_level(level)
        table, null = test if isinstance(test, tuple) else (test, None)
        self.p_values = None if table is None else _p_values(table)
        self.band = None if null is None else _null_band(null, table, self.level)
        if train is None and table is not None:
            train = table.iloc[:, 0].to_numpy()  # correlations, or singular values
        if intervals is not None:
            frame_of(intervals, ("estimate", "lower", "upper"), "correlation_intervals")
        if held_out is None and train is None and intervals is None:
            raise ValueError("give held_out or train correlations, or both")
        self.intervals = intervals
        self.held_out = None if held_out is None else to_numpy(held_out)
        self.train = None if train is None else to_numpy(train)
        self.n_held_out = n_held_out

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        test: Any = None,
        intervals: Any = None,
        level: float = 0.95,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the correlations of a fitted model.

        Parameters
        ----------
        estimator : fitted model, TwoViewPipeline or MomentsSearchCV
            With ``transform(X, y)``, or `correlations_` where X and y are left out.
        X, y : array-likes, optional
            Held-out rows of both views; without them only training correlations are drawn.
        test, intervals, level
            Results on the training rows, see `CorrelationDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        CorrelationDisplay

        Raises
        ------
        ValueError
            If only one of X and y is given.
        ImportError
            If Matplotlib is missing.
        """
        if (X is None) != (y is None):
            raise ValueError("give both X and y of the held-out rows, or neither")
        check_fitted(estimator)
        model = inner_model(estimator) if hasattr(estimator, "fit") else estimator
        train = getattr(model, "correlations_", None)
        # From rows: `correlations_on` moments would need the p x p scatter of a wide view.
        held_out = (
            None if X is None else column_correlations(*map(to_numpy, estimator.transform(X, y)))
        )
        n = None if X is None else float(len(X) if not hasattr(X, "shape") else X.shape[0])
        display = cls(
            held_out, train=train, n_held_out=n, test=test, intervals=intervals, level=level
        )
        return display.plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, U: Array, V: Array, *, train: Array | None = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the correlations of the columns of two matrices of variates.

        Parameters
        ----------
        U, V : arrays of shape (n, k)
            Variates of held-out rows, from `transform`.
        train : array of shape (k,), optional
            Correlations of the training rows.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        CorrelationDisplay

        Raises
        ------
        ImportError
            If Matplotlib is missing.
        """
        held_out = column_correlations(to_numpy(U), to_numpy(V))
        return cls(held_out, train=train, n_held_out=float(len(to_numpy(U)))).plot(ax, **kwargs)

    @classmethod
    def from_results(
        cls,
        test: Any = None,
        *,
        intervals: Any = None,
        level: float = 0.95,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a permutation test, intervals, or both, without a model.

        Parameters
        ----------
        test, intervals, level
            See `CorrelationDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        CorrelationDisplay

        Raises
        ------
        TypeError
            If an argument is not the table of its function.
        ValueError
            If both are left out, or a null distribution is not that of Roy's statistic.
        """
        return cls(test=test, intervals=intervals, level=level).plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, max_components: int | None = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        max_components : int, optional
            Draw at most this many components, the first ones; all by default.

        Returns
        -------
        self
        """
        ax = axes_of(ax, (6.4, 4.0), grid="y")
        parts = [
            (self._train, self.train), (self._held_out, self.held_out),
            (self._intervals, self.intervals), (self._null, self.band),
        ]  # fmt: skip
        shown = max(draw(ax, data, max_components) for draw, data in parts if data is not None)
        self._chance(ax)
        ax.axhline(0, color="#555555", linewidth=0.7, zorder=0.5)
        ax.set_xlim(0.5 if shown <= 60 else 0, shown + 0.5)
        ax.set_ylim(top=1.02)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="component", ylabel="canonical correlation")
        legend_above(ax, ncols=2 if len(ax.get_legend_handles_labels()[0]) > 3 else 3)
        return self._drawn_in(ax)

    def _train(self, ax: Any, train: Any, most: int | None) -> int:
        """Draw the training correlations, with p-values; return the number of components."""
        values = train[:most]
        at = np.arange(1, len(values) + 1)
        marker = "s" if len(values) <= 60 else None
        line = {"color": VERMILLION, "linewidth": 1.4, "marker": marker, "markersize": 4.5}
        ax.plot(at, values, "--", label="training", markerfacecolor="white", **line)
        if self.p_values is not None:
            found = at[: len(self.p_values)][self.p_values[: len(at)] <= 1 - self.level + 1e-12]
            ax.plot(
                found, values[found - 1], linestyle="", color=VERMILLION, marker="s", markersize=5,
                label=f"training, p at most {1 - self.level:.3g} (permutations)",
            )  # fmt: skip
        return len(values)

    def _held_out(self, ax: Any, held_out: Any, most: int | None) -> int:
        """Draw the held-out correlations; return the number of components."""
        values = held_out[:most]
        ax.plot(
            np.arange(1, len(values) + 1), values, "-", color=BLUE, label="held out", linewidth=1.4,
            marker="o" if len(values) <= 60 else None, markersize=4.5,
        )  # fmt: skip
        return len(values)

    def _intervals(self, ax: Any, intervals: Any, most: int | None) -> int:
        """Draw the intervals of the population values; return the number of components."""
        middle, lower, upper = (
            intervals[name].to_numpy()[:most] for name in ("estimate", "lower", "upper")
        )
        # The estimate may equal an end, and exceed it by rounding.
        reach = np.maximum([middle - lower, upper - middle], 0)
        ax.errorbar(
            np.arange(1, len(middle) + 1) + 0.18, middle, reach, linestyle="", color=GREEN,
            marker="D", markersize=4, capsize=2.5, linewidth=1.2,
            label="population, with its interval",
        )  # fmt: skip
        return len(middle)

    def _null(self, ax: Any, band: Any, most: int | None) -> int:
        """Draw the band under permutation; return the number of components."""
        low, high = band[:, :most]
        at = np.arange(1, len(low) + 1)
        # The hatch distinguishes this band from that of held-out values in greyscale.
        ax.fill_between(
            at, low, high, facecolor="none", edgecolor="#8a8a8a", hatch="////", linewidth=0.6,
            label=f"training, if there is none ({100 * self.level:g} %)",
            step="mid" if len(at) == 1 else None, zorder=0.8,
        )  # fmt: skip
        return len(low)

    def _chance(self, ax: Any) -> None:
        """Draw the band of held-out correlations whose population value is 0."""
        if self.held_out is not None and self.n_held_out and self.n_held_out > 3:
            from scipy.special import ndtri

            # Fisher's z has standard deviation 1 / sqrt(n - 3).
            z = float(ndtri(0.5 + self.level / 2))
            reach = float(np.tanh(z / np.sqrt(self.n_held_out - 3)))
            held = f"held out, if there is none ({100 * self.level:g} %)"
            ax.axhspan(-reach, reach, label=held, **BAND)


def _p_values(table: Any) -> Floats:
    """The family-wise p-values of a permutation test with one statistic."""
    if getattr(getattr(table, "index", None), "nlevels", 1) > 1:
        raise ValueError(
            "test holds several statistics: run permutation_test with one, 'roy' for the band"
        )
    frame_of(table, ("p_value",), "permutation_test")
    return np.asarray(table["p_value"].to_numpy(), dtype=np.float64)


def _null_band(null: Any, table: Any, level: float) -> Floats:
    """Quantiles of the largest remaining correlation (Roy's statistic) under permutation."""
    if "roy" not in table.columns:
        raise ValueError(
            "the null of this test is on the scale of its statistic, not of correlations: run "
            "permutation_test with statistic='roy' (or pass its table without the null)"
        )
    values = np.asarray(null, dtype=np.float64)
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
