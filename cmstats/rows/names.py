"""Names: of blocks of rows, and of the columns of frames, unique and all of them text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from cmstats.arrays import NotFiniteError, is_array, is_dask, is_lazy

__all__ = [
    "RESERVED",
    "check_block_name",
    "column_label",
    "column_names",
    "naming_columns",
    "stand_in",
    "unique",
]

RESERVED = (
    "cls", "form", "sample_weight", "missing", "device", "cv", "groups", "rows", "checkpoint",
    "progress", "diagonal",
)  # fmt: skip
"""Parameters of the constructors of `Moments`, so no block of it can have these names."""


def check_block_name(name: Any) -> None:
    """Raise if a block of moments cannot have this name."""
    if not isinstance(name, str) or not name or name in RESERVED:
        raise ValueError(
            f"{name!r} cannot name a block: names are strings other than {', '.join(RESERVED)}"
        )


def column_names(a: Any, name: str = "X") -> np.ndarray[Any, Any] | None:
    """The names of the columns of a frame, a series or a source of one; None where there are none.

    Levels of a MultiIndex are joined by "_", repeated names numbered ("a", "a.1"), so that names
    are text and unique. A column of vectors has one name for each entry, "a[0]", "a[1]", ...
    Numbers are positions, not names, as in scikit-learn.

    Raises
    ------
    TypeError
        If some names are text and some are not.
    """
    if is_lazy(a) and isinstance(getattr(a, "columns", None), np.ndarray):
        named: np.ndarray[Any, Any] = a.columns  # a source made of a frame
        return named
    if is_array(a) or not (hasattr(a, "iloc") or hasattr(a, "to_pandas") or is_dask(a)):
        return None
    columns: Any = getattr(a, "columns", None)
    labels: list[Any] = [getattr(a, "name", None)] if columns is None else list(columns)
    if hasattr(columns, "nlevels") and columns.nlevels > 1:
        labels = ["_".join(str(part) for part in label if part != "") for label in labels]
    text = [isinstance(label, str) for label in labels]
    if not any(text):
        return None
    if not all(text):
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise TypeError(
            f"the columns of {name} have names of several types ({kinds}), and feature names are "
            f"only supported if all are text: {name}.columns = {name}.columns.astype(str)"
        )
    widths = _widths(a, len(labels))
    found = [
        [label] if width is None else [f"{label}[{i}]" for i in range(width)]
        for label, width in zip(labels, widths, strict=True)
    ]
    return np.array(unique(each for one in found for each in one), dtype=object)


def _widths(a: Any, count: int) -> list[int | None]:
    """The lengths of the vectors in each column; None for a column of single values."""
    if is_dask(a) or not len(a):
        return [None] * count
    first = a.iloc[0] if hasattr(a, "iloc") else a[0]
    if hasattr(a, "columns"):
        values = list(first) if hasattr(a, "iloc") else list(a.row(0))
    else:
        values = [first]
    vectors = (isinstance(v, (list, tuple)) or len(getattr(v, "shape", ())) == 1 for v in values)
    return [len(v) if vector else None for v, vector in zip(values, vectors, strict=True)]


def unique(names: Iterable[str]) -> list[str]:
    """Names of which repeated ones are numbered: "a", "a.1", "a.2"."""
    found: dict[str, None] = {}
    for name in names:
        number, candidate = 0, name
        while candidate in found:
            number += 1
            candidate = f"{name}.{number}"
        found[candidate] = None
    return list(found)


def stand_in(a: Any, names: Any) -> Any:
    """An empty frame with these names, for scikit-learn's checks; X itself without names."""
    if names is None:
        return a
    import pandas as pd

    return pd.DataFrame(columns=list(names))


@contextmanager
def naming_columns(names: Mapping[str, Any]) -> Iterator[None]:
    """Add the name of the column to errors about values of a block that are not finite."""
    try:
        yield
    except NotFiniteError as error:
        raise error.naming(names.get(error.block)) from None


def column_label(at: int, names: Any) -> str:
    """A column in a sentence: its position, and its name where it has one."""
    return f"column {at}" if names is None else f"column {at} ({names[at]!r})"
