"""Sums of named blocks from a covariance matrix, as a textbook or a paper prints it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from cmstats.arrays import Array, check_matrix, float64, is_array, namespace, to_numpy
from cmstats.moments.block_sums import BlockSums
from cmstats.moments.sums import Scatter
from cmstats.rows.names import check_block_name, column_names

__all__ = ["sums_of_covariance"]

TOLERANCE = 1e-8
"""The largest asymmetry, and negative eigenvalue, that counts as rounding of double precision."""


def sums_of_covariance(S: Any, n: Any, mean: Any, blocks: Any) -> BlockSums:
    """The sums of n rows with the covariance S (ddof=1); see `Moments.from_covariance`."""
    names = _names(S)
    S = float64(check_matrix(S, "S"))
    d = S.shape[0]
    widths = _widths(blocks, tuple(S.shape))
    if isinstance(n, bool) or not isinstance(n, (int, float, np.number)) or not 1 < n < math.inf:
        raise ValueError(f"n={n!r} must be the number of rows, more than 1")
    _check_covariance(to_numpy(S))
    scatter = 0.5 * (S + S.mT) * (float(n) - 1)
    sums = Scatter(float(n), _mean(mean, d, scatter), scatter, int(n))
    ends = np.cumsum([0, *widths.values()])
    columns = (
        {}
        if names is None
        else {
            block: names[start:stop]
            for block, start, stop in zip(widths, ends[:-1], ends[1:], strict=True)
        }
    )
    return BlockSums(tuple(widths), tuple(widths.values()), sums, None, columns)


def _names(S: Any) -> Any:
    """The names of the variables of a frame, whose rows must have the same."""
    names = column_names(S, "S")
    index = getattr(S, "index", None)
    if (
        names is not None
        and index is not None
        and list(map(str, index)) not in (list(names), list(map(str, range(len(names)))))
    ):
        raise ValueError(
            "the rows and the columns of S have different names: a covariance matrix has the "
            "same variables in the same order on both sides (S.loc[S.columns])"
        )
    return names


def _widths(blocks: Any, shape: tuple[int, ...]) -> dict[str, int]:
    """The checked widths of the blocks, which are all columns of a square matrix."""
    if not isinstance(blocks, Mapping) or not blocks:
        raise ValueError(
            f"blocks={blocks!r} must say how many columns each block has, in the order of the "
            "columns of S: blocks={'x': 3, 'y': 2}"
        )
    for name, width in blocks.items():
        check_block_name(name)
        if isinstance(width, bool) or not isinstance(width, numbers.Integral) or width < 1:
            raise ValueError(f"block {name!r} has {width!r} columns: give a whole number from 1 up")
    if shape[0] != shape[1]:
        raise ValueError(f"S has shape {shape}: a covariance matrix is square")
    total = sum(blocks.values())
    if total != shape[0]:
        raise ValueError(f"the blocks {dict(blocks)} have {total} columns, but S has {shape[0]}")
    return {name: int(width) for name, width in blocks.items()}


def _check_covariance(S: np.ndarray[Any, Any]) -> None:
    """Raise if S is not symmetric, or has a direction of negative variance."""
    size = float(np.abs(S).max())
    gap = np.abs(S - S.T)
    if float(gap.max()) > TOLERANCE * size:
        i, j = (int(k) for k in np.unravel_index(int(gap.argmax()), gap.shape))
        raise ValueError(
            f"S is not symmetric: S[{i}, {j}] = {S[i, j]:g}, but S[{j}, {i}] = {S[j, i]:g}; where "
            "only one half is printed, copy it to the other"
        )
    variances = np.diag(S)
    if float(variances.min()) < 0:
        at = int(variances.argmin())
        raise ValueError(f"S[{at}, {at}] = {variances[at]:g} is a negative variance")
    # In units of the standard deviations, so that units of measurement make no difference.
    deviations = np.sqrt(np.where(variances > 0, variances, 1.0))
    smallest = float(np.linalg.eigvalsh(S / deviations / deviations[:, None])[0])
    if smallest < -TOLERANCE * len(S):
        raise ValueError(
            f"S is not positive semi-definite: its correlation matrix has the eigenvalue "
            f"{smallest:.2g}, so that no data have this covariance; look for a misprint, or give "
            "more digits"
        )


def _mean(mean: Any, d: int, like: Array) -> Array:
    """The checked mean, zero by default."""
    xp = namespace(like)
    if mean is None:
        return 0 * xp.linalg.diagonal(like)
    mean = mean if is_array(mean) else np.asarray(mean)
    if tuple(mean.shape) != (d,):
        raise ValueError(f"mean has shape {tuple(mean.shape)}, expected ({d},): one per column")
    mean = float64(check_matrix(mean, "mean"))[:, 0]
    namespace(mean, like)  # raises where they are of different libraries or devices
    return mean
