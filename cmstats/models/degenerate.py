"""Sentences about data on which a model is not unique, for its one warning."""

from __future__ import annotations

import numpy as np

from cmstats.arrays import to_numpy
from cmstats.moments.shrinkage import Shrunk

__all__ = ["constant_columns", "dependent_columns"]


def constant_columns(m: Shrunk, *names: str) -> list[str]:
    """A sentence for each of these blocks (all by default) with columns that do not vary."""
    found = []
    for name in names or m.names:
        constant = [int(i) for i in np.flatnonzero(to_numpy(m.unshrunk.constant(name)))]
        if constant:
            found.append(
                f"{len(constant)} of the columns of {name} "
                f"{'is' if len(constant) == 1 else 'are'} constant "
                f"(the first is {m.unshrunk.label(name, constant[0])}) and got weight 0"
            )
    return found


def dependent_columns(m: Shrunk, *names: str) -> list[str]:
    """A sentence for each block that is not shrunk and whose columns depend on each other."""
    found = []
    for name, s in zip(m.names, m.shrinkage, strict=True):
        if names and name not in names:
            continue
        varying = m.width(name) - int(np.count_nonzero(to_numpy(m.unshrunk.constant(name))))
        rank = m.whiten(name).rank
        if rank < min(varying, m.rows - 1) and not s:
            found.append(
                f"the columns of {name} depend on each other linearly (rank {rank} of {varying}): "
                "the result is right on their range, but weights are not unique; set shrinkage"
            )
    return found
