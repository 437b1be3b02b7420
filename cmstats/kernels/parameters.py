"""What a kernel's dispatcher and its routes exchange: checked parameters, and sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cmstats.arrays import Array

__all__ = ["CovarianceType", "MixtureSums", "Normals", "Second", "Spec"]

CovarianceType = Literal["full", "tied", "diag", "low_rank"]
Second = Literal["full", "diag", "none"]


class Spec(NamedTuple):
    """A kernel of the table in `gram`, with its parameters."""

    name: str
    gamma: float
    degree: float
    coef0: float

    def cancels(self, squares: float) -> bool:
        """Whether distances of rows whose squared norms add up to this cancel in float32.

        The rounding error of ``|x|^2 + |y|^2 - 2 x'y`` is about 1e-7 of the first two terms.
        """
        return self.name == "rbf" and float(squares) * self.gamma > 16


@dataclass(frozen=True)
class Normals:
    """k normals in float64, factored: what every version of the kernel starts from.

    Attributes
    ----------
    kind : {"full", "tied", "diag", "low_rank"}
    means : array of shape (k, d)
    whitening : array
        W of each component, upper triangular: (k, d, d) for "full", (1, d, d) for "tied";
        1 / deviation, (k, d), for "diag"; 1 / deviation of the noise for "low_rank".
    constants : array of shape (k,)
        -d/2 log 2 pi - 1/2 log det S
    projections : array of shape (k, d, r), or None
        P of each component for "low_rank": with u the row in units of the noise, I - P P' is
        the symmetric root of the inverse of u's covariance.
    """

    kind: CovarianceType
    means: Array
    whitening: Array
    constants: Array
    projections: Array | None = None


@dataclass(frozen=True)
class MixtureSums:
    """Sums over the rows under the responsibilities, about the means they were made with.

    Attributes
    ----------
    log_likelihood : float
        Sum of w log p(x).
    n : array of shape (k,)
    first : array of shape (k, d)
    second : array of shape (k, d, d) or (k, d), or None
    """

    log_likelihood: float
    n: Array
    first: Array
    second: Array | None

    def __add__(self, other: MixtureSums) -> MixtureSums:
        second = None if self.second is None else self.second + other.second
        return MixtureSums(
            self.log_likelihood + other.log_likelihood,
            self.n + other.n,
            self.first + other.first,
            second,
        )
