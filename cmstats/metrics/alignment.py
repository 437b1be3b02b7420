"""Similarity of two representations of the same items, from moments or from neighbours.

Every measure takes two matrices whose row i is the same item; all but `mutual_knn_alignment` also
take one `Moments` with these two blocks, and need one pass over the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.arrays import (
    Array,
    as_counts,
    check_count,
    check_weights,
    dense,
    float64,
    moderate,
    namespace,
    to_numpy,
    warn,
)
from cmstats.kernels.linalg import leading_svd, svd
from cmstats.kernels.ranks import top_k
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import check_blocks, check_lengths, chunks
from cmstats.rows.matrix import check_matrix
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import width_of

__all__ = ["linear_cka", "mutual_knn_alignment", "procrustes_distance", "pwcca", "svcca"]


def linear_cka(
    X: Any, Y: Any = None, *, debiased: bool = False, sample_weight: Any = None
) -> float:
    r"""Linear centred kernel alignment of two representations.

    .. math:: \mathrm{CKA} = \frac{\|X'Y\|_F^2}{\|X'X\|_F \, \|Y'Y\|_F}

    of centred X, Y: the cosine of the two centred Gram matrices (HSIC, normalised). It is
    invariant to orthogonal maps, scaling and shifts of each view, not to general linear maps.

    Parameters
    ----------
    X : array-like of shape (n, p), or Moments
        The first representation, or the moments of both (blocks "x" and "y", or the only two).
    Y : array-like of shape (n, q), optional
        The second representation; left out where `X` is Moments.
    debiased : bool, default=False
        Use the unbiased estimate of each HSIC (Song et al. 2012; Nguyen et al. 2021), whose
        expectation is 0 for independent representations, where plain CKA tends to 1 as p and q
        grow past n. It needs ``sum_i |x_i|^2 |y_i|^2``, which moments do not contain, and
        therefore rows and a second pass over them.
    sample_weight : array of shape (n,), optional
        Frequency weights.

    Returns
    -------
    float
        In [0, 1] (at most 1 if debiased); NaN, with a warning, where a view does not vary.

    Raises
    ------
    TypeError
        If X is Moments and `debiased`, or Y or weights are given too.
    ValueError
        If values are not finite, lengths differ, or `debiased` and n < 4.

    References
    ----------
    Kornblith, S., Norouzi, M., Lee, H. and Hinton, G. (2019). Similarity of neural network
    representations revisited. ICML.
    Song, L., Smola, A., Gretton, A., Bedo, J. and Borgwardt, K. (2012). Feature selection via
    dependence maximization. JMLR 13.
    Nguyen, T., Raghu, M. and Kornblith, S. (2021). Do wide and deep networks learn the same
    things? ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import linear_cka
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((100, 20))
    >>> Q, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    >>> round(linear_cka(X, 3 * X @ Q + 1), 12)
    1.0
    >>> Y = rng.standard_normal((100, 200))
    >>> linear_cka(X, Y) > 0.3, abs(linear_cka(X, Y, debiased=True)) < 0.05
    (True, True)
    """
    if debiased:
        return _debiased_cka(X, Y, sample_weight)
    pair = _Pair.of(X, Y, sample_weight)
    if not pair.varies:
        return _undefined("CKA")
    own, other = _norm(pair.scatter("x", "x")), _norm(pair.scatter("y", "y"))
    shared = _norm(pair.scatter("x", "y"))
    # Divide before multiplying: the product of two squared norms can overflow.
    return min(1.0, (shared / own) * (shared / other))


def _debiased_cka(X: Any, Y: Any, sample_weight: Any) -> float:
    if isinstance(X, Moments):
        raise TypeError(
            "debiased CKA needs sum_i |x_i|^2 |y_i|^2, which moments do not hold: pass the rows "
            "X and Y"
        )
    if sample_weight is not None:
        rows = check_blocks({"X": X, "Y": Y})["X"]
        weights = check_weights(sample_weight, int(rows.shape[0]), rows)
        sample_weight = None if weights is None else as_counts(weights)
    pair = _Pair.of(X, Y, sample_weight)
    if pair.moments.n < 4:
        raise ValueError(f"debiased CKA needs at least 4 rows, got {pair.moments.n:g}")
    if not pair.varies:
        return _undefined("CKA")
    trace = {"x": pair.total("x"), "y": pair.total("y")}
    n, products = pair.moments.n, _norm_products(pair, X, Y, sample_weight, trace)

    def hsic(a: str, b: str) -> float:
        """The unbiased HSIC (Song et al. 2012, equation 5) of centred linear kernels.

        In units of the product of the traces, in which it cannot overflow.
        """
        norm, fourth = _norm(pair.scatter(a, b)), products[a + b]
        square = (norm / trace[a]) * (norm / trace[b])
        return square - fourth + 1 / ((n - 1) * (n - 2)) - 2 / (n - 2) * fourth

    own = hsic("x", "x") * hsic("y", "y")
    if not own > 0:
        return _undefined("debiased CKA")
    return hsic("x", "y") / math.sqrt(own)


def _norm_products(
    pair: _Pair, X: Any, Y: Any, sample_weight: Any, trace: dict[str, float]
) -> dict[str, float]:
    """The sums of |x|^4, |x|^2 |y|^2 and |y|^4 over centred rows, in units of the traces."""
    blocks = check_blocks({"X": X, "Y": Y})
    weights = check_weights(sample_weight, int(blocks["X"].shape[0]), blocks["X"])
    found = dict.fromkeys(("xx", "xy", "yy"), 0.0)
    means = [pair.moments.mean(name) for name in pair.names]
    for _, parts, w in chunks(list(blocks.values()), weights):
        norms = []
        for part, mean, total in zip(parts, means, trace.values(), strict=True):
            part = (float64(dense(part)) - mean) / total**0.5
            norms.append(to_numpy(namespace(part).sum(part**2, axis=1)))
        a, b = norms
        w = np.ones_like(a) if w is None else to_numpy(w)
        found["xx"] += float(np.sum(w * a * a))
        found["xy"] += float(np.sum(w * a * b))
        found["yy"] += float(np.sum(w * b * b))
    return found


def procrustes_distance(
    X: Any, Y: Any = None, *, angular: bool = False, sample_weight: Any = None
) -> float:
    r"""The distance of two representations after the best rotation of one to the other.

    For centred X, Y of unit Frobenius norm,

    .. math:: d^2 = \min_{R'R = I} \|X - Y R\|_F^2 = 2 - 2 \|X'Y\|_*

    with the nuclear norm, the sum of the singular values. The narrower view is padded with
    columns of zeros, which leaves the value as it is.

    Parameters
    ----------
    X, Y, sample_weight
        As in `linear_cka`.
    angular : bool, default=False
        Return the angle ``arccos |X'Y|_*`` in radians, which satisfies the triangle inequality
        (Williams et al. 2021), and not d^2 (Ding et al. 2021).

    Returns
    -------
    float
        In [0, 2], or [0, pi / 2] if `angular`; 0 for representations that are equal up to
        rotation, scale and shift; NaN, with a warning, where a view does not vary.

    Raises
    ------
    TypeError, ValueError
        As in `linear_cka`.

    References
    ----------
    Ding, F., Denain, J.-S. and Steinhardt, J. (2021). Grounding representation similarity with
    statistical testing. NeurIPS.
    Williams, A. H., Kunz, E., Kornblith, S. and Linderman, S. W. (2021). Generalized shape metrics
    on neural representations. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import procrustes_distance
    >>> X = np.random.default_rng(0).standard_normal((50, 3))
    >>> round(abs(procrustes_distance(X, 2 * X[:, ::-1] + 1)), 12)
    0.0
    """
    pair = _Pair.of(X, Y, sample_weight)
    if not pair.varies:
        return _undefined("the Procrustes distance")
    total = math.sqrt(pair.total("x")) * math.sqrt(pair.total("y"))
    _, s, _ = svd(pair.scatter("x", "y"))
    cosine = min(1.0, float(namespace(s).sum(s)) / total)
    return math.acos(cosine) if angular else 2 - 2 * cosine


def svcca(X: Any, Y: Any = None, *, variance: float = 0.99, sample_weight: Any = None) -> float:
    r"""Singular vector CCA: the mean canonical correlation of the leading principal components.

    With :math:`X = U_x S_x V_x'` centred, :math:`U_{x,k_x}` the leading left singular vectors,
    :math:`k_x` the smallest number with :math:`\sum_{i \le k_x} s_i^2 \ge \tau \sum_i s_i^2` for
    :math:`\tau` = `variance`, and likewise for Y,

    .. math:: \mathrm{SVCCA} = \frac1m \sum_{i=1}^m \sigma_i(U_{x,k_x}' U_{y,k_y}), \qquad
        m = \min(k_x, k_y)

    Parameters
    ----------
    X, Y, sample_weight
        As in `linear_cka`.
    variance : float in (0, 1], default=0.99
        The share of each view's variance that its components explain.

    Returns
    -------
    float
        In [0, 1]; NaN, with a warning, where a view does not vary. For unrelated views of k
        components each its order is sqrt(k / n).

    Raises
    ------
    TypeError, ValueError
        As in `linear_cka`, or if `variance` is not in (0, 1].

    References
    ----------
    Raghu, M., Gilmer, J., Yosinski, J. and Sohl-Dickstein, J. (2017). SVCCA: singular vector
    canonical correlation analysis for deep learning dynamics and interpretability. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import svcca
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 5))
    >>> round(svcca(X, X @ rng.standard_normal((5, 5)), variance=1.0), 10)
    1.0
    """
    if isinstance(variance, bool) or not 0 < variance <= 1:
        raise ValueError(f"variance={variance!r} must lie in (0, 1]: the share to keep")
    pair = _Pair.of(X, Y, sample_weight)
    if not pair.varies:
        return _undefined("SVCCA")
    _, r, _ = svd(pair.principal_cross(float(variance)))
    xp = namespace(r)
    return float(xp.mean(xp.clip(r, 0.0, 1.0)))


def pwcca(X: Any, Y: Any = None, *, sample_weight: Any = None) -> float:
    r"""Projection weighted CCA: the mean of the canonical correlations, weighted by X.

    .. math:: \sum_i \alpha_i r_i / \sum_i \alpha_i, \qquad \alpha_i = \sum_j |h_i' x_j|

    with :math:`h_i` the unit canonical variates of X and :math:`x_j` its centred columns: the
    weight of a variate is its total projection on the columns of X. Not symmetric in X and Y.

    Parameters
    ----------
    X, Y, sample_weight
        As in `linear_cka`.

    Returns
    -------
    float
        In [0, 1]; NaN, with a warning, where a view does not vary.

    Raises
    ------
    TypeError, ValueError
        As in `linear_cka`.

    References
    ----------
    Morcos, A. S., Raghu, M. and Bengio, S. (2018). Insights on representational similarity in
    neural networks with canonical correlation. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import pwcca
    >>> X = np.random.default_rng(0).standard_normal((200, 4))
    >>> round(pwcca(X, np.exp(X[:, :2])), 2) < round(pwcca(X, X @ np.triu(np.ones((4, 4)))), 2)
    True
    """
    pair = _Pair.of(X, Y, sample_weight)
    if not pair.varies:
        return _undefined("PWCCA")
    m, (x, y) = pair.moments, pair.names
    white = m.whiten(x)
    U, r, _ = leading_svd(white.cross(m.whiten(y)))
    A = white.weights @ U
    xp = namespace(A)
    alpha = xp.sum(xp.abs(m.projected_scatter(x, x, A)), axis=0)
    return float(xp.sum(alpha * xp.clip(r, 0.0, 1.0)) / xp.sum(alpha))


def mutual_knn_alignment(X: Any, Y: Any, *, k: int = 10, metric: str = "cosine") -> float:
    r"""The mean share of an item's k nearest neighbours that two representations have in common.

    .. math:: \frac1n \sum_i \frac{|N_X(i) \cap N_Y(i)|}{k}

    with :math:`N_X(i)` the k nearest other items of item i in X. Similarities are computed tile
    by tile; an n x n matrix is never stored.

    Parameters
    ----------
    X, Y : array-likes of shapes (n, p), (n, q)
        Row i of both is the same item.
    k : int, default=10
        The number of neighbours, less than n.
    metric : {"cosine", "euclidean", "inner_product"}, default="cosine"
        The similarity. Huh et al. take "cosine", without centring.

    Returns
    -------
    float
        In [0, 1]; its expectation is k / (n - 1) for unrelated representations. Of neighbours
        at equal distance those of earlier rows are taken.

    Raises
    ------
    ValueError
        If k is not between 1 and n - 1, `metric` is unknown, values are not finite, or lengths
        differ.

    References
    ----------
    Huh, M., Cheung, B., Wang, T. and Isola, P. (2024). Position: The Platonic representation
    hypothesis. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.metrics import mutual_knn_alignment
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 8))
    >>> mutual_knn_alignment(X, 2 * X)
    1.0
    >>> mutual_knn_alignment(X, rng.standard_normal((300, 8))) < 0.06
    True
    """
    if metric not in ("cosine", "euclidean", "inner_product"):
        raise ValueError(
            f"metric={metric!r} is unknown: use 'cosine', 'euclidean' or 'inner_product'"
        )
    check_row_labels({"X": X, "Y": Y})
    views = {name: dense(check_matrix(a, name)) for name, a in (("X", X), ("Y", Y))}
    check_lengths(views)
    n = int(views["X"].shape[0])
    k = check_count("k", k, 1, n - 1, "neighbours among the other rows")
    a, b = (_neighbours(view, k, metric) for view in views.values())
    # A neighbour in both lists occurs twice, in adjacent places after sorting.
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    return float(np.count_nonzero(both[:, 1:] == both[:, :-1])) / (n * k)


def _neighbours(X: Array, k: int, metric: str) -> np.ndarray[Any, Any]:
    """The k nearest other rows of every row, shape (n, k), on the host."""
    xp = namespace(X)
    if not xp.isdtype(X.dtype, "real floating") or X.dtype not in (xp.float32, xp.float64):
        X = xp.astype(X, xp.float32 if "16" in str(X.dtype) else xp.float64)
    U = V = X = moderate(X)
    if metric == "cosine":
        norm = xp.sqrt(xp.sum(X * X, axis=1))[:, None]
        U = V = X / xp.where(norm > 0, norm, xp.ones_like(norm))
    elif metric == "euclidean":  # u'v - |v|^2 / 2 orders v as -|u - v|^2
        U = V = X - xp.mean(X, axis=0)
        half = xp.sum(V * V, axis=1)[:, None] / 2
        U = xp.concat([U, xp.ones_like(half)], axis=1)
        V = xp.concat([V, -half], axis=1)
    found = to_numpy(top_k(U, V, k + 1)[0])
    # Move the item itself to the end; among ties it may be missing from the k + 1.
    own = found == np.arange(found.shape[0])[:, None]
    order = np.argsort(own, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1)


def _undefined(what: str) -> float:
    """NaN, with a warning."""
    warn(
        f"{what} is not defined, so it is NaN: a view does not vary over these rows",
    )
    return math.nan


def _norm(a: Array) -> float:
    """The Frobenius norm; squares of second moments are fourth powers, which leave the range."""
    xp = namespace(a)
    largest = float(xp.max(xp.abs(a))) or 1.0
    return largest * float(xp.linalg.vector_norm(a / largest))


@dataclass(frozen=True)
class _Pair:
    """The moments of two blocks, up to an orthogonal map of each.

    Attributes
    ----------
    moments : Moments
    names : tuple of str
        The blocks that stand for "x" and "y".
    rotated : Moments
        `Moments.rotated`: in the root form no wider than the root is high.
    """

    moments: Moments
    names: tuple[str, str]
    rotated: Moments

    @classmethod
    def of(cls, X: Any, Y: Any, sample_weight: Any) -> _Pair:
        """Collect the moments of two matrices, or take those given."""
        if isinstance(X, Moments):
            if Y is not None or sample_weight is not None:
                raise TypeError("Moments hold both views and their weights: pass them alone")
            m = X
        elif Y is None:
            raise TypeError("pass two matrices X and Y, or the Moments of both")
        else:
            blocks = check_blocks({"x": X, "y": Y})
            wide = sum(width_of(a) for a in blocks.values())
            form: Any = "root" if wide > int(blocks["x"].shape[0]) else "scatter"
            m = Moments.from_data(form=form, sample_weight=sample_weight, **blocks)
        names = ("x", "y") if {"x", "y"} <= set(m.names) else m.names
        if len(names) != 2:
            raise ValueError(
                f"these moments have the blocks {', '.join(m.names)}: pass those of two, "
                "moments.select(a, b)"
            )
        return cls(m, (names[0], names[1]), m.rotated())

    def scatter(self, a: str, b: str) -> Array:
        """``X'Y`` of the centred blocks a, b in {"x", "y"}, up to rotations."""
        return self.rotated.scatter(*(self.names["xy".index(key)] for key in (a, b)))

    def total(self, a: str) -> float:
        """The sum of squares of a centred view; 0 for a view that is constant up to rounding."""
        m, name = self.moments, self.names["xy".index(a)]
        xp = namespace(m.mean(name))
        varies = xp.where(m.constant(name), 0.0, m.variance(name, ddof=0))
        return float(xp.sum(varies)) * m.n

    @property
    def varies(self) -> bool:
        """Whether both views vary."""
        return self.total("x") > 0 and self.total("y") > 0

    def principal_cross(self, share: float) -> Array:
        """The cross block between the whitened leading principal components of the views."""
        left, right = (self.rotated.whiten_leading(name, share) for name in self.names)
        return left.cross(right)
