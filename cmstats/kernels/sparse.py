"""Sparse matrices between two blocks: l1 and group penalties, by ADMM."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmstats.arrays import Array, device_of, namespace, to_numpy
from cmstats.kernels.linalg import solve_triangular, try_cholesky

__all__ = ["BlockPenalty", "Eigenpairs", "SparseBlock", "sparse_path"]

Eigenpairs = tuple[Array, Array]
"""The positive eigenvalues of a covariance, (r,), and their eigenvectors, (p, r)."""

RELAXATION = 1.6
"""Over-relaxation of ADMM (Boyd et al. 2011, section 3.4.3)."""
CHECK = 10
"""Steps between two looks at the optimality conditions."""
EXACT = 400
"""The largest number of nonzero entries whose equations are solved directly."""
NEWTON = 8
"""The most Newton steps in a row."""

Indices = np.ndarray[Any, np.dtype[np.int64]]


def _taken(A: Array, rows: Indices, columns: Indices | None = None) -> Array:
    """Some rows, and some columns, of a matrix."""
    xp, device = namespace(A), device_of(A)
    if len(rows) < A.shape[0]:
        A = xp.take(A, xp.asarray(rows, device=device), axis=0)
    if columns is not None and len(columns) < A.shape[1]:
        A = xp.take(A, xp.asarray(columns, device=device), axis=1)
    return A


def _norm(a: Array) -> float:
    return float(namespace(a).linalg.vector_norm(a))


@dataclass(frozen=True)
class BlockPenalty:
    """The sum over blocks (group of rows, group of columns) of root size times Frobenius norm.

    Attributes
    ----------
    rows, columns : arrays of shape (p, g), (q, h), or None
        Indicators of the groups; None is a group for each. With both None it is the l1 norm.
    """

    rows: Array | None = None
    columns: Array | None = None

    @property
    def elementwise(self) -> bool:
        """Whether each entry is a block."""
        return self.rows is None and self.columns is None

    def _pooled(self, A: Array) -> Array:
        A = A if self.rows is None else self.rows.mT @ A
        return A if self.columns is None else A @ self.columns

    def _spread(self, A: Array) -> Array:
        A = A if self.rows is None else self.rows @ A
        return A if self.columns is None else A @ self.columns.mT

    def norms(self, G: Array) -> Array:
        """The Frobenius norm of each block over the root of its size, (g, h)."""
        xp = namespace(G)
        if self.elementwise:
            return xp.abs(G)
        return xp.sqrt(self._pooled(G * G) / self._pooled(xp.ones_like(G)))

    def dual(self, G: Array) -> float:
        """The dual norm: the least penalty at which a gradient G is outweighed at 0."""
        return float(namespace(G).max(self.norms(G)))

    def shrink(self, B: Array, t: float) -> Array:
        """The proximal map of t times the penalty; of single entries sign(b) max(|b| - t, 0)."""
        xp = namespace(B)
        if self.elementwise:
            over = xp.abs(B) - t
            return xp.where(over > 0, xp.sign(B) * over, 0.0)
        norms, sizes = xp.sqrt(self._pooled(B * B)), self._pooled(xp.ones_like(B))
        over = norms - t * xp.sqrt(sizes)
        return B * self._spread(xp.where(over > 0, over / xp.where(norms > 0, norms, 1.0), 0.0))

    def covered(self, blocks: Array) -> tuple[Any, Any]:
        """Which rows and which columns are in some of these blocks, (g, h), as NumPy masks."""
        chosen = to_numpy(blocks)
        masks = []
        for axis, groups in ((1, self.rows), (0, self.columns)):
            mask = chosen.any(axis=axis)
            masks.append(mask if groups is None else to_numpy(groups)[:, mask].any(axis=1))
        return masks[0], masks[1]

    def restricted(self, rows: Indices, columns: Indices) -> BlockPenalty:
        """The penalty of these rows and columns, which are whole groups."""

        def part(groups: Array | None, at: Indices) -> Array | None:
            if groups is None:
                return None
            groups = _taken(groups, at)
            kept = np.flatnonzero(to_numpy(groups).any(axis=0))
            return _taken(groups, np.arange(len(at)), kept)

        return BlockPenalty(part(self.rows, rows), part(self.columns, columns))


@dataclass(frozen=True)
class SparseBlock:
    """The rows and columns of a sparse matrix that are not 0.

    Attributes
    ----------
    values : array of shape (a, b)
    rows, columns : NumPy arrays of shape (a,), (b,)
        Their positions, ascending.
    converged : bool
        Whether `values` satisfy the optimality conditions.
    steps : int
        The iterations that they took.
    """

    values: Array
    rows: Indices
    columns: Indices
    converged: bool = True
    steps: int = 1

    def within(self, rows: Indices, columns: Indices) -> Array:
        """The matrix at these rows and columns, which hold all that are not 0."""
        A = self.values
        xp, device = namespace(A), device_of(A)
        at = [
            np.searchsorted(all_, own) for all_, own in ((rows, self.rows), (columns, self.columns))
        ]
        for axis, (places, length) in enumerate(zip(at, (len(rows), len(columns)), strict=True)):
            source = np.full(length, A.shape[axis])
            source[places] = np.arange(A.shape[axis])
            shape = (1, A.shape[1]) if axis == 0 else (A.shape[0], 1)
            A = xp.concat([A, xp.zeros(shape, dtype=A.dtype, device=device)], axis=axis)
            A = xp.take(A, xp.asarray(source, device=device), axis=axis)
        return A

    def trimmed(self) -> SparseBlock:
        """The same without rows and columns of zeros."""
        there = to_numpy(self.values) != 0
        a, b = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        values = _taken(self.values, a, b)
        return replace(self, values=values, rows=self.rows[a], columns=self.columns[b])


def sparse_path(
    S: Array,
    x: Eigenpairs,
    y: Eigenpairs,
    penalty: BlockPenalty,
    alphas: Sequence[float],
    *,
    start: SparseBlock | None = None,
    tol: float = 1e-4,
    max_iter: int = 2000,
) -> Iterator[SparseBlock]:
    r"""Minimise tr(B'S_xx B S_yy)/2 - tr(B'S_xy) + alpha * penalty(B) for falling alphas.

    Each problem starts from the solution of the last, in the rows and columns that the sequential
    strong rule keeps (Tibshirani et al. 2012); those that violate the optimality conditions
    afterwards are added. Nothing larger than S_xy is formed.

    Parameters
    ----------
    S : array of shape (p, q)
        S_xy.
    x, y : Eigenpairs
        Of S_xx and S_yy; where they are singular, the pairs of positive eigenvalues.
    penalty : BlockPenalty
    alphas : sequence of float
        Falling.
    start : SparseBlock, optional
        Near to the first solution, otherwise no entry.
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
    roots = [vectors * namespace(values).sqrt(values) for values, vectors in (x, y)]
    largest = before = penalty.dual(S)
    bound = tol * largest
    none = np.zeros(0, dtype=np.int64)
    empty = SparseBlock(S[:0, :0], none, none)
    found = empty if start is None else start
    gradient = _gradient(S, roots, found)
    if start is not None and len(alphas):
        before = min(before, alphas[0])
    problem: _Quadratic | None = None
    for alpha in alphas:
        norms = penalty.norms(gradient)
        masks = list(penalty.covered((norms >= 2 * alpha - before) & (norms > 0)))
        for mask, at in zip(masks, (found.rows, found.columns), strict=True):
            mask[at] = True
        if alpha >= largest:  # whatever the start was
            found, gradient = empty, -S
        while alpha < largest and masks[0].any():
            rows, columns = (np.flatnonzero(mask) for mask in masks)
            if problem is None or not problem.covers(rows, columns):
                rho = None if problem is None else problem.rho
                problem = _Quadratic.of(S, (x, y), roots, penalty, rows, columns, rho)
            first = found.within(rows, columns)
            values, done, steps = problem.minimise(alpha, first, bound, max_iter)
            found = SparseBlock(values, rows, columns, done, steps).trimmed()
            gradient = _gradient(S, roots, found)
            missed = penalty.covered(penalty.norms(gradient) > alpha + bound)
            more = [mask | new for mask, new in zip(masks, missed, strict=True)]
            if not done or all((a == b).all() for a, b in zip(more, masks, strict=True)):
                break
            masks = more
        yield found
        before = min(before, alpha)


def _gradient(S: Array, roots: Sequence[Array], B: SparseBlock) -> Array:
    """S_xx B S_yy - S_xy, with S_xx = R_x R_x' and S_yy = R_y R_y'."""
    if not len(B.rows):
        return -S
    X, Y = roots
    inner = _taken(X, B.rows).mT @ B.values @ _taken(Y, B.columns)
    return X @ inner @ Y.mT - S


def _eigenpairs(root: Array) -> Eigenpairs:
    """The positive eigenvalues of R R' and their vectors, from the smaller Gram matrix."""
    xp, (a, r) = namespace(root), root.shape
    values, vectors = xp.linalg.eigh(root @ root.mT if a <= r else root.mT @ root)
    kept = np.flatnonzero(to_numpy(values) > float(values[-1]) * 1e-13 * max(a, r))
    at = xp.asarray(kept, device=device_of(root))
    values, vectors = xp.take(values, at), xp.take(vectors, at, axis=1)
    return values, vectors if a <= r else root @ vectors / xp.sqrt(values)


@dataclass
class _Quadratic:
    """The problem in some rows and columns, in the eigenvectors of both covariances there.

    With S_xx = U diag(l) U' and S_yy = V diag(m) V'; `rho` is the last of ADMM.
    """

    S: Array
    x: Eigenpairs
    y: Eigenpairs
    penalty: BlockPenalty
    rows: Indices
    columns: Indices
    rho: float | None

    @classmethod
    def of(
        cls, S: Array, pairs: Any, roots: Any, penalty: BlockPenalty, rows: Indices,
        columns: Indices, rho: float | None,
    ) -> _Quadratic:  # fmt: skip
        own = [
            pair if len(at) == root.shape[0] else _eigenpairs(_taken(root, at))
            for pair, root, at in zip(pairs, roots, (rows, columns), strict=True)
        ]
        restricted = penalty.restricted(rows, columns)
        return cls(_taken(S, rows, columns), own[0], own[1], restricted, rows, columns, rho)

    def covers(self, rows: Indices, columns: Indices) -> bool:
        """Whether it is the problem in exactly these rows and columns."""
        return np.array_equal(self.rows, rows) and np.array_equal(self.columns, columns)

    @functools.cached_property
    def product(self) -> Array:
        """l_i m_j."""
        return self.x[0][:, None] * self.y[0][None, :]

    @functools.cached_property
    def target(self) -> Array:
        """U'S_xy V."""
        return self.x[1].mT @ self.S @ self.y[1]

    @functools.cached_property
    def roots(self) -> list[Array]:
        """R_x and R_y with S_xx = R_x R_x', S_yy = R_y R_y'."""
        return [vectors * namespace(values).sqrt(values) for values, vectors in (self.x, self.y)]

    @functools.cached_property
    def steep(self) -> float:
        """The largest l_i m_j."""
        return float(namespace(self.S).max(self.product))

    def gradient(self, B: Array) -> Array:
        """S_xx B S_yy - S_xy."""
        U, V = self.x[1], self.y[1]
        return U @ (self.product * (U.mT @ B @ V)) @ V.mT - self.S

    def minimise(
        self, alpha: float, Z: Array, bound: float, max_iter: int
    ) -> tuple[Array, bool, int]:
        """ADMM from a start Z (Wu, Tuzhilina and Donnat 2025), whether it converged, and steps.

        The quadratic step is one division by l_i m_j + rho in the eigenvectors, whatever rho, and
        the penalised step a threshold; Z has exact zeros.
        """
        U, V, shrink = self.x[1], self.y[1], self.penalty.shrink
        xp = namespace(Z)
        rho = float(xp.mean(self.product)) if self.rho is None else self.rho
        if alpha == 0:
            return U @ (self.target / self.product) @ V.mT, True, 1
        whole = U.shape[0] == U.shape[1] and V.shape[0] == V.shape[1]
        # The dual variable at a solution is the negative gradient.
        dual, signs, next_try = -self.gradient(Z) / rho, None, 0
        for step in range(max_iter + 1):
            if step % CHECK == 0:
                done = self.step(Z, alpha, self.steep)[1] <= bound
                last, signs = signs, xp.sign(Z)
                if done or step == next_try or bool(xp.all(last == signs)):
                    next_try = max(2 * step, CHECK)
                    exact = self.exact(Z, alpha, bound)
                    Z, done = (Z, done) if exact is None else (exact, True)
                if done or step == max_iter:
                    break
            W = Z - dual
            inner = U.mT @ W @ V
            moved = (self.target + rho * inner) / (self.product + rho)
            # Beyond the eigenvectors of positive eigenvalues B = Z - dual.
            B = U @ moved @ V.mT if whole else W + U @ (moved - inner) @ V.mT
            mixed = RELAXATION * B + (1 - RELAXATION) * Z
            new = shrink(mixed + dual, alpha / rho)
            dual = dual + mixed - new
            if step % CHECK == CHECK - 1 and step < 0.75 * max_iter:
                # Residuals of one size (Boyd et al. 2011, section 3.4.1): no new factorisation.
                primal, change = _norm(B - new), _norm(new - Z)
                size, other = max(_norm(B), _norm(new)), _norm(dual)
                relative = primal * other / max(change * size, 1e-300)
                factor = min(max(relative**0.5, 0.2), 5.0)
                if not 0.5 < factor < 2:
                    rho, dual = rho * factor, dual / factor
            Z = new
        self.rho = rho
        return Z, done, step + 1

    def step(self, B: Array, alpha: float, steep: float) -> tuple[Array, float]:
        """B after a step of the proximal gradient, of length 1 / steep, and its size.

        The size, in units of S_xy, is 0 at the minimum alone: how far B is from it.
        """
        xp = namespace(B)
        moved = self.penalty.shrink(B - self.gradient(B) / steep, alpha / steep)
        return moved, steep * float(xp.max(xp.abs(moved - B)))

    def exact(self, Z: Array, alpha: float, bound: float) -> Array | None:
        """The minimum of the l1 problem by Newton steps from Z; None where they do not end there.

        Each takes the entries that a proximal gradient step leaves, with their signs, and solves
        the linear system that the optimality conditions are there.
        """
        if not self.penalty.elementwise:
            return None
        # Long steps let entries go to 0 where short ones only turn their signs.
        steep = float(namespace(Z).mean(self.product))
        moved, _ = self.step(Z, alpha, steep)
        for _ in range(NEWTON):
            solved = self.with_signs(moved, alpha)
            if solved is None:
                return None
            moved, size = self.step(solved, alpha, steep)
            if size <= bound:
                return solved
        return None

    def with_signs(self, Z: Array, alpha: float) -> Array | None:
        """The stationary point of the l1 problem among matrices with the signs of Z.

        None where these are too many entries, or do not determine it.
        """
        xp, device = namespace(Z), device_of(Z)
        i, j = np.nonzero(to_numpy(Z))
        if not 0 < len(i) <= EXACT:
            return None
        flat = xp.asarray(i * Z.shape[1] + j, device=device)
        signs = xp.take(xp.sign(xp.reshape(Z, (-1,))), flat)
        X, Y = (
            xp.take(R, xp.asarray(at, device=device), axis=0)
            for R, at in zip(self.roots, (i, j), strict=True)
        )
        lower = try_cholesky((X @ X.mT) * (Y @ Y.mT))
        if lower is None:
            return None
        right = xp.take(xp.reshape(self.S, (-1,)), flat) - alpha * signs
        b = solve_triangular(lower, solve_triangular(lower, right[:, None]), transpose=True)
        source = np.full(Z.shape[0] * Z.shape[1], len(i))
        source[i * Z.shape[1] + j] = np.arange(len(i))
        padded = xp.concat([b[:, 0], 0 * b[:1, 0]])
        return xp.reshape(xp.take(padded, xp.asarray(source, device=device)), Z.shape)
