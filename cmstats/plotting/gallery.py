"""A gallery of queries and the candidates that they retrieve."""

from __future__ import annotations

import textwrap
from typing import Any, Self

import numpy as np

from cmstats.arrays import Array, to_numpy
from cmstats.metrics.retrieval import search
from cmstats.plotting.display import Display, embedded
from cmstats.plotting.style import GREEN, axes_of

__all__ = ["RetrievalDisplay"]


class RetrievalDisplay(Display):
    """A gallery with one row per query: its best candidates, with the partner framed.

    Queries and candidates are texts or pictures.

    Parameters
    ----------
    queries : sequence of m str, or of m pictures of shape (h, w, 3)
        The queries.
    results : sequence of m sequences of str or pictures
        The candidates retrieved by each query, best first.
    hits : array of shape (m, k) of bool, optional
        Whether a candidate is the query's partner.

    Attributes
    ----------
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import numpy as np
    >>> from cmstats.plotting import RetrievalDisplay
    >>> display = RetrievalDisplay.from_predictions(
    ...     np.eye(3), np.eye(3), queries=["a", "b", "c"], candidates=["A", "B", "C"],
    ...     partners=[0, 1, 2], k=2)
    >>> [row[0] for row in display.results], display.hits[:, 0].all()
    (['A', 'B', 'C'], np.True_)
    """

    def __init__(self, queries: Any, results: Any, *, hits: Any = None) -> None:
        self.queries = list(queries)
        self.results = [list(row) for row in results]
        if len(self.queries) != len(self.results) or not self.queries:
            raise ValueError(
                f"there are {len(self.queries)} queries and {len(self.results)} rows of results: "
                "one row for each query, and at least one"
            )
        shape = (len(self.results), max(len(row) for row in self.results))
        self.hits = np.zeros(shape, dtype=bool) if hits is None else np.asarray(hits, dtype=bool)

    @classmethod
    def from_predictions(
        cls,
        U: Array,
        V: Array,
        *,
        queries: Any,
        candidates: Any,
        partners: Any = None,
        k: int = 8,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Search `V` for each row of `U`, and draw the results.

        Parameters
        ----------
        U : array of shape (m, d)
            Embeddings of the queries, from `embed`.
        V : array of shape (n, d)
            Embeddings of the candidates.
        queries, candidates : sequences of m and of n str, or pictures of shape (h, w, 3)
            The texts or pictures that are drawn.
        partners : array of shape (m,) of int, optional
            The row of `V` that belongs to each query; -1 for none.
        k : int, default=8
            The number of candidates per query.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        RetrievalDisplay

        Raises
        ------
        ValueError
            If a length differs from that of its embeddings.
        """
        for name, values, rows in (("queries", queries, U), ("candidates", candidates, V)):
            if len(values) != len(rows):
                raise ValueError(f"there are {len(values)} {name} for {len(rows)} embeddings")
        found = to_numpy(search(U, V, k)[0])
        hits = None if partners is None else found == np.asarray(partners)[:, None]
        return cls(queries, [[candidates[j] for j in row] for row in found], hits=hits).plot(
            ax, **kwargs
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        queries: Any,
        candidates: Any,
        find: str = "x",
        kind: str | None = None,
        partners: Any = None,
        k: int = 8,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Embed both views with a fitted model, and search one for the other.

        Parameters
        ----------
        estimator : fitted model with ``embed(X, y)``
            A model whose embeddings are searched.
        X, y : array-likes
            Rows of both views; their numbers may differ.
        queries, candidates : sequences of str or pictures
            For ``find="x"`` one query for each row of `y`, one candidate for each row of `X`;
            for ``find="y"`` the other way round.
        find : {"x", "y"}, default="x"
            The view that is searched.
        kind : str, optional
            The similarity, as in `embed`.
        partners, k, ax, **kwargs
            As in `from_predictions`.

        Returns
        -------
        RetrievalDisplay

        Raises
        ------
        ValueError
            If `find` is neither "x" nor "y", or lengths differ.
        """
        if find not in ("x", "y"):
            raise ValueError(f"find={find!r} must be 'x' or 'y', the view that is searched")
        u, v = embedded(estimator, X, y, kind)
        U, V = (v, u) if find == "x" else (u, v)
        return cls.from_predictions(
            U, V, queries=queries, candidates=candidates, partners=partners, k=k, ax=ax, **kwargs
        )

    def plot(self, ax: Any = None, *, query_width: float | None = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure of the gallery's size.
        query_width : float, optional
            The width of the column of queries, in cells.

        Returns
        -------
        self
        """
        rows, columns = len(self.results), max(len(row) for row in self.results)
        texts = isinstance(self.results[0][0], str)
        wide = 2.1 if texts else 1.0  # in cells: texts are wider than pictures
        asks_in_text = isinstance(self.queries[0], str)
        first = query_width if query_width is not None else (2.6 if asks_in_text else 1.1)
        width = first + 0.25 + columns * wide
        inch = 0.72
        ax = axes_of(ax, (width * inch, (rows + 0.1) * inch))
        for i, (query, found) in enumerate(zip(self.queries, self.results, strict=True)):
            height = rows - i - 0.5
            if asks_in_text:
                wrapped = _wrapped(query, 20)
                ax.text(first - 0.1, height, wrapped, ha="right", va="center", fontsize=11)
            else:
                _picture(ax, query, first - 0.5, height, 0.84)
            for j, item in enumerate(found):
                centre = first + 0.25 + (j + 0.5) * wide
                if texts:
                    hit = self.hits[i, j]
                    ax.text(
                        centre, height, _wrapped(item, 17), ha="center", va="center", fontsize=9,
                        fontweight="bold" if hit else "normal",
                    )  # fmt: skip
                else:
                    _picture(ax, item, centre, height, 0.84)
                if self.hits[i, j]:
                    _frame(ax, centre, height, wide - 0.08, 0.96)
        ax.plot([first + 0.12] * 2, [0.05, rows - 0.05], color="#bbbbbb", linewidth=1)
        ax.set(xlim=(0, width), ylim=(-0.05, rows + 0.05), aspect="equal")
        ax.set_axis_off()
        return self._drawn_in(ax)


def _wrapped(text: str, width: int) -> str:
    """Text wrapped to at most three lines."""
    lines = textwrap.wrap(str(text), width) or [""]
    return "\n".join([*lines[:2], lines[2] + " …"] if len(lines) > 3 else lines)


def _picture(ax: Any, pixels: Any, x: float, y: float, side: float) -> None:
    """Draw a picture centred at (x, y)."""
    half = side / 2
    ax.imshow(
        pixels, extent=(x - half, x + half, y - half, y + half), interpolation="antialiased",
        zorder=2,
    )  # fmt: skip


def _frame(ax: Any, x: float, y: float, width: float, height: float) -> None:
    """Draw a frame centred at (x, y)."""
    from matplotlib.patches import FancyBboxPatch

    pad = 0.06
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2 + pad, y - height / 2 + pad), width - 2 * pad, height - 2 * pad,
            boxstyle=f"round,pad={pad}", fill=False, edgecolor=GREEN, linewidth=2, zorder=3,
        )
    )  # fmt: skip
