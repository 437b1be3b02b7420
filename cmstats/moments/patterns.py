"""Incomplete rows by missingness pattern: the set of columns that are observed.

The moments of the rows of a pattern merge like those of complete rows, so that a table of patterns
streams, splits into folds and replaces the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import scipy.sparse

from cmstats.arrays import Array, device_of, is_numpy, namespace, row_slices, take_rows, to_numpy
from cmstats.moments.sums import Scatter

__all__ = [
    "Mask",
    "Missing",
    "Pattern",
    "PatternTable",
    "check_count",
    "check_missing",
    "incomplete_rows",
]

Missing = Literal["error", "em"]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

MAX_PATTERNS = 512
"""The largest number of patterns in a table."""


def check_missing(missing: Any) -> None:
    """Raise unless `missing` is "error" or "em"."""
    if missing not in ("error", "em"):
        raise ValueError(f"missing must be 'error' or 'em', got {missing!r}")


@dataclass(frozen=True)
class Pattern:
    """The moments of the rows in which the same columns are observed.

    Attributes
    ----------
    observed : bool array of shape (d,)
        Which of all columns are observed, on the host.
    n : float
        The sum of the weights.
    rows : int
        The number of rows.
    mean : array of shape (k,)
        Over the observed columns.
    scatter : array of shape (k, k)
        Sum of w (x - mean)(x - mean)' over the observed columns.
    """

    observed: Mask
    n: float
    rows: int
    mean: Array
    scatter: Array


@dataclass(frozen=True)
class PatternTable:
    """The sums of incomplete rows by pattern; tables add up as moments do.

    Attributes
    ----------
    width : int
        The number of all columns.
    sums : mapping of str to Scatter
        The packed mask of the observed columns in hexadecimal digits (files of models hold no other
        keys than text), and the sums over these columns.
    empty : int
        The number of rows in which nothing is observed.
    """

    width: int
    sums: Mapping[str, Scatter] = field(default_factory=dict)
    empty: int = 0

    def __post_init__(self) -> None:
        check_count(len(self.sums))

    @staticmethod
    def of(observed: Mask, sums: Scatter) -> PatternTable:
        """The table of one pattern."""
        return PatternTable(observed.size, {_key(observed): sums})

    def __add__(self, other: PatternTable) -> PatternTable:
        together = dict(self.sums)
        for key, more in other.sums.items():
            together[key] = together[key] + more if key in together else more
        return PatternTable(self.width, together, self.empty + other.empty)

    def or_none(self) -> PatternTable | None:
        """The table, or None if it has no row."""
        return self if self.sums or self.empty else None

    def fields(self) -> dict[str, np.ndarray[Any, Any]]:
        """The table as NumPy arrays, for a file."""
        masks = [mask for mask, _ in self.items()]
        sums = list(self.sums.values())
        flat = [np.zeros(0)]
        return {
            "pattern_masks": np.array(masks, dtype=bool).reshape(-1, self.width),
            "pattern_n": np.array([s.n for s in sums], dtype=float),
            "pattern_rows": np.array([s.rows for s in sums], dtype=np.int64),
            "pattern_means": np.concatenate(flat + [to_numpy(s.mean) for s in sums]),
            "pattern_factors": np.concatenate(flat + [to_numpy(s.matrix).ravel() for s in sums]),
            "empty_rows": np.array(self.empty),
        }

    @staticmethod
    def from_fields(fields: Mapping[str, np.ndarray[Any, Any]]) -> PatternTable:
        """The table that `fields` wrote."""
        masks = fields["pattern_masks"].astype(bool)
        widths = masks.sum(axis=1)
        means = np.split(fields["pattern_means"], np.cumsum(widths)[:-1])
        factors = np.split(fields["pattern_factors"], np.cumsum(widths**2)[:-1])
        sums = {
            _key(mask): Scatter(float(n), mean, factor.reshape(k, k), int(rows))
            for mask, k, n, rows, mean, factor in zip(
                masks, widths, fields["pattern_n"], fields["pattern_rows"], means, factors,
                strict=len(masks) > 0,
            )
        }  # fmt: skip
        return PatternTable(masks.shape[1], sums, int(fields["empty_rows"]))

    @property
    def n(self) -> float:
        """The sum of the weights of the rows in which something is observed."""
        return sum(s.n for s in self.sums.values())

    @property
    def rows(self) -> int:
        """The number of rows in which something is observed."""
        return sum(s.rows for s in self.sums.values())

    def items(self) -> Iterator[tuple[Mask, Scatter]]:
        """Masks of observed columns, with the sums over these."""
        for key, sums in self.sums.items():
            yield self.mask(key), sums

    def mask(self, key: str) -> Mask:
        """The columns that are observed in the pattern of this key, bool of shape (width,)."""
        packed = np.frombuffer(bytes.fromhex(key), dtype=np.uint8)
        return np.unpackbits(packed, count=self.width).astype(bool)

    def take(self, columns: np.ndarray[Any, Any]) -> tuple[PatternTable, list[Scatter]]:
        """The table of some columns in another order, and the sums of rows now complete."""
        table, complete = PatternTable(len(columns), empty=self.empty), []
        for mask, sums in self.items():
            seen = mask[columns]
            position = np.cumsum(mask) - 1  # of a column among those observed
            picked = sums.take(position[columns[seen]])
            if seen.all():
                complete.append(picked)
            elif seen.any():
                table += PatternTable.of(seen, picked)
            else:
                table += PatternTable(len(columns), empty=sums.rows)
        return table, complete


def check_count(patterns: int) -> None:
    """Raise if there are more patterns than a table holds."""
    if patterns > MAX_PATTERNS:
        raise ValueError(
            f"the rows have more than {MAX_PATTERNS} patterns of missing entries: impute them "
            "first, drop the columns that miss the most, or treat whole blocks as missing (NaN in "
            "all entries of the block where some are)"
        )


def _key(observed: Mask) -> str:
    return np.packbits(observed).tobytes().hex()


def incomplete_rows(
    parts: Sequence[Any],
) -> tuple[np.ndarray[Any, Any], list[tuple[Mask, np.ndarray[Any, Any]]]]:
    """The rows with NaN of blocks side by side, by pattern.

    Parameters
    ----------
    parts : sequence of arrays of shape (m, p_b)
        Of one run of rows.

    Returns
    -------
    complete : bool array of shape (m,), on the host
        Which rows have no NaN.
    groups : list of (mask of the observed columns, row numbers)
    """
    complete = np.ones(parts[0].shape[0], dtype=bool)
    for part in parts:
        _find_nan(part, complete)
    at = np.flatnonzero(~complete)
    if not at.size:
        return complete, []
    mask = np.concatenate([_nan_mask(part, at) for part in parts], axis=1)
    complete[at] = ~mask.any(axis=1)  # infinities of both signs also add up to NaN
    at, mask = at[mask.any(axis=1)], mask[mask.any(axis=1)]
    return complete, [(~mask[where[0]], at[where]) for where in alike(mask)]


def alike(mask: Mask) -> list[np.ndarray[Any, Any]]:
    """The positions of each group of equal rows of a mask."""
    if not mask.shape[0]:
        return []
    packed = np.ascontiguousarray(np.packbits(mask, axis=1))
    _, of = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_inverse=True)
    order = np.argsort(of, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of[order])) + 1)


def _find_nan(part: Any, complete: Mask) -> None:
    """Clear the flag of rows whose sum is NaN, in one sweep without a copy of the rows."""
    if scipy.sparse.issparse(part):
        if np.isnan(np.sum(part.data)):
            coo = part.tocoo()
            complete[coo.row[np.isnan(coo.data)]] = False
        return
    xp = namespace(part)
    if not is_numpy(xp):
        if xp.isdtype(part.dtype, "real floating"):
            flags = xp.isnan(xp.sum(part, axis=1))
            if bool(xp.any(flags)):
                complete &= ~to_numpy(flags)
        return
    if part.dtype.kind not in "fV":
        return
    ones = np.ones(part.shape[1], dtype=part.dtype if part.dtype.itemsize > 2 else np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for take in row_slices(part.shape[0], 8192):
            complete[take] &= ~np.isnan(np.asarray(part[take], dtype=ones.dtype) @ ones)


def _nan_mask(part: Any, rows: np.ndarray[Any, Any]) -> Mask:
    if scipy.sparse.issparse(part):
        return np.asarray(np.isnan(part[rows].toarray()))
    xp = namespace(part)
    if is_numpy(xp):
        return np.isnan(part[rows]) if part.dtype.kind in "fV" else _never(part, rows)
    if not xp.isdtype(part.dtype, "real floating"):
        return _never(part, rows)
    return to_numpy(xp.isnan(take_rows(part, xp.asarray(rows, device=device_of(part)))))


def _never(part: Any, rows: np.ndarray[Any, Any]) -> Mask:
    return np.zeros((rows.size, part.shape[1]), dtype=bool)
