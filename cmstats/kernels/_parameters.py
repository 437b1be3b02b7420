"""The checked parameters that a kernel's dispatcher hands to its routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cmstats._array import Array

__all__ = ["CovarianceType", "Normals", "Spec"]

CovarianceType = Literal["full", "tied", "diag"]


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
    kind : {"full", "tied", "diag"}
    means : array of shape (k, d)
    whitening : array
        W of each component, upper triangular: (k, d, d) for "full", (1, d, d) for "tied";
        1 / deviation, (k, d), for "diag".
    constants : array of shape (k,)
        -d/2 log 2 pi - 1/2 log det S
    """

    kind: CovarianceType
    means: Array
    whitening: Array
    constants: Array
