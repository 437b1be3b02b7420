"""Block coordinate descent for sparse products, with Anderson's extrapolation, on the CPU.

The objective is tr(B'S_xx B S_yy) / 2 - tr(B'S) + alpha * penalty(B). The covariance of a view is
given as a matrix M that is S_xx itself, or a root with S_xx = M M'. The gradient in a row of B
needs T = B'M_x (M_y'B'M_x where y has a root), which every change of B updates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmstats.kernels._cpu._jit import FAST, jit

__all__ = ["descend"]

DEPTH = 5
"""Sweeps between two extrapolations."""


@jit(fastmath=FAST)
def _dot(a: Any, b: Any) -> float:
    total = 0.0
    for l in range(a.shape[0]):
        total += a[l] * b[l]
    return total


@jit(fastmath=FAST)
def _add(a: Any, factor: float, b: Any) -> None:
    for l in range(a.shape[0]):
        a[l] += factor * b[l]


@jit(fastmath=FAST)
def _load(U: Any, T: Any, X: Any, x_root: bool, lo: int, hi: int) -> None:
    """S_xx B of rows lo to hi, in the coordinates of T."""
    for i in range(lo, hi):
        for k in range(T.shape[0]):
            U[i - lo, k] = _dot(T[k], X[i]) if x_root else T[k, i]


@jit(fastmath=FAST)
def _flush(T: Any, D: Any, X: Any, lo: int, hi: int) -> None:
    """Add what rows lo to hi have changed to T, and forget it."""
    for i in range(lo, hi):
        for k in range(T.shape[0]):
            d = D[i - lo, k]
            if d != 0.0:
                D[i - lo, k] = 0.0
                _add(T[k], d, X[i])


@jit(fastmath=FAST)
def _is_zero(B: Any, x0: int, x1: int, y0: int, y1: int) -> bool:
    for i in range(x0, x1):
        for j in range(y0, y1):
            if B[i, j] != 0.0:
                return False
    return True


@jit(fastmath=FAST)
def _sweep(B: Any, T: Any, x: Any, y: Any, blocks: Any, S: Any, alpha: float, space: Any) -> float:
    """Minimise over each block in turn; the largest change, in units of S."""
    (X, x_root, x_start, x_steep), (Y, y_root, y_start, y_steep) = x, y
    U, D, z, d = space
    at, worst = 0, 0.0
    while at < blocks.shape[0]:
        g = blocks[at, 0]
        x0, x1 = x_start[g], x_start[g + 1]
        loaded = False
        while at < blocks.shape[0] and blocks[at, 0] == g:
            h = blocks[at, 1]
            at += 1
            y0, y1 = y_start[h], y_start[h + 1]
            steep = x_steep[g] * y_steep[h]
            if steep <= 0.0:
                continue
            if not loaded:
                _load(U, T, X, x_root, x0, x1)
                loaded = True
            if x1 - x0 == 1 and y1 - y0 == 1:  # the same as below, without loops
                old = B[x0, y0]
                target = old * steep - _dot(U[0], Y[y0]) + S[x0, y0]
                size = max(abs(target) - alpha, 0.0) / steep
                delta = (size if target > 0.0 else -size) - old
                if delta != 0.0:
                    B[x0, y0] = size if target > 0.0 else -size
                    worst = max(worst, steep * abs(delta))
                    if y_root:
                        _add(D[0], delta, Y[y0])
                        _add(U[0], x_steep[g] * delta, Y[y0])
                    else:
                        D[0, y0] += delta
                        U[0, y0] += x_steep[g] * delta
                continue
            square, k = 0.0, 0
            for i in range(x0, x1):
                for j in range(y0, y1):
                    z[k] = B[i, j] * steep - _dot(U[i - x0], Y[j]) + S[i, j]
                    square += z[k] * z[k]
                    k += 1
            root = k**0.5
            norm = square**0.5
            kept = (1.0 - alpha * root / norm) / steep if norm > alpha * root else 0.0
            change, k = 0.0, 0
            for i in range(x0, x1):
                for j in range(y0, y1):
                    d[k] = kept * z[k] - B[i, j]
                    change += d[k] * d[k]
                    B[i, j] = kept * z[k]
                    k += 1
            if change == 0.0:
                continue
            worst = max(worst, steep * change**0.5 / root)
            k = 0
            for i in range(x0, x1):
                for j in range(y0, y1):
                    own = x_steep[g] * d[k]  # of a single row: its variance
                    if y_root:
                        _add(D[i - x0], d[k], Y[j])
                        _add(U[i - x0], own, Y[j])
                    else:
                        D[i - x0, j] += d[k]
                        U[i - x0, j] += own
                    k += 1
            if x1 - x0 > 1:
                _flush(T, D, X, x0, x1)
                loaded = False
        _flush(T, D, X, x0, x1)
    return worst


@jit(fastmath=FAST)
def _value(B: Any, T: Any, x: Any, y: Any, blocks: Any, S: Any, alpha: float, space: Any) -> float:
    """What is minimised, without the blocks that are 0."""
    (X, x_root, x_start, _), (Y, _, y_start, _) = x, y
    U = space[0]
    value, loaded = 0.0, -1
    for at in range(blocks.shape[0]):
        g, h = blocks[at]
        x0, x1, y0, y1 = x_start[g], x_start[g + 1], y_start[h], y_start[h + 1]
        if _is_zero(B, x0, x1, y0, y1):
            continue
        if loaded != g:
            _load(U, T, X, x_root, x0, x1)
            loaded = g
        square = 0.0
        for i in range(x0, x1):
            for j in range(y0, y1):
                value += B[i, j] * (0.5 * _dot(U[i - x0], Y[j]) - S[i, j])
                square += B[i, j] ** 2
        value += alpha * (square * (x1 - x0) * (y1 - y0)) ** 0.5
    return value


@jit(fastmath=FAST)
def _live(B: Any, x: Any, y: Any, blocks: Any, live: Any) -> tuple[int, int]:
    """Copy the blocks that are not 0; how many there are, and their entries."""
    x_start, y_start, count, entries = x[2], y[2], 0, 0
    for at in range(blocks.shape[0]):
        g, h = blocks[at]
        x0, x1, y0, y1 = x_start[g], x_start[g + 1], y_start[h], y_start[h + 1]
        if not _is_zero(B, x0, x1, y0, y1):
            live[count, 0], live[count, 1] = g, h
            count += 1
            entries += (x1 - x0) * (y1 - y0)
    return count, entries


@jit(fastmath=FAST)
def _mixture(past: Any, entries: int) -> Any:
    """The iterates weighted so that their changes, weighted alike, add up to the least."""
    M = np.empty((DEPTH, DEPTH))
    for i in range(DEPTH):
        for j in range(i + 1):
            total = 0.0
            for l in range(entries):
                total += (past[i + 1, l] - past[i, l]) * (past[j + 1, l] - past[j, l])
            M[i, j] = M[j, i] = total
    c = np.ones(DEPTH)
    ridge = 1e-12 * np.trace(M)
    for i in range(DEPTH):
        M[i, i] += ridge
    for i in range(DEPTH):  # elimination: M is positive definite
        for j in range(i + 1, DEPTH):
            ratio = M[j, i] / M[i, i]
            M[j] -= ratio * M[i]
            c[j] -= ratio * c[i]
    for i in range(DEPTH - 1, -1, -1):
        for j in range(i + 1, DEPTH):
            c[i] -= M[i, j] * c[j]
        c[i] /= M[i, i]
    mixed, total = np.zeros(past.shape[1]), np.sum(c)
    for i in range(DEPTH):
        mixed += c[i] / total * past[i + 1]
    return mixed


@jit(fastmath=FAST)
def _read(B: Any, x: Any, y: Any, blocks: Any, entries: Any) -> None:
    """The entries of some blocks of B, one block after the other."""
    x_start, y_start, k = x[2], y[2], 0
    for at in range(blocks.shape[0]):
        g, h = blocks[at]
        for i in range(x_start[g], x_start[g + 1]):
            for j in range(y_start[h], y_start[h + 1]):
                entries[k] = B[i, j]
                k += 1


@jit(fastmath=FAST)
def _write(B: Any, T: Any, x: Any, y: Any, blocks: Any, entries: Any, D: Any) -> None:
    """Set the entries of some blocks of B, and T to match."""
    (X, _, x_start, _), (Y, y_root, y_start, _) = x, y
    k, at = 0, 0
    while at < blocks.shape[0]:
        g = blocks[at, 0]
        x0, x1 = x_start[g], x_start[g + 1]
        while at < blocks.shape[0] and blocks[at, 0] == g:
            h = blocks[at, 1]
            at += 1
            for i in range(x0, x1):
                for j in range(y_start[h], y_start[h + 1]):
                    change = entries[k] - B[i, j]
                    B[i, j] = entries[k]
                    k += 1
                    if change != 0.0:
                        if y_root:
                            _add(D[i - x0], change, Y[j])
                        else:
                            D[i - x0, j] += change
        _flush(T, D, X, x0, x1)


@jit(fastmath=FAST)
def descend(
    B: Any, T: Any, x: Any, y: Any, blocks: Any, S: Any, alpha: float, bound: float, sweeps: int,
    space: Any, entries: int,
) -> tuple[bool, int]:  # fmt: skip
    """Minimise over some blocks of B, which is written on; whether it converged, and sweeps.

    A sweep over all blocks, then those over the ones that are not 0 until these change by no
    more than a bound, and so on. After some sweeps the iterates are extrapolated where that makes
    the value smaller (Anderson 1965; Bertrand and Massias 2021).

    Parameters
    ----------
    B : array of shape (a, b)
        Where to start.
    T : array of shape (s, t)
        The product of B with both matrices.
    x, y : tuples
        The covariance, (a, a), or the root, (a, t); whether it is the root; where each group of
        rows begins, which are side by side, (g + 1,); the largest eigenvalue of the covariance
        of each group, (g,).
    blocks : integer array of shape (m, 2)
        Groups of x and of y, sorted.
    S : array of shape (a, b)
    alpha, bound : float
        Changes are in units of S.
    sweeps : int
        The most.
    space : tuple of arrays
        Zeros of shapes (rows, s) twice, and (entries,) twice, of the largest group and block.
    entries : int
        Those of all blocks.
    """
    past, live = np.empty((DEPTH + 1, entries)), np.empty_like(blocks)
    whole, filled, at = True, 0, blocks
    for sweep in range(sweeps):
        worst = _sweep(B, T, x, y, blocks if whole else at, S, alpha, space)
        if worst <= bound:
            if whole:
                return True, sweep + 1
            whole = True
            continue
        if whole:  # those that are 0 remain so until the next sweep over all
            whole, filled = False, 0
            count, entries = _live(B, x, y, blocks, live)
            at = live[:count]
        _read(B, x, y, at, past[filled])
        filled += 1
        if filled <= DEPTH:
            continue
        filled = 0
        value = _value(B, T, x, y, at, S, alpha, space)
        _write(B, T, x, y, at, _mixture(past, entries), space[1])
        if not _value(B, T, x, y, at, S, alpha, space) < value:
            _write(B, T, x, y, at, past[DEPTH], space[1])
    return False, sweeps
