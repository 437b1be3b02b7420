"""Shifted systems of one symmetric matrix, from its tridiagonal or diagonal form.

With S = Q T Q' the matrix (1 - s) S + s I is Q [(1 - s) T + s] Q' for every s. Where T is
tridiagonal, Q costs about a third of what eigenvectors cost, and each s then takes a few operations
for each number of the right side (Golub and Van Loan, Matrix Computations, sections 8.3 and 4.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from cmstats.arrays import Array, float64, is_numpy, namespace
from cmstats.kernels.linalg import leading_eigh

__all__ = ["SINGLE_FROM", "Pivots", "Reduced", "Tridiagonal"]

SINGLE_FROM = 192
"""From this size on single precision takes about half the time."""


@dataclass(frozen=True)
class Pivots:
    """The lower Cholesky factor L of (1 - s) T + s.

    Attributes
    ----------
    roots : array of shape (n,)
        1 / its diagonal.
    below : array of shape (n,) or None
        What stands below the diagonal, from the second entry on; None where T is diagonal.
    """

    roots: Array
    below: Array | None

    @property
    def logdet(self) -> float:
        """log det [(1 - s) T + s]."""
        xp = namespace(self.roots)
        return -2 * float(xp.sum(xp.log(self.roots)))

    def solve(self, A: Array) -> tuple[Array, Array]:
        """L^-1 A, shape (n, m), and the sum of squares of each column, shape (m,)."""
        xp = namespace(A)
        if self.below is None:
            B = A * xp.astype(self.roots, A.dtype)[:, None]
            return B, xp.sum(B * B, axis=0)
        from cmstats.kernels._cpu.tridiagonal import solved

        B, squares = solved(self.roots, self.below, np.ascontiguousarray(A, dtype=np.float32))
        return B, squares


@dataclass(frozen=True)
class Tridiagonal:
    """T of S = Q T Q', with Q'Q = I and S positive semi-definite.

    Attributes
    ----------
    diagonal : array of shape (n,), float64
    beside : array of shape (n - 1,) or None
        The diagonal beside it; None where T is diagonal, and its entries the eigenvalues of S.
    """

    diagonal: Array
    beside: Array | None = None

    @classmethod
    def of(cls, S: Array) -> tuple[Self, Array]:
        """T and Q of a symmetric matrix; of large ones in single precision.

        NumPy's large matrices become tridiagonal, those of other libraries and small ones diagonal.
        """
        xp, n = namespace(S), int(S.shape[0])
        single = n >= SINGLE_FROM
        S = xp.astype(S, xp.float32) if single else S
        if single and is_numpy(xp):
            from cmstats.kernels._cpu.tridiagonal import reduced

            diagonal, beside, Q = reduced(S)
            return cls(float64(diagonal), float64(beside)), Q
        values, Q = leading_eigh(S, n)
        values = float64(values)
        return cls(xp.where(values > 0, values, 0.0)), Q

    def pivots(self, s: float) -> Pivots:
        """The Cholesky factor of (1 - s) T + s, for s above 0 or an invertible T."""
        if self.beside is None:
            return Pivots(1 / namespace(self.diagonal).sqrt((1 - s) * self.diagonal + s), None)
        from cmstats.kernels._cpu.tridiagonal import pivots

        return Pivots(*pivots(self.diagonal, self.beside, s))

    @property
    def order(self) -> int:
        """Rows and columns."""
        return int(self.diagonal.shape[0])

    def times(self, factor: float) -> Self:
        """That of a multiple of S."""
        beside = None if self.beside is None else self.beside * factor
        return type(self)(self.diagonal * factor, beside)


class Reduced(NamedTuple):
    """A covariance matrix C, of which systems for many s are solved.

    Attributes
    ----------
    T : Tridiagonal
    vectors : array of shape (d, r)
        V, with C = V T V' and V'V = I.
    inner : bool
        Whether instead C = V V' and V'V = T, as where r < d. Then ((1 - s) C + s I)^-1 is
        [I - (1 - s) V ((1 - s) T + s I)^-1 V'] / s (Woodbury).
    """

    T: Tridiagonal
    vectors: Array
    inner: bool = False

    def times(self, factor: float) -> Self:
        """That of a multiple of C."""
        vectors = self.vectors * factor**0.5 if self.inner else self.vectors
        return self._replace(T=self.T.times(factor), vectors=vectors)

    def as_inner(self) -> Self:
        """With V V' = C, where T is diagonal; as it is where it is not."""
        if self.inner or self.T.beside is not None:
            return self
        root = namespace(self.vectors).sqrt(self.T.diagonal)
        return self._replace(
            vectors=self.vectors * namespace(root).astype(root, self.vectors.dtype), inner=True
        )
