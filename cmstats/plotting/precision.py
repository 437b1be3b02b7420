"""Precision over recall of cross-modal rankings with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from cmstats.arrays import Array, row_slices, to_numpy
from cmstats.kernels.linalg import inner
from cmstats.metrics.relevance import Relevance, view_sizes
from cmstats.plotting.display import Display, Floats, embedded
from cmstats.plotting.retrieval import direction_labels, draw_direction
from cmstats.plotting.style import BLUE, GREY, VERMILLION, axes_of, legend_above, share_axis

__all__ = ["PrecisionRecallCurveDisplay"]

RECALLS = np.linspace(0, 1, 101)


class PrecisionRecallCurveDisplay(Display):
    r"""Interpolated precision over recall, the mean over the queries.

    Candidates with a query's label are relevant to it. With :math:`P_i(r)` the precision of
    query i at recall r,

    .. math:: P(r) = \frac1n \sum_i \max_{s \ge r} P_i(s)

    Parameters
    ----------
    precision : array of shape (2, r)
        Mean interpolated precisions of the directions x -> y and y -> x.
    recall : array of shape (r,)
        The recalls at which they are evaluated.
    chance : pair of float, optional
        The mean share of relevant candidates.
    mean_average_precision : pair of float, optional
        The mAP of both directions, for the legend.
    names : pair of str, default=("x", "y")
        The names of the views.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    References
    ----------
    Manning, C., Raghavan, P. and Schütze, H. (2008). Introduction to Information Retrieval,
    chapter 8.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np
    >>> from cmstats.plotting import PrecisionRecallCurveDisplay
    >>> U = np.eye(2)[[0, 1, 0, 1]]
    >>> display = PrecisionRecallCurveDisplay.from_predictions(U, U, labels=[0, 1, 0, 1])
    >>> float(display.precision.min()), display.chance
    (1.0, (0.5, 0.5))
    """

    def __init__(
        self,
        precision: Any,
        recall: Any = RECALLS,
        *,
        chance: tuple[float, float] | None = None,
        mean_average_precision: tuple[float, float] | None = None,
        names: tuple[str, str] = ("x", "y"),
    ) -> None:
        self.precision, self.recall = np.asarray(precision), np.asarray(recall)
        self.chance, self.mean_average_precision, self.names = chance, mean_average_precision, names

    @classmethod
    def from_predictions(
        cls,
        U: Array,
        V: Array | None = None,
        *,
        labels: Any,
        names: tuple[str, str] = ("x", "y"),
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the precisions of embeddings, or of a matrix of scores.

        Parameters
        ----------
        U, V, labels
            As in `retrieval_report`. Whole rankings are sorted, in time n m log m; candidates
            of equal score enter the ranking together.
        names : pair of str, default=("x", "y")
            The names of the views.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        PrecisionRecallCurveDisplay

        Raises
        ------
        ValueError
            Without labels, or if no candidate has the label of any query.
        """
        if labels is None:
            raise ValueError("give labels: they say which candidates are relevant to a query")
        relevance = Relevance(view_sizes(U, V), labels, None, None)
        curves, means, chance = [], [], []
        for side in (0, 1):
            own, other = relevance.classes(side)
            found = [_query(s[other == c], s[other != c]) for s, c in _rankings(U, V, side, own)]
            kept = [f for f in found if f is not None]
            if not kept:
                raise ValueError("no candidate has the label of any query: check labels")
            curve, mean, share = (np.mean(a, axis=0) for a in zip(*kept, strict=True))
            curves.append(curve)
            means.append(float(mean))
            chance.append(float(share))
        display = cls(
            np.stack(curves), chance=(chance[0], chance[1]), names=names,
            mean_average_precision=(means[0], means[1]),
        )  # fmt: skip
        return display.plot(ax, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        labels: Any,
        kind: str | None = None,
        names: tuple[str, str] = ("x", "y"),
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Embed both views with a fitted model, and draw the precisions.

        Parameters
        ----------
        estimator : fitted model with ``embed(X, y)``
            A model whose embeddings are searched.
        X, y : array-likes of the two views
            Held-out rows.
        kind : str, optional
            The similarity, as in `embed`.
        labels, names, ax, **kwargs
            As in `from_predictions`.

        Returns
        -------
        PrecisionRecallCurveDisplay

        Raises
        ------
        ValueError
            As in `from_predictions`.
        sklearn.exceptions.NotFittedError
            If the estimator was not fitted.
        """
        U, V = embedded(estimator, X, y, kind)
        return cls.from_predictions(U, V, labels=labels, names=names, ax=ax, **kwargs)

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
        for i, label in enumerate(direction_labels(self.names, name)):
            if self.mean_average_precision is not None:
                label += f" (mAP {self.mean_average_precision[i]:.2f})"
            draw_direction(
                ax, i, self.recall, self.precision[i], colour=colours[i], label=label,
                marks=max(len(self.recall) // 10, 1),
            )  # fmt: skip
        if self.chance is not None:
            chance = float(np.mean(self.chance))
            ax.axhline(chance, linestyle=":", color=GREY, linewidth=1.5, label="chance")
        ax.set(xlim=(-0.02, 1.02), ylim=(0, 1.02))
        share_axis(ax.xaxis, ax.yaxis)
        ax.set_xlabel("recall (share of the relevant candidates found)")
        ax.set_ylabel("precision (share relevant)")
        legend_above(ax)
        return self._drawn_in(ax)


def _rankings(U: Any, V: Any, side: int, codes: Any) -> Any:
    """Yield the scores and the label of each query that has a label, block by block."""
    if V is None:
        scores = to_numpy(U) if side == 0 else to_numpy(U).T
        yield from ((s, c) for s, c in zip(scores, codes, strict=True) if c >= 0)
        return
    queries, candidates = (U, V) if side == 0 else (V, U)
    if not hasattr(queries, "shape"):
        queries, candidates = np.asarray(queries), np.asarray(candidates)
    for rows in row_slices(queries.shape[0], 2**22 // max(candidates.shape[0], 1) + 1):
        block = to_numpy(inner(queries[rows, :], candidates))
        yield from ((s, c) for s, c in zip(block, codes[rows], strict=True) if c >= 0)


def _query(relevant: Floats, others: Floats) -> tuple[Floats, float, float] | None:
    """Interpolated precision at `RECALLS`, average precision, share of relevant candidates."""
    count = len(relevant)
    if not count:
        return None
    ranked = np.sort(relevant)[::-1]
    # Candidates that score at least as high as the j-th relevant one.
    hits = np.searchsorted(-ranked, -ranked, side="right")
    wrong = len(others) - np.searchsorted(np.sort(others), ranked, side="left")
    precision = hits / (hits + wrong)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    needed = np.maximum(np.ceil(RECALLS * count - 1e-9).astype(np.int64), 1)
    return best[needed - 1], float(precision.mean()), count / (count + len(others))
