"""Checks of the data before any model: findings, each with advice."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmstats.arrays import dense
from cmstats.plotting.display import spread
from cmstats.report.views import Views

__all__ = ["Warned", "check_views"]

Floats = npt.NDArray[np.float64]

CELLS = 8_000_000
"""The most numbers of a view in the checks; of a larger view a sample of rows is checked."""
SPREAD = 1e3
"""The ratio of standard deviations from which columns are taken to have different units."""
CONDITION = 1e6
"""The condition number from which columns are called nearly dependent."""
EXTREME = 8.0
"""The robust z-score of its distance from the centre from which a row is called extreme."""


@dataclass(frozen=True)
class Warned:
    """A finding and what to do about it."""

    finding: str
    advice: str


@dataclass
class _Facts:
    """The quantities that are checked in one view."""

    shape: tuple[int, int]
    dtype: str
    mebibytes: float
    missing: int
    missing_rows: int
    empty_columns: int
    constant: list[int]
    repeated_columns: int
    rank: int
    possible: int
    condition: float
    spread: float
    extreme: list[int]
    row_hashes: list[bytes]


def check_views(
    given: Views, rows: Any, names: tuple[str, str], labels: Any, n_train: int
) -> tuple[pd.DataFrame, list[Warned], int]:
    """The summary of both views, the findings, and the number of rows that were checked.

    Parameters
    ----------
    given : Views
        The views as given, with their gaps.
    rows : array of int
        The numbers of these rows in the whole data.
    names : pair of str
        The names of the views.
    labels : array or None
        The classes of these rows.
    n_train : int
        The number of training items.
    """
    width = max(a.shape[1] for a in given.views)
    at = spread(len(rows), max(200, CELLS // width))
    numbers = rows[at]
    facts = [
        _facts(view, at, numbers, size) for view, size in zip(given.views, given.sizes, strict=True)
    ]
    warned = [w for f, name in zip(facts, names, strict=True) for w in _of_view(f, name)]
    warned += _of_pairs(facts, names, n_train)
    if labels is not None:
        warned += _of_labels(labels)
    summary = pd.DataFrame([_row(f) for f in facts], index=pd.Index(names, name="view"))
    return summary, warned, len(at)


def _row(f: _Facts) -> dict[str, Any]:
    """The row of the summary for one view."""
    return {
        "rows": f.shape[0],
        "columns": f.shape[1],
        "type": f.dtype,
        "memory (MiB)": f.mebibytes,
        "missing entries": f.missing,
        "constant columns": len(f.constant),
        "repeated columns": f.repeated_columns,
        "repeated rows": _copies(f.row_hashes),
        "rank": f.rank,
        "condition number": f.condition,
        "ratio of column spreads": f.spread,
        "extreme rows": len(f.extreme),
    }


def _facts(view: Any, at: Any, numbers: Any, size: tuple[tuple[int, int], str, float]) -> _Facts:
    """Check the rows `at` of a view, whose row numbers in the data are `numbers`."""
    a = np.asarray(dense(view[at]))
    gaps = np.isnan(a) if a.dtype.kind == "f" else np.zeros(a.shape, dtype=bool)
    row_hashes, column_hashes = _hashes(a), _hashes(a.T)
    filled, empty = _complete(a.astype(np.float64), gaps)
    mean, deviation = filled.mean(axis=0), filled.std(axis=0)
    scale = np.maximum(np.abs(filled).max(axis=0), np.finfo(float).tiny)
    varies = deviation > 1e-12 * scale
    z = (filled[:, varies] - mean[varies]) / deviation[varies]
    rank, condition, distance = _spectrum(z)
    kept = deviation[varies]
    return _Facts(
        shape=size[0], dtype=size[1], mebibytes=size[2], missing=int(gaps.sum()),
        missing_rows=int(gaps.any(axis=1).sum()), empty_columns=empty,
        constant=np.flatnonzero(~varies).tolist(),
        repeated_columns=_copies(itertools.compress(column_hashes, varies)), rank=rank,
        possible=min(len(kept), len(set(row_hashes)) - 1), condition=condition,
        spread=float(kept.max() / kept.min()) if len(kept) else np.nan,
        extreme=numbers[_extreme(distance)].tolist(), row_hashes=row_hashes,
    )  # fmt: skip


def _hashes(a: Any) -> list[bytes]:
    """A hash of each row; equal rows have equal hashes."""
    a = np.ascontiguousarray(a + 0)  # adding 0 turns -0.0 into 0.0
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in a]


def _copies(hashes: Iterable[Any]) -> int:
    """The number of elements that equal an earlier one."""
    hashes = list(hashes)
    return len(hashes) - len(set(hashes))


def _complete(a: Floats, gaps: Any) -> tuple[Floats, int]:
    """Impute gaps by column means, and count the columns without any entry."""
    seen = (~gaps).sum(axis=0)
    total = np.where(gaps, 0.0, a).sum(axis=0)
    return np.where(gaps, total / np.maximum(seen, 1), a), int((seen == 0).sum())


def _spectrum(z: Floats) -> tuple[int, float, Floats]:
    """Rank and condition of standardised columns, and the distance of each row from the centre.

    The distance is Mahalanobis' with the correlation matrix shrunk towards the identity by
    n^-1/2, which is invertible for more columns than rows too.
    """
    n, p = z.shape
    if p == 0:
        return 0, np.nan, np.zeros(n)
    values, vectors = np.linalg.eigh(z @ z.T if n < p else z.T @ z)
    values = np.maximum(values, 0)
    # Eigenvalues are squared singular values, hence resolved to half of the digits only.
    kept = values > values[-1] * max(n, p) * np.finfo(float).eps
    rank = int(kept.sum())
    condition = float(np.sqrt(values[-1] / values[kept][0])) if rank else np.nan
    scores = vectors[:, kept] * np.sqrt(values[kept]) if n < p else z @ vectors[:, kept]
    s = 1 / np.sqrt(n)
    weights = 1 / ((1 - s) * values[kept] / n + s)
    return rank, condition, np.sqrt(np.maximum(scores**2 @ weights, 0))


def _extreme(distance: Floats) -> npt.NDArray[np.intp]:
    """Rows whose distance exceeds the median by `EXTREME` robust deviations, farthest first."""
    middle = np.median(distance)
    unit = 1.4826 * np.median(np.abs(distance - middle))
    far = np.flatnonzero(distance - middle > EXTREME * max(unit, 1e-3 * middle, 1e-12))
    return far[np.argsort(-distance[far], kind="stable")]


def _of_view(f: _Facts, name: str) -> Iterator[Warned]:
    """Findings in one view."""
    if f.missing:
        share = f.missing / (len(f.row_hashes) * f.shape[1])
        yield Warned(
            f"{name}: {_count(f.missing, 'entry', 'entries')} missing "
            f"({f'{share:.2%}' if share >= 1e-4 else 'under 0.01%'}), in "
            f"{_count(f.missing_rows, 'row')}.",
            "Here the column's mean of the training items stands in; for estimates from the "
            "observed entries use ConditionalGaussian(missing='em').",
        )
    if f.constant:
        empty = f", {f.empty_columns} of them without any entry" if f.empty_columns else ""
        yield Warned(
            f"{name}: {_count(len(f.constant), 'column')} constant ({_list(f.constant)}){empty}.",
            "They get weight 0: leave them out.",
        )
    if f.repeated_columns:
        yield Warned(
            f"{name}: {_count(f.repeated_columns, 'column')} equal to an earlier one.",
            "Leave the copies out: they count double in the shrinkage.",
        )
    if f.possible - f.rank > f.repeated_columns:
        yield Warned(
            f"{name}: rank {f.rank} of {f.possible} possible: columns depend on each other "
            "linearly.",
            "Predictions are right, single weights are not unique: keep some shrinkage.",
        )
    elif f.condition > CONDITION:
        yield Warned(
            f"{name}: nearly dependent columns (condition number {f.condition:.1e}).",
            "Keep some shrinkage, and do not read single weights.",
        )
    if f.spread > SPREAD:
        yield Warned(
            f"{name}: standard deviations of the columns differ by a factor of {f.spread:.1e}.",
            "Shrinkage looks at units: standardise the columns, or set scale=True.",
        )
    if f.extreme:
        yield Warned(
            f"{name}: {_count(len(f.extreme), 'row')} far from all others in Mahalanobis "
            f"distance ({_list(f.extreme, 'row')}).",
            "Look at them: one broken row can make up a correlation.",
        )


def _of_pairs(facts: list[_Facts], names: tuple[str, str], n_train: int) -> Iterator[Warned]:
    """Findings in the pairs of rows, and in the sizes of the data."""
    repeated = _copies(zip(facts[0].row_hashes, facts[1].row_hashes, strict=True))
    if repeated:
        yield Warned(
            f"{_count(repeated, 'pair')} equal to an earlier one in both views.",
            "Remove them: where one copy is trained on and the other held out, the held-out "
            "numbers are too good.",
        )
    for fact, name in zip(facts, names, strict=True):
        alone = _copies(fact.row_hashes) - repeated
        if alone:
            yield Warned(
                f"{name}: {_count(alone, 'row')} equal to an earlier one, with another partner.",
                "Retrieval here knows one partner for each item: give x_ids and y_ids to "
                "retrieval_report, and keep the copies of one item in the same fold.",
            )
    width = sum(fact.rank for fact in facts)
    if width > n_train - 1:
        yield Warned(
            f"The two views have together {width} dimensions, more than the {n_train} "
            "training items less one.",
            "Training correlations say nothing here (without shrinkage some are 1 for any "
            "data): look at the held-out ones only.",
        )
    elif n_train < 100:
        yield Warned(
            f"There are only {n_train} training items.",
            "Expect wide intervals, and another choice of shrinkage with another seed.",
        )


def _of_labels(labels: Any) -> Iterator[Warned]:
    """Findings in the labels."""
    series = pd.Series(labels)
    gaps, single = int(series.isna().sum()), int((series.value_counts() == 1).sum())
    if gaps:
        yield Warned(f"{_count(gaps, 'item')} without a label.", "They are relevant to no query.")
    if single:
        yield Warned(
            f"{_count(single, 'label')} with one item only.",
            "Such an item has no relevant partner but its own: join rare classes.",
        )


def _count(n: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _list(numbers: list[int], what: str = "column", most: int = 5) -> str:
    """The first numbers of a list, after their noun."""
    shown = ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")
    return f"{what if len(numbers) == 1 else what + 's'} {shown}"
