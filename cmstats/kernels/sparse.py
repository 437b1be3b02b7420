"""Sparse matrices between two blocks: l1 and group penalties along a path.

Few columns are many small steps, and the solution is wanted along a whole path: both are work of
the CPU, wherever the moments are.

Boyd, S., Parikh, N., Chu, E., Peleato, B. and Eckstein, J. (2011). Distributed optimization and
statistical learning via the alternating direction method of multipliers. Foundations and Trends in
Machine Learning 3.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmstats.kernels.groups import Groups, Penalty
from cmstats.kernels.linalg import qr_r, try_cholesky

__all__ = ["Columns", "SparseBlock", "sparse_path", "sparse_regression"]

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

DENSE = 0.25
"""The share of blocks from which on steps with whole matrices converge sooner than single ones."""
NARROW = 12
"""Up to as many columns of a view single blocks are always faster, and all of them are taken."""
CHECK = 5
"""Steps between two looks at the optimality conditions."""
MOST = 150
"""The most steps with whole matrices."""
FAR = 3.0
"""Times the bound: beyond it at B, where the gradient costs nothing, it is not taken at Z."""
SINGLE = 1e-6
"""Bounds beyond this, relative to the gradient, are met in single precision."""
RELAXATION = 1.8
"""Over-relaxation of ADMM (Boyd et al. 2011, section 3.4.3)."""


def _part(A: Matrix, rows: Indices, columns: Indices) -> Matrix:
    return np.ascontiguousarray(A[rows][:, columns])


@dataclass(frozen=True)
class Columns:
    """The columns of a view: their covariance, or a root R of it with S = R R', and groups.

    Attributes
    ----------
    matrix : array of shape (p, p), or (p, r)
    root : bool
        Which of the two it is.
    groups : Groups
    """

    matrix: Matrix
    root: bool
    groups: Groups

    def times(self, rows: Indices, B: Matrix) -> Matrix:
        """S[:, rows] @ B."""
        M = self.matrix
        return M @ (M[rows].T @ B) if self.root else M[:, rows] @ B

    def factor(self, rows: Indices) -> Matrix:
        """R with R'R = S[rows, rows]."""
        if self.root:
            root: Matrix = qr_r(self.matrix[rows].T)
            return root
        C = _part(self.matrix, rows, rows)
        lower: Matrix | None = try_cholesky(C)
        if lower is not None:
            return lower.T
        values, vectors = np.linalg.eigh(C)
        turned: Matrix = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        return turned

    @functools.cached_property
    def steep(self) -> Matrix:
        """The largest eigenvalue of the covariance of each group."""
        M = self.matrix
        if self.groups.single:
            return np.einsum("ij,ij->i", M, M) if self.root else np.diagonal(M).copy()
        each = [self.groups.members(np.array([g])) for g in range(len(self.groups.sizes))]
        if self.root:
            return np.array([np.linalg.norm(M[at], 2) ** 2 for at in each])
        return np.array([np.linalg.norm(_part(M, at, at), 2) for at in each])

    @functools.cached_property
    def whole(self) -> tuple[Indices, tuple[Matrix, bool, Indices, Matrix]]:
        """All columns, `restricted`."""
        return self.restricted(np.arange(len(self.groups.sizes)))

    def restricted(self, chosen: Indices) -> tuple[Indices, tuple[Matrix, bool, Indices, Matrix]]:
        """The columns of some groups, and what `descend` takes of them."""
        rows, root = self.groups.members(chosen), self.root
        if self.groups.single and len(rows) == len(self.matrix):
            part = np.ascontiguousarray(self.matrix)
        else:
            part = self.matrix[rows] if root else _part(self.matrix, rows, rows)
        if root and len(rows) <= part.shape[1]:
            root, part = False, part @ part.T
        starts = np.append(0, np.cumsum(self.groups.sizes[chosen]))
        return rows, (part, root, starts, self.steep[chosen])


@dataclass(frozen=True)
class SparseBlock:
    """The rows and columns of a sparse matrix that are not 0.

    Attributes
    ----------
    values : array of shape (a, b)
    rows, columns : arrays of shape (a,), (b,)
        Their positions.
    converged : bool
        Whether `values` satisfy the optimality conditions.
    steps : int
        The iterations that they took.
    """

    values: Matrix
    rows: Indices
    columns: Indices
    converged: bool = True
    steps: int = 1

    def within(self, shape: tuple[int, ...]) -> Matrix:
        """The whole matrix, of this shape."""
        found = np.zeros(shape)
        found[self.rows[:, None], self.columns] = self.values
        return found

    def trimmed(self) -> SparseBlock:
        """The same without rows and columns of zeros."""
        there = self.values != 0
        a, b = there.any(axis=1), there.any(axis=0)
        values = self.values[a][:, b]
        return replace(self, values=values, rows=self.rows[a], columns=self.columns[b])


def sparse_path(
    S: Matrix,
    x: Columns,
    y: Columns,
    alphas: Sequence[float],
    *,
    tol: float = 1e-4,
    max_iter: int = 2000,
) -> Iterator[SparseBlock]:
    r"""Minimise tr(B'S_xx B S_yy)/2 - tr(B'S_xy) + alpha * penalty(B) for falling alphas.

    Each problem starts from the solution of the last, in the blocks that the sequential strong
    rule keeps (Tibshirani et al. 2012); those that violate the optimality conditions afterwards
    are added. Nothing larger than S_xy and the matrices of the columns in these blocks is formed.

    Parameters
    ----------
    S : array of shape (p, q)
        S_xy.
    x, y : Columns
    alphas : sequence of float
        Falling, greater than 0.
    tol : float, default=1e-4
        Bound on the violation of the optimality conditions, relative to the largest alpha at
        which a block is not 0.
    max_iter : int, default=2000
        For each alpha.

    Yields
    ------
    SparseBlock
        Of each alpha.
    """
    penalty, problem = Penalty(x.groups, y.groups), _Problem(S, x, y)
    largest = before = penalty.largest(S)
    bound, norms = tol * largest, penalty.norms(S)
    none = np.arange(0)
    B = SparseBlock(S[:0, :0], none, none)
    narrow = min(norms.shape) <= NARROW  # sweeps over all blocks cost less than to find the few
    for alpha in alphas:
        working = ((norms >= 2 * alpha - before) | narrow) & (norms > 0) & (alpha < largest)
        i, j = np.nonzero(B.values)
        working[x.groups.codes[B.rows[i]], y.groups.codes[B.columns[j]]] = True
        done, steps = not working.any(), 0
        while not done and steps < max_iter:
            B = problem.minimised(B, working, alpha, bound, max_iter - steps)
            steps += B.steps
            norms = penalty.norms(problem.gradient(B))
            missed = (norms > alpha + bound) & ~working
            done, working = B.converged and not missed.any(), working | missed
        yield replace(B, converged=done, steps=max(steps, 1))
        before = min(before, alpha)


@dataclass
class _Problem:
    """What is minimised over some blocks; `known` are the last eigenpairs."""

    S: Matrix
    x: Columns
    y: Columns
    known: tuple[Any, ...] = ()

    def gradient(self, B: SparseBlock) -> Matrix:
        """S_xx B S_yy - S_xy."""
        if not len(B.rows):
            return -self.S
        return self.y.times(B.columns, self.x.times(B.rows, B.values).T).T - self.S

    def minimised(
        self, B: SparseBlock, working: Any, alpha: float, bound: float, most: int
    ) -> SparseBlock:
        """The minimum over some blocks, from B; `working` is their mask, (g, h)."""
        chosen = [np.flatnonzero(working.any(axis=axis)) for axis in (1, 0)]
        views = self.x, self.y
        (rows, own), (columns, other) = (
            v.restricted(c) for v, c in zip(views, chosen, strict=True)
        )
        values = np.ascontiguousarray(B.within(self.S.shape)[rows[:, None], columns])
        S, working = _part(self.S, rows, columns), _part(working, *chosen)
        steps, done = 0, False
        if working.mean() > DENSE and min(S.shape) > NARROW:
            penalty = Penalty(*(v.groups.restricted(c) for v, c in zip(views, chosen, strict=True)))
            pairs = self._eigenpairs(rows, columns, own, other)
            how = alpha, bound, min(most, MOST)
            values, done, steps = self._split(values, S, penalty, pairs, *how)
        if not done and steps < most:
            how = alpha, 0.5 * bound, most - steps
            done, more = _descended(values, S, own, other, np.argwhere(working), *how)
            steps += more
        return SparseBlock(values, rows, columns, done, steps).trimmed()

    def _eigenpairs(self, rows: Indices, columns: Indices, own: Any, other: Any) -> Any:
        """Those of the covariances of some columns; kept for the next time."""
        at = rows.tobytes(), columns.tobytes()
        if self.known[:1] != (at,):
            self.known = at, [_eigenpairs(matrix, root) for matrix, root, *_ in (own, other)]
        return self.known[1]

    def _split(
        self, Z: Matrix, S: Matrix, penalty: Penalty, pairs: Any, alpha: float, bound: float,
        most: int,
    ) -> tuple[Matrix, bool, int]:  # fmt: skip
        """ADMM from a start Z (Wu, Tuzhilina and Donnat 2025), whether it converged, and steps.

        The quadratic step is one division by l_i m_j + rho in the eigenvectors, whatever rho, and
        the penalised step a threshold; Z has exact zeros.
        """
        (l, U), (m, V) = pairs
        whole = U.shape[0] == U.shape[1] and V.shape[0] == V.shape[1]
        product = np.outer(l, m)
        if bound > SINGLE * max(alpha, float(product.max())):
            single: list[Any] = [a.astype(np.float32) for a in (U, V, S, Z, product)]
            U, V, S, Z, product = single
        Ut, Vt = np.ascontiguousarray(U.T), np.ascontiguousarray(V.T)
        target = Ut @ S @ V

        def gradient(B: Matrix) -> Any:
            return U @ (product * (Ut @ B @ V)) @ Vt - S

        # The dual variable of a solution is -gradient / rho, whose entries are alpha / rho where
        # those of Z are not 0: of one size with these, residuals fall alike (measured within 1.5
        # times the steps of the best rho).
        rho = alpha / float(np.sqrt((Z * Z).sum() / max(np.count_nonzero(Z), 1)) or 1.0)
        dual = -gradient(Z) / rho
        step, done = 0, False
        while step < most and not done:
            step += 1
            W = Z - dual
            inner = Ut @ W @ V
            moved = (target + rho * inner) / (product + rho)
            # Beyond the eigenvectors of positive eigenvalues B = Z - dual.
            B = U @ moved @ Vt if whole else W + U @ (moved - inner) @ Vt
            dual += RELAXATION * B + (1 - RELAXATION) * Z
            Z = penalty.shrink(dual, alpha / rho)
            dual -= Z
            if step % CHECK == 0:
                # The gradient at B is free: far from 0 there, it is so at Z.
                near = penalty.violation(rho * (W - B), Z, alpha) <= FAR * bound
                done = near and penalty.violation(gradient(Z), Z, alpha) <= bound
        return Z.astype(np.float64), done, step


def _descended(
    B: Matrix, S: Matrix, own: Any, other: Any, blocks: Indices, alpha: float, bound: float,
    most: int,
) -> tuple[bool, int]:  # fmt: skip
    """Block coordinate descent on B, whether it converged, and sweeps."""
    from cmstats.kernels._cpu.descent import descend

    T = B.T @ own[0]
    T = np.ascontiguousarray(other[0].T @ T if other[1] else T)
    x_sizes, y_sizes = (np.diff(each[2]) for each in (own, other))
    rows, columns = int(x_sizes.max()), int(y_sizes.max())
    space = np.zeros((2, rows, T.shape[0])), np.zeros((2, rows * columns))
    entries = len(blocks)
    if rows * columns > 1:
        entries = int((x_sizes[blocks[:, 0]] * y_sizes[blocks[:, 1]]).sum())
    found: tuple[bool, int] = descend(
        B, T, own, other, blocks, S, alpha, bound, most, (*space[0], *space[1]), entries
    )
    return found


def sparse_regression(
    C: Matrix, x: Columns, start: Matrix, alpha: float, *, tol: float = 1e-4, max_iter: int = 2000
) -> Matrix:
    """argmin tr(L'S_xx L)/2 - tr(L'C) + alpha * penalty(L) for few targets, from a start.

    Parameters
    ----------
    C, start : arrays of shape (p, k)
    x : Columns
        The penalty is that of blocks of a group of these and one target.
    alpha, tol, max_iter
        See `sparse_path`.
    """
    k, groups = C.shape[1], x.groups
    order, own = x.whole
    other = np.eye(k), False, np.arange(k + 1), np.ones(k)
    L = np.ascontiguousarray(start[order])
    bound = 0.5 * tol * Penalty(groups, Groups(np.arange(k))).largest(C)
    blocks = np.argwhere(np.ones((len(groups.sizes), k), dtype=bool))
    _descended(L, np.ascontiguousarray(C[order]), own, other, blocks, alpha, bound, max_iter)
    found = np.empty_like(L)
    found[order] = L
    return found


def _eigenpairs(matrix: Matrix, root: bool) -> tuple[Matrix, Matrix]:
    """The positive eigenvalues and vectors of a covariance, or of R R' for a root R."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix if root else matrix)
    kept = values > values[-1] * 1e-13 * max(matrix.shape)
    if root:
        values, vectors = values[kept], vectors[:, kept]
        return values, matrix @ vectors / np.sqrt(values)
    return (values[kept], vectors[:, kept]) if not kept.all() else (values, vectors)
