"""Named views of the same items: lists and dicts of matrices, checked against those of fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.arrays import dense, detached, namespace
from cmstats.rows.chunks import check_lengths
from cmstats.rows.matrix import check_source, is_vector
from cmstats.rows.names import RESERVED, column_names
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import row_count, take_in_memory, width_of

__all__ = ["Features", "NamedViews", "column_slices", "is_stream", "names_of_views", "several"]


@dataclass(frozen=True)
class NamedViews:
    """The names, widths and column names of two or more views, as seen in fit.

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
        """Raise if there are fewer than two."""
        if len(self.names) < 2:
            raise ValueError(
                f"{len(self.names)} view ({', '.join(self.names)}): canonical correlations need at "
                "least two views; for one view use PCA"
            )

    @classmethod
    def of_blocks(
        cls, names: Sequence[str], widths: Sequence[int], columns: Sequence[Any] | None = None
    ) -> NamedViews:
        """Views known by their moments only."""
        count = len(names)
        return cls(tuple(names), tuple(widths), (2,) * count, tuple(columns or (None,) * count))

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
            tuple(width_of(b) for b in blocks.values()),
            tuple(1 if is_vector(a, blocks[k]) else 2 for k, a in named.items()),
            tuple(column_names(a, name) for name, a in named.items()),
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
            If one is missing, or differs from the fit in width or column names.
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
            If none is given, or one differs from the fit in width or column names.
        """
        named = self.not_none(views)
        if len({row_count(a) for a in named.values()}) == 1:
            check_row_labels(named)
        blocks = {a: check_source(v, a, ensure_finite=ensure_finite) for a, v in named.items()}
        self._check_columns(named, blocks)
        return blocks

    def not_none(self, views: Any) -> dict[str, Any]:
        """The views that are given, by name, unchecked.

        Raises
        ------
        ValueError
            If none is given.
        """
        named = {a: v for a, v in _named(views, self.names).items() if v is not None}
        if not named:
            raise ValueError(f"give at least one of the views {', '.join(self.names)}")
        return named

    def _check_columns(self, named: dict[str, Any], blocks: dict[str, Any]) -> None:
        for name, block in blocks.items():
            at = self.names.index(name)
            if width_of(block) != self.widths[at]:
                raise ValueError(
                    f"view {name} has {width_of(block)} features, but the model is expecting "
                    f"{self.widths[at]} features in it"
                )
            known, found = self.columns[at], column_names(named[name], name)
            if known is not None and found is not None and list(known) != list(found):
                raise ValueError(
                    f"The feature names of view {name} should match those that were passed during "
                    f"fit: got {', '.join(found[:5])} where fit saw {', '.join(known[:5])}"
                )

    def as_fitted(self, each: Iterable[Any]) -> Any:
        """One object for each view: a list if a list was fitted, otherwise a dict."""
        return list(each) if self.listed else dict(zip(self.names, each, strict=True))

    def in_order(self, each: Any) -> dict[str, Any]:
        """One object for each view, from a list or dict of all views to a dict."""
        return dict(each) if isinstance(each, Mapping) else dict(zip(self.names, each, strict=True))

    def as_given(self, views: Any, found: dict[str, Any]) -> Any:
        """One object for each view, in the container of `views`; None for those not found."""
        if isinstance(views, Mapping):
            return {name: found.get(name) for name in views}
        return [found.get(name) for name in self.names]


def _list_names(count: int) -> tuple[str, ...]:
    return tuple(f"view{i}" for i in range(count))


def _named(views: Any, known: tuple[str, ...] | None) -> dict[str, Any]:
    """The views by name; None for a view that was not observed."""
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
    """All views as matrices of one length; NaN is found by the pass that reads them."""
    for name in names:
        if named.get(name) is None:
            raise ValueError(
                f"view {name} is None: views may be missing at transform, predict and fuse only; "
                "fitting and scoring need every view of every row, so leave out the rows that "
                "lack one"
            )
    check_row_labels(named)
    blocks = {
        name: check_source(detached(named[name]), name, ensure_finite=False) for name in names
    }
    check_lengths(blocks)
    return blocks


@dataclass(frozen=True)
class Features:
    """The features of a regression: one matrix, or several of the same rows side by side.

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
        """Check a dict of matrices, or a list or tuple of them, named x0, x1, ...

        Parameters
        ----------
        X : dict, list or tuple of matrices
        order : tuple of str
            The names of the views seen in fit; a dict is reordered to it.
        ensure_finite : bool
        """
        given = _named_features(X)
        if isinstance(X, Mapping) and order:
            if set(given) != set(order):
                raise ValueError(
                    f"the views of X are {', '.join(given)}, but those seen in fit were "
                    f"{', '.join(order)}"
                )
            given = {name: given[name] for name in order}
        check_row_labels(given)
        blocks = {
            k: check_source(detached(a), k, ensure_finite=ensure_finite) for k, a in given.items()
        }
        check_lengths(blocks)
        each = [names for k, a in given.items() if (names := column_names(a, k)) is not None]
        return cls(blocks, np.concatenate(each) if len(each) == len(given) else None)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and columns of all matrices together."""
        rows = int(next(iter(self.blocks.values())).shape[0])
        return rows, sum(self.widths.values())

    @property
    def widths(self) -> dict[str, int]:
        """The number of columns of each matrix."""
        return {name: width_of(a) for name, a in self.blocks.items()}

    def together(self) -> Any:
        """All matrices side by side, dense and in memory."""
        parts = [dense(take_in_memory(a, slice(None))) for a in self.blocks.values()]
        return namespace(*parts).concat(parts, axis=1)

    def check(self, columns: dict[str, slice], width: int, names: Any) -> None:
        """Raise if widths or column names differ from those seen in fit."""
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
    """The columns of each view among those of all views side by side."""
    ends = np.cumsum([0, *widths.values()]).tolist()
    cuts = (slice(a, b) for a, b in itertools.pairwise(ends))
    return dict(zip(widths, cuts, strict=True))


def names_of_views(names: dict[str, Any], cuts: Mapping[str, slice]) -> dict[str, Any]:
    """Names of columns by block, with those of "x" cut into its views."""
    if "x" not in names or not cuts:
        return names
    features = names["x"]
    others = {block: found for block, found in names.items() if block != "x"}
    return {**others, **{view: features[cut] for view, cut in cuts.items()}}


def _named_features(X: Any) -> dict[str, Any]:
    if not isinstance(X, Mapping):
        return {f"x{i}": a for i, a in enumerate(X)}
    if not X:
        raise ValueError("X is a dict without a view: give at least one matrix")
    taken = {*RESERVED, "y"} - {"cls"}  # views become blocks of moments beside y
    for name in X:
        if not isinstance(name, str) or name in taken:
            raise ValueError(
                f"a view of X is named {name!r}: names must be text, other than "
                f"{', '.join(sorted(taken))}"
            )
    return dict(X)


def is_stream(X: Any, y: Any, *, several: bool = False) -> bool:
    """Whether X is an iterable of batches: not an array, nor something that NumPy reads as one.

    Where X may be a list of `several` views, a list of lists or dicts of matrices is one.
    """
    if y is not None or isinstance(X, (str, bytes, Mapping)):
        return False
    if any(hasattr(X, name) for name in ("shape", "__array__", "__dataframe__", "iloc")):
        return False
    if isinstance(X, (list, tuple)):
        batches = bool(X) and all(isinstance(b, (list, tuple, Mapping)) for b in X)
        first = X[0] if batches else ()
        entries = list(first.values() if isinstance(first, Mapping) else first)
        least = 1 if several else 0
        return bool(entries) and all(_is_matrix_or_views(a, least) for a in entries)
    return hasattr(X, "__iter__")


def _is_matrix_or_views(a: Any, least: int) -> bool:
    """Whether an entry of a batch is a matrix, or a list or a dict of matrices.

    They have more than `least` axes.
    """
    views = list(a.values()) if isinstance(a, Mapping) and not hasattr(a, "shape") else a
    each = views if isinstance(views, (list, tuple)) else [views]
    return bool(each) and all(len(getattr(v, "shape", ())) > least for v in each)
