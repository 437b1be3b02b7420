"""Groups of rows that are in one fold: dealt alike in memory, in batches, in streams, in Dask."""

from __future__ import annotations

import inspect
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from .registry import Model, every, fitted
from .test_batches import parts
from .test_dask_rows import lazy

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of the first few rows


def takes_groups(model: Model) -> bool:
    named = "groups" in inspect.signature(model.make().fit).parameters
    return named and isinstance(model.folds, int)


LABELS = np.array(["cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"])


def groups_of(n: int) -> Any:
    """Labels of groups of unlike sizes whose rows are scattered, no row of the first 30 alone."""
    rng = np.random.default_rng(4)
    return LABELS[rng.choice(8, size=n, p=np.array([5, 1, 3, 1, 2, 1, 2, 1]) / 16)]


def by_hand(groups: Any, folds: int) -> Any:
    order = list(dict.fromkeys(groups.tolist()))
    return np.array([order.index(label) % folds for label in groups.tolist()])


def fit(model: Model, rows: Any, groups: Any, est: Any = None, method: str = "fit") -> Any:
    est = model.make() if est is None else est
    return getattr(est, method)(*model.args(rows), groups=groups)


def by_hand_splits(groups: Any, folds: int) -> Any:
    ids = by_hand(groups, folds)
    return [(np.flatnonzero(ids != k), np.flatnonzero(ids == k)) for k in range(folds)]


@every(takes_groups)
def test_rows_of_a_group_are_in_one_fold(model: Model) -> None:
    rows = model.rows()
    groups = groups_of(len(rows))
    found = fit(model, rows, groups)
    chosen = model.make().set_params(cv=by_hand_splits(groups, model.folds))
    chosen.fit(*model.args(rows))
    model.compare(model.everything(found, rows), model.everything(chosen, rows))
    if hasattr(found, "cv_scores_"):
        assert not np.array_equal(found.cv_scores_, fitted(model).cv_scores_)


@every(lambda m: takes_groups(m) and m.partial and not m.mapped, door=True)
def test_batches_and_streams_deal_groups_as_fit_does(model: Model) -> None:
    rows, cuts = model.rows(), (0, 7, 8, 50, 90)
    groups = groups_of(len(rows))
    expected = model.everything(fit(model, rows, groups), rows)
    stream = model.make().fit(iter([model.batch(p) for _, p in parts(rows, cuts)]), groups=groups)
    model.compare(model.everything(stream, rows), expected)
    est = fit(model, rows.take(slice(0, 40)), groups[:40])
    est = pickle.loads(pickle.dumps(est))  # which groups there were is kept
    for a, b in itertools.pairwise((40, 41, 90)):
        fit(model, rows.take(slice(a, b)), groups[a:b], est, "partial_fit")
    model.compare(model.everything(est, rows), expected)


@every(lambda m: takes_groups(m) and m.moments and not m.mapped, door=True)
def test_fold_moments_deal_groups_as_fit_does(model: Model) -> None:
    rows = model.rows()
    groups = groups_of(len(rows))
    folds = model.moments_of(None, rows, folds=by_hand_splits(groups, model.folds))
    found = model.everything(model.make().fit_moments(folds), rows)
    model.compare(found, model.everything(fit(model, rows, groups), rows))


@pytest.mark.dask
@every(lambda m: takes_groups(m) and m.dask == "fit", variants=None, door=True)
def test_dask_deals_groups_as_fit_does(model: Model) -> None:
    rows = model.rows()
    groups = groups_of(len(rows))
    found = model.everything(fit(model, lazy(rows), groups), rows)
    model.compare(found, model.everything(fit(model, rows, groups), rows))


@every(takes_groups, variants=None)
@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (np.arange(7), r"groups has shape \(7,\), expected \(90,\): one label for each row"),
        (np.where(np.arange(90) == 3, np.nan, 1.0), "no label in 1 rows, the first is row 3"),
        ([None] * 90, "none missing"),
        (["a"] * 90, r"folds of 1 groups"),
    ],
)
def test_groups_that_are_no_groups_raise(model: Model, groups: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit(model, model.rows(), groups)


@every(lambda m: takes_groups(m) and m.partial and not m.mapped, variants=None, door=True)
def test_some_rows_with_and_some_without_groups_raise(model: Model) -> None:
    rows = model.rows()
    est = fit(model, rows, groups_of(len(rows)))
    with pytest.raises(ValueError, match="come without groups and those before came with"):
        est.partial_fit(*model.args(rows))


@every(takes_groups, variants=None)
def test_groups_can_be_routed(model: Model) -> None:
    est: BaseEstimator = model.make()
    assert "groups" in est.get_metadata_routing().fit.requests
