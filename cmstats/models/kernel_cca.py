"""Kernel canonical correlation analysis: a feature map for each view, then CCA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions

from cmstats.arrays import namespace
from cmstats.kernels.linalg import signs
from cmstats.models.degenerate import constant_columns
from cmstats.models.feature_maps import ExactKernelMap, NystroemMap, RandomFourierMap
from cmstats.models.kernel_choice import of_view
from cmstats.models.kernel_map import KernelMap
from cmstats.models.mapped_views import MappedViews
from cmstats.moments.canonical import Canonical
from cmstats.moments.folds import Trial
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk

__all__ = ["KernelCCA"]

PER_VIEW = ("kernel", "gamma", "degree", "coef0", "approximation", "rank", "landmarks")


class KernelCCA(MappedViews):
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

    def _first_form(self, n: float, d: int) -> Any:
        return "root" if self.solver == "svd" else "scatter"

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
        """The solution by CCA, shrunk towards tr(S) / m with m landmarks.

        CCA divides the trace by the number of columns, which here depends on rounding. "auto" is
        estimated in m dimensions too.
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
        """Raise nothing: maps limit the number of components, which a warning reports."""

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
