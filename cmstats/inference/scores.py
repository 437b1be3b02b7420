"""Similarities of pairs by any fitted model, and the same standardised by row and by column."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from sklearn.utils.validation import has_fit_parameter

from cmstats.arrays import Array, check_given, device_of, is_lazy, namespace, take_rows, to_numpy
from cmstats.rows.matrix import check_source
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import check_lengths

__all__ = [
    "check_ranks",
    "one_each",
    "paired",
    "rows_at",
    "similarity_vectors",
    "standardized_vectors",
    "takes_gaps",
    "with_rows",
]

HostArray = np.ndarray[Any, Any]


def paired(
    X: Any, y: Any, *, gaps: bool = False, **columns: Any
) -> tuple[Any, Any, dict[str, HostArray | None]]:
    """Both views as what has rows, and columns of their length on the host.

    Matrices of numbers are checked here, where row i is row i of what was given; what a pipeline
    takes (strings) is left to it. `gaps` allows NaN.

    Raises
    ------
    ValueError
        If values are not finite, lengths differ, or a column is not one value for each row.
    """
    check_row_labels({"X": X, "y": y, **columns})
    X, y = (with_rows(a, name, gaps=gaps) for a, name in ((X, "X"), (y, "y")))
    check_lengths({"X": X, "y": y})
    return X, y, {name: one_each(a, int(X.shape[0]), name) for name, a in columns.items()}


def one_each(values: Any, n: int, name: str) -> HostArray | None:
    """A column of one value for each of n rows, on the host; None remains so."""
    found = None if values is None else np.asarray(to_numpy(values))
    if found is not None and found.shape != (n,):
        raise ValueError(f"{name} has shape {found.shape}, expected ({n},): one value for each row")
    return found


def with_rows(a: Any, name: str, *, gaps: bool = False) -> Any:
    """One view as what has rows; see `paired`."""
    check_given(a, name)
    a = a if hasattr(a, "shape") else np.asarray(a)
    if getattr(getattr(a, "dtype", None), "kind", "f") in "biuf":
        checked = check_source(a, name, ensure_finite="allow-nan" if gaps else True)
        a = checked if is_lazy(a) else a
    return a.tocsr() if hasattr(a, "tocsr") else a


def rows_at(at: HostArray, *views: Any) -> tuple[Any, ...]:
    """Rows of each view by position."""
    return tuple(take_rows(a, at) for a in views)


def takes_gaps(model: Any) -> bool:
    """Whether a model, or one inside it, takes NaN as missing entries."""
    parameters = model.get_params() if hasattr(model, "get_params") else {}
    return any(k.rpartition("__")[2] == "missing" and v == "em" for k, v in parameters.items())


def takes_groups(estimator: Any) -> bool:
    """Whether the fit of an estimator, or of one inside it, takes groups."""
    inner = getattr(estimator, "model", estimator)
    return any(has_fit_parameter(each, "groups") for each in (estimator, inner))


def check_ranks(model: Any) -> str:
    """The method by which a model ranks.

    Raises
    ------
    TypeError
        If it ranks nothing.
    """
    for name in ("embed", "similarity"):
        if hasattr(model, name):
            return name
    raise TypeError(
        f"{type(model).__name__} ranks nothing: it needs embed(X, y) or similarity(X, y), as CCA "
        "has them"
    )


def similarity_vectors(model: Any, X: Any, y: Any, kind: str | None = None) -> tuple[Any, Any]:
    """Vectors of both views whose inner product is the model's similarity.

    Those of `embed`; where a model has only `similarity`, its rows and unit vectors. Without a
    `kind` the similarity is the likelihood ratio where the model has it, and else its own.

    Raises
    ------
    TypeError
        If the model ranks nothing.
    """
    name = check_ranks(model)
    method = getattr(model, name)
    parameters = inspect.signature(method).parameters.values()
    takes_kind = any(p.name == "kind" or p.kind is p.VAR_KEYWORD for p in parameters)
    if kind is not None:
        found = method(X, y, kind=kind)
    elif not takes_kind:
        found = method(X, y)
    else:
        try:
            found = method(X, y, kind="likelihood_ratio")
        except (TypeError, ValueError) as error:
            if "kind" not in str(error):
                raise
            found = method(X, y)
    if name == "embed":
        return found[0], found[1]
    xp = namespace(found)
    return found, xp.eye(found.shape[1], dtype=found.dtype, device=device_of(found))


def standardized_vectors(U: Array, V: Array, *, rounds: int = 2) -> tuple[Array, Array]:
    r"""Vectors whose inner products are those of `U` and `V`, standardised by row and by column.

    Each row of the matrix :math:`s_{ij} = \langle u_i, v_j \rangle` is brought to mean 0 and
    variance 1, then each column, and again, since the second step undoes some of the first. A
    row's mean and variance are :math:`\langle u, \bar v \rangle` and
    :math:`u' \operatorname{Cov}(V) u`, so that the matrix is never formed: time
    :math:`O((n + m) d^2)`.

    Parameters
    ----------
    U : array of shape (n, d)
    V : array of shape (m, d)
    rounds : int

    Returns
    -------
    pair of arrays of shapes (n, d + 2 rounds), (m, d + 2 rounds), float64
    """
    xp = namespace(U, V)
    U, V = xp.astype(U, xp.float64), xp.astype(V, xp.float64)
    for _ in range(rounds):
        U, V = _rows_standardized(U, V)
        V, U = _rows_standardized(V, U)
    return U, V


def _rows_standardized(U: Array, V: Array) -> tuple[Array, Array]:
    """Vectors of the matrix whose rows have mean 0 and variance 1; a constant row is 0."""
    xp = namespace(U, V)
    mean = xp.mean(V, axis=0)
    centred = V - mean
    variance = xp.sum((U @ (centred.mT @ centred / V.shape[0])) * U, axis=1)
    # What rounding leaves of a constant row is no variance.
    size = xp.sum(U * U, axis=1) * float(xp.sum(centred * centred)) / V.shape[0]
    varies = variance > 1e-14 * size
    scale = xp.where(varies, 1 / xp.sqrt(xp.where(varies, variance, xp.ones_like(variance))), 0.0)
    shift = -(U @ mean) * scale
    ones = xp.ones_like(V[:, :1])
    return (
        xp.concat([U * scale[:, None], shift[:, None]], axis=1),
        xp.concat([V, ones], axis=1),
    )
