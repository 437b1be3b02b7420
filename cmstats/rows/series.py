"""Series: rows beside the rows that came before them, and folds of consecutive rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Literal

import numpy as np
import scipy.sparse
from sklearn.model_selection import BaseCrossValidator

from cmstats.arrays import Array, device_of, is_array, is_dask, is_numpy, namespace, needs_memory
from cmstats.rows.matrix import check_source
from cmstats.rows.names import column_names
from cmstats.rows.source import RowSource, take_in_memory, width_of

__all__ = ["BlockedKFold", "LaggedRows", "lagged"]

Edges = Literal["zero", "nan", "drop"]
HostArray = np.ndarray[Any, Any]


class LaggedRows:
    """Rows of a source beside those of other times, read a run at a time; made by `lagged`.

    Attributes
    ----------
    shape : tuple of int
        Rows, and columns times lags.
    dtype : dtype
    lags : tuple of int
    rows : int array of shape (shape[0],)
        The row of the source that each row belongs to: to take those of y.
    columns : array of str or None
        The names of the columns, ``"name@lag"``, where the source is a frame.
    """

    def __init__(
        self,
        source: RowSource,
        lags: tuple[int, ...],
        bounds: HostArray,
        edges: Edges,
        columns: HostArray | None = None,
    ) -> None:
        self._source, self.lags, self._edges, self.columns = source, lags, edges, columns
        lengths = np.diff(bounds)
        n = int(bounds[-1])
        self._first, self._end = (np.repeat(b, lengths) for b in (bounds[:-1], bounds[1:]))
        self.rows = np.arange(n)
        if edges == "drop":
            early, late = self.rows - max(lags), self.rows - min(lags)
            self.rows = self.rows[(early >= self._first) & (late < self._end)]
        self.shape = (len(self.rows), width_of(source) * len(lags))
        self.dtype: Any = source.dtype
        if edges == "nan" and isinstance(self.dtype, np.dtype) and self.dtype.kind != "f":
            self.dtype = np.dtype(np.float64)
        self.ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice | HostArray) -> Any:
        """The lagged rows of a slice or of an array of positions."""
        rows = self.rows[at]
        if not len(rows):
            return np.zeros((0, self.shape[1]), dtype=self.dtype)
        low = max(int(rows.min()) - max(*self.lags, 0), 0)
        high = min(int(rows.max()) - min(*self.lags, 0) + 1, int(self._source.shape[0]))
        needed: Any = np.arange(low, high)
        if 2 * len(rows) * len(self.lags) < high - low:  # scattered: not all rows between them
            needed = np.unique([self._other(rows, lag)[0] for lag in self.lags])
            part = take_in_memory(self._source, needed)
        else:
            part = take_in_memory(self._source, slice(low, high))
        part = part.toarray() if scipy.sparse.issparse(part) else part
        return self._beside(part, rows, needed)

    def _other(self, rows: HostArray, lag: int) -> tuple[HostArray, HostArray]:
        """The rows at a lag, and whether a row has one in its segment; if not, it stands for it."""
        other = rows - lag
        inside = (other >= self._first[rows]) & (other < self._end[rows])
        return np.where(inside, other, rows), inside

    def _beside(self, part: Array, rows: HostArray, needed: HostArray) -> Array:
        """The rows of all lags side by side, from rows in memory, whose numbers are `needed`."""
        xp, device = namespace(part), device_of(part)
        if self._edges == "nan" and not xp.isdtype(part.dtype, "real floating"):
            part = xp.astype(part, xp.float64)
        fill, p = float("nan") if self._edges == "nan" else 0, int(part.shape[1])
        run = len(needed) == needed[-1] - needed[0] + 1
        found = xp.empty((len(rows), p * len(self.lags)), dtype=part.dtype, device=device)
        for k, lag in enumerate(self.lags):
            near, inside = self._other(rows, lag)
            at = near - needed[0] if run else np.searchsorted(needed, near)
            block = xp.take(part, xp.asarray(at, device=device), axis=0)
            if not inside.all():
                block[xp.asarray(~inside, device=device)] = fill
            found[:, k * p : (k + 1) * p] = block
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> HostArray:
        """All rows in memory."""
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        n, p = self.shape
        return (
            f"LaggedRows({n} x {p}, lags {', '.join(map(str, self.lags))}, edges={self._edges!r})"
        )


def lagged(X: Any, lags: Any, segments: Any = None, *, edges: Edges = "zero") -> Any:
    """Rows of a series beside those that came before (or after), as a lazy source of rows.

    Row t of the result holds ``X[t - lag]`` for each lag: any model of it becomes its temporal
    form, a regression a temporal response function (Crosse et al. 2016), `CCA` lagged CCA. It
    never reaches across the border of a segment, and is read a run of rows at a time, so that
    memory does not grow with the lags.

    Parameters
    ----------
    X : array-like or row source of shape (n, p) or (n,)
        Rows in the order of time: an array, a frame, a memory-map, shards.
    lags : int or sequence of int
        In rows; positive lags look back, negative ones ahead. An int L is 0, 1, ..., L - 1.
    segments : array of shape (n,), optional
        The label of the film, run or session of each row. A new segment begins where the label
        changes; one series by default.
    edges : {"zero", "nan", "drop"}, default="zero"
        What stands where a segment has no such row: zeros, as in most tools for temporal
        response functions (centre X first); NaN, for models with ``missing="em"``; or the row is
        dropped, so that y has to be cut alike: ``y[found.rows]``.

    Returns
    -------
    LaggedRows of shape (n, p * n_lags)
        Lag by lag all columns: those of the first lag, then those of the second, ... It has
        ``rows`` and ``columns``. Arrays of other libraries than NumPy, which stay on their
        device, are returned as such an array.

    Raises
    ------
    ValueError
        If there is no lag, one is repeated, one is longer than every segment, or lengths differ.
    TypeError
        If a lag is no whole number.

    See Also
    --------
    BlockedKFold : Folds of consecutive rows, which a series needs.

    References
    ----------
    Crosse, M. J., Di Liberto, G. M., Bednar, A. and Lalor, E. C. (2016). The multivariate
    temporal response function (mTRF) toolbox. Frontiers in Human Neuroscience 10.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.rows import lagged
    >>> X = np.array([[1.0], [2.0], [3.0], [10.0], [20.0]])
    >>> np.asarray(lagged(X, [0, 1], segments=["a", "a", "a", "b", "b"]))
    array([[ 1.,  0.],
           [ 2.,  1.],
           [ 3.,  2.],
           [10.,  0.],
           [20., 10.]])

    A temporal response function, with folds that keep neighbours together:

    >>> from cmstats import MultitaskRegressor
    >>> from cmstats.rows import BlockedKFold
    >>> rng = np.random.default_rng(0)
    >>> sound = rng.normal(size=(2000, 1))
    >>> answer = np.convolve(sound[:, 0], [0.0, 1.0, 0.5])[:2000] + rng.normal(size=2000)
    >>> model = MultitaskRegressor(cv=BlockedKFold(5, gap=3)).fit(lagged(sound, 4), answer)
    >>> model.coef_[1:3].round(1)
    array([1. , 0.5])
    """
    if is_dask(X):
        raise needs_memory("X")
    if edges not in ("zero", "nan", "drop"):
        raise ValueError(f"edges={edges!r} is unknown: use 'zero', 'nan' or 'drop'")
    columns = column_names(X, "X")
    source = check_source(X, "X", ensure_finite="allow-nan")
    steps = _checked_lags(lags)
    bounds = segment_bounds(segments, int(source.shape[0]))
    longest = int(np.diff(bounds).max())
    too_long = [lag for lag in steps if abs(lag) >= longest]
    if too_long:
        raise ValueError(
            f"lag {too_long[0]} reaches out of every segment: the longest has {longest} rows"
        )
    if columns is not None:
        columns = np.array([f"{name}@{lag}" for lag in steps for name in columns], dtype=object)
    found = LaggedRows(source, steps, bounds, edges, columns)
    if not len(found):
        raise ValueError(
            f"no segment has rows at all lags from {min(steps)} to {max(steps)} (the longest has "
            f"{longest} rows): set edges='zero'"
        )
    return found if not is_array(source) or is_numpy(namespace(source)) else found[:]


def _checked_lags(lags: Any) -> tuple[int, ...]:
    """The lags as different whole numbers."""
    if isinstance(lags, Integral) and not isinstance(lags, bool):
        if lags < 1:
            raise ValueError(f"lags={lags} must be at least 1, or a sequence of lags")
        return tuple(range(int(lags)))
    given = list(np.atleast_1d(np.asarray(lags)).tolist()) if not isinstance(lags, str) else [lags]
    for lag in given:
        if not isinstance(lag, Integral) or isinstance(lag, bool):
            raise TypeError(f"lags must be whole numbers of rows, got {lag!r}")
    if not given or len({*given}) < len(given):
        raise ValueError(f"lags={lags!r} must be one or more different numbers of rows")
    return tuple(int(lag) for lag in given)


def segment_bounds(segments: Any, n: int) -> HostArray:
    """The first row of each segment, and n at the end."""
    if segments is None:
        return np.array([0, n])
    labels = np.asarray(segments)
    if labels.shape != (n,):
        raise ValueError(
            f"segments has shape {labels.shape}, but X has {n} rows: give one label for each row"
        )
    starts = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    return np.concatenate([[0], starts, [n]])


class BlockedKFold(BaseCrossValidator):
    """Folds of consecutive rows, with rows left out where two folds meet.

    Rows of a series resemble their neighbours, so that a held-out row beside a training row is
    no test. Each fold is one block of rows in their order; `gap` rows on both sides of a border
    between two folds are in no fold. It is a splitter for the `cv` of every estimator here, and
    of scikit-learn. An estimator here chooses on the folds and is then fitted to all rows, those
    of the gaps too; `Moments.folds`, which has the rows of folds alone, warns.

    Parameters
    ----------
    n_splits : int, default=5
    gap : int, default=0
        At least the longest lag, and the time over which rows depend on each other.
    segments : array of shape (n,), optional
        The label of the film, run or session of each row, as `lagged` takes it: a new segment
        begins where the label changes. Rows of two segments do not depend on each other, so that
        a gap ends where its segment does, and two folds that meet there have none.

    See Also
    --------
    lagged : Rows beside those of other times.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.rows import BlockedKFold
    >>> for train, test in BlockedKFold(2, gap=1).split(np.zeros((8, 1))):
    ...     print(train, test)
    [5 6 7] [0 1 2]
    [0 1 2] [5 6 7]
    >>> runs = BlockedKFold(2, gap=2, segments=list("aaaaabbb"))
    >>> for train, test in runs.split(np.zeros((8, 1))):
    ...     print(train, test)
    [5 6 7] [0 1]
    [0 1] [5 6 7]
    """

    def __init__(self, n_splits: int = 5, *, gap: int = 0, segments: Any = None) -> None:
        for name, value, least in (("n_splits", n_splits, 2), ("gap", gap, 0)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        self.n_splits, self.gap, self.segments = int(n_splits), int(gap), segments

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds."""
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[HostArray, HostArray]]:
        """Training and test rows of each fold.

        Parameters
        ----------
        X : array-like of n rows
        y, groups
            Not used.

        Yields
        ------
        train, test : int arrays

        Raises
        ------
        ValueError
            If a fold has no row, or there are not as many labels of segments as rows.
        """
        n = int(X.shape[0]) if hasattr(X, "shape") else len(X)
        tests = self._blocks(n)
        for k, test in enumerate(tests):
            yield np.concatenate([*tests[:k], *tests[k + 1 :]]), test

    def among(self, rows: HostArray, n: int) -> BlockedKFold:
        """The splitter of some of n rows, as if there were no others."""
        lengths = np.diff(segment_bounds(self.segments, n))
        numbers = np.repeat(np.arange(len(lengths)), lengths)
        return BlockedKFold(self.n_splits, gap=self.gap, segments=numbers[rows])

    def _blocks(self, n: int) -> Sequence[HostArray]:
        borders = np.linspace(0, n, self.n_splits + 1).round().astype(int)
        starts = segment_bounds(self.segments, n)
        found = []
        for first, last in itertools.pairwise(borders):
            # Rows nearer than the gap to a border inside of a segment are left out.
            low = first + self.gap * (first not in starts)
            high = last - self.gap * (last not in starts)
            low = min(low, starts[starts > first].min(initial=n))
            high = max(high, starts[starts < last].max(initial=0))
            found.append(np.arange(low, high))
        if not all(len(block) for block in found):
            raise ValueError(
                f"{self.n_splits} folds of {n} rows with a gap of {self.gap} leave a fold without "
                "rows: use fewer folds or a smaller gap"
            )
        return found

    def __repr__(self) -> str:
        runs = "" if self.segments is None else ", segments=..."
        return f"BlockedKFold({self.n_splits}, gap={self.gap}{runs})"
