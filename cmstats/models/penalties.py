"""The penalties of a ridge regression of several targets: of each target and band of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from cmstats.arrays import Array, device_of, namespace, to_numpy
from cmstats.models.bands import (
    Bands,
    band_scores,
    band_shares,
    band_weights,
    by_weights,
    weight_rows,
)
from cmstats.models.base import MomentsModel
from cmstats.models.ridge import Planes, Spectrum
from cmstats.moments.moments import Moments
from cmstats.moments.tasks import by_group

__all__ = ["Penalised"]


class Penalised(MomentsModel):
    """The parameters `alpha`, `alphas`, `bands` and `band_weights`."""

    alpha: Any
    alphas: Any
    bands: Any
    band_weights: Any
    random_state: Any
    rank: Any
    fit_intercept: bool

    def _given_alpha(self) -> Any:
        """The parameter as "cv", a float or an array of one for each task."""
        if isinstance(self.alpha, str):
            return self.alpha
        alpha = _numbers(self.alpha)
        return alpha.astype(np.float64) if alpha.ndim else float(alpha)

    def _grid(self) -> list[float]:
        """The penalties to try: one, where only something else is to be chosen."""
        alpha = self._given_alpha()
        return [float(a) for a in to_numpy(self.alphas)] if alpha == "cv" else [alpha]

    def _open_parameters(self) -> list[str]:
        found, given = super()._open_parameters(), self.band_weights
        if self.bands is None:
            return found
        several = int(given) > 1 if isinstance(given, Integral) else len(weight_rows(given)) > 1
        return [*found, "band_weights"] if several else found

    # Bad input.
    def _validate_params(self) -> None:
        super()._validate_params()
        for name in ("alpha", "alphas"):
            value = getattr(self, name)
            if not isinstance(value, str):
                _check_numbers(name, value)
        each = isinstance(self._given_alpha(), np.ndarray)
        if self.rank is not None and each:
            raise ValueError(
                f"rank={self.rank!r} with an alpha for each task has no closed form: give one "
                "common alpha, or alpha='cv', which chooses a common one"
            )
        if self.bands is None:
            return
        if self.rank is not None:
            raise ValueError(
                f"rank={self.rank!r} with bands has no closed form, since tasks have weights of "
                "their own: leave one of them out"
            )
        if each and "band_weights" in self._open_parameters():
            raise ValueError(
                "weights of bands are chosen for one alpha, or together with it: set alpha='cv', "
                "or give one row of band_weights with an alpha for each task"
            )
        least = self._given_alpha() if each else self._grid()
        if not np.min(least) > 0:
            raise ValueError(
                "bands divide the penalty alpha among the features: alpha and alphas must be "
                "greater than 0"
            )

    def _check_penalties(self, tasks: int) -> None:
        alpha = self._given_alpha()
        if isinstance(alpha, np.ndarray) and alpha.size != tasks:
            raise ValueError(
                f"alpha has {alpha.size} values for {tasks} tasks (columns of y): give one for "
                "each, or one number for all"
            )

    def _blocks(self, X: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        found = super()._blocks(X, y, reset=reset)
        if reset and self.bands is not None:
            self._weights_of(self._bands(self.n_features_in_))  # raises before rows are read
        return found

    def _check_y(self, y: Any, *, reset: bool = False, ensure_finite: bool = True) -> Any:
        checked = super()._check_y(y, reset=reset, ensure_finite=ensure_finite)
        self._check_penalties(self._y_width)
        return checked

    def _learn(self, parts: Any) -> list[str]:
        self._check_penalties(parts[0].widths[1])
        if self.bands is not None:
            self._weights_of(self._bands(parts[0].widths[0]))
        return super()._learn(parts)

    # Bands of features.
    def _bands(self, width: int) -> Bands:
        views, names = getattr(self, "view_columns_", {}), getattr(self, "feature_names_in_", None)
        return Bands.of(self.bands, width, views, names)

    def _weights_of(self, bands: Bands) -> np.ndarray[Any, Any]:
        """The weights to try, shape (n_candidates, n_bands)."""
        return band_weights(len(bands), self.band_weights, self.random_state)

    def _choose_bands(self, folds: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """For each task the weights and the penalty of the best mean held-out R2."""
        groups, alphas = by_group(folds), self._grid()
        first = next(iter(groups.values()))[0]
        xp, device = namespace(first.like), device_of(first.like)
        bands = self._bands(first.width("x"))
        weights = self._weights_of(bands)
        notes: list[str] = []
        found = [
            band_scores(m, bands, weights, alphas, self.fit_intercept, notes)
            for m in groups.values()
        ]
        order = np.argsort(np.concatenate(list(groups)))
        scores, penalties = (np.concatenate(a, axis=1)[:, order] for a in zip(*found, strict=True))
        best = scores.argmax(axis=0)
        alpha = penalties[best, np.arange(best.size)]
        said = {"cv_scores_": scores, "cv_band_weights_": weights}
        chosen = {"alpha": alpha, "weights": weights[best]}
        scored = {name: xp.asarray(a, device=device) for name, a in said.items()}
        return chosen, {**scored, "notes": notes}

    def _by_weights(
        self, groups: Mapping[tuple[int, ...], Moments], chosen: dict[str, Any]
    ) -> dict[tuple[int, ...], tuple[Moments, Spectrum]]:
        """The groups of tasks parted by the weights of bands, which are put into `chosen`."""
        bands = self._bands(next(iter(groups.values())).width("x"))
        if "weights" not in chosen:
            tasks = sum(map(len, groups))
            chosen["weights"] = np.repeat(self._weights_of(bands), tasks, axis=0)
        return by_weights(groups, bands, chosen["weights"], self.fit_intercept)

    def _shares(self, planes: Planes, moments: Moments | None) -> Array:
        """R2 of the planes' targets split by band."""
        bands, point = self._bands(planes.weights.shape[0]), (planes.center, planes.offset)
        return band_shares(moments, point, planes.weights, bands)

    def _publish(self, solution: Any) -> None:
        super()._publish(solution)
        if solution.bands_ is not None:
            one = self._y_ndim == 1
            self.bands_ = solution.bands_[0, :] if one else solution.bands_
            self.band_names_ = list(self._bands(solution.weights.shape[0]).names)


def _numbers(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value) if isinstance(value, Real) else to_numpy(value)


def _check_numbers(name: str, value: Any) -> None:
    """Raise where penalties are not numbers of at least 0: one of them only as `alpha`."""
    a = _numbers(value)
    scalar = name == "alpha" and a.ndim == 0
    if a.dtype.kind not in "iuf" or not (scalar or (a.ndim == 1 and a.size)):
        what = "a number, 'cv' or one number a task" if name == "alpha" else "numbers"
        raise ValueError(f"{name}={value!r} is not valid: it must be {what}")
    if not (np.isfinite(a) & (a >= 0)).all():
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
