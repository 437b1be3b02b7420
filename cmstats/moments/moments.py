"""Moments: all that a linear-Gaussian model needs to know of the data.

`Moments` holds, for named blocks of columns, the weighted count, the mean and the centred
second moments of all columns side by side, as the scatter matrix or as a root of it. They
merge, so they stream, split into folds, and travel instead of the rows.
"""

from __future__ import annotations

import functools
import itertools
import operator
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cmstats.arrays import (
    Array,
    check_weights,
    device_of,
    is_dask,
    is_numpy,
    namespace,
    row_slices,
    to_numpy,
)
from cmstats.kernels import covariance, whitening
from cmstats.kernels.covariance import Sums
from cmstats.kernels.threads import blas_for
from cmstats.kernels.transfer import to_device
from cmstats.moments import dask as _dask
from cmstats.moments.checkpoint import (
    Checkpoint,
    check_settings,
    fingerprint,
    segment_rows,
    split_folds,
    write_arrays,
)
from cmstats.moments.collect import GATHER_ROWS, Form, fold_sums, foreign, gathered, thin
from cmstats.moments.missing import (
    Estimate,
    check_observed,
    estimate,
    rows_together,
    shrunken_estimate,
)
from cmstats.moments.patterns import Mask, Missing, Pattern, PatternTable, merged
from cmstats.rows.chunks import check_blocks
from cmstats.rows.progress import progress_bar
from cmstats.rows.splits import fold_ids

__all__ = ["Moments", "Whitened"]

FILE_VERSION = 2


class Moments:
    """Weighted count, mean and centred second moments of named blocks of columns.

    Make one with `Moments.from_data`, `Moments.from_batches` or `Moments.folds`; the
    constructor is for their results.

    Attributes
    ----------
    n : float
        The sum of the weights: the number of rows where there are none.
    names : tuple of str
        The names of the blocks, in the order of their columns.
    widths : tuple of int
        The number of columns of each block.
    form : {"scatter", "root"}
        "scatter" holds the d x d scatter matrix S; "root" a thin factor R with R'R = S and
        at most min(n, d) rows, which keeps the condition number of the data instead of its
        square and is small for wide data.

    Notes
    -----
    Two groups of rows with counts n, m, means a, b and scatters A, B have together the
    scatter ``A + B + n m / (n + m) (a - b)(a - b)'`` (Chan, Golub and LeVeque 1983); roots
    are merged by a QR factorisation of the stacked factors.

    With ``missing="em"`` rows may have NaN. Their sums are kept apart by pattern of what is
    observed, and merge by pattern; means and second moments are estimated from all patterns
    when they are first asked for (`estimate`). Rows in which nothing is observed do not count.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import Moments
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])
    >>> Y = np.array([[1.0], [0.0], [2.0]])
    >>> m = Moments.from_data(x=X, y=Y)
    >>> m.n, m.names
    (3.0, ('x', 'y'))
    >>> m.cov("x", "y")
    array([[1. ],
           [2.5]])
    >>> parts = Moments.from_data(x=X[:1], y=Y[:1]) + Moments.from_data(x=X[1:], y=Y[1:])
    >>> np.allclose(parts.cov("x", "y"), m.cov("x", "y"))
    True
    """

    def __init__(
        self,
        names: Sequence[str],
        widths: Sequence[int],
        form: Form,
        sums: Sums,
        table: PatternTable | None = None,
    ) -> None:
        self.names = tuple(names)
        self.widths = tuple(int(w) for w in widths)
        self.form = form
        self._complete = sums  # of the rows in which everything is observed
        self._table = table  # of the other rows, if there are any
        self._estimate: Estimate | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: everything but the lock."""
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @property
    def n(self) -> float:
        """The sum of the weights."""
        return self._complete.n + (0.0 if self._table is None else self._table.n)

    @property
    def rows(self) -> int:
        """The number of rows, whatever their weights."""
        return self._complete.rows + (0 if self._table is None else self._table.rows)

    @property
    def _sums(self) -> Sums:
        found = self.estimate
        return self._complete if found is None else found.sums

    @property
    def _mean(self) -> Array:
        return self._sums.mean

    @property
    def _factor(self) -> Array:
        return self._sums.factor

    # -------------------------------------------------------------------- making them
    @classmethod
    def from_data(
        cls,
        *,
        form: Form = "scatter",
        sample_weight: Array | None = None,
        missing: Missing = "error",
        device: Any = None,
        rows: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
        **blocks: Any,
    ) -> Moments:
        """The moments of named blocks of rows, in one pass.

        Parameters
        ----------
        form : {"scatter", "root"}, default="scatter"
            How second moments are held; "root" for ill-conditioned or wide data.
        sample_weight : array of shape (n,), optional
            Frequency weights: weight 2 is the row twice.
        missing : {"error", "em"}, default="error"
            What NaN is: an error, or an entry that was not observed. With "em" the moments are
            maximum likelihood estimates (see `cmstats.moments.missing.estimate`), in the scatter
            form.
        device : str, optional
            "cuda" sends host rows to the GPU block by block; the moments are CuPy arrays.
        rows : int, optional
            How many rows are read at once; by default from their widths, about 128 MiB.
        checkpoint : str or path, optional
            A file to write the moments so far to, every 2 GiB of rows. Where the pass breaks
            off (a shard with NaN, Ctrl-C, power), the same call goes on from there, and its
            result is that of a pass that did not break off, to the last bit on the same
            number of threads. Meanwhile `Moments.load` reads the moments so far. The file is
            removed when the pass is done.
        progress : bool, default=False
            Show a progress bar over the rows.
        **blocks : array-likes of shape (n, p_b)
            The data by name, for example ``x=X, y=Y``. Arrays of any library, frames,
            sparse matrices (densified a tile at a time), memory-maps and anything with
            shape, dtype and slicing, which is read run by run.

        Returns
        -------
        Moments

        Raises
        ------
        ValueError
            If lengths differ, values are not finite (which block, how many, the first),
            there are more than 512 patterns of missing entries, or the checkpoint is of a pass
            over other data.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> Moments.from_data(x=np.eye(3), y=np.arange(3.0)).mean("y")
        array([1.])
        >>> y = np.array([1.0, 2.0, 4.0, np.nan])
        >>> m = Moments.from_data(x=np.array([0.0, 1.0, 2.0, 9.0]), y=y, missing="em")
        >>> m.incomplete, m.n, m.complete_rows().n, m.mean("x")
        (True, 4.0, 3.0, array([3.]))
        """
        how = _Pass(form, missing, device, rows, checkpoint, progress)
        return how.over_rows(blocks, sample_weight)[0]

    @classmethod
    def from_batches(
        cls,
        source: Iterable[Any],
        *,
        form: Form = "scatter",
        names: Sequence[str] = ("x", "y"),
        missing: Missing = "error",
        device: Any = None,
        rows: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Moments:
        """The moments of a stream of batches: tuples (x, y) or dicts of named blocks.

        Parameters
        ----------
        source : iterable of tuples or dicts of arrays
            Batches of any sizes; small ones are put together before they are multiplied.
        form : {"scatter", "root"}, default="scatter"
        names : sequence of str, default=("x", "y")
            Names of the blocks of batches that are tuples.
        missing, device, progress
            As in `from_data`.
        rows : int, optional
            How many rows are put together at least; by default 16384, twice that for folds.
        checkpoint : str or path, optional
            As in `from_data`. To go on, hand in the stream from its beginning: the rows that
            are counted already are read and passed over. How they are parted into batches
            makes no difference to the result.

        Returns
        -------
        Moments

        Raises
        ------
        ValueError
            If there are no rows, or a batch does not fit the first (its number is told).

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> X = np.arange(12.0).reshape(6, 2)
        >>> Moments.from_batches((X[i : i + 2], X[i : i + 2, :1]) for i in (0, 2, 4)).n
        6.0
        """
        how = _Pass(form, missing, device, rows, checkpoint, progress)
        return how.over_stream(source, names)[0]

    @classmethod
    def folds_from_batches(
        cls,
        source: Iterable[Any],
        *,
        cv: Any = 5,
        form: Form = "scatter",
        names: Sequence[str] = ("x", "y"),
        missing: Missing = "error",
        device: Any = None,
        rows: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> list[Moments]:
        """The moments of each fold of a stream of batches: those of `folds` of all its rows.

        Parameters
        ----------
        source : iterable of tuples or dicts of arrays
        cv : int, default=5
            Row i of the stream is in fold i mod `cv`, however the rows are parted into batches.
        form, names, missing, device, rows, checkpoint, progress
            As in `from_batches`.

        Returns
        -------
        list of Moments, one for each fold

        Raises
        ------
        ValueError
            If `cv` is no int of at least 2, there are fewer rows than folds, or as in
            `from_batches`.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> batches = ({"x": np.eye(3)} for _ in range(3))
        >>> [m.n for m in Moments.folds_from_batches(batches, cv=2)]
        [5.0, 4.0]
        """
        if isinstance(cv, bool) or not isinstance(cv, (int, np.integer)) or cv < 2:
            raise ValueError(
                f"cv={cv!r}: rows of a stream are dealt to folds by their number, so cv must be an "
                "int of at least 2"
            )
        how = _Pass(form, missing, device, rows, checkpoint, progress)
        return how.over_stream(source, names, int(cv))

    @classmethod
    def folds(
        cls,
        *,
        cv: Any = 5,
        form: Form = "scatter",
        sample_weight: Array | None = None,
        groups: Any = None,
        missing: Missing = "error",
        device: Any = None,
        rows: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
        **blocks: Any,
    ) -> list[Moments]:
        """The moments of each fold of the rows, in one pass.

        The training moments of a split are the merge of the other folds.

        Parameters
        ----------
        cv : int, splitter or iterable of (train, test), default=5
            An int K puts row i into fold i mod K, so that streaming and batching make no
            difference. A scikit-learn splitter, or explicit splits, must part the rows:
            every row in one test set.
        form, sample_weight, missing, device, rows, checkpoint, progress, **blocks
            As in `from_data`. Incomplete folds are tables of patterns, so that training moments
            are estimated anew for each fold. `Moments.load` of a checkpoint merges the folds.
        groups : array of shape (n,), optional
            Handed to the splitter.

        Returns
        -------
        list of Moments, one for each fold

        Raises
        ------
        ValueError
            If the splits do not part the rows, or a fold is empty.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> [m.n for m in Moments.folds(cv=2, x=np.eye(5))]
        [3.0, 2.0]
        """
        how = _Pass(form, missing, device, rows, checkpoint, progress)
        return how.over_rows(blocks, sample_weight, cv=cv, groups=groups)

    def update(
        self,
        *,
        sample_weight: Array | None = None,
        missing: Missing | None = None,
        **blocks: Any,
    ) -> Moments:
        """Add rows in place and return self.

        Parameters
        ----------
        sample_weight, **blocks
            As in `from_data`.
        missing : {"error", "em"}, optional
            By default "em" where there are incomplete rows already.

        Raises
        ------
        ValueError
            If names or widths are not those of these moments, or values are not finite;
            nothing is added then.
        """
        missing = missing or ("em" if self.incomplete else "error")
        both = self + Moments.from_data(
            form=self.form, sample_weight=sample_weight, missing=missing, **blocks
        )
        self._complete, self._table, self._estimate = both._complete, both._table, None
        return self

    def __add__(self, other: Moments) -> Moments:
        """The moments of both groups of rows together."""
        if not isinstance(other, Moments):
            return NotImplemented
        if dict(zip(self.names, self.widths, strict=True)) != dict(
            zip(other.names, other.widths, strict=True)
        ):
            raise ValueError(
                f"moments of blocks {self._shape()} and {other._shape()} cannot be merged"
            )
        if self.form != other.form:
            raise ValueError(f"moments in the forms {self.form!r} and {other.form!r} do not merge")
        if self.names != other.names:
            other = other.select(*self.names)
        tables = [m._table for m in (self, other) if m._table is not None]
        table = functools.reduce(operator.add, tables) if tables else None
        sums = self._with_complete(other)
        return Moments(self.names, self.widths, self.form, sums, table)

    def _with_complete(self, other: Moments) -> Sums:
        """The sums of the complete rows of both."""
        a, b = self._complete, other._complete
        if a.n == 0 or b.n == 0:
            return replace(b if a.n == 0 else a, rows=a.rows + b.rows)
        xp = namespace(a.mean, b.mean)
        if self.form == "scatter":
            sums = merged(a, b)
        else:
            n = a.n + b.n
            step = (a.n * b.n / n) ** 0.5 * (b.mean - a.mean)
            factor = thin(xp.concat([a.factor, b.factor, step[None, :]]))
            mean = (a.n / n) * a.mean + (b.n / n) * b.mean
            sums = Sums(n, mean, factor, None, None, a.rows + b.rows)
        if a.third is None or b.third is None:
            return sums
        (third, fourth), (more, most) = (
            m._complete_part()._norm_sums_about(sums.mean) for m in (self, other)
        )
        return replace(sums, third=third + more, fourth=fourth + most)

    def _complete_part(self) -> Moments:
        if self._table is None:
            return self
        return Moments(self.names, self.widths, self.form, self._complete)

    def _norm_sums_about(self, point: Array) -> tuple[Array, Array]:
        xp = namespace(self._mean)
        thirds, fourths = [], []
        for i, name in enumerate(self.names):
            by = (self._mean - point)[self.columns(name)]
            moved = covariance.shift_norm_sums(
                self.n,
                by,
                0.0,
                self.projected_scatter(name, name, by),
                xp.sum(self.variance(name, ddof=0)) * self.n,
                self._sums.third[self.columns(name)],  # type: ignore[index]
                self._sums.fourth[i],  # type: ignore[index]
            )
            thirds.append(moved[0])
            fourths.append(moved[1])
        return xp.concat(thirds), xp.stack(fourths)

    # ---------------------------------------------------------------- incomplete rows
    @property
    def incomplete(self) -> bool:
        """Whether entries are missing in some of the rows."""
        return self._table is not None

    def complete_rows(self) -> Moments | None:
        """The moments of the rows in which everything is observed; None if there are none."""
        return self._complete_part() if self._complete.rows else None

    def patterns(self) -> list[Pattern]:
        """The moments of the rows of each pattern of observed columns, complete rows first."""
        c = self._complete
        everything = np.ones(sum(self.widths), dtype=bool)
        found = []
        if c.rows:
            complete = self._complete_part()
            S = [[complete.scatter(a, b) for b in self.names] for a in self.names]
            xp = namespace(c.mean)
            scatter = xp.concat([xp.concat(row, axis=1) for row in S])
            found.append(Pattern(everything, c.n, c.rows, c.mean, scatter))
        for mask, s in () if self._table is None else self._table.items():
            found.append(Pattern(mask, s.n, s.rows, s.mean, s.factor))
        return found

    @property
    def estimate(self) -> Estimate | None:
        """How the moments of incomplete rows were found; None where every row is complete.

        They are estimated once, when they are first asked for.

        Raises
        ------
        ValueError
            If a column is never observed, or two blocks never in the same row.
        """
        if self._table is None:
            return None
        with self._lock:  # threads that fit several models to these moments wait for one
            if self._estimate is None:
                with blas_for(sum(self.widths)):
                    self._estimate = estimate(self._groups(), self.names, self.widths)
            return self._estimate

    def before_shrinkage(self, shrinkage: Sequence[float], *, scale: bool = False) -> Moments:
        """The moments to shrink by these numbers, one for each block.

        They are these moments themselves, but where the patterns of incomplete rows are nested.
        There the moments returned have, after coherent shrinkage, the p(y | x) of the shrunken
        complete pairs and the p(x) of the shrunken rows of x: what was estimated from few rows
        is shrunk as if these stood alone.

        Parameters
        ----------
        shrinkage : sequence of float
            In the order of `names`.
        scale : bool, default=False
            Whether `standardized` comes before the shrinkage.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> x = np.array([0.0, 1.0, 3.0, 9.0])
        >>> y = np.array([1.0, 2.0, 5.0, np.nan])
        >>> m = Moments.from_data(x=x, y=y, missing="em").before_shrinkage((0.5, 0.5))
        >>> pairs = Moments.from_data(x=x[:3], y=y[:3])
        >>> bool(np.allclose(m.cov("x", "y") / m.cov("x"), pairs.cov("x", "y") / pairs.cov("x")))
        True
        """
        if self._table is None or not self._table.sums or not all(shrinkage):
            return self
        check_observed(self._groups(), self.names, self.widths)
        with blas_for(sum(self.widths)):
            sums = shrunken_estimate(self._groups(), self.widths, shrinkage, scale=scale)
        return self if sums is None else Moments(self.names, self.widths, self.form, sums)

    def _groups(self) -> list[tuple[Mask, Sums]]:
        everything = np.ones(sum(self.widths), dtype=bool)
        return [(everything, self._complete), *(self._table.items() if self._table else ())]

    @property
    def _together(self) -> float:
        """The (weight of the) rows that tell of any two blocks together."""
        if self._table is None:
            return min(self.rows, self.n)
        return min(self.rows, rows_together(self._groups(), self.widths))

    def _estimated(self) -> Moments:
        """The estimate alone, without the patterns."""
        if self._table is None:
            return self
        return Moments(self.names, self.widths, self.form, self._sums)

    @property
    def _dealt(self) -> int:
        """The number of rows, with those in which nothing is observed."""
        return self.rows + (0 if self._table is None else self._table.empty)

    # ------------------------------------------------------------------- reading them
    @functools.cached_property
    def _offsets(self) -> list[int]:
        return [int(i) for i in np.cumsum([0, *self.widths])]

    def columns(self, name: str) -> slice:
        """Where the block's columns stand among all columns.

        Raises
        ------
        KeyError
            If there is no block of that name.
        """
        if name not in self.names:
            raise KeyError(f"no block {name!r}: the blocks are {', '.join(self.names)}")
        i = self.names.index(name)
        return slice(self._offsets[i], self._offsets[i + 1])

    def width(self, name: str) -> int:
        """The number of columns of a block."""
        at = self.columns(name)
        return int(at.stop - at.start)

    def mean(self, name: str) -> Array:
        """The mean of a block, shape (p,)."""
        return self._mean[self.columns(name)]

    def scatter(self, a: str, b: str | None = None) -> Array:
        """The centred second moments sum w (a - mean)(b - mean)', shape (p_a, p_b)."""
        at, bt = self.columns(a), self.columns(b or a)
        if self.form == "scatter":
            return self._factor[at, bt]
        left, right = self._factor[:, at], self._factor[:, bt]
        product = left.mT @ (left if at == bt else right)
        return product

    def cov(self, a: str, b: str | None = None, *, ddof: float = 1) -> Array:
        """The covariance of two blocks (of one with itself), shape (p_a, p_b).

        Raises
        ------
        ValueError
            If there are no more than `ddof` rows.
        """
        if self.n <= ddof:
            raise ValueError(f"a covariance with ddof={ddof} needs more than {self.n:g} rows")
        return self.scatter(a, b) / (self.n - ddof)

    def variance(self, name: str, *, ddof: float = 1) -> Array:
        """The variance of each column of a block, shape (p,)."""
        at = self.columns(name)
        xp = namespace(self._factor)
        if self.form == "scatter":
            total = xp.linalg.diagonal(self._factor[at, at])
        else:
            total = xp.sum(self._factor[:, at] ** 2, axis=0)
        return total / (self.n - ddof)

    def constant(self, name: str) -> Array:
        """Which columns of a block do not vary beyond the rounding of their mean, shape (p,)."""
        return self.variance(name, ddof=0) <= (8 * whitening.EPS * self.mean(name)) ** 2

    def projected_scatter(self, a: str, b: str, weights: Array) -> Array:
        """``scatter(a, b) @ weights`` without forming a wide block's scatter."""
        if self.form == "scatter":
            return self._factor[self.columns(a), self.columns(b)] @ weights
        left, right = self._factor[:, self.columns(a)], self._factor[:, self.columns(b)]
        return left.mT @ (right @ weights)

    def paired_correlations(self, a: str, b: str, A: Array, B: Array) -> Array:
        """The correlations of the projections ``a @ A`` and ``b @ B``, pair by pair.

        Parameters
        ----------
        a, b : str
            Blocks.
        A, B : arrays of shape (p_a, k), (p_b, k)
            Weights.

        Returns
        -------
        array of shape (k,)
            NaN, with a warning, where a projection does not vary.
        """
        xp = namespace(self._mean, A, B)
        # Rounding noise of a column that does not vary is no variance.
        A = A * xp.astype(~self.constant(a), xp.float64)[:, None]
        B = B * xp.astype(~self.constant(b), xp.float64)[:, None]
        aA, bB = self.projected_scatter(a, a, A), self.projected_scatter(b, b, B)
        # The product of roots, not the root of the product: that can overflow.
        spread = _root(xp.sum(A * aA, axis=0)) * _root(xp.sum(B * bB, axis=0))
        shared = xp.sum(A * self.projected_scatter(a, b, B), axis=0)
        fixed = ~(spread > 0)
        if bool(xp.any(fixed)):
            warnings.warn(
                f"{int(xp.count_nonzero(fixed))} of {A.shape[1]} correlations are NaN: a variate "
                f"is constant over these {self.n:g} rows",
                UserWarning,
                stacklevel=2,
            )
        nan = xp.asarray(float("nan"), dtype=xp.float64, device=device_of(spread))
        ratio = shared / xp.where(fixed, 1.0, spread)
        return xp.where(fixed, nan, xp.clip(ratio, -1.0, 1.0))

    # ------------------------------------------------------------------ changing them
    def select(self, *names: str) -> Moments:
        """The moments of some of the blocks, in the order named.

        Those of incomplete rows are what these blocks alone would have given.
        """
        at = [self.columns(name) for name in names]
        index = [self.names.index(name) for name in names]
        if self._table is not None:
            columns = np.concatenate([np.arange(cut.start, cut.stop) for cut in at])
            table, now_complete = self._table.take(columns)
            kept = self._complete_part().select(*names)
            for sums in now_complete:
                kept = kept + Moments(kept.names, kept.widths, kept.form, sums)
            return Moments(kept.names, kept.widths, kept.form, kept._complete, table.or_none())
        xp = namespace(self._mean)

        def pick(a: Array, axis: int) -> Array:
            parts = [a[cut] if a.ndim == 1 else (a[:, cut] if axis else a[cut, :]) for cut in at]
            return xp.concat(parts, axis=axis)

        factor = pick(self._factor, 1)
        factor = pick(factor, 0) if self.form == "scatter" else thin(factor)
        sums = self._sums
        third = None if sums.third is None else pick(sums.third, 0)
        fourth = None if sums.fourth is None else xp.stack([sums.fourth[i] for i in index])
        picked = Sums(self.n, pick(sums.mean, 0), factor, third, fourth, self.rows)
        return Moments(names, [self.widths[i] for i in index], self.form, picked)

    def _projected(self, mean: Array, factor: Array) -> Moments:
        """Other second moments of the same rows, whose norms are known no more."""
        return Moments(
            self.names,
            self.widths,
            self.form,
            replace(self._sums, mean=mean, factor=factor, third=None, fourth=None),
        )

    def partial_out(self, name: str) -> Moments:
        """The moments of the other blocks after regression on this one.

        The residual scatter is the Schur complement S_ab - S_az S_zz^+ S_zb. Means and the
        count stay, so that `cov` has the rows' ddof: for residual variances that are unbiased
        pass ``ddof=1 + rank of the block``. A model fitted to these moments is that of the
        residuals of a regression on the block with an intercept: partial CCA, ridge with
        unpenalised covariates. Tests of such a model lose a row for each nuisance variable
        (the rank of the block): ``canonical_correlation_test(cca, n_nuisance=...)``.

        Parameters
        ----------
        name : str
            The block of nuisance variables.

        Returns
        -------
        Moments

        Raises
        ------
        KeyError
            If there is no block of that name.
        ValueError
            If it is the only one.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> z = np.arange(5.0)
        >>> m = Moments.from_data(x=2 * z, z=z).partial_out("z")
        >>> bool(abs(m.cov("x")[0, 0]) < 1e-12)
        True

        Partial CCA: correlations of two views beyond what age makes of both.

        >>> from cmstats import CCA, canonical_correlation_test
        >>> rng = np.random.default_rng(0)
        >>> age = rng.normal(size=(200, 1))
        >>> X = age + rng.normal(size=(200, 2))
        >>> Y = age + rng.normal(size=(200, 2))
        >>> cca = CCA().fit_moments(Moments.from_data(x=X, y=Y, age=age).partial_out("age"))
        >>> bool(CCA().fit(X, Y).correlations_[0] > 0.6), bool(cca.correlations_[0] < 0.2)
        (True, True)
        >>> bool(canonical_correlation_test(cca, n_nuisance=1)["wilks_p"][1] > 0.05)
        True
        """
        rest = [other for other in self.names if other != name]
        if not rest:
            raise ValueError(
                f"{name!r} is the only block: nothing is left after partialling it out"
            )
        if self._table is not None:
            return self._estimated().partial_out(name)
        kept = self.select(*rest)
        xp = namespace(self._mean)
        cut = self.columns(name)
        if self.form == "scatter":
            weights = whitening.factor(self._factor[cut, cut]).weights
            cross = xp.concat([self.scatter(name, other) for other in rest], axis=1)
            half = weights.mT @ cross
            factor = kept._factor - half.mT @ half
            factor = 0.5 * (factor + factor.mT)
        else:
            basis: Array = whitening.factor_root(self._factor[:, cut]).root
            R = xp.concat([self._factor[:, self.columns(other)] for other in rest], axis=1)
            for _ in range(2):  # twice is enough (Kahan): the residual is orthogonal
                R = R - basis @ (basis.mT @ R)
            factor = thin(R)
        return kept._projected(kept._mean, factor)

    def standardized(self) -> Moments:
        """The moments of the centred columns divided by their standard deviations (ddof=1).

        Constant columns become zero.
        """
        xp = namespace(self._mean)
        variance = xp.concat([self.variance(name) for name in self.names])
        constant = xp.concat([self.constant(name) for name in self.names])
        unit = xp.where(constant, 0.0, 1 / xp.sqrt(xp.where(constant, 1.0, variance)))
        factor = self._factor * unit[None, :]
        factor = factor * unit[:, None] if self.form == "scatter" else factor
        return self._projected(0 * self._mean, factor)

    # -------------------------------------------------------------------- what models ask
    def whitened(self, a: str, b: str, *, shrinkage: tuple[float, float] = (0.0, 0.0)) -> Whitened:
        """Whiten two blocks of the coherently shrunken covariance.

        Diagonal blocks are ``(1 - s) C + s tr(C) / p I``, the cross block is
        ``sqrt((1 - s_a)(1 - s_b)) C_ab``; returned are weights with ``W' C_s W = I`` on the
        range of each block and the cross block between the whitened blocks, before its
        factor.
        """
        left = self.whitening_factor(a, shrinkage[0])
        right = self.whitening_factor(b, shrinkage[1])
        if self.form == "scatter":
            cross = left.weights.mT @ self.cov(a, b) @ right.weights
        else:
            basis: Array = left.root
            cross = basis.mT @ right.root
        return Whitened(left, right, cross)

    def whitening_factor(self, name: str, shrinkage: float = 0.0) -> whitening.Factor:
        """The factor of one block's shrunken covariance, ``(1 - s) C + s tr(C) / p I``."""
        xp = namespace(self._mean)
        p = self.width(name)
        # Columns that do not vary are rounding noise: zero, or they would be blown up to 1.
        varies = xp.astype(~self.constant(name), xp.float64)
        ridge = shrinkage * float(xp.sum(self.variance(name))) / p
        if self.form == "root":
            R = self._factor[:, self.columns(name)] * (varies / (self.n - 1) ** 0.5)[None, :]
            return whitening.factor_root(R, keep=1 - shrinkage, ridge=ridge)
        C = self.cov(name) * varies[:, None] * varies[None, :]
        if shrinkage:
            eye = xp.eye(p, dtype=xp.float64, device=device_of(C))
            C = (1 - shrinkage) * C + ridge * eye
        return whitening.factor(C)

    def ledoit_wolf(self, name: str) -> float:
        """The shrinkage of one block that is best for its covariance, in [0, 1].

        Ledoit and Wolf (2004) from the block's fourth moments; oracle approximating
        shrinkage (Chen, Wiesel, Eldar and Hero 2010) where only second moments are left
        (after `standardized` or `partial_out`).

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.covariance import ledoit_wolf_shrinkage
        >>> X = np.random.default_rng(0).standard_normal((40, 5))
        >>> s = Moments.from_data(x=X).ledoit_wolf("x")
        >>> bool(np.isclose(s, ledoit_wolf_shrinkage(X)))
        True
        """
        xp = namespace(self._mean)
        # Among incomplete rows those count that tell of other blocks too.
        p, n = self.width(name), self._together if self.incomplete else self.n
        if p == 1:
            return 0.0  # its own trace is the target
        trace = float(xp.sum(self.variance(name, ddof=0)))
        if trace == 0:
            return 0.0
        if self.form == "scatter" or p <= self._factor.shape[0]:
            S = self.scatter(name)
        else:  # the Gram matrix has the same norm and is smaller
            R = self._factor[:, self.columns(name)]
            S = R @ R.mT
        # In units of the trace, so that only the fourth moments can leave the range.
        S = S / (self.n * trace)
        square = float(xp.sum(S * S))
        spread = square - 1 / p
        if spread <= 0:
            return 1.0
        if self._sums.fourth is None:
            return min((square + 1) / ((n + 1) * spread), 1.0)
        fourth = float(self._sums.fourth[self.names.index(name)]) / trace / trace
        if not 0 < fourth < float("inf"):
            raise ValueError(
                f"the fourth moments of {name} leave the range of double precision: its values "
                "are too large or too small; divide them by a constant"
            )
        return max(0.0, min((fourth / n - square) / n, spread) / spread)

    # -------------------------------------------------------------------------- files
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one file (NumPy's .npz, without pickle), whole or not at all."""
        write_arrays(Path(path), self._fields())

    def _fields(self) -> dict[str, Any]:
        """All of it as NumPy arrays, in C order."""
        sums = self._complete
        fields: dict[str, Any] = {
            "version": np.array(FILE_VERSION),
            "names": np.array(self.names, dtype=np.str_),
            "widths": np.array(self.widths),
            "n": np.array(sums.n),
            "rows": np.array(sums.rows),
            "form": np.array(self.form),
            "mean": to_numpy(sums.mean),
            "factor": np.ascontiguousarray(to_numpy(sums.factor)),
        }
        if sums.third is not None:
            fields |= {k: to_numpy(getattr(sums, k)) for k in ("third", "fourth")}
        if self._table is not None:
            fields |= self._table.fields()
        return fields

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read what `save` wrote, as NumPy arrays; or a checkpoint, the moments so far.

        The folds of a checkpoint are merged.

        Raises
        ------
        ValueError
            If the file holds no moments, or those of a newer version.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                fields = dict(file)
            folds = split_folds(fields)
            version = int(folds[0]["version"])
        except FileNotFoundError:
            raise
        except Exception:
            raise ValueError(f"{os.fspath(path)} holds no moments saved by Moments.save") from None
        if version > FILE_VERSION:
            raise ValueError(
                f"{os.fspath(path)} was written in format {version}, this cmstats reads up to "
                f"{FILE_VERSION}: update cmstats"
            )
        return functools.reduce(operator.add, map(cls._of_fields, folds))

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> Moments:
        """What `_fields` told."""
        names = [str(name) for name in fields["names"]]
        sums = Sums(
            float(fields["n"]),
            fields["mean"],
            fields["factor"],
            fields.get("third"),
            fields.get("fourth"),
            int(fields["rows"]),
        )
        table = PatternTable.from_fields(fields) if "pattern_masks" in fields else None
        return cls(names, fields["widths"].tolist(), str(fields["form"]), sums, table)  # type: ignore[arg-type]

    def _on(self, like: Array) -> Moments:
        """The same moments where another array is."""
        xp, device = namespace(like), device_of(like)
        if is_numpy(xp):
            return self

        def placed(s: Sums) -> Sums:
            arrays = {k: getattr(s, k) for k in ("mean", "factor", "third", "fourth")}
            given = {k: a for k, a in arrays.items() if a is not None}
            return replace(s, **{k: xp.asarray(a, device=device) for k, a in given.items()})

        table = self._table
        if table is not None:
            table = replace(table, sums={k: placed(s) for k, s in table.sums.items()})
        return Moments(self.names, self.widths, self.form, placed(self._complete), table)

    def _shape(self) -> str:
        return ", ".join(f"{k}: {w}" for k, w in zip(self.names, self.widths, strict=True))

    def __repr__(self) -> str:
        also = ""
        if self._table is not None:
            also = f", patterns={len(self._table.sums) + (self._complete.rows > 0)}"
        return f"Moments(n={self.n:g}, form={self.form!r}, columns=({self._shape()}){also})"


@dataclass(frozen=True)
class Whitened:
    """Two whitened blocks: weights with ``W' C_s W = I`` and the cross block between them."""

    x: whitening.Factor
    y: whitening.Factor
    cross: Array


def _root(squares: Array) -> Array:
    """Square roots, 0 for what rounding left below."""
    xp = namespace(squares)
    return xp.sqrt(xp.where(squares > 0, squares, 0.0))


@dataclass(frozen=True)
class _Pass:
    """How rows become the moments of folds; see `Moments.from_data`."""

    form: Form
    missing: Missing = "error"
    device: Any = None
    rows: int | None = None
    checkpoint: Any = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Raise one sentence about what is not valid."""
        if self.form not in ("scatter", "root"):
            raise ValueError(f"form must be 'scatter' or 'root', got {self.form!r}")
        if self.missing not in ("error", "em"):
            raise ValueError(f"missing must be 'error' or 'em', got {self.missing!r}")
        if self.missing == "em" and self.form == "root":
            raise ValueError(
                "missing='em' works on scatter matrices: leave form='scatter' (solver='auto' or "
                "'moments' of an estimator)"
            )
        check_settings(self.rows, self.checkpoint, self.progress)

    def over_rows(
        self, blocks: dict[str, Any], sample_weight: Any, *, cv: Any = None, groups: Any = None
    ) -> list[Moments]:
        """The moments of each fold of the rows (of all rows without `cv`)."""
        if not blocks:
            raise ValueError(
                "name at least one block of data, for example Moments.from_data(x=X, y=Y)"
            )
        if any(map(is_dask, blocks.values())):
            if self.rows or self.checkpoint is not None or self.progress:
                raise ValueError(
                    "rows, checkpoint and progress are for passes that run here: of Dask arrays "
                    "the chunks are the runs, and Dask has progress bars and repeats what is lost"
                )
            return _dask.fold_moments(
                moments_of_rows, form=self.form, sample_weight=sample_weight, cv=cv, groups=groups,
                missing=self.missing, device=self.device, blocks=blocks,
            )  # fmt: skip
        blocks, given = check_blocks(blocks), blocks
        n = int(next(iter(blocks.values())).shape[0])
        ids = None if cv is None else fold_ids(cv, n, y=given.get("y"), groups=groups)
        return self.over_checked(blocks, sample_weight, ids)

    def over_checked(
        self,
        blocks: dict[str, Any],
        sample_weight: Any,
        ids: np.ndarray[Any, Any] | None,
    ) -> list[Moments]:
        """The moments of each fold of checked rows, whose folds are known."""
        n = int(next(iter(blocks.values())).shape[0])
        weights = check_weights(sample_weight, n, foreign(blocks.values()))
        n_folds = 1 if ids is None else int(ids.max()) + 1
        over = functools.partial(self.of_run, blocks, weights, ids=ids, n_folds=n_folds)
        if self.checkpoint is None:
            with self._bar(n) as bar:
                return over(advance=bar.update)
        size = segment_rows(blocks)
        saved = self._opened(blocks, size, shapes=True, ids=ids, weights=weights)
        with self._bar(n) as bar, saved.told():
            bar.update(saved.position)
            steps = (
                (cut.stop, cut.stop < n, functools.partial(over, span=cut, advance=bar.update))
                for cut in row_slices(n, size)
            )
            found = self._resumed(saved, blocks, steps)
        saved.remove()
        return found

    def over_stream(
        self, source: Iterable[Any], names: Sequence[str], cv: int | None = None
    ) -> list[Moments]:
        """The moments of each fold of a stream of batches (of all rows without `cv`)."""
        size = self.rows or GATHER_ROWS * (1 if cv is None else 2)  # each fold is merged by itself
        stream = gathered(source, names, size, exact=self.checkpoint is not None)
        first = next(stream, None)
        if first is None:
            raise ValueError("the stream of batches holds no rows")
        saved, rows = None, 0
        if self.checkpoint is not None:
            size = segment_rows(first.blocks, first.stop)
            saved = self._opened(first.blocks, size, shapes=False, ids=cv, weights=None)

        def steps() -> Iterator[Step]:
            nonlocal rows
            for run in itertools.chain([first], stream):
                ids = None if cv is None else np.arange(run.start, run.stop) % cv
                where: dict[str, Any] = {"ids": ids, "n_folds": cv or 1, "locate": run.locate}
                over = functools.partial(self.of_run, run.blocks, **where)
                yield run.stop, run.stop % size == 0, over
                rows = run.stop
                bar.update(run.stop - run.start)

        told = nullcontext() if saved is None else saved.told()
        with self._bar() as bar, told:
            found = self._resumed(saved, first.blocks, steps())
        if saved is not None:
            saved.require(rows)
        if cv is not None and rows < cv:
            raise ValueError(f"cv={cv} folds of {rows} rows: at most as many folds are possible")
        if saved is not None:
            saved.remove()
        return found

    def of_run(
        self,
        blocks: dict[str, Any],
        weights: Array | None = None,
        *,
        ids: np.ndarray[Any, Any] | None = None,
        n_folds: int = 1,
        **where: Any,
    ) -> list[Moments]:
        """The moments of each fold of checked rows, in one go; for `where` see `fold_sums`."""
        names = list(blocks)
        widths = [1 if a.ndim == 1 else int(a.shape[1]) for a in blocks.values()]
        tables = [PatternTable(sum(widths))] * n_folds if self.missing == "em" else None

        def merge(a: Sums, b: Sums) -> Sums:
            both = Moments(names, widths, self.form, a) + Moments(names, widths, self.form, b)
            return both._complete

        folds = fold_sums(
            blocks, self.form, weights, ids=ids, n_folds=n_folds, device=self.device,
            tables=tables, merge=merge, rows=self.rows, **where,
        )  # fmt: skip
        found = []
        for fold, sums in enumerate(folds):
            held = tables[fold].or_none() if tables else None
            sums = sums or _no_rows(self._like(blocks), self.form, widths)
            found.append(Moments(names, widths, self.form, sums, held))
        return found

    def _bar(self, total: int | None = None) -> Any:
        return progress_bar(self.progress, "moments", " rows", total=total, scale=True)

    def _like(self, blocks: dict[str, Any]) -> Array:
        """An array that is where the moments of these rows are."""
        host = np.zeros(1)
        found = foreign(blocks.values())
        if found is None and self.device is not None and str(self.device) != "cpu":
            return to_device([host])[0]
        return host if found is None else found

    def _opened(self, blocks: dict[str, Any], size: int, **what: Any) -> Checkpoint:
        told = fingerprint(blocks, form=self.form, missing=self.missing, segment=size, **what)
        return Checkpoint(self.checkpoint, told)

    def _resumed(
        self, saved: Checkpoint | None, blocks: dict[str, Any], steps: Iterable[Step]
    ) -> list[Moments]:
        """The merged moments of steps, from where a pass before broke off.

        What goes on is always what the file would give back, so that it makes no difference
        where that was.
        """
        total: list[Moments] = []

        def restored(folds: list[dict[str, Any]]) -> list[Moments]:
            like = self._like(blocks)
            return [Moments._of_fields(fields)._on(like) for fields in folds]

        if saved is not None:
            total = restored(saved.folds)
        for position, due, work in steps:
            if saved is not None and position <= saved.position:
                continue
            parts = work()
            total = [a + b for a, b in zip(total, parts, strict=True)] if total else parts
            if saved is not None and due:
                folds = [m._fields() for m in total]
                saved.save(position, folds)
                total = restored(folds)
        return total


Step: TypeAlias = tuple[int, bool, Callable[[], list[Moments]]]
"""The rows up to its end, whether to save then, and what makes its moments."""


def moments_of_rows(
    blocks: dict[str, Any],
    form: Form,
    sample_weight: Any,
    *,
    ids: np.ndarray[Any, Any] | None = None,
    missing: Missing = "error",
    device: Any = None,
) -> list[Moments]:
    """The moments of each fold of rows, whose folds are known."""
    how = _Pass(form, missing, device)
    return how.over_checked(check_blocks(blocks), sample_weight, ids)


def _no_rows(like: Array, form: Form, widths: Sequence[int]) -> Sums:
    """The sums of no complete row, where another array is."""
    xp, device, d = namespace(like), device_of(like), sum(widths)

    def zeros(*shape: int) -> Array:
        return xp.zeros(shape, dtype=xp.float64, device=device)

    height = d if form == "scatter" else 0
    return Sums(0.0, zeros(d), zeros(height, d), zeros(d), zeros(len(widths)), 0)
