"""Rows that depend on rows of other folds: copies, and neighbours that resemble each other.

Held-out scores say something of new items only where no row depends on a row of another fold. What
breaks this most often can be seen in a few thousand rows: a row of one view that stands several
times (the image of five captions), and rows whose order is time (films, EEG, fMRI).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse

from cmstats.arrays import dense, is_dask, is_lazy, take_rows, to_numpy
from cmstats.rows.source import take_in_memory, width_of
from cmstats.rows.splits import Folds

__all__ = ["dependence_notes", "independence_notes", "remembered", "watched"]

HostArray = np.ndarray[Any, Any]

RUNS, RUN = 8, 512
"""Runs of consecutive rows that are looked at, and their length."""

FEWEST, SAMPLE, MOST = 64, 8192, 1 << 20
"""The fewest rows that are checked, the rows whose copies are counted, and the most rows that are
searched for copies."""

STEP = 8
"""Rows that are this far apart are compared with neighbours."""

COLUMNS = 8
"""Columns by which copies are found, and directions in which neighbours are compared."""


def dependence_notes(blocks: Mapping[str, Any], folds: Folds, weights: Any = None) -> list[str]:
    """Sentences about rows that depend on rows of other folds, where there are many.

    Parameters
    ----------
    blocks : mapping of name to row source
        Checked rows; those of Dask, which would have to be computed for it, are not looked at, and
        of those that are `watched` what a pass has read.
    folds : Folds
    weights : array of shape (n,), optional
    """
    n = int(next(iter(blocks.values())).shape[0])
    if n < FEWEST or any(map(is_dask, blocks.values())) or is_dask(weights):
        return []
    ids = folds.numbers(n, weights)
    for name, block in blocks.items():
        if note := _copies(name, block, ids):
            return [note]
    for name, block in blocks.items():
        if note := _neighbours(name, block, ids):
            return [note]
    return []


def independence_notes(blocks: Mapping[str, Any], groups: Any, mend: str) -> list[str]:
    """Sentences about rows that a test or a resampling takes for independent and that are not.

    Copies of rows of one view, the partners of which resemble each other, or neighbours that
    resemble each other in both.

    Parameters
    ----------
    blocks : mapping of name to array, frame or sparse matrix in memory
    groups : integer array of shape (n,), or None
        The units that are taken for independent; single rows without.
    mend : str
        What to do.
    """
    blocks = {k: a if scipy.sparse.issparse(a) else to_numpy(a) for k, a in blocks.items()}
    blocks = {k: a[:, None] if a.ndim == 1 else a for k, a in blocks.items()}
    n = int(next(iter(blocks.values())).shape[0])
    if n < FEWEST or any(a.dtype.kind not in "biuf" for a in blocks.values()):
        return []  # too few rows, or text
    ids = np.arange(n) if groups is None else groups
    for name, block in blocks.items():
        if (share := _copied(block, ids)) >= 0.05:
            return [
                f"{share:.0%} of the rows of {name} have an exact copy: if their partners resemble "
                f"each other (captions of one image), the rows are not independent, and {mend}"
            ]
    if all(_neighbours(name, block, ids) for name, block in blocks.items()):
        return [
            f"neighbouring rows of {' and of '.join(blocks)} resemble each other, as in films and "
            f"recordings: the rows are not independent, and {mend}"
        ]
    return []


class Watched:
    """A source that is read by slices, of which the rows of some runs are kept as they are read.

    Rows on a disk are checked in the pass that reads them, which saves a pass of their own.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._wanted = list(_spans(int(source.shape[0])))
        self._kept: dict[int, HostArray] = {}

    def __getattr__(self, name: str) -> Any:
        """What the source has."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._source, name)

    def __getitem__(self, rows: Any) -> Any:
        """The rows of the source."""
        part = self._source[rows]
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(int(self._source.shape[0]))
            for span in self._wanted:
                a, b = max(start, span.start), min(stop, span.stop)
                if a < b and a not in self._kept:
                    piece = take_in_memory(part, slice(a - start, b - start))
                    self._kept[a] = np.array(to_numpy(dense(piece)))
        return part

    def runs(self) -> Iterator[tuple[slice, HostArray]]:
        """The runs that were kept."""
        for start, part in sorted(self._kept.items()):
            yield slice(start, start + len(part)), part


def watched(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks, of which those on a disk keep some of the rows that are read."""
    return {
        name: Watched(a) if is_lazy(a) and not isinstance(a, np.ndarray) else a
        for name, a in blocks.items()
    }


def remembered(
    batches: Iterable[dict[str, Any]], first: list[dict[str, HostArray]]
) -> Iterator[dict[str, Any]]:
    """Batches as they come; copies of the first few thousand of their rows go into `first`."""
    left = RUNS * RUN
    for blocks in batches:
        if left > 0 and not any(is_dask(a) for a in blocks.values()):
            some = slice(0, left)
            parts = {k: to_numpy(dense(take_in_memory(a, some))) for k, a in blocks.items()}
            first.append({k: np.array(part) for k, part in parts.items()})
            left -= len(next(iter(parts.values())))
        yield blocks


def _spans(n: int) -> Iterator[slice]:
    """Some runs of consecutive rows, from the first to the last."""
    starts = np.unique(np.linspace(0, max(n - RUN, 0), RUNS).astype(int))
    for start in starts.tolist() if n > RUNS * RUN else range(0, n, RUN):
        yield slice(start, min(start + RUN, n))


def _runs(block: Any, n: int) -> Iterator[tuple[slice, HostArray]]:
    """The rows of some runs."""
    if isinstance(block, Watched):
        yield from block.runs()
        return
    for at in _spans(n):
        yield at, to_numpy(dense(take_in_memory(block, at)))


def _copies(name: str, block: Any, ids: HostArray) -> str:
    """The sentence about rows that have an exact copy in another fold."""
    share = _copied(block, ids)
    if share < 0.05:
        return ""
    return (
        f"{share:.0%} of the rows of {name} have an exact copy in another fold, so that held-out "
        "scores are too good: pass groups= (one label for the rows of one item, such as the image "
        "of each caption), or drop the copies"
    )


def _copied(block: Any, ids: HostArray) -> float:
    """The share of rows that have an exact copy in another fold."""
    columns = np.unique(np.linspace(0, width_of(block) - 1, COLUMNS).astype(int))
    if is_lazy(block) or scipy.sparse.issparse(block):
        if not (runs := list(_runs(block, len(ids)))):
            return 0.0
        whole: Any = np.concatenate([part for _, part in runs])
        ids = np.concatenate([ids[at] for at, _ in runs])
        rows = whole[:, columns]
    else:
        ids = ids[:MOST]
        whole = take_in_memory(block, slice(0, len(ids)))
        rows = to_numpy(take_rows(whole.mT, columns)).T
    rows = np.ascontiguousarray(rows, dtype=np.float64) + 0.0  # -0 is 0
    n = len(rows)
    some = rows[:: max(1, n // SAMPLE)]
    if n * np.prod([_agreement(column) for column in some.T]) > 0.01:
        return 0.0  # so few values that rows agree by chance, as indicators of classes do
    # Sums of the mixed bits of a row: rows that are equal have equal keys, and the rows of some
    # of the keys are all copies of each other, wherever they stand.
    bits = rows.view(np.uint64)
    odd = 2 * np.random.default_rng(0).integers(1, 2**62, len(columns), dtype=np.uint64) + 1
    keys = np.sum((bits ^ (bits >> np.uint64(31))) * odd, axis=1) >> np.uint64(20)
    at = np.flatnonzero((keys % np.uint64(max(1, n // SAMPLE)) == 0) & ~np.isnan(rows).any(axis=1))
    _, first, inverse, counts = np.unique(
        keys[at], return_index=True, return_inverse=True, return_counts=True
    )
    apart = ids[at] != ids[at[first]][inverse]
    apart = (apart | (np.bincount(inverse, weights=apart)[inverse] > 0)) & (ids[at] >= 0)
    if not 50 * len(counts) > len(at) or apart.mean() < 0.05:
        return 0.0  # where few rows stand many times they stand for classes
    mine = np.flatnonzero(apart)[:: max(1, int(apart.sum()) // 64)]
    a, b = (to_numpy(take_in_memory(whole, at[k])) for k in (mine, first[inverse[mine]]))
    share = float(apart.mean() * np.all(a == b, axis=1).mean())
    return share


def _agreement(values: HostArray) -> float:
    """The probability that two of the values are equal, each value drawn at random."""
    counts = np.unique(values, return_counts=True)[1]
    return float(np.sum((counts / len(values)) ** 2))


def _neighbours(name: str, block: Any, ids: HostArray) -> str:
    """The sentence about rows that resemble the next row more than rows further on."""
    near, far, seen = [], [], 0
    turn: Any = None
    for at, part in _runs(block, len(ids)):
        part = np.asarray(part, dtype=np.float64)
        if turn is None:
            if np.isin(part, (0.0, 1.0)).all():
                return ""  # indicators of classes
            spread = np.nanstd(part, axis=0)
            turn = np.random.default_rng(0).choice((-1.0, 1.0), (part.shape[1], COLUMNS))
            turn = turn[:, : part.shape[1]] / np.where(spread > 0, spread, np.inf)[:, None]
        z, fold = np.nan_to_num(part) @ turn, ids[at]
        seen += z.shape[0]
        apart = fold[:-1] != fold[1:]
        near.append(np.sum((z[1:] - z[:-1]) ** 2, axis=1)[apart])
        far.append(np.sum((z[STEP:] - z[:-STEP]) ** 2, axis=1))
    if turn is None:
        return ""
    one, other = np.concatenate(near), np.concatenate(far)
    # Medians, since the ends of classes of rows that are sorted are no change in time. With few
    # columns they vary more, so that more rows are needed.
    if 2 * len(one) < seen or len(other) * turn.shape[1] < 400:
        return ""
    ratio = float(np.median(one)) / max(float(np.median(other)), 1e-300)
    if not ratio < 0.5 or not np.median(other) > 0:
        return ""
    return (
        f"neighbouring rows of {name} resemble each other and lie in different folds (the squared "
        f"difference of rows 1 apart is {ratio:.2g} of that of rows {STEP} apart), as in films and "
        "recordings, so that held-out scores are too good: pass groups= (the film, subject or "
        "session of each row), or cv=KFold(5), which keeps neighbours together"
    )
