"""Given pairs, judged by models that have not seen them: which are wrong, which match."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state

from cmstats.arrays import Array, namespace, once, recorded, take_rows, to_numpy, warn
from cmstats.inference.conformal import (
    calibration_needed,
    conformal_p_values,
    held_out_folds,
    is_fitted_before,
)
from cmstats.inference.scores import (
    check_ranks,
    paired,
    rows_at,
    similarity_vectors,
    standardized_vectors,
    takes_gaps,
    takes_groups,
)
from cmstats.inference.wrong_pairs import (
    estimated_rates,
    false_discoveries,
    rank_p_values,
    wrong_share_bound,
)
from cmstats.kernels.ranks import top_k
from cmstats.models.gaussian import ConditionalGaussian

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MatchProbability", "check_pairs", "match_probability"]

HostArray = np.ndarray[Any, Any]

SHUFFLES = 5
"""How many wrong pairs are put together for each given one."""
NEIGHBOURS = 10
"""How many of the best others a pair is compared with."""


def check_pairs(
    X: Any,
    y: Any,
    *,
    clean: Any = None,
    model: Any = None,
    fdr: float = 0.1,
    groups: Any = None,
    cv: Any = 5,
    random_state: Any = None,
) -> pd.DataFrame:
    r"""Find pairs that are wrong, with an error rate where some are known to be right.

    Each pair (i, j) is scored by a model that was fitted to the pairs of the other folds. With
    the similarities z of its fold, standardised within rows and columns (twice in turn) so that
    items which fit everything or nothing do not stand out, the score is

    .. math:: \tfrac12 \Bigl( \operatorname*{mean}_{j' \in N(i)} z_{ij'}
              + \operatorname*{mean}_{i' \in N(j)} z_{i'j} - r_{ij} \Bigr) - z_{ij},

    where N are the ten others that fit best (CSLS, Conneau et al. 2018), and r is the similarity
    itself, less the median and over the standard deviation of those of the given pairs: a pair is
    doubtful where others fit better, or where it fits worse than pairs do. A large score is bad.

    Parameters
    ----------
    X, y : array-likes of n rows
        Row i of both is a pair that is given, rightly or wrongly.
    clean : array of int, or of bool of shape (n,), optional
        Pairs known to be right (rows checked by hand), exchangeable with the other right pairs: a
        random sample of what is to be checked, not the easy ones. About 1 / (fdr x share of wrong
        pairs) or more are needed to flag anything: 200 for one wrong pair in 20 at fdr=.1.
    model : two-view model with `embed` or `similarity`, optional
        `ConditionalGaussian` by default, whose similarity is the likelihood ratio. It is cloned.
    fdr : float in (0, 1), default=0.1
        The expected share of right pairs among those flagged, and of wrong ones among those
        verified.
    groups : array of shape (n,), optional
        Rows of one group (captions of one image) are in one fold.
    cv : int, splitter or iterable of splits, default=5
        The folds. An int deals rows (or groups) to folds at random.
    random_state : int, RandomState or None, default=None
        For the folds and the pairs put together at random.

    Returns
    -------
    DataFrame
        One row for each pair, in the order given:

        - ``score``: large is bad;
        - ``p_value``: with `clean`, the conformal p-value of "this pair is right", NaN for the
          clean pairs; without, NaN;
        - ``flagged``: with `clean`, whether the pair is called wrong; without, False;
        - ``verified``: whether the pair is called right (clean pairs are);
        - ``estimated_rate``: the estimated share of right pairs in the best list of suspects, from
          the worst on, that contains this one;
        - ``best_row``: the row whose y fits this x best, the most likely true partner.

        ``table.attrs`` has "share_bound", an upper bound (90 %) of the share of wrong pairs,
        "separation", the probability that a wrong pair looks worse than a given one, "fdr" and
        "n_clean".

    Raises
    ------
    ValueError
        If `fdr` is not between 0 and 1, there are too few clean pairs for it, rows are not of
        one length, or values are not finite.
    TypeError
        If the model ranks nothing.

    Notes
    -----
    **With clean pairs** the p-value of a pair is the rank of its score among theirs, and pairs are
    flagged by Benjamini and Hochberg (1995), which holds for such p-values (Bates et al. 2023):
    the expected share of right pairs among those flagged is at most `fdr`, if clean pairs and
    other right pairs are exchangeable, and up to what the wrong pairs do to the models of the
    other folds. Nothing is assumed of the wrong ones. How many of them are found depends on the
    data: of 5 % planted at fdr=.1 nearly all in halves of digits, most in product images and
    names, hardly any in emoji, where many right pairs look wrong.

    **Without**, suspects are a ranking with an *estimated* rate, and of the share of wrong pairs
    there is an *upper bound* only. That right pairs look wrong and that pairs are wrong cannot be
    told apart by the scores: a fit of two groups of scores flagged 15 innocents where nothing was
    planted. So nothing is flagged. The bound takes wrong pairs for pairs put together at random.

    **Verified** are the pairs whose partner ranks so high among the candidates of its fold that
    wrong pairs, whose rank is uniform, would hardly be there: the expected share of wrong pairs
    among them is at most `fdr` (Benjamini and Hochberg), if wrong pairs are put together at random.

    References
    ----------
    Benjamini, Y. and Hochberg, Y. (1995). Controlling the false discovery rate. JRSS B 57.
    Bates, S., Candes, E., Lei, L., Romano, Y. and Sesia, M. (2023). Testing for outliers with
    conformal p-values. Annals of Statistics 51.
    Storey, J. D. (2002). A direct approach to false discovery rates. JRSS B 64.
    Conneau, A., Lample, G., Ranzato, M., Denoyer, L. and Jegou, H. (2018). Word translation
    without parallel data. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import ConditionalGaussian, check_pairs
    >>> rng = np.random.default_rng(1)
    >>> z = rng.normal(size=(600, 8))
    >>> X, y = z + 0.2 * rng.normal(size=z.shape), z + 0.2 * rng.normal(size=z.shape)
    >>> y[:20] = y[1:21]  # 20 pairs are wrong
    >>> model = ConditionalGaussian(shrinkage=0.1)
    >>> table = check_pairs(X, y, clean=np.arange(300, 600), model=model, random_state=0)
    >>> int(table["flagged"][:20].sum()), int(table["flagged"][20:].sum())
    (20, 1)
    >>> int(table["best_row"][5])
    4
    """
    import pandas as pd

    from cmstats.metrics.tables import as_table

    _check_share("fdr", fdr)
    model = ConditionalGaussian() if model is None else model
    check_ranks(model)
    X, y, columns = paired(X, y, gaps=takes_gaps(model), groups=groups)
    n = int(X.shape[0])
    known = _mask(clean, n)
    if known is not None:
        _check_clean(int(known.sum()), fdr)
    rng = check_random_state(random_state)
    scores, ranks, best = np.empty(n), np.empty(n), np.empty(n, dtype=np.intp)
    wrong = []
    for test, fitted in _cross_fitted(model, X, y, cv, columns["groups"], rng):
        held = rows_at(test, X, y)
        U, V = similarity_vectors(fitted, held[0], held[1])
        everyone = similarity_vectors(fitted, rows_at(test[:1], X)[0], y)[1]
        best[test] = to_numpy(top_k(*standardized_vectors(U, everyone), 1)[0])[:, 0]
        scores[test], mismatched, ranks[test] = _suspicion(U, V, rng)
        wrong.append(mismatched)
    if not np.isfinite(scores).all():
        raise ValueError("the model's similarities are not finite")
    wrong_scores = np.concatenate(wrong)
    rest = np.ones(n, dtype=bool) if known is None else ~known
    p_values, flagged, verified = np.full(n, np.nan), np.zeros(n, dtype=bool), ~rest
    verified[rest] = false_discoveries(ranks[rest], fdr)
    if known is not None:
        p_values[rest] = conformal_p_values(scores[known], scores[rest])
        flagged[rest] = false_discoveries(p_values[rest], fdr)
    table = pd.DataFrame(
        {
            "score": scores,
            "p_value": p_values,
            "flagged": flagged,
            "verified": verified & ~flagged,
            "estimated_rate": estimated_rates(scores, wrong_scores),
            "best_row": best,
        },
        index=getattr(X, "index", None),
    )
    below = np.searchsorted(np.sort(wrong_scores), scores, side="left")
    above = np.searchsorted(np.sort(wrong_scores), scores, side="right")
    table.attrs = {
        "share_bound": wrong_share_bound(ranks[rest]),
        "separation": float(1 - np.mean(below + above) / 2 / len(wrong_scores)),
        "fdr": float(fdr),
        "n_clean": 0 if known is None else int(known.sum()),
    }
    return as_table(table)


def _check_share(name: str, value: Any) -> None:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise ValueError(f"{name}={value!r} must lie between 0 and 1, for example 0.1")


def _mask(clean: Any, n: int) -> HostArray | None:
    """Which rows are known to be right."""
    if clean is None:
        return None
    rows = np.asarray(to_numpy(clean))
    if rows.dtype == bool and rows.shape != (n,):
        raise ValueError(f"clean has shape {rows.shape}, expected ({n},) or numbers of rows")
    if rows.dtype != bool and (rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows)):
        raise ValueError("clean must hold the numbers of rows, or True and False for each row")
    if rows.dtype != bool and not (rows.min() >= 0 and rows.max() < n):
        raise ValueError(f"clean names row {rows.max()}, the rows are 0 to {n - 1}")
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    if mask.all():
        raise ValueError("all pairs are clean: there is none to check")
    return mask


def _check_clean(count: int, fdr: float) -> None:
    needed = calibration_needed(1 - fdr)
    if count < needed:
        raise ValueError(
            f"{count} clean pairs are too few for fdr={fdr:g}: at least {needed} are needed, and "
            "about 1 / (fdr x share of wrong pairs) to flag these"
        )


def _cross_fitted(
    model: Any, X: Any, y: Any, cv: Any, groups: Any, rng: Any
) -> Iterator[tuple[HostArray, Any]]:
    """The held-out rows of each fold, and a model fitted to the other rows.

    Each warning of the fits is issued once.
    """
    if is_fitted_before(model):
        yield np.arange(int(X.shape[0])), model
        return
    found: list[Any] = []
    for train, test in held_out_folds(int(X.shape[0]), cv, groups, rng):
        with recorded() as said:
            own = None if groups is None else groups[train]
            fitted = _fitted(model, take_rows(X, train), take_rows(y, train), own)
        found += said
        if len(test) < 3:
            raise ValueError(
                f"a fold has {len(test)} pairs: at least 3 are needed to compare them, use fewer "
                "folds"
            )
        yield test, fitted
    for message, category in once(found):
        warn(f"in a fold: {message}", category)


def _fitted(model: Any, X: Any, y: Any, groups: Any) -> Any:
    """A copy of the model, fitted; groups stay together where it chooses by folds."""
    given = {"groups": groups} if groups is not None and takes_groups(model) else {}
    return clone(model).fit(X, y, **given)


def _suspicion(U: Array, V: Array, rng: Any) -> tuple[HostArray, HostArray, HostArray]:
    """How bad the pairs of a fold look, the same of pairs that are none, and p-values of ranks.

    See `check_pairs`. Where items differ in how much they fit everything the standardised part is
    the better one; the similarity itself where the items of a wrong pair are extreme ones.
    """
    P, Q = standardized_vectors(U, V)
    n = int(P.shape[0])
    around = [_Neighbours.of(*sides) for sides in ((P, Q), (Q, P))]
    given = _own(U, V)
    middle, spread = float(np.median(given)), float(given.std()) or 1.0

    def badness(partner: HostArray) -> HostArray:
        own, raw = _own(P, *rows_at(partner, Q)), _own(U, *rows_at(partner, V))
        rows = around[0].mean_without(partner)
        columns = around[1].mean_without(np.argsort(partner))
        return 0.5 * (rows + columns[partner] - (raw - middle) / spread) - own

    wrong = [badness(_derangement(n, rng)) for _ in range(SHUFFLES)]
    return badness(np.arange(n)), np.concatenate(wrong), rank_p_values(P, Q)


@dataclass(frozen=True)
class _Neighbours:
    """The largest similarities of each row: one more than are averaged, and whose they are."""

    values: HostArray
    whose: HostArray

    @classmethod
    def of(cls, P: Array, Q: Array) -> _Neighbours:
        whose, values = top_k(P, Q, min(NEIGHBOURS, int(Q.shape[0]) - 1) + 1)
        return cls(np.asarray(to_numpy(values), dtype=np.float64), to_numpy(whose))

    def mean_without(self, partner: HostArray) -> HostArray:
        """The mean of each row without its partner; without its last value if that is absent."""
        own = self.whose == partner[:, None]
        own[:, -1] |= ~own.any(axis=1)
        return np.asarray(np.mean(self.values, axis=1, where=~own))


def _own(U: Array, V: Array) -> HostArray:
    """Similarities of the pairs."""
    xp = namespace(U, V)
    return np.asarray(to_numpy(xp.astype(xp.sum(U * V, axis=1), xp.float64)))


def _derangement(n: int, rng: Any) -> HostArray:
    """A random cyclic permutation: it has no fixed point."""
    order = rng.permutation(n)
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return np.asarray(other)


@dataclass(frozen=True)
class MatchProbability:
    """Probabilities that pairs belong together.

    ``np.asarray(found)`` is `probability`.

    Attributes
    ----------
    probability : array of shape (n,)
        Of the given pairs, each by a model that has not seen it.
    mismatched : array of shape (n,)
        Of one pair for each x that was put together at random, by the same models.
    prior : float
        The share of pairs that match before their similarity is known.
    slope, intercept : float
        ``logit(probability) = slope similarity + intercept + logit(prior)``.
    brier, brier_prior : float
        The Brier score, the mean squared error of the probabilities, in a population of which the
        share `prior` match; and that of the prior itself.
    model : estimator
        Fitted to all pairs.
    """

    probability: HostArray
    mismatched: HostArray
    prior: float
    slope: float
    intercept: float
    brier: float
    brier_prior: float
    model: Any

    def __repr__(self) -> str:
        return (
            f"MatchProbability of {len(self.probability):,} pairs: mean "
            f"{self.probability.mean():.3f}, {self.mismatched.mean():.3f} of pairs at random; "
            f"Brier\nscore {self.brier:.3f}, {self.brier_prior:.3f} of the prior {self.prior:g} "
            "(numpy.asarray gives the probabilities)"
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> HostArray:
        """The probabilities of the given pairs."""
        return np.array(self.probability, dtype=dtype)

    def between(self, X: Any, y: Any) -> Array:
        """The probability that each x belongs to each y, for linkage and reranking.

        Parameters
        ----------
        X, y : array-likes of n and m rows

        Returns
        -------
        array of shape (n, m)
            Each pair by itself: rows need not add up to 1.
        """
        U, V = similarity_vectors(self.model, X, y)
        xp = namespace(U, V)
        log_odds = self.slope * (U @ V.mT) + self.intercept + float(logit(self.prior))
        return 1 / (1 + xp.exp(xp.clip(-log_odds, -80.0, 80.0)))


def match_probability(
    X: Any,
    y: Any,
    *,
    prior: float = 0.5,
    model: Any = None,
    groups: Any = None,
    cv: Any = 5,
    random_state: Any = None,
) -> MatchProbability:
    r"""The probability that pairs belong together, from a calibrated likelihood ratio.

    Bayes' rule with the log-likelihood ratio s = log p(x, y) - log p(x) - log p(y) of a fitted
    model would be right if the model were. So the ratio is calibrated by a logistic regression
    (Platt 1999) of given pairs against pairs put together at random, all of them held out:

    .. math:: \operatorname{logit} P(\text{match} \mid x, y)
              = a\, s(x, y) + b + \operatorname{logit}(\text{prior}).

    Parameters
    ----------
    X, y : array-likes of n rows
        Pairs that match; row i of both is one.
    prior : float in (0, 1), default=0.5
        The share of pairs that match among those asked about: 1/m for one partner among m
        candidates.
    model : two-view model with `embed` or `similarity`, optional
        `ConditionalGaussian` by default. It is cloned; a frozen one is calibrated on all pairs.
    groups, cv, random_state
        As in `check_pairs`.

    Returns
    -------
    MatchProbability
        With the probabilities of the given pairs, and ``between(X, y)`` for others.

    Raises
    ------
    ValueError
        If `prior` is not between 0 and 1, or as in `check_pairs`.
    TypeError
        If the model ranks nothing.

    Notes
    -----
    Calibrated is the average over pairs, if new pairs that match are exchangeable with these and
    others are put together at random. Each probability is of a pair by itself: that a record has
    one partner only is not used.

    References
    ----------
    Fellegi, I. P. and Sunter, A. B. (1969). A theory for record linkage. JASA 64.
    Platt, J. (1999). Probabilistic outputs for support vector machines. Advances in Large Margin
    Classifiers.
    Brier, G. W. (1950). Verification of forecasts expressed in terms of probability. Monthly
    Weather Review 78.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import ConditionalGaussian, match_probability
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(400, 4))
    >>> X, y = z + 0.3 * rng.normal(size=z.shape), z + 0.3 * rng.normal(size=z.shape)
    >>> model = ConditionalGaussian(shrinkage=0.1)
    >>> found = match_probability(X, y, prior=0.01, model=model, random_state=0)
    >>> found.between(X[:3], y[:5]).shape
    (3, 5)
    >>> bool(found.brier < found.brier_prior)
    True
    """
    _check_share("prior", prior)
    model = ConditionalGaussian() if model is None else model
    check_ranks(model)
    X, y, columns = paired(X, y, gaps=takes_gaps(model), groups=groups)
    n = int(X.shape[0])
    rng = check_random_state(random_state)
    own, other = np.empty(n), np.empty(n)
    fold = np.empty(n, dtype=np.intp)
    for k, (test, fitted) in enumerate(_cross_fitted(model, X, y, cv, columns["groups"], rng)):
        held = rows_at(test, X, y)
        U, V = similarity_vectors(fitted, held[0], held[1])
        own[test], fold[test] = _own(U, V), k
        other[test] = _own(U, *rows_at(_derangement(len(test), rng), V))
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        raise ValueError("the model's similarities are not finite")
    if is_fitted_before(model):
        for k, (_, test) in enumerate(held_out_folds(n, cv, columns["groups"], rng)):
            fold[test] = k
    slope, intercept = _platt(own, other)
    found = []
    for scores in (own, other):
        log_odds = np.empty(n)
        for k in range(int(fold.max()) + 1):
            at = fold == k
            a, b = _platt(own[~at], other[~at])  # by the pairs of the other folds
            log_odds[at] = a * scores[at] + b
        found.append(expit(log_odds + logit(prior)))
    match, mismatch = found
    brier = prior * np.mean((1 - match) ** 2) + (1 - prior) * np.mean(mismatch**2)
    fitted = model if is_fitted_before(model) else _fitted(model, X, y, columns["groups"])
    return MatchProbability(
        match, mismatch, float(prior), slope, intercept, float(brier), prior * (1 - prior), fitted
    )


def _platt(own: HostArray, other: HostArray) -> tuple[float, float]:
    """Slope and intercept of the log-odds of a match at equal shares."""
    scores = np.concatenate([own, other])
    centre, scale = float(np.median(scores)), float(scores.std()) or 1.0
    regression = LogisticRegression(C=1e3, max_iter=1000)
    regression.fit(((scores - centre) / scale)[:, None], np.repeat([1, 0], [len(own), len(other)]))
    slope = float(regression.coef_[0, 0]) / scale
    intercept = float(regression.intercept_[0]) - slope * centre
    assert math.isfinite(slope)
    return slope, intercept
