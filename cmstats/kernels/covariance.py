"""Scatter matrices: a pass over a tile centres, casts and sums, a symmetric product follows.

The rule of accuracy is: subtract a provisional mean, multiply tiles in the working
precision, add into float64. The rule of speed is: a tile that was centred is still in the
cache when BLAS multiplies it. An `Accumulator` follows both over rows in sequence; several
run side by side on Python threads and are merged by `Accumulator.finish`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import array_api_compat
import numpy as np
import scipy.sparse

from cmstats.arrays import (
    Array,
    check_matrix,
    check_weights,
    device_of,
    is_array,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    take_rows,
    to_numpy,
)
from cmstats.kernels.linalg import plus_outer, symmetric_front
from cmstats.kernels.threads import cores, even_slices, run_tasks
from cmstats.kernels.transfer import within_memory

__all__ = [
    "PARALLEL",
    "SMALL",
    "Accumulator",
    "RowSums",
    "accumulate",
    "accumulator_count",
    "provisional_centre",
    "scatter",
    "spread_rows",
]

SMALL = 1 << 14
"""Up to this many entries NumPy's own calls take less time than a compiled loop over a tile."""

SURVEYED = 512
"""About so many rows set a provisional mean."""

PARALLEL = 1 << 18
"""Fewer entries than this are not worth a second thread."""

Precision: TypeAlias = Literal["highest", "high"]


class RowSums(NamedTuple):
    """Sums over rows, about their mean.

    Attributes
    ----------
    n : float
        Sum of the weights.
    mean : array of shape (d,)
    scatter : array of shape (d, d) or (d - t, d)
        The sum of w (x - mean)(x - mean)', without the rows of t last columns that are targets.
    third : array of shape (d,)
        Per block b of columns, the sum of w ||x_b - mean_b||^2 (x_b - mean_b).
    fourth : array of shape (n_blocks,)
        Per block, the sum of w ||x_b - mean_b||^4.
    rows : int
        The number of rows.
    single : bool
        Whether products were formed in single precision.
    squares : array of shape (t,) or None
        The diagonal of the scatter of targets.
    """

    n: float
    mean: Array
    scatter: Array
    third: Array
    fourth: Array
    rows: int
    single: bool = False
    squares: Array | None = None


def scatter(
    Z: Array, weights: Array | None = None, *, precision: Precision = "highest"
) -> tuple[float, Array, Array]:
    """Count, mean and centred scatter matrix of the rows of a matrix.

    Computes ``n = sum(w)``, ``mean = Z'w / n`` and ``S = (Z - mean)' diag(w) (Z - mean)`` in
    one pass with float64 accumulation.

    Parameters
    ----------
    Z : array of shape (n, d)
        Of any array library; half precision and integers are accepted.
    weights : array of shape (n,), optional
        Frequency weights, not negative.
    precision : {"highest", "high"}, default="highest"
        "high" lets CUDA tensor cores multiply float32 data in split TF32, two products of
        numbers of 11 significant bits in place of one; everywhere else, and for other dtypes,
        it is "highest".

    Returns
    -------
    count : float
    mean : array of shape (d,), float64
    scatter : array of shape (d, d), float64, exactly symmetric

    Raises
    ------
    ValueError
        If `Z` is not a matrix, is empty or holds values that are not finite, or `precision`
        is neither of the two.
    MemoryError
        If a GPU has no room for the tiles of rows and the sums.

    Notes
    -----
    Products are formed in the precision of `Z` about a provisional mean, and added into
    float64 every 8192 rows. The error of float32 data relative to the largest variance is
    about 1e-7 whatever the mean (Chan, Golub and LeVeque 1983 give the update).

    With unit roundoff u = 2^-11, a split entry H + L is off by at most u^2 of itself, and the
    product L'L that is left out by u^2 of the standard deviations: in all an error of at most
    3 u^2 = 7e-7 of the largest variance, besides that of float32 sums. Float16 data on CUDA
    are always multiplied like this, on the rows about a mean rounded to float16.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.kernels.covariance import scatter
    >>> n, mean, S = scatter(np.array([[1.0, 2.0], [3.0, 6.0]]))
    >>> n, mean, S
    (2.0, array([2., 4.]), array([[2., 4.],
           [4., 8.]]))
    """
    Z = check_matrix(Z, "Z")
    if precision not in ("highest", "high"):
        raise ValueError(f"precision must be 'highest' or 'high', got {precision!r}")
    sums = accumulate([Z], check_weights(weights, Z.shape[0], Z), precision)
    return sums.n, sums.mean, sums.scatter


def accumulate(
    blocks: Sequence[Array], weights: Array | None = None, precision: Precision = "highest"
) -> RowSums:
    """The sums of rows that are all in memory, by accumulators side by side."""
    n = blocks[0].shape[0]
    start = provisional_centre(blocks, weights=weights)
    work = n * sum(b.shape[1] for b in blocks)
    parts = [Accumulator(blocks, *start, precision) for _ in range(accumulator_count(blocks, work))]
    run_tasks(
        [
            functools.partial(part.add, blocks, weights, rows)
            for part, rows in zip(parts, even_slices(n, len(parts)), strict=True)
        ]
    )
    return Accumulator.finish(parts)


def spread_rows(n: int, weights: Array | None = None, rows: Array | None = None) -> Any:
    """About 512 rows of n, or of some, evenly spaced in number, or in weight where there are some.

    They reach to the last row: data sorted by a drifting quantity must not fool a mean of them.
    """
    count = n if rows is None else int(rows.shape[0])
    if weights is None:
        step = slice(None, None, max(1, count // SURVEYED))
        return step if rows is None else rows[step]
    total = np.cumsum(to_numpy(weights if rows is None else take_rows(weights, rows)))
    points = (np.arange(min(count, SURVEYED)) + 0.5) / min(count, SURVEYED) * total[-1]
    at = np.minimum(np.searchsorted(total, points), count - 1)
    return at if rows is None else take_rows(rows, at)


def provisional_centre(
    blocks: Sequence[Array], rows: Array | None = None, weights: Array | None = None
) -> tuple[Array, bool]:
    """A provisional mean, and whether the spread asks for double precision.

    Parameters
    ----------
    blocks : sequence of arrays of shape (n, p_b)
    rows : int array, optional
        The rows that count; all without.
    weights : array of shape (n,), optional
        Of all rows.

    Returns
    -------
    centre : array of shape (d,), float64
        The mean of rows that are evenly spaced in weight, near enough to the mean to centre
        about: a group of rows far away that hardly weighs must not draw it there.
    double : bool
        Whether all blocks are of single precision and squares would leave its range.
    """
    xp = namespace(*(b for b in blocks if is_array(b)))
    step = spread_rows(int(blocks[0].shape[0]), weights, rows)
    single = all(result_dtype(b) == xp.float32 for b in blocks)
    means, sizes = [], []
    for b in blocks:
        sample = take_rows(b, step)
        sample = _dense(sample) if is_numpy(xp) else sample
        sample = xp.astype(sample, xp.float64)
        means.append(xp.mean(sample, axis=0))
        if single:
            sizes.append(xp.sqrt(xp.mean((sample - means[-1]) ** 2, axis=0)))
    centre = xp.concat(means)
    centre = xp.where(xp.isfinite(centre), centre, xp.zeros_like(centre))
    if not single:
        return centre, False
    size = xp.concat(sizes)
    return centre, bool(xp.any((size > 1e15) | ((size > 0) & (size < 1e-15))))


class Accumulator:
    """A sequential accumulator of rows about a fixed provisional mean.

    Parameters
    ----------
    blocks : sequence of arrays of shape (., p_b)
        Examples of what will be added: namespace, device, widths and precision.
    centre : array of shape (d,), float64
        The provisional mean of all columns side by side.
    double : bool, default=False
        Multiply in double precision whatever the data.
    precision : {"highest", "high"}, default="highest"
        As in `scatter`.
    targets : int, default=0
        The number of last columns, of whole blocks, of which the squares are summed and not the
        products among them.
    """

    def __init__(
        self,
        blocks: Sequence[Array],
        centre: Array,
        double: bool = False,
        precision: Precision = "highest",
        targets: int = 0,
    ) -> None:
        self.offsets = list(np.cumsum([0, *(int(b.shape[1]) for b in blocks)]))
        self.xp = xp = namespace(centre)
        self.n = 0.0
        self.rows = 0
        d, device = self.offsets[-1], device_of(centre)
        double = double or xp.float64 in [result_dtype(b) for b in blocks]
        self.dtype = xp.float64 if double else xp.float32
        self._split: str | None = None
        if array_api_compat.is_cupy_namespace(xp) and not double:
            half = all(b.dtype == xp.float16 for b in blocks)
            self._split = "half" if half else "tf32" if precision == "high" else None
        rounded = xp.astype(centre, xp.float16) if self._split == "half" else centre
        self._local_centre = xp.astype(rounded, self.dtype)
        # A centre rounded to the working precision is the centre from here on.
        self.centre = xp.astype(self._local_centre, xp.float64)
        self.first = xp.zeros((d,), dtype=xp.float64, device=device)
        self.third = xp.zeros((d,), dtype=xp.float64, device=device)
        self.fourth = xp.zeros((len(blocks),), dtype=xp.float64, device=device)
        self.height = d - targets
        self.squares = xp.zeros((targets,), dtype=xp.float64, device=device)
        self._second: Array | None = None
        self._tiles: Any = None

    def add(
        self,
        blocks: Sequence[Array],
        weights: Array | None = None,
        rows: slice | Array | None = None,
    ) -> None:
        """Add the rows of `blocks` named by `rows` (a slice or integer positions)."""
        n = blocks[0].shape[0]
        if isinstance(rows, slice):
            n = len(range(*rows.indices(n)))
        elif rows is not None:
            n = rows.shape[0]
        cuda = array_api_compat.is_cupy_namespace(self.xp) and not self.squares.shape[0]
        if cuda or (is_numpy(self.xp) and n * self.offsets[-1] > SMALL):
            self._add_tiles(blocks, weights, rows)
        else:
            self._add_products(blocks, weights, rows)

    def _taken(
        self, blocks: Sequence[Array], weights: Array | None, rows: slice | Array | None, size: int
    ) -> Iterator[tuple[list[Array], Array | None]]:
        """Runs of at most `size` rows with their weights, counted as they go by."""
        xp = self.xp
        for take in _tiles(rows, blocks[0].shape[0], size):
            w = None if weights is None else xp.astype(take_rows(weights, take), xp.float64)
            parts = [take_rows(b, take) for b in blocks]
            if is_numpy(xp):
                parts = [_dense(part) for part in parts]
            yield parts, w
            self.rows += parts[0].shape[0]
            self.n += parts[0].shape[0] if w is None else float(xp.sum(w))

    def _add_products(
        self, blocks: Sequence[Array], weights: Array | None, rows: slice | Array | None
    ) -> None:
        """Add rows in library calls: any namespace, and little data of NumPy's."""
        xp = self.xp
        for parts, w in self._taken(blocks, weights, rows, 1024):
            centred = []
            # Overflow and NaN show in the sums, which the caller checks.
            with np.errstate(over="ignore", invalid="ignore"):
                for i, part in enumerate(parts):
                    lo, hi = self.offsets[i], self.offsets[i + 1]
                    x = xp.astype(part, self.dtype) - self._local_centre[lo:hi]
                    wide = xp.astype(x, xp.float64, copy=False)
                    norms = xp.sum(wide * wide, axis=1)
                    heavy = norms if w is None else norms * w
                    self.fourth[i] += xp.sum(heavy * norms)
                    self.third[lo:hi] += heavy @ wide
                    self.first[lo:hi] += xp.sum(wide, axis=0) if w is None else w @ wide
                    z = x if w is None else x * xp.astype(xp.sqrt(w), self.dtype)[:, None]
                    centred.append(z)
                z = xp.concat(centred, axis=1)
                left, y = z, xp.astype(z[:, self.height :], xp.float64)
                if y.shape[1]:  # the same array on both sides is half of the work otherwise
                    left = z[:, : self.height]
                    self.squares += xp.sum(y * y, axis=0)
                product = xp.astype(left.mT @ z, xp.float64, copy=False)
            self._second = product if self._second is None else self._second + product

    def _add_tiles(
        self, blocks: Sequence[Array], weights: Array | None, rows: slice | Array | None
    ) -> None:
        """Add rows by a compiled loop that fills a tile and a BLAS call that multiplies it."""
        xp = self.xp
        if self._tiles is None:
            self._tiles = self._make_tiles(weights)
        sums = [self.first, self.third, self.fourth]
        if self.squares.shape[0]:
            sums.append(self.squares)
        for parts, w in self._taken(blocks, weights, rows, self._tiles.rows):
            roots = xp.empty((0,), dtype=xp.float64) if w is None else xp.sqrt(w)
            self._tiles.add(parts, roots, self._local_centre, sums)

    def _make_tiles(self, weights: Array | None) -> Any:
        d = self.offsets[-1]
        if is_numpy(self.xp):
            from cmstats.kernels._cpu import covariance as cpu

            return cpu.Tiles(d, self.dtype, self.height)
        from cmstats.kernels._cuda import covariance as cuda

        # The root of a weight could take float16 out of its range; float32 holds it.
        split = None if weights is not None and self._split == "half" else self._split
        return within_memory(
            lambda: cuda.Tiles(d, self.dtype, split), f"a tile of rows of {d} columns", 8 * d
        )

    @staticmethod
    def finish(parts: Sequence[Accumulator]) -> RowSums:
        """The sums of all accumulators (which share one centre) about their own mean."""
        head = parts[0]
        xp = head.xp
        n = sum(part.n for part in parts)
        first = sum(part.first for part in parts[1:]) + head.first if parts[1:] else head.first
        second = _second(parts)
        third = sum(part.third for part in parts)
        fourth = sum(part.fourth for part in parts)
        shift = first / n if n > 0 else first
        thirds, fourths = [], []
        for i, (lo, hi) in enumerate(itertools.pairwise(head.offsets)):
            if hi > head.height:
                break  # of targets they cannot be moved
            square = second[lo:hi, lo:hi]
            moved = shift_norm_sums(
                n,
                -shift[lo:hi],
                first[lo:hi],
                square @ -shift[lo:hi],
                xp.sum(xp.linalg.diagonal(square)),
                third[lo:hi],
                fourth[i],
            )
            thirds.append(moved[0])
            fourths.append(moved[1])
        # Huygens: the scatter about the mean is that about the centre less n times the shift.
        root, h = shift * n**0.5, head.height
        second = plus_outer(second, -root[:h], root)
        if not is_numpy(xp) or h < root.shape[0]:  # else it is symmetric already
            second = symmetric_front(second)
        # Rounding can leave a constant column a negative variance.
        if is_numpy(xp):
            np.fill_diagonal(second, np.maximum(np.diagonal(second), 0.0))
        else:
            below = xp.clip(xp.linalg.diagonal(second[:, :h]), None, 0.0)
            if bool(xp.any(below < 0)):
                eye = xp.eye(h, root.shape[0], dtype=xp.float64, device=device_of(second))
                second = second - below[:, None] * eye
        rows = sum(part.rows for part in parts)
        mean = head.centre + shift
        single = head.dtype == xp.float32
        found = float(n), mean, second
        if h < root.shape[0]:
            squares = sum(part.squares for part in parts) - root[h:] ** 2
            no = xp.asarray([], dtype=xp.float64, device=device_of(mean))
            return RowSums(*found, no, no, rows, single, xp.clip(squares, 0.0, None))
        return RowSums(*found, xp.concat(thirds), xp.stack(fourths), rows, single)


def shift_norm_sums(
    n: float,
    by: Array,
    first: Array | float,
    second_by: Array,
    trace: Array,
    third: Array,
    fourth: Array,
) -> tuple[Array, Array]:
    """The sums of w ||z||^2 z and w ||z||^4 for z = y + by, from the sums of y.

    With ||z||^2 = a + 2 b + s, where a = ||y||^2, b = by'y and s = ||by||^2, all follows
    from the sums of w y (`first`), of w y y'by (`second_by`), of w a (`trace`), of w a y
    (`third`) and of w a^2 (`fourth`) over the columns of one block.
    """
    xp = namespace(by)
    s = xp.sum(by * by)
    b = xp.sum(first * by)
    moved = third + 2 * second_by + s * first + by * (trace + 2 * b + s * n)
    square = fourth + 4 * xp.sum(by * (second_by + third)) + s * (2 * trace + 4 * b + n * s)
    return moved, square


def _second(parts: Sequence[Accumulator]) -> Array:
    """The second moments of all accumulators about their centre."""
    found = [part._second for part in parts if part._second is not None]
    tiles = [part._tiles for part in parts if part._tiles is not None]
    if tiles:
        found.insert(0, tiles[0].matrix(*tiles[1:]))
    if not found:
        xp, d = parts[0].xp, parts[0].offsets[-1]
        return xp.zeros((parts[0].height, d), dtype=xp.float64, device=device_of(parts[0].centre))
    total = found[0]
    for matrix in found[1:]:
        total += matrix
    return total


def _tiles(rows: slice | Array | None, n: int, height: int) -> Iterator[slice | Array]:
    if rows is None or isinstance(rows, slice):
        start, stop, _ = (rows or slice(None)).indices(n)
        for tile in row_slices(stop - start, height):
            yield slice(start + tile.start, start + tile.stop)
    else:
        for tile in row_slices(rows.shape[0], height):
            yield rows[tile]


def _dense(x: Any) -> np.ndarray[Any, Any]:
    """A tile of rows as the C-contiguous float32 or float64 array the kernel reads."""
    if scipy.sparse.issparse(x):
        x = x.toarray()
    return np.ascontiguousarray(x, dtype=result_dtype(x))


def accumulator_count(blocks: Sequence[Array], work: int, targets: int = 0) -> int:
    """The number of accumulators: one for each core, or a single one for little or wide data.

    A single one uses a multithreaded BLAS, where a matrix for each core would take 2 GiB.
    """
    if not is_numpy(namespace(*(b for b in blocks if is_array(b)))) or work < PARALLEL:
        return 1
    d = sum(int(b.shape[1]) for b in blocks)
    parts = cores()
    return parts if parts * 16 * d * (d - targets) <= 2 << 30 else 1
