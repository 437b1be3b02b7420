"""Displays: the pictures of a fitted model, in scikit-learn's manner.

Each display holds the numbers it draws; ``from_estimator`` and its like compute them, and
``plot(ax=None)`` draws them again in any axes. The colours are those of Okabe and Ito (2008),
and whatever a colour says a marker, a line style or a frame says too, so the pictures hold in
greyscale.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmstats._array import Array, to_numpy
from cmstats.metrics import search

__all__ = [
    "CorrelationDisplay",
    "JointEmbeddingDisplay",
    "RetrievalDisplay",
    "ShrinkagePathDisplay",
]

Floats = npt.NDArray[np.float64]

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", ORANGE, "#56B4E9", "#000000", "#8C6D1F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "#767676"


def _pyplot() -> Any:
    """Matplotlib's pyplot, which only pictures need."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plots need Matplotlib: install it with `pip install cmstats[report]`"
        ) from error
    return plt


def _axes(ax: Any, size: tuple[float, float]) -> Any:
    """The axes given, or those of a new figure of this size in inches."""
    if ax is not None:
        _pyplot()
        return ax
    _, ax = _pyplot().subplots(figsize=size, layout="constrained")
    return ax


def _plain(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)


def _model(estimator: Any) -> Any:
    """The model inside a search."""
    return getattr(estimator, "best_estimator_", estimator)


# ------------------------------------------------------------------------- correlations
class CorrelationDisplay:
    """Canonical correlations of each component, in training and held out.

    Parameters
    ----------
    held_out : array of shape (k,), optional
        Correlations of the paired variates of rows the model has not seen.
    train : array of shape (k,), optional
        Those of the training rows.
    n_held_out : float, optional
        How many held-out rows there are, for the band of chance.

    Attributes
    ----------
    ax_, figure_ : the axes and their figure, after `plot`

    See Also
    --------
    CorrelationDisplay.from_estimator : Of a fitted model.
    CorrelationDisplay.from_predictions : Of variates.

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
    ) -> None:
        if held_out is None and train is None:
            raise ValueError("give held_out or train correlations, or both")
        self.held_out = None if held_out is None else to_numpy(held_out)
        self.train = None if train is None else to_numpy(train)
        self.n_held_out = n_held_out

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any = None, y: Any = None, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw a fitted model's correlations.

        Parameters
        ----------
        estimator : fitted model, TwoViewPipeline or MomentsSearchCV
        X, y : array-likes, optional
            Held-out rows of both views; without them only the training correlations show.
        ax : matplotlib axes, optional
        **kwargs
            For `plot`.

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
        model = _model(estimator)
        train = getattr(getattr(model, "model_", model), "correlations_", None)
        # By rows: on moments (`correlations_on`) wide views would need their p x p scatter.
        held_out = None if X is None else column_correlations(*model.transform(X, y))
        n = None if X is None else float(len(X) if not hasattr(X, "shape") else X.shape[0])
        return cls(held_out, train=train, n_held_out=n).plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, U: Array, V: Array, *, train: Array | None = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the correlations of the columns of two matrices of variates.

        Parameters
        ----------
        U, V : arrays of shape (n, k)
            Variates of held-out rows, as `transform` returns them.
        train : array of shape (k,), optional
            Correlations of the training rows.
        ax : matplotlib axes, optional
        **kwargs
            For `plot`.

        Returns
        -------
        CorrelationDisplay
        """
        held_out = column_correlations(U, V)
        return cls(held_out, train=train, n_held_out=float(len(to_numpy(U)))).plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, max_components: int | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib axes, optional
            A new figure by default.
        max_components : int, optional
            Draw the first so many; all by default.

        Returns
        -------
        self
        """
        ax = _axes(ax, (6.4, 3.8))
        _plain(ax)
        lines = (
            ("training", self.train, VERMILLION, "--", "s", "white"),
            ("held out", self.held_out, BLUE, "-", "o", BLUE),
        )
        shown = 0
        for label, values, colour, style, marker, face in lines:
            if values is None:
                continue
            values = values[:max_components]
            shown = max(shown, len(values))
            ax.plot(
                np.arange(1, len(values) + 1), values, style, color=colour, label=label,
                marker=marker if len(values) <= 60 else None, markersize=4.5,
                markerfacecolor=face, linewidth=1.4,
            )  # fmt: skip
        if self.held_out is not None and self.n_held_out and self.n_held_out > 3:
            # Fisher's z has standard deviation 1 / sqrt(n - 3).
            reach = float(np.tanh(1.96 / np.sqrt(self.n_held_out - 3)))
            ax.axhspan(
                -reach, reach, color="#000000", alpha=0.1, linewidth=0,
                label="no correlation (95 % of held-out values)",
            )  # fmt: skip
        ax.axhline(0, color="#555555", linewidth=0.7, zorder=0.5)
        ax.set_xlim(0.5 if shown <= 60 else 0, shown + 0.5)
        ax.set_ylim(top=1.02)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("component")
        ax.set_ylabel("canonical correlation")
        # Above the axes: inside, there is no corner that curves and band leave free.
        ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def column_correlations(U: Any, V: Any) -> Floats:
    """Correlations of the columns of U with the same columns of V."""
    u, v = (to_numpy(a).astype(np.float64) for a in (U, V))
    u, v = u - u.mean(axis=0), v - v.mean(axis=0)
    norms = np.sqrt((u * u).sum(axis=0) * (v * v).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((u * v).sum(axis=0) / norms)


# ---------------------------------------------------------------------- joint embedding
class JointEmbeddingDisplay:
    """Both views in one plane: two components, coloured and marked by label.

    Filled markers are the first view, hollow ones the second; a thin line joins some pairs.

    Parameters
    ----------
    U, V : arrays of shape (n, 2)
        Coordinates of both views, row by row partners.
    labels : array of shape (n,), optional
        Classes; the commonest get a colour and a marker each, the rest are grey.
    names : pair of str, default=("x", "y")
        What the views are called in the legend.
    axis_names : pair of str, optional
        The labels of the axes.

    Attributes
    ----------
    ax_, figure_ : the axes and their figure, after `plot`

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
        """Draw two variates of rows of both views.

        Parameters
        ----------
        estimator : fitted model with ``transform(X, y)``
        X, y : array-likes of n rows each
        labels : array of shape (n,), optional
        components : pair of int, default=(0, 1)
            Which two, from 0.
        names : pair of str, default=("x", "y")
        ax : matplotlib axes, optional
        **kwargs
            For `plot`.

        Returns
        -------
        JointEmbeddingDisplay

        Raises
        ------
        ValueError
            If the model has fewer components than asked for.
        """
        U, V = (to_numpy(a) for a in estimator.transform(X, y))
        if max(components) >= U.shape[1]:
            raise ValueError(
                f"components={components} were asked for, but the model has {U.shape[1]} "
                "(numbered from 0)"
            )
        first, second = (f"variate {c + 1} (standard deviations in training)" for c in components)
        at = list(components)
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
        labels : array of shape (n,), optional
        ax : matplotlib axes, optional
        **kwargs
            For `plot`.

        Returns
        -------
        JointEmbeddingDisplay
        """
        return cls(to_numpy(U)[:, :2], to_numpy(V)[:, :2], labels=labels).plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, max_items: int = 400, n_lines: int = 25) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib axes, optional
            A new figure by default.
        max_items : int, default=400
            Draw at most so many items, spread evenly over the rows.
        n_lines : int, default=25
            How many pairs are joined by a line, spread evenly over the items drawn.

        Returns
        -------
        self
        """
        ax = _axes(ax, (6.4, 6.0))
        shown = _spread(len(self.U), max_items)
        classes = self._classes()
        for group, (rows, colour, marker) in classes.items():
            at = np.intersect1d(shown, rows)
            common = {"marker": marker, "s": 20, "linewidths": 0.9, "alpha": 0.8}
            ax.scatter(*self.V[at].T, facecolors="none", edgecolors=colour, **common)
            ax.scatter(*self.U[at].T, facecolors=colour, edgecolors="none", label=group, **common)
        for i in shown[_spread(len(shown), n_lines)]:
            ends = np.stack([self.U[i], self.V[i]])
            ax.plot(*ends.T, color="#333333", linewidth=0.7, alpha=0.7, zorder=3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.axhline(0, color="#dddddd", linewidth=0.8, zorder=0.5)
        ax.axvline(0, color="#dddddd", linewidth=0.8, zorder=0.5)
        ax.set_xlabel(self.axis_names[0])
        ax.set_ylabel(self.axis_names[1])
        self._legend(ax, single=len(classes) == 1)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _classes(self) -> dict[str, tuple[Any, str, str]]:
        """Rows, colour and marker of each class; the rare ones together."""
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
        from matplotlib.lines import Line2D

        views = [
            Line2D([], [], linestyle="", marker="o", color="#333333", markersize=5, label=name,
                   markerfacecolor=face)
            for name, face in zip(self.names, ("#333333", "none"), strict=True)
        ]  # fmt: skip
        views.append(Line2D([], [], color="#333333", linewidth=0.7, label="a pair"))
        handles = [] if single else ax.get_legend_handles_labels()[0]
        ax.legend(
            handles=views + handles, frameon=False, loc="upper center",
            bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=9, handletextpad=0.4,
            columnspacing=1.2,
        )  # fmt: skip


def _spread(n: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` of the numbers 0 .. n - 1, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(np.int64))


# ---------------------------------------------------------------------------- retrieval
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
        ax = _axes(ax, (width * inch, (rows + 0.1) * inch))
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


# ----------------------------------------------------------------------- shrinkage path
class ShrinkagePathDisplay:
    """The cross-validated score along the shrinkage.

    Parameters
    ----------
    shrinkages : array of shape (m, 2)
        The pairs (x, y) tried.
    scores : array of shape (m, n_folds)
        The held-out score of each in each fold.

    Attributes
    ----------
    best : tuple of two float
        The pair with the best mean score.
    ax_, figure_ : the axes and their figure, after `plot`

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.plotting import ShrinkagePathDisplay
    >>> men = load_linnerud()
    >>> cca = CCA(1, shrinkage="cv").fit(men.X, men.y)
    >>> display = ShrinkagePathDisplay.from_estimator(cca)
    >>> display.best == cca.shrinkage_
    True
    """

    def __init__(self, shrinkages: Any, scores: Any) -> None:
        self.shrinkages = np.asarray(shrinkages, dtype=np.float64)
        self.scores = np.asarray(scores, dtype=np.float64)
        if self.shrinkages.shape != (len(self.scores), 2) or self.scores.ndim != 2:
            raise ValueError(
                "shrinkages must be pairs and scores one row of folds for each, got shapes "
                f"{self.shrinkages.shape} and {self.scores.shape}"
            )
        if not np.isfinite(self.scores).all(axis=1).any():
            raise ValueError("no shrinkage has a score in every fold: there is nothing to draw")
        mean = np.where(np.isfinite(self.scores).all(axis=1), self.scores.mean(axis=1), -np.inf)
        x, y = self.shrinkages[int(np.argmax(mean))]
        self.best = (float(x), float(y))

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Draw the path of a fitted search.

        Parameters
        ----------
        estimator : fitted MomentsSearchCV over ``shrinkage``, or CCA with ``shrinkage="cv"``
            Of a grid with other parameters too, the best of those at each shrinkage shows.
        ax : matplotlib axes, optional

        Returns
        -------
        ShrinkagePathDisplay

        Raises
        ------
        ValueError
            If the estimator searched no numbers for the shrinkage.
        """
        if hasattr(estimator, "cv_scores_"):
            tried, scores = estimator.cv_shrinkages_, estimator.cv_scores_
        elif "param_shrinkage" in getattr(estimator, "cv_results_", {}):
            results = estimator.cv_results_
            tried = [parameters.get("shrinkage") for parameters in results["params"]]
            folds = range(estimator.n_splits_)
            scores = np.stack([results[f"split{k}_test_score"] for k in folds], axis=1)
        else:
            raise ValueError(
                f"{type(estimator).__name__} has searched no shrinkage: fit a MomentsSearchCV over "
                "'shrinkage', or a CCA with shrinkage='cv'"
            )
        pairs = [s if isinstance(s, (tuple, list)) else (s, s) for s in tried]
        # "auto" is a formula, not a place on the axis.
        numeric = [not any(s is None or isinstance(s, str) for s in pair) for pair in pairs]
        if not any(numeric):
            raise ValueError("the search tried no numbers for the shrinkage")
        kept = [pair for pair, number in zip(pairs, numeric, strict=True) if number]
        return cls(kept, np.asarray(scores)[numeric]).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Where pairs were tried, there is one line for each view: the best score at that
        view's shrinkage, over those of the other view.

        Parameters
        ----------
        ax : matplotlib axes, optional
            A new figure by default.

        Returns
        -------
        self
        """
        ax = _axes(ax, (6.4, 3.8))
        _plain(ax)
        shared = bool((self.shrinkages[:, 0] == self.shrinkages[:, 1]).all())
        views = [("both views", 0, BLUE, "-", "o")] if shared else [
            ("shrinkage of x, best of y", 0, BLUE, "-", "o"),
            ("shrinkage of y, best of x", 1, VERMILLION, "--", "s"),
        ]  # fmt: skip
        for label, side, colour, style, marker in views:
            s, mean, error = self._profile(side)
            ax.errorbar(
                s, mean, error, color=colour, linestyle=style, marker=marker, markersize=5,
                capsize=3, linewidth=1.4, label=label,
                markerfacecolor=colour if side == 0 else "white",
            )  # fmt: skip
        for side, (_, _, colour, _, _) in enumerate(views):
            ax.axvline(self.best[side], color=colour, linewidth=1, linestyle=":", zorder=0.9)
        positive = self.shrinkages[self.shrinkages > 0]
        if len(positive) == self.shrinkages.size:
            ax.set_xscale("log")
        else:  # 0 has no place on a log axis; it gets one left of the smallest
            smallest = float(positive.min()) if len(positive) else 1.0
            ax.set_xscale("symlog", linthresh=smallest, linscale=0.5)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xlabel("shrinkage (0: textbook CCA, 1: PLS directions)")
        ax.set_ylabel("mean held-out correlation\n± standard error over the folds")
        best = "chosen: " + " and ".join(f"{s:g}" for s in (self.best[:1] if shared else self.best))
        ax.legend(frameon=False, title=best, title_fontsize=9, fontsize=9)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _profile(self, side: int) -> tuple[Sequence[float], Floats, Floats]:
        """At each value of one view's shrinkage the best mean score, and its standard error."""
        mean = self.scores.mean(axis=1)
        error = self.scores.std(axis=1, ddof=1) / np.sqrt(self.scores.shape[1])
        values, at = [], []
        for value in np.unique(self.shrinkages[:, side]):
            rows = np.flatnonzero((self.shrinkages[:, side] == value) & np.isfinite(mean))
            if len(rows):
                values.append(float(value))
                at.append(rows[np.argmax(mean[rows])])
        return values, mean[at], error[at]
