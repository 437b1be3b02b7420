"""Loadings of variables on the variates, as a heat map or a correlation circle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from cmstats.arrays import to_numpy
from cmstats.inference.fitted import inner_model
from cmstats.inference.interpretation import loadings_table
from cmstats.plotting.display import Display, Floats, component_at, frame_of, strongest
from cmstats.plotting.style import BLUE, VERMILLION, axes_of, legend_above

__all__ = ["LoadingsDisplay"]

KINDS = ("heatmap", "circle")
QUANTITIES = {
    "loading": "correlation with own variate",
    "cross_loading": "correlation with other variate",
    "weight": "weight per unit",
}


class LoadingsDisplay(Display):
    """Loadings of both views' variables, as a heat map or as a correlation circle.

    Parameters
    ----------
    table : DataFrame
        The result of `loadings_table`.
    quantity : {"loading", "cross_loading", "weight"}, default="loading"
        The quantity of the table to draw.
    components : sequence of int, optional
        The components, from 0; by default all, up to ten. The circle takes the first two.
    correlations : array of shape (k,), optional
        Canonical correlations, for the axes of the circle.
    names : pair of str, default=("x", "y")
        The names of the views.

    Attributes
    ----------
    values : dict of str -> array of shape (p, len(components))
        The values of each view, "x" and "y".
    features : dict of str -> list of str
        The names of the variables of each view.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.plotting import LoadingsDisplay
    >>> men = load_linnerud()
    >>> display = LoadingsDisplay.from_estimator(CCA().fit(men.X, men.y), kind="circle")
    >>> display.values["x"].shape, display.ax_.get_xlabel()
    ((3, 3), 'correlation with variate 1 (canonical correlation 0.80)')
    """

    def __init__(
        self,
        table: Any,
        *,
        quantity: Literal["loading", "cross_loading", "weight"] = "loading",
        components: Sequence[int] | None = None,
        correlations: Any = None,
        names: tuple[str, str] = ("x", "y"),
    ) -> None:
        if quantity not in QUANTITIES:
            raise ValueError(
                f"quantity={quantity!r} is unknown: use 'loading', 'cross_loading' or 'weight'"
            )
        part = frame_of(table, (quantity,), "loadings_table")[quantity]
        count = part.shape[1]
        wanted = range(min(count, 10)) if components is None else components
        self.components = [component_at(c, count) for c in wanted]
        self.quantity, self.names = quantity, names
        self.correlations = None if correlations is None else to_numpy(correlations)
        self.values: dict[str, Floats] = {}
        self.features: dict[str, list[str]] = {}
        for view in ("x", "y"):
            rows = part.loc[view]
            self.values[view] = rows.to_numpy()[:, self.components]
            self.features[view] = [str(name) for name in rows.index]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        kind: Literal["heatmap", "circle"] = "heatmap",
        quantity: Literal["loading", "cross_loading", "weight"] = "loading",
        components: Sequence[int] | None = None,
        names: tuple[str, str] = ("x", "y"),
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the loadings of a fitted CCA.

        Parameters
        ----------
        estimator : fitted CCA, or a search or pipeline around one
            As in `loadings_table`.
        kind : {"heatmap", "circle"}, default="heatmap"
            See `plot`.
        quantity, components, names
            See `LoadingsDisplay`.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        LoadingsDisplay

        Raises
        ------
        TypeError
            If the model has no loadings.
        ValueError
            If kind or quantity is unknown, or there is no such component.
        sklearn.exceptions.NotFittedError
            If the estimator was not fitted.
        """
        table = loadings_table(estimator)
        display = cls(
            table, quantity=quantity, components=components, names=names,
            correlations=inner_model(estimator).correlations_,
        )  # fmt: skip
        return display.plot(ax, kind=kind, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["heatmap", "circle"] = "heatmap",
        max_features: int | None = None,
    ) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.
        kind : {"heatmap", "circle"}, default="heatmap"
            The circle shows two components, one point per variable; variables outside the
            inner circle, of radius 1/2, are well represented by the two.
        max_features : int, optional
            The most variables per view, those with the largest sums of squares over the
            components drawn: rows of the heat map (20 by default), labels in the circle (10).

        Returns
        -------
        self
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is unknown: use 'heatmap' or 'circle'")
        most = max_features if max_features is not None else (10 if kind == "circle" else 20)
        if most < 1:
            raise ValueError(f"max_features={max_features} must be at least 1")
        ax = self._circle(ax, most) if kind == "circle" else self._heatmap(ax, most)
        return self._drawn_in(ax)

    def _heatmap(self, ax: Any, most: int) -> Any:
        """A heat map with one row per variable, both views below each other."""
        kept = {view: strongest((a**2).sum(axis=1), most) for view, a in self.values.items()}
        rows = np.concatenate([self.values[view][kept[view]] for view in kept])
        k, split = rows.shape[1], len(kept["x"])
        longest = max(len(name) for view in kept for name in self.features[view])
        size = (2.0 + 0.6 * k + 0.075 * min(longest, 30), max(3.0, 0.9 + 0.26 * len(rows)))
        ax = axes_of(ax, size)
        reach = max(float(np.abs(rows).max()), 1e-12) if self.quantity == "weight" else 1.0
        image = ax.imshow(rows, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
        # In greyscale both ends of the colour map are equally dark: print the numbers too.
        for i, j in np.ndindex(rows.shape):
            ax.text(
                j, i, _number(float(rows[i, j]), reach), ha="center", va="center", fontsize=8,
                color="white" if abs(rows[i, j]) > 0.6 * reach else "black",
            )  # fmt: skip
        names = [_short(self.features[view][i]) for view in kept for i in kept[view]]
        ax.set_yticks(range(len(names)), names, fontsize=9)
        ax.set_xticks(range(k), [str(c + 1) for c in self.components])
        ax.axhline(split - 0.5, color="white", linewidth=5)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("component")
        self._name_views(ax, kept)
        bar = ax.figure.colorbar(image, ax=ax, fraction=0.08, pad=0.03)
        bar.set_label(QUANTITIES[self.quantity])
        bar.outline.set_visible(False)
        return ax

    def _name_views(self, ax: Any, kept: dict[str, Any]) -> None:
        """Name the views at the right of the heat map."""
        centres, labels, start = [], [], 0
        for name, (view, rows) in zip(self.names, kept.items(), strict=True):
            total = len(self.features[view])
            few = len(rows) < total
            labels.append(f"{name}: {len(rows)} of {total}" if few else name)
            centres.append(start + (len(rows) - 1) / 2)
            start += len(rows)
        right = ax.secondary_yaxis("right")
        right.set_yticks(centres, labels, rotation=90, va="center")
        right.tick_params(length=0)
        right.spines[:].set_visible(False)

    def _circle(self, ax: Any, most: int) -> Any:
        """A correlation circle of two components, with labels of the strongest variables."""
        if self.quantity == "weight":
            raise ValueError(
                "the circle is of correlations: use quantity='loading' or kind='heatmap'"
            )
        if len(self.components) < 2:
            raise ValueError("the circle needs two components, and the display has one")
        longest = max(len(_short(name)) for names in self.features.values() for name in names)
        reach = max(1.3, 1.2 + 0.035 * longest)  # room for the labels beside the circle
        ax = axes_of(ax, (4.2 * reach + 0.9, 6.4))
        from matplotlib.patches import Circle

        for radius, style in ((1.0, "-"), (0.5, "--")):
            ax.add_patch(Circle((0, 0), radius, fill=False, color="#777777", lw=0.9, ls=style))
        ax.axhline(0, color="#dddddd", linewidth=0.8, zorder=0.5)
        ax.axvline(0, color="#dddddd", linewidth=0.8, zorder=0.5)
        points, words = [], []
        looks = (("x", BLUE, "o", BLUE), ("y", VERMILLION, "s", "white"))
        for name, (view, colour, marker, face) in zip(self.names, looks, strict=True):
            xy = self.values[view][:, :2]
            top = strongest((xy**2).sum(axis=1), most)
            rest = np.setdiff1d(np.arange(len(xy)), top)
            look = {"edgecolors": colour, "linewidths": 1.1, "marker": marker}
            ax.scatter(*xy[rest].T, s=9, facecolors="none", alpha=0.35, **look)
            ax.scatter(*xy[top].T, s=30, facecolors=face, label=name, zorder=3, **look)
            points.append(xy[top])
            style = "normal" if view == "x" else "italic"
            words += [(_short(self.features[view][i]), colour, style) for i in top]
        _label(ax, np.concatenate(points), words)
        ax.set(xlim=(-reach, reach), ylim=(-1.3, 1.3), aspect="equal")
        ax.set(xticks=np.linspace(-1, 1, 5), yticks=np.linspace(-1, 1, 5))
        ax.set(xlabel=self._axis_name(0), ylabel=self._axis_name(1))
        ax.spines[:].set_visible(False)
        legend_above(ax)
        return ax

    def _axis_name(self, i: int) -> str:
        """The label of an axis of the circle."""
        c = self.components[i]
        other = " of the other view" if self.quantity == "cross_loading" else ""
        name = f"correlation with variate {c + 1}{other}"
        if self.correlations is None:
            return name
        return f"{name} (canonical correlation {self.correlations[c]:.2f})"


def _number(value: float, reach: float) -> str:
    """A number of the heat map, without a sign where it rounds to 0."""
    text = f"{value:.2f}" if reach >= 0.1 else f"{value:.1g}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _short(name: str, most: int = 30) -> str:
    """A name cut to `most` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _label(ax: Any, points: Floats, words: list[tuple[str, str, str]]) -> None:
    """Labels left and right of the circle, with a line to each point.

    The height of a label is that at which the ray through its point meets the circle, moved by
    the least squares that avoid overlaps (isotonic regression of heights less gaps).
    """
    from sklearn.isotonic import isotonic_regression

    for side in (-1, 1):
        at = np.flatnonzero((points[:, 0] < 0) == (side < 0))
        if not len(at):
            continue
        norms = np.maximum(np.linalg.norm(points[at], axis=1), 1e-9)
        heights = 1.12 * points[at, 1] / norms
        at, heights = at[np.argsort(heights)], np.sort(heights)
        gap = np.arange(len(at)) * min(0.085, 2.5 / len(at))
        heights = np.clip(isotonic_regression(heights - gap), -1.25, 1.25 - gap[-1]) + gap
        for i, y in zip(at, heights, strict=True):
            x = side * max(np.sqrt(max(1.12**2 - y**2, 0.0)), 0.3)
            name, colour, style = words[i]
            ax.plot([points[i, 0], x], [points[i, 1], y], color="#aaaaaa", lw=0.6, zorder=1)
            ax.text(
                x + 0.02 * side, y, name, color=colour, style=style, fontsize=8, va="center",
                ha="left" if side > 0 else "right",
            )  # fmt: skip
