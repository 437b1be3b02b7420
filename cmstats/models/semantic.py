"""Semantic matching: class posteriors as the common language of two views."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import (
    Array,
    dense,
    device_of,
    is_lazy,
    is_numpy,
    namespace,
    result_dtype,
    row_slices,
    take_rows,
    to_numpy,
)
from cmstats.metrics.retrieval import mean_average_precision
from cmstats.models.base import RowsModel
from cmstats.models.dask import by_rows, refused, row_wise
from cmstats.models.latent import all_pairs, unit_rows
from cmstats.models.posteriors import (
    check_classifier,
    check_labels,
    fit_both,
    logistic_regressions,
    posteriors,
    retrieval_scores,
    stratified_splits,
)
from cmstats.moments.folds import best_index
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import take_in_memory
from cmstats.rows.splits import check_groups

__all__ = ["SemanticMatching"]

HostArray = np.ndarray[Any, Any]

ROWS = 16384
"""How many rows are embedded at a time: a kernel map of a view can be far wider than the view."""


class SemanticMatching(RowsModel):
    r"""Match items of two views by the classes that each view tells of them.

    One classifier for each view maps it to posterior probabilities of the same classes, where
    the views can be compared (Rasiwasia et al. 2010):

    .. math:: \mathrm{sim}(x, y) = \sum_c p(c \mid x)\, p(c \mid y),

    the probability that x and y are of one class if they are unrelated otherwise. On the
    features this is semantic matching (SM); on canonical variates, ``correlate=CCA()``,
    semantic correlation matching (SCM); on a kernel map it is kernel logistic regression.

    Parameters
    ----------
    classifier : classifier, list of classifiers, or a pair (x, y) of these, optional
        Any scikit-learn classifier with `predict_proba`. A list holds candidates, of which
        `cv` chooses; a tuple is one entry for each view. None is a list of multinomial
        logistic regressions with C from 0.1 to 100 over the total variance of the view (the
        sum of its columns' variances), so that C does not depend on units or widths. Columns
        of features and variates are standardised for it; those of kernel maps and of sparse
        matrices are not, since their scales carry meaning.
    correlate : two-view model, optional
        A model with ``fit(X, y)`` and ``transform(X=None, y=None)``, for example `CCA`,
        `KernelCCA`: the classifiers see its variates.
    feature_map : transformer, or a pair (x, y) of transformers or None, optional
        Applied before everything else, for example a kernel map.
    cv : int, splitter or iterable of splits, default=5
        The folds that choose among candidates by the cross-validated retrieval of the training
        items: each fold's held-out x rank its held-out y and the other way round, and the
        pair of candidates with the best mean average precision by label wins. An int is
        stratified by label. Unused where there is nothing to choose.
    random_state : int or RandomState, optional
        Shuffles the folds, and seeds maps, models and classifiers whose own `random_state` is
        None. By default folds are not shuffled.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Sorted labels; the columns of the posteriors.
    class_prior_ : array of shape (n_classes,)
        Shares of the classes among the training items.
    x_classifier_, y_classifier_ : the fitted classifiers
    x_feature_map_, y_feature_map_, correlate_ : the fitted parts, or None
    best_index_ : pair of int
        Which candidates of x and of y were chosen.
    best_score_ : float
        Their cross-validated mAP, the mean of both directions; NaN without a search.
    cv_scores_ : array of shape (n_x_candidates, n_y_candidates, n_folds)
        mAP of all pairs of candidates, where there was a search.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    CCA : Matching without labels.

    Notes
    -----
    Folds refit the classifiers and `correlate`. They hold the feature maps fixed, with the
    landmarks and bandwidths found on all training rows (not their labels), so that a map is
    computed once. A classifier is fitted once for each view, candidate and fold; all pairs of
    candidates then cost rankings only. To choose a bandwidth, fit one model for each and take
    the largest `best_score_`; put the map into the classifier
    (``make_pipeline(Nystroem(...), LogisticRegression())``) to have it fitted inside the folds.

    scikit-learn's classifiers are NumPy only: other arrays are copied to the host, and
    posteriors come back in the library, on the device and in the precision of the input.

    `labels` is routed metadata, requested by `fit` and `score` by default.

    References
    ----------
    Rasiwasia, N., Costa Pereira, J., Coviello, E., Doyle, G., Lanckriet, G., Levy, R. and
    Vasconcelos, N. (2010). A new approach to cross-modal multimedia retrieval. ACM Multimedia.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from cmstats.models.semantic import SemanticMatching
    >>> data = load_iris()
    >>> sepal, petal = data.data[:, :2], data.data[:, 2:]
    >>> names = data.target_names[data.target]
    >>> model = SemanticMatching().fit(sepal, petal, names)
    >>> model.embed(sepal).shape
    (150, 3)
    >>> [str(name) for name in model.predict(sepal[:1], petal[:1])]
    ['setosa']
    >>> round(model.score(sepal, petal, names), 1)
    0.9
    """

    # These two methods request `labels`, in a pipeline or a search too.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"labels": True}
    __metadata_request__score: ClassVar[dict[str, bool]] = {"labels": True}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "classifier": [HasMethods("fit"), list, tuple, None],
        "correlate": [HasMethods(["fit", "transform"]), None],
        "feature_map": [HasMethods(["fit", "transform"]), tuple, None],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }
    _private = RowsModel._private | {"_seed"}
    _seed: int | None

    def __init__(
        self,
        classifier: Any = None,
        *,
        correlate: Any = None,
        feature_map: Any = None,
        cv: Any = 5,
        random_state: Any = None,
    ) -> None:
        self.classifier = classifier
        self.correlate = correlate
        self.feature_map = feature_map
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, labels: Any = None, groups: Any = None) -> Self:
        """Fit a classifier to each view.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The first view.
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,)
            The second view; row i is the partner of row i of `X`.
        labels : array-like of shape (n_samples,)
            The class of each row: strings, integers or booleans.
        groups : array of shape (n_samples,), optional
            Labels of rows that depend on each other (captions of one image), which are in one
            fold where classifiers are chosen: scikit-learn's StratifiedGroupKFold then.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If labels are missing, of another length or of a single class, values are not
            finite, or a classifier has no `predict_proba`.
        """
        self._validate_params()
        given = self._given_classifiers()
        new = self._unfitted()
        check_row_labels({"X": X, "labels": labels, "groups": groups})
        new._fit(given, *new._training_rows(X, y), labels, groups)
        return self._become(new)

    def _fit(self, given: list[list[Any]], X: Any, y: Any, labels: Any, groups: Any) -> None:
        """Fit maps, model and classifiers to checked rows."""
        namespace(X, y)  # raises where they are of two libraries
        if X.shape[0] < 2:
            raise ValueError("n_samples=1: one sample has one class, at least 2 samples are needed")
        known = check_labels(labels, X.shape[0])
        groups = None if groups is None else check_groups(groups, X.shape[0])
        self.classes_, codes, counts = np.unique(known, return_inverse=True, return_counts=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"labels hold a single class, {self.classes_[0].item()!r}: at least two classes "
                "are needed to tell items apart"
            )
        self.class_prior_ = counts / counts.sum()
        self._seed = _seed(self.random_state)
        mapped = self._fit_maps(_host(X), _host(y))
        self.correlate_ = None
        if self.correlate is not None:
            self.correlate_ = self._seeded(self.correlate).fit(*mapped)
        views = _variates(self.correlate_, *mapped)
        candidates = self._candidates(given, views)
        self.best_index_, self.best_score_ = (0, 0), float("nan")
        if any(len(one) > 1 for one in candidates):
            splits = stratified_splits(self.cv, codes, self.classes_, self._seed, groups)
            scores = retrieval_scores(
                candidates, self._folding(mapped), known, self.classes_, splits
            )
            i, j = divmod(best_index(scores.reshape(-1, len(splits))), len(candidates[1]))
            self.cv_scores_, self.best_index_ = scores, (i, j)
            self.best_score_ = float(scores[i, j].mean())
        chosen = [one[i] for one, i in zip(candidates, self.best_index_, strict=True)]
        self.x_classifier_, self.y_classifier_ = fit_both(chosen, views, known)

    def _given_classifiers(self) -> list[list[Any]]:
        """The candidates handed in for each view; an empty list for the default ones."""
        out = []
        for entry in _pair(self.classifier, "classifier"):
            if isinstance(entry, list) and not entry:
                raise ValueError("classifier is an empty list: give at least one candidate")
            listed = entry if isinstance(entry, list) else [] if entry is None else [entry]
            for classifier in listed:
                check_classifier(classifier)
            out.append(listed)
        return out

    def _fit_maps(self, X: Any, y: Any) -> list[Any]:
        """Both views through their fitted feature maps."""
        maps, out = [], []
        for transformer, view in zip(_pair(self.feature_map, "feature_map"), (X, y), strict=True):
            fitted = None if transformer is None else self._seeded(transformer).fit(view)
            maps.append(fitted)
            out.append(view if fitted is None else _plain(fitted.transform(view)))
        self.x_feature_map_, self.y_feature_map_ = maps
        return out

    def _candidates(self, given: list[list[Any]], views: list[Any]) -> list[list[Any]]:
        """The classifiers to choose from, for each view."""
        maps = (self.x_feature_map_, self.y_feature_map_)
        out = []
        for listed, view, feature_map in zip(given, views, maps, strict=True):
            scaled = feature_map is None or self.correlate is not None
            scaled = scaled and not scipy.sparse.issparse(view)
            defaults = [] if listed else logistic_regressions(view, scaled=scaled)
            out.append([self._seeded(classifier) for classifier in listed] or defaults)
        return out

    def _folding(self, mapped: list[Any]) -> Any:
        """What splits the mapped views and correlates each training part anew."""

        def split(train: HostArray, test: HostArray) -> tuple[list[Any], list[Any]]:
            seen, new = ([view[rows] for view in mapped] for rows in (train, test))
            model = None
            if self.correlate is not None:
                model = self._seeded(self.correlate).fit(*seen)
            return _variates(model, *seen), _variates(model, *new)

        return split

    def _seeded(self, estimator: Any) -> Any:
        """A clone, seeded wherever it leaves its random state open."""
        out = clone(estimator)
        if self._seed is None or not hasattr(out, "get_params"):
            return out
        open_states = [
            name
            for name, value in out.get_params().items()
            if name.rpartition("__")[2] == "random_state" and value is None
        ]
        return out.set_params(**dict.fromkeys(open_states, self._seed)) if open_states else out

    @row_wise
    def embed(
        self,
        X: Any = None,
        y: Any = None,
        *,
        kind: Literal["inner_product", "cosine"] = "inner_product",
    ) -> Any:
        """Class posteriors of one view or of both, whose inner product is the similarity.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), optional
        y : array-like or sparse matrix of shape (n_samples, n_targets), optional
        kind : {"inner_product", "cosine"}
            "inner_product": the posteriors themselves. "cosine": scaled to unit length, the
            normalised correlation that the published SM and SCM rank by.

        Returns
        -------
        array of shape (n_samples, n_classes), or a pair of these
            x posteriors, y posteriors, or both, for what was given.

        Raises
        ------
        ValueError
            If neither is given, or widths or values are not right.
        """
        if kind not in ("inner_product", "cosine"):
            raise ValueError(f"kind={kind!r} is unknown: use 'inner_product' or 'cosine'")
        found = self._posteriors(X, y)
        if kind == "cosine":
            found = {view: (unit_rows(p), like) for view, (p, like) in found.items()}
        return self._returned({view: _as_given(p, like) for view, (p, like) in found.items()})

    @by_rows
    def similarity(
        self, X: Any, y: Any, *, kind: Literal["inner_product", "cosine"] = "inner_product"
    ) -> Array:
        """The similarity of every x with every y, shape (n_x, n_y).

        Parameters
        ----------
        X, y
            As in `embed`; numbers of rows may differ.
        kind : {"inner_product", "cosine"}
            The probability that both are of one class, or the cosine of the posteriors.

        Returns
        -------
        array of shape (n_x, n_y)
        """
        return all_pairs(self.embed(X, y, kind=kind))

    @row_wise
    def fuse(self, X: Any = None, y: Any = None) -> Array:
        """Class posteriors given one view or both.

        Given the class the views are taken as independent:
        ``p(c | x, y)`` is proportional to ``p(c | x) p(c | y) / p(c)``.

        Parameters
        ----------
        X, y
            As in `embed`; of equal length where both are given.

        Returns
        -------
        array of shape (n_samples, n_classes)
        """
        found = self._posteriors(X, y)
        _, like = next(iter(found.values()))
        return _as_given(self._fused(found), like)

    @row_wise
    def predict(self, X: Any = None, y: Any = None) -> HostArray:
        """The most probable class given one view or both.

        Parameters
        ----------
        X, y
            As in `fuse`.

        Returns
        -------
        NumPy array of shape (n_samples,)
            Labels, of the kind seen in `fit`.
        """
        fused = self._fused(self._posteriors(X, y))
        return np.asarray(self.classes_[fused.argmax(axis=1)])

    @refused
    def score(self, X: Any, y: Any, labels: Any = None) -> float:
        """Mean average precision by label, the mean of both directions.

        Parameters
        ----------
        X, y
            As in `embed`.
        labels : array-like of shape (n_samples,), or a pair of array-likes
            Classes of the rows; a pair (of x, of y) where the views have different rows.

        Returns
        -------
        float
            Between 0 and 1.
        """
        if labels is None:
            raise ValueError(
                "SemanticMatching.score requires labels: one class for each row, or a pair of "
                "these for x and y"
            )
        if X is None or y is None:
            raise ValueError("score compares two views: give X and y")
        p, q = self.embed(X, y)
        back = labels[::-1] if isinstance(labels, tuple) and len(labels) == 2 else labels
        there = mean_average_precision(p, q, labels=labels)
        return (there + mean_average_precision(q, p, labels=back)) / 2

    def _read(self, a: Any, name: str, ensure_finite: bool) -> Any:
        return super()._read(
            dense(take_in_memory(a, slice(None))) if is_lazy(a) else a, name, ensure_finite
        )

    def _posteriors(self, X: Any, y: Any) -> dict[str, tuple[HostArray, Any]]:
        """By view the posteriors on the host, each beside the rows they are of."""
        check_is_fitted(self)
        given = {view: rows for view, (rows, _) in self._given(X, y).items()}
        namespace(*given.values())  # raises where they are of two libraries
        out = {}
        for view, rows in given.items():
            blocks = (take_rows(rows, part) for part in row_slices(rows.shape[0], ROWS))
            out[view] = np.concatenate([self._classify(_host(b), view) for b in blocks]), rows
        return out

    def _classify(self, rows: Any, name: str) -> HostArray:
        """Posteriors of the rows of one view."""
        feature_map = getattr(self, f"{name}_feature_map_")
        view = rows if feature_map is None else _plain(feature_map.transform(rows))
        view = _variates(self.correlate_, **{name: view})["xy".index(name)]
        return posteriors(getattr(self, f"{name}_classifier_"), view, self.classes_)

    def _fused(self, found: dict[str, tuple[HostArray, Any]]) -> HostArray:
        views = [p for p, _ in found.values()]
        if len(views) == 1:
            return views[0]
        p, q = views
        if len(p) != len(q):
            raise ValueError(
                f"X has {len(p)} rows and y has {len(q)}: to fuse them row i of both must be one "
                "item"
            )
        tiny = np.finfo(np.float64).tiny  # a class that one view excludes keeps a logarithm
        log = np.log(np.maximum(p, tiny)) + np.log(np.maximum(q, tiny)) - np.log(self.class_prior_)
        joint = np.exp(log - log.max(axis=1, keepdims=True))
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    """One entry for each view."""
    if not isinstance(value, tuple):
        return value, value
    if len(value) != 2:
        raise ValueError(f"{name} as a tuple is a pair (x, y), got {len(value)} entries")
    return value


def _seed(random_state: Any) -> int | None:
    if random_state is None or isinstance(random_state, Integral):
        return None if random_state is None else int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _variates(model: Any, x: Any = None, y: Any = None) -> list[Any]:
    """Variates of the views that are there, or the views themselves without a model."""
    if model is None:
        return [x, y]
    return [
        None if x is None else _plain(model.transform(x)),
        None if y is None else _plain(model.transform(y=y)),
    ]


def _host(a: Any) -> Any:
    """Rows on the host in double precision: classifiers take nothing else."""
    if not scipy.sparse.issparse(a):
        xp = namespace(a)
        a = to_numpy(a if is_numpy(xp) else xp.astype(a, result_dtype(a)))
    return a.astype(np.float64, copy=False)


def _plain(a: Any) -> Any:
    """What a transformer returned, as an array (also out of a frame) or a CSR matrix."""
    return a.tocsr() if scipy.sparse.issparse(a) else np.asarray(a, dtype=np.float64)


def _as_given(posteriors: HostArray, like: Any) -> Array:
    """Posteriors in the library, on the device and in the precision of `like`."""
    dtype = result_dtype(like)
    if scipy.sparse.issparse(like) or is_numpy(namespace(like)):
        return posteriors.astype(dtype, copy=False)
    return namespace(like).asarray(posteriors, dtype=dtype, device=device_of(like))
