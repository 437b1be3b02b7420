"""Conformal sets: their size and their coverage over the confidence."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np

from cmstats.arrays import to_numpy
from cmstats.plotting.display import Display, check_fitted
from cmstats.plotting.style import BLUE, GREY, axes_of, legend_above, share_axis

__all__ = ["ConformalSetDisplay"]

LEVELS = np.arange(0.05, 0.995, 0.01)


class ConformalSetDisplay(Display):
    r"""The expected size of conformal sets, or their coverage, against the confidence.

    With the conformal p-values :math:`p_{ij}` of queries i and candidates j the set of
    confidence c has :math:`\#\{j: p_{ij} > 1 - c\}` members. A model of chance needs the share c
    of all candidates.

    Parameters
    ----------
    p_values : array of shape (n, m)
        Of every query with every candidate (`ConformalRetriever.p_values`).
    paired : bool, default=True
        Whether candidate i is the partner of query i.

    Attributes
    ----------
    confidence : array of shape (k,)
    size : array of shape (k,)
        The mean number of candidates in a set.
    coverage : array of shape (k,), or None
        The share of queries whose partner is in their set, where pairs are known.
    n_candidates : int
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, ConformalRetriever, load_emoji
    >>> from cmstats.plotting import ConformalSetDisplay
    >>> emoji = load_emoji()
    >>> image, text, train, test = emoji.image, emoji.text, emoji.train, emoji.test
    >>> retriever = ConformalRetriever(CCA(shrinkage=0.4), random_state=0)
    >>> retriever = retriever.fit(image[train], text[train])
    >>> display = ConformalSetDisplay.from_estimator(retriever, image[test], text[test])
    >>> bool((display.size < display.confidence * display.n_candidates).all())
    True
    """

    def __init__(self, p_values: Any, *, paired: bool = True) -> None:
        p = np.asarray(to_numpy(p_values), dtype=np.float64)
        if p.ndim != 2 or not p.size or not bool(((p > 0) & (p <= 1)).all()):
            raise ValueError("p_values must be a matrix of numbers above 0 and at most 1")
        if paired and p.shape[0] != p.shape[1]:
            raise ValueError(
                f"p_values has shape {p.shape}: with paired=True there is one candidate for each "
                "query, its partner"
            )
        self.n_candidates = int(p.shape[1])
        self.confidence = LEVELS
        limits = (1 - LEVELS) * (1 + 1e-9)
        ordered = np.sort(p, axis=None)
        inside = len(ordered) - np.searchsorted(ordered, limits, side="right")
        self.size = inside / p.shape[0]
        self.coverage = (p.diagonal()[:, None] > limits).mean(axis=0) if paired else None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        labels: Any = None,
        paired: bool = True,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the sets of a fitted `ConformalRetriever`.

        Parameters
        ----------
        estimator : ConformalRetriever
        X, y : array-likes of n and m rows
            Held-out queries and candidates.
        labels : array of shape (m,), optional
            Of the candidates, where it was calibrated by class.
        paired : bool, default=True
            Whether row i of both is one item.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        ConformalSetDisplay
        """
        check_fitted(estimator)
        found = cls(estimator.p_values(X, y, labels=labels), paired=paired)
        return found.plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, kind: Literal["size", "coverage"] = "size") -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        kind : {"size", "coverage"}, default="size"

        Returns
        -------
        self
        """
        if kind not in ("size", "coverage"):
            raise ValueError(f"kind={kind!r} is unknown: use 'size' or 'coverage'")
        if kind == "coverage" and self.coverage is None:
            raise ValueError("coverage needs pairs: give held-out pairs and paired=True")
        ax = axes_of(ax, (5.6, 4.4), grid="both")
        if kind == "size":
            values, chance, label = self.size, self.confidence * self.n_candidates, "chance"
            ax.set_ylabel(f"mean size of a set (of {self.n_candidates:,} candidates)")
        else:
            values, chance, label = self.coverage, self.confidence, "nominal"
            ax.set_ylabel("share of queries whose partner is in the set")
            share_axis(ax.yaxis)
        ax.plot(self.confidence, chance, ":", color=GREY, linewidth=1.5, label=label)
        ax.plot(self.confidence, values, "-", color=BLUE, linewidth=1.6, label="conformal sets")
        ax.set_xlim(0, 1)
        ax.set_ylim(bottom=0)
        share_axis(ax.xaxis)
        ax.set_xlabel("confidence")
        legend_above(ax)
        return self._drawn_in(ax)
