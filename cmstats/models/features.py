"""The features of a regression: one matrix, or several of the same rows side by side."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.moments.moments import Moments
from cmstats.rows.chunks import check_lengths, is_lazy
from cmstats.rows.matrix import check_matrix
from cmstats.rows.views import column_names

__all__ = ["Features", "column_slices", "several"]


@dataclass(frozen=True)
class Features:
    """Checked matrices of the same rows.

    Attributes
    ----------
    blocks : dict of name to matrix
    names : array of str or None
        The names of all columns, if every matrix is a frame that has them.
    """

    blocks: dict[str, Any]
    names: np.ndarray[Any, Any] | None = None

    @classmethod
    def of(cls, X: Any, *, order: tuple[str, ...] = (), ensure_finite: bool = True) -> Features:
        """Out of a dict of matrices, or a list or tuple of them, which are called x0, x1, ...

        Parameters
        ----------
        X : dict, list or tuple of matrices
        order : tuple of str
            The names of the views seen in fit: a dict is put in that order.
        ensure_finite : bool
        """
        given = _named(X)
        if isinstance(X, Mapping) and order:
            if set(given) != set(order):
                raise ValueError(
                    f"the views of X are {', '.join(given)}, but those seen in fit were "
                    f"{', '.join(order)}"
                )
            given = {name: given[name] for name in order}
        blocks = {
            name: a if is_lazy(a) else check_matrix(a, name, ensure_finite=ensure_finite)
            for name, a in given.items()
        }
        check_lengths(blocks)
        each = [names for names in map(column_names, given.values()) if names is not None]
        return cls(blocks, np.concatenate(each) if len(each) == len(given) else None)

    @property
    def shape(self) -> tuple[int, int]:
        """Of all of them side by side."""
        rows = int(next(iter(self.blocks.values())).shape[0])
        return rows, sum(self.widths.values())

    @property
    def widths(self) -> dict[str, int]:
        """The number of columns of each."""
        return {k: 1 if a.ndim == 1 else int(a.shape[1]) for k, a in self.blocks.items()}

    def check(self, columns: dict[str, slice], width: int, names: Any) -> None:
        """Raise where they are not those that were seen in fit."""
        found = self.widths
        if columns and [*column_slices(found).values()] != [*columns.values()]:
            expected = ", ".join(str(cut.stop - cut.start) for cut in columns.values())
            raise ValueError(
                f"the views of X have {', '.join(map(str, found.values()))} features, but those "
                f"seen in fit had {expected}"
            )
        if self.shape[1] != width:
            raise ValueError(f"X has {self.shape[1]} features, but fit saw {width} features")
        if self.names is None or names is None:
            return
        differ = (i for i, (a, b) in enumerate(zip(self.names, names, strict=True)) if a != b)
        if (i := next(differ, None)) is not None:
            raise ValueError(
                "The feature names of the views should match those that were passed during fit: "
                f"column {i} is {self.names[i]!r} where fit saw {names[i]!r}"
            )


def several(X: Any) -> bool:
    """Whether X is a dict, or a list or tuple of matrices (a list of rows is one matrix)."""
    if isinstance(X, Mapping):
        return not hasattr(X, "shape")  # some sparse matrices are mappings
    is_sequence = isinstance(X, (list, tuple)) and len(X) > 0
    return is_sequence and all(len(getattr(a, "shape", ())) == 2 for a in X)


def column_slices(widths: Mapping[str, int]) -> dict[str, slice]:
    """Where each view stands among the features."""
    ends = np.cumsum([0, *widths.values()]).tolist()
    cuts = (slice(a, b) for a, b in itertools.pairwise(ends))
    return dict(zip(widths, cuts, strict=True))


def _named(X: Any) -> dict[str, Any]:
    if not isinstance(X, Mapping):
        return {f"x{i}": a for i, a in enumerate(X)}
    if not X:
        raise ValueError("X is a dict without a view: give at least one matrix")
    # Views are handed on as named blocks of moments, beside y and the parameters.
    taken = {*inspect.signature(Moments.folds).parameters, "missing", "y"} - {"blocks"}
    for name in X:
        if not isinstance(name, str) or name in taken:
            raise ValueError(
                f"a view of X is named {name!r}: names must be text, other than "
                f"{', '.join(sorted(taken))}"
            )
    return dict(X)
