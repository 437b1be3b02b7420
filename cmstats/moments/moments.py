"""`Moments`: the sufficient statistics of linear-Gaussian models.

The weighted count, the mean and the centred second moments of named blocks of columns side by
side, as the scatter matrix or as a factor of it. Moments of parts of the rows merge, so that they
stream, split into folds, and replace the rows.
"""

from __future__ import annotations

import functools
import operator
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from cmstats.arrays import Array, device_of, is_dask, namespace, observations, warn
from cmstats.kernels import whitening
from cmstats.kernels.threads import blas_for
from cmstats.kernels.tridiagonal import Reduced
from cmstats.moments import dask as _dask
from cmstats.moments.block_sums import FILE_VERSION, BlockSums
from cmstats.moments.checkpoint import (
    split_folds,
    write_arrays,
)
from cmstats.moments.collect import Pass, collect_rows
from cmstats.moments.covariance import sums_of_covariance
from cmstats.moments.missing import (
    Estimate,
    estimate,
)
from cmstats.moments.partial import Partialled, residuals
from cmstats.moments.patterns import Missing, Pattern, PatternTable
from cmstats.moments.shrinkage import Shrunk, Target
from cmstats.moments.sums import (
    Form,
    LeastSquares,
    Part,
    Root,
    Scatter,
    Spectrum,
    degrees_of_freedom,
)
from cmstats.moments.whitened import Whitened
from cmstats.rows.names import naming_columns
from cmstats.rows.splits import Folds, deal

__all__ = ["Moments", "folds_of_batches", "folds_of_rows", "moments_of_rows"]


class Moments(BlockSums):
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
    column_names : dict of name to tuple of str
        The names of the columns of blocks that were frames.
    nuisance_rank : int
        The degrees of freedom that `partial_out` has cost.
    diagonal : str or None
        The block of which only the variances were collected.
    form : {"scatter", "root"}
        "scatter" holds the d x d scatter matrix S; "root" a thin factor R with R'R = S and
        at most min(n, d) rows, which keeps the condition number of the data instead of its
        square and is small for wide data.
    sums : Scatter or Root
        The sums over all columns side by side, with the algebra of this form
        (`cmstats.moments.sums`).

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

    _partialled: tuple[Partialled, ...] = ()
    """The regressions that `partial_out` has removed, one after the other."""

    def __init__(
        self,
        names: Sequence[str],
        widths: Sequence[int],
        sums: Scatter | Root,
        table: PatternTable | None = None,
        column_names: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(names, widths, sums, table, column_names)
        self._estimate: Estimate | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or pickle: everything but the lock."""
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @property
    def sums(self) -> Scatter | Root:
        """The sums over all columns side by side; where entries are missing, the estimate's."""
        found = self.estimate
        return self._complete if found is None else found.sums

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
        diagonal: str | None = None,
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
            maximum likelihood estimates, in the scatter form. Where some two columns are observed
            together in at most three times as many rows as there are columns, they are the mode
            under a prior that counts as ``estimate.prior`` rows without correlations, the more
            the more gaps there are: all covariances are smaller then
            (`cmstats.moments.missing.estimate`).
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
        diagonal : str, optional
            The last block, if of its columns variances and products with other blocks are enough:
            for regressions on these, in less time, and in memory that does not grow with the
            square of very many targets. What needs the products among them then raises.
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
        how = Pass(form, missing, device, rows, checkpoint, progress, diagonal)
        return cls._of(how.over_rows(blocks, sample_weight))[0]

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
        diagonal: str | None = None,
    ) -> Moments:
        """The moments of a stream of batches: tuples (x, y) or dicts of named blocks.

        Parameters
        ----------
        source : iterable of tuples or dicts of arrays
            Batches of any sizes; small ones are put together before they are multiplied.
        form : {"scatter", "root"}, default="scatter"
        names : sequence of str, default=("x", "y")
            Names of the blocks of batches that are tuples.
        missing, device, progress, diagonal
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
            If there are no rows, or a batch does not fit the first (the message names it).

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> X = np.arange(12.0).reshape(6, 2)
        >>> Moments.from_batches((X[i : i + 2], X[i : i + 2, :1]) for i in (0, 2, 4)).n
        6.0
        """
        how = Pass(form, missing, device, rows, checkpoint, progress, diagonal)
        return cls._of(how.over_stream(source, names))[0]

    @classmethod
    def from_covariance(
        cls, S: Any, n: float, *, mean: Any = None, blocks: Mapping[str, int]
    ) -> Moments:
        """The moments of rows of which only the covariance was published.

        Models and tests that need first and second moments alone are those of the rows. The
        shrinkage "auto" is that of Chen et al. (2010) here, which needs no fourth moments.

        Parameters
        ----------
        S : array-like of shape (d, d)
            The covariance of all columns side by side (divided by n - 1), or their correlations.
            The names of the columns of a frame are kept.
        n : float
            The number of rows that it was computed from.
        mean : array of shape (d,), optional
            Zero by default.
        blocks : mapping of name to number of columns
            In the order of the columns of `S`.

        Returns
        -------
        Moments
            In the scatter form.

        Raises
        ------
        ValueError
            If `S` is not square, symmetric and positive semi-definite, `n` is not more than 1,
            or the widths of the blocks do not add up.

        Examples
        --------
        Two measures of the head and two of the leg of 276 chickens (Johnson and Wichern 2007,
        chapter 10):

        >>> import numpy as np
        >>> from cmstats import CCA, Moments
        >>> R = np.array([[1, .505, .569, .602], [.505, 1, .422, .467],
        ...               [.569, .422, 1, .926], [.602, .467, .926, 1]])
        >>> m = Moments.from_covariance(R, 276, blocks={"x": 2, "y": 2})
        >>> CCA().fit_moments(m).correlations_.round(3)
        array([0.631, 0.057])
        """
        return cls._of([sums_of_covariance(S, n, mean, blocks)])[0]

    @classmethod
    def folds_from_batches(
        cls,
        source: Iterable[Any],
        *,
        cv: Any = 5,
        groups: Any = None,
        form: Form = "scatter",
        names: Sequence[str] = ("x", "y"),
        missing: Missing = "error",
        device: Any = None,
        rows: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
        diagonal: str | None = None,
    ) -> list[Moments]:
        """The moments of each fold of a stream of batches: those of `folds` of all its rows.

        Parameters
        ----------
        source : iterable of tuples or dicts of arrays
        cv : int, default=5
            Row i of the stream is in fold i mod `cv`, however the rows are parted into batches.
        groups : array of shape (n,), optional
            A label for each row of the stream; see `folds`.
        form, names, missing, device, rows, checkpoint, progress, diagonal
            As in `from_batches`.

        Returns
        -------
        list of Moments, one for each fold

        Raises
        ------
        ValueError
            If `cv` is no int of at least 2, there are fewer rows than folds, `groups` has another
            length than the stream, or as in `from_batches`.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> batches = ({"x": np.eye(3)} for _ in range(3))
        >>> [m.n for m in Moments.folds_from_batches(batches, cv=2)]
        [5.0, 4.0]
        """
        how = Pass(form, missing, device, rows, checkpoint, progress, diagonal)
        folds = deal(cv, None, groups=groups)
        return cls._of(how.over_stream(source, names, folds))

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
        diagonal: str | None = None,
        **blocks: Any,
    ) -> list[Moments]:
        """The moments of each fold of the rows, in one pass.

        The training moments of a split are the merge of the other folds.

        Parameters
        ----------
        cv : int, splitter or iterable of (train, test), default=5
            An int K puts row i into fold i mod K, or with `groups` the g-th group that appears
            (from 0) into fold g mod K. It means this everywhere in the package, because it is the
            one rule that needs no row but those seen so far: streams, `partial_fit`, shards and
            Dask chunks deal as a fit in memory does. A scikit-learn splitter, or explicit splits,
            must part the rows: every row in one test set.
        form, sample_weight, missing, device, rows, checkpoint, progress, diagonal, **blocks
            As in `from_data`. Incomplete folds are tables of patterns, so that training moments
            are estimated anew for each fold. `Moments.load` of a checkpoint merges the folds.
        groups : array of shape (n,), optional
            Labels (numbers, strings, dates) of rows that depend on each other: captions of one
            image, scans of one subject, frames of one film. Rows of one label are in one fold.
            Handed to a splitter.

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
        >>> [m.n for m in Moments.folds(cv=2, groups=["a", "a", "b", "c", "c"], x=np.eye(5))]
        [4.0, 1.0]
        """
        how = Pass(form, missing, device, rows, checkpoint, progress, diagonal)
        return cls._of(how.over_rows(blocks, sample_weight, cv=cv, groups=groups))

    @classmethod
    def _of(cls, collected: Iterable[BlockSums]) -> list[Moments]:
        """The moments of the sums of each fold."""
        return [cls(c.names, c.widths, c._complete, c._table, c.column_names) for c in collected]

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
            form=self.form, sample_weight=sample_weight, missing=missing, diagonal=self.diagonal,
            **blocks,
        )  # fmt: skip
        self._complete, self._table, self._estimate = both._complete, both._table, None
        return self

    def complete_rows(self) -> Moments | None:
        """The moments of the rows in which everything is observed; None if there are none."""
        if not self._complete.rows:
            return None
        return self if self._table is None else self.with_sums(self._complete)

    def patterns(self) -> list[Pattern]:
        """The moments of the rows of each pattern of observed columns, complete rows first."""
        c = self._complete
        everything = np.ones(sum(self.widths), dtype=bool)
        found = []
        if c.rows:
            every = slice(0, everything.size)
            found.append(Pattern(everything, c.n, c.rows, c.mean, c.scatter(every, every)))
        for mask, s in () if self._table is None else self._table.items():
            found.append(Pattern(mask, s.n, s.rows, s.mean, s.matrix))
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
                with blas_for(sum(self.widths)), naming_columns(self.column_names):
                    self._estimate = estimate(self.sums_by_pattern(), self.names, self.widths)
            return self._estimate

    def mean(self, name: str) -> Array:
        """The mean of a block, shape (p,)."""
        return self.sums.mean[self.columns(name)]

    def scatter(self, a: str, b: str | None = None) -> Array:
        """The centred second moments sum w (a - mean)(b - mean)', shape (p_a, p_b)."""
        return self.sums.scatter(self.columns(a), self.columns(b or a))

    def cov(self, a: str, b: str | None = None, *, ddof: float = 1) -> Array:
        """The covariance of two blocks (of one with itself), shape (p_a, p_b).

        Raises
        ------
        ValueError
            If there are no more than `ddof` rows.
        """
        if observations(self.n, self.rows) <= ddof:
            raise ValueError(f"a covariance with ddof={ddof} needs more than {self.n:g} rows")
        return self.scatter(a, b) / self.freedom(ddof)

    def freedom(self, ddof: float = 1) -> float:
        """What the scatter is divided by for a covariance.

        The sum of the weights less `ddof`. Weights that add up to less than two rows do not count
        rows: they are relative, and the divisor is that of as many observations as there are rows.
        """
        return degrees_of_freedom(self.n, self.rows, ddof)

    def variance(self, name: str, *, ddof: float = 1) -> Array:
        """The variance of each column of a block, shape (p,)."""
        return self.sums.variance(self.columns(name), ddof)

    def constant(self, name: str) -> Array:
        """Which columns of a block do not vary beyond the rounding of their mean, shape (p,)."""
        return self.sums.constant(self.columns(name))

    def projected_scatter(self, a: str, b: str, weights: Array) -> Array:
        """``scatter(a, b) @ weights`` without forming a wide block's scatter."""
        return self.sums.project(self.columns(a), self.columns(b), weights)

    def paired_scatter(self, a: str, b: str) -> Array:
        """The diagonal of ``scatter(a, b)`` of two blocks of one width, shape (p,)."""
        return self.sums.paired(self.columns(a), self.columns(b))

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
        xp = namespace(self.sums.mean, A, B)
        # The variance of a constant column is a rounding error: it takes no part.
        A = A * self.sums.varying(self.columns(a))[:, None]
        B = B * self.sums.varying(self.columns(b))[:, None]
        aA, bB = self.projected_scatter(a, a, A), self.projected_scatter(b, b, B)
        # The product of the roots: the root of the product can overflow.
        spread = _root(xp.sum(A * aA, axis=0)) * _root(xp.sum(B * bB, axis=0))
        shared = xp.sum(A * self.projected_scatter(a, b, B), axis=0)
        fixed = ~(spread > 0)
        if bool(xp.any(fixed)):
            warn(
                f"{int(xp.count_nonzero(fixed))} of {A.shape[1]} correlations are NaN: a variate "
                f"is constant over these {self.n:g} rows",
                UndefinedMetricWarning,
            )
        nan = xp.asarray(float("nan"), dtype=xp.float64, device=device_of(spread))
        ratio = shared / xp.where(fixed, 1.0, spread)
        return xp.where(fixed, nan, xp.clip(ratio, -1.0, 1.0))

    def take(self, columns: np.ndarray[Any, Any], widths: Mapping[str, int]) -> Moments:
        """The moments of some columns, by position, as blocks of these names and widths."""
        return self.derived(tuple(widths), tuple(widths.values()), self.sums.take(columns))

    def relabelled(self, widths: Mapping[str, int]) -> Moments:
        """The same columns as other blocks, without the norms that `ledoit_wolf` takes.

        Where entries are missing, they are estimated anew for these blocks.
        """
        names, each = tuple(widths), tuple(widths.values())
        return self.derived(names, each, self._complete.without_norms(), self._table)

    def without_norms(self) -> Moments:
        """First and second moments alone: cheaper to merge, where `ledoit_wolf` is not asked."""
        return self.with_sums(self._complete.without_norms(), self._table)

    def scaled(self, unit: Array) -> Moments:
        """The moments of the centred columns, all blocks side by side, times these units."""
        return self.with_sums(self.sums.scaled(unit))

    def mixed(self, a: str, b: str, own: float, other: float) -> Moments:
        """The moments with ``own * a + other * b``, ``other * a + own * b`` for adjacent blocks."""
        return self.with_sums(self.sums.mixed(self.columns(a), self.columns(b), own, other))

    def about_origin(self) -> Moments:
        """Second moments about the origin, with means of zero: of a model without intercept."""
        return self.with_sums(self.sums.about_origin())

    def rotated(self) -> Moments:
        """The same moments in rotated coordinates, with no block wider than the root is high.

        For what does not depend on the rotation of a block. Means are lost.
        """
        sums, widths = self.sums.rotated([self.columns(name) for name in self.names])
        return self.derived(self.names, widths, sums)

    def turned(self, name: str, parts: Sequence[Part]) -> Moments:
        """The moments with a block in other coordinates: in turn some columns, times a basis."""
        at, sums = self.columns(name), self.sums.turned(self.columns(name), parts)
        gained = int(sums.mean.shape[0]) - sum(self.widths)
        widths = [
            width + gained * (self.columns(own) == at)
            for own, width in zip(self.names, self.widths, strict=True)
        ]
        return self.derived(self.names, tuple(widths), sums)

    def partial_out(self, name: str) -> Moments:
        """The moments of the other blocks after regression on this one.

        The residual scatter is the Schur complement S_ab - S_az S_zz^+ S_zb. Means and the
        count stay, so that `cov` has the rows' ddof: for residual variances that are unbiased
        pass ``ddof=1 + rank of the block``. A model fitted to these moments is that of the
        residuals of a regression on the block with an intercept: partial CCA, ridge with
        unpenalised covariates. The result remembers the regression: `canonical_correlation_test`
        takes the rank of the block off the degrees of freedom, and `residuals` removes the
        block from other rows.

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

        Warns
        -----
        UserWarning
            If the scatter form holds too few digits of what is left of a column: where the block
            explains all of it, or is far larger than the rest.

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
        >>> bool(canonical_correlation_test(cca)["wilks_p"][1] > 0.05)
        True
        """
        rest = [other for other in self.names if other != name]
        if not rest:
            raise ValueError(
                f"{name!r} is the only block: nothing is left after partialling it out"
            )
        columns = self.positions(rest)
        sums, weights, half = self.sums.partial_out(self.columns(name), columns)
        widths = [self.width(other) for other in rest]
        lost = self.sums.take(columns).cancelled_in(sums)
        if lost.size:
            end = int(np.searchsorted(np.cumsum(widths), lost[0], side="right"))
            warn(
                f"the regression on {name} leaves less of {lost.size} of the columns than second "
                f"moments in the scatter form hold (the first is column "
                f"{lost[0] - sum(widths[:end])} of {rest[end]}): collect them with form='root'"
            )
        found = self.derived(rest, widths, sums, None, self._named(rest))
        patterns = {other: half[:, found.columns(other)].mT for other in rest}
        regression = Partialled(name, self.mean(name), weights, patterns)
        found._partialled = (*self._partialled, regression)
        found.nuisance_rank += int(weights.shape[1])
        return found

    def residuals(self, **blocks: Any) -> Any:
        """Rows less what the block that was partialled out explains of them.

        With the regressions of the rows behind these moments: other rows become what a model of
        these moments takes, in `transform`, `predict` or `score`.

        Parameters
        ----------
        **blocks : array-likes of equally many rows
            By name, and with them every block that was partialled out.

        Returns
        -------
        array, or tuple of arrays in the order of the blocks given
            Rows about the means of the blocks, which stay.

        Raises
        ------
        ValueError
            If nothing was partialled out of these moments, the nuisance block is missing, or
            lengths or widths do not fit.
        KeyError
            If there was no such block.

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import CCA, Moments
        >>> rng = np.random.default_rng(0)
        >>> age = rng.normal(size=(200, 1))
        >>> X, Y = age + rng.normal(size=(200, 2)), age + rng.normal(size=(200, 2))
        >>> old, new = slice(0, 150), slice(150, 200)
        >>> beyond = Moments.from_data(x=X[old], y=Y[old], age=age[old]).partial_out("age")
        >>> cca = CCA().fit_moments(beyond)
        >>> score = cca.score(*beyond.residuals(x=X[new], y=Y[new], age=age[new]))
        >>> bool(score < 0.3)
        True
        """
        if not self._partialled:
            raise ValueError(
                "nothing was partialled out of these moments: residuals are of those that "
                "partial_out returned, neither merged nor standardised"
            )
        found = residuals(self._partialled, blocks)
        return found[0] if len(found) == 1 else found

    def standardized(self) -> Moments:
        """The moments of the centred columns divided by their standard deviations (ddof=1).

        Constant columns become zero.
        """
        sums, every = self.sums, slice(0, sum(self.widths))
        xp, constant = namespace(sums.mean), sums.constant(every)
        deviation = xp.sqrt(xp.where(constant, 1.0, sums.variance(every)))
        return self.scaled(xp.where(constant, 0.0, 1 / deviation))

    def shrunk(
        self,
        shrinkage: Any,
        *,
        scale: bool | Literal["block"] = False,
        target: Target = "independent",
        blocks: Sequence[str] | None = None,
        monotone: bool = True,
    ) -> Shrunk:
        """The second moments after coherent shrinkage, as a read-only view.

        Diagonal blocks are ``(1 - s) C + s tr(C) / p I``, cross blocks
        ``sqrt((1 - s_a)(1 - s_b)) C_ab``, with the aligned target plus
        ``sqrt(s_a s_b) tr(C_ab) / p I``.

        Parameters
        ----------
        shrinkage : float, "auto", or one of these for each block
            "auto" is `ledoit_wolf`.
        scale, target, blocks, monotone
            See `Shrunk`.

        Returns
        -------
        Shrunk

        Examples
        --------
        >>> import numpy as np
        >>> from cmstats import Moments
        >>> X = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, -2.0]])
        >>> Moments.from_data(x=X).shrunk(0.5).cov("x")
        array([[1.75, 0.5 ],
               [0.5 , 3.25]])
        """
        return Shrunk(self, shrinkage, scale=scale, target=target, blocks=blocks, monotone=monotone)

    def whiten(
        self, name: str, *, keep: float = 1.0, ridge: float | Array = 0.0, ddof: float = 1
    ) -> Whitened:
        """Whiten ``keep * C + ridge * I`` with C the covariance of a block.

        Parameters
        ----------
        name : str
        keep, ridge : float
            The coefficients; `ridge` may be an array of one number for each column.
        ddof : float, default=1
            Of the covariance.

        Returns
        -------
        Whitened
            Constant columns have weight 0.
        """
        at = self.columns(name)
        factor = self.sums.whiten(at, keep=keep, ridge=ridge, ddof=ddof)
        return Whitened(self, name, factor, ddof)

    def whiten_leading(self, name: str, share: float) -> Whitened:
        """Whiten the leading principal components of a block that hold a share of its variance."""
        return Whitened(self, name, self.sums.whiten_leading(self.columns(name), share))

    def spectrum(self, a: str, b: str, unit: Array | None = None) -> Spectrum:
        """The eigenvalues of ``scatter(a)``, and ``scatter(a, b)`` in its eigenvectors.

        With `unit` those of the columns of a times these factors.
        """
        return self.sums.spectrum(self.columns(a), self.columns(b), unit)

    def cholesky(self, a: str, b: str, ridge: float) -> tuple[whitening.Factor, Array] | None:
        """W with ``W' (scatter(a) + ridge I) W = I``, and ``W' scatter(a, b)``.

        None where Cholesky's factorisation is not to be trusted: take the `spectrum`.
        """
        return self.sums.cholesky(self.columns(a), self.columns(b), ridge)

    def eigenpairs(self, name: str | None = None) -> tuple[Array, Array]:
        """The nonzero eigenvalues of the covariance (ddof=1) of a block, or of all; vectors.

        Shapes (r,) and (p, r), largest first.
        """
        at = self._block(name)
        values, vectors = self.sums.principal(at, at.stop - at.start)
        return values * (self.n / self.freedom()), vectors

    def reduced(self, name: str | None = None) -> Reduced:
        """The covariance (ddof=1) of a block, or of all, for systems of many shrinkages.

        It is as accurate as comparing scores of shrunken models takes.
        """
        return self.sums.reduced(self._block(name)).times(self.n / self.freedom())

    def _block(self, name: str | None) -> slice:
        """The columns of a block, or all."""
        return slice(0, sum(self.widths)) if name is None else self.columns(name)

    def principal(self, name: str, k: int) -> tuple[Array, Array]:
        """The k largest eigenvalues of a block's covariance (ddof=0), without zeros; vectors."""
        return self.sums.principal(self.columns(name), k)

    def least_squares(self, a: str, b: str, basis: Array | None = None) -> LeastSquares:
        """The regression of block b on block a, whose coefficients are those of a basis of it."""
        return self.sums.least_squares(self.columns(a), self.columns(b), basis)

    def ledoit_wolf(self, name: str, *, dimension: float | None = None) -> float:
        """The shrinkage of one block that is best for its covariance, in [0, 1].

        Ledoit and Wolf (2004) from the block's fourth moments; oracle approximating
        shrinkage (Chen, Wiesel, Eldar and Hero 2010) where only second moments are left
        (after `standardized` or `partial_out`).

        Parameters
        ----------
        name : str
        dimension : float, optional
            Of the space that the block's columns span a part of, in which it has no variance
            elsewhere: the width by default.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.covariance import ledoit_wolf_shrinkage
        >>> X = np.random.default_rng(0).standard_normal((40, 5))
        >>> s = Moments.from_data(x=X).ledoit_wolf("x")
        >>> bool(np.isclose(s, ledoit_wolf_shrinkage(X)))
        True
        """
        sums = self.sums
        xp = namespace(sums.mean)
        # Of incomplete rows, only those that also have entries of other blocks count.
        p = dimension or self.width(name)
        n = observations(self.weight_together, self.rows_together)
        if p == 1:
            return 0.0  # its own trace is the target
        trace = float(xp.sum(self.variance(name, ddof=0)))
        if trace == 0:
            return 0.0
        # In units of the trace, so that only the fourth moments can leave the range.
        S = sums.gram(self.columns(name)) / (sums.n * trace)
        square = float(xp.sum(S * S))
        spread = square - 1 / p
        if spread <= 0:
            return 1.0
        if sums.norms is None:
            return min((square + 1) / ((n + 1) * spread), 1.0)
        # The mean fourth power of the norm.
        fourth = float(sums.norms.fourth[self.names.index(name)]) / trace / trace / sums.n
        if not 0 < fourth < float("inf"):
            raise ValueError(
                f"the fourth moments of {name} leave the range of double precision: its values "
                "are too large or too small; divide them by a constant"
            )
        return max(0.0, min((fourth - square) / n, spread) / spread)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one file (NumPy's .npz, without pickle), whole or not at all."""
        write_arrays(Path(path), self.fields())

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
        return functools.reduce(operator.add, map(cls.from_fields, folds))

    def __repr__(self) -> str:
        also = ""
        if self._table is not None:
            also = f", patterns={len(self._table.sums) + (self._complete.rows > 0)}"
        if self.diagonal is not None:
            also = f", diagonal={self.diagonal!r}"
        return f"Moments(n={self.n:g}, form={self.form!r}, columns=({self.described()}){also})"


def moments_of_rows(
    blocks: dict[str, Any], how: Pass, sample_weight: Any, folds: Folds
) -> list[Moments]:
    """The moments of each fold of rows, whose folds are known."""
    return Moments._of(collect_rows(blocks, how, sample_weight, folds))


def folds_of_rows(
    blocks: dict[str, Any], folds: Folds | None, how: Pass, sample_weight: Any = None
) -> list[Moments | None]:
    """The moments of each fold of rows, None for a fold without a row; of all without `folds`."""
    if folds is None:
        return [*Moments._of(how.over_rows(blocks, sample_weight))]
    if any(map(is_dask, blocks.values())):
        return _dask.fold_moments(moments_of_rows, blocks, how, sample_weight, folds)
    made = moments_of_rows(blocks, how, sample_weight, folds)
    return [m if m.rows_seen else None for m in made]


def folds_of_batches(source: Iterable[Any], folds: Folds | None, how: Pass) -> list[Moments]:
    """The moments of each fold of the rows of batches, of all without `folds`."""
    return Moments._of(how.over_stream(source, ("x", "y"), folds))


def _root(squares: Array) -> Array:
    """Square roots; 0 for values that rounding errors made negative."""
    xp = namespace(squares)
    return xp.sqrt(xp.where(squares > 0, squares, 0.0))
