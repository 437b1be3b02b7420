"""Tables that print within 80 columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

__all__ = ["WIDTH", "Table", "as_table"]

WIDTH = 80


class Table(pd.DataFrame):
    """A DataFrame that prints all of its columns, in parts of 80 columns, where it is too wide.

    pandas would replace the middle by "...". Numbers of a wide table have four significant
    digits in print; what it holds is not rounded. What is said of a table in ``attrs["note"]``
    stands below it. In everything else it is a DataFrame.
    """

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return Table

    def __repr__(self) -> str:
        return "\n".join([self._within_width(), *self._notes()])

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_columns", None, "display.float_format", digits):
            table: str | None = super()._repr_html_()  # type: ignore[misc]
        return table and table + "".join(f"<p>{note}</p>" for note in self._notes())

    def _notes(self) -> list[str]:
        return [str(self.attrs["note"])] if "note" in self.attrs else []

    def _within_width(self) -> str:
        text = super().__repr__()
        if _width(text) <= WIDTH and not self._cut(text):
            return text
        how: dict[str, Any] = {}
        many = pd.get_option("display.max_rows")
        if many and len(self) > many:
            how = {"max_rows": many, "min_rows": pd.get_option("display.min_rows")}
        for shown in (digits, decimals):
            text = str(self.to_string(float_format=shown, **how))
            if _width(text) <= WIDTH:
                return text
        return str(self.to_string(float_format=digits, line_width=WIDTH, **how))

    def _cut(self, text: str) -> bool:
        """Whether columns were left out of a text."""
        return any(" ... " in line for line in text.splitlines()[:2])


def digits(value: float) -> str:
    """Four significant digits without an exponent where none is needed: 0.500, 230.4, 12346."""
    if 1e4 <= abs(value) < 1e15:
        return f"{value:.0f}"
    text = f"{value:.4g}"
    if "." in text and "e" not in text and abs(value) < 1:
        return text.ljust(text.index(".") + 4, "0")
    return text


def decimals(value: float) -> str:
    """Four decimals of numbers below 1 that have as many digits, for tables that just not fit."""
    return digits(round(value, 4) if 1e-3 <= abs(value) < 1 else value)


def _width(text: str) -> int:
    return max(map(len, text.splitlines()), default=0)


def as_table(frame: pd.DataFrame) -> Table:
    """A DataFrame with its attributes as a `Table`."""
    table = Table(frame)
    table.attrs = dict(frame.attrs)
    return table
