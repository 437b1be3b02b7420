"""Impute NaN by conditional means."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cmstats.arrays import (
    Array,
    dense,
    device_of,
    float64,
    namespace,
    result_dtype,
    take_rows,
)
from cmstats.kernels import whitening
from cmstats.moments.patterns import Mask, incomplete_rows
from cmstats.rows.source import MappedRows, RowSource

__all__ = ["FilledRows", "Filler"]


class Filler:
    """Imputes NaN by the conditional mean given the observed entries, E[x_lost | x_seen].

    Parameters
    ----------
    mean : array of shape (p,)
    covariance : array of shape (p, p)
    """

    def __init__(self, mean: Array, covariance: Array) -> None:
        self.mean = mean
        self.covariance = covariance

    @property
    def width(self) -> int:
        """The number of columns."""
        return int(self.mean.shape[0])

    @functools.cached_property
    def _precision(self) -> Array | None:
        """The inverse covariance; None where there is none."""
        factor = whitening.factor(self.covariance)
        if factor.rank < self.mean.shape[0]:
            return None
        return factor.weights @ factor.weights.mT

    def __call__(self, rows: Any) -> Any:
        """The rows with every NaN filled in; the rows themselves where there is none."""
        complete, groups = incomplete_rows([rows])
        if not groups:
            return rows
        xp = namespace(rows, self.mean)
        whole = np.flatnonzero(complete)
        parts = [take_rows(rows, self._at(whole))] if whole.size else []
        parts = [xp.astype(p, result_dtype(rows)) for p in parts]
        order = [whole] + [at for _, at in groups]
        for seen, at in groups:
            part = self._filled(float64(take_rows(rows, self._at(at))), seen)
            parts.append(xp.astype(part, result_dtype(rows)))
        back = self._at(np.argsort(np.concatenate(order)))
        return xp.take(xp.concat(parts), back, axis=0)

    def drawn(self, rows: Any, random: np.random.RandomState) -> Any:
        """The rows with every NaN replaced by a draw from its distribution given the others.

        A whole row is drawn; its residual, given its own entries in the observed columns, is
        added to the conditional mean.
        """
        xp = namespace(rows, self.mean)
        noise = xp.asarray(random.standard_normal(rows.shape), device=device_of(self.mean))
        values, vectors = xp.linalg.eigh(self.covariance)
        root = vectors * xp.sqrt(xp.where(values > 0, values, 0.0))[None, :]
        other, gaps = self.mean + noise @ root.mT, xp.isnan(rows)
        nan = xp.asarray(float("nan"), dtype=other.dtype, device=device_of(other))
        apart = other - self(xp.where(gaps, nan, other))
        return xp.where(gaps, self(rows) + xp.astype(apart, rows.dtype), rows)

    def _at(self, positions: np.ndarray[Any, Any]) -> Array:
        return namespace(self.mean).asarray(positions, device=device_of(self.mean))

    def _filled(self, rows: Array, seen: Mask) -> Array:
        xp = namespace(self.mean)
        o, m = self._at(np.flatnonzero(seen)), self._at(np.flatnonzero(~seen))
        back = self._at(np.argsort(np.concatenate([np.flatnonzero(seen), np.flatnonzero(~seen)])))
        known = xp.take(rows, o, axis=1)
        about = xp.take(self.mean, m)[None, :]
        lost = (known - xp.take(self.mean, o)[None, :]) @ self._slopes(o, m) + about
        return xp.take(xp.concat([known, lost], axis=1), back, axis=1)

    def _slopes(self, o: Array, m: Array) -> Array:
        """The regression of the columns m on the columns o, (|o|, |m|), by the smaller solve."""
        xp = namespace(self.mean)
        if not o.shape[0]:
            return xp.zeros((0, m.shape[0]), dtype=xp.float64, device=device_of(self.mean))
        P = self._precision if m.shape[0] < o.shape[0] else None
        source, key = (self.covariance, o) if P is None else (P, m)
        own = xp.take(xp.take(source, key, axis=0), key, axis=1)
        W = whitening.factor(own).weights
        cross = xp.take(xp.take(source, o, axis=0), m, axis=1)
        if P is None:
            return W @ (W.mT @ cross)
        # x_lost - mean = -P_mm^-1 P_mo (x_seen - mean)
        return -(cross @ W @ W.mT)


class FilledRows(MappedRows):
    """Rows with every NaN filled in as they are read."""

    def __init__(self, rows: RowSource, fill: Filler) -> None:
        super().__init__(rows, lambda part, _: fill(dense(part)), fill.width)
