"""What was partialled out of moments: the regressions, to remove them from other rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmstats.arrays import Array, namespace, result_dtype
from cmstats.rows.chunks import check_lengths, project
from cmstats.rows.matrix import check_matrix
from cmstats.rows.source import width_of

if TYPE_CHECKING:
    from cmstats.moments.moments import Moments

__all__ = ["Partialled"]


@dataclass(frozen=True)
class Partialled:
    """The regressions of blocks on a nuisance block z, with an intercept.

    Attributes
    ----------
    name : str
        The nuisance block.
    rank : int
        Its rank: what the regression costs in degrees of freedom.
    mean : array of shape (p_z,)
    weights : array of shape (p_z, rank)
        W, with W'S_zz W = I.
    patterns : dict of arrays of shape (p_b, rank)
        By block S_bz W: the coefficients are ``patterns[b] W'``.
    """

    name: str
    rank: int
    mean: Array
    weights: Array
    patterns: Mapping[str, Array]

    @classmethod
    def of(cls, moments: Moments, name: str) -> Partialled:
        """The regressions on one of the blocks."""
        white = moments.whiten(name)
        others = [other for other in moments.names if other != name]
        patterns = {other: white.against(other) for other in others}
        return cls(name, white.rank, moments.mean(name), white.weights, patterns)

    def residuals(self, blocks: Mapping[str, Any]) -> tuple[Array, ...]:
        """The rows of blocks less what the nuisance rows explain of them, in their order."""
        if self.name not in blocks:
            raise ValueError(f"the rows of {self.name!r} are missing: give {self.name}=")
        others = {name: a for name, a in blocks.items() if name != self.name}
        for name in others:
            if name not in self.patterns:
                raise KeyError(f"no block {name!r} was regressed on {self.name!r}; there are "
                               f"{', '.join(self.patterns)}")  # fmt: skip
        checked = {name: check_matrix(a, name) for name, a in blocks.items()}
        check_lengths(checked)
        for name, a in checked.items():
            width = self.mean.shape[0] if name == self.name else self.patterns[name].shape[0]
            if width_of(a) != width:
                raise ValueError(f"{name} has {width_of(a)} columns, but it had {width}")
        scores = project(checked.pop(self.name), self.mean, self.weights, self.name)
        found = []
        for name, a in checked.items():
            a = a.toarray() if hasattr(a, "toarray") else a
            xp = namespace(a, scores)
            dtype = result_dtype(a)
            explained = xp.astype(scores, dtype) @ xp.astype(self.patterns[name].mT, dtype)
            rows = xp.astype(a, dtype, copy=False)
            found.append(rows - (explained[:, 0] if a.ndim == 1 else explained))
        return tuple(found)
