"""Labels of rows: the same in another order, or some of them, never pair rows by position."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from cmstats import (
    CCA,
    CrossModalRetriever,
    Moments,
    MomentsSearchCV,
    TwoViewPipeline,
    bootstrap,
    check_pairs,
    compare,
    correlation_intervals,
    map_rows,
    permutation_test,
    retrieval_report,
    suggest_models,
    write_shards,
)
from cmstats.metrics import HubnessCorrection, linear_cka
from cmstats.model_selection.comparison import learning_curves

from .registry import Model, every, fitted
from .rows import N, Rows

ORDER = np.random.default_rng(3).permutation(N)
two_views = lambda m: len(m.rows(5).views) > 1  # noqa: E731


def labelled(rows: Rows, **indexes: Any) -> Rows:
    """Frames with an index of labels, "s0", "s1", ... unless another is given for a view."""
    views = {}
    for name, a in rows.views.items():
        index = indexes.get(name, [f"s{i}" for i in range(len(a))])
        views[name] = pd.DataFrame(
            a, index=index, columns=[f"{name}{j}" for j in range(a.shape[1])]
        )
    return Rows(views, rows.labels)


def last_of(rows: Rows) -> str:
    return list(rows.views)[-1]


@every(two_views, variants=False)
def test_labels_in_another_order_are_refused(model: Model) -> None:
    rows = labelled(model.rows())
    last = last_of(rows)
    mixed = rows.but(last, rows.views[last].iloc[ORDER])
    for method in ("fit", "partial_fit") if model.partial else ("fit",):
        with pytest.raises(ValueError, match=r"have the labels of .* in another order.*\.index\]"):
            model.fit(mixed, None, model.make(), method)
    est = model.fit(rows)
    if model.score:
        with pytest.raises(ValueError, match="in another order"):
            model.score_of(est, mixed)
    for name in ("transform", "embed", "similarity", "fuse", "logpdf", "outlier_scores"):
        if model.has(name):
            with pytest.raises(ValueError, match=r"in another order|has no encoder of y"):
                getattr(est, name)(*model.args(mixed))


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (np.arange(100, 160), [f"{i}" for i in range(100, 160)]),
        (pd.RangeIndex(60), [f"{i:03d}" for i in range(60)]),
        ([f"s{i}" for i in range(60)], [f"S{i} " for i in range(60)]),
    ],
)
def test_labels_that_are_equal_as_text_are_equal(own: Any, other: Any) -> None:
    x, y = X.set_axis(own, axis=0), Y.set_axis(other, axis=0)
    np.testing.assert_array_equal(CCA().fit(x, y).correlations_, CCA().fit(X, Y).correlations_)
    with pytest.raises(ValueError, match=r"in another order.*are not written alike"):
        CCA().fit(x, y.iloc[MIXED])


@every(two_views, variants=False)
def test_labels_of_which_some_are_shared_are_refused(model: Model) -> None:
    rows = labelled(model.rows())
    last = last_of(rows)
    some = {k: v.iloc[:-5] if k == last else v.iloc[5:] for k, v in rows.views.items()}
    labels = None if rows.labels is None else rows.labels[5:]
    with pytest.raises(ValueError, match=f"{N - 10} of the {N - 5} labels.*intersection"):
        model.fit(Rows(some, labels))


@every(two_views, variants=False)
def test_labels_with_nothing_in_common_and_ranges_are_positions(model: Model) -> None:
    plain = model.rows()
    last = last_of(plain)
    expected = model.calls(fitted(model), plain.take(slice(0, 9)))
    for index in (np.arange(N) + 1000, pd.RangeIndex(7, N + 7), [f"t{i}" for i in range(N)]):
        found = model.fit(labelled(plain, **{last: index}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rows without names
            model.compare(model.calls(found, plain.take(slice(0, 9))), expected, 1e-9)


@every(lambda m: m.weights, variants=False)
def test_weights_are_paired_by_label_too(model: Model) -> None:
    rows = labelled(model.rows())
    weights = pd.Series(np.ones(N), index=next(iter(rows.views.values())).index[ORDER])
    with pytest.raises(ValueError, match=r"sample_weight have the labels of .* in another order"):
        model.fit(rows, weights)


@every(two_views, variants=False)
def test_a_column_of_ids_in_another_order_is_refused(model: Model) -> None:
    polars = pytest.importorskip("polars")
    rows = model.rows()
    last = last_of(rows)
    views = {}
    for name, a in rows.views.items():
        ids = ORDER if name == last else np.arange(N)
        views[name] = polars.DataFrame({**{f"{name}{j}": c for j, c in enumerate(a.T)}, "id": ids})
    with pytest.raises(ValueError, match=r"same ids in another order.*join\(\w+, on='id'\)"):
        model.fit(Rows(views, rows.labels))


@every(two_views, variants=False)
def test_a_column_that_two_views_share_is_warned_of(model: Model) -> None:
    rows = model.rows()
    ids = np.arange(float(N))[:, None] * 0.1
    with pytest.warns(UserWarning, match=r"column \d+ of \w+ and column \d+ of \w+ are equal"):
        model.fit(rows.map(lambda a: np.hstack([a, ids])))


# ------------------------------------------------------------- functions and meta-estimators
Z = np.random.default_rng(0).normal(size=(60, 2))
INDEX = [f"s{i}" for i in range(60)]
X = pd.DataFrame(np.c_[Z, Z[:, ::-1] ** 2], INDEX, list("abcd"))
Y = pd.DataFrame(Z + np.random.default_rng(1).normal(size=(60, 2)), INDEX, list("ef"))
G = pd.Series(np.arange(60) // 4, INDEX)
MIXED = np.random.default_rng(2).permutation(60)
IDS = np.arange(1000, 1060)
YS, GS = Y.iloc[MIXED], G.iloc[MIXED]
SCALED = TwoViewPipeline(CCA(1, shrinkage="cv"), x=StandardScaler(), y=StandardScaler())
GRID = {"shrinkage": [0.1]}

CALLS: dict[str, Any] = {
    "permutations": lambda: permutation_test(X, YS),
    "permutations, Z": lambda: permutation_test(X, Y, Z=YS),
    "permutations, blocks": lambda: permutation_test(X, Y, blocks=GS),
    "intervals, Z": lambda: correlation_intervals(X, Y, Z=YS),
    "intervals, groups": lambda: correlation_intervals(X, Y, groups=GS),
    "bootstrap, groups": lambda: bootstrap(CCA(1), X, Y, "x_weights_", groups=GS),
    "compare": lambda: compare({"CCA": CCA(1)}, X, YS),
    "compare, groups": lambda: compare({"CCA": CCA(1)}, X, Y, groups=GS),
    "curves, groups": lambda: learning_curves({"CCA": CCA(1)}, X, Y, groups=GS),
    "search": lambda: MomentsSearchCV(CCA(1), GRID).fit(X, YS),
    "search, groups": lambda: MomentsSearchCV(CCA(1), GRID).fit(X, Y, groups=GS),
    "search, weights": lambda: MomentsSearchCV(CCA(1), GRID).fit(X, Y, sample_weight=1.0 + GS),
    "retriever, groups": lambda: CrossModalRetriever(time_budget=0).fit(X, Y, groups=GS),
    "pipeline, groups": lambda: SCALED.fit(X, Y, groups=GS),
    "pipeline, weights": lambda: SCALED.fit(X, Y, sample_weight=1.0 + GS),
    "suspects": lambda: check_pairs(X, YS),
    "suspects, groups": lambda: check_pairs(X, Y, groups=GS),
    "suggestions": lambda: suggest_models(X, YS),
    "alignment": lambda: linear_cka(X, YS),
    "report": lambda: retrieval_report(Y, YS),
    "report, labels": lambda: retrieval_report(Y, Y, labels=GS),
    "report, scores": lambda: retrieval_report(pd.DataFrame(np.eye(60), Y.index, YS.index)),
    "report, ids": lambda: retrieval_report(Y, Y, x_ids=G, y_ids=GS),
    "hubness": lambda: HubnessCorrection().fit(Y, YS),
    "moments": lambda: Moments.from_data(x=X, y=YS),
    "batches": lambda: Moments.from_batches([(X, Y), (X, YS)]),
    "residuals": lambda: Moments.from_data(x=X, y=Y).partial_out("y").residuals(x=X, y=YS),
    "runs": lambda: list(map_rows(lambda x, y: 0, X, YS)),
    "shards": lambda: write_shards(tempfile.mkdtemp(), [(X, Y), (X, YS)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_refuse_labels_in_another_order_too(name: str) -> None:
    with pytest.raises(ValueError, match=r"have the labels of .* in another order.*\.index\]"):
        CALLS[name]()


def test_ids_are_known_by_their_names_however_written() -> None:
    x, y = X.assign(subject_id=IDS), Y.assign(SubjectID=IDS * 1.0)
    with pytest.raises(ValueError, match=r"'subject_id' of X and 'SubjectID' of y have the same"):
        CCA().fit(x, y.iloc[MIXED].set_axis(INDEX, axis=0))
    with pytest.warns(UserWarning, match=r"\('subject_id'\) of X has another whole number"):
        CCA(1).fit(x, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CCA(1).fit(X.assign(item_1=IDS % 5, sample_1=IDS + 0.5), Y)
