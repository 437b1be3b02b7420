"""Conformal retrieval: the candidates among which the partner is, with a given probability."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, namespace, row_slices, to_numpy
from cmstats.inference.conformal import (
    calibration_needed,
    check_calibration,
    check_confidence,
    conformal_quantile,
    held_out_folds,
    is_fitted_before,
    one_per_group,
    p_values_among,
    within,
)
from cmstats.inference.scores import (
    check_ranks,
    one_each,
    paired,
    rows_at,
    similarity_vectors,
    takes_gaps,
)
from cmstats.kernels.linalg import inner
from cmstats.kernels.ranks import partner_counts
from cmstats.metrics.hubness import HubnessCorrection, corrected
from cmstats.models.dask import refused
from cmstats.models.fitting import CopyFitted

__all__ = ["ConformalRetriever"]

HostArray = np.ndarray[Any, Any]

NUMBERS = 2**22
"""How many scores are held at a time."""


class ConformalRetriever(CopyFitted):
    r"""For each query the set of candidates that holds its partner with a given probability.

    A candidate y is in the set of x if their similarity s is not among the least of those of n
    calibration pairs, which the model has not seen:

    .. math:: C(x) = \{y : p(x, y) > 1 - c\}, \qquad
              p(x, y) = \frac{1 + \#\{i : s(x_i, y_i) \le s(x, y)\}}{n + 1}

    (Vovk, Gammerman and Shafer 2005), c the `confidence`. The similarity is the log-likelihood
    ratio log p(x, y) - log p(x) - log p(y) where the model has it: it knows nothing of the
    gallery, so that one calibration serves galleries of every size, and both directions (the
    columns of the sets are those of the y).

    Parameters
    ----------
    model : two-view model with `embed` or `similarity`
        For example `CCA`. It is cloned; one that is fitted already goes into
        `sklearn.frozen.FrozenEstimator`, and all rows of `fit` then calibrate it.
    confidence : float in (0, 1), default=0.9
        The probability c.
    method : {"split", "cross", "pooled"}, default="split"
        What is promised, see Notes: "split" holds a share of the pairs out; "cross" is a vote of
        the models of `cv` folds; "pooled" takes the held-out scores of all folds for those of one
        model fitted to all pairs.
    scores : {"similarity", "csls", "rank"}, default="similarity"
        "csls" is s corrected for hubs by the training pairs (`metrics.HubnessCorrection`), which
        are a fixed bank, unlike the gallery.
        "rank" is that of the partner among `gallery_size` candidates.
    kind : str, optional
        The similarity, passed to the model's `embed`.
    calibration_size : float in (0, 1), default=0.25
        The share of pairs (of groups) that calibrate, for "split".
    cv : int, splitter or iterable of splits, default=5
        The folds of "cross" and "pooled". An int deals pairs (groups) to folds at random.
    per_group : {"random", "worst"}, default="random"
        Of several pairs of one group (captions of one image) one drawn at random calibrates, and
        the promise is for one of the captions of a new image; or the one that fits worst, and
        the promise is for all captions of a new image together.
    n_neighbors : int, default=10
        For "csls".
    gallery_size : int, optional
        For "rank": the number of candidates, of all galleries that are asked for later.
    queries : {"x", "y"}, default="x"
        For "rank": which view asks.
    max_size : int, optional
        The size above which a set is of no use (`abstain`).
    random_state : int, RandomState or None, default=None
        For the split, the folds, the pair drawn from a group, and the ranks.

    Attributes
    ----------
    models_ : list of fitted models
        One; for "cross" one for each fold.
    calibration_ : list of arrays
        For each model the sorted distances (negative scores, or ranks) of the pairs that calibrate
        it; with labels a dict of these.
    n_calibration_ : int
        The number of calibration pairs (of groups).
    classes_ : array, where there are labels

    See Also
    --------
    check_pairs : Which of the given pairs are wrong.

    Notes
    -----
    **What is promised.** "split": where calibration pairs (groups) and new ones are exchangeable,
    the partner, if it is among the candidates, is in the set with a probability between c and
    c + 1 / (n + 1): on average over calibration pairs and queries, not for every query, whatever
    the model, the law of the data and the size of the gallery are. "cross": about 1 - 2 (1 - c)
    (Vovk 2015; Barber et al. 2021), in most data about c; each model has more pairs to learn
    from. "pooled": nothing, as calibration and queries are scored by different models; the
    final model has seen more, so that coverage is usually above c (.86 for .8 on emoji).
    With labels the promise of "split" holds within each class.

    **Ranks** depend on the gallery: calibrated among 280 candidates and used among 468 they
    covered .72 for .8. So they are calibrated among `gallery_size` candidates, drawn from the
    calibration pairs, and refuse galleries of another size. A uniform number is added to each
    rank, so that sets are not larger than c asks where more than c of all partners are ranked
    first: such sets can be empty. Calibration pairs share candidates, so the promise is about c.

    References
    ----------
    Vovk, V., Gammerman, A. and Shafer, G. (2005). Algorithmic Learning in a Random World.
    Vovk, V. (2015). Cross-conformal predictors. Annals of Mathematics and AI 74.
    Barber, R. F., Candes, E. J., Ramdas, A. and Tibshirani, R. J. (2021). Predictive inference
    with the jackknife+. Annals of Statistics 49.

    Examples
    --------
    >>> from cmstats import CCA, ConformalRetriever, load_emoji
    >>> emoji = load_emoji()
    >>> image, text, train, test = emoji.image, emoji.text, emoji.train, emoji.test
    >>> retriever = ConformalRetriever(CCA(shrinkage=0.4), confidence=0.8, random_state=0)
    >>> sets = retriever.fit(image[train], text[train]).predict_set(image[test], text[test])
    >>> sets.shape
    (468, 468)
    >>> round(float(sets.diagonal().mean()), 1)
    0.8
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [HasMethods("fit")],
        "confidence": [Real],
        "method": [StrOptions({"split", "cross", "pooled"})],
        "scores": [StrOptions({"similarity", "csls", "rank"})],
        "kind": [str, None],
        "calibration_size": [Interval(Real, 0, 1, closed="neither")],
        "cv": ["cv_object"],
        "per_group": [StrOptions({"random", "worst"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "gallery_size": [Interval(Integral, 2, None, closed="left"), None],
        "queries": [StrOptions({"x", "y"})],
        "max_size": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"labels": True, "groups": True}
    _private = frozenset({"_banks"})

    def __init__(
        self,
        model: Any,
        *,
        confidence: float = 0.9,
        method: Literal["split", "cross", "pooled"] = "split",
        scores: Literal["similarity", "csls", "rank"] = "similarity",
        kind: str | None = None,
        calibration_size: float = 0.25,
        cv: Any = 5,
        per_group: Literal["random", "worst"] = "random",
        n_neighbors: int = 10,
        gallery_size: int | None = None,
        queries: Literal["x", "y"] = "x",
        max_size: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.confidence = confidence
        self.method = method
        self.scores = scores
        self.kind = kind
        self.calibration_size = calibration_size
        self.cv = cv
        self.per_group = per_group
        self.n_neighbors = n_neighbors
        self.gallery_size = gallery_size
        self.queries = queries
        self.max_size = max_size
        self.random_state = random_state

    @refused
    def fit(self, X: Any, y: Any, *, groups: Any = None, labels: Any = None) -> Self:
        """Fit the model to some pairs, and calibrate it on the others.

        Parameters
        ----------
        X, y : array-likes of n rows
            Paired rows, as the model takes them.
        groups : array of shape (n,), optional
            Rows of one group stay together and count as one (`per_group`).
        labels : array of shape (n,), optional
            Classes, each calibrated for itself (Mondrian conformal prediction): candidates then
            need labels too. For "split" only.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `confidence` is not between 0 and 1, or there are too few calibration pairs for it
            (of some class): ``confidence / (1 - confidence)`` are needed.
        TypeError
            If the model ranks nothing.
        """
        self._validate_params()
        confidence = check_confidence(self.confidence)
        check_ranks(self.model)
        if self.scores == "rank" and self.gallery_size is None:
            raise ValueError("scores='rank' needs gallery_size, the number of candidates in use")
        if self.method != "split" and (self.scores == "rank" or labels is not None):
            what = "ranks" if self.scores == "rank" else "labels"
            raise ValueError(f"{what} are calibrated with method='split', got {self.method!r}")
        gaps = takes_gaps(self.model)
        X, y, columns = paired(X, y, gaps=gaps, groups=groups, labels=labels)
        if X.shape[0] < 3:
            raise ValueError(f"n_samples={X.shape[0]}: pairs are needed to fit to and to calibrate")
        new = self._unfitted()
        new._fit(X, y, columns["groups"], columns["labels"], confidence)
        return self._become(new)

    def _fit(self, X: Any, y: Any, groups: Any, labels: Any, confidence: float) -> None:
        rng = check_random_state(self.random_state)
        found, pools, models = [], [], []
        for train, test in self._splits(int(X.shape[0]), groups, rng, confidence):
            model, bank = self._fitted(X, y, train)
            U, V = self._scored(model, bank, *rows_at(test, X, y))
            pools.append(self._distances(U, V, rng))
            found.append(test)
            models.append((model, bank))
        if self.method == "pooled" and not is_fitted_before(self.model):
            models = [self._fitted(X, y, np.arange(int(X.shape[0])))]
        self.models_, self._banks = (list(a) for a in zip(*models, strict=True))
        at = np.concatenate(found)
        distances = np.concatenate(pools)
        own = None if groups is None else groups[at]
        kept = one_per_group(distances, own, self.per_group, rng)
        fold = np.repeat(np.arange(len(found)), [len(a) for a in found])
        if len(self.models_) == 1:
            fold = 0 * fold
        self.n_calibration_ = len(kept)
        if labels is None:
            check_calibration(len(kept), confidence)
            of = [distances[kept[fold[kept] == k]] for k in range(len(self.models_))]
            self.calibration_: Any = [_sorted(each, U) for each in of]
            return
        own = labels[at][kept]
        self.classes_ = np.unique(labels)
        groups_of = {c: distances[kept[own == c]] for c in self.classes_.tolist()}
        for c, each in groups_of.items():
            check_calibration(len(each), confidence, f"calibration pairs of the class {c!r}")
        self.calibration_ = [{c: _sorted(each, U) for c, each in groups_of.items()}]

    def _splits(
        self, n: int, groups: Any, rng: Any, confidence: float
    ) -> list[tuple[HostArray, HostArray]]:
        """Training and calibration rows, once or for each fold."""
        if is_fitted_before(self.model):
            return [(np.arange(0), np.arange(n))]
        if self.method != "split":
            return held_out_folds(n, self.cv, groups, rng)
        codes = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
        total = int(codes.max()) + 1
        size = round(total * self.calibration_size)
        if size < (needed := calibration_needed(confidence)) or size > total - 2:
            raise ValueError(
                f"calibration_size={self.calibration_size:g} of {total} "
                f"{'paired rows' if groups is None else 'groups'} leaves {size} to calibrate: at "
                f"least {needed} are needed for confidence={confidence:g}, and 2 to fit to"
            )
        held = np.isin(codes, rng.permutation(total)[:size])
        return [(np.flatnonzero(~held), np.flatnonzero(held))]

    def _fitted(self, X: Any, y: Any, train: HostArray) -> tuple[Any, Any]:
        """A model fitted to these rows, and for "csls" the correction by its embeddings of them."""
        if is_fitted_before(self.model):
            if self.scores == "csls":
                raise ValueError(
                    "scores='csls' needs the training pairs as its bank: pass a model to fit, not "
                    "a frozen one"
                )
            return self.model, None
        rows = rows_at(train, X, y)
        model = clone(self.model).fit(*rows)
        if self.scores != "csls":
            return model, None
        bank = HubnessCorrection("csls", k=self.n_neighbors, random_state=0)
        return model, bank.fit(*similarity_vectors(model, rows[0], rows[1], self.kind))

    def _scored(self, model: Any, bank: Any, X: Any, y: Any) -> tuple[Any, Any]:
        """Vectors whose inner products are the scores (of which "rank" takes the ranks)."""
        return corrected(bank, *similarity_vectors(model, X, y, self.kind))

    def _distances(self, U: Array, V: Array, rng: Any) -> HostArray:
        """The nonconformity of each calibration pair: its negative score, or its rank."""
        if self.scores != "rank":
            xp = namespace(U, V)
            own = -to_numpy(xp.astype(xp.sum(U * V, axis=1), xp.float64))
            if not np.isfinite(own).all():
                raise ValueError("the model's similarities of calibration pairs are not finite")
            # The margin keeps scores equal that differ by rounding; sets may be larger for it.
            return np.asarray(own + np.abs(own) * (1e-9 if U.dtype == xp.float64 else 1e-5))
        return _calibration_ranks(U, V, int(self.gallery_size or 0), self.queries == "y", rng)

    # ------------------------------------------------------------------------ the sets
    @refused
    def p_values(self, X: Any, y: Any, *, labels: Any = None) -> Array:
        """The conformal p-value of every x with every y.

        Parameters
        ----------
        X, y : array-likes of n and m rows
            Queries and candidates.
        labels : array of shape (m,), optional
            The classes of the candidates, where `fit` had labels.

        Returns
        -------
        array of shape (n, m)
            For a pair that is one, at most u with a probability of at most u.
        """
        parts = [namespace(p).astype(p, dtype) for p, dtype in self._runs(X, y, labels)]
        return namespace(*parts).concat(parts, axis=0)

    @refused
    def predict_set(
        self, X: Any, y: Any, *, confidence: float | None = None, labels: Any = None
    ) -> Array:
        """Which candidates are in the set of each query.

        Parameters
        ----------
        X, y, labels
            As in `p_values`.
        confidence : float in (0, 1), optional
            Another one than that of the retriever.

        Returns
        -------
        array of bool, shape (n, m)
            Row i is the set of x_i among the y; column j that of y_j among the x.

        Raises
        ------
        ValueError
            If there are too few calibration pairs for the confidence, the gallery has another
            size than ranks were calibrated for, or labels are missing or unknown.
        """
        level = self._level(confidence)
        parts = list(self._sets(X, y, labels, level))
        return namespace(*parts).concat(parts, axis=0)

    @refused
    def set_sizes(
        self, X: Any, y: Any, *, confidence: float | None = None, labels: Any = None
    ) -> Array:
        """The number of candidates in the set of each x; no matrix is kept.

        Parameters
        ----------
        X, y, confidence, labels
            As in `predict_set`.

        Returns
        -------
        array of int, shape (n,)
        """
        sizes = []
        for inside in self._sets(X, y, labels, self._level(confidence)):
            xp = namespace(inside)
            sizes.append(xp.sum(xp.astype(inside, xp.int64), axis=1))
        return namespace(*sizes).concat(sizes)

    def abstain(
        self, X: Any, y: Any, *, confidence: float | None = None, labels: Any = None
    ) -> Array:
        """Which queries to leave to a human: their set is empty, or larger than `max_size`.

        An empty set says that no candidate looks like a partner at this confidence.

        Parameters
        ----------
        X, y, confidence, labels
            As in `predict_set`.

        Returns
        -------
        array of bool, shape (n,)
        """
        sizes = self.set_sizes(X, y, confidence=confidence, labels=labels)
        empty = sizes == 0
        return empty if self.max_size is None else empty | (sizes > self.max_size)

    def _level(self, confidence: Any) -> float:
        check_is_fitted(self)
        level = check_confidence(self.confidence if confidence is None else confidence)
        for each in self.calibration_ if hasattr(self, "classes_") else ():
            for c, held in each.items():
                check_calibration(len(held), level, f"calibration pairs of the class {c!r}")
        if not hasattr(self, "classes_"):
            check_calibration(self.n_calibration_, level)
        return level

    def _sets(self, X: Any, y: Any, labels: Any, level: float) -> Iterator[Array]:
        """Which candidates are in the sets of the queries, a run of these at a time."""
        if len(self.models_) > 1:
            yield from (within(p, level) for p, _ in self._runs(X, y, labels))
            return
        held = self.calibration_[0]
        for (distances,), _ in self._distance_runs(X, y):
            if not hasattr(self, "classes_"):
                yield distances <= conformal_quantile(held, level)
                continue
            names = _labels_of(labels, int(distances.shape[1]), self.classes_)
            limits = {c: conformal_quantile(held[c], level) for c in np.unique(names).tolist()}
            xp = namespace(distances)
            each = np.array([limits[c] for c in names.tolist()])
            yield distances <= xp.asarray(each, device=device_of(distances))[None, :]

    def _runs(self, X: Any, y: Any, labels: Any) -> Iterator[tuple[Array, Any]]:
        """The p-values of runs of queries with all candidates, and the precision of the scores."""
        check_is_fitted(self)
        for distances, dtype in self._distance_runs(X, y):
            if not hasattr(self, "classes_"):
                yield p_values_among(self.calibration_, distances), dtype
                continue
            (all_of_them,) = distances
            xp = namespace(all_of_them)
            names = _labels_of(labels, int(all_of_them.shape[1]), self.classes_)
            columns, order = [], []
            for c in np.unique(names).tolist():
                order.append(np.flatnonzero(names == c))
                at = xp.asarray(order[-1], device=device_of(all_of_them))
                of_class = xp.take(all_of_them, at, axis=1)
                columns.append(p_values_among([self.calibration_[0][c]], [of_class]))
            back = xp.asarray(np.argsort(np.concatenate(order)), device=device_of(all_of_them))
            yield xp.take(xp.concat(columns, axis=1), back, axis=1), dtype

    def _distance_runs(self, X: Any, y: Any) -> Iterator[tuple[list[Array], Any]]:
        """By model the distances of runs of queries from all candidates, in float64.

        Beside them the precision of the scores.
        """
        vectors = [
            self._scored(m, bank, X, y) for m, bank in zip(self.models_, self._banks, strict=True)
        ]
        n, m = (int(a.shape[0]) for a in vectors[0])
        if self.scores == "rank":
            rng = check_random_state(self.random_state)
            S = inner(*vectors[0])
            S = S if self.queries == "x" else S.mT
            ranks = _random_ranks(S, int(self.gallery_size or 0), rng)
            yield [ranks if self.queries == "x" else ranks.mT], S.dtype
            return
        for rows in row_slices(n, max(1, NUMBERS // max(m, 1))):
            out = []
            for U, V in vectors:
                S = inner(U[rows, :], V)
                out.append(-namespace(S).astype(S, namespace(S).float64))
            yield out, vectors[0][0].dtype

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: two required views."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.input_tags.sparse = True
        return tags

    @property
    def n_features_in_(self) -> int:
        """The number of columns of the first view."""
        return int(self.models_[0].n_features_in_)

    @property
    def feature_names_in_(self) -> Any:
        """The names of the columns of the first view, where fit saw some."""
        return self.models_[0].feature_names_in_


def _sorted(distances: HostArray, like: Array) -> Array:
    """Distances in increasing order, where the rows are."""
    return namespace(like).asarray(np.sort(distances), device=device_of(like))


def _calibration_ranks(U: Array, V: Array, size: int, swapped: bool, rng: Any) -> HostArray:
    """The rank of each partner among `size` candidates, plus a uniform number."""
    n = int(U.shape[0])
    if size > n:
        raise ValueError(
            f"gallery_size={size} needs as many calibration pairs, got {n}: raise "
            "calibration_size, or use scores='similarity', which needs no gallery"
        )
    counts = partner_counts(U, V)[swapped]
    greater, ties = (to_numpy(a).astype(int) for a in (counts.greater, counts.ties))
    greater = greater + rng.randint(0, ties + 1)
    # How many of them are among candidates drawn without replacement.
    drawn = rng.hypergeometric(greater, n - 1 - greater, size - 1)
    return np.asarray(1 + drawn + rng.random_sample(n))


def _random_ranks(S: Array, size: int, rng: Any) -> Array:
    """The rank of each candidate in its row, plus a uniform number."""
    scores = to_numpy(S)
    if scores.shape[1] != size:
        raise ValueError(
            f"ranks were calibrated among gallery_size={size} candidates, got "
            f"{scores.shape[1]}: use scores='similarity', which needs no gallery"
        )
    order = np.lexsort((rng.random_sample(scores.shape), -scores), axis=1)
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, size + 1)[None, :], axis=1)
    # One uniform number a query: its set is then a beginning of its list.
    ranks += rng.random_sample((len(ranks), 1))
    return namespace(S).asarray(ranks, device=device_of(S))


def _labels_of(labels: Any, m: int, known: HostArray) -> HostArray:
    """The labels of m candidates, each of which calibration pairs had."""
    names = one_each(labels, m, "labels")
    if names is None:
        raise ValueError("the sets are calibrated by class: pass the labels of the candidates")
    unknown = np.setdiff1d(names, known)
    if len(unknown):
        raise ValueError(f"no calibration pair has the label {unknown[0].item()!r}")
    return names
