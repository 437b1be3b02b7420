"""What all displays share: colours, markers, axes and legends.

The colours are those of Okabe and Ito (2008), told apart by the colour-blind; whatever a
colour says a marker, a line style or a face says too, so that pictures hold in greyscale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

__all__ = [
    "BAND",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "LINES",
    "MARKERS",
    "VERMILLION",
    "Floats",
    "axes_of",
    "check_fitted",
    "component_at",
    "fold_errors",
    "frame_of",
    "legend_above",
    "plain",
    "pyplot",
    "share_axis",
    "spread",
    "strongest",
]

Floats = npt.NDArray[np.float64]

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", ORANGE, "#56B4E9", "#000000", "#8C6D1F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (3, 3)))
GREY = "#767676"
BAND: dict[str, Any] = {"color": "#000000", "alpha": 0.1, "linewidth": 0}
"""How a band of chance is drawn."""


def pyplot() -> Any:
    """Matplotlib's pyplot, which only pictures need."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plots need Matplotlib: install it with `pip install cmstats[report]`"
        ) from error
    return plt


def axes_of(ax: Any, size: tuple[float, float]) -> Any:
    """The axes given, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    _, ax = pyplot().subplots(figsize=size, layout="constrained")
    return ax


def plain(ax: Any, *, grid: str = "y") -> None:
    """Two spines and a faint grid along one axis, below all else."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)


def share_axis(axis: Any) -> None:
    """Shares from 0 to 1 as percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def legend_above(ax: Any, *, ncols: int = 3, handles: Any = None, title: str | None = None) -> None:
    """A legend above the axes: inside, there is no corner that all data leave free."""
    ax.legend(
        handles=handles, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=ncols,
        fontsize=9, title=title, title_fontsize=9, columnspacing=1.4, handletextpad=0.6,
    )  # fmt: skip


# --------------------------------------------------------------------------- the numbers
def check_fitted(estimator: Any) -> None:
    """One sentence where an estimator was not fitted; objects without `fit` are ready."""
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator)


def component_at(component: Any, count: int) -> int:
    """A component's number from 0, checked."""
    whole = isinstance(component, (int, np.integer)) and not isinstance(component, bool)
    if not whole or not 0 <= component < count:
        raise ValueError(
            f"component {component!r} was asked for, but the model has {count} (numbered from 0)"
        )
    return int(component)


def spread(n: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` of the numbers 0 .. n - 1, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(np.int64))


def strongest(size: Floats, count: int) -> npt.NDArray[np.int64]:
    """The places of the `count` largest, largest first; all, in their order, where they fit."""
    if len(size) <= count:
        return np.arange(len(size))
    return np.argsort(-size, kind="stable")[:count].astype(np.int64)


def fold_errors(scores: Floats) -> Floats:
    """Standard errors of the mean along the last axis; 0 for a single value."""
    n = scores.shape[-1]
    if n < 2:
        return np.zeros(scores.shape[:-1])
    return np.asarray(scores.std(axis=-1, ddof=1) / np.sqrt(n))


def frame_of(table: Any, columns: tuple[str, ...], source: str) -> Any:
    """The table, if it is the DataFrame that `source` returns."""
    have = getattr(table, "columns", ())
    if isinstance(table, Mapping) or not all(name in have for name in columns):
        raise TypeError(
            f"this needs the DataFrame that {source} returns, with columns "
            f"{', '.join(columns)}; got {type(table).__name__}"
        )
    return table
