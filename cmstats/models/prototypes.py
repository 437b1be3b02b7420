"""Classification from class names: the likelihood ratio of an item and the text of a class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin, clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, device_of, is_array, is_numpy, namespace, result_dtype, to_numpy
from cmstats.inference.conformal import held_out_folds, is_fitted_before
from cmstats.inference.scores import (
    check_ranks,
    one_each,
    paired,
    rows_at,
    similarity_vectors,
    takes_gaps,
    with_rows,
)
from cmstats.models.dask import refused
from cmstats.models.fitting import CopyFitted

__all__ = ["PrototypeClassifier"]

HostArray = np.ndarray[Any, Any]

STRENGTHS = (math.inf, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
"""The grid of ``prior_strength="auto"``."""
UNKNOWN = 30.0
"""The strength where no class has two labelled items, so that none can be held out."""


class PrototypeClassifier(ClassifierMixin, CopyFitted):
    r"""Classify items of the first view by the features of class names in the second.

    With the log-likelihood ratio LR of an item x and the features y_c of the text of class c

    .. math:: p(c \mid x) \propto \pi_c \exp\Bigl(\frac{\mathrm{LR}(x, y_c)}{T} + b_c\Bigr).

    Were the text of a class a caption like others, T = 1 and b = 0 would be right. Names are no
    captions, so a temperature T is chosen on held-out items, with the prior outside of it, and
    offsets b_c make the mean probability of each class, over the rows of `fit`, its prior. No
    labelled item is needed; a few labelled ones move the prototypes.

    Parameters
    ----------
    model : two-view model with `embed` or `similarity`
        Its similarity is the likelihood ratio where it has it. It is cloned and fitted to the
        pairs; one that is fitted already goes into `sklearn.frozen.FrozenEstimator`.
    class_features : mapping of class to array, or array of shape (n_classes, n_targets)
        The features of each class in the second view: of its name, of a caption, or several rows
        of them (prompts), whose vectors are averaged.
    classes : array of shape (n_classes,), optional
        The names of the classes, where `class_features` is an array; by default 0, 1, ...
    prior : array of shape (n_classes,), optional
        In the order of `classes` (of the mapping). By default the shares of the labelled items
        where there are any (one item is added to each class), and else equal.
    temperature : "auto" or float, default="auto"
        "auto" minimises the log loss of held-out labelled items; where there are none, that of
        held-out pairs (which y of a fold belongs to an x).
    offsets : bool, default=True
        Whether b_c is matched to the prior, where that is given or follows from labels. (Without
        both it would be matched to equal shares, so there are none.)
    prior_strength : "auto" or float, default="auto"
        How many labelled items the text of a class is worth: the prototype of a class with n
        labelled items is ``(k prototype + n mean) / (k + n)``, the posterior mean of a normal
        class mean. inf leaves prototypes where they are. "auto" chooses k, together with the
        temperature, by the log loss of held-out labelled items.
    cv : int, splitter or iterable of splits, default=5
        The folds that hold items out. An int deals rows to folds at random.
    random_state : int, RandomState or None, default=None
        For the folds.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Sorted.
    class_prior_, offsets_ : arrays of shape (n_classes,)
    temperature_, prior_strength_ : float
        The strength is inf where there are no labels.
    prototypes_ : array of shape (n_classes, m)
        In the space of the model's embeddings.
    model_ : the fitted model
    n_labelled_ : int

    See Also
    --------
    SemanticMatching : Where all items are labelled.

    Notes
    -----
    On emoji, classified into 9 groups by their names, accuracy and calibration error were .36 and
    .55 with T = 1, .38 and .07 with T from labels, .39 and .07 with offsets, .38 and .10 with T
    from pairs. With 1, 2, 5, 10 and 50 labelled items a class (means of five splits) it was .40,
    .40, .48, .58 and .68. Names that are words of the captions are worth more: of 17 colours of
    fashion .66 to .67 were right with any number of labelled items, where a `prior_strength` of 3
    gave .51 to .57 (three splits): "auto" chose inf or 100 there, and 1 to 10 on emoji.

    In canonical coordinates u of x and v of y, with correlations r, a class is a normal with mean
    r v_c and variances 1 - r^2, so that LR is the log-density of linear discriminant analysis,
    and labelled items estimate the same mean.

    References
    ----------
    Guo, C., Pleiss, G., Sun, Y. and Weinberger, K. Q. (2017). On calibration of modern neural
    networks. ICML.
    Saerens, M., Latinne, P. and Decaestecker, C. (2002). Adjusting the outputs of a classifier to
    new a priori probabilities. Neural Computation 14.
    Snell, J., Swersky, K. and Zemel, R. (2017). Prototypical networks for few-shot learning.
    NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats import ConditionalGaussian, PrototypeClassifier, load_emoji
    >>> emoji = load_emoji()
    >>> names = np.unique(emoji.group).tolist()
    >>> features = dict(zip(names, emoji.encode_text(names)))
    >>> model = PrototypeClassifier(
    ...     ConditionalGaussian(shrinkage=0.4), features, cv=2, random_state=0
    ... )
    >>> train, test = emoji.train, emoji.test
    >>> model = model.fit(emoji.image[train], emoji.text[train])
    >>> round(model.score(emoji.image[test], emoji.group[test]), 1)
    0.4
    """

    __metadata_request__fit: ClassVar[dict[str, bool]] = {"labels": True}
    __metadata_request__score: ClassVar[dict[str, bool]] = {"labels": True}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [HasMethods("fit")],
        "temperature": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "offsets": ["boolean"],
        "prior_strength": [Interval(Real, 0, None, closed="both"), StrOptions({"auto"})],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }
    _private = frozenset({"_features", "_codes"})

    def __init__(
        self,
        model: Any,
        class_features: Any,
        *,
        classes: Any = None,
        prior: Any = None,
        temperature: Any = "auto",
        offsets: bool = True,
        prior_strength: Any = "auto",
        cv: Any = 5,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.class_features = class_features
        self.classes = classes
        self.prior = prior
        self.temperature = temperature
        self.offsets = offsets
        self.prior_strength = prior_strength
        self.cv = cv
        self.random_state = random_state

    @refused
    def fit(self, X: Any, y: Any = None, labels: Any = None) -> Self:
        """Fit the model to pairs, and temperature, offsets and prototypes to held-out items.

        Parameters
        ----------
        X : array-like of n rows
            The first view.
        y : array-like of n rows, optional
            The second view; row i is the partner of row i of `X`. It may be missing where the model
            is frozen and there are labels or a temperature.
        labels : array of shape (n,), optional
            The class of each item; None or NaN for one that is not labelled.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a label is none of the classes, lengths or widths do not fit, or there is nothing
            to choose the temperature by.
        TypeError
            If the model ranks nothing.
        """
        self._validate_params()
        check_ranks(self.model)
        gaps = takes_gaps(self.model)
        if y is None and not is_fitted_before(self.model):
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: it is "
                "the second view, to which the model is fitted (a fitted model goes into "
                "FrozenEstimator)"
            )
        if y is None:
            X = with_rows(X, "X", gaps=gaps)
        else:
            X, y, _ = paired(X, y, gaps=gaps)
        new = self._unfitted()
        new._fit(X, y, labels)
        return self._become(new)

    def _fit(self, X: Any, y: Any, labels: Any) -> None:
        n = int(X.shape[0])
        names, self._features, self._codes = _class_rows(self.class_features, self.classes)
        self.classes_ = names
        codes = _label_codes(labels, n, names)
        labelled = codes >= 0
        self.n_labelled_ = int(labelled.sum())
        self.class_prior_ = self._prior(codes)
        rng = check_random_state(self.random_state)
        held = []
        losses = []  # of pairs, by temperature
        for train, test, model in self._folds(X, y, codes, rng):
            held.append(_HeldOut(test, *self._embedded(model, *rows_at(test, X))))
            known = train[labelled[train]]
            if len(known):
                seen, _ = self._embedded(model, *rows_at(known, X))
                held[-1].labels = _Labelled.of(model, seen, codes[known], len(names))
            if not self.n_labelled_ and y is not None:
                S = similarity_vectors(model, *rows_at(test, X, y))
                losses.append(to_numpy(S[0]).astype(np.float64) @ to_numpy(S[1]).T)
        log_prior = np.log(self.class_prior_)
        self.temperature_, self.prior_strength_ = self._chosen(held, log_prior, codes, losses)
        self.offsets_ = np.zeros(len(names))
        if self.offsets and (self.prior is not None or self.n_labelled_):
            logits = np.concatenate([each.logits(self.prior_strength_) for each in held])
            self.offsets_ = matched_offsets(
                logits / self.temperature_ + log_prior, self.class_prior_
            )
        frozen = is_fitted_before(self.model)
        self.model_ = self.model if frozen else clone(self.model).fit(X, y)
        _, self.prototypes_ = self._embedded(self.model_, *rows_at(np.arange(1), X))
        if self.n_labelled_:
            at = np.flatnonzero(labelled)
            seen, _ = self._embedded(self.model_, *rows_at(at, X))
            moved = _Labelled.of(self.model_, seen, codes[at], len(names))
            self.prototypes_ = moved.moved(self.prototypes_, self.prior_strength_)

    def _folds(
        self, X: Any, y: Any, codes: HostArray, rng: Any
    ) -> Iterator[tuple[HostArray, HostArray, Any]]:
        """Training rows, held-out rows and the model of each fold."""
        n = int(X.shape[0])
        if not is_fitted_before(self.model):
            for train, test in held_out_folds(n, self.cv, None, rng):
                yield train, test, clone(self.model).fit(*rows_at(train, X, y))
            return
        # Only the labelled rows have to be held out: they are dealt first.
        order, folds = np.argsort(codes < 0, kind="stable"), max(min(5, self.n_labelled_), 1)
        for k in range(folds):
            test = np.arange(n) % folds == k
            yield order[~test], order[test], self.model

    def _embedded(self, model: Any, X: Any) -> tuple[HostArray, HostArray]:
        """Vectors of items and of classes on the host."""
        found = similarity_vectors(model, X, self._class_rows_like(X))
        U, V = (np.asarray(to_numpy(a), dtype=np.float64) for a in found)
        P = np.zeros((len(self.classes_), V.shape[1]))
        np.add.at(P, self._codes, V)
        return U, P / np.bincount(self._codes)[:, None]

    def _prior(self, codes: HostArray) -> HostArray:
        """The prior of the classes, in their sorted order."""
        count = len(self.classes_)
        if self.prior is None:
            counts = np.bincount(codes[codes >= 0], minlength=count) + 1.0
            return np.asarray(counts / counts.sum())
        prior = np.asarray(to_numpy(self.prior), dtype=np.float64)
        if prior.shape != (count,) or not (prior > 0).all() or not np.isfinite(prior).all():
            raise ValueError(f"prior must hold one positive number for each of {count} classes")
        given = list(self.class_features) if self.classes is None else list(self.classes)
        if not isinstance(self.class_features, Mapping) and self.classes is None:
            given = list(range(count))
        prior = prior[[given.index(name) for name in self.classes_.tolist()]]
        return np.asarray(prior / prior.sum())

    def _chosen(
        self,
        held: list[_HeldOut],
        log_prior: HostArray,
        codes: HostArray,
        pairs: list[HostArray],
    ) -> tuple[float, float]:
        """The temperature and the strength of the text of a class."""
        strengths: tuple[float, ...] = (math.inf,)
        if self.n_labelled_:
            given = self.prior_strength
            strengths = STRENGTHS if given == "auto" else (float(given),)
        given = None if self.temperature == "auto" else float(self.temperature)
        if given is not None and len(strengths) == 1:
            return given, strengths[0]
        if not self.n_labelled_ and not pairs:
            raise ValueError(
                "there is nothing to choose the temperature by: give y or some labels, or set "
                "temperature to a number"
            )
        if not self.n_labelled_:
            return _best_temperature(pairs, [np.arange(len(S)) for S in pairs], 0.0)[1], math.inf
        truth = np.concatenate([codes[each.rows] for each in held])
        # An item says how far labels move its class where others of the class are labelled.
        tells = np.concatenate([each.has_label(codes) for each in held])
        k = strengths[0] if len(strengths) == 1 else UNKNOWN
        if len(strengths) > 1 and tells.any():
            losses = []
            for one in strengths:
                logits = np.concatenate([each.logits(one) for each in held])[tells]
                losses.append(_best_temperature([logits], [truth[tells]], log_prior, given)[0])
            k = strengths[int(np.argmin(losses))]
        logits = np.concatenate([each.logits(k) for each in held])[truth >= 0]
        return _best_temperature([logits], [truth[truth >= 0]], log_prior, given)[1], k

    # --------------------------------------------------------------------------- outputs
    @refused
    def predict_proba(self, X: Any) -> Array:
        """The probability of each class.

        Parameters
        ----------
        X : array-like of n rows
            The first view.

        Returns
        -------
        array of shape (n, n_classes)
        """
        U = self._items(X)
        xp = namespace(U)
        logits = np.asarray(to_numpy(U), dtype=np.float64) @ self.prototypes_.T
        p = softmax(logits / self.temperature_ + np.log(self.class_prior_) + self.offsets_, axis=1)
        return xp.astype(xp.asarray(p, device=device_of(U)), U.dtype)

    @refused
    def predict(self, X: Any) -> HostArray:
        """The most probable class.

        Parameters
        ----------
        X : array-like of n rows
            The first view.

        Returns
        -------
        array of shape (n,)
        """
        return np.asarray(self.classes_[to_numpy(self.predict_proba(X)).argmax(axis=1)])

    def score(self, X: Any, y: Any = None, labels: Any = None) -> float:
        """The accuracy.

        Parameters
        ----------
        X : array-like of n rows
            The first view.
        y : array of shape (n,)
            The classes, as in scikit-learn; unused where `labels` is given.
        labels : array of shape (n,), optional
            The classes.

        Returns
        -------
        float
        """
        truth = y if labels is None else labels
        if truth is None:
            raise ValueError("score compares predicted classes with true ones: give labels")
        predicted = self.predict(X)
        return float(np.mean(predicted == one_each(truth, len(predicted), "labels")))

    def _class_rows_like(self, X: Any) -> Any:
        """The features of the classes where the rows are."""
        if not is_array(X) or is_numpy(namespace(X)):
            return self._features
        xp = namespace(X)
        return xp.asarray(self._features, dtype=result_dtype(X), device=device_of(X))

    def _items(self, X: Any) -> Any:
        check_is_fitted(self)
        X = with_rows(X, "X", gaps=takes_gaps(self.model))
        return similarity_vectors(self.model_, X, self._class_rows_like(X))[0]

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: two required views."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        return tags

    @property
    def n_features_in_(self) -> int:
        """The number of columns of the first view."""
        return int(self.model_.n_features_in_)

    @property
    def feature_names_in_(self) -> Any:
        """The names of the columns of the first view, where fit saw some."""
        return self.model_.feature_names_in_


@dataclass
class _Labelled:
    """Labelled items in the space of a model: the sum of each class, and how many there are."""

    sums: HostArray
    counts: HostArray
    correlations: HostArray | None

    @classmethod
    def of(cls, model: Any, U: HostArray, codes: HostArray, classes: int) -> Self:
        sums = np.zeros((classes, U.shape[1]))
        np.add.at(sums, codes, U)
        counts = np.bincount(codes, minlength=classes)[:, None].astype(np.float64)
        return cls(sums, counts, _correlations(model, U.shape[1]))

    def moved(self, P: HostArray, k: float) -> HostArray:
        """The prototypes P, worth k items each, moved towards the means of labelled items."""
        if math.isinf(k):
            return P
        n, r = self.counts, self.correlations
        means = self.sums / np.maximum(n, 1)
        share = np.divide(n, k + n, out=np.zeros_like(n), where=k + n > 0)
        if r is None:
            return np.asarray((1 - share) * P + share * means)
        # Of u sqrt(r / (1 - r^2)) the mean r v is v sqrt(r / (1 - r^2)) times r.
        out, m = P.copy(), len(r)
        out[:, :m] = (1 - share) * P[:, :m] + share * means[:, :m] / r
        out[:, -1] += 0.5 * ((P[:, :m] ** 2 - out[:, :m] ** 2) @ r)
        return np.asarray(out)


@dataclass
class _HeldOut:
    """The rows of a fold, their vectors, and what their model knows of the classes."""

    rows: HostArray
    items: HostArray
    prototypes: HostArray
    labels: _Labelled | None = None

    def has_label(self, codes: HostArray) -> HostArray:
        """Which rows are labelled and of a class that has labelled items outside of the fold."""
        if self.labels is None:
            return np.zeros(len(self.rows), dtype=bool)
        at = codes[self.rows]
        return np.asarray((at >= 0) & (self.labels.counts[at, 0] > 0))

    def logits(self, k: float) -> HostArray:
        P = self.prototypes
        return self.items @ (P if self.labels is None else self.labels.moved(P, k)).T


def _best_temperature(
    logits: list[HostArray], truth: list[HostArray], log_prior: Any, given: float | None = None
) -> tuple[float, float]:
    """The least log loss, a mean over sets of rows, and its temperature."""

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        each = [
            -log_softmax(S / t + log_prior, axis=1)[np.arange(len(S)), at].mean()
            for S, at in zip(logits, truth, strict=True)
        ]
        return float(np.mean(each))

    if given is not None:
        return loss(math.log(given)), given
    scale = math.log(float(np.std(np.concatenate([S.ravel() for S in logits]))) or 1.0)
    found = minimize_scalar(loss, bounds=(scale - 7.0, scale + 7.0), method="bounded")
    return float(found.fun), math.exp(found.x)


def matched_offsets(logits: HostArray, prior: HostArray) -> HostArray:
    """Offsets by which the mean probability of each class is its prior.

    The fixed point of ``b + log prior - log mean softmax(logits + b)``, which maximises a concave
    function; 200 steps at most.
    """
    b = np.zeros(len(prior))
    for _ in range(200):
        step = np.log(prior) - np.log(np.maximum(softmax(logits + b, axis=1).mean(axis=0), 1e-300))
        b += step
        if np.abs(step).max() < 1e-6:
            break
    return np.asarray(b - b.mean())


def _correlations(model: Any, width: int) -> HostArray | None:
    """The correlations of the pairs behind vectors of the likelihood ratio; None of others."""
    inner = getattr(model, "estimator", model) if is_fitted_before(model) else model
    r = getattr(inner, "singular_values_", None)
    if r is None or int(r.shape[0]) + 2 != width:
        return None
    return np.asarray(np.clip(np.asarray(to_numpy(r), dtype=np.float64), 1e-9, 1 - 1e-9))


def _class_rows(features: Any, classes: Any) -> tuple[HostArray, Any, HostArray]:
    """The sorted classes, the rows of features of all of them, and the class of each row."""
    if isinstance(features, Mapping):
        if classes is not None:
            raise ValueError("class_features names the classes: leave classes out")
        names = list(features)
        each = [np.atleast_2d(np.asarray(to_numpy(features[name]))) for name in names]
    else:
        rows = features if hasattr(features, "shape") else np.asarray(features)
        if len(rows.shape) != 2:
            raise ValueError(
                f"class_features has shape {tuple(rows.shape)}, expected one row a class"
            )
        names = list(range(int(rows.shape[0]))) if classes is None else list(np.asarray(classes))
        if len(names) != int(rows.shape[0]):
            raise ValueError(
                f"{len(names)} classes for {int(rows.shape[0])} rows of class_features"
            )
        each = [np.asarray(to_numpy(rows))[i : i + 1] for i in range(len(names))]
    if len(names) < 2:
        raise ValueError("at least two classes are needed to tell items apart")
    if len({a.shape[1] for a in each}) > 1:
        raise ValueError("the classes have features of different widths")
    known = np.asarray(names)
    if len(np.unique(known)) < len(known):
        raise ValueError("the names of the classes repeat")
    order = np.argsort(known, kind="stable")
    counts = [len(each[i]) for i in order]
    rows = np.concatenate([each[i] for i in order])
    if not np.isfinite(rows).all():
        raise ValueError("class_features has NaN or infinite values")
    return known[order], rows, np.repeat(np.arange(len(known)), counts)


def _label_codes(labels: Any, n: int, classes: HostArray) -> HostArray:
    """The number of the class of each row; -1 where it is not labelled."""
    if labels is None:
        return np.full(n, -1)
    values = np.asarray(labels, dtype=object) if isinstance(labels, (list, tuple)) else labels
    found = np.asarray(one_each(values, n, "labels"))
    missing = pd.isna(found)
    codes = pd.Index(classes).get_indexer(pd.Index(found))
    wrong = (codes < 0) & ~missing
    if wrong.any():
        first = found[wrong][:1].tolist()[0]
        raise ValueError(f"label {first!r} is none of the classes")
    return np.asarray(np.where(missing, -1, codes))
