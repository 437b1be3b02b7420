"""Exchangeable rows of two views, and the statistics of their permuted cross products.

A permutation test needs rows whose joint distribution no permutation changes. Means and nuisance
variables are regressed out, and the residuals are rotated into as many uncorrelated rows as they
have dimensions (Theil 1965; Huh and Jhun 2001). With orthonormal bases U, V of these rows the
statistics of step k are functions of the block ``K[k:, k:]`` of ``K = U' P V`` (Winkler et al.
2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cmstats.arrays import (
    Array,
    dense,
    device_of,
    float64,
    namespace,
    result_dtype,
    take_rows,
    to_numpy,
    warn,
)
from cmstats.kernels import whitening
from cmstats.kernels.linalg import svd
from cmstats.moments.imputation import Filler
from cmstats.moments.moments import Moments
from cmstats.moments.patterns import check_missing
from cmstats.rows.chunks import check_lengths
from cmstats.rows.dependence import independence_notes
from cmstats.rows.matrix import check_matrix
from cmstats.rows.pairs import check_row_labels

__all__ = ["STATISTICS", "ExchangeableRows", "enlarged", "reflect", "residual_rows"]


@dataclass(frozen=True)
class ExchangeableRows:
    """Residual rows of two views, which a permutation test may exchange.

    Attributes
    ----------
    x, y : arrays of shapes (m, p), (m, q), float64
        Residuals of a regression on a constant and the nuisance variables.
    dtype : dtype
        The precision of the products of permuted rows.
    codes : array of shape (m,), or None
        The exchange block of each row, in ascending order.
    freedom : int
        The rank of the space of residuals, n - 1 - rank Z.
    completed : bool
        Whether gaps of the views were completed.
    """

    x: Array
    y: Array
    dtype: Any
    codes: Any
    freedom: int
    completed: bool


def residual_rows(
    X: Any, y: Any, Z: Any, blocks: Any, missing: Any, random: Any
) -> ExchangeableRows:
    """Validate the views and regress a constant and `Z` out of them.

    Without `Z` the rows are the n centred ones; with `Z` they are n - 1 - rank Z rotated
    residuals (`reflect`). Rows are sorted by exchange block. With ``missing="em"`` each view is
    completed from itself and `Z`, with draws of `random`, and rows without an entry of one view
    are left out.

    Raises
    ------
    ValueError
        If an array is no finite matrix, lengths differ, `blocks` are invalid, or `Z` leaves
        fewer than two rows.
    """
    views = {"X": X, "y": y} | ({} if Z is None else {"Z": Z})
    check_missing(missing)
    check_row_labels({**views, "blocks": blocks})
    checked = [_checked(a, name, missing) for name, a in views.items()]
    check_lengths(dict(zip(views, checked, strict=True)))
    xp = namespace(*checked)
    dtype = result_dtype(checked[0])
    arrays = [float64(a) for a in checked]
    blocks = _block_labels(blocks, int(checked[0].shape[0]))
    units = None if blocks is None else pd.factorize(blocks)[0]
    for note in independence_notes(
        dict(zip(("X", "y"), checked, strict=False)), units,
        "p-values are too small: test the means of the rows that depend on each other",
    ):  # fmt: skip
        warn(note)
    completed = not all(bool(xp.all(a == a)) for a in arrays)  # NaN differs from itself
    if completed:
        arrays, blocks = _completed(arrays, blocks, random)
    n, codes = int(arrays[0].shape[0]), _block_codes(blocks)
    if codes is not None:
        order = np.argsort(codes, kind="stable")
        at, codes = xp.asarray(order, device=device_of(arrays[0])), codes[order]
        arrays = [take_rows(a, at) for a in arrays]
    centred = [a - xp.mean(a, axis=0) for a in arrays]
    freedom = n - 1
    if Z is not None:
        constant = xp.ones((n, 1), dtype=xp.float64, device=device_of(arrays[0])) / n**0.5
        nuisance = whitening.factor_root(_varying(centred[2], arrays[2])).root
        Q = xp.concat([constant, nuisance], axis=1)
        spent = int(Q.shape[1])
        freedom = n - spent
        if freedom < 2:
            raise ValueError(f"Z has rank {spent - 1}, which leaves too few of the {n} rows")
        centred = [reflect(Q, a)[spent:, :] for a in centred[:2]]
        codes = codes if codes is None else codes[spent:]
    x, y = (_varying(a, b) for a, b in zip(centred, arrays, strict=False))
    return ExchangeableRows(x, y, dtype, codes, freedom, completed)


def _checked(a: Any, name: str, missing: Any) -> Array:
    """A view or nuisance variables as a matrix; gaps are for views, where they are allowed."""
    if name == "Z":
        return check_matrix(dense(a), name)
    if missing == "em":
        return check_matrix(dense(a), name, ensure_finite="allow-nan")
    return check_matrix(dense(a), name, hint=", or set missing='em'")


def _completed(arrays: list[Array], labels: Any, random: Any) -> tuple[list[Array], Any]:
    """Views with draws for the gaps, and the rows with entries of both.

    A view is completed from its own entries and the nuisance variables: if anything of the other
    view went into it, the rows of independent views would be correlated. Draws from the conditional
    distribution leave rows with gaps the covariance of the others. Conditional means would not,
    and where both views lack entries in the same rows no permutation would keep that.
    """
    xp = namespace(*arrays)
    seen = [~xp.isnan(a) for a in arrays[:2]]
    for i, name in enumerate(("X", "y")):
        if not bool(xp.all(seen[i])):
            beside = [arrays[i], *arrays[2:]]
            m = Moments.from_data(missing="em", **dict(zip((name, "Z"), beside, strict=False)))
            m = m.take(np.arange(sum(m.widths)), {name: sum(m.widths)})
            fill, width = Filler(m.mean(name), m.cov(name)), int(arrays[i].shape[1])
            arrays[i] = fill.drawn(xp.concat(beside, axis=1), random)[:, :width]
    both = np.flatnonzero(to_numpy(xp.any(seen[0], axis=1) & xp.any(seen[1], axis=1)))
    if both.size == seen[0].shape[0]:
        return arrays, labels
    if both.size < 2:
        raise ValueError(
            f"{both.size} of the rows have entries of both X and y: there is nothing to test"
        )
    at = xp.asarray(both, device=device_of(arrays[0]))
    return [take_rows(a, at) for a in arrays], labels if labels is None else labels[both]


def _block_labels(blocks: Any, n: int) -> Any:
    """The label of each row's exchange block; None without blocks."""
    if blocks is None:
        return None
    labels = to_numpy(blocks)
    if labels.shape != (n,) or pd.isna(labels).any():
        raise ValueError(f"blocks must hold one label, not missing, for each of the {n} rows")
    return labels


def _block_codes(labels: Any) -> Any:
    """The number of each row's exchange block; None without blocks."""
    if labels is None:
        return None
    codes = pd.factorize(labels)[0]
    if np.bincount(codes).max() == 1:
        raise ValueError("every block is a single row: no row can be exchanged")
    return codes


def _varying(residual: Array, original: Array) -> Array:
    """Set residual columns that hold only rounding noise to zero.

    A column that the nuisance variables explain completely would otherwise be scaled up to
    unit variance.
    """
    xp = namespace(residual)
    left, whole = xp.sum(residual**2, axis=0), xp.sum(original**2, axis=0)
    return residual * xp.astype(left > (64 * whitening.EPS) ** 2 * whole, xp.float64)


def reflect(Q: Array, A: Array) -> Array:
    """``H A`` for the symmetric orthogonal H whose first columns span those of Q (n, c).

    The other n - c columns of H are an orthonormal basis of the complement; H is never formed.
    Rotate Q such that its top block is -S with S symmetric and positive semi-definite, and let
    V = Q - [I; 0]: the block reflector is H = I - V (I + S)^-1 V'. Its lower right block is
    positive semi-definite too, hence each residual has the least expected squared distance to
    its own row: Theil's (1965) best linear unbiased residuals with scalar covariance.
    """
    xp = namespace(Q, A)
    c = Q.shape[1]
    u, s, vt = svd(Q[:c, :])
    turned = -(Q @ vt.mT @ u.mT)
    top = turned[:c, :] - xp.eye(c, dtype=Q.dtype, device=device_of(Q))
    V = xp.concat([top, turned[c:, :]], axis=0) @ u
    return A - V / (1 + s)[None, :] @ (V.mT @ A)


def _later_sums(a: Array, steps: int) -> Array:
    """``sum(a[:, k:], axis=1)`` for k = 0 .. steps - 1, by one product with a triangle of ones."""
    xp = namespace(a)
    m = a.shape[1]
    ones = xp.ones((m, steps), dtype=a.dtype, device=device_of(a))
    return a @ xp.tril(ones)


def _pillai(K: Array, steps: int, single: bool) -> Array:
    """Pillai's trace ``|K[k:, k:]|_F^2``: entry (i, j) counts in all steps up to min(i, j)."""
    xp = namespace(K)
    square = float64(K) ** 2
    m = K.shape[2]
    in_row = xp.sum(xp.triu(square[:, :m, :]), axis=2)
    in_column = xp.sum(xp.tril(square, k=-1), axis=1)
    return _later_sums(in_row + in_column, steps)


def _wilks(K: Array, steps: int, single: bool) -> Array:
    """-log Lambda, where ``Lambda_k = det [[I, K_k], [K_k', I]]`` with ``K_k = K[k:, k:]``.

    After elimination of the extra columns of the wider view, and with the pairs of variates in
    the order m, ..., 1, these determinants are the leading principal minors of one matrix, so
    one Cholesky factor gives them for all steps.
    """
    xp = namespace(K)
    batch, _, m = K.shape
    # Shrink K a little: a correlation of exactly 1 then has a finite -log(1 - r^2).
    K = (1 - (1e-5 if single else 1e-10)) * float64(K)
    eye = xp.eye(m, dtype=xp.float64, device=device_of(K))
    rest, pairs = K[:, m:, :], xp.flip(K[:, :m, :], axis=(1, 2))
    joint = xp.zeros((batch, 2 * m, 2 * m), dtype=xp.float64, device=device_of(K))
    joint[:, 0::2, 0::2] = eye
    joint[:, 0::2, 1::2] = pairs
    joint[:, 1::2, 0::2] = pairs.mT
    joint[:, 1::2, 1::2] = xp.flip(eye - rest.mT @ rest, axis=(1, 2))
    diagonal = xp.linalg.diagonal(xp.linalg.cholesky(joint))
    logs = xp.sum(xp.reshape(xp.log(diagonal), (batch, m, 2)), axis=2)
    return -2 * _later_sums(xp.flip(logs, axis=1), steps)


def _roy(K: Array, steps: int, single: bool) -> Array:
    """The largest singular value of ``K[k:, k:]``, from the eigenvalues of its Gram matrix."""
    xp = namespace(K)
    K = float64(K)
    gram = K.mT @ K
    largest = []
    for k in range(steps):
        largest.append(xp.linalg.eigvalsh(gram[:, k:, k:])[:, -1])
        gram = gram - K[:, k, :, None] * K[:, k, None, :]
    values = xp.stack(largest, axis=1)
    return xp.sqrt(xp.where(values > 0, values, 0.0))


STATISTICS: dict[str, Callable[[Array, int, bool], Array]] = {
    "wilks": _wilks,
    "pillai": _pillai,
    "roy": _roy,
}


def enlarged(name: str, null: Any, n: int, widths: tuple[int, int], shrunken: bool) -> Any:
    """Rescale permuted statistics of step k + 1 from n to n - k degrees of freedom.

    The observed block of step k + 1 is the remainder after k estimated variates, hence it lies
    in n - k dimensions and is larger on average than a permuted one: Pillai's trace by
    n / (n - k), -log Lambda by the ratio of Bartlett's factors (Lawley 1959).
    """
    k = np.arange(null.shape[1])
    # Bartlett's factor counts columns; shrunken bases have fewer effective ones than features.
    factor = n / (n - k) if shrunken or name == "pillai" else 1 + k / (n - (sum(widths) + 1) / 2)
    if name == "roy":
        left = np.log1p(-(np.minimum(null, 1 - 1e-12) ** 2))
        return np.sqrt(-np.expm1(factor * left))
    return factor * null
