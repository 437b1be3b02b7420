""" "cv" chooses what a search by hand on the folds chooses, by the same scores."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold

from cmstats import CCA, ConditionalGaussian, MultitaskRegressor, retrieval_report
from cmstats.arrays import to_numpy
from cmstats.rows import BlockedKFold

from .registry import Model, every, fitted
from .rows import assert_same, fitted_numbers
from .test_dask_rows import lazy

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


def chooses_with_gaps(model: Model) -> bool:
    """Whether it chooses on the moments of folds of rows with gaps."""
    given = model.make().get_params()
    known = {"missing", "estimator__missing"} & set(given)
    return model.folds is not None and bool(known) and model.has("fit_moments")


def with_column_missing(model: Model, at: Any) -> tuple[Any, Any]:
    """An estimator for rows with gaps, and rows that lack the first column in some rows."""
    est = model.make()
    name = "missing" if "missing" in est.get_params() else "estimator__missing"
    solver = name.replace("missing", "solver")
    given = {solver: "auto"} if solver in est.get_params() else {}
    rows = model.rows()
    first, v = next(iter(rows.views.items()))
    values = v.copy()
    values[at, 0] = np.nan
    return est.set_params(**{name: "em"}, **given), rows.but(first, values)


@every(chooses_with_gaps, variants=None)
def test_a_fold_that_lacks_a_column_has_no_score(model: Model) -> None:
    ids = model.fold_ids(len(model.rows()))
    est, rows = with_column_missing(model, ids == 1)
    with pytest.warns(UserWarning, match="in fold 1 column 0 of .* is NaN in every row"):
        model.fit(rows, None, est)
    scores = getattr(est, "cv_scores_", None)
    if hasattr(est, "best_index_"):
        names = sorted(name for name in est.cv_results_ if name.startswith("split"))
        scores = np.stack([est.cv_results_[name] for name in names], axis=1)
    assert scores is not None
    if not isinstance(est, MultitaskRegressor):
        assert np.isnan(scores[:, 1]).all()
        assert not np.isnan(np.delete(scores, 1, axis=1)).all(axis=0).any()
        return
    if est.rank is None and est.bands is None:  # means over the other folds
        alpha, by_hand = to_numpy(est.alphas)[2], []
        for k in {*ids.tolist()} - {1}:
            fixed = clone(est).set_params(alpha=alpha)
            model.fit(rows.take(ids != k), None, fixed)
            held = rows.take((ids == k) & ~np.isnan(np.c_[rows.x, rows.y]).any(axis=1))
            by_hand.append(fixed.score_tasks(held.x, held.y))
        np.testing.assert_allclose(scores[2], np.mean(by_hand, axis=0))
    assert np.isfinite(scores).all()


@every(chooses_with_gaps, variants=None)
def test_a_column_of_one_fold_is_named_with_the_fold(model: Model) -> None:
    est, rows = with_column_missing(model, model.fold_ids(len(model.rows())) != 1)
    with pytest.raises(ValueError, match=r"no fold has a score to choose by.*fold 0 column 0 of"):
        model.fit(rows, None, est)


@every(chooses_with_gaps, variants=None)
def test_a_column_of_no_row_is_named(model: Model) -> None:
    est, rows = with_column_missing(model, slice(None))
    with pytest.raises(ValueError, match=r"^column 0 of .* is NaN in every row: drop it"):
        model.fit(rows, None, est)


def chooses_numbers(model: Model) -> bool:
    """Whether what it chooses are parameters that a user can set."""
    return model.folds is not None and not model.mapped and "bands" not in model.name


@every(chooses_numbers)
def test_rows_of_gaps_are_in_the_fit_and_in_no_fold(model: Model) -> None:
    rows, cv = model.rows(), BlockedKFold(3, gap=4)
    est = model.fit(rows, None, model.make().set_params(cv=cv))
    if hasattr(est, "best_estimator_"):
        found, fixed = est.best_estimator_, clone(est.best_estimator_)
    else:
        names = {name: getattr(est, f"{name}_") for name in est._open_parameters()}
        found, fixed = est, clone(est).set_params(**names)
    expected = fitted_numbers(model.fit(rows, None, fixed))
    numbers = {k: v for k, v in fitted_numbers(found).items() if k in expected}
    if not (model.missing and model.cls is ConditionalGaussian):  # it chooses a marginal as well
        assert_same(numbers, expected, model.atol, signless=model.signless)
    assert float(np.max(found.n_samples_)) == len(rows) or model.missing
    if model.moments and hasattr(est, "cv_scores_"):
        moments = model.fresh(est).fit_moments(model.moments_of(est, rows, folds=cv))
        np.testing.assert_allclose(est.cv_scores_, moments.cv_scores_, atol=1e-10)


@pytest.mark.dask
@every(lambda m: chooses_numbers(m) and m.dask == "fit", variants=None)
def test_dask_takes_in_the_rows_of_gaps_too(model: Model) -> None:
    rows, cv = model.rows(), BlockedKFold(3, gap=4)
    expected = model.fit(rows, None, model.make().set_params(cv=cv))
    found = model.fit(lazy(rows), None, model.make().set_params(cv=cv))
    model.compare(model.everything(found, rows), model.everything(expected, rows))


@every(lambda m: chooses_numbers(m) and m.partial, variants=None)
def test_batches_have_no_folds_with_gaps(model: Model) -> None:
    rows, est = model.rows(), model.make().set_params(cv=BlockedKFold(3, gap=4))
    with pytest.raises(ValueError, match="cv must be an int"):
        model.fit(rows, None, clone(est), "partial_fit")
    with pytest.raises(ValueError, match="cv must be an int"):
        est.fit(iter([model.batch(rows)]))
