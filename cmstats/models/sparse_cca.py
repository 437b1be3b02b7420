"""Sparse canonical correlation analysis, from joint moments."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions

from cmstats.arrays import Array, device_of, namespace, to_numpy, warn
from cmstats.kernels.pmd import penalised_pairs
from cmstats.kernels.sparse import BlockPenalty, sparse_path
from cmstats.models.cca import CCA
from cmstats.models.degenerate import constant_columns
from cmstats.models.sparse_pairs import Pairs, Refinement, directions, unit_pairs
from cmstats.moments.canonical import Canonical
from cmstats.moments.folds import best_index, choice_notes, scored_in_steps, simplest_index
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk

__all__ = ["SparseCCA"]

RATIOS = tuple(float(f"{a:.4g}") for a in np.geomspace(1.0, 0.01, 21)[1:])
"""The grid of ``alpha="cv"`` for "eccar", in units of the alpha at which all weights are 0."""
SHARES = tuple(round(0.05 * i, 2) for i in range(19, 0, -1))
"""The grid of ``alpha="cv"`` for "pmd"."""


@dataclass(frozen=True)
class SparsePairs(Canonical):
    """Pairs of sparse variates; fields that end in an underscore are those of `SparseCCA`."""

    alpha_: float = 0.0
    alpha_max_: float = 1.0
    x_support_: Array = None
    y_support_: Array = None
    n_iter_: int = 1
    converged: bool = True

    @classmethod
    def found(
        cls, m: Shrunk, pairs: Pairs, alpha: float, alpha_max: float,
        found: tuple[bool, int],
    ) -> SparsePairs:  # fmt: skip
        """From directions of both views and the correlations of the model, ``A, r, B``."""
        A, r, B = pairs
        xp = namespace(A)
        known = vars(Canonical.of(m, A, xp.clip(r, 0.0, 1.0), B, 1.0))
        x, y = (xp.any(known[f"{name}_weights_"] != 0, axis=1) for name in "xy")
        # Tests of canonical correlations are of those without a penalty.
        known["shrinkage_"] = None
        return cls(**known, alpha_=alpha, alpha_max_=alpha_max, x_support_=x, y_support_=y,
                   converged=found[0], n_iter_=found[1])  # fmt: skip


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
    of B is. There is no inverse, so that there may be more columns than rows. A single entry of B
    gives its row a weight, so that many are small and not 0: `refine` regresses each view on the
    variates W of the other,

    .. math:: \min_L \; \tfrac12 \operatorname{tr}(L' S_{xx} L) - \operatorname{tr}(L' S_{xy} W)
        + \alpha \sum_{ij} |L_{ij}|,

    the second stage of Gao, Ma and Zhou (2017), there with a penalty on rows. The weights satisfy
    :math:`a' S_{xx} a = 1`, and pairs are uncorrelated.

    Parameters
    ----------
    n_components : int, default=1
    alpha : float or "cv", default="cv"
        The penalty. At `alpha_max_` and above nothing is left. "cv" chooses from `alphas` by the
        mean correlation of the pairs on held-out rows: the largest whose mean is within one
        standard error of the best (Breiman et al. 1984). The path of each fold starts from one
        pair of eigendecompositions, and all end where the scores have fallen.
        For "pmd" a number in [0, 1]: the l1 norm of the unit weights of p columns is at most
        ``max(1, (1 - alpha) sqrt(p))``, so 0 is no penalty.
    alphas : sequence of float, optional
        The grid of "cv": by default 20 values below `alpha_max_`, down to a hundredth of it;
        for "pmd" .95, .9, ..., .05.
    method : {"eccar", "pmd"}, default="eccar"
        "pmd" is the penalised matrix decomposition of Witten, Tibshirani and Hastie (2009): each
        pair maximises u'S_xy v under bounds of the l1 and l2 norms, as if the columns of a view
        were uncorrelated, and the next follows from the deflated S_xy. Pairs may be correlated.
    x_groups, y_groups : arrays of shape (n_features,), (n_targets,), optional
        Labels of columns that are selected together ("eccar"): the penalty becomes the sum, over
        blocks of B of a group of x and a group of y, of the root of the size times the Frobenius
        norm. Without labels each column is a group.
    refine : int, default=2
        Rounds of lasso regressions of each view on the variates of the other ("eccar"), with the
        same alpha and groups; 0 takes the pairs of B as they are.
    scale : bool, default=True
        Standardise each column (from the moments, so inside the folds): a penalty compares
        columns.
    tol : float, default=1e-5
        Bound on the violation of the optimality conditions, relative to `alpha_max_`.
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
        Equal to `correlations_`; with ``refine=0`` :math:`\Lambda`, which the penalty makes
        smaller.
    alpha_, alpha_max_ : float
    n_iter_ : int
        Iterations at `alpha_`.
    n_components_ : int
        Fewer than asked for where B has a lower rank.
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
    The best held-out correlation alone prefers too many columns to too few, since a superfluous
    one costs little. Its alpha is ``cv_alphas_[argmax(mean(cv_scores_, axis=1))]``, for models
    that are to predict.

    References
    ----------
    Wu, Z., Tuzhilina, E. and Donnat, C. (2025). Efficient canonical correlation analysis with
    sparsity. arXiv 2507.11160.
    Gao, C., Ma, Z. and Zhou, H. H. (2017). Sparse CCA: adaptive estimation and computational
    barriers. Annals of Statistics 45.
    Witten, D. M., Tibshirani, R. and Hastie, T. (2009). A penalized matrix decomposition, with
    applications to sparse principal components and canonical correlation analysis. Biostatistics
    10.
    Boyd, S., Parikh, N., Chu, E., Peleato, B. and Eckstein, J. (2011). Distributed optimization
    and statistical learning via the alternating direction method of multipliers. Foundations and
    Trends in Machine Learning 3.
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
        "method": [StrOptions({"eccar", "pmd"})],
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
        method: Literal["eccar", "pmd"] = "eccar",
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
        self.x_groups = x_groups
        self.y_groups = y_groups
        self.refine = refine
        self.scale = scale
        self.tol = tol
        self.max_iter = max_iter
        self.cv = cv
        self.missing = missing

    def _prepared(self, moments: Moments, chosen: dict[str, Any]) -> Shrunk:
        return moments.shrunk(0.0, scale=self.scale)

    def _solve(self, m: Shrunk, alpha: float | None = None) -> SparsePairs:
        alpha = float(self.alpha) if alpha is None else alpha
        self._check_count(m)
        # From the largest down: the solution at one alpha starts the next.
        largest = self._penalty(m).dual(m.cov("x", "y"))
        start = [a * largest for a in RATIOS[::2] if self.method == "eccar" and alpha > 0]
        *_, found = self._pairs(m, [*(a for a in start if a > alpha), alpha])
        return found.noted([*constant_columns(m), *self._too_few(m, found)])

    def _pairs(self, m: Shrunk, alphas: Sequence[float]) -> Iterator[SparsePairs]:
        """The pairs at falling alphas."""
        S, k = m.cov("x", "y"), self.n_components
        if self.method == "pmd":
            for alpha in alphas:
                c_x, c_y = (max(1.0, (1 - alpha) * m.width(b) ** 0.5) for b in ("x", "y"))
                U, V, _, done, steps = penalised_pairs(S, k, (c_x, c_y))
                pairs = unit_pairs(m, U, V)
                yield SparsePairs.found(m, pairs, float(alpha), 1.0, (done, steps))
            return
        x, y = (m.sample.eigenpairs(name) for name in ("x", "y"))
        penalty = self._penalty(m)
        largest = penalty.dual(S)
        how: dict[str, Any] = {"tol": self.tol, "max_iter": self.max_iter}
        refine = Refinement(S, x, y, penalty, **how)
        path = sparse_path(S, x, y, penalty, alphas, **how)
        for alpha, B in zip(alphas, path, strict=True):
            pairs = directions(B, x, y, k)
            if 0 < alpha < largest:
                pairs = refine(pairs, alpha, self.refine)
            found = B.converged, B.steps
            yield SparsePairs.found(m, pairs, float(alpha), largest, found)

    def _penalty(self, m: Shrunk) -> BlockPenalty:
        """The penalty of B by the groups of columns."""
        groups = {"x": self.x_groups, "y": self.y_groups}
        return BlockPenalty(*(_indicators(m, name, labels) for name, labels in groups.items()))

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.method != "pmd":
            return
        if self.x_groups is not None or self.y_groups is not None:
            raise ValueError(
                "method='pmd' selects single columns: leave the groups out, or set method='eccar'"
            )
        if self.alpha != "cv" and self.alpha > 1:
            raise ValueError(
                f"alpha={self.alpha} is out of range: method='pmd' takes one in [0, 1]"
            )

    def _too_few(self, m: Shrunk, found: SparsePairs) -> list[str]:
        """Sentences about what an alpha leaves, and about a path that did not converge."""
        if not found.converged:
            self._say_unfinished(f"{found.alpha_:.4g}")
        notes = []
        if not found.alpha_max_ > 0:
            notes += self._degenerate(m, 0)
        elif not found.rank:
            notes.append(
                f"alpha={found.alpha_:.4g} leaves no column, all weights are 0: set it below "
                f"alpha_max_={found.alpha_max_:.4g}"
            )
        elif found.rank < self.n_components:
            notes.append(
                f"only {found.rank} of n_components={self.n_components} exist at "
                f"alpha={found.alpha_:.4g}, the rank of the penalised matrix; the rest are left out"
            )
        return notes

    # ------------------------------------------------------------------ choosing alpha
    def _has_path(self) -> bool:
        return False

    def _scoring_of(self, folds: Sequence[Moments] = ()) -> str:
        return "correlation"

    def _candidates(self, folds: Sequence[Moments]) -> list[dict[str, Any]]:
        given = self.alphas
        if given is None and self.method == "pmd":
            given = SHARES
        if given is None:
            m = self._prepared(functools.reduce(operator.add, folds), {})
            largest = self._penalty(m).dual(m.cov("x", "y"))
            given = [a * largest for a in RATIOS]
        most = 1.0 if self.method == "pmd" else np.finfo(np.float64).max
        numbers = np.asarray(given)
        if (
            numbers.dtype.kind not in "iuf"
            or not numbers.size
            or not ((numbers >= 0) & (numbers <= most)).all()
        ):
            said = "from 0 to 1 for 'pmd'" if self.method == "pmd" else "finite, not below 0"
            raise ValueError(f"alphas={self.alphas!r} must be numbers, {said}")
        values = np.unique(numbers.astype(np.float64))[::-1]
        return [{"alpha": float(a)} for a in values]

    def _choose(self, folds: list[Moments]) -> tuple[dict[str, Any], dict[str, Any]]:
        candidates = self._candidates(folds)
        alphas = [each["alpha"] for each in candidates]
        # Of each alpha and view in how many folds each column is selected; and in how many it can.
        times: list[list[Any]] = [[0, 0, 0] for _ in alphas]
        unfinished: list[float] = []

        def scores(k: int, train: Moments) -> Iterator[float]:
            held = self._held_out(folds[k])
            for i, found in enumerate(self._pairs(self._prepared(train, {}), alphas)):
                for view, support in enumerate((found.x_support_, found.y_support_)):
                    times[i][view] = times[i][view] + to_numpy(support)
                times[i][2] += 1
                unfinished.extend([] if found.converged else [found.alpha_])
                yield self._held_out_correlation(found, held)

        grid = scored_in_steps(scores, len(alphas), folds)
        best = best_index(grid.scores, grid.notes)
        tried, at = candidates[: len(grid.scores)], simplest_index(grid.scores)
        # Beyond the largest nothing is left: it is no edge.
        edges = tried if best else [{} for _ in tried]
        notes = [*grid.notes, *choice_notes(grid.scores, edges, best)]
        if unfinished:
            many = f"{max(unfinished):.4g} (first of {len(unfinished)} problems in folds)"
            self._say_unfinished(many)
        like = folds[0].mean("x")
        place = functools.partial(namespace(like).asarray, device=device_of(like))
        shares = [[x / count, y / count] for x, y, count in times[: len(tried)]]
        return candidates[at], {
            "cv_alphas_": alphas[: len(tried)],
            "cv_scores_": grid.scores,
            "cv_counts_": place(np.array([[view.sum() for view in each] for each in shares])),
            "x_stability_": place(shares[at][0]),
            "y_stability_": place(shares[at][1]),
            "notes": notes,
        }

    def _held_out_correlation(self, found: SparsePairs, held: Moments) -> float:
        """The mean over the pairs asked for; one that does not exist, or not vary, has 0."""
        if held.rows < 2:
            return float("nan")
        if not found.rank:
            return 0.0
        correlations = np.nan_to_num(to_numpy(found.correlations_on(held)))
        return float(correlations.sum() / self.n_components)

    def _say_unfinished(self, alpha: str) -> None:
        warn(
            f"the penalised problem at alpha={alpha} did not converge in max_iter={self.max_iter} "
            "steps: raise max_iter, tol or alpha",
            ConvergenceWarning,
        )


def _indicators(m: Shrunk, name: str, labels: Any) -> Array | None:
    """The columns of a block by their groups, (p, groups); None without labels."""
    if labels is None:
        return None
    like, width = m.mean(name), m.width(name)
    given = np.asarray(to_numpy(labels))
    if given.shape != (width,):
        raise ValueError(
            f"{name}_groups has shape {given.shape}, but {name} has {width} columns: give one "
            "label for each"
        )
    listed = given.tolist()
    if any(label is None or label != label for label in listed):
        raise ValueError(f"{name}_groups has missing labels: give one for each column")
    known = {label: i for i, label in enumerate(dict.fromkeys(listed))}
    one_hot = np.eye(len(known))[[known[label] for label in listed]]
    return namespace(like).asarray(one_hot, dtype=like.dtype, device=device_of(like))
