"""Columns in groups, and the l1 or group penalty of a matrix between two views of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Groups", "Penalty"]

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]


class Groups:
    """Columns in groups.

    Parameters
    ----------
    codes : integer array of shape (p,)
        The group of each column, from 0.

    Attributes
    ----------
    sizes : array of shape (g,)
    single : bool
        Whether each column is a group, which is then numbered like the columns.
    """

    def __init__(self, codes: Indices) -> None:
        self.sizes = np.bincount(codes)
        self.single = len(self.sizes) == len(codes)
        self.codes = np.arange(len(codes)) if self.single else codes
        self.order = np.argsort(self.codes, kind="stable")
        self.starts = np.append(0, np.cumsum(self.sizes))

    def sums(self, A: Matrix) -> Matrix:
        """The sums of the rows of each group."""
        return A if self.single else np.add.reduceat(A[self.order], self.starts[:-1], axis=0)

    def members(self, groups: Indices) -> Indices:
        """The columns of some groups, group by group."""
        if self.single:
            return groups
        return np.concatenate([self.order[self.starts[g] : self.starts[g + 1]] for g in groups])

    def restricted(self, groups: Indices) -> Groups:
        """Of the columns of some groups, group by group."""
        return Groups(np.repeat(np.arange(len(groups)), self.sizes[groups]))


@dataclass(frozen=True)
class Penalty:
    """The sum over blocks (group of x, group of y) of root size times Frobenius norm."""

    x: Groups
    y: Groups

    @property
    def elementwise(self) -> bool:
        """Whether it is the l1 norm."""
        return self.x.single and self.y.single

    def norms(self, G: Matrix) -> Matrix:
        """The Frobenius norm of each block over the root of its size, (g, h)."""
        if self.elementwise:
            return np.abs(G)
        sizes = np.outer(self.x.sizes, self.y.sizes)
        return np.sqrt(self.y.sums(self.x.sums(G * G).T).T / sizes)

    def largest(self, S: Matrix) -> float:
        """The least penalty of tr(B'S) at which no block is left."""
        return float(self.norms(S).max(initial=0.0))

    def _spread(self, values: Matrix) -> Matrix:
        return values if self.elementwise else values[self.x.codes][:, self.y.codes]

    def shrink(self, B: Matrix, t: float) -> Matrix:
        """The proximal map of t times the penalty; of single entries sign(b) max(|b| - t, 0)."""
        if self.elementwise:
            return B - np.clip(B, -t, t)
        norms = self.norms(B)
        kept = np.where(norms > t, 1 - t / np.where(norms > t, norms, 1.0), 0.0)
        return B * self._spread(kept.astype(B.dtype))

    def violation(self, G: Matrix, B: Matrix, alpha: float) -> float:
        """The largest norm of what no subgradient of the penalty balances of a gradient G at B."""
        norms = self.norms(B)
        there = norms > 0
        beyond = G + alpha * B * self._spread(np.where(there, 1 / np.where(there, norms, 1.0), 0.0))
        return float((self.norms(beyond) - np.where(there, 0.0, alpha)).max())
