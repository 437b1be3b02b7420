"""Bootstrap intervals, one line per number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from cmstats.inference.bootstrap import BootstrapResult, bootstrap
from cmstats.plotting.display import Display, component_at, strongest
from cmstats.plotting.style import BLUE, axes_of, item_axis, legend_above

__all__ = ["BootstrapDisplay"]


class BootstrapDisplay(Display):
    """Estimates with their bootstrap intervals; filled markers where 0 lies outside.

    Parameters
    ----------
    result : BootstrapResult
        The result of `bootstrap`.
    component : int, default=0
        The column to draw of a statistic with components in its columns, from 0.
    labels : sequence of str, optional
        Names of the numbers; by default the names of the features, if they are known.
    statistic : str, default="estimate"
        The name of the statistic, for the axis.

    Attributes
    ----------
    estimate, lower, upper : arrays of shape (p,)
        The estimates and the ends of their intervals.
    labels : list of str
        The names of the numbers.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.plotting import BootstrapDisplay
    >>> X, y = load_linnerud(return_X_y=True)
    >>> display = BootstrapDisplay.from_estimator(
    ...     CCA(1), X, y, "x_loadings_", n_resamples=50, random_state=0)
    >>> display.labels, display.estimate.shape
    (['x0', 'x1', 'x2'], (3,))
    """

    def __init__(
        self,
        result: BootstrapResult,
        *,
        component: int = 0,
        labels: Sequence[str] | None = None,
        statistic: str = "estimate",
    ) -> None:
        if not isinstance(result, BootstrapResult):
            raise TypeError(
                f"this needs the BootstrapResult that bootstrap returns, got "
                f"{type(result).__name__}"
            )
        parts = [np.asarray(a) for a in (result.estimate, result.lower, result.upper)]
        if parts[0].ndim > 2:
            raise ValueError(
                f"the statistic has shape {parts[0].shape}: only numbers, vectors and matrices "
                "can be drawn"
            )
        self.component = None
        if parts[0].ndim == 2:
            self.component = component_at(component, parts[0].shape[1])
            parts = [a[:, self.component] for a in parts]
        self.estimate, self.lower, self.upper = (np.atleast_1d(a) for a in parts)
        names: Any = labels if labels is not None else result.features
        if names is None:
            names = [""] if len(self.estimate) == 1 else map(str, range(len(self.estimate)))
        self.labels = [str(name) for name in names]
        if len(self.labels) != len(self.estimate):
            raise ValueError(
                f"there are {len(self.labels)} labels for {len(self.estimate)} numbers"
            )
        self.result, self.statistic = result, statistic

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        statistic: Any,
        *,
        component: int = 0,
        labels: Sequence[str] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Run `bootstrap` and draw its result.

        Parameters
        ----------
        estimator, X, y, statistic
            As in `bootstrap`.
        component, labels
            See `BootstrapDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `bootstrap`.

        Returns
        -------
        BootstrapDisplay

        Raises
        ------
        ValueError
            As in `bootstrap`, or if there is no such component.
        """
        result = bootstrap(estimator, X, y, statistic, **kwargs)
        name = statistic.strip("_").replace("_", " ") if isinstance(statistic, str) else "estimate"
        return cls(result, component=component, labels=labels, statistic=name).plot(ax)

    @classmethod
    def from_results(
        cls,
        result: BootstrapResult,
        *,
        component: int = 0,
        labels: Sequence[str] | None = None,
        statistic: str = "estimate",
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the result of `bootstrap`.

        Parameters
        ----------
        result, component, labels, statistic
            See `BootstrapDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        BootstrapDisplay

        Raises
        ------
        TypeError
            If `result` is no BootstrapResult.
        ValueError
            If there is no such component, or labels have another length.
        """
        display = cls(result, component=component, labels=labels, statistic=statistic)
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, max_items: int = 30) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        max_items : int, default=30
            Draw at most this many, those with the largest absolute estimates, largest on top.

        Returns
        -------
        self
        """
        kept = strongest(np.abs(self.estimate), max_items)
        longest = max(len(self.labels[i]) for i in kept)
        ax = axes_of(ax, (5.4 + 0.07 * longest, 1.5 + 0.26 * len(kept)), grid="x")
        middle, low, high = self.estimate[kept], self.lower[kept], self.upper[kept]
        heights = np.arange(len(kept))
        ax.hlines(heights, low, high, color=BLUE, linewidth=1.4)
        apart = (low > 0) | (high < 0)
        both = ((apart, BLUE, "interval without 0"), (~apart, "white", "interval with 0"))
        for which, face, name in both:
            if which.any():
                ax.plot(
                    middle[which], heights[which], linestyle="", marker="o", markersize=5.5,
                    color=BLUE, markerfacecolor=face, label=name, zorder=3,
                )  # fmt: skip
        if low.min() <= 0 <= high.max():
            ax.axvline(0, color="#555555", linewidth=0.8, zorder=0.9)
        item_axis(ax, [self.labels[i] for i in kept], fontsize=9)
        if len(kept) < len(self.estimate):
            ax.set_ylabel(f"the largest {len(kept)} of {len(self.estimate)}")
        of = "" if self.component is None else f" of component {self.component + 1}"
        method = {"bca": "BCa"}.get(self.result.method, self.result.method)
        ax.set_xlabel(f"{self.statistic}{of}, {100 * self.result.level:g} % {method} interval")
        legend_above(ax)
        return self._drawn_in(ax)
