"""Two or more named views: lists and dicts of matrices, checked against those of the fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.rows.chunks import check_lengths, is_lazy
from cmstats.rows.matrix import check_matrix

__all__ = ["NamedViews", "column_names", "is_stream"]

RESERVED = (
    "cls", "form", "sample_weight", "missing", "device", "cv", "groups", "rows", "checkpoint",
    "progress",
)  # fmt: skip
"""What `Moments` takes beside blocks, so that no view can be called so."""


@dataclass(frozen=True)
class NamedViews:
    """What an estimator remembers of the views it was fitted to.

    Attributes
    ----------
    names : tuple of str
        "view0", "view1", ... for a list.
    widths : tuple of int
    ndims : tuple of int
        1 where a view was a vector.
    columns : tuple
        By view the column names of a frame, None otherwise.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    ndims: tuple[int, ...]
    columns: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Raise where there are too few."""
        if len(self.names) < 2:
            raise ValueError(
                f"{len(self.names)} view ({', '.join(self.names)}): canonical correlations need at "
                "least two views; for one view use PCA"
            )

    @classmethod
    def of_blocks(cls, names: Sequence[str], widths: Sequence[int]) -> NamedViews:
        """Views of which only moments are known."""
        count = len(names)
        return cls(tuple(names), tuple(widths), (2,) * count, (None,) * count)

    @classmethod
    def first(cls, views: Any) -> tuple[NamedViews, dict[str, Any]]:
        """The views of a first fit, and their matrices by name.

        Raises
        ------
        ValueError
            If there are fewer than two, one is None, lengths differ, or one is no matrix.
        """
        named = _named(views, None)
        blocks = _complete(named, named)
        known = cls(
            tuple(blocks),
            tuple(_width(b) for b in blocks.values()),
            tuple(int(a.ndim if hasattr(a, "ndim") else np.ndim(a)) for a in named.values()),
            tuple(column_names(a) for a in named.values()),
        )
        return known, blocks

    @property
    def listed(self) -> bool:
        """Whether a list was fitted."""
        return self.names == _list_names(len(self.names))

    def complete(self, views: Any) -> dict[str, Any]:
        """The matrices of all views, by name in the order of the fit.

        Raises
        ------
        ValueError
            If one is missing, or does not fit those of the fit.
        """
        named = _named(views, self.names)
        blocks = _complete(named, self.names)
        self._check_columns(named, blocks)
        return blocks

    def given(self, views: Any, *, ensure_finite: Any = True) -> dict[str, Any]:
        """The matrices of the views that are given, by name; values are checked too.

        Raises
        ------
        ValueError
            If none is given, or one does not fit those of the fit.
        """
        named = {a: v for a, v in _named(views, self.names).items() if v is not None}
        if not named:
            raise ValueError(f"give at least one of the views {', '.join(self.names)}")
        blocks = {a: _checked(v, a, ensure_finite=ensure_finite) for a, v in named.items()}
        self._check_columns(named, blocks)
        return blocks

    def _check_columns(self, named: dict[str, Any], blocks: dict[str, Any]) -> None:
        for name, block in blocks.items():
            at = self.names.index(name)
            if _width(block) != self.widths[at]:
                raise ValueError(
                    f"view {name} has {_width(block)} features, but the model is expecting "
                    f"{self.widths[at]} features in it"
                )
            known, found = self.columns[at], column_names(named[name])
            if known is not None and found is not None and list(known) != list(found):
                raise ValueError(
                    f"The feature names of view {name} should match those that were passed during "
                    f"fit: got {', '.join(found[:5])} where fit saw {', '.join(known[:5])}"
                )

    def as_fitted(self, each: Iterable[Any]) -> Any:
        """Things by view: a list if a list was fitted, otherwise a dict."""
        return list(each) if self.listed else dict(zip(self.names, each, strict=True))

    def in_order(self, each: Any) -> dict[str, Any]:
        """Things by name, out of a list or a dict of all views."""
        return dict(each) if isinstance(each, Mapping) else dict(zip(self.names, each, strict=True))

    def as_given(self, views: Any, found: dict[str, Any]) -> Any:
        """Things by view in the container of `views`; None where nothing was found."""
        if isinstance(views, Mapping):
            return {name: found.get(name) for name in views}
        return [found.get(name) for name in self.names]


def _list_names(count: int) -> tuple[str, ...]:
    return tuple(f"view{i}" for i in range(count))


def _named(views: Any, known: tuple[str, ...] | None) -> dict[str, Any]:
    """Views by name, None for those not observed."""
    if isinstance(views, Mapping):
        wrong = [a for a in views if not isinstance(a, str) or a in RESERVED]
        if wrong:
            raise ValueError(
                f"{wrong[0]!r} cannot name a view: names are strings other than "
                f"{', '.join(RESERVED)}"
            )
        unknown = [a for a in views if known is not None and a not in known]
        if unknown:
            raise ValueError(f"no view is named {unknown[0]!r}: they are {', '.join(known or ())}")
        return dict(views)
    if not isinstance(views, (list, tuple)):
        shape = getattr(views, "shape", None)
        what = type(views).__name__ if shape is None else f"an array of shape {tuple(shape)}"
        raise ValueError(
            f"views must be a list or a dict of matrices, one for each view, got {what}: pass "
            "[X, y] or {'image': X, 'text': y}"
        )
    names = _list_names(len(views)) if known is None else known
    if len(views) != len(names):
        raise ValueError(
            f"got a list of {len(views)} views, but there are {len(names)} "
            f"({', '.join(names)}): give None for those not observed"
        )
    return dict(zip(names, views, strict=True))


def _complete(named: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Matrices of one length, of all views; values are checked by the pass that reads them."""
    for name in names:
        if named.get(name) is None:
            raise ValueError(
                f"view {name} is None: views may be missing at transform, predict and fuse only; "
                "fitting and scoring need every view of every row, so leave out the rows that "
                "lack one"
            )
    blocks = {name: _checked(named[name], name, ensure_finite=False) for name in names}
    check_lengths(blocks)
    return blocks


def _checked(view: Any, name: str, *, ensure_finite: Any) -> Any:
    return view if is_lazy(view) else check_matrix(view, name, ensure_finite=ensure_finite)


def _width(block: Any) -> int:
    return 1 if block.ndim == 1 else int(block.shape[1])


def is_stream(X: Any, y: Any) -> bool:
    """Whether X is an iterable of batches: not an array, nor something that NumPy reads as one."""
    if y is not None or isinstance(X, (str, bytes, Mapping)):
        return False
    if any(hasattr(X, name) for name in ("shape", "__array__", "__dataframe__", "iloc")):
        return False
    if isinstance(X, (list, tuple)):
        batches = bool(X) and all(isinstance(b, (list, tuple, Mapping)) for b in X)
        first = X[0] if batches else ()
        entries = list(first.values() if isinstance(first, Mapping) else first)
        return bool(entries) and all(len(getattr(a, "shape", ())) > 0 for a in entries)
    return hasattr(X, "__iter__")


def column_names(y: Any) -> np.ndarray[Any, Any] | None:
    """The column names of a frame or a series, if all are strings."""
    columns = getattr(y, "columns", None)
    names = [y.name] if columns is None and hasattr(y, "name") and hasattr(y, "iloc") else columns
    if names is None or not all(isinstance(c, str) for c in names):
        return None
    return np.array(list(names), dtype=object)
