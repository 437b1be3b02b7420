"""Asking any two-view model for its answers on held-out rows, and judging them."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing

from cmstats.arrays import (
    Array,
    dense,
    is_array,
    is_numpy,
    moderate,
    namespace,
    result_dtype,
    take_rows,
    to_numpy,
)
from cmstats.kernels.linalg import inner
from cmstats.kernels.ranks import average_precisions, partner_counts
from cmstats.metrics.correlation import total_correlation_scorer
from cmstats.metrics.hubness import corrected
from cmstats.metrics.relevance import Relevance
from cmstats.metrics.retrieval import DIRECTIONS, metric_names, retrieval_report
from cmstats.metrics.ties import TiedRanks
from cmstats.models.latent import unit_rows
from cmstats.models.semantic import SemanticMatching
from cmstats.rows.chunks import chunks

__all__ = [
    "Ranking",
    "RawCosine",
    "adapted",
    "agreement",
    "fit_takes",
    "judged",
    "predicted",
    "ranking",
    "representations",
    "rows_of",
    "takes",
]

HostArray = np.ndarray[Any, Any]


def rows_of(data: Any, at: HostArray) -> Any:
    """The rows of an array of any library, a frame, a list or a sparse matrix."""
    if is_array(data) and not is_numpy(namespace(data)):
        return take_rows(data, at)
    return _safe_indexing(data, at)


def takes(method: Any, name: str) -> bool:
    """Whether a method has a parameter of this name."""
    try:
        return name in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False


def fit_takes(estimator: Any, name: str) -> bool:
    """Whether `fit` has a parameter, itself or in the model that it wraps."""
    inner = getattr(estimator, "model", None)
    return takes(estimator.fit, name) or (inner is not None and fit_takes(inner, name))


class RawCosine(BaseEstimator):
    """The cosine of the features as they are, or less their means, for views of one width."""

    def __init__(self, *, center: bool = False) -> None:
        self.center = center

    def fit(self, X: Any, y: Any) -> Self:
        """Keep the means, where they are taken off."""
        if self.center:
            self.x_mean_, self.y_mean_ = (column_means(a) for a in (X, y))
        return self

    def fit_moments(self, moments: Any) -> Self:
        """The same from the moments of both views."""
        if self.center:
            self.x_mean_, self.y_mean_ = moments.mean("x"), moments.mean("y")
        return self

    def embed(self, X: Any = None, y: Any = None) -> Any:
        """The rows of one view or of both in unit length."""
        found = [
            _unit(a, getattr(self, f"{view}_mean_", None))
            for view, a in (("x", X), ("y", y))
            if a is not None
        ]
        return found[0] if len(found) == 1 else tuple(found)


class TwoOfSeveral(BaseEstimator):
    """A model of several views as one of two, the labels being a third view in training."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, X: Any, y: Any, labels: Any = None, groups: Any = None) -> Self:
        """Fit a clone to x, y and, where there are labels, their indicators."""
        views = {"x": X, "y": y}
        self.classes_ = None
        if labels is not None:
            self.classes_, codes = np.unique(labels, return_inverse=True)
            views["labels"] = _corners(len(self.classes_))[codes]
        given = {} if groups is None else {"groups": groups}
        self.model_ = clone(self.model).fit(views, **given)
        return self

    def _two(self, method: str, X: Any, y: Any) -> tuple[Array, Array]:
        views = {"x": X, "y": y, **({} if self.classes_ is None else {"labels": None})}
        out = getattr(self.model_, method)(views)
        return out["x"], out["y"]

    def embed(self, X: Any, y: Any) -> tuple[Array, Array]:
        """The model's embeddings of the two views."""
        return self._two("embed", X, y)

    def transform(self, X: Any, y: Any) -> tuple[Array, Array]:
        """The model's variates of the two views."""
        return self._two("transform", X, y)


class OneView(BaseEstimator):
    """A logistic regression on the standardised columns of one view."""

    def __init__(self, view: str) -> None:
        self.view = view

    def _rows(self, X: Any, y: Any) -> Any:
        return to_numpy(dense(X if self.view == "x" else y))

    def fit(self, X: Any, y: Any, labels: Any = None) -> Self:
        """Fit to the labels of the rows."""
        self.model_ = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self.model_.fit(self._rows(X, y), labels)
        return self

    def predict(self, X: Any, y: Any) -> HostArray:
        """The most probable class of each row."""
        return np.asarray(self.model_.predict(self._rows(X, y)))


def with_classifiers(estimators: Any) -> dict[str, Any]:
    """The estimators, and those that tell how far class labels go where none has their name."""
    beside = {
        "semantic matching": SemanticMatching(),
        "logistic regression, x": OneView("x"),
        "logistic regression, y": OneView("y"),
    }
    return {**dict(estimators), **{k: v for k, v in beside.items() if k not in estimators}}


def _corners(k: int) -> HostArray:
    """Corners of a regular simplex: centred indicators of k classes, without their dependence."""
    return np.asarray(np.linalg.svd(np.eye(k) - 1 / k)[0][:, : max(k - 1, 1)])


def adapted(estimator: Any) -> Any:
    """The estimator, or a model of several views made one of two."""
    parameters = list(inspect.signature(estimator.fit).parameters)
    return TwoOfSeveral(estimator) if parameters[:1] == ["views"] else estimator


# ------------------------------------------------------------------------------ answers
@dataclass(frozen=True)
class Ranking:
    """Embeddings `U` and `V` whose inner product ranks, or scores `U` alone, and by what."""

    U: Array
    V: Array | None
    by: str

    def corrected(self, hubness: Any) -> Self:
        """The same with the scores corrected for hubs, where `hubness` is not None."""
        U, V = corrected(hubness, self.U, self.V)
        return replace(self, U=U, V=V)

    def scores(self) -> Array:
        """All scores, queries of x in rows."""
        return self.U if self.V is None else inner(self.U, self.V)


def ranking(model: Any, X: Any, y: Any, center: HostArray | None) -> Ranking | None:
    """How a model ranks y for x, by the first that it has.

    Of: `embed`, `similarity`, the cosine of its variates, and the cosine of its prediction with
    y, both less `center`.
    """
    if hasattr(model, "embed"):
        U, V = model.embed(X, y)
        return Ranking(U, V, "embed")
    if hasattr(model, "similarity"):
        return Ranking(model.similarity(X, y), None, "similarity")
    both = variates(model, X, y)
    if both is not None:
        return Ranking(_unit(both[0]), _unit(both[1]), "transform")
    found = predicted(model, X, y)
    if found is None or center is None or found[0].shape[1] < 2 or np.isnan(found[1]).any():
        return None
    return Ranking(_unit(found[0] - center), _unit(found[1] - center), "predict")


def column_means(a: Any) -> Array:
    """The means of the columns, in double precision, from one pass over the rows."""
    total: Any = 0
    for _, (part,), _ in chunks([a]):
        xp = namespace(dense(part))
        total = total + xp.sum(xp.astype(dense(part), xp.float64), axis=0)
    return total / a.shape[0]


def _unit(a: Any, mean: Array | None = None) -> Array:
    """Rows of floating-point numbers, less a mean, scaled to unit length."""
    a = dense(a)
    a = a if is_array(a) else to_numpy(a)
    xp = namespace(a)
    a = xp.astype(a, result_dtype(a), copy=False)
    return unit_rows(a if mean is None else a - xp.astype(mean, a.dtype))


def variates(model: Any, X: Any, y: Any) -> tuple[Array, Array] | None:
    """The representations of both views in common coordinates, where `transform` gives them."""
    transform = getattr(model, "transform", None)
    if transform is None or not _encodes_y(model):
        return None
    out = transform(X, y)
    if not isinstance(out, tuple):  # one code for the pair: those of each view alone
        out = (transform(X), transform(y=y))
    u, v = (a if is_array(a) else to_numpy(a) for a in out)
    return (u, v) if u.ndim == 2 and tuple(u.shape) == tuple(v.shape) else None


def _encodes_y(model: Any) -> bool:
    """Whether `transform` takes y: of the autoencoders only the joint one has an encoder of it."""
    inner = getattr(model, "model_", model)
    given = takes(model.transform, "y") or takes(model.transform, "Y")
    return given and getattr(inner, "target", None) not in ("self", "cross")


def representations(model: Any, X: Any, y: Any, found: Ranking | None) -> list[HostArray]:
    """Both views as the model sees them, on the host: variates, embeddings, or scores."""
    both: Any = variates(model, X, y)
    if both is None and found is not None:
        both = (found.U, found.V)
    if both is None:
        prediction = predicted(model, X, y)
        both = () if prediction is None else (prediction[0],)
    return [to_numpy(a).astype(float) for a in both if a is not None]


def predicted(model: Any, X: Any, y: Any) -> tuple[HostArray, HostArray] | None:
    """Predictions of y beside y as matrices on the host, where the model predicts numbers."""
    if not hasattr(model, "predict") or fit_takes(model, "labels"):
        return None
    truth = to_numpy(dense(y))
    out = to_numpy(model.predict(X))
    if truth.dtype.kind not in "fiub" or out.dtype.kind not in "fiub" or out.size != truth.size:
        return None
    shape = (len(truth), -1)
    return out.reshape(shape).astype(float), truth.reshape(shape).astype(float)


# ------------------------------------------------------------------------------ judging
def judged(
    model: Any, X: Any, y: Any, labels: Any, found: Ranking | None, ks: tuple[int, ...]
) -> tuple[dict[str, float], dict[str, HostArray]]:
    """The quantities of one held-out fold, and for those that are means the value of each item."""
    values: dict[str, float] = {}
    items: dict[str, HostArray] = {}
    if found is not None:
        report: Any = retrieval_report(found.U, found.V, labels=labels, ks=ks).loc
        names = ["MRR", *(name for name in metric_names(ks, labels) if name != "MRR")]
        values.update({name: float(report["mean", name]) for name in names})
        values.update({f"{n} ({d})": float(report[d, n]) for d in DIRECTIONS for n in names})
        items.update(_retrieval_items(found, labels, ks))
    both = variates(model, X, y)
    if both is not None:
        of_these = SimpleNamespace(transform=lambda *_: both)
        values["total_correlation"] = total_correlation_scorer(of_these, X, y)
    if hasattr(model, "logpdf"):
        items["log_likelihood"] = to_numpy(model.logpdf(X, y))
    pair = predicted(model, X, y)
    if pair is not None:
        items["R2"] = _explained(*pair)
    if labels is not None and fit_takes(model, "labels") and hasattr(model, "predict"):
        named = model.predict(X, y) if takes(model.predict, "y") else model.predict(X)
        items["accuracy"] = (to_numpy(named) == labels).astype(float)
    for name in items.keys() - values.keys():
        values[name] = float(np.mean(items[name]))
    return values, items


def _retrieval_items(found: Ranking, labels: Any, ks: tuple[int, ...]) -> dict[str, HostArray]:
    """Each item's mean over both directions of what `retrieval_report` averages."""
    tied = [TiedRanks.of(c) for c in partner_counts(found.U, found.V)]
    names = ["MRR", *(f"R@{k}" for k in ks)]
    items = {name: np.mean([t.values(name) for t in tied], axis=0) for name in names}
    if labels is not None:
        codes = Relevance((len(labels), len(labels)), labels, None, None).classes(0)[0]
        swapped = (found.U.T, None) if found.V is None else (found.V, found.U)
        each = [
            to_numpy(average_precisions(U, V, x_ids=codes, y_ids=codes))
            for U, V in ((found.U, found.V), swapped)
        ]
        items["mAP"] = np.mean(each, axis=0)
    return items


def _explained(out: HostArray, truth: HostArray) -> HostArray:
    """Shares of each item in R2: their mean is the mean R2 of the targets that vary."""
    seen = ~np.isnan(truth)
    count = np.maximum(seen.sum(axis=0), 1)
    known = np.where(seen, truth, 0.0)
    mean = known.sum(axis=0) / count
    variance = np.where(seen, (truth - mean) ** 2, 0.0).sum(axis=0) / count
    varies = variance > 0
    if not varies.any():
        return np.full(len(truth), math.nan)
    error = np.where(seen, (truth - out) ** 2, 0.0)[:, varies]
    weight = len(truth) / count[varies]  # targets with missing rows count as the others
    return np.asarray(1 - (error * weight / variance[varies]).mean(axis=1))


# ---------------------------------------------------------------------------- stability
def agreement(A: HostArray, B: HostArray) -> float:
    """How far two representations of the same rows agree, from 0 to 1.

    The mean cosine of the principal angles between the spans of their centred columns; linear
    CKA (Kornblith et al. 2019), which looks at variances too, where either is wider than half
    the rows, since such spans meet by chance.
    """
    A, B = (moderate(a - a.mean(axis=0)) for a in (A, B))
    if 2 * max(A.shape[1], B.shape[1]) > len(A):
        K, L = A @ A.T, B @ B.T
        scale = np.linalg.norm(K) * np.linalg.norm(L)
        return float(np.sum(K * L) / scale) if scale > 0 else math.nan
    P, Q = _basis(A), _basis(B)
    if not P.shape[1] or not Q.shape[1]:
        return math.nan
    cosines = np.linalg.svd(P.T @ Q, compute_uv=False)
    return float(min(np.sum(cosines) / max(P.shape[1], Q.shape[1]), 1.0))


def _basis(A: HostArray) -> HostArray:
    """An orthonormal basis of the span of the columns, each of which counts alike."""
    norm = np.linalg.norm(A, axis=0)
    kept = norm > 1e-12 * max(norm.max(initial=0.0), 1e-300)
    U, s, _ = np.linalg.svd(A[:, kept] / norm[kept], full_matrices=False)
    return np.asarray(U[:, s > 1e-7 * s[:1].sum()])
