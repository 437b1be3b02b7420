"""One pass over rows in memory, on disk, in batches or in Dask chunks: the sums of each fold."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cmstats.arrays import (
    Array,
    check_weights,
    dense,
    is_array,
    is_dask,
    moderate_weights,
    namespace,
    row_slices,
    take_rows,
    warn,
)
from cmstats.kernels.transfer import to_device
from cmstats.moments import dask as _dask
from cmstats.moments.block_sums import BlockSums
from cmstats.moments.checkpoint import Checkpoint, check_settings, fingerprint, segment_rows
from cmstats.moments.fold_sums import fold_sums, foreign
from cmstats.moments.patterns import Missing, PatternTable, check_missing
from cmstats.moments.sums import FORMS, Form
from cmstats.rows.chunks import batches, check_blocks, is_lazy
from cmstats.rows.names import column_names, naming_columns
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.progress import progress_bar
from cmstats.rows.source import take_in_memory
from cmstats.rows.splits import Folds, deal

__all__ = ["Pass", "collect_rows"]

GATHER_ROWS = 16384
"""Small batches are joined until they have so many rows, before they are multiplied."""


@dataclass(frozen=True)
class Pass:
    """The settings of a pass over rows, and the passes; see `Moments.from_data`."""

    form: Form
    missing: Missing = "error"
    device: Any = None
    rows: int | None = None
    checkpoint: Any = None
    progress: bool = False
    diagonal: str | None = None

    def __post_init__(self) -> None:
        """Raise if a setting is invalid."""
        if self.form not in FORMS:
            raise ValueError(f"form must be 'scatter' or 'root', got {self.form!r}")
        check_missing(self.missing)
        if self.missing == "em" and self.form == "root":
            raise ValueError(
                "missing='em' works on scatter matrices: leave form='scatter' (solver='auto' or "
                "'moments' of an estimator)"
            )
        if self.missing == "em" and self.diagonal is not None:
            raise ValueError(
                "missing='em' estimates from the products within every block: leave diagonal out"
            )
        check_settings(self.rows, self.checkpoint, self.progress)

    def targets(self, names: Sequence[str], widths: Sequence[int]) -> int:
        """The number of columns of which only the variances are collected."""
        self._check_diagonal(names)
        return 0 if self.diagonal is None or self.form == "root" else widths[-1]

    def _check_diagonal(self, names: Sequence[str]) -> None:
        """Raise if the block named is not the last of several."""
        if self.diagonal is not None and (len(names) < 2 or names[-1] != self.diagonal):
            raise ValueError(
                f"diagonal={self.diagonal!r} must name the last of at least two blocks, got "
                f"{', '.join(names)}"
            )

    def over_rows(
        self, blocks: dict[str, Any], sample_weight: Any, *, cv: Any = None, groups: Any = None
    ) -> list[BlockSums]:
        """The sums of each fold of the rows (of all rows without `cv`)."""
        if not blocks:
            raise ValueError(
                "name at least one block of data, for example Moments.from_data(x=X, y=Y)"
            )
        self._check_diagonal(list(blocks))
        if any(map(is_dask, blocks.values())):
            if self.rows or self.checkpoint is not None or self.progress:
                raise ValueError(
                    "rows, checkpoint and progress are for passes that run here: of Dask arrays "
                    "the chunks are the runs, and Dask has progress bars and repeats what is lost"
                )
            blocks = _dask.matrices(blocks)
            folds = _dealt(blocks, blocks, cv, groups, sample_weight)
            return _dask.fold_moments(collect_rows, blocks, self, sample_weight, folds)
        names = {name: column_names(a, name) for name, a in blocks.items()}
        check_row_labels({**blocks, "sample_weight": sample_weight, "groups": groups})
        blocks, given = check_blocks(blocks), blocks
        weights = check_weights(sample_weight, length(blocks), _array_among(blocks))
        with naming_columns(names):
            dealt = _dealt(blocks, given, cv, groups, weights)
            found = self.over_checked(blocks, weights, dealt)
        return [sums.name_columns(names) for sums in found]

    def over_checked(
        self,
        blocks: dict[str, Any],
        sample_weight: Any,
        folds: Folds | None,
    ) -> list[BlockSums]:
        """The sums of each fold of checked rows, whose folds are known (-1: in no fold)."""
        n = length(blocks)
        weights = check_weights(sample_weight, n, _array_among(blocks), empty=True)
        n_folds, ids = (1, None) if folds is None else (folds.count, folds.numbers(n, weights))
        if folds is None and weights is not None and not bool(namespace(weights).all(weights > 0)):
            ids = Folds(1).numbers(n, weights)
        weights, unit = moderate_weights(weights)
        over = functools.partial(self.of_run, blocks, weights, ids=ids, n_folds=n_folds)
        if self.checkpoint is None:
            with self._bar(n) as bar:
                return [m.reweighted(unit) for m in over(advance=bar.update)]
        size = segment_rows(blocks)
        saved = self._opened(blocks, size, shapes=True, ids=ids, weights=weights)
        with self._bar(n) as bar, saved.noted():
            bar.update(saved.position)
            steps = (
                (cut.stop, cut.stop < n, functools.partial(over, span=cut, advance=bar.update))
                for cut in row_slices(n, size)
            )
            found = self._resumed(saved, blocks, steps)
        saved.remove()
        return [m.reweighted(unit) for m in found]

    def over_stream(
        self, source: Iterable[Any], names: Sequence[str], folds: Folds | None = None
    ) -> list[BlockSums]:
        """The sums of each fold of a stream of batches (of all rows without `folds`)."""
        # Each fold is merged by itself.
        size = self.rows or GATHER_ROWS * (1 if folds is None else 2)
        columns: dict[str, Any] = {}
        noted_source = _noting_names(source, names, columns)
        stream = gathered(noted_source, names, size, exact=self.checkpoint is not None)
        first = next(stream, None)
        if first is None:
            raise ValueError("the stream of batches holds no rows")
        saved, rows = None, 0
        if self.checkpoint is not None:
            size = segment_rows(first.blocks, first.stop)
            dealt = None if folds is None else folds.count if folds.ids is None else folds.ids
            saved = self._opened(first.blocks, size, shapes=False, ids=dealt, weights=None)

        def steps() -> Iterator[Step]:
            nonlocal rows
            for run in itertools.chain([first], stream):
                where: dict[str, Any] = {"locate": run.locate}
                if folds is not None:
                    ids = folds.part(run.start, run.stop).numbers(run.stop - run.start)
                    where |= {"ids": ids, "n_folds": folds.count}
                over = functools.partial(self.of_run, run.blocks, **where)
                yield run.stop, run.stop % size == 0, over
                rows = run.stop
                bar.update(run.stop - run.start)

        noted = nullcontext() if saved is None else saved.noted()
        with self._bar() as bar, noted:
            found = self._resumed(saved, first.blocks, steps())
        if saved is not None:
            saved.require(rows)
        if folds is not None:
            folds.check_rows(rows)
            if rows < folds.count:
                raise ValueError(
                    f"cv={folds.count} folds of {rows} rows: at most as many folds are possible"
                )
        if saved is not None:
            saved.remove()
        return [sums.name_columns(columns) for sums in found]

    def of_run(
        self,
        blocks: dict[str, Any],
        weights: Array | None = None,
        *,
        ids: np.ndarray[Any, Any] | None = None,
        n_folds: int = 1,
        **where: Any,
    ) -> list[BlockSums]:
        """The sums of each fold of checked rows without checkpoint; `where` goes to `fold_sums`."""
        names = list(blocks)
        widths = [1 if a.ndim == 1 else int(a.shape[1]) for a in blocks.values()]
        tables = [PatternTable(sum(widths))] * n_folds if self.missing == "em" else None
        targets = self.targets(names, widths)

        folds = fold_sums(
            blocks, self.form, weights, ids=ids, n_folds=n_folds, device=self.device,
            tables=tables, rows=self.rows, targets=targets, **where,
        )  # fmt: skip
        found = []
        for fold, sums in enumerate(folds):
            held = tables[fold].or_none() if tables else None
            sums = sums or FORMS[self.form].empty(self._like(blocks), widths, targets)
            found.append(BlockSums(names, widths, sums, held))
        return found

    def _bar(self, total: int | None = None) -> Any:
        return progress_bar(self.progress, "moments", " rows", total=total, scale=True)

    def _like(self, blocks: dict[str, Any]) -> Array:
        """An array in the library and on the device of the sums of these rows."""
        host = np.zeros(1)
        found = foreign(blocks.values())
        if found is None and self.device is not None and str(self.device) != "cpu":
            return to_device([host])[0]
        return host if found is None else found

    def _opened(self, blocks: dict[str, Any], size: int, **what: Any) -> Checkpoint:
        if self.diagonal is not None:
            what["diagonal"] = self.diagonal
        marks = fingerprint(blocks, form=self.form, missing=self.missing, segment=size, **what)
        return Checkpoint(self.checkpoint, marks)

    def _resumed(
        self, saved: Checkpoint | None, blocks: dict[str, Any], steps: Iterable[Step]
    ) -> list[BlockSums]:
        """The merged sums of steps, resumed after the last checkpoint.

        After each checkpoint the pass continues from what the file gives back, so that the
        result does not depend on whether, or where, the pass was interrupted.
        """
        total: list[BlockSums] = []

        def restored(folds: list[dict[str, Any]]) -> list[BlockSums]:
            like = self._like(blocks)
            return [BlockSums.from_fields(fields).on(like) for fields in folds]

        if saved is not None:
            total = restored(saved.folds)
        for position, due, work in steps:
            if saved is not None and position <= saved.position:
                continue
            parts = work()
            total = [a + b for a, b in zip(total, parts, strict=True)] if total else parts
            if saved is not None and due:
                folds = [m.fields() for m in total]
                saved.save(position, folds)
                total = restored(folds)
        return total


Step: TypeAlias = tuple[int, bool, Callable[[], list[BlockSums]]]
"""The row after its last, whether to save there, and a function that returns its sums."""


def collect_rows(
    blocks: dict[str, Any], how: Pass, sample_weight: Any, folds: Folds | None
) -> list[BlockSums]:
    """The sums of each fold of rows, whose folds are known."""
    return how.over_checked(check_blocks(blocks), sample_weight, folds)


def _array_among(blocks: dict[str, Any]) -> Array | None:
    """A block in memory, whose library the weights must have; None where there is none."""
    found = foreign(blocks.values())
    return next(filter(is_array, blocks.values()), None) if found is None else found


def length(blocks: dict[str, Any]) -> int:
    """The number of rows of checked blocks."""
    return int(next(iter(blocks.values())).shape[0])


def _dealt(
    blocks: dict[str, Any], given: dict[str, Any], cv: Any, groups: Any, weights: Any
) -> Folds | None:
    """The folds of checked rows; None for all rows as one."""
    if cv is None:
        return None
    n = length(blocks)
    folds = deal(cv, n, y=given.get("y"), groups=groups, weights=weights)
    for note in folds.gap_notes(n, weights):
        warn(note)
    return folds


@dataclass(frozen=True)
class Gathered:
    """Joined batches.

    Attributes
    ----------
    start, stop : int
        The position of the rows in the stream.
    blocks : dict of name to matrix
    pieces : list of (batch number, first row in the batch, first row here)
    """

    start: int
    stop: int
    blocks: dict[str, Any]
    pieces: list[tuple[int, int, int]]

    def locate(self, row: int) -> str:
        """The batch of a row, and its number in that batch."""
        number, first, here = next(p for p in reversed(self.pieces) if p[2] <= row)
        return f"{first + row - here} of batch {number}"


def _noting_names(
    source: Iterable[Any], names: Sequence[str], columns: dict[str, Any]
) -> Iterator[Any]:
    """The same batches; the names of the columns of the first, by block, go into `columns`."""
    for batch in source:
        if not columns and isinstance(batch, (Mapping, tuple, list)):
            named = batch if isinstance(batch, Mapping) else dict(zip(names, batch, strict=False))
            columns.update({name: column_names(a, name) for name, a in named.items()})
        yield batch


def gathered(
    source: Iterable[Any], names: Sequence[str], size: int, *, exact: bool = False
) -> Iterator[Gathered]:
    """Join batches until a product of them is worth its overhead.

    Parameters
    ----------
    source : iterable of tuples or dicts
    names : sequence of str
        Names of the blocks of tuples.
    size : int
        The least number of rows.
    exact : bool, default=False
        Cut batches, so that all but the last have exactly `size` rows.
    """
    number = -1

    def counted() -> Iterator[Any]:
        nonlocal number
        for batch in source:
            number += 1
            yield batch

    held: list[dict[str, Any]] = []
    pieces: list[tuple[int, int, int]] = []
    start = rows = 0
    for named in batches(counted(), names):
        begin, end = 0, next(iter(named.values())).shape[0]
        while begin < end:
            stop = min(end, begin + size - rows) if exact else end
            whole = stop - begin == end
            held.append(
                named if whole else {k: take_rows(a, slice(begin, stop)) for k, a in named.items()}
            )
            pieces.append((number, begin, rows))
            rows, begin = rows + stop - begin, stop
            if rows >= size:
                yield Gathered(start, start + rows, _joined(held), pieces)
                held, pieces, start, rows = [], [], start + rows, 0
    if held:
        yield Gathered(start, start + rows, _joined(held), pieces)


def _joined(held: list[dict[str, Any]]) -> dict[str, Any]:
    if len(held) == 1:
        return held[0]
    joined = {}
    for name in held[0]:
        parts = [batch[name] for batch in held]
        parts = [take_in_memory(p, slice(None)) if is_lazy(p) else p for p in parts]
        parts = [dense(p) for p in parts]
        joined[name] = namespace(*parts).concat(parts, axis=0)
    return joined
