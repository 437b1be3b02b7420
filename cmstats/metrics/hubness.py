"""Correction of hubness: candidates that are near to every query are marked down."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import (
    Array,
    check_matrix,
    dense,
    device_of,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    take_rows,
    to_numpy,
    warn,
)
from cmstats.kernels.linalg import inner
from cmstats.rows.pairs import check_row_labels

__all__ = ["HubnessCorrection", "corrected", "mean_of_largest"]

HostArray = np.ndarray[Any, Any]

BLOCK_SCORES = 2**22
"""Scores held at once."""

SPREADS = 0.5
"""The default temperature in standard deviations of the bank's scores. Of .1 to .8 it did best on
emoji, fashion and CLIP pairs under the weighted cosine and the likelihood ratio together."""


class HubnessCorrection(BaseEstimator):
    r"""Scores corrected for hubs, as plain inner products.

    In a space of many dimensions some items are among the nearest of very many others. What an
    item scores with a bank of known items tells how much of a hub it is, and is taken off:

    .. math:: \tilde s_{ij} = a \langle u_i, v_j \rangle - r_y(u_i) - r_x(v_j)

    where :math:`r_y(u)` is of the scores of u with the y of the bank, and :math:`r_x(v)` of those
    of v with its x. The methods differ in r:

    - ``"csls"`` (Conneau et al. 2018), with a = 2: the mean of the `k` largest scores,

      .. math:: r_y(u) = \frac1k \sum_{j \in N_k(u)} \langle u, v_j \rangle

    - ``"inverted_softmax"`` (Smith et al. 2017), its logarithm, with a = 1 and a temperature T:

      .. math:: r_y(u) = T \log \frac1m \sum_j e^{\langle u, v_j \rangle / T}

    - ``"sinkhorn"`` (dual bank Sinkhorn normalisation): the same with the potentials of optimal
      transport between both sides of the bank added to the scores in the sum, so that hubs
      of the bank count less.

    The correction is a transform of embeddings to vectors with two more columns,
    :math:`(a u, -r_y(u), 1)` and :math:`(v, 1, -r_x(v))`. Their plain inner product is the
    corrected score in both directions, so that `search` and any index for inner products (FAISS,
    a vector database) serve them as they are, without normalising again.

    Parameters
    ----------
    method : {"csls", "inverted_softmax", "sinkhorn"}, default="csls"
        How much of a hub an item is.
    k : int, default=10
        Nearest items of the bank, for "csls".
    temperature : float, optional
        T of the other two, in the units of the scores. By default half the standard deviation
        of the scores of unpaired items in the bank.
    size : int, default=2000
        Pairs kept as the bank: a uniform sample of all that were seen.
    random_state : int, RandomState or None
        Draws the sample where there are more pairs.

    Attributes
    ----------
    x_bank_, y_bank_ : arrays of shape (m, d)
        The embeddings kept, in pairs.
    temperature_ : float
        As used by "inverted_softmax" and "sinkhorn".
    x_potentials_, y_potentials_ : arrays of shape (m,)
        For "sinkhorn".
    n_seen_ : int
        The pairs that the bank is a sample of.

    Notes
    -----
    An item that lies in the bank itself (to rounding) is compared with the other pairs of the
    bank only: the score with its own partner would mark it down for being right.

    References
    ----------
    Conneau, A., Lample, G., Ranzato, M., Denoyer, L. and Jégou, H. (2018). Word translation
    without parallel data. ICLR.
    Smith, S., Turban, D., Hamblin, S. and Hammerla, N. (2017). Offline bilingual word vectors,
    orthogonal transformations and the inverted softmax. ICLR.
    Bogolin, S., Croitoru, I., Jin, H., Liu, Y. and Albanie, S. (2022). Cross modal retrieval with
    querybank normalisation. CVPR.
    Dual bank Sinkhorn normalisation (2025). arXiv:2508.02538.

    Examples
    --------
    >>> from cmstats import CCA, load_emoji, retrieval_report
    >>> from cmstats.metrics import HubnessCorrection
    >>> image, text = load_emoji(return_X_y=True)
    >>> cca = CCA(shrinkage=0.8).fit(image[::2], text[::2])
    >>> hubs = HubnessCorrection().fit(*cca.embed(image[::2], text[::2]))
    >>> u, v = cca.embed(image[1::2], text[1::2])
    >>> before, after = (retrieval_report(u, v, hubness=h)["MRR"]["mean"] for h in (None, hubs))
    >>> bool(after > before)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "method": [StrOptions({"csls", "inverted_softmax", "sinkhorn"})],
        "k": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "size": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        method: Literal["csls", "inverted_softmax", "sinkhorn"] = "csls",
        *,
        k: int = 10,
        temperature: float | None = None,
        size: int = 2000,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.k = k
        self.temperature = temperature
        self.size = size
        self.random_state = random_state

    def fit(self, U: Array, V: Array) -> Self:
        """Keep the bank.

        Parameters
        ----------
        U, V : arrays of shape (n, d)
            Embeddings of training pairs: row i of `U` belongs with row i of `V`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If shapes differ, values are not finite, there is only one pair, or a parameter is
            out of range.
        """
        self._validate_params()
        U, V = _pairs(U, V)
        n = int(U.shape[0])
        return self._keep(U, V, check_random_state(self.random_state).random_sample(n), n)

    def partial_fit(self, U: Array, V: Array) -> Self:
        """Add pairs: the bank stays a uniform sample of all pairs seen.

        Parameters
        ----------
        U, V
            As in `fit`.

        Returns
        -------
        self
        """
        if not hasattr(self, "x_bank_"):
            return self.fit(U, V)
        U, V = _pairs(U, V, minimum=1)
        xp = namespace(U, self.x_bank_)
        if U.shape[1] != self.x_bank_.shape[1]:
            raise ValueError(
                f"the embeddings have {U.shape[1]} columns, but those of the bank have "
                f"{self.x_bank_.shape[1]}"
            )
        # Pairs have random keys, of which the smallest are kept: seeded by what was seen before.
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        n = int(U.shape[0])
        keys = np.random.default_rng([seed, self.n_seen_]).random(n)
        return self._keep(
            xp.concat([self.x_bank_, xp.astype(U, self.x_bank_.dtype)]),
            xp.concat([self.y_bank_, xp.astype(V, self.y_bank_.dtype)]),
            np.concatenate([self.keys_, keys]),
            self.n_seen_ + n,
        )

    def _keep(self, U: Array, V: Array, keys: HostArray, seen: int) -> Self:
        """Keep the pairs of the smallest keys, in their order."""
        at = np.sort(np.argsort(keys, kind="stable")[: self.size])
        self.x_bank_, self.y_bank_ = take_rows(U, at), take_rows(V, at)
        self.keys_, self.n_seen_ = keys[at], int(seen)
        if self.method != "csls":
            scores = _without_diagonal(inner(self.x_bank_, self.y_bank_))
            self.temperature_ = self._temperature(scores)
            if self.method == "sinkhorn":
                self.x_potentials_, self.y_potentials_ = _potentials(scores, self.temperature_)
        return self

    def _temperature(self, scores: Array) -> float:
        if self.temperature is not None:
            return float(self.temperature)
        xp = namespace(scores)
        finite = scores > -xp.inf
        values = xp.where(finite, scores, xp.zeros_like(scores))
        count = scores.shape[0] * (scores.shape[0] - 1)
        mean = float(xp.sum(values)) / count
        centred = xp.where(finite, scores - mean, xp.zeros_like(scores))
        return float(SPREADS * (float(xp.sum(centred**2)) / count) ** 0.5) or 1.0

    def transform(self, U: Array | None = None, V: Array | None = None) -> Any:
        """Vectors whose plain inner product is the corrected score.

        Parameters
        ----------
        U : array of shape (n, d), optional
            Embeddings of the first view.
        V : array of shape (m, d), optional
            Embeddings of the second view.

        Returns
        -------
        array of shape (n, d + 2), or a pair of these
            Of `U`, of `V`, or (of `U`, of `V`), for what was given.

        Raises
        ------
        ValueError
            If neither is given, values are not finite, or widths are not those of the bank.
        """
        check_is_fitted(self, "x_bank_")
        given = {view: a for view, a in (("x", U), ("y", V)) if a is not None}
        if not given:
            raise ValueError("give U, V or both")
        found = [self._vectors(a, view) for view, a in given.items()]
        return found[0] if len(found) == 1 else tuple(found)

    def _vectors(self, a: Any, view: str) -> Array:
        a = _checked(a, "U" if view == "x" else "V")
        own, other = (getattr(self, f"{v}_bank_") for v in ("xy" if view == "x" else "yx"))
        xp = namespace(a, own)
        if a.shape[1] != own.shape[1]:
            raise ValueError(
                f"the embeddings have {a.shape[1]} columns, but those of the bank have "
                f"{own.shape[1]}"
            )
        potentials = None
        if self.method == "sinkhorn":
            potentials = self.y_potentials_ if view == "x" else self.x_potentials_
        rows, others = _coincident(to_numpy(a), to_numpy(own))
        parts = []
        for block in row_slices(a.shape[0], max(1, BLOCK_SCORES // own.shape[0])):
            scores = take_rows(a, block) @ xp.astype(other, a.dtype).mT
            inside = (rows >= block.start) & (rows < block.stop)
            scores = _left_out(scores, rows[inside] - block.start, others[inside])
            parts.append(self._hubness(scores, potentials)[:, None])
        term = -xp.concat(parts, axis=0) if parts else a[:, :1]
        one = xp.ones_like(term)
        gain = 2 if self.method == "csls" else 1
        columns = [gain * a, term, one] if view == "x" else [a, one, term]
        return xp.concat(columns, axis=1)

    def _hubness(self, scores: Array, potentials: Array | None) -> Array:
        """r of each row of scores with the bank; -inf is a pair that does not count."""
        if self.method == "csls":
            return mean_of_largest(scores, self.k)
        return _soft_maximum(scores, potentials, self.temperature_)


def corrected(hubness: Any, U: Any, V: Any) -> tuple[Any, Any]:
    """Both embeddings through a fitted `HubnessCorrection`; as they are where it is None."""
    if hubness is None:
        return U, V
    if not hasattr(hubness, "transform"):
        raise TypeError(
            f"hubness={hubness!r} must be a fitted HubnessCorrection, which holds a bank of "
            "training pairs: HubnessCorrection().fit(*model.embed(X_train, y_train))"
        )
    if V is None:
        raise ValueError("hubness is corrected on embeddings: pass U and V, not a score matrix")
    return hubness.transform(U, V)  # type: ignore[no-any-return]


def _checked(a: Any, name: str) -> Array:
    """Embeddings in memory, in the precision of results."""
    a = check_matrix(dense(a), name)
    xp, dtype = namespace(a), result_dtype(a)
    # The inner products of values beyond this leave the range of single precision.
    largest = float(xp.max(xp.abs(xp.astype(a, dtype, copy=False))))
    if largest and not 1e-75 < largest < 1e75:
        raise ValueError(
            f"the largest value of {name} is {largest:.1g}, and inner products leave the range of "
            "double precision: rescale the embeddings"
        )
    return xp.astype(a, dtype if largest == 0 or 1e-15 < largest < 1e15 else xp.float64, copy=False)


def _pairs(U: Any, V: Any, minimum: int = 2) -> tuple[Array, Array]:
    check_row_labels({"U": U, "V": V})
    U, V = _checked(U, "U"), _checked(V, "V")
    namespace(U, V)
    if tuple(U.shape) != tuple(V.shape):
        raise ValueError(
            f"the bank is of pairs: U and V must have one shape, got {tuple(U.shape)} and "
            f"{tuple(V.shape)}"
        )
    if U.shape[0] < minimum:
        raise ValueError(f"the bank has {U.shape[0]} pair: at least {minimum} are needed")
    return U, V


def _coincident(a: HostArray, bank: HostArray) -> tuple[HostArray, HostArray]:
    """The pairs (row, row of the bank) of equal vectors, to rounding.

    Equal vectors have equal projections on any direction: these are sorted, and only their
    neighbours are compared in full.
    """
    scale = float(np.abs(bank).max(initial=0.0)) or 1.0
    eps = 16 * float(np.finfo(np.result_type(a.dtype, bank.dtype)).eps)
    tolerance = eps * scale * bank.shape[1] ** 0.5
    direction = np.random.default_rng(0).normal(size=bank.shape[1])
    direction /= np.linalg.norm(direction)
    keys, known = a @ direction, bank @ direction
    order = np.argsort(known)
    first = np.searchsorted(known[order], keys - tolerance, side="left")
    count = np.searchsorted(known[order], keys + tolerance, side="right") - first
    rows = np.repeat(np.arange(len(a)), count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    others = order[np.repeat(first, count) + within]
    same = [
        np.abs(a[rows[part]] - bank[others[part]]).max(axis=1) <= tolerance
        for part in row_slices(len(rows), max(1, BLOCK_SCORES // bank.shape[1]))
    ]
    kept = np.concatenate(same) if same else np.zeros(0, bool)
    return rows[kept], others[kept]


def _left_out(scores: Array, rows: HostArray, columns: HostArray) -> Array:
    """Scores with -inf at these places, but for rows of which nothing would remain."""
    if not len(rows):
        return scores
    xp = namespace(scores)
    mask = np.zeros(tuple(scores.shape), bool)
    mask[rows, columns] = True
    mask[mask.all(axis=1)] = False
    return xp.where(xp.asarray(mask, device=device_of(scores)), -xp.inf, scores)


def _without_diagonal(scores: Array) -> Array:
    """The scores of a bank without those of its pairs."""
    at = np.arange(scores.shape[0])
    return _left_out(scores, at, at)


def mean_of_largest(scores: Array, k: int) -> Array:
    """The mean of the k largest finite scores of each row."""
    xp, m = namespace(scores), int(scores.shape[1])
    k = min(k, m)
    largest = (
        np.partition(scores, m - k, axis=1)[:, m - k :]
        if is_numpy(xp)
        else xp.sort(scores, axis=1)[:, m - k :]
    )
    finite = largest > -xp.inf
    total = xp.sum(xp.where(finite, largest, xp.zeros_like(largest)), axis=1)
    return total / xp.sum(xp.astype(finite, scores.dtype), axis=1)


def _soft_maximum(scores: Array, potentials: Array | None, temperature: float) -> Array:
    """``T log mean exp((s + g) / T)`` over the finite scores of each row."""
    xp = namespace(scores)
    count = xp.sum(xp.astype(scores > -xp.inf, scores.dtype), axis=1)
    if potentials is not None:
        scores = scores + xp.astype(potentials, scores.dtype)[None, :]
    largest = xp.max(scores, axis=1)
    total = xp.sum(xp.exp((scores - largest[:, None]) / temperature), axis=1)
    return largest + temperature * xp.log(total / count)


def _potentials(scores: Array, temperature: float) -> tuple[Array, Array]:
    """The potentials of entropic optimal transport between both sides of a bank.

    With them every row and every column of ``exp((s + f + g) / T)`` has the mean 1. Sinkhorn's
    iteration in the logarithm, to a hundredth of the temperature.
    """
    xp = namespace(scores)
    f, g = xp.zeros_like(scores[:, 0]), xp.zeros_like(scores[0, :])
    for _ in range(100):
        f = -_soft_maximum(scores, g, temperature)
        before, g = g, -_soft_maximum(scores.mT, f, temperature)
        if float(xp.max(xp.abs(g - before))) <= 0.01 * temperature:
            return f, g
    warn(
        "the Sinkhorn potentials of the bank did not converge in 100 iterations: raise temperature",
        ConvergenceWarning,
    )
    return f, g
