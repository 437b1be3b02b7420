"""Regressions on a nuisance block: found by `partial_out`, removed from other rows too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmstats.arrays import Array, namespace, result_dtype
from cmstats.rows.chunks import check_lengths, project
from cmstats.rows.matrix import check_matrix
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import width_of

__all__ = ["Partialled", "residuals"]


@dataclass(frozen=True)
class Partialled:
    """The regressions of blocks on a nuisance block z, with an intercept.

    Attributes
    ----------
    name : str
        The nuisance block.
    mean : array of shape (p_z,)
    weights : array of shape (p_z, rank)
        W, with W'S_zz W = I.
    patterns : dict of arrays of shape (p_b, rank)
        By block S_bz W: the coefficients are ``patterns[b] W'``.
    """

    name: str
    mean: Array
    weights: Array
    patterns: Mapping[str, Array]

    def remove(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Checked rows of the other blocks less what the nuisance rows explain of them."""
        scores = project(rows[self.name], self.mean, self.weights, self.name)
        found = {}
        for name, a in rows.items():
            if name == self.name:
                continue
            xp, dtype = namespace(a, scores), result_dtype(a)
            explained = xp.astype(scores, dtype) @ xp.astype(self.patterns[name].mT, dtype)
            left = xp.astype(a, dtype, copy=False)
            found[name] = left - (explained[:, 0] if a.ndim == 1 else explained)
        return found


def residuals(steps: Sequence[Partialled], blocks: Mapping[str, Any]) -> tuple[Array, ...]:
    """The rows of blocks after regressions one after the other, in the order given.

    Raises
    ------
    ValueError, KeyError
        If rows of a nuisance block are missing, or blocks, widths or lengths are not those of
        the regressions.
    """
    widths = {name: int(a.shape[0]) for name, a in steps[0].patterns.items()}
    widths[steps[0].name] = int(steps[0].mean.shape[0])
    for step in steps:
        if step.name not in blocks:
            raise ValueError(f"the rows of {step.name!r} are missing: give {step.name}=")
    for name in blocks:
        if name not in widths:
            raise KeyError(f"no block {name!r} was regressed on {steps[0].name!r}; there are "
                           f"{', '.join(steps[0].patterns)}")  # fmt: skip
    check_row_labels(blocks)
    rows = {name: check_matrix(a, name) for name, a in blocks.items()}
    check_lengths(rows)
    for name, a in rows.items():
        if width_of(a) != widths[name]:
            raise ValueError(f"{name} has {width_of(a)} columns, but it had {widths[name]}")
        rows[name] = a.toarray() if hasattr(a, "toarray") else a
    for step in steps:
        rows = step.remove(rows)
    return tuple(rows.values())
