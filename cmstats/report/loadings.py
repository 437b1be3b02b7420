"""The columns that the leading components are made of, by their names in the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cmstats.arrays import dense, to_numpy
from cmstats.models.cca import CCA
from cmstats.rows.names import column_label
from cmstats.rows.pairs import id_columns, shared_columns

__all__ = ["Loadings", "leading_loadings", "likely_ids"]

COMPONENTS = 3
SHOWN = 10
"""The most columns of a view in the table of a component."""


@dataclass(frozen=True)
class Loadings:
    """Loadings of the columns of both views on the leading components.

    Attributes
    ----------
    table : DataFrame, index levels ``view`` and ``column``, one column for each component
        Correlations of the columns with the variate of their own view, on the training items.
    """

    table: pd.DataFrame

    def leading(self, view: str, component: Any) -> list[tuple[str, float]]:
        """The columns of a view with the largest loadings on a component, largest first."""
        found = self.table.loc[view, component].dropna()
        order = found.abs().sort_values(ascending=False, kind="stable").index[:SHOWN]
        return [(str(name), float(found[name])) for name in order]


def leading_loadings(
    views: tuple[Any, Any],
    train: Any,
    model: CCA,
    used: tuple[Any, Any],
    names: tuple[str, str],
    columns: list[Any],
) -> Loadings:
    """Correlations of the columns as given with the variates of the training items.

    Parameters
    ----------
    views : pair of arrays or CSR matrices
        With their gaps, which do not count.
    train : array of int
    model : CCA
    used : pair of arrays
        The rows that the model takes: without gaps and confounds, of bounded width.
    names : pair of str
    columns : pair of arrays of str, or None
        The names of the columns.
    """
    k = min(COMPONENTS, model.n_components_)
    components = pd.RangeIndex(1, k + 1, name="component")
    variates = [to_numpy(u)[:, :k] for u in model.transform(*(a[train] for a in used))]
    parts = {}
    for view, a, b, u, labels in zip(names, views, used, variates, columns, strict=True):
        # Columns of the model where they are those of the data, as confounds are out of them.
        rows = b[train] if b.shape[1] == a.shape[1] else dense(a[train])
        values = _correlations(np.asarray(rows, dtype=np.float64), u)
        labels = [f"column {j}" for j in range(len(values))] if labels is None else labels
        index = pd.Index(list(labels), name="column")
        parts[view] = pd.DataFrame(values, index=index, columns=components)
    return Loadings(pd.concat(parts, names=["view", "column"]))


def _correlations(rows: Any, u: Any) -> Any:
    """The correlations of columns with variates, over the rows in which a column is there."""
    there = ~np.isnan(rows)
    count = np.maximum(there.sum(axis=0), 1)[:, None]
    rows = np.where(there, rows - np.where(there, rows, 0.0).sum(axis=0) / count[:, 0], 0.0)
    weights = there.astype(np.float64)
    mean = weights.T @ u / count
    squares = weights.T @ (u * u) / count - mean * mean
    size = np.sqrt((rows * rows).sum(axis=0)[:, None] / count * squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, (rows.T @ u) / count / size, np.nan)


def likely_ids(views: tuple[Any, Any], names: tuple[str, str], columns: list[Any]) -> list[str]:
    """A sentence for each column that both views have, or that is named as an id and is one."""
    if any(hasattr(a, "toarray") for a in views):
        return []
    if views[0].shape == views[1].shape and np.array_equal(*views, equal_nan=True):
        return [f"{names[0]} and {names[1]} are equal, entry by entry: give two different views."]
    shared = shared_columns(*views)
    found = [
        f"{column_label(j, columns[0])} of {names[0]} and {column_label(k, columns[1])} of "
        f"{names[1]} are equal in every row, probably an id: leave it out of both (--drop), or "
        "read nothing into the components that it makes up."
        for j, k in shared
    ]
    listed = [*zip(*shared, strict=True)] or [(), ()]
    for view, name, column, both in zip(views, names, columns, listed, strict=True):
        found += [
            f"{column_label(j, column)} of {name} has another whole number in every row, probably "
            "an id: leave it out (--drop)."
            for j in id_columns(view, column)
            if j not in both
        ]
    return found
