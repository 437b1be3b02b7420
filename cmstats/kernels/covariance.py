"""Scatter matrices: centre, cast and sum in one sweep of a tile, then one symmetric product.

The rule of accuracy is: subtract a provisional mean, multiply tiles in the working
precision, add into float64. The rule of speed is: a tile that was centred is still in the
cache when BLAS multiplies it. An `Accumulator` follows both over rows in sequence; several
run side by side on Python threads and are merged by `Accumulator.finish`.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import array_api_compat
import numba
import numpy as np
import scipy.sparse
from numba.extending import get_cython_function_address

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
)
from cmstats.kernels.threads import cores, run_tasks
from cmstats.kernels.transfer import within_memory

__all__ = [
    "Accumulator",
    "Sums",
    "accumulate",
    "accumulator_count",
    "even_slices",
    "provisional_centre",
    "scatter",
]

FLUSH_ROWS = 8192
"""float32 products are added into float64 at least every so many rows."""

Precision: TypeAlias = Literal["highest", "high"]


@dataclass(frozen=True)
class Sums:
    """What a pass over rows leaves behind, about the mean of the rows.

    Attributes
    ----------
    n : float
        Sum of the weights.
    mean : array of shape (d,)
    factor : array of shape (d, d), or of shape (m, d)
        The scatter, sum of w (x - mean)(x - mean)'; in the root form R with R'R = scatter.
    third : array of shape (d,) or None
        Per block b of columns, the sum of w ||x_b - mean_b||^2 (x_b - mean_b).
    fourth : array of shape (n_blocks,) or None
        Per block, the sum of w ||x_b - mean_b||^4.
    rows : int
        The number of rows.
    """

    n: float
    mean: Array
    factor: Array
    third: Array | None
    fourth: Array | None
    rows: int


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
    return sums.n, sums.mean, sums.factor


def accumulate(
    blocks: Sequence[Array], weights: Array | None = None, precision: Precision = "highest"
) -> Sums:
    """The sums of rows that are all in memory, by accumulators side by side."""
    n = blocks[0].shape[0]
    start = provisional_centre(blocks)
    work = n * sum(b.shape[1] for b in blocks)
    parts = [Accumulator(blocks, *start, precision) for _ in range(accumulator_count(blocks, work))]
    run_tasks(
        [
            functools.partial(part.add, blocks, weights, rows)
            for part, rows in zip(parts, even_slices(n, len(parts)), strict=True)
        ]
    )
    return Accumulator.finish(parts)


def even_slices(n: int, parts: int) -> list[slice]:
    """`parts` slices that cut ``range(n)`` into runs whose lengths differ by one at most."""
    bounds = [n * i // max(1, parts) for i in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(bounds)]


def provisional_centre(blocks: Sequence[Array], rows: Array | None = None) -> tuple[Array, bool]:
    """A provisional mean, and whether the spread asks for double precision.

    Parameters
    ----------
    blocks : sequence of arrays of shape (n, p_b)
    rows : int array, optional
        The rows that count; all without.

    Returns
    -------
    centre : array of shape (d,), float64
        The mean of evenly spaced rows, near enough to the mean to centre about. They reach
        to the last row: data sorted by a drifting quantity must not fool it.
    double : bool
        Whether squares would leave the range of single precision.
    """
    xp = namespace(*(b for b in blocks if is_array(b)))
    n = blocks[0].shape[0] if rows is None else rows.shape[0]
    step = slice(None, None, max(1, n // 512))
    means, sizes = [], []
    for b in blocks:
        sample = take_rows(b, step if rows is None else rows[step])
        sample = _dense(sample) if is_numpy(xp) else sample
        sample = xp.astype(sample, xp.float64)
        means.append(xp.mean(sample, axis=0))
        sizes.append(xp.sqrt(xp.mean((sample - means[-1]) ** 2, axis=0)))
    centre, size = xp.concat(means), xp.concat(sizes)
    centre = xp.where(xp.isfinite(centre), centre, xp.zeros_like(centre))
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
    """

    def __init__(
        self,
        blocks: Sequence[Array],
        centre: Array,
        double: bool = False,
        precision: Precision = "highest",
    ) -> None:
        self.widths = [int(b.shape[1]) for b in blocks]
        self.offsets = list(np.cumsum([0, *self.widths]))
        self.xp = xp = namespace(centre)
        double = double or (is_numpy(xp) and any(_tile_dtype(b) == np.float64 for b in blocks))
        d = self.offsets[-1]
        self.centre = centre
        self.n = 0.0
        self.rows = 0
        device = device_of(centre)
        self.dtype: Any
        if is_numpy(xp):
            self.dtype = np.dtype(np.float64 if double else np.float32)
            rows = int(np.clip((8 << 20) // (8 * d), 256, 1024))
            self._tile = np.empty((rows, d), self.dtype)
            self._local_centre = centre.astype(self.dtype)
            # A centre rounded to the working precision is the centre from here on.
            self.centre = self._local_centre.astype(np.float64)
            self._partial = np.zeros((d, d), self.dtype, order="F")
            self._partial_rows = 0
            self._double: np.ndarray[Any, Any] | None = None
        else:
            dtypes = [result_dtype(b) for b in blocks]
            self.dtype = xp.float64 if double or xp.float64 in dtypes else xp.float32
            self._on_cuda = array_api_compat.is_cupy_namespace(xp)
            half = self._on_cuda and self.dtype == xp.float32
            half = half and all(b.dtype == xp.float16 for b in blocks)
            rounded = xp.astype(centre, xp.float16) if half else centre
            self._local_centre = xp.astype(rounded, self.dtype)
            self.centre = xp.astype(self._local_centre, xp.float64)
            split = "tf32" if precision == "high" and self.dtype == xp.float32 else None
            self._split = "half" if half else split
            self._tiles: Any = None
        self.first = xp.zeros((d,), dtype=xp.float64, device=device)
        self.third = xp.zeros((d,), dtype=xp.float64, device=device)
        self.fourth = xp.zeros((len(blocks),), dtype=xp.float64, device=device)
        self._second: Array | None = None

    def add(
        self,
        blocks: Sequence[Array],
        weights: Array | None = None,
        rows: slice | Array | None = None,
    ) -> None:
        """Add the rows of `blocks` named by `rows` (a slice or integer positions)."""
        if is_numpy(self.xp):
            self._add_numpy(blocks, weights, rows)
        elif self._on_cuda:
            self._add_cuda(blocks, weights, rows)
        else:
            self._add_namespace(blocks, weights, rows)

    # NumPy: the Numba kernel fills a tile, BLAS adds its product in place.
    def _add_numpy(
        self, blocks: Sequence[Array], weights: Array | None, rows: slice | Array | None
    ) -> None:
        syrk = _syrk(self.dtype)
        height = self._tile.shape[0]
        for take in _tiles(rows, blocks[0].shape[0], height):
            w = None if weights is None else np.asarray(weights[take], np.float64)
            roots = np.empty(0) if w is None else np.sqrt(w)
            m = 0
            for i, block in enumerate(blocks):
                x = _dense(block[take])
                m = x.shape[0]
                lo, hi = self.offsets[i], self.offsets[i + 1]
                self.fourth[i] += _centre_tile(
                    x,
                    self._local_centre[lo:hi],
                    roots,
                    self._tile[:m, lo:hi],
                    self.first[lo:hi],
                    self.third[lo:hi],
                )
            self.rows += m
            self.n += m if w is None else float(w.sum())
            syrk(self._tile[:m], self._partial)
            self._partial_rows += m
            if self.dtype != np.float64 and self._partial_rows >= FLUSH_ROWS:
                self._flush()

    def _flush(self) -> None:
        """Add the float32 products so far into float64."""
        if self._double is None:
            self._double = np.zeros(self._partial.shape, np.float64, order="F")
        self._double += self._partial
        self._partial[...] = 0
        self._partial_rows = 0

    def upper(self) -> np.ndarray[Any, Any]:
        """The second moments about the centre in the upper triangle, float64."""
        if self.dtype == np.float64:
            return self._partial
        self._flush()
        assert self._double is not None
        return self._double

    # Any namespace: the same arithmetic in library calls.
    def _add_namespace(
        self, blocks: Sequence[Array], weights: Array | None, rows: slice | Array | None
    ) -> None:
        xp = self.xp
        for take in _tiles(rows, blocks[0].shape[0], 1024):
            w = None if weights is None else xp.astype(take_rows(weights, take), xp.float64)
            centred = []
            for i, block in enumerate(blocks):
                lo, hi = self.offsets[i], self.offsets[i + 1]
                x = xp.astype(take_rows(block, take), self.dtype) - self._local_centre[lo:hi]
                norms = xp.sum(xp.astype(x, xp.float64) ** 2, axis=1)
                heavy = norms if w is None else norms * w
                self.fourth[i] += xp.sum(heavy * norms)
                wide = xp.astype(x, xp.float64)
                self.third[lo:hi] += heavy @ wide
                self.first[lo:hi] += xp.sum(wide, axis=0) if w is None else w @ wide
                centred.append(x if w is None else x * xp.astype(xp.sqrt(w), self.dtype)[:, None])
            z = xp.concat(centred, axis=1)
            self.rows += z.shape[0]
            self.n += z.shape[0] if w is None else float(xp.sum(w))
            product = xp.astype(z.mT @ z, xp.float64)
            self._second = product if self._second is None else self._second + product

    # CuPy: a CUDA kernel fills a tile, cuBLAS multiplies it.
    def _add_cuda(
        self, blocks: Sequence[Array], weights: Array | None, rows: slice | Array | None
    ) -> None:
        from cmstats.kernels._cuda import covariance as cuda

        xp = self.xp
        if self._tiles is None:
            # The root of a weight could take float16 out of its range; float32 holds it.
            split = None if weights is not None and self._split == "half" else self._split
            d = self.offsets[-1]
            self._tiles = within_memory(
                lambda: cuda.Tiles(d, self.dtype, split), f"a tile of rows of {d} columns", 8 * d
            )
        sums = self.first, self.third, self.fourth
        for take in _tiles(rows, blocks[0].shape[0], self._tiles.rows):
            w = None if weights is None else xp.astype(take_rows(weights, take), xp.float64)
            parts = [take_rows(b, take) for b in blocks]
            roots = xp.empty((0,), dtype=self.dtype) if w is None else xp.sqrt(w)
            self._tiles.add(parts, roots, self._local_centre, sums)
            self.rows += parts[0].shape[0]
            self.n += parts[0].shape[0] if w is None else float(xp.sum(w))
        self._second = self._tiles

    @staticmethod
    def finish(parts: Sequence[Accumulator]) -> Sums:
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
        # about the mean = about the centre, moved by the mean's distance from it
        root = shift * n**0.5
        if is_numpy(xp):
            for take in row_slices(second.shape[0], 256):  # no second matrix of its size
                second[take] -= root[take, None] * root[None, :]
            # what rounding left below zero on the diagonal of a constant column
            np.fill_diagonal(second, np.maximum(np.diagonal(second), 0.0))
        else:
            second = second - root[:, None] * root[None, :]
            second = 0.5 * (second + second.mT)
            below = xp.clip(xp.linalg.diagonal(second), None, 0.0)
            if bool(xp.any(below < 0)):
                eye = xp.eye(below.shape[0], dtype=xp.float64, device=device_of(second))
                second = second - below[:, None] * eye
        rows = sum(part.rows for part in parts)
        mean = head.centre + shift
        return Sums(float(n), mean, second, xp.concat(thirds), xp.stack(fourths), rows)


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
    """The second moments of all accumulators about their centre, exactly symmetric."""
    head = parts[0]
    if not is_numpy(head.xp):
        d = head.offsets[-1]
        zero = head.xp.zeros((d, d), dtype=head.xp.float64, device=device_of(head.centre))
        found = [part._second for part in parts if part._second is not None]
        return sum((m if is_array(m) else m.matrix() for m in found), zero)
    total: np.ndarray[Any, Any] = head.upper()
    for part in parts[1:]:
        total += part.upper()
    _mirror_upper(total)
    return np.ascontiguousarray(total.T)  # symmetric: the transpose only names the order


def _tile_dtype(block: Any) -> np.dtype[Any]:
    """The dtype the Numba kernel works in for this block."""
    dtype = np.dtype(block.dtype)
    return np.dtype(np.float32 if dtype.kind in "fV" and dtype.itemsize <= 4 else np.float64)


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
    return np.ascontiguousarray(x, dtype=_tile_dtype(x))


# Reassociation lets the row norm vectorise; NaN and infinity keep their meaning.
@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _centre_tile(
    x: Any, centre: Any, roots: Any, out: Any, first: Any, third: Any
) -> float:  # pragma: no cover - compiled
    """``out = sqrt(w) (x - centre)`` with the sums of w y, w ||y||^2 y; returns sum w ||y||^4.

    Four rows share one sweep over the sums: one row at a time is three times slower.
    """
    n, p = x.shape
    fourth = 0.0
    a = np.zeros(4)  # w y = a * out
    b = np.zeros(4)  # w ||y||^2 y = b * out
    for start in range(0, n, 4):
        rows = min(4, n - start)
        for k in range(rows):
            i = start + k
            root = roots[i] if roots.size > 0 else 1.0
            norm = 0.0
            for j in range(p):
                y = x[i, j] - centre[j]
                out[i, j] = root * y
                norm += y * y
            a[k] = root
            b[k] = root * norm
            fourth += b[k] * b[k]
        if rows == 4:
            a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
            b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
            for j in range(p):
                y0 = out[start, j]
                y1 = out[start + 1, j]
                y2 = out[start + 2, j]
                y3 = out[start + 3, j]
                first[j] += a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3
                third[j] += b0 * y0 + b1 * y1 + b2 * y2 + b3 * y3
        else:
            for k in range(rows):
                for j in range(p):
                    first[j] += a[k] * out[start + k, j]
                    third[j] += b[k] * out[start + k, j]
    return fourth


@functools.cache
def _syrk(dtype: np.dtype[Any]) -> Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], None]:
    """In-place ``upper(c) += tile' tile`` that lets other Python threads run meanwhile.

    The wrappers in scipy.linalg.blas hold the interpreter lock, NumPy's product cannot add
    in place and mirrors the triangle each time: BLAS is called through its own address.
    """
    double = dtype == np.float64
    address = get_cython_function_address(
        "scipy.linalg.cython_blas", "dsyrk" if double else "ssyrk"
    )
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 10)(address)
    one = (ctypes.c_double if double else ctypes.c_float)(1.0)
    ref = ctypes.byref

    def add(tile: np.ndarray[Any, Any], c: np.ndarray[Any, Any]) -> None:
        # A C-ordered tile (k, n) is the Fortran-ordered (n, k) matrix that syrk multiplies.
        k, n = tile.shape
        size = ctypes.c_int(n)
        call(
            ref(ctypes.c_char(b"U")),
            ref(ctypes.c_char(b"N")),
            ref(size),
            ref(ctypes.c_int(k)),
            ref(one),
            tile.ctypes.data,
            ref(size),
            ref(one),
            c.ctypes.data,
            ref(size),
        )

    return add


@numba.njit(nogil=True, cache=True)
def _mirror_upper(a: Any) -> None:  # pragma: no cover - compiled
    """Copy the upper triangle of a Fortran-ordered matrix into the lower, by tiles."""
    n = a.shape[0]
    step = 64
    for jj in range(0, n, step):
        for ii in range(0, jj + step, step):
            for j in range(jj, min(jj + step, n)):
                for i in range(ii, min(ii + step, j)):
                    a[j, i] = a[i, j]


def accumulator_count(blocks: Sequence[Array], work: int) -> int:
    """One accumulator a core; one in all, with a threaded BLAS, where several fill the memory."""
    if not is_numpy(namespace(*(b for b in blocks if is_array(b)))) or work < 1 << 18:
        return 1
    d = sum(int(b.shape[1]) for b in blocks)
    parts = cores()
    return parts if parts * 16 * d * d <= 2 << 30 else 1
