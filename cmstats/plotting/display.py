"""The base of all displays, and the checks and selections that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

__all__ = [
    "Display",
    "Floats",
    "check_fitted",
    "component_at",
    "embedded",
    "fold_errors",
    "frame_of",
    "spread",
    "strongest",
]

Floats = npt.NDArray[np.float64]


class Display:
    """A display stores the axes and the figure of its last drawing, as scikit-learn's do."""

    def _drawn_in(self, ax: Any) -> Self:
        """Publish the axes that were drawn in."""
        self.ax_, self.figure_ = ax, ax.figure
        return self


def check_fitted(estimator: Any) -> None:
    """Raise NotFittedError for an unfitted estimator; objects without `fit` need none."""
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator)


def embedded(estimator: Any, X: Any, y: Any, kind: str | None) -> tuple[Any, Any]:
    """The embeddings of both views by a fitted model; `kind` is the similarity."""
    check_fitted(estimator)
    U, V = estimator.embed(X, y, **({} if kind is None else {"kind": kind}))
    return U, V


def component_at(component: Any, count: int) -> int:
    """A validated component number, counted from 0."""
    whole = isinstance(component, (int, np.integer)) and not isinstance(component, bool)
    if not whole or not 0 <= component < count:
        raise ValueError(
            f"component {component!r} was asked for, but the model has {count} (numbered from 0)"
        )
    return int(component)


def spread(n: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` of the numbers 0 .. n - 1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(np.int64))


def strongest(size: Floats, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` largest values, largest first; all, in their order, if so few."""
    if len(size) <= count:
        return np.arange(len(size))
    return np.argsort(-size, kind="stable")[:count].astype(np.int64)


def fold_errors(scores: Floats) -> Floats:
    """Standard errors of the mean along the last axis; 0 for a single value."""
    n = scores.shape[-1]
    if n < 2:
        return np.zeros(scores.shape[:-1])
    return np.asarray(scores.std(axis=-1, ddof=1) / np.sqrt(n))


def frame_of(table: Any, columns: tuple[str, ...], source: str) -> Any:
    """Check that a table is the DataFrame that `source` returns."""
    have = getattr(table, "columns", ())
    if isinstance(table, Mapping) or not all(name in have for name in columns):
        raise TypeError(
            f"this needs the DataFrame that {source} returns, with columns "
            f"{', '.join(columns)}; got {type(table).__name__}"
        )
    return table
