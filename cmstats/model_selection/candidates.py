"""Models of cross-modal retrieval tried on held-out pairs: what each pair's partner ranks.

`Trials` deals the pairs to folds and evaluates whole families of candidates at once: all
shrinkages of a likelihood ratio from one eigendecomposition (`LikelihoodPath`), all numbers of
components of one singular value decomposition, and each with and without correction of hubness.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cmstats.kernels.linalg import leading_svd
from cmstats.kernels.ranks import partner_counts
from cmstats.metrics.hubness import HubnessCorrection, mean_of_largest
from cmstats.metrics.ties import TiedRanks
from cmstats.model_selection.judging import RawCosine
from cmstats.models.cca import CCA
from cmstats.models.feature_maps import NystroemMap
from cmstats.models.kernel_cca import KernelCCA
from cmstats.models.latent import unit_rows
from cmstats.moments.canonical import Canonical, likelihood_vectors
from cmstats.moments.folds import map_moments, training_moments
from cmstats.moments.likelihood_path import LikelihoodPath, PathScores
from cmstats.moments.moments import Moments

__all__ = ["BANK", "NEIGHBOURS", "Candidate", "Trials"]

HostArray = np.ndarray[Any, Any]
Target = Literal["independent", "aligned"]
Scores = tuple[HostArray, HostArray, HostArray]
"""Of held-out x with held-out y, with the y of the bank, and of the x of the bank with these y."""
_Ranked = tuple["Candidate", HostArray, HostArray]
"""A candidate, held-out pairs, and what each is worth."""

SHRINKAGES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 0.999)
COMPONENTS = (50, 100, 200)
GAMMAS = (1.0, 0.3, 0.1, 0.03)
"""Multiples of the median heuristic."""
MANY_ROWS = 3000
LANDMARKS = (2000, 1200)
"""Landmarks of the model that is fitted in the end, and of that of more than `MANY_ROWS` rows."""
TRIAL_LANDMARKS = (1000, 400)
"""Those of the trials."""
QUERIES = 2500
"""Held-out pairs that are ranked, in all folds together."""
TRIAL_BANK = 1000
BANK = 2000
"""Pairs of the bank in a trial, and of the model that is fitted in the end."""
NEIGHBOURS = 10

COSINES = ("cosine", "centred cosine")


@dataclass(frozen=True)
class Candidate:
    """One model of retrieval.

    Attributes
    ----------
    model : {"cosine", "centred cosine", "CCA", "KernelCCA"}
    similarity : {"cosine", "likelihood_ratio", "weighted_cosine"}
    target : {"independent", "aligned"}, or None
    shrinkage : float or None
    n_components : int or None
        None for all there are.
    gamma : float or None
        The bandwidth of both kernels as a multiple of the median heuristic.
    hubness : bool
        Whether scores are corrected by CSLS with a bank of training pairs.
    """

    model: str
    similarity: str = "cosine"
    target: Target | None = None
    shrinkage: float | None = None
    n_components: int | None = None
    gamma: float | None = None
    hubness: bool = False

    @property
    def fitted(self) -> bool:
        """Whether it fits more than the means."""
        return self.model not in COSINES


@dataclass
class Trials:
    """Candidates evaluated on the same held-out pairs.

    Attributes
    ----------
    X, Y : arrays of shape (n, p), (n, q)
        Paired rows on the host.
    folds : list of integer arrays of shape (n,)
        The fold of each row, once for each repetition.
    metric : str
        "MRR" or "R@k": the value of each query, in expectation over the order of ties.
    seed : int
        Draws the banks and the landmarks.
    values : dict of Candidate to array of shape (n,)
        The mean value of the pair in both directions and all repetitions in which it was tried.
    times : dict of Candidate to array of shape (n,)
        In how many of them.
    seconds : dict of Candidate to float
    """

    X: HostArray
    Y: HostArray
    folds: list[HostArray]
    metric: str
    seed: int
    values: dict[Candidate, HostArray] = field(default_factory=dict)
    times: dict[Candidate, HostArray] = field(default_factory=dict)
    seconds: dict[Candidate, float] = field(default_factory=dict)
    _moments: dict[tuple[int, int], Sequence[Moments]] = field(default_factory=dict)
    _maps: dict[float, tuple[HostArray, HostArray]] = field(default_factory=dict)

    def cosines(self) -> None:
        """The cosine of the rows as they are and less their means: nothing else is fitted."""

        def scored(moments: Moments, rows: _Rows) -> Iterator[tuple[Candidate, Scores]]:
            for candidate in map(Candidate, COSINES):
                fitted = self.estimator(candidate, len(self.X)).fit_moments(moments)
                yield candidate, rows.map(fitted.embed).scores()

        self._held_out((self.X, self.Y), scored)

    def cosines_among_all(self) -> dict[Candidate, HostArray]:
        """The value of each pair under the cosines, all pairs ranked together.

        They fit nothing but means, so that no pair need be held out: of few pairs, ranks among
        all tell more than ranks among those of a fold. NaN are the pairs beyond `QUERIES`.
        """
        n, found = len(self.X), {}
        at = np.sort(np.random.default_rng(self.seed).permutation(n)[:QUERIES])
        for candidate in map(Candidate, COSINES):
            fitted = self.estimator(candidate, n).fit(self.X, self.Y)
            u, v = fitted.embed(self.X[at], self.Y[at])
            hubs = HubnessCorrection(k=NEIGHBOURS, size=TRIAL_BANK).fit(u, v)
            # A pair of the bank is not compared with itself.
            for hubness, vectors in ((False, (u, v)), (True, hubs.transform(u, v))):
                values = np.full(n, np.nan)
                values[at] = self._both_ways(*vectors)
                found[replace(candidate, hubness=hubness)] = values
        return found

    def path(self, target: Target, shrinkages: Sequence[float] = SHRINKAGES) -> None:
        """The likelihood ratio along the shrinkages, to where its quality is largest.

        Of many pairs that is smooth in the shrinkage: every third is tried, and then the neighbours
        of the best, with and without correction of hubness, for as long as one is better. Of few,
        for which folds are repeated, all are tried.
        """
        like = Candidate("CCA", "likelihood_ratio", target)
        paths: dict[int, tuple[PathScores, PathScores, PathScores]] = {}

        def try_at(places: set[int]) -> None:
            def scored(moments: Moments, rows: _Rows) -> Iterator[tuple[Candidate, Scores]]:
                key = id(moments)  # of a fold, which `_training` keeps
                if key not in paths:
                    found = LikelihoodPath.of(moments, target=target, to_rank=True)
                    x, x_bank = (found.side(a, 0) for a in (rows.x, rows.x_bank))
                    y, y_bank = (found.side(a, 1) for a in (rows.y, rows.y_bank))
                    sides = (x, y), (x, y_bank), (x_bank, y)
                    paths[key] = tuple(found.between(*each) for each in sides)  # type: ignore[assignment]
                held, with_bank, of_bank = paths[key]
                for i in sorted(places):
                    s = shrinkages[i]
                    scores = held.at(s), with_bank.at(s), of_bank.at(s)
                    yield replace(like, shrinkage=s), scores

            self._held_out((self.X, self.Y), scored)
            tried.update(places)

        tried = set[int]()
        many = len(self.folds) == 1 and len(shrinkages) > 3
        following = set(range(len(shrinkages))[1::3] if many else range(len(shrinkages)))
        while following:
            try_at(following)
            following = {i for i in self._around(like, shrinkages) if i not in tried}

    def _around(self, like: Candidate, shrinkages: Sequence[float]) -> set[int]:
        """The places on a path beside the best one, and beside the best corrected one."""
        found = set[int]()
        for hubness in (False, True):
            tried = {
                i: float(np.nanmean(self.values[each]))
                for i, s in enumerate(shrinkages)
                if (each := replace(like, shrinkage=s, hubness=hubness)) in self.values
            }
            best = max(tried, key=lambda i: tried[i])
            found |= {i for i in (best - 1, best + 1) if 0 <= i < len(shrinkages)}
        return found

    def components(self, target: Target, shrinkage: float, deals: slice = slice(None)) -> None:
        """The weighted cosine, and the likelihood ratio of the leading components."""
        like = Candidate("CCA", target=target, shrinkage=shrinkage)
        counts = self._counts(self.X, self.Y)
        views = self.X, self.Y
        self._held_out(views, lambda m, rows: _decomposed(m, rows, like, counts, None), deals)

    def kernels(self, gamma: float, shrinkage: float, deals: slice = slice(None)) -> None:
        """The same on kernel maps of both views.

        The maps are fitted to all rows without their pairing.
        """
        like = Candidate("KernelCCA", shrinkage=shrinkage, gamma=gamma)
        views, most = self._mapped(gamma), max(COMPONENTS)
        counts = self._counts(*views)
        if most in counts:
            self._held_out(views, lambda m, rows: _decomposed(m, rows, like, counts, most), deals)
            return
        counts.append(None)
        self._held_out(views, lambda m, rows: _decomposed(m, rows, like, counts, None), deals)

    def _counts(self, X: HostArray, Y: HostArray) -> list[int | None]:
        """The numbers of components to try, fewer than there are in any fold."""
        held = max(int(np.bincount(folds).max()) for folds in self.folds)
        possible = min(X.shape[1], Y.shape[1], len(X) - held - 1)
        return [k for k in COMPONENTS if k < possible]

    def all_components(self, gamma: float, shrinkage: float) -> None:
        """The same with all components of kernel maps, of which `kernels` takes the leading ones.

        Their singular value decomposition costs several times that of the leading ones; of the few
        landmarks that many rows are tried with they are not worth it.
        """
        like = Candidate("KernelCCA", shrinkage=shrinkage, gamma=gamma)
        views = self._mapped(gamma)
        if max(COMPONENTS) in self._counts(*views) and not self._many:
            self._held_out(views, lambda m, rows: _decomposed(m, rows, like, [None], None))

    def estimator(self, candidate: Candidate, rows: int) -> Any:
        """The model of a candidate to fit to all `rows`.

        That of kernels has more landmarks than the trials, and the shrinkage of the same ridge,
        which is in units of the mean variance of as many columns. Where many rows were tried with
        few landmarks it keeps the shrinkage itself, which finds more of the halves of digits.
        """
        if not candidate.fitted:
            return RawCosine(center=candidate.model == "centred cosine")
        k, s = candidate.n_components, candidate.shrinkage
        if candidate.gamma is None:
            return CCA(k, shrinkage=s, target=candidate.target or "independent")
        gamma = tuple(candidate.gamma * g for g in self.bandwidths)
        rank, s = min(LANDMARKS[rows > MANY_ROWS], rows), float(s or 0.0)
        if not self._many:
            more = rank / self._landmarks
            s = more * s / (1 - s + more * s)
        return KernelCCA(
            k,
            gamma=gamma,
            approximation="nystroem",
            rank=rank,
            shrinkage=s,
            random_state=self.seed,
        )

    @property
    def _many(self) -> bool:
        return len(self.X) > MANY_ROWS

    @property
    def _landmarks(self) -> int:
        return min(TRIAL_LANDMARKS[self._many], len(self.X))

    @functools.cached_property
    def bandwidths(self) -> tuple[float, float]:
        """The median heuristic of both views."""
        x, y = (
            NystroemMap(rank=2, random_state=self.seed).fit(a).gamma_ or 1.0
            for a in (self.X, self.Y)
        )
        return float(x), float(y)

    def _mapped(self, gamma: float) -> tuple[HostArray, HostArray]:
        if gamma not in self._maps:
            rank = self._landmarks
            x, y = (
                NystroemMap(gamma=gamma * g, rank=rank, random_state=self.seed + i).fit_transform(a)
                for i, (g, a) in enumerate(zip(self.bandwidths, (self.X, self.Y), strict=True))
            )
            self._maps[gamma] = x, y
        return self._maps[gamma]

    def best(self, wanted: Callable[[Candidate], bool]) -> list[Candidate]:
        """Candidates from the best mean value on, each over the pairs of which it has one."""
        found = [c for c in self.values if wanted(c)]
        return sorted(found, key=lambda c: -float(np.nanmean(self.values[c])))

    def in_all_folds(self) -> set[Candidate]:
        """Those that were tried as often as any other."""
        count = {c: int(times.sum()) for c, times in self.times.items()}
        most = max(count.values())
        return {c for c, n in count.items() if n == most}

    def that_may_win(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those within two paired errors of the best of those that were tried most."""
        whole = self.in_all_folds()
        best = self.values[self.best(whole.__contains__)[0]]

        def near(candidate: Candidate) -> bool:
            behind = best - self.values[candidate]
            behind = behind[np.isfinite(behind)]
            return bool(behind.mean() <= 2 * behind.std() / len(behind) ** 0.5 + 1e-12)

        return [c for c in candidates if near(c)]

    def _held_out(
        self,
        views: tuple[HostArray, HostArray],
        scored: Callable[[Moments, _Rows], Iterator[tuple[Candidate, Scores]]],
        deals: slice = slice(None),
    ) -> None:
        """The values of pairs while they are held out, with and without correction of hubness.

        `deals` are some of the folds, one repetition after the other. Of many pairs in a fold some
        are ranked, the same of all candidates; the others are NaN.
        """
        begin, found = time.perf_counter(), dict[Candidate, None]()
        X, Y = views

        def ranked(repetition: int, k: int, moments: Moments) -> Iterator[_Ranked]:
            # The same rows and banks for all candidates.
            rng, dealt = np.random.default_rng([self.seed, repetition, k]), self.folds[repetition]
            train, test = np.flatnonzero(dealt != k), np.flatnonzero(dealt == k)
            bank = rng.permutation(train)[:TRIAL_BANK]
            test = rng.permutation(test)[: -(-QUERIES * len(test) // max(QUERIES, len(X)))]
            rows = _Rows(X[test], Y[test], X[bank], Y[bank])
            for candidate, scores in scored(moments, rows):
                for hubness, held in ((False, scores[0]), (True, _csls(*scores))):
                    yield replace(candidate, hubness=hubness), test, self._both_ways(held)

        every = [(r, k) for r, dealt in enumerate(self.folds) for k in range(int(dealt.max()) + 1)]
        some = every[deals]
        training = [self._training(views, r)[k] for r, k in some]
        each_fold = map_moments(lambda i, moments: list(ranked(*some[i], moments)), training)
        for each, test, worth in itertools.chain(*each_fold):
            found[each] = None
            values = self.values.setdefault(each, np.full(len(X), np.nan))
            times = self.times.setdefault(each, np.zeros(len(X), dtype=np.int64))
            times[test] += 1
            earlier = np.where(times[test] > 1, values[test], worth)
            values[test] = earlier + (worth - earlier) / times[test]
        spent = (time.perf_counter() - begin) / max(len(found), 1)
        for candidate in found:
            self.seconds[candidate] = self.seconds.get(candidate, 0.0) + spent

    def _training(self, views: tuple[HostArray, HostArray], repetition: int) -> Sequence[Moments]:
        """The moments of the rows outside of each fold; those of the last views are kept."""
        key = id(views[0]), repetition
        if key not in self._moments:
            if all(known[0] != key[0] for known in self._moments):
                self._moments.clear()
            folds, (X, Y) = self.folds[repetition], views
            wide = X is self.X and X.shape[1] + Y.shape[1] > len(X)
            at = [np.flatnonzero(folds == k) for k in range(int(folds.max()) + 1)]
            form: Literal["root", "scatter"] = "root" if wide else "scatter"
            parts = [Moments.from_data(form=form, x=X[i], y=Y[i]) for i in at]
            self._moments[key] = list(training_moments(parts))
        return self._moments[key]

    def _both_ways(self, *scores: HostArray) -> HostArray:
        x, y = (TiedRanks.of(count).values(self.metric) for count in partner_counts(*scores))
        return (x + y) / 2


@dataclass(frozen=True)
class _Rows:
    """Held-out rows of both views, and those of the bank."""

    x: HostArray
    y: HostArray
    x_bank: HostArray
    y_bank: HostArray

    def pairs(self) -> Iterator[tuple[HostArray, HostArray]]:
        """The sides of the three products of `Scores`."""
        yield self.x, self.y
        yield self.x, self.y_bank
        yield self.x_bank, self.y

    def map(self, function: Callable[[HostArray, HostArray], tuple[Any, Any]]) -> _Rows:
        """Both views through a function of them."""
        (x, y), (x_bank, y_bank) = function(self.x, self.y), function(self.x_bank, self.y_bank)
        return _Rows(x, y, x_bank, y_bank)

    def scores(self) -> Scores:
        """The inner products."""
        held, with_bank, of_bank = (x @ y.T for x, y in self.pairs())
        return held, with_bank, of_bank


def _decomposed(
    moments: Moments,
    rows: _Rows,
    like: Candidate,
    counts: Sequence[int | None],
    most: int | None,
) -> Iterator[tuple[Candidate, Scores]]:
    """The weighted cosine of `most` components, and likelihood ratios by number of components."""
    s = float(like.shrinkage or 0.0)
    m = moments.shrunk((s, s), target=like.target or "independent")
    x, y = m.whiten("x"), m.whiten("y")
    M, gain = m.cross("x", "y")
    U, rho, Vt = leading_svd(M, most)
    found = Canonical.of(m, x.weights @ U, rho, y.weights @ Vt.mT, gain)
    projected = rows.map(
        lambda X, Y: (
            (X - found.x_mean_) @ (found.x_weights_ * found.x_std),
            (Y - found.y_mean_) @ (found.y_weights_ * found.y_std),
        )
    )
    weighted = projected.map(lambda a, b: tuple(unit_rows(c * found.relative) for c in (a, b)))
    yield replace(like, similarity="weighted_cosine", n_components=most), weighted.scores()
    for k in counts:
        r = found.singular_values_[:k]
        vectors = projected.map(
            lambda a, b, r=r: (  # type: ignore[misc]
                likelihood_vectors(a[:, : len(r)], r, is_x=True),
                likelihood_vectors(b[:, : len(r)], r, is_x=False),
            )
        )
        yield replace(like, similarity="likelihood_ratio", n_components=k), vectors.scores()


def _csls(held: HostArray, with_bank: HostArray, of_bank: HostArray) -> HostArray:
    """Scores corrected as `HubnessCorrection` does; no held-out pair lies in the bank."""
    x, y = (mean_of_largest(scores, NEIGHBOURS) for scores in (with_bank, of_bank.T))
    return np.asarray(2 * held - x[:, None] - y[None, :])
