"""Pairs of rows: labelled inputs whose labels contradict their order, and columns that are ids."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cmstats.arrays import Array, is_array, is_dask, is_lazy, take_rows, to_numpy, warn
from cmstats.rows.names import column_label

__all__ = ["check_row_labels", "id_columns", "shared_columns", "warn_of_ids"]

HEAD = 16
"""Rows by which columns that may be equal are found, before whole columns are compared."""

KEY = re.compile(
    r"(^|[\W_])(id|ids|key|keys|uid|uuid|guid|eid|index|idx|subject|participant|sample|item|name)"
    r"($|[\W_])|[a-z](Id|ID)$",
    re.IGNORECASE,
)
"""Names of columns that number the items of a table."""


def check_row_labels(given: Mapping[str, Any]) -> None:
    """Raise if labels of rows say that row i of one input is not the partner of row i of another.

    The labels of a pandas object are its index; of any two frames also a column of ids that both
    have under one name (frames of polars have no index). Equal labels in one order are right.
    The same labels in another order, or labels of which some are shared, are an error. Labels
    with nothing in common, as text either, say nothing, and a RangeIndex only that of another
    order.

    Parameters
    ----------
    given : mapping of name to input
        None, and inputs without labels, are passed over; the members of a list or dict of views
        count one by one.

    Raises
    ------
    ValueError
        With the expression that puts the rows in order.
    """
    inputs = dict(_flat(given))
    labelled = [(k, a, a.index) for k, a in inputs.items() if _has_index(a)]
    for (first, a, labels), (second, b, others) in itertools.combinations(labelled, 2):
        if labels is not others and not labels.equals(others):
            _check_labels(first, labels, second, others, ranges=_is_range(a) or _is_range(b))
    frames = [(k, a) for k, a in inputs.items() if hasattr(a, "columns") and not is_array(a)]
    for (first, a), (second, b) in itertools.combinations(frames, 2):
        for key in _keys(a, b):
            _check_key(first, a, second, b, key)


def _flat(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, a in given.items():
        if isinstance(a, Mapping) and not hasattr(a, "shape"):
            yield from ((str(k), v) for k, v in a.items())
        elif isinstance(a, (list, tuple)) and any(hasattr(v, "iloc") for v in a):
            yield from ((f"{name}[{i}]", v) for i, v in enumerate(a))
        elif a is not None:
            yield name, a


def _has_index(a: Any) -> bool:
    return hasattr(a, "iloc") and hasattr(getattr(a, "index", None), "equals")


def _is_range(a: Any) -> bool:
    return type(a.index).__name__ == "RangeIndex"


def _check_labels(first: str, a: Any, second: str, b: Any, *, ranges: bool) -> None:
    """Raise if two indexes that differ have labels in common, or as text."""
    common, text = int(a.isin(b).sum()), ""
    numbers = all(len(labels) and str(labels[0]).strip().isdigit() for labels in (a, b))
    if not common and (numbers or not ranges):  # 7 and "7", "s1" and "S1 "
        a, b = _as_text(a), _as_text(b)
        if a.equals(b):
            return
        common = int(a.isin(b).sum())
        text = (
            "; they are not written alike, so make them equal first, such as by "
            f"{first}.index.astype(str).str.strip()"
        )
    unique = bool(a.is_unique and b.is_unique)
    by_position = f"{second}.to_numpy() pairs row by row, if the labels mean nothing{text}"
    if len(a) == len(b) == common and (unique or bool(b.isin(a).all())):
        mend = f"pass {second}.loc[{first}.index]" if unique else "make the labels unique first"
        raise ValueError(
            f"the rows of {second} have the labels of {first} in another order, so row i of one "
            f"is not the partner of row i of the other: {mend} ({by_position})"
        )
    if common and not ranges:
        raise ValueError(
            f"{common} of the {len(a)} labels of the rows of {first} are among the {len(b)} of "
            f"{second}, so row i of one is not the partner of row i of the other: keep the common "
            f"rows, both = {first}.index.intersection({second}.index), then {first}.loc[both] and "
            f"{second}.loc[both] ({by_position})"
        )


def _as_text(labels: Any) -> Any:
    """Labels as text in one case, without blanks around it or zeros before it."""
    return labels.map(lambda label: str(label).strip().casefold().lstrip("0") or "0")


def _keys(a: Any, b: Any) -> Iterator[tuple[str, str]]:
    """The columns of two frames that have one name, however it is written, and may be ids."""
    if not all(hasattr(f, "iloc") or hasattr(f, "get_columns") for f in (a, b)):
        return
    spelled: list[dict[str, list[Any]]] = [{}, {}]
    for frame, found in zip((a, b), spelled, strict=True):
        for name in frame.columns:
            found.setdefault(re.sub(r"[\W_]", "", str(name)).casefold(), []).append(name)
    for key, own in spelled[0].items():
        theirs = spelled[1].get(key, [])
        if len(own) == len(theirs) == 1 and isinstance(own[0], str) and isinstance(theirs[0], str):
            kinds = {np.asarray(f[k][:1]).dtype.kind for f, k in ((a, own[0]), (b, theirs[0]))}
            if kinds <= set("OUST") or (kinds <= set("iuf") and KEY.search(own[0])):
                yield own[0], theirs[0]


def _check_key(first: str, a: Any, second: str, b: Any, key: tuple[str, str]) -> None:
    """Raise if two frames have one column of ids in different orders."""
    try:
        ids, others = (np.asarray(f[k]) for f, k in ((a, key[0]), (b, key[1])))
        if len(ids) == len(others) and bool(np.all(ids == others)):
            return
        own, theirs = set(ids.tolist()), set(others.tolist())
    except TypeError:  # objects without a hash, such as lists, are no ids
        return
    if len(own) < len(ids) or len(theirs) < len(others) or not own & theirs:
        return
    same = key[0] == key[1]
    on = f"on={key[0]!r}" if same else f"left_on={key[0]!r}, right_on={key[1]!r}"
    join = f"pair them by {first}.{'merge' if hasattr(a, 'iloc') else 'join'}({second}, {on})"
    column = f"the column {key[0]!r} of {first} and {'' if same else repr(key[1]) + ' '}of {second}"
    how = "the same ids in another order" if own == theirs else f"{len(own & theirs)} ids in common"
    raise ValueError(
        f"{column} {'has' if same else 'have'} {how}, so row i of one is not the partner of row i "
        f"of the other: {join}, then leave {key[0]!r} out"
    )


def id_columns(a: Any, names: Any) -> list[int]:
    """Columns that are named as an id and have another whole number in each row."""
    in_memory = is_array(a) and not is_lazy(a) and not is_dask(a)
    if names is None or not in_memory or a.ndim != 2 or a.shape[0] < HEAD:
        return []
    found = []
    for j in [j for j, name in enumerate(names) if KEY.search(str(name))]:
        column = to_numpy(a[:, j])
        if np.array_equal(column, np.round(column)) and len(np.unique(column)) == len(column):
            found.append(j)
    return found


def shared_columns(X: Array, y: Array) -> list[tuple[int, int]]:
    """Columns of X that y has too, value by value, as pairs of positions.

    Columns of less than three values do not count, nor do two views that are one matrix.
    """
    arrays = (X, y)
    in_memory = all(is_array(a) and not is_lazy(a) and not is_dask(a) for a in arrays)
    if not in_memory or X.ndim != 2 or y.ndim != 2 or X.shape[0] < 5:
        return []
    heads = [to_numpy(take_rows(a, slice(0, HEAD))).astype(np.float64).T for a in arrays]
    places: dict[bytes, int] = {}
    for j, head in enumerate(heads[0]):
        places.setdefault((head + 0.0).tobytes(), j)
    found = []
    for k, head in enumerate(heads[1]):
        j = places.get((head + 0.0).tobytes(), -1)
        if j >= 0 and len(np.unique(head[~np.isnan(head)])) > 2:
            left, right = to_numpy(X[:, j]), to_numpy(y[:, k])
            if np.array_equal(left, right, equal_nan=True):
                found.append((j, k))
    return [] if len(found) == X.shape[1] == y.shape[1] else found


def warn_of_ids(blocks: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Warn of columns that two views share, or that are named as ids and number the rows.

    Parameters
    ----------
    blocks : mapping of name to checked matrix
    names : mapping of name to names of columns, or to None
    """
    flat: dict[str, Any] = {}
    for name, block in blocks.items():
        several = getattr(block, "blocks", None)
        flat |= several if isinstance(several, dict) else {name: block}
    for (first, a), (second, b) in itertools.combinations(flat.items(), 2):
        for j, k in shared_columns(a, b)[:1]:
            warn(
                f"{column_label(j, names.get(first))} of {first} and "
                f"{column_label(k, names.get(second))} of {second} are equal in every row: if that "
                "is an id or the number of the row, leave it out of both: its correlation of 1 "
                "says nothing about the views"
            )
            flat = {}
    for name, a in flat.items():
        for j in id_columns(a, names.get(name))[:1]:
            warn(
                f"{column_label(j, names.get(name))} of {name} has another whole number in every "
                "row: if that is an id, leave it out, since it is no feature"
            )
