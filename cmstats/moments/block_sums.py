"""Sums of named blocks of columns: of complete rows, and of incomplete rows by pattern."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from cmstats.arrays import Array, to_numpy
from cmstats.moments.missing import seen_together
from cmstats.moments.patterns import Mask, PatternTable
from cmstats.moments.sums import DOUBLE, FORMS, FewRows, Form, Norms, Root, Scatter
from cmstats.rows.names import column_label

__all__ = ["FILE_VERSION", "BlockSums"]

FILE_VERSION = 3
"""Of a file with targets; others are of version 2, which all earlier readers know."""


class BlockSums:
    """Sums of named blocks: of the complete rows, and of the others by missingness pattern.

    Parameters
    ----------
    names : sequence of str
        The names of the blocks, in the order of their columns.
    widths : sequence of int
        The number of columns of each block.
    sums : Scatter or Root
        The sums of the rows in which everything is observed, over all columns.
    table : PatternTable, optional
        The sums of the other rows, if there are any.
    column_names : mapping of name to sequence of str, optional
        The names of the columns of blocks that have some.
    """

    nuisance_rank: int = 0
    """The degrees of freedom that regressions on other blocks have cost."""

    def __init__(
        self,
        names: Sequence[str],
        widths: Sequence[int],
        sums: Scatter | Root,
        table: PatternTable | None = None,
        column_names: Mapping[str, Any] | None = None,
    ) -> None:
        self.names = tuple(names)
        self.widths = tuple(int(w) for w in widths)
        self.column_names: dict[str, tuple[str, ...]] = {}
        self.name_columns(column_names or {})
        self._complete = sums
        self._table = table

    def with_sums(self, sums: Scatter | Root, table: PatternTable | None = None) -> Self:
        """Other sums of the same blocks."""
        return self.derived(self.names, self.widths, sums, table, self.column_names)

    def derived(self, *made: Any) -> Self:
        """Sums computed from these, with the degrees of freedom that regressions have cost."""
        found = type(self)(*made)
        found.nuisance_rank = self.nuisance_rank
        return found

    def name_columns(self, names: Mapping[str, Any]) -> Self:
        """Remember the names of the columns of blocks; None, and other blocks, are passed over."""
        for block, given in names.items():
            if given is not None and block in self.names:
                if len(given) != self.width(block):
                    raise ValueError(
                        f"{len(given)} names for the {self.width(block)} columns of {block}"
                    )
                self.column_names[block] = tuple(str(name) for name in given)
        return self

    def label(self, block: str, at: int) -> str:
        """A column of a block in a sentence: its position, and its name where it has one."""
        return column_label(at, self.column_names.get(block))

    @property
    def n(self) -> float:
        """The sum of the weights."""
        return self._complete.n + (0.0 if self._table is None else self._table.n)

    @property
    def rows(self) -> int:
        """The number of rows of positive weight."""
        return self._complete.rows + (0 if self._table is None else self._table.rows)

    @property
    def rows_seen(self) -> int:
        """The number of rows, with those in which nothing is observed."""
        return self.rows + (0 if self._table is None else self._table.empty)

    @property
    def rows_together(self) -> int:
        """The least number of the rows that have any two of the blocks."""
        if self._table is None:
            return self.rows
        counts = [(mask, s.rows) for mask, s in self.sums_by_pattern()]
        return int(seen_together(counts, self.widths))

    @property
    def weight_together(self) -> float:
        """The least weight of the rows that have any two of the blocks."""
        if self._table is None:
            return self.n
        return seen_together([(mask, s.n) for mask, s in self.sums_by_pattern()], self.widths)

    @property
    def form(self) -> Form:
        """How the second moments are held: "scatter" or "root"."""
        return self._complete.form

    def resolves(self, condition: float) -> bool:
        """Whether the second moments are accurate enough for data of this condition number."""
        return condition <= self._complete.limit(max(self.widths))

    @property
    def single(self) -> bool:
        """Whether products of rows were formed in single precision."""
        return self._complete.roundoff > DOUBLE

    @property
    def diagonal(self) -> str | None:
        """The block of which only the variances were collected, if there is one."""
        return self.names[-1] if self._complete.targets else None

    @property
    def multiplied(self) -> int:
        """The number of columns with products among them."""
        return sum(self.widths) - self._complete.targets

    @property
    def like(self) -> Array:
        """An array in the library and on the device of these sums."""
        return self._complete.mean

    @property
    def incomplete(self) -> bool:
        """Whether entries are missing in some of the rows."""
        return self._table is not None

    def sums_by_pattern(self) -> list[tuple[Mask, Scatter]]:
        """The sums of the rows of each pattern of observed columns, complete rows first.

        Only sums in the scatter form have incomplete rows.
        """
        everything = np.ones(sum(self.widths), dtype=bool)
        complete: Any = self._complete
        return [(everything, complete), *(self._table.items() if self._table else ())]

    @functools.cached_property
    def _offsets(self) -> list[int]:
        return [int(i) for i in np.cumsum([0, *self.widths])]

    def columns(self, name: str) -> slice:
        """The columns of a block among all columns.

        Raises
        ------
        KeyError
            If there is no block of that name.
        """
        if name not in self.names:
            raise KeyError(f"no block {name!r}: the blocks are {', '.join(self.names)}")
        i = self.names.index(name)
        return slice(self._offsets[i], self._offsets[i + 1])

    def width(self, name: str) -> int:
        """The number of columns of a block."""
        at = self.columns(name)
        return int(at.stop - at.start)

    def positions(self, names: Iterable[str]) -> np.ndarray[Any, Any]:
        """The columns of some blocks, as integers on the host."""
        return np.concatenate([np.arange(sum(self.widths))[self.columns(name)] for name in names])

    def __add__(self, other: Self) -> Self:
        """The sums of both groups of rows together."""
        if not isinstance(other, BlockSums):
            return NotImplemented
        if dict(zip(self.names, self.widths, strict=True)) != dict(
            zip(other.names, other.widths, strict=True)
        ):
            raise ValueError(
                f"moments of blocks {self.described()} and {other.described()} cannot be merged"
            )
        for block in {*self.column_names} & {*other.column_names}:
            ours, theirs = self.column_names[block], other.column_names[block]
            if ours != theirs:
                at = next(
                    i for i, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1
                )
                raise ValueError(
                    f"column {at} of {block} is {ours[at]!r} in one group of rows and "
                    f"{theirs[at]!r} in the other: put the columns in one order first"
                )
        if self.form != other.form:
            raise ValueError(f"moments in the forms {self.form!r} and {other.form!r} do not merge")
        if self.names != other.names:
            other = other.select(*self.names)
        tables = [m._table for m in (self, other) if m._table is not None]
        table = functools.reduce(operator.add, tables) if tables else None
        sums = self._complete, other._complete
        if targets := max(s.targets for s in sums):
            if table is not None:
                raise ValueError(
                    "incomplete rows are estimated from the products within every block: collect "
                    "the moments of the others without diagonal"
                )
            sums = sums[0].without_products(targets), sums[1].without_products(targets)
        both = self.with_sums(sums[0] + sums[1], table)
        both.nuisance_rank += other.nuisance_rank
        return both.name_columns(other.column_names)

    def select(self, *names: str) -> Self:
        """The moments of some of the blocks, in the order named.

        Incomplete rows are grouped anew, as if these blocks alone had been collected.
        """
        columns = self.positions(names)
        index = [self.names.index(name) for name in names]
        widths, complete = [self.widths[i] for i in index], self._complete
        sums = complete.take(columns)
        if complete.norms is not None:
            sums = replace(sums, norms=complete.norms.take(index))
        if self._table is None:
            return self.derived(names, widths, sums, None, self._named(names))
        table, now_complete = self._table.take(columns)
        sums = functools.reduce(operator.add, now_complete, sums)
        return self.derived(names, widths, sums, table.or_none(), self._named(names))

    def _named(self, names: Iterable[str]) -> dict[str, Any]:
        """The names of the columns of some of the blocks."""
        return {name: self.column_names.get(name) for name in names}

    def reweighted(self, factor: float) -> Self:
        """The sums of the same rows with all weights times a factor."""
        if factor == 1:
            return self
        table = self._table
        if table is not None:
            sums = {k: s.reweighted(factor) for k, s in table.sums.items()}
            table = replace(table, sums=sums)
        return self.with_sums(self._complete.reweighted(factor), table)

    def on(self, like: Array) -> Self:
        """The same sums in the library and on the device of another array."""
        table = self._table
        if table is not None:
            table = replace(table, sums={k: s.on(like) for k, s in table.sums.items()})
        return self.with_sums(self._complete.on(like), table)

    def fields(self) -> dict[str, Any]:
        """All of it as NumPy arrays in C order, for a file."""
        sums = self._complete
        fields: dict[str, Any] = {
            "version": np.array(FILE_VERSION if sums.targets else FILE_VERSION - 1),
            "names": np.array(self.names, dtype=np.str_),
            "widths": np.array(self.widths),
            "n": np.array(sums.n),
            "rows": np.array(sums.rows),
            "form": np.array(self.form),
            "mean": to_numpy(sums.mean),
            "factor": np.ascontiguousarray(to_numpy(sums.matrix)),
        }
        if sums.norms is not None:
            fields |= {k: to_numpy(getattr(sums.norms, k)) for k in ("third", "fourth")}
        fields["roundoff"] = np.array(sums.roundoff)
        if sums.noise is not None:
            fields["noise"] = to_numpy(sums.noise)
        if sums.targets:
            fields["targets"] = np.array(sums.targets)
        if sums.diagonal is not None:
            fields["diagonal"] = to_numpy(sums.diagonal)
        if self._table is not None:
            fields |= self._table.fields()
        if self.nuisance_rank:
            fields["nuisance_rank"] = np.array(self.nuisance_rank)
        if self.column_names:
            fields["column_names"] = np.array(json.dumps(self.column_names))
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The sums that `fields` wrote."""
        names, widths = [str(name) for name in fields["names"]], fields["widths"].tolist()
        norms = None
        if "third" in fields:
            norms = Norms(tuple(widths), fields["third"], fields["fourth"])
        form = FORMS[str(fields["form"])]  # type: ignore[index]
        n, rows, targets = float(fields["n"]), int(fields["rows"]), int(fields.get("targets", 0))
        diagonal = fields.get("diagonal")
        whole = diagonal is not None or fields["factor"].shape[0] == sum(widths)
        if form is Scatter and not whole:
            form = FewRows
        errors = fields.get("noise"), float(fields.get("roundoff", DOUBLE))
        sums = form(
            n, fields["mean"], fields["factor"], rows, norms, *errors, targets, diagonal
        )  # fmt: skip
        table = PatternTable.from_fields(fields) if "pattern_masks" in fields else None
        named = json.loads(str(fields["column_names"])) if "column_names" in fields else None
        found = cls(names, widths, sums, table, named)
        found.nuisance_rank = int(fields.get("nuisance_rank", 0))
        return found

    def described(self) -> str:
        """The blocks with their widths."""
        return ", ".join(f"{k}: {w}" for k, w in zip(self.names, self.widths, strict=True))
