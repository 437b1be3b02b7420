"""Conformal calibration: ranks among held-out scores, which need no distribution.

Where a new item is exchangeable with n held-out ones, the rank of its score among theirs is
uniform, whatever the scores are and whatever the law of the data is (Vovk, Gammerman and Shafer
2005). Scores here are distances: a large one is strange.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state

from cmstats.arrays import Array, device_of, namespace, to_numpy
from cmstats.rows.splits import fold_ids

__all__ = [
    "calibration_needed",
    "check_calibration",
    "check_confidence",
    "conformal_p_values",
    "conformal_quantile",
    "held_out_folds",
    "is_fitted_before",
    "one_per_group",
    "p_values_among",
    "within",
]

HostArray = np.ndarray[Any, Any]


def check_confidence(confidence: Any) -> float:
    """A confidence strictly between 0 and 1.

    Raises
    ------
    ValueError
        If it is none.
    """
    number = isinstance(confidence, (int, float, np.number)) and not isinstance(confidence, bool)
    if not number or not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r} must lie between 0 and 1, for example 0.9")
    return float(confidence)


def calibration_needed(confidence: float) -> int:
    """The fewest calibration scores with which a set of this confidence can leave anything out."""
    return math.ceil(confidence / (1 - confidence) - 1e-9)


def check_calibration(n: int, confidence: float, what: str = "calibration pairs") -> None:
    """Raise where there are too few calibration scores for a confidence, with the number needed."""
    if n < (needed := calibration_needed(confidence)):
        raise ValueError(
            f"{n} {what} are too few for confidence={confidence:g}: at least {needed} are needed, "
            "or a lower confidence"
        )


def conformal_quantile(distances: Any, confidence: float) -> float:
    """The distance that a new one does not exceed with at least this probability.

    The k-th smallest of n with ``k = ceil((n + 1) confidence)``. For exchangeable distances
    without ties the probability is k / (n + 1), less than ``confidence + 1 / (n + 1)``.

    Parameters
    ----------
    distances : array of shape (n,)
    confidence : float in (0, 1)

    Raises
    ------
    ValueError
        If n is too small: k would be n + 1.

    References
    ----------
    Papadopoulos, H., Proedrou, K., Vovk, V. and Gammerman, A. (2002). Inductive confidence
    machines for regression. ECML.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.inference.conformal import conformal_quantile
    >>> conformal_quantile(np.arange(1.0, 20.0), 0.9)
    18.0
    """
    distances = np.asarray(to_numpy(distances))
    check_calibration(len(distances), check_confidence(confidence))
    k = math.ceil((len(distances) + 1) * confidence - 1e-9)
    return float(np.partition(distances, k - 1)[k - 1])


def conformal_p_values(calibration: Any, distances: Any) -> HostArray:
    """The share of distances, the own one among them, that are at least as large.

    Parameters
    ----------
    calibration : array of shape (n,)
        Distances of held-out items.
    distances : array of any shape

    Returns
    -------
    array of that shape
        ``(1 + #{calibration >= distance}) / (n + 1)``: for a distance that is exchangeable with
        the n others, ``P(p <= u) <= u`` for every u.

    Examples
    --------
    >>> from cmstats.inference import conformal_p_values
    >>> conformal_p_values([1.0, 2.0, 3.0, 4.0], [5.0, 2.5, 0.0])
    array([0.2, 0.6, 1. ])
    """
    ordered = np.sort(np.asarray(to_numpy(calibration), dtype=np.float64))
    at_least = len(ordered) - np.searchsorted(ordered, to_numpy(distances), side="left")
    return np.asarray((1 + at_least) / (len(ordered) + 1))


def p_values_among(calibrations: Sequence[Any], distances: Sequence[Array]) -> Array:
    r"""Cross-conformal p-values: each model's distances among those that it was calibrated with.

    .. math:: p = \frac{1 + \sum_k \#\{i \in \text{fold } k: a_i \ge a^{(k)}\}}{n + 1}

    With one model this is the conformal p-value. With K, each vote is of a model that has not
    seen the item whose distance it compares, and ``P(p <= u)`` is at most about 2u (Vovk 2015;
    Barber, Candes, Ramdas and Tibshirani 2021).

    Parameters
    ----------
    calibrations : sequence of K arrays, sorted
        The held-out distances of each fold.
    distances : sequence of K arrays of one shape
        Of new items, by the model of each fold.
    """
    n = sum(int(held.shape[0]) for held in calibrations)
    xp = namespace(*distances)
    votes = 1 + 0 * xp.astype(distances[0], xp.float64)
    for ordered, each in zip(calibrations, distances, strict=True):
        among = xp.asarray(ordered, device=device_of(each))
        flat = xp.astype(xp.reshape(each, (-1,)), xp.float64)
        below = xp.reshape(xp.searchsorted(among, flat, side="left"), each.shape)
        votes = votes + xp.astype(int(ordered.shape[0]) - below, xp.float64)
    return votes / (n + 1)


def within(p_values: Array, confidence: float) -> Array:
    """Whether p-values put items into the set of this confidence, ``p > 1 - confidence``."""
    return p_values > (1 - confidence) * (1 + 1e-9)


def one_per_group(distances: HostArray, groups: Any, how: str, random_state: Any) -> HostArray:
    """The numbers of distances that are exchangeable over groups.

    One at random of each group ("random"), or the largest ("worst"); all without groups.
    """
    if groups is None:
        return np.arange(len(distances))
    order = check_random_state(random_state).permutation(len(distances))
    if how == "worst":
        order = order[np.argsort(-distances[order], kind="stable")]
    _, first = np.unique(np.asarray(groups)[order], return_index=True)
    return np.asarray(np.sort(order[first]))


def is_fitted_before(model: Any) -> bool:
    """Whether a model is frozen, so that all rows are held out from its fit."""
    return isinstance(model, FrozenEstimator)


def held_out_folds(
    n: int, cv: Any, groups: Any, random_state: Any
) -> list[tuple[HostArray, HostArray]]:
    """Training and held-out rows of each fold; of an int, groups or rows in random order."""
    whole = isinstance(cv, (int, np.integer)) and not isinstance(cv, bool)
    if whole:
        names, codes = (
            (np.arange(n), np.arange(n))
            if groups is None
            else np.unique(np.asarray(groups), return_inverse=True)
        )
        dealt = check_random_state(random_state).permutation(len(names))
        ids = fold_ids(int(cv), len(names))[dealt][codes]
    else:
        ids = fold_ids(cv, n, groups=groups)
    inside = ids >= 0  # rows of gaps are in no fold, and train none
    folds = range(ids.max() + 1)
    return [(np.flatnonzero(inside & (ids != k)), np.flatnonzero(ids == k)) for k in folds]
