"""The path of a sparse canonical correlation analysis over its penalty."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from cmstats.arrays import to_numpy
from cmstats.plotting.display import Display, Floats, fold_errors
from cmstats.plotting.style import COLOURS, LINES, axes_of, legend_above, look

__all__ = ["SparsePathDisplay"]


class SparsePathDisplay(Display):
    """Held-out correlation and numbers of selected columns over the penalty.

    Parameters
    ----------
    alphas : array of shape (m,)
        The penalties that were tried.
    scores : array of shape (m, n_folds)
        Their held-out correlations in each fold.
    counts : array of shape (m, 2)
        How many columns of x and of y have a weight, in the mean over the folds.
    chosen : float
        The penalty of the model.
    widths : pair of int
        The numbers of columns of x and of y.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`; `counts_ax_` are the axes of the counts.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import SparseCCA, load_linnerud
    >>> from cmstats.plotting import SparsePathDisplay
    >>> men = load_linnerud()
    >>> sparse = SparseCCA().fit(men.X, men.y)
    >>> display = SparsePathDisplay.from_estimator(sparse)
    >>> display.chosen == sparse.alpha_
    True
    """

    def __init__(
        self, alphas: Any, scores: Any, counts: Any, *, chosen: float, widths: tuple[int, int]
    ) -> None:
        self.alphas, self.scores, self.counts = (
            np.asarray(to_numpy(a), dtype=np.float64) for a in (alphas, scores, counts)
        )
        m = len(self.alphas)
        if self.alphas.ndim != 1 or self.scores.shape[:1] != (m,) or self.counts.shape != (m, 2):
            raise ValueError(
                "scores must have one row of folds and counts one pair (x, y) for each alpha, got "
                f"shapes {self.alphas.shape}, {self.scores.shape} and {self.counts.shape}"
            )
        self.chosen, self.widths = float(chosen), widths

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Draw the path of a fitted model.

        Parameters
        ----------
        estimator : SparseCCA fitted with ``alpha="cv"``
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.

        Returns
        -------
        SparsePathDisplay

        Raises
        ------
        ValueError
            If the estimator has no path.
        """
        if not hasattr(estimator, "cv_counts_"):
            raise ValueError(
                f"{type(estimator).__name__} has no path of penalties: fit SparseCCA(alpha='cv')"
            )
        widths = (len(estimator.x_weights_), len(estimator.y_weights_))
        given = (estimator.cv_alphas_, estimator.cv_scores_, estimator.cv_counts_)
        return cls(*given, chosen=estimator.alpha_, widths=widths).plot(ax)

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
        ax = axes_of(ax, (6.4, 4.0), grid="y")
        lines = [
            ax.errorbar(
                self.alphas, self.scores.mean(axis=1), fold_errors(self.scores), markersize=4,
                capsize=3, linewidth=1.4, label="held-out correlation", **look(0, filled=True),
            )
        ]  # fmt: skip
        beside = ax.twinx()
        beside.spines["top"].set_visible(False)
        for i, (name, width) in enumerate(zip("xy", self.widths, strict=True)):
            share: Floats = self.counts[:, i] / width
            lines += beside.plot(
                self.alphas, share, color=COLOURS[i + 1], linestyle=LINES[i + 1], linewidth=1.4,
                label=f"columns of {name} (of {width})",
            )  # fmt: skip
        beside.set_ylim(0, 1)
        beside.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        beside.set_ylabel("selected columns, mean over the folds")
        ax.axvline(self.chosen, color=COLOURS[0], linewidth=1, linestyle=":", zorder=0.9)
        if (self.alphas > 0).all():
            from matplotlib.ticker import LogLocator, NullLocator

            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xlabel("alpha")
        ax.set_ylabel("mean held-out correlation\n± standard error over the folds")
        legend_above(ax, handles=lines, title=f"chosen: {self.chosen:.3g}")
        self.counts_ax_ = beside
        return self._drawn_in(ax)
