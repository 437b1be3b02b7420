"""The rows of a search, and how they become the moments of folds for each kind of estimator.

What the estimator's own `fit` checks and remembers of its rows (names, widths, maps) is checked
and remembered here by a clone of it, once for all candidates.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, PredefinedSplit, check_cv

from cmstats.arrays import check_weights, is_dask, namespace
from cmstats.models.autoencoder import LinearAutoencoder
from cmstats.models.kernel_cca import KernelCCA
from cmstats.models.multitask import MultitaskRegressor
from cmstats.models.multiview import MultiviewCCA
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import is_lazy
from cmstats.rows.splits import fold_ids
from cmstats.rows.views import is_stream

__all__ = ["FoldRows", "fitted_maps", "parts_of_grid"]

MAPS = (
    "approximation", "coef0", "degree", "gamma", "kernel", "landmarks", "orthonormal",
    "random_state", "rank",
)  # fmt: skip
"""The parameters of `KernelCCA` that its maps depend on."""

REMEMBERED = ("feature_names_in_", "y_feature_names_in_", "_y_ndim", "_named")
"""What a fit to rows knows, and moments do not tell."""


def parts_of_grid(estimator: Any, candidates: Sequence[dict[str, Any]]) -> list[list[int]]:
    """The numbers of the candidates that share one pass over the rows.

    Those that differ in what is collected (`missing`, the form of the moments, which views,
    feature maps) need a pass each.
    """
    names = {"missing", "solver", "target", *(MAPS if isinstance(estimator, KernelCCA) else ())}
    parts: dict[str, list[int]] = {}
    for i, candidate in enumerate(candidates):
        key = repr(sorted((name, repr(v)) for name, v in candidate.items() if name in names))
        parts.setdefault(key, []).append(i)
    return list(parts.values())


def fitted_maps(estimator: Any, candidates: Sequence[dict[str, Any]]) -> Any:
    """What gives the maps of a fitted `KernelCCA` to the models of a search without rows."""
    if not isinstance(estimator, KernelCCA):
        return None
    if not hasattr(estimator, "x_map_"):
        raise ValueError(
            "fold moments for KernelCCA are of mapped rows: fit it first, take "
            "Moments.folds(x=cca.x_map_.transform(X), y=cca.y_map_.transform(y)) and search with "
            "the fitted estimator, or call fit(X, y) of the search"
        )
    moved = sorted({name for c in candidates for name in c if name in MAPS})
    if moved:
        raise ValueError(
            f"{moved[0]} changes the maps of KernelCCA, and fold moments are of rows mapped "
            "already: call fit(X, y) of the search"
        )
    maps = {"x_map_": estimator.x_map_, "y_map_": estimator.y_map_}
    return lambda model: model.__dict__.update(maps)


def _elsewhere(*views: Any) -> bool:
    """Whether some of the rows are not in memory, so that they are dealt to folds by number."""
    return any(is_lazy(a) or is_dask(a) for a in views)


class FoldRows:
    """Paired rows of two views, X and y; subclasses are for other signatures of `fit`."""

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, fitted: bool) -> None:
        self.fitted = fitted
        self.checker = estimator if fitted else clone(estimator)
        self.weights = sample_weight
        if is_stream(X, y) and not (isinstance(estimator, MultiviewCCA) and hasattr(X, "__len__")):
            raise ValueError(
                "a search does not read batches: pass "
                "fit_moments(Moments.folds_from_batches(batches, cv=5)), or arrays, memory-maps or "
                "shards to fit"
            )
        self.lazy = _elsewhere(X, y)
        self.X, self.y = self._checked(X, y)
        if not hasattr(self, "labels"):
            self.labels = self.y  # what a stratified splitter goes by

    @staticmethod
    def of(
        estimator: Any, X: Any, y: Any = None, sample_weight: Any = None, *, fitted: bool = False
    ) -> FoldRows:
        """The rows of what the estimator's `fit` takes; or its `score`, where it is fitted."""
        kind: type[FoldRows] = FoldRows
        if isinstance(estimator, MultiviewCCA):
            kind = _Views
        elif isinstance(estimator, KernelCCA):
            kind = _Mapped
        elif isinstance(estimator, MultitaskRegressor):
            kind = _Tasks
        elif isinstance(estimator, LinearAutoencoder) and estimator.target == "self":
            kind = _OneView
        return kind(estimator, X, y, sample_weight, fitted)

    # --------------------------------------------------------- what differs by estimator
    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        views: tuple[Any, Any] = self.checker._check_views(X, y, reset=not self.fitted)
        return views

    def _data(self, form: Any) -> dict[str, Any]:
        """What `Moments.folds` is handed."""
        data: dict[str, Any] = self.checker._data(form, self.X, self.y, self.weights)
        return data

    @property
    def _rows(self) -> int:
        return int(self.X.shape[0])

    def prepare(self, model: Any) -> None:
        """Give a model what it needs before it is fitted to these moments."""

    def adopt(self, model: Any) -> None:
        """Let a fitted model know what `fit` on the rows would have told it."""
        for name in REMEMBERED:
            if hasattr(self.checker, name):
                setattr(model, name, getattr(self.checker, name))

    # ------------------------------------------------------------------- what is common
    def splitter(self, cv: Any, groups: Any) -> Any:
        """The folds, as what can be used more than once.

        An int is scikit-learn's KFold (GroupKFold where there are groups); for rows on a disk,
        without groups, rows are dealt by number.
        """
        if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
            if groups is not None:
                cv = GroupKFold(int(cv))
            elif self.lazy:
                return int(cv)
            else:
                cv = check_cv(int(cv))
        return PredefinedSplit(fold_ids(cv, self._rows, y=self.labels, groups=groups))

    @functools.cached_property
    def first_form(self) -> Any:
        """The form that the estimator's `fit` begins with."""
        widths = [
            1 if a.ndim == 1 else int(a.shape[1])
            for a in self._data("scatter").values()
            if hasattr(a, "shape") and a.shape != () and a is not self.weights
        ]
        return self.checker._first_form(self._rows, sum(widths))

    @property
    def may_need_roots(self) -> bool:
        """Whether ill-conditioned rows are to be collected anew, in the root form."""
        auto = getattr(self.checker, "solver", "") == "auto"
        return auto and self.checker._missing == "error" and self.first_form == "scatter"

    def folds(self, form: Any, cv: Any) -> list[Moments]:
        """The moments of the folds, in one pass."""
        return Moments.folds(cv=cv, **self._data(form))

    def whole(self, form: Any) -> Moments:
        """The moments of all rows."""
        return Moments.from_data(**self._data(form))

    def released(self) -> FoldRows:
        """Let go of the rows: `prepare` and `adopt` do not need them."""
        self.X = self.y = self.labels = self.weights = None
        return self


class _OneView(FoldRows):
    """A `LinearAutoencoder` of one view."""

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        return self.checker._check_x(X, reset=not self.fitted, ensure_finite=False), None

    def _data(self, form: Any) -> dict[str, Any]:
        data: dict[str, Any] = self.checker._x_data(form, self.X, self.weights)
        return data


class _Views(FoldRows):
    """The views of a `MultiviewCCA`, a list or a dict."""

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        blocks = self.checker._check_all(X, y, reset=not self.fitted)
        self.lazy = _elsewhere(*blocks.values())
        return blocks, None

    def _data(self, form: Any) -> dict[str, Any]:
        given = {"form": form, "sample_weight": self.weights, "missing": self.checker.missing}
        return {**given, **self.X}

    @property
    def _rows(self) -> int:
        return int(next(iter(self.X.values())).shape[0])


class _Tasks(FoldRows):
    """The features of a `MultitaskRegressor`, one matrix or several."""

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        X, y = super()._checked(X, y)
        self.lazy = _elsewhere(*X.blocks.values(), y)
        return X, y

    def _data(self, form: Any) -> dict[str, Any]:
        if self.checker.missing == "em":
            return super()._data(form)
        return {"form": form, "sample_weight": self.weights, **self.X.blocks, "y": self.y}

    def folds(self, form: Any, cv: Any) -> list[Moments]:
        try:
            return super().folds(form, cv)
        except ValueError as error:
            if not str(error).startswith("y has") or "NaN" not in str(error):
                raise
            raise ValueError(
                f"{error}: tasks that are observed in different rows have no common moments; "
                "choose with MultitaskRegressor(alpha='cv') itself, or with scikit-learn's "
                "GridSearchCV"
            ) from None

    def adopt(self, model: Any) -> None:
        super().adopt(model)
        if model._y_ndim == 1:
            model._publish(namespace(model._center))


class _Mapped(FoldRows):
    """The views of a `KernelCCA` through maps that are fitted once, to all rows."""

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        X, y = super()._checked(X, y)
        self.labels = y
        if self.fitted:  # through the maps that are there
            return X, y
        self.weights = check_weights(self.weights, X.shape[0], X)
        mapped: tuple[Any, Any] = self.checker._fit_maps(X, y, self.weights)
        return mapped

    def prepare(self, model: Any) -> None:
        model.x_map_, model.y_map_ = self.checker.x_map_, self.checker.y_map_

    def adopt(self, model: Any) -> None:
        super().adopt(model)
        model.n_features_in_ = self.checker.n_features_in_
