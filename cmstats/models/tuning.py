"""Choosing the parameters that are "cv" on the moments of folds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from cmstats.arrays import Array
from cmstats.models.scoring import Scoring
from cmstats.moments.folds import GridScores, Trial, best_index, choice_notes, mean_scores
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import SHRINKAGES, Target, shrinkage_grid, shrinkage_tuple

__all__ = ["Tuning"]

RATIO_LIMIT = 0.8
"""The shrinkage beyond which the mean likelihood ratio is believed only if it rises all the way."""


class Tuning(Scoring):
    """Parameters that may be "cv", and the moments as a model sees them for chosen values."""

    tunable: ClassVar[Mapping[str, Any]] = {}
    """The parameters that may be "cv", each with what it is chosen from."""
    _shrink_regressions: ClassVar[bool] = True
    """Whether nested missing entries are shrunk regression by regression (`Shrunk`)."""

    def _prepared(self, moments: Moments, chosen: dict[str, Any]) -> Any:
        """The moments as `_solve` sees them: standardised and shrunk where the model has these."""
        if not hasattr(self, "shrinkage"):
            return moments
        shrinkage = chosen.pop("shrinkage", None) or self._shrinkage_of_blocks(moments.names)
        scale = bool(getattr(self, "scale", False))
        how: dict[str, Any] = {"scale": scale, "target": self._target}
        return self._own(moments).shrunk(shrinkage, **how, monotone=self._shrink_regressions)

    @property
    def _target(self) -> Target:
        """What cross blocks are shrunk to."""
        target: Target = getattr(self, "target", "independent")
        return target if hasattr(self, "shrinkage") else "independent"

    def _shrinkage_of_blocks(self, names: Sequence[str]) -> tuple[Any, ...]:
        """The parameter as one value for each block."""
        return shrinkage_tuple(self.shrinkage, len(names))

    def _open_parameters(self) -> list[str]:
        """The names of the parameters that are to be chosen by cross-validation."""
        found = []
        for name in self.tunable:
            value = getattr(self, name)
            value = tuple(value.values()) if isinstance(value, Mapping) else value
            parts = value if isinstance(value, (tuple, list)) else (value,)
            if any(isinstance(v, str) and v == "cv" for v in parts):
                found.append(name)
        return found

    def _as_chosen(self, name: str) -> str:
        """An open parameter, as messages name it."""
        return f"{name}='cv'" if name in self.tunable else name

    def _candidates(self, folds: Sequence[Moments]) -> list[dict[str, Any]]:
        """What the open parameters are chosen from."""
        grids = []
        for name in self._open_parameters():
            values: Sequence[Any] = self.tunable[name]
            if name == "shrinkage":
                given = self.shrinkage
                names = folds[0].names
                each: Any = "cv" if isinstance(given, str) else self._shrinkage_of_blocks(names)
                values = shrinkage_grid(each, len(names))
            grids.append([(name, value) for value in values])
        return [dict(each) for each in itertools.product(*grids)]

    def _choose(self, folds: list[Moments]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The chosen values of the open parameters, and attributes that say how they scored.

        Beside the attributes there may be `notes`, sentences about the folds and the grid.
        """
        candidates = self._candidates(folds)
        found = self._grid_scores(folds, candidates)
        candidates = candidates[: len(found.scores)]
        at = self._best(found, folds)
        best = candidates[at]
        tried = {f"cv_{name.removesuffix('s')}s_": [c[name] for c in candidates] for name in best}
        notes = [*found.notes, *choice_notes(found.scores, self._with_edges(candidates), at)]
        said = self._choice_attributes(found, at, folds[0].like)
        return dict(best), {**tried, "cv_scores_": found.scores, **said, "notes": notes}

    def _with_edges(self, candidates: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The candidates, whose first and last values are edges of the grid."""
        return candidates

    def _choice_attributes(self, found: GridScores, at: int, like: Array) -> dict[str, Any]:
        """What else is said of the choice of a candidate, on the device of an array."""
        return {}

    def _best(self, found: GridScores, folds: Sequence[Moments]) -> int:
        """The candidate that is chosen by its held-out scores."""
        at = best_index(found.scores, found.notes)
        along = self._open_parameters() == ["shrinkage"] and len(found.scores) == len(SHRINKAGES)
        by_ratio = hasattr(self, "scoring") and self._scoring_of(folds) == "likelihood_ratio"
        if not (along and by_ratio):
            return at
        # Near shrinkage 1 the marginals fit so badly that the ratio can rise once more: where it
        # has fallen before, the peak from which it fell is the one that tells of the pairs.
        means = mean_scores(found.scores)
        usual = [i for i, s in enumerate(SHRINKAGES) if s <= RATIO_LIMIT and not np.isnan(means[i])]
        inner = max(usual, key=lambda i: means[i], default=at)
        fell = inner < at and bool(np.nanmin(means[inner : at + 1]) < means[inner])
        return inner if fell else at

    def _solved(self, moments: Moments, chosen: Mapping[str, Any]) -> Any:
        """The solution for moments and chosen parameters; the estimator is only read."""
        rest = dict(chosen)
        return self._solve(self._prepared(moments, rest), **rest)

    def _trial(self, moments: Moments, chosen: Mapping[str, Any]) -> Trial:
        """The solution for the training moments of a fold."""
        solution = self._solved(moments, chosen)
        return Trial(solution, solution.notes)

    def _candidate(self, **parameters: Any) -> Self:
        """An estimator with other parameters, for a search on fold moments."""
        new: Self = clone(self).set_params(**parameters)
        return new
