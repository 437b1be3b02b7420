"""The checked parameters that a kernel's dispatcher hands to its routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cmstats.arrays import Array

__all__ = ["CovarianceType", "Normals", "Spec"]

CovarianceType = Literal["full", "tied", "diag", "low_rank"]


class Spec(NamedTuple):
    """A kernel of the table in `gram`, with its parameters."""

    name: str
    gamma: float
    degree: float
    coef0: float


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
