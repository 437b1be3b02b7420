"""Rows that can be exchanged: views rid of their means and of nuisance variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from cmstats.arrays import Array, device_of, float64, namespace, result_dtype, take_rows, to_numpy
from cmstats.kernels import whitening
from cmstats.kernels.linalg import svd
from cmstats.rows.chunks import check_lengths
from cmstats.rows.matrix import check_matrix

__all__ = ["Rows", "reflect", "residual_rows"]


@dataclass(frozen=True)
class Rows:
    """Both views without means and nuisance, as rows that can be exchanged."""

    x: Array
    y: Array
    dtype: Any
    """The precision of the permuted products."""
    codes: Any
    """The block of each row, sorted, or None."""
    freedom: int
    """How many dimensions the rows have."""


def residual_rows(X: Any, y: Any, Z: Any, blocks: Any) -> Rows:
    """Both views as residuals of a regression on `Z`, checked, with their blocks."""
    views = {"X": X, "y": y} | ({} if Z is None else {"Z": Z})
    checked = [check_matrix(_dense(a), name) for name, a in views.items()]
    check_lengths(dict(zip(views, checked, strict=True)))
    xp = namespace(*checked)
    n, dtype = int(checked[0].shape[0]), result_dtype(checked[0])
    arrays = [float64(a) for a in checked]
    codes = _block_codes(blocks, n)
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
    return Rows(x, y, dtype, codes, freedom)


def _block_codes(blocks: Any, n: int) -> Any:
    if blocks is None:
        return None
    labels = to_numpy(blocks)
    codes = pd.factorize(labels)[0] if labels.ndim == 1 else np.zeros(0, dtype=int)
    if len(codes) != n or (codes < 0).any():
        raise ValueError(f"blocks must hold one label, not missing, for each of the {n} rows")
    if np.bincount(codes).max() == 1:
        raise ValueError("every block is a single row: no row can be exchanged")
    return codes


def _dense(a: Any) -> Any:
    return a.toarray() if scipy.sparse.issparse(a) else a


def _varying(residual: Array, original: Array) -> Array:
    """Columns of which only rounding noise is left are set to zero."""
    xp = namespace(residual)
    left, whole = xp.sum(residual**2, axis=0), xp.sum(original**2, axis=0)
    return residual * xp.astype(left > (64 * whitening.EPS) ** 2 * whole, xp.float64)


def reflect(Q: Array, A: Array) -> Array:
    """``H A`` for the symmetric orthogonal H whose first columns span those of Q (n, c).

    The other n - c columns of H are an orthonormal basis of the complement; H is never formed.
    With Q turned so that its top block is -S, S symmetric and positive semi-definite, and
    V = Q - [I; 0], the block reflector is H = I - V (I + S)^-1 V'. Its lower right block is
    positive semi-definite too, so each residual is as near to its own row as can be: Theil's
    (1965) best linear unbiased residuals with scalar covariance.
    """
    xp = namespace(Q, A)
    c = Q.shape[1]
    u, s, vt = svd(Q[:c, :])
    turned = -(Q @ vt.mT @ u.mT)
    top = turned[:c, :] - xp.eye(c, dtype=Q.dtype, device=device_of(Q))
    V = xp.concat([top, turned[c:, :]], axis=0) @ u
    return A - V / (1 + s)[None, :] @ (V.mT @ A)
