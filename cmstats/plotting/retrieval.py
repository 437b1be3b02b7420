"""Recall at k of cross-modal retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from cmstats.arrays import Array, check_count
from cmstats.metrics.relevance import view_sizes
from cmstats.metrics.retrieval import DIRECTIONS, retrieval_chance, retrieval_report
from cmstats.plotting.display import Display, embedded
from cmstats.plotting.style import (
    BLUE,
    GREY,
    VERMILLION,
    axes_of,
    legend_above,
    share_axis,
    size_axis,
)

__all__ = ["LOOKS", "RecallCurveDisplay", "direction_labels", "draw_direction"]

LOOKS = ((BLUE, "-", "o"), (VERMILLION, "--", "s"))


class RecallCurveDisplay(Display):
    r"""Recall at k: the share of queries with a partner among their k best candidates.

    .. math:: \mathrm{R@}k = \frac1n \#\{i: r_i \le k\}

    with :math:`r_i` the rank of query i's best partner (`retrieval_report`).

    Parameters
    ----------
    recall : DataFrame
        Rows k = 1, 2, ...; columns "x -> y" and "y -> x".
    chance : DataFrame of the same shape, optional
        The recalls of candidates in random order (`retrieval_chance`).
    names : pair of str, default=("x", "y")
        The names of the views.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np
    >>> from cmstats.plotting import RecallCurveDisplay
    >>> U = np.random.default_rng(0).normal(size=(100, 8))
    >>> display = RecallCurveDisplay.from_predictions(U, U[::-1], k=20)
    >>> display.recall.shape, round(float(display.chance.loc[10, "x -> y"]), 9)
    ((20, 2), 0.1)
    """

    def __init__(
        self, recall: Any, *, chance: Any = None, names: tuple[str, str] = ("x", "y")
    ) -> None:
        self.recall, self.chance, self.names = recall, chance, names

    @classmethod
    def from_predictions(
        cls,
        U: Array,
        V: Array | None = None,
        *,
        k: int = 50,
        x_ids: Any = None,
        y_ids: Any = None,
        names: tuple[str, str] = ("x", "y"),
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the recalls of embeddings, or of a matrix of scores.

        Parameters
        ----------
        U, V, x_ids, y_ids
            As in `retrieval_report`.
        k : int, default=50
            The largest k; at most the number of candidates.
        names : pair of str, default=("x", "y")
            The names of the views.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        RecallCurveDisplay

        Raises
        ------
        ValueError
            If k is less than 1, or as in `retrieval_report`.
        """
        k = check_count("k", k, 1)
        n, m = view_sizes(U, V)
        ks = range(1, min(k, max(n, m)) + 1)
        ids = {"ks": ks, "x_ids": x_ids, "y_ids": y_ids}
        tables = [retrieval_report(U, V, **ids), retrieval_chance(n, m, **ids)]
        recall, chance = (
            pd.DataFrame(
                t.loc[list(DIRECTIONS), [f"R@{j}" for j in ks]].to_numpy().T,
                index=pd.Index(ks, name="k"), columns=list(DIRECTIONS),
            )
            for t in tables
        )  # fmt: skip
        return cls(recall, chance=chance, names=names).plot(ax, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        kind: str | None = None,
        k: int = 50,
        x_ids: Any = None,
        y_ids: Any = None,
        names: tuple[str, str] = ("x", "y"),
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Embed both views with a fitted model, and draw the recalls.

        Parameters
        ----------
        estimator : fitted model with ``embed(X, y)``
            A model whose embeddings are searched.
        X, y : array-likes of the two views
            Held-out rows.
        kind : str, optional
            The similarity, as in `embed`.
        k, x_ids, y_ids, names, ax, **kwargs
            As in `from_predictions`.

        Returns
        -------
        RecallCurveDisplay

        Raises
        ------
        ValueError
            As in `from_predictions`.
        sklearn.exceptions.NotFittedError
            If the estimator was not fitted.
        """
        U, V = embedded(estimator, X, y, kind)
        return cls.from_predictions(
            U, V, k=k, x_ids=x_ids, y_ids=y_ids, names=names, ax=ax, **kwargs
        )

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        colours: Sequence[str] = (BLUE, VERMILLION),
    ) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        name, colours : str, pair of str, optional
            A prefix of the legend and the colours, to distinguish models in the same axes.

        Returns
        -------
        self
        """
        ax = axes_of(ax, (6.4, 4.0), grid="y")
        directions = direction_labels(self.names, name)
        for i, label in enumerate(directions):
            ks, values = self.recall.index.to_numpy(), self.recall.iloc[:, i].to_numpy()
            marks = [int(np.argmin(np.abs(ks - t))) for t in _ticks(len(ks))]
            draw_direction(
                ax, i, ks, values, colour=colours[i], label=label, marks=sorted(set(marks))
            )
        if self.chance is not None:
            mean = self.chance.mean(axis=1)
            ax.plot(mean.index, mean, ":", color=GREY, linewidth=1.5, label="chance")
        most = int(self.recall.index[-1])
        size_axis(ax, _ticks(most))
        ax.set_xlim(0.95, most * 1.05)
        ax.set_ylim(bottom=0)
        share_axis(ax.yaxis)
        ax.set(xlabel="k, the number of candidates shown", ylabel="recall at k (share of queries)")
        legend_above(ax)
        return self._drawn_in(ax)


def draw_direction(ax: Any, i: int, x: Any, y: Any, *, colour: str, label: str, marks: Any) -> None:
    """The curve of direction `i`, distinguished by line, marker and filling as well as colour."""
    _, line, marker = LOOKS[i]
    ax.plot(
        x, y, line, color=colour, marker=marker, markevery=marks, markersize=5, linewidth=1.5,
        markerfacecolor=colour if i == 0 else "white", label=label,
    )  # fmt: skip


def direction_labels(names: tuple[str, str], model: str | None) -> list[str]:
    """Legend entries of both directions, after the model's name if there is one."""
    start = "" if model is None else f"{model}, "
    return [f"{start}{names[0]} → {names[1]}", f"{start}{names[1]} → {names[0]}"]


def _ticks(most: int) -> list[int]:
    """1, 2, 5, 10, ... up to `most`."""
    ticks = [t * 10**e for e in range(len(str(most))) for t in (1, 2, 5)]
    return [t for t in ticks if t <= most]
