"""One pass over the rows: the sums of each fold, in the scatter or in the root form.

Between the blocks of rows that `streams` cuts and the `Moments` that are made of sums.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from cmstats._array import (
    Array,
    check_weights,
    count_nonfinite,
    describe_nonfinite,
    device_of,
    float64,
    is_array,
    is_numpy,
    namespace,
    qr_r,
    take_rows,
)
from cmstats.kernels._threads import run_tasks
from cmstats.kernels.covariance import (
    Lane,
    Sums,
    lane_count,
    shares,
    survey,
)
from cmstats.kernels.transfer import require_cupy, to_device, upload
from cmstats.streams import chunks, is_lazy

__all__ = ["Form", "fold_sums", "gathered", "thin"]

GATHER_ROWS = 16384
"""How many rows of small batches are put together before they are multiplied."""

Form: TypeAlias = Literal["scatter", "root"]


def fold_sums(
    blocks: Mapping[str, Any],
    form: Form,
    sample_weight: Any = None,
    *,
    ids: np.ndarray[Any, Any] | None = None,
    device: Any = None,
) -> list[list[Sums]]:
    """The sums of each fold of the rows, in pieces that are still to be merged.

    Parameters
    ----------
    blocks : mapping of name to checked matrix
    form : {"scatter", "root"}
    sample_weight : array of shape (n,), optional
    ids : int array of shape (n,), optional
        The fold of each row; all rows are one fold without.
    device : str, optional
        "cuda" sends each run of host rows to the GPU; arrays of other libraries stay where
        they are.

    Returns
    -------
    list, one for each fold, of lists of Sums

    Raises
    ------
    ValueError
        If values are not finite: which block, how many, the first position.
    """
    if form not in ("scatter", "root"):
        raise ValueError(f"form must be 'scatter' or 'root', got {form!r}")
    arrays = list(blocks.values())
    like = next((a for a in arrays if is_array(a) and not is_numpy(namespace(a))), None)
    weights = check_weights(sample_weight, arrays[0].shape[0], like)
    n_folds = 1 if ids is None else int(ids.max()) + 1
    device = None if like is not None or str(device) == "cpu" else device
    if device is not None:
        require_cupy(device)  # or say at once what is missing
    run = _scatter_pass if form == "scatter" else _root_pass
    try:
        # What overflows or is NaN comes out in the sums, and is then told in words.
        with np.errstate(over="ignore", invalid="ignore"):
            return run(arrays, weights, ids, n_folds, device)
    except NonFiniteError:
        raise ValueError(_whole_count(blocks)) from None


class NonFiniteError(Exception):
    """Sums came out as NaN or infinite: the rows have to be looked at."""


def _whole_count(blocks: Mapping[str, Any]) -> str:
    """What is not finite, in which block, counted over all rows."""
    for name, a in blocks.items():
        nan = inf = 0
        first = None
        for start, (part,), _ in chunks([a]):
            part = part.toarray() if hasattr(part, "toarray") else part
            more_nan, more_inf, at = count_nonfinite(part, start)
            nan, inf, first = nan + more_nan, inf + more_inf, first or at
        if nan or inf:
            return describe_nonfinite(name, nan, inf, first)
    return (
        f"the second moments of {' and '.join(blocks)} overflow: values are too large; divide "
        "them by a constant"
    )


def _runs(
    arrays: Sequence[Any], weights: Array | None, device: Any, rows: int | None = None
) -> Iterator[tuple[int, list[Any], Array | None]]:
    """Runs of rows with their weights, on the device asked for.

    A run on a GPU lies in a buffer that is used again: it is not kept beyond the next run.
    """
    runs = chunks(arrays, weights, rows=rows)
    if device is None:
        yield from runs
        return
    start = 0
    for sent in upload([*parts, w] for _, parts, w in runs):
        parts: list[Any] = sent[:-1]
        yield start, parts, sent[-1]
        start += parts[0].shape[0]


def _rows_of(
    ids: np.ndarray[Any, Any] | None, start: int, m: int, fold: int, like: Any
) -> slice | Array | None:
    """The rows of a run that belong to a fold, as the blocks' own library indexes."""
    if ids is None:
        return None
    return _index(np.flatnonzero(ids[start : start + m] == fold), like)


def _index(rows: np.ndarray[Any, Any], like: Any) -> Array:
    """Row numbers as an array that the library of `like` indexes with."""
    if is_array(like) and not is_numpy(namespace(like)):
        return namespace(like).asarray(rows, device=device_of(like))
    return rows


def _scatter_pass(
    arrays: Sequence[Any],
    weights: Array | None,
    ids: np.ndarray[Any, Any] | None,
    n_folds: int,
    device: Any,
) -> list[list[Sums]]:
    lanes: list[list[Lane]] = [[] for _ in range(n_folds)]
    for start, parts, w in _runs(arrays, weights, device):
        m = parts[0].shape[0]
        for fold, group in enumerate(lanes):
            if not group:
                # Each fold has its own centre: about another fold's mean digits would cancel.
                begun = _survey(arrays, parts, ids, start, fold, device)
                # Folds run side by side as they are; a single one is cut into lanes.
                work = m * sum(p.shape[1] for p in parts)
                each = lane_count(parts, work) if n_folds == 1 else 1
                group += [Lane(parts, *begun) for _ in range(each)] if begun else []
        tasks = []
        for fold, group in enumerate(lanes):
            rows = _rows_of(ids, start, m, fold, parts[0])
            for lane, share in zip(group, shares(m, len(group)), strict=True):
                tasks.append(
                    functools.partial(lane.add, parts, w, slice(*share) if rows is None else rows)
                )
        # CuPy's current stream belongs to the thread: work for a GPU stays on this one.
        run_tasks(tasks, inline=device is not None)
    for group in lanes:
        _check_finite(*(lane.first for lane in group))
    sums = [Lane.finish(group) for group in lanes]
    _check_finite(*(s.factor for s in sums))
    return [[s] for s in sums]


def _survey(
    arrays: Sequence[Any],
    parts: list[Any],
    ids: np.ndarray[Any, Any] | None,
    start: int,
    fold: int,
    device: Any,
) -> tuple[Array, bool] | None:
    """Where a fold's lanes begin; None while no row of the fold was seen.

    Rows in memory are sampled from first to last, those on a disk from the run at hand.
    """
    if any(is_lazy(a) for a in arrays):
        rows = _rows_of(ids, start, parts[0].shape[0], fold, parts[0])
        return None if rows is not None and not rows.shape[0] else survey(parts, rows)  # type: ignore[union-attr]
    at = None if ids is None else np.flatnonzero(ids == fold)
    step = slice(None, None, max(1, (arrays[0].shape[0] if at is None else at.size) // 512))
    sample = [take_rows(a, step if at is None else _index(at[step], a)) for a in arrays]
    return survey(sample if device is None else to_device(sample))


def _check_finite(*arrays: Array) -> None:
    for a in arrays:
        xp = namespace(a)
        if not bool(xp.isfinite(xp.sum(a))):
            raise NonFiniteError


def _root_pass(
    arrays: Sequence[Any],
    weights: Array | None,
    ids: np.ndarray[Any, Any] | None,
    n_folds: int,
    device: Any,
) -> list[list[Sums]]:
    pieces: list[list[Sums]] = [[] for _ in range(n_folds)]
    d = sum(1 if a.ndim == 1 else int(a.shape[1]) for a in arrays)
    # A QR factorisation pays from about two rows a column; a wide block is its own root.
    for start, parts, w in _runs(arrays, weights, device, max(2 * d * n_folds, 4096)):
        parts = [p.toarray() if hasattr(p, "toarray") else p for p in parts]
        for fold in range(n_folds):
            rows = _rows_of(ids, start, parts[0].shape[0], fold, parts[0])
            mine = parts if rows is None else [take_rows(p, rows) for p in parts]
            mine_w = w if rows is None or w is None else take_rows(w, rows)
            if mine[0].shape[0]:
                pieces[fold].append(_root_sums(mine, mine_w))
    return pieces


def _root_sums(parts: Sequence[Any], w: Array | None) -> Sums:
    """The sums in root form of rows that are in memory."""
    xp = namespace(*(p for p in parts if is_array(p)))
    Z = xp.concat([float64(p) for p in parts], axis=1)
    if w is not None and not bool(xp.any(w > 0)):
        Z, w = Z[:0, :], None
    m = Z.shape[0]
    n = float(m) if w is None else float(xp.sum(w))

    def average(a: Array) -> Array:
        if n == 0:
            return xp.zeros((a.shape[1],), dtype=xp.float64, device=device_of(a))
        return xp.mean(a, axis=0) if w is None else xp.matmul(w, a) / n

    mean = average(Z)
    _check_finite(mean)
    Z = Z - mean
    # The rounding of the mean is taken off too: what is left is centred to the last digit.
    rest = average(Z)
    Z, mean = Z - rest, mean + rest
    _check_finite(xp.sum(Z * Z, axis=0))
    third, fourth = [], []
    for lo, hi in itertools.pairwise(np.cumsum([0, *(int(p.shape[1]) for p in parts)]).tolist()):
        z = Z[:, lo:hi]
        norms = xp.sum(z * z, axis=1)
        heavy = norms if w is None else w * norms
        third.append(xp.matmul(heavy, z))
        fourth.append(xp.sum(heavy * norms))
    roots = xp.ones((m,), dtype=xp.float64, device=device_of(Z)) if w is None else xp.sqrt(w)
    R = thin(_less_one_row(Z * roots[:, None], roots))
    return Sums(n, mean, R, xp.concat(third), xp.stack(fourth), int(parts[0].shape[0]))


def _less_one_row(Z: Array, roots: Array) -> Array:
    """A root of centred rows with one row less.

    The weighted rows add up to zero, so a Householder reflection that takes the vector of
    root weights to the first axis leaves nothing in the first row. Merges of single rows
    would otherwise grow a row each.
    """
    xp = namespace(Z)
    m, d = Z.shape
    if m == 0 or m > d:
        return Z  # the QR factorisation is to come
    norm = float(xp.sqrt(xp.sum(roots * roots)))
    v = roots / norm
    first = xp.concat([v[:1] + 1.0, v[1:]])  # both terms positive: nothing cancels
    scale = 2.0 / float(xp.sum(first * first))
    return (Z - first[:, None] * (scale * xp.matmul(first, Z))[None, :])[1:, :]


def thin(R: Array) -> Array:
    """A root with no more rows than columns: R itself, or the R of its QR factorisation."""
    return qr_r(R) if R.shape[0] > R.shape[1] else R


def gathered(source: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Batches put together until a product of them is worth its overhead."""
    held: list[dict[str, Any]] = []
    rows = 0
    for named in source:
        first = next(iter(named.values()))
        held.append(named)
        rows += first.shape[0]
        if rows >= GATHER_ROWS:
            yield _joined(held)
            held, rows = [], 0
    if held:
        yield _joined(held)


def _joined(held: list[dict[str, Any]]) -> dict[str, Any]:
    if len(held) == 1:
        return held[0]
    joined = {}
    for name in held[0]:
        parts = [batch[name] for batch in held]
        parts = [p.toarray() if hasattr(p, "toarray") else p for p in parts]
        parts = [np.asarray(p) if is_lazy(p) else p for p in parts]
        joined[name] = namespace(*parts).concat(parts, axis=0)
    return joined
