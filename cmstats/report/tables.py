"""The table of held-out retrieval by similarity, and the names of its rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmstats.arrays import to_numpy
from cmstats.metrics.retrieval import DIRECTIONS, metric_names, retrieval_chance, retrieval_report
from cmstats.models.cca import CCA, Kind

__all__ = ["KS", "METRICS", "cell", "direction_names", "retrieval_table", "similarity_name"]

KS = (1, 5, 10)
METRICS = tuple(metric_names(KS, labels=True))


def similarity_name(kind: str) -> str:
    """The name of a similarity of CCA in tables."""
    return "CCA, " + kind.replace("_", " ")


def cell(table: pd.DataFrame, row: str, *column: str) -> float:
    """One number of a table as a float; pandas' types allow any scalar there."""
    value: Any = table.at[row, column[0] if len(column) == 1 else column]
    return float(value)


def direction_names(views: tuple[str, str]) -> tuple[str, str]:
    """The directions of retrieval, queries -> candidates."""
    return f"{views[0]} -> {views[1]}", f"{views[1]} -> {views[0]}"


def retrieval_table(
    model: CCA,
    cv_mrr: dict[Kind, float],
    X: Any,
    Y: Any,
    labels: Any,
    views: tuple[str, str],
    ids: Any = None,
) -> pd.DataFrame:
    """One row per similarity, with the raw cosine and chance, on the held-out items."""
    judged = {}
    own = {"labels": labels, "ks": KS, "x_ids": ids, "y_ids": ids}
    for kind in sorted(cv_mrr, key=lambda k: -cv_mrr[k]):
        vectors = model.embed(X, Y, kind=kind)
        judged[similarity_name(kind)] = (
            cv_mrr[kind],
            retrieval_report(*vectors, **own),
        )
    if X.shape[1] == Y.shape[1]:
        raw = retrieval_report(_unit(X), _unit(Y), **own)
        judged["raw cosine"] = (np.nan, raw)
    chance = retrieval_chance(X.shape[0], **own)
    judged["chance"] = (np.nan, chance)
    rows = {
        name: {("training CV", "MRR"): cv}
        | {
            (direction, metric): cell(report, row, metric)
            for direction, row in zip(direction_names(views), DIRECTIONS, strict=True)
            for metric in METRICS
        }
        for name, (cv, report) in judged.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    columns: Any = table.columns.tolist()
    table.columns = pd.MultiIndex.from_tuples(columns)
    return table


def _unit(a: Any) -> Any:
    """Rows scaled to unit length; a row of zeros stays."""
    a = np.asarray(a.todense()) if hasattr(a, "todense") else to_numpy(a)
    a = a.astype(np.float64 if a.dtype.itemsize > 4 else np.float32)
    norms = np.linalg.norm(a, axis=1, keepdims=True)
    return a / np.where(norms > 0, norms, 1)
