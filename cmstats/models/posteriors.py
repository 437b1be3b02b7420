"""Classifiers as maps to class posteriors, and the choice among them by retrieval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.sparsefuncs import mean_variance_axis

from cmstats.arrays import once, recorded, to_numpy, warn
from cmstats.kernels.ranks import average_precisions
from cmstats.kernels.threads import thread_map
from cmstats.rows.splits import split_rows

__all__ = [
    "check_classifier",
    "check_labels",
    "fit_both",
    "logistic_regressions",
    "posteriors",
    "retrieval_scores",
    "stratified_splits",
]

HostArray = np.ndarray[Any, Any]
Views = Sequence[Any]
"""The rows of both views."""

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""C of the default logistic regressions, for a view of total variance 1."""


def check_classifier(classifier: Any) -> None:
    """Raise where there are no posteriors to be had."""
    if isinstance(classifier, type):
        raise TypeError(
            f"classifier takes instances, got the class {classifier.__name__}: write "
            f"{classifier.__name__}()"
        )
    if not hasattr(classifier, "predict_proba"):
        raise ValueError(
            f"{type(classifier).__name__} has no predict_proba, and posteriors are what is "
            "matched: take another classifier, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV"
        )


def check_labels(labels: Any, n: int) -> HostArray:
    """Labels of n rows on the host, in the type that they are of."""
    if labels is None:
        raise ValueError(
            "SemanticMatching requires labels, the class of each row: fit(X, y, labels=labels)"
        )
    # NumPy would turn the numbers and NaN of a mixed list into text.
    listed = isinstance(labels, (list, tuple))
    out = np.asarray(labels, dtype=object) if listed else to_numpy(labels)
    if out.ndim == 2 and out.shape[1] == 1:
        out = out[:, 0]
    if out.shape != (n,):
        raise ValueError(
            f"labels must be a vector with one class for each of the {n} rows, got shape "
            f"{tuple(out.shape)}"
        )
    import pandas as pd

    missing = pd.isna(out)
    if missing.any():
        raise ValueError(
            f"labels has {int(missing.sum())} missing value(s) such as NaN, the first at row "
            f"{int(missing.argmax())}: drop those rows, a classifier cannot learn from them"
        )
    if out.dtype.kind == "O":
        if len({isinstance(value, str) for value in out}) > 1:
            raise ValueError("labels mix strings with other values: make them all strings")
        out = np.array(out.tolist())
    check_classification_targets(out)
    return out


def logistic_regressions(view: Any, *, scaled: bool) -> list[Any]:
    """Multinomial logistic regressions of all `PENALTIES`, on standardised columns if `scaled`.

    C is divided by the total variance of what they see, so that it has no unit: the logits
    of a view of width p have p terms.
    """
    sparse = scipy.sparse.issparse(view)
    variances = mean_variance_axis(view, axis=0)[1] if sparse else view.var(axis=0)
    total = float(np.count_nonzero(variances) if scaled else variances.sum()) or 1.0
    steps = [StandardScaler()] if scaled else []
    return [
        make_pipeline(*steps, LogisticRegression(C=c / total, max_iter=1000)) for c in PENALTIES
    ]


def fit_both(pair: Views, views: Views, labels: HostArray) -> list[Any]:
    """A classifier fitted to each view."""
    return thread_map(lambda view: _fitted(pair[view], views[view], labels), (0, 1))


def _fitted(classifier: Any, view: Any, labels: HostArray) -> Any:
    """A fitted clone; where a training fold has lost all classes but one, that one is certain."""
    if (labels == labels[0]).all():
        return DummyClassifier(strategy="prior").fit(view, labels)
    return clone(classifier).fit(view, labels)


def posteriors(classifier: Any, view: Any, classes: HostArray) -> HostArray:
    """p(class | row) of every class, shape (n, n_classes); 0 for those it was not shown."""
    found = np.asarray(classifier.predict_proba(view), dtype=np.float64)
    out = np.zeros((found.shape[0], len(classes)))
    out[:, np.searchsorted(classes, classifier.classes_)] = found
    return out


def stratified_splits(
    cv: Any, codes: HostArray, classes: HostArray, seed: int | None, groups: Any = None
) -> list[tuple[HostArray, HostArray]]:
    """The folds: those of a splitter, or stratified ones, fewer where a class is rare."""
    if not isinstance(cv, Integral):
        return split_rows(check_cv(cv, codes, classifier=True), len(codes), codes, groups)
    counts = np.bincount(codes)
    rarest = int(counts.argmin())
    folds = max(2, min(int(cv), int(counts[rarest])))
    if counts.max() < folds:
        raise ValueError(
            f"n_samples={len(codes)}: no class has two members, so candidates cannot be compared "
            "on held-out items; pass a single classifier"
        )
    if counts[rarest] < int(cv):
        warn(
            f"class {classes[rarest].item()!r} has {counts[rarest]} member(s), fewer than "
            f"cv={cv}: {folds} folds choose the classifiers"
        )
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    stratified = kind(folds, shuffle=seed is not None, random_state=seed)
    with recorded():  # of a class with one member, said above
        return list(stratified.split(codes, codes, groups))


def retrieval_scores(
    candidates: Sequence[Sequence[Any]],
    fold_views: Callable[[HostArray, HostArray], tuple[Views, Views]],
    labels: HostArray,
    classes: HostArray,
    splits: Sequence[tuple[HostArray, HostArray]],
) -> HostArray:
    """Held-out mAP of all pairs of candidates, shape (n_x, n_y, n_folds).

    A candidate is fitted once for each view and fold: pairs of candidates share posteriors.

    Parameters
    ----------
    candidates : pair of sequences of classifiers
    fold_views : callable (train, test) -> (training views, test views)
    labels, classes : arrays of shapes (n,), (n_classes,)
    splits : sequence of (train, test)
    """
    scores = np.empty((len(candidates[0]), len(candidates[1]), len(splits)))
    codes = np.searchsorted(classes, labels)
    items = [(view, j) for view in (0, 1) for j in range(len(candidates[view]))]
    with recorded() as caught:
        for k, (train, test) in enumerate(splits):
            seen, new = fold_views(train, test)

            def held_out(item: tuple[int, int]) -> HostArray:
                view, j = item
                fitted = _fitted(candidates[view][j], seen[view], labels[train])  # noqa: B023
                return posteriors(fitted, new[view], classes)  # noqa: B023

            held = dict(zip(items, thread_map(held_out, items), strict=True))
            for i, j in np.ndindex(scores.shape[:2]):
                scores[i, j, k] = _mean_precision(held[0, i], held[1, j], codes[test])
    # The same sentence from every fold and candidate is said once.
    for message, category in once(sorted(caught, key=str)):
        warn(f"in cross-validation: {message}", category)
    return scores


def _mean_precision(p: HostArray, q: HostArray, ids: HostArray) -> float:
    """mAP by label, the mean of both directions."""
    there = average_precisions(p, q, x_ids=ids, y_ids=ids)
    back = average_precisions(q, p, x_ids=ids, y_ids=ids)
    return float(there.mean() + back.mean()) / 2
