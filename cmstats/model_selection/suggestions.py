"""Which models to try on two views, from what the data look like."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import scipy.sparse
from sklearn.impute import SimpleImputer

from cmstats.arrays import (
    dense,
    is_array,
    is_dask,
    is_numpy,
    namespace,
    needs_memory,
    take_rows,
    to_numpy,
)
from cmstats.baselines import ASIF, ContrastiveAligner
from cmstats.metrics.tables import WIDTH
from cmstats.model_selection.retriever import CrossModalRetriever
from cmstats.models.autoencoder import LinearAutoencoder
from cmstats.models.cca import CCA
from cmstats.models.feature_maps import NystroemMap
from cmstats.models.gaussian import ConditionalGaussian
from cmstats.models.kernel_cca import KernelCCA
from cmstats.models.mixture import ConditionalGaussianMixture
from cmstats.models.multitask import MultitaskRegressor
from cmstats.models.pipeline import TwoViewPipeline
from cmstats.models.semantic import SemanticMatching
from cmstats.rows.chunks import check_lengths
from cmstats.rows.matrix import check_matrix
from cmstats.rows.pairs import check_row_labels

__all__ = ["Suggestions", "suggest_models"]

HostArray = np.ndarray[Any, Any]
Task = Literal["retrieval", "regression", "classification", "clustering"]
Candidates = Iterator[tuple[str, Any, str]]
"""Names, models and reasons."""
SAMPLE = 2000
"""Rows that are looked at."""
EXACT = 3000
"""Rows up to which `KernelCCA` is exact by default."""


class Suggestions(dict[str, Any]):
    """Candidates by name, ready for `compare`; `reasons` has one sentence for each."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}

    def add(self, name: str, estimator: Any, reason: str) -> None:
        """Add a candidate with its reason."""
        self[name] = estimator
        self.reasons[name] = reason

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = []
        for name, model in self.items():
            for text in (" ".join(repr(model).split()), self.reasons[name]):
                parts = textwrap.wrap(text, WIDTH - width - 2, break_on_hyphens=False)
                lines += [f"{name:{width}}  {part}" for part in parts[:1]]
                lines += [f"{'':{width}}  {part}" for part in parts[1:]]
                name = ""
        return "\n".join(lines)


class MeanImputer(SimpleImputer):
    """Means in place of missing entries; the way back is the identity."""

    def inverse_transform(self, X: Any) -> Any:
        """X itself: it is in the units of the data."""
        return X


class _View:
    """The properties of one view that the rules use, most of them from a sample of its rows."""

    def __init__(self, data: Any, name: str) -> None:
        sample = _sample(data, name)
        seen = sample[~np.isnan(sample)]
        if np.isinf(seen).any():
            raise ValueError(f"{name} has infinite values: drop or replace those rows first")
        norms = np.sqrt(np.sum(sample**2, axis=1))
        self.width: int = sample.shape[1]
        self.sparse = scipy.sparse.issparse(data)
        self.missing = seen.size < sample.size or _has_nan(data)
        varies = len(np.unique(seen[:SAMPLE])) > 1
        self.binary = varies and bool(np.isin(seen, (0.0, 1.0)).all())
        self.unit_length = self.width > 1 and bool(np.allclose(norms, 1, atol=1e-2))
        # Counts, shares, TF-IDF: what the chi-squared kernel is for.
        histogram = bool((seen >= 0).all()) and not self.binary and self.width > 2
        self.kernel = "chi2" if histogram else "rbf"


def suggest_models(
    X: Any, y: Any, *, task: Task = "retrieval", labels: Any = None, random_state: Any = None
) -> Suggestions:
    """Candidates for a task, with the reason for each, ready to go into `compare`.

    The choice is by size, data type and task: a few rules, not a search. At most 2000 rows are
    looked at for signs, norms and kinds of values.

    Parameters
    ----------
    X, y : array-likes or sparse matrices of shape (n_samples, n_features), (n_samples, n_targets)
        Paired rows of numbers; NaN is a missing entry.
    task : {"retrieval", "regression", "classification", "clustering"}, default="retrieval"
        "retrieval": find y for x and x for y. "regression": predict y from x.
        "classification": name the class of a pair, given `labels`; without them y is the
        classes themselves, as columns of 0 and 1 (or one such column). "clustering": groups
        or a joint code of the pairs.
    labels : array-like of shape (n_samples,), optional
        Classes of the pairs.
    random_state : int, RandomState or None, default=None
        Handed to the candidates that draw random numbers.

    Returns
    -------
    Suggestions
        A dict of name -> unfitted estimator that prints with its `reasons`.

    Raises
    ------
    ValueError
        An unknown task, lengths that do not fit, values that are no numbers or infinite, or a
        classification without anything that says the class.

    Examples
    --------
    >>> from cmstats import load_emoji
    >>> from cmstats.model_selection.comparison import suggest_models
    >>> image, text = load_emoji(return_X_y=True)
    >>> candidates = suggest_models(image, text, task="regression", random_state=0)
    >>> print(candidates.reasons["MultitaskRegressor"])
    A ridge for each of the 384 targets, with its own penalty chosen by cross-validation.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown: use one of {', '.join(map(repr, TASKS))}")
    for name, a in (("X", X), ("y", y)):
        if is_dask(a):
            raise needs_memory(name)
    X, y = (np.asarray(a) if isinstance(a, (list, tuple)) else a for a in (X, y))
    check_lengths({"X": X, "y": y})
    n = int(X.shape[0])
    if n < 4:
        raise ValueError(f"{n} rows are too few to compare models on: at least 4 are needed")
    if labels is not None and len(labels) != n:
        raise ValueError(f"labels has length {len(labels)}, expected {n}: one label for each row")
    classes = 0 if labels is None else len({str(v) for v in to_numpy(labels)})
    check_row_labels({"X": X, "y": y, "labels": labels})
    facts = _Facts(n, _View(X, "X"), _View(y, "y"), classes, random_state)
    if task == "classification" and labels is None and not facts.y.binary:
        raise ValueError(
            "task='classification' needs labels=, or y of 0 and 1 (one column for each class)"
        )
    out = Suggestions()
    for candidate in TASKS[task](facts):
        out.add(*candidate)
    return out


class _Facts:
    """The properties of the data that the rules use."""

    def __init__(self, n: int, x: _View, y: _View, classes: int, seed: Any) -> None:
        self.n, self.x, self.y, self.classes, self.seed = n, x, y, classes, seed
        self.width = x.width + y.width
        self.missing = x.missing or y.missing
        self.sparse = x.sparse or y.sparse

    def components(self, most: int) -> int:
        """A number of components that any training half of the rows has."""
        return max(1, min(most, self.x.width, self.y.width, self.n // 2 - 1))

    def landmarks(self, most: int) -> int:
        """A number of landmarks that any training half of the rows has."""
        return max(2, min(most, self.n // 2))

    def nystroem(self, view: _View, most: int) -> NystroemMap:
        """The kernel map that suits the values of a view."""
        return NystroemMap(view.kernel, rank=self.landmarks(most), random_state=self.seed)

    def complete(self, model: Any, *, only_x: bool = False) -> Any:
        """The model, behind means in place of missing entries where there are some."""
        x = MeanImputer() if self.x.missing else None
        y = MeanImputer() if self.y.missing and not only_x else None
        return model if x is None and y is None else TwoViewPipeline(model, x=x, y=y)


def _retrieval(facts: _Facts) -> Candidates:
    if facts.n >= 20:  # enough for its folds
        yield (
            "CrossModalRetriever",
            facts.complete(CrossModalRetriever(random_state=facts.seed)),
            "Chooses among cosines, CCA and kernel CCA by how well held-out partners are found.",
        )
    yield from _cca(facts)
    yield from _gaussian(facts, "ranks by how far x raises the log-density of y")
    yield from _kernel_cca(facts)
    yield from _semantic(facts)
    yield from _deep(facts)


def _cca(facts: _Facts) -> Candidates:
    if facts.width > 0.8 * facts.n:  # more columns than rows of a training fold
        shrinkage = "auto"
        reason = (
            f"{facts.width} columns for {facts.n} rows: without shrinkage CCA would fit noise, and "
            "Ledoit-Wolf sets the amount by a formula."
        )
    else:
        shrinkage = "cv"
        reason = (
            "The closed form to start with, fast on any number of rows; its shrinkage is chosen by "
            "cross-validation in the same pass."
        )
    if facts.missing:
        reason = reason[:-1] + "; means stand in for missing entries."
    yield "CCA", facts.complete(CCA(facts.components(200), shrinkage=shrinkage)), reason


def _gaussian(facts: _Facts, what: str) -> Candidates:
    model = ConditionalGaussian()
    reason = f"p(y | x) in closed form: {what}, and says how sure it is."
    if facts.missing:
        model.set_params(shrinkage=0.1, missing="em")
        reason = f"Takes the missing entries as they are (EM) and {what}."
    if not (facts.missing and facts.sparse):
        yield "ConditionalGaussian", model, reason


def _kernel_cca(facts: _Facts) -> Candidates:
    if facts.sparse:  # kernel maps take dense rows
        return
    how = (
        f"exact for {facts.n} rows"
        if facts.n <= EXACT
        else f"on 1000 Nystroem landmarks, so that {facts.n} rows cost one pass"
    )
    why = {"chi2": "chi-squared kernel for non-negative features", "rbf": "Gaussian kernel"}
    a, b = facts.x.kernel, facts.y.kernel
    model = KernelCCA(
        max(1, min(50, facts.n // 2 - 1)), kernel=a if a == b else (a, b),
        rank=facts.landmarks(1000), shrinkage=0.1, random_state=facts.seed,
    )  # fmt: skip
    text = why[a] if a == b else f"{why[a]} of X, {why[b]} of y"
    reason = f"Sees relations that are not linear ({text}), {how}."
    yield "KernelCCA", facts.complete(model), reason


def _semantic(facts: _Facts) -> Candidates:
    if facts.classes < 2:
        return
    yield (
        "SemanticMatching",
        facts.complete(SemanticMatching(random_state=facts.seed)),
        f"With labels of {facts.classes} classes, class probabilities are a common language of "
        "both views.",
    )
    if not (facts.sparse or facts.missing) and "chi2" in (facts.x.kernel, facts.y.kernel):
        maps = (facts.nystroem(facts.x, 500), facts.nystroem(facts.y, 500))
        yield (
            "SemanticMatching, kernel",
            SemanticMatching(feature_map=maps, random_state=facts.seed),
            "The same on kernel maps: the chi-squared kernel suits non-negative features (counts, "
            "TF-IDF).",
        )


def _deep(facts: _Facts) -> Candidates:
    """Deep and training-free baselines, where they can be had."""
    if facts.sparse:
        return
    given = "unit-length embeddings" if facts.x.unit_length and facts.y.unit_length else "rows"
    yield (
        "ASIF",
        facts.complete(ASIF()),
        f"Trains nothing: {given} are described by their similarities to the training pairs.",
    )
    if facts.n >= 1000 and importlib.util.find_spec("torch") is not None:
        yield (
            "ContrastiveAligner",
            facts.complete(ContrastiveAligner(random_state=facts.seed)),
            f"The deep baseline, CLIP's loss on these features; {facts.n} pairs may be enough for "
            "it.",
        )


def _regression(facts: _Facts) -> Candidates:
    q = facts.y.width
    many = f"each of the {q} targets" if q > 1 else "the target"
    reason = f"A ridge for {many}, with its own penalty chosen by cross-validation."
    if facts.y.missing:
        reason = reason[:-1] + ", on the rows where it is observed."
    yield "MultitaskRegressor", facts.complete(MultitaskRegressor(), only_x=True), reason
    if q >= 3 and not facts.y.missing:
        yield (
            "MultitaskRegressor, low rank",
            facts.complete(MultitaskRegressor(rank="cv")),
            f"{q} targets may share a few directions of X: reduced-rank regression, rank chosen.",
        )
        yield (
            "LinearAutoencoder",
            facts.complete(LinearAutoencoder(facts.components(20), alpha=0.1, target="cross")),
            "Predicts all targets from one short code of x, which can be kept and looked at.",
        )
    yield from _gaussian(facts, "predicts y with its covariance")
    yield from _mapped_ridge(facts)
    yield from _mixture(facts, "Several answers to one x, or noise that depends on x")


def _mapped_ridge(facts: _Facts) -> Candidates:
    """Kernel ridge regression."""
    if facts.sparse or facts.missing:
        return
    kinds = {"chi2": "chi-squared kernel, for non-negative features", "rbf": "Gaussian kernel"}
    yield (
        "kernel ridge",
        TwoViewPipeline(MultitaskRegressor(), x=facts.nystroem(facts.x, 1000)),
        f"Relations that are not linear: ridge on a Nystroem map ({kinds[facts.x.kernel]}).",
    )


def _mixture(facts: _Facts, reason: str) -> Candidates:
    count = facts.classes if facts.classes > 1 else 4
    if facts.missing or facts.sparse or facts.n < 40 * count:
        return
    model = ConditionalGaussianMixture(count, covariance_type="full", random_state=facts.seed)
    kind = "full covariances"
    if facts.n < 20 * count * facts.width:
        rank = max(1, min(10, facts.width - 1, facts.n // (10 * count)))
        model.set_params(covariance_type="low_rank", rank=rank)
        kind = "factors, since there are few rows for full covariances"
    yield "ConditionalGaussianMixture", model, f"{reason} ({count} normals, {kind})."


def _classification(facts: _Facts) -> Candidates:
    if facts.classes:
        yield from _semantic(facts)
        shared = CCA(facts.components(50), shrinkage="auto")
        yield (
            "SemanticMatching, CCA",
            facts.complete(SemanticMatching(correlate=shared, random_state=facts.seed)),
            "Classifies what the two views share, which leaves out noise that is private to one.",
        )
        return
    yield (
        "MultitaskRegressor",
        facts.complete(MultitaskRegressor(), only_x=True),
        "Regression on 0 and 1 is enough to rank classes by probability, and the fastest.",
    )
    yield from _mapped_ridge(facts)
    if facts.y.width > 1:
        yield from _cca(facts)


def _clustering(facts: _Facts) -> Candidates:
    if not facts.missing:
        yield (
            "LinearAutoencoder",
            LinearAutoencoder(facts.components(10), target="joint", scale=not facts.sparse),
            "One short code of both views that keeps most of their variance: cluster `fuse(X, y)`.",
        )
    yield (
        "CCA",
        facts.complete(CCA(facts.components(10), shrinkage="auto")),
        "Groups by what the views share and not by what varies most: cluster `fuse(X, y)`.",
    )
    shape = "Groups with probabilities, `responsibilities(X, y)`, each of a shape of its own"
    yield from _mixture(facts, shape)
    if facts.missing and not facts.sparse:
        yield from _gaussian(facts, "tells which pairs belong to no group (`outlier_scores`)")


TASKS = {
    "retrieval": _retrieval,
    "regression": _regression,
    "classification": _classification,
    "clustering": _clustering,
}


def _sample(data: Any, name: str) -> HostArray:
    """Some rows, spread over all, as float64 on the host."""
    if not hasattr(data, "shape"):
        data = np.asarray(data)
    if len(data.shape) not in (1, 2):
        raise ValueError(f"{name} must be two-dimensional (rows are items), got {data.shape}")
    rows = np.arange(0, data.shape[0], max(1, -(-data.shape[0] // SAMPLE)))
    data = data.tocsr() if scipy.sparse.issparse(data) else data
    taken = take_rows(data, rows)
    try:
        taken = to_numpy(dense(check_matrix(taken, name, ensure_finite=False))).astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{error}; encode text first, for example with TfidfVectorizer, and put the encoder "
            "into a TwoViewPipeline"
        ) from None
    return np.asarray(taken.reshape(len(rows), -1))


def _has_nan(data: Any) -> bool:
    """Whether any row has a missing entry: a sample could miss the only one."""
    if scipy.sparse.issparse(data):
        data = data.data
    elif not is_array(data) or np.ma.isMaskedArray(data):
        data = check_matrix(data, "X", ensure_finite=False)
        data = data.data if scipy.sparse.issparse(data) else data
    if not is_array(data):
        return False
    xp = namespace(data)
    if is_numpy(xp) and data.dtype.kind not in "f":
        return data.dtype.kind == "O" and bool(np.isnan(data.astype(float)).any())
    if not is_numpy(xp) and not xp.isdtype(data.dtype, "real floating"):
        return False
    return bool(xp.any(xp.isnan(data)))
