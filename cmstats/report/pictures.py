"""Pictures as data addresses, so that an HTML page needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["figure_address", "pixels_address"]


def figure_address(draw: Callable[[Any], object], size: tuple[float, float]) -> str:
    """A drawing in new axes as a PNG picture; `size` in inches.

    The figure is made without pyplot: a notebook would show pyplot's figures a second time.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "the pictures of a report need Matplotlib: install it with "
            "`pip install cmstats[report]`"
        ) from error
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160)
    return _address(out.getvalue(), "png")


def pixels_address(pixels: Any) -> str:
    """An array of shape (h, w, 3) as a WebP picture."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "pictures need Pillow: install it with `pip install cmstats[report]`"
        ) from error
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(out, "WEBP", quality=80)
    return _address(out.getvalue(), "webp")


def _address(data: bytes, kind: str) -> str:
    """A data address (RFC 2397) of an encoded picture."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
