"""Colours, markers, axes and legends of all displays.

The colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish. Every
distinction by colour is repeated by marker, line style or filling, so that it survives greyscale.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    "item_axis",
    "legend_above",
    "look",
    "pyplot",
    "share_axis",
    "size_axis",
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


def axes_of(ax: Any, size: tuple[float, float], *, grid: str | None = None) -> Any:
    """The axes given, or those of a new figure of this size in inches.

    With `grid` ("x", "y" or "both") they get two spines and a faint grid below the data.
    """
    if ax is None:
        _, ax = pyplot().subplots(figsize=size, layout="constrained")
    if grid is not None:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis=grid, color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    return ax


def look(i: int, *, filled: bool) -> dict[str, Any]:
    """Colour, line style and marker of the i-th line, in each of which it differs from others."""
    return {
        "color": COLOURS[i], "linestyle": LINES[i], "marker": MARKERS[i],
        "markerfacecolor": COLOURS[i] if filled else "white",
    }  # fmt: skip


def item_axis(ax: Any, labels: list[str], **style: Any) -> None:
    """Name the items along a vertical axis, the first at the top."""
    ax.set_yticks(range(len(labels)), labels, **style)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(labels) - 0.4, -0.6)


def size_axis(ax: Any, sizes: Sequence[float]) -> None:
    """A logarithmic horizontal axis with ticks at these numbers only."""
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n:g}" for n in sizes])
    ax.minorticks_off()


def share_axis(*axes: Any) -> None:
    """Label axes of shares from 0 to 1 in percent."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def legend_above(ax: Any, *, ncols: int = 3, handles: Any = None, title: str | None = None) -> None:
    """A legend above the axes: inside them every corner may hold data."""
    ax.legend(
        handles=handles, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=ncols,
        fontsize=9, title=title, title_fontsize=9, columnspacing=1.4, handletextpad=0.6,
    )  # fmt: skip
