"""A gallery of what a search finds."""

from __future__ import annotations

import textwrap
from typing import Any, Self

import numpy as np

from cmstats.arrays import Array, to_numpy
from cmstats.metrics.retrieval import search
from cmstats.plotting.style import GREEN, axes_of, check_fitted

__all__ = ["RetrievalDisplay"]


class RetrievalDisplay:
    """A gallery: each row a query and its best candidates, the partner framed.

    Queries and candidates are texts or pictures.

    Parameters
    ----------
    queries : sequence of m str, or of m pictures of shape (h, w, 3)
    results : sequence of m sequences of str or pictures
        The candidates found for each query, best first.
    hits : array of shape (m, k) of bool, optional
        Which of them is the query's partner.

    Attributes
    ----------
    ax_, figure_ : the axes and their figure, after `plot`

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
        """Search `V` for each row of `U`, and draw what is found.

        Parameters
        ----------
        U : array of shape (m, d)
            Embeddings of the queries, as `embed` returns them.
        V : array of shape (n, d)
            Embeddings of the candidates.
        queries, candidates : sequences of m and of n str, or pictures of shape (h, w, 3)
            What is drawn for each.
        partners : array of shape (m,) of int, optional
            The row of `V` that belongs to each query; -1 for none.
        k : int, default=8
            How many candidates to show.
        ax : matplotlib axes, optional
        **kwargs
            For `plot`.

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
        X, y : array-likes of the two views; numbers of rows may differ
        queries, candidates : sequences of str or pictures
            For ``find="x"`` one query for each row of `y`, one candidate for each row of `X`;
            for ``find="y"`` the other way round.
        find : {"x", "y"}, default="x"
            Which view is searched.
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
        check_fitted(estimator)
        u, v = estimator.embed(X, y, **({} if kind is None else {"kind": kind}))
        U, V = (v, u) if find == "x" else (u, v)
        return cls.from_predictions(
            U, V, queries=queries, candidates=candidates, partners=partners, k=k, ax=ax, **kwargs
        )

    def plot(self, ax: Any = None, *, query_width: float | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib axes, optional
            A new figure by default, as large as the gallery needs.
        query_width : float, optional
            Width of the column of queries, in cells.

        Returns
        -------
        self
        """
        rows, columns = len(self.results), max(len(row) for row in self.results)
        texts = isinstance(self.results[0][0], str)
        wide = 2.1 if texts else 1.0  # a text needs more room than a picture
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
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _wrapped(text: str, width: int) -> str:
    lines = textwrap.wrap(str(text), width) or [""]
    return "\n".join([*lines[:2], lines[2] + " …"] if len(lines) > 3 else lines)


def _picture(ax: Any, pixels: Any, x: float, y: float, side: float) -> None:
    half = side / 2
    ax.imshow(
        pixels, extent=(x - half, x + half, y - half, y + half), interpolation="antialiased",
        zorder=2,
    )  # fmt: skip


def _frame(ax: Any, x: float, y: float, width: float, height: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    pad = 0.06
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2 + pad, y - height / 2 + pad), width - 2 * pad, height - 2 * pad,
            boxstyle=f"round,pad={pad}", fill=False, edgecolor=GREEN, linewidth=2, zorder=3,
        )
    )  # fmt: skip
