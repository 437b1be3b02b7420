"""What the command line is given: two files, paired row by row, and the columns beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cmstats.arrays import count_nonfinite, describe_nonfinite, is_lazy
from cmstats.rows.files import open_shards
from cmstats.rows.formats import column_of, numbers_of, open_file
from cmstats.rows.names import column_label, column_names
from cmstats.rows.pairs import check_row_labels

__all__ = ["Inputs", "read_inputs", "read_labels"]


@dataclass
class Inputs:
    """Two views and what goes with their rows.

    Attributes
    ----------
    first, second : frame, array or matrix on a disk
        Numbers only, row i of both one item.
    labels, groups, ids : array of shape (n,) or None
    nuisance : array of shape (n, k) or None
    notes : list of str
        What was left out, and how many rows matched.
    """

    first: Any
    second: Any
    labels: Any = None
    groups: Any = None
    ids: Any = None
    nuisance: Any = None
    notes: list[str] = field(default_factory=list)


def read_inputs(
    first: str,
    second: str,
    *,
    join: str | None = None,
    index: str | None = None,
    drop: Sequence[str] = (),
    labels: str | None = None,
    groups: str | None = None,
    ids: str | None = None,
    nuisance: Sequence[str] = (),
) -> Inputs:
    """Read two files, or folders of numbered .npy files, and pair their rows.

    Parameters
    ----------
    first, second : str
        As `cmstats.rows.formats.open_file` takes them, or folders.
    join : str, optional
        The column of ids by which the rows of two tables are paired.
    index : str, optional
        The column that labels the rows; it is no feature.
    drop : sequence of str
        Columns to leave out.
    labels, groups, ids : str, optional
        A column of one of the tables, or a file with one value for each row.
    nuisance : sequence of str
        Columns of the tables, or files, of confounds.

    Raises
    ------
    ValueError
        If rows cannot be paired, a column is in neither table, or values are not numbers.
    """
    paths, notes, views = (first, second), [], []
    for path in paths:
        data, said = _opened(path)
        views.append(_indexed(data, index))
        notes += said
    if index is not None and not any(_labelled(v, index) for v in views):
        raise ValueError(f"--index {index}: neither {first} nor {second} has that column")
    if join is not None:
        views, matched = _joined(paths, views, join)
        notes.append(matched)
    else:
        _check_pairs(paths, views)
    beside = Beside(paths, views)
    found = {
        role: None if name is None else beside.one(role, name)
        for role, name in (("labels", labels), ("groups", groups), ("ids", ids))
    }
    confounds = beside.several("nuisance", nuisance) if nuisance else None
    for name in drop:
        beside.take("drop", name)
    views = [_checked(v, path) for v, path in zip(beside.left(), paths, strict=True)]
    return Inputs(views[0], views[1], **found, nuisance=confounds, notes=notes)


def _opened(path: str) -> tuple[Any, list[str]]:
    if Path(path).is_dir():
        return open_shards(path), []  # rows are read when they are needed
    opened = open_file(path)
    return opened.data, opened.notes


def _indexed(data: Any, index: str | None) -> Any:
    has = index is not None and hasattr(data, "iloc") and index in data.columns
    return data.set_index(index) if has else data


def _labelled(data: Any, index: str) -> bool:
    return hasattr(data, "iloc") and data.index.name == index


def _joined(paths: tuple[str, str], views: list[Any], join: str) -> tuple[list[Any], str]:
    """The rows that both tables have an id of, in the order of the first."""
    keys, tables = [], []
    for path, data in zip(paths, views, strict=True):
        alike = [c for c in getattr(data, "columns", ()) if _plain(c) == _plain(join)]
        if len(alike) == 1:  # "ID" in the other
            data = data.rename(columns={alike[0]: join})
        tables.append(data)
        key = column_of(data, join)
        if key is None:
            what = f"{', '.join(map(str, data.columns))}" if hasattr(data, "iloc") else "no names"
            raise ValueError(f"--join {join}: {path} has no such column, it has {what}")
        key = key.reset_index(drop=True)
        if key.duplicated().any():
            raise ValueError(
                f"--join {join}: {path} has {key[key.duplicated()].iloc[0]!r} more than once, so "
                "that its partner is not known; make the ids unique"
            )
        keys.append(key)
    one, other = keys
    common = one[one.isin(other)]
    if not len(common):
        raise ValueError(
            f"--join {join}: {paths[0]} and {paths[1]} have no id in common (they begin with "
            f"{one.iloc[0]!r} and {other.iloc[0]!r})"
        )
    out = []
    for data, key in zip(tables, keys, strict=True):
        data = data.drop(columns=join) if join in data.columns else data
        out.append(data.set_axis(key.to_numpy(), axis=0).loc[common.to_numpy()].rename_axis(join))
    return out, (
        f"joined by {join!r}: {len(common)} rows matched, of {len(one)} in {paths[0]} and "
        f"{len(other)} in {paths[1]}"
    )


def _plain(name: Any) -> str:
    """The name of a column in one case, without signs between its words."""
    return re.sub(r"[\W_]", "", str(name)).casefold()


def _check_pairs(paths: tuple[str, str], views: list[Any]) -> None:
    # Ids that count the rows of one file may be in another order in the other.
    counts = [hasattr(v, "iloc") and v.index.name and hasattr(v.index, "start") for v in views]
    named = [
        v.reset_index() if one and not all(counts) else v
        for v, one in zip(views, counts, strict=True)
    ]
    try:
        check_row_labels(dict(zip(paths, named, strict=True)))
    except ValueError as error:
        reason = str(error).split(", so row i")[0]
        key = re.search(r"column '([^']*)'", reason)
        labels = [v.index.name for v in views if hasattr(v, "iloc") and v.index.name]
        how = key[1] if key else labels[0] if labels else "COLUMN"
        raise ValueError(f"{reason}: say --join {how} to pair the rows by that column") from None


class Beside:
    """Columns that are taken out of two tables, or read from files of their own."""

    def __init__(self, paths: tuple[str, str], views: list[Any]) -> None:
        self.paths, self.views, self.used = paths, views, dict[str, None]()

    def left(self) -> list[Any]:
        """The tables without the columns that were taken."""
        return [
            v.drop(columns=[c for c in self.used if c in v.columns]) if hasattr(v, "iloc") else v
            for v in self.views
        ]

    def take(self, role: str, name: str) -> Any:
        """A column of the first table that has it."""
        for view in self.views:
            column = column_of(view, name)
            if column is not None:
                self.used[name] = None
                return column
        raise ValueError(
            f"--{role} {name}: there is no such file, and neither {self.paths[0]} nor "
            f"{self.paths[1]} has such a column"
        )

    def values(self, role: str, name: str) -> Any:
        """The column, or the content of a file with the rows of the views."""
        if not Path(name.partition(":")[0]).exists():
            return self.take(role, name).to_frame()
        data, _ = _opened(name)
        first = self.views[0]
        if hasattr(data, "iloc") and hasattr(first, "iloc") and first.index.name is not None:
            key = column_of(data, first.index.name)
            if key is not None:
                data = data.drop(columns=[c for c in [first.index.name] if c in data.columns])
                data = data.set_axis(key.to_numpy(), axis=0)
                missing = [v for v in first.index if v not in data.index]
                if missing:
                    raise ValueError(f"--{role} {name}: has no row of the id {missing[0]!r}")
                data = data.loc[first.index]
        return data

    def one(self, role: str, name: str) -> Any:
        """One value for each row."""
        return _column(name, self.values(role, name))

    def several(self, role: str, names: Sequence[str]) -> Any:
        """Columns of numbers side by side; text becomes one column for each value but one."""
        import pandas as pd

        parts = []
        for name in names:
            data = self.values(role, name)
            if hasattr(data, "iloc") and any(k.kind not in "biuf" for k in data.dtypes):
                data = pd.get_dummies(data, drop_first=True, dtype=float)
            values = np.asarray(numbers_of(data, name))
            parts.append(values[:, None] if values.ndim == 1 else values)
        if len({len(part) for part in parts}) > 1:
            raise ValueError(f"--{role}: {', '.join(names)} have different numbers of rows")
        return np.hstack(parts).astype(np.float64)


def read_labels(name: str) -> Any:
    """A file with one value for each row."""
    return _column(name, _opened(name)[0])


def _column(name: str, data: Any) -> Any:
    found = np.asarray(data)
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if found.ndim != 1:
        raise ValueError(f"{name}: has shape {found.shape}, expected one label per item")
    return found


def _checked(data: Any, path: str) -> Any:
    """Raise, in one line with the name of the file, where a view is no matrix of numbers."""
    if len(data.shape) != 2 or 0 in data.shape:
        raise ValueError(
            f"{path}: has shape {tuple(data.shape)}, expected a matrix with one row per item"
        )
    try:
        values = numbers_of(data, path)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{error} (--drop COLUMN; or --index, --join, --ids, --groups, --nuisance)"
        ) from None
    kind = getattr(getattr(values, "dtype", None), "kind", "f")
    if kind not in "biufV":
        raise ValueError(f"{path}: holds {values.dtype} values, not real numbers")
    if not is_lazy(values) and kind == "f" and not hasattr(values, "toarray"):
        nan, infinite, first = count_nonfinite(values)
        if infinite or nan == np.size(values):  # single gaps are imputed, with a warning
            message = describe_nonfinite(path, nan, infinite, first)
            names = column_names(data, path)
            if first is not None and names is not None:
                at = f"column {first[1]}"
                message = message.replace(at, column_label(first[1], names), 1)
            raise ValueError(message)
    return data
