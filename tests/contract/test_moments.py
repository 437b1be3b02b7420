"""fit = fit_moments and score = score_moments: moments are all a model of moments needs."""

from __future__ import annotations

import functools
import operator

import pytest

from cmstats import MomentsSearchCV

from .registry import Model, every, fitted, weightings, weights_of


@every(lambda m: m.moments)
def test_fit_is_fit_moments(model: Model) -> None:
    rows = model.rows()
    for weighted in weightings(model):
        est, w = fitted(model, weighted), weights_of(len(rows)) if weighted else None
        found = model.fresh(est).fit_moments(model.moments_of(est, rows, w, model.folds))
        model.compare(model.everything(found, rows), model.everything(est, rows))


@every(lambda m: m.moments and m.folds is None, variants=None)
def test_folds_are_merged_where_nothing_is_chosen(model: Model) -> None:
    rows, est = model.rows(), fitted(model)
    found = model.fresh(est).fit_moments(model.moments_of(est, rows, folds=4))
    model.compare(model.everything(found, rows), model.everything(est, rows))


@every(lambda m: m.moments and m.folds is None, variants=None)
def test_parts_add_up(model: Model) -> None:
    rows, est = model.rows(), fitted(model)
    parts = [rows.take(slice(a, b)) for a, b in ((0, 31), (31, 32), (32, len(rows)))]
    total = functools.reduce(operator.add, (model.moments_of(est, part) for part in parts))
    found = model.fresh(est).fit_moments(total)
    model.compare(model.everything(found, rows), model.everything(est, rows))


@every(lambda m: m.moments)
def test_score_is_score_moments(model: Model) -> None:
    rows, est = model.rows(60, seed=1), fitted(model)
    for w in (None, weights_of(len(rows))):
        expected = est.score_moments(model.moments_of(est, rows, w))
        assert model.score_of(est, rows, w) == pytest.approx(expected, abs=model.atol)


@every(lambda m: m.moments and m.folds is not None, variants=None)
def test_one_moments_has_no_folds(model: Model) -> None:
    est = fitted(model)
    with pytest.raises(ValueError, match=r"fold|split"):
        model.fresh(est).fit_moments(model.moments_of(est, model.rows()))


@every(lambda m: m.moments and not m.mapped and m.cls is not MomentsSearchCV, variants=False)
def test_what_is_no_moments_raises(model: Model) -> None:
    for wrong in (next(iter(model.rows().views.values())), "x"):
        with pytest.raises(TypeError, match="takes Moments"):
            model.fresh(fitted(model)).fit_moments(wrong)
