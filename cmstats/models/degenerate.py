"""Sentences about data on which a model is not unique, for its one warning."""

from __future__ import annotations

import itertools

import numpy as np

from cmstats.arrays import namespace, to_numpy
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk
from cmstats.moments.tasks import TaskMoments

__all__ = ["constant_columns", "dependent_columns", "vanishing_columns"]

LEAST = 1e-306
"""Variances below this have lost digits: they are near the least number in double precision."""


def vanishing_columns(m: Moments | TaskMoments) -> list[str]:
    """A sentence for each block with columns so small that their squares are lost."""
    if isinstance(m, TaskMoments):
        said = (vanishing_columns(part) for part in m.moments if part is not None)
        return list(dict.fromkeys(itertools.chain.from_iterable(said)))
    found = []
    for name in () if m.incomplete else m.names:
        xp, mean, variance = namespace(m.like), m.mean(name), m.variance(name)
        small = (variance < LEAST) & (xp.abs(mean) < LEAST**0.5)
        lost = np.flatnonzero(to_numpy(small & ((variance > 0) | (mean != 0))))
        if lost.size:
            found.append(
                f"{lost.size} of the columns of {name} have values so small that their squares are "
                f"lost (the first is {m.label(name, int(lost[0]))}): multiply them by a constant"
            )
    return found


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
