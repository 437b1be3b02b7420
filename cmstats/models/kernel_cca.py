"""Kernel canonical correlation analysis: a feature map for each view, then CCA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from cmstats.arrays import Array, check_weights, is_array, namespace, to_numpy
from cmstats.kernels.linalg import signs
from cmstats.models.degenerate import constant_columns
from cmstats.models.feature_maps import ExactKernelMap, NystroemMap, RandomFourierMap
from cmstats.models.kernel_choice import KernelChoice, of_view
from cmstats.models.kernel_map import KernelMap, mapped_rows
from cmstats.moments.canonical import Canonical
from cmstats.moments.folds import Trial
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk
from cmstats.moments.sums import observations
from cmstats.rows.chunks import chunks, project
from cmstats.rows.source import present_rows, take_in_memory

__all__ = ["KernelCCA"]

MAPS = (
    "approximation", "coef0", "degree", "gamma", "kernel", "landmarks", "orthonormal",
    "random_state", "rank",
)  # fmt: skip
"""The parameters that the maps depend on."""

PER_VIEW = ("kernel", "gamma", "degree", "coef0", "approximation", "rank", "landmarks")


class KernelCCA(KernelChoice):
    r"""Kernel CCA by explicit feature maps, in one pass over the rows.

    CCA in the reproducing kernel Hilbert spaces of both views (Lai and Fyfe 2000; Hardoon,
    Szedmak and Shawe-Taylor 2004). In dual form, with centred Gram matrices,

    .. math:: \max_{a, b}\; a' K_x K_y b \quad\text{s.t.}\quad
        a' \big((1-s) K_x^2 + s\, \tfrac{\mathrm{tr} K_x}{m} K_x\big) a = 1

    and the same for b. Solved as `CCA` on coordinates in the RKHS: of all rows (exact, m = n), in
    the span of m landmarks (Nystroem), or of m random Fourier features. The mapped moments are
    accumulated run by run, so that memory is O(rank^2) and a run of rows, whatever n.

    Every parameter of a kernel or of a map is one value, or an (x, y) pair of values.

    Parameters
    ----------
    n_components : int, "cv" or None, default=10
        Number of pairs of variates; None is all there are. Where the data have fewer, these,
        with a warning. "cv" chooses among 10, 20, 50, 100 and 200.
    kernel : str or callable, or a pair, default="rbf"
        "rbf", "laplacian", "polynomial", "sigmoid", "cosine", "linear", "chi2" (see
        `cmstats.kernels.gram.gram`), "precomputed" (the view is its kernel matrix: all rows by
        all rows in `fit`, rows by training rows afterwards), or a function of two matrices.
    gamma : float, "cv" or None, or a pair
        Scale of the kernel; None is 1 / median distance of 1000 rows. "cv" chooses a multiple of
        that, .03 to 3, of each view, by the held-out retrieval (`scoring`) of at most 2000 rows
        under the likelihood ratio with 200 landmarks: of one multiple for both views, then of
        its neighbours in each. A view whose kernel has no scale of distances (a linear one) is
        left as it is.
    degree, coef0 : float, or a pair
        For polynomial and sigmoid kernels.
    approximation : {"auto", "exact", "nystroem", "rff"}, or a pair, default="auto"
        `ExactKernelMap`, `NystroemMap` or `RandomFourierMap`. "auto" is exact up to 3000
        rows (with `fit`), and Nystroem beyond. Where a parameter is "cv" and each candidate costs
        a decomposition in every fold it is exact up to 1000 rows, and Nystroem with at most 500
        landmarks up to 3000.
    rank : int, or a pair, default=1000
        Landmarks or random features.
    landmarks : {"uniform", "kmeans", "pivoted_cholesky"}, or a pair, default="uniform"
        See `NystroemMap`.
    orthonormal : bool, or a pair, default=True
        False skips the factor of a Nystroem map for half the operations; the ridge is another
        one then, and 1e-5 was a good `shrinkage` (see `NystroemMap`).
    shrinkage : float in [0, 1], "auto", "cv" or a pair (x, y) of these, default=1e-3
        As in `CCA`, on the coordinates. "cv" takes the moments of all folds in the same pass:
        bandwidths and landmarks are those of all rows and held fixed over the folds.
    solver : {"auto", "moments", "svd"}, default="auto"
        As in `CCA`; "auto" takes the slower root only without shrinkage.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv".
    scoring : str, optional
        What "cv" maximises, as in `CCA`. By default "correlation"; "mrr" where `gamma` or
        `n_components` is "cv", since the mean of sorted correlations prefers one component.
        Where rows are ranked, shrinkages are climbed from .03 to the best; `cv_scores_` is NaN
        for those beyond its neighbours.
    random_state : int, RandomState or None
        Draws the rows that set bandwidths, landmarks and frequencies.

    Attributes
    ----------
    x_map_, y_map_ : fitted maps
    x_weights_, y_weights_, x_mean_, y_mean_, x_loadings_, ...
        As in `CCA`, of the mapped features.
    correlations_, singular_values_, n_components_, n_samples_, shrinkage_, moments_
        As in `CCA`; `moments_` are those of the mapped features.
    cv_gammas_, cv_gamma_scores_ : list of pairs, array of shape (n_pairs, n_folds)
        Where `gamma` is "cv", the pairs of multiples tried, and their scores.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    NystroemMap : The map by itself, for a kernel form of any other model.

    Notes
    -----
    `score_moments` and `fit_moments` take moments of mapped features, for example the
    `moments_` of this or of another fit with the same maps: another `shrinkage` or
    `n_components` then costs no pass over the rows.

    References
    ----------
    Lai, P. L. and Fyfe, C. (2000). Kernel and nonlinear canonical correlation analysis. Int. J.
    Neural Systems 10.
    Hardoon, D., Szedmak, S. and Shawe-Taylor, J. (2004). Canonical correlation analysis: an
    overview with application to learning methods. Neural Computation 16.
    Lopez-Paz, D., Sra, S., Smola, A., Ghahramani, Z. and Scholkopf, B. (2014). Randomized
    nonlinear component analysis. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import CCA, KernelCCA
    >>> rng = np.random.default_rng(0)
    >>> t = rng.uniform(-1, 1, (500, 1))
    >>> X, Y = np.hstack([t, rng.normal(size=(500, 1))]), t**2 + 0.05 * rng.normal(size=(500, 1))
    >>> bool(CCA(1).fit(X[:400], Y[:400]).score(X[400:], Y[400:]) < 0.3)
    True
    >>> bool(KernelCCA(1, shrinkage=0.01).fit(X[:400], Y[:400]).score(X[400:], Y[400:]) > 0.9)
    True
    """

    _takes_dask = False
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"cv"}), None],
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto", "cv"}), tuple, list],
        "solver": [StrOptions({"auto", "moments", "svd"})],
        "cv": ["cv_object"],
        "scoring": [str, None],
        "random_state": ["random_state"],
    }
    scale = False  # the coordinates of an RKHS have no units of their own

    collects: ClassVar[tuple[str, ...]] = ("missing", "solver", *MAPS)

    def __init__(
        self,
        n_components: int | None = 10,
        *,
        kernel: Any = "rbf",
        gamma: Any = None,
        degree: Any = 3,
        coef0: Any = 1,
        approximation: Any = "auto",
        rank: Any = 1000,
        landmarks: Any = "uniform",
        orthonormal: Any = True,
        shrinkage: Any = 1e-3,
        solver: Literal["auto", "moments", "svd"] = "auto",
        cv: Any = 5,
        scoring: str | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.approximation = approximation
        self.rank = rank
        self.landmarks = landmarks
        self.orthonormal = orthonormal
        self.shrinkage = shrinkage
        self.solver = solver
        self.cv = cv
        self.scoring = scoring
        self.random_state = random_state

    def _map(self, view: int, approximation: str, seed: int) -> KernelMap:
        """The map of one view, not fitted yet."""
        own = {name: of_view(name, getattr(self, name), view) for name in PER_VIEW}
        if own["gamma"] == "cv":
            own["gamma"] = getattr(self, "_chosen_gammas", (None, None))[view]
        kernel = {name: own[name] for name in ("kernel", "gamma", "degree", "coef0")}
        if approximation == "exact":
            return ExactKernelMap(**kernel, basis="cholesky")
        if approximation == "rff":
            return RandomFourierMap(
                own["kernel"], rank=own["rank"], gamma=own["gamma"], random_state=seed
            )
        orthonormal = of_view("orthonormal", self.orthonormal, view)
        return NystroemMap(
            **kernel,
            rank=own["rank"],
            landmarks=own["landmarks"],
            orthonormal=orthonormal,
            random_state=seed,
        )

    def _validate_params(self) -> None:
        super()._validate_params()
        for view in (0, 1):
            approximation = of_view("approximation", self.approximation, view)
            if approximation not in ("auto", "exact", "nystroem", "rff"):
                raise ValueError(
                    f"approximation={approximation!r} is unknown: use 'auto', 'exact', 'nystroem' "
                    "or 'rff'"
                )
            for kind in ("exact", "nystroem") if approximation == "auto" else (approximation,):
                self._map(view, kind, 0)._validate_params()

    def _fit_maps(
        self, X: Any, y: Any, sample_weight: Any, *, stream: bool = False
    ) -> tuple[Any, Any]:
        """Fit both maps; return what the moments are taken of, the rows mapped as they are read."""
        weights = None if sample_weight is None else to_numpy(sample_weight)
        rows = X.shape[0] if weights is None else int(np.count_nonzero(weights))
        if weights is not None and (total := float(weights.sum())) < 2:
            weights = weights / total * observations(total, rows)
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

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the maps, then CCA to the mapped rows, in one pass over them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The first view: an array of any library, a frame, a memory-map, or anything with
            shape, dtype and slicing.
        y : array-like of shape (n_samples, n_targets) or (n_samples,)
            The second view; row i is the partner of row i of `X`.
        sample_weight : array of shape (n_samples,), optional
            Frequency weights: weight 2 is the row twice.
        groups : array of shape (n_samples,), optional
            Labels of rows that depend on each other, which are in one fold where `shrinkage` is
            "cv" (`Moments.folds`).

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If values are not finite, lengths differ, there is only one row, a parameter is out
            of range, or a kernel is not positive semi-definite.
        MemoryError
            If the Gram matrix of an exact map does not fit.
        """
        return super().fit(X, y, sample_weight, groups)

    def _fit_stream(self, source: Any, sample_weight: Any, groups: Any) -> list[str]:
        raise ValueError(
            f"{type(self).__name__} reads the rows twice, for the maps and for the moments, which "
            "batches do not allow: pass arrays, memory-maps or shards, or call partial_fit on each "
            "batch"
        )

    def _first_form(self, n: float, d: int) -> Any:
        return "root" if self.solver == "svd" else "scatter"

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

    def _named_moments(self, moments: Any) -> Any:
        return moments  # their columns are coordinates

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

    def _solve(self, m: Shrunk) -> Canonical:
        found = super()._solve(m)
        # Features that depend on each other (those of a view of three distinct values, say) have
        # directions without variance, which a small ridge turns into noise.
        correlated = int(namespace(found.relative).count_nonzero(found.relative > 1e-8))
        if (count := max(1, correlated)) < found.n_components_:
            note = (
                f"only {count} of {found.n_components_} components are correlated beyond rounding; "
                "the rest are left out"
            )
            found = found.leading(count).noted([*found.notes, note])
        # Signs that do not depend on the basis: the largest variate of a landmark is positive.
        anchors = self.x_map_._landmark_coordinates()
        if anchors is None:
            return found
        return found.with_signs(signs((anchors - found.x_mean_) @ found.x_weights_))

    def _solved(self, moments: Moments, chosen: Mapping[str, Any]) -> Canonical:
        """Shrink towards tr(S) / m, m landmarks, where CCA shrinks towards tr(S) / columns.

        "auto" is that of the m landmarks too: how many columns are left is a matter of rounding.
        """
        if "n_components" in chosen:
            one = self._twin()
            one.n_components = chosen["n_components"]
            return one._solved(moments, {k: v for k, v in chosen.items() if k != "n_components"})
        given = chosen.get("shrinkage") or self._shrinkage_of_blocks(moments.names)
        counts = self.x_map_.n_landmarks_, self.y_map_.n_landmarks_
        nominal = tuple(
            moments.ledoit_wolf(name, dimension=m) if isinstance(s, str) else s
            for name, s, m in zip(moments.names, given, counts, strict=True)
        )
        moved = tuple(
            _moved(s, moments.width(name) / m)
            for name, s, m in zip(moments.names, nominal, counts, strict=True)
        )
        found: Canonical = super()._solved(moments, {**chosen, "shrinkage": moved})
        return replace(found, shrinkage_=nominal)

    def _trial(self, moments: Moments, chosen: Mapping[str, Any]) -> Trial:
        return Trial(self._solved(moments, chosen))  # features may be constant in a fold

    def _check_count(self, m: Shrunk) -> None:
        """How many components there are is known only by now, and said in a warning."""

    def _degenerate(self, m: Shrunk, rank: int) -> list[str]:
        wanted, possible = self.n_components, min(m.width("x"), m.width("y"), m.rows - 1)
        if wanted is None or wanted <= possible:
            return super()._degenerate(m, rank)
        return [
            *constant_columns(m),
            f"only {rank} of n_components={wanted} exist, the rank of the kernels on these rows; "
            "the rest are left out"
            if rank
            else "a view does not vary under its kernel: there is nothing to correlate, and all "
            "weights are 0",
        ]

    def _most_components(self, widths: Sequence[int]) -> None:
        return None

    def _ill_conditioned(self) -> bool:
        return super()._ill_conditioned() and 0 in self.shrinkage_

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

    def _has_path(self) -> bool:
        return False

    @property
    def predict(self) -> Any:
        """Absent: the conditional mean of y's coordinates is no y."""
        raise AttributeError(
            "KernelCCA has no predict: it knows the second view by its kernel alone; use "
            "MultitaskRegressor behind a NystroemMap of x"
        )

    @property
    def inverse_transform(self) -> Any:
        """Absent: variates determine coordinates in the RKHS, which have no row."""
        raise AttributeError(
            "KernelCCA has no inverse_transform: it knows the views by their kernels alone"
        )

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: sparse views, of which a run at a time is made dense."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        kernel = of_view("kernel", self.kernel, 0)
        tags.input_tags.pairwise = isinstance(kernel, str) and kernel == "precomputed"
        tags.input_tags.positive_only = isinstance(kernel, str) and kernel == "chi2"
        return tags


def _moved(s: float, ratio: float) -> float:
    """The s' with ``s' / (1 - s') = ratio * s / (1 - s)``.

    ``(1 - s) S + s t / m I`` and ``(1 - s') S + s' t / p I`` are then proportional for
    ratio = p / m; directions, correlations and, by the factor of the cross block, singular
    values are the same.
    """
    return s * ratio / (1 - s + s * ratio)


def _fit_map(feature_map: KernelMap, data: Any, weights: Any) -> Any:
    """Fit the map to the rows of one view; return its coordinates, or the rows to be mapped."""
    feature_map.n_features_in_ = 1 if data.ndim == 1 else int(data.shape[1])
    if isinstance(feature_map, ExactKernelMap) and weights is not None and (weights == 0).any():
        present = np.flatnonzero(weights)  # a row of weight 0 is none
        feature_map._fit(take_in_memory(data, present), weights[present])
        return mapped_rows(data, feature_map)
    coordinates = feature_map._fit(data, weights)
    return mapped_rows(data, feature_map) if coordinates is None else coordinates
