"""What kernel CCA chooses for itself: bandwidths, shrinkage and the number of components.

Bandwidths are chosen with the maps, by held-out retrieval on a sample of rows and few landmarks;
shrinkage and components on the moments of mapped rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cmstats.arrays import Array, take_rows
from cmstats.models.cca import CCA
from cmstats.models.kernel_map import KernelMap
from cmstats.models.landmarks import draw_repeated
from cmstats.models.scoring import retrieval_quality
from cmstats.moments.canonical import Canonical
from cmstats.moments.collect import Pass
from cmstats.moments.folds import GridScores, mean_scores, scored_by_fold
from cmstats.moments.likelihood_path import LikelihoodPath
from cmstats.moments.moments import Moments, folds_of_rows
from cmstats.moments.shrinkage import SHRINKAGES
from cmstats.rows.chunks import project
from cmstats.rows.source import take_in_memory
from cmstats.rows.splits import Folds

__all__ = ["COMPONENTS", "GAMMAS", "KernelChoice", "of_view"]

GAMMAS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Multiples of the median heuristic."""
TRIED = (0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7)
ROWS, LANDMARKS = 2000, 200
"""Rows and landmarks of the trials, which need to rank bandwidths only."""

EXACT_ROWS = 3000
"""Up to so many rows ``approximation="auto"`` is exact."""
EXACT_CHOICE, FEW_LANDMARKS = 1000, 500
"""Where a parameter is "cv" it is exact up to so many rows, and from these to `EXACT_ROWS` has so
many landmarks: each candidate costs a decomposition as wide as the map."""

COMPONENTS = (10, 20, 50, 100, 200)
"""The candidates of ``n_components="cv"``."""
FIRST = 0.03
"""The shrinkage that is tried first where rows are ranked."""


@dataclass
class Bandwidths:
    """Pairs of multiples of the median heuristic, and how they scored.

    Attributes
    ----------
    mapped : callable (view number, multiple) -> array of shape (n, m)
        The coordinates of the sampled rows of a view.
    free : pair of bool
        Whether the bandwidth of each view is to be chosen.
    ids : int array of shape (n,)
        The fold of each row.
    metric : str
        The retrieval metric.
    tried : dict of pair of float to array of shape (n_folds,)
        The best score over the shrinkages by pair.
    """

    mapped: Callable[[int, float], Array]
    free: tuple[bool, bool]
    ids: np.ndarray[Any, Any]
    metric: str

    def __post_init__(self) -> None:
        self.tried: dict[tuple[float, float], np.ndarray[Any, Any]] = {}
        self._coordinates: dict[tuple[int, float], Array] = {}

    def chosen(self) -> tuple[float, float]:
        """The best pair: of one multiple for both views, then of its neighbours in each view."""
        self._try([tuple(g if free else 1.0 for free in self.free) for g in GAMMAS])
        for view in (0, 1):
            if self.free[0] and self.free[1]:
                best = self.best
                at = GAMMAS.index(best[view])
                near = GAMMAS[max(0, at - 1) : at + 2]
                self._try([(g, best[1]) if view == 0 else (best[0], g) for g in near])
        return self.best

    @property
    def best(self) -> tuple[float, float]:
        """The pair of the best mean score."""
        pairs = list(self.tried)
        return pairs[int(np.nanargmax(mean_scores(np.stack([self.tried[p] for p in pairs]))))]

    def _try(self, pairs: Sequence[Any]) -> None:
        for pair in pairs:
            if pair not in self.tried:
                self.tried[pair] = self._score(pair)

    def _score(self, pair: tuple[float, float]) -> np.ndarray[Any, Any]:
        views = [self._of(view, g) for view, g in enumerate(pair)]
        count = int(self.ids.max()) + 1
        blocks = dict(zip("xy", views, strict=True))
        folds = folds_of_rows(blocks, Folds(count, ids=self.ids), Pass("scatter"))

        def score(k: int, train: Moments) -> list[float]:
            held = np.flatnonzero(self.ids == k)
            pairs = LikelihoodPath.of(train, to_rank=True).on(*(take_rows(a, held) for a in views))
            ones = np.ones(len(held))
            return [retrieval_quality(self.metric, ones, pairs.at(s)) for s in TRIED]

        scores = scored_by_fold(score, len(TRIED), [m for m in folds if m is not None]).scores
        best: np.ndarray[Any, Any] = scores[int(np.nanargmax(mean_scores(scores)))]
        return best

    def _of(self, view: int, multiple: float) -> Array:
        if (view, multiple) not in self._coordinates:
            self._coordinates[view, multiple] = self.mapped(view, multiple)
        return self._coordinates[view, multiple]


class KernelChoice(CCA):
    """CCA of mapped rows that chooses its maps' bandwidths, and components by rank."""

    approximation: Any
    gamma: Any
    kernel: Any
    random_state: Any
    tunable: ClassVar[Mapping[str, Any]] = {
        "shrinkage": SHRINKAGES, "n_components": COMPONENTS, "gamma": GAMMAS,
    }  # fmt: skip
    _private = CCA._private | {"_chosen_gammas", "_dealt"}
    _dealt: Folds | None = None

    def _map(self, view: int, approximation: str, seed: int) -> KernelMap:
        """The map of one view, not fitted yet."""
        raise NotImplementedError

    def _approximation(self, view: int, rows: int, stream: bool) -> tuple[str, int | None]:
        """The kind of map of a view, and how many landmarks it has at most."""
        given = of_view("approximation", self.approximation, view)
        if given != "auto":
            return str(given), None
        limit = EXACT_CHOICE if self._open_parameters() else EXACT_ROWS
        if rows <= limit and not stream:
            return "exact", None
        return "nystroem", FEW_LANDMARKS if rows <= EXACT_ROWS and not stream else None

    def _collected(self, rows: Any, view: str) -> Array:
        return project(rows, *self._projection(view))  # these are mapped already

    def _gammas(self) -> tuple[Any, Any]:
        return of_view("gamma", self.gamma, 0), of_view("gamma", self.gamma, 1)

    def _choose_gammas(self, views: tuple[Any, Any], weights: Any, seeds: Any) -> None:
        """Choose the bandwidths that are "cv" by held-out retrieval of a sample of rows."""
        rng = np.random.RandomState(int(seeds[0]))
        n = int(views[0].shape[0])
        assert self._dealt is not None
        dealt = self._dealt.numbers(n, weights)
        rows = np.unique(draw_repeated(n, ROWS, rng, weights))
        rows = rows[dealt[rows] >= 0]  # those of gaps are in no fold
        sample = [take_in_memory(a, rows) for a in views]
        for view in (0, 1):
            if of_view("kernel", self.kernel, view) == "precomputed":
                sample[view] = sample[view][:, rows]
        medians: list[Any] = []
        for view in (0, 1):
            one = self._map(view, "nystroem", int(seeds[view])).set_params(rank=2)
            if self._gammas()[view] == "cv":
                one.set_params(gamma=None)
            medians.append(one.fit(sample[view]).gamma_)
        free = tuple(
            g == "cv" and one is not None for g, one in zip(self._gammas(), medians, strict=True)
        )
        if not any(free):
            raise ValueError(
                "gamma='cv' chooses the scale of a kernel of distances, 'rbf', 'laplacian' or "
                "'chi2', and neither view has one: set gamma=None"
            )

        def mapped(view: int, multiple: float) -> Array:
            landmarks = self._map(view, "nystroem", int(seeds[view]))
            landmarks.set_params(rank=min(landmarks.rank, LANDMARKS, len(rows)))
            if free[view]:
                landmarks.set_params(gamma=multiple * medians[view])
            return landmarks.fit_transform(sample[view])

        ids: np.ndarray[Any, Any] = np.unique(dealt[rows], return_inverse=True)[1]
        if not ids.max():
            raise ValueError(
                "gamma='cv' is chosen on the first rows, and these are all in one fold: hand "
                "partial_fit a larger first batch"
            )
        metric = self._scoring_of() if self._ranks_rows() else "mrr"
        found = Bandwidths(mapped, (free[0], free[1]), ids, metric)
        best = found.chosen()
        self._chosen_gammas = tuple(
            g * one if own else None for g, one, own in zip(best, medians, free, strict=True)
        )
        self.cv_gammas_ = list(found.tried)
        self.cv_gamma_scores_ = np.stack(list(found.tried.values()))

    def _folds_of(self, *args: Any, **how: Any) -> Any:
        self._dealt = super()._folds_of(*args, **how)
        return self._dealt

    def _folds_of_more(self, *args: Any, **how: Any) -> Any:
        self._dealt = super()._folds_of_more(*args, **how)
        return self._dealt

    def _scoring_of(self, folds: Sequence[Moments] = ()) -> str:
        if self.scoring is None and "cv" in (*self._gammas(), self.n_components):
            return "mrr"
        return super()._scoring_of(folds)

    def _candidates(self, folds: Sequence[Moments]) -> list[dict[str, Any]]:
        found = super()._candidates(folds)  # bandwidths are chosen with the maps
        kept = [{k: v for k, v in c.items() if k != "gamma"} for c in found]
        return [c for i, c in enumerate(kept) if c not in kept[:i]]

    def _solutions(
        self, moments: Moments, candidates: Sequence[Mapping[str, Any]]
    ) -> Iterator[Canonical]:
        """One decomposition for all numbers of components."""
        counts = [c.get("n_components", self.n_components) for c in candidates]
        most = None if None in counts else max(counts)
        found: dict[Any, Canonical] = {}
        for candidate, k in zip(candidates, counts, strict=True):
            s = candidate.get("shrinkage")
            if s not in found:
                found[s] = self._solved(moments, {**candidate, "n_components": most})
            yield found[s] if k is None else found[s].leading(min(k, found[s].n_components_))

    def _grid_scores(
        self, folds: Sequence[Moments], candidates: Sequence[Mapping[str, Any]]
    ) -> GridScores:
        """Where rows are ranked, climb from `FIRST` along the shrinkages that both views share.

        Each shrinkage costs a decomposition in every fold. Those that were not tried are NaN.
        """
        grid = sorted({c["shrinkage"] for c in candidates if "shrinkage" in c})
        if not self._ranks_rows() or len(grid) < 4 or any(len({*pair}) > 1 for pair in grid):
            return super()._grid_scores(folds, candidates)
        scores = np.full((len(candidates), len(folds)), np.nan)
        notes: list[str] = []
        values: dict[int, float] = {}

        def value(at: int) -> float:
            if at not in values:
                mine = [i for i, c in enumerate(candidates) if c["shrinkage"] == grid[at]]
                part = super(KernelChoice, self)._grid_scores(folds, [candidates[i] for i in mine])
                scores[mine] = part.scores
                notes.extend(part.notes)
                best = np.nan_to_num(mean_scores(part.scores), nan=-np.inf).max()
                values[at] = float(best)
            return values[at]

        at = min(range(len(grid)), key=lambda i: abs(np.log(grid[i][0] / FIRST)))
        while True:
            near = [i for i in (at, at + 1, at - 1) if 0 <= i < len(grid)]
            best = max(near, key=value)
            if best == at:
                break
            at = best
        said = tuple(dict.fromkeys(notes))
        return GridScores(scores, 0 * scores, 0 * scores, ill_conditioned=False, notes=said)


def of_view(name: str, value: Any, view: int) -> Any:
    """The view's own part of a parameter that may be an (x, y) pair."""
    if not isinstance(value, (tuple, list)):
        return value
    if len(value) != 2:
        raise ValueError(f"{name}={value!r} must be one value or an (x, y) pair")
    return value[view]
