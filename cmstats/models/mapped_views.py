"""The base of CCA of rows that go through a feature map of each view."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import check_random_state

from cmstats.arrays import Array, as_counts, check_weights, is_array, namespace, to_numpy
from cmstats.models.feature_maps import ExactKernelMap
from cmstats.models.kernel_choice import KernelChoice
from cmstats.models.kernel_map import KernelMap, mapped_rows
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import chunks, project
from cmstats.rows.source import present_rows, take_in_memory

__all__ = ["MappedViews"]

MAPS = (
    "approximation", "coef0", "degree", "gamma", "kernel", "landmarks", "orthonormal",
    "random_state", "rank",
)  # fmt: skip
"""The parameters that the maps depend on."""


class MappedViews(KernelChoice):
    """Maps that are fitted with the first rows, rows that are mapped as they are read.

    A model says what the map of a view is (`_map`).
    """

    collects: ClassVar[tuple[str, ...]] = ("missing", "solver", *MAPS)
    random_state: Any

    def _blocks(self, X: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        blocks = super()._blocks(X, y, reset=reset)
        namespace(*(a for a in blocks.values() if is_array(a)))  # of one library
        return blocks

    def _rows(
        self, blocks: dict[str, Any], sample_weight: Any, *, partial: bool = False
    ) -> tuple[dict[str, Any], Any]:
        """The rows through their maps, which the first rows of a fit are fitted to."""
        X, y = blocks["x"], blocks["y"]
        # Mapped rows do not show the library of the rows, which is that of the weights.
        weights = check_weights(sample_weight, X.shape[0], X)
        X, y = (present_rows(a, weights) for a in (X, y))
        if hasattr(self, "x_map_"):
            mapped = mapped_rows(X, self.x_map_), mapped_rows(y, self.y_map_)
        else:
            mapped = self._fit_maps(X, y, weights, stream=partial)
        return dict(zip("xy", mapped, strict=True)), weights

    def _fit_maps(
        self, X: Any, y: Any, sample_weight: Any, *, stream: bool = False
    ) -> tuple[Any, Any]:
        """Fit both maps; return what the moments are taken of, the rows mapped as they are read."""
        weights = None if sample_weight is None else to_numpy(sample_weight)
        rows = X.shape[0] if weights is None else int(np.count_nonzero(weights))
        weights = None if weights is None else as_counts(weights)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=2)
        if "cv" in self._gammas():
            self._choose_gammas((X, y), weights, seeds)
        maps, mapped = [], []
        for view, data in enumerate((X, y)):
            approximation, most = self._approximation(view, rows, stream)
            if approximation == "exact" and stream:
                raise ValueError(
                    "partial_fit does not know all rows, so it cannot be exact: set "
                    "approximation='nystroem' or 'rff'"
                )
            feature_map = self._map(view, approximation, int(seeds[view]))
            if most is not None:
                feature_map.set_params(rank=min(feature_map.rank, most))
            feature_map._view = "Xy"[view]
            maps.append(feature_map)
            mapped.append(_fit_map(feature_map, data, weights))
        self.x_map_, self.y_map_ = maps
        return mapped[0], mapped[1]

    def _fit_stream(self, source: Any, sample_weight: Any, groups: Any) -> list[str]:
        raise ValueError(
            f"{type(self).__name__} reads the rows twice, for the maps and for the moments, which "
            "batches do not allow: pass arrays, memory-maps or shards, or call partial_fit on each "
            "batch"
        )

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Add paired rows; the first call fits the maps.

        Bandwidths and landmarks come from the first batch, which should look like all the
        rows; given these the result does not depend on how the rows are parted.

        Parameters
        ----------
        X, y, sample_weight, groups
            As in `fit`.

        Returns
        -------
        self
        """
        return super().partial_fit(X, y, sample_weight, groups)

    def fit_moments(self, moments: Any) -> Self:
        """Fit to the moments of mapped features, through maps that are fitted already.

        Parameters
        ----------
        moments : Moments or list of Moments
            Of blocks "x" and "y", as in `moments_`; see `CCA.fit_moments`.

        Returns
        -------
        self
        """
        if not hasattr(self, "x_map_"):
            raise ValueError(
                "KernelCCA.fit_moments takes moments of mapped features, and there are no maps "
                "yet: call fit, or map the views first (NystroemMap in a TwoViewPipeline) and fit "
                "CCA to those"
            )
        return super().fit_moments(moments)

    def _named_moments(self, moments: Any) -> Any:
        return moments  # their columns are coordinates

    def _candidate(self, **parameters: Any) -> Self:
        if not hasattr(self, "x_map_"):
            raise ValueError(
                "fold moments for KernelCCA are of mapped rows: fit it first, take "
                "Moments.folds(x=cca.x_map_.transform(X), y=cca.y_map_.transform(y)) and search "
                "with the fitted estimator, or call fit(X, y) of the search"
            )
        if moved := sorted(set(parameters) & set(MAPS)):
            raise ValueError(
                f"{moved[0]} changes the maps of KernelCCA, and fold moments are of rows mapped "
                "already: call fit(X, y) of the search"
            )
        new = self._for_moments()
        new.set_params(**parameters)
        return new

    def _for_moments(self) -> Self:
        new = super()._for_moments()
        names = ("x_map_", "y_map_", "feature_names_in_", "y_feature_names_in_")
        new.__dict__.update({name: vars(self)[name] for name in names if name in vars(self)})
        return new

    def _know_blocks(self, parts: list[Moments]) -> None:
        for view, feature_map in (("x", self.x_map_), ("y", self.y_map_)):
            for m in parts:
                if m.width(view) != feature_map._n_features_out:
                    raise ValueError(
                        f"the moments of {view} are of {m.width(view)} features, but its map makes "
                        f"{feature_map._n_features_out}: take moments of mapped rows"
                    )
        super()._know_blocks(parts)
        self.n_features_in_ = self.x_map_.n_features_in_
        self._y_width = self.y_map_.n_features_in_

    def _coordinates(self, rows: Any, view: str) -> Array:
        """The variates of one view, through the kernel columns: the coordinates are skipped."""
        feature_map: KernelMap = getattr(self, f"{view}_map_")
        centre, dual = feature_map._dual(*self._projection(view))
        size = max(256, (64 << 20) // (8 * feature_map._n_features_out))
        parts = [
            project(feature_map._columns(feature_map._rows(part, start)), centre, dual)
            for start, (part,), _ in chunks([rows], rows=size)
        ]
        return parts[0] if len(parts) == 1 else namespace(*parts).concat(parts, axis=0)


def _fit_map(feature_map: KernelMap, data: Any, weights: Any) -> Any:
    """Fit the map to the rows of one view; return its coordinates, or the rows to be mapped."""
    feature_map.n_features_in_ = 1 if data.ndim == 1 else int(data.shape[1])
    if isinstance(feature_map, ExactKernelMap) and weights is not None and (weights == 0).any():
        present = np.flatnonzero(weights)  # a row of weight 0 is none
        feature_map._fit(take_in_memory(data, present), weights[present])
        return mapped_rows(data, feature_map)
    coordinates = feature_map._fit(data, weights)
    return mapped_rows(data, feature_map) if coordinates is None else coordinates
