"""The base of models of features, in one matrix or several, and of targets that lack entries."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Self

from cmstats.models.base import MomentsModel, check_moments
from cmstats.moments.collect import Pass
from cmstats.moments.moments import Moments
from cmstats.moments.tasks import (
    TaskMoments,
    aligned,
    as_x_and_y,
    by_group,
    check_observed,
    is_enough,
    of_batches,
    very_many,
)
from cmstats.rows.splits import Folds
from cmstats.rows.views import Features, column_slices, several

__all__ = ["GappyTargets"]


class GappyTargets(MomentsModel):
    """Targets that are observed in different rows: moments by group of targets (`TaskMoments`)."""

    _private = MomentsModel._private | {"_parts"}
    rank: Any
    _parts: list[Any]

    def _blocks(self, X: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        """The views of X by name, and y."""
        found = super()._blocks(X, y, reset=reset)
        return {**found["x"].blocks, "y": found["y"]}

    def _check_x(self, X: Any, *, reset: bool = False, ensure_finite: bool = True) -> Features:
        """One matrix, or several; widths and names are remembered or checked."""
        if not several(X):
            return Features({"x": super()._check_x(X, reset=reset, ensure_finite=ensure_finite)})
        known: dict[str, slice] = {} if reset else getattr(self, "view_columns_", {})
        fill = self.missing == "em" and ensure_finite and not reset
        finite: Any = "allow-nan" if fill else ensure_finite
        views = Features.of(X, order=tuple(known), ensure_finite=finite)
        if not reset:
            views.check(known, self.n_features_in_, getattr(self, "feature_names_in_", None))
            return Features({"x": self._filled(views.together(), "x")}) if fill else views
        self.view_columns_, self.n_features_in_ = column_slices(views.widths), views.shape[1]
        if views.names is not None:
            self.feature_names_in_ = views.names
        return views

    def _collect(
        self,
        blocks: dict[str, Any],
        form: Any,
        sample_weight: Any = None,
        folds: Folds | None = None,
    ) -> list[Any]:
        """`TaskMoments`, or the Moments of estimated targets."""
        if self.missing == "em":
            em: list[Any] = super()._collect(blocks, form, sample_weight, folds)
            return [None if m is None else as_x_and_y(m) for m in em]
        features = {name: a for name, a in blocks.items() if name != "y"}
        how = Pass(form, diagonal=self._diagonal(blocks))
        return TaskMoments.folds(
            features, blocks["y"], how, sample_weight, folds, several=self.rank is None
        )

    def _diagonal(self, blocks: Mapping[str, Any] | None = None) -> str | None:
        """Of very many targets no products are needed, unless they share a rank."""
        if blocks is None or self.missing == "em" or self.rank is not None:
            return None
        features = {name: a for name, a in blocks.items() if name != "y"}
        return "y" if very_many(features, blocks["y"]) else None

    def _collect_batches(
        self, blocks: Iterable[dict[str, Any]], form: Any, folds: Folds | None
    ) -> list[Any]:
        if self.missing == "em":
            return super()._collect_batches(blocks, form, folds)
        return of_batches(functools.partial(self._collect, form=form), blocks, folds)

    def _fold_moments(
        self, blocks: dict[str, Any], form: Any, sample_weight: Any, folds: Folds | None
    ) -> list[Moments]:
        try:
            found: list[Moments] = super()._collect(blocks, form, sample_weight, folds)
        except ValueError as error:
            if folds is None or not str(error).startswith("y has") or "NaN" not in str(error):
                raise
            raise ValueError(
                f"{error}: tasks that are observed in different rows have no common moments; "
                "choose with MultitaskRegressor(alpha='cv') itself, or with scikit-learn's "
                "GridSearchCV"
            ) from None
        return found

    def _learn(self, parts: Any) -> list[str]:
        order = tuple(getattr(self, "view_columns_", ()))
        if all(isinstance(m, TaskMoments) for m in parts):
            both = aligned([*parts, *self._between])
            parts, self._between = both[: len(parts)], both[len(parts) :]
            if self.rank is not None:
                parts[0].require_one_group()
            check_observed(parts)
        else:
            parts = [as_x_and_y(m, order) for m in parts]
        return super()._learn(parts)

    def _enough(self, parts: list[Any]) -> bool:
        if self.missing == "em":
            return super()._enough(parts)
        return is_enough(parts)

    def _keep(self, parts: list[Any]) -> None:
        self._parts = parts
        by_tasks = {k: m if len(parts) > 1 else (*m, None)[0] for k, m in by_group(parts).items()}
        self.moments_ = by_tasks if len(by_tasks) > 1 else next(iter(by_tasks.values()))

    def _kept(self) -> list[Any]:
        return getattr(self, "_parts", [])

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or save: `moments_` follows from the parts, and its keys are tuples."""
        return {k: v for k, v in super().__getstate__().items() if k != "moments_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._kept():
            self._keep(self._kept())

    def _parts_so_far(self) -> list[Any]:
        before = super()._parts_so_far()
        if self.missing == "em":
            return before
        return [TaskMoments.whole(m) if isinstance(m, Moments) else m for m in before]

    def fit_moments(self, moments: Any) -> Self:
        """Fit to the moments of "y" and of features in any other blocks.

        Parameters
        ----------
        moments : Moments or list of Moments
            All blocks but "y" are the features, in their order:
            ``Moments.from_data(image=I, text=T, y=Y)``. The list of fold moments where a
            parameter is "cv" (`Moments.folds`); a list is merged otherwise.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a block is missing, or a parameter is "cv" and `moments` is a single one,
            which cannot be split.
        """
        return super().fit_moments(moments)

    def _fit_parts(self, parts: list[Any]) -> list[str]:
        if parts and all(isinstance(m, Moments) for m in parts):
            names = tuple(name for name in parts[0].names if name != "y")
            if len(names) > 1:
                self.view_columns_ = column_slices({name: parts[0].width(name) for name in names})
            parts = [as_x_and_y(m, names) for m in parts]
        return super()._fit_parts(parts)

    def _as_fitted(self, moments: Moments) -> Moments:
        """Held-out moments as "x" and "y", the views in the order of the fit."""
        order = tuple(getattr(self, "view_columns_", ()))
        return as_x_and_y(self._held_out(check_moments(moments)), order)

    def _block_widths(self) -> dict[str, int]:
        return dict(zip("xy", self._solution.weights.shape, strict=True))
