"""The shrinkage parameter of models of several blocks: checked, as numbers, as a grid.

One number for each block, "auto" or "cv", or one of these for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from numbers import Real
from typing import Any

from cmstats.arrays import Array, namespace
from cmstats.moments.moments import Moments

__all__ = [
    "SHRINKAGES",
    "shrinkage_grid",
    "shrinkage_numbers",
    "shrinkage_tuple",
    "standard_deviations",
]

SHRINKAGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8)
"""What ``shrinkage="cv"`` chooses from."""


def shrinkage_tuple(value: Any, blocks: int = 2) -> tuple[Any, ...]:
    """The parameter as one valid value for each block.

    Raises
    ------
    ValueError
        If a value is neither in [0, 1] nor "auto" nor "cv", or there are not as many as blocks.
    """
    each = tuple(value) if isinstance(value, (tuple, list)) else (value,) * blocks
    what = "an (x, y) pair of these" if blocks == 2 else f"{blocks} of these, one for each view"
    for s in each:
        number = not isinstance(s, bool) and isinstance(s, Real) and 0 <= float(s) <= 1
        if not number and not (isinstance(s, str) and s in ("auto", "cv")):
            raise ValueError(
                f"shrinkage={value!r} is out of range: a float in [0, 1], 'auto', 'cv', or {what}"
            )
    if len(each) != blocks:
        raise ValueError(f"shrinkage={value!r} must be one value or {what}")
    return each


def shrinkage_numbers(
    moments: Moments, names: Sequence[str], each: Sequence[Any], *, scale: bool = False
) -> tuple[float, ...]:
    """The shrinkage of each block as a number; "auto" is `Moments.ledoit_wolf`."""
    m = moments.standardized() if scale and "auto" in each else moments
    return tuple(
        m.ledoit_wolf(name) if isinstance(s, str) else float(s)
        for name, s in zip(names, each, strict=True)
    )


def shrinkage_grid(value: Any, blocks: int = 2) -> list[tuple[Any, ...]]:
    """What a parameter that is "cv" is chosen from.

    One "cv" for all blocks searches one common value, several search every combination.
    """
    each = shrinkage_tuple(value, blocks)
    if value == "cv":
        return [(s,) * blocks for s in SHRINKAGES]
    return list(itertools.product(*(SHRINKAGES if s == "cv" else (s,) for s in each)))


def standard_deviations(moments: Moments, name: str) -> Array:
    """Standard deviations, 1 for a column that does not vary."""
    xp = namespace(moments.mean(name))
    return xp.sqrt(xp.where(moments.constant(name), 1.0, moments.variance(name)))
