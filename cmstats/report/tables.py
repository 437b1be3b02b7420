"""The table of held-out retrieval by similarity, and the names of its rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmstats.metrics.retrieval import DIRECTIONS, metric_names, retrieval_chance, retrieval_report
from cmstats.model_selection.candidates import COSINES
from cmstats.model_selection.judging import RawCosine
from cmstats.model_selection.retriever import CrossModalRetriever
from cmstats.models.cca import CCA

__all__ = [
    "CHOSEN",
    "KS",
    "METRICS",
    "best_of_kinds",
    "cell",
    "chosen_model",
    "direction_names",
    "retrieval_table",
]

KS = (1, 5, 10)
METRICS = tuple(metric_names(KS, labels=True))


CHOSEN = "CrossModalRetriever"
"""The row of the chosen model."""


def chosen_model(chosen: dict[str, Any]) -> str:
    """What `CrossModalRetriever.chosen_` says, in words."""
    if chosen["model"] in COSINES:
        words = [f"the {chosen['model']} of the features"]
    else:
        words = [chosen["model"], chosen["similarity"].replace("_", " ")]
    if chosen["target"] == "aligned":
        words.append("toward aligned views")
    if chosen["shrinkage"] is not None:
        words.append(f"shrinkage {chosen['shrinkage']:g}")
    if chosen["n_components"] is not None:
        words.append(f"{chosen['n_components']} components")
    if chosen["gamma"] is not None:
        words.append(f"bandwidth {chosen['gamma']:g} of the median heuristic")
    if chosen["hubness"]:
        words.append("corrected for hubness")
    return ", ".join(words)


def best_of_kinds(results: pd.DataFrame) -> pd.DataFrame:
    """The best candidate of each model, similarity and target, from the best on."""
    kinds = ["model", "similarity", "target"]
    return results[~results.duplicated(kinds) | results["chosen"]].reset_index(drop=True)


def cell(table: pd.DataFrame, row: str, *column: str) -> float:
    """One number of a table as a float; pandas' types allow any scalar there."""
    value: Any = table.at[row, column[0] if len(column) == 1 else column]
    return float(value)


def direction_names(views: tuple[str, str]) -> tuple[str, str]:
    """The directions of retrieval, queries -> candidates."""
    return f"{views[0]} -> {views[1]}", f"{views[1]} -> {views[0]}"


def retrieval_table(
    retriever: CrossModalRetriever,
    cca: CCA,
    training: tuple[Any, Any],
    X: Any,
    Y: Any,
    labels: Any,
    views: tuple[str, str],
    ids: Any = None,
) -> pd.DataFrame:
    """The chosen model, the cosines, the `cca` of the correlations and chance, held out."""
    own = {"labels": labels, "ks": KS, "x_ids": ids, "y_ids": ids}
    results = retriever.results_
    judged = {CHOSEN: (retriever.score_, retrieval_report(*retriever.embed(X, Y), **own))}
    for model, name in zip(COSINES, ("raw cosine", "centred cosine"), strict=True):
        tried = results[(results["model"] == model) & ~results["hubness"]]
        if len(tried):
            cosine = RawCosine(center=model != "cosine").fit(*training)
            vectors = cosine.embed(X, Y)
            judged[name] = (float(tried["score"].iloc[0]), retrieval_report(*vectors, **own))
    judged["CCA"] = (np.nan, retrieval_report(*cca.embed(X, Y), **own))
    judged["chance"] = (np.nan, retrieval_chance(X.shape[0], **own))
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
