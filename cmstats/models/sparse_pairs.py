"""Pairs of sparse directions: of a penalised matrix, refined, of selected columns, or scaled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from cmstats.arrays import Array, device_of, namespace, to_numpy, warn
from cmstats.kernels.groups import Groups
from cmstats.kernels.linalg import leading_svd
from cmstats.kernels.pmd import penalised_path
from cmstats.kernels.sparse import Columns, SparseBlock, sparse_regression
from cmstats.moments.canonical import Canonical
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk

__all__ = ["HeldOutPairs", "Pairs", "Refinement", "SparsePairs"]
__all__ += ["decomposed_pairs", "directions", "falling", "say_unfinished", "selected_pairs"]
__all__ += ["view_columns"]

HostArray = np.ndarray[Any, Any]
SMALL = 32
"""From this many selected columns on, few pairs of them take less time than all."""


@dataclass(frozen=True)
class Pairs:
    """Directions ``A, r, B`` of both views, one a column, at one alpha.

    Attributes
    ----------
    A, r, B : arrays of shape (p, k), (k,), (q, k)
        In units of the columns, with the correlation of each pair.
    alpha : float
        The penalty.
    converged : bool
    steps : int
    condition : float
        The largest condition number of the columns that were whitened.
    """

    A: Array
    r: Array
    B: Array
    alpha: float = 0.0
    converged: bool = True
    steps: int = 1
    condition: float = 1.0

    def supports(self) -> list[HostArray]:
        """The columns of x and of y with a weight in some pair."""
        return [(to_numpy(weights) != 0).any(axis=1) for weights in (self.A, self.B)]


@dataclass(frozen=True)
class SparsePairs(Canonical):
    """Pairs of sparse variates; fields that end in an underscore are those of `SparseCCA`."""

    alpha_: float = 0.0
    alpha_max_: float = 1.0
    x_support_: Array = None
    y_support_: Array = None
    n_iter_: int = 1

    @classmethod
    def found(cls, m: Shrunk, pairs: Pairs, largest: float) -> SparsePairs:
        """The variates of pairs of directions, with the alpha at which nothing is left."""
        like = m.mean("x")
        xp, device = namespace(like), device_of(like)
        A, r, B = (xp.asarray(a, device=device) for a in (pairs.A, pairs.r, pairs.B))
        known = vars(Canonical.of(m, A, xp.clip(r, 0.0, 1.0), B, 1.0))
        x, y = (xp.any(known[f"{name}_weights_"] != 0, axis=1) for name in "xy")
        # Tests of canonical correlations are of those without a penalty.
        known |= {"shrinkage_": None, "condition_": pairs.condition}
        return cls(**known, alpha_=pairs.alpha, alpha_max_=largest, x_support_=x, y_support_=y,
                   n_iter_=pairs.steps)  # fmt: skip

    def sentences(self, count: int, m: Shrunk, relaxed: bool, reason: str) -> list[str]:
        """What an alpha leaves of the number of pairs asked for, and too many columns for a CCA.

        `reason` says why there are no more pairs.
        """
        if not self.rank:
            above = self.alpha_ >= self.alpha_max_
            lower = f"below alpha_max_={self.alpha_max_:.4g}" if above else "lower"
            return [f"alpha={self.alpha_:.4g} leaves no column, all weights are 0: set it {lower}"]
        found = []
        if self.rank < count:
            found.append(
                f"only {self.rank} of n_components={count} exist at alpha={self.alpha_:.4g}, "
                f"{reason}; the rest are left out"
            )
        selected = int(to_numpy(self.x_support_).sum() + to_numpy(self.y_support_).sum())
        if relaxed and selected > m.rows - 1 and not m.unshrunk.incomplete:
            found.append(
                f"{selected} columns selected at alpha={self.alpha_:.4g} and {m.rows:g} samples "
                "make some training correlations 1 whatever the data: set a larger alpha, or "
                "relax=False"
            )
        return found


def view_columns(m: Shrunk, name: str, groups: Groups) -> Columns:
    """The columns of a view in units of its moments, in groups; of wide ones a thin root."""
    if m.width(name) < m.rows:
        return Columns(to_numpy(m.sample.cov(name)), False, groups)
    values, vectors = (to_numpy(a) for a in m.sample.eigenpairs(name))
    return Columns(vectors * np.sqrt(values), True, groups)


def falling(alphas: Any, said: Any, most: float | None) -> list[float]:
    """The numbers of a grid of penalties from the largest down, each once.

    `said` is the parameter, which `alphas` are unless it is None.
    """
    numbers = np.asarray(alphas)
    largest = np.finfo(np.float64).max if most is None else most
    valid = numbers.dtype.kind in "iuf" and numbers.size
    if not (valid and ((numbers >= 0) & (numbers <= largest)).all()):
        range_ = "finite, not below 0" if most is None else "from 0 to 1 for 'pmd'"
        raise ValueError(f"alphas={said!r} must be numbers, {range_}")
    return [float(a) for a in np.unique(numbers.astype(np.float64))[::-1]]


def say_unfinished(alpha: str, max_iter: int) -> None:
    """Warn that the conditions were not met at an alpha."""
    warn(
        f"the penalised problem at alpha={alpha} did not converge in max_iter={max_iter} "
        "steps: raise max_iter, tol or alpha",
        ConvergenceWarning,
    )


def decomposed_pairs(
    m: Shrunk, S: HostArray, k: int, alphas: Sequence[float], *, soft: bool, max_iter: int
) -> Iterator[Pairs]:
    """The pairs of penalised matrix decompositions of S_xy, scaled to unit variance."""
    like, widths = m.mean("x"), (m.width("x"), m.width("y"))
    xp, device = namespace(like), device_of(like)
    bounds = [
        [alpha if soft else max(1.0, (1 - alpha) * p**0.5) for p in widths] for alpha in alphas
    ]
    path = penalised_path(S, k, bounds, soft=soft, rank=m.rows, max_iter=max_iter)
    for alpha, (U, V, done, steps) in zip(alphas, path, strict=True):
        scaled = []
        for name, A in (("x", xp.asarray(U, device=device)), ("y", xp.asarray(V, device=device))):
            variance = xp.sum(A * m.project(name, name, A), axis=0)
            scaled.append(A / xp.sqrt(xp.where(variance > 1e-12, variance, 1.0)))
        A, B = scaled
        r = xp.sum(A * m.project("x", "y", B), axis=0)
        sign = xp.where(r < 0, -xp.ones_like(r), xp.ones_like(r))  # deflation can turn a pair
        yield Pairs(A, sign * r, B * sign, alpha, done, steps)


def directions(B: SparseBlock, x: Columns, y: Columns, k: int) -> Pairs:
    """The leading pairs of a product matrix B, at most as many as its rank."""
    p, q = len(x.matrix), len(y.matrix)
    if not len(B.rows):
        return Pairs(np.zeros((p, 1)), np.zeros(1), np.zeros((q, 1)))
    X, Y = x.factor(B.rows), y.factor(B.columns)
    P, r, Qt = leading_svd(X @ B.values @ Y.T, k, large=SMALL)
    rank = max(1, min(k, int(np.count_nonzero(r > 1e-10 * r[0]))))
    P, r, Q = P[:, :rank], r[:rank], Qt[:rank].T
    left, right = np.zeros((p, rank)), np.zeros((q, rank))
    left[B.rows], right[B.columns] = B.values @ (Y.T @ Q) / r, B.values.T @ (X.T @ P) / r
    return Pairs(left, r, right)


def selected_pairs(m: Shrunk, supports: Sequence[HostArray], k: int) -> Pairs:
    """The leading pairs of a CCA of the selected columns, with weights of 0 for the others."""
    chosen = {name: np.flatnonzero(a) for name, a in zip(("x", "y"), supports, strict=True)}
    if not all(len(at) for at in chosen.values()):
        left, right = (np.zeros((len(a), 1)) for a in supports)
        return Pairs(left, np.zeros(1), right)
    at = np.concatenate([m.sample.columns(name).start + at for name, at in chosen.items()])
    own = m.sample.take(at, {name: len(at) for name, at in chosen.items()}).shrunk(0.0)
    U, r, Vt = leading_svd(own.cross("x", "y")[0], k)
    A, B = (np.zeros((len(a), r.shape[0])) for a in supports)
    A[chosen["x"]] = to_numpy(own.whiten("x").weights @ U)
    B[chosen["y"]] = to_numpy(own.whiten("y").weights @ Vt.mT)
    return Pairs(A, to_numpy(r), B, condition=own.condition)


@dataclass(frozen=True)
class HeldOutPairs:
    """Held-out rows, in which pairs of directions are correlated.

    Attributes
    ----------
    moments : Moments
    units : tuple of arrays of shape (p,), (q,)
        Of the columns of the training rows.
    """

    moments: Moments
    units: tuple[Array, Array]

    @classmethod
    def of(cls, train: Shrunk, moments: Moments) -> HeldOutPairs:
        """Of the moments of a fold."""
        return cls(moments, (train.units("x"), train.units("y")))

    def correlation(self, pairs: Pairs, count: int) -> float:
        """The mean over the pairs asked for; a pair that is absent or constant counts as 0."""
        if self.moments.rows < 2:
            return float("nan")
        if not all(support.any() for support in pairs.supports()):
            return 0.0
        xp, device = namespace(self.units[0]), device_of(self.units[0])
        A, B = (
            xp.asarray(weights, device=device) / units[:, None]
            for weights, units in zip((pairs.A, pairs.B), self.units, strict=True)
        )
        correlations = to_numpy(self.moments.paired_correlations("x", "y", A, B))
        return float(np.nan_to_num(correlations).sum() / count)


@dataclass(frozen=True)
class Refinement:
    """Lasso regressions of each view on the variates of the other, in turn.

    Attributes
    ----------
    S : array of shape (p, q)
        S_xy.
    x, y : Columns
        Their groups are those of the penalty of the regressions.
    tol, max_iter
        See `sparse_path`.
    """

    S: HostArray
    x: Columns
    y: Columns
    tol: float
    max_iter: int

    def __call__(self, pairs: Pairs, alpha: float, rounds: int) -> Pairs:
        """The pairs after some rounds; as they are where a regression loses one of them."""
        for _ in range(rounds):
            A, r, B = pairs.A, pairs.r, pairs.B
            left = self._regressed(self.S @ B, self.x, A * r, alpha)
            if left is None:
                break
            right = self._regressed(self.S.T @ left, self.y, B * r, alpha)
            if right is None:
                break
            U, r, Vt = np.linalg.svd(left.T @ self.S @ right)
            pairs = Pairs(left @ U, r, right @ Vt.T)
        return pairs

    def _regressed(
        self, C: HostArray, own: Columns, start: HostArray, alpha: float
    ) -> HostArray | None:
        """argmin tr(L'S L)/2 - tr(L'C) + alpha |L|, with uncorrelated columns of unit variance."""
        how: dict[str, Any] = {"tol": self.tol, "max_iter": self.max_iter}
        L = sparse_regression(C, own, start, alpha, **how)
        rows = np.flatnonzero(L.any(axis=1))
        if not len(rows):
            return None
        w, Q = np.linalg.eigh(L[rows].T @ own.times(rows, L[rows])[rows])
        if not w[0] > 1e-10 * w[-1]:
            return None
        turned: HostArray = L @ ((Q / np.sqrt(w)) @ Q.T)
        return turned
