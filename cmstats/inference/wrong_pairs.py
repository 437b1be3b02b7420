"""How many of the given pairs are wrong, and which, from their ranks among pairs put together."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta, false_discovery_control

from cmstats.arrays import to_numpy
from cmstats.kernels.ranks import partner_counts

__all__ = ["estimated_rates", "false_discoveries", "rank_p_values", "wrong_share_bound"]

HostArray = np.ndarray[Any, Any]

GRID = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""Limits of p-values at which the share of wrong pairs is bounded."""


def rank_p_values(U: Any, V: Any) -> HostArray:
    """p-values of "this pair is wrong", by the rank of the given partner in its row.

    If the given y is as good as any other one, its rank among the m candidates is uniform, so that
    ``rank / m`` is a p-value (ties count against the pair).

    Parameters
    ----------
    U, V : arrays of shape (m, d)
        Vectors of pairs, whose inner products are similarities.
    """
    counts = partner_counts(U, V)[0]
    greater, ties = to_numpy(counts.greater), to_numpy(counts.ties)
    return np.asarray((1 + greater + ties) / len(greater))


def false_discoveries(p_values: HostArray, rate: float) -> HostArray:
    """Which hypotheses are rejected by Benjamini and Hochberg (1995) at this rate."""
    if not len(p_values):
        return np.zeros(0, dtype=bool)
    return np.asarray(false_discovery_control(p_values, method="bh") <= rate * (1 + 1e-9))


def wrong_share_bound(p_values: HostArray, confidence: float = 0.9) -> float:
    r"""An upper bound of the share of wrong pairs, from `rank_p_values`.

    The p-values of wrong pairs are uniform, so that the share of all p-values above a limit
    :math:`\lambda` is at least :math:`\pi (1 - \lambda)` on average (Storey 2002):

    .. math:: \pi \le \min_\lambda \frac{P(p > \lambda)}{1 - \lambda},

    with the upper limits of Clopper and Pearson (1934) for the probabilities, at ten values of
    :math:`\lambda` and with a tenth of the error each. It is a bound only: right pairs that look
    like wrong ones count too.

    Parameters
    ----------
    p_values : array of shape (n,)
    confidence : float, default=0.9
    """
    n = len(p_values)
    above = (p_values[:, None] > GRID).sum(axis=0)
    error = (1 - confidence) / len(GRID)
    limits = np.where(above < n, beta.ppf(1 - error, above + 1, np.maximum(n - above, 1)), 1.0)
    return float(min(1.0, np.min(limits / (1 - GRID))))


def estimated_rates(scores: HostArray, wrong: HostArray) -> HostArray:
    r"""The estimated share of right pairs in the best list of suspects that contains each pair.

    A list is of all pairs that look at least as bad as some t, and its rate is

    .. math:: 1 - \hat\pi \, F_\text{wrong}(t) / F_\text{given}(t), \qquad
              \hat\pi = \min_t F_\text{given}(t) / F_\text{wrong}(t)

    with the shares F of wrong and of given pairs whose score is at least t; the least rate of a
    list is that of a pair (the q-value of Storey 2002). An estimate without a
    guarantee: :math:`\hat\pi` is an upper bound, where it is reached the rate is 0 by
    construction, and where nothing is wrong it is too low.

    Parameters
    ----------
    scores : array of shape (n,)
        Of the given pairs; large is bad.
    wrong : array of shape (m,)
        Of pairs put together at random.
    """
    worst = np.sort(scores)[::-1]
    given = np.searchsorted(-worst, -scores, side="right") / len(scores)
    false = np.searchsorted(np.sort(-wrong), -scores, side="right") / len(wrong)
    share = np.divide(given, false, out=np.full(len(scores), np.inf), where=false > 0)
    # Of very few wrong pairs a ratio is chance.
    enough = false >= min(0.05, float(false.max(initial=0.0)))
    bound = min(1.0, float(share[enough].min(initial=1.0)))
    rates = np.clip(1 - bound * false / given, 0.0, 1.0)
    order = np.argsort(scores, kind="stable")
    out = np.empty(len(scores))
    out[order] = np.minimum.accumulate(rates[order])
    return out
