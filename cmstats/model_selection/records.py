"""One model after the other on the same folds: what each answers, and what it costs."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import PredefinedSplit, check_cv
from sklearn.utils import check_random_state

from cmstats.arrays import (
    check_cutoffs,
    dense,
    detached,
    is_dask,
    masked_as_nan,
    needs_memory,
    once,
    recorded,
    to_numpy,
    warn,
    widened,
)
from cmstats.metrics.hubness import HubnessCorrection
from cmstats.model_selection.costs import PeakMemory, count_parameters, device_name, growth, timed
from cmstats.model_selection.judging import (
    Ranking,
    RawCosine,
    adapted,
    agreement,
    fit_takes,
    judged,
    ranking,
    representations,
    rows_of,
)
from cmstats.rows.chunks import check_lengths, is_lazy
from cmstats.rows.dependence import dependence_notes
from cmstats.rows.matrix import check_matrix
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import take_in_memory
from cmstats.rows.splits import Folds, check_groups, fold_ids, split_rows

__all__ = ["Comparison", "Record"]

HostArray = np.ndarray[Any, Any]

RAW = "raw cosine"
PROBES = 250
"""Held-out rows of each fold on which the models of two folds are compared for stability."""


class Comparison:
    """What is compared: estimators, views, labels and folds, checked once.

    All checks that need no model are made here.
    """

    def __init__(
        self,
        estimators: Any,
        X: Any,
        y: Any,
        labels: Any,
        cv: Any,
        groups: Any,
        ks: Any,
        random_state: Any,
        on_error: str,
        hubness: Any = None,
    ) -> None:
        if on_error not in ("row", "raise"):
            raise ValueError(f"on_error must be 'row' or 'raise', got {on_error!r}")
        self.estimators, self.on_error = _check_estimators(estimators), on_error
        if hubness is not None and not isinstance(hubness, HubnessCorrection):
            raise TypeError(f"hubness={hubness!r} must be a HubnessCorrection, or None")
        self.hubness = hubness
        check_row_labels({"X": X, "y": y, "labels": labels, "groups": groups})
        self.X, self.y = _in_memory("X", X), _in_memory("y", y)
        check_lengths({"X": self.X, "y": self.y})
        self.n = int(self.X.shape[0])
        self.labels = None if labels is None else to_numpy(labels)
        if self.labels is not None and self.labels.shape != (self.n,):
            raise ValueError(
                f"labels has shape {self.labels.shape}, expected ({self.n},): one label for each "
                "row"
            )
        self.given_seed = random_state is not None
        whole = isinstance(random_state, (int, np.integer))
        self.seed = int(
            random_state if whole else check_random_state(random_state).randint(2**31 - 1)
        )
        self.ks = tuple(check_cutoffs(ks))
        self.groups = None if groups is None else check_groups(groups, self.n)
        self.splits = _splits(cv, self.n, self.labels, self.groups)
        for note in _dependence(self.X, self.y, self.splits):
            warn(note)
        if RAW not in self.estimators and _comparable(self.X, self.y):
            self.estimators[RAW] = RawCosine()

    def take(self, at: HostArray) -> tuple[Any, Any, HostArray | None]:
        """Both views and the labels of some rows."""
        labels = None if self.labels is None else self.labels[at]
        return rows_of(self.X, at), rows_of(self.y, at), labels

    def fit(self, estimator: Any, at: HostArray) -> Any:
        """A seeded clone, fitted to some rows."""
        X, y, labels = self.take(at)
        model = adapted(clone(estimator))
        if self.given_seed:
            states = [
                name
                for name, value in model.get_params().items()
                if name.rpartition("__")[2] == "random_state" and value is None
            ]
            model.set_params(**dict.fromkeys(states, self.seed))
        groups = None if self.groups is None else self.groups[at]
        given = {"labels": labels, "groups": groups}
        fitting = {k: v for k, v in given.items() if v is not None and fit_takes(model, k)}
        return model.fit(X, y, **fitting)

    def bank(self, model: Any, at: HostArray) -> HubnessCorrection | None:
        """The correction of hubness for a model, with some of the rows as its bank."""
        if self.hubness is None:
            return None
        X, y, _ = self.take(at)
        found = ranking(model, X, y, self.center(at))
        if found is None:
            return None
        if found.V is None:
            raise ValueError("hubness is corrected on embeddings, and this model has none")
        bank: HubnessCorrection = clone(self.hubness).fit(found.U, found.V)
        return bank

    def center(self, at: HostArray) -> HostArray | None:
        """The mean of y in some rows, if it is of numbers that are all there."""
        if not hasattr(self.y, "dtype") and not hasattr(self.y, "dtypes"):
            return None
        rows = to_numpy(dense(rows_of(self.y, at)))
        if rows.dtype.kind not in "fiub":
            return None
        mean = np.asarray(np.atleast_2d(rows.T).T.mean(axis=0, dtype=float))
        return None if np.isnan(mean).any() else mean


def _in_memory(name: str, a: Any) -> Any:
    """Rows that can be taken by number: memory-maps, masked arrays and vectors as arrays.

    Text, which a pipeline turns into numbers, stays as it is.
    """
    if is_dask(a):
        raise needs_memory(name)
    if is_lazy(a):
        if not isinstance(a, np.ndarray):
            raise TypeError(f"{name} is read from a disk: rows are compared in memory")
        return take_in_memory(a, slice(None))
    if isinstance(a, (list, tuple)):
        a = np.asarray(a)
    if np.ma.isMaskedArray(a):
        return masked_as_nan(a)
    return widened(a) if type(a) is np.ndarray else detached(a)


def _check_estimators(estimators: Any) -> dict[str, Any]:
    if not isinstance(estimators, Mapping) or not estimators:
        raise ValueError(
            "estimators must be a dict of name -> estimator with at least one entry, for example "
            "{'CCA': CCA(10)}"
        )
    answers = ("embed", "similarity", "transform", "predict", "logpdf")
    for name, estimator in estimators.items():
        if inspect.isclass(estimator) or not hasattr(estimator, "fit"):
            raise TypeError(f"{name!r} is no estimator: pass an object with fit, for example CCA()")
        if not any(hasattr(estimator, answer) for answer in answers):
            raise TypeError(
                f"{name!r} ({type(estimator).__name__}) has nothing to compare: an estimator needs "
                f"one of {', '.join(answers)}"
            )
        if not hasattr(estimator, "get_params"):
            raise TypeError(f"{name!r} cannot be cloned: derive it from sklearn's BaseEstimator")
    return dict(estimators)


def _splits(
    cv: Any, n: int, labels: HostArray | None, groups: HostArray | None
) -> list[tuple[HostArray, HostArray]]:
    if isinstance(cv, (int, np.integer)):
        if not 2 <= cv <= n // 2:
            raise ValueError(f"cv={cv} folds of {n} rows: use 2 to {n // 2} (two rows to a fold)")
        cv, groups = PredefinedSplit(fold_ids(cv, n, groups=groups)), None
    found = split_rows(check_cv(cv), n, labels, groups)
    for k, (train, test) in enumerate(found):
        if min(len(train), len(test)) < 2:
            raise ValueError(
                f"fold {k} has {len(train)} training and {len(test)} test rows: at least 2 of "
                "each are needed to fit and to rank"
            )
    if not found:
        raise ValueError("cv has no folds")
    return found


def _dependence(X: Any, y: Any, splits: list[tuple[HostArray, HostArray]]) -> list[str]:
    """The sentences about rows that depend on rows of other folds, where both are numbers."""
    try:
        blocks = {k: check_matrix(a, k, ensure_finite=False) for k, a in (("X", X), ("y", y))}
    except (TypeError, ValueError):
        return []
    ids = np.full(int(blocks["X"].shape[0]), -1)
    for k, (_, test) in enumerate(splits):
        ids[test] = k
    return dependence_notes(blocks, Folds(len(splits), ids=ids))


def _comparable(X: Any, y: Any) -> bool:
    """Whether the cosine of raw rows of both views can be taken."""
    shapes = [tuple(getattr(a, "shape", ())) for a in (X, y)]
    if len(shapes[0]) != 2 or shapes[0][1:] != shapes[1][1:] or shapes[0][1] < 2:
        return False
    for a in (X, y):
        values = to_numpy(a.data if hasattr(a, "toarray") else a)
        if values.dtype.kind not in "fiub" or not np.isfinite(values.astype(float)).all():
            return False
    return True


# ----------------------------------------------------------------------- one model, all folds
@dataclass
class Record:
    """All that is measured of one model."""

    task: Comparison
    name: str
    estimator: Any
    folds: list[dict[str, float]] = field(default_factory=list)
    items: list[dict[str, HostArray]] = field(default_factory=list)
    probes: list[list[HostArray]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def run(self, *, memory: bool, scaling: bool | Sequence[int]) -> Record:
        """Fit and judge on every fold; a failure leaves its reason."""
        caught: Sequence[tuple[str, type[Warning]]] = ()
        place = "in setting up"
        try:
            with recorded() as caught:
                probes = self._probe_rows()
                for k in range(len(self.task.splits)):
                    place = f"in fold {k}"
                    self._fold(k, probes)
                place = "in measuring memory and scaling"
                self._costs(memory, scaling)
        except Exception as error:
            reason = _reason(error)
            if self.task.on_error == "raise":
                raise RuntimeError(f"{self.name!r} failed {place}: {reason}") from error
            self.folds, self.items, self.probes = [], [], []
            self.extra = {"error": f"{place}: {reason}"}
            message = f"{self.name!r} failed {place} and has no numbers: {reason}"
            warn(message)
        for message, category in once(sorted(caught, key=str)):
            warn(f"{self.name!r}: {message}", category)
        return self

    def _probe_rows(self) -> list[HostArray]:
        """Some of the test rows of each fold."""
        rng = np.random.default_rng(self.task.seed)
        return [rng.permutation(test)[:PROBES] for _, test in self.task.splits]

    def _fold(self, k: int, probes: list[HostArray]) -> None:
        train, test = self.task.splits[k]

        def fit() -> tuple[Any, HubnessCorrection | None]:
            model = self.task.fit(self.estimator, train)
            return model, self.task.bank(model, train)

        (model, hubness), seconds = timed(fit)
        X, y, labels = self.task.take(test)
        center = self.task.center(train)

        def query() -> Ranking | None:
            found = ranking(model, X, y, center)
            if found is not None:
                found = found.corrected(hubness)
                found.scores()
            return found

        found, query_seconds = timed(query)
        values, items = judged(model, X, y, labels, found, self.task.ks)
        if found is None:
            query_seconds = math.nan
        self.folds.append({**values, "fit_seconds": seconds, "query_seconds": query_seconds})
        self.items.append(items)
        if len(probes) > 1:
            X, y, _ = self.task.take(np.concatenate(probes))
            rows = ranking(model, X, y, center) if found is not None else None
            self.probes.append(representations(model, X, y, rows))
        if k == 0:
            self.extra = {
                "ranked_by": None if found is None else found.by,
                "device": device_name(model, X if found is None else found.U),
                "n_parameters": count_parameters(model),
                "stability": math.nan,
            }
        if k == len(probes) - 1 > 0:
            self.extra["stability"] = self._stability(probes)

    def _stability(self, probes: list[HostArray]) -> float:
        """The agreement of the models of two folds on the rows held out from one of them."""
        count = sum(map(len, probes))
        part = np.split(np.arange(count), np.cumsum([len(p) for p in probes[:-1]]))
        found = [
            agreement(a[rows], b[rows])
            for i, j in itertools.combinations(range(len(probes)), 2)
            for rows in [np.concatenate([part[i], part[j]])]
            for a, b in zip(self.probes[i], self.probes[j], strict=True)
        ]
        return float(np.mean(found)) if found else math.nan

    def _costs(self, memory: bool, scaling: bool | Sequence[int]) -> None:
        """Memory in one more fit, without the clock; and time over sub-samples."""
        train = self.task.splits[0][0]
        if memory:
            with PeakMemory() as peak:
                self.task.fit(self.estimator, train)
            self.extra["peak_memory_mb"] = peak.mb
        if scaling is not False:
            sizes = _scaling_sizes(scaling, len(train))
            order = np.random.default_rng(self.task.seed).permutation(train)
            self.extra["scaling_exponent"] = growth(
                lambda n: self.task.fit(self.estimator, order[:n]), sizes
            )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _scaling_sizes(scaling: bool | Sequence[int], n: int) -> list[int]:
    sizes = [n // 8, n // 4, n // 2, n] if scaling is True else [int(s) for s in scaling]  # type: ignore[union-attr]
    if len(set(sizes)) < 2 or min(sizes) < 2 or max(sizes) > n:
        raise ValueError(f"scaling needs two or more sizes from 2 to {n} rows, got {sizes}")
    return sizes
