"""One progress bar for everything that takes a while.

Calls over rows (`Moments`, `map_rows`, `write_shards`) show it for ``progress=True``, those
that fit, resample or search for ``verbose=True``; by default nothing is shown. The environment
variables of tqdm hold: ``TQDM_DISABLE=1`` shows nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np

__all__ = ["check_shown", "progress_bar"]


def check_shown(name: str, shown: Any) -> None:
    """Raise unless the parameter is True, False or a number such as 1 or 0."""
    if not isinstance(shown, (bool, int, np.bool_, np.integer)):
        raise ValueError(f"{name} must be True or False, got {shown!r}")


def progress_bar(
    shown: Any,
    what: str,
    unit: str,
    *,
    items: Iterable[Any] | None = None,
    total: int | None = None,
    scale: bool = False,
) -> Any:
    """A tqdm bar over `items` or up to `total`, or an object with its methods that draws nothing.

    Parameters
    ----------
    shown : bool or int
    what, unit : str
        The description left of the bar, and the unit that it counts.
    items : iterable, optional
        What iterating over the bar yields.
    total : int, optional
        The count at the end, if it is known; ``update(count)`` advances the bar.
    scale : bool, default=False
        Whether large counts are abbreviated (1.2M).
    """
    if not shown:
        # Not tqdm(disable=True): it starts a monitor thread, and tqdm.auto warns in a notebook
        # without ipywidgets.
        return _NoBar(() if items is None else items)
    from tqdm.auto import tqdm

    return tqdm(items, desc=what, unit=unit, total=total, unit_scale=scale)


class _NoBar:
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None: ...

    def update(self, count: int = 1) -> None: ...

    def set_postfix(self, values: Any) -> None: ...

    def set_postfix_str(self, text: str, *, refresh: bool = True) -> None: ...
