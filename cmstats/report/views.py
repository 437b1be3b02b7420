"""Both views as dense matrices of bounded size: rows sampled, gaps imputed, width reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from sklearn.decomposition import PCA, TruncatedSVD

from cmstats.arrays import dense, is_lazy, to_numpy
from cmstats.rows.matrix import check_matrix
from cmstats.rows.source import take_in_memory

__all__ = ["Views", "dense_view", "take_views", "with_gaps", "without_confounds"]

WIDEST = 768
"""The most columns of a view; a wider one is replaced by its leading principal components."""
COVARIANCE = 4096
"""The most columns whose covariance matrix is formed for the principal components."""


@dataclass
class Views:
    """The sampled rows of both views on the host.

    Attributes
    ----------
    views : pair of arrays or CSR matrices
        With their gaps (NaN).
    sizes : pair of (shape, type, mebibytes)
        The sizes of the whole views as given.
    """

    views: tuple[Any, Any]
    sizes: tuple[tuple[tuple[int, int], str, float], ...]


def take_views(X: Any, Y: Any, rows: Any, names: tuple[str, str]) -> Views:
    """These rows of both views as NumPy arrays or CSR; no others are read from a disk.

    Raises
    ------
    ValueError
        If a view is no numeric matrix, holds infinity, or nothing but NaN.
    """
    views, sizes = [], []
    for a, name in zip((X, Y), names, strict=True):
        sizes.append(((int(a.shape[0]), int(a.shape[1])), _dtype(a), _mebibytes(a)))
        every = len(rows) == a.shape[0]
        taken = a if every and not is_lazy(a) else take_in_memory(a, slice(None) if every else rows)
        taken = check_matrix(_on_host(taken), name, ensure_finite="allow-nan")
        values = taken.data if scipy.sparse.issparse(taken) else taken
        if values.dtype.kind == "f" and values.size and bool(np.isnan(values).all()):
            raise ValueError(f"{name} holds nothing but NaN: there is nothing to analyse")
        views.append(taken)
    return Views((views[0], views[1]), tuple(sizes))


def _on_host(a: Any) -> Any:
    """A NumPy array or a sparse matrix on the host."""
    return a if scipy.sparse.issparse(a) else np.asarray(to_numpy(a))


def _dtype(a: Any) -> str:
    """The element type of a view, for display."""
    kind = str(getattr(a, "dtype", "mixed")).removeprefix("torch.").removeprefix("numpy.")
    return f"{kind}, sparse" if scipy.sparse.issparse(a) else kind


def _mebibytes(a: Any) -> float:
    """The memory of a view."""
    if scipy.sparse.issparse(a):
        a = a.tocsr()
        return float(a.data.nbytes + a.indices.nbytes + a.indptr.nbytes) / 2**20
    return float(a.shape[0] * a.shape[1] * getattr(a.dtype, "itemsize", 8)) / 2**20


def with_gaps(views: tuple[Any, Any]) -> tuple[Any, Any] | None:
    """Both views if entries of one are missing, as dense arrays; None if they are complete.

    None too if one is too wide to be used as it is.
    """
    values = [a.data if scipy.sparse.issparse(a) else a for a in views]
    gaps = any(bool(np.isnan(a).any()) for a in values)
    if not gaps or max(a.shape[1] for a in views) > WIDEST:
        return None
    return dense(views[0]), dense(views[1])


def without_confounds(a: npt.NDArray[Any], Z: Any, train: Any) -> npt.NDArray[Any]:
    """The residuals of a regression on a constant and Z, fitted to the training rows."""
    Z = np.column_stack([np.ones(len(Z)), Z])
    slopes = np.linalg.lstsq(Z[train], a[train].astype(np.float64), rcond=None)[0]
    return np.asarray((a - Z @ slopes).astype(a.dtype if a.dtype.kind == "f" else np.float64))


def dense_view(a: Any, train: Any, name: str, seed: int) -> tuple[npt.NDArray[Any], str]:
    """A dense matrix without gaps of at most `WIDEST` columns, and a sentence if it was reduced.

    Column means and principal components are estimated on the training rows.
    """
    if not scipy.sparse.issparse(a) and a.dtype.kind == "f":
        gaps = np.isnan(a)
        if gaps.any():
            seen = (~gaps[train]).sum(axis=0)
            total = np.where(gaps[train], 0, a[train]).sum(axis=0, dtype=np.float64)
            a = np.where(gaps, (total / np.maximum(seen, 1)).astype(a.dtype), a)
    p = int(a.shape[1])
    if p <= WIDEST:
        return np.asarray(dense(a)), ""
    k = min(WIDEST, len(train) - 1)
    if scipy.sparse.issparse(a):  # centring would destroy the sparsity
        axes, what = TruncatedSVD(k, random_state=seed), "singular directions"
    else:
        solver = "covariance_eigh" if p <= COVARIANCE else "randomized"
        axes, what = PCA(k, svd_solver=solver, random_state=seed), "principal components"
        a = a.astype(np.float32 if a.dtype.itemsize <= 4 else np.float64, copy=False)
    axes.fit(a[train])
    share = min(float(axes.explained_variance_ratio_.sum()), 1.0)
    return np.asarray(axes.transform(a)), (
        f"{name} has {p:,} columns; the analysis used its {k} leading {what}, which hold "
        f"{share:.1%} of the variance of the training items."
    )
