"""A normal distribution of named blocks: marginals, and any blocks given any others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from cmstats.arrays import (
    Array,
    dense,
    device_of,
    namespace,
    result_dtype,
    to_numpy,
)
from cmstats.kernels import normal, whitening
from cmstats.kernels.linalg import block_matrix
from cmstats.moments.moments import Moments
from cmstats.moments.patterns import alike
from cmstats.rows.matrix import check_matrix

__all__ = [
    "Conditional",
    "JointNormal",
    "draw",
    "in_order",
    "observed_groups",
    "pick",
    "real_rows",
]


@dataclass(frozen=True)
class JointNormal:
    """A normal of named blocks of columns side by side.

    Attributes
    ----------
    names, widths : tuple of str, tuple of int
    mean : array of shape (d,)
    covariance : array of shape (d, d)
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    mean: Array
    covariance: Array

    def columns(self, names: Sequence[str]) -> np.ndarray[Any, Any]:
        """The positions of the columns of some blocks, in the order named."""
        starts = dict(zip(self.names, np.cumsum([0, *self.widths[:-1]]).tolist(), strict=True))
        widths = dict(zip(self.names, self.widths, strict=True))
        parts = [np.arange(starts[name], starts[name] + widths[name]) for name in names]
        return np.concatenate(parts) if parts else np.arange(0)

    def block(self, rows: np.ndarray[Any, Any], columns: np.ndarray[Any, Any]) -> Array:
        """The covariance of some columns with others, by position."""
        return pick(pick(self.covariance, rows, 0), columns, 1)

    def mean_of(self, columns: np.ndarray[Any, Any]) -> Array:
        """The means of some columns, by position."""
        return pick(self.mean, columns, 0)

    def regression(
        self, given: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]
    ) -> tuple[Array, Array]:
        """Coefficients (wanted, given) and residual covariance of columns given others.

        ``S_wg S_gg^-1`` and ``S_ww - S_wg S_gg^-1 S_gw``, on the range of S_gg where it is
        singular.
        """
        xp = namespace(self.covariance)
        if not given.size:
            empty = xp.zeros((wanted.size, 0), dtype=xp.float64, device=device_of(self.mean))
            return empty, self.block(wanted, wanted)
        W = whitening.factor(self.block(given, given)).weights
        half = self.block(wanted, given) @ W  # S_wg W, with W W' = S_gg^-1
        residual = self.block(wanted, wanted) - half @ half.mT
        residual = 0.5 * (residual + residual.mT)
        return half @ W.mT, residual

    def condition(self, on: Mapping[str, Any]) -> Conditional:
        """The distribution of the other blocks given rows of some."""
        rest = tuple(name for name in self.names if name not in on)
        given, wanted = self.columns(tuple(on)), self.columns(rest)
        coefficients, covariance = self.regression(given, wanted)
        widths = tuple(self.columns((name,)).size for name in rest)
        mean = self.mean_of(wanted)[None, :]
        if on:
            xp = namespace(self.mean, *on.values())
            Z = xp.concat([xp.astype(a, xp.float64) for a in on.values()], axis=1)
            mean = mean + (Z - self.mean_of(given)) @ coefficients.mT
            mean = xp.astype(mean, result_dtype(next(iter(on.values()))), copy=False)
        return Conditional(rest, widths, mean, covariance)

    def logpdf(self, Z: Array, columns: np.ndarray[Any, Any]) -> Array:
        """The log-density of rows of some columns; NaN entries are integrated out."""
        xp = namespace(self.mean, Z)
        parts, order = [], []
        for mask, rows in observed_groups(Z):
            order.append(rows)
            at = columns[mask]
            if not at.size:
                parts.append(xp.zeros(rows.size, dtype=result_dtype(Z), device=device_of(Z)))
                continue
            part = pick(pick(Z, rows, 0), np.flatnonzero(mask), 1)
            parts.append(normal.logpdf(part, self.mean_of(at), self.block(at, at)))
        return in_order(parts, order)

    def expected_logpdf(
        self, columns: np.ndarray[Any, Any], n: float, mean: Array, scatter: Array
    ) -> float:
        """The mean log-density of some columns over n rows with that mean and scatter."""
        xp = namespace(self.covariance)
        if not columns.size:
            return 0.0
        factor = whitening.factor(self.block(columns, columns))
        W = factor.weights
        shift = (mean - self.mean_of(columns)) @ W
        square = float(xp.sum(W * (scatter @ W)) / n + xp.sum(shift * shift))
        return -0.5 * (columns.size * math.log(2 * math.pi) + factor.log_determinant + square)

    def expected_ratio(self, moments: Moments) -> float:
        """The mean log p(all blocks) - sum of log p(block) over rows with these moments."""
        m = moments.select(*self.names)
        S = block_matrix([[m.scatter(a, b) for b in self.names] for a in self.names])
        means = [m.mean(name) for name in self.names]
        every = self.columns(self.names)
        total = self.expected_logpdf(every, m.n, namespace(*means).concat(means), S)
        for name, mean in zip(self.names, means, strict=True):
            total -= self.expected_logpdf(self.columns((name,)), m.n, mean, m.scatter(name))
        return total

    def expected_conditional(self, moments: Moments, given: str) -> float:
        """The mean log p(rest | given) over rows with gaps, pattern by pattern.

        Over the rows in which something of the other blocks is observed; NaN without any.
        """
        total, n = 0.0, 0.0
        is_given = np.zeros(sum(moments.widths), dtype=bool)
        is_given[moments.columns(given)] = True
        columns = self.columns(moments.names)
        for pattern in moments.patterns():
            seen = np.asarray(pattern.observed)
            if not (seen & ~is_given).any():
                continue
            at = np.flatnonzero(is_given[seen])
            mean, S = pick(pattern.mean, at, 0), pick(pick(pattern.scatter, at, 0), at, 1)
            total += pattern.n * (
                self.expected_logpdf(columns[seen], pattern.n, pattern.mean, pattern.scatter)
                - self.expected_logpdf(columns[seen & is_given], pattern.n, mean, S)
            )
            n += pattern.n
        return total / n if n else math.nan


@dataclass(frozen=True)
class Conditional:
    """A normal distribution for each row, with one covariance: what `condition` returns.

    Attributes
    ----------
    names : tuple of str
        The blocks it is a distribution of.
    widths : tuple of int
        Their numbers of columns.
    means : array of shape (n, d)
        The blocks side by side; one row where nothing was given.
    covariance : array of shape (d, d)
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    means: Array
    covariance: Array

    def _columns(self, names: Sequence[str]) -> np.ndarray[Any, Any]:
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise KeyError(
                f"no block {unknown[0]!r} in this distribution: it is of {', '.join(self.names)}"
            )
        return self._joint().columns(names)

    def _joint(self) -> JointNormal:
        return JointNormal(self.names, self.widths, self.means[0, :], self.covariance)

    def mean(self, name: str) -> Array:
        """The mean of one block for each row, shape (n, p)."""
        at = self._columns((name,))
        return self.means[:, int(at[0]) : int(at[-1]) + 1]

    def cov(self, a: str, b: str | None = None) -> Array:
        """The covariance of two blocks (of one with itself), shape (p_a, p_b)."""
        return self._joint().block(self._columns((a,)), self._columns((b or a,)))

    def logpdf(self, **blocks: Any) -> Array:
        """The log-density of rows of some blocks (the others integrated out), shape (n,).

        Raises
        ------
        ValueError
            If rows or widths are not right, or the covariance is singular.
        """
        if not blocks:
            raise ValueError(f"logpdf needs rows of some of the blocks {', '.join(self.names)}")
        checked = {name: real_rows(a, name) for name, a in blocks.items()}
        at = self._columns(tuple(checked))
        xp = namespace(self.means, *checked.values())
        for name, a in checked.items():
            expected = self._columns((name,)).size
            if a.shape[1] != expected or self.means.shape[0] not in (1, a.shape[0]):
                raise ValueError(
                    f"{name} has shape {tuple(a.shape)}, expected ({self.means.shape[0]}, "
                    f"{expected})"
                )
        Z = xp.concat(list(checked.values()), axis=1)
        residual = Z - xp.astype(pick(self.means, at, 1), result_dtype(Z), copy=False)
        return normal.logpdf(residual, None, self._joint().block(at, at))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> dict[str, Array]:
        """Draws of every block: arrays (n, p), or (n, n_samples, p) for more than one."""
        drawn = draw(self.means, self.covariance, n_samples, check_random_state(random_state))
        out = {}
        for name in self.names:
            at = self._columns((name,))
            out[name] = drawn[..., int(at[0]) : int(at[-1]) + 1]
        return out


def real_rows(a: Any, name: str, *, ensure_finite: Any = True) -> Array:
    """Rows in memory as a dense matrix of floating-point numbers, in the precision of results."""
    rows = dense(check_matrix(a, name, ensure_finite=ensure_finite))
    return namespace(rows).astype(rows, result_dtype(rows), copy=False)


def draw(means: Array, covariance: Array, n_samples: int, random_state: Any) -> Array:
    """Normal draws about each row: (n, d), or (n, n_samples, d) for more than one."""
    xp = namespace(means)
    n, d = means.shape
    values, vectors = xp.linalg.eigh(covariance)  # also where it is singular
    root = vectors * xp.sqrt(xp.where(values > 0, values, 0.0))[None, :]
    noise = xp.asarray(random_state.standard_normal((n * n_samples, d)), device=device_of(means))
    noise = xp.reshape(noise @ root.mT, (n, n_samples, d))
    drawn = xp.astype(noise, means.dtype) + means[:, None, :]
    return drawn[:, 0, :] if n_samples == 1 else drawn


def observed_groups(A: Array) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Which columns are observed in which rows: (mask (d,), row numbers), pattern by pattern."""
    missing = to_numpy(namespace(A).isnan(A))
    for rows in alike(missing):
        yield ~missing[rows[0]], rows


def pick(a: Array, at: np.ndarray[Any, Any], axis: int) -> Array:
    """Entries along an axis, by position."""
    xp = namespace(a)
    return xp.take(a, xp.asarray(at, device=device_of(a)), axis=axis)


def in_order(parts: Sequence[Array], rows: Sequence[np.ndarray[Any, Any]]) -> Array:
    """Results of groups of rows put back in the order of the rows."""
    if len(parts) == 1:
        return parts[0]
    joined = namespace(*parts).concat(list(parts), axis=0)
    return pick(joined, np.argsort(np.concatenate(rows)), 0)
