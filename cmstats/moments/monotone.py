"""Complete rows beside rows of one block alone: Anderson's factors with shrinkage for each.

The likelihood factorises (Anderson 1957): p(rest | block) is estimated from the complete rows and
p(block) from all rows. Images without a text improve p(image) and leave p(text | image) as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cmstats.arrays import Array, namespace
from cmstats.moments.folds import training_moments
from cmstats.moments.joint_normal import JointNormal, pick
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import SHRINKAGES, standard_deviations
from cmstats.moments.sums import Scatter

__all__ = [
    "among_all",
    "factored",
    "pairs_of_folds",
    "seen_alone",
    "shrinkage_by_density",
    "without_pairs",
]


def seen_alone(moments: Moments) -> str | None:
    """The block of which some rows have nothing else, if all other rows are complete."""
    if not moments.incomplete or moments.complete_rows() is None:
        return None
    found = set()
    for pattern in moments.patterns():
        if pattern.observed.all():
            continue
        blocks = [name for name in moments.names if pattern.observed[moments.columns(name)].any()]
        whole = all(pattern.observed[moments.columns(name)].all() for name in blocks)
        found.add(blocks[0] if whole and len(blocks) == 1 else None)
    return found.pop() if len(found) == 1 else None


def factored(joint: JointNormal, moments: Moments, alone: str, covariance: Array) -> Moments:
    """Moments with p(rest | alone) of a joint normal of the pairs, and this p(alone).

    Parameters
    ----------
    joint : JointNormal
        Of the pairs.
    moments : Moments
        Of all rows.
    alone : str
        The block that has more rows.
    covariance : array of shape (p, p)
        Of this block.
    """
    a = joint.columns((alone,))
    rest = joint.columns([name for name in joint.names if name != alone])
    slopes, residual = joint.regression(a, rest)
    xp = namespace(slopes)
    mean = moments.select(alone).mean(alone)
    other = joint.mean_of(rest) + slopes @ (mean - joint.mean_of(a))
    cross = slopes @ covariance
    corner = residual + cross @ slopes.mT
    whole = xp.concat(
        [
            xp.concat([covariance, cross.mT], axis=1),
            xp.concat([cross, 0.5 * (corner + corner.mT)], axis=1),
        ]
    )
    back = np.argsort(np.concatenate([a, rest]))
    scatter = pick(pick(whole, back, 0), back, 1) * moments.freedom()
    mean = pick(xp.concat([mean, other]), back, 0)
    sums = Scatter(moments.n, mean, scatter, moments.rows)
    return moments.with_sums(sums)


def pairs_of_folds(folds: Sequence[Moments]) -> dict[int, Moments]:
    """The complete rows of each fold that has some, by the number of the fold.

    Raises
    ------
    ValueError
        If only one fold has some.
    """
    found = {k: rows for k, m in enumerate(folds) if (rows := m.complete_rows()) is not None}
    if len(found) < 2:
        raise ValueError(
            f"only fold {min(found)} has rows in which all of {', '.join(folds[0].names)} are "
            "observed: pass cv a splitter that spreads the complete rows"
        )
    return found


def without_pairs(pairs: Mapping[int, Moments], folds: Sequence[Moments]) -> list[str]:
    """A sentence about folds without a complete row."""
    lack = ", ".join(str(k) for k in range(len(folds)) if k not in pairs)
    if not lack:
        return []
    return [
        f"in folds {lack} (counted from 0) no row has all of {', '.join(folds[0].names)}: the "
        "choice is made on the others"
    ]


def among_all(
    scores: np.ndarray[Any, Any], pairs: Mapping[int, Moments], folds: Sequence[Moments]
) -> np.ndarray[Any, Any]:
    """The scores of folds with complete rows among those of all, which are NaN."""
    found = np.full((len(scores), len(folds)), np.nan)
    found[:, [*pairs]] = scores
    return found


def shrinkage_by_density(folds: Sequence[Moments], name: str, *, scale: bool) -> float:
    """The shrinkage of one block with the largest mean held-out log-density."""
    total = np.zeros(len(SHRINKAGES))
    for train, test in zip(training_moments(folds), folds, strict=True):
        xp = namespace(train.mean(name))
        variance = train.variance(name)
        unit = standard_deviations(train, name) if scale else xp.ones_like(variance)
        values, V = xp.linalg.eigh(train.cov(name) / (unit[:, None] * unit[None, :]))
        shift = (test.mean(name) - train.mean(name)) / unit
        W = V / unit[:, None]
        spread = xp.sum(W * test.projected_scatter(name, name, W), axis=0) / test.n
        spread = spread + (shift @ V) ** 2
        target = float(xp.sum(variance / unit**2)) / train.width(name)
        for i, s in enumerate(SHRINKAGES):
            d = (1 - s) * xp.where(values > 0, values, 0.0) + s * target
            density = -0.5 * float(xp.sum(xp.log(d) + spread / d))
            total[i] += density if math.isfinite(density) else -math.inf
    return SHRINKAGES[int(np.argmax(total))]
