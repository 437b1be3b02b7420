"""One block in whitened coordinates, and its covariances with other blocks there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmstats.arrays import Array
from cmstats.kernels import whitening

if TYPE_CHECKING:
    from cmstats.moments.moments import Moments

__all__ = ["Whitened"]


@dataclass(frozen=True)
class Whitened:
    """Weights W that whiten one block: ``W' C W = I`` on the range of its (shrunken) covariance C.

    Attributes
    ----------
    moments : Moments
        The block's unshrunken moments, and those of the other blocks.
    name : str
        The block.
    factor : whitening.Factor
    ddof : float
        Of the covariances.
    """

    moments: Moments
    name: str
    factor: whitening.Factor
    ddof: float = 1

    @property
    def weights(self) -> Array:
        """W, shape (p, rank)."""
        return self.factor.weights

    @property
    def rank(self) -> int:
        """The numerical rank of the block."""
        return self.factor.rank

    @property
    def condition(self) -> float:
        """The condition number of the data with columns of one length; infinite if singular."""
        return self.factor.condition

    @property
    def log_determinant(self) -> float:
        """log det C, on the range of C."""
        return self.factor.log_determinant

    def cross(self, other: Whitened) -> Array:
        """``W_a' S_ab W_b`` with the unshrunken covariance S_ab, shape (rank_a, rank_b).

        In the root form it is the product of the whitened roots, which never squares the
        condition number and forms nothing of the size of S_ab.
        """
        left, right = self.factor, other.factor
        if left.root is not None and right.root is not None:
            product: Array = left.root.mT @ right.root
            return product
        S = self.moments.cov(self.name, other.name, ddof=self.ddof)
        return left.weights.mT @ S @ right.weights

    def against(self, name: str) -> Array:
        """``S_ba W_a`` with the unshrunken covariance of another block b, shape (p_b, rank)."""
        m = self.moments
        return m.sums.against(m.columns(name), m.columns(self.name), self.factor, self.ddof)
