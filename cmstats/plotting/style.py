"""Colours, markers, axes and legends of all displays.

The colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish. Every
distinction by colour is repeated by marker, line style or filling, so that it survives greyscale.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BAND",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "LINES",
    "MARKERS",
    "VERMILLION",
    "axes_of",
    "legend_above",
    "plain",
    "pyplot",
    "share_axis",
]

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", ORANGE, "#56B4E9", "#000000", "#8C6D1F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (3, 3)))
GREY = "#767676"
BAND: dict[str, Any] = {"color": "#000000", "alpha": 0.1, "linewidth": 0}
"""The style of a band of values that are expected by chance."""


def pyplot() -> Any:
    """Import Matplotlib's pyplot on first use."""
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
    """Two spines, and a faint grid along one axis below the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)


def share_axis(axis: Any) -> None:
    """Label an axis of shares from 0 to 1 in percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def legend_above(ax: Any, *, ncols: int = 3, handles: Any = None, title: str | None = None) -> None:
    """A legend above the axes: inside them every corner may hold data."""
    ax.legend(
        handles=handles, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=ncols,
        fontsize=9, title=title, title_fontsize=9, columnspacing=1.4, handletextpad=0.6,
    )  # fmt: skip
