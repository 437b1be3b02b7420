"""ASIF: two views compared through anchors, without training."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from cmstats.arrays import (
    Array,
    dense,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    take_rows,
)
from cmstats.baselines.two_view import TwoViewBaseline, reciprocal_rank
from cmstats.models.latent import unit_rows
from cmstats.rows.source import take_in_memory

__all__ = ["ASIF"]

SEARCH_ROWS = 5000
"""More training pairs would cost the search for k and power time, and change it little."""

BLOCK_BYTES = 64 << 20
POWERS = (1.0, 2.0, 4.0, 8.0)
NEIGHBOURS = (10, 30, 100, 300)


class ASIF(TwoViewBaseline):
    r"""Two views in one space without training: similarities to paired anchors.

    An item is described by its cosines to the anchors of its own view, of which the k largest
    are kept and raised to a power; since anchor i of x and anchor i of y are partners, these
    vectors can be compared across views by their cosine (Norelli et al. 2023):

    .. math:: r_i(x) = \max(0, \cos(x, a_i))^p \text{ for the } k \text{ nearest anchors, else } 0

    The training pairs are the anchors. There is nothing to learn but k and p.

    Parameters
    ----------
    k : int or "cv", default="cv"
        How many similarities of an item are kept.
    power : float or "cv", default="cv"
        Their exponent p. "cv" for k or `power` is what retrieves held-out training items best
        (the mean reciprocal rank of both directions), among `NEIGHBOURS` and `POWERS`.
    n_anchors : int, optional
        A random choice of training pairs as anchors; by default all are. Vectors have as many
        entries.
    center : bool, default=True
        Take the mean of the anchors off before cosines: what all items share tells nothing.
    cv : int, default=5
        Number of folds for "cv"; row i of those searched is in fold i mod `cv`.
    random_state : int or RandomState, optional
        Chooses the anchors, and the 5000 pairs for "cv" where there are more.

    Attributes
    ----------
    k_, power_ : int, float
        As used; `k_` is at most the number of anchors.
    x_anchors_, y_anchors_ : arrays of shapes (n_anchors, n_features), (n_anchors, n_targets)
        The anchors at unit length, after centring.
    x_mean_, y_mean_ : arrays of shapes (n_features,), (n_targets,)
        What was taken off: zeros without `center`.
    cv_scores_ : array of shape (n_neighbours, n_powers, cv)
        Mean reciprocal ranks, where there was a search.
    cv_neighbours_, cv_powers_ : tuples
        The values searched.
    n_components_, n_parameters_ : int
        The number of anchors; the numbers that are kept of them.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    ContrastiveAligner : Heads trained for the same purpose.

    Notes
    -----
    The paper keeps 800 similarities to 1.6 million anchors and raises them to the power 8;
    with thousands of anchors fewer do better. Anchors tied with the k-th are kept as well.
    Negative cosines count as 0: an even power would make opposites look alike.

    References
    ----------
    Norelli, A., Fumero, M., Maiorca, V., Moschella, L., Rodolà, E. and Locatello, F. (2023).
    ASIF: coupled data turns unimodal models to multimodal without training. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.baselines import ASIF
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(400, 4))
    >>> X, Y = z @ rng.normal(size=(4, 20)), z @ rng.normal(size=(4, 15))
    >>> model = ASIF(k=30, power=8).fit(X[:300], Y[:300])
    >>> model.embed(X[300:]).shape
    (100, 300)
    >>> model.score(X[300:], Y[300:]) > 0.5
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "k": [Interval(Integral, 1, None, closed="left"), StrOptions({"cv"})],
        "power": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
        "n_anchors": [Interval(Integral, 1, None, closed="left"), None],
        "center": ["boolean"],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        k: int | Literal["cv"] = "cv",
        *,
        power: float | Literal["cv"] = "cv",
        n_anchors: int | None = None,
        center: bool = True,
        cv: int = 5,
        random_state: Any = None,
    ) -> None:
        self.k = k
        self.power = power
        self.n_anchors = n_anchors
        self.center = center
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Keep the anchors, and choose k and p where they are "cv".

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The first view. Anchors are kept dense.
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,)
            The second view; row i is the partner of row i of `X`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If values are not finite, lengths differ, there is only one row, or a parameter is
            out of range.
        """
        self._validate_params()
        new = self._unfitted()
        new._fit(*new._training_rows(X, y))
        return self._become(new)

    def _fit(self, X: Any, y: Any) -> None:
        """Keep anchors among checked rows."""
        n = int(X.shape[0])
        wanted = n if self.n_anchors is None else self.n_anchors
        if wanted > n:
            raise ValueError(f"n_anchors={wanted} is too large: there are {n} training pairs")
        random = check_random_state(self.random_state)
        chosen = _chosen(n, wanted, random)
        views = [_dense(take_rows(a, chosen)) for a in (X, y)]
        means = [_mean(a) if self.center else 0 * _mean(a) for a in views]
        self.x_mean_, self.y_mean_ = means
        self.x_anchors_, self.y_anchors_ = (
            _directions(a, mean) for a, mean in zip(views, means, strict=True)
        )
        self.n_components_ = wanted
        self.n_parameters_ = sum(int(a.shape[0] * a.shape[1]) for a in views)
        self.n_parameters_ += sum(int(m.shape[0]) for m in means)
        k, power = self._search(random) if "cv" in (self.k, self.power) else (self.k, self.power)
        self.k_, self.power_ = min(int(k), wanted), float(power)

    def _search(self, random: Any) -> tuple[Any, Any]:
        """The k and p with which held-out anchors find their partners, by the other anchors."""
        n = self.n_components_
        neighbours = NEIGHBOURS if self.k == "cv" else (self.k,)
        powers = POWERS if self.power == "cv" else (self.power,)
        self.cv_neighbours_, self.cv_powers_ = neighbours, powers
        at = _chosen(n, min(n, SEARCH_ROWS), random)
        folds = min(self.cv, len(at))
        scores = np.empty((len(neighbours), len(powers), folds))
        for fold in range(folds):
            held = np.arange(len(at)) % folds == fold
            products = [
                take_rows(a, at[held]) @ take_rows(a, at[~held]).mT
                for a in (self.x_anchors_, self.y_anchors_)
            ]
            for (i, k), (j, power) in (
                (one, two) for one in enumerate(neighbours) for two in enumerate(powers)
            ):
                u, v = (unit_rows(_relative(s, k, power)) for s in products)
                scores[i, j, fold] = reciprocal_rank(u, v)
        self.cv_scores_ = scores
        i, j = divmod(int(scores.mean(axis=2).argmax()), len(powers))
        return neighbours[i], powers[j]

    def _coordinates(self, rows: Any, view: str) -> Array:
        mean, anchors = getattr(self, f"{view}_mean_"), getattr(self, f"{view}_anchors_")
        xp = namespace(anchors)
        parts = []
        for take in row_slices(rows.shape[0], max(64, BLOCK_BYTES // (8 * self.n_components_))):
            part = _dense(take_in_memory(rows, take))
            namespace(part, anchors)  # of one library, on one device
            directions = _directions(part, mean)
            dtype = directions.dtype
            cosines = directions @ xp.astype(anchors, dtype).mT
            parts.append(_relative(cosines, self.k_, self.power_))
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


def _relative(cosines: Array, k: int, power: float) -> Array:
    """The k largest of each row, raised to a power; 0 elsewhere and for negative ones."""
    xp = namespace(cosines)
    positive = cosines * xp.astype(cosines > 0, cosines.dtype)
    count = int(cosines.shape[1])
    if k < count:
        least = _kth_largest(positive, k)
        positive = positive * xp.astype(positive >= least, positive.dtype)
    return positive**power


def _kth_largest(a: Array, k: int) -> Array:
    """The k-th largest of each row, as a column."""
    at = int(a.shape[1]) - k
    if is_numpy(namespace(a)):
        return np.partition(a, at, axis=1)[:, at : at + 1]
    return namespace(a).sort(a, axis=1)[:, at : at + 1]


def _chosen(n: int, count: int, random: Any) -> np.ndarray[Any, Any]:
    """Numbers of `count` rows of n, in their order."""
    return np.arange(n) if count == n else np.sort(random.choice(n, count, replace=False))


def _dense(a: Any) -> Array:
    """A dense array in the precision of results."""
    a = dense(a)
    return namespace(a).astype(a, result_dtype(a), copy=False)


def _mean(a: Array) -> Array:
    xp = namespace(a)
    return xp.mean(xp.astype(a, xp.float64), axis=0)


def _directions(a: Array, mean: Array) -> Array:
    xp = namespace(a)
    return unit_rows(a - xp.astype(mean, a.dtype))
