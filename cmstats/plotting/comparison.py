"""Comparisons of models, and their learning curves."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from cmstats.plotting.display import Display, frame_of
from cmstats.plotting.style import (
    BLUE,
    COLOURS,
    GREY,
    axes_of,
    item_axis,
    legend_above,
    look,
    size_axis,
)

__all__ = ["ComparisonDisplay", "LearningCurvesDisplay"]

NAMES = {
    "MRR": "mean reciprocal rank",
    "mAP": "mean average precision",
    "log_likelihood": "log p(y | x) (nats per row)",
    "R2": "R²",
    "total_correlation": "total held-out correlation",
    "median_rank": "median rank (1 is best)",
    "fit_seconds": "seconds to fit",
    "query_seconds": "seconds to query",
    "peak_memory_mb": "peak memory (MiB)",
    "n_parameters": "number of parameters",
}
LOGARITHMIC = ("fit_seconds", "query_seconds", "peak_memory_mb", "n_parameters")


def _axis_name(metric: str) -> str:
    """The label of an axis of this metric."""
    if metric.startswith("R@"):
        return f"recall at {metric[2:]} (share of queries)"
    return NAMES.get(metric, metric)


class LearningCurvesDisplay(Display):
    """A metric over the number of training pairs, one line per model.

    Parameters
    ----------
    curves : DataFrame
        The result of `learning_curves`.
    metric : str, optional
        One of its metrics; by default "MRR" if it has that, else the first.

    Attributes
    ----------
    metric : str
        The metric that is drawn.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import pandas as pd
    >>> from cmstats.plotting import LearningCurvesDisplay
    >>> curves = pd.DataFrame({
    ...     "model": "CCA", "n": [100, 200], "metric": "MRR", "mean": [0.1, 0.2], "se": 0.01})
    >>> LearningCurvesDisplay.from_results(curves).ax_.get_ylabel()
    'mean reciprocal rank'
    """

    def __init__(self, curves: Any, *, metric: str | None = None) -> None:
        columns = ("model", "n", "metric", "mean", "se")
        self.curves = frame_of(curves, columns, "learning_curves")
        known = list(dict.fromkeys(self.curves["metric"]))
        default = "MRR" if "MRR" in known else known[0]
        self.metric = default if metric is None else metric
        if self.metric not in known:
            raise ValueError(f"metric={metric!r} is none of the curves: use {', '.join(known)}")

    @classmethod
    def from_results(
        cls, curves: Any, *, metric: str | None = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the result of `learning_curves`.

        Parameters
        ----------
        curves, metric
            See `LearningCurvesDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        LearningCurvesDisplay

        Raises
        ------
        TypeError
            If `curves` is not the result of `learning_curves`.
        ValueError
            If the curves lack the metric.
        """
        return cls(curves, metric=metric).plot(ax, **kwargs)

    def plot(self, ax: Any = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.

        Returns
        -------
        self
        """
        ax = axes_of(ax, (6.4, 4.2), grid="y")
        part = self.curves[self.curves["metric"] == self.metric]
        for i, (name, rows) in enumerate(part.groupby("model", sort=False)):
            # Horizontal offsets keep the error bars from covering each other.
            beside = 1.02 ** (i - (part["model"].nunique() - 1) / 2)
            ax.errorbar(
                beside * rows["n"], rows["mean"], rows["se"], markersize=5.5, capsize=2.5,
                linewidth=1.5, label=name, **look(i % len(COLOURS), filled=i % 2 == 0),
            )  # fmt: skip
        size_axis(ax, sorted(part["n"].unique()))
        if self.metric in LOGARITHMIC:
            ax.set_yscale("log")
        ax.set(xlabel="training pairs", ylabel=_axis_name(self.metric))
        legend_above(ax, title="mean ± standard error over the folds")
        return self._drawn_in(ax)


class ComparisonDisplay(Display):
    """One metric of several models, with standard errors over the folds.

    Parameters
    ----------
    table : DataFrame
        The result of `compare`.
    metric : str, optional
        One of its numeric columns; by default the tested one.

    Attributes
    ----------
    metric : str
        The metric that is drawn.
    standard_errors : array of shape (n_models,)
        Standard errors over the folds, NaN where there are none.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.model_selection.comparison import compare
    >>> from cmstats.plotting import ComparisonDisplay
    >>> models = {"one": CCA(1), "two": CCA(2)}
    >>> table = compare(models, *load_linnerud(return_X_y=True), cv=2, random_state=0)
    >>> ComparisonDisplay.from_results(table).ax_.get_xlabel()
    'mean reciprocal rank'
    """

    def __init__(self, table: Any, *, metric: str | None = None) -> None:
        frame_of(table, (), "compare")
        if "standard_errors" not in getattr(table, "attrs", {}):
            raise TypeError(
                "this needs the DataFrame that compare returns, with its attrs; got "
                f"{type(table).__name__} without standard_errors"
            )
        self.table = table
        self.metric = table.attrs["metric"] if metric is None else metric
        known = list(table.select_dtypes("number").columns)
        if self.metric not in known:
            raise ValueError(f"metric={metric!r} is no column of numbers: use {', '.join(known)}")
        errors = table.attrs["standard_errors"].get(self.metric, {})
        self.standard_errors = np.array([errors.get(name, np.nan) for name in table.index])

    @classmethod
    def from_results(
        cls, table: Any, *, metric: str | None = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the result of `compare`.

        Parameters
        ----------
        table, metric
            See `ComparisonDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        ComparisonDisplay

        Raises
        ------
        TypeError
            If `table` is not the result of `compare`.
        ValueError
            If the metric is no numeric column.
        """
        return cls(table, metric=metric).plot(ax, **kwargs)

    def plot(self, ax: Any = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.

        Returns
        -------
        self
        """
        names = [str(name) for name in self.table.index]
        ax = axes_of(ax, (5.2 + 0.07 * max(map(len, names)), 1.3 + 0.34 * len(names)), grid="x")
        values, heights = self.table[self.metric].to_numpy(dtype=float), np.arange(len(names))
        known = np.isfinite(values)
        errors = np.nan_to_num(self.standard_errors)[known]
        has_errors = np.isfinite(self.standard_errors).any()
        ax.errorbar(
            values[known], heights[known], xerr=errors if has_errors else None, linestyle="",
            color=BLUE, marker="o", markersize=6, capsize=3, linewidth=1.4,
            label="mean ± standard error over the folds" if has_errors else "value",
        )  # fmt: skip
        baseline = self.table.attrs.get("baseline")
        if baseline is not None and np.isfinite(self.table.loc[baseline, self.metric]):
            at = float(self.table.loc[baseline, self.metric])
            ax.axvline(at, linestyle="--", color=GREY, linewidth=1.2, label=f"baseline: {baseline}")
        for height, there in zip(heights, known, strict=True):
            if not there:
                ax.text(
                    0.5, height, "no value", transform=ax.get_yaxis_transform(), ha="center",
                    va="center", color=GREY, fontsize=9, style="italic",
                )  # fmt: skip
        item_axis(ax, names)
        if self.metric in LOGARITHMIC and known.any() and values[known].min() > 0:
            ax.set_xscale("log")
        ax.set(xlabel=_axis_name(self.metric), ylabel="model")
        legend_above(ax, ncols=2)
        return self._drawn_in(ax)
