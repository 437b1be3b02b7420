"""Which candidates are relevant to which queries, from ids and labels.

Every retrieval metric, display and comparison takes the same description: paired rows, ids of
items, or labels of classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmstats.arrays import check_given, is_array, joined_values, to_numpy
from cmstats.rows.pairs import check_row_labels

__all__ = ["Relevance", "view_sizes"]

HostArray = np.ndarray[Any, Any]


class Relevance:
    """The candidates that are relevant to each query, in both directions of retrieval.

    Ranks go by partners, which have equal ids (without ids, equal row numbers); average
    precisions go by relevance, which is equality of labels if there are any.

    Parameters
    ----------
    shape : pair of int
        The numbers n and m of items of the two views.
    labels : array of shape (n,), or pair of arrays of shapes (n,) and (m,), or None
        Classes of the items.
    x_ids, y_ids : arrays of shapes (n,) and (m,), or None
        Ids of the items; one that is missing is 0, 1, 2, ...

    Attributes
    ----------
    shape : pair of int
    ids : pair of integer arrays, or (None, None)
        Codes of the ids on the host, (None, None) where row i belongs with row i.
    labels : pair of integer arrays, or None
        Codes of the labels on the host.

    Raises
    ------
    ValueError
        If ids or labels have another length than their view, or views of different sizes come
        without either.
    """

    def __init__(self, shape: tuple[int, int], labels: Any, x_ids: Any, y_ids: Any) -> None:
        self.shape = shape
        n, m = shape
        ids = None
        if x_ids is not None or y_ids is not None:
            x_ids = np.arange(n) if x_ids is None else x_ids
            y_ids = np.arange(m) if y_ids is None else y_ids
            ids = _codes(x_ids, y_ids, shape, ("x_ids", "y_ids"))
        self.labels = None if labels is None else _label_codes(labels, shape)
        if ids is None and n != m:
            if self.labels is None:
                raise ValueError(
                    f"the two sides have {n} and {m} items: pass x_ids and y_ids (or a pair of "
                    "labels) to say which belong together"
                )
            ids = self.labels
        self.ids: tuple[Any, Any] = (None, None) if ids is None else ids

    @classmethod
    def of(cls, U: Any, V: Any, labels: Any, x_ids: Any, y_ids: Any) -> Relevance:
        """Of two matrices of vectors, or of a matrix of scores."""
        if x_ids is None and y_ids is None:
            scores = V is None and hasattr(U, "iloc")
            check_row_labels({"U": U, "U.T": U.T} if scores else {"U": U, "V": V})
        x_labels, y_labels = (
            labels if isinstance(labels, tuple) and len(labels) == 2 else [labels] * 2
        )
        check_row_labels({"U": U, "x_ids": x_ids, "labels": x_labels})
        check_row_labels({"V": V, "y_ids": y_ids, "labels": y_labels})
        return cls(view_sizes(U, V), labels, x_ids, y_ids)

    def partners(self, side: int) -> tuple[HostArray, HostArray]:
        """Ids of the queries and of the candidates; the queries are view `side`, 0 or 1."""
        if self.ids[0] is None:
            return np.arange(self.shape[0]), np.arange(self.shape[0])
        return self.ids[side], self.ids[1 - side]

    def classes(self, side: int) -> tuple[Any, Any]:
        """Codes of queries and candidates for the average precision: labels, else ids.

        A candidate is relevant to a query where their codes are equal; (None, None) where row i
        belongs with row i.
        """
        codes = self.ids if self.labels is None else self.labels
        return codes[side], codes[1 - side]


def _label_codes(labels: Any, shape: tuple[int, int]) -> tuple[HostArray, HostArray]:
    """Codes of the labels of both views, given as one vector for both or as a pair."""
    pair = isinstance(labels, tuple) and len(labels) == 2
    if pair and not any(isinstance(part, str) or np.ndim(to_numpy(part)) != 1 for part in labels):
        return _codes(labels[0], labels[1], shape, ("labels of x", "labels of y"))
    if shape[0] != shape[1]:
        raise ValueError(
            f"the two sides have {shape[0]} and {shape[1]} items: "
            "labels must be a pair (labels of x, labels of y)"
        )
    return _codes(labels, labels, shape, ("labels", "labels"))


def _codes(
    x: Any, y: Any, shape: tuple[int, int], names: tuple[str, str]
) -> tuple[HostArray, HostArray]:
    """Integer codes, equal where the values are equal; a missing value equals no other."""
    sides = []
    for values, length, name in zip((x, y), shape, names, strict=True):
        values = to_numpy(values)
        if values.ndim != 1 or len(values) != length:
            raise ValueError(
                f"{name} must be a vector with one value for each of the {length} items, "
                f"got shape {values.shape}"
            )
        sides.append(values)
    import pandas as pd

    codes, _ = pd.factorize(joined_values(sides))
    x_codes, y_codes = codes[: shape[0]].astype(np.int64), codes[shape[0] :].astype(np.int64)
    y_codes[y_codes < 0] = -2  # a missing x and a missing y are not partners
    return x_codes, y_codes


def view_sizes(U: Any, V: Any) -> tuple[int, int]:
    """The numbers of items of the two views: rows of `U` and `V`, or the shape of the scores."""
    check_given(U, "U")
    if V is None:
        if np.ndim(U) != 2 if not is_array(U) else U.ndim != 2:
            raise ValueError("a score matrix must be two-dimensional, queries in rows")
        n, m = (U if hasattr(U, "shape") else np.asarray(U)).shape
        return int(n), int(m)
    check_given(V, "V")
    return tuple(int(a.shape[0] if hasattr(a, "shape") else len(a)) for a in (U, V))  # type: ignore[return-value]
