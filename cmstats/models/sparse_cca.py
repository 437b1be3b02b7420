"""Sparse canonical correlation analysis, from joint moments."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from cmstats.arrays import Array, device_of, namespace, to_numpy
from cmstats.kernels.groups import Groups, Penalty
from cmstats.kernels.pmd import largest_share
from cmstats.kernels.sparse import sparse_path
from cmstats.models.bands import label_codes
from cmstats.models.cca import CCA
from cmstats.models.degenerate import constant_columns
from cmstats.models.sparse_pairs import (
    HeldOutPairs,
    Pairs,
    Refinement,
    SparsePairs,
    decomposed_pairs,
    directions,
    falling,
    say_unfinished,
    selected_pairs,
    view_columns,
)
from cmstats.moments.folds import GridScores, best_index, scored_in_steps, simplest_index
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk
from cmstats.rows.source import width_of

__all__ = ["SparseCCA"]

RATIOS = tuple(float(f"{a:.4g}") for a in np.geomspace(1.0, 0.01, 21)[1:])
"""The grid of ``alpha="cv"`` for "eccar", in units of the alpha at which all weights are 0."""
WIDEST = 0.95
"""The largest 1 - alpha of the grid for "pmd"."""


class SparseCCA(CCA):
    r"""Canonical correlation analysis with few features of each view.

    The matrix :math:`B = S_{xx}^{-1} S_{xy} S_{yy}^{-1}` of all canonical pairs is estimated with
    a penalty on its entries or on groups of them, as a convex problem (ECCAR, Wu, Tuzhilina and
    Donnat 2025),

    .. math:: \min_B \; \tfrac12 \operatorname{tr}(B' S_{xx} B S_{yy})
        - \operatorname{tr}(B' S_{xy}) + \alpha \sum_{ij} |B_{ij}| ,

    and the pairs follow from the singular value decomposition
    :math:`S_{xx}^{1/2} B S_{yy}^{1/2} = P \Lambda Q'`: weights :math:`B S_{yy}^{1/2} Q
    \Lambda^{-1}` and :math:`B' S_{xx}^{1/2} P \Lambda^{-1}`, which are 0 where a row or a column
    of B is. There may be more columns than rows. A single entry of B gives its row a weight, so
    that many are small and not 0: `refine` regresses each view on the variates W of the other,

    .. math:: \min_L \; \tfrac12 \operatorname{tr}(L' S_{xx} L) - \operatorname{tr}(L' S_{xy} W)
        + \alpha \sum_{ij} |L_{ij}|,

    the second stage of Gao, Ma and Zhou (2017), there with a penalty on rows. The penalty also
    shrinks the weights that it leaves. With `relax` it only selects columns I and J, and weights
    are those of a `CCA` of these (relaxed lasso, Meinshausen 2007),

    .. math:: \max_{a, b}\; a' S_{xy} b \quad\text{s.t.}\quad a' S_{xx} a = b' S_{yy} b = 1, \;
        a_i = b_j = 0 \text{ for } i \notin I, j \notin J .

    The weights satisfy :math:`a' S_{xx} a = 1`, and pairs are uncorrelated (but for the methods
    "pmd" and "soft").

    Parameters
    ----------
    n_components : int, default=1
    alpha : float or "cv", default="cv"
        The penalty. At `alpha_max_` and above nothing is left ("pmd": one column). "cv" chooses
        from `alphas` by the mean correlation of the pairs on held-out rows: the best, and without
        `relax`, for "pmd" and for "soft" the largest whose mean is within one standard error of it
        (Breiman et al. 1984). Paths of folds end where three more raise the mean by no more than a
        tenth of its standard error. For "pmd" a number in [0, 1]: the l1 norm of the unit weights
        of p columns is at most ``max(1, (1 - alpha) sqrt(p))``, so 0 is no penalty. For "soft" the
        threshold, below 1; the more columns, the smaller, as entries of vectors of one length are.
    alphas : sequence of float, optional
        The grid of "cv": by default 20 values below `alpha_max_`, down to a hundredth of it;
        for "pmd" those of 1 - alpha have equal ratios, from 1/sqrt(p) of the wider view, where
        a single column is left, to .95: a bound c leaves at least about c squared columns.
    method : {"eccar", "pmd", "soft"}, default="eccar"
        "pmd" is the penalised matrix decomposition of Witten, Tibshirani and Hastie (2009): each
        pair maximises u'S_xy v under bounds of the l1 and l2 norms, as if the columns of a view
        were uncorrelated, and the next follows from the deflated S_xy: pairs may be correlated,
        and are in the order in which they were found.
        "soft" is the same with thresholds for bounds (Parkhomenko, Tritchler and Beyene 2009):
        :math:`S_{xy} v` and :math:`S_{yx} u` in turn lose `alpha` times their length. It finds
        sparse loadings best, that is columns that follow the pairs, where noise is correlated.
    relax : bool, default=True
        Weights, in the folds too, are those of a CCA of the selected columns ("eccar"), not the
        penalised ones. "pmd" and "soft" do not know it, since they select worse by such scores.
    x_groups, y_groups : arrays of shape (n_features,), (n_targets,), optional
        Labels of columns that are selected together ("eccar"): the penalty becomes the sum, over
        blocks of B of a group of x and a group of y, of the root of the size times the Frobenius
        norm. Without labels each column is a group.
    refine : int, default=2
        Rounds of these regressions ("eccar"), with the same alpha and groups; 0 takes the pairs of
        B as they are.
    scale : bool, default=True
        Standardise each column (from the moments, so inside the folds): a penalty compares
        columns. Without it `alpha` is in units of S_xy, and in the regressions of `refine`
        divided by the root mean square deviation of the columns of the other view.
    tol : float, default=1e-5
        Bound on the violation of the optimality conditions, relative to `alpha_max_`; ten times
        that where `alpha` is being chosen ("eccar"; others end where weights change by 1e-6).
    max_iter : int, default=2000
        For each alpha; where it is reached there is a `ConvergenceWarning`.
    cv : int, splitter or iterable of splits, default=5
        The folds for "cv". An int K puts row i into fold i mod K.
    missing : {"error", "em"}, default="error"
        What NaN is, see `CCA`.

    Attributes
    ----------
    x_weights_, y_weights_ : arrays of shape (p, k), (q, k)
        In the data's units, of unit variance in the training rows, with exact zeros.
    x_support_, y_support_ : boolean arrays of shape (p,), (q,)
        The columns with a weight in some pair.
    correlations_ : array of shape (k,)
        Those of the variates in the training rows.
    singular_values_ : array of shape (k,)
        Equal to `correlations_`; with ``relax=False, refine=0`` :math:`\Lambda`, which the
        penalty makes smaller.
    alpha_, alpha_max_ : float
        The penalty, and the least from which on nothing is left ("soft": a bound on it; "pmd": 1,
        where one column is).
    n_iter_ : int
        Iterations at `alpha_`.
    n_components_ : int
        Fewer than asked for where the selected columns, or without `relax` B, have a lower rank.
    cv_alphas_, cv_scores_ : of shape (n_alphas,), (n_alphas, n_folds)
        Where alpha is "cv". A pair that an alpha does not leave has correlation 0.
    cv_counts_ : array of shape (n_alphas, 2)
        How many columns of x and of y each alpha selects, in the mean over the folds.
    x_stability_, y_stability_ : arrays of shape (p,), (q,)
        The share of the folds whose training rows select each column at `alpha_` (stability
        selection, Meinshausen and Bühlmann 2010, with folds in place of halves).
    x_mean_, y_mean_, n_samples_, moments_, n_features_in_, feature_names_in_, \
y_feature_names_in_
        As in `CCA`.

    See Also
    --------
    CCA : Without a penalty; with a ridge by `shrinkage`.
    cmstats.plotting.SparsePathDisplay : Scores and numbers of columns along the path.

    Notes
    -----
    Of penalised weights the best held-out correlation alone prefers too many columns to too few:
    good weights take a small penalty, and a superfluous column costs little under it. Hence the
    rule of one standard error without `relax`.

    **Beside R.** The bounds of PMA's ``CCA(x, z, penaltyx=c, penaltyz=c)`` are those of "pmd" with
    ``alpha=1 - c``. PMA starts each pair from one singular vector, and "pmd" from several, of which
    it keeps the largest u'S_xy v: pairs can come in another order, or be better ones.

    References
    ----------
    Wu, Z., Tuzhilina, E. and Donnat, C. (2025). Efficient canonical correlation analysis with
    sparsity. arXiv 2507.11160.
    Gao, C., Ma, Z. and Zhou, H. H. (2017). Sparse CCA: adaptive estimation and computational
    barriers. Annals of Statistics 45.
    Meinshausen, N. (2007). Relaxed lasso. Computational Statistics and Data Analysis 52.
    Parkhomenko, E., Tritchler, D. and Beyene, J. (2009). Sparse canonical correlation analysis with
    application to genomic data integration. Statistical Applications in Genetics and Molecular
    Biology 8.
    Witten, D. M., Tibshirani, R. and Hastie, T. (2009). A penalized matrix decomposition, with
    applications to sparse principal components and canonical correlation analysis. Biostatistics
    10.
    Meinshausen, N. and Bühlmann, P. (2010). Stability selection. J. Royal Statistical Society B 72.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import SparseCCA
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(200, 1))
    >>> X, Y = rng.normal(size=(200, 30)), rng.normal(size=(200, 20))
    >>> X[:, :3] += z
    >>> Y[:, :2] += z
    >>> model = SparseCCA(alpha=0.3).fit(X, Y)
    >>> np.flatnonzero(model.x_support_), np.flatnonzero(model.y_support_)
    (array([0, 1, 2]), array([0, 1]))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
        "alphas": ["array-like", None],
        "method": [StrOptions({"eccar", "pmd", "soft"})],
        "relax": ["boolean"],
        "x_groups": ["array-like", None],
        "y_groups": ["array-like", None],
        "refine": [Interval(Integral, 0, None, closed="left")],
        "scale": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "cv": ["cv_object"],
        "missing": [StrOptions({"error", "em"})],
    }
    n_components: Any
    tunable: ClassVar[Mapping[str, Any]] = {"alpha": RATIOS}

    def __init__(
        self,
        n_components: int = 1,
        *,
        alpha: float | Literal["cv"] = "cv",
        alphas: Any = None,
        method: Literal["eccar", "pmd", "soft"] = "eccar",
        relax: bool = True,
        x_groups: Any = None,
        y_groups: Any = None,
        refine: int = 2,
        scale: bool = True,
        tol: float = 1e-5,
        max_iter: int = 2000,
        cv: Any = 5,
        missing: Literal["error", "em"] = "error",
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.alphas = alphas
        self.method = method
        self.relax = relax
        self.x_groups = x_groups
        self.y_groups = y_groups
        self.refine = refine
        self.scale = scale
        self.tol = tol
        self.max_iter = max_iter
        self.cv = cv
        self.missing = missing

    def _prepared(self, moments: Moments, chosen: dict[str, Any]) -> Shrunk:
        return moments.shrunk(0.0, scale=self.scale or "block")

    def _solve(self, m: Shrunk, alpha: float | None = None) -> SparsePairs:
        alpha, k = float(self.alpha) if alpha is None else alpha, self.n_components
        self._check_count(m)
        # From the largest down: the solution at one alpha starts the next.
        largest, above = self._largest(m), self.method == "eccar" and alpha > 0
        start = [a * largest for a in RATIOS[::2] if above and a * largest > alpha]
        (pairs,) = self._pairs(m, [alpha], start=start)
        if not pairs.converged:
            say_unfinished(f"{alpha:.4g}", self.max_iter)
        found = SparsePairs.found(m, pairs, largest)
        few = (
            found.sentences(k, m, self._relaxed(), self._reason())
            if found.alpha_max_ > 0
            else self._degenerate(m, 0)
        )
        return found.noted([*constant_columns(m), *few])

    def _pairs(
        self, m: Shrunk, alphas: Sequence[float], *, start: Sequence[float] = (), rough: float = 1.0
    ) -> Iterator[Pairs]:
        """The pairs at falling alphas, of which those of `start` are left out."""
        k, S = self.n_components, to_numpy(m.cov("x", "y"))
        if self.method != "eccar":
            how: dict[str, Any] = {"soft": self.method == "soft", "max_iter": self.max_iter}
            yield from decomposed_pairs(m, S, k, alphas, **how)
            return
        x, y = (view_columns(m, *each) for each in self._groups(m.width).items())
        largest = self._largest(m)
        how = {"tol": rough * self.tol, "max_iter": self.max_iter}
        refine = Refinement(S, x, y, **how)
        positive, unit = [*start, *(alpha for alpha in alphas if alpha > 0)], self._unit(m)
        path = sparse_path(S, x, y, [alpha / unit for alpha in positive], **how)
        for alpha, B in itertools.islice(zip(positive, path, strict=True), len(start), None):
            pairs = directions(B, x, y, k)
            if alpha < largest:
                pairs = refine(pairs, alpha / unit, self.refine)
            if self.relax:
                pairs = selected_pairs(m, pairs.supports(), k)
            yield replace(pairs, alpha=alpha, converged=B.converged, steps=B.steps)
        if alphas[-1] == 0:
            every = [np.ones(m.width(name), dtype=bool) for name in ("x", "y")]
            yield selected_pairs(m, every, k)

    def _groups(self, width: Callable[[str], int]) -> dict[str, Groups]:
        """The columns of each view that are selected together."""
        found = {}
        for name, labels in (("x", self.x_groups), ("y", self.y_groups)):
            codes = np.arange(width(name))
            if labels is not None:
                codes = label_codes(labels, len(codes), f"{name}_groups", name)[1]
            found[name] = Groups(codes)
        return found

    def _largest(self, m: Shrunk) -> float:
        """The least penalty at which nothing is left; 1 for "pmd", which leaves a column."""
        S = to_numpy(m.cov("x", "y"))
        if self.method == "pmd":
            return float(S.any())
        if self.method == "soft":
            return largest_share(S, self.n_components, m.rows)
        return Penalty(*self._groups(m.width).values()).largest(S) * self._unit(m)

    def _relaxed(self) -> bool:
        return self.relax and self.method == "eccar"

    def _reason(self) -> str:
        """Why an alpha leaves fewer pairs than were asked for."""
        if self.method != "eccar":
            return "nothing of the deflated covariances is left then"
        return f"the rank of the {'selected columns' if self.relax else 'penalised matrix'}"

    @staticmethod
    def _unit(m: Shrunk) -> float:
        """That of alpha, which is in units of S_xy: 1 where each column has its own."""
        return m.unit("x") * m.unit("y")

    def _blocks(self, X: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        found = super()._blocks(X, y, reset=reset)
        if reset:
            self._groups(lambda name: width_of(found[name]))  # raises before rows are read
        return found

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.method == "eccar":
            return
        if self.x_groups is not None or self.y_groups is not None:
            raise ValueError(
                f"method={self.method!r} selects single columns: leave the groups out, or set "
                "method='eccar'"
            )
        if self.method == "pmd" and self.alpha != "cv" and self.alpha > 1:
            raise ValueError(
                f"alpha={self.alpha} is out of range: method='pmd' takes one in [0, 1]"
            )

    # ------------------------------------------------------------------ choosing alpha
    def _has_path(self) -> bool:
        return False

    def _scoring_of(self, folds: Sequence[Moments] = ()) -> str:
        return "correlation"

    def _candidates(self, folds: Sequence[Moments]) -> list[dict[str, Any]]:
        given = self.alphas
        if given is None and self.method == "pmd":
            one = max(folds[0].width(name) for name in ("x", "y")) ** -0.5
            given = [float(f"{1 - c:.4g}") for c in np.geomspace(one, WIDEST, len(RATIOS))]
        if given is None:
            largest = self._largest(self._prepared(functools.reduce(operator.add, folds), {}))
            given = [a * largest for a in RATIOS]
        most = 1.0 if self.method == "pmd" else None
        return [{"alpha": alpha} for alpha in falling(given, self.alphas, most)]

    def _grid_scores(
        self, folds: Sequence[Moments], candidates: Sequence[Mapping[str, Any]]
    ) -> GridScores:
        """The scores from the largest alpha down, until they are level."""
        alphas = [each["alpha"] for each in candidates]
        # Of each alpha and view in how many folds each column is selected; and in how many it can.
        times: list[list[Any]] = [[0, 0, 0] for _ in alphas]
        unfinished: list[float] = []

        def scores(k: int, train: Moments) -> Iterator[float]:
            m = self._prepared(train, {})
            held = HeldOutPairs.of(m, self._held_out(folds[k]))
            for i, pairs in enumerate(self._pairs(m, alphas, rough=10.0)):
                for view, selected in enumerate((*pairs.supports(), 1)):
                    times[i][view] = times[i][view] + selected
                unfinished.extend([] if pairs.converged else [pairs.alpha])
                yield held.correlation(pairs, self.n_components)

        grid = scored_in_steps(scores, len(alphas), folds)
        if unfinished:
            first = f"{max(unfinished):.4g} (first of {len(unfinished)} problems in folds)"
            say_unfinished(first, self.max_iter)
        return replace(grid, details=times)

    def _best(self, found: GridScores, folds: Sequence[Moments]) -> int:
        return (best_index if self._relaxed() else simplest_index)(found.scores, found.notes)

    def _with_edges(self, candidates: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        return [{}, *candidates[1:]]  # beyond the largest alpha nothing is left

    def _choice_attributes(self, found: GridScores, at: int, like: Array) -> dict[str, Any]:
        place = functools.partial(namespace(like).asarray, device=device_of(like))
        tried = found.details[: len(found.scores)]
        shares = [[times / count for times in views] for *views, count in tried]
        return {
            "cv_counts_": place(np.array([[view.sum() for view in each] for each in shares])),
            "x_stability_": place(shares[at][0]),
            "y_stability_": place(shares[at][1]),
        }
