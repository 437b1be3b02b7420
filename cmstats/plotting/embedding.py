"""Two components of both views in one scatter plot."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd

from cmstats.arrays import Array, to_numpy
from cmstats.plotting.display import Display, check_fitted, component_at, spread
from cmstats.plotting.style import BLUE, COLOURS, GREY, MARKERS, axes_of, legend_above

__all__ = ["JointEmbeddingDisplay"]


class JointEmbeddingDisplay(Display):
    """Two components of both views in one scatter plot, coloured and marked by label.

    Filled markers are the first view, hollow ones the second; thin lines join some pairs.

    Parameters
    ----------
    U, V : arrays of shape (n, 2)
        Coordinates of both views; row i of both is the same item.
    labels : array of shape (n,), optional
        Classes; the most frequent ones have a colour and a marker each, the others are grey.
    names : pair of str, default=("x", "y")
        The names of the views in the legend.
    axis_names : pair of str, optional
        The labels of the axes.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.plotting import JointEmbeddingDisplay
    >>> men = load_linnerud()
    >>> cca = CCA().fit(men.X, men.y)
    >>> display = JointEmbeddingDisplay.from_estimator(cca, men.X, men.y, names=("sport", "body"))
    >>> display.ax_.get_ylabel()
    'variate 2 (standard deviations in training)'
    """

    def __init__(
        self,
        U: Array,
        V: Array,
        *,
        labels: Any = None,
        names: tuple[str, str] = ("x", "y"),
        axis_names: tuple[str, str] | None = None,
    ) -> None:
        self.U, self.V = (to_numpy(a).astype(np.float64) for a in (U, V))
        if self.U.ndim != 2 or self.U.shape[1] != 2 or self.U.shape != self.V.shape:
            raise ValueError(
                "U and V must be two coordinates of the same items, got shapes "
                f"{self.U.shape} and {self.V.shape}"
            )
        self.labels = None if labels is None else to_numpy(labels)
        if self.labels is not None and self.labels.shape != (len(self.U),):
            raise ValueError(
                f"labels has shape {self.labels.shape}, expected ({len(self.U)},): one a row"
            )
        self.names = names
        self.axis_names = axis_names or ("first coordinate", "second coordinate")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        labels: Any = None,
        components: tuple[int, int] = (0, 1),
        names: tuple[str, str] = ("x", "y"),
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw two components of the variates of both views.

        Parameters
        ----------
        estimator : fitted model with ``transform(X, y)``
            A model whose variates are drawn.
        X, y : array-likes of n rows each
            The rows of both views.
        labels : array of shape (n,), optional
            See `JointEmbeddingDisplay`.
        components : pair of int, default=(0, 1)
            The two components, from 0.
        names : pair of str, default=("x", "y")
            The names of the views.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        JointEmbeddingDisplay

        Raises
        ------
        ValueError
            If the model has no such component.
        sklearn.exceptions.NotFittedError
            If the estimator was not fitted.
        """
        check_fitted(estimator)
        if len(components) != 2:
            raise ValueError(f"components={components} must be two, one for each axis")
        U, V = (to_numpy(a) for a in estimator.transform(X, y))
        at = [component_at(c, U.shape[1]) for c in components]
        first, second = (f"variate {c + 1} (standard deviations in training)" for c in at)
        display = cls(U[:, at], V[:, at], labels=labels, names=names, axis_names=(first, second))
        return display.plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, U: Array, V: Array, *, labels: Any = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the first two columns of two matrices, for example of `embed`.

        Parameters
        ----------
        U, V : arrays of shape (n, k), k at least 2
            Embeddings of both views.
        labels : array of shape (n,), optional
            See `JointEmbeddingDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        JointEmbeddingDisplay

        Raises
        ------
        ValueError
            If shapes differ, or labels have another length.
        """
        return cls(to_numpy(U)[:, :2], to_numpy(V)[:, :2], labels=labels).plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, max_items: int = 400, n_lines: int = 25) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        max_items : int, default=400
            Draw at most this many items, evenly spaced over the rows.
        n_lines : int, default=25
            The number of pairs joined by a line, evenly spaced over the items drawn.

        Returns
        -------
        self
        """
        ax = axes_of(ax, (6.4, 6.0))
        shown = spread(len(self.U), max_items)
        classes = self._classes()
        for group, (rows, colour, marker) in classes.items():
            at = np.intersect1d(shown, rows)
            common = {"marker": marker, "s": 20, "linewidths": 0.9, "alpha": 0.8}
            ax.scatter(*self.V[at].T, facecolors="none", edgecolors=colour, **common)
            ax.scatter(*self.U[at].T, facecolors=colour, edgecolors="none", label=group, **common)
        for i in shown[spread(len(shown), n_lines)]:
            ends = np.stack([self.U[i], self.V[i]])
            ax.plot(*ends.T, color="#333333", linewidth=0.7, alpha=0.7, zorder=3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.axhline(0, color="#dddddd", linewidth=0.8, zorder=0.5)
        ax.axvline(0, color="#dddddd", linewidth=0.8, zorder=0.5)
        ax.set(xlabel=self.axis_names[0], ylabel=self.axis_names[1])
        self._legend(ax, single=len(classes) == 1)
        return self._drawn_in(ax)

    def _classes(self) -> dict[str, tuple[Any, str, str]]:
        """Rows, colour and marker of each class; rare classes are joined."""
        everything = np.arange(len(self.U))
        if self.labels is None:
            return {"items": (everything, BLUE, "o")}
        counts = pd.Series(self.labels).value_counts(dropna=True)
        kept = len(COLOURS)
        classes = {
            str(value): (np.flatnonzero(self.labels == value), COLOURS[i], MARKERS[i])
            for i, value in enumerate(counts.index[:kept])
        }
        taken = np.concatenate([rows for rows, _, _ in classes.values()] or [everything[:0]])
        rest = np.setdiff1d(everything, taken)
        if len(rest):
            others = len(counts) - kept
            name = str(counts.index[kept]) if others == 1 else f"{max(others, 0)} other labels"
            classes[name if others > 0 else "no label"] = (rest, GREY, "*")
        return classes

    def _legend(self, ax: Any, *, single: bool) -> None:
        """A legend of views, pairs and, unless there is a single one, classes."""
        from matplotlib.lines import Line2D

        views = [
            Line2D([], [], linestyle="", marker="o", color="#333333", markersize=5, label=name,
                   markerfacecolor=face)
            for name, face in zip(self.names, ("#333333", "none"), strict=True)
        ]  # fmt: skip
        views.append(Line2D([], [], color="#333333", linewidth=0.7, label="a pair"))
        handles = [] if single else ax.get_legend_handles_labels()[0]
        legend_above(ax, handles=views + handles)
