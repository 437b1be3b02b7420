"""What the tables and the page have in common: their numbers, names and pictures as text."""

from __future__ import annotations

import base64
from typing import Any, Literal

import pandas as pd

__all__ = ["METRICS", "cell", "data_address", "similarity_name"]

METRICS = ("R@1", "R@5", "R@10", "median_rank", "MRR", "mAP")


def data_address(data: bytes, kind: Literal["png", "webp"]) -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def similarity_name(kind: str) -> str:
    """What a similarity of CCA is called in tables."""
    return "CCA, " + kind.replace("_", " ")


def cell(table: pd.DataFrame, row: str, *column: str) -> float:
    """One number of a table; pandas' types allow for anything there."""
    value: Any = table.at[row, column[0] if len(column) == 1 else column]
    return float(value)
