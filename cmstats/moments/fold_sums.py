"""The sums of each fold of rows, in the scatter or in the root form."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cmstats.arrays import (
    Array,
    NotFiniteError,
    blank_rows,
    count_nonfinite,
    dense,
    describe_nonfinite,
    device_of,
    is_array,
    is_numpy,
    namespace,
    take_rows,
)
from cmstats.kernels.covariance import (
    PARALLEL,
    Accumulator,
    accumulator_count,
    provisional_centre,
    spread_rows,
)
from cmstats.kernels.threads import even_slices, run_tasks
from cmstats.kernels.transfer import require_cupy, to_device, upload
from cmstats.moments.patterns import Mask, PatternTable, check_count, incomplete_rows
from cmstats.moments.sums import (
    FewRows,
    Form,
    NonFiniteError,
    Root,
    Scatter,
    are_few,
    check_finite,
)
from cmstats.rows.chunks import chunks, is_lazy, position
from cmstats.rows.source import within

__all__ = ["fold_sums", "foreign", "index_like"]


def fold_sums(
    blocks: Mapping[str, Any],
    form: Form,
    weights: Array | None = None,
    *,
    ids: np.ndarray[Any, Any] | None = None,
    n_folds: int = 1,
    device: Any = None,
    tables: list[PatternTable] | None = None,
    rows: int | None = None,
    span: slice | None = None,
    advance: Callable[[int], Any] | None = None,
    locate: Callable[[int], str] | None = None,
    targets: int = 0,
) -> list[Scatter | None] | list[Root | None]:
    """The sums of each fold of the rows.

    Parameters
    ----------
    blocks : mapping of name to checked matrix
    form : {"scatter", "double", "root"}
    weights : checked array of shape (n,), optional
    ids : int array of shape (n,), optional
        The fold of each row; all rows are one fold without.
    n_folds : int, default=1
    device : str, optional
        "cuda" sends each run of host rows to the GPU; arrays of other libraries stay where
        they are.
    tables : list of PatternTable, optional
        One for each fold, which receives the rows with NaN; without tables NaN is an error. In
        the scatter form only.
    rows : int, optional
        Rows in a run.
    span : slice, optional
        The rows to read; all by default.
    advance : callable, optional
        Called with the number of rows after each run.
    locate : callable, optional
        Describes a row in the error about values that are not finite.
    targets : int, default=0
        The number of last columns of which the products among them are left out, in the scatter
        form.

    Returns
    -------
    list, one for each fold, of Scatter or Root
        Of the rows without NaN; None for a fold that has none.

    Raises
    ------
    ValueError
        If values are not finite: which block, how many, the first position.
    """
    arrays = list(blocks.values())
    if span is not None:
        arrays = [within(a, span) for a in arrays]
        ids = None if ids is None else ids[span]
        weights = None if weights is None else weights[span]
    if foreign(arrays) is not None or str(device) == "cpu":
        device = None
    if device is not None:
        require_cupy(device)  # fail before any row is read
    try:
        # Overflow and NaN show in the sums; the rows are then read again for the message.
        with np.errstate(over="ignore", invalid="ignore"):
            if form == "root":
                return _root_pass(arrays, weights, ids, n_folds, device, rows, advance)
            double = form == "double"
            return _scatter_pass(
                arrays, weights, ids, n_folds, double, device, tables, rows, advance, targets
            )
    except NonFiniteError:
        raise _whole_count(blocks, nan=tables is None, ids=ids, span=span, locate=locate) from None


def foreign(arrays: Iterable[Any]) -> Array | None:
    """The first array of another library than NumPy, if there is one."""
    return next((a for a in arrays if is_array(a) and not is_numpy(namespace(a))), None)


def _whole_count(
    blocks: Mapping[str, Any],
    *,
    nan: bool,
    ids: np.ndarray[Any, Any] | None,
    span: slice | None,
    locate: Callable[[int], str] | None,
) -> ValueError:
    """The error about values that are not finite, counted over all rows of a block."""
    offset = 0 if span is None else span.start
    for block, a in blocks.items():
        name = block
        nans = infinite = 0
        first = None
        for start, (part,), _ in chunks([a if span is None else within(a, span)]):
            part = dense(part)
            if ids is not None:
                part = blank_rows(part, ids[start : start + part.shape[0]] < 0)
            more_nan, more_inf, at = count_nonfinite(part, offset + start, nan=nan)
            nans, infinite, first = nans + more_nan, infinite + more_inf, first or at
        if nans or infinite:
            assert first is not None
            if span is not None:
                name = f"{name} (rows {span.start} to {span.stop - 1})"
            at_row: Any = first if locate is None else (locate(first[0]), first[1])
            hint = ", or set missing='em'"
            message = describe_nonfinite(name, nans, infinite, at_row, hint)
            return NotFiniteError(message + position(a, first[0]), block, first[1])
    return ValueError(
        f"the second moments of {' and '.join(blocks)} overflow: values are too large; divide "
        "them by a constant"
    )


def _runs(
    arrays: Sequence[Any],
    weights: Array | None,
    device: Any,
    rows: int | None,
    advance: Callable[[int], Any] | None,
) -> Iterator[tuple[int, list[Any], Array | None]]:
    """Runs of rows with their weights, on the requested device.

    A run on a GPU lies in a buffer that the next run overwrites.
    """
    runs = chunks(arrays, weights, rows=rows)
    done = 0
    for run in runs if device is None else _sent(runs):
        done = run[1][0].shape[0]
        yield run
        del run  # else two runs would be in memory at once
        if advance is not None:
            advance(done)


def _sent(
    runs: Iterator[tuple[int, list[Any], Array | None]],
) -> Iterator[tuple[int, list[Any], Array | None]]:
    """The same runs on the GPU."""
    start = 0
    for sent in upload([*parts, w] for _, parts, w in runs):
        parts: list[Any] = sent[:-1]
        yield start, parts, sent[-1]
        start += parts[0].shape[0]


def _rows_of(
    ids: np.ndarray[Any, Any] | None,
    start: int,
    m: int,
    fold: int,
    like: Any,
    complete: Mask | None = None,
) -> Array | None:
    """The positions of the (complete) rows of a fold in a run, in the library of `like`."""
    if ids is None:
        return None if complete is None else index_like(np.flatnonzero(complete), like)
    mine = ids[start : start + m] == fold
    return index_like(np.flatnonzero(mine if complete is None else mine & complete), like)


def index_like(rows: np.ndarray[Any, Any], like: Any) -> Array:
    """Row numbers as an array of the library of `like`, on its device."""
    if is_array(like) and not is_numpy(namespace(like)):
        return namespace(like).asarray(rows, device=device_of(like))
    return rows


def _scatter_pass(
    arrays: Sequence[Any],
    weights: Array | None,
    ids: np.ndarray[Any, Any] | None,
    n_folds: int,
    double: bool,
    device: Any,
    tables: list[PatternTable] | None,
    run_rows: int | None,
    advance: Callable[[int], Any] | None,
    targets: int,
) -> list[Scatter | None]:
    folds: list[list[Accumulator]] = [[] for _ in range(n_folds)]
    # A fold of few rows holds them: of as many folds as rows each would take a matrix of d x d.
    few = [False] * n_folds
    if ids is not None and tables is None:
        d = sum(1 if a.ndim == 1 else int(a.shape[1]) for a in arrays) - targets
        few = [are_few(int(m), d) for m in np.bincount(ids[ids >= 0], minlength=n_folds)]
    held: list[Any] = [None] * n_folds
    for start, parts, w in _runs(arrays, weights, device, run_rows, advance):
        m = parts[0].shape[0]
        tasks: list[Callable[[], object]] = []
        complete = None
        if tables is not None:
            here = None if ids is None else ids[start : start + m]
            complete, tasks = _incomplete(parts, w, here, tables, double)
        for fold, group in enumerate(folds):
            if not group and not few[fold]:
                # Each fold has its own centre: about the mean of another, digits would cancel.
                run = parts, w, start
                begun = _centre_of(arrays, weights, run, ids, fold, device, complete)
                # Folds run in parallel as they are; a single fold is cut into parts.
                work = m * sum(p.shape[1] for p in parts)
                each = accumulator_count(parts, work, targets) if n_folds == 1 else 1
                if begun is not None:
                    centre, needed = begun[0], begun[1] or double
                    group += [
                        Accumulator(parts, centre, needed, targets=targets) for _ in range(each)
                    ]
        for fold, group in enumerate(folds):
            rows = _rows_of(ids, start, m, fold, parts[0], complete)
            height = m if rows is None else int(rows.shape[0])
            if few[fold] and height:
                mine_w = None if w is None else take_rows(w, rows)
                piece = FewRows.of_rows([dense(take_rows(p, rows)) for p in parts], mine_w)
                piece = piece.without_products(targets)
                held[fold] = piece if held[fold] is None else held[fold] + piece
            for sums_of, take in zip(group, even_slices(height, len(group)), strict=True):
                mine = take if rows is None else rows[take]
                tasks.append(functools.partial(sums_of.add, parts, w, mine))
        # CuPy's current stream belongs to the thread: work for a GPU stays on this one.
        small = m * sum(p.shape[1] for p in parts) < PARALLEL
        run_tasks(tasks, inline=small or device is not None)
    for group in folds:
        check_finite(*(part.first for part in group))
    widths = [1 if a.ndim == 1 else int(a.shape[1]) for a in arrays]
    for fold, group in enumerate(folds):
        if group:
            held[fold] = Scatter.of(Accumulator.finish(group), widths)
    found = [(s.matrix, s.diagonal) for s in held if s is not None]
    check_finite(*(a for each in found for a in each if a is not None))
    for table in tables or ():
        check_finite(*(a for _, s in table.items() for a in (s.mean, s.matrix)))
    return held


def _incomplete(
    parts: list[Any],
    w: Array | None,
    ids: np.ndarray[Any, Any] | None,
    tables: list[PatternTable],
    double: bool,
) -> tuple[Mask | None, list[Callable[[], object]]]:
    """The complete rows of a run (None: all), and tasks that add the other rows to tables."""
    complete, groups = incomplete_rows(parts)
    check_count(sum(bool(observed.any()) for observed, _ in groups))
    lock = threading.Lock()
    numbers = itertools.count()
    waiting: dict[int, tuple[int, PatternTable]] = {}
    added = 0
    # Accumulators of one run and one pattern: kept for all of them, they would fill the memory.

    def add(number: int, fold: int, observed: Mask, rows: np.ndarray[Any, Any]) -> None:
        nonlocal added
        more = PatternTable.of(observed, _pattern_sums(parts, w, observed, rows, double))
        with lock:  # in one order, since the last digits depend on it
            waiting[number] = fold, more
            while (ready := waiting.pop(added, None)) is not None:
                tables[ready[0]] += ready[1]
                added += 1

    tasks: list[Callable[[], object]] = []
    for observed, rows in groups:
        for fold in range(len(tables)):
            mine = rows if ids is None else rows[ids[rows] == fold]
            if not observed.any():
                tables[fold] += PatternTable(observed.size, empty=mine.size)
                continue
            tasks += [
                functools.partial(add, next(numbers), fold, observed, mine[cut])
                for cut in even_slices(
                    mine.size, accumulator_count(parts, mine.size * observed.size)
                )
                if cut.stop > cut.start
            ]
    return (complete if groups else None), tasks


def _pattern_sums(
    parts: list[Any],
    w: Array | None,
    observed: Mask,
    rows: np.ndarray[Any, Any],
    double: bool,
) -> Scatter:
    """The sums over the observed columns of the rows of one pattern."""
    masks = np.split(observed, np.cumsum([p.shape[1] for p in parts])[:-1])
    pairs = [(part, mask) for part, mask in zip(parts, masks, strict=True) if mask.any()]
    at: Any = index_like(rows, parts[0])
    blocks = [part for part, _ in pairs]
    if not all(mask.all() for _, mask in pairs):
        blocks = [_columns(take_rows(part, at), mask) for part, mask in pairs]
        w, at = None if w is None else take_rows(w, at), index_like(np.arange(rows.size), parts[0])
    centre, needed = provisional_centre(blocks, at, w)
    sums = Accumulator(blocks, centre, needed or double)
    sums.add(blocks, w, at)
    return Scatter.of(Accumulator.finish([sums]))


def _columns(part: Any, mask: Mask) -> Any:
    """The columns that a mask selects."""
    if mask.all() or not is_array(part) or is_numpy(namespace(part)):
        return part if mask.all() else part[:, np.flatnonzero(mask)]
    return namespace(part).take(part, index_like(np.flatnonzero(mask), part), axis=1)


def _centre_of(
    arrays: Sequence[Any],
    weights: Array | None,
    run: tuple[list[Any], Array | None, int],
    ids: np.ndarray[Any, Any] | None,
    fold: int,
    device: Any,
    complete: Mask | None = None,
) -> tuple[Array, bool] | None:
    """Where the accumulators of a fold begin; None while no (complete) row of the fold was seen.

    Rows in memory are sampled from first to last, those on a disk, or among incomplete ones,
    from the run at hand.
    """
    if complete is not None or any(is_lazy(a) for a in arrays):
        parts, w, start = run
        rows = _rows_of(ids, start, parts[0].shape[0], fold, parts[0], complete)
        none = rows is not None and not rows.shape[0]
        return None if none else provisional_centre(parts, rows, w)
    at = None if ids is None else np.flatnonzero(ids == fold)
    if at is not None and not at.size:
        return None
    step = spread_rows(int(arrays[0].shape[0]), weights, at)
    sample = [take_rows(a, step) for a in arrays]
    return provisional_centre(sample if device is None else to_device(sample))


def _root_pass(
    arrays: Sequence[Any],
    weights: Array | None,
    ids: np.ndarray[Any, Any] | None,
    n_folds: int,
    device: Any,
    run_rows: int | None,
    advance: Callable[[int], Any] | None,
) -> list[Root | None]:
    sums: list[Root | None] = [None] * n_folds
    d = sum(1 if a.ndim == 1 else int(a.shape[1]) for a in arrays)
    # A QR factorisation pays from about two rows a column; a wide block is its own root.
    run_rows = run_rows or max(2 * d * n_folds, 4096)
    for start, parts, w in _runs(arrays, weights, device, run_rows, advance):
        parts = [dense(p) for p in parts]
        for fold in range(n_folds):
            rows = _rows_of(ids, start, parts[0].shape[0], fold, parts[0])
            mine = parts if rows is None else [take_rows(p, rows) for p in parts]
            mine_w = w if rows is None or w is None else take_rows(w, rows)
            if mine[0].shape[0]:
                piece, before = Root.of_rows(mine, mine_w), sums[fold]
                sums[fold] = piece if before is None else before + piece
    return sums
