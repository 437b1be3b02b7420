""" "cv" chooses what a search by hand on the folds chooses, by the same scores."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold

from cmstats import CCA, retrieval_report

from .registry import Model, every, fitted

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of small folds


def fold_score(model: Model, est: Any, rows: Any) -> float:
    """The score by which "cv" chooses: a mean log-likelihood ratio, or that of `score`."""
    if model.chooses_by == "MRR":
        kind = {} if model.many else {"kind": "likelihood_ratio"}
        views = list(est.embed(*model.args(rows), **kind))
        pairs = itertools.combinations(views, 2)
        return float(np.mean([retrieval_report(u, v).loc["mean", "MRR"] for u, v in pairs]))
    if model.chooses_by == "correlation":
        return float(CCA(shrinkage=est.shrinkage).fit_moments(est.moments_).score(rows.x, rows.y))
    if model.chooses_by:
        return float(getattr(est, model.chooses_by)(model.moments_of(est, rows)))
    return model.score_of(est, rows)


def chosen_by_hand(model: Model, est: Any, ids: Any) -> None:
    rows, folds = model.rows(), range(int(ids.max()) + 1)
    candidates = est.cv_shrinkages_[::3]
    scores = [
        [
            fold_score(
                model,
                model.fit(rows.take(ids != k), None, clone(est).set_params(shrinkage=s)),
                rows.take(ids == k),
            )
            for k in folds
        ]
        for s in candidates
    ]
    np.testing.assert_allclose(est.cv_scores_[::3], scores, atol=1e-8)
    best = int(np.argmax(np.mean(est.cv_scores_, axis=1)))
    assert tuple(est.shrinkage_) == tuple(est.cv_shrinkages_[best])


def chooses(model: Model) -> bool:
    return "shrinkage" in model.make().get_params() and isinstance(model.folds, int)


@every(lambda m: chooses(m) and not m.missing and not m.mapped)
def test_cv_is_a_search_by_hand_on_the_folds(model: Model) -> None:
    chosen_by_hand(model, fitted(model), model.fold_ids(len(model.rows())))


@every(lambda m: chooses(m) and not m.missing and not m.mapped, variants=None)
def test_folds_may_be_a_splitter_its_splits_or_fold_moments(model: Model) -> None:
    rows = model.rows()
    cv = KFold(3, shuffle=True, random_state=0)
    est = model.fit(rows, None, model.make().set_params(cv=cv))
    ids = np.empty(len(rows), dtype=int)
    for k, (_, test) in enumerate(cv.split(ids)):
        ids[test] = k
    chosen_by_hand(model, est, ids)
    splits = model.make().set_params(cv=cv.split(ids))
    expected = model.everything(est, rows)
    model.compare(model.everything(model.fit(rows, None, splits), rows), expected)
    moments = model.fresh(est).fit_moments(model.moments_of(est, rows, folds=cv))
    model.compare(model.everything(moments, rows), expected)
