"""Centred second moments of columns in two representations, `Scatter` and `Root`.

`Scatter` holds the d x d scatter matrix S. `Root` holds a triangular factor R with R'R = S and at
most min(n, d) rows: it keeps the condition number of the data instead of its square, and stays
n x d when d > n. Both answer the same questions, so that no caller has to know which it holds.
Columns are named by slices (contiguous blocks) or by integer positions on the host.

A regression needs no products among its targets. Where the last columns are targets, `Scatter` has
no rows for them, and holds the diagonal of what is left out.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from cmstats.arrays import (
    Array,
    device_of,
    float64,
    is_array,
    is_numpy,
    namespace,
    observations,
    to_numpy,
)
from cmstats.kernels import whitening
from cmstats.kernels.covariance import RowSums, shift_norm_sums
from cmstats.kernels.linalg import leading_eigh, plus_outer, qr_r, svd, symmetric_front
from cmstats.kernels.tridiagonal import SINGLE_FROM, Reduced, Tridiagonal

__all__ = ["FORMS", "FewRows", "Form", "LeastSquares", "NonFiniteError", "Norms", "Root"]
__all__ += [
    "Scatter",
    "Spectrum",
    "Sums",
    "are_few",
    "check_finite",
    "degrees_of_freedom",
]

Form: TypeAlias = Literal["scatter", "double", "root"]
"""How rows are collected: "double" is the scatter of products in double precision."""


Part = tuple[np.ndarray[Any, Any], Array | None]
"""Numbers of columns, and a basis that they are multiplied by, or None for these as they are."""


class NonFiniteError(Exception):
    """Sums are NaN or infinite: the rows hold values that are not finite, or overflow."""


def check_finite(*arrays: Array) -> None:
    """Raise `NonFiniteError` if an array holds NaN or infinity."""
    for a in arrays:
        xp = namespace(a)
        if not bool(xp.isfinite(xp.sum(a))):
            raise NonFiniteError


def degrees_of_freedom(n: float, rows: int, ddof: float) -> float:
    """The divisor of a covariance: n less `ddof`, in units of the weight of an observation."""
    count = observations(n, rows)
    return n / count * (count - ddof) if count else n - ddof


NOISE = 16.0
"""A direction counts as rounding error up to this multiple of the variance of its errors."""

DOUBLE, SINGLE = 1e-16, 4e-8
"""The relative error of a sum of products in double and in single precision."""

PRECISION = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The unit roundoff of rows by the name of their type."""


def rounding_noise(parts: Sequence[Any], mean: Array, variance: Array) -> Array | None:
    """The variance of the rounding errors in the columns of rows; None in double precision."""
    units = [PRECISION.get(str(p.dtype).rpartition(".")[2], 0.0) for p in parts]
    if not any(units):
        return None
    # Within a binade an error is uniform: its standard deviation is about a half of the unit.
    half = np.repeat(np.square(units) / 4, [1 if p.ndim == 1 else int(p.shape[1]) for p in parts])
    xp = namespace(mean)
    return xp.asarray(half, device=device_of(mean)) * (mean * mean + variance)


NO_PRODUCTS = (
    "these moments hold only the variances of the block that diagonal= names, and not the products "
    "among its columns: collect them without diagonal"
)


@dataclass(frozen=True)
class Norms:
    """Third and fourth moments of the norm of each block's rows, about the mean.

    Ledoit and Wolf's (2004) shrinkage needs the fourth; the third is needed to move the point
    that both are taken about when two groups of rows are merged.

    Attributes
    ----------
    widths : tuple of int
        The number of columns of each block.
    third : array of shape (d,)
        Per block b of columns, the sum of w ||x_b - mean_b||^2 (x_b - mean_b).
    fourth : array of shape (n_blocks,)
        Per block, the sum of w ||x_b - mean_b||^4.
    """

    widths: tuple[int, ...]
    third: Array
    fourth: Array

    def __add__(self, other: Norms) -> Norms:
        """The norms of both groups of rows, which must be about the same point."""
        return replace(self, third=self.third + other.third, fourth=self.fourth + other.fourth)

    def cuts(self) -> list[slice]:
        """The columns of each block."""
        ends = itertools.accumulate(self.widths, initial=0)
        return list(itertools.starmap(slice, itertools.pairwise(ends)))

    def take(self, blocks: Sequence[int]) -> Norms:
        """The norms of some of the blocks."""
        xp, cuts = namespace(self.third), self.cuts()
        return Norms(
            tuple(self.widths[i] for i in blocks),
            xp.concat([self.third[cuts[i]] for i in blocks]),
            xp.stack([self.fourth[i] for i in blocks]),
        )


class Spectrum(NamedTuple):
    """S_aa = V diag(l) V' and V'S_ab of two blocks a and b.

    Attributes
    ----------
    values : array of shape (r,)
        l, ascending in the scatter form and descending in the root form.
    vectors : array of shape (p, r)
        V.
    cross : array of shape (r, q)
        V'S_ab.
    smallest : float
        The least of the p eigenvalues, columns that do not vary excepted.
    cut : float
        Eigenvalues up to this are rounding errors.
    """

    values: Array
    vectors: Array
    cross: Array
    smallest: float
    cut: float


@dataclass(frozen=True)
class Sums(ABC):
    """Count, mean and centred second moments of rows: what `Scatter` and `Root` have in common.

    Attributes
    ----------
    n : float
        The sum of the weights.
    mean : array of shape (d,)
    matrix : array of shape (d, d), (d - t, d) or (m, d)
        The scatter matrix, the sum of w (x - mean)(x - mean)', without the rows of targets; or a
        triangular factor of it.
    rows : int
        The number of rows.
    norms : Norms or None
        None where they are not known, as after a regression.
    noise : array of shape (d,) or None
        The variance of the errors in each column: of rounding where rows are not in double
        precision, of cancellation after a regression. None where there is only that of the mean.
    roundoff : float
        The relative error of a second moment: of sums of products in single precision that of
        these.
    targets : int
        The number t of last columns that are targets of regressions.
    diagonal : array of shape (t,) or None
        The diagonal of the scatter of the targets, where the matrix has no rows for them.
    """

    n: float
    mean: Array
    matrix: Array
    rows: int
    norms: Norms | None = None
    noise: Array | None = None
    roundoff: float = DOUBLE
    targets: int = 0
    diagonal: Array | None = None

    form: ClassVar[Form]

    def __add__(self, other: Any) -> Self:
        """The sums of both groups of rows (Chan, Golub and LeVeque 1983)."""
        rows = self.rows + other.rows
        if self.n == 0 or other.n == 0:
            return replace(other if self.n == 0 else self, rows=rows)
        namespace(self.mean, other.mean)  # raises where libraries or devices differ
        n = self.n + other.n
        step = (self.n * (other.n / n)) ** 0.5 * (other.mean - self.mean)
        # A weighted mean of both: moving one by a share of the distance loses digits.
        mean = (self.n / n) * self.mean + (other.n / n) * other.mean
        norms = None
        if self.norms is not None and other.norms is not None:
            # Fourth powers may leave the range, which `ledoit_wolf` says if it needs them.
            with np.errstate(over="ignore", invalid="ignore"):
                norms = self._norms_about(mean) + other._norms_about(mean)
        made = self._merged(other, step)
        noise, more = self.noise, other.noise
        if noise is not None or more is not None:
            noise, more = (0 * mean if a is None else a for a in (noise, more))
            noise = (self.n / n) * noise + (other.n / n) * more
        both = replace(self, n=n, mean=mean, rows=rows, norms=norms, **made)
        return replace(both, noise=noise, roundoff=max(self.roundoff, other.roundoff))

    @abstractmethod
    def _merged(self, other: Sums, step: Array) -> dict[str, Any]:
        """What is held of the scatter of both groups, `step` the scaled distance of their means."""

    @property
    def _others(self) -> int:
        """The number of columns that are no targets."""
        return int(self.mean.shape[0]) - self.targets

    def _held(self) -> tuple[Array, Array | None]:
        """The matrix and the diagonal of a `Scatter`."""
        front, back = slice(0, self._others), slice(self._others, int(self.mean.shape[0]))
        square = self.scatter(front, front)
        if not self.targets:
            return square, None
        S = namespace(square).concat([square, self.scatter(front, back)], axis=1)
        return S, self.squares(back)

    def _targets_among(self, columns: np.ndarray[Any, Any]) -> int:
        """How many of some columns are targets, which must be the last."""
        if not self.targets:
            return 0
        among = np.asarray(columns) >= self.mean.shape[0] - self.targets
        found = int(np.count_nonzero(among))
        if among[: len(among) - found].any():
            raise ValueError("a block of which only the variances were collected must be the last")
        return found

    def _norms_about(self, point: Array) -> Norms:
        norms = self.norms
        assert norms is not None
        xp = namespace(self.mean)
        thirds, fourths = [], []
        for i, at in enumerate(norms.cuts()):
            by = (self.mean - point)[at]
            third, fourth = shift_norm_sums(
                self.n,
                by,
                0.0,
                self.project(at, at, by),
                xp.sum(self.variance(at, ddof=0)) * self.n,
                norms.third[at],
                norms.fourth[i],
            )
            thirds.append(third)
            fourths.append(fourth)
        return replace(norms, third=xp.concat(thirds), fourth=xp.stack(fourths))

    @abstractmethod
    def scatter(self, at: slice, bt: slice) -> Array:
        """A block of the scatter matrix."""

    @abstractmethod
    def squares(self, at: slice) -> Array:
        """The diagonal of the scatter matrix."""

    @abstractmethod
    def project(self, at: slice, bt: slice, weights: Array) -> Array:
        """``scatter(at, bt) @ weights`` without forming a wide block of the scatter."""

    @abstractmethod
    def paired(self, at: slice, bt: slice) -> Array:
        """The diagonal of ``scatter(at, bt)`` of two blocks of one width."""

    @abstractmethod
    def mixed(self, at: slice, bt: slice, own: float, other: float) -> Self:
        """The sums with ``own * a + other * b`` and ``other * a + own * b`` for blocks a and b."""

    @abstractmethod
    def turned(self, at: slice, parts: Sequence[Part]) -> Self:
        """The sums in other coordinates: each part is some columns, times a basis if it has one."""

    def span(self, at: slice, columns: np.ndarray[Any, Any]) -> Array | None:
        """An orthonormal basis of how some columns vary, (m, r); None where r would not be less."""
        return None

    @abstractmethod
    def gram(self, at: slice) -> Array:
        """A matrix with the nonzero eigenvalues of ``scatter(at, at)``, the smallest at hand."""

    def freedom(self, ddof: float) -> float:
        """What the scatter is divided by for a covariance; see `degrees_of_freedom`."""
        return degrees_of_freedom(self.n, self.rows, ddof)

    def variance(self, at: slice, ddof: float = 1) -> Array:
        """The variance of each column."""
        return self.squares(at) / self.freedom(ddof)

    def constant(self, at: slice) -> Array:
        """Which columns do not vary beyond the errors in them: those of their mean at least."""
        errors = (8 * whitening.EPS * self.mean[at]) ** 2
        if self.noise is not None:
            errors = errors + NOISE * self.noise[at]
        return self.variance(at, ddof=0) <= errors

    @abstractmethod
    def limit(self, d: int) -> float:
        """The largest condition number of d columns whose directions the second moments resolve."""

    def varying(self, at: slice) -> Array:
        """1 for a column that varies, 0 for a constant one, float64."""
        return namespace(self.mean).astype(~self.constant(at), namespace(self.mean).float64)

    @abstractmethod
    def whiten(
        self, at: slice, *, keep: float = 1.0, ridge: float | Array = 0.0, ddof: float = 1
    ) -> whitening.Factor:
        """Whiten ``keep * C + ridge * I`` with C the covariance; constant columns get weight 0.

        Parameters
        ----------
        at : slice
        keep, ridge : float
            The coefficients; `ridge` may be an array of one number for each column.
        ddof : float, default=1
            Of the covariance.
        """

    @abstractmethod
    def whiten_leading(self, at: slice, share: float) -> whitening.Factor:
        """Whiten the leading principal components that hold a share of the variance (ddof=1)."""

    @abstractmethod
    def against(self, at: slice, bt: slice, factor: whitening.Factor, ddof: float = 1) -> Array:
        """``C_ab W_b`` with the covariance C and the whitening weights W_b of the columns b."""

    @abstractmethod
    def spectrum(self, at: slice, bt: slice, unit: Array | None = None) -> Spectrum:
        """The eigenvalues of ``scatter(at, at)``, and ``scatter(at, bt)`` in its eigenvectors.

        With `unit` those of the columns `at` times these factors.
        """

    def cholesky(self, at: slice, bt: slice, ridge: float) -> tuple[whitening.Factor, Array] | None:
        """W with ``W' (S_aa + ridge I) W = I``, and ``W'S_ab``, by Cholesky.

        None where the spectrum has to decide what the rank is, and in the root form, which the
        spectrum keeps accurate.
        """
        return None

    @abstractmethod
    def principal(self, at: slice, k: int) -> tuple[Array, Array]:
        """The k largest eigenvalues of the covariance (ddof=0) that are not 0, and vectors."""

    @abstractmethod
    def reduced(self, at: slice) -> Reduced:
        """The second moments of a block, for shifted systems; of large ones in single precision.

        What is then lost of an eigenvalue is less than 1e-6 of the largest, far below a shrinkage.
        """

    @abstractmethod
    def least_squares(self, at: slice, bt: slice, basis: Array | None = None) -> LeastSquares:
        """The regression of the columns b on the columns a, these in coordinates of a basis."""

    @abstractmethod
    def take(self, columns: np.ndarray[Any, Any]) -> Self:
        """The sums of some columns, without norms."""

    @abstractmethod
    def scaled(self, unit: Array) -> Self:
        """The sums of the centred columns times these units: the mean is zero, norms unknown."""

    @abstractmethod
    def about_origin(self) -> Self:
        """Second moments about the origin in place of the mean, without norms."""

    @abstractmethod
    def partial_out(self, cut: slice, rest: np.ndarray[Any, Any]) -> tuple[Self, Array, Array]:
        """The sums of the columns `rest` after regression on the columns `cut`, and that.

        The scatter is the Schur complement S_ab - S_az S_zz^+ S_zb; the mean stays. The
        coefficients are ``W @ half``, with W'S_zz W = I and half = W'S_zb.
        """

    def cancelled_in(self, rest: Sums) -> np.ndarray[Any, Any]:
        """The columns of `rest` that kept at most half of their digits in a regression."""
        every = slice(0, int(self.mean.shape[0]))
        before, after = (to_numpy(s.squares(every)) for s in (self, rest))
        least = self.roundoff**0.5 if self.form == "scatter" else 0.0
        return np.flatnonzero((after < least * before) & ~to_numpy(self.constant(every)))

    @abstractmethod
    def rotated(self, cuts: Sequence[slice]) -> tuple[Self, tuple[int, ...]]:
        """The same blocks in rotated coordinates, and their widths.

        In the root form a block of more columns than the factor has rows m is turned to m
        columns by an orthogonal matrix of its own; all other blocks stay as they are.
        """

    def reweighted(self, factor: float) -> Self:
        """The sums of the same rows with all weights times a factor.

        Raises
        ------
        ValueError
            If the second moments leave the range of double precision.
        """
        if factor == 1:
            return self
        norms = self.norms
        with np.errstate(over="ignore"):
            if norms is not None:
                norms = replace(norms, third=norms.third * factor, fourth=norms.fourth * factor)
            made = self._reweighted(factor)
            found = replace(self, n=self.n * factor, norms=norms, **made)
            squares = found.squares(slice(0, int(self.mean.shape[0])))
        try:
            check_finite(squares)
        except NonFiniteError:
            raise ValueError(
                "sums of weights times squares of values overflow: divide the weights, or the "
                "values, by a constant"
            ) from None
        return found

    @abstractmethod
    def _reweighted(self, factor: float) -> dict[str, Any]:
        """What is held of the scatter of the rows with all weights times a factor."""

    def without_products(self, targets: int) -> Self:
        """The same sums without the products among so many last columns, and without norms."""
        return replace(self, targets=targets, norms=None) if targets != self.targets else self

    def without_norms(self) -> Self:
        """The same sums without norms."""
        return self if self.norms is None else replace(self, norms=None)

    def on(self, like: Array) -> Self:
        """The same sums in the library and on the device of another array."""
        xp, device = namespace(like), device_of(like)
        if is_numpy(xp):
            return self

        def put(a: Array) -> Array:
            return xp.asarray(a, device=device)

        norms = self.norms
        if norms is not None:
            norms = replace(norms, third=put(norms.third), fourth=put(norms.fourth))
        held: dict[str, Any] = {}
        for name in ("mean", "matrix", "noise", "diagonal"):
            a = getattr(self, name)
            held[name] = None if a is None else put(a)
        return replace(self, norms=norms, **held)

    def _taken_noise(self, at: Array) -> Array | None:
        return None if self.noise is None else namespace(self.mean).take(self.noise, at)

    def _scaled_noise(self, unit: Array) -> Array | None:
        return None if self.noise is None else self.noise * unit**2

    @classmethod
    @abstractmethod
    def _height(cls, d: int) -> int:
        """The number of rows of the matrix of d columns where there is no row of data."""

    @classmethod
    def empty(cls, like: Array, widths: Sequence[int], targets: int = 0) -> Self:
        """The sums of no row, in the library and on the device of another array."""
        xp, device, d = namespace(like), device_of(like), sum(widths)

        def zeros(*shape: int) -> Array:
            return xp.zeros(shape, dtype=xp.float64, device=device)

        norms = Norms(tuple(widths), zeros(d), zeros(len(widths)))
        empty = cls(0.0, zeros(d), zeros(cls._height(d), d), 0, norms)
        return empty.without_products(targets)


@dataclass(frozen=True)
class Scatter(Sums):
    """The d x d scatter matrix, or its rows of the columns that are no targets."""

    form: ClassVar[Form] = "scatter"

    @classmethod
    def of(cls, found: RowSums, widths: Sequence[int] | None = None) -> Scatter:
        """What a pass over rows found, with the norms of blocks of these widths."""
        norms = None
        if widths is not None and found.squares is None:
            norms = Norms(tuple(widths), found.third, found.fourth)
        targets = 0 if found.squares is None else int(found.squares.shape[0])
        errors = None, SINGLE if found.single else DOUBLE
        at = found.n, found.mean, found.scatter, found.rows, norms
        return cls(*at, *errors, targets, found.squares)

    def limit(self, d: int) -> float:
        # At the limit about eight digits of a result are right, or four in single precision; the
        # condition number of many columns is estimated too large.
        return 1e4 if self.roundoff == DOUBLE else max(64.0, 25.0 * d**0.5)

    def _merged(self, other: Sums, step: Array) -> dict[str, Any]:
        h, (S, diagonal) = self._others, other._held()
        if diagonal is not None:
            diagonal = self.diagonal + diagonal + step[h:] ** 2
        return {"matrix": plus_outer(self.matrix + S, step[:h], step), "diagonal": diagonal}

    def _held(self) -> tuple[Array, Array | None]:
        return self.matrix, self.diagonal

    def without_products(self, targets: int) -> Scatter:
        found = super().without_products(targets)
        if found is self:
            return self
        h = found._others
        diagonal = namespace(self.matrix).linalg.diagonal(self.matrix)[h:]
        return replace(found, matrix=self.matrix[:h, :], diagonal=diagonal)

    def _reweighted(self, factor: float) -> dict[str, Any]:
        diagonal = self.diagonal
        diagonal = None if diagonal is None else diagonal * factor
        return {"matrix": self.matrix * factor, "diagonal": diagonal}

    def scatter(self, at: slice, bt: slice) -> Array:
        if at.stop <= self._others:
            return self.matrix[at, bt]
        if bt.stop <= self._others:
            return self.matrix[bt, at].mT
        raise ValueError(NO_PRODUCTS)

    def squares(self, at: slice) -> Array:
        xp, h = namespace(self.matrix), self._others
        front = slice(min(at.start, h), min(at.stop, h))
        found = xp.linalg.diagonal(self.matrix[front, front])
        if self.diagonal is None or at.stop <= h:
            return found
        return xp.concat([found, self.diagonal[max(0, at.start - h) : at.stop - h]])

    def project(self, at: slice, bt: slice, weights: Array) -> Array:
        return self.scatter(at, bt) @ weights

    def paired(self, at: slice, bt: slice) -> Array:
        return namespace(self.matrix).linalg.diagonal(self.scatter(at, bt))

    def mixed(self, at: slice, bt: slice, own: float, other: float) -> Scatter:
        half = _mixed_columns(self._whole(), at, bt, own, other)
        matrix = _mixed_columns(half.mT, at, bt, own, other)
        mean = _mixed_columns(self.mean[None, :], at, bt, own, other)[0, :]
        matrix = 0.5 * (matrix + matrix.mT)
        return replace(self, mean=mean, matrix=matrix, norms=None, noise=None)

    def _whole(self) -> Array:
        """All of the matrix."""
        every = slice(0, int(self.mean.shape[0]))
        return self.scatter(every, every)

    def turned(self, at: slice, parts: Sequence[Part]) -> Scatter:
        if at.stop > self._others:
            raise ValueError(NO_PRODUCTS)
        matrix = _turned_columns(_turned_columns(self.matrix, at, parts).mT, at, parts).mT
        mean = _turned_columns(self.mean[None, :], at, parts)[0, :]
        return replace(self, mean=mean, matrix=matrix, norms=None, noise=None)

    def gram(self, at: slice) -> Array:
        return self.scatter(at, at)

    def whiten(
        self, at: slice, *, keep: float = 1.0, ridge: float | Array = 0.0, ddof: float = 1
    ) -> whitening.Factor:
        varies = self.varying(at)
        # Columns that do not vary are rounding errors: set to 0, or they would be scaled to 1.
        C = self.scatter(at, at) / self.freedom(ddof) * varies[:, None] * varies[None, :]
        if is_array(ridge) or ridge or keep != 1:
            xp = namespace(C)
            eye = xp.eye(C.shape[0], dtype=xp.float64, device=device_of(C))
            C = keep * C + ridge * eye
        return whitening.factor(C)

    def whiten_leading(self, at: slice, share: float) -> whitening.Factor:
        xp = namespace(self.matrix)
        values, vectors = xp.linalg.eigh(self.scatter(at, at) / self.freedom(1))
        values, vectors = xp.flip(values), xp.flip(vectors, axis=1)
        k = _leading_count(values, share, values.shape[0])
        weights = vectors[:, :k] / xp.sqrt(values[:k])
        return _leading_factor(weights, values[:k])

    def against(self, at: slice, bt: slice, factor: whitening.Factor, ddof: float = 1) -> Array:
        return self.project(at, bt, factor.weights) / self.freedom(ddof)

    def spectrum(self, at: slice, bt: slice, unit: Array | None = None) -> Spectrum:
        xp, varies = namespace(self.matrix), self.varying(at)
        p, fixed = varies.shape[0], int(xp.count_nonzero(varies == 0))
        varies = varies if unit is None else varies * unit
        # Zeros, and not rounding errors, for columns that do not vary.
        values, vectors = xp.linalg.eigh(self.scatter(at, at) * varies[:, None] * varies[None, :])
        cross = vectors.mT @ (self.scatter(at, bt) * varies[:, None])
        values = xp.where(values > 0, values, 0.0)
        top, least = float(values[-1]), float(values[min(fixed, p - 1)])
        return Spectrum(values, vectors, cross, least, top * p * whitening.EPS)

    def cholesky(self, at: slice, bt: slice, ridge: float) -> tuple[whitening.Factor, Array] | None:
        varies = self.varying(at)
        xp, S = namespace(varies), self.scatter(at, at) * varies[:, None] * varies[None, :]
        eye = xp.eye(S.shape[0], dtype=xp.float64, device=device_of(S))
        factor = whitening.factor(S + ridge * eye)
        # A deficient rank is decided in the units of the data: least norm depends on them.
        if factor.method != "cholesky":
            return None
        return factor, factor.weights.mT @ (self.scatter(at, bt) * varies[:, None])

    def principal(self, at: slice, k: int) -> tuple[Array, Array]:
        s, U = leading_eigh(self.scatter(at, at) / self.n, k)
        floor = s[0] * (U.shape[0] * whitening.EPS)
        k = int(namespace(s).count_nonzero(s > floor))
        return s[:k], U[:, :k]

    def reduced(self, at: slice) -> Reduced:
        return Reduced(*Tridiagonal.of(_single(self.scatter(at, at)) / self.n))

    def least_squares(self, at: slice, bt: slice, basis: Array | None = None) -> LeastSquares:
        xx, xy = self.scatter(at, at), self.scatter(at, bt)
        if basis is not None:
            xx, xy = basis.mT @ (xx @ basis), basis.mT @ xy
        return _ScatterLeastSquares(xx, xy, self.variance(bt, ddof=0) * self.n)

    def take(self, columns: np.ndarray[Any, Any]) -> Scatter:
        xp = namespace(self.mean)
        at, targets = xp.asarray(columns, device=device_of(self.mean)), self._targets_among(columns)
        own = at[: at.shape[0] - targets]
        found: dict[str, Any] = {"mean": xp.take(self.mean, at), "noise": self._taken_noise(at)}
        found["matrix"] = xp.take(xp.take(self.matrix, own, axis=0), at, axis=1)
        found["diagonal"] = None
        if targets:
            found["diagonal"] = xp.take(self.diagonal, at[own.shape[0] :] - self._others)
        return replace(self, norms=None, targets=targets, **found)

    def scaled(self, unit: Array) -> Scatter:
        h, diagonal = self._others, self.diagonal
        matrix, noise = self.matrix * unit[None, :] * unit[:h, None], self._scaled_noise(unit)
        diagonal = None if diagonal is None else diagonal * unit[h:] ** 2
        found: dict[str, Any] = {"matrix": matrix, "diagonal": diagonal, "noise": noise}
        return replace(self, mean=0 * self.mean, norms=None, **found)

    def about_origin(self) -> Scatter:
        step, h, diagonal = self.n**0.5 * self.mean, self._others, self.diagonal
        matrix = self.matrix + step[:h, None] * step[None, :]
        diagonal = None if diagonal is None else diagonal + step[h:] ** 2
        return replace(self, mean=0 * self.mean, matrix=matrix, diagonal=diagonal, norms=None)

    def partial_out(self, cut: slice, rest: np.ndarray[Any, Any]) -> tuple[Scatter, Array, Array]:
        kept, xp = self.take(rest), namespace(self.matrix)
        at = xp.asarray(rest, device=device_of(self.matrix))
        varies = self.varying(cut)
        # The rounding errors of columns that do not vary are no nuisance variable.
        nuisance = self.scatter(cut, cut) * varies[:, None] * varies[None, :]
        weights = whitening.factor(nuisance).weights
        half = weights.mT @ xp.take(self.matrix[cut, :], at, axis=1)
        h, diagonal = kept._others, kept.diagonal
        matrix = kept.matrix - half[:, :h].mT @ half
        if diagonal is not None:
            diagonal = diagonal - xp.sum(half[:, h:] ** 2, axis=0)
        # What cancels leaves an error relative to what there was.
        lost = self.roundoff * kept.squares(slice(0, len(rest))) / self.n
        noise = lost if kept.noise is None else kept.noise + lost
        sums = replace(kept, matrix=symmetric_front(matrix), diagonal=diagonal, noise=noise)
        return sums, weights, half

    def rotated(self, cuts: Sequence[slice]) -> tuple[Scatter, tuple[int, ...]]:
        return self, tuple(cut.stop - cut.start for cut in cuts)

    @classmethod
    def _height(cls, d: int) -> int:
        return d


@dataclass(frozen=True)
class Root(Sums):
    """A factor R of the scatter matrix, R'R = S, of at most min(n, d) rows."""

    form: ClassVar[Form] = "root"

    @classmethod
    def of_rows(cls, parts: Sequence[Any], w: Array | None) -> Self:
        """The sums of blocks of rows in memory, side by side.

        Raises
        ------
        NonFiniteError
            If values are not finite.
        """
        xp = namespace(*(p for p in parts if is_array(p)))
        Z = xp.concat([float64(p) for p in parts], axis=1)
        m = Z.shape[0]
        n = float(m) if w is None else float(xp.sum(w))

        def average(a: Array) -> Array:
            return xp.mean(a, axis=0) if w is None else w @ a / n

        mean = average(Z)
        check_finite(mean)
        Z = Z - mean
        # The rounding error of the mean is subtracted too: the rest is centred to the last digit.
        rest = average(Z)
        Z, mean = Z - rest, mean + rest
        check_finite(xp.sum(Z * Z, axis=0))
        widths = tuple(int(p.shape[1]) for p in parts)
        third, fourth = [], []
        for lo, hi in itertools.pairwise(itertools.accumulate(widths, initial=0)):
            z = Z[:, lo:hi]
            squares = xp.sum(z * z, axis=1)
            heavy = squares if w is None else w * squares
            third.append(heavy @ z)
            fourth.append(xp.sum(heavy * squares))
        norms = Norms(widths, xp.concat(third), xp.stack(fourth))
        ones = xp.ones((m,), dtype=xp.float64, device=device_of(Z))
        roots = ones if w is None else xp.sqrt(w)
        R = _thin(_less_one_row(Z * roots[:, None], roots))
        noise = rounding_noise(parts, mean, xp.sum(R * R, axis=0) / n)
        return cls(n, mean, R, int(parts[0].shape[0]), norms, noise)

    def limit(self, d: int) -> float:
        return float("inf")  # the rank is decided by what is noise

    def _merged(self, other: Sums, step: Array) -> dict[str, Any]:
        return {"matrix": _thin(namespace(step).concat([self.matrix, other.matrix, step[None, :]]))}

    def _reweighted(self, factor: float) -> dict[str, Any]:
        return {"matrix": self.matrix * factor**0.5}

    def scatter(self, at: slice, bt: slice) -> Array:
        left = self.matrix[:, at]
        # The same object on both sides lets NumPy compute half of the symmetric product.
        right = left if at == bt else self.matrix[:, bt]
        product: Array = left.mT @ right
        return product

    def squares(self, at: slice) -> Array:
        return namespace(self.matrix).sum(self.matrix[:, at] ** 2, axis=0)

    def project(self, at: slice, bt: slice, weights: Array) -> Array:
        return self.matrix[:, at].mT @ (self.matrix[:, bt] @ weights)

    def paired(self, at: slice, bt: slice) -> Array:
        return namespace(self.matrix).sum(self.matrix[:, at] * self.matrix[:, bt], axis=0)

    def mixed(self, at: slice, bt: slice, own: float, other: float) -> Root:
        matrix = _mixed_columns(self.matrix, at, bt, own, other)
        mean = _mixed_columns(self.mean[None, :], at, bt, own, other)[0, :]
        return replace(self, mean=mean, matrix=matrix, norms=None, noise=None)

    def turned(self, at: slice, parts: Sequence[Part]) -> Root:
        matrix = _turned_columns(self.matrix, at, parts)
        mean = _turned_columns(self.mean[None, :], at, parts)[0, :]
        noise = self.noise
        if noise is not None:
            squares = [(columns, None if Q is None else Q * Q) for columns, Q in parts]
            noise = _turned_columns(noise[None, :], at, squares)[0, :]
        return replace(self, mean=mean, matrix=matrix, norms=None, noise=noise)

    def span(self, at: slice, columns: np.ndarray[Any, Any]) -> Array | None:
        if len(columns) <= self.matrix.shape[0]:
            return None
        xp = namespace(self.matrix)
        R = self.matrix[:, at] * self.varying(at)[None, :]
        R = xp.take(R, xp.asarray(columns, device=device_of(R)), axis=1)
        basis: Array = xp.linalg.qr(R.mT, mode="reduced")[0]
        return basis

    def gram(self, at: slice) -> Array:
        R = self.matrix[:, at]
        return R @ R.mT if R.shape[1] > R.shape[0] else self.scatter(at, at)

    def whiten(
        self, at: slice, *, keep: float = 1.0, ridge: float | Array = 0.0, ddof: float = 1
    ) -> whitening.Factor:
        R = self.matrix[:, at] * (self.varying(at) / self.freedom(ddof) ** 0.5)[None, :]
        if not is_array(ridge):
            noise = None if self.noise is None else NOISE * self.noise[at]
            return whitening.factor_root(R, keep=keep, ridge=ridge, noise=noise)
        xp = namespace(ridge)
        positive = ridge > 0
        # In units in which the ridge is the identity, the singular vectors of R solve it.
        unit = xp.where(positive, 1 / xp.sqrt(xp.where(positive, ridge, 1.0)), 0.0)
        factor = whitening.factor_root(R * unit[None, :], keep=keep, ridge=1.0)
        return replace(factor, weights=unit[:, None] * factor.weights)

    def whiten_leading(self, at: slice, share: float) -> whitening.Factor:
        R = self.matrix[:, at] / self.freedom(1) ** 0.5
        u, s, vt = svd(R)
        k = _leading_count(s * s, share, max(R.shape))
        weights = vt[:k, :].mT / s[:k]
        return replace(_leading_factor(weights, s[:k] ** 2), root=u[:, :k])

    def against(self, at: slice, bt: slice, factor: whitening.Factor, ddof: float = 1) -> Array:
        if factor.root is None:
            return self.project(at, bt, factor.weights) / self.freedom(ddof)
        return (self.matrix[:, at] / self.freedom(ddof) ** 0.5).mT @ factor.root

    def spectrum(self, at: slice, bt: slice, unit: Array | None = None) -> Spectrum:
        xp, varies = namespace(self.matrix), self.varying(at)
        p, fixed = varies.shape[0], int(xp.count_nonzero(varies == 0))
        varies = varies if unit is None else varies * unit
        left, s, right = svd(self.matrix[:, at] * varies[None, :])
        cross = s[:, None] * (left.mT @ self.matrix[:, bt])
        values = s * s
        if self.noise is not None:
            noise = NOISE * self.n * ((right * right) @ (self.noise[at] * varies**2))
            values = xp.where(values > noise, values, 0.0)
            cross = cross * xp.astype(values > 0, xp.float64)[:, None]
        least = float(values[p - fixed - 1]) if 0 < p - fixed <= s.shape[0] else 0.0
        cut = float(values[0]) * (max(p, self.matrix.shape[0]) * whitening.EPS) ** 2
        return Spectrum(values, right.mT, cross, least, cut)

    def principal(self, at: slice, k: int) -> tuple[Array, Array]:
        R = self.matrix[:, at] / self.n**0.5
        _, r, Vt = svd(R)
        rank = int(namespace(r).count_nonzero(r > r[0] * (max(R.shape) * whitening.EPS)))
        k = min(k, rank)
        return r[:k] ** 2, Vt[:k, :].mT

    def reduced(self, at: slice) -> Reduced:
        R = _single(self.matrix[:, at]) / self.n**0.5
        if R.shape[0] >= R.shape[1]:
            return Reduced(*Tridiagonal.of(R.mT @ R))
        T, Q = Tridiagonal.of(R @ R.mT)
        return Reduced(T, R.mT @ Q, inner=True)

    def least_squares(self, at: slice, bt: slice, basis: Array | None = None) -> LeastSquares:
        x = self.matrix[:, at]
        return _RootLeastSquares(x if basis is None else x @ basis, self.matrix[:, bt])

    def take(self, columns: np.ndarray[Any, Any]) -> Root:
        xp = namespace(self.mean)
        at = xp.asarray(columns, device=device_of(self.mean))
        matrix, targets = _thin(xp.take(self.matrix, at, axis=1)), self._targets_among(columns)
        mean, noise = xp.take(self.mean, at), self._taken_noise(at)
        return replace(self, mean=mean, matrix=matrix, norms=None, noise=noise, targets=targets)

    def scaled(self, unit: Array) -> Root:
        matrix, noise = self.matrix * unit[None, :], self._scaled_noise(unit)
        return replace(self, mean=0 * self.mean, matrix=matrix, norms=None, noise=noise)

    def about_origin(self) -> Root:
        step = self.n**0.5 * self.mean
        matrix = _thin(namespace(step).concat([self.matrix, step[None, :]]))
        return replace(self, mean=0 * self.mean, matrix=matrix, norms=None)

    def partial_out(self, cut: slice, rest: np.ndarray[Any, Any]) -> tuple[Root, Array, Array]:
        xp = namespace(self.mean)
        at = xp.asarray(rest, device=device_of(self.mean))
        noise = None if self.noise is None else NOISE * self.n * self.noise[cut]
        factor = whitening.factor_root(self.matrix[:, cut] * self.varying(cut), noise=noise)
        basis: Array = factor.root
        R = xp.take(self.matrix, at, axis=1)
        half = 0.0
        for _ in range(2):  # twice is enough (Kahan): the residual is orthogonal
            step = basis.mT @ R
            half, R = half + step, R - basis @ step
        before = xp.take(xp.sum(self.matrix**2, axis=0), at) / self.n
        lost, noise = (8 * whitening.EPS) ** 2 * before, self._taken_noise(at)
        noise = lost if noise is None else noise + lost
        found: dict[str, Any] = {"mean": xp.take(self.mean, at), "matrix": _thin(R), "noise": noise}
        sums = replace(self, norms=None, targets=self._targets_among(rest), **found)
        return sums, factor.weights, half

    def rotated(self, cuts: Sequence[slice]) -> tuple[Root, tuple[int, ...]]:
        xp = namespace(self.matrix)
        parts = [_thin(self.matrix[:, cut].mT).mT for cut in cuts]
        # The means are not rotated, as no caller needs them.
        widths = tuple(int(p.shape[1]) for p in parts)
        matrix = xp.concat(parts, axis=1)
        mean = xp.zeros((sum(widths),), dtype=xp.float64, device=device_of(matrix))
        found: dict[str, Any] = {"mean": mean, "matrix": matrix, "noise": None, "targets": 0}
        return replace(self, norms=None, **found), widths

    @classmethod
    def _height(cls, d: int) -> int:
        return 0


@dataclass(frozen=True)
class FewRows(Root):
    """A fold in the scatter form of so few rows that a factor of them is much the smaller.

    Left out one at a time, rows would take a d x d matrix each. Merged with more rows they
    become a `Scatter`, with as many targets.
    """

    form: ClassVar[Form] = "scatter"

    def __add__(self, other: Any) -> Any:
        few = isinstance(other, FewRows) and are_few(self.rows + other.rows, self._others)
        return super().__add__(other) if few or self.n == 0 else self._as_scatter() + other

    def _as_scatter(self) -> Scatter:
        matrix, diagonal = self._held()
        return Scatter(
            self.n, self.mean, matrix, self.rows, self.norms, self.noise, self.roundoff,
            self.targets, diagonal,
        )  # fmt: skip


def are_few(rows: int, d: int) -> bool:
    """Whether so many rows are far fewer than the rows of the scatter, d columns but targets."""
    return 8 * rows <= d


FORMS: dict[Form, type[Scatter] | type[Root]] = {
    "scatter": Scatter,
    "double": Scatter,
    "root": Root,
}


def _turned_columns(M: Array, at: slice, parts: Sequence[Part]) -> Array:
    """The columns of a matrix with some of them in other coordinates (`Sums.turned`)."""
    xp, device = namespace(M), device_of(M)
    turned = []
    for columns, basis in parts:
        own = xp.take(M[:, at], xp.asarray(columns, device=device), axis=1)
        turned.append(own if basis is None else own @ basis)
    return xp.concat([M[:, : at.start], *turned, M[:, at.stop :]], axis=1)


def _mixed_columns(a: Array, at: slice, bt: slice, own: float, other: float) -> Array:
    """The columns of two adjacent blocks, replaced by mixtures of them."""
    x, y = a[:, at], a[:, bt]
    mixed = [own * x + other * y, other * x + own * y]
    return namespace(a).concat([a[:, : at.start], *mixed, a[:, bt.stop :]], axis=1)


def _thin(R: Array) -> Array:
    """A factor with no more rows than columns: R itself, or the R of its QR factorisation."""
    return qr_r(R) if R.shape[0] > R.shape[1] else R


def _less_one_row(Z: Array, roots: Array) -> Array:
    """A factor of centred rows with one row less.

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
    return (Z - first[:, None] * (scale * (first @ Z))[None, :])[1:, :]


def _leading_factor(weights: Array, values: Array) -> whitening.Factor:
    xp = namespace(values)
    logdet = float(xp.sum(xp.log(values)))
    condition = float((values[0] / values[-1]) ** 0.5) if values.shape[0] else 1.0
    return whitening.Factor(weights, int(values.shape[0]), logdet, condition, "eigh")


def _leading_count(variances: Array, share: float, d: int) -> int:
    """How many leading variances make up a share of their sum, rounding errors excepted."""
    host = to_numpy(variances)
    real = host > host[0] * d * 4 * np.finfo(np.float64).eps
    kept = np.where(real, host, 0.0)
    reached = np.cumsum(kept) >= share * np.sum(kept) * (1 - 1e-12)
    return min(int(np.argmax(reached)) + 1, int(np.count_nonzero(real)))


class LeastSquares(ABC):
    """The regression of q centred targets on p centred regressors, for any coefficients."""

    @abstractmethod
    def errors(self, coefficients: Array) -> Array:
        """The sum of squared residuals of each target, shape (q,)."""

    @abstractmethod
    def normal_equations(self, basis: Array | None = None) -> tuple[Array, Array]:
        """H'S_xx H and H'S_xy for a basis H of the regressors."""

    @abstractmethod
    def less(self, coefficients: Array) -> LeastSquares:
        """The regression of what the targets have left beyond some coefficients."""


@dataclass(frozen=True)
class _ScatterLeastSquares(LeastSquares):
    xx: Array
    xy: Array
    yy: Array
    """The sum of squares of each target."""

    def errors(self, coefficients: Array) -> Array:
        explained = coefficients * (2 * self.xy - self.xx @ coefficients)
        return self.yy - namespace(explained).sum(explained, axis=0)

    def normal_equations(self, basis: Array | None = None) -> tuple[Array, Array]:
        if basis is None:
            return self.xx, self.xy
        return basis.mT @ (self.xx @ basis), basis.mT @ self.xy

    def less(self, coefficients: Array) -> LeastSquares:
        left = self.xy - self.xx @ coefficients
        return _ScatterLeastSquares(self.xx, left, self.errors(coefficients))


@dataclass(frozen=True)
class _RootLeastSquares(LeastSquares):
    x: Array
    y: Array

    def errors(self, coefficients: Array) -> Array:
        E = self.y - self.x @ coefficients  # a small residual keeps its digits
        return namespace(E).sum(E * E, axis=0)

    def normal_equations(self, basis: Array | None = None) -> tuple[Array, Array]:
        x = self.x if basis is None else self.x @ basis
        return x.mT @ x, x.mT @ self.y

    def less(self, coefficients: Array) -> LeastSquares:
        return _RootLeastSquares(self.x, self.y - self.x @ coefficients)


def _single(a: Array) -> Array:
    """A matrix in single precision, if its Gram matrix is a large one."""
    xp = namespace(a)
    return xp.astype(a, xp.float32) if min(a.shape) >= SINGLE_FROM else a
